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
} kh_task_source;

/* `count` examples of a split (UINT64_MAX: without end). The task must outlive it. Close it in any case. */
kh_status kh_task_source_open(kh_task_source *out, const kh_task *task, uint64_t seed,
                              kh_task_split split, uint64_t count);
void kh_task_source_close(kh_task_source *source);

#endif
