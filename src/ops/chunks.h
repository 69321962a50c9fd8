/* ops/chunks.h: an op whose rows know nothing of each other (projections, feed-forward layers, the output
 * and its loss), a chunk of rows at a time: what it keeps between forward and backward is set by the chunk,
 * and what all rows share (gradients of weights) is summed in the order of the rows. */
#ifndef KH_OPS_CHUNKS_H
#define KH_OPS_CHUNKS_H

#include <keyhole/status.h>
#include <stddef.h>

/* Rows [first, first + rows). */
typedef kh_status kh_chunk_body(void *context, size_t first, size_t rows);

/* `backward` finds what `forward` left of the same chunk, and adds to gradients of weights. */
typedef struct kh_chunk_op {
    kh_chunk_body *forward, *backward; /* forward NULL: nothing needs to be computed again */
    void *context;
} kh_chunk_op;

/* forward, chunk by chunk; a failure ends it. chunk 0: all rows at once. */
kh_status kh_chunks_forward(const kh_chunk_op *op, size_t rows, size_t chunk);
/* For each chunk, ascending: forward again, then backward. */
kh_status kh_chunks_backward(const kh_chunk_op *op, size_t rows, size_t chunk);

#endif
