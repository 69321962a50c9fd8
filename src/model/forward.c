/* The one forward pass.
 *
 * A batch of T rows walks through the blocks; the families differ only in data (kh_description, absent
 * vectors). x is the residual stream:
 *
 *     x = scale * embedding[token]
 *     block:  h = norm(x);  q, k, v = W h (+ bias);  q, k = qk-norm;  q, k = rotate
 *             z = attention(q, k, v)                       keys and values go to the cache
 *             x += [post-norm] (W_o z)
 *             h = norm(x);  m = act(W_gate h) * (W_up h) [k best neurons];
 *             x += [post-norm] (W_down m)
 *     logits = [cap] W_head norm(x)                        only rows that are asked for, in chunks
 *
 * Memory of a step: every buffer below lives for the whole pass and is reused by all layers; what an op
 * needs besides is taken behind them and rewound by the op. Logits are produced in chunks of rows, so a
 * prompt of any length never holds T x V of them.
 *
 *     step |x|h|q|k|v|z|gate|up|cos sin (global, local)| ops ... |
 *
 * Companions: the cache is written by the attention op; a probe is called at its named points with the
 * rows as they are, and what it changes is what the pass goes on with; cancellation is read between
 * layers. There is no other forward pass: training, inspection and quantised files all come through
 * here. */
#include "base/fail.h"
#include "cpu/cpu.h"
#include "ff/keep.h"
#include "model/network.h"
#include "ops/linear.h"

#include <string.h>

typedef struct walk {
    const kh_model *model;
    kh_run *run;
    size_t T, D, HE, GE, F;
    float *x /* [T][D] */, *h /* [T][D] */, *q /* [T][H][E] */, *k /* [T][G][E] */;
    float *v /* [T][G][E] */, *z /* [T][H][E] */, *gate /* [T][F] */, *up /* [T][F] */;
    float *cosine[2], *sine[2]; /* [T][n_rot/2], global and local */
} walk;

static void look(const walk *w, kh_point point, int layer, float *data, size_t width)
{
    kh_probe_at(w->run->probe, point, layer, data, w->T, width);
}

static kh_status take_buffers(walk *w)
{
    const kh_description *d = &w->model->d;
    w->D = (size_t)d->D;
    w->HE = (size_t)d->H * (size_t)d->E;
    w->GE = (size_t)d->G * (size_t)d->E;
    w->F = (size_t)d->F;
    kh_arena *a = w->run->step;
    KH_TRY(kh_arena_new(a, &w->x, w->T * w->D, sizeof(float)));
    KH_TRY(kh_arena_new(a, &w->h, w->T * w->D, sizeof(float)));
    KH_TRY(kh_arena_new(a, &w->q, w->T * w->HE, sizeof(float)));
    KH_TRY(kh_arena_new(a, &w->k, w->T * w->GE, sizeof(float)));
    KH_TRY(kh_arena_new(a, &w->v, w->T * w->GE, sizeof(float)));
    KH_TRY(kh_arena_new(a, &w->z, w->T * w->HE, sizeof(float)));
    KH_TRY(kh_arena_new(a, &w->gate, w->T * w->F, sizeof(float)));
    KH_TRY(kh_arena_new(a, &w->up, w->T * w->F, sizeof(float)));
    for (int i = 0; i < 2; i++) {
        size_t half = w->model->rope[i].n_rot / 2;
        KH_TRY(kh_arena_new(a, &w->cosine[i], w->T * half, sizeof(float)));
        KH_TRY(kh_arena_new(a, &w->sine[i], w->T * half, sizeof(float)));
    }
    return KH_OK;
}

static void bias(walk *w, float *y, const kh_vector *b)
{
    if (b->data) kh_op_bias(w->run, y, b->data, w->T, b->n);
}

