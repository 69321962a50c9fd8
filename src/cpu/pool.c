/* parallel_for over a team of threads that nobody waits for in vain.
 *
 * A token makes about 200 short loops. OpenMP ends each with a barrier of the whole team, so one
 * descheduled thread stops all: with one other busy process on a machine of two processors, decoding
 * fell from 100 to 2 tokens a second (libgomp; 6 with short spinning, 70 with one thread). Here the
 * caller takes items itself, waits only for items that are being worked on, and a worker that comes
 * late finds the loop closed:
 *
 *     caller   job = ..., inside = 0, open = g   items ...   open = 0   wait until inside == 0
 *     worker   sees generation g   inside++   open == g ?  items ... : nothing   inside--
 *
 * The worker enters before it looks and the caller closes before it looks (both sequentially
 * consistent), so either the worker sees the closed door or the caller sees the worker. The job's
 * fields change only while nobody is inside.
 *
 * Waiting spins for SPIN_SECONDS, longer than what lies between two loops of a token, then sleeps on a
 * futex: an idle processor is what lets the kernel move a preempted worker onto it.
 *
 * Workers run with all signals blocked, so handlers run on the program's own threads. A forked child
 * has no team and starts its own.
 *
 * Rejected: OpenMP (above); passive waiting (two system calls a loop, twice the time of a token). */
#include "cpu/pool.h"

#include "cpu/cpu.h"

#include <limits.h>
#include <linux/futex.h>
#include <omp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST_WORKERS = 255, PAUSES = 32 };
#define SPIN_SECONDS 60e-6

static struct {
    pthread_mutex_t busy; /* held by the thread whose loop runs */
    int size;             /* workers started, ids 1 .. size */
    atomic_uint generation;
    atomic_uint open;   /* generation of the loop that may be entered, or 0 */
    atomic_uint inside; /* workers between the door and the way out */
    atomic_uint asleep; /* workers on the futex of `generation` */
    atomic_uint waits;  /* 1: the caller is on the futex of `inside` */
    /* the job */
    kh_pool_body *body;
    void *context;
    size_t items;
    int limit; /* workers with an id above it stay out */
    atomic_size_t next;
} team = {.busy = PTHREAD_MUTEX_INITIALIZER};

static void futex_wait(atomic_uint *word, unsigned seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(atomic_uint *word, int count)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static void relax(void)
{
#if defined(__x86_64__)
    for (int i = 0; i < PAUSES; i++) __builtin_ia32_pause();
#endif
}

/* Spins until the word differs from `seen` (or, with `equal`, until it is `seen`); 0 when it took too
 * long. */
static int spin(atomic_uint *word, unsigned seen, int equal)
{
    double end = 0;
    while ((atomic_load(word) == seen) != equal) {
        double now = kh_cpu_seconds();
        if (end == 0) end = now + SPIN_SECONDS;
        if (now > end) return 0;
        relax();
    }
    return 1;
}

static void take_items(int worker)
{
    for (;;) {
        size_t item = atomic_fetch_add_explicit(&team.next, 1, memory_order_relaxed);
        if (item >= team.items) return;
        team.body(team.context, item, worker);
    }
}

static void leave(void)
{
    if (atomic_fetch_sub(&team.inside, 1) == 1 && atomic_load(&team.waits))
        futex_wake(&team.inside, 1);
}

static void *work(void *id)
{
    int worker = (int)(intptr_t)id;
    unsigned seen = 0;
    for (;;) {
        if (!spin(&team.generation, seen, 0)) {
            atomic_fetch_add(&team.asleep, 1);
            while (atomic_load(&team.generation) == seen) futex_wait(&team.generation, seen);
            atomic_fetch_sub(&team.asleep, 1);
        }
        seen = atomic_load(&team.generation);
        atomic_fetch_add(&team.inside, 1);
        if (atomic_load(&team.open) == seen && worker <= team.limit) take_items(worker);
        leave();
    }
    return NULL;
}

static void forget(void)
{
    pthread_mutex_init(&team.busy, NULL);
    team.size = 0;
    atomic_store(&team.open, 0);
    atomic_store(&team.inside, 0);
    atomic_store(&team.asleep, 0);
    atomic_store(&team.waits, 0);
}

static void at_fork(void)
{
    pthread_atfork(NULL, NULL, forget);
}

/* Starts workers until there are `wanted`; fewer when the system refuses, which costs only time. */
static void grow(int wanted)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, at_fork);
    if (wanted > MOST_WORKERS) wanted = MOST_WORKERS;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (team.size < wanted) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, (void *)(intptr_t)(team.size + 1)) != 0) break;
        pthread_detach(thread);
        team.size++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void wait_for_workers(void)
{
    if (spin(&team.inside, 0, 1)) return;
    atomic_store(&team.waits, 1);
    for (unsigned n = atomic_load(&team.inside); n > 0; n = atomic_load(&team.inside))
        futex_wait(&team.inside, n);
    atomic_store(&team.waits, 0);
}

void kh_parallel_for(const kh_pool *pool, size_t items, kh_pool_body *body, void *context)
{
    int threads = pool->threads;
    if ((size_t)threads > items) threads = (int)items;
    if (threads <= 1 || pthread_mutex_trylock(&team.busy) != 0) {
        for (size_t item = 0; item < items; item++) body(context, item, 0);
        return;
    }
    if (team.size < threads - 1) grow(threads - 1);
    team.body = body;
    team.context = context;
    team.items = items;
    team.limit = threads - 1;
    atomic_store_explicit(&team.next, 0, memory_order_relaxed);
    unsigned generation = atomic_load(&team.generation) + 1;
    if (generation == 0) generation = 1; /* 0 is the closed door */
    atomic_store(&team.open, generation);
    atomic_store(&team.generation, generation);
    if (atomic_load(&team.asleep) > 0) futex_wake(&team.generation, INT_MAX);
    take_items(0);
    atomic_store(&team.open, 0);
    wait_for_workers();
    pthread_mutex_unlock(&team.busy);
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
