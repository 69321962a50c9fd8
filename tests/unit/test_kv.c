/* The paged cache: what is stored comes back, forks share until they write, rewinding forgets, saved
 * sequences load again, and damaged ones are refused with a sentence. */
// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include "attn/measure.h"
#include "base/alloc.h"
#include "base/rng.h"
#include "kern/attn_kern.h"
#include "kv/kv.h"
#include "tensor/half.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LAYERS = 2, GROUPS = 3, E = 64, MAX = 400 };

static float number(size_t i, uint64_t stream)
{
    return (float)kh_rng_normal((kh_rng_key){.seed = 5, .stream = stream}, i);
}

/* What position `at` of (layer, g) holds when sequence `id` wrote it. */
static void make_row(float *k, float *v, int id, int layer, int g, size_t at)
{
    for (size_t e = 0; e < E; e++) {
        size_t cell = ((at * GROUPS + (size_t)g) * LAYERS + (size_t)layer) * E + e;
        k[e] = number(cell, (uint64_t)id * 2);
        v[e] = number(cell, (uint64_t)id * 2 + 1);
    }
}

static kh_kv_pool *pool;
static kh_type type = KH_TYPE_F32;

static void open_pool(size_t pages)
{
    kh_kv_shape shape = {LAYERS, GROUPS, E, E, type, type, 0};
    assert_int_equal(kh_kv_pool_open(&pool, &shape, pages), KH_OK);
}

static kh_kv *open_kv(size_t capacity)
{
    kh_kv *kv;
    assert_int_equal(kh_kv_open(&kv, pool, capacity), KH_OK);
    return kv;
}

static void append(kh_kv *kv, size_t n, int id)
{
    static float k[MAX * E], v[MAX * E];
    assert_int_equal(kh_kv_prepare(kv, n), KH_OK);
    for (int layer = 0; layer < LAYERS; layer++)
        for (int g = 0; g < GROUPS; g++) {
            for (size_t i = 0; i < n; i++)
                make_row(k + i * E, v + i * E, id, layer, g, kh_kv_length(kv) + i);
            kh_kv_write(kv, kh_kern_get(kh_cpu_isa()), layer, g, n, k, E, v, E);
        }
    kh_kv_advance(kv, n);
}

static double tolerance(void)
{
    return type == KH_TYPE_F32 ? 0 : type == KH_TYPE_F16 ? 0x1p-11 : 0.5 / 127 * 1.01;
}

/* Positions [from, to) hold what sequence `id` wrote, up to the rounding of the type. */
static void check_rows(const kh_kv *kv, size_t from, size_t to, int id)
{
    static float k[MAX * E], v[MAX * E];
    float a[E], b[E];
    for (int layer = 0; layer < LAYERS; layer++)
        for (int g = 0; g < GROUPS; g++) {
            kh_attn_unpack(kv, layer, g, to, k, v);
            for (size_t j = from; j < to; j++) {
                make_row(a, b, id, layer, g, j);
                double ka = 0, vb = 0; /* largest of each 32: the scale of q8_0 */
                for (size_t e = 0; e < E; e++) {
                    if (e % 32 == 0) ka = vb = 0;
                    if (e % 32 == 0)
                        for (size_t i = e; i < e + 32; i++) {
                            ka = fmax(ka, fabs((double)a[i]));
                            vb = fmax(vb, fabs((double)b[i]));
                        }
                    double dk = type == KH_TYPE_F16 ? fabs((double)a[e]) + 1e-4 : ka;
                    double dv = type == KH_TYPE_F16 ? fabs((double)b[e]) + 1e-4 : vb;
                    assert_true(fabs((double)k[j * E + e] - (double)a[e]) <= dk * tolerance());
                    assert_true(fabs((double)v[j * E + e] - (double)b[e]) <= dv * tolerance());
                }
            }
        }
}

