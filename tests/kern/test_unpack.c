/* Unpacking: to f32 equal to the committed values of the gguf package, bit for bit; to the integer
 * form equal to f32 within rounding, with levels in the promised range. */
#include "base/alloc.h"
#include "base/file.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "tensor/half.h"
#include "tensor/types.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

typedef void unpack_f32_fn(float *y, const void *x, size_t n);
typedef void unpack_q8_fn(int8_t *q, float *d, float *m, const void *x, size_t n);

typedef struct row {
    const char *name;
    kh_type type;
    unpack_f32_fn *to_f32;
    unpack_q8_fn *to_q8;
    int least, most; /* levels of the integer form */
    int scales[2];   /* byte offsets of the binary16 scales, -1: none */
} row;

static const row rows[] = {
    {"f16", KH_TYPE_F16, unpack_f32_f16_ref, NULL, 0, 0, {-1, -1}},
    {"bf16", KH_TYPE_BF16, unpack_f32_bf16_ref, NULL, 0, 0, {-1, -1}},
    {"q4_0", KH_TYPE_Q4_0, unpack_f32_q4_0_ref, unpack_q8_q4_0_ref, 0, 15, {0, -1}},
    {"q4_1", KH_TYPE_Q4_1, unpack_f32_q4_1_ref, unpack_q8_q4_1_ref, 0, 15, {0, 2}},
    {"q5_0", KH_TYPE_Q5_0, unpack_f32_q5_0_ref, unpack_q8_q5_0_ref, 0, 31, {0, -1}},
    {"q5_1", KH_TYPE_Q5_1, unpack_f32_q5_1_ref, unpack_q8_q5_1_ref, 0, 31, {0, 2}},
    {"q8_0", KH_TYPE_Q8_0, unpack_f32_q8_0_ref, unpack_q8_q8_0_ref, -128, 127, {0, -1}},
    {"q2_k", KH_TYPE_Q2_K, unpack_f32_q2_k_ref, unpack_q8_q2_k_ref, 0, 3, {80, 82}},
    {"q3_k", KH_TYPE_Q3_K, unpack_f32_q3_k_ref, unpack_q8_q3_k_ref, 0, 7, {108, -1}},
    {"q4_k", KH_TYPE_Q4_K, unpack_f32_q4_k_ref, unpack_q8_q4_k_ref, 0, 15, {0, 2}},
    {"q5_k", KH_TYPE_Q5_K, unpack_f32_q5_k_ref, unpack_q8_q5_k_ref, 0, 31, {0, 2}},
    {"q6_k", KH_TYPE_Q6_K, unpack_f32_q6_k_ref, unpack_q8_q6_k_ref, 0, 63, {208, -1}},
    {"iq4_nl", KH_TYPE_IQ4_NL, unpack_f32_iq4_nl_ref, unpack_q8_iq4_nl_ref, -127, 113, {0, -1}},
    {"iq4_xs", KH_TYPE_IQ4_XS, unpack_f32_iq4_xs_ref, unpack_q8_iq4_xs_ref, -127, 113, {0, -1}},
};

typedef struct golden {
    char *file;
    size_t n, bytes; /* values, raw bytes */
    const uint8_t *raw;
    const uint8_t *values; /* f32 [n], unaligned */
} golden;

static golden load(const row *r)
{
    char path[256];
    snprintf(path, sizeof path, "tests/golden/blocks/%s.bin", r->name);
    golden g = {0};
    size_t size;
    if (kh_file_read(&g.file, &size, path, 1 << 24) != KH_OK) fail_msg("%s", kh_last_error());
    uint32_t head[4];
    assert_true(size > 24 && memcmp(g.file, "KHBLOCK1", 8) == 0);
    memcpy(head, g.file + 8, sizeof head);
    assert_int_equal(head[0], r->type);
    assert_int_equal(head[2], kh_type_bytes(r->type));
    assert_int_equal(head[3], kh_type_block(r->type));
    g.bytes = (size_t)head[1] * head[2];
    g.n = (size_t)head[1] * head[3];
    assert_int_equal(size, 24 + g.bytes + 4 * g.n);
    g.raw = (const uint8_t *)g.file + 24;
    g.values = g.raw + g.bytes;
    return g;
}

static int same_f32(uint32_t a, uint32_t b)
{
    int nan_a = (a & 0x7fffffffu) > 0x7f800000u, nan_b = (b & 0x7fffffffu) > 0x7f800000u;
    return nan_a && nan_b ? a >> 31 == b >> 31 : a == b;
}

static void f32_equals_golden(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        golden g = load(&rows[k]);
        float *y = kh_alloc((g.n + 1) * sizeof *y);
        uint8_t *x = kh_alloc(g.bytes);
        assert_true(y && x);
        memcpy(x, g.raw, g.bytes);
        y[g.n] = 123.5f;
        rows[k].to_f32(y, x, g.n);
        for (size_t i = 0; i < g.n; i++) {
            uint32_t expected;
            memcpy(&expected, g.values + 4 * i, 4);
            if (!same_f32(kh_f32_bits(y[i]), expected))
                fail_msg("%s: element %zu: expected %a, found %a", rows[k].name, i,
                         (double)kh_f32_from_bits(expected), (double)y[i]);
        }
        assert_true(y[g.n] == 123.5f);
        kh_free(x);
        kh_free(y);
        kh_free(g.file);
    }
}

