/* Tokenizers against Hugging Face tokenizers and sentencepiece (tests/golden/tokens): the same ids for
 * every string of the corpus and every vocabulary, plain and with markers; text comes back whole; the
 * stream never shows half a character. */
#include "base/alloc.h"
#include "format/utf8.h"
#include "support/models.h"
#include "support/token_corpus.h"
#include "tokens/tokenizer.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FOLDER "tests/golden/tokens/"

static const kh_corpus_line *corpus;
static size_t lines;

static int load_corpus(void **state)
{
    (void)state;
    corpus = kh_corpus(&lines);
    return 0;
}

static int free_corpus(void **state)
{
    (void)state;
    kh_corpus_free();
    return 0;
}

typedef struct vocabulary {
    kh_gguf *file;
    kh_tokenizer *tokenizer;
} vocabulary;

static vocabulary open_vocabulary(const char *path)
{
    vocabulary v;
    assert_int_equal(kh_gguf_open(&v.file, path), KH_OK);
    assert_int_equal(kh_tokenizer_open(&v.tokenizer, v.file), KH_OK);
    return v;
}

static void close_vocabulary(vocabulary *v)
{
    kh_tokenizer_close(v->tokenizer);
    kh_gguf_close(v->file);
}

static void check_ids(const vocabulary *v, size_t i, unsigned flags, const json_t *want)
{
    kh_tokens got = {0};
    assert_int_equal(kh_tokenize(v->tokenizer, &got, corpus[i].data, corpus[i].size, flags), KH_OK);
    size_t n = json_array_size(want);
    for (size_t k = 0; k < n && k < got.count; ++k)
        if (got.ids[k] != json_integer_value(json_array_get(want, k)))
            fail_msg("line %zu, token %zu: %d instead of %lld", i + 1, k, got.ids[k],
                     (long long)json_integer_value(json_array_get(want, k)));
    if (got.count != n) fail_msg("line %zu: %zu tokens instead of %zu", i + 1, got.count, n);
    kh_tokens_free(&got);
}

static void check_golden(const vocabulary *v, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, FOLDER "%s.jsonl", name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t i = 0;
    for (json_t *value; (value = kh_corpus_json_line(file)) != NULL; json_decref(value), ++i) {
        const json_t *ids = json_object_get(value, "ids");
        const json_t *special = json_object_get(value, "special");
        assert_true(i < lines);
        check_ids(v, i, 0, ids);
        check_ids(v, i, KH_TOKENIZE_SPECIAL, special ? special : ids);
    }
    assert_int_equal(i, lines);
    fclose(file);
}

/* The letter of a byte in byte-level BPE, built as GPT-2's code builds it: printable bytes are
 * themselves, the others take the next free number from 256 on. */
static uint32_t letter_of(unsigned byte)
{
    uint32_t next = 256;
    for (unsigned b = 0; b < 256; ++b) {
        int itself = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE);
        uint32_t letter = itself ? b : next++;
        if (b == byte) return letter;
    }
    return 0;
}

static int32_t byte_token(const kh_tokenizer *tokenizer, unsigned byte)
{
    char piece[8];
    size_t n;
    if (!strcmp(kh_tokenizer_model(tokenizer), "gpt2"))
        n = kh_utf8_put(piece, letter_of(byte));
    else
        n = (size_t)snprintf(piece, sizeof piece, "<0x%02X>", byte);
    return kh_token_find(tokenizer, piece, n);
}

/* Whether the vocabulary can say this text at all. */
static int can_say(const kh_tokenizer *tokenizer, const kh_buf *text)
{
    int bytes = !strcmp(kh_tokenizer_model(tokenizer), "gpt2");
    if (!bytes) return !memmem(text->data, text->size, "\xE2\x96\x81", 3);
    for (size_t i = 0; i < text->size; ++i)
        if (byte_token(tokenizer, (unsigned char)text->data[i]) < 0) return 0;
    return 1;
}

