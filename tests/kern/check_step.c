/* Checks of the kernels of an optimiser's step: bits between instruction sets, and formulas in double. */
#include "check.h"

#include "kern/step_kern.h"
#include "tensor/half.h"

#include <math.h>
#include <string.h>

enum { MAX = 1100, BEYOND = 20 };
static const size_t sizes[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 64, 100, 576, 577, 1023};
enum { SIZES = sizeof sizes / sizeof *sizes };

static float w[3][MAX], m[3][MAX], v[3][MAX], g[MAX];

/* Gradients of very different sizes, zeros of both signs and subnormals among them. */
static void fill(void)
{
    check_fill(w[0], MAX, 2.0f);
    check_fill(m[0], MAX, 0.1f);
    for (size_t i = 0; i < MAX; i++) {
        g[i] = check_uniform(powf(10.0f, (float)(check_random() % 12) - 9.0f));
        v[0][i] = i % 7 ? check_uniform(1.0f) + 1.0f : 0.0f;
        if (i % 13 == 0) g[i] = i % 2 ? -0.0f : 0.0f;
        if (i % 17 == 0) g[i] = 1e-42f;
    }
    for (int i = 1; i < 3; i++) {
        memcpy(w[i], w[0], sizeof *w);
        memcpy(m[i], m[0], sizeof *m);
        memcpy(v[i], v[0], sizeof *v);
    }
}

void check_squares_sum(const kh_kern *ref, const kh_kern *other)
{
    for (size_t k = 0; k < SIZES; k++) {
        size_t n = sizes[k];
        fill();
        double a = ref->squares_sum(g, n), b = other->squares_sum(g, n), sum = 0;
        for (size_t i = n; i-- > 0;) sum += (double)g[i] * (double)g[i];
        assert_memory_equal(&a, &b, sizeof a);
        assert_true(fabs(a - sum) <= 1e-15 * (double)n * sum);
        g[n / 2] = 3e38f;
        g[0] = 3e38f;
        a = other->squares_sum(g, n);
        assert_true(isfinite(a) && a > 9e75);
        static const float bad[] = {NAN, INFINITY, -INFINITY};
        g[n - 1] = bad[k % 3];
        assert_false(isfinite(ref->squares_sum(g, n)));
        assert_false(isfinite(other->squares_sum(g, n)));
        assert_true(n == 1 || isfinite(other->squares_sum(g, n - 1)));
    }
}

void check_adamw_step(const kh_kern *ref, const kh_kern *other)
{
    const struct kh_adamw a = {0.5f, 0.99f, 0.02f, 0.1f, 0.98f, 0.02f, 1.7f, 1e-6f};
    for (size_t k = 0; k < SIZES; k++) {
        size_t n = sizes[k];
        fill();
        ref->adamw_step(w[0], m[0], v[0], g, &a, n);
        other->adamw_step(w[1], m[1], v[1], g, &a, n);
        check_bits("w", w[1], w[0], n + BEYOND);
        check_bits("m", m[1], m[0], n + BEYOND);
        check_bits("v", v[1], v[0], n + BEYOND);
        for (size_t i = 0; i < n; i++) {
            double gradient = 0.5 * (double)g[i];
            double mean = (double)m[2][i] + 0.1 * (gradient - (double)m[2][i]);
            double square = 0.98 * (double)v[2][i] + 0.02 * gradient * gradient;
            double move = mean / (sqrt(square) * 1.7 + 1e-6);
            double at = (double)w[2][i] * 0.99 - 0.02 * move;
            double size = fabs((double)w[2][i]) +
                          0.02 * (fabs((double)m[2][i]) + fabs(gradient)) * fabs(move / mean);
            double size_m = fabs((double)m[2][i]) + fabs(gradient), size_v = square + 1e-37;
            check_near("m against double", &m[1][i], &mean, &size_m, 1, 2e-7);
            check_near("v against double", &v[1][i], &square, &size_v, 1, 4e-7);
            check_near("w against double", &w[1][i], &at, &size, 1, 5e-7);
        }
    }
}

void check_sgd_step(const kh_kern *ref, const kh_kern *other)
{
    const struct kh_sgd s = {0.25f, 0.1f, 0.01f, 0.9f};
    for (size_t k = 0; k < 2 * SIZES; k++) {
        size_t n = sizes[k / 2];
        int momentum = k % 2;
        fill();
        ref->sgd_step(w[0], momentum ? m[0] : NULL, g, &s, n);
        other->sgd_step(w[1], momentum ? m[1] : NULL, g, &s, n);
        check_bits("w", w[1], w[0], n + BEYOND);
        check_bits("m", m[1], m[0], n + BEYOND);
        for (size_t i = 0; i < n; i++) {
            double gradient = 0.25 * (double)g[i] + 0.01 * (double)w[2][i];
            if (momentum) gradient += 0.9 * (double)m[2][i];
            double at = (double)w[2][i] - 0.1 * gradient, size = 2.0;
            check_near("w against double", &w[1][i], &at, &size, 1, 2e-7);
        }
    }
}

/* The bits; that values of bf16 stay; and that the mean of many roundings is the value. */
void check_bf16_dither(const kh_kern *ref, const kh_kern *other)
{
    static uint16_t y[2][MAX];
    for (size_t k = 0; k < SIZES; k++) {
        size_t n = sizes[k];
        uint32_t seed = (uint32_t)check_random();
        fill();
        memset(y, 7, sizeof y);
        g[0] = -INFINITY;
        ref->bf16_dither(y[0], g, seed, n);
        other->bf16_dither(y[1], g, seed, n);
        assert_memory_equal(y[0], y[1], (n + BEYOND) * sizeof **y);
        assert_int_equal(y[0][0], 0xff80);
        for (size_t i = 1; i < n; i++) { /* one of the two neighbours */
            uint32_t down = kh_f32_bits(g[i]) >> 16;
            assert_true(y[0][i] == down || (y[0][i] == down + 1 && (kh_f32_bits(g[i]) & 0xffff)));
        }
    }
    enum { DRAWS = 4000 };
    const float values[] = {1.001f, -3.3f, 1e-20f, 77.7f};
    for (size_t c = 0; c < sizeof values / sizeof *values; c++) {
        double sum = 0, gap = 0, x = (double)values[c];
        for (size_t i = 0; i < MAX; i++) g[i] = values[c];
        for (uint32_t d = 0; d < DRAWS; d += 1000) {
            other->bf16_dither(y[0], g, d * 77777u, 1000);
            for (size_t i = 0; i < 1000; i++) sum += (double)kh_bf16_to_f32(y[0][i]);
        }
        uint16_t low = (uint16_t)(kh_f32_bits(values[c]) >> 16);
        gap = fabs((double)kh_bf16_to_f32((uint16_t)(low + 1)) - (double)kh_bf16_to_f32(low));
        assert_true(fabs(sum / DRAWS - x) < 5 * 0.5 * gap / sqrt(DRAWS));
    }
}
