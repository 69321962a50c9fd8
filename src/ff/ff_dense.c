/* Feed-forward layers that keep every neuron, forward and backward, without a T x F array.
 *
 * Forward: a block of 64 neurons is scored for 48 rows, activated in place and multiplied with the
 * block's value vectors into y at once; sums run over neurons in ascending order, block after block.
 *
 * Backward, for a chunk of rows and a block of 512 neurons:
 *
 *     rows     items of 48 rows: s, u, da = dy . value -> a, ds, du;  dx += ds W1 + du Wu;
 *              a, ds, du leave transposed          [512][T]
 *     neurons  items of 48 neurons: dW2 += a^T dy, dW1 += ds^T x, dWu += du^T x, rows ascending
 *
 * The chains of both passes continue where the previous block or chunk stopped, so that neither changes
 * a bit. Long lists of kept neurons (over a quarter of the layer) take the second half of forward, with
 * zeros in the place of what was dropped. */
#include "base/fail.h"
#include "ff/ff.h"
#include "kern/panel.h"

#include <string.h>

enum {
    NEURONS = 64, /* of a block that stays in the nearest caches */
    BLOCK = 512,  /* neurons of a backward block */
    ROWS = 480,   /* of an item of forward, and of a backward chunk */
    GROUP = KH_FF_GROUP,
    NEAR = 64 /* rows of a panel that stay in the nearest cache */
};

static const float *ones(void)
{
    static const float one[GROUP] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                     1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                     1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    return one;
}

/* Columns [64 p, 64 p + 64) of y [rows][D] += weights [rows][ldw] * panel [n][64], rows <= GROUP. */
static void mix_panel(const kh_kern *kern, float *y, const float *weights, size_t ldw, size_t rows,
                      const float *panel, size_t n, size_t D, size_t p)
{
    size_t from = p * KH_FF_PANEL, cols = D - from < KH_FF_PANEL ? D - from : KH_FF_PANEL;
    if (cols == KH_FF_PANEL) {
        kern->mix_rows(y + from, D, ones(), weights, ldw, rows, panel, n, KH_FF_PANEL);
        return;
    }
    float part[GROUP * KH_FF_PANEL];
    for (size_t r = 0; r < rows; r++)
        memcpy(part + r * KH_FF_PANEL, y + r * D + from, cols * sizeof *y);
    kern->mix_rows(part, KH_FF_PANEL, ones(), weights, ldw, rows, panel, n, KH_FF_PANEL);
    for (size_t r = 0; r < rows; r++)
        memcpy(y + r * D + from, part + r * KH_FF_PANEL, cols * sizeof *y);
}

/* Rows values [n][D], n <= NEURONS, as panels [D / 64][NEURONS][64]. */
static void make_panels(float *panels, const float *values, size_t n, size_t D)
{
    for (size_t p = 0; p * KH_FF_PANEL < D; p++)
        kh_ff_copy_panel(panels + p * NEURONS * KH_FF_PANEL, values, n, D, p);
}

/* y [rows][D] += weights [rows][NEURONS] * the rows of such panels, rows <= GROUP. */
static void multiply(const kh_kern *kern, float *y, const float *weights, size_t rows,
                     const float *panels, size_t n, size_t D)
{
    for (size_t p = 0; p * KH_FF_PANEL < D; p++)
        mix_panel(kern, y, weights, NEURONS, rows, panels + p * NEURONS * KH_FF_PANEL, n, D, p);
}

static size_t panels_bytes(const kh_ff_args *a)
{
    return kh_ff_panels(a) * NEURONS * KH_FF_PANEL * sizeof(float);
}

static size_t at_most(size_t n, size_t most)
{
    return n < most ? n : most;
}

static void add_bias(const kh_ff_work *w, float *y, const float *bias, size_t rows)
{
    size_t D = w->args->width;
    for (size_t r = 0; bias && r < rows; r++) w->kern->add(y + r * D, bias, D);
}

/* ---- lists as a matrix with zeros ---- */

typedef struct mix_job {
    const kh_ff_work *work;
    float *y;
    const float *bias;
    const kh_ff_pair *pair;
} mix_job;

/* Entries of neurons [first, first + n) of one row; returns where the next block's begin. */
static uint32_t spread(float *row, const mix_job *j, uint32_t at, uint32_t end, size_t first,
                       size_t n)
{
    memset(row, 0, n * sizeof *row);
    for (; at < end && j->work->indices[at] < first + n; at++)
        row[j->work->indices[at] - first] = j->pair->entries[at];
    return at;
}

