/* The tokenizer of a GGUF file in the words of tokenizer.json.
 *
 *     model   normalizer                 pre_tokenizer             model           decoder
 *     gpt2    -                          Split by each pattern,    BPE             ByteLevel
 *                                        ByteLevel
 *     llama   Prepend, Replace blanks    -                         BPE, merges by  Replace, ByteFallback,
 *                                                                  score           Fuse, Strip
 *     t5      Precompiled, Replace runs  Metaspace                 Unigram         Metaspace
 *     bert    BertNormalizer             BertPreTokenizer          WordPiece       WordPiece
 *
 * A vocabulary with scores has no list of merges: SentencePiece joins the neighbours whose union has the
 * best score. As merges that is: every way to split a piece into two pieces, ordered by the score of
 * the whole, best first; equal ones by the pieces' order.
 *
 * GGUF's WordPiece marks beginnings of words with U+2581 where tokenizer.json marks the rest with "##".
 * bos and eos become a TemplateProcessing. A NULL of jansson (no memory) travels on to where the document
 * is written. */
#include "tokens/tok_export.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"
#include "base/file.h"
#include "format/gguf_part.h"
#include "format/json.h"
#include "tokens/pretok.h"
#include "tokens/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#define BLANK "\xE2\x96\x81" /* U+2581 */

typedef struct words {
    const kh_gguf *file;
    const kh_gguf_value *pieces, *kinds, *scores, *merges;
    kh_names index; /* of the pieces */
} words;

static kh_token_kind kind_of(const words *w, size_t id)
{
    uint64_t kind = KH_TOKEN_NORMAL;
    if (w->kinds && kh_gguf_element_u64(w->kinds, id, &kind) != KH_OK) kind = KH_TOKEN_NORMAL;
    return (kh_token_kind)kind;
}

static json_t *text(kh_slice piece)
{
    return json_stringn(piece.data, piece.size); /* NULL where it is not UTF-8 */
}

static int flag(const kh_gguf *file, const char *key, int other)
{
    kh_gguf_opt_bool(file, key, &other);
    return other;
}

/* The piece that `key` names by its id; size 0: none. */
static kh_slice special(const words *w, const char *key)
{
    uint64_t id = UINT64_MAX;
    kh_gguf_opt_u64(w->file, key, &id, UINT32_MAX);
    return id < w->pieces->count ? w->pieces->strings[id] : (kh_slice){"", 0};
}

/* A list that could not take an item becomes NULL, and the document with it. */
static void append(json_t **list, json_t *item)
{
    if (json_array_append_new(*list, item) == 0) return;
    json_decref(*list);
    *list = NULL;
}

/* ---- vocabularies ---- */

/* "##x" for a piece inside a word, "x" for one that begins it. */
static json_t *wordpiece(const words *w, size_t id)
{
    kh_slice piece = w->pieces->strings[id];
    kh_buf out = {0};
    if (kind_of(w, id) != KH_TOKEN_NORMAL) return text(piece);
    if (piece.size >= 3 && memcmp(piece.data, BLANK, 3) == 0)
        return json_stringn(piece.data + 3, piece.size - 3);
    json_t *value = kh_buf_format(&out, "##%.*s", (int)piece.size, piece.data) == KH_OK
                        ? json_stringn(out.data, out.size)
                        : NULL;
    kh_buf_free(&out);
    return value;
}

static json_t *vocabulary(const words *w, int is_wordpiece)
{
    json_t *all = json_object();
    for (size_t id = 0; id < w->pieces->count && all; id++) {
        json_t *name = is_wordpiece ? wordpiece(w, id) : text(w->pieces->strings[id]);
        int failed = !name ||
                     json_object_setn_new(all, json_string_value(name), json_string_length(name),
                                          json_integer((json_int_t)id));
        json_decref(name);
        if (!failed) continue;
        json_decref(all);
        all = NULL;
    }
    return all;
}

static json_t *given_merges(const words *w)
{
    json_t *all = json_array();
    for (size_t i = 0; i < w->merges->count && all; i++) append(&all, text(w->merges->strings[i]));
    return all;
}

typedef struct merge {
    uint32_t left, right;
    float score;
} merge;

static int by_score(const void *a, const void *b)
{
    const merge *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    return x->right < y->right ? -1 : x->right > y->right;
}

