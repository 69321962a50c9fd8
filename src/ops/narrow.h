/* ops/narrow.h: shrinking a bounded list of candidates to its largest, by counting. */
#ifndef KH_OPS_NARROW_H
#define KH_OPS_NARROW_H

#include "kern/kern.h"

typedef struct kh_bound {
    float value;
    size_t count; /* of values at least that large */
    size_t ties;  /* SIZE_MAX, or how many of those equal to it belong to the `least` largest */
} kh_bound;

/* A value with least <= count <= most, 1 <= least, most < n. Where ties leave none, the largest with more
 * than `most`. -INFINITY where fewer than `least` are numbers. `floor`: no value is smaller, where it is above
 * -FLT_MAX. */
kh_bound kh_narrow_search(const kh_kern *kern, const float *values /* [n] */, size_t n,
                          size_t least, size_t most, float floor);

/* Keeps at least `least` and at most `most` of n values (no NaN), the largest, in order, ties to the front;
 * returns how many. *threshold says before what no value is smaller than (-FLT_MAX or less: nothing);
 * where something was dropped, it becomes the value that a later one has to
 * exceed to belong to the `least` largest. */
size_t kh_narrow(const kh_kern *kern, float *values /* [n] */, uint32_t *indices /* [n] */,
                 size_t n, size_t least, size_t most, float *threshold);

#endif
