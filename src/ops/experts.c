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
 * Backwards the whole op is one record, which keeps h. Router and experts run again, each leaving its ops'
 * records on the tape and having them taken back at once, over buffers that have twins for that time: memory of
 * one expert's rows. A share's derivative is <out, dy>, and goes on through the softmax to the router.
 *
 * Routing: Shazeer et al., "Outrageously Large Neural Networks" (2017); the choice of softmax before the
 * cut, with or without renormalising, is that of Mixtral and of Qwen's mixtures. */
#include "ops/experts.h"

#include "base/fail.h"
#include "ops/linear.h"
#include "run/tape.h"

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

static void softmax(float *p, size_t X)
{
    float largest = -INFINITY, sum = 0;
    for (size_t e = 0; e < X; e++)
        if (p[e] > largest) largest = p[e];
    for (size_t e = 0; e < X; e++) sum += p[e] = expf(p[e] - largest);
    for (size_t e = 0; e < X; e++) p[e] /= sum;
}

/* Logits of a row become shares: -1 for the experts that are not chosen. NaN is never chosen before a number,
 * and where all are NaN the first experts carry it on. */
static void choose(const kh_expert_spec *s, float *p)
{
    size_t X = (size_t)s->count;
    uint8_t chosen[KH_MAX_EXPERTS] = {0};
    float kept = 0;
    softmax(p, X);
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

/* out of an expert's rows of h. */
static kh_status expert_rows(work *w, const float *h, size_t e)
{
    size_t D = w->D, F = (size_t)w->spec->F, n = w->first[e + 1] - w->first[e];
    const choice *rows = w->rows + w->first[e];
    kh_weight gate = kh_weight_rows(&w->w->gate, e * F, F);
    kh_weight up = kh_weight_rows(&w->w->up, e * F, F);
    kh_weight down = kh_weight_rows(&w->w->down, e * D, D);
    for (size_t i = 0; i < n; i++) memcpy(w->in + i * D, h + rows[i].row * D, D * sizeof *h);
    return feed_forward(w, w->in, n, F, &gate, &up, &down);
}

static kh_status expert(work *w, float *y, const float *h, size_t e)
{
    size_t D = w->D, n = w->first[e + 1] - w->first[e];
    const choice *rows = w->rows + w->first[e];
    KH_TRY(expert_rows(w, h, e));
    for (size_t i = 0; i < n; i++) {
        float *sum = y + rows[i].row * D;
        for (size_t d = 0; d < D; d++) sum[d] += rows[i].share * w->out[i * D + d];
    }
    return KH_OK;
}

static float shared_share(const work *w, const float *h)
{
    const float *router = w->w->shared_router.data;
    float dot = 0;
    if (!router) return 1;
    for (size_t d = 0; d < w->D; d++) dot += h[d] * router[d];
    return 1.0f / (1.0f + expf(-dot));
}

static kh_status shared(work *w, float *y, const float *h)
{
    const kh_expert_weights *x = w->w;
    size_t D = w->D;
    KH_TRY(feed_forward(w, h, w->T, (size_t)w->spec->shared_F, &x->shared_gate, &x->shared_up,
                        &x->shared_down));
    for (size_t t = 0; t < w->T; t++) {
        float share = shared_share(w, h + t * D);
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

/* ---- back ---- */

typedef struct experts_record {
    kh_tape_record record;
    const kh_expert_spec *spec;
    const kh_expert_weights *w;
    kh_expert_hook hook; /* rows NULL: none */
    const float *y, *h;  /* [T][D] */
    const float *kept;   /* what h was */
    size_t T, D;
} experts_record;

/* Buffers besides those of the way forward; all of both have twins. */
typedef struct back {
    work w;
    float *h;       /* [T][D] */
    float *p;       /* [T][count] shares before the cut */
    float *dshares; /* [T][count] */
    const float *dy;
    float *dh, *din, *dout;
} back;

static kh_status take_back(back *b, const experts_record *o)
{
    kh_run *run = b->w.run;
    kh_arena *a = run->step;
    size_t X = (size_t)o->spec->count, F = widest(o->spec), TD = o->T * o->D;
    KH_TRY(take(&b->w));
    KH_TRY(kh_arena_new(a, &b->h, TD, sizeof(float)));
    KH_TRY(kh_arena_new(a, &b->p, o->T * X, sizeof(float)));
    KH_TRY(kh_arena_new(a, &b->dshares, o->T * X, sizeof(float)));
    KH_TRY(kh_tape_buffer(run->tape, a, b->h, TD));
    KH_TRY(kh_tape_buffer(run->tape, a, b->w.in, TD));
    KH_TRY(kh_tape_buffer(run->tape, a, b->w.out, TD));
    KH_TRY(kh_tape_buffer(run->tape, a, b->w.logits, o->T * X));
    KH_TRY(kh_tape_buffer(run->tape, a, b->w.gate, o->T * F));
    KH_TRY(kh_tape_buffer(run->tape, a, b->w.up, o->T * F));
    b->dh = kh_tape_twin_of(run, b->h);
    b->din = kh_tape_twin_of(run, b->w.in);
    b->dout = kh_tape_twin_of(run, b->w.out);
    memcpy(b->h, o->kept, TD * sizeof(float));
    memset(b->dshares, 0, o->T * X * sizeof(float));
    return KH_OK;
}

/* dout of a row that takes part by its share; returns the share's derivative. */
static float share_back(const back *b, const float *out, float *dout, size_t row, float share)
{
    const float *dy = b->dy + row * b->w.D;
    float dot;
    b->w.run->kern->gemv_f32(&dot, out, b->w.D, 1, dy, b->w.D);
    for (size_t d = 0; d < b->w.D; d++) dout[d] = share * dy[d];
    return dot;
}

static kh_status expert_back(back *b, size_t e)
{
    work *w = &b->w;
    kh_tape_mark mark = kh_tape_save(w->run->tape);
    size_t D = w->D, X = (size_t)w->spec->count, n = w->first[e + 1] - w->first[e];
    const choice *rows = w->rows + w->first[e];
    KH_TRY(expert_rows(w, b->h, e));
    for (size_t i = 0; i < n; i++)
        b->dshares[rows[i].row * X + e] = share_back(b, w->out + i * D, b->dout + i * D,
                                                     rows[i].row, rows[i].share);
    KH_TRY(kh_tape_backward(w->run, mark));
    for (size_t i = 0; i < n; i++) w->run->kern->add(b->dh + rows[i].row * D, b->din + i * D, D);
    memset(b->din, 0, n * D * sizeof *b->din);
    return KH_OK;
}

static kh_status shared_back(back *b)
{
    work *w = &b->w;
    const kh_expert_weights *x = w->w;
    kh_tape_mark mark = kh_tape_save(w->run->tape);
    const float *router = x->shared_router.data;
    float *drouter = kh_tape_gradient_of(w->run, router);
    size_t D = w->D;
    KH_TRY(feed_forward(w, b->h, w->T, (size_t)w->spec->shared_F, &x->shared_gate, &x->shared_up,
                        &x->shared_down));
    for (size_t t = 0; t < w->T; t++) {
        float share = shared_share(w, b->h + t * D);
        float slope = share_back(b, w->out + t * D, b->dout + t * D, t, share);
        slope *= share * (1.0f - share);
        for (size_t d = 0; router && d < D; d++) b->dh[t * D + d] += slope * router[d];
        for (size_t d = 0; drouter && d < D; d++) drouter[d] += slope * b->h[t * D + d];
    }
    return kh_tape_backward(w->run, mark);
}

/* What came to the shares goes to the logits: through the softmax over all experts or, renormalised, over the
 * chosen ones. w->logits are the shares, -1 where none. */
static void softmax_back(const back *b, float *dlogits)
{
    const work *w = &b->w;
    size_t X = (size_t)w->spec->count;
    for (size_t t = 0; t < w->T; t++) {
        const float *share = w->logits + t * X, *p = b->p + t * X, *d = b->dshares + t * X;
        float sum = 0;
        for (size_t e = 0; e < X; e++)
            if (met(share[e])) sum += share[e] * d[e];
        for (size_t e = 0; e < X; e++) {
            float weight = met(share[e]) ? share[e] : w->spec->renormalise ? 0.0f : p[e];
            dlogits[t * X + e] = weight * (d[e] - sum);
        }
    }
}

static kh_status back_all(back *b, const experts_record *o)
{
    work *w = &b->w;
    kh_tape_mark mark = kh_tape_save(w->run->tape);
    size_t X = (size_t)o->spec->count;
    float *dh = kh_tape_twin_of(w->run, o->h);
    KH_TRY(take_back(b, o));
    KH_TRY(kh_op_linear(w->run, w->logits, b->h, w->T, &w->w->router));
    memcpy(b->p, w->logits, w->T * X * sizeof *b->p);
    for (size_t t = 0; t < w->T; t++) softmax(b->p + t * X, X);
    sort_rows(w);
    for (size_t e = 0; e < X; e++)
        if (w->first[e + 1] > w->first[e]) KH_TRY(expert_back(b, e));
    if (w->w->shared_up.name) KH_TRY(shared_back(b));
    softmax_back(b, kh_tape_twin_of(w->run, w->logits));
    KH_TRY(kh_tape_backward(w->run, mark));
    if (dh) w->run->kern->add(dh, b->dh, w->T * w->D);
    return KH_OK;
}

static kh_status experts_back(kh_run *run, kh_tape_record *record)
{
    const experts_record *o = (const experts_record *)record;
    kh_arena_mark mark = kh_arena_save(run->step);
    size_t twins = run->tape->twin_count;
    float *dy = kh_tape_twin_of(run, o->y);
    if (!dy) return KH_OK;
    back b = {.w = {.run = run,
                    .spec = o->spec,
                    .w = o->w,
                    .hook = o->hook.rows ? &o->hook : NULL,
                    .T = o->T,
                    .D = o->D},
              .dy = dy};
    kh_status status = back_all(&b, o);
    kh_tape_clear(run, dy, o->T * o->D);
    run->tape->twin_count = twins;
    kh_arena_rewind(run->step, mark);
    return status;
}

static void record_experts(const work *w, const float *y, const float *h)
{
    experts_record *o = kh_tape_push(w->run, experts_back, sizeof *o);
    if (!o) return;
    o->spec = w->spec;
    o->w = w->w;
    o->y = y;
    o->h = h;
    o->T = w->T;
    o->D = w->D;
    if (w->hook) {
        o->hook = *w->hook;
        o->hook.context = (void *)(uintptr_t)kh_tape_keep(w->run, w->hook->context, w->hook->bytes);
    }
    o->kept = kh_tape_keep(w->run, h, w->T * w->D * sizeof *h);
}

/* ---- the op ---- */

kh_status kh_op_experts(kh_run *run, const kh_expert_spec *spec, const kh_expert_weights *weights,
                        float *y, const float *h, size_t T, size_t D, const kh_expert_hook *hook)
{
    work w = {.run = run, .spec = spec, .w = weights, .hook = hook, .T = T, .D = D};
    kh_arena_mark mark = kh_arena_save(run->step);
    if (T > 0 && kh_tape_wants(run)) record_experts(&w, y, h);
    if (run->tape) run->tape->silent++;
    kh_status status = run_experts(&w, y, h);
    if (run->tape) run->tape->silent--;
    kh_arena_rewind(run->step, mark);
    return status;
}
