/* The numbers of a model, from its metadata.
 *
 * Keys are "{architecture}.{name}" (GGUF's naming). Everything that a later loop trusts is bounded
 * here: counts, widths, group sizes, head widths, window patterns. What most families share is read in
 * one place; a family's own describe() then adds its exceptions (scales, windows, a second rope base).
 *
 * Rope scaling follows the metadata: "linear" and "yarn" by {arch}.rope.scaling.*; the frequency
 * factors of Llama 3 come as a tensor (rope_freqs.weight), those of Phi 3 as two (rope_factors_short and
 * _long), which kh_model_open puts into the specs. */
#include "base/fail.h"
#include "model/description.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct reader {
    const kh_gguf *file;
    const char *arch;
    char key[128];
} reader;

static const char *name(reader *r, const char *field)
{
    snprintf(r->key, sizeof r->key, "%s.%s", r->arch, field);
    return r->key;
}

static kh_status need_int(reader *r, const char *field, int *out, uint64_t max)
{
    uint64_t value = 0;
    KH_TRY(kh_gguf_u64(r->file, name(r, field), &value, max));
    if (value == 0) KH_FAIL(KH_ERR_FORMAT, "%s: a positive number is expected, found 0", r->key);
    *out = (int)value;
    return KH_OK;
}

static kh_status opt_int(reader *r, const char *field, int *out, uint64_t max)
{
    uint64_t value = (uint64_t)*out;
    KH_TRY(kh_gguf_opt_u64(r->file, name(r, field), &value, max));
    *out = (int)value;
    return KH_OK;
}

static kh_status opt_real(reader *r, const char *field, double *out)
{
    KH_TRY(kh_gguf_opt_f64(r->file, name(r, field), out));
    if (!isfinite(*out)) KH_FAIL(KH_ERR_FORMAT, "%s: a finite number is expected", r->key);
    return KH_OK;
}

/* A count that some files give per layer: all layers must agree, since the cache has one shape. It
 * stays as it is where the file says nothing, and is positive in the end. */
static kh_status uniform_int(reader *r, const char *field, int *out, uint64_t max)
{
    const kh_gguf_value *value = kh_gguf_find(r->file, name(r, field));
    if (!value || value->kind != KH_GGUF_ARRAY) KH_TRY(opt_int(r, field, out, max));
    for (uint64_t i = 0; value && value->kind == KH_GGUF_ARRAY && i < value->count; i++) {
        uint64_t x = 0;
        KH_TRY(kh_gguf_element_u64(value, i, &x));
        if (i > 0 && x != (uint64_t)*out)
            KH_FAIL(KH_ERR_UNSUPPORTED,
                    "%s: layers of different shapes are not supported, found %d and %llu", r->key,
                    *out, (unsigned long long)x);
        if (x > max)
            KH_FAIL(KH_ERR_FORMAT, "%s: at most %llu is expected, found %llu", r->key,
                    (unsigned long long)max, (unsigned long long)x);
        *out = (int)x;
    }
    if (*out <= 0) KH_FAIL(KH_ERR_FORMAT, "%s: a positive number is expected, found 0", r->key);
    return KH_OK;
}

static kh_status read_head_width(reader *r, kh_description *d)
{
    d->E = d->D / d->H;
    KH_TRY(opt_int(r, "attention.key_length", &d->E, KH_MAX_WIDTH));
    int value_width = d->E;
    KH_TRY(opt_int(r, "attention.value_length", &value_width, KH_MAX_WIDTH));
    if (value_width != d->E)
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s: values as wide as the keys are expected (%d), found %d",
                r->key, d->E, value_width);
    int rotary = d->positions == KH_POSITIONS_ROTARY;
    if (d->E < 1 || d->E > KH_ROPE_MAX || (rotary && d->E % 2 != 0))
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "%s.attention.key_length (or embedding_length / attention.head_count): %s number "
                "from %d to %d is expected, found %d",
                r->arch, rotary ? "an even" : "a", 1 + rotary, KH_ROPE_MAX, d->E);
    return KH_OK;
}

