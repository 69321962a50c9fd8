/* Models that are wrong in one place.
 *
 * A small good model is written with one change: a key left out or replaced, a tensor left out, added,
 * reshaped or of another type. Every change is answered by its status and one sentence that names the
 * key or tensor, what was expected and what was found, and leaves nothing behind. Then: files that are
 * good in form and absurd in content, and what callers may ask of a good model. */
#include "base/alloc.h"
#include "support/gguf_writer.h"
#include "support/golden_run.h"

#include <keyhole/keyhole.h>
#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

enum { V = 264, D = 64, H = 2, G = 1, E = 32, F = 96, N = 2, CONTEXT = 48 };

enum what { NOTHING, DROP, NUMBER, REAL, TEXT, ARRAY, EXTRA, SHAPE, TYPE, TOKENS, SCORES, CUT };

typedef struct change {
    enum what what;
    const char *target; /* a key or a tensor */
    double value;       /* number, real, element of an array, type, rows */
    const char *text;
    size_t cols; /* SHAPE: rows = value; ARRAY: elements */
    kh_status status;
    const char *words[3]; /* of the sentence, beside the target's name */
} change;

/* ---- a good model, but for one change ---- */

static int hit(const change *c, const char *name)
{
    return c->what != NOTHING && strcmp(c->target, name) == 0;
}

static void changed(writer *w, const change *c)
{
    uint32_t n = c->what == REAL ? 0 : (uint32_t)(int64_t)c->value;
    float x = (float)c->value;
    switch (c->what) {
    case NUMBER: key_u32(w, c->target, n); break;
    case REAL: key_fixed(w, c->target, KH_GGUF_F32, &x, 4); break;
    case TEXT: key_text(w, c->target, c->text); break;
    case ARRAY:
        key_array(w, c->target, KH_GGUF_U32, c->cols);
        for (size_t i = 0; i < c->cols; i++) put_u32(w, n + (uint32_t)i);
        break;
    default: break;
    }
}

/* Writes a number, a real or a text, or what the change makes of it; counts the keys. */
static void entry(writer *w, const change *c, uint64_t *keys, const char *name, double value,
                  const char *text, int real)
{
    change good = {text ? TEXT : real ? REAL : NUMBER, name, value, text, 0, KH_OK, {0}};
    if (hit(c, name) && c->what == DROP) return;
    changed(w, hit(c, name) ? c : &good);
    ++*keys;
}

static void vocabulary(writer *w, const change *c, uint64_t *keys)
{
    char piece[16];
    size_t tokens = c->what == TOKENS ? (size_t)c->value : V;
    size_t scores = c->what == SCORES ? (size_t)c->value : tokens;
    entry(w, c, keys, "tokenizer.ggml.model", 0, "llama", 0);
    entry(w, c, keys, "tokenizer.ggml.bos_token_id", 1, NULL, 0);
    entry(w, c, keys, "tokenizer.ggml.eos_token_id", 2, NULL, 0);
    entry(w, c, keys, "tokenizer.ggml.unknown_token_id", 0, NULL, 0);
    if (!hit(c, "tokenizer.ggml.tokens") || c->what == TOKENS) {
        key_array(w, "tokenizer.ggml.tokens", KH_GGUF_STRING, tokens);
        for (size_t i = 0; i < tokens; i++) {
            snprintf(piece, sizeof piece,
                     i < 3     ? "<%c>"
                     : i < 259 ? "<0x%02X>"
                               : "w%u",
                     i < 3     ? (unsigned)"usx"[i]
                     : i < 259 ? (unsigned)i - 3
                               : (unsigned)i);
            put_text(w, piece);
        }
        ++*keys;
    }
    key_array(w, "tokenizer.ggml.token_type", KH_GGUF_I32, tokens);
    for (size_t i = 0; i < tokens; i++) put_u32(w, i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1);
    ++*keys;
    if (hit(c, "tokenizer.ggml.scores") && c->what == DROP) return;
    key_array(w, "tokenizer.ggml.scores", KH_GGUF_F32, scores);
    for (size_t i = 0; i < scores; i++) put(w, &(float){-(float)i}, 4);
    ++*keys;
}

