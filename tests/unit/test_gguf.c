/* The GGUF reader over well-formed files: versions, kinds, lookups, mapped and split files. */
#include "support/gguf_writer.h"

#include "base/file.h"

#include <unistd.h>

static int slice_is(kh_slice s, const char *text)
{
    return s.size == strlen(text) && memcmp(s.data, text, s.size) == 0;
}

static void check_tensors(const kh_gguf *file)
{
    static const struct {
        const char *name;
        kh_type type;
        int n_dims;
        uint64_t dims[2];
        size_t size, offset;
    } expected[] = {
        {"one.weight", KH_TYPE_F32, 2, {4, 3}, 48, 0},
        {"two.weight", KH_TYPE_Q8_0, 2, {64, 2}, 136, 64},
        {"three.weight", KH_TYPE_Q6_K, 1, {256, 1}, 210, 224},
        {"four.weight", KH_TYPE_BF16, 1, {16, 1}, 32, 448},
    };
    assert_int_equal(kh_gguf_tensor_count(file), 4);
    for (size_t i = 0; i < 4; i++) {
        const kh_tensor *t = kh_gguf_tensor(file, expected[i].name);
        assert_ptr_equal(t, kh_gguf_tensor_at(file, i));
        assert_string_equal(t->name, expected[i].name);
        assert_int_equal(t->type, expected[i].type);
        assert_int_equal(t->n_dims, expected[i].n_dims);
        assert_int_equal(t->dims[0], expected[i].dims[0]);
        assert_int_equal(t->dims[1], expected[i].dims[1]);
        assert_int_equal(t->dims[2] * t->dims[3], 1);
        assert_int_equal(t->size, expected[i].size);
        for (size_t b = 0; b < t->size; b++)
            assert_int_equal(((const uint8_t *)t->data)[b],
                             (uint8_t)((expected[i].offset + b) * 7 + 1));
    }
    assert_null(kh_gguf_tensor(file, "five.weight"));
    assert_null(kh_gguf_tensor(file, ""));
}

static void check_values(const kh_gguf *file)
{
    const kh_gguf_value *strings = kh_gguf_find(file, "b.strings");
    assert_int_equal(kh_gguf_value_count(file), 20);
    assert_true(slice_is(kh_gguf_value_at(file, 1)->key, "a.u8"));
    assert_int_equal(strings->kind, KH_GGUF_ARRAY);
    assert_int_equal(strings->element, KH_GGUF_STRING);
    assert_int_equal(strings->count, 3);
    assert_true(slice_is(strings->strings[0], "one") && slice_is(strings->strings[1], ""));
    assert_true(slice_is(strings->strings[2], "\xe4\xb8\x89"));
    assert_int_equal(kh_gguf_find(file, "b.none")->count, 0);
    assert_null(kh_gguf_find(file, "a.u"));
    kh_slice text = {0};
    assert_int_equal(kh_gguf_opt_string(file, "general.architecture", &text), KH_OK);
    assert_true(slice_is(text, "llama"));
    assert_int_equal(kh_gguf_opt_string(file, "a.empty", &text), KH_OK);
    assert_true(slice_is(text, ""));
}

static void reads_versions(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        writer w;
        kh_gguf *file;
        whole(&w, version);
        assert_int_equal(kh_gguf_open_memory(&file, w.data, w.size, "memory"), KH_OK);
        assert_int_equal(kh_gguf_version(file), version);
        assert_int_equal(kh_gguf_size(file), w.size);
        assert_string_equal(kh_gguf_path(file), "memory");
        check_values(file);
        check_tensors(file);
        kh_gguf_close(file);
        drop(&w);
    }
    kh_gguf_close(NULL);
}

