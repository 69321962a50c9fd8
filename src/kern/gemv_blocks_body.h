/* kern/gemv_blocks_body.h: the file's blocks times f32 activations, over a levels header that was
 * included before. Levels become f32 lanes, less their zero, without rounding; a group's products are
 * added before its scale is applied, and minima meet the sums of x apart:
 *
 *     t = low * x0;  t = fma(high, x1, t);  acc = fma(d, t, acc);      least += m * (sum of x)
 *
 * Four rows at a time share the loads of x. The scales of blocks of 32 are collected and converted
 * SEGMENT at a time before they are needed: a conversion of sixteen f16 costs as much as that of one,
 * and a scale that lies in memory as f32 is broadcast by the load port, not by the crowded port of
 * shuffles. The rows that come next are asked for early, as in gemv_quant_body.h. */
#include "kern/kern.h"

#include <string.h>

enum { SEGMENT = 64 };

/* The first `halves` (1 or 2) f16 of R rows' blocks as f32, zeros up to a multiple of 16. All rows are
 * collected before the first is converted, so that the wide loads find the narrow stores done. */
INLINE void gather_scales(float (*d)[2 * SEGMENT], const char *w, size_t row_bytes,
                          size_t block_bytes, size_t blocks, const size_t halves, const int R)
{
    uint16_t half[4][2 * SEGMENT];
    size_t count = blocks * halves, padded = (count + 15) / 16 * 16;
    for (int r = 0; r < R; r++) {
        const char *at = w + (size_t)r * row_bytes;
        for (size_t b = 0; b < blocks; b++)
            memcpy(half[r] + halves * b, at + b * block_bytes, 2 * halves);
        for (size_t i = count; i < padded; i++) half[r][i] = 0;
    }
    for (int r = 0; r < R; r++)
        for (size_t i = 0; i < padded; i += 16) v16_store(d[r] + i, v16_from_f16(half[r] + i));
}

#define FOUR_ROWS_F32(type)                                                                        \
    void KH_NAME(gemv_##type##_f32)(float *y, const void *w, size_t row_bytes, size_t rows,        \
                                    const float *x, const float *sums, size_t n)                   \
    {                                                                                              \
        const char *at = w;                                                                        \
        size_t r = 0;                                                                              \
        for (; r + 4 <= rows; r += 4, at += 4 * row_bytes)                                         \
            type##_rows(y + r, at, row_bytes, x, sums, n, 4);                                      \
        for (; r < rows; r++, at += row_bytes) type##_rows(y + r, at, row_bytes, x, sums, n, 1);   \
    }

/* Types of blocks of 32: `halves` f16 numbers lead a block (d, or d and m), LEVELS reads `at`. */
#define BLOCKS_F32(type, halves, LEVELS)                                                           \
    INLINE void type##_rows(float *y, const char *w, size_t row_bytes, const float *x,             \
                            const float *sums, size_t n, const int R)                              \
    {                                                                                              \
        v16 acc[4], least[4];                                                                      \
        float d[4][2 * SEGMENT];                                                                   \
        for (int r = 0; r < R; r++) acc[r] = least[r] = v16_zero();                                \
        for (size_t first = 0; first < n / 32; first += SEGMENT) {                                 \
            size_t blocks = n / 32 - first < SEGMENT ? n / 32 - first : SEGMENT;                   \
            const kh_block_##type *block = (const kh_block_##type *)(const void *)w + first;       \
            gather_scales(d, (const char *)block, row_bytes, sizeof *block, blocks, halves, R);    \
            for (size_t b = 0; b < blocks; b++, block++) {                                         \
                const float *xb = x + 32 * (first + b);                                            \
                v16 x0 = v16_load(xb), x1 = v16_load(xb + 16);                                     \
                for (int r = 0; r < R; r++) {                                                      \
                    const kh_block_##type *at =                                                    \
                        (const void *)((const char *)block + (size_t)r * row_bytes);               \
                    v16 low, high;                                                                 \
                    LEVELS;                                                                        \
                    ahead((const char *)at + 4 * row_bytes);                                       \
                    v16 t = v16_fma(high, x1, v16_mul(low, x0));                                   \
                    acc[r] = v16_fma(v16_set1(d[r][halves * b]), t, acc[r]);                       \
                }                                                                                  \
            }                                                                                      \
            for (size_t b = 0; halves == 2 && b < blocks; b += 8) {                                \
                size_t left = blocks - b < 8 ? blocks - b : 8;                                     \
                v16 s = v16_load_n(sums + 2 * (first + b), 2 * left);                              \
                for (int r = 0; r < R; r++)                                                        \
                    least[r] = v16_fma(v16_odd(v16_load(d[r] + 2 * b)), s, least[r]);              \
            }                                                                                      \
        }                                                                                          \
        for (int r = 0; r < R; r++) y[r] = v16_sum(v16_add(acc[r], least[r]));                     \
    }                                                                                              \
    FOUR_ROWS_F32(type)

