/* Models from nothing.
 *
 *     options -> numbers (the architecture's usual ones where nothing is said)
 *             -> values under GGUF's keys -> kh_describe, which bounds them as it does a file's
 *             -> kh_slots_list: every tensor that binding will ask for
 *             -> one allocation, drawn tensor by tensor (train/init.c)
 *
 *     weights | tensor | tensor | ... |     each begins at a multiple of 16 numbers; the file's own
 *
 * So there is one list of tensors and one of keys: those that reading has. What comes out is a model that was
 * never a file: it is trained (train/params.h), run or written like any other.
 *
 * A vocabulary without text (a generated task) becomes user-defined pieces of a tokenizer that merges by score
 * and has nothing to merge: texts of such pieces are read, everything else is id 0. */
#include "train/scratch.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "cpu/cpu.h"
#include "tokens/tokenizer.h"

#include <stdio.h>
#include <string.h>

enum { ALIGN = 16, PIECE = 24 };

/* What an architecture usually has: a small published model of it. */
typedef struct usual {
    const char *name;
    int layers, width, heads, key_heads, head_width, ff, context;
    int types, window, quarter; /* quarter 1: a quarter of a head rotates */
    int head, biases;           /* 1: has them */
    int experts, used, expert_ff, shared_ff;
    double eps, base;
} usual;

static const usual usuals[] = {
    {"llama", 30, 576, 9, 3, 0, 1536, 8192, .used = 2, .eps = 1e-5, .base = 1e5},
    {"phi3", 32, 3072, 32, 32, 0, 8192, 4096, .head = 1, .eps = 1e-5, .base = 1e4},
    {"qwen2", 24, 896, 14, 2, 0, 4864, 32768, .eps = 1e-6, .base = 1e6},
    {"qwen2moe", 24, 2048, 16, 16, 0, 5632, 8192, .head = 1, .experts = 60, .used = 4,
     .expert_ff = 1408, .shared_ff = 5632, .eps = 1e-6, .base = 1e6},
    {"qwen3", 28, 1024, 16, 8, 128, 3072, 40960, .eps = 1e-6, .base = 1e6},
    {"qwen3moe", 48, 2048, 32, 4, 128, 6144, 40960, .head = 1, .experts = 128, .used = 8,
     .expert_ff = 768, .shared_ff = -1, .eps = 1e-6, .base = 1e6},
    {"gemma2", 26, 2304, 8, 4, 256, 9216, 8192, .window = 4096, .eps = 1e-6, .base = 1e4},
    {"gemma3", 18, 640, 4, 1, 256, 2048, 32768, .window = 512, .eps = 1e-6, .base = 1e6},
    {"gpt2", 12, 768, 12, 12, 0, 3072, 1024, .eps = 1e-5},
    {"gptneox", 6, 512, 8, 8, 0, 2048, 2048, .quarter = 1, .head = 1, .biases = 1, .eps = 1e-5,
     .base = 1e4},
    {"bert", 12, 768, 12, 12, 0, 3072, 512, .types = 2, .eps = 1e-12},
    {"nomic-bert", 12, 768, 12, 12, 0, 3072, 2048, .types = 2, .eps = 1e-12, .base = 1e3},
    {"lra", 4, 512, 8, 8, 0, 1024, 2000, .eps = 1e-6},
    {"t5", 6, 512, 8, 8, 64, 2048, 512, .eps = 1e-6},
    {"t5encoder", 6, 512, 8, 8, 64, 2048, 512, .eps = 1e-6},
};

/* Options whose zeros were replaced, and what was made of them. */
typedef struct scratch {
    kh_scratch_options o;
    const kh_family *family;
    usual usual;
    unsigned parts;
    kh_sizes sizes;
    kh_description d;
    kh_pool pool;
    kh_gguf *file;
    float *weights, *at;
    size_t count;
} scratch;

/* ---- numbers */

static void settle(int *number, int initial)
{
    if (*number == 0) *number = initial;
}

