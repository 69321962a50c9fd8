/* The tokenizer of a file: opening, questions, and the walk over a text.
 *
 * kh_tokenize is one pass over the text:
 *
 *     clean UTF-8 -> [ text | marker | text | marker | text ] -> ids
 *                      |        |
 *                      |        the leftmost marker, of those the longest (kh_markers_match)
 *                      byte-level BPE or score merging (tok_encode.c)
 *
 * User-defined tokens are markers in every text (Gemma writes runs of line ends with them); control
 * tokens only where the caller allows it. A guarded range is text that a stranger wrote: a control
 * token that touches one is not taken, so a message cannot end its own turn, yet the text is tokenised
 * as a whole, and the ids are those of the unguarded text wherever there is nothing to guard against.
 *
 * The object is immutable after opening: any number of threads may tokenise. Working memory belongs
 * to the call. On failure the list of ids is as it was.
 *
 * Files written before tokenizer.ggml.pre existed have none: they get "default", as in llama.cpp. */
#include "format/tokenizer.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "format/tok_impl.h"
#include "format/utf8.h"

#include <string.h>

static kh_status open_model(kh_tokenizer *t, const kh_gguf *file)
{
    kh_slice model = {0}, pre = {0};
    KH_TRY(kh_gguf_opt_string(file, "tokenizer.ggml.model", &model));
    KH_TRY(kh_gguf_opt_string(file, "tokenizer.ggml.pre", &pre));
    if (!model.size) KH_FAIL(KH_ERR_FORMAT, "tokenizer.ggml.model is missing");
    if (model.size == 5 && !memcmp(model.data, "llama", 5)) {
        t->model = KH_TOKENIZER_SCORES;
        t->space_prefix = 1;
        return kh_gguf_opt_bool(file, "tokenizer.ggml.add_space_prefix", &t->space_prefix);
    }
    if (model.size == 4 && !memcmp(model.data, "gpt2", 4)) {
        t->model = KH_TOKENIZER_BYTES;
        return kh_pretok_open(&t->pretok, pre);
    }
    int shown = model.size < 64 ? (int)model.size : 64;
    KH_FAIL(KH_ERR_UNSUPPORTED, "tokenizer model \"%.*s\" is not known (known: gpt2, llama)", shown,
            model.data);
}

/* Every character must have some token. */
static kh_status check_bytes(const kh_tokenizer *t)
{
    int missing = 0;
    for (int b = 0; b < 256; ++b) missing += t->byte_ids[b] < 0;
    if (t->model == KH_TOKENIZER_SCORES && missing && t->special.unk < 0)
        KH_FAIL(KH_ERR_FORMAT,
                "the vocabulary lacks %d of 256 byte tokens and has no unknown token", missing);
    if (missing == 256 && t->model == KH_TOKENIZER_BYTES)
        KH_FAIL(KH_ERR_FORMAT, "the vocabulary has no piece for any single byte");
    return KH_OK;
}

static kh_status open_tokenizer(kh_tokenizer *t, const kh_gguf *file)
{
    KH_TRY(open_model(t, file));
    KH_TRY(kh_vocab_init(&t->vocab, file, t->model == KH_TOKENIZER_SCORES));
    KH_TRY(kh_markers_init(&t->markers, &t->vocab));
    if (t->model == KH_TOKENIZER_BYTES) KH_TRY(kh_merges_init(&t->merges, file, &t->vocab));
    kh_tokenizer_find_bytes(t);
    KH_TRY(kh_tokenizer_find_special(t, file));
    return check_bytes(t);
}

kh_status kh_tokenizer_open(kh_tokenizer **out, const kh_gguf *file)
{
    *out = NULL;
    kh_tokenizer *t;
    KH_TRY(kh_new(&t, 1, sizeof *t, "a tokenizer"));
    kh_status status = open_tokenizer(t, file);
    if (status != KH_OK) {
        kh_tokenizer_close(t);
        return status;
    }
    *out = t;
    return KH_OK;
}

void kh_tokenizer_close(kh_tokenizer *tokenizer)
{
    if (!tokenizer) return;
    kh_pretok_close(tokenizer->pretok);
    kh_merges_free(&tokenizer->merges);
    kh_markers_free(&tokenizer->markers);
    kh_vocab_free(&tokenizer->vocab);
    kh_free(tokenizer);
}

int32_t kh_tokenizer_size(const kh_tokenizer *tokenizer)
{
    return tokenizer->vocab.size;
}

const kh_special_ids *kh_tokenizer_special(const kh_tokenizer *tokenizer)
{
    return &tokenizer->special;
}

const char *kh_tokenizer_model(const kh_tokenizer *tokenizer)
{
    return tokenizer->model == KH_TOKENIZER_BYTES ? "gpt2" : "llama";
}

const char *kh_tokenizer_pre(const kh_tokenizer *tokenizer)
{
    return tokenizer->pretok ? kh_pretok_name(tokenizer->pretok) : "";
}

