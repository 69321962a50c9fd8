/* Which type each tensor of a converted model gets: the mixes that people know by name.
 *
 * The names, the numbers of general.file_type and the choices are llama.cpp's, as facts: a file called
 * Q4_K_M has the same types in the same places whoever made it.
 *
 *     vectors, norms, routers, positions   F32: small, and every error in them counts for a whole layer
 *     output head (or the embedding that is one)    Q6_K, or Q8_0 where that is the type
 *     values of attention, ffn_down        more bits, in M and S mixes in some layers only
 *     other matrices                       the type that gives the mix its name
 *
 * "Some layers" of M: the first and the last eighth and every third between. A model of eight experts
 * has small attention: its keys and values get Q8_0. A group of 4 or more query heads for each value
 * head makes the values small and shared: Q2_K then gives them Q4_K.
 *
 * Rows that the blocks of 256 do not divide fall back to a type with blocks of 32 and about as many
 * bits or more; rows that 32 does not divide, to F16.
 *
 * A layer's number is the one in the tensor's name; both halves of an encoder-decoder count from 0. */
#include "api/convert_mix.h"

#include "base/fail.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static const kh_mix mixes[] = {
    {"F32", KH_TYPE_F32, 0, 0},        {"F16", KH_TYPE_F16, 1, 0},
    {"BF16", KH_TYPE_BF16, 32, 0},     {"Q8_0", KH_TYPE_Q8_0, 7, 0},
    {"Q4_0", KH_TYPE_Q4_0, 2, 0},      {"Q4_1", KH_TYPE_Q4_1, 3, 0},
    {"Q5_0", KH_TYPE_Q5_0, 8, 0},      {"Q5_1", KH_TYPE_Q5_1, 9, 0},
    {"Q2_K", KH_TYPE_Q2_K, 10, 'M'},   {"Q2_K_S", KH_TYPE_Q2_K, 21, 'S'},
    {"Q3_K_S", KH_TYPE_Q3_K, 11, 'S'}, {"Q3_K_M", KH_TYPE_Q3_K, 12, 'M'},
    {"Q3_K_L", KH_TYPE_Q3_K, 13, 'L'}, {"Q4_K_S", KH_TYPE_Q4_K, 14, 'S'},
    {"Q4_K_M", KH_TYPE_Q4_K, 15, 'M'}, {"Q5_K_S", KH_TYPE_Q5_K, 16, 'S'},
    {"Q5_K_M", KH_TYPE_Q5_K, 17, 'M'}, {"Q6_K", KH_TYPE_Q6_K, 18, 0},
    {"Q3_K", KH_TYPE_Q3_K, 12, 'M'},   {"Q4_K", KH_TYPE_Q4_K, 15, 'M'},
    {"Q5_K", KH_TYPE_Q5_K, 17, 'M'},
};

size_t kh_mix_count(void)
{
    return sizeof mixes / sizeof *mixes;
}

const kh_mix *kh_mix_at(size_t index)
{
    return &mixes[index];
}

const kh_mix *kh_mix_find(const char *name)
{
    for (size_t i = 0; i < kh_mix_count(); i++)
        if (strcasecmp(mixes[i].name, name) == 0) return &mixes[i];
    return NULL;
}

/* A natural number under "ARCHITECTURE.KEY"; of an array the largest. */
static kh_status look_up(const kh_gguf *file, kh_slice architecture, const char *key, uint64_t *out)
{
    char name[192];
    snprintf(name, sizeof name, "%.*s.%s", (int)architecture.size, architecture.data, key);
    const kh_gguf_value *value = kh_gguf_find(file, name);
    for (uint64_t i = 0, n = 0; value && i < value->count; i++) {
        KH_TRY(kh_gguf_element_u64(value, i, &n));
        if (n > *out) *out = n;
    }
    return KH_OK;
}

static int holds(const char *name, const char *part)
{
    return strstr(name, part) != NULL;
}

static int is_values(const char *name)
{
    return holds(name, "attn_qkv.weight") || holds(name, "attn_kv_b.weight") ||
           holds(name, "attn_v.weight");
}

kh_status kh_mix_look(kh_mix_model *model, const kh_gguf *file)
{
    kh_slice architecture = {0};
    *model = (kh_mix_model){.tied = 1};
    KH_TRY(kh_gguf_opt_string(file, "general.architecture", &architecture));
    if (architecture.size > 0 && architecture.size < 128) {
        KH_TRY(look_up(file, architecture, "block_count", &model->layers));
        KH_TRY(look_up(file, architecture, "expert_count", &model->experts));
        KH_TRY(look_up(file, architecture, "attention.head_count", &model->heads));
        KH_TRY(look_up(file, architecture, "attention.head_count_kv", &model->key_heads));
    }
    for (size_t i = 0; i < kh_gguf_tensor_count(file); i++) {
        const char *name = kh_gguf_tensor_at(file, i)->name;
        if (strcmp(name, "output.weight") == 0) model->tied = 0;
    }
    return KH_OK;
}

/* Two dimensions of more than one element, and nothing whose errors weigh too much. */
static int is_matrix(const kh_tensor *t)
{
    static const char *const kept[] = {"_norm.weight",       "ffn_gate_inp",      "position_embd",
                                       "token_types.weight", "attn_rel_b.weight", "ssm_conv1d",
                                       "shortconv.conv"};
    size_t length = strlen(t->name);
    if (t->dims[1] * t->dims[2] * t->dims[3] < 2) return 0;
    if (length < 6 || strcmp(t->name + length - 6, "weight") != 0) return 0;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (holds(t->name, kept[i])) return 0;
    return 1;
}

