/* The walk of a batch's rows through a stack of blocks: the part of the forward pass that encoders and
 * decoders share. Families differ only in data (kh_description, absent weights). x is the residual stream:
 *
 *     before:   h = norm(x);  x += [out-norm] attention(h);  h = norm(x);  x += [out-norm] ff(h)
 *     parallel: h = norm(x);  g = other norm(x);  x += attention(h);  x += ff(g)
 *     behind:   h = x;  x = norm(x + attention(h));  h = x;  x = norm(x + ff(h))          (BERT)
 *
 *     attention(h):   q, k, v = W h (+ bias);  q, k = qk-norm;  q, k = rotate;  z = attend;  W_o z (+ bias)
 *     cross(x):       q = W norm(x);  z = attend to the source's keys and values;  x += W_o z
 *     ff(h):          W_down (act(W_gate h) * (W_up h))   or   W_down act(W_up h + bias) + bias
 *                     or a mixture of experts (ops/experts.h)
 *
 * Memory of a step: every buffer lives for the whole pass and is reused by all layers; what an op needs
 * besides is taken behind them and rewound by the op.
 *
 *     step |x|h|side|q|k|v|z|gate|up|cos sin (global, local)|biases by distance| ops ... |
 *
 * gate and up, the widest rows, are those of a chunk: a dense feed-forward layer takes its rows some hundreds at
 * a time (ff_rows), and what it makes of a chunk goes where the chunk stood in h. Unpacking the weights once a
 * chunk is small beside that many rows; a chunk is whole tiles of a product, and one of few rows, which a product
 * takes another way, is never left over, so the bits are those of one chunk. Whoever looks at the neurons still gets
 * all T rows of a point at once, as at every point: then, and only then, both are [T][F], of the heap.
 *
 * A decoder that is trained computes its source's keys and values in each block, from the encoder's rows.
 *
 * With a tape every buffer has a twin (run/tape.h), and a block may be a segment that runs again, as may a chunk
 * of its neurons inside it: T x F numbers are never there. Who asks for derivatives at points (run->gradients) leaves a
 * record at each, which reads the twin when all that came behind it was taken back.
 *
 * An encoder's layers, and those of a run whose caches have one layer, keep no keys: each writes into the only
 * layer of its sequence's cache, so the memory of
 * a long text is that of its rows. Biases by distance (T5) are one row of numbers for each head, made anew for
 * every pass: linear in the length, and cheap beside a product. */
#include "model/walk.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "cpu/cpu.h"
#include "ff/keep.h"
#include "kern/panel.h"
#include "ops/linear.h"
#include "run/tape.h"

#include <string.h>

typedef struct look_record {
    kh_tape_record record;
    kh_point point;
    int layer;
    const float *data; /* [rows][width] */
    size_t rows, width;
} look_record;

/* All that read the rows has been taken back, so their twin holds the whole derivative. */
static kh_status look_back(kh_run *run, kh_tape_record *record)
{
    const look_record *o = (const look_record *)record;
    float *twin = kh_tape_twin_of(run, o->data);
    if (run->stop && atomic_load(run->stop)) KH_FAIL(KH_ERR_STOPPED, "stopped");
    if (twin) kh_probe_at(run->gradients, o->point, o->layer, twin, o->rows, o->width);
    return KH_OK;
}

static void record_look(const kh_walk *w, kh_point point, int layer, const float *data,
                        size_t width)
{
    look_record *o = kh_tape_push(w->run, look_back, sizeof *o);
    if (!o) return;
    o->point = point;
    o->layer = layer;
    o->data = data;
    o->rows = w->T;
    o->width = width;
}

void kh_walk_look(const kh_walk *w, kh_point point, int layer, float *data, size_t width)
{
    kh_run *run = w->run;
    kh_probe_at(run->probe, point, layer, data, w->T, width);
    if (kh_probe_wants(run->gradients, point) && kh_tape_wants(run))
        record_look(w, point, layer, data, width);
}

void kh_walk_bias(const kh_walk *w, float *y, const kh_vector *b)
{
    if (b->data) kh_op_bias(w->run, y, b->data, w->T, b->n);
}

