/* The sparse products for AVX-512: ff_body.h over vec_avx512.h.
 *
 * Sixteen dot products are added across their lanes together: each step folds pairs of registers into
 * one (halves, quarters, pairs, lanes), so that sixteen sums cost 30 shuffles and 15 additions, two
 * cycles a sum instead of the ten of a sum on its own. The tree over the lanes is the same. */
#include "kern/vec_avx512.h"

enum { GROUP = 16, FEW = 4 };

/* Lanes 8 apart of x, then of y: two halves. */
static inline v16 fold_8(v16 x, v16 y)
{
    return _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x44), _mm512_shuffle_f32x4(x, y, 0xee));
}

/* Of two such pairs: four quarters, in the order of the arguments' halves. */
static inline v16 fold_4(v16 x, v16 y)
{
    return _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
}

static inline v16 fold_2(v16 x, v16 y)
{
    return _mm512_add_ps(_mm512_shuffle_ps(x, y, 0x44), _mm512_shuffle_ps(x, y, 0xee));
}

static inline v16 fold_1(v16 x, v16 y)
{
    return _mm512_add_ps(_mm512_shuffle_ps(x, y, 0x88), _mm512_shuffle_ps(x, y, 0xdd));
}

static inline v16 quarters(const v16 *x)
{
    return fold_4(fold_8(x[0], x[1]), fold_8(x[2], x[3]));
}

static inline __attribute__((always_inline)) void add_lanes(float *to, const v16 *sums, size_t n)
{
    /* quarter q of register i is sum 4i + q; after two more folds lane 4q + i holds it */
    v16 a = fold_2(quarters(sums), quarters(sums + 4));
    v16 b = fold_2(quarters(sums + 8), quarters(sums + 12));
    v16 all = fold_1(a, b);
    __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    (void)n;
    v16_store(to, v16_add(v16_load(to), _mm512_permutexvar_ps(order, all)));
}

static inline __attribute__((always_inline)) void add_few_lanes(float *to, const v16 *sums,
                                                                size_t n)
{
    v16 all = quarters(sums);
    all = fold_1(fold_2(all, all), all);
    __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
    v16_store_n(to, v16_add(v16_load_n(to, n), _mm512_permutexvar_ps(order, all)), n);
}

#include "kern/ff_body.h"
