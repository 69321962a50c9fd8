/* Tokenizers of tokenizer.json against Hugging Face tokenizers (tests/golden/tokenizers): the same
 * ids for every hard string, plain and with markers, the same text back, the same pairs; and the
 * same ids once more through GGUF, or a sentence that says what GGUF cannot express. */
#include "base/alloc.h"
#include "base/file.h"
#include "format/utf8.h"
#include "support/models.h"
#include "support/token_corpus.h"
#include "tokens/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define FOLDER "tests/golden/tokenizers/"

static const kh_corpus_line *corpus;
static size_t lines;

static int load_corpus(void **state)
{
    (void)state;
    json_set_alloc_funcs(kh_alloc, kh_free);
    corpus = kh_corpus(&lines);
    return 0;
}

static int free_corpus(void **state)
{
    (void)state;
    kh_corpus_free();
    return 0;
}

static kh_tokenizer *open_file(const char *path)
{
    char *json;
    size_t size;
    kh_tokenizer *t;
    assert_int_equal(kh_file_read(&json, &size, path, 1 << 28), KH_OK);
    if (kh_tokenizer_open_json(&t, json, size, path) != KH_OK) fail_msg("%s", kh_last_error());
    kh_free(json);
    return t;
}

static kh_tokenizer *open_golden(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, FOLDER "%s.json", name);
    return open_file(path);
}

static uint32_t fnv(const void *data, size_t size)
{
    const uint8_t *bytes = data;
    uint32_t h = 0x811C9DC5u;
    for (size_t i = 0; i < size; ++i) h = (h ^ bytes[i]) * 0x01000193u;
    return h;
}

static uint32_t hash_ids(const kh_tokens *ids)
{
    return fnv(ids->ids, ids->count * sizeof *ids->ids); /* little-endian, as the golden is */
}

static void tokenize(const kh_tokenizer *t, kh_tokens *out, size_t i, unsigned flags)
{
    out->count = 0;
    if (kh_tokenize(t, out, corpus[i].data, corpus[i].size, flags) != KH_OK)
        fail_msg("line %zu: %s", i + 1, kh_last_error());
}

/* Streams the ids: whole characters at every step. */
static void decode(const kh_tokenizer *t, const kh_tokens *ids, kh_buf *out)
{
    kh_detokenizer stream = {0};
    kh_buf_clear(out);
    for (size_t k = 0; k < ids->count; ++k) {
        assert_int_equal(kh_detokenize(t, &stream, out, ids->ids[k], 0), KH_OK);
        assert_int_equal(kh_utf8_valid(out->data, out->size), out->size);
        assert_true(stream.held.size < 4);
    }
    assert_int_equal(kh_detokenize_end(&stream, out), KH_OK);
    kh_detokenizer_free(&stream);
}

static void print_ids(const kh_tokens *ids)
{
    for (size_t k = 0; k < ids->count; ++k) print_message("%d ", ids->ids[k]);
    print_message("\n");
}

static void check_line(const kh_tokenizer *t, const char *name, size_t i, const uint32_t want[3],
                       size_t *wrong)
{
    static const char *const what[] = {"ids without markers", "ids with markers", "text"};
    kh_tokens ids = {0};
    kh_buf text = {0};
    uint32_t got[3];
    tokenize(t, &ids, i, 0);
    got[0] = hash_ids(&ids);
    if (got[0] != want[0] && *wrong < 10) print_ids(&ids);
    tokenize(t, &ids, i, KH_TOKENIZE_SPECIAL);
    got[1] = hash_ids(&ids);
    if (got[1] != want[1] && *wrong < 10) print_ids(&ids);
    decode(t, &ids, &text);
    got[2] = fnv(text.data, text.size);
    if (got[2] != want[2] && *wrong < 10) print_message("'%s'\n", text.size ? text.data : "");
    for (int k = 0; k < 3; ++k) {
        if (got[k] == want[k]) continue;
        if (*wrong < 10) print_message("%s, line %zu: other %s\n", name, i + 1, what[k]);
        ++*wrong;
    }
    kh_buf_free(&text);
    kh_tokens_free(&ids);
}

