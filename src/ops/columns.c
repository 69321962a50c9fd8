/* Columns of weights, for those who look: the value vectors of a feed-forward layer are the columns of its down
 * projection, what a head writes are columns of the output projection, and how much each of them gives to a
 * direction u of the residual stream is one product W^T u.
 *
 * A weight lies row by row, in blocks of its type. A product with its transpose is therefore a sum of rows:
 *
 *     y = sum over r of u[r] W[r]          rows 0-63 -> partial 0 | rows 64-127 -> partial 1 | ...
 *
 * Each part of PART rows adds up into its own partial sum, and partial sums are added in their order, so threads
 * change no bit. A row is unpacked once, in f32 with its adapters. One product with each weight of a model costs
 * what decoding a token costs when all weights are f32: it is bound by unpacking.
 *
 * The backward pass has the same product for many rows at once (ops/linear_back.c), on a tape; here there is one
 * vector, and no tape. */
#include "ops/columns.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "ops/lora.h"
#include "ops/unpack.h"

#include <math.h>
#include <string.h>

enum { PART = 64 };

void kh_weight_row(float *out, const kh_weight *w, size_t r, const kh_kern *kern)
{
    const char *at = (const char *)w->data + r * w->row_bytes;
    kh_unpack unpack = kh_unpack_of(kern, w->type);
    if (unpack.f32)
        unpack.f32(out, at, w->cols);
    else
        memcpy(out, at, w->cols * sizeof *out);
    if (w->lora) kh_lora_add_rows(w->lora, out, r, 1, w->cols);
}

/* A row's blocks that hold the columns are unpacked once for all of them. */
void kh_weight_columns(float *out, const kh_weight *w, size_t first, size_t count,
                       const kh_kern *kern, float *wide)
{
    size_t block = kh_type_block(w->type), from = first / block * block;
    size_t end = (first + count + block - 1) / block * block;
    kh_unpack unpack = kh_unpack_of(kern, w->type);
    for (size_t r = 0; r < w->rows; r++) {
        const char *at = (const char *)w->data + r * w->row_bytes;
        const float *row = wide + (first - from);
        if (w->lora) {
            kh_weight_row(wide, w, r, kern);
            row = wide + first;
        } else if (unpack.f32) {
            unpack.f32(wide, at + kh_type_row_bytes(w->type, from), end - from);
        } else {
            memcpy(wide, at + from * sizeof *wide, (end - from) * sizeof *wide);
        }
        for (size_t c = 0; c < count; c++) out[c * w->rows + r] = row[c];
    }
}

void kh_weight_column(float *out, const kh_weight *w, size_t c, const kh_kern *kern, float *wide)
{
    kh_weight_columns(out, w, c, 1, kern, wide);
}

void kh_columns_close(kh_columns *columns)
{
    kh_free(columns->memory);
    *columns = (kh_columns){0};
}

typedef struct job {
    const kh_kern *kern;
    const kh_weight *w;
    const float *u; /* [rows]; NULL: squares */
    float *partial /* [parts][cols] */, *wide /* [threads][cols] */;
} job;

static void part_item(void *context, size_t item, int worker)
{
    const job *j = context;
    size_t n = j->w->cols, end = (item + 1) * PART < j->w->rows ? (item + 1) * PART : j->w->rows;
    float *sum = j->partial + item * n, *row = j->wide + (size_t)worker * n;
    memset(sum, 0, n * sizeof *sum);
    for (size_t r = item * PART; r < end; r++) {
        if (j->u && j->u[r] == 0) continue;
        kh_weight_row(row, j->w, r, j->kern);
        if (j->u)
            for (size_t i = 0; i < n; i++) sum[i] += j->u[r] * row[i];
        else
            for (size_t i = 0; i < n; i++) sum[i] += row[i] * row[i];
    }
}

static kh_status sum_parts(kh_columns *c, float *y, const kh_weight *w, const float *u)
{
    size_t n = w->cols, parts = (w->rows + PART - 1) / PART;
    size_t need = (parts + (size_t)c->pool->threads) * n;
    if (need > c->room) {
        kh_free(c->memory);
        c->memory = NULL;
        c->room = 0;
        KH_TRY(kh_new(&c->memory, need, sizeof *c->memory, "sums of a weight's rows"));
        c->room = need;
    }
    job j = {c->kern, w, u, c->memory, c->memory + parts * n};
    kh_parallel_for(c->pool, parts, part_item, &j);
    memset(y, 0, n * sizeof *y);
    for (size_t p = 0; p < parts; p++)
        for (size_t i = 0; i < n; i++) y[i] += j.partial[p * n + i];
    return KH_OK;
}

kh_status kh_columns_product(kh_columns *columns, float *y, const kh_weight *w, const float *u)
{
    return sum_parts(columns, y, w, u);
}

kh_status kh_columns_norms(kh_columns *columns, float *norms, const kh_weight *w)
{
    KH_TRY(sum_parts(columns, norms, w, NULL));
    for (size_t i = 0; i < w->cols; i++) norms[i] = sqrtf(norms[i]);
    return KH_OK;
}
