/* Tasks as documents: example i of a split is document i; one example is in memory at a time. */
#include "train/task_source.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <string.h>

/* Rows [first, end) of the example go behind a prefix to row `to`. */
static void copy_text(kh_task_source *s, size_t first, size_t end, size_t to)
{
    size_t n = end - first;
    s->tokens[to] = s->prefix;
    s->targets[to] = -1;
    memcpy(s->tokens + to + 1, s->example.tokens + first, n * sizeof *s->tokens);
    memcpy(s->targets + to + 1, s->example.targets + first, n * sizeof *s->targets);
}

static void add_prefixes(kh_task_source *s, kh_train_example *out)
{
    size_t n = s->example.n, second = s->example.second;
    copy_text(s, 0, second ? second : n, 0);
    if (second) copy_text(s, second, n, second + 1);
    out->tokens = s->tokens;
    out->targets = s->targets;
    out->second = second ? second + 1 : 0;
    out->n = n + (second ? 2 : 1);
}

static kh_status get(void *context, uint64_t index, kh_train_example *out)
{
    kh_task_source *s = context;
    KH_TRY(kh_task_generate(s->task, s->seed, s->split, index, &s->example));
    *out = (kh_train_example){.tokens = s->example.tokens,
                              .targets = s->example.targets,
                              .n = s->example.n,
                              .label = s->example.label,
                              .second = s->example.second};
    if (s->tokens) add_prefixes(s, out);
    return KH_OK;
}

kh_status kh_task_source_open(kh_task_source *out, const kh_task *task, uint64_t seed,
                              kh_task_split split, uint64_t count)
{
    *out = (kh_task_source){.task = task, .seed = seed, .split = split};
    KH_TRY(kh_task_example_open(&out->example, task));
    kh_source_calls calls = {kh_task_get_info(task)->name, out, count, get};
    return kh_source_open_calls(&out->source, &calls);
}

kh_status kh_task_source_prefix(kh_task_source *s, int32_t prefix)
{
    size_t most = kh_task_get_info(s->task)->longest + 2;
    s->prefix = prefix;
    KH_TRY(kh_new(&s->targets, most, sizeof *s->targets, "an example"));
    return kh_new(&s->tokens, most, sizeof *s->tokens, "an example");
}

void kh_task_source_close(kh_task_source *s)
{
    kh_free(s->tokens);
    kh_free(s->targets);
    kh_source_close(s->source);
    kh_task_example_close(&s->example);
    *s = (kh_task_source){0};
}
