/* ff/keep.h: feed-forward top-k inside the forward pass of a model: the setting, and the op. */
#ifndef KH_FF_KEEP_H
#define KH_FF_KEEP_H

#include "ops/weight.h"
#include "run/run.h"

#include <keyhole/attention.h>

/* Which neurons a feed-forward layer uses: one setting for all layers, parsed once. */
typedef struct kh_ff_plan {
    char text[64]; /* verbatim */
    size_t k;      /* 0: all */
    kh_ff_rule rule;
    size_t F;
    float *norms; /* [N][F] of the value vectors, for rule n; else NULL */
} kh_ff_plan;

/* Grammar:  "dense" | "topk:k=K" [ ",rule=" ("g" | "m" | "n") ], the default rule being m. NULL is dense.
 * "rank=" is another word for "rule=". A mistake is KH_ERR_ARGUMENT with a sentence that says what is allowed. */
kh_status kh_ff_plan_parse(kh_ff_plan *out, const char *text);
/* What rule n needs: the columns' norms of the down projections [D][F] of all layers. Nothing for other
 * rules. Free with kh_ff_plan_close. */
kh_status kh_ff_plan_bind(kh_ff_plan *plan, const kh_kern *kern, const kh_weight *const *down,
                          size_t layers);
void kh_ff_plan_close(kh_ff_plan *plan);

/* Bytes of each worker's scratch that kh_op_ff_keep takes. */
size_t kh_ff_keep_scratch(size_t F);
/* y [T][F]: all but the k best of each row become 0. By rule g y is the gate before its activation, by m
 * and n the product act(gate) * up. Ties to the lower index; NaN is never kept. */
void kh_op_ff_keep(kh_run *run, const kh_ff_plan *plan, float *y, size_t T, size_t F, int layer);

#endif
