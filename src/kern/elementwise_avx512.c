/* The row kernels over AVX-512; see elementwise.c for what they mean and elementwise_avx2.c for how
 * pairs are rotated. */
#include "kern/vec_avx512.h"

enum { CHAINS_AT_ONCE = 12 };

static inline v16 v16_twice(const float *p /* [8] */)
{
    __m512i lanes = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    return _mm512_permutexvar_ps(lanes, _mm512_castps256_ps512(_mm256_loadu_ps(p)));
}
static inline v16 v16_swap(v16 x)
{
    return _mm512_permute_ps(x, 0xb1);
}
static inline v16 v16_alternate(v16 x, v16 y)
{
    return _mm512_mask_sub_ps(_mm512_add_ps(x, y), 0x5555, x, y);
}

#include "kern/elementwise_body.h"
