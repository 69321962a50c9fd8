/* y = W x backwards:  dx += W^T dy,  dW += dy x^T,  and dy becomes 0.
 *
 * Both are products of panels of 16 lanes with tiles of 12 (kern/product_body.h) that add to what is there.
 * What is turned and what lies right already:
 *
 *     dx [t][c] += sum over r of dy[t][r] W[r][c]     tiles  dy turned            [t / 12][r][12]     step
 *                                                     panels W as it lies         [c / 16][r][16]     scratch
 *     dW [r][c] += sum over t of dy[t][r] x[t][c]     tiles  dy as it lies        [r / 12][t][12]     step
 *                                                     panels x as it lies         [c / 16][t][16]     step
 *
 * Rows go through in blocks of 1,536, and a weight's rows in parts of 1,920, which bounds the copies (12 MB each
 * of dy) whatever the batch and the vocabulary; W is turned into panels once a block, 2 additions of 3,072
 * operations. An item is 64 columns of dx or 96 x 256 elements of dW; both kinds share one parallel loop.
 *
 * Order of rounding: a row of dx is a sum over r in which other rows of x have no part, so no chunk of rows
 * changes a bit. dW is summed over slices of 256 rows, each from 0 and then added, slices ascending: the same bits
 * for any chunks of a multiple of 256 rows, each of which is taken back before the next one runs (as logits are),
 * and a smaller error than one long sum. Every number has one writer, so threads change nothing.
 *
 * Measured (Xeon 2.5 GHz, AVX-512, GPT-2 small at 1,024 to 8,192 tokens, two threads): both kinds of items run at 130 to
 * 145 GFLOP/s a core of 160 that the kernel reaches in a near cache and 180 to 205 of the processor; they are half of a
 * step. A part's rows of W lie in pages of their own: asked for twelve rows early, a step takes a tenth less. Parts of
 * 768 to 1,920 rows and items of 64 or 128 columns and of 96 to 384 rows are alike. (A newer Xeon with larger caches: 156
 * of 180 near and 210 to 225 of the processor, 47 % of a step at 4,096 tokens.)
 *
 * Weights of frozen types are unpacked for dx where they are used, a row of the item's columns at a time; x is
 * kept only where one of its weights or their adapters is trained. Rejected: oneDNN for the two products, which would pack what
 * is packed here once in every one of its calls, and may fail inside a parallel loop. */
#include "ops/linear_back.h"

#include "base/fail.h"
#include "kern/panel.h"
#include "ops/lora_back.h"
#include "ops/unpack.h"
#include "run/tape.h"

#include <string.h>

enum {
    LANES = KH_PANEL_ROWS,
    TILE = KH_PRODUCT_TILE,
    SLICE = 256,
    BLOCK = 6 * SLICE, /* rows of a batch: a multiple of TILE and of SLICE */
    PART = 1920,       /* rows of a weight: a multiple of PIECE */
    PIECE = 96,        /* of them in an item of dW: a multiple of TILE */
    WIDE = 256,        /* columns of an item of dW: a multiple of LANES */
    NARROW = 64,       /* columns of an item of dx, unless a type has larger blocks */
    TURN = 256,        /* elements of a row that are turned at once */
    ROWS_ITEM = 48,    /* rows that are copied as an item: a multiple of TILE, a divisor of BLOCK */
    AHEAD = 12,        /* rows of a weight that are asked for early: each lies in another page */
    LINE = 64
};

typedef struct linear_part {
    kh_weight w;
    const float *y; /* [T][w.rows] */
} linear_part;

typedef struct linear_record {
    kh_tape_record record;
    const float *x;    /* [T][cols] */
    const float *kept; /* its copy; NULL: no weight is trained */
    size_t T, cols, count;
    linear_part parts[KH_LINEAR_MANY];
} linear_record;

