/* ops/rowwise_back.h: the backward halves of the ops on rows (ops/rowwise.h, ops/rope.h): records that these
 * ops leave on a tape. Private to ops/. Each is called before its op runs, where kh_tape_wants(run);
 * kh_record_softcap after it. */
#ifndef KH_OPS_ROWWISE_BACK_H
#define KH_OPS_ROWWISE_BACK_H

#include "ops/rope.h"
#include "ops/rowwise.h"

void kh_record_rmsnorm(kh_run *run, float *y, const float *x, const float *gain, float eps,
                       size_t rows, size_t n);
void kh_record_layernorm(kh_run *run, float *y, const float *x, const float *gain,
                         const float *bias, float eps, size_t rows, size_t n);
void kh_record_add(kh_run *run, float *y, const float *x, size_t rows, size_t n);
void kh_record_bias(kh_run *run, float *y, const float *bias, size_t rows, size_t n);
void kh_record_glu(kh_run *run, float *gate, const float *up, size_t rows, size_t n, kh_act act);
void kh_record_scale(kh_run *run, float *y, float a, size_t rows, size_t n);
void kh_record_softcap(kh_run *run, float *y, float cap, size_t rows, size_t n);
void kh_record_copy(kh_run *run, float *y, const float *x, size_t rows, size_t n);
void kh_record_gather(kh_run *run, float *y, const float *x, const uint32_t *rows, size_t count,
                      size_t n);
void kh_record_embed(kh_run *run, float *y, const kh_weight *w, const int32_t *tokens, size_t T,
                     float scale);
/* The angles live as long as the pass. */
void kh_record_rope(kh_run *run, const kh_rope *rope, float *x, size_t T, size_t heads, size_t E,
                    const float *cosine, const float *sine);

#endif
