/* Pre-tokenizers.
 *
 * A step cuts every piece that the step before it left; what comes out of the last one are words.
 * Nothing is collected on the way: a piece goes down through all later steps before the next one
 * is cut, so memory is a buffer for each step that rewrites text (byte letters, U+2581), and the
 * recursion is as deep as the list.
 *
 *     "I can't 12" --pattern--> "I" " can" "'t" " 12" --digits--> "I" " can" "'t" " " "1" "2"
 *
 * A cutting step sees its piece as segments, gaps and matches in turn; matches may be neighbours.
 * Five behaviours decide what becomes of a match. All of them need to know one segment back, no
 * more:
 *
 *     gap|m1|m2|gap    isolated       gap m1 m2 gap        with previous  gap+m1 m2 gap
 *                      removed        gap gap              with next      gap m1 m2+gap
 *                                                          contiguous     gap m1+m2 gap
 *
 * A piece is matched as a subject of its own: \s+(?!\S) looks one character ahead, and at the end
 * of a piece there is nothing to see, even if the text goes on. */
#include "tokens/tok_split.h"

#include "base/fail.h"
#include "format/utf8.h"
#include "tokens/tok_impl.h"
#include "tokens/tok_unicode.h"

#include <string.h>

kh_status kh_split_add(kh_split *split, kh_split_kind kind, kh_split_behavior behavior,
                       kh_split_step **out)
{
    if (split->count == KH_MOST_STEPS)
        KH_FAIL(KH_ERR_UNSUPPORTED, "the pre-tokenizer has more than %d steps", KH_MOST_STEPS);
    kh_split_step *step = &split->steps[split->count++];
    *step = (kh_split_step){.kind = kind, .behavior = behavior};
    if (out) *out = step;
    return KH_OK;
}

void kh_split_free(kh_split *split)
{
    for (int i = 0; i < split->count; ++i) kh_regex_close(split->steps[i].regex);
    split->count = 0;
}

void kh_split_scratch_free(kh_split_scratch *scratch)
{
    for (int i = 0; i < KH_MOST_STEPS; ++i) kh_buf_free(&scratch->text[i]);
}

typedef struct cutter {
    const kh_split *split;
    kh_split_scratch *scratch;
    kh_regex_scratch *match;
    kh_split_word *word;
    void *context;
} cutter;

static kh_status cut(const cutter *c, int step, kh_slice text, int origin);

/* One step at work on one piece. */
typedef struct joiner {
    const cutter *cutter;
    int step, origin;
    kh_slice text;
    size_t start, end; /* the segment that waits for its neighbour */
    int waits, was_match;
} joiner;

static kh_status flush(joiner *j)
{
    if (!j->waits) return KH_OK;
    j->waits = 0;
    if (j->end == j->start) return KH_OK;
    return cut(j->cutter, j->step + 1, (kh_slice){j->text.data + j->start, j->end - j->start},
               j->origin && j->start == 0);
}

static kh_status segment(joiner *j, size_t start, size_t end, int is_match)
{
    const kh_split_step *s = &j->cutter->split->steps[j->step];
    if (s->invert) is_match = !is_match;
    int joins = 0, drops = 0;
    switch (s->behavior) {
    case KH_SPLIT_ISOLATED: break;
    case KH_SPLIT_REMOVED: drops = is_match; break;
    case KH_SPLIT_WITH_PREVIOUS: joins = is_match && !j->was_match; break;
    case KH_SPLIT_WITH_NEXT: joins = !is_match && j->was_match; break;
    case KH_SPLIT_CONTIGUOUS: joins = is_match == j->was_match; break;
    }
    j->was_match = is_match;
    if (joins && j->waits) {
        j->end = end;
        return KH_OK;
    }
    KH_TRY(flush(j));
    j->start = start;
    j->end = end;
    j->waits = !drops;
    return KH_OK;
}

static kh_status by_pattern(joiner *j, const kh_regex *regex)
{
    kh_regex_walk walk = {0};
    for (;;) {
        kh_regex_span span;
        int is_match;
        KH_TRY(kh_regex_next(regex, j->cutter->match, j->text.data, j->text.size, &walk, &span,
                             &is_match));
        if (span.start > span.end) return flush(j);
        KH_TRY(segment(j, span.start, span.end, is_match));
    }
}