static void mix_item(void *context, size_t item, int worker)
{
    const mix_job *j = context;
    const kh_ff_work *w = j->work;
    size_t D = w->args->width, F = w->args->hidden, row = item * ROWS,
           rows = at_most(w->T - row, ROWS);
    const uint32_t *end = w->begin + kh_ff_blocks(w->args) * w->T + row;
    kh_arena_mark mark = kh_arena_save(&w->scratch[worker]);
    float *part = kh_arena_take(&w->scratch[worker], GROUP * NEURONS * sizeof *part);
    float *panels = kh_arena_take(&w->scratch[worker], panels_bytes(w->args));
    uint32_t *at = kh_arena_take(&w->scratch[worker], ROWS * sizeof *at);
    float *y = j->y + row * D;
    memcpy(at, w->begin + row, rows * sizeof *at);
    memset(y, 0, rows * D * sizeof *y);
    for (size_t first = 0; first < F; first += NEURONS) {
        size_t n = at_most(F - first, NEURONS);
        make_panels(panels, j->pair->w + first * D, n, D);
        for (size_t r = 0; r < rows; r += GROUP) {
            size_t some = at_most(rows - r, GROUP);
            for (size_t i = 0; i < some; i++)
                at[r + i] = spread(part + i * NEURONS, j, at[r + i], end[r + i], first, n);
            multiply(w->kern, y + r * D, part, some, panels, n, D);
        }
    }
    add_bias(w, y, j->bias, rows);
    kh_arena_rewind(&w->scratch[worker], mark);
}

void kh_ff_mix_dense(kh_ff_work *w, float *y, const float *bias, const kh_ff_pair *pair)
{
    mix_job j = {.work = w, .y = y, .bias = bias, .pair = pair};
    kh_parallel_for(&w->pool, (w->T + ROWS - 1) / ROWS, mix_item, &j);
}

size_t kh_ff_mix_dense_scratch(const kh_ff_args *a)
{
    return kh_arena_need(GROUP * NEURONS * sizeof(float)) + kh_arena_need(panels_bytes(a)) +
           kh_arena_need(ROWS * sizeof(uint32_t));
}

/* ---- forward ---- */

static void forward_item(void *context, size_t item, int worker)
{
    const kh_ff_work *w = context;
    const kh_ff_args *a = w->args;
    size_t D = a->width, row = item * ROWS, rows = at_most(a->rows - row, ROWS);
    kh_arena_mark mark = kh_arena_save(&w->scratch[worker]);
    float *y = a->y + row * D;
    float *panels = kh_arena_take(&w->scratch[worker], panels_bytes(a));
    kh_ff_scorer s;
    kh_ff_scorer_open(&s, a, w->kern, &w->scratch[worker], a->x + row * D, rows);
    memset(y, 0, rows * D * sizeof *y);
    for (size_t first = 0; first < a->hidden; first += s.neurons) {
        size_t n = at_most(a->hidden - first, s.neurons);
        kh_ff_scorer_block(&s, first, n, a->up != NULL);
        make_panels(panels, a->out + first * D, n, D);
        for (size_t r = 0; r < rows; r += GROUP) {
            size_t some = at_most(rows - r, GROUP);
            kh_ff_scorer_group(&s, r, some, first, n, a->up != NULL);
            for (size_t i = 0; i < some; i++)
                kh_ff_act_row(w->kern, a->act, s.scores + i * NEURONS, s.scores + i * NEURONS,
                              a->up ? s.up_scores + i * NEURONS : NULL, n);
            multiply(w->kern, y + r * D, s.scores, some, panels, n, D);
        }
    }
    add_bias(w, y, a->out_bias, rows);
    kh_arena_rewind(&w->scratch[worker], mark);
}

kh_status kh_ff_dense_forward(const kh_ff_args *a)
{
    kh_ff_work w;
    kh_status status = kh_ff_open(&w, a, 0,
                                  kh_arena_need(panels_bytes(a)) + kh_ff_scorer_need(a, ROWS));
    if (status == KH_OK) kh_parallel_for(&w.pool, (a->rows + ROWS - 1) / ROWS, forward_item, &w);
    kh_ff_close(&w);
    return status;
}

/* ---- backward ---- */

typedef struct backward {
    kh_ff_work w;
    const kh_ff_gradients *g;
    size_t neuron, n;            /* of the block in flight */
    float *x_tiles, *dy_tiles;   /* [T / 12][D][12] */
    float *x, *dy;               /* panels of rows: [D / 64][T][64] */
    float *in, *up, *out;        /* panels of the block: [512 / 16][D][16] */
    float *in_cols, *up_cols;    /* the same by columns: [512 / 64][D / 64][64][64] */
    float *a_by, *ds_by, *du_by; /* [512][T] */
} backward;

