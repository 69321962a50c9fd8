/* Rotary positions against Hugging Face transformers 5.23 (the numbers below are its inverse
 * frequencies for heads of 64, printed in f32), and the ops on rows. */
// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include "ops/rope.h"
#include "ops/rowwise.h"

#include <math.h>
#include <string.h>

static void expect_frequencies(const kh_rope_spec *spec, const float expected[8], double magnitude)
{
    static const int places[8] = {0, 1, 7, 12, 15, 19, 25, 31};
    kh_rope rope;
    assert_int_equal(kh_rope_init(&rope, spec), KH_OK);
    for (int i = 0; i < 8; i++) {
        double ratio = (double)rope.inv_freq[places[i]] / (double)expected[i];
        if (!(fabs(ratio - 1.0) < 2e-7))
            fail_msg("inverse frequency %d: %.9g, expected %.9g", places[i],
                     (double)rope.inv_freq[places[i]], (double)expected[i]);
    }
    assert_true(fabs((double)rope.magnitude - magnitude) < 1e-6);
}

static void test_frequencies(void **state)
{
    (void)state;
    kh_rope_spec linear = {.scaling = KH_ROPE_LINEAR, .n_rot = 64, .base = 1e6, .factor = 8};
    expect_frequencies(&linear,
                       (float[8]){0.125f, 0.08117270469665527f, 0.006087094079703093f,
                                  0.0007029266562312841f, 0.00019249081378802657f,
                                  3.4230244637001306e-05f, 2.566906232459587e-06f,
                                  1.9249081617545016e-07f},
                       1.0);
    kh_rope_spec yarn = {.scaling = KH_ROPE_YARN,
                         .n_rot = 64,
                         .base = 1e6,
                         .factor = 4,
                         .original = 32768,
                         .ext_factor = -1};
    expect_frequencies(&yarn,
                       (float[8]){1.0f, 0.6493816375732422f, 0.04869675263762474f,
                                  0.005154795479029417f, 0.001026617712341249f,
                                  9.128064994001761e-05f, 5.133812464919174e-06f,
                                  3.8498163235090033e-07f},
                       1.138629436111989);
    kh_rope_spec llama3 = {
        .scaling = KH_ROPE_LLAMA3, .n_rot = 64, .base = 5e5, .factor = 32, .original = 8192};
    expect_frequencies(&llama3,
                       (float[8]){1.0f, 0.663601279258728f, 0.05666961893439293f,
                                  0.00729266507551074f, 0.0012905480107292533f,
                                  1.291476746700937e-05f, 1.1028836297555245e-06f,
                                  9.418306490260875e-08f},
                       1.0);
    float divisors[32];
    for (int i = 0; i < 32; i++) divisors[i] = 8.0f;
    kh_rope_spec divided = {.n_rot = 64, .base = 1e6, .freq_factors = divisors};
    kh_rope a, b;
    assert_int_equal(kh_rope_init(&a, &divided), KH_OK);
    assert_int_equal(kh_rope_init(&b, &linear), KH_OK);
    assert_memory_equal(a.inv_freq, b.inv_freq, sizeof a.inv_freq);
}

static void test_refusals(void **state)
{
    (void)state;
    kh_rope rope;
    float zero[2] = {1.0f, 0.0f};
    kh_rope_spec odd = {.n_rot = 3, .base = 1e4}, wide = {.n_rot = KH_ROPE_MAX + 2, .base = 1e4};
    kh_rope_spec base = {.n_rot = 4, .base = 0.5}, nan = {.n_rot = 4, .base = (double)NAN};
    kh_rope_spec yarn = {.n_rot = 4, .base = 1e4, .scaling = KH_ROPE_YARN, .factor = 4};
    kh_rope_spec divisor = {.n_rot = 4, .base = 1e4, .freq_factors = zero};
    assert_int_equal(kh_rope_init(&rope, &odd), KH_ERR_UNSUPPORTED);
    assert_int_equal(kh_rope_init(&rope, &wide), KH_ERR_UNSUPPORTED);
    assert_int_equal(kh_rope_init(&rope, &base), KH_ERR_FORMAT);
    assert_int_equal(kh_rope_init(&rope, &nan), KH_ERR_FORMAT);
    assert_int_equal(kh_rope_init(&rope, &yarn), KH_ERR_FORMAT);
    assert_int_equal(kh_rope_init(&rope, &divisor), KH_ERR_FORMAT);
}

