/* Checks of the attention kernels: equal bits wherever the order of operations is the contract, and
 * an answer in double where exp is involved. Outputs are surrounded by marks, so that a store beyond
 * what a contract grants is seen. */
#include "check.h"

#include "kern/attn_kern.h"
#include "tensor/half.h"
#include "tensor/types.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 13, MAX_E = 272 };

static const size_t widths[] = {1, 7, 16, 32, 40, 64, 80, 100, 128, 144, 256};
enum { WIDTHS = sizeof widths / sizeof *widths };
static const size_t lengths[] = {0, 1, 2, 15, 16, 17, 31, 48, 63, 64, 65, 80, 128, 200, 511, 640};
enum { LENGTHS = sizeof lengths / sizeof *lengths };

static float *numbers(size_t n, float size)
{
    float *x = malloc((n + 64) * sizeof *x);
    check_fill(x, n + 64, size);
    return x;
}

/* Numbers with ties, both zeros, infinities and NaN. */
static float *hard_numbers(size_t n)
{
    static const float hard[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1.0f, 1.0f, -1.0f};
    float *x = numbers(n, 2.0f);
    for (size_t i = 0; i < n; i++)
        if (check_random() % 3 == 0) x[i] = hard[check_random() % 8];
    return x;
}

void check_kv_f16(const kh_kern *ref, const kh_kern *other)
{
    for (size_t i = 0; i < LENGTHS; i++) {
        size_t n = lengths[i];
        float *x = i % 2 ? hard_numbers(n) : numbers(n, 7e4f);
        uint16_t y[2][704];
        memset(y, 0x55, sizeof y);
        ref->kv_f16(y[0], x, n);
        other->kv_f16(y[1], x, n);
        assert_memory_equal(y[0], y[1], sizeof y[0]);
        free(x);
    }
}

/* A page of bytes whose scales are ordinary numbers. */
static void fill_page(uint8_t *page, size_t bytes, int type, int key)
{
    check_fill_bytes(page, bytes);
    for (size_t i = 0; i + 2 <= bytes; i += 2) {
        int scale = type == KH_TYPE_F16 || (key ? i % (34 * KH_PANEL) < 2 * KH_PANEL : i % 34 == 0);
        uint16_t half = kh_f32_to_f16(check_uniform(2.0f));
        if (type != KH_TYPE_F32 && scale) memcpy(page + i, &half, 2);
    }
    for (size_t i = 0; type == KH_TYPE_F32 && i + 4 <= bytes; i += 4) {
        float x = check_uniform(2.0f);
        memcpy(page + i, &x, 4);
    }
}

static void check_page(const kh_kern *ref, const kh_kern *other, int key)
{
    static const int types[] = {KH_TYPE_F32, KH_TYPE_F16, KH_TYPE_Q8_0};
    static const size_t counts[] = {1, 15, 16, 17, 33, 63, 64};
    static uint8_t page[KH_PAGE * MAX_E * 4];
    static float out[2][KH_PAGE * MAX_E + 64];
    for (size_t t = 0; t < 3; t++)
        for (size_t w = 0; w < WIDTHS; w++)
            for (size_t c = 0; c < 7; c++) {
                size_t E = widths[w];
                if (types[t] == KH_TYPE_Q8_0 && E % 32) continue;
                fill_page(page, sizeof page, types[t], key);
                for (size_t i = 0; i < KH_PAGE * MAX_E + 64; i++) out[0][i] = out[1][i] = 77.0f;
                for (int side = 0; side < 2; side++) {
                    const kh_kern *kern = side ? other : ref;
                    if (key)
                        kern->kv_key_f32(out[side], page, types[t], E, counts[c]);
                    else
                        kern->kv_value_f32(out[side], page, types[t], E, counts[c]);
                }
                check_bits("page", out[1], out[0], KH_PAGE * MAX_E + 64);
            }
}

void check_kv_key_f32(const kh_kern *ref, const kh_kern *other)
{
    check_page(ref, other, 1);
}

void check_kv_value_f32(const kh_kern *ref, const kh_kern *other)
{
    check_page(ref, other, 0);
}

