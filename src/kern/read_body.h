/* kern/read_body.h: super-blocks of Q2_K, Q3_K and IQ4_XS as bytes and scales, over a levels header that
 * was included before. value i = d[i / 16] q[i] + m[i / 16], each product rounded as in unpack_block.h. */
#ifndef KH_KERN_READ_BODY_H
#define KH_KERN_READ_BODY_H

#include "kern/block_avx2.h"

INLINE v16 wide_half(const uint16_t *p)
{
    return v16_set1(_mm_cvtss_f32(one_half(p)));
}
INLINE void wide_scales(float *d /* [16] */, v16 scale, __m128i bytes)
{
    int8_t sc[16];
    _mm_storeu_si128((__m128i *)(void *)sc, bytes);
    v16_store(d, v16_mul(scale, v16_from_i8(sc)));
}
INLINE void store32(int8_t *to, __m256i x)
{
    _mm256_storeu_si256((__m256i *)(void *)to, x);
}

INLINE void wide_q2_k(int8_t *q /* [256] */, float *d, float *m, const kh_block_q2_k *at)
{
    __m128i sc = _mm_loadu_si128((const __m128i *)(const void *)at->scales);
    __m128i four = _mm_set1_epi8(15);
    wide_scales(d, wide_half(&at->d), _mm_and_si128(sc, four));
    v16 least = v16_sub(v16_zero(), wide_half(&at->dmin));
    wide_scales(m, least, _mm_and_si128(_mm_srli_epi16(sc, 4), four));
    __m256i two = _mm256_set1_epi8(3);
    for (int half = 0; half < 2; half++) {
        __m256i v = load32(at->qs + 32 * half);
        for (int run = 0; run < 4; run++, q += 32, v = _mm256_srli_epi16(v, 2))
            store32(q, _mm256_and_si256(v, two));
    }
}

INLINE void wide_q3_k(int8_t *q /* [256] */, float *d, float *m, const kh_block_q3_k *at)
{
    (void)m;
    int64_t low;
    int32_t high;
    memcpy(&low, at->scales, 8);
    memcpy(&high, at->scales + 8, 4);
    __m128i sc = _mm_and_si128(_mm_set_epi64x(low >> 4, low), _mm_set1_epi8(15));
    __m128i top = _mm_srlv_epi32(_mm_set1_epi32(high), _mm_setr_epi32(0, 2, 4, 6));
    top = _mm_slli_epi16(_mm_and_si128(top, _mm_set1_epi8(3)), 4);
    wide_scales(d, wide_half(&at->d), _mm_sub_epi8(_mm_or_si128(sc, top), _mm_set1_epi8(32)));
    __m256i mask = load32(at->hmask), two = _mm256_set1_epi8(3), bit = _mm256_set1_epi8(1);
    for (int half = 0; half < 2; half++) {
        __m256i v = load32(at->qs + 32 * half);
        for (int run = 0; run < 4; run++, q += 32) {
            __m256i third = _mm256_slli_epi16(_mm256_and_si256(mask, bit), 2);
            __m256i level = _mm256_or_si256(_mm256_and_si256(v, two), third);
            store32(q, _mm256_sub_epi8(level, _mm256_set1_epi8(4)));
            v = _mm256_srli_epi16(v, 2);
            mask = _mm256_srli_epi16(mask, 1);
        }
    }
}

INLINE void wide_iq4_xs(int8_t *q /* [256] */, float *d, float *m, const kh_block_iq4_xs *at)
{
    (void)m;
    int8_t sc[16];
    for (int g = 0; g < 8; g++) {
        int low = at->scales_l[g / 2] >> 4 * (g % 2) & 15, high = at->scales_h >> 2 * g & 3;
        sc[2 * g] = sc[2 * g + 1] = (int8_t)((low | high << 4) - 32);
        store32(q + 32 * g, iq4_levels(at->qs + 16 * g));
    }
    v16_store(d, v16_mul(wide_half(&at->d), v16_from_i8(sc)));
}

#endif
