/* The attention kernels for AVX2: attn_body.h over vec_avx2.h.
 *
 * Scores: six query rows by one panel of 16 keys are twelve of the sixteen registers; two hold the
 * panel's row, one the broadcast query element. See attn_avx512.c for the shape of both products.
 *
 * Selection: there is no compress, so the eight bits of half a vector choose one of 256 permutations.
 * The table is computed from the bits with pext instead of being stored: the k-th kept lane of mask b
 * is nibble k of pext(0x76543210, b spread to nibbles). Two instructions of BMI2 and no 8 KiB of
 * table in the first-level cache; slow on processors before Zen 3, where only passing scores pay. */
#include "kern/vec_avx2.h"

enum { TILE_ROWS = 6, TILE_COLS = 1 };

static inline __m256i kept_lanes(uint32_t bits)
{
    uint64_t spread = _pdep_u64(bits, 0x0101010101010101ull) * 0xff;
    uint64_t lanes = _pext_u64(0x0706050403020100ull, spread);
    return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)lanes));
}

static inline size_t compress_half(float *values, uint32_t *indices, __m256 x, __m256i index,
                                   uint32_t bits)
{
    __m256i lanes = kept_lanes(bits);
    _mm256_storeu_ps(values, _mm256_permutevar8x32_ps(x, lanes));
    _mm256_storeu_si256((__m256i *)(void *)indices, _mm256_permutevar8x32_epi32(index, lanes));
    return (size_t)__builtin_popcount(bits);
}

static inline size_t compress(float *values, uint32_t *indices, v16 x, v16 index, uint32_t bits)
{
    size_t n = compress_half(values, indices, x.a, _mm256_castps_si256(index.a), bits & 0xff);
    return n + compress_half(values + n, indices + n, x.b, _mm256_castps_si256(index.b), bits >> 8);
}

/* The same just before two places, and nothing but the kept lanes is written. */
static inline size_t compress_half_before(float *values, uint32_t *indices, __m256 x, __m256i index,
                                          uint32_t bits)
{
    size_t n = (size_t)__builtin_popcount(bits);
    __m256i lanes = kept_lanes(bits), head = v16_head(n, 0);
    _mm256_maskstore_ps(values - n, head, _mm256_permutevar8x32_ps(x, lanes));
    _mm256_maskstore_epi32((int *)(void *)(indices - n), head,
                           _mm256_permutevar8x32_epi32(index, lanes));
    return n;
}

static inline size_t compress_before(float *values, uint32_t *indices, v16 x, v16 index,
                                     uint32_t bits)
{
    __m256i a = _mm256_castps_si256(index.a), b = _mm256_castps_si256(index.b);
    size_t n = compress_half_before(values, indices, x.b, b, bits >> 8);
    return n + compress_half_before(values - n, indices - n, x.a, a, bits & 0xff);
}

static inline size_t compact(float *values, uint32_t *indices, v16 x, const uint32_t *from,
                             size_t lanes, uint32_t bits)
{
    const int *p = (const int *)(const void *)from;
    __m256i a = _mm256_maskload_epi32(p, v16_head(lanes, 0));
    __m256i b = lanes > 8 ? _mm256_maskload_epi32(p + 8, v16_head(lanes, 8)) : a;
    size_t n = compress_half(values, indices, x.a, a, bits & 0xff);
    return n + compress_half(values + n, indices + n, x.b, b, bits >> 8);
}

#include "kern/attn_body.h"

void kv_f16_avx2(uint16_t *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(void *)(y + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; i++) y[i] = kh_f32_to_f16(x[i]);
}
