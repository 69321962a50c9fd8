/* Tokenizers against files and texts that mean harm: broken vocabularies get a sentence or a defined
 * reading, a megabyte of anything is tokenised in a moment, and a failing allocation leaves nothing
 * behind. */
// not under: thread
#include "base/alloc.h"
#include "support/gguf_writer.h"
#include "support/models.h"
#include "tokens/tokenizer.h"

#include <math.h>
#include <time.h>

static void key_texts(writer *w, const char *name, size_t n, const char *const *texts)
{
    key_array(w, name, KH_GGUF_STRING, n);
    for (size_t i = 0; i < n; ++i) put_text(w, texts[i]);
}

static void key_numbers(writer *w, const char *name, size_t n, const int32_t *numbers)
{
    key_array(w, name, KH_GGUF_I32, n);
    put(w, numbers, n * sizeof *numbers);
}

static void key_reals(writer *w, const char *name, size_t n, const float *numbers)
{
    key_array(w, name, KH_GGUF_F32, n);
    put(w, numbers, n * sizeof *numbers);
}

/* Opens what was written and drops the writer's memory afterwards with close_all. */
typedef struct opened {
    writer w;
    kh_gguf *file;
    kh_tokenizer *tokenizer;
    kh_status status;
} opened;

static void open_all(opened *o)
{
    assert_int_equal(kh_gguf_open_memory(&o->file, o->w.data, o->w.size, "test"), KH_OK);
    o->status = kh_tokenizer_open(&o->tokenizer, o->file);
    if (o->status != KH_OK) assert_null(o->tokenizer);
}

static void close_all(opened *o)
{
    kh_tokenizer_close(o->tokenizer);
    kh_gguf_close(o->file);
    drop(&o->w);
}

static const char *const abc[] = {"a", "b", "c", "ab", "abc", "<end>"};
static const char *const abc_merges[] = {"a b", "ab c"};
enum { ABC = 6 };

/* A byte-level vocabulary whose arrays a test may replace; n_keys counts what it adds. */
static void begin_bpe(writer *w, unsigned more)
{
    head(w, 3, 0, 3 + more);
    key_text(w, "tokenizer.ggml.model", "gpt2");
    key_text(w, "tokenizer.ggml.pre", "gpt-2");
}

static void expect_refusal(opened *o, kh_status status, const char *name, const char *words)
{
    open_all(o);
    refused(o->status, status, name, words);
    close_all(o);
}

static void expect_ids(const opened *o, const char *text, size_t n, const int32_t *want)
{
    kh_tokens tokens = {0};
    assert_int_equal(o->status, KH_OK);
    assert_int_equal(kh_tokenize(o->tokenizer, &tokens, text, strlen(text), 0), KH_OK);
    assert_int_equal(tokens.count, n);
    for (size_t i = 0; i < n; ++i) assert_int_equal(tokens.ids[i], want[i]);
    kh_tokens_free(&tokens);
}

static void test_names(void **state)
{
    (void)state;
    opened o = {.status = KH_OK};
    head(&o.w, 3, 0, 1);
    key_text(&o.w, "general.architecture", "llama");
    expect_refusal(&o, KH_ERR_FORMAT, "tokenizer.ggml.model", "missing");
    head(&o.w, 3, 0, 1);
    key_text(&o.w, "tokenizer.ggml.model", "rwkv");
    expect_refusal(&o, KH_ERR_UNSUPPORTED, "rwkv", "gpt2, llama");
    head(&o.w, 3, 0, 2);
    key_text(&o.w, "tokenizer.ggml.model", "gpt2");
    key_text(&o.w, "tokenizer.ggml.pre", "new-and-shiny");
    expect_refusal(&o, KH_ERR_UNSUPPORTED, "new-and-shiny", "smollm");
}

