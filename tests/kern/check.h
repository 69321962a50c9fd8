/* tests/kern/check.h: what the kernel checks share.
 *
 * Every kernel of KH_KERN_LIST that has a body beyond plain C has a function check_<name> here, which
 * compares the kernel of another instruction set with the twin: a kernel without one does not link. */
#ifndef KH_TESTS_KERN_CHECK_H
#define KH_TESTS_KERN_CHECK_H

// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include "kern/kern.h"

#include <stdint.h>

#define CHECK_R(name)
#define CHECK_A(name)                      void check_##name(const kh_kern *ref, const kh_kern *other);
#define CHECK_B(name)                      CHECK_A(name)
#define CHECK_C(name)                      CHECK_A(name)
#define CHECK_PROTO(level, ret, name, arg) CHECK_##level(name)
KH_KERN_LIST(CHECK_PROTO)
#undef CHECK_PROTO

/* Deterministic numbers, the same on every run. */
uint64_t check_random(void);
/* Uniform in [-size, size]. */
float check_uniform(float size);
void check_fill(float *x, size_t n, float size);
void check_fill_bytes(void *x, size_t n);

/* Equal bits, any NaN equal to any other. */
void check_bits(const char *what, const float *a, const float *b, size_t n);
/* |a - b| <= tolerance * size[i]; size NULL: 1. */
void check_near(const char *what, const float *a, const double *b, const double *size, size_t n,
                double tolerance);

/* One q8 row of n inputs of several kinds: 0 random, 1 zeros, 2 all +-127, 3 tiny. */
typedef struct check_q8 {
    int8_t q[4096];
    float d[128], s[256];
} check_q8;
void check_make_q8(const kh_kern *ref, check_q8 *row, size_t n, int kind);

#endif
