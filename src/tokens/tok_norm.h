/* tokens/tok_norm.h: normalizers, a list of steps that rewrite a text; private to format/tok*. */
#ifndef KH_TOKENS_TOK_NORM_H
#define KH_TOKENS_TOK_NORM_H

#include "tokens/tok_charsmap.h"
#include "tokens/tok_regex.h"

typedef enum kh_norm_kind {
    KH_NORM_FORM,      /* flags: a kh_normal_form */
    KH_NORM_LOWER,     /* small letters */
    KH_NORM_MARKS,     /* drops marks */
    KH_NORM_NONSPACED, /* drops marks that take no space */
    KH_NORM_CLEAN, /* drops U+0000, U+FFFD and control characters; white space becomes a blank */
    KH_NORM_IDEOGRAPH, /* a blank on both sides of every ideograph */
    KH_NORM_NMT,       /* SentencePiece's rule for control characters and odd spaces */
    KH_NORM_STRIP,     /* white space at the ends: KH_NORM_LEFT, KH_NORM_RIGHT */
    KH_NORM_REPLACE,   /* every `from` becomes `to` */
    KH_NORM_PATTERN,   /* every match of `regex` becomes `to` */
    KH_NORM_PREPEND,   /* `to` in front of a text that is not empty */
    KH_NORM_LETTERS,   /* bytes become the letters of byte-level BPE */
    KH_NORM_CHARSMAP,  /* `map`, grapheme by grapheme; KH_NORM_LONGEST: as SentencePiece does */
    KH_NORM_BLANKS     /* blanks become U+2581; KH_NORM_LEFT: one in front, _MERGE: runs are one */
} kh_norm_kind;

enum { KH_NORM_LEFT = 1, KH_NORM_RIGHT = 2, KH_NORM_LONGEST = 4, KH_NORM_MERGE = 8 };

typedef struct kh_norm_step {
    kh_norm_kind kind;
    unsigned flags;
    kh_slice from, to;
    kh_regex *regex; /* owned */
    kh_charsmap map;
} kh_norm_step;

enum { KH_MOST_STEPS = 32 }; /* of normalizers, and of pre-tokenizers */

typedef struct kh_norm {
    kh_norm_step steps[KH_MOST_STEPS];
    int count;
} kh_norm;

/* Adds a step; *out is where to fill it in. More than KH_MOST_STEPS are KH_ERR_UNSUPPORTED. */
kh_status kh_norm_add(kh_norm *norm, kh_norm_kind kind, unsigned flags, kh_norm_step **out);
void kh_norm_free(kh_norm *norm);

/* Working memory of one call. Zero-initialise. */
typedef struct kh_norm_scratch {
    kh_buf text[2], codes;
} kh_norm_scratch;
void kh_norm_scratch_free(kh_norm_scratch *scratch);

/* Rewrites *text (well-formed, and so is the result); the result lies in the scratch memory until
 * the next call, or is the text itself. Linear in the text and what it becomes. */
kh_status kh_norm_run(const kh_norm *norm, kh_norm_scratch *scratch, kh_regex_scratch *match,
                      kh_slice *text);

/* Appends the text with `to` for every `from` (not empty), for every match, or letters for
 * bytes. */
kh_status kh_replace_add(kh_buf *out, kh_slice text, kh_slice from, kh_slice to);
kh_status kh_replace_matches_add(kh_buf *out, kh_slice text, const kh_regex *regex,
                                 kh_regex_scratch *match, kh_slice to);
kh_status kh_letters_add(kh_buf *out, const char *text, size_t size);

#endif