static void check_stream(const kh_tokenizer *tokenizer, const int32_t *ids, size_t n,
                         const kh_buf *want)
{
    kh_detokenizer stream = {0};
    kh_buf out = {0};
    for (size_t i = 0; i < n; ++i) {
        assert_int_equal(kh_detokenize(tokenizer, &stream, &out, ids[i], 0), KH_OK);
        assert_int_equal(kh_utf8_valid(out.data, out.size), out.size);
        assert_true(stream.held.size < 4);
    }
    assert_int_equal(kh_detokenize_end(&stream, &out), KH_OK);
    assert_int_equal(out.size, want->size);
    if (out.size) assert_memory_equal(out.data, want->data, out.size);
    kh_detokenizer_free(&stream);
    kh_buf_free(&out);
}

static void check_round_trip(const vocabulary *v, size_t at_least)
{
    size_t said = 0;
    for (size_t i = 0; i < lines; ++i) {
        kh_buf clean = {0};
        kh_tokens tokens = {0};
        assert_int_equal(kh_utf8_clean(&clean, corpus[i].data, corpus[i].size), KH_OK);
        assert_int_equal(kh_tokenize(v->tokenizer, &tokens, corpus[i].data, corpus[i].size, 0),
                         KH_OK);
        if (!clean.size || can_say(v->tokenizer, &clean)) {
            check_stream(v->tokenizer, tokens.ids, tokens.count, &clean);
            ++said;
        }
        kh_tokens_free(&tokens);
        kh_buf_free(&clean);
    }
    if (said < at_least) fail_msg("only %zu strings could be compared", said);
}

/* The raw bytes of the corpus, ill-formed ones too, as one token each. */
static void check_bytes(const vocabulary *v)
{
    int32_t ids[256];
    for (unsigned b = 0; b < 256; ++b) assert_true((ids[b] = byte_token(v->tokenizer, b)) >= 0);
    for (size_t i = 0; i < lines; ++i) {
        kh_buf clean = {0};
        kh_tokens tokens = {0};
        assert_int_equal(kh_utf8_clean(&clean, corpus[i].data, corpus[i].size), KH_OK);
        for (size_t k = 0; k < corpus[i].size; ++k)
            assert_int_equal(kh_tokens_add(&tokens, ids[(unsigned char)corpus[i].data[k]]), KH_OK);
        check_stream(v->tokenizer, tokens.ids, tokens.count, &clean);
        kh_tokens_free(&tokens);
        kh_buf_free(&clean);
    }
}

static void check_tiny(const char *name, int bytes)
{
    char path[256];
    snprintf(path, sizeof path, FOLDER "%s.gguf", name);
    vocabulary v = open_vocabulary(path);
    check_golden(&v, name);
    check_round_trip(&v, lines * 9 / 10);
    if (bytes) check_bytes(&v);
    close_vocabulary(&v);
}

static void test_gpt2(void **state)
{
    (void)state;
    check_tiny("gpt2", 1);
}

static void test_smollm(void **state)
{
    (void)state;
    check_tiny("smollm", 1);
}

static void test_llama_bpe(void **state)
{
    (void)state;
    check_tiny("llama-bpe", 1);
}

static void test_qwen2(void **state)
{
    (void)state;
    check_tiny("qwen2", 1);
}

static void test_default(void **state)
{
    (void)state;
    check_tiny("default", 1);
}

static void test_spm(void **state)
{
    (void)state;
    check_tiny("spm", 1);
}

static void test_model_smollm2(void **state)
{
    (void)state;
    vocabulary v = open_vocabulary(kh_test_need_model("smollm2"));
    const kh_special_ids *special = kh_tokenizer_special(v.tokenizer);
    assert_string_equal(kh_tokenizer_model(v.tokenizer), "gpt2");
    assert_string_equal(kh_tokenizer_pre(v.tokenizer), "smollm");
    assert_int_equal(kh_tokenizer_size(v.tokenizer), 49152);
    assert_int_equal(special->bos, 1);
    assert_int_equal(special->eos, 2);
    assert_int_equal(special->mask, -1);
    assert_int_equal(special->add_bos, 0);
    assert_int_equal(kh_token_ends(v.tokenizer, 0), 1); /* <|endoftext|> */
    assert_int_equal(kh_token_ends(v.tokenizer, 1), 0);
    assert_int_equal(kh_token_ends(v.tokenizer, 2), 1);
    check_golden(&v, "smollm2");
    check_round_trip(&v, lines * 6 / 10); /* 21 bytes have no piece */
    close_vocabulary(&v);
}

