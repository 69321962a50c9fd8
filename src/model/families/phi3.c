/* phi3: Phi 3, 3.5 and 4: llama's blocks with q, k, v in one tensor and gate and up in another.
 *
 * The long-context variants rotate by two sets of divisors: rope_factors_short.weight while a session's
 * context is the original one, rope_factors_long.weight beyond, both with the magnitude
 * rope.scaling.attn_factor. Small ones rotate a part of a head, or see a window. */
#include "model/families.h"
#include "model/hf.h"

/* Hugging Face. */
static const kh_hf_key hf_keys[] = {
    {"hidden_act", "silu", KH_HF_EXPECT, 0, 0},
    {"rms_norm_eps", "attention.layer_norm_rms_epsilon", KH_HF_REAL, KH_HF_USE, 1e-5},
    {0}};
static const kh_hf_tensor hf_tensors[] = {
    KH_HF_ENDS,
    KH_HF_TWO_NORMS,
    {"layers.#.self_attn.qkv_proj", "blk.#.attn_qkv", "AD", 0, 0},
    {"layers.#.self_attn.o_proj", "blk.#.attn_output", "DQ", 0, 0},
    {"layers.#.mlp.gate_up_proj", "blk.#.ffn_up", "UD", 0, 0},
    {"layers.#.mlp.down_proj", "blk.#.ffn_down", "DF", 0, 0},
    {0}};
static const kh_hf_map hf = {.model_types = "phi3",
                             .architectures = "Phi3ForCausalLM",
                             .prefixes = "model.|",
                             .keys = hf_keys,
                             .tensors = hf_tensors,
                             .flags = KH_HF_ROTARY,
                             .window_period = 1};

const kh_family kh_family_phi3 = {.name = "phi3",
                                  .hf = &hf,
                                  .parts = KH_PARTS_DECODER | KH_PART_GATE,
                                  .optional = KH_PART_HEAD | KH_PART_ROPE,
                                  .rope_style = KH_ROPE_HALF,
                                  .act = KH_ACT_SILU,
                                  .window_period = 1};