static void test_missing_arrays(void **state)
{
    (void)state;
    opened o = {.status = KH_OK};
    head(&o.w, 3, 0, 1);
    key_text(&o.w, "tokenizer.ggml.model", "gpt2");
    expect_refusal(&o, KH_ERR_FORMAT, "tokenizer.ggml.tokens", "missing");
    begin_bpe(&o.w, 0);
    key_texts(&o.w, "tokenizer.ggml.tokens", ABC, abc);
    expect_refusal(&o, KH_ERR_FORMAT, "tokenizer.ggml.merges", "missing");
    begin_bpe(&o.w, 0);
    key_texts(&o.w, "tokenizer.ggml.tokens", 0, NULL);
    expect_refusal(&o, KH_ERR_FORMAT, "tokenizer.ggml.tokens", "0 elements");
    begin_bpe(&o.w, 0);
    key_numbers(&o.w, "tokenizer.ggml.tokens", 2, (int32_t[]){1, 2});
    expect_refusal(&o, KH_ERR_FORMAT, "tokenizer.ggml.tokens", "strings");
    head(&o.w, 3, 0, 2);
    key_text(&o.w, "tokenizer.ggml.model", "llama");
    key_texts(&o.w, "tokenizer.ggml.tokens", ABC, abc);
    expect_refusal(&o, KH_ERR_FORMAT, "tokenizer.ggml.scores", "missing");
}

static void test_arrays_of_another_shape(void **state)
{
    (void)state;
    opened o = {.status = KH_OK};
    begin_bpe(&o.w, 1);
    key_texts(&o.w, "tokenizer.ggml.tokens", ABC, abc);
    key_numbers(&o.w, "tokenizer.ggml.token_type", 2, (int32_t[]){1, 1});
    expect_refusal(&o, KH_ERR_FORMAT, "tokenizer.ggml.token_type", "2 elements for 6");
    begin_bpe(&o.w, 1);
    key_texts(&o.w, "tokenizer.ggml.tokens", ABC, abc);
    key_texts(&o.w, "tokenizer.ggml.token_type", ABC, abc);
    expect_refusal(&o, KH_ERR_FORMAT, "tokenizer.ggml.token_type", "numbers");
    begin_bpe(&o.w, 1);
    key_texts(&o.w, "tokenizer.ggml.tokens", ABC, abc);
    key_numbers(&o.w, "tokenizer.ggml.merges", 2, (int32_t[]){1, 1});
    expect_refusal(&o, KH_ERR_FORMAT, "tokenizer.ggml.merges", "strings");
    head(&o.w, 3, 0, 3);
    key_text(&o.w, "tokenizer.ggml.model", "llama");
    key_texts(&o.w, "tokenizer.ggml.tokens", ABC, abc);
    key_reals(&o.w, "tokenizer.ggml.scores", 3, (float[]){1, 2, 3});
    expect_refusal(&o, KH_ERR_FORMAT, "tokenizer.ggml.scores", "3 elements for 6");
}

static void test_ids_out_of_range(void **state)
{
    (void)state;
    opened o = {.status = KH_OK};
    begin_bpe(&o.w, 2);
    key_texts(&o.w, "tokenizer.ggml.tokens", ABC, abc);
    key_texts(&o.w, "tokenizer.ggml.merges", 2, abc_merges);
    key_u32(&o.w, "tokenizer.ggml.bos_token_id", 6);
    expect_refusal(&o, KH_ERR_FORMAT, "tokenizer.ggml.bos_token_id", "6");
    begin_bpe(&o.w, 2);
    key_texts(&o.w, "tokenizer.ggml.tokens", ABC, abc);
    key_texts(&o.w, "tokenizer.ggml.merges", 2, abc_merges);
    key_text(&o.w, "tokenizer.ggml.eos_token_id", "five");
    expect_refusal(&o, KH_ERR_FORMAT, "tokenizer.ggml.eos_token_id", "");
    begin_bpe(&o.w, 3);
    key_texts(&o.w, "tokenizer.ggml.tokens", ABC, abc);
    key_texts(&o.w, "tokenizer.ggml.merges", 2, abc_merges);
    key_u32(&o.w, "tokenizer.ggml.padding_token_id", UINT32_MAX); /* a writer's -1 */
    KEY_FIXED(&o.w, "tokenizer.ggml.add_bos_token", KH_GGUF_BOOL, uint8_t, 1);
    open_all(&o);
    assert_int_equal(o.status, KH_OK);
    assert_int_equal(kh_tokenizer_special(o.tokenizer)->pad, -1);
    assert_int_equal(kh_tokenizer_special(o.tokenizer)->add_bos, 0); /* there is no bos */
    close_all(&o);
}

