/* Generated tasks: the line that opens one, streams, and the invariants of the recall tasks.
 *
 * What is true of an example is checked on the example, by code that knows the task's rules and not the
 * generator; what is true of a distribution is compared with its exact value within five standard errors,
 * on fixed seeds. A hash of the first examples pins the stream: data sets that have been trained on must
 * not change silently. */
#include <keyhole/task.h>

#include "base/alloc.h"
#include "tasks/task_impl.h"
#include "tasks/task_math.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static kh_task *open_task(const char *setting)
{
    kh_task *task = NULL;
    if (kh_task_open(&task, setting) != KH_OK) fail_msg("%s: %s", setting, kh_last_error());
    return task;
}

static uint64_t hash_of(const kh_task_example *e, uint64_t hash)
{
    for (size_t t = 0; t < e->n; t++) {
        hash = (hash ^ (uint64_t)(uint32_t)e->tokens[t]) * 0x100000001b3ull;
        hash = (hash ^ (uint64_t)(uint32_t)e->targets[t]) * 0x100000001b3ull;
    }
    return (hash ^ (uint64_t)(uint32_t)e->label) * 0x100000001b3ull;
}

static void settings_are_written_out(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"mqar", "mqar:L=64,pairs=4,vocab=512,power=0.01,random=0"},
        {"mqar:pairs=8,L=128", "mqar:L=128,pairs=8,vocab=512,power=0.01,random=0"},
        {"copy:vocab=16", "copy:length=32,vocab=16"},
        {"induction", "induction:L=64,vocab=64"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        kh_task *task = open_task(pairs[i][0]);
        assert_string_equal(kh_task_get_info(task)->setting, pairs[i][1]);
        kh_task *again = open_task(kh_task_get_info(task)->setting);
        assert_string_equal(kh_task_get_info(again)->setting, pairs[i][1]);
        kh_task_close(again);
        kh_task_close(task);
    }
    for (size_t i = 0; i < kh_task_kind_count(); i++) assert_non_null(kh_task_kind_at(i)->about);
    assert_null(kh_task_kind_at(kh_task_kind_count()));
}

