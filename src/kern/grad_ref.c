/* The plain C twins of the kernels of attention's backward pass: what kern/grad_kern.h says, one scalar
 * at a time. Orders of addition are the contract, so the vector bodies give the same bits, but for exp,
 * which here is the C library's. */
#include "kern/grad_kern.h"

#include <math.h>

static void back(float *p, float *d, float scale, float shift, float sum)
{
    float t = *p * scale - shift;
    *p = t > -104.5f ? expf(t) : 0.0f;
    *d = *p > 0 ? *p * scale * (*d - sum) : 0.0f;
}

void softmax_back_ref(float *p, float *d, size_t n, float scale, float shift, float sum)
{
    for (size_t i = 0; i < n; i++) back(p + i, d + i, scale, shift, sum);
}

void softmax_back_listed_ref(float *p, float *d, const uint32_t *rows, size_t n, float scale,
                             const float *shifts, const float *sums)
{
    for (size_t i = 0; i < n; i++) back(p + i, d + i, scale, shifts[rows[i]], sums[rows[i]]);
}

void mix_cols_ref(float *out, size_t ldo, const float *weights, size_t ldw, size_t cols,
                  const float *rows, size_t R, size_t E)
{
    for (size_t j = 0; j < cols; j++)
        for (size_t e = 0; e < E; e++) {
            float sum = out[j * ldo + e];
            for (size_t r = 0; r < R; r++) sum = fmaf(weights[r * ldw + j], rows[r * E + e], sum);
            out[j * ldo + e] = sum;
        }
}

static float dot(const float *x, const float *y, size_t n)
{
    float lane[16] = {0};
    for (size_t e = 0; e < n; e++) lane[e % 16] = fmaf(x[e], y[e], lane[e % 16]);
    for (size_t half = 8; half > 0; half /= 2)
        for (size_t i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

void dot_pairs_ref(float *a, float *b, const float *x, const float *y, const float *pairs,
                   const uint32_t *rows, size_t n, size_t E)
{
    for (size_t i = 0; i < n; i++) {
        a[i] = dot(x, pairs + 2 * E * rows[i], E);
        b[i] = dot(y, pairs + 2 * E * rows[i] + E, E);
    }
}

void gather_pairs_ref(float *a, float *b, const float *pairs, const uint32_t *rows, const float *wa,
                      const float *wb, size_t n, size_t E)
{
    for (size_t i = 0; i < n; i++) {
        const float *pair = pairs + 2 * E * rows[i];
        for (size_t e = 0; e < E; e++) {
            a[e] = fmaf(wa[i], pair[e], a[e]);
            b[e] = fmaf(wb[i], pair[E + e], b[e]);
        }
    }
}
