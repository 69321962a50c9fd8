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
 * kv_key_f32 / kv_value_f32  whole or partial page (the first `keys` keys, at least 1) to f32 panels
 *                 [4][E][16] / rows [keys][E]; `type` is a kh_type (F32, F16, Q8_0). Panels beyond
 *                 `keys` (rounded up to 16) are left alone; lanes beyond `keys` inside the last panel
 *                 hold whatever the page holds (zeros or old keys, always finite numbers).
 * score_panel     scores[r * lds + 16 p + i] = sum over e ascending, one fma each starting from 0, of
 *                 q[r * ldq + e] * panels[p][e][i], for r < R, p < panel_count: bit-equal on every
 *                 instruction set (the order is the contract).
 * filter_above    appends, in order, the scores[i] > threshold (NaN never passes) to values and
 *                 first_index + i to indices; returns how many. Both outputs have room for n plus 16.
 * count_at_least  how many values are >= threshold.
 * row_max         the largest; NaN ignored; -INFINITY when n is 0 or all are NaN.
 * exp_sum         y[i] = exp(x[i] * scale - shift) (within 2 ulp-ish of expf; -inf gives 0; y may be
 *                 x), returns their sum in a fixed order: 16 lane sums, then lanes ascending.
 * mix_rows        out[r][0..E) += sum over keys ascending, one fma each, of weights[r * ldw + j] *
 *                 values[j][.], for r < R.
 * gather_*        out[0..E) = sum over j ascending, one fma each, of weights[j] * row j, K rows given
 *                 by pointers to elements of the named type. */
#ifndef KH_KERN_ATTN_KERN_H
#define KH_KERN_ATTN_KERN_H

enum { KH_PAGE = 64, KH_PANEL = 16, KH_PANELS = KH_PAGE / KH_PANEL };

#endif
