/* What a session and its forks share, allocated once when the first session opens.
 *
 * Lifetimes:   engine   arenas, page pool, plan, arrays of the batch in flight
 *              session  page table, tokens, logits of the last row
 *
 * Every size is planned from the model, the plan and the batch: activations of one batch in `step`,
 * one scratch arena per worker, pages for the context and for the forks. All of them are reservations
 * of address space, so the figure that counts is what was touched: kh_session_get_report gives peaks. */
#include "gen/engine.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "kern/attn_kern.h"

#include <string.h>

enum {
    DEFAULT_BATCH = 512,
    MOST_BATCH = 1 << 20,
    MOST_FORKS = 1 << 16,
    MOST_LANES = 256,
    LOGIT_CHUNK_BYTES = 32 << 20
};

static kh_type cache_type(kh_cache_type type)
{
    switch (type) {
    case KH_CACHE_F32: return KH_TYPE_F32;
    case KH_CACHE_Q8_0: return KH_TYPE_Q8_0;
    case KH_CACHE_F16: break;
    }
    return KH_TYPE_F16;
}

static kh_status check_options(const kh_model *m, const kh_session_options *o)
{
    if (!m->family) KH_FAIL(KH_ERR_STATE, "the file was opened for its vocabulary only");
    if (m->d.structure == KH_ENCODER)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "a %s model is an encoder: it predicts no next token (it can embed or fill)",
                m->architecture);
    if (o->context > (size_t)m->d.context && m->d.positions == KH_POSITIONS_LEARNED)
        KH_FAIL(KH_ERR_CONTEXT,
                "a context of %zu exceeds the trained length of %d, and this model's positions are "
                "learned",
                o->context, m->d.context);
    if (o->context > (size_t)m->d.context && !o->longer)
        KH_FAIL(KH_ERR_CONTEXT,
                "a context of %zu exceeds the trained length of %d: a longer one must be asked for",
                o->context, m->d.context);
    if (o->context > 1u << 30)
        KH_FAIL(KH_ERR_ARGUMENT, "a context of %zu is too large", o->context);
    if (o->threads < 0 || o->threads > 1024)
        KH_FAIL(KH_ERR_ARGUMENT, "threads: %d is not between 0 and 1024", o->threads);
    if (o->batch > MOST_BATCH)
        KH_FAIL(KH_ERR_ARGUMENT, "a batch of %zu rows: at most %d are allowed", o->batch,
                MOST_BATCH);
    if (o->forks > MOST_FORKS)
        KH_FAIL(KH_ERR_ARGUMENT, "%zu forks: at most %d are allowed", o->forks, MOST_FORKS);
    int q8 = o->k_type == KH_CACHE_Q8_0 || o->v_type == KH_CACHE_Q8_0;
    if (q8 && m->d.E % 32 != 0)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "a q8_0 cache needs a head width that is a multiple of 32, this model has %d",
                m->d.E);
    return KH_OK;
}

/* The encoder in front of a decoder, and the room for what it makes of sources. */
static kh_status open_encoder(kh_engine *e, const kh_session_options *o, const kh_kv_shape *shape)
{
    if (e->model->d.structure != KH_ENCODER_DECODER) return KH_OK;
    kh_encoder_options options = {.longest = o->context,
                                  .longer = o->longer,
                                  .threads = e->pool.threads,
                                  .attn = kh_attn_plan_text(e->plan),
                                  .ff = kh_ff_plan_text(e->ff),
                                  .precision = o->precision};
    size_t pages = (e->context + KH_PAGE - 1) / KH_PAGE + 1;
    KH_TRY(kh_encoder_open(&e->encoder, e->model, &options));
    return kh_kv_pool_open(&e->sources, shape, pages);
}

