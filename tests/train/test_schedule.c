/* Schedules against the published recipes and PyTorch's formulas; whole numbers that move. */
#include "support/golden_run.h"
#include "train/schedule.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void refused(kh_status got, const char *part)
{
    assert_int_equal(got, KH_ERR_ARGUMENT);
    if (!strstr(kh_last_error(), part))
        fail_msg("'%s' does not contain '%s'", kh_last_error(), part);
}

static void near(double got, double expected)
{
    if (!(fabs(got - expected) <= 1e-12 + 1e-12 * fabs(expected)))
        fail_msg("%.15g, expected %.15g", got, expected);
}

/* The largest rate of a run and the first step that has it. */
static double peak_of(const char *text, double base, uint64_t steps, uint64_t *at)
{
    kh_schedule s;
    double most = -1;
    GOOD(kh_schedule_parse(&s, text, base, steps));
    for (uint64_t t = 1; t <= steps; t++)
        if (kh_schedule_rate(&s, t) > most) {
            most = kh_schedule_rate(&s, t);
            *at = t;
        }
    return most;
}

/* The table of Long Range Arena's recipes: warm-up, steps, peak to three digits. */
static void peaks_of_the_recipes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double base;
        uint64_t steps, peak_step;
        double peak;
    } recipes[] = {{"rsqrt:warmup=1000", 0.05, 5000, 1000, 1.58e-3},
                   {"rsqrt:warmup=8000", 0.05, 20000, 8000, 5.59e-4},
                   {"cosine:warmup=312", 1e-3, 62400, 312, 1e-3},
                   {"cosine:warmup=175", 5e-4, 35000, 175, 5e-4},
                   {"constant", 5e-5, 3001, 1, 5e-5}};
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        uint64_t at = 0;
        double peak = peak_of(recipes[i].text, recipes[i].base, recipes[i].steps, &at);
        assert_int_equal(at, recipes[i].peak_step);
        assert_true(fabs(peak / recipes[i].peak - 1) < 1e-3);
    }
    /* AAN: 5,000 steps of a warm-up of 8,000 */
    uint64_t at = 0;
    double peak = peak_of("rsqrt:warmup=8000", 0.05, 5000, &at);
    assert_int_equal(at, 5000);
    near(peak, 0.05 * 5000 / 8000 / sqrt(8000));
}

static void formulas(void **state)
{
    (void)state;
    kh_schedule s;
    GOOD(kh_schedule_parse(&s, "rsqrt:warmup=100", 2, 0));
    for (uint64_t t = 1; t < 1000; t++) { /* as the recipe writes it */
        double step = (double)t;
        near(kh_schedule_rate(&s, t), 2 * fmin(1, step / 100) / sqrt(fmax(step, 100)));
    }
    GOOD(kh_schedule_parse(&s, "linear", 3, 50));
    for (uint64_t t = 1; t <= 50; t++) near(kh_schedule_rate(&s, t), 3 * (51.0 - (double)t) / 50);
    near(kh_schedule_rate(&s, 51), 0);
    near(kh_schedule_rate(&s, 5000), 0);
    GOOD(kh_schedule_parse(&s, "linear:warmup=10,floor=0.2,steps=30", 1, 50));
    near(kh_schedule_rate(&s, 1), 0.1);
    near(kh_schedule_rate(&s, 10), 1);
    near(kh_schedule_rate(&s, 11), 1 - 0.8 / 21);
    near(kh_schedule_rate(&s, 30), 1 - 0.8 * 20 / 21);
    near(kh_schedule_rate(&s, 31), 0.2);
    GOOD(kh_schedule_parse(&s, "cosine:floor=0.1", 1e-2, 99));
    near(kh_schedule_rate(&s, 1), 1e-2);
    near(kh_schedule_rate(&s, 1 + 33), 1e-2 * (0.1 + 0.9 * 0.75)); /* a third of the way */
    near(kh_schedule_rate(&s, 1 + 99), 1e-3);
    GOOD(kh_schedule_parse(&s, "constant:warmup=4", 1, 0));
    near(kh_schedule_rate(&s, 3), 0.75);
    near(kh_schedule_rate(&s, 400), 1);
    GOOD(kh_schedule_parse(&s, "cosine:warmup=20", 1, 10)); /* longer than the run */
    near(kh_schedule_rate(&s, 10), 0.5);
    GOOD(kh_schedule_parse(&s, "linear", 0, 10));
    assert_true(kh_schedule_rate(&s, 5) == 0);
}

