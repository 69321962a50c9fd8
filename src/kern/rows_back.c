/* Derivatives of the row kernels in plain C. These twins define the result.
 *
 * d comes in as the derivative by what the row became and leaves as the derivative by what it was; sums
 * over rows (gains, biases) are added to where they are gathered, one row at a call.
 *
 *     rmsnorm     y = x f g           f = 1 / sqrt(mean x^2 + eps)      z = x f
 *     layernorm   y = z g + b         z = (x - mean) f
 *                 d = f (u - z mean(u z) [- mean(u), layernorm]),  u = d g;   dg += d z;  db += d
 *     gates       y = act(gate) up    dup += d act(gate);  d = d up act'(gate)
 *     softcap     y = cap tanh(x / cap)   d = d (1 - (y / cap)^2)
 *
 * Sums across a row are taken in 16 lanes like those of the forward kernels (elementwise.c), so the bodies of
 * all instruction sets give the same bits, but for the gates' exp, tanh and erf. */
#include "kern/kern.h"

#include <math.h>

static float tree_sum(float lane[16])
{
    for (int half = 8; half > 0; half /= 2)
        for (int l = 0; l < half; l++) lane[l] += lane[l + half];
    return lane[0];
}

void rmsnorm_back_ref(float *d, float *dgain, const float *x, const float *gain, float eps,
                      size_t n)
{
    float squares[16] = {0}, inner[16] = {0};
    for (size_t i = 0; i < n; i++) squares[i % 16] = fmaf(x[i], x[i], squares[i % 16]);
    for (size_t i = 0; i < n; i++)
        inner[i % 16] = fmaf(gain ? d[i] * gain[i] : d[i], x[i], inner[i % 16]);
    float f = 1.0f / sqrtf(tree_sum(squares) / (float)n + eps);
    float m = tree_sum(inner) * f / (float)n;
    for (size_t i = 0; i < n; i++) {
        float z = x[i] * f, u = gain ? d[i] * gain[i] : d[i];
        if (dgain) dgain[i] = fmaf(d[i], z, dgain[i]);
        d[i] = f * fmaf(-z, m, u);
    }
}

void layernorm_back_ref(float *d, float *dgain, float *dbias, const float *x, const float *gain,
                        float eps, size_t n)
{
    float lane[16] = {0}, squares[16] = {0}, plain[16] = {0}, inner[16] = {0};
    for (size_t i = 0; i < n; i++) lane[i % 16] += x[i];
    float mean = tree_sum(lane) / (float)n;
    for (size_t i = 0; i < n; i++) {
        float c = x[i] - mean, u = gain ? d[i] * gain[i] : d[i];
        squares[i % 16] = fmaf(c, c, squares[i % 16]);
        plain[i % 16] += u;
        inner[i % 16] = fmaf(u, c, inner[i % 16]);
    }
    float f = 1.0f / sqrtf(tree_sum(squares) / (float)n + eps);
    float m = tree_sum(inner) * f / (float)n, p = tree_sum(plain) / (float)n;
    for (size_t i = 0; i < n; i++) {
        float z = (x[i] - mean) * f, u = gain ? d[i] * gain[i] : d[i];
        if (dgain) dgain[i] = fmaf(d[i], z, dgain[i]);
        if (dbias) dbias[i] += d[i];
        d[i] = f * fmaf(-z, m, u - p);
    }
}

/* The end of every gate: `a` is act(gate), `s` its slope. */
static void gate_back(float *d, float *dup, const float *up, size_t i, float a, float s)
{
    if (dup) dup[i] = fmaf(d[i], a, dup[i]);
    d[i] = d[i] * (up ? up[i] : 1.0f) * s;
}

void silu_back_ref(float *d, float *dup, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float x = gate[i], s = 1.0f / (1.0f + expf(-x)), a = x * s;
        gate_back(d, dup, up, i, a, fmaf(a, 1.0f - s, s));
    }
}

void gelu_back_ref(float *d, float *dup, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float x = gate[i], square = 0.044715f * x * x;
        float t = tanhf(0.797884561f * (x + square * x)), half = 0.5f + 0.5f * t;
        float inner = 0.797884561f * (1.0f + 3.0f * square);
        gate_back(d, dup, up, i, x * half, fmaf(0.5f * x * (1.0f - t * t), inner, half));
    }
}

void gelu_erf_back_ref(float *d, float *dup, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float x = gate[i], u = x * 0.707106781f, half = 0.5f + 0.5f * erff(u);
        float bell = 0.707106781f * (float)0.5641895835477563 * expf(-u * u);
        gate_back(d, dup, up, i, x * half, fmaf(x, bell, half));
    }
}

void relu_back_ref(float *d, float *dup, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        gate_back(d, dup, up, i, gate[i] > 0.0f ? gate[i] : 0.0f, gate[i] > 0.0f ? 1.0f : 0.0f);
}

void softcap_back_ref(float *d, const float *y, float cap, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float t = y[i] / cap;
        d[i] *= fmaf(-t, t, 1.0f);
    }
}
