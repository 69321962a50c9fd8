/* Feed-forward layers that keep k neurons a row: forward (Gupta et al., "Memory-efficient Transformers
 * via Top-k Attention", 2021: the layer is attention over its neurons).
 *
 * For each chunk of rows:
 *
 *     pick   items of rows: blocks of 64 neurons are scored for 48 rows at a time, and what exceeds a
 *            row's threshold enters its list (ff/pick.h); the scores never leave the nearest cache
 *     act    two matrices: of the scores themselves; gated: g and u of the kept neurons are computed
 *            again, a row of the list at a time (ff_lists.c)
 *     mix    y = sum of coefficient * value vector, 64 columns at a time; lists longer than a quarter of
 *            the layer are multiplied out as a matrix with zeros
 *
 *     x [T][D] -> indices [T][k], values [T][k] -> y [T][D]          nothing is T x F
 *
 * ReLU lets a threshold begin at 0: a neuron that is not above it contributes nothing. Gated layers rank
 * by g, |act(g) u| or that times the value vector's norm, which bounds what a dropped neuron changes. */
#include "base/alloc.h"
#include "base/fail.h"
#include "cpu/cpu.h"
#include "ff/ff.h"
#include "ff/pick.h"

#include <math.h>
#include <string.h>

enum {
    MAX_THREADS = 1024,
    ENTRIES = 1 << 20, /* kept neurons of a chunk */
    CHUNK_LEAST = 256,
    CHUNK_MOST = 2048,
    TILE_MOST = 516, /* rows that share a packed block */
    ACT_ROWS = 16
};
#define LIST_BYTES ((size_t)12 << 20) /* lists of an item */

/* ---- arguments and memory ---- */

kh_status kh_ff_check(const kh_ff_args *a, const char *what)
{
    if (a->width < 1 || a->hidden < 1 || a->width > INT32_MAX || a->hidden > INT32_MAX)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: width %zu, hidden %zu: both are at least 1, below 2^31", what,
                a->width, a->hidden);
    if (a->rows > INT32_MAX)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: %zu rows: at most 2^31 - 1 are allowed", what, a->rows);
    if (a->act < KH_FF_RELU || a->act > KH_FF_SILU)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: activation %d is none of relu, gelu, silu", what,
                (int)a->act);
    if (a->rule < KH_FF_GATE || a->rule > KH_FF_NORM)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: ranking rule %d is none of g, m, n", what, (int)a->rule);
    if (a->threads < 0 || a->threads > MAX_THREADS)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: %d threads: 0 .. %d are allowed", what, a->threads,
                MAX_THREADS);
    if (a->up && a->in_bias)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: a gated layer (up is given) has no in_bias", what);
    if (!a->in || !a->out || (a->rows > 0 && !a->x))
        KH_FAIL(KH_ERR_ARGUMENT, "%s: %s is NULL", what, !a->in ? "in" : !a->out ? "out" : "x");
    if (!a->indices != !a->counts)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: indices and counts belong together, %s is NULL", what,
                a->indices ? "counts" : "indices");
    return KH_OK;
}

int kh_ff_is_dense(const kh_ff_args *a)
{
    return a->k == 0 || a->k >= a->hidden;
}

size_t kh_ff_chunk(const kh_ff_args *a)
{
    size_t most = UINT32_MAX / (a->k ? a->k : 1), chunk = a->k ? ENTRIES / a->k : CHUNK_MOST;
    if (chunk < CHUNK_LEAST) chunk = CHUNK_LEAST;
    if (chunk > CHUNK_MOST) chunk = CHUNK_MOST;
    if (a->chunk > 0) chunk = a->chunk;
    if (chunk > most) chunk = most > 0 ? most : 1;
    if (chunk > a->rows) chunk = a->rows;
    return chunk > 0 ? chunk : 1;
}

kh_status kh_ff_open(kh_ff_work *w, const kh_ff_args *a, size_t step, size_t scratch)
{
    *w = (kh_ff_work){.args = a,
                      .kern = kh_kern_get(kh_cpu_isa()),
                      .pool.threads = a->threads ? a->threads : kh_cpu_count(),
                      .chunk = kh_ff_chunk(a)};
    KH_TRY(kh_arena_init(&w->step, "feed-forward", step));
    KH_TRY(kh_new(&w->scratch, (size_t)w->pool.threads, sizeof *w->scratch,
                  "the threads of a feed-forward layer"));
    for (int i = 0; i < w->pool.threads; i++)
        KH_TRY(kh_arena_init(&w->scratch[i], "feed-forward scratch", scratch));
    return KH_OK;
}

void kh_ff_close(kh_ff_work *w)
{
    for (int i = 0; w->scratch && i < w->pool.threads; i++) kh_arena_free(&w->scratch[i]);
    kh_arena_free(&w->step);
    kh_free(w->scratch);
}

