/* kern/rows_back_body.h: derivatives of the row kernels over a vector header that was included before; what
 * they compute, and in which order, is in rows_back.c. */
#include "kern/kern.h"

#include <math.h>

#define INLINE static inline __attribute__((always_inline))

/* The first m lanes; m is a constant 16 everywhere but at the end of a row. */
INLINE v16 get(const float *p, const size_t m)
{
    return m == 16 ? v16_load(p) : v16_load_n(p, m);
}

INLINE void put(float *p, v16 x, const size_t m)
{
    if (m == 16)
        v16_store(p, x);
    else
        v16_store_n(p, x, m);
}

/* Runs a step on every vector of a row. */
#define ROW(step)                                                                                  \
    size_t i = 0;                                                                                  \
    for (; i + 16 <= n; i += 16) step(16);                                                         \
    if (i < n) step(n - i)

INLINE v16 inner_of(const float *d, const float *gain, const size_t i, const size_t m)
{
    return gain ? v16_mul(get(d + i, m), get(gain + i, m)) : get(d + i, m);
}

void KH_NAME(rmsnorm_back)(float *d, float *dgain, const float *x, const float *gain, float eps,
                           size_t n)
{
    v16 squares = v16_zero(), inner = v16_zero();
#define SUMS(m)                                                                                    \
    do {                                                                                           \
        v16 a = get(x + i, m);                                                                     \
        squares = v16_fma(a, a, squares);                                                          \
        inner = v16_fma(inner_of(d, gain, i, m), a, inner);                                        \
    } while (0)
    {
        ROW(SUMS);
    }
#undef SUMS
    float f = 1.0f / sqrtf(v16_sum(squares) / (float)n + eps);
    v16 factor = v16_set1(f), mean = v16_set1(v16_sum(inner) * f / (float)n);
#define STEP(m)                                                                                    \
    do {                                                                                           \
        v16 z = v16_mul(get(x + i, m), factor), u = inner_of(d, gain, i, m);                       \
        if (dgain) put(dgain + i, v16_fma(get(d + i, m), z, get(dgain + i, m)), m);                \
        put(d + i, v16_mul(factor, v16_fnma(z, mean, u)), m);                                      \
    } while (0)
    ROW(STEP);
#undef STEP
}

/* As in the forward kernel, lanes behind the end of a row are kept out of sums by ones that end there. */
void KH_NAME(layernorm_back)(float *d, float *dgain, float *dbias, const float *x,
                             const float *gain, float eps, size_t n)
{
    static const float ones[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    v16 sum = v16_zero(), squares = v16_zero(), plain = v16_zero(), inner = v16_zero();
#define SUM(m) sum = v16_add(sum, get(x + i, m))
    {
        ROW(SUM);
    }
#undef SUM
    v16 mean = v16_set1(v16_sum(sum) / (float)n);
#define SUMS(m)                                                                                    \
    do {                                                                                           \
        v16 c = v16_mul(v16_sub(get(x + i, m), mean), get(ones, m));                               \
        v16 u = inner_of(d, gain, i, m);                                                           \
        squares = v16_fma(c, c, squares);                                                          \
        plain = v16_add(plain, u);                                                                 \
        inner = v16_fma(u, c, inner);                                                              \
    } while (0)
    {
        ROW(SUMS);
    }
#undef SUMS
    float f = 1.0f / sqrtf(v16_sum(squares) / (float)n + eps);
    v16 factor = v16_set1(f), m1 = v16_set1(v16_sum(plain) / (float)n);
    v16 m2 = v16_set1(v16_sum(inner) * f / (float)n);
#define STEP(m)                                                                                    \
    do {                                                                                           \
        v16 z = v16_mul(v16_sub(get(x + i, m), mean), factor), u = inner_of(d, gain, i, m);        \
        if (dgain) put(dgain + i, v16_fma(get(d + i, m), z, get(dgain + i, m)), m);                \
        if (dbias) put(dbias + i, v16_add(get(dbias + i, m), get(d + i, m)), m);                   \
        put(d + i, v16_mul(factor, v16_fnma(z, m2, v16_sub(u, m1))), m);                           \
    } while (0)
    ROW(STEP);
#undef STEP
}

/* ---- gates: `act` and its slope */

typedef struct gate {
    v16 act, slope;
} gate;

INLINE gate silu(v16 x)
{
    v16 one = v16_set1(1.0f), s = v16_div(one, v16_add(one, v16_exp(v16_neg(x))));
    v16 a = v16_mul(x, s);
    return (gate){a, v16_fma(a, v16_sub(one, s), s)};
}

INLINE gate gelu(v16 x)
{
    v16 one = v16_set1(1.0f), half = v16_set1(0.5f), k = v16_set1(0.797884561f);
    v16 square = v16_mul(v16_mul(v16_set1(0.044715f), x), x);
    v16 t = v16_tanh(v16_mul(k, v16_add(x, v16_mul(square, x))));
    v16 share = v16_add(half, v16_mul(half, t));
    v16 inner = v16_mul(k, v16_add(one, v16_mul(v16_set1(3.0f), square)));
    v16 bell = v16_mul(v16_mul(half, x), v16_sub(one, v16_mul(t, t)));
    return (gate){v16_mul(x, share), v16_fma(bell, inner, share)};
}

INLINE gate gelu_erf(v16 x)
{
    v16 half = v16_set1(0.5f), u = v16_mul(x, v16_set1(0.707106781f));
    v16 share = v16_add(half, v16_mul(half, v16_erf(u)));
    v16 bell = v16_mul(v16_set1(0.707106781f * (float)0.5641895835477563),
                       v16_exp(v16_mul(v16_neg(u), u)));
    return (gate){v16_mul(x, share), v16_fma(x, bell, share)};
}

INLINE gate relu(v16 x)
{
    v16 zero = v16_zero();
    return (gate){v16_where_less(zero, x, x, zero), v16_where_less(zero, x, v16_set1(1.0f), zero)};
}

INLINE void gate_back(float *d, float *dup, const float *up, gate g, const size_t m)
{
    v16 by = get(d, m), inner = up ? v16_mul(by, get(up, m)) : by;
    if (dup) put(dup, v16_fma(by, g.act, get(dup, m)), m);
    put(d, v16_mul(inner, g.slope), m);
}

#define GATE(name)                                                                                 \
    void KH_NAME(name##_back)(float *d, float *dup, const float *x, const float *up, size_t n)     \
    {                                                                                              \
        ROW(STEP_##name);                                                                          \
    }
#define STEP(name, m)                                                                              \
    gate_back(d + i, dup ? dup + i : NULL, up ? up + i : NULL, name(get(x + i, m)), m)
#define STEP_silu(m)     STEP(silu, m)
#define STEP_gelu(m)     STEP(gelu, m)
#define STEP_gelu_erf(m) STEP(gelu_erf, m)
#define STEP_relu(m)     STEP(relu, m)
GATE(silu)
GATE(gelu)
GATE(gelu_erf)
GATE(relu)
#undef STEP
#undef GATE

void KH_NAME(softcap_back)(float *d, const float *y, float cap, size_t n)
{
    v16 c = v16_set1(cap), one = v16_set1(1.0f);
#define STEP(m)                                                                                    \
    do {                                                                                           \
        v16 t = v16_div(get(y + i, m), c);                                                         \
        put(d + i, v16_mul(get(d + i, m), v16_fnma(t, t, one)), m);                                \
    } while (0)
    ROW(STEP);
#undef STEP
}

#undef ROW