static void test_model_gemma3(void **state)
{
    (void)state;
    vocabulary v = open_vocabulary(kh_test_need_model("gemma3"));
    const kh_special_ids *special = kh_tokenizer_special(v.tokenizer);
    assert_string_equal(kh_tokenizer_model(v.tokenizer), "llama");
    assert_int_equal(kh_tokenizer_size(v.tokenizer), 262144);
    assert_int_equal(special->bos, 2);
    assert_int_equal(special->add_bos, 1);
    assert_int_equal(kh_token_ends(v.tokenizer, 1), 1);   /* <eos> */
    assert_int_equal(kh_token_ends(v.tokenizer, 106), 1); /* <end_of_turn> */
    assert_int_equal(kh_token_ends(v.tokenizer, 212), 0); /* </s>, the HTML tag */
    check_golden(&v, "gemma3");
    check_round_trip(&v, lines * 9 / 10);
    check_bytes(&v);
    close_vocabulary(&v);
}

static void test_edges_and_flags(void **state)
{
    (void)state;
    vocabulary v = open_vocabulary(FOLDER "spm.gguf");
    const kh_special_ids *special = kh_tokenizer_special(v.tokenizer);
    kh_tokens tokens = {0};
    assert_int_equal(kh_tokenize(v.tokenizer, &tokens, "", 0, KH_TOKENIZE_EDGES), KH_OK);
    assert_int_equal(tokens.count, 1);
    assert_int_equal(tokens.ids[0], special->bos);
    /* what is there already stays, and control tokens come from text only when asked for */
    assert_int_equal(kh_tokenize(v.tokenizer, &tokens, "</s>", 4, KH_TOKENIZE_SPECIAL), KH_OK);
    assert_int_equal(tokens.count, 2);
    assert_int_equal(tokens.ids[1], special->eos);
    tokens.count = 0;
    assert_int_equal(kh_tokenize(v.tokenizer, &tokens, "</s>", 4, 0), KH_OK);
    for (size_t i = 0; i < tokens.count; ++i)
        assert_int_not_equal(kh_token_get_kind(v.tokenizer, tokens.ids[i]), KH_TOKEN_CONTROL);
    kh_buf out = {0};
    assert_int_equal(kh_token_bytes(v.tokenizer, &out, special->eos, 0, 0), KH_OK);
    assert_int_equal(out.size, 0);
    assert_int_equal(kh_token_bytes(v.tokenizer, &out, special->eos, KH_TOKENIZE_SPECIAL, 0),
                     KH_OK);
    assert_string_equal(out.data, "</s>");
    assert_int_equal(kh_token_bytes(v.tokenizer, &out, -1, 0, 0), KH_ERR_ARGUMENT);
    assert_int_equal(kh_token_bytes(v.tokenizer, &out, 900, 0, 0), KH_ERR_ARGUMENT);
    assert_int_equal(kh_token_raw(v.tokenizer, 900).size, 0);
    assert_int_equal(kh_token_find(v.tokenizer, "no such piece", 13), -1);
    kh_buf_free(&out);
    kh_tokens_free(&tokens);
    close_vocabulary(&v);
}

/* A first blank is the tokenizer's own, unless the stream goes on where a text ended. */
static void test_leading_blank(void **state)
{
    (void)state;
    vocabulary v = open_vocabulary(FOLDER "spm.gguf");
    kh_tokens tokens = {0};
    kh_buf whole = {.data = NULL};
    assert_int_equal(kh_tokenize(v.tokenizer, &tokens, "the", 3, 0), KH_OK);
    assert_int_equal(kh_buf_text(&whole, " the"), KH_OK);
    kh_detokenizer stream = {.started = 1};
    kh_buf out = {0};
    for (size_t i = 0; i < tokens.count; ++i)
        assert_int_equal(kh_detokenize(v.tokenizer, &stream, &out, tokens.ids[i], 0), KH_OK);
    assert_string_equal(out.data, whole.data);
    kh_detokenizer_free(&stream);
    kh_buf_free(&out);
    kh_buf_free(&whole);
    kh_tokens_free(&tokens);
    close_vocabulary(&v);
}

