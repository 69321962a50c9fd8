/* y = W x on the file's own weights.
 *
 * Activations stay f32 unless the run asks for 8 bits. Five paths, chosen by the problem alone:
 *
 *   rows       T <= 4 (decoding). Bound by the memory that holds W: native kernels of every type read
 *              the file's blocks.
 *   product    T > 4 (prompts). Bound by arithmetic: rows are unpacked and turned into panels of 16
 *              lanes in the worker's scratch, which meet all T tokens.
 *   library    f32 asked for, or no vectors: 64 rows are unpacked and multiplied by oneDNN (T > 4) or
 *              by the dense row kernel. An independent way to the same numbers.
 *   rows q8, panels q8     KH_COMPUTE_Q8: x in 8 bits, integer kernels, for few and many tokens.
 *
 *     x [T][cols] --pack--> tiles [T/12][cols][12]  |  --quantise--> q, d, s     (step memory, once)
 *     W item --unpack--> 16 rows x 256 --pack--> panel [cols][16]                (worker's scratch)
 *
 * Unpacking is paid once a batch, and no second copy of the weights exists: f32 panels that are kept
 * would take 4 to 7 times the file and save 5 % of a prompt of 512 tokens (SmolLM2: 73 % of its time is
 * product_gemm, 13 % attention). Why f32: 8 bits cost a KL of 2e-3 to 3e-3 nats and 3 to 4 % of the top
 * tokens (1,000 tokens; SmolLM2 135M, Gemma 3 270M; f32 has 1e-6 and 0.1 %) and win time only where the
 * processor has 8-bit dot products (without, on AVX-512: Q4_1 and Q4_0 the same, Q8_0 3/4 of the speed).
 *
 * An item is 16 to 128 rows of one weight, whatever the number of threads (decoding: 128 instead of 32
 * let the stream of an item's memory get going, 14 to 27 % more tokens a second; an even number of
 * items gained nothing more); items of several weights (q, k, v; gate, up) share one parallel loop.
 * Everything is checked and taken before that loop, so nothing in it can fail.
 *
 * What adapters add (ops/lora.c) comes behind the product, whatever its path. */
#include "ops/linear.h"

#include "base/fail.h"
#include "kern/panel.h"
#include "ops/linear_back.h"
#include "ops/lora.h"
#include "ops/sgemm.h"
#include "ops/unpack.h"
#include "run/tape.h"

#include <string.h>

enum {
    FEW = 4,
    ROWS_ITEM = 128,
    PANEL_ITEM = KH_PANEL_ROWS,
    LIBRARY_ITEM = 64,
    QUANTIZE_ITEM = 16,
    SLICE = 256 /* inputs unpacked at once: 16 KiB, a multiple of every block */
};
/* Panels of an item: half of a small second cache. 64 rows of 8,192 inputs instead of 32 gain nothing,
 * though x, which is larger than a cache then, is read half as often. */
#define PRODUCT_BYTES ((size_t)256 << 10)

typedef enum path { PATH_ROWS, PATH_PRODUCT, PATH_LIBRARY, PATH_ROWS_Q8, PATH_PANELS_Q8 } path;

typedef struct part {
    const kh_weight *w;
    float *y; /* [T][w->rows] */
    kh_unpack unpack;
    path path;
    size_t end; /* items of this part and those before it */
} part;

typedef struct job {
    const kh_kern *kern;
    kh_arena *scratch;
    const float *x; /* [T][cols] */
    int8_t *q;      /* [T][cols], and its scales */
    float *d;       /* [T][cols/32] */
    float *s;       /* [T][cols/16] */
    float *tiles;   /* [(T + 11) / 12][cols][12] */
    size_t T, cols, count;
    part parts[KH_LINEAR_MANY];
} job;

static size_t item_rows(path p, size_t cols)
{
    switch (p) {
    case PATH_PRODUCT: return 64 * cols * sizeof(float) <= PRODUCT_BYTES ? 64 : 32;
    case PATH_LIBRARY: return LIBRARY_ITEM;
    case PATH_PANELS_Q8: return PANEL_ITEM;
    case PATH_ROWS:
    case PATH_ROWS_Q8: break;
    }
    return ROWS_ITEM;
}

static path path_of(const kh_run *run, const kh_unpack *unpack, size_t T)
{
    if (run->compute == KH_COMPUTE_F32) return PATH_LIBRARY;
    if (run->compute == KH_COMPUTE_Q8 && unpack->q8)
        return T <= FEW ? PATH_ROWS_Q8 : PATH_PANELS_Q8;
    if (T <= FEW) return PATH_ROWS;
    return run->kern->isa == KH_ISA_REF ? PATH_LIBRARY : PATH_PRODUCT;
}

