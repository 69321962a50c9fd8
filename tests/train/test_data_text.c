/* Texts, lines of JSON and folders as documents: which bytes, which tokens, which of them have a loss,
 * the same whether kept or read each time; and what is wrong with a file in one sentence. */
#include "base/alloc.h"
#include "base/buf.h"
#include "support/data_case.h"
#include "tokens/tokenizer.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static kh_model *bpe, *spm;
static const kh_source_options read_each_time = {.store = 1};

static int set_up(void **state)
{
    (void)state;
    json_set_alloc_funcs(kh_alloc, kh_free);
    bpe = kh_test_vocabulary("qwen2");
    spm = kh_test_vocabulary("spm");
    kh_test_folder();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    kh_model_close(bpe);
    kh_model_close(spm);
    kh_test_folder_remove();
    return 0;
}

static size_t documents(const kh_source *source)
{
    kh_source_info info;
    kh_source_get_info(source, &info);
    return (size_t)info.documents;
}

/* Document `index` has to be this text, tokenised alone. */
static void expect(kh_source *source, uint64_t index, const kh_model *model, const char *text,
                   size_t size, unsigned flags)
{
    kh_tokens ids = {0};
    assert_int_equal(kh_tokenize(model->tokenizer, &ids, text, size, flags), KH_OK);
    kh_test_document(source, index, ids.ids, ids.count, 0, ids.count);
    kh_tokens_free(&ids);
}

