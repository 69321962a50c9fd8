/* kern/stream_body.h: scores where keys come from memory, over sixteen lanes; included by stream_avx2.c and
 * stream_avx512.c after their vector header and
 *
 *     TILE_ROWS x TILE_COLS accumulators of a page;  LISTED keys that are scored side by side
 *
 * A decoding step does so little with a key that memory decides. The processor fetches ahead only inside
 * 4 KiB, and the keys of one head lie a page apart, so the lines of the next page are asked for between the
 * products of this one. Keys in a list come from a panel each: their chains of sixteen lanes run side by
 * side, of which one lane is kept, while the panels of the next ones are on their way. */
#include "kern/attn_kern.h"
#include "kern/kern.h"
#include "kern/tile_switch.h"

#define INLINE static inline __attribute__((always_inline))

INLINE void ahead_tile(float *scores, size_t lds, const float *q, size_t ldq, size_t rows,
                       const void *page, size_t first, int half, size_t E, const char *next)
{
    v16 acc[TILE_ROWS][TILE_COLS];
    size_t step = TILE_COLS * KH_PANEL * (half ? 2 : 4);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < TILE_COLS; c++) acc[r][c] = v16_zero();
    for (size_t e = 0; e < E; e++) {
        v16 right[TILE_COLS];
        for (size_t c = 0; c < TILE_COLS; c++)
            right[c] = v16_element(page, ((first + c) * E + e) * KH_PANEL, half);
        for (size_t b = 0; next && b < step; b += 64)
            _mm_prefetch(next + e * step + b, _MM_HINT_T0);
        for (size_t r = 0; r < rows; r++) {
            v16 left = v16_set1(q[r * ldq + e]);
            for (size_t c = 0; c < TILE_COLS; c++) acc[r][c] = v16_fma(left, right[c], acc[r][c]);
        }
    }
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < TILE_COLS; c++)
            v16_store(scores + r * lds + (first + c) * KH_PANEL, acc[r][c]);
}

INLINE void ahead_rows(float *scores, size_t lds, const float *q, size_t ldq, size_t rows,
                       const void *page, int half, size_t E, const char *next)
{
    for (size_t p = 0; p < KH_PANELS; p += TILE_COLS) {
        ahead_tile(scores, lds, q, ldq, rows, page, p, half, E, next);
        if (next) next += E * TILE_COLS * KH_PANEL * (half ? 2 : 4);
    }
}

INLINE void ahead_any(float *scores, size_t lds, const float *q, size_t ldq, size_t R,
                      const void *page, int half, size_t E, const char *next)
{
    for (size_t r = 0; r < R; r += TILE_ROWS, next = NULL) {
        float *s = scores + r * lds;
        const float *x = q + r * ldq;
#define CALL(n) ahead_rows(s, lds, x, ldq, n, page, half, E, next)
        TILE_SWITCH(R - r, CALL)
#undef CALL
    }
}

void KH_NAME(score_ahead)(float *scores, size_t lds, const float *q, size_t ldq, size_t R,
                          const void *page, int half, size_t E, const void *next)
{
    if (half)
        ahead_any(scores, lds, q, ldq, R, page, 1, E, next);
    else
        ahead_any(scores, lds, q, ldq, R, page, 0, E, next);
}

INLINE void listed_any(float *scores, const float *q, const void *const *panels,
                       const uint32_t *positions, size_t n, int half, size_t E)
{
    size_t row = KH_PANEL * (half ? 2 : 4); /* bytes of one element of a panel */
    for (size_t i = 0; i < n; i += LISTED) {
        const void *now[LISTED];
        const char *next[LISTED];
        v16 acc[LISTED];
        for (size_t l = 0; l < LISTED; l++) {
            now[l] = panels[i + l < n ? i + l : n - 1];
            next[l] = panels[i + LISTED + l < n ? i + LISTED + l : n - 1];
            acc[l] = v16_zero();
        }
        for (size_t e = 0; e < E; e++) {
            v16 left = v16_set1(q[e]);
            for (size_t l = 0; l < LISTED; l++)
                acc[l] = v16_fma(left, v16_element(now[l], e * KH_PANEL, half), acc[l]);
            if (e * row % 64 == 0)
                for (size_t l = 0; l < LISTED; l++) _mm_prefetch(next[l] + e * row, _MM_HINT_T0);
        }
        for (size_t l = 0; l < LISTED && i + l < n; l++) {
            float lanes[KH_PANEL];
            v16_store(lanes, acc[l]);
            scores[i + l] = lanes[positions[i + l] % KH_PANEL];
        }
    }
}

void KH_NAME(score_listed)(float *scores, const float *q, const void *const *panels,
                           const uint32_t *positions, size_t n, int half, size_t E)
{
    if (half)
        listed_any(scores, q, panels, positions, n, 1, E);
    else
        listed_any(scores, q, panels, positions, n, 0, E);
}
