/* Fuzz target of the safetensors reader: opens the input as a file in memory and reads every byte
 * that it gives. */
#include "base/alloc.h"
#include "format/safetensors.h"

#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink;

static void read_tensor(const kh_safetensors *file, const kh_st_tensor *tensor, uintptr_t begin,
                        size_t size)
{
    uint64_t bytes = kh_st_type_bytes(tensor->type);
    for (int i = 0; i < tensor->n_dims; i++) bytes *= tensor->dims[i];
    uintptr_t at = (uintptr_t)tensor->data;
    if (bytes != tensor->size) abort();
    if (at < begin || at - begin > size || tensor->size > size - (at - begin)) abort();
    if (kh_safetensors_find(file, tensor->name) != tensor) abort();
    for (size_t b = 0; b < tensor->size; b++) sink += ((const uint8_t *)tensor->data)[b];
    kh_safetensors_release(file, tensor);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int set_up;
    if (!set_up++) json_set_alloc_funcs(kh_alloc, kh_free);
    uint64_t live = kh_alloc_get_stats().live;
    kh_safetensors *file;
    if (kh_safetensors_open_memory(&file, data, size, "fuzz") == KH_OK) {
        for (size_t i = 0; i < kh_safetensors_count(file); i++)
            read_tensor(file, kh_safetensors_at(file, i), (uintptr_t)data, size);
    } else if (file) {
        abort();
    }
    kh_safetensors_close(file);
    if (kh_alloc_get_stats().live != live) abort();
    return 0;
}
