/* ff/pick.h: the k largest of each of several rows of scores that arrive in blocks. */
#ifndef KH_FF_PICK_H
#define KH_FF_PICK_H

#include "kern/kern.h"

enum { KH_PICK_BLOCK = 64 }; /* scores of a row that may be offered at once */

/* Lists of candidates. The arrays are the caller's. */
typedef struct kh_pick {
    const kh_kern *kern;
    size_t k, rows;
    size_t ld;         /* kh_pick_room(k, scores of a row) */
    float *values;     /* [rows][ld] */
    uint32_t *indices; /* [rows][ld] */
    uint32_t *counts;  /* [rows] */
    float *thresholds; /* [rows] */
} kh_pick;

size_t kh_pick_room(size_t k, size_t n);
/* Empties all rows; only scores above `least` will enter. NaN never does. */
void kh_pick_start(kh_pick *pick, float least);
/* Asks for the memory that the next offer to rows [row, row + rows) writes; a hint. */
void kh_pick_expect(const kh_pick *pick, size_t row, size_t rows);
/* Scores [rows][lds] of rows [row, row + rows), n <= KH_PICK_BLOCK of each; the first has index
 * `first`, which ascends from call to call. */
void kh_pick_offer(kh_pick *pick, size_t row, size_t rows, const float *scores, size_t lds,
                   size_t n, uint32_t first);
/* Leaves the k largest of a row, ties to the lower index, indices ascending; returns how many there
 * are (fewer than k only if fewer entered). */
size_t kh_pick_finish(kh_pick *pick, size_t row);

#endif
