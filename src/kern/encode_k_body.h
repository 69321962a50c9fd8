/* kern/encode_k_body.h: rows as the types with blocks of 256: two steps of scales.
 *
 *     block of 256:   d (dmin)                     binary16
 *       group of 16 or 32:   scale (minimum)       whole numbers of 4, 6 or 8 bits
 *         element:   level
 *
 *     value = d * scale * level  [ - dmin * minimum ]
 *
 * First every group finds its own line (encode_search.h), as if its numbers were free. The largest of
 * them decides d and dmin. Then turns of two steps, each of which can only come nearer: every group
 * takes the whole numbers beside its wish that miss least, together, for they share the rounding; and
 * with all whole numbers and levels fixed, d and dmin are the least-squares solution over the block.
 * The best turn is kept; three are enough (a fourth gains below 0.1 % of the error).
 */
#ifndef KH_KERN_ENCODE_K_BODY_H
#define KH_KERN_ENCODE_K_BODY_H

#include "kern/encode_search.h"
#include "tensor/types.h"

#include <stdint.h>
#include <string.h>

enum { MOST_GROUPS = 16, TURNS = 3 };

/* How a type divides a block. */
typedef struct shape {
    int groups, width; /* groups * width = 256 */
    int least, most;   /* whole numbers of a group's scale; minima are [0, most] */
    int levels;        /* affine: levels are [0, levels]; centred: [-levels, levels - 1] */
    float flat;        /* part of the weights */
} shape;

/* A block, rounded. */
typedef struct fitted {
    float d, dmin; /* binary16 numbers */
    int scale[MOST_GROUPS], minimum[MOST_GROUPS];
    float miss;
} fitted;

static void weigh_groups(float *w, const float *x, const shape *s)
{
    for (int at = 0; at < 256; at += s->width) weigh(w + at, x + at, s->width, s->flat);
}

static float rounded_half(float v)
{
    return kh_f16_to_f32(half_of(v));
}

static int whole(float v, int least, int most)
{
    return (int)level_of(v, (kh_levels){(float)least, (float)most});
}

static int bounded(int v, int least, int most)
{
    return v < least ? least : v > most ? most : v;
}

/* ---- with a minimum */

static kh_line group_line(const fitted *f, int scale, int minimum)
{
    return (kh_line){f->d * (float)scale, -(f->dmin * (float)minimum)};
}

/* The whole numbers about the wish that miss least, for every group. */
static void choose_pairs(fitted *f, const float *x, const float *w, const kh_line *wish,
                         const shape *s)
{
    const kh_levels range = {0, (float)s->levels};
    float up = inverse_of(f->d), up_min = inverse_of(f->dmin);
    f->miss = 0;
    for (int g = 0; g < s->groups; g++, x += s->width, w += s->width) {
        int scale = whole(wish[g].d * up, 0, s->most);
        int minimum = whole(-wish[g].b * up_min, 0, s->most);
        float least = FLT_MAX;
        for (int a = -1; a <= 1; a++)
            for (int b = -1; b <= 1; b++) {
                int sc = bounded(scale + a, 0, s->most), mi = bounded(minimum + b, 0, s->most);
                float miss = miss_of(x, w, s->width, group_line(f, sc, mi), range);
                if (miss >= least) continue;
                least = miss;
                f->scale[g] = sc;
                f->minimum[g] = mi;
            }
        f->miss += least;
    }
}

/* d and dmin by least squares over the block: x ~ d * (scale * level) + dmin * (-minimum). */
static void solve_pair(fitted *f, const float *x, const float *w, const shape *s)
{
    const kh_levels range = {0, (float)s->levels};
    double uu = 0, uv = 0, vv = 0, ux = 0, vx = 0;
    for (int g = 0; g < s->groups; g++) {
        kh_line line = group_line(f, f->scale[g], f->minimum[g]);
        float inverse = inverse_of(line.d);
        double v = -f->minimum[g];
        for (int i = 0; i < s->width; i++, x++, w++) {
            double u = (double)((float)f->scale[g] * level_of((*x - line.b) * inverse, range));
            double weight = (double)*w, at = (double)*x;
            uu += weight * u * u;
            uv += weight * u * v;
            vv += weight * v * v;
            ux += weight * u * at;
            vx += weight * v * at;
        }
    }
    double det = uu * vv - uv * uv;
    if (det > 1e-12 * uu * vv) {
        f->d = (float)((ux * vv - vx * uv) / det);
        f->dmin = (float)((vx * uu - ux * uv) / det);
    } else if (uu > 0)
        f->d = (float)(ux / uu);
    else if (vv > 0)
        f->dmin = (float)(vx / vv);
    f->d = rounded_half(f->d > 0 ? f->d : 0);
    f->dmin = rounded_half(f->dmin > 0 ? f->dmin : 0);
}

