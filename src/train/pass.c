/* The pass of training: the model's one forward pass with a tape, and back.
 *
 *     step     |sink's logits and their twin|walk's buffers, each with its twin|what ops take|
 *     tape     records, or the blocks' inputs and chosen keys
 *     cache    one layer of pages a sequence, which all layers write in turn
 *
 * Logits exist a chunk of rows at a time; their loss is taken at once and taken back as far as the rows of the
 * last layer, so T x V numbers are never there. Chunks are multiples of 256 rows, as sums of gradients over rows
 * are (ops/linear_back.h), so no chunk changes a bit. */
#include "train/pass.h"

#include "attn/method.h"
#include "base/alloc.h"
#include "base/fail.h"
#include "cpu/cpu.h"
#include "ff/keep.h"
#include "gen/plans.h"
#include "kern/attn_kern.h"

#include <stdio.h>
#include <string.h>

enum { SLICE = 256, LOGIT_BYTES = 32 << 20 };

struct kh_pass {
    kh_params *params;
    kh_pass_options options;
    kh_pool pool;
    const kh_kern *kern;
    kh_arena step, *scratch; /* [threads] */
    kh_attn_plan *plan;
    kh_ff_plan *ff;
    kh_kv_pool *pages;
    kh_kv **kv; /* [spans] */
    kh_tape tape;
    int lists;  /* 1: every head keeps a list of keys */
    kh_run run; /* of the pass in flight */
    size_t chunk;
    float *logits; /* [chunk][V] */
    double *each;  /* [chunk][2] */
    atomic_bool stop;
    /* of the pass in flight */
    const kh_data_batch *batch;
    int32_t *targets; /* [rows] of the rows that have one */
    float weight;
    kh_loss *loss;
};

/* ---- opening */

static size_t chunk_rows(size_t V, size_t rows)
{
    size_t n = LOGIT_BYTES / (V * sizeof(float)) / SLICE * SLICE, all = (rows + SLICE - 1) / SLICE;
    if (n < SLICE) n = SLICE;
    return n < all * SLICE ? n : all * SLICE;
}

static kh_status check(const kh_pass *p)
{
    const kh_description *d = &p->params->model->d;
    const kh_pass_options *o = &p->options;
    if (d->structure != KH_DECODER)
        KH_FAIL(KH_ERR_UNSUPPORTED, "training a %s model is not supported",
                p->params->model->architecture);
    if (d->experts.count > 0)
        KH_FAIL(KH_ERR_UNSUPPORTED, "training a mixture of experts is not supported");
    if (o->rows < 1 || o->rows > 1u << 24 || o->spans < 1 || o->spans > o->rows)
        KH_FAIL(KH_ERR_ARGUMENT, "training: %zu rows in %zu sequences a batch: 1 to %d are allowed",
                o->rows, o->spans, 1 << 24);
    if (o->threads < 0 || o->threads > 1024)
        KH_FAIL(KH_ERR_ARGUMENT, "threads: %d is not between 0 and 1024", o->threads);
    if (!(o->attn_dropout >= 0 && o->attn_dropout < 1))
        KH_FAIL(KH_ERR_ARGUMENT, "attention dropout %g: from 0 to below 1",
                (double)o->attn_dropout);
    return KH_OK;
}

