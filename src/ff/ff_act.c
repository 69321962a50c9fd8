/* Activations of feed-forward layers, and their derivatives.
 *
 *     relu  max(x, 0)                             1 where x > 0
 *     gelu  x (1 + t) / 2,                        (1 + t) / 2 + x (1 - t^2) c (1 + 3 a x^2) / 2
 *           t = tanh(c (x + a x^3))               c = sqrt(2 / pi), a = 0.044715
 *     silu  x s, s = 1 / (1 + exp(-x))            s (1 + x (1 - s))
 *
 * Values come from the kernels of the model's forward pass (a product with ones where there is no
 * second factor); derivatives are needed for kept neurons only and take the C library. */
#include "ff/ff.h"

#include <math.h>

enum { PIECE = 64 };

static void product_row(const kh_kern *kern, kh_ff_act act, float *y, const float *up, size_t n)
{
    if (act == KH_FF_GELU)
        kern->gelu_mul(y, up, n);
    else
        kern->silu_mul(y, up, n);
}

void kh_ff_act_row(const kh_kern *kern, kh_ff_act act, float *y, const float *x, const float *up,
                   size_t n)
{
    if (act == KH_FF_RELU) {
        for (size_t i = 0; i < n; i++) y[i] = x[i] > 0 ? x[i] : x[i] <= 0 ? 0.0f : x[i];
        for (size_t i = 0; up && i < n; i++) y[i] *= up[i];
        return;
    }
    if (y != x)
        for (size_t i = 0; i < n; i++) y[i] = x[i];
    if (up) {
        product_row(kern, act, y, up, n);
        return;
    }
    float ones[PIECE];
    for (size_t i = 0; i < PIECE; i++) ones[i] = 1.0f;
    for (size_t i = 0; i < n; i += PIECE)
        product_row(kern, act, y + i, ones, n - i < PIECE ? n - i : PIECE);
}

float kh_ff_slope(kh_ff_act act, float x)
{
    if (act == KH_FF_RELU) return x > 0 ? 1.0f : 0.0f;
    if (act == KH_FF_SILU) {
        float s = 1.0f / (1.0f + expf(-x));
        return s * (1.0f + x * (1.0f - s));
    }
    const float c = 0.7978845608028654f, a = 0.044715f;
    float t = tanhf(c * (x + a * x * x * x));
    float rest = (1.0f - t * t) * c * (1.0f + 3.0f * a * x * x);
    return 0.5f * (1.0f + t) + (rest > 0 ? 0.5f * x * rest : 0.0f);
}
