/* phi3: Phi 3, 3.5 and 4: llama's blocks with q, k, v in one tensor and gate and up in another.
 *
 * The long-context variants rotate by two sets of divisors: rope_factors_short.weight while a session's
 * context is the original one, rope_factors_long.weight beyond, both with the magnitude
 * rope.scaling.attn_factor. Small ones rotate a part of a head, or see a window. */
#include "model/families.h"

static kh_status describe(kh_description *d, const kh_gguf *file)
{
    return kh_describe_window(d, &kh_family_phi3, file, 0);
}

const kh_family kh_family_phi3 = {.name = "phi3",
                                  .parts = KH_PARTS_DECODER | KH_PART_GATE,
                                  .optional = KH_PART_HEAD | KH_PART_ROPE,
                                  .rope_style = KH_ROPE_HALF,
                                  .act = KH_ACT_SILU,
                                  .describe = describe};
