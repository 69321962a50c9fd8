/* Folders that are written: opened again they give the same values and the same tensors, for every
 * family; quantised GGUF files become F16. */
#include "model/hf.h"

#include "base/alloc.h"
#include "model/network.h"
#include "ops/unpack.h"
#include "support/golden_run.h"
#include "tensor/half.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "kh-write-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/config.json", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    unlink(path);
    return rmdir(folder);
}

/* Every value of `a` is in `b` and the same; names of folders differ. */
static void same_values(const char *name, const kh_gguf *a, const kh_gguf *b)
{
    for (size_t i = 0; i < kh_gguf_value_count(a); i++) {
        const kh_gguf_value *v = kh_gguf_value_at(a, i);
        char key[128];
        snprintf(key, sizeof key, "%.*s", (int)v->key.size, v->key.data);
        if (strcmp(key, "general.name") == 0 || strstr(key, "pooling_type")) continue;
        const kh_gguf_value *w = kh_gguf_find(b, key);
        if (!w) fail_msg("%s: %s is lost", name, key);
        if (v->kind != w->kind || v->element != w->element || v->count != w->count)
            fail_msg("%s: %s has another form", name, key);
        for (uint64_t e = 0; e < v->count; e++) {
            double x = 0, y = 1;
            uint64_t m = 0, n = 1;
            if (v->element == KH_GGUF_STRING) {
                assert_int_equal(v->strings[e].size, w->strings[e].size);
                assert_memory_equal(v->strings[e].data, w->strings[e].data, v->strings[e].size);
            } else if (v->element == KH_GGUF_BOOL) {
                GOOD(kh_gguf_element_u64(v, e, &m));
                GOOD(kh_gguf_element_u64(w, e, &n));
                assert_int_equal(m, n);
            } else {
                GOOD(kh_gguf_element_f64(v, e, &x));
                GOOD(kh_gguf_element_f64(w, e, &y));
                if (!(fabs(x - y) <= 2e-7 * fabs(x)))
                    fail_msg("%s: %s: %g became %g", name, key, x, y);
            }
        }
    }
}

static void same_tensors(const char *name, const kh_gguf *a, const kh_gguf *b)
{
    assert_int_equal(kh_gguf_tensor_count(a), kh_gguf_tensor_count(b));
    for (size_t i = 0; i < kh_gguf_tensor_count(a); i++) {
        const kh_tensor *t = kh_gguf_tensor_at(a, i), *u = kh_gguf_tensor(b, t->name);
        if (!u) fail_msg("%s: %s is lost", name, t->name);
        if (t->type != u->type || t->size != u->size ||
            memcmp(t->dims, u->dims, sizeof t->dims) != 0)
            fail_msg("%s: %s has another form", name, t->name);
        if (t->type == KH_TYPE_F32) {
            const float *x = t->data, *y = u->data;
            for (size_t e = 0; e < t->size / 4; e++)
                if (!(fabsf(x[e] - y[e]) <= 3e-7f * (fabsf(x[e]) + 1)))
                    fail_msg("%s: %s: element %zu: %g became %g", name, t->name, e, (double)x[e],
                             (double)y[e]);
        } else {
            assert_memory_equal(t->data, u->data, t->size);
        }
    }
}

static void folders_come_back(void **state)
{
    (void)state;
    static const char *const names[] = {
        "llama",     "llama-bias", "llama-llama3", "llama-linear", "llama-yarn", "mistral",
        "mixtral",   "phi3",       "phi3-window",  "qwen2",        "qwen2-moe",  "qwen3",
        "qwen3-moe", "gemma2",     "gemma3",       "gpt2",         "gptneox",    "gptneox-serial",
        "bert",      "bert-qa",    "bert-embed",   "roberta",      "nomic-bert", "t5",
        "t5-gated",  "t5-encoder", "distilbert"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64];
        kh_gguf *first, *again;
        snprintf(path, sizeof path, "families/%s", names[i]);
        GOOD(kh_hf_open(&first, golden_path(path)));
        GOOD(kh_hf_write(first, folder, KH_TYPE_NONE));
        GOOD(kh_hf_open(&again, folder));
        if (strcmp(names[i], "llama-llama3") != 0) { /* other numbers than the published ones */
            same_values(names[i], first, again);
            same_tensors(names[i], first, again);
        }
        kh_gguf_close(again);
        kh_gguf_close(first);
    }
}

