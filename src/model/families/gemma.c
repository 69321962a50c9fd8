/* gemma2 and gemma3: norms on both sides of attention and feed-forward, GeGLU, windows in some layers.
 *
 * The token embedding is scaled by sqrt(D). Norm gains are stored as 1 + g, so the common RMSNorm serves.
 * Gemma 2 caps scores and logits and sees a window in every other layer. Gemma 3 normalises query and key
 * heads instead; every sixth layer is global, the others rotate by a base of their own (10,000, never
 * scaled). The 27B models (46 and 62 layers) scale their scores by the model width per head, all others by
 * the head width; a file may say so itself (attention.scale). */
#include "base/fail.h"
#include "model/families.h"
#include "model/hf.h"

#include <math.h>

enum { LAYERS2_27B = 46, LAYERS3_27B = 62 };

static void scales(kh_description *d, const kh_gguf *file, const char *key, int layers_27b)
{
    d->embed_scale = sqrtf((float)d->D);
    if (d->N == layers_27b && !kh_gguf_find(file, key))
        d->attn_scale = 1.0f / sqrtf((float)d->D / (float)d->H);
}

static kh_status describe2(kh_description *d, const kh_gguf *file)
{
    scales(d, file, "gemma2.attention.scale", LAYERS2_27B);
    return KH_OK;
}

static kh_status describe3(kh_description *d, const kh_gguf *file)
{
    scales(d, file, "gemma3.attention.scale", LAYERS3_27B);
    kh_rope_spec *local_rope = &d->rope[1];
    local_rope->base = 10000;
    KH_TRY(kh_gguf_opt_f64(file, "gemma3.rope.local.freq_base", &local_rope->base));
    KH_TRY(kh_gguf_opt_f64(file, "gemma3.rope.freq_base_swa", &local_rope->base));
    if (!(local_rope->base > 0))
        KH_FAIL(KH_ERR_FORMAT, "gemma3: the local rope base is not positive");
    local_rope->scaling = KH_ROPE_NONE;
    local_rope->factor = 1;
    return KH_OK;
}

enum { PARTS = KH_PARTS_DECODER | KH_PART_GATE | KH_PART_OUT_NORM };

/* Hugging Face: all gains are g - 1 there. What config.json leaves out are the defaults of its class. */
#define COMMON_KEYS                                                                                \
    {"hidden_activation|hidden_act", "gelu_pytorch_tanh", KH_HF_EXPECT, 0, 0},                     \
        {"use_bidirectional_attention", "false", KH_HF_EXPECT, 0, 0},                              \
        {"num_attention_heads", "attention.head_count", KH_HF_INT, KH_HF_USE, 8},                  \
        {"num_key_value_heads", "attention.head_count_kv", KH_HF_INT, KH_HF_USE, 4},               \
        {"head_dim", "attention.key_length", KH_HF_INT, KH_HF_USE, 256},                           \
        {"head_dim", "attention.value_length", KH_HF_INT, KH_HF_USE, 256},                         \
        {"query_pre_attn_scalar", "attention.scale", KH_HF_SCALE, KH_HF_USE, 256},                 \
    {                                                                                              \
        "rms_norm_eps", "attention.layer_norm_rms_epsilon", KH_HF_REAL, KH_HF_USE, 1e-6            \
    }
static const kh_hf_key gemma2_keys[] = {COMMON_KEYS, {0}};
static const kh_hf_key gemma3_keys[] = {
    COMMON_KEYS,
    {"max_position_embeddings", "context_length", KH_HF_INT, KH_HF_USE, 131072},
    {"rope_theta", "rope.freq_base", KH_HF_REAL, KH_HF_USE, 1e6},
    {"rope_local_base_freq", "rope.freq_base_swa", KH_HF_REAL, KH_HF_USE, 1e4},
    {0}};

#define ROWS                                                                                       \
    {"embed_tokens", "token_embd", "VD", 0, 0}, {"norm", "output_norm", "D", KH_HF_ADD_ONE, 0},    \
        {"lm_head", "output", "VD", 0, KH_HF_HEAD},                                                \
        {"layers.#.input_layernorm", "blk.#.attn_norm", "D", KH_HF_ADD_ONE, 0},                    \
        {"layers.#.post_attention_layernorm", "blk.#.post_attention_norm", "D", KH_HF_ADD_ONE, 0}, \
        {"layers.#.pre_feedforward_layernorm", "blk.#.ffn_norm", "D", KH_HF_ADD_ONE, 0},           \
        {"layers.#.post_feedforward_layernorm", "blk.#.post_ffw_norm", "D", KH_HF_ADD_ONE, 0},     \
        KH_HF_ATTENTION(KH_HF_PLAIN, 0), KH_HF_GATED
static const kh_hf_tensor gemma2_rows[] = {ROWS, {0}};
static const kh_hf_tensor gemma3_rows[] = {
    ROWS,
    {"layers.#.self_attn.q_norm", "blk.#.attn_q_norm", "E", KH_HF_ADD_ONE, 0},
    {"layers.#.self_attn.k_norm", "blk.#.attn_k_norm", "E", KH_HF_ADD_ONE, 0},
    {"*vision_tower.*", 0, 0, 0, 0}, /* images are not read */
    {"*multi_modal_projector.*", 0, 0, 0, 0},
    {0}};
static const kh_hf_map gemma2_hf = {.model_types = "gemma2",
                                    .architectures = "Gemma2ForCausalLM|Gemma2Model",
                                    .prefixes = "model.|",
                                    .keys = gemma2_keys,
                                    .tensors = gemma2_rows,
                                    .flags = KH_HF_ROTARY | KH_HF_TIED,
                                    .window_period = 2};
static const kh_hf_map gemma3_hf = {
    .model_types = "gemma3_text|gemma3",
    .architectures = "Gemma3ForCausalLM|Gemma3ForConditionalGeneration|Gemma3TextModel",
    .prefixes = "model.|language_model.model.|model.language_model.|",
    .keys = gemma3_keys,
    .tensors = gemma3_rows,
    .flags = KH_HF_ROTARY | KH_HF_TIED,
    .window_period = 6};

const kh_family kh_family_gemma2 = {.name = "gemma2",
                                    .hf = &gemma2_hf,
                                    .parts = PARTS,
                                    .optional = KH_PART_HEAD,
                                    .rope_style = KH_ROPE_HALF,
                                    .act = KH_ACT_GELU_TANH,
                                    .window_period = 2,
                                    .describe = describe2};

const kh_family kh_family_gemma3 = {.name = "gemma3",
                                    .hf = &gemma3_hf,
                                    .parts = PARTS | KH_PART_QK_NORM,
                                    .optional = KH_PART_HEAD,
                                    .rope_style = KH_ROPE_HALF,
                                    .act = KH_ACT_GELU_TANH,
                                    .window_period = 6,
                                    .describe = describe3};
