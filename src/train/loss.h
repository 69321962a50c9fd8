/* train/loss.h: what a pass is judged by. */
#ifndef KH_TRAIN_LOSS_H
#define KH_TRAIN_LOSS_H

#include "run/run.h"

/* Sums over rows. */
typedef struct kh_loss {
    double nats;        /* negative log likelihood of the targets */
    double distill;     /* weighted losses against a teacher */
    size_t rows, right; /* rows with a target; those whose likeliest id it is */
} kh_loss;

/* Adds the cross-entropy of rows of logits to `loss`, and writes `weight` times its gradient where that is not
 * NULL. The same bits for any number of threads and any cut of the rows. Cannot fail. */
void kh_op_cross_entropy(kh_run *run, kh_loss *loss, float *gradient /* [rows][V] or NULL */,
                         float weight, const float *logits /* [rows][V] */,
                         const int32_t *targets /* [rows] */, double *each /* [rows][2] scratch */,
                         size_t rows, size_t V);

#endif
