/* Scores of answers against SQuAD's rules (tests/golden/answers.json), and choices against likelihoods that are
 * summed from whole passes over fresh sessions. */
#include "base/alloc.h"
#include "support/golden_run.h"

#include <jansson.h>
#include <keyhole/encode.h>
#include <keyhole/eval.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void answers_by_the_rules(void **state)
{
    (void)state;
    json_error_t error;
    json_t *cases = json_load_file(golden_path("answers.json"), 0, &error);
    assert_true(json_array_size(cases) > 30);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i), *right = json_object_get(c, "right");
        const char *said = json_string_value(json_object_get(c, "said")), *list[8];
        size_t n = json_array_size(right);
        for (size_t r = 0; r < n; r++) list[r] = json_string_value(json_array_get(right, r));
        double exact, f1;
        kh_score_answer(said, list, n, &exact, &f1);
        double want_exact = json_number_value(json_object_get(c, "exact"));
        double want_f1 = json_number_value(json_object_get(c, "f1"));
        if (exact != want_exact || fabs(f1 - want_f1) > 1e-12)
            fail_msg("case %zu '%s': %g and %g, expected %g and %g", i, said, exact, f1, want_exact,
                     want_f1);
    }
    json_decref(cases);
}

/* log P of what `all` has behind the first `from` tokens. */
static double likelihood(const kh_model *model, const char *prompt, const char *choice)
{
    char both[256];
    int32_t *ids, *before;
    size_t n, from;
    size_t V = (size_t)kh_model_get_info(model)->vocabulary;
    snprintf(both, sizeof both, "%s %s", prompt, choice);
    GOOD(kh_model_tokenize(model, both, strlen(both), KH_TEXT_EDGES, &ids, &n));
    GOOD(kh_model_tokenize(model, prompt, strlen(prompt), KH_TEXT_EDGES, &before, &from));
    assert_memory_equal(ids, before, from * sizeof *ids); /* this tokenizer joins nothing */
    kh_session_options so = {.threads = 2};
    kh_session *session = open_session(model, &so);
    float *rows = all_logits(model, session, ids, n);
    double sum = 0;
    for (size_t t = from > 0 ? from : 1; t < n; t++)
        sum += (double)rows[(t - 1) * V + (size_t)ids[t]] - log_sum_exp(rows + (t - 1) * V, V);
    kh_free(rows);
    kh_session_close(session);
    kh_free_ids(before);
    kh_free_ids(ids);
    return sum;
}

enum { EXAMPLES = 6, CHOICES = 3 };
static const char *const prompts[EXAMPLES] = {"one", "one two", "abc", "the cat", "x y z", "q"};
static const char *const choices[CHOICES] = {"dog", "a longer one", "zz"};

static void compare_choice(void *context, size_t setting, size_t example,
                           const kh_prediction *found)
{
    const kh_model *model = context;
    size_t best = 0, best_norm = 0;
    double most = (double)-INFINITY, most_norm = (double)-INFINITY;
    assert_int_equal(setting, 0);
    for (size_t c = 0; c < CHOICES; c++) {
        double sum = likelihood(model, prompts[example], choices[c]);
        double norm = sum / (double)strlen(choices[c]);
        if (sum > most) most = sum, best = c;
        if (norm > most_norm) most_norm = norm, best_norm = c;
    }
    assert_string_equal(found->text, choices[best]);
    assert_int_equal(found->right, best == 0);
    assert_int_equal(found->right_norm, best_norm == 0);
}

static void choices_by_likelihood(void **state)
{
    (void)state;
    static const char *const attns[] = {"full"};
    int32_t ids[1];
    kh_model *model = open_tiny("qwen2", ids, 1, 1);
    kh_example list[EXAMPLES];
    for (size_t i = 0; i < EXAMPLES; i++)
        list[i] = (kh_example){
            .question = prompts[i], .choices = choices, .choice_count = CHOICES, .correct = 0};
    kh_evaluate_options options = {
        .attns = attns, .attn_count = 1, .predicted = compare_choice, .predicted_context = model};
    kh_evaluate_result result;
    GOOD(kh_evaluate(model, list, EXAMPLES, &options, &result));
    assert_int_equal(result.choices, EXAMPLES);
    assert_int_equal(result.questions, 0);
    assert_true(isnan(result.exact));
    list[2].correct = CHOICES;
    assert_int_equal(kh_evaluate(model, list, EXAMPLES, &options, &result), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "example 3"));
    kh_model_close(model);
}

/* Every token of a text masked once, alone. */
static void pseudo_perplexity(void **state)
{
    (void)state;
    static const char *const attns[] = {"full", "topk:k=3"};
    kh_model *model = open_model(golden_path("families/bert"));
    size_t V = (size_t)kh_model_get_info(model)->vocabulary, n;
    const char *text = "the cat sat on a mat";
    int32_t *ids;
    GOOD(kh_model_tokenize(model, text, strlen(text), KH_TEXT_EDGES, &ids, &n));
    assert_in_range(n, 8, 64);
    float nll[2 * 64], *logits = kh_alloc(V * sizeof *logits);
    kh_ppl_options options = {.session = {.precision = KH_PRECISION_F32},
                              .attns = attns,
                              .attn_count = 2,
                              .token_nll = nll};
    kh_ppl_result results[2];
    GOOD(kh_ppl(model, ids, n, &options, results));
    kh_encoder_options exact = {.precision = KH_PRECISION_F32};
    kh_encoder *encoder;
    GOOD(kh_encoder_open(&encoder, model, &exact));
    double sum = 0;
    for (size_t t = 1; t + 1 < n; t++) {
        int32_t masked[64];
        memcpy(masked, ids, n * sizeof *ids);
        masked[t] = kh_model_mask(model);
        kh_encoder_text one = {.ids = masked, .count = n};
        GOOD(kh_encoder_masked(encoder, logits, &one, &t, 1));
        double want = log_sum_exp(logits, V) - (double)logits[ids[t]];
        assert_true(fabs((double)nll[t] - want) < 1e-4);
        sum += want;
    }
    assert_true(isnan(nll[0]) && isnan(nll[n - 1]));
    assert_int_equal(results[0].tokens, n - 2);
    assert_true(fabs(results[0].nll - sum / (double)(n - 2)) < 1e-5);
    assert_true(results[0].kl == 0 && results[0].same_top1 == 1);
    assert_true(results[1].kl > 1e-6 && fabs(results[1].nll - results[0].nll) > 1e-6);
    kh_encoder_close(encoder);
    kh_free(logits);
    kh_free_ids(ids);
    kh_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(answers_by_the_rules),
                                       cmocka_unit_test(choices_by_likelihood),
                                       cmocka_unit_test(pseudo_perplexity)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