static int share(int number, int of, int whole)
{
    int64_t n = ((int64_t)number * of + whole / 2) / whole;
    return n < 1 ? 1 : n < INT32_MAX ? (int)n : INT32_MAX;
}

static kh_status settle_heads(kh_scratch_options *o, const usual *u)
{
    int same = o->width == u->width;
    settle(&o->heads,
           same && !o->head_width ? u->heads : o->width / (o->head_width > 0 ? o->head_width : 64));
    settle(&o->heads, 1);
    if (o->key_heads == 0) {
        o->key_heads = share(o->heads, u->key_heads, u->heads);
        if (o->heads % o->key_heads != 0) o->key_heads = o->heads;
    }
    if (same) settle(&o->head_width, u->head_width);
    if (o->head_width == 0 && o->heads > 0 && o->width % o->heads != 0)
        KH_FAIL(KH_ERR_ARGUMENT,
                "scratch: width %d is no multiple of %d heads: say how wide a head is", o->width,
                o->heads);
    if (o->head_width == 0 && o->heads > 0) o->head_width = o->width / o->heads;
    return KH_OK;
}

static kh_status settle_numbers(scratch *s)
{
    kh_scratch_options *o = &s->o;
    const usual *u = &s->usual;
    settle(&o->layers, u->layers);
    settle(&o->encoder_layers, o->layers);
    settle(&o->width, u->width);
    KH_TRY(settle_heads(o, u));
    settle(&o->ff, o->width == u->width ? u->ff : (share(u->ff, o->width, u->width) + 7) / 8 * 8);
    settle(&o->context, u->context);
    settle(&o->types, u->types);
    settle(&o->window, u->window);
    settle(&o->rotated, u->quarter ? (o->head_width / 4 + 1) / 2 * 2 : o->head_width);
    settle(&o->buckets, 32);
    settle(&o->max_distance, o->buckets > 128 ? o->buckets : 128);
    settle(&o->experts, u->experts);
    settle(&o->experts_used, u->used < o->experts ? u->used : o->experts);
    settle(&o->expert_ff, u->expert_ff ? share(u->expert_ff, o->width, u->width) : o->ff);
    settle(&o->shared_ff, u->shared_ff > 0 ? share(u->shared_ff, o->width, u->width) : -1);
    settle(&o->towers, 1);
    if (o->norm_eps == 0) o->norm_eps = u->eps;
    if (o->rope_base == 0) o->rope_base = u->base;
    return KH_OK;
}

/* What kh_describe would find wrong in metadata is said here in the words of the options. */
static kh_status check_numbers(const scratch *s)
{
    const kh_scratch_options *o = &s->o;
    const struct {
        const char *name;
        int value, least, most;
    } all[] = {{"layers", o->layers, 1, KH_MAX_LAYERS},
               {"encoder_layers", o->encoder_layers, 1, KH_MAX_LAYERS},
               {"width", o->width, 1, KH_MAX_WIDTH},
               {"heads", o->heads, 1, 4096},
               {"key_heads", o->key_heads, 1, 4096},
               {"head_width", o->head_width, 1, KH_ROPE_MAX},
               {"ff", o->ff, 1, 8 * KH_MAX_WIDTH},
               {"vocabulary", o->vocabulary, 1, KH_MAX_VOCABULARY},
               {"context", o->context, 1, 1 << 30},
               {"types", o->types, -1, 1 << 10},
               {"window", o->window, -1, 1 << 30},
               {"rotated", o->rotated, 1, KH_ROPE_MAX},
               {"buckets", o->buckets, 4, 1 << 16},
               {"max_distance", o->max_distance, 4, 1 << 30},
               {"experts", o->experts, 0, KH_MAX_EXPERTS},
               {"experts_used", o->experts_used, 0, KH_MAX_EXPERTS_USED},
               {"expert_ff", o->expert_ff, 1, 8 * KH_MAX_WIDTH},
               {"shared_ff", o->shared_ff, -1, 8 * KH_MAX_WIDTH},
               {"classes", o->classes, 0, 1 << 20},
               {"towers", o->towers, 1, 4},
               {"class_dense", o->class_dense, 0, KH_MAX_WIDTH},
               {"class_inner", o->class_inner, 0, KH_MAX_WIDTH},
               {"threads", o->threads, 0, 1024}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].value < all[i].least || all[i].value > all[i].most)
            KH_FAIL(KH_ERR_ARGUMENT, "scratch: %s: a number from %d to %d is expected, found %d",
                    all[i].name, all[i].least, all[i].most, all[i].value);
    if (o->towers == 3) KH_FAIL(KH_ERR_ARGUMENT, "scratch: towers: 1, 2 or 4 is expected, found 3");
    if (o->class_inner > 0 && o->class_dense == 0)
        KH_FAIL(KH_ERR_ARGUMENT, "scratch: class_inner is behind class_dense, which is 0");
    if (o->class_act && strcmp(o->class_act, "tanh") != 0 && strcmp(o->class_act, "relu") != 0)
        KH_FAIL(KH_ERR_ARGUMENT, "scratch: class_act: tanh or relu is expected, found \"%.40s\"",
                o->class_act);
    if (o->init.zero_row < 0 || o->init.zero_row > o->vocabulary)
        KH_FAIL(KH_ERR_ARGUMENT, "scratch: zero_row: a number from 0 to %d is expected, found %d",
                o->vocabulary, o->init.zero_row);
    return KH_OK;
}

