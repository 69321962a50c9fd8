/* Activations to 8 bits, AVX2: the same bits as the twin in quantize.c. The largest |x| is an
 * unsigned maximum over bits; sums of 16 bytes are one psadbw over q + 128. */
#include "kern/vec_avx2.h"

#include <string.h>

static inline int sum_i8(const int8_t *q /* [16] */)
{
    __m128i x = _mm_xor_si128(_mm_loadu_si128((const __m128i *)q), _mm_set1_epi8(-128));
    x = _mm_sad_epu8(x, _mm_setzero_si128());
    return _mm_cvtsi128_si32(x) + _mm_extract_epi16(x, 4) - 16 * 128;
}

static inline uint32_t v16_largest_bits(v16 x, v16 y)
{
    __m256i size = _mm256_set1_epi32(INT32_MAX);
    __m256i a = _mm256_max_epi32(_mm256_and_si256(_mm256_castps_si256(x.a), size),
                                 _mm256_and_si256(_mm256_castps_si256(x.b), size));
    __m256i b = _mm256_max_epi32(_mm256_and_si256(_mm256_castps_si256(y.a), size),
                                 _mm256_and_si256(_mm256_castps_si256(y.b), size));
    a = _mm256_max_epi32(a, b);
    __m128i c = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    c = _mm_max_epi32(c, _mm_shuffle_epi32(c, 0x4e));
    c = _mm_max_epi32(c, _mm_shuffle_epi32(c, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(c);
}

#include "kern/quantize_body.h"
