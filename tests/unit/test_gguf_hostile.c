/* The GGUF reader over hostile files: one clear sentence each, no crash, no large allocation, no leak.
 *
 * Files are read from exact-size blocks, where a sanitizer sees the first byte beyond the end. */
#include "support/gguf_writer.h"

#include "base/alloc.h"

/* Reads everything that a file gives, so that a wrong length is a wrong read. */
static uint64_t walk(const kh_gguf *f)
{
    uint64_t sum = 0, n;
    double x;
    char id[17];
    for (size_t i = 0; i < kh_gguf_value_count(f); i++) {
        const kh_gguf_value *v = kh_gguf_value_at(f, i);
        for (uint64_t e = 0; e < v->count; e++) {
            if (v->element == KH_GGUF_STRING)
                for (size_t b = 0; b < v->strings[e].size; b++)
                    sum += (uint8_t)v->strings[e].data[b];
            if (kh_gguf_element_u64(v, e, &n) == KH_OK) sum += n;
            if (kh_gguf_element_f64(v, e, &x) == KH_OK) sum += x > 0;
        }
    }
    for (size_t i = 0; i < kh_gguf_tensor_count(f); i++) {
        const kh_tensor *t = kh_gguf_tensor_at(f, i);
        for (size_t b = 0; b < t->size; b++) sum += ((const uint8_t *)t->data)[b];
    }
    kh_gguf_identity(f, id);
    return sum + (uint64_t)id[0];
}

/* Opens an exact-size copy; whatever comes back is walked and closed. */
static kh_status open_copy(const uint8_t *bytes, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    if (size) memcpy(copy, bytes, size);
    kh_gguf *f;
    kh_status status = kh_gguf_open_memory(&f, copy, size, "hostile");
    if (status == KH_OK)
        walk(f);
    else {
        assert_null(f);
        if (strncmp(kh_last_error(), "hostile: ", 9) != 0) fail_msg("'%s'", kh_last_error());
    }
    kh_gguf_close(f);
    free(copy);
    return status;
}

static void truncated_at_every_byte(void **state)
{
    (void)state;
    writer w;
    whole(&w, 3);
    uint64_t live = kh_alloc_get_stats().live;
    for (size_t n = 0; n < w.size; n++) {
        assert_int_equal(open_copy(w.data, n), KH_ERR_FORMAT);
        if (!strstr(kh_last_error(), "truncated")) fail_msg("%zu bytes: '%s'", n, kh_last_error());
    }
    assert_int_equal(open_copy(w.data, w.size), KH_OK);
    assert_int_equal(kh_alloc_get_stats().live, live);
    drop(&w);
}

static void every_size_overwritten(void **state)
{
    (void)state;
    static const uint64_t huge[] = {UINT64_MAX,       UINT64_MAX - 7, 1ull << 63,
                                    (1ull << 63) - 1, 1ull << 61,     1ull << 60,
                                    1ull << 32,       1ull << 31,     (1ull << 32) - 1};
    writer w;
    whole(&w, 3);
    size_t bytes = kh_alloc_get_stats().peak;
    assert_true(w.sizes.n > 40 && w.sizes.n < MARKS);
    for (size_t m = 0; m < w.sizes.n; m++) {
        uint64_t old, zero = 0;
        memcpy(&old, w.data + w.sizes.at[m], 8);
        for (size_t h = 0; h < sizeof huge / sizeof *huge; h++) {
            memcpy(w.data + w.sizes.at[m], &huge[h], 8);
            assert_int_equal(open_copy(w.data, w.size), KH_ERR_FORMAT);
        }
        for (uint64_t near = old - 2; near != old + 3; near++) { /* no crash; any answer */
            memcpy(w.data + w.sizes.at[m], &near, 8);
            open_copy(w.data, w.size);
        }
        memcpy(w.data + w.sizes.at[m], &zero, 8);
        open_copy(w.data, w.size);
        memcpy(w.data + w.sizes.at[m], &old, 8);
    }
    assert_true(kh_alloc_get_stats().peak <= bytes + 64 * w.size);
    drop(&w);
}

static void every_kind_and_type_overwritten(void **state)
{
    (void)state;
    static const uint32_t bad_kinds[] = {13, 255, 1u << 31, UINT32_MAX};
    static const uint32_t bad_types[] = {4, 5, 9, 16, 29, 31, 39, 41, 1000, 1u << 31, UINT32_MAX};
    static const uint32_t bad_dims[] = {0, 5, 1u << 30, UINT32_MAX};
    writer w;
    whole(&w, 3);
    const marks *all[] = {&w.kinds, &w.types, &w.n_dims};
    const uint32_t *bad[] = {bad_kinds, bad_types, bad_dims};
    const size_t n_bad[] = {4, 11, 4};
    const kh_status expected[] = {KH_ERR_FORMAT, KH_ERR_UNSUPPORTED, KH_ERR_FORMAT};
    for (int k = 0; k < 3; k++)
        for (size_t m = 0; m < all[k]->n; m++) {
            uint8_t *at = w.data + all[k]->at[m];
            uint32_t old;
            memcpy(&old, at, 4);
            for (size_t b = 0; b < n_bad[k]; b++) {
                memcpy(at, &bad[k][b], 4);
                assert_int_equal(open_copy(w.data, w.size), expected[k]);
            }
            for (uint32_t other = 0; other < 42; other++) { /* no crash; any answer */
                memcpy(at, &other, 4);
                open_copy(w.data, w.size);
            }
            memcpy(at, &old, 4);
        }
    drop(&w);
}

