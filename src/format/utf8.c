/* UTF-8, strictly.
 *
 * Well-formed sequences are those of table 3-7 of the Unicode standard: no overlong forms, no
 * surrogates, nothing above U+10FFFF. The second byte alone decides all of that, so each lead byte
 * has a range for its second byte and the later ones are 80..BF:
 *
 *     lead     second   later        lead     second   later
 *     C2..DF   80..BF   0            F0       90..BF   2
 *     E0       A0..BF   1            F1..F3   80..BF   2
 *     E1..EC   80..BF   1            F4       80..8F   2
 *     ED       80..9F   1            other lead bytes: ill-formed by themselves
 *     EE..EF   80..BF   1
 *
 * An ill-formed part is maximal when it is the longest prefix of some well-formed sequence, or one
 * byte (section 3.9, the practice that browsers, Python and Rust share). Its end is known as soon as
 * a byte does not fit, so a stream can tell "never" (KH_UTF8_BAD) from "not yet" (KH_UTF8_CUT).
 *
 * Rejected: a table-driven automaton (less code to read is worth more here than the last cycles;
 * runs of ASCII, the common case, are skipped eight bytes at a time). */
#include "format/utf8.h"

#include "base/fail.h"

#include <string.h>

kh_utf8_step kh_utf8_next(const char *text, size_t size)
{
    const unsigned char *s = (const unsigned char *)text;
    unsigned lead = s[0], low = 0x80, high = 0xBF;
    if (lead < 0x80) return (kh_utf8_step){KH_UTF8_WHOLE, lead, 1};
    if (lead < 0xC2 || lead > 0xF4) return (kh_utf8_step){KH_UTF8_BAD, KH_UTF8_REPLACEMENT, 1};
    size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
    uint32_t code = lead & (0xFFu >> (length + 1));
    for (size_t i = 1; i < length; ++i) {
        if (i == size) return (kh_utf8_step){KH_UTF8_CUT, KH_UTF8_REPLACEMENT, i};
        if (s[i] < low || s[i] > high) return (kh_utf8_step){KH_UTF8_BAD, KH_UTF8_REPLACEMENT, i};
        code = code << 6 | (s[i] & 0x3F);
        low = 0x80;
        high = 0xBF;
    }
    return (kh_utf8_step){KH_UTF8_WHOLE, code, length};
}

size_t kh_utf8_put(char out[4], uint32_t code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; --i) {
        out[i] = (char)(0x80 | (code & 0x3F));
        code >>= 6;
    }
    out[0] = (char)(0xF00u >> length | code);
    return length;
}

static size_t ascii_run(const char *text, size_t size)
{
    size_t n = 0;
    for (uint64_t word; n + 8 <= size; n += 8) {
        memcpy(&word, text + n, 8);
        if (word & 0x8080808080808080ull) break;
    }
    while (n < size && (unsigned char)text[n] < 0x80) ++n;
    return n;
}

size_t kh_utf8_valid(const char *text, size_t size)
{
    size_t at = 0;
    while (at < size) {
        at += ascii_run(text + at, size - at);
        if (at == size) break;
        kh_utf8_step step = kh_utf8_next(text + at, size - at);
        if (step.kind != KH_UTF8_WHOLE) break;
        at += step.size;
    }
    return at;
}

static kh_status add_replacement(kh_buf *out)
{
    return kh_buf_add(out, "\xEF\xBF\xBD", 3);
}

kh_status kh_utf8_stream(kh_buf *out, const char *text, size_t size, size_t *taken)
{
    size_t at = 0;
    *taken = 0;
    while (at < size) {
        size_t good = kh_utf8_valid(text + at, size - at);
        if (good) KH_TRY(kh_buf_add(out, text + at, good));
        *taken = at += good;
        if (at == size) break;
        kh_utf8_step step = kh_utf8_next(text + at, size - at);
        if (step.kind == KH_UTF8_CUT) break;
        KH_TRY(add_replacement(out));
        *taken = at += step.size;
    }
    return KH_OK;
}

kh_status kh_utf8_clean(kh_buf *out, const char *text, size_t size)
{
    size_t taken;
    KH_TRY(kh_utf8_stream(out, text, size, &taken));
    return taken < size ? add_replacement(out) : KH_OK;
}
