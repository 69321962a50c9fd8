/* A tokenizer made from text, byte-level BPE or bytes alone.
 *
 *     text --UTF-8 made whole--> words of the pre-tokenizer --counted--> merges --> tokenizer.ggml.*
 *
 * A text is cut by the splitter that tokenising will use, so nothing is learned that cannot occur; it
 * is cut as a whole, line ends and all, since that is how it will be read (what is trained elsewhere from
 * files is often fed line by line and never sees two line ends in a row). Merges stay inside words.
 *
 *     ids of "bpe"     special tokens | 256 letters by code point | merges by rank
 *     ids of "bytes"   256 bytes by value | special tokens
 *
 * The first is the order of `tokenizers`; the second makes the id of a byte the byte.
 *
 * The result is GGUF's description of a tokenizer and nothing else: a composed model takes it as it is, and
 * the file's own export (tok_export.c) makes tokenizer.json of it. Neither bos nor eos is put around
 * texts: whether documents begin or end with one is decided where they are packed. */
#include "tokens/tok_train.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "format/utf8.h"
#include "tokens/tok_impl.h"
#include "tokens/tok_train_impl.h"

#include <string.h>
#include <time.h>

enum { USUAL_SIZE = 8192, MOST_TOKENS = 1 << 24, MOST_SPECIAL = 4096, REPORT = 1 << 15 };

static const struct {
    const char *name, *key;
} roles[] = {
    {"bos", "tokenizer.ggml.bos_token_id"},       {"eos", "tokenizer.ggml.eos_token_id"},
    {"unk", "tokenizer.ggml.unknown_token_id"},   {"pad", "tokenizer.ggml.padding_token_id"},
    {"sep", "tokenizer.ggml.seperator_token_id"}, {"cls", "tokenizer.ggml.cls_token_id"},
    {"mask", "tokenizer.ggml.mask_token_id"}};
enum { ROLES = sizeof roles / sizeof roles[0] };

struct kh_tok_train {
    kh_tokenizer_train_options options;
    kh_pretok pre;
    kh_split split;
    kh_split_scratch scratch;
    kh_regex_scratch match;
    kh_word_counts words;
    kh_names special; /* texts of the caller's, copied into the store */
    kh_store store;
    uint32_t ids[ROLES]; /* numbers of special tokens; UINT32_MAX: none */
    int bytes_only;
    uint64_t documents, ill_formed, read, bytes, expected;
    struct timespec began;
};

/* ---- special tokens ---- */

static size_t role_of(const char *name, size_t size)
{
    size_t i = 0;
    while (i < ROLES && !(strlen(roles[i].name) == size && !memcmp(roles[i].name, name, size))) i++;
    return i;
}

/* The roles that stand in front of '=', as bits; 0 where these are no roles, and all is the text. */
static unsigned read_roles(const char *all, const char **text)
{
    const char *end = strchr(all, '=');
    unsigned found = 0;
    *text = all;
    for (const char *at = all; end && at < end;) {
        size_t n = strcspn(at, ",="), role = role_of(at, n);
        if (role == ROLES) return 0;
        found |= 1u << role;
        at += n + 1;
    }
    if (found) *text = end + 1;
    return found;
}

static int is_letter(kh_slice text)
{
    kh_utf8_step step = kh_utf8_next(text.data, text.size);
    return step.size == text.size && kh_letter_byte(step.code) >= 0;
}

