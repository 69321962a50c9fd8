/* Generated tasks: the line of text that opens one, and its examples.
 *
 * A kind of task is a table row (kh_task_family): parameters with their ranges, a function that makes
 * an example from a stream of random numbers, names for what is worth counting, and the shallow
 * predictors that every score is printed beside. All of a task's state is the values of its line, so
 *
 *     example = make(values, stream(name, seed, split, index))
 *
 * and nothing else: shuffling is a permutation of indices, resuming is an index, and two workers
 * cannot disagree. The stream's key is a Philox block of the seed over (split, index) in a stream
 * named by the kind, so examples of different splits, tasks and seeds come from unrelated keys.
 *
 * Generators that reject drafts (ListOps keeps one in ten) go on in the same stream until one fits: what
 * an example is never depends on another one. De-duplication cannot be done so, since it asks what
 * came before; instead a draft is dealt to the one split that a hash of its content names, so that no
 * example of one split ever occurs in another, and equal examples inside a split are so rare that they are
 * counted instead of removed (kh_task_measure).
 *
 * The examples must be the same on every machine, and libm's functions are not: generators use integers,
 * the four operations and sqrt, which IEEE 754 defines to the bit, and tasks/task_math.h for the rest.
 *
 * A number is read by strtod and has to be consumed whole; a mistake is reported with the setting it
 * stands in and what would be allowed there. */
#include "tasks/task_impl.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/named.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_SETTING = 4096 };

static const kh_task_family *const families[] = {&kh_task_listops,    &kh_task_mqar,
                                                 &kh_task_pathfinder, &kh_task_bytes,
                                                 &kh_task_copy,       &kh_task_induction};
enum { FAMILIES = sizeof families / sizeof *families };

size_t kh_task_kind_count(void)
{
    return FAMILIES;
}

const kh_task_kind *kh_task_kind_at(size_t index)
{
    return index < FAMILIES ? &families[index]->kind : NULL;
}

/* ---- drawing ---- */

static uint64_t hash_name(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325ull; /* FNV-1a */
    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 0x100000001b3ull;
    return hash;
}

kh_task_draws kh_task_stream(const char *name, uint64_t seed, kh_task_split split, uint64_t index)
{
    kh_rng_key all = {.seed = seed, .stream = hash_name(name) + (uint64_t)split};
    kh_rng_key one = {.seed = kh_rng_bits(all, 2 * index),
                      .stream = kh_rng_bits(all, 2 * index + 1)};
    return (kh_task_draws){.key = one};
}

uint64_t kh_task_below(kh_task_draws *draws, uint64_t n)
{
    uint64_t least = -n % n; /* 2^64 mod n: below it a product's low half is met once too often */
    for (;;) {
        unsigned __int128 product = (unsigned __int128)kh_rng_bits(draws->key, draws->next++) * n;
        if ((uint64_t)product >= least) return (uint64_t)(product >> 64);
    }
}

double kh_task_unit(kh_task_draws *draws)
{
    return kh_rng_uniform(draws->key, draws->next++);
}

/* ---- the line ---- */

static kh_status list_names(kh_buf *out, const kh_task_param *params)
{
    for (const kh_task_param *p = params; p->name; p++)
        KH_TRY(kh_buf_format(out, "%s%s", p > params ? ", " : "", p->name));
    return KH_OK;
}

static kh_status unknown_param(const kh_task *task, const char *setting, const char *name)
{
    kh_buf names = {0};
    kh_status status = list_names(&names, task->family->params);
    if (status == KH_OK)
        status = kh_fail(KH_ERR_ARGUMENT, "task '%s': %s has no parameter '%s' (it has: %s)",
                         setting, task->family->kind.name, name, names.data ? names.data : "none");
    kh_buf_free(&names);
    return status;
}

static kh_status set_number(double *out, const kh_task_param *p, const char *value,
                            const char *setting)
{
    char *end;
    errno = 0;
    double number = strtod(value, &end);
    int starts = isdigit((unsigned char)*value) || *value == '-' || *value == '.';
    int good = starts && !*end && !errno && number >= p->least && number <= p->most;
    if (good && (p->kind == KH_TASK_REAL || floor(number) == number)) {
        *out = number;
        return KH_OK;
    }
    KH_FAIL(KH_ERR_ARGUMENT,
            "task '%s': %s=%s is not allowed, %s must be a %snumber from %.15g to %.15g", setting,
            p->name, value, p->name, p->kind == KH_TASK_WHOLE ? "whole " : "", p->least, p->most);
}

static kh_status set_param(kh_task *task, size_t at, const char *value, const char *setting)
{
    const kh_task_param *p = &task->family->params[at];
    if (p->kind != KH_TASK_TEXT) return set_number(&task->value[at], p, value, setting);
    if (!*value) KH_FAIL(KH_ERR_ARGUMENT, "task '%s': %s= has no value", setting, p->name);
    task->text[at] = value;
    return KH_OK;
}

static kh_status parse_params(kh_task *task, char *text, const char *setting)
{
    const kh_task_param *params = task->family->params;
    unsigned seen = 0;
    while (text) {
        char *name, *value;
        KH_TRY(kh_named_cut(&text, &name, &value, setting, "task"));
        size_t at = 0;
        while (params[at].name && strcmp(params[at].name, name) != 0) at++;
        if (!params[at].name) return unknown_param(task, setting, name);
        if (seen & 1u << at)
            KH_FAIL(KH_ERR_ARGUMENT, "task '%s': %s is given twice", setting, name);
        seen |= 1u << at;
        KH_TRY(set_param(task, at, value, setting));
    }
    for (size_t at = 0; params[at].name; at++) {
        if (seen & 1u << at) continue;
        if (!params[at].initial)
            KH_FAIL(KH_ERR_ARGUMENT, "task '%s': %s needs %s=", setting, task->family->kind.name,
                    params[at].name);
        KH_TRY(set_param(task, at, params[at].initial, setting));
    }
    return KH_OK;
}