static size_t tiles_of(size_t T)
{
    return (T + KH_PRODUCT_TILE - 1) / KH_PRODUCT_TILE;
}

/* What a call takes from the step: q, d and s for 8-bit products, tiles for the others; both when
 * dense weights stand beside quantised ones. */
static size_t step_need(size_t cols, size_t T)
{
    size_t q8 = kh_arena_need(T * cols) + kh_arena_need(T * (cols / 32) * sizeof(float)) +
                kh_arena_need(T * (cols / 16) * sizeof(float));
    size_t tiles = kh_arena_need(tiles_of(T) * KH_PRODUCT_TILE * cols * sizeof(float));
    return T > FEW ? q8 + tiles : q8;
}

/* Scratch of one item; the takes below are in the same sizes. */
static size_t scratch_need(path p, size_t cols, size_t T)
{
    size_t groups = cols / 16 * sizeof(float), rows = item_rows(p, cols);
    switch (p) {
    case PATH_ROWS: return 0;
    case PATH_PRODUCT:
        return kh_arena_need(rows * cols * sizeof(float)) +
               kh_arena_need(KH_PANEL_ROWS * SLICE * sizeof(float));
    case PATH_LIBRARY: return kh_arena_need(rows * cols * sizeof(float));
    case PATH_ROWS_Q8: return kh_arena_need(cols) + 2 * kh_arena_need(groups);
    case PATH_PANELS_Q8: break;
    }
    return kh_arena_need(PANEL_ITEM * cols) + 2 * kh_arena_need(PANEL_ITEM * groups) +
           kh_arena_need(kh_panel_bytes(cols)) + kh_arena_need(T * PANEL_ITEM * sizeof(float));
}

void kh_linear_need(const kh_weight *weight, size_t T, size_t *step, size_t *scratch)
{
    static const path few[] = {PATH_ROWS, PATH_LIBRARY, PATH_ROWS_Q8};
    static const path many[] = {PATH_PRODUCT, PATH_LIBRARY, PATH_PANELS_Q8};
    if (!weight->name) return;
    size_t own = step_need(weight->cols, T);
    if (own > *step) *step = own;
    for (int i = 0; i < 3; i++) {
        size_t one = scratch_need(T <= FEW ? few[i] : many[i], weight->cols, T);
        *scratch = one > *scratch ? one : *scratch;
    }
    if (weight->lora) kh_lora_need(weight->lora, T, step, scratch);
}

/* ---- items ---- */

typedef void native_q8(float *y, const void *w, size_t row_bytes, size_t rows, const int8_t *q,
                       const float *d, const float *s, size_t n);

static native_q8 *native_q8_of(const kh_kern *kern, kh_type type)
{
    switch (type) {
    case KH_TYPE_Q4_0: return kern->gemv_q4_0;
    case KH_TYPE_Q4_1: return kern->gemv_q4_1;
    case KH_TYPE_Q5_0: return kern->gemv_q5_0;
    case KH_TYPE_Q8_0: return kern->gemv_q8_0;
    case KH_TYPE_Q4_K: return kern->gemv_q4_k;
    case KH_TYPE_Q6_K: return kern->gemv_q6_k;
    default: return NULL;
    }
}

static void rows_q8_item(const job *j, const part *p, size_t first, size_t rows, kh_arena *scratch)
{
    size_t n = j->cols, T = j->T, row_bytes = p->w->row_bytes;
    const char *at = (const char *)p->w->data + first * row_bytes;
    native_q8 *native = native_q8_of(j->kern, p->w->type);
    if (native) {
        for (size_t t = 0; t < T; t++)
            native(p->y + t * p->w->rows + first, at, row_bytes, rows, j->q + t * n,
                   j->d + t * (n / 32), j->s + t * (n / 16), n);
        return;
    }
    int8_t *q = kh_arena_take(scratch, n);
    float *d = kh_arena_take(scratch, n / 16 * sizeof *d);
    float *m = kh_arena_take(scratch, n / 16 * sizeof *m);
    for (size_t r = 0; r < rows; r++) {
        p->unpack.q8(q, d, m, at + r * row_bytes, n);
        for (size_t t = 0; t < T; t++)
            p->y[t * p->w->rows + first + r] = j->kern->dot_int_q8(
                q, d, m, j->q + t * n, j->d + t * (n / 32), j->s + t * (n / 16), n);
    }
}

