/* tests/support/train_case.h: what tests of training share: masters of a tiny model, and a batch of two sequences. */
#ifndef KH_TESTS_SUPPORT_TRAIN_CASE_H
#define KH_TESTS_SUPPORT_TRAIN_CASE_H

#include "train/data.h"
#include "train/params.h"

enum { SAMPLE_FIRST = 23, SAMPLE_SECOND = 14, SAMPLE_ROWS = SAMPLE_FIRST + SAMPLE_SECOND };

/* Two sequences of different lengths behind one another. */
typedef struct sample {
    int32_t tokens[SAMPLE_ROWS], positions[SAMPLE_ROWS], targets[SAMPLE_ROWS];
    uint32_t rows[SAMPLE_ROWS]; /* that have a target */
    kh_span spans[2];
    kh_data_batch data;
} sample;

/* For a vocabulary of V; `gaps` 1: every fifth row has no target. */
void make_sample(sample *s, int V, int gaps);

/* Masters of a file or folder; fails the test. */
kh_params *params_of(const char *path);
/* The same for the folder of one of the families. */
kh_params *params_named(const char *name);

#endif
