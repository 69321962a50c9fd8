/* The sparse products for AVX2: ff_body.h over vec_avx2.h. Four dot products are added across their
 * lanes together, with the tree of ff_avx512.c. */
#include "kern/vec_avx2.h"

enum { GROUP = 4, FEW = 4 };

static inline __m256 half(v16 x)
{
    return _mm256_add_ps(x.a, x.b);
}

/* Lanes 4 apart of x, then of y. */
static inline __m256 fold_4(__m256 x, __m256 y)
{
    return _mm256_add_ps(_mm256_permute2f128_ps(x, y, 0x20), _mm256_permute2f128_ps(x, y, 0x31));
}

static inline __attribute__((always_inline)) void add_lanes(float *to, const v16 *sums, size_t n)
{
    __m256 x = fold_4(half(sums[0]), half(sums[1])), y = fold_4(half(sums[2]), half(sums[3]));
    __m256 z = _mm256_add_ps(_mm256_shuffle_ps(x, y, 0x44), _mm256_shuffle_ps(x, y, 0xee));
    z = _mm256_add_ps(z, _mm256_movehdup_ps(z)); /* sums 0, 2 | 1, 3 in lanes 0, 2 of each half */
    __m128 low = _mm256_castps256_ps128(z), high = _mm256_extractf128_ps(z, 1);
    __m128 all = _mm_unpacklo_ps(_mm_shuffle_ps(low, low, 0x88), _mm_shuffle_ps(high, high, 0x88));
    __m128i inside = _mm_cmpgt_epi32(_mm_set1_epi32((int)n), _mm_setr_epi32(0, 1, 2, 3));
    _mm_maskstore_ps(to, inside, _mm_add_ps(_mm_maskload_ps(to, inside), all));
}

static inline __attribute__((always_inline)) void add_few_lanes(float *to, const v16 *sums,
                                                                size_t n)
{
    add_lanes(to, sums, n);
}

#include "kern/ff_body.h"
