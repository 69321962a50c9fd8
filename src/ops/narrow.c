/* A threshold of a list of scores, searched by counting.
 *
 *     rank   low ......... middle ......... high        how many values are at least that large
 *     count  below > most                   above < least
 *
 * Floats are mapped to integers of the same order, so that bisection ends after at most 32 counts on any
 * distribution. Two of three steps interpolate instead: the logarithm of the count is nearly a straight
 * line in the upper part of most distributions, and with some slack between `least` and `most` three to
 * five counts are enough. Counting reads 64 values an iteration and has no branch to mispredict. */
#include "ops/narrow.h"

#include "tensor/half.h"

#include <float.h>
#include <math.h>

/* -0 lies just below +0, which no count can tell apart. */
static uint32_t rank_of(float x)
{
    uint32_t bits = kh_f32_bits(x);
    return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

static float of_rank(uint32_t rank)
{
    return kh_f32_from_bits(rank ^ (rank >> 31 ? 0x80000000u : 0xffffffffu));
}

/* The logarithm of a count, nearly: the bits of a float are one, but for the line between two powers. */
static float steps(float count)
{
    return (float)kh_f32_bits(count);
}

/* A rank strictly between two, where about `aim` values should lie at or above. */
static uint32_t between(uint32_t low, uint32_t high, size_t below, size_t above, size_t aim)
{
    float from = of_rank(low), to = of_rank(high - 1), top = above > 0 ? (float)above : 0.5f;
    float share = (steps((float)below) - steps((float)aim)) / (steps((float)below) - steps(top));
    float guess = from + (to - from) * share;
    uint32_t rank = guess > from && guess < to ? rank_of(guess) : low + (high - low) / 2;
    return rank <= low ? low + 1 : rank >= high ? high - 1 : rank;
}

float kh_narrow_search(const kh_kern *kern, const float *values, size_t n, size_t least,
                       size_t most, float floor, size_t *ties)
{
    uint32_t low = rank_of(floor > -FLT_MAX ? floor : kern->row_min(values, n)),
             high = rank_of(kern->row_max(values, n)) + 1;
    size_t below = n, above = 0;
    *ties = SIZE_MAX;
    if (low >= high) return -INFINITY;
    for (int step = 0; high - low > 1; step++) {
        uint32_t middle = step % 3 == 2 ? low + (high - low) / 2
                                        : between(low, high, below, above, (least + most) / 2);
        size_t count = kern->count_at_least(values, n, of_rank(middle));
        if (count >= least && count <= most) return of_rank(middle);
        if (count > most) {
            low = middle;
            below = count;
        } else {
            high = middle;
            above = count;
        }
    }
    *ties = least - above;
    return of_rank(low);
}

size_t kh_narrow(const kh_kern *kern, float *values, uint32_t *indices, size_t n, size_t least,
                 size_t most, float *threshold)
{
    if (n <= most) return n;
    if (least == 0) return 0;
    size_t ties, slack = least + least / 4;
    if (most < slack &&
        n > slack + least / 4) /* an exact bound takes more counts: of a shorter list */
        n = kh_narrow(kern, values, indices, n, least, slack, threshold);
    if (n <= most) return n;
    *threshold = kh_narrow_search(kern, values, n, least, most, *threshold, &ties);
    return kern->keep_best(values, indices, n, *threshold, ties);
}
