/* y += scale * B (A x): the low-rank part of a product with an adapted weight.
 *
 *     x [T][cols]  --A [r][cols]-->  u [T][r]  --B [rows][r]-->  tile  --scale, add-->  y [T][rows]
 *                                    step                        worker's scratch
 *
 * Weights that share x (q, k, v; gate, up) share the two parallel loops; where one of them has several
 * adapters, the first of each go together, then the second. Sums are f32, in the order of the adapters, and
 * tiles depend on the sizes alone, so the bits do not depend on threads.
 *
 * The adapter stays a pair of thin matrices: W, which is mapped and mostly quantised, is never written,
 * several adapters with different strengths share one file, and training has two small arrays to change.
 * Merging instead costs W in f32 and is a conversion (kh_lora_add_rows, api/convert_api.c).
 *
 * Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021). */
#include "ops/lora.h"

#include "base/fail.h"
#include "ops/linear.h"
#include "ops/sgemm.h"

enum {
    FEW = 4,       /* rows of x that are multiplied one by one */
    A_ROWS = 64,   /* of A in an item of the first loop */
    A_TOKENS = 64, /* of x */
    B_ROWS = 256,  /* of B in an item of the second loop */
    B_TOKENS = 128 /* of u */
};

typedef struct part {
    const kh_weight *w;
    const kh_lora *lora;
    float *y /* [T][w->rows] */, *u /* [T][r] */;
    size_t a_end, b_end; /* items of this part and those before it */
} part;

typedef struct job {
    const kh_kern *kern;
    kh_arena *scratch;
    const float *x; /* [T][cols] */
    size_t T, cols, count;
    part parts[KH_LINEAR_MANY];
} job;

static size_t pieces(size_t n, size_t of)
{
    return (n + of - 1) / of;
}

static size_t tile_bytes(size_t T)
{
    return (T < B_TOKENS ? T : B_TOKENS) * B_ROWS * sizeof(float);
}

void kh_lora_need(const kh_lora *lora, size_t T, size_t *step, size_t *scratch)
{
    size_t tile = kh_arena_need(tile_bytes(T));
    for (; lora; lora = lora->next) {
        size_t own = KH_LINEAR_MANY * kh_arena_need(T * lora->r * sizeof(float));
        *step = own > *step ? own : *step;
    }
    *scratch = tile > *scratch ? tile : *scratch;
}

/* y [T][rows] (ldy apart) = x [T][n] w^T, w [rows][n]. */
static void product(const kh_kern *kern, float *y, size_t ldy, const float *x, const float *w,
                    size_t T, size_t rows, size_t n)
{
    if (T > FEW && kh_sgemm_nt(y, ldy, x, w, T, rows, n) == 0) return;
    for (size_t t = 0; t < T; t++) kern->gemv_f32(y + t * ldy, w, n, rows, x + t * n, n);
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void a_item(void *context, size_t item, int worker)
{
    const job *j = context;
    const part *p = j->parts;
    size_t start = 0;
    (void)worker;
    while (item >= p->a_end) start = p++->a_end;
    size_t across = pieces(p->lora->r, A_ROWS), r = p->lora->r, n = j->cols;
    size_t t = (item - start) / across * A_TOKENS, row = (item - start) % across * A_ROWS;
    product(j->kern, p->u + t * r + row, r, j->x + t * n, p->lora->a + row * n,
            least(j->T - t, A_TOKENS), least(r - row, A_ROWS), n);
}

static void b_item(void *context, size_t item, int worker)
{
    const job *j = context;
    const part *p = j->parts;
    size_t start = 0;
    while (item >= p->b_end) start = p++->b_end;
    size_t across = pieces(p->w->rows, B_ROWS), r = p->lora->r, ldy = p->w->rows;
    size_t t = (item - start) / across * B_TOKENS, row = (item - start) % across * B_ROWS;
    size_t tokens = least(j->T - t, B_TOKENS), rows = least(ldy - row, B_ROWS);
    kh_arena *scratch = j->scratch + worker;
    kh_arena_mark mark = kh_arena_save(scratch);
    float *tile = kh_arena_take(scratch, tile_bytes(j->T));
    float scale = p->lora->scale;
    product(j->kern, tile, rows, p->u + t * r, p->lora->b + row * r, tokens, rows, r);
    for (size_t i = 0; i < tokens; i++) {
        float *y = p->y + (t + i) * ldy + row;
        for (size_t k = 0; k < rows; k++) y[k] += scale * tile[i * rows + k];
    }
    kh_arena_rewind(scratch, mark);
}

static kh_status check_scratch(const kh_run *run, size_t T)
{
    size_t need = kh_arena_need(tile_bytes(T));
    for (int i = 0; i < run->pool->threads; i++)
        if (run->scratch[i].size - run->scratch[i].used < need)
            KH_FAIL(KH_ERR_MEMORY, "the product with an adapter needs %zu bytes of scratch", need);
    return KH_OK;
}

/* The parts of `next`, which moves on to what comes behind them. */
static kh_status gather(kh_run *run, job *j, const kh_lora **next, float *const *y,
                        const kh_weight *const *w, size_t count)
{
    size_t a = 0, b = 0;
    j->count = 0;
    for (size_t i = 0; i < count; i++) {
        if (!next[i]) continue;
        part *p = &j->parts[j->count++];
        *p = (part){.w = w[i], .lora = next[i], .y = y[i]};
        KH_TRY(kh_arena_new(run->step, &p->u, j->T, p->lora->r * sizeof *p->u));
        p->a_end = a += pieces(p->lora->r, A_ROWS) * pieces(j->T, A_TOKENS);
        p->b_end = b += pieces(w[i]->rows, B_ROWS) * pieces(j->T, B_TOKENS);
        next[i] = next[i]->next;
    }
    return KH_OK;
}

kh_status kh_op_lora(kh_run *run, size_t count, float *const *y, const float *x, size_t T,
                     const kh_weight *const *w)
{
    const kh_lora *next[KH_LINEAR_MANY];
    job j = {.kern = run->kern, .scratch = run->scratch, .x = x, .T = T, .cols = w[0]->cols};
    KH_TRY(check_scratch(run, T));
    for (size_t i = 0; i < count; i++) next[i] = w[i]->lora;
    for (;;) {
        kh_arena_mark mark = kh_arena_save(run->step);
        kh_status status = gather(run, &j, next, y, w, count);
        if (status == KH_OK && j.count > 0) {
            kh_parallel_for(run->pool, j.parts[j.count - 1].a_end, a_item, &j);
            kh_parallel_for(run->pool, j.parts[j.count - 1].b_end, b_item, &j);
        }
        kh_arena_rewind(run->step, mark);
        if (status != KH_OK || j.count == 0) return status;
    }
}

void kh_lora_add_rows(const kh_lora *lora, float *rows, size_t first, size_t count, size_t cols)
{
    for (; lora; lora = lora->next)
        for (size_t i = 0; i < count; i++) {
            const float *b = lora->b + (first + i) * lora->r;
            float *y = rows + i * cols;
            for (size_t k = 0; k < lora->r; k++) {
                const float *a = lora->a + k * cols;
                float factor = lora->scale * b[k];
                for (size_t c = 0; c < cols; c++) y[c] += factor * a[c];
            }
        }
}