static void typed_integers(void **state)
{
    (void)state;
    writer w;
    kh_gguf *f;
    whole(&w, 3);
    assert_int_equal(kh_gguf_open_memory(&f, w.data, w.size, "memory"), KH_OK);
    uint64_t n = 77;
    assert_true(kh_gguf_u64(f, "a.u8", &n, 255) == KH_OK && n == 200);
    assert_true(kh_gguf_u64(f, "a.u16", &n, UINT64_MAX) == KH_OK && n == 60000);
    assert_true(kh_gguf_u64(f, "a.i16", &n, UINT64_MAX) == KH_OK && n == 30000);
    assert_true(kh_gguf_u64(f, "a.u32", &n, UINT64_MAX) == KH_OK && n == 4000000000u);
    assert_true(kh_gguf_u64(f, "a.u64", &n, UINT64_MAX) == KH_OK && n == 1ull << 63);
    n = 77;
    assert_true(kh_gguf_opt_u64(f, "absent", &n, 9) == KH_OK && n == 77);
    refused(kh_gguf_u64(f, "absent", &n, 9), KH_ERR_FORMAT, "memory: key 'absent'", "missing");
    refused(kh_gguf_u64(f, "a.u16", &n, 59999), KH_ERR_FORMAT, "memory: key 'a.u16'", "59999");
    refused(kh_gguf_opt_u64(f, "a.i32", &n, 9), KH_ERR_FORMAT, "memory: key 'a.i32'", "-5");
    refused(kh_gguf_u64(f, "a.i64", &n, 9), KH_ERR_FORMAT, "a.i64", "natural");
    refused(kh_gguf_u64(f, "a.f32", &n, 9), KH_ERR_FORMAT, "a.f32", "found f32");
    refused(kh_gguf_u64(f, "a.yes", &n, 9), KH_ERR_FORMAT, "a.yes", "found bool");
    refused(kh_gguf_u64(f, "b.i32", &n, 9), KH_ERR_FORMAT, "b.i32", "found array of i32");
    refused(kh_gguf_u64(f, "a.empty", &n, 9), KH_ERR_FORMAT, "a.empty", "found string");
    assert_int_equal(n, 77);

    const kh_gguf_value *array = kh_gguf_find(f, "b.i32"), *bools = kh_gguf_find(f, "b.bool");
    assert_true(kh_gguf_element_u64(array, 2, &n) == KH_OK && n == 9);
    assert_true(kh_gguf_element_u64(bools, 0, &n) == KH_OK && n == 1);
    assert_true(kh_gguf_element_u64(bools, 1, &n) == KH_OK && n == 0);
    assert_true(kh_gguf_element_u64(kh_gguf_find(f, "a.u8"), 12345, &n) == KH_OK && n == 200);
    refused(kh_gguf_element_u64(array, 1, &n), KH_ERR_FORMAT, "b.i32", "-8");
    refused(kh_gguf_element_u64(array, 3, &n), KH_ERR_ARGUMENT, "b.i32", "3");
    refused(kh_gguf_element_u64(kh_gguf_find(f, "b.none"), 0, &n), KH_ERR_ARGUMENT, "b.none", "0");
    refused(kh_gguf_element_u64(kh_gguf_find(f, "b.strings"), 0, &n), KH_ERR_FORMAT, "b.strings",
            "array of string");
    kh_gguf_close(f);
    drop(&w);
}

static void typed_others(void **state)
{
    (void)state;
    writer w;
    kh_gguf *f;
    whole(&w, 3);
    assert_int_equal(kh_gguf_open_memory(&f, w.data, w.size, "memory"), KH_OK);
    double x = 3;
    int flag = 5;
    kh_slice text = {"x", 1};
    assert_true(kh_gguf_opt_f64(f, "absent", &x) == KH_OK && x == 3);
    assert_true(kh_gguf_opt_f64(f, "a.f32", &x) == KH_OK && x == 1.5);
    assert_true(kh_gguf_opt_f64(f, "a.f64", &x) == KH_OK && x == 0.1);
    assert_true(kh_gguf_opt_f64(f, "a.i8", &x) == KH_OK && x == -100);
    assert_true(kh_gguf_opt_f64(f, "a.u64", &x) == KH_OK && x == 0x1p63);
    refused(kh_gguf_opt_f64(f, "a.nan", &x), KH_ERR_FORMAT, "memory: key 'a.nan'", "NaN");
    refused(kh_gguf_opt_f64(f, "a.inf", &x), KH_ERR_FORMAT, "memory: key 'a.inf'", "finite");
    refused(kh_gguf_opt_f64(f, "a.yes", &x), KH_ERR_FORMAT, "a.yes", "found bool");
    refused(kh_gguf_opt_f64(f, "b.i32", &x), KH_ERR_FORMAT, "b.i32", "array");
    assert_true(kh_gguf_element_f64(kh_gguf_find(f, "b.i32"), 1, &x) == KH_OK && x == -8);
    assert_true(kh_gguf_opt_bool(f, "a.yes", &flag) == KH_OK && flag == 1);
    assert_true(kh_gguf_opt_bool(f, "a.no", &flag) == KH_OK && flag == 0);
    assert_true(kh_gguf_opt_bool(f, "absent", &flag) == KH_OK && flag == 0);
    refused(kh_gguf_opt_bool(f, "a.u8", &flag), KH_ERR_FORMAT, "memory: key 'a.u8'", "bool");
    assert_true(kh_gguf_opt_string(f, "absent", &text) == KH_OK && text.size == 1);
    refused(kh_gguf_opt_string(f, "a.u8", &text), KH_ERR_FORMAT, "memory: key 'a.u8'", "string");
    kh_gguf_close(f);
    drop(&w);
}

