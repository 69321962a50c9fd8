/* train/distill.h: losses against a teacher: the same weights with full attention, or another model. */
#ifndef KH_TRAIN_DISTILL_H
#define KH_TRAIN_DISTILL_H

#include "model/network.h"
#include "train/loss.h"

/* Weights of losses; numbers are doubles for their table. */
typedef struct kh_distill_options {
    double ce;          /* of the targets' cross-entropy */
    double kl;          /* of the logits against the teacher's */
    double temperature; /* that both are divided by first */
    double map;         /* of attention over the keys that the student keeps */
    double relation;    /* of queries, keys and values among one another */
    double rows;        /* rows of a batch that the last two look at */
} kh_distill_options;

/* "kl=1,temperature=2,map=0.1,relation=0.1,rows=64"; what is not said: ce=1, kl=1, temperature=1, the others 0, rows=64. */
kh_status kh_distill_parse(kh_distill_options *out, const char *text);

typedef struct kh_distill kh_distill;

typedef struct kh_distill_sizes {
    size_t rows, spans; /* the most of a batch */
    size_t chunk;       /* the most rows of logits at once */
    size_t threads;     /* of the pool */
} kh_distill_sizes;

/* Refuses a teacher that the student cannot be compared with. Both models must outlive it; the teacher may be
 * the student. */
kh_status kh_distill_open(kh_distill **out, const kh_distill_options *options,
                          const kh_model *student, const kh_model *teacher,
                          const kh_distill_sizes *sizes);
void kh_distill_close(kh_distill *distill); /* takes NULL */

/* Raises both to what the teacher's pass takes of run->step and of a worker's scratch. */
void kh_distill_need(const kh_distill *distill, size_t *step, size_t *scratch);

/* A batch: what its losses are weighted with, and where they are added up. */
typedef struct kh_distill_batch {
    float weight;
    kh_loss *loss;
    kh_rng_key key; /* of the rows that are drawn */
} kh_distill_batch;

/* The teacher's pass over run->batch, before the student's. `run` says what a run has but for caches, plan and tape;
 * run->step is given back. */
kh_status kh_distill_teach(kh_distill *distill, const kh_run *run, const kh_distill_batch *batch);

/* Adds the loss of rows [first, first + rows) of the student's logits to batch.loss, and its gradient to
 * `gradient`. */
kh_status kh_distill_logits(kh_distill *distill, kh_run *run,
                            float *gradient /* [rows][V] or NULL */,
                            const float *logits /* [rows][V] */, size_t first, size_t rows);

/* What the student's run has as `watch`; NULL where no loss looks at layers. */
const struct kh_attn_watch *kh_distill_watch(const kh_distill *distill);

#endif
