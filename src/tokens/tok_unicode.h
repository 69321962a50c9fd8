/* tokens/tok_unicode.h: classes of characters, case and normal forms; private to format/tok*. */
#ifndef KH_TOKENS_TOK_UNICODE_H
#define KH_TOKENS_TOK_UNICODE_H

#include "base/buf.h"

#include <stdint.h>

int kh_is_white(uint32_t code);       /* the property White_Space */
int kh_is_number(uint32_t code);      /* categories Nd, Nl, No */
int kh_is_punctuation(uint32_t code); /* categories P*, and all of ASCII's marks */
int kh_is_control(uint32_t code);     /* categories Cc, Cf, Co, but for tab, line feed, return */
int kh_is_mark(uint32_t code);        /* categories Mn, Mc, Me */
int kh_is_nonspacing(uint32_t code);  /* category Mn */
int kh_is_word(uint32_t code);        /* what \w matches: letters, marks, digits, connectors */
int kh_is_ideograph(uint32_t code);   /* the blocks that BERT's normalizer sets apart */

/* Writes the small form of a character and returns its length in characters, 1 or 2. */
int kh_lower(uint32_t code, uint32_t out[2]);

typedef enum kh_normal_form { KH_NFC, KH_NFD, KH_NFKC, KH_NFKD } kh_normal_form;
/* Appends the normal form of well-formed text. `codes` is working memory. Linear in the text,
 * whatever the order of its marks. */
kh_status kh_normal_form_add(kh_buf *out, kh_buf *codes, kh_normal_form form, const char *text,
                             size_t size);

/* Bytes of the grapheme cluster at the start of well-formed text; size is at least 1. */
size_t kh_grapheme_size(const char *text, size_t size);

#endif
