/* kern/vec_avx2.h: sixteen f32 lanes over AVX2. The same words as vec_avx512.h, so that a kernel's
 * body is written once (<topic>_body.h) and compiled by <topic>_avx2.c and <topic>_avx512.c.
 *
 * Lane i means the same on both, fma rounds once, reductions add in one fixed order: a body gives the
 * same bits on both. vec_math.h adds exp and tanh. Only kern/ files named *_avx2.c include this. */
#ifndef KH_KERN_VEC_AVX2_H
#define KH_KERN_VEC_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define KH_NAME(name) name##_avx2

typedef struct v16 {
    __m256 a, b; /* lanes 0..7, 8..15 */
} v16;

#define V16_UNARY(name, expr)                                                                      \
    static inline v16 name(v16 x)                                                                  \
    {                                                                                              \
        v16 y;                                                                                     \
        __m256 t = x.a;                                                                            \
        y.a = expr;                                                                                \
        t = x.b;                                                                                   \
        y.b = expr;                                                                                \
        return y;                                                                                  \
    }
#define V16_BINARY(name, op)                                                                       \
    static inline v16 name(v16 x, v16 y)                                                           \
    {                                                                                              \
        return (v16){op(x.a, y.a), op(x.b, y.b)};                                                  \
    }

static inline v16 v16_zero(void)
{
    return (v16){_mm256_setzero_ps(), _mm256_setzero_ps()};
}
static inline v16 v16_set1(float x)
{
    return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
static inline v16 v16_load(const float *p /* [16] */)
{
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
static inline void v16_store(float *p /* [16] */, v16 x)
{
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}

/* Masks of the first n <= 16 lanes. */
static inline __m256i v16_head(size_t n, int first)
{
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n - first), lane);
}
/* The first n <= 16 lanes; zeros beyond; touches nothing beyond. */
static inline v16 v16_load_n(const float *p /* [n] */, size_t n)
{
    return (v16){_mm256_maskload_ps(p, v16_head(n, 0)),
                 n > 8 ? _mm256_maskload_ps(p + 8, v16_head(n, 8)) : _mm256_setzero_ps()};
}
static inline void v16_store_n(float *p /* [n] */, v16 x, size_t n)
{
    _mm256_maskstore_ps(p, v16_head(n, 0), x.a);
    if (n > 8) _mm256_maskstore_ps(p + 8, v16_head(n, 8), x.b);
}

static inline v16 v16_from_f16(const uint16_t *p /* [16] */)
{
    return (v16){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
                 _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8)))};
}
static inline v16 v16_from_bf16(const uint16_t *p /* [16] */)
{
    __m256i a = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    __m256i b = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p + 8)));
    return (v16){_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
                 _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
}
static inline v16 v16_from_i8(const int8_t *p /* [16] */)
{
    return (v16){
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p))),
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8))))};
}
/* Rounds to nearest even into 16 bytes, saturated to -128 .. 127. */
static inline void v16_to_i8(int8_t *p /* [16] */, v16 x)
{
    __m256i w = _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));
    w = _mm256_permute4x64_epi64(w, 0xd8);
    _mm_storeu_si128((__m128i *)p,
                     _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1)));
}

V16_BINARY(v16_add, _mm256_add_ps)
V16_BINARY(v16_sub, _mm256_sub_ps)
V16_BINARY(v16_mul, _mm256_mul_ps)
V16_BINARY(v16_div, _mm256_div_ps)
/* The second operand where either is NaN, as the instruction does. */
V16_BINARY(v16_max, _mm256_max_ps)
V16_BINARY(v16_min, _mm256_min_ps)
V16_UNARY(v16_abs, _mm256_andnot_ps(_mm256_set1_ps(-0.0f), t))
V16_UNARY(v16_neg, _mm256_xor_ps(_mm256_set1_ps(-0.0f), t))
V16_UNARY(v16_round, _mm256_round_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))

/* x * y + z, rounded once; z - x * y. */
static inline v16 v16_fma(v16 x, v16 y, v16 z)
{
    return (v16){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
static inline v16 v16_fnma(v16 x, v16 y, v16 z)
{
    return (v16){_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)};
}
/* The size of x with the sign of s. */
static inline v16 v16_copysign(v16 x, v16 s)
{
    __m256 bit = _mm256_set1_ps(-0.0f);
    return (v16){_mm256_or_ps(_mm256_andnot_ps(bit, x.a), _mm256_and_ps(bit, s.a)),
                 _mm256_or_ps(_mm256_andnot_ps(bit, x.b), _mm256_and_ps(bit, s.b))};
}
/* Lanes of y where x < limit, else of z (NaN: z). */
static inline v16 v16_where_less(v16 x, v16 limit, v16 y, v16 z)
{
    return (v16){_mm256_blendv_ps(z.a, y.a, _mm256_cmp_ps(x.a, limit.a, _CMP_LT_OQ)),
                 _mm256_blendv_ps(z.b, y.b, _mm256_cmp_ps(x.b, limit.b, _CMP_LT_OQ))};
}
/* Lanes of y where x equals `to`, else of z (NaN: z). */
static inline v16 v16_where_equal(v16 x, v16 to, v16 y, v16 z)
{
    return (v16){_mm256_blendv_ps(z.a, y.a, _mm256_cmp_ps(x.a, to.a, _CMP_EQ_OQ)),
                 _mm256_blendv_ps(z.b, y.b, _mm256_cmp_ps(x.b, to.b, _CMP_EQ_OQ))};
}
/* Bit i: lane i of x is above (at least) that of y; NaN never. */
static inline uint32_t v16_bits_gt(v16 x, v16 y)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(x.a, y.a, _CMP_GT_OQ)) |
           (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(x.b, y.b, _CMP_GT_OQ)) << 8;
}
static inline uint32_t v16_bits_ge(v16 x, v16 y)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(x.a, y.a, _CMP_GE_OQ)) |
           (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(x.b, y.b, _CMP_GE_OQ)) << 8;
}

