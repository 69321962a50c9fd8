/* Adapters compute what they should: those that PEFT made against PEFT (tests/golden/lora), and random ones
 * on every matrix of every family against the model that they are merged into, which is another way through
 * the code: f32 weights and no adapter. Rows together and one by one, in every kind of product. */
#include "base/alloc.h"
#include "model/hf.h"
#include "model/lora_set.h"
#include "support/family_golden.h"

#include <keyhole/convert.h>
#include <keyhole/encode.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { SINGLE = 5 }; /* rows at the end that are read one by one */

static char folder[64];

static const char *inside(const char *name)
{
    static char paths[4][160];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/keyhole-lora-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"adapter.gguf",
                                        "merged.gguf",
                                        "model.gguf",
                                        "peft/adapter_model.safetensors",
                                        "peft/adapter_config.json",
                                        "peft",
                                        "hf/model.safetensors",
                                        "hf/config.json",
                                        "hf"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strchr(names[i], '.')) unlink(inside(names[i]));
        rmdir(inside(names[i]));
    }
    return rmdir(folder);
}

/* ---- against PEFT ---- */

static const char *const peft_names[] = {"llama", "gpt2", "qwen2", "gemma3", "gptneox", "phi3"};
enum { PEFTS = sizeof peft_names / sizeof *peft_names };

static const char *adapter_path(const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "lora/%s", name);
    return golden_path(path);
}

static kh_model *open_family(const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "families/%s", name);
    return open_model(golden_path(path));
}

static const kh_session_options exact = {
    .precision = KH_PRECISION_F32, .k_type = KH_CACHE_F32, .v_type = KH_CACHE_F32, .threads = 2};

static void check_logits(const kh_model *model, family_golden *g)
{
    const family_array *text = family_find(g, "", "ids");
    const int32_t *ids = text->data;
    size_t T = text->count, V = (size_t)kh_model_get_info(model)->vocabulary;
    kh_session *session = open_session(model, &exact);
    float *logits = all_logits(model, session, ids, T);
    family_check_logits(g, logits, 0, T, V);
    GOOD(kh_session_rewind(session, T - SINGLE));
    for (size_t t = T - SINGLE; t < T; t++) {
        GOOD(kh_session_read(session, ids + t, 1, NULL));
        family_check_logits(g, kh_session_logits(session), t, 1, V);
    }
    kh_session_close(session);
    kh_free(logits);
}

static void same_sets(const kh_lora_set *one, const kh_lora_set *other)
{
    assert_int_equal(one->count, other->count);
    for (size_t i = 0; i < one->count; i++) {
        const kh_lora_part *a = &one->parts[i], *b = kh_lora_find(other, a->tensor);
        if (!b) fail_msg("%s is lost", a->tensor);
        assert_int_equal(a->r, b->r);
        assert_memory_equal(a->a, b->a, a->r * a->cols * sizeof *a->a);
        double scale = (double)kh_lora_of(a, 1).scale, same = (double)kh_lora_of(b, 1).scale;
        for (size_t k = 0; k < a->rows * a->r; k++) {
            double x = scale * (double)a->b[k], y = same * (double)b->b[k];
            if (!(fabs(x - y) <= 3e-7 * fabs(x))) fail_msg("%s: %g became %g", a->tensor, x, y);
        }
    }
}

/* PEFT's folder, the GGUF adapter made of it, and the folder made of that: one set of numbers. */
static void round_trip(const char *base_path, const char *adapter)
{
    kh_gguf *base;
    kh_lora_set *first, *second, *third;
    kh_convert_lora lora = {adapter, 1};
    kh_convert_options options = {.loras = &lora, .lora_count = 1, .only_lora = 1, .overwrite = 1};
    GOOD(kh_convert(base_path, inside("adapter.gguf"), &options, NULL));
    lora.path = inside("adapter.gguf");
    GOOD(kh_convert(base_path, inside("peft/"), &options, NULL));
    GOOD(kh_hf_open(&base, base_path));
    GOOD(kh_lora_open(&first, base, adapter));
    GOOD(kh_lora_open(&second, base, lora.path));
    GOOD(kh_lora_open(&third, base, inside("peft")));
    assert_string_equal(first->format, "PEFT");
    assert_string_equal(second->format, "GGUF");
    same_sets(first, second);
    same_sets(second, third);
    kh_lora_close(first);
    kh_lora_close(second);
    kh_lora_close(third);
    kh_gguf_close(base);
}