/* Twins double what the walk takes; the products' way back takes what they do. */
static kh_status open_memory(kh_pass *p)
{
    const kh_model *m = p->params->model;
    const kh_description *d = &m->d;
    size_t T = p->options.rows, V = (size_t)d->V, step = 0, scratch = 0;
    kh_kv_shape shape = {.layers = 1,
                         .groups = d->G,
                         .k_width = d->E,
                         .v_width = d->E,
                         .k_type = KH_TYPE_F32,
                         .v_type = KH_TYPE_F32};
    kh_forward_need(m, p->plan, &shape, T, T, &step, &scratch);
    p->chunk = chunk_rows(V, T);
    size_t logits = kh_arena_need(p->chunk * V * sizeof(float));
    KH_TRY(kh_arena_init(&p->step, "training step", 3 * step + 2 * logits + ((size_t)64 << 20)));
    KH_TRY(kh_new(&p->scratch, (size_t)p->pool.threads, sizeof *p->scratch, "worker scratch"));
    for (int i = 0; i < p->pool.threads; i++)
        KH_TRY(kh_arena_init(&p->scratch[i], "worker", 2 * scratch + ((size_t)16 << 20)));
    KH_TRY(kh_new(&p->each, 2 * p->chunk, sizeof *p->each, "a chunk of losses"));
    KH_TRY(kh_new(&p->targets, T, sizeof *p->targets, "a batch"));
    KH_TRY(kh_new(&p->kv, p->options.spans, sizeof *p->kv, "a batch"));
    KH_TRY(kh_tape_open(&p->tape, 0));
    size_t pages = T / KH_PAGE + p->options.spans;
    KH_TRY(kh_kv_pool_open(&p->pages, &shape, pages));
    for (size_t i = 0; i < p->options.spans; i++) KH_TRY(kh_kv_open(&p->kv[i], p->pages, T));
    return KH_OK;
}

static int keeps_lists(const kh_pass *p)
{
    const kh_description *d = &p->params->model->d;
    for (int l = 0; l < d->encoder_layers + d->N; l++)
        for (int h = 0; h < d->H; h++)
            if (kh_attn_plan_at(p->plan, KH_PHASE_PREFILL, l, h)->method->kind != KH_KEYS_INDICES)
                return 0;
    return 1;
}

static kh_status open_pass(kh_pass *p)
{
    KH_TRY(check(p));
    p->pool.threads = p->options.threads ? p->options.threads : kh_cpu_count();
    p->kern = kh_kern_get(kh_cpu_isa());
    KH_TRY(kh_plans_attn(&p->plan, p->params->model, p->options.attn));
    p->lists = keeps_lists(p);
    KH_TRY(kh_plans_ff(&p->ff, p->params->model, p->kern, p->options.ff));
    return open_memory(p);
}

kh_status kh_pass_open(kh_pass **out, kh_params *params, const kh_pass_options *options)
{
    *out = NULL;
    kh_pass *p = NULL;
    KH_TRY(kh_new(&p, 1, sizeof *p, "a pass"));
    p->params = params;
    p->options = *options;
    atomic_init(&p->stop, 0);
    kh_status status = open_pass(p);
    if (status == KH_OK)
        *out = p;
    else
        kh_pass_close(p);
    return status;
}

void kh_pass_close(kh_pass *p)
{
    if (!p) return;
    for (size_t i = 0; p->kv && i < p->options.spans; i++) kh_kv_close(p->kv[i]);
    kh_free(p->kv);
    kh_kv_pool_close(p->pages);
    kh_tape_close(&p->tape);
    kh_attn_plan_free(p->plan);
    kh_ff_plan_close(p->ff);
    for (int i = 0; p->scratch && i < p->pool.threads; i++) kh_arena_free(&p->scratch[i]);
    kh_free(p->scratch);
    kh_arena_free(&p->step);
    kh_free(p->targets);
    kh_free(p->each);
    kh_free(p);
}

kh_status kh_pass_set_attn(kh_pass *p, const char *attn)
{
    kh_attn_plan *plan = NULL;
    KH_TRY(kh_plans_attn(&plan, p->params->model, attn));
    kh_attn_plan_free(p->plan);
    p->plan = plan;
    p->lists = keeps_lists(p);
    return KH_OK;
}

int kh_pass_top(const kh_pass *p)
{
    const kh_description *d = &p->params->model->d;
    return kh_attn_plan_at(p->plan, KH_PHASE_PREFILL, d->encoder_layers + d->N - 1, 0)->k;
}

/* ---- a batch */

static kh_status take_logits(void *context, size_t first, size_t rows, float *logits)
{
    kh_pass *p = context;
    float *twin = p->run.tape ? kh_tape_twin_of(&p->run, logits) : NULL;
    kh_op_cross_entropy(&p->run, p->loss, twin, p->weight, logits, p->targets + first, p->each,
                        rows, (size_t)p->params->model->d.V);
    return KH_OK;
}

