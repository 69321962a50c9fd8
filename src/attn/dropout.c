/* Dropout by a counter.
 *
 * A row of one head gets 64 bits from the generator of base/rng.h (ten rounds of Philox, about 50
 * cycles). They key a mixer of 32 bits that is applied to the key's position: two multiplications and
 * three shifts, with the second half of the bits added in the middle, so that two rows whose first
 * halves are close do not see shifted copies of one sequence. A weight costs 3 cycles instead of 50,
 * and neighbours do not depend on each other, so compilers make vectors of it.
 *
 * The mixer's constants are lowbias32's (Wellons, "Prospecting for hash functions", 2018). */
#include "attn/dropout.h"

kh_attn_drop kh_attn_drop_make(float rate, uint64_t seed, uint64_t step, int layer)
{
    kh_rng_key key = {seed, (uint64_t)layer};
    return (kh_attn_drop){.gain = 1.0f / (1.0f - rate),
                          .least = (uint32_t)((double)rate * 0x1p32),
                          .key = {seed, kh_rng_bits(key, step)}};
}

uint64_t kh_attn_drop_bits(const kh_attn_drop *drop, size_t head, size_t row)
{
    return kh_rng_bits(drop->key, (drop->head + head) << 32 | (uint32_t)(drop->row + row));
}

static inline float kept(const kh_attn_drop *drop, uint64_t row, uint32_t position, float weight)
{
    uint32_t x = position ^ (uint32_t)row;
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) + (uint32_t)(row >> 32);
    x *= 0x846ca68bu;
    x ^= x >> 16;
    return x >= drop->least ? weight * drop->gain : 0.0f;
}

void kh_attn_drop_listed(const kh_attn_drop *drop, size_t head, size_t row, float *weights,
                         const uint32_t *positions, size_t n)
{
    uint64_t bits = kh_attn_drop_bits(drop, head, row);
    for (size_t i = 0; i < n; i++) weights[i] = kept(drop, bits, positions[i], weights[i]);
}

void kh_attn_drop_range(const kh_attn_drop *drop, size_t head, size_t row, float *weights,
                        size_t first, size_t n)
{
    uint64_t bits = kh_attn_drop_bits(drop, head, row);
    for (size_t i = 0; i < n; i++) weights[i] = kept(drop, bits, (uint32_t)(first + i), weights[i]);
}

void kh_attn_drop_column(const kh_attn_drop *drop, const uint64_t *bits, const uint32_t *rows,
                         float *weights, size_t position, size_t n)
{
    for (size_t i = 0; i < n; i++)
        weights[i] = kept(drop, bits[rows[i]], (uint32_t)position, weights[i]);
}
