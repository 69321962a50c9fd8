/* ops/pooling.h: many rows become one, and two become the features of a pair. Both leave records on a run's tape
 * (run/tape.h); none can fail. */
#ifndef KH_OPS_POOLING_H
#define KH_OPS_POOLING_H

#include "run/run.h"

/* GGUF's numbers (pooling_type). */
typedef enum kh_pooled { KH_POOLED_MEAN = 1, KH_POOLED_FIRST, KH_POOLED_LAST } kh_pooled;

/* Rows [row, row + rows); rows from 1. */
typedef struct kh_row_range {
    size_t row, rows;
} kh_row_range;

/* y [count][D]: what each range of x has in the mean, first or last. y and x do not overlap. */
void kh_op_pool(kh_run *run, float *y, const float *x, const kh_row_range *ranges, size_t count,
                size_t D, kh_pooled how);

/* y [count][parts D] from neighbouring rows a, b of x [2 count][D]: [a, b] for 2 parts, [a, b, a b, a - b] for 4.
 * y and x do not overlap. */
void kh_op_pair(kh_run *run, float *y, const float *x, size_t count, size_t D, size_t parts);

#endif