static void agrees_with_peft(void **state)
{
    const char *name = *state;
    char golden_name[64], base_path[256], adapter[256];
    snprintf(golden_name, sizeof golden_name, "../lora/%s", name);
    family_golden g;
    family_open(&g, &(family){.name = golden_name});
    snprintf(adapter, sizeof adapter, "%s", adapter_path(name));
    kh_model *model = open_family(name);
    snprintf(base_path, sizeof base_path, "%s", kh_model_get_info(model)->path);
    GOOD(kh_model_add_lora(model, adapter, 1));
    check_logits(model, &g);
    kh_model_close(model);
    round_trip(base_path, adapter);
    /* the GGUF file of the model with the GGUF adapter, and with the folder that came of it */
    GOOD(kh_convert(base_path, inside("model.gguf"),
                    &(kh_convert_options){.type = "F32", .overwrite = 1}, NULL));
    for (int i = 0; i < 2; i++) {
        model = open_model(inside("model.gguf"));
        GOOD(kh_model_add_lora(model, i ? inside("peft") : inside("adapter.gguf"), 1));
        check_logits(model, &g);
        kh_model_close(model);
    }
    family_close(&g);
}

/* ---- against the merged model ---- */

static float draw(uint64_t *counter)
{
    *counter = *counter * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(*counter >> 33) / (double)(1u << 30) - 1);
}

/* Random parts for every matrix that takes one; tied embeddings and heads are left as they are. */
static void random_adapter(const char *base_path, const char *path, uint64_t seed)
{
    kh_gguf *base;
    kh_lora_set *set;
    GOOD(kh_hf_open(&base, base_path));
    GOOD(kh_lora_new(&set, path));
    int tied = kh_gguf_tensor(base, "output.weight") == NULL;
    for (size_t i = 0; i < kh_gguf_tensor_count(base); i++) {
        const kh_tensor *t = kh_gguf_tensor_at(base, i);
        size_t r = 1 + i % 5;
        if (t->dims[1] < 2 || (tied && strcmp(t->name, "token_embd.weight") == 0)) continue;
        kh_status status = kh_lora_add(set, base, t->name, r, (double)(1 + i % 3), NULL, NULL);
        if (status == KH_ERR_UNSUPPORTED) continue; /* experts, tables */
        GOOD(status);
        kh_lora_part *part = &set->parts[set->count - 1];
        float *a = kh_lora_a(part), *b = kh_lora_b(part);
        for (size_t k = 0; k < part->r * part->cols; k++)
            a[k] = draw(&seed) / sqrtf((float)part->cols);
        for (size_t k = 0; k < part->r * part->rows; k++) b[k] = draw(&seed) / 4;
    }
    assert_true(set->count > 5);
    GOOD(kh_lora_save_gguf(set, base, path));
    kh_lora_close(set);
    kh_gguf_close(base);
}

/* What a model makes of some ids, on the heap: logits of a pass and of single rows, or rows of an encoder. */
typedef struct result {
    float *values;
    size_t n;
} result;

static kh_status keep_rows(void *context, size_t text, const float *rows)
{
    result *r = context;
    (void)text;
    memcpy(r->values, rows, r->n * sizeof *rows);
    return KH_OK;
}

static result run_encoder(const kh_model *model, kh_precision precision, const int32_t *ids,
                          size_t T)
{
    result r = {.n = T * (size_t)kh_model_get_info(model)->width};
    kh_encoder *encoder = NULL;
    kh_encoder_text text = {ids, NULL, T};
    r.values = kh_alloc(r.n * sizeof *r.values);
    assert_non_null(r.values);
    GOOD(kh_encoder_open(&encoder, model,
                         &(kh_encoder_options){.precision = precision, .threads = 2}));
    GOOD(kh_encoder_run(encoder, &text, 1, keep_rows, &r));
    kh_encoder_close(encoder);
    return r;
}

