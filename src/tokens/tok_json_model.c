/* tokenizer.json: the model, its vocabulary, and the added tokens.
 *
 *     vocab {"piece": id} or [["piece", score]]  +  added_tokens [{"content", "id", flags}]
 *         -> pieces [V] in the store, V the largest id and one; ids that nothing names are unused
 *
 * An added token whose content is a piece of the model has that piece's id, whatever it says; the
 * others have the id that they name. Two texts for one id are an error, and so is an id far beyond
 * the number of pieces: a short file must not ask for gigabytes.
 *
 * Byte-level BPE is recognised by its pre-tokenizer, whose last step writes bytes as letters: that
 * step is taken off again and the model works on the bytes (tok_encode.c), unless it has something
 * that only characters can express (an unknown token, a prefix, a suffix). Merges come as "left
 * right" or as pairs. */
#include "base/alloc.h"
#include "base/fail.h"
#include "tokens/tok_json.h"

#include <float.h>
#include <string.h>

typedef struct entry {
    kh_slice text;
    size_t id;
} entry;

static kh_status bad_id(kh_slice text, size_t id, const char *why)
{
    int shown = text.size < 64 ? (int)text.size : 64;
    KH_FAIL(KH_ERR_FORMAT, "the piece \"%.*s\" has the id %zu, %s", shown, text.data, id, why);
}

static kh_status read_entry(const char *text, const json_t *value, entry *out)
{
    double id;
    *out = (entry){{text, strlen(text)}, 0};
    if (!kh_json_number(value, &id) || id < 0 || id > INT32_MAX || id != (double)(int64_t)id)
        KH_FAIL(KH_ERR_FORMAT, "the id of the piece \"%.64s\" is %s (expected: an integer from 0)",
                text, kh_json_kind(value));
    out->id = (size_t)id;
    return KH_OK;
}

/* The content and the id of an added token. */
static kh_status read_added(const json_t *token, entry *out)
{
    *out = (entry){{"", 0}, 0};
    if (!json_is_object(token))
        KH_FAIL(KH_ERR_FORMAT, "an added token is %s (expected: an object)", kh_json_kind(token));
    KH_TRY(kh_part_text(token, "added token", "content", 1, &out->text));
    if (!kh_json_get(token, "id")) KH_FAIL(KH_ERR_FORMAT, "an added token has no \"id\"");
    return kh_part_count(token, "added token", "id", &out->id);
}

/* The i-th piece of a list of pieces: [text, score]. */
static kh_status read_scored(const json_t *list, size_t i, kh_slice *text, double *score)
{
    const json_t *pair = json_array_get(list, i), *first = json_array_get(pair, 0);
    if (!json_is_string(first) || !kh_json_number(json_array_get(pair, 1), score))
        KH_FAIL(KH_ERR_FORMAT, "piece %zu of the model is not [text, score]", i);
    *text = (kh_slice){json_string_value(first), json_string_length(first)};
    return KH_OK;
}

static kh_status find_size(const json_t *vocab, const json_t *added, size_t *size)
{
    size_t most = json_array_size(vocab), count = most + json_array_size(added);
    const char *text;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)vocab, text, value)
    {
        entry e;
        KH_TRY(read_entry(text, value, &e));
        if (e.id >= most) most = e.id + 1;
        ++count;
    }
    for (size_t i = 0; i < json_array_size(added); ++i) {
        entry e;
        KH_TRY(read_added(json_array_get(added, i), &e));
        if (e.id >= most) most = e.id + 1;
    }
    *size = most;
    if (most > 4 * count + 65536)
        KH_FAIL(KH_ERR_FORMAT, "the largest id is %zu, but there are %zu pieces", most - 1, count);
    return KH_OK;
}

static kh_status place(kh_tokenizer *t, kh_slice *pieces, entry e)
{
    if (pieces[e.id].data) return bad_id(e.text, e.id, "which another piece has too");
    return kh_store_text(&t->store, &pieces[e.id], e.text.data, e.text.size);
}

