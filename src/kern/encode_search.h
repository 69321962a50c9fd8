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
 * Levels are floats here: adding and subtracting 1.5 * 2^23 rounds to nearest even without a call, and
 * the loops over eight lanes become vector code. Groups have n = 16 or 32. */
#ifndef KH_KERN_ENCODE_SEARCH_H
#define KH_KERN_ENCODE_SEARCH_H

#include "tensor/half.h"

#include <float.h>
#include <math.h>
#include <stddef.h>

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

/* Sums of w, levels and numbers over a group. */
typedef struct kh_moments {
    float q, qq, xq;
} kh_moments;

static inline float lanes_sum(const float *lane /* [8] */)
{
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/* Levels are the roundings of (x - b) * inverse. */
static inline kh_moments moments_of(const float *x, const float *w, int n, float inverse, float b,
                                    kh_levels range)
{
    float q[8] = {0}, qq[8] = {0}, xq[8] = {0};
    for (int i = 0; i < n; i += 8)
        for (int l = 0; l < 8; l++) {
            float level = level_of((x[i + l] - b) * inverse, range), wq = w[i + l] * level;
            q[l] += wq;
            qq[l] += wq * level;
            xq[l] += wq * x[i + l];
        }
    return (kh_moments){lanes_sum(q), lanes_sum(qq), lanes_sum(xq)};
}

/* The weighted squared distance of a group from its rounding to this line. */
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
        if (s.qq > 0 && s.xq * s.xq > gain * s.qq) {
            gain = s.xq * s.xq / s.qq;
            best = s.xq / s.qq;
        }
    }
    for (int turn = 0; turn < 4; turn++) {
        kh_moments s = moments_of(x, w, n, inverse_of(best), 0, range);
        if (!(s.qq > 0 && s.xq * s.xq > gain * s.qq)) break;
        gain = s.xq * s.xq / s.qq;
        best = s.xq / s.qq;
    }
    return best;
}

/* The best line through the moments; with `below`, b <= 0. */
static inline kh_line line_of(kh_moments s, float w, float wx, int below)
{
    float det = w * s.qq - s.q * s.q;
    kh_line line = {0, w > 0 ? wx / w : 0};
    if (det > 0) {
        line.d = (w * s.xq - wx * s.q) / det;
        line.b = (s.qq * wx - s.q * s.xq) / det;
    }
    if (below && line.b > 0) line = (kh_line){s.qq > 0 ? s.xq / s.qq : 0, 0};
    return line;
}

/* The best line x ~ d * q + b, q in [0, most], d >= 0; with `below`, b <= 0. */
static inline kh_line search_line(const float *x, const float *w, int n, int most, int below)
{
    const kh_levels range = {0, (float)most};
    float low = x[0], high = x[0], sum = 0, sum_x = 0;
    for (int i = 0; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
        sum += w[i];
        sum_x += w[i] * x[i];
    }
    if (below && low > 0) low = 0;
    kh_line best = {(high - low) / (float)most, low};
    if (!(high - low > KH_ENCODE_TINY)) return (kh_line){0, low};
    float least = miss_of(x, w, n, best, range);
    for (int k = most > 3 ? -15 : -9; k <= 10; k++) {
        float inverse = ((float)most + 0.1f * (float)k) / (high - low);
        kh_line line = line_of(moments_of(x, w, n, inverse, low, range), sum, sum_x, below);
        float miss = line.d > 0 ? miss_of(x, w, n, line, range) : FLT_MAX;
        if (miss < least) least = miss, best = line;
    }
    for (int turn = 0; turn < 4; turn++) {
        kh_moments s = moments_of(x, w, n, inverse_of(best.d), best.b, range);
        kh_line line = line_of(s, sum, sum_x, below);
        float miss = line.d > 0 ? miss_of(x, w, n, line, range) : FLT_MAX;
        if (!(miss < least)) break;
        least = miss;
        best = line;
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
