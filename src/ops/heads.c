/* Projections to and from heads, and their gradients, with the kernels of prompts and of attention.
 *
 *     split  panels [heads][E / 16][D][16]     rows of w turned into lanes; products of D
 *     join   panels [D / 16][heads E][16]      columns of w as they lie: one chain over all heads
 *     both   items of 48 rows, packed into tiles of 12 in the worker's scratch (kern/product_body.h)
 *     grad   x as panels of 64 columns [D / 64][T][64], rows as [heads][E][T]; an item is a head and a
 *            panel, whose sums continue in dw: T ascending, 64 rows of a panel (16 KiB, the nearest
 *            cache) at a time, chunk after chunk
 *
 * Every number has one writer and one order of rounding, so neither threads nor chunks change a bit. */
#include "ops/heads.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "kern/panel.h"

#include <string.h>

enum { ROWS = 48, ELEMENTS = 64, COLUMNS = 64, LANES = KH_PANEL_ROWS, STEP = 64 };

/* Rows of `turned` are this far apart: never a power of two, which would share few sets of the cache. */
static size_t turned_row(size_t T)
{
    return (T + LANES - 1) / LANES * LANES + LANES;
}

typedef struct job {
    kh_heads *work;
    const kh_head *heads;
    size_t count, T;
    const float *x;
    float *y;
} job;

static size_t up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* ---- memory ---- */

kh_status kh_heads_open(kh_heads *w, const kh_pool *pool, const kh_kern *kern, size_t D, size_t E,
                        size_t rows, size_t most)
{
    *w = (kh_heads){.pool = pool, .kern = kern, .D = D, .E = E, .rows = rows, .most = most};
    size_t panels = larger(most * up(E, LANES) * D, most * E * up(D, LANES));
    panels = larger(panels, rows * D);
    size_t turned = most * E * turned_row(rows), tiles = ROWS * larger(D, most * E);
    KH_TRY(kh_arena_init(&w->shared, "projections",
                         kh_arena_need(panels * sizeof(float)) +
                             kh_arena_need(turned * sizeof(float))));
    KH_TRY(kh_arena_new(&w->shared, &w->panels, panels, sizeof *w->panels));
    KH_TRY(kh_arena_new(&w->shared, &w->turned, turned, sizeof *w->turned));
    KH_TRY(kh_new(&w->scratch, (size_t)pool->threads, sizeof *w->scratch,
                  "the threads of projections"));
    for (int i = 0; i < pool->threads; i++)
        KH_TRY(kh_arena_init(&w->scratch[i], "projection scratch",
                             kh_arena_need(tiles * sizeof(float))));
    return KH_OK;
}

void kh_heads_close(kh_heads *w)
{
    for (int i = 0; w->scratch && i < w->pool->threads; i++) kh_arena_free(&w->scratch[i]);
    kh_arena_free(&w->shared);
    kh_free(w->scratch);
    w->scratch = NULL;
}

/* ---- split ---- */

static void split_panels_item(void *context, size_t item, int worker)
{
    const job *j = context;
    const kh_heads *w = j->work;
    size_t blocks = up(w->E, LANES) / LANES, head = item / blocks, e = item % blocks * LANES;
    (void)worker;
    w->kern->product_pack(w->panels + item * LANES * w->D, LANES, j->heads[head].w + e * w->D,
                          w->E - e < LANES ? w->E - e : LANES, w->D);
}

static void split_item(void *context, size_t item, int worker)
{
    const job *j = context;
    const kh_heads *w = j->work;
    size_t D = w->D, E = w->E, row = item * ROWS, rows = j->T - row < ROWS ? j->T - row : ROWS;
    kh_arena_mark mark = kh_arena_save(&w->scratch[worker]);
    float *tiles = kh_arena_take(&w->scratch[worker], ROWS * D * sizeof *tiles);
    for (size_t t = 0; t < rows; t += KH_PRODUCT_TILE)
        w->kern->product_pack(tiles + t * D, KH_PRODUCT_TILE, j->x + (row + t) * D,
                              rows - t < KH_PRODUCT_TILE ? rows - t : KH_PRODUCT_TILE, D);
    for (size_t h = 0; h < j->count; h++)
        w->kern->product_gemm(j->heads[h].rows + row * E, E, w->panels + h * up(E, LANES) * D, E,
                              tiles, rows, D);
    kh_arena_rewind(&w->scratch[worker], mark);
}

void kh_heads_split(kh_heads *w, const kh_head *heads, size_t count, const float *x, size_t T)
{
    job j = {.work = w, .heads = heads, .count = count, .T = T, .x = x};
    kh_parallel_for(w->pool, count * (up(w->E, LANES) / LANES), split_panels_item, &j);
    kh_parallel_for(w->pool, (T + ROWS - 1) / ROWS, split_item, &j);
}

