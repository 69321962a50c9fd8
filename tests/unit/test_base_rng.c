/* Random numbers: the published answers of Philox-2x64-10, and the statistics of what is drawn. */
#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

/* First words of the three known-answer vectors of the Random123 distribution: counter pair, key. */
static void known_answers(void **state)
{
    (void)state;
    const uint64_t ones = UINT64_MAX;
    assert_true(kh_rng_bits((kh_rng_key){0, 0}, 0) == 0xca00a0459843d731ull);
    assert_true(kh_rng_bits((kh_rng_key){ones, ones}, ones) == 0x65b021d60cd8310full);
    assert_true(kh_rng_bits((kh_rng_key){0x13198a2e03707344ull, 0xa4093822299f31d0ull},
                            0x243f6a8885a308d3ull) == 0x0a5e742c2997341cull);
}

/* Chi-square of each byte against 256 equal bins: mean 255, standard deviation 22.6. */
static void bytes_are_uniform(void **state)
{
    (void)state;
    enum { DRAWS = 1 << 16 };
    static const kh_rng_key keys[] = {{0, 0}, {1, 0}, {0, 1}, {42, 7}};
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        static uint32_t bins[8][256];
        for (int b = 0; b < 8; b++)
            for (int i = 0; i < 256; i++) bins[b][i] = 0;
        for (uint64_t c = 0; c < DRAWS; c++) {
            uint64_t bits = kh_rng_bits(keys[k], c);
            for (int b = 0; b < 8; b++) bins[b][bits >> 8 * b & 255]++;
        }
        for (int b = 0; b < 8; b++) {
            double chi = 0, expected = DRAWS / 256;
            for (int i = 0; i < 256; i++)
                chi += (bins[b][i] - expected) * (bins[b][i] - expected) / expected;
            if (chi < 255 - 4.5 * 22.6 || chi > 255 + 4.5 * 22.6)
                fail_msg("key %zu, byte %d: chi-square %.1f", k, b, chi);
        }
    }
}

/* One changed bit of counter, seed or stream changes half of the 64 bits. */
static void neighbours_differ(void **state)
{
    (void)state;
    enum { DRAWS = 500 };
    for (int which = 0; which < 3; which++)
        for (int bit = 0; bit < 64; bit++) {
            double changed = 0;
            for (uint64_t c = 0; c < DRAWS; c++) {
                uint64_t flip = 1ull << bit;
                kh_rng_key a = {3, 5}, b = {which == 0 ? 3 ^ flip : 3, which == 1 ? 5 ^ flip : 5};
                changed += __builtin_popcountll(kh_rng_bits(a, c) ^
                                                kh_rng_bits(b, which == 2 ? c ^ flip : c));
            }
            changed /= DRAWS; /* standard error 4 / sqrt(500) = 0.18 */
            if (changed < 31 || changed > 33)
                fail_msg("input %d, bit %d: %.2f bits change", which, bit, changed);
        }
}

static void uniform_moments(void **state)
{
    (void)state;
    enum { DRAWS = 200000 };
    double sum = 0, squares = 0, lag = 0, last = 0.5, least = 1, most = 0;
    for (uint64_t c = 0; c < DRAWS; c++) {
        double u = kh_rng_uniform((kh_rng_key){11, 2}, c);
        assert_true(u >= 0 && u < 1);
        sum += u;
        squares += u * u;
        lag += (u - 0.5) * (last - 0.5);
        last = u;
        least = u < least ? u : least;
        most = u > most ? u : most;
    }
    assert_true(fabs(sum / DRAWS - 0.5) < 0.003);
    assert_true(fabs(squares / DRAWS - 1.0 / 3) < 0.003);
    assert_true(fabs(lag / DRAWS) < 0.001);
    assert_true(least < 1e-4 && most > 1 - 1e-4);
}

/* Moments, and the distribution function at a few points. */
static void normal_distribution(void **state)
{
    (void)state;
    enum { DRAWS = 200000 };
    static const double points[] = {-2, -1, 0, 0.5, 1.5, 2.5};
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0, below[6] = {0};
    for (uint64_t c = 0; c < DRAWS; c++) {
        double x = kh_rng_normal((kh_rng_key){5, 9}, c);
        assert_true(isfinite(x) && fabs(x) < 9);
        m1 += x;
        m2 += x * x;
        m3 += x * x * x;
        m4 += x * x * x * x;
        for (int p = 0; p < 6; p++) below[p] += x < points[p];
    }
    assert_true(fabs(m1 / DRAWS) < 0.01);
    assert_true(fabs(m2 / DRAWS - 1) < 0.015);
    assert_true(fabs(m3 / DRAWS) < 0.04);
    assert_true(fabs(m4 / DRAWS - 3) < 0.12);
    for (int p = 0; p < 6; p++) {
        double expected = 0.5 * erfc(-points[p] / sqrt(2.0));
        if (fabs(below[p] / DRAWS - expected) > 0.005)
            fail_msg("P(x < %g) is %g, expected %g", points[p], below[p] / DRAWS, expected);
    }
}

static void entropy_differs(void **state)
{
    (void)state;
    uint64_t a = kh_rng_entropy(), b = kh_rng_entropy(), c = kh_rng_entropy();
    assert_true(a != b && b != c && a != c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),     cmocka_unit_test(bytes_are_uniform),
        cmocka_unit_test(neighbours_differ), cmocka_unit_test(uniform_moments),
        cmocka_unit_test(entropy_differs),   cmocka_unit_test(normal_distribution),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
