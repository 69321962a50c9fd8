/* Adapters that are not what they should be: one sentence each, nothing loaded, nothing leaked, whatever is
 * cut off or fails. */
#include "base/alloc.h"
#include "model/hf.h"
#include "model/lora_set.h"
#include "model/network.h"
#include "support/gguf_writer.h"
#include "support/golden_run.h"
#include "support/st_file.h"

#include <jansson.h>
#include <keyhole/convert.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* tiny/llama.gguf: 2 layers, D 72, F 56, V 311, a tied head */
static char folder[64], base_path[256];
static kh_model *model;
static char identity[17];

static const char *inside(const char *name)
{
    static char paths[16][160];
    static int next;
    char *path = paths[next++ % 16];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static int open_all(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/keyhole-loras-XXXXXX");
    if (!mkdtemp(folder) || mkdir(inside("peft"), 0777) != 0) return -1;
    snprintf(base_path, sizeof base_path, "%s", golden_path("tiny/llama.gguf"));
    if (kh_model_open(&model, base_path) != KH_OK) return -1;
    snprintf(identity, sizeof identity, "%s", kh_model_get_info(model)->identity);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    static const char *const names[] = {"adapter.gguf", "merged.gguf",
                                        "peft/adapter_model.safetensors",
                                        "peft/adapter_config.json", "peft/adapter.safetensors"};
    kh_model_close(model);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unlink(inside(names[i]));
    rmdir(inside("peft"));
    return rmdir(folder);
}

/* The model is as it was. */
static void untouched(void)
{
    assert_int_equal(kh_model_lora_count(model), 0);
    assert_string_equal(kh_model_get_info(model)->identity, identity);
    for (int l = 0; l < model->w.stack.N; l++) {
        const kh_block *b = &model->w.stack.blocks[l];
        assert_true(!b->self.q.lora && !b->self.k.lora && !b->up.lora && !b->down.lora);
    }
    assert_true(!model->w.embedding.lora && !model->w.head.lora);
}

static void not_added(const char *path, kh_status expected, const char *words)
{
    uint64_t live = kh_alloc_get_stats().live;
    kh_status status = kh_model_add_lora(model, path, 1);
    if (status != expected || !strstr(kh_last_error(), words))
        fail_msg("%s, '%s' should be %s and say '%s'", kh_status_name(status), kh_last_error(),
                 kh_status_name(expected), words);
    assert_int_equal(kh_alloc_get_stats().live, live);
    untouched();
}

/* ---- PEFT ---- */

static const char good_config[] = "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":4";
#define Q  "base_model.model.model.layers.0.self_attn.q_proj"
#define UP "base_model.model.model.layers.1.mlp.up_proj"

/* Two matrices of F32 behind one another: {"NAME.A": [a0][a1], "NAME.B": [b0][b1]} */
static void save_pair(const char *a, const char *b, int a0, int a1, int b0, int b1)
{
    char header[1024];
    int n = 4 * a0 * a1, m = 4 * b0 * b1;
    snprintf(header, sizeof header,
             "{\"%s\":{\"dtype\":\"F32\",\"shape\":[%d,%d],\"data_offsets\":[0,%d]},"
             "\"%s\":{\"dtype\":\"F32\",\"shape\":[%d,%d],\"data_offsets\":[%d,%d]}}",
             a, a0, a1, n, b, b0, b1, n, n + m);
    size_t size;
    uint8_t *file = st_file(header, (size_t)(n + m), &size);
    float one = 0.25f; /* the bytes of st_file are no good numbers */
    for (size_t i = size - (size_t)(n + m); i < size; i += 4) memcpy(file + i, &one, 4);
    save_bytes(inside("peft"), "adapter_model.safetensors", file, size);
    free(file);
}

static void save_config(const char *rest)
{
    char text[512];
    snprintf(text, sizeof text, "%s%s}", good_config, rest);
    save_text(inside("peft"), "adapter_config.json", text);
}

static void good_pair(void)
{
    save_pair(Q ".lora_A.weight", Q ".lora_B.weight", 2, 72, 72, 2);
}

static void configurations(void **state)
{
    (void)state;
    static const struct {
        const char *rest, *words;
        kh_status status;
    } cases[] = {
        {",\"use_dora\":true", "use_dora: magnitudes (DoRA)", KH_ERR_UNSUPPORTED},
        {",\"bias\":\"all\"", "bias: trained biases", KH_ERR_UNSUPPORTED},
        {",\"lora_bias\":true", "lora_bias", KH_ERR_UNSUPPORTED},
        {",\"modules_to_save\":[\"lm_head\"]", "modules_to_save", KH_ERR_UNSUPPORTED},
        {",\"layer_replication\":[[0,2]]", "replicated layers", KH_ERR_UNSUPPORTED},
        {",\"target_parameters\":[\"x\"]", "adapters of experts", KH_ERR_UNSUPPORTED},
        {",\"alora_invocation_tokens\":[1]", "certain tokens", KH_ERR_UNSUPPORTED},
        {",\"trainable_token_indices\":{\"a\":[1]}", "single trained tokens", KH_ERR_UNSUPPORTED},
        {",\"init_lora_weights\":\"pissa_niter_4\"", "changed the weights", KH_ERR_UNSUPPORTED},
        {",\"rank_pattern\":{\"q_proj\":3}", "r = 3 for model.layers.0.self_attn.q_proj",
         KH_ERR_FORMAT},
        {",\"rank_pattern\":[3]", "rank_pattern: an object is expected", KH_ERR_FORMAT},
        {",\"alpha_pattern\":{\"q_proj\":\"3\"}", "alpha_pattern: a finite number", KH_ERR_FORMAT},
        {",\"alpha_pattern\":{\"(q_proj\":3}", "adapter_config.json", KH_ERR_UNSUPPORTED},
        {",\"r\":2", "r", KH_ERR_FORMAT}, /* twice */
        {",\"use_rslora\":NaN", "JSON is expected", KH_ERR_FORMAT},
    };
    good_pair();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        save_config(cases[i].rest);
        not_added(inside("peft"), cases[i].status, cases[i].words);
    }
    save_text(inside("peft"), "adapter_config.json",
              "{\"peft_type\":\"LORA\",\"lora_alpha\":\"x\"}");
    not_added(inside("peft"), KH_ERR_FORMAT, "lora_alpha: a finite number is expected");
    save_text(inside("peft"), "adapter_config.json", "{\"peft_type\":\"IA3\"}");
    not_added(inside("peft"), KH_ERR_UNSUPPORTED, "found \"IA3\"");
    save_text(inside("peft"), "adapter_config.json", "[]");
    not_added(inside("peft"), KH_ERR_FORMAT, "an object is expected");
    unlink(inside("peft/adapter_config.json"));
    not_added(inside("peft"), KH_ERR_NOT_FOUND, "adapter_config.json");
    save_config("");
    unlink(inside("peft/adapter_model.safetensors"));
    not_added(inside("peft"), KH_ERR_NOT_FOUND, "adapter_model.safetensors");
    not_added(inside("none.gguf"), KH_ERR_NOT_FOUND, "none.gguf");
}