static void finds_each_of_many(void **state)
{
    (void)state;
    enum { TENSORS = 5000, KEYS = 3000, WORDS = 60000 };
    writer w;
    kh_gguf *f;
    char name[64];
    head(&w, 3, TENSORS, KEYS + 1);
    for (uint32_t i = 0; i < KEYS; i++) {
        snprintf(name, sizeof name, "key.%u", i);
        key_u32(&w, name, i);
    }
    key_array(&w, "words", KH_GGUF_STRING, WORDS);
    for (int i = 0; i < WORDS; i++) {
        snprintf(name, sizeof name, "w%d", i);
        put_text(&w, name);
    }
    for (int i = 0; i < TENSORS; i++) {
        snprintf(name, sizeof name, "blk.%d.weight", i);
        tensor(&w, name, KH_TYPE_F16, 1, (uint64_t)i % 16 + 1);
    }
    data(&w, w.tensor_bytes);
    assert_int_equal(kh_gguf_open_memory(&f, w.data, w.size, "memory"), KH_OK);
    for (uint32_t i = 0; i < KEYS; i++) {
        uint64_t n = 0;
        snprintf(name, sizeof name, "key.%u", i);
        assert_true(kh_gguf_u64(f, name, &n, KEYS) == KH_OK && n == i);
    }
    for (int i = 0; i < TENSORS; i++) {
        snprintf(name, sizeof name, "blk.%d.weight", i);
        assert_ptr_equal(kh_gguf_tensor(f, name), kh_gguf_tensor_at(f, (size_t)i));
    }
    assert_null(kh_gguf_tensor(f, "blk.5000.weight"));
    snprintf(name, sizeof name, "w%d", WORDS - 1);
    assert_true(slice_is(kh_gguf_find(f, "words")->strings[WORDS - 1], name));
    kh_gguf_close(f);
    drop(&w);
}

/* A name that begins another one is not it, wherever the table (keyed anew each time) puts them. */
static void prefixes_are_other_names(void **state)
{
    (void)state;
    static const char *const names[] = {"ba", "bb", "bc", "bd", "be", "bf", "bg"};
    writer w;
    head(&w, 3, 0, 7);
    for (uint32_t i = 0; i < 7; i++) key_u32(&w, names[i], i);
    for (int again = 0; again < 50; again++) {
        kh_gguf *f;
        uint64_t n = 99;
        assert_int_equal(kh_gguf_open_memory(&f, w.data, w.size, "memory"), KH_OK);
        assert_null(kh_gguf_find(f, "b"));
        assert_null(kh_gguf_find(f, "baa"));
        assert_null(kh_gguf_find(f, ""));
        for (uint32_t i = 0; i < 7; i++)
            assert_true(kh_gguf_u64(f, names[i], &n, 9) == KH_OK && n == i);
        kh_gguf_close(f);
    }
    drop(&w);
}

/* ---- files */

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/test_gguf_XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command) == 0 ? 0 : -1;
}

static const char *store(const writer *w, const char *name)
{
    static char path[160];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    if (w->size) assert_int_equal(fwrite(w->data, 1, w->size, out), w->size);
    assert_int_equal(fclose(out), 0);
    return path;
}