/* ---- parts */

typedef struct wish {
    const char *what;
    kh_scratch_choice choice;
    unsigned bits;
    int usual;
} wish;

static kh_status choose(scratch *s, const wish *w)
{
    const kh_family *f = s->family;
    if (w->choice == KH_SCRATCH_WITH && !((f->parts | f->optional) & w->bits))
        KH_FAIL(KH_ERR_UNSUPPORTED, "scratch: a %s model has no %s", f->name, w->what);
    if (w->choice == KH_SCRATCH_WITHOUT && (f->parts & w->bits))
        KH_FAIL(KH_ERR_UNSUPPORTED, "scratch: a %s model always has %s", f->name, w->what);
    if (w->choice == KH_SCRATCH_WITH || (w->choice == KH_SCRATCH_USUAL && w->usual))
        s->parts |= w->bits & f->optional;
    return KH_OK;
}

static kh_status choose_parts(scratch *s)
{
    const kh_scratch_options *o = &s->o;
    const kh_family *f = s->family;
    const wish wishes[] = {
        {"output head of its own", o->head, KH_PART_HEAD, s->usual.head},
        {"biases", o->biases, KH_PART_QKV_BIAS | KH_PART_OUT_BIAS | KH_PART_FF_BIAS,
         s->usual.biases},
        {"gate", o->gate, KH_PART_GATE, 0},
        {"head that predicts masked tokens", o->mask_head, KH_PART_MASK_HEAD, 0},
        {"embeddings of several texts", o->types > 0 ? KH_SCRATCH_WITH : KH_SCRATCH_WITHOUT,
         KH_PART_TYPES, 0},
        {"experts", o->experts > 0 ? KH_SCRATCH_WITH : KH_SCRATCH_WITHOUT, KH_PART_EXPERTS, 0},
        {"shared expert", o->experts > 0 && o->shared_ff > 0 ? KH_SCRATCH_WITH : KH_SCRATCH_WITHOUT,
         KH_PART_SHARED, 0}};
    for (size_t i = 0; i < sizeof wishes / sizeof *wishes; i++) KH_TRY(choose(s, &wishes[i]));
    if (f->structure == KH_ENCODER && o->head == KH_SCRATCH_WITH && !(s->parts & KH_PART_MASK_HEAD))
        KH_FAIL(KH_ERR_ARGUMENT,
                "scratch: the output head of an encoder belongs to the head that predicts masked "
                "tokens");
    s->o.init.sinusoids = o->fixed_positions == KH_SCRATCH_WITH ||
                          (!o->fixed_positions && strcmp(f->name, "lra") == 0);
    if (o->fixed_positions == KH_SCRATCH_WITH && f->positions != KH_POSITIONS_LEARNED)
        KH_FAIL(KH_ERR_UNSUPPORTED, "scratch: a %s model has no embeddings of positions", f->name);
    if (o->window > 0 && f->window_period == 0)
        KH_FAIL(KH_ERR_UNSUPPORTED, "scratch: a %s model has no windows", f->name);
    if (o->act && !f->open_act)
        KH_FAIL(KH_ERR_UNSUPPORTED, "scratch: the activation of a %s model is not open", f->name);
    if (o->classes > 0 && f->structure == KH_ENCODER_DECODER)
        KH_FAIL(KH_ERR_UNSUPPORTED, "scratch: a %s model has no head for classes", f->name);
    s->sizes = (kh_sizes){.context = (size_t)o->context, .types = o->types > 0 ? o->types : 0};
    if (o->classes == 0) return KH_OK;
    s->parts |= KH_PART_CLASSES;
    s->sizes.features = (size_t)o->towers * (size_t)o->width;
    s->sizes.dense = (size_t)o->class_dense;
    s->sizes.inner = (size_t)o->class_inner;
    s->sizes.classes = (size_t)o->classes;
    return KH_OK;
}