static kh_status add_special(kh_tok_train *t, const char *all)
{
    const char *text;
    unsigned found = read_roles(all, &text);
    kh_slice piece = {text, strlen(text)};
    if (!piece.size || kh_utf8_valid(text, piece.size) != piece.size)
        KH_FAIL(KH_ERR_ARGUMENT, "the special token '%s' has no text, or one that is not UTF-8",
                all);
    if (is_letter(piece))
        KH_FAIL(KH_ERR_ARGUMENT, "the special token '%s' is what a byte is written as", text);
    if (t->special.count >= MOST_SPECIAL)
        KH_FAIL(KH_ERR_ARGUMENT, "there are more than %d special tokens", MOST_SPECIAL);
    size_t id = kh_names_find(&t->special, piece);
    if (id == SIZE_MAX) {
        KH_TRY(kh_names_grow(&t->special, "special tokens"));
        KH_TRY(kh_store_text(&t->store, &piece, piece.data, piece.size));
        id = t->special.count;
        kh_names_add(&t->special, piece);
    }
    for (size_t i = 0; i < ROLES; ++i) {
        if (!(found >> i & 1)) continue;
        if (t->ids[i] != UINT32_MAX && t->ids[i] != id)
            KH_FAIL(KH_ERR_ARGUMENT, "two special tokens are %s: '%s' is the second", roles[i].name,
                    text);
        t->ids[i] = (uint32_t)id;
    }
    return KH_OK;
}

static kh_status add_specials(kh_tok_train *t)
{
    const kh_tokenizer_train_options *o = &t->options;
    memset(t->ids, 0xFF, sizeof t->ids);
    if (o->no_special && o->special_count)
        KH_FAIL(KH_ERR_ARGUMENT, "special tokens are named and refused at once");
    if (o->no_special) return KH_OK;
    if (!o->special_count) return add_special(t, "bos,eos=<|endoftext|>");
    for (size_t i = 0; i < o->special_count; ++i) KH_TRY(add_special(t, o->special[i]));
    return KH_OK;
}

/* ---- texts ---- */

static kh_status prepare(kh_tok_train *t)
{
    kh_tokenizer_train_options *o = &t->options;
    const char *kind = o->kind ? o->kind : "bpe", *pre = o->pretoken ? o->pretoken : "gpt-2";
    t->bytes_only = strcmp(kind, "bytes") == 0;
    if (!t->bytes_only && strcmp(kind, "bpe") != 0)
        KH_FAIL(KH_ERR_ARGUMENT, "a tokenizer of the kind '%s' is not known (known: bpe, bytes)",
                kind);
    if (t->bytes_only && (o->vocabulary || o->least || o->pretoken))
        KH_FAIL(KH_ERR_ARGUMENT, "a tokenizer of bytes learns nothing: its size, the frequency of "
                                 "pairs and the pre-tokenizer are not for it");
    KH_TRY(add_specials(t));
    size_t least = 256 + t->special.count;
    if (t->bytes_only) o->vocabulary = least;
    if (!o->vocabulary) o->vocabulary = USUAL_SIZE;
    if (o->vocabulary < least || o->vocabulary > MOST_TOKENS)
        KH_FAIL(KH_ERR_ARGUMENT,
                "a vocabulary of %zu tokens: 256 bytes and %zu special tokens need %zu, and %d are "
                "the most",
                o->vocabulary, t->special.count, least, MOST_TOKENS);
    KH_TRY(kh_pretok_find(&t->pre, (kh_slice){pre, strlen(pre)}));
    return kh_pretok_add(&t->split, &t->pre);
}

kh_status kh_tok_train_open(kh_tok_train **out, const kh_tokenizer_train_options *options,
                            uint64_t expected)
{
    kh_tok_train *t;
    *out = NULL;
    KH_TRY(kh_new(&t, 1, sizeof *t, "a tokenizer to be"));
    if (options) t->options = *options;
    t->expected = expected;
    clock_gettime(CLOCK_MONOTONIC, &t->began);
    kh_status status = prepare(t);
    if (status == KH_OK)
        *out = t;
    else
        kh_tok_train_close(t);
    return status;
}

void kh_tok_train_close(kh_tok_train *t)
{
    if (!t) return;
    kh_split_free(&t->split);
    kh_split_scratch_free(&t->scratch);
    kh_regex_scratch_free(&t->match);
    kh_words_free(&t->words);
    kh_names_free(&t->special);
    kh_store_free(&t->store);
    kh_free(t);
}

