/* Rows of the residual stream as distributions: final norm, output head, and what is said of a row of logits.
 *
 * The head of a small model is a third of it, so the product of many rows at once is what a lens costs; a product's
 * rows are padded to eight, because very few rows take another way through ops/linear.c and other bits with it.
 *
 *     entropy       H = log Z - sum p x
 *     KL(p || q)    = sum p (x_p - x_q) + log Z_q - log Z_p        x: logits, Z: sum of their exponentials
 *
 * so rows that are the same are exactly 0 apart, and rows that are nearly so lose nothing to cancellation.
 *
 * Sums over the vocabulary are f32 in pieces of 4,096, and double over pieces. */
#include "inspect/distribution.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "gen/sampler.h"
#include "model/network.h"
#include "ops/linear.h"

#include <math.h>
#include <string.h>

enum { PIECE = 4096 };
#define LOGIT_BYTES ((size_t)64 << 20)

kh_status kh_distribution_open(kh_distribution *out, kh_inspector *i, size_t rows, size_t least)
{
    size_t V = (size_t)i->model->d.V, D = (size_t)i->model->d.D;
    size_t most = LOGIT_BYTES / (V * sizeof(float));
    if (most < least) most = least;
    if (most > KH_DISTRIBUTION_ROWS) most = KH_DISTRIBUTION_ROWS;
    if (rows > most) rows = most;
    if (rows < KH_DISTRIBUTION_LEAST) rows = KH_DISTRIBUTION_LEAST;
    *out = (kh_distribution){.inspector = i, .rows = rows};
    kh_status status = kh_new(&out->x, rows * D, sizeof *out->x, "rows of the stream");
    if (status == KH_OK) status = kh_new(&out->logits, rows * V, sizeof *out->logits, "logits");
    if (status == KH_OK)
        status = kh_new(&out->spare, (size_t)i->run.pool->threads * V, sizeof *out->spare,
                        "logits");
    if (status != KH_OK) kh_distribution_close(out);
    return status;
}

void kh_distribution_close(kh_distribution *r)
{
    kh_free(r->x);
    kh_free(r->logits);
    kh_free(r->spare);
    *r = (kh_distribution){0};
}

static size_t pad(kh_distribution *r, size_t rows)
{
    size_t D = (size_t)r->inspector->model->d.D;
    if (rows >= KH_DISTRIBUTION_LEAST) return rows;
    memset(r->x + rows * D, 0, (KH_DISTRIBUTION_LEAST - rows) * D * sizeof *r->x);
    return KH_DISTRIBUTION_LEAST;
}

kh_status kh_distribution_raw(kh_distribution *r, size_t rows)
{
    kh_inspector *i = r->inspector;
    KH_TRY(kh_inspector_go_on(i));
    return kh_op_linear(&i->run, r->logits, r->x, pad(r, rows), &i->model->w.head);
}

kh_status kh_distribution_run(kh_distribution *r, size_t rows, int capped)
{
    kh_inspector *i = r->inspector;
    KH_TRY(kh_inspector_go_on(i));
    rows = pad(r, rows);
    kh_forward_finish(i->model, &i->run, r->x, rows);
    return capped ? kh_forward_logits(i->model, &i->run, r->logits, r->x, rows)
                  : kh_op_linear(&i->run, r->logits, r->x, rows, &i->model->w.head);
}

/* ---- a row */

static double dot(const kh_kern *kern, const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i += PIECE) {
        size_t m = n - i < PIECE ? n - i : PIECE;
        float piece;
        kern->gemv_f32(&piece, a + i, m, 1, b + i, m);
        sum += (double)piece;
    }
    return sum;
}

kh_row_measures kh_row_measure(const kh_kern *kern, float *exps, const float *logits, size_t V)
{
    float top = kern->row_max(logits, V);
    double sum = 0;
    for (size_t i = 0; i < V; i += PIECE)
        sum += (double)kern->exp_sum(exps + i, logits + i, V - i < PIECE ? V - i : PIECE, 1.0f,
                                     top);
    double log_z = (double)top + log(sum), entropy = log_z - dot(kern, exps, logits, V) / sum;
    return (kh_row_measures){log_z, entropy > 0 ? entropy : 0};
}

double kh_row_kl(const kh_kern *kern, float *spare, const float *p, double p_log_z, const float *q,
                 double q_log_z, size_t V)
{
    double sum = 0, all = 0;
    for (size_t i = 0; i < V; i += PIECE) {
        size_t m = V - i < PIECE ? V - i : PIECE;
        float *share = spare + i;
        all += (double)kern->exp_sum(share, p + i, m, 1.0f, (float)p_log_z);
        for (size_t j = 0; j < m; j++)
            sum += (double)share[j] * ((double)p[i + j] - (double)q[i + j]);
    }
    double kl = sum / all + q_log_z - p_log_z;
    return kl < 0 ? 0 : kl;
}

kh_lens_token kh_row_token(const float *logits, double log_z, size_t V, int32_t id)
{
    float own = logits[id];
    uint32_t rank = 0;
    for (size_t i = 0; i < V; i++) rank += logits[i] > own || (logits[i] == own && i < (size_t)id);
    return (kh_lens_token){id, own, (float)exp((double)own - log_z), rank};
}

void kh_row_top(kh_lens_token *out, size_t n, const float *logits, double log_z, size_t V)
{
    kh_candidate found[KH_DISTRIBUTION_TOP];
    if (n == 0) return;
    kh_largest(found, n, logits, V);
    for (size_t i = 0; i < n; i++)
        out[i] = (kh_lens_token){found[i].id, found[i].logit,
                                 (float)exp((double)found[i].logit - log_z), (uint32_t)i};
}

void kh_row_bottom(kh_lens_token *out, size_t n, const float *logits, double log_z, size_t V,
                   float *spare)
{
    kh_candidate found[KH_DISTRIBUTION_TOP];
    if (n == 0) return;
    for (size_t i = 0; i < V; i++) spare[i] = -logits[i];
    kh_largest(found, n, spare, V);
    for (size_t i = 0; i < n; i++)
        out[i] = (kh_lens_token){found[i].id, -found[i].logit,
                                 (float)exp(-(double)found[i].logit - log_z),
                                 (uint32_t)(V - 1 - i)};
}

kh_status kh_row_ends(kh_vocabulary_end *top, kh_vocabulary_end *bottom, const float *logits,
                      size_t V, size_t n, float *spare)
{
    KH_TRY(kh_new(&top->tokens, n, sizeof *top->tokens, "tokens"));
    KH_TRY(kh_new(&bottom->tokens, n, sizeof *bottom->tokens, "tokens"));
    top->count = bottom->count = n;
    kh_row_top(top->tokens, n, logits, HUGE_VAL, V);
    kh_row_bottom(bottom->tokens, n, logits, HUGE_VAL, V, spare);
    return KH_OK;
}

void kh_vocabulary_end_free(kh_vocabulary_end *end)
{
    kh_free(end->tokens);
    *end = (kh_vocabulary_end){0};
}
