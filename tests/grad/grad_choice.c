/* Cases: ops that choose: neurons of a row, experts of a row. What is chosen does not change within a
 * difference, since candidates lie further apart than that. */
#include "base/fail.h"
#include "ff/keep.h"
#include "grad_cases.h"
#include "ops/experts.h"

enum { ROWS = 70, F = 37 };

/* ---- neurons: magnitudes are steps of 1/F in some order */

static void make_keep(grad_space *s)
{
    grad_new(s, GRAD_BUFFER, "y", ROWS * F);
    float *start = s->arrays[0].start;
    for (size_t i = 0; i < ROWS * F; i++) {
        size_t step = (i % F * 11 + i / F * 5) % F + 1;
        start[i] = (start[i] < 0 ? -1 : 1) * (float)step / F;
    }
}

static kh_status pass_keep(grad_space *s)
{
    kh_ff_plan *plan = NULL;
    int by_gate = s->of->variant;
    KH_TRY(kh_ff_plan_parse(&plan, by_gate ? "topk:k=6,rule=g" : "topk:k=6", 0, 1));
    s->run.ff = plan;
    kh_op_ff_keep(&s->run, by_gate ? KH_FF_STAGE_GATE : KH_FF_STAGE_PRODUCT, s->p[0], ROWS, F, 0);
    s->run.ff = NULL;
    kh_ff_plan_close(plan);
    return KH_OK;
}

/* ---- experts */

enum { RENORMALISE = 1, SHARED = 2, SHARED_ROUTER = 4, HOOK = 8 };
enum { T = 23, D = 13, X = 5, USED = 2, WIDTH = 11, SHARED_WIDTH = 6 };

static void make_experts(grad_space *s)
{
    grad_new(s, GRAD_BUFFER, "h", T * D);
    grad_new(s, GRAD_BUFFER, "y", T * D);
    grad_new(s, GRAD_PARAMETER, "router", X * D);
    grad_new(s, GRAD_PARAMETER, "gate", X * WIDTH * D);
    grad_new(s, GRAD_PARAMETER, "up", X * WIDTH * D);
    grad_new(s, GRAD_PARAMETER, "down", X * D * WIDTH);
    grad_new(s, GRAD_PARAMETER, "shared gate", SHARED_WIDTH * D);
    grad_new(s, GRAD_PARAMETER, "shared up", SHARED_WIDTH * D);
    grad_new(s, GRAD_PARAMETER, "shared down", D * SHARED_WIDTH);
    grad_new(s, GRAD_PARAMETER, "shared router", D);
    s->own = grad_memory(s, sizeof(kh_expert_weights) + sizeof(kh_expert_spec));
}

static kh_weight matrix(const grad_space *s, int array, size_t rows, size_t cols)
{
    return (kh_weight){.name = s->arrays[array].name,
                       .rows = rows,
                       .cols = cols,
                       .row_bytes = cols * sizeof(float),
                       .data = s->p[array]};
}

/* In the place of a top-k; finds its run through the copied context. */
static void halve(void *context, int activated, float *gate, size_t rows, size_t n)
{
    grad_space *const *s = context;
    if (activated) kh_op_scale(&(*s)->run, gate, 0.75f, rows, n);
}

static kh_status pass_experts(grad_space *s)
{
    int v = s->of->variant;
    kh_expert_weights *w = (kh_expert_weights *)(uintptr_t)s->own;
    kh_expert_spec *spec = (kh_expert_spec *)(void *)(w + 1);
    kh_expert_hook hook = {halve, &s, sizeof s};
    *spec = (kh_expert_spec){
        .count = X, .used = USED, .F = WIDTH, .renormalise = v & RENORMALISE, .act = KH_ACT_SILU};
    *w = (kh_expert_weights){.router = matrix(s, 2, X, D),
                             .gate = matrix(s, 3, X * WIDTH, D),
                             .up = matrix(s, 4, X * WIDTH, D),
                             .down = matrix(s, 5, X * D, WIDTH)};
    if (v & SHARED) {
        spec->shared_F = SHARED_WIDTH;
        w->shared_gate = matrix(s, 6, SHARED_WIDTH, D);
        w->shared_up = matrix(s, 7, SHARED_WIDTH, D);
        w->shared_down = matrix(s, 8, D, SHARED_WIDTH);
    }
    if (v & SHARED_ROUTER) w->shared_router = (kh_vector){s->p[9], D};
    return kh_op_experts(&s->run, spec, w, s->p[1], s->p[0], T, D, v & HOOK ? &hook : NULL);
}

const grad_case grad_choice_cases[] = {
    {"keep by magnitude", make_keep, pass_keep, 0, 1},
    {"keep by gate", make_keep, pass_keep, 1, 1},
    {"experts", make_experts, pass_experts, 0, 1},
    {"experts, renormalised", make_experts, pass_experts, RENORMALISE, 1},
    {"experts, a shared one", make_experts, pass_experts, RENORMALISE | SHARED, 1},
    {"experts, a shared one by share", make_experts, pass_experts, SHARED | SHARED_ROUTER, 1},
    {"experts with a hook", make_experts, pass_experts, RENORMALISE | HOOK, 1},
    {0}};
