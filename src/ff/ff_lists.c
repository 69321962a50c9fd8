/* Sparse products of a chunk of rows with the neurons that each row keeps.
 *
 * One weight is cut twice, into blocks of 1,024 neurons and panels of 64 columns:
 *
 *               columns
 *     neurons   | p 0 | p 1 | ...        a block's panel is copied to 256 KiB of its own, then every row
 *      block 0  |#####|     |            of the chunk meets it: rows of a weight are a multiple of 64
 *      block 1  |     |     |            bytes apart, and in place would share few sets of a cache
 *
 * A row's entries of a block are a run of its list, because indices ascend; `begin` says where each run
 * starts. Products with a row (dots) are items of one block; sums over neurons (mix) are items of one
 * panel, blocks in order. So every number has one writer and one order of rounding, whatever the threads
 * and the chunk.
 *
 * Blocks of 512 neurons are a tenth slower (shorter runs); 2,048 are up to 5 % faster with a second cache of a
 * megabyte, half of which their panel fills: too large for others.
 * Rejected: gathering whole rows of the weight for one token after the other, which reads all of them
 * from memory for each token (3 to 4 times the time at 16,384 neurons). */
#include "base/fail.h"
#include "ff/ff.h"

#include <string.h>

enum {
    CUT_ROWS = 64,
    AHEAD = 8 /* rows whose columns are asked for early: they lie in pages of their own */
};

void kh_ff_copy_panel(float *panel, const float *w, size_t rows, size_t D, size_t p)
{
    size_t from = p * KH_FF_PANEL, n = D - from < KH_FF_PANEL ? D - from : KH_FF_PANEL;
    for (size_t r = 0; r < rows; r++, panel += KH_FF_PANEL) {
        const float *row = w + r * D + from;
        for (size_t c = 0; c < n; c += 16) __builtin_prefetch(row + AHEAD * D + c, 0, 3);
        if (n == KH_FF_PANEL) {
            memcpy(panel, row, KH_FF_PANEL * sizeof *panel);
        } else {
            memcpy(panel, row, n * sizeof *panel);
            memset(panel + n, 0, (KH_FF_PANEL - n) * sizeof *panel);
        }
    }
}

void kh_ff_copy_back(float *w, const float *panel, size_t rows, size_t D, size_t p)
{
    size_t from = p * KH_FF_PANEL, n = D - from < KH_FF_PANEL ? D - from : KH_FF_PANEL;
    for (size_t r = 0; r < rows; r++, panel += KH_FF_PANEL) {
        float *row = w + r * D + from;
        for (size_t c = 0; c < n; c += 16) __builtin_prefetch(row + AHEAD * D + c, 1, 3);
        memcpy(row, panel, n * sizeof *row);
    }
}

/* ---- where a row's entries of a block begin ---- */

typedef struct cut_job {
    kh_ff_work *work;
    const uint32_t *counts;
    uint32_t *wrong; /* [items] 1 + the first row whose list is no list */
} cut_job;

/* Nonzero unless the indices ascend and stay below F. */
static int cut_row(const kh_ff_work *w, size_t t, size_t n)
{
    size_t k = w->args->k, F = w->args->hidden, blocks = kh_ff_blocks(w->args), b = 0;
    if (n > k) return 1;
    const uint32_t *list = w->indices + t * k;
    for (size_t i = 0; i < n; i++) {
        if (list[i] >= F || (i > 0 && list[i] <= list[i - 1])) return 1;
        for (; b <= list[i] / KH_FF_BLOCK; b++) w->begin[b * w->T + t] = (uint32_t)(t * k + i);
    }
    for (; b <= blocks; b++) w->begin[b * w->T + t] = (uint32_t)(t * k + n);
    return 0;
}

static void cut_item(void *context, size_t item, int worker)
{
    const cut_job *j = context;
    (void)worker;
    j->wrong[item] = 0;
    for (size_t t = item * CUT_ROWS; t < (item + 1) * CUT_ROWS && t < j->work->T; t++)
        if (cut_row(j->work, t, j->counts[t]) && !j->wrong[item]) j->wrong[item] = (uint32_t)t + 1;
}

kh_status kh_ff_cut(kh_ff_work *w, const uint32_t *counts)
{
    size_t items = (w->T + CUT_ROWS - 1) / CUT_ROWS;
    cut_job j = {.work = w, .counts = counts};
    kh_arena_mark mark = kh_arena_save(&w->step);
    KH_TRY(kh_arena_new(&w->step, &j.wrong, items, sizeof *j.wrong));
    kh_parallel_for(&w->pool, items, cut_item, &j);
    size_t row = 0;
    for (size_t i = 0; i < items && row == 0; i++) row = j.wrong[i];
    kh_arena_rewind(&w->step, mark);
    if (row > 0)
        KH_FAIL(KH_ERR_ARGUMENT,
                "feed-forward: row %zu of the indices is no ascending list of at most %zu neurons "
                "below %zu",
                w->first + row - 1, w->args->k, w->args->hidden);
    return KH_OK;
}

