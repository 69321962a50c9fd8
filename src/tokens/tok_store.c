/* A tokenizer that was read from JSON owns its strings and tables: hundreds of thousands of small
 * things that die together. They are cut from blocks of 64 KiB (larger ones get a block of their
 * own), so that opening costs few allocations and closing walks a short list.
 *
 *     block -> [ header | text | text | table ... | free ]
 *       |
 *     block (earlier) -> ... */
#include "tokens/tok_store.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <string.h>

struct kh_store_block {
    struct kh_store_block *earlier;
    size_t used, size;
};

enum { BLOCK = 1 << 16, ALIGN = 16, HEAD = 32 };
_Static_assert(sizeof(struct kh_store_block) <= HEAD, "a block's header has its own space");

static void *take(kh_store *store, size_t size)
{
    size = (size + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    struct kh_store_block *block = store->last;
    if (!block || block->size - block->used < size) {
        size_t room = size > BLOCK - HEAD ? size : BLOCK - HEAD;
        block = kh_calloc(1, HEAD + room);
        if (!block) return NULL;
        *block = (struct kh_store_block){store->last, 0, room};
        store->last = block;
    }
    char *memory = (char *)block + HEAD + block->used;
    block->used += size;
    return memory;
}

kh_status kh_store_new(kh_store *store, void *out, size_t count, size_t size)
{
    void *memory = NULL;
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 2)
        KH_FAIL(KH_ERR_MEMORY, "no memory for %zu parts of a tokenizer", count);
    if (bytes && !(memory = take(store, bytes)))
        KH_FAIL(KH_ERR_MEMORY, "no memory for %zu bytes of a tokenizer", bytes);
    memcpy(out, &memory, sizeof memory);
    return KH_OK;
}

kh_status kh_store_text(kh_store *store, kh_slice *out, const char *text, size_t size)
{
    char *copy = NULL;
    KH_TRY(kh_store_new(store, &copy, size + 1, 1));
    if (size) memcpy(copy, text, size);
    *out = (kh_slice){copy, size};
    return KH_OK;
}

void kh_store_free(kh_store *store)
{
    for (struct kh_store_block *block = store->last, *earlier; block; block = earlier) {
        earlier = block->earlier;
        kh_free(block);
    }
    store->last = NULL;
}

int kh_slice_is(kh_slice text, const char *name)
{
    return strlen(name) == text.size && !memcmp(text.data ? text.data : "", name, text.size);
}
