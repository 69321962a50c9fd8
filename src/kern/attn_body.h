/* kern/attn_body.h: the attention kernels over sixteen lanes; included by attn_avx2.c and
 * attn_avx512.c after their vector header. The essay is in attn_avx512.c.
 *
 * TILE_ROWS x TILE_COLS accumulators of 16 lanes are what the registers hold beside one row of the
 * right-hand side and one broadcast. */
#include "kern/attn_kern.h"
#include "kern/kern.h"
#include "kern/tile_switch.h"
#include "tensor/half.h"
#include "tensor/types.h"

#include <math.h>
#include <string.h>

enum { MANY = 6 }; /* of 64 keys, from which on they are listed by compresses */

#define INLINE static inline __attribute__((always_inline))

/* Elements of a product's right-hand side, f32 or f16; `half` is a constant wherever this is inlined. */
INLINE const void *from_element(const void *b, size_t i, int half)
{
    return half ? (const void *)((const uint16_t *)b + i) : (const void *)((const float *)b + i);
}

/* acc[r][c] += sum over j ascending of a[r * lda + j] * b[j * step + c * skip + lane]: both products
 * of attention are this, with the keys (score) or the elements (mix) side by side. */
INLINE void tile(v16 acc[TILE_ROWS][TILE_COLS], const float *a, size_t lda, size_t rows,
                 const void *b, int half, size_t step, size_t skip, size_t cols, size_t n)
{
    for (size_t j = 0; j < n; j++) {
        v16 right[TILE_COLS];
        for (size_t c = 0; c < cols; c++) right[c] = v16_element(b, j * step + c * skip, half);
        for (size_t r = 0; r < rows; r++) {
            v16 left = v16_set1(a[r * lda + j]);
            for (size_t c = 0; c < cols; c++) acc[r][c] = v16_fma(left, right[c], acc[r][c]);
        }
    }
}

INLINE void score_tile(float *scores, size_t lds, const float *q, size_t ldq, size_t rows,
                       const void *panels, int half, size_t cols, size_t E)
{
    v16 acc[TILE_ROWS][TILE_COLS];
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++) acc[r][c] = v16_zero();
    tile(acc, q, ldq, rows, panels, half, KH_PANEL, E * KH_PANEL, cols, E);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++) v16_store(scores + r * lds + c * KH_PANEL, acc[r][c]);
}

INLINE void score_block(float *scores, size_t lds, const float *q, size_t ldq, size_t rows,
                        const void *panels, int half, size_t panel_count, size_t E)
{
    size_t p = 0;
    for (; p + TILE_COLS <= panel_count; p += TILE_COLS)
        score_tile(scores + p * KH_PANEL, lds, q, ldq, rows,
                   from_element(panels, p * E * KH_PANEL, half), half, TILE_COLS, E);
    for (; p < panel_count; p++)
        score_tile(scores + p * KH_PANEL, lds, q, ldq, rows,
                   from_element(panels, p * E * KH_PANEL, half), half, 1, E);
}

INLINE void score_any(float *scores, size_t lds, const float *q, size_t ldq, size_t R,
                      const void *panels, int half, size_t panel_count, size_t E)
{
    for (size_t r = 0; r < R; r += TILE_ROWS) {
        size_t rows = R - r < TILE_ROWS ? R - r : TILE_ROWS;
        float *s = scores + r * lds;
        const float *x = q + r * ldq;
#define CALL(n) score_block(s, lds, x, ldq, n, panels, half, panel_count, E)
        TILE_SWITCH(rows, CALL)
#undef CALL
    }
}

void KH_NAME(score_panel)(float *scores, size_t lds, const float *q, size_t ldq, size_t R,
                          const float *panels, size_t panel_count, size_t E)
{
    /* the usual shape as constants: every address of the inner loop is one register and an offset */
    if (E == 64 && ldq == 64 && lds == KH_PAGE && panel_count == KH_PANELS)
        score_any(scores, KH_PAGE, q, 64, R, panels, 0, KH_PANELS, 64);
    else
        score_any(scores, lds, q, ldq, R, panels, 0, panel_count, E);
}

void KH_NAME(score_panel_f16)(float *scores, size_t lds, const float *q, size_t ldq, size_t R,
                              const uint16_t *panels, size_t panel_count, size_t E)
{
    score_any(scores, lds, q, ldq, R, panels, 1, panel_count, E);
}

