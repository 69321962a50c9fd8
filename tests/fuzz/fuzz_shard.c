/* Fuzz target of the reader of shards of tokens: what it accepts lies inside the bytes, and its documents
 * cover the tokens in order. */
#include "base/alloc.h"
#include "train/data_impl.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = kh_alloc(size ? size : 1); /* aligned, as mapped files are */
    kh_token_store store;
    if (!copy) return 0;
    memcpy(copy, data, size);
    if (kh_shard_parse(&store, copy, size, "fuzz") == KH_OK) {
        const uint8_t *ids = store.ids;
        uint64_t before = 0;
        if (store.count > size || store.documents > size || store.vocabulary == 0) abort();
        for (uint64_t d = 0; d < store.documents; d++) {
            if (store.ends[d] < before) abort();
            before = store.ends[d];
        }
        if (before != store.count) abort();
        for (uint64_t i = 0; i < store.count * store.width; i++) sink += ids[i];
    }
    kh_free(copy);
    return 0;
}
