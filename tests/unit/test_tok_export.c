/* tokenizer.json made of GGUF values gives the same ids as these do. */
#include "tokens/tok_export.h"

#include "base/alloc.h"
#include "support/golden_run.h"
#include "support/token_corpus.h"
#include "tokens/tokenizer.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* The hard strings that all tokenizers are tested with. */
static void same_ids(const char *name, const kh_tokenizer *a, const kh_tokenizer *b)
{
    size_t n;
    const kh_corpus_line *lines = kh_corpus(&n);
    for (size_t i = 0; i < n; i++)
        for (unsigned flags = 0; flags < 4; flags++) {
            /* tokenizer.json's unigram finds markers among its pieces, GGUF's does not */
            if (!(flags & KH_TOKENIZE_SPECIAL) && strcmp(kh_tokenizer_model(a), "t5") == 0)
                continue;
            kh_tokens x = {0}, y = {0};
            GOOD(kh_tokenize(a, &x, lines[i].data, lines[i].size, flags));
            GOOD(kh_tokenize(b, &y, lines[i].data, lines[i].size, flags));
            int same = x.count == y.count &&
                       (x.count == 0 || memcmp(x.ids, y.ids, x.count * sizeof *x.ids) == 0);
            if (!same)
                fail_msg("%s: line %zu '%.60s' (flags %u): %zu and %zu tokens", name, i,
                         lines[i].data, flags, x.count, y.count);
            kh_tokens_free(&x);
            kh_tokens_free(&y);
        }
}

static void drop(const char *folder)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json"};
    char path[128];
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(folder), 0);
}

static void comes_back(const char *name, const kh_gguf *file)
{
    char folder[] = "/tmp/keyhole-export-XXXXXX";
    kh_tokenizer *words, *again;
    GOOD(kh_tokenizer_open(&words, file));
    assert_non_null(mkdtemp(folder));
    GOOD(kh_tokenizer_export(file, folder));
    GOOD(kh_tokenizer_open_folder(&again, folder));
    assert_int_equal(kh_tokenizer_size(words), kh_tokenizer_size(again));
    same_ids(name, words, again);
    kh_tokenizer_close(again);
    kh_tokenizer_close(words);
    drop(folder);
}

static void files_come_back(void **state)
{
    (void)state;
    static const char *const names[] = {"default", "gpt2", "llama-bpe", "qwen2", "smollm", "spm"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64];
        kh_gguf *file;
        snprintf(path, sizeof path, "tokens/%s.gguf", names[i]);
        GOOD(kh_gguf_open(&file, golden_path(path)));
        comes_back(names[i], file);
        kh_gguf_close(file);
    }
}

/* A folder's tokenizer in GGUF's words, and from these a folder again. */
static void folders_come_back(void **state)
{
    (void)state;
    static const char *const names[] = {"llama",   "qwen2",   "mistral", "gpt2",
                                        "gptneox", "roberta", "bert",    "t5"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64];
        kh_gguf *file;
        kh_tokenizer *first;
        snprintf(path, sizeof path, "families/%s", names[i]);
        GOOD(kh_tokenizer_open_folder(&first, golden_path(path)));
        GOOD(kh_gguf_new(&file, "composed"));
        GOOD(kh_tokenizer_describe(first, file));
        kh_tokenizer_close(first);
        comes_back(names[i], file);
        kh_gguf_close(file);
    }
    kh_corpus_free();
}

static void what_is_wrong_is_refused(void **state)
{
    (void)state;
    static const kh_slice pieces[] = {{"a", 1}, {"b", 1}};
    kh_gguf *file;
    GOOD(kh_gguf_new(&file, "composed"));
    GOOD(kh_tokenizer_export(file, "/nonexistent")); /* nothing to write */
    GOOD(kh_gguf_set_string(file, "tokenizer.ggml.model", (kh_slice){"rwkv", 4}));
    assert_int_equal(kh_tokenizer_export(file, "/nonexistent"), KH_ERR_FORMAT);
    GOOD(kh_gguf_set_strings(file, "tokenizer.ggml.tokens", pieces, 2));
    assert_int_equal(kh_tokenizer_export(file, "/nonexistent"), KH_ERR_UNSUPPORTED);
    assert_non_null(strstr(kh_last_error(), "rwkv"));
    kh_gguf_close(file);
    GOOD(kh_gguf_new(&file, "composed"));
    GOOD(kh_gguf_set_string(file, "tokenizer.ggml.model", (kh_slice){"llama", 5}));
    GOOD(kh_gguf_set_strings(file, "tokenizer.ggml.tokens", pieces, 2));
    assert_int_equal(kh_tokenizer_export(file, "/nonexistent"), KH_ERR_IO);
    kh_gguf_close(file);
}

/* Every allocation fails once: a sentence, and nothing is left. */
static void memory_runs_out(void **state)
{
    (void)state;
    char folder[] = "/tmp/keyhole-export-XXXXXX";
    kh_gguf *file;
    assert_non_null(mkdtemp(folder));
    GOOD(kh_gguf_open(&file, golden_path("tokens/gpt2.gguf")));
    GOOD(kh_tokenizer_export(file, folder));
    uint64_t live = kh_alloc_get_stats().live, step;
    kh_alloc_fail_at(0);
    GOOD(kh_tokenizer_export(file, folder));
    uint64_t n = kh_alloc_fail_at(0);
    for (uint64_t i = 1; i <= n; i += step) {
        step = i < 64 || n - i < 256 ? 1 : 97;
        kh_alloc_fail_at(i);
        kh_status status = kh_tokenizer_export(file, folder);
        kh_alloc_fail_at(0);
        if (status == KH_OK) fail_msg("allocation %llu is not missed", (unsigned long long)i);
        assert_int_equal(kh_alloc_get_stats().live, live);
    }
    kh_gguf_close(file);
    drop(folder);
}

int main(void)
{
    json_set_alloc_funcs(kh_alloc, kh_free);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_come_back),
        cmocka_unit_test(folders_come_back),
        cmocka_unit_test(what_is_wrong_is_refused),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
