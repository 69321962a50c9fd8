/* Heap, arenas and buffers: counted, aligned, able to fail, never larger than planned. */
#include "base/alloc.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/fail.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static int aligned(const void *p)
{
    return (uintptr_t)p % 64 == 0;
}

static void counts_blocks_and_bytes(void **state)
{
    (void)state;
    kh_alloc_stats before = kh_alloc_get_stats(), now;
    char *a = kh_alloc(1000), *b = kh_calloc(3, 7);
    assert_true(a && b && aligned(a) && aligned(b));
    for (int i = 0; i < 21; i++) assert_int_equal(b[i], 0);
    now = kh_alloc_get_stats();
    assert_int_equal(now.calls - before.calls, 2);
    assert_int_equal(now.live - before.live, 2);
    assert_int_equal(now.bytes - before.bytes, 1021);
    assert_true(now.peak >= now.bytes);
    memset(a, 42, 1000);
    a = kh_realloc(a, 5000);
    assert_true(a && aligned(a));
    for (int i = 0; i < 1000; i++) assert_int_equal(a[i], 42);
    a = kh_realloc(a, 10);
    for (int i = 0; i < 10; i++) assert_int_equal(a[i], 42);
    now = kh_alloc_get_stats();
    assert_int_equal(now.live - before.live, 2);
    assert_int_equal(now.bytes - before.bytes, 31);
    assert_true(now.peak >= before.bytes + 5021);
    kh_free(a);
    kh_free(b);
    kh_free(NULL);
    now = kh_alloc_get_stats();
    assert_int_equal(now.live, before.live);
    assert_int_equal(now.bytes, before.bytes);
}

static void refuses_impossible_sizes(void **state)
{
    (void)state;
    kh_alloc_stats before = kh_alloc_get_stats();
    void *out = &before;
    assert_null(kh_alloc(0));
    assert_null(kh_alloc(SIZE_MAX));
    assert_null(kh_alloc(SIZE_MAX - 64));
    assert_null(kh_calloc(SIZE_MAX / 2, 3));
    assert_null(kh_calloc((size_t)1 << 32, (size_t)1 << 32));
    assert_int_equal(kh_new(&out, SIZE_MAX / 2, 4, "the moon"), KH_ERR_MEMORY);
    assert_null(out);
    assert_non_null(strstr(kh_last_error(), "the moon"));
    assert_int_equal(kh_new(&out, 0, 8, "nothing"), KH_OK);
    assert_non_null(out);
    kh_free(out);
    char *block = kh_alloc(16), *same = block;
    memcpy(block, "0123456789abcdef", 16);
    assert_null(kh_realloc(block, SIZE_MAX - 1));
    assert_memory_equal(same, "0123456789abcdef", 16);
    kh_free(block);
    assert_int_equal(kh_alloc_get_stats().live, before.live);
}

static void copies_text(void **state)
{
    (void)state;
    char *a = kh_strdup("keyhole"), *b = kh_strndup("keyhole", 3), *c = kh_strndup("", 0);
    assert_string_equal(a, "keyhole");
    assert_string_equal(b, "key");
    assert_string_equal(c, "");
    kh_free(a);
    kh_free(b);
    kh_free(c);
}

static void fails_on_demand(void **state)
{
    (void)state;
    kh_alloc_fail_at(0);
    void *blocks[5] = {0};
    kh_alloc_fail_at(3);
    for (int i = 0; i < 5; i++) blocks[i] = kh_alloc(8);
    assert_true(blocks[0] && blocks[1] && !blocks[2] && !blocks[3] && !blocks[4]);
    void *region = &region;
    assert_int_equal(kh_reserve(&region, 4096, "a region"), KH_ERR_MEMORY);
    assert_null(region);
    assert_null(kh_realloc(blocks[0], 100));
    assert_int_equal(kh_alloc_fail_at(0), 7);
    void *good = kh_alloc(8);
    assert_non_null(good);
    assert_int_equal(kh_alloc_fail_at(0), 1);
    kh_free(good);
    kh_free(blocks[0]);
    kh_free(blocks[1]);
}

static void reserves_and_drops(void **state)
{
    (void)state;
    const size_t size = (size_t)1 << 34; /* far more than the machine commits */
    uint64_t live = kh_alloc_get_stats().live;
    void *start;
    assert_int_equal(kh_reserve(&start, size, "pages"), KH_OK);
    char *bytes = start;
    assert_int_equal(bytes[size - 1], 0);
    bytes[0] = bytes[4096] = bytes[size - 1] = 9;
    kh_reserve_drop(bytes, 4096);
    assert_int_equal(bytes[0], 0);
    assert_int_equal(bytes[4096], 9);
    assert_int_equal(kh_alloc_get_stats().live, live + 1);
    kh_reserve_free(start, size);
    kh_reserve_free(NULL, 0);
    assert_int_equal(kh_alloc_get_stats().live, live);
    assert_int_equal(kh_reserve(&start, 0, "nothing"), KH_ERR_MEMORY);
    assert_int_equal(kh_reserve(&start, (size_t)1 << 62, "too much"), KH_ERR_MEMORY);
    assert_null(start);
}

