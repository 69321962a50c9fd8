/* The walk over a text.
 *
 * kh_tokenize is one pass over the text; whatever the tokenizer, the stages are these, and most
 * are empty for most tokenizers:
 *
 *     clean UTF-8 -> [ text | marker | text | marker | text ]    markers of the text as it is
 *                       |
 *                   normalise (tok_norm.c) -> [ text | marker | text ]   markers of normalised text
 *                                                |
 *                                            words (tok_split.c) -> ids by the model
 *     template (tok_post.c) around it all
 *
 * User-defined tokens are markers in every text (Gemma writes runs of line ends with them);
 * control tokens only where the caller allows it. A guarded range is text that a stranger wrote: a
 * control token that touches one is not taken, so a message cannot end its own turn, yet the text
 * is tokenised as a whole, and the ids are those of the unguarded text wherever there is nothing
 * to guard against. The same holds for user-defined tokens that are spelled like control tokens
 * (KH_MARKER_TURN). Behind a normalizer that changed the text nobody knows what a guard covers:
 * where there are guards, control tokens that are meant for normalised text are looked for in the
 * text as it is, and others only where normalising changed nothing.
 *
 * Where control tokens are not asked for, `tokenizers` still finds them, and what lies inside them
 * is not looked at again; files that were read from tokenizer.json do the same (skips_longest).
 *
 * The object is immutable after opening: any number of threads may tokenise. Working memory
 * belongs to the call. On failure the lists are as they were. */
#include "base/alloc.h"
#include "base/fail.h"
#include "format/utf8.h"
#include "tokens/tok_impl.h"
#include "tokens/tok_unicode.h"

#include <string.h>

kh_status kh_tokens_add(kh_tokens *tokens, int32_t id)
{
    if (tokens->count == tokens->capacity) {
        size_t grown = tokens->capacity < 32 ? 64 : tokens->capacity * 2;
        int32_t *ids = kh_realloc(tokens->ids, grown * sizeof *ids);
        if (!ids) KH_FAIL(KH_ERR_MEMORY, "no memory for %zu tokens", grown);
        tokens->ids = ids;
        tokens->capacity = grown;
    }
    tokens->ids[tokens->count++] = id;
    return KH_OK;
}

void kh_tokens_free(kh_tokens *tokens)
{
    kh_free(tokens->ids);
    *tokens = (kh_tokens){0};
}

/* Guards in order; how many bytes from `at` on are free of them. */
typedef struct guard_walk {
    const kh_text_range *guards;
    size_t count, next;
    size_t offset; /* of the text walked over, in the text that the guards are ranges of */
} guard_walk;

static size_t open_bytes(guard_walk *walk, size_t at, size_t size)
{
    size_t left = size - at;
    at += walk->offset;
    while (walk->next < walk->count &&
           walk->guards[walk->next].start + walk->guards[walk->next].size <= at)
        ++walk->next;
    if (walk->next == walk->count) return left;
    size_t start = walk->guards[walk->next].start, open = start > at ? start - at : 0;
    return open < left ? open : left;
}

static kh_status encode_words(kh_encoder *e, kh_slice text, int origin)
{
    static kh_split_word *const models[] = {
        [KH_TOKENIZER_BYTES] = kh_encode_bytes,         [KH_TOKENIZER_SCORES] = kh_encode_scores,
        [KH_TOKENIZER_CHARS] = kh_encode_chars,         [KH_TOKENIZER_UNIGRAM] = kh_encode_unigram,
        [KH_TOKENIZER_WORDPIECE] = kh_encode_wordpiece, [KH_TOKENIZER_WORDS] = kh_encode_whole,
    };
    const kh_tokenizer *t = e->tokenizer;
    return kh_split_run(&t->split, &e->split, &e->match, text, origin, models[t->model], e);
}

static size_t last_char(const char *text, size_t end)
{
    size_t at = end - 1;
    while (at && ((unsigned char)text[at] & 0xC0) == 0x80) --at;
    return at;
}

/* Whether no word character touches [start, end). */
static int stands_alone(kh_slice text, size_t start, size_t end)
{
    if (start) {
        size_t at = last_char(text.data, start);
        if (kh_is_word(kh_utf8_next(text.data + at, start - at).code)) return 0;
    }
    return end == text.size || !kh_is_word(kh_utf8_next(text.data + end, text.size - end).code);
}

static size_t white_before(kh_slice text, size_t from, size_t start)
{
    while (start > from) {
        size_t at = last_char(text.data, start);
        if (at < from || !kh_is_white(kh_utf8_next(text.data + at, start - at).code)) break;
        start = at;
    }
    return start;
}

static size_t white_behind(kh_slice text, size_t end)
{
    while (end < text.size) {
        kh_utf8_step step = kh_utf8_next(text.data + end, text.size - end);
        if (!kh_is_white(step.code)) break;
        end += step.size;
    }
    return end;
}

typedef kh_status section(kh_encoder *e, kh_slice text, unsigned flags, int guarded, int origin);

