/* An optimiser's step over AVX2; contracts in step_kern.h, loops in step_body.h. */
#include "kern/vec_avx2.h"

/* Sixteen doubles: lane i of the sum holds the squares of elements i, i + 16, ... */
typedef struct squares {
    __m256d a, b, c, d;
} squares;

static inline squares squares_zero(void)
{
    __m256d zero = _mm256_setzero_pd();
    return (squares){zero, zero, zero, zero};
}
/* The square of a float is exact in double, so fma rounds where product and sum would. */
static inline __m256d square_add(__m256d sum, __m128 x)
{
    __m256d wide = _mm256_cvtps_pd(x);
    return _mm256_fmadd_pd(wide, wide, sum);
}
static inline squares squares_add(squares s, v16 x)
{
    return (squares){square_add(s.a, _mm256_castps256_ps128(x.a)),
                     square_add(s.b, _mm256_extractf128_ps(x.a, 1)),
                     square_add(s.c, _mm256_castps256_ps128(x.b)),
                     square_add(s.d, _mm256_extractf128_ps(x.b, 1))};
}
static inline double squares_total(squares s)
{
    __m256d y = _mm256_add_pd(_mm256_add_pd(s.a, s.c), _mm256_add_pd(s.b, s.d));
    __m128d z = _mm_add_pd(_mm256_castpd256_pd128(y), _mm256_extractf128_pd(y, 1));
    return _mm_cvtsd_f64(_mm_add_sd(z, _mm_unpackhi_pd(z, z)));
}

static inline v16 v16_root(v16 x)
{
    return (v16){_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)};
}

/* kh_dither of first, first + 1, ...: the upper halves added to x, whose upper halves are left. */
static inline __m256i dither_8(__m256 x, uint32_t first)
{
    __m256i h = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                                 _mm256_set1_epi32((int)first));
    h = _mm256_xor_si256(h, _mm256_srli_epi32(h, 16));
    h = _mm256_mullo_epi32(h, _mm256_set1_epi32(0x7feb352d));
    h = _mm256_xor_si256(h, _mm256_srli_epi32(h, 15));
    h = _mm256_mullo_epi32(h, _mm256_set1_epi32((int)0x846ca68bu));
    h = _mm256_xor_si256(h, _mm256_srli_epi32(h, 16));
    return _mm256_srli_epi32(_mm256_add_epi32(_mm256_castps_si256(x), _mm256_srli_epi32(h, 16)),
                             16);
}
static inline void dither_16(uint16_t *y /* [16] */, v16 x, uint32_t first)
{
    __m256i both = _mm256_packus_epi32(dither_8(x.a, first), dither_8(x.b, first + 8));
    _mm256_storeu_si256((__m256i *)(void *)y, _mm256_permute4x64_epi64(both, 0xd8));
}

#include "kern/step_body.h"
