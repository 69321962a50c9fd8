/* bert: BERT and RoBERTa; nomic-bert: nomic-embed: encoders. Norms stand on the residual stream behind
 * attention and feed-forward, and on the embeddings.
 *
 * BERT adds embeddings of positions and of the text a token belongs to, has biases and exact GELU. RoBERTa's
 * positions begin behind two rows that files of this format leave out. Nomic's encoder rotates instead, has
 * SwiGLU and no biases. A file may bring the head that predicts masked tokens (mask_dense, mask_norm,
 * output), or the one that finds answers (span_output). */
#include "model/families.h"

enum {
    PARTS = KH_PART_POST_NORM | KH_PART_NORM_BIAS | KH_PART_EMBED_NORM | KH_PART_FF,
    HEADS = KH_PART_MASK_HEAD | KH_PART_SPAN_HEAD | KH_PART_HEAD | KH_PART_TYPES
};

const kh_family kh_family_bert = {.name = "bert",
                                  .parts = PARTS | KH_PART_QKV_BIAS | KH_PART_OUT_BIAS |
                                           KH_PART_FF_BIAS | KH_PART_POSITIONS,
                                  .optional = HEADS,
                                  .structure = KH_ENCODER,
                                  .norm = KH_NORM_LAYER,
                                  .form = KH_BLOCK_POST,
                                  .positions = KH_POSITIONS_LEARNED,
                                  .act = KH_ACT_GELU_ERF};

const kh_family kh_family_nomic_bert = {.name = "nomic-bert",
                                        .parts = PARTS | KH_PART_GATE,
                                        .optional = HEADS | KH_PART_QKV_BIAS,
                                        .structure = KH_ENCODER,
                                        .norm = KH_NORM_LAYER,
                                        .form = KH_BLOCK_POST,
                                        .rope_style = KH_ROPE_HALF,
                                        .act = KH_ACT_SILU};