static uint64_t layer_of(const char *name)
{
    const char *at = strstr(name, "blk.");
    unsigned long long layer = 0;
    return at && sscanf(at, "blk.%llu.", &layer) == 1 ? layer : 0;
}

static int more_bits(uint64_t layer, uint64_t layers)
{
    return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

static int grouped(const kh_mix_model *model)
{
    return model->key_heads > 0 && model->heads / model->key_heads >= 4;
}

static kh_type for_values(const kh_mix *mix, const kh_mix_model *model, uint64_t layer)
{
    kh_type type = mix->type;
    if (model->experts == 8) return KH_TYPE_Q8_0;
    if (type == KH_TYPE_Q2_K)
        type = grouped(model) ? KH_TYPE_Q4_K : mix->size == 'M' ? KH_TYPE_Q3_K : type;
    else if (type == KH_TYPE_Q3_K && mix->size == 'M')
        type = layer < 2 ? KH_TYPE_Q5_K : KH_TYPE_Q4_K;
    else if (type == KH_TYPE_Q3_K && mix->size == 'L')
        type = KH_TYPE_Q5_K;
    else if (mix->size == 'M' && more_bits(layer, model->layers))
        type = KH_TYPE_Q6_K;
    else if (type == KH_TYPE_Q4_K && mix->size == 'S' && layer < 4)
        type = KH_TYPE_Q5_K;
    /* 80 layers: the models of 70 billion, whose shared values are a small part */
    if (model->layers == 80 && model->heads > model->key_heads &&
        (type == KH_TYPE_Q3_K || type == KH_TYPE_Q4_K))
        type = KH_TYPE_Q5_K;
    return type;
}

static kh_type for_down(const kh_mix *mix, const kh_mix_model *model, uint64_t layer)
{
    uint64_t layers = model->layers;
    switch (mix->type) {
    case KH_TYPE_Q2_K:
        if (mix->size == 'M') return KH_TYPE_Q3_K;
        return layer < layers / 8 ? KH_TYPE_Q4_K : KH_TYPE_Q2_K;
    case KH_TYPE_Q3_K:
        if (mix->size == 'L') return KH_TYPE_Q5_K;
        if (mix->size == 'M') return layer < layers / 16 ? KH_TYPE_Q5_K : KH_TYPE_Q4_K;
        return KH_TYPE_Q3_K;
    case KH_TYPE_Q4_K:
        if (mix->size == 'S') return layer < layers / 8 ? KH_TYPE_Q5_K : KH_TYPE_Q4_K;
        return more_bits(layer, layers) ? KH_TYPE_Q6_K : KH_TYPE_Q4_K;
    case KH_TYPE_Q5_K:
        return mix->size == 'M' && more_bits(layer, layers) ? KH_TYPE_Q6_K : KH_TYPE_Q5_K;
    default: return mix->type;
    }
}

static kh_type for_attention_output(const kh_mix *mix, const kh_mix_model *model)
{
    int m = mix->size == 'M';
    if (model->experts == 8) {
        int small = (mix->type == KH_TYPE_Q2_K && m) || mix->type == KH_TYPE_Q4_K ||
                    (mix->type == KH_TYPE_Q3_K && mix->size != 'L');
        return small ? KH_TYPE_Q5_K : mix->type;
    }
    if (mix->type == KH_TYPE_Q2_K && m) return KH_TYPE_Q3_K;
    if (mix->type == KH_TYPE_Q3_K && m) return KH_TYPE_Q4_K;
    if (mix->type == KH_TYPE_Q3_K && mix->size == 'L') return KH_TYPE_Q5_K;
    return mix->type;
}

static kh_type for_head(const kh_mix *mix, const kh_tensor *t)
{
    if (t->dims[0] % kh_type_block(mix->type) != 0) return KH_TYPE_Q8_0;
    return mix->type == KH_TYPE_Q8_0 ? KH_TYPE_Q8_0 : KH_TYPE_Q6_K;
}

static kh_type wanted(const kh_mix *mix, const kh_mix_model *model, const kh_tensor *t)
{
    const char *name = t->name;
    int embedding = strcmp(name, "token_embd.weight") == 0;
    if (strcmp(name, "output.weight") == 0 || (model->tied && embedding)) return for_head(mix, t);
    if (embedding) return mix->type;
    if (is_values(name)) return for_values(mix, model, layer_of(name));
    if (holds(name, "attn_k.weight")) return model->experts == 8 ? KH_TYPE_Q8_0 : mix->type;
    if (holds(name, "attn_output.weight")) return for_attention_output(mix, model);
    if (holds(name, "ffn_down")) return for_down(mix, model, layer_of(name));
    return mix->type;
}

static kh_type fitting(kh_type type, uint64_t row)
{
    if (row % kh_type_block(type) == 0) return type;
    kh_type smaller = type == KH_TYPE_Q4_K   ? KH_TYPE_Q5_0
                      : type == KH_TYPE_Q5_K ? KH_TYPE_Q5_1
                      : type == KH_TYPE_Q6_K ? KH_TYPE_Q8_0
                                             : KH_TYPE_Q4_0;
    return row % kh_type_block(smaller) == 0 ? smaller : KH_TYPE_F16;
}

kh_mix_choice kh_mix_choose(const kh_mix *mix, const kh_mix_model *model, const kh_tensor *tensor,
                            int pure)
{
    if (!is_matrix(tensor)) return (kh_mix_choice){KH_TYPE_F32, 0};
    int mixed = !pure && kh_type_block(mix->type) > 1;
    kh_type type = mixed ? wanted(mix, model, tensor) : mix->type;
    kh_type fits = fitting(type, tensor->dims[0]);
    return (kh_mix_choice){fits, fits != type};
}
