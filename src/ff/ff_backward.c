/* Backward of feed-forward layers that keep k neurons a row, from the saved indices.
 *
 * With s the pre-activation of a kept neuron, u its second factor (gated), a its coefficient:
 *
 *     da = dy . W2_j      ds = da act'(s) [u]      du = da act(s)
 *     dx = sum ds W1_j [+ du Wu_j]     dW1_j += ds x     dWu_j += du x     dW2_j += a dy     db1_j += ds
 *
 * For each chunk of rows:
 *
 *     dots   s, u, da of all entries, a block of neurons an item           (ff_lists.c)
 *     mix    dx, 64 columns an item
 *     sort   a block's entries by neuron, rows ascending: a counting sort  rows | a | ds | du
 *     own    dW: (64 columns, block) an item; a neuron's sum stays in registers while its rows pass
 *
 * Every gradient has one owner and one order, rows ascending, which the next chunk continues: the same
 * bits for any threads and chunks, without atomics and without copies of dW. The choice of neurons is a
 * constant.
 *
 * Rejected: adding each row to the gradients of its neurons, which reads and writes k rows of dW for
 * every token and needs a copy for each thread. */
#include "base/fail.h"
#include "ff/ff.h"

#include <string.h>

enum { ACT_ROWS = 16 };

typedef struct backward {
    kh_ff_work w;
    const kh_ff_gradients *g;
    const uint32_t *counts;
    float *x, *dy;               /* panels of rows, [D / 64][T][64] */
    float *s, *u, *da;           /* [T][k]: become a, du, ds */
    size_t *before;              /* [blocks + 1] entries of earlier blocks */
    uint32_t *from;              /* [F + 1] where a neuron's entries begin below */
    uint32_t *rows;              /* [T k] sorted by neuron, then row */
    float *a_by, *ds_by, *du_by; /* the same order */
} backward;

static kh_status open_backward(backward *b, const kh_ff_args *a)
{
    size_t T = kh_ff_chunk(a), entries = T * a->k, blocks = kh_ff_blocks(a);
    size_t panels = kh_ff_panels(a) * KH_FF_PANEL * T, cuts = (blocks + 1) * T;
    size_t step =
        7 * kh_arena_need(entries * sizeof(float)) + 2 * kh_arena_need(panels * sizeof(float)) +
        kh_arena_need((a->hidden + 1) * sizeof(uint32_t)) +
        2 * kh_arena_need(cuts * sizeof(uint32_t)) + kh_arena_need((blocks + 1) * sizeof(size_t));
    size_t scratch = kh_ff_lists_scratch(a, T > KH_FF_BLOCK ? T : KH_FF_BLOCK);
    KH_TRY(kh_ff_open(&b->w, a, step, scratch + kh_arena_need(a->k * sizeof(float))));
    kh_arena *arena = &b->w.step;
    float **all[] = {&b->s, &b->da, &b->a_by, &b->ds_by, &b->u, &b->du_by};
    for (size_t i = 0; i < (a->up ? 6 : 4); i++)
        KH_TRY(kh_arena_new(arena, all[i], entries, sizeof(float)));
    KH_TRY(kh_arena_new(arena, &b->rows, entries, sizeof *b->rows));
    KH_TRY(kh_arena_new(arena, &b->x, panels, sizeof *b->x));
    KH_TRY(kh_arena_new(arena, &b->dy, panels, sizeof *b->dy));
    KH_TRY(kh_arena_new(arena, &b->from, a->hidden + 1, sizeof *b->from));
    KH_TRY(kh_arena_new(arena, &b->before, blocks + 1, sizeof *b->before));
    return kh_arena_new(arena, &b->w.begin, cuts, sizeof *b->w.begin);
}

/* ---- coefficients ---- */

/* s, u, da of n entries become a, du, ds; value [n] is room. */
static void slopes(const kh_ff_work *w, float *s, float *u, float *da, const uint32_t *list,
                   float *value, size_t n)
{
    const kh_ff_args *a = w->args;
    for (size_t i = 0; a->in_bias && i < n; i++) s[i] += a->in_bias[list[i]];
    kh_ff_act_row(w->kern, a->act, value, s, NULL, n);
    for (size_t i = 0; i < n; i++) {
        float d = da[i], ds = d * kh_ff_slope(a->act, s[i]);
        s[i] = u ? value[i] * u[i] : value[i];
        da[i] = u ? ds * u[i] : ds;
        if (u) u[i] = d * value[i];
    }
}

