/* bench/plant.h: a long text with facts planted in it, as tokens. */
#ifndef KH_BENCH_PLANT_H
#define KH_BENCH_PLANT_H

#include <keyhole/eval.h>
#include <stddef.h>
#include <stdint.h>

typedef struct kh_planted_fact {
    float depth;       /* of its first token, 0 to 1 */
    size_t first, end; /* its tokens: [first, end) */
} kh_planted_fact;

typedef struct kh_planted {
    char *text; /* [size]: the document with the facts */
    size_t size;
    int32_t *ids;    /* [count] */
    size_t *offsets; /* [count]: byte of the text where a token begins */
    size_t count;
    kh_planted_fact *facts;
} kh_planted;

/* Plants the facts at even depths of the first part of `text` that, with them, has about `tokens` tokens
 * and never more. A text that is too short is KH_ERR_ARGUMENT. */
kh_status kh_plant(kh_planted *out, const kh_model *model, const char *text, size_t size,
                   const kh_fact *facts, size_t fact_count, size_t tokens);
void kh_planted_free(kh_planted *planted);

#endif
