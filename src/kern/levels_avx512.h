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

INLINE void level_nibbles(v16 *low, v16 *high, const void *qs /* [16] */, int zero)
{
    __m512 table =
        _mm512_add_ps(_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                      _mm512_set1_ps((float)-zero));
    __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)qs));
    *low = _mm512_permutexvar_ps(bytes, table);
    *high = _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), table);
}

INLINE void level_q5_0(v16 *low, v16 *high, const kh_block_q5_0 *at)
{
    uint32_t bits;
    memcpy(&bits, at->qh, 4);
    __m512 sixteen = _mm512_set1_ps(16.0f);
    level_nibbles(low, high, at->qs, 16);
    *low = _mm512_mask_add_ps(*low, (__mmask16)bits, *low, sixteen);
    *high = _mm512_mask_add_ps(*high, (__mmask16)(bits >> 16), *high, sixteen);
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

INLINE v16 v16_odd(v16 x)
{
    return _mm512_movehdup_ps(x);
}

#endif
