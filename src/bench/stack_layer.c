/* A transformer's layer whose memory is set by the chunk.
 *
 *     kept between the passes   the layer's input [L][D]; which keys its rows kept [H][L][K] (or chosen again)
 *     in memory at a time       q k v z (dq dk dv dz) of a few heads [heads][L][E]; C rows of the rest
 *
 * Forward: for a group of heads, rows of n go through the projections chunk by chunk (ops/chunks.h), the
 * group attends, and its part of the output is added to y. The feed-forward layer then works on y in place.
 *
 * Backward, with everything but the input computed again:
 *
 *     1  x1     attention over the saved keys (nothing is selected twice), in dx's array
 *     2  d      rows through the feed-forward layer and back: d = dy + J ff' dy
 *     3  dx     groups, last first (its q, k, v, z are there from 1): dz = d O, attention's backward, then
 *               chunk by chunk the gradients of the four weights and dx = d + J (dq Q + dk K + dv V)
 *
 * Gradients of weights have one writer and rows ascend, so no chunk and no thread changes a bit. The size of
 * a group is that of the problem: as many key heads as fit GROUP bytes. */
#include "bench/stack_layer.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "bench/arrays.h"
#include "cpu/cpu.h"
#include "ops/chunks.h"

#include <math.h>
#include <string.h>

enum { ROWS = 16 };
#define GROUP ((size_t)128 << 20)
#define EPS   1e-6f

/* ---- memory ---- */

static size_t ratio(const kh_stack *s)
{
    return s->H / s->G;
}

kh_status kh_stack_check(const kh_stack_shape *o)
{
    if (o->L < 1 || o->heads < 1 || o->key_heads < 1 || o->width < 1 || o->chunk < 1)
        KH_FAIL(KH_ERR_ARGUMENT, "bench stack: lengths, heads, widths and chunks are at least 1");
    if (o->heads % o->key_heads != 0)
        KH_FAIL(KH_ERR_ARGUMENT, "bench stack: %d heads are not a multiple of %d key heads",
                o->heads, o->key_heads);
    if (strchr(o->attn, ';') ||
        (strchr(o->attn, '=') &&
         (!strchr(o->attn, ':') || strchr(o->attn, '=') < strchr(o->attn, ':'))))
        KH_FAIL(KH_ERR_ARGUMENT,
                "bench stack: attention '%s': one setting for all layers and heads", o->attn);
    return KH_OK;
}

static kh_attention_args args_of(const kh_stack *s)
{
    return (kh_attention_args){.batch = 1,
                               .heads = (int)(s->group * ratio(s)),
                               .key_heads = (int)s->group,
                               .width = (int)s->E,
                               .queries = s->shape.L,
                               .keys = s->shape.L,
                               .q = s->q,
                               .k = s->k,
                               .v = s->v,
                               .out = s->z,
                               .attn = s->shape.attn,
                               .mask = s->shape.mask,
                               .threads = s->shape.threads};
}

/* The group's arrays: q, z for its query heads, k, v for its key heads; with backward twice as many. */
static kh_status open_group(kh_stack *s)
{
    size_t plane = s->shape.L * s->E, r = ratio(s), each = 4 * (r + 1) * plane * sizeof(float);
    s->group = s->G;
    while (s->group > 1 && (s->G % s->group != 0 || s->group * each > GROUP)) s->group--;
    size_t q = s->group * r * plane, k = s->group * plane, sides = s->shape.backward ? 2 : 1;
    KH_TRY(kh_new(&s->arrays, sides * 2 * (q + k), sizeof *s->arrays, "the heads of a layer"));
    float **all[] = {&s->q, &s->z, &s->k, &s->v, &s->dq, &s->dz, &s->dk, &s->dv};
    float *at = s->arrays;
    for (size_t i = 0; i < 4 * sides; i++) {
        *all[i] = at;
        at += i % 4 < 2 ? q : k;
    }
    return KH_OK;
}