static void tensors(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        int a0, a1, b0, b1;
        const char *words;
        kh_status status;
    } cases[] = {
        {Q ".lora_A.weight", UP ".lora_B.weight", 2, 72, 56, 2, "is there, but not its lora_B",
         KH_ERR_FORMAT},
        {Q ".lora_A.weight", Q ".lora_B.weight", 2, 72, 72, 3, "A has 2 rows and B has 3 columns",
         KH_ERR_FORMAT},
        {Q ".lora_A.weight", Q ".lora_B.weight", 2, 64, 72, 2, "made for another model",
         KH_ERR_FORMAT},
        {Q ".lora_A.weight", Q ".lora_B.weight", 2, 72, 80, 2, "made for another model",
         KH_ERR_FORMAT},
        {Q ".lora_A.weight", Q ".lora_B.weight", 3, 72, 72, 3, "r = 2 for", KH_ERR_FORMAT},
        {Q ".lora_A.weight", Q ".lora_B.weight", 0, 72, 72, 0, "r is expected to be 1 to",
         KH_ERR_FORMAT},
        {Q ".lora_A.weight", Q ".lora_B.weight", 9000, 72, 72, 9000, "r is expected to be 1 to",
         KH_ERR_FORMAT},
        {"model.layers.9.self_attn.q_proj.lora_A.weight",
         "model.layers.9.self_attn.q_proj.lora_B.weight", 2, 72, 72, 2, "has no such tensor",
         KH_ERR_FORMAT},
        {"base_model.model.encoder.layer.0.x.lora_A.weight",
         "base_model.model.encoder.layer.0.x.lora_B.weight", 2, 72, 72, 2, "has no such module",
         KH_ERR_FORMAT},
        {"base_model.model.model.layers.0.input_layernorm.lora_A.weight",
         "base_model.model.model.layers.0.input_layernorm.lora_B.weight", 2, 72, 72, 2,
         "adapters are supported for the matrices", KH_ERR_UNSUPPORTED},
        {"base_model.model.model.layers.0.block_sparse_moe.experts.1.w1.lora_A.weight",
         "base_model.model.model.layers.0.block_sparse_moe.experts.1.w1.lora_B.weight", 2, 72, 56,
         2, "experts are not supported", KH_ERR_UNSUPPORTED},
        {Q ".lora_magnitude_vector", Q ".x", 2, 72, 72, 2, "only low-rank parts",
         KH_ERR_UNSUPPORTED},
        {"base_model.model.lm_head.weight", Q ".x", 2, 72, 72, 2, "only low-rank parts",
         KH_ERR_UNSUPPORTED},
        {UP ".lora_embedding_A", UP ".lora_embedding_B", 2, 56, 72, 2, "of embeddings",
         KH_ERR_UNSUPPORTED},
    };
    save_config("");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        save_pair(cases[i].a, cases[i].b, cases[i].a0, cases[i].a1, cases[i].b0, cases[i].b1);
        not_added(inside("peft"), cases[i].status, cases[i].words);
    }
    save_st(inside("peft"), "adapter_model.safetensors", "{}", 0);
    not_added(inside("peft"), KH_ERR_FORMAT, "empty");
    save_st(
        inside("peft"), "adapter_model.safetensors",
        "{\"" Q ".lora_A.weight\":{\"dtype\":\"I32\",\"shape\":[2,72],\"data_offsets\":[0,576]},"
        "\"" Q ".lora_B.weight\":{\"dtype\":\"I32\",\"shape\":[72,2],\"data_offsets\":[576,1152]}}",
        1152);
    not_added(inside("peft"), KH_ERR_UNSUPPORTED, "F32, F16 or BF16 is expected");
    save_st(inside("peft"), "adapter_model.safetensors",
            "{\"" Q ".lora_A.weight\":{\"dtype\":\"F32\",\"shape\":[144],\"data_offsets\":[0,576]},"
            "\"" Q
            ".lora_B.weight\":{\"dtype\":\"F32\",\"shape\":[72,2],\"data_offsets\":[576,1152]}}",
            1152);
    not_added(inside("peft"), KH_ERR_FORMAT, "a matrix is expected");
    good_pair();
    assert_int_equal(kh_model_add_lora(model, inside("peft"), (float)NAN), KH_ERR_ARGUMENT);
    untouched();
}

