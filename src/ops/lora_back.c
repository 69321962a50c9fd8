/* Adapters on a tape.
 *
 *     u  = scale x A^T     du = scale y' B      [T][r] both, of the step
 *     B' += y'^T u         A' += du^T x         x' += du A
 *
 * u is computed again: r numbers a row are cheaper made than kept. Rows go in slices of 256, which are the items of
 * what is made for rows, and ascend inside the items of what is summed over them; so neither threads nor chunks
 * of a multiple of 256 rows change a bit. */
#include "ops/lora_back.h"

#include "base/fail.h"
#include "ops/sgemm.h"
#include "run/tape.h"

#include <string.h>

enum { SLICE = 256, ROWS = 512 };

typedef struct job {
    const kh_lora *lora;
    const float *dy, *x; /* [T][rows], [T][cols] */
    float *dx, *u, *du;  /* [T][cols], [T][r], [T][r] */
    float *da, *db;      /* [r][cols], [rows][r]; NULL: not trained */
    const kh_kern *kern;
    size_t T, rows, cols;
} job;

static size_t pieces(size_t n, size_t of)
{
    return (n + of - 1) / of;
}

static size_t part(size_t n, size_t first, size_t most)
{
    return n - first < most ? n - first : most;
}

/* u, du and dx of a slice. */
static void slice_item(void *context, size_t item, int worker)
{
    const job *j = context;
    size_t t = item * SLICE, T = part(j->T, t, SLICE), r = j->lora->r;
    (void)worker;
    float *u = j->u + t * r, *du = j->du + t * r;
    memset(du, 0, T * r * sizeof *du);
    kh_sgemm_nn(du, r, j->dy + t * j->rows, j->rows, j->lora->b, r, T, r, j->rows);
    j->kern->scale(du, j->lora->scale, T * r);
    if (j->dx) kh_sgemm_nn(j->dx + t * j->cols, j->cols, du, r, j->lora->a, j->cols, T, j->cols, r);
    if (!j->db) return;
    kh_sgemm_nt(u, r, j->x + t * j->cols, j->lora->a, T, r, j->cols);
    j->kern->scale(u, j->lora->scale, T * r);
}

static void b_item(void *context, size_t item, int worker)
{
    const job *j = context;
    size_t first = item * ROWS, r = j->lora->r;
    (void)worker;
    for (size_t t = 0; t < j->T; t += SLICE)
        kh_sgemm_tn(j->db + first * r, r, j->dy + t * j->rows + first, j->rows, j->u + t * r, r,
                    part(j->rows, first, ROWS), r, part(j->T, t, SLICE));
}

static void a_item(void *context, size_t item, int worker)
{
    const job *j = context;
    size_t first = item * ROWS, r = j->lora->r;
    (void)worker;
    for (size_t t = 0; t < j->T; t += SLICE)
        kh_sgemm_tn(j->da + first, j->cols, j->du + t * r, r, j->x + t * j->cols + first, j->cols,
                    r, part(j->cols, first, ROWS), part(j->T, t, SLICE));
}

int kh_lora_is_trained(const kh_run *run, const kh_weight *w)
{
    for (const kh_lora *lora = w->lora; lora; lora = lora->next)
        if (kh_tape_gradient_of(run, lora->a) || kh_tape_gradient_of(run, lora->b)) return 1;
    return 0;
}

kh_status kh_lora_back(kh_run *run, const kh_weight *w, const float *dy, const float *x, float *dx,
                       size_t T)
{
    for (const kh_lora *lora = w->lora; lora; lora = lora->next) {
        job j = {.lora = lora,
                 .dy = dy,
                 .x = x,
                 .dx = dx,
                 .da = x ? kh_tape_gradient_of(run, lora->a) : NULL,
                 .db = x ? kh_tape_gradient_of(run, lora->b) : NULL,
                 .kern = run->kern,
                 .T = T,
                 .rows = w->rows,
                 .cols = w->cols};
        kh_arena_mark mark = kh_arena_save(run->step);
        KH_TRY(kh_arena_new(run->step, &j.u, T * lora->r, sizeof *j.u));
        KH_TRY(kh_arena_new(run->step, &j.du, T * lora->r, sizeof *j.du));
        kh_parallel_for(run->pool, pieces(T, SLICE), slice_item, &j);
        if (j.db) kh_parallel_for(run->pool, pieces(w->rows, ROWS), b_item, &j);
        if (j.da) kh_parallel_for(run->pool, pieces(w->cols, ROWS), a_item, &j);
        kh_arena_rewind(run->step, mark);
    }
    return KH_OK;
}