/* ---- values */

typedef struct key {
    char text[96];
} key;

static key key_of(const scratch *s, const char *field)
{
    key k;
    snprintf(k.text, sizeof k.text, "%s.%s", s->family->name, field);
    return k;
}

static kh_status set_int(const scratch *s, kh_gguf *out, const char *field, int value)
{
    return kh_gguf_set_u64(out, key_of(s, field).text, KH_GGUF_U32, (uint64_t)value);
}

static kh_status set_text(kh_gguf *out, const char *name, const char *text)
{
    return kh_gguf_set_string(out, name, (kh_slice){text, strlen(text)});
}

static kh_status set_shape(const scratch *s, kh_gguf *out)
{
    const kh_scratch_options *o = &s->o;
    int behind = s->family->structure == KH_ENCODER_DECODER;
    KH_TRY(set_int(s, out, "block_count", behind ? o->encoder_layers : o->layers));
    if (behind) KH_TRY(set_int(s, out, "decoder_block_count", o->layers));
    KH_TRY(set_int(s, out, "context_length", o->context));
    KH_TRY(set_int(s, out, "embedding_length", o->width));
    KH_TRY(set_int(s, out, "feed_forward_length", o->ff));
    KH_TRY(set_int(s, out, "attention.head_count", o->heads));
    KH_TRY(set_int(s, out, "attention.head_count_kv", o->key_heads));
    if (o->heads * (int64_t)o->head_width != o->width || s->usual.head_width > 0) {
        KH_TRY(set_int(s, out, "attention.key_length", o->head_width));
        KH_TRY(set_int(s, out, "attention.value_length", o->head_width));
    }
    KH_TRY(set_int(s, out, "vocab_size", o->vocabulary));
    const char *eps = s->family->norm == KH_NORM_RMS ? "attention.layer_norm_rms_epsilon"
                                                     : "attention.layer_norm_epsilon";
    KH_TRY(kh_gguf_set_f32(out, key_of(s, eps).text, (float)o->norm_eps));
    if (s->family->positions != KH_POSITIONS_ROTARY) return KH_OK;
    KH_TRY(set_int(s, out, "rope.dimension_count", o->rotated));
    return kh_gguf_set_f32(out, key_of(s, "rope.freq_base").text, (float)o->rope_base);
}

static kh_status set_experts(const scratch *s, kh_gguf *out)
{
    const kh_scratch_options *o = &s->o;
    if (o->experts == 0) return KH_OK;
    KH_TRY(set_int(s, out, "expert_count", o->experts));
    KH_TRY(set_int(s, out, "expert_used_count", o->experts_used));
    KH_TRY(kh_gguf_set_u64(out, key_of(s, "expert_weights_norm").text, KH_GGUF_BOOL,
                           !s->family->raw_shares));
    if (o->expert_ff != o->ff) KH_TRY(set_int(s, out, "expert_feed_forward_length", o->expert_ff));
    if (s->parts & KH_PART_SHARED)
        KH_TRY(set_int(s, out, "expert_shared_feed_forward_length", o->shared_ff));
    return KH_OK;
}

