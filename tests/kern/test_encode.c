/* Rows to block types and back: never worse than simple rounding, near the best that any scale can do,
 * quiet about numbers that lie on a grid already, and calm about numbers from hell. */
#include "base/alloc.h"
#include "base/rng.h"
#include "kern/encode_row.h"
#include "ops/requantize.h"
#include "ops/unpack.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { N = 4096 };

typedef struct form {
    kh_type type;
    int group;       /* numbers that share a scale */
    int steps, most; /* levels [-steps, steps - 1], or [0, most] with a minimum */
    double worse;    /* than simple rounding of each group with a scale of its own, at most */
} form;

static const form forms[] = {
    {KH_TYPE_Q8_0, 32, 128, 0, 1.02}, {KH_TYPE_Q4_0, 32, 8, 0, 1.0},
    {KH_TYPE_Q5_0, 32, 16, 0, 1.0},   {KH_TYPE_Q4_1, 32, 0, 15, 1.0},
    {KH_TYPE_Q5_1, 32, 0, 31, 1.0},   {KH_TYPE_Q2_K, 16, 0, 3, 1.1},
    {KH_TYPE_Q3_K, 16, 4, 0, 1.1},    {KH_TYPE_Q4_K, 32, 0, 15, 1.05},
    {KH_TYPE_Q5_K, 32, 0, 31, 1.05},  {KH_TYPE_Q6_K, 16, 32, 0, 1.05},
};
enum { FORMS = sizeof forms / sizeof *forms };

/* Data sets: what weights look like, and what they rarely look like. */
static const char *const kinds[] = {"normal",   "uniform",  "heavy tails", "sparse",
                                    "positive", "negative", "one outlier", "tiny"};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void fill(float *x, int kind)
{
    kh_rng_key key = {.seed = 5, .stream = (uint64_t)kind};
    for (uint64_t i = 0; i < N; i++) {
        double g = kh_rng_normal(key, 2 * i), u = kh_rng_uniform(key, 2 * i + 1);
        double v = kind == 0   ? 0.02 * g
                   : kind == 1 ? u - 0.5
                   : kind == 2 ? 0.01 * g * g * g
                   : kind == 3 ? (u < 0.9 ? 0 : g)
                   : kind == 4 ? 1 + fabs(g)
                   : kind == 5 ? -3 - u
                   : kind == 6 ? (i % 256 == 77 ? 50 : 0.1 * g)
                               : 1e-4 * g;
        x[i] = (float)v;
    }
}

static void decode(kh_type type, float *y, const void *blocks, size_t n)
{
    kh_unpack_of(kh_kern_get(KH_ISA_REF), type).f32(y, blocks, n);
}

static double squares(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double off = (double)a[i] - (double)b[i];
        sum += off * off;
    }
    return sum;
}

/* The group's extremes go to the ends of the range, with exact scales. */
static double simple(const float *x, const form *f)
{
    double sum = 0;
    for (size_t at = 0; at < N; at += (size_t)f->group) {
        double low = 0, high = 0, least = (double)x[at], largest = least;
        for (int i = 0; i < f->group; i++) {
            double v = (double)x[at + (size_t)i];
            low = fmin(low, v), high = fmax(high, v);
            least = fmin(least, v), largest = fmax(largest, v);
        }
        double d, b = 0, first = 0, last = f->most;
        if (f->steps) {
            double extreme = -low > high ? low : high;
            first = -f->steps, last = f->steps - 1;
            d = extreme / (f->steps == 128 ? 127 : -f->steps);
        } else {
            int free_minimum = f->type == KH_TYPE_Q4_1 || f->type == KH_TYPE_Q5_1;
            b = free_minimum ? least : low;
            d = ((free_minimum ? largest : high) - b) / f->most;
        }
        for (int i = 0; i < f->group; i++) {
            double v = (double)x[at + (size_t)i];
            double q = d == 0 ? 0 : fmin(fmax(nearbyint((v - b) / d), first), last);
            sum += (d * q + b - v) * (d * q + b - v);
        }
    }
    return sum;
}

