/* tensor/half.h: binary16 and bfloat16 to and from binary32, exact, on any processor.
 *
 * Narrowing rounds to nearest, ties to even; values beyond the largest finite one become infinite;
 * subnormals are kept. A NaN stays a NaN of the same sign; those of binary16 become quiet and keep the
 * payload that fits, which is also what the processor's own instructions (F16C) give. */
#ifndef KH_TENSOR_HALF_H
#define KH_TENSOR_HALF_H

#include <stdint.h>
#include <string.h>

/* A number that has 32 bits in files, whatever is computed in. */
typedef float kh_f32;

static inline uint32_t kh_f32_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float kh_f32_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float kh_f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, size = half & 0x7fffu;
    uint32_t bits;
    if (size < 0x0400u) /* zero and subnormals: a count of 2^-24 */
        bits = kh_f32_bits((float)(int32_t)size * 0x1p-24f);
    else if (size < 0x7c00u)
        bits = (size << 13) + ((127u - 15u) << 23);
    else
        bits = (size << 13) | 0x7f800000u | (size > 0x7c00u ? 0x00400000u : 0u);
    return kh_f32_from_bits(sign | bits);
}

static inline uint16_t kh_f32_to_f16(float value)
{
    uint32_t bits = kh_f32_bits(value), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    uint32_t half;
    if (size > 0x7f800000u)
        half = 0x7e00u | (size >> 13 & 0x03ffu);
    else if (size >= 0x477ff000u) /* 65520, half way to the first value that does not exist */
        half = 0x7c00u;
    else if (size >= 0x38800000u) /* 2^-14, the smallest normal one */
        half = (size - ((127u - 15u) << 23) + 0x0fffu + (size >> 13 & 1u)) >> 13;
    else /* next to one half, a unit in the last place of binary32 is one subnormal step */
        half = kh_f32_bits(kh_f32_from_bits(size) + 0.5f) - 0x3f000000u;
    return (uint16_t)(sign | half);
}

static inline float kh_bf16_to_f32(uint16_t half)
{
    return kh_f32_from_bits((uint32_t)half << 16);
}

static inline uint16_t kh_f32_to_bf16(float value)
{
    uint32_t bits = kh_f32_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x0040u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

#endif
