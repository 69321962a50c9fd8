/* Checks of the shadow's kernels: equal bits, and the bound that they promise against a score in double. */
#include "check.h"

#include "kern/shadow_kern.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 13 };

static const size_t widths[] = {1, 7, 16, 32, 40, 64, 80, 96, 128, 200, 256};

void check_shadow_score(const kh_kern *ref, const kh_kern *other)
{
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        for (size_t R = 1; R <= ROWS; R++) {
            size_t E = widths[i], W = kh_shadow_width(E), bytes = kh_shadow_bytes(E);
            size_t ldu = KH_PAGE + 5;
            float *panels = malloc(KH_PAGE * E * sizeof *panels), steps[2 * ROWS];
            char *shadow = aligned_alloc(64, 2 * bytes);
            int16_t *q = malloc(R * W * sizeof *q);
            float out[2][ROWS * (KH_PAGE + 5)];
            check_fill(panels, KH_PAGE * E, 3.0f);
            panels[5] = i % 3 == 1 ? NAN : 1e4f;
            ref->shadow_pack(shadow, panels, E);
            memcpy(shadow + bytes, shadow, bytes);
            memset(q, 0, R * W * sizeof *q);
            for (size_t r = 0; r < R; r++)
                for (size_t e = 0; e < E; e++)
                    q[r * W + e] = (int16_t)(i % 2   ? check_uniform(KH_SHADOW_LEVELS)
                                             : e % 3 ? KH_SHADOW_LEVELS
                                                     : -KH_SHADOW_LEVELS);
            check_fill(steps, 2 * R, 1e-3f);
            memset(out, 0x42, sizeof out);
            ref->shadow_score(out[0], ldu, q, steps, R, shadow, E, NULL);
            other->shadow_score(out[1], ldu, q, steps, R, shadow, E, shadow + bytes);
            check_bits("shadow", out[1], out[0], ROWS * ldu);
            free(panels);
            free(shadow);
            free(q);
        }
}
