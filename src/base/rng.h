/* base/rng.h: counter-based random numbers: a pure function of (key, counter), so that any order of
 * evaluation, chunking and thread count draws the same numbers. */
#ifndef KH_BASE_RNG_H
#define KH_BASE_RNG_H

#include <stdint.h>

typedef struct kh_rng_key {
    uint64_t seed, stream;
} kh_rng_key;

/* 64 random bits of one cell of the table that (key) describes. */
uint64_t kh_rng_bits(kh_rng_key key, uint64_t counter);
/* Uniform in [0, 1): 53 bits. */
double kh_rng_uniform(kh_rng_key key, uint64_t counter);
/* Standard normal (Box-Muller over two cells). */
double kh_rng_normal(kh_rng_key key, uint64_t counter);
/* A seed from the operating system, for runs that do not name one. */
uint64_t kh_rng_entropy(void);

#endif