static void check_score(const kh_kern *ref, const kh_kern *other, int half)
{
    for (size_t w = 0; w < WIDTHS; w++)
        for (size_t R = 1; R <= ROWS; R++)
            for (size_t panels = 1; panels <= KH_PANELS; panels++) {
                size_t E = widths[w], ldq = E + 3, lds = KH_PAGE + 5, n = panels * E * KH_PANEL;
                float *q = numbers(R * ldq, 1.0f), *k = numbers(n, 1.0f);
                uint16_t *k16 = malloc(n * sizeof *k16);
                float out[2][ROWS * (KH_PAGE + 5)];
                memset(out, 0x42, sizeof out);
                ref->kv_f16(k16, k, n);
                for (int side = 0; side < 2; side++) {
                    const kh_kern *kern = side ? other : ref;
                    if (half)
                        kern->score_panel_f16(out[side], lds, q, ldq, R, k16, panels, E);
                    else
                        kern->score_panel(out[side], lds, q, ldq, R, k, panels, E);
                }
                check_bits("scores", out[1], out[0], ROWS * lds);
                free(q);
                free(k);
                free(k16);
            }
}

void check_score_panel(const kh_kern *ref, const kh_kern *other)
{
    check_score(ref, other, 0);
}

void check_score_panel_f16(const kh_kern *ref, const kh_kern *other)
{
    check_score(ref, other, 1);
}

void check_filter_rows(const kh_kern *ref, const kh_kern *other)
{
    enum { LDC = 720 };
    static float values[2][3 * LDC];
    static uint32_t indices[2][3 * LDC];
    for (size_t i = 0; i < LENGTHS; i++)
        for (int round = 0; round < 20; round++) {
            size_t n = lengths[i], lds = n + 9;
            float *s = round % 2 ? hard_numbers(3 * lds) : numbers(3 * lds, 1.0f);
            float limits[3] = {round % 5 ? check_uniform(1.0f) : -INFINITY, 0.0f, INFINITY};
            uint32_t counts[2][3] = {{5, 0, 3}, {5, 0, 3}};
            memset(values, 0x11, sizeof values);
            memset(indices, 0x11, sizeof indices);
            ref->filter_rows(values[0], indices[0], LDC, counts[0], s, lds, limits, 3, n, 1000);
            other->filter_rows(values[1], indices[1], LDC, counts[1], s, lds, limits, 3, n, 1000);
            assert_memory_equal(counts[0], counts[1], sizeof counts[0]);
            for (size_t r = 0; r < 3; r++) {
                size_t at = r * LDC, kept = counts[0][r];
                check_bits("kept", values[1] + at, values[0] + at, kept);
                assert_memory_equal(indices[0] + at, indices[1] + at, kept * sizeof(uint32_t));
                kept += 16 + n; /* room that may be overwritten */
                if (kept < LDC)
                    check_bits("mark", values[1] + at + kept, values[0] + at + kept, LDC - kept);
            }
            free(s);
        }
}

void check_filter_back_rows(const kh_kern *ref, const kh_kern *other)
{
    enum { LDC = 720 };
    static float values[2][3 * LDC];
    static uint32_t indices[2][3 * LDC];
    for (size_t i = 0; i < LENGTHS; i++)
        for (int round = 0; round < 20; round++) {
            size_t n = lengths[i], lds = n + 9;
            float *s = round % 2 ? hard_numbers(3 * lds) : numbers(3 * lds, 1.0f);
            float limits[3] = {round % 5 ? check_uniform(1.0f) : -3.4e38f, 0.9f, NAN};
            uint32_t counts[2][3] = {{5, 0, 3}, {5, 0, 3}};
            if (n > 3) limits[1] = s[lds + 2]; /* a tie passes */
            memset(values, 0x11, sizeof values);
            memset(indices, 0x11, sizeof indices);
            for (int side = 0; side < 2; side++)
                (side ? other : ref)
                    ->filter_back_rows(values[side] + LDC, indices[side] + LDC, LDC, counts[side],
                                       s, lds, limits, 3, n, 1000, round % 3 ? 0 : 1 << 20);
            assert_memory_equal(counts[0], counts[1], sizeof counts[0]);
            for (size_t r = 0; r < 3; r++) { /* the list and all behind it; room for 15 in front */
                size_t from = (r + 1) * LDC - counts[1][r], n_all = (r + 2) * LDC - from;
                if (r == 2)
                    n_all = counts[1][r];
                else
                    n_all -= counts[1][r + 1] + 15;
                check_bits("list", values[1] + from, values[0] + from, n_all);
                assert_memory_equal(indices[0] + from, indices[1] + from, n_all * sizeof(uint32_t));
            }
            assert_true(counts[1][2] == 3);
            free(s);
        }
}

