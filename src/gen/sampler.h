/* gen/sampler.h: from logits to one id. */
#ifndef KH_GEN_SAMPLER_H
#define KH_GEN_SAMPLER_H

#include "kern/kern.h"

#include <keyhole/session.h>

typedef struct kh_candidate {
    float logit;
    int32_t id;
} kh_candidate;

typedef struct kh_sampler {
    kh_sampler_options options;
    const kh_kern *kern;
    size_t V;
    float *scratch;           /* [V] */
    kh_candidate *candidates; /* [V] */
    uint64_t drawn;           /* counter of the random numbers */
    size_t kept;              /* candidates that the last draw was among */
    double mass;              /* sum of their exponentials at the temperature */
} kh_sampler;

kh_status kh_sampler_open(kh_sampler *sampler, const kh_sampler_options *options,
                          const kh_kern *kern, size_t V);
void kh_sampler_close(kh_sampler *sampler);
/* Draws from logits [V] (not changed); `recent` [count] are the last tokens, for the penalty. */
int32_t kh_sampler_draw(kh_sampler *sampler, const float *logits, const int32_t *recent,
                        size_t count);
/* The probability that an id had in the last draw. */
double kh_sampler_share(const kh_sampler *sampler, int32_t id);
/* log of the sum of exponentials: what logprobs are relative to. */
double kh_log_sum_exp(const kh_kern *kern, float *scratch /* [n] */, const float *logits, size_t n);
/* The `n` largest logits in descending order (ties: lower id first); out [n]. */
void kh_largest(kh_candidate *out, size_t n, const float *logits, size_t V);

#endif
