/* train/masking.h: rows of a text that an encoder has to guess. */
#ifndef KH_TRAIN_MASKING_H
#define KH_TRAIN_MASKING_H

#include "run/run.h"
#include "tokens/tokenizer.h"

enum { KH_MASKING_MARKS = 5 };

typedef struct kh_masking {
    double share;
    int32_t mask,
        marks[KH_MASKING_MARKS]; /* ids of the vocabulary that are never guessed; -1: none */
    int V;
    int32_t *tokens, *targets; /* [rows]; targets of the chosen rows, one behind the other */
    uint32_t *logit_rows;      /* [rows] */
} kh_masking;

/* `share` of the rows, above 0 and at most 1, of batches of at most `rows`, in a vocabulary of V. KH_ERR_UNSUPPORTED
 * where no token stands for what is masked. */
kh_status kh_masking_open(kh_masking *out, const kh_special_ids *special, int V, double share,
                          size_t rows);
void kh_masking_close(kh_masking *masking); /* takes a cleared one */

/* *batch gets other tokens and other rows that want logits: of the chosen ones 80 % are masked, 10 % become some
 * other token, 10 % stay. The choice is a function of key and row; at least one row is chosen where one may be. */
void kh_masking_apply(kh_masking *masking, kh_batch *batch, kh_rng_key key);

#endif
