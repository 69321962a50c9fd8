/* kern/gemv_quant_body.h: the quantised decode products over 256-bit registers. Defined before:
 *
 *     NAME(kernel)       the kernel's name on this instruction set
 *     dot_us(u, x)       i32 lanes of four products each: unsigned u8 levels times s8 activations
 *
 * A block of 32 weights is one register of bytes against 32 bytes of activations; lane j of the sums
 * holds four products, so every lane gets the block's scale and one fma adds the block. Four rows at a
 * time share the loads of x. Minima ride along in lanes of their own:
 *
 *     (d_w, m_w) * (d_x, s_x)   ->   lane 0 is the scale of the fma, lane 1 is summed up by itself
 *
 * The rows that come next are asked for early: rows of a few hundred bytes are too short for the
 * processor to guess, and without this every kernel here reads memory at half the speed (measured on a
 * Skylake server core, 64 MiB of weights: 5.2 against 10.1 GB/s for Q8_0, 4.3 against 8.0 for Q4_K).
 *
 * The K types gather the eight scales of a super-block in one register and spread lane by lane. */
#include "kern/block_avx2.h"
#include "kern/kern.h"

#include <math.h>

INLINE __m256i dot_ss(__m256i w, __m256i x)
{
    return dot_us(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
}
INLINE __m256 add_block(__m256 acc, __m128 scale, __m256i sums)
{
    return _mm256_fmadd_ps(_mm256_broadcastss_ps(scale), _mm256_cvtepi32_ps(sums), acc);
}

/* Types of blocks of 32: DM gives (d_w, m_w), PAIR (d_x, s_x), DOT the sums of a block. */
#define BLOCKS_OF_32(type, DM, PAIR, DOT)                                                          \
    INLINE void type##_rows(float *y, const char *w, size_t row_bytes, const int8_t *q,            \
                            const float *d, const float *s, size_t n, const int R)                 \
    {                                                                                              \
        __m256 acc[4];                                                                             \
        __m128 least[4];                                                                           \
        for (int r = 0; r < R; r++) acc[r] = _mm256_setzero_ps();                                  \
        for (int r = 0; r < R; r++) least[r] = _mm_setzero_ps();                                   \
        for (size_t b = 0; b < n / 32; b++) {                                                      \
            __m256i x = load32(q + 32 * b);                                                        \
            __m128 pair = PAIR;                                                                    \
            for (int r = 0; r < R; r++) {                                                          \
                const kh_block_##type *at = (const void *)(w + (size_t)r * row_bytes);             \
                at += b;                                                                           \
                ahead((const char *)at + 4 * row_bytes);                                           \
                __m128 scale = _mm_mul_ps(DM, pair);                                               \
                least[r] = _mm_add_ps(least[r], scale);                                            \
                acc[r] = add_block(acc[r], scale, DOT);                                            \
            }                                                                                      \
        }                                                                                          \
        for (int r = 0; r < R; r++) y[r] = sum8(acc[r]) + lane1(least[r]);                         \
    }                                                                                              \
    FOUR_ROWS(type)

#define FOUR_ROWS(type)                                                                            \
    void NAME(gemv_##type)(float *y, const void *w, size_t row_bytes, size_t rows,                 \
                           const int8_t *q, const float *d, const float *s, size_t n)              \
    {                                                                                              \
        const char *at = w;                                                                        \
        size_t r = 0;                                                                              \
        for (; r + 4 <= rows; r += 4, at += 4 * row_bytes)                                         \
            type##_rows(y + r, at, row_bytes, q, d, s, n, 4);                                      \
        for (; r < rows; r++, at += row_bytes) type##_rows(y + r, at, row_bytes, q, d, s, n, 1);   \
    }

INLINE __m128 pair_of(float dx, float sx)
{
    return _mm_unpacklo_ps(_mm_set_ss(dx), _mm_set_ss(sx));
}

#ifndef WIDE_Q4_1 /* gemv_q4_1_wide.h takes it over */
BLOCKS_OF_32(q4_1, two_halves(&at->d), pair_of(d[b], s[2 * b] + s[2 * b + 1]),
             dot_us(nibbles(at->qs), x))
#endif
BLOCKS_OF_32(q4_0, one_half(&at->d), pair_of(d[b], -8.0f * (s[2 * b] + s[2 * b + 1])),
             dot_us(nibbles(at->qs), x))
BLOCKS_OF_32(q5_0, one_half(&at->d), pair_of(d[b], -16.0f * (s[2 * b] + s[2 * b + 1])),
             dot_us(five_bits(at->qh), x))
BLOCKS_OF_32(q8_0, one_half(&at->d), ((void)s, pair_of(d[b], 0.0f)), dot_ss(load32(at->qs), x))

