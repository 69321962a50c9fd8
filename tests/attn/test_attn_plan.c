/* The attention setting as text: what applies where, and what a mistake is told. */
// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include "attn/attn.h"
#include "attn/method.h"
#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

enum { LAYERS = 6, HEADS = 4 };

static kh_attn_plan *parse(const char *text)
{
    kh_attn_plan *plan;
    kh_status status = kh_attn_plan_parse(&plan, text, LAYERS, HEADS);
    if (status) fail_msg("'%s': %s", text, kh_last_error());
    assert_string_equal(kh_attn_plan_text(plan), text);
    return plan;
}

static const kh_attn_setting *at(const kh_attn_plan *plan, enum kh_phase phase, int layer, int head)
{
    return kh_attn_plan_at(plan, phase, layer, head);
}

static void one_setting_is_everywhere(void **state)
{
    (void)state;
    kh_attn_plan *plan = parse("topk:k=64,recent=16,sinks=4,min-p=0.01,tail=mean");
    for (int phase = 0; phase < 2; phase++)
        for (int layer = 0; layer < LAYERS; layer++)
            for (int head = 0; head < HEADS; head++) {
                const kh_attn_setting *s = at(plan, (enum kh_phase)phase, layer, head);
                assert_ptr_equal(s->method, &kh_attn_topk);
                assert_int_equal(s->k, 64);
                assert_int_equal(s->recent, 16);
                assert_int_equal(s->sinks, 4);
                assert_true(s->min_p == 0.01f);
                assert_int_equal(s->tail_mean, 1);
            }
    kh_attn_plan_free(plan);
    plan = parse("full");
    assert_ptr_equal(at(plan, KH_PHASE_DECODE, 5, 3)->method, &kh_attn_full);
    kh_attn_plan_free(plan);
    plan = parse("window:sinks=0,recent=0");
    assert_ptr_equal(at(plan, KH_PHASE_PREFILL, 0, 0)->method, &kh_attn_window);
    kh_attn_plan_free(plan);
}

static void layers_and_heads(void **state)
{
    (void)state;
    kh_attn_plan *plan = parse("0-1=full;2-=topk:k=64;4.1-2=window:recent=9;*.3=topk:k=8");
    for (int phase = 0; phase < 2; phase++)
        for (int layer = 0; layer < LAYERS; layer++)
            for (int head = 0; head < HEADS; head++) {
                const kh_attn_setting *s = at(plan, (enum kh_phase)phase, layer, head);
                if (head == 3)
                    assert_int_equal(s->k, 8);
                else if (layer == 4 && head > 0)
                    assert_int_equal(s->recent, 9);
                else if (layer >= 2)
                    assert_int_equal(s->k, 64);
                else
                    assert_ptr_equal(s->method, &kh_attn_full);
            }
    /* equal settings are one object: heads that share it are packed together */
    kh_attn_plan_free(plan);
    plan = parse("3.0=topk:k=8;3.1-3=topk:k=8");
    assert_ptr_equal(at(plan, KH_PHASE_DECODE, 3, 0), at(plan, KH_PHASE_DECODE, 3, 2));
    assert_ptr_equal(at(plan, KH_PHASE_DECODE, 2, 0)->method, &kh_attn_full);
    kh_attn_plan_free(plan);
}

static void phases(void **state)
{
    (void)state;
    kh_attn_plan *plan = parse("prefill=full;decode=topk:k=64");
    assert_ptr_equal(at(plan, KH_PHASE_PREFILL, 2, 0)->method, &kh_attn_full);
    assert_int_equal(at(plan, KH_PHASE_DECODE, 2, 0)->k, 64);
    kh_attn_plan_free(plan);
    plan = parse("decode=topk:k=5");
    assert_ptr_equal(at(plan, KH_PHASE_PREFILL, 2, 0)->method, &kh_attn_full);
    assert_int_equal(at(plan, KH_PHASE_DECODE, 2, 0)->k, 5);
    kh_attn_plan_free(plan);
    plan = parse("prefill=0-1=full;2-=topk:k=64;decode=3=window:recent=7");
    assert_ptr_equal(at(plan, KH_PHASE_PREFILL, 1, 0)->method, &kh_attn_full);
    assert_int_equal(at(plan, KH_PHASE_PREFILL, 3, 0)->k, 64);
    assert_int_equal(at(plan, KH_PHASE_DECODE, 3, 0)->recent, 7);
    assert_ptr_equal(at(plan, KH_PHASE_DECODE, 2, 0)->method, &kh_attn_full);
    kh_attn_plan_free(plan);
}

