/* gptneox: GPT-NeoX, Pythia: attention and feed-forward both read the same residual stream, through norms
 * of their own, and are added together (unless the file says otherwise); part of a head is rotated; exact
 * GELU; q, k and v in one tensor. */
#include "base/fail.h"
#include "model/families.h"

static kh_status describe(kh_description *d, const kh_gguf *file)
{
    int parallel = 1;
    KH_TRY(kh_gguf_opt_bool(file, "gptneox.use_parallel_residual", &parallel));
    d->form = parallel ? KH_BLOCK_PARALLEL : KH_BLOCK_PRE;
    return KH_OK;
}

const kh_family kh_family_gptneox = {.name = "gptneox",
                                     .parts = KH_PARTS_DECODER | KH_PART_NORM_BIAS |
                                              KH_PART_FF_BIAS,
                                     .optional = KH_PART_QKV_BIAS | KH_PART_OUT_BIAS | KH_PART_HEAD,
                                     .norm = KH_NORM_LAYER,
                                     .rope_style = KH_ROPE_HALF,
                                     .act = KH_ACT_GELU_ERF,
                                     .describe = describe};