static kh_status place_model(kh_tokenizer *t, kh_slice *pieces, const json_t *vocab)
{
    const char *text;
    json_t *value;
    for (size_t i = 0; i < json_array_size(vocab); ++i) {
        entry e = {.id = i};
        KH_TRY(read_scored(vocab, i, &e.text, &t->scores[i]));
        KH_TRY(place(t, pieces, e));
    }
    json_object_foreach((json_t *)(uintptr_t)vocab, text, value)
    {
        entry e;
        KH_TRY(read_entry(text, value, &e));
        KH_TRY(place(t, pieces, e));
    }
    return KH_OK;
}

/* Whether the model itself has the piece, and under which id. */
static int model_has(const json_t *vocab, const kh_vocab *scored, kh_slice text, size_t *id)
{
    int32_t found = scored->size ? kh_vocab_find(scored, text.data, text.size) : -1;
    if (found >= 0) {
        *id = (size_t)found;
        return 1;
    }
    if (!text.size || memchr(text.data, 0, text.size)) return 0;
    const json_t *value = json_object_get(vocab, text.data);
    double number;
    if (!value || !kh_json_number(value, &number)) return 0;
    *id = (size_t)number;
    return 1;
}

/* Pieces of the model and added tokens together. */
static kh_status read_vocabulary(kh_tokenizer *t, const json_t *vocab, const json_t *added)
{
    size_t size;
    kh_slice *pieces;
    kh_vocab model = {0};
    KH_TRY(find_size(vocab, added, &size));
    KH_TRY(kh_store_new(&t->store, &pieces, size, sizeof *pieces));
    if (json_is_array(vocab)) KH_TRY(kh_new(&t->scores, size, sizeof *t->scores, "token scores"));
    KH_TRY(place_model(t, pieces, vocab));
    kh_status status = json_is_array(vocab) && json_array_size(vocab)
                           ? kh_vocab_build(&model, pieces, json_array_size(vocab))
                           : KH_OK;
    for (size_t i = 0; i < json_array_size(added) && status == KH_OK; ++i) {
        entry e;
        size_t known;
        status = read_added(json_array_get(added, i), &e);
        if (status == KH_OK && e.text.size && !model_has(vocab, &model, e.text, &known) &&
            !(pieces[e.id].size == e.text.size &&
              !memcmp(pieces[e.id].data, e.text.data, e.text.size)))
            status = place(t, pieces, e);
    }
    kh_vocab_free(&model);
    KH_TRY(status);
    return kh_vocab_build(&t->vocab, pieces, size);
}

/* The model's own pieces, for the models that walk. */
static kh_status grow(kh_tokenizer *t, const json_t *vocab)
{
    uint64_t bytes = 0;
    const char *text;
    json_t *value;
    for (int32_t id = 0; id < t->vocab.size; ++id) bytes += t->vocab.pieces[id].size;
    KH_TRY(kh_trie_init(&t->trie, bytes));
    for (size_t i = 0; i < json_array_size(vocab); ++i)
        kh_trie_add(&t->trie, t->vocab.pieces[i], (int32_t)i);
    json_object_foreach((json_t *)(uintptr_t)vocab, text, value)
    {
        entry e;
        KH_TRY(read_entry(text, value, &e));
        kh_trie_add(&t->trie, e.text, (int32_t)e.id);
    }
    return KH_OK;
}

static void mark_bytes(kh_tokenizer *t)
{
    for (int b = 0; t->options.byte_fallback && b < 256; ++b)
        if (t->byte_ids[b] >= 0) t->vocab.kinds[t->byte_ids[b]] = KH_TOKEN_BYTE;
}

/* The id of a piece that the model names, -1 where it names none. */
static kh_status find_unknown(kh_tokenizer *t, const json_t *model, int must)
{
    kh_slice text = {0};
    KH_TRY(kh_part_text(model, "model", "unk_token", must, &text));
    t->options.unk = text.data ? kh_vocab_find(&t->vocab, text.data, text.size) : -1;
    if (must && t->options.unk < 0)
        KH_FAIL(KH_ERR_FORMAT, "the unknown token \"%.*s\" is no piece of the model",
                text.size < 64 ? (int)text.size : 64, text.data);
    return KH_OK;
}

