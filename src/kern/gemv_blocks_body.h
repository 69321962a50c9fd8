/* kern/gemv_blocks_body.h: the file's blocks times f32 activations, over a levels header that was
 * included before. Levels become f32 lanes, less their zero, without rounding; a group's products are
 * added before its scale is applied, and minima meet the sums of x apart:
 *
 *     t = low * x0;  t = fma(high, x1, t);  acc = fma(d, t, acc);      least += m * (sum of x)
 *
 * Four rows at a time share the loads of x. Scales of blocks of 32 lie 18 to 34 bytes apart as f16; to
 * convert sixteen costs as much as to convert one, and a scale that lies in memory as f32 is broadcast
 * by a load instead of by the crowded port of shuffles. So they are collected by scalar loads and
 * stores, for which the multiplying loop has idle ports, one group of rows before they are needed:
 *
 *     collected: rows 4..7   ->   multiply rows 4..7, collect rows 8..11, ask for rows 12..15
 *
 * (collecting a group's own scales first: 2.2 to 2.7 ns a block instead of 1.9 to 2.2.) Rows wider than
 * SEGMENT blocks take several such steps.
 *
 * Super-blocks with scales of many kinds (Q2_K, Q3_K, Q5_K, Q6_K, IQ4_XS) become bytes and f32 scales on
 * the stack first.
 *
 * Measured on one Skylake server core, 64 MiB of weights, GB/s with AVX-512 and with AVX2: Q4_0 8.2 4.5,
 * Q4_1 8.6 5.4, Q5_0 7.5 3.7, Q5_1 6.0 3.6, Q8_0 11 9.0, Q4_K 7.0 4.8, Q5_K 6.5 5.2, Q6_K 7.8 5.8,
 * IQ4_NL 5.5 2.7, Q2_K 3.5 2.4, Q3_K 3.7 3.1, IQ4_XS 3.8 3.4; rows of f32 reach 11. The 8-bit kernels of
 * the same core: Q4_0 5.7, Q4_1 7.4, Q5_0 5.3, Q8_0 8.9, Q4_K 7.3, Q6_K 8.1.
 * Rejected: activations in 16 bits, a scale for each 32, and integer products (Q4_0): no faster than this
 * with AVX-512. */
#include "kern/kern.h"
#include "kern/read_body.h"

#include <string.h>

enum { SEGMENT = 64 };

typedef struct scales {
    uint16_t half[4][2 * SEGMENT]; /* of the step that comes next: d, or d and m, of each block */
    float wide[4][2 * SEGMENT];    /* of this one */
} scales;

/* What the types of blocks of 32 have in common: where things are. */
typedef struct blocks {
    const char *w;
    size_t row_bytes, bytes; /* of a row, of a block */
    size_t halves;           /* f16 numbers at the beginning of a block: 1 or 2 */
} blocks;

