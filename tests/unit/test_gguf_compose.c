/* Files put together in memory: every reader serves them, whatever fails leaves them whole, and
 * what they keep is closed with them. */
#include "support/gguf_same.h"

#include "base/alloc.h"
#include "base/file.h"

#include <math.h>
#include <unistd.h>

static kh_slice slice(const char *text)
{
    return (kh_slice){text, strlen(text)};
}

static int slice_is(kh_slice s, const char *text)
{
    return s.size == strlen(text) && memcmp(s.data, text, s.size) == 0;
}

static void a_copy_is_the_file(void **state)
{
    (void)state;
    writer w;
    kh_gguf *file, *copy, *again;
    char first[17], second[17];
    whole(&w, 3);
    GOOD(kh_gguf_open_memory(&file, w.data, w.size, "memory"));
    GOOD(copy_of(&copy, file));
    same_values(file, copy);
    same_tensors(file, copy);
    assert_string_equal(kh_gguf_path(copy), "copy");
    assert_int_equal(kh_gguf_version(copy), 3);
    assert_true(kh_gguf_size(copy) > w.tensor_bytes - 32 && kh_gguf_size(copy) < w.size);
    assert_null(kh_gguf_find(copy, "a.u"));
    assert_null(kh_gguf_tensor(copy, "five.weight"));
    kh_gguf_release(copy, kh_gguf_tensor_at(copy, 0));
    same_tensors(file, copy);

    GOOD(copy_of(&again, copy));
    same_values(file, again);
    kh_gguf_identity(copy, first);
    kh_gguf_identity(again, second);
    assert_string_equal(first, second);
    w.data[w.size - 1] ^= 1;
    kh_gguf_identity(again, second);
    assert_string_not_equal(first, second);
    w.data[w.size - 1] ^= 1;
    GOOD(kh_gguf_set_u64(again, "one.more", KH_GGUF_U8, 1));
    kh_gguf_identity(again, second);
    assert_string_not_equal(first, second);
    kh_gguf_close(again);
    kh_gguf_close(copy);
    kh_gguf_close(file);
    drop(&w);
}

static void scalars_and_arrays(void **state)
{
    (void)state;
    kh_gguf *f;
    GOOD(kh_gguf_new(&f, "made"));
    assert_int_equal(kh_gguf_value_count(f) + kh_gguf_tensor_count(f), 0);
    assert_null(kh_gguf_find(f, "x"));
    assert_null(kh_gguf_tensor(f, "x"));
    GOOD(kh_gguf_set_u64(f, "u8", KH_GGUF_U8, 255));
    GOOD(kh_gguf_set_u64(f, "i16", KH_GGUF_I16, 32767));
    GOOD(kh_gguf_set_u64(f, "u32", KH_GGUF_U32, 4000000000u));
    GOOD(kh_gguf_set_u64(f, "u64", KH_GGUF_U64, UINT64_MAX));
    GOOD(kh_gguf_set_u64(f, "yes", KH_GGUF_BOOL, 1));
    GOOD(kh_gguf_set_f32(f, "f32", 1.5f));
    GOOD(kh_gguf_set_string(f, "text", slice("three words here")));
    GOOD(kh_gguf_set_string(f, "none", (kh_slice){NULL, 0}));
    GOOD(kh_gguf_set_strings(f, "words", (kh_slice[]){slice("a"), slice(""), slice("cc")}, 3));
    GOOD(kh_gguf_set_strings(f, "no.words", NULL, 0));
    GOOD(kh_gguf_set_array(f, "ids", KH_GGUF_I32, (int32_t[]){7, -8, 9}, 3));
    GOOD(kh_gguf_set_array(f, "no.ids", KH_GGUF_I32, NULL, 0));
    uint64_t n = 0;
    double x = 0;
    int flag = 0;
    kh_slice text = {0};
    assert_true(kh_gguf_u64(f, "u8", &n, 255) == KH_OK && n == 255);
    assert_true(kh_gguf_u64(f, "i16", &n, UINT64_MAX) == KH_OK && n == 32767);
    assert_true(kh_gguf_u64(f, "u32", &n, UINT64_MAX) == KH_OK && n == 4000000000u);
    assert_true(kh_gguf_u64(f, "u64", &n, UINT64_MAX) == KH_OK && n == UINT64_MAX);
    assert_true(kh_gguf_opt_bool(f, "yes", &flag) == KH_OK && flag == 1);
    assert_true(kh_gguf_opt_f64(f, "f32", &x) == KH_OK && x == 1.5);
    assert_true(kh_gguf_opt_string(f, "text", &text) == KH_OK);
    assert_true(slice_is(text, "three words here"));
    assert_true(kh_gguf_opt_string(f, "none", &text) == KH_OK && text.size == 0);
    assert_true(slice_is(kh_gguf_find(f, "words")->strings[2], "cc"));
    assert_int_equal(kh_gguf_find(f, "no.words")->count, 0);
    assert_true(kh_gguf_element_f64(kh_gguf_find(f, "ids"), 1, &x) == KH_OK && x == -8);
    assert_int_equal(kh_gguf_find(f, "no.ids")->count, 0);
    kh_gguf_close(f);
}

