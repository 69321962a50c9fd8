/* Repeating a piece of work.
 *
 * The minimum is the least disturbed run and what the machine can do; the median is what a run usually
 * takes. The first run does not count: it touches memory, starts threads and fills tables. One that lasts
 * ten seconds warms itself up and counts: repeating it would double the time for nothing. */
#include "bench/repeat.h"

#include "base/fail.h"
#include "cpu/cpu.h"

#define WARMS_ITSELF 10.0 /* seconds */

kh_status kh_repeat(int times, kh_repeat_body *body, void *context, double *least, double *median)
{
    double seconds[KH_REPEAT_MOST];
    if (times < 1) times = 1;
    if (times > KH_REPEAT_MOST) times = KH_REPEAT_MOST;
    for (int i = -1; i < times; i++) {
        double start = kh_cpu_seconds();
        KH_TRY(body(context));
        double took = kh_cpu_seconds() - start;
        if (i < 0 && took < WARMS_ITSELF) continue;
        if (i < 0) i = 0;
        int at = i;
        for (; at > 0 && seconds[at - 1] > took; at--) seconds[at] = seconds[at - 1];
        seconds[at] = took;
    }
    *least = seconds[0];
    *median = (seconds[(times - 1) / 2] + seconds[times / 2]) / 2;
    return KH_OK;
}
