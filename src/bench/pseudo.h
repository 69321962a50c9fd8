/* bench/pseudo.h: pseudo-perplexity of models that predict masked tokens. */
#ifndef KH_BENCH_PSEUDO_H
#define KH_BENCH_PSEUDO_H

#include <keyhole/eval.h>

/* As kh_ppl, which calls it for encoders: windows of options->context (0: the trained length) without overlap;
 * stride and like_llama have no meaning here. ppl_second and keys_kept are NaN. */
kh_status kh_ppl_pseudo(const kh_model *model, const int32_t *ids, size_t count,
                        const kh_ppl_options *options, kh_ppl_result *results);

#endif
