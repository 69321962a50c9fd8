/* t5: T5 v1.0 and v1.1, Flan-T5, UnifiedQA: an encoder and a decoder that also attends to it; t5encoder: the
 * encoder alone.
 *
 * Pre-norm blocks with RMSNorm and no biases. Distances bias the scores by a table of the first block that
 * all blocks of a stack share; cross-attention has none. Scores are not scaled. v1.0 has ReLU, and a head
 * tied to the embedding behind a factor of D^-1/2; v1.1 a gate with GELU and a head of its own. */
#include "base/fail.h"
#include "model/families.h"
#include "model/hf.h"

#include <math.h>

static kh_status relative(kh_description *d, const kh_gguf *file, const char *buckets,
                          const char *distance)
{
    uint64_t n = 0, most = 128;
    KH_TRY(kh_gguf_u64(file, buckets, &n, 1 << 16));
    KH_TRY(kh_gguf_opt_u64(file, distance, &most, 1 << 30));
    if (n < 4 || n % 2 != 0)
        KH_FAIL(KH_ERR_FORMAT, "%s: an even number from 4 on is expected, found %llu", buckets,
                (unsigned long long)n);
    if (most < n)
        KH_FAIL(KH_ERR_FORMAT, "%s: at least the %llu buckets are expected, found %llu", distance,
                (unsigned long long)n, (unsigned long long)most);
    d->buckets = (int)n;
    d->max_distance = (int)most;
    d->attn_scale = 1;
    if (kh_gguf_tensor(file, "enc.blk.0.ffn_gate.weight")) d->act = KH_ACT_GELU_TANH;
    return KH_OK;
}

static kh_status describe(kh_description *d, const kh_gguf *file)
{
    uint64_t start = 0;
    KH_TRY(relative(d, file, "t5.attention.relative_buckets_count",
                    "t5.attention.relative_max_distance"));
    KH_TRY(kh_gguf_opt_u64(file, "t5.decoder_start_token_id", &start, (uint64_t)d->V - 1));
    d->start = (int)start;
    if (!kh_gguf_tensor(file, "output.weight")) d->logit_scale = 1.0f / sqrtf((float)d->D);
    return KH_OK;
}

static kh_status describe_encoder(kh_description *d, const kh_gguf *file)
{
    return relative(d, file, "t5encoder.attention.relative_buckets_count",
                    "t5encoder.attention.relative_max_distance");
}

/* ---- Hugging Face: one of three names carries the embedding ---- */

static const kh_hf_key hf_keys[] = {
    {"feed_forward_proj", "relu|gated-gelu", KH_HF_EXPECT, 0, 0},
    {"feed_forward_proj", "enc.blk.0.ffn_gate.weight?gated-gelu:relu", KH_HF_HAS, 0, 0},
    {"n_positions", "context_length", KH_HF_INT, KH_HF_USE, 512},
    {"layer_norm_epsilon", "attention.layer_norm_rms_epsilon", KH_HF_REAL, KH_HF_USE, 1e-6},
    {"relative_attention_num_buckets", "attention.relative_buckets_count", KH_HF_INT, KH_HF_USE,
     32},
    {"relative_attention_max_distance", "attention.relative_max_distance", KH_HF_INT, KH_HF_SKIP,
     0},
    {"num_decoder_layers", "decoder_block_count", KH_HF_INT, KH_HF_SKIP, 0},
    {"decoder_start_token_id", "decoder_start_token_id", KH_HF_INT, KH_HF_USE, 0},
    {0}};

#define EMBEDDING                                                                                  \
    {"shared", "token_embd", "VD", 0, KH_HF_OPTIONAL},                                             \
        {"encoder.embed_tokens", "token_embd", "VD", 0, KH_HF_AGAIN},                              \
    {                                                                                              \
        "decoder.embed_tokens", "token_embd", "VD", 0, KH_HF_AGAIN                                 \
    }
