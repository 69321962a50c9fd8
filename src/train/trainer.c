/* A run, step by step.
 *
 *     batches (accumulate of them) -> gradients added up -> times 1 / rows -> clipped -> optimiser
 *
 * The loss of a step is the mean over all rows with a target of its batches, so a step of two batches is that of
 * one batch twice as long, whatever rows they have. A step happens whole or not at all: the position of the data
 * is put back when the pass fails or is stopped, gradients are cleared, and a gradient that is not finite leaves
 * weights and moments alone. Everything random is a function of (seed, step), so a run has no other state than
 * weights, moments, the data's position and the number of steps done. */
#include "train/trainer.h"

#include "base/fail.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void kh_train_open(kh_train_run *run, const kh_run_parts *parts)
{
    *run = (kh_train_run){.parts = *parts};
    if (parts->valid) kh_data_save(parts->valid, run->start);
}

void kh_train_close(kh_train_run *run)
{
    kh_buf_free(&run->attn_now);
}

static kh_status set_attn(kh_train_run *run, uint64_t step)
{
    if (!run->parts.attn) return KH_OK;
    kh_buf now = {0};
    kh_status status = kh_moving_expand(&now, run->parts.attn, step);
    int same = status == KH_OK && run->attn_now.size == now.size &&
               memcmp(run->attn_now.data, now.data, now.size) == 0;
    if (status == KH_OK && !same) {
        status = kh_pass_set_attn(run->parts.pass, now.data);
        kh_buf last = run->attn_now;
        run->attn_now = now;
        now = last;
    }
    kh_buf_free(&now);
    return status;
}

kh_status kh_train_set_attn(kh_train_run *run)
{
    return set_attn(run, run->step + 1);
}

static kh_status gradients(kh_train_run *run, kh_step_result *out, size_t *rows)
{
    for (int i = 0; i < run->parts.accumulate; i++) {
        kh_data_batch batch;
        KH_TRY(kh_data_next(run->parts.data, &batch));
        if (batch.batch.n == 0 && i == 0)
            KH_FAIL(KH_ERR_NOT_FOUND, "the training data are at their end after %llu steps",
                    (unsigned long long)run->step);
        if (batch.batch.n == 0) break;
        if (i == 0) out->epoch = batch.epoch;
        uint64_t draw = run->step * (uint64_t)run->parts.accumulate + (uint64_t)i;
        out->tokens += batch.batch.n;
        KH_TRY(kh_pass_gradient(run->parts.pass, &batch, 1, draw, &out->loss));
        *rows += kh_pass_wanted(run->parts.pass);
    }
    return KH_OK;
}

static void discard(kh_train_run *run)
{
    kh_params_clear(run->parts.params);
    run->pending = 0;
}

kh_status kh_train_update(kh_train_run *run, double rate, double scale, kh_step_report *report)
{
    kh_step step = {.step = run->step + 1, .rate = rate, .scale = scale};
    kh_status status = kh_optimizer_step(run->parts.optimizer, run->parts.params->weights,
                                         run->parts.params->gradients, &step, report);
    discard(run);
    if (status == KH_OK) run->step++;
    return status;
}

static kh_status step(kh_train_run *run, kh_step_result *out)
{
    size_t rows = 0;
    KH_TRY(kh_train_set_attn(run));
    KH_TRY(gradients(run, out, &rows));
    if (rows == 0)
        KH_FAIL(KH_ERR_ARGUMENT, "the batch of step %llu has no row with a target",
                (unsigned long long)run->step + 1);
    kh_step_report report = {0};
    out->rate = kh_schedule_rate(&run->parts.schedule, run->step + 1);
    KH_TRY(kh_train_update(run, out->rate, 1.0 / (double)rows, &report));
    out->norm = report.norm;
    return KH_OK;
}

kh_status kh_train_step(kh_train_run *run, kh_step_result *out)
{
    uint8_t position[KH_DATA_POSITION];
    *out = (kh_step_result){0};
    if (!run->parts.data) KH_FAIL(KH_ERR_STATE, "there are no training data");
    kh_data_save(run->parts.data, position);
    if (run->pending) discard(run);
    kh_status status = step(run, out);
    if (status == KH_OK) return KH_OK;
    discard(run);
    char sentence[512];
    snprintf(sentence, sizeof sentence, "%s", kh_last_error());
    KH_TRY(kh_data_load(run->parts.data, position, sizeof position));
    if (status == KH_ERR_CHECK && !isfinite(out->loss.nats))
        KH_FAIL(status, "the loss is %g: %s", out->loss.nats, sentence);
    KH_FAIL(status, "%s", sentence);
}

kh_status kh_train_evaluate(kh_train_run *run, size_t batches, kh_loss *loss)
{
    if (!run->parts.valid) KH_FAIL(KH_ERR_STATE, "nothing is held out to be evaluated");
    KH_TRY(set_attn(run, run->step > 0 ? run->step : 1));
    KH_TRY(kh_data_load(run->parts.valid, run->start, sizeof run->start));
    for (size_t i = 0; batches == 0 || i < batches; i++) {
        kh_data_batch batch;
        KH_TRY(kh_data_next(run->parts.valid, &batch));
        if (batch.batch.n == 0) break;
        KH_TRY(kh_pass_loss(run->parts.pass, &batch, loss));
    }
    return KH_OK;
}