/* ---- GGUF ---- */

typedef struct gguf_case {
    const char *type, *adapter, *arch;
    const char *a, *b;
    uint64_t a_rows, a_cols, b_rows, b_cols;
    uint32_t alpha; /* bits of an f32 */
    const char *words;
    kh_status status;
} gguf_case;

static void save_gguf(const gguf_case *c)
{
    writer w;
    uint64_t a[2] = {c->a_cols, c->a_rows}, b[2] = {c->b_cols, c->b_rows};
    head(&w, 3, 2, 4);
    key_text(&w, "general.type", c->type);
    key_text(&w, "adapter.type", c->adapter);
    key_text(&w, "general.architecture", c->arch);
    key_fixed(&w, "adapter.lora.alpha", KH_GGUF_F32, &c->alpha, 4);
    uint64_t at = (a[0] * a[1] * 4 + 31) / 32 * 32, all = at + b[0] * b[1] * 4;
    tensor_at(&w, c->a, KH_TYPE_F32, 2, a, 0);
    tensor_at(&w, c->b, KH_TYPE_F32, 2, b, at);
    size_t start = (w.size + 31) / 32 * 32;
    data(&w, (size_t)((all + 31) / 32 * 32));
    float one = 0.25f;
    for (size_t i = start; i + 4 <= w.size; i += 4) memcpy(w.data + i, &one, 4);
    save_bytes(folder, "adapter.gguf", w.data, w.size);
    drop(&w);
}

#define BQ   "blk.0.attn_q.weight"
#define FOUR 0x40800000u