INLINE void mix_tile(float *out, size_t ldo, const float *alpha, const float *weights, size_t ldw,
                     size_t rows, const void *values, int half, size_t keys, size_t E, size_t cols)
{
    v16 acc[TILE_ROWS][TILE_COLS];
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++)
            acc[r][c] = v16_mul(v16_load(out + r * ldo + c * 16), v16_set1(alpha[r]));
    tile(acc, weights, ldw, rows, values, half, E, 16, cols, keys);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++) v16_store(out + r * ldo + c * 16, acc[r][c]);
}

/* The last E - e < 16 elements of a row. */
INLINE void mix_rest(float *out, float alpha, const float *weights, const void *values, int half,
                     size_t keys, size_t E, size_t e)
{
    v16 acc = v16_mul(v16_load_n(out + e, E - e), v16_set1(alpha));
    for (size_t j = 0; j < keys; j++) {
        float wide[16] = {0};
        for (size_t i = e; i < E; i++)
            wide[i - e] = half ? kh_f16_to_f32(((const uint16_t *)values)[j * E + i])
                               : ((const float *)values)[j * E + i];
        acc = v16_fma(v16_set1(weights[j]), v16_load(wide), acc);
    }
    v16_store_n(out + e, acc, E - e);
}

INLINE void mix_block(float *out, size_t ldo, const float *alpha, const float *weights, size_t ldw,
                      size_t rows, const void *values, int half, size_t keys, size_t E)
{
    size_t e = 0;
    for (; e + 16 * TILE_COLS <= E; e += 16 * TILE_COLS)
        mix_tile(out + e, ldo, alpha, weights, ldw, rows, from_element(values, e, half), half, keys,
                 E, TILE_COLS);
    for (; e + 16 <= E; e += 16)
        mix_tile(out + e, ldo, alpha, weights, ldw, rows, from_element(values, e, half), half, keys,
                 E, 1);
    for (size_t r = 0; e < E && r < rows; r++)
        mix_rest(out + r * ldo, alpha[r], weights + r * ldw, values, half, keys, E, e);
}

INLINE void mix_any(float *out, size_t ldo, const float *alpha, const float *weights, size_t ldw,
                    size_t R, const void *values, int half, size_t keys, size_t E)
{
    for (size_t r = 0; r < R; r += TILE_ROWS) {
        size_t rows = R - r < TILE_ROWS ? R - r : TILE_ROWS;
        float *o = out + r * ldo;
        const float *a = alpha + r, *w = weights + r * ldw;
#define CALL(n) mix_block(o, ldo, a, w, ldw, n, values, half, keys, E)
        TILE_SWITCH(rows, CALL)
#undef CALL
    }
}

void KH_NAME(mix_rows)(float *out, size_t ldo, const float *alpha, const float *weights, size_t ldw,
                       size_t R, const float *values, size_t keys, size_t E)
{
    if (E == 64 && ldo == 64 && ldw == KH_PAGE && keys == KH_PAGE)
        mix_any(out, 64, alpha, weights, KH_PAGE, R, values, 0, KH_PAGE, 64);
    else
        mix_any(out, ldo, alpha, weights, ldw, R, values, 0, keys, E);
}

void KH_NAME(mix_rows_f16)(float *out, size_t ldo, const float *alpha, const float *weights,
                           size_t ldw, size_t R, const uint16_t *values, size_t keys, size_t E)
{
    mix_any(out, ldo, alpha, weights, ldw, R, values, 1, keys, E);
}

/* ---- pages to f32 */

INLINE void widen(float *y, const uint16_t *x, size_t n)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16) v16_store(y + i, v16_from_f16(x + i));
    for (; i < n; i++) y[i] = kh_f16_to_f32(x[i]);
}

INLINE v16 q8_half(const kh_block_q8_0 *b, size_t half)
{
    return v16_mul(v16_set1(kh_f16_to_f32(b->d)), v16_from_i8(b->qs + 16 * half));
}

void KH_NAME(kv_key_f32)(float *panels, const void *page, int type, size_t E, size_t keys)
{
    size_t n = (keys + KH_PANEL - 1) / KH_PANEL * KH_PANEL * E;
    if (type == KH_TYPE_F32) {
        memcpy(panels, page, n * sizeof *panels);
    } else if (type == KH_TYPE_F16) {
        widen(panels, page, n);
    } else {
        const uint8_t *p = page;
        for (size_t block = 0; block < n / (32 * KH_PANEL); block++) {
            v16 d = v16_from_f16((const uint16_t *)(const void *)p);
            const int8_t *q = (const int8_t *)(p + 2 * KH_PANEL);
            for (size_t e = 0; e < 32; e++, panels += KH_PANEL)
                v16_store(panels, v16_mul(d, v16_from_i8(q + e * KH_PANEL)));
            p += 2 * KH_PANEL + 32 * KH_PANEL;
        }
    }
}

