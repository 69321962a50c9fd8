/* kern/grad_body.h: the kernels of attention's backward pass over sixteen lanes; included by
 * grad_avx2.c and grad_avx512.c after their vector header and
 *
 *   fours                 sums of four rows on their way: fours_zero(), fold_rows(acc) of acc[4], and
 *   join_rows(sums)       lane 4 i + j: the lanes of row j of sums[i], i < 4, added as v16_sum adds them
 *   lookup(table, rows)   lane i: table[rows[i]]
 *   TILE_ROWS, TILE_COLS  accumulators of mix_cols
 *   PAIR_COLS             of 16 lanes: how many of dk and of dv back_triples holds
 *
 * The essay is in grad_avx512.c. */
#include "kern/attn_kern.h"
#include "kern/grad_kern.h"

#define INLINE static inline __attribute__((always_inline))

/* ---- the softmax's derivative */

INLINE v16 weight_of(v16 x, v16 scale, v16 shift)
{
    /* the operands of max stand so that NaN becomes the bound, and the bound 0 */
    return v16_exp(v16_max(v16_sub(v16_mul(x, scale), shift), v16_set1(-104.5f)));
}

INLINE v16 back_of(v16 w, v16 d, v16 scale, v16 sum)
{
    v16 change = v16_mul(v16_mul(w, scale), v16_sub(d, sum));
    return v16_where_less(v16_zero(), w, change, v16_zero());
}

void KH_NAME(softmax_back)(float *p, float *d, size_t n, float scale, float shift, float sum)
{
    v16 a = v16_set1(scale), b = v16_set1(shift), c = v16_set1(sum);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 w = weight_of(v16_load(p + i), a, b);
        v16_store(d + i, back_of(w, v16_load(d + i), a, c));
        v16_store(p + i, w);
    }
    if (i == n) return;
    v16 w = weight_of(v16_load_n(p + i, n - i), a, b);
    v16_store_n(d + i, back_of(w, v16_load_n(d + i, n - i), a, c), n - i);
    v16_store_n(p + i, w, n - i);
}

void KH_NAME(softmax_back_rows)(float *p, float *d, size_t ld, size_t R, size_t n, float scale,
                                const float *shifts, const float *sums)
{
    v16 a = v16_set1(scale * KH_LOG2_E), b = v16_set1(scale);
    for (size_t r = 0; r < R; r++, p += ld, d += ld) {
        v16 shift = v16_set1(shifts[r] * -KH_LOG2_E), sum = v16_set1(sums[r]);
        size_t i = 0;
        for (; i + 16 <= n; i += 16) {
            v16 w = v16_exp2w(v16_fma(v16_load(p + i), a, shift));
            v16_store(p + i, w);
            v16_store(d + i, back_of(w, v16_load(d + i), b, sum));
        }
        if (i == n) continue;
        v16 w = v16_exp2w(v16_fma(v16_load_n(p + i, n - i), a, shift));
        v16_store_n(p + i, w, n - i);
        v16_store_n(d + i, back_of(w, v16_load_n(d + i, n - i), b, sum), n - i);
    }
}

/* ---- weights transposed times rows */

INLINE void cols_tile(float *out, size_t ldo, const float *weights, size_t ldw, size_t height,
                      const float *rows, size_t R, size_t E, size_t cols)
{
    v16 acc[TILE_ROWS][TILE_COLS];
    for (size_t j = 0; j < height; j++)
        for (size_t c = 0; c < cols; c++) acc[j][c] = v16_load(out + j * ldo + 16 * c);
    for (size_t r = 0; r < R; r++) {
        v16 right[TILE_COLS];
        for (size_t c = 0; c < cols; c++) right[c] = v16_load(rows + r * E + 16 * c);
        for (size_t j = 0; j < height; j++) {
            v16 left = v16_set1(weights[r * ldw + j]);
            for (size_t c = 0; c < cols; c++) acc[j][c] = v16_fma(left, right[c], acc[j][c]);
        }
    }
    for (size_t j = 0; j < height; j++)
        for (size_t c = 0; c < cols; c++) v16_store(out + j * ldo + 16 * c, acc[j][c]);
}

/* The last E - e < 16 elements. */
INLINE void cols_rest(float *out, const float *weights, size_t ldw, const float *rows, size_t R,
                      size_t E, size_t e)
{
    v16 acc = v16_load_n(out + e, E - e);
    for (size_t r = 0; r < R; r++)
        acc = v16_fma(v16_set1(weights[r * ldw]), v16_load_n(rows + r * E + e, E - e), acc);
    v16_store_n(out + e, acc, E - e);
}

