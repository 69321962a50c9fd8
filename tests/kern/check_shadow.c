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

static float *page_of(size_t n)
{
    float *x = aligned_alloc(64, (n * sizeof *x + 63) / 64 * 64);
    check_fill(x, n, 2.0f);
    return x;
}

void check_score_ahead(const kh_kern *ref, const kh_kern *other)
{
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        for (size_t R = 1; R <= ROWS; R++)
            for (int half = 0; half < 2; half++) {
                size_t E = widths[i], n = KH_PAGE * E, lds = KH_PAGE + 5, ldq = E + 3;
                float *page = page_of(n), *q = page_of(R * ldq);
                uint16_t *narrow = malloc(n * sizeof *narrow);
                float out[2][ROWS * (KH_PAGE + 5)];
                ref->kv_f16(narrow, page, n);
                const void *from = half ? (const void *)narrow : page;
                memset(out, 0x42, sizeof out);
                ref->score_ahead(out[0], lds, q, ldq, R, from, half, E, NULL);
                other->score_ahead(out[1], lds, q, ldq, R, from, half, E, R % 2 ? from : NULL);
                check_bits("ahead", out[1], out[0], ROWS * lds);
                if (half)
                    ref->score_panel_f16(out[0], lds, q, ldq, R, narrow, KH_PANELS, E);
                else
                    ref->score_panel(out[0], lds, q, ldq, R, page, KH_PANELS, E);
                check_bits("as score_panel", out[1], out[0], ROWS * lds);
                free(page);
                free(q);
                free(narrow);
            }
}

void check_score_listed(const kh_kern *ref, const kh_kern *other)
{
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        for (size_t n = 0; n <= 21; n++)
            for (int half = 0; half < 2; half++) {
                size_t E = widths[i], all = 40 * KH_PANEL * E;
                float *keys = page_of(all), *q = page_of(E), out[2][24];
                uint16_t *narrow = malloc(all * sizeof *narrow);
                const void *panels[24];
                uint32_t positions[24];
                ref->kv_f16(narrow, keys, all);
                for (size_t j = 0; j < n; j++) {
                    size_t at = check_random() % 40 * KH_PANEL * E;
                    panels[j] = half ? (const void *)(narrow + at) : keys + at;
                    positions[j] = (uint32_t)(check_random() % 5000);
                }
                memset(out, 0x42, sizeof out);
                ref->score_listed(out[0], q, panels, positions, n, half, E);
                other->score_listed(out[1], q, panels, positions, n, half, E);
                check_bits("listed", out[1], out[0], 24);
                free(keys);
                free(q);
                free(narrow);
            }
}
