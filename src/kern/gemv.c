/* Decode products in plain C: rows of weights as they lie in the file times one row of activations.
 *
 * The 8-bit twins take a block apart with the unpacking readers and add, group of 16 after group
 * of 16,   acc += (d_w d_x) isum   and   acc += m_w s_x.   The bodies for other instruction sets keep
 * several partial sums, so they differ in the last bits; each agrees with the exact value to
 * 4e-6 of the sum of the absolute products (the check measures against double). One kernel gives the
 * same bits wherever a row stands in a call, so the number of threads never shows. */
#include "kern/kern.h"
#include "kern/unpack_block.h"

#include <string.h>

static float dot_groups(float acc, const int8_t *wq, const float *wd, const float *wm,
                        const int8_t *q, const float *d, const float *s, size_t n)
{
    for (size_t g = 0; g < n / 16; g++) {
        int sum = 0;
        for (size_t i = 16 * g; i < 16 * g + 16; i++) sum += wq[i] * q[i];
        acc += wd[g] * d[g / 2] * (float)sum;
        acc += wm[g] * s[g];
    }
    return acc;
}

float dot_int_q8_ref(const int8_t *wq, const float *wd, const float *wm, const int8_t *q,
                     const float *d, const float *s, size_t n)
{
    return dot_groups(0.0f, wq, wd, wm, q, d, s, n);
}

/* `zero`: the level of 0 of types without a stored minimum; 0 where the reader gives m. */
#define GEMV(type, block, zero)                                                                    \
    void gemv_##type##_ref(float *y, const void *w, size_t row_bytes, size_t rows,                 \
                           const int8_t *q, const float *d, const float *s, size_t n)              \
    {                                                                                              \
        for (size_t r = 0; r < rows; r++) {                                                        \
            const void *row = (const char *)w + r * row_bytes;                                     \
            const kh_block_##type *from = row;                                                     \
            float acc = 0.0f;                                                                      \
            for (size_t at = 0; at < n; at += block, from++) {                                     \
                int8_t wq[block];                                                                  \
                float wd[block / 16], wm[block / 16] = {0};                                        \
                read_##type(wq, wd, wm, from);                                                     \
                for (int g = 0; zero && g < block / 16; g++) wm[g] = wd[g] * (float)-zero;         \
                acc = dot_groups(acc, wq, wd, wm, q + at, d + at / 32, s + at / 16, block);        \
            }                                                                                      \
            y[r] = acc;                                                                            \
        }                                                                                          \
    }
GEMV(q4_0, 32, 8)
GEMV(q4_1, 32, 0)
GEMV(q5_0, 32, 16)
GEMV(q8_0, 32, 0)
GEMV(q4_k, 256, 0)
GEMV(q6_k, 256, 32)

/* With f32 activations the twin is the plain truth: values as unpacked, products added in double. */
#define GEMV_F32(type, block)                                                                      \
    void gemv_##type##_f32_ref(float *y, const void *w, size_t row_bytes, size_t rows,             \
                               const float *x, const float *sums, size_t n)                        \
    {                                                                                              \
        (void)sums;                                                                                \
        for (size_t r = 0; r < rows; r++) {                                                        \
            const kh_block_##type *from = (const void *)((const char *)w + r * row_bytes);         \
            double acc = 0.0;                                                                      \
            for (size_t at = 0; at < n; at += block, from++) {                                     \
                float wide[block];                                                                 \
                unpack_f32_##type##_ref(wide, from, block);                                        \
                for (size_t i = 0; i < block; i++) acc += (double)wide[i] * (double)x[at + i];     \
            }                                                                                      \
            y[r] = (float)acc;                                                                     \
        }                                                                                          \
    }
GEMV_F32(q4_0, 32)
GEMV_F32(q4_1, 32)
GEMV_F32(q5_0, 32)
GEMV_F32(q8_0, 32)
GEMV_F32(q4_k, 256)
GEMV_F32(q6_k, 256)
GEMV_F32(q5_1, 32)
GEMV_F32(q2_k, 256)
GEMV_F32(q3_k, 256)
GEMV_F32(q5_k, 256)
GEMV_F32(iq4_nl, 32)
GEMV_F32(iq4_xs, 256)

/* Lanes added i with i + 8, then + 4, + 2, + 1: the order of registers. */
void sum_16_ref(float *sums, const float *x, size_t n)
{
    for (size_t g = 0; g < n / 16; g++) {
        float part[16];
        memcpy(part, x + 16 * g, sizeof part);
        for (int step = 8; step > 0; step /= 2)
            for (int i = 0; i < step; i++) part[i] += part[i + step];
        sums[g] = part[0];
    }
}

#define DENSE(type, element, read)                                                                 \
    void gemv_##type##_ref(float *y, const element *w, size_t ldw, size_t rows, const float *x,    \
                           size_t n)                                                               \
    {                                                                                              \
        for (size_t r = 0; r < rows; r++) {                                                        \
            double acc = 0.0;                                                                      \
            for (size_t i = 0; i < n; i++) acc += (double)read(w[r * ldw + i]) * (double)x[i];     \
            y[r] = (float)acc;                                                                     \
        }                                                                                          \
    }
DENSE(f32, float, )
DENSE(f16, uint16_t, kh_f16_to_f32)
DENSE(bf16, uint16_t, kh_bf16_to_f32)
