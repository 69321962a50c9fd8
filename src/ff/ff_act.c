/* Activations of feed-forward layers, and their derivatives.
 *
 *     relu  max(x, 0)                             1 where x > 0
 *     gelu  x (1 + t) / 2,                        (1 + t) / 2 + x (1 - t^2) c (1 + 3 a x^2) / 2
 *           t = tanh(c (x + a x^3))               c = sqrt(2 / pi), a = 0.044715
 *     silu  x s, s = 1 / (1 + exp(-x))            s (1 + x (1 - s))
 *
 * Values come from the kernels of the model's forward pass (ops/rowwise.h); derivatives are needed for kept neurons only and take the C library. */
#include "ff/ff.h"

#include "ops/rowwise.h"

#include <math.h>

static kh_act act_of(kh_ff_act act)
{
    return act == KH_FF_RELU ? KH_ACT_RELU : act == KH_FF_GELU ? KH_ACT_GELU_TANH : KH_ACT_SILU;
}

void kh_ff_act_row(const kh_kern *kern, kh_ff_act act, float *y, const float *x, const float *up,
                   size_t n)
{
    if (y != x)
        for (size_t i = 0; i < n; i++) y[i] = x[i];
    kh_act_row(kern, act_of(act), y, up, n);
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
