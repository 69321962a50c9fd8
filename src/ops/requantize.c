/* Rows from type to type, by way of f32.
 *
 *     x: rows of `from` --unpack_f32--> one row of f32 (scratch of the worker) --encode--> y
 *
 * Rows do not know each other, so chunks of rows are items of a parallel loop and the bytes cannot
 * depend on who made them. Nothing may fail inside the loop: an element that the type cannot hold is
 * noted by its chunk, the row becomes zeros, and the first note becomes the sentence afterwards. */
#include "ops/requantize.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "kern/encode_row.h"
#include "ops/unpack.h"

#include <math.h>
#include <string.h>

enum { CHUNK = 1 << 15 }; /* elements, about a millisecond of the slowest type */

typedef struct job {
    uint8_t *y;
    const uint8_t *x;
    kh_encode *encode;
    kh_unpack_f32 *unpack; /* NULL: F32 already */
    float limit;
    size_t rows, n, chunk_rows, x_bytes, y_bytes;
    float *scratch; /* [threads][n] */
    size_t *bad;    /* [chunks]: index of the first element that does not fit, plus one; 0 none */
} job;

/* Index of the first element beyond the limit, or n. A NaN is beyond every limit. */
static size_t first_beyond(const float *x, size_t n, float limit)
{
    int beyond = 0;
    for (size_t i = 0; i < n; i++) beyond |= !(fabsf(x[i]) <= limit);
    if (!beyond) return n;
    size_t i = 0;
    while (fabsf(x[i]) <= limit) i++;
    return i;
}

static void chunk(void *context, size_t item, int worker)
{
    job *j = context;
    size_t first = item * j->chunk_rows, end = first + j->chunk_rows;
    float *row = j->scratch + (size_t)worker * j->n;
    for (size_t r = first; r < end && r < j->rows; r++) {
        uint8_t *y = j->y + r * j->y_bytes;
        if (j->unpack)
            j->unpack(row, j->x + r * j->x_bytes, j->n);
        else
            memcpy(row, j->x + r * j->x_bytes, j->x_bytes);
        size_t beyond = first_beyond(row, j->n, j->limit);
        if (beyond == j->n) {
            j->encode(y, row, j->n);
            continue;
        }
        memset(y, 0, j->y_bytes);
        if (j->bad[item] == 0) j->bad[item] = r * j->n + beyond + 1;
    }
}

static float element(const job *j, size_t index)
{
    float *row = j->scratch;
    const uint8_t *x = j->x + index / j->n * j->x_bytes;
    if (j->unpack)
        j->unpack(row, x, j->n);
    else
        memcpy(row, x, j->x_bytes);
    return row[index % j->n];
}

static kh_status run(const kh_pool *pool, job *j, kh_type to, size_t first_row)
{
    size_t chunks = (j->rows + j->chunk_rows - 1) / j->chunk_rows;
    KH_TRY(kh_new(&j->scratch, (size_t)pool->threads * j->n, sizeof *j->scratch, "rows"));
    KH_TRY(kh_new(&j->bad, chunks, sizeof *j->bad, "rows"));
    kh_parallel_for(pool, chunks, chunk, j);
    for (size_t c = 0; c < chunks; c++) {
        if (j->bad[c] == 0) continue;
        size_t index = j->bad[c] - 1;
        KH_FAIL(KH_ERR_FORMAT,
                "row %zu, element %zu is %g; a finite number of size at most %g can be "
                "written as %s",
                first_row + index / j->n, index % j->n, (double)element(j, index), (double)j->limit,
                kh_type_name(to));
    }
    return KH_OK;
}

kh_status kh_op_requantize(const kh_pool *pool, const kh_kern *kern, void *y, kh_type to,
                           const void *x, kh_type from, size_t rows, size_t n, size_t first_row)
{
    job j = {.y = y,
             .x = x,
             .encode = kh_encode_of(kern->isa, to),
             .unpack = kh_unpack_of(kern, from).f32,
             .limit = kh_encode_limit(to),
             .rows = rows,
             .n = n,
             .chunk_rows = n < CHUNK ? CHUNK / n : 1,
             .x_bytes = kh_type_row_bytes(from, n),
             .y_bytes = kh_type_row_bytes(to, n)};
    if (from == to) {
        memcpy(y, x, rows * j.x_bytes);
        return KH_OK;
    }
    if (!j.encode)
        KH_FAIL(KH_ERR_UNSUPPORTED, "type %s is read, but not written", kh_type_name(to));
    kh_status status = run(pool, &j, to, first_row);
    kh_free(j.scratch);
    kh_free(j.bad);
    return status;
}