static kh_status set_encoder(const scratch *s, kh_gguf *out)
{
    const kh_scratch_options *o = &s->o;
    int encoder = s->family->structure == KH_ENCODER, pooling = (int)o->pooling;
    settle(&pooling, encoder ? KH_SCRATCH_POOL_MEAN : KH_SCRATCH_POOL_LAST);
    if (encoder) KH_TRY(kh_gguf_set_u64(out, key_of(s, "attention.causal").text, KH_GGUF_BOOL, 0));
    if (encoder || o->pooling || o->classes > 0)
        KH_TRY(set_int(s, out, "pooling_type", pooling)); /* GGUF's numbers */
    if (s->parts & KH_PART_TYPES)
        KH_TRY(kh_gguf_set_u64(out, "tokenizer.ggml.token_type_count", KH_GGUF_U32,
                               (uint64_t)o->types));
    if (o->act) KH_TRY(set_text(out, key_of(s, "hidden_activation").text, o->act));
    if (o->classes > 0) KH_TRY(set_int(s, out, "classifier.classes", o->classes));
    if (s->sizes.dense == 0 || o->classes == 0) return KH_OK;
    return set_text(out, key_of(s, "classifier.activation").text,
                    o->class_act ? o->class_act : "tanh");
}

/* What only one architecture has. */
static kh_status set_own(const scratch *s, kh_gguf *out)
{
    const kh_scratch_options *o = &s->o;
    const char *name = s->family->name;
    if (o->window > 0) KH_TRY(set_int(s, out, "attention.sliding_window", o->window));
    if (strcmp(name, "gemma2") == 0) {
        KH_TRY(kh_gguf_set_f32(out, "gemma2.attn_logit_softcapping", 50));
        KH_TRY(kh_gguf_set_f32(out, "gemma2.final_logit_softcapping", 30));
    }
    if (strcmp(name, "gptneox") == 0)
        KH_TRY(kh_gguf_set_u64(out, "gptneox.use_parallel_residual", KH_GGUF_BOOL, 1));
    if (o->init.sinusoids)
        KH_TRY(kh_gguf_set_u64(out, key_of(s, "position_embedding.fixed").text, KH_GGUF_BOOL, 1));
    if (s->family->positions != KH_POSITIONS_RELATIVE) return KH_OK;
    KH_TRY(set_int(s, out, "attention.relative_buckets_count", o->buckets));
    KH_TRY(set_int(s, out, "attention.relative_max_distance", o->max_distance));
    if (s->family->structure == KH_ENCODER_DECODER)
        KH_TRY(set_int(s, out, "decoder_start_token_id", 0));
    return KH_OK;
}

static kh_status set_values(const scratch *s, kh_gguf *out)
{
    KH_TRY(set_text(out, "general.architecture", s->family->name));
    if (s->o.name) KH_TRY(set_text(out, "general.name", s->o.name));
    KH_TRY(set_shape(s, out));
    KH_TRY(set_experts(s, out));
    KH_TRY(set_encoder(s, out));
    return set_own(s, out);
}

/* ---- tokens */

/* The last token begins texts, where one is asked for. */
static int has_cls(const kh_scratch_options *o)
{
    return o->cls == KH_SCRATCH_WITH;
}

static kh_status set_cls(const kh_scratch_options *o, kh_gguf *out)
{
    uint64_t id = (uint64_t)o->vocabulary - 1;
    KH_TRY(kh_gguf_set_u64(out, "tokenizer.ggml.bos_token_id", KH_GGUF_U32, id));
    return kh_gguf_set_u64(out, "tokenizer.ggml.cls_token_id", KH_GGUF_U32, id);
}