static kh_status store_affix(kh_tokenizer *t, const json_t *model, const char *key, kh_slice *out)
{
    kh_slice text = {"", 0};
    KH_TRY(kh_part_text(model, "model", key, 0, &text));
    if (text.size > 256)
        KH_FAIL(KH_ERR_UNSUPPORTED, "\"%s\" of the model has %zu bytes (allowed: 256)", key,
                text.size);
    return kh_store_text(&t->store, out, text.data, text.size);
}

/* ---- BPE ---- */

static kh_status merge_parts(const json_t *merge, size_t i, kh_slice parts[2])
{
    if (json_is_array(merge) && json_array_size(merge) == 2) {
        for (size_t k = 0; k < 2; ++k) {
            const json_t *part = json_array_get(merge, k);
            parts[k] = (kh_slice){json_string_value(part), json_string_length(part)};
        }
        if (parts[0].data && parts[1].data) return KH_OK;
    }
    if (json_is_string(merge)) {
        const char *text = json_string_value(merge);
        size_t size = json_string_length(merge);
        const char *blank = memchr(text, ' ', size);
        if (blank && !memchr(blank + 1, ' ', size - (size_t)(blank + 1 - text))) {
            parts[0] = (kh_slice){text, (size_t)(blank - text)};
            parts[1] = (kh_slice){blank + 1, size - parts[0].size - 1};
            return KH_OK;
        }
    }
    KH_FAIL(KH_ERR_FORMAT, "merge %zu of the model is neither \"left right\" nor [left, right]", i);
}

static kh_status no_piece(size_t i, const char *which, kh_slice text)
{
    KH_FAIL(KH_ERR_FORMAT, "%s of merge %zu, \"%.*s\", is no piece of the model", which, i,
            text.size < 64 ? (int)text.size : 64, text.data);
}

static kh_status add_merge(kh_tokenizer *t, const json_t *merge, size_t i, kh_buf *whole)
{
    kh_slice parts[2] = {{0}};
    KH_TRY(merge_parts(merge, i, parts));
    size_t prefix = t->options.prefix.size;
    int32_t left = kh_vocab_find(&t->vocab, parts[0].data, parts[0].size);
    int32_t right = kh_vocab_find(&t->vocab, parts[1].data, parts[1].size);
    if (left < 0) return no_piece(i, "the left part", parts[0]);
    if (right < 0 || parts[1].size < prefix) return no_piece(i, "the right part", parts[1]);
    kh_buf_clear(whole);
    KH_TRY(kh_buf_add(whole, parts[0].data, parts[0].size));
    KH_TRY(kh_buf_add(whole, parts[1].data + prefix, parts[1].size - prefix));
    int32_t merged = kh_vocab_find(&t->vocab, whole->data, whole->size);
    if (merged < 0) return no_piece(i, "the result", (kh_slice){whole->data, whole->size});
    kh_merges_put(&t->merges, left, right, (uint32_t)i, merged);
    return KH_OK;
}

static kh_status read_merges(kh_tokenizer *t, const json_t *merges)
{
    if (!json_is_array(merges))
        KH_FAIL(KH_ERR_FORMAT, "\"merges\" of the model is %s (expected: a list)",
                kh_json_kind(merges));
    kh_buf whole = {0};
    kh_status status = kh_merges_start(&t->merges, json_array_size(merges), t->vocab.seed);
    for (size_t i = 0; i < json_array_size(merges) && status == KH_OK; ++i)
        status = add_merge(t, json_array_get(merges, i), i, &whole);
    kh_buf_free(&whole);
    return status;
}

static kh_status read_bpe(kh_tokenizer *t, const json_t *model)
{
    kh_tokenizer_options *o = &t->options;
    KH_TRY(find_unknown(t, model, 0));
    KH_TRY(kh_part_flag(model, "model", "fuse_unk", &o->fuse_unk));
    KH_TRY(kh_part_flag(model, "model", "byte_fallback", &o->byte_fallback));
    KH_TRY(kh_part_flag(model, "model", "ignore_merges", &o->whole_words));
    KH_TRY(store_affix(t, model, "continuing_subword_prefix", &o->prefix));
    KH_TRY(store_affix(t, model, "end_of_word_suffix", &o->suffix));
    t->model = KH_TOKENIZER_CHARS;
    int letters = t->split.count && t->split.steps[t->split.count - 1].kind == KH_SPLIT_LETTERS;
    if (letters && !o->byte_fallback && !o->prefix.size && !o->suffix.size && o->unk < 0) {
        --t->split.count;
        t->model = KH_TOKENIZER_BYTES;
    }
    kh_tokenizer_find_bytes(t);
    mark_bytes(t);
    return read_merges(t, kh_json_get(model, "merges"));
}

