/* kern/panel_body.h: panel_gemm over a few words of the instruction set, defined before this file:
 *
 *     BODY             name of the kernel
 *     LANES            rows of the panel in a register: 16, or 8 (the panel is then walked twice)
 *     vi, vf           registers of LANES 32-bit lanes
 *     load(p)          four bytes of each row;  loadf, storef, spreadf(p), mulf, addf, fmaf_
 *     to_f32(vi)
 *     dot4_u4, dot4_u6 (w, q)          sums over 16 inputs in i32 lanes; w [4] registers of levels
 *     dot8_u4, dot8_u6, dot8_s8        sums over 32 inputs; w [8] registers
 *
 * The eight registers of a group's weights are loaded once for a tile of TILE activation rows; the
 * rows' bytes are spread from memory. The tile's accumulators live in a small array: its loads and
 * stores ride on ports that the products leave free, and one loop serves every T. */
#include "kern/kern.h"
#include "kern/panel.h"

#define INLINE static inline __attribute__((always_inline))

enum { GROUP_BYTES = 512 + 4 * 16 * 4, TILE = 16 };

typedef struct act_rows {
    const int8_t *q; /* [T][n] */
    const float *d;  /* [T][n/32] */
    const float *s;  /* [T][n/16] */
    size_t n;
} act_rows;

/* Adds one group of one activation row; the order of steps is panel_gemm_ref's. */
INLINE vf add_group(vf acc, const vi *w /* [8] */, const float *scale, const int8_t *q,
                    const float *d, const float *s, int bits, int halves)
{
    vf dx = spreadf(d);
    if (halves) {
        vi a = bits == 4 ? dot4_u4(w, q) : dot4_u6(w, q);
        vi b = bits == 4 ? dot4_u4(w + 4, q + 16) : dot4_u6(w + 4, q + 16);
        acc = madf(mulf(loadf(scale), dx), to_f32(a), acc);
        acc = madf(mulf(loadf(scale + 16), dx), to_f32(b), acc);
        acc = madf(loadf(scale + 32), spreadf(s), acc);
        return madf(loadf(scale + 48), spreadf(s + 1), acc);
    }
    vi a = bits == 4 ? dot8_u4(w, q) : bits == 6 ? dot8_u6(w, q) : dot8_s8(w, q);
    acc = madf(mulf(loadf(scale), dx), to_f32(a), acc);
    if (bits == 8) return acc;
    return madf(loadf(scale + 32), addf(spreadf(s), spreadf(s + 1)), acc);
}

/* y [count][16 at ldy]: `count` <= TILE rows against the LANES rows of the panel from `lane` on. */
INLINE void tile(float *y, size_t ldy, const char *panel, act_rows x, size_t count, int lane,
                 int bits, int halves)
{
    vf acc[TILE];
    for (size_t t = 0; t < count; t++) acc[t] = zerof();
    for (size_t g = 0; g < x.n / 32; g++, panel += GROUP_BYTES) {
        const char *at = panel + 4 * lane;
        vi w[8] = {load(at),       load(at + 64),  load(at + 128), load(at + 192),
                   load(at + 256), load(at + 320), load(at + 384), load(at + 448)};
        const float *scale = (const float *)(const void *)(at + 512);
        for (size_t t = 0; t < count; t++)
            acc[t] = add_group(acc[t], w, scale, x.q + t * x.n + 32 * g, x.d + t * (x.n / 32) + g,
                               x.s + t * (x.n / 16) + 2 * g, bits, halves);
    }
    for (size_t t = 0; t < count; t++) storef(y + t * ldy + lane, acc[t]);
}

INLINE void all_tiles(float *y, size_t ldy, const void *panel, act_rows x, size_t T, int bits,
                      int halves)
{
    for (size_t t = 0; t < T; t += TILE) {
        size_t count = T - t < TILE ? T - t : TILE;
        act_rows part = {x.q + t * x.n, x.d + t * (x.n / 32), x.s + t * (x.n / 16), x.n};
        for (int lane = 0; lane < KH_PANEL_ROWS; lane += LANES)
            tile(y + t * ldy, ldy, panel, part, count, lane, bits, halves);
    }
}

void BODY(float *y, size_t ldy, const void *panel, const int8_t *q, const float *d, const float *s,
          size_t T, size_t n, int bits)
{
    act_rows x = {q, d, s, n};
    switch (bits) {
    case 4: all_tiles(y, ldy, panel, x, T, 4, 0); break;
    case 6: all_tiles(y, ldy, panel, x, T, 6, 0); break;
    case 4 | KH_PANEL_HALVES: all_tiles(y, ldy, panel, x, T, 4, 1); break;
    case 6 | KH_PANEL_HALVES: all_tiles(y, ldy, panel, x, T, 6, 1); break;
    default: all_tiles(y, ldy, panel, x, T, 8, 0); break;
    }
}
