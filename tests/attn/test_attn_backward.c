/* The backward pass of attention: every gradient against a dense emulation in double, which is checked
 * by finite differences itself; goldens of PyTorch; threads, chunks, strides; hard rows; mistakes.
 *
 * The emulation chooses keys by f32 scores (a chain of fma over e, as the contract says), so that it
 * means the same keys; everything after the choice is in double. */
// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include "attn/dropout.h"
#include "base/alloc.h"

#include <keyhole/attention.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SLOW = 1 };
#else
enum { SLOW = 0 };
#endif

/* k 0: ranges, all keys or the last `recent` and the first `sinks`. */
typedef struct rule {
    int k, recent, sinks;
    float min_p;
} rule;

typedef struct problem {
    int B, H, G, E;
    size_t T, S;
    kh_attention_mask mask;
    const char *attn;
    rule rule;
    rule first; /* of head 0 of each group, where `mixed` */
    int mixed, window;
    float scale, softcap, rate;
} problem;

#define FREE   KH_ATTENTION_FREE
#define CAUSAL KH_ATTENTION_CAUSAL

static const problem problems[] = {
    {1, 1, 1, 16, 1, 1, CAUSAL, "topk:k=1", .rule = {.k = 1}},
    {2, 6, 3, 48, 70, 70, CAUSAL, "topk:k=8", .rule = {.k = 8}},
    {1, 4, 1, 64, 300, 300, CAUSAL, "topk:k=16,recent=4,sinks=2", .rule = {16, 4, 2, 0}},
    {1, 4, 2, 64, 90, 130, CAUSAL, "topk:k=20", .rule = {.k = 20}},
    {1, 2, 2, 40, 100, 30, FREE, "topk:k=7", .rule = {.k = 7}},
    {1, 2, 1, 64, 40, 200, FREE, "topk:k=1000", .rule = {.k = 1000}},
    {1, 3, 1, 80, 200, 200, CAUSAL, "topk:k=24", .rule = {.k = 24}, .window = 50},
    {1, 3, 1, 80, 150, 150, CAUSAL, "topk:k=60", .rule = {.k = 60}, .window = 50},
    {2, 2, 2, 32, 120, 120, CAUSAL, "topk:k=30,min-p=0.05", .rule = {30, 0, 0, 0.05f}},
    {1, 2, 1, 128, 3, 2500, CAUSAL, "topk:k=64", .rule = {.k = 64}},
    {1, 2, 2, 20, 150, 150, CAUSAL, "topk:k=1", .rule = {.k = 1}},
    {1, 1, 1, 64, 1300, 1300, CAUSAL, "topk:k=40", .rule = {.k = 40}, .rate = 0.2f},
    {2, 4, 2, 24, 100, 100, CAUSAL, "topk:k=12", .rule = {.k = 12}, .rate = 0.5f, .scale = 0.7f},
    {1, 2, 1, 64, 100, 100, CAUSAL, "topk:k=12", .rule = {.k = 12}, .softcap = 1.5f},
    {1, 2, 1, 64, 100, 100, FREE, "topk:k=12", .rule = {.k = 12}, .softcap = 1.5f, .rate = 0.3f},
    {1, 1, 1, 16, 1, 1, CAUSAL, "full", .rule = {0}},
    {2, 6, 3, 48, 70, 70, CAUSAL, "full", .rule = {0}},
    {1, 4, 2, 64, 90, 130, CAUSAL, NULL, .rule = {0}},
    {1, 2, 2, 40, 100, 30, FREE, "full", .rule = {0}},
    {1, 2, 1, 64, 3, 2500, CAUSAL, "full", .rule = {0}},
    {1, 1, 1, 64, 1300, 1300, CAUSAL, "full", .rule = {0}, .rate = 0.1f},
    {1, 5, 1, 20, 260, 700, CAUSAL, "full", .rule = {0}},
    {1, 3, 1, 80, 200, 200, CAUSAL, "full", .rule = {0}, .window = 50},
    {1, 2, 1, 100, 200, 200, CAUSAL, "window:recent=70,sinks=5", .rule = {0, 70, 5, 0}},
    {1, 2, 1, 64, 333, 333, CAUSAL, "window:recent=7,sinks=2", .rule = {0, 7, 2, 0}, .rate = 0.4f},
    {1, 2, 2, 64, 1200, 1200, CAUSAL, "window:recent=30", .rule = {0, 30, 0, 0}},
    {1, 2, 1, 64, 100, 100, CAUSAL, "full", .rule = {0}, .softcap = 1.5f},
    {1, 2, 1, 32, 100, 150, FREE, "full", .rule = {0}, .softcap = 2.0f, .rate = 0.3f,
     .scale = 0.5f},
    {1, 6, 1, 32, 80, 80, CAUSAL, "0.0=full;0.1-=topk:k=20", .rule = {.k = 20}, .mixed = 1},
    {2, 3, 1, 32, 80, 80, CAUSAL, "0.0=full;0.1-=window:recent=9", .rule = {0, 9, 0, 0},
     .mixed = 1},
};
enum { PROBLEMS = sizeof problems / sizeof *problems };

