/* Backward halves of the ops on rows.
 *
 * A row's derivative is taken in the twin of what the op wrote; an op that did not write in place then adds it
 * to the twin of what it read and clears it (run/tape.h). Gradients of gains and biases are sums over rows:
 *
 *     block of 64 rows   sums [n] of its own, rows ascending      in parallel
 *     all blocks         added to the gradient, blocks ascending
 *
 * so the bits depend on neither threads nor chunks of whole blocks: a chunk goes on where the last one ended.
 * Rows that are scattered (embedding, gather) may meet: columns are divided instead, 64 at a time, and rows
 * ascend.
 *
 * What is kept is what a derivative cannot be had without: the row before a norm or a gate, and softcap's
 * result. Shares of memory: a norm keeps one row of D, a gate two of F. */
#include "ops/rowwise_back.h"

#include "base/fail.h"
#include "run/tape.h"

#include <string.h>

enum { BLOCK = 64, COLUMNS = 64, TOKENS = 16 };

typedef struct back back;

/* What becomes of the derivative of y once it is that of x: it stays, or goes to x's twin with or without
 * what y had. */
typedef enum fate { IN_PLACE, MOVE, SHARE } fate;

typedef struct rows_record {
    kh_tape_record record;
    void (*row)(const back *b, size_t r, float *d, float *dgain,
                float *dbias); /* NULL: d as it is */
    fate fate;
    const float *y, *x;          /* written and read; a gate's x is its second factor */
    const float *kept, *kept_up; /* [rows][n] */
    const float *gain, *bias;    /* [n] */
    float number;                /* eps, cap or scale */
    kh_act act;
    size_t rows, n;
} rows_record;

struct back {
    const rows_record *o;
    const kh_kern *kern;
    float *d, *dx;         /* [rows][n] twins of y and x; dx NULL: not wanted */
    float *dgain, *dbias;  /* [n], NULL: not wanted */
    float *gains, *biases; /* [blocks][n] their parts */
};

static void block_item(void *context, size_t item, int worker)
{
    const back *b = context;
    const rows_record *o = b->o;
    size_t n = o->n, end = (item + 1) * BLOCK;
    float *gains = b->gains ? b->gains + item * n : NULL;
    float *biases = b->biases ? b->biases + item * n : NULL;
    (void)worker;
    if (gains) memset(gains, 0, n * sizeof *gains);
    if (biases) memset(biases, 0, n * sizeof *biases);
    for (size_t r = item * BLOCK; r < end && r < o->rows; r++) {
        float *d = b->d + r * n;
        if (o->row) o->row(b, r, d, gains, biases);
        if (o->fate != IN_PLACE && b->dx) b->kern->add(b->dx + r * n, d, n);
        if (o->fate == MOVE) memset(d, 0, n * sizeof *d);
    }
}

static kh_status take_parts(kh_run *run, float **parts, const float *gradient, size_t blocks,
                            size_t n)
{
    if (!gradient) return KH_OK;
    *parts = kh_tape_take(run, blocks * n * sizeof **parts);
    if (!*parts)
        KH_FAIL(KH_ERR_MEMORY, "the backward pass: no room for %zu sums of %zu on the tape", blocks,
                n);
    return KH_OK;
}

static void add_parts(const back *b, float *gradient, const float *parts, size_t blocks)
{
    for (size_t i = 0; gradient && i < blocks; i++)
        b->kern->add(gradient, parts + i * b->o->n, b->o->n);
}

static kh_status rows_back(kh_run *run, kh_tape_record *record)
{
    const rows_record *o = (const rows_record *)record;
    size_t blocks = (o->rows + BLOCK - 1) / BLOCK;
    back b = {.o = o, .kern = run->kern, .d = kh_tape_twin_of(run, o->y)};
    if (!b.d) return KH_OK;
    if (o->x) b.dx = kh_tape_twin_of(run, o->x);
    b.dgain = kh_tape_gradient_of(run, o->gain);
    b.dbias = kh_tape_gradient_of(run, o->bias);
    KH_TRY(take_parts(run, &b.gains, b.dgain, blocks, o->n));
    KH_TRY(take_parts(run, &b.biases, b.dbias, blocks, o->n));
    kh_parallel_for(run->pool, blocks, block_item, &b);
    add_parts(&b, b.dgain, b.gains, blocks);
    add_parts(&b, b.dbias, b.biases, blocks);
    return KH_OK;
}

static rows_record *push(kh_run *run, const rows_record *how)
{
    if (how->rows == 0 || how->n == 0) return NULL;
    rows_record *o = kh_tape_push(run, rows_back, sizeof *o);
    if (!o) return NULL;
    kh_tape_record head = o->record;
    *o = *how;
    o->record = head;
    return o;
}

static const float *keep(kh_run *run, const rows_record *o, const float *rows)
{
    return kh_tape_keep(run, rows, o->rows * o->n * sizeof *rows);
}

