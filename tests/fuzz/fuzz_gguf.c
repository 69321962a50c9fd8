/* Fuzz target of the GGUF reader: opens the input as a file in memory and reads everything in it. */
#include "base/alloc.h"
#include "format/gguf.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink;

static void read_value(const kh_gguf *file, const kh_gguf_value *value)
{
    uint64_t n = 0;
    double x = 0;
    if (value->element == KH_GGUF_STRING)
        for (uint64_t i = 0; i < value->count; i++)
            for (size_t b = 0; b < value->strings[i].size; b++)
                sink += (uint8_t)value->strings[i].data[b];
    for (uint64_t i = 0; i < value->count && i < 4096; i++) {
        if (kh_gguf_element_u64(value, i, &n) == KH_OK) sink += n;
        if (kh_gguf_element_f64(value, i, &x) == KH_OK) sink += x > 0;
    }
    char *key = kh_strndup(value->key.data, value->key.size);
    int flag = 0;
    kh_slice text = {0};
    if (!key || kh_gguf_find(file, key) != value) abort();
    kh_gguf_opt_u64(file, key, &n, UINT32_MAX);
    kh_gguf_opt_f64(file, key, &x);
    kh_gguf_opt_bool(file, key, &flag);
    kh_gguf_opt_string(file, key, &text);
    sink += (uint64_t)flag + text.size;
    kh_free(key);
}

static void read_tensor(const kh_gguf *file, const kh_tensor *tensor)
{
    uint64_t rows = tensor->dims[1] * tensor->dims[2] * tensor->dims[3];
    if (kh_gguf_tensor(file, tensor->name) != tensor) abort();
    if (kh_type_row_bytes(tensor->type, tensor->dims[0]) * rows != tensor->size) abort();
    if ((uintptr_t)tensor->data % 4 != 0) abort();
    const uint8_t *bytes = tensor->data;
    for (size_t b = 0; b < tensor->size; b++) sink += bytes[b];
    kh_gguf_release(file, tensor);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    void *copy = NULL;
    char id[17];
    uint64_t live = kh_alloc_get_stats().live;
    if (posix_memalign(&copy, 64, size ? size : 1) != 0) return 0;
    if (size) memcpy(copy, data, size);
    kh_gguf *file;
    if (kh_gguf_open_memory(&file, copy, size, "fuzz") == KH_OK) {
        for (size_t i = 0; i < kh_gguf_value_count(file); i++)
            read_value(file, kh_gguf_value_at(file, i));
        for (size_t i = 0; i < kh_gguf_tensor_count(file); i++)
            read_tensor(file, kh_gguf_tensor_at(file, i));
        kh_gguf_identity(file, id);
    } else if (file) {
        abort();
    }
    kh_gguf_close(file);
    free(copy);
    if (kh_alloc_get_stats().live != live) abort();
    return 0;
}
