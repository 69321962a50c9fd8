/* parallel_for over OpenMP.
 *
 * One dynamic loop of grain 1: the callers' items are large (a panel of a matrix, a tile of queries),
 * so the atomic counter is cheap and two unequal cores stay busy to the end. The team is kept by the
 * OpenMP run time between calls and spins briefly, which matters for decoding: a token makes about
 * 200 short loops, and waking sleeping threads for each would cost more than the work.
 *
 * A loop with one item, or a pool of one thread, never enters OpenMP, which also keeps a forked child
 * usable (libgomp's team does not survive fork(); children are forked before threads start). */
#include "cpu/pool.h"

#include <omp.h>

void kh_parallel_for(const kh_pool *pool, size_t items, kh_pool_body *body, void *context)
{
    int threads = pool->threads;
    if ((size_t)threads > items) threads = (int)items;
    if (threads <= 1) {
        for (size_t item = 0; item < items; item++) body(context, item, 0);
        return;
    }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (size_t item = 0; item < items; item++) body(context, item, omp_get_thread_num());
}

static void nothing(void *context, size_t item, int worker)
{
    (void)context;
    (void)item;
    (void)worker;
}

void kh_pool_warm(const kh_pool *pool)
{
    kh_parallel_for(pool, (size_t)pool->threads, nothing, NULL);
}

int kh_pool_library_threads(int threads)
{
    int before = omp_get_max_threads();
    omp_set_num_threads(threads);
    return before;
}
