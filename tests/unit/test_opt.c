/* Option tables: what is accepted, what is refused and with which words, and that the help and the
 * manual page say everything the parser knows. */
#include "base/alloc.h"
#include "base/opt.h"

#include <keyhole/status.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

typedef struct values {
    int flag, type;
    int64_t number;
    double share, open;
    const char *text;
    kh_opt_texts many;
    kh_opt_ints sizes, range;
} values;

static const char *const types[] = {"f16", "f32", "q8_0", NULL};
static const char *const switches[] = {"on", "off", NULL};

static const kh_opt first[] = {
    {KH_OPT_FLAG, "-j --json", NULL, "prints JSON", offsetof(values, flag), 0, 0, 0, 0, 0},
    {KH_OPT_INT, "-n --n-predict", "N", "how many", offsetof(values, number), "-1", -2, 1e6, 0,
     "KH_TEST_OPT_N"},
    {KH_OPT_REAL, "--top-p", "P", "nucleus", offsetof(values, share), "0.95", 0, 1, 0, 0},
    {KH_OPT_REAL, "--temp", "T", "heat", offsetof(values, open), "0.8", 0, HUGE_VAL, 0, 0},
    {0}};
static const kh_opt second[] = {
    {KH_OPT_TEXT, "-p --prompt", "TEXT", "what to say", offsetof(values, text), 0, 0, 0, 0, 0},
    {KH_OPT_CHOICE, "-ctk --cache-type-k", "TYPE", "keys", offsetof(values, type), "f32", 0, 0,
     types, 0},
    {KH_OPT_TEXTS, "--attn", "SPEC", "settings", offsetof(values, many), 0, 0, 0, 0, 0},
    {KH_OPT_INTS, "-d --depths", "N,...", "depths", offsetof(values, sizes), 0, 0, 4096, 0, 0},
    {KH_OPT_INTS, "--range", "A B", "from and to", offsetof(values, range), 0, 0, 99, 0, 0},
    {KH_OPT_IGNORED, "-ngl", "N", "not here", 0, 0, 0, 0, 0, 0},
    {KH_OPT_IGNORED, "-fa", "on|off", "not here", 0, 0, 0, 0, switches, 0},
    {0}};
static const kh_opt_group groups[] = {{"First", first}, {"Second", second}, {0}};
static const kh_opt_command command = {.name = "try out",
                                       .does = "tries things",
                                       .words = "[MODEL] [PROMPT]",
                                       .most_words = 2,
                                       .about = "About it.\n\nMore.",
                                       .example = "keyhole try out -n 1",
                                       .groups = groups};

static void halve(void *to)
{
    ((values *)to)->share = 0.5;
}

typedef struct outcome {
    values v;
    kh_opt_result r;
    kh_status status;
} outcome;

/* Parses a command line written with '|' between the words. */
static outcome parse(const char *line)
{
    static char copy[512];
    char *argv[32];
    int argc = 0;
    size_t n = strlen(line);
    assert_true(n < sizeof copy);
    memcpy(copy, line, n + 1);
    for (char *at = copy; *line && at; argc++) {
        argv[argc] = at;
        at = strchr(at, '|');
        if (at) *at++ = 0;
    }
    outcome o = {0};
    o.status = kh_opt_parse(&command, &o.v, argc, argv, &o.r);
    return o;
}

static void done(outcome *o)
{
    kh_opt_free(&command, &o->v, &o->r);
}

static void refused(const char *line, const char *sentence)
{
    outcome o = parse(line);
    assert_int_equal(o.status, KH_ERR_ARGUMENT);
    assert_string_equal(kh_last_error(), sentence);
    done(&o);
}