/* Hands the text between markers to `between`. */
static kh_status walk(kh_encoder *e, const kh_markers *markers, kh_slice text, unsigned flags,
                      guard_walk *guards, int guarded, int origin, section *between)
{
    size_t done = 0;
    for (size_t at = 0; markers->count && at < text.size;) {
        unsigned char byte = (unsigned char)text.data[at];
        if (markers->first[byte] == markers->first[byte + 1]) {
            ++at;
            continue;
        }
        size_t left = text.size - at;
        size_t unguarded = guards ? open_bytes(guards, at, text.size) : guarded ? 0 : left;
        size_t open = flags & KH_TOKENIZE_SPECIAL ? unguarded : 0;
        int hides = e->tokenizer->skips_longest && !(flags & KH_TOKENIZE_SPECIAL);
        const kh_marker *m = kh_markers_match(markers, text.data + at, left, hides ? left : open,
                                              unguarded);
        if (!m) {
            ++at;
            continue;
        }
        size_t start = at, end = at + m->text.size;
        at = end;
        if (hides && m->flags & KH_MARKER_SPECIAL) continue;
        if (m->flags & KH_MARKER_WORD && !stands_alone(text, start, end)) continue;
        if (m->flags & KH_MARKER_LEFT) start = white_before(text, done, start);
        if (m->flags & KH_MARKER_RIGHT) end = white_behind(text, end);
        if (start > done)
            KH_TRY(between(e, (kh_slice){text.data + done, start - done}, flags, guarded,
                           origin && !done));
        KH_TRY(kh_tokens_add(e->out, m->id));
        at = done = end;
    }
    if (done == text.size) return KH_OK;
    return between(e, (kh_slice){text.data + done, text.size - done}, flags, guarded,
                   origin && !done);
}

static kh_status encode_normal(kh_encoder *e, kh_slice text, unsigned flags, int guarded,
                               int origin)
{
    (void)flags;
    (void)guarded;
    return encode_words(e, text, origin);
}

static kh_status encode_raw(kh_encoder *e, kh_slice text, unsigned flags, int guarded, int origin)
{
    const kh_tokenizer *t = e->tokenizer;
    kh_slice raw = text;
    KH_TRY(kh_norm_run(&t->norm, &e->norm, &e->match, &text));
    int known = guarded && t->late_markers.count && text.size == raw.size &&
                !memcmp(text.data, raw.data, raw.size);
    guard_walk guards = {e->guards, e->n_guards, e->next_guard, (size_t)(raw.data - e->start)};
    KH_TRY(walk(e, &t->late_markers, text, flags, known ? &guards : NULL, guarded, origin,
                encode_normal));
    e->next_guard = guards.next;
    return KH_OK;
}

/* U+2581 is the blank of SentencePiece's pieces: text that holds it is read as if it held blanks,
 * before markers are looked for. */
static void put_blanks(kh_buf *out, size_t from)
{
    size_t to = from;
    for (size_t at = from; at < out->size;) {
        int blank = out->size - at >= 3 && !memcmp(out->data + at, KH_TOKENIZER_BLANK, 3);
        out->data[to++] = blank ? ' ' : out->data[at];
        at += blank ? 3 : 1;
    }
    out->size = to;
}

/* Cleans a text stretch by stretch. A character that a boundary cuts goes to the guarded side. */
typedef struct cleaner {
    const kh_tokenizer *tokenizer;
    kh_buf *out;
    const char *text;
    size_t size, at; /* of the text; how far it is clean */
} cleaner;

static kh_status clean_to(cleaner *c, size_t end, int guarded)
{
    if (end <= c->at) return KH_OK;
    size_t from = c->out->size, taken;
    KH_TRY(kh_utf8_stream(c->out, c->text + c->at, end - c->at, &taken));
    c->at += taken;
    if (c->at < end && (guarded || end == c->size)) {
        size_t n = kh_utf8_next(c->text + c->at, c->size - c->at).size;
        KH_TRY(kh_utf8_clean(c->out, c->text + c->at, n));
        c->at += n;
    }
    if (c->tokenizer->reads_blanks) put_blanks(c->out, from);
    return KH_OK;
}

/* Guards follow their text: ranges[i] is where guard i is in the clean text. */
static kh_status clean(cleaner *c, kh_text_range *ranges, const kh_text_range *guards, size_t n)
{
    for (size_t i = 0; i < n; ++i) {
        KH_TRY(clean_to(c, guards[i].start, 0));
        ranges[i].start = c->out->size;
        KH_TRY(clean_to(c, guards[i].start + guards[i].size, 1));
        ranges[i].size = c->out->size - ranges[i].start;
    }
    return clean_to(c, c->size, 0);
}

static int is_clean(const kh_tokenizer *t, const char *text, size_t size)
{
    if (kh_utf8_valid(text, size) < size) return 0;
    return !t->reads_blanks || !memmem(text, size, KH_TOKENIZER_BLANK, 3);
}