INLINE void collect(scales *s, const blocks *in, size_t b, const int R)
{
    for (int r = 0; r < R; r++)
        memcpy(s->half[r] + in->halves * b, in->w + (size_t)r * in->row_bytes + in->bytes * b,
               2 * in->halves);
}
/* Whole registers; what lies behind the last scale is of no consequence. */
INLINE void widen(scales *s, size_t count, const int R)
{
    for (int r = 0; r < R; r++)
        for (size_t i = 0; i < count; i += 16)
            v16_store(s->wide[r] + i, v16_from_f16(s->half[r] + i));
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

/* Types of blocks of 32: `halves` f16 numbers lead a block (d, or d and m), LEVELS reads `at`. A step is
 * up to SEGMENT blocks of R rows, whose scales were collected; `next` is what comes next, of `more`
 * blocks. */
#define BLOCKS_F32(type, halves, LEVELS)                                                           \
    INLINE void type##_step(v16 *acc, v16 *least, scales *s, const char *w, const char *next,      \
                            size_t row_bytes, const float *x, const float *sums, size_t count,     \
                            size_t more, const int R)                                              \
    {                                                                                              \
        const blocks in = {next, row_bytes, sizeof(kh_block_##type), halves};                      \
        widen(s, halves *count, R);                                                                \
        for (size_t b = 0; b < count; b++) {                                                       \
            v16 x0 = v16_load(x + 32 * b), x1 = v16_load(x + 32 * b + 16);                         \
            collect(s, &in, b < more ? b : 0, R);                                                  \
            for (int r = 0; r < R; r++) {                                                          \
                const kh_block_##type *at = (const void *)(w + (size_t)r * row_bytes);             \
                at += b;                                                                           \
                v16 low, high;                                                                     \
                LEVELS;                                                                            \
                ahead((const char *)at + 8 * row_bytes);                                           \
                v16 t = v16_fma(high, x1, v16_mul(low, x0));                                       \
                acc[r] = v16_fma(v16_set1(s->wide[r][halves * b]), t, acc[r]);                     \
            }                                                                                      \
        }                                                                                          \
        for (size_t b = count; b < more; b++) collect(s, &in, b, R);                               \
        for (size_t b = 0; halves == 2 && b < count; b += 8) {                                     \
            size_t left = count - b < 8 ? 2 * (count - b) : 16;                                    \
            v16 sx = v16_load_n(sums + 2 * b, left);                                               \
            for (int r = 0; r < R; r++)                                                            \
                least[r] = v16_fma(v16_odd(v16_load_n(s->wide[r] + 2 * b, left)), sx, least[r]);   \
        }                                                                                          \
    }                                                                                              \
    INLINE void type##_groups(float *y, const char *w, size_t row_bytes, size_t groups,            \
                              const float *x, const float *sums, size_t n, const int R)            \
    {                                                                                              \
        scales s;                                                                                  \
        size_t all = n / 32, first = all < SEGMENT ? all : SEGMENT;                                \
        memset(s.half, 0, sizeof s.half);                                                          \
        const blocks start = {w, row_bytes, sizeof(kh_block_##type), halves};                      \
        for (size_t b = 0; groups > 0 && b < first; b++) collect(&s, &start, b, R);                \
        for (size_t g = 0; g < groups; g++, w += R * row_bytes, y += R) {                          \
            v16 acc[4], least[4];                                                                  \
            for (int r = 0; r < R; r++) acc[r] = least[r] = v16_zero();                            \
            for (size_t b = 0; b < all; b += SEGMENT) {                                            \
                size_t count = all - b < SEGMENT ? all - b : SEGMENT, left = all - b - count;      \
                const char *at = w + b * sizeof(kh_block_##type);                                  \
                const char *next = left > 0         ? at + SEGMENT * sizeof(kh_block_##type)       \
                                   : g + 1 < groups ? w + R * row_bytes                            \
                                                    : w;                                           \
                type##_step(acc, least, &s, at, next, row_bytes, x + 32 * b, sums + 2 * b, count,  \
                            left == 0        ? first                                               \
                            : left < SEGMENT ? left                                                \
                                             : SEGMENT,                                            \
                            R);                                                                    \
            }                                                                                      \
            for (int r = 0; r < R; r++) y[r] = v16_sum(v16_add(acc[r], least[r]));                 \
        }                                                                                          \
    }                                                                                              \
    void KH_NAME(gemv_##type##_f32)(float *y, const void *w, size_t row_bytes, size_t rows,        \
                                    const float *x, const float *sums, size_t n)                   \
    {                                                                                              \
        size_t fours = rows / 4, r = 4 * fours;                                                    \
        type##_groups(y, w, row_bytes, fours, x, sums, n, 4);                                      \
        type##_groups(y + r, (const char *)w + r * row_bytes, row_bytes, rows - r, x, sums, n, 1); \
    }

BLOCKS_F32(q4_0, 1, level_nibbles(&low, &high, at->qs, 8))
BLOCKS_F32(q4_1, 2, level_nibbles(&low, &high, at->qs, 0))
BLOCKS_F32(q5_0, 1, level_five_bits(&low, &high, at->qh, 16))
BLOCKS_F32(q5_1, 2, level_five_bits(&low, &high, at->qh, 0))
BLOCKS_F32(iq4_nl, 1, level_iq4(&low, &high, at->qs))
BLOCKS_F32(q8_0, 1, low = v16_from_i8(at->qs); high = v16_from_i8(at->qs + 16))

INLINE void q4_k_rows(float *y, const char *w, size_t row_bytes, const float *x, const float *sums,
                      size_t n, const int R)
{
    v16 acc[4];
    __m256 least[4];
    float d[4][16]; /* scales, then minima */
    for (int r = 0; r < R; r++) acc[r] = v16_zero(), least[r] = _mm256_setzero_ps();
    for (size_t b = 0; b < n / 256; b++, w += sizeof(kh_block_q4_k), x += 256) {
        __m256 sx = pair_sums(sums + 16 * b);
        for (int r = 0; r < R; r++) {
            const char *at = w + (size_t)r * row_bytes;
            for (int i = 0; i < 3; i++) ahead(at + 4 * row_bytes + 64 * i);
            k_products(d[r], (const kh_block_q4_k *)(const void *)at);
            least[r] = _mm256_fmadd_ps(_mm256_loadu_ps(d[r] + 8), sx, least[r]);
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

INLINE void q5_k_rows(float *y, const char *w, size_t row_bytes, const float *x, const float *sums,
                      size_t n, const int R)
{
    v16 acc[4];
    __m256 least[4];
    int8_t level[4][256];
    float d[4][16]; /* scales, then minima */
    for (int r = 0; r < R; r++) acc[r] = v16_zero(), least[r] = _mm256_setzero_ps();
    for (size_t b = 0; b < n / 256; b++, w += sizeof(kh_block_q5_k), x += 256) {
        __m256 sx = pair_sums(sums + 16 * b);
        for (int r = 0; r < R; r++) {
            const char *at = w + (size_t)r * row_bytes;
            for (int i = 0; i < 3; i++) ahead(at + 4 * row_bytes + 64 * i);
            k_products(d[r], at);
            least[r] = _mm256_fmadd_ps(_mm256_loadu_ps(d[r] + 8), sx, least[r]);
            level_q5_k(level[r], (const void *)at);
        }
        for (int g = 0; g < 8; g++) {
            v16 x0 = v16_load(x + 32 * g), x1 = v16_load(x + 32 * g + 16);
            for (int r = 0; r < R; r++) {
                v16 t = v16_mul(v16_from_i8(level[r] + 32 * g), x0);
                t = v16_fma(v16_from_i8(level[r] + 32 * g + 16), x1, t);
                acc[r] = v16_fma(v16_set1(d[r][g]), t, acc[r]);
            }
        }
    }
    for (int r = 0; r < R; r++) y[r] = v16_sum(acc[r]) - sum8(least[r]);
}
FOUR_ROWS_F32(q5_k)

/* The less common super-blocks: as bytes and scales, then values times x. */
#define READ_F32(type, minimum)                                                                    \
    INLINE void type##_rows(float *y, const char *w, size_t row_bytes, const float *x,             \
                            const float *sums, size_t n, const int R)                              \
    {                                                                                              \
        v16 acc[4];                                                                                \
        int8_t level[4][256];                                                                      \
        float d[4][16], m[4][16];                                                                  \
        (void)sums;                                                                                \
        for (int r = 0; r < R; r++) acc[r] = v16_zero();                                           \
        for (size_t b = 0; b < n / 256; b++, w += sizeof(kh_block_##type), x += 256) {             \
            for (int r = 0; r < R; r++) {                                                          \
                const char *at = w + (size_t)r * row_bytes;                                        \
                for (size_t i = 0; i < sizeof(kh_block_##type); i += 64)                           \
                    ahead(at + 4 * row_bytes + i);                                                 \
                wide_##type(level[r], d[r], m[r], (const void *)at);                               \
            }                                                                                      \
            for (int g = 0; g < 16; g++) {                                                         \
                v16 xg = v16_load(x + 16 * g);                                                     \
                for (int r = 0; r < R; r++) {                                                      \
                    v16 q = v16_from_i8(level[r] + 16 * g), scale = v16_set1(d[r][g]);             \
                    q = minimum ? v16_fma(scale, q, v16_set1(m[r][g])) : v16_mul(scale, q);        \
                    acc[r] = v16_fma(q, xg, acc[r]);                                               \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
        for (int r = 0; r < R; r++) y[r] = v16_sum(acc[r]);                                        \
    }                                                                                              \
    FOUR_ROWS_F32(type)
READ_F32(q2_k, 1)
READ_F32(q3_k, 0)
READ_F32(iq4_xs, 0)

void KH_NAME(sum_16)(float *sums, const float *x, size_t n)
{
    for (size_t g = 0; g < n / 16; g++) sums[g] = v16_sum(v16_load(x + 16 * g));
}