void KH_NAME(kv_value_f32)(float *rows, const void *page, int type, size_t E, size_t keys)
{
    size_t n = keys * E;
    if (type == KH_TYPE_F32) {
        memcpy(rows, page, n * sizeof *rows);
    } else if (type == KH_TYPE_F16) {
        widen(rows, page, n);
    } else {
        const kh_block_q8_0 *b = page;
        for (size_t i = 0; i < n / 32; i++) {
            v16_store(rows + 32 * i, q8_half(b + i, 0));
            v16_store(rows + 32 * i + 16, q8_half(b + i, 1));
        }
    }
}

/* ---- selection */

void KH_NAME(filter_rows)(float *values, uint32_t *indices, size_t ldc, uint32_t *counts,
                          const float *scores, size_t lds, const float *thresholds, size_t R,
                          size_t n, uint32_t first_index)
{
    for (size_t r = 0; r < R; r++) {
        const float *s = scores + r * lds;
        v16 threshold = v16_set1(thresholds[r]);
        size_t at = r * ldc + counts[r], i = 0;
        for (; i + 64 <= n; i += 64) { /* most groups pass nothing: one branch for the four */
            v16 top = threshold;       /* NaN gives way to it, operand by operand */
            for (size_t c = 0; c < 4; c++) top = v16_max(v16_load(s + i + 16 * c), top);
            if (!v16_bits_gt(top, threshold)) continue;
            for (size_t c = 0; c < 4; c++) {
                v16 x = v16_load(s + i + 16 * c);
                at += compress(values + at, indices + at, x,
                               v16_index(first_index + (uint32_t)(i + 16 * c)),
                               v16_bits_gt(x, threshold));
            }
        }
        for (; i < n; i += 16) {
            size_t lanes = n - i < 16 ? n - i : 16;
            v16 x = v16_load_n(s + i, lanes);
            uint32_t bits = v16_bits_gt(x, threshold) & ((1u << lanes) - 1);
            at += compress(values + at, indices + at, x, v16_index(first_index + (uint32_t)i),
                           bits);
        }
        counts[r] = (uint32_t)(at - r * ldc);
    }
}

/* Puts what passed just before `values` and `indices`; returns how many. Where many of the 64 do, by four
 * compresses; else bit by bit from the highest, four at a time whether or not there are as many: a branch
 * for each could not be foreseen, and what is written too much lies where the next will be. */
INLINE size_t filter_page(float *values, uint32_t *indices, const float *s, v16 threshold,
                          uint32_t first, const v16 *index /* [4] */, int dense)
{
    size_t n = 0;
    if (dense) {
        for (size_t c = 4; c-- > 0;) {
            v16 x = v16_load(s + 16 * c);
            n += compress_before(values - n, indices - n, x, index[c], v16_bits_ge(x, threshold));
        }
        return n;
    }
    uint64_t bits = 0;
    for (size_t c = 0; c < 4; c++)
        bits |= (uint64_t)v16_bits_ge(v16_load(s + 16 * c), threshold) << 16 * c;
    n = (size_t)__builtin_popcountll(bits);
    for (size_t done = 0; done < n; done += 4)
        for (size_t i = 1; i <= 4; i++) {
            unsigned at = 63 - (unsigned)__builtin_clzll(bits | 1);
            values[-(ptrdiff_t)(done + i)] = s[at];
            indices[-(ptrdiff_t)(done + i)] = first + at;
            bits &= ~(1ull << at);
        }
    return n;
}

/* The last keys of a row, less than a page. */
INLINE size_t filter_rest(float *values, uint32_t *indices, const float *s, size_t n, v16 threshold,
                          uint32_t first)
{
    size_t kept = 0;
    for (size_t end = n; end > 0;) {
        size_t lanes = end % 16 ? end % 16 : 16;
        end -= lanes;
        v16 x = v16_load_n(s + end, lanes);
        uint32_t bits = v16_bits_ge(x, threshold) & ((1u << lanes) - 1);
        kept += compress_before(values - kept, indices - kept, x, v16_index(first + (uint32_t)end),
                                bits);
    }
    return kept;
}

