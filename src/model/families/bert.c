/* bert: BERT, RoBERTa and DistilBERT; nomic-bert: nomic-embed: encoders. Norms stand on the residual stream behind
 * attention and feed-forward, and on the embeddings.
 *
 * BERT adds embeddings of positions and of the text a token belongs to, has biases and exact GELU. RoBERTa's
 * positions begin behind two rows that files of this format leave out. DistilBERT is BERT under other names and
 * without the text a token belongs to. Nomic's encoder rotates instead, has SwiGLU and no biases. A file may bring the head that predicts masked tokens (mask_dense, mask_norm,
 * output), or the one that finds answers (span_output). */
#include "base/fail.h"
#include "model/families.h"
#include "model/hf.h"

enum {
    PARTS = KH_PART_POST_NORM | KH_PART_NORM_BIAS | KH_PART_EMBED_NORM | KH_PART_FF,
    HEADS = KH_PART_MASK_HEAD | KH_PART_SPAN_HEAD | KH_PART_HEAD | KH_PART_TYPES
};

/* ---- Hugging Face ---- */

#define COMMON_KEYS                                                                                \
    {"hidden_act", "gelu|gelu_new|gelu_pytorch_tanh|relu|silu", KH_HF_EXPECT, 0, 0},               \
        {"hidden_act", "hidden_activation", KH_HF_TEXT, KH_HF_SKIP, 0},                            \
        {"position_embedding_type", "absolute", KH_HF_EXPECT, 0, 0},                               \
        {"is_decoder", "false", KH_HF_EXPECT, 0, 0},                                               \
        {"", "attention.causal", KH_HF_BOOL, KH_HF_USE, 0},                                        \
        {"layer_norm_eps", "attention.layer_norm_epsilon", KH_HF_REAL, KH_HF_USE, 1e-12},          \
    {                                                                                              \
        "type_vocab_size", "tokenizer.ggml.token_type_count", KH_HF_INT, KH_HF_USE, 1              \
    }
static const kh_hf_key bert_keys[] = {COMMON_KEYS, {0}};
#define STACK                                                                                      \
    {"embeddings.word_embeddings", "token_embd", "VD", 0, 0},                                      \
        {"embeddings.position_embeddings", "position_embd", "PD", KH_HF_POSITIONS, 0},             \
        {"embeddings.token_type_embeddings", "token_types", "TD", 0, 0},                           \
        {"embeddings.LayerNorm", "token_embd_norm", "D", 0, KH_HF_BIAS},                           \
        {"encoder.layer.#.attention.self.query", "blk.#.attn_q", "QD", 0, KH_HF_BIAS},             \
        {"encoder.layer.#.attention.self.key", "blk.#.attn_k", "KD", 0, KH_HF_BIAS},               \
        {"encoder.layer.#.attention.self.value", "blk.#.attn_v", "KD", 0, KH_HF_BIAS},             \
        {"encoder.layer.#.attention.output.dense", "blk.#.attn_output", "DQ", 0, KH_HF_BIAS},      \
        {"encoder.layer.#.attention.output.LayerNorm", "blk.#.attn_output_norm", "D", 0,           \
         KH_HF_BIAS},                                                                              \
        {"encoder.layer.#.intermediate.dense", "blk.#.ffn_up", "FD", 0, KH_HF_BIAS},               \
        {"encoder.layer.#.output.dense", "blk.#.ffn_down", "DF", 0, KH_HF_BIAS},                   \
    {                                                                                              \
        "encoder.layer.#.output.LayerNorm", "blk.#.layer_output_norm", "D", 0, KH_HF_BIAS          \
    }
