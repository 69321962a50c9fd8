/* kern/block_avx2.h: the file's blocks in 128- and 256-bit registers: levels as bytes, scales as f32.
 * Shared by the products and the unpacking of AVX2 and of everything above it. */
#ifndef KH_KERN_BLOCK_AVX2_H
#define KH_KERN_BLOCK_AVX2_H

#include "tensor/types.h"

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

INLINE float sum8(__m256 x)
{
    __m128 z = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    z = _mm_add_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_add_ss(z, _mm_movehdup_ps(z)));
}
INLINE float lane1(__m128 x)
{
    return _mm_cvtss_f32(_mm_movehdup_ps(x));
}
INLINE __m256i load32(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
/* 16 bytes of nibbles to 32 levels: low halves first. */
INLINE __m256i nibbles(const void *p)
{
    __m128i x = _mm_loadu_si128((const __m128i *)p);
    __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(x), _mm_srli_epi16(x, 4), 1);
    return _mm256_and_si256(both, _mm256_set1_epi8(15));
}
/* The same place of the rows that come next; asking for what is not there does no harm. */
INLINE void ahead(const char *p)
{
    _mm_prefetch(p, _MM_HINT_T0);
}
/* Two f16 side by side: lanes 0 and 1. */
INLINE __m128 two_halves(const void *p)
{
    int bits;
    memcpy(&bits, p, 4);
    return _mm_cvtph_ps(_mm_cvtsi32_si128(bits));
}
/* One f16 in lanes 0 and 1. */
INLINE __m128 one_half(const uint16_t *p)
{
    return _mm_cvtph_ps(_mm_set1_epi16((short)*p));
}
/* Nibbles with their fifth bits, which lie in the four bytes before them (Q5_0, Q5_1): byte i of `spread`
 * is the byte that holds bit i; bits other than i are set before comparing with all ones. */
INLINE __m256i five_bits(const uint8_t *qh /* [4 + 16] */)
{
    int bits;
    memcpy(&bits, qh, 4);
    __m256i byte = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202,
                                      0x0303030303030303);
    __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), byte);
    __m256i others = _mm256_set1_epi64x(0x7fbfdfeff7fbfdfe);
    __m256i set = _mm256_cmpeq_epi8(_mm256_or_si256(spread, others), _mm256_set1_epi8(-1));
    return _mm256_or_si256(nibbles(qh + 4), _mm256_and_si256(set, _mm256_set1_epi8(16)));
}
/* 16 bytes of nibbles to 32 levels of the IQ4 types. */
INLINE __m256i iq4_levels(const uint8_t *qs /* [16] */)
{
    __m128i table = _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69,
                                  89, 113);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), nibbles(qs));
}

/* The eight 6-bit scales and minima of a Q4_K super-block, as bytes 0..7 and 8..15:
 *
 *     a b c  ->  a & 63,  (c & 15) | (a >> 6) << 4,  b & 63,  (c >> 4) | (b >> 6) << 4      (bytes)
 *
 * Sixteen bytes are read, of which the last four are levels. */
INLINE __m128i k_scales(const uint8_t *packed /* [12] */)
{
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)packed);
    __m128i high = _mm_and_si128(_mm_srli_epi16(v, 2), _mm_set1_epi8(48));
    __m128i c = _mm_srlv_epi32(_mm_shuffle_epi32(v, 0xaa), _mm_setr_epi32(0, 4, 0, 0));
    high = _mm_or_si128(high, _mm_and_si128(c, _mm_set1_epi8(15)));
    return _mm_unpacklo_epi32(_mm_and_si128(v, _mm_set1_epi8(63)), high);
}

INLINE __m256 bytes_f32(__m128i x)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x));
}
/* Sums of the pairs of 16 floats. */
INLINE __m256 pair_sums(const float *s /* [16] */)
{
    __m256 a = _mm256_loadu_ps(s), b = _mm256_loadu_ps(s + 8);
    __m256 c = _mm256_hadd_ps(a, b); /* 01 23 89 ab | 45 67 cd ef */
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(c), 0xd8));
}

/* 32 levels of Q6_K: run `run` of half `half` of a block. */
INLINE __m256i six_bits(const kh_block_q6_k *at, int half, int run)
{
    __m256i low = load32(at->ql + 64 * half + 32 * (run % 2));
    __m256i high = load32(at->qh + 32 * half);
    if (run >= 2) low = _mm256_srli_epi16(low, 4);
    if (run == 0) high = _mm256_slli_epi16(high, 4);
    if (run == 1) high = _mm256_slli_epi16(high, 2);
    if (run == 3) high = _mm256_srli_epi16(high, 2);
    return _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi8(15)),
                           _mm256_and_si256(high, _mm256_set1_epi8(48)));
}

/* A super-block of Q5_K as bytes: bits 2 part and 2 part + 1 of qh belong to the low and the high nibbles
 * of part `part`. */
INLINE void level_q5_k(int8_t *to /* [256] */, const kh_block_q5_k *at)
{
    __m256i fifth = load32(at->qh), four = _mm256_set1_epi8(15), bit = _mm256_set1_epi8(16);
    for (int part = 0; part < 4; part++, to += 64, fifth = _mm256_srli_epi16(fifth, 2)) {
        __m256i v = load32(at->qs + 32 * part);
        __m256i low = _mm256_and_si256(_mm256_slli_epi16(fifth, 4), bit);
        __m256i high = _mm256_and_si256(_mm256_slli_epi16(fifth, 3), bit);
        low = _mm256_or_si256(low, _mm256_and_si256(v, four));
        high = _mm256_or_si256(high, _mm256_and_si256(_mm256_srli_epi16(v, 4), four));
        _mm256_storeu_si256((__m256i *)(void *)to, low);
        _mm256_storeu_si256((__m256i *)(void *)(to + 32), high);
    }
}

#endif
