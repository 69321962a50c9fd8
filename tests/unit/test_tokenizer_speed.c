/* How fast every kind of tokenizer reads: a megabyte of a novel and a megabyte of hard strings, each in under a second
 * of one core. Prints what it measured. */
// label: long
// runs alone
#include "base/alloc.h"
#include "base/file.h"
#include "support/models.h"
#include "support/token_corpus.h"
#include "tokens/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { SIZE = 1 << 20 };

static char *novel, *hard;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double seconds(const kh_tokenizer *t, const char *text, size_t *count)
{
    double best = 1e9;
    for (int i = 0; i < 3; ++i) {
        kh_tokens ids = {0};
        double start = now();
        assert_int_equal(kh_tokenize(t, &ids, text, SIZE, KH_TOKENIZE_SPECIAL), KH_OK);
        double took = now() - start;
        if (took < best) best = took;
        *count = ids.count;
        kh_tokens_free(&ids);
    }
    return best;
}

static double seconds_back(const kh_tokenizer *t)
{
    kh_tokens ids = {0};
    kh_buf out = {0};
    kh_detokenizer stream = {0};
    assert_int_equal(kh_tokenize(t, &ids, novel, SIZE, 0), KH_OK);
    double start = now();
    for (size_t i = 0; i < ids.count; ++i)
        assert_int_equal(kh_detokenize(t, &stream, &out, ids.ids[i], 0), KH_OK);
    double took = now() - start;
    kh_detokenizer_free(&stream);
    kh_buf_free(&out);
    kh_tokens_free(&ids);
    return took;
}

static void check(const kh_tokenizer *t, const char *name)
{
    size_t n_novel, n_hard;
    double a = seconds(t, novel, &n_novel), b = seconds(t, hard, &n_hard), c = seconds_back(t);
    print_message("%-12s %-5s  novel %.3f s (%zu ids)  hard %.3f s (%zu ids)  back %.3f s\n", name,
                  kh_tokenizer_model(t), a, n_novel, b, n_hard, c);
    assert_true(a < 1 && b < 1 && c < 1);
}

static void test_goldens(void **state)
{
    static const char *const names[] = {"gpt2",       "llama3", "qwen2", "roberta",  "llama2",
                                        "gemma",      "t5",     "mt5",   "xlmr",     "bert",
                                        "bert_cased", "clip",   "gpt1",  "prefixed", "words"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i) {
        char path[128], *json;
        size_t size;
        kh_tokenizer *t;
        snprintf(path, sizeof path, "tests/golden/tokenizers/%s.json", names[i]);
        assert_int_equal(kh_file_read(&json, &size, path, 1 << 20), KH_OK);
        assert_int_equal(kh_tokenizer_open_json(&t, json, size, path), KH_OK);
        kh_free(json);
        check(t, names[i]);
        kh_tokenizer_close(t);
    }
}

static void test_models(void **state)
{
    static const char *const names[] = {"smollm2", "gemma3"};
    (void)state;
    for (size_t i = 0; i < 2; ++i) {
        kh_gguf *file;
        kh_tokenizer *t;
        assert_int_equal(kh_gguf_open(&file, kh_test_need_model(names[i])), KH_OK);
        double start = now();
        assert_int_equal(kh_tokenizer_open(&t, file), KH_OK);
        print_message("%-12s opens in %.3f s\n", names[i], now() - start);
        check(t, names[i]);
        kh_tokenizer_close(t);
        kh_gguf_close(file);
    }
    kh_tokenizer *t;
    double start = now();
    assert_int_equal(kh_tokenizer_open_folder(&t, kh_test_need_model("minilm")), KH_OK);
    print_message("minilm       opens in %.3f s\n", now() - start);
    check(t, "minilm");
    kh_tokenizer_close(t);
}

static int load_texts(void **state)
{
    (void)state;
    char *text;
    size_t size, lines;
    assert_int_equal(kh_file_read(&text, &size, "examples/persuasion.txt", SIZE), KH_OK);
    const kh_corpus_line *corpus = kh_corpus(&lines);
    novel = malloc(SIZE);
    hard = malloc(SIZE);
    assert_non_null(novel);
    assert_non_null(hard);
    for (size_t at = 0; at < SIZE; ++at) novel[at] = text[at % size];
    for (size_t at = 0, i = 0; at < SIZE; i = (i + 1) % lines) {
        size_t n = corpus[i].size < SIZE - at ? corpus[i].size : SIZE - at;
        memcpy(hard + at, corpus[i].data, n);
        at += n;
        if (at < SIZE) hard[at++] = '\n';
    }
    kh_free(text);
    return 0;
}

static int free_texts(void **state)
{
    (void)state;
    free(novel);
    free(hard);
    kh_corpus_free();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),
        cmocka_unit_test(test_models),
    };
    return cmocka_run_group_tests(tests, load_texts, free_texts);
}