static void what_is_wrong_is_refused(void **state)
{
    (void)state;
    static float data[64];
    const uint64_t dims[4] = {32, 2, 1, 1}, odd[2] = {31, 2}, zero[2] = {32, 0};
    const uint64_t huge[4] = {1ull << 32, 1ull << 32, 1, 1};
    kh_gguf *f;
    char long_name[300];
    memset(long_name, 'n', sizeof long_name);
    long_name[299] = 0;
    GOOD(kh_gguf_new(&f, "made"));
    GOOD(kh_gguf_set_u64(f, "key", KH_GGUF_U32, 1));
    GOOD(kh_gguf_add_tensor(f, "t", KH_TYPE_F32, 2, dims, data));
    refused(kh_gguf_set_f32(f, "key", 1), KH_ERR_FORMAT, "made: key 'key'", "twice");
    refused(kh_gguf_set_f32(f, "", 1), KH_ERR_FORMAT, "made", "name");
    refused(kh_gguf_set_u64(f, "x", KH_GGUF_U8, 256), KH_ERR_ARGUMENT, "key 'x'", "255");
    refused(kh_gguf_set_u64(f, "x", KH_GGUF_I8, 128), KH_ERR_ARGUMENT, "key 'x'", "127");
    refused(kh_gguf_set_u64(f, "x", KH_GGUF_BOOL, 2), KH_ERR_ARGUMENT, "key 'x'", "1");
    refused(kh_gguf_set_u64(f, "x", KH_GGUF_F32, 2), KH_ERR_ARGUMENT, "key 'x'", "integers");
    refused(kh_gguf_set_array(f, "x", KH_GGUF_STRING, dims, 1), KH_ERR_ARGUMENT, "'x'", "numbers");
    refused(kh_gguf_set_array(f, "x", KH_GGUF_ARRAY, dims, 1), KH_ERR_ARGUMENT, "'x'", "numbers");
    refused(kh_gguf_set_array(f, "x", KH_GGUF_BOOL, "\2", 1), KH_ERR_ARGUMENT, "'x'", "0 or 1");
    refused(kh_gguf_set_array(f, "x", KH_GGUF_U64, dims, SIZE_MAX), KH_ERR_ARGUMENT, "'x'",
            "array");
    refused(kh_gguf_add_tensor(f, "t", KH_TYPE_F32, 2, dims, data), KH_ERR_FORMAT, "'t'", "twice");
    refused(kh_gguf_add_tensor(f, "", KH_TYPE_F32, 2, dims, data), KH_ERR_FORMAT, "made", "name");
    refused(kh_gguf_add_tensor(f, long_name, KH_TYPE_F32, 2, dims, data), KH_ERR_FORMAT, "made",
            "299");
    refused(kh_gguf_add_tensor(f, "u", KH_TYPE_Q8_0, 2, odd, data), KH_ERR_FORMAT, "'u'", "Q8_0");
    refused(kh_gguf_add_tensor(f, "u", KH_TYPE_F32, 2, zero, data), KH_ERR_FORMAT, "'u'", "zero");
    refused(kh_gguf_add_tensor(f, "u", KH_TYPE_F32, 4, huge, data), KH_ERR_FORMAT, "'u'",
            "overflow");
    refused(kh_gguf_add_tensor(f, "u", KH_TYPE_F32, 5, dims, data), KH_ERR_FORMAT, "'u'", "5");
    refused(kh_gguf_add_tensor(f, "u", KH_TYPE_F32, 0, dims, data), KH_ERR_FORMAT, "'u'", "0");
    refused(kh_gguf_add_tensor(f, "u", KH_TYPE_NONE, 2, dims, data), KH_ERR_UNSUPPORTED, "'u'",
            "type");
    refused(kh_gguf_add_tensor(f, "u", KH_TYPE_F32, 2, dims, (const char *)data + 2),
            KH_ERR_ARGUMENT, "'u'", "aligned");
    assert_int_equal(kh_gguf_value_count(f), 1);
    assert_int_equal(kh_gguf_tensor_count(f), 1);
    assert_null(kh_gguf_find(f, "x"));
    assert_null(kh_gguf_tensor(f, "u"));
    kh_gguf_close(f);
}