static kh_status find_family(kh_task *task, const char *name, const char *setting)
{
    for (size_t i = 0; i < FAMILIES; i++)
        if (strcmp(name, families[i]->kind.name) == 0) task->family = families[i];
    if (task->family) return KH_OK;
    char names[256];
    size_t used = 0;
    for (size_t i = 0; i < FAMILIES && used < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "",
                                 families[i]->kind.name);
    KH_FAIL(KH_ERR_ARGUMENT, "task '%s': no task is called '%s' (%s)", setting, name, names);
}

static kh_status write_setting(kh_task *task)
{
    const kh_task_param *params = task->family->params;
    KH_TRY(kh_buf_text(&task->setting, task->family->kind.name));
    for (size_t at = 0; params[at].name; at++) {
        KH_TRY(kh_buf_format(&task->setting, "%c%s=", at ? ',' : ':', params[at].name));
        KH_TRY(params[at].kind == KH_TASK_TEXT
                   ? kh_buf_text(&task->setting, task->text[at])
                   : kh_buf_format(&task->setting, "%.15g", task->value[at]));
    }
    return KH_OK;
}

static kh_status open_task(kh_task *task, const char *setting)
{
    if (!setting || !*setting) KH_FAIL(KH_ERR_ARGUMENT, "no task was named");
    if (strlen(setting) > MOST_SETTING)
        KH_FAIL(KH_ERR_ARGUMENT, "a task of %zu bytes, at most %d", strlen(setting), MOST_SETTING);
    if (!(task->work = kh_strdup(setting))) KH_FAIL(KH_ERR_MEMORY, "no memory for a task");
    char *params = strchr(task->work, ':');
    if (params) *params++ = 0;
    KH_TRY(find_family(task, task->work, setting));
    KH_TRY(parse_params(task, params, setting));
    KH_TRY(write_setting(task));
    task->info.name = task->family->kind.name;
    task->info.setting = task->setting.data;
    task->info.pad = -1;
    return task->family->open(task);
}

kh_status kh_task_open(kh_task **out, const char *setting)
{
    *out = NULL;
    kh_task *task = NULL;
    KH_TRY(kh_new(&task, 1, sizeof *task, "a task"));
    kh_status status = open_task(task, setting);
    if (status == KH_OK)
        *out = task;
    else
        kh_task_close(task);
    return status;
}

void kh_task_close(kh_task *task)
{
    if (!task) return;
    if (task->family && task->family->close)
        task->family->close(task);
    else
        kh_free(task->own);
    kh_buf_free(&task->setting);
    kh_free(task->work);
    kh_free(task);
}

const kh_task_info *kh_task_get_info(const kh_task *task)
{
    return &task->info;
}

/* ---- examples ---- */

kh_status kh_task_example_open(kh_task_example *out, const kh_task *task)
{
    *out = (kh_task_example){.label = -1};
    kh_status status = kh_new(&out->tokens, task->info.longest, sizeof *out->tokens, "an example");
    if (status == KH_OK)
        status = kh_new(&out->targets, task->info.longest, sizeof *out->targets, "an example");
    if (status == KH_OK && task->scratch_size)
        status = kh_new(&out->scratch, task->scratch_size, 1, "an example");
    if (status != KH_OK) kh_task_example_close(out);
    return status;
}

void kh_task_example_close(kh_task_example *example)
{
    kh_free(example->tokens);
    kh_free(example->targets);
    kh_free(example->scratch);
    *example = (kh_task_example){.label = -1};
}

kh_status kh_task_generate(const kh_task *task, uint64_t seed, kh_task_split split, uint64_t index,
                           kh_task_example *out)
{
    if ((int)split < KH_TASK_TRAIN || (int)split > KH_TASK_TEST)
        KH_FAIL(KH_ERR_ARGUMENT, "there is no split %d: 0, 1 and 2 are train, valid and test",
                (int)split);
    kh_task_draws draws = kh_task_stream(task->family->kind.name, seed, split, index);
    for (size_t t = 0; t < task->info.longest; t++) out->targets[t] = -1;
    out->label = -1;
    out->second = 0;
    out->drafts = out->fits = 1;
    return task->family->make(task, split, &draws, out);
}

size_t kh_task_spell(const kh_task *task, int32_t id, char *out, size_t room)
{
    int n = task->family->spell ? task->family->spell(task, id, out, room)
                                : snprintf(out, room, "%d", id);
    return n > 0 ? (size_t)n : 0;
}

static kh_status spell_all(const kh_task *task, const kh_task_example *example, kh_buf *out)
{
    for (size_t t = 0; t < example->n; t++) {
        char word[32];
        kh_task_spell(task, example->tokens[t], word, sizeof word);
        KH_TRY(kh_buf_format(out, "%s%s", t ? " " : "", word));
    }
    return KH_OK;
}

kh_status kh_task_text(const kh_task *task, const kh_task_example *example, char **out,
                       size_t *size)
{
    kh_buf text = {0};
    kh_status status = (task->family->text ? task->family->text : spell_all)(task, example, &text);
    *out = status == KH_OK ? text.data : NULL;
    *size = status == KH_OK ? text.size : 0;
    if (status != KH_OK) kh_buf_free(&text);
    return status;
}
