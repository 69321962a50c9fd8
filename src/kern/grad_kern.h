/* kern/grad_kern.h: contracts of the kernels of attention's backward pass.
 *
 * softmax_back         one row of n scores p and of derivatives d by the softmax's weights: p[i] becomes
 *                      w = exp(p[i] * scale - shift), exact as in exp_sum, and d[i] becomes (w * scale) *
 *                      (d[i] - sum), or 0 where w is not above 0 (whatever d[i] is). With shift = m +
 *                      ln u the weights are normalised.
 * softmax_back_listed  the same for n entries of different rows: shifts[rows[i]] and sums[rows[i]].
 * mix_cols             out[j * ldo + e] += sum over r ascending, one fma each, of weights[r * ldw + j] *
 *                      rows[r * E + e], for j < cols, e < E: mix_rows with the weights' axes exchanged.
 *
 * pairs [.][2][E]: two vectors of a row side by side.
 *
 * dot_pairs            a[i] = x . pairs[rows[i]][0], b[i] = y . pairs[rows[i]][1], i < n: 16 lane sums
 *                      (lane e % 16, e ascending, one fma each from 0), added as a tree (distance 8, 4,
 *                      2, 1).
 * gather_pairs         a[e] += sum over i ascending, one fma each, of wa[i] * pairs[rows[i]][0][e], and
 *                      b[e] of wb[i] * pairs[rows[i]][1][e], for i < n, e < E. */
#ifndef KH_KERN_GRAD_KERN_H
#define KH_KERN_GRAD_KERN_H

#include "kern/kern.h"

#endif
