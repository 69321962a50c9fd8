/* Gradients of adapters against those of the merged model's own weights, which come through other code (A' = s B^T
 * W', B' = s W' A^T), for families whose projections lie in one tensor or several; what must not change a bit; and an
 * adapter that was saved and is trained on. */
#include "base/alloc.h"
#include "model/lora_set.h"
#include "ops/lora.h"
#include "support/family_golden.h"
#include "support/train_case.h"
#include "train/pass.h"

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
    snprintf(folder, sizeof folder, "/tmp/keyhole-tune-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static const char *inside(const char *name)
{
    static char path[160];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int drop_folder(void **state)
{
    (void)state;
    unlink(inside("peft/adapter_model.safetensors"));
    unlink(inside("peft/adapter_config.json"));
    unlink(inside("adapter.gguf"));
    rmdir(inside("peft"));
    return rmdir(folder);
}

/* An adapter of every matrix of the layers, whose B is not zero. */
static kh_params *open_lora(const char *path, const char *tensors)
{
    kh_params *params = NULL;
    kh_params_lora options = {.targets = tensors, .rank = 3, .alpha = 4, .seed = 5};
    GOOD(kh_params_open_lora(&params, path, &options));
    uint64_t seed = 1;
    for (size_t i = 1; i < params->tensor_count; i += 2)
        for (size_t k = 0; k < params->tensors[i].count; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            params->weights[params->tensors[i].offset + k] =
                (float)((double)(seed >> 33) / (double)(1u << 30) - 1) / 8;
        }
    return params;
}

static kh_pass *open_pass(kh_params *params, const char *attn, int threads, kh_recompute recompute)
{
    kh_pass *pass = NULL;
    kh_pass_options options = {
        .rows = SAMPLE_ROWS, .spans = 2, .threads = threads, .attn = attn, .recompute = recompute};
    GOOD(kh_pass_open(&pass, params, &options));
    return pass;
}

static double gradient(kh_params *params, const sample *s, const char *attn, int threads,
                       kh_recompute recompute)
{
    kh_pass *pass = open_pass(params, attn, threads, recompute);
    kh_loss loss = {0}, alone = {0};
    kh_params_clear(params);
    GOOD(kh_pass_gradient(pass, &s->data, 1, 0, &loss));
    GOOD(kh_pass_loss(pass, &s->data, &alone));
    assert_true(fabs(loss.nats - alone.nats) <= 1e-5 * loss.nats);
    kh_pass_close(pass);
    return loss.nats;
}

/* Masters of the whole model with the adapter added to them. */
static kh_params *merged(const kh_params *lora)
{
    kh_params *params = NULL;
    const kh_lora_set *set = lora->lora;
    GOOD(kh_params_open(&params, lora->model->file));
    for (size_t i = 0; i < params->tensor_count; i++) {
        const kh_tensor_spec *t = &params->tensors[i];
        const kh_lora_part *part = kh_lora_find(set, t->name);
        if (!part) continue;
        kh_lora one = kh_lora_of(part, 1);
        kh_lora_add_rows(&one, params->weights + t->offset, 0, part->rows, part->cols);
    }
    return params;
}

static const kh_tensor_spec *find(const kh_params *p, const char *name, const char *tail)
{
    char whole[300];
    snprintf(whole, sizeof whole, "%s%s", name, tail);
    for (size_t i = 0; i < p->tensor_count; i++)
        if (strcmp(p->tensors[i].name, whole) == 0) return &p->tensors[i];
    fail_msg("no tensor %s", whole);
    return NULL;
}

static void near(const char *name, const float *got, const double *want, size_t n)
{
    double gap = 0, size = 1e-9;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - want[i]);
        gap = !(d <= gap) ? d : gap;
        size = fabs(want[i]) > size ? fabs(want[i]) : size;
    }
    if (!(gap <= 2e-4 * size)) fail_msg("gradient of %s: %g beside %g", name, gap, size);
}

static void check_part(const kh_params *lora, const kh_params *whole, const kh_lora_part *p)
{
    const kh_tensor_spec *a = find(lora, p->tensor, ".lora_a"),
                         *b = find(lora, p->tensor, ".lora_b");
    const float *dw = whole->gradients + find(whole, p->tensor, "")->offset;
    double s = (double)kh_lora_of(p, 1).scale;
    double *da = kh_calloc(a->count, sizeof *da), *db = kh_calloc(b->count, sizeof *db);
    assert_true(da && db);
    for (size_t i = 0; i < p->rows; i++)
        for (size_t k = 0; k < p->r; k++)
            for (size_t c = 0; c < p->cols; c++) {
                double d = s * (double)dw[i * p->cols + c];
                da[k * p->cols + c] += d * (double)p->b[i * p->r + k];
                db[i * p->r + k] += d * (double)p->a[k * p->cols + c];
            }
    near(a->name, lora->gradients + a->offset, da, a->count);
    near(b->name, lora->gradients + b->offset, db, b->count);
    kh_free(da);
    kh_free(db);
}

static void gradients_are_those_of_the_merged_model(void **state)
{
    char path[256];
    sample s;
    snprintf(path, sizeof path, "%s", golden_path(*state));
    kh_params *lora = open_lora(path, "blk.*"), *whole = merged(lora);
    make_sample(&s, lora->model->d.V, 0);
    double loss = gradient(lora, &s, NULL, 2, KH_RECOMPUTE_BLOCK);
    double same = gradient(whole, &s, NULL, 2, KH_RECOMPUTE_BLOCK);
    assert_true(fabs(loss - same) <= 1e-5 * loss);
    const kh_lora_set *set = lora->lora;
    assert_true(set->count >= 4 * (size_t)lora->model->d.N);
    for (size_t i = 0; i < set->count; i++) check_part(lora, whole, &set->parts[i]);
    kh_params_close(whole);
    kh_params_close(lora);
}

