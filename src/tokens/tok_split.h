/* tokens/tok_split.h: pre-tokenizers, a list of steps that cut a text into words; private to
 * format. */
#ifndef KH_TOKENS_TOK_SPLIT_H
#define KH_TOKENS_TOK_SPLIT_H

#include "tokens/tok_norm.h"

typedef enum kh_split_kind {
    KH_SPLIT_PATTERN, /* segments: matches of `regex` */
    KH_SPLIT_TEXT,    /* segments: occurrences of `text` */
    KH_SPLIT_WHITE,   /* segments: single characters of a class */
    KH_SPLIT_NUMBER,
    KH_SPLIT_PUNCTUATION,
    KH_SPLIT_LENGTH,   /* every `length` characters */
    KH_SPLIT_BLANK,    /* a blank in front, unless there is one */
    KH_SPLIT_LETTERS,  /* bytes become the letters of byte-level BPE */
    KH_SPLIT_METASPACE /* blanks become `text`; flags: KH_META_* */
} kh_split_kind;

/* What happens to the matches; gaps and matches change places where `invert` is set. */
typedef enum kh_split_behavior {
    KH_SPLIT_ISOLATED,      /* each is a word */
    KH_SPLIT_REMOVED,       /* dropped */
    KH_SPLIT_WITH_PREVIOUS, /* joins what stands before it */
    KH_SPLIT_WITH_NEXT,     /* joins what stands behind it */
    KH_SPLIT_CONTIGUOUS     /* joins its neighbours of the same kind */
} kh_split_behavior;

enum { KH_META_ALWAYS = 1, KH_META_FIRST = 2, KH_META_SPLIT = 4 };

typedef struct kh_split_step {
    kh_split_kind kind;
    kh_split_behavior behavior;
    int invert;
    unsigned flags;
    size_t length;
    kh_slice text;
    kh_regex *regex; /* owned */
} kh_split_step;

typedef struct kh_split {
    kh_split_step steps[KH_MOST_STEPS];
    int count;
} kh_split;

kh_status kh_split_add(kh_split *split, kh_split_kind kind, kh_split_behavior behavior,
                       kh_split_step **out);
void kh_split_free(kh_split *split);

/* Working memory of one call; one buffer for each step that rewrites. Zero-initialise. */
typedef struct kh_split_scratch {
    kh_buf text[KH_MOST_STEPS];
} kh_split_scratch;
void kh_split_scratch_free(kh_split_scratch *scratch);

/* Receives the words in order; a failure ends the cutting. */
typedef kh_status kh_split_word(void *context, const char *word, size_t size);
/* `text` is well-formed UTF-8; `origin` is set when it begins where the caller's text begins.
 * Cost: linear in the text for every step, unless a pattern of the file's own looks far back or
 * ahead. */
kh_status kh_split_run(const kh_split *split, kh_split_scratch *scratch, kh_regex_scratch *match,
                       kh_slice text, int origin, kh_split_word *word, void *context);

#endif