#define FEED_FORWARD(in, out, i)                                                                   \
    {in ".layer." i ".layer_norm", out ".ffn_norm", "D", 0, 0},                                    \
        {in ".layer." i ".DenseReluDense.wi", out ".ffn_up", "FD", 0,                              \
         KH_HF_OPTIONAL | KH_HF_UNGATED},                                                          \
        {in ".layer." i ".DenseReluDense.wi_0", out ".ffn_gate", "FD", 0, KH_HF_OPTIONAL},         \
        {in ".layer." i ".DenseReluDense.wi_1", out ".ffn_up", "FD", 0, KH_HF_OPTIONAL},           \
    {                                                                                              \
        in ".layer." i ".DenseReluDense.wo", out ".ffn_down", "DF", 0, 0                           \
    }
#define ATTENTION(in, out)                                                                         \
    {in ".q", out "attn_q", "QD", 0, 0}, {in ".k", out "attn_k", "KD", 0, 0},                      \
        {in ".v", out "attn_v", "KD", 0, 0},                                                       \
    {                                                                                              \
        in ".o", out "attn_o", "DQ", 0, 0                                                          \
    }
#define SELF(stack, short)                                                                         \
    {stack ".block.#.layer.0.layer_norm", short ".blk.#.attn_norm", "D", 0, 0},                    \
        ATTENTION(stack ".block.#.layer.0.SelfAttention", short ".blk.#."),                        \
        {stack ".block.0.layer.0.SelfAttention.relative_attention_bias",                           \
         short ".blk.0.attn_rel_b", "BH", 0, 0},                                                   \
    {                                                                                              \
        stack ".final_layer_norm", short ".output_norm", "D", 0, 0                                 \
    }

static const kh_hf_tensor encoder_tensors[] = {
    EMBEDDING, SELF("encoder", "enc"), FEED_FORWARD("encoder.block.#", "enc.blk.#", "1"), {0}};
static const kh_hf_tensor hf_tensors[] = {
    EMBEDDING,
    SELF("encoder", "enc"),
    FEED_FORWARD("encoder.block.#", "enc.blk.#", "1"),
    SELF("decoder", "dec"),
    {"decoder.block.#.layer.1.layer_norm", "dec.blk.#.cross_attn_norm", "D", 0, 0},
    ATTENTION("decoder.block.#.layer.1.EncDecAttention", "dec.blk.#.cross_"),
    FEED_FORWARD("decoder.block.#", "dec.blk.#", "2"),
    {"lm_head", "output", "VD", 0, KH_HF_HEAD},
    {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight", 0, 0, 0, 0},
    {0}};
static const kh_hf_map hf = {.model_types = "t5|mt5",
                             .architectures = "T5ForConditionalGeneration|T5WithLMHeadModel|"
                                              "MT5ForConditionalGeneration",
                             .prefixes = "",
                             .keys = hf_keys,
                             .tensors = hf_tensors,
                             .flags = KH_HF_TIED,
                             .dialect = 2};
static const kh_hf_map encoder_hf = {.model_types = "t5|mt5",
                                     .architectures = "T5EncoderModel|MT5EncoderModel",
                                     .prefixes = "",
                                     .keys = hf_keys,
                                     .tensors = encoder_tensors,
                                     .flags = KH_HF_TIED | KH_HF_EXACT,
                                     .dialect = 2};

const kh_family kh_family_t5 = {.name = "t5",
                                .hf = &hf,
                                .parts = KH_PARTS_DECODER | KH_PART_CROSS | KH_PART_RELATIVE,
                                .optional = KH_PART_GATE | KH_PART_HEAD,
                                .structure = KH_ENCODER_DECODER,
                                .positions = KH_POSITIONS_RELATIVE,
                                .act = KH_ACT_RELU,
                                .describe = describe};

const kh_family kh_family_t5encoder = {.name = "t5encoder",
                                       .hf = &encoder_hf,
                                       .parts = KH_PART_PRE_NORM | KH_PART_FF | KH_PART_RELATIVE |
                                                KH_PART_ALONE,
                                       .optional = KH_PART_GATE,
                                       .structure = KH_ENCODER,
                                       .positions = KH_POSITIONS_RELATIVE,
                                       .act = KH_ACT_RELU,
                                       .describe = describe_encoder};