/* Every pair of pieces that is a piece. */
static kh_status find_merges(const words *w, merge **out, size_t *count)
{
    kh_buf found = {0};
    kh_status status = KH_OK;
    for (size_t id = 0; id < w->pieces->count && status == KH_OK; id++) {
        kh_slice piece = w->pieces->strings[id];
        double score = 0;
        if (kind_of(w, id) != KH_TOKEN_NORMAL && kind_of(w, id) != KH_TOKEN_USER) continue;
        if (w->scores) kh_gguf_element_f64(w->scores, id, &score);
        for (size_t at = 1; at < piece.size && status == KH_OK; at++) {
            size_t left = kh_names_find(&w->index, (kh_slice){piece.data, at});
            size_t right = kh_names_find(&w->index, (kh_slice){piece.data + at, piece.size - at});
            if (left == SIZE_MAX || right == SIZE_MAX) continue;
            merge one = {(uint32_t)left, (uint32_t)right, (float)score};
            status = kh_buf_add(&found, &one, sizeof one);
        }
    }
    *count = found.size / sizeof(merge);
    *out = (merge *)(void *)found.data;
    if (*count) qsort(*out, *count, sizeof **out, by_score);
    return status;
}

static json_t *made_merges(const words *w)
{
    merge *list;
    size_t n;
    json_t *all = find_merges(w, &list, &n) == KH_OK ? json_array() : NULL;
    for (size_t i = 0; i < n && all; i++) {
        json_t *pair = json_pack("[o, o]", text(w->pieces->strings[list[i].left]),
                                 text(w->pieces->strings[list[i].right]));
        append(&all, pair);
    }
    kh_free(list);
    return all;
}

static json_t *scored(const words *w)
{
    json_t *all = json_array();
    for (size_t id = 0; id < w->pieces->count && all; id++) {
        double score = 0;
        if (w->scores) kh_gguf_element_f64(w->scores, id, &score);
        json_t *pair = json_pack("[o, f]", text(w->pieces->strings[id]), score);
        append(&all, pair);
    }
    return all;
}

/* ---- stages ---- */

static json_t *added_tokens(const words *w, int is_wordpiece)
{
    json_t *all = json_array();
    for (size_t id = 0; id < w->pieces->count && all; id++) {
        kh_token_kind kind = kind_of(w, id);
        if (kind != KH_TOKEN_CONTROL && kind != KH_TOKEN_USER && kind != KH_TOKEN_UNKNOWN) continue;
        json_t *name = is_wordpiece ? wordpiece(w, id) : text(w->pieces->strings[id]);
        json_t *one = json_pack("{s:I, s:o, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)id,
                                "content", name, "single_word", 0, "lstrip", 0, "rstrip", 0,
                                "normalized", 0, "special", kind != KH_TOKEN_USER);
        append(&all, one);
    }
    return all;
}

static json_t *type_only(const char *type)
{
    return json_pack("{s:s}", "type", type);
}

static json_t *byte_level(int use_regex)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                     "trim_offsets", 1, "use_regex", use_regex);
}

static json_t *replace(const char *how, const char *from, const char *to)
{
    return json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", how, from, "content", to);
}

static json_t *splits(const words *w)
{
    kh_slice name = {"", 0};
    kh_pretok pre;
    if (kh_gguf_opt_string(w->file, "tokenizer.ggml.pre", &name) != KH_OK ||
        kh_pretok_find(&pre, name) != KH_OK)
        return NULL;
    json_t *all = json_array();
    const char *pattern;
    for (int i = 0; (pattern = kh_pretok_pattern(&pre, i)); i++)
        json_array_append_new(all,
                              json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern",
                                        "Regex", pattern, "behavior", "Isolated", "invert", 0));
    append(&all, byte_level(0));
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", all);
}

typedef struct frame {
    json_t *single, *pair, *named;
} frame;

static void add_special(frame *f, const words *w, const char *key, int type_id, int in_single)
{
    kh_slice name = special(w, key);
    uint64_t id = 0;
    if (!name.size) return;
    kh_gguf_opt_u64(w->file, key, &id, UINT32_MAX);
    json_t *one = json_pack("{s:{s:o, s:i}}", "SpecialToken", "id", text(name), "type_id", type_id);
    if (in_single) append(&f->single, json_incref(one));
    append(&f->pair, one);
    json_t *about = json_pack("{s:o, s:[I], s:[o]}", "id", text(name), "ids", (json_int_t)id,
                              "tokens", text(name));
    if (json_object_setn_new(f->named, name.data, name.size, about) == 0) return;
    json_decref(f->named);
    f->named = NULL;
}

