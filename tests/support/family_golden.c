/* The goldens of every family. A golden names its arrays, so a reader asks for what it checks; an array
 * that nobody asks for fails the test, and so does a folder that no line of the table mentions. */
#include "support/family_golden.h"

#include "base/alloc.h"

#include <keyhole/convert.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

const family families[] = {
    {"llama", NULL, FAMILY_CAUSAL},          {"llama-bias", NULL, FAMILY_CAUSAL},
    {"llama-llama3", NULL, FAMILY_CAUSAL},   {"llama-linear", NULL, FAMILY_CAUSAL},
    {"llama-yarn", NULL, FAMILY_CAUSAL},     {"mistral", NULL, FAMILY_CAUSAL},
    {"mixtral", NULL, FAMILY_CAUSAL},        {"phi3", NULL, FAMILY_CAUSAL},
    {"phi3-short", "phi3", FAMILY_CAUSAL},   {"phi3-window", NULL, FAMILY_CAUSAL},
    {"qwen2", NULL, FAMILY_CAUSAL},          {"qwen2-moe", NULL, FAMILY_CAUSAL},
    {"qwen3", NULL, FAMILY_CAUSAL},          {"qwen3-moe", NULL, FAMILY_CAUSAL},
    {"gemma2", NULL, FAMILY_CAUSAL},         {"gemma3", NULL, FAMILY_CAUSAL},
    {"gpt2", NULL, FAMILY_CAUSAL},           {"gptneox", NULL, FAMILY_CAUSAL},
    {"gptneox-serial", NULL, FAMILY_CAUSAL}, {"bert", NULL, FAMILY_MASKED},
    {"bert-qa", NULL, FAMILY_SPANS},         {"bert-embed", NULL, FAMILY_EMBED},
    {"roberta", NULL, FAMILY_MASKED},        {"distilbert", NULL, FAMILY_MASKED},
    {"nomic-bert", NULL, FAMILY_EMBED},      {"t5", NULL, FAMILY_T5},
    {"t5-gated", NULL, FAMILY_T5},           {"t5-encoder", NULL, FAMILY_T5_ENCODER},
};
const size_t family_count = sizeof families / sizeof *families;

const family *family_named(const char *name)
{
    for (size_t i = 0; i < family_count; i++)
        if (strcmp(families[i].name, name) == 0) return &families[i];
    fail_msg("no family %s", name);
    return NULL;
}

const char *family_path(const family *f)
{
    char name[64];
    snprintf(name, sizeof name, "families/%s", f->folder ? f->folder : f->name);
    return golden_path(name);
}

kh_model *family_as_gguf(const family *f)
{
    char folder[] = "/tmp/keyhole-family-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/model.gguf", folder);
    GOOD(kh_convert(family_path(f), path, &(kh_convert_options){.type = "F32"}, NULL));
    kh_model *model = open_model(path);
    unlink(path);
    rmdir(folder);
    return model;
}

void family_same_tokens(const kh_model *one, const kh_model *other)
{
    static const char text[] = "Hello, the keyhole was 12 feet deep.\nIsn't it?  Yes";
    int32_t *a = NULL, *b = NULL;
    size_t m = 0, n = 0;
    GOOD(kh_model_tokenize(one, text, strlen(text), KH_TEXT_EDGES, &a, &m));
    GOOD(kh_model_tokenize(other, text, strlen(text), KH_TEXT_EDGES, &b, &n));
    assert_true(n > 10);
    assert_int_equal(m, n);
    assert_memory_equal(a, b, n * sizeof *a);
    kh_free_ids(a);
    kh_free_ids(b);
}

void family_open(family_golden *g, const family *f)
{
    char name[64];
    memset(g, 0, sizeof *g);
    g->name = f->name;
    snprintf(name, sizeof name, "families/%s.bin", f->name);
    golden_open(&g->file, name, "KHFAMILY");
    g->count = golden_u32(&g->file);
    assert_true(g->count <= sizeof g->arrays / sizeof *g->arrays);
    for (size_t i = 0; i < g->count; i++) {
        family_array *a = &g->arrays[i];
        memcpy(a->name, golden_take(&g->file, 24, 1), 24);
        a->ids = golden_u32(&g->file) == 1;
        a->n_dims = golden_u32(&g->file);
        assert_in_range(a->n_dims, 1, 4);
        a->count = 1;
        for (size_t d = 0; d < 4; d++) {
            a->dims[d] = golden_u32(&g->file);
            if (d < a->n_dims) a->count *= a->dims[d];
        }
        a->data = golden_take(&g->file, a->count, 4);
    }
}

void family_close(family_golden *g)
{
    for (size_t i = 0; i < g->count; i++)
        if (!g->arrays[i].taken) fail_msg("%s: nobody checks %s", g->name, g->arrays[i].name);
    golden_close(&g->file);
}

const family_array *family_find(family_golden *g, const char *prefix, const char *name)
{
    char whole[64];
    snprintf(whole, sizeof whole, "%s%s", prefix, name);
    for (size_t i = 0; i < g->count; i++) {
        if (strcmp(g->arrays[i].name, whole) != 0) continue;
        g->arrays[i].taken = 1;
        return &g->arrays[i];
    }
    return NULL;
}

