/* llama: Llama 1 to 3, SmolLM, Mistral, Mixtral, TinyLlama and their relatives.
 *
 * Pre-norm blocks with RMSNorm, grouped query heads, SwiGLU. The rows of q and k are permuted in GGUF
 * files of this architecture, so that the rotation works on neighbouring pairs. Some relatives carry
 * biases; they are taken when present. Llama 3.1 and later bring rope_freqs.weight. Mistral's first models
 * see a window in all layers, where the file says so; Mixtral has experts in all of them. */
#include "model/families.h"
#include "model/hf.h"

/* Hugging Face: llama, mistral (windows in all layers), mixtral (w1 gate, w3 up, w2 down). */
static const kh_hf_key hf_keys[] = {
    {"attention_bias", "blk.0.attn_q.bias", KH_HF_HAS, 0, 0},
    {"mlp_bias", "blk.0.ffn_up.bias", KH_HF_HAS, 0, 0},
    {"hidden_act", "silu|swish", KH_HF_EXPECT, 0, 0},
    {"rms_norm_eps", "attention.layer_norm_rms_epsilon", KH_HF_REAL, KH_HF_USE, 1e-6},
    {0}};
static const kh_hf_tensor hf_tensors[] = {
    KH_HF_ENDS,
    KH_HF_TWO_NORMS,
    KH_HF_ATTENTION(KH_HF_PAIRS, KH_HF_MAY_BIAS),
    KH_HF_GATED,
    {"layers.#.block_sparse_moe.gate", "blk.#.ffn_gate_inp", "XD", 0, KH_HF_EXPERTS},
    {"layers.#.block_sparse_moe.experts.@.w1", "blk.#.ffn_gate_exps", "XFD", KH_HF_STACK,
     KH_HF_EXPERTS},
    {"layers.#.block_sparse_moe.experts.@.w3", "blk.#.ffn_up_exps", "XFD", KH_HF_STACK,
     KH_HF_EXPERTS},
    {"layers.#.block_sparse_moe.experts.@.w2", "blk.#.ffn_down_exps", "XDF", KH_HF_STACK,
     KH_HF_EXPERTS},
    {0}};
static const kh_hf_map mixtral = {.model_types = "mixtral",
                                  .architectures = "MixtralForCausalLM",
                                  .prefixes = "model.|",
                                  .keys = hf_keys,
                                  .tensors = hf_tensors,
                                  .flags = KH_HF_ROTARY | KH_HF_MIXTURE,
                                  .window_period = 1};
static const kh_hf_map mistral = {.model_types = "mistral",
                                  .architectures = "MistralForCausalLM|MistralModel",
                                  .prefixes = "model.|",
                                  .keys = hf_keys,
                                  .tensors = hf_tensors,
                                  .flags = KH_HF_ROTARY,
                                  .window_period = 1,
                                  .next = &mixtral};
static const kh_hf_map hf = {.model_types = "llama",
                             .architectures = "LlamaForCausalLM|LlamaModel",
                             .prefixes = "model.|",
                             .keys = hf_keys,
                             .tensors = hf_tensors,
                             .flags = KH_HF_ROTARY,
                             .next = &mistral};

const kh_family kh_family_llama = {.name = "llama",
                                   .hf = &hf,
                                   .parts = KH_PARTS_DECODER | KH_PART_GATE,
                                   .optional = KH_PART_QKV_BIAS | KH_PART_OUT_BIAS |
                                               KH_PART_FF_BIAS | KH_PART_HEAD | KH_PART_ROPE |
                                               KH_PART_EXPERTS,
                                   .rope_style = KH_ROPE_PAIRS,
                                   .act = KH_ACT_SILU,
                                   .window_period = 1};