static float *numbers(size_t n, unsigned seed, float size)
{
    float *x = malloc((n + 16) * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        float sum = -4;
        for (int j = 0; j < 8; j++)
            sum += (float)((seed = seed * 1664525u + 1013904223u) >> 8) * 0x1p-24f;
        x[i] = size * sum;
    }
    return x;
}

/* A call with all its arrays. */
typedef struct call {
    const problem *p;
    kh_attention_args args;
    kh_attention_saved saved;
    kh_attention_gradients g;
    size_t qn, kn; /* elements of q and of k */
} call;

static call make(const problem *p)
{
    call c = {.p = p};
    c.qn = (size_t)p->B * (size_t)p->H * p->T * (size_t)p->E;
    c.kn = (size_t)p->B * (size_t)p->G * p->S * (size_t)p->E;
    c.args = (kh_attention_args){.batch = p->B,
                                 .heads = p->H,
                                 .key_heads = p->G,
                                 .width = p->E,
                                 .queries = p->T,
                                 .keys = p->S,
                                 .q = numbers(c.qn, 1, 1.5f),
                                 .k = numbers(c.kn, 2, 1.5f),
                                 .v = numbers(c.kn, 3, 1.0f),
                                 .out = numbers(c.qn, 4, 1.0f),
                                 .attn = p->attn,
                                 .mask = p->mask,
                                 .scale = p->scale,
                                 .softcap = p->softcap,
                                 .window = p->window,
                                 .threads = 1,
                                 .dropout = {.rate = p->rate, .seed = 42, .step = 7, .layer = 3}};
    size_t rows = (size_t)p->B * (size_t)p->H * p->T;
    assert_int_equal(kh_attention_kept(&c.args, &c.saved.kept), KH_OK);
    c.saved.indices = malloc(rows * c.saved.kept * 4 + 1);
    c.saved.counts = calloc(rows, sizeof(uint32_t));
    c.saved.m = malloc(rows * sizeof(float));
    c.saved.u = malloc(rows * sizeof(float));
    c.g = (kh_attention_gradients){.dout = numbers(c.qn, 5, 1.0f),
                                   .dq = numbers(c.qn, 6, 1.0f),
                                   .dk = numbers(c.kn, 7, 1.0f),
                                   .dv = numbers(c.kn, 8, 1.0f)};
    return c;
}

static void unmake(call *c)
{
    const float *arrays[] = {c->args.q, c->args.k, c->args.v, c->args.out, c->g.dout,
                             c->g.dq,   c->g.dk,   c->g.dv,   c->saved.m,  c->saved.u};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) free((void *)(uintptr_t)arrays[i]);
    free(c->saved.indices);
    free(c->saved.counts);
}

static void run(call *c)
{
    c->args.saved = &c->saved;
    if (kh_attention_forward(&c->args)) fail_msg("%s", kh_last_error());
    if (kh_attention_backward(&c->args, &c->g)) fail_msg("%s", kh_last_error());
}

/* ---- the emulation */

typedef struct dense {
    double *out, *dq, *dk, *dv;
} dense;

static float chain(const float *q, const float *k, int E)
{
    float sum = 0;
    for (int e = 0; e < E; e++) sum = fmaf(q[e], k[e], sum);
    return sum;
}

