/* tokens/pretok.h: the pre-tokenizers that GGUF files name, for byte-level BPE. */
#ifndef KH_TOKENS_PRETOK_H
#define KH_TOKENS_PRETOK_H

#include "tokens/tok_split.h"

typedef struct kh_pretok {
    const char *name;
    int whole_words; /* a word that is in the vocabulary as a whole is taken before any merge */
    int adds_bos;    /* a text begins with bos unless the file says otherwise */
    int family;      /* of patterns */
} kh_pretok;

/* What tokenizer.ggml.pre names (empty: "default"). An unknown name is KH_ERR_UNSUPPORTED; the
 * sentence lists the known ones. */
kh_status kh_pretok_find(kh_pretok *out, kh_slice name);
/* Entry `index` of the table; 0 behind its end. */
int kh_pretok_at(size_t index, kh_pretok *out);
/* Its pattern number `stage`; NULL behind the last. */
const char *kh_pretok_pattern(const kh_pretok *pretok, int stage);
/* Adds its patterns to a splitter. */
kh_status kh_pretok_add(kh_split *split, const kh_pretok *pretok);

#endif
