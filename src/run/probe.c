/* Names of the probe points, expanded from the list: the words that files, flags and pages use. */
#include "run/probe.h"

const char *kh_point_name(kh_point point)
{
    static const char *const names[] = {
#define NAME(name, text) text,
        KH_POINT_LIST(NAME)
#undef NAME
    };
    return (unsigned)point < KH_POINT_COUNT ? names[point] : NULL;
}
