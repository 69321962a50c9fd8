/* train/schedule.h: numbers that move with the steps of a run: the learning rate, and k. */
#ifndef KH_TRAIN_SCHEDULE_H
#define KH_TRAIN_SCHEDULE_H

#include "base/buf.h"

#include <keyhole/status.h>
#include <stdint.h>

enum kh_schedule_kind {
    KH_SCHEDULE_CONSTANT,
    KH_SCHEDULE_LINEAR,
    KH_SCHEDULE_COSINE,
    KH_SCHEDULE_RSQRT
};

typedef struct kh_schedule {
    enum kh_schedule_kind kind;
    double base;
    double warmup; /* steps */
    double steps;  /* of the whole run */
    double floor;  /* share of base that is left at the end */
} kh_schedule;

/* Reads one of
 *     constant[:warmup=0]                       base
 *     linear[:warmup=0,floor=0,steps=...]       falls along a line to floor * base
 *     cosine[:warmup=0,floor=0,steps=...]       falls along half a cosine to floor * base
 *     rsqrt[:warmup=0]                          base / sqrt(step): Long Range Arena's
 * A schedule that falls does so over `steps` (the argument: those of the run), which 0 leaves unknown and refuses. */
kh_status kh_schedule_parse(kh_schedule *out, const char *text, double base, uint64_t steps);

/* The learning rate of a step, from 1. For w = max(warmup, 1), a run of n steps:
 *     up to w     base * step / w; the peak is at step w      (rsqrt: that, times 1 / sqrt(w))
 *     after w     with p = (step - w) / (n + 1 - w), so that step n still moves something where the floor is 0:
 *                 linear  base * (1 - (1 - floor) p)     cosine  base * (floor + (1 - floor) (1 + cos(pi p)) / 2)
 *                 rsqrt   base / sqrt(step)
 *     after n     the floor */
double kh_schedule_rate(const kh_schedule *schedule, uint64_t step);

/* A whole number that moves from one value to another:
 *     16..128/1000      from 16 at step 1 to 128 at step 1000 and after it, in even steps
 *     16x2..128/1000    16, 32, 64, 128: doubled (or halved, downwards) at even distances, 128 from step 1000 on
 * "16..128 over 1000 steps" is the same as 16..128/1000. */
typedef struct kh_moving {
    int64_t from, to;
    uint64_t steps;
    enum kh_moving_kind { KH_MOVING_EVEN, KH_MOVING_DOUBLE } kind;
} kh_moving;

/* Reads one from the start of `text`; *end is behind it. *end == text with KH_OK: there is none. */
kh_status kh_moving_parse(kh_moving *out, const char *text, const char **end);
int64_t kh_moving_at(const kh_moving *moving, uint64_t step);

/* Appends `text` (an attention or feed-forward plan) with each moving number in it as it is at a step:
 * "topk:k=16..128/1000" at step 500 is "topk:k=71". A text without one is appended as it is. */
kh_status kh_moving_expand(kh_buf *out, const char *text, uint64_t step);

#endif