static kh_status check_batch(const kh_pass *p, const kh_batch *batch)
{
    int V = p->params->model->d.V;
    if (batch->n > p->options.rows || batch->span_count > p->options.spans)
        KH_FAIL(KH_ERR_ARGUMENT,
                "training: a batch of %zu rows in %zu sequences: room is for %zu in %zu", batch->n,
                batch->span_count, p->options.rows, p->options.spans);
    for (size_t t = 0; t < batch->n; t++)
        if (batch->tokens[t] < 0 || batch->tokens[t] >= V || p->batch->targets[t] >= V)
            KH_FAIL(KH_ERR_ARGUMENT, "training: row %zu: id %d or target %d is not below %d", t,
                    (int)batch->tokens[t], (int)p->batch->targets[t], V);
    return KH_OK;
}

static kh_status prepare(kh_pass *p, const kh_batch *batch)
{
    for (size_t i = 0; i < batch->span_count; i++) {
        KH_TRY(kh_kv_rewind(p->kv[i], 0));
        KH_TRY(kh_kv_prepare(p->kv[i], batch->spans[i].rows));
    }
    for (size_t i = 0; i < batch->logit_count; i++)
        p->targets[i] = p->batch->targets[batch->logit_rows[i]];
    return kh_arena_new(&p->step, &p->logits, p->chunk * (size_t)p->params->model->d.V,
                        sizeof *p->logits);
}

/* The way back attends over kept keys, in arrays: nobody reads a page again. */
static void drop_pages(kh_pass *p)
{
    for (size_t i = 0; i < p->batch->batch.span_count; i++) kh_kv_rewind(p->kv[i], 0);
    kh_kv_pool_drop(p->pages);
}

static kh_status forward_and_back(kh_pass *p, uint64_t step, int back)
{
    const kh_batch *batch = &p->batch->batch;
    KH_TRY(check_batch(p, batch));
    kh_arena_rewind(&p->step, 0);
    p->run = (kh_run){.step = &p->step,
                      .pool = &p->pool,
                      .scratch = p->scratch,
                      .kern = p->kern,
                      .batch = batch,
                      .phase = KH_PHASE_PREFILL,
                      .kv_self = p->kv,
                      .one_layer = 1,
                      .attn = p->plan,
                      .ff = kh_ff_plan_is_dense(p->ff) ? NULL : p->ff,
                      .compute = p->options.compute,
                      .key = {p->options.seed, step},
                      .stop = &p->stop};
    KH_TRY(prepare(p, batch));
    kh_logit_sink sink = {take_logits, p, p->logits, p->chunk};
    if (!back) return kh_forward(p->params->model, &p->run, &sink);
    kh_tape_reset(&p->tape);
    p->run.tape = &p->tape;
    p->run.attn_dropout = p->options.attn_dropout;
    p->tape.gradient_of = kh_params_gradient_of;
    p->tape.context = p->params;
    p->tape.recompute = p->options.recompute == KH_RECOMPUTE_BLOCK;
    p->tape.layer_causal = p->options.layer_causal;
    KH_TRY(kh_tape_buffer(&p->tape, &p->step, p->logits, p->chunk * (size_t)p->params->model->d.V));
    KH_TRY(kh_forward(p->params->model, &p->run, &sink));
    if (p->lists && p->tape.recompute) drop_pages(p);
    return kh_tape_backward(&p->run, NULL);
}

kh_status kh_pass_gradient(kh_pass *p, const kh_data_batch *batch, float weight, uint64_t step,
                           kh_loss *loss)
{
    p->batch = batch;
    p->weight = weight;
    p->loss = loss;
    return forward_and_back(p, step, 1);
}

kh_status kh_pass_loss(kh_pass *p, const kh_data_batch *batch, kh_loss *loss)
{
    p->batch = batch;
    p->weight = 0;
    p->loss = loss;
    return forward_and_back(p, 0, 0);
}

void kh_pass_get_memory(const kh_pass *p, kh_pass_memory *out)
{
    *out = (kh_pass_memory){.activations = p->step.peak, .tape = p->tape.kept.peak};
}

void kh_pass_stop(kh_pass *p)
{
    atomic_store(&p->stop, 1);
}
