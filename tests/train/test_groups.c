/* Parameter groups: what is trained, how fast and with what decay, by patterns. */
#include "support/golden_run.h"
#include "train/groups.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const kh_tensor_spec tensors[] = {
    {"token_embd.weight", 0, 8, 4, 2},        {"blk.8.attn_norm.weight", 8, 2, 1, 2},
    {"blk.8.attn_q.weight", 10, 4, 2, 2},     {"blk.8.attn_q.bias", 14, 2, 1, 2},
    {"blk.8.attn_k.weight", 16, 4, 2, 2},     {"blk.8.attn_k.bias", 20, 2, 1, 2},
    {"blk.8.attn_v.weight", 22, 4, 2, 2},     {"blk.9.attn_norm.weight", 26, 2, 1, 2},
    {"blk.9.attn_k.weight", 28, 4, 2, 2},     {"blk.9.attn_k.bias", 32, 2, 1, 2},
    {"blk.10.attn_norm.weight", 34, 2, 1, 2}, {"blk.10.attn_v.weight", 36, 4, 2, 2},
    {"blk.10.attn_v.bias", 40, 2, 1, 2},      {"head.weight", 42, 4, 2, 2}};
enum { N = sizeof tensors / sizeof *tensors };

static kh_tensor_setting set[N];

static void apply(const char *train, double decay, const char *const *rules, size_t count)
{
    kh_groups_options o = {.train = train, .decay = decay, .rules = rules, .count = count};
    GOOD(kh_groups_apply(set, tensors, N, &o));
}

/* "TFT..." by tensor: which rates are not 0. */
static void trained(const char *expected)
{
    for (size_t i = 0; i < N; i++)
        if ((set[i].rate > 0) != (expected[i] == 'T'))
            fail_msg("%s is %s", tensors[i].name, set[i].rate > 0 ? "trained" : "frozen");
}

static void matrices_decay(void **state)
{
    (void)state;
    apply(NULL, 0.1, NULL, 0);
    trained("TTTTTTTTTTTTTT");
    for (size_t i = 0; i < N; i++) {
        assert_true(set[i].rate == 1);
        assert_true(set[i].decay == (tensors[i].rows > 1 ? 0.1 : 0));
    }
}

/* Recipes: weights of the last blocks and the head (no biases, gains included); keys and values with biases. */
static void recipes(void **state)
{
    (void)state;
    apply("blk.9.*.weight,blk.10.*.weight,head.weight", 0, NULL, 0);
    trained("FFFFFFFTTFTTFT");
    apply("*.attn_k.*,*.attn_v.*", 0, NULL, 0);
    trained("FFFFTTTFTTFTTF");
    apply("blk.[89].attn_[kv].*", 0, NULL, 0);
    trained("FFFFTTTFTTFFFF");
    static const char *const everything_decays[] = {"*:decay=0.1"};
    apply(NULL, 0, everything_decays, 1);
    for (size_t i = 0; i < N; i++) assert_true(set[i].decay == 0.1 && set[i].rate == 1);
}

static void later_rules_win(void **state)
{
    (void)state;
    static const char *const rules[] = {"blk.*:rate=0.5,decay=0.2", "*.bias,*_norm.*:decay=0",
                                        "blk.10.*:rate=0", "blk.10.attn_v.bias:rate=2"};
    apply(NULL, 0.1, rules, 4);
    trained("TTTTTTTTTTFFTT");
    assert_true(set[0].rate == 1 && set[0].decay == 0.1);   /* no rule */
    assert_true(set[1].rate == 0.5 && set[1].decay == 0);   /* the first and the second */
    assert_true(set[2].rate == 0.5 && set[2].decay == 0.2); /* the first */
    assert_true(set[12].rate == 2 && set[12].decay == 0);
    static const char *const thaw[] = {"token_embd.*:rate=0.1"};
    apply("head.*", 0, thaw, 1); /* a rule comes after what is trained */
    trained("TFFFFFFFFFFFFT");
    assert_true(set[0].rate == 0.1);
}

static void refused(const char *train, const char *rule, const char *part)
{
    kh_groups_options o = {.train = train, .rules = &rule, .count = rule != NULL};
    assert_int_equal(kh_groups_apply(set, tensors, N, &o), KH_ERR_ARGUMENT);
    if (!strstr(kh_last_error(), part))
        fail_msg("'%s' does not contain '%s'", kh_last_error(), part);
}

static void mistakes(void **state)
{
    (void)state;
    refused("blk.11.*", NULL,
            "'blk.11.*' matches none of the 14 tensors (the first are token_embd.weight, "
            "blk.8.attn_norm.weight, blk.8.attn_q.weight)");
    refused("head.weight,lm_head", NULL, "'lm_head' matches none");
    refused("head.weight,", NULL, "has 0 characters");
    refused("", NULL, "has 0 characters");
    refused("head.weight:rate=1", NULL, "have no ':'");
    refused(NULL, "head.weight",
            "group 'head.weight': a rule is written PATTERN,...:rate=R,decay=D");
    refused(NULL, "attn_q:rate=0", "group 'attn_q:rate=0': 'attn_q' matches none");
    refused(NULL, "*:lr=1", "has no parameter 'lr' (it has: rate, decay)");
    refused(NULL, "*:rate=-1", "rate must be a number from 0");
    refused(NULL, "*:", "has no '='");
    refused(NULL, "*:rate=0", "all 14 tensors are frozen: nothing is left to train");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matrices_decay),
        cmocka_unit_test(recipes),
        cmocka_unit_test(later_rules_win),
        cmocka_unit_test(mistakes),
    };
    return cmocka_run_group_tests_name("parameter groups", tests, NULL, NULL);
}