/* ---- norms ---- */

static void rmsnorm_row(const back *b, size_t r, float *d, float *dgain, float *dbias)
{
    const rows_record *o = b->o;
    (void)dbias;
    b->kern->rmsnorm_back(d, dgain, o->kept + r * o->n, o->gain, o->number, o->n);
}

void kh_record_rmsnorm(kh_run *run, float *y, const float *x, const float *gain, float eps,
                       size_t rows, size_t n)
{
    rows_record *o = push(run, &(rows_record){.row = rmsnorm_row,
                                              .fate = x == y ? IN_PLACE : MOVE,
                                              .y = y,
                                              .x = x,
                                              .gain = gain,
                                              .number = eps,
                                              .rows = rows,
                                              .n = n});
    if (o) o->kept = keep(run, o, x);
}

static void layernorm_row(const back *b, size_t r, float *d, float *dgain, float *dbias)
{
    const rows_record *o = b->o;
    b->kern->layernorm_back(d, dgain, dbias, o->kept + r * o->n, o->gain, o->number, o->n);
}

void kh_record_layernorm(kh_run *run, float *y, const float *x, const float *gain,
                         const float *bias, float eps, size_t rows, size_t n)
{
    rows_record *o = push(run, &(rows_record){.row = layernorm_row,
                                              .fate = x == y ? IN_PLACE : MOVE,
                                              .y = y,
                                              .x = x,
                                              .gain = gain,
                                              .bias = bias,
                                              .number = eps,
                                              .rows = rows,
                                              .n = n});
    if (o) o->kept = keep(run, o, x);
}

/* ---- sums, copies, factors ---- */

void kh_record_add(kh_run *run, float *y, const float *x, size_t rows, size_t n)
{
    push(run, &(rows_record){.fate = SHARE, .y = y, .x = x, .rows = rows, .n = n});
}

void kh_record_copy(kh_run *run, float *y, const float *x, size_t rows, size_t n)
{
    if (x != y) push(run, &(rows_record){.fate = MOVE, .y = y, .x = x, .rows = rows, .n = n});
}

static void bias_row(const back *b, size_t r, float *d, float *dgain, float *dbias)
{
    (void)r;
    (void)dgain;
    if (dbias) b->kern->add(dbias, d, b->o->n);
}

void kh_record_bias(kh_run *run, float *y, const float *bias, size_t rows, size_t n)
{
    push(run, &(rows_record){.row = bias_row, .y = y, .bias = bias, .rows = rows, .n = n});
}

static void scale_row(const back *b, size_t r, float *d, float *dgain, float *dbias)
{
    (void)r;
    (void)dgain;
    (void)dbias;
    b->kern->scale(d, b->o->number, b->o->n);
}

void kh_record_scale(kh_run *run, float *y, float a, size_t rows, size_t n)
{
    push(run, &(rows_record){.row = scale_row, .y = y, .number = a, .rows = rows, .n = n});
}

/* ---- activations ---- */

static void softcap_row(const back *b, size_t r, float *d, float *dgain, float *dbias)
{
    const rows_record *o = b->o;
    (void)dgain;
    (void)dbias;
    b->kern->softcap_back(d, o->kept + r * o->n, o->number, o->n);
}

void kh_record_softcap(kh_run *run, float *y, float cap, size_t rows, size_t n)
{
    rows_record *o =
        push(run, &(rows_record){.row = softcap_row, .y = y, .number = cap, .rows = rows, .n = n});
    if (o) o->kept = keep(run, o, y);
}

static void glu_row(const back *b, size_t r, float *d, float *dgain, float *dbias)
{
    const rows_record *o = b->o;
    size_t n = o->n, at = r * n;
    const float *gate = o->kept + at, *up = o->kept_up ? o->kept_up + at : NULL;
    float *dup = b->dx ? b->dx + at : NULL;
    (void)dgain;
    (void)dbias;
    switch (o->act) {
    case KH_ACT_SILU: b->kern->silu_back(d, dup, gate, up, n); break;
    case KH_ACT_GELU_TANH: b->kern->gelu_back(d, dup, gate, up, n); break;
    case KH_ACT_GELU_ERF: b->kern->gelu_erf_back(d, dup, gate, up, n); break;
    case KH_ACT_RELU: b->kern->relu_back(d, dup, gate, up, n); break;
    }
}

void kh_record_glu(kh_run *run, float *gate, const float *up, size_t rows, size_t n, kh_act act)
{
    rows_record *o = push(
        run, &(rows_record){.row = glu_row, .y = gate, .x = up, .act = act, .rows = rows, .n = n});
    if (!o) return;
    o->kept = keep(run, o, gate);
    if (up) o->kept_up = keep(run, o, up);
}

/* ---- rows that are looked up ---- */