int kh_tok_train_reads(const kh_tok_train *train)
{
    return !train->bytes_only;
}

static kh_status report(kh_tok_train *t)
{
    const kh_tokenizer_train_options *o = &t->options;
    if (o->progress && o->progress(o->progress_context, "reading", t->read, t->expected))
        KH_FAIL(KH_ERR_STOPPED, "stopped after %llu bytes of text", (unsigned long long)t->read);
    return KH_OK;
}

static kh_status count_word(void *context, const char *word, size_t size)
{
    kh_tok_train *t = context;
    t->read += size;
    if (t->words.total % REPORT == 0) KH_TRY(report(t));
    return kh_words_add(&t->words, word, size);
}

kh_status kh_tok_train_add(kh_tok_train *t, const char *text, size_t size)
{
    kh_buf clean = {0};
    kh_slice all = {text, size};
    if (t->bytes_only) KH_FAIL(KH_ERR_ARGUMENT, "a tokenizer of bytes learns from no text");
    ++t->documents;
    t->bytes += size;
    if (!size) return KH_OK;
    if (kh_utf8_valid(text, size) < size) {
        ++t->ill_formed;
        kh_status status = kh_utf8_clean(&clean, text, size);
        if (status != KH_OK) {
            kh_buf_free(&clean);
            return status;
        }
        all = (kh_slice){clean.data, clean.size};
    }
    kh_status status = kh_split_run(&t->split, &t->scratch, &t->match, all, 1, count_word, t);
    kh_buf_free(&clean);
    t->read = t->bytes;
    return status;
}

/* ---- the vocabulary ---- */

static kh_status add_letter(kh_pieces *pieces, unsigned byte, uint32_t *id)
{
    char letter[4];
    size_t n = kh_utf8_put(letter, kh_byte_letter(byte));
    return kh_pieces_add(pieces, (kh_slice){letter, n}, id);
}

/* By code point: the printable bytes are their own letters, the others follow from U+0100. */
static kh_status add_letters(kh_pieces *pieces, uint32_t ids[256])
{
    for (uint32_t code = 0; code <= 0x143; ++code) {
        int byte = kh_letter_byte(code);
        if (byte >= 0) KH_TRY(add_letter(pieces, (unsigned)byte, &ids[byte]));
    }
    return KH_OK;
}

static kh_status add_bytes(kh_pieces *pieces, uint32_t ids[256])
{
    for (unsigned byte = 0; byte < 256; ++byte) KH_TRY(add_letter(pieces, byte, &ids[byte]));
    return KH_OK;
}

static kh_status begin(kh_tok_train *t, kh_pieces *pieces, uint32_t ids[256])
{
    uint32_t id;
    KH_TRY(kh_names_init(&pieces->index, t->options.vocabulary, "a vocabulary"));
    if (t->bytes_only) KH_TRY(add_bytes(pieces, ids));
    for (size_t i = 0; i < t->special.count; ++i)
        KH_TRY(kh_pieces_add(pieces, t->special.names[i], &id));
    return t->bytes_only ? KH_OK : add_letters(pieces, ids);
}

static kh_status set_pieces(const kh_tok_train *t, const kh_pieces *pieces, kh_gguf *out)
{
    size_t V = pieces->index.count, first = t->bytes_only ? 256 : 0;
    int32_t *kinds;
    KH_TRY(kh_gguf_set_strings(out, "tokenizer.ggml.tokens", pieces->index.names, V));
    KH_TRY(kh_new(&kinds, V, sizeof *kinds, "a vocabulary"));
    for (size_t i = 0; i < V; ++i)
        kinds[i] = i - first < t->special.count ? KH_TOKEN_CONTROL : KH_TOKEN_NORMAL;
    kh_status status = kh_gguf_set_array(out, "tokenizer.ggml.token_type", KH_GGUF_I32, kinds, V);
    kh_free(kinds);
    return status;
}

