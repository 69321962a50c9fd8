/* train/sides.h: examples of two texts, as a batch for an encoder and one for the decoder behind it. */
#ifndef KH_TRAIN_SIDES_H
#define KH_TRAIN_SIDES_H

#include "train/data.h"

typedef struct kh_side {
    kh_batch batch;             /* span i is that of example i, and of sequence i */
    int32_t *tokens, *position; /* [rows] */
    kh_span *spans;             /* [examples] */
    uint32_t *logit_rows;       /* [rows] */
} kh_side;

typedef struct kh_sides {
    kh_side from, to;
    int32_t *targets; /* [to.batch.logit_count] of the rows that have one */
    size_t rows, examples;
    int32_t start,
        end; /* what a decoder's text begins with; what stands behind a source, -1: nothing */
} kh_sides;

/* For batches of at most so many rows and examples; one side has at most kh_sides_rows of them. */
kh_status kh_sides_open(kh_sides *out, size_t rows, size_t examples, int32_t start, int32_t end);
void kh_sides_close(kh_sides *sides); /* takes a cleared one */
size_t kh_sides_rows(size_t rows, size_t examples);

/* Divides a batch. An example of two texts stays as it is: the first is read, the rows of the second are the
 * decoder's. One text that has no targets at its beginning (a prompt and its completion) is divided there: what
 * has to be predicted is written from the start token on, what stands before it is read, with the end token
 * behind it. KH_ERR_ARGUMENT for a text that has targets from its first row on. */
kh_status kh_sides_split(kh_sides *sides, const kh_data_batch *batch);

#endif