kh_status kh_stack_open(kh_stack *s, const kh_stack_shape *o)
{
    *s = (kh_stack){.shape = *o};
    if (s->shape.chunk > o->L) s->shape.chunk = o->L;
    s->H = (size_t)o->heads;
    s->G = (size_t)o->key_heads;
    s->E = (size_t)o->width;
    s->D = s->H * s->E;
    s->pool.threads = o->threads ? o->threads : kh_cpu_count();
    s->kern = kh_kern_get(kh_cpu_isa());
    s->loaded = s->G;
    KH_TRY(open_group(s));
    kh_attention_args args = args_of(s);
    KH_TRY(kh_attention_kept(&args, &s->kept));
    size_t C = s->shape.chunk;
    KH_TRY(kh_new(&s->n, C * s->D, sizeof *s->n, "a chunk of a layer"));
    KH_TRY(kh_new(&s->t, C * s->D, sizeof *s->t, "a chunk of a layer"));
    if (o->backward && o->keep > 0 && o->keep < o->F) {
        KH_TRY(kh_new(&s->indices, C * o->keep, sizeof *s->indices, "the kept neurons"));
        KH_TRY(kh_new(&s->counts, C, sizeof *s->counts, "their counts"));
    }
    size_t most = s->group * (ratio(s) + 2);
    KH_TRY(kh_new(&s->list, most, sizeof *s->list, "the heads of a layer"));
    return kh_heads_open(&s->heads, &s->pool, s->kern, s->D, s->E, C, most);
}

void kh_stack_close(kh_stack *s)
{
    if (s->heads.pool) kh_heads_close(&s->heads);
    kh_free(s->arrays);
    kh_free(s->list);
    kh_free(s->n);
    kh_free(s->t);
    kh_free(s->indices);
    kh_free(s->counts);
}

kh_status kh_stack_saved_open(const kh_stack *s, kh_attention_saved *saved, uint64_t *bytes)
{
    return kh_new_saved(saved, s->H * s->shape.L, s->kept, s->shape.L, bytes);
}

/* ---- rows ---- */

typedef struct rows_job {
    const kh_stack *s;
    float *y;
    const float *x, *n, *t;
    size_t rows;
} rows_job;

static void norm_item(void *context, size_t item, int worker)
{
    const rows_job *j = context;
    size_t D = j->s->D;
    (void)worker;
    for (size_t r = item * ROWS; r < (item + 1) * ROWS && r < j->rows; r++)
        j->s->kern->rmsnorm(j->y + r * D, j->x + r * D, NULL, EPS, D);
}

/* n = norm of rows of x. */
static void norm(kh_stack *s, const float *x, size_t rows)
{
    rows_job j = {.s = s, .y = s->n, .x = x, .rows = rows};
    kh_parallel_for(&s->pool, (rows + ROWS - 1) / ROWS, norm_item, &j);
}

/* y = x + t, t the chunk's; x may be y. */
static void add_item(void *context, size_t item, int worker)
{
    const rows_job *j = context;
    size_t D = j->s->D;
    (void)worker;
    for (size_t r = item * ROWS; r < (item + 1) * ROWS && r < j->rows; r++) {
        if (j->x != j->y) memcpy(j->y + r * D, j->x + r * D, D * sizeof *j->y);
        j->s->kern->add(j->y + r * D, j->t + r * D, D);
    }
}

static void add(kh_stack *s, float *y, const float *x, size_t rows)
{
    rows_job j = {.s = s, .y = y, .x = x, .t = s->t, .rows = rows};
    kh_parallel_for(&s->pool, (rows + ROWS - 1) / ROWS, add_item, &j);
}

/* What dn brings to a row whose norm is n = x f: f (dn - n mean(n dn)). */
static void norm_back_item(void *context, size_t item, int worker)
{
    const rows_job *j = context;
    const kh_kern *kern = j->s->kern;
    size_t D = j->s->D;
    (void)worker;
    for (size_t r = item * ROWS; r < (item + 1) * ROWS && r < j->rows; r++) {
        const float *x = j->x + r * D, *n = j->n + r * D, *dn = j->t + r * D;
        float *y = j->y + r * D, squares, inner;
        kern->gemv_f32(&squares, x, D, 1, x, D);
        kern->gemv_f32(&inner, n, D, 1, dn, D);
        float f = 1.0f / sqrtf(squares / (float)D + EPS);
        inner /= (float)D;
        for (size_t i = 0; i < D; i++) y[i] += f * (dn[i] - n[i] * inner);
    }
}

/* y += what the chunk's t brings to rows of x, whose norm is the chunk's n. */
static void norm_back(kh_stack *s, float *y, const float *x, size_t rows)
{
    rows_job j = {.s = s, .y = y, .x = x, .n = s->n, .t = s->t, .rows = rows};
    kh_parallel_for(&s->pool, (rows + ROWS - 1) / ROWS, norm_back_item, &j);
}

/* ---- attention, a group of heads at a time ---- */