void kh_walk_norm(const kh_walk *w, float *y, const float *x, const kh_norm *norm, size_t rows,
                  size_t n)
{
    const kh_description *d = &w->model->d;
    if (!norm->gain.data) {
        if (y != x) kh_op_copy(w->run, y, x, rows, n);
    } else if (d->norm == KH_NORM_RMS) {
        kh_op_rmsnorm(w->run, y, x, norm->gain.data, d->norm_eps, rows, n);
    } else {
        kh_op_layernorm(w->run, y, x, norm->gain.data, norm->bias.data, d->norm_eps, rows, n);
    }
}

/* ---- memory */

/* Rows of a feed-forward layer's chunk when `left` are left: as many as have their neurons in some MiB, within
 * limits; and all that are left when few more are. */
enum { FF_TILE = 4 * KH_PRODUCT_TILE, FF_LEAST = 11 * FF_TILE, FF_MOST = 22 * FF_TILE };
#define FF_BYTES ((size_t)16 << 20)

static size_t ff_rows(size_t F)
{
    size_t rows = FF_BYTES / (2 * F * sizeof(float)) / FF_TILE * FF_TILE;
    return rows < FF_LEAST ? FF_LEAST : rows > FF_MOST ? FF_MOST : rows;
}

static size_t ff_chunk(size_t F, size_t left)
{
    size_t rows = ff_rows(F);
    return left <= rows + FF_TILE ? left : rows;
}

/* Of the largest chunk of T rows. */
static size_t ff_most(size_t F, size_t T)
{
    size_t most = ff_rows(F) + FF_TILE;
    return T < most ? T : most;
}

static int wants_side(const kh_model *m, const kh_stack *stack)
{
    int side = m->d.form == KH_BLOCK_PARALLEL;
    for (int l = 0; l < stack->N; l++) side |= stack->blocks[l].experts.router.name != NULL;
    return side;
}

/* Distances from -(S - 1) to the last that a row of the batch meets. */
static size_t distances(const kh_walk *w, size_t S, size_t *origin)
{
    *origin = S - 1;
    return w->encoder ? 2 * S - 1 : S - 1 + w->T;
}

/* The file has T5's table bucket by bucket, attention wants it head by head. */
static kh_status take_relative(kh_walk *w)
{
    const kh_description *d = &w->model->d;
    const kh_vector *table = &w->stack->blocks[0].relative;
    size_t S = 0;
    for (size_t i = 0; i < w->run->batch->span_count; i++) {
        const kh_span *span = &w->run->batch->spans[i];
        size_t end = (size_t)span->position + span->rows;
        if (end > S) S = end;
    }
    if (d->positions != KH_POSITIONS_RELATIVE || !table->data || S == 0) return KH_OK;
    float *out = NULL, *turned = NULL;
    size_t H = (size_t)d->H, buckets = (size_t)d->buckets;
    w->relative.span = distances(w, S, &w->relative.origin);
    KH_TRY(kh_arena_new(w->run->step, &turned, H * buckets, sizeof *turned));
    KH_TRY(kh_arena_new(w->run->step, &out, H * w->relative.span, sizeof *out));
    for (size_t h = 0; h < H; h++)
        for (size_t i = 0; i < buckets; i++) turned[h * buckets + i] = table->data[i * H + h];
    w->table = (kh_attention_bias){
        .relative = turned, .buckets = d->buckets, .max_distance = d->max_distance};
    kh_attn_expand_bias(out, &w->table, H, w->relative.span, w->relative.origin, w->encoder,
                        d->attn_scale);
    w->relative.distances = out;
    w->relative.from = &w->table;
    w->relative.stored = table->data;
    return KH_OK;
}

/* A buffer, and where the pass will be taken back, its twin. */
static kh_status take(kh_walk *w, float **buffer, size_t n)
{
    kh_run *run = w->run;
    KH_TRY(kh_arena_new(run->step, buffer, n, sizeof **buffer));
    return run->tape ? kh_tape_buffer(run->tape, run->step, *buffer, n) : KH_OK;
}