/* keep[j] = 1 for the keys of row t of head h; returns how many. */
static size_t choose(const problem *p, const float *q, const float *k, size_t h, size_t t,
                     char *keep)
{
    const rule *r = p->mixed && h % (size_t)(p->H / p->G) == 0 ? &p->first : &p->rule;
    size_t end = p->mask == FREE ? p->S : p->S - p->T + t + 1, begin = 0, kept = 0;
    if (p->window && end > (size_t)p->window) begin = end - (size_t)p->window;
    memset(keep, 0, p->S);
    for (size_t j = begin; j < end; j++) {
        int pinned = j < (size_t)r->sinks || j + (size_t)r->recent >= end;
        keep[j] = pinned || (r->k == 0 && r->recent == 0);
        kept += (size_t)keep[j];
    }
    if (r->k == 0) return kept;
    float *scores = malloc(p->S * sizeof *scores), top = -INFINITY;
    for (size_t j = begin; j < end; j++) scores[j] = chain(q, k + j * (size_t)p->E, p->E);
    for (; kept < (size_t)r->k; kept++) {
        size_t best = end;
        for (size_t j = begin; j < end; j++)
            if (!keep[j] && scores[j] > -INFINITY && (best == end || scores[j] > scores[best]))
                best = j;
        if (best == end) break;
        keep[best] = 1;
    }
    float scale = p->scale > 0 ? p->scale : 1.0f / sqrtf((float)p->E);
    for (size_t j = begin; j < end; j++)
        if (keep[j] && scores[j] * scale > top) top = scores[j] * scale;
    for (size_t j = begin; r->min_p > 0 && j < end; j++)
        if (keep[j] && scores[j] * scale < top + logf(r->min_p)) {
            keep[j] = 0;
            kept--;
        }
    free(scores);
    return kept;
}

/* One row, in double: its output, and what it adds to the gradients (dq NULL: output only). */
static void row_double(const problem *p, const char *keep, const float *gain, const double *q,
                       const double *k, const double *v, const double *o, double *z, double *dq,
                       double *dk, double *dv)
{
    size_t E = (size_t)p->E;
    double scale = p->scale > 0 ? (double)p->scale : 1 / sqrt((double)p->E), top = -INFINITY, u = 0;
    double *s = calloc(p->S, sizeof *s), *a = calloc(p->S, sizeof *a), *w = calloc(p->S, sizeof *w);
    for (size_t j = 0; j < p->S; j++) {
        s[j] = -INFINITY;
        if (!keep[j]) continue;
        double dot = 0;
        for (size_t e = 0; e < E; e++) dot += q[e] * k[j * E + e];
        s[j] = dot * scale;
        if (p->softcap > 0) s[j] = (double)p->softcap * tanh(s[j] / (double)p->softcap);
        if (isnan(s[j])) s[j] = -INFINITY;
        top = fmax(top, s[j]);
    }
    for (size_t j = 0; j < p->S; j++) u += w[j] = isfinite(s[j]) ? exp(s[j] - top) : 0;
    double D = 0;
    for (size_t e = 0; e < E; e++) z[e] = 0;
    for (size_t j = 0; j < p->S; j++) {
        if (!(w[j] > 0)) continue;
        w[j] /= u;
        for (size_t e = 0; e < E; e++) z[e] += w[j] * (double)gain[j] * v[j * E + e];
        for (size_t e = 0; dq && e < E; e++) a[j] += (double)gain[j] * o[e] * v[j * E + e];
        D += w[j] * a[j];
    }
    for (size_t j = 0; dq && j < p->S; j++) {
        if (!(w[j] > 0)) continue;
        double ds = scale * w[j] * (a[j] - D), cap = (double)p->softcap;
        if (cap > 0) ds *= 1 - s[j] / cap * (s[j] / cap);
        for (size_t e = 0; e < E; e++) {
            dq[e] += ds * k[j * E + e];
            dk[j * E + e] += ds * q[e];
            dv[j * E + e] += w[j] * (double)gain[j] * o[e];
        }
    }
    free(s);
    free(a);
    free(w);
}

static double *doubles(const float *x, size_t n)
{
    double *y = malloc(n * sizeof *y);
    for (size_t i = 0; i < n; i++) y[i] = x ? (double)x[i] : 0;
    return y;
}

static void row_mask(const problem *p, size_t head, size_t t, float *gain)
{
    for (size_t j = 0; j < p->S; j++) gain[j] = 1;
    if (!(p->rate > 0)) return;
    kh_attn_drop drop = kh_attn_drop_make(p->rate, 42, 7, 3);
    kh_attn_drop_range(&drop, head, t, gain, 0, p->S);
}