/* One block of rows and one part of a weight's rows at a time. */
typedef struct job {
    const linear_record *o;
    const kh_kern *kern;
    kh_arena *scratch;
    size_t first, rows; /* of the batch */
    const kh_weight *w;
    size_t from, part; /* of the weight's rows */
    kh_unpack unpack;
    float *dy;     /* [rows][w->rows], from the block's first row and the part's first column on */
    float *dx;     /* [rows][cols] or NULL */
    float *dw;     /* [part][cols] or NULL */
    float *turned; /* [rows / 12][part][12] */
    float *tiles;  /* by slice: [part / 12][slice][12] */
    float *panels; /* by slice: [cols / 16][slice][16] */
    size_t narrow, dx_items;
} job;

static size_t up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t columns_of(const kh_weight *w)
{
    size_t block = kh_type_block(w->type);
    return block > NARROW ? block : NARROW;
}

/* ---- memory ---- */

typedef struct sizes {
    size_t panels, turned, tiles; /* step */
    size_t weight, row;           /* scratch */
} sizes;

static sizes sizes_of(const kh_weight *w, size_t T)
{
    size_t rows = least(T, BLOCK), part = least(w->rows, PART), narrow = columns_of(w);
    return (sizes){.panels = rows * up(w->cols, LANES) * sizeof(float),
                   .turned = up(rows, TILE) * part * sizeof(float),
                   .tiles = rows * up(part, TILE) * sizeof(float),
                   .weight = part * narrow * sizeof(float),
                   .row = (narrow > TILE * TURN ? narrow : TILE * TURN) * sizeof(float)};
}

/* ---- copies ---- */

/* A group of `width`, of which `here` exist. Whole ones have a size that is known here: no call. */
static inline void copy_group(float *to, const float *from, size_t here, size_t width)
{
    if (here == width) {
        memcpy(to, from, width * sizeof *to);
        return;
    }
    memcpy(to, from, here * sizeof *to);
    memset(to + here, 0, (width - here) * sizeof *to);
}

/* Where row t of the block begins in an array by slices, whose rows have `width` elements in groups. */
static float *slice_row(float *base, size_t t, size_t rows, size_t width, size_t group,
                        size_t *stride)
{
    size_t s = t / SLICE, m = least(rows - s * SLICE, SLICE);
    *stride = m * group;
    return base + s * SLICE * width + (t - s * SLICE) * group;
}

static void panels_item(void *context, size_t item, int worker)
{
    const job *j = context;
    size_t n = j->o->cols, end = least((item + 1) * ROWS_ITEM, j->rows), stride;
    (void)worker;
    for (size_t c = 0; c < n; c += LANES) {
        size_t here = least(n - c, LANES);
        for (size_t t = item * ROWS_ITEM; t < end; t++) {
            float *to = slice_row(j->panels, t, j->rows, up(n, LANES), LANES, &stride);
            to += c / LANES * stride;
            copy_group(to, j->o->kept + (j->first + t) * n + c, here, LANES);
        }
    }
}

static void copy_tiles(const job *j, size_t first, size_t end)
{
    size_t stride;
    for (size_t r = 0; r < j->part; r += TILE) {
        size_t here = least(j->part - r, TILE);
        for (size_t t = first; t < end; t++) {
            float *to = slice_row(j->tiles, t, j->rows, up(j->part, TILE), TILE, &stride);
            to += r / TILE * stride;
            copy_group(to, j->dy + t * j->w->rows + r, here, TILE);
        }
    }
}

static void turn_tiles(const job *j, size_t first, size_t end, float *piece)
{
    for (size_t t = first; t < end; t += TILE) {
        size_t rows = least(end - t, TILE);
        float *to = j->turned + t * j->part;
        for (size_t r = 0; r < j->part; r += TURN) {
            size_t n = least(j->part - r, TURN);
            for (size_t i = 0; i < rows; i++)
                memcpy(piece + i * n, j->dy + (t + i) * j->w->rows + r, n * sizeof *piece);
            j->kern->product_pack(to + r * TILE, TILE, piece, rows, n);
        }
    }
}

