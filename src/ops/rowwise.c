/* Ops on rows: each is a kernel over one row and a parallel loop over blocks of rows.
 *
 * A block holds about 16,384 elements (a fixed function of the row's width): 10 us of work and more,
 * against less than one for handing it out; a decoding step's single row never leaves the caller. */
#include "ops/rowwise.h"

#include "ops/lora.h"
#include "ops/rowwise_back.h"
#include "ops/unpack.h"
#include "run/tape.h"

#include <string.h>

enum { BLOCK_ELEMENTS = 16384, ONES = 64 };

typedef struct rows_job rows_job;
struct rows_job {
    void (*row)(const rows_job *job, size_t r);
    const kh_kern *kern;
    float *y;
    const float *x; /* NULL where the op has one operand */
    size_t rows, n, block;
    float number; /* eps, cap or scale */
    kh_act act;
    const kh_weight *w;
    const int32_t *tokens;
    const uint32_t *at; /* [rows] of x; NULL: the same rows */
    kh_unpack unpack;
};

static void block_item(void *context, size_t item, int worker)
{
    const rows_job *j = context;
    (void)worker;
    size_t end = (item + 1) * j->block;
    for (size_t r = item * j->block; r < end && r < j->rows; r++) j->row(j, r);
}

static void run_rows(kh_run *run, rows_job *j)
{
    if (j->rows == 0 || j->n == 0) return;
    j->kern = run->kern;
    j->block = j->n < BLOCK_ELEMENTS ? BLOCK_ELEMENTS / j->n : 1;
    kh_parallel_for(run->pool, (j->rows + j->block - 1) / j->block, block_item, j);
}

/* Gain and bias are of the op, x of the row. */
typedef struct norm_job {
    rows_job rows;
    const float *gain, *bias; /* [n] or NULL */
} norm_job;

static void norm_row(const rows_job *j, size_t r)
{
    const norm_job *norm = (const norm_job *)(const void *)j;
    j->kern->rmsnorm(j->y + r * j->n, j->x + r * j->n, norm->gain, j->number, j->n);
}

void kh_op_rmsnorm(kh_run *run, float *y, const float *x, const float *gain, float eps, size_t rows,
                   size_t n)
{
    if (kh_tape_wants(run)) kh_record_rmsnorm(run, y, x, gain, eps, rows, n);
    norm_job j = {{.row = norm_row, .y = y, .x = x, .number = eps, .rows = rows, .n = n}, gain, 0};
    run_rows(run, &j.rows);
}

static void layernorm_row(const rows_job *j, size_t r)
{
    const norm_job *norm = (const norm_job *)(const void *)j;
    j->kern->layernorm(j->y + r * j->n, j->x + r * j->n, norm->gain, norm->bias, j->number, j->n);
}

void kh_op_layernorm(kh_run *run, float *y, const float *x, const float *gain, const float *bias,
                     float eps, size_t rows, size_t n)
{
    if (kh_tape_wants(run)) kh_record_layernorm(run, y, x, gain, bias, eps, rows, n);
    norm_job j = {
        {.row = layernorm_row, .y = y, .x = x, .number = eps, .rows = rows, .n = n}, gain, bias};
    run_rows(run, &j.rows);
}

static void add_row(const rows_job *j, size_t r)
{
    j->kern->add(j->y + r * j->n, j->x + r * j->n, j->n);
}

void kh_op_add(kh_run *run, float *y, const float *x, size_t rows, size_t n)
{
    if (kh_tape_wants(run)) kh_record_add(run, y, x, rows, n);
    run_rows(run, &(rows_job){.row = add_row, .y = y, .x = x, .rows = rows, .n = n});
}

static void bias_row(const rows_job *j, size_t r)
{
    j->kern->add(j->y + r * j->n, j->x, j->n);
}

void kh_op_bias(kh_run *run, float *y, const float *bias, size_t rows, size_t n)
{
    if (kh_tape_wants(run)) kh_record_bias(run, y, bias, rows, n);
    run_rows(run, &(rows_job){.row = bias_row, .y = y, .x = bias, .rows = rows, .n = n});
}

