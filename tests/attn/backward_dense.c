/* See backward_dense.h. Each row is written out as the formula has it; nothing is clever here. */
// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include "backward_dense.h"

#include "attn/bias.h"
#include "attn/dropout.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

float *backward_numbers(size_t n, unsigned seed, float size)
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

call backward_make(const problem *p)
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
                                 .q = backward_numbers(c.qn, 1, 1.5f),
                                 .k = backward_numbers(c.kn, 2, 1.5f),
                                 .v = backward_numbers(c.kn, 3, 1.0f),
                                 .out = backward_numbers(c.qn, 4, 1.0f),
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
    c.g = (kh_attention_gradients){.dout = backward_numbers(c.qn, 5, 1.0f),
                                   .dq = backward_numbers(c.qn, 6, 1.0f),
                                   .dk = backward_numbers(c.kn, 7, 1.0f),
                                   .dv = backward_numbers(c.kn, 8, 1.0f)};
    if (!p->buckets && !p->alibi && !p->masked) return c;
    c.bn = (size_t)(p->H * p->buckets);
    c.bias = (kh_attention_bias){.buckets = p->buckets, .max_distance = 60};
    if (p->buckets) c.bias.relative = backward_numbers(c.bn, 9, 1.0f);
    if (p->buckets) c.g.drelative = backward_numbers(c.bn, 10, 1.0f);
    if (p->alibi) c.bias.slopes = backward_numbers((size_t)p->H, 11, 0.03f);
    uint8_t *mask = p->masked ? malloc((size_t)p->B * p->S) : NULL;
    for (size_t j = 0; mask && j < (size_t)p->B * p->S; j++) mask[j] = j * 7919 % 10 > 2;
    c.bias.key_mask = mask;
    return c;
}

void backward_unmake(call *c)
{
    const float *arrays[] = {
        c->args.q, c->args.k,  c->args.v,  c->args.out,    c->g.dout,        c->g.dq,       c->g.dk,
        c->g.dv,   c->saved.m, c->saved.u, c->g.drelative, c->bias.relative, c->bias.slopes};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) free((void *)(uintptr_t)arrays[i]);
    free((void *)(uintptr_t)c->bias.key_mask);
    free(c->saved.indices);
    free(c->saved.counts);
}

void backward_run(call *c)
{
    c->args.saved = &c->saved;
    c->args.bias = c->p->buckets || c->p->alibi || c->p->masked ? &c->bias : NULL;
    if (kh_attention_forward(&c->args)) fail_msg("%s", kh_last_error());
    if (kh_attention_backward(&c->args, &c->g)) fail_msg("%s", kh_last_error());
}

static float chain(const float *q, const float *k, int E)
{
    float sum = 0;
    for (int e = 0; e < E; e++) sum = fmaf(q[e], k[e], sum);
    return sum;
}

static float scale_of(const problem *p)
{
    return p->scale > 0 ? p->scale : 1.0f / sqrtf((float)p->E);
}

