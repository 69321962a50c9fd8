/* The tokenizers of GGUF files, as stages.
 *
 *     model   normalizer                       splitter             model       decoder
 *     gpt2    -                                patterns of `pre`    BYTES       letters
 *     llama   blanks become U+2581             -                    SCORES      U+2581, bytes, 1st blank
 *     t5      character map, blanks            -                    UNIGRAM     the same
 *     bert    clean, ideographs, accents,      white space,         WORDPIECE   U+2581, tidy
 *             small letters                    punctuation
 *
 * Files written before tokenizer.ggml.pre existed have none: they get "default", as in llama.cpp.
 * "bert" says nothing about case: whether it folds is read from the vocabulary, where a cased
 * model has pieces with capital letters (tokenizer.ggml.normalizer.lowercase, where a file has it,
 * decides). */
#include "base/alloc.h"
#include "base/fail.h"
#include "tokens/tok_impl.h"
#include "tokens/tok_unicode.h"

#include <float.h>
#include <string.h>

#define KIND(kind) (1u << (kind))

static kh_status open_bytes(kh_tokenizer *t, const kh_gguf *file)
{
    kh_slice pre = {0};
    KH_TRY(kh_gguf_opt_string(file, "tokenizer.ggml.pre", &pre));
    KH_TRY(kh_pretok_find(&t->pre, pre));
    KH_TRY(kh_pretok_add(&t->split, &t->pre));
    t->options.whole_words = t->pre.whole_words;
    return kh_decode_add(&t->decoder, KH_DECODE_LETTERS, NULL);
}

/* U+2581 in pieces and blanks in text. */
static kh_status add_blanks(kh_tokenizer *t, const kh_gguf *file, int merge)
{
    int prefix = 1;
    KH_TRY(kh_gguf_opt_bool(file, "tokenizer.ggml.add_space_prefix", &prefix));
    unsigned flags = (prefix ? KH_NORM_LEFT : 0u) | (merge ? KH_NORM_MERGE : 0u);
    KH_TRY(kh_norm_add(&t->norm, KH_NORM_BLANKS, flags, NULL));
    KH_TRY(kh_decode_add(&t->decoder, KH_DECODE_BYTES, NULL));
    kh_decode_step *step;
    KH_TRY(kh_decode_add(&t->decoder, KH_DECODE_REPLACE, &step));
    step->from = (kh_slice){KH_TOKENIZER_BLANK, 3};
    step->to = (kh_slice){" ", 1};
    if (!prefix) return KH_OK;
    KH_TRY(kh_decode_add(&t->decoder, KH_DECODE_STRIP_TEXT, &step));
    step->from = (kh_slice){" ", 1};
    step->start = 1;
    return KH_OK;
}

static kh_status open_unigram(kh_tokenizer *t, const kh_gguf *file)
{
    int merge = 0;
    KH_TRY(kh_gguf_opt_bool(file, "tokenizer.ggml.remove_extra_whitespaces", &merge));
    const kh_gguf_value *map = kh_gguf_find(file, "tokenizer.ggml.precompiled_charsmap");
    if (map &&
        (map->kind != KH_GGUF_ARRAY || (map->element != KH_GGUF_U8 && map->element != KH_GGUF_I8)))
        KH_FAIL(KH_ERR_FORMAT, "tokenizer.ggml.precompiled_charsmap is not an array of bytes");
    if (map && map->count) {
        kh_norm_step *step;
        KH_TRY(kh_norm_add(&t->norm, KH_NORM_CHARSMAP, KH_NORM_LONGEST, &step));
        KH_TRY(kh_charsmap_init(&step->map, map->data, map->count));
    }
    return add_blanks(t, file, merge);
}

static int has_capital(const kh_vocab *vocab)
{
    for (int32_t id = 0; id < vocab->size; ++id) {
        kh_slice piece = vocab->pieces[id];
        if (vocab->kinds[id] != KH_TOKEN_NORMAL || (piece.size && piece.data[0] == '[')) continue;
        for (size_t i = 0; i < piece.size; ++i)
            if (piece.data[i] >= 'A' && piece.data[i] <= 'Z') return 1;
    }
    return 0;
}