static void fit_affine(fitted *best, uint8_t *q /* [256] */, const float *x /* [256] */,
                       const shape *s)
{
    float w[256], top = 0, top_min = 0;
    kh_line wish[MOST_GROUPS];
    weigh_groups(w, x, s);
    for (int g = 0; g < s->groups; g++) {
        int at = g * s->width;
        wish[g] = search_line(x + at, w + at, s->width, s->levels, 1);
        top = wish[g].d > top ? wish[g].d : top;
        top_min = -wish[g].b > top_min ? -wish[g].b : top_min;
    }
    fitted turn = {.d = rounded_half(top / (float)s->most),
                   .dmin = rounded_half(top_min / (float)s->most)};
    *best = (fitted){.miss = FLT_MAX};
    for (int t = 0; t < TURNS; t++) {
        choose_pairs(&turn, x, w, wish, s);
        if (t > 0 && !(turn.miss < best->miss)) break;
        *best = turn;
        solve_pair(&turn, x, w, s);
    }
    for (int i = 0; i < 256; i++) {
        int g = i / s->width;
        kh_line line = group_line(best, best->scale[g], best->minimum[g]);
        q[i] = (uint8_t)level_of((x[i] - line.b) * inverse_of(line.d),
                                 (kh_levels){0, (float)s->levels});
    }
}

/* ---- without */

static void choose_scales(fitted *f, const float *x, const float *w, const float *wish,
                          const shape *s)
{
    const kh_levels range = {(float)-s->levels, (float)(s->levels - 1)};
    float up = inverse_of(f->d);
    f->miss = 0;
    for (int g = 0; g < s->groups; g++, x += s->width, w += s->width) {
        int scale = whole(wish[g] * up, s->least, s->most);
        float least = FLT_MAX;
        for (int a = -1; a <= 1; a++) {
            int sc = bounded(scale + a, s->least, s->most);
            float miss = miss_of(x, w, s->width, group_line(f, sc, 0), range);
            if (miss >= least) continue;
            least = miss;
            f->scale[g] = sc;
        }
        f->miss += least;
    }
}

static void solve_scale(fitted *f, const float *x, const float *w, const shape *s)
{
    const kh_levels range = {(float)-s->levels, (float)(s->levels - 1)};
    double uu = 0, ux = 0;
    for (int i = 0; i < 256; i++) {
        int scale = f->scale[i / s->width];
        float inverse = inverse_of(f->d * (float)scale);
        double u = (double)((float)scale * level_of(x[i] * inverse, range));
        uu += (double)w[i] * u * u;
        ux += (double)w[i] * u * (double)x[i];
    }
    if (uu > 0) f->d = rounded_half((float)(ux / uu));
}

static void fit_centred(fitted *best, uint8_t *q /* [256] */, const float *x /* [256] */,
                        const shape *s)
{
    float w[256], wish[MOST_GROUPS];
    weigh_groups(w, x, s);
    for (int g = 0; g < s->groups; g++)
        wish[g] = search_scale(x + g * s->width, w + g * s->width, s->width, s->levels);
    fitted turn = {.d = rounded_half(extreme_of(wish, s->groups) / (float)s->least)};
    *best = (fitted){.miss = FLT_MAX};
    for (int t = 0; t < TURNS; t++) {
        choose_scales(&turn, x, w, wish, s);
        if (t > 0 && !(turn.miss < best->miss)) break;
        *best = turn;
        solve_scale(&turn, x, w, s);
    }
    for (int i = 0; i < 256; i++) {
        float inverse = inverse_of(best->d * (float)best->scale[i / s->width]);
        const kh_levels range = {(float)-s->levels, (float)(s->levels - 1)};
        q[i] = (uint8_t)((int)level_of(x[i] * inverse, range) + s->levels);
    }
}

/* ---- bits, as kern/unpack_block.h reads them */

static void join_runs(uint8_t *qs /* [n] */, const uint8_t *q /* [2n] */, int n)
{
    for (int i = 0; i < n; i++) qs[i] = (uint8_t)((q[i] & 15) | (q[i + n] & 15) << 4);
}

/* The two bits from `place` on of four runs of 32. */
static void join_pairs(uint8_t *qs /* [32] */, const uint8_t *q /* [128] */, int place)
{
    memset(qs, 0, 32);
    for (int run = 0; run < 4; run++)
        for (int i = 0; i < 32; i++)
            qs[i] = (uint8_t)(qs[i] | (q[32 * run + i] >> place & 3) << 2 * run);
}