static void panels_q8_item(const job *j, const part *p, size_t first, size_t rows,
                           kh_arena *scratch)
{
    size_t n = j->cols, groups = n / 16;
    int8_t *q = kh_arena_take(scratch, PANEL_ITEM * n);
    float *d = kh_arena_take(scratch, PANEL_ITEM * groups * sizeof *d);
    float *m = kh_arena_take(scratch, PANEL_ITEM * groups * sizeof *m);
    void *panel = kh_arena_take(scratch, kh_panel_bytes(n));
    const char *at = (const char *)p->w->data + first * p->w->row_bytes;
    for (size_t r = 0; r < rows; r++)
        p->unpack.q8(q + r * n, d + r * groups, m + r * groups, at + r * p->w->row_bytes, n);
    if (rows < PANEL_ITEM) {
        memset(q + rows * n, 0, (PANEL_ITEM - rows) * n);
        memset(d + rows * groups, 0, (PANEL_ITEM - rows) * groups * sizeof *d);
        memset(m + rows * groups, 0, (PANEL_ITEM - rows) * groups * sizeof *m);
    }
    j->kern->panel_pack(panel, q, d, m, n, p->unpack.bits);
    if (rows == PANEL_ITEM) {
        j->kern->panel_gemm(p->y + first, p->w->rows, panel, j->q, j->d, j->s, j->T, n,
                            p->unpack.bits);
        return;
    }
    float *y = kh_arena_take(scratch, j->T * PANEL_ITEM * sizeof *y);
    j->kern->panel_gemm(y, PANEL_ITEM, panel, j->q, j->d, j->s, j->T, n, p->unpack.bits);
    for (size_t t = 0; t < j->T; t++)
        memcpy(p->y + t * p->w->rows + first, y + t * PANEL_ITEM, rows * sizeof *y);
}

typedef void native_f32(float *y, const void *w, size_t row_bytes, size_t rows, const float *x,
                        const float *sums, size_t n);

static native_f32 *native_f32_of(const kh_kern *kern, kh_type type)
{
    switch (type) {
    case KH_TYPE_Q4_0: return kern->gemv_q4_0_f32;
    case KH_TYPE_Q4_1: return kern->gemv_q4_1_f32;
    case KH_TYPE_Q5_0: return kern->gemv_q5_0_f32;
    case KH_TYPE_Q8_0: return kern->gemv_q8_0_f32;
    case KH_TYPE_Q4_K: return kern->gemv_q4_k_f32;
    case KH_TYPE_Q6_K: return kern->gemv_q6_k_f32;
    case KH_TYPE_Q5_1: return kern->gemv_q5_1_f32;
    case KH_TYPE_Q2_K: return kern->gemv_q2_k_f32;
    case KH_TYPE_Q3_K: return kern->gemv_q3_k_f32;
    case KH_TYPE_Q5_K: return kern->gemv_q5_k_f32;
    case KH_TYPE_IQ4_NL: return kern->gemv_iq4_nl_f32;
    case KH_TYPE_IQ4_XS: return kern->gemv_iq4_xs_f32;
    default: return NULL;
    }
}

/* The kernel of the weight's type, which finds the item's rows in a near cache for all x but the first. */
static void rows_item(const job *j, const part *p, size_t first, size_t rows)
{
    size_t n = j->cols, row_bytes = p->w->row_bytes, ldy = p->w->rows;
    const char *at = (const char *)p->w->data + first * row_bytes;
    float *y = p->y + first;
    native_f32 *native = native_f32_of(j->kern, p->w->type);
    for (size_t t = 0; t < j->T; t++) {
        const float *x = j->x + t * n;
        if (native)
            native(y + t * ldy, at, row_bytes, rows, x, j->s + t * (n / 16), n);
        else if (p->w->type == KH_TYPE_F32)
            j->kern->gemv_f32(y + t * ldy, (const void *)at, n, rows, x, n);
        else if (p->w->type == KH_TYPE_F16)
            j->kern->gemv_f16(y + t * ldy, (const void *)at, n, rows, x, n);
        else if (p->w->type == KH_TYPE_BF16)
            j->kern->gemv_bf16(y + t * ldy, (const void *)at, n, rows, x, n);
    }
}

