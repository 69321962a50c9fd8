/* safetensors: what is read, what is written, what is refused and with which sentence. */
#include "format/safetensors.h"

#include "base/alloc.h"
#include "support/st_file.h"

#include <jansson.h>
#include <keyhole/status.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void says(const char *words)
{
    if (!strstr(kh_last_error(), words))
        fail_msg("'%s' should contain '%s'", kh_last_error(), words);
}

/* Opens an exact-size copy; on success every byte is read. */
static kh_status try_bytes(const uint8_t *bytes, size_t size)
{
    uint64_t live = kh_alloc_get_stats().live;
    uint8_t *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    if (size) memcpy(copy, bytes, size);
    kh_safetensors *f;
    kh_status status = kh_safetensors_open_memory(&f, copy, size, "hostile");
    uint64_t sum = 0; /* every byte is read */
    if (status != KH_OK) {
        assert_null(f);
        says("hostile");
    }
    for (size_t i = 0; status == KH_OK && i < kh_safetensors_count(f); i++) {
        const kh_st_tensor *t = kh_safetensors_at(f, i);
        assert_ptr_equal(kh_safetensors_find(f, t->name), t);
        for (size_t b = 0; b < t->size; b++) sum += ((const uint8_t *)t->data)[b];
    }
    assert_true(sum <= 255u * (uint64_t)size);
    kh_safetensors_close(f);
    free(copy);
    assert_int_equal(kh_alloc_get_stats().live, live);
    return status;
}

static void refuses(const char *header, size_t data_bytes, kh_status expected, const char *words)
{
    size_t size;
    uint8_t *file = st_file(header, data_bytes, &size);
    kh_status status = try_bytes(file, size);
    free(file);
    if (status != expected)
        fail_msg("%s: %s expected, found %s", header, kh_status_name(expected),
                 kh_status_name(status));
    says(words);
}