/* Both copies of dy, which is 0 from then on. */
static void dy_item(void *context, size_t item, int worker)
{
    const job *j = context;
    kh_arena *scratch = j->scratch + worker;
    kh_arena_mark mark = kh_arena_save(scratch);
    size_t first = item * ROWS_ITEM, end = least(first + ROWS_ITEM, j->rows);
    if (j->dx) turn_tiles(j, first, end, kh_arena_take(scratch, TILE * TURN * sizeof(float)));
    if (j->dw) copy_tiles(j, first, end);
    for (size_t t = first; t < end; t++) memset(j->dy + t * j->w->rows, 0, j->part * sizeof *j->dy);
    kh_arena_rewind(scratch, mark);
}

/* ---- products ---- */

/* Columns [c, c + n) of the part's rows, as panels. */
static void weight_panels(const job *j, float *panels, size_t c, size_t n, float *row)
{
    const kh_weight *w = j->w;
    const char *at = (const char *)w->data + j->from * w->row_bytes;
    at += kh_type_row_bytes(w->type, c);
    size_t bytes = kh_type_row_bytes(w->type, n);
    for (size_t r = 0; r < j->part; r++, at += w->row_bytes) {
        const float *from = (const float *)(const void *)at;
        if (r + AHEAD < j->part)
            for (size_t i = 0; i < bytes; i += LINE)
                __builtin_prefetch(at + AHEAD * w->row_bytes + i);
        if (j->unpack.f32) {
            j->unpack.f32(row, at, n);
            from = row;
        }
        for (size_t i = 0; i < n; i += LANES) {
            copy_group(panels + i * j->part + r * LANES, from + i, least(n - i, LANES), LANES);
        }
    }
}

static void dx_item(const job *j, size_t item, kh_arena *scratch)
{
    size_t c = item * j->narrow, n = least(j->o->cols - c, j->narrow);
    float *panels = kh_arena_take(scratch, j->part * j->narrow * sizeof *panels);
    float *row = kh_arena_take(scratch, j->narrow * sizeof *row);
    weight_panels(j, panels, c, n, row);
    j->kern->product_gemm_add(j->dx + c, j->o->cols, panels, n, j->turned, j->rows, j->part);
}

static void dw_item(const job *j, size_t item)
{
    size_t across = (j->o->cols + WIDE - 1) / WIDE;
    size_t r = item / across * PIECE, c = item % across * WIDE;
    size_t rows = least(j->part - r, PIECE), n = least(j->o->cols - c, WIDE), stride;
    for (size_t t = 0; t < j->rows; t += SLICE) {
        size_t m = least(j->rows - t, SLICE);
        const float *panels =
            slice_row(j->panels, t, j->rows, up(j->o->cols, LANES), LANES, &stride) + c * m;
        const float *tiles = slice_row(j->tiles, t, j->rows, up(j->part, TILE), TILE, &stride) +
                             r * m;
        j->kern->product_gemm_add(j->dw + r * j->o->cols + c, j->o->cols, panels, n, tiles, rows,
                                  m);
    }
}

static void product_item(void *context, size_t item, int worker)
{
    const job *j = context;
    kh_arena *scratch = j->scratch + worker;
    kh_arena_mark mark = kh_arena_save(scratch);
    if (item < j->dx_items)
        dx_item(j, item, scratch);
    else
        dw_item(j, item - j->dx_items);
    kh_arena_rewind(scratch, mark);
}

/* ---- the record ---- */

static kh_status check_scratch(const kh_run *run, const kh_weight *w)
{
    sizes s = sizes_of(w, 1); /* a worker's do not grow with the rows */
    size_t need = kh_arena_need(s.weight) + kh_arena_need(s.row);
    for (int i = 0; i < run->pool->threads; i++) {
        size_t left = run->scratch[i].size - run->scratch[i].used;
        if (left < need)
            KH_FAIL(KH_ERR_MEMORY, "the gradients of %s need %zu bytes of scratch, %zu are left",
                    w->name, need, left);
    }
    return KH_OK;
}

