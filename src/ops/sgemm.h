/* ops/sgemm.h: the one dense f32 product that a library does for us. */
#ifndef KH_OPS_SGEMM_H
#define KH_OPS_SGEMM_H

#include <stddef.h>

/* y [T][rows] (rows of y are ldy apart) = x [T][cols] W^T, W [rows][cols], all row-major and dense but
 * for y. Runs on the calling thread alone, inside a parallel region or outside. Returns nonzero when
 * the library could not do it (its memory); y is then undefined. */
int kh_sgemm_nt(float *y, size_t ldy, const float *x, const float *w, size_t T, size_t rows,
                size_t cols);

/* "oneDNN 2.6.3". */
const char *kh_sgemm_library(void);

#endif
