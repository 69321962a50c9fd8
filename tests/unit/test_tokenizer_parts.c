/* tokenizer.json files that are wrong, odd or made to hurt: each wrong part is named in a sentence, memory may run out
 * anywhere, and one thing over and over takes no longer than text does. */
#include "base/alloc.h"
#include "base/file.h"
#include "tokens/tokenizer.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define WORDS    "{\"type\":\"WordLevel\",\"unk_token\":\"u\",\"vocab\":{\"u\":0,\"a\":1}}"
#define BPE(...) "{\"type\":\"BPE\",\"vocab\":{\"u\":0,\"a\":1,\"b\":2,\"ab\":3}," __VA_ARGS__ "}"

/* A document from its parts; NULL: null. */
static const char *document(const char *model, const char *part, const char *value)
{
    static char text[4096];
    snprintf(text, sizeof text, "{\"version\":\"1.0\",\"%s\":%s,\"model\":%s}", part, value, model);
    return text;
}

static kh_status open_text(kh_tokenizer **t, const char *json)
{
    return kh_tokenizer_open_json(t, json, strlen(json), "x.json");
}

static const struct {
    const char *model, *part, *value;
    kh_status status;
    const char *says;
} refused[] = {
    {WORDS, "normalizer", "{\"type\":\"Cipher\"}", KH_ERR_UNSUPPORTED,
     "x.json: the normalizer \"Cipher\" is not supported (supported: Sequence, NFC"},
    {WORDS, "normalizer", "7", KH_ERR_FORMAT, "the normalizer is an integer"},
    {WORDS, "normalizer", "{\"type\":\"Prepend\"}", KH_ERR_FORMAT, "\"prepend\""},
    {WORDS, "normalizer", "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"=~\"}",
     KH_ERR_FORMAT, "is not base64"},
    {WORDS, "normalizer", "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"/////w==\"}",
     KH_ERR_FORMAT, "the character map's tree has 4294967295 bytes of 0"},
    {WORDS, "normalizer",
     "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"[a[^b]]\"},\"content\":\"\"}",
     KH_ERR_UNSUPPORTED, "a negated class inside a class"},
    {WORDS, "normalizer",
     "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"[^a&&[b]]\"},\"content\":\"\"}",
     KH_ERR_UNSUPPORTED, "an intersection of classes other than"},
    {WORDS, "normalizer", "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(a\"},\"content\":\"\"}",
     KH_ERR_UNSUPPORTED, "PCRE2 refuses the pattern of the normalizer Replace"},
    {WORDS, "normalizer", "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"\"}",
     KH_ERR_UNSUPPORTED, "is empty"},
    {WORDS, "pre_tokenizer", "{\"type\":\"UnicodeScripts\"}", KH_ERR_UNSUPPORTED,
     "the pre-tokenizer \"UnicodeScripts\""},
    {WORDS, "pre_tokenizer", "{\"type\":\"Metaspace\",\"replacement\":\"ab\"}", KH_ERR_FORMAT,
     "one character"},
    {WORDS, "pre_tokenizer", "{\"type\":\"Punctuation\",\"behavior\":\"Eaten\"}",
     KH_ERR_UNSUPPORTED, "the behavior \"Eaten\""},
    {WORDS, "pre_tokenizer", "{\"type\":\"FixedLength\",\"length\":0}", KH_ERR_FORMAT,
     "\"length\""},
    {WORDS, "post_processor", "{\"type\":\"Chorus\"}", KH_ERR_UNSUPPORTED,
     "the post-processor \"Chorus\""},
    {WORDS, "post_processor", "{\"type\":\"BertProcessing\",\"sep\":[\"s\",2],\"cls\":[\"c\",1]}",
     KH_ERR_FORMAT, "(expected: 0 to 1)"},
    {WORDS, "post_processor",
     "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"q\",\"type_id\":"
     "0}}]}",
     KH_ERR_FORMAT, "does not say what \"q\" is"},
    {WORDS, "decoder", "{\"type\":\"CTC\"}", KH_ERR_UNSUPPORTED, "the decoder \"CTC\""},
    {WORDS, "decoder",
     "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":"
     "\" "
     "\",\"start\":0,\"stop\":1}]}",
     KH_ERR_UNSUPPORTED, "Strip at the end of a text"},
    {WORDS, "decoder",
     "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"Replace\"}]}",
     KH_ERR_UNSUPPORTED, "Replace behind Fuse"},
    {WORDS, "added_tokens", "{}", KH_ERR_FORMAT, "\"added_tokens\" of the tokenizer is an object"},
    {WORDS, "added_tokens", "[{\"content\":\"x\",\"id\":1}]", KH_ERR_FORMAT,
     "\"x\" has the id 1, which another piece has too"},
    {WORDS, "added_tokens", "[{\"content\":\"x\",\"id\":90000000}]", KH_ERR_FORMAT,
     "the largest id is 90000000, but there are 3 pieces"},
    {WORDS, "added_tokens", "[{\"content\":\"x\",\"id\":2,\"special\":\"yes\"}]", KH_ERR_FORMAT,
     "\"special\" of the added token is a string (expected: true or false)"},
    {"{\"type\":\"Oracle\",\"vocab\":{}}", "x", "0", KH_ERR_UNSUPPORTED,
     "the model \"Oracle\" is not supported (supported: BPE, Unigram, WordPiece, WordLevel)"},
    {"[]", "x", "0", KH_ERR_FORMAT, "\"model\" is a list"},
    {"{\"type\":\"WordLevel\",\"vocab\":{\"a\":-1}}", "x", "0", KH_ERR_FORMAT,
     "the id of the piece \"a\""},
    {"{\"type\":\"WordLevel\",\"vocab\":{}}", "x", "0", KH_ERR_FORMAT, "0 tokens"},
    {"{\"type\":\"WordPiece\",\"unk_token\":\"z\",\"vocab\":{\"a\":0}}", "x", "0", KH_ERR_FORMAT,
     "the unknown token \"z\" is no piece"},
    {"{\"type\":\"Unigram\",\"unk_id\":1,\"vocab\":[[\"a\",0]]}", "x", "0", KH_ERR_FORMAT,
     "\"unk_id\" of the model is 1, but there are 1 pieces"},
    {"{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}", "x", "0", KH_ERR_FORMAT,
     "piece 0 of the model is not [text, score]"},
    {BPE("\"merges\":[\"a b\",\"a c\"]"), "x", "0", KH_ERR_FORMAT,
     "the right part of merge 1, \"c\", is no piece"},
    {BPE("\"merges\":[\"b a\"]"), "x", "0", KH_ERR_FORMAT, "the result of merge 0, \"ba\""},
    {BPE("\"merges\":[\"a\"]"), "x", "0", KH_ERR_FORMAT, "merge 0 of the model is neither"},
    {BPE("\"merges\":7"), "x", "0", KH_ERR_FORMAT, "\"merges\" of the model is an integer"},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; ++i) {
        kh_tokenizer *t = (kh_tokenizer *)(void *)&i;
        kh_status status = open_text(&t,
                                     document(refused[i].model, refused[i].part, refused[i].value));
        if (status != refused[i].status || !strstr(kh_last_error(), refused[i].says))
            fail_msg("case %zu: %d, %s", i, status, kh_last_error());
        assert_null(t);
    }
    kh_tokenizer *t;
    assert_int_equal(open_text(&t, "{\"a\":"), KH_ERR_FORMAT);
    assert_non_null(strstr(kh_last_error(), "x.json: JSON is expected; line 1"));
    assert_int_equal(open_text(&t, "[]"), KH_ERR_FORMAT);
}