/* The block's share of one weight. */
static void part_back(kh_run *run, job *j, const linear_part *p, float *dy, float *dw)
{
    const kh_weight *w = j->w = &p->w;
    size_t cols = j->o->cols;
    j->unpack = kh_unpack_of(run->kern, w->type);
    j->narrow = columns_of(w);
    j->dx_items = j->dx ? (cols + j->narrow - 1) / j->narrow : 0;
    for (j->from = 0; j->from < w->rows; j->from += PART) {
        j->part = least(w->rows - j->from, PART);
        j->dy = dy + j->first * w->rows + j->from;
        j->dw = dw ? dw + j->from * cols : NULL;
        size_t pieces = dw ? (j->part + PIECE - 1) / PIECE * ((cols + WIDE - 1) / WIDE) : 0;
        kh_parallel_for(run->pool, (j->rows + ROWS_ITEM - 1) / ROWS_ITEM, dy_item, j);
        kh_parallel_for(run->pool, j->dx_items + pieces, product_item, j);
    }
}

/* For one weight after the other: the copies of dy have the size of the largest. */
static kh_status blocks_back(kh_run *run, const linear_record *o)
{
    job j = {.o = o, .kern = run->kern, .scratch = run->scratch};
    float *dy[KH_LINEAR_MANY], *dw[KH_LINEAR_MANY], *dx = kh_tape_twin_of(run, o->x);
    sizes most = {0};
    for (size_t i = 0; i < o->count; i++) {
        const kh_weight *w = &o->parts[i].w;
        sizes s = sizes_of(w, o->T);
        dy[i] = kh_tape_twin_of(run, o->parts[i].y);
        dw[i] = w->type == KH_TYPE_F32 && o->kept ? kh_tape_gradient_of(run, w->data) : NULL;
        if (s.turned > most.turned) most.turned = s.turned;
        if (s.tiles > most.tiles) most.tiles = s.tiles;
        most.panels = s.panels;
        KH_TRY(check_scratch(run, w));
    }
    for (size_t i = 0; i < o->count; i++)
        if (dy[i] && o->parts[i].w.lora)
            KH_TRY(kh_lora_back(run, &o->parts[i].w, dy[i], o->kept, dx, o->T));
    KH_TRY(kh_arena_new(run->step, &j.panels, most.panels, 1));
    KH_TRY(kh_arena_new(run->step, &j.turned, most.turned, 1));
    KH_TRY(kh_arena_new(run->step, &j.tiles, most.tiles, 1));
    for (j.first = 0; j.first < o->T; j.first += BLOCK) {
        j.rows = least(o->T - j.first, BLOCK);
        j.dx = dx ? dx + j.first * o->cols : NULL;
        if (o->kept)
            kh_parallel_for(run->pool, (j.rows + ROWS_ITEM - 1) / ROWS_ITEM, panels_item, &j);
        for (size_t i = 0; i < o->count; i++)
            if (dy[i]) part_back(run, &j, &o->parts[i], dy[i], dw[i]);
    }
    return KH_OK;
}

static kh_status linear_back(kh_run *run, kh_tape_record *record)
{
    kh_arena_mark mark = kh_arena_save(run->step);
    kh_status status = blocks_back(run, (const linear_record *)record);
    kh_arena_rewind(run->step, mark);
    return status;
}

void kh_record_linear(kh_run *run, size_t count, float *const *y, const float *x, size_t T,
                      const kh_weight *const *w)
{
    linear_record *o = kh_tape_push(run, linear_back, sizeof *o);
    int trained = 0;
    if (!o) return;
    o->x = x;
    o->T = T;
    o->cols = w[0]->cols;
    o->count = count;
    for (size_t i = 0; i < count; i++) {
        o->parts[i] = (linear_part){*w[i], y[i]};
        trained |= w[i]->type == KH_TYPE_F32 && kh_tape_gradient_of(run, w[i]->data) != NULL;
        trained |= kh_lora_is_trained(run, w[i]);
    }
    if (trained) o->kept = kh_tape_keep(run, x, T * o->cols * sizeof *x);
}
