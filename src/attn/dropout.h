/* attn/dropout.h: dropout on the weights of attention, after the softmax.
 *
 * Whether a weight stays is a pure function of (seed, step, layer, head, query row, key position), so
 * forward, backward, any chunking and any thread see the same mask, and none is stored. */
#ifndef KH_ATTN_DROPOUT_H
#define KH_ATTN_DROPOUT_H

#include "base/rng.h"

#include <stddef.h>
#include <stdint.h>

typedef struct kh_attn_drop {
    float gain;     /* 1 / (1 - rate): what a weight that stays is multiplied with */
    uint32_t least; /* rate * 2^32: a weight stays where its 32 bits are at least this */
    kh_rng_key key;
    uint64_t head; /* the number of the run's head 0, over all batch entries */
    size_t row;    /* the query row of the run's row 0 */
} kh_attn_drop;

/* rate in (0, 1). */
kh_attn_drop kh_attn_drop_make(float rate, uint64_t seed, uint64_t step, int layer);

/* One row of weights (or of what the gradient has in their place): those of the keys at positions[i],
 * or at first + i. */
void kh_attn_drop_listed(const kh_attn_drop *drop, size_t head, size_t row,
                         float *weights /* [n] */, const uint32_t *positions /* [n] */, size_t n);
void kh_attn_drop_range(const kh_attn_drop *drop, size_t head, size_t row, float *weights /* [n] */,
                        size_t first, size_t n);

/* The same for one key and many rows, whose bits were taken before. */
uint64_t kh_attn_drop_bits(const kh_attn_drop *drop, size_t head, size_t row);
void kh_attn_drop_column(const kh_attn_drop *drop, const uint64_t *bits,
                         const uint32_t *rows /* [n] */, float *weights /* [n] */, size_t position,
                         size_t n);

#endif
