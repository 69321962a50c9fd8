/* The plain C twins of the attention kernels: what kern/attn_kern.h says, one scalar at a time.
 *
 * Order is the contract: a score is a chain of fma over e ascending, a mixed value a chain over keys
 * ascending, so the vector bodies (attn_body.h), which hold many chains side by side, give the same
 * bits. Only exp differs: here it is the C library's.
 *
 * The twins are also what runs on a processor without AVX2; fmaf may be a library call there. */
#include "kern/attn_kern.h"
#include "kern/kern.h"
#include "tensor/half.h"
#include "tensor/types.h"

#include <math.h>
#include <string.h>

void kv_f16_ref(uint16_t *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = kh_f32_to_f16(x[i]);
}

static uint16_t half_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return h;
}

void kv_key_f32_ref(float *panels, const void *page, int type, size_t E, size_t keys)
{
    size_t n = (keys + KH_PANEL - 1) / KH_PANEL * KH_PANEL * E;
    if (type == KH_TYPE_F32) {
        memcpy(panels, page, n * sizeof *panels);
    } else if (type == KH_TYPE_F16) {
        const uint16_t *half = page;
        for (size_t i = 0; i < n; i++) panels[i] = kh_f16_to_f32(half[i]);
    } else {
        const uint8_t *p = page;
        for (size_t block = 0; block < n / (32 * KH_PANEL); block++) {
            const int8_t *q = (const int8_t *)(p + 2 * KH_PANEL);
            for (size_t i = 0; i < 32 * KH_PANEL; i++)
                *panels++ = kh_f16_to_f32(half_at(p + 2 * (i % KH_PANEL))) * (float)q[i];
            p += 2 * KH_PANEL + 32 * KH_PANEL;
        }
    }
}

void kv_value_f32_ref(float *rows, const void *page, int type, size_t E, size_t keys)
{
    size_t n = keys * E;
    if (type == KH_TYPE_F32) {
        memcpy(rows, page, n * sizeof *rows);
    } else if (type == KH_TYPE_F16) {
        const uint16_t *half = page;
        for (size_t i = 0; i < n; i++) rows[i] = kh_f16_to_f32(half[i]);
    } else {
        const kh_block_q8_0 *b = page;
        for (size_t i = 0; i < n; i++)
            rows[i] = kh_f16_to_f32(b[i / 32].d) * (float)b[i / 32].qs[i % 32];
    }
}

void score_panel_ref(float *scores, size_t lds, const float *q, size_t ldq, size_t R,
                     const float *panels, size_t panel_count, size_t E)
{
    for (size_t r = 0; r < R; r++)
        for (size_t p = 0; p < panel_count; p++)
            for (size_t i = 0; i < KH_PANEL; i++) {
                float sum = 0;
                for (size_t e = 0; e < E; e++)
                    sum = fmaf(q[r * ldq + e], panels[(p * E + e) * KH_PANEL + i], sum);
                scores[r * lds + p * KH_PANEL + i] = sum;
            }
}

void score_panel_f16_ref(float *scores, size_t lds, const float *q, size_t ldq, size_t R,
                         const uint16_t *panels, size_t panel_count, size_t E)
{
    for (size_t r = 0; r < R; r++)
        for (size_t p = 0; p < panel_count; p++)
            for (size_t i = 0; i < KH_PANEL; i++) {
                float sum = 0;
                for (size_t e = 0; e < E; e++)
                    sum = fmaf(q[r * ldq + e], kh_f16_to_f32(panels[(p * E + e) * KH_PANEL + i]),
                               sum);
                scores[r * lds + p * KH_PANEL + i] = sum;
            }
}

void filter_rows_ref(float *values, uint32_t *indices, size_t ldc, uint32_t *counts,
                     const float *scores, size_t lds, const float *thresholds, size_t R, size_t n,
                     uint32_t first_index)
{
    for (size_t r = 0; r < R; r++) {
        size_t at = r * ldc + counts[r];
        for (size_t i = 0; i < n; i++)
            if (scores[r * lds + i] > thresholds[r]) {
                values[at] = scores[r * lds + i];
                indices[at++] = first_index + (uint32_t)i;
            }
        counts[r] = (uint32_t)(at - r * ldc);
    }
}

void filter_back_rows_ref(float *values, uint32_t *indices, size_t ldc, uint32_t *counts,
                          const float *scores, size_t lds, const float *thresholds, size_t R,
                          size_t n, uint32_t first_index, size_t seen)
{
    (void)seen;
    for (size_t r = 0; r < R; r++)
        for (size_t i = n; i-- > 0;)
            if (scores[r * lds + i] >= thresholds[r]) {
                size_t back = ++counts[r];
                values[(ptrdiff_t)(r * ldc) - (ptrdiff_t)back] = scores[r * lds + i];
                indices[(ptrdiff_t)(r * ldc) - (ptrdiff_t)back] = first_index + (uint32_t)i;
            }
}

size_t count_at_least_ref(const float *values, size_t n, float threshold)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += values[i] >= threshold;
    return count;
}

size_t keep_best_ref(float *values, uint32_t *indices, size_t n, float threshold, size_t ties)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        int tie = values[i] == threshold && ties > 0;
        ties -= (size_t)tie;
        if (!tie && !(values[i] > threshold)) continue;
        values[kept] = values[i];
        indices[kept++] = indices[i];
    }
    return kept;
}