static void test_values(void **state)
{
    (void)state;
    outcome o = parse("");
    assert_int_equal(o.status, KH_OK);
    assert_int_equal(o.v.number, -1);
    assert_true(o.v.share == 0.95);
    assert_int_equal(o.v.type, 1);
    assert_int_equal(o.v.flag, 0);
    assert_null(o.v.text);
    done(&o);

    o = parse("-n|-2|--top-p=0|--temp|1.5|--json|-p|--json|-ctk|q8_0");
    assert_int_equal(o.status, KH_OK);
    assert_int_equal(o.v.number, -2);
    assert_true(o.v.share == 0 && o.v.open == 1.5);
    assert_int_equal(o.v.flag, 1);
    assert_string_equal(o.v.text, "--json");
    assert_int_equal(o.v.type, 2);
    done(&o);

    o = parse("--attn|full|--attn=topk:k=64|-d|0,512|-d|4096|--prompt=a=b");
    assert_int_equal(o.status, KH_OK);
    assert_int_equal(o.v.many.count, 2);
    assert_string_equal(o.v.many.items[1], "topk:k=64");
    assert_int_equal(o.v.sizes.count, 3);
    assert_int_equal(o.v.sizes.items[2], 4096);
    assert_string_equal(o.v.text, "a=b");
    done(&o);

    o = parse("--range|3|7|file");
    assert_int_equal(o.status, KH_OK);
    assert_int_equal(o.v.range.count, 2);
    assert_int_equal(o.v.range.items[1], 7);
    assert_int_equal(o.r.word_count, 1);
    done(&o);
    refused("--range|3", "--range: a second value is missing (A B)");
}

static void test_words(void **state)
{
    (void)state;
    outcome o = parse("file|-n|3|--|-n");
    assert_int_equal(o.status, KH_OK);
    assert_int_equal(o.r.word_count, 2);
    assert_string_equal(o.r.words[0], "file");
    assert_string_equal(o.r.words[1], "-n");
    assert_int_equal(o.v.number, 3);
    done(&o);

    o = parse("-|x");
    assert_int_equal(o.r.word_count, 2);
    assert_string_equal(o.r.words[0], "-");
    done(&o);
    refused("a|b|c", "'c': one argument too many (expected: [MODEL] [PROMPT])");
}

static void test_refusals(void **state)
{
    (void)state;
    refused("--top-p|1.7", "--top-p: 1.7 is not between 0 and 1");
    refused("--top-p=-0.1", "--top-p: -0.1 is not between 0 and 1");
    refused("--top-p|nan", "--top-p: 'nan' is not a number between 0 and 1");
    refused("--top-p|", "--top-p: '' is not a number between 0 and 1");
    refused("--temp|-1", "--temp: -1 is not at least 0");
    refused("--temp|hot", "--temp: 'hot' is not a number of at least 0");
    refused("-n|2k", "-n: '2k' is not a whole number between -2 and 1000000");
    refused("-n|1.5", "-n: '1.5' is not a whole number between -2 and 1000000");
    refused("-n| 5", "-n: ' 5' is not a whole number between -2 and 1000000");
    refused("-n|99999999999999999999999",
            "-n: 99999999999999999999999 is not between -2 and 1000000");
    refused("--n-predict=-3", "--n-predict: -3 is not between -2 and 1000000");
    refused("-n", "-n: a value is missing (N)");
    refused("-ctk|q4", "-ctk: 'q4' is not one of f16, f32, q8_0");
    refused("-d|1,,2", "-d: '1,,2' is not a list of whole numbers such as 512,128");
    refused("-d|1,9999", "-d: 9999 is not between 0 and 4096");
    refused("--json=yes", "--json: takes no value, found 'yes'");
    refused("--tpo-p|1", "--tpo-p: unknown option; did you mean --top-p?");
    refused("--prompts=x", "--prompts: unknown option; did you mean --prompt?");
    refused("--hlep", "--hlep: unknown option; did you mean --help?");
    refused("--zebra", "--zebra: unknown option");
}

static void test_ignored(void **state)
{
    (void)state;
    outcome o = parse("-ngl|99|-fa|on|-fa|model.gguf");
    assert_int_equal(o.status, KH_OK);
    assert_string_equal(o.r.ignored.data, "-ngl, -fa, -fa");
    assert_int_equal(o.r.word_count, 1);
    assert_string_equal(o.r.words[0], "model.gguf");
    done(&o);
}

static void test_environment(void **state)
{
    (void)state;
    setenv("KH_TEST_OPT_N", "7", 1);
    outcome o = parse("");
    assert_int_equal(o.v.number, 7);
    done(&o);
    o = parse("-n|8");
    assert_int_equal(o.v.number, 8);
    done(&o);
    setenv("KH_TEST_OPT_N", "many", 1);
    refused("", "KH_TEST_OPT_N: 'many' is not a whole number between -2 and 1000000");
    unsetenv("KH_TEST_OPT_N");
}

