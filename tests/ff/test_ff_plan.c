/* The feed-forward setting as text: what applies where, and what a mistake is told. */
// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include "base/alloc.h"
#include "ff/keep.h"

#include <stdlib.h>
#include <string.h>

enum { LAYERS = 6, ENCODER = 2, DECODER = 3 };

static void same(const kh_ff_plan *plan, const char *text, size_t layers, const size_t *k,
                 const char *rules)
{
    int dense = 1;
    assert_string_equal(kh_ff_plan_text(plan), text);
    for (size_t l = 0; l < layers; l++) {
        kh_ff_setting s = kh_ff_plan_at(plan, (int)l);
        if (s.k != k[l]) fail_msg("'%s': layer %zu keeps %zu", text, l, s.k);
        if (s.k > 0) assert_int_equal(s.rule, strchr("gmn", rules[l]) - "gmn");
        dense &= s.k == 0;
    }
    assert_int_equal(kh_ff_plan_is_dense(plan), dense);
}

static void one_setting_is_everywhere(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t k;
        char rule;
    } good[] = {{"dense", 0, 'm'},           {"topk:k=512", 512, 'm'},
                {"topk:k=1,rule=g", 1, 'g'}, {"topk:rule=n,k=77", 77, 'n'},
                {"topk:k=9,rule=m", 9, 'm'}, {"topk:k=9,rank=n", 9, 'n'},
                {"topk:rank=g,k=9", 9, 'g'}, {"topk:k=2147483647", 2147483647, 'm'}};
    kh_ff_plan *plan;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char rules[LAYERS];
        size_t k[LAYERS];
        for (int l = 0; l < LAYERS; l++) k[l] = good[i].k;
        memset(rules, good[i].rule, sizeof rules);
        assert_int_equal(kh_ff_plan_parse(&plan, good[i].text, 0, LAYERS), KH_OK);
        same(plan, good[i].text, LAYERS, k, rules);
        kh_ff_plan_close(plan);
    }
    assert_int_equal(kh_ff_plan_parse(&plan, NULL, 0, LAYERS), KH_OK);
    same(plan, "dense", LAYERS, (const size_t[LAYERS]){0}, "mmmmmm");
    kh_ff_plan_close(plan);
}

static void layers_have_their_own(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t k[LAYERS];
        const char *rules;
    } good[] = {{"0-1=dense;2-=topk:k=512,rank=g", {0, 0, 512, 512, 512, 512}, "mmgggg"},
                {"2-=topk:k=5", {0, 0, 5, 5, 5, 5}, "mmmmmm"},
                {"*=topk:k=4,rule=n;3=dense;5=topk:k=7,rule=g", {4, 4, 4, 0, 4, 7}, "nnnmng"},
                {"1-4=topk:k=3;2-3=topk:k=8,rule=n", {0, 3, 8, 8, 3, 0}, "mmnnmm"},
                {"0=topk:k=1", {1, 0, 0, 0, 0, 0}, "mmmmmm"}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        kh_ff_plan *plan;
        assert_int_equal(kh_ff_plan_parse(&plan, good[i].text, 0, LAYERS), KH_OK);
        same(plan, good[i].text, LAYERS, good[i].k, good[i].rules);
        kh_ff_plan_close(plan);
    }
}

/* Two layers of an encoder, three of a decoder behind them. */
static void stacks_have_their_own(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t k[ENCODER + DECODER];
        const char *rules;
    } good[] = {
        {"topk:k=7", {7, 7, 7, 7, 7}, "mmmmm"},
        {"1-=topk:k=7", {0, 7, 0, 7, 7}, "mmmmm"},
        {"2=topk:k=7", {0, 0, 0, 0, 7}, "mmmmm"},
        {"encoder=topk:k=7,rule=n", {7, 7, 0, 0, 0}, "nnmmm"},
        {"decoder=0=topk:k=2;1-=topk:k=3,rule=g;encoder=topk:k=4", {4, 4, 2, 3, 3}, "mmmgg"}};
    static const char *const bad[][2] = {{"cross=dense", "none in cross"},
                                         {"encoder=2=dense", "no layer 2"},
                                         {"dense;encoder=dense", "start the text"},
                                         {"encoder=dense;encoder=dense", "stand once"},
                                         {"decoder=", "empty setting"},
                                         {"encoder=dense;topk:k=4", "each needs its layers"}};
    kh_ff_plan *plan;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(kh_ff_plan_parse(&plan, good[i].text, ENCODER, DECODER), KH_OK);
        same(plan, good[i].text, ENCODER + DECODER, good[i].k, good[i].rules);
        kh_ff_plan_close(plan);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(kh_ff_plan_parse(&plan, bad[i][0], ENCODER, DECODER), KH_ERR_ARGUMENT);
        assert_null(plan);
        if (!strstr(kh_last_error(), bad[i][1]))
            fail_msg("'%s' should mention '%s': %s", bad[i][0], bad[i][1], kh_last_error());
    }
}