static kh_status open_memory(kh_engine *e, const kh_session_options *o)
{
    const kh_description *d = &e->model->d;
    kh_kv_shape shape = {.layers = d->N,
                         .groups = d->G,
                         .k_width = d->E,
                         .v_width = d->E,
                         .k_type = cache_type(o->k_type),
                         .v_type = cache_type(o->v_type),
                         .shadow = o->key_shadow};
    size_t step = 0, scratch = 0, V = (size_t)d->V;
    kh_forward_need(e->model, e->plan, &shape, e->batch, e->context, &step, &scratch);
    KH_TRY(kh_arena_init(&e->step, "step", step));
    KH_TRY(kh_new(&e->scratch, (size_t)e->pool.threads, sizeof *e->scratch, "worker scratch"));
    for (int i = 0; i < e->pool.threads; i++)
        KH_TRY(kh_arena_init(&e->scratch[i], "worker", scratch));
    e->chunk_rows = LOGIT_CHUNK_BYTES / (V * sizeof(float));
    if (e->chunk_rows < 1) e->chunk_rows = 1;
    if (e->chunk_rows > e->batch) e->chunk_rows = e->batch;
    KH_TRY(kh_arena_init(&e->logits, "logits", e->chunk_rows * V * sizeof(float)));
    KH_TRY(kh_new(&e->tokens, e->batch, sizeof *e->tokens, "a batch"));
    KH_TRY(kh_new(&e->positions, e->batch, sizeof *e->positions, "a batch"));
    KH_TRY(kh_new(&e->logit_rows, e->batch, sizeof *e->logit_rows, "a batch"));
    e->lanes = e->batch < MOST_LANES ? e->batch : MOST_LANES;
    KH_TRY(kh_new(&e->spans, e->lanes, sizeof *e->spans, "a batch"));
    KH_TRY(kh_new(&e->kvs, e->lanes, sizeof *e->kvs, "a batch"));
    KH_TRY(kh_new(&e->crosses, e->lanes, sizeof *e->crosses, "a batch"));
    size_t pages = (e->context + KH_PAGE - 1) / KH_PAGE + 1;
    KH_TRY(open_encoder(e, o, &shape));
    return kh_kv_pool_open(&e->pages, &shape, pages * (1 + o->forks));
}

kh_status kh_engine_open(kh_engine **out, const kh_model *model, const kh_session_options *options)
{
    *out = NULL;
    KH_TRY(check_options(model, options));
    kh_engine *e = NULL;
    KH_TRY(kh_new(&e, 1, sizeof *e, "a session"));
    e->model = model;
    e->refs = 1;
    e->context = options->context ? options->context : (size_t)model->d.context;
    e->batch = options->batch ? options->batch : DEFAULT_BATCH;
    if (e->batch > e->context) e->batch = e->context;
    e->compute = kh_plans_compute(options->precision);
    e->pool.threads = options->threads ? options->threads : kh_cpu_count();
    e->kern = kh_kern_get(kh_cpu_isa());
    e->stats.want_mass = options->stats;
    kh_status status = kh_plans_attn(&e->plan, model, options->attn);
    if (status == KH_OK) status = kh_plans_ff(&e->ff, model, e->kern, options->ff);
    if (status == KH_OK) status = open_memory(e, options);
    if (status != KH_OK) {
        kh_engine_close(e);
        return status;
    }
    *out = e;
    return KH_OK;
}

void kh_engine_close(kh_engine *e)
{
    if (!e || --e->refs > 0) return;
    kh_kv_pool_close(e->pages);
    kh_kv_pool_close(e->sources);
    kh_encoder_close(e->encoder);
    kh_attn_plan_free(e->plan);
    kh_ff_plan_close(e->ff);
    kh_free(e->crosses);
    kh_free(e->kvs);
    kh_free(e->spans);
    kh_free(e->logit_rows);
    kh_free(e->positions);
    kh_free(e->tokens);
    kh_arena_free(&e->logits);
    for (int i = 0; e->scratch && i < e->pool.threads; i++) kh_arena_free(&e->scratch[i]);
    kh_free(e->scratch);
    kh_arena_free(&e->step);
    kh_free(e);
}

kh_run kh_engine_run(kh_engine *e, const kh_batch *batch, enum kh_phase phase)
{
    return (kh_run){.step = &e->step,
                    .pool = &e->pool,
                    .scratch = e->scratch,
                    .kern = e->kern,
                    .batch = batch,
                    .phase = phase,
                    .beyond = kh_engine_beyond(e),
                    .attn = e->plan,
                    .ff = e->ff,
                    .compute = e->compute,
                    .stats = &e->stats,
                    .attention_seconds = &e->attention_seconds};
}

kh_status kh_model_memory(const kh_model *model, const kh_session_options *options,
                          kh_memory_need *out)
{
    static const kh_session_options defaults;
    *out = (kh_memory_need){0};
    if (model->d.structure == KH_ENCODER) return kh_encoder_memory(out, model);
    kh_engine *e = NULL;
    KH_TRY(kh_engine_open(&e, model, options ? options : &defaults));
    size_t pages = (e->context + KH_PAGE - 1) / KH_PAGE;
    *out = (kh_memory_need){.file = kh_gguf_size(model->file),
                            .adapters = kh_model_lora_bytes(model),
                            .cache = pages * kh_kv_page_bytes(kh_kv_pool_shape(e->pages)),
                            .compute = e->step.size + (size_t)e->pool.threads * e->scratch[0].size};
    kh_engine_close(e);
    return KH_OK;
}