BLOCKS_F32(q4_0, 1, level_nibbles(&low, &high, at->qs, 8))
BLOCKS_F32(q4_1, 2, level_nibbles(&low, &high, at->qs, 0))
BLOCKS_F32(q5_0, 1, level_q5_0(&low, &high, at))
BLOCKS_F32(q8_0, 1, low = v16_from_i8(at->qs); high = v16_from_i8(at->qs + 16))

INLINE void q4_k_rows(float *y, const char *w, size_t row_bytes, const float *x, const float *sums,
                      size_t n, const int R)
{
    v16 acc[4];
    __m256 least[4];
    float d[4][8], m[8];
    for (int r = 0; r < R; r++) acc[r] = v16_zero(), least[r] = _mm256_setzero_ps();
    for (size_t b = 0; b < n / 256; b++, w += sizeof(kh_block_q4_k), x += 256) {
        __m256 sx = pair_sums(sums + 16 * b);
        for (int r = 0; r < R; r++) {
            const char *at = w + (size_t)r * row_bytes;
            for (int i = 0; i < 3; i++) ahead(at + 4 * row_bytes + 64 * i);
            k_products(d[r], m, (const kh_block_q4_k *)(const void *)at);
            least[r] = _mm256_fmadd_ps(_mm256_loadu_ps(m), sx, least[r]);
        }
        for (int part = 0; part < 4; part++) {
            const float *xp = x + 64 * part;
            v16 x0 = v16_load(xp), x1 = v16_load(xp + 16);
            v16 x2 = v16_load(xp + 32), x3 = v16_load(xp + 48);
            for (int r = 0; r < R; r++) {
                const kh_block_q4_k *at = (const void *)(w + (size_t)r * row_bytes);
                v16 l0, l1, h0, h1;
                level_nibbles(&l0, &h0, at->qs + 32 * part, 0);
                level_nibbles(&l1, &h1, at->qs + 32 * part + 16, 0);
                v16 t = v16_fma(l1, x1, v16_mul(l0, x0)), u = v16_fma(h1, x3, v16_mul(h0, x2));
                acc[r] = v16_fma(v16_set1(d[r][2 * part]), t, acc[r]);
                acc[r] = v16_fma(v16_set1(d[r][2 * part + 1]), u, acc[r]);
            }
        }
    }
    for (int r = 0; r < R; r++) y[r] = v16_sum(acc[r]) - sum8(least[r]);
}
FOUR_ROWS_F32(q4_k)

INLINE void q6_k_rows(float *y, const char *w, size_t row_bytes, const float *x, const float *sums,
                      size_t n, const int R)
{
    v16 acc[4];
    int8_t level[4][256];
    float d[4][16];
    (void)sums;
    for (int r = 0; r < R; r++) acc[r] = v16_zero();
    for (size_t b = 0; b < n / 256; b++, w += sizeof(kh_block_q6_k), x += 256) {
        for (int r = 0; r < R; r++) {
            const kh_block_q6_k *at = (const void *)(w + (size_t)r * row_bytes);
            for (int i = 0; i < 4; i++) ahead((const char *)at + 4 * row_bytes + 64 * i);
            v16 scale = v16_set1(_mm_cvtss_f32(one_half(&at->d)));
            v16_store(d[r], v16_mul(scale, v16_from_i8(at->scales)));
            level_q6_k(level[r], at);
        }
        for (int g = 0; g < 16; g++) {
            v16 xg = v16_load(x + 16 * g);
            for (int r = 0; r < R; r++) {
                v16 t = v16_mul(v16_from_i8(level[r] + 16 * g), xg);
                acc[r] = v16_fma(v16_set1(d[r][g]), t, acc[r]);
            }
        }
    }
    for (int r = 0; r < R; r++) y[r] = v16_sum(acc[r]);
}
FOUR_ROWS_F32(q6_k)

void KH_NAME(sum_16)(float *sums, const float *x, size_t n)
{
    for (size_t g = 0; g < n / 16; g++) sums[g] = v16_sum(v16_load(x + 16 * g));
}
