/* Normalizers.
 *
 * Every step reads a text and writes another; two buffers take turns, so a list of steps costs two
 * copies of the text, however long it is. What tokenizer.json nests is flat here: a Sequence is
 * its parts, and BERT's normalizer is five steps (clean, set ideographs apart, decompose, drop
 * accents, lower).
 *
 *     text -> [ clean ] -> a -> [ decompose ] -> b -> [ drop ] -> a -> [ lower ] -> b
 *
 * Steps that look at one character at a time share one loop and differ in a function; runs of
 * ASCII that such a step leaves as they are could be copied whole, but a character costs two
 * nanoseconds and a tokenizer has few steps. A literal replacement searches with memmem.
 *
 * The character map is applied as `tokenizers` does it, not as SentencePiece does: a grapheme of
 * under six bytes is replaced by what its shortest known beginning maps to, otherwise each
 * character by itself. GGUF files ask for SentencePiece's own rule, the longest match at every
 * position, as llama.cpp does. */
#include "tokens/tok_norm.h"

#include "base/fail.h"
#include "format/utf8.h"
#include "tokens/tok_impl.h"
#include "tokens/tok_unicode.h"

#include <string.h>

kh_status kh_norm_add(kh_norm *norm, kh_norm_kind kind, unsigned flags, kh_norm_step **out)
{
    if (norm->count == KH_MOST_STEPS)
        KH_FAIL(KH_ERR_UNSUPPORTED, "the normalizer has more than %d steps", KH_MOST_STEPS);
    kh_norm_step *step = &norm->steps[norm->count++];
    *step = (kh_norm_step){.kind = kind, .flags = flags};
    if (out) *out = step;
    return KH_OK;
}

void kh_norm_free(kh_norm *norm)
{
    for (int i = 0; i < norm->count; ++i) kh_regex_close(norm->steps[i].regex);
    norm->count = 0;
}

void kh_norm_scratch_free(kh_norm_scratch *scratch)
{
    kh_buf_free(&scratch->text[0]);
    kh_buf_free(&scratch->text[1]);
    kh_buf_free(&scratch->codes);
}

/* What one character becomes: up to three; returns how many. */
typedef int rule(uint32_t code, uint32_t out[3]);

static int drop_marks(uint32_t code, uint32_t out[3])
{
    out[0] = code;
    return !kh_is_mark(code);
}

static int drop_nonspacing(uint32_t code, uint32_t out[3])
{
    out[0] = code;
    return !kh_is_nonspacing(code);
}

static int clean(uint32_t code, uint32_t out[3])
{
    out[0] = kh_is_white(code) ? ' ' : code;
    return code != 0 && code != KH_UTF8_REPLACEMENT && !kh_is_control(code);
}

static int set_apart(uint32_t code, uint32_t out[3])
{
    int apart = kh_is_ideograph(code);
    out[0] = out[2] = ' ';
    out[apart] = code;
    return apart ? 3 : 1;
}

static int nmt(uint32_t code, uint32_t out[3])
{
    out[0] = code;
    if ((code >= 1 && code <= 8) || code == 0x0B || (code >= 0x0E && code <= 0x1F) ||
        code == 0x7F || code == 0x8F || code == 0x9F)
        return 0;
    if (code == 9 || code == 0x0A || code == 0x0C || code == 0x0D || code == 0x1680 ||
        (code >= 0x200B && code <= 0x200F) || code == 0x2028 || code == 0x2029 || code == 0x2581 ||
        code == 0xFEFF || code == KH_UTF8_REPLACEMENT)
        out[0] = ' ';
    return 1;
}

static kh_status each(kh_buf *out, kh_slice text, rule *apply)
{
    KH_TRY(kh_buf_reserve(out, text.size));
    for (size_t at = 0; at < text.size;) {
        kh_utf8_step step = kh_utf8_next(text.data + at, text.size - at);
        uint32_t codes[3];
        char bytes[12];
        size_t n = 0;
        int count = apply(step.code, codes);
        for (int i = 0; i < count; ++i) n += kh_utf8_put(bytes + n, codes[i]);
        KH_TRY(kh_buf_add(out, bytes, n));
        at += step.size;
    }
    return KH_OK;
}

static kh_status lower(kh_buf *out, kh_slice text)
{
    return each(out, text, kh_lower);
}

static kh_status strip(kh_buf *out, kh_slice text, unsigned sides)
{
    size_t start = 0, end = text.size;
    while (sides & KH_NORM_LEFT && start < end) {
        kh_utf8_step step = kh_utf8_next(text.data + start, end - start);
        if (!kh_is_white(step.code)) break;
        start += step.size;
    }
    while (sides & KH_NORM_RIGHT && end > start) {
        size_t last = end - 1;
        while (last > start && ((unsigned char)text.data[last] & 0xC0) == 0x80) --last;
        if (!kh_is_white(kh_utf8_next(text.data + last, end - last).code)) break;
        end = last;
    }
    return kh_buf_add(out, text.data + start, end - start);
}

kh_status kh_replace_add(kh_buf *out, kh_slice text, kh_slice from, kh_slice to)
{
    for (size_t at = 0; at < text.size;) {
        const char *found = memmem(text.data + at, text.size - at, from.data, from.size);
        size_t run = found ? (size_t)(found - text.data) - at : text.size - at;
        KH_TRY(kh_buf_add(out, text.data + at, run));
        at += run;
        if (!found) break;
        KH_TRY(kh_buf_add(out, to.data, to.size));
        at += from.size;
    }
    return KH_OK;
}

