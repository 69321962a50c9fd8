/* An optimiser's step over AVX-512; contracts in step_kern.h, loops in step_body.h, words in step_avx2.c. */
#include "kern/vec_avx512.h"

typedef struct squares {
    __m512d a, b;
} squares;

static inline squares squares_zero(void)
{
    return (squares){_mm512_setzero_pd(), _mm512_setzero_pd()};
}
static inline __m512d square_add(__m512d sum, __m256 x)
{
    __m512d wide = _mm512_cvtps_pd(x);
    return _mm512_fmadd_pd(wide, wide, sum);
}
static inline squares squares_add(squares s, v16 x)
{
    return (squares){square_add(s.a, _mm512_castps512_ps256(x)),
                     square_add(s.b, _mm512_extractf32x8_ps(x, 1))};
}
static inline double squares_total(squares s)
{
    __m512d x = _mm512_add_pd(s.a, s.b);
    __m256d y = _mm256_add_pd(_mm512_castpd512_pd256(x), _mm512_extractf64x4_pd(x, 1));
    __m128d z = _mm_add_pd(_mm256_castpd256_pd128(y), _mm256_extractf128_pd(y, 1));
    return _mm_cvtsd_f64(_mm_add_sd(z, _mm_unpackhi_pd(z, z)));
}

static inline v16 v16_root(v16 x)
{
    return _mm512_sqrt_ps(x);
}

static inline void dither_16(uint16_t *y /* [16] */, v16 x, uint32_t first)
{
    __m512i h = _mm512_castps_si512(v16_index(first));
    h = _mm512_xor_si512(h, _mm512_srli_epi32(h, 16));
    h = _mm512_mullo_epi32(h, _mm512_set1_epi32(0x7feb352d));
    h = _mm512_xor_si512(h, _mm512_srli_epi32(h, 15));
    h = _mm512_mullo_epi32(h, _mm512_set1_epi32((int)0x846ca68bu));
    h = _mm512_xor_si512(h, _mm512_srli_epi32(h, 16));
    h = _mm512_add_epi32(_mm512_castps_si512(x), _mm512_srli_epi32(h, 16));
    _mm256_storeu_si256((__m256i *)(void *)y, _mm512_cvtepi32_epi16(_mm512_srli_epi32(h, 16)));
}

#include "kern/step_body.h"
