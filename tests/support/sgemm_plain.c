/* The library's product by plain loops, for the build in which float is double (tests/support/double.h). */
#include "ops/sgemm.h"

int kh_sgemm_nt(float *y, size_t ldy, const float *x, const float *w, size_t T, size_t rows,
                size_t cols)
{
    for (size_t t = 0; t < T; t++)
        for (size_t r = 0; r < rows; r++) {
            float sum = 0;
            for (size_t c = 0; c < cols; c++) sum += x[t * cols + c] * w[r * cols + c];
            y[t * ldy + r] = sum;
        }
    return 0;
}

int kh_sgemm_nn(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw,
                size_t T, size_t cols, size_t n)
{
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < n; i++)
            for (size_t c = 0; c < cols; c++) y[t * ldy + c] += x[t * ldx + i] * w[i * ldw + c];
    return 0;
}

int kh_sgemm_tn(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw,
                size_t rows, size_t cols, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t r = 0; r < rows; r++)
            for (size_t c = 0; c < cols; c++) y[r * ldy + c] += x[i * ldx + r] * w[i * ldw + c];
    return 0;
}

const char *kh_sgemm_library(void)
{
    return "plain";
}
