/* tokens/tok_impl.h: what a tokenizer consists of; private to format/tok*. */
#ifndef KH_TOKENS_TOK_IMPL_H
#define KH_TOKENS_TOK_IMPL_H

#include "tokens/pretok.h"
#include "tokens/tok_decode.h"
#include "tokens/tok_merge.h"
#include "tokens/tok_norm.h"
#include "tokens/tok_post.h"
#include "tokens/tok_split.h"
#include "tokens/tok_store.h"
#include "tokens/tok_trie.h"
#include "tokens/tok_vocab.h"

enum { KH_MOST_ENDS = 32, KH_MOST_TEMPLATES = 16 };
#define KH_TOKENIZER_BLANK "\xE2\x96\x81" /* U+2581 */

typedef enum kh_tokenizer_model_kind {
    KH_TOKENIZER_BYTES,     /* byte-level BPE by rank: words are bytes */
    KH_TOKENIZER_SCORES,    /* SentencePiece's BPE: two pieces merge whose union is one, by score */
    KH_TOKENIZER_CHARS,     /* BPE by rank: words are characters */
    KH_TOKENIZER_UNIGRAM,   /* the most probable pieces */
    KH_TOKENIZER_WORDPIECE, /* the longest pieces */
    KH_TOKENIZER_WORDS      /* whole words */
} kh_tokenizer_model_kind;

/* What the models are told beside their vocabulary. */
typedef struct kh_tokenizer_options {
    int32_t unk;             /* the id of what is no piece; -1: it is left out */
    int fuse_unk;            /* neighbours that are no pieces are one token (CHARS) */
    int byte_fallback;       /* what is no piece becomes the tokens of its bytes */
    int whole_words;         /* a word that is a piece is taken before any merge */
    kh_slice prefix, suffix; /* of pieces inside a word, and at its end */
    size_t longest_word;     /* characters; longer ones are unknown (WORDPIECE) */
    double unk_score;        /* UNIGRAM */
    uint32_t starts;         /* WORDPIECE: the node of kh_trie where words begin */
    uint32_t goes_on;        /* and where they go on */
} kh_tokenizer_options;

typedef struct kh_chat_text {
    kh_slice name, text;
} kh_chat_text;

struct kh_tokenizer {
    kh_tokenizer_model_kind model;
    kh_tokenizer_options options;
    kh_pretok pre;  /* name "" where no file named one */
    kh_store store; /* strings and tables, unless they lie in a GGUF file */
    kh_vocab vocab;
    kh_norm norm;
    kh_markers markers;      /* found in the text as it is */
    kh_markers late_markers; /* found in the normalised text */
    kh_markers
        guarded_markers; /* `markers` and the special ones of the late, or none: for guards */
    kh_split split;
    kh_merges merges;      /* BYTES, CHARS */
    kh_trie trie;          /* UNIGRAM, WORDPIECE */
    double *scores;        /* [V], UNIGRAM */
    int32_t byte_ids[256]; /* the token of a single byte; -1: none */
    kh_post post;
    kh_decoder decoder;
    kh_slice *shown; /* [V] or NULL: what is decoded in place of a piece, where it has data */
    kh_special_ids special;
    int reads_blanks;  /* U+2581 in a text is read as a blank, before anything else */
    int skips_longest; /* a special token that is not asked for hides what lies inside it */
    int32_t ends[KH_MOST_ENDS];
    int n_ends;
    kh_chat_text chats[KH_MOST_TEMPLATES];
    int n_chats;
};

/* The working memory of one call of kh_tokenize. */
typedef struct kh_encoder {
    const kh_tokenizer *tokenizer;
    kh_tokens *out;
    kh_merger merger;
    kh_norm_scratch norm;
    kh_split_scratch split;
    kh_regex_scratch match;
    kh_buf text;       /* a word as the vocabulary stores it, or the lattice of UNIGRAM */
    const char *start; /* of the text that the guards are ranges of */
    const kh_text_range *guards;
    size_t n_guards, next_guard; /* the first that may touch what is not yet normalised */
} kh_encoder;

/* Appends the ids of one word, by the tokenizer's model. */
kh_status kh_encode_bytes(void *encoder, const char *word, size_t size);
kh_status kh_encode_scores(void *encoder, const char *word, size_t size);
kh_status kh_encode_chars(void *encoder, const char *word, size_t size);
kh_status kh_encode_unigram(void *encoder, const char *word, size_t size);
kh_status kh_encode_wordpiece(void *encoder, const char *word, size_t size);
kh_status kh_encode_whole(void *encoder, const char *word, size_t size);
/* The tokens of the bytes of a text: 1 if there are all of them; else nothing was added. */
kh_status kh_encode_fallback(kh_encoder *encoder, const char *text, size_t size, int *done);

/* The letters that stand for bytes in the pieces of byte-level BPE. */
uint32_t kh_byte_letter(unsigned byte); /* code point */
int kh_letter_byte(uint32_t letter);    /* -1: stands for none */

/* Fills byte_ids. */
void kh_tokenizer_find_bytes(kh_tokenizer *tokenizer);
/* Builds the trie of UNIGRAM and WORDPIECE over the pieces whose kind is in `kinds` (1 << kind). */
kh_status kh_tokenizer_grow_trie(kh_tokenizer *tokenizer, unsigned kinds);

/* Reads the ids of special tokens of a GGUF file and finds those that end a turn. */
kh_status kh_tokenizer_find_special(kh_tokenizer *tokenizer, const kh_gguf *file);
void kh_tokenizer_add_end(kh_tokenizer *tokenizer, int32_t id);
/* Adds the markers that end a turn whatever the file says. */
void kh_tokenizer_find_ends(kh_tokenizer *tokenizer);

/* The parts of a GGUF file's model: what it shares with tokenizer.json becomes the same steps. */
kh_status kh_tokenizer_open_parts(kh_tokenizer *tokenizer, const kh_gguf *file);

#endif