static const family_array *need(family_golden *g, const char *prefix, const char *name, size_t n,
                                int ids)
{
    const family_array *a = family_find(g, prefix, name);
    if (!a) fail_msg("%s has no %s%s", g->name, prefix, name);
    if (n && a->count != n)
        fail_msg("%s: %s has %zu elements, not %zu", g->name, name, a->count, n);
    assert_int_equal(a->ids, ids);
    return a;
}

const float *family_floats(family_golden *g, const char *prefix, const char *name, size_t n)
{
    return need(g, prefix, name, n, 0)->data;
}

const int32_t *family_ids(family_golden *g, const char *prefix, const char *name, size_t n)
{
    return need(g, prefix, name, n, 1)->data;
}

void family_near(const family_golden *g, const char *what, double gap, double limit)
{
    if (!(gap <= limit)) fail_msg("%s: %s differ by %g, allowed %g", g->name, what, gap, limit);
}

static void look(void *context, kh_point point, int layer, float *data, size_t rows, size_t width)
{
    family_stream *s = context;
    size_t size = rows * width;
    assert_int_equal(rows, s->T);
    assert_int_equal(width, s->D);
    if (point == KH_POINT_RESID_PRE && layer == s->first)
        memcpy(s->states, data, size * sizeof *data);
    if (point == KH_POINT_RESID_POST) {
        assert_int_equal(layer, s->first + (int)s->seen);
        assert_true(s->seen < s->N);
        memcpy(s->states + ++s->seen * size, data, size * sizeof *data);
    }
    if (point == KH_POINT_FINAL_NORM) {
        memcpy(s->final, data, size * sizeof *data);
        s->has_final = 1;
    }
}

void family_stream_open(family_stream *s, family_golden *g, const char *prefix)
{
    const family_array *norms = need(g, prefix, "norms", 0, 0);
    const family_array *states = need(g, prefix, "states", 0, 0);
    assert_int_equal(norms->n_dims, 2);
    assert_int_equal(states->n_dims, 3);
    *s = (family_stream){.N = norms->dims[0] - 1, .T = norms->dims[1], .D = states->dims[2]};
    s->states = kh_calloc((s->N + 1) * s->T * s->D, sizeof *s->states);
    s->final = kh_calloc(s->T * s->D, sizeof *s->final);
    s->probe = (kh_probe){.context = s,
                          .point = look,
                          .points = UINT64_C(1) << KH_POINT_RESID_PRE |
                                    UINT64_C(1) << KH_POINT_RESID_POST |
                                    UINT64_C(1) << KH_POINT_FINAL_NORM};
}

static double length(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

/* Rows of one layer; the distance is relative to the layer's largest element. */
static void same_rows(const family_golden *g, const char *what, const float *got,
                      const float *want /* [rows][D] */, const int32_t *rows, size_t P, size_t D)
{
    float *picked = kh_alloc(P * D * sizeof *picked);
    assert_non_null(picked);
    for (size_t p = 0; p < P; p++)
        memcpy(picked + p * D, got + (size_t)rows[p] * D, D * sizeof *picked);
    double gap = relative_distance(picked, want, P * D);
    kh_free(picked);
    family_near(g, what, gap, 1e-4);
}

void family_stream_close(family_stream *s, family_golden *g, const char *prefix)
{
    size_t T = s->T, D = s->D, P = need(g, prefix, "rows", 0, 1)->count;
    const int32_t *rows = family_ids(g, prefix, "rows", P);
    const float *norms = family_floats(g, prefix, "norms", (s->N + 1) * T);
    const float *states = family_floats(g, prefix, "states", (s->N + 1) * P * D);
    const family_array *final = family_find(g, prefix, "final");
    char what[64];
    assert_int_equal(s->seen, s->N);
    for (size_t n = 0; n <= s->N; n++) {
        const float *layer = s->states + n * T * D;
        snprintf(what, sizeof what, "%sstates after %zu layers", prefix, n);
        same_rows(g, what, layer, states + n * P * D, rows, P, D);
        for (size_t t = 0; t < T; t++) {
            double want = (double)norms[n * T + t];
            family_near(g, what, fabs(length(layer + t * D, D) - want) / want, 1e-4);
        }
    }
    if (final) {
        assert_true(s->has_final);
        assert_int_equal(final->count, P * D);
        same_rows(g, "final states", s->final, final->data, rows, P, D);
    }
    kh_free(s->states);
    kh_free(s->final);
}

void family_check_logits(family_golden *g, const float *logits, size_t first, size_t n, size_t V)
{
    const family_array *want = need(g, "", "logits", 0, 0);
    size_t T = want->dims[0], C = want->dims[1];
    const int32_t *sampled = family_ids(g, "", "sampled", C);
    const float *values = want->data, *lse = family_floats(g, "", "logsumexp", T);
    const int32_t *best = family_ids(g, "", "argmax", T);
    float got[64];
    assert_true(first + n <= T && C <= sizeof got / sizeof *got);
    for (size_t t = first; t < first + n; t++, logits += V) {
        for (size_t c = 0; c < C; c++) {
            assert_in_range(sampled[c], 0, V - 1);
            got[c] = logits[sampled[c]];
        }
        family_near(g, "logits", relative_distance(got, values + t * C, C), 1e-4);
        family_near(g, "log-sum-exp", fabs(log_sum_exp(logits, V) - (double)lse[t]), 2e-4);
        for (size_t v = 0; v < V; v++) assert_true(logits[v] <= logits[best[t]] + 2e-4f);
    }
}