static kh_status attention(walk *w, int layer)
{
    const kh_description *d = &w->model->d;
    const kh_block *b = &w->model->w.blocks[layer];
    kh_run *run = w->run;
    int local = d->local[layer];
    size_t E = (size_t)d->E, H = (size_t)d->H, G = (size_t)d->G;
    kh_op_rmsnorm(run, w->h, w->x, b->attn_norm.data, d->norm_eps, w->T, w->D);
    look(w, KH_POINT_ATTN_IN, layer, w->h, w->D);
    float *out[] = {w->q, w->k, w->v};
    const kh_weight *in[] = {&b->q, &b->k, &b->v};
    KH_TRY(kh_op_linear_many(run, 3, out, w->h, w->T, in));
    bias(w, w->q, &b->q_bias);
    bias(w, w->k, &b->k_bias);
    bias(w, w->v, &b->v_bias);
    look(w, KH_POINT_Q, layer, w->q, w->HE);
    look(w, KH_POINT_K, layer, w->k, w->GE);
    look(w, KH_POINT_VALUE, layer, w->v, w->GE);
    if (b->q_norm.data) kh_op_rmsnorm(run, w->q, w->q, b->q_norm.data, d->norm_eps, w->T * H, E);
    if (b->k_norm.data) kh_op_rmsnorm(run, w->k, w->k, b->k_norm.data, d->norm_eps, w->T * G, E);
    const kh_rope *rope = &w->model->rope[local];
    kh_op_rope(run, rope, w->q, H, E, w->cosine[local], w->sine[local]);
    kh_op_rope(run, rope, w->k, G, E, w->cosine[local], w->sine[local]);
    kh_attn_layer how = {.layer = layer,
                         .H = d->H,
                         .G = d->G,
                         .E = d->E,
                         .scale = d->attn_scale,
                         .softcap = d->attn_softcap,
                         .window = local ? d->window : 0};
    double start = run->attention_seconds ? kh_cpu_seconds() : 0;
    KH_TRY(kh_attn_forward(run, &how, w->z, w->q, w->k, w->v));
    if (run->attention_seconds) *run->attention_seconds += kh_cpu_seconds() - start;
    look(w, KH_POINT_Z, layer, w->z, w->HE);
    KH_TRY(kh_op_linear(run, w->h, w->z, w->T, &b->o));
    bias(w, w->h, &b->o_bias);
    look(w, KH_POINT_ATTN_OUT, layer, w->h, w->D);
    if (b->post_attn_norm.data)
        kh_op_rmsnorm(run, w->h, w->h, b->post_attn_norm.data, d->norm_eps, w->T, w->D);
    look(w, KH_POINT_ATTN_OUT_POST, layer, w->h, w->D);
    kh_op_add(run, w->x, w->h, w->T, w->D);
    return KH_OK;
}

static kh_status feed_forward(walk *w, int layer)
{
    const kh_description *d = &w->model->d;
    const kh_block *b = &w->model->w.blocks[layer];
    kh_run *run = w->run;
    kh_op_rmsnorm(run, w->h, w->x, b->ffn_norm.data, d->norm_eps, w->T, w->D);
    look(w, KH_POINT_MLP_IN, layer, w->h, w->D);
    float *out[] = {w->gate, w->up};
    const kh_weight *in[] = {&b->gate, &b->up};
    KH_TRY(kh_op_linear_many(run, 2, out, w->h, w->T, in));
    look(w, KH_POINT_MLP_PRE, layer, w->gate, w->F);
    look(w, KH_POINT_MLP_PRE_LINEAR, layer, w->up, w->F);
    int by_gate = run->ff && run->ff->rule == KH_FF_GATE;
    if (by_gate) kh_op_ff_keep(run, run->ff, w->gate, w->T, w->F, layer);
    kh_op_glu(run, w->gate, w->up, w->T, w->F, d->act);
    if (run->ff && !by_gate) kh_op_ff_keep(run, run->ff, w->gate, w->T, w->F, layer);
    look(w, KH_POINT_MLP_ACT, layer, w->gate, w->F);
    KH_TRY(kh_op_linear(run, w->h, w->gate, w->T, &b->down));
    look(w, KH_POINT_MLP_OUT, layer, w->h, w->D);
    if (b->post_ffn_norm.data)
        kh_op_rmsnorm(run, w->h, w->h, b->post_ffn_norm.data, d->norm_eps, w->T, w->D);
    look(w, KH_POINT_MLP_OUT_POST, layer, w->h, w->D);
    kh_op_add(run, w->x, w->h, w->T, w->D);
    return KH_OK;
}

/* Rows that want logits are moved together into h (logit_rows ascend, so h is read before written
 * only if it aliased x, which it does not). */
