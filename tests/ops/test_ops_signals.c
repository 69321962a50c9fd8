/* Signals while dense products run: generated code of oneDNN points the stack register at the heap, and
 * a handler that ran in its midst would write in front of that block. So every handler must find itself
 * on the real stack, and the products must come out as they do in peace. */
// not under: thread
#include "ops/sgemm.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include <cmocka.h>

enum { T = 64, ROWS = 64, COLS = 576, SIGNALS = 100, MOST_PRODUCTS = 2000000, STACK = 8 << 20 };

static char *stack;
static volatile sig_atomic_t signals, astray;

static void on_alarm(int number)
{
    (void)number;
    char *here = __builtin_frame_address(0);
    signals++;
    astray += here > stack || here < stack - STACK;
}

static void handlers_run_on_the_stack(void **state)
{
    (void)state;
    static float x[T * COLS], w[ROWS * COLS], calm[T * ROWS], y[T * ROWS];
    for (int i = 0; i < T * COLS; i++) x[i] = (float)(i % 13 - 6);
    for (int i = 0; i < ROWS * COLS; i++) w[i] = (float)(i % 17 - 8);
    if (kh_sgemm_nt(calm, ROWS, x, w, T, ROWS, COLS) != 0) skip();
    struct sigaction action = {.sa_handler = on_alarm}, before;
    struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    sigemptyset(&action.sa_mask);
    stack = __builtin_frame_address(0);
    assert_int_equal(sigaction(SIGALRM, &action, &before), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
    int same = 1, good = 1;
    for (int i = 0; i < MOST_PRODUCTS && signals < SIGNALS && good && same && !astray; i++) {
        good = kh_sgemm_nt(y, ROWS, x, w, T, ROWS, COLS) == 0;
        same = memcmp(y, calm, sizeof y) == 0;
    }
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &before, NULL);
    assert_true(good);
    assert_true(same);
    assert_int_equal(astray, 0);
    assert_true(signals > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(handlers_run_on_the_stack)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