static const kh_hf_tensor bert_tensors[] = {
    STACK,
    {"cls.predictions.transform.dense", "mask_dense", "DD", 0, KH_HF_BIAS | KH_HF_OPTIONAL},
    {"cls.predictions.transform.LayerNorm", "mask_norm", "D", 0, KH_HF_BIAS | KH_HF_OPTIONAL},
    {"cls.predictions.decoder", "output", "VD", 0, KH_HF_HEAD | KH_HF_OPTIONAL},
    {"cls.predictions", "output", "VD", 0, KH_HF_ONLY_BIAS | KH_HF_OPTIONAL},
    {"lm_head.dense", "mask_dense", "DD", 0, KH_HF_BIAS | KH_HF_OPTIONAL},
    {"lm_head.layer_norm", "mask_norm", "D", 0, KH_HF_BIAS | KH_HF_OPTIONAL},
    {"lm_head.decoder", "output", "VD", 0, KH_HF_HEAD | KH_HF_OPTIONAL},
    {"lm_head", "output", "VD", 0, KH_HF_ONLY_BIAS | KH_HF_OPTIONAL},
    {"qa_outputs", "span_output", "2D", 0, KH_HF_BIAS | KH_HF_OPTIONAL},
    {"embeddings.position_ids", 0, 0, 0, 0},
    {"pooler.dense.*", 0, 0, 0, 0},
    {"cls.predictions.decoder.bias", 0, 0, 0, 0}, /* once more */
    {"lm_head.decoder.bias", 0, 0, 0, 0},
    {"cls.seq_relationship.*", 0, 0, 0, 0},
    {0}};

/* The first position is the one behind the padding id. */
static kh_status skip_padding(kh_hf *hf)
{
    double pad = 1, positions = 0;
    KH_TRY(kh_hf_number(hf, "pad_token_id", &pad));
    KH_TRY(kh_hf_number(hf, "max_position_embeddings", &positions));
    if (!(pad >= 0 && positions > pad + 1 && positions < 1e9))
        KH_FAIL(KH_ERR_FORMAT,
                "config.json: max_position_embeddings beyond pad_token_id is expected, found %g "
                "and %g",
                positions, pad);
    kh_hf_skip_positions(hf, (uint64_t)pad + 1);
    return kh_hf_set_int(hf, "context_length", (uint64_t)(positions - pad - 1));
}

static const kh_hf_key distil_keys[] = {
    {"n_layers", "block_count", KH_HF_INT, KH_HF_NEED, 0},
    {"dim", "embedding_length", KH_HF_INT, KH_HF_NEED, 0},
    {"hidden_dim", "feed_forward_length", KH_HF_INT, KH_HF_NEED, 0},
    {"n_heads", "attention.head_count", KH_HF_INT, KH_HF_NEED, 0},
    {"activation", "gelu|relu", KH_HF_EXPECT, 0, 0},
    {"activation", "hidden_activation", KH_HF_TEXT, KH_HF_SKIP, 0},
    {"", "attention.causal", KH_HF_BOOL, KH_HF_USE, 0},
    {"", "attention.layer_norm_epsilon", KH_HF_REAL, KH_HF_USE, 1e-12},
    {0}};
static const kh_hf_tensor distil_tensors[] = {
    {"embeddings.word_embeddings", "token_embd", "VD", 0, 0},
    {"embeddings.position_embeddings", "position_embd", "PD", 0, 0},
    {"embeddings.LayerNorm", "token_embd_norm", "D", 0, KH_HF_BIAS},
    {"transformer.layer.#.attention.q_lin", "blk.#.attn_q", "QD", 0, KH_HF_BIAS},
    {"transformer.layer.#.attention.k_lin", "blk.#.attn_k", "KD", 0, KH_HF_BIAS},
    {"transformer.layer.#.attention.v_lin", "blk.#.attn_v", "KD", 0, KH_HF_BIAS},
    {"transformer.layer.#.attention.out_lin", "blk.#.attn_output", "DQ", 0, KH_HF_BIAS},
    {"transformer.layer.#.sa_layer_norm", "blk.#.attn_output_norm", "D", 0, KH_HF_BIAS},
    {"transformer.layer.#.ffn.lin1", "blk.#.ffn_up", "FD", 0, KH_HF_BIAS},
    {"transformer.layer.#.ffn.lin2", "blk.#.ffn_down", "DF", 0, KH_HF_BIAS},
    {"transformer.layer.#.output_layer_norm", "blk.#.layer_output_norm", "D", 0, KH_HF_BIAS},
    {"vocab_transform", "mask_dense", "DD", 0, KH_HF_BIAS | KH_HF_OPTIONAL},
    {"vocab_layer_norm", "mask_norm", "D", 0, KH_HF_BIAS | KH_HF_OPTIONAL},
    {"vocab_projector", "output", "VD", 0, KH_HF_HEAD | KH_HF_OPTIONAL},
    {"vocab_projector", "output", "VD", 0, KH_HF_ONLY_BIAS | KH_HF_OPTIONAL},
    {"qa_outputs", "span_output", "2D", 0, KH_HF_BIAS | KH_HF_OPTIONAL},
    {"embeddings.position_ids", 0, 0, 0, 0},
    {0}};