/* The sum before every page is that of the rows as they are stored, added in order. */
static void check_sums(const kh_kv *kv)
{
    static float k[MAX * E], v[MAX * E];
    size_t n = kh_kv_length(kv);
    for (int layer = 0; layer < LAYERS; layer++)
        for (int g = 0; g < GROUPS; g++) {
            float sum[E] = {0};
            kh_attn_unpack(kv, layer, g, n, k, v);
            for (size_t j = 0; j < n; j++) {
                if (j % KH_PAGE == 0)
                    assert_memory_equal(sum, kh_kv_value_sum(kv, layer, g, j / KH_PAGE),
                                        sizeof sum);
                for (size_t e = 0; e < E; e++) sum[e] += v[j * E + e];
            }
        }
}

static void each_type(void (*body)(void))
{
    static const kh_type types[] = {KH_TYPE_F32, KH_TYPE_F16, KH_TYPE_Q8_0};
    for (size_t i = 0; i < 3; i++) {
        type = types[i];
        body();
    }
    type = KH_TYPE_F32;
}

static void append_body(void)
{
    open_pool(8);
    kh_kv *kv = open_kv(300);
    static const size_t pieces[] = {1, 62, 1, 1, 64, 100, 3, 68};
    for (size_t i = 0; i < 8; i++) {
        append(kv, pieces[i], 1);
        check_rows(kv, 0, kh_kv_length(kv), 1);
        check_sums(kv);
    }
    assert_int_equal(kh_kv_length(kv), 300);
    assert_int_equal(kh_kv_pool_used(pool), 5);
    kh_kv_close(kv);
    assert_int_equal(kh_kv_pool_used(pool), 0);
    assert_int_equal(kh_kv_pool_peak(pool), 5);
    kh_kv_pool_close(pool);
}

static void append_and_read(void **state)
{
    (void)state;
    each_type(append_body);
}

static void fork_body(void)
{
    open_pool(12);
    kh_kv *a = open_kv(300), *b, *c;
    append(a, 150, 1);
    assert_int_equal(kh_kv_fork(&b, a), KH_OK);
    assert_int_equal(kh_kv_fork(&c, b), KH_OK);
    assert_int_equal(kh_kv_pool_used(pool), 3);
    append(b, 70, 2); /* copies the third page, takes one more */
    assert_int_equal(kh_kv_pool_used(pool), 5);
    append(a, 30, 3);
    assert_int_equal(kh_kv_pool_used(pool), 6);
    append(c, 1, 4); /* the last holder of the shared page writes it in place */
    assert_int_equal(kh_kv_pool_used(pool), 6);
    check_rows(a, 0, 150, 1);
    check_rows(a, 150, 180, 3);
    check_rows(b, 0, 150, 1);
    check_rows(b, 150, 220, 2);
    check_rows(c, 0, 150, 1);
    check_rows(c, 150, 151, 4);
    kh_kv_close(a);
    check_rows(b, 0, 150, 1);
    check_sums(b);
    assert_int_equal(kh_kv_rewind(b, 64), KH_OK);
    append(b, 130, 5);
    check_rows(b, 0, 64, 1);
    check_rows(b, 64, 194, 5);
    check_sums(b);
    check_rows(c, 0, 150, 1);
    kh_kv_close(b);
    check_sums(c);
    kh_kv_close(c);
    assert_int_equal(kh_kv_pool_used(pool), 0);
    kh_kv_pool_close(pool);
}

static void fork_and_write(void **state)
{
    (void)state;
    each_type(fork_body);
}

static void rewind_forgets(void **state)
{
    (void)state;
    open_pool(6);
    kh_kv *kv = open_kv(300);
    append(kv, 200, 1);
    assert_int_equal(kh_kv_rewind(kv, 201), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "201"));
    assert_int_equal(kh_kv_rewind(kv, 130), KH_OK);
    assert_int_equal(kh_kv_pool_used(pool), 3);
    append(kv, 40, 2);
    check_rows(kv, 0, 130, 1);
    check_rows(kv, 130, 170, 2);
    check_sums(kv);
    assert_int_equal(kh_kv_rewind(kv, 0), KH_OK);
    assert_int_equal(kh_kv_pool_used(pool), 0);
    append(kv, 65, 3);
    check_rows(kv, 0, 65, 3);
    check_sums(kv);
    kh_kv_close(kv);
    kh_kv_pool_close(pool);
}