/* Each text with words that its sentence must have. */
static void mistakes_are_named(void **state)
{
    (void)state;
    static const char *const bad[][3] = {
        {"", "empty", "topk"},
        {";", "empty", "topk"},
        {"full;", "empty", "topk"},
        {"flul", "flul", "full, window, topk"},
        {"topk", "needs k", "topk"},
        {"topk:", "no '='", "name=value"},
        {"topk:k", "'k' has no '='", "name=value"},
        {"topk:k=", "k=", "whole number from 1"},
        {"topk:k=0", "k=0", "whole number from 1"},
        {"topk:k=-3", "k=-3", "whole number from 1"},
        {"topk:k=+3", "k=+3", "whole number from 1"},
        {"topk:k=3x", "k=3x", "whole number from 1"},
        {"topk:k=99999999999999999999", "k=999", "whole number from 1"},
        {"topk:k=8,k=9", "k is given twice", "topk"},
        {"topk:k=8,sinks=-1", "sinks=-1", "whole number from 0"},
        {"topk:k=8,min-p=1.5", "min-p=1.5", "from 0 to 1"},
        {"topk:k=8,min-p=nan", "min-p=nan", "from 0 to 1"},
        {"topk:k=8,tail=median", "tail=median", "mean"},
        {"topk:k=8,budget=2", "no parameter 'budget'", "k, recent, sinks, min-p, tail"},
        {"full:k=3", "full has no parameter 'k'", "none"},
        {"window:k=3", "window has no parameter 'k'", "recent, sinks"},
        {"window:sinks=3", "needs recent", "window"},
        {"topk:k=8,recent=5,sinks=4", "5 + 4", "k = 8"},
        {"topk:k=8,recent=16777216,sinks=16777216", "may not exceed", "k = 8"},
        {"6=full", "no layer 6", "0-5"},
        {"2-6=full", "no layer 6", "0-5"},
        {"4-2=full", "4-2", "backwards"},
        {"0.4=full", "no head 4", "0-3"},
        {"0.=full", "heads are written", "0-1"},
        {"1x=full", "layers are written", "0-1"},
        {"0-1", "without a setting", "0-1=full"},
        {"0=", "no method", "full"},
        {"full;1=topk:k=4", "each needs its layers", "0-1=full"},
        {"1=topk:k=4;full", "each needs its layers", "0-1=full"},
        {"full;decode=full", "start the text", "once"},
        {"prefill=full;prefill=full", "start the text", "once"},
        {"prefill=;decode=full", "empty", "topk"},
        {"prefill=auto", "auto", "full, window, topk"},
        {" full", " full", "full, window, topk"},
    };
    uint64_t live = kh_alloc_get_stats().live;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        kh_attn_plan *plan = (kh_attn_plan *)(void *)&live;
        assert_int_equal(kh_attn_plan_parse(&plan, bad[i][0], LAYERS, HEADS), KH_ERR_ARGUMENT);
        assert_null(plan);
        for (int j = 1; j < 3; j++)
            if (!strstr(kh_last_error(), bad[i][j]))
                fail_msg("'%s' should mention '%s': %s", bad[i][0], bad[i][j], kh_last_error());
    }
    char *longest = malloc(6000);
    memset(longest, ';', 5999);
    longest[5999] = 0;
    kh_attn_plan *plan;
    assert_int_equal(kh_attn_plan_parse(&plan, longest, LAYERS, HEADS), KH_ERR_ARGUMENT);
    free(longest);
    assert_true(kh_alloc_get_stats().live == live);
}

static int k_of(const kh_attn_plan *plan, enum kh_phase phase, int layer)
{
    const kh_attn_setting *s = kh_attn_plan_at(plan, phase, layer, HEADS - 1);
    return s->method == &kh_attn_topk ? s->k : 0;
}

/* Two encoder layers, three of a decoder: rows 0-1, 2-4 and, for the attention to the source, 5-7. */
static void stacks_have_their_own_layers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int prefill[8], decode[8];
    } cases[] = {
        {"topk:k=7", {7, 7, 7, 7, 7, 7, 7, 7}, {7, 7, 7, 7, 7, 7, 7, 7}},
        {"0=full;1-=topk:k=7", {0, 7, 0, 7, 7, 0, 7, 7}, {0, 7, 0, 7, 7, 0, 7, 7}},
        {"2=topk:k=5", {0, 0, 0, 0, 5, 0, 0, 5}, {0, 0, 0, 0, 5, 0, 0, 5}},
        {"encoder=topk:k=3", {3, 3, 0, 0, 0, 0, 0, 0}, {3, 3, 0, 0, 0, 0, 0, 0}},
        {"cross=topk:k=9;decoder=1=topk:k=4;encoder=full",
         {0, 0, 0, 4, 0, 9, 9, 9},
         {0, 0, 0, 4, 0, 9, 9, 9}},
        {"decoder=prefill=topk:k=6;decode=topk:k=2;cross=decode=0=topk:k=8",
         {0, 0, 6, 6, 6, 0, 0, 0},
         {0, 0, 2, 2, 2, 8, 0, 0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kh_attn_plan *plan;
        assert_int_equal(kh_attn_plan_parse_stacks(&plan, cases[i].text, 2, 3, HEADS), KH_OK);
        for (int l = 0; l < 8; l++) {
            assert_int_equal(k_of(plan, KH_PHASE_PREFILL, l), cases[i].prefill[l]);
            assert_int_equal(k_of(plan, KH_PHASE_DECODE, l), cases[i].decode[l]);
        }
        kh_attn_plan_free(plan);
    }
    static const char *const bad[][2] = {{"full;encoder=full", "start the text"},
                                         {"encoder=full;encoder=full", "stand once each"},
                                         {"encoder=2=full", "no layer 2"},
                                         {"3=full", "no layer 3"},
                                         {"cross=", "empty"}};
    kh_attn_plan *plan;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(kh_attn_plan_parse_stacks(&plan, bad[i][0], 2, 3, HEADS), KH_ERR_ARGUMENT);
        assert_non_null(strstr(kh_last_error(), bad[i][1]));
    }
    assert_int_equal(kh_attn_plan_parse(&plan, "encoder=full", LAYERS, HEADS), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "one stack"));
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    uint64_t live = kh_alloc_get_stats().live;
    for (uint64_t n = 1;; n++) {
        kh_attn_plan *plan;
        kh_alloc_fail_at(n);
        kh_status status = kh_attn_plan_parse(&plan, "0-1=full;2-=topk:k=64", LAYERS, HEADS);
        kh_alloc_fail_at(0);
        kh_attn_plan_free(plan);
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
        cmocka_unit_test(one_setting_is_everywhere),
        cmocka_unit_test(layers_and_heads),
        cmocka_unit_test(phases),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(stacks_have_their_own_layers),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests_name("attn_plan", tests, NULL, NULL);
}