static void check_hashes(const kh_tokenizer *t, const char *name)
{
    char path[256], *data;
    size_t size, wrong = 0;
    uint32_t count;
    snprintf(path, sizeof path, FOLDER "%s.bin", name);
    assert_int_equal(kh_file_read(&data, &size, path, 1 << 24), KH_OK);
    assert_memory_equal(data, "KHTOKEN1", 8);
    memcpy(&count, data + 8, 4);
    assert_int_equal(size, 12 + 12 * (size_t)count);
    assert_true(count <= lines && count >= 800);
    for (uint32_t i = 0; i < count; ++i) {
        uint32_t want[3];
        memcpy(want, data + 12 + 12 * (size_t)i, sizeof want);
        check_line(t, name, i, want, &wrong);
    }
    kh_free(data);
    if (wrong) fail_msg("%s: %zu differences", name, wrong);
}

static kh_slice slice_of(const json_t *text)
{
    return (kh_slice){json_string_value(text), json_string_length(text)};
}

static void same_list(const kh_tokens *got, const json_t *want, const char *name, const char *what)
{
    if (got->count != json_array_size(want))
        fail_msg("%s: %zu %s instead of %zu", name, got->count, what, json_array_size(want));
    for (size_t i = 0; i < got->count; ++i)
        if (got->ids[i] != json_integer_value(json_array_get(want, i)))
            fail_msg("%s: %s %zu is %d", name, what, i, got->ids[i]);
}

static void check_pair(const kh_tokenizer *t, const json_t *p, const char *name)
{
    kh_tokens ids = {0}, types = {0}, alone = {0};
    kh_pair_ranges ranges;
    kh_slice a = slice_of(json_object_get(p, "a")), b = slice_of(json_object_get(p, "b"));
    unsigned flags = KH_TOKENIZE_SPECIAL |
                     (json_is_true(json_object_get(p, "edges")) ? KH_TOKENIZE_EDGES : 0u);
    assert_int_equal(kh_tokenize_pair(t, &ids, &types, &ranges, a, b, flags), KH_OK);
    same_list(&ids, json_object_get(p, "ids"), name, "ids of a pair");
    same_list(&types, json_object_get(p, "types"), name, "type ids of a pair");
    assert_int_equal(kh_tokenize(t, &alone, a.data, a.size, flags), KH_OK);
    same_list(&alone, json_object_get(p, "one"), name, "ids of one text");
    alone.count = 0;
    assert_int_equal(kh_tokenize(t, &alone, b.data, b.size, KH_TOKENIZE_SPECIAL), KH_OK);
    assert_int_equal(ranges.second_count, alone.count);
    if (alone.count) assert_memory_equal(ids.ids + ranges.second, alone.ids, 4 * alone.count);
    kh_tokens_free(&alone);
    kh_tokens_free(&types);
    kh_tokens_free(&ids);
}

static void check_pairs(const kh_tokenizer *t, const char *name)
{
    json_t *all = json_load_file(FOLDER "pairs.json", 0, NULL);
    const json_t *list = json_object_get(all, name);
    assert_true(json_array_size(list) > 0);
    for (size_t i = 0; i < json_array_size(list); ++i) check_pair(t, json_array_get(list, i), name);
    json_decref(all);
}

static void check_golden(const char *name)
{
    kh_tokenizer *t = open_golden(name);
    check_hashes(t, name);
    check_pairs(t, name);
    kh_tokenizer_close(t);
}

static void test_goldens(void **state)
{
    static const char *const names[] = {"gpt2",       "llama3", "qwen2", "roberta",  "llama2",
                                        "gemma",      "t5",     "mt5",   "xlmr",     "bert",
                                        "bert_cased", "clip",   "gpt1",  "prefixed", "words"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i) check_golden(names[i]);
}

/* all-MiniLM-L6-v2, from its folder. */
static void test_minilm(void **state)
{
    (void)state;
    kh_tokenizer *t;
    assert_int_equal(kh_tokenizer_open_folder(&t, kh_test_need_model("minilm")), KH_OK);
    const kh_special_ids *s = kh_tokenizer_special(t);
    assert_int_equal(s->cls, 101);
    assert_int_equal(s->sep, 102);
    assert_int_equal(s->mask, 103);
    assert_int_equal(s->pad, 0);
    assert_int_equal(kh_tokenizer_size(t), 30522);
    check_hashes(t, "minilm");
    check_pairs(t, "minilm");
    kh_tokenizer_close(t);
}