void KH_NAME(filter_back_rows)(float *values, uint32_t *indices, size_t ldc, uint32_t *counts,
                               const float *scores, size_t lds, const float *thresholds, size_t R,
                               size_t n, uint32_t first_index, size_t seen)
{
    size_t whole = n / KH_PAGE * KH_PAGE;
    for (size_t r = 0; whole < n && r < R; r++) {
        ptrdiff_t end = (ptrdiff_t)(r * ldc) - (ptrdiff_t)counts[r];
        counts[r] += (uint32_t)filter_rest(values + end, indices + end, scores + r * lds + whole,
                                           n - whole, v16_set1(thresholds[r]),
                                           first_index + (uint32_t)whole);
    }
    for (size_t i = whole; i > 0; i -= KH_PAGE) {
        v16 index[4];
        for (size_t c = 0; c < 4; c++)
            index[c] = v16_index(first_index + (uint32_t)(i - KH_PAGE + 16 * c));
        for (size_t r = 0; r < R; r++) {
            ptrdiff_t end = (ptrdiff_t)(r * ldc) - (ptrdiff_t)counts[r];
            counts[r] += (uint32_t)filter_page(
                values + end, indices + end, scores + r * lds + i - KH_PAGE,
                v16_set1(thresholds[r]), first_index + (uint32_t)(i - KH_PAGE), index,
                (uint64_t)counts[r] * KH_PAGE > seen * MANY);
        }
    }
}

void KH_NAME(list_row)(float *values, uint32_t *indices, const float *scores, size_t n,
                       float threshold, uint32_t first_index)
{
    v16 t = v16_set1(threshold), index = v16_index(first_index);
    size_t at = 0, i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 x = v16_load(scores + i);
        at += compress(values + at, indices + at, x, index, v16_bits_ge(x, t));
        index = v16_index_add(index, 16);
    }
    if (i < n) {
        v16 x = v16_load_n(scores + i, n - i);
        uint32_t bits = v16_bits_ge(x, t) & ((1u << (n - i)) - 1);
        compress(values + at, indices + at, x, index, bits);
    }
}

/* Lane sums instead of a mask's population: no transfer to the scalar registers until the end. */
size_t KH_NAME(count_at_least)(const float *values, size_t n, float threshold)
{
    v16 t = v16_set1(threshold), tally[4];
    size_t i = 0;
    for (size_t c = 0; c < 4; c++) tally[c] = v16_zero();
    for (; i + 64 <= n; i += 64)
        for (size_t c = 0; c < 4; c++)
            tally[c] = v16_tally_ge(tally[c], v16_load(values + i + 16 * c), t);
    for (; i + 16 <= n; i += 16) tally[0] = v16_tally_ge(tally[0], v16_load(values + i), t);
    tally[0] = v16_tally_add(v16_tally_add(tally[0], tally[1]), v16_tally_add(tally[2], tally[3]));
    size_t count = v16_tally_sum(tally[0]);
    if (i < n) {
        uint32_t bits = v16_bits_ge(v16_load_n(values + i, n - i), t) & ((1u << (n - i)) - 1);
        count += (size_t)__builtin_popcount(bits);
    }
    return count;
}

/* The lowest `ties` bits of a mask. */
INLINE uint32_t lowest(uint32_t bits, size_t ties)
{
    if ((size_t)__builtin_popcount(bits) <= ties) return bits;
    uint32_t keep = 0;
    for (; ties > 0; ties--) {
        keep |= bits & -bits;
        bits &= bits - 1;
    }
    return keep;
}

/* All that reach the threshold: no ties to count, and no branch. A full store stays among what was read. */
INLINE size_t keep_all(float *values, uint32_t *indices, size_t n, v16 t)
{
    size_t kept = 0, i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 x = v16_load(values + i);
        kept += compact(values + kept, indices + kept, x, indices + i, 16, v16_bits_ge(x, t));
    }
    if (i == n) return kept;
    float v[16];
    uint32_t at[16];
    v16 x = v16_load_n(values + i, n - i);
    size_t more = compact(v, at, x, indices + i, n - i, v16_bits_ge(x, t) & ((1u << (n - i)) - 1));
    memcpy(values + kept, v, more * sizeof *v);
    memcpy(indices + kept, at, more * sizeof *at);
    return kept + more;
}