static json_t *sequence(const char *name, int type_id)
{
    return json_pack("{s:{s:s, s:i}}", "Sequence", "id", name, "type_id", type_id);
}

/* bos (cls) in front, eos (sep) behind, as the file asks for. */
static json_t *template_of(const words *w, int bos, int eos, const char *begin, const char *end)
{
    frame f = {json_array(), json_array(), json_object()};
    if (bos) add_special(&f, w, begin, 0, 1);
    append(&f.single, sequence("A", 0));
    append(&f.pair, sequence("A", 0));
    if (eos) add_special(&f, w, end, 0, 1);
    append(&f.pair, sequence("B", 1));
    if (eos) add_special(&f, w, end, 1, 0);
    int none = f.named && json_object_size(f.named) == 0;
    json_t *made = json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single",
                             f.single, "pair", f.pair, "special_tokens", f.named);
    if (!none) return made;
    json_decref(made);
    return json_null();
}

/* "AQID", for the map of characters. */
static json_t *base64(const uint8_t *bytes, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    kh_buf out = {0};
    kh_status status = kh_buf_reserve(&out, n / 3 * 4 + 8);
    for (size_t i = 0; i < n && status == KH_OK; i += 3) {
        uint32_t word = (uint32_t)bytes[i] << 16;
        if (i + 1 < n) word |= (uint32_t)bytes[i + 1] << 8;
        if (i + 2 < n) word |= bytes[i + 2];
        char four[4] = {digits[word >> 18], digits[word >> 12 & 63],
                        i + 1 < n ? digits[word >> 6 & 63] : '=',
                        i + 2 < n ? digits[word & 63] : '='};
        status = kh_buf_add(&out, four, 4);
    }
    json_t *value = status == KH_OK ? json_stringn(out.data ? out.data : "", out.size) : NULL;
    kh_buf_free(&out);
    return value;
}

/* ---- kinds ---- */

static json_t *whole(json_t *added, json_t *normalizer, json_t *pre, json_t *post, json_t *decoder,
                     json_t *model)
{
    return json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0",
                     "truncation", "padding", "added_tokens", added, "normalizer", normalizer,
                     "pre_tokenizer", pre, "post_processor", post, "decoder", decoder, "model",
                     model);
}

static json_t *of_bytes(const words *w)
{
    kh_slice name = {"", 0};
    kh_pretok pre = {0};
    kh_gguf_opt_string(w->file, "tokenizer.ggml.pre", &name);
    if (kh_pretok_find(&pre, name) != KH_OK) return NULL;
    int bos = flag(w->file, "tokenizer.ggml.add_bos_token", pre.adds_bos);
    int eos = flag(w->file, "tokenizer.ggml.add_eos_token", 0);
    json_t *model = json_pack(
        "{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout", "unk_token",
        "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0,
        "ignore_merges", pre.whole_words, "vocab", vocabulary(w, 0), "merges", given_merges(w));
    return whole(
        added_tokens(w, 0), json_null(), splits(w),
        template_of(w, bos, eos, "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"),
        byte_level(1), model);
}

static json_t *of_scores(const words *w)
{
    int prefix = flag(w->file, "tokenizer.ggml.add_space_prefix", 1);
    int bos = flag(w->file, "tokenizer.ggml.add_bos_token", 1);
    int eos = flag(w->file, "tokenizer.ggml.add_eos_token", 0);
    json_t *steps = json_array(), *back = json_array();
    if (prefix) append(&steps, json_pack("{s:s, s:s}", "type", "Prepend", "prepend", BLANK));
    append(&steps, replace("String", " ", BLANK));
    append(&back, replace("String", BLANK, " "));
    append(&back, type_only("ByteFallback"));
    append(&back, type_only("Fuse"));
    if (prefix)
        append(&back, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ", "start", 1,
                                "stop", 0));
    kh_slice unk = special(w, "tokenizer.ggml.unknown_token_id");
    json_t *model = json_pack("{s:s, s:n, s:o, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE",
                              "dropout", "unk_token", unk.size ? text(unk) : json_null(),
                              "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 1,
                              "byte_fallback", 1, "ignore_merges", 0, "vocab", vocabulary(w, 0),
                              "merges", made_merges(w));
    return whole(
        added_tokens(w, 0), json_pack("{s:s, s:o}", "type", "Sequence", "normalizers", steps),
        json_null(),
        template_of(w, bos, eos, "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"),
        json_pack("{s:s, s:o}", "type", "Sequence", "decoders", back), model);
}

