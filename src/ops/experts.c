/* A mixture of experts, expert by expert.
 *
 * Rows are sorted by expert, so that a weight is read once for all of its rows; what an expert makes of its
 * rows is added to theirs at once, in the order of the experts, so a row's sum does not depend on which
 * other rows are in the batch but for the rounding of products that choose their kernel by the number of
 * rows, and never on threads:
 *
 *     logits   [T][count]   router
 *     chosen   [T][used]    expert and share, ascending experts
 *     for each expert e with rows:   in [n][D] <- h;  gate, up [n][F];  out [n][D];  y[row] += share * out
 *
 * Memory is that of T rows, since all of them may meet one expert. Decoding has one row, which meets
 * `used` experts of one row each: the cost of a small dense layer.
 *
 * Routing: Shazeer et al., "Outrageously Large Neural Networks" (2017); the choice of softmax before the
 * cut, with or without renormalising, is that of Mixtral and of Qwen's mixtures. */
#include "ops/experts.h"

#include "base/fail.h"
#include "ops/linear.h"

#include <math.h>
#include <string.h>

typedef struct choice {
    uint32_t row;
    float share;
} choice;

typedef struct work {
    kh_run *run;
    const kh_expert_spec *spec;
    const kh_expert_weights *w;
    const kh_expert_hook *hook;
    size_t T, D;
    float *logits; /* [T][count] */
    choice *rows;  /* [T * used], by expert */
    size_t *first; /* [count + 1] */
    float *in, *out /* [T][D] */, *gate, *up /* [T][F or shared F] */;
} work;

static size_t widest(const kh_expert_spec *s)
{
    return (size_t)(s->shared_F > s->F ? s->shared_F : s->F);
}

void kh_experts_need(const kh_expert_spec *s, const kh_expert_weights *w, size_t T, size_t D,
                     size_t *step, size_t *scratch)
{
    size_t X = (size_t)s->count, f = sizeof(float), linear = 0;
    const kh_weight *all[] = {&w->router,      &w->gate,      &w->up,         &w->down,
                              &w->shared_gate, &w->shared_up, &w->shared_down};
    *scratch = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        kh_linear_need(all[i], T, &linear, scratch);
    *step = linear + kh_arena_need(T * X * f) +
            kh_arena_need(T * (size_t)s->used * sizeof(choice)) +
            kh_arena_need((X + 1) * sizeof(size_t)) + 2 * kh_arena_need(T * D * f) +
            2 * kh_arena_need(T * widest(s) * f);
}

static kh_status take(work *w)
{
    kh_arena *a = w->run->step;
    size_t X = (size_t)w->spec->count, F = widest(w->spec);
    KH_TRY(kh_arena_new(a, &w->logits, w->T * X, sizeof(float)));
    KH_TRY(kh_arena_new(a, &w->rows, w->T * (size_t)w->spec->used, sizeof *w->rows));
    KH_TRY(kh_arena_new(a, &w->first, X + 1, sizeof *w->first));
    KH_TRY(kh_arena_new(a, &w->in, w->T * w->D, sizeof(float)));
    KH_TRY(kh_arena_new(a, &w->out, w->T * w->D, sizeof(float)));
    KH_TRY(kh_arena_new(a, &w->gate, w->T * F, sizeof(float)));
    return kh_arena_new(a, &w->up, w->T * F, sizeof(float));
}

/* Logits of a row become shares: 0 for the experts that are not chosen. NaN is never chosen before a number,
 * and where all are NaN the first experts carry it on. */
static void choose(const kh_expert_spec *s, float *p)
{
    size_t X = (size_t)s->count;
    uint8_t chosen[KH_MAX_EXPERTS] = {0};
    float largest = -INFINITY, sum = 0, kept = 0;
    for (size_t e = 0; e < X; e++)
        if (p[e] > largest) largest = p[e];
    for (size_t e = 0; e < X; e++) sum += p[e] = expf(p[e] - largest);
    for (size_t e = 0; e < X; e++) p[e] /= sum;
    for (int i = 0; i < s->used; i++) {
        size_t best = SIZE_MAX;
        for (size_t e = 0; e < X; e++)
            if (!chosen[e] && (best == SIZE_MAX || p[e] > p[best])) best = e;
        chosen[best] = 1;
        kept += p[best];
    }
    for (size_t e = 0; e < X; e++) p[e] = !chosen[e] ? -1.0f : s->renormalise ? p[e] / kept : p[e];
}

