/* A trainer from its options: include/keyhole/train.h over src/train.
 *
 *     model, or nothing  -> kh_params -> kh_pass
 *     files, or a task   -> kh_source -> kh_data: a side that trains, a side that is held out
 *     texts              -> kh_optimizer, kh_schedule, settings of tensors
 *     folder             -> kh_checkpoints, and the state to go on from
 *
 * Data are opened before anything large is taken, and the folder is locked before the first step: what may be
 * wrong is a sentence at the start of a run, not at its end. */
#include "api/train_impl.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "cpu/cpu.h"
#include "model/hf.h"
#include "train/arch.h"

#include <stdio.h>
#include <string.h>

enum { USUAL_LENGTH = 1024, USUAL_STEPS = 1000, HELD_OUT_EXAMPLES = 512 };
static const double MASKED_SHARE = 0.15;

/* ---- the model */

static int wants_adapter(const kh_train_options *o)
{
    return o->lora_rank > 0 || o->lora_from;
}

static kh_status open_params(kh_trainer *t)
{
    const kh_train_options *o = &t->options;
    if (!o->model == !o->arch)
        KH_FAIL(KH_ERR_ARGUMENT,
                "training begins with a model or with the description of one: one of both");
    if (wants_adapter(o) && !o->model)
        KH_FAIL(KH_ERR_ARGUMENT, "an adapter is of a model, not of a description");
    if (o->lora_from && (o->lora_rank || o->lora_alpha != 0 || o->lora_targets))
        KH_FAIL(KH_ERR_ARGUMENT, "%s is trained as it is: rank, alpha and targets are of a new one",
                o->lora_from);
    if (o->model && o->model->lora_count > 0)
        KH_FAIL(KH_ERR_ARGUMENT, "a model with adapters is trained when they were merged into it");
    kh_params_lora lora = {o->lora_rank, o->lora_alpha, o->lora_targets, o->seed, o->lora_from};
    if (wants_adapter(o)) return kh_params_open_lora(&t->params, o->model->info.path, &lora);
    if (o->model) return kh_params_open(&t->params, o->model->file);
    kh_arch arch;
    kh_scratch_options *s = &arch.options;
    kh_gguf *words = NULL, *file = NULL;
    KH_TRY(kh_arch_parse(&arch, o->arch));
    s->init.seed = o->seed;
    if (t->task && s->vocabulary == 0) s->vocabulary = kh_task_get_info(t->task)->vocabulary;
    if (t->task && s->classes == 0) s->classes = kh_task_get_info(t->task)->classes;
    if (t->task && s->classes > 0 && s->towers == 0)
        s->towers = kh_task_get_info(t->task)->pair ? 2 : 1;
    kh_status status = KH_OK;
    if (t->vocabulary && kh_hf_is(o->tokenizer)) status = kh_gguf_new(&words, o->tokenizer);
    if (status == KH_OK && words) status = kh_tokenizer_describe(t->vocabulary->tokenizer, words);
    s->words = words ? words : t->vocabulary ? t->vocabulary->file : NULL;
    if (status == KH_OK) status = kh_scratch_open(&file, s);
    if (status == KH_OK) status = kh_params_open(&t->params, file);
    kh_gguf_close(file);
    kh_gguf_close(words);
    return status;
}

static kh_status open_vocabulary(kh_trainer *t)
{
    const kh_train_options *o = &t->options;
    if (o->task) return kh_task_open(&t->task, o->task);
    if (!o->arch || !o->path_count) return KH_OK;
    if (!o->tokenizer)
        KH_FAIL(
            KH_ERR_ARGUMENT,
            "texts need a tokenizer: that of a model, or one that keyhole tokenizer train wrote");
    return kh_model_open_vocabulary(&t->vocabulary, o->tokenizer);
}

/* ---- the data */

static const kh_tokenizer *tokenizer_of(const kh_trainer *t)
{
    return t->options.model ? t->options.model->tokenizer
           : t->vocabulary  ? t->vocabulary->tokenizer
                            : NULL;
}

