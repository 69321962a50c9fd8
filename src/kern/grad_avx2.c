/* The kernels of attention's backward pass for AVX2: grad_body.h over vec_avx2.h. Four listed rows at a
 * time are summed across lanes, by the same tree as in grad_avx512.c. */
#include "kern/vec_avx2.h"

enum { TILE_ROWS = 6, TILE_COLS = 1, PAIR_COLS = 2 };

static inline __m128 quarters(v16 x)
{
    __m256 half = _mm256_add_ps(x.a, x.b);
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

typedef __m128 fours;

static inline fours fours_zero(void)
{
    return _mm_setzero_ps();
}

static inline fours fold_rows(const v16 *acc)
{
    __m128 a = quarters(acc[0]), b = quarters(acc[1]), c = quarters(acc[2]), d = quarters(acc[3]);
    __m128 x = _mm_add_ps(_mm_unpacklo_ps(a, c), _mm_unpackhi_ps(a, c));
    __m128 y = _mm_add_ps(_mm_unpacklo_ps(b, d), _mm_unpackhi_ps(b, d));
    return _mm_add_ps(_mm_unpacklo_ps(x, y), _mm_unpackhi_ps(x, y));
}

static inline v16 join_rows(const fours *sums)
{
    return (v16){_mm256_set_m128(sums[1], sums[0]), _mm256_set_m128(sums[3], sums[2])};
}

/* Loads are faster than the gather of most processors of this level. */
static inline v16 lookup(const float *table, const uint16_t *rows)
{
    float lanes[16];
    for (size_t i = 0; i < 16; i++) lanes[i] = table[rows[i]];
    return v16_load(lanes);
}

#include "kern/grad_body.h"
