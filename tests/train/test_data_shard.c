/* Shards: what is written is read back to the bit; every truncation and a change of any byte of the
 * header or the ends is refused or reads other tokens, never beyond the file. */
#include "base/alloc.h"
#include "base/rng.h"
#include "support/data_case.h"
#include "train/data_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static kh_model *model;

static int set_up(void **state)
{
    (void)state;
    json_set_alloc_funcs(kh_alloc, kh_free);
    model = kh_test_vocabulary("qwen2");
    kh_test_folder();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    kh_model_close(model);
    kh_test_folder_remove();
    return 0;
}

static const char lines[] = "{\"text\": \"one two three\"}\n"
                            "{\"prompt\": \"ask me\", \"completion\": \" not now\"}\n"
                            "{\"text\": \"\"}\n"
                            "{\"text\": \"the last of them\"}\n";

static const char *written(const char *name, kh_source *source)
{
    const char *path = kh_test_write_text(name, "");
    if (kh_shard_write(path, source, model->tokenizer) != KH_OK) fail_msg("%s", kh_last_error());
    return path;
}

static void same(kh_source *a, kh_source *b, uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        kh_train_example x, y;
        assert_int_equal(kh_source_get(a, i, &x), KH_OK);
        assert_int_equal(kh_source_get(b, first + i, &y), KH_OK);
        assert_int_equal(x.n, y.n);
        for (size_t t = 0; t < x.n; t++) {
            assert_int_equal(x.tokens[t], y.tokens[t]);
            assert_int_equal(x.targets[t], y.targets[t]);
        }
    }
}

static void test_round_trip(void **state)
{
    (void)state;
    const char *texts[] = {kh_test_write_text("a.jsonl", lines),
                           kh_test_write_text("a.txt", "a plain text of some tokens")};
    char path[2][128];
    for (int i = 0; i < 2; i++) {
        kh_source *source = kh_test_source(texts[i], model, NULL);
        snprintf(path[i], sizeof path[i], "%s", written(i ? "b.khtok" : "a.khtok", source));
        kh_source *shard = kh_test_source(path[i], model, NULL);
        kh_source_info a, b;
        kh_source_get_info(source, &a);
        kh_source_get_info(shard, &b);
        assert_int_equal(a.documents, b.documents);
        assert_int_equal(a.rows, b.rows);
        assert_int_equal(a.skipped, b.skipped);
        same(source, shard, 0, a.documents);
        kh_source_close(shard);
        kh_source_close(source);
    }
    /* several shards are one source, which is written as one shard */
    const char *both[] = {path[0], path[1]};
    kh_source *together, *one, *first = kh_test_source(texts[0], model, NULL);
    assert_int_equal(kh_source_open(&together, both, 2, model->tokenizer, NULL), KH_OK);
    one = kh_test_source(written("c.khtok", together), model, NULL);
    same(first, one, 0, 4);
    same(together, one, 0, 5);
    kh_source_close(together);
    kh_source_close(one);
    kh_source_close(first);
    const char *mixed[] = {path[0], texts[0]};
    assert_int_equal(kh_source_open(&one, mixed, 2, model->tokenizer, NULL), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "cannot be mixed"));
}

/* A document's rows from the middle, as a loader asks for them. */
static void test_slices(void **state)
{
    (void)state;
    kh_source *text = kh_test_source(kh_test_write_text("a.jsonl", lines), model, NULL);
    kh_source *shard = kh_test_source(written("a.khtok", text), model, NULL);
    for (uint64_t i = 0; i < 4; i++) {
        kh_train_example whole, part;
        static int32_t tokens[64], targets[64];
        assert_int_equal(kh_source_get(text, i, &whole), KH_OK);
        for (size_t t = 0; t < whole.n; t++) {
            tokens[t] = whole.tokens[t];
            targets[t] = whole.targets[t];
        }
        size_t n = whole.n;
        for (size_t start = 0; start <= n + 1; start++)
            for (size_t most = 1; most <= n + 1; most++) {
                size_t want = start >= n ? 0 : n - start < most ? n - start : most;
                assert_int_equal(kh_source_slice(shard, i, start, most, &part), KH_OK);
                assert_int_equal(part.n, want);
                for (size_t t = 0; t < want; t++) {
                    assert_int_equal(part.tokens[t], tokens[start + t]);
                    assert_int_equal(part.targets[t], targets[start + t]);
                }
            }
    }
    kh_source_close(text);
    kh_source_close(shard);
}

