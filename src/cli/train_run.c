/* A run on the command line: steps, evaluations, checkpoints, and what is told and written of them.
 *
 *     OUTPUT/config.json     the resolved configuration
 *     OUTPUT/metrics.jsonl   a line for every logged step and every evaluation; cut back to the step that a
 *                            resumed run goes on from. What is written of a step is that step's own, so it is
 *                            the same in a resumed run; only times, and mean_loss, know of the lines before
 *     OUTPUT/step-...        checkpoints
 *     OUTPUT/model.gguf      at the end, unless --save names another place
 *     OUTPUT/report.html     the curves, when the run ends or is stopped
 *
 * Ctrl-C finishes the step, writes a checkpoint and leaves with 130, without an evaluation, which the resumed run makes
 * up for where one was due; a second one leaves at once, and the last checkpoint is what it was. The line on a terminal is rewritten in place; elsewhere every
 * logged step has one. */
#include "cli/pages.h"
#include "cli/training.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct run {
    kh_trainer *trainer;
    const cli_args *args;
    FILE *metrics;
    double started;
    uint64_t first, rows; /* of this process */
    double loss;          /* of the rows since the last line */
    uint64_t counted;
    int evaluated; /* 1: the step that this process begins behind was */
    json_t *last_eval;
} run;

/* ---- metrics */

static void path_in(char *out, size_t size, const cli_args *args, const char *name)
{
    snprintf(out, size, "%s/%s", args->output, name);
}

/* The step of a line, which is kept where it is of an evaluation. */
static uint64_t step_of(run *r, const char *line)
{
    json_error_t error;
    json_t *one = json_loads(line, 0, &error);
    uint64_t step = one ? (uint64_t)json_integer_value(json_object_get(one, "step")) : UINT64_MAX;
    if (step <= r->first && json_object_get(one, "eval_loss")) {
        json_decref(r->last_eval);
        r->last_eval = json_incref(one);
        r->evaluated = step == r->first;
    }
    json_decref(one);
    return step;
}

/* Lines of steps that will be done again go: a killed run had more of them than its checkpoint. */
static kh_status open_metrics(run *r)
{
    uint64_t from = r->first;
    char path[4096], *text = NULL;
    size_t size = 0, keep = 0;
    path_in(path, sizeof path, r->args, "metrics.jsonl");
    if (from > 0 && access(path, F_OK) == 0) {
        KH_TRY(kh_file_read(&text, &size, path, (size_t)1 << 30));
        for (size_t at = 0; at < size;) {
            char *end = memchr(text + at, '\n', size - at);
            if (!end) break;
            *end = 0;
            if (step_of(r, text + at) > from) break;
            *end = '\n';
            at = keep = (size_t)(end - text) + 1;
        }
        kh_free(text);
        if (truncate(path, (off_t)keep) != 0) KH_FAIL(KH_ERR_IO, "%s: %s", path, strerror(errno));
    }
    r->metrics = fopen(path, from > 0 ? "a" : "w");
    if (!r->metrics) KH_FAIL(KH_ERR_IO, "%s: %s", path, strerror(errno));
    return KH_OK;
}

static kh_status put_metrics(run *r, json_t *line)
{
    int failed = !line ||
                 json_dumpf(line, r->metrics,
                            JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9)) ||
                 fputc('\n', r->metrics) == EOF || fflush(r->metrics) != 0;
    json_decref(line);
    if (failed) KH_FAIL(KH_ERR_IO, "%s/metrics.jsonl: %s", r->args->output, strerror(errno));
    return KH_OK;
}