/* Classifiers: a dense layer over the first row, and one over that. */
static const kh_hf_key class_keys[] = {
    COMMON_KEYS,
    {"num_labels", "classifier.classes", KH_HF_INT, KH_HF_SKIP, 0},
    {"", "pooling_type", KH_HF_INT, KH_HF_USE, 2},
    {0}};
static const kh_hf_tensor bert_class_tensors[] = {STACK,
                                                  {"pooler.dense", "cls", "DD", 0, KH_HF_BIAS},
                                                  {"classifier", "cls.output", "CD", 0, KH_HF_BIAS},
                                                  {"embeddings.position_ids", 0, 0, 0, 0},
                                                  {0}};
static const kh_hf_tensor roberta_class_tensors[] = {
    STACK,
    {"classifier.dense", "cls", "DD", 0, KH_HF_BIAS},
    {"classifier.out_proj", "cls.output", "CD", 0, KH_HF_BIAS},
    {"embeddings.position_ids", 0, 0, 0, 0},
    {0}};

static const kh_hf_map roberta_class_hf = {
    .model_types = "roberta|xlm-roberta|camembert",
    .architectures = "RobertaForSequenceClassification|XLMRobertaForSequenceClassification",
    .prefixes = "roberta.|",
    .keys = class_keys,
    .tensors = roberta_class_tensors,
    .flags = KH_HF_TIED | KH_HF_EXACT | KH_HF_CLASSES,
    .adjust = skip_padding};
static const kh_hf_map bert_class_hf = {.model_types = "bert",
                                        .architectures = "BertForSequenceClassification",
                                        .prefixes = "bert.|",
                                        .keys = class_keys,
                                        .tensors = bert_class_tensors,
                                        .flags = KH_HF_TIED | KH_HF_EXACT | KH_HF_CLASSES,
                                        .next = &roberta_class_hf};
static const kh_hf_map distil_hf = {
    .model_types = "distilbert",
    .architectures = "DistilBertForMaskedLM|DistilBertModel|DistilBertForQuestionAnswering",
    .prefixes = "distilbert.|",
    .keys = distil_keys,
    .tensors = distil_tensors,
    .flags = KH_HF_TIED,
    .next = &bert_class_hf};
static const kh_hf_map roberta_hf = {
    .model_types = "roberta|xlm-roberta|camembert",
    .architectures = "RobertaForMaskedLM|RobertaModel|RobertaForQuestionAnswering",
    .prefixes = "roberta.|",
    .keys = bert_keys,
    .tensors = bert_tensors,
    .flags = KH_HF_TIED,
    .adjust = skip_padding,
    .next = &distil_hf};
static const kh_hf_map bert_hf = {
    .model_types = "bert",
    .architectures = "BertForMaskedLM|BertModel|BertForPreTraining|BertForQuestionAnswering",
    .prefixes = "bert.|",
    .keys = bert_keys,
    .tensors = bert_tensors,
    .flags = KH_HF_TIED,
    .next = &roberta_hf};