static kh_status by_text(joiner *j, kh_slice text)
{
    for (size_t at = 0; at < j->text.size;) {
        const char *found = memmem(j->text.data + at, j->text.size - at, text.data, text.size);
        size_t end = found ? (size_t)(found - j->text.data) : j->text.size;
        if (end > at) KH_TRY(segment(j, at, end, 0));
        if (found) KH_TRY(segment(j, end, end + text.size, 1));
        at = found ? end + text.size : end;
    }
    return flush(j);
}

static kh_status by_class(joiner *j, int (*is_in)(uint32_t code))
{
    size_t gap = 0;
    for (size_t at = 0; at < j->text.size;) {
        kh_utf8_step step = kh_utf8_next(j->text.data + at, j->text.size - at);
        if (is_in(step.code)) {
            if (at > gap) KH_TRY(segment(j, gap, at, 0));
            KH_TRY(segment(j, at, at + step.size, 1));
            gap = at + step.size;
        }
        at += step.size;
    }
    if (gap < j->text.size) KH_TRY(segment(j, gap, j->text.size, 0));
    return flush(j);
}

static kh_status by_length(joiner *j, size_t length)
{
    for (size_t at = 0, end; at < j->text.size; at = end) {
        end = at;
        for (size_t n = 0; n < length && end < j->text.size; ++n)
            end += kh_utf8_next(j->text.data + end, j->text.size - end).size;
        KH_TRY(segment(j, at, end, 1));
    }
    return flush(j);
}

static int begins(kh_slice text, kh_slice with)
{
    return text.size >= with.size && !memcmp(text.data, with.data, with.size);
}

static kh_status metaspace(const cutter *c, int step, kh_slice text, int origin)
{
    const kh_split_step *s = &c->split->steps[step];
    kh_buf *out = &c->scratch->text[step];
    kh_buf_clear(out);
    int wanted = s->flags & KH_META_ALWAYS || (s->flags & KH_META_FIRST && origin);
    if (wanted && text.data[0] != ' ' && !begins(text, s->text))
        KH_TRY(kh_buf_add(out, s->text.data, s->text.size));
    KH_TRY(kh_replace_add(out, text, (kh_slice){" ", 1}, s->text));
    kh_slice all = {out->data, out->size};
    if (!(s->flags & KH_META_SPLIT)) return cut(c, step + 1, all, origin);
    joiner j = {.cutter = c, .step = step, .origin = origin, .text = all};
    return by_text(&j, s->text);
}

static kh_status rewrite(const cutter *c, int step, kh_slice text, int origin)
{
    kh_buf *out = &c->scratch->text[step];
    kh_buf_clear(out);
    if (c->split->steps[step].kind == KH_SPLIT_BLANK) {
        if (text.data[0] == ' ') return cut(c, step + 1, text, origin);
        KH_TRY(kh_buf_add(out, " ", 1));
        KH_TRY(kh_buf_add(out, text.data, text.size));
    } else
        KH_TRY(kh_letters_add(out, text.data, text.size));
    return cut(c, step + 1, (kh_slice){out->data, out->size}, origin);
}

static kh_status cut(const cutter *c, int step, kh_slice text, int origin)
{
    if (!text.size) return KH_OK;
    if (step >= c->split->count) return c->word(c->context, text.data, text.size);
    const kh_split_step *s = &c->split->steps[step];
    joiner j = {.cutter = c, .step = step, .origin = origin, .text = text};
    switch (s->kind) {
    case KH_SPLIT_PATTERN: return by_pattern(&j, s->regex);
    case KH_SPLIT_TEXT: return by_text(&j, s->text);
    case KH_SPLIT_WHITE: return by_class(&j, kh_is_white);
    case KH_SPLIT_NUMBER: return by_class(&j, kh_is_number);
    case KH_SPLIT_PUNCTUATION: return by_class(&j, kh_is_punctuation);
    case KH_SPLIT_LENGTH: return by_length(&j, s->length);
    case KH_SPLIT_METASPACE: return metaspace(c, step, text, origin);
    case KH_SPLIT_BLANK:
    case KH_SPLIT_LETTERS: break;
    }
    return rewrite(c, step, text, origin);
}

kh_status kh_split_run(const kh_split *split, kh_split_scratch *scratch, kh_regex_scratch *match,
                       kh_slice text, int origin, kh_split_word *word, void *context)
{
    cutter c = {split, scratch, match, word, context};
    return cut(&c, 0, text, origin);
}
