/* api/train_impl.h: a trainer as its two files see it. */
#ifndef KH_API_TRAIN_IMPL_H
#define KH_API_TRAIN_IMPL_H

#include "train/checkpoint.h"
#include "train/distill.h"
#include "train/groups.h"
#include "train/task_source.h"
#include "train/trainer.h"

#include <keyhole/train.h>

struct kh_trainer {
    kh_train_options options;
    kh_model *vocabulary; /* whose tokenizer a model from nothing has; NULL: none */
    kh_params *params;
    kh_model *teacher;           /* NULL: the model itself, or none */
    kh_tensor_setting *settings; /* [params->tensor_count] */
    kh_tensor_view *views;       /* [params->tensor_count] of the masters */
    kh_pool pool;
    kh_pass *pass;
    kh_optimizer *optimizer;
    kh_optimizer_options optimizer_options;
    kh_task *task;
    kh_task_source tasks[2]; /* training, held out */
    kh_source *files[2];     /* the same */
    kh_data *data[2];        /* the same; NULL: none */
    size_t length, rows, spans;
    kh_train_run run;
    kh_checkpoints *checkpoints; /* NULL: no folder */
    uint64_t config;             /* digest of what the bits of a run depend on */
    kh_buf checkpoint;           /* path of the newest; empty: none */
    char *texts[3];              /* copies of options: attn, ff, folder */
    kh_buf passed_over;          /* checkpoints that are not whole */
    size_t trained;              /* parameters that are not frozen */
    /* of batches by hand */
    int32_t *positions;  /* [rows] */
    uint32_t *wanted;    /* [rows] */
    kh_span *sequences;  /* [spans] */
    kh_data_item *items; /* [spans] */
};

/* Goes on from the newest checkpoint of the folder, where there is one. */
kh_status kh_trainer_resume(kh_trainer *trainer);

#endif
