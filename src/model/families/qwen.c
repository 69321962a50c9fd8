/* qwen2 and qwen3: pre-norm, SwiGLU, rotation of halves.
 *
 * Qwen2 has biases on q, k and v; Qwen3 drops them and normalises every query and key head (qk-norm,
 * before the rotation); its head width is given by key_length and is not D / H. */
#include "model/families.h"
#include "model/hf.h"

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
                                   .parts = KH_PART_QKV_BIAS,
                                   .rope_style = KH_ROPE_HALF,
                                   .act = KH_ACT_SILU,
                                   .hf = &qwen2_hf};

const kh_family kh_family_qwen3 = {.name = "qwen3",
                                   .parts = KH_PART_QK_NORM,
                                   .optional = KH_PART_QKV_BIAS,
                                   .rope_style = KH_ROPE_HALF,
                                   .act = KH_ACT_SILU,
                                   .hf = &qwen3_hf};
