/* Pooling and the features of pairs, against the formulas, and their way back: derivatives of a weighted sum of
 * what comes out, which for these ops are formulas too. Twins are added to, and what was written is dead. */
#include "ops/pooling.h"

#include "base/alloc.h"
#include "cpu/cpu.h"
#include "run/tape.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { T = 37, D = 150, N = 4 };

static const kh_row_range ranges[N] = {{0, 1}, {1, 20}, {22, 3}, {30, 7}};

typedef struct case_of {
    kh_run run;
    kh_pool pool;
    kh_tape tape;
    kh_arena step;
    float *x, *y, *dx, *dy; /* buffers and their twins */
    float *x0, *dy0;
} case_of;

static float number(size_t i, unsigned salt)
{
    return (float)((i * 2654435761u + salt * 40503u) >> 7 & 1023) / 512 - 1;
}

static void begin(case_of *c, size_t nx, size_t ny, int threads)
{
    memset(c, 0, sizeof *c);
    assert_int_equal(kh_tape_open(&c->tape, 1 << 24), KH_OK);
    assert_int_equal(kh_arena_init(&c->step, "step", 1 << 22), KH_OK);
    assert_int_equal(kh_arena_new(&c->step, &c->x, nx, sizeof(float)), KH_OK);
    assert_int_equal(kh_arena_new(&c->step, &c->y, ny, sizeof(float)), KH_OK);
    assert_int_equal(kh_arena_new(&c->step, &c->x0, nx, sizeof(float)), KH_OK);
    assert_int_equal(kh_arena_new(&c->step, &c->dy0, ny, sizeof(float)), KH_OK);
    assert_int_equal(kh_tape_buffer(&c->tape, &c->step, c->x, nx), KH_OK);
    assert_int_equal(kh_tape_buffer(&c->tape, &c->step, c->y, ny), KH_OK);
    c->pool.threads = threads;
    c->run = (kh_run){.pool = &c->pool, .kern = kh_kern_get(kh_cpu_isa()), .tape = &c->tape};
    c->dx = kh_tape_twin_of(&c->run, c->x);
    c->dy = kh_tape_twin_of(&c->run, c->y);
    for (size_t i = 0; i < nx; i++) c->x[i] = c->x0[i] = number(i, 1);
    for (size_t i = 0; i < nx; i++) c->dx[i] = number(i, 2);
    for (size_t i = 0; i < ny; i++) c->dy0[i] = number(i, 3);
}

/* x is written over behind the op, as buffers of a pass are. */
static void back(case_of *c, size_t nx, size_t ny)
{
    memset(c->x, 0, nx * sizeof *c->x);
    memcpy(c->dy, c->dy0, ny * sizeof *c->dy);
    assert_int_equal(kh_tape_backward(&c->run, NULL), KH_OK);
    for (size_t i = 0; i < ny; i++) assert_true(c->dy[i] == 0);
}

static void end(case_of *c)
{
    kh_tape_close(&c->tape);
    kh_arena_free(&c->step);
}

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-6 * (1 + fabs(want)))) fail_msg("%g instead of %g", got, want);
}

static double weight_of(kh_pooled how, const kh_row_range *r, size_t t)
{
    if (t < r->row || t >= r->row + r->rows) return 0;
    if (how == KH_POOLED_MEAN) return 1 / (double)r->rows;
    return t == (how == KH_POOLED_FIRST ? r->row : r->row + r->rows - 1);
}

static void pools(void **state)
{
    case_of c;
    (void)state;
    for (int i = 0; i < 6; i++) {
        kh_pooled how = (kh_pooled)(KH_POOLED_MEAN + i % 3);
        begin(&c, T * D, N * D, 1 + i / 3);
        kh_op_pool(&c.run, c.y, c.x, ranges, N, D, how);
        for (size_t n = 0; n < N; n++)
            for (size_t d = 0; d < D; d++) {
                double sum = 0;
                for (size_t t = 0; t < T; t++)
                    sum += weight_of(how, &ranges[n], t) * (double)c.x0[t * D + d];
                near((double)c.y[n * D + d], sum);
            }
        back(&c, T * D, N * D);
        for (size_t t = 0; t < T; t++)
            for (size_t d = 0; d < D; d++) {
                double sum = (double)number(t * D + d, 2);
                for (size_t n = 0; n < N; n++)
                    sum += weight_of(how, &ranges[n], t) * (double)c.dy0[n * D + d];
                near((double)c.dx[t * D + d], sum);
            }
        end(&c);
    }
}

static void pairs(void **state)
{
    case_of c;
    (void)state;
    for (size_t parts = 2; parts <= 4; parts += 2) {
        begin(&c, 2 * N * D, N * parts * D, 2);
        kh_op_pair(&c.run, c.y, c.x, N, D, parts);
        float *y = c.y;
        for (size_t n = 0; n < N; n++, y += parts * D)
            for (size_t d = 0; d < D; d++) {
                float a = c.x0[2 * n * D + d], b = c.x0[(2 * n + 1) * D + d];
                assert_true(y[d] == a && y[D + d] == b);
                if (parts == 4) assert_true(y[2 * D + d] == a * b && y[3 * D + d] == a - b);
            }
        back(&c, 2 * N * D, N * parts * D);
        for (size_t n = 0; n < N; n++)
            for (size_t d = 0; d < D; d++) {
                size_t at = 2 * n * D + d;
                const float *g = c.dy0 + n * parts * D + d;
                double a = (double)c.x0[at], b = (double)c.x0[at + D];
                double da = (double)g[0], db = (double)g[D];
                if (parts == 4) {
                    da += (double)g[2 * D] * b + (double)g[3 * D];
                    db += (double)g[2 * D] * a - (double)g[3 * D];
                }
                near((double)c.dx[at], da + (double)number(at, 2));
                near((double)c.dx[at + D], db + (double)number(at + D, 2));
            }
        end(&c);
    }
}

/* Without a tape nothing is recorded. */
static void runs_alone(void **state)
{
    case_of c;
    (void)state;
    begin(&c, T * D, N * D, 1);
    c.run.tape = NULL;
    kh_op_pool(&c.run, c.y, c.x, ranges, N, D, KH_POOLED_MEAN);
    kh_op_pair(&c.run, c.y, c.x, 1, D, 2);
    kh_op_pool(&c.run, c.y, c.x, ranges, 0, D, KH_POOLED_MEAN);
    assert_null(c.tape.last);
    end(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pools),
        cmocka_unit_test(pairs),
        cmocka_unit_test(runs_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