/* Letters at both ends, and no marker: what merged blanks and a first blank leave alone. */
static int is_inner(const kh_corpus_line *line)
{
    if (!line->size || memchr(line->data, '<', line->size)) return 0;
    unsigned char ends[2] = {(unsigned char)line->data[0],
                             (unsigned char)line->data[line->size - 1]};
    for (int i = 0; i < 2; ++i)
        if (ends[i] <= ' ' || ends[i] >= 0x7F) return 0;
    return 1;
}

/* The ids of a tokenizer that went through GGUF: how many lines differ from the golden's. */
static size_t differing_lines(const kh_tokenizer *t, const char *name, int inner)
{
    char path[256], *data;
    size_t size, differ = 0;
    uint32_t count;
    kh_tokens ids = {0};
    snprintf(path, sizeof path, FOLDER "%s.bin", name);
    assert_int_equal(kh_file_read(&data, &size, path, 1 << 24), KH_OK);
    memcpy(&count, data + 8, 4);
    for (uint32_t i = 0; i < count; ++i) {
        uint32_t want;
        memcpy(&want, data + 12 + 12 * (size_t)i + 4, 4);
        tokenize(t, &ids, i, KH_TOKENIZE_SPECIAL);
        if (inner && !is_inner(&corpus[i])) continue;
        differ += hash_ids(&ids) != want;
    }
    kh_tokens_free(&ids);
    kh_free(data);
    return differ;
}

static void check_through_gguf(const char *name, const char *model, const char *pre, size_t most)
{
    kh_tokenizer *t = open_golden(name), *again;
    kh_gguf *file;
    assert_int_equal(kh_gguf_new(&file, name), KH_OK);
    if (kh_tokenizer_describe(t, file) != KH_OK) fail_msg("%s", kh_last_error());
    if (kh_tokenizer_open(&again, file) != KH_OK) fail_msg("%s", kh_last_error());
    assert_string_equal(kh_tokenizer_model(again), model);
    assert_string_equal(kh_tokenizer_pre(again), pre);
    size_t differ = differing_lines(again, name, !strcmp(name, "xlmr"));
    if (differ > most) fail_msg("%s: %zu lines differ behind GGUF", name, differ);
    kh_tokenizer_close(again);
    kh_gguf_close(file);
    kh_tokenizer_close(t);
}

static void test_through_gguf(void **state)
{
    (void)state;
    check_through_gguf("gpt2", "gpt2", "gpt-2", 0);
    check_through_gguf("llama3", "gpt2", "llama-bpe", 0);
    check_through_gguf("bert", "bert", "", 0);
    check_through_gguf("llama2", "llama", "", 0);
    check_through_gguf("gemma", "llama", "", 0);
    /* a replaced character takes the rest of its grapheme along in tokenizers; in SentencePiece, and
     * for GGUF, it does not */
    check_through_gguf("t5", "t5", "", 6);
    check_through_gguf("mt5", "t5", "", 8);
    check_through_gguf("xlmr", "t5", "", 2);
}

static void test_not_in_gguf(void **state)
{
    static const char *const cases[][2] = {
        {"qwen2", "\"<tool>\", which is found only as a word"},
        {"roberta", "no name for a pre-tokenizer"},
        {"bert_cased", "\"Hello\", which is found only as a word"},
        {"clip", "a suffix at their end"},
        {"gpt1", "a suffix at their end"},
        {"prefixed", "\"quick\", which is found only as a word"},
        {"words", "whole words (WordLevel)"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        kh_tokenizer *t = open_golden(cases[i][0]);
        kh_gguf *file;
        assert_int_equal(kh_gguf_new(&file, "x"), KH_OK);
        assert_int_equal(kh_tokenizer_describe(t, file), KH_ERR_UNSUPPORTED);
        if (!strstr(kh_last_error(), cases[i][1])) fail_msg("%s", kh_last_error());
        kh_gguf_close(file);
        kh_tokenizer_close(t);
    }
}

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    kh_outfile *file;
    assert_int_equal(kh_outfile_open(&file, path), KH_OK);
    assert_int_equal(kh_outfile_write(file, text, strlen(text)), KH_OK);
    assert_int_equal(kh_outfile_commit(file), KH_OK);
}

static void remove_file(const char *folder, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(unlink(path), 0);
}

static int is_text(kh_slice text, const char *want)
{
    return text.size == strlen(want) && !memcmp(text.data, want, text.size);
}

