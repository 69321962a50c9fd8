/* ListOps: what its specification lists, with an evaluator of its own.
 *
 * The evaluator reads the written form (binary parentheses, as the published files have it), knows nothing of
 * ids, and builds its values by another way than the generator: by counting digits. Published statistics
 * (4,000 samples of the original generator) are compared within four standard errors of both samples. */
#include <keyhole/task.h>

#include "base/alloc.h"

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

/* ---- the evaluator ---- */

/* A parsed term: a digit, the end of a list, or an operation with the digits it has so far. */
typedef struct term {
    char kind; /* 'd', ']' or the operation's name: MI MA ME SM as 'i' 'a' 'e' 's' */
    int digit, count[10], all;
} term;

static term result(term list)
{
    int sum = 0, least = -1, most = -1, low = -1, high = -1, met = 0;
    for (int d = 0; d < 10; d++) {
        if (!list.count[d]) continue;
        sum += d * list.count[d];
        if (least < 0) least = d;
        most = d;
        /* the elements number (all - 1) / 2 and all / 2 of the sorted list */
        if (low < 0 && met + list.count[d] > (list.all - 1) / 2) low = d;
        if (high < 0 && met + list.count[d] > list.all / 2) high = d;
        met += list.count[d];
    }
    int value = list.kind == 'i'   ? least
                : list.kind == 'a' ? most
                : list.kind == 'e' ? (low + high) / 2
                                   : sum % 10;
    return (term){.kind = 'd', .digit = value};
}

/* TERM := "( " TERM " " TERM " )" | "[OP" | "]" | digit. The pair (list, x) is the list with x at its end, or
 * its value where x is the end. */
static term parse(const char **at)
{
    if (**at == '(') {
        *at += 2;
        term left = parse(at);
        assert_int_equal(**at, ' ');
        ++*at;
        term right = parse(at);
        if (memcmp(*at, " )", 2) != 0) fail_msg("no end at '%s'", *at);
        *at += 2;
        assert_true(left.kind != 'd' && left.kind != ']');
        if (right.kind == ']') return result(left);
        assert_int_equal(right.kind, 'd');
        left.count[right.digit]++;
        left.all++;
        return left;
    }
    if (**at == '[') {
        char kind = (*at)[2] == 'I' ? 'i' : (*at)[2] == 'A' ? 'a' : (*at)[2] == 'E' ? 'e' : 's';
        *at += kind == 's' ? 3 : 4;
        return (term){.kind = kind};
    }
    char c = *(*at)++;
    if (c == ']') return (term){.kind = ']'};
    assert_in_range(c, '0', '9');
    return (term){.kind = 'd', .digit = c - '0'};
}

static int evaluate(const char *text)
{
    const char *at = text;
    term value = parse(&at);
    assert_int_equal(*at, 0);
    assert_int_equal(value.kind, 'd');
    return value.digit;
}

static void the_evaluator_knows_the_rules(void **state)
{
    (void)state;
    assert_int_equal(evaluate("7"), 7);
    assert_int_equal(evaluate("( ( ( [MAX 4 ) 3 ) ] )"), 4);
    assert_int_equal(evaluate("( ( ( [MED 4 ) 3 ) ] )"), 3);
    assert_int_equal(evaluate("( ( ( ( [MED 9 ) 1 ) 5 ) ] )"), 5);
    assert_int_equal(evaluate("( ( ( [SM 9 ) ( ( ( [MIN 8 ) 6 ) ] ) ) ] )"), 5);
}

/* ---- examples ---- */

/* Tokens of a written form: words that are no parentheses. */
static size_t words(const char *text)
{
    size_t count = 0;
    for (const char *c = text; *c; c++)
        if ((c == text || c[-1] == ' ') && *c != '(' && *c != ')') count++;
    return count;
}

static void labels_are_the_values(void **state)
{
    (void)state;
    static const struct {
        const char *setting;
        size_t least, most;
    } cases[] = {{"listops", 16, 128},
                 {"listops:min=0,max=9,depth=3,args=3", 0, 9},
                 {"listops:min=100,max=500,depth=10,args=10", 100, 500}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        kh_task *task = open_task(cases[c].setting);
        const kh_task_info *info = kh_task_get_info(task);
        kh_task_example e;
        assert_int_equal(info->vocabulary, 17);
        assert_int_equal(info->classes, 10);
        assert_int_equal(info->longest, cases[c].most - 1);
        assert_int_equal(kh_task_example_open(&e, task), KH_OK);
        for (uint64_t i = 0; i < 400; i++) {
            char *text = NULL;
            size_t size = 0;
            kh_task_split split = (kh_task_split)(i % 3);
            assert_int_equal(kh_task_generate(task, 11, split, i, &e), KH_OK);
            assert_int_equal(kh_task_text(task, &e, &text, &size), KH_OK);
            assert_int_equal(evaluate(text), e.label);
            assert_int_equal(words(text), e.n);
            assert_true(e.n > cases[c].least && e.n < cases[c].most);
            for (size_t t = 0; t < e.n; t++) {
                assert_in_range(e.tokens[t], 1, 15);
                assert_int_equal(e.targets[t], -1);
            }
            kh_free(text);
        }
        kh_task_example_close(&e);
        kh_task_close(task);
    }
}

static void ids_are_the_pipelines(void **state)
{
    (void)state;
    static const char *const names[] = {"_", "[MIN", "[MAX", "[MED", "[SM", "X", "0", "1", "2",
                                        "3", "4",    "5",    "6",    "7",   "8", "9", "?"};
    kh_task *task = open_task("listops");
    for (int32_t id = 0; id < 17; id++) {
        char word[16];
        assert_int_equal(kh_task_spell(task, id, word, sizeof word), strlen(names[id]));
        assert_string_equal(word, names[id]);
    }
    assert_int_equal(kh_task_get_info(task)->pad, 0);
    kh_task_close(task);
}