static void test_preset(void **state)
{
    (void)state;
    kh_opt_command other = command;
    other.preset = halve;
    values v = {0};
    kh_opt_result r;
    assert_int_equal(kh_opt_parse(&other, &v, 0, NULL, &r), KH_OK);
    assert_true(v.share == 0.5 && v.open == 0.8);
    kh_opt_free(&other, &v, &r);
    char name[] = "--top-p", value[] = "1";
    char *const argv[] = {name, value};
    assert_int_equal(kh_opt_parse(&other, &v, 2, argv, &r), KH_OK);
    assert_true(v.share == 1);
    kh_opt_free(&other, &v, &r);
}

static void test_help(void **state)
{
    (void)state;
    outcome o = parse("--json|--help|--zebra");
    assert_int_equal(o.status, KH_OK);
    assert_int_equal(o.r.help, 1);
    done(&o);

    kh_buf page = {0};
    assert_int_equal(kh_opt_help(&page, "keyhole", &command, 60), KH_OK);
    const char *const parts[] = {"Usage: keyhole try out [options] [MODEL] [PROMPT]\n",
                                 "About it.\n\nMore.\n",
                                 "\nFirst\n",
                                 "\nSecond\n",
                                 "  -n, --n-predict N",
                                 "(default: -1)",
                                 "[KH_TEST_OPT_N]",
                                 "0 to 1",
                                 "f16, f32, q8_0",
                                 "may be",
                                 "-h, --help",
                                 "  keyhole try out -n 1\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(page.data, parts[i])) fail_msg("help lacks '%s':\n%s", parts[i], page.data);
    for (const char *line = page.data; *line;) {
        size_t n = strcspn(line, "\n");
        assert_true(n <= 60);
        line += n + (line[n] == '\n');
    }
    kh_buf_free(&page);
}

static void test_man(void **state)
{
    (void)state;
    kh_buf page = {0};
    assert_int_equal(kh_opt_man(&page, "keyhole", &command, "1.2.3"), KH_OK);
    const char *const parts[] = {".TH KEYHOLE\\-TRY\\-OUT 1",
                                 "keyhole 1.2.3",
                                 "keyhole\\-try\\-out \\- tries things",
                                 ".B \\-n, \\-\\-n\\-predict N\nHow many",
                                 ".SS Second",
                                 "\n.PP\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(page.data, parts[i])) fail_msg("the page lacks '%s':\n%s", parts[i], page.data);
    kh_buf_free(&page);
}

static void test_wrap(void **state)
{
    (void)state;
    kh_buf out = {0};
    assert_int_equal(kh_opt_wrap(&out, "aa bb cc\n\ndd", 0, 1, 5), KH_OK);
    assert_string_equal(out.data, "aa bb\n cc\n\n dd");
    kh_buf_free(&out);
}

static void test_distance(void **state)
{
    (void)state;
    assert_int_equal(kh_opt_distance("kitten", 6, "sitting", 7), 3);
    assert_int_equal(kh_opt_distance("ab", 2, "ba", 2), 1);
    assert_int_equal(kh_opt_distance("", 0, "abc", 3), 3);
    assert_int_equal(kh_opt_distance("abc", 3, "abc", 3), 0);
}

/* Whichever allocation fails, parsing says so and leaks nothing. */
static void test_no_memory(void **state)
{
    (void)state;
    uint64_t live = kh_alloc_get_stats().live;
    for (uint64_t n = 1;; n++) {
        kh_alloc_fail_at(n);
        outcome o = parse("--attn|a|-d|1,2|-ngl|1|--attn|b|word");
        kh_alloc_fail_at(0);
        kh_status status = o.status;
        done(&o);
        assert_int_equal(kh_alloc_get_stats().live, live);
        if (status == KH_OK) {
            assert_true(n > 5);
            return;
        }
        assert_int_equal(status, KH_ERR_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),      cmocka_unit_test(test_words),
        cmocka_unit_test(test_refusals),    cmocka_unit_test(test_ignored),
        cmocka_unit_test(test_environment), cmocka_unit_test(test_preset),
        cmocka_unit_test(test_help),        cmocka_unit_test(test_man),
        cmocka_unit_test(test_wrap),        cmocka_unit_test(test_distance),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests_name("opt", tests, NULL, NULL);
}