static void test_files(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        const char *separator;
        const char *documents[4];
    } cases[] = {
        {"one text\nof two lines\n", 0, NULL, {"one text\nof two lines\n"}},
        {"\xEF\xBB\xBFmarked", 0, NULL, {"marked"}},
        {"a b\r\n--\r\nc d\r\n--\r\n", 0, "--", {"a b\r\n", "c d\r\n"}},
        {"--\n\n--\nx --\n--y\n--", 0, "--", {"\n", "x --\n--y\n"}},
        {"one\n\ntwo\nlines\n\n\nthree", 0, "", {"one\n", "two\nlines\n", "three"}},
        {"nul\0inside\0", 11, NULL, {NULL}},
        {"\xff\xfe broken \xc3( \xe2\x82", 0, NULL, {"\xff\xfe broken \xc3( \xe2\x82"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int each = 0; each < 2; each++) {
            size_t size = cases[i].size ? cases[i].size : strlen(cases[i].bytes), n = 0;
            kh_source_options o = {.separator = cases[i].separator, .store = (size_t)each};
            const char *path = kh_test_write("a.txt", cases[i].bytes, size);
            kh_source *source = kh_test_source(path, bpe, &o);
            for (; n < 4 && cases[i].documents[n]; n++)
                expect(source, n, bpe, cases[i].documents[n], strlen(cases[i].documents[n]), 0);
            if (!n) expect(source, n++, bpe, cases[i].bytes, size, 0);
            assert_int_equal(documents(source), n);
            kh_train_example e;
            assert_int_equal(kh_source_get(source, n, &e), KH_ERR_ARGUMENT);
            kh_source_close(source);
        }
}

static void test_edges(void **state)
{
    (void)state;
    const char *path = kh_test_write_text("a.txt", "Hello there");
    const kh_special_ids *special = kh_tokenizer_special(spm->tokenizer);
    kh_tokens plain = {0};
    assert_int_equal(kh_tokenize(spm->tokenizer, &plain, "Hello there", 11, 0), KH_OK);
    assert_true(special->add_bos && special->bos >= 0 && special->eos >= 0);
    for (int bos = 0; bos < 3; bos++)
        for (int eos = 0; eos < 3; eos++) {
            kh_source_options o = {.bos = (kh_edge)bos, .eos = (kh_edge)eos};
            kh_source *source = kh_test_source(path, spm, &o);
            int32_t want[64];
            size_t n = 0;
            if (bos != KH_EDGE_OMIT) want[n++] = special->bos;
            memcpy(want + n, plain.ids, plain.count * sizeof *want);
            n += plain.count;
            if (eos == KH_EDGE_ADD || (eos == KH_EDGE_DEFAULT && special->add_eos))
                want[n++] = special->eos;
            kh_test_document(source, 0, want, n, 0, n);
            kh_source_close(source);
        }
    kh_tokens_free(&plain);
    kh_tokenizer *bert;
    assert_int_equal(kh_tokenizer_open_folder(&bert, "tests/golden/families/bert"), KH_OK);
    kh_source *source; /* [CLS] ... [SEP] by its own template */
    kh_train_example e;
    assert_int_equal(kh_source_open(&source, &path, 1, bert, NULL), KH_OK);
    assert_int_equal(kh_source_get(source, 0, &e), KH_OK);
    assert_int_equal(e.tokens[0], kh_tokenizer_special(bert)->cls);
    assert_int_equal(e.targets[e.n - 1], kh_tokenizer_special(bert)->sep);
    kh_source_close(source);
    kh_tokenizer_close(bert);
}

static void test_markers(void **state)
{
    (void)state;
    static const char text[] = "a<|im_end|>b";
    const char *path = kh_test_write_text("a.txt", text);
    kh_source_options o = {.markers = KH_MARKERS_ARE_TOKENS};
    kh_source *plain = kh_test_source(path, bpe, NULL), *marked = kh_test_source(path, bpe, &o);
    expect(plain, 0, bpe, text, strlen(text), 0);
    expect(marked, 0, bpe, text, strlen(text), KH_TOKENIZE_SPECIAL);
    kh_train_example e;
    assert_int_equal(kh_source_get(marked, 0, &e), KH_OK);
    assert_int_equal(e.n, 2);
    kh_source_close(plain);
    kh_source_close(marked);
}

static void test_folder(void **state)
{
    (void)state;
    char path[128], inner[160];
    const char *last = kh_test_write_text("z.txt", "the last file");
    snprintf(path, sizeof path, "%.*s", (int)(strrchr(last, '/') - last), last);
    kh_test_write_text("a.txt", "the first file");
    kh_test_write_text("m.jsonl", "{\"text\": \"in lines\"}\n\n{\"text\": \"\"}\n");
    kh_test_write_text(".hidden", "never");
    snprintf(inner, sizeof inner, "%s/inner", path);
    assert_int_equal(mkdir(inner, 0700), 0);
    kh_source *source = kh_test_source(path, bpe, NULL);
    kh_source_info info;
    kh_source_get_info(source, &info);
    assert_int_equal(info.documents, 4);
    assert_int_equal(info.files, 3);
    assert_int_equal(info.skipped, 1);
    expect(source, 0, bpe, "the first file", 14, 0);
    expect(source, 1, bpe, "in lines", 8, 0);
    expect(source, 3, bpe, "the last file", 13, 0);
    kh_source_close(source);
    assert_int_equal(rmdir(inner), 0);
    kh_test_folder_remove();
    kh_test_folder();
}

/* What is kept as tokens and what is tokenised each time give the same rows. */
static void test_kept_and_not(void **state)
{
    (void)state;
    const char *path = kh_test_write_text(
        "a.jsonl",
        "{\"text\": \"one two three\"}\n{\"prompt\": \"ask\", \"completion\": \" tell\"}\n"
        "{\"text\": \"\"}\n{\"text\": \"\\u00e9t\\u00e9 \\ud83d\\ude00\"}\n");
    kh_source *kept = kh_test_source(path, bpe, NULL);
    kh_source *each = kh_test_source(path, bpe, &read_each_time);
    assert_int_equal(documents(kept), 4);
    assert_int_equal(documents(each), 4);
    for (uint64_t i = 8; i-- > 0;) {
        kh_train_example a, b;
        assert_int_equal(kh_source_get(kept, i % 4, &a), KH_OK);
        assert_int_equal(kh_source_get(each, i % 4, &b), KH_OK);
        assert_int_equal(a.n, b.n);
        if (!a.n) continue;
        assert_memory_equal(a.tokens, b.tokens, a.n * sizeof *a.tokens);
        assert_memory_equal(a.targets, b.targets, a.n * sizeof *a.targets);
    }
    kh_source_close(kept);
    kh_source_close(each);
}

/* A large text that is not kept is cut at line ends; nothing is lost between the parts. */
static void test_cut(void **state)
{
    (void)state;
    kh_buf text = {0}, back = {0};
    for (int i = 0; i < 300; i++)
        assert_int_equal(
            kh_buf_format(&text, "line %d of a \xC3\xA9t\xC3\xA9%c", i, i % 7 == 3 ? ' ' : '\n'),
            KH_OK);
    for (int i = 0; i < 300; i++) assert_int_equal(kh_buf_text(&text, "\xE2\x82\xAC"), KH_OK);
    const char *path = kh_test_write("a.txt", text.data, text.size);
    for (size_t piece = 5; piece <= 5000; piece *= 10) {
        kh_source_options o = {.store = 1, .piece = piece};
        kh_source *source = kh_test_source(path, bpe, &o);
        kh_buf_clear(&back);
        for (size_t i = 0; i < documents(source); i++) {
            kh_train_example e;
            assert_int_equal(kh_source_get(source, i, &e), KH_OK);
            size_t before = back.size;
            for (size_t t = 0; t <= e.n && e.n; t++)
                assert_int_equal(kh_token_bytes(bpe->tokenizer, &back,
                                                t < e.n ? e.tokens[t] : e.targets[t - 1], 0, 0),
                                 KH_OK);
            assert_true(back.size - before <= piece);
        }
        if (piece >= 50) { /* shorter pieces may be a single token, which has no row */
            assert_int_equal(back.size, text.size);
            assert_memory_equal(back.data, text.data, text.size);
        }
        kh_source_close(source);
    }
    /* only the first part begins a document, only the last one ends it */
    for (int edges = 0; edges < 2; edges++) {
        kh_source_options o = {.store = 1, .piece = 1000};
        if (edges) o.bos = o.eos = KH_EDGE_ADD;
        kh_source *source = kh_test_source(path, spm, &o);
        size_t n = documents(source);
        assert_true(n > 3);
        for (size_t i = 0; i < n; i++) {
            kh_train_example e;
            assert_int_equal(kh_source_get(source, i, &e), KH_OK);
            assert_int_equal(e.tokens[0] == 1, i == 0);
            assert_int_equal(e.targets[e.n - 1] == 2, edges && i == n - 1);
        }
        kh_source_close(source);
    }
    kh_buf_free(&text);
    kh_buf_free(&back);
}

static void check_completion(const kh_model *model, const char *prompt, const char *answer)
{
    char line[512], whole[256];
    snprintf(line, sizeof line, "{\"prompt\": \"%s\", \"completion\": \"%s\"}\r\n", prompt, answer);
    snprintf(whole, sizeof whole, "%s%s", prompt, answer);
    const kh_special_ids *special = kh_tokenizer_special(model->tokenizer);
    kh_source *source = kh_test_source(kh_test_write_text("a.jsonl", line), model, NULL);
    kh_tokens front = {0}, ids = {0};
    if (special->add_bos) {
        assert_int_equal(kh_tokens_add(&ids, special->bos), KH_OK);
        assert_int_equal(kh_tokens_add(&front, special->bos), KH_OK);
    }
    assert_int_equal(kh_tokenize(model->tokenizer, &front, prompt, strlen(prompt), 0), KH_OK);
    assert_int_equal(kh_tokenize(model->tokenizer, &ids, whole, strlen(whole), 0), KH_OK);
    size_t first = 0;
    while (first < front.count && first < ids.count && front.ids[first] == ids.ids[first]) first++;
    if (special->eos >= 0) assert_int_equal(kh_tokens_add(&ids, special->eos), KH_OK);
    kh_test_document(source, 0, ids.ids, ids.count, first, ids.count);
    /* the text that is learned ends in the answer and has little more in front of it */
    kh_buf learned = {0};
    for (size_t i = first; i < ids.count; i++)
        assert_int_equal(kh_token_bytes(model->tokenizer, &learned, ids.ids[i], 0, 0), KH_OK);
    size_t n = strlen(answer);
    assert_true(learned.size >= n && learned.size <= n + 8);
    assert_memory_equal(learned.data + learned.size - n, answer, n);
    kh_buf_free(&learned);
    kh_tokens_free(&front);
    kh_tokens_free(&ids);
    kh_source_close(source);
}

static void test_completions(void **state)
{
    (void)state;
    const kh_model *models[] = {bpe, spm};
    for (size_t i = 0; i < 2; i++) {
        check_completion(models[i], "What is two and two?", " Four.");
        check_completion(models[i], "What is two and t", "wo? No."); /* a border inside a word */
        check_completion(models[i], "", "only an answer");
        check_completion(models[i], "only a prompt ", "4");
    }
}

static void refused(const char *name, const char *text, const kh_source_options *options,
                    kh_status status, const char *sentence)
{
    const char *path = kh_test_write_text(name, text);
    uint64_t live = kh_alloc_get_stats().live;
    kh_source *source;
    kh_status found = kh_source_open(&source, &path, 1, bpe->tokenizer, options);
    if (found != status || !strstr(kh_last_error(), sentence))
        fail_msg("'%s': %d, \"%s\" (expected %d, \"%s\")", text, found, kh_last_error(), status,
                 sentence);
    assert_null(source);
    assert_int_equal(kh_alloc_get_stats().live, live);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *line, *sentence;
    } lines[] = {
        {"{\"text\": \"a\"", "line 3: the object: JSON is expected"},
        {"[1]", "line 3: an object is expected, found a list"},
        {"{}", "line 3: \"text\", \"prompt\" and \"completion\", or \"messages\" are expected"},
        {"{\"text\": 3}", "line 3: \"text\" is expected to be a string, found an integer"},
        {"{\"prompt\": \"a\"}", "line 3: \"prompt\" and \"completion\" are expected to be strings, "
                                "found a string and nothing"},
        {"{\"messages\": 3}", "line 3: \"messages\" is expected to be a list"},
        {"{\"messages\": [3]}", "line 3: message 1: an object with"},
        {"{\"text\": \"a\\u0000b\"}", "line 3: the object: JSON is expected"},
        {"{\"text\": \"a\", \"text\": \"b\"}", "line 3: the object"},
        {"{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}",
         "\"messages\" need a chat template"},
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        char text[256];
        snprintf(text, sizeof text, "{\"text\": \"fine\"}\r\n\r\n%s\n{\"text\": \"fine\"}\n",
                 lines[i].line);
        refused("b.jsonl", text, NULL, i == 9 ? KH_ERR_UNSUPPORTED : KH_ERR_FORMAT,
                lines[i].sentence);
    }
    refused("e.jsonl", "", NULL, KH_ERR_ARGUMENT, "there is no document in it");
    refused("e.jsonl", "\n \r\n\n", NULL, KH_ERR_ARGUMENT, "there is no document in it");
    refused("e.txt", "--\n--\n", &(kh_source_options){.separator = "--"}, KH_ERR_ARGUMENT,
            "there is no document in it");
    kh_source *source;
    const char *missing = "/nonexistent/file.txt", *folder = kh_test_write_text("x", "x");
    assert_int_equal(kh_source_open(&source, &missing, 1, bpe->tokenizer, NULL), KH_ERR_NOT_FOUND);
    assert_int_equal(kh_source_open(&source, NULL, 0, bpe->tokenizer, NULL), KH_ERR_ARGUMENT);
    char empty[160];
    snprintf(empty, sizeof empty, "%s-folder", folder);
    assert_int_equal(mkdir(empty, 0700), 0);
    const char *path = empty;
    assert_int_equal(kh_source_open(&source, &path, 1, bpe->tokenizer, NULL), KH_ERR_NOT_FOUND);
    assert_int_equal(rmdir(empty), 0);
}

