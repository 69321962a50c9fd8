/* Hugging Face folders, right and wrong: what becomes of fields and tensors, and the sentence for
 * everything that is missing, of another shape, or unknown. */
#include "model/hf.h"

#include "base/alloc.h"
#include "model/network.h"
#include "support/st_file.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct shape {
    const char *name; /* NULL: the end */
    int rows, cols;   /* cols 0: one dimension */
} shape;

/* A llama with N 1, D 4, H 2, G 1, E 2, F 6, V 5. */
static const shape whole[] = {{"model.embed_tokens.weight", 5, 4},
                              {"model.norm.weight", 4, 0},
                              {"lm_head.weight", 5, 4},
                              {"model.layers.0.input_layernorm.weight", 4, 0},
                              {"model.layers.0.post_attention_layernorm.weight", 4, 0},
                              {"model.layers.0.self_attn.q_proj.weight", 4, 4},
                              {"model.layers.0.self_attn.k_proj.weight", 2, 4},
                              {"model.layers.0.self_attn.v_proj.weight", 2, 4},
                              {"model.layers.0.self_attn.o_proj.weight", 4, 4},
                              {"model.layers.0.mlp.gate_proj.weight", 6, 4},
                              {"model.layers.0.mlp.up_proj.weight", 6, 4},
                              {"model.layers.0.mlp.down_proj.weight", 4, 6},
                              {0}};

#define NUMBERS                                                                                    \
    "\"hidden_size\": 4, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, "                   \
    "\"num_key_value_heads\": 1, \"intermediate_size\": 6, \"vocab_size\": 5, "                    \
    "\"max_position_embeddings\": 32, \"rms_norm_eps\": 1e-5"
#define LLAMA  "\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], "
#define UNTIED ", \"tie_word_embeddings\": false"

/* Every tensor of `shapes`, of type `dtype` (4 bytes); number i of the data is i. */
static void save_weights(const char *folder, const shape *shapes, const char *dtype)
{
    char header[4096];
    size_t at = (size_t)snprintf(header, sizeof header, "{"), bytes = 0;
    for (const shape *s = shapes; s->name; s++) {
        size_t n = 4 * (size_t)s->rows * (size_t)(s->cols ? s->cols : 1);
        at += (size_t)snprintf(header + at, sizeof header - at,
                               "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%d%s%.0d],"
                               "\"data_offsets\":[%zu,%zu]}",
                               s == shapes ? "" : ",", s->name, dtype, s->rows, s->cols ? "," : "",
                               s->cols, bytes, bytes + n);
        bytes += n;
    }
    at += (size_t)snprintf(header + at, sizeof header - at, "}");
    while (at % 8) header[at++] = ' ';
    header[at] = 0;
    size_t size;
    uint8_t *file = st_file(header, bytes, &size);
    for (size_t i = 0; i < bytes / 4; i++) {
        float value = (float)i;
        memcpy(file + 8 + at + 4 * i, &value, 4);
    }
    save_bytes(folder, "model.safetensors", file, size);
    free(file);
}

static char folder[] = "kh-folder-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    memcpy(folder, "kh-folder-XXXXXX", sizeof folder);
    return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"config.json", "model.safetensors",
                                        "model.safetensors.index.json", "pytorch_model.bin",
                                        "1_Pooling/config.json"};
    char path[256];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/1_Pooling", folder);
    rmdir(path);
    return rmdir(folder);
}

static void says(const char *words)
{
    if (!strstr(kh_last_error(), words))
        fail_msg("'%s' should contain '%s'", kh_last_error(), words);
}

/* The folder is refused, with no memory left behind. */
static void refused(kh_status expected, const char *file, const char *words)
{
    kh_gguf *f;
    uint64_t live = kh_alloc_get_stats().live;
    kh_status status = kh_hf_open(&f, folder);
    if (status != expected)
        fail_msg("%s expected, found %s: %s", kh_status_name(expected), kh_status_name(status),
                 status == KH_OK ? "" : kh_last_error());
    assert_null(f);
    says(file);
    says(words);
    assert_int_equal(kh_alloc_get_stats().live, live);
}

static void config_refused(const char *config, kh_status expected, const char *words)
{
    save_text(folder, "config.json", config);
    refused(expected, "config.json", words);
}

static kh_gguf *opened(void)
{
    kh_gguf *f;
    if (kh_hf_open(&f, folder) != KH_OK) fail_msg("%s", kh_last_error());
    return f;
}

static uint64_t number(const kh_gguf *f, const char *key)
{
    uint64_t value = 0;
    assert_int_equal(kh_gguf_u64(f, key, &value, UINT32_MAX), KH_OK);
    return value;
}