/* `counted`: what forward counted must be what is kept here. */
static dense emulate(const call *c, int counted)
{
    const problem *p = c->p;
    size_t E = (size_t)p->E, H = (size_t)p->H, G = (size_t)p->G;
    dense d = {doubles(NULL, c->qn), doubles(NULL, c->qn), doubles(NULL, c->kn),
               doubles(NULL, c->kn)};
    double *q = doubles(c->args.q, c->qn), *k = doubles(c->args.k, c->kn),
           *v = doubles(c->args.v, c->kn), *o = doubles(c->g.dout, c->qn);
    char *keep = malloc(p->S);
    float *gain = malloc(p->S * sizeof *gain);
    for (size_t row = 0; row < (size_t)p->B * H * p->T; row++) {
        size_t head = row / p->T, t = row % p->T, h = head % H;
        size_t at = (head / H * G + h / (H / G)) * p->S * E;
        size_t n = choose(p, c->args.q + row * E, c->args.k + at, h, t, keep);
        if (counted && c->saved.kept > 0 && (!p->mixed || p->rule.k == 0 || h % (H / G) > 0))
            assert_int_equal(c->saved.counts[row], n);
        row_mask(p, head, t, gain);
        row_double(p, keep, gain, q + row * E, k + at, v + at, o + row * E, d.out + row * E,
                   d.dq + row * E, d.dk + at, d.dv + at);
    }
    free(q);
    free(k);
    free(v);
    free(o);
    free(keep);
    free(gain);
    return d;
}

static void free_dense(dense *d)
{
    free(d->out);
    free(d->dq);
    free(d->dk);
    free(d->dv);
}

static void near(const char *what, const problem *p, const float *got, const double *want, size_t n,
                 double tolerance)
{
    double top = 1; /* inputs are of this size; what cancels to less keeps their rounding */
    for (size_t i = 0; i < n; i++) top = fmax(top, fabs(want[i]));
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) <= tolerance * (top + fabs(want[i]))))
            fail_msg("%s, %s, element %zu of %zu: %.9g, expected %.9g (largest %.3g)", what,
                     p->attn ? p->attn : "full", i, n, (double)got[i], want[i], top);
}

static void near_all(const call *c, const dense *d, double tolerance)
{
    near("out", c->p, c->args.out, d->out, c->qn, tolerance);
    near("dv", c->p, c->g.dv, d->dv, c->kn, tolerance);
    near("dq", c->p, c->g.dq, d->dq, c->qn, tolerance);
    near("dk", c->p, c->g.dk, d->dk, c->kn, tolerance);
}

static void compare(const call *c)
{
    dense d = emulate(c, 1);
    near_all(c, &d, 1e-5);
    free_dense(&d);
}

/* ---- tests */

static void equals_the_emulation(void **state)
{
    (void)state;
    for (int i = 0; i < PROBLEMS; i++) {
        if (SLOW && problems[i].T * problems[i].S > 100000) continue;
        call c = make(&problems[i]);
        run(&c);
        compare(&c);
        unmake(&c);
    }
}

/* The sum of dout times out as the emulation computes it, with everything but one number fixed. */
static double loss(const problem *p, const char *keep, const float *gain, const double *q,
                   const double *k, const double *v, const double *o)
{
    size_t E = (size_t)p->E;
    double z[64], sum = 0;
    for (size_t t = 0; t < p->T; t++) {
        row_double(p, keep + t * p->S, gain + t * p->S, q + t * E, k, v, NULL, z, NULL, NULL, NULL);
        for (size_t e = 0; e < E; e++) sum += o[t * E + e] * z[e];
    }
    return sum;
}

static void slopes(const problem *p, const char *keep, const float *gain, double *q, double *k,
                   double *v, const double *o, double *x, const double *gradient, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double at = x[i], step = 1e-5;
        x[i] = at + step;
        double above = loss(p, keep, gain, q, k, v, o);
        x[i] = at - step;
        double below = loss(p, keep, gain, q, k, v, o);
        x[i] = at;
        assert_true(fabs((above - below) / (2 * step) - gradient[i]) < 1e-8);
    }
}