static void mistakes_are_sentences(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {
        {"", "no task was named"},
        {"mqra", "no task is called 'mqra' (listops, mqar, pathfinder, bytes, copy, induction)"},
        {"mqar:K=4", "mqar has no parameter 'K' (it has: L, pairs, vocab, power, random)"},
        {"mqar:L", "'L' has no '='"},
        {"mqar:L=64,L=64", "L is given twice"},
        {"mqar:L=x", "L=x is not allowed, L must be a whole number from 4 to 1048576"},
        {"mqar:L=64.5", "whole number"},
        {"mqar:L= 64", "L= 64 is not allowed"},
        {"mqar:L=nan", "is not allowed"},
        {"mqar:power=-1", "power must be a number from 0 to 8"},
        {"mqar:L=65", "L must be even"},
        {"mqar:L=64,pairs=17", "at least 4 * pairs = 68"},
        {"mqar:L=64,vocab=64", "vocab must be larger than L = 64"},
        {"copy:vocab=3", "from 4 to"},
        {"induction:L=2", "from 3 to"},
        {"copy:", "'' has no '='"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        kh_task *task = (kh_task *)state;
        assert_int_equal(kh_task_open(&task, wrong[i][0]), KH_ERR_ARGUMENT);
        assert_null(task);
        if (!strstr(kh_last_error(), wrong[i][1]))
            fail_msg("%s: found '%s', expected '%s'", wrong[i][0], kh_last_error(), wrong[i][1]);
    }
    kh_task *task = open_task("copy");
    kh_task_example e;
    assert_int_equal(kh_task_example_open(&e, task), KH_OK);
    assert_int_equal(kh_task_generate(task, 1, (kh_task_split)3, 0, &e), KH_ERR_ARGUMENT);
    kh_task_example_close(&e);
    kh_task_close(task);
    kh_task_close(NULL);
}

/* The same example from any order and any buffer; another one for each seed, split and index. */
static void examples_are_pure_functions(void **state)
{
    (void)state;
    static const char *const settings[] = {"mqar:random=1", "copy", "induction", "listops",
                                           "pathfinder:length=6"};
    for (size_t s = 0; s < sizeof settings / sizeof *settings; s++) {
        kh_task *task = open_task(settings[s]), *twin = open_task(settings[s]);
        kh_task_example a, b;
        assert_int_equal(kh_task_example_open(&a, task), KH_OK);
        assert_int_equal(kh_task_example_open(&b, twin), KH_OK);
        uint64_t seen[3 * 2 * 50];
        size_t count = 0;
        for (int split = 0; split < 3; split++)
            for (uint64_t seed = 7; seed < 9; seed++)
                for (uint64_t i = 50; i-- > 0;) {
                    assert_int_equal(kh_task_generate(task, seed, (kh_task_split)split, i, &a),
                                     KH_OK);
                    seen[count++] = hash_of(&a, 1);
                }
        for (size_t i = 0; i < count; i++)
            for (size_t j = 0; j < i; j++) assert_true(seen[i] != seen[j]);
        for (uint64_t i = 0; i < 50; i++) {
            assert_int_equal(kh_task_generate(twin, 7, KH_TASK_TRAIN, i, &b), KH_OK);
            assert_true(seen[49 - i] == hash_of(&b, 1));
        }
        kh_task_example_close(&a);
        kh_task_example_close(&b);
        kh_task_close(task);
        kh_task_close(twin);
    }
}

static void streams_are_pinned(void **state)
{
    (void)state;
    static const struct {
        const char *setting;
        uint64_t hash;
    } pins[] = {{"mqar", 0x58bfb42eeec20771},
                {"mqar:L=512,pairs=64,vocab=8192,random=1", 0x42f08adb5b6d29c1},
                {"copy", 0xdc1ce457507df571},
                {"induction", 0x434aea2916382a53},
                {"listops", 0x8a6e4bf63333fb34},
                {"listops:min=500,max=2000,depth=10,args=10", 0x4f27871e04f17c9},
                {"pathfinder", 0xf615ef0c437b0e48},
                {"pathfinder:size=64,length=6", 0x35067f6ad45db81a}};
    int bad = 0;
    for (size_t p = 0; p < sizeof pins / sizeof *pins; p++) {
        kh_task *task = open_task(pins[p].setting);
        kh_task_example e;
        assert_int_equal(kh_task_example_open(&e, task), KH_OK);
        uint64_t hash = 1;
        for (uint64_t i = 0; i < 20; i++) {
            assert_int_equal(kh_task_generate(task, 123, KH_TASK_VALID, i, &e), KH_OK);
            hash = hash_of(&e, hash);
        }
        if (hash != pins[p].hash)
            print_error("%s: the stream is %#llx\n", pins[p].setting, (unsigned long long)hash);
        bad += hash != pins[p].hash;
        kh_task_example_close(&e);
        kh_task_close(task);
    }
    assert_int_equal(bad, 0);
}

/* ---- mqar ---- */

static int32_t value_after(const kh_task_example *e, size_t pairs, int32_t key)
{
    int32_t found = -1;
    for (size_t j = 0; j < pairs; j++)
        if (e->tokens[2 * j] == key) {
            assert_int_equal(found, -1);
            found = e->tokens[2 * j + 1];
        }
    return found;
}

static void mqar_keeps_its_rules(void **state)
{
    (void)state;
    static const struct {
        const char *setting;
        size_t length, pairs;
        int32_t vocab;
        int random;
    } cases[] = {{"mqar", 64, 4, 512, 0},
                 {"mqar:L=128,pairs=8,random=1", 128, 8, 512, 1},
                 {"mqar:L=16,pairs=4,vocab=17", 16, 4, 17, 0}, /* every slot is taken */
                 {"mqar:L=512,pairs=64,vocab=8192,power=1", 512, 64, 8192, 0}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        kh_task *task = open_task(cases[c].setting);
        kh_task_example e;
        size_t pairs = cases[c].pairs;
        assert_int_equal(kh_task_get_info(task)->vocabulary, cases[c].vocab);
        assert_int_equal(kh_task_get_info(task)->longest, cases[c].length);
        assert_int_equal(kh_task_example_open(&e, task), KH_OK);
        for (uint64_t i = 0; i < 300; i++) {
            assert_int_equal(kh_task_generate(task, 5, KH_TASK_TRAIN, i, &e), KH_OK);
            assert_int_equal(e.n, cases[c].length);
            assert_int_equal(e.label, -1);
            size_t queries = 0, noise = 0;
            for (size_t j = 0; j < pairs; j++) {
                int32_t key = e.tokens[2 * j], value = e.tokens[2 * j + 1];
                assert_in_range(key, 1, cases[c].vocab / 2 - 1);
                assert_in_range(value, cases[c].vocab / 2, cases[c].vocab - 1);
                for (size_t h = 0; h < j; h++) assert_true(e.tokens[2 * h + 1] != value);
                assert_int_equal(value_after(&e, pairs, key), value);
            }
            for (size_t t = 0; t < e.n; t++) {
                assert_in_range(e.tokens[t], 0, cases[c].vocab - 1);
                if (e.targets[t] >= 0) {
                    assert_true(t >= 2 * pairs && t % 2 == 0);
                    assert_int_equal(e.targets[t], value_after(&e, pairs, e.tokens[t]));
                    queries++;
                } else if (t >= 2 * pairs) {
                    noise += e.tokens[t] != 0;
                }
            }
            assert_int_equal(queries, pairs);
            if (cases[c].random)
                assert_true(noise > e.n / 2);
            else
                assert_int_equal(noise, 0);
        }
        kh_task_example_close(&e);
        kh_task_close(task);
    }
}

/* The share of a query's weight that lies in the first four slots: sum i^(a-1), 1..4 over 1..slots. */
static double first_four(size_t slots, double power)
{
    double four = 0, all = 0;
    for (size_t i = 1; i <= slots; i++) {
        all += pow((double)i, power - 1);
        if (i <= 4) four += pow((double)i, power - 1);
    }
    return four / all;
}

/* The first pair's query is the first slot that is drawn: its distribution is the weights themselves. */
static void mqar_asks_soon(void **state)
{
    (void)state;
    static const struct {
        const char *setting;
        size_t length, pairs;
        double power, published;
    } cases[] = {{"mqar", 64, 4, 0.01, 0.53},
                 {"mqar:L=512,pairs=64,vocab=8192", 512, 64, 0.01, 0.35},
                 {"mqar:power=1", 64, 4, 1, 4.0 / 28}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        size_t pairs = cases[c].pairs, slots = (cases[c].length - 2 * pairs) / 2;
        double expected = first_four(slots, cases[c].power);
        assert_true(fabs(expected - cases[c].published) < 0.006);
        kh_task *task = open_task(cases[c].setting);
        kh_task_example e;
        assert_int_equal(kh_task_example_open(&e, task), KH_OK);
        enum { N = 4000 };
        double first = 0;
        for (uint64_t i = 0; i < N; i++) {
            assert_int_equal(kh_task_generate(task, 9, KH_TASK_TRAIN, i, &e), KH_OK);
            size_t t = 2 * pairs;
            while (e.tokens[t] != e.tokens[0]) t += 2;
            first += t < 2 * pairs + 8;
        }
        double error = sqrt(expected * (1 - expected) / N);
        assert_true(fabs(first / N - expected) < 5 * error);
        kh_task_example_close(&e);
        kh_task_close(task);
    }
}

/* ---- copy and induction ---- */

static void copy_and_induction_keep_their_rules(void **state)
{
    (void)state;
    kh_task *copy = open_task("copy:length=5,vocab=9"),
            *induction = open_task("induction:L=7,vocab=9");
    kh_task_example e;
    assert_int_equal(kh_task_example_open(&e, copy), KH_OK);
    for (uint64_t i = 0; i < 200; i++) {
        assert_int_equal(kh_task_generate(copy, 3, KH_TASK_TEST, i, &e), KH_OK);
        assert_int_equal(e.n, 10);
        assert_int_equal(e.tokens[5], 1);
        for (size_t t = 0; t < 5; t++) {
            assert_in_range(e.tokens[t], 2, 8);
            assert_int_equal(e.targets[t], -1);
            assert_int_equal(e.targets[5 + t], e.tokens[t]);
            if (t < 4) assert_int_equal(e.tokens[6 + t], e.targets[5 + t]);
        }
    }
    kh_task_example_close(&e);
    assert_int_equal(kh_task_example_open(&e, induction), KH_OK);
    unsigned stars = 0;
    for (uint64_t i = 0; i < 200; i++) {
        assert_int_equal(kh_task_generate(induction, 3, KH_TASK_TEST, i, &e), KH_OK);
        assert_int_equal(e.n, 7);
        assert_int_equal(e.tokens[6], 1);
        size_t star = 0;
        while (e.tokens[star] != 1) star++;
        assert_in_range(star, 0, 4);
        stars |= 1u << star;
        assert_int_equal(e.targets[6], e.tokens[star + 1]);
        for (size_t t = 0; t < 6; t++) assert_true(t == star || e.tokens[t] >= 2);
        for (size_t t = 0; t < 6; t++) assert_int_equal(e.targets[t], -1);
    }
    assert_int_equal(stars, 31);
    kh_task_example_close(&e);
    kh_task_close(copy);
    kh_task_close(induction);
}

/* ---- statistics and baselines ---- */

static void baselines_are_near_their_expectation(void **state)
{
    (void)state;
    kh_task *task = open_task("mqar");
    kh_task_number numbers[KH_TASK_MOST_NUMBERS];
    size_t count = 0;
    assert_int_equal(kh_task_baselines(task, 1, 20000, 4000, numbers, &count), KH_OK);
    assert_int_equal(count, 3);
    assert_true(numbers[0].value < 0.01);                /* 1 of 256 values */
    assert_true(fabs(numbers[1].value - 0.25) < 0.0075); /* 1 of 4 pairs, exactly one is right */
    assert_true(fabs(numbers[2].value - 0.287) < 0.02);
    kh_task_stats stats;
    assert_int_equal(kh_task_measure(task, 1, KH_TASK_TRAIN, 2000, &stats), KH_OK);
    assert_int_equal(stats.examples, 2000);
    assert_int_equal(stats.duplicates, 0);
    assert_int_equal(stats.shortest, 64);
    assert_int_equal(stats.longest, 64);
    assert_true(stats.mean_length == 64 && stats.answers == 4 && stats.acceptance == 1);
    assert_int_equal(stats.count, 3);
    assert_true(fabs(stats.numbers[0].value - 0.53) < 5 * sqrt(0.25 / 2000));
    kh_task_close(task);
    task = open_task("copy:length=1,vocab=4"); /* has two examples */
    assert_int_equal(kh_task_measure(task, 1, KH_TASK_TRAIN, 100, &stats), KH_OK);
    assert_int_equal(stats.duplicates, 98);
    assert_int_equal(kh_task_measure(task, 1, KH_TASK_TRAIN, 0, &stats), KH_ERR_ARGUMENT);
    assert_int_equal(kh_task_baselines(task, 1, 0, 1, numbers, &count), KH_ERR_ARGUMENT);
    kh_task_close(task);
}

static void examples_have_a_written_form(void **state)
{
    (void)state;
    kh_task *task = open_task("copy:length=2,vocab=4");
    kh_task_example e;
    assert_int_equal(kh_task_example_open(&e, task), KH_OK);
    assert_int_equal(kh_task_generate(task, 1, KH_TASK_TRAIN, 0, &e), KH_OK);
    char *text = NULL, expected[32];
    size_t size = 0;
    assert_int_equal(kh_task_text(task, &e, &text, &size), KH_OK);
    snprintf(expected, sizeof expected, "%d %d | %d", e.tokens[0], e.tokens[1], e.tokens[0]);
    assert_string_equal(text, expected);
    assert_int_equal(size, strlen(expected));
    kh_free(text);
    char word[2];
    assert_int_equal(kh_task_spell(task, 1, word, sizeof word), 1);
    assert_string_equal(word, "|");
    kh_task_example_close(&e);
    kh_task_close(task);
}

static void powers_are_powers(void **state)
{
    (void)state;
    for (double x = 1; x < 1e9; x *= 1.37)
        for (double y = -4; y <= 4; y += 0.37) {
            double expected = pow(x, y);
            assert_true(fabs(kh_task_power(x, y) - expected) <= 1e-13 * expected);
        }
    assert_true(kh_task_power(1, -0.99) == 1);
}

/* Whole numbers below n: all of them, equally often. */
static void draws_are_uniform(void **state)
{
    (void)state;
    kh_task_draws draws = kh_task_stream("a", 1, KH_TASK_TRAIN, 0);
    enum { N = 30000, SIDES = 6 };
    size_t count[SIDES] = {0};
    for (size_t i = 0; i < N; i++) count[kh_task_below(&draws, SIDES)]++;
    double chi = 0;
    for (size_t s = 0; s < SIDES; s++) chi += pow((double)count[s] - N / SIDES, 2) / (N / SIDES);
    assert_true(chi < 20.5); /* 5 degrees of freedom: 1 in 1000 */
    for (size_t i = 0; i < 100; i++) assert_true(kh_task_below(&draws, 1) == 0);
}

static void memory_may_end_anywhere(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 40; n++) {
        uint64_t live = kh_alloc_get_stats().live;
        kh_task *task = NULL;
        kh_task_example e = {0};
        kh_task_number numbers[KH_TASK_MOST_NUMBERS];
        kh_task_stats stats;
        size_t count = 0;
        char *text = NULL;
        kh_alloc_fail_at(n);
        kh_status status = kh_task_open(&task, "mqar");
        if (status == KH_OK) status = kh_task_example_open(&e, task);
        if (status == KH_OK) status = kh_task_generate(task, 1, KH_TASK_TRAIN, 0, &e);
        if (status == KH_OK) status = kh_task_text(task, &e, &text, &count);
        if (status == KH_OK) status = kh_task_measure(task, 1, KH_TASK_TRAIN, 2, &stats);
        if (status == KH_OK) status = kh_task_baselines(task, 1, 2, 2, numbers, &count);
        kh_alloc_fail_at(0);
        kh_free(text);
        kh_task_example_close(&e);
        kh_task_close(task);
        assert_true(kh_alloc_get_stats().live == live);
        if (status == KH_OK) {
            assert_true(n > 10);
            return;
        }
        assert_int_equal(status, KH_ERR_MEMORY);
    }
    fail_msg("it still fails");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_are_written_out),
        cmocka_unit_test(mistakes_are_sentences),
        cmocka_unit_test(examples_are_pure_functions),
        cmocka_unit_test(streams_are_pinned),
        cmocka_unit_test(mqar_keeps_its_rules),
        cmocka_unit_test(mqar_asks_soon),
        cmocka_unit_test(copy_and_induction_keep_their_rules),
        cmocka_unit_test(baselines_are_near_their_expectation),
        cmocka_unit_test(examples_have_a_written_form),
        cmocka_unit_test(powers_are_powers),
        cmocka_unit_test(draws_are_uniform),
        cmocka_unit_test(memory_may_end_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
