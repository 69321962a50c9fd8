/* The arguments of attention on plain arrays: every mistake is a sentence, every zero its default.
 *
 * Data (queries, keys, values) is not looked at: NaN and infinities have a meaning there. Sizes and
 * settings are, because memory and loops follow from them. */
#include "api/attention_args.h"

#include "attn/method.h"
#include "base/alloc.h"
#include "base/fail.h"
#include "cpu/cpu.h"

#include <math.h>

enum { MAX_THREADS = 1024 };

static kh_attention_stride packed(kh_attention_stride s, size_t heads, size_t rows, size_t E)
{
    if (s.batch == 0 && s.head == 0 && s.row == 0)
        s = (kh_attention_stride){heads * rows * E, rows * E, E};
    return s;
}

static kh_status check_shapes(const kh_attention_args *a)
{
    int G = a->key_heads ? a->key_heads : a->heads;
    if (a->batch < 0 || a->heads < 1 || G < 1 || a->heads % G != 0)
        KH_FAIL(
            KH_ERR_ARGUMENT,
            "attention: batch %d, heads %d, key_heads %d: heads must be a multiple of key_heads",
            a->batch, a->heads, a->key_heads);
    if (a->heads > 1 << 16 || a->width < 1 || a->width > 1 << 14)
        KH_FAIL(KH_ERR_ARGUMENT, "attention: %d heads of width %d: at most 65536 and 16384",
                a->heads, a->width);
    if (a->keys < 1 || a->keys > INT32_MAX || a->queries > INT32_MAX)
        KH_FAIL(KH_ERR_ARGUMENT,
                "attention: %zu queries over %zu keys: 1 key is the least, 2^31 - 1 the most",
                a->queries, a->keys);
    return KH_OK;
}

static kh_status check_options(const kh_attention_args *a)
{
    if (a->mask != KH_ATTENTION_CAUSAL && a->mask != KH_ATTENTION_FREE)
        KH_FAIL(KH_ERR_ARGUMENT, "attention: mask %d is neither causal nor free", (int)a->mask);
    if (a->mask == KH_ATTENTION_CAUSAL && a->queries > a->keys)
        KH_FAIL(
            KH_ERR_ARGUMENT,
            "attention: causal queries are the last of the keys' positions: %zu queries do not fit "
            "into %zu",
            a->queries, a->keys);
    if (!(a->scale >= 0) || isinf(a->scale) || !(a->softcap >= 0) || isinf(a->softcap))
        KH_FAIL(KH_ERR_ARGUMENT,
                "attention: scale %g and softcap %g must be finite and not negative",
                (double)a->scale, (double)a->softcap);
    if (a->window < 0 || (a->window > 0 && a->mask == KH_ATTENTION_FREE))
        KH_FAIL(KH_ERR_ARGUMENT,
                "attention: window %d: a window is not negative and needs the causal mask",
                a->window);
    if (!(a->dropout.rate >= 0 && a->dropout.rate < 1))
        KH_FAIL(KH_ERR_ARGUMENT, "attention: dropout rate %g: from 0 to below 1",
                (double)a->dropout.rate);
    const kh_attention_bias *bias = a->bias;
    if (bias && bias->relative &&
        (bias->buckets < 2 || bias->buckets % 2 != 0 || bias->max_distance <= bias->buckets / 2))
        KH_FAIL(
            KH_ERR_ARGUMENT,
            "attention: relative biases of %d buckets up to distance %d: the buckets must be even "
            "and the distance above half of them",
            bias->buckets, bias->max_distance);
    if (a->threads < 0 || a->threads > MAX_THREADS)
        KH_FAIL(KH_ERR_ARGUMENT, "attention: %d threads: 0 .. %d are allowed", a->threads,
                MAX_THREADS);
    return KH_OK;
}

static const kh_attn_setting *setting_of(const kh_attention_call *call, int head)
{
    return kh_attn_plan_at(call->plan, KH_PHASE_PREFILL, 0, head);
}

static size_t most_kept(const kh_attention_call *call)
{
    size_t most = 0, visible = call->args->keys, window = (size_t)call->args->window;
    if (window > 0 && window < visible) visible = window;
    for (int head = 0; head < call->args->heads; head++) {
        const kh_attn_setting *s = setting_of(call, head);
        if (s->method->kind != KH_KEYS_INDICES) continue;
        size_t k = (size_t)s->k < visible ? (size_t)s->k : visible;
        if (k > most) most = k;
    }
    return most;
}