static kh_status open_sources(kh_trainer *t)
{
    const kh_train_options *o = &t->options;
    if (o->task && o->path_count)
        KH_FAIL(KH_ERR_ARGUMENT, "the data are a task or files: one of both");
    if (t->task) {
        KH_TRY(kh_task_source_open(&t->tasks[0], t->task, o->seed, KH_TASK_TRAIN, UINT64_MAX));
        return kh_task_source_open(&t->tasks[1], t->task, o->seed, KH_TASK_VALID,
                                   HELD_OUT_EXAMPLES);
    }
    kh_source_options options = kh_source_options_from(&o->documents);
    if (o->path_count)
        KH_TRY(kh_source_open(&t->files[0], o->paths, o->path_count, tokenizer_of(t), &options));
    if (o->valid_path_count)
        KH_TRY(kh_source_open(&t->files[1], o->valid_paths, o->valid_path_count, tokenizer_of(t),
                              &options));
    return KH_OK;
}

/* A model from nothing may begin every text of a task with a token of its own. */
static kh_status prefix_task(kh_trainer *t)
{
    uint64_t id = UINT64_MAX;
    if (!t->task) return KH_OK;
    KH_TRY(kh_gguf_opt_u64(t->params->model->file, "tokenizer.ggml.cls_token_id", &id, UINT32_MAX));
    if (t->vocabulary || id >= (uint64_t)t->params->model->d.V) return KH_OK;
    for (int i = 0; i < 2; i++) KH_TRY(kh_task_source_prefix(&t->tasks[i], (int32_t)id));
    return KH_OK;
}

/* Of two texts apart each has half of a task's longest example. */
static size_t longest_example(const kh_trainer *t)
{
    const kh_task_info *info = kh_task_get_info(t->task);
    size_t prefix = t->tasks[0].tokens != NULL;
    if (!info->pair) return info->longest + prefix;
    int apart = kh_pass_reads_pairs(t->params->model);
    return apart ? (info->longest + 1) / 2 + prefix : info->longest + 2 * prefix;
}

static kh_status check_sizes(kh_trainer *t)
{
    const kh_train_options *o = &t->options;
    size_t context = (size_t)t->params->model->d.context;
    int ids = t->task ? kh_task_get_info(t->task)->vocabulary : 0;
    t->length = o->length                ? o->length
                : t->task                ? longest_example(t)
                : context < USUAL_LENGTH ? context
                                         : USUAL_LENGTH;
    if (ids > t->params->model->d.V)
        KH_FAIL(KH_ERR_ARGUMENT, "the task '%s' has %d ids, the vocabulary of the model %d",
                o->task, ids, t->params->model->d.V);
    if (t->length > context && t->params->model->d.positions == KH_POSITIONS_LEARNED)
        KH_FAIL(KH_ERR_ARGUMENT, "sequences of %zu tokens: the model has learned positions for %zu",
                t->length, context);
    return KH_OK;
}

static kh_status open_data(kh_trainer *t)
{
    const kh_train_options *o = &t->options;
    kh_data_options options = {.length = t->length,
                               .batch = o->batch ? o->batch : 1,
                               .pack = o->pack || t->task ? KH_PACK_NONE : KH_PACK_FULL,
                               .pairs = kh_pass_reads_pairs(t->params->model) ? KH_PAIRS_APART
                                                                              : KH_PAIRS_TOGETHER,
                               .order = o->in_order ? KH_ORDER_GIVEN : KH_ORDER_SHUFFLED,
                               .seed = o->seed,
                               .valid = o->valid_path_count || t->task ? 0 : o->valid};
    kh_source *train = t->task ? t->tasks[0].source : t->files[0];
    kh_source *held = t->task               ? t->tasks[1].source
                      : o->valid_path_count ? t->files[1]
                      : o->valid > 0        ? t->files[0]
                                            : NULL;
    t->rows = t->length * options.batch;
    t->spans = t->rows;
    if (!train) return KH_OK;
    KH_TRY(kh_data_open(&t->data[0], train, &options));
    if (held) {
        if (options.valid > 0) options.side = KH_SIDE_VALID;
        options.order = KH_ORDER_GIVEN;
        options.epochs = 1;
        KH_TRY(kh_data_open(&t->data[1], held, &options));
    }
    t->rows = t->spans = 0;
    for (int i = 0; i < 2 && t->data[i]; i++) {
        size_t rows = kh_data_max_rows(t->data[i]), spans = kh_data_max_spans(t->data[i]);
        if (rows > t->rows) t->rows = rows;
        if (spans > t->spans) t->spans = spans;
    }
    return KH_OK;
}

/* ---- the optimiser and the pass */

