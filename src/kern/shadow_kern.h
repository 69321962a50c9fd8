/* kern/shadow_kern.h: the int8 shadow of a page of keys, and the contracts of its kernels.
 *
 * A shadow stands for the 64 keys of a page: rotated, less a common vector, in 8 bits with a scale for each
 * key, and with a bound on what that costs. W is E rounded up to 32; what is beyond E is 0.
 *
 *     keys        int8  [W / 2][64][2]   two elements of all keys side by side: sums stay in their lanes
 *     scales      f32   [64]
 *     errors      f32   [64]
 *     mean        int8  [W]              the common vector, with one scale
 *     mean scale  f32, and room up to a multiple of 64 bytes
 *
 * Rotation: the Hadamard matrix of the largest power of two that divides E, on every such block of elements.
 * It is orthogonal but for a factor that the query takes, so products stay what they are, and a large channel
 * becomes a little of all.
 *
 * shadow_pack     the shadow of a whole page of keys, given as f32 panels [4][E][16], which it overwrites.
 *                 errors[j] is such that for every query (kh_shadow_query in attn/screen.c) the f32 score
 *                 of score_panel differs from the estimate below by at most norm * errors[j], all rounding
 *                 included. INFINITY where the key holds NaN, infinities or more than 1e15.
 * shadow_score    for r < R, j < 64:  dot = sum of q[r][e] * key[j][e], an integer
 *                 estimate = fma(dot, scales[j] * step, (mean scale * step) * (sum of q[r][e] * mean[e]))
 *                 upper[r * ldu + j] = fma(norm, errors[j], estimate); steps [R][2]: step, norm. q [R][W].
 *                 `next`, NULL or another shadow: fetched into the cache meanwhile. Equal bits everywhere:
 *                 sums are integers below 2^31. */
#ifndef KH_KERN_SHADOW_KERN_H
#define KH_KERN_SHADOW_KERN_H

#include "kern/attn_kern.h"

#include <stddef.h>
#include <stdint.h>

enum { KH_SHADOW_WIDEST = 256, KH_SHADOW_LEVELS = 32767 /* of a query's element */ };

static inline size_t kh_shadow_width(size_t E)
{
    return (E + 31) / 32 * 32;
}

/* Where the scales begin; the errors follow them, then the mean. */
static inline size_t kh_shadow_scales(size_t E)
{
    return KH_PAGE * kh_shadow_width(E);
}

static inline size_t kh_shadow_mean(size_t E)
{
    return kh_shadow_scales(E) + 2 * KH_PAGE * sizeof(float);
}

static inline size_t kh_shadow_bytes(size_t E)
{
    return (kh_shadow_mean(E) + kh_shadow_width(E) + sizeof(float) + 63) / 64 * 64;
}

static inline const float *kh_shadow_errors(const void *shadow, size_t E)
{
    const char *at = (const char *)shadow + kh_shadow_scales(E) + KH_PAGE * sizeof(float);
    return (const float *)(const void *)at;
}

/* Elements of `lanes` vectors side by side, x [E][lanes], rotated in place; norms grow by the square root of
 * the block, which is returned. */
static inline size_t kh_shadow_rotate(float *x, size_t E, size_t lanes)
{
    size_t block = E & (~E + 1);
    for (size_t half = 1; half < block; half *= 2)
        for (size_t e = 0; e < E; e += 2 * half)
            for (size_t i = e * lanes; i < (e + half) * lanes; i++) {
                float a = x[i], b = x[i + half * lanes];
                x[i] = a + b;
                x[i + half * lanes] = a - b;
            }
    return block;
}

#endif
