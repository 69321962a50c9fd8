/* kern/gemv_dense_body.h: dense rows times a vector over a vector header that was included before.
 * Four rows share the loads of x; two accumulators a row hide the latency of fma, and
 * the rows that come next are asked for early (measured: rows of a few hundred bytes are too short for
 * the processor to guess). */
#include "kern/kern.h"

#define DENSE(type, element, read, narrow)                                                         \
    static inline __attribute__((always_inline)) void type##_rows(                                 \
        float *y, const element *w, size_t ldw, const float *x, size_t n, const int R)             \
    {                                                                                              \
        v16 a[4], b[4];                                                                            \
        for (int r = 0; r < R; r++) a[r] = b[r] = v16_zero();                                      \
        size_t i = 0;                                                                              \
        for (; i + 32 <= n; i += 32) {                                                             \
            v16 x0 = v16_load(x + i), x1 = v16_load(x + i + 16);                                   \
            for (int r = 0; r < R; r++) {                                                          \
                const element *row = w + (size_t)r * ldw + i;                                      \
                _mm_prefetch((const char *)(row + 4 * ldw), _MM_HINT_T0);                          \
                _mm_prefetch((const char *)(row + 4 * ldw + 16), _MM_HINT_T0);                     \
                a[r] = v16_fma(read(row), x0, a[r]);                                               \
                b[r] = v16_fma(read(row + 16), x1, b[r]);                                          \
            }                                                                                      \
        }                                                                                          \
        for (int r = 0; r < R; r++) {                                                              \
            float sum = v16_sum(v16_add(a[r], b[r]));                                              \
            for (size_t j = i; j < n; j++) sum = fmaf(narrow(w[(size_t)r * ldw + j]), x[j], sum);  \
            y[r] = sum;                                                                            \
        }                                                                                          \
    }                                                                                              \
    void KH_NAME(gemv_##type)(float *y, const element *w, size_t ldw, size_t rows, const float *x, \
                              size_t n)                                                            \
    {                                                                                              \
        size_t r = 0;                                                                              \
        for (; r + 4 <= rows; r += 4) type##_rows(y + r, w + r * ldw, ldw, x, n, 4);               \
        for (; r < rows; r++) type##_rows(y + r, w + r * ldw, ldw, x, n, 1);                       \
    }

DENSE(f32, float, v16_load, )
DENSE(f16, uint16_t, v16_from_f16, kh_f16_to_f32)
DENSE(bf16, uint16_t, v16_from_bf16, kh_bf16_to_f32)