static void metadata(writer *w, const change *c, uint64_t *keys)
{
    static const struct {
        const char *name;
        int value;
    } numbers[] = {{"block_count", N},          {"embedding_length", D},
                   {"context_length", CONTEXT}, {"feed_forward_length", F},
                   {"attention.head_count", H}, {"attention.head_count_kv", G}};
    char name[64];
    entry(w, c, keys, "general.architecture", 0, "llama", 0);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        snprintf(name, sizeof name, "llama.%s", numbers[i].name);
        entry(w, c, keys, name, numbers[i].value, NULL, 0);
    }
    entry(w, c, keys, "llama.attention.layer_norm_rms_epsilon", 1e-5, NULL, 1);
    vocabulary(w, c, keys);
    if (c->what != EXTRA) return;
    change extra = *c;
    extra.what = c->text ? TEXT : c->cols ? ARRAY : c->value == floor(c->value) ? NUMBER : REAL;
    changed(w, &extra);
    ++*keys;
}

static void add(writer *w, const change *c, uint64_t *tensors, const char *name, size_t rows,
                size_t cols)
{
    kh_type type = KH_TYPE_F32;
    if (hit(c, name) && c->what == DROP) return;
    if (hit(c, name) && c->what == TYPE) type = (kh_type)c->value;
    if (hit(c, name) && c->what == SHAPE) {
        rows = (size_t)c->value;
        cols = c->cols;
    }
    tensor(w, name, type, rows, cols);
    ++*tensors;
}

static void tensors(writer *w, const change *c, uint64_t *count)
{
    static const struct {
        const char *name;
        size_t rows, cols;
    } block[] = {{"attn_norm", 1, D},  {"ffn_norm", 1, D},   {"attn_q", H * E, D},
                 {"attn_k", G * E, D}, {"attn_v", G * E, D}, {"attn_output", D, H * E},
                 {"ffn_gate", F, D},   {"ffn_up", F, D},     {"ffn_down", D, F}};
    char name[64];
    add(w, c, count, "token_embd.weight", V, D);
    add(w, c, count, "output_norm.weight", 1, D);
    for (int layer = 0; layer < N; layer++)
        for (size_t i = 0; i < sizeof block / sizeof *block; i++) {
            snprintf(name, sizeof name, "blk.%d.%s.weight", layer, block[i].name);
            add(w, c, count, name, block[i].rows, block[i].cols);
        }
    if (c->what == SHAPE && c->text) add(w, c, count, c->target, 1, 1);
}

/* The model with a change; floats of the data are `value` when it is not 0, else small and varied. */
static writer model_with(const change *c, float value)
{
    writer w;
    uint64_t keys = 0, count = 0;
    head(&w, 3, 0, 0);
    metadata(&w, c, &keys);
    tensors(&w, c, &count);
    memcpy(w.data + 8, &count, 8);
    memcpy(w.data + 16, &keys, 8);
    size_t bytes = w.tensor_bytes;
    data(&w, bytes);
    float *x = (float *)(void *)(w.data + w.size - bytes);
    for (size_t i = 0; i < bytes / 4; i++)
        x[i] = value != 0 ? value : ((float)(i * 2654435761u % 2001) - 1000) * 1e-3f;
    if (c->what == CUT) w.size -= (size_t)c->value;
    return w;
}

