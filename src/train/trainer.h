/* train/trainer.h: a run: batches through the pass, and the optimiser. */
#ifndef KH_TRAIN_TRAINER_H
#define KH_TRAIN_TRAINER_H

#include "base/buf.h"
#include "train/optimizer.h"
#include "train/pass.h"
#include "train/schedule.h"

/* What a run stands on; all of it stays the caller's. */
typedef struct kh_run_parts {
    kh_params *params;
    kh_pass *pass;
    kh_optimizer *optimizer;
    kh_data *data;    /* NULL: kh_train_step is refused */
    kh_data *valid;   /* NULL: nothing is held out */
    const char *attn; /* NULL, or a setting with numbers that move */
    kh_schedule schedule;
    int accumulate; /* batches a step; at least 1 */
} kh_run_parts;

typedef struct kh_train_run {
    kh_run_parts parts;
    uint64_t step; /* steps done */
    int pending; /* 1: there may be gradients that no update has used; set by who adds them by hand */
    kh_buf attn_now;                 /* the setting of the step in flight */
    uint8_t start[KH_DATA_POSITION]; /* where the held out data begin */
} kh_train_run;

typedef struct kh_step_result {
    kh_loss loss;
    uint64_t epoch, tokens; /* tokens: rows of its batches, with a target or without */
    double rate, norm;
} kh_step_result;

void kh_train_open(kh_train_run *run, const kh_run_parts *parts);
void kh_train_close(kh_train_run *run);

/* The attention of the next step, where k moves; steps and evaluations set it themselves. */
kh_status kh_train_set_attn(kh_train_run *run);
/* One step. On failure weights, moments, data position and step count are what they were. */
kh_status kh_train_step(kh_train_run *run, kh_step_result *out);
/* Adds to *loss what at most `batches` held out batches have (0: all). */
kh_status kh_train_evaluate(kh_train_run *run, size_t batches, kh_loss *loss);
/* Moves the weights by the gradients that were added up, times `scale`; they become 0. */
kh_status kh_train_update(kh_train_run *run, double rate, double scale, kh_step_report *report);

#endif