static void whole_file(void **state)
{
    (void)state;
    writer w;
    kh_gguf *f;
    char first[17], second[17];
    whole(&w, 3);
    const char *path = store(&w, "whole.gguf");
    if (kh_gguf_open(&f, path) != KH_OK) fail_msg("%s", kh_last_error());
    assert_string_equal(kh_gguf_path(f), path);
    check_values(f);
    check_tensors(f);
    for (size_t i = 0; i < 4; i++) kh_gguf_release(f, kh_gguf_tensor_at(f, i));
    check_tensors(f);
    kh_gguf_identity(f, first);
    kh_gguf_close(f);
    assert_int_equal(strlen(first), 16);
    assert_int_equal(strspn(first, "0123456789abcdef"), 16);

    assert_int_equal(kh_gguf_open_memory(&f, w.data, w.size, "other name"), KH_OK);
    kh_gguf_identity(f, second);
    assert_string_equal(first, second);
    w.data[w.size - 1] ^= 1;
    kh_gguf_identity(f, second);
    assert_string_not_equal(first, second);
    w.data[w.size - 1] ^= 1;
    uint8_t *name = memmem(w.data, w.size, "llama", 5);
    assert_non_null(name);
    name[1] ^= 1;
    kh_gguf_identity(f, second);
    assert_string_not_equal(first, second);
    kh_gguf_close(f);
    drop(&w);

    refused(kh_gguf_open(&f, "/nowhere/x.gguf"), KH_ERR_NOT_FOUND, "/nowhere/x.gguf", "No such");
    assert_null(f);
    refused(kh_gguf_open(&f, folder), KH_ERR_IO, folder, "folder");
    w = (writer){0};
    put(&w, "", 0);
    refused(kh_gguf_open(&f, store(&w, "empty.gguf")), KH_ERR_FORMAT, "empty.gguf", "truncated");
    drop(&w);
}

/* A data section of 4 MiB: header, size and samples are hashed, not every byte. */
static void identity_samples(void **state)
{
    (void)state;
    writer w;
    kh_gguf *f;
    char first[17], second[17];
    head(&w, 3, 1, 0);
    tensor(&w, "big.weight", KH_TYPE_F16, 1024, 2048);
    data(&w, w.tensor_bytes);
    assert_int_equal(kh_gguf_open_memory(&f, w.data, w.size, "memory"), KH_OK);
    kh_gguf_identity(f, first);
    size_t begin = w.size - w.tensor_bytes;
    const size_t sampled[] = {begin, begin + 65535, w.size - 1, w.size - 65536};
    for (size_t i = 0; i < sizeof sampled / sizeof *sampled; i++) {
        w.data[sampled[i]] ^= 4;
        kh_gguf_identity(f, second);
        assert_string_not_equal(first, second);
        w.data[sampled[i]] ^= 4;
    }
    kh_gguf_identity(f, second);
    assert_string_equal(first, second);
    kh_gguf_close(f);
    drop(&w);
}

/* One part with one tensor; the first one carries the metadata. */
static void store_part(const char *name, unsigned no, unsigned count, int total,
                       const char *tensor_name)
{
    writer w;
    head(&w, 3, 1, no == 0 ? 4 : 3);
    KEY_FIXED(&w, "split.no", KH_GGUF_U16, uint16_t, (uint16_t)no);
    KEY_FIXED(&w, "split.count", KH_GGUF_U16, uint16_t, (uint16_t)count);
    KEY_FIXED(&w, "split.tensors.count", KH_GGUF_I32, int32_t, total);
    if (no == 0) key_text(&w, "general.architecture", "llama");
    tensor(&w, tensor_name, KH_TYPE_F32, 1, no + 1);
    data(&w, 4 * (no + 1));
    store(&w, name);
    drop(&w);
}

