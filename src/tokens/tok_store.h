/* tokens/tok_store.h: memory that lives as long as a tokenizer; private to format/tok*. */
#ifndef KH_TOKENS_TOK_STORE_H
#define KH_TOKENS_TOK_STORE_H

#include "format/gguf.h"

typedef struct kh_store {
    struct kh_store_block *last;
} kh_store;

/* Cleared memory for `count` objects of `size` bytes; *out is NULL when count is 0. */
kh_status kh_store_new(kh_store *store, void *out, size_t count, size_t size);
/* A copy of a text, followed by a zero byte. */
kh_status kh_store_text(kh_store *store, kh_slice *out, const char *text, size_t size);
void kh_store_free(kh_store *store);

/* Whether a text is exactly this name. */
int kh_slice_is(kh_slice text, const char *name);

#endif