static void slopes_item(void *context, size_t item, int worker)
{
    const backward *b = context;
    size_t k = b->w.args->k;
    kh_arena_mark mark = kh_arena_save(&b->w.scratch[worker]);
    float *value = kh_arena_take(&b->w.scratch[worker], k * sizeof *value);
    for (size_t t = item * ACT_ROWS; t < (item + 1) * ACT_ROWS && t < b->w.T; t++)
        slopes(&b->w, b->s + t * k, b->u ? b->u + t * k : NULL, b->da + t * k, b->w.indices + t * k,
               value, b->counts[t]);
    kh_arena_rewind(&b->w.scratch[worker], mark);
}

/* ---- entries by neuron ---- */

static size_t block_size(const kh_ff_args *a, size_t first)
{
    return a->hidden - first < KH_FF_BLOCK ? a->hidden - first : KH_FF_BLOCK;
}

static void sort_item(void *context, size_t block, int worker)
{
    const backward *b = context;
    const kh_ff_work *w = &b->w;
    size_t T = w->T, first = block * KH_FF_BLOCK, n = block_size(w->args, first);
    const uint32_t *begin = w->begin + block * T, *end = begin + T;
    uint32_t at[KH_FF_BLOCK] = {0}, sum = (uint32_t)b->before[block];
    (void)worker;
    for (size_t t = 0; t < T; t++)
        for (size_t e = begin[t]; e < end[t]; e++) at[w->indices[e] - first]++;
    for (size_t j = 0; j < n; j++) {
        uint32_t count = at[j];
        at[j] = b->from[first + j] = sum;
        sum += count;
    }
    for (size_t t = 0; t < T; t++)
        for (size_t e = begin[t]; e < end[t]; e++) {
            uint32_t to = at[w->indices[e] - first]++;
            b->rows[to] = (uint32_t)t;
            b->a_by[to] = b->s[e];
            b->ds_by[to] = b->da[e];
            if (b->u) b->du_by[to] = b->u[e];
        }
}

static void sort(backward *b)
{
    const kh_ff_work *w = &b->w;
    size_t blocks = kh_ff_blocks(w->args), all = 0;
    for (size_t i = 0; i < blocks; i++) {
        b->before[i] = all;
        for (size_t t = 0; t < w->T; t++)
            all += w->begin[(i + 1) * w->T + t] - w->begin[i * w->T + t];
    }
    b->from[w->args->hidden] = (uint32_t)all;
    kh_parallel_for(&w->pool, blocks, sort_item, b);
}

/* ---- gradients of the weights ---- */

typedef struct own_job {
    const backward *b;
    float *dw;         /* [F][D] */
    const float *by;   /* sorted entries */
    const float *rows; /* panels of rows */
} own_job;

static void own_item(void *context, size_t item, int worker)
{
    const own_job *j = context;
    const kh_ff_work *w = &j->b->w;
    size_t D = w->args->width, blocks = kh_ff_blocks(w->args), p = item / blocks;
    size_t first = item % blocks * KH_FF_BLOCK, n = block_size(w->args, first);
    float *dw = j->dw + first * D;
    const uint32_t *from = j->b->from + first;
    kh_arena_mark mark = kh_arena_save(&w->scratch[worker]);
    float *sums = kh_arena_take(&w->scratch[worker], n * KH_FF_PANEL * sizeof *sums);
    if (w->first == 0 && !j->b->g->add)
        memset(sums, 0, n * KH_FF_PANEL * sizeof *sums);
    else
        kh_ff_copy_panel(sums, dw, n, D, p);
    w->kern->listed_mix(sums, j->by, j->b->rows, from, from + 1, n,
                        j->rows + p * w->T * KH_FF_PANEL, 0);
    kh_ff_copy_back(dw, sums, n, D, p);
    kh_arena_rewind(&w->scratch[worker], mark);
}

static void own(backward *b, float *dw, const float *by, const float *rows)
{
    const kh_ff_args *a = b->w.args;
    if (dw)
        kh_parallel_for(&b->w.pool, kh_ff_panels(a) * kh_ff_blocks(a), own_item,
                        &(own_job){b, dw, by, rows});
}

