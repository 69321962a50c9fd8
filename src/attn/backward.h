/* attn/backward.h: the gradients of attention on plain arrays, from what the forward pass saved.
 *
 * Heads whose setting keeps indices and heads whose setting keeps ranges go different ways; both add
 * into dk and dv, which start as zeros, and write dq. Key heads and batch entries are reached through
 * the strides of the arguments. */
#ifndef KH_ATTN_BACKWARD_H
#define KH_ATTN_BACKWARD_H

#include "attn/dropout.h"
#include "attn/method.h"

#include <keyhole/attention.h>

typedef struct kh_attn_back {
    const kh_attention_args *args; /* `saved` as forward left it */
    const kh_attention_gradients *gradients;
    kh_attention_stride q, k, v, out; /* without zeros */
    int wide;                         /* saved indices are uint32_t, not uint16_t */
    size_t saved_batch, saved_head; /* rows from batch entry to entry, and head to head, of saved */
    const kh_attn_layer *layer;
    const kh_attn_plan *plan;
    const kh_attn_drop *drop; /* NULL: none */
    const uint16_t
        *buckets;      /* [span] of layer->bias: T5's bucket of each distance; NULL: not wanted */
    double *drelative; /* [H][bias->buckets] of args, added to; NULL: not wanted */
    const kh_pool *pool;
    const kh_kern *kern;
} kh_attn_back;

/* Query heads [head, head + heads) of one batch entry, which share a key head and a setting. */
typedef struct kh_attn_heads {
    size_t b, g, head, heads;
    const kh_attn_setting *setting;
} kh_attn_heads;

/* The first run of heads (heads 0: before the first) or the next one whose setting is of this kind;
 * 0 when there is none. */
int kh_attn_next_heads(const kh_attn_back *back, enum kh_keys_kind kind, kh_attn_heads *run);

/* The gradients of all heads of one kind. KH_ERR_MEMORY; KH_ERR_ARGUMENT for saved indices that forward
 * cannot have written. The same bits for any number of threads. */
kh_status kh_attn_backward_indices(const kh_attn_back *back);
kh_status kh_attn_backward_ranges(const kh_attn_back *back);

/* The output of all heads that keep indices, from what was saved; gradients are not looked at. The same
 * errors. */
kh_status kh_attn_replay_indices(const kh_attn_back *back, float *out /* as args->out */);

/* Where row t of head h of batch entry b stands in what was saved. */
static inline size_t kh_attn_saved_at(const kh_attn_back *back, size_t b, size_t h, size_t t)
{
    return b * back->saved_batch + h * back->saved_head + t;
}

/* Where row `token` of head `head` finds the bias of key 0 in layer->bias->distances and, head 0, its
 * bucket in `buckets`; keys follow one by one. */
size_t kh_attn_bias_at(const kh_attn_back *back, size_t head, size_t token);

/* The derivatives by scores that were scaled and capped become those by raw ones: d *= scale * (1 -
 * (score / cap)^2), except where d is 0. */
void kh_attn_uncap(float *d /* [n] */, const float *scores /* [n] */, size_t n, float cap,
                   float scale);

#endif
