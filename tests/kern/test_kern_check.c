/* Every body of every kernel against its plain C twin, expanded from the one list.
 *
 * A test is a kernel; it runs its check for every instruction set of this processor that has a body of
 * its own. Sets that the processor lacks are named once, so that a log tells what was not seen. */
#include "check.h"
#include "cpu/cpu.h"
#include "tensor/half.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static uint64_t state = 0x9e3779b97f4a7c15u;

uint64_t check_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545f4914f6cdd1du;
}

float check_uniform(float size)
{
    return size * ((float)(check_random() >> 40) * 0x1p-23f - 1.0f);
}

void check_fill(float *x, size_t n, float size)
{
    for (size_t i = 0; i < n; i++) x[i] = check_uniform(size);
}

void check_fill_bytes(void *x, size_t n)
{
    for (size_t i = 0; i < n; i++) ((unsigned char *)x)[i] = (unsigned char)(check_random() >> 56);
}

void check_bits(const char *what, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (isnan(a[i]) && isnan(b[i])) continue;
        if (kh_f32_bits(a[i]) != kh_f32_bits(b[i]))
            fail_msg("%s: element %zu of %zu: %.9g, the twin has %.9g", what, i, n, (double)a[i],
                     (double)b[i]);
    }
}

void check_near(const char *what, const float *a, const double *b, const double *size, size_t n,
                double tolerance)
{
    for (size_t i = 0; i < n; i++) {
        double limit = tolerance * (size ? size[i] : 1.0);
        if (!(fabs((double)a[i] - b[i]) <= limit))
            fail_msg("%s: element %zu of %zu: %.9g, expected %.9g within %.3g", what, i, n,
                     (double)a[i], b[i], limit);
    }
}

void check_make_q8(const kh_kern *ref, check_q8 *row, size_t n, int kind)
{
    float x[4096];
    assert_true(n <= 4096);
    for (size_t i = 0; i < n; i++) {
        x[i] = check_uniform(kind == 3 ? 1e-20f : 3.0f);
        if (kind == 1) x[i] = 0.0f;
        if (kind == 2) x[i] = x[i] < 0.0f ? -2.0f : 2.0f;
    }
    ref->quantize_q8(row->q, row->d, row->s, x, n);
}

typedef struct check {
    const char *name;
    void (*run)(const kh_kern *ref, const kh_kern *other);
    size_t slot; /* of the kernel in kh_kern */
} check;

#define ROW_R(name)
#define ROW_A(name)                  {#name, check_##name, offsetof(kh_kern, name)},
#define ROW_B(name)                  ROW_A(name)
#define ROW_C(name)                  ROW_A(name)
#define ROW(level, ret, name, param) ROW_##level(name)
static check checks[] = {KH_KERN_LIST(ROW)};
enum { CHECKS = sizeof checks / sizeof *checks };

static int same_body(const kh_kern *a, const kh_kern *b, size_t slot)
{
    return memcmp((const char *)a + slot, (const char *)b + slot, sizeof(void (*)(void))) == 0;
}

static void test_kernel(void **context)
{
    const check *c = *context;
    const kh_kern *ref = kh_kern_get(KH_ISA_REF), *below = ref;
    int bodies = 0;
    for (int isa = KH_ISA_AVX2; isa <= (int)kh_cpu_isa(); isa++) {
        const kh_kern *other = kh_kern_get((kh_isa)isa);
        if (!same_body(other, below, c->slot)) {
            c->run(ref, other);
            bodies++;
        }
        below = other;
    }
    if (bodies == 0) skip();
}

int main(void)
{
    static struct CMUnitTest tests[CHECKS];
    for (int i = 0; i < CHECKS; i++)
        tests[i] = (struct CMUnitTest){checks[i].name, test_kernel, NULL, NULL, &checks[i]};
    for (int isa = (int)kh_cpu_isa() + 1; isa < KH_ISA_COUNT; isa++)
        print_message("not checked on this processor: %s\n", kh_isa_name((kh_isa)isa));
    return cmocka_run_group_tests_name("kernels against their twins", tests, NULL, NULL);
}