static kh_status read_shape(reader *r, kh_description *d)
{
    KH_TRY(need_int(r, "block_count", &d->N, KH_MAX_LAYERS));
    KH_TRY(need_int(r, "embedding_length", &d->D, KH_MAX_WIDTH));
    KH_TRY(need_int(r, "context_length", &d->context, 1 << 30));
    KH_TRY(opt_int(r, "expert_feed_forward_length", &d->F, 8 * KH_MAX_WIDTH));
    KH_TRY(uniform_int(r, "feed_forward_length", &d->F, 8 * KH_MAX_WIDTH));
    KH_TRY(uniform_int(r, "attention.head_count", &d->H, 4096));
    d->G = d->H;
    KH_TRY(uniform_int(r, "attention.head_count_kv", &d->G, 4096));
    if (d->H % d->G != 0)
        KH_FAIL(KH_ERR_FORMAT, "%s: a divisor of the %d heads is expected, found %d", r->key, d->H,
                d->G);
    KH_TRY(read_head_width(r, d));
    if (d->structure == KH_ENCODER_DECODER) {
        d->encoder_layers = d->N;
        KH_TRY(opt_int(r, "decoder_block_count", &d->N, KH_MAX_LAYERS));
        if (d->N < 1) KH_FAIL(KH_ERR_FORMAT, "%s: a positive number is expected, found 0", r->key);
    }
    const kh_tensor *embedding = kh_gguf_tensor(r->file, "token_embd.weight");
    if (!embedding) KH_FAIL(KH_ERR_FORMAT, "the file has no tensor token_embd.weight");
    if (embedding->dims[1] > KH_MAX_VOCABULARY)
        KH_FAIL(KH_ERR_FORMAT, "token_embd.weight: at most %d tokens are expected, found %llu",
                KH_MAX_VOCABULARY, (unsigned long long)embedding->dims[1]);
    d->V = (int)embedding->dims[1];
    return KH_OK;
}

static kh_status read_scaling(reader *r, kh_description *d, kh_rope_spec *rope)
{
    kh_slice type = {"none", 4};
    KH_TRY(kh_gguf_opt_string(r->file, name(r, "rope.scaling.type"), &type));
    rope->factor = 1;
    KH_TRY(opt_real(r, "rope.scaling.factor", &rope->factor));
    /* files from before rope.scaling.* */
    if (rope->factor == 1 && kh_gguf_find(r->file, name(r, "rope.scale_linear"))) {
        KH_TRY(opt_real(r, "rope.scale_linear", &rope->factor));
        type = (kh_slice){"linear", 6};
    }
    /* longrope: by the divisors of rope_factors_*.weight alone */
    if ((type.size == 4 && memcmp(type.data, "none", 4) == 0) ||
        (type.size == 8 && memcmp(type.data, "longrope", 8) == 0))
        rope->scaling = KH_ROPE_NONE;
    else if (type.size == 6 && memcmp(type.data, "linear", 6) == 0)
        rope->scaling = KH_ROPE_LINEAR;
    else if (type.size == 4 && memcmp(type.data, "yarn", 4) == 0)
        rope->scaling = KH_ROPE_YARN;
    else
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s: \"%.*s\" is not supported (none, linear, yarn, longrope)",
                name(r, "rope.scaling.type"), (int)(type.size < 64 ? type.size : 64), type.data);
    rope->original = d->context;
    rope->ext_factor = -1;
    KH_TRY(opt_real(r, "rope.scaling.original_context_length", &rope->original));
    KH_TRY(opt_real(r, "rope.scaling.attn_factor", &rope->attn_factor));
    KH_TRY(opt_real(r, "rope.scaling.yarn_ext_factor", &rope->ext_factor));
    KH_TRY(opt_real(r, "rope.scaling.yarn_attn_factor", &rope->attn_factor));
    KH_TRY(opt_real(r, "rope.scaling.yarn_beta_fast", &rope->beta_fast));
    KH_TRY(opt_real(r, "rope.scaling.yarn_beta_slow", &rope->beta_slow));
    if (!(rope->factor > 0))
        KH_FAIL(KH_ERR_FORMAT, "%s: a positive number is expected, found %g",
                name(r, "rope.scaling.factor"), rope->factor);
    if (!(rope->original > 0))
        KH_FAIL(KH_ERR_FORMAT, "%s: a positive number is expected, found %g",
                name(r, "rope.scaling.original_context_length"), rope->original);
    return KH_OK;
}