size_t KH_NAME(keep_best)(float *values, uint32_t *indices, size_t n, float threshold, size_t ties)
{
    v16 t = v16_set1(threshold);
    size_t kept = 0;
    if (ties == SIZE_MAX) return keep_all(values, indices, n, t);
    for (size_t i = 0; i < n; i += 16) {
        size_t lanes = n - i < 16 ? n - i : 16;
        v16 x = v16_load_n(values + i, lanes);
        uint32_t inside = (1u << lanes) - 1, above = v16_bits_gt(x, t) & inside;
        uint32_t equal = v16_bits_ge(x, t) & inside & ~above;
        if (equal) {
            equal = lowest(equal, ties);
            ties -= (size_t)__builtin_popcount(equal);
        }
        if (!(above | equal)) continue;
        float v[16];
        uint32_t at[16];
        int inside_n = kept + 16 <= n; /* a full store stays among what was read or dropped */
        size_t more = compact(inside_n ? values + kept : v, inside_n ? indices + kept : at, x,
                              indices + i, lanes, above | equal);
        if (!inside_n) {
            memcpy(values + kept, v, more * sizeof *v);
            memcpy(indices + kept, at, more * sizeof *at);
        }
        kept += more;
    }
    return kept;
}

INLINE v16 largest_lanes(const float *x, size_t *i, size_t n)
{
    v16 best[4];
    for (size_t c = 0; c < 4; c++) best[c] = v16_set1(-INFINITY);
    for (; *i + 64 <= n; *i += 64)
        for (size_t c = 0; c < 4; c++) best[c] = v16_max(v16_load(x + *i + 16 * c), best[c]);
    for (; *i + 16 <= n; *i += 16) best[0] = v16_max(v16_load(x + *i), best[0]);
    return v16_max(v16_max(best[0], best[1]), v16_max(best[2], best[3]));
}

float KH_NAME(row_max)(const float *x, size_t n)
{
    size_t i = 0;
    float top = v16_largest(largest_lanes(x, &i, n));
    for (; i < n; i++) top = x[i] > top ? x[i] : top;
    return top;
}

typedef struct moments {
    v16 low[4], high[4], sum[4], squares[4];
} moments;

INLINE void add_moments(moments *m, const float *x, const float *bounds)
{
    for (size_t c = 0; c < 4; c++) {
        v16 y = v16_load(x + 16 * c), z = v16_load(bounds + 16 * c);
        m->low[c] = v16_min(z, m->low[c]);
        m->high[c] = v16_max(z, m->high[c]);
        m->sum[c] = v16_add(m->sum[c], y);
        m->squares[c] = v16_fma(y, y, m->squares[c]);
    }
}

void KH_NAME(row_moments)(float *out, const float *x, size_t n)
{
    moments m;
    size_t i = 0;
    for (size_t c = 0; c < 4; c++) {
        m.low[c] = v16_set1(INFINITY);
        m.high[c] = v16_set1(-INFINITY);
        m.sum[c] = m.squares[c] = v16_zero();
    }
    for (; i + 64 <= n; i += 64) add_moments(&m, x + i, x + i);
    if (i < n) { /* zeros change no sum, a repeated value no bound */
        float padded[64] = {0}, repeated[64];
        memcpy(padded, x + i, (n - i) * sizeof *x);
        for (size_t j = 0; j < 64; j++) repeated[j] = x[i + (j < n - i ? j : 0)];
        add_moments(&m, padded, repeated);
    }
    v16 least = v16_min(v16_min(m.low[0], m.low[1]), v16_min(m.low[2], m.low[3]));
    out[0] = -v16_largest(v16_neg(least));
    out[1] = v16_largest(v16_max(v16_max(m.high[0], m.high[1]), v16_max(m.high[2], m.high[3])));
    out[2] = v16_sum(v16_add(v16_add(m.sum[0], m.sum[1]), v16_add(m.sum[2], m.sum[3])));
    out[3] =
        v16_sum(v16_add(v16_add(m.squares[0], m.squares[1]), v16_add(m.squares[2], m.squares[3])));
}