static void exhaustion_changes_nothing(void **state)
{
    (void)state;
    open_pool(3);
    kh_kv *a = open_kv(150), *b = open_kv(150), *bad;
    append(a, 100, 1);
    assert_int_equal(kh_kv_prepare(a, 51), KH_ERR_CONTEXT);
    assert_non_null(strstr(kh_last_error(), "150"));
    append(b, 10, 2);
    assert_int_equal(kh_kv_prepare(b, 60), KH_ERR_CONTEXT);
    assert_non_null(strstr(kh_last_error(), "pages"));
    assert_int_equal(kh_kv_length(b), 10);
    assert_int_equal(kh_kv_pool_used(pool), 3);
    append(b, 54, 2);
    check_rows(b, 0, 64, 2);
    check_rows(a, 0, 100, 1);
    kh_kv *fork;
    assert_int_equal(kh_kv_fork(&fork, a), KH_OK);
    assert_int_equal(kh_kv_prepare(fork, 1), KH_ERR_CONTEXT); /* no page to copy into */
    check_rows(fork, 0, 100, 1);
    kh_kv_close(fork);
    append(a, 20, 1);
    assert_int_equal(kh_kv_open(&bad, pool, 3 * 64 + 1), KH_ERR_ARGUMENT);
    assert_null(bad);
    assert_int_equal(kh_kv_open(&bad, pool, 0), KH_ERR_ARGUMENT);
    kh_kv_close(a);
    kh_kv_close(b);
    kh_kv_pool_close(pool);
}

static void nothing_is_allocated(void **state)
{
    (void)state;
    open_pool(8);
    kh_kv *kv = open_kv(400);
    uint64_t calls = kh_alloc_get_stats().calls;
    for (size_t i = 0; i < 300; i++) append(kv, 1, 1);
    assert_int_equal(kh_kv_rewind(kv, 10), KH_OK);
    append(kv, 200, 1);
    assert_int_equal(kh_alloc_get_stats().calls, calls);
    kh_kv_close(kv);
    kh_kv_pool_close(pool);
}

static void bad_shapes(void **state)
{
    (void)state;
    static const kh_kv_shape shapes[] = {
        {0, 1, 64, 64, KH_TYPE_F16, KH_TYPE_F16, 0},  {1, 0, 64, 64, KH_TYPE_F16, KH_TYPE_F16, 0},
        {1, 1, 0, 64, KH_TYPE_F16, KH_TYPE_F16, 0},   {1, 1, 64, -1, KH_TYPE_F16, KH_TYPE_F16, 0},
        {1, 1, 80, 80, KH_TYPE_Q8_0, KH_TYPE_F16, 0}, {1, 1, 64, 64, KH_TYPE_Q4_0, KH_TYPE_F16, 0},
        {1, 1, 64, 64, (kh_type)99, KH_TYPE_F16, 0},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        kh_kv_pool *bad = (kh_kv_pool *)(void *)&pool;
        assert_int_equal(kh_kv_pool_open(&bad, &shapes[i], 4), KH_ERR_ARGUMENT);
        assert_null(bad);
    }
    kh_kv_shape good = {1, 1, 64, 64, KH_TYPE_F16, KH_TYPE_F16, 0};
    kh_kv_shape wide = {1, 1, 288, 64, KH_TYPE_F16, KH_TYPE_F16, 1};
    kh_kv_pool *bad;
    assert_int_equal(kh_kv_pool_open(&bad, &wide, 4), KH_ERR_UNSUPPORTED);
    assert_int_equal(kh_kv_pool_open(&bad, &good, 0), KH_ERR_ARGUMENT);
    assert_int_equal(kh_kv_pool_open(&bad, &good, SIZE_MAX), KH_ERR_ARGUMENT);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    kh_kv_shape shape = {LAYERS, GROUPS, E, E, KH_TYPE_F16, KH_TYPE_F16, 1};
    uint64_t live = kh_alloc_get_stats().live;
    for (uint64_t n = 1;; n++) {
        kh_kv *kv = NULL, *fork = NULL;
        kh_alloc_fail_at(n);
        kh_status status = kh_kv_pool_open(&pool, &shape, 4);
        if (!status) status = kh_kv_open(&kv, pool, 100);
        if (!status) status = kh_kv_fork(&fork, kv);
        kh_alloc_fail_at(0);
        kh_kv_close(fork);
        kh_kv_close(kv);
        kh_kv_pool_close(pool);
        assert_int_equal(kh_alloc_get_stats().live, live);
        if (!status) {
            assert_true(n > 6);
            return;
        }
        assert_int_equal(status, KH_ERR_MEMORY);
    }
}

