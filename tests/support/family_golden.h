/* tests/support/family_golden.h: the goldens of tests/golden/families, arrays by name. */
#ifndef KH_TESTS_SUPPORT_FAMILY_GOLDEN_H
#define KH_TESTS_SUPPORT_FAMILY_GOLDEN_H

#include "support/golden_run.h"

#include <stddef.h>
#include <stdint.h>

enum { FAMILY_ARRAYS = 64 };

typedef struct family_array {
    char name[25];
    uint32_t type, n_dims, dims[4]; /* type 0: f32, 1: i32; slowest dimension first */
    const void *data;
    size_t count;
} family_array;

typedef struct family_golden {
    golden file;
    family_array arrays[FAMILY_ARRAYS];
    size_t n;
} family_golden;

/* Reads families/NAME.bin whole; fails the test when it is not as the README of the goldens says. */
void family_open(family_golden *g, const char *name);
void family_close(family_golden *g);
/* NULL if absent. */
const family_array *family_find(const family_golden *g, const char *name);
/* The data of an array of the given type, which must be there. */
const float *family_floats(const family_golden *g, const char *name);
const int32_t *family_ints(const family_golden *g, const char *name, size_t *count);

#endif