/* Merges of nothing, with nothing, of unknown parts, into unknown pieces, twice: passed over. */
static void test_broken_merges(void **state)
{
    (void)state;
    static const char *const merges[] = {"",    " ",   "  ",   "a",     "a ",
                                         " b",  "x y", "a c",  "a b c", "ab abc",
                                         "b c", "a b", "ab c", "a b",   "\xFF \xFE"};
    opened o = {.status = KH_OK};
    begin_bpe(&o.w, 1);
    key_texts(&o.w, "tokenizer.ggml.tokens", ABC, abc);
    key_texts(&o.w, "tokenizer.ggml.merges", sizeof merges / sizeof merges[0], merges);
    open_all(&o);
    expect_ids(&o, "abc", 1, (int32_t[]){4});
    expect_ids(&o, "abab", 2, (int32_t[]){3, 3});
    expect_ids(&o, "axbyc", 1, (int32_t[]){4}); /* bytes without a piece are left out first */
    close_all(&o);
}

/* Of equal pieces the last counts; an empty piece is never found; a piece of control type never comes
 * out of plain text; types outside the list are normal. */
static void test_odd_pieces(void **state)
{
    (void)state;
    static const char *const pieces[] = {"a", "", "b", "a", "ab", "", "<x>"};
    opened o = {.status = KH_OK};
    begin_bpe(&o.w, 2);
    key_texts(&o.w, "tokenizer.ggml.tokens", 7, pieces);
    key_texts(&o.w, "tokenizer.ggml.merges", 1, abc_merges);
    key_numbers(&o.w, "tokenizer.ggml.token_type", 7, (int32_t[]){1, 3, 0, 99, 1, 4, 4});
    open_all(&o);
    expect_ids(&o, "a", 1, (int32_t[]){3});
    expect_ids(&o, "ab", 1, (int32_t[]){4});
    expect_ids(&o, "b<x>b", 3, (int32_t[]){2, 6, 2});
    assert_int_equal(kh_token_find(o.tokenizer, "", 0), -1);
    assert_int_equal(kh_token_get_kind(o.tokenizer, 3), KH_TOKEN_NORMAL);
    assert_int_equal(kh_token_get_kind(o.tokenizer, -5), KH_TOKEN_UNKNOWN);
    close_all(&o);
}

static void test_no_way_to_say_a_byte(void **state)
{
    (void)state;
    opened o = {.status = KH_OK};
    begin_bpe(&o.w, 1);
    key_texts(&o.w, "tokenizer.ggml.tokens", 2, (const char *const[]){"ab", "cd"});
    key_texts(&o.w, "tokenizer.ggml.merges", 0, NULL);
    expect_refusal(&o, KH_ERR_FORMAT, "vocabulary", "single byte");
    head(&o.w, 3, 0, 3);
    key_text(&o.w, "tokenizer.ggml.model", "llama");
    key_texts(&o.w, "tokenizer.ggml.tokens", ABC, abc);
    key_reals(&o.w, "tokenizer.ggml.scores", ABC, (float[]){0, 0, 0, 0, 0, 0});
    expect_refusal(&o, KH_ERR_FORMAT, "vocabulary", "byte");
}

