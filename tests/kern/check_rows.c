/* Checks of the row kernels: quantisation, elementwise operations, norm, rotations. */
#include "check.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { MAX = 1100 };
static const size_t sizes[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 64, 100, 576, 577, 1023};
enum { SIZES = sizeof sizes / sizeof *sizes };
#define EACH_SIZE(n) for (size_t k_ = 0, n = sizes[0]; k_ < SIZES; n = sizes[++k_ % SIZES])

/* Values that trouble: zeros of both signs, subnormals, large ones, infinities, NaN. */
static const float hard[] = {0.0f,     -0.0f,     1e-42f, -1e-42f,   1e-30f,   FLT_MIN,
                             -FLT_MIN, 1e30f,     -1e30f, FLT_MAX,   -FLT_MAX, INFINITY,
                             0.5f,     -INFINITY, 88.8f,  -103.0f,   NAN,      1.5f,
                             2.5f,     -87.4f,    -1.5f,  0.624999f, 0.625f,   3e-5f};
enum { HARD = sizeof hard / sizeof *hard };

static void fill_hard(float *x, size_t n, size_t limit)
{
    for (size_t i = 0; i < n; i++)
        x[i] = check_random() % 4 ? check_uniform(4.0f) : hard[check_random() % limit];
}

void check_quantize_q8(const kh_kern *ref, const kh_kern *other)
{
    for (int kind = 0; kind < 400; kind++) {
        float x[160], d[2][5], s[2][10];
        int8_t q[2][160];
        check_fill(x, 160, powf(10.0f, (float)(kind % 70) - 38.0f));
        if (kind % 3 == 1) fill_hard(x, 160, HARD);
        if (kind % 3 == 2)
            for (int i = 0; i < 160; i++) x[i] = (float)(i % 32 * 8 - 127) * 0.5f; /* ties */
        memset(q, 1, sizeof q);
        ref->quantize_q8(q[0], d[0], s[0], x, 160);
        other->quantize_q8(q[1], d[1], s[1], x, 160);
        assert_memory_equal(q[0], q[1], 160);
        check_bits("d", d[1], d[0], 5);
        check_bits("s", s[1], s[0], 10);
        for (int i = 0; i < 160; i++) assert_in_range(q[0][i] + 127, 0, 254);
    }
}

static float a[2][MAX], b[MAX];

static void two(size_t n, int hard_values)
{
    if (hard_values) {
        fill_hard(a[0], MAX, HARD);
        fill_hard(b, MAX, HARD);
    } else {
        check_fill(a[0], MAX, 6.0f);
        check_fill(b, MAX, 2.0f);
    }
    memcpy(a[1], a[0], sizeof a[0]);
    (void)n;
}

void check_add(const kh_kern *ref, const kh_kern *other)
{
    EACH_SIZE(n)
    {
        two(n, n % 2);
        ref->add(a[0], b, n);
        other->add(a[1], b, n);
        check_bits("add", a[1], a[0], n + 20); /* and nothing beyond n was touched */
    }
}

void check_scale(const kh_kern *ref, const kh_kern *other)
{
    EACH_SIZE(n)
    {
        two(n, n % 2);
        ref->scale(a[0], 25.3f, n);
        other->scale(a[1], 25.3f, n);
        check_bits("scale", a[1], a[0], n + 20);
    }
}

/* y against the formula in double; size: what the error is measured by. */
static void compare(const char *what, double (*value)(double y, double up),
                    double (*size)(double y, double up), const float *before, const float *up,
                    const float *after, size_t n, double tolerance)
{
    for (size_t i = 0; i < n; i++) {
        double expected = value((double)before[i], (double)up[i]);
        double limit = size((double)before[i], (double)up[i]) + 1e-36;
        check_near(what, after + i, &expected, &limit, 1, tolerance);
    }
}

