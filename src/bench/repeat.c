/* What the benches on random arrays share: repetition and normal numbers.
 *
 * The minimum is the least disturbed run and what the machine can do; the median is what a run usually
 * takes. The first run does not count: it touches memory, starts threads and fills tables. One that lasts
 * ten seconds warms itself up and counts: repeating it would double the time for nothing. */
#include "bench/repeat.h"

#include "base/fail.h"
#include "base/rng.h"
#include "cpu/cpu.h"
#include "cpu/pool.h"

#include <math.h>

enum { FILL = 1 << 14 };
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

typedef struct fill {
    float *x;
    size_t n;
    kh_rng_key key;
} fill;

/* Box-Muller, both numbers of a pair. */
static void fill_part(void *context, size_t item, int worker)
{
    const fill *f = context;
    (void)worker;
    size_t end = (item + 1) * FILL < f->n ? (item + 1) * FILL : f->n;
    for (size_t i = item * FILL; i < end; i += 2) {
        uint64_t bits = kh_rng_bits(f->key, i / 2);
        float a = ((float)(bits >> 40) + 0.5f) * 0x1p-24f, b = (float)(bits & 0xffffff) * 0x1p-24f;
        float radius = sqrtf(-2.0f * logf(a)), angle = 6.28318531f * b;
        f->x[i] = radius * cosf(angle);
        if (i + 1 < end) f->x[i + 1] = radius * sinf(angle);
    }
}

void kh_fill_normal(float *x, size_t n, uint64_t seed, uint64_t stream, int threads)
{
    kh_pool pool = {threads > 0 ? threads : 1};
    fill f = {x, n, {seed, stream}};
    kh_parallel_for(&pool, (n + FILL - 1) / FILL, fill_part, &f);
}