void check_list_row(const kh_kern *ref, const kh_kern *other)
{
    for (size_t i = 0; i < LENGTHS; i++)
        for (int round = 0; round < 20; round++) {
            size_t n = lengths[i];
            float *x = round % 2 ? hard_numbers(n) : numbers(n, 1.0f);
            float limit = round % 3 ? check_uniform(1.0f) : n > 2 ? x[2] : 0, values[2][720];
            uint32_t indices[2][720];
            size_t kept = ref->count_at_least(x, n, limit);
            memset(values, 0x11, sizeof values);
            memset(indices, 0x11, sizeof indices);
            for (int side = 0; side < 2; side++)
                (side ? other : ref)->list_row(values[side], indices[side], x, n, limit, 1000);
            check_bits("list", values[1], values[0], kept);
            assert_memory_equal(indices[0], indices[1], kept * sizeof(uint32_t));
            for (size_t j = 0; j < kept; j++)
                check_bits("score", values[1] + j, x + indices[1][j] - 1000, 1);
            assert_memory_equal(values[0] + kept + 16, values[1] + kept + 16,
                                (720 - kept - 16) * sizeof(float));
            free(x);
        }
}

void check_count_at_least(const kh_kern *ref, const kh_kern *other)
{
    for (size_t i = 0; i < LENGTHS; i++) {
        float *x = hard_numbers(lengths[i]);
        for (int round = 0; round < 20; round++) {
            float t = round % 3 ? check_uniform(2.0f) : 1.0f;
            assert_int_equal(ref->count_at_least(x, lengths[i], t),
                             other->count_at_least(x, lengths[i], t));
        }
        free(x);
    }
}

void check_nth_between(const kh_kern *ref, const kh_kern *other)
{
    for (size_t i = 0; i < LENGTHS; i++)
        for (int round = 0; round < 40; round++) {
            size_t n = lengths[i], ties[2] = {7, 7};
            float *x = round % 2 ? hard_numbers(n) : numbers(n, 1.0f);
            float low = round % 2 ? 1.0f : check_uniform(1.0f), high = low, wide = 0.5f;
            while (wide > 1e-6f &&
                   ref->count_at_least(x, n, low) - ref->count_at_least(x, n, low + wide) > 16)
                wide *= 0.7f;
            high = round % 7 ? low + wide : NAN;
            size_t m = ref->count_at_least(x, n, low) - ref->count_at_least(x, n, high);
            for (size_t nth = 1; nth <= m && m <= 16; nth++) {
                float a = ref->nth_between(x, n, low, high, nth, ties);
                float b = other->nth_between(x, n, low, high, nth, ties + 1);
                assert_true(a == b && ties[0] == ties[1]);
                size_t more = 0, least = 0, over = ref->count_at_least(x, n, high);
                for (size_t j = 0; j < n; j++) {
                    more += x[j] > a;
                    least += x[j] >= a;
                }
                assert_true(more < nth + over && least >= nth + over);
                assert_true(ties[0] == (least == nth + over ? SIZE_MAX : nth + over - more));
            }
            free(x);
        }
}

void check_keep_best(const kh_kern *ref, const kh_kern *other)
{
    static const size_t ties[] = {0, 1, 2, 17, 1000};
    for (size_t i = 0; i < LENGTHS; i++)
        for (int round = 0; round < 30; round++) {
            size_t n = lengths[i], kept[2];
            float *x[2] = {hard_numbers(n), NULL};
            uint32_t index[2][704];
            x[1] = malloc((n + 64) * sizeof(float));
            memcpy(x[1], x[0], (n + 64) * sizeof(float));
            for (uint32_t j = 0; j < 704; j++) index[0][j] = index[1][j] = 3 * j;
            float t = round % 2 ? 1.0f : check_uniform(2.0f);
            kept[0] = ref->keep_best(x[0], index[0], n, t, ties[round % 5]);
            kept[1] = other->keep_best(x[1], index[1], n, t, ties[round % 5]);
            assert_int_equal(kept[0], kept[1]);
            check_bits("values", x[1], x[0], kept[0]);
            assert_memory_equal(index[0], index[1], kept[0] * sizeof(uint32_t));
            check_bits("beyond", x[1] + n, x[0] + n, 64);
            assert_memory_equal(index[0] + n, index[1] + n, (704 - n) * sizeof(uint32_t));
            free(x[0]);
            free(x[1]);
        }
}