kh_status kh_walk_open(kh_walk *w)
{
    const kh_description *d = &w->model->d;
    kh_arena *a = w->run->step;
    w->D = (size_t)d->D;
    w->HE = (size_t)d->H * (size_t)d->E;
    w->GE = (size_t)d->G * (size_t)d->E;
    w->F = (size_t)d->F;
    KH_TRY(take(w, &w->x, w->T * w->D));
    KH_TRY(take(w, &w->h, w->T * w->D));
    if (wants_side(w->model, w->stack)) KH_TRY(take(w, &w->side, w->T * w->D));
    KH_TRY(take(w, &w->q, w->T * w->HE));
    KH_TRY(take(w, &w->k, w->T * w->GE));
    KH_TRY(take(w, &w->v, w->T * w->GE));
    KH_TRY(take(w, &w->z, w->T * w->HE));
    if (w->run->source) {
        KH_TRY(take(w, &w->source_k, w->run->source->n * w->GE));
        KH_TRY(take(w, &w->source_v, w->run->source->n * w->GE));
    }
    KH_TRY(take(w, &w->gate, ff_most(w->F, w->T) * w->F));
    KH_TRY(take(w, &w->up, ff_most(w->F, w->T) * w->F));
    for (int i = 0; i < 2; i++) {
        size_t half = w->model->rope[i].n_rot / 2;
        if (half == 0) continue;
        KH_TRY(kh_arena_new(a, &w->cosine[i], w->T * half, sizeof(float)));
        KH_TRY(kh_arena_new(a, &w->sine[i], w->T * half, sizeof(float)));
    }
    return take_relative(w);
}

static void larger(size_t *most, size_t value)
{
    if (value > *most) *most = value;
}

static void block_need(const kh_model *model, const kh_block *b, size_t T, size_t *op,
                       size_t *scratch)
{
    const kh_description *d = &model->d;
    const kh_weight *all[] = {&b->self.q,  &b->self.k,  &b->self.v,  &b->self.o,
                              &b->cross.q, &b->cross.k, &b->cross.v, &b->cross.o};
    const kh_weight *ff[] = {&b->gate, &b->up, &b->down};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) kh_linear_need(all[i], T, op, scratch);
    for (size_t i = 0; i < sizeof ff / sizeof *ff; i++)
        kh_linear_need(ff[i], ff_most((size_t)d->F, T), op, scratch);
    size_t step = 0, worker = 0;
    if (!b->experts.router.name) return;
    kh_experts_need(&d->experts, &b->experts, T, (size_t)d->D, &step, &worker);
    larger(op, step);
    larger(scratch, worker);
    larger(scratch, kh_ff_keep_scratch((size_t)d->experts.F));
    larger(scratch, kh_ff_keep_scratch((size_t)d->experts.shared_F));
}

void kh_walk_need(const kh_model *model, const kh_stack *stack, int encoder,
                  const kh_attn_plan *plan, const kh_kv_shape *shape, size_t T, size_t S,
                  size_t *step, size_t *scratch)
{
    const kh_description *d = &model->d;
    kh_walk w = {.encoder = encoder, .T = T};
    size_t D = (size_t)d->D, HE = (size_t)d->H * (size_t)d->E, GE = (size_t)d->G * (size_t)d->E;
    size_t F = (size_t)d->F, f = sizeof(float), own = 0, op = 0, origin;
    *scratch = kh_ff_keep_scratch(F);
    own += (wants_side(model, stack) ? 3 : 2) * kh_arena_need(T * D * f);
    own += 2 * kh_arena_need(T * HE * f) + 2 * kh_arena_need(T * GE * f);
    own += 2 * kh_arena_need(ff_most(F, T) * F * f) + 4 * kh_arena_need(T * (size_t)d->E / 2 * f);
    if (d->positions == KH_POSITIONS_RELATIVE)
        own += kh_arena_need((size_t)d->H * distances(&w, S, &origin) * f) +
               kh_arena_need((size_t)d->H * (size_t)d->buckets * f);
    int behind = !encoder && d->encoder_layers > 0;
    for (int l = 0; l < stack->N; l++) block_need(model, &stack->blocks[l], T, &op, scratch);
    for (int l = 0; l < stack->N * (1 + behind); l++) {
        size_t attn_step = 0, attn_scratch = 0;
        kh_attn_layer how = {.layer = l, .H = d->H, .G = d->G, .E = d->E};
        if (!encoder) how.layer += d->encoder_layers;
        kh_attn_need(plan, &how, shape, T, S, &attn_step, &attn_scratch);
        larger(&op, attn_step);
        larger(scratch, attn_scratch);
    }
    *step = own + op;
}