static result run(const kh_model *model, kh_precision precision)
{
    enum { T = 24 };
    int32_t ids[T];
    size_t V = (size_t)kh_model_get_info(model)->vocabulary;
    for (size_t i = 0; i < T; i++) ids[i] = (int32_t)(4 + i * 37 % (V - 20));
    if (kh_model_get_kind(model) == KH_MODEL_ENCODER) return run_encoder(model, precision, ids, T);
    kh_session_options options = exact;
    options.precision = precision;
    kh_session *session = open_session(model, &options);
    if (kh_model_get_kind(model) == KH_MODEL_ENCODER_DECODER) {
        GOOD(kh_session_source(session, ids, T));
        ids[0] = kh_model_start(model);
    }
    result r = {all_logits(model, session, ids, T), T * V};
    GOOD(kh_session_rewind(session, T - SINGLE));
    for (size_t t = T - SINGLE; t < T; t++) {
        GOOD(kh_session_read(session, ids + t, 1, NULL));
        if (precision == KH_PRECISION_Q8) continue; /* a cache of rows that were read together */
        double gap = relative_distance(kh_session_logits(session), r.values + t * V, V);
        if (!(gap <= 1e-5)) fail_msg("row %zu read alone differs by %g", t, gap);
    }
    kh_session_close(session);
    return r;
}

static void near(const char *name, const char *what, result got, result want, double limit)
{
    assert_int_equal(got.n, want.n);
    double gap = relative_distance(got.values, want.values, got.n);
    if (!(gap <= limit)) fail_msg("%s: %s: %g, allowed %g", name, what, gap, limit);
}

/* The adapter beside the model, against the one that was written with it. */
static void equals_merged(void **state)
{
    const family *f = *state;
    char base[256];
    snprintf(base, sizeof base, "%s", family_path(f));
    random_adapter(base, inside("adapter.gguf"), 7);
    kh_convert_lora lora = {inside("adapter.gguf"), 0.75f};
    kh_convert_result made;
    GOOD(kh_convert(
        base, inside("merged.gguf"),
        &(kh_convert_options){.type = "F32", .loras = &lora, .lora_count = 1, .overwrite = 1},
        &made));
    kh_model *plain = open_model(base), *model = open_model(base), *merged;
    GOOD(kh_model_add_lora(model, inside("adapter.gguf"), 0.75f));
    merged = open_model(inside("merged.gguf"));
    assert_int_equal(made.merged, kh_model_get_lora(model, 0)->tensors);
    static const kh_precision kinds[] = {KH_PRECISION_F32, KH_PRECISION_DEFAULT};
    for (size_t i = 0; i < 2; i++) {
        result got = run(model, kinds[i]), want = run(merged, kinds[i]),
               base_r = run(plain, kinds[i]);
        near(f->name, "merged", got, want, 1e-5);
        if (relative_distance(got.values, base_r.values, got.n) < 0.01)
            fail_msg("%s: the adapter changes nothing", f->name);
        kh_free(got.values);
        kh_free(want.values);
        kh_free(base_r.values);
    }
    kh_model_close(plain);
    kh_model_close(model);
    kh_model_close(merged);
}

/* Quantised weights in every kind of product, and several adapters: a difference of logits that is as good
 * as that of the f32 model, since the adapter's part is f32 everywhere. */
static void on_quantised_weights(void **state)
{
    (void)state;
    static const char *const names[] = {"tiny/qwen3-q4.gguf", "tiny/gemma3-q8.gguf"};
    static const kh_precision kinds[] = {KH_PRECISION_F32, KH_PRECISION_DEFAULT, KH_PRECISION_Q8};
    for (size_t i = 0; i < 2; i++) {
        char base[256];
        snprintf(base, sizeof base, "%s", golden_path(names[i]));
        kh_gguf *file;
        kh_lora_set *set;
        uint64_t seed = 3 + i;
        GOOD(kh_gguf_open(&file, base));
        GOOD(kh_lora_new(&set, inside("adapter.gguf")));
        for (size_t t = 0; t < kh_gguf_tensor_count(file); t++) {
            const kh_tensor *one = kh_gguf_tensor_at(file, t);
            if (strncmp(one->name, "blk.", 4) != 0 || one->dims[1] < 2) continue;
            GOOD(kh_lora_add(set, file, one->name, 9, 9, NULL, NULL));
            kh_lora_part *p = &set->parts[set->count - 1];
            for (size_t k = 0; k < p->numbers; k++)
                p->own[k] = draw(&seed) / (k < p->r * p->cols ? 8 : 16);
        }
        GOOD(kh_lora_save_gguf(set, file, inside("adapter.gguf")));
        kh_lora_close(set);
        kh_gguf_close(file);
        kh_convert_lora twice[2] = {{inside("adapter.gguf"), 0.25f},
                                    {inside("adapter.gguf"), 0.5f}};
        GOOD(kh_convert(
            base, inside("merged.gguf"),
            &(kh_convert_options){.type = "F32", .loras = twice, .lora_count = 2, .overwrite = 1},
            NULL));
        kh_model *merged = open_model(inside("merged.gguf"));
        kh_model *model = open_model(base);
        for (int k = 0; k < 2; k++)
            GOOD(kh_model_add_lora(model, twice[k].path, twice[k].strength));
        result want = run(merged, KH_PRECISION_F32);
        for (size_t k = 0; k < 3; k++) {
            result got = run(model, kinds[k]);
            near(names[i], "two adapters", got, want, k < 2 ? 2e-5 : 5e-2);
            kh_free(got.values);
        }
        kh_free(want.values);
        kh_model_close(merged);
        kh_model_close(model);
    }
}

