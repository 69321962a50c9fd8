/* The plain C twins of the sparse products: the order that kern/ff_kern.h promises, one number at a
 * time. */
#include "kern/ff_kern.h"
#include "kern/kern.h"

#include <math.h>

void listed_mix_ref(float *out, const float *weights, const uint32_t *indices,
                    const uint32_t *begin, const uint32_t *end, size_t R, const float *panel,
                    uint32_t first)
{
    for (size_t r = 0; r < R; r++, out += KH_FF_PANEL)
        for (size_t e = begin[r]; e < end[r]; e++) {
            const float *row = panel + (size_t)(indices[e] - first) * KH_FF_PANEL;
            for (size_t c = 0; c < KH_FF_PANEL; c++) out[c] = fmaf(weights[e], row[c], out[c]);
        }
}

static float dot(const float *x, const float *row)
{
    float lanes[16];
    for (size_t i = 0; i < 16; i++) {
        lanes[i] = x[i] * row[i];
        for (size_t c = 16; c < KH_FF_PANEL; c += 16)
            lanes[i] = fmaf(x[c + i], row[c + i], lanes[i]);
    }
    for (size_t distance = 8; distance > 0; distance /= 2)
        for (size_t i = 0; i < distance; i++) lanes[i] += lanes[i + distance];
    return lanes[0];
}

void listed_dot_ref(float *sums, const float *x, const uint32_t *indices, const uint32_t *begin,
                    const uint32_t *end, size_t R, const float *panel, uint32_t first)
{
    for (size_t r = 0; r < R; r++, x += KH_FF_PANEL)
        for (size_t e = begin[r]; e < end[r]; e++)
            sums[e] += dot(x, panel + (size_t)(indices[e] - first) * KH_FF_PANEL);
}