static void tile_item(void *context, size_t item, int worker)
{
    const backward *b = context;
    const kh_ff_args *a = b->w.args;
    size_t D = a->width, t = item * KH_PRODUCT_TILE, rows = at_most(b->w.T - t, KH_PRODUCT_TILE);
    size_t from = (b->w.first + t) * D;
    (void)worker;
    b->w.kern->product_pack(b->x_tiles + t * D, KH_PRODUCT_TILE, a->x + from, rows, D);
    b->w.kern->product_pack(b->dy_tiles + t * D, KH_PRODUCT_TILE, b->g->dy + from, rows, D);
}

static void cols_item(void *context, size_t item, int worker)
{
    const backward *b = context;
    const kh_ff_args *a = b->w.args;
    size_t D = a->width, i = item * NEURONS, n = at_most(b->n - i, NEURONS);
    size_t from = (b->neuron + i) * D, to = item * panels_bytes(a) / sizeof(float);
    (void)worker;
    make_panels(b->in_cols + to, a->in + from, n, D);
    if (a->up) make_panels(b->up_cols + to, a->up + from, n, D);
}

static void panel_item(void *context, size_t item, int worker)
{
    const backward *b = context;
    const kh_ff_args *a = b->w.args;
    size_t D = a->width, r = item * KH_PANEL_ROWS, rows = at_most(b->n - r, KH_PANEL_ROWS);
    size_t from = (b->neuron + r) * D;
    (void)worker;
    b->w.kern->product_pack(b->in + r * D, KH_PANEL_ROWS, a->in + from, rows, D);
    if (a->up) b->w.kern->product_pack(b->up + r * D, KH_PANEL_ROWS, a->up + from, rows, D);
    b->w.kern->product_pack(b->out + r * D, KH_PANEL_ROWS, a->out + from, rows, D);
}

/* One row of s, u, da [n] becomes a, du, ds. */
static void slopes(const kh_ff_work *w, float *s, float *u, float *da, size_t n)
{
    kh_ff_act act = w->args->act;
    float value[NEURONS];
    kh_ff_act_row(w->kern, act, value, s, NULL, n);
    for (size_t i = 0; i < n; i++) {
        float d = da[i], ds = d * kh_ff_slope(act, s[i]);
        s[i] = w->args->up ? value[i] * u[i] : value[i];
        da[i] = w->args->up ? ds * u[i] : ds;
        if (w->args->up) u[i] = d * value[i];
    }
}

static void transpose(float *to, size_t ldt, const float *from, size_t rows, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t r = 0; r < rows; r++) to[i * ldt + r] = from[r * NEURONS + i];
}

static void rows_item(void *context, size_t item, int worker)
{
    const backward *b = context;
    const kh_ff_work *w = &b->w;
    const kh_ff_args *a = w->args;
    size_t D = a->width, T = w->T, t = item * GROUP, rows = at_most(T - t, GROUP);
    kh_arena_mark mark = kh_arena_save(&w->scratch[worker]);
    float *s = kh_arena_take(&w->scratch[worker], 3 * GROUP * NEURONS * sizeof *s);
    float *u = s + GROUP * NEURONS, *da = u + GROUP * NEURONS;
    const float *x = b->x_tiles + t * D, *dy = b->dy_tiles + t * D;
    for (size_t i = 0; i < b->n; i += NEURONS) {
        size_t n = at_most(b->n - i, NEURONS), at = i / NEURONS * panels_bytes(a) / sizeof(float);
        w->kern->product_gemm(s, NEURONS, b->in + i * D, n, x, rows, D);
        if (a->up) w->kern->product_gemm(u, NEURONS, b->up + i * D, n, x, rows, D);
        w->kern->product_gemm(da, NEURONS, b->out + i * D, n, dy, rows, D);
        for (size_t r = 0; r < rows; r++) {
            if (a->in_bias) w->kern->add(s + r * NEURONS, a->in_bias + b->neuron + i, n);
            slopes(w, s + r * NEURONS, u + r * NEURONS, da + r * NEURONS, n);
        }
        float *dx = b->g->dx ? b->g->dx + (w->first + t) * D : NULL;
        if (dx) multiply(w->kern, dx, da, rows, b->in_cols + at, n, D);
        if (dx && a->up) multiply(w->kern, dx, u, rows, b->up_cols + at, n, D);
        transpose(b->a_by + i * T + t, T, s, rows, n);
        transpose(b->ds_by + i * T + t, T, da, rows, n);
        if (a->up) transpose(b->du_by + i * T + t, T, u, rows, n);
    }
    kh_arena_rewind(&w->scratch[worker], mark);
}

