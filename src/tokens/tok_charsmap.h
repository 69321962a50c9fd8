/* tokens/tok_charsmap.h: SentencePiece's compiled table of replacements; private to format/tok*. */
#ifndef KH_TOKENS_TOK_CHARSMAP_H
#define KH_TOKENS_TOK_CHARSMAP_H

#include "format/gguf.h"

typedef struct kh_charsmap {
    const uint8_t *units; /* [n_units] little-endian 32-bit numbers: a double array */
    size_t n_units;
    kh_slice texts; /* replacements, each ended by a zero byte */
} kh_charsmap;

/* Reads the table over memory that the caller keeps. */
kh_status kh_charsmap_init(kh_charsmap *map, const void *data, size_t size);
/* Bytes at the start of `text` that the table replaces (0: none) and by what: the longest match,
 * or, unless `longest`, the shortest. The replacement is well-formed UTF-8. */
size_t kh_charsmap_match(const kh_charsmap *map, const char *text, size_t size, int longest,
                         kh_slice *by);

/* Decodes base64 in place of a JSON string's bytes: writes at most size * 3 / 4 bytes to `out` and
 * returns how many, or (size_t)-1 for what is no base64. */
size_t kh_base64_decode(uint8_t *out, const char *text, size_t size);

#endif