static kh_status set_piece_values(const kh_scratch_options *o, kh_gguf *out, kh_slice *pieces,
                                  int32_t *kinds, float *scores, size_t V)
{
    KH_TRY(set_text(out, "tokenizer.ggml.model", "llama"));
    KH_TRY(kh_gguf_set_strings(out, "tokenizer.ggml.tokens", pieces, V));
    KH_TRY(kh_gguf_set_array(out, "tokenizer.ggml.scores", KH_GGUF_F32, scores, V));
    KH_TRY(kh_gguf_set_array(out, "tokenizer.ggml.token_type", KH_GGUF_I32, kinds, V));
    KH_TRY(kh_gguf_set_u64(out, "tokenizer.ggml.unknown_token_id", KH_GGUF_U32, 0));
    KH_TRY(
        kh_gguf_set_u64(out, "tokenizer.ggml.add_bos_token", KH_GGUF_BOOL, (uint64_t)has_cls(o)));
    if (has_cls(o)) KH_TRY(set_cls(o, out));
    KH_TRY(kh_gguf_set_u64(out, "tokenizer.ggml.add_eos_token", KH_GGUF_BOOL, 0));
    return kh_gguf_set_u64(out, "tokenizer.ggml.add_space_prefix", KH_GGUF_BOOL, 0);
}

static kh_status set_pieces(const scratch *s, kh_gguf *out)
{
    size_t V = (size_t)s->o.vocabulary;
    kh_slice *pieces = NULL;
    int32_t *kinds = NULL;
    float *scores = NULL;
    char *names = NULL;
    kh_status status = kh_new(&pieces, V, sizeof *pieces, "a vocabulary");
    if (status == KH_OK) status = kh_new(&kinds, V, sizeof *kinds, "a vocabulary");
    if (status == KH_OK) status = kh_new(&scores, V, sizeof *scores, "a vocabulary");
    if (status == KH_OK) status = kh_new(&names, V, PIECE, "a vocabulary");
    for (size_t i = 0; status == KH_OK && i < V; i++) {
        int cls = has_cls(&s->o) && i == V - 1;
        const char *piece = cls ? "<cls>" : s->o.pieces ? s->o.pieces[i] : names + i * PIECE;
        kinds[i] = cls ? KH_TOKEN_CONTROL : KH_TOKEN_USER;
        if (!s->o.pieces) snprintf(names + i * PIECE, PIECE, "<%zu>", i);
        pieces[i] = (kh_slice){piece, strlen(piece)};
    }
    if (status == KH_OK) status = set_piece_values(&s->o, out, pieces, kinds, scores, V);
    kh_free(names);
    kh_free(scores);
    kh_free(kinds);
    kh_free(pieces);
    return status;
}

/* How many tokens `words` has decides where nothing else is said. */
static kh_status settle_vocabulary(kh_scratch_options *o)
{
    const kh_gguf_value *tokens = o->words ? kh_gguf_find(o->words, "tokenizer.ggml.tokens") : NULL;
    if (o->words && (!tokens || tokens->kind != KH_GGUF_ARRAY ||
                     tokens->element != KH_GGUF_STRING || tokens->count > KH_MAX_VOCABULARY))
        KH_FAIL(KH_ERR_FORMAT, "%s: tokenizer.ggml.tokens: 1 to %d texts are expected",
                kh_gguf_path(o->words), KH_MAX_VOCABULARY);
    int count = tokens ? (int)tokens->count : 0;
    settle(&o->vocabulary, count);
    if (o->cls == KH_SCRATCH_WITH && o->vocabulary > 0 && o->vocabulary < INT32_MAX) {
        o->vocabulary++;
        settle(&o->init.zero_row, o->vocabulary);
        if (!o->pooling) o->pooling = KH_SCRATCH_POOL_FIRST;
    }
    if (o->cls == KH_SCRATCH_WITH && o->words)
        KH_FAIL(KH_ERR_ARGUMENT, "scratch: cls: a tokenizer says itself what a text begins with");
    if (o->vocabulary < count)
        KH_FAIL(KH_ERR_ARGUMENT, "scratch: vocabulary: %d for a tokenizer of %d tokens",
                o->vocabulary, count);
    return KH_OK;
}