static void test_nothing_to_learn(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "a", "--\na\n--\nb"};
    for (size_t i = 0; i < 3; i++)
        for (size_t store = 0; store < 2; store++) {
            kh_source_options o = {.separator = i == 2 ? "--" : NULL, .store = store};
            kh_data_options d = {.length = 8};
            const char *path = kh_test_write("n.txt", texts[i], i == 2 ? 5 : strlen(texts[i]));
            kh_source *source = kh_test_source(path, bpe, &o);
            kh_data *data;
            kh_data_batch b;
            kh_status status = kh_data_open(&data, source, &d);
            if (status == KH_OK) status = kh_data_next(data, &b);
            if (i == 2) { /* "a\n" are two tokens: there is one row */
                assert_int_equal(status, KH_OK);
            } else {
                assert_int_equal(status, KH_ERR_ARGUMENT);
                assert_non_null(
                    strstr(kh_last_error(), "n.txt: no document has a token to predict"));
            }
            kh_data_close(data);
            kh_source_close(source);
        }
}

/* The pieces of one long text come in any order and are all there. */
static void test_pieces(void **state)
{
    (void)state;
    kh_buf text = {0};
    for (int i = 0; i < 400; i++)
        assert_int_equal(kh_buf_format(&text, "number %d and ", i * 37 % 400), KH_OK);
    kh_source *source = kh_test_source(kh_test_write("a.txt", text.data, text.size), bpe, NULL);
    kh_data_options o = {.length = 16, .batch = 3, .epochs = 1, .seed = 4};
    kh_data *data;
    kh_data_batch b;
    kh_source_info info;
    kh_data_counts counts;
    kh_source_get_info(source, &info);
    assert_int_equal(kh_data_open(&data, source, &o), KH_OK);
    kh_data_get_counts(data, &counts);
    assert_int_equal(counts.units, (info.rows + 15) / 16);
    o.length = 1; /* which divides everything */
    kh_data *single;
    assert_int_equal(kh_data_open(&single, source, &o), KH_OK);
    kh_data_get_counts(single, &counts);
    assert_int_equal(counts.units, info.rows);
    kh_data_close(single);
    kh_data_get_counts(data, &counts);
    uint8_t *seen = calloc(info.rows, 1);
    size_t rows = 0, backward = 0, last = 0;
    while (kh_data_next(data, &b) == KH_OK && b.batch.n) {
        kh_train_example e;
        assert_int_equal(kh_source_get(source, 0, &e), KH_OK);
        for (size_t i = 0; i < b.item_count; i++) {
            const kh_data_item *item = &b.items[i];
            backward += item->start < last;
            last = item->start;
            for (size_t t = 0; t < item->rows; t++, rows++) {
                assert_int_equal(seen[item->start + t]++, 0);
                assert_int_equal(b.batch.tokens[item->row + t], e.tokens[item->start + t]);
                assert_int_equal(b.targets[item->row + t], e.targets[item->start + t]);
            }
        }
    }
    assert_int_equal(rows, info.rows);
    assert_true(backward > counts.units / 4);
    free(seen);
    kh_data_close(data);
    kh_source_close(source);
    kh_buf_free(&text);
}

