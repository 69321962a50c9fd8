/* Every op's backward half against finite differences, in double: 1e-6. */
#include "grad_cases.h"

#include <math.h>
#include <string.h>

static void prove(const grad_case *list)
{
    static grad_space s;
    for (; list->name; list++) {
        grad_open(&s, list, KH_ISA_REF, 2, 0);
        grad_prove(&s, 0);
        grad_close(&s);
    }
}

static void test_rows(void **state)
{
    (void)state;
    prove(grad_row_cases);
}

static void test_linear(void **state)
{
    (void)state;
    prove(grad_linear_cases);
}

static void test_choice(void **state)
{
    (void)state;
    prove(grad_choice_cases);
}

static void test_pool(void **state)
{
    (void)state;
    prove(grad_pool_cases);
}

static void compare(const grad_case *of, const grad_array *a, const double *want)
{
    double largest = 0;
    for (size_t k = 0; k < a->n; k++) largest = fmax(largest, fabs(want[k]));
    for (size_t k = 0; k < a->n; k++)
        if (!(fabs((double)a->gradient[k] - want[k]) <= 1e-12 * largest))
            fail_msg("%s: %s [%zu]: %.15g, expected %.15g", of->name, a->name, k,
                     (double)a->gradient[k], want[k]);
}

static void test_linear_large(void **state)
{
    static grad_space s;
    (void)state;
    for (const grad_case *c = grad_large_cases; c->name; c++) {
        grad_open(&s, c, KH_ISA_REF, 2, 0);
        grad_run(&s);
        double *dx = grad_memory(&s, s.arrays[0].n * sizeof *dx);
        memset(dx, 0, s.arrays[0].n * sizeof *dx);
        for (size_t i = 0; i < 3; i++) {
            double *dw = grad_memory(&s, s.arrays[1 + i].n * sizeof *dw);
            grad_linear_truth(&s, dx, dw, i);
            compare(c, &s.arrays[1 + i], dw);
            for (size_t k = 0; k < s.arrays[4 + i].n; k++)
                assert_true(s.arrays[4 + i].gradient[k] == 0);
        }
        for (size_t k = 0; k < s.arrays[0].n; k++) dx[k] += (double)s.arrays[0].loss[k];
        compare(c, &s.arrays[0], dx);
        grad_close(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_linear),
                                       cmocka_unit_test(test_choice), cmocka_unit_test(test_pool),
                                       cmocka_unit_test(test_linear_large)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
