/* kern/elementwise_body.h: the row kernels over a vector header that was included before. The rest of
 * a row that is no multiple of 16 goes through the same expression on a partial vector. */
#include "kern/kern.h"

#include <math.h>

/* Runs `expr` on y (and x) of every vector of the row and stores it to y. */
#define ROW(with_x, expr)                                                                          \
    size_t i = 0;                                                                                  \
    for (; i + 16 <= n; i += 16) {                                                                 \
        v16 y = v16_load(row + i), x = with_x ? v16_load(other + i) : y;                           \
        v16_store(row + i, expr);                                                                  \
    }                                                                                              \
    if (i < n) {                                                                                   \
        v16 y = v16_load_n(row + i, n - i), x = with_x ? v16_load_n(other + i, n - i) : y;         \
        v16_store_n(row + i, expr, n - i);                                                         \
    }

void KH_NAME(add)(float *row, const float *other, size_t n)
{
    ROW(1, v16_add(y, x))
}

void KH_NAME(scale)(float *row, float a, size_t n)
{
    const float *other = row;
    v16 factor = v16_set1(a);
    ROW(0, v16_mul(x, factor))
}

void KH_NAME(softcap)(float *row, float cap, size_t n)
{
    const float *other = row;
    v16 c = v16_set1(cap);
    ROW(0, v16_mul(c, v16_tanh(v16_div(x, c))))
}

void KH_NAME(silu_mul)(float *row, const float *other, size_t n)
{
    v16 one = v16_set1(1.0f);
    ROW(1, v16_mul(v16_div(y, v16_add(one, v16_exp(v16_neg(y)))), x))
}

static inline v16 gelu(v16 y)
{
    v16 cube = v16_mul(v16_mul(v16_mul(v16_set1(0.044715f), y), y), y);
    v16 t = v16_tanh(v16_mul(v16_set1(0.797884561f), v16_add(y, cube)));
    return v16_mul(v16_mul(v16_set1(0.5f), y), v16_add(v16_set1(1.0f), t));
}

void KH_NAME(gelu_mul)(float *row, const float *other, size_t n)
{
    ROW(1, v16_mul(gelu(y), x))
}

void KH_NAME(gelu_erf_mul)(float *row, const float *other, size_t n)
{
    v16 half = v16_set1(0.5f), one = v16_set1(1.0f), root = v16_set1(0.707106781f);
    ROW(1, v16_mul(v16_mul(v16_mul(half, y), v16_add(one, v16_erf(v16_mul(y, root)))), x))
}

void KH_NAME(relu_mul)(float *row, const float *other, size_t n)
{
    ROW(1, v16_mul(v16_max(v16_zero(), y), x))
}

void KH_NAME(rmsnorm)(float *y, const float *x, const float *gain, float eps, size_t n)
{
    v16 sum = v16_zero();
    size_t i = 0;
    for (; i + 16 <= n; i += 16) sum = v16_fma(v16_load(x + i), v16_load(x + i), sum);
    if (i < n) sum = v16_fma(v16_load_n(x + i, n - i), v16_load_n(x + i, n - i), sum);
    v16 factor = v16_set1(1.0f / sqrtf(v16_sum(sum) / (float)n + eps)), one = v16_set1(1.0f);
    for (i = 0; i + 16 <= n; i += 16) {
        v16 g = gain ? v16_load(gain + i) : one;
        v16_store(y + i, v16_mul(v16_mul(v16_load(x + i), factor), g));
    }
    if (i < n) {
        v16 g = gain ? v16_load_n(gain + i, n - i) : one;
        v16_store_n(y + i, v16_mul(v16_mul(v16_load_n(x + i, n - i), factor), g), n - i);
    }
}

/* Lanes behind the end of a row must not enter its sums: they are loaded as zeros, which a mean would
 * move, so the last vector's differences are multiplied with ones that end where the row does. */
void KH_NAME(layernorm)(float *y, const float *x, const float *gain, const float *bias, float eps,
                        size_t n)
{
    static const float ones[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    v16 sum = v16_zero(), squares = v16_zero();
    size_t whole = n / 16 * 16, rest = n - whole;
    for (size_t i = 0; i < whole; i += 16) sum = v16_add(sum, v16_load(x + i));
    if (rest) sum = v16_add(sum, v16_load_n(x + whole, rest));
    v16 mean = v16_set1(v16_sum(sum) / (float)n), one = v16_set1(1.0f);
    for (size_t i = 0; i < whole; i += 16) {
        v16 d = v16_sub(v16_load(x + i), mean);
        squares = v16_fma(d, d, squares);
    }
    if (rest) {
        v16 d = v16_mul(v16_sub(v16_load_n(x + whole, rest), mean), v16_load_n(ones, rest));
        squares = v16_fma(d, d, squares);
    }
    v16 factor = v16_set1(1.0f / sqrtf(v16_sum(squares) / (float)n + eps));
    for (size_t i = 0; i < whole; i += 16) {
        v16 g = gain ? v16_load(gain + i) : one, b = bias ? v16_load(bias + i) : v16_zero();
        v16_store(y + i, v16_fma(v16_mul(v16_sub(v16_load(x + i), mean), factor), g, b));
    }
    if (rest) {
        v16 g = gain ? v16_load_n(gain + whole, rest) : one;
        v16 b = bias ? v16_load_n(bias + whole, rest) : v16_zero();
        v16 d = v16_mul(v16_sub(v16_load_n(x + whole, rest), mean), factor);
        v16_store_n(y + whole, v16_fma(d, g, b), rest);
    }
}

void KH_NAME(rope_half)(float *x, const float *cosine, const float *sine, size_t n)
{
    float *y = x + n / 2;
    for (size_t i = 0; i < n / 2; i += 16) {
        size_t m = n / 2 - i < 16 ? n / 2 - i : 16;
        v16 a = v16_load_n(x + i, m), b = v16_load_n(y + i, m);
        v16 c = v16_load_n(cosine + i, m), s = v16_load_n(sine + i, m);
        v16_store_n(x + i, v16_sub(v16_mul(a, c), v16_mul(b, s)), m);
        v16_store_n(y + i, v16_add(v16_mul(b, c), v16_mul(a, s)), m);
    }
}

void KH_NAME(rope_pairs)(float *x, const float *cosine, const float *sine, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n / 2; i += 8) {
        v16 v = v16_load(x + 2 * i), c = v16_twice(cosine + i), s = v16_twice(sine + i);
        v16_store(x + 2 * i, v16_alternate(v16_mul(v, c), v16_mul(v16_swap(v), s)));
    }
    for (; i < n / 2; i++) {
        float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cosine[i] - b * sine[i];
        x[2 * i + 1] = b * cosine[i] + a * sine[i];
    }
}

void KH_NAME(fma_chain)(float *y, float a, float b, size_t rounds)
{
    v16 factor = v16_set1(a), term = v16_set1(b), x[CHAINS_AT_ONCE];
    for (size_t first = 0; first < KH_CHAINS; first += 16 * CHAINS_AT_ONCE) {
        for (size_t c = 0; c < CHAINS_AT_ONCE; c++) x[c] = v16_load(y + first + 16 * c);
        for (size_t r = 0; r < rounds; r++)
            for (size_t c = 0; c < CHAINS_AT_ONCE; c++) x[c] = v16_fma(x[c], factor, term);
        for (size_t c = 0; c < CHAINS_AT_ONCE; c++) v16_store(y + first + 16 * c, x[c]);
    }
}

#undef ROW
