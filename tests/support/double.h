/* tests/support/double.h: compiled in front of every source of the second build of the library, in which
 * `float` is double, so that gradients can be compared with finite differences. What really is in 32 bits (the C
 * library's functions, tensor/half.h) is included before the word changes its meaning. */
#ifndef KH_TESTS_DOUBLE_H
#define KH_TESTS_DOUBLE_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tensor/half.h"

#define KH_DOUBLE 1
#define float double

#define ceilf      ceil
#define cosf       cos
#define erff       erf
#define exp2f      exp2
#define expf       exp
#define fabsf      fabs
#define floorf     floor
#define fmaf       fma
#define fmaxf      fmax
#define fminf      fmin
#define ldexpf     ldexp
#define log2f      log2
#define logf       log
#define lrintf     lrint
#define nextafterf nextafter
#define powf       pow
#define roundf     round
#define sinf       sin
#define sqrtf      sqrt
#define strtof     strtod
#define tanhf      tanh

#undef FLT_MAX
#undef FLT_MIN
#undef FLT_EPSILON
#define FLT_MAX     DBL_MAX
#define FLT_MIN     DBL_MIN
#define FLT_EPSILON DBL_EPSILON

#endif
