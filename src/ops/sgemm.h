/* ops/sgemm.h: the one dense f32 product that a library does for us. */
#ifndef KH_OPS_SGEMM_H
#define KH_OPS_SGEMM_H

#include <stddef.h>

/* y [T][rows] (rows of y are ldy apart) = x [T][cols] W^T, W [rows][cols], all row-major and dense but
 * for y. Runs on the calling thread alone, inside a parallel region or outside. Returns nonzero when
 * the library could not do it (its memory); y is then undefined. */
int kh_sgemm_nt(float *y, size_t ldy, const float *x, const float *w, size_t T, size_t rows,
                size_t cols);

/* y [T][n] += x [T][k] W [k][n]; rows are ldy, ldx and ldw apart. As above. */
int kh_sgemm_nn(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw,
                size_t T, size_t n, size_t k);
/* y [m][n] += a [k][m]^T b [k][n]; rows are ldy, lda and ldb apart. As above. */
int kh_sgemm_tn(float *y, size_t ldy, const float *a, size_t lda, const float *b, size_t ldb,
                size_t m, size_t n, size_t k);

/* "oneDNN 2.6.3". */
const char *kh_sgemm_library(void);

#endif
