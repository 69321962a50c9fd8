/* ops/experts.h: a mixture of experts: a router chooses a few feed-forward layers for every row.
 *
 *     p = softmax(W_router h)                    over all experts, in f32
 *     chosen = the `used` largest of p           ties to the lower index
 *     y = sum over chosen e of p_e * down_e(act(gate_e h) * up_e h)     e ascending
 *
 * with `renormalise` the chosen p are divided by their sum (Mixtral's softmax over the chosen is the same).
 * A shared expert is met by every row, times sigmoid(w h) where there is such a w. */
#ifndef KH_OPS_EXPERTS_H
#define KH_OPS_EXPERTS_H

#include "ops/rowwise.h"
#include "ops/weight.h"
#include "run/run.h"

enum { KH_MAX_EXPERTS = 1024, KH_MAX_EXPERTS_USED = 64 };

typedef struct kh_expert_spec {
    int count, used; /* experts, and those that a row meets; count 0: there are none */
    int F, shared_F; /* width of an expert, and of the shared one */
    int renormalise;
    kh_act act;
} kh_expert_spec;

typedef struct kh_expert_weights {
    kh_weight router; /* [count][D]; name NULL: the layer has no experts */
    kh_weight gate, up,
        down; /* [count * F][D], the same, [count * D][F]: experts behind one another */
    kh_weight shared_gate, shared_up, shared_down;
    kh_vector shared_router; /* [D] or absent */
} kh_expert_weights;

/* Called for every expert's rows: before the activation, and between it and the product with down. */
typedef struct kh_expert_hook {
    void (*rows)(void *context, int activated, float *gate /* [rows][F] */, size_t rows, size_t F);
    void *context; /* [bytes], which a record copies */
    size_t bytes;
} kh_expert_hook;

/* Bytes of run->step and of each worker's scratch for T rows. */
void kh_experts_need(const kh_expert_spec *spec, const kh_expert_weights *w, size_t T, size_t D,
                     size_t *step, size_t *scratch);
/* y [T][D] of h [T][D]; y and h do not overlap. With a tape, what spec and w point to lives as long as the pass. */
kh_status kh_op_experts(kh_run *run, const kh_expert_spec *spec, const kh_expert_weights *w,
                        float *y, const float *h, size_t T, size_t D, const kh_expert_hook *hook);

#endif
