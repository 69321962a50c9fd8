/* attn/bias.h: what is added to scores before selection: masks of keys and biases by distance.
 *
 * Both are made additive in the unit of raw scores q.k, so the scorer adds a row of numbers and no
 * method knows. A masked key has -INFINITY, which no method keeps. */
#ifndef KH_ATTN_BIAS_H
#define KH_ATTN_BIAS_H

#include <keyhole/attention.h>
#include <stddef.h>

/* Borrowed by kh_attn_layer for the length of a call. Distances are key minus query position, from
 * -origin to span - 1 - origin. */
typedef struct kh_attn_bias {
    const float *keys;      /* [S] 0 or -INFINITY; NULL: all are seen */
    const float *distances; /* [H][span] bias / scale; NULL: none */
    size_t span, origin;
    const kh_attention_bias *from; /* what distances were made of; NULL: no gradient is wanted */
    const float *stored;           /* [buckets][H] the weights whose transpose is from->relative */
} kh_attn_bias;

/* T5's bucket of a distance (key minus query): exact up to a half of a side's buckets, then logarithmic
 * up to max_distance. Bidirectional: the upper half of the buckets is for later keys; otherwise those
 * share bucket 0. */
size_t kh_attn_relative_bucket(long distance, int bidirectional, size_t buckets,
                               size_t max_distance);

/* Fills `out` [H][span] for distances -origin .. span - 1 - origin from a caller's bias. */
void kh_attn_expand_bias(float *out, const kh_attention_bias *bias, size_t H, size_t span,
                         size_t origin, int bidirectional, float scale);

#endif