static const char *file_of(const writer *w, int *fd)
{
    static char path[64];
    *fd = memfd_create("model", MFD_CLOEXEC);
    assert_true(*fd >= 0);
    assert_int_equal(write(*fd, w->data, w->size), w->size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", *fd);
    return path;
}

static kh_status open_with(kh_model **out, const change *c, float value)
{
    int fd;
    writer w = model_with(c, value);
    kh_status status = kh_model_open(out, file_of(&w, &fd));
    close(fd);
    drop(&w);
    return status;
}

static kh_model *good_model(float value)
{
    kh_model *model = NULL;
    GOOD(open_with(&model, &(change){0}, value));
    return model;
}

/* ---- one change at a time ---- */

#define FORMAT      KH_ERR_FORMAT
#define UNSUPPORTED KH_ERR_UNSUPPORTED

static const change changes[] = {
    /* keys */
    {DROP, "general.architecture", 0, 0, 0, FORMAT, {"missing"}},
    {TEXT, "general.architecture", 0, "mamba", 0, UNSUPPORTED, {"mamba", "llama, phi3, qwen2"}},
    {NUMBER, "general.architecture", 3, 0, 0, FORMAT, {"string", "u32"}},
    {DROP, "llama.block_count", 0, 0, 0, FORMAT, {"missing"}},
    {NUMBER, "llama.block_count", 0, 0, 0, FORMAT, {"positive", "0"}},
    {NUMBER, "llama.block_count", 513, 0, 0, FORMAT, {"513", "512"}},
    {NUMBER, "llama.block_count", 3, 0, 0, FORMAT, {"no tensor blk.2.attn_norm.weight"}},
    {NUMBER, "llama.block_count", 1, 0, 0, UNSUPPORTED, {"blk.1."}},
    {TEXT, "llama.block_count", 0, "two", 0, FORMAT, {"integer", "string"}},
    {REAL, "llama.block_count", 2.5, 0, 0, FORMAT, {"integer", "f32"}},
    {NUMBER, "llama.embedding_length", 32, 0, 0, FORMAT, {"token_embd.weight", "32", "64"}},
    {NUMBER, "llama.embedding_length", 131073, 0, 0, FORMAT, {"131073", "131072"}},
    {NUMBER, "llama.context_length", 0, 0, 0, FORMAT, {"positive", "0"}},
    {NUMBER, "llama.context_length", -1, 0, 0, FORMAT, {"4294967295", "1073741824"}},
    {NUMBER, "llama.feed_forward_length", 0, 0, 0, FORMAT, {"positive", "0"}},
    {DROP, "llama.feed_forward_length", 0, 0, 0, FORMAT, {"positive", "0"}},
    {NUMBER, "llama.feed_forward_length", 97, 0, 0, FORMAT, {"blk.0.ffn_gate.weight", "97", "96"}},
    {ARRAY, "llama.feed_forward_length", 96, 0, 2, UNSUPPORTED, {"96", "97"}},
    {ARRAY, "llama.feed_forward_length", 96, 0, 0, FORMAT, {"positive"}},
    {NUMBER, "llama.attention.head_count", 0, 0, 0, FORMAT, {"positive", "0"}},
    {NUMBER, "llama.attention.head_count", 4097, 0, 0, FORMAT, {"4097", "4096"}},
    {NUMBER, "llama.attention.head_count", 3, 0, 0, UNSUPPORTED, {"key_length", "found 21"}},
    {NUMBER, "llama.attention.head_count", 4, 0, 0, FORMAT, {"attn_k.weight", "16", "32"}},
    {NUMBER, "llama.attention.head_count_kv", 0, 0, 0, FORMAT, {"positive", "0"}},
    {NUMBER, "llama.attention.head_count_kv", 3, 0, 0, FORMAT, {"2 heads", "found 3"}},
    {EXTRA, "llama.attention.key_length", 7, 0, 0, UNSUPPORTED, {"even", "found 7"}},
    {EXTRA, "llama.attention.key_length", 1025, 0, 0, UNSUPPORTED, {"512", "found 1025"}},
    {EXTRA, "llama.attention.key_length", 0, 0, 0, UNSUPPORTED, {"even", "found 0"}},
    {EXTRA, "llama.attention.value_length", 16, 0, 0, UNSUPPORTED, {"32", "found 16"}},
    {EXTRA, "llama.rope.dimension_count", 3, 0, 0, FORMAT, {"even", "found 3"}},
    {EXTRA, "llama.rope.dimension_count", 34, 0, 0, FORMAT, {"32", "found 34"}},
    {EXTRA, "llama.rope.freq_base", 1, 0, 0, FORMAT, {"above 1", "found 1"}},
    {EXTRA, "llama.rope.freq_base", 0.5, 0, 0, FORMAT, {"above 1", "found 0.5"}},
    {EXTRA, "llama.rope.freq_base", (double)NAN, 0, 0, FORMAT, {"NaN"}},
    {EXTRA, "llama.rope.freq_base", 0, "x", 0, FORMAT, {"number", "string"}},
    {EXTRA, "llama.rope.scaling.type", 0, "spiral", 0, UNSUPPORTED, {"spiral", "yarn"}},
    {EXTRA, "llama.rope.scaling.factor", 0, 0, 0, FORMAT, {"positive"}},
    {EXTRA, "llama.rope.scaling.factor", -2.5, 0, 0, FORMAT, {"positive", "-2.5"}},
    {EXTRA, "llama.rope.scaling.original_context_length", -3.5, 0, 0, FORMAT, {"positive", "-3.5"}},
    {EXTRA, "llama.expert_count", 4096, 0, 0, UNSUPPORTED, {"at most 1024 experts", "4096"}},
    {DROP, "llama.attention.layer_norm_rms_epsilon", 0, 0, 0, FORMAT, {"positive", "0"}},
    {REAL, "llama.attention.layer_norm_rms_epsilon", 1, 0, 0, FORMAT, {"small", "found 1"}},
    {REAL, "llama.attention.layer_norm_rms_epsilon", (double)NAN, 0, 0, FORMAT, {"NaN"}},
    {REAL, "llama.attention.layer_norm_rms_epsilon", -(double)INFINITY, 0, 0, FORMAT, {"-inf"}},
    /* tokenizer */
    {DROP, "tokenizer.ggml.model", 0, 0, 0, FORMAT, {"missing"}},
    {TEXT, "tokenizer.ggml.model", 0, "wordpiece", 0, UNSUPPORTED, {"wordpiece", "gpt2, llama"}},
    {TEXT, "tokenizer.ggml.model", 0, "gpt2", 0, FORMAT, {"tokenizer.ggml.merges"}},
    {DROP, "tokenizer.ggml.tokens", 0, 0, 0, FORMAT, {"missing"}},
    {TOKENS, "tokenizer.ggml.tokens", 0, 0, 0, FORMAT, {"0 elements"}},
    {TOKENS, "tokenizer.ggml.tokens", V + 1, 0, 0, FORMAT, {"265 tokens", "264"}},
    {DROP, "tokenizer.ggml.scores", 0, 0, 0, FORMAT, {"missing"}},
    {SCORES, "tokenizer.ggml.scores", V - 1, 0, 0, FORMAT, {"263", "264"}},
    {NUMBER, "tokenizer.ggml.bos_token_id", V, 0, 0, FORMAT, {"264"}},
    {NUMBER, "tokenizer.ggml.eos_token_id", 5000, 0, 0, FORMAT, {"5000", "264"}},
    /* tensors */
    {DROP, "token_embd.weight", 0, 0, 0, FORMAT, {"no tensor"}},
    {DROP, "output_norm.weight", 0, 0, 0, FORMAT, {"no tensor"}},
    {DROP, "blk.1.attn_k.weight", 0, 0, 0, FORMAT, {"no tensor", "llama"}},
    {DROP, "blk.0.ffn_norm.weight", 0, 0, 0, FORMAT, {"no tensor", "llama"}},
    {SHAPE, "token_embd.weight", 100, 0, D, FORMAT, {"264 tokens", "embedding only 100"}},
    {SHAPE, "token_embd.weight", V, 0, 32, FORMAT, {"64 columns", "found 32"}},
    {SHAPE, "blk.0.ffn_up.weight", 97, 0, D, FORMAT, {"96 rows", "64 x 97"}},
    {SHAPE, "blk.0.ffn_down.weight", F, 0, D, FORMAT, {"96 columns and 64 rows", "64 x 96"}},
    {SHAPE, "blk.1.attn_norm.weight", 1, 0, 63, FORMAT, {"vector of 64", "found 63"}},
    {SHAPE, "blk.1.attn_norm.weight", 2, 0, D, FORMAT, {"vector of 64", "64 x 2"}},
    {SHAPE, "blk.0.attn_q.weight", 1, 0, D, FORMAT, {"64 rows", "64 x 1 "}},
    {TYPE, "blk.0.attn_norm.weight", KH_TYPE_Q8_0, 0, 0, FORMAT, {"F32, F16 or BF16", "Q8_0"}},
    {SHAPE, "blk.0.ffn_gate_inp.weight", 4, "extra", D, UNSUPPORTED, {"not part of a llama"}},
    {SHAPE, "blk.0.attn_q_norm.weight", 1, "extra", E, UNSUPPORTED, {"not part of a llama"}},
    {SHAPE, "blk.2.attn_q.weight", D, "extra", D, UNSUPPORTED, {"not part of a llama"}},
    {SHAPE, "blk.00.attn_q.weight", D, "extra", D, UNSUPPORTED, {"not part of a llama"}},
    {SHAPE, "blk.-1.attn_q.weight", D, "extra", D, UNSUPPORTED, {"not part of a llama"}},
    {SHAPE, "blk.99999999999999999999.attn_q.weight", D, "extra", D, UNSUPPORTED, {"not part"}},
    {SHAPE, "output.weight", V - 1, "extra", D, FORMAT, {"264 rows", "64 x 263"}},
    {SHAPE, "rope_freqs.weight", 1, "extra", 15, FORMAT, {"vector of 16", "found 15"}},
    {CUT, "blk.1.ffn_down.weight", 4, 0, 0, FORMAT, {"truncated", "4 bytes"}},
};

static void one_change_gives_one_sentence(void **state)
{
    (void)state;
    int failed = 0;
    kh_model_close(good_model(0));
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        const change *c = &changes[i];
        uint64_t live = kh_alloc_get_stats().live;
        kh_model *model = (kh_model *)(void *)&failed;
        kh_status status = open_with(&model, c, 0);
        const char *said = kh_last_error();
        int good = status == c->status && !model && strchr(said, '\n') == NULL;
        for (int w = 0; w < 3 && c->words[w]; w++) good &= strstr(said, c->words[w]) != NULL;
        /* a sentence about a shape may name the tensor that no longer fits instead of the key */
        good &= strstr(said, c->target) || strstr(said, ".weight") || strstr(said, "key_length") ||
                strstr(said, "architecture") || strstr(said, "tokenizer");
        good &= kh_alloc_get_stats().live == live;
        if (status == KH_OK) kh_model_close(model);
        if (good) continue;
        print_error("%s (change %zu): %s, '%s'\n", c->target, i, kh_status_name(status),
                    status ? said : "");
        failed++;
    }
    assert_int_equal(failed, 0);
}

