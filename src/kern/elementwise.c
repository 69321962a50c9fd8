/* Row kernels in plain C: residuals, caps, gates, norms and rotations. These twins define the result.
 *
 * add, scale, relu_mul, rope_*, rmsnorm, layernorm and fma_chain give the same bits on every instruction
 * set; softcap, silu_mul, gelu_mul and gelu_erf_mul use the C library's functions here and kern/vec_math.h
 * there, and agree to a few units in the last place (gelu_erf_mul: of the first factor, which cancels).
 *
 * rmsnorm sums squares in 16 lanes (element i in lane i % 16, one fma each, ascending), adds lanes
 * l and l + 8, then + 4, + 2, + 1, and multiplies by 1 / sqrt(sum / n + eps), then by the gain: a
 * fixed order, and an error far below that of one long f32 sum.
 *
 * layernorm takes the mean in the same lanes, then the squares of what is left of it, and ends with one
 * fma: gain times the normalised value, plus the bias.
 *
 * The rotations round each product and then their sum, as Hugging Face's reference does: no fma. */
#include "kern/kern.h"

#include <math.h>

void add_ref(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] += x[i];
}

void scale_ref(float *y, float a, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] *= a;
}

void softcap_ref(float *y, float cap, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = cap * tanhf(y[i] / cap);
}

void silu_mul_ref(float *y, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = y[i] / (1.0f + expf(-y[i])) * up[i];
}

void gelu_mul_ref(float *y, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float u = 0.797884561f * (y[i] + 0.044715f * y[i] * y[i] * y[i]);
        y[i] = 0.5f * y[i] * (1.0f + tanhf(u)) * up[i];
    }
}

void gelu_erf_mul_ref(float *y, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = 0.5f * y[i] * (1.0f + erff(y[i] * 0.707106781f)) * up[i];
}

void relu_mul_ref(float *y, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = (0.0f > y[i] ? 0.0f : y[i]) * up[i];
}

static float tree_sum(float lane[16])
{
    for (int half = 8; half > 0; half /= 2)
        for (int l = 0; l < half; l++) lane[l] += lane[l + half];
    return lane[0];
}

void rmsnorm_ref(float *y, const float *x, const float *gain, float eps, size_t n)
{
    float lane[16] = {0};
    for (size_t i = 0; i < n; i++) lane[i % 16] = fmaf(x[i], x[i], lane[i % 16]);
    float factor = 1.0f / sqrtf(tree_sum(lane) / (float)n + eps);
    for (size_t i = 0; i < n; i++) y[i] = x[i] * factor * (gain ? gain[i] : 1.0f);
}

void layernorm_ref(float *y, const float *x, const float *gain, const float *bias, float eps,
                   size_t n)
{
    float lane[16] = {0}, squares[16] = {0};
    for (size_t i = 0; i < n; i++) lane[i % 16] += x[i];
    float mean = tree_sum(lane) / (float)n;
    for (size_t i = 0; i < n; i++)
        squares[i % 16] = fmaf(x[i] - mean, x[i] - mean, squares[i % 16]);
    float factor = 1.0f / sqrtf(tree_sum(squares) / (float)n + eps);
    for (size_t i = 0; i < n; i++)
        y[i] = fmaf((x[i] - mean) * factor, gain ? gain[i] : 1.0f, bias ? bias[i] : 0.0f);
}

void rope_half_ref(float *x, const float *cosine, const float *sine, size_t n)
{
    float *y = x + n / 2;
    for (size_t i = 0; i < n / 2; i++) {
        float a = x[i], b = y[i];
        x[i] = a * cosine[i] - b * sine[i];
        y[i] = b * cosine[i] + a * sine[i];
    }
}

void rope_pairs_ref(float *x, const float *cosine, const float *sine, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cosine[i] - b * sine[i];
        x[2 * i + 1] = b * cosine[i] + a * sine[i];
    }
}

void fma_chain_ref(float *y, float a, float b, size_t rounds)
{
    for (size_t i = 0; i < KH_CHAINS; i++)
        for (size_t r = 0; r < rounds; r++) y[i] = fmaf(y[i], a, b);
}