static void finite_differences(void **state)
{
    (void)state;
    static const problem tiny[] = {
        {1, 1, 1, 6, 9, 9, CAUSAL, "topk:k=4", .rule = {.k = 4}},
        {1, 1, 1, 6, 9, 9, CAUSAL, "topk:k=4", .rule = {.k = 4}, .rate = 0.4f},
        {1, 1, 1, 6, 5, 9, FREE, "full", .rule = {0}, .softcap = 0.8f},
    };
    for (int i = 0; i < 3; i++) {
        const problem *p = &tiny[i];
        call c = make(p);
        run(&c);
        dense d = emulate(&c, 1);
        char *keep = malloc(p->T * p->S);
        float *gain = malloc(p->T * p->S * sizeof *gain);
        for (size_t t = 0; t < p->T; t++) {
            choose(p, c.args.q + t * (size_t)p->E, c.args.k, 0, t, keep + t * p->S);
            row_mask(p, 0, t, gain + t * p->S);
        }
        double *q = doubles(c.args.q, c.qn), *k = doubles(c.args.k, c.kn),
               *v = doubles(c.args.v, c.kn), *o = doubles(c.g.dout, c.qn);
        slopes(p, keep, gain, q, k, v, o, q, d.dq, c.qn);
        slopes(p, keep, gain, q, k, v, o, k, d.dk, c.kn);
        slopes(p, keep, gain, q, k, v, o, v, d.dv, c.kn);
        compare(&c);
        free(q);
        free(k);
        free(v);
        free(o);
        free(keep);
        free(gain);
        free_dense(&d);
        unmake(&c);
    }
}

static void same_bits(const call *a, const call *b)
{
    assert_memory_equal(a->args.out, b->args.out, a->qn * 4);
    assert_memory_equal(a->g.dq, b->g.dq, a->qn * 4);
    assert_memory_equal(a->g.dk, b->g.dk, a->kn * 4);
    assert_memory_equal(a->g.dv, b->g.dv, a->kn * 4);
}

static void threads_change_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < PROBLEMS; i++) {
        if (SLOW && problems[i].T * problems[i].S > 100000) continue;
        call a = make(&problems[i]), b = make(&problems[i]);
        b.args.threads = 2 + i % 2;
        run(&a);
        run(&b);
        same_bits(&a, &b);
        if (a.saved.kept > 0)
            assert_memory_equal(a.saved.counts, b.saved.counts,
                                (size_t)a.p->B * (size_t)a.p->H * a.p->T * 4);
        unmake(&a);
        unmake(&b);
    }
}

/* Keys see the rows of one chunk after the other: rows that come alone must give the same sums as rows
 * that come together, dq to the bit. */
static void rows_alone(void **state)
{
    (void)state;
    enum { T = 2100, CUT = 1111, E = 64 };
    static const char *const attn[] = {"topk:k=16", "full"};
    for (int i = 0; i < 2; i++) {
        problem p = {1, 1, 1, E, T, 90, FREE, attn[i], .rule = {0}};
        call whole = make(&p);
        run(&whole);
        for (int part = 0; part < 2; part++) {
            problem half = p;
            half.T = part ? T - CUT : CUT;
            call c = make(&half);
            size_t at = part ? CUT * E : 0;
            memcpy((void *)(uintptr_t)c.args.q, whole.args.q + at, c.qn * 4);
            memcpy((void *)(uintptr_t)c.g.dout, whole.g.dout + at, c.qn * 4);
            run(&c);
            assert_memory_equal(c.g.dq, whole.g.dq + at, c.qn * 4);
            for (size_t j = 0; j < c.kn; j++) { /* what is left is the other part's */
                whole.g.dk[j] -= c.g.dk[j];
                whole.g.dv[j] -= c.g.dv[j];
            }
            unmake(&c);
        }
        for (size_t j = 0; j < whole.kn; j++)
            assert_true(fabsf(whole.g.dk[j]) < 1e-4f && fabsf(whole.g.dv[j]) < 1e-4f);
        unmake(&whole);
    }
}

static void some_gradients(void **state)
{
    (void)state;
    static const int which[] = {1, 20};
    for (int i = 0; i < 2; i++) {
        call all = make(&problems[which[i]]);
        run(&all);
        for (int wanted = 0; wanted < 8; wanted++) {
            call c = make(&problems[which[i]]);
            kh_attention_gradients g = c.g;
            if (!(wanted & 1)) c.g.dq = NULL;
            if (!(wanted & 2)) c.g.dk = NULL;
            if (!(wanted & 4)) c.g.dv = NULL;
            run(&c);
            if (wanted & 1) assert_memory_equal(g.dq, all.g.dq, c.qn * 4);
            if (wanted & 2) assert_memory_equal(g.dk, all.g.dk, c.kn * 4);
            if (wanted & 4) assert_memory_equal(g.dv, all.g.dv, c.kn * 4);
            c.g = g;
            unmake(&c);
        }
        unmake(&all);
    }
}

