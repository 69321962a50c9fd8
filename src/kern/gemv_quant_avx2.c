/* Quantised decode products over AVX2. maddubs adds two products in 16 bits (at most 2 * 128 * 127,
 * which fits) and madd with ones widens them. */
#include <immintrin.h>

#define NAME(kernel) kernel##_avx2

static inline __m256i dot_us(__m256i u, __m256i x)
{
    return _mm256_madd_epi16(_mm256_maddubs_epi16(u, x), _mm256_set1_epi16(1));
}

#include "kern/gemv_quant_body.h"
