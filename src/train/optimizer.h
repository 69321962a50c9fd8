/* train/optimizer.h: AdamW and SGD over a flat array of parameters. */
#ifndef KH_TRAIN_OPTIMIZER_H
#define KH_TRAIN_OPTIMIZER_H

#include "base/rng.h"
#include "cpu/pool.h"
#include "kern/kern.h"
#include "train/tensors.h"

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

enum kh_optimizer_kind { KH_OPTIMIZER_ADAMW, KH_OPTIMIZER_SGD };

typedef struct kh_optimizer_options {
    enum kh_optimizer_kind kind;
    double beta1, beta2, eps; /* AdamW */
    double momentum;          /* SGD; 0: none, and nothing is kept */
    double decay;             /* for kh_groups_apply; a step reads the settings of its tensors */
    double clip;              /* largest norm of the whole gradient; 0: as it comes */
    /* F32, or BF16: half the memory of moments, rounded stochastically (a decay of 0.999 is less than half a step of
     * bf16: rounded to the nearest, a second moment would never fall). */
    kh_type moments;
    /* F32, or BF16: after each step masters hold values of bf16, rounded stochastically, in arrays that remain
     * f32. A model that is stored as BF16 afterwards is the model that was trained; no memory is saved. */
    kh_type weights;
    kh_rng_key key; /* of stochastic rounding: with the step, all that it depends on */
} kh_optimizer_options;

/* Sets everything but `key` from a text:
 *     adamw[:beta1=0.9,beta2=0.999,eps=1e-8,decay=0.01,clip=0,moments=f32,weights=f32]
 *     sgd[:momentum=0,decay=0,clip=0,moments=f32,weights=f32]
 * What is shown are the defaults; the other type is bf16. Decay of AdamW is decoupled (w -= rate * decay * w), of SGD
 * part of the gradient, as in PyTorch. */
kh_status kh_optimizer_parse(kh_optimizer_options *out, const char *text);

typedef struct kh_optimizer kh_optimizer;

/* For an array of `parameters` floats of which `tensors` [n] are parts, with `settings` [n]. Names, pool and
 * kernels must outlive it; the arrays are copied. Moments start as zeros. */
kh_status kh_optimizer_open(kh_optimizer **out, const kh_optimizer_options *options,
                            const kh_tensor_spec *tensors, const kh_tensor_setting *settings,
                            size_t n, size_t parameters, const kh_pool *pool, const kh_kern *kern);
void kh_optimizer_close(kh_optimizer *optimizer);

typedef struct kh_step {
    uint64_t step; /* from 1: AdamW's corrections, and the key of rounding */
    double rate;   /* learning rate */
    double scale;  /* what the gradient is multiplied with before all else, 1 / accumulated; 0: 1 */
} kh_step;

typedef struct kh_step_report {
    double norm;     /* of the scaled gradient without frozen tensors, before clipping */
    double factor;   /* what clipping multiplied it with: at most 1 */
    const char *bad; /* NULL, or the first tensor whose gradient is not finite */
} kh_step_report;

/* Moves w by g. Where the gradient is not finite nothing changes: KH_ERR_CHECK, the sentence names step, tensor and
 * element, the report the tensor, and its norm is the element. The result does not depend on the number of threads. */
kh_status kh_optimizer_step(kh_optimizer *optimizer, float *w /* [parameters] */,
                            const float *g /* [parameters] */, const kh_step *step,
                            kh_step_report *report);

/* The moments, for checkpoints: "m.NAME" and "v.NAME" of each tensor that is not frozen, as far as its kind keeps
 * them. Views into the optimiser; what is written into them goes on from there. */
const kh_tensor_view *kh_optimizer_views(const kh_optimizer *optimizer, size_t *count);
/* Bytes of moments. */
size_t kh_optimizer_bytes(const kh_optimizer *optimizer);

#endif
