/* qwen2 and qwen3: pre-norm, SwiGLU, rotation of halves.
 *
 * Qwen2 has biases on q, k and v; Qwen3 drops them and normalises every query and key head (qk-norm,
 * before the rotation); its head width is given by key_length and is not D / H. */
#include "model/families.h"

const kh_family kh_family_qwen2 = {
    .name = "qwen2", .parts = KH_PART_QKV_BIAS, .rope_style = KH_ROPE_HALF, .act = KH_ACT_SILU};

const kh_family kh_family_qwen3 = {.name = "qwen3",
                                   .parts = KH_PART_QK_NORM,
                                   .optional = KH_PART_QKV_BIAS,
                                   .rope_style = KH_ROPE_HALF,
                                   .act = KH_ACT_SILU};