static kh_status open_settings(kh_trainer *t)
{
    const kh_train_options *o = &t->options;
    const kh_params *p = t->params;
    KH_TRY(kh_new(&t->settings, p->tensor_count, sizeof *t->settings, "the tensors"));
    KH_TRY(kh_new(&t->views, p->tensor_count, sizeof *t->views, "the tensors"));
    KH_TRY(kh_optimizer_parse(&t->optimizer_options, o->optimizer ? o->optimizer : "adamw"));
    kh_groups_options groups = {.decay = t->optimizer_options.decay,
                                .train = o->train,
                                .rules = o->groups,
                                .count = o->group_count};
    KH_TRY(kh_groups_apply(t->settings, p->tensors, p->tensor_count, &groups));
    for (size_t i = 0; i < p->tensor_count; i++) {
        const kh_tensor_spec *s = &p->tensors[i];
        if (p->frozen[i]) t->settings[i].rate = 0;
        if (t->settings[i].rate == 0) p->frozen[i] = 1;
        if (!p->frozen[i]) t->trained += s->count;
        t->views[i] = (kh_tensor_view){s->name, KH_TYPE_F32, s->rows, s->cols,
                                       p->weights + s->offset};
    }
    return KH_OK;
}

/* Texts say nothing of what an encoder has to guess. */
static double masked_share(const kh_trainer *t)
{
    const kh_model *m = t->params->model;
    int guesses = m->d.structure == KH_ENCODER && !m->w.classes.out.name;
    return guesses && t->options.path_count ? MASKED_SHARE : 0;
}

static kh_status open_teacher(kh_trainer *t, kh_distill_options *out)
{
    const kh_train_options *o = &t->options;
    if (o->teacher && !o->distill)
        KH_FAIL(KH_ERR_ARGUMENT,
                "a teacher (%s) without a loss against it: distillation names "
                "one, as kl=1,temperature=2",
                o->teacher);
    if (!o->distill) return KH_OK;
    KH_TRY(kh_distill_parse(out, o->distill));
    return o->teacher ? kh_model_open_network(&t->teacher, o->teacher) : KH_OK;
}

static kh_status open_run(kh_trainer *t)
{
    const kh_train_options *o = &t->options;
    uint64_t steps = o->steps ? o->steps : USUAL_STEPS;
    double rate = o->rate > 0 ? o->rate : wants_adapter(o) ? 2e-4 : o->model ? 2e-5 : 1e-3;
    kh_buf attn = {0};
    kh_run_parts parts = {.params = t->params,
                          .data = t->data[0],
                          .valid = t->data[1],
                          .attn = o->attn,
                          .accumulate = o->accumulate > 1 ? o->accumulate : 1};
    KH_TRY(kh_schedule_parse(&parts.schedule, o->schedule ? o->schedule : "cosine", rate, steps));
    t->options.steps = steps;
    t->options.rate = rate;
    t->pool.threads = o->threads > 0 ? o->threads : kh_cpu_count();
    kh_distill_options distill;
    KH_TRY(open_teacher(t, &distill));
    kh_pass_options pass = {.mask = masked_share(t),
                            .tokenizer = tokenizer_of(t),
                            .rows = t->rows,
                            .spans = t->spans,
                            .threads = t->pool.threads,
                            .ff = o->ff,
                            .recompute = o->keep_records ? KH_RECOMPUTE_NONE : KH_RECOMPUTE_BLOCK,
                            .layer_causal = o->layer_causal,
                            .distill = o->distill ? &distill : NULL,
                            .teacher = t->teacher,
                            .attn_dropout = (float)o->attn_dropout,
                            .seed = o->seed};
    kh_status status = o->attn ? kh_moving_expand(&attn, o->attn, 1) : KH_OK;
    pass.attn = attn.data;
    if (status == KH_OK) status = kh_pass_open(&t->pass, t->params, &pass);
    kh_buf_free(&attn);
    KH_TRY(status);
    t->optimizer_options.key.seed = o->seed;
    KH_TRY(kh_optimizer_open(&t->optimizer, &t->optimizer_options, t->params->tensors, t->settings,
                             t->params->tensor_count, t->params->count, &t->pool,
                             kh_kern_get(kh_cpu_isa())));
    parts.pass = t->pass;
    parts.optimizer = t->optimizer;
    kh_train_open(&t->run, &parts);
    KH_TRY(kh_new(&t->positions, t->rows, sizeof *t->positions, "a batch"));
    KH_TRY(kh_new(&t->wanted, t->rows, sizeof *t->wanted, "a batch"));
    KH_TRY(kh_new(&t->items, t->spans, sizeof *t->items, "a batch"));
    return kh_new(&t->sequences, t->spans, sizeof *t->sequences, "a batch");
}