/* ---- the models that choose ---- */

static kh_status read_unigram(kh_tokenizer *t, const json_t *model, const json_t *vocab)
{
    size_t count = json_array_size(vocab), unk = SIZE_MAX;
    double least = DBL_MAX;
    t->model = KH_TOKENIZER_UNIGRAM;
    KH_TRY(kh_part_count(model, "model", "unk_id", &unk));
    if (unk != SIZE_MAX && unk >= count)
        KH_FAIL(KH_ERR_FORMAT, "\"unk_id\" of the model is %zu, but there are %zu pieces", unk,
                count);
    t->options.unk = unk == SIZE_MAX ? -1 : (int32_t)unk;
    KH_TRY(kh_part_flag(model, "model", "byte_fallback", &t->options.byte_fallback));
    for (size_t i = 0; i < count; ++i)
        if (t->scores[i] < least) least = t->scores[i];
    t->options.unk_score = least - 10;
    kh_tokenizer_find_bytes(t);
    mark_bytes(t);
    if (t->options.unk >= 0) t->vocab.kinds[t->options.unk] = KH_TOKEN_UNKNOWN;
    return grow(t, vocab);
}

static kh_status read_wordpiece(kh_tokenizer *t, const json_t *model, const json_t *vocab)
{
    kh_slice prefix = {"##", 2};
    size_t longest = 100;
    t->model = KH_TOKENIZER_WORDPIECE;
    KH_TRY(find_unknown(t, model, 1));
    KH_TRY(kh_part_text(model, "model", "continuing_subword_prefix", 0, &prefix));
    KH_TRY(kh_part_count(model, "model", "max_input_chars_per_word", &longest));
    KH_TRY(kh_store_text(&t->store, &t->options.prefix, prefix.data, prefix.size));
    KH_TRY(grow(t, vocab));
    t->options.longest_word = longest;
    uint32_t node = 0;
    for (size_t i = 0; i < prefix.size && node != UINT32_MAX; ++i) {
        node = kh_trie_step(&t->trie, node, (unsigned char)prefix.data[i]);
        if (!node) node = UINT32_MAX;
    }
    t->options.goes_on = node;
    return KH_OK;
}

static kh_status read_words(kh_tokenizer *t, const json_t *model)
{
    t->model = KH_TOKENIZER_WORDS;
    return find_unknown(t, model, 0);
}

/* Old files do not say what their model is. */
static kh_status model_type(const json_t *model, kh_slice *type)
{
    if (!json_is_object(model))
        KH_FAIL(KH_ERR_FORMAT, "\"model\" is %s (expected: an object)", kh_json_kind(model));
    *type = (kh_slice){"", 0};
    KH_TRY(kh_part_text(model, "model", "type", 0, type));
    if (type->size) return KH_OK;
    const char *name = kh_json_get(model, "merges")                     ? "BPE"
                       : json_is_array(kh_json_get(model, "vocab"))     ? "Unigram"
                       : kh_json_get(model, "max_input_chars_per_word") ? "WordPiece"
                                                                        : "WordLevel";
    *type = (kh_slice){name, strlen(name)};
    return KH_OK;
}

kh_status kh_json_model(kh_tokenizer *t, const json_t *model, const json_t *added)
{
    kh_slice type;
    KH_TRY(model_type(model, &type));
    const json_t *vocab = kh_json_get(model, "vocab");
    int unigram = kh_slice_is(type, "Unigram");
    if (!unigram && !kh_slice_is(type, "BPE") && !kh_slice_is(type, "WordPiece") &&
        !kh_slice_is(type, "WordLevel"))
        return kh_part_unknown("model", type, "BPE, Unigram, WordPiece, WordLevel");
    if (unigram ? !json_is_array(vocab) : !json_is_object(vocab))
        KH_FAIL(KH_ERR_FORMAT, "\"vocab\" of the model is %s (expected: %s)", kh_json_kind(vocab),
                unigram ? "a list" : "an object");
    KH_TRY(read_vocabulary(t, vocab, added));
    t->options.unk = -1;
    if (unigram) return read_unigram(t, model, vocab);
    if (kh_slice_is(type, "BPE")) return read_bpe(t, model);
    return kh_slice_is(type, "WordPiece") ? read_wordpiece(t, model, vocab) : read_words(t, model);
}