static double cap30(double y, double up)
{
    (void)up;
    return 30.0 * tanh(y / 30.0);
}
static double size_cap30(double y, double up)
{
    return fabs(cap30(y, up));
}
static double silu(double y, double up)
{
    return y / (1.0 + exp(-y)) * up;
}
static double size_silu(double y, double up)
{
    return fabs(silu(y, up));
}
static double gelu(double y, double up)
{
    return 0.5 * y * (1.0 + tanh(0.7978845608028654 * (y + 0.044715 * y * y * y))) * up;
}
static double size_gelu(double y, double up)
{
    return fabs(y * up); /* 1 + tanh cancels for y << 0 */
}

void check_softcap(const kh_kern *ref, const kh_kern *other)
{
    EACH_SIZE(n)
    {
        two(n, 0);
        for (size_t i = 0; i < n; i++) a[0][i] *= i % 3 ? 20.0f : 0.01f;
        memcpy(a[1], a[0], sizeof a[0]);
        memcpy(b, a[0], sizeof b);
        other->softcap(a[1], 30.0f, n);
        compare("softcap", cap30, size_cap30, b, b, a[1], n, 4e-7);
        ref->softcap(a[0], 30.0f, n);
        compare("softcap_ref", cap30, size_cap30, b, b, a[0], n, 4e-7);
        check_bits("beyond", a[1] + n, a[0] + n, 20);
    }
}

static void gate(const char *what, void (*ref)(float *, const float *, size_t),
                 void (*other)(float *, const float *, size_t), double (*value)(double, double),
                 double (*size)(double, double))
{
    static float before[MAX];
    EACH_SIZE(n)
    {
        two(n, 0);
        for (size_t i = 0; i < n; i++) a[0][i] *= i % 5 ? 1.0f : 14.0f;
        memcpy(a[1], a[0], sizeof a[0]);
        memcpy(before, a[0], sizeof before);
        ref(a[0], b, n);
        other(a[1], b, n);
        compare(what, value, size, before, b, a[1], n, 6e-7);
        compare("the twin", value, size, before, b, a[0], n, 6e-7);
        check_bits("beyond", a[1] + n, a[0] + n, 20);
    }
}

void check_silu_mul(const kh_kern *ref, const kh_kern *other)
{
    gate("silu_mul", ref->silu_mul, other->silu_mul, silu, size_silu);
}

void check_gelu_mul(const kh_kern *ref, const kh_kern *other)
{
    gate("gelu_mul", ref->gelu_mul, other->gelu_mul, gelu, size_gelu);
}

static double gelu_erf(double y, double up)
{
    return 0.5 * y * (1.0 + erf(y * 0.70710678118654752)) * up;
}

void check_gelu_erf_mul(const kh_kern *ref, const kh_kern *other)
{
    gate("gelu_erf_mul", ref->gelu_erf_mul, other->gelu_erf_mul, gelu_erf, size_gelu);
}

void check_relu_mul(const kh_kern *ref, const kh_kern *other)
{
    EACH_SIZE(n)
    {
        two(n, n % 2);
        memcpy(a[1], a[0], sizeof a[0]);
        float before[MAX];
        memcpy(before, a[0], sizeof before);
        ref->relu_mul(a[0], b, n);
        other->relu_mul(a[1], b, n);
        check_bits("relu_mul", a[1], a[0], n + 20);
        for (size_t i = 0; n % 2 == 0 && i < n; i++)
            assert_true(a[0][i] == (before[i] > 0 ? before[i] : 0.0f) * b[i]);
    }
}