static const gguf_case good_gguf = {"adapter", "lora", "llama", BQ ".lora_a", BQ ".lora_b", 2,
                                    72,        72,     2,       FOUR,         "",           KH_OK};

static void gguf_files(void **state)
{
    (void)state;
    static const gguf_case cases[] = {
        {"model", "lora", "llama", BQ ".lora_a", BQ ".lora_b", 2, 72, 72, 2, FOUR,
         "the file is no adapter", KH_ERR_FORMAT},
        {"adapter", "control", "llama", BQ ".lora_a", BQ ".lora_b", 2, 72, 72, 2, FOUR,
         "adapter.type: \"lora\" is expected", KH_ERR_FORMAT},
        {"adapter", "lora", "qwen2", BQ ".lora_a", BQ ".lora_b", 2, 72, 72, 2, FOUR,
         "made for another model", KH_ERR_FORMAT},
        {"adapter", "lora", "llama", BQ ".lora_a", BQ ".lora_b", 2, 72, 72, 3, FOUR,
         "A has 2 rows and B has 3 columns", KH_ERR_FORMAT},
        {"adapter", "lora", "llama", BQ ".lora_a", BQ ".lora_b", 2, 64, 72, 2, FOUR,
         "made for another model", KH_ERR_FORMAT},
        {"adapter", "lora", "llama", BQ ".lora_a", BQ ".lora_b", 9000, 72, 72, 9000, FOUR,
         "r is expected to be", KH_ERR_FORMAT},
        {"adapter", "lora", "llama", BQ ".lora_a", "blk.1.attn_q.weight.lora_b", 2, 72, 72, 2, FOUR,
         "is there, but not", KH_ERR_FORMAT},
        {"adapter", "lora", "llama", BQ ".lora_a", "x", 2, 72, 72, 2, FOUR, "is there, but not",
         KH_ERR_FORMAT},
        {"adapter", "lora", "llama", "blk.0.attn_norm.weight", "x", 2, 72, 72, 2, FOUR,
         "only low-rank parts", KH_ERR_UNSUPPORTED},
        {"adapter", "lora", "llama", ".lora_a", ".lora_b", 2, 72, 72, 2, FOUR,
         "only low-rank parts", KH_ERR_UNSUPPORTED},
        {"adapter", "lora", "llama", "blk.7.attn_q.weight.lora_a", "blk.7.attn_q.weight.lora_b", 2,
         72, 72, 2, FOUR, "has no such tensor", KH_ERR_FORMAT},
        {"adapter", "lora", "llama", BQ ".lora_a", BQ ".lora_b", 2, 72, 72, 2, 0x7fc00000u, "NaN",
         KH_ERR_FORMAT},
        {"adapter", "lora", "llama", BQ ".lora_a", BQ ".lora_b", 2, 72, 72, 2, 0x7f800000u,
         "finite", KH_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        save_gguf(&cases[i]);
        not_added(inside("adapter.gguf"), cases[i].status, cases[i].words);
    }
    not_added(base_path, KH_ERR_FORMAT, "the file is no adapter");
}

/* alpha / r, or 1 where alpha is 0, and nothing else. */
static void scales(void **state)
{
    (void)state;
    static const uint32_t alphas[] = {FOUR, 0, 0xc0800000u};
    static const float scale[] = {2, 1, -2};
    for (size_t i = 0; i < 3; i++) {
        gguf_case c = good_gguf;
        c.alpha = alphas[i];
        save_gguf(&c);
        kh_model *one = open_model(base_path);
        GOOD(kh_model_add_lora(one, inside("adapter.gguf"), 0.5f));
        const kh_lora *lora = one->w.stack.blocks[0].self.q.lora;
        assert_non_null(lora);
        assert_true(lora->scale == 0.5f * scale[i] && lora->r == 2 && !lora->next);
        assert_null(one->w.stack.blocks[0].self.k.lora);
        assert_null(one->w.stack.blocks[1].self.q.lora);
        kh_model_close(one);
    }
}

/* ---- cut off ---- */

static void cut(const char *file, const char *path)
{
    char *bytes;
    FILE *in = fopen(inside(file), "rb");
    assert_non_null(in);
    struct stat info;
    assert_int_equal(fstat(fileno(in), &info), 0);
    size_t size = (size_t)info.st_size;
    bytes = malloc(size);
    assert_int_equal(fread(bytes, 1, size, in), size);
    fclose(in);
    for (size_t n = 0; n < size; n += n < 700 ? 1 : 61) {
        char *exact = malloc(n ? n : 1);
        memcpy(exact, bytes, n);
        save_bytes(folder, file, exact, n);
        free(exact);
        uint64_t live = kh_alloc_get_stats().live;
        if (kh_model_add_lora(model, inside(path), 1) == KH_OK)
            fail_msg("%s: %zu of %zu bytes are accepted", file, n, size);
        assert_true(kh_last_error()[0]);
        assert_int_equal(kh_alloc_get_stats().live, live);
    }
    save_bytes(folder, file, bytes, size);
    free(bytes);
    untouched();
}

static void cut_files(void **state)
{
    (void)state;
    save_config("");
    good_pair();
    save_gguf(&good_gguf);
    cut("peft/adapter_model.safetensors", "peft");
    cut("peft/adapter_config.json", "peft");
    cut("adapter.gguf", "adapter.gguf");
}

/* One byte of a header is another: refused, or read as something that is whole. */
static void damage(const char *file, const char *path)
{
    char bytes[4096];
    FILE *in = fopen(inside(file), "rb");
    assert_non_null(in);
    size_t size = fread(bytes, 1, sizeof bytes, in), head_size = size < 420 ? size : 420;
    fclose(in);
    uint32_t seed = 9;
    for (int i = 0; i < 1500; i++) {
        seed = seed * 1664525 + 1013904223;
        size_t at = (seed >> 8) % head_size;
        char kept = bytes[at];
        bytes[at] = (char)(i % 3 == 0 ? kept ^ 1 << (seed >> 29) : (int)(seed >> 24));
        save_bytes(folder, file, bytes, size);
        bytes[at] = kept;
        uint64_t live = kh_alloc_get_stats().live;
        kh_model *one;
        GOOD(kh_model_open_network(&one, base_path));
        if (kh_model_add_lora(one, inside(path), 1) == KH_OK)
            assert_int_equal(kh_model_lora_count(one), 1);
        else
            assert_true(kh_last_error()[0]);
        kh_model_close(one);
        assert_int_equal(kh_alloc_get_stats().live, live);
    }
    save_bytes(folder, file, bytes, size);
}

static void damaged_files(void **state)
{
    (void)state;
    save_config(",\"rank_pattern\":{\"q_proj\":2}");
    good_pair();
    save_gguf(&good_gguf);
    damage("peft/adapter_model.safetensors", "peft");
    damage("peft/adapter_config.json", "peft");
    damage("adapter.gguf", "adapter.gguf");
}

/* ---- merging ---- */

static void heads_that_are_embeddings(void **state)
{
    (void)state;
    static const char *const names[] = {"output.weight", "token_embd.weight"};
    for (int i = 0; i < 2; i++) {
        kh_lora_set *set;
        GOOD(kh_lora_new(&set, inside("adapter.gguf")));
        GOOD(kh_lora_add(set, model->file, names[i], 2, 2, NULL, NULL));
        assert_int_equal(kh_lora_add(set, model->file, names[i], 2, 2, NULL, NULL), KH_ERR_FORMAT);
        assert_int_equal(kh_lora_add(set, model->file, BQ, 2, (double)NAN, NULL, NULL),
                         KH_ERR_FORMAT);
        kh_lora_part *part = &set->parts[0];
        for (size_t k = 0; k < part->numbers; k++) part->own[k] = 0.01f * (float)(k % 7);
        GOOD(kh_lora_save_gguf(set, model->file, inside("adapter.gguf")));
        kh_lora_close(set);
        kh_convert_lora lora = {inside("adapter.gguf"), 1};
        kh_convert_options options = {.loras = &lora, .lora_count = 1, .overwrite = 1};
        assert_int_equal(kh_convert(base_path, inside("merged.gguf"), &options, NULL),
                         KH_ERR_UNSUPPORTED);
        assert_non_null(strstr(kh_last_error(), i ? "the embedding, but" : "the head, but"));
        assert_int_equal(access(inside("merged.gguf"), F_OK), -1);
        /* run, each reaches what it is for, and not the other */
        kh_model *one = open_model(base_path);
        GOOD(kh_model_add_lora(one, lora.path, 1));
        assert_true((one->w.embedding.lora != NULL) == (i == 1));
        assert_true((one->w.head.lora != NULL) == (i == 0));
        kh_model_close(one);
    }
}

static void options_of_a_conversion(void **state)
{
    (void)state;
    save_gguf(&good_gguf);
    kh_convert_lora two[2] = {{inside("adapter.gguf"), 1}, {inside("adapter.gguf"), (float)NAN}};
    kh_convert_options options = {.loras = two, .lora_count = 2, .only_lora = 1};
    assert_int_equal(kh_convert(base_path, inside("merged.gguf"), &options, NULL), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "one adapter is written at a time, found 2"));
    options.lora_count = 0;
    assert_int_equal(kh_convert(base_path, inside("merged.gguf"), &options, NULL), KH_ERR_ARGUMENT);
    options = (kh_convert_options){.loras = two, .lora_count = 2};
    assert_int_equal(kh_convert(base_path, inside("merged.gguf"), &options, NULL), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "a finite strength"));
    options = (kh_convert_options){.loras = two, .lora_count = 1, .only_lora = 1};
    assert_int_equal(kh_convert(base_path, inside("adapter.gguf"), &options, NULL), KH_ERR_STATE);
}