static const char three[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"b\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[24,30]},"
    "\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
    "\"one\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[30,31]},"
    "\"none\":{\"dtype\":\"I64\",\"shape\":[4,0],\"data_offsets\":[30,30]}}    ";

static void reads_types_shapes_and_places(void **state)
{
    (void)state;
    size_t size;
    uint8_t *file = st_file(three, 31, &size);
    kh_safetensors *f;
    assert_int_equal(kh_safetensors_open_memory(&f, file, size, "x"), KH_OK);
    assert_int_equal(kh_safetensors_count(f), 4);
    assert_string_equal(kh_safetensors_at(f, 0)->name, "b");
    const kh_st_tensor *a = kh_safetensors_find(f, "a");
    assert_int_equal(a->type, KH_ST_F32);
    assert_int_equal(a->n_dims, 2);
    assert_int_equal(a->dims[0], 2);
    assert_int_equal(a->dims[1], 3);
    assert_int_equal(a->size, 24);
    assert_int_equal(*(const uint8_t *)a->data, 1);
    const kh_st_tensor *one = kh_safetensors_find(f, "one");
    assert_int_equal(one->n_dims, 0);
    assert_int_equal(one->size, 1);
    assert_ptr_equal(one->data, file + size - 1);
    assert_int_equal(kh_safetensors_find(f, "none")->size, 0);
    assert_null(kh_safetensors_find(f, "__metadata__"));
    assert_int_equal(kh_safetensors_size(f), size);
    assert_int_equal(kh_st_kernel_type(KH_ST_BF16), KH_TYPE_BF16);
    assert_int_equal(kh_st_kernel_type(KH_ST_I64), KH_TYPE_NONE);
    kh_safetensors_close(f);
    free(file);
}

static void refuses_by_name(void **state)
{
    (void)state;
#define A(dtype, shape, offsets)                                                                   \
    "{\"a\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
    const kh_status f = KH_ERR_FORMAT, u = KH_ERR_UNSUPPORTED;
    refuses(A("\"F4\"", "[2]", "[0,1]"), 1, u, "\"F4\"");
    refuses(A("7", "[2]", "[0,1]"), 1, f, "\"dtype\"");
    refuses(A("\"F32\"", "[2]", "[0,4]"), 4, f, "need 8 bytes");
    refuses(A("\"F32\"", "[-1]", "[0,4]"), 4, f, "\"shape\"");
    refuses(A("\"F32\"", "[1.5]", "[0,4]"), 4, f, "\"shape\"");
    refuses(A("\"F32\"", "2", "[0,8]"), 8, f, "\"shape\"");
    refuses(A("\"F32\"", "[4294967296,4294967296]", "[0,0]"), 0, f, "overflows");
    refuses(A("\"F32\"", "[9223372036854775807]", "[0,0]"), 0, f, "overflows");
    refuses(A("\"F32\"", "[0,9223372036854775807,4]", "[0,0]"), 0, f, "overflows");
    refuses(A("\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, u, "8 dimensions");
    refuses(A("\"F32\"", "[1]", "[4,0]"), 4, f, "offsets are 4 to 0");
    refuses(A("\"F32\"", "[1]", "[0]"), 4, f, "data_offsets");
    refuses(A("\"F32\"", "[1]", "[0,-4]"), 4, f, "data_offsets");
    refuses(A("\"F32\"", "[1]", "[0,18446744073709551616]"), 4, f, "a real number");
    refuses(A("\"F32\"", "[2]", "[0,8]"), 7, f, "truncated");
    refuses(A("\"F32\"", "[1]", "[9223372036854775800,9223372036854775804]"), 7, f, "truncated");
    refuses(A("\"F32\"", "[1]", "[4,8]"), 8, f, "nobody's");
    refuses(A("\"F32\"", "[1]", "[0,4]"), 5, f, "1 bytes behind");
    refuses("{\"a\":7}", 0, f, "an object is expected");
    refuses("{\"a\":{}}", 0, f, "\"dtype\"");
    refuses("{\"a\"", 0, f, "line 1");
    refuses("[]", 0, f, "'{'");
    refuses("{} x", 0, f, "JSON");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
            "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
            3, f, "'b' begins at byte 1, inside");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
            "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
            2, f, "duplicate");
#undef A
}

static void refuses_deep_nesting(void **state)
{
    (void)state;
    enum { DEEP = 100000 };
    char *header = malloc(DEEP + 8);
    assert_non_null(header);
    memcpy(header, "{\"a\":", 5);
    memset(header + 5, '[', DEEP);
    header[DEEP + 5] = 0;
    refuses(header, 0, KH_ERR_FORMAT, "depth");
    free(header);
}

static void every_cut_and_length(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {0,          1,          7,          100000000,     100000001,
                                     1ull << 32, 1ull << 63, UINT64_MAX, UINT64_MAX - 7};
    size_t size;
    uint8_t *file = st_file(three, 31, &size);
    for (size_t n = 0; n < size; n++) assert_int_equal(try_bytes(file, n), KH_ERR_FORMAT);
    assert_int_equal(try_bytes(file, size), KH_OK);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        memcpy(file, &sizes[i], 8);
        assert_int_equal(try_bytes(file, size), KH_ERR_FORMAT);
    }
    for (uint64_t n = 0; n < size; n++) {
        memcpy(file, &n, 8);
        kh_status status = try_bytes(file, size);
        /* trailing spaces may be cut off: the data then has bytes in excess */
        assert_true(status == KH_ERR_FORMAT || n == strlen(three));
    }
    free(file);
}

static void every_byte_changed(void **state)
{
    (void)state;
    static const char marks[] = "\0\"{}[]:,0-9e \\\x7f\x80\xff";
    size_t size;
    uint8_t *file = st_file(three, 31, &size);
    for (size_t i = 0; i < size - 31; i++) {
        uint8_t old = file[i];
        for (size_t m = 0; m < sizeof marks; m++) {
            file[i] = (uint8_t)marks[m];
            try_bytes(file, size);
        }
        file[i] = old;
    }
    free(file);
}

