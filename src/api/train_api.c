/* A trainer at work: steps, checkpoints, the model it makes, gradients by hand.
 *
 * A checkpoint holds all that a run depends on: masters, moments, steps done, the position in the data. Options are
 * not in it: they are given again, and a digest of those that the bits depend on says whether they are the same. */
#include "api/train_impl.h"

#include "api/convert_write.h"
#include "base/fail.h"
#include "cpu/cpu.h"
#include "model/lora_set.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void report(kh_train_report *out, const kh_trainer *t, const kh_loss *loss, double started)
{
    double rows = (double)loss->rows;
    *out = (kh_train_report){.step = t->run.step,
                             .loss = loss->nats / rows,
                             .distill = loss->distill / rows,
                             .accuracy = (double)loss->right / rows,
                             .rows = loss->rows,
                             .seconds = kh_cpu_seconds() - started,
                             .peak_bytes = kh_cpu_peak_rss()};
}

kh_status kh_trainer_step(kh_trainer *t, kh_train_report *out)
{
    double started = kh_cpu_seconds();
    kh_step_result step;
    KH_TRY(kh_train_step(&t->run, &step));
    report(out, t, &step.loss, started);
    out->rate = step.rate;
    out->norm = step.norm;
    out->epoch = step.epoch;
    out->tokens = step.tokens;
    return KH_OK;
}

kh_status kh_trainer_evaluate(kh_trainer *t, size_t batches, kh_train_report *out)
{
    double started = kh_cpu_seconds();
    kh_loss loss = {0};
    KH_TRY(kh_train_evaluate(&t->run, batches, &loss));
    report(out, t, &loss, started);
    return KH_OK;
}

void kh_trainer_stop(kh_trainer *t)
{
    kh_pass_stop(t->pass);
}

/* ---- checkpoints */

kh_status kh_trainer_checkpoint(kh_trainer *t)
{
    if (!t->checkpoints) KH_FAIL(KH_ERR_STATE, "the run has no folder for checkpoints");
    uint8_t position[KH_DATA_POSITION];
    kh_checkpoint_blob blob = {"data", position, sizeof position};
    if (t->data[0]) kh_data_save(t->data[0], position);
    kh_checkpoint_state state = {.step = t->run.step,
                                 .key = {t->options.seed, t->run.step},
                                 .best = (double)NAN,
                                 .config = t->config,
                                 .blobs = &blob,
                                 .blob_count = t->data[0] != NULL};
    size_t moments = 0;
    const kh_tensor_view *optimizer = kh_optimizer_views(t->optimizer, &moments);
    KH_TRY(kh_checkpoints_save(t->checkpoints, &state, t->views, t->params->tensor_count, optimizer,
                               moments));
    return kh_checkpoint_name(&t->checkpoint, t->options.folder, t->run.step);
}

static kh_status load(kh_trainer *t, const kh_checkpoint *c)
{
    const kh_checkpoint_state *state = kh_checkpoint_get_state(c);
    size_t moments = 0;
    const kh_tensor_view *optimizer = kh_optimizer_views(t->optimizer, &moments);
    if (state->config != t->config)
        KH_FAIL(KH_ERR_STATE,
                "%s belongs to a run with other options: the same are needed to go on from it",
                kh_checkpoint_path(c));
    KH_TRY(kh_checkpoint_read_model(c, t->views, t->params->tensor_count));
    KH_TRY(kh_checkpoint_read_optimizer(c, optimizer, moments));
    const kh_checkpoint_blob *data = kh_checkpoint_get_blob(c, "data");
    if (t->data[0] && data) KH_TRY(kh_data_load(t->data[0], data->data, data->size));
    t->run.step = state->step;
    return kh_checkpoint_name(&t->checkpoint, t->options.folder, state->step);
}

kh_status kh_trainer_resume(kh_trainer *t)
{
    kh_checkpoint *newest = NULL;
    kh_status status = kh_checkpoint_newest(&newest, t->options.folder, &t->passed_over);
    if (status == KH_ERR_NOT_FOUND) return KH_OK;
    KH_TRY(status);
    if (t->options.resume)
        status = load(t, newest);
    else
        status = kh_fail(KH_ERR_STATE,
                         "%s is there: a run goes on from it only when asked to (--resume); for a "
                         "new one, another folder",
                         kh_checkpoint_path(newest));
    kh_checkpoint_close(newest);
    return status;
}

kh_status kh_trainer_save(kh_trainer *t, const char *path, const char *type)
{
    size_t n = strlen(path);
    if (t->params->lora && n > 0 && path[n - 1] == '/')
        return kh_lora_save_peft(t->params->lora, t->params->model->file, path);
    if (t->params->lora) return kh_lora_save_gguf(t->params->lora, t->params->model->file, path);
    const char *tokens = t->options.model ? t->options.model->info.path
                         : t->vocabulary  ? t->vocabulary->info.path
                                          : NULL;
    return kh_convert_write(t->params->model->file, tokens, path, type ? type : "BF16");
}

