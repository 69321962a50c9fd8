/* kern/levels_avx512.h: levels of the file's blocks as f32 lanes, over AVX-512. The same words as
 * levels_avx2.h; included after vec_avx512.h.
 *
 * Nibbles need no conversion: a permutation of a register that holds the 16 levels as f32 looks at the
 * low four bits of its index and at nothing else, so widening 16 bytes and one shift by four are all
 * that comes before it. */
#ifndef KH_KERN_LEVELS_AVX512_H
#define KH_KERN_LEVELS_AVX512_H

#include "kern/block_avx2.h"
#include "kern/vec_avx512.h"

INLINE __m512 count_from(int first)
{
    return _mm512_add_ps(_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                         _mm512_set1_ps((float)first));
}
INLINE void level_table(v16 *low, v16 *high, const void *qs /* [16] */, __m512 table)
{
    __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)qs));
    *low = _mm512_permutexvar_ps(bytes, table);
    *high = _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), table);
}
INLINE void level_nibbles(v16 *low, v16 *high, const void *qs /* [16] */, int zero)
{
    level_table(low, high, qs, count_from(-zero));
}
INLINE void level_iq4(v16 *low, v16 *high, const uint8_t *qs /* [16] */)
{
    level_table(
        low, high, qs,
        _mm512_setr_ps(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
}

/* Bit i of qh, turned to the place of the fifth bit, chooses between two registers of levels. */
INLINE void level_five_bits(v16 *low, v16 *high, const uint8_t *qh /* [4 + 16] */, int zero)
{
    int bits;
    memcpy(&bits, qh, 4);
    __m512 without = count_from(-zero), with = count_from(16 - zero);
    __m512i turn =
        _mm512_sub_epi32(_mm512_set1_epi32(36),
                         _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    __m512i all = _mm512_set1_epi32(bits), fifth = _mm512_set1_epi32(16);
    __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(qh + 4)));
    __m512i a = _mm512_ternarylogic_epi32(fifth, _mm512_rolv_epi32(all, turn), bytes, 0xca);
    __m512i b = _mm512_ternarylogic_epi32(fifth,
                                          _mm512_rolv_epi32(all, _mm512_sub_epi32(turn, fifth)),
                                          _mm512_srli_epi32(bytes, 4), 0xca);
    *low = _mm512_permutex2var_ps(without, a, with);
    *high = _mm512_permutex2var_ps(without, b, with);
}

INLINE void level_q6_k(int8_t *to /* [256] */, const kh_block_q6_k *at)
{
    for (int half = 0; half < 2; half++) {
        __m512i low = _mm512_loadu_si512(at->ql + 64 * half);
        __m512i high = _mm512_broadcast_i64x4(load32(at->qh + 32 * half));
        __m512i four = _mm512_set1_epi8(15), two = _mm512_set1_epi8(48);
        __m512i left = _mm512_inserti64x4(_mm512_set1_epi16(4), _mm256_set1_epi16(2), 1);
        __m512i right = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(2), 1);
        __m512i a = _mm512_or_si512(_mm512_and_si512(low, four),
                                    _mm512_and_si512(_mm512_sllv_epi16(high, left), two));
        __m512i b = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(low, 4), four),
                                    _mm512_and_si512(_mm512_srlv_epi16(high, right), two));
        __m512i zero = _mm512_set1_epi8(32);
        _mm512_storeu_si512(to + 128 * half, _mm512_sub_epi8(a, zero));
        _mm512_storeu_si512(to + 128 * half + 64, _mm512_sub_epi8(b, zero));
    }
}

/* d and dmin of a Q4_K or Q5_K super-block times its scales and minima, each rounded once. */
INLINE void k_products(float *dm /* [16] */, const void *block)
{
    const kh_block_q4_k *at = block;
    __m512i where = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    __m512 pair = _mm512_permutexvar_ps(where, _mm512_castps128_ps512(two_halves(&at->d)));
    __m512 sc = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(k_scales(at->scales)));
    _mm512_storeu_ps(dm, _mm512_mul_ps(pair, sc));
}

INLINE v16 v16_odd(v16 x)
{
    return _mm512_movehdup_ps(x);
}

#endif