enum { T = 41, HEADS = 3, E = 24, N_ROT = 16, WIDTH = HEADS * E };

static float start[T * WIDTH], out[2][T * WIDTH];
static int32_t positions[T];

static void test_rotation(void **state)
{
    (void)state;
    kh_batch batch = {.n = T, .position = positions};
    for (int t = 0; t < T; t++) positions[t] = 200 * t;
    for (int i = 0; i < T * WIDTH; i++) start[i] = (float)(i * 37 % 101) / 50.0f - 1.0f;
    for (int k = 0; k < 4; k++) {
        kh_rope_spec spec = {
            .style = k % 2 ? KH_ROPE_HALF : KH_ROPE_PAIRS, .n_rot = N_ROT, .base = 1e4};
        kh_rope rope;
        assert_int_equal(kh_rope_init(&rope, &spec), KH_OK);
        static float cosine[T * N_ROT / 2], sine[T * N_ROT / 2];
        for (int threads = 1; threads <= 2; threads++) {
            kh_pool pool = {threads};
            kh_run run = {.pool = &pool,
                          .kern = kh_kern_get(k < 2 ? KH_ISA_REF : kh_cpu_isa()),
                          .batch = &batch};
            kh_rope_angles(&run, &rope, cosine, sine);
            memcpy(out[threads - 1], start, sizeof start);
            kh_op_rope(&run, &rope, out[threads - 1], HEADS, E, cosine, sine);
        }
        assert_memory_equal(out[0], out[1], sizeof start);
        for (int i = 0; i < T * HEADS; i++) {
            const float *from = start + i * E, *to = out[0] + i * E;
            for (int p = 0; p < N_ROT / 2; p++) {
                int a = k % 2 ? p : 2 * p, b = k % 2 ? p + N_ROT / 2 : 2 * p + 1;
                double angle = positions[i / HEADS] * pow(1e4, -2.0 * p / N_ROT);
                double c = cos(angle), s = sin(angle);
                /* f32 angles: off by up to 8200 * 2^-24 */
                assert_true(fabs((double)from[a] * c - (double)from[b] * s - (double)to[a]) < 2e-3);
                assert_true(fabs((double)from[b] * c + (double)from[a] * s - (double)to[b]) < 2e-3);
            }
            assert_memory_equal(from + N_ROT, to + N_ROT, (E - N_ROT) * sizeof(float));
        }
    }
}

static void test_rows(void **state)
{
    (void)state;
    static float y[2][900 * 72], x[900 * 72], gain[72];
    enum { ROWS = 900, N = 72 };
    for (int i = 0; i < ROWS * N; i++) x[i] = (float)(i * 53 % 211) / 70.0f - 1.5f;
    for (int i = 0; i < N; i++) gain[i] = 0.5f + 0.01f * (float)i;
    for (int threads = 1; threads <= 2; threads++) {
        kh_pool pool = {threads};
        kh_run run = {.pool = &pool, .kern = kh_kern_get(kh_cpu_isa())};
        float *to = y[threads - 1];
        kh_op_rmsnorm(&run, to, x, gain, 1e-6f, ROWS, N);
        kh_op_bias(&run, to, gain, ROWS, N);
        kh_op_glu(&run, to, x, ROWS, N, KH_ACT_SILU);
        kh_op_add(&run, to, x, ROWS, N);
        kh_op_softcap(&run, to, 2.0f, ROWS, N);
    }
    assert_memory_equal(y[0], y[1], sizeof x);
    for (int r = 0; r < ROWS; r += 13) {
        double square = 0;
        for (int i = 0; i < N; i++) square += (double)x[r * N + i] * (double)x[r * N + i];
        for (int i = 0; i < N; i++) {
            double from = (double)x[r * N + i], g = (double)gain[i];
            double v = from / sqrt(square / N + 1e-6) * g + g;
            v = v / (1.0 + exp(-v)) * from + from;
            assert_true(fabs(2.0 * tanh(v / 2.0) - (double)y[0][r * N + i]) < 2e-6);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frequencies), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_rotation), cmocka_unit_test(test_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