INLINE void cols_block(float *out, size_t ldo, const float *weights, size_t ldw, size_t height,
                       const float *rows, size_t R, size_t E)
{
    size_t e = 0;
    for (; e + 16 * TILE_COLS <= E; e += 16 * TILE_COLS)
        cols_tile(out + e, ldo, weights, ldw, height, rows + e, R, E, TILE_COLS);
    for (; e + 16 <= E; e += 16) cols_tile(out + e, ldo, weights, ldw, height, rows + e, R, E, 1);
    for (size_t j = 0; e < E && j < height; j++)
        cols_rest(out + j * ldo, weights + j, ldw, rows, R, E, e);
}

/* The counts become constants, so that the accumulators stay in registers. */
#define COLS_CASE(n)                                                                               \
    case n: cols_block(o, ldo, w, ldw, n, rows, R, E); break;

INLINE void cols_any(float *out, size_t ldo, const float *weights, size_t ldw, size_t cols,
                     const float *rows, size_t R, size_t E)
{
    for (size_t j = 0; j < cols; j += TILE_ROWS) {
        float *o = out + j * ldo;
        const float *w = weights + j;
        switch (cols - j) {
            COLS_CASE(1)
            COLS_CASE(2)
            COLS_CASE(3)
            COLS_CASE(4)
            COLS_CASE(5)
        default: cols_block(o, ldo, w, ldw, TILE_ROWS, rows, R, E);
        }
    }
}

/* The usual shape as constants, as in attn_body.h. */
void KH_NAME(mix_cols)(float *out, size_t ldo, const float *weights, size_t ldw, size_t cols,
                       const float *rows, size_t R, size_t E)
{
    if (E == 64 && ldo == 64 && ldw == KH_PAGE && cols == KH_PAGE)
        cols_any(out, 64, weights, KH_PAGE, KH_PAGE, rows, R, 64);
    else
        cols_any(out, ldo, weights, ldw, cols, rows, R, E);
}

/* ---- a key and the rows that kept it: up to 32 at a time, read twice while they are near */

INLINE v16 dot_lanes(const float *x, const float *row, size_t E)
{
    v16 sum = v16_zero();
    size_t e = 0;
    for (; e + 16 <= E; e += 16) sum = v16_fma(v16_load(x + e), v16_load(row + e), sum);
    if (e < E) sum = v16_fma(v16_load_n(x + e, E - e), v16_load_n(row + e, E - e), sum);
    return sum;
}

/* Lane i: x . row rows[i], for i < n; rows beyond, up to a multiple of four, are taken too. */
INLINE v16 dot_sixteen(const float *x, const float *part, const uint16_t *rows, size_t n, size_t E)
{
    fours sums[4] = {fours_zero(), fours_zero(), fours_zero(), fours_zero()};
    for (size_t i = 0; 4 * i < n; i++) {
        v16 acc[4];
        for (size_t j = 0; j < 4; j++) acc[j] = dot_lanes(x, part + 3 * E * rows[4 * i + j], E);
        sums[i] = fold_rows(acc);
    }
    return join_rows(sums);
}

/* Products become weights *p (times gains) and derivatives, which are returned. */
INLINE v16 back_rows(v16 *p, v16 s, v16 a, const uint16_t *rows, const float *gains,
                     const float *biases, const kh_back *b)
{
    v16 scale = v16_set1(b->scale), slope = scale, one = v16_set1(1.0f);
    v16 gain = gains ? v16_load(gains) : one;
    v16 x = v16_mul(biases ? v16_add(s, v16_load(biases)) : s, scale);
    if (b->cap != 0) {
        v16 t = v16_tanh(v16_div(x, v16_set1(b->cap)));
        slope = v16_mul(scale, v16_fnma(t, t, one));
        x = v16_mul(t, v16_set1(b->cap));
    }
    v16 w = weight_of(x, one, lookup(b->shifts, rows));
    *p = v16_mul(w, gain);
    return back_of(w, v16_mul(a, gain), slope, lookup(b->sums, rows));
}

/* Elements of a key that are not finite, as zeros. */
INLINE v16 finite(v16 x)
{
    return v16_where_equal(v16_mul(x, v16_zero()), v16_zero(), x, v16_zero());
}