/* Equal as numbers: which zero is returned is not promised. */
void check_row_max(const kh_kern *ref, const kh_kern *other)
{
    for (size_t i = 0; i < LENGTHS; i++)
        for (int round = 0; round < 10; round++) {
            float *x = round % 2 ? hard_numbers(lengths[i]) : numbers(lengths[i], 3.0f);
            assert_true(ref->row_max(x, lengths[i]) == other->row_max(x, lengths[i]));
            free(x);
        }
}

void check_row_moments(const kh_kern *ref, const kh_kern *other)
{
    for (size_t i = 0; i < LENGTHS; i++)
        for (int round = 0; round < 10; round++) {
            float *x = round % 2 ? hard_numbers(lengths[i]) : numbers(lengths[i], 3.0f);
            float a[5] = {1, 2, 3, 4, 5}, b[5] = {1, 2, 3, 4, 5};
            ref->row_moments(a, x, lengths[i]);
            other->row_moments(b, x, lengths[i]);
            for (size_t j = 0; j < 5; j++)
                assert_true(a[j] == b[j] || (isnan(a[j]) && isnan(b[j])));
            free(x);
        }
}

/* Weights of n scores against exp in double. */
static void check_weights(const float *x, const float *y, size_t n, float scale, float shift)
{
    for (size_t i = 0; i < n; i++) {
        float t = x[i] * scale - shift;
        double expected = t > -104.5f ? exp((double)t) : 0.0, limit = expected + 1e-37;
        if (isinf(t) && t > 0) continue;
        check_near("weight", y + i, &expected, &limit, 1, 2.4e-7);
    }
}

void check_exp_sum(const kh_kern *ref, const kh_kern *other)
{
    for (size_t i = 0; i < LENGTHS; i++) {
        size_t n = lengths[i];
        float *x = numbers(n, 60.0f), *y = numbers(n, 1.0f), mark = y[n];
        for (size_t j = 0; j < n; j += 7) x[j] = j % 2 ? NAN : -INFINITY;
        float sum = other->exp_sum(y, x, n, 0.5f, 30.0f), a = ref->exp_sum(y + n, x, 0, 1.0f, 0.0f);
        double whole = 0, size;
        assert_true(a == 0.0f);
        check_weights(x, y, n, 0.5f, 30.0f);
        assert_true(y[n] == mark);
        for (size_t j = 0; j < n; j++) whole += (double)y[j];
        size = whole + 1e-30;
        check_near("sum", &sum, &whole, &size, 1, 1e-5);
        sum = ref->exp_sum(y, x, n, 0.5f, 30.0f);
        check_weights(x, y, n, 0.5f, 30.0f);
        check_near("sum", &sum, &whole, &size, 1, 1e-5);
        float in_place = other->exp_sum(x, x, n, 0.5f, 30.0f);
        check_near("sum", &in_place, &whole, &size, 1, 1e-5);
        free(x);
        free(y);
    }
}

/* Terms against exp itself, and sums against the same scores in other units: what is kept must cancel. */
static void check_tail_value(const float *sums, float shift, const float *s, size_t n)
{
    double whole = 0, got = 0;
    for (size_t j = 0; j < n; j++)
        if (s[j] > -INFINITY)
            whole += exp2((double)s[j] * 0.7 * 1.4426950408889634 - (double)shift);
    for (size_t j = 0; j < 16; j++) got += (double)sums[j];
    assert_true(fabs(got - whole) <= 7e-4 * whole + 1e-30);
}