static double real(const kh_gguf *f, const char *key)
{
    double value = (double)NAN;
    assert_int_equal(kh_gguf_opt_f64(f, key, &value), KH_OK);
    return value;
}

static void becomes_a_gguf_file(void **state)
{
    (void)state;
    save_weights(folder, whole, "F32");
    save_text(folder, "config.json", "{" LLAMA NUMBERS UNTIED ", \"rope_theta\": 5000.5}");
    kh_gguf *f = opened();
    assert_string_equal(kh_gguf_path(f), folder);
    assert_int_equal(number(f, "llama.block_count"), 1);
    assert_int_equal(number(f, "llama.context_length"), 32);
    assert_int_equal(number(f, "llama.attention.head_count_kv"), 1);
    assert_int_equal(number(f, "llama.rope.dimension_count"), 2);
    assert_true(fabs(real(f, "llama.rope.freq_base") - 5000.5) < 1e-9);
    assert_true(fabs(real(f, "llama.attention.layer_norm_rms_epsilon") - 1e-5) < 1e-11);
    assert_null(kh_gguf_find(f, "llama.expert_count"));
    assert_int_equal(kh_gguf_tensor_count(f), 12);
    const kh_tensor *down = kh_gguf_tensor(f, "blk.0.ffn_down.weight");
    assert_int_equal(down->n_dims, 2);
    assert_int_equal(down->dims[0], 6);
    assert_int_equal(down->dims[1], 4);
    /* q: two heads of two rows are their own pairs; with E = 2 nothing moves */
    const float *q = kh_gguf_tensor(f, "blk.0.attn_q.weight")->data;
    const float *first = kh_gguf_tensor(f, "blk.0.ffn_norm.weight")->data;
    assert_true(q[0] == first[0] + 4 && q[15] == q[0] + 15);
    kh_gguf_release(f, down);
    assert_true(((const float *)down->data)[1] == ((const float *)down->data)[0] + 1);
    kh_gguf_close(f);
    kh_model *model;
    assert_int_equal(kh_model_open_network(&model, folder), KH_OK);
    kh_model_close(model);
}

static void pairs_of_rows(void **state)
{
    (void)state;
    /* one head of four rows: 0 1 | 2 3 becomes 0 2 1 3 */
    static const shape one_head[] = {{"model.embed_tokens.weight", 5, 4},
                                     {"model.norm.weight", 4, 0},
                                     {"model.layers.0.input_layernorm.weight", 4, 0},
                                     {"model.layers.0.post_attention_layernorm.weight", 4, 0},
                                     {"model.layers.0.self_attn.q_proj.weight", 4, 4},
                                     {"model.layers.0.self_attn.k_proj.weight", 4, 4},
                                     {"model.layers.0.self_attn.v_proj.weight", 4, 4},
                                     {"model.layers.0.self_attn.o_proj.weight", 4, 4},
                                     {"model.layers.0.self_attn.q_proj.bias", 4, 0},
                                     {"model.layers.0.mlp.gate_proj.weight", 6, 4},
                                     {"model.layers.0.mlp.up_proj.weight", 6, 4},
                                     {"model.layers.0.mlp.down_proj.weight", 4, 6},
                                     {0}};
    save_weights(folder, one_head, "F32");
    save_text(folder, "config.json",
              "{" LLAMA "\"hidden_size\": 4, \"num_hidden_layers\": 1, \"num_attention_heads\": 1, "
              "\"intermediate_size\": 6, \"vocab_size\": 5, \"max_position_embeddings\": 32, "
              "\"tie_word_embeddings\": true}");
    kh_gguf *f = opened();
    const float *q = kh_gguf_tensor(f, "blk.0.attn_q.weight")->data;
    const float *bias = kh_gguf_tensor(f, "blk.0.attn_q.bias")->data;
    static const int order[] = {0, 2, 1, 3};
    for (int r = 0; r < 4; r++) {
        assert_true(q[4 * r] == q[0] + (float)(4 * order[r]));
        assert_true(bias[r] == bias[0] + (float)order[r]);
    }
    const float *v = kh_gguf_tensor(f, "blk.0.attn_v.weight")->data;
    for (int r = 0; r < 16; r++) assert_true(v[r] == v[0] + (float)r);
    assert_null(kh_gguf_tensor(f, "output.weight"));
    kh_gguf_close(f);
}