/* ---- files */

static char path[] = "/tmp/test_kv_XXXXXX";

static kh_map save(const kh_kv *kv)
{
    kh_outfile *file;
    kh_map map;
    memcpy(path + sizeof path - 7, "XXXXXX", 7);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(kh_outfile_open(&file, path), KH_OK);
    assert_int_equal(kh_kv_save(kv, file), KH_OK);
    assert_int_equal(kh_outfile_commit(file), KH_OK);
    assert_int_equal(kh_map_open(&map, path), KH_OK);
    unlink(path);
    return map;
}

static void save_body(void)
{
    open_pool(10);
    kh_kv *a = open_kv(300), *b = open_kv(200);
    append(a, 100, 9); /* pages of the file are not those that are loaded into */
    assert_int_equal(kh_kv_rewind(a, 0), KH_OK);
    append(a, 150, 1);
    kh_map map = save(a);
    size_t used = 0;
    append(b, 3, 2);
    assert_int_equal(kh_kv_load(b, map.data, map.size, &used), KH_ERR_STATE);
    assert_int_equal(kh_kv_rewind(b, 0), KH_OK);
    assert_int_equal(kh_kv_load(b, map.data, map.size, &used), KH_OK);
    assert_int_equal(used, map.size);
    assert_int_equal(kh_kv_length(b), 150);
    check_rows(b, 0, 150, 1);
    check_sums(b);
    append(b, 50, 3);
    check_rows(b, 150, 200, 3);
    check_sums(b);
    check_rows(a, 0, 150, 1);
    kh_map_close(&map);
    kh_kv_close(a);
    kh_kv_close(b);
    kh_kv_pool_close(pool);
}

static void save_and_load(void **state)
{
    (void)state;
    each_type(save_body);
    open_pool(2);
    kh_kv *a = open_kv(100), *b = open_kv(100);
    kh_map map = save(a); /* an empty sequence is a file too */
    size_t used;
    assert_int_equal(kh_kv_load(b, map.data, map.size, &used), KH_OK);
    assert_int_equal(kh_kv_length(b), 0);
    kh_map_close(&map);
    kh_kv_close(a);
    kh_kv_close(b);
    kh_kv_pool_close(pool);
}

