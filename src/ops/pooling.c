/* Pooling: from the rows of a text to one row, and from two texts to the features of their pair.
 *
 * Work is divided into columns, 64 at a time, of each range: a batch may be one long text. Sums run over rows
 * in order, in double. Backward divides it in the same way, and ranges may meet: no two items write the same
 * column of the same row as long as ranges do not overlap, which those of a batch never do. */
#include "ops/pooling.h"

#include "run/tape.h"

#include <string.h>

enum { COLUMNS = 64 };

static size_t blocks(size_t D)
{
    return (D + COLUMNS - 1) / COLUMNS;
}

static size_t block_end(size_t first, size_t D)
{
    return first + COLUMNS < D ? first + COLUMNS : D;
}

/* ---- pooling */

typedef struct pool_job {
    float *y;       /* [count][D]; backward: its twin */
    const float *x; /* [T][D] */
    float *dx;      /* backward: its twin */
    const kh_row_range *ranges;
    size_t count, D;
    kh_pooled how;
} pool_job;

static kh_row_range part_of(const pool_job *j, size_t i)
{
    kh_row_range r = j->ranges[i];
    if (j->how == KH_POOLED_LAST) r.row += r.rows - 1;
    if (j->how != KH_POOLED_MEAN) r.rows = 1;
    return r;
}

static void pool_item(void *context, size_t item, int worker)
{
    const pool_job *j = context;
    size_t i = item / blocks(j->D), first = item % blocks(j->D) * COLUMNS;
    size_t end = block_end(first, j->D);
    kh_row_range r = part_of(j, i);
    double sums[COLUMNS] = {0};
    (void)worker;
    for (size_t t = r.row; t < r.row + r.rows; t++)
        for (size_t c = first; c < end; c++) sums[c - first] += (double)j->x[t * j->D + c];
    for (size_t c = first; c < end; c++)
        j->y[i * j->D + c] = (float)(sums[c - first] / (double)r.rows);
}

static void pool_back_item(void *context, size_t item, int worker)
{
    const pool_job *j = context;
    size_t i = item / blocks(j->D), first = item % blocks(j->D) * COLUMNS;
    size_t end = block_end(first, j->D);
    kh_row_range r = part_of(j, i);
    float *d = j->y + i * j->D;
    (void)worker;
    for (size_t c = first; c < end; c++) d[c] = (float)((double)d[c] / (double)r.rows);
    for (size_t t = r.row; j->dx && t < r.row + r.rows; t++)
        for (size_t c = first; c < end; c++) j->dx[t * j->D + c] += d[c];
    for (size_t c = first; c < end; c++) d[c] = 0;
}

typedef struct pool_record {
    kh_tape_record record;
    pool_job job;
} pool_record;

static kh_status pool_back(kh_run *run, kh_tape_record *any)
{
    pool_job j = ((const pool_record *)(const void *)any)->job;
    j.dx = kh_tape_twin_of(run, j.x);
    j.y = kh_tape_twin_of(run, j.y);
    if (j.y) kh_parallel_for(run->pool, j.count * blocks(j.D), pool_back_item, &j);
    return KH_OK;
}

void kh_op_pool(kh_run *run, float *y, const float *x, const kh_row_range *ranges, size_t count,
                size_t D, kh_pooled how)
{
    pool_job j = {.y = y, .x = x, .ranges = ranges, .count = count, .D = D, .how = how};
    if (count == 0) return;
    kh_parallel_for(run->pool, count * blocks(D), pool_item, &j);
    if (!kh_tape_wants(run)) return;
    pool_record *r = kh_tape_push(run, pool_back, sizeof *r);
    if (!r) return;
    r->job = j;
    r->job.ranges = kh_tape_keep(run, ranges, count * sizeof *ranges);
}

/* ---- pairs */

typedef struct pair_job {
    float *y;        /* [count][parts D]; backward: its twin */
    const float *x;  /* [2 count][D]; backward: as it was, for 4 parts */
    float *dx;       /* backward: its twin */
    const float *of; /* the buffer that x was */
    size_t D, parts, count;
} pair_job;

static void pair_item(void *context, size_t i, int worker)
{
    const pair_job *j = context;
    const float *a = j->x + 2 * i * j->D, *b = a + j->D;
    float *y = j->y + i * j->parts * j->D;
    (void)worker;
    memcpy(y, a, 2 * j->D * sizeof *y);
    for (size_t c = 0; j->parts == 4 && c < j->D; c++) {
        y[2 * j->D + c] = a[c] * b[c];
        y[3 * j->D + c] = a[c] - b[c];
    }
}

static void pair_back_item(void *context, size_t i, int worker)
{
    const pair_job *j = context;
    size_t D = j->D;
    float *d = j->y + i * j->parts * D, *da = j->dx + 2 * i * D, *db = da + D;
    (void)worker;
    for (size_t c = 0; c < D; c++) {
        da[c] += d[c];
        db[c] += d[D + c];
    }
    for (size_t c = 0; j->parts == 4 && c < D; c++) {
        const float *a = j->x + 2 * i * D, *b = a + D;
        da[c] += d[2 * D + c] * b[c] + d[3 * D + c];
        db[c] += d[2 * D + c] * a[c] - d[3 * D + c];
    }
    memset(d, 0, j->parts * D * sizeof *d);
}

typedef struct pair_record {
    kh_tape_record record;
    pair_job job;
} pair_record;

static kh_status pair_back(kh_run *run, kh_tape_record *any)
{
    pair_job j = ((const pair_record *)(const void *)any)->job;
    j.dx = kh_tape_twin_of(run, j.of);
    j.y = kh_tape_twin_of(run, j.y);
    if (j.y && j.dx) kh_parallel_for(run->pool, j.count, pair_back_item, &j);
    return KH_OK;
}

void kh_op_pair(kh_run *run, float *y, const float *x, size_t count, size_t D, size_t parts)
{
    pair_job j = {.y = y, .x = x, .of = x, .D = D, .parts = parts, .count = count};
    if (count == 0) return;
    kh_parallel_for(run->pool, count, pair_item, &j);
    if (!kh_tape_wants(run)) return;
    pair_record *r = kh_tape_push(run, pair_back, sizeof *r);
    if (!r) return;
    r->job = j;
    r->job.x = parts == 4 ? kh_tape_keep(run, x, 2 * count * D * sizeof *x) : NULL;
}
