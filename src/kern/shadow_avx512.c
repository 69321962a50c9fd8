/* Reading a shadow with AVX-512: shadow_body.h, six queries by 64 keys. A pair of products is two
 * instructions (vpmaddwd, vpaddd); the queries keep 15 bits, so the keys' 8 are all that is lost. */
#include "kern/shadow_avx512.h"

#define BODY                 shadow_score_avx512
#define dot_pairs(sum, k, q) _mm512_add_epi32(sum, _mm512_madd_epi16(k, q))
#include "kern/shadow_body.h"
