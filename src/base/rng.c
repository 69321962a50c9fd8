/* Counter-based random numbers.
 *
 * Philox-2x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): ten rounds
 * of a 64 x 64 -> 128 bit product and an xor, keyed by the stream, over the pair (counter, seed).
 * There is no state to carry: dropout, sampling and initialisation name the cell they need. */
#include "base/rng.h"

#include <math.h>
#include <sys/random.h>
#include <time.h>

uint64_t kh_rng_bits(kh_rng_key key, uint64_t counter)
{
    uint64_t left = counter, right = key.seed, k = key.stream;
    for (int round = 0; round < 10; round++) {
        unsigned __int128 product = (unsigned __int128)left * 0xD2B74407B1CE6E93ull;
        left = (uint64_t)(product >> 64) ^ k ^ right;
        right = (uint64_t)product;
        k += 0x9E3779B97F4A7C15ull;
    }
    return left;
}

double kh_rng_uniform(kh_rng_key key, uint64_t counter)
{
    return (double)(kh_rng_bits(key, counter) >> 11) * 0x1p-53;
}

double kh_rng_normal(kh_rng_key key, uint64_t counter)
{
    double u = kh_rng_uniform(key, counter * 2), v = kh_rng_uniform(key, counter * 2 + 1);
    return sqrt(-2.0 * log(1.0 - u)) * cos(6.283185307179586476925 * v);
}

uint64_t kh_rng_entropy(void)
{
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) == (ssize_t)sizeof seed) return seed;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_nsec * 0x9E3779B97F4A7C15ull ^ (uint64_t)now.tv_sec;
}