/* A position is refused for other texts, even of the same size, and for other options of theirs. */
static void test_other_texts(void **state)
{
    (void)state;
    kh_data_options o = {.length = 4};
    kh_source_options with = {.markers = KH_MARKERS_ARE_TOKENS};
    uint8_t position[KH_DATA_POSITION];
    for (int i = 0; i < 4; i++) {
        const char *path = kh_test_write_text("a.txt", i == 1 ? "a b c d e" : "a b c d f");
        kh_source *source = kh_test_source(path, bpe, i == 2 ? &with : NULL);
        kh_data *data;
        assert_int_equal(kh_data_open(&data, source, &o), KH_OK);
        if (i == 0) kh_data_save(data, position);
        assert_int_equal(kh_data_load(data, position, sizeof position),
                         i == 1 || i == 2 ? KH_ERR_STATE : KH_OK);
        kh_data_close(data);
        kh_source_close(source);
    }
}

static void test_long_line(void **state)
{
    (void)state;
    size_t size = (size_t)4 << 20;
    char *line = malloc(size);
    assert_non_null(line);
    memset(line, 'a', size);
    memcpy(line, "{\"text\": \"", 10);
    for (size_t i = 20; i < size; i += 11) line[i] = ' ';
    memcpy(line + size - 3, "\"}\n", 3);
    kh_source *source = kh_test_source(kh_test_write("l.jsonl", line, size), bpe, &read_each_time);
    expect(source, 0, bpe, line + 10, size - 13, 0);
    kh_source_close(source);
    free(line);
}

