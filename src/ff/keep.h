/* ff/keep.h: feed-forward top-k inside the forward pass of a model: the setting, and the op. */
#ifndef KH_FF_KEEP_H
#define KH_FF_KEEP_H

#include "ops/weight.h"
#include "run/run.h"

#include <keyhole/attention.h>

/* What one layer keeps. */
typedef struct kh_ff_setting {
    size_t k; /* 0: all neurons */
    kh_ff_rule rule;
} kh_ff_setting;

/* Which neurons the feed-forward layers use: parsed once. */
typedef struct kh_ff_plan kh_ff_plan;

/* Grammar:  that of run/rules.h without PHASED and HEADS; STACK is "encoder=" or "decoder="
 *           SETTING := "dense" | "topk:k=K" [ ",rule=" ("g" | "m" | "n") ], the default rule being m
 * "rank=" is another word for "rule="; layers that no rule names are dense. A model has `encoder` layers (0: none) and
 * `layers` behind them, which is their order in the plan. A mistake is KH_ERR_ARGUMENT with a sentence that says what is
 * allowed. */
kh_status kh_ff_plan_parse(kh_ff_plan **out, const char *text, int encoder, int layers);
/* What rule n needs: the columns' norms of the down projections [D][F] of those layers that have it; `down` is one of
 * each layer of the plan and must outlive it. KH_ERR_UNSUPPORTED where such a layer has none. */
kh_status kh_ff_plan_bind(kh_ff_plan *plan, const kh_kern *kern, const kh_weight *const *down);
/* Norms of the weights as they are now: before each pass over weights that are trained. */
void kh_ff_plan_update(kh_ff_plan *plan, const kh_kern *kern);
void kh_ff_plan_close(kh_ff_plan *plan);

const char *kh_ff_plan_text(const kh_ff_plan *plan); /* verbatim */
kh_ff_setting kh_ff_plan_at(const kh_ff_plan *plan, int layer);
/* 1: every layer keeps all neurons. */
int kh_ff_plan_is_dense(const kh_ff_plan *plan);

/* Bytes of each worker's scratch that kh_op_ff_keep takes. */
size_t kh_ff_keep_scratch(size_t F);

/* What y is: the gate before its activation, which rule g ranks by, or the product act(gate) * up, which the
 * others rank by. */
enum kh_ff_stage { KH_FF_STAGE_GATE, KH_FF_STAGE_PRODUCT };
/* y [T][F]: all but the k best of each row become 0, if the layer's rule ranks by what y is; else nothing happens, as
 * where run->ff is NULL. Ties to the lower index; NaN is never kept. */
void kh_op_ff_keep(kh_run *run, enum kh_ff_stage stage, float *y, size_t T, size_t F, int layer);

#endif
