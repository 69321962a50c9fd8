/* Activations to 8 bits, AVX-512: the same bits as the twin in quantize.c. The largest |x| is an
 * unsigned maximum over bits; sums of 16 bytes are one psadbw over q + 128. */
#include "kern/vec_avx512.h"

#include <string.h>

static inline int sum_i8(const int8_t *q /* [16] */)
{
    __m128i x = _mm_xor_si128(_mm_loadu_si128((const __m128i *)q), _mm_set1_epi8(-128));
    x = _mm_sad_epu8(x, _mm_setzero_si128());
    return _mm_cvtsi128_si32(x) + _mm_extract_epi16(x, 4) - 16 * 128;
}

static inline uint32_t v16_largest_bits(v16 x, v16 y)
{
    __m512i size = _mm512_set1_epi32(INT32_MAX);
    return (uint32_t)_mm512_reduce_max_epi32(
        _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(x), size),
                         _mm512_and_si512(_mm512_castps_si512(y), size)));
}

#include "kern/quantize_body.h"
