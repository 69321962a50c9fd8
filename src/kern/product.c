/* The prompt product in f32, plain C: panels of 16 weight rows against T tokens.
 *
 * The order of rounding is the contract: for each part of kh_product_depth inputs a sum of fused
 * products in ascending order that starts from 0, and the parts' sums added in order: to each other, or
 * (product_gemm_add) to what y holds. */
#include "kern/kern.h"
#include "kern/panel.h"

#include <math.h>

void product_pack_ref(float *to, size_t lanes, const float *from, size_t rows, size_t n)
{
    for (size_t k = 0; k < n; k++)
        for (size_t r = 0; r < lanes; r++) to[k * lanes + r] = r < rows ? from[r * n + k] : 0.0f;
}

static void product(float *y, const float *panel, const float *x, size_t n, int add)
{
    size_t depth = kh_product_depth(n);
    for (size_t first = 0; first < n; first += depth) {
        size_t end = n - first < depth ? n : first + depth;
        float part = 0.0f;
        for (size_t k = first; k < end; k++)
            part = fmaf(x[KH_PRODUCT_TILE * k], panel[16 * k], part);
        *y = add || first ? *y + part : part;
    }
}

void product_gemm_ref(float *y, size_t ldy, const float *panels, size_t rows, const float *tiles,
                      size_t T, size_t n)
{
    for (size_t t = 0; t < T; t++)
        for (size_t r = 0; r < rows; r++)
            product(y + t * ldy + r, panels + r / 16 * 16 * n + r % 16,
                    tiles + t / KH_PRODUCT_TILE * KH_PRODUCT_TILE * n + t % KH_PRODUCT_TILE, n, 0);
}

void product_gemm_add_ref(float *y, size_t ldy, const float *panels, size_t rows,
                          const float *tiles, size_t T, size_t n)
{
    for (size_t t = 0; t < T; t++)
        for (size_t r = 0; r < rows; r++)
            product(y + t * ldy + r, panels + r / 16 * 16 * n + r % 16,
                    tiles + t / KH_PRODUCT_TILE * KH_PRODUCT_TILE * n + t % KH_PRODUCT_TILE, n, 1);
}
