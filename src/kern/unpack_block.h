/* kern/unpack_block.h: reads one block of each quantised type, for the unpacking kernels.
 *
 * Every type of up to 6 bits has the same shape once its bits are taken apart: levels q >= 0 with a
 * scale, and a minimum, for each 16 elements (types with groups of 32 say the same thing twice).
 *
 *     value[i] = d[i / 16] * (q[i] - ZERO)      types without a minimum; ZERO is the level of 0
 *     value[i] = d[i / 16] * q[i] + m[i / 16]   types with one; m carries the sign, so "+" always
 *
 * Q8_0 and the table types have signed levels and ZERO = 0. A reader rounds as the format's defining
 * code does: scale and minimum are products of two numbers, each rounded to binary32 once. The
 * layouts are facts of the GGUF format; where the bits of Q3_K to Q6_K lie is told at each reader. */
#ifndef KH_KERN_UNPACK_BLOCK_H
#define KH_KERN_UNPACK_BLOCK_H

#include "tensor/half.h"
#include "tensor/types.h"

#include <stdint.h>

/* type in lower case, elements per block, level of zero; types whose readers leave m alone */
#define KH_UNPACK_CENTRED(X)                                                                       \
    X(q4_0, 32, 8)                                                                                 \
    X(q5_0, 32, 16)                                                                                \
    X(q8_0, 32, 0)                                                                                 \
    X(q3_k, 256, 4)                                                                                \
    X(q6_k, 256, 32)                                                                               \
    X(iq4_nl, 32, 0)                                                                               \
    X(iq4_xs, 256, 0)

/* type in lower case, elements per block; types with a minimum */
#define KH_UNPACK_AFFINE(X)                                                                        \
    X(q4_1, 32)                                                                                    \
    X(q5_1, 32)                                                                                    \
    X(q2_k, 256)                                                                                   \
    X(q4_k, 256)                                                                                   \
    X(q5_k, 256)

/* The 16 levels of the IQ4 types. */
static const int8_t kh_iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};

/* Low nibbles are the first n elements, high nibbles the n after them. */
static inline void split_nibbles(int8_t *q /* [2n] */, const uint8_t *qs /* [n] */, int n)
{
    for (int i = 0; i < n; i++) {
        q[i] = (int8_t)(qs[i] & 15);
        q[i + n] = (int8_t)(qs[i] >> 4);
    }
}

static inline void look_up(int8_t *q /* [n] */, int n)
{
    for (int i = 0; i < n; i++) q[i] = kh_iq4_levels[q[i]];
}

static inline void same_pair(float *pair /* [2] */, float value)
{
    pair[0] = pair[1] = value;
}

static inline void read_q4_0(int8_t *q, float *d, float *m, const kh_block_q4_0 *x)
{
    (void)m;
    same_pair(d, kh_f16_to_f32(x->d));
    split_nibbles(q, x->qs, 16);
}

static inline void read_q4_1(int8_t *q, float *d, float *m, const kh_block_q4_1 *x)
{
    same_pair(d, kh_f16_to_f32(x->d));
    same_pair(m, kh_f16_to_f32(x->m));
    split_nibbles(q, x->qs, 16);
}

static inline void add_fifth_bits(int8_t *q /* [32] */, const uint8_t *qh /* [4] */)
{
    for (int byte = 0; byte < 4; byte++, q += 8)
        for (int i = 0; i < 8; i++) q[i] = (int8_t)(q[i] | (qh[byte] >> i & 1) << 4);
}

/* Bit r of from[i] becomes bit `place` of element i of run r, eight runs of 32. */
static inline void add_bit_of_runs(int8_t *q /* [256] */, const uint8_t *from /* [32] */, int place)
{
    for (int run = 0; run < 8; run++, q += 32)
        for (int i = 0; i < 32; i++) q[i] = (int8_t)(q[i] | (from[i] >> run & 1) << place);
}

static inline void read_q5_0(int8_t *q, float *d, float *m, const kh_block_q5_0 *x)
{
    (void)m;
    same_pair(d, kh_f16_to_f32(x->d));
    split_nibbles(q, x->qs, 16);
    add_fifth_bits(q, x->qh);
}

static inline void read_q5_1(int8_t *q, float *d, float *m, const kh_block_q5_1 *x)
{
    same_pair(d, kh_f16_to_f32(x->d));
    same_pair(m, kh_f16_to_f32(x->m));
    split_nibbles(q, x->qs, 16);
    add_fifth_bits(q, x->qh);
}

static inline void read_q8_0(int8_t *q, float *d, float *m, const kh_block_q8_0 *x)
{
    (void)m;
    same_pair(d, kh_f16_to_f32(x->d));
    memcpy(q, x->qs, 32);
}

/* Two bits of one byte of 32 for each of four runs of 32 elements:  byte i: 3332 2211 1000 -> runs
 * 0..3 from the low end. Both K types with two-bit parts lie so, one half of a block at a time. */
