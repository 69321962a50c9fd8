/* The plain C twins of the kernels of attention's backward pass: what kern/grad_kern.h says, one scalar
 * at a time. Orders of addition are the contract, so the vector bodies give the same bits, but for exp,
 * which here is the C library's. */
#include "kern/grad_kern.h"

#include <math.h>

static void back(float *p, float *d, float scale, float slope, float shift, float sum)
{
    float t = *p * scale - shift;
    *p = t > -104.5f ? expf(t) : 0.0f;
    *d = *p > 0 ? *p * slope * (*d - sum) : 0.0f;
}

void softmax_back_ref(float *p, float *d, size_t n, float scale, float shift, float sum)
{
    for (size_t i = 0; i < n; i++) back(p + i, d + i, scale, scale, shift, sum);
}

void softmax_back_rows_ref(float *p, float *d, size_t ld, size_t R, size_t n, float scale,
                           const float *shifts, const float *sums)
{
    for (size_t r = 0; r < R; r++)
        softmax_back_ref(p + r * ld, d + r * ld, n, scale, shifts[r], sums[r]);
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

void back_triples_ref(float *dk, float *dv, float *ds, const float *k, const float *v,
                      float *triples, const uint16_t *rows, const float *gains, const float *biases,
                      size_t n, const kh_back *b, size_t E)
{
    for (size_t i = 0; i < n; i++) {
        float *q = triples + 3 * E * rows[i], *o = q + E, *dq = o + E;
        float gain = gains ? gains[i] : 1.0f, p = dot(k, q, E), slope = b->scale;
        p = (biases ? p + biases[i] : p) * b->scale;
        if (b->cap != 0) {
            float t = tanhf(p / b->cap);
            slope *= fmaf(-t, t, 1.0f);
            p = t * b->cap;
        }
        ds[i] = dot(v, o, E) * gain;
        back(&p, ds + i, 1.0f, slope, b->shifts[rows[i]], b->sums[rows[i]]);
        for (size_t e = 0; e < E; e++) {
            dk[e] = fmaf(ds[i], q[e], dk[e]);
            dv[e] = fmaf(p * gain, o[e], dv[e]);
            dq[e] = fmaf(ds[i], isfinite(k[e]) ? k[e] : 0.0f, dq[e]);
        }
    }
}
