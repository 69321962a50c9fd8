/* Chunks of rows with recompute.
 *
 *     forward    | C | C | C |        each chunk's intermediate values overwrite those of the last
 *     backward   | f b | f b | f b |  computed again where they are needed
 *
 * One more forward buys memory of O(C) in the place of O(L). Chunks ascend in both directions, so an op
 * whose sums continue where the last chunk stopped gives the same bits for any C. */
#include "ops/chunks.h"

#include "base/fail.h"

static kh_status walk(const kh_chunk_op *op, size_t rows, size_t chunk, int back)
{
    if (chunk == 0) chunk = rows;
    for (size_t first = 0, n; first < rows; first += n) {
        n = rows - first < chunk ? rows - first : chunk;
        if (op->forward) KH_TRY(op->forward(op->context, first, n));
        if (back) KH_TRY(op->backward(op->context, first, n));
    }
    return KH_OK;
}

kh_status kh_chunks_forward(const kh_chunk_op *op, size_t rows, size_t chunk)
{
    return walk(op, rows, chunk, 0);
}

kh_status kh_chunks_backward(const kh_chunk_op *op, size_t rows, size_t chunk)
{
    return walk(op, rows, chunk, 1);
}