/* Rows [rows <= 16] to a panel, a slice of inputs at a time, which stays in the nearest cache. */
static void make_panel(float *panel, const job *j, const part *p, const char *at, size_t rows,
                       float *slice)
{
    size_t n = j->cols, row_bytes = p->w->row_bytes;
    if (!p->unpack.f32) {
        j->kern->product_pack(panel, KH_PANEL_ROWS, (const void *)at, rows, n);
        return;
    }
    for (size_t k = 0; k < n; k += SLICE) {
        size_t width = n - k < SLICE ? n - k : SLICE;
        for (size_t r = 0; r < rows; r++)
            p->unpack.f32(slice + r * width, at + r * row_bytes, width);
        j->kern->product_pack(panel + k * KH_PANEL_ROWS, KH_PANEL_ROWS, slice, rows, width);
        at += kh_type_row_bytes(p->w->type, width);
    }
}

static void product_item(const job *j, const part *p, size_t first, size_t rows, kh_arena *scratch)
{
    size_t n = j->cols;
    float *panels = kh_arena_take(scratch, item_rows(PATH_PRODUCT, n) * n * sizeof *panels);
    float *slice = kh_arena_take(scratch, KH_PANEL_ROWS * SLICE * sizeof *slice);
    const char *at = (const char *)p->w->data + first * p->w->row_bytes;
    for (size_t r = 0; r < rows; r += KH_PANEL_ROWS)
        make_panel(panels + r * n, j, p, at + r * p->w->row_bytes,
                   rows - r < KH_PANEL_ROWS ? rows - r : KH_PANEL_ROWS, slice);
    j->kern->product_gemm(p->y + first, p->w->rows, panels, rows, j->tiles, j->T, n);
}

static void library_item(const job *j, const part *p, size_t first, size_t rows, kh_arena *scratch)
{
    size_t n = j->cols, ldy = p->w->rows;
    const char *at = (const char *)p->w->data + first * p->w->row_bytes;
    const float *w = (const float *)(const void *)at;
    if (p->unpack.f32) {
        float *wide = kh_arena_take(scratch, LIBRARY_ITEM * n * sizeof *wide);
        for (size_t r = 0; r < rows; r++) p->unpack.f32(wide + r * n, at + r * p->w->row_bytes, n);
        w = wide;
    }
    float *y = p->y + first;
    if (j->T > FEW && kh_sgemm_nt(y, ldy, j->x, w, j->T, rows, n) == 0) return;
    for (size_t t = 0; t < j->T; t++) j->kern->gemv_f32(y + t * ldy, w, n, rows, j->x + t * n, n);
}

static void run_item(void *context, size_t item, int worker)
{
    const job *j = context;
    const part *p = j->parts;
    size_t start = 0;
    while (item >= p->end) start = p++->end;
    size_t most = item_rows(p->path, j->cols);
    size_t first = (item - start) * most, rows = p->w->rows - first;
    if (rows > most) rows = most;
    kh_arena *scratch = j->scratch + worker;
    kh_arena_mark mark = kh_arena_save(scratch);
    switch (p->path) {
    case PATH_ROWS: rows_item(j, p, first, rows); break;
    case PATH_PRODUCT: product_item(j, p, first, rows, scratch); break;
    case PATH_LIBRARY: library_item(j, p, first, rows, scratch); break;
    case PATH_ROWS_Q8: rows_q8_item(j, p, first, rows, scratch); break;
    case PATH_PANELS_Q8: panels_q8_item(j, p, first, rows, scratch); break;
    }
    kh_arena_rewind(scratch, mark);
}

/* ---- the call ---- */

static void quantize_item(void *context, size_t item, int worker)
{
    const job *j = context;
    size_t n = j->cols, end = (item + 1) * QUANTIZE_ITEM;
    (void)worker;
    for (size_t t = item * QUANTIZE_ITEM; t < end && t < j->T; t++)
        j->kern->quantize_q8(j->q + t * n, j->d + t * (n / 32), j->s + t * (n / 16), j->x + t * n,
                             n);
}

static kh_status quantize(kh_run *run, job *j)
{
    KH_TRY(kh_arena_new(run->step, &j->q, j->T, j->cols));
    KH_TRY(kh_arena_new(run->step, &j->d, j->T, j->cols / 32 * sizeof *j->d));
    KH_TRY(kh_arena_new(run->step, &j->s, j->T, j->cols / 16 * sizeof *j->s));
    kh_parallel_for(run->pool, (j->T + QUANTIZE_ITEM - 1) / QUANTIZE_ITEM, quantize_item, j);
    return KH_OK;
}