static void bias_item(void *context, size_t block, int worker)
{
    const backward *b = context;
    const kh_ff_args *a = b->w.args;
    size_t first = block * KH_FF_BLOCK, n = block_size(a, first);
    (void)worker;
    for (size_t j = first; j < first + n; j++) {
        float sum = b->w.first == 0 && !b->g->add ? 0.0f : b->g->din_bias[j];
        for (size_t e = b->from[j]; e < b->from[j + 1]; e++) sum += b->ds_by[e];
        b->g->din_bias[j] = sum;
    }
}

/* ---- the call ---- */

static kh_status backward_chunk(backward *b)
{
    kh_ff_work *w = &b->w;
    const kh_ff_args *a = w->args;
    const kh_ff_gradients *g = b->g;
    size_t from = w->first * a->width;
    w->indices = a->indices + w->first * a->k;
    b->counts = a->counts + w->first;
    KH_TRY(kh_ff_cut(w, b->counts));
    kh_ff_rows_to_panels(w, b->x, a->x + from);
    kh_ff_rows_to_panels(w, b->dy, g->dy + from);
    kh_ff_pair dots[] = {{b->s, a->in, b->x}, {b->da, a->out, b->dy}, {b->u, a->up, b->x}};
    kh_ff_dots(w, dots, a->up ? 3 : 2);
    kh_parallel_for(&w->pool, (w->T + ACT_ROWS - 1) / ACT_ROWS, slopes_item, b);
    kh_ff_pair mix[] = {{.entries = b->da, .w = a->in}, {.entries = b->u, .w = a->up}};
    if (g->dx) kh_ff_mix(w, g->dx + from, NULL, mix, a->up ? 2 : 1);
    if (!g->din && !g->dup && !g->dout && !g->din_bias) return KH_OK;
    sort(b);
    own(b, g->dout, b->a_by, b->dy);
    own(b, g->din, b->ds_by, b->x);
    if (a->up) own(b, g->dup, b->du_by, b->x);
    if (g->din_bias) kh_parallel_for(&w->pool, kh_ff_blocks(a), bias_item, b);
    return KH_OK;
}

/* Of the second bias: the column sums of dy, rows ascending. */
static void sum_rows(const kh_ff_args *a, const kh_ff_gradients *g)
{
    if (!g->dout_bias) return;
    if (!g->add) memset(g->dout_bias, 0, a->width * sizeof *g->dout_bias);
    for (size_t t = 0; t < a->rows; t++)
        for (size_t i = 0; i < a->width; i++) g->dout_bias[i] += g->dy[t * a->width + i];
}

static void clear(const kh_ff_args *a, const kh_ff_gradients *g)
{
    float *all[] = {g->din, a->up ? g->dup : NULL, g->dout};
    if (g->add) return;
    for (size_t i = 0; i < 3; i++)
        if (all[i]) memset(all[i], 0, a->hidden * a->width * sizeof(float));
    if (g->din_bias) memset(g->din_bias, 0, a->hidden * sizeof(float));
}

kh_status kh_ff_topk_backward(const kh_ff_args *a, const kh_ff_gradients *g)
{
    KH_TRY(kh_ff_check(a, "feed-forward backward"));
    if (a->rows > 0 && !g->dy) KH_FAIL(KH_ERR_ARGUMENT, "feed-forward backward: dy is NULL");
    if (a->up && g->din_bias)
        KH_FAIL(KH_ERR_ARGUMENT, "feed-forward backward: a gated layer has no din_bias");
    if (!a->up && g->dup)
        KH_FAIL(KH_ERR_ARGUMENT, "feed-forward backward: dup needs a gated layer (up is NULL)");
    if (!kh_ff_is_dense(a) && !a->indices)
        KH_FAIL(KH_ERR_ARGUMENT, "feed-forward backward: it needs the indices and counts that "
                                 "kh_ff_topk_forward left");
    sum_rows(a, g);
    if (a->rows == 0) {
        clear(a, g);
        return KH_OK;
    }
    if (kh_ff_is_dense(a)) return kh_ff_dense_backward(a, g);
    backward b = {.g = g};
    kh_status status = open_backward(&b, a);
    for (; status == KH_OK && b.w.first < a->rows; b.w.first += b.w.T) {
        b.w.T = a->rows - b.w.first < b.w.chunk ? a->rows - b.w.first : b.w.chunk;
        status = backward_chunk(&b);
    }
    kh_ff_close(&b.w);
    return status;
}
