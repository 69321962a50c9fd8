/* The backward halves in f32, on every instruction set of this processor, against those in double: 1e-4 of a
 * gradient, or of a hundredth of its array's largest; and the same bits for 1 and 2 threads and for chunks. */
#include "export_double.h"
#include "grad_cases.h"

#include <math.h>
#include <string.h>

static void compare(const grad_space *s, const grad_array *a, const double *want)
{
    double largest = 0;
    for (size_t k = 0; k < a->n; k++) largest = fmax(largest, fabs(want[k]));
    for (size_t k = 0; k < a->n; k++) {
        double size = fmax(fabs(want[k]), 1e-2 * largest);
        if (!(fabs((double)a->gradient[k] - want[k]) <= 1e-4 * size + 1e-7))
            fail_msg("%s, instruction set %d: %s [%zu of %zu]: %.9g, in double %.9g", s->of->name,
                     (int)s->run.kern->isa, a->name, k, a->n, (double)a->gradient[k], want[k]);
    }
}

/* Bit for bit what `first` had. */
static void run_again(const grad_space *first, int threads, size_t chunk)
{
    static grad_space s;
    grad_open(&s, first->of, first->run.kern->isa, threads, chunk);
    grad_run(&s);
    for (size_t i = 0; i < s.count; i++)
        if (memcmp(s.arrays[i].gradient, first->arrays[i].gradient, s.arrays[i].n * sizeof(float)))
            fail_msg("%s, instruction set %d: %s has other bits with %d threads and chunks of %zu",
                     s.of->name, (int)s.run.kern->isa, s.arrays[i].name, threads, chunk);
    grad_close(&s);
}

/* `unit`: what chunks are multiples of. */
static void check(const grad_case *of, kh_isa isa, size_t unit)
{
    static grad_space s;
    grad_open(&s, of, isa, 1, 0);
    grad_run(&s);
    for (size_t i = 0; i < s.count; i++) {
        grad_array *a = &s.arrays[i];
        if (a->kind == GRAD_FROZEN) continue;
        double *want = grad_memory(&s, a->n * sizeof *want);
        assert_int_equal(kh_grad_double(of->name, i, want, a->n), a->n);
        compare(&s, a, want);
    }
    run_again(&s, 2, 0);
    run_again(&s, 2, unit);
    run_again(&s, 1, 2 * unit);
    grad_close(&s);
}

static void test_all(void **state)
{
    (void)state;
    for (size_t l = 0; grad_all[l]; l++)
        for (const grad_case *c = grad_all[l]; c->name; c++)
            for (int isa = KH_ISA_REF; isa <= (int)kh_cpu_isa(); isa++)
                check(c, (kh_isa)isa, grad_all[l] == grad_row_cases ? 64 : 256);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
