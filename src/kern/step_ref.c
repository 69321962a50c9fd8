/* The kernels of an optimiser's step in plain C: they define the result (contracts: step_kern.h).
 *
 * AdamW is the decoupled form (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019) with
 * the corrections folded into `rate` and `root`, so that an element costs one square root and one division.
 * A step reads 16 bytes of an element and writes 12, once: it is bound by memory, and every further pass
 * over w, m or v would show. */
#include "kern/kern.h"
#include "kern/step_kern.h"
#include "tensor/half.h"

#include <math.h>

double squares_sum_ref(const float *x, size_t n)
{
    double lane[16] = {0};
    for (size_t i = 0; i < n; i++) lane[i % 16] += (double)x[i] * (double)x[i];
    for (int half = 8; half > 0; half /= 2)
        for (int l = 0; l < half; l++) lane[l] += lane[l + half];
    return lane[0];
}

void adamw_step_ref(float *w, float *m, float *v, const float *g, const struct kh_adamw *a,
                    size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float gradient = g[i] * a->scale;
        m[i] = fmaf(a->keep1, gradient - m[i], m[i]);
        v[i] = fmaf(a->keep2 * gradient, gradient, a->beta2 * v[i]);
        float move = m[i] / fmaf(sqrtf(v[i]), a->root, a->eps);
        w[i] = fmaf(-a->rate, move, w[i] * a->decay);
    }
}

void sgd_step_ref(float *w, float *m, const float *g, const struct kh_sgd *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float gradient = fmaf(s->decay, w[i], g[i] * s->scale);
        if (m) gradient = m[i] = fmaf(s->momentum, m[i], gradient);
        w[i] = fmaf(-s->rate, gradient, w[i]);
    }
}

void bf16_dither_ref(uint16_t *y, const float *x, uint32_t seed, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = (uint16_t)((kh_f32_bits(x[i]) + (kh_dither(seed + (uint32_t)i) >> 16)) >> 16);
}
