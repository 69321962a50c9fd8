/* api/attention_args.h: a call of attention on plain arrays, checked and with its defaults filled in;
 * what the forward and the backward pass share. */
#ifndef KH_API_ATTENTION_ARGS_H
#define KH_API_ATTENTION_ARGS_H

#include "attn/attn.h"
#include "attn/bias.h"
#include "attn/dropout.h"

#include <keyhole/attention.h>

typedef struct kh_attention_call {
    const kh_attention_args *args;
    kh_attention_stride q, k, v, out; /* no zeros */
    kh_attn_layer layer;
    kh_attn_plan *plan;
    kh_attn_drop drop; /* used where args->dropout.rate > 0 */
    kh_pool pool;
    size_t kept;       /* K of kh_attention_saved */
    kh_attn_bias bias; /* what layer.bias points to where args->bias is given */
    float *distances, *masked;
} kh_attention_call;

/* KH_ERR_ARGUMENT with a sentence; close it in any case. */
kh_status kh_attention_call_open(kh_attention_call *call, const kh_attention_args *args);
void kh_attention_call_close(kh_attention_call *call);
/* Makes args->bias additive; a mask is that of batch entry b after kh_attention_call_enter. */
kh_status kh_attention_call_expand_bias(kh_attention_call *call);
void kh_attention_call_enter(kh_attention_call *call, size_t b);
/* q, k, v and out are there; `what` begins the sentence. */
kh_status kh_attention_call_check_arrays(const kh_attention_call *call, const char *what);
/* The arrays of args->saved are there, and of the size that this call needs. */
kh_status kh_attention_call_check_saved(const kh_attention_call *call);

/* Indices of kept keys take 32 bits. */
static inline int kh_attention_wide(const kh_attention_args *args)
{
    return args->keys > 65536;
}

#endif