/* ---- every allocation fails once ---- */

static kh_status add_to(const char *path)
{
    kh_model *one = NULL;
    kh_status status = kh_model_open_network(&one, base_path);
    if (status == KH_OK) status = kh_model_add_lora(one, path, 1);
    if (status != KH_OK && one && (kh_model_lora_count(one) || one->w.stack.blocks[0].self.q.lora))
        status = KH_ERR_CHECK;
    kh_model_close(one);
    return status;
}

static kh_status add_peft(void)
{
    return add_to(inside("peft"));
}

static kh_status add_gguf(void)
{
    return add_to(inside("adapter.gguf"));
}

static kh_status convert(const char *output, const char *lora_path, int only)
{
    kh_convert_lora lora = {lora_path, 0.5f};
    return kh_convert(base_path, output,
                      &(kh_convert_options){.type = "Q8_0",
                                            .loras = &lora,
                                            .lora_count = 1,
                                            .only_lora = only,
                                            .overwrite = 1,
                                            .threads = 1},
                      NULL);
}

static kh_status merge(void)
{
    return convert(inside("merged.gguf"), inside("adapter.gguf"), 0);
}

static kh_status write_gguf(void)
{
    return convert(inside("merged.gguf"), inside("peft"), 1);
}

static kh_status write_peft(void)
{
    char out[160];
    snprintf(out, sizeof out, "%s/", inside("peft"));
    return convert(out, inside("adapter.gguf"), 1);
}

