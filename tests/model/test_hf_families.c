/* Hugging Face folders of every family against transformers: the folder is opened, its network runs, and
 * states and logits are those that transformers computes from the same folder (tests/golden/families). */
#include "base/alloc.h"
#include "model/network.h"
#include "support/family_golden.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

typedef struct seen {
    const int32_t *rows; /* [P] */
    size_t P, T, D, N;
    float *states; /* [N + 1][P][D] */
    float *norms;  /* [N + 1][T] */
    float *final;  /* [P][D] */
} seen;

static void keep_rows(const seen *s, float *out, const float *data, size_t width)
{
    for (size_t p = 0; p < s->P; p++)
        memcpy(out + p * width, data + (size_t)s->rows[p] * width, width * sizeof *out);
}

static void keep_state(seen *s, size_t at, const float *data, size_t width)
{
    keep_rows(s, s->states + at * s->P * width, data, width);
    for (size_t t = 0; t < s->T; t++) {
        double sum = 0;
        for (size_t i = 0; i < width; i++)
            sum += (double)data[t * width + i] * (double)data[t * width + i];
        s->norms[at * s->T + t] = (float)sqrt(sum);
    }
}

static void look(void *context, kh_point point, int layer, float *data, size_t rows, size_t width)
{
    seen *s = context;
    assert_int_equal(rows, s->T);
    if (point == KH_POINT_EMBEDDINGS) keep_state(s, 0, data, width);
    if (point == KH_POINT_RESID_POST) keep_state(s, (size_t)layer + 1, data, width);
    if (point == KH_POINT_FINAL_NORM) keep_rows(s, s->final, data, width);
}

static void near(const char *name, const char *what, double gap, double limit)
{
    if (!(gap <= limit)) fail_msg("%s: %s differ by %g, allowed %g", name, what, gap, limit);
}

static void check_states(const char *name, const family_golden *g, const seen *s)
{
    size_t L = s->N + 1;
    near(name, "norms", relative_distance(s->norms, family_floats(g, "norms"), L * s->T), 1e-4);
    for (size_t l = 0; l < L; l++) {
        char what[64];
        size_t n = s->P * s->D;
        snprintf(what, sizeof what, "states before layer %zu", l);
        near(name, what,
             relative_distance(s->states + l * n, family_floats(g, "states") + l * n, n), 1e-4);
    }
    near(name, "inputs of the head",
         relative_distance(s->final, family_floats(g, "final"), s->P * s->D), 1e-4);
}

static void check_logits(const char *name, const family_golden *g, const float *rows, size_t T,
                         size_t V)
{
    size_t C;
    const int32_t *sampled = family_ints(g, "sampled", &C);
    const int32_t *best = family_ints(g, "argmax", NULL);
    const float *want = family_floats(g, "logits"), *lse = family_floats(g, "logsumexp");
    float got[256];
    assert_true(C <= 256);
    for (size_t t = 0; t < T; t++) {
        const float *row = rows + t * V;
        for (size_t c = 0; c < C; c++) got[c] = row[sampled[c]];
        near(name, "logits", relative_distance(got, want + t * C, C), 1e-4);
        near(name, "log-sum-exp", fabs(log_sum_exp(row, V) - (double)lse[t]), 1e-4);
        for (size_t v = 0; v < V; v++) assert_true(row[v] <= row[best[t]] + 1e-4f);
    }
}

static void run(const char *name, const family_golden *g, kh_model *model)
{
    size_t T, P;
    const int32_t *ids = family_ints(g, "ids", &T);
    const kh_model_info *info = kh_model_get_info(model);
    size_t N = (size_t)info->layers, D = (size_t)info->width;
    kh_session_options so = {.precision = KH_PRECISION_F32,
                             .k_type = KH_CACHE_F32,
                             .v_type = KH_CACHE_F32,
                             .threads = 2};
    if (family_find(g, "context")) so.context = (size_t)*family_ints(g, "context", NULL);
    seen s = {.rows = family_ints(g, "rows", &P), .T = T, .D = D, .N = N};
    s.P = P;
    s.states = kh_calloc((N + 1) * P * D, sizeof(float));
    s.norms = kh_calloc((N + 1) * T, sizeof(float));
    s.final = kh_calloc(P * D, sizeof(float));
    assert_true(s.states && s.norms && s.final);
    kh_probe probe = {.context = &s, .point = look};
    probe.points = UINT64_C(1) << KH_POINT_EMBEDDINGS | UINT64_C(1) << KH_POINT_RESID_POST |
                   UINT64_C(1) << KH_POINT_FINAL_NORM;
    kh_session *session = open_session(model, &so);
    kh_session_observe(session, &probe);
    float *rows = all_logits(model, session, ids, T);
    check_states(name, g, &s);
    check_logits(name, g, rows, T, (size_t)info->vocabulary);
    kh_free(rows);
    kh_free(s.states);
    kh_free(s.norms);
    kh_free(s.final);
    kh_session_close(session);
}

/* The golden `name` of the folder of that name, "-short" left out. */
static void check(const char *name)
{
    char folder[64];
    family_golden g;
    kh_model *model;
    size_t n = strlen(name), tail = strlen("-short");
    int is_short = n > tail && strcmp(name + n - tail, "-short") == 0;
    snprintf(folder, sizeof folder, "families/%.*s", (int)(is_short ? n - tail : n), name);
    family_open(&g, name);
    GOOD(kh_model_open_network(&model, golden_path(folder)));
    run(name, &g, model);
    kh_model_close(model);
    family_close(&g);
}

static void decoders_agree_with_transformers(void **state)
{
    (void)state;
    static const char *const names[] = {"llama",      "llama-llama3", "llama-linear",
                                        "llama-yarn", "qwen2",        "qwen3"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) check(names[i]);
}

int main(void)
{
    json_set_alloc_funcs(kh_alloc, kh_free);
    const struct CMUnitTest tests[] = {cmocka_unit_test(decoders_agree_with_transformers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