kh_status kh_attention_call_open(kh_attention_call *call, const kh_attention_args *a)
{
    *call = (kh_attention_call){.args = a};
    KH_TRY(check_shapes(a));
    KH_TRY(check_options(a));
    int G = a->key_heads ? a->key_heads : a->heads;
    size_t H = (size_t)a->heads, E = (size_t)a->width;
    call->layer = (kh_attn_layer){.H = a->heads,
                                  .G = G,
                                  .E = a->width,
                                  .scale = a->scale > 0 ? a->scale : 1.0f / sqrtf((float)a->width),
                                  .softcap = a->softcap,
                                  .window = a->window,
                                  .order = a->mask == KH_ATTENTION_FREE ? KH_ATTN_ALL_KEYS
                                                                        : KH_ATTN_CAUSAL};
    call->q = packed(a->q_stride, H, a->queries, E);
    call->k = packed(a->k_stride, (size_t)G, a->keys, E);
    call->v = packed(a->v_stride, (size_t)G, a->keys, E);
    call->out = packed(a->out_stride, H, a->queries, E);
    call->pool.threads = a->threads ? a->threads : kh_cpu_count();
    const kh_attention_dropout *d = &a->dropout;
    if (d->rate > 0) call->drop = kh_attn_drop_make(d->rate, d->seed, d->step, d->layer);
    KH_TRY(kh_attn_plan_parse(&call->plan, a->attn ? a->attn : "full", 1, a->heads));
    if (a->mask == KH_ATTENTION_FREE) KH_TRY(kh_attn_plan_check_all_keys(call->plan, 0, 1));
    call->kept = most_kept(call);
    return KH_OK;
}

/* One row of numbers for each head and one for the keys of a batch entry, in the unit of raw scores. */
kh_status kh_attention_call_expand_bias(kh_attention_call *call)
{
    const kh_attention_args *a = call->args;
    const kh_attention_bias *bias = a->bias;
    int causal = a->mask == KH_ATTENTION_CAUSAL;
    size_t H = (size_t)a->heads, span = a->keys + a->queries - 1;
    if (!bias || a->queries == 0) return KH_OK;
    call->layer.bias = &call->bias;
    call->bias.span = span;
    call->bias.origin = (causal ? a->keys : a->queries) - 1;
    if (bias->relative || bias->slopes) {
        KH_TRY(
            kh_new(&call->distances, H * span, sizeof *call->distances, "the biases of attention"));
        kh_attn_expand_bias(call->distances, bias, H, span, call->bias.origin, !causal,
                            call->layer.scale);
        call->bias.distances = call->distances;
    }
    if (bias->key_mask)
        KH_TRY(kh_new(&call->masked, a->keys, sizeof *call->masked, "the mask of attention"));
    call->bias.keys = call->masked;
    return KH_OK;
}

void kh_attention_call_enter(kh_attention_call *call, size_t b)
{
    const kh_attention_args *a = call->args;
    for (size_t j = 0; call->masked && j < a->keys; j++)
        call->masked[j] = a->bias->key_mask[b * a->keys + j] ? 0.0f : -INFINITY;
}

void kh_attention_call_close(kh_attention_call *call)
{
    kh_free(call->distances);
    kh_free(call->masked);
    kh_attn_plan_free(call->plan);
}

kh_status kh_attention_call_check_arrays(const kh_attention_call *c, const char *what)
{
    const kh_attention_args *a = c->args;
    if (!a->q || !a->k || !a->v || !a->out)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: %s is NULL", what,
                !a->q   ? "q"
                : !a->k ? "k"
                : !a->v ? "v"
                        : "out");
    return KH_OK;
}

kh_status kh_attention_call_check_saved(const kh_attention_call *call)
{
    const kh_attention_saved *s = call->args->saved;
    if (!s) KH_FAIL(KH_ERR_ARGUMENT, "attention: saved is NULL");
    if (s->kept != call->kept)
        KH_FAIL(KH_ERR_ARGUMENT,
                "attention: saved holds %zu entries a row, these shapes and this setting need %zu",
                s->kept, call->kept);
    if (!s->m || !s->u || (s->kept > 0 && (!s->indices || !s->counts)))
        KH_FAIL(KH_ERR_ARGUMENT, "attention: saved %s is NULL",
                !s->m        ? "m"
                : !s->u      ? "u"
                : !s->counts ? "counts"
                             : "indices");
    return KH_OK;
}
