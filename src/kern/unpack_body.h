/* kern/unpack_body.h: rows to f32 over a levels header that was included before. Bit for bit what the
 * twins of unpack_f32.c give: each product and each sum is rounded by itself. */
#include "kern/kern.h"
#include "kern/read_body.h"
#include "tensor/half.h"

INLINE v16 half_of(const uint16_t *p)
{
    return v16_set1(_mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(*p))));
}

#define UNPACK(type, block, ...)                                                                   \
    void KH_NAME(unpack_f32_##type)(float *y, const void *x, size_t n)                             \
    {                                                                                              \
        const kh_block_##type *from = x;                                                           \
        for (size_t at = 0; at < n; at += block, from++, y += block) {                             \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }

#define UNPACK_CENTRED(type, LEVELS)                                                               \
    UNPACK(type, 32, v16 d = half_of(&from->d), low, high; LEVELS; v16_store(y, v16_mul(d, low));  \
           v16_store(y + 16, v16_mul(d, high));)

UNPACK_CENTRED(q4_0, level_nibbles(&low, &high, from->qs, 8))
UNPACK_CENTRED(q5_0, level_five_bits(&low, &high, from->qh, 16))
UNPACK_CENTRED(iq4_nl, level_iq4(&low, &high, from->qs))
UNPACK_CENTRED(q8_0, low = v16_from_i8(from->qs); high = v16_from_i8(from->qs + 16))

#define UNPACK_AFFINE(type, LEVELS)                                                                \
    UNPACK(type, 32, v16 d = half_of(&from->d), m = half_of(&from->m), low, high; LEVELS;          \
           v16_store(y, v16_add(v16_mul(d, low), m));                                              \
           v16_store(y + 16, v16_add(v16_mul(d, high), m));)

UNPACK_AFFINE(q4_1, level_nibbles(&low, &high, from->qs, 0))
UNPACK_AFFINE(q5_1, level_five_bits(&low, &high, from->qh, 0))

/* Two groups of 32: the low nibbles of 32 bytes, then the high ones. */
INLINE void unpack_two_groups(float *y /* [64] */, const uint8_t *qs /* [32] */,
                              const float *d /* [2] */, const float *m /* [2] */)
{
    for (int i = 0; i < 2; i++) {
        v16 low, high;
        level_nibbles(&low, &high, qs + 16 * i, 0);
        low = v16_sub(v16_mul(v16_set1(d[0]), low), v16_set1(m[0]));
        high = v16_sub(v16_mul(v16_set1(d[1]), high), v16_set1(m[1]));
        v16_store(y + 16 * i, low);
        v16_store(y + 32 + 16 * i, high);
    }
}

UNPACK(q4_k, 256, float d[16]; k_products(d, from); for (int part = 0; part < 4; part++)
           unpack_two_groups(y + 64 * part, from->qs + 32 * part, d + 2 * part, d + 8 + 2 * part);)

UNPACK(q6_k, 256, int8_t level[256]; float d[16]; level_q6_k(level, from);
       v16_store(d, v16_mul(half_of(&from->d), v16_from_i8(from->scales)));
       for (int g = 0; g < 16; g++)
           v16_store(y + 16 * g, v16_mul(v16_set1(d[g]), v16_from_i8(level + 16 * g)));)

UNPACK(q5_k, 256, int8_t level[256]; float d[16]; k_products(d, from); level_q5_k(level, from);
       for (int g = 0; g < 16; g++)
           v16_store(y + 16 * g, v16_sub(v16_mul(v16_set1(d[g / 2]), v16_from_i8(level + 16 * g)),
                                         v16_set1(d[8 + g / 2])));)

/* `minimum`: 1 where values have one. */
#define UNPACK_READ(type, minimum)                                                                 \
    UNPACK(                                                                                        \
        type, 256, int8_t q[256]; float d[16]; float m[16]; wide_##type(q, d, m, from);            \
        for (int g = 0; g < 16; g++) {                                                             \
            v16 value = v16_mul(v16_set1(d[g]), v16_from_i8(q + 16 * g));                          \
            if (minimum) value = v16_add(value, v16_set1(m[g]));                                   \
            v16_store(y + 16 * g, value);                                                          \
        })
UNPACK_READ(q2_k, 1)
UNPACK_READ(q3_k, 0)
UNPACK_READ(iq4_xs, 0)

#define UNPACK_DENSE(type, wide, one)                                                              \
    void KH_NAME(unpack_f32_##type)(float *y, const void *x, size_t n)                             \
    {                                                                                              \
        const uint16_t *from = x;                                                                  \
        size_t i = 0;                                                                              \
        for (; i + 16 <= n; i += 16) v16_store(y + i, wide(from + i));                             \
        for (; i < n; i++) y[i] = one(from[i]);                                                    \
    }
UNPACK_DENSE(f16, v16_from_f16, kh_f16_to_f32)
UNPACK_DENSE(bf16, v16_from_bf16, kh_bf16_to_f32)