static const char *in_folder(const char *name)
{
    static char path[160];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void split_files(void **state)
{
    (void)state;
    const char *names[] = {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf",
                           "m-00003-of-00003.gguf"};
    const char *tensors[] = {"a", "b", "c"};
    char ids[3][17];
    for (unsigned i = 0; i < 3; i++) store_part(names[i], i, 3, 3, tensors[i]);
    for (int given = 0; given < 3; given++) {
        kh_gguf *f;
        kh_slice text = {0};
        if (kh_gguf_open(&f, in_folder(names[given])) != KH_OK) fail_msg("%s", kh_last_error());
        assert_string_equal(kh_gguf_path(f), in_folder(names[given]));
        assert_int_equal(kh_gguf_tensor_count(f), 3);
        assert_int_equal(kh_gguf_opt_string(f, "general.architecture", &text), KH_OK);
        assert_true(slice_is(text, "llama"));
        for (size_t i = 0; i < 3; i++) {
            const kh_tensor *t = kh_gguf_tensor(f, tensors[i]);
            assert_ptr_equal(t, kh_gguf_tensor_at(f, i));
            assert_int_equal(t->dims[0], i + 1);
            assert_int_equal(*(const uint8_t *)t->data, 1);
            kh_gguf_release(f, t);
            assert_int_equal(*(const uint8_t *)t->data, 1);
        }
        kh_gguf_identity(f, ids[given]);
        kh_gguf_close(f);
    }
    assert_string_equal(ids[0], ids[1]);
    assert_string_equal(ids[0], ids[2]);
}

static void bad_splits(void **state)
{
    (void)state;
    kh_gguf *f;
    store_part("gap-00001-of-00002.gguf", 0, 2, 2, "a");
    refused(kh_gguf_open(&f, in_folder("gap-00001-of-00002.gguf")), KH_ERR_NOT_FOUND,
            "gap-00002-of-00002.gguf", "No such");
    assert_null(f);
    store_part("gap-00002-of-00002.gguf", 0, 2, 2, "b");
    refused(kh_gguf_open(&f, in_folder("gap-00001-of-00002.gguf")), KH_ERR_FORMAT,
            "gap-00002-of-00002.gguf", "says 1 of 2");
    store_part("gap-00002-of-00002.gguf", 1, 3, 2, "b");
    refused(kh_gguf_open(&f, in_folder("gap-00001-of-00002.gguf")), KH_ERR_FORMAT,
            "gap-00002-of-00002.gguf", "says 2 of 3");
    store_part("gap-00002-of-00002.gguf", 1, 2, 5, "b");
    refused(kh_gguf_open(&f, in_folder("gap-00001-of-00002.gguf")), KH_ERR_FORMAT,
            "gap-00002-of-00002.gguf", "5 tensors are announced");
    store_part("gap-00002-of-00002.gguf", 1, 2, 2, "a");
    refused(kh_gguf_open(&f, in_folder("gap-00002-of-00002.gguf")), KH_ERR_FORMAT,
            "gap-00002-of-00002.gguf", "'a' appears twice");
    store_part("renamed.gguf", 0, 2, 2, "a");
    refused(kh_gguf_open(&f, in_folder("renamed.gguf")), KH_ERR_FORMAT, "renamed.gguf",
            "-00001-of-00002.gguf");
    store_part("odd-00001-of-00003.gguf", 0, 2, 2, "a");
    refused(kh_gguf_open(&f, in_folder("odd-00001-of-00003.gguf")), KH_ERR_FORMAT,
            "odd-00001-of-00003.gguf", "should end in");
    store_part("far-00001-of-00002.gguf", 7, 2, 2, "a");
    refused(kh_gguf_open(&f, in_folder("far-00001-of-00002.gguf")), KH_ERR_FORMAT, "far",
            "part 8 of 2");
    assert_null(f);
    /* a part alone in memory has no siblings */
    kh_map map;
    assert_int_equal(kh_map_open(&map, in_folder("renamed.gguf")), KH_OK);
    refused(kh_gguf_open_memory(&f, map.data, map.size, "memory"), KH_ERR_UNSUPPORTED, "memory",
            "split");
    kh_map_close(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_versions),
        cmocka_unit_test(typed_integers),
        cmocka_unit_test(typed_others),
        cmocka_unit_test(finds_each_of_many),
        cmocka_unit_test(prefixes_are_other_names),
        cmocka_unit_test(whole_file),
        cmocka_unit_test(identity_samples),
        cmocka_unit_test(split_files),
        cmocka_unit_test(bad_splits),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
