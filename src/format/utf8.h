/* format/utf8.h: UTF-8 read one character at a time, with a defined answer for every byte string. */
#ifndef KH_FORMAT_UTF8_H
#define KH_FORMAT_UTF8_H

#include "base/buf.h"

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

enum { KH_UTF8_REPLACEMENT = 0xFFFD };

typedef enum kh_utf8_kind {
    KH_UTF8_WHOLE, /* a well-formed character */
    KH_UTF8_BAD,   /* a maximal ill-formed part: no further byte could make it a character */
    KH_UTF8_CUT    /* the text ends inside a character that more bytes could complete */
} kh_utf8_kind;

typedef struct kh_utf8_step {
    kh_utf8_kind kind;
    uint32_t code; /* the code point; KH_UTF8_REPLACEMENT unless the character is whole */
    size_t size;   /* bytes it takes, 1 to 4 */
} kh_utf8_step;

/* What stands at the start of `text`; size is at least 1. */
kh_utf8_step kh_utf8_next(const char *text, size_t size);

/* Writes a code point (at most 0x10FFFF, not a surrogate) and returns its length, 1 to 4. */
size_t kh_utf8_put(char out[4], uint32_t code);

/* Bytes in front of the first ill-formed part; `size` when the whole text is well-formed. */
size_t kh_utf8_valid(const char *text, size_t size);

/* Appends the text with U+FFFD in place of each maximal ill-formed part (Unicode, section 3.9). */
kh_status kh_utf8_clean(kh_buf *out, const char *text, size_t size);

/* Appends the whole characters at the front of `text`, ill-formed parts as U+FFFD, and leaves in
 * *taken how many bytes that was: all but a character that is cut at the end. */
kh_status kh_utf8_stream(kh_buf *out, const char *text, size_t size, size_t *taken);

#endif
