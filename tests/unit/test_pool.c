/* parallel_for: every item once, workers within their number, also for loops inside loops, loops of two
 * threads at a time, and a forked child. */
#include "cpu/pool.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1 /* as gcc says it */
#endif
#endif

enum { ITEMS = 1000 };

typedef struct loop {
    atomic_int seen[ITEMS];
    atomic_int bad; /* a worker outside [0, threads), or two calls with one worker at once */
    atomic_int working[8];
    int threads;
    const kh_pool *nested;
} loop;

static void count_inner(void *context, size_t item, int worker)
{
    (void)item;
    (void)worker;
    atomic_fetch_add((atomic_int *)context, 1);
}

static void visit(void *context, size_t item, int worker)
{
    loop *l = context;
    if (worker < 0 || worker >= l->threads || atomic_fetch_add(&l->working[worker], 1) != 0)
        atomic_store(&l->bad, 1);
    atomic_fetch_add(&l->seen[item], 1);
    if (l->nested) {
        atomic_int inner = 0;
        kh_parallel_for(l->nested, 5, count_inner, &inner);
        if (atomic_load(&inner) != 5) atomic_store(&l->bad, 1);
    }
    atomic_fetch_sub(&l->working[worker], 1);
}

static int good_loop(const kh_pool *pool, size_t items, const kh_pool *nested)
{
    static _Thread_local loop l;
    memset(&l, 0, sizeof l);
    l.threads = pool->threads;
    l.nested = nested;
    kh_parallel_for(pool, items, visit, &l);
    if (atomic_load(&l.bad)) return 0;
    for (size_t i = 0; i < ITEMS; i++)
        if (atomic_load(&l.seen[i]) != (i < items)) return 0;
    return 1;
}

static void every_item_once(void **state)
{
    (void)state;
    static const size_t counts[] = {0, 1, 2, 3, 7, ITEMS};
    for (int threads = 1; threads <= 8; threads++)
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
            assert_true(good_loop(&(kh_pool){threads}, counts[c], NULL));
}

static void a_loop_inside_a_loop(void **state)
{
    (void)state;
    kh_pool pool = {3};
    for (int i = 0; i < 20; i++) assert_true(good_loop(&pool, 50, &pool));
}

static void many_short_loops(void **state)
{
    (void)state;
    kh_pool pool = {2};
    for (int i = 0; i < 20000; i++) {
        if (i % 4000 == 0) usleep(2000); /* long enough for the workers to sleep */
        assert_true(good_loop(&pool, 3, NULL));
    }
}

static void *loops(void *result)
{
    kh_pool pool = {2};
    int good = 1;
    for (int i = 0; i < 2000; i++) good &= good_loop(&pool, 4, NULL);
    *(int *)result = good;
    return NULL;
}

static void two_callers_at_once(void **state)
{
    (void)state;
    int good[2] = {0};
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, loops, &good[0]), 0);
    loops(&good[1]);
    pthread_join(other, NULL);
    assert_true(good[0] && good[1]);
}

/* The thread sanitizer does not let a child of a process with threads start its own. */
static void a_child_has_threads_of_its_own(void **state)
{
    (void)state;
#ifndef __SANITIZE_THREAD__
    kh_pool pool = {2};
    kh_pool_warm(&pool);
    pid_t child = fork();
    if (child == 0) _exit(good_loop(&pool, ITEMS, NULL) && good_loop(&pool, 10, NULL) ? 0 : 1);
    int how = -1;
    waitpid(child, &how, 0);
    assert_int_equal(how, 0);
    assert_true(good_loop(&pool, ITEMS, NULL));
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_once),
        cmocka_unit_test(a_loop_inside_a_loop),
        cmocka_unit_test(many_short_loops),
        cmocka_unit_test(two_callers_at_once),
        cmocka_unit_test(a_child_has_threads_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