/* Lane i of x in every lane. */
INLINE __m256 lane(__m256 x, int i)
{
    return _mm256_permutevar8x32_ps(x, _mm256_set1_epi32(i));
}
INLINE void q4_k_rows(float *y, const char *w, size_t row_bytes, const int8_t *q, const float *d,
                      const float *s, size_t n, const int R)
{
    __m256 acc[4], least[4];
    for (int r = 0; r < R; r++) acc[r] = least[r] = _mm256_setzero_ps();
    for (size_t b = 0; b < n / 256; b++) {
        const int8_t *x = q + 256 * b;
        __m256 dx = _mm256_loadu_ps(d + 8 * b), sx = pair_sums(s + 16 * b);
        for (int r = 0; r < R; r++) {
            const kh_block_q4_k *at = (const void *)(w + (size_t)r * row_bytes);
            at += b;
            for (int i = 0; i < 3; i++) ahead((const char *)at + 4 * row_bytes + 64 * i);
            __m128 dm = two_halves(&at->d);
            __m128i sc = k_scales(at->scales);
            __m256 scale = _mm256_mul_ps(_mm256_broadcastss_ps(dm), bytes_f32(sc));
            __m256 minimum = _mm256_mul_ps(_mm256_set1_ps(lane1(dm)),
                                           bytes_f32(_mm_unpackhi_epi64(sc, sc)));
            least[r] = _mm256_fmadd_ps(minimum, sx, least[r]);
            scale = _mm256_mul_ps(scale, dx);
            for (int part = 0; part < 4; part++) {
                __m256i v = load32(at->qs + 32 * part), mask = _mm256_set1_epi8(15);
                __m256i lo = _mm256_and_si256(v, mask);
                __m256i hi = _mm256_and_si256(_mm256_srli_epi16(v, 4), mask);
                lo = dot_us(lo, load32(x + 64 * part));
                hi = dot_us(hi, load32(x + 64 * part + 32));
                acc[r] = _mm256_fmadd_ps(lane(scale, 2 * part), _mm256_cvtepi32_ps(lo), acc[r]);
                acc[r] = _mm256_fmadd_ps(lane(scale, 2 * part + 1), _mm256_cvtepi32_ps(hi), acc[r]);
            }
        }
    }
    for (int r = 0; r < R; r++) y[r] = sum8(_mm256_sub_ps(acc[r], least[r]));
}
FOUR_ROWS(q4_k)

/* Scales serve 16 elements: 16-bit sums of pairs are multiplied by the scale of their half before
 * they widen (2 * 63 * 127 * 128 < 2^21, times 8 lanes is far from 2^31). */
INLINE void q6_k_rows(float *y, const char *w, size_t row_bytes, const int8_t *q, const float *d,
                      const float *s, size_t n, const int R)
{
    __m256 acc[4], zero[4];
    for (int r = 0; r < R; r++) acc[r] = zero[r] = _mm256_setzero_ps();
    for (size_t b = 0; b < n / 256; b++) {
        const int8_t *x = q + 256 * b;
        for (int r = 0; r < R; r++) {
            const kh_block_q6_k *at = (const void *)(w + (size_t)r * row_bytes);
            at += b;
            for (int i = 0; i < 4; i++) ahead((const char *)at + 4 * row_bytes + 64 * i);
            __m256 dw = _mm256_broadcastss_ps(one_half(&at->d));
            __m128i sc = _mm_loadu_si128((const __m128i *)(const void *)at->scales);
            __m256 sum = _mm256_mul_ps(bytes_f32(sc), _mm256_loadu_ps(s + 16 * b));
            __m256 more = bytes_f32(_mm_unpackhi_epi64(sc, sc));
            sum = _mm256_fmadd_ps(more, _mm256_loadu_ps(s + 16 * b + 8), sum);
            zero[r] = _mm256_fmadd_ps(_mm256_mul_ps(dw, _mm256_set1_ps(32.0f)), sum, zero[r]);
            __m256 scale = _mm256_mul_ps(dw, _mm256_loadu_ps(d + 8 * b));
            __m256i both = _mm256_broadcastsi128_si256(sc);
            for (int g = 0; g < 8; g++) {
                /* scale 2g for the low half of the register, 2g + 1 for the high one */
                __m256i pick = _mm256_setr_m128i(_mm_set1_epi8((char)(2 * g)),
                                                 _mm_set1_epi8((char)(2 * g + 1)));
                __m256i factor = _mm256_srai_epi16(_mm256_shuffle_epi8(both, pick), 8);
                __m256i pairs = _mm256_maddubs_epi16(six_bits(at, g / 4, g % 4),
                                                     load32(x + 32 * g));
                __m256 sums = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, factor));
                acc[r] = _mm256_fmadd_ps(lane(scale, g), sums, acc[r]);
            }
        }
    }
    for (int r = 0; r < R; r++) y[r] = sum8(_mm256_sub_ps(acc[r], zero[r]));
}
FOUR_ROWS(q6_k)

float NAME(dot_int_q8)(const int8_t *wq, const float *wd, const float *wm, const int8_t *q,
                       const float *d, const float *s, size_t n)
{
    __m256 acc = _mm256_setzero_ps(), least = _mm256_setzero_ps();
    size_t g = 0;
    for (; g < n / 32; g++) {
        __m256i sums = dot_ss(load32(wq + 32 * g), load32(q + 32 * g));
        __m256 scale = _mm256_setr_m128(_mm_set1_ps(wd[2 * g]), _mm_set1_ps(wd[2 * g + 1]));
        scale = _mm256_mul_ps(scale, _mm256_set1_ps(d[g]));
        acc = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(sums), acc);
    }
    float tail = 0.0f;
    for (g = 0; g + 8 <= n / 16; g += 8)
        least = _mm256_fmadd_ps(_mm256_loadu_ps(wm + g), _mm256_loadu_ps(s + g), least);
    for (; g < n / 16; g++) tail = fmaf(wm[g], s[g], tail);
    return sum8(_mm256_add_ps(acc, least)) + tail;
}
