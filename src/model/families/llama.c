/* llama: Llama 1 to 3, SmolLM, Mistral, TinyLlama and their relatives.
 *
 * Pre-norm blocks with RMSNorm, grouped query heads, SwiGLU. The rows of q and k are permuted in GGUF
 * files of this architecture, so that the rotation works on neighbouring pairs. Some relatives carry
 * biases on q, k, v; they are taken when present. Llama 3.1 and later bring rope_freqs.weight. */
#include "model/families.h"

const kh_family kh_family_llama = {
    .name = "llama", .optional = KH_PART_QKV_BIAS, .rope_style = KH_ROPE_PAIRS, .act = KH_ACT_SILU};