static kh_status logits(walk *w, const kh_logit_sink *sink)
{
    const kh_description *d = &w->model->d;
    const kh_batch *batch = w->run->batch;
    size_t n = batch->logit_count, V = (size_t)d->V;
    for (size_t i = 0; i < n; i++)
        memcpy(w->h + i * w->D, w->x + batch->logit_rows[i] * w->D, w->D * sizeof(float));
    kh_op_rmsnorm(w->run, w->h, w->h, w->model->w.final_norm.data, d->norm_eps, n, w->D);
    kh_probe_at(w->run->probe, KH_POINT_FINAL_NORM, -1, w->h, n, w->D);
    for (size_t first = 0; first < n; first += sink->chunk_rows) {
        size_t rows = n - first < sink->chunk_rows ? n - first : sink->chunk_rows;
        KH_TRY(kh_op_linear(w->run, sink->buffer, w->h + first * w->D, rows, &w->model->w.head));
        if (d->logit_softcap > 0) kh_op_softcap(w->run, sink->buffer, d->logit_softcap, rows, V);
        kh_probe_at(w->run->probe, KH_POINT_LOGITS, -1, sink->buffer, rows, V);
        KH_TRY(sink->take(sink->context, first, rows, sink->buffer));
    }
    return KH_OK;
}

kh_status kh_forward(const kh_model *model, kh_run *run, const kh_logit_sink *sink)
{
    walk w = {.model = model, .run = run, .T = run->batch->n};
    kh_arena_mark mark = kh_arena_save(run->step);
    kh_status status = take_buffers(&w);
    if (status == KH_OK) {
        for (int i = 0; i < 2; i++) kh_rope_angles(run, &model->rope[i], w.cosine[i], w.sine[i]);
        kh_op_embed(run, w.x, &model->w.embedding, run->batch->tokens, w.T, model->d.embed_scale);
        look(&w, KH_POINT_EMBEDDINGS, -1, w.x, w.D);
    }
    for (int layer = 0; status == KH_OK && layer < model->d.N; layer++) {
        if (run->stop && atomic_load(run->stop)) {
            status = kh_fail(KH_ERR_STOPPED, "stopped");
            break;
        }
        look(&w, KH_POINT_RESID_PRE, layer, w.x, w.D);
        status = attention(&w, layer);
        if (status != KH_OK) break;
        look(&w, KH_POINT_RESID_MID, layer, w.x, w.D);
        status = feed_forward(&w, layer);
        look(&w, KH_POINT_RESID_POST, layer, w.x, w.D);
    }
    if (status == KH_OK && run->batch->logit_count > 0) status = logits(&w, sink);
    kh_arena_rewind(run->step, mark);
    return status;
}

static void larger(size_t *most, size_t value)
{
    if (value > *most) *most = value;
}

static void linear_need(const kh_weight *weight, size_t T, size_t *step, size_t *scratch)
{
    size_t a = 0, b = 0;
    kh_linear_need(weight, T, &a, &b);
    larger(step, a);
    larger(scratch, b);
}

void kh_forward_need(const kh_model *model, const kh_attn_plan *plan, const kh_kv_shape *shape,
                     size_t T, size_t S, size_t *step, size_t *scratch)
{
    const kh_description *d = &model->d;
    size_t D = (size_t)d->D, HE = (size_t)d->H * (size_t)d->E, GE = (size_t)d->G * (size_t)d->E;
    size_t F = (size_t)d->F, f = sizeof(float), own = 0, op = 0;
    *scratch = kh_ff_keep_scratch(F);
    own += 2 * kh_arena_need(T * D * f) + 2 * kh_arena_need(T * HE * f);
    own += 2 * kh_arena_need(T * GE * f) + 2 * kh_arena_need(T * F * f);
    own += 4 * kh_arena_need(T * (size_t)d->E / 2 * f);
    for (int layer = 0; layer < d->N; layer++) {
        const kh_block *b = &model->w.blocks[layer];
        const kh_weight *all[] = {&b->q, &b->k, &b->v, &b->o, &b->gate, &b->up, &b->down};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) linear_need(all[i], T, &op, scratch);
        size_t attn_step = 0, attn_scratch = 0;
        kh_attn_layer how = {.layer = layer, .H = d->H, .G = d->G, .E = d->E};
        kh_attn_need(plan, &how, shape, T, S, &attn_step, &attn_scratch);
        larger(&op, attn_step);
        larger(scratch, attn_scratch);
    }
    linear_need(&model->w.head, T, &op, scratch);
    *step = own + op;
}