static json_t *metaspace(int prefix)
{
    return json_pack("{s:s, s:s, s:s, s:b}", "type", "Metaspace", "replacement", BLANK,
                     "prepend_scheme", prefix ? "always" : "never", "split", 0);
}

static json_t *of_unigram(const words *w)
{
    const kh_gguf_value *map = kh_gguf_find(w->file, "tokenizer.ggml.precompiled_charsmap");
    int prefix = flag(w->file, "tokenizer.ggml.add_space_prefix", 1);
    int bos = flag(w->file, "tokenizer.ggml.add_bos_token", 0);
    int eos = flag(w->file, "tokenizer.ggml.add_eos_token", 1);
    uint64_t unk = 2;
    json_t *steps = json_array();
    kh_gguf_opt_u64(w->file, "tokenizer.ggml.unknown_token_id", &unk, UINT32_MAX);
    if (map && map->count)
        json_array_append_new(steps,
                              json_pack("{s:s, s:o}", "type", "Precompiled", "precompiled_charsmap",
                                        base64(map->data, (size_t)map->count)));
    if (flag(w->file, "tokenizer.ggml.remove_extra_whitespaces", 0)) {
        append(&steps, replace("Regex", "\\A +| +\\z", ""));
        append(&steps, replace("Regex", " {2,}", " "));
    }
    json_t *model = json_pack("{s:s, s:I, s:o, s:b}", "type", "Unigram", "unk_id", (json_int_t)unk,
                              "vocab", scored(w), "byte_fallback", 0);
    return whole(
        added_tokens(w, 0), json_pack("{s:s, s:o}", "type", "Sequence", "normalizers", steps),
        metaspace(prefix),
        template_of(w, bos, eos, "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"),
        metaspace(prefix), model);
}

static json_t *of_wordpieces(const words *w)
{
    int capitals = 0;
    for (size_t id = 0; id < w->pieces->count && !capitals; id++)
        for (size_t i = 0; kind_of(w, id) == KH_TOKEN_NORMAL && i < w->pieces->strings[id].size;
             i++)
            capitals |= w->pieces->strings[id].data[0] != '[' &&
                        w->pieces->strings[id].data[i] >= 'A' &&
                        w->pieces->strings[id].data[i] <= 'Z';
    int lower = flag(w->file, "tokenizer.ggml.normalizer.lowercase", !capitals);
    int accents = flag(w->file, "tokenizer.ggml.normalizer.strip_accents", lower);
    kh_slice unk = special(w, "tokenizer.ggml.unknown_token_id");
    const char *cls = kh_gguf_find(w->file, "tokenizer.ggml.cls_token_id")
                          ? "tokenizer.ggml.cls_token_id"
                          : "tokenizer.ggml.bos_token_id";
    json_t *model = json_pack("{s:s, s:o, s:s, s:i, s:o}", "type", "WordPiece", "unk_token",
                              unk.size ? text(unk) : json_string("[UNK]"),
                              "continuing_subword_prefix", "##", "max_input_chars_per_word", 100,
                              "vocab", vocabulary(w, 1));
    return whole(added_tokens(w, 1),
                 json_pack("{s:s, s:b, s:b, s:b, s:b}", "type", "BertNormalizer", "clean_text", 1,
                           "handle_chinese_chars", 1, "strip_accents", accents, "lowercase", lower),
                 type_only("BertPreTokenizer"),
                 template_of(w, 1, 1, cls, "tokenizer.ggml.seperator_token_id"),
                 json_pack("{s:s, s:s, s:b}", "type", "WordPiece", "prefix", "##", "cleanup", 1),
                 model);
}

/* ---- files ---- */

