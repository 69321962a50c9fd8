/* The attention kernels for AVX-512: attn_body.h over vec_avx512.h.
 *
 * Scores: six query rows by one page of 64 keys are 24 accumulators; four registers hold the panels'
 * row of the moment, and the query element is broadcast by the load port inside the fma. Each
 * accumulator lane is one score and sees e ascending, so no sum is ever taken across lanes and every
 * instruction set gives the same bits. The product with the values is the same tile with keys and
 * elements exchanged.
 *
 * Selection: the comparison mask of sixteen scores drives a compress; order is kept, so indices come
 * out ascending. The compressed lanes are stored by one full store over room that the contract grants:
 * a masked compress to memory is microcoded on some processors. */
#include "kern/vec_avx512.h"

enum { TILE_ROWS = 6, TILE_COLS = 4 };

static inline size_t compress(float *values, uint32_t *indices, v16 x, v16 index, uint32_t bits)
{
    __m512i i = _mm512_castps_si512(index);
    _mm512_storeu_ps(values, _mm512_maskz_compress_ps((__mmask16)bits, x));
    _mm512_storeu_si512(indices, _mm512_maskz_compress_epi32((__mmask16)bits, i));
    return (size_t)__builtin_popcount(bits);
}

/* The same just before two places, and nothing but the kept lanes is written. */
static inline size_t compress_before(float *values, uint32_t *indices, v16 x, v16 index,
                                     uint32_t bits)
{
    __m512i i = _mm512_castps_si512(index);
    size_t n = (size_t)__builtin_popcount(bits);
    __mmask16 head = v16_head(n);
    _mm512_mask_storeu_ps(values - n, head, _mm512_maskz_compress_ps((__mmask16)bits, x));
    _mm512_mask_storeu_epi32(indices - n, head, _mm512_maskz_compress_epi32((__mmask16)bits, i));
    return n;
}

static inline size_t compact(float *values, uint32_t *indices, v16 x, const uint32_t *from,
                             size_t lanes, uint32_t bits)
{
    __m512i index = _mm512_maskz_loadu_epi32(v16_head(lanes), from);
    _mm512_storeu_ps(values, _mm512_maskz_compress_ps((__mmask16)bits, x));
    _mm512_storeu_si512(indices, _mm512_maskz_compress_epi32((__mmask16)bits, index));
    return (size_t)__builtin_popcount(bits);
}

#include "kern/attn_body.h"

void kv_f16_avx512(uint16_t *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        size_t lanes = n - i < 16 ? n - i : 16;
        __m256i half = _mm512_cvtps_ph(v16_load_n(x + i, lanes), _MM_FROUND_TO_NEAREST_INT);
        _mm256_mask_storeu_epi16(y + i, v16_head(lanes), half);
    }
}