/* ---- the blocks */

/* x += rows of another embedding. */
static void add_embedding(kh_walk *w, const kh_weight *embedding, const int32_t *ids)
{
    if (!embedding->name || !ids) return;
    kh_op_embed(w->run, w->h, embedding, ids, w->T, 1);
    kh_op_add(w->run, w->x, w->h, w->T, w->D);
}

void kh_walk_embed(kh_walk *w)
{
    const kh_weights *m = &w->model->w;
    const kh_batch *batch = w->run->batch;
    kh_op_embed(w->run, w->x, &m->embedding, batch->tokens, w->T, w->model->d.embed_scale);
    add_embedding(w, &m->types, batch->types);
    add_embedding(w, &m->positions, batch->position);
    kh_walk_norm(w, w->x, w->x, &m->embed_norm, w->T, w->D);
    for (int i = 0; i < 2 && w->cosine[i]; i++) {
        const kh_rope *rope = &w->model->rope[i];
        if (i == 0 && w->run->beyond && w->model->far.n_rot > 0) rope = &w->model->far;
        kh_rope_angles(w->run, rope, w->cosine[i], w->sine[i]);
    }
    kh_walk_look(w, KH_POINT_EMBEDDINGS, -1, w->x, w->D);
}

static kh_attn_layer layer_of(const kh_walk *w, int l)
{
    const kh_description *d = &w->model->d;
    return (kh_attn_layer){.layer = w->before + l,
                           .before = w->encoder || w->run->one_layer ? w->before + l : w->before,
                           .encoder = w->encoder,
                           .H = d->H,
                           .G = d->G,
                           .E = d->E,
                           .scale = d->attn_scale,
                           .softcap = d->attn_softcap,
                           .window = !w->encoder && d->local[l] ? d->window : 0,
                           .order = w->encoder ? KH_ATTN_ALL_KEYS : KH_ATTN_CAUSAL,
                           .bias = w->relative.distances ? &w->relative : NULL};
}

static kh_status timed_attention(kh_walk *w, const kh_attn_layer *how)
{
    double *seconds = w->run->attention_seconds, start = seconds ? kh_cpu_seconds() : 0;
    KH_TRY(how->source    ? kh_attn_attend(w->run, how, w->z, w->q)
           : w->run->tape ? kh_attn_forward_taped(w->run, how, w->z, w->q, w->k, w->v)
                          : kh_attn_forward(w->run, how, w->z, w->q, w->k, w->v));
    if (seconds) *seconds += kh_cpu_seconds() - start;
    return KH_OK;
}

/* h becomes what attention makes of it. */
static kh_status attention(kh_walk *w, int l)
{
    const kh_description *d = &w->model->d;
    const kh_attn_weights *a = &w->stack->blocks[l].self;
    int layer = w->before + l, local = !w->encoder && d->local[l];
    size_t E = (size_t)d->E, H = (size_t)d->H, G = (size_t)d->G;
    kh_walk_look(w, KH_POINT_ATTN_IN, layer, w->h, w->D);
    float *out[] = {w->q, w->k, w->v};
    const kh_weight *in[] = {&a->q, &a->k, &a->v};
    KH_TRY(kh_op_linear_many(w->run, 3, out, w->h, w->T, in));
    kh_walk_bias(w, w->q, &a->q_bias);
    kh_walk_bias(w, w->k, &a->k_bias);
    kh_walk_bias(w, w->v, &a->v_bias);
    kh_walk_look(w, KH_POINT_Q, layer, w->q, w->HE);
    kh_walk_look(w, KH_POINT_K, layer, w->k, w->GE);
    kh_walk_look(w, KH_POINT_VALUE, layer, w->v, w->GE);
    const kh_norm q_norm = {.gain = a->q_norm}, k_norm = {.gain = a->k_norm};
    kh_walk_norm(w, w->q, w->q, &q_norm, w->T * H, E);
    kh_walk_norm(w, w->k, w->k, &k_norm, w->T * G, E);
    if (w->cosine[local]) {
        const kh_rope *rope = &w->model->rope[local];
        kh_op_rope(w->run, rope, w->q, H, E, w->cosine[local], w->sine[local]);
        kh_op_rope(w->run, rope, w->k, G, E, w->cosine[local], w->sine[local]);
    }
    kh_attn_layer how = layer_of(w, l);
    const kh_attn_watch *watch = w->run->watch;
    if (watch && watch->seen) KH_TRY(watch->seen(watch->context, &how, w->q, w->k, w->v));
    KH_TRY(timed_attention(w, &how));
    kh_walk_look(w, KH_POINT_Z, layer, w->z, w->HE);
    KH_TRY(kh_op_linear(w->run, w->h, w->z, w->T, &a->o));
    kh_walk_bias(w, w->h, &a->o_bias);
    kh_walk_look(w, KH_POINT_ATTN_OUT, layer, w->h, w->D);
    return KH_OK;
}

