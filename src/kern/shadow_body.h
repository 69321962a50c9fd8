/* kern/shadow_body.h: reading a shadow in sixteen lanes; included after
 *
 *     vi, vf                    a vector of integers, of floats;  WIDE  lanes of 32 bits
 *     load_pairs(p)             WIDE * 2 int8 to int16
 *     dot_pairs(sum, keys, q)   sum + products of pairs
 *     spread_pair(p)            two int16 into all lanes
 *     and the floats' words;    COLS vectors of keys, ROWS queries at a time
 *
 * The bytes of two elements of COLS * WIDE keys become 16-bit numbers once for all queries of a tile; every
 * lane sums one key. The rest of the next shadow is asked for a line at a time, between the products. */
#include "kern/kern.h"
#include "kern/shadow_kern.h"
#include "kern/tile_switch.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))

INLINE int32_t dot_mean(const int16_t *q, const int8_t *mean, size_t W)
{
    int32_t lanes[WIDE], sum = 0;
    vi all = zeroi();
    for (size_t e = 0; e < W; e += 2 * WIDE)
        all = dot_pairs(all, load_pairs(mean + e), loadi(q + e));
    storei(lanes, all);
    for (size_t i = 0; i < WIDE; i++) sum += lanes[i];
    return sum;
}

INLINE void screen_tile(float *upper, size_t ldu, const int16_t *q, const float *steps, size_t rows,
                        const int8_t *keys, const float *scales, const int8_t *mean, size_t W,
                        const char *next, size_t lines)
{
    vi acc[ROWS][COLS];
    float mean_scale;
    memcpy(&mean_scale, mean + W, sizeof mean_scale);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < COLS; c++) acc[r][c] = zeroi();
    for (size_t i = 0; i < W / 2; i++) {
        vi k[COLS];
        for (size_t c = 0; c < COLS; c++) k[c] = load_pairs(keys + (i * KH_PAGE + c * WIDE) * 2);
        for (size_t l = 0; l < lines; l++, next += 64) __builtin_prefetch(next, 0, 3);
        for (size_t r = 0; r < rows; r++) {
            vi x = spread_pair(q + r * W + 2 * i);
            for (size_t c = 0; c < COLS; c++) acc[r][c] = dot_pairs(acc[r][c], k[c], x);
        }
    }
    for (size_t r = 0; r < rows; r++) {
        float step = steps[2 * r];
        vf base = spreadf(mean_scale * step * (float)dot_mean(q + r * W, mean, W));
        for (size_t c = 0; c < COLS; c++) {
            vf scale = mulf(loadf(scales + c * WIDE), spreadf(step));
            vf estimate = madf(to_f32(acc[r][c]), scale, base);
            vf bound = loadf(scales + KH_PAGE + c * WIDE);
            storef(upper + r * ldu + c * WIDE, madf(spreadf(steps[2 * r + 1]), bound, estimate));
        }
    }
}

INLINE void screen_rows(float *upper, size_t ldu, const int16_t *q, const float *steps, size_t rows,
                        const void *shadow, size_t E, const char *next, size_t lines)
{
    const char *at = shadow;
    const float *scales = (const float *)(const void *)(at + kh_shadow_scales(E));
    const int8_t *keys = (const int8_t *)at, *mean = keys + kh_shadow_mean(E);
    for (size_t j = 0; j < KH_PAGE; j += COLS * WIDE) {
        screen_tile(upper + j, ldu, q, steps, rows, keys + 2 * j, scales + j, mean,
                    kh_shadow_width(E), next, lines);
        lines = 0;
    }
}

void BODY(float *upper, size_t ldu, const int16_t *q, const float *steps, size_t R,
          const void *shadow, size_t E, const void *next)
{
    size_t W = kh_shadow_width(E), lines = next ? 2 : 0; /* W / 2 times two: the keys of a shadow */
    for (size_t r = 0; r < R; r += ROWS, lines = 0) {
        float *to = upper + r * ldu;
        const int16_t *x = q + r * W;
        const float *s = steps + 2 * r;
#define CALL(n) screen_rows(to, ldu, x, s, n, shadow, E, next, lines)
        TILE_SWITCH(R - r, CALL)
#undef CALL
    }
    if (next && R > 0) {
        const char *end = (const char *)next + kh_shadow_scales(E);
        for (size_t i = 0; i < 2 * KH_PAGE * sizeof(float) + W; i += 64)
            __builtin_prefetch(end + i, 0, 3);
    }
}