/* ---- added tokens ---- */

typedef struct adder {
    kh_marker *raw, *late, *guarded; /* guarded: raw ones, and special ones that are late */
    size_t n_raw, n_late, n_guarded;
    kh_norm_scratch norm;
    kh_regex_scratch match;
} adder;

/* A normalised token is looked for, and shown, as the normalizer leaves it. */
static kh_status add_late(kh_tokenizer *t, adder *a, kh_marker marker)
{
    kh_slice text = marker.text;
    KH_TRY(kh_norm_run(&t->norm, &a->norm, &a->match, &text));
    if (text.size != marker.text.size || memcmp(text.data, marker.text.data, text.size) != 0) {
        KH_TRY(kh_store_text(&t->store, &marker.text, text.data, text.size));
        if (!t->shown)
            KH_TRY(kh_store_new(&t->store, &t->shown, (size_t)t->vocab.size, sizeof *t->shown));
        t->shown[marker.id] = marker.text;
    }
    a->late[a->n_late++] = marker;
    return KH_OK;
}

static kh_status add_token(kh_tokenizer *t, adder *a, const json_t *token)
{
    static const struct {
        const char *key;
        unsigned flag;
    } flags[] = {
        {"special", KH_MARKER_SPECIAL},
        {"single_word", KH_MARKER_WORD},
        {"lstrip", KH_MARKER_LEFT},
        {"rstrip", KH_MARKER_RIGHT},
    };
    entry e;
    KH_TRY(read_added(token, &e));
    int32_t id = kh_vocab_find(&t->vocab, e.text.data, e.text.size);
    if (id < 0) return KH_OK; /* an empty one */
    kh_marker marker = {t->vocab.pieces[id], id, 0};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; ++i) {
        int set = 0;
        KH_TRY(kh_part_flag(token, "added token", flags[i].key, &set));
        if (set) marker.flags |= flags[i].flag;
    }
    int normalized = !(marker.flags & KH_MARKER_SPECIAL);
    KH_TRY(kh_part_flag(token, "added token", "normalized", &normalized));
    t->vocab.kinds[id] = marker.flags & KH_MARKER_SPECIAL ? KH_TOKEN_CONTROL : KH_TOKEN_USER;
    if (!normalized || marker.flags & KH_MARKER_SPECIAL) a->guarded[a->n_guarded++] = marker;
    if (normalized) return add_late(t, a, marker);
    a->raw[a->n_raw++] = marker;
    return KH_OK;
}

static kh_status add_all(kh_tokenizer *t, adder *a, const json_t *added)
{
    size_t count = json_array_size(added);
    KH_TRY(kh_new(&a->raw, count, sizeof *a->raw, "added tokens"));
    KH_TRY(kh_new(&a->late, count, sizeof *a->late, "added tokens"));
    KH_TRY(kh_new(&a->guarded, count, sizeof *a->guarded, "added tokens"));
    for (size_t i = 0; i < count; ++i) KH_TRY(add_token(t, a, json_array_get(added, i)));
    KH_TRY(kh_markers_build(&t->markers, a->raw, a->n_raw));
    if (a->n_guarded > a->n_raw)
        KH_TRY(kh_markers_build(&t->guarded_markers, a->guarded, a->n_guarded));
    return kh_markers_build(&t->late_markers, a->late, a->n_late);
}

kh_status kh_json_added(kh_tokenizer *t, const json_t *added)
{
    adder a = {0};
    kh_status status = add_all(t, &a, added);
    kh_norm_scratch_free(&a.norm);
    kh_regex_scratch_free(&a.match);
    kh_free(a.raw);
    kh_free(a.late);
    kh_free(a.guarded);
    return status;
}
