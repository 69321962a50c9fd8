/* ops/narrow.h: shrinking a bounded list of candidates to its largest, by counting. */
#ifndef KH_OPS_NARROW_H
#define KH_OPS_NARROW_H

#include "kern/kern.h"

/* A value t with least <= #{values >= t} <= most, 1 <= least, most < n. Where ties leave none, t is the
 * largest with more than `most`, and *ties (else SIZE_MAX) how many of those equal to t belong to the
 * `least` largest. -INFINITY where all values are NaN. `floor`: no value is smaller, where it is above -FLT_MAX. */
float kh_narrow_search(const kh_kern *kern, const float *values /* [n] */, size_t n, size_t least,
                       size_t most, float floor, size_t *ties);

/* Keeps at least `least` and at most `most` of n values (no NaN), the largest, in order, ties to the front;
 * returns how many. *threshold says before what no value is smaller than (-FLT_MAX or less: nothing);
 * where something was dropped, it becomes the value that a later one has to
 * exceed to belong to the `least` largest. */
size_t kh_narrow(const kh_kern *kern, float *values /* [n] */, uint32_t *indices /* [n] */,
                 size_t n, size_t least, size_t most, float *threshold);

#endif
