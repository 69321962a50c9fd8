/* run/probe.h: how the forward pass asks whether someone looks. Absent, a probe costs one comparison a
 * point. The points and the observer are public: <keyhole/points.h>. */
#ifndef KH_RUN_PROBE_H
#define KH_RUN_PROBE_H

#include <keyhole/points.h>

static inline int kh_probe_wants(const kh_probe *probe, kh_point point)
{
    return probe && (probe->points >> point & 1);
}

static inline void kh_probe_at(const kh_probe *probe, kh_point point, int layer, float *data,
                               size_t rows, size_t width)
{
    if (kh_probe_wants(probe, point) && probe->point)
        probe->point(probe->context, point, layer, data, rows, width);
}

#endif
