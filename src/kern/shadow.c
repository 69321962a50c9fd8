/* The shadow of a page of keys, plain C: how it is made, and the twin of how it is read.
 *
 * Why the bound holds. Let H be the rotation with H^T H = b, y = H k the rotated key, q' = H q / b the
 * query, c the common vector, d x the quantised rest, e = y - c - d x. Then q.k = q'.y exactly, and
 *
 *     q.k - estimate = q'.e + (q' - step x_q).(d x) + rounding
 *
 *     |q'.e| <= |q'| |e|      |q' - step x_q| <= step / 2 sqrt(E) <= |q'| sqrt(E) / (2 LEVELS)
 *
 * Rounding is E + 1 steps of u = 2^-24 in the f32 score, at most |q| |k| = |q'| |y| each; log2 b in either
 * rotation; a few in the estimate, relative to |c| and |d x|; (E + 64) u (|y| + |c| + |d x|) covers all of it
 * with room, also for adding the bound itself. Products that underflow are covered by the floor of 1e-15 in
 * errors and norms.
 *
 * The mean of the page is taken off first: keys of a trained model share a large part, which would cost
 * resolution, and neighbours share more of it than a whole sequence does (positions are in the keys). It is
 * kept in 8 bits, because any vector near it serves. */
#include "kern/shadow_kern.h"

#include "kern/kern.h"

#include <math.h>
#include <string.h>

#define ROUND 5.9604645e-8f /* 2^-24 */

typedef struct parts {
    int8_t *keys, *mean;
    float *scales, *errors, *mean_scale;
} parts;

static parts parts_of(void *shadow, size_t E)
{
    char *at = shadow;
    float *scales = (float *)(void *)(at + kh_shadow_scales(E));
    int8_t *mean = (int8_t *)at + kh_shadow_mean(E);
    return (parts){.keys = (int8_t *)at,
                   .mean = mean,
                   .scales = scales,
                   .errors = scales + KH_PAGE,
                   .mean_scale = (float *)(void *)(mean + kh_shadow_width(E))};
}

/* Keys that no bound can be given for become 0; their errors say it. */
static void drop_wild(float *panel, float *errors /* [16] */, size_t E)
{
    float sums[KH_PANEL] = {0};
    for (size_t e = 0; e < E; e++)
        for (size_t i = 0; i < KH_PANEL; i++)
            sums[i] += panel[e * KH_PANEL + i] * panel[e * KH_PANEL + i];
    for (size_t i = 0; i < KH_PANEL; i++) {
        errors[i] = sums[i] < 1e30f ? 0.0f : INFINITY;
        for (size_t e = 0; e < E && !(sums[i] < 1e30f); e++) panel[e * KH_PANEL + i] = 0;
    }
}

/* The nearest whole number, ties to even: adding 1.5 * 2^23 leaves no room for a fraction. */
static float level(float x)
{
    x = x > 127.0f ? 127.0f : x < -127.0f ? -127.0f : x;
    return (x + 12582912.0f) - 12582912.0f;
}

/* The mean of all keys in 8 bits. */
static void take_mean(const parts *s, const float *panels, size_t E)
{
    float mean[KH_SHADOW_WIDEST], top = 0;
    for (size_t e = 0; e < E; e++) {
        float sum = 0;
        for (size_t p = 0; p < KH_PANELS; p++)
            for (size_t i = 0; i < KH_PANEL; i++) sum += panels[(p * E + e) * KH_PANEL + i];
        mean[e] = sum / KH_PAGE;
        if (fabsf(mean[e]) > top) top = fabsf(mean[e]);
    }
    *s->mean_scale = top / 127.0f;
    float inverse = *s->mean_scale > 0 ? 1.0f / *s->mean_scale : 0.0f;
    for (size_t e = 0; e < E; e++)
        s->mean[e] = (int8_t)(inverse < INFINITY ? level(mean[e] * inverse) : 0);
}

