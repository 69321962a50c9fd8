/* kern/ff_body.h: the sparse products over sixteen lanes; included by ff_avx2.c and ff_avx512.c, which
 * say how dot products are added across lanes, GROUP at a time: add_lanes(to, sums [GROUP], n) adds the
 * sum of the lanes of sums[i] to to[i], i < n.
 *
 * A panel row is four registers' worth, 256 bytes. Panels are cut so that they stay in the second
 * cache, and an entry costs what reading its row from there costs; arithmetic hides behind it. */
#include "kern/ff_kern.h"
#include "kern/kern.h"

#define INLINE static inline __attribute__((always_inline))

enum { COLS = KH_FF_PANEL / 16 };

void KH_NAME(listed_mix)(float *out, const float *weights, const uint32_t *indices,
                         const uint32_t *begin, const uint32_t *end, size_t R, const float *panel,
                         uint32_t first)
{
    for (size_t r = 0; r < R; r++, out += KH_FF_PANEL) {
        size_t e = begin[r], stop = end[r];
        if (e == stop) continue;
        v16 acc[COLS];
        for (size_t c = 0; c < COLS; c++) acc[c] = v16_load(out + 16 * c);
        for (; e < stop; e++) {
            const float *row = panel + (size_t)(indices[e] - first) * KH_FF_PANEL;
            v16 w = v16_set1(weights[e]);
            for (size_t c = 0; c < COLS; c++) acc[c] = v16_fma(w, v16_load(row + 16 * c), acc[c]);
        }
        for (size_t c = 0; c < COLS; c++) v16_store(out + 16 * c, acc[c]);
    }
}

INLINE v16 products(const v16 *x, const float *row)
{
    v16 sum = v16_mul(x[0], v16_load(row));
    for (size_t c = 1; c < COLS; c++) sum = v16_fma(x[c], v16_load(row + 16 * c), sum);
    return sum;
}

/* `n` entries from `at` on; where there are fewer than `group`, the last one is computed again. */
INLINE void dots(float *to, const v16 *x, const uint32_t *at, size_t n, size_t group,
                 const float *panel, uint32_t first)
{
    v16 sums[GROUP];
    for (size_t i = 0; i < group; i++) {
        size_t e = i < n ? i : n - 1;
        sums[i] = products(x, panel + (size_t)(at[e] - first) * KH_FF_PANEL);
    }
    if (group == GROUP)
        add_lanes(to, sums, n);
    else
        add_few_lanes(to, sums, n);
}

void KH_NAME(listed_dot)(float *sums, const float *x, const uint32_t *indices,
                         const uint32_t *begin, const uint32_t *end, size_t R, const float *panel,
                         uint32_t first)
{
    for (size_t r = 0; r < R; r++, x += KH_FF_PANEL) {
        size_t e = begin[r], stop = end[r];
        v16 left[COLS];
        for (size_t c = 0; c < COLS; c++) left[c] = v16_load(x + 16 * c);
        for (; e + GROUP <= stop; e += GROUP)
            dots(sums + e, left, indices + e, GROUP, GROUP, panel, first);
        for (; e + FEW <= stop; e += FEW) dots(sums + e, left, indices + e, FEW, FEW, panel, first);
        if (e < stop) dots(sums + e, left, indices + e, stop - e, FEW, panel, first);
    }
}