static void test_memory_that_ends(void **state)
{
    (void)state;
    const char *path = kh_test_write_text(
        "a.jsonl",
        "{\"text\": \"one two three\"}\n{\"prompt\": \"ask\", \"completion\": \" tell\"}\n");
    uint64_t live = kh_alloc_get_stats().live;
    for (size_t store = 0; store < 2; store++)
        for (uint64_t n = 1;; n++) {
            kh_source_options o = {.store = store};
            kh_source *source;
            kh_train_example e;
            kh_alloc_fail_at(n);
            kh_status status = kh_source_open(&source, &path, 1, bpe->tokenizer, &o);
            for (uint64_t i = 0; i < 2 && status == KH_OK; i++)
                status = kh_source_get(source, i, &e);
            kh_alloc_fail_at(0);
            kh_source_close(source);
            assert_int_equal(kh_alloc_get_stats().live, live);
            if (status == KH_OK) break;
            /* where jansson has no memory for a name it says that it expected one */
            if (status != KH_ERR_MEMORY && !strstr(kh_last_error(), "JSON is expected"))
                fail_msg("allocation %d: %s", (int)n, kh_last_error());
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_markers),
        cmocka_unit_test(test_folder),
        cmocka_unit_test(test_kept_and_not),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_completions),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_nothing_to_learn),
        cmocka_unit_test(test_other_texts),
        cmocka_unit_test(test_long_line),
        cmocka_unit_test(test_memory_that_ends),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
