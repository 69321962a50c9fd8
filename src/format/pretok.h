/* format/pretok.h: cuts a text into the words that byte-level BPE merges inside of. */
#ifndef KH_FORMAT_PRETOK_H
#define KH_FORMAT_PRETOK_H

#include "format/gguf.h"

#include <keyhole/status.h>
#include <stddef.h>

typedef struct kh_pretok kh_pretok; /* compiled patterns; many threads may use one */

/* Compiles the patterns that tokenizer.ggml.pre names (empty: "default"). An unknown name is
 * KH_ERR_UNSUPPORTED; the sentence lists the known ones. */
kh_status kh_pretok_open(kh_pretok **out, kh_slice name);
void kh_pretok_close(kh_pretok *pretok);

const char *kh_pretok_name(const kh_pretok *pretok);
/* A word that is in the vocabulary as a whole is taken before any merge. */
int kh_pretok_whole_words(const kh_pretok *pretok);
/* A text begins with bos unless the file says otherwise. */
int kh_pretok_adds_bos(const kh_pretok *pretok);

/* What one thread needs while it cuts. Zero-initialise. */
typedef struct kh_pretok_scratch {
    void *match;
} kh_pretok_scratch;
void kh_pretok_scratch_free(kh_pretok_scratch *scratch);

/* Receives the words in order; together they are the text. A failure ends the cutting. */
typedef kh_status kh_pretok_word(void *context, const char *word, size_t size);
/* `text` is well-formed UTF-8. Cost: linear in the text. */
kh_status kh_pretok_split(const kh_pretok *pretok, kh_pretok_scratch *scratch, const char *text,
                          size_t size, kh_pretok_word *word, void *context);

#endif
