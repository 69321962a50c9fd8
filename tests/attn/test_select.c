/* kh_select_topk against a stable sort, on rows that were made to defeat it. */
// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include "base/alloc.h"

#include <keyhole/attention.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 70000 };

static float row[MOST], values[MOST];
static uint32_t indices[MOST], order[MOST];
static uint64_t state = 1;

static double uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) * 0x1p-53;
}

static float gaussian(void)
{
    return (float)(sqrt(-2 * log(uniform() + 1e-300)) * cos(6.283185307179586 * uniform()));
}

/* Larger scores first, lower indices first among equals. */
static int better(const void *a, const void *b)
{
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    if (row[i] != row[j]) return row[i] > row[j] ? -1 : 1;
    return i < j ? -1 : 1;
}

static int by_index(const void *a, const void *b)
{
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    return (i > j) - (i < j);
}

static void check(const char *what, size_t n, size_t k)
{
    size_t usable = 0, count = 12345;
    for (size_t i = 0; i < n; i++)
        if (row[i] > -INFINITY) order[usable++] = (uint32_t)i;
    qsort(order, usable, sizeof *order, better);
    size_t want = k < usable ? k : usable;
    qsort(order, want, sizeof *order, by_index);
    if (kh_select_topk(row, n, k, indices, values, &count)) fail_msg("%s", kh_last_error());
    if (count != want) fail_msg("%s, %zu of %zu: %zu were chosen", what, k, n, count);
    for (size_t i = 0; i < want; i++)
        if (indices[i] != order[i] || values[i] != row[order[i]])
            fail_msg("%s, %zu of %zu: place %zu holds %u (%g), expected %u (%g)", what, k, n, i,
                     indices[i], (double)values[i], order[i], (double)row[order[i]]);
}

static void check_sizes(const char *what, void (*make)(size_t n))
{
    static const size_t lengths[] = {1,    2,    15,   16,   17,   63,    100,   1000,
                                     1024, 1025, 2047, 2048, 4099, 16384, 65536, 69999};
    static const size_t keeps[] = {1, 2, 16, 100, 128, 513, 2048, 5000, 16384, MOST};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        make(lengths[i]);
        for (size_t j = 0; j < sizeof keeps / sizeof *keeps; j++) check(what, lengths[i], keeps[j]);
    }
}

static void make_gaussian(size_t n)
{
    for (size_t i = 0; i < n; i++) row[i] = gaussian();
}

static void make_ascending(size_t n)
{
    for (size_t i = 0; i < n; i++) row[i] = (float)i - 1000.0f;
}

static void make_descending(size_t n)
{
    for (size_t i = 0; i < n; i++) row[i] = -(float)i;
}

static void make_equal(size_t n)
{
    for (size_t i = 0; i < n; i++) row[i] = -3.25f;
}

static void make_ties(size_t n)
{
    for (size_t i = 0; i < n; i++) row[i] = (float)(int)(3 * gaussian());
}

/* Zeros of both signs are equal; denormals are not. */
static void make_zeros(size_t n)
{
    static const float some[] = {0.0f, -0.0f, 1e-45f, -1e-45f, 0.0f, -0.0f};
    for (size_t i = 0; i < n; i++) row[i] = some[(size_t)(6 * uniform())];
}

static void make_heavy(size_t n)
{
    for (size_t i = 0; i < n; i++) row[i] = (float)(1 / (uniform() + 1e-9) - 2);
    row[n / 2] = INFINITY;
    row[n / 3] = 3.4e38f;
    row[n / 5] = -3.4e38f;
}

static void make_holes(size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double u = uniform();
        row[i] = u < 0.3 ? NAN : u < 0.6 ? -INFINITY : u < 0.61 ? INFINITY : gaussian();
    }
}

static void make_few(size_t n)
{
    for (size_t i = 0; i < n; i++) row[i] = uniform() < 0.5 ? NAN : -INFINITY;
    row[n - 1] = 1;
    row[n / 2] = -1;
}

static void make_nan(size_t n)
{
    for (size_t i = 0; i < n; i++) row[i] = i % 2 ? NAN : -NAN;
}

/* All large scores stand where a sample of evenly spaced groups looks: its guess is far too high. */
static void make_lie_high(size_t n)
{
    for (size_t i = 0; i < n; i++) row[i] = (float)(uniform() - 1000);
    size_t groups = n / 16 < 512 ? 32 : n / 16 > 4096 ? 256 : n / 256;
    for (size_t g = 0; n >= 2048 && g < groups; g++)
        for (size_t i = 0; i < 16; i++) row[g * (n - 16) / (groups - 1) + i] = (float)uniform();
}

/* None of them stands there: its guess is far too low, and the list overflows. */
static void make_lie_low(size_t n)
{
    for (size_t i = 0; i < n; i++) row[i] = (float)(uniform() + (double)i / 1000);
    size_t groups = n / 16 < 512 ? 32 : n / 16 > 4096 ? 256 : n / 256;
    for (size_t g = 0; n >= 2048 && g < groups; g++)
        for (size_t i = 0; i < 16; i++) row[g * (n - 16) / (groups - 1) + i] = -5;
}

#define ROWS(X)                                                                                    \
    X(gaussian)                                                                                    \
    X(ascending)                                                                                   \
    X(descending) X(equal) X(ties) X(zeros) X(heavy) X(holes) X(few) X(nan) X(lie_high) X(lie_low)
#define TEST(name)                                                                                 \
    static void test_##name(void **unused)                                                         \
    {                                                                                              \
        (void)unused;                                                                              \
        check_sizes(#name, make_##name);                                                           \
    }
ROWS(TEST)
#undef TEST

static void test_edges(void **unused)
{
    (void)unused;
    size_t count = 7;
    make_gaussian(5000);
    assert_int_equal(kh_select_topk(row, 0, 5, indices, values, &count), KH_OK);
    assert_int_equal(count, 0);
    assert_int_equal(kh_select_topk(row, 5, 0, NULL, NULL, &count), KH_OK);
    assert_int_equal(count, 0);
    assert_int_equal(kh_select_topk(row, 5, 2, NULL, values, &count), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "indices is NULL"));
    assert_int_equal(kh_select_topk(row, 5000, 5000, indices, NULL, &count), KH_OK);
    assert_int_equal(count, 5000);
    kh_alloc_fail_at(1);
    assert_int_equal(kh_select_topk(row, 5000, 5, indices, values, &count), KH_ERR_MEMORY);
    kh_alloc_fail_at(0);
    assert_int_equal(count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test(test_##name),
        ROWS(TEST)
#undef TEST
            cmocka_unit_test(test_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
