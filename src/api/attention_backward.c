/* The gradients of attention on plain arrays: include/keyhole/attention.h over attn/backward.h.
 *
 * Keys and values are read where the caller has them (rows are gathered, or packed a page at a time), so
 * no copy grows with S; dk and dv are the caller's arrays from the first addition on. */
#include <keyhole/attention.h>

#include "api/attention_args.h"
#include "attn/backward.h"
#include "base/fail.h"

#include <string.h>

kh_status kh_attention_kept(const kh_attention_args *args, size_t *kept)
{
    kh_attention_call call;
    kh_status status = kh_attention_call_open(&call, args);
    *kept = status ? 0 : call.kept;
    kh_attention_call_close(&call);
    return status;
}

static kh_status check(const kh_attention_call *c, const kh_attention_gradients *g)
{
    const kh_attention_args *a = c->args;
    KH_TRY(kh_attention_call_check_saved(c));
    if (!a->q || !a->k || !a->v || !a->out || !g->dout)
        KH_FAIL(KH_ERR_ARGUMENT, "attention backward: %s is NULL",
                !a->q     ? "q"
                : !a->k   ? "k"
                : !a->v   ? "v"
                : !a->out ? "out"
                          : "dout");
    if (a->bias)
        KH_FAIL(KH_ERR_ARGUMENT, "attention backward: masks and biases have no gradient yet");
    for (int head = 0; head < a->heads; head++)
        if (kh_attn_plan_at(c->plan, KH_PHASE_PREFILL, 0, head)->tail_mean)
            KH_FAIL(KH_ERR_ARGUMENT,
                    "attention backward: '%s': tail=mean estimates what was dropped and has no "
                    "gradient",
                    a->attn);
    return KH_OK;
}

static void clear(float *x, kh_attention_stride s, size_t batch, size_t heads, size_t rows,
                  size_t E)
{
    for (size_t b = 0; x && b < batch; b++)
        for (size_t h = 0; h < heads; h++)
            for (size_t r = 0; r < rows; r++)
                memset(x + b * s.batch + h * s.head + r * s.row, 0, E * sizeof *x);
}

static kh_status backward(kh_attention_call *c, const kh_attention_args *a,
                          const kh_attention_gradients *g)
{
    KH_TRY(kh_attention_call_open(c, a));
    KH_TRY(check(c, g));
    size_t batch = (size_t)a->batch, G = (size_t)c->layer.G, E = (size_t)a->width;
    clear(g->dk, c->k, batch, G, a->keys, E);
    clear(g->dv, c->v, batch, G, a->keys, E);
    if (a->batch == 0 || a->queries == 0) return KH_OK;
    kh_attn_back back = {.args = a,
                         .gradients = g,
                         .q = c->q,
                         .k = c->k,
                         .v = c->v,
                         .out = c->out,
                         .layer = &c->layer,
                         .plan = c->plan,
                         .drop = a->dropout.rate > 0 ? &c->drop : NULL,
                         .pool = &c->pool,
                         .kern = kh_kern_get(kh_cpu_isa())};
    KH_TRY(kh_attn_backward_indices(&back));
    return kh_attn_backward_ranges(&back);
}

kh_status kh_attention_backward(const kh_attention_args *args,
                                const kh_attention_gradients *gradients)
{
    kh_attention_call call;
    kh_status status = backward(&call, args, gradients);
    kh_attention_call_close(&call);
    return status;
}