typedef struct scatter_record {
    kh_tape_record record;
    const float *y;
    const float *x;      /* gathered from, or NULL: */
    const float *weight; /* of an embedding */
    const uint32_t *at;  /* [rows] rows of x or weight */
    float scale;
    size_t rows, n;
} scatter_record;

typedef struct scatter_job {
    const scatter_record *o;
    const kh_kern *kern;
    float *d, *into; /* into NULL: not wanted */
} scatter_job;

static void scatter_item(void *context, size_t item, int worker)
{
    const scatter_job *j = context;
    const scatter_record *o = j->o;
    size_t first = item * COLUMNS, n = o->n - first < COLUMNS ? o->n - first : COLUMNS;
    (void)worker;
    for (size_t r = 0; r < o->rows; r++) {
        float *d = j->d + r * o->n + first;
        if (j->into && o->scale != 1.0f) j->kern->scale(d, o->scale, n);
        if (j->into) j->kern->add(j->into + o->at[r] * o->n + first, d, n);
        memset(d, 0, n * sizeof *d);
    }
}

static kh_status scatter_back(kh_run *run, kh_tape_record *record)
{
    const scatter_record *o = (const scatter_record *)record;
    scatter_job j = {.o = o, .kern = run->kern, .d = kh_tape_twin_of(run, o->y)};
    if (!j.d) return KH_OK;
    j.into = o->x ? kh_tape_twin_of(run, o->x) : kh_tape_gradient_of(run, o->weight);
    kh_parallel_for(run->pool, (o->n + COLUMNS - 1) / COLUMNS, scatter_item, &j);
    return KH_OK;
}

static scatter_record *push_scatter(kh_run *run, float *y, const void *at, size_t rows, size_t n)
{
    scatter_record *o = rows && n ? kh_tape_push(run, scatter_back, sizeof *o) : NULL;
    if (!o) return NULL;
    o->y = y;
    o->at = kh_tape_keep(run, at, rows * sizeof *o->at);
    o->scale = 1.0f;
    o->rows = rows;
    o->n = n;
    return o;
}

void kh_record_gather(kh_run *run, float *y, const float *x, const uint32_t *rows, size_t count,
                      size_t n)
{
    scatter_record *o = push_scatter(run, y, rows, count, n);
    if (o) o->x = x;
}

/* A frozen type has no gradient, but what it wrote is written over all the same. */
void kh_record_embed(kh_run *run, float *y, const kh_weight *w, const int32_t *tokens, size_t T,
                     float scale)
{
    scatter_record *o = push_scatter(run, y, tokens, T, w->cols);
    if (!o) return;
    o->weight = w->type == KH_TYPE_F32 ? w->data : NULL;
    o->scale = scale;
}

/* ---- rotary positions ---- */

typedef struct rope_record {
    kh_tape_record record;
    kh_rope_style style;
    const float *x;             /* [T][heads][E] */
    const float *cosine, *sine; /* [T][n/2] */
    size_t T, heads, E, n;
} rope_record;

typedef struct rope_job {
    const rope_record *o;
    const kh_kern *kern;
    float *d;
} rope_job;

/* The transpose of a rotation, magnitude and all, is the rotation by minus its angle. */
static void rope_item(void *context, size_t item, int worker)
{
    const rope_job *j = context;
    const rope_record *o = j->o;
    size_t half = o->n / 2, end = (item + 1) * TOKENS;
    float minus[KH_ROPE_MAX / 2];
    (void)worker;
    for (size_t t = item * TOKENS; t < end && t < o->T; t++) {
        const float *cosine = o->cosine + t * half;
        for (size_t i = 0; i < half; i++) minus[i] = -o->sine[t * half + i];
        for (size_t h = 0; h < o->heads; h++) {
            float *d = j->d + (t * o->heads + h) * o->E;
            if (o->style == KH_ROPE_HALF)
                j->kern->rope_half(d, cosine, minus, o->n);
            else
                j->kern->rope_pairs(d, cosine, minus, o->n);
        }
    }
}

static kh_status rope_back(kh_run *run, kh_tape_record *record)
{
    const rope_record *o = (const rope_record *)record;
    rope_job j = {.o = o, .kern = run->kern, .d = kh_tape_twin_of(run, o->x)};
    if (j.d) kh_parallel_for(run->pool, (o->T + TOKENS - 1) / TOKENS, rope_item, &j);
    return KH_OK;
}

void kh_record_rope(kh_run *run, const kh_rope *rope, float *x, size_t T, size_t heads, size_t E,
                    const float *cosine, const float *sine)
{
    rope_record *o = T ? kh_tape_push(run, rope_back, sizeof *o) : NULL;
    if (!o) return;
    kh_tape_record head = o->record;
    *o = (rope_record){head, rope->style, x, cosine, sine, T, heads, E, rope->n_rot};
}