/* A folder that a model was merged into says the same as a file. */
static void merged_into_a_folder(void **state)
{
    (void)state;
    for (size_t i = 0; i < family_count; i++) {
        const family *f = &families[i];
        if (strcmp(f->name, "llama") != 0 && strcmp(f->name, "gpt2") != 0) continue;
        char base[256];
        snprintf(base, sizeof base, "%s", family_path(f));
        random_adapter(base, inside("adapter.gguf"), 11);
        kh_convert_lora lora = {inside("adapter.gguf"), 1};
        kh_convert_options options = {
            .type = "F32", .loras = &lora, .lora_count = 1, .overwrite = 1, .no_tokenizer = 1};
        GOOD(kh_convert(base, inside("merged.gguf"), &options, NULL));
        GOOD(kh_convert(base, inside("hf/"), &options, NULL));
        kh_gguf *one, *other;
        GOOD(kh_gguf_open(&one, inside("merged.gguf")));
        GOOD(kh_hf_open(&other, inside("hf")));
        assert_int_equal(kh_gguf_tensor_count(one), kh_gguf_tensor_count(other));
        for (size_t t = 0; t < kh_gguf_tensor_count(one); t++) {
            const kh_tensor *a = kh_gguf_tensor_at(one, t), *b = kh_gguf_tensor(other, a->name);
            assert_non_null(b);
            assert_int_equal(a->size, b->size);
            assert_memory_equal(a->data, b->data, a->size);
        }
        kh_gguf_close(one);
        kh_gguf_close(other);
    }
}

/* Rankings of neurons see the adapted value vectors. */
static void kept_neurons(void **state)
{
    (void)state;
    int32_t ids[20];
    char base[256];
    float *logits[2];
    snprintf(base, sizeof base, "%s", adapter_path("../families/llama"));
    random_adapter(base, inside("adapter.gguf"), 3);
    kh_convert_lora lora = {inside("adapter.gguf"), 1};
    kh_convert_options options = {.type = "F32", .loras = &lora, .lora_count = 1, .overwrite = 1};
    GOOD(kh_convert(base, inside("merged.gguf"), &options, NULL));
    for (int32_t i = 0; i < 20; i++) ids[i] = 5 + 31 * i % 120;
    for (int i = 0; i < 2; i++) {
        kh_model *model = open_model(i ? inside("merged.gguf") : base);
        if (!i) GOOD(kh_model_add_lora(model, lora.path, lora.strength));
        kh_session_options how = exact;
        how.ff = "topk:k=9,rule=n";
        kh_session *session = open_session(model, &how);
        logits[i] = all_logits(model, session, ids, 20);
        kh_session_close(session);
        kh_model_close(model);
    }
    near("llama", "topk:k=9,rule=n", (result){logits[0], 20 * 140}, (result){logits[1], 20 * 140},
         1e-5);
    kh_free(logits[0]);
    kh_free(logits[1]);
}

/* ---- what a model says of its adapters ---- */