/* keep[j] = 1 for the keys of row t of head h; returns how many. */
static size_t choose(const problem *p, const float *q, const float *k, const float *raw, size_t h,
                     size_t t, char *keep)
{
    const rule *r = p->mixed && h % (size_t)(p->H / p->G) == 0 ? &p->first : &p->rule;
    size_t end = p->mask == KH_ATTENTION_FREE ? p->S : p->S - p->T + t + 1, begin = 0, kept = 0;
    if (p->window && end > (size_t)p->window) begin = end - (size_t)p->window;
    for (size_t j = begin; j < end; j++) {
        int pinned = j < (size_t)r->sinks || j + (size_t)r->recent >= end;
        keep[j] = pinned || (r->k == 0 && r->recent == 0);
        kept += (size_t)keep[j];
    }
    if (r->k == 0) return kept;
    float *scores = malloc(p->S * sizeof *scores), top = -INFINITY, scale = scale_of(p);
    for (size_t j = begin; j < end; j++) scores[j] = chain(q, k + j * (size_t)p->E, p->E) + raw[j];
    for (; kept < (size_t)r->k; kept++) {
        size_t best = end;
        for (size_t j = begin; j < end; j++)
            if (!keep[j] && scores[j] > -INFINITY && (best == end || scores[j] > scores[best]))
                best = j;
        if (best == end) break;
        keep[best] = 1;
    }
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

static long distance(const problem *p, size_t t, size_t j)
{
    return (long)j - (long)(p->mask == KH_ATTENTION_FREE ? t : p->S - p->T + t);
}

static size_t bucket_of(const problem *p, size_t t, size_t j)
{
    return kh_attn_relative_bucket(distance(p, t, j), p->mask == KH_ATTENTION_FREE,
                                   (size_t)p->buckets, 60);
}

fixed backward_fix(const call *c, size_t head, size_t t, size_t *kept)
{
    const problem *p = c->p;
    size_t H = (size_t)p->H, G = (size_t)p->G, E = (size_t)p->E, h = head % H;
    fixed f = {calloc(p->S, 1), malloc(p->S * sizeof(float)), calloc(p->S, sizeof(float))};
    for (size_t j = 0; j < p->S; j++) {
        f.gain[j] = 1;
        float x = 0;
        if (p->buckets) x = c->bias.relative[h * (size_t)p->buckets + bucket_of(p, t, j)];
        if (p->alibi) x -= c->bias.slopes[h] * fabsf((float)distance(p, t, j));
        f.raw[j] = p->buckets || p->alibi ? x / scale_of(p) : 0;
        if (p->masked && !c->bias.key_mask[head / H * p->S + j]) f.raw[j] = -INFINITY;
    }
    if (p->rate > 0) {
        kh_attn_drop drop = kh_attn_drop_make(p->rate, 42, 7, 3);
        kh_attn_drop_range(&drop, head, t, f.gain, 0, p->S);
    }
    *kept = choose(p, c->args.q + (head * p->T + t) * E,
                   c->args.k + (head / H * G + h / (H / G)) * p->S * E, f.raw, h, t, f.keep);
    return f;
}

void backward_unfix(fixed *f)
{
    free(f->keep);
    free(f->gain);
    free(f->raw);
}

void backward_row(const problem *p, const fixed *f, const double *q, const double *k,
                  const double *v, const double *o, double *z, double *ds, double *weights)
{
    size_t E = (size_t)p->E;
    double scale = p->scale > 0 ? (double)p->scale : 1 / sqrt((double)p->E),
           cap = (double)p->softcap;
    double top = -HUGE_VAL, u = 0, D = 0;
    double *s = calloc(p->S, sizeof *s), *w = calloc(p->S, sizeof *w), *a = calloc(p->S, sizeof *a);
    for (size_t j = 0; j < p->S; j++) {
        double dot = (double)f->raw[j];
        for (size_t e = 0; e < E; e++) dot += q[e] * k[j * E + e];
        s[j] = cap > 0 ? cap * tanh(dot * scale / cap) : dot * scale;
        if (!f->keep[j] || isnan(s[j]) || isinf(dot)) s[j] = -HUGE_VAL;
        top = fmax(top, s[j]);
    }
    for (size_t j = 0; j < p->S; j++) u += w[j] = isfinite(s[j]) ? exp(s[j] - top) : 0;
    for (size_t e = 0; e < E; e++) z[e] = 0;
    for (size_t j = 0; j < p->S; j++) {
        if (!(w[j] > 0)) continue;
        w[j] /= u;
        for (size_t e = 0; e < E; e++) z[e] += w[j] * (double)f->gain[j] * v[j * E + e];
        for (size_t e = 0; ds && e < E; e++) a[j] += (double)f->gain[j] * o[e] * v[j * E + e];
        D += w[j] * a[j];
    }
    for (size_t j = 0; ds && j < p->S; j++) {
        ds[j] = w[j] > 0 ? scale * w[j] * (a[j] - D) : 0;
        if (cap > 0 && w[j] > 0) ds[j] *= 1 - s[j] / cap * (s[j] / cap);
        weights[j] = w[j] * (double)f->gain[j];
    }
    free(s);
    free(a);
    free(w);
}

double *backward_doubles(const float *x, size_t n)
{
    double *y = malloc((n + 1) * sizeof *y);
    for (size_t i = 0; i < n; i++) y[i] = x ? (double)x[i] : 0;
    return y;
}

/* What a row adds to the gradients of its head's arrays. */
static void add_row(const call *c, dense *d, size_t head, size_t t, const double *ds,
                    const double *weights)
{
    const problem *p = c->p;
    size_t E = (size_t)p->E, H = (size_t)p->H, G = (size_t)p->G, h = head % H;
    size_t row = (head * p->T + t) * E, at = (head / H * G + h / (H / G)) * p->S * E;
    double scale = p->scale > 0 ? (double)p->scale : 1 / sqrt((double)p->E);
    for (size_t j = 0; j < p->S; j++) {
        for (size_t e = 0; ds[j] != 0 && e < E; e++) {
            d->dq[row + e] += ds[j] * (double)c->args.k[at + j * E + e];
            d->dk[at + j * E + e] += ds[j] * (double)c->args.q[row + e];
        }
        for (size_t e = 0; weights[j] != 0 && e < E; e++)
            d->dv[at + j * E + e] += weights[j] * (double)c->g.dout[row + e];
        if (p->buckets) d->drelative[h * (size_t)p->buckets + bucket_of(p, t, j)] += ds[j] / scale;
    }
}

dense backward_emulate(const call *c, int counted)
{
    const problem *p = c->p;
    size_t E = (size_t)p->E, H = (size_t)p->H, G = (size_t)p->G, kept;
    dense d = {backward_doubles(NULL, c->qn), backward_doubles(NULL, c->qn),
               backward_doubles(NULL, c->kn), backward_doubles(NULL, c->kn),
               backward_doubles(NULL, c->bn)};
    double *q = backward_doubles(c->args.q, c->qn), *k = backward_doubles(c->args.k, c->kn),
           *v = backward_doubles(c->args.v, c->kn), *o = backward_doubles(c->g.dout, c->qn);
    double *ds = malloc(p->S * sizeof *ds), *weights = malloc(p->S * sizeof *weights);
    for (size_t row = 0; row < (size_t)p->B * H * p->T; row++) {
        size_t head = row / p->T, t = row % p->T, h = head % H;
        size_t at = (head / H * G + h / (H / G)) * p->S * E;
        fixed f = backward_fix(c, head, t, &kept);
        if (counted && c->saved.kept > 0 && (!p->mixed || p->rule.k == 0 || h % (H / G) > 0))
            assert_int_equal(c->saved.counts[row], kept);
        backward_row(p, &f, q + row * E, k + at, v + at, o + row * E, d.out + row * E, ds, weights);
        add_row(c, &d, head, t, ds, weights);
        backward_unfix(&f);
    }
    free(q);
    free(k);
    free(v);
    free(o);
    free(ds);
    free(weights);
    return d;
}

void backward_free(dense *d)
{
    free(d->out);
    free(d->dq);
    free(d->dk);
    free(d->dv);
    free(d->drelative);
}
