/* tokens/tok_regex.h: regular expressions of tokenizers, run by PCRE2; private to format. */
#ifndef KH_TOKENS_TOK_REGEX_H
#define KH_TOKENS_TOK_REGEX_H

#include "base/buf.h"
#include "format/gguf.h"

typedef struct kh_regex kh_regex; /* compiled; many threads may use one */

typedef enum kh_regex_dialect {
    KH_REGEX_PCRE,     /* as PCRE2 reads it */
    KH_REGEX_ONIGURUMA /* as tokenizer.json means it: translated first */
} kh_regex_dialect;

/* Compiles a pattern. `what` names its place in sentences. What PCRE2 cannot express or refuses is
 * KH_ERR_UNSUPPORTED. */
kh_status kh_regex_open(kh_regex **out, kh_slice pattern, kh_regex_dialect dialect,
                        const char *what);
void kh_regex_close(kh_regex *regex);

/* What one thread needs while it matches. Zero-initialise; one serves any number of patterns. */
typedef struct kh_regex_scratch {
    void *match;
} kh_regex_scratch;
void kh_regex_scratch_free(kh_regex_scratch *scratch);

typedef struct kh_regex_span {
    size_t start, end; /* start > end: nothing was found */
} kh_regex_span;

/* The first match at or behind `from` in well-formed text; never an empty one unless `empty`. A
 * pattern that takes too long is KH_ERR_UNSUPPORTED. */
kh_status kh_regex_find(const kh_regex *regex, kh_regex_scratch *scratch, const char *text,
                        size_t size, size_t from, int empty, kh_regex_span *out);

/* Walks the segments of a text as find_iter does: gaps and matches in order, matches may be
 * empty. */
typedef struct kh_regex_walk {
    size_t at, from;      /* where the segment to come begins; where to search from */
    kh_regex_span next;   /* a match that was found but not yet given */
    int has, done, ended; /* a match waits; nothing more to find; a match ended at `at` */
} kh_regex_walk;
/* Fills *out and *is_match; returns KH_OK with out->start > out->end at the end. */
kh_status kh_regex_next(const kh_regex *regex, kh_regex_scratch *scratch, const char *text,
                        size_t size, kh_regex_walk *walk, kh_regex_span *out, int *is_match);

/* Appends the pattern as PCRE2 shall read it. */
kh_status kh_regex_translate(kh_buf *out, kh_slice pattern, const char *what);

#endif
