/* kern/vec_math.h: exp, tanh and erf over sixteen lanes, included by vec_avx2.h and vec_avx512.h.
 *
 * exp    x = n ln 2 + r with |r| <= ln 2 / 2 (ln 2 in two parts), e^r = 1 + r + r^2 P(r) with P of
 *        degree 4, fitted for the smallest relative error (3e-9 before rounding). Measured against
 *        double over every 97th float: at most 0.98 ulp. -inf and everything below -103.98 give 0,
 *        everything above 88.73 inf, NaN stays NaN.
 * tanh   |x| < 0.625: x + x^3 Q(x^2), Q of degree 4 (4e-9); above: 1 - 2 / (e^2|x| + 1).
 *        At most 1.31 ulp, the same way. Both give the same bits on both instruction sets.
 * erf    |x| < 1: x + x R(x^2), R of degree 6, fitted (2e-8); above: 1 - e^(-x^2) S(1 / (1 + p |x|)) with the
 *        five coefficients and p of Abramowitz and Stegun, 7.1.26 (1.5e-7).
 * exp2w  2^x for the weights of a softmax, x at most 127: 2^n e^f as above, a polynomial of degree 5 that
 *        is 1 at 0 (1.6e-7), exactly 0 below -126.5 and for NaN. Half of exp's instructions. */
#ifndef KH_KERN_VEC_MATH_H
#define KH_KERN_VEC_MATH_H

#define V16_WHOLE 12582912.0f /* 1.5 * 2^23 */

static inline v16 v16_exp(v16 x)
{
    x = v16_min(v16_set1(89.0f), v16_max(v16_set1(-104.5f), x));
    v16 n = v16_round(v16_mul(x, v16_set1(1.44269504f)));
    v16 r = v16_fnma(n, v16_set1(0.693145751953125f), x);
    r = v16_fnma(n, v16_set1(1.42860677e-6f), r);
    v16 p = v16_fma(v16_set1(0.00138131424f), r, v16_set1(0.00836941879f));
    p = v16_fma(p, r, v16_set1(0.041668456f));
    p = v16_fma(p, r, v16_set1(0.166665152f));
    p = v16_fma(p, r, v16_set1(0.49999994f));
    p = v16_fma(p, v16_mul(r, r), r);
    return v16_scale2(v16_add(p, v16_set1(1.0f)), n);
}

static inline v16 v16_exp2w(v16 x)
{
    x = v16_max(x, v16_set1(-127.0f));
    v16 whole = v16_add(x, v16_set1(V16_WHOLE));
    v16 f = v16_sub(x, v16_sub(whole, v16_set1(V16_WHOLE)));
    v16 p = v16_fma(v16_set1(0.00132647285f), f, v16_set1(0.00967151299f));
    p = v16_fma(p, f, v16_set1(0.0555073358f));
    p = v16_fma(p, f, v16_set1(0.240222424f));
    p = v16_fma(p, f, v16_set1(0.693147004f));
    p = v16_fma(p, f, v16_set1(1.0f));
    return v16_mul(p, v16_power2(whole));
}

static inline v16 v16_tanh(v16 x)
{
    v16 a = v16_abs(x), s = v16_mul(x, x);
    v16 q = v16_fma(v16_set1(-0.00571703704f), s, v16_set1(0.0206505787f));
    q = v16_fma(q, s, v16_set1(-0.0537434965f));
    q = v16_fma(q, s, v16_set1(0.133314908f));
    q = v16_fma(q, s, v16_set1(-0.333332837f));
    v16 near = v16_fma(q, v16_mul(s, a), a);
    v16 e = v16_add(v16_exp(v16_add(a, a)), v16_set1(1.0f));
    v16 far = v16_sub(v16_set1(1.0f), v16_div(v16_set1(2.0f), e));
    return v16_copysign(v16_where_less(a, v16_set1(0.625f), near, far), x);
}

static inline v16 v16_erf(v16 x)
{
    v16 a = v16_abs(x), s = v16_mul(x, x);
    v16 r = v16_fma(v16_set1(7.88249745e-05f), s, v16_set1(-0.000801885501f));
    r = v16_fma(r, s, v16_set1(0.00518931216f));
    r = v16_fma(r, s, v16_set1(-0.0268543288f));
    r = v16_fma(r, s, v16_set1(0.112835974f));
    r = v16_fma(r, s, v16_set1(-0.37612626f));
    r = v16_fma(r, s, v16_set1(0.128379166f));
    v16 near = v16_fma(r, a, a);
    v16 t = v16_div(v16_set1(1.0f), v16_fma(v16_set1(0.3275911f), a, v16_set1(1.0f)));
    v16 p = v16_fma(v16_set1(1.061405429f), t, v16_set1(-1.453152027f));
    p = v16_fma(p, t, v16_set1(1.421413741f));
    p = v16_fma(p, t, v16_set1(-0.284496736f));
    p = v16_fma(p, t, v16_set1(0.254829592f));
    v16 far = v16_fnma(v16_mul(p, t), v16_exp(v16_neg(s)), v16_set1(1.0f));
    return v16_copysign(v16_where_less(a, v16_set1(1.0f), near, far), x);
}

/* Sixteen elements from the i-th on, f32 or f16. */
static inline v16 v16_element(const void *p, size_t i, int half)
{
    return half ? v16_from_f16((const uint16_t *)p + i) : v16_load((const float *)p + i);
}

#endif
