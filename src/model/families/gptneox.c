/* gptneox: GPT-NeoX, Pythia: attention and feed-forward both read the same residual stream, through norms
 * of their own, and are added together (unless the file says otherwise); part of a head is rotated; exact
 * GELU; q, k and v in one tensor. */
#include "base/fail.h"
#include "model/families.h"
#include "model/hf.h"

static kh_status describe(kh_description *d, const kh_gguf *file)
{
    int parallel = 1;
    KH_TRY(kh_gguf_opt_bool(file, "gptneox.use_parallel_residual", &parallel));
    d->form = parallel ? KH_BLOCK_PARALLEL : KH_BLOCK_PRE;
    return KH_OK;
}

/* Hugging Face: q, k and v of a head lie together; old files carry masks and tables. */
static const kh_hf_key hf_keys[] = {
    {"attention_bias", "blk.0.attn_qkv.bias", KH_HF_HAS, 0, 0},
    {"hidden_act", "gelu", KH_HF_EXPECT, 0, 0},
    {"use_parallel_residual", "use_parallel_residual", KH_HF_BOOL, KH_HF_USE, 1},
    {"layer_norm_eps", "attention.layer_norm_epsilon", KH_HF_REAL, KH_HF_USE, 1e-5},
    {"rotary_emb_base", "rope.freq_base", KH_HF_REAL, KH_HF_USE, 10000},
    {0}};
static const kh_hf_tensor hf_tensors[] = {
    {"embed_in", "token_embd", "VD", 0, 0},
    {"final_layer_norm", "output_norm", "D", 0, KH_HF_BIAS},
    {"embed_out", "output", "VD", 0, KH_HF_HEAD},
    {"layers.#.input_layernorm", "blk.#.attn_norm", "D", 0, KH_HF_BIAS},
    {"layers.#.post_attention_layernorm", "blk.#.ffn_norm", "D", 0, KH_HF_BIAS},
    {"layers.#.attention.query_key_value", "blk.#.attn_qkv", "AD", KH_HF_BY_HEAD, KH_HF_MAY_BIAS},
    {"layers.#.attention.dense", "blk.#.attn_output", "DQ", 0, KH_HF_MAY_BIAS},
    {"layers.#.mlp.dense_h_to_4h", "blk.#.ffn_up", "FD", 0, KH_HF_BIAS},
    {"layers.#.mlp.dense_4h_to_h", "blk.#.ffn_down", "DF", 0, KH_HF_BIAS},
    {"layers.#.attention.bias", 0, 0, 0, 0},
    {"layers.#.attention.masked_bias", 0, 0, 0, 0},
    {"layers.#.attention.rotary_emb.inv_freq", 0, 0, 0, 0},
    {0}};
static const kh_hf_map hf = {.model_types = "gpt_neox",
                             .architectures = "GPTNeoXForCausalLM|GPTNeoXModel",
                             .prefixes = "gpt_neox.|",
                             .keys = hf_keys,
                             .tensors = hf_tensors,
                             .flags = KH_HF_ROTARY,
                             .rotated = 0.25};

const kh_family kh_family_gptneox = {.name = "gptneox",
                                     .hf = &hf,
                                     .parts = KH_PARTS_DECODER | KH_PART_NORM_BIAS |
                                              KH_PART_FF_BIAS,
                                     .optional = KH_PART_QKV_BIAS | KH_PART_OUT_BIAS | KH_PART_HEAD,
                                     .norm = KH_NORM_LAYER,
                                     .rope_style = KH_ROPE_HALF,
                                     .act = KH_ACT_GELU_ERF,
                                     .describe = describe};
