/* Quantised decode products on a processor with AVX-512 but without 8-bit dot products: the 256-bit
 * body of AVX2 with the larger register file. 512-bit registers would halve the products only, not the
 * handling of scales, and lose the third vector port. */
#include <immintrin.h>

#define NAME(kernel) kernel##_avx512

static inline __m256i dot_us(__m256i u, __m256i x)
{
    return _mm256_madd_epi16(_mm256_maddubs_epi16(u, x), _mm256_set1_epi16(1));
}

#define WIDE_Q4_1
#include "kern/gemv_quant_body.h"

static inline __m512i dot_us64(__m512i u, __m512i x)
{
    return _mm512_madd_epi16(_mm512_maddubs_epi16(u, x), _mm512_set1_epi16(1));
}

#include "kern/gemv_q4_1_wide.h"
