/* ops/linear.h: y = W x for rows of activations, quantised or dense weights. */
#ifndef KH_OPS_LINEAR_H
#define KH_OPS_LINEAR_H

#include "ops/weight.h"
#include "run/run.h"

enum { KH_LINEAR_MANY = 4 };

/* Raises *step and *scratch to the bytes that a product of T rows with a weight takes from run->step and from
 * each worker's scratch, which an absent weight does not;
 * for kh_op_linear_many the step needs of one weight (x is quantised once) and the largest scratch. */
void kh_linear_need(const kh_weight *weight, size_t T, size_t *step, size_t *scratch);

/* y [T][w->rows] = x [T][w->cols] W^T. run->compute says in what x is multiplied. */
kh_status kh_op_linear(kh_run *run, float *y, const float *x, size_t T, const kh_weight *w);
/* The same for `count` <= KH_LINEAR_MANY weights of equal cols over one x: one quantisation and one
 * parallel region. */
kh_status kh_op_linear_many(kh_run *run, size_t count, float *const *y, const float *x, size_t T,
                            const kh_weight *const *w);

#endif
