/* gpt2: LayerNorm before attention and feed-forward, learned positions, biases everywhere, no gate, GELU in
 * its tanh form, the head tied to the embedding. q, k and v lie in one tensor. */
#include "model/families.h"

const kh_family kh_family_gpt2 = {.name = "gpt2",
                                  .parts = KH_PARTS_DECODER | KH_PART_NORM_BIAS | KH_PART_QKV_BIAS |
                                           KH_PART_OUT_BIAS | KH_PART_FF_BIAS | KH_PART_POSITIONS,
                                  .optional = KH_PART_HEAD,
                                  .norm = KH_NORM_LAYER,
                                  .positions = KH_POSITIONS_LEARNED,
                                  .act = KH_ACT_GELU_TANH};
