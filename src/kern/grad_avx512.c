/* The kernels of attention's backward pass for AVX-512: grad_body.h over vec_avx512.h.
 *
 * Products with listed rows end in sums across lanes. Sixteen rows are summed together by a tree of
 * two-operand shuffles, 15 additions and 22 shuffles instead of 64 and 64: at each step a register takes
 * the halves of two. Rows go through in fours, in a loop: all sixteen at once, unrolled, spill.
 *
 * The two products of full attention's backward pass that sum over queries are the tile of mix_rows
 * with the weights' strides exchanged: nothing is transposed. */
#include "kern/vec_avx512.h"

enum { TILE_ROWS = 6, TILE_COLS = 4, PAIR_COLS = 4 };

typedef v16 fours; /* lane group i holds the four partial sums of row i */

static inline fours fours_zero(void)
{
    return v16_zero();
}

/* Halves, then quarters. A blend and a shuffle bring the terms of an addition together in any order. */
static inline fours fold_rows(const v16 *acc)
{
    v16 x = _mm512_add_ps(_mm512_mask_blend_ps(0xff00, acc[0], acc[1]),
                          _mm512_shuffle_f32x4(acc[0], acc[1], 0x4e));
    v16 y = _mm512_add_ps(_mm512_mask_blend_ps(0xff00, acc[2], acc[3]),
                          _mm512_shuffle_f32x4(acc[2], acc[3], 0x4e));
    return _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
}

static inline v16 join_rows(const fours *sums)
{
    v16 x = _mm512_add_ps(_mm512_unpacklo_ps(sums[0], sums[2]),
                          _mm512_unpackhi_ps(sums[0], sums[2]));
    v16 y = _mm512_add_ps(_mm512_unpacklo_ps(sums[1], sums[3]),
                          _mm512_unpackhi_ps(sums[1], sums[3]));
    v16 z = _mm512_add_ps(_mm512_unpacklo_ps(x, y), _mm512_unpackhi_ps(x, y));
    return _mm512_permutexvar_ps(
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), z);
}

static inline v16 lookup(const float *table, const uint16_t *rows)
{
    __m512i at = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)rows));
    return _mm512_i32gather_ps(at, table, 4);
}

#include "kern/grad_body.h"