/* ---- good in form, absurd in content ---- */

static kh_status in_range(void *context, const char *text, size_t size, const kh_choice *chosen,
                          const kh_choice *alternatives, size_t count)
{
    (void)text;
    (void)size;
    ++*(int *)context;
    if (chosen) assert_in_range(chosen->id, 0, V - 1);
    for (size_t i = 0; i < count; i++) {
        assert_in_range(alternatives[i].id, 0, V - 1);
        for (size_t j = 0; j < i; j++) assert_int_not_equal(alternatives[i].id, alternatives[j].id);
    }
    return KH_OK;
}

static void answers(const kh_model *model, const char *attn, kh_precision precision)
{
    int32_t ids[30];
    for (int i = 0; i < 30; i++) ids[i] = i * 37 % V;
    kh_session_options so = {.attn = attn, .precision = precision, .threads = 2, .stats = 1};
    for (int greedy = 0; greedy < 2; greedy++) {
        int calls = 0;
        kh_session *s = open_session(model, &so);
        kh_generate_result made;
        kh_generate_options g = {.sampler = kh_sampler_defaults(),
                                 .max_tokens = 5,
                                 .ignore_end = 1,
                                 .top_logprobs = 4,
                                 .token = in_range,
                                 .context = &calls};
        if (greedy) g.sampler = (kh_sampler_options){.repeat_penalty = 1.5f, .repeat_last = -1};
        GOOD(kh_session_read(s, ids, 30, NULL));
        GOOD(kh_generate(s, &g, &made));
        assert_int_equal(made.tokens, 5);
        assert_true(calls >= 5);
        kh_session_close(s);
    }
}