static void mistakes_are_named(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"", "empty setting (dense, topk:k=512"},
        {"top", "dense or topk"},
        {"topk", "dense or topk"},
        {"full", "dense or topk"},
        {"dense:k=4", "dense or topk"},
        {"topk:", "neither k=K nor rule"},
        {"topk:k=0", "from 1 on"},
        {"topk:k=-3", "from 1 on"},
        {"topk:k=", "from 1 on"},
        {"topk:k=7x", "from 1 on"},
        {"topk:k= 7", "from 1 on"},
        {"topk:k=2147483648", "from 1 on"},
        {"topk:k=99999999999999999999", "from 1 on"},
        {"topk:rule=m", "k=K is missing"},
        {"topk:k=4,rule=x", "a rule is g"},
        {"topk:k=4,rule=", "a rule is g"},
        {"topk:k=4,rule=mn", "a rule is g"},
        {"topk:k=4,", "neither k=K nor rule"},
        {"topk:k=4,window=3", "neither k=K nor rule"},
        {"6=dense", "no layer 6"},
        {"2-6=dense", "no layer 6, the model has 0-5"},
        {"4-2=dense", "runs backwards"},
        {"0.1=dense", "layers are written 3, 0-1, 2- or *"},
        {"x=dense", "dense or topk"},
        {"0-1", "layers without a setting (0-1=dense;2-=topk:k=512)"},
        {"0=", "dense or topk"},
        {"dense;1=topk:k=4", "each needs its layers"},
        {"1=topk:k=4;dense", "each needs its layers"},
        {"0=dense;;1=dense", "empty setting"},
        {"3=topk:k=0;1=dense", "feed-forward '3=topk:k=0'"},
        {"prefill=dense", "one setting serves prompts and answers"},
        {"decode=topk:k=3", "one setting serves prompts and answers"},
        {"encoder=dense", "one stack of layers, not encoder"},
        {"cross=dense", "one stack of layers, not cross"}};
    uint64_t live = kh_alloc_get_stats().live;
    kh_ff_plan *plan;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        plan = (kh_ff_plan *)(void *)&live;
        assert_int_equal(kh_ff_plan_parse(&plan, bad[i][0], 0, LAYERS), KH_ERR_ARGUMENT);
        assert_null(plan);
        if (!strstr(kh_last_error(), bad[i][1]))
            fail_msg("'%s' should mention '%s': %s", bad[i][0], bad[i][1], kh_last_error());
    }
    char *longest = malloc(6000);
    memset(longest, ';', 5999);
    longest[5999] = 0;
    assert_int_equal(kh_ff_plan_parse(&plan, longest, 0, LAYERS), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "5999 characters"));
    free(longest);
    assert_true(kh_alloc_get_stats().live == live);
}

/* Norms are of the layers that rank by them, which need a matrix to take them from. */
static void rule_n_needs_value_vectors(void **state)
{
    (void)state;
    static const float values[2 * 3] = {3, 0, 1, 4, -2, 1};
    kh_weight has = {.name = "down", .data = values, .type = KH_TYPE_F32, .rows = 2, .cols = 3};
    kh_weight none = {.name = NULL};
    has.row_bytes = 3 * sizeof *values;
    const kh_weight *down[] = {&none, &has, &has};
    uint64_t live = kh_alloc_get_stats().live, open;
    kh_ff_plan *plan;
    assert_int_equal(kh_ff_plan_parse(&plan, "0=topk:k=2;1=topk:k=2,rule=n;2=topk:k=1", 0, 3),
                     KH_OK);
    open = kh_alloc_get_stats().live;
    assert_int_equal(kh_ff_plan_bind(plan, kh_kern_get(KH_ISA_REF), down), KH_OK);
    assert_true(kh_alloc_get_stats().live == open + 2); /* the norms of one layer, and a row */
    kh_ff_plan_close(plan);
    assert_int_equal(kh_ff_plan_parse(&plan, "1-=dense;0=topk:k=2,rule=n", 0, 3), KH_OK);
    assert_int_equal(kh_ff_plan_bind(plan, kh_kern_get(KH_ISA_REF), down), KH_ERR_UNSUPPORTED);
    assert_non_null(strstr(kh_last_error(), "mixture of experts"));
    kh_ff_plan_close(plan);
    assert_true(kh_alloc_get_stats().live == live);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    uint64_t live = kh_alloc_get_stats().live;
    for (uint64_t n = 1;; n++) {
        kh_ff_plan *plan;
        kh_alloc_fail_at(n);
        kh_status status = kh_ff_plan_parse(&plan, "0-1=dense;2-=topk:k=64", 0, LAYERS);
        kh_alloc_fail_at(0);
        kh_ff_plan_close(plan);
        assert_true(kh_alloc_get_stats().live == live);
        if (!status) {
            assert_true(n > 4);
            return;
        }
        assert_int_equal(status, KH_ERR_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_setting_is_everywhere),  cmocka_unit_test(layers_have_their_own),
        cmocka_unit_test(stacks_have_their_own),      cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(rule_n_needs_value_vectors), cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests_name("ff_plan", tests, NULL, NULL);
}
