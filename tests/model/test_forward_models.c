/* The two real models against transformers on 1,000 tokens (tests/golden/logits).
 *
 * f32 products: logits of 96 ids at 256 positions within 2e-3, log-sum-exp and the top token at all.
 * Default products: the same next token at 99 % of the positions, and a KL to our own f32 run (whose
 * distance to the reference is the first test) of at most 1e-3 nats. */
// not under: address|thread
#include "base/alloc.h"
#include "support/golden_run.h"
#include "support/models.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

typedef struct reference {
    golden g;
    uint32_t T, V, P, C, K;
    const int32_t *ids, *sampled, *top;
    const float *logits, *lse, *next, *top_logits;
} reference;

static void open_reference(reference *r, const char *name)
{
    char file[64];
    snprintf(file, sizeof file, "logits/%s.bin", name);
    golden_open(&r->g, file, "KHLOGIT1");
    golden_take(&r->g, 32, 1);
    r->T = golden_u32(&r->g);
    r->V = golden_u32(&r->g);
    r->P = golden_u32(&r->g);
    r->C = golden_u32(&r->g);
    r->K = golden_u32(&r->g);
    r->ids = golden_take(&r->g, r->T, 4);
    r->sampled = golden_take(&r->g, r->C, 4);
    r->logits = golden_take(&r->g, (size_t)r->P * r->C, 4);
    r->lse = golden_take(&r->g, r->T, 4);
    r->next = golden_take(&r->g, r->T, 4);
    r->top = golden_take(&r->g, (size_t)r->T * r->K, 4);
    r->top_logits = golden_take(&r->g, (size_t)r->T * r->K, 4);
}

typedef struct tally {
    const reference *ref;
    float *kept; /* [T][V]: log-probabilities of the f32 run */
    int is_f32;
    double worst, worst_lse, kl;
    size_t same, rows;
} tally;

static kh_status take(void *context, size_t first, size_t rows, const float *logits)
{
    tally *t = context;
    const reference *r = t->ref;
    for (size_t i = 0; i < rows; i++, logits += r->V) {
        size_t at = first + i, best = 0;
        double lse = log_sum_exp(logits, r->V);
        float *kept = t->kept + at * r->V;
        for (size_t v = 1; v < r->V; v++)
            if (logits[v] > logits[best]) best = v;
        t->same += (int32_t)best == r->top[at * r->K];
        t->rows++;
        t->worst_lse = fmax(t->worst_lse, fabs(lse - (double)r->lse[at]));
        for (size_t c = 0; at < r->P && c < r->C; c++)
            t->worst = fmax(t->worst,
                            fabs((double)logits[r->sampled[c]] - (double)r->logits[at * r->C + c]));
        for (size_t v = 0; v < r->V; v++) {
            double lp = (double)logits[v] - lse;
            if (t->is_f32)
                kept[v] = (float)lp;
            else
                t->kl += exp((double)kept[v]) * ((double)kept[v] - lp);
        }
    }
    return KH_OK;
}

static void run(const kh_model *model, tally *t, kh_precision precision, kh_cache_type cache)
{
    kh_session_options so = {
        .precision = precision, .k_type = cache, .v_type = cache, .context = t->ref->T};
    kh_session *session = open_session(model, &so);
    kh_read_options read = {.logits = take, .logits_context = t};
    GOOD(kh_session_read(session, t->ref->ids, t->ref->T, &read));
    kh_session_close(session);
}

static void check(const char *name)
{
    kh_model *model = open_model(kh_test_need_model(name));
    reference r = {0};
    open_reference(&r, name);
    assert_int_equal(kh_model_get_info(model)->vocabulary, r.V);
    float *kept = kh_alloc((size_t)r.T * r.V * sizeof *kept);
    assert_non_null(kept);
    tally f32 = {.ref = &r, .kept = kept, .is_f32 = 1};
    run(model, &f32, KH_PRECISION_F32, KH_CACHE_F32);
    print_message("%s f32: logits within %.2g, log-sum-exp within %.2g, same top %zu of %zu\n",
                  name, f32.worst, f32.worst_lse, f32.same, f32.rows);
    tally fast = {.ref = &r, .kept = kept};
    run(model, &fast, KH_PRECISION_DEFAULT, KH_CACHE_F16);
    double kl = fast.kl / (double)fast.rows;
    print_message("%s default: KL %.3g nats, same top %zu of %zu\n", name, kl, fast.same,
                  fast.rows);
    assert_int_equal(f32.rows, r.T);
    assert_true(f32.worst <= 2e-3 && f32.worst_lse <= 2e-3);
    assert_true(f32.same >= r.T - 2); /* ties within rounding */
    assert_true(kl >= 0 && kl <= 1e-3);
    assert_true((double)fast.same >= 0.99 * r.T);
    kh_free(kept);
    golden_close(&r.g);
    kh_model_close(model);
}

static void smollm2(void **state)
{
    (void)state;
    check("smollm2");
}

static void gemma3(void **state)
{
    (void)state;
    check("gemma3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(smollm2), cmocka_unit_test(gemma3)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
