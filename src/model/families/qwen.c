/* qwen2 and qwen3, and their mixtures of experts: pre-norm, SwiGLU, rotation of halves.
 *
 * Qwen2 has biases on q, k and v; Qwen3 drops them and normalises every query and key head (qk-norm,
 * before the rotation); its head width is given by key_length and is not D / H. Qwen2's mixture leaves the
 * shares of the chosen experts as the softmax over all made them and adds a shared expert behind a sigmoid;
 * Qwen3's divides them by their sum. Both may keep some layers dense, and see a window in some. */
#include "model/families.h"
#include "model/hf.h"

enum {
    PARTS = KH_PARTS_DECODER | KH_PART_GATE,
    MIXTURE = KH_PART_HEAD | KH_PART_EXPERTS | KH_PART_SHARED
};

/* Hugging Face. Windows, when they are on at all, begin at a layer (max_window_layers). */
static const kh_hf_key hf_keys[] = {
    {"attention_bias", "blk.0.attn_q.bias", KH_HF_HAS, 0, 0},
    {"hidden_act", "silu", KH_HF_EXPECT, 0, 0},
    {"rms_norm_eps", "attention.layer_norm_rms_epsilon", KH_HF_REAL, KH_HF_USE, 1e-6},
    {0}};
static const kh_hf_key hf_moe_keys[] = {
    {"num_experts|num_local_experts", "expert_count", KH_HF_INT, KH_HF_NEED, 0},
    {"attention_bias", "blk.0.attn_q.bias", KH_HF_HAS, 0, 0},
    {"qkv_bias", "blk.0.attn_q.bias", KH_HF_HAS, 0, 0},
    {"hidden_act", "silu", KH_HF_EXPECT, 0, 0},
    {"rms_norm_eps", "attention.layer_norm_rms_epsilon", KH_HF_REAL, KH_HF_USE, 1e-6},
    {"norm_topk_prob", "expert_weights_norm", KH_HF_BOOL, KH_HF_USE, 0},
    {"moe_intermediate_size", "expert_feed_forward_length", KH_HF_INT, KH_HF_NEED, 0},
    {"shared_expert_intermediate_size", "expert_shared_feed_forward_length", KH_HF_INT, KH_HF_SKIP,
     0},
    {0}};

#define HEAD_NORMS                                                                                 \
    {"layers.#.self_attn.q_norm", "blk.#.attn_q_norm", "E", 0, 0},                                 \
    {                                                                                              \
        "layers.#.self_attn.k_norm", "blk.#.attn_k_norm", "E", 0, 0                                \
    }
#define MAYBE KH_HF_OPTIONAL
#define EXPERTS                                                                                    \
    {"layers.#.mlp.gate_proj", "blk.#.ffn_gate", "FD", 0, MAYBE},                                  \
        {"layers.#.mlp.up_proj", "blk.#.ffn_up", "FD", 0, MAYBE},                                  \
        {"layers.#.mlp.down_proj", "blk.#.ffn_down", "DF", 0, MAYBE},                              \
        {"layers.#.mlp.gate", "blk.#.ffn_gate_inp", "XD", 0, MAYBE},                               \
        {"layers.#.mlp.experts.@.gate_proj", "blk.#.ffn_gate_exps", "XMD", KH_HF_STACK, MAYBE},    \
        {"layers.#.mlp.experts.@.up_proj", "blk.#.ffn_up_exps", "XMD", KH_HF_STACK, MAYBE},        \
    {                                                                                              \
        "layers.#.mlp.experts.@.down_proj", "blk.#.ffn_down_exps", "XDM", KH_HF_STACK, MAYBE       \
    }

static const kh_hf_tensor qwen2_rows[] = {
    KH_HF_ENDS, KH_HF_TWO_NORMS, KH_HF_ATTENTION(KH_HF_PLAIN, KH_HF_BIAS), KH_HF_GATED, {0}};
static const kh_hf_tensor qwen3_rows[] = {KH_HF_ENDS,  KH_HF_TWO_NORMS,
                                          HEAD_NORMS,  KH_HF_ATTENTION(KH_HF_PLAIN, KH_HF_MAY_BIAS),
                                          KH_HF_GATED, {0}};