static int met(float share)
{
    return share >= 0 || isnan(share);
}

static void sort_rows(work *w)
{
    size_t X = (size_t)w->spec->count, n = 0;
    for (size_t t = 0; t < w->T; t++) choose(w->spec, w->logits + t * X);
    for (size_t e = 0; e < X; e++) {
        w->first[e] = n;
        for (size_t t = 0; t < w->T; t++)
            if (met(w->logits[t * X + e]))
                w->rows[n++] = (choice){(uint32_t)t, w->logits[t * X + e]};
    }
    w->first[X] = n;
}

/* out [n][D] of in [n][D] by one feed-forward layer of width F. */
static kh_status feed_forward(work *w, const float *in, size_t n, size_t F, const kh_weight *gate,
                              const kh_weight *up, const kh_weight *down)
{
    float *made[] = {w->gate, w->up};
    const kh_weight *by[] = {gate, up};
    KH_TRY(kh_op_linear_many(w->run, 2, made, in, n, by));
    if (w->hook) w->hook->rows(w->hook->context, 0, w->gate, n, F);
    kh_op_glu(w->run, w->gate, w->up, n, F, w->spec->act);
    if (w->hook) w->hook->rows(w->hook->context, 1, w->gate, n, F);
    return kh_op_linear(w->run, w->out, w->gate, n, down);
}

static kh_status expert(work *w, float *y, const float *h, size_t e)
{
    size_t D = w->D, F = (size_t)w->spec->F, n = w->first[e + 1] - w->first[e];
    const choice *rows = w->rows + w->first[e];
    kh_weight gate = kh_weight_rows(&w->w->gate, e * F, F);
    kh_weight up = kh_weight_rows(&w->w->up, e * F, F);
    kh_weight down = kh_weight_rows(&w->w->down, e * D, D);
    for (size_t i = 0; i < n; i++) memcpy(w->in + i * D, h + rows[i].row * D, D * sizeof *h);
    KH_TRY(feed_forward(w, w->in, n, F, &gate, &up, &down));
    for (size_t i = 0; i < n; i++) {
        float *sum = y + rows[i].row * D;
        for (size_t d = 0; d < D; d++) sum[d] += rows[i].share * w->out[i * D + d];
    }
    return KH_OK;
}

static kh_status shared(work *w, float *y, const float *h)
{
    const kh_expert_weights *x = w->w;
    size_t D = w->D;
    KH_TRY(feed_forward(w, h, w->T, (size_t)w->spec->shared_F, &x->shared_gate, &x->shared_up,
                        &x->shared_down));
    for (size_t t = 0; t < w->T; t++) {
        float share = 1;
        if (x->shared_router.data) {
            float dot = 0;
            for (size_t d = 0; d < D; d++) dot += h[t * D + d] * x->shared_router.data[d];
            share = 1.0f / (1.0f + expf(-dot));
        }
        for (size_t d = 0; d < D; d++) y[t * D + d] += share * w->out[t * D + d];
    }
    return KH_OK;
}

static kh_status run_experts(work *w, float *y, const float *h)
{
    KH_TRY(take(w));
    KH_TRY(kh_op_linear(w->run, w->logits, h, w->T, &w->w->router));
    sort_rows(w);
    memset(y, 0, w->T * w->D * sizeof *y);
    for (size_t e = 0; e < (size_t)w->spec->count; e++)
        if (w->first[e + 1] > w->first[e]) KH_TRY(expert(w, y, h, e));
    return w->w->shared_up.name ? shared(w, y, h) : KH_OK;
}

kh_status kh_op_experts(kh_run *run, const kh_expert_spec *spec, const kh_expert_weights *weights,
                        float *y, const float *h, size_t T, size_t D, const kh_expert_hook *hook)
{
    work w = {.run = run, .spec = spec, .w = weights, .hook = hook, .T = T, .D = D};
    kh_arena_mark mark = kh_arena_save(run->step);
    kh_status status = run_experts(&w, y, h);
    kh_arena_rewind(run->step, mark);
    return status;
}
