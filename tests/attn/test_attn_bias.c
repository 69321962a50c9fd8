/* Masks of keys, T5's relative positions and ALiBi: the buckets against another implementation's
 * committed values, and attention with all of them against a dense computation in double. */
// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include "attn/bias.h"

#include <keyhole/attention.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* tools/golden_relative_bucket.py: transformers' T5 buckets of key - query = -200 .. 200 */
static const unsigned char causal[] = {
#include "../golden/relative_bucket_causal.inc"
};
static const unsigned char free_order[] = {
#include "../golden/relative_bucket_free.inc"
};

static void buckets_are_t5s(void **state)
{
    (void)state;
    for (long d = -200; d <= 200; d++) {
        assert_int_equal(kh_attn_relative_bucket(d, 0, 32, 128), causal[d + 200]);
        assert_int_equal(kh_attn_relative_bucket(d, 1, 32, 128), free_order[d + 200]);
    }
}

enum { B = 2, H = 4, G = 2, E = 16, BUCKETS = 32 };

typedef struct problem {
    size_t T, S;
    float *q, *k, *v, *out, relative[H * BUCKETS], slopes[H];
    uint8_t *mask;
    kh_attention_bias bias;
    kh_attention_args args;
} problem;

static float *numbers(size_t n, unsigned seed)
{
    float *x = malloc((n + 1) * sizeof *x);
    srand(seed);
    for (size_t i = 0; i < n; i++) x[i] = (float)rand() / (float)RAND_MAX * 4 - 2;
    return x;
}

static void open_problem(problem *p, size_t T, size_t S, kh_attention_mask mask, const char *attn)
{
    *p = (problem){.T = T, .S = S};
    p->q = numbers(B * H * T * E, 1);
    p->k = numbers(B * G * S * E, 2);
    p->v = numbers(B * G * S * E, 3);
    p->out = numbers(B * H * T * E, 4);
    float *r = numbers(H * BUCKETS, 5);
    memcpy(p->relative, r, sizeof p->relative);
    free(r);
    p->mask = malloc(B * S);
    for (size_t i = 0; i < B * S; i++) p->mask[i] = i % 7 != 3 && (i < S || i % S < S / 2);
    for (size_t h = 0; h < H; h++) p->slopes[h] = 0.5f / (float)(h + 1);
    p->bias = (kh_attention_bias){p->mask, p->relative, BUCKETS, 128, p->slopes};
    p->args = (kh_attention_args){.batch = B,
                                  .heads = H,
                                  .key_heads = G,
                                  .width = E,
                                  .queries = T,
                                  .keys = S,
                                  .q = p->q,
                                  .k = p->k,
                                  .v = p->v,
                                  .out = p->out,
                                  .attn = attn,
                                  .mask = mask,
                                  .threads = 1,
                                  .bias = &p->bias};
}

static void close_problem(problem *p)
{
    free(p->q);
    free(p->k);
    free(p->v);
    free(p->out);
    free(p->mask);
}

static double biased_score(const problem *p, size_t b, size_t h, size_t t, size_t j)
{
    const kh_attention_args *a = &p->args;
    int causal_order = a->mask == KH_ATTENTION_CAUSAL;
    long d = (long)j - (long)(causal_order ? p->S - p->T + t : t);
    const float *q = p->q + ((b * H + h) * p->T + t) * E;
    const float *k = p->k + ((b * G + h / (H / G)) * p->S + j) * E;
    double s = 0;
    if (causal_order && d > 0) return -(double)INFINITY;
    if (p->bias.key_mask && !p->mask[b * p->S + j]) return -(double)INFINITY;
    for (size_t e = 0; e < E; e++) s += (double)q[e] * (double)k[e];
    s /= sqrt(E);
    if (p->bias.relative)
        s += (double)p->relative[h * BUCKETS +
                                 (causal_order ? causal : free_order)[(d < -200 ? -200 : d) + 200]];
    if (p->bias.slopes) s -= (double)p->slopes[h] * fabs((double)d);
    return s;
}

