/* Rows that an encoder has to guess: how many, which, and what becomes of them; the pass that is trained on them. */
#include "train/masking.h"

#include "support/golden_run.h"
#include "train/pass.h"
#include "train/scratch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { V = 500, ROWS = 40000, CLS = 2, SEP = 3, PAD = 0, MASK = 4 };

static const kh_special_ids ids = {
    .bos = -1, .eos = -1, .eot = -1, .unk = 1, .pad = PAD, .sep = SEP, .mask = MASK, .cls = CLS};

static void choose(kh_masking *m, kh_batch *batch, const int32_t *tokens, size_t n, kh_rng_key key)
{
    *batch = (kh_batch){.n = n, .tokens = tokens};
    kh_masking_apply(m, batch, key);
}

static void near(double got, double want, double most)
{
    if (!(fabs(got - want) <= most)) fail_msg("%g instead of %g", got, want);
}

static void shares_are_berts(void **state)
{
    (void)state;
    static int32_t tokens[ROWS];
    kh_masking m;
    kh_batch batch, again;
    size_t may = 0, masked = 0, same = 0, at = 0;
    GOOD(kh_masking_open(&m, &ids, V, 0.15, ROWS));
    for (size_t t = 0; t < ROWS; t++) {
        tokens[t] = t % 50 == 0 ? CLS : t % 50 == 49 ? SEP : (int32_t)(5 + t * 7 % (V - 5));
        may += tokens[t] > 4;
    }
    choose(&m, &batch, tokens, ROWS, (kh_rng_key){1, 2});
    for (size_t t = 0; t < ROWS; t++) {
        int chosen = at < batch.logit_count && batch.logit_rows[at] == t;
        if (!chosen) {
            assert_int_equal(batch.tokens[t], tokens[t]);
            continue;
        }
        assert_true(tokens[t] > 4);
        assert_int_equal(m.targets[at++], tokens[t]);
        masked += batch.tokens[t] == MASK;
        same += batch.tokens[t] == tokens[t];
    }
    assert_int_equal(at, batch.logit_count);
    double n = (double)batch.logit_count;
    near(n / (double)may, 0.15, 4 * sqrt(0.15 * 0.85 / (double)may));
    near((double)masked / n, 0.8, 4 * sqrt(0.16 / n));
    near((double)same / n, 0.1, 4 * sqrt(0.09 / n));
    size_t count = batch.logit_count;
    uint32_t first[64];
    memcpy(first, batch.logit_rows, sizeof first);
    choose(&m, &again, tokens, ROWS, (kh_rng_key){1, 2});
    assert_int_equal(again.logit_count, count);
    assert_memory_equal(again.logit_rows, first, sizeof first);
    choose(&m, &again, tokens, ROWS / 2, (kh_rng_key){1, 2}); /* what follows changes nothing */
    assert_memory_equal(again.logit_rows, first, sizeof first);
    choose(&m, &again, tokens, ROWS, (kh_rng_key){1, 3});
    assert_memory_not_equal(again.logit_rows, first, sizeof first);
    kh_masking_close(&m);
}

static void one_row_at_least(void **state)
{
    (void)state;
    static const int32_t text[] = {CLS, 9, 8, SEP}, marks[] = {CLS, MASK, SEP};
    kh_masking m;
    kh_batch batch;
    GOOD(kh_masking_open(&m, &ids, V, 1e-9, 4));
    for (uint64_t seed = 0; seed < 20; seed++) {
        choose(&m, &batch, text, 4, (kh_rng_key){seed, 0});
        assert_int_equal(batch.logit_count, 1);
        assert_in_range(batch.logit_rows[0], 1, 2);
    }
    choose(&m, &batch, marks, 3, (kh_rng_key){1, 0});
    assert_int_equal(batch.logit_count, 0);
    kh_masking_close(&m);
}

static void refused(void **state)
{
    (void)state;
    static const double shares[] = {0, -0.1, 1.01, (double)NAN};
    kh_masking m;
    kh_special_ids none = ids;
    none.mask = -1;
    assert_int_equal(kh_masking_open(&m, &none, V, 0.15, 4), KH_ERR_UNSUPPORTED);
    kh_masking_close(&m);
    assert_int_equal(kh_masking_open(&m, &ids, MASK, 0.15, 4), KH_ERR_UNSUPPORTED);
    kh_masking_close(&m);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(kh_masking_open(&m, &ids, V, shares[i], 4), KH_ERR_ARGUMENT);
        kh_masking_close(&m);
    }
}

/* A small BERT learns a text by heart: every guess is of what was masked. */
static void a_pass_guesses(void **state)
{
    enum { T = 24 };
    (void)state;
    kh_gguf *file = NULL;
    kh_params *params = NULL;
    kh_pass *pass = NULL;
    kh_tokenizer *words = NULL;
    kh_scratch_options o = {.architecture = "bert",
                            .layers = 1,
                            .width = 32,
                            .heads = 2,
                            .ff = 64,
                            .vocabulary = 40,
                            .context = T,
                            .mask_head = KH_SCRATCH_WITH};
    int32_t tokens[T], positions[T];
    for (int t = 0; t < T; t++) {
        tokens[t] = t == 0 ? CLS : t == T - 1 ? SEP : 5 + t * 3 % 35;
        positions[t] = t;
    }
    kh_span span = {0, 0, T, 0};
    kh_data_batch data = {
        .batch = {
            .n = T, .tokens = tokens, .position = positions, .spans = &span, .span_count = 1}};
    GOOD(kh_scratch_open(&file, &o));
    GOOD(kh_gguf_set_u64(file, "tokenizer.ggml.mask_token_id", KH_GGUF_U32, MASK));
    GOOD(kh_gguf_set_u64(file, "tokenizer.ggml.cls_token_id", KH_GGUF_U32, CLS));
    GOOD(kh_gguf_set_u64(file, "tokenizer.ggml.seperator_token_id", KH_GGUF_U32, SEP));
    GOOD(kh_params_open(&params, file));
    GOOD(kh_tokenizer_open(&words, file));
    GOOD(kh_pass_open(
        &pass, params,
        &(kh_pass_options){.tokenizer = words, .rows = T, .spans = 1, .mask = 0.2, .threads = 1}));
    double early = 0, late = 0;
    for (uint64_t step = 0; step < 400; step++) {
        kh_loss loss = {0};
        kh_params_clear(params);
        GOOD(kh_pass_gradient(pass, &data, 1, step, &loss));
        assert_true(loss.rows > 0 && loss.rows == kh_pass_wanted(pass));
        for (size_t i = 0; i < params->count; i++)
            params->weights[i] -= 0.02f * params->gradients[i] / (float)loss.rows;
        if (step < 40) early += loss.nats / (double)loss.rows / 40;
        if (step >= 360) late += loss.nats / (double)loss.rows / 40;
    }
    if (!(late < 0.7 * early)) fail_msg("from %g to %g nats a guess", early, late);
    kh_pass_close(pass);
    kh_params_close(params);
    kh_tokenizer_close(words);
    kh_gguf_close(file);
    assert_int_equal(
        kh_scratch_open(&file, &(kh_scratch_options){.layers = 1, .width = 32, .vocabulary = 40}),
        KH_OK);
    GOOD(kh_params_open(&params, file));
    assert_int_equal(
        kh_pass_open(&pass, params, &(kh_pass_options){.rows = T, .spans = 1, .mask = 0.2}),
        KH_ERR_ARGUMENT);
    kh_params_close(params);
    kh_gguf_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_berts),
        cmocka_unit_test(one_row_at_least),
        cmocka_unit_test(refused),
        cmocka_unit_test(a_pass_guesses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