kh_status kh_replace_matches_add(kh_buf *out, kh_slice text, const kh_regex *regex,
                                 kh_regex_scratch *match, kh_slice to)
{
    kh_regex_walk walk = {0};
    for (;;) {
        kh_regex_span span;
        int is_match;
        KH_TRY(kh_regex_next(regex, match, text.data, text.size, &walk, &span, &is_match));
        if (span.start > span.end) return KH_OK;
        KH_TRY(is_match ? kh_buf_add(out, to.data, to.size)
                        : kh_buf_add(out, text.data + span.start, span.end - span.start));
    }
}

kh_status kh_letters_add(kh_buf *out, const char *text, size_t size)
{
    KH_TRY(kh_buf_reserve(out, out->size + size));
    for (size_t i = 0; i < size; ++i) {
        char letter[4];
        size_t n = kh_utf8_put(letter, kh_byte_letter((unsigned char)text[i]));
        KH_TRY(kh_buf_add(out, letter, n));
    }
    return KH_OK;
}

static kh_status charsmap_longest(kh_buf *out, kh_slice text, const kh_charsmap *map)
{
    for (size_t at = 0; at < text.size;) {
        kh_slice by = {text.data + at, 0};
        size_t n = kh_charsmap_match(map, text.data + at, text.size - at, 1, &by);
        /* a match that ends inside a character would tear it */
        if (n && at + n < text.size && ((unsigned char)text.data[at + n] & 0xC0) == 0x80) n = 0;
        if (!n) n = by.size = kh_utf8_next(by.data = text.data + at, text.size - at).size;
        KH_TRY(kh_buf_add(out, by.data, by.size));
        at += n;
    }
    return KH_OK;
}

static kh_status charsmap_graphemes(kh_buf *out, kh_slice text, const kh_charsmap *map)
{
    for (size_t at = 0; at < text.size;) {
        size_t end = at + kh_grapheme_size(text.data + at, text.size - at);
        kh_slice by;
        if (end - at < 6 && kh_charsmap_match(map, text.data + at, end - at, 0, &by)) {
            KH_TRY(kh_buf_add(out, by.data, by.size));
            at = end;
            continue;
        }
        while (at < end) {
            size_t n = kh_utf8_next(text.data + at, end - at).size;
            if (!kh_charsmap_match(map, text.data + at, n, 0, &by))
                by = (kh_slice){text.data + at, n};
            KH_TRY(kh_buf_add(out, by.data, by.size));
            at += n;
        }
    }
    return KH_OK;
}

/* SentencePiece's blanks. Merging drops those at the ends; the one in front then stands for the
 * text's start. */
static kh_status blanks(kh_buf *out, kh_slice text, unsigned flags)
{
    int merge = (flags & KH_NORM_MERGE) != 0, inside = 0;
    KH_TRY(kh_buf_reserve(out, text.size + text.size / 2 + 3));
    if (flags & KH_NORM_LEFT && !merge) KH_TRY(kh_buf_add(out, KH_TOKENIZER_BLANK, 3));
    for (size_t at = 0; at < text.size;) {
        const char *blank = memchr(text.data + at, ' ', text.size - at);
        size_t run = blank ? (size_t)(blank - text.data) - at : text.size - at;
        if (run && merge && (inside || flags & KH_NORM_LEFT))
            KH_TRY(kh_buf_add(out, KH_TOKENIZER_BLANK, 3));
        KH_TRY(kh_buf_add(out, text.data + at, run));
        if (run) inside = 1;
        at += run;
        for (; at < text.size && text.data[at] == ' '; ++at)
            if (!merge) KH_TRY(kh_buf_add(out, KH_TOKENIZER_BLANK, 3));
    }
    return KH_OK;
}

static kh_status run_step(const kh_norm_step *s, kh_norm_scratch *scratch, kh_regex_scratch *match,
                          kh_buf *out, kh_slice text)
{
    switch (s->kind) {
    case KH_NORM_FORM:
        return kh_normal_form_add(out, &scratch->codes, (kh_normal_form)s->flags, text.data,
                                  text.size);
    case KH_NORM_LOWER: return lower(out, text);
    case KH_NORM_MARKS: return each(out, text, drop_marks);
    case KH_NORM_NONSPACED: return each(out, text, drop_nonspacing);
    case KH_NORM_CLEAN: return each(out, text, clean);
    case KH_NORM_IDEOGRAPH: return each(out, text, set_apart);
    case KH_NORM_NMT: return each(out, text, nmt);
    case KH_NORM_STRIP: return strip(out, text, s->flags);
    case KH_NORM_REPLACE: return kh_replace_add(out, text, s->from, s->to);
    case KH_NORM_PATTERN: return kh_replace_matches_add(out, text, s->regex, match, s->to);
    case KH_NORM_PREPEND:
        KH_TRY(kh_buf_add(out, s->to.data, s->to.size));
        return kh_buf_add(out, text.data, text.size);
    case KH_NORM_LETTERS: return kh_letters_add(out, text.data, text.size);
    case KH_NORM_CHARSMAP:
        return s->flags & KH_NORM_LONGEST ? charsmap_longest(out, text, &s->map)
                                          : charsmap_graphemes(out, text, &s->map);
    case KH_NORM_BLANKS: return blanks(out, text, s->flags);
    }
    return KH_OK;
}

kh_status kh_norm_run(const kh_norm *norm, kh_norm_scratch *scratch, kh_regex_scratch *match,
                      kh_slice *text)
{
    for (int i = 0; i < norm->count && text->size; ++i) {
        kh_buf *out = &scratch->text[i & 1];
        kh_buf_clear(out);
        KH_TRY(run_step(&norm->steps[i], scratch, match, out, *text));
        *text = (kh_slice){out->size ? out->data : "", out->size};
    }
    return KH_OK;
}
