/* Tasks as documents: example i of a split is document i; one example is in memory at a time. */
#include "train/task_source.h"

#include "base/fail.h"

static kh_status get(void *context, uint64_t index, kh_train_example *out)
{
    kh_task_source *s = context;
    KH_TRY(kh_task_generate(s->task, s->seed, s->split, index, &s->example));
    *out = (kh_train_example){.tokens = s->example.tokens,
                              .targets = s->example.targets,
                              .n = s->example.n,
                              .label = s->example.label,
                              .second = s->example.second};
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

void kh_task_source_close(kh_task_source *s)
{
    kh_source_close(s->source);
    kh_task_example_close(&s->example);
    *s = (kh_task_source){0};
}
