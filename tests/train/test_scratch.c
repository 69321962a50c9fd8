/* Models from nothing: every architecture opens, computes finite numbers, and is the same model after it was
 * written as a GGUF file and as a Hugging Face folder; what initial weights are; what is refused. */
#include "base/alloc.h"
#include "base/buf.h"
#include "model/hf.h"
#include "model/network.h"
#include "support/golden_run.h"
#include "tokens/tokenizer.h"
#include "train/scratch.h"

#include <keyhole/encode.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { T = 21, V = 67 };

typedef struct kind {
    const char *name; /* of the test */
    kh_scratch_options o;
    int text; /* 1: a folder cannot hold it */
} kind;

#define SMALL   .layers = 3, SMALLER
#define SMALLER .width = 48, .heads = 4, .ff = 72, .vocabulary = V, .context = 64
static const kind kinds[] = {
    {"llama", {.architecture = "llama", SMALL, .key_heads = 2, .init.seed = 1}, 0},
    {"llama with biases and a head",
     {.architecture = "llama", SMALL, .biases = KH_SCRATCH_WITH, .head = KH_SCRATCH_WITH},
     1},
    {"llama with experts", {.architecture = "llama", SMALL, .experts = 4}, 0},
    {"llama with a window", {.architecture = "llama", SMALL, .window = 5}, 0},
    {"llama with wide heads", {.architecture = "llama", SMALL, .head_width = 24}, 0},
    {"phi3", {.architecture = "phi3", SMALL}, 0},
    {"qwen2", {.architecture = "qwen2", SMALL, .key_heads = 1}, 0},
    {"qwen2moe", {.architecture = "qwen2moe", SMALL, .experts = 6, .shared_ff = 40}, 0},
    {"qwen3", {.architecture = "qwen3", SMALL, .head_width = 16}, 0},
    {"qwen3moe", {.architecture = "qwen3moe", SMALL, .experts = 4, .experts_used = 2}, 0},
    {"gemma2", {.architecture = "gemma2", SMALL, .window = 6}, 0},
    {"gemma3", {.architecture = "gemma3", SMALLER, .window = 6, .layers = 7}, 0},
    {"gpt2", {.architecture = "gpt2", SMALL, .name = "small"}, 0},
    {"gptneox", {.architecture = "gptneox", SMALL}, 0},
    {"bert", {.architecture = "bert", SMALL, .mask_head = KH_SCRATCH_WITH}, 0},
    {"bert for classes",
     {.architecture = "bert",
      SMALL,
      .classes = 3,
      .class_dense = 48,
      .pooling = KH_SCRATCH_POOL_FIRST},
     0},
    {"nomic-bert", {.architecture = "nomic-bert", SMALL}, 0},
    {"lra", {.architecture = "lra", SMALL, .init.zero_row = 3, .classes = 10}, 1},
    {"lra, two texts",
     {.architecture = "lra",
      SMALL,
      .classes = 2,
      .towers = 2,
      .class_dense = 64,
      .class_inner = 32,
      .class_act = "relu"},
     1},
    {"t5", {.architecture = "t5", SMALL, .encoder_layers = 2, .buckets = 8, .max_distance = 16}, 0},
    {"t5 with a gate",
     {.architecture = "t5", SMALL, .gate = KH_SCRATCH_WITH, .head = KH_SCRATCH_WITH},
     0},
    {"t5encoder", {.architecture = "t5encoder", SMALL}, 0},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static kh_gguf *scratch(const kh_scratch_options *o)
{
    kh_gguf *file = NULL;
    GOOD(kh_scratch_open(&file, o));
    return file;
}

/* ---- what a model computes */

static kh_status take_rows(void *context, size_t text, const float *rows)
{
    kh_buf *out = context;
    (void)text;
    return kh_buf_add(out, rows, T * 48 * sizeof *rows);
}

static void encoder_output(kh_buf *out, const kh_model *m, const int32_t *ids)
{
    kh_encoder *encoder = NULL;
    kh_encoder_text text = {ids, NULL, T};
    size_t at[2] = {2, 9};
    float logits[2 * V];
    GOOD(kh_encoder_open(&encoder, m, NULL));
    GOOD(kh_encoder_run(encoder, &text, 1, take_rows, out));
    if (kh_encoder_masked(encoder, logits, &text, at, 2) == KH_OK)
        GOOD(kh_buf_add(out, logits, sizeof logits));
    const kh_model_info *info = kh_model_get_info(m);
    if (info->classes > 0) {
        kh_encoder_text pair[2] = {text, {ids + 3, NULL, T - 5}};
        GOOD(kh_encoder_classify(encoder, logits, pair, 2));
        GOOD(kh_buf_add(out, logits, (size_t)(2 / info->towers * info->classes) * sizeof *logits));
    }
    kh_encoder_close(encoder);
}

/* Everything that comes out, floats. */
static kh_buf output_of(const kh_model *m)
{
    int32_t ids[T];
    kh_buf out = {0};
    for (int t = 0; t < T; t++) ids[t] = (t * 29 + 5) % V;
    if (kh_model_get_kind(m) == KH_MODEL_ENCODER) {
        encoder_output(&out, m, ids);
        return out;
    }
    kh_session *session = open_session(m, NULL);
    if (kh_model_get_kind(m) == KH_MODEL_ENCODER_DECODER) GOOD(kh_session_source(session, ids, T));
    float *logits = all_logits(m, session, ids, T);
    GOOD(kh_buf_add(&out, logits, T * V * sizeof *logits));
    kh_free(logits);
    kh_session_close(session);
    return out;
}

static void same_output(const kh_buf *want, const char *path, int network)
{
    kh_model *m = NULL;
    if (network)
        GOOD(kh_model_open_network(&m, path));
    else
        GOOD(kh_model_open(&m, path));
    kh_buf got = output_of(m);
    assert_int_equal(got.size, want->size);
    assert_memory_equal(got.data, want->data, want->size);
    kh_buf_free(&got);
    kh_model_close(m);
}

static void same_tensors(const kh_gguf *a, const kh_gguf *b)
{
    assert_int_equal(kh_gguf_tensor_count(a), kh_gguf_tensor_count(b));
    for (size_t i = 0; i < kh_gguf_tensor_count(a); i++) {
        const kh_tensor *x = kh_gguf_tensor_at(a, i), *y = kh_gguf_tensor(b, x->name);
        assert_non_null(y);
        assert_int_equal(x->size, y->size);
        assert_memory_equal(x->data, y->data, x->size);
    }
}

static void is_a_model(void **state)
{
    const kind *k = *state;
    char folder[] = "/tmp/keyhole-scratch-XXXXXX", path[64], hf[64], again[96];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/model.gguf", folder);
    snprintf(hf, sizeof hf, "%s/hf", folder);
    kh_gguf *file = scratch(&k->o), *back = NULL;
    GOOD(kh_gguf_write(file, path));
    kh_model *m = open_model(path);
    const kh_model_info *info = kh_model_get_info(m);
    assert_int_equal(info->vocabulary, V);
    assert_int_equal(info->width, 48);
    assert_string_equal(info->architecture, k->o.architecture);
    kh_buf want = output_of(m);
    assert_true(want.size >= T * 48 * sizeof(float));
    double sum = 0;
    for (size_t i = 0; i < want.size / sizeof(float); i++) {
        float x;
        memcpy(&x, want.data + i * sizeof x, sizeof x);
        assert_true(isfinite(x));
        sum += fabs((double)x);
    }
    assert_true(sum > 0);
    kh_model *composed = NULL;
    GOOD(kh_model_open_composed(&composed, scratch(&k->o)));
    kh_buf before = output_of(composed);
    assert_int_equal(before.size, want.size);
    assert_memory_equal(before.data, want.data, want.size);
    kh_buf_free(&before);
    kh_model_close(composed);
    GOOD(kh_gguf_open(&back, path));
    same_tensors(file, back);
    kh_gguf_close(back);
    if (!k->text) {
        GOOD(kh_hf_write(file, hf, KH_TYPE_F32));
        same_output(&want, hf, 1);
        GOOD(kh_hf_open(&back, hf));
        same_tensors(file, back);
        kh_gguf_close(back);
    }
    kh_model_close(m);
    kh_gguf_close(file);
    same_output(&want, path, 0);
    kh_buf_free(&want);
    unlink(path);
    snprintf(again, sizeof again, "%s/config.json", hf);
    unlink(again);
    snprintf(again, sizeof again, "%s/model.safetensors", hf);
    unlink(again);
    rmdir(hf);
    assert_int_equal(rmdir(folder), 0);
}

/* Nobody can add a family without its usual numbers. */
static void every_family_has_usual_numbers(void **state)
{
    const kh_family *family;
    (void)state;
    for (size_t i = 0; (family = kh_family_at(i)); i++) {
        kh_scratch_options o = {
            .architecture = family->name, .layers = 1, .width = 64, .vocabulary = 9};
        kh_gguf *file = scratch(&o);
        assert_true(kh_gguf_tensor_count(file) > 8);
        kh_gguf_close(file);
    }
}

/* ---- what weights are */

typedef struct numbers {
    double mean, deviation, least, most;
} numbers;

static const float *weights_of(const kh_gguf *file, const char *name, size_t *n)
{
    const kh_tensor *t = kh_gguf_tensor(file, name);
    if (!t) fail_msg("there is no %s", name);
    *n = (size_t)(t->dims[0] * t->dims[1] * t->dims[2]);
    return t->data;
}

static numbers numbers_of(const kh_gguf *file, const char *name)
{
    size_t n;
    const float *x = weights_of(file, name, &n);
    numbers s = {.least = HUGE_VAL, .most = -HUGE_VAL};
    for (size_t i = 0; i < n; i++) {
        s.mean += (double)x[i] / (double)n;
        s.deviation += (double)x[i] * (double)x[i] / (double)n;
        s.least = fmin(s.least, (double)x[i]);
        s.most = fmax(s.most, (double)x[i]);
    }
    s.deviation = sqrt(s.deviation - s.mean * s.mean);
    return s;
}

static void near(double got, double want, double share)
{
    if (!(fabs(got - want) <= share * fabs(want))) fail_msg("%g instead of %g", got, want);
}

static void all_are(const kh_gguf *file, const char *name, double value)
{
    numbers s = numbers_of(file, name);
    assert_true(s.least == value && s.most == value);
}

static void gpt2_weights(void **state)
{
    (void)state;
    kh_scratch_options o = {
        .architecture = "gpt2", .layers = 8, .width = 128, .vocabulary = 512, .context = 128};
    kh_gguf *file = scratch(&o);
    near(numbers_of(file, "token_embd.weight").deviation, 0.02, 0.01);
    near(numbers_of(file, "position_embd.weight").deviation, 0.02, 0.02);
    near(numbers_of(file, "blk.0.attn_qkv.weight").deviation, 0.02, 0.01);
    near(numbers_of(file, "blk.5.ffn_up.weight").deviation, 0.02, 0.01);
    near(numbers_of(file, "blk.7.ffn_down.weight").deviation, 0.02 / 4, 0.01);
    near(numbers_of(file, "blk.0.attn_output.weight").deviation, 0.02 / 4, 0.02);
    assert_true(fabs(numbers_of(file, "blk.0.ffn_up.weight").mean) < 4 * 0.02 / 256);
    near(numbers_of(file, "token_embd.weight").most, 0.02 * 4.2,
         0.25); /* of 65,536 normal numbers */
    all_are(file, "blk.3.attn_norm.weight", 1);
    all_are(file, "output_norm.bias", 0);
    all_are(file, "blk.0.attn_qkv.bias", 0);
    kh_gguf_close(file);
    o.init.spread = 0.5;
    file = scratch(&o);
    near(numbers_of(file, "token_embd.weight").deviation, 0.5, 0.01);
    kh_gguf_close(file);
}

static void arena_weights(void **state)
{
    (void)state;
    kh_scratch_options o = {.architecture = "lra",
                            .layers = 2,
                            .width = 64,
                            .heads = 2,
                            .head_width = 16,
                            .ff = 256,
                            .vocabulary = 300,
                            .context = 40,
                            .init.zero_row = 18};
    kh_gguf *file = scratch(&o);
    size_t n;
    near(numbers_of(file, "token_embd.weight").deviation, 1, 0.02);
    const float *x = weights_of(file, "token_embd.weight", &n);
    for (size_t i = 0; i < 64; i++) assert_true(x[17 * 64 + i] == 0 && x[16 * 64 + i] != 0);
    numbers up = numbers_of(file, "blk.1.ffn_up.weight"),
            q = numbers_of(file, "blk.0.attn_q.weight");
    double most = sqrt(6.0 / (64 + 256));
    assert_true(up.most <= most && up.least >= -most);
    near(up.most, most, 0.01);
    near(up.deviation, most / sqrt(3), 0.02);
    near(q.most, sqrt(6.0 / (64 + 32)), 0.02);
    x = weights_of(file, "position_embd.weight", &n);
    for (size_t t = 0; t < 40; t++)
        for (size_t i = 0; i < 64; i++) {
            double angle = (double)t * exp(-(double)(i / 2 * 2) / 64 * log(10000));
            assert_true(fabs((double)x[t * 64 + i] - (i % 2 ? cos(angle) : sin(angle))) < 1e-6);
        }
    assert_null(kh_gguf_tensor(file, "blk.0.attn_q.bias"));
    all_are(file, "blk.0.ffn_up.bias", 0);
    kh_gguf_close(file);
    o.fixed_positions = KH_SCRATCH_WITHOUT;
    file = scratch(&o);
    near(numbers_of(file, "position_embd.weight").deviation, 0.02, 0.05);
    kh_gguf_close(file);
}

static void t5_weights(void **state)
{
    (void)state;
    kh_scratch_options o = {.architecture = "t5",
                            .layers = 1,
                            .width = 128,
                            .heads = 8,
                            .head_width = 32,
                            .ff = 512,
                            .vocabulary = 300};
    kh_gguf *file = scratch(&o);
    near(numbers_of(file, "token_embd.weight").deviation, 1, 0.02);
    near(numbers_of(file, "enc.blk.0.attn_q.weight").deviation, 1 / sqrt(128.0 * 32), 0.02);
    near(numbers_of(file, "dec.blk.0.cross_attn_k.weight").deviation, 1 / sqrt(128.0), 0.02);
    near(numbers_of(file, "dec.blk.0.cross_attn_o.weight").deviation, 1 / sqrt(256.0), 0.02);
    near(numbers_of(file, "enc.blk.0.ffn_down.weight").deviation, 1 / sqrt(512.0), 0.02);
    near(numbers_of(file, "enc.blk.0.attn_rel_b.weight").deviation, 1 / sqrt(128.0), 0.2);
    kh_gguf_close(file);
}

/* The parts of a fused tensor have limits of their own, and every expert's numbers are his. */
static void parts_of_tensors(void **state)
{
    (void)state;
    kh_scratch_options o = {.architecture = "phi3",
                            .layers = 1,
                            .width = 64,
                            .heads = 8,
                            .key_heads = 1,
                            .vocabulary = 32,
                            .init.name = "lra"};
    kh_gguf *file = scratch(&o);
    size_t n;
    const float *x = weights_of(file, "blk.0.attn_qkv.weight", &n);
    double most[2] = {0};
    for (size_t i = 0; i < n; i++) {
        size_t part = i / 64 >= 64;
        most[part] = fmax(most[part], fabs((double)x[i]));
    }
    near(most[0], sqrt(6.0 / 128), 0.01);
    near(most[1], sqrt(6.0 / 72), 0.01);
    kh_gguf_close(file);
    o = (kh_scratch_options){.layers = 1, .width = 64, .experts = 3, .ff = 40, .vocabulary = 32};
    file = scratch(&o);
    x = weights_of(file, "blk.0.ffn_up_exps.weight", &n);
    assert_int_equal(n, 3 * 40 * 64);
    assert_memory_not_equal(x, x + 40 * 64, 40 * 64 * sizeof *x);
    kh_gguf_close(file);
}

/* Any number of threads; a model with more layers begins as the smaller one. */
static void numbers_have_names(void **state)
{
    (void)state;
    kh_scratch_options o = {
        .architecture = "llama", .layers = 2, .width = 192, .vocabulary = 300, .threads = 1};
    o.init = (kh_init_options){.name = "t5", .seed = 11};
    kh_gguf *one = scratch(&o), *two;
    o.threads = 3;
    two = scratch(&o);
    same_tensors(one, two);
    kh_gguf_close(two);
    o.layers = 4;
    two = scratch(&o);
    size_t n, m;
    const float *a = weights_of(one, "blk.1.ffn_up.weight", &n);
    assert_memory_equal(a, weights_of(two, "blk.1.ffn_up.weight", &m), n * sizeof *a);
    assert_memory_not_equal(a, weights_of(two, "blk.0.ffn_up.weight", &m), n * sizeof *a);
    kh_gguf_close(two);
    o.init.seed = 12;
    two = scratch(&o);
    assert_memory_not_equal(a, weights_of(two, "blk.1.ffn_up.weight", &m), n * sizeof *a);
    kh_gguf_close(two);
    kh_gguf_close(one);
}

/* ---- tokens */

static kh_tokenizer *tokens_of(const kh_gguf *file)
{
    kh_tokenizer *t = NULL;
    GOOD(kh_tokenizer_open(&t, file));
    return t;
}

static void ids_without_text(void **state)
{
    (void)state;
    static const char *const pieces[] = {"PAD", "[MAX", "[MIN", "]", "7"};
    kh_scratch_options o = {.layers = 1, .width = 32, .vocabulary = 40};
    kh_tokens ids = {0};
    kh_gguf *file = scratch(&o);
    kh_tokenizer *t = tokens_of(file);
    static const char text[] = "<3><0><39>";
    assert_int_equal(kh_tokenizer_size(t), 40);
    GOOD(kh_tokenize(t, &ids, text, strlen(text), KH_TOKENIZE_EDGES | KH_TOKENIZE_SPECIAL));
    assert_int_equal(ids.count, 3);
    assert_int_equal(ids.ids[0], 3);
    assert_int_equal(ids.ids[2], 39);
    ids.count = 0;
    kh_tokenizer_close(t);
    kh_gguf_close(file);
    o.vocabulary = 5;
    o.pieces = pieces;
    file = scratch(&o);
    t = tokens_of(file);
    GOOD(kh_tokenize(t, &ids, "[MAX7]", 6, KH_TOKENIZE_SPECIAL));
    assert_int_equal(ids.count, 3);
    assert_int_equal(ids.ids[0], 1);
    assert_int_equal(ids.ids[1], 4);
    assert_int_equal(ids.ids[2], 3);
    ids.count = 0;
    kh_tokenizer_close(t);
    kh_gguf_close(file);
    o.cls = KH_SCRATCH_WITH; /* a sixth token, in front of everything */
    file = scratch(&o);
    t = tokens_of(file);
    assert_int_equal(kh_tokenizer_size(t), 6);
    GOOD(kh_tokenize(t, &ids, "]7", 2, KH_TOKENIZE_EDGES | KH_TOKENIZE_SPECIAL));
    assert_int_equal(ids.count, 3);
    assert_int_equal(ids.ids[0], 5);
    assert_int_equal(ids.ids[1], 3);
    size_t n;
    const float *x = weights_of(file, "token_embd.weight", &n);
    for (size_t i = 0; i < 32; i++) assert_true(x[5 * 32 + i] == 0 && x[4 * 32 + i] != 0);
    kh_tokens_free(&ids);
    kh_tokenizer_close(t);
    kh_gguf_close(file);
}

static void words_of_a_tokenizer(void **state)
{
    (void)state;
    static const char text[] = "the keyhole was 12 feet deep";
    kh_tokenizer *folder = NULL, *t;
    kh_gguf *words = NULL;
    GOOD(kh_tokenizer_open_folder(&folder, golden_path("families/gpt2")));
    GOOD(kh_gguf_new(&words, "words"));
    GOOD(kh_tokenizer_describe(folder, words));
    int count = kh_tokenizer_size(folder);
    for (int more = 0; more < 2; more++) {
        kh_scratch_options o = {
            .layers = 1, .width = 32, .words = words, .vocabulary = more ? count + 13 : 0};
        kh_gguf *file = scratch(&o);
        kh_tokens a = {0}, b = {0};
        t = tokens_of(file);
        assert_int_equal(kh_tokenizer_size(t), count + 13 * more);
        GOOD(kh_tokenize(folder, &a, text, strlen(text), 0));
        GOOD(kh_tokenize(t, &b, text, strlen(text), 0));
        assert_int_equal(a.count, b.count);
        assert_memory_equal(a.ids, b.ids, a.count * sizeof *a.ids);
        kh_tokens_free(&a);
        kh_tokens_free(&b);
        kh_tokenizer_close(t);
        kh_gguf_close(file);
    }
    kh_gguf *file = NULL;
    kh_scratch_options few = {.layers = 1, .width = 32, .words = words, .vocabulary = count - 1};
    assert_int_equal(kh_scratch_open(&file, &few), KH_ERR_ARGUMENT);
    assert_null(file);
    kh_tokenizer_close(folder);
    kh_gguf_close(words);
}

/* ---- what is refused */

static void refused(void **state)
{
    (void)state;
    static const struct {
        kh_scratch_options o;
        const char *says;
    } all[] = {
        {{.architecture = "rwkv", .vocabulary = 9}, "\"rwkv\" is not supported"},
        {{.vocabulary = 0}, "vocabulary: a number from 1"},
        {{.vocabulary = 9, .layers = 513}, "layers: a number from 1 to 512"},
        {{.vocabulary = 9, .layers = -1}, "layers: a number from 1"},
        {{.vocabulary = 9, .width = 50, .heads = 3}, "width 50 is no multiple of 3 heads"},
        {{.vocabulary = 9, .width = 64, .heads = 4, .key_heads = 3}, "divisor of the 4 heads"},
        {{.vocabulary = 9, .width = 60, .heads = 4}, "an even number"},
        {{.vocabulary = 9, .width = 64, .rotated = 7}, "even number from 2"},
        {{.vocabulary = 9, .norm_eps = 2}, "small positive number"},
        {{.vocabulary = 9, .init.name = "zeros"}, "init: \"zeros\" is not known"},
        {{.vocabulary = 9, .init.spread = -1}, "init spread"},
        {{.vocabulary = 9, .init.zero_row = 10}, "zero_row"},
        {{.vocabulary = 9, .architecture = "gpt2", .experts = 4}, "a gpt2 model has no experts"},
        {{.vocabulary = 9, .architecture = "gpt2", .window = 4}, "a gpt2 model has no windows"},
        {{.vocabulary = 9, .architecture = "gpt2", .biases = KH_SCRATCH_WITHOUT},
         "always has biases"},
        {{.vocabulary = 9, .architecture = "gpt2", .mask_head = KH_SCRATCH_WITH}, "masked tokens"},
        {{.vocabulary = 9, .architecture = "qwen3", .act = "relu"}, "the activation of a qwen3"},
        {{.vocabulary = 9, .architecture = "gpt2", .act = "tanh"}, "gpt2.hidden_activation"},
        {{.vocabulary = 9, .architecture = "bert", .width = 64, .act = "tanh"},
         "hidden_activation"},
        {{.vocabulary = 9, .architecture = "bert", .head = KH_SCRATCH_WITH}, "belongs to the head"},
        {{.vocabulary = 9, .architecture = "t5", .classes = 2},
         "a t5 model has no head for classes"},
        {{.vocabulary = 9, .classes = 2, .towers = 3}, "towers"},
        {{.vocabulary = 9, .classes = 2, .class_inner = 3}, "class_inner"},
        {{.vocabulary = 9, .classes = 2, .class_dense = 3, .class_act = "silu"}, "class_act"},
        {{.vocabulary = 9, .layers = 512, .width = 1 << 17}, "GB of memory"},
        {{.vocabulary = 9, .threads = -1}, "threads"},
        {{.vocabulary = 9, .fixed_positions = KH_SCRATCH_WITH}, "no embeddings of positions"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        kh_gguf *file = NULL;
        if (kh_scratch_open(&file, &all[i].o) == KH_OK)
            fail_msg("'%s' was not refused", all[i].says);
        if (!strstr(kh_last_error(), all[i].says))
            fail_msg("'%s' instead of '%s'", kh_last_error(), all[i].says);
        assert_null(file);
    }
}

/* Every allocation may fail. */
static void short_of_memory(void **state)
{
    (void)state;
    kh_scratch_options o = {
        .architecture = "bert", .layers = 1, .width = 16, .heads = 2, .vocabulary = 11};
    for (uint64_t n = 1;; n++) {
        kh_gguf *file = NULL;
        uint64_t live = kh_alloc_get_stats().live;
        kh_alloc_fail_at(n);
        kh_status status = kh_scratch_open(&file, &o);
        kh_alloc_fail_at(0);
        if (status == KH_OK) {
            kh_gguf_close(file);
            assert_true(n > 20);
            break;
        }
        assert_int_equal(status, KH_ERR_MEMORY);
        assert_null(file);
        assert_int_equal(kh_alloc_get_stats().live, live);
    }
}

int main(int argc, char **argv)
{
    static struct CMUnitTest tests[KINDS + 32] = {{0}};
    size_t n = 0;
    for (size_t i = 0; i < KINDS; i++)
        tests[n++] = (struct CMUnitTest){.name = kinds[i].name,
                                         .test_func = is_a_model,
                                         .initial_state = (void *)(uintptr_t)&kinds[i]};
    const struct CMUnitTest others[] = {cmocka_unit_test(every_family_has_usual_numbers),
                                        cmocka_unit_test(gpt2_weights),
                                        cmocka_unit_test(arena_weights),
                                        cmocka_unit_test(t5_weights),
                                        cmocka_unit_test(parts_of_tensors),
                                        cmocka_unit_test(numbers_have_names),
                                        cmocka_unit_test(ids_without_text),
                                        cmocka_unit_test(words_of_a_tokenizer),
                                        cmocka_unit_test(refused),
                                        cmocka_unit_test(short_of_memory)};
    memcpy(tests + n, others, sizeof others);
    n += sizeof others / sizeof *others;
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return _cmocka_run_group_tests("scratch", tests, n, NULL, NULL);
}
