/* Text of chat templates: characters and the writer.
 *
 * The interpreter must know which bytes of its output a message said: a marker such as
 * <|im_end|> is a marker only where the template wrote it (gen/chat.h). So every text carries
 * its origin byte by byte, and this is why the marks can be trusted:
 *
 *   - Text enters in two ways only. A template's own text and the model's special tokens enter
 *     clean, the strings of the conversation (kh_jval_parse) with every byte marked.
 *   - Text is cut by kh_jtext_cut, which cuts the marks alike, and made by the writer below,
 *     which takes bytes together with their marks. There is no third way: nothing else allocates
 *     text.
 *   - An operation that maps characters (upper, replace, join, format, strip ...) appends pieces
 *     of its arguments, so each output byte has the mark of the character that it came from. Where
 *     pieces lose their identity (JSON, repr, numbers with a format) the whole result is marked.
 *
 * Marks err on one side only: a clean byte was written by the template, or shows a number or a
 * truth (of the conversation too: digits and True are no markers); a marked byte may be
 * harmless. The tokenizer then reads no control token out of a stretch that holds a marked byte,
 * also where a template puts a marker together around a message.
 *
 *     data   | < | | | i | m | ... | \n | H | i |
 *     said   | 0 | 0 | 0 | 0 | ... | 0  | 1 | 1 |     NULL as long as it would be all 0
 *
 * Positions are characters in a template and bytes here; text is valid UTF-8 from the outside
 * on. Case is Unicode's simple mapping by utf8proc, with the one common exception that ß becomes
 * SS.
 *
 * Jinja2's markup is kept too, because a published template depends on it: `'a' | safe + x`
 * escapes x.
 *
 * Rejected: rendering twice with sentinels in place of the messages and comparing. Templates
 * compare messages, split and trim them; a sentinel changes what they do. */
#include "jinja/jinja_text.h"

#include "base/fail.h"
#include "format/utf8.h"

#include <string.h>
#include <utf8proc.h>

int kh_jchar_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

size_t kh_jtext_step(kh_jtext text, size_t at)
{
    return kh_utf8_next(text.data + at, text.size - at).size;
}

uint32_t kh_jtext_code(kh_jtext text, size_t at)
{
    return kh_utf8_next(text.data + at, text.size - at).code;
}

size_t kh_jtext_length(kh_jtext text)
{
    size_t n = 0;
    for (size_t at = 0; at < text.size; ++n) at += kh_jtext_step(text, at);
    return n;
}

size_t kh_jtext_offset(kh_jtext text, size_t n)
{
    size_t at = 0;
    while (n-- && at < text.size) at += kh_jtext_step(text, at);
    return at;
}

size_t kh_jtext_find(kh_jtext text, kh_jtext what, size_t from)
{
    if (from > text.size || what.size > text.size - from) return SIZE_MAX;
    if (!what.size) return from;
    const char *at = memmem(text.data + from, text.size - from, what.data, what.size);
    return at ? (size_t)(at - text.data) : SIZE_MAX;
}

size_t kh_jtext_find_last(kh_jtext text, kh_jtext what)
{
    if (what.size > text.size) return SIZE_MAX;
    for (size_t at = text.size - what.size + 1; at-- > 0;)
        if (!what.size || !memcmp(text.data + at, what.data, what.size)) return at;
    return SIZE_MAX;
}

int kh_jtext_starts(kh_jtext text, kh_jtext what)
{
    return what.size <= text.size && (!what.size || !memcmp(text.data, what.data, what.size));
}

int kh_jtext_ends(kh_jtext text, kh_jtext what)
{
    return what.size <= text.size &&
           (!what.size || !memcmp(text.data + text.size - what.size, what.data, what.size));
}

static int in_set(uint32_t code, const kh_jtext *set)
{
    if (!set) return kh_jchar_space(code);
    for (size_t at = 0; at < set->size; at += kh_jtext_step(*set, at))
        if (kh_jtext_code(*set, at) == code) return 1;
    return 0;
}

kh_jtext kh_jtext_strip(kh_jtext text, const kh_jtext *set, int sides)
{
    size_t start = 0, end = text.size;
    while (sides & KH_J_LEFT && start < end && in_set(kh_jtext_code(text, start), set))
        start += kh_jtext_step(text, start);
    while (sides & KH_J_RIGHT && end > start) {
        size_t last = end - 1;
        while (last > start && (text.data[last] & 0xC0) == 0x80) --last;
        if (!in_set(kh_jtext_code(text, last), set)) break;
        end = last;
    }
    return kh_jtext_cut(text, start, end);
}

/* ---- the writer ---- */

static kh_status make_room(kh_jout *out, size_t more)
{
    if (more <= out->room - out->size) return KH_OK;
    if (more > SIZE_MAX / 4) KH_FAIL(KH_ERR_FORMAT, "a text is too large");
    size_t room = out->room ? out->room * 2 : 64;
    if (room - out->size < more) room = out->size + more;
    char *data;
    KH_TRY(kh_jmemory_take(&out->run->memory, &data, room, 1));
    if (out->size) memcpy(data, out->data, out->size);
    out->data = data;
    if (out->said) {
        uint8_t *said;
        KH_TRY(kh_jmemory_take(&out->run->memory, &said, room, 1));
        memcpy(said, out->said, out->size);
        out->said = said;
    }
    out->room = room;
    return KH_OK;
}