/* Sixteen keys side by side: what the mean leaves of them, their bytes, scales and errors. */
static void take_panel(const parts *s, float *panel, size_t first, size_t E)
{
    float top[KH_PANEL] = {0}, all[KH_PANEL] = {0}, kept[KH_PANEL] = {0}, lost[KH_PANEL] = {0};
    float *scale = s->scales + first, inverse[KH_PANEL], shared = 0;
    for (size_t e = 0; e < E; e++) {
        float c = *s->mean_scale * (float)s->mean[e];
        shared += c * c;
        for (size_t i = 0; i < KH_PANEL; i++) {
            float y = panel[e * KH_PANEL + i], rest = y - c, size = fabsf(rest);
            panel[e * KH_PANEL + i] = rest;
            all[i] += y * y;
            top[i] = size > top[i] ? size : top[i];
        }
    }
    for (size_t i = 0; i < KH_PANEL; i++) {
        scale[i] = top[i] / 127.0f;
        inverse[i] = scale[i] > 0 ? 1.0f / scale[i] : 0.0f;
        if (!(inverse[i] < INFINITY)) scale[i] = inverse[i] = 0;
    }
    for (size_t e = 0; e < E; e++) {
        int8_t *to = s->keys + (e / 2 * KH_PAGE + first) * 2 + e % 2;
        for (size_t i = 0; i < KH_PANEL; i++) {
            float rest = panel[e * KH_PANEL + i], x = level(rest * inverse[i]), near = scale[i] * x;
            float gone = rest - near;
            to[2 * i] = (int8_t)x;
            kept[i] += near * near;
            lost[i] += gone * gone;
        }
    }
    float rounding = ((float)E + 64) * ROUND, half = sqrtf((float)E) * (0.52f / KH_SHADOW_LEVELS);
    for (size_t i = 0; i < KH_PANEL; i++) {
        float bound = sqrtf(lost[i]) * 1.0001f + sqrtf(kept[i]) * half +
                      rounding * (sqrtf(all[i]) + sqrtf(shared) + sqrtf(kept[i]));
        s->errors[first + i] += bound * 1.0001f + 1e-15f;
    }
}

void shadow_pack_ref(void *shadow, float *panels, size_t E)
{
    parts s = parts_of(shadow, E);
    memset(shadow, 0, kh_shadow_bytes(E));
    for (size_t p = 0; p < KH_PANELS; p++) {
        float *panel = panels + p * E * KH_PANEL;
        drop_wild(panel, s.errors + p * KH_PANEL, E);
        kh_shadow_rotate(panel, E, KH_PANEL);
    }
    take_mean(&s, panels, E);
    for (size_t p = 0; p < KH_PANELS; p++)
        take_panel(&s, panels + p * E * KH_PANEL, p * KH_PANEL, E);
}

void shadow_score_ref(float *upper, size_t ldu, const int16_t *q, const float *steps, size_t R,
                      const void *shadow, size_t E, const void *next)
{
    const char *at = shadow;
    const int8_t *keys = (const int8_t *)at, *mean = keys + kh_shadow_mean(E);
    const float *scales = (const float *)(const void *)(at + kh_shadow_scales(E));
    size_t W = kh_shadow_width(E);
    float mean_scale;
    (void)next;
    memcpy(&mean_scale, mean + W, sizeof mean_scale);
    for (size_t r = 0; r < R; r++, q += W) {
        int32_t common = 0;
        for (size_t e = 0; e < W; e++) common += q[e] * mean[e];
        float base = mean_scale * steps[2 * r] * (float)common;
        for (size_t j = 0; j < KH_PAGE; j++) {
            int32_t dot = 0;
            for (size_t e = 0; e < W; e++) dot += q[e] * keys[(e / 2 * KH_PAGE + j) * 2 + e % 2];
            float estimate = fmaf((float)dot, scales[j] * steps[2 * r], base);
            upper[r * ldu + j] = fmaf(steps[2 * r + 1], scales[KH_PAGE + j], estimate);
        }
    }
}