/* Keys and values of this layer, from the encoder's rows. */
static kh_status source_attention(kh_walk *w, const kh_attn_layer *how, const kh_attn_weights *a)
{
    float *out[] = {w->source_k, w->source_v};
    const kh_weight *in[] = {&a->k, &a->v};
    KH_TRY(kh_op_linear_many(w->run, 2, out, w->run->source->rows, w->run->source->n, in));
    return kh_attn_source(w->run, how, w->z, w->q, w->source_k, w->source_v);
}

/* A decoder's attention to its source: no positions, no mask. */
static kh_status cross(kh_walk *w, int l)
{
    const kh_block *b = &w->stack->blocks[l];
    int layer = w->before + l;
    kh_attn_layer how = layer_of(w, l);
    how.source = 1;
    how.before += w->stack->N; /* in plans, behind the decoder's own */
    how.layer += w->stack->N;
    how.order = KH_ATTN_ALL_KEYS;
    how.window = 0;
    how.bias = NULL;
    kh_walk_norm(w, w->h, w->x, &b->cross_norm, w->T, w->D);
    KH_TRY(kh_op_linear(w->run, w->q, w->h, w->T, &b->cross.q));
    KH_TRY(w->run->source ? source_attention(w, &how, &b->cross) : timed_attention(w, &how));
    kh_walk_look(w, KH_POINT_CROSS_Z, layer, w->z, w->HE);
    KH_TRY(kh_op_linear(w->run, w->h, w->z, w->T, &b->cross.o));
    kh_walk_look(w, KH_POINT_CROSS_OUT, layer, w->h, w->D);
    kh_op_add(w->run, w->x, w->h, w->T, w->D);
    kh_walk_look(w, KH_POINT_RESID_CROSS, layer, w->x, w->D);
    return KH_OK;
}

static void swap_side(kh_walk *w)
{
    float *h = w->h;
    w->h = w->side;
    w->side = h;
}

typedef struct keeping {
    kh_run *run;
    int layer;
} keeping;

static void keep_rows(void *context, int activated, float *gate, size_t rows, size_t F)
{
    const keeping *k = context;
    kh_op_ff_keep(k->run, activated ? KH_FF_STAGE_PRODUCT : KH_FF_STAGE_GATE, gate, rows, F,
                  k->layer);
}

/* h becomes what the feed-forward layer makes of it. */
static kh_status experts(kh_walk *w, int l)
{
    const kh_block *b = &w->stack->blocks[l];
    keeping keep = {w->run, w->before + l};
    kh_expert_hook hook = {keep_rows, &keep, sizeof keep};
    KH_TRY(kh_op_experts(w->run, &w->model->d.experts, &b->experts, w->side, w->h, w->T, w->D,
                         w->run->ff ? &hook : NULL));
    swap_side(w);
    return KH_OK;
}

/* Neurons of a dense layer, of some of its rows. */
typedef struct neurons {
    int layer;
    const kh_block *block;
    float *gate, *up; /* [rows][F] */
} neurons;

static int looked_at(const kh_probe *probe)
{
    return kh_probe_wants(probe, KH_POINT_MLP_PRE) ||
           kh_probe_wants(probe, KH_POINT_MLP_PRE_LINEAR) ||
           kh_probe_wants(probe, KH_POINT_MLP_ACT);
}