/* ---- join ---- */

static void join_panels_item(void *context, size_t item, int worker)
{
    const job *j = context;
    const kh_heads *w = j->work;
    size_t D = w->D, from = item * LANES, n = D - from < LANES ? D - from : LANES;
    float *to = w->panels + from * j->count * w->E;
    (void)worker;
    for (size_t h = 0; h < j->count; h++)
        for (size_t e = 0; e < w->E; e++, to += LANES) {
            memcpy(to, j->heads[h].w + e * D + from, n * sizeof *to);
            memset(to + n, 0, (LANES - n) * sizeof *to);
        }
}

static void join_item(void *context, size_t item, int worker)
{
    const job *j = context;
    const kh_heads *w = j->work;
    size_t E = w->E, n = j->count * E, row = item * ROWS;
    size_t rows = j->T - row < ROWS ? j->T - row : ROWS;
    kh_arena_mark mark = kh_arena_save(&w->scratch[worker]);
    float *tiles = kh_arena_take(&w->scratch[worker], ROWS * n * sizeof *tiles);
    for (size_t t = 0; t < rows; t += KH_PRODUCT_TILE)
        for (size_t h = 0; h < j->count; h++)
            w->kern->product_pack(tiles + t * n + h * E * KH_PRODUCT_TILE, KH_PRODUCT_TILE,
                                  j->heads[h].rows + (row + t) * E,
                                  rows - t < KH_PRODUCT_TILE ? rows - t : KH_PRODUCT_TILE, E);
    w->kern->product_gemm(j->y + row * w->D, w->D, w->panels, w->D, tiles, rows, n);
    kh_arena_rewind(&w->scratch[worker], mark);
}

void kh_heads_join(kh_heads *w, float *x, const kh_head *heads, size_t count, size_t T)
{
    job j = {.work = w, .heads = heads, .count = count, .T = T, .y = x};
    kh_parallel_for(w->pool, (w->D + LANES - 1) / LANES, join_panels_item, &j);
    kh_parallel_for(w->pool, (T + ROWS - 1) / ROWS, join_item, &j);
}

/* ---- gradients ---- */

static size_t columns_of(const kh_heads *w, size_t p)
{
    return w->D - p * COLUMNS < COLUMNS ? w->D - p * COLUMNS : COLUMNS;
}

/* The last panel is as wide as what is left. */
static void columns_item(void *context, size_t p, int worker)
{
    const job *j = context;
    const kh_heads *w = j->work;
    size_t n = columns_of(w, p);
    float *to = w->panels + p * COLUMNS * j->T;
    (void)worker;
    for (size_t t = 0; t < j->T; t++)
        memcpy(to + t * n, j->x + t * w->D + p * COLUMNS, n * sizeof *to);
}

static void turn_item(void *context, size_t h, int worker)
{
    const job *j = context;
    const kh_heads *w = j->work;
    (void)worker;
    w->kern->product_pack(w->turned + h * w->E * turned_row(j->T), turned_row(j->T),
                          j->heads[h].rows, j->T, w->E);
}

static void grad_item(void *context, size_t item, int worker)
{
    const job *j = context;
    const kh_heads *w = j->work;
    size_t panels = (w->D + COLUMNS - 1) / COLUMNS, h = item / panels, p = item % panels;
    size_t columns = columns_of(w, p), row = turned_row(j->T);
    float ones[ELEMENTS];
    (void)worker;
    for (size_t i = 0; i < ELEMENTS; i++) ones[i] = 1.0f;
    for (size_t e = 0; e < w->E; e += ELEMENTS)
        for (size_t t = 0; t < j->T; t += STEP)
            w->kern->mix_rows(j->heads[h].dw + e * w->D + p * COLUMNS, w->D, ones,
                              w->turned + (h * w->E + e) * row + t, row,
                              w->E - e < ELEMENTS ? w->E - e : ELEMENTS,
                              w->panels + p * COLUMNS * j->T + t * columns,
                              j->T - t < STEP ? j->T - t : STEP, columns);
}

void kh_heads_grad(kh_heads *w, const kh_head *heads, size_t count, const float *x, size_t T)
{
    job j = {.work = w, .heads = heads, .count = count, .T = T, .x = x};
    kh_parallel_for(w->pool, (w->D + COLUMNS - 1) / COLUMNS, columns_item, &j);
    kh_parallel_for(w->pool, count, turn_item, &j);
    kh_parallel_for(w->pool, count * ((w->D + COLUMNS - 1) / COLUMNS), grad_item, &j);
}
