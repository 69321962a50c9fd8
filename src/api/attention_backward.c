/* The gradients of attention on plain arrays, and its output once more: include/keyhole/attention.h over
 * attn/backward.h.
 *
 * Keys and values are read where the caller has them (rows are gathered, or packed a page at a time), so
 * no copy grows with S; dk and dv are the caller's arrays from the first addition on. */
#include <keyhole/attention.h>

#include "api/attention_args.h"
#include "attn/backward.h"
#include "base/alloc.h"
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

/* What was saved says nothing of the estimate of the rest. */
static kh_status check_tail(const kh_attention_call *c)
{
    for (int head = 0; head < c->args->heads; head++)
        if (kh_attn_plan_at(c->plan, KH_PHASE_PREFILL, 0, head)->tail_mean)
            KH_FAIL(KH_ERR_ARGUMENT,
                    "attention backward: '%s': tail=mean estimates what was dropped and has no "
                    "gradient",
                    c->args->attn);
    return KH_OK;
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
    if (g->drelative && !(a->bias && a->bias->relative))
        KH_FAIL(KH_ERR_ARGUMENT, "attention backward: drelative without bias->relative");
    return check_tail(c);
}

static void clear(float *x, kh_attention_stride s, size_t batch, size_t heads, size_t rows,
                  size_t E)
{
    for (size_t b = 0; x && b < batch; b++)
        for (size_t h = 0; h < heads; h++)
            for (size_t r = 0; r < rows; r++)
                memset(x + b * s.batch + h * s.head + r * s.row, 0, E * sizeof *x);
}

/* The gradient of the table of relative biases is summed in double, over heads and batch entries. */
typedef struct relative {
    uint16_t *buckets; /* [span] */
    double *sums;      /* [H][buckets] */
} relative;

static kh_status open_relative(relative *r, const kh_attention_call *c)
{
    const kh_attention_args *a = c->args;
    size_t span = c->bias.span, n = (size_t)a->bias->buckets;
    KH_TRY(kh_new(&r->buckets, span, sizeof *r->buckets, "the buckets of attention backward"));
    KH_TRY(kh_new(&r->sums, (size_t)a->heads * n, sizeof *r->sums,
                  "the biases of attention backward"));
    for (size_t i = 0; i < span; i++)
        r->buckets[i] = (uint16_t)kh_attn_relative_bucket((long)i - (long)c->bias.origin,
                                                          a->mask == KH_ATTENTION_FREE, n,
                                                          (size_t)a->bias->max_distance);
    return KH_OK;
}

static kh_attn_back back_of(const kh_attention_call *c, const kh_attention_gradients *g)
{
    return (kh_attn_back){.args = c->args,
                          .gradients = g,
                          .q = c->q,
                          .k = c->k,
                          .v = c->v,
                          .out = c->out,
                          .wide = kh_attention_wide(c->args),
                          .saved_batch = (size_t)c->layer.H * c->args->queries,
                          .saved_head = c->args->queries,
                          .layer = &c->layer,
                          .plan = c->plan,
                          .drop = c->args->dropout.rate > 0 ? &c->drop : NULL,
                          .pool = &c->pool,
                          .kern = kh_kern_get(kh_cpu_isa())};
}

static kh_status backward(kh_attention_call *c, const kh_attention_args *a,
                          const kh_attention_gradients *g, relative *r)
{
    KH_TRY(kh_attention_call_open(c, a));
    KH_TRY(check(c, g));
    size_t batch = (size_t)a->batch, G = (size_t)c->layer.G, E = (size_t)a->width;
    size_t biases = g->drelative ? (size_t)a->heads * (size_t)a->bias->buckets : 0;
    clear(g->dk, c->k, batch, G, a->keys, E);
    clear(g->dv, c->v, batch, G, a->keys, E);
    for (size_t i = 0; i < biases; i++) g->drelative[i] = 0;
    if (a->batch == 0 || a->queries == 0) return KH_OK;
    KH_TRY(kh_attention_call_expand_bias(c));
    if (g->drelative) KH_TRY(open_relative(r, c));
    kh_attn_back back = back_of(c, g);
    back.buckets = r->buckets;
    back.drelative = r->sums;
    KH_TRY(kh_attn_backward_indices(&back));
    KH_TRY(kh_attn_backward_ranges(&back));
    /* what was summed are derivatives by raw scores; biases are added to scaled ones */
    for (size_t i = 0; i < biases; i++)
        g->drelative[i] = (float)(r->sums[i] / (double)c->layer.scale);
    return KH_OK;
}

kh_status kh_attention_backward(const kh_attention_args *args,
                                const kh_attention_gradients *gradients)
{
    kh_attention_call call;
    relative r = {0};
    kh_status status = backward(&call, args, gradients, &r);
    kh_free(r.buckets);
    kh_free(r.sums);
    kh_attention_call_close(&call);
    return status;
}

/* ---- the output once more ---- */

static int all_keep_indices(const kh_attention_call *c)
{
    for (int head = 0; head < c->args->heads; head++)
        if (kh_attn_plan_at(c->plan, KH_PHASE_PREFILL, 0, head)->method->kind != KH_KEYS_INDICES)
            return 0;
    return 1;
}

static kh_status replay(kh_attention_call *c, const kh_attention_args *a)
{
    KH_TRY(kh_attention_call_open(c, a));
    KH_TRY(kh_attention_call_check_saved(c));
    KH_TRY(check_tail(c));
    KH_TRY(kh_attention_call_check_arrays(c, "attention replay"));
    if (a->batch == 0 || a->queries == 0) return KH_OK;
    if (!all_keep_indices(c)) {
        kh_attention_args again = *a;
        again.saved = NULL;
        again.stats = NULL;
        return kh_attention_forward(&again);
    }
    KH_TRY(kh_attention_call_expand_bias(c));
    kh_attn_back back = back_of(c, NULL);
    return kh_attn_replay_indices(&back, a->out);
}

kh_status kh_attention_replay(const kh_attention_args *args)
{
    kh_attention_call call;
    kh_status status = replay(&call, args);
    kh_attention_call_close(&call);
    return status;
}