/* The few are compared each with all: of sixteen lanes, how many values are not larger. */
float KH_NAME(nth_between)(const float *values, size_t n, float low, float high, size_t nth,
                           size_t *ties)
{
    float x[48] = {0};
    uint32_t unused[48];
    v16 from = v16_set1(low), to = v16_set1(high), one = v16_set1(1.0f), rank = v16_zero();
    size_t m = 0;
    for (size_t i = 0; i < n && m <= 16; i += 16) {
        size_t lanes = n - i < 16 ? n - i : 16;
        v16 v = v16_load_n(values + i, lanes);
        uint32_t bits = v16_bits_ge(v, from) & ~v16_bits_ge(v, to) & ((1u << lanes) - 1);
        m += compress(x + m, unused, v, v, bits);
    }
    if (m > 16) m = 16;
    v16 all = v16_load_n(x, m);
    for (size_t j = 0; j < m; j++)
        rank = v16_add(rank, v16_where_less(all, v16_set1(x[j]), v16_zero(), one));
    rank = v16_where_less(v16_set1((float)m - (float)nth), rank, all, v16_set1(INFINITY));
    float best = -v16_largest(v16_neg(rank));
    uint32_t inside = (1u << m) - 1;
    size_t above = (size_t)__builtin_popcount(v16_bits_gt(all, v16_set1(best)) & inside);
    size_t least = (size_t)__builtin_popcount(v16_bits_ge(all, v16_set1(best)) & inside);
    *ties = least > nth ? nth - above : SIZE_MAX;
    return best;
}

/* ---- softmax */

INLINE v16 weight_of(v16 x, v16 scale, v16 shift)
{
    /* the operands of max stand so that NaN becomes the bound, and the bound 0 */
    return v16_exp(v16_max(v16_sub(v16_mul(x, scale), shift), v16_set1(-104.5f)));
}

float KH_NAME(exp_sum)(float *y, const float *x, size_t n, float scale, float shift)
{
    v16 a = v16_set1(scale), b = v16_set1(shift), sum = v16_zero();
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 w = weight_of(v16_load(x + i), a, b);
        v16_store(y + i, w);
        sum = v16_add(sum, w);
    }
    if (i < n) {
        v16_store_n(y + i, weight_of(v16_load_n(x + i, n - i), a, b), n - i);
        sum = v16_add(sum, v16_load_n(y + i, n - i));
    }
    return v16_sum(sum);
}

/* n scores of a row become weights in units of 2^(shift); returns their sum. */
INLINE float weigh(float *s, size_t n, v16 scale, v16 shift)
{
    v16 sum = v16_zero();
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 w = v16_exp2w(v16_fma(v16_load(s + i), scale, shift));
        v16_store(s + i, w);
        sum = v16_add(sum, w);
    }
    if (i < n) {
        v16_store_n(s + i, v16_exp2w(v16_fma(v16_load_n(s + i, n - i), scale, shift)), n - i);
        sum = v16_add(sum, v16_load_n(s + i, n - i));
    }
    return v16_sum(sum);
}

INLINE v16 shift_of(v16 m)
{
    return v16_mul(v16_where_less(v16_set1(-INFINITY), m, m, v16_zero()), v16_set1(-KH_LOG2_E));
}

INLINE void softmax_row(float *s, float *m, float *u, float *alpha, size_t n, float scale)
{
    float top = KH_NAME(row_max)(s, n) * scale, old = *m, shift[16], change[16];
    *m = top > old ? top : old;
    *alpha = 1.0f;
    if (*m != old) {
        v16_store(change, v16_exp(v16_set1(old - *m)));
        *alpha = change[0];
    }
    v16_store(shift, shift_of(v16_set1(*m)));
    *u = *u * *alpha + weigh(s, n, v16_set1(scale * KH_LOG2_E), v16_set1(shift[0]));
}

/* Sixteen rows of a whole page: what is one number a row is one vector for all, so that no row waits for
 * the end of a reduction. The same operations as softmax_row. */
INLINE void softmax_16(float *scores, size_t lds, float *m, float *u, float *alpha, float scale)
{
    v16 part[16], old = v16_load(m), a = v16_set1(scale * KH_LOG2_E);
    float shifts[16];
    for (size_t r = 0; r < 16; r++) {
        const float *s = scores + r * lds;
        part[r] = v16_set1(-INFINITY);
        for (size_t c = 0; c < 4; c++) part[r] = v16_max(v16_load(s + 16 * c), part[r]);
    }
    v16 top = v16_max(v16_mul(v16_largests(part), v16_set1(scale)), old);
    v16 change = v16_where_equal(top, old, v16_set1(1.0f), v16_exp(v16_sub(old, top)));
    v16_store(m, top);
    v16_store(alpha, change);
    v16_store(shifts, shift_of(top));
    for (size_t r = 0; r < 16; r++) {
        float *s = scores + r * lds;
        v16 shift = v16_set1(shifts[r]);
        part[r] = v16_zero();
        for (size_t c = 0; c < 4; c++) {
            v16 w = v16_exp2w(v16_fma(v16_load(s + 16 * c), a, shift));
            v16_store(s + 16 * c, w);
            part[r] = v16_add(part[r], w);
        }
    }
    v16_store(u, v16_add(v16_mul(v16_load(u), change), v16_sums(part)));
}

