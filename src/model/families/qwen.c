/* qwen2 and qwen3, and their mixtures of experts: pre-norm, SwiGLU, rotation of halves.
 *
 * Qwen2 has biases on q, k and v; Qwen3 drops them and normalises every query and key head (qk-norm,
 * before the rotation); its head width is given by key_length and is not D / H. Qwen2's mixture leaves the
 * shares of the chosen experts as the softmax over all made them and adds a shared expert behind a sigmoid;
 * Qwen3's divides them by their sum. Both may keep some layers dense, and see a window in some. */
#include "base/fail.h"
#include "model/families.h"
#include "model/hf.h"

enum {
    PARTS = KH_PARTS_DECODER | KH_PART_GATE,
    MIXTURE = KH_PART_HEAD | KH_PART_EXPERTS | KH_PART_SHARED
};

static kh_status describe2(kh_description *d, const kh_gguf *file)
{
    return kh_describe_window(d, &kh_family_qwen2, file, 1);
}

static kh_status describe3(kh_description *d, const kh_gguf *file)
{
    return kh_describe_window(d, &kh_family_qwen3, file, 1);
}

static kh_status describe2moe(kh_description *d, const kh_gguf *file)
{
    d->experts.renormalise = 0;
    KH_TRY(kh_gguf_opt_bool(file, "qwen2moe.expert_weights_norm", &d->experts.renormalise));
    return kh_describe_window(d, &kh_family_qwen2moe, file, 1);
}

static kh_status describe3moe(kh_description *d, const kh_gguf *file)
{
    return kh_describe_window(d, &kh_family_qwen3moe, file, 1);
}

/* Hugging Face. Windows, when they are on at all, begin at a layer (max_window_layers). */
static const kh_hf_key hf_keys[] = {
    {"hidden_act", "silu", KH_HF_EXPECT, 0, 0},
    {"rms_norm_eps", "attention.layer_norm_rms_epsilon", KH_HF_REAL, KH_HF_USE, 1e-6},
    {0}};
static const kh_hf_tensor qwen2_tensors[] = {
    KH_HF_ENDS, KH_HF_TWO_NORMS, KH_HF_ATTENTION(KH_HF_PLAIN, KH_HF_BIAS), KH_HF_GATED, {0}};
static const kh_hf_tensor qwen3_tensors[] = {
    KH_HF_ENDS,
    KH_HF_TWO_NORMS,
    {"layers.#.self_attn.q_norm", "blk.#.attn_q_norm", "E", 0, 0},
    {"layers.#.self_attn.k_norm", "blk.#.attn_k_norm", "E", 0, 0},
    KH_HF_ATTENTION(KH_HF_PLAIN, KH_HF_MAY_BIAS),
    KH_HF_GATED,
    {0}};
static const kh_hf_map qwen2_hf = {.model_types = "qwen2",
                                   .architectures = "Qwen2ForCausalLM|Qwen2Model",
                                   .prefixes = "model.|",
                                   .keys = hf_keys,
                                   .tensors = qwen2_tensors,
                                   .flags = KH_HF_ROTARY,
                                   .window_period = 1};
static const kh_hf_map qwen3_hf = {.model_types = "qwen3",
                                   .architectures = "Qwen3ForCausalLM|Qwen3Model",
                                   .prefixes = "model.|",
                                   .keys = hf_keys,
                                   .tensors = qwen3_tensors,
                                   .flags = KH_HF_ROTARY,
                                   .window_period = 1};

const kh_family kh_family_qwen2 = {.name = "qwen2",
                                   .parts = PARTS | KH_PART_QKV_BIAS,
                                   .optional = KH_PART_HEAD,
                                   .rope_style = KH_ROPE_HALF,
                                   .act = KH_ACT_SILU,
                                   .hf = &qwen2_hf,
                                   .describe = describe2};

const kh_family kh_family_qwen2moe = {.name = "qwen2moe",
                                      .parts = PARTS | KH_PART_QKV_BIAS,
                                      .optional = MIXTURE,
                                      .rope_style = KH_ROPE_HALF,
                                      .act = KH_ACT_SILU,
                                      .describe = describe2moe};

const kh_family kh_family_qwen3 = {.name = "qwen3",
                                   .parts = PARTS | KH_PART_QK_NORM,
                                   .optional = KH_PART_QKV_BIAS | KH_PART_HEAD,
                                   .rope_style = KH_ROPE_HALF,
                                   .act = KH_ACT_SILU,
                                   .hf = &qwen3_hf,
                                   .describe = describe3};

const kh_family kh_family_qwen3moe = {.name = "qwen3moe",
                                      .parts = PARTS | KH_PART_QK_NORM,
                                      .optional = MIXTURE | KH_PART_QKV_BIAS,
                                      .rope_style = KH_ROPE_HALF,
                                      .act = KH_ACT_SILU,
                                      .describe = describe3moe};