static void listed_and_part_of_the_identity(void **state)
{
    (void)state;
    char base[17], once[17];
    kh_model *model = open_family("llama");
    snprintf(base, sizeof base, "%s", kh_model_get_info(model)->identity);
    assert_int_equal(kh_model_lora_count(model), 0);
    assert_null(kh_model_get_lora(model, 0));
    GOOD(kh_model_add_lora(model, adapter_path("llama"), 0));
    assert_string_equal(kh_model_get_info(model)->identity, base);
    GOOD(kh_model_add_lora(model, adapter_path("llama"), 0.5f));
    snprintf(once, sizeof once, "%s", kh_model_get_info(model)->identity);
    assert_string_not_equal(once, base);
    GOOD(kh_model_add_lora(model, adapter_path("llama"), -0.5f));
    assert_string_not_equal(kh_model_get_info(model)->identity, once);
    assert_int_equal(kh_model_lora_count(model), 3);
    const kh_lora_info *info = kh_model_get_lora(model, 1);
    assert_string_equal(info->format, "PEFT");
    assert_true(info->strength == 0.5f && info->alpha == 6);
    assert_int_equal(info->tensors, 23); /* seven in each of three layers, embedding, head */
    assert_int_equal(info->least_rank, 2);
    assert_int_equal(info->most_rank, 4);
    kh_memory_need need;
    GOOD(kh_model_memory(model, NULL, &need));
    assert_int_equal(need.adapters, 3 * 4 * info->parameters);
    /* halves of opposite signs leave the model as it was */
    kh_model *plain = open_family("llama");
    result got = run(model, KH_PRECISION_F32), want = run(plain, KH_PRECISION_F32);
    near("llama", "opposite adapters", got, want, 1e-5);
    kh_free(got.values);
    kh_free(want.values);
    kh_model_close(plain);
    kh_model_close(model);
}

/* The same bits for any number of threads, with rows beyond one tile of the adapter's loops. */
static void threads_change_nothing(void **state)
{
    (void)state;
    enum { T = 300 };
    int32_t ids[T];
    float *logits[2];
    kh_model *model = open_tiny("llama-llama3", ids, T, 5);
    size_t V = (size_t)kh_model_get_info(model)->vocabulary;
    kh_gguf *file;
    kh_lora_set *set;
    uint64_t seed = 1;
    GOOD(kh_gguf_open(&file, kh_model_get_info(model)->path));
    GOOD(kh_lora_new(&set, inside("adapter.gguf")));
    GOOD(kh_lora_add(set, file, "blk.0.attn_q.weight", 70, 70, NULL, NULL));
    GOOD(kh_lora_add(set, file, "blk.1.ffn_up.weight", 130, 20, NULL, NULL));
    for (size_t i = 0; i < set->count; i++)
        for (size_t k = 0; k < set->parts[i].numbers; k++) set->parts[i].own[k] = draw(&seed) / 8;
    GOOD(kh_lora_save_gguf(set, file, inside("adapter.gguf")));
    kh_lora_close(set);
    kh_gguf_close(file);
    GOOD(kh_model_add_lora(model, inside("adapter.gguf"), 1));
    for (int i = 0; i < 2; i++) {
        kh_session_options options = {.threads = 1 + i, .context = T, .longer = 1};
        kh_session *session = open_session(model, &options);
        logits[i] = all_logits(model, session, ids, T);
        kh_session_close(session);
    }
    assert_memory_equal(logits[0], logits[1], T * V * sizeof **logits);
    kh_free(logits[0]);
    kh_free(logits[1]);
    kh_model_close(model);
}

int main(int argc, char **argv)
{
    static struct CMUnitTest tests[64] = {
        cmocka_unit_test(on_quantised_weights), cmocka_unit_test(merged_into_a_folder),
        cmocka_unit_test(kept_neurons), cmocka_unit_test(listed_and_part_of_the_identity),
        cmocka_unit_test(threads_change_nothing)};
    static char names[64][48];
    size_t n = 5;
    for (size_t i = 0; i < PEFTS; i++, n++) {
        snprintf(names[n], sizeof names[n], "peft %s", peft_names[i]);
        tests[n] = (struct CMUnitTest){.name = names[n],
                                       .test_func = agrees_with_peft,
                                       .initial_state = (void *)(uintptr_t)peft_names[i]};
    }
    for (size_t i = 0; i < family_count; i++) {
        if (families[i].folder) continue;
        snprintf(names[n], sizeof names[n], "merged %s", families[i].name);
        tests[n] = (struct CMUnitTest){.name = names[n],
                                       .test_func = equals_merged,
                                       .initial_state = (void *)(uintptr_t)&families[i]};
        n++;
    }
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