static void absurd_numbers_still_answer(void **state)
{
    (void)state;
    static const float values[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-40f, -0.0f, 1.0f};
    static const char *const attns[] = {"full", "topk:k=2,tail=mean", "topk:k=3,recent=1,min-p=0.5",
                                        "window:recent=3,sinks=1"};
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        kh_model *model = NULL;
        GOOD(open_with(&model, &(change){0}, values[v] != 0 ? values[v] : 1e-45f));
        for (size_t a = 0; a < sizeof attns / sizeof *attns; a++) {
            answers(model, attns[a], KH_PRECISION_DEFAULT);
            answers(model, attns[a], KH_PRECISION_Q8);
        }
        /* it says so, and does not crash */
        kh_verify_options o = {.session.threads = 1};
        kh_status status = kh_verify(model, &o);
        assert_true(isfinite(values[v]) || status == KH_ERR_CHECK);
        kh_model_close(model);
    }
}

/* A vocabulary smaller than the embedding: the ids between have no token and are never said. */
static void padding_is_never_said(void **state)
{
    (void)state;
    kh_model *model = NULL;
    GOOD(open_with(&model,
                   &(change){.what = TOKENS, .target = "tokenizer.ggml.tokens", .value = 260}, 0));
    int32_t ids[] = {5, V - 1, V - 2, 7};
    kh_session *s = open_session(model, &(kh_session_options){.threads = 1});
    kh_logit_bias bias = {3, -INFINITY};
    kh_generate_options g = {
        .sampler = {.temperature = 5, .repeat_penalty = 2, .bias = &bias, .bias_count = 1},
        .max_tokens = 40,
        .ignore_end = 1};
    kh_generate_result made;
    GOOD(kh_session_read(s, ids, 4, NULL));
    GOOD(kh_generate(s, &g, &made));
    for (size_t i = 4; i < kh_session_length(s); i++) {
        assert_in_range(kh_session_tokens(s)[i], 0, 259);
        assert_int_not_equal(kh_session_tokens(s)[i], 3);
    }
    bias.id = 260;
    assert_int_equal(kh_generate(s, &g, &made), KH_ERR_ARGUMENT);
    kh_session_close(s);
    kh_model_close(model);
}