static kh_status spread(kh_walk *w, const neurons *n, size_t at, const float *h, size_t rows)
{
    const kh_block *b = n->block;
    float *gate = n->gate + at * w->F, *up = n->up + at * w->F;
    if (b->gate.name) {
        KH_TRY(kh_op_linear_many(w->run, 2, (float *[]){gate, up}, h, rows,
                                 (const kh_weight *[]){&b->gate, &b->up}));
    } else {
        KH_TRY(kh_op_linear(w->run, gate, h, rows, &b->up));
    }
    if (b->up_bias.data) kh_op_bias(w->run, b->gate.name ? up : gate, b->up_bias.data, rows, w->F);
    return KH_OK;
}

static void activate(kh_walk *w, const neurons *n, size_t rows)
{
    kh_run *run = w->run;
    int layer = n->layer;
    float *up = n->block->gate.name ? n->up : NULL;
    kh_probe_at(run->probe, KH_POINT_MLP_PRE, layer, n->gate, rows, w->F);
    if (up) kh_probe_at(run->probe, KH_POINT_MLP_PRE_LINEAR, layer, up, rows, w->F);
    kh_op_ff_keep(run, KH_FF_STAGE_GATE, n->gate, rows, w->F, layer);
    kh_op_glu(run, n->gate, up, rows, w->F, w->model->d.act);
    kh_op_ff_keep(run, KH_FF_STAGE_PRODUCT, n->gate, rows, w->F, layer);
    kh_probe_at(run->probe, KH_POINT_MLP_ACT, layer, n->gate, rows, w->F);
}

static kh_status gather(kh_walk *w, const neurons *n, size_t at, float *h, size_t rows)
{
    const kh_block *b = n->block;
    KH_TRY(kh_op_linear(w->run, h, n->gate + at * w->F, rows, &b->down));
    if (b->down_bias.data) kh_op_bias(w->run, h, b->down_bias.data, rows, w->D);
    return KH_OK;
}

/* Products chunk by chunk, and between them all rows at once. */
static kh_status dense_for_observer(kh_walk *w, neurons *n)
{
    size_t T = w->T, rows;
    for (size_t t = 0; t < T; t += rows) {
        rows = ff_chunk(w->F, T - t);
        KH_TRY(spread(w, n, t, w->h + t * w->D, rows));
    }
    activate(w, n, T);
    for (size_t t = 0; t < T; t += rows) {
        rows = ff_chunk(w->F, T - t);
        KH_TRY(gather(w, n, t, w->h + t * w->D, rows));
    }
    return KH_OK;
}

typedef struct chunk {
    kh_walk *walk;
    neurons neurons;
    float *h; /* [rows][D] */
    size_t rows;
} chunk;

static kh_status dense_chunk(kh_run *run, const void *context)
{
    const chunk *c = context;
    (void)run;
    KH_TRY(spread(c->walk, &c->neurons, 0, c->h, c->rows));
    activate(c->walk, &c->neurons, c->rows);
    return gather(c->walk, &c->neurons, 0, c->h, c->rows);
}

/* Nothing in its block makes more of what the layer writes than adding it to the residual stream. */
static int is_last(const kh_walk *w, const kh_block *b)
{
    return !w->run->probe && !b->ffn_out_norm.gain.data && !b->ffn_post_norm.gain.data;
}

static kh_status dense(kh_walk *w, int l)
{
    neurons n = {w->before + l, &w->stack->blocks[l], w->gate, w->up};
    size_t T = w->T, rows;
    if (looked_at(w->run->probe) && ff_most(w->F, T) < T) {
        KH_TRY(kh_new(&n.gate, 2 * T * w->F, sizeof *n.gate, "the neurons that are looked at"));
        n.up = n.gate + T * w->F;
        kh_status status = dense_for_observer(w, &n);
        kh_free(n.gate);
        return status;
    }
    for (size_t t = 0; t < T; t += rows) {
        rows = ff_chunk(w->F, T - t);
        chunk c = {w, n, w->h + t * w->D, rows};
        kh_tape_body body = {dense_chunk, &c, sizeof c, c.h, rows * w->D, is_last(w, n.block)};
        KH_TRY(w->run->tape && w->run->tape->recompute ? kh_tape_segment(w->run, &body)
                                                       : dense_chunk(w->run, &c));
    }
    return KH_OK;
}