static inline void split_pairs(int8_t *q /* [128] */, const uint8_t *qs /* [32] */)
{
    for (int run = 0; run < 4; run++)
        for (int i = 0; i < 32; i++) q[run * 32 + i] = (int8_t)(qs[i] >> 2 * run & 3);
}

static inline void read_q2_k(int8_t *q, float *d, float *m, const kh_block_q2_k *x)
{
    float scale = kh_f16_to_f32(x->d), least = kh_f16_to_f32(x->dmin);
    for (int g = 0; g < 16; g++) {
        d[g] = scale * (float)(x->scales[g] & 15);
        m[g] = -(least * (float)(x->scales[g] >> 4));
    }
    split_pairs(q, x->qs);
    split_pairs(q + 128, x->qs + 32);
}

/* Scale g has its low nibble in bytes 0-7 (g < 8: low half, else high half) and its two high bits in
 * byte 8 + g % 4 at bit 2 (g / 4). Bit r of hmask[i] is the third bit of element i of run r. */
static inline void read_q3_k(int8_t *q, float *d, float *m, const kh_block_q3_k *x)
{
    (void)m;
    float scale = kh_f16_to_f32(x->d);
    for (int g = 0; g < 16; g++) {
        int low = x->scales[g % 8] >> 4 * (g / 8) & 15,
            high = x->scales[8 + g % 4] >> 2 * (g / 4) & 3;
        d[g] = scale * (float)((low | high << 4) - 32);
    }
    split_pairs(q, x->qs);
    split_pairs(q + 128, x->qs + 32);
    add_bit_of_runs(q, x->hmask, 2);
}

/* Eight scales and eight minima of six bits in twelve bytes: of groups 0-3 in the low six bits of
 * bytes 0-3 and 4-7; of groups 4-7 the low nibble in bytes 8-11 (scale low half, minimum high half)
 * and the two high bits on top of bytes 0-3 and 4-7. */
static inline void read_k_scales(float *d, float *m, float scale, float least,
                                 const uint8_t *packed)
{
    for (int g = 0; g < 4; g++) {
        int a = packed[g], b = packed[4 + g], c = packed[8 + g];
        same_pair(d + 2 * g, scale * (float)(a & 63));
        same_pair(m + 2 * g, -(least * (float)(b & 63)));
        same_pair(d + 8 + 2 * g, scale * (float)((c & 15) | (a >> 6) << 4));
        same_pair(m + 8 + 2 * g, -(least * (float)(c >> 4 | (b >> 6) << 4)));
    }
}

static inline void read_q4_k(int8_t *q, float *d, float *m, const kh_block_q4_k *x)
{
    read_k_scales(d, m, kh_f16_to_f32(x->d), kh_f16_to_f32(x->dmin), x->scales);
    for (int part = 0; part < 4; part++) split_nibbles(q + 64 * part, x->qs + 32 * part, 32);
}

/* As Q4_K; bit r of qh[i] is the fifth bit of element i of run r. */
static inline void read_q5_k(int8_t *q, float *d, float *m, const kh_block_q5_k *x)
{
    read_k_scales(d, m, kh_f16_to_f32(x->d), kh_f16_to_f32(x->dmin), x->scales);
    for (int part = 0; part < 4; part++) split_nibbles(q + 64 * part, x->qs + 32 * part, 32);
    add_bit_of_runs(q, x->qh, 4);
}

/* Per half of the block: 64 bytes of nibbles as one run of 128, 32 bytes of bit pairs on top. */
static inline void read_q6_k(int8_t *q, float *d, float *m, const kh_block_q6_k *x)
{
    (void)m;
    float scale = kh_f16_to_f32(x->d);
    for (int g = 0; g < 16; g++) d[g] = scale * (float)x->scales[g];
    int8_t high[128];
    for (int half = 0; half < 2; half++) {
        int8_t *to = q + 128 * half;
        split_nibbles(to, x->ql + 64 * half, 64);
        split_pairs(high, x->qh + 32 * half);
        for (int i = 0; i < 128; i++) to[i] = (int8_t)(to[i] | high[i] << 4);
    }
}

static inline void read_iq4_nl(int8_t *q, float *d, float *m, const kh_block_iq4_nl *x)
{
    (void)m;
    same_pair(d, kh_f16_to_f32(x->d));
    split_nibbles(q, x->qs, 16);
    look_up(q, 32);
}

static inline void read_iq4_xs(int8_t *q, float *d, float *m, const kh_block_iq4_xs *x)
{
    (void)m;
    float scale = kh_f16_to_f32(x->d);
    for (int g = 0; g < 8; g++) {
        int low = x->scales_l[g / 2] >> 4 * (g % 2) & 15, high = x->scales_h >> 2 * g & 3;
        same_pair(d + 2 * g, scale * (float)((low | high << 4) - 32));
        split_nibbles(q + 32 * g, x->qs + 16 * g, 16);
    }
    look_up(q, 256);
}

#endif