static void what_changes_no_bit(void **state)
{
    (void)state;
    char path[256];
    sample s;
    float *kept = NULL;
    snprintf(path, sizeof path, "%s", golden_path("families/llama"));
    kh_params *params = open_lora(path, "*attn_[qv].weight,blk.1.ffn_down.weight");
    assert_int_equal(params->tensor_count, 14);
    make_sample(&s, params->model->d.V, 0);
    for (int i = 0; i < 3; i++) {
        gradient(params, &s, "topk:k=5", 1 + (i > 0),
                 i == 2 ? KH_RECOMPUTE_BLOCK : KH_RECOMPUTE_NONE);
        if (!kept) {
            kept = kh_alloc(params->count * sizeof *kept);
            assert_non_null(kept);
            memcpy(kept, params->gradients, params->count * sizeof *kept);
        }
        if (i < 2) assert_memory_equal(kept, params->gradients, params->count * sizeof *kept);
        for (size_t k = 0; k < params->count; k++)
            assert_true(fabsf(kept[k] - params->gradients[k]) <= 1e-5f + 1e-4f * fabsf(kept[k]));
    }
    kh_free(kept);
    kh_params_close(params);
}

/* What is saved, in either form, is trained on as if it had never left. */
static void saved_and_trained_on(void **state)
{
    (void)state;
    char path[256], saved[2][200];
    sample s;
    snprintf(path, sizeof path, "%s", golden_path("tiny/qwen3-q4.gguf"));
    kh_params *params = open_lora(path, "blk.*"), *again = NULL;
    make_sample(&s, params->model->d.V, 0);
    double loss = gradient(params, &s, NULL, 2, KH_RECOMPUTE_BLOCK);
    snprintf(saved[0], sizeof saved[0], "%s", inside("adapter.gguf"));
    snprintf(saved[1], sizeof saved[1], "%s", inside("peft"));
    GOOD(kh_lora_save_gguf(params->lora, params->model->file, saved[0]));
    GOOD(kh_lora_save_peft(params->lora, params->model->file, saved[1]));
    for (int i = 0; i < 2; i++) {
        GOOD(kh_params_open_lora(&again, path, &(kh_params_lora){.from = saved[i]}));
        assert_int_equal(again->count, params->count);
        for (size_t t = 0; t < params->tensor_count; t++) {
            const kh_tensor_spec *one = &params->tensors[t], *same = find(again, one->name, "");
            assert_memory_equal(again->weights + same->offset, params->weights + one->offset,
                                one->count * sizeof *params->weights);
        }
        assert_true(gradient(again, &s, NULL, 2, KH_RECOMPUTE_BLOCK) == loss);
        assert_memory_equal(again->gradients, params->gradients,
                            params->count * sizeof *params->gradients);
        kh_params_close(again);
    }
    kh_params_close(params);
}

/* What is run, but not trained. */
static void an_adapter_of_the_embedding(void **state)
{
    (void)state;
    char path[256], adapter[256];
    kh_params *params;
    snprintf(path, sizeof path, "%s", golden_path("families/llama"));
    snprintf(adapter, sizeof adapter, "%s", golden_path("lora/llama"));
    assert_int_equal(kh_params_open_lora(&params, path, &(kh_params_lora){.from = adapter}),
                     KH_ERR_UNSUPPORTED);
    assert_non_null(strstr(kh_last_error(), "are trained on matrices of layers only"));
    assert_null(params);
    kh_params_lora head = {.rank = 2, .targets = "token_embd.weight,output.weight"};
    assert_int_equal(kh_params_open_lora(&params, path, &head), KH_ERR_ARGUMENT);
    head.from = "nowhere.gguf";
    assert_int_equal(kh_params_open_lora(&params, path, &head), KH_ERR_NOT_FOUND);
    assert_null(params);
}

static void failing_allocations(void **state)
{
    (void)state;
    char path[256], adapter[256];
    kh_params *params;
    snprintf(path, sizeof path, "%s", golden_path("families/gptneox"));
    snprintf(adapter, sizeof adapter, "%s", golden_path("lora/gptneox"));
    uint64_t live = kh_alloc_get_stats().live, n = 1;
    for (;; n++) {
        kh_alloc_fail_at(n);
        kh_status status = kh_params_open_lora(&params, path,
                                               &(kh_params_lora){.rank = 2, .from = adapter});
        kh_alloc_fail_at(0);
        kh_params_close(params);
        assert_int_equal(kh_alloc_get_stats().live, live);
        if (status == KH_OK) break;
        assert_true(status == KH_ERR_MEMORY || strstr(kh_last_error(), "JSON"));
    }
    assert_true(n > 20);
}

int main(void)
{
    static const char *const names[] = {"families/llama",  "families/phi3",    "families/gpt2",
                                        "families/gemma3", "families/gptneox", "families/qwen3"};
    enum { NAMES = sizeof names / sizeof *names };
    struct CMUnitTest tests[NAMES + 4] = {
        cmocka_unit_test(what_changes_no_bit),
        cmocka_unit_test(saved_and_trained_on),
        cmocka_unit_test(an_adapter_of_the_embedding),
        cmocka_unit_test(failing_allocations),
    };
    for (size_t i = 0; i < NAMES; i++)
        tests[4 + i] = (struct CMUnitTest){.name = names[i],
                                           .test_func = gradients_are_those_of_the_merged_model,
                                           .initial_state = (void *)(uintptr_t)names[i]};
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
