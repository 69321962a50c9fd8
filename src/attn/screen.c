/* The query's side of the shadow: the same rotation as the keys', then 15 bits.
 *
 * What rounding costs here is part of the keys' errors (kern/shadow.c): the step is at most the query's norm
 * over KH_SHADOW_LEVELS, so half a step a channel is a fixed share of the norm. The norm is that of the
 * rotated query in f32, a little above the truth. */
#include "attn/screen.h"

#include <math.h>
#include <string.h>

int kh_screen_query(int16_t *q, float *steps, const float *x, size_t E)
{
    float y[KH_SHADOW_WIDEST], top = 0;
    double norm = 0;
    memcpy(y, x, E * sizeof *y);
    float share = 1.0f / (float)kh_shadow_rotate(y, E, 1);
    for (size_t e = 0; e < E; e++) {
        y[e] *= share;
        norm += (double)y[e] * (double)y[e];
        if (fabsf(y[e]) > top) top = fabsf(y[e]);
    }
    if (!(norm < 1e28)) return 0;
    float step = top / KH_SHADOW_LEVELS, inverse = step > 0 ? 1.0f / step : 0.0f;
    if (!(inverse < INFINITY)) step = inverse = 0;
    memset(q, 0, kh_shadow_width(E) * sizeof *q);
    for (size_t e = 0; e < E; e++) {
        long level = lrintf(y[e] * inverse);
        q[e] = (int16_t)(level > KH_SHADOW_LEVELS    ? KH_SHADOW_LEVELS
                         : level < -KH_SHADOW_LEVELS ? -KH_SHADOW_LEVELS
                                                     : level);
    }
    steps[0] = step;
    steps[1] = (float)(sqrt(norm) * 1.00001) + 1e-15f;
    return 1;
}
