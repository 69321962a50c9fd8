/* lra: the encoder of the Long Range Arena: BERT's shape with LayerNorm before attention and feed-forward and
 * behind the last block, GELU in its tanh form, embeddings of positions (sinusoids, or learned). Biases in the
 * feed-forward layers; attention's projections have none unless a file brings them. */
#include "model/families.h"

const kh_family kh_family_lra = {.name = "lra",
                                 .parts = KH_PART_PRE_NORM | KH_PART_NORM_BIAS |
                                          KH_PART_FINAL_NORM | KH_PART_FF | KH_PART_FF_BIAS |
                                          KH_PART_POSITIONS,
                                 .optional = KH_PART_QKV_BIAS | KH_PART_OUT_BIAS | KH_PART_TYPES |
                                             KH_PART_MASK_HEAD | KH_PART_HEAD,
                                 .structure = KH_ENCODER,
                                 .norm = KH_NORM_LAYER,
                                 .positions = KH_POSITIONS_LEARNED,
                                 .act = KH_ACT_GELU_TANH};