static kh_status write_config(const cli_args *args, const kh_opt_command *command)
{
    char path[4096];
    kh_buf lines = {0};
    path_in(path, sizeof path, args, "config.json");
    json_t *config = cli_config_json(command, args);
    char *text = config ? json_dumps(config, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL;
    json_decref(config);
    if (!text) KH_FAIL(KH_ERR_MEMORY, "no memory for the configuration");
    kh_status status = kh_buf_format(&lines, "%s\n", text);
    if (status == KH_OK) status = kh_file_write(path, lines.data, lines.size);
    if (status == KH_OK && args->verbose && !cli_quiet) cli_say("%s", text);
    kh_buf_free(&lines);
    kh_free(text);
    return status;
}

/* ---- what is told */

static void left(char *out, size_t size, double seconds)
{
    long s = seconds < 1e8 ? (long)(seconds + 0.5) : 0;
    if (s < 3600)
        snprintf(out, size, "%ld:%02ld", s / 60, s % 60);
    else
        snprintf(out, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
}

static void tell(const run *r, const kh_train_report *step, double mean, int logged)
{
    char rest[32], memory[32], line[256];
    kh_train_info info;
    int terminal = isatty(STDERR_FILENO);
    if (cli_quiet || (!terminal && !logged)) return;
    kh_trainer_get_info(r->trainer, &info);
    double elapsed = cli_seconds() - r->started, done = (double)(step->step - r->first);
    left(rest, sizeof rest, elapsed / done * (double)(info.steps - step->step));
    char norm[32] = "";
    if (!terminal) snprintf(norm, sizeof norm, "  norm %.2f", step->norm); /* 80 columns */
    snprintf(line, sizeof line, "step %llu/%llu  loss %.4f  lr %.2e%s  %.0f tokens/s  %s  %s left",
             (unsigned long long)step->step, (unsigned long long)info.steps, mean, step->rate, norm,
             (double)r->rows / elapsed, cli_bytes(memory, sizeof memory, step->peak_bytes), rest);
    if (terminal)
        cli_line(line);
    else
        cli_say("%s", line);
}

static kh_status log_step(run *r, const kh_train_report *step)
{
    double mean = r->loss / (double)r->counted;
    double elapsed = cli_seconds() - r->started;
    r->loss = 0;
    r->counted = 0;
    tell(r, step, mean, 1);
    return put_metrics(
        r, json_pack("{s:I, s:I, s:o, s:o*, s:o, s:o, s:o, s:I, s:o, s:o, s:o, s:I}", "step",
                     (json_int_t)step->step, "epoch", (json_int_t)step->epoch, "loss",
                     wire_real(step->loss), "distill",
                     r->args->distill ? wire_real(step->distill) : NULL, "accuracy",
                     wire_real(step->accuracy), "lr", wire_real(step->rate), "norm",
                     wire_real(step->norm), "rows", (json_int_t)step->rows, "mean_loss",
                     wire_real(mean), "tokens_per_second", wire_real((double)r->rows / elapsed),
                     "seconds", wire_real(elapsed), "peak_bytes", (json_int_t)step->peak_bytes));
}

/* Ctrl-C ends it without a result: what comes next is the checkpoint. */
static kh_status evaluate(run *r, uint64_t step)
{
    kh_train_report e;
    cli_signals_trainer(r->trainer);
    kh_status status = kh_trainer_evaluate(r->trainer, (size_t)r->args->eval_batches, &e);
    cli_signals_trainer(NULL);
    cli_progress_end();
    if (status == KH_ERR_STOPPED && cli_interrupted()) return KH_OK;
    KH_TRY(status);
    if (!cli_quiet)
        cli_say("step %llu: held out: loss %.4f, accuracy %.2f %%, %llu rows",
                (unsigned long long)step, e.loss, 100 * e.accuracy, (unsigned long long)e.rows);
    json_decref(r->last_eval);
    r->last_eval = json_pack("{s:I, s:o, s:o, s:I}", "step", (json_int_t)step, "eval_loss",
                             wire_real(e.loss), "eval_accuracy", wire_real(e.accuracy), "eval_rows",
                             (json_int_t)e.rows);
    return put_metrics(r, json_incref(r->last_eval));
}

/* ---- the loop */

static int is_due(uint64_t step, int64_t every)
{
    return every > 0 && step % (uint64_t)every == 0;
}

/* Whether the last evaluation reached the accuracy that was asked for. One batch that does says less: it may be a lucky
 * one. */
static int has_arrived(const run *r)
{
    double reached = json_number_value(json_object_get(r->last_eval, "eval_accuracy"));
    return r->args->target > 0 && reached >= r->args->target;
}

/* What is held out by an option is looked at first and last, how often between is another one's matter. */
static int evaluates(const cli_args *args)
{
    return args->eval_every > 0 || args->valid.count > 0 || args->valid_share > 0;
}

static kh_status take_step(run *r, kh_train_report *step, int *last)
{
    const cli_args *args = r->args;
    kh_train_info info;
    KH_TRY(kh_trainer_step(r->trainer, step));
    kh_trainer_get_info(r->trainer, &info);
    r->rows += step->tokens;
    r->loss += step->loss;
    r->counted++;
    int ends = step->step >= info.steps, stopped = cli_interrupted();
    int looks = (ends && evaluates(args)) || (!stopped && is_due(step->step, args->eval_every));
    int logged = is_due(step->step, args->log_every) || (looks && args->target > 0);
    *last = ends || stopped;
    if (logged || *last)
        KH_TRY(log_step(r, step));
    else
        tell(r, step, step->loss, 0);
    if (looks) KH_TRY(evaluate(r, step->step));
    *last |= has_arrived(r) || cli_interrupted();
    if (!*last && !is_due(step->step, args->save_every)) return KH_OK;
    cli_progress_end();
    return kh_trainer_checkpoint(r->trainer);
}

/* Behind the sentence of what ended the run stands where it goes on from. */
static kh_status explain(const run *r, kh_status status)
{
    kh_train_info info;
    char cause[1024];
    snprintf(cause, sizeof cause, "%s", kh_last_error());
    kh_trainer_get_info(r->trainer, &info);
    if (!*info.checkpoint) KH_FAIL(status, "%s; no checkpoint was written before", cause);
    KH_FAIL(status, "%s; the last good checkpoint is %s", cause, info.checkpoint);
}

/* Before anything; or what the process before this one was stopped in. */
static int owes_evaluation(const run *r, uint64_t steps)
{
    if (r->evaluated) return 0;
    return r->first == 0 || r->first >= steps ? evaluates(r->args)
                                              : is_due(r->first, r->args->eval_every);
}

static kh_status loop(run *r)
{
    kh_train_info info;
    kh_trainer_get_info(r->trainer, &info);
    if (owes_evaluation(r, info.steps)) KH_TRY(evaluate(r, r->first));
    kh_train_report step = {.step = info.step};
    r->started = cli_seconds();
    int last = step.step >= info.steps || has_arrived(r) || cli_interrupted();
    while (!last) {
        kh_status status = take_step(r, &step, &last);
        if (status) return explain(r, status);
    }
    cli_progress_end();
    return KH_OK;
}

/* Where the model goes: what cannot be written is said before the first step. */
static const char *destination(char path[4096], const cli_args *args)
{
    int adapter = args->lora_rank > 0 || args->loras.count > 0;
    path_in(path, 4096, args, adapter ? "adapter.gguf" : "model.gguf");
    return args->save ? args->save : path;
}

static kh_status check_destination(const cli_args *args)
{
    char file[4096], path[4096];
    const char *type = args->out_type;
    size_t i = 0, count = kh_convert_type_count();
    while (type && i < count && strcasecmp(type, kh_convert_type_at(i)) != 0) i++;
    if (type && i == count)
        KH_FAIL(KH_ERR_ARGUMENT, "--type: '%s' is no type to write (keyhole convert --help)", type);
    snprintf(path, sizeof path, "%s", destination(file, args));
    size_t size = strlen(path);
    while (size > 1 && path[size - 1] == '/') path[--size] = 0;
    char *end = strrchr(path, '/');
    if (!end) return KH_OK;
    end[end == path] = 0;
    if (access(path, W_OK) == 0) return KH_OK;
    KH_FAIL(KH_ERR_IO, "the model at the end: %s: %s", path, strerror(errno));
}

static kh_status finish(run *r)
{
    kh_train_info info;
    char path[4096];
    if (cli_interrupted()) {
        kh_trainer_get_info(r->trainer, &info);
        cli_note("stopped at step %llu; --resume goes on from it", (unsigned long long)info.step);
        return kh_fail(KH_ERR_STOPPED, "stopped");
    }
    const char *to = destination(path, r->args);
    KH_TRY(kh_trainer_save(r->trainer, to, r->args->out_type));
    kh_trainer_get_info(r->trainer, &info);
    if (r->args->json)
        return cli_json_print(
            json_pack("{s:I, s:o, s:o, s:I, s:O*}", "steps", (json_int_t)info.step, "model",
                      wire_text(to, strlen(to)), "attn", wire_text(info.attn, strlen(info.attn)),
                      "parameters", (json_int_t)info.parameters, "evaluation", r->last_eval));
    if (!cli_quiet) cli_say("%s", to);
    return KH_OK;
}

kh_status cli_train_run(kh_trainer *trainer, const cli_args *args, const kh_opt_command *command)
{
    run r = {.trainer = trainer, .args = args};
    kh_train_info info;
    kh_trainer_get_info(trainer, &info);
    r.first = info.step;
    if (!cli_quiet)
        cli_say("%s, %llu parameters (%llu trained), attention %s, %d threads%s%s",
                info.architecture, (unsigned long long)info.parameters,
                (unsigned long long)info.trained, info.attn, info.threads,
                *info.checkpoint ? "; goes on from " : "", info.checkpoint);
    for (const char *at = info.passed_over; *at; at += strcspn(at, "\n") + 1)
        cli_note("%.*s", (int)strcspn(at, "\n"), at);
    KH_TRY(cli_page_check(args->report));
    KH_TRY(check_destination(args));
    if (args->target > 0 && args->eval_every == 0)
        KH_FAIL(KH_ERR_ARGUMENT,
                "--stop-at asks what --eval-every measures: say after how many steps");
    KH_TRY(write_config(args, command));
    KH_TRY(open_metrics(&r));
    cli_signals_await(1);
    kh_status status = loop(&r);
    if (status == KH_OK) status = finish(&r);
    cli_progress_end();
    cli_signals_await(0);
    fclose(r.metrics);
    json_decref(r.last_eval);
    return cli_train_report(args, status);
}