static const kh_hf_key nomic_keys[] = {
    {"activation_function", "swiglu", KH_HF_EXPECT, 0, 0},
    {"qkv_proj_bias", "blk.0.attn_qkv.bias", KH_HF_HAS, 0, 0},
    {"mlp_fc1_bias", "false", KH_HF_EXPECT, 0, 0},
    {"mlp_fc2_bias", "false", KH_HF_EXPECT, 0, 0},
    {"causal", "false", KH_HF_EXPECT, 0, 0},
    {"prenorm", "false", KH_HF_EXPECT, 0, 0},
    {"parallel_block", "false", KH_HF_EXPECT, 0, 0},
    {"use_rms_norm", "false", KH_HF_EXPECT, 0, 0},
    {"rotary_emb_fraction", "1", KH_HF_EXPECT, 0, 0},
    {"rotary_emb_interleaved", "false", KH_HF_EXPECT, 0, 0},
    {"rotary_emb_scale_base", "none", KH_HF_EXPECT, 0, 0},
    {"rotary_scaling_factor", "none", KH_HF_EXPECT, 0, 0},
    {"", "attention.causal", KH_HF_BOOL, KH_HF_USE, 0},
    {"max_trained_positions|n_positions", "context_length", KH_HF_INT, KH_HF_NEED, 0},
    {"layer_norm_epsilon", "attention.layer_norm_epsilon", KH_HF_REAL, KH_HF_USE, 1e-12},
    {"rotary_emb_base", "rope.freq_base", KH_HF_REAL, KH_HF_USE, 10000},
    {"type_vocab_size", "tokenizer.ggml.token_type_count", KH_HF_INT, KH_HF_USE, 1},
    {0}};
static const kh_hf_tensor nomic_tensors[] = {
    {"embeddings.word_embeddings", "token_embd", "VD", 0, 0},
    {"embeddings.token_type_embeddings", "token_types", "TD", 0, KH_HF_OPTIONAL},
    {"emb_ln", "token_embd_norm", "D", 0, KH_HF_BIAS},
    {"encoder.layers.#.attn.Wqkv", "blk.#.attn_qkv", "AD", 0, KH_HF_MAY_BIAS},
    {"encoder.layers.#.attn.out_proj", "blk.#.attn_output", "DQ", 0, KH_HF_MAY_BIAS},
    {"encoder.layers.#.norm1", "blk.#.attn_output_norm", "D", 0, KH_HF_BIAS},
    {"encoder.layers.#.mlp.fc11", "blk.#.ffn_up", "FD", 0, 0},
    {"encoder.layers.#.mlp.fc12", "blk.#.ffn_gate", "FD", 0, 0},
    {"encoder.layers.#.mlp.fc2", "blk.#.ffn_down", "DF", 0, 0},
    {"encoder.layers.#.norm2", "blk.#.layer_output_norm", "D", 0, KH_HF_BIAS},
    {"encoder.layers.#.attn.rotary_emb.inv_freq", 0, 0, 0, 0},
    {0}};
static const kh_hf_map nomic_hf = {.model_types = "nomic_bert",
                                   .architectures = "NomicBertModel",
                                   .prefixes = "|bert.",
                                   .keys = nomic_keys,
                                   .tensors = nomic_tensors,
                                   .flags = KH_HF_ROTARY | KH_HF_TIED,
                                   .dialect = 1};

const kh_family kh_family_bert = {.name = "bert",
                                  .hf = &bert_hf,
                                  .parts = PARTS | KH_PART_QKV_BIAS | KH_PART_OUT_BIAS |
                                           KH_PART_FF_BIAS | KH_PART_POSITIONS,
                                  .optional = HEADS,
                                  .structure = KH_ENCODER,
                                  .norm = KH_NORM_LAYER,
                                  .form = KH_BLOCK_POST,
                                  .positions = KH_POSITIONS_LEARNED,
                                  .act = KH_ACT_GELU_ERF,
                                  .open_act = 1};

const kh_family kh_family_nomic_bert = {.name = "nomic-bert",
                                        .hf = &nomic_hf,
                                        .parts = PARTS | KH_PART_GATE,
                                        .optional = HEADS | KH_PART_QKV_BIAS,
                                        .structure = KH_ENCODER,
                                        .norm = KH_NORM_LAYER,
                                        .form = KH_BLOCK_POST,
                                        .rope_style = KH_ROPE_HALF,
                                        .act = KH_ACT_SILU};