kh_token_kind kh_token_get_kind(const kh_tokenizer *tokenizer, int32_t id)
{
    if (id < 0 || id >= tokenizer->vocab.size) return KH_TOKEN_UNKNOWN;
    return (kh_token_kind)tokenizer->vocab.kinds[id];
}

kh_slice kh_token_raw(const kh_tokenizer *tokenizer, int32_t id)
{
    if (id < 0 || id >= tokenizer->vocab.size) return (kh_slice){"", 0};
    return tokenizer->vocab.pieces[id];
}

int32_t kh_token_find(const kh_tokenizer *tokenizer, const char *piece, size_t size)
{
    return kh_vocab_find(&tokenizer->vocab, piece, size);
}

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
} guard_walk;

static size_t open_bytes(guard_walk *walk, size_t at, size_t size)
{
    while (walk->next < walk->count &&
           walk->guards[walk->next].start + walk->guards[walk->next].size <= at)
        ++walk->next;
    if (walk->next == walk->count) return size - at;
    size_t start = walk->guards[walk->next].start;
    return start > at ? start - at : 0;
}

static kh_status encode_text(kh_encoder *e, const char *text, size_t size, int first)
{
    if (!size) return KH_OK;
    return e->tokenizer->model == KH_TOKENIZER_BYTES ? kh_encode_bytes(e, text, size)
                                                     : kh_encode_scores(e, text, size, first);
}

static kh_status encode(kh_encoder *e, const char *text, size_t size, unsigned flags,
                        guard_walk *walk)
{
    const kh_tokenizer *t = e->tokenizer;
    size_t done = 0;
    int first = 1;
    for (size_t at = 0; at < size;) {
        if (t->markers.first[(unsigned char)text[at]] ==
            t->markers.first[(unsigned char)text[at] + 1]) {
            ++at;
            continue;
        }
        size_t open = flags & KH_TOKENIZE_SPECIAL ? open_bytes(walk, at, size) : 0;
        int32_t id = kh_markers_match(&t->markers, &t->vocab, text + at, size - at, open);
        if (id < 0) {
            ++at;
            continue;
        }
        KH_TRY(encode_text(e, text + done, at - done, first));
        KH_TRY(kh_tokens_add(e->out, id));
        at += t->vocab.pieces[id].size;
        done = at;
        first = 1;
    }
    return encode_text(e, text + done, size - done, first);
}

/* U+2581 is the blank of SentencePiece's pieces: text that holds it is read as if it held blanks, before
 * markers are looked for. */
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
    if (c->tokenizer->model == KH_TOKENIZER_SCORES) put_blanks(c->out, from);
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
    return t->model != KH_TOKENIZER_SCORES || !memmem(text, size, KH_TOKENIZER_BLANK, 3);
}

static kh_status tokenize_all(kh_encoder *e, const char *text, size_t size, unsigned flags,
                              guard_walk *walk)
{
    const kh_special_ids *special = &e->tokenizer->special;
    if (flags & KH_TOKENIZE_EDGES && special->add_bos) KH_TRY(kh_tokens_add(e->out, special->bos));
    KH_TRY(encode(e, text, size, flags, walk));
    if (flags & KH_TOKENIZE_EDGES && special->add_eos) KH_TRY(kh_tokens_add(e->out, special->eos));
    return KH_OK;
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

kh_status kh_tokenize_guarded(const kh_tokenizer *tokenizer, kh_tokens *out, const char *text,
                              size_t size, unsigned flags, const kh_text_range *guards,
                              size_t n_guards)
{
    KH_TRY(check_arguments(size, guards, n_guards));
    size_t before = out->count;
    kh_encoder e = {.tokenizer = tokenizer, .out = out};
    guard_walk walk = {guards, n_guards, 0};
    kh_buf cleaned = {0};
    kh_text_range *ranges = NULL;
    kh_status status = KH_OK;
    if (size && !is_clean(tokenizer, text, size)) {
        status = kh_new(&ranges, n_guards, sizeof *ranges, "guarded ranges");
        cleaner c = {tokenizer, &cleaned, text, size, 0};
        if (status == KH_OK) status = clean(&c, ranges, guards, n_guards);
        walk.guards = ranges;
        text = cleaned.data;
        size = cleaned.size;
    }
    if (status == KH_OK) status = tokenize_all(&e, text, size, flags, &walk);
    if (status != KH_OK) out->count = before;
    kh_merger_free(&e.merger);
    kh_pretok_scratch_free(&e.scratch);
    kh_buf_free(&e.text);
    kh_buf_free(&cleaned);
    kh_free(ranges);
    return status;
}

kh_status kh_tokenize(const kh_tokenizer *tokenizer, kh_tokens *out, const char *text, size_t size,
                      unsigned flags)
{
    return kh_tokenize_guarded(tokenizer, out, text, size, flags, NULL, 0);
}
