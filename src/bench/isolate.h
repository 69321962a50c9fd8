/* bench/isolate.h: a measurement in a process of its own, so that its memory is that of one method
 * alone. */
#ifndef KH_BENCH_ISOLATE_H
#define KH_BENCH_ISOLATE_H

#include <keyhole/status.h>
#include <stddef.h>

/* Runs body(context, result), which fills `size` bytes of result. With `isolate` in a forked child whose
 * result is copied back; no other thread of the caller may be inside the library then. A child that
 * dies is KH_ERR_CHECK with a sentence. */
typedef kh_status kh_isolate_body(void *context, void *result);
kh_status kh_isolate(int isolate, kh_isolate_body *body, void *context, void *result, size_t size);

#endif