static kh_status read_rope(reader *r, kh_description *d, const kh_family *family)
{
    kh_rope_spec *rope = &d->rope[0];
    int n_rot = d->E;
    if (d->positions != KH_POSITIONS_ROTARY) return KH_OK;
    KH_TRY(opt_int(r, "rope.dimension_count", &n_rot, KH_MAX_WIDTH));
    if (n_rot < 2 || n_rot > d->E || n_rot % 2 != 0)
        KH_FAIL(KH_ERR_FORMAT,
                "%s: an even number from 2 to the head width %d is expected, found %d", r->key,
                d->E, n_rot);
    rope->style = family->rope_style;
    rope->n_rot = (size_t)n_rot;
    rope->base = 10000;
    KH_TRY(opt_real(r, "rope.freq_base", &rope->base));
    if (!(rope->base > 1))
        KH_FAIL(KH_ERR_FORMAT, "%s: a number above 1 is expected, found %g", r->key, rope->base);
    KH_TRY(read_scaling(r, d, rope));
    d->rope[1] = *rope;
    return KH_OK;
}

/* A mixture's numbers; the families that know none refuse one. */
static kh_status read_experts(reader *r, kh_description *d, const kh_family *family)
{
    kh_expert_spec *x = &d->experts;
    KH_TRY(opt_int(r, "expert_count", &x->count, 1 << 20));
    if (x->count == 0) return KH_OK;
    if (!(family->optional & KH_PART_EXPERTS))
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s: a %s model with experts is not supported, found %d",
                r->key, family->name, x->count);
    if (x->count > KH_MAX_EXPERTS)
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s: at most %d experts are supported, found %d", r->key,
                KH_MAX_EXPERTS, x->count);
    KH_TRY(need_int(r, "expert_used_count", &x->used, KH_MAX_EXPERTS_USED));
    if (x->used > x->count)
        KH_FAIL(KH_ERR_FORMAT, "%s: at most the %d experts are expected, found %d", r->key,
                x->count, x->used);
    x->F = d->F;
    x->act = d->act;
    x->renormalise = !family->raw_shares;
    KH_TRY(opt_int(r, "expert_feed_forward_length", &x->F, 8 * KH_MAX_WIDTH));
    x->shared_F = x->F;
    KH_TRY(opt_int(r, "expert_shared_feed_forward_length", &x->shared_F, 8 * KH_MAX_WIDTH));
    if (x->F < 1 || x->shared_F < 1)
        KH_FAIL(KH_ERR_FORMAT, "%s: a positive number is expected, found 0", r->key);
    return kh_gguf_opt_bool(r->file, name(r, "expert_weights_norm"), &x->renormalise);
}

/* Which layers see a window: as the file lists them or says the period, else as the family has it. */
static kh_status read_windows(reader *r, kh_description *d, const kh_family *family)
{
    int usual = family->window_period;
    uint64_t period = usual > 1 ? (uint64_t)usual : 0; /* 0: all layers */
    if (usual == 0) return KH_OK;
    KH_TRY(opt_int(r, "attention.sliding_window", &d->window, 1 << 30));
    const kh_gguf_value *pattern = kh_gguf_find(r->file,
                                                name(r, "attention.sliding_window_pattern"));
    int listed = pattern && pattern->kind == KH_GGUF_ARRAY;
    if (pattern && !listed) KH_TRY(kh_gguf_element_u64(pattern, 0, &period));
    for (int l = 0; l < d->N && d->window > 0; l++) {
        uint64_t at = (uint64_t)l, local = period == 0 || at % period != period - 1;
        if (!pattern && usual == KH_WINDOWS_LISTED) local = 0;
        if (listed) KH_TRY(kh_gguf_element_u64(pattern, at, &local));
        d->local[l] = local != 0;
    }
    return KH_OK;
}