/* Sixteen integers in the bits of a register: first, first + 1, ...; all of them more by n. */
static inline v16 v16_index(uint32_t first)
{
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i a = _mm256_add_epi32(lane, _mm256_set1_epi32((int)first));
    __m256i b = _mm256_add_epi32(a, _mm256_set1_epi32(8));
    return (v16){_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)};
}
static inline v16 v16_index_add(v16 index, int n)
{
    __m256i more = _mm256_set1_epi32(n);
    __m256i a = _mm256_add_epi32(_mm256_castps_si256(index.a), more);
    __m256i b = _mm256_add_epi32(_mm256_castps_si256(index.b), more);
    return (v16){_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)};
}

/* Sixteen counters in the bits of a register that starts as v16_zero: one more where x >= y, the sum of
 * two, and of all lanes. */
static inline __m256 v16_tally_half(__m256 tally, __m256 x, __m256 y)
{
    __m256i passed = _mm256_castps_si256(_mm256_cmp_ps(x, y, _CMP_GE_OQ)); /* -1 where so */
    return _mm256_castsi256_ps(_mm256_sub_epi32(_mm256_castps_si256(tally), passed));
}
static inline v16 v16_tally_ge(v16 tally, v16 x, v16 y)
{
    return (v16){v16_tally_half(tally.a, x.a, y.a), v16_tally_half(tally.b, x.b, y.b)};
}
static inline v16 v16_tally_add(v16 x, v16 y)
{
    __m256i a = _mm256_add_epi32(_mm256_castps_si256(x.a), _mm256_castps_si256(y.a));
    __m256i b = _mm256_add_epi32(_mm256_castps_si256(x.b), _mm256_castps_si256(y.b));
    return (v16){_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)};
}
static inline size_t v16_tally_sum(v16 x)
{
    __m256i n = _mm256_add_epi32(_mm256_castps_si256(x.a), _mm256_castps_si256(x.b));
    __m128i m = _mm_add_epi32(_mm256_castsi256_si128(n), _mm256_extracti128_si256(n, 1));
    m = _mm_add_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    return (size_t)(uint32_t)_mm_cvtsi128_si32(_mm_add_epi32(m, _mm_shuffle_epi32(m, 0xb1)));
}

/* x * 2^n for a whole number n in -252 .. 254 (rounded once, subnormal results included). */
static inline __m256 v16_scale_half(__m256 x, __m256 n)
{
    __m256i i = _mm256_cvtps_epi32(n), h = _mm256_srai_epi32(i, 1), bias = _mm256_set1_epi32(127);
    __m256i p = _mm256_slli_epi32(_mm256_add_epi32(h, bias), 23);
    __m256i q = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(i, h), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(x, _mm256_castsi256_ps(p)), _mm256_castsi256_ps(q));
}
static inline v16 v16_scale2(v16 x, v16 n)
{
    return (v16){v16_scale_half(x.a, n.a), v16_scale_half(x.b, n.b)};
}

/* 2^n of n + V16_WHOLE for whole n in -127 .. 127, the first of which gives 0: adding V16_WHOLE rounds to
 * a whole number and leaves it in the low bits. */
static inline __m256 v16_half_power2(__m256 n)
{
    __m256i bits = _mm256_slli_epi32(_mm256_castps_si256(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(bits, _mm256_set1_epi32(0x3f800000)));
}
V16_UNARY(v16_power2, v16_half_power2(t))
/* The float whose bits are x rounded to a whole number; 0 where x is negative, NaN or 2^31 and more. */
static inline __m256 v16_half_of_bits(__m256 x)
{
    return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_cvtps_epi32(x), _mm256_setzero_si256()));
}
V16_UNARY(v16_of_bits, v16_half_of_bits(t))
/* The fraction of a positive x, in [1, 2). */
V16_UNARY(v16_mantissa,
          _mm256_or_ps(_mm256_and_ps(t, _mm256_castsi256_ps(_mm256_set1_epi32(0x007fffff))),
                       _mm256_set1_ps(1.0f)))

/* Lanes added i with i + 8, then + 4, + 2, + 1. */
static inline float v16_sum(v16 x)
{
    __m256 y = _mm256_add_ps(x.a, x.b);
    __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    z = _mm_add_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_add_ss(z, _mm_movehdup_ps(z)));
}
static inline float v16_largest(v16 x)
{
    __m256 y = _mm256_max_ps(x.a, x.b);
    __m128 z = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    z = _mm_max_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_max_ss(z, _mm_movehdup_ps(z)));
}

/* Lane i: the sum, the largest, of x[i]. */
#define V16_ACROSS(name, reduce)                                                                   \
    static inline v16 name(const v16 *x /* [16] */)                                                \
    {                                                                                              \
        float y[16];                                                                               \
        for (size_t i = 0; i < 16; i++) y[i] = reduce(x[i]);                                       \
        return v16_load(y);                                                                        \
    }
V16_ACROSS(v16_sums, v16_sum)
V16_ACROSS(v16_largests, v16_largest)

#undef V16_ACROSS
#undef V16_UNARY
#undef V16_BINARY
#include "kern/vec_math.h"

#endif
