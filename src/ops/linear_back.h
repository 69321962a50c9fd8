/* ops/linear_back.h: the backward half of products with weights (ops/linear.h). */
#ifndef KH_OPS_LINEAR_BACK_H
#define KH_OPS_LINEAR_BACK_H

#include "ops/linear.h"

/* The record of kh_op_linear_many, where kh_tape_wants(run). */
void kh_record_linear(kh_run *run, size_t count, float *const *y, const float *x, size_t T,
                      const kh_weight *const *w);

#endif