/* From [B][H][T][E] to [B][T][H][E], or back. */
static void turn(float *to, const float *from, size_t B, size_t H, size_t T, size_t E, int back)
{
    for (size_t i = 0; i < B * H * T; i++) {
        size_t other = (i / (H * T) * T + i % T) * H + i / T % H;
        memcpy(to + (back ? i : other) * E, from + (back ? other : i) * E, E * sizeof *to);
    }
}

static void strides_are_followed(void **state)
{
    (void)state;
    static const problem both[] = {
        {2, 6, 3, 48, 150, 150, CAUSAL, "topk:k=20,recent=4,sinks=2", .rule = {20, 4, 2, 0}},
        {2, 6, 3, 48, 150, 150, CAUSAL, "full", .rule = {0}}};
    for (int i = 0; i < 2; i++) {
        const problem *p = &both[i];
        size_t B = 2, H = 6, G = 3, E = 48, T = p->T;
        call a = make(p), b = make(p), c = make(p);
        run(&a);
        b.args.q_stride = b.args.out_stride = (kh_attention_stride){T * H * E, E, H * E};
        b.args.k_stride = b.args.v_stride = (kh_attention_stride){T * G * E, E, G * E};
        turn((float *)(uintptr_t)b.args.q, a.args.q, B, H, T, E, 0);
        turn((float *)(uintptr_t)b.g.dout, a.g.dout, B, H, T, E, 0);
        turn((float *)(uintptr_t)b.args.k, a.args.k, B, G, T, E, 0);
        turn((float *)(uintptr_t)b.args.v, a.args.v, B, G, T, E, 0);
        run(&b);
        turn(c.args.out, b.args.out, B, H, T, E, 1);
        turn(c.g.dq, b.g.dq, B, H, T, E, 1);
        turn(c.g.dk, b.g.dk, B, G, T, E, 1);
        turn(c.g.dv, b.g.dv, B, G, T, E, 1);
        same_bits(&a, &c);
        unmake(&a);
        unmake(&b);
        unmake(&c);
    }
}

static void dropout_drops_its_share(void **state)
{
    (void)state;
    enum { N = 4096, ROWS = 64 };
    static float w[ROWS][N], listed[N];
    static uint32_t positions[N];
    kh_attn_drop drop = kh_attn_drop_make(0.3f, 1, 2, 3), later = drop;
    size_t kept = 0, pairs = 0, columns[N] = {0};
    for (size_t r = 0; r < ROWS; r++) {
        for (size_t i = 0; i < N; i++) w[r][i] = 1;
        kh_attn_drop_range(&drop, r % 3, r, w[r], 0, N);
        for (size_t i = 0; i < N; i++) {
            assert_true(w[r][i] == 0 || fabsf(w[r][i] - 1 / 0.7f) < 1e-6f);
            kept += w[r][i] > 0;
            columns[i] += w[r][i] > 0;
            pairs += i > 0 && w[r][i] > 0 && w[r][i - 1] > 0;
        }
    }
    double n = (double)N * ROWS;
    assert_true(fabs((double)kept / n - 0.7) < 5 * sqrt(0.21 / n));
    assert_true(fabs((double)pairs / n - 0.49) < 5e-3);
    for (size_t i = 0; i < N; i++) assert_true(columns[i] > 20 && columns[i] < 64);
    for (size_t i = 0; i < N / 3; i++) {
        positions[i] = (uint32_t)(3 * i + 1);
        listed[i] = 1;
    }
    later.head = 2; /* the same cells, counted from elsewhere */
    later.row = 8;
    kh_attn_drop_listed(&later, 0, 3, listed, positions, N / 3);
    for (size_t i = 0; i < N / 3; i++) assert_true(listed[i] == w[11][3 * i + 1]);
    float again[N];
    size_t same = 0;
    drop = kh_attn_drop_make(0.3f, 1, 3, 3);
    for (size_t i = 0; i < N; i++) again[i] = 1;
    kh_attn_drop_range(&drop, 0, 0, again, 0, N);
    for (size_t i = 0; i < N; i++) same += again[i] == w[0][i];
    assert_true(same < N * 0.63); /* 0.58 of two independent masks agree */
}