/* Bit `place` of eight runs of 32. */
static void join_bits(uint8_t *to /* [32] */, const uint8_t *q /* [256] */, int place)
{
    memset(to, 0, 32);
    for (int run = 0; run < 8; run++)
        for (int i = 0; i < 32; i++)
            to[i] = (uint8_t)(to[i] | (q[32 * run + i] >> place & 1) << run);
}

static void join_k_scales(uint8_t *packed /* [12] */, const fitted *f)
{
    for (int g = 0; g < 4; g++) {
        packed[g] = (uint8_t)(f->scale[g] | (f->scale[g + 4] >> 4) << 6);
        packed[4 + g] = (uint8_t)(f->minimum[g] | (f->minimum[g + 4] >> 4) << 6);
        packed[8 + g] = (uint8_t)((f->scale[g + 4] & 15) | (f->minimum[g + 4] & 15) << 4);
    }
}

static void encode_q2_k(void *y, const float *x, size_t n)
{
    static const shape s = {.groups = 16, .width = 16, .most = 15, .levels = 3, .flat = 0.5f};
    kh_block_q2_k *to = y;
    fitted f;
    uint8_t q[256];
    for (size_t at = 0; at < n; at += 256, to++) {
        fit_affine(&f, q, x + at, &s);
        to->d = half_of(f.d);
        to->dmin = half_of(f.dmin);
        for (int g = 0; g < 16; g++) to->scales[g] = (uint8_t)(f.scale[g] | f.minimum[g] << 4);
        for (int half = 0; half < 2; half++) join_pairs(to->qs + 32 * half, q + 128 * half, 0);
    }
}

static void encode_q3_k(void *y, const float *x, size_t n)
{
    static const shape s = {
        .groups = 16, .width = 16, .least = -32, .most = 31, .levels = 4, .flat = 0.5f};
    kh_block_q3_k *to = y;
    fitted f;
    uint8_t q[256];
    for (size_t at = 0; at < n; at += 256, to++) {
        fit_centred(&f, q, x + at, &s);
        to->d = half_of(f.d);
        memset(to->scales, 0, sizeof to->scales);
        for (int g = 0; g < 16; g++) {
            int stored = f.scale[g] + 32;
            uint8_t *low = &to->scales[g % 8], *high = &to->scales[8 + g % 4];
            *low = (uint8_t)(*low | (stored & 15) << 4 * (g / 8));
            *high = (uint8_t)(*high | (stored >> 4) << 2 * (g / 4));
        }
        for (int half = 0; half < 2; half++) join_pairs(to->qs + 32 * half, q + 128 * half, 0);
        join_bits(to->hmask, q, 2);
    }
}

static void encode_q4_k(void *y, const float *x, size_t n)
{
    static const shape s = {.groups = 8, .width = 32, .most = 63, .levels = 15, .flat = 1};
    kh_block_q4_k *to = y;
    fitted f;
    uint8_t q[256];
    for (size_t at = 0; at < n; at += 256, to++) {
        fit_affine(&f, q, x + at, &s);
        to->d = half_of(f.d);
        to->dmin = half_of(f.dmin);
        join_k_scales(to->scales, &f);
        for (int part = 0; part < 4; part++) join_runs(to->qs + 32 * part, q + 64 * part, 32);
    }
}

static void encode_q5_k(void *y, const float *x, size_t n)
{
    static const shape s = {.groups = 8, .width = 32, .most = 63, .levels = 31, .flat = 1};
    kh_block_q5_k *to = y;
    fitted f;
    uint8_t q[256];
    for (size_t at = 0; at < n; at += 256, to++) {
        fit_affine(&f, q, x + at, &s);
        to->d = half_of(f.d);
        to->dmin = half_of(f.dmin);
        join_k_scales(to->scales, &f);
        for (int part = 0; part < 4; part++) join_runs(to->qs + 32 * part, q + 64 * part, 32);
        join_bits(to->qh, q, 4);
    }
}

static void encode_q6_k(void *y, const float *x, size_t n)
{
    static const shape s = {
        .groups = 16, .width = 16, .least = -128, .most = 127, .levels = 32, .flat = 0.5f};
    kh_block_q6_k *to = y;
    fitted f;
    uint8_t q[256];
    for (size_t at = 0; at < n; at += 256, to++) {
        fit_centred(&f, q, x + at, &s);
        to->d = half_of(f.d);
        for (int g = 0; g < 16; g++) to->scales[g] = (int8_t)f.scale[g];
        for (int half = 0; half < 2; half++) {
            join_runs(to->ql + 64 * half, q + 128 * half, 64);
            join_pairs(to->qh + 32 * half, q + 128 * half, 4);
        }
    }
}

#endif