static void every_byte_changed(void **state)
{
    (void)state;
    static const uint8_t change[] = {0x01, 0x80, 0xff, 0x20};
    writer w;
    whole(&w, 3);
    for (size_t i = 0; i < w.size; i++)
        for (size_t c = 0; c < sizeof change; c++) {
            w.data[i] ^= change[c];
            open_copy(w.data, w.size);
            w.data[i] ^= change[c];
        }
    drop(&w);
}

/* Opens, expects a refusal whose sentence holds both words, drops the writer. */
static void bad(writer *w, kh_status expected, const char *name, const char *words)
{
    refused(open_copy(w->data, w->size), expected, name, words);
    drop(w);
}

static void bad_heads(void **state)
{
    (void)state;
    writer w;
    whole(&w, 3);
    w.data[0] = 'g';
    bad(&w, KH_ERR_FORMAT, "hostile", "not a GGUF file");
    whole(&w, 0x03000000);
    bad(&w, KH_ERR_UNSUPPORTED, "hostile", "big-endian");
    for (uint32_t version = 0; version < 6; version++) {
        if (version == 2 || version == 3) continue;
        whole(&w, version);
        bad(&w, KH_ERR_UNSUPPORTED, "hostile", "version 2 or 3");
    }
    head(&w, 3, 0, 1ull << 60);
    bad(&w, KH_ERR_FORMAT, "hostile", "1152921504606846976 keys");
    head(&w, 3, 1000, 0);
    bad(&w, KH_ERR_FORMAT, "tensor descriptions", "missing");
    kh_gguf *f;
    assert_int_equal(kh_gguf_open_memory(&f, (const char *)"0123456789abcdef" + 1, 8, "odd"),
                     KH_ERR_ARGUMENT);
    assert_null(f);
}

static void bad_values(void **state)
{
    (void)state;
    writer w;
    head(&w, 3, 0, 1);
    key_array(&w, "cycle", KH_GGUF_ARRAY, 1);
    for (int depth = 0; depth < 1000; depth++) {
        put_u32(&w, KH_GGUF_ARRAY);
        put_size(&w, 1);
    }
    bad(&w, KH_ERR_UNSUPPORTED, "cycle", "array of arrays");
    head(&w, 3, 0, 1);
    key_array(&w, "words", KH_GGUF_STRING, 1ull << 60);
    bad(&w, KH_ERR_FORMAT, "words", "missing");
    head(&w, 3, 0, 1);
    key_array(&w, "words", KH_GGUF_STRING, 1ull << 61);
    bad(&w, KH_ERR_FORMAT, "words", "2305843009213693952 elements");
    head(&w, 3, 0, 3);
    key_u32(&w, "twin", 1);
    key_u32(&w, "other", 1);
    key_u32(&w, "twin", 2);
    bad(&w, KH_ERR_FORMAT, "twin", "twice");
    head(&w, 3, 0, 1);
    key_u32(&w, "", 1);
    bad(&w, KH_ERR_FORMAT, "key 0", "1 to 65535 bytes");
    head(&w, 3, 0, 1);
    put_size(&w, 3);
    put(&w, "a\0b", 3);
    put_u32(&w, KH_GGUF_U32);
    put_u32(&w, 1);
    bad(&w, KH_ERR_FORMAT, "key 0", "zero byte");
    head(&w, 3, 0, 1);
    KEY_FIXED(&w, "truth", KH_GGUF_BOOL, uint8_t, 2);
    bad(&w, KH_ERR_FORMAT, "truth", "0 or 1");
    head(&w, 3, 0, 1);
    key_array(&w, "truths", KH_GGUF_BOOL, 3);
    put(&w, "\0\1\2", 3);
    bad(&w, KH_ERR_FORMAT, "truths", "found 2");
    head(&w, 3, 0, 1);
    key_u32(&w, "bell\a\x1b[31m", 1);
    w.data[w.size - 8] = 77; /* the kind: the sentence must not carry control characters */
    assert_int_equal(open_copy(w.data, w.size), KH_ERR_FORMAT);
    assert_non_null(strstr(kh_last_error(), "bell??[31m"));
    drop(&w);
}

