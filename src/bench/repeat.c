/* Repeating a piece of work.
 *
 * The minimum is the least disturbed run and what the machine can do; the median is what a run usually
 * takes. The first run does not count: it touches memory, starts threads and fills tables. One that lasts
 * ten seconds warms itself up and counts: repeating it would double the time for nothing. Not so where work is always
 * repeated: the first step of a training touches gigabytes of fresh pages, and no later one does. (GPT-2 small at 4,096
 * tokens on a virtual machine: 11.0 to 14.9 s for the first step, 9.4 s for the second.) */
#include "bench/repeat.h"

#include "base/fail.h"
#include "cpu/cpu.h"

#include <math.h>

#define WARMS_ITSELF 10.0 /* seconds */

static kh_status repeat(int times, double warms_itself, kh_repeat_body *body, void *context,
                        double *least, double *median)
{
    double seconds[KH_REPEAT_MOST];
    if (times < 1) times = 1;
    if (times > KH_REPEAT_MOST) times = KH_REPEAT_MOST;
    for (int i = -1; i < times; i++) {
        double start = kh_cpu_seconds();
        KH_TRY(body(context));
        double took = kh_cpu_seconds() - start;
        if (i < 0 && took < warms_itself) continue;
        if (i < 0) i = 0;
        int at = i;
        for (; at > 0 && seconds[at - 1] > took; at--) seconds[at] = seconds[at - 1];
        seconds[at] = took;
    }
    *least = seconds[0];
    *median = (seconds[(times - 1) / 2] + seconds[times / 2]) / 2;
    return KH_OK;
}

kh_status kh_repeat(int times, kh_repeat_body *body, void *context, double *least, double *median)
{
    return repeat(times, WARMS_ITSELF, body, context, least, median);
}

kh_status kh_repeat_settled(int times, kh_repeat_body *body, void *context, double *least,
                            double *median)
{
    return repeat(times, (double)INFINITY, body, context, least, median);
}