static kh_status open_wordpiece(kh_tokenizer *t, const kh_gguf *file)
{
    int lower = !has_capital(&t->vocab), accents;
    KH_TRY(kh_gguf_opt_bool(file, "tokenizer.ggml.normalizer.lowercase", &lower));
    accents = lower;
    KH_TRY(kh_gguf_opt_bool(file, "tokenizer.ggml.normalizer.strip_accents", &accents));
    KH_TRY(kh_norm_add(&t->norm, KH_NORM_CLEAN, 0, NULL));
    KH_TRY(kh_norm_add(&t->norm, KH_NORM_IDEOGRAPH, 0, NULL));
    if (accents) {
        KH_TRY(kh_norm_add(&t->norm, KH_NORM_FORM, KH_NFD, NULL));
        KH_TRY(kh_norm_add(&t->norm, KH_NORM_NONSPACED, 0, NULL));
    }
    if (lower) KH_TRY(kh_norm_add(&t->norm, KH_NORM_LOWER, 0, NULL));
    KH_TRY(kh_split_add(&t->split, KH_SPLIT_WHITE, KH_SPLIT_REMOVED, NULL));
    KH_TRY(kh_split_add(&t->split, KH_SPLIT_PUNCTUATION, KH_SPLIT_ISOLATED, NULL));
    kh_decode_step *step;
    KH_TRY(kh_decode_add(&t->decoder, KH_DECODE_REPLACE, &step));
    step->from = (kh_slice){KH_TOKENIZER_BLANK, 3};
    step->to = (kh_slice){" ", 1};
    KH_TRY(kh_decode_add(&t->decoder, KH_DECODE_TIDY, NULL));
    KH_TRY(kh_decode_add(&t->decoder, KH_DECODE_STRIP_TEXT, &step));
    step->from = (kh_slice){" ", 1};
    step->start = 1;
    t->options.longest_word = 100;
    return KH_OK;
}

