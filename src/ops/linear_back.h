/* ops/linear_back.h: the backward half of products: the record that kh_op_linear_many leaves on a tape. Private to
 * ops/. */
#ifndef KH_OPS_LINEAR_BACK_H
#define KH_OPS_LINEAR_BACK_H

#include "ops/linear.h"

/* Before the products run, where kh_tape_wants(run). */
void kh_record_linear(kh_run *run, size_t count, float *const *y, const float *x, size_t T,
                      const kh_weight *const *w);

#endif
