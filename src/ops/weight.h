/* ops/weight.h: a weight is one object with layouts. Today's layouts: the rows of the mapped file
 * (decode kernels read them as they are), and transient panels in a worker's scratch (prompts), of f32
 * or of bytes. */
#ifndef KH_OPS_WEIGHT_H
#define KH_OPS_WEIGHT_H

#include "base/arena.h"
#include "tensor/types.h"

#include <keyhole/status.h>
#include <stddef.h>

/* What a low-rank adapter adds to a weight: scale * B A. */
typedef struct kh_lora {
    const struct kh_lora *next; /* of another adapter; NULL: the last */
    float scale;                /* alpha / r, times the strength that was asked for */
    size_t r;
    const float *a; /* [r][cols] */
    const float *b; /* [rows][r] */
} kh_lora;

typedef struct kh_weight {
    const char *name; /* NULL: absent */
    kh_type type;
    size_t rows, cols; /* y [rows] = W x [cols] */
    size_t row_bytes;
    const void *data;    /* [rows][row_bytes], inside the mapping */
    const kh_lora *lora; /* NULL: none */
} kh_weight;

/* A small f32 vector (norm gain, bias): as the file has it, or converted at load. data NULL: absent. */
typedef struct kh_vector {
    const float *data; /* [n], inside the mapping, or in the model's arena */
    size_t n;
} kh_vector;

/* Checks the tensor's shape (sentence with expected and found). */
kh_status kh_weight_bind(kh_weight *out, const kh_tensor *tensor, size_t rows, size_t cols);
/* The same for `count` matrices of one tensor, behind one another: rows of the result are count * rows. */
kh_status kh_weight_bind_stack(kh_weight *out, const kh_tensor *tensor, size_t count, size_t rows,
                               size_t cols);
/* Rows [first, first + rows) of a weight, without its adapters. */
kh_weight kh_weight_rows(const kh_weight *whole, size_t first, size_t rows);
/* F32, F16 or BF16 tensors of n elements. */
kh_status kh_vector_bind(kh_vector *out, kh_arena *arena, const kh_tensor *tensor, size_t n);

#endif
