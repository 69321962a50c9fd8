/* Unicode for tokenizers, on utf8proc's tables (2.8: Unicode 15).
 *
 * The classes are those that the `tokenizers` library asks its crates for. Two of them are
 * narrower than they sound: its "control" characters lack the unassigned ones, and its
 * "punctuation" has all of ASCII's marks, `$+<=>^|~` and the backquote too, which Unicode calls
 * symbols. (Its tables are of Unicode 8; of marks and signs that came later it knows nothing, we
 * do.)
 *
 * Normal forms. utf8proc maps a character to its decomposition and composes a decomposed text;
 * what lies between, putting marks into canonical order, it does by exchanging neighbours, which
 * costs the square of a run of marks. Here runs are sorted: by insertion while they are short, by
 * counting beyond 32. Text is taken segment by segment, so ASCII is copied and never decoded:
 *
 *     ASCII ... a | e U+0301 U+0323 ... | space ...       a segment: what is not ASCII, and the one
 *                 ^-- segment ---------^                  ASCII character in front (marks join it)
 *
 * Nothing composes with an ASCII character behind it, so segments are independent. */
#include "tokens/tok_unicode.h"

#include "base/fail.h"
#include "format/utf8.h"

#include <string.h>
#include <utf8proc.h>

static utf8proc_category_t category(uint32_t code)
{
    return (utf8proc_category_t)utf8proc_get_property((utf8proc_int32_t)code)->category;
}

int kh_is_white(uint32_t code)
{
    if (code < 0x80) return code == ' ' || (code >= '\t' && code <= '\r');
    return code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
           code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

int kh_is_number(uint32_t code)
{
    if (code < 0x80) return code >= '0' && code <= '9';
    utf8proc_category_t c = category(code);
    return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
}

int kh_is_punctuation(uint32_t code)
{
    if (code < 0x80)
        return (code >= 0x21 && code <= 0x2F) || (code >= 0x3A && code <= 0x40) ||
               (code >= 0x5B && code <= 0x60) || (code >= 0x7B && code <= 0x7E);
    utf8proc_category_t c = category(code);
    return c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO;
}

int kh_is_control(uint32_t code)
{
    if (code < 0x80)
        return (code < 0x20 && code != '\t' && code != '\n' && code != '\r') || code == 0x7F;
    utf8proc_category_t c = category(code);
    return c == UTF8PROC_CATEGORY_CC || c == UTF8PROC_CATEGORY_CF || c == UTF8PROC_CATEGORY_CO;
}

int kh_is_mark(uint32_t code)
{
    if (code < 0x300) return 0;
    utf8proc_category_t c = category(code);
    return c >= UTF8PROC_CATEGORY_MN && c <= UTF8PROC_CATEGORY_ME;
}

int kh_is_nonspacing(uint32_t code)
{
    return code >= 0x300 && category(code) == UTF8PROC_CATEGORY_MN;
}

int kh_is_word(uint32_t code)
{
    if (code < 0x80)
        return (code >= '0' && code <= '9') || (code >= 'A' && code <= 'Z') ||
               (code >= 'a' && code <= 'z') || code == '_';
    utf8proc_category_t c = category(code);
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NL) || c == UTF8PROC_CATEGORY_PC ||
           code == 0x200C || code == 0x200D;
}

int kh_is_ideograph(uint32_t code)
{
    static const uint32_t blocks[][2] = {
        {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},   {0x20000, 0x2A6DF},
        {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F},
    };
    if (code < 0x3400) return 0;
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; ++i)
        if (code >= blocks[i][0] && code <= blocks[i][1]) return 1;
    return 0;
}

int kh_lower(uint32_t code, uint32_t out[2])
{
    out[0] = code;
    if (code < 0x80) {
        if (code >= 'A' && code <= 'Z') out[0] = code + 32;
        return 1;
    }
    if (code == 0x130) { /* the one character whose small form is two: i and a dot above */
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)code);
    return 1;
}

static unsigned order_of(utf8proc_int32_t code)
{
    return (unsigned)utf8proc_get_property(code)->combining_class & 0xFF;
}

static void sort_few(utf8proc_int32_t *marks, size_t count)
{
    for (size_t i = 1; i < count; ++i) {
        utf8proc_int32_t mark = marks[i];
        size_t at = i;
        for (; at && order_of(marks[at - 1]) > order_of(mark); --at) marks[at] = marks[at - 1];
        marks[at] = mark;
    }
}

