/* Scores of a text: negative log likelihood, and distance to a reference run.
 *
 *     nll(i)  = log sum exp(logits) - logits[id i+1]
 *     KL(i)   = sum over the vocabulary of p_ref (log p_ref - log p), in nats
 *     same(i) = the most probable token is the reference's
 *
 * The reference's log-probabilities go through an unlinked file: row j of the kept rows is V floats at
 * j * V * 4. When a gigabyte would not hold all rows, every n-th is kept and compared (the count is
 * reported); perplexity always uses every row.
 *
 * The time of head products and of scoring is not reading: a probe at the final norm starts a clock and
 * each chunk of logits stops it, so that a method's reading time is comparable with a run that asks for
 * one row of logits only.
 *
 * Sums are double; the exponentials of a row are f32 with f64 sums of pieces (kh_log_sum_exp). */
#include "bench/score.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "gen/sampler.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

kh_status kh_reference_open(kh_reference *out, size_t rows, size_t V)
{
    const double most = 1073741824.0;
    double bytes = (double)rows * (double)V * sizeof(float);
    *out = (kh_reference){.fd = -1, .V = V, .every = (size_t)(bytes / most) + 1};
    const char *folder = getenv("TMPDIR");
    char path[512];
    snprintf(path, sizeof path, "%s/keyhole.XXXXXX", folder && folder[0] ? folder : "/tmp");
    out->fd = mkostemp(path, O_CLOEXEC);
    if (out->fd < 0)
        KH_FAIL(KH_ERR_IO, "%s: a temporary file cannot be made: %s", path, strerror(errno));
    unlink(path);
    return KH_OK;
}

void kh_reference_close(kh_reference *reference)
{
    if (reference->fd >= 0) close(reference->fd);
    reference->fd = -1;
}

static kh_status transfer(const kh_reference *r, float *row, size_t index, int writes)
{
    char *at = (char *)row;
    size_t left = r->V * sizeof(float);
    off_t offset = (off_t)(index * left);
    while (left > 0) {
        ssize_t n = writes ? pwrite(r->fd, at, left, offset) : pread(r->fd, at, left, offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            KH_FAIL(KH_ERR_IO, "the reference in the temporary folder cannot be %s: %s",
                    writes ? "written" : "read", n < 0 ? strerror(errno) : "it is too short");
        at += n;
        offset += n;
        left -= (size_t)n;
    }
    return KH_OK;
}

size_t kh_score_largest(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

static kh_status compare(kh_score *s, const float *logits, double norm, size_t index)
{
    const kh_reference *r = s->reference;
    if (!r || index % r->every != 0) return KH_OK;
    if (s->is_reference) {
        for (size_t i = 0; i < s->V; i++) s->other[i] = (float)((double)logits[i] - norm);
        s->compared++;
        s->same++;
        return transfer(r, s->other, index / r->every, 1);
    }
    KH_TRY(transfer(r, s->other, index / r->every, 0));
    s->kern->exp_sum(s->scratch, s->other, s->V, 1.0f, 0.0f);
    double kl = 0;
    float shift = (float)norm;
    for (size_t i = 0; i < s->V; i++)
        kl += (double)(s->scratch[i] * (s->other[i] - (logits[i] - shift)));
    s->kl += kl > 0 ? kl : kl < 0 ? 0 : kl; /* below 0 by rounding alone */
    s->compared++;
    s->same += kh_score_largest(logits, s->V) == kh_score_largest(s->other, s->V);
    return KH_OK;
}

static kh_status take(void *context, size_t first, size_t rows, const float *logits)
{
    kh_score *s = context;
    for (size_t i = 0; i < rows; i++, logits += s->V) {
        size_t at = s->base + first + i;
        if (at < s->from || at + 1 >= s->n) continue;
        double norm = kh_log_sum_exp(s->kern, s->scratch, logits, s->V);
        double nll = norm - (double)logits[s->ids[at + 1]];
        KH_TRY(compare(s, logits, norm, s->tokens));
        if (s->token_nll) s->token_nll[at + 1] = (float)nll;
        s->nll += nll;
        s->tokens++;
        if (at < s->half) continue;
        s->nll_second += nll;
        s->tokens_second++;
    }
    double now = kh_cpu_seconds();
    s->seconds += now - s->mark;
    s->mark = now;
    return KH_OK;
}

static void start_clock(void *context, kh_point point, int layer, float *data, size_t rows,
                        size_t width)
{
    (void)point;
    (void)layer;
    (void)data;
    (void)rows;
    (void)width;
    ((kh_score *)context)->mark = kh_cpu_seconds();
}

kh_status kh_score_open(kh_score *s, size_t V, const kh_reference *reference, int is_reference)
{
    *s = (kh_score){.kern = kh_kern_get(kh_cpu_isa()),
                    .reference = reference,
                    .is_reference = is_reference,
                    .V = V};
    s->clock = (kh_probe){
        .context = s, .points = UINT64_C(1) << KH_POINT_FINAL_NORM, .point = start_clock};
    s->read = (kh_read_options){.logits = take, .logits_context = s};
    KH_TRY(kh_new(&s->scratch, V, sizeof *s->scratch, "scores"));
    kh_status status = kh_new(&s->other, V, sizeof *s->other, "scores");
    if (status != KH_OK) kh_score_close(s);
    return status;
}

void kh_score_close(kh_score *s)
{
    kh_free(s->scratch);
    kh_free(s->other);
    s->scratch = s->other = NULL;
}

kh_status kh_score_window(kh_score *s, kh_session *session, const int32_t *ids, size_t n,
                          size_t from, float *token_nll)
{
    KH_TRY(kh_session_rewind(session, 0));
    s->ids = ids;
    s->n = n;
    s->from = from;
    s->half = n / 2;
    s->token_nll = token_nll;
    s->base = 0;
    if (from > 0) {
        kh_read_options plain = s->read;
        plain.logits = NULL;
        KH_TRY(kh_session_read(session, ids, from, &plain));
        s->base = from;
    }
    kh_session_observe(session, &s->clock);
    kh_status status = kh_session_read(session, ids + from, n - from, &s->read);
    kh_session_observe(session, NULL);
    return status;
}