static void arena_takes_and_rewinds(void **state)
{
    (void)state;
    kh_arena arena;
    size_t plan = kh_arena_need(100) + kh_arena_need(64) + kh_arena_need(1);
    assert_int_equal(kh_arena_need(0), 0);
    assert_int_equal(kh_arena_need(65), 128);
    assert_int_equal(kh_arena_init(&arena, "test", plan), KH_OK);
    char *a = kh_arena_take(&arena, 100);
    kh_arena_mark mark = kh_arena_save(&arena);
    char *b = kh_arena_take(&arena, 64), *c = kh_arena_take(&arena, 1);
    assert_true(a && b && c && aligned(a) && aligned(b) && aligned(c));
    assert_true(b >= a + 100 && c >= b + 64);
    memset(a, 1, 100);
    memset(b, 2, 64);
    *c = 3;
    assert_null(kh_arena_take(&arena, 1));
    assert_int_equal(arena.used, plan);
    kh_arena_rewind(&arena, mark);
    assert_ptr_equal(kh_arena_take(&arena, 10), b);
    assert_int_equal(a[99], 1);
    assert_int_equal(arena.peak, plan);
    assert_null(kh_arena_take(&arena, SIZE_MAX));
    assert_null(kh_arena_take(&arena, SIZE_MAX - 63));
    void *out = &out;
    assert_int_equal(kh_arena_new(&arena, &out, SIZE_MAX / 2, 3), KH_ERR_MEMORY);
    assert_null(out);
    assert_non_null(strstr(kh_last_error(), "test"));
    assert_int_equal(kh_arena_new(&arena, &out, 2, 8), KH_OK);
    assert_ptr_equal(out, c);
    kh_arena_free(&arena);
    kh_arena_free(&arena);
    kh_alloc_fail_at(1);
    assert_int_equal(kh_arena_init(&arena, "none", 64), KH_ERR_MEMORY);
    kh_alloc_fail_at(0);
    kh_arena_free(&arena);
}

static void buffer_grows(void **state)
{
    (void)state;
    kh_buf buf = {0};
    assert_int_equal(kh_buf_text(&buf, ""), KH_OK);
    assert_string_equal(buf.data, "");
    for (int i = 0; i < 1000; i++) assert_int_equal(kh_buf_format(&buf, "%d,", i), KH_OK);
    assert_int_equal(buf.size, 10 * 2 + 90 * 3 + 900 * 4);
    assert_memory_equal(buf.data, "0,1,2,3,", 8);
    assert_string_equal(buf.data + buf.size - 8, "998,999,");
    assert_int_equal(kh_buf_add(&buf, "a\0b", 3), KH_OK);
    assert_int_equal(buf.data[buf.size], 0);
    assert_memory_equal(buf.data + buf.size - 3, "a\0b", 3);
    char *data = buf.data;
    size_t capacity = buf.capacity;
    kh_buf_clear(&buf);
    assert_true(buf.size == 0 && buf.data == data && data[0] == 0);
    assert_int_equal(kh_buf_reserve(&buf, capacity), KH_OK);
    assert_ptr_equal(buf.data, data);
    kh_buf_free(&buf);
    assert_null(buf.data);
    kh_buf_clear(&buf);
    kh_buf_free(&buf);
}

static void buffer_keeps_content_on_failure(void **state)
{
    (void)state;
    kh_buf buf = {0};
    assert_int_equal(kh_buf_text(&buf, "kept"), KH_OK);
    kh_alloc_fail_at(1);
    assert_int_equal(kh_buf_reserve(&buf, 10000), KH_ERR_MEMORY);
    assert_int_equal(kh_buf_format(&buf, "%01000d", 1), KH_ERR_MEMORY);
    kh_alloc_fail_at(0);
    assert_string_equal(buf.data, "kept");
    assert_int_equal(buf.size, 4);
    assert_int_equal(kh_buf_add(&buf, "", SIZE_MAX - 2), KH_ERR_MEMORY);
    assert_int_equal(kh_buf_reserve(&buf, SIZE_MAX), KH_ERR_MEMORY);
    assert_string_equal(buf.data, "kept");
    kh_buf_free(&buf);
}

static void arrays_grow(void **state)
{
    (void)state;
    uint64_t live = kh_alloc_get_stats().live;
    uint32_t *items = NULL;
    size_t count = 0, room = 0;
    for (; count < 1000; count++) {
        assert_int_equal(kh_grow(&items, count, &room, sizeof *items, "items"), KH_OK);
        assert_true(room > count && room <= 2 * (count + 16));
        items[count] = (uint32_t)count;
    }
    for (uint32_t i = 0; i < 1000; i++) assert_int_equal(items[i], i);
    uint32_t *same = items;
    size_t full = room;
    kh_alloc_fail_at(1);
    assert_int_equal(kh_grow(&items, room, &room, sizeof *items, "items"), KH_ERR_MEMORY);
    kh_alloc_fail_at(0);
    assert_int_equal(kh_grow(&items, room, &room, SIZE_MAX / 2, "items"), KH_ERR_MEMORY);
    assert_true(items == same && room == full && items[999] == 999);
    kh_free(items);
    assert_true(kh_alloc_get_stats().live == live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_blocks_and_bytes),
        cmocka_unit_test(refuses_impossible_sizes),
        cmocka_unit_test(copies_text),
        cmocka_unit_test(arrays_grow),
        cmocka_unit_test(fails_on_demand),
        cmocka_unit_test(reserves_and_drops),
        cmocka_unit_test(arena_takes_and_rewinds),
        cmocka_unit_test(buffer_grows),
        cmocka_unit_test(buffer_keeps_content_on_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