static void impossible_windows_are_refused(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {
        {"listops:min=100,max=101", "no length lies between min=100 and max=101"},
        {"listops:min=200,max=300,depth=3,args=4", "the longest expression has 26 tokens"},
        {"listops:depth=1", "the longest expression has 1 tokens"},
        {"listops:args=1", "args must be a whole number from 2 to 64"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        kh_task *task = NULL;
        assert_int_equal(kh_task_open(&task, wrong[i][0]), KH_ERR_ARGUMENT);
        if (!strstr(kh_last_error(), wrong[i][1])) fail_msg("%s", kh_last_error());
    }
    /* There are such expressions, but only one draft in 10^20 is one. */
    kh_task *task = open_task("listops:min=100,max=128,depth=3,args=10");
    kh_task_example e;
    assert_int_equal(kh_task_example_open(&e, task), KH_OK);
    assert_int_equal(kh_task_generate(task, 1, KH_TASK_TRAIN, 0, &e), KH_ERR_CHECK);
    assert_non_null(strstr(kh_last_error(), "none of 4000000 drafts"));
    kh_task_example_close(&e);
    kh_task_close(task);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Short expressions repeat often: they still never cross from one split to another, for any seeds. */
static void splits_share_no_expression(void **state)
{
    (void)state;
    enum { EACH = 1500 };
    kh_task *task = open_task("listops:min=3,max=8,depth=2,args=3");
    kh_task_example e;
    char **texts = NULL;
    assert_int_equal(kh_new(&texts, 3 * EACH, sizeof *texts, "texts"), KH_OK);
    assert_int_equal(kh_task_example_open(&e, task), KH_OK);
    for (size_t i = 0; i < 3 * EACH; i++) {
        size_t size = 0;
        assert_int_equal(kh_task_generate(task, i % 7, (kh_task_split)(i % 3), i, &e), KH_OK);
        assert_int_equal(kh_task_text(task, &e, &texts[i], &size), KH_OK);
        texts[i][size - 1] = (char)('0' + i % 3); /* its last ")" becomes its split */
    }
    qsort(texts, 3 * EACH, sizeof *texts, by_text);
    size_t equal = 0;
    for (size_t i = 1; i < 3 * EACH; i++) {
        size_t n = strlen(texts[i]);
        if (n != strlen(texts[i - 1]) || memcmp(texts[i], texts[i - 1], n - 1) != 0) continue;
        assert_int_equal(texts[i][n - 1], texts[i - 1][n - 1]);
        equal++;
    }
    assert_true(equal > 100);
    for (size_t i = 0; i < 3 * EACH; i++) kh_free(texts[i]);
    kh_free(texts);
    kh_task_example_close(&e);
    kh_task_close(task);
}

/* ---- statistics ---- */

static void near_share(const char *what, double found, double expected, double n)
{
    double error = sqrt(expected * (1 - expected) * (1 / n + 1 / 4000.0));
    if (fabs(found - expected) > 4 * error + 0.0005) /* the table's rounding */
        fail_msg("%s: %.4f, expected %.4f +- %.4f", what, found, expected, error);
}

static void statistics_are_the_published_ones(void **state)
{
    (void)state;
    static const struct {
        const char *setting;
        double acceptance, majority, root, digits; /* 0: not published */
        size_t count;
    } rows[] = {{"listops:min=500,max=2000,depth=10,args=10", .082, .175, .372, .484, 800},
                {"listops:min=100,max=500,depth=10,args=10", .048, .162, .343, .518, 1200},
                {"listops:min=50,max=256,depth=10,args=10", .026, .161, .340, .509, 1000},
                {"listops:min=16,max=128,depth=5,args=5", .094, 0, 0, .413, 3000},
                {"listops:min=16,max=128,depth=4,args=6", .103, 0, 0, .432, 3000}};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        kh_task *task = open_task(rows[r].setting);
        kh_task_stats stats;
        kh_task_number b[KH_TASK_MOST_NUMBERS];
        size_t count = 0, n = rows[r].count;
        assert_int_equal(kh_task_measure(task, 3, KH_TASK_TRAIN, n, &stats), KH_OK);
        near_share("acceptance", stats.acceptance, rows[r].acceptance,
                   (double)n / rows[r].acceptance);
        assert_int_equal(stats.duplicates, 0);
        if (r == 0) {
            assert_true(fabs(stats.mean_length - 1062) < 4 * 400 * sqrt(1.0 / 4000 + 1.0 / 800));
            near_share("label 0", stats.share[0], .17, 800);
            near_share("label 9", stats.share[9], .17, 800);
            for (int c = 1; c < 9; c++) assert_true(stats.share[c] > .045 && stats.share[c] < .13);
            assert_true(stats.numbers[0].value > 9.9);
        }
        assert_int_equal(kh_task_baselines(task, 3, 5 * n, n, b, &count), KH_OK);
        assert_int_equal(count, 4);
        if (rows[r].majority > 0) near_share("majority", b[0].value, rows[r].majority, (double)n);
        if (rows[r].root > 0) near_share("root", b[1].value, rows[r].root, (double)n);
        near_share("digits", b[2].value, rows[r].digits, (double)n);
        assert_true(b[3].value > b[2].value - 0.02);
        kh_task_close(task);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_evaluator_knows_the_rules),
        cmocka_unit_test(labels_are_the_values),
        cmocka_unit_test(ids_are_the_pipelines),
        cmocka_unit_test(impossible_windows_are_refused),
        cmocka_unit_test(splits_share_no_expression),
        cmocka_unit_test(statistics_are_the_published_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
