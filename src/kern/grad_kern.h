/* kern/grad_kern.h: contracts of the kernels of attention's backward pass.
 *
 * softmax_back  one row of n scores p and of derivatives d by the softmax's weights: p[i] becomes w =
 *               exp(p[i] * scale - shift), exact as in exp_sum, and d[i] becomes (w * scale) * (d[i] -
 *               sum), or 0 where w is not above 0 (whatever d[i] is). With shift = m + ln u the weights
 *               are normalised.
 * softmax_back_rows  the same for R rows of n, `ld` apart, with shifts and sums of their own; weights as in
 *               softmax_rows (within 3e-7 (1 + |shift| + |p * scale|) of exp, 0 below 2^-126.5), at less
 *               than half of the cost.
 * mix_cols      out[j * ldo + e] += sum over r ascending, one fma each, of weights[r * ldw + j] * rows[r *
 *               E + e], for j < cols, e < E: mix_rows with the weights' axes exchanged.
 * back_triples  what n <= 32 rows r = rows[i] of triples [.][3][E], (q, o, dq) side by side, that kept a key
 *               with vector k and value v give to its gradients, and it to theirs.
 *                 x = scale * (q . k + biases[i])      biases NULL: 0
 *                 t = tanh(x / cap), x = cap * t       where capped
 *                 w = exp(x - shifts[r])
 *                 a = gains[i] * (o . v)               gains NULL: 1
 *                 ds[i] = (w * scale) * (a - sums[r]), capped: scale * (1 - t^2) in its place; 0 where
 *                 w is not above 0
 *                 dk += ds[i] * q, dv += (w * gains[i]) * o
 *                 dq += ds[i] * k, elements of k that are not finite being 0
 *               Dot products: 16 lane sums (lane e % 16, e ascending, one fma each from 0), added as a
 *               tree (distance 8, 4, 2, 1); gradients: i ascending, one fma each. No row twice. rows, ds,
 *               gains and biases have room for 32; what rows holds beyond n are numbers of rows, too. exp and tanh as elsewhere. */
#ifndef KH_KERN_GRAD_KERN_H
#define KH_KERN_GRAD_KERN_H

#include "kern/kern.h"

/* What all keys share. */
typedef struct kh_back {
    const float *shifts, *sums; /* [rows] */
    float scale, cap;           /* cap 0: none */
} kh_back;

#endif
