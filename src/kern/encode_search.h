/* kern/encode_search.h: the scale, or scale and minimum, that a group of numbers is best rounded with.
 *
 * A group x[0..n) becomes levels q, whole numbers in a small range, so that d * q + b is near x in the
 * sense of weighted least squares. For given levels the best d and b are a formula (normal equations);
 * for given d and b the best levels are roundings. The search tries a range of scales about the one
 * that maps the extremes to the ends of the range, each with its own levels and formula, keeps the one
 * that misses least, and then goes back and forth between levels and formula until nothing gains.
 * Integer positions of the extreme value are among the scales that are tried, so numbers that lie on
 * such a grid already are found to do so.
 *
 * Large numbers count more: weights are a flat part plus |x| by the group's rms. On the demo model with
 * Q4_0 that takes the distance of the logits from 0.97 to 0.95 of what plain rounding gives, and it evens
 * out texts (flat weights alone: 0.89 to 1.05).
 *
 * Levels are floats here: adding and subtracting 1.5 * 2^23 rounds to nearest even without a call, and
 * the loops over eight lanes are vector code. Groups have n = 16 or 32. */
#ifndef KH_KERN_ENCODE_SEARCH_H
#define KH_KERN_ENCODE_SEARCH_H

#include "tensor/half.h"

#include <float.h>
#include <math.h>
#include <stddef.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

/* Below this the largest number of a group counts as zero: half the smallest binary16 number divided
 * by the largest level is far above, and reciprocals stay finite. */
#define KH_ENCODE_TINY 1e-15f

/* What a group is rounded to: d * q + b with least <= q <= most. */
typedef struct kh_line {
    float d, b;
} kh_line;

typedef struct kh_levels {
    float least, most;
} kh_levels;

/* v rounded to a whole number of the range; a NaN becomes the least. */
static inline float level_of(float v, kh_levels range)
{
    const float magic = 12582912.0f;
    float clamped = v > range.least ? v : range.least;
    clamped = clamped < range.most ? clamped : range.most;
    return clamped + magic - magic;
}

static inline float inverse_of(float d)
{
    return fabsf(d) > KH_ENCODE_TINY ? 1.0f / d : 0.0f;
}

/* What an error of each number of a group counts: its size by the group's rms, and a flat part. */
static inline void weigh(float *w, const float *x, int n, float flat)
{
    float squares = 0;
    for (int i = 0; i < n; i++) squares += x[i] * x[i];
    float inverse = inverse_of(sqrtf(squares / (float)n));
    for (int i = 0; i < n; i++) w[i] = flat + fabsf(x[i]) * inverse;
}

/* Sums over a group: of levels, their squares, and levels times distances x - b. */
typedef struct kh_moments {
    float q, qq, zq;
} kh_moments;

static inline float lanes_sum(const float *lane /* [8] */)
{
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/* moments_of: levels are the roundings of (x - b) * inverse.
 * miss_of: the weighted squared distance of a group from its rounding to this line.
 * Both in eight lanes, with the same bits in either form: no product is fused with a sum. */
#ifdef __AVX2__
static inline __m256 levels_of(__m256 v, kh_levels range)
{
    const __m256 magic = _mm256_set1_ps(12582912.0f);
    v = _mm256_max_ps(v, _mm256_set1_ps(range.least));
    v = _mm256_min_ps(v, _mm256_set1_ps(range.most));
    return _mm256_sub_ps(_mm256_add_ps(v, magic), magic);
}

static inline float sum_of(__m256 v)
{
    float lane[8];
    _mm256_storeu_ps(lane, v);
    return lanes_sum(lane);
}

static inline kh_moments moments_of(const float *x, const float *w, int n, float inverse, float b,
                                    kh_levels range)
{
    __m256 q = _mm256_setzero_ps(), qq = q, zq = q;
    for (int i = 0; i < n; i += 8) {
        __m256 z = _mm256_sub_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(b));
        __m256 level = levels_of(_mm256_mul_ps(z, _mm256_set1_ps(inverse)), range);
        __m256 wq = _mm256_mul_ps(_mm256_loadu_ps(w + i), level);
        q = _mm256_add_ps(q, wq);
        qq = _mm256_add_ps(qq, _mm256_mul_ps(wq, level));
        zq = _mm256_add_ps(zq, _mm256_mul_ps(wq, z));
    }
    return (kh_moments){sum_of(q), sum_of(qq), sum_of(zq)};
}

static inline float miss_of(const float *x, const float *w, int n, kh_line line, kh_levels range)
{
    __m256 miss = _mm256_setzero_ps(), inverse = _mm256_set1_ps(inverse_of(line.d));
    __m256 d = _mm256_set1_ps(line.d), b = _mm256_set1_ps(line.b);
    for (int i = 0; i < n; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);
        __m256 level = levels_of(_mm256_mul_ps(_mm256_sub_ps(v, b), inverse), range);
        __m256 off = _mm256_sub_ps(_mm256_add_ps(_mm256_mul_ps(d, level), b), v);
        __m256 part = _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(w + i), off), off);
        miss = _mm256_add_ps(miss, part);
    }
    return sum_of(miss);
}
#else
static inline kh_moments moments_of(const float *x, const float *w, int n, float inverse, float b,
                                    kh_levels range)
{
    float q[8] = {0}, qq[8] = {0}, zq[8] = {0};
    for (int i = 0; i < n; i += 8)
        for (int l = 0; l < 8; l++) {
            float z = x[i + l] - b, level = level_of(z * inverse, range), wq = w[i + l] * level;
            q[l] += wq;
            qq[l] += wq * level;
            zq[l] += wq * z;
        }
    return (kh_moments){lanes_sum(q), lanes_sum(qq), lanes_sum(zq)};
}