static kh_status open_model(kh_tokenizer *t, const kh_gguf *file)
{
    static const struct {
        const char *name;
        kh_tokenizer_model_kind kind;
    } known[] = {
        {"gpt2", KH_TOKENIZER_BYTES},
        {"llama", KH_TOKENIZER_SCORES},
        {"t5", KH_TOKENIZER_UNIGRAM},
        {"bert", KH_TOKENIZER_WORDPIECE},
    };
    kh_slice model = {0};
    KH_TRY(kh_gguf_opt_string(file, "tokenizer.ggml.model", &model));
    if (!model.size) KH_FAIL(KH_ERR_FORMAT, "tokenizer.ggml.model is missing");
    for (size_t i = 0; i < sizeof known / sizeof known[0]; ++i) {
        if (strlen(known[i].name) != model.size || memcmp(known[i].name, model.data, model.size))
            continue;
        t->model = known[i].kind;
        return KH_OK;
    }
    int shown = model.size < 64 ? (int)model.size : 64;
    KH_FAIL(KH_ERR_UNSUPPORTED,
            "tokenizer model \"%.*s\" is not known (known: gpt2, llama, t5, bert)", shown,
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

/* An unknown token is what the file calls so, or the piece of that kind. */
static kh_status find_unknown(kh_tokenizer *t)
{
    for (int32_t id = 0; id < t->vocab.size && t->special.unk < 0; ++id)
        if (t->vocab.kinds[id] == KH_TOKEN_UNKNOWN) t->special.unk = id;
    if (t->special.unk < 0) t->special.unk = kh_vocab_find(&t->vocab, "[UNK]", 5);
    t->options.unk = t->special.unk;
    if (t->special.unk < 0)
        KH_FAIL(KH_ERR_FORMAT, "tokenizer \"%s\" has no unknown token", kh_tokenizer_model(t));
    return KH_OK;
}

/* User-defined pieces win over every other choice: their score is 0, as in llama.cpp. */
static kh_status read_unigram(kh_tokenizer *t)
{
    const kh_vocab *vocab = &t->vocab;
    double least = DBL_MAX;
    KH_TRY(find_unknown(t));
    KH_TRY(kh_new(&t->scores, (size_t)vocab->size, sizeof *t->scores, "token scores"));
    for (int32_t id = 0; id < vocab->size; ++id) {
        t->scores[id] = vocab->kinds[id] == KH_TOKEN_USER ? 0 : (double)vocab->scores[id];
        if (vocab->kinds[id] == KH_TOKEN_NORMAL && t->scores[id] < least) least = t->scores[id];
    }
    t->options.unk_score = least - 10;
    int missing = 0;
    for (int b = 0; b < 256; ++b) missing += t->byte_ids[b] < 0;
    t->options.byte_fallback = missing == 0;
    return kh_tokenizer_grow_trie(t, KIND(KH_TOKEN_NORMAL) | KIND(KH_TOKEN_USER) |
                                         KIND(KH_TOKEN_UNUSED));
}

/* Words begin with U+2581; everything else goes on. */
static kh_status read_wordpiece(kh_tokenizer *t)
{
    KH_TRY(find_unknown(t));
    KH_TRY(kh_tokenizer_grow_trie(t, KIND(KH_TOKEN_NORMAL) | KIND(KH_TOKEN_USER)));
    uint32_t node = 0;
    for (int i = 0; i < 3; ++i) {
        node = kh_trie_step(&t->trie, node, (unsigned char)KH_TOKENIZER_BLANK[i]);
        if (!node) KH_FAIL(KH_ERR_FORMAT, "no piece of tokenizer \"bert\" begins with U+2581");
    }
    t->options.starts = node;
    return KH_OK;
}

static kh_status read_chats(kh_tokenizer *t, const kh_gguf *file)
{
    static const char key[] = "tokenizer.chat_template";
    const size_t n = sizeof key - 1;
    for (size_t i = 0; i < kh_gguf_value_count(file) && t->n_chats < KH_MOST_TEMPLATES; ++i) {
        const kh_gguf_value *v = kh_gguf_value_at(file, i);
        if (v->kind != KH_GGUF_STRING || v->key.size < n || memcmp(v->key.data, key, n)) continue;
        kh_slice name = {"default", 7};
        if (v->key.size > n + 1 && v->key.data[n] == '.')
            name = (kh_slice){v->key.data + n + 1, v->key.size - n - 1};
        else if (v->key.size != n)
            continue;
        t->chats[t->n_chats++] = (kh_chat_text){name, v->strings[0]};
    }
    return KH_OK;
}

static void find_edges(kh_tokenizer *t)
{
    const kh_special_ids *s = &t->special;
    int32_t before = s->add_bos ? s->bos : -1, after = s->add_eos ? s->eos : -1;
    if (t->model == KH_TOKENIZER_WORDPIECE) {
        before = s->cls >= 0 ? s->cls : s->bos;
        after = s->sep;
    }
    kh_post_edges(&t->post, before, after, t->model == KH_TOKENIZER_WORDPIECE);
}

kh_status kh_tokenizer_open_parts(kh_tokenizer *t, const kh_gguf *file)
{
    KH_TRY(open_model(t, file));
    int scored = t->model == KH_TOKENIZER_SCORES || t->model == KH_TOKENIZER_UNIGRAM;
    t->decoder.plain_markers = 1;
    t->options.unk = -1;
    t->reads_blanks = scored;
    if (t->model == KH_TOKENIZER_BYTES) KH_TRY(open_bytes(t, file));
    KH_TRY(kh_vocab_init(&t->vocab, file, scored));
    KH_TRY(kh_markers_init(&t->markers, &t->vocab));
    if (t->model == KH_TOKENIZER_BYTES) KH_TRY(kh_merges_init(&t->merges, file, &t->vocab));
    if (t->model == KH_TOKENIZER_SCORES) KH_TRY(add_blanks(t, file, 0));
    if (t->model == KH_TOKENIZER_UNIGRAM) KH_TRY(open_unigram(t, file));
    if (t->model == KH_TOKENIZER_WORDPIECE) KH_TRY(open_wordpiece(t, file));
    kh_tokenizer_find_bytes(t);
    KH_TRY(kh_tokenizer_find_special(t, file));
    KH_TRY(check_bytes(t));
    if (t->model == KH_TOKENIZER_UNIGRAM) KH_TRY(read_unigram(t));
    if (t->model == KH_TOKENIZER_WORDPIECE) KH_TRY(read_wordpiece(t));
    find_edges(t);
    return read_chats(t, file);
}
