/* ops/lora.h: what low-rank adapters (LoRA) add to the product with a weight, and to its rows. */
#ifndef KH_OPS_LORA_H
#define KH_OPS_LORA_H

#include "ops/weight.h"
#include "run/run.h"

enum { KH_LORA_MOST = 8192 /* the largest r that is computed with */ };

/* As kh_linear_need: raises *step and *scratch to what a weight's adapters take. */
void kh_lora_need(const kh_lora *lora, size_t T, size_t *step, size_t *scratch);

/* y[i] [T][rows] += sum over the adapters of w[i] of scale * B (A x), in f32, for `count` <=
 * KH_LINEAR_MANY weights over one x [T][cols]. Adapters of one weight are added in their order. */
kh_status kh_op_lora(kh_run *run, size_t count, float *const *y, const float *x, size_t T,
                     const kh_weight *const *w);

/* rows [count][cols] += scale * B A, rows [first, first + count) of the product; for all of the list. */
void kh_lora_add_rows(const kh_lora *lora, float *rows, size_t first, size_t count, size_t cols);

#endif
