/* format/tok_impl.h: what a tokenizer consists of; private to format/tok*. */
#ifndef KH_FORMAT_TOK_IMPL_H
#define KH_FORMAT_TOK_IMPL_H

#include "format/pretok.h"
#include "format/tok_merge.h"
#include "format/tok_vocab.h"

enum { KH_MOST_ENDS = 32 };
#define KH_TOKENIZER_BLANK "\xE2\x96\x81" /* U+2581 */

typedef enum kh_tokenizer_model_kind {
    KH_TOKENIZER_BYTES,
    KH_TOKENIZER_SCORES
} kh_tokenizer_model_kind;

struct kh_tokenizer {
    kh_tokenizer_model_kind model;
    kh_vocab vocab;
    kh_markers markers;
    kh_merges merges;      /* BYTES only */
    kh_pretok *pretok;     /* BYTES only */
    int32_t byte_ids[256]; /* the token of a single byte; -1: none */
    kh_special_ids special;
    int space_prefix; /* SCORES: a text begins with a blank of its own */
    int32_t ends[KH_MOST_ENDS];
    int n_ends;
};

/* The working memory of one call of kh_tokenize. */
typedef struct kh_encoder {
    const kh_tokenizer *tokenizer;
    kh_tokens *out;
    kh_merger merger;
    kh_pretok_scratch scratch;
    kh_buf text;
} kh_encoder;

/* Appends the ids of a stretch of well-formed text that holds no markers. `first` is set at the start
 * of the text and behind a marker. */
kh_status kh_encode_bytes(kh_encoder *encoder, const char *text, size_t size);
kh_status kh_encode_scores(kh_encoder *encoder, const char *text, size_t size, int first);

/* The letters that stand for bytes in the pieces of byte-level BPE. */
uint32_t kh_byte_letter(unsigned byte); /* code point */
int kh_letter_byte(uint32_t letter);    /* -1: stands for none */

/* Fills byte_ids. */
void kh_tokenizer_find_bytes(kh_tokenizer *tokenizer);
/* Reads the ids of special tokens and finds those that end a turn. */
kh_status kh_tokenizer_find_special(kh_tokenizer *tokenizer, const kh_gguf *file);

#endif