static kh_status feed_forward(kh_walk *w, int l)
{
    int layer = w->before + l;
    kh_walk_look(w, KH_POINT_MLP_IN, layer, w->h, w->D);
    KH_TRY(w->stack->blocks[l].experts.router.name ? experts(w, l) : dense(w, l));
    kh_walk_look(w, KH_POINT_MLP_OUT, layer, w->h, w->D);
    return KH_OK;
}

static kh_status block(kh_walk *w, int l)
{
    const kh_block *b = &w->stack->blocks[l];
    int layer = w->before + l, parallel = w->model->d.form == KH_BLOCK_PARALLEL;
    size_t T = w->T, D = w->D;
    kh_walk_look(w, KH_POINT_RESID_PRE, layer, w->x, D);
    kh_walk_norm(w, w->h, w->x, &b->attn_norm, T, D);
    KH_TRY(attention(w, l));
    kh_walk_norm(w, w->h, w->h, &b->attn_out_norm, T, D);
    kh_walk_look(w, KH_POINT_ATTN_OUT_POST, layer, w->h, D);
    if (parallel) kh_walk_norm(w, w->side, w->x, &b->ffn_norm, T, D);
    kh_op_add(w->run, w->x, w->h, T, D);
    kh_walk_norm(w, w->x, w->x, &b->attn_post_norm, T, D);
    kh_walk_look(w, KH_POINT_RESID_MID, layer, w->x, D);
    if (b->cross.q.name && w->run->kv_cross) KH_TRY(cross(w, l));
    if (parallel)
        swap_side(w);
    else
        kh_walk_norm(w, w->h, w->x, &b->ffn_norm, T, D);
    KH_TRY(feed_forward(w, l));
    kh_walk_norm(w, w->h, w->h, &b->ffn_out_norm, T, D);
    kh_walk_look(w, KH_POINT_MLP_OUT_POST, layer, w->h, D);
    kh_op_add(w->run, w->x, w->h, T, D);
    kh_walk_norm(w, w->x, w->x, &b->ffn_post_norm, T, D);
    kh_walk_look(w, KH_POINT_RESID_POST, layer, w->x, D);
    return KH_OK;
}

typedef struct again {
    kh_walk *walk;
    int l;
} again;

static kh_status block_again(kh_run *run, const void *context)
{
    const again *a = context;
    kh_walk *w = a->walk;
    KH_TRY(block(w, a->l));
    if (!run->tape->replaying) return KH_OK;
    kh_reserve_clear(w->x, w->T * w->D * sizeof *w->x);
    kh_reserve_clear(w->h, w->T * w->D * sizeof *w->h);
    return KH_OK;
}

/* A block reads the residual stream and nothing else of what came before it. */
static kh_status taped_block(kh_walk *w, int l)
{
    again a = {w, l};
    kh_tape_body body = {block_again, &a, sizeof a, w->x, w->T * w->D, 0};
    return w->run->tape->recompute ? kh_tape_segment(w->run, &body) : block(w, l);
}

kh_status kh_walk_blocks(kh_walk *w)
{
    for (int l = 0; l < w->stack->N; l++) {
        if (w->run->stop && atomic_load(w->run->stop)) KH_FAIL(KH_ERR_STOPPED, "stopped");
        KH_TRY(w->run->tape ? taped_block(w, l) : block(w, l));
        if (w->after) KH_TRY(w->after(w, l));
    }
    return KH_OK;
}

static kh_status rows_of(kh_walk *w, float *out)
{
    KH_TRY(kh_walk_open(w));
    kh_walk_embed(w);
    KH_TRY(kh_walk_blocks(w));
    kh_walk_norm(w, out, w->x, &w->stack->final_norm, w->T, w->D);
    kh_probe_at(w->run->probe, KH_POINT_FINAL_NORM, -1, out, w->T, w->D);
    return KH_OK;
}

/* The walk itself lies in the step's memory: records of a tape point to it. */
kh_status kh_walk_rows(kh_run *run, const kh_walk *what, float *out)
{
    kh_walk *w = NULL;
    kh_arena_mark mark = kh_arena_save(run->step);
    KH_TRY(kh_arena_new(run->step, &w, 1, sizeof *w));
    *w = *what;
    w->run = run;
    kh_status status = rows_of(w, out);
    if (status || !run->tape) kh_arena_rewind(run->step, mark);
    return status;
}