typedef struct forward {
    kh_ff_work w;
    size_t tile;                /* rows of an item of `pick` */
    float least;                /* where thresholds begin */
    int want_up;                /* ranking needs u, too */
    float *norms;               /* [F] of the value vectors, or NULL */
    uint32_t *indices, *counts; /* [T][k], [T] */
    float *values, *up;         /* [T][k] coefficients; u of a gated layer */
    float *panels;              /* x of a gated layer */
} forward;

/* Rows of an item: T in equal parts, multiples of 12. */
static size_t tile_of(const kh_ff_args *a, size_t T)
{
    size_t most = LIST_BYTES / (8 * kh_pick_room(a->k, a->hidden)) / 12 * 12;
    if (most > TILE_MOST) most = TILE_MOST;
    if (most < 12) most = 12;
    size_t parts = (T + most - 1) / most;
    return (T + 12 * parts - 1) / (12 * parts) * 12;
}

static size_t pick_need(const kh_ff_args *a, size_t tile)
{
    size_t room = kh_pick_room(a->k, a->hidden);
    return kh_ff_scorer_need(a, tile) + 2 * kh_arena_need(tile * room * sizeof(float)) +
           2 * kh_arena_need(tile * sizeof(float));
}

static size_t larger(size_t x, size_t y)
{
    return x > y ? x : y;
}

static kh_status open_forward(forward *f, const kh_ff_args *a)
{
    size_t T = kh_ff_chunk(a), entries = kh_arena_need(T * a->k * sizeof(float));
    size_t step = 4 * entries + 4 * kh_arena_need(T * sizeof(uint32_t)) +
                  kh_arena_need((kh_ff_blocks(a) + 1) * T * sizeof(uint32_t)) +
                  kh_arena_need(kh_ff_panels(a) * KH_FF_PANEL * T * sizeof(float)) +
                  kh_arena_need(a->hidden * sizeof(float));
    *f = (forward){.tile = tile_of(a, T),
                   .want_up = a->up && a->rule != KH_FF_GATE,
                   .least = a->act == KH_FF_RELU && (!a->up || a->rule == KH_FF_GATE) ? 0.0f
                                                                                      : -INFINITY};
    size_t scratch = larger(pick_need(a, f->tile), kh_ff_lists_scratch(a, T));
    KH_TRY(kh_ff_open(&f->w, a, step, larger(scratch, kh_ff_mix_dense_scratch(a))));
    kh_arena *arena = &f->w.step;
    KH_TRY(kh_arena_new(arena, &f->w.begin, (kh_ff_blocks(a) + 1) * T, sizeof *f->w.begin));
    KH_TRY(kh_arena_new(arena, &f->values, T * a->k, sizeof *f->values));
    if (!a->indices) {
        KH_TRY(kh_arena_new(arena, &f->indices, T * a->k, sizeof *f->indices));
        KH_TRY(kh_arena_new(arena, &f->counts, T, sizeof *f->counts));
    }
    if (a->up) {
        KH_TRY(kh_arena_new(arena, &f->up, T * a->k, sizeof *f->up));
        KH_TRY(kh_arena_new(arena, &f->panels, kh_ff_panels(a) * KH_FF_PANEL * T, sizeof(float)));
    }
    if (a->up && a->rule == KH_FF_NORM)
        KH_TRY(kh_arena_new(arena, &f->norms, a->hidden, sizeof *f->norms));
    return KH_OK;
}

/* ---- the passes of a chunk ---- */

static void norm_item(void *context, size_t b, int worker)
{
    const forward *f = context;
    const kh_ff_args *a = f->w.args;
    (void)worker;
    for (size_t j = b * KH_FF_BLOCK; j < (b + 1) * KH_FF_BLOCK && j < a->hidden; j++) {
        double sum = 0;
        const float *row = a->out + j * a->width;
        for (size_t i = 0; i < a->width; i++) sum += (double)row[i] * (double)row[i];
        f->norms[j] = (float)sqrt(sum);
    }
}

/* What neurons are ranked by, in the place of their scores. */
static void rank_group(const forward *f, const kh_ff_scorer *s, size_t rows, size_t first, size_t n)
{
    const kh_ff_args *a = f->w.args;
    if (!f->want_up) return;
    for (size_t r = 0; r < rows; r++) {
        float *y = s->scores + r * KH_PICK_BLOCK;
        kh_ff_act_row(s->kern, a->act, y, y, s->up_scores + r * KH_PICK_BLOCK, n);
        for (size_t i = 0; i < n; i++) y[i] = fabsf(y[i]);
        for (size_t i = 0; f->norms && i < n; i++) y[i] *= f->norms[first + i];
    }
}