static void hostile_files(void **state)
{
    (void)state;
    open_pool(6);
    kh_kv *a = open_kv(300), *b = open_kv(140);
    append(a, 130, 1);
    kh_map map = save(a);
    size_t used;
    char *copy = malloc(map.size);
    for (size_t n = 0; n < map.size; n += n < 60 ? 1 : 9973) {
        memcpy(copy, map.data, n); /* exactly n readable bytes for the sanitizer */
        char *cut = malloc(n + 1);
        memcpy(cut, map.data, n);
        assert_int_equal(kh_kv_load(b, cut, n, &used), KH_ERR_FORMAT);
        assert_int_equal(used, 0);
        assert_int_equal(kh_kv_length(b), 0);
        free(cut);
    }
    for (size_t at = 0; at < 32; at++)
        for (int bit = 0; bit < 8; bit++) {
            memcpy(copy, map.data, map.size);
            copy[at] = (char)(copy[at] ^ 1 << bit);
            assert_int_equal(kh_kv_load(b, copy, map.size, &used), KH_ERR_FORMAT);
        }
    static const uint64_t lengths[] = {
        131, 140, 141, 193, 1u << 31, UINT64_MAX, UINT64_MAX - 62, 1ull << 63};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        memcpy(copy, map.data, map.size);
        memcpy(copy + 32, &lengths[i], 8);
        kh_status status = kh_kv_load(b, copy, map.size, &used);
        assert_int_equal(status, lengths[i] <= 140 ? KH_OK : KH_ERR_CONTEXT);
        if (!status) assert_int_equal(kh_kv_rewind(b, 0), KH_OK);
    }
    kh_kv *c = open_kv(300); /* capacity suffices, pages do not: a holds 3 of 6 */
    append(b, 65, 2);
    append(c, 64, 2);
    kh_kv *d = open_kv(300);
    assert_int_equal(kh_kv_load(d, map.data, map.size, &used), KH_ERR_CONTEXT);
    assert_int_equal(kh_kv_length(d), 0);
    assert_int_equal(kh_kv_pool_used(pool), 6);
    memcpy(copy, map.data, 40);
    memset(copy + 40, 0xff, map.size - 40); /* NaN everywhere: numbers are never trusted */
    kh_kv_close(c);
    kh_kv_close(b);
    assert_int_equal(kh_kv_load(d, copy, 40 + 3 * kh_kv_page_bytes(kh_kv_pool_shape(pool)), &used),
                     KH_OK);
    free(copy);
    kh_map_close(&map);
    kh_kv_close(a);
    kh_kv_close(d);
    kh_kv_pool_close(pool);
}

/* q8_0: the byte is the nearest to the value over the stored (rounded) scale; halves to even. */
static void q8_rounding(void **state)
{
    (void)state;
    type = KH_TYPE_Q8_0;
    open_pool(1);
    kh_kv *kv = open_kv(1);
    float k[E], v[E];
    for (int layer = 0; layer < LAYERS; layer++)
        for (int g = 0; g < GROUPS; g++) {
            for (size_t e = 0; e < E; e++) {
                k[e] = ((float)(e % 32) - 16.0f) * 0.5f;
                v[e] = number(e, 77) * powf(10.0f, (float)g * 3);
            }
            k[0] = 127.0f;
            k[32] = -127.0f;
            assert_int_equal(kh_kv_prepare(kv, 1), KH_OK);
            kh_kv_write(kv, kh_kern_get(KH_ISA_REF), layer, g, 1, k, E, v, E);
            const uint8_t *panel = kh_kv_keys(kv, layer, g, 0);
            const kh_block_q8_0 *row = kh_kv_value_row(kv, layer, g, 0);
            for (size_t e = 0; e < E; e++) {
                const uint8_t *block = panel + e / 32 * 34 * KH_PANEL;
                int8_t byte = (int8_t)block[2 * KH_PANEL + e % 32 * KH_PANEL];
                assert_int_equal(byte, lrintf(k[e])); /* scale 1 */
                float d = kh_f16_to_f32(row[e / 32].d);
                assert_true(fabsf((float)row[e / 32].qs[e % 32] * d - v[e]) <= 0.5005f * d);
            }
        }
    kh_kv_close(kv);
    kh_kv_pool_close(pool);
    type = KH_TYPE_F32;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(append_and_read),
        cmocka_unit_test(fork_and_write),
        cmocka_unit_test(rewind_forgets),
        cmocka_unit_test(exhaustion_changes_nothing),
        cmocka_unit_test(nothing_is_allocated),
        cmocka_unit_test(bad_shapes),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(save_and_load),
        cmocka_unit_test(hostile_files),
        cmocka_unit_test(q8_rounding),
    };
    return cmocka_run_group_tests_name("kv", tests, NULL, NULL);
}
