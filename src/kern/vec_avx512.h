/* kern/vec_avx512.h: sixteen f32 lanes in one AVX-512 register. The words are those of vec_avx2.h,
 * where their meaning is written; only kern/ files named *_avx512*.c include this. */
#ifndef KH_KERN_VEC_AVX512_H
#define KH_KERN_VEC_AVX512_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define KH_NAME(name) name##_avx512

typedef __m512 v16;

static inline v16 v16_zero(void)
{
    return _mm512_setzero_ps();
}
static inline v16 v16_set1(float x)
{
    return _mm512_set1_ps(x);
}
static inline v16 v16_load(const float *p /* [16] */)
{
    return _mm512_loadu_ps(p);
}
static inline void v16_store(float *p /* [16] */, v16 x)
{
    _mm512_storeu_ps(p, x);
}
static inline __mmask16 v16_head(size_t n)
{
    return (__mmask16)((1u << n) - 1);
}
static inline v16 v16_load_n(const float *p /* [n] */, size_t n)
{
    return _mm512_maskz_loadu_ps(v16_head(n), p);
}
static inline void v16_store_n(float *p /* [n] */, v16 x, size_t n)
{
    _mm512_mask_storeu_ps(p, v16_head(n), x);
}
static inline v16 v16_from_f16(const uint16_t *p /* [16] */)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline v16 v16_from_bf16(const uint16_t *p /* [16] */)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
static inline v16 v16_from_i8(const int8_t *p /* [16] */)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
static inline void v16_to_i8(int8_t *p /* [16] */, v16 x)
{
    _mm_storeu_si128((__m128i *)p, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x)));
}
static inline v16 v16_add(v16 x, v16 y)
{
    return _mm512_add_ps(x, y);
}
static inline v16 v16_sub(v16 x, v16 y)
{
    return _mm512_sub_ps(x, y);
}
static inline v16 v16_mul(v16 x, v16 y)
{
    return _mm512_mul_ps(x, y);
}
static inline v16 v16_div(v16 x, v16 y)
{
    return _mm512_div_ps(x, y);
}
static inline v16 v16_max(v16 x, v16 y)
{
    return _mm512_max_ps(x, y);
}
static inline v16 v16_min(v16 x, v16 y)
{
    return _mm512_min_ps(x, y);
}
static inline v16 v16_abs(v16 x)
{
    return _mm512_abs_ps(x);
}
static inline v16 v16_neg(v16 x)
{
    return _mm512_xor_ps(x, _mm512_set1_ps(-0.0f));
}
static inline v16 v16_round(v16 x)
{
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline v16 v16_fma(v16 x, v16 y, v16 z)
{
    return _mm512_fmadd_ps(x, y, z);
}
static inline v16 v16_fnma(v16 x, v16 y, v16 z)
{
    return _mm512_fnmadd_ps(x, y, z);
}
static inline v16 v16_copysign(v16 x, v16 s)
{
    __m512i bit = _mm512_set1_epi32(INT32_MIN);
    return _mm512_castsi512_ps(
        _mm512_ternarylogic_epi32(bit, _mm512_castps_si512(s), _mm512_castps_si512(x), 0xca));
}
static inline v16 v16_where_less(v16 x, v16 limit, v16 y, v16 z)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, limit, _CMP_LT_OQ), z, y);
}
static inline v16 v16_where_equal(v16 x, v16 to, v16 y, v16 z)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, to, _CMP_EQ_OQ), z, y);
}
static inline uint32_t v16_bits_gt(v16 x, v16 y)
{
    return _mm512_cmp_ps_mask(x, y, _CMP_GT_OQ);
}
static inline uint32_t v16_bits_ge(v16 x, v16 y)
{
    return _mm512_cmp_ps_mask(x, y, _CMP_GE_OQ);
}
static inline v16 v16_index(uint32_t first)
{
    __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_castsi512_ps(_mm512_add_epi32(lane, _mm512_set1_epi32((int)first)));
}
static inline v16 v16_index_add(v16 index, int n)
{
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(index), _mm512_set1_epi32(n)));
}
static inline v16 v16_tally_ge(v16 tally, v16 x, v16 y)
{
    __m512i n = _mm512_castps_si512(tally);
    __mmask16 bits = _mm512_cmp_ps_mask(x, y, _CMP_GE_OQ);
    return _mm512_castsi512_ps(_mm512_mask_add_epi32(n, bits, n, _mm512_set1_epi32(1)));
}
static inline v16 v16_tally_add(v16 x, v16 y)
{
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), _mm512_castps_si512(y)));
}
static inline size_t v16_tally_sum(v16 x)
{
    return (size_t)_mm512_reduce_add_epi32(_mm512_castps_si512(x));
}
static inline v16 v16_scale2(v16 x, v16 n)
{
    return _mm512_scalef_ps(x, n);
}
static inline v16 v16_power2(v16 n)
{
    __m512i bits = _mm512_slli_epi32(_mm512_castps_si512(n), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(bits, _mm512_set1_epi32(0x3f800000)));
}
static inline v16 v16_of_bits(v16 x)
{
    __m512i bits = _mm512_cvtps_epi32(x);
    return _mm512_castsi512_ps(_mm512_max_epi32(bits, _mm512_setzero_si512()));
}
static inline v16 v16_mantissa(v16 x)
{
    __m512i fraction = _mm512_set1_epi32(0x007fffff), one = _mm512_set1_epi32(0x3f800000);
    return _mm512_castsi512_ps(
        _mm512_ternarylogic_epi32(fraction, _mm512_castps_si512(x), one, 0xea));
}
static inline float v16_sum(v16 x)
{
    __m256 y = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    z = _mm_add_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_add_ss(z, _mm_movehdup_ps(z)));
}
static inline float v16_largest(v16 x)
{
    __m256 y = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 z = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    z = _mm_max_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_max_ss(z, _mm_movehdup_ps(z)));
}

/* Sixteen reductions at once: each level pairs what the levels of v16_sum pair. */
#define V16_FOLD(a, b, op, shuffle, low, high) op(shuffle(a, b, low), shuffle(a, b, high))
#define V16_ACROSS(name, op)                                                                       \
    static inline v16 name(const v16 *x /* [16] */)                                                \
    {                                                                                              \
        v16 y[8], z[4], w[2];                                                                      \
        for (size_t i = 0; i < 8; i++)                                                             \
            y[i] = V16_FOLD(x[i], x[i + 8], op, _mm512_shuffle_f32x4, 0x44, 0xee);                 \
        for (size_t i = 0; i < 4; i++)                                                             \
            z[i] = V16_FOLD(y[i], y[i + 4], op, _mm512_shuffle_f32x4, 0x88, 0xdd);                 \
        for (size_t i = 0; i < 2; i++)                                                             \
            w[i] = V16_FOLD(z[i], z[i + 2], op, _mm512_shuffle_ps, 0x44, 0xee);                    \
        v16 v = V16_FOLD(w[0], w[1], op, _mm512_shuffle_ps, 0x88, 0xdd);                           \
        return _mm512_permutexvar_ps(                                                              \
            _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15), v);           \
    }
V16_ACROSS(v16_sums, _mm512_add_ps)
V16_ACROSS(v16_largests, _mm512_max_ps)
#undef V16_ACROSS
#undef V16_FOLD

#include "kern/vec_math.h"

#endif