float row_max_ref(const float *x, size_t n)
{
    float best = -INFINITY;
    for (size_t i = 0; i < n; i++) best = x[i] > best ? x[i] : best;
    return best;
}

float row_min_ref(const float *x, size_t n)
{
    float best = INFINITY;
    for (size_t i = 0; i < n; i++) best = x[i] < best ? x[i] : best;
    return best;
}

float exp_sum_ref(float *y, const float *x, size_t n, float scale, float shift)
{
    float lane[16] = {0};
    for (size_t i = 0; i < n; i++) {
        float t = x[i] * scale - shift;
        y[i] = t > -104.5f ? expf(t) : 0.0f;
        lane[i % 16] += y[i];
    }
    for (size_t half = 8; half > 0; half /= 2)
        for (size_t i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

static float tail_power(float y)
{
    if (!(y > 0) || y >= 0x1p31f) return 0;
    return kh_f32_from_bits((uint32_t)lrintf(y));
}

static int tail_row(float *sums, const float *s, size_t n, float scale, float shift)
{
    float a = scale * (KH_LOG2_E * KH_TAIL_UNIT), b = (127 - shift) * KH_TAIL_UNIT, part[16];
    memcpy(part, sums, sizeof part);
    for (size_t i = 0; i < n; i++) {
        float y = fmaf(s[i], a, b);
        if (y > KH_TAIL_MOST) return 0;
        float e = tail_power(y);
        float f = kh_f32_from_bits((kh_f32_bits(e) & 0x007fffff) | 0x3f800000);
        float p = fmaf(fmaf(fmaf(KH_TAIL_C3, f, KH_TAIL_C2), f, KH_TAIL_C1), f, KH_TAIL_C0);
        part[i % 16] = fmaf(e, p, part[i % 16]);
    }
    memcpy(sums, part, sizeof part);
    return 1;
}

void tail_rows_ref(float *sums, float *shifts, const float *scores, size_t lds, size_t R, size_t n,
                   float scale)
{
    for (size_t r = 0; r < R; r++) {
        const float *s = scores + r * lds;
        while (!(shifts[r] > -INFINITY && tail_row(sums + 16 * r, s, n, scale, shifts[r]))) {
            float next = ceilf(row_max_ref(s, n) * scale * KH_LOG2_E), old = shifts[r];
            if (!(next > old)) break;
            shifts[r] = next;
            for (size_t i = 0; i < 16; i++)
                sums[16 * r + i] = ldexpf(sums[16 * r + i],
                                          old - next > -250 ? (int)(old - next) : -250);
        }
    }
}

void softmax_rows_ref(float *scores, size_t lds, float *m, float *u, float *alpha, size_t R,
                      size_t n, float scale)
{
    for (size_t r = 0; r < R; r++) {
        float *s = scores + r * lds, old = m[r], top = row_max_ref(s, n) * scale;
        m[r] = top > old ? top : old;
        alpha[r] = m[r] == old ? 1.0f : expf(old - m[r]);
        /* a shift of 0 turns scores of -inf into weights of 0 without computing inf - inf */
        u[r] = u[r] * alpha[r] + exp_sum_ref(s, s, n, scale, m[r] > -INFINITY ? m[r] : 0.0f);
    }
}

void mix_rows_ref(float *out, size_t ldo, const float *alpha, const float *weights, size_t ldw,
                  size_t R, const float *values, size_t keys, size_t E)
{
    for (size_t r = 0; r < R; r++)
        for (size_t e = 0; e < E; e++) {
            float sum = out[r * ldo + e] * alpha[r];
            for (size_t j = 0; j < keys; j++)
                sum = fmaf(weights[r * ldw + j], values[j * E + e], sum);
            out[r * ldo + e] = sum;
        }
}

void mix_rows_f16_ref(float *out, size_t ldo, const float *alpha, const float *weights, size_t ldw,
                      size_t R, const uint16_t *values, size_t keys, size_t E)
{
    for (size_t r = 0; r < R; r++)
        for (size_t e = 0; e < E; e++) {
            float sum = out[r * ldo + e] * alpha[r];
            for (size_t j = 0; j < keys; j++)
                sum = fmaf(weights[r * ldw + j], kh_f16_to_f32(values[j * E + e]), sum);
            out[r * ldo + e] = sum;
        }
}

void gather_f32_ref(float *out, const float *weights, const void *const *rows, size_t K, size_t E)
{
    memset(out, 0, E * sizeof *out);
    for (size_t j = 0; j < K; j++)
        for (size_t e = 0; e < E; e++)
            out[e] = fmaf(weights[j], ((const float *)rows[j])[e], out[e]);
}

void gather_f16_ref(float *out, const float *weights, const void *const *rows, size_t K, size_t E)
{
    memset(out, 0, E * sizeof *out);
    for (size_t j = 0; j < K; j++)
        for (size_t e = 0; e < E; e++)
            out[e] = fmaf(weights[j], kh_f16_to_f32(((const uint16_t *)rows[j])[e]), out[e]);
}

void gather_q8_0_ref(float *out, const float *weights, const void *const *rows, size_t K, size_t E)
{
    memset(out, 0, E * sizeof *out);
    for (size_t j = 0; j < K; j++)
        for (size_t e = 0; e < E; e++) {
            const kh_block_q8_0 *b = (const kh_block_q8_0 *)rows[j] + e / 32;
            out[e] = fmaf(weights[j], kh_f16_to_f32(b->d) * (float)b->qs[e % 32], out[e]);
        }
}
