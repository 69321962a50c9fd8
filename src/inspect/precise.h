/* inspect/precise.h: products of short vectors of f32 in double: what is told to people is not rounded on the way. */
#ifndef KH_INSPECT_PRECISE_H
#define KH_INSPECT_PRECISE_H

#include <math.h>
#include <stddef.h>

static inline double kh_dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

static inline double kh_length_of(const float *x, size_t n)
{
    return sqrt(kh_dot(x, x, n));
}

#endif
