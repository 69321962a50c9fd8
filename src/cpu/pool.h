/* cpu/pool.h: parallel_for. The only place that starts threads, and that knows OpenMP (which oneDNN
 * brings along). */
#ifndef KH_CPU_POOL_H
#define KH_CPU_POOL_H

#include <keyhole/status.h>
#include <stddef.h>

/* A wish: the threads themselves are one team of the process, started when first needed. */
typedef struct kh_pool {
    int threads; /* >= 1; 1 runs on the caller */
} kh_pool;

/* Runs body(context, item, worker) once for every item in [0, items), in any order, on at most
 * pool->threads workers; `worker` in [0, threads) names the scratch that a call may use. Items are
 * handed out one at a time, lowest first: put the longest first. A body cannot fail. What an item is
 * depends on the problem, never on the number of threads. A loop that finds the team busy (another
 * thread's loop, or a loop inside a body) runs on the caller. */
typedef void kh_pool_body(void *context, size_t item, int worker);
void kh_parallel_for(const kh_pool *pool, size_t items, kh_pool_body *body, void *context);

/* Starts the workers, so that the first parallel_for that is timed does not pay for it. */
void kh_pool_warm(const kh_pool *pool);

/* How many threads a library on OpenMP may start for calls from this thread; returns what it was. */
int kh_pool_library_threads(int threads);

#endif
