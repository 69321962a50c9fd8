/* kern/levels_avx2.h: levels of the file's blocks, less their zero, as f32 lanes. levels_avx512.h has
 * the same words; both are exact, so what is built on them gives the same bits on both. */
#ifndef KH_KERN_LEVELS_AVX2_H
#define KH_KERN_LEVELS_AVX2_H

#include "kern/block_avx2.h"
#include "kern/vec_avx2.h"

INLINE __m256 level_low4(__m256i x, int zero)
{
    __m256i level = _mm256_and_si256(x, _mm256_set1_epi32(15));
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(level, _mm256_set1_epi32(zero)));
}
/* 16 bytes: low nibbles and high ones, less `zero`. */
INLINE void level_nibbles(v16 *low, v16 *high, const void *qs /* [16] */, int zero)
{
    const uint8_t *from = qs;
    __m256i a = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)from));
    __m256i b = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(from + 8)));
    low->a = level_low4(a, zero);
    low->b = level_low4(b, zero);
    high->a = level_low4(_mm256_srli_epi32(a, 4), zero);
    high->b = level_low4(_mm256_srli_epi32(b, 4), zero);
}

INLINE void level_bytes(v16 *low, v16 *high, __m256i bytes)
{
    int8_t level[32];
    _mm256_storeu_si256((__m256i *)(void *)level, bytes);
    *low = v16_from_i8(level);
    *high = v16_from_i8(level + 16);
}
/* Four bytes of fifth bits and 16 of nibbles. */
INLINE void level_five_bits(v16 *low, v16 *high, const uint8_t *qh /* [4 + 16] */, int zero)
{
    level_bytes(low, high, _mm256_sub_epi8(five_bits(qh), _mm256_set1_epi8((char)zero)));
}
INLINE void level_iq4(v16 *low, v16 *high, const uint8_t *qs /* [16] */)
{
    level_bytes(low, high, iq4_levels(qs));
}

/* A super-block as bytes, to be widened with v16_from_i8. */
INLINE void level_q6_k(int8_t *to /* [256] */, const kh_block_q6_k *at)
{
    for (int g = 0; g < 8; g++)
        _mm256_storeu_si256((__m256i *)(void *)(to + 32 * g),
                            _mm256_sub_epi8(six_bits(at, g / 4, g % 4), _mm256_set1_epi8(32)));
}

/* d and dmin of a Q4_K or Q5_K super-block times its scales and minima, each rounded once: eight and eight. */
INLINE void k_products(float *dm /* [16] */, const void *block)
{
    const kh_block_q4_k *at = block;
    __m128 pair = two_halves(&at->d);
    __m128i sc = k_scales(at->scales);
    __m256 d = _mm256_broadcastss_ps(pair), m = _mm256_set1_ps(lane1(pair));
    _mm256_storeu_ps(dm, _mm256_mul_ps(d, bytes_f32(sc)));
    _mm256_storeu_ps(dm + 8, _mm256_mul_ps(m, bytes_f32(_mm_unpackhi_epi64(sc, sc))));
}

/* Lane i gets lane i | 1. */
INLINE v16 v16_odd(v16 x)
{
    return (v16){_mm256_movehdup_ps(x.a), _mm256_movehdup_ps(x.b)};
}

#endif