static void tile_item(void *context, size_t item, int worker)
{
    const job *j = context;
    size_t n = j->cols, first = item * KH_PRODUCT_TILE, rows = j->T - first;
    (void)worker;
    if (rows > KH_PRODUCT_TILE) rows = KH_PRODUCT_TILE;
    j->kern->product_pack(j->tiles + first * n, KH_PRODUCT_TILE, j->x + first * n, rows, n);
}

static kh_status make_tiles(kh_run *run, job *j)
{
    size_t tiles = tiles_of(j->T);
    KH_TRY(kh_arena_new(run->step, &j->tiles, tiles, KH_PRODUCT_TILE * j->cols * sizeof *j->tiles));
    kh_parallel_for(run->pool, tiles, tile_item, j);
    return KH_OK;
}

static kh_status make_sums(kh_run *run, job *j)
{
    size_t groups = j->cols / 16;
    KH_TRY(kh_arena_new(run->step, &j->s, j->T, groups * sizeof *j->s));
    for (size_t t = 0; t < j->T; t++)
        j->kern->sum_16(j->s + t * groups, j->x + t * j->cols, j->cols);
    return KH_OK;
}

/* What x is needed as besides itself. */
static kh_status prepare(kh_run *run, job *j)
{
    int wants[PATH_PANELS_Q8 + 1] = {0};
    for (size_t i = 0; i < j->count; i++) wants[j->parts[i].path] = 1;
    if (wants[PATH_ROWS_Q8] || wants[PATH_PANELS_Q8]) KH_TRY(quantize(run, j));
    if (wants[PATH_PRODUCT]) KH_TRY(make_tiles(run, j));
    if (wants[PATH_ROWS] && !wants[PATH_ROWS_Q8] && j->cols >= 16) KH_TRY(make_sums(run, j));
    return KH_OK;
}

static kh_status check_scratch(const kh_run *run, const job *j)
{
    size_t need = 0;
    for (size_t i = 0; i < j->count; i++) {
        size_t one = scratch_need(j->parts[i].path, j->cols, j->T);
        need = one > need ? one : need;
    }
    for (int i = 0; i < run->pool->threads; i++) {
        size_t left = run->scratch[i].size - run->scratch[i].used;
        if (left < need)
            KH_FAIL(KH_ERR_MEMORY, "the product with %s needs %zu bytes of scratch, %zu are left",
                    j->parts[0].w->name, need, left);
    }
    return KH_OK;
}

kh_status kh_op_linear_many(kh_run *run, size_t count, float *const *y, const float *x, size_t T,
                            const kh_weight *const *w)
{
    if (count == 0 || T == 0) return KH_OK;
    if (count > KH_LINEAR_MANY)
        KH_FAIL(KH_ERR_ARGUMENT, "a product takes at most %d weights at once, found %zu",
                KH_LINEAR_MANY, count);
    job j = {.kern = run->kern, .scratch = run->scratch, .x = x, .T = T, .cols = w[0]->cols};
    size_t items = 0;
    for (size_t i = 0; i < count; i++) {
        if (w[i]->cols != j.cols)
            KH_FAIL(KH_ERR_ARGUMENT, "weights of one product: %s has %zu columns, %s %zu",
                    w[0]->name, j.cols, w[i]->name, w[i]->cols);
        part *p = &j.parts[j.count++];
        *p = (part){.w = w[i], .y = y[i], .unpack = kh_unpack_of(run->kern, w[i]->type)};
        p->path = path_of(run, &p->unpack, T);
        size_t most = item_rows(p->path, j.cols);
        items += (w[i]->rows + most - 1) / most;
        p->end = items;
    }
    KH_TRY(check_scratch(run, &j));
    if (kh_tape_wants(run)) kh_record_linear(run, count, y, x, T, w);
    kh_arena_mark mark = kh_arena_save(run->step);
    kh_status status = prepare(run, &j);
    if (status == KH_OK) kh_parallel_for(run->pool, items, run_item, &j);
    kh_arena_rewind(run->step, mark);
    if (status != KH_OK) return status;
    for (size_t i = 0; i < count; i++)
        if (w[i]->lora) return kh_op_lora(run, count, y, x, T, w);
    return KH_OK;
}

kh_status kh_op_linear(kh_run *run, float *y, const float *x, size_t T, const kh_weight *w)
{
    return kh_op_linear_many(run, 1, &y, x, T, &w);
}