void kh_trainer_get_info(const kh_trainer *t, kh_train_info *out)
{
    kh_pass_memory memory;
    kh_source_info data = {0};
    const kh_source *source = t->task ? t->tasks[0].source : t->files[0];
    if (source) kh_source_get_info(source, &data);
    kh_pass_get_memory(t->pass, &memory);
    *out = (kh_train_info){.step = t->run.step,
                           .steps = t->options.steps,
                           .parameters = t->params->model->w.parameters,
                           .trained = t->trained,
                           .documents = data.documents,
                           .attn = t->options.attn ? t->options.attn : "full",
                           .ff = t->options.ff ? t->options.ff : "dense",
                           .architecture = t->params->model->architecture,
                           .checkpoint = t->checkpoint.size ? t->checkpoint.data : "",
                           .passed_over = t->passed_over.size ? t->passed_over.data : "",
                           .weight_bytes = 2 * t->params->count * sizeof(float),
                           .moment_bytes = kh_optimizer_bytes(t->optimizer),
                           .activation_bytes = memory.activations,
                           .record_bytes = memory.tape,
                           .threads = t->pool.threads};
}

/* ---- gradients by hand */

static kh_status check(const kh_trainer *t, const kh_train_batch *b)
{
    size_t rows = 0, sequences = b->lengths ? b->sequences : 1;
    if (b->rows < 1 || b->rows > t->rows || sequences > t->spans)
        KH_FAIL(KH_ERR_ARGUMENT,
                "a batch of %zu rows in %zu sequences: this trainer has room for %zu in %zu",
                b->rows, sequences, t->rows, t->spans);
    for (size_t i = 0; b->lengths && i < sequences; i++) {
        if (b->lengths[i] < 1 || b->lengths[i] > b->rows - rows)
            KH_FAIL(KH_ERR_ARGUMENT, "a batch: sequence %zu has %zu rows of the %zu that are left",
                    i, b->lengths[i], b->rows - rows);
        rows += b->lengths[i];
    }
    if (b->lengths && rows != b->rows)
        KH_FAIL(KH_ERR_ARGUMENT, "a batch: its sequences have %zu rows, it has %zu", rows, b->rows);
    return KH_OK;
}

/* Examples of one sequence, or of two neighbours. */
static size_t list_items(kh_trainer *t, const kh_train_batch *b, size_t sequences)
{
    size_t texts = kh_pass_reads_pairs(t->params->model) ? 2 : 1, count = 0;
    for (size_t i = 0; i + texts <= sequences; i += texts, count++) {
        const kh_span *first = &t->sequences[i], *last = &t->sequences[i + texts - 1];
        t->items[count] = (kh_data_item){.document = count,
                                         .row = first->row,
                                         .rows = last->row + last->rows - first->row,
                                         .second = texts == 2 ? last->row : 0,
                                         .label = b->labels ? b->labels[count] : -1};
    }
    return count;
}

kh_status kh_trainer_gradient(kh_trainer *t, const kh_train_batch *b, double weight, double *nats)
{
    KH_TRY(check(t, b));
    size_t wanted = 0, row = 0, sequences = b->lengths ? b->sequences : 1;
    for (size_t i = 0; i < sequences; i++) {
        size_t n = b->lengths ? b->lengths[i] : b->rows;
        t->sequences[i] = (kh_span){(int)i, row, n, 0};
        for (size_t r = 0; r < n; r++, row++) {
            t->positions[row] = (int32_t)r;
            if (b->targets && b->targets[row] >= 0) t->wanted[wanted++] = (uint32_t)row;
        }
    }
    kh_data_batch batch = {.batch = {.n = b->rows,
                                     .tokens = b->tokens,
                                     .position = t->positions,
                                     .types = b->types,
                                     .spans = t->sequences,
                                     .span_count = sequences,
                                     .logit_rows = t->wanted,
                                     .logit_count = wanted},
                           .targets = b->targets,
                           .items = t->items,
                           .item_count = list_items(t, b, sequences)};
    kh_loss loss = {0};
    KH_TRY(kh_train_set_attn(&t->run));
    if (weight != 0) t->run.pending = 1;
    KH_TRY(weight == 0 ? kh_pass_loss(t->pass, &batch, &loss)
                       : kh_pass_gradient(t->pass, &batch, (float)weight, t->run.step, &loss));
    *nats = loss.nats;
    return KH_OK;
}

kh_status kh_trainer_update(kh_trainer *t, double rate, double *norm)
{
    kh_step_report step = {0};
    if (rate <= 0) rate = kh_schedule_rate(&t->run.parts.schedule, t->run.step + 1);
    KH_TRY(kh_train_update(&t->run, rate, 1, &step));
    if (norm) *norm = step.norm;
    return KH_OK;
}

size_t kh_trainer_tensor_count(const kh_trainer *t)
{
    return t->params->tensor_count;
}

void kh_trainer_get_tensor(const kh_trainer *t, size_t index, kh_train_tensor *out)
{
    const kh_params *p = t->params;
    const kh_tensor_spec *s = &p->tensors[index];
    *out = (kh_train_tensor){.name = s->name,
                             .data = p->weights + s->offset,
                             .gradient = p->frozen[index] ? NULL : p->gradients + s->offset,
                             .rows = s->rows,
                             .cols = s->cols};
}