static kh_status read_numbers(reader *r, kh_description *d)
{
    double eps = 0, softcap = 0, logit_softcap = 0, scale = 0;
    KH_TRY(kh_gguf_opt_f64(r->file,
                           name(r, d->norm == KH_NORM_RMS ? "attention.layer_norm_rms_epsilon"
                                                          : "attention.layer_norm_epsilon"),
                           &eps));
    if (!(eps > 0 && eps < 1))
        KH_FAIL(KH_ERR_FORMAT, "%s: a small positive number is expected, found %g", r->key, eps);
    KH_TRY(opt_real(r, "attn_logit_softcapping", &softcap));
    KH_TRY(opt_real(r, "final_logit_softcapping", &logit_softcap));
    KH_TRY(opt_real(r, "attention.scale", &scale));
    d->norm_eps = (float)eps;
    d->attn_softcap = (float)softcap;
    d->logit_softcap = (float)logit_softcap;
    d->attn_scale = scale > 0 ? (float)scale : 1.0f / sqrtf((float)d->E);
    return KH_OK;
}

static int is_text(kh_slice text, const char *word)
{
    return text.size == strlen(word) && memcmp(text.data, word, text.size) == 0;
}

/* GGUF's pooling: 1 mean, 2 first, 3 last; 0 none and 4 rank say that a head for classes reads the first row
 * of an encoder, the last of a decoder. */
static kh_status read_classes(reader *r, kh_description *d)
{
    int pooling = d->structure == KH_DECODER ? KH_POOLED_LAST : KH_POOLED_FIRST, found = pooling;
    kh_slice act = {"tanh", 4};
    KH_TRY(opt_int(r, "pooling_type", &found, 1 << 20));
    d->pooling = (kh_pooled)(found >= KH_POOLED_MEAN && found <= KH_POOLED_LAST ? found : pooling);
    KH_TRY(kh_gguf_opt_string(r->file, name(r, "classifier.activation"), &act));
    d->class_act = is_text(act, "relu") ? KH_CLASS_RELU : KH_CLASS_TANH;
    if (d->class_act == KH_CLASS_TANH && !is_text(act, "tanh"))
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s: \"%.*s\" is not supported (tanh, relu)",
                name(r, "classifier.activation"), (int)(act.size < 64 ? act.size : 64), act.data);
    return KH_OK;
}

/* hidden_activation is a word of ours, Hugging Face's name in it: files of llama.cpp never have it. */
static kh_status read_activation(reader *r, kh_description *d)
{
    static const struct {
        const char *name;
        kh_act act;
    } known[] = {{"gelu", KH_ACT_GELU_ERF},
                 {"gelu_new", KH_ACT_GELU_TANH},
                 {"gelu_pytorch_tanh", KH_ACT_GELU_TANH},
                 {"gelu_fast", KH_ACT_GELU_TANH},
                 {"relu", KH_ACT_RELU},
                 {"silu", KH_ACT_SILU}};
    kh_slice act = {"", 0};
    KH_TRY(kh_gguf_opt_string(r->file, name(r, "hidden_activation"), &act));
    if (act.size == 0) return KH_OK;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (is_text(act, known[i].name)) {
            d->act = known[i].act;
            return KH_OK;
        }
    KH_FAIL(KH_ERR_UNSUPPORTED, "%s: \"%.*s\" is not supported", r->key,
            (int)(act.size < 64 ? act.size : 64), act.data);
}

kh_status kh_describe(kh_description *out, const kh_family *family, const kh_gguf *file)
{
    *out = (kh_description){.structure = family->structure,
                            .norm = family->norm,
                            .form = family->form,
                            .positions = family->positions,
                            .act = family->act,
                            .embed_scale = 1,
                            .logit_scale = 1};
    reader r = {.file = file, .arch = family->name};
    KH_TRY(read_shape(&r, out));
    KH_TRY(read_rope(&r, out, family));
    KH_TRY(read_numbers(&r, out));
    KH_TRY(read_experts(&r, out, family));
    KH_TRY(read_windows(&r, out, family));
    KH_TRY(read_classes(&r, out));
    if (family->open_act) KH_TRY(read_activation(&r, out));
    return family->describe ? family->describe(out, file) : KH_OK;
}
