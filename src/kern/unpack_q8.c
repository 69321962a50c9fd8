/* Quantised rows as bytes with a scale and a minimum per 16 elements: one form for all types.
 *
 *     value[i] = d[i / 16] * q[i] + m[i / 16]
 *
 * The integer matrix products unpack a tile of weights into this form once and then multiply bytes,
 * so they need one inner loop and not one per type. Levels of types of up to 6 bits are >= 0, which
 * suits the processor's unsigned-by-signed products; Q8_0 and the IQ4 tables have signed levels and
 * m = 0. The minimum of a centred type is -zero * d: exact, for zero is a power of two. */
#include "kern/kern.h"
#include "kern/unpack_block.h"

#define CENTRED(type, block, zero)                                                                 \
    void unpack_q8_##type##_ref(int8_t *q, float *d, float *m, const void *x, size_t n)            \
    {                                                                                              \
        const kh_block_##type *from = x;                                                           \
        for (size_t at = 0; at < n; at += block, from++) {                                         \
            read_##type(q + at, d + at / 16, NULL, from);                                          \
            for (size_t g = at / 16; g < (at + block) / 16; g++)                                   \
                m[g] = zero ? d[g] * (float)-zero : 0.0f;                                          \
        }                                                                                          \
    }
KH_UNPACK_CENTRED(CENTRED)

#define AFFINE(type, block)                                                                        \
    void unpack_q8_##type##_ref(int8_t *q, float *d, float *m, const void *x, size_t n)            \
    {                                                                                              \
        const kh_block_##type *from = x;                                                           \
        for (size_t at = 0; at < n; at += block, from++)                                           \
            read_##type(q + at, d + at / 16, m + at / 16, from);                                   \
    }
KH_UNPACK_AFFINE(AFFINE)