/* A billion positions are an address, not memory. */
static void a_huge_context_costs_what_is_used(void **state)
{
    (void)state;
    kh_model *model = NULL;
    GOOD(
        open_with(&model, &(change){NUMBER, "llama.context_length", 1 << 30, 0, 0, KH_OK, {0}}, 0));
    kh_session *s = NULL;
    size_t before = kh_alloc_get_stats().bytes;
    kh_status status = kh_session_open(&s, model, &(kh_session_options){.threads = 1});
    if (status == KH_OK) {
        assert_true(kh_alloc_get_stats().bytes - before < 256u << 20);
        GOOD(kh_session_read(s, (int32_t[]){1, 2, 3}, 3, NULL));
    } else {
        assert_int_equal(status, KH_ERR_MEMORY);
        assert_non_null(strstr(kh_last_error(), "bytes"));
    }
    kh_session_close(s);
    kh_model_close(model);
}

/* A file with a hole of 512 GB. */
static void a_model_beyond_the_memory_says_so(void **state)
{
    (void)state;
    int fd;
    uint64_t dims[] = {131072, 1 << 20}, count = 1;
    uint64_t live = kh_alloc_get_stats().live;
    writer w = model_with(&(change){NUMBER, "llama.embedding_length", 131072, 0, 0, KH_OK, {0}}, 0);
    writer big;
    uint64_t keys = 0;
    head(&big, 3, 0, 0);
    metadata(&big, &(change){EXTRA, "llama.attention.key_length", 32, 0, 0, KH_OK, {0}}, &keys);
    tensor_at(&big, "token_embd.weight", KH_TYPE_F32, 2, dims, 0);
    memcpy(big.data + 8, &count, 8);
    memcpy(big.data + 16, &keys, 8);
    data(&big, 0);
    const char *path = file_of(&big, &fd);
    kh_model *model = NULL;
    if (ftruncate(fd, (off_t)(big.size + (dims[0] * dims[1] << 2))) == 0) {
        assert_int_equal(kh_model_open(&model, path), KH_ERR_MEMORY);
        assert_non_null(strstr(kh_last_error(), "GB"));
    }
    assert_null(model);
    close(fd);
    drop(&big);
    drop(&w);
    assert_int_equal(kh_alloc_get_stats().live, live);
}