static void near_simple_rounding(void **state)
{
    (void)state;
    static float x[N], y[N];
    static uint8_t blocks[N * 4];
    for (int k = 0; k < KINDS; k++) {
        fill(x, k);
        for (int f = 0; f < FORMS; f++) {
            kh_encode_of_ref(forms[f].type)(blocks, x, N);
            decode(forms[f].type, y, blocks, N);
            double ours = sqrt(squares(x, y, N) / N), theirs = sqrt(simple(x, &forms[f]) / N);
            print_message("%s, %s: %.6g, simple rounding %.6g: %.3f\n", kinds[k],
                          kh_type_name(forms[f].type), ours, theirs, ours / theirs);
            /* subnormal scales of "tiny" have few bits; an outlier takes all the bits of scales of
             * 4 or 6 bits from its neighbours */
            int coarse = forms[f].type == KH_TYPE_Q2_K || forms[f].type == KH_TYPE_Q3_K;
            double slack = k == 7 ? 2.5 : k == 6 && coarse ? 4 : 1;
            if (ours > theirs * forms[f].worse * slack)
                fail_msg("%s, %s: error %g, simple rounding has %g", kinds[k],
                         kh_type_name(forms[f].type), ours, theirs);
        }
    }
}

/* No scale of thousands does much better, block by block. */
static void near_the_best_scale(void **state)
{
    (void)state;
    static float x[N], y[N];
    static uint8_t blocks[N * 4];
    for (int f = 1; f < 3; f++) {
        double ours = 0, best = 0;
        fill(x, 0);
        kh_encode_of_ref(forms[f].type)(blocks, x, N);
        decode(forms[f].type, y, blocks, N);
        for (size_t at = 0; at < N; at += 32) {
            double steps = forms[f].steps, extreme = 0, least = DBL_MAX;
            for (size_t i = at; i < at + 32; i++) extreme = fmax(extreme, fabs((double)x[i]));
            for (int k = -4000; k <= 4000; k++) {
                double d = extreme / steps * (1.5 * k / 4000), sum = 0;
                if (k == 0) continue;
                for (size_t i = at; i < at + 32; i++) {
                    double v = (double)x[i], q = nearbyint(v / d);
                    q = fmin(fmax(q, -steps), steps - 1);
                    sum += (d * q - v) * (d * q - v);
                }
                least = fmin(least, sum);
            }
            double sum = squares(x + at, y + at, 32);
            assert_true(sum < 1.25 * least);
            ours += sum;
            best += least;
        }
        print_message("%s: squared error %.4f of the best scale's\n", kh_type_name(forms[f].type),
                      ours / best);
        assert_true(ours < 1.06 * best); /* large numbers count more */
    }
}

static void again_is_the_same(void **state)
{
    (void)state;
    static float x[N], y[N], z[N];
    static uint8_t blocks[N * 4];
    for (int k = 0; k < KINDS - 1; k++)
        for (int f = 0; f < FORMS; f++) {
            fill(x, k);
            kh_encode_of_ref(forms[f].type)(blocks, x, N);
            decode(forms[f].type, y, blocks, N);
            kh_encode_of_ref(forms[f].type)(blocks, y, N);
            decode(forms[f].type, z, blocks, N);
            double first = sqrt(squares(x, y, N)), second = sqrt(squares(y, z, N));
            int coarse = forms[f].type == KH_TYPE_Q2_K || forms[f].type == KH_TYPE_Q3_K;
            int centred = forms[f].group == 32 && forms[f].steps;
            double slack = centred ? 0.02 : coarse || k == 3 ? 0.5 : 0.3;
            if (second > slack * first)
                fail_msg("%s, %s: error %g, of the result %g", kinds[k],
                         kh_type_name(forms[f].type), first, second);
        }
}

static const kh_type types[] = {
    KH_TYPE_F32,  KH_TYPE_F16,  KH_TYPE_BF16, KH_TYPE_Q8_0, KH_TYPE_Q4_0,
    KH_TYPE_Q4_1, KH_TYPE_Q5_0, KH_TYPE_Q5_1, KH_TYPE_Q2_K, KH_TYPE_Q3_K,
    KH_TYPE_Q4_K, KH_TYPE_Q5_K, KH_TYPE_Q6_K,
};
enum { TYPES = sizeof types / sizeof *types };