/* ---- tensors */

static size_t elements(const kh_slot_tensor *t)
{
    return (t->dims[0] * t->dims[1] * t->dims[2] + ALIGN - 1) / ALIGN * ALIGN;
}

static kh_status count_tensor(void *context, const kh_slot_tensor *t)
{
    scratch *s = context;
    s->count += elements(t); /* dimensions are at most 2^23, 2^23 and 2^10: no overflow of one */
    if (s->count > kh_cpu_memory() / sizeof(float))
        KH_FAIL(KH_ERR_MEMORY,
                "scratch: the weights need more than the %.1f GB of memory that this machine has",
                (double)kh_cpu_memory() * 1e-9);
    return KH_OK;
}

static kh_status add_tensor(void *context, const kh_slot_tensor *t)
{
    scratch *s = context;
    const uint64_t dims[3] = {t->dims[0], t->dims[1], t->dims[2]};
    KH_TRY(kh_init_tensor(s->at, &s->o.init, s->family, &s->d, t, &s->pool));
    KH_TRY(kh_gguf_add_tensor(s->file, t->name, KH_TYPE_F32, t->n_dims, dims, s->at));
    s->at += elements(t);
    return KH_OK;
}

/* The numbers as a reader understands them. */
static kh_status describe(scratch *s)
{
    kh_gguf *sketch;
    const uint64_t dims[2] = {(uint64_t)s->o.width, (uint64_t)s->o.vocabulary};
    KH_TRY(kh_gguf_new(&sketch, "scratch"));
    kh_status status = set_values(s, sketch);
    if (status == KH_OK)
        status = kh_gguf_add_tensor(sketch, "token_embd.weight", KH_TYPE_F32, 2, dims, NULL);
    if (status == KH_OK) status = kh_describe(&s->d, s->family, sketch);
    kh_gguf_close(sketch);
    return status;
}

static void free_weights(void *weights)
{
    kh_free(weights);
}

static kh_status compose(scratch *s)
{
    KH_TRY(describe(s));
    KH_TRY(kh_slots_list(s->family, &s->d, &s->sizes, s->parts, count_tensor, s));
    KH_TRY(kh_gguf_new(&s->file, s->o.name ? s->o.name : "scratch"));
    KH_TRY(set_values(s, s->file));
    KH_TRY(s->o.words ? kh_tokenizer_copy_values(s->file, s->o.words, (size_t)s->o.vocabulary)
                      : set_pieces(s, s->file));
    KH_TRY(kh_new(&s->weights, s->count, sizeof *s->weights, "the weights of a model"));
    KH_TRY(kh_gguf_keep(s->file, free_weights, s->weights));
    s->at = s->weights;
    return kh_slots_list(s->family, &s->d, &s->sizes, s->parts, add_tensor, s);
}

static kh_status settle_all(scratch *s)
{
    kh_scratch_options *o = &s->o;
    if (!o->architecture) o->architecture = "llama";
    s->family = kh_family_find(o->architecture, strlen(o->architecture));
    for (size_t i = 0; i < sizeof usuals / sizeof *usuals; i++)
        if (strcmp(usuals[i].name, o->architecture) == 0) s->usual = usuals[i];
    if (!s->family || !s->usual.name)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "scratch: the architecture \"%.40s\" is not supported (known: %s)", o->architecture,
                kh_family_names());
    KH_TRY(kh_init_check(&o->init.name, &o->init, s->family));
    KH_TRY(settle_vocabulary(o));
    KH_TRY(settle_numbers(s));
    KH_TRY(check_numbers(s));
    s->pool.threads = o->threads > 0 ? o->threads : kh_cpu_count();
    return choose_parts(s);
}

kh_status kh_scratch_open(kh_gguf **out, const kh_scratch_options *options)
{
    scratch s = {.o = *options};
    *out = NULL;
    KH_TRY(settle_all(&s));
    kh_status status = compose(&s);
    if (status == KH_OK)
        *out = s.file;
    else
        kh_gguf_close(s.file);
    return status;
}