/* ---- what callers may ask of a good model ---- */

typedef struct wish {
    kh_session_options options;
    kh_status status;
    const char *words[2];
} wish;

static const wish wishes[] = {
    {{.context = CONTEXT + 1}, KH_ERR_CONTEXT, {"49", "48"}},
    {{.context = (1u << 30) + 1, .longer = 1}, KH_ERR_ARGUMENT, {"1073741825", "large"}},
    {{.context = SIZE_MAX, .longer = 1}, KH_ERR_ARGUMENT, {"large"}},
    {{.threads = 5000}, KH_ERR_ARGUMENT, {"threads", "5000"}},
    {{.threads = -1}, KH_ERR_ARGUMENT, {"threads", "-1"}},
    {{.batch = SIZE_MAX}, KH_ERR_ARGUMENT, {"batch"}},
    {{.forks = SIZE_MAX}, KH_ERR_ARGUMENT, {"forks"}},
    {{.forks = (size_t)1 << 62}, KH_ERR_ARGUMENT, {"forks"}},
    {{.attn = ""}, KH_ERR_ARGUMENT, {"attention"}},
    {{.attn = "topk"}, KH_ERR_ARGUMENT, {"needs k"}},
    {{.attn = "topk:k=0"}, KH_ERR_ARGUMENT, {"k=0"}},
    {{.attn = "topk:k=99999999999999999999"}, KH_ERR_ARGUMENT, {"k"}},
    {{.attn = "topk:k=4,recent=3,sinks=2"}, KH_ERR_ARGUMENT, {"recent", "k = 4"}},
    {{.attn = "topk:k=4,min-p=nan"}, KH_ERR_ARGUMENT, {"min-p=nan"}},
    {{.attn = "0-2=full"}, KH_ERR_ARGUMENT, {"layer 2", "0-1"}},
    {{.attn = "0.2=full"}, KH_ERR_ARGUMENT, {"head 2", "0-1"}},
    {{.attn = "sparse"}, KH_ERR_ARGUMENT, {"sparse", "full"}},
};

static void wrong_wishes_are_refused(void **state)
{
    (void)state;
    kh_model *model = good_model(0);
    uint64_t live = kh_alloc_get_stats().live;
    for (size_t i = 0; i < sizeof wishes / sizeof *wishes; i++) {
        kh_session *s = (kh_session *)(void *)&live;
        assert_int_equal(kh_session_open(&s, model, &wishes[i].options), wishes[i].status);
        assert_null(s);
        for (int w = 0; w < 2 && wishes[i].words[w]; w++)
            if (!strstr(kh_last_error(), wishes[i].words[w]))
                fail_msg("wish %zu: '%s' lacks '%s'", i, kh_last_error(), wishes[i].words[w]);
        kh_memory_need need;
        assert_int_equal(kh_model_memory(model, &wishes[i].options, &need), wishes[i].status);
        assert_int_equal(kh_alloc_get_stats().live, live);
    }
    kh_model_close(model);
    /* heads of 16: no whole group of a q8_0 cache */
    GOOD(open_with(&model, &(change){0}, 0));
    kh_model_close(model);
    model = open_model(golden_path("tiny/llama.gguf"));
    if (kh_model_get_info(model)->head_width % 32 != 0) {
        kh_session *s = NULL;
        kh_session_options q8 = {.v_type = KH_CACHE_Q8_0};
        assert_int_equal(kh_session_open(&s, model, &q8), KH_ERR_UNSUPPORTED);
        assert_non_null(strstr(kh_last_error(), "multiple of 32"));
        assert_null(s);
    }
    kh_model_close(model);
}