static void product_row(const kh_kern *kern, kh_act act, float *y, const float *up, size_t n)
{
    switch (act) {
    case KH_ACT_SILU: kern->silu_mul(y, up, n); break;
    case KH_ACT_GELU_TANH: kern->gelu_mul(y, up, n); break;
    case KH_ACT_GELU_ERF: kern->gelu_erf_mul(y, up, n); break;
    case KH_ACT_RELU: kern->relu_mul(y, up, n); break;
    }
}

/* Without a second factor: a product with ones, a piece at a time. */
void kh_act_row(const kh_kern *kern, kh_act act, float *y, const float *up, size_t n)
{
    float ones[ONES];
    if (up) {
        product_row(kern, act, y, up, n);
        return;
    }
    for (size_t i = 0; i < ONES; i++) ones[i] = 1.0f;
    for (size_t i = 0; i < n; i += ONES)
        product_row(kern, act, y + i, ones, n - i < ONES ? n - i : ONES);
}

static void glu_row(const rows_job *j, size_t r)
{
    kh_act_row(j->kern, j->act, j->y + r * j->n, j->x ? j->x + r * j->n : NULL, j->n);
}

void kh_op_glu(kh_run *run, float *gate, const float *up, size_t rows, size_t n, kh_act act)
{
    if (kh_tape_wants(run)) kh_record_glu(run, gate, up, rows, n, act);
    run_rows(run,
             &(rows_job){.row = glu_row, .y = gate, .x = up, .rows = rows, .n = n, .act = act});
}

static void scale_row(const rows_job *j, size_t r)
{
    j->kern->scale(j->y + r * j->n, j->number, j->n);
}

void kh_op_scale(kh_run *run, float *y, float a, size_t rows, size_t n)
{
    if (kh_tape_wants(run)) kh_record_scale(run, y, a, rows, n);
    run_rows(run, &(rows_job){.row = scale_row, .y = y, .number = a, .rows = rows, .n = n});
}

static void softcap_row(const rows_job *j, size_t r)
{
    j->kern->softcap(j->y + r * j->n, j->number, j->n);
}

void kh_op_softcap(kh_run *run, float *y, float cap, size_t rows, size_t n)
{
    run_rows(run, &(rows_job){.row = softcap_row, .y = y, .number = cap, .rows = rows, .n = n});
    if (kh_tape_wants(run)) kh_record_softcap(run, y, cap, rows, n);
}

static void copy_row(const rows_job *j, size_t r)
{
    size_t from = j->at ? j->at[r] : r;
    memcpy(j->y + r * j->n, j->x + from * j->n, j->n * sizeof *j->y);
}

void kh_op_copy(kh_run *run, float *y, const float *x, size_t rows, size_t n)
{
    if (x == y) return;
    if (kh_tape_wants(run)) kh_record_copy(run, y, x, rows, n);
    run_rows(run, &(rows_job){.row = copy_row, .y = y, .x = x, .rows = rows, .n = n});
}

void kh_op_gather(kh_run *run, float *y, const float *x, const uint32_t *rows, size_t count,
                  size_t n)
{
    if (kh_tape_wants(run)) kh_record_gather(run, y, x, rows, count, n);
    run_rows(run, &(rows_job){.row = copy_row, .y = y, .x = x, .at = rows, .rows = count, .n = n});
}

static void embed_row(const rows_job *j, size_t r)
{
    const kh_weight *w = j->w;
    const char *from = (const char *)w->data + (size_t)j->tokens[r] * w->row_bytes;
    float *y = j->y + r * j->n;
    if (j->unpack.f32)
        j->unpack.f32(y, from, j->n);
    else
        memcpy(y, from, j->n * sizeof *y);
    if (w->lora) kh_lora_add_rows(w->lora, y, (size_t)j->tokens[r], 1, j->n);
    if (j->number != 1.0f) j->kern->scale(y, j->number, j->n);
}

void kh_op_embed(kh_run *run, float *y, const kh_weight *w, const int32_t *tokens, size_t T,
                 float scale)
{
    if (kh_tape_wants(run)) kh_record_embed(run, y, w, tokens, T, scale);
    run_rows(run, &(rows_job){.row = embed_row,
                              .y = y,
                              .number = scale,
                              .rows = T,
                              .n = w->cols,
                              .w = w,
                              .tokens = tokens,
                              .unpack = kh_unpack_of(run->kern, w->type)});
}