static void check_ids(const char *json, const char *text, const char *want)
{
    kh_tokenizer *t;
    kh_tokens ids = {0};
    char got[256] = "";
    if (open_text(&t, json) != KH_OK) fail_msg("%s", kh_last_error());
    assert_int_equal(kh_tokenize(t, &ids, text, strlen(text), KH_TOKENIZE_SPECIAL), KH_OK);
    for (size_t i = 0; i < ids.count; ++i)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%d ", ids.ids[i]);
    assert_string_equal(got, want);
    kh_tokens_free(&ids);
    kh_tokenizer_close(t);
}

/* Things that real files have and the goldens do not: by hand from the library's rules. */
static void test_odd(void **state)
{
    (void)state;
    /* merges as pairs; of equal merges the last counts; a model without a type */
    check_ids(document(BPE("\"merges\":[[\"a\",\"b\"]]"), "x", "0"), "abba", "3 2 1 ");
    check_ids("{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"bc\":4},\"merges\":"
              "[\"a b\",\"b c\",\"a b\"]}}",
              "abc", "0 4 ");
    /* ids with a gap, and a piece that is the zero character */
    check_ids(
        "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"u\",0],[\"\\u0000\",-1]]},"
        "\"added_tokens\":[{\"id\":9,\"content\":\"<x>\"}]}",
        "<x>u", "9 0 ");
    /* possessive marks that are none, in Oniguruma's dialect: (\d{2})+ */
    check_ids(document(WORDS, "pre_tokenizer",
                       "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\d{2}+a\"},\"behavior\":"
                       "\"Removed\",\"invert\":false}"),
              "12345a", "0 ");
    /* classes in classes, and their intersection */
    check_ids(
        document(WORDS, "pre_tokenizer",
                 "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a-z&&[^b-d]]{1,2}+|[bc[d]]\"},"
                 "\"behavior\":\"Isolated\",\"invert\":false}"),
        "abada", "1 0 1 0 1 ");
    /* an added token with white space on both sides, and one that must be a word */
    check_ids(
        document(WORDS, "added_tokens",
                 "[{\"id\":2,\"content\":\"<m>\",\"special\":true,\"normalized\":false,\"lstrip\":"
                 "true,\"rstrip\":true},{\"id\":3,\"content\":\"w\",\"single_word\":true}]"),
        "a \t<m>\n a w", "1 2 0 3 ");
}

