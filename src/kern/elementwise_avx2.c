/* The row kernels over AVX2; see elementwise.c for what they mean. Rotated pairs lie side by side:
 * each angle is doubled, and the products of the swapped row are subtracted and added in turn. */
#include "kern/vec_avx2.h"

enum {
    CHAINS_AT_ONCE = 6
}; /* twelve registers of sixteen: more than the latency of an fma needs */

/* p[0], p[0], p[1], p[1], ... p[7], p[7] */
static inline v16 v16_twice(const float *p /* [8] */)
{
    __m256 x = _mm256_loadu_ps(p);
    return (v16){_mm256_permutevar8x32_ps(x, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)),
                 _mm256_permutevar8x32_ps(x, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7))};
}
static inline v16 v16_swap(v16 x)
{
    return (v16){_mm256_permute_ps(x.a, 0xb1), _mm256_permute_ps(x.b, 0xb1)};
}
/* Even lanes x - y, odd lanes x + y. */
static inline v16 v16_alternate(v16 x, v16 y)
{
    return (v16){_mm256_addsub_ps(x.a, y.a), _mm256_addsub_ps(x.b, y.b)};
}

#include "kern/elementwise_body.h"