void check_tail_rows(const kh_kern *ref, const kh_kern *other)
{
    for (int round = 0; round < 60; round++)
        for (size_t i = 1; i < 12; i++) {
            size_t n = lengths[i], lds = n + 3;
            float *s = numbers(3 * lds, round % 2 ? 9.0f : 90.0f), sums[2][48] = {{0}},
                  shifts[2][3];
            for (size_t r = 0; r < 3; r++) shifts[0][r] = shifts[1][r] = -INFINITY;
            for (size_t j = 0; j < lds; j++)
                if (round % 4 == 0) s[j] = j % 2 ? -INFINITY : NAN; /* nothing to see in row 0 */
            for (int page = 0; page < 3; page++) {
                if (page == 1) s[lds + n - 1] += 400.0f; /* beyond what the first unit can hold */
                ref->tail_rows(sums[0], shifts[0], s, lds, 3, n, 0.7f);
                other->tail_rows(sums[1], shifts[1], s, lds, 3, n, 0.7f);
                check_bits("shifts", shifts[1], shifts[0], 3);
                check_bits("sums", sums[1], sums[0], 48);
                if (page == 0) check_tail_value(sums[1] + 16, shifts[1][1], s + lds, n);
            }
            assert_true(round % 4 || (shifts[1][0] == -INFINITY && sums[1][0] == 0.0f));
            float units[16] = {0}, finer = shifts[1][2] - 3;
            other->tail_rows(units, &finer, s + 2 * lds, 0, 1, n, 0.7f);
            for (size_t j = 0; j < 16; j++) /* three equal pages, in eighths */
                assert_true(fabsf(3 * units[j] / 8 - sums[1][32 + j]) <=
                            1e-4f * sums[1][32 + j] + 1e-30f);
            free(s);
        }
}

void check_softmax_rows(const kh_kern *ref, const kh_kern *other)
{
    enum { MANY = 19 }; /* rows that go together, and some that are left */
    for (int round = 0; round < 60; round++)
        for (size_t i = 1; i < 12; i++) {
            size_t n = lengths[i], lds = n + 3;
            float *s[2] = {numbers(MANY * lds, 9.0f), NULL};
            float m[2][MANY], u[2][MANY], alpha[2][MANY];
            for (size_t j = 0; j < lds; j++)
                if (round % 4 == 0) s[0][j] = j % 2 ? -INFINITY : NAN; /* nothing to see in row 0 */
            s[1] = malloc((MANY * lds + 64) * sizeof(float));
            memcpy(s[1], s[0], (MANY * lds + 64) * sizeof(float));
            for (size_t r = 0; r < MANY; r++) {
                m[0][r] = m[1][r] = round % 3 == 0 ? -INFINITY : check_uniform(9.0f);
                u[0][r] = u[1][r] = round % 3 == 0 ? 0.0f : 2.5f;
            }
            ref->softmax_rows(s[0], lds, m[0], u[0], alpha[0], MANY, n, 0.7f);
            other->softmax_rows(s[1], lds, m[1], u[1], alpha[1], MANY, n, 0.7f);
            check_bits("m", m[1], m[0], MANY);
            for (size_t r = 0; r < MANY; r++) {
                double expected = (double)u[0][r], size = expected + 1e-30;
                if (m[0][r] > -INFINITY) size *= 10 + fabs((double)m[0][r]);
                check_near("u", &u[1][r], &expected, &size, 1, 1e-6);
                expected = (double)alpha[0][r];
                check_near("alpha", &alpha[1][r], &expected, NULL, 1, 3e-7);
                assert_true(round % 12 || r || (u[1][0] == 0.0f && m[1][0] == -INFINITY));
            }
            for (size_t j = 0; j < MANY * lds; j++) {
                double expected = (double)s[0][j], size = fabs(expected) + 1e-37;
                if (j % lds >= n) continue;
                size *= 1 + fabs((double)m[0][j / lds]) +
                        fabs((double)m[0][j / lds] + log(expected));
                if (expected > 1.5e-38)
                    check_near("p", &s[1][j], &expected, &size, 1, 3e-7);
                else
                    assert_true(s[1][j] >= 0 && s[1][j] < 1.5e-38f);
            }
            free(s[0]);
            free(s[1]);
        }
}