/* The group's heads in a list: their weights, gradients and rows from `first` on. */
static void put(const kh_stack *s, kh_head *to, size_t count, size_t head, const float *w,
                float *dw, float *rows, size_t first)
{
    size_t size = s->E * s->D;
    for (size_t i = 0; i < count; i++)
        to[i] = (kh_head){w + (head + i) * size, dw ? dw + (head + i) * size : NULL,
                          rows + (i * s->shape.L + first) * s->E};
}

/* q, k, v or their gradients; returns how many heads these are. */
static size_t list_qkv(const kh_stack *s, float *q, float *k, float *v, size_t first)
{
    kh_head *to = s->list;
    size_t r = ratio(s), n = s->group;
    float *dw = s->g ? s->g->qkv : NULL;
    put(s, to, n * r, s->at * r, s->w->qkv, dw, q, first);
    put(s, to + n * r, n, s->H + s->at, s->w->qkv, dw, k, first);
    put(s, to + n * (r + 1), n, s->H + s->G + s->at, s->w->qkv, dw, v, first);
    return n * (r + 2);
}

static size_t list_o(const kh_stack *s, float *z, size_t first)
{
    size_t r = ratio(s), n = s->group * r;
    put(s, s->list, n, s->at * r, s->w->o, s->g ? s->g->o : NULL, z, first);
    return n;
}

static kh_status project_chunk(void *context, size_t first, size_t rows)
{
    kh_stack *s = context;
    norm(s, s->x + first * s->D, rows);
    kh_heads_split(&s->heads, s->list, list_qkv(s, s->q, s->k, s->v, first), s->n, rows);
    return KH_OK;
}

static kh_status output_chunk(void *context, size_t first, size_t rows)
{
    kh_stack *s = context;
    kh_heads_join(&s->heads, s->t, s->list, list_o(s, s->z, first), rows);
    add(s, s->y + first * s->D, (s->at == 0 ? s->x : s->y) + first * s->D, rows);
    return KH_OK;
}

/* The part of the layer's saved arrays that belongs to the group. */
static kh_attention_saved saved_of(const kh_stack *s)
{
    kh_attention_saved part = *s->saved;
    size_t at = s->at * ratio(s) * s->shape.L, wide = s->shape.L > 65536 ? 4 : 2;
    part.m += at;
    part.u += at;
    if (part.kept == 0) return part;
    part.counts += at;
    part.indices = (char *)part.indices + at * part.kept * wide;
    return part;
}

/* q, k, v, z of the group `at`. */
static kh_status load(kh_stack *s, size_t at)
{
    s->at = at;
    if (s->loaded == at) return KH_OK;
    s->loaded = s->G;
    kh_chunk_op project = {.forward = project_chunk, .context = s};
    KH_TRY(kh_chunks_forward(&project, s->shape.L, s->shape.chunk));
    kh_attention_args args = args_of(s);
    kh_attention_saved saved;
    if (s->saved) {
        saved = saved_of(s);
        args.saved = &saved;
    }
    KH_TRY(s->saved && s->chosen ? kh_attention_replay(&args) : kh_attention_forward(&args));
    s->loaded = at;
    return KH_OK;
}

/* y = x + attention. */
static kh_status attend(kh_stack *s)
{
    kh_chunk_op output = {.forward = output_chunk, .context = s};
    for (size_t at = 0; at < s->G; at += s->group) {
        KH_TRY(load(s, at));
        KH_TRY(kh_chunks_forward(&output, s->shape.L, s->shape.chunk));
    }
    return KH_OK;
}

/* ---- the feed-forward layer ---- */

static kh_ff_args ff_of(const kh_stack *s, size_t rows)
{
    return (kh_ff_args){.rows = rows,
                        .width = s->D,
                        .hidden = s->shape.F,
                        .k = s->shape.keep < s->shape.F ? s->shape.keep : 0,
                        .act = s->shape.act,
                        .x = s->n,
                        .in = s->w->in,
                        .out = s->w->out,
                        .indices = s->indices,
                        .counts = s->counts,
                        .threads = s->shape.threads};
}

static kh_status ff_chunk(void *context, size_t first, size_t rows)
{
    kh_stack *s = context;
    float *y = s->y + first * s->D;
    norm(s, y, rows);
    kh_ff_args args = ff_of(s, rows);
    args.y = s->t;
    KH_TRY(kh_ff_topk_forward(&args));
    add(s, y, y, rows);
    return KH_OK;
}