/* Compares both forms of one row. Subnormal products lose relative precision, hence the last term. */
static void compare(const row *r, const uint8_t *x, size_t n)
{
    float *y = kh_alloc(n * sizeof *y), *d = kh_alloc((n / 16 + 1) * sizeof *d),
          *m = kh_alloc((n / 16 + 1) * sizeof *m);
    int8_t *q = kh_alloc(n + 1);
    assert_true(y && d && m && q);
    q[n] = 77;
    d[n / 16] = m[n / 16] = 123.5f;
    r->to_f32(y, x, n);
    r->to_q8(q, d, m, x, n);
    for (size_t i = 0; i < n; i++) {
        double part = (double)d[i / 16] * q[i], least = (double)m[i / 16];
        double limit = 4e-7 * (fabs(part) + fabs(least)) + 1e-44;
        if (!(fabs(part + least - (double)y[i]) <= limit))
            fail_msg("%s: element %zu: %a * %d + %a is not %a", r->name, i, (double)d[i / 16], q[i],
                     least, (double)y[i]);
        if (q[i] < r->least || q[i] > r->most)
            fail_msg("%s: element %zu: level %d is outside %d..%d", r->name, i, q[i], r->least,
                     r->most);
    }
    assert_int_equal(q[n], 77);
    assert_true(d[n / 16] == 123.5f && m[n / 16] == 123.5f);
    kh_free(q);
    kh_free(m);
    kh_free(d);
    kh_free(y);
}

static void q8_equals_f32_on_golden_blocks(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        if (!rows[k].to_q8) continue;
        golden g = load(&rows[k]);
        uint8_t *x = kh_alloc(g.bytes);
        assert_non_null(x);
        memcpy(x, g.raw, g.bytes);
        compare(&rows[k], x, g.n);
        kh_free(x);
        kh_free(g.file);
    }
}

static void q8_equals_f32_on_random_blocks(void **state)
{
    (void)state;
    enum { BLOCKS = 500 };
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        const row *r = &rows[k];
        if (!r->to_q8) continue;
        size_t size = kh_type_bytes(r->type);
        uint8_t *x = kh_alloc(BLOCKS * size);
        assert_non_null(x);
        for (size_t i = 0; i < BLOCKS * size; i++)
            x[i] = (uint8_t)kh_rng_bits((kh_rng_key){7, k}, i);
        for (size_t b = 0; b < BLOCKS; b++)
            for (int s = 0; s < 2; s++) {
                if (r->scales[s] < 0) continue;
                uint8_t *high = x + b * size + r->scales[s] + 1;
                if ((*high & 0x7c) == 0x7c) *high ^= 0x40; /* no infinity, no NaN */
            }
        compare(r, x, BLOCKS * kh_type_block(r->type));
        kh_free(x);
    }
}

/* Facts of binary16 that need no other implementation. */
static void halves(void **state)
{
    (void)state;
    assert_true(kh_f16_to_f32(0x3c00) == 1.0f && kh_f16_to_f32(0xc000) == -2.0f);
    assert_true(kh_f16_to_f32(0x7bff) == 65504.0f && kh_f16_to_f32(0x0400) == 0x1p-14f);
    assert_true(kh_f16_to_f32(0x0001) == 0x1p-24f && kh_f16_to_f32(0x83ff) == -1023 * 0x1p-24f);
    assert_true(isinf(kh_f16_to_f32(0x7c00)) && isnan(kh_f16_to_f32(0xfe00)));
    assert_int_equal(kh_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(kh_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(kh_f32_to_f16(1.0f + 0x1p-11f), 0x3c00);     /* tie, to even */
    assert_int_equal(kh_f32_to_f16(1.0f + 3 * 0x1p-11f), 0x3c02); /* tie, to even */
    assert_int_equal(kh_f32_to_f16(0x1p-25f), 0x0000);
    assert_int_equal(kh_f32_to_f16(0x1.000002p-25f), 0x0001);
    assert_int_equal(kh_f32_to_f16(-0x1p-24f), 0x8001);
    assert_int_equal(kh_f32_to_f16(-0.0f), 0x8000);
    assert_int_equal(kh_f32_to_f16(NAN) & 0x7e00, 0x7e00);
    for (uint32_t h = 0; h < 65536; h++) {
        float f = kh_f16_to_f32((uint16_t)h), b = kh_bf16_to_f32((uint16_t)h);
        if (!isnan(f)) assert_int_equal(kh_f32_to_f16(f), h);
        if (!isnan(b)) assert_int_equal(kh_f32_to_bf16(b), h);
        if (h < 0x7bff) { /* between neighbours: the nearer one, the even one in the middle */
            float next = kh_f16_to_f32((uint16_t)(h + 1)), middle = f + (next - f) / 2;
            assert_int_equal(kh_f32_to_f16(middle), h % 2 ? h + 1 : h);
            assert_int_equal(kh_f32_to_f16(nextafterf(middle, 0.0f)), h);
            assert_int_equal(kh_f32_to_f16(nextafterf(middle, 1e9f)), h + 1);
        }
    }
    assert_int_equal(kh_f32_to_bf16(1.0f + 0x1p-8f), 0x3f80);
    assert_int_equal(kh_f32_to_bf16(1.0f + 3 * 0x1p-8f), 0x3f82);
    assert_int_equal(kh_f32_to_bf16(3.4028235e38f), 0x7f80);
    assert_true(isnan(kh_bf16_to_f32(kh_f32_to_bf16(kh_f32_from_bits(0x7f800001u)))));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves),
        cmocka_unit_test(f32_equals_golden),
        cmocka_unit_test(q8_equals_f32_on_golden_blocks),
        cmocka_unit_test(q8_equals_f32_on_random_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
