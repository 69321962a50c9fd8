/* The search for a threshold by plain counting, for the build in which float is double (tests/support/double.h):
 * ops/narrow.c bisects the bits of 32-bit numbers. */
#include "ops/narrow.h"

#include <math.h>

kh_bound kh_narrow_search(const kh_kern *kern, const float *values, size_t n, size_t least,
                          size_t most, float floor)
{
    (void)kern;
    (void)floor;
    for (size_t i = 0; i < n; i++) {
        size_t above = 0, equal = 0;
        for (size_t j = 0; j < n; j++) {
            above += values[j] > values[i];
            equal += values[j] == values[i];
        }
        if (equal == 0 || above >= least || above + equal < least) continue;
        if (above + equal <= most) return (kh_bound){values[i], above + equal, SIZE_MAX};
        return (kh_bound){values[i], least, least - above};
    }
    return (kh_bound){-INFINITY, n, SIZE_MAX};
}

size_t kh_narrow(const kh_kern *kern, float *values, uint32_t *indices, size_t n, size_t least,
                 size_t most, float *threshold)
{
    if (n <= most) return n;
    if (least == 0) return 0;
    kh_bound b = kh_narrow_search(kern, values, n, least, most, *threshold);
    *threshold = b.value;
    return kern->keep_best(values, indices, n, b.value, b.ties);
}
