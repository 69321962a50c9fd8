/* kern/ff_kern.h: contracts of the sparse products of feed-forward layers.
 *
 * A list is a run of entries e in [begin, end) of an array `indices`; R lists lie behind one another
 * or are cut from longer ones. Entry e names row indices[e] - first of `panel`, which holds
 * KH_FF_PANEL columns of consecutive rows:
 *
 *     panel    [rows][64]      64 columns of `rows` neurons (or tokens), side by side
 *     out, x   [R][64]         the same columns of the R tokens (or neurons) that own the lists
 *
 * listed_mix   out[r][c] += sum over e ascending in [begin[r], end[r]), one fma each, of weights[e] *
 *              panel[indices[e] - first][c], c < 64.
 * listed_dot   sums[e] += x[r] . panel[indices[e] - first] for every e in [begin[r], end[r]): sixteen
 *              lane sums (lane c % 16: a product, then three fma, c ascending), added as a tree
 *              (distance 8, 4, 2, 1).
 *
 * Equal bits on every instruction set. */
#ifndef KH_KERN_FF_KERN_H
#define KH_KERN_FF_KERN_H

enum { KH_FF_PANEL = 64 };

#endif
