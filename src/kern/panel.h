/* kern/panel.h: the packed panels of the prompt products: 16 weight rows, lane by lane.
 *
 * In integer form (activations in 8 bits),
 * for each group of 32 inputs (n / 32 groups, one after the other):
 *
 *     int8 q  [8][16][4]   input 4c + j of row r at [c][r][j]: 16 lanes of four bytes, one 512-bit
 *                          register or two 256-bit ones a step
 *     f32  d  [2][16]      scale of the two halves of 16 inputs, per row
 *     f32  m  [2][16]      minimum of the two halves, per row
 *
 * `bits` is the width of |q| that the kernel may rely on: 4 (0..15), 6 (0..63) are unsigned, 8 is
 * signed. Add 16 (KH_PANEL_HALVES) when the two halves of a group have scales of their own; without
 * it d[0] == d[1] and m[0] == m[1], and one multiplication serves 32 inputs.
 *
 * A panel of either form lives in a worker's scratch: it is unpacked from the file's rows for one product over all
 * tokens of a prompt, so no second copy of the weights is ever kept. */
#ifndef KH_KERN_PANEL_H
#define KH_KERN_PANEL_H

#include <stddef.h>

enum { KH_PANEL_ROWS = 16, KH_PANEL_HALVES = 16 };

/* The product in f32: a panel is [n][16], tokens come in tiles [n][12]; product_pack makes both. */
enum { KH_PRODUCT_TILE = 12, KH_PRODUCT_DEPTH = 2048 };

/* Inputs that are summed up in a row before the sum is added to those before: equal parts. */
static inline size_t kh_product_depth(size_t n)
{
    size_t parts = (n + KH_PRODUCT_DEPTH - 1) / KH_PRODUCT_DEPTH;
    return parts > 1 ? (n + parts - 1) / parts : n;
}

static inline size_t kh_panel_bytes(size_t n)
{
    return n / 32 * (512 + 4 * 16 * 4);
}

#endif
