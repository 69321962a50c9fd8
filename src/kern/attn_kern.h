/* kern/attn_kern.h: contracts of the attention kernels, and the layout of a cache page.
 *
 * A page holds KH_PAGE = 64 consecutive keys and values of one layer and key head.
 *
 *   keys    four panels of 16 keys, each [E][16]: element e of keys 16p .. 16p+15 side by side, so a
 *           score needs no horizontal sum and the order over e is the same on every machine
 *             f32, f16:  E * 16 elements a panel
 *             q8_0:      per 32 elements e: f16 scale [16] (one a key), then int8 [32][16]
 *   values  64 rows of E, contiguous: gathered by row, mixed by row
 *             f32, f16:  E elements a row
 *             q8_0:      E / 32 blocks of 34 bytes a row, as in a file
 *
 * kv_f16          y[i] = x[i] as binary16, nearest even.
 * kv_key_f32 / kv_value_f32  whole or partial page (the first `keys` keys, at least 1) to f32 panels
 *                 [4][E][16] / rows [keys][E]; `type` is a kh_type (F32, F16, Q8_0). Panels beyond
 *                 `keys` (rounded up to 16) are left alone; lanes beyond `keys` inside the last panel
 *                 hold whatever the page holds.
 * score_panel     scores[r * lds + 16 p + i] = sum over e ascending, one fma each starting from 0, of
 *                 q[r * ldq + e] * panels[p][e][i], for r < R, p < panel_count: bit-equal on every
 *                 instruction set (the order is the contract).
 * score_panel_f16  the same from panels as an f16 page holds them: for few rows, where unpacking a page
 *                 would cost as much as scoring it.
 * score_ahead     the same for a whole page of f32 panels, or f16 ones (`half`), while the lines of `next`, NULL
 *                 or a page of the same kind, are fetched.
 * score_listed    scores[i] of n single keys: key positions[i] % 16 of panels[i] (f32, or f16 with `half`) with one
 *                 q [E]; bit-equal to score_panel.
 * filter_rows     for each row r < R appends, in order, the scores[r * lds + i] > thresholds[r] (NaN
 *                 never passes), i < n, to values[r * ldc + counts[r] ...], first_index + i to indices
 *                 at the same place, and counts them into counts[r]. Each row has room for those, and
 *                 for 16 more that may be overwritten.
 * filter_back_rows  the same for lists that grow downwards: row r's counts[r] entries lie just before
 *                 values + r * ldc, and the scores >= thresholds[r] are put, in order, before those.
 *                 Nothing at or behind the list's first entry is touched; 15 entries before the new first
 *                 one may be overwritten. `seen`: how many keys were
 *                 filtered into the lists before; decides nothing but speed.
 * list_row        puts the scores >= threshold, in order, to values, and first_index + i to indices. 16
 *                 entries behind the last may be overwritten.
 * count_at_least  how many values are >= threshold.
 * nth_between     the nth largest of the values in [low, high), of which there are at least nth and at
 *                 most 16 (high may be NaN: no bound); *ties: SIZE_MAX, or, where more values equal to it
 *                 exist than belong to the nth largest, how many of those do.
 * keep_best       drops, in place and in order, all values but those > threshold and the first `ties`
 *                 of those equal to it; returns how many stay. Nothing beyond n is touched.
 * row_max         the largest; NaN ignored; -INFINITY when there is none.
 * row_moments     the smallest and the largest in the same way, the sum and the sum of squares: 64 lane
 *                 sums (i % 64, one fma each for squares), added lanes 16 apart first, as
 *                 (0 + 16) + (32 + 48), then as a tree.
 * exp_sum         y[i] = exp(x[i] * scale - shift) (1 ulp of expf; -inf and NaN give 0; y may be x),
 *                 returns their sum: 16 lane sums (lane i % 16, i ascending), added as a tree (distance
 *                 8, 4, 2, 1).
 * tail_rows       adds exp(scale * scores[r * lds + i]) for i < n, in units of 2^shifts[r], to lane i % 16
 *                 of sums [R][16]. An estimate, within 7e-4 of each term, and equal bits on every
 *                 instruction set: the units are powers of two, so sums over other keys or with other
 *                 shifts agree in every digit but rounding. shifts[r] is -INFINITY (sums 0) before the
 *                 first score above that; it is raised, and the sums with it, where a term would leave
 *                 the floats. NaN and -inf add 0.
 * softmax_rows    one step of the online softmax. For each row r < R of n scores: M = max(m[r], scale *
 *                 largest score), scores become exp(score * scale - M) (within 3e-7 (1 + |M| + |score * scale|) of it;
 *                 0 below 2^-126.5, -inf and NaN), alpha[r] = exp(m[r] - M) (1
 *                 where m[r] did not change), u[r] = alpha[r] * u[r] + their sum, m[r] = M. While no
 *                 score but -inf or NaN was seen, M is -INFINITY, all weights are 0 and u stays 0.
 * mix_rows        out[r][0..E) = alpha[r] * out[r][.] + sum over keys ascending, one fma each, of
 *                 weights[r * ldw + j] * values[j][.], for r < R.
 * mix_rows_f16    the same from f16 rows.
 * gather_f32      out[0..E) = sum over j ascending, one fma each, of weights[j] * row j, K rows given
 *                 by pointers.
 * gather_listed_* adds weights[j] * row indices[j] to out[0..E), one fma each, j ascending, as long as
 *                 j < n and indices[j] < end; returns j. Rows are values of pages of the named type,
 *                 indices ascend. q8_0: the element is scale * int8, rounded, before the fma. */
#ifndef KH_KERN_ATTN_KERN_H
#define KH_KERN_ATTN_KERN_H

/* 2^f = f's fraction-as-linear times a cubic (of the fraction in [1, 2)): least largest error, 6.6e-4. */
#define KH_TAIL_C3   -0.10644584894180298f
#define KH_TAIL_C2   0.7074769139289856f
#define KH_TAIL_C1   -1.377309799194336f
#define KH_TAIL_C0   1.7756160497665405f
#define KH_TAIL_UNIT 8388608.0f           /* 2^23: one exponent step of a float's bits */
#define KH_TAIL_MOST (250 * KH_TAIL_UNIT) /* bits of a term that may still be summed */
#define KH_LOG2_E    1.44269504088896f

enum { KH_PAGE = 64, KH_PANEL = 16, KH_PANELS = KH_PAGE / KH_PANEL };

#endif