static void wrong_prompts_change_nothing(void **state)
{
    (void)state;
    kh_model *model = good_model(0);
    int32_t ids[CONTEXT + 1], *none = NULL;
    size_t n = 1;
    for (int i = 0; i <= CONTEXT; i++) ids[i] = i;
    kh_session *s = open_session(model, &(kh_session_options){.threads = 1, .batch = 7});
    kh_generate_options g = {.max_tokens = 1};
    kh_generate_result made;
    /* an empty prompt is read, and leaves nothing to answer */
    GOOD(kh_model_tokenize(model, "", 0, 0, &none, &n));
    assert_int_equal(n, 0);
    GOOD(kh_session_read(s, none, 0, NULL));
    kh_free_ids(none);
    assert_null(kh_session_logits(s));
    assert_int_equal(kh_generate(s, &g, &made), KH_ERR_STATE);
    /* too long, from the start and later on */
    assert_int_equal(kh_session_read(s, ids, CONTEXT + 1, NULL), KH_ERR_CONTEXT);
    assert_non_null(strstr(kh_last_error(), "49 tokens"));
    GOOD(kh_session_read(s, ids, 10, NULL));
    assert_int_equal(kh_session_read(s, ids, CONTEXT - 9, NULL), KH_ERR_CONTEXT);
    /* ids that do not exist, in the last place */
    static const int32_t bad[] = {-1, V, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < 4; i++) {
        int32_t two[] = {1, bad[i]};
        assert_int_equal(kh_session_read(s, two, 2, NULL), KH_ERR_ARGUMENT);
        assert_non_null(strstr(kh_last_error(), "token 1"));
    }
    assert_int_equal(kh_session_length(s), 10);
    assert_non_null(kh_session_logits(s));
    assert_int_equal(kh_session_shift(s, 5, 6), KH_ERR_ARGUMENT);
    assert_int_equal(kh_session_shift(s, SIZE_MAX, 1), KH_ERR_ARGUMENT);
    assert_int_equal(kh_session_shift(s, 5, SIZE_MAX), KH_ERR_ARGUMENT);
    assert_int_equal(kh_session_rewind(s, 11), KH_ERR_ARGUMENT);
    assert_int_equal(kh_session_length(s), 10);
    GOOD(kh_generate(s, &g, &made));
    kh_session_close(s);
    kh_model_close(model);
}

static void wrong_samplers_are_refused(void **state)
{
    (void)state;
    static const kh_logit_bias beyond = {V, 1}, below = {-1, 1};
    static const struct {
        kh_sampler_options options;
        const char *word;
    } wrong[] = {{{.temperature = -1}, "temperature"},
                 {{.temperature = NAN}, "temperature"},
                 {{.temperature = INFINITY}, "temperature"},
                 {{.top_k = -1}, "top-k"},
                 {{.top_p = 1.5f}, "top-p"},
                 {{.top_p = NAN}, "top-p"},
                 {{.min_p = -0.1f}, "min-p"},
                 {{.repeat_penalty = NAN}, "repeat-penalty"},
                 {{.bias = &beyond, .bias_count = 1}, "logit-bias"},
                 {{.bias = &below, .bias_count = 1}, "logit-bias"}};
    kh_model *model = good_model(0);
    kh_session *s = open_session(model, &(kh_session_options){.threads = 1});
    GOOD(kh_session_read(s, (int32_t[]){1, 2}, 2, NULL));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        kh_generate_options g = {.sampler = wrong[i].options, .max_tokens = 1};
        kh_generate_result made;
        uint64_t live = kh_alloc_get_stats().live;
        assert_int_equal(kh_generate(s, &g, &made), KH_ERR_ARGUMENT);
        assert_non_null(strstr(kh_last_error(), wrong[i].word));
        assert_int_equal(kh_alloc_get_stats().live, live);
    }
    kh_session_close(s);
    kh_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_change_gives_one_sentence),
        cmocka_unit_test(absurd_numbers_still_answer),
        cmocka_unit_test(padding_is_never_said),
        cmocka_unit_test(a_huge_context_costs_what_is_used),
        cmocka_unit_test(a_model_beyond_the_memory_says_so),
        cmocka_unit_test(wrong_wishes_are_refused),
        cmocka_unit_test(wrong_prompts_change_nothing),
        cmocka_unit_test(wrong_samplers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