/* Infinite and equal scores: merged last, first, and from the left. NaN is refused. */
static void test_odd_scores(void **state)
{
    (void)state;
    static const char *const pieces[] = {"<unk>", "a", "b", "ab", "bb", "ba", "aa"};
    float scores[7] = {0, 0, 0, -INFINITY, INFINITY, -0.0f, 0};
    opened o = {.status = KH_OK};
    head(&o.w, 3, 0, 6);
    key_text(&o.w, "tokenizer.ggml.model", "llama");
    key_texts(&o.w, "tokenizer.ggml.tokens", 7, pieces);
    key_reals(&o.w, "tokenizer.ggml.scores", 7, scores);
    key_numbers(&o.w, "tokenizer.ggml.token_type", 7, (int32_t[]){2, 1, 1, 1, 1, 1, 1});
    key_u32(&o.w, "tokenizer.ggml.unknown_token_id", 0);
    KEY_FIXED(&o.w, "tokenizer.ggml.add_space_prefix", KH_GGUF_BOOL, uint8_t, 0);
    open_all(&o);
    expect_ids(&o, "abb", 2, (int32_t[]){1, 4}); /* the best first */
    expect_ids(&o, "ab", 1, (int32_t[]){3});     /* the worst still merges */
    expect_ids(&o, "baa", 2, (int32_t[]){5, 1}); /* -0 equals 0: the left pair */
    expect_ids(&o, "aaa", 2, (int32_t[]){6, 1});
    expect_ids(&o, "a\xC3\xA9", 2, (int32_t[]){1, 0}); /* no bytes: unknown, once a character */
    close_all(&o);
}

static void test_score_is_no_number(void **state)
{
    (void)state;
    opened o = {.status = KH_OK};
    head(&o.w, 3, 0, 3);
    key_text(&o.w, "tokenizer.ggml.model", "llama");
    key_texts(&o.w, "tokenizer.ggml.tokens", ABC, abc);
    key_reals(&o.w, "tokenizer.ggml.scores", ABC, (float[]){0, 0, NAN, 0, 0, 0});
    expect_refusal(&o, KH_ERR_FORMAT, "tokenizer.ggml.scores", "NaN");
}

static void test_too_long(void **state)
{
    (void)state;
    kh_gguf *file;
    kh_tokenizer *t;
    kh_tokens tokens = {0};
    assert_int_equal(kh_gguf_open(&file, "tests/golden/tokens/spm.gguf"), KH_OK);
    assert_int_equal(kh_tokenizer_open(&t, file), KH_OK);
    refused(kh_tokenize(t, &tokens, "", (size_t)INT32_MAX + 1, 0), KH_ERR_ARGUMENT, "2147483648",
            "too long");
    kh_tokenizer_close(t);
    kh_gguf_close(file);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SECONDS = 20 };
#else
enum { SECONDS = 2 };
#endif

enum { UNITS = 12, FEW = 6 };

/* A megabyte of one thing over and over: a word without end for either kind. */
static void check_megabyte(const kh_tokenizer *t, size_t n_units)
{
    enum { SIZE = 1 << 20 };
    static const char *const units[UNITS] = {"a",
                                             " ",
                                             "\xE2\x96\x81",
                                             "\xF0\x9F\x98\x80",
                                             "\n",
                                             "<",
                                             "\xFF",
                                             "ab",
                                             "<|im_",
                                             "'",
                                             "\xC3\xA9\xCC\x81",
                                             " \n"};
    char *text = malloc(SIZE);
    assert_non_null(text);
    for (size_t u = 0; u < n_units; ++u) {
        size_t n = strlen(units[u]), size = SIZE / n * n;
        for (size_t i = 0; i < size; i += n) memcpy(text + i, units[u], n);
        kh_tokens tokens = {0};
        double start = now();
        assert_int_equal(kh_tokenize(t, &tokens, text, size, KH_TOKENIZE_SPECIAL), KH_OK);
        double took = now() - start;
        if (took > SECONDS) fail_msg("a megabyte of '%s' took %.1f s", units[u], took);
        assert_true(tokens.count > 0 || (unsigned char)units[u][0] == 0xFF);
        kh_tokens_free(&tokens);
    }
    free(text);
}