static inline float miss_of(const float *x, const float *w, int n, kh_line line, kh_levels range)
{
    float miss[8] = {0}, inverse = inverse_of(line.d);
    for (int i = 0; i < n; i += 8)
        for (int l = 0; l < 8; l++) {
            float level = level_of((x[i + l] - line.b) * inverse, range);
            float off = line.d * level + line.b - x[i + l];
            miss[l] += w[i + l] * off * off;
        }
    return lanes_sum(miss);
}
#endif

/* The number of largest size, with its sign. */
static inline float extreme_of(const float *x, int n)
{
    float best = 0;
    for (int i = 0; i < n; i++) best = fabsf(x[i]) > fabsf(best) ? x[i] : best;
    return best;
}

/* The best d for x ~ d * q, q in [-steps, steps - 1]: the extreme number goes to the longer side, so d
 * has the opposite sign of it. */
static inline float search_scale(const float *x, const float *w, int n, int steps)
{
    const kh_levels range = {(float)-steps, (float)(steps - 1)};
    float extreme = extreme_of(x, n), best = 0, gain = 0;
    if (!(fabsf(extreme) > KH_ENCODE_TINY)) return 0;
    int span = steps > 8 ? 10 : steps > 4 ? 15 : 5 * (steps - 1);
    for (int k = -2 * span; k <= 10; k++) {
        float inverse = -((float)steps + 0.1f * (float)k) / extreme;
        kh_moments s = moments_of(x, w, n, inverse, 0, range);
        if (s.qq > 0 && s.zq * s.zq > gain * s.qq) {
            gain = s.zq * s.zq / s.qq;
            best = s.zq / s.qq;
        }
    }
    for (int turn = 0; turn < 4; turn++) {
        kh_moments s = moments_of(x, w, n, inverse_of(best), 0, range);
        if (!(s.qq > 0 && s.zq * s.zq > gain * s.qq)) break;
        gain = s.zq * s.zq / s.qq;
        best = s.zq / s.qq;
    }
    return best;
}

/* A group seen from its lowest number: z = x - low. */
typedef struct kh_group {
    float low, high;
    float w, z, zz; /* sums of weights, of z and of its squares */
    float ceiling;  /* of b seen from there */
} kh_group;

static inline kh_group group_of(const float *x, const float *w, int n, int below)
{
    kh_group g = {.low = x[0], .high = x[0], .ceiling = FLT_MAX};
    for (int i = 0; i < n; i++) {
        g.low = x[i] < g.low ? x[i] : g.low;
        g.high = x[i] > g.high ? x[i] : g.high;
    }
    if (below && g.low > 0) g.low = 0;
    if (below) g.ceiling = -g.low;
    for (int i = 0; i < n; i++) {
        float z = x[i] - g.low;
        g.w += w[i];
        g.z += w[i] * z;
        g.zz += w[i] * z * z;
    }
    return g;
}

/* The best line through z for levels with these moments (seen from the group's lowest number), and how
 * much it misses. */
static inline kh_line line_of(kh_moments s, const kh_group *g, float *miss)
{
    kh_line line = {0, g->w > 0 ? g->z / g->w : 0};
    float det = g->w * s.qq - s.q * s.q;
    if (det > 0) line.b = (s.qq * g->z - s.q * s.zq) / det;
    if (line.b > g->ceiling) line.b = g->ceiling;
    if (s.qq > 0) line.d = (s.zq - line.b * s.q) / s.qq;
    double d = (double)line.d, b = (double)line.b, q = (double)s.q, qq = (double)s.qq;
    *miss = (float)((double)g->zz + d * (d * qq - 2 * (double)s.zq + 2 * b * q) +
                    b * (b * (double)g->w - 2 * (double)g->z));
    return line;
}

/* The best line x ~ d * q + b, q in [0, most], d >= 0; with `below`, b <= 0. */
static inline kh_line search_line(const float *x, const float *w, int n, int most, int below)
{
    const kh_levels range = {0, (float)most};
    const kh_group g = group_of(x, w, n, below);
    float width = g.high - g.low, guess = FLT_MAX, miss;
    kh_line best = {width / (float)most, g.low}, found = {0, 0};
    if (!(width > KH_ENCODE_TINY)) return (kh_line){0, g.low};
    for (int k = most > 3 ? -15 : -9; k <= 10; k++) {
        float inverse = ((float)most + 0.1f * (float)k) / width;
        kh_line line = line_of(moments_of(x, w, n, inverse, g.low, range), &g, &miss);
        if (line.d > 0 && miss < guess) guess = miss, found = line;
    }
    float least = miss_of(x, w, n, best, range);
    for (int turn = 0; turn < 5 && found.d > 0; turn++) {
        kh_line line = {found.d, found.b + g.low};
        miss = miss_of(x, w, n, line, range);
        if (!(miss < least)) break;
        least = miss;
        best = line;
        /* levels of this line, moments from the group's lowest number */
        kh_moments s = moments_of(x, w, n, inverse_of(line.d), line.b, range);
        s.zq += (line.b - g.low) * s.q;
        found = line_of(s, &g, &miss);
    }
    return best;
}

/* A number as the nearest binary16 one; too large ones become the largest. */
static inline uint16_t half_of(float v)
{
    float clamped = v > -65504.0f ? v : -65504.0f;
    return kh_f32_to_f16(clamped < 65504.0f ? clamped : 65504.0f);
}

#endif
