/* Quantised rows as f32: the kernels that define what each block type means.
 *
 * The values equal those of the `gguf` Python package to the bit (tests/golden/blocks), so the order
 * of rounding is part of the contract: scale times sub-scale is rounded, then times the level is
 * rounded, then the minimum is added; nothing is contracted into a fused product. Subtracting a
 * product is adding its negative, to the bit, which lets one form serve every type with a minimum.
 *
 * A prompt's product unpacks every weight once a batch, embedding rows come from here as well. The
 * common types have vector bodies with the same bits (unpack_body.h): 0.11 to 0.18 ns an element on a
 * Skylake server core, where the twins take 0.6 to 1.7. */
#include "kern/kern.h"
#include "kern/unpack_block.h"

#define CENTRED(type, block, zero)                                                                 \
    void unpack_f32_##type##_ref(float *y, const void *x, size_t n)                                \
    {                                                                                              \
        const kh_block_##type *from = x;                                                           \
        int8_t q[block];                                                                           \
        float d[block / 16];                                                                       \
        for (size_t at = 0; at < n; at += block, from++) {                                         \
            read_##type(q, d, NULL, from);                                                         \
            for (int i = 0; i < block; i++) y[at + i] = d[i / 16] * (float)(q[i] - zero);          \
        }                                                                                          \
    }
KH_UNPACK_CENTRED(CENTRED)

#define AFFINE(type, block)                                                                        \
    void unpack_f32_##type##_ref(float *y, const void *x, size_t n)                                \
    {                                                                                              \
        const kh_block_##type *from = x;                                                           \
        int8_t q[block];                                                                           \
        float d[block / 16], m[block / 16];                                                        \
        for (size_t at = 0; at < n; at += block, from++) {                                         \
            read_##type(q, d, m, from);                                                            \
            for (int i = 0; i < block; i++) y[at + i] = d[i / 16] * (float)q[i] + m[i / 16];       \
        }                                                                                          \
    }
KH_UNPACK_AFFINE(AFFINE)

void unpack_f32_f16_ref(float *y, const void *x, size_t n)
{
    const uint16_t *from = x;
    for (size_t i = 0; i < n; i++) y[i] = kh_f16_to_f32(from[i]);
}

void unpack_f32_bf16_ref(float *y, const void *x, size_t n)
{
    const uint16_t *from = x;
    for (size_t i = 0; i < n; i++) y[i] = kh_bf16_to_f32(from[i]);
}