static void zeros_and_dust(void **state)
{
    (void)state;
    static float x[N], y[N];
    static uint8_t blocks[N * 4];
    const float small[] = {0.0f, -0.0f, 1e-45f, -1e-40f, FLT_MIN, 1e-20f, 1e-9f};
    for (int t = 1; t < TYPES; t++)
        for (size_t s = 0; s < sizeof small / sizeof *small; s++) {
            for (int i = 0; i < N; i++) x[i] = i % 3 ? small[s] : 0;
            kh_encode_of_ref(types[t])(blocks, x, N);
            decode(types[t], y, blocks, N);
            for (int i = 0; i < N; i++) assert_true(fabsf(x[i] - y[i]) <= 3e-8f);
        }
}

static void hell(void **state)
{
    (void)state;
    static float x[N], y[N];
    static uint8_t blocks[N * 4];
    const float bad[] = {NAN, INFINITY, -INFINITY, FLT_MAX, -FLT_MAX, 1e30f, 65504.0f, -65504.0f};
    for (int t = 0; t < TYPES; t++)
        for (size_t b = 0; b < sizeof bad / sizeof *bad; b++)
            for (int every = 1; every < 100; every += 49) {
                fill(x, 0);
                for (int i = 0; i < N; i += every) x[i] = bad[b];
                kh_encode_of_ref(types[t])(blocks, x, N);
                if (types[t] == KH_TYPE_F32) continue;
                decode(types[t], y, blocks, N);
                if (!(fabsf(bad[b]) <= kh_encode_limit(types[t]))) continue;
                for (int i = 0; i < N; i++)
                    if (!isfinite(y[i]) || fabsf(y[i]) > 1.2f * fabsf(bad[b]))
                        fail_msg("%s: %g became %g", kh_type_name(types[t]), (double)x[i],
                                 (double)y[i]);
            }
}

static void dense_types(void **state)
{
    (void)state;
    const float x[4] = {1.0f, 1.0f + 0x1p-11f, -65504.0f, 0x1p-24f};
    uint16_t y[4];
    kh_encode_of_ref(KH_TYPE_F16)(y, x, 4);
    assert_true(y[0] == 0x3c00 && y[1] == 0x3c00 && y[2] == 0xfbff && y[3] == 1);
    kh_encode_of_ref(KH_TYPE_BF16)(y, (float[]){1, -2, 1.00390625f, 3e38f}, 4);
    assert_true(y[0] == 0x3f80 && y[1] == 0xc000 && y[2] == 0x3f80 && y[3] == 0x7f62);
    assert_null(kh_encode_of_ref(KH_TYPE_IQ4_XS));
    assert_null(kh_encode_of_ref(KH_TYPE_NONE));
}

static void rows_in_parallel(void **state)
{
    (void)state;
    enum { ROWS = 200, COLS = 512 };
    static float x[ROWS * COLS], row[COLS], back[COLS];
    static uint8_t first[ROWS * COLS * 4], second[ROWS * COLS * 4];
    const kh_kern *kern = kh_kern_get(kh_cpu_isa());
    kh_rng_key key = {.seed = 9};
    for (uint64_t i = 0; i < ROWS * COLS; i++) x[i] = (float)kh_rng_normal(key, i);
    for (int t = 0; t < TYPES; t++) {
        size_t bytes = kh_type_row_bytes(types[t], COLS);
        for (int threads = 1; threads <= 3; threads++) {
            kh_pool pool = {threads};
            uint8_t *to = threads == 1 ? first : second;
            memset(to, 0, ROWS * bytes);
            assert_int_equal(
                kh_op_requantize(&pool, kern, to, types[t], x, KH_TYPE_F32, ROWS, COLS, 0), KH_OK);
            assert_memory_equal(first, to, ROWS * bytes);
        }
        for (size_t r = 0; r < ROWS; r += 67) {
            uint8_t one[COLS * 4];
            kh_encode_of_ref(types[t])(one, x + r * COLS, COLS);
            assert_memory_equal(one, first + r * bytes, bytes);
        }
        /* and on from there: every type can be read to make another */
        kh_pool pool = {2};
        assert_int_equal(
            kh_op_requantize(&pool, kern, second, KH_TYPE_F32, first, types[t], ROWS, COLS, 0),
            KH_OK);
        memcpy(row, second + 5 * sizeof row, sizeof row);
        if (types[t] == KH_TYPE_F32)
            memcpy(back, first + 5 * sizeof row, sizeof row);
        else
            decode(types[t], back, first + 5 * bytes, COLS);
        assert_memory_equal(row, back, sizeof row);
    }
}