static void bad_alignments(void **state)
{
    (void)state;
    static const uint32_t good[] = {8, 32, 64, 65536}, wrong[] = {0, 1, 4, 12, 33, 1u << 17};
    writer w;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        head(&w, 3, 0, 1);
        key_u32(&w, "general.alignment", wrong[i]);
        bad(&w, KH_ERR_FORMAT, "general.alignment", "power of two");
    }
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        head(&w, 3, 1, 1);
        key_u32(&w, "general.alignment", good[i]);
        tensor_at(&w, "t", KH_TYPE_F32, 1, (uint64_t[]){2}, 0);
        while (w.size % good[i]) put(&w, "", 1);
        float pair[2] = {1.0f, 2.0f};
        put(&w, pair, sizeof pair);
        kh_gguf *f;
        assert_int_equal(kh_gguf_open_memory(&f, w.data, w.size, "memory"), KH_OK);
        assert_memory_equal(kh_gguf_tensor(f, "t")->data, pair, sizeof pair);
        kh_gguf_close(f);
        drop(&w);
    }
    head(&w, 3, 0, 1);
    key_text(&w, "general.alignment", "32");
    bad(&w, KH_ERR_FORMAT, "general.alignment", "found string");
}

static void one_bad_tensor(uint32_t type, uint32_t n_dims, const uint64_t *dims, uint64_t offset,
                           kh_status expected, const char *words)
{
    writer w;
    head(&w, 3, 2, 0);
    tensor_at(&w, "good.weight", KH_TYPE_F32, 1, (uint64_t[]){8}, 0);
    tensor_at(&w, "bad.weight", type, n_dims, dims, offset);
    data(&w, 4096);
    bad(&w, expected, "bad.weight", words);
}

static void bad_tensors(void **state)
{
    (void)state;
    const uint64_t one[] = {256}, zero[] = {4, 0}, odd[] = {255}, wide[] = {1ull << 32, 1ull << 32},
                   wider[] = {256, 1ull << 55, 1}, five[] = {1, 1, 1, 1, 1}, big[] = {1025};
    one_bad_tensor(16, 1, one, 0, KH_ERR_UNSUPPORTED, "IQ2_XXS");
    one_bad_tensor(39, 1, one, 0, KH_ERR_UNSUPPORTED, "MXFP4");
    one_bad_tensor(777, 1, one, 0, KH_ERR_UNSUPPORTED, "777");
    one_bad_tensor(KH_TYPE_F32, 2, zero, 0, KH_ERR_FORMAT, "dimension 1 is zero");
    one_bad_tensor(KH_TYPE_Q4_K, 1, odd, 0, KH_ERR_FORMAT, "multiple of 256");
    one_bad_tensor(KH_TYPE_F32, 2, wide, 0, KH_ERR_FORMAT, "overflows");
    one_bad_tensor(KH_TYPE_F32, 3, wider, 0, KH_ERR_FORMAT, "overflows");
    one_bad_tensor(KH_TYPE_F32, 5, five, 0, KH_ERR_FORMAT, "found 5");
    one_bad_tensor(KH_TYPE_F32, 0, five, 0, KH_ERR_FORMAT, "found 0");
    one_bad_tensor(KH_TYPE_F32, 1, one, 16, KH_ERR_FORMAT, "alignment");
    one_bad_tensor(KH_TYPE_F32, 1, one, UINT64_MAX - 31, KH_ERR_FORMAT, "overflows");
    one_bad_tensor(KH_TYPE_F32, 1, one, 4096 - 512, KH_ERR_FORMAT, "512 bytes are missing");
    one_bad_tensor(KH_TYPE_F32, 1, big, 0, KH_ERR_FORMAT, "4 bytes are missing");
    writer w;
    head(&w, 3, 2, 0);
    tensor(&w, "twin.weight", KH_TYPE_F32, 1, 8);
    tensor(&w, "twin.weight", KH_TYPE_F32, 1, 8);
    data(&w, w.tensor_bytes);
    bad(&w, KH_ERR_FORMAT, "twin.weight", "twice");
}

static void every_allocation_fails(void **state)
{
    (void)state;
    writer w;
    whole(&w, 3);
    uint64_t live = kh_alloc_get_stats().live, n = 1;
    for (;; n++) {
        kh_gguf *f;
        kh_alloc_fail_at(n);
        kh_status status = kh_gguf_open_memory(&f, w.data, w.size, "memory");
        kh_alloc_fail_at(0);
        kh_gguf_close(f);
        assert_int_equal(kh_alloc_get_stats().live, live);
        if (status == KH_OK) break;
        assert_int_equal(status, KH_ERR_MEMORY);
        assert_null(f);
    }
    assert_in_range(n, 8, 1000);
    drop(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(truncated_at_every_byte),
        cmocka_unit_test(every_size_overwritten),
        cmocka_unit_test(every_kind_and_type_overwritten),
        cmocka_unit_test(every_byte_changed),
        cmocka_unit_test(bad_heads),
        cmocka_unit_test(bad_values),
        cmocka_unit_test(bad_alignments),
        cmocka_unit_test(bad_tensors),
        cmocka_unit_test(every_allocation_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