static void hard_rows(void **state)
{
    (void)state;
    static const char *const attn[] = {"topk:k=10", "full", "topk:k=100"};
    static const rule rules[] = {{.k = 10}, {0}, {.k = 100}};
    for (int i = 0; i < 3; i++)
        for (int kind = 0; kind < 7; kind++) {
            problem p = {1, 2, 1, 32, 80, 80, CAUSAL, attn[i], .rule = rules[i]};
            call c = make(&p);
            float *q = (float *)(uintptr_t)c.args.q, *k = (float *)(uintptr_t)c.args.k;
            for (size_t j = 0; j < c.qn; j++) {
                if (kind == 0) q[j] = 0;                    /* all equal */
                if (kind == 1) q[j] *= 60;                  /* nearly one key */
                if (kind == 2) q[j] = (float)(j % 32 == 0); /* ascending, below */
                if (kind == 4 && j / 32 == 30) q[j] = NAN;  /* a row without any key */
                if (kind == 5) q[j] = fabsf(q[j]);
            }
            for (size_t j = 0; j < c.kn; j++) {
                if (kind == 2 && j % 32 == 0) k[j] = (float)(j / 32) * 0.25f;
                if (kind == 3 && j / 32 % 5 == 0) k[j] = NAN;       /* keys that nobody sees */
                if (kind == 5 && j / 32 % 7 == 0) k[j] = -INFINITY; /* the same by score */
                if (kind == 6) k[j] = NAN;
            }
            run(&c);
            for (size_t j = 30 * 32; kind == 4 && j < 31 * 32; j++) {
                assert_true(c.g.dq[j] == 0 && c.args.out[j] == 0);
                q[j] = ((float *)(uintptr_t)c.g.dout)[j] = 0; /* what the row must amount to */
            }
            dense d = emulate(&c, 0);
            for (size_t j = 30 * 32; kind == 4 && j < 31 * 32; j++) d.out[j] = 0;
            near_all(&c, &d, kind == 1 ? 2e-4 : 1e-5);
            free_dense(&d);
            for (size_t j = 0; kind == 6 && j < c.kn; j++)
                assert_true(c.g.dk[j] == 0 && c.g.dv[j] == 0);
            unmake(&c);
        }
}

/* 65,536 keys are the last that 16 bits can name. */
static void wide_indices(void **state)
{
    (void)state;
    static const size_t sizes[] = {65536, 65537};
    for (int i = 0; i < 2; i++) {
        problem p = {1, 1, 1, 4, 5, sizes[i], FREE, "topk:k=9", .rule = {.k = 9}};
        call c = make(&p);
        float *k = (float *)(uintptr_t)c.args.k;
        for (size_t e = 0; e < 4; e++) k[(p.S - 1) * 4 + e] = 50 * c.args.q[e]; /* row 0 keeps it */
        run(&c);
        compare(&c);
        assert_int_equal(c.saved.kept, 9);
        if (i == 0)
            assert_int_equal(((uint16_t *)c.saved.indices)[8], 65535);
        else
            assert_int_equal(((uint32_t *)c.saved.indices)[8], 65536);
        unmake(&c);
    }
}

static void what_is_kept(void **state)
{
    (void)state;
    static const int kept[] = {1, 8, 16, 20, 7, 200, 24, 50, 30, 64};
    for (int i = 0; i < 10; i++) {
        call c = make(&problems[i]);
        const problem *p = c.p;
        assert_int_equal(c.saved.kept, kept[i]);
        run(&c);
        for (size_t row = 0; row < (size_t)p->B * (size_t)p->H * p->T; row++) {
            size_t n = c.saved.counts[row], end = p->S - p->T + row % p->T + 1;
            if (p->mask == FREE) end = p->S;
            const uint16_t *list = (const uint16_t *)c.saved.indices + row * c.saved.kept;
            assert_true(n <= c.saved.kept && n >= 1 && list[n - 1] < end);
            for (size_t j = 1; j < n; j++) assert_true(list[j] > list[j - 1]);
            assert_true(c.saved.u[row] > 0.999f && c.saved.u[row] <= (float)n * 1.001f);
        }
        unmake(&c);
    }
    call c = make(&problems[16]);
    assert_int_equal(c.saved.kept, 0);
    unmake(&c);
}