static const char *or_none(const char *text)
{
    return text ? text : "";
}

/* What may differ between a run and the one that goes on from it: threads, the number of steps, the folder. What the
 * documents are, the position in them knows. Recomputed attention adds its kept keys in another order. */
static kh_status digest(kh_trainer *t)
{
    const kh_train_options *o = &t->options;
    kh_buf text = {0};
    kh_status status = kh_buf_format(
        &text, "%s|%s|%s|%s|%s|%zu %zu %d %d %d|%d %d|%.17g|%.17g %.17g|%llu|%zu|%s|%s|%s",
        t->params->model->architecture, or_none(o->arch), or_none(o->attn), or_none(o->ff),
        or_none(o->task), t->length, o->batch, o->accumulate, o->pack, o->in_order, o->keep_records,
        o->layer_causal, o->attn_dropout, o->rate, o->valid, (unsigned long long)o->seed,
        t->params->count, or_none(o->optimizer), or_none(o->schedule), or_none(o->train));
    if (status == KH_OK && wants_adapter(o))
        status = kh_buf_format(&text, "|adapter %zu %.17g %s %s", o->lora_rank, o->lora_alpha,
                               or_none(o->lora_targets), or_none(o->lora_from));
    if (status == KH_OK && o->distill)
        status = kh_buf_format(&text, "|distill %s %s", o->distill, or_none(o->teacher));
    for (size_t i = 0; i < o->group_count && status == KH_OK; i++)
        status = kh_buf_format(&text, "|%s", o->groups[i]);
    if (status == KH_OK) t->config = kh_checkpoint_digest(text.data, text.size);
    kh_buf_free(&text);
    return status;
}

/* Those that are read after the opening. */
static kh_status copy_texts(kh_trainer *t)
{
    const char **texts[] = {&t->options.attn, &t->options.ff, &t->options.folder};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (!*texts[i]) continue;
        size_t size = strlen(*texts[i]) + 1;
        KH_TRY(kh_new(&t->texts[i], size, 1, "a trainer's options"));
        memcpy(t->texts[i], *texts[i], size);
        *texts[i] = t->texts[i];
    }
    return KH_OK;
}

static kh_status open_all(kh_trainer *t)
{
    KH_TRY(copy_texts(t));
    KH_TRY(open_vocabulary(t));
    KH_TRY(open_sources(t));
    KH_TRY(open_params(t));
    KH_TRY(prefix_task(t));
    KH_TRY(check_sizes(t));
    KH_TRY(open_data(t));
    KH_TRY(open_settings(t));
    KH_TRY(open_run(t));
    KH_TRY(digest(t));
    if (!t->options.folder) return KH_OK;
    KH_TRY(kh_checkpoints_open(&t->checkpoints, t->options.folder,
                               t->options.keep ? (size_t)t->options.keep : 2));
    return kh_trainer_resume(t);
}

kh_status kh_trainer_open(kh_trainer **out, const kh_train_options *options)
{
    *out = NULL;
    kh_trainer *t = NULL;
    KH_TRY(kh_new(&t, 1, sizeof *t, "a trainer"));
    t->options = *options;
    kh_status status = open_all(t);
    if (status == KH_OK)
        *out = t;
    else
        kh_trainer_close(t);
    return status;
}

void kh_trainer_close(kh_trainer *t)
{
    if (!t) return;
    kh_checkpoints_close(t->checkpoints);
    kh_buf_free(&t->checkpoint);
    kh_buf_free(&t->passed_over);
    kh_train_close(&t->run);
    kh_optimizer_close(t->optimizer);
    kh_pass_close(t->pass);
    for (int i = 1; i >= 0; i--) {
        kh_data_close(t->data[i]);
        kh_source_close(t->files[i]);
        kh_task_source_close(&t->tasks[i]);
    }
    kh_task_close(t->task);
    kh_model_close(t->teacher);
    kh_params_close(t->params);
    kh_model_close(t->vocabulary);
    kh_free(t->settings);
    kh_free(t->views);
    kh_free(t->positions);
    kh_free(t->wanted);
    kh_free(t->items);
    kh_free(t->sequences);
    for (size_t i = 0; i < sizeof t->texts / sizeof *t->texts; i++) kh_free(t->texts[i]);
    kh_free(t);
}
