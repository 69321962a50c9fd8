/* ops/lora_back.h: the backward half of what adapters add to a product. Private to ops/. */
#ifndef KH_OPS_LORA_BACK_H
#define KH_OPS_LORA_BACK_H

#include "ops/weight.h"
#include "run/run.h"

/* 1 where an adapter of the weight is trained. */
int kh_lora_is_trained(const kh_run *run, const kh_weight *w);
/* From dy [T][rows], of y = W x + sum of scale * B (A x): adds to dx [T][cols] (NULL: not wanted) and to the
 * gradients of A and B. x [T][cols] may be NULL where none is trained. */
kh_status kh_lora_back(kh_run *run, const kh_weight *w, const float *dy, const float *x, float *dx,
                       size_t T);

#endif