static json_t *configuration(const words *w)
{
    static const char *const roles[][2] = {{"bos_token", "tokenizer.ggml.bos_token_id"},
                                           {"eos_token", "tokenizer.ggml.eos_token_id"},
                                           {"unk_token", "tokenizer.ggml.unknown_token_id"},
                                           {"pad_token", "tokenizer.ggml.padding_token_id"},
                                           {"mask_token", "tokenizer.ggml.mask_token_id"},
                                           {"cls_token", "tokenizer.ggml.cls_token_id"},
                                           {"sep_token", "tokenizer.ggml.seperator_token_id"}};
    json_t *all = json_pack("{s:s, s:b}", "tokenizer_class", "PreTrainedTokenizerFast",
                            "clean_up_tokenization_spaces", 0);
    kh_slice chat = {"", 0};
    for (size_t i = 0; i < sizeof roles / sizeof *roles && all; i++) {
        kh_slice piece = special(w, roles[i][1]);
        if (piece.size) json_object_set_new(all, roles[i][0], text(piece));
    }
    kh_gguf_opt_string(w->file, "tokenizer.chat_template", &chat);
    if (chat.size) json_object_set_new(all, "chat_template", text(chat));
    return all;
}

static int put(const char *bytes, size_t n, void *context)
{
    return kh_outfile_write(context, bytes, n) == KH_OK ? 0 : -1;
}

static kh_status save(json_t *document, const char *folder, const char *name)
{
    kh_buf path = {0};
    kh_outfile *out = NULL;
    kh_status status = kh_buf_format(&path, "%s/%s", folder, name);
    if (status == KH_OK && !document)
        status = kh_fail(KH_ERR_MEMORY, "%s: no memory, or a piece that is no text", path.data);
    if (status == KH_OK) status = kh_outfile_open(&out, path.data);
    if (status == KH_OK &&
        json_dump_callback(document, put, out, JSON_INDENT(1) | JSON_PRESERVE_ORDER) != 0)
        status = kh_fail(KH_ERR_IO, "%s: cannot be written", path.data);
    if (status == KH_OK)
        status = kh_outfile_commit(out);
    else
        kh_outfile_abandon(out);
    kh_buf_free(&path);
    json_decref(document);
    return status;
}

static kh_status open_words(words *w, kh_slice *model)
{
    *model = (kh_slice){"", 0};
    KH_TRY(kh_gguf_opt_string(w->file, "tokenizer.ggml.model", model));
    w->pieces = kh_gguf_find(w->file, "tokenizer.ggml.tokens");
    w->kinds = kh_gguf_find(w->file, "tokenizer.ggml.token_type");
    w->scores = kh_gguf_find(w->file, "tokenizer.ggml.scores");
    w->merges = kh_gguf_find(w->file, "tokenizer.ggml.merges");
    if (!w->pieces || w->pieces->element != KH_GGUF_STRING || w->pieces->count > INT32_MAX ||
        (w->kinds && w->kinds->count < w->pieces->count) ||
        (w->scores && w->scores->count < w->pieces->count))
        KH_FAIL(KH_ERR_FORMAT,
                "%s: tokenizer.ggml.tokens, with a kind and a score for each, is expected",
                kh_gguf_path(w->file));
    KH_TRY(kh_names_init(&w->index, (size_t)w->pieces->count, "a vocabulary"));
    for (size_t i = 0; i < w->pieces->count; i++) kh_names_add(&w->index, w->pieces->strings[i]);
    return KH_OK;
}

kh_status kh_tokenizer_export(const kh_gguf *file, const char *folder)
{
    static const struct {
        const char *model;
        json_t *(*make)(const words *w);
    } known[] = {
        {"gpt2", of_bytes}, {"llama", of_scores}, {"t5", of_unigram}, {"bert", of_wordpieces}};
    words w = {.file = file};
    kh_slice model;
    if (!kh_gguf_find(file, "tokenizer.ggml.model")) return KH_OK;
    kh_status status = open_words(&w, &model);
    size_t k = 0, n = sizeof known / sizeof *known;
    while (k < n && !(strlen(known[k].model) == model.size &&
                      memcmp(known[k].model, model.data, model.size) == 0))
        k++;
    if (status == KH_OK &&
        (k == n || (k == 0 && (!w.merges || w.merges->element != KH_GGUF_STRING))))
        status = kh_fail(KH_ERR_UNSUPPORTED,
                         "%s: the tokenizer \"%s\" is not written as tokenizer.json",
                         kh_gguf_path(file), kh_gguf_show(model).text);
    if (status == KH_OK) status = save(known[k].make(&w), folder, "tokenizer.json");
    if (status == KH_OK) status = save(configuration(&w), folder, "tokenizer_config.json");
    kh_names_free(&w.index);
    return status;
}
