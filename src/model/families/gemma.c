/* gemma3: norms on both sides of each block, qk-norm, GeGLU, windows in five of six layers.
 *
 * The token embedding is scaled by sqrt(D). Norm gains are stored as 1 + g, so the common RMSNorm
 * serves. Every sixth layer is global; the others see the last sliding_window keys and rotate by a
 * base of their own (10,000, never scaled). The 27B model (62 layers) scales its scores by the model
 * width per head, all others by the head width. */
#include "base/fail.h"
#include "model/families.h"

#include <math.h>

enum { PERIOD = 6, LAYERS_27B = 62 };

static kh_status describe(kh_description *d, const kh_gguf *file)
{
    uint64_t window = 0;
    KH_TRY(kh_gguf_opt_u64(file, "gemma3.attention.sliding_window", &window, 1 << 30));
    d->window = (int)window;
    const kh_gguf_value *pattern = kh_gguf_find(file, "gemma3.attention.sliding_window_pattern");
    for (int l = 0; l < d->N && window > 0; l++) {
        uint64_t local = l % PERIOD != PERIOD - 1;
        if (pattern && pattern->kind == KH_GGUF_ARRAY) {
            KH_TRY(kh_gguf_element_u64(pattern, (uint64_t)l, &local));
        } else if (pattern) {
            uint64_t period = PERIOD;
            KH_TRY(kh_gguf_element_u64(pattern, 0, &period));
            local = period > 0 && (uint64_t)l % period != period - 1;
        }
        d->local[l] = local != 0;
    }
    kh_rope_spec *local_rope = &d->rope[1];
    local_rope->base = 10000;
    KH_TRY(kh_gguf_opt_f64(file, "gemma3.rope.local.freq_base", &local_rope->base));
    KH_TRY(kh_gguf_opt_f64(file, "gemma3.rope.freq_base_swa", &local_rope->base));
    if (!(local_rope->base > 0))
        KH_FAIL(KH_ERR_FORMAT, "gemma3: the local rope base is not positive");
    local_rope->scaling = KH_ROPE_NONE;
    local_rope->factor = 1;
    d->embed_scale = sqrtf((float)d->D);
    if (d->N == LAYERS_27B) d->attn_scale = 1.0f / sqrtf((float)d->D / (float)d->H);
    return KH_OK;
}

const kh_family kh_family_gemma3 = {.name = "gemma3",
                                    .parts = KH_PART_QK_NORM | KH_PART_POST_NORM,
                                    .rope_style = KH_ROPE_HALF,
                                    .act = KH_ACT_GELU_TANH,
                                    .describe = describe};
