/* gpt2: LayerNorm before attention and feed-forward, learned positions, biases everywhere, no gate, GELU in
 * its tanh form unless the file names another activation, the head tied to the embedding. q, k and v lie in one tensor. */
#include "base/fail.h"
#include "model/families.h"
#include "model/hf.h"

/* Hugging Face: matrices are [inputs][outputs]; old files carry the causal mask as a tensor. */
static kh_status adjust(kh_hf *hf)
{
    double inner = 0, width = 0;
    KH_TRY(kh_hf_number(hf, "n_inner", &inner));
    KH_TRY(kh_hf_number(hf, "n_embd", &width));
    if (inner == 0 && width > 0 && width < KH_MAX_WIDTH)
        return kh_hf_set_int(hf, "feed_forward_length", 4 * (uint64_t)width);
    return KH_OK;
}

static const kh_hf_key hf_keys[] = {
    {"activation_function", "gelu_new|gelu_pytorch_tanh|gelu_fast|gelu|relu|silu", KH_HF_EXPECT, 0,
     0},
    {"activation_function", "hidden_activation", KH_HF_TEXT, KH_HF_SKIP, 0},
    {"scale_attn_weights", "true", KH_HF_EXPECT, 0, 0},
    {"scale_attn_by_inverse_layer_idx", "false", KH_HF_EXPECT, 0, 0},
    {"add_cross_attention", "false", KH_HF_EXPECT, 0, 0},
    {"layer_norm_epsilon", "attention.layer_norm_epsilon", KH_HF_REAL, KH_HF_USE, 1e-5},
    {0}};
static const kh_hf_tensor hf_tensors[] = {
    {"wte", "token_embd", "VD", 0, 0},
    {"wpe", "position_embd", "PD", 0, 0},
    {"ln_f", "output_norm", "D", 0, KH_HF_BIAS},
    {"lm_head", "output", "VD", 0, KH_HF_HEAD},
    {"h.#.ln_1", "blk.#.attn_norm", "D", 0, KH_HF_BIAS},
    {"h.#.attn.c_attn", "blk.#.attn_qkv", "DA", KH_HF_TURN, KH_HF_BIAS},
    {"h.#.attn.c_proj", "blk.#.attn_output", "QD", KH_HF_TURN, KH_HF_BIAS},
    {"h.#.ln_2", "blk.#.ffn_norm", "D", 0, KH_HF_BIAS},
    {"h.#.mlp.c_fc", "blk.#.ffn_up", "DF", KH_HF_TURN, KH_HF_BIAS},
    {"h.#.mlp.c_proj", "blk.#.ffn_down", "FD", KH_HF_TURN, KH_HF_BIAS},
    {"h.#.attn.bias", 0, 0, 0, 0},
    {"h.#.attn.masked_bias", 0, 0, 0, 0},
    {0}};
static const kh_hf_map hf = {.model_types = "gpt2",
                             .architectures = "GPT2LMHeadModel|GPT2Model",
                             .prefixes = "transformer.|",
                             .keys = hf_keys,
                             .tensors = hf_tensors,
                             .flags = KH_HF_TIED,
                             .dialect = 1,
                             .adjust = adjust};

const kh_family kh_family_gpt2 = {.name = "gpt2",
                                  .hf = &hf,
                                  .parts = KH_PARTS_DECODER | KH_PART_NORM_BIAS | KH_PART_QKV_BIAS |
                                           KH_PART_OUT_BIAS | KH_PART_FF_BIAS | KH_PART_POSITIONS,
                                  .optional = KH_PART_HEAD,
                                  .norm = KH_NORM_LAYER,
                                  .positions = KH_POSITIONS_LEARNED,
                                  .act = KH_ACT_GELU_TANH,
                                  .open_act = 1};
