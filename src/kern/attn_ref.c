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

void list_row_ref(float *values, uint32_t *indices, const float *scores, size_t n, float threshold,
                  uint32_t first_index)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i++)
        if (scores[i] >= threshold) {
            values[at] = scores[i];
            indices[at++] = first_index + (uint32_t)i;
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

static float sum_lanes(float *lane /* [16] */)
{
    for (size_t half = 8; half > 0; half /= 2)
        for (size_t i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

/* 64 lanes, added as four registers of sixteen would be. */
static float sum_64(const float *lane)
{
    float x[16];
    for (size_t i = 0; i < 16; i++) x[i] = (lane[i] + lane[i + 16]) + (lane[i + 32] + lane[i + 48]);
    return sum_lanes(x);
}

void row_moments_ref(float *moments, const float *x, size_t n)
{
    float sum[64] = {0}, squares[64] = {0};
    moments[0] = INFINITY;
    moments[1] = row_max_ref(x, n);
    for (size_t i = 0; i < n; i++) {
        moments[0] = x[i] < moments[0] ? x[i] : moments[0];
        sum[i % 64] += x[i];
        squares[i % 64] = fmaf(x[i], x[i], squares[i % 64]);
    }
    moments[2] = sum_64(sum);
    moments[3] = sum_64(squares);
}

float nth_between_ref(const float *values, size_t n, float low, float high, size_t nth,
                      size_t *ties)
{
    float best = INFINITY;
    size_t above = 0, equal = 0;
    for (size_t i = 0; i < n; i++) {
        if (!(values[i] >= low) || values[i] >= high) continue;
        size_t larger = 0;
        for (size_t j = 0; j < n; j++)
            larger += values[j] >= low && !(values[j] >= high) && values[j] > values[i];
        if (larger < nth && values[i] < best) best = values[i];
    }
    for (size_t i = 0; i < n; i++) {
        if (!(values[i] >= low) || values[i] >= high) continue;
        above += values[i] > best;
        equal += values[i] == best;
    }
    *ties = above + equal > nth ? nth - above : SIZE_MAX;
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
    return sum_lanes(lane);
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

/* Element e of a value row of a type that pages have. */
static float value_at(const char *row, size_t e, int type)
{
    if (type == KH_TYPE_F32) return ((const float *)(const void *)row)[e];
    if (type == KH_TYPE_F16) return kh_f16_to_f32(((const uint16_t *)(const void *)row)[e]);
    const kh_block_q8_0 *b = (const kh_block_q8_0 *)(const void *)row + e / 32;
    return kh_f16_to_f32(b->d) * (float)b->qs[e % 32];
}

static size_t gather_listed(float *out, const float *weights, const uint32_t *indices, size_t n,
                            uint32_t end, const char *const *pages, size_t bytes, size_t E,
                            int type)
{
    size_t j = 0;
    for (; j < n && indices[j] < end; j++) {
        const char *row = pages[indices[j] / KH_PAGE] + indices[j] % KH_PAGE * bytes;
        for (size_t e = 0; e < E; e++) out[e] = fmaf(weights[j], value_at(row, e, type), out[e]);
    }
    return j;
}

size_t gather_listed_f32_ref(float *out, const float *weights, const uint32_t *indices, size_t n,
                             uint32_t end, const char *const *pages, size_t E)
{
    return gather_listed(out, weights, indices, n, end, pages, E * sizeof(float), E, KH_TYPE_F32);
}

size_t gather_listed_f16_ref(float *out, const float *weights, const uint32_t *indices, size_t n,
                             uint32_t end, const char *const *pages, size_t E)
{
    return gather_listed(out, weights, indices, n, end, pages, 2 * E, E, KH_TYPE_F16);
}

size_t gather_listed_q8_0_ref(float *out, const float *weights, const uint32_t *indices, size_t n,
                              uint32_t end, const char *const *pages, size_t E)
{
    return gather_listed(out, weights, indices, n, end, pages, E / 32 * 34, E, KH_TYPE_Q8_0);
}