static kh_status append(kh_jout *out, const char *bytes, size_t size, const uint8_t *said, int all)
{
    if (!size) return KH_OK;
    KH_TRY(kh_jrun_count(out->run, size));
    KH_TRY(make_room(out, size));
    if ((said || all) && !out->said)
        KH_TRY(kh_jmemory_take(&out->run->memory, &out->said, out->room, 1));
    memcpy(out->data + out->size, bytes, size);
    if (said)
        memcpy(out->said + out->size, said, size);
    else if (out->said)
        memset(out->said + out->size, all, size);
    out->size += size;
    return KH_OK;
}

kh_status kh_jout_add(kh_jout *out, kh_jtext text)
{
    return append(out, text.data, text.size, text.said, 0);
}

kh_status kh_jout_put(kh_jout *out, const char *bytes, size_t size, int said)
{
    return append(out, bytes, size, NULL, said != 0);
}

kh_status kh_jout_word(kh_jout *out, const char *word)
{
    return append(out, word, strlen(word), NULL, 0);
}

kh_status kh_jout_char(kh_jout *out, uint32_t code, int said)
{
    char bytes[4];
    return kh_jout_put(out, bytes, kh_utf8_put(bytes, code), said);
}

kh_status kh_jout_fill(kh_jout *out, const char *what, size_t times)
{
    while (times--) KH_TRY(kh_jout_word(out, what));
    return KH_OK;
}

kh_jtext kh_jout_text(const kh_jout *out)
{
    return (kh_jtext){out->data ? out->data : "", out->said, out->size, 0};
}

kh_status kh_jout_value(kh_jout *out, kh_jval *value)
{
    return kh_jval_text(out->run, value, kh_jout_text(out));
}

kh_status kh_jout_markup(kh_jout *out, kh_jval *value, int markup)
{
    kh_jtext text = kh_jout_text(out);
    text.markup = markup;
    return kh_jval_text(out->run, value, text);
}

kh_status kh_jout_escape(kh_jout *out, kh_jtext text)
{
    static const char signs[] = "&<>\"'";
    static const char *const names[] = {"&amp;", "&lt;", "&gt;", "&#34;", "&#39;"};
    for (size_t at = 0; at < text.size; ++at) {
        const char *sign = text.data[at] ? strchr(signs, text.data[at]) : NULL;
        if (sign)
            KH_TRY(kh_jout_put(out, names[sign - signs], strlen(names[sign - signs]),
                               text.said && text.said[at]));
        else
            KH_TRY(kh_jout_add(out, kh_jtext_cut(text, at, at + 1)));
    }
    return KH_OK;
}

kh_status kh_jout_join(kh_jout *out, kh_jtext text, int markup)
{
    return markup && !text.markup ? kh_jout_escape(out, text) : kh_jout_add(out, text);
}

/* ---- case ---- */

static int is_cased(uint32_t c)
{
    utf8proc_category_t kind = utf8proc_category((utf8proc_int32_t)c);
    return kind == UTF8PROC_CATEGORY_LU || kind == UTF8PROC_CATEGORY_LL ||
           kind == UTF8PROC_CATEGORY_LT;
}

static kh_status put_case(kh_jout *out, kh_jtext text, size_t at, size_t size, enum kh_jcase how)
{
    enum { SHARP_S = 0xDF };
    uint32_t code = kh_jtext_code(text, at);
    int said = text.said && text.said[at];
    utf8proc_int32_t c = (utf8proc_int32_t)code;
    if (kh_utf8_next(text.data + at, size).kind != KH_UTF8_WHOLE)
        return kh_jout_add(out, kh_jtext_cut(text, at, at + size));
    if (how == KH_J_SWAP)
        how = utf8proc_category(c) == UTF8PROC_CATEGORY_LU ? KH_J_LOWER : KH_J_UPPER;
    if (code == SHARP_S && how != KH_J_LOWER)
        return kh_jout_put(out, how == KH_J_UPPER ? "SS" : "Ss", 2, said);
    c = how == KH_J_LOWER   ? utf8proc_tolower(c)
        : how == KH_J_UPPER ? utf8proc_toupper(c)
                            : utf8proc_totitle(c);
    return kh_jout_char(out, (uint32_t)c, said);
}

kh_status kh_jout_case(kh_jout *out, kh_jtext text, enum kh_jcase how)
{
    int inside = 0; /* a word, for title; the text, for capital */
    for (size_t at = 0; at < text.size;) {
        size_t size = kh_jtext_step(text, at);
        enum kh_jcase now = how;
        if (how == KH_J_TITLE || how == KH_J_CAPITAL) now = inside ? KH_J_LOWER : KH_J_TITLE;
        KH_TRY(put_case(out, text, at, size, now));
        inside = how == KH_J_CAPITAL || is_cased(kh_jtext_code(text, at));
        at += size;
    }
    return KH_OK;
}
