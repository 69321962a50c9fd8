/* Dense f32 products through oneDNN, the only file that knows it: the independent way to a product
 * (`--compute f32`), and the way on processors for which there are no kernels of ours.
 *
 * Measured on one AVX-512 core: 209-218 of 237 GFLOP/s on whole matrices, OpenBLAS of the same system
 * half of that; on 64 rows against 512 tokens 87-105 of 153, which is why our own panels exist. oneDNN runs on OpenMP and would start a team of its own where it
 * is called outside a parallel region (a pool of one thread), so its team is held at one for the call:
 * threads are ours to hand out, and fixed chunks on single threads make results independent of their
 * number.
 *
 * Its generated kernels point the stack register at a block of the heap while they run. A signal
 * handler would be run on that "stack" and write in front of the block (seen under the address
 * sanitizer, oneDNN 2.6.3), so signals wait on this thread until the product is done. */
#include "ops/sgemm.h"

#include "cpu/pool.h"

#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_version.h>
#include <pthread.h>
#include <signal.h>

typedef struct matrix {
    char turned; /* 'T' or 'N' */
    const float *data;
    size_t ld;
} matrix;

/* y [m][n] = beta y + a b. */
static int multiply(float *y, size_t ldy, float beta, matrix a, matrix b, size_t m, size_t n,
                    size_t k)
{
    sigset_t all, mask;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &mask);
    int before = kh_pool_library_threads(1);
    dnnl_status_t status = dnnl_sgemm(a.turned, b.turned, (dnnl_dim_t)m, (dnnl_dim_t)n,
                                      (dnnl_dim_t)k, 1.0f, a.data, (dnnl_dim_t)a.ld, b.data,
                                      (dnnl_dim_t)b.ld, beta, y, (dnnl_dim_t)ldy);
    kh_pool_library_threads(before);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    return status != dnnl_success;
}

int kh_sgemm_nt(float *y, size_t ldy, const float *x, const float *w, size_t T, size_t rows,
                size_t cols)
{
    return multiply(y, ldy, 0.0f, (matrix){'N', x, cols}, (matrix){'T', w, cols}, T, rows, cols);
}

int kh_sgemm_nn(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw,
                size_t T, size_t n, size_t k)
{
    return multiply(y, ldy, 1.0f, (matrix){'N', x, ldx}, (matrix){'N', w, ldw}, T, n, k);
}

int kh_sgemm_tn(float *y, size_t ldy, const float *a, size_t lda, const float *b, size_t ldb,
                size_t m, size_t n, size_t k)
{
    return multiply(y, ldy, 1.0f, (matrix){'T', a, lda}, (matrix){'N', b, ldb}, m, n, k);
}

const char *kh_sgemm_library(void)
{
#define TEXT(x)  #x
#define VALUE(x) TEXT(x)
    return "oneDNN " VALUE(DNNL_VERSION_MAJOR) "." VALUE(DNNL_VERSION_MINOR) "." VALUE(
        DNNL_VERSION_PATCH);
#undef VALUE
#undef TEXT
}