/* The k best of a row by counting, dense and in double. */
static void check_row(const problem *p, size_t k, size_t b, size_t h, size_t t)
{
    double *s = malloc(p->S * sizeof *s), z[E] = {0}, top = -(double)INFINITY, sum = 0;
    for (size_t j = 0; j < p->S; j++) {
        s[j] = biased_score(p, b, h, t, j);
        top = fmax(top, s[j]);
    }
    for (size_t j = 0; j < p->S && top > -(double)INFINITY; j++) {
        size_t better = 0;
        for (size_t i = 0; i < p->S; i++) better += s[i] > s[j] || (s[i] == s[j] && i < j);
        if (better >= k) continue;
        double w = exp(s[j] - top);
        sum += w;
        for (size_t e = 0; e < E; e++)
            z[e] += w * (double)p->v[((b * G + h / (H / G)) * p->S + j) * E + e];
    }
    for (size_t e = 0; e < E; e++) {
        double expected = sum > 0 ? z[e] / sum : 0;
        double got = (double)p->out[((b * H + h) * p->T + t) * E + e];
        if (!(fabs(got - expected) < 2e-5))
            fail_msg("k %zu, entry %zu, head %zu, query %zu: %g for %g", k, b, h, t, got, expected);
    }
    free(s);
}

static void check_all(problem *p, size_t k)
{
    assert_int_equal(kh_attention_forward(&p->args), KH_OK);
    for (size_t b = 0; b < B; b++)
        for (size_t h = 0; h < H; h++)
            for (size_t t = 0; t < p->T; t++) check_row(p, k, b, h, t);
}

static void equals_a_dense_computation(void **state)
{
    (void)state;
    static const struct {
        size_t T, S;
        kh_attention_mask mask;
    } shapes[] = {{1, 1, KH_ATTENTION_CAUSAL},     {70, 70, KH_ATTENTION_CAUSAL},
                  {150, 150, KH_ATTENTION_CAUSAL}, {3, 150, KH_ATTENTION_CAUSAL},
                  {70, 150, KH_ATTENTION_FREE},    {150, 66, KH_ATTENTION_FREE}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int parts = 1; parts < 8; parts++) {
            problem p;
            open_problem(&p, shapes[i].T, shapes[i].S, shapes[i].mask, "full");
            if (!(parts & 1)) p.bias.key_mask = NULL;
            if (!(parts & 2)) p.bias.relative = NULL;
            if (!(parts & 4)) p.bias.slopes = NULL;
            check_all(&p, p.S);
            p.args.attn = "topk:k=9";
            check_all(&p, 9);
            close_problem(&p);
        }
}

static void rows_without_keys_give_zero(void **state)
{
    (void)state;
    static const char *const attns[] = {"full", "topk:k=4", "window:recent=8"};
    for (size_t i = 0; i < 3; i++) {
        problem p;
        open_problem(&p, 80, 80, KH_ATTENTION_CAUSAL, attns[i]);
        memset(p.mask, 0, B * p.S);
        assert_int_equal(kh_attention_forward(&p.args), KH_OK);
        for (size_t n = 0; n < B * H * p.T * E; n++) assert_true(p.out[n] == 0.0f);
        close_problem(&p);
    }
}

static void bad_tables_are_refused(void **state)
{
    (void)state;
    problem p;
    open_problem(&p, 8, 8, KH_ATTENTION_CAUSAL, "full");
    p.bias.buckets = 0;
    assert_int_equal(kh_attention_forward(&p.args), KH_ERR_ARGUMENT);
    p.bias.buckets = 32;
    p.bias.max_distance = 3;
    assert_int_equal(kh_attention_forward(&p.args), KH_ERR_ARGUMENT);
    close_problem(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_are_t5s),
        cmocka_unit_test(equals_a_dense_computation),
        cmocka_unit_test(rows_without_keys_give_zero),
        cmocka_unit_test(bad_tables_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
