/* Panels in plain C: packing, and the twin that defines the prompt product.
 *
 * The sums over integers are exact, so what is left to define is the order of the few f32 steps. For
 * row r of the panel and row t of the activations, group g of 32 inputs after the other:
 *
 *     acc = fma(d_w * d_x, isum, acc)        isum: the sum of q_w q_x over the 32
 *     acc = fma(m_w, s0 + s1, acc)           not for 8 bits, whose types have no minimum
 *
 * and where the halves of a group have scales of their own (KH_PANEL_HALVES)
 *
 *     acc = fma(d0_w * d_x, isum0, acc),  acc = fma(d1_w * d_x, isum1, acc)
 *     acc = fma(m0_w, s0, acc),           acc = fma(m1_w, s1, acc)
 *
 * Every body follows this to the bit. Source of the idea of 16 rows side by side: the packed operand
 * of any blocked matrix product; here a lane is a row, so nothing is ever added across lanes. */
#include "kern/panel.h"
#include "kern/kern.h"

#include <math.h>
#include <string.h>

enum { ROWS = KH_PANEL_ROWS, GROUP = 512 + 4 * 16 * 4 };

void panel_pack_ref(void *panel, const int8_t *q, const float *d, const float *m, size_t n,
                    int bits)
{
    (void)bits;
    for (size_t g = 0; g < n / 32; g++) {
        char *to = (char *)panel + g * GROUP;
        for (int r = 0; r < ROWS; r++) {
            const int8_t *from = q + (size_t)r * n + 32 * g;
            for (int c = 0; c < 8; c++) memcpy(to + c * 64 + r * 4, from + 4 * c, 4);
        }
        float *scale = (float *)(void *)(to + 512), *minimum = scale + 2 * ROWS;
        for (int r = 0; r < ROWS; r++) {
            size_t at = (size_t)r * (n / 16) + 2 * g;
            scale[r] = d[at];
            scale[ROWS + r] = d[at + 1];
            minimum[r] = m[at];
            minimum[ROWS + r] = m[at + 1];
        }
    }
}

/* The sums over the first and the second 16 inputs of row r of a group. */
static void sums(int sum[2], const int8_t *w /* [8][16][4] */, int r, const int8_t *x /* [32] */)
{
    sum[0] = sum[1] = 0;
    for (int i = 0; i < 32; i++) {
        int weight = w[i / 4 * 64 + r * 4 + i % 4];
        sum[i / 16] += weight * x[i];
    }
}

void panel_gemm_ref(float *y, size_t ldy, const void *panel, const int8_t *q, const float *d,
                    const float *s, size_t T, size_t n, int bits)
{
    int halves = bits & KH_PANEL_HALVES, has_minimum = (bits & 15) != 8;
    for (size_t t = 0; t < T; t++) {
        for (int r = 0; r < ROWS; r++) {
            float acc = 0.0f;
            for (size_t g = 0; g < n / 32; g++) {
                const char *at = (const char *)panel + g * GROUP;
                const float *dw = (const float *)(const void *)(at + 512) + r, *mw = dw + 2 * ROWS;
                const float *sx = s + t * (n / 16) + 2 * g;
                float dx = d[t * (n / 32) + g];
                int sum[2];
                sums(sum, (const int8_t *)at, r, q + t * n + 32 * g);
                if (halves) {
                    acc = fmaf(dw[0] * dx, (float)sum[0], acc);
                    acc = fmaf(dw[ROWS] * dx, (float)sum[1], acc);
                    if (has_minimum) acc = fmaf(mw[0], sx[0], acc);
                    if (has_minimum) acc = fmaf(mw[ROWS], sx[1], acc);
                } else {
                    acc = fmaf(dw[0] * dx, (float)(sum[0] + sum[1]), acc);
                    if (has_minimum) acc = fmaf(mw[0], sx[0] + sx[1], acc);
                }
            }
            y[t * ldy + (size_t)r] = acc;
        }
    }
}