/* A stranger's text makes no special token, of neither kind; the template's beside it do. */
static void test_guards(void **state)
{
    (void)state;
    static const char text[] = "<m>a<N><m><N>";
    kh_tokenizer *t;
    kh_tokens ids = {0};
    assert_int_equal(
        open_text(
            &t,
            "{\"model\":{\"type\":\"WordLevel\",\"unk_token\":\"u\",\"vocab\":{\"u\":0,\"a\":1}},"
            "\"normalizer\":{\"type\":\"Lowercase\"},\"added_tokens\":[{\"id\":2,\"content\":\"<m>"
            "\","
            "\"special\":true,\"normalized\":false},{\"id\":3,\"content\":\"<N>\",\"special\":true,"
            "\"normalized\":true}]}"),
        KH_OK);
    const struct {
        kh_text_range guard;
        size_t count, special;
    } cases[] = {{{0, 0}, 5, 4}, {{0, 3}, 4, 3}, {{4, 3}, 4, 3}, {{3, 10}, 2, 1}, {{0, 13}, 1, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        size_t special = 0;
        ids.count = 0;
        assert_int_equal(kh_tokenize_guarded(t, &ids, text, sizeof text - 1, KH_TOKENIZE_SPECIAL,
                                             &cases[i].guard, i > 0),
                         KH_OK);
        for (size_t k = 0; k < ids.count; ++k) special += ids.ids[k] >= 2;
        assert_int_equal(special, cases[i].special);
        assert_int_equal(ids.count, cases[i].count);
    }
    kh_tokens_free(&ids);
    kh_tokenizer_close(t);
}

/* Small, and together with everything that allocates. */
static const char *const small[] = {
    "{\"model\":{\"type\":\"BPE\",\"unk_token\":\"u\",\"end_of_word_suffix\":\"</"
    "w>\",\"vocab\":{\"u\":0,"
    "\"a\":1,\"b</w>\":2,\"ab</w>\":3},\"merges\":[\"a "
    "b</w>\"]},\"normalizer\":{\"type\":\"Sequence\","
    "\"normalizers\":[{\"type\":\"NFKD\"},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"c+\"},"
    "\"content\":"
    "\"a\"}]},\"pre_tokenizer\":{\"type\":\"Whitespace\"},\"decoder\":{\"type\":\"BPEDecoder\","
    "\"suffix\":"
    "\"</"
    "w>\"},\"added_tokens\":[{\"id\":4,\"content\":\"<t>\"},{\"id\":5,\"content\":\"\\u00e9\"}]}",
    "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"\\u2581\",-2],["
    "\"\\u2581a\",-3],"
    "[\"b\",-4.5]]},\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAAAA==\"}"
    ","
    "\"pre_tokenizer\":{\"type\":\"Metaspace\"},\"decoder\":{\"type\":\"Metaspace\"},\"post_"
    "processor\":"
    "{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},"
    "{\"SpecialToken\":{\"id\":\"e\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{\"e\":{"
    "\"ids\":[1]}}}}",
    "{\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"vocab\":{\"[UNK]\":0,\"[CLS]\":1,"
    "\"[SEP]\":2,"
    "\"a\":3,\"##b\":4}},\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":{\"type\":"
    "\"BertPreTokenizer\"},\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"[SEP]\",2],"
    "\"cls\":"
    "[\"[CLS]\",1]},\"decoder\":{\"type\":\"WordPiece\"},\"added_tokens\":[{\"id\":1,\"content\":"
    "\"[CLS]\","
    "\"special\":true}]}",
    "{\"model\":{\"type\":\"BPE\",\"ignore_merges\":true,\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,"
    "\"\\u0120\":3},"
    "\"merges\":[\"a "
    "b\"]},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true},\"decoder\":"
    "{\"type\":\"ByteLevel\"}}",
};

/* One use of everything that allocates; KH_ERR_MEMORY or KH_OK, and nothing left behind. */
static kh_status use(const char *json)
{
    static const char text[] = "ab\xFF e\xCC\x81\xCC\xA3 \xC3\xA9 <t> cc a.b";
    kh_tokenizer *t;
    kh_tokens ids = {0}, types = {0};
    kh_detokenizer stream = {0};
    kh_buf out = {0};
    kh_gguf *file = NULL;
    kh_status status = open_text(&t, json);
    if (status != KH_OK) {
        assert_null(t);
        return status;
    }
    kh_slice whole = {text, sizeof text - 1};
    status = kh_tokenize_pair(t, &ids, &types, NULL, whole, whole, KH_TOKENIZE_EDGES);
    if (status == KH_OK) status = kh_tokenize(t, &ids, text, sizeof text - 1, KH_TOKENIZE_EDGES);
    for (size_t i = 0; i < ids.count && status == KH_OK; ++i)
        status = kh_detokenize(t, &stream, &out, ids.ids[i], KH_TOKENIZE_SPECIAL);
    if (status == KH_OK) status = kh_detokenize_end(&stream, &out);
    if (status == KH_OK) status = kh_gguf_new(&file, "x");
    if (status == KH_OK) {
        status = kh_tokenizer_describe(t, file);
        if (status == KH_ERR_UNSUPPORTED) status = KH_OK;
    }
    kh_gguf_close(file);
    kh_buf_free(&out);
    kh_detokenizer_free(&stream);
    kh_tokens_free(&types);
    kh_tokens_free(&ids);
    kh_tokenizer_close(t);
    return status;
}

static void test_faults(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof small / sizeof small[0]; ++i) {
        uint64_t live = kh_alloc_get_stats().live, n = 1;
        for (kh_status status = KH_ERR_MEMORY; status != KH_OK; n += n < 250 ? 1 : 23) {
            kh_alloc_fail_at(n);
            status = use(small[i]);
            kh_alloc_fail_at(0);
            /* where jansson's own memory runs out, it may say that the text is wrong */
            int parsing = status == KH_ERR_FORMAT && strstr(kh_last_error(), "JSON is expected");
            if (status != KH_OK && status != KH_ERR_MEMORY && !parsing)
                fail_msg("%zu, allocation %llu: %s", i, (unsigned long long)n, kh_last_error());
            assert_int_equal(kh_alloc_get_stats().live, live);
            assert_true(n < 20000);
        }
        assert_true(n > 50);
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#if defined(__has_feature)
#define FEATURE(name) __has_feature(name)
#else
#define FEATURE(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || FEATURE(address_sanitizer) || \
    FEATURE(thread_sanitizer)
enum { SECONDS = 10 };
#else
enum { SECONDS = 1 };
#endif
enum { SIZE = 1 << 18 };

static void check_unit(const kh_tokenizer *t, const char *name, const char *unit, char *text)
{
    size_t n = strlen(unit), size = SIZE / n * n;
    for (size_t i = 0; i < size; i += n) memcpy(text + i, unit, n);
    kh_tokens ids = {0};
    double start = now();
    if (kh_tokenize(t, &ids, text, size, KH_TOKENIZE_SPECIAL) != KH_OK)
        fail_msg("%s: %s", name, kh_last_error());
    double took = now() - start;
    if (took > SECONDS)
        fail_msg("%s: a quarter of a megabyte of '%s' took %.1f s", name, unit, took);
    kh_tokens_free(&ids);
}

static void test_quarter_megabyte(void **state)
{
    static const char *const names[] = {"gpt2", "llama3", "roberta", "llama2", "gemma",
                                        "t5",   "mt5",    "xlmr",    "bert",   "bert_cased",
                                        "clip", "gpt1",   "prefixed"};
    static const char *const units[] = {"a",
                                        " ",
                                        "\n",
                                        "a ",
                                        "\xF0\x9F\x98\x80",
                                        "\xCC\x81\xCC\xA3",
                                        "\xCC\xA3\xCC\x81\xD6\xB0",
                                        "<",
                                        "\xFF",
                                        "<|im_",
                                        "e\xCC\x81",
                                        "\xE2\x96\x81",
                                        "1",
                                        "\xE4\xB8\xAD",
                                        "  \n ",
                                        "'",
                                        "##",
                                        "\xE2\x80\x8D"};
    (void)state;
    char *text = malloc(SIZE), path[128], *json;
    size_t size;
    assert_non_null(text);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i) {
        kh_tokenizer *t;
        snprintf(path, sizeof path, "tests/golden/tokenizers/%s.json", names[i]);
        assert_int_equal(kh_file_read(&json, &size, path, 1 << 20), KH_OK);
        assert_int_equal(kh_tokenizer_open_json(&t, json, size, path), KH_OK);
        kh_free(json);
        for (size_t u = 0; u < sizeof units / sizeof units[0]; ++u)
            check_unit(t, names[i], units[u], text);
        kh_tokenizer_close(t);
    }
    free(text);
}

static void test_nothing_leaks(void **state)
{
    (void)state;
    assert_int_equal(kh_alloc_get_stats().live, 0);
}

static int use_our_memory(void **state)
{
    (void)state;
    json_set_alloc_funcs(kh_alloc, kh_free);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),          cmocka_unit_test(test_odd),
        cmocka_unit_test(test_guards),           cmocka_unit_test(test_faults),
        cmocka_unit_test(test_quarter_megabyte), cmocka_unit_test(test_nothing_leaks),
    };
    return cmocka_run_group_tests(tests, use_our_memory, NULL);
}
