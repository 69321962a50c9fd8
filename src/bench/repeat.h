/* bench/repeat.h: the times of a piece of work that is done again and again. */
#ifndef KH_BENCH_REPEAT_H
#define KH_BENCH_REPEAT_H

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

typedef kh_status kh_repeat_body(void *context);

/* Runs body once to warm up, then `times` times (at least once, at most KH_REPEAT_MOST); *least and *median
 * in seconds. A run of ten seconds or more needs no warming up. A failing body ends it. */
enum { KH_REPEAT_MOST = 1000 };
kh_status kh_repeat(int times, kh_repeat_body *body, void *context, double *least, double *median);
/* The same, but the first run never counts. */
kh_status kh_repeat_settled(int times, kh_repeat_body *body, void *context, double *least,
                            double *median);

#endif