void check_layernorm(const kh_kern *ref, const kh_kern *other)
{
    static float x[MAX];
    EACH_SIZE(n)
    {
        two(n, 0);
        check_fill(x, MAX, n % 3 ? 5.0f : 1e-3f);
        for (size_t i = 0; n % 2 && i < MAX; i++) x[i] += 3.0f;
        if (n == 33) fill_hard(x, MAX, 10);
        if (n == 32) memset(x, 0, sizeof x);
        const float *gain = n % 4 ? b : NULL, *bias = n % 3 ? b + 1 : NULL;
        ref->layernorm(a[0], x, gain, bias, 1e-5f, n);
        other->layernorm(a[1], x, gain, bias, 1e-5f, n);
        check_bits("layernorm", a[1], a[0], n + 20);
        double mean = 0.0, squares = 0.0;
        for (size_t i = 0; i < n; i++) mean += (double)x[i] / (double)n;
        for (size_t i = 0; i < n; i++) squares += ((double)x[i] - mean) * ((double)x[i] - mean);
        for (size_t i = 0; n != 33 && i < n; i++) {
            double g = gain ? (double)gain[i] : 1.0, add = bias ? (double)bias[i] : 0.0;
            double y = ((double)x[i] - mean) / sqrt(squares / (double)n + 1e-5) * g;
            double size = fabs(g) * (1 + fabs(mean) / sqrt(squares / (double)n + 1e-5)) + fabs(y) +
                          fabs(add);
            y += add;
            check_near("layernorm against double", a[1] + i, &y, &size, 1, 1e-6);
        }
    }
}

void check_rmsnorm(const kh_kern *ref, const kh_kern *other)
{
    static float x[MAX];
    EACH_SIZE(n)
    {
        two(n, 0);
        check_fill(x, MAX, n % 3 ? 5.0f : 1e-3f);
        if (n == 33) fill_hard(x, MAX, 10);
        if (n == 32) memset(x, 0, sizeof x);
        ref->rmsnorm(a[0], x, n % 4 ? b : NULL, 1e-5f, n);
        other->rmsnorm(a[1], x, n % 4 ? b : NULL, 1e-5f, n);
        check_bits("rmsnorm", a[1], a[0], n + 20);
        double sum = 0.0;
        for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
        for (size_t i = 0; n != 33 && i < n; i++) {
            double gain = n % 4 ? (double)b[i] : 1.0;
            double y = (double)x[i] / sqrt(sum / (double)n + 1e-5) * gain, size = fabs(y) + 1e-12;
            check_near("rmsnorm against double", a[1] + i, &y, &size, 1, 1e-6);
        }
    }
}

static void rotate(const char *what, void (*ref)(float *, const float *, const float *, size_t),
                   void (*other)(float *, const float *, const float *, size_t), size_t stride,
                   size_t partner_of_half)
{
    static float cosine[MAX], sine[MAX], before[MAX];
    for (size_t n = 2; n <= 258; n += 2) {
        two(n, n % 8 == 0);
        memcpy(before, a[0], sizeof before);
        for (size_t i = 0; i < n / 2; i++) {
            float angle = check_uniform(9.0f);
            cosine[i] = cosf(angle);
            sine[i] = sinf(angle);
        }
        ref(a[0], cosine, sine, n);
        other(a[1], cosine, sine, n);
        check_bits(what, a[1], a[0], n + 20);
        for (size_t i = 0; n % 8 != 0 && i < n / 2; i++) {
            size_t p = stride * i, q = p + (partner_of_half ? n / 2 : 1);
            double c = (double)cosine[i], s = (double)sine[i];
            double y = (double)before[p] * c - (double)before[q] * s;
            double z = (double)before[q] * c + (double)before[p] * s;
            check_near(what, a[1] + p, &y, NULL, 1, 2e-6);
            check_near(what, a[1] + q, &z, NULL, 1, 2e-6);
        }
    }
}

void check_rope_half(const kh_kern *ref, const kh_kern *other)
{
    rotate("rope_half", ref->rope_half, other->rope_half, 1, 1);
}

void check_rope_pairs(const kh_kern *ref, const kh_kern *other)
{
    rotate("rope_pairs", ref->rope_pairs, other->rope_pairs, 2, 0);
}

void check_fma_chain(const kh_kern *ref, const kh_kern *other)
{
    for (size_t rounds = 0; rounds < 5; rounds++) {
        float x[KH_CHAINS], y[KH_CHAINS];
        check_fill(x, KH_CHAINS, 3.0f);
        memcpy(y, x, sizeof y);
        ref->fma_chain(x, 0.7f, 0.3f, rounds);
        other->fma_chain(y, 0.7f, 0.3f, rounds);
        check_bits("fma_chain", y, x, KH_CHAINS);
    }
}
