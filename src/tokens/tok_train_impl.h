/* tokens/tok_train_impl.h: the parts of learning a tokenizer; private to tok_train*. */
#ifndef KH_TOKENS_TOK_TRAIN_IMPL_H
#define KH_TOKENS_TOK_TRAIN_IMPL_H

#include "base/buf.h"
#include "format/gguf_part.h"
#include "tokens/tok_store.h"
#include "tokens/tok_train.h"

/* Words and how often they occur, in the order in which they came. */
typedef struct kh_word {
    size_t at; /* of its first byte */
    uint64_t count;
    uint32_t size, hash;
} kh_word;

typedef struct kh_word_counts {
    kh_buf bytes;    /* of all words, one behind the other */
    kh_word *words;  /* [count] */
    uint32_t *slots; /* [mask + 1], index + 1; 0: empty */
    size_t count, room, mask;
    uint64_t seed, total;
} kh_word_counts;

kh_status kh_words_add(kh_word_counts *words, const char *word, size_t size);
void kh_words_free(kh_word_counts *words);

/* The tokens so far, as the vocabulary writes them. */
typedef struct kh_pieces {
    kh_names index; /* by text; the number is the id */
    kh_store store; /* of the texts */
} kh_pieces;

/* Appends a piece unless there is one with this text; *id is the one that has it. */
kh_status kh_pieces_add(kh_pieces *pieces, kh_slice text, uint32_t *id);
void kh_pieces_free(kh_pieces *pieces);

typedef struct kh_learned_merge {
    uint32_t left, right; /* ids */
} kh_learned_merge;

typedef struct kh_learned {
    kh_learned_merge *merges; /* [count], by rank */
    size_t count, room;
    uint64_t tokens; /* of all words, when everything is merged */
} kh_learned;

/* Merges pairs until there are `wanted` pieces, or every pair is rarer than `least`. */
kh_status kh_merges_learn(kh_learned *out, kh_pieces *pieces, const kh_word_counts *words,
                          const uint32_t bytes[256] /* ids */, size_t wanted,
                          const kh_tokenizer_train_options *options);

#endif