/* ---- shards ---- */

static void in_folder(void (*check)(const char *folder))
{
    char folder[] = "kh-shards-XXXXXX", path[256];
    static const char *const names[] = {"m.safetensors.index.json", "p1.safetensors",
                                        "p2.safetensors"};
    assert_non_null(mkdtemp(folder));
    check(folder);
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(folder), 0);
}

static kh_status open_index(kh_safetensors **f, const char *folder, const char *index)
{
    char path[256];
    save_text(folder, "m.safetensors.index.json", index);
    snprintf(path, sizeof path, "%s/m.safetensors.index.json", folder);
    kh_status status = kh_safetensors_open(f, path);
    if (status != KH_OK) assert_null(*f);
    return status;
}

static void index_refused(const char *folder, const char *index, kh_status expected,
                          const char *words)
{
    kh_safetensors *f;
    uint64_t live = kh_alloc_get_stats().live;
    assert_int_equal(open_index(&f, folder, index), expected);
    says(words);
    says("m.safetensors.index.json");
    assert_int_equal(kh_alloc_get_stats().live, live);
}

static void check_shards(const char *folder)
{
    kh_safetensors *f;
    save_st(folder, "p1.safetensors",
            "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8);
    save_st(folder, "p2.safetensors",
            "{\"b\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]}}", 12);
    assert_int_equal(open_index(&f, folder,
                                "{\"metadata\":{\"total_size\":20},\"weight_map\":"
                                "{\"a\":\"p1.safetensors\",\"b\":\"p2.safetensors\"}}"),
                     KH_OK);
    assert_int_equal(kh_safetensors_count(f), 2);
    const kh_st_tensor *b = kh_safetensors_find(f, "b");
    assert_int_equal(b->size, 12);
    assert_non_null(strstr(kh_safetensors_part(f, b), "/p2.safetensors"));
    kh_safetensors_release(f, b);
    assert_int_equal(((const uint8_t *)b->data)[1], 8);
    kh_safetensors_close(f);
#define MAP(text) "{\"weight_map\":" text "}"
    const kh_status e = KH_ERR_FORMAT;
    index_refused(folder, MAP("{\"a\":\"../p1.safetensors\"}"), e, "same folder");
    index_refused(folder, MAP("{\"a\":\"/etc/passwd\"}"), e, "same folder");
    index_refused(folder, MAP("{\"a\":\".safetensors\"}"), e, "same folder");
    index_refused(folder, MAP("{\"a\":\"p1.bin\"}"), e, "same folder");
    index_refused(folder, MAP("{\"a\":3}"), e, "an integer");
    index_refused(folder, MAP("{}"), e, "weight_map");
    index_refused(folder, MAP("[]"), e, "weight_map");
    index_refused(folder, "{}", e, "weight_map");
    index_refused(folder, "{", e, "line 1");
    index_refused(folder, MAP("{\"a\":\"p3.safetensors\"}"), KH_ERR_NOT_FOUND, "p3.safetensors");
    index_refused(folder, MAP("{\"c\":\"p1.safetensors\"}"), e, "'c' is expected in p1");
    index_refused(folder, MAP("{\"b\":\"p1.safetensors\",\"a\":\"p2.safetensors\"}"), e,
                  "'b' is expected in p1");
    save_st(folder, "p2.safetensors",
            "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]}}", 12);
    kh_safetensors *twice;
    assert_int_equal(
        open_index(&twice, folder, MAP("{\"a\":\"p1.safetensors\",\"b\":\"p2.safetensors\"}")), e);
    says("'a' is there already");
    save_st(folder, "p2.safetensors",
            "{\"b\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]}}", 11);
    assert_int_equal(
        open_index(&twice, folder, MAP("{\"a\":\"p1.safetensors\",\"b\":\"p2.safetensors\"}")), e);
    says("p2.safetensors: truncated");
#undef MAP
}

static void shards(void **state)
{
    (void)state;
    in_folder(check_shards);
}

/* ---- writing ---- */

static void check_writing(const char *folder)
{
    char path[256];
    snprintf(path, sizeof path, "%s/p1.safetensors", folder);
    const uint16_t half[3] = {1, 2, 3};
    const float full[4] = {1.5f, -2.0f, 3.25f, 0.0f};
    kh_st_tensor tensors[] = {
        {.name = "h\"\\\xc3\xa9", .type = KH_ST_F16, .n_dims = 1, .dims = {3}},
        {.name = "f", .type = KH_ST_F32, .n_dims = 2, .dims = {2, 2}}};
    kh_st_writer *w;
    assert_int_equal(kh_st_writer_open(&w, path, tensors, 2), KH_OK);
    assert_string_equal(tensors[0].name, "f"); /* the wide one first */
    assert_int_equal(tensors[0].size, 16);
    assert_int_equal(kh_st_writer_put(w, full, 10), KH_OK);
    assert_int_equal(kh_st_writer_put(w, (const char *)full + 10, 6), KH_OK);
    assert_int_equal(kh_st_writer_put(w, half, 7), KH_ERR_STATE);
    assert_int_equal(kh_st_writer_put(w, half, 6), KH_OK);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(kh_st_writer_commit(w), KH_OK);
    kh_safetensors *f;
    assert_int_equal(kh_safetensors_open(&f, path), KH_OK);
    assert_int_equal(kh_safetensors_count(f), 2);
    const kh_st_tensor *t = kh_safetensors_find(f, "f");
    assert_memory_equal(t->data, full, sizeof full);
    assert_int_equal((uintptr_t)t->data % 8, 0);
    t = kh_safetensors_find(f, "h\"\\\xc3\xa9");
    assert_non_null(t);
    assert_memory_equal(t->data, half, sizeof half);
    kh_safetensors_close(f);
    /* unfinished: the old file stays */
    assert_int_equal(kh_st_writer_open(&w, path, tensors, 2), KH_OK);
    assert_int_equal(kh_st_writer_commit(w), KH_ERR_STATE);
    assert_int_equal(kh_safetensors_open(&f, path), KH_OK);
    kh_safetensors_close(f);
    tensors[1].name = "f";
    assert_int_equal(kh_st_writer_open(&w, path, tensors, 2), KH_ERR_ARGUMENT);
    assert_null(w);
    kh_st_writer_abandon(NULL);
}

static void writes_what_it_reads(void **state)
{
    (void)state;
    in_folder(check_writing);
}

/* Every allocation fails once: no leak, no crash, a sentence. */
static void memory_runs_out(void **state)
{
    (void)state;
    size_t size;
    uint8_t *file = st_file(three, 31, &size);
    uint64_t live = kh_alloc_get_stats().live;
    kh_alloc_fail_at(0);
    kh_safetensors *f;
    assert_int_equal(kh_safetensors_open_memory(&f, file, size, "x"), KH_OK);
    kh_safetensors_close(f);
    uint64_t n = kh_alloc_fail_at(0);
    assert_true(n > 10);
    for (uint64_t i = 1; i <= n; i++) {
        kh_alloc_fail_at(i);
        kh_status status = kh_safetensors_open_memory(&f, file, size, "x");
        kh_alloc_fail_at(0);
        /* a token that jansson could not store looks like a wrong one to it */
        if (status != KH_ERR_MEMORY && !strstr(kh_last_error(), "JSON is expected"))
            fail_msg("%llu: %s", (unsigned long long)i, kh_last_error());
        assert_null(f);
        assert_int_equal(kh_alloc_get_stats().live, live);
    }
    free(file);
}

int main(void)
{
    json_set_alloc_funcs(kh_alloc, kh_free);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_types_shapes_and_places),
        cmocka_unit_test(refuses_by_name),
        cmocka_unit_test(refuses_deep_nesting),
        cmocka_unit_test(every_cut_and_length),
        cmocka_unit_test(every_byte_changed),
        cmocka_unit_test(shards),
        cmocka_unit_test(writes_what_it_reads),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