static void check_megabyte_of(const char *path, size_t n_units)
{
    kh_gguf *file;
    kh_tokenizer *t;
    assert_int_equal(kh_gguf_open(&file, path), KH_OK);
    assert_int_equal(kh_tokenizer_open(&t, file), KH_OK);
    check_megabyte(t, n_units);
    kh_tokenizer_close(t);
    kh_gguf_close(file);
}

static void test_megabyte_tiny(void **state)
{
    (void)state;
    check_megabyte_of("tests/golden/tokens/llama-bpe.gguf", FEW);
    check_megabyte_of("tests/golden/tokens/spm.gguf", UNITS);
}

static void test_megabyte_smollm2(void **state)
{
    (void)state;
    check_megabyte_of(kh_test_need_model("smollm2"), FEW);
}

static void test_megabyte_gemma3(void **state)
{
    (void)state;
    check_megabyte_of(kh_test_need_model("gemma3"), FEW);
}

/* One use of everything that allocates; KH_ERR_MEMORY or KH_OK, and nothing left behind. */
static kh_status use(const kh_gguf *file)
{
    static const char text[] = "Hello\xFF w\xF0\x9F\x98\x80rld <|im_end|></s> 12345  \xE2\x96\x81";
    kh_tokenizer *t;
    kh_tokens tokens = {0};
    kh_detokenizer stream = {0};
    kh_buf out = {0};
    const kh_text_range guard = {3, 20};
    kh_status status = kh_tokenizer_open(&t, file);
    if (status != KH_OK) {
        assert_null(t);
        return status;
    }
    status = kh_tokenize_guarded(t, &tokens, text, sizeof text - 1,
                                 KH_TOKENIZE_SPECIAL | KH_TOKENIZE_EDGES, &guard, 1);
    if (status != KH_OK) assert_int_equal(tokens.count, 0);
    for (size_t i = 0; i < tokens.count && status == KH_OK; ++i)
        status = kh_detokenize(t, &stream, &out, tokens.ids[i], KH_TOKENIZE_SPECIAL);
    if (status == KH_OK) status = kh_detokenize_end(&stream, &out);
    kh_buf_free(&out);
    kh_detokenizer_free(&stream);
    kh_tokens_free(&tokens);
    kh_tokenizer_close(t);
    return status;
}

static void check_faults(const char *path)
{
    kh_gguf *file;
    assert_int_equal(kh_gguf_open(&file, path), KH_OK);
    uint64_t live = kh_alloc_get_stats().live, n = 1;
    for (kh_status status = KH_ERR_MEMORY; status != KH_OK; ++n) {
        kh_alloc_fail_at(n);
        status = use(file);
        kh_alloc_fail_at(0);
        if (status != KH_OK) assert_int_equal(status, KH_ERR_MEMORY);
        assert_int_equal(kh_alloc_get_stats().live, live);
        assert_true(n < 1000);
    }
    assert_true(n > 8); /* it did fail at places */
    kh_gguf_close(file);
}

static void test_faults(void **state)
{
    (void)state;
    check_faults("tests/golden/tokens/llama-bpe.gguf");
    check_faults("tests/golden/tokens/default.gguf");
    check_faults("tests/golden/tokens/spm.gguf");
}

static void test_nothing_leaks(void **state)
{
    (void)state;
    assert_int_equal(kh_alloc_get_stats().live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_missing_arrays),
        cmocka_unit_test(test_arrays_of_another_shape),
        cmocka_unit_test(test_ids_out_of_range),
        cmocka_unit_test(test_broken_merges),
        cmocka_unit_test(test_odd_pieces),
        cmocka_unit_test(test_no_way_to_say_a_byte),
        cmocka_unit_test(test_odd_scores),
        cmocka_unit_test(test_score_is_no_number),
        cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_megabyte_tiny),
        cmocka_unit_test(test_megabyte_smollm2),
        cmocka_unit_test(test_megabyte_gemma3),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_nothing_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