static void take_lists(const forward *f, kh_pick *pick, size_t row)
{
    const kh_ff_args *a = f->w.args;
    for (size_t r = 0; r < pick->rows; r++) {
        size_t n = kh_pick_finish(pick, r), t = row + r;
        f->counts[t] = (uint32_t)n;
        memcpy(f->indices + t * a->k, pick->indices + r * pick->ld, n * sizeof(uint32_t));
        if (!a->up)
            kh_ff_act_row(f->w.kern, a->act, f->values + t * a->k, pick->values + r * pick->ld,
                          NULL, n);
    }
}

static void pick_item(void *context, size_t item, int worker)
{
    const forward *f = context;
    const kh_ff_args *a = f->w.args;
    size_t row = item * f->tile, rows = f->w.T - row < f->tile ? f->w.T - row : f->tile;
    kh_arena *scratch = &f->w.scratch[worker];
    kh_arena_mark mark = kh_arena_save(scratch);
    kh_ff_scorer s;
    kh_ff_scorer_open(&s, a, f->w.kern, scratch, a->x + (f->w.first + row) * a->width, rows);
    kh_pick pick = {.kern = f->w.kern, .k = a->k, .rows = rows};
    pick.ld = kh_pick_room(a->k, a->hidden);
    pick.values = kh_arena_take(scratch, rows * pick.ld * sizeof *pick.values);
    pick.indices = kh_arena_take(scratch, rows * pick.ld * sizeof *pick.indices);
    pick.counts = kh_arena_take(scratch, rows * sizeof *pick.counts);
    pick.thresholds = kh_arena_take(scratch, rows * sizeof *pick.thresholds);
    kh_pick_start(&pick, f->least);
    for (size_t first = 0; first < a->hidden; first += s.neurons) {
        size_t n = a->hidden - first < s.neurons ? a->hidden - first : s.neurons;
        kh_ff_scorer_block(&s, first, n, f->want_up);
        for (size_t r = 0; r < rows; r += KH_FF_GROUP) {
            size_t some = rows - r < KH_FF_GROUP ? rows - r : KH_FF_GROUP;
            kh_pick_expect(&pick, r, some);
            kh_ff_scorer_group(&s, r, some, first, n, f->want_up);
            rank_group(f, &s, some, first, n);
            kh_pick_offer(&pick, r, some, s.scores, KH_PICK_BLOCK, n, (uint32_t)first);
        }
    }
    take_lists(f, &pick, row);
    kh_arena_rewind(scratch, mark);
}

static void gate_item(void *context, size_t item, int worker)
{
    const forward *f = context;
    size_t k = f->w.args->k;
    (void)worker;
    for (size_t t = item * ACT_ROWS; t < (item + 1) * ACT_ROWS && t < f->w.T; t++)
        kh_ff_act_row(f->w.kern, f->w.args->act, f->values + t * k, f->values + t * k,
                      f->up + t * k, f->counts[t]);
}

static kh_status forward_chunk(forward *f)
{
    kh_ff_work *w = &f->w;
    const kh_ff_args *a = w->args;
    if (a->indices) {
        f->indices = a->indices + w->first * a->k;
        f->counts = a->counts + w->first;
    }
    w->indices = f->indices;
    kh_parallel_for(&w->pool, (w->T + f->tile - 1) / f->tile, pick_item, f);
    if (!a->y) return KH_OK; /* the choice alone */
    KH_TRY(kh_ff_cut(w, f->counts));
    if (a->up) {
        kh_ff_rows_to_panels(w, f->panels, a->x + w->first * a->width);
        kh_ff_pair pairs[] = {{f->values, a->in, f->panels}, {f->up, a->up, f->panels}};
        kh_ff_dots(w, pairs, 2);
        kh_parallel_for(&w->pool, (w->T + ACT_ROWS - 1) / ACT_ROWS, gate_item, f);
    }
    kh_ff_pair pair = {.entries = f->values, .w = a->out};
    float *y = a->y + w->first * a->width;
    if (4 * a->k > a->hidden)
        kh_ff_mix_dense(w, y, a->out_bias, &pair);
    else
        kh_ff_mix(w, y, a->out_bias, &pair, 1);
    return KH_OK;
}

kh_status kh_ff_topk_forward(const kh_ff_args *a)
{
    KH_TRY(kh_ff_check(a, "feed-forward"));
    if (a->rows > 0 && !a->y && (!a->indices || kh_ff_is_dense(a)))
        KH_FAIL(KH_ERR_ARGUMENT, "feed-forward: y is NULL");
    if (a->rows == 0) return KH_OK;
    if (kh_ff_is_dense(a)) return kh_ff_dense_forward(a);
    forward f;
    kh_status status = open_forward(&f, a);
    if (status == KH_OK && f.norms) kh_parallel_for(&f.w.pool, kh_ff_blocks(a), norm_item, &f);
    for (; status == KH_OK && f.w.first < a->rows; f.w.first += f.w.T) {
        f.w.T = a->rows - f.w.first < f.w.chunk ? a->rows - f.w.first : f.w.chunk;
        status = forward_chunk(&f);
    }
    kh_ff_close(&f.w);
    return status;
}
