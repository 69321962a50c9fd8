/* train/pass.h: a batch through a model and back. */
#ifndef KH_TRAIN_PASS_H
#define KH_TRAIN_PASS_H

#include "run/tape.h"
#include "train/data.h"
#include "train/loss.h"
#include "train/params.h"

typedef enum kh_recompute {
    KH_RECOMPUTE_BLOCK, /* each block runs again before its backward pass: memory of one block's records */
    KH_RECOMPUTE_NONE /* all records are kept */
} kh_recompute;

/* What the loss is. */
typedef enum kh_goal {
    KH_GOAL_USUAL, /* classes where the model has a head for them; masked tokens of an encoder; else tokens */
    KH_GOAL_TOKENS, /* targets of a decoder's rows */
    KH_GOAL_MASKED, /* targets of an encoder's rows, by the head that predicts masked tokens */
    KH_GOAL_CLASSES /* labels of items; of two texts apart where the head reads pairs. Items without one are left out */
} kh_goal;

typedef struct kh_pass_options {
    kh_goal goal;
    double
        mask; /* of masked tokens: the share of a text's rows that are chosen, masked and guessed, anew in every
                    step; 0: rows and targets are the batch's */
    const kh_tokenizer *
        tokenizer; /* whose mask is meant, and the end of what a decoder reads; NULL: neither is known */
    size_t rows, spans;    /* the most of a batch */
    int threads;           /* 0: all processors that the process may use */
    const char *attn, *ff; /* NULL: full, dense */
    kh_recompute recompute;
    int layer_causal; /* 1: a loss for every layer, whose gradient ends at the layer's input */
    const struct kh_distill_options *distill; /* NULL: none (train/distill.h) */
    const kh_model
        *teacher; /* of it; must outlive the pass; NULL: the model itself with full attention */
    float attn_dropout; /* of attention's weights */
    uint64_t seed;      /* of dropout */
    enum kh_compute compute;
} kh_pass_options;

/* 1 where an example is two texts: for an encoder and its decoder, or for a head that reads pairs. */
int kh_pass_reads_pairs(const kh_model *model);

typedef struct kh_pass kh_pass;

/* `params` must outlive it. Everything that a step needs is taken here, but for the pages of the tape. */
kh_status kh_pass_open(kh_pass **out, kh_params *params, const kh_pass_options *options);
void kh_pass_close(kh_pass *pass); /* takes NULL */

/* Another setting of attention, as schedules ask for. On failure nothing changed. */
kh_status kh_pass_set_attn(kh_pass *pass, const char *attn);

/* Keys that a row of the last layer keeps at most; 0: all that it sees. */
int kh_pass_top(const kh_pass *pass);

/* Adds `weight` times the gradient of the batch's summed loss to the gradients of the parameters. `step`
 * counts for dropout. A loss that is not finite is no failure here. */
kh_status kh_pass_gradient(kh_pass *pass, const kh_data_batch *batch, float weight, uint64_t step,
                           kh_loss *loss);
/* The loss alone, without dropout; adds to *loss. */
kh_status kh_pass_loss(kh_pass *pass, const kh_data_batch *batch, kh_loss *loss);

/* Rows or items that the loss of the last batch is of. */
size_t kh_pass_wanted(const kh_pass *pass);

/* Bytes: of activations, and the most that records took. */
typedef struct kh_pass_memory {
    size_t activations, tape;
} kh_pass_memory;
void kh_pass_get_memory(const kh_pass *pass, kh_pass_memory *out);
/* Ends the pass that runs, between two layers, with KH_ERR_STOPPED; from any thread. */
void kh_pass_stop(kh_pass *pass);

#endif