/* Whatever the instruction set, the bytes are those of plain C. */
static void same_bytes_everywhere(void **state)
{
    (void)state;
    static float x[N];
    static uint8_t plain[N * 4], other[N * 4];
    const float bad[] = {0.5f, NAN, INFINITY, -FLT_MAX, 1e-40f};
    for (int k = 0; k < KINDS; k++)
        for (int b = 0; b < 5; b++) {
            fill(x, k);
            for (int i = 0; i < N; i += 37) x[i] = bad[b];
            for (int t = 0; t < TYPES; t++) {
                size_t bytes = kh_type_row_bytes(types[t], N);
                kh_encode_of(KH_ISA_REF, types[t])(plain, x, N);
                kh_encode_of(kh_cpu_isa(), types[t])(other, x, N);
                if (memcmp(plain, other, bytes) != 0)
                    fail_msg("%s, %s, with %g", kinds[k], kh_type_name(types[t]), (double)bad[b]);
            }
        }
}

static void refusals(void **state)
{
    (void)state;
    enum { ROWS = 300, COLS = 256 };
    static float x[ROWS * COLS];
    static uint8_t y[ROWS * COLS * 4];
    const kh_kern *kern = kh_kern_get(KH_ISA_REF);
    const float bad[] = {NAN, INFINITY, -1e6f};
    kh_pool pool = {2};
    for (int b = 0; b < 3; b++)
        for (int t = 1; t < TYPES; t++) {
            memset(x, 0, sizeof x);
            x[211 * COLS + 17] = bad[b];
            x[250 * COLS] = bad[b];
            kh_status status = kh_op_requantize(&pool, kern, y, types[t], x, KH_TYPE_F32, ROWS,
                                                COLS, 1000);
            if (b == 2 && types[t] == KH_TYPE_BF16) {
                assert_int_equal(status, KH_OK);
                continue;
            }
            assert_int_equal(status, KH_ERR_FORMAT);
            if (!strstr(kh_last_error(), "row 1211, element 17") ||
                !strstr(kh_last_error(), kh_type_name(types[t])))
                fail_msg("%s", kh_last_error());
        }
    assert_int_equal(kh_op_requantize(&pool, kern, y, KH_TYPE_IQ4_XS, x, KH_TYPE_F32, 1, COLS, 0),
                     KH_ERR_UNSUPPORTED);
    uint64_t live = kh_alloc_get_stats().live;
    for (uint64_t n = 1; n <= 2; n++) {
        kh_alloc_fail_at(n);
        kh_status status = kh_op_requantize(&pool, kern, y, KH_TYPE_F16, x, KH_TYPE_F32, ROWS, COLS,
                                            0);
        kh_alloc_fail_at(0);
        assert_int_equal(status, KH_ERR_MEMORY);
        assert_int_equal(kh_alloc_get_stats().live, live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(near_simple_rounding),
        cmocka_unit_test(near_the_best_scale),
        cmocka_unit_test(again_is_the_same),
        cmocka_unit_test(zeros_and_dust),
        cmocka_unit_test(hell),
        cmocka_unit_test(dense_types),
        cmocka_unit_test(rows_in_parallel),
        cmocka_unit_test(refusals),
        cmocka_unit_test(same_bytes_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