/* A quantised file: matrices within the rounding of F16, and the network runs. */
static void quantised_files_become_f16(void **state)
{
    (void)state;
    kh_gguf *file, *again;
    GOOD(kh_gguf_open(&file, golden_path("tiny/qwen3-q4.gguf")));
    GOOD(kh_hf_write(file, folder, KH_TYPE_NONE));
    GOOD(kh_hf_open(&again, folder));
    assert_int_equal(kh_gguf_tensor_count(file), kh_gguf_tensor_count(again));
    float rows[2][512];
    size_t seen = 0;
    for (size_t i = 0; i < kh_gguf_tensor_count(file); i++) {
        const kh_tensor *t = kh_gguf_tensor_at(file, i), *u = kh_gguf_tensor(again, t->name);
        assert_non_null(u);
        kh_unpack from = kh_unpack_of(kh_kern_get(kh_cpu_isa()), t->type);
        if (!from.q8) continue;
        assert_int_equal(u->type, KH_TYPE_F16);
        assert_true(t->dims[0] <= 512);
        from.f32(rows[0], t->data, (size_t)t->dims[0]);
        for (size_t c = 0; c < t->dims[0]; c++) {
            rows[1][c] = kh_f16_to_f32(((const uint16_t *)u->data)[c]);
            assert_true(rows[1][c] == kh_f16_to_f32(kh_f32_to_f16(rows[0][c])));
        }
        seen++;
    }
    assert_true(seen > 5);
    kh_gguf_close(again);
    kh_gguf_close(file);
    kh_model *model;
    GOOD(kh_model_open_network(&model, folder));
    kh_model_close(model);
}

static void what_has_no_name_is_refused(void **state)
{
    (void)state;
    kh_gguf *file;
    uint64_t dims[2] = {4, 4};
    float zeros[16] = {0};
    GOOD(kh_gguf_new(&file, "composed"));
    GOOD(kh_gguf_set_string(file, "general.architecture", (kh_slice){"mamba", 5}));
    assert_int_equal(kh_hf_write(file, folder, KH_TYPE_NONE), KH_ERR_UNSUPPORTED);
    assert_non_null(strstr(kh_last_error(), "mamba"));
    kh_gguf_close(file);
    GOOD(kh_hf_open(&file, golden_path("families/llama")));
    GOOD(kh_gguf_add_tensor(file, "blk.0.attn_extra.weight", KH_TYPE_F32, 2, dims, zeros));
    assert_int_equal(kh_hf_write(file, folder, KH_TYPE_NONE), KH_ERR_UNSUPPORTED);
    assert_non_null(strstr(kh_last_error(), "attn_extra"));
    kh_gguf_close(file);
}

/* Every allocation fails once: a sentence, and nothing is left. */
static void memory_runs_out(void **state)
{
    (void)state;
    kh_gguf *file;
    GOOD(kh_gguf_open(&file, golden_path("tiny/gemma3-q8.gguf")));
    GOOD(kh_hf_write(file, folder, KH_TYPE_F16));
    uint64_t live = kh_alloc_get_stats().live;
    kh_alloc_fail_at(0);
    GOOD(kh_hf_write(file, folder, KH_TYPE_F16));
    uint64_t n = kh_alloc_fail_at(0);
    assert_true(n > 100);
    for (uint64_t i = 1; i <= n; i++) {
        kh_alloc_fail_at(i);
        kh_status status = kh_hf_write(file, folder, KH_TYPE_F16);
        kh_alloc_fail_at(0);
        if (status == KH_OK) fail_msg("allocation %llu is not missed", (unsigned long long)i);
        assert_int_equal(kh_alloc_get_stats().live, live);
    }
    kh_gguf_close(file);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)

int main(void)
{
    json_set_alloc_funcs(kh_alloc, kh_free);
    const struct CMUnitTest tests[] = {
        IN_FOLDER(folders_come_back),
        IN_FOLDER(quantised_files_become_f16),
        IN_FOLDER(what_has_no_name_is_refused),
        IN_FOLDER(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