void KH_NAME(softmax_rows)(float *scores, size_t lds, float *m, float *u, float *alpha, size_t R,
                           size_t n, float scale)
{
    size_t r = 0;
    for (; n == KH_PAGE && r + 16 <= R; r += 16)
        softmax_16(scores + r * lds, lds, m + r, u + r, alpha + r, scale);
    for (; r < R; r++) softmax_row(scores + r * lds, m + r, u + r, alpha + r, n, scale);
}

/* ---- the mass of what is dropped */

/* 2^((y - 127 * 2^23) / 2^23) by way of the float's own bits: rounding y gives the exponent and a
 * fraction that is linear where it should be exponential, a cubic in the fraction mends that. */
INLINE v16 add_power(v16 y, v16 sum)
{
    v16 e = v16_of_bits(y), f = v16_mantissa(e);
    v16 p = v16_fma(v16_set1(KH_TAIL_C3), f, v16_set1(KH_TAIL_C2));
    p = v16_fma(p, f, v16_set1(KH_TAIL_C1));
    p = v16_fma(p, f, v16_set1(KH_TAIL_C0));
    return v16_fma(e, p, sum);
}

/* Adds a row; 0 when a power would leave the floats, and then *sum is left alone. */
INLINE int tail_row(v16 *sum, const float *s, size_t n, float scale, float shift)
{
    v16 a = v16_set1(scale * (KH_LOG2_E * KH_TAIL_UNIT)),
        b = v16_set1((127 - shift) * KH_TAIL_UNIT);
    v16 part = *sum, top = v16_zero();
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 y = v16_fma(v16_load(s + i), a, b);
        top = v16_max(y, top);
        part = add_power(y, part);
    }
    if (i < n) {
        float rest[16];
        for (size_t j = 0; j < 16; j++) rest[j] = i + j < n ? s[i + j] : -INFINITY;
        v16 y = v16_fma(v16_load(rest), a, b);
        top = v16_max(y, top);
        part = add_power(y, part);
    }
    if (v16_bits_gt(top, v16_set1(KH_TAIL_MOST))) return 0;
    *sum = part;
    return 1;
}

void KH_NAME(tail_rows)(float *sums, float *shifts, const float *scores, size_t lds, size_t R,
                        size_t n, float scale)
{
    for (size_t r = 0; r < R; r++) {
        const float *s = scores + r * lds;
        v16 sum = v16_load(sums + 16 * r);
        while (!(shifts[r] > -INFINITY && tail_row(&sum, s, n, scale, shifts[r]))) {
            float next = ceilf(KH_NAME(row_max)(s, n) * scale * KH_LOG2_E), old = shifts[r];
            if (!(next > old)) break;
            shifts[r] = next;
            sum = v16_scale2(sum, v16_set1(old - next > -250 ? old - next : -250));
        }
        v16_store(sums + 16 * r, sum);
    }
}

/* ---- values of the kept keys */

INLINE v16 value_of(const char *row, size_t e, int type)
{
    if (type == KH_TYPE_F32) return v16_load((const float *)(const void *)row + e);
    if (type == KH_TYPE_F16) return v16_from_f16((const uint16_t *)(const void *)row + e);
    return q8_half((const kh_block_q8_0 *)(const void *)row + e / 32, e / 16 % 2);
}

/* The last E - e < 16 elements of a row; no block type has such rows. */
INLINE v16 last_values(const char *row, size_t e, size_t E, int type)
{
    float wide[16] = {0};
    if (type == KH_TYPE_F32) return v16_load_n((const float *)(const void *)row + e, E - e);
    for (size_t i = e; i < E; i++)
        wide[i - e] = kh_f16_to_f32(((const uint16_t *)(const void *)row)[i]);
    return v16_load(wide);
}

INLINE const char *listed_row(const char *const *pages, uint32_t index, size_t bytes)
{
    return pages[index / KH_PAGE] + index % KH_PAGE * bytes;
}