static void mistakes_are_named(void **state)
{
    (void)state;
    call c = make(&problems[1]);
    run(&c);
    kh_attention_args a;
    kh_attention_saved s;
    kh_attention_gradients g;
#define BAD(change, word)                                                                          \
    a = c.args, s = c.saved, g = c.g;                                                              \
    a.saved = &s;                                                                                  \
    change;                                                                                        \
    assert_int_equal(kh_attention_backward(&a, &g), KH_ERR_ARGUMENT);                              \
    assert_non_null(strstr(kh_last_error(), word))
    BAD(a.saved = NULL, "saved is NULL");
    BAD(s.kept = 7, "7 entries");
    BAD(s.m = NULL, "saved m");
    BAD(s.indices = NULL, "saved indices");
    BAD(g.dout = NULL, "dout");
    BAD(a.out = NULL, "out");
    BAD(a.attn = "topk:k=8,tail=mean", "tail=mean");
    BAD(a.dropout.rate = 1.0f, "dropout rate 1");
    BAD(a.dropout.rate = -0.1f, "dropout rate");
    BAD(((uint16_t *)s.indices)[10 * 8] = 70, "saved indices");
    ((uint16_t *)s.indices)[10 * 8] = 0;
    a = c.args;
    s = c.saved;
    s.kept = 3;
    a.saved = &s;
    assert_int_equal(kh_attention_forward(&a), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "3 entries"));
    unmake(&c);
    for (int i = 1; i <= 16; i += 15) {
        c = make(&problems[i]);
        run(&c);
        uint64_t live = kh_alloc_get_stats().live;
        for (uint64_t n = 1;; n++) {
            kh_alloc_fail_at(n);
            kh_status status = kh_attention_backward(&c.args, &c.g);
            kh_alloc_fail_at(0);
            assert_true(kh_alloc_get_stats().live == live);
            if (!status) break;
            assert_int_equal(status, KH_ERR_MEMORY);
        }
        compare(&c);
        unmake(&c);
    }
}

/* ---- goldens */

static void read_into(FILE *file, void *to, size_t bytes)
{
    if (fread(to, 1, bytes, file) != bytes) fail_msg("the golden file is too short");
}

static double *read_doubles(FILE *file, size_t n)
{
    float *x = malloc(n * sizeof *x);
    read_into(file, x, n * sizeof *x);
    double *y = doubles(x, n);
    free(x);
    return y;
}

static void goldens(void **state)
{
    (void)state;
    char path[512], magic[8], attn[64];
    uint32_t count, shape[7];
    snprintf(path, sizeof path, "%s/attention/grad.bin", getenv("KH_TEST_DATA"));
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    read_into(file, magic, sizeof magic);
    assert_memory_equal(magic, "KHAGRAD1", 8);
    read_into(file, &count, sizeof count);
    assert_true(count >= 4);
    for (uint32_t i = 0; i < count; i++) {
        read_into(file, attn, sizeof attn);
        read_into(file, shape, sizeof shape);
        problem p = {.B = (int)shape[0],
                     .H = (int)shape[1],
                     .G = (int)shape[2],
                     .E = (int)shape[3],
                     .T = shape[4],
                     .S = shape[5],
                     .mask = shape[6] ? FREE : CAUSAL,
                     .attn = attn};
        call c = make(&p);
        read_into(file, (void *)(uintptr_t)c.args.q, c.qn * 4);
        read_into(file, (void *)(uintptr_t)c.args.k, c.kn * 4);
        read_into(file, (void *)(uintptr_t)c.args.v, c.kn * 4);
        read_into(file, (void *)(uintptr_t)c.g.dout, c.qn * 4);
        dense d = {read_doubles(file, c.qn), read_doubles(file, c.qn), read_doubles(file, c.kn),
                   read_doubles(file, c.kn)};
        run(&c);
        near_all(&c, &d, 1e-5);
        free_dense(&d);
        unmake(&c);
    }
    fclose(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finite_differences),
        cmocka_unit_test(equals_the_emulation),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(rows_alone),
        cmocka_unit_test(some_gradients),
        cmocka_unit_test(strides_are_followed),
        cmocka_unit_test(dropout_drops_its_share),
        cmocka_unit_test(hard_rows),
        cmocka_unit_test(wide_indices),
        cmocka_unit_test(what_is_kept),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(goldens),
    };
    return cmocka_run_group_tests_name("attn_backward", tests, NULL, NULL);
}
