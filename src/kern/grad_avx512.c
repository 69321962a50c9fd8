/* The kernels of attention's backward pass for AVX-512: grad_body.h over vec_avx512.h.
 *
 * Products with listed rows end in sums across lanes. Sixteen rows are summed together by a tree of
 * two-operand shuffles, 15 additions and 30 shuffles instead of 64 and 64: at each step a register
 * takes the halves of two, so the last one holds sixteen finished sums. Rows enter in an order that
 * makes them come out in theirs.
 *
 * The two products of full attention's backward pass that sum over queries are the tile of mix_rows
 * with the weights' strides exchanged: nothing is transposed. */
#include "kern/vec_avx512.h"

enum { DOT_ROWS = 16, TILE_ROWS = 6, TILE_COLS = 4, PAIR_COLS = 4 };

/* Halves, then quarters: lane group i of the result holds the four partial sums of row i. */
static inline v16 quarters(v16 a, v16 b, v16 c, v16 d)
{
    v16 x = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    v16 y = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    return _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
}

static inline void sum_rows(float *out, const v16 *acc)
{
    v16 a = quarters(acc[0], acc[4], acc[8], acc[12]),
        b = quarters(acc[1], acc[5], acc[9], acc[13]);
    v16 c = quarters(acc[2], acc[6], acc[10], acc[14]),
        d = quarters(acc[3], acc[7], acc[11], acc[15]);
    v16 x = _mm512_add_ps(_mm512_unpacklo_ps(a, c), _mm512_unpackhi_ps(a, c));
    v16 y = _mm512_add_ps(_mm512_unpacklo_ps(b, d), _mm512_unpackhi_ps(b, d));
    _mm512_storeu_ps(out, _mm512_add_ps(_mm512_unpacklo_ps(x, y), _mm512_unpackhi_ps(x, y)));
}

static inline v16 lookup(const float *table, const uint32_t *rows)
{
    return _mm512_i32gather_ps(_mm512_loadu_si512(rows), table, 4);
}

#include "kern/grad_body.h"