/* "left right", by rank. */
static kh_status set_merges(const kh_pieces *pieces, const kh_learned *learned, kh_gguf *out)
{
    kh_store store = {0};
    kh_buf text = {0};
    kh_slice *list;
    kh_status status = kh_store_new(&store, &list, learned->count, sizeof *list);
    for (size_t i = 0; i < learned->count && status == KH_OK; ++i) {
        kh_learned_merge m = learned->merges[i];
        kh_slice left = pieces->index.names[m.left], right = pieces->index.names[m.right];
        kh_buf_clear(&text);
        status = kh_buf_add(&text, left.data, left.size);
        if (status == KH_OK) status = kh_buf_add(&text, " ", 1);
        if (status == KH_OK) status = kh_buf_add(&text, right.data, right.size);
        if (status == KH_OK) status = kh_store_text(&store, &list[i], text.data, text.size);
    }
    if (status == KH_OK)
        status = kh_gguf_set_strings(out, "tokenizer.ggml.merges", list, learned->count);
    kh_buf_free(&text);
    kh_store_free(&store);
    return status;
}

static kh_status describe(const kh_tok_train *t, const kh_pieces *pieces, const kh_learned *learned,
                          kh_gguf *out)
{
    KH_TRY(kh_gguf_set_string(out, "tokenizer.ggml.model", (kh_slice){"gpt2", 4}));
    KH_TRY(kh_gguf_set_string(out, "tokenizer.ggml.pre",
                              (kh_slice){t->pre.name, strlen(t->pre.name)}));
    KH_TRY(set_pieces(t, pieces, out));
    KH_TRY(set_merges(pieces, learned, out));
    for (size_t i = 0; i < ROLES; ++i)
        if (t->ids[i] != UINT32_MAX)
            KH_TRY(kh_gguf_set_u64(out, roles[i].key, KH_GGUF_U32,
                                   t->ids[i] + (t->bytes_only ? 256u : 0u)));
    KH_TRY(kh_gguf_set_u64(out, "tokenizer.ggml.add_bos_token", KH_GGUF_BOOL, 0));
    return kh_gguf_set_u64(out, "tokenizer.ggml.add_eos_token", KH_GGUF_BOOL, 0);
}

static double seconds_since(const struct timespec *began)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - began->tv_sec) + 1e-9 * (double)(now.tv_nsec - began->tv_nsec);
}

kh_status kh_tok_train_finish(kh_tok_train *t, kh_gguf *out, kh_tokenizer_train_result *result)
{
    kh_pieces pieces = {.index = {.count = 0}};
    kh_learned learned = {.count = 0};
    uint32_t ids[256];
    if (!t->bytes_only && !t->words.count)
        KH_FAIL(KH_ERR_ARGUMENT, "there is no text to learn from: %llu texts, all of them empty",
                (unsigned long long)t->documents);
    kh_status status = begin(t, &pieces, ids);
    if (status == KH_OK && !t->bytes_only)
        status = kh_merges_learn(&learned, &pieces, &t->words, ids, t->options.vocabulary,
                                 &t->options);
    if (status == KH_OK) status = describe(t, &pieces, &learned, out);
    if (status == KH_OK && result)
        *result = (kh_tokenizer_train_result){.vocabulary = pieces.index.count,
                                              .special = t->special.count,
                                              .merges = learned.count,
                                              .asked = t->options.vocabulary,
                                              .documents = t->documents,
                                              .ill_formed = t->ill_formed,
                                              .bytes = t->bytes,
                                              .words = t->words.total,
                                              .distinct = t->words.count,
                                              .tokens = learned.tokens,
                                              .seconds = seconds_since(&t->began)};
    kh_free(learned.merges);
    kh_pieces_free(&pieces);
    return status;
}