static const kh_hf_tensor qwen2moe_rows[] = {
    KH_HF_ENDS,
    KH_HF_TWO_NORMS,
    KH_HF_ATTENTION(KH_HF_PLAIN, KH_HF_BIAS),
    EXPERTS,
    {"layers.#.mlp.shared_expert_gate", "blk.#.ffn_gate_inp_shexp", "1D", 0, MAYBE},
    {"layers.#.mlp.shared_expert.gate_proj", "blk.#.ffn_gate_shexp", "SD", 0, MAYBE},
    {"layers.#.mlp.shared_expert.up_proj", "blk.#.ffn_up_shexp", "SD", 0, MAYBE},
    {"layers.#.mlp.shared_expert.down_proj", "blk.#.ffn_down_shexp", "DS", 0, MAYBE},
    {0}};
static const kh_hf_tensor qwen3moe_rows[] = {
    KH_HF_ENDS, KH_HF_TWO_NORMS, HEAD_NORMS, KH_HF_ATTENTION(KH_HF_PLAIN, KH_HF_MAY_BIAS), EXPERTS,
    {0}};
static const kh_hf_map qwen2_hf = {.model_types = "qwen2",
                                   .architectures = "Qwen2ForCausalLM|Qwen2Model",
                                   .prefixes = "model.|",
                                   .keys = hf_keys,
                                   .tensors = qwen2_rows,
                                   .flags = KH_HF_ROTARY,
                                   .window_period = KH_HF_LISTED};
static const kh_hf_map qwen3_hf = {.model_types = "qwen3",
                                   .architectures = "Qwen3ForCausalLM|Qwen3Model",
                                   .prefixes = "model.|",
                                   .keys = hf_keys,
                                   .tensors = qwen3_rows,
                                   .flags = KH_HF_ROTARY,
                                   .window_period = KH_HF_LISTED};
static const kh_hf_map qwen2moe_hf = {.model_types = "qwen2_moe",
                                      .architectures = "Qwen2MoeForCausalLM",
                                      .prefixes = "model.|",
                                      .keys = hf_moe_keys,
                                      .tensors = qwen2moe_rows,
                                      .flags = KH_HF_ROTARY | KH_HF_MIXTURE,
                                      .window_period = KH_HF_LISTED};
static const kh_hf_map qwen3moe_hf = {.model_types = "qwen3_moe",
                                      .architectures = "Qwen3MoeForCausalLM",
                                      .prefixes = "model.|",
                                      .keys = hf_moe_keys,
                                      .tensors = qwen3moe_rows,
                                      .flags = KH_HF_ROTARY | KH_HF_MIXTURE,
                                      .window_period = KH_HF_LISTED};

const kh_family kh_family_qwen2 = {.name = "qwen2",
                                   .hf = &qwen2_hf,
                                   .parts = PARTS | KH_PART_QKV_BIAS,
                                   .optional = KH_PART_HEAD,
                                   .rope_style = KH_ROPE_HALF,
                                   .act = KH_ACT_SILU,
                                   .window_period = KH_WINDOWS_LISTED};

const kh_family kh_family_qwen2moe = {.name = "qwen2moe",
                                      .hf = &qwen2moe_hf,
                                      .parts = PARTS | KH_PART_QKV_BIAS,
                                      .optional = MIXTURE,
                                      .rope_style = KH_ROPE_HALF,
                                      .act = KH_ACT_SILU,
                                      .window_period = KH_WINDOWS_LISTED,
                                      .raw_shares = 1};

const kh_family kh_family_qwen3 = {.name = "qwen3",
                                   .hf = &qwen3_hf,
                                   .parts = PARTS | KH_PART_QK_NORM,
                                   .optional = KH_PART_QKV_BIAS | KH_PART_HEAD,
                                   .rope_style = KH_ROPE_HALF,
                                   .act = KH_ACT_SILU,
                                   .window_period = KH_WINDOWS_LISTED};

const kh_family kh_family_qwen3moe = {.name = "qwen3moe",
                                      .hf = &qwen3moe_hf,
                                      .parts = PARTS | KH_PART_QK_NORM,
                                      .optional = MIXTURE | KH_PART_QKV_BIAS,
                                      .rope_style = KH_ROPE_HALF,
                                      .act = KH_ACT_SILU,
                                      .window_period = KH_WINDOWS_LISTED};