/* dw [n][D] of neurons [i, i + n) of the block; `rows` in panels. */
static void own(const backward *b, float *dw, const float *by, const float *rows, size_t i,
                size_t n)
{
    size_t D = b->w.args->width, T = b->w.T;
    if (!dw) return;
    dw += (b->neuron + i) * D;
    if (b->w.first == 0 && !b->g->add) memset(dw, 0, n * D * sizeof *dw);
    for (size_t p = 0; p < kh_ff_panels(b->w.args); p++)
        for (size_t t = 0; t < T; t += NEAR)
            mix_panel(b->w.kern, dw, by + i * T + t, T, n, rows + (p * T + t) * KH_FF_PANEL,
                      at_most(T - t, NEAR), D, p);
}

static void neurons_item(void *context, size_t item, int worker)
{
    const backward *b = context;
    const kh_ff_args *a = b->w.args;
    size_t T = b->w.T, i = item * GROUP, n = at_most(b->n - i, GROUP);
    (void)worker;
    own(b, b->g->dout, b->a_by, b->dy, i, n);
    own(b, b->g->din, b->ds_by, b->x, i, n);
    if (a->up) own(b, b->g->dup, b->du_by, b->x, i, n);
    for (size_t j = i; b->g->din_bias && j < i + n; j++) {
        float sum = b->w.first == 0 && !b->g->add ? 0.0f : b->g->din_bias[b->neuron + j];
        for (size_t t = 0; t < T; t++) sum += b->ds_by[j * T + t];
        b->g->din_bias[b->neuron + j] = sum;
    }
}

static kh_status open_backward(backward *b, const kh_ff_args *a, size_t T)
{
    size_t D = a->width, rows = (T + KH_PRODUCT_TILE - 1) / KH_PRODUCT_TILE * KH_PRODUCT_TILE;
    size_t tiles = kh_arena_need(rows * D * sizeof(float));
    size_t panels = kh_arena_need(BLOCK * D * sizeof(float));
    size_t blocks = kh_arena_need(BLOCK * T * sizeof(float));
    size_t columns = kh_ff_panels(a) * KH_FF_PANEL;
    KH_TRY(kh_ff_open(&b->w, a,
                      2 * tiles + 2 * kh_arena_need(T * columns * sizeof(float)) +
                          2 * kh_arena_need(BLOCK * columns * sizeof(float)) +
                          3 * (panels + blocks),
                      kh_arena_need(3 * GROUP * NEURONS * sizeof(float))));
    kh_arena *arena = &b->w.step;
    float **all[] = {&b->in, &b->up, &b->out, &b->a_by, &b->ds_by, &b->du_by};
    KH_TRY(kh_arena_new(arena, &b->x_tiles, rows * D, sizeof(float)));
    KH_TRY(kh_arena_new(arena, &b->dy_tiles, rows * D, sizeof(float)));
    KH_TRY(kh_arena_new(arena, &b->in_cols, BLOCK * columns, sizeof(float)));
    KH_TRY(kh_arena_new(arena, &b->up_cols, BLOCK * columns, sizeof(float)));
    KH_TRY(kh_arena_new(arena, &b->x, T * columns, sizeof(float)));
    KH_TRY(kh_arena_new(arena, &b->dy, T * columns, sizeof(float)));
    for (size_t i = 0; i < 6; i++)
        KH_TRY(kh_arena_new(arena, all[i], BLOCK * (i < 3 ? D : T), sizeof(float)));
    return KH_OK;
}

kh_status kh_ff_dense_backward(const kh_ff_args *a, const kh_ff_gradients *g)
{
    backward b = {.g = g};
    size_t chunk = at_most(a->chunk ? a->chunk : ROWS, a->rows), D = a->width;
    kh_status status = open_backward(&b, a, chunk);
    kh_ff_work *w = &b.w;
    if (status == KH_OK && g->dx) memset(g->dx, 0, a->rows * D * sizeof *g->dx);
    for (w->first = 0; status == KH_OK && w->first < a->rows; w->first += w->T) {
        w->T = at_most(a->rows - w->first, chunk);
        kh_parallel_for(&w->pool, (w->T + KH_PRODUCT_TILE - 1) / KH_PRODUCT_TILE, tile_item, &b);
        kh_ff_rows_to_panels(w, b.x, a->x + w->first * D);
        kh_ff_rows_to_panels(w, b.dy, g->dy + w->first * D);
        for (b.neuron = 0; b.neuron < a->hidden; b.neuron += b.n) {
            b.n = at_most(a->hidden - b.neuron, BLOCK);
            kh_parallel_for(&w->pool, (b.n + KH_PANEL_ROWS - 1) / KH_PANEL_ROWS, panel_item, &b);
            if (g->dx) kh_parallel_for(&w->pool, (b.n + NEURONS - 1) / NEURONS, cols_item, &b);
            kh_parallel_for(&w->pool, (w->T + GROUP - 1) / GROUP, rows_item, &b);
            kh_parallel_for(&w->pool, (b.n + GROUP - 1) / GROUP, neurons_item, &b);
        }
    }
    kh_ff_close(w);
    return status;
}
