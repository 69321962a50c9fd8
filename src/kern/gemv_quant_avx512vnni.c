/* Quantised decode products with 8-bit dot products (AVX-512 VNNI on 256-bit registers): one
 * instruction for maddubs and madd. Q6_K keeps the 16-bit step, where its scales enter. */
#include <immintrin.h>

#define NAME(kernel) kernel##_avx512vnni

static inline __m256i dot_us(__m256i u, __m256i x)
{
    return _mm256_dpbusd_epi32(_mm256_setzero_si256(), u, x);
}

#define WIDE_Q4_1
#include "kern/gemv_quant_body.h"

static inline __m512i dot_us64(__m512i u, __m512i x)
{
    return _mm512_dpbusd_epi32(_mm512_setzero_si512(), u, x);
}

#include "kern/gemv_q4_1_wide.h"
