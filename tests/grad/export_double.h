/* tests/grad/export_double.h: gradients of a case as the build in double has them. */
#ifndef KH_TESTS_EXPORT_DOUBLE_H
#define KH_TESTS_EXPORT_DOUBLE_H

#include <stddef.h>

/* Those of the array's n elements; returns n, or 0 where there is no such case or array. */
__attribute__((visibility("default"))) size_t kh_grad_double(const char *name, size_t array,
                                                             double *out, size_t n);

/* A GGUF file whose tensors are of no more than 16 bits, and how its model is trained. Reals are doubles on both
 * sides. */
typedef struct kh_grad_model {
    const char *path, *attn, *ff;
    int recompute;
} kh_grad_model;

/* 0, or a status with its sentence in `said`; *worst: the largest relative error that was met. */
__attribute__((visibility("default"))) int kh_grad_prove_model(const kh_grad_model *o,
                                                               double *worst, char *said,
                                                               size_t size);

#endif