static void check_mix(const kh_kern *ref, const kh_kern *other, int half)
{
    static const size_t keys[] = {1, 2, 17, 64};
    for (size_t w = 0; w < WIDTHS; w++)
        for (size_t R = 1; R <= ROWS; R++)
            for (size_t c = 0; c < 4; c++) {
                size_t E = widths[w], ldw = keys[c] + 2, ldo = E + 1;
                float *values = numbers(keys[c] * E, 1.0f), *weights = numbers(R * ldw, 1.0f);
                float *out[2] = {numbers(R * ldo, 1.0f), NULL}, *alpha = numbers(R, 1.0f);
                out[1] = malloc((R * ldo + 64) * sizeof(float));
                memcpy(out[1], out[0], (R * ldo + 64) * sizeof(float));
                uint16_t *v16 = malloc((keys[c] * E + 1) * sizeof *v16);
                ref->kv_f16(v16, values, keys[c] * E);
                for (int side = 0; side < 2; side++) {
                    const kh_kern *kern = side ? other : ref;
                    if (half)
                        kern->mix_rows_f16(out[side], ldo, alpha, weights, ldw, R, v16, keys[c], E);
                    else
                        kern->mix_rows(out[side], ldo, alpha, weights, ldw, R, values, keys[c], E);
                }
                free(v16);
                check_bits("mix", out[1], out[0], R * ldo + 64);
                free(values);
                free(weights);
                free(alpha);
                free(out[0]);
                free(out[1]);
            }
}

void check_mix_rows(const kh_kern *ref, const kh_kern *other)
{
    check_mix(ref, other, 0);
}

void check_mix_rows_f16(const kh_kern *ref, const kh_kern *other)
{
    check_mix(ref, other, 1);
}

void check_gather_f32(const kh_kern *ref, const kh_kern *other)
{
    enum { K = 70 };
    float *table = numbers(K * MAX_E, 1.0f);
    for (size_t w = 0; w < WIDTHS; w++)
        for (size_t n = 0; n <= K; n += n < 20 ? 1 : 25) {
            const void *rows[K];
            float *weights = numbers(n, 1.0f), out[2][MAX_E + 64];
            for (size_t i = 0; i < K; i++) rows[i] = table + check_random() % K * widths[w];
            memset(out, 0x33, sizeof out);
            ref->gather_f32(out[0], weights, rows, n, widths[w]);
            other->gather_f32(out[1], weights, rows, n, widths[w]);
            check_bits("gather", out[1], out[0], MAX_E + 64);
            free(weights);
        }
    free(table);
}

typedef size_t gather(float *out, const float *weights, const uint32_t *indices, size_t n,
                      uint32_t end, const char *const *pages, size_t E);

static void check_gather(gather *ref, gather *other, kh_type type)
{
    enum { K = 70 };
    static uint8_t values[3][KH_PAGE * MAX_E * 4];
    static const char *pages[3] = {(const char *)values[0], (const char *)values[2],
                                   (const char *)values[1]};
    for (size_t w = 0; w < WIDTHS; w++)
        for (size_t n = 0; n <= K; n += n < 20 ? 1 : 25) {
            size_t E = widths[w], done[2];
            if (E % kh_type_block(type)) continue;
            uint32_t indices[K + 1], at = 0, end = n % 3 ? 3 * KH_PAGE : 100;
            float *weights = numbers(n, 1.0f), out[2][MAX_E + 64];
            for (size_t i = 0; i < 3; i++) fill_page(values[i], sizeof values[i], (int)type, 0);
            for (size_t i = 0; i < n; i++) indices[i] = at++ + (n < 40 ? check_random() % 5 : 0);
            for (size_t i = 1; i < n; i++)
                if (indices[i] <= indices[i - 1]) indices[i] = indices[i - 1] + 1;
            if (n % 3 == 2) end = indices[n / 2]; /* which is not read any more */
            memset(out, 0x33, sizeof out);
            done[0] = ref(out[0], weights, indices, n, end, pages, E);
            done[1] = other(out[1], weights, indices, n, end, pages, E);
            assert_int_equal(done[0], done[1]);
            assert_true(done[0] == n || indices[done[0]] >= end);
            check_bits("gather", out[1], out[0], MAX_E + 64);
            free(weights);
        }
}

void check_gather_listed_f32(const kh_kern *ref, const kh_kern *other)
{
    check_gather(ref->gather_listed_f32, other->gather_listed_f32, KH_TYPE_F32);
}

void check_gather_listed_f16(const kh_kern *ref, const kh_kern *other)
{
    check_gather(ref->gather_listed_f16, other->gather_listed_f16, KH_TYPE_F16);
}

void check_gather_listed_q8_0(const kh_kern *ref, const kh_kern *other)
{
    check_gather(ref->gather_listed_q8_0, other->gather_listed_q8_0, KH_TYPE_Q8_0);
}