INLINE void triples_cols(float *dk, float *dv, const float *k, float *triples, const uint16_t *rows,
                         const float *d, const float *p, size_t n, size_t E, size_t cols)
{
    v16 left[PAIR_COLS], right[PAIR_COLS], key[PAIR_COLS];
    for (size_t c = 0; c < cols; c++) {
        left[c] = v16_load(dk + 16 * c);
        right[c] = v16_load(dv + 16 * c);
        key[c] = finite(v16_load(k + 16 * c));
    }
    for (size_t i = 0; i < n; i++) {
        float *q = triples + 3 * E * rows[i];
        v16 x = v16_set1(d[i]), y = v16_set1(p[i]);
        for (size_t c = 0; c < cols; c++) {
            left[c] = v16_fma(x, v16_load(q + 16 * c), left[c]);
            right[c] = v16_fma(y, v16_load(q + E + 16 * c), right[c]);
            v16_store(q + 2 * E + 16 * c, v16_fma(x, key[c], v16_load(q + 2 * E + 16 * c)));
        }
    }
    for (size_t c = 0; c < cols; c++) {
        v16_store(dk + 16 * c, left[c]);
        v16_store(dv + 16 * c, right[c]);
    }
}

INLINE void triples_rest(float *dk, float *dv, const float *k, float *triples, const uint16_t *rows,
                         const float *d, const float *p, size_t n, size_t E, size_t lanes)
{
    v16 left = v16_load_n(dk, lanes), right = v16_load_n(dv, lanes);
    v16 key = finite(v16_load_n(k, lanes));
    for (size_t i = 0; i < n; i++) {
        float *q = triples + 3 * E * rows[i];
        v16 x = v16_set1(d[i]);
        left = v16_fma(x, v16_load_n(q, lanes), left);
        right = v16_fma(v16_set1(p[i]), v16_load_n(q + E, lanes), right);
        v16_store_n(q + 2 * E, v16_fma(x, key, v16_load_n(q + 2 * E, lanes)), lanes);
    }
    v16_store_n(dk, left, lanes);
    v16_store_n(dv, right, lanes);
}

INLINE void back_any(float *dk, float *dv, float *ds, const float *k, const float *v,
                     float *triples, const uint16_t *rows, const float *gains, const float *biases,
                     size_t n, const kh_back *b, size_t E)
{
    float p[32];
    v16 w, s, a, more_s, more_a;
    size_t first = n < 16 ? n : 16;
    s = dot_sixteen(k, triples, rows, first, E);
    a = dot_sixteen(v, triples + E, rows, first, E);
    if (n >
        16) { /* products first: the long way from one to its derivative is gone twice at once */
        more_s = dot_sixteen(k, triples, rows + 16, n - 16, E);
        more_a = dot_sixteen(v, triples + E, rows + 16, n - 16, E);
        v16_store(ds + 16, back_rows(&w, more_s, more_a, rows + 16, gains ? gains + 16 : NULL,
                                     biases ? biases + 16 : NULL, b));
        v16_store(p + 16, w);
    }
    v16_store(ds, back_rows(&w, s, a, rows, gains, biases, b));
    v16_store(p, w);
    size_t e = 0;
    for (; e + 16 * PAIR_COLS <= E; e += 16 * PAIR_COLS)
        triples_cols(dk + e, dv + e, k + e, triples + e, rows, ds, p, n, E, PAIR_COLS);
    for (; e + 16 <= E; e += 16)
        triples_cols(dk + e, dv + e, k + e, triples + e, rows, ds, p, n, E, 1);
    if (e < E) triples_rest(dk + e, dv + e, k + e, triples + e, rows, ds, p, n, E, E - e);
}

/* The usual widths as constants: the vectors that are the same for all rows stay in registers. */
void KH_NAME(back_triples)(float *dk, float *dv, float *ds, const float *k, const float *v,
                           float *triples, const uint16_t *rows, const float *gains,
                           const float *biases, size_t n, const kh_back *b, size_t E)
{
    if (E == 64)
        back_any(dk, dv, ds, k, v, triples, rows, gains, biases, n, b, 64);
    else if (E == 128)
        back_any(dk, dv, ds, k, v, triples, rows, gains, biases, n, b, 128);
    else
        back_any(dk, dv, ds, k, v, triples, rows, gains, biases, n, b, E);
}