static uint8_t *bytes_of(const char *path, size_t *size)
{
    char *data, *copy;
    assert_int_equal(kh_file_read(&data, size, path, 1 << 20), KH_OK);
    copy = malloc(*size);
    assert_non_null(copy);
    memcpy(copy, data, *size);
    kh_free(data);
    return (uint8_t *)copy;
}

static kh_status open_bytes(kh_source **out, const uint8_t *bytes, size_t size)
{
    const char *path = kh_test_write("bad.khtok", bytes, size);
    return kh_source_open(out, &path, 1, model->tokenizer, NULL);
}

static void refused(const uint8_t *bytes, size_t size, kh_status status, const char *sentence)
{
    kh_source *source;
    kh_status found = open_bytes(&source, bytes, size);
    if (found != status || !strstr(kh_last_error(), sentence))
        fail_msg("%d, \"%s\" (expected %d, \"%s\")", found, kh_last_error(), status, sentence);
    assert_null(source);
}

static void test_damaged(void **state)
{
    (void)state;
    kh_source *text = kh_test_source(kh_test_write_text("a.jsonl", lines), model, NULL), *source;
    size_t size;
    uint8_t *bytes = bytes_of(written("a.khtok", text), &size);
    kh_source_close(text);
    for (size_t n = 0; n < size; n++) refused(bytes, n, KH_ERR_FORMAT, "bad.khtok: ");
    refused(bytes, 0, KH_ERR_FORMAT, "a shard of tokens is expected");
    refused(bytes, size - 1, KH_ERR_FORMAT, "cut off or damaged");
    for (size_t at = 0; at < size; at++)
        for (int bit = 0; bit < 8; bit++) {
            bytes[at] ^= (uint8_t)(1 << bit);
            kh_status status = open_bytes(&source, bytes, size);
            if (at < 64 && (at != 16 || bit)) /* masked or not: both are sound */
                assert_int_not_equal(status, KH_OK);
            for (uint64_t i = 0; i < 4 && status == KH_OK; i++) {
                kh_train_example e;
                if (kh_source_get(source, i, &e) != KH_OK) continue;
                for (size_t t = 0; t < e.n; t++)
                    assert_in_range(e.tokens[t], 0, kh_tokenizer_size(model->tokenizer) - 1);
            }
            kh_source_close(source);
            bytes[at] ^= (uint8_t)(1 << bit);
        }
    uint32_t version = 2;
    memcpy(bytes + 8, &version, sizeof version);
    refused(bytes, size, KH_ERR_UNSUPPORTED, "a shard of version 2, expected 1");
    version = 1;
    memcpy(bytes + 8, &version, sizeof version);
    bytes[48] ^= 1;
    refused(bytes, size, KH_ERR_FORMAT, "written with another tokenizer");
    memset(bytes + 48, 0, 8); /* no digest: ids are checked when they are read */
    bytes[64 + 2] = 0xFF, bytes[64 + 3] = 0x7F;
    assert_int_equal(open_bytes(&source, bytes, size), KH_OK);
    kh_train_example e;
    assert_int_equal(kh_source_get(source, 0, &e), KH_ERR_FORMAT);
    assert_non_null(strstr(kh_last_error(), "bad.khtok: token 1 is the id 32767"));
    assert_int_equal(kh_source_get(source, 3, &e), KH_OK);
    kh_data_options o = {.length = 4, .order = KH_ORDER_GIVEN};
    kh_data *data;
    kh_data_batch b;
    assert_int_equal(kh_data_open(&data, source, &o), KH_OK);
    assert_int_equal(kh_data_next(data, &b), KH_ERR_FORMAT);
    kh_data_close(data);
    kh_source_close(source);
    free(bytes);
}