static void check_folder(const char *folder)
{
    kh_tokenizer *t;
    if (kh_tokenizer_open_folder(&t, folder) != KH_OK) fail_msg("%s", kh_last_error());
    const kh_special_ids *s = kh_tokenizer_special(t);
    assert_int_equal(s->bos, kh_token_find(t, "<s>", 3));
    assert_int_equal(s->eos, kh_token_find(t, "</s>", 4)); /* tokenizer_config.json wins */
    assert_int_equal(s->pad, 5);                           /* by id */
    assert_int_equal(s->mask, -1);                         /* no such piece */
    assert_int_equal(s->add_bos, 1);
    assert_int_equal(s->add_eos, 0);
    assert_true(kh_token_ends(t, s->eos));
    assert_true(kh_token_ends(t, 7) && kh_token_ends(t, 9)); /* of generation_config.json */
    assert_false(kh_token_ends(t, 8));
    assert_true(is_text(kh_tokenizer_chat_template(t, NULL), "{{ messages }}"));
    assert_true(is_text(kh_tokenizer_chat_template(t, "tools"), "{{ tools }}"));
    assert_true(is_text(kh_tokenizer_chat_template(t, "rag"), ""));
    kh_gguf *file;
    kh_tokenizer *again;
    assert_int_equal(kh_gguf_new(&file, "x"), KH_OK);
    assert_int_equal(kh_tokenizer_describe(t, file), KH_OK);
    assert_int_equal(kh_tokenizer_open(&again, file), KH_OK);
    assert_memory_equal(kh_tokenizer_special(again), s, sizeof *s);
    assert_true(is_text(kh_tokenizer_chat_template(again, "default"), "{{ messages }}"));
    assert_true(is_text(kh_tokenizer_chat_template(again, "tools"), "{{ tools }}"));
    kh_tokenizer_close(again);
    kh_gguf_close(file);
    kh_tokenizer_close(t);
}

static void test_folder(void **state)
{
    (void)state;
    static const char *const files[][2] = {
        {"special_tokens_map.json", "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"<s>\"}}"},
        {"tokenizer_config.json",
         "{\"eos_token\":{\"content\":\"</s>\"},\"mask_token\":\"[MASK]\",\"model_max_length\":"
         "1000000000000000019884624838656,\"chat_template\":[{\"name\":\"default\",\"template\":"
         "\"{{ messages }}\"},{\"name\":\"tools\",\"template\":\"{{ tools }}\"}]}"},
        {"generation_config.json", "{\"eos_token_id\":[7,9,99999]}"},
        {"config.json", "{\"pad_token_id\":5,\"bos_token_id\":3,\"eos_token_id\":null}"},
    };
    char folder[] = "/tmp/keyhole-tokenizer-XXXXXX", *json;
    size_t size;
    kh_tokenizer *t;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(kh_tokenizer_open_folder(&t, folder), KH_ERR_IO);
    assert_null(t);
    assert_non_null(strstr(kh_last_error(), "has no tokenizer.json"));
    assert_int_equal(kh_file_read(&json, &size, FOLDER "llama2.json", 1 << 20), KH_OK);
    write_file(folder, "tokenizer.json", json);
    kh_free(json);
    for (size_t i = 0; i < 4; ++i) write_file(folder, files[i][0], files[i][1]);
    check_folder(folder);
    write_file(folder, "chat_template.jinja", "{{ file }}");
    assert_int_equal(kh_tokenizer_open_folder(&t, folder), KH_OK);
    assert_true(is_text(kh_tokenizer_chat_template(t, NULL), "{{ file }}"));
    kh_tokenizer_close(t);
    write_file(folder, "config.json", "[1");
    assert_int_equal(kh_tokenizer_open_folder(&t, folder), KH_ERR_FORMAT);
    assert_non_null(strstr(kh_last_error(), "config.json"));
    for (size_t i = 0; i < 4; ++i) remove_file(folder, files[i][0]);
    remove_file(folder, "chat_template.jinja");
    remove_file(folder, "tokenizer.json");
    assert_int_equal(rmdir(folder), 0);
}

static void test_nothing_leaks(void **state)
{
    (void)state;
    assert_int_equal(kh_alloc_get_stats().live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),      cmocka_unit_test(test_minilm),
        cmocka_unit_test(test_through_gguf), cmocka_unit_test(test_not_in_gguf),
        cmocka_unit_test(test_folder),       cmocka_unit_test(test_nothing_leaks),
    };
    return cmocka_run_group_tests(tests, load_corpus, free_corpus);
}
