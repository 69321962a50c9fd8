/* Products on a tape: y = W x, for some weights over one x.
 *
 *     x' += y' W         rows of x' in slices of 256, columns in blocks: one item each
 *     W' += y'^T x       rows of W' in blocks of 128: one item each, slices of rows of x ascending
 *
 * Both are library products on fixed pieces (ops/sgemm.h), each on one thread. Slices count from the first row of
 * the call, so rows that come in chunks of a multiple of 256 give the same bits in any chunks; blocks depend on
 * the weight alone. W' is read and written once for every slice: 1 / 128 of the multiplications.
 *
 * A weight that is not trained needs no x, and is unpacked block by block where its type is no float. */
#include "ops/linear_back.h"

#include "base/fail.h"
#include "ops/lora_back.h"
#include "ops/sgemm.h"
#include "ops/unpack.h"
#include "run/tape.h"

#include <string.h>

enum { SLICE = 256, COLUMNS = 512, ROWS = 128, UNPACKED = 64 };

typedef struct record {
    kh_tape_record record;
    size_t count, T, cols;
    const float *x;    /* buffer of the pass */
    const float *kept; /* [T][cols] what it held; NULL: no weight is trained */
    struct {
        kh_weight w;
        float *y;
    } parts[KH_LINEAR_MANY];
} record;

typedef struct job {
    const kh_run *run;
    const kh_weight *w;
    const float *dy, *x; /* [T][rows], [T][cols] */
    float *dx, *dw;      /* [T][cols], [rows][cols] */
    size_t T;
} job;

static size_t ceiling(size_t n, size_t of)
{
    return (n + of - 1) / of;
}

static void input_item(void *context, size_t item, int worker)
{
    const job *j = context;
    size_t blocks = ceiling(j->w->cols, COLUMNS), cols = j->w->cols, rows = j->w->rows;
    size_t t = item / blocks * SLICE, c = item % blocks * COLUMNS;
    size_t T = j->T - t < SLICE ? j->T - t : SLICE, n = cols - c < COLUMNS ? cols - c : COLUMNS;
    const kh_weight *w = j->w;
    if (w->type == KH_TYPE_F32) {
        kh_sgemm_nn(j->dx + t * cols + c, cols, j->dy + t * rows, rows, (const float *)w->data + c,
                    cols, T, n, rows);
        return;
    }
    kh_unpack unpack = kh_unpack_of(j->run->kern, w->type);
    kh_arena *scratch = &j->run->scratch[worker];
    kh_arena_mark mark = kh_arena_save(scratch);
    float *wide = kh_arena_take(scratch, UNPACKED * cols * sizeof *wide);
    for (size_t r = 0; r < rows; r += UNPACKED) {
        size_t some = rows - r < UNPACKED ? rows - r : UNPACKED;
        for (size_t i = 0; i < some; i++)
            unpack.f32(wide + i * cols, (const char *)w->data + (r + i) * w->row_bytes, cols);
        kh_sgemm_nn(j->dx + t * cols + c, cols, j->dy + t * rows + r, rows, wide + c, cols, T, n,
                    some);
    }
    kh_arena_rewind(scratch, mark);
}

static void weight_item(void *context, size_t item, int worker)
{
    const job *j = context;
    size_t cols = j->w->cols, rows = j->w->rows, r = item * ROWS;
    size_t n = rows - r < ROWS ? rows - r : ROWS;
    (void)worker;
    for (size_t t = 0; t < j->T; t += SLICE)
        kh_sgemm_tn(j->dw + r * cols, cols, j->dy + t * rows + r, rows, j->x + t * cols, cols, n,
                    cols, j->T - t < SLICE ? j->T - t : SLICE);
}

static kh_status back(kh_run *run, kh_tape_record *any)
{
    const record *r = (const record *)(const void *)any;
    for (size_t i = 0; i < r->count; i++) {
        const kh_weight *w = &r->parts[i].w;
        float *dy = kh_tape_twin_of(run, r->parts[i].y);
        job j = {.run = run, .w = w, .dy = dy, .x = r->kept, .T = r->T};
        if (!dy) continue;
        j.dw = r->kept ? kh_tape_gradient_of(run, w->data) : NULL;
        if (j.dw) kh_parallel_for(run->pool, ceiling(w->rows, ROWS), weight_item, &j);
    }
    for (size_t i = 0; i < r->count; i++) {
        const kh_weight *w = &r->parts[i].w;
        float *dy = kh_tape_twin_of(run, r->parts[i].y);
        job j = {.run = run, .w = w, .dy = dy, .T = r->T};
        j.dx = kh_tape_twin_of(run, r->x);
        if (!dy) continue;
        if (j.dx)
            kh_parallel_for(run->pool, ceiling(r->T, SLICE) * ceiling(w->cols, COLUMNS), input_item,
                            &j);
        if (w->lora) KH_TRY(kh_lora_back(run, w, dy, r->kept, j.dx, r->T));
        memset(dy, 0, r->T * w->rows * sizeof *dy);
    }
    return KH_OK;
}

void kh_record_linear(kh_run *run, size_t count, float *const *y, const float *x, size_t T,
                      const kh_weight *const *w)
{
    record *r = kh_tape_push(run, back, sizeof *r);
    if (!r) return;
    int trained = 0;
    r->count = count;
    r->T = T;
    r->cols = w[0]->cols;
    r->x = x;
    for (size_t i = 0; i < count; i++) {
        r->parts[i].w = *w[i];
        r->parts[i].y = y[i];
        trained |= kh_tape_gradient_of(run, w[i]->data) || kh_lora_is_trained(run, w[i]);
    }
    if (trained) r->kept = kh_tape_keep(run, x, T * r->cols * sizeof *x);
}