/* Guards: the same ids as plain text inside them, markers outside; also when the text must be cleaned
 * and the ranges move. */
static void test_guards(void **state)
{
    (void)state;
    vocabulary v = open_vocabulary(FOLDER "qwen2.gguf");
    static const char text[] = "\xFF<|im_end|>\xFF<|im_end|>x<|im_end|>";
    const kh_text_range guard = {11, 12}; /* the second \xFF and marker */
    kh_tokens tokens = {0};
    assert_int_equal(kh_tokenize_guarded(v.tokenizer, &tokens, text, sizeof text - 1,
                                         KH_TOKENIZE_SPECIAL, &guard, 1),
                     KH_OK);
    int32_t marker = kh_token_find(v.tokenizer, "<|im_end|>", 10);
    size_t markers = 0;
    kh_buf out = {0};
    for (size_t i = 0; i < tokens.count; ++i) {
        markers += tokens.ids[i] == marker;
        assert_int_equal(kh_token_bytes(v.tokenizer, &out, tokens.ids[i], KH_TOKENIZE_SPECIAL, 0),
                         KH_OK);
    }
    assert_int_equal(markers, 2);
    assert_string_equal(out.data, "\xEF\xBF\xBD<|im_end|>\xEF\xBF\xBD<|im_end|>x<|im_end|>");
    /* a guard that cuts a character of a text that needs cleaning takes all of it */
    static const char cut[] = "\xFF \xC3\xA9\xE2\x82\xAC \xC3";
    for (size_t start = 0; start < sizeof cut; ++start)
        for (size_t size = 0; start + size < sizeof cut; ++size) {
            const kh_text_range any = {start, size};
            kh_buf_clear(&out);
            tokens.count = 0;
            assert_int_equal(kh_tokenize_guarded(v.tokenizer, &tokens, cut, sizeof cut - 1,
                                                 KH_TOKENIZE_SPECIAL, &any, 1),
                             KH_OK);
            for (size_t i = 0; i < tokens.count; ++i)
                assert_int_equal(kh_token_bytes(v.tokenizer, &out, tokens.ids[i], 0, 0), KH_OK);
            assert_string_equal(out.data, "\xEF\xBF\xBD \xC3\xA9\xE2\x82\xAC \xEF\xBF\xBD");
        }
    kh_text_range bad[] = {{0, 40}, {5, 3}, {4, 3}};
    assert_int_equal(kh_tokenize_guarded(v.tokenizer, &tokens, "abcdefgh", 8, 0, bad, 1),
                     KH_ERR_ARGUMENT);
    assert_int_equal(kh_tokenize_guarded(v.tokenizer, &tokens, "abcdefgh", 8, 0, bad + 1, 2),
                     KH_ERR_ARGUMENT);
    kh_buf_free(&out);
    kh_tokens_free(&tokens);
    close_vocabulary(&v);
}

static void test_nothing_leaks(void **state)
{
    (void)state;
    assert_int_equal(kh_alloc_get_stats().live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2),
        cmocka_unit_test(test_smollm),
        cmocka_unit_test(test_llama_bpe),
        cmocka_unit_test(test_qwen2),
        cmocka_unit_test(test_default),
        cmocka_unit_test(test_spm),
        cmocka_unit_test(test_model_smollm2),
        cmocka_unit_test(test_model_gemma3),
        cmocka_unit_test(test_edges_and_flags),
        cmocka_unit_test(test_leading_blank),
        cmocka_unit_test(test_guards),
        cmocka_unit_test(test_nothing_leaks),
    };
    return cmocka_run_group_tests(tests, load_corpus, free_corpus);
}