static void finds_each_of_many(void **state)
{
    (void)state;
    enum { MANY = 3000 };
    static const float data[16];
    kh_gguf *f;
    char name[64];
    GOOD(kh_gguf_new(&f, "made"));
    for (uint64_t i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "name.%d", (int)i);
        GOOD(kh_gguf_set_u64(f, name, KH_GGUF_U32, i));
        GOOD(kh_gguf_add_tensor(f, name, KH_TYPE_F32, 1, &(uint64_t){i % 16 + 1}, data));
    }
    for (size_t i = 0; i < MANY; i++) {
        uint64_t n = 0;
        snprintf(name, sizeof name, "name.%d", (int)i);
        assert_true(kh_gguf_u64(f, name, &n, MANY) == KH_OK && n == i);
        assert_ptr_equal(kh_gguf_tensor(f, name), kh_gguf_tensor_at(f, i));
    }
    kh_gguf_close(f);
}

static int closed[3], closings;

static void note(void *object)
{
    *(int *)object = ++closings;
}

static void keeps_and_closes(void **state)
{
    (void)state;
    char path[] = "/tmp/test_gguf_compose_XXXXXX";
    float data[1024];
    kh_gguf *f;
    kh_map map;
    for (int i = 0; i < 1024; i++) data[i] = (float)i;
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, data, sizeof data) == sizeof data && close(fd) == 0);
    GOOD(kh_map_open(&map, path));
    GOOD(kh_gguf_new(&f, "made"));
    closings = 0;
    for (int i = 0; i < 3; i++) GOOD(kh_gguf_keep(f, note, &closed[i]));
    GOOD(kh_gguf_add_tensor(f, "t", KH_TYPE_F32, 1, &(uint64_t){1024}, map.data));
    GOOD(kh_gguf_keep_map(f, &map));
    assert_null(map.data);
    kh_gguf_release(f, kh_gguf_tensor_at(f, 0));
    assert_memory_equal(kh_gguf_tensor_at(f, 0)->data, data, sizeof data);
    assert_int_equal(kh_gguf_value_count(f), 0);
    assert_int_equal(closings, 0);
    kh_gguf_close(f);
    assert_true(closed[2] == 1 && closed[1] == 2 && closed[0] == 3);
    unlink(path);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    writer w;
    kh_gguf *file, *copy;
    whole(&w, 3);
    uint64_t before = kh_alloc_get_stats().live;
    GOOD(kh_gguf_open_memory(&file, w.data, w.size, "memory"));
    uint64_t live = kh_alloc_get_stats().live, failures = 0;
    for (uint64_t n = 1;; n++) {
        kh_alloc_fail_at(n);
        kh_status status = copy_of(&copy, file);
        kh_alloc_fail_at(0);
        kh_gguf_close(copy);
        assert_int_equal(kh_alloc_get_stats().live, live);
        if (status == KH_OK) break;
        assert_int_equal(status, KH_ERR_MEMORY);
        failures++;
    }
    assert_true(failures > 20);

    /* in the middle of things: the file is as it was, and goes on */
    GOOD(copy_of(&copy, file));
    for (uint64_t n = 1;; n++) {
        kh_alloc_fail_at(n);
        kh_status status = kh_gguf_set_string(copy, "late", slice("word"));
        kh_alloc_fail_at(0);
        if (status == KH_OK) break;
        same_values(file, copy);
    }
    for (uint64_t n = 1;; n++) {
        kh_alloc_fail_at(n);
        kh_status status = kh_gguf_add_tensor(copy, "late", KH_TYPE_F16, 1, &(uint64_t){1}, w.data);
        kh_alloc_fail_at(0);
        if (status == KH_OK) break;
        same_tensors(file, copy);
    }
    int dead = closings;
    kh_alloc_fail_at(1);
    for (int i = 0; i < 100; i++) /* at some time the table wants to grow */
        if (kh_gguf_keep(copy, note, &closed[0]) != KH_OK) break;
    kh_alloc_fail_at(0);
    assert_int_equal(closings, dead + 1);
    kh_map map = {0};
    kh_alloc_fail_at(1);
    assert_int_equal(kh_gguf_keep_map(copy, &map), KH_ERR_MEMORY);
    kh_alloc_fail_at(0);
    kh_gguf_close(copy);
    kh_gguf_close(file);
    assert_int_equal(kh_alloc_get_stats().live, before);
    drop(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_copy_is_the_file),       cmocka_unit_test(scalars_and_arrays),
        cmocka_unit_test(what_is_wrong_is_refused), cmocka_unit_test(finds_each_of_many),
        cmocka_unit_test(keeps_and_closes),         cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