static void mistakes(void **state)
{
    (void)state;
    kh_schedule s;
    refused(kh_schedule_parse(&s, "step", 1, 10),
            "schedule 'step': nothing is called 'step' (constant, linear, cosine, rsqrt)");
    refused(kh_schedule_parse(&s, "cosine:warmup=1.5", 1, 10), "a whole number from 0");
    refused(kh_schedule_parse(&s, "cosine:floor=2", 1, 10), "floor must be a number from 0 to 1");
    refused(kh_schedule_parse(&s, "rsqrt:floor=0", 1, 10),
            "has no parameter 'floor' (it has: warm");
    refused(kh_schedule_parse(&s, "linear", 1, 0), "the run has no number of steps; give steps=N");
    refused(kh_schedule_parse(&s, "linear", -1, 10), "the learning rate is -1");
    refused(kh_schedule_parse(&s, "linear", HUGE_VAL, 10), "the learning rate is inf");
}

static int64_t at(const char *text, uint64_t step)
{
    kh_moving m;
    const char *end;
    GOOD(kh_moving_parse(&m, text, &end));
    assert_int_equal(*end, 0);
    return kh_moving_at(&m, step);
}

static void numbers_move(void **state)
{
    (void)state;
    static const char *const even[] = {"16..128/1000", "16..128 over 1000 steps"};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(at(even[i], 1), 16);
        assert_int_equal(at(even[i], 500), 71); /* 16 + 112 * 499 / 999 */
        assert_int_equal(at(even[i], 999), 127);
        assert_int_equal(at(even[i], 1000), 128);
        assert_int_equal(at(even[i], 123456), 128);
    }
    int64_t last = 0;
    for (uint64_t t = 1; t <= 1000; t++) { /* never backwards, never by more than one */
        int64_t k = at("16..128/1000", t);
        assert_true(k == last || k == last + 1 || t == 1);
        last = k;
    }
    static const int64_t up[] = {16, 16, 32, 32, 64, 128}, down[] = {100, 100, 50, 50, 25, 16};
    for (uint64_t t = 1; t <= 6; t++) {
        assert_int_equal(at("16x2..128/6", t), up[t - 1]);
        assert_int_equal(at("100x2..16/6", t), down[t - 1]);
    }
    assert_int_equal(at("8..4/5", 1), 8);
    assert_int_equal(at("8..4/5", 4), 5);
    assert_int_equal(at("8..4/5", 5), 4);
    assert_int_equal(at("8..4/1", 1), 4);
    assert_int_equal(at("3x2..3/10", 5), 3);
    assert_int_equal(at("1..1000000000/1000000000", 999999999), 999999999);
}

static void plans_are_expanded(void **state)
{
    (void)state;
    static const struct {
        const char *text, *first, *later;
    } plans[] = {
        {"full", "full", "full"},
        {"", "", ""},
        {"topk:k=64,min-p=0.05,tail=mean", "topk:k=64,min-p=0.05,tail=mean",
         "topk:k=64,min-p=0.05,tail=mean"},
        {"topk:k=16..128/1000", "topk:k=16", "topk:k=71"},
        {"topk:k=16..128 over 1000 steps,recent=8", "topk:k=16,recent=8", "topk:k=71,recent=8"},
        {"0-1=full;2.0-3=topk:k=16..128/1000;3-=window:w=4x2..64/1000",
         "0-1=full;2.0-3=topk:k=16;3-=window:w=4", "0-1=full;2.0-3=topk:k=71;3-=window:w=8"}};
    kh_buf out = {0};
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++)
        for (int later = 0; later < 2; later++) {
            kh_buf_clear(&out);
            GOOD(kh_moving_expand(&out, plans[i].text, later ? 500 : 1));
            assert_string_equal(out.data, later ? plans[i].later : plans[i].first);
        }
    static const char *const bad[] = {"k=16..128",      "k=16..128/",     "k=0..4/10",
                                      "k=16..x/10",     "k=16..128/0",    "k=1..99999999999/5",
                                      "k=16..128 over", "k=1..2 over 10", "k=16x2..128"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        kh_buf_clear(&out);
        refused(kh_moving_expand(&out, bad[i], 1), "is written 16..128/1000");
    }
    kh_buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peaks_of_the_recipes),
        cmocka_unit_test(formulas),
        cmocka_unit_test(mistakes),
        cmocka_unit_test(numbers_move),
        cmocka_unit_test(plans_are_expanded),
    };
    return cmocka_run_group_tests_name("schedules", tests, NULL, NULL);
}
