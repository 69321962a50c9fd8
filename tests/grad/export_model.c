/* A whole model's gradients, in double, against central differences of its loss: some elements of every tensor,
 * and the derivative along the tensor's gradient, which is its norm. */
#include "export_double.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "train/pass.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TEXTS = 4, ROWS = 27, ELEMENTS = 6 };

/* Texts of different lengths; every fifth row has no target. */
typedef struct sample {
    int32_t tokens[ROWS], positions[ROWS], targets[ROWS];
    uint32_t rows[ROWS];
    kh_span spans[TEXTS];
    kh_data_item items[TEXTS];
    kh_data_batch data;
} sample;

typedef struct proof {
    const kh_grad_model *o;
    kh_params *params;
    kh_pass *pass;
    sample s;
    double whole, worst; /* norm of all gradients; largest relative error */
} proof;

/* pairs: each second text stands behind the one before it. */
static void make_sample(sample *s, int V, int pairs)
{
    static const size_t lengths[TEXTS] = {9, 6, 5, 7};
    size_t row = 0, wanted = 0, items = 0;
    *s = (sample){0};
    for (size_t i = 0; i < TEXTS; i++) {
        kh_data_item item = {.document = i, .row = row, .rows = lengths[i], .label = -1};
        s->spans[i] = (kh_span){(int)i, row, lengths[i], 0};
        for (size_t t = 0; t < lengths[i]; t++, row++) {
            s->tokens[row] = (int32_t)((row * 37 + 11) % (size_t)V);
            s->positions[row] = (int32_t)t;
            s->targets[row] = row % 5 == 3 ? -1 : (int32_t)((row * 53 + 5) % (size_t)V);
            if (s->targets[row] >= 0) s->rows[wanted++] = (uint32_t)row;
        }
        if (pairs && i % 2) {
            item = s->items[--items];
            item.second = item.row + item.rows;
            item.rows += lengths[i];
        }
        s->items[items++] = item;
    }
    s->data = (kh_data_batch){.batch = {.n = ROWS,
                                        .tokens = s->tokens,
                                        .position = s->positions,
                                        .spans = s->spans,
                                        .span_count = TEXTS,
                                        .logit_rows = s->rows,
                                        .logit_count = wanted},
                              .targets = s->targets,
                              .items = s->items,
                              .item_count = items};
}

static kh_status loss_of(proof *p, double *nats)
{
    kh_loss loss = {0};
    KH_TRY(kh_pass_loss(p->pass, &p->s.data, &loss));
    *nats = loss.nats;
    return KH_OK;
}

/* The difference when w moves by multiples of `step` times `along` (NULL: element k alone). */
static kh_status difference(proof *p, float *w, size_t n, const float *along, size_t k, double step,
                            double *out)
{
    static const double places[] = {1, -1, 2, -2};
    double at[4];
    float *before = kh_alloc(n * sizeof *before);
    memcpy(before, w, n * sizeof *w);
    kh_status status = KH_OK;
    for (int i = 0; i < 4 && !status; i++) {
        for (size_t j = 0; along && j < n; j++) w[j] = before[j] + places[i] * step * along[j];
        if (!along) w[k] = before[k] + places[i] * step;
        status = loss_of(p, &at[i]);
    }
    memcpy(w, before, n * sizeof *w);
    kh_free(before);
    if (status) return status;
    *out = (8 * (at[0] - at[1]) - (at[2] - at[3])) / (12 * step);
    return KH_OK;
}

/* Where a choice changes within a difference, a smaller step finds none that does. */
static kh_status judge(proof *p, const kh_tensor_spec *t, const float *along, size_t k, double have,
                       double size)
{
    float *w = p->params->weights + t->offset;
    double best = INFINITY, closest = NAN;
    for (int i = 0; i < 3 && !(best <= 1e-6); i++) {
        double found, step = pow(10.0, -4.0 - i);
        KH_TRY(difference(p, w, t->count, along, k, along ? step / have : step, &found));
        if (along) found /= have;
        if (!(fabs(found - have) / size < best)) continue;
        best = fabs(found - have) / size;
        closest = found;
    }
    if (best > p->worst) p->worst = best;
    if (!(best <= 1e-6))
        KH_FAIL(KH_ERR_STATE, "%s, element %zu of %zu: gradient %.12g, differences %.12g", t->name,
                k, t->count, have, closest);
    return KH_OK;
}

/* Some elements, and all of them along the gradient, where the derivative is its norm. */
static kh_status prove_tensor(proof *p, const kh_tensor_spec *t)
{
    float *g = p->params->gradients + t->offset;
    double squares = 0, largest = 0, least = 1e-5 * p->whole;
    for (size_t j = 0; j < t->count; j++) {
        squares += g[j] * g[j];
        largest = fmax(largest, fabs(g[j]));
    }
    double norm = sqrt(squares);
    if (norm > 0) KH_TRY(judge(p, t, g, t->count, norm, fmax(norm, least)));
    size_t each = t->count / ELEMENTS + 1;
    for (size_t k = t->offset % each; k < t->count; k += each)
        KH_TRY(judge(p, t, NULL, k, g[k], fmax(fabs(g[k]), fmax(1e-2 * largest, least))));
    return KH_OK;
}

static kh_status prove(proof *p)
{
    const kh_grad_model *o = p->o;
    kh_model *model = NULL;
    KH_TRY(kh_model_open_network(&model, o->path));
    kh_status status = kh_params_open(&p->params, model->file);
    kh_model_close(model);
    if (status) return status;
    kh_pass_options options = {
        .rows = ROWS, .spans = TEXTS, .threads = 1, .attn = o->attn, .ff = o->ff};
    options.recompute = o->recompute ? KH_RECOMPUTE_BLOCK : KH_RECOMPUTE_NONE;
    KH_TRY(kh_pass_open(&p->pass, p->params, &options));
    make_sample(&p->s, p->params->model->d.V, p->params->model->d.structure == KH_ENCODER_DECODER);
    kh_loss loss = {0};
    KH_TRY(kh_pass_gradient(p->pass, &p->s.data, 1, 0, &loss));
    for (size_t j = 0; j < p->params->count; j++)
        p->whole += p->params->gradients[j] * p->params->gradients[j];
    p->whole = sqrt(p->whole);
    if (!(p->whole > 0)) KH_FAIL(KH_ERR_STATE, "no gradient");
    for (size_t i = 0; i < p->params->tensor_count; i++)
        if (!p->params->frozen[i]) KH_TRY(prove_tensor(p, &p->params->tensors[i]));
    return KH_OK;
}

int kh_grad_prove_model(const kh_grad_model *o, double *worst, char *said, size_t size)
{
    proof p = {.o = o};
    kh_status status = prove(&p);
    snprintf(said, size, "%s", status ? kh_last_error() : "");
    *worst = p.worst;
    kh_pass_close(p.pass);
    kh_params_close(p.params);
    return status;
}
