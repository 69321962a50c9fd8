/* Scores where keys come from memory, plain C: whole pages with the next one on its way, and single keys of
 * many panels. Both are score_panel of attn_kern.h, key by key: a chain of fma over e ascending. */
#include "kern/attn_kern.h"
#include "kern/kern.h"
#include "tensor/half.h"

#include <math.h>

static float element(const void *panel, size_t i, int half)
{
    return half ? kh_f16_to_f32(((const uint16_t *)panel)[i]) : ((const float *)panel)[i];
}

void score_ahead_ref(float *scores, size_t lds, const float *q, size_t ldq, size_t R,
                     const void *page, int half, size_t E, const void *next)
{
    (void)next;
    for (size_t r = 0; r < R; r++)
        for (size_t j = 0; j < KH_PAGE; j++) {
            float sum = 0;
            for (size_t e = 0; e < E; e++)
                sum = fmaf(q[r * ldq + e],
                           element(page, (j / KH_PANEL * E + e) * KH_PANEL + j % KH_PANEL, half),
                           sum);
            scores[r * lds + j] = sum;
        }
}

void score_listed_ref(float *scores, const float *q, const void *const *panels,
                      const uint32_t *positions, size_t n, int half, size_t E)
{
    for (size_t i = 0; i < n; i++) {
        float sum = 0;
        for (size_t e = 0; e < E; e++)
            sum = fmaf(q[e], element(panels[i], e * KH_PANEL + positions[i] % KH_PANEL, half), sum);
        scores[i] = sum;
    }
}
