/* tests/support/family_golden.h: the goldens of tests/golden/families: named arrays, and the stream of a
 * model beside them. Format: tests/golden/README.md. */
#ifndef KH_TESTS_SUPPORT_FAMILY_GOLDEN_H
#define KH_TESTS_SUPPORT_FAMILY_GOLDEN_H

#include "support/golden_run.h"

#include <stddef.h>
#include <stdint.h>

typedef enum family_task {
    FAMILY_CAUSAL,
    FAMILY_MASKED, /* predicts masked tokens */
    FAMILY_SPANS,  /* start and end of an answer */
    FAMILY_EMBED,
    FAMILY_T5,
    FAMILY_T5_ENCODER
} family_task;

typedef struct family {
    const char *name;   /* of the golden */
    const char *folder; /* NULL: as the golden */
    family_task task;
} family;

extern const family families[];
extern const size_t family_count;
/* The entry of that name; fails the test where there is none. */
const family *family_named(const char *name);

/* tests/golden/families/FOLDER; valid until the next golden_path. */
const char *family_path(const family *f);
/* The GGUF file that kh_convert makes of the folder, opened. */
kh_model *family_as_gguf(const family *f);
/* Both read a sentence as the same tokens. */
void family_same_tokens(const kh_model *one, const kh_model *other);

typedef struct family_array {
    char name[25];
    int ids; /* 1: int32_t, 0: float */
    size_t n_dims, dims[4], count;
    const void *data;
    int taken;
} family_array;

typedef struct family_golden {
    const char *name;
    golden file;
    family_array arrays[24];
    size_t count;
} family_golden;

void family_open(family_golden *g, const family *f);
/* Fails the test where an array was never asked for. */
void family_close(family_golden *g);
/* NULL where there is none. */
const family_array *family_find(family_golden *g, const char *prefix, const char *name);
/* The data of an array that must be there and have n elements (0: any number). */
const float *family_floats(family_golden *g, const char *prefix, const char *name, size_t n);
const int32_t *family_ids(family_golden *g, const char *prefix, const char *name, size_t n);

/* What a stack computes: fill with family_stream_open, attach `probe`, run, check. */
typedef struct family_stream {
    size_t N, T, D;
    int first;   /* its first layer's number: 0, which a caller may change before the run */
    size_t seen; /* layers that reported */
    float *states /* [N + 1][T][D] */, *final /* [T][D] */;
    int has_final;
    kh_probe probe;
} family_stream;

/* Sizes come from the golden's arrays PREFIXnorms and PREFIXstates. */
void family_stream_open(family_stream *s, family_golden *g, const char *prefix);
/* Compares with the golden to 1e-4 of the largest magnitude of each layer, and frees. */
void family_stream_close(family_stream *s, family_golden *g, const char *prefix);

/* Logits of the sampled ids, log-sum-exp and the largest one of rows [first, first + n). */
void family_check_logits(family_golden *g, const float *logits /* [n][V] */, size_t first, size_t n,
                         size_t V);
void family_near(const family_golden *g, const char *what, double gap, double limit);

#endif
