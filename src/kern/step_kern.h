/* kern/step_kern.h: contracts of the kernels of an optimiser's step. Arrays have n elements, any n; none
 * alias. All give the same bits on every instruction set: only products, sums, fma, division and square
 * root, in the order written here, each rounded once.
 *
 *   squares_sum   the sum of x[i]^2 in double: element i in lane i % 16, ascending, lanes added l and
 *                 l + 8, then + 4, + 2, + 1. Not finite exactly when some x is not: no sum of squares of
 *                 floats reaches the end of double.
 *   adamw_step    g' = g scale,  m += keep1 (g' - m),  v = beta2 v + keep2 g'^2,
 *                 w = w decay - rate m / (sqrt(v) root + eps)
 *   sgd_step      g' = g scale + decay w;  with m: m = momentum m + g', g' = m;  w = w - rate g'
 *   bf16_dither   y[i] = x[i] as bf16, rounded up with the probability of what is cut off: the low 16 bits of x
 *                 plus the upper 16 of kh_dither(seed + i) carry or not. Its mean is x. x is not NaN. */
#ifndef KH_KERN_STEP_KERN_H
#define KH_KERN_STEP_KERN_H

#include <stdint.h>

struct kh_adamw {
    float scale;        /* of the gradient: accumulation and clipping */
    float decay;        /* 1 - learning rate * weight decay */
    float rate;         /* learning rate / (1 - beta1^step) */
    float keep1;        /* 1 - beta1 */
    float beta2, keep2; /* keep2 = 1 - beta2 */
    float root;         /* 1 / sqrt(1 - beta2^step) */
    float eps;
};

struct kh_sgd {
    float scale, rate, decay, momentum;
};

/* A hash of 32 bits that changes half of them for every bit of x (lowbias32: two multiplications and
 * three folds, searched for the least bias by C. Wellons). */
static inline uint32_t kh_dither(uint32_t x)
{
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

#endif