static void failing_allocations(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        kh_status (*run)(void);
    } all[] = {{"add_peft", add_peft},
               {"add_gguf", add_gguf},
               {"merge", merge},
               {"write_gguf", write_gguf},
               {"write_peft", write_peft}};
    save_gguf(&good_gguf);
    save_config(",\"alpha_pattern\":{\"[qk]_proj\":5}");
    good_pair();
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        GOOD(all[i].run());
        uint64_t live = kh_alloc_get_stats().live, n = 1;
        for (;; n++) {
            kh_alloc_fail_at(n);
            kh_status status = all[i].run();
            kh_alloc_fail_at(0);
            if (kh_alloc_get_stats().live != live)
                fail_msg("%s: allocation %llu failed and %lld blocks leaked", all[i].name,
                         (unsigned long long)n, (long long)(kh_alloc_get_stats().live - live));
            if (status == KH_OK) break;
            /* without memory jansson may find fault with the text */
            int json = status == KH_ERR_FORMAT && strstr(kh_last_error(), "JSON");
            if ((status != KH_ERR_MEMORY && !json) || !kh_last_error()[0])
                fail_msg("%s: allocation %llu: %s, '%s'", all[i].name, (unsigned long long)n,
                         kh_status_name(status), kh_last_error());
        }
        assert_true(n > 5);
        GOOD(all[i].run());
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configurations),
        cmocka_unit_test(tensors),
        cmocka_unit_test(gguf_files),
        cmocka_unit_test(scales),
        cmocka_unit_test(cut_files),
        cmocka_unit_test(damaged_files),
        cmocka_unit_test(heads_that_are_embeddings),
        cmocka_unit_test(options_of_a_conversion),
        cmocka_unit_test(failing_allocations),
    };
    json_set_alloc_funcs(kh_alloc, kh_free);
    return cmocka_run_group_tests(tests, open_all, close_all);
}