/* By counting; `room` takes `count` marks. */
static void sort_many(utf8proc_int32_t *marks, size_t count, utf8proc_int32_t *room)
{
    size_t first[257] = {0};
    for (size_t i = 0; i < count; ++i) ++first[order_of(marks[i]) + 1];
    for (int c = 0; c < 256; ++c) first[c + 1] += first[c];
    for (size_t i = 0; i < count; ++i) room[first[order_of(marks[i])]++] = marks[i];
    memcpy(marks, room, count * sizeof *marks);
}

static kh_status sort_marks(kh_buf *codes)
{
    size_t count = codes->size / sizeof(utf8proc_int32_t);
    for (size_t at = 0, end; at < count; at = end) {
        const utf8proc_int32_t *list = (const utf8proc_int32_t *)(void *)codes->data;
        for (end = at; end < count && order_of(list[end]);) ++end;
        if (end == at) {
            ++end;
            continue;
        }
        size_t n = end - at;
        if (n > 32) KH_TRY(kh_buf_reserve(codes, codes->size + n * sizeof(utf8proc_int32_t)));
        utf8proc_int32_t *all = (utf8proc_int32_t *)(void *)codes->data;
        if (n > 32)
            sort_many(all + at, n, all + count);
        else
            sort_few(all + at, n);
    }
    return KH_OK;
}

enum { LONGEST = 32 }; /* the longest decomposition is 18 characters */

static kh_status add_segment(kh_buf *out, kh_buf *codes, int options, const char *text, size_t size)
{
    kh_buf_clear(codes);
    for (size_t at = 0; at < size;) {
        kh_utf8_step step = kh_utf8_next(text + at, size - at);
        utf8proc_int32_t parts[LONGEST];
        int boundary = 0;
        utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)step.code, parts, LONGEST,
                                                     (utf8proc_option_t)options, &boundary);
        if (n <= 0 || n > LONGEST) {
            parts[0] = (utf8proc_int32_t)step.code;
            n = 1;
        }
        KH_TRY(kh_buf_add(codes, parts, (size_t)n * sizeof parts[0]));
        at += step.size;
    }
    KH_TRY(sort_marks(codes));
    utf8proc_int32_t *list = (utf8proc_int32_t *)(void *)codes->data;
    utf8proc_ssize_t count = (utf8proc_ssize_t)(codes->size / sizeof *list);
    if (options & UTF8PROC_COMPOSE) {
        utf8proc_ssize_t n = utf8proc_normalize_utf32(list, count, (utf8proc_option_t)options);
        if (n >= 0) count = n;
    }
    for (utf8proc_ssize_t i = 0; i < count; ++i) {
        char bytes[4];
        KH_TRY(kh_buf_add(out, bytes, kh_utf8_put(bytes, (uint32_t)list[i])));
    }
    return KH_OK;
}

kh_status kh_normal_form_add(kh_buf *out, kh_buf *codes, kh_normal_form form, const char *text,
                             size_t size)
{
    static const int options[] = {
        [KH_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [KH_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [KH_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [KH_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    for (size_t at = 0; at < size;) {
        size_t plain = at;
        while (plain < size && (unsigned char)text[plain] < 0x80) ++plain;
        size_t copied = plain < size && plain > at ? plain - 1 : plain;
        if (copied > at) KH_TRY(kh_buf_add(out, text + at, copied - at));
        size_t end = plain;
        while (end < size && (unsigned char)text[end] >= 0x80) ++end;
        if (end > copied)
            KH_TRY(add_segment(out, codes, options[form], text + copied, end - copied));
        at = end;
    }
    return KH_OK;
}

size_t kh_grapheme_size(const char *text, size_t size)
{
    utf8proc_int32_t state = 0;
    kh_utf8_step step = kh_utf8_next(text, size);
    size_t at = step.size;
    for (uint32_t before = step.code; at < size; before = step.code, at += step.size) {
        step = kh_utf8_next(text + at, size - at);
        if (before < 0x300 && step.code < 0x300 && before != '\r') return at;
        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)before, (utf8proc_int32_t)step.code,
                                             &state))
            return at;
    }
    return at;
}
