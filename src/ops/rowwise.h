/* ops/rowwise.h: what is done row by row: norms, activations, residuals, embedding. Each op runs its
 * rows in parallel when there are many, and leaves a record on a run's tape (run/tape.h), but for
 * kh_act_row. None of them can fail. */
#ifndef KH_OPS_ROWWISE_H
#define KH_OPS_ROWWISE_H

#include "ops/weight.h"
#include "run/run.h"

/* y [rows][n] = rmsnorm(x) * gain; gain NULL: 1; y may be x. Heads are rows too (qk-norm). */
void kh_op_rmsnorm(kh_run *run, float *y, const float *x, const float *gain /* [n] */, float eps,
                   size_t rows, size_t n);
/* y [rows][n] = layernorm(x) * gain + bias; either may be NULL; y may be x. */
void kh_op_layernorm(kh_run *run, float *y, const float *x, const float *gain /* [n] */,
                     const float *bias /* [n] */, float eps, size_t rows, size_t n);
/* y [rows][n] += x [rows][n] */
void kh_op_add(kh_run *run, float *y, const float *x, size_t rows, size_t n);
/* y [rows][n] += bias [n] */
void kh_op_bias(kh_run *run, float *y, const float *bias, size_t rows, size_t n);

typedef enum kh_act { KH_ACT_SILU, KH_ACT_GELU_TANH, KH_ACT_GELU_ERF, KH_ACT_RELU } kh_act;
/* y [n] = act(y), times `up` [n] unless that is NULL: one row. */
void kh_act_row(const kh_kern *kern, kh_act act, float *y, const float *up, size_t n);
/* gate [rows][n] = act(gate) * up [rows][n]; up NULL: act(gate) */
void kh_op_glu(kh_run *run, float *gate, const float *up, size_t rows, size_t n, kh_act act);
/* y [rows][n] *= a */
void kh_op_scale(kh_run *run, float *y, float a, size_t rows, size_t n);
/* y = cap * tanh(y / cap) */
void kh_op_softcap(kh_run *run, float *y, float cap, size_t rows, size_t n);

/* y [rows][n] = x; y may be x, but for that they do not overlap. */
void kh_op_copy(kh_run *run, float *y, const float *x, size_t rows, size_t n);
/* y [count][n]: row i is row rows[i] of x; y and x do not overlap. */
void kh_op_gather(kh_run *run, float *y, const float *x, const uint32_t *rows, size_t count,
                  size_t n);

/* y [T][D] = scale * row tokens[t] of w [V][D] and its adapters. Ids (or positions) were checked by the caller. */
void kh_op_embed(kh_run *run, float *y, const kh_weight *w, const int32_t *tokens, size_t T,
                 float scale);

#endif
