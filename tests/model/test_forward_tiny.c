/* Every family against transformers: tiny random models with unusual shapes (tests/golden/tiny), f32
 * products and an f32 cache. Logits and log-sum-exp of all positions, the residual stream after each
 * layer, the input of the head. */
#include "base/alloc.h"
#include "support/golden_run.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char *const names[] = {"llama",  "llama-linear", "llama-llama3", "llama-yarn",
                                    "qwen2",  "qwen2-q8",     "qwen3",        "qwen3-q4",
                                    "gemma3", "gemma3-q8"};

typedef struct seen {
    size_t T, D, N;
    float *norms /* [N + 1][T] */, *last /* [T][D] */, *final /* [T][D] */;
} seen;

static void row_norms(float *out, const float *x, size_t rows, size_t width)
{
    for (size_t r = 0; r < rows; r++) {
        double sum = 0;
        for (size_t i = 0; i < width; i++)
            sum += (double)x[r * width + i] * (double)x[r * width + i];
        out[r] = (float)sqrt(sum);
    }
}

static void look(void *context, kh_point point, int layer, float *data, size_t rows, size_t width)
{
    seen *s = context;
    if (point == KH_POINT_EMBEDDINGS) row_norms(s->norms, data, rows, width);
    if (point == KH_POINT_RESID_POST)
        row_norms(s->norms + (size_t)(layer + 1) * s->T, data, rows, width);
    if (point == KH_POINT_RESID_POST && (size_t)layer + 1 == s->N)
        memcpy(s->last, data, rows * width * sizeof *data);
    if (point == KH_POINT_FINAL_NORM) memcpy(s->final, data, rows * width * sizeof *data);
}

static void near(const char *name, const char *what, double gap, double limit)
{
    if (!(gap <= limit)) fail_msg("%s: %s differ by %g, allowed %g", name, what, gap, limit);
}

static void check_logits(const char *name, golden *g, const float *rows, size_t T, size_t V,
                         size_t C)
{
    const int32_t *sampled = golden_take(g, C, 4);
    const float *want = golden_take(g, T * C, 4);
    const float *lse = golden_take(g, T, 4);
    const int32_t *best = golden_take(g, T, 4);
    float got[64];
    for (size_t t = 0; t < T; t++) {
        const float *row = rows + t * V;
        for (size_t c = 0; c < C; c++) got[c] = row[sampled[c]];
        near(name, "logits", relative_distance(got, want + t * C, C), 1e-4);
        near(name, "log-sum-exp", fabs(log_sum_exp(row, V) - (double)lse[t]), 1e-4);
        for (size_t v = 0; v < V; v++) assert_true(row[v] <= row[best[t]] + 1e-4f);
    }
}

static void check(const char *name)
{
    char file[64];
    golden g;
    snprintf(file, sizeof file, "tiny/%s.bin", name);
    golden_open(&g, file, "KHTINY01");
    uint32_t T = golden_u32(&g), V = golden_u32(&g), C = golden_u32(&g);
    uint32_t N = golden_u32(&g), D = golden_u32(&g);
    assert_true(C <= 64);
    const int32_t *ids = golden_take(&g, T, 4);
    snprintf(file, sizeof file, "tiny/%s.gguf", name);
    kh_model *model = open_model(golden_path(file));
    assert_int_equal(kh_model_get_info(model)->vocabulary, V);
    kh_session_options so = {.precision = KH_PRECISION_F32,
                             .k_type = KH_CACHE_F32,
                             .v_type = KH_CACHE_F32,
                             .threads = 2};
    kh_session *session = open_session(model, &so);
    seen s = {.T = T, .D = D, .N = N};
    s.norms = kh_calloc((N + 1) * T, 4);
    s.last = kh_calloc(T * D, 4);
    s.final = kh_calloc(T * D, 4);
    kh_probe probe = {.context = &s, .point = look};
    probe.points = UINT64_C(1) << KH_POINT_EMBEDDINGS | UINT64_C(1) << KH_POINT_RESID_POST |
                   UINT64_C(1) << KH_POINT_FINAL_NORM;
    kh_session_observe(session, &probe);
    float *rows = all_logits(model, session, ids, T);
    check_logits(name, &g, rows, T, V, C);
    near(name, "residual norms",
         relative_distance(s.norms, golden_take(&g, (N + 1) * T, 4), (N + 1) * T), 1e-4);
    near(name, "last residual", relative_distance(s.last, golden_take(&g, T * D, 4), T * D), 1e-4);
    near(name, "final norm", relative_distance(s.final, golden_take(&g, T * D, 4), T * D), 1e-4);
    kh_free(rows);
    kh_free(s.norms);
    kh_free(s.last);
    kh_free(s.final);
    kh_session_close(session);
    kh_model_close(model);
    golden_close(&g);
}

static void families_agree_with_transformers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) check(names[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(families_agree_with_transformers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