/* One pass over the list for `cols` registers of out; how far the list is below `end`. `cols` and `type`
 * are constants wherever this is inlined. Asking for rows in advance costs more than it saves as long as
 * they are in the second level, where the scorer keeps them. */
INLINE size_t listed_cols(float *out, const float *weights, const uint32_t *indices, size_t n,
                          uint32_t end, const char *const *pages, size_t bytes, size_t e,
                          size_t cols, int type)
{
    v16 acc[4];
    size_t j = 0;
    for (size_t c = 0; c < cols; c++) acc[c] = v16_load(out + e + 16 * c);
    for (; j < n && indices[j] < end; j++) {
        const char *row = listed_row(pages, indices[j], bytes);
        v16 w = v16_set1(weights[j]);
        for (size_t c = 0; c < cols; c++)
            acc[c] = v16_fma(w, value_of(row, e + 16 * c, type), acc[c]);
    }
    for (size_t c = 0; c < cols; c++) v16_store(out + e + 16 * c, acc[c]);
    return j;
}

INLINE size_t gather_listed(float *out, const float *weights, const uint32_t *indices, size_t n,
                            uint32_t end, const char *const *pages, size_t E, int type)
{
    size_t e = 0, done = 0,
           bytes = type == KH_TYPE_F32   ? E * 4
                   : type == KH_TYPE_F16 ? E * 2
                                         : E / 32 * 34;
    for (; e + 64 <= E; e += 64)
        done = listed_cols(out, weights, indices, n, end, pages, bytes, e, 4, type);
    for (; e + 16 <= E; e += 16)
        done = listed_cols(out, weights, indices, n, end, pages, bytes, e, 1, type);
    if (e == E || type == KH_TYPE_Q8_0) return done;
    v16 acc = v16_load_n(out + e, E - e);
    for (done = 0; done < n && indices[done] < end; done++)
        acc = v16_fma(v16_set1(weights[done]),
                      last_values(listed_row(pages, indices[done], bytes), e, E, type), acc);
    v16_store_n(out + e, acc, E - e);
    return done;
}

size_t KH_NAME(gather_listed_f32)(float *out, const float *weights, const uint32_t *indices,
                                  size_t n, uint32_t end, const char *const *pages, size_t E)
{
    return gather_listed(out, weights, indices, n, end, pages, E, KH_TYPE_F32);
}

size_t KH_NAME(gather_listed_f16)(float *out, const float *weights, const uint32_t *indices,
                                  size_t n, uint32_t end, const char *const *pages, size_t E)
{
    return gather_listed(out, weights, indices, n, end, pages, E, KH_TYPE_F16);
}

size_t KH_NAME(gather_listed_q8_0)(float *out, const float *weights, const uint32_t *indices,
                                   size_t n, uint32_t end, const char *const *pages, size_t E)
{
    return gather_listed(out, weights, indices, n, end, pages, E, KH_TYPE_Q8_0);
}

enum { AHEAD = 8 }; /* rows that are asked for in advance, from wherever they are */

INLINE void gather_cols(float *out, const float *weights, const void *const *rows, size_t K,
                        size_t e, size_t cols)
{
    v16 acc[4];
    for (size_t c = 0; c < cols; c++) acc[c] = v16_zero();
    for (size_t j = 0; j < K; j++) {
        for (size_t c = 0; c < cols && j + AHEAD < K; c++)
            _mm_prefetch((const char *)((const float *)rows[j + AHEAD] + e + 16 * c), _MM_HINT_T0);
        v16 w = v16_set1(weights[j]);
        for (size_t c = 0; c < cols; c++)
            acc[c] = v16_fma(w, v16_load((const float *)rows[j] + e + 16 * c), acc[c]);
    }
    for (size_t c = 0; c < cols; c++) v16_store(out + e + 16 * c, acc[c]);
}

void KH_NAME(gather_f32)(float *out, const float *weights, const void *const *rows, size_t K,
                         size_t E)
{
    size_t e = 0;
    for (; e + 64 <= E; e += 64) gather_cols(out, weights, rows, K, e, 4);
    for (; e + 16 <= E; e += 16) gather_cols(out, weights, rows, K, e, 1);
    if (e == E) return;
    v16 acc = v16_zero();
    for (size_t j = 0; j < K; j++)
        acc = v16_fma(v16_set1(weights[j]), v16_load_n((const float *)rows[j] + e, E - e), acc);
    v16_store_n(out + e, acc, E - e);
}