/* What backward needs of a chunk: the norm of x1, which y holds, and the neurons that it chose. */
static kh_status ff_again_chunk(void *context, size_t first, size_t rows)
{
    kh_stack *s = context;
    norm(s, s->y + first * s->D, rows);
    kh_ff_args args = ff_of(s, rows);
    return s->indices ? kh_ff_topk_forward(&args) : KH_OK;
}

static kh_status ff_back_chunk(void *context, size_t first, size_t rows)
{
    kh_stack *s = context;
    size_t at = first * s->D;
    kh_ff_args args = ff_of(s, rows);
    kh_ff_gradients gradients = {
        .dy = s->dy + at, .dx = s->t, .din = s->g->in, .dout = s->g->out, .add = 1};
    KH_TRY(kh_ff_topk_backward(&args, &gradients));
    if (s->d != s->dy) memcpy(s->d + at, s->dy + at, rows * s->D * sizeof *s->d);
    norm_back(s, s->d + at, s->y + at, rows);
    return KH_OK;
}

/* ---- the layer ---- */

kh_status kh_stack_layer_forward(kh_stack *s, const kh_stack_weights *w, float *y, const float *x,
                                 const kh_attention_saved *saved)
{
    s->w = w;
    s->g = NULL;
    s->x = x;
    s->y = y;
    s->saved = saved;
    s->chosen = 0;
    s->loaded = s->G;
    kh_chunk_op ff = {.forward = ff_chunk, .context = s};
    KH_TRY(attend(s));
    return s->shape.F > 0 ? kh_chunks_forward(&ff, s->shape.L, s->shape.chunk) : KH_OK;
}

static kh_status upstream_chunk(void *context, size_t first, size_t rows)
{
    kh_stack *s = context;
    kh_heads_split(&s->heads, s->list, list_o(s, s->dz, first), s->upstream + first * s->D, rows);
    return KH_OK;
}

static kh_status norm_chunk(void *context, size_t first, size_t rows)
{
    kh_stack *s = context;
    norm(s, s->x + first * s->D, rows);
    return KH_OK;
}

/* y becomes dx, which the last group begins as d. */
static kh_status projections_back_chunk(void *context, size_t first, size_t rows)
{
    kh_stack *s = context;
    const float *d = s->upstream + first * s->D;
    float *dx = s->y + first * s->D;
    kh_heads_grad(&s->heads, s->list, list_o(s, s->z, first), d, rows);
    size_t count = list_qkv(s, s->dq, s->dk, s->dv, first);
    kh_heads_grad(&s->heads, s->list, count, s->n, rows);
    kh_heads_join(&s->heads, s->t, s->list, count, rows);
    if (s->at + s->group == s->G) memcpy(dx, d, rows * s->D * sizeof *dx);
    norm_back(s, dx, s->x + first * s->D, rows);
    return KH_OK;
}

static kh_status group_back(kh_stack *s, size_t at)
{
    kh_chunk_op upstream = {.forward = upstream_chunk, .context = s};
    kh_chunk_op projections = {
        .forward = norm_chunk, .backward = projections_back_chunk, .context = s};
    KH_TRY(load(s, at));
    KH_TRY(kh_chunks_forward(&upstream, s->shape.L, s->shape.chunk));
    kh_attention_args args = args_of(s);
    kh_attention_saved saved = saved_of(s);
    kh_attention_gradients gradients = {.dout = s->dz, .dq = s->dq, .dk = s->dk, .dv = s->dv};
    args.saved = &saved;
    KH_TRY(kh_attention_backward(&args, &gradients));
    return kh_chunks_backward(&projections, s->shape.L, s->shape.chunk);
}

kh_status kh_stack_layer_backward(kh_stack *s, const kh_stack_weights *w, const kh_stack_weights *g,
                                  float *dx, const float *dy, float *d, const float *x,
                                  const kh_attention_saved *saved, int chosen)
{
    s->w = w;
    s->g = g;
    s->x = x;
    s->y = dx;
    s->dy = dy;
    s->d = d;
    s->upstream = s->shape.F > 0 ? d : dy;
    s->saved = saved;
    s->chosen = chosen;
    s->loaded = s->G;
    if (s->shape.F > 0) {
        kh_chunk_op ff = {.forward = ff_again_chunk, .backward = ff_back_chunk, .context = s};
        KH_TRY(attend(s));
        s->chosen = 1;
        KH_TRY(kh_chunks_backward(&ff, s->shape.L, s->shape.chunk));
    }
    for (size_t at = s->G; at > 0; at -= s->group) KH_TRY(group_back(s, at - s->group));
    return KH_OK;
}
