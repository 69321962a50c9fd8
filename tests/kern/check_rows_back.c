/* Checks of the derivatives of the row kernels: against their twins, and the gates' against double. Whether the
 * twins are right is proved in tests/grad. */
#include "check.h"

#include <math.h>
#include <string.h>

enum { MAX = 1100 };
static const size_t sizes[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 64, 100, 576, 577, 1023};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* d, and what sums are added to, for the twin and the other. */
static float d[2][MAX], first[2][MAX], second[2][MAX], x[MAX], up[MAX];

static void fill(float size)
{
    check_fill(d[0], MAX, 2.0f);
    check_fill(first[0], MAX, 2.0f);
    check_fill(second[0], MAX, 2.0f);
    check_fill(x, MAX, size);
    check_fill(up, MAX, 2.0f);
    memcpy(d[1], d[0], sizeof d[0]);
    memcpy(first[1], first[0], sizeof first[0]);
    memcpy(second[1], second[0], sizeof second[0]);
}

static void same(const char *what, size_t n)
{
    check_bits(what, d[1], d[0], n + 20);
    check_bits(what, first[1], first[0], n + 20);
    check_bits(what, second[1], second[0], n + 20);
}

void check_rmsnorm_back(const kh_kern *ref, const kh_kern *other)
{
    for (size_t i = 0; i < 4 * SIZES; i++) {
        size_t n = sizes[i / 4];
        const float *gain = i & 1 ? up : NULL;
        fill(3.0f);
        ref->rmsnorm_back(d[0], i & 2 ? first[0] : NULL, x, gain, 1e-5f, n);
        other->rmsnorm_back(d[1], i & 2 ? first[1] : NULL, x, gain, 1e-5f, n);
        same("rmsnorm_back", n);
    }
}

void check_layernorm_back(const kh_kern *ref, const kh_kern *other)
{
    for (size_t i = 0; i < 8 * SIZES; i++) {
        size_t n = sizes[i / 8];
        const float *gain = i & 1 ? up : NULL;
        fill(3.0f);
        ref->layernorm_back(d[0], i & 2 ? first[0] : NULL, i & 4 ? second[0] : NULL, x, gain, 1e-5f,
                            n);
        other->layernorm_back(d[1], i & 2 ? first[1] : NULL, i & 4 ? second[1] : NULL, x, gain,
                              1e-5f, n);
        same("layernorm_back", n);
    }
}

void check_softcap_back(const kh_kern *ref, const kh_kern *other)
{
    for (size_t i = 0; i < SIZES; i++) {
        fill(29.0f);
        ref->softcap_back(d[0], x, 30.0f, sizes[i]);
        other->softcap_back(d[1], x, 30.0f, sizes[i]);
        same("softcap_back", sizes[i]);
    }
}

typedef void back(float *d, float *dup, const float *gate, const float *up, size_t n);
typedef struct gate {
    double act, slope;
} gate;

static gate silu(double v)
{
    double s = 1.0 / (1.0 + exp(-v));
    return (gate){v * s, s + v * s * (1.0 - s)};
}

static gate gelu(double v)
{
    double k = 0.7978845608028654, t = tanh(k * (v + 0.044715 * v * v * v));
    return (gate){0.5 * v * (1.0 + t),
                  0.5 * (1.0 + t) + 0.5 * v * (1.0 - t * t) * k * (1.0 + 0.134145 * v * v)};
}

static gate gelu_erf(double v)
{
    double half = 0.5 * (1.0 + erf(v / sqrt(2.0)));
    return (gate){v * half, half + v * exp(-0.5 * v * v) * 0.3989422804014327};
}

static gate relu(double v)
{
    return (gate){v > 0 ? v : 0, v > 0};
}

static void check_gate(const char *what, back *ref, back *other, gate (*of)(double))
{
    for (size_t i = 0; i < 4 * SIZES; i++) {
        size_t n = sizes[i / 4];
        static float before[MAX], sum[MAX];
        fill(6.0f);
        x[n / 2] = i & 1 ? 200.0f : -200.0f;
        x[n / 3] = 0.0f;
        memcpy(before, d[0], sizeof before);
        memcpy(sum, first[0], sizeof sum);
        const float *by = i & 1 ? up : NULL;
        ref(d[0], i & 2 ? first[0] : NULL, x, by, n);
        other(d[1], i & 2 ? first[1] : NULL, x, by, n);
        for (size_t k = 0; k < n; k++) {
            gate g = of((double)x[k]);
            double in = (double)before[k], a = (double)sum[k] + (i & 2 ? in * g.act : 0.0);
            double s = in * (by ? (double)by[k] : 1.0) * g.slope;
            double limit = 1.0 + fabs((double)x[k]);
            check_near(what, &d[0][k], &s, &limit, 1, 2e-6);
            check_near(what, &d[1][k], &s, &limit, 1, 2e-6);
            check_near(what, &first[0][k], &a, &limit, 1, 2e-6);
            check_near(what, &first[1][k], &a, &limit, 1, 2e-6);
        }
        check_bits(what, d[1] + n, d[0] + n, 20);
        check_bits(what, first[1] + n, first[0] + n, 20);
    }
}

void check_silu_back(const kh_kern *ref, const kh_kern *other)
{
    check_gate("silu_back", ref->silu_back, other->silu_back, silu);
}

void check_gelu_back(const kh_kern *ref, const kh_kern *other)
{
    check_gate("gelu_back", ref->gelu_back, other->gelu_back, gelu);
}

void check_gelu_erf_back(const kh_kern *ref, const kh_kern *other)
{
    check_gate("gelu_erf_back", ref->gelu_erf_back, other->gelu_erf_back, gelu_erf);
}

void check_relu_back(const kh_kern *ref, const kh_kern *other)
{
    check_gate("relu_back", ref->relu_back, other->relu_back, relu);
}