/* ---- rows as panels ---- */

typedef struct rows_job {
    const kh_ff_work *work;
    float *panels;
    const float *x;
} rows_job;

static void rows_item(void *context, size_t p, int worker)
{
    const rows_job *j = context;
    (void)worker;
    kh_ff_copy_panel(j->panels + p * j->work->T * KH_FF_PANEL, j->x, j->work->T,
                     j->work->args->width, p);
}

void kh_ff_rows_to_panels(kh_ff_work *w, float *panels, const float *x)
{
    kh_parallel_for(&w->pool, kh_ff_panels(w->args), rows_item, &(rows_job){w, panels, x});
}

/* ---- products ---- */

typedef struct pairs_job {
    const kh_ff_work *work;
    const kh_ff_pair *pairs;
    size_t count;
    float *y;
    const float *bias;
} pairs_job;

static size_t block_rows(const kh_ff_args *a, size_t b)
{
    size_t left = a->hidden - b * KH_FF_BLOCK;
    return left < KH_FF_BLOCK ? left : KH_FF_BLOCK;
}

static void dots_item(void *context, size_t b, int worker)
{
    const pairs_job *j = context;
    const kh_ff_work *w = j->work;
    const kh_ff_args *a = w->args;
    size_t D = a->width, T = w->T, n = block_rows(a, b);
    const uint32_t *begin = w->begin + b * T, *end = begin + T;
    kh_arena_mark mark = kh_arena_save(&w->scratch[worker]);
    float *panel = kh_arena_take(&w->scratch[worker], KH_FF_BLOCK * KH_FF_PANEL * sizeof *panel);
    for (size_t i = 0; i < j->count; i++) {
        const kh_ff_pair *pair = &j->pairs[i];
        for (size_t t = 0; t < T; t++)
            memset(pair->entries + begin[t], 0, (end[t] - begin[t]) * sizeof(float));
        for (size_t p = 0; p < kh_ff_panels(a); p++) {
            kh_ff_copy_panel(panel, pair->w + b * KH_FF_BLOCK * D, n, D, p);
            w->kern->listed_dot(pair->entries, pair->rows + p * T * KH_FF_PANEL, w->indices, begin,
                                end, T, panel, (uint32_t)(b * KH_FF_BLOCK));
        }
    }
    kh_arena_rewind(&w->scratch[worker], mark);
}

void kh_ff_dots(kh_ff_work *w, const kh_ff_pair *pairs, size_t count)
{
    pairs_job j = {.work = w, .pairs = pairs, .count = count};
    kh_parallel_for(&w->pool, kh_ff_blocks(w->args), dots_item, &j);
}

static void mix_item(void *context, size_t p, int worker)
{
    const pairs_job *j = context;
    const kh_ff_work *w = j->work;
    const kh_ff_args *a = w->args;
    size_t D = a->width, T = w->T, from = p * KH_FF_PANEL;
    size_t cols = D - from < KH_FF_PANEL ? D - from : KH_FF_PANEL;
    kh_arena_mark mark = kh_arena_save(&w->scratch[worker]);
    float *panel = kh_arena_take(&w->scratch[worker], KH_FF_BLOCK * KH_FF_PANEL * sizeof *panel);
    float *out = kh_arena_take(&w->scratch[worker], T * KH_FF_PANEL * sizeof *out);
    memset(out, 0, T * KH_FF_PANEL * sizeof *out);
    for (size_t b = 0; b < kh_ff_blocks(a); b++)
        for (size_t i = 0; i < j->count; i++) {
            const kh_ff_pair *pair = &j->pairs[i];
            kh_ff_copy_panel(panel, pair->w + b * KH_FF_BLOCK * D, block_rows(a, b), D, p);
            w->kern->listed_mix(out, pair->entries, w->indices, w->begin + b * T,
                                w->begin + (b + 1) * T, T, panel, (uint32_t)(b * KH_FF_BLOCK));
        }
    for (size_t t = 0; t < T; t++) {
        float *y = j->y + t * D + from;
        memcpy(y, out + t * KH_FF_PANEL, cols * sizeof *y);
        for (size_t c = 0; j->bias && c < cols; c++) y[c] += j->bias[from + c];
    }
    kh_arena_rewind(&w->scratch[worker], mark);
}

void kh_ff_mix(kh_ff_work *w, float *y, const float *bias, const kh_ff_pair *pairs, size_t count)
{
    pairs_job j = {.work = w, .pairs = pairs, .count = count, .y = y, .bias = bias};
    kh_parallel_for(&w->pool, kh_ff_panels(w->args), mix_item, &j);
}

size_t kh_ff_lists_scratch(const kh_ff_args *a, size_t T)
{
    (void)a;
    return kh_arena_need(KH_FF_BLOCK * KH_FF_PANEL * sizeof(float)) +
           kh_arena_need(T * KH_FF_PANEL * sizeof(float));
}