static void files_that_are_missing(void **state)
{
    (void)state;
    refused(KH_ERR_NOT_FOUND, "config.json", "there is no such file");
    save_text(folder, "config.json", "{" LLAMA NUMBERS "}");
    refused(KH_ERR_NOT_FOUND, folder, "neither model.safetensors nor");
    save_text(folder, "pytorch_model.bin", "x");
    refused(KH_ERR_NOT_FOUND, folder, "pickles");
    save_text(folder, "model.safetensors.index.json",
              "{\"weight_map\": {\"a\": \"../../secret.safetensors\"}}");
    refused(KH_ERR_FORMAT, "index.json", "same folder");
    save_text(folder, "model.safetensors.index.json",
              "{\"weight_map\": {\"a\": \"model-00001-of-00002.safetensors\"}}");
    refused(KH_ERR_NOT_FOUND, "index.json", "model-00001-of-00002.safetensors");
    save_text(folder, "model.safetensors", "short");
    refused(KH_ERR_FORMAT, "model.safetensors", "at least 8 bytes");
}

static void configurations_that_are_wrong(void **state)
{
    (void)state;
    const kh_status f = KH_ERR_FORMAT, u = KH_ERR_UNSUPPORTED;
    save_weights(folder, whole, "F32");
    config_refused("", f, "JSON is expected");
    config_refused("[]", f, "an object is expected, found a list");
    config_refused("{}", f, "model_type: a string is expected, found nothing");
    config_refused("{\"model_type\": 3}", f, "found an integer");
    config_refused("{\"model_type\": \"falcon\"}", u, "\"falcon\" is not supported (known: llama");
    config_refused("{" LLAMA "\"hidden_size\": 4}", f, "num_hidden_layers is missing");
    config_refused("{" LLAMA NUMBERS ", \"head_dim\": \"2\"}", f, "head_dim: a number is expected");
    config_refused("{" LLAMA NUMBERS ", \"head_dim\": -2}", f, "found -2");
    config_refused("{" LLAMA NUMBERS ", \"head_dim\": 2.5}", f, "found 2.5");
    config_refused("{" LLAMA NUMBERS ", \"head_dim\": 1e300}", f, "natural number");
    config_refused("{" LLAMA NUMBERS ", \"hidden_act\": \"gelu\"}", u,
                   "hidden_act: a llama model with \"gelu\"");
    config_refused("{" LLAMA NUMBERS ", \"tie_word_embeddings\": 1}", f, "tie_word_embeddings");
    config_refused("{" LLAMA NUMBERS ", \"quantization_config\": {\"quant_method\": \"gptq\"}}", u,
                   "quantization_config");
#define ROPE(text) "{" LLAMA NUMBERS UNTIED ", \"rope_scaling\": " text "}"
    config_refused(ROPE("{\"rope_type\": \"spiral\"}"), u, "\"spiral\" is not supported");
    config_refused(ROPE("{\"rope_type\": 7}"), u, "an integer");
    config_refused(ROPE("{\"type\": \"linear\"}"), f, "factor: a positive number");
    config_refused(ROPE("{\"type\": \"linear\", \"factor\": \"x\"}"), f, "found a string");
    config_refused(ROPE("{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, "
                        "\"high_freq_factor\": 1}"),
                   f, "low_freq_factor < high_freq_factor");
    config_refused(ROPE("{\"rope_type\": \"longrope\", \"short_factor\": [1], \"long_factor\": 3}"),
                   f, "long_factor: a list of 1 numbers is expected");
    config_refused(ROPE("{\"rope_type\": \"longrope\", \"short_factor\": [0], "
                        "\"long_factor\": [1]}"),
                   f, "short_factor: positive numbers");
    config_refused(ROPE("{\"rope_type\": \"yarn\", \"factor\": 4, \"truncate\": false}"), u,
                   "truncate");
#undef ROPE
}

/* The weights with one row changed (name NULL: left out; or added behind the last). */
static void with_row(const char *old, shape changed)
{
    shape rows[32];
    size_t n = 0;
    for (const shape *s = whole; s->name; s++) {
        int hit = old && strcmp(s->name, old) == 0;
        if (!hit) rows[n++] = *s;
        if (hit && changed.name) rows[n++] = changed;
    }
    if (!old) rows[n++] = changed;
    rows[n] = (shape){0};
    save_weights(folder, rows, "F32");
}

