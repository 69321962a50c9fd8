/* A step of training as a measurement: a model from nothing, random tokens, the pass of the trainer.
 *
 * The default is GPT-2 small's body: twelve layers, 768 wide, with 256 ids instead of 50,257, so that what is
 * measured are the layers; a head of that size is a product like any other, and its memory is that of a chunk of
 * rows. The clock runs over what a trainer does in a step: gradients cleared, forward, backward, and AdamW with
 * `update`. */
#include <keyhole/bench.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "bench/isolate.h"
#include "bench/repeat.h"
#include "cpu/cpu.h"
#include "train/arch.h"
#include "train/optimizer.h"
#include "train/pass.h"

#include <stdio.h>
#include <string.h>

static const char usual[] = "gpt2:layers=12,width=768,heads=12,vocabulary=256";

typedef struct work {
    const kh_bench_train_options *o;
    const char *attn;
    size_t L;
    kh_pool pool;
    kh_params *params;
    kh_pass *pass;
    kh_optimizer *optimizer; /* NULL without `update` */
    kh_tensor_setting *settings;
    int32_t *tokens, *positions, *targets; /* [L] */
    uint32_t *rows;                        /* [L] */
    kh_span span;
    kh_data_batch batch;
    uint64_t steps;
    double loss;
} work;

static kh_status once(void *context)
{
    work *w = context;
    kh_loss loss = {0};
    kh_params_clear(w->params);
    KH_TRY(kh_pass_gradient(w->pass, &w->batch, 1.0f / (float)w->L, w->steps, &loss));
    if (w->steps++ == 0) w->loss = loss.nats / (double)loss.rows;
    if (!w->optimizer) return KH_OK;
    kh_step_report report;
    kh_step step = {.step = w->steps, .rate = 1e-4};
    return kh_optimizer_step(w->optimizer, w->params->weights, w->params->gradients, &step,
                             &report);
}

static kh_status open_batch(work *w)
{
    size_t V = (size_t)w->params->model->d.V;
    kh_rng_key key = {w->o->seed, 1};
    KH_TRY(kh_new(&w->tokens, w->L, sizeof *w->tokens, "a batch"));
    KH_TRY(kh_new(&w->positions, w->L, sizeof *w->positions, "a batch"));
    KH_TRY(kh_new(&w->targets, w->L, sizeof *w->targets, "a batch"));
    KH_TRY(kh_new(&w->rows, w->L, sizeof *w->rows, "a batch"));
    for (size_t t = 0; t < w->L; t++) {
        w->tokens[t] = (int32_t)(kh_rng_bits(key, t) % V);
        w->targets[t] = (int32_t)(kh_rng_bits(key, t + 1) % V);
        w->positions[t] = (int32_t)t;
        w->rows[t] = (uint32_t)t;
    }
    w->span = (kh_span){.rows = w->L};
    w->batch = (kh_data_batch){.batch = {.n = w->L,
                                         .tokens = w->tokens,
                                         .position = w->positions,
                                         .spans = &w->span,
                                         .span_count = 1,
                                         .logit_rows = w->rows,
                                         .logit_count = w->L},
                               .targets = w->targets};
    return KH_OK;
}

static kh_status open_optimizer(work *w)
{
    kh_optimizer_options options;
    size_t n = w->params->tensor_count;
    if (!w->o->update) return KH_OK;
    KH_TRY(kh_optimizer_parse(&options, "adamw"));
    KH_TRY(kh_new(&w->settings, n, sizeof *w->settings, "the tensors"));
    for (size_t i = 0; i < n; i++) w->settings[i] = (kh_tensor_setting){.rate = 1, .decay = 0.01};
    return kh_optimizer_open(&w->optimizer, &options, w->params->tensors, w->settings, n,
                             w->params->count, &w->pool, kh_kern_get(kh_cpu_isa()));
}

static kh_status open_work(work *w)
{
    kh_arch arch;
    kh_gguf *file = NULL;
    KH_TRY(kh_arch_parse(&arch, w->o->arch ? w->o->arch : usual));
    arch.options.init.seed = w->o->seed;
    if ((size_t)arch.options.context < w->L) arch.options.context = (int)w->L;
    KH_TRY(kh_scratch_open(&file, &arch.options));
    kh_status status = kh_params_open(&w->params, file);
    kh_gguf_close(file);
    KH_TRY(status);
    w->pool.threads = w->o->threads > 0 ? w->o->threads : kh_cpu_count();
    kh_pass_options pass = {.rows = w->L,
                            .spans = 1,
                            .threads = w->pool.threads,
                            .attn = w->attn,
                            .recompute = w->o->keep_records ? KH_RECOMPUTE_NONE
                                                            : KH_RECOMPUTE_BLOCK};
    KH_TRY(kh_pass_open(&w->pass, w->params, &pass));
    KH_TRY(open_optimizer(w));
    return open_batch(w);
}

static void close_work(work *w)
{
    kh_optimizer_close(w->optimizer);
    kh_pass_close(w->pass);
    kh_params_close(w->params);
    kh_free(w->settings);
    kh_free(w->tokens);
    kh_free(w->positions);
    kh_free(w->targets);
    kh_free(w->rows);
}

static kh_status measure(void *context, void *result)
{
    work w = *(const work *)context;
    kh_bench_train_result *out = result;
    *out = (kh_bench_train_result){.length = w.L};
    snprintf(out->attn, sizeof out->attn, "%s", w.attn);
    kh_status status = open_work(&w);
    uint64_t before = kh_cpu_rss();
    int times = w.o->repeat > 0 ? w.o->repeat : 1;
    if (status == KH_OK)
        status = (w.optimizer ? kh_repeat_settled : kh_repeat)(times, once, &w, &out->seconds_min,
                                                               &out->seconds_median);
    if (status == KH_OK) {
        kh_pass_memory memory;
        kh_pass_get_memory(w.pass, &memory);
        out->process_bytes = kh_cpu_peak_rss();
        out->peak_bytes = out->process_bytes > before ? out->process_bytes - before : 0;
        out->record_bytes = memory.tape;
        out->parameters = w.params->model->w.parameters;
        out->threads = w.pool.threads;
        out->loss = w.loss;
        out->k = kh_pass_top(w.pass);
        out->heads = w.params->model->d.H;
        out->width = w.params->model->d.E;
    }
    close_work(&w);
    return status;
}

kh_status kh_bench_train(const kh_bench_train_options *o,
                         kh_status (*row)(void *context, const kh_bench_train_result *result),
                         void *context)
{
    for (size_t a = 0; a < o->attn_count; a++)
        for (size_t l = 0; l < o->length_count; l++) {
            kh_bench_train_result result;
            work w = {.o = o, .attn = o->attns[a], .L = o->lengths[l]};
            if (w.L < 1)
                KH_FAIL(KH_ERR_ARGUMENT, "bench train: a length of 0 leaves nothing to do");
            KH_TRY(kh_isolate(o->isolate, measure, &w, &result, sizeof result));
            KH_TRY(row(context, &result));
        }
    return KH_OK;
}