static kh_status check_arguments(size_t size, const kh_text_range *guards, size_t n_guards)
{
    if (size > INT32_MAX)
        KH_FAIL(KH_ERR_ARGUMENT, "a text of %zu bytes is too long to tokenise", size);
    size_t at = 0;
    for (size_t i = 0; i < n_guards; ++i) {
        if (guards[i].start < at || guards[i].start > size ||
            guards[i].size > size - guards[i].start)
            KH_FAIL(KH_ERR_ARGUMENT, "guard %zu is outside the text or out of order", i);
        at = guards[i].start + guards[i].size;
    }
    return KH_OK;
}

/* One text's own ids. */
static kh_status encode(kh_encoder *e, kh_slice text, unsigned flags, const kh_text_range *guards,
                        size_t n_guards)
{
    const kh_tokenizer *t = e->tokenizer;
    guard_walk guarded = {guards, n_guards, 0, 0};
    kh_buf cleaned = {0};
    kh_text_range *ranges = NULL;
    kh_status status = KH_OK;
    if (!text.size) return KH_OK;
    if (!is_clean(t, text.data, text.size)) {
        status = kh_new(&ranges, n_guards, sizeof *ranges, "guarded ranges");
        cleaner c = {t, &cleaned, text.data, text.size, 0};
        if (status == KH_OK) status = clean(&c, ranges, guards, n_guards);
        guarded.guards = ranges;
        text = (kh_slice){cleaned.data, cleaned.size};
    }
    e->start = text.data;
    e->guards = guarded.guards;
    e->n_guards = n_guards;
    e->next_guard = 0;
    if (status == KH_OK)
        status = walk(e, n_guards && t->guarded_markers.count ? &t->guarded_markers : &t->markers,
                      text, flags, &guarded, n_guards > 0, 1, encode_raw);
    kh_buf_free(&cleaned);
    kh_free(ranges);
    return status;
}

static void close_encoder(kh_encoder *e)
{
    kh_merger_free(&e->merger);
    kh_norm_scratch_free(&e->norm);
    kh_split_scratch_free(&e->split);
    kh_regex_scratch_free(&e->match);
    kh_buf_free(&e->text);
}

kh_status kh_tokenize_guarded(const kh_tokenizer *tokenizer, kh_tokens *out, const char *text,
                              size_t size, unsigned flags, const kh_text_range *guards,
                              size_t n_guards)
{
    KH_TRY(check_arguments(size, guards, n_guards));
    size_t before = out->count;
    kh_encoder e = {.tokenizer = tokenizer, .out = out};
    const kh_post_template *list = &tokenizer->post.one;
    kh_status status = KH_OK;
    for (int i = 0; i < list->count && status == KH_OK; ++i) {
        if (list->items[i].id == KH_POST_A)
            status = encode(&e, (kh_slice){text, size}, flags, guards, n_guards);
        else if (flags & KH_TOKENIZE_EDGES && list->items[i].id >= 0)
            status = kh_tokens_add(out, list->items[i].id);
    }
    if (status != KH_OK) out->count = before;
    close_encoder(&e);
    return status;
}

kh_status kh_tokenize(const kh_tokenizer *tokenizer, kh_tokens *out, const char *text, size_t size,
                      unsigned flags)
{
    return kh_tokenize_guarded(tokenizer, out, text, size, flags, NULL, 0);
}

static kh_status add_types(kh_tokens *types, size_t count, int32_t type)
{
    for (size_t i = 0; types && i < count; ++i) KH_TRY(kh_tokens_add(types, type));
    return KH_OK;
}

static kh_status add_item(kh_encoder *e, const kh_post_item *item, kh_tokens *types,
                          kh_pair_ranges *ranges, const kh_slice texts[2], unsigned flags)
{
    size_t start = e->out->count;
    if (item->id >= 0) {
        if (flags & KH_TOKENIZE_EDGES) KH_TRY(kh_tokens_add(e->out, item->id));
    } else {
        int second = item->id == KH_POST_B;
        KH_TRY(encode(e, texts[second], flags, NULL, 0));
        *(second ? &ranges->second : &ranges->first) = start;
        *(second ? &ranges->second_count : &ranges->first_count) = e->out->count - start;
    }
    return add_types(types, e->out->count - start, item->type);
}

kh_status kh_tokenize_pair(const kh_tokenizer *tokenizer, kh_tokens *out, kh_tokens *types,
                           kh_pair_ranges *ranges, kh_slice first, kh_slice second, unsigned flags)
{
    KH_TRY(check_arguments(first.size, NULL, 0));
    KH_TRY(check_arguments(second.size, NULL, 0));
    size_t before = out->count, types_before = types ? types->count : 0;
    const kh_post_template *list = &tokenizer->post.two;
    const kh_slice texts[2] = {first, second};
    kh_encoder e = {.tokenizer = tokenizer, .out = out};
    kh_pair_ranges found = {0};
    kh_status status = KH_OK;
    for (int i = 0; i < list->count && status == KH_OK; ++i)
        status = add_item(&e, &list->items[i], types, &found, texts, flags);
    close_encoder(&e);
    if (status != KH_OK) {
        out->count = before;
        if (types) types->count = types_before;
        return status;
    }
    if (ranges) *ranges = found;
    return KH_OK;
}