static void tensors_that_are_wrong(void **state)
{
    (void)state;
    static const char up[] = "model.layers.0.mlp.up_proj.weight";
    save_text(folder, "config.json", "{" LLAMA NUMBERS UNTIED "}");
    with_row(up, (shape){up, 4, 6});
    refused(KH_ERR_FORMAT, "model.safetensors", "up_proj.weight: [6, 4] is expected");
    says("found [4, 6]");
    with_row(up, (shape){up, 24, 0});
    refused(KH_ERR_FORMAT, "model.safetensors", "found [24]");
    with_row(up, (shape){0});
    refused(KH_ERR_FORMAT, folder, "no tensor model.layers.0.mlp.up_proj.weight");
    with_row("lm_head.weight", (shape){0});
    refused(KH_ERR_FORMAT, folder, "no tensor lm_head.weight, which is expected because tie_word");
    with_row(NULL, (shape){"model.layers.1.mlp.up_proj.weight", 6, 4});
    refused(KH_ERR_UNSUPPORTED, "model.safetensors", "not part of a llama model of 1 layers");
    with_row(NULL, (shape){"model.layers.0.self_attn.rotary_emb.inv_freq", 1, 0});
    kh_gguf_close(opened());
    save_weights(folder, whole, "I32");
    refused(KH_ERR_UNSUPPORTED, "model.safetensors", "found I32");
    save_text(folder, "config.json", "{" LLAMA NUMBERS UNTIED ", \"num_hidden_layers\": 1000000}");
    refused(KH_ERR_FORMAT, "config.json", "duplicate");
    save_text(folder, "config.json",
              "{" LLAMA "\"hidden_size\": 4, \"num_hidden_layers\": 100000, "
              "\"num_attention_heads\": 2, \"intermediate_size\": 6, "
              "\"max_position_embeddings\": 32}");
    refused(KH_ERR_FORMAT, "config.json", "100000 layers");
}

static void every_cut_of_the_weights(void **state)
{
    (void)state;
    char path[256];
    save_text(folder, "config.json", "{" LLAMA NUMBERS UNTIED "}");
    save_weights(folder, whole, "F32");
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    for (off_t n = info.st_size - 1; n > 0; n -= 61) {
        assert_int_equal(truncate(path, n), 0);
        refused(KH_ERR_FORMAT, "model.safetensors", "");
    }
}

/* No crash, no leak; any answer. */
static void every_byte_of_the_configuration(void **state)
{
    (void)state;
    static const char marks[] = "\"{}[]:,0-9.e \\n";
    static const char *const configs[] = {
        "{\"model_type\":\"mistral\"," NUMBERS UNTIED ",\"sliding_window\":8,\"layer_types\":"
        "[\"full_attention\"],\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":4,"
        "\"rope_theta\":1e4,\"original_max_position_embeddings\":16,\"beta_fast\":32}}",
        "{\"text_config\":{\"model_type\":\"llama\"," NUMBERS UNTIED "},\"rope_scaling\":"
        "{\"type\":\"longrope\",\"long_factor\":[2.5],\"short_factor\":[1]}}"};
    save_weights(folder, whole, "F32");
    uint64_t live = kh_alloc_get_stats().live;
    for (size_t c = 0; c < 2; c++) {
        char text[1024];
        snprintf(text, sizeof text, "%s", configs[c]);
        save_text(folder, "config.json", text);
        kh_gguf_close(opened());
        for (size_t i = 0; text[i]; i++) {
            char old = text[i];
            for (size_t m = 0; m < sizeof marks - 1; m++) {
                kh_gguf *f;
                text[i] = marks[m];
                save_text(folder, "config.json", text);
                if (kh_hf_open(&f, folder) != KH_OK) assert_null(f);
                kh_gguf_close(f);
            }
            text[i] = old;
        }
    }
    assert_int_equal(kh_alloc_get_stats().live, live);
}

static void memory_runs_out(void **state)
{
    (void)state;
    kh_gguf *f;
    save_text(folder, "config.json",
              "{" LLAMA NUMBERS UNTIED ", \"rope_scaling\": {\"rope_type\": \"llama3\", "
              "\"factor\": 8, \"original_max_position_embeddings\": 16}}");
    save_weights(folder, whole, "F32");
    kh_gguf_close(opened()); /* what jansson keeps for good is there now */
    uint64_t live = kh_alloc_get_stats().live;
    kh_alloc_fail_at(0);
    kh_gguf_close(opened());
    uint64_t n = kh_alloc_fail_at(0);
    assert_true(n > 50);
    for (uint64_t i = 1; i <= n; i++) {
        kh_alloc_fail_at(i);
        kh_status status = kh_hf_open(&f, folder);
        kh_alloc_fail_at(0);
        if (status == KH_OK)
            fail_msg("allocation %llu of %llu is not missed", (unsigned long long)i,
                     (unsigned long long)n);
        assert_null(f);
        assert_int_equal(kh_alloc_get_stats().live, live);
    }
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)

int main(void)
{
    json_set_alloc_funcs(kh_alloc, kh_free);
    const struct CMUnitTest tests[] = {
        IN_FOLDER(becomes_a_gguf_file),
        IN_FOLDER(pairs_of_rows),
        IN_FOLDER(files_that_are_missing),
        IN_FOLDER(configurations_that_are_wrong),
        IN_FOLDER(tensors_that_are_wrong),
        IN_FOLDER(every_cut_of_the_weights),
        IN_FOLDER(every_byte_of_the_configuration),
        IN_FOLDER(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