/* Headers and ends that contradict each other; the files are made without the code under test. */
static void test_contradictions(void **state)
{
    (void)state;
    static const struct {
        const char *name, *sentence; /* NULL: sound */
    } cases[] = {
        {"two_bytes", NULL},
        {"four_bytes", NULL},
        {"masked", NULL},
        {"empty", NULL},
        {"cut", "cut off or damaged"},
        {"header_only", "cut off or damaged"},
        {"version", "a shard of version 2"},
        {"width", "ids of 3 bytes"},
        {"flags", "flags 2"},
        {"reserved", "flags 0"},
        {"vocabulary", "does not fit ids of 2 bytes"},
        {"huge_count", "cut off or damaged"},
        {"wrapping_count", "cut off or damaged"},
        {"descending", "document 1 ends at token 3 of 9, the one before at 5"},
        {"beyond", "document 3 ends at token 90 of 9"},
        {"short", "the last document ends at token 8 of 9"},
        {"other", "a shard of tokens is expected"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[128], *data;
        size_t size;
        kh_token_store store;
        snprintf(path, sizeof path, "tests/fuzz/corpus/shard/%s", cases[i].name);
        assert_int_equal(kh_file_read(&data, &size, path, 1 << 20), KH_OK);
        kh_status status = kh_shard_parse(&store, (const uint8_t *)data, size, path);
        assert_int_equal(status == KH_OK, cases[i].sentence == NULL);
        if (cases[i].sentence && !strstr(kh_last_error(), cases[i].sentence))
            fail_msg("\"%s\" (expected \"%s\")", kh_last_error(), cases[i].sentence);
        kh_free(data);
    }
}

/* ---- ids of four bytes, and examples that do not fit ---- */

typedef struct made {
    int label, gap;
    int32_t big;
} made;

static kh_status made_get(void *context, uint64_t index, kh_train_example *out)
{
    static int32_t tokens[3], targets[3];
    const made *m = context;
    for (int t = 0; t < 3; t++) {
        tokens[t] = (int32_t)index + t;
        targets[t] = tokens[t] + 1 + m->gap;
    }
    if (m->big) targets[2] = m->big;
    *out = (kh_train_example){tokens, targets, 3, m->label, 0};
    return KH_OK;
}

static void test_not_written(void **state)
{
    (void)state;
    made cases[] = {{-1, 0, 0}, {2, 0, 0}, {-1, 1, 0}, {-1, 0, 1 << 20}};
    static const kh_status answers[] = {KH_OK, KH_ERR_UNSUPPORTED, KH_ERR_UNSUPPORTED,
                                        KH_ERR_ARGUMENT};
    for (int i = 0; i < 4; i++) {
        char path[128];
        kh_source *source;
        kh_source_calls calls = {"made", &cases[i], 5, made_get};
        assert_int_equal(kh_source_open_calls(&source, &calls), KH_OK);
        snprintf(path, sizeof path, "%s.khtok", kh_test_write_text("x", ""));
        remove(path);
        assert_int_equal(kh_shard_write(path, source, model->tokenizer), answers[i]);
        FILE *file = fopen(path, "rb"); /* a file appears whole or not at all */
        assert_int_equal(file != NULL, i == 0);
        if (file) fclose(file);
        kh_source_close(source);
    }
}

static void test_memory_that_ends(void **state)
{
    (void)state;
    kh_source *text = kh_test_source(kh_test_write_text("a.jsonl", lines), model, NULL);
    char path[128];
    snprintf(path, sizeof path, "%s", written("a.khtok", text));
    uint64_t live = kh_alloc_get_stats().live;
    for (uint64_t n = 1;; n++) {
        const char *list = path;
        kh_source *source = NULL;
        kh_train_example e;
        kh_alloc_fail_at(n);
        kh_status status = kh_shard_write(path, text, model->tokenizer);
        if (status == KH_OK) status = kh_source_open(&source, &list, 1, model->tokenizer, NULL);
        if (status == KH_OK) status = kh_source_get(source, 1, &e);
        kh_alloc_fail_at(0);
        kh_source_close(source);
        if (status == KH_OK) break;
        assert_int_equal(status, KH_ERR_MEMORY);
    }
    kh_train_example e; /* buffers of the first source may have grown */
    assert_int_equal(kh_source_get(text, 0, &e), KH_OK);
    assert_in_range(kh_alloc_get_stats().live, live, live + 2);
    kh_source_close(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_slices),
        cmocka_unit_test(test_contradictions), cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_not_written),    cmocka_unit_test(test_memory_that_ends),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
