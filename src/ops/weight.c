/* Binding of weights and vectors to the tensors of a file.
 *
 * A weight keeps a pointer into the mapping and never a copy: decoding reads the file's own blocks, a
 * prompt unpacks them panel by panel (ops/linear.c). Only vectors (norm gains, biases: a few
 * kilobytes) are converted once, because every row of every batch reads them as f32.
 *
 * What is checked here is what the kernels rely on: two dimensions of the expected sizes, rows of
 * whole blocks in whole groups of 32, and as many bytes as the shape needs. */
#include "ops/weight.h"

#include "base/fail.h"
#include "tensor/half.h"

#include <inttypes.h>
#include <string.h>

static const char *name_of(const kh_tensor *tensor)
{
    return tensor->name ? tensor->name : "(unnamed)";
}

/* All dimensions after `from` are 1. */
static int flat_after(const kh_tensor *tensor, int from)
{
    for (int i = from; i < 4; i++)
        if (tensor->dims[i] != 1) return 0;
    return 1;
}

kh_status kh_weight_bind_stack(kh_weight *out, const kh_tensor *tensor, size_t count, size_t rows,
                               size_t cols)
{
    *out = (kh_weight){0};
    if (tensor->dims[0] != cols || tensor->dims[1] != rows || tensor->dims[2] != count ||
        !flat_after(tensor, 3))
        KH_FAIL(KH_ERR_FORMAT,
                "tensor %s: expected %zu columns and %zu rows%s, found %" PRIu64 " x %" PRIu64
                " x %" PRIu64 " x %" PRIu64,
                name_of(tensor), cols, rows, count > 1 ? ", once for each expert" : "",
                tensor->dims[0], tensor->dims[1], tensor->dims[2], tensor->dims[3]);
    rows *= count; /* as many as the tensor holds: no overflow */
    size_t block = kh_type_block(tensor->type);
    if (cols == 0 || rows == 0 || cols % block != 0)
        KH_FAIL(KH_ERR_FORMAT, "tensor %s: %zu columns are no whole number of blocks of %zu (%s)",
                name_of(tensor), cols, block, kh_type_name(tensor->type));
    size_t row_bytes = kh_type_row_bytes(tensor->type, cols);
    if (rows > tensor->size / row_bytes)
        KH_FAIL(KH_ERR_FORMAT, "tensor %s: expected %zu rows of %zu bytes, found %zu bytes",
                name_of(tensor), rows, row_bytes, tensor->size);
    *out = (kh_weight){.name = name_of(tensor),
                       .type = tensor->type,
                       .rows = rows,
                       .cols = cols,
                       .row_bytes = row_bytes,
                       .data = tensor->data};
    return KH_OK;
}

kh_status kh_weight_bind(kh_weight *out, const kh_tensor *tensor, size_t rows, size_t cols)
{
    return kh_weight_bind_stack(out, tensor, 1, rows, cols);
}

kh_weight kh_weight_rows(const kh_weight *whole, size_t first, size_t rows)
{
    kh_weight part = *whole;
    part.rows = rows;
    part.lora = NULL;
    part.data = (const char *)whole->data + first * whole->row_bytes;
    return part;
}

kh_status kh_vector_bind(kh_vector *out, kh_arena *arena, const kh_tensor *tensor, size_t n)
{
    *out = (kh_vector){0};
    if (tensor->dims[0] != n || !flat_after(tensor, 1))
        KH_FAIL(KH_ERR_FORMAT, "tensor %s: expected a vector of %zu, found %" PRIu64 " x %" PRIu64,
                name_of(tensor), n, tensor->dims[0], tensor->dims[1]);
    if (tensor->type != KH_TYPE_F32 && tensor->type != KH_TYPE_F16 && tensor->type != KH_TYPE_BF16)
        KH_FAIL(KH_ERR_FORMAT, "tensor %s: expected a vector of F32, F16 or BF16, found %s",
                name_of(tensor), kh_type_name(tensor->type));
    if (n > tensor->size / kh_type_bytes(tensor->type))
        KH_FAIL(KH_ERR_FORMAT, "tensor %s: expected %zu elements, found %zu bytes", name_of(tensor),
                n, tensor->size);
    if (tensor->type == KH_TYPE_F32 && (uintptr_t)tensor->data % sizeof(float) == 0) {
        *out = (kh_vector){.data = tensor->data, .n = n};
        return KH_OK;
    }
    float *data = NULL;
    KH_TRY(kh_arena_new(arena, &data, n, sizeof *data));
    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        if (tensor->type == KH_TYPE_F32) {
            memcpy(data + i, (const char *)tensor->data + sizeof *data * i, sizeof *data);
        } else {
            memcpy(&half, (const char *)tensor->data + 2 * i, 2);
            data[i] = tensor->type == KH_TYPE_F16 ? kh_f16_to_f32(half) : kh_bf16_to_f32(half);
        }
    }
    *out = (kh_vector){.data = data, .n = n};
    return KH_OK;
}
