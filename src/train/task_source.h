/* train/task_source.h: a generated task as a source of training documents. */
#ifndef KH_TRAIN_TASK_SOURCE_H
#define KH_TRAIN_TASK_SOURCE_H

#include "train/data.h"

#include <keyhole/task.h>

typedef struct kh_task_source {
    const kh_task *task;
    uint64_t seed;
    kh_task_split split;
    kh_task_example example;
    kh_source *source;
    int32_t prefix;            /* where tokens is not NULL */
    int32_t *tokens, *targets; /* an example behind its prefixes */
} kh_task_source;

/* `count` examples of a split (UINT64_MAX: without end). The task must outlive it. Close it in any case. */
kh_status kh_task_source_open(kh_task_source *out, const kh_task *task, uint64_t seed,
                              kh_task_split split, uint64_t count);
/* Every text of an example begins with the token `prefix` from here on, which has no target. */
kh_status kh_task_source_prefix(kh_task_source *source, int32_t prefix);
void kh_task_source_close(kh_task_source *source);

#endif
