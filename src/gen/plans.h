/* gen/plans.h: the plans that options ask for. */
#ifndef KH_GEN_PLANS_H
#define KH_GEN_PLANS_H

#include "ff/keep.h"
#include "model/network.h"

#include <keyhole/session.h>

/* NULL is "full"; "auto" is what was found for the file. */
kh_status kh_plans_attn(kh_attn_plan **out, const kh_model *model, const char *attn);
/* NULL is "dense". */
kh_status kh_plans_ff(kh_ff_plan **out, const kh_model *model, const kh_kern *kern, const char *ff);
enum kh_compute kh_plans_compute(kh_precision precision);

#endif
