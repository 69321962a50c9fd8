/* Biases by distance, expanded once a call.
 *
 * A bias depends on (head, key - query) alone, for T5's buckets and for ALiBi alike. So each head gets
 * one row of numbers over all distances that occur, [T + S - 1] of them, and the biases of a page of
 * keys for a query are a slice of it:
 *
 *     distance   -origin ................ 0 ............ span - 1 - origin
 *     query at p, keys 64 n ..:   slice from 64 n - p + origin
 *
 * Memory is linear in the length; T x S biases never exist. Values are divided by the scale, because
 * methods choose on raw scores: raw + bias / scale, times scale, is the biased score.
 *
 * Sources: Raffel et al. 2020 (relative position buckets), Press et al. 2022 (ALiBi). */
#include "attn/bias.h"

#include <math.h>

size_t kh_attn_relative_bucket(long distance, int bidirectional, size_t buckets,
                               size_t max_distance)
{
    size_t base = 0, back;
    if (bidirectional) {
        buckets /= 2;
        if (distance > 0) base = buckets;
        back = (size_t)(distance < 0 ? -distance : distance);
    } else {
        back = distance < 0 ? (size_t)-distance : 0;
    }
    size_t exact = buckets / 2;
    if (back < exact || exact == 0) return base + (back < buckets ? back : buckets - 1);
    double ratio = log((double)back / (double)exact) / log((double)max_distance / (double)exact);
    size_t bucket = exact + (size_t)(ratio * (double)(buckets - exact));
    return base + (bucket < buckets ? bucket : buckets - 1);
}

void kh_attn_expand_bias(float *out, const kh_attention_bias *bias, size_t H, size_t span,
                         size_t origin, int bidirectional, float scale)
{
    size_t buckets = (size_t)bias->buckets;
    for (size_t i = 0; i < span; i++) {
        long distance = (long)i - (long)origin;
        size_t bucket = bias->relative ? kh_attn_relative_bucket(distance, bidirectional, buckets,
                                                                 (size_t)bias->max_distance)
                                       : 0;
        for (size_t h = 0; h < H; h++) {
            float x = bias->relative ? bias->relative[h * buckets + bucket] : 0.0f;
            if (bias->slopes) x -= bias->slopes[h] * fabsf((float)distance);
            out[h * span + i] = x / scale;
        }
    }
}
