/* kern/encode_small_body.h: rows as the types with blocks of 32, as half floats and as floats.
 *
 * The stored scale is a binary16 number, so levels are chosen for the rounded scale, not for the one
 * that was searched. Where a block's numbers lie on a grid (a file that was quantised before) the
 * search finds it.
 *
 * Q8_0 maps the largest number to 127: at that fineness nothing is gained by a search (0.1 % of the
 * error), and the result is what everybody else writes. */
#ifndef KH_KERN_ENCODE_SMALL_BODY_H
#define KH_KERN_ENCODE_SMALL_BODY_H

#include "kern/encode_search.h"
#include "tensor/types.h"

#include <stdint.h>
#include <string.h>

static const float flat = 0.5f; /* part of the weights */

static void encode_f32(void *y, const float *x, size_t n)
{
    memcpy(y, x, n * sizeof *x);
}

static void encode_f16(void *y, const float *x, size_t n)
{
    uint16_t *to = y;
    for (size_t i = 0; i < n; i++) to[i] = kh_f32_to_f16(x[i]);
}

static void encode_bf16(void *y, const float *x, size_t n)
{
    uint16_t *to = y;
    for (size_t i = 0; i < n; i++) to[i] = kh_f32_to_bf16(x[i]);
}

/* Halves away from zero, as the writers of this type agree; 0 for a NaN. */
static int8_t nearest_byte(float v)
{
    return (int8_t)(v > 127 ? 127 : v < -127 ? -127 : v == v ? roundf(v) : 0);
}

static void encode_q8_0(void *y, const float *x, size_t n)
{
    kh_block_q8_0 *to = y;
    for (size_t at = 0; at < n; at += 32, to++) {
        float d = fabsf(extreme_of(x + at, 32)) / 127.0f, inverse = inverse_of(d);
        to->d = half_of(d);
        for (int i = 0; i < 32; i++) to->qs[i] = nearest_byte(x[at + (size_t)i] * inverse);
    }
}

/* The nibbles of 32 levels: the second half of the block on top. */
static void join_nibbles(uint8_t *qs /* [16] */, const uint8_t *q /* [32] */)
{
    for (int i = 0; i < 16; i++) qs[i] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
}

static void fifth_bits(uint8_t *qh /* [4] */, const uint8_t *q /* [32] */)
{
    memset(qh, 0, 4);
    for (int i = 0; i < 32; i++) qh[i / 8] = (uint8_t)(qh[i / 8] | (q[i] >> 4) << i % 8);
}

/* Levels of a block without a minimum, `steps` the level of zero; returns the stored scale. */
static uint16_t centred(uint8_t *q /* [32] */, const float *x /* [32] */, int steps)
{
    float w[32];
    weigh(w, x, 32, flat);
    uint16_t stored = half_of(search_scale(x, w, 32, steps));
    float inverse = inverse_of(kh_f16_to_f32(stored));
    const kh_levels range = {(float)-steps, (float)(steps - 1)};
    for (int i = 0; i < 32; i++) q[i] = (uint8_t)((int)level_of(x[i] * inverse, range) + steps);
    return stored;
}

/* The same of a block with a minimum. */
static void affine(uint8_t *q /* [32] */, uint16_t *d, uint16_t *m, const float *x /* [32] */,
                   int most)
{
    float w[32];
    weigh(w, x, 32, flat);
    kh_line line = search_line(x, w, 32, most, 0);
    *d = half_of(line.d);
    *m = half_of(line.b);
    float inverse = inverse_of(kh_f16_to_f32(*d)), b = kh_f16_to_f32(*m);
    for (int i = 0; i < 32; i++)
        q[i] = (uint8_t)level_of((x[i] - b) * inverse, (kh_levels){0, (float)most});
}

static void encode_q4_0(void *y, const float *x, size_t n)
{
    kh_block_q4_0 *to = y;
    uint8_t q[32];
    for (size_t at = 0; at < n; at += 32, to++) {
        to->d = centred(q, x + at, 8);
        join_nibbles(to->qs, q);
    }
}

static void encode_q5_0(void *y, const float *x, size_t n)
{
    kh_block_q5_0 *to = y;
    uint8_t q[32];
    for (size_t at = 0; at < n; at += 32, to++) {
        to->d = centred(q, x + at, 16);
        join_nibbles(to->qs, q);
        fifth_bits(to->qh, q);
    }
}

static void encode_q4_1(void *y, const float *x, size_t n)
{
    kh_block_q4_1 *to = y;
    uint8_t q[32];
    for (size_t at = 0; at < n; at += 32, to++) {
        affine(q, &to->d, &to->m, x + at, 15);
        join_nibbles(to->qs, q);
    }
}

static void encode_q5_1(void *y, const float *x, size_t n)
{
    kh_block_q5_1 *to = y;
    uint8_t q[32];
    for (size_t at = 0; at < n; at += 32, to++) {
        affine(q, &to->d, &to->m, x + at, 31);
        join_nibbles(to->qs, q);
        fifth_bits(to->qh, q);
    }
}

#endif
