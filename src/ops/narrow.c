/* A threshold of a list of scores, searched by counting.
 *
 *     rank   low ......... middle ......... high        how many values are at least that large
 *     count  below > most                   above < least
 *
 * Whole rows start from the normal distribution of their own mean and spread: one count in most rows of
 * attention scores (15 % take two). Then the line through the last two probes, on the logarithm of the
 * count where they are far apart: three counts to an exact bound among 160. Floats are mapped to integers
 * of the same order, and after eight steps the interval of those is halved, so that any distribution ends.
 * Rejected: halving every third step (six counts to an exact bound).
 */
#include "ops/narrow.h"

#include "tensor/half.h"

#include <float.h>
#include <math.h>

enum {
    PATIENCE = 8,
    FEW = 16 /* values between two probes: chosen among directly */
};

/* -0 lies just below +0, which no count can tell apart. */
static uint32_t rank_of(float x)
{
    uint32_t bits = kh_f32_bits(x + 0.0f); /* so they are one */
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

/* A value and how many are at least that large; what the search knows. */
typedef struct probe {
    float at, count;
} probe;

/* Where `aim` values should lie at or above, if the logarithm of the count were a straight line. */
static float on_line(probe a, probe b, float aim)
{
    float share = (steps(a.count) - steps(aim)) / (steps(a.count) - steps(b.count));
    return a.at + (b.at - a.at) * share;
}

/* The same from the last two probes, as long as they are near: the count itself is straighter there. */
static float on_secant(probe a, probe b, float aim)
{
    if (a.count > 2 * b.count || b.count > 2 * a.count) return on_line(a, b, aim);
    return b.at + (b.at - a.at) * ((b.count - aim) / (a.count - b.count));
}

/* How many standard deviations above the mean a normal distribution has a share of itself (Abramowitz and
 * Stegun 26.2.22, within 3e-3). */
static float deviations(float share)
{
    float tail = share < 0.5f ? share : 1 - share, t = sqrtf(-2 * logf(tail));
    float z = t - (2.30753f + 0.27061f * t) / (1 + (0.99229f + 0.04481f * t) * t);
    return share < 0.5f ? z : -z;
}

/* A first guess for whole rows: where a normal distribution of the same mean and spread has `aim` of n. */
static float first_guess(const float *moments, size_t n, float aim)
{
    float mean = moments[2] / (float)n, spread = moments[3] / (float)n - mean * mean;
    return mean + deviations(aim / (float)(n + 1)) * sqrtf(spread);
}

/* A rank strictly between two; a guess outside gives way to the line between them, and after a few steps
 * to their middle, so that 32 more are enough for any distribution. */
static uint32_t between(uint32_t low, uint32_t high, probe below, probe above, float guess,
                        float aim, int step)
{
    float first = of_rank(low), last = of_rank(high - 1);
    if (step >= PATIENCE) return low + (high - low) / 2;
    if (!(guess > first && guess < last)) guess = on_line(below, above, aim);
    uint32_t rank = guess > first && guess < last ? rank_of(guess) : low + (high - low) / 2;
    return rank <= low ? low + 1 : rank >= high ? high - 1 : rank;
}

/* An exact bound is found between two probes that are near: the first lands above it, the next below. */
static float aside(size_t least, size_t over)
{
    return over + FEW / 2 < least ? -FEW / 4 : FEW / 4;
}

kh_bound kh_narrow_search(const kh_kern *kern, const float *values, size_t n, size_t least,
                          size_t most, float floor)
{
    size_t all = n;
    float moments[4] = {floor, 0, 0, 0}, guess = NAN, aim = 0.5f * (float)(least + most) + 0.5f;
    if (floor > -FLT_MAX) {
        moments[1] = kern->row_max(values, n);
    } else {
        kern->row_moments(moments, values, n);
        guess = first_guess(moments, n, aim);
    }
    uint32_t low = rank_of(moments[0]), high = rank_of(moments[1]) + 1;
    if (!isfinite(moments[2])) n = kern->count_at_least(values, n, moments[0]); /* all but NaN */
    if (n < least) return (kh_bound){-INFINITY, n, SIZE_MAX};
    probe below = {moments[0], (float)n}, above = {moments[1], 0.5f}, now = below, last = below;
    size_t under = n, over = 0;
    if (low >= high) return (kh_bound){-INFINITY, 0, SIZE_MAX};
    for (int step = 0; high - low > 1; step++) {
        if (under - over <= FEW) {
            kh_bound b = {.count = least};
            b.value = kern->nth_between(values, all, of_rank(low), of_rank(high), least - over,
                                        &b.ties);
            return b;
        }
        float to = least < most ? aim : aim + aside(least, over);
        if (step > 0) guess = on_secant(last, now, to);
        uint32_t middle = between(low, high, below, above, guess, to, step);
        float value = of_rank(middle);
        size_t count = kern->count_at_least(values, all, value);
        if (count >= least && count <= most) return (kh_bound){value, count, SIZE_MAX};
        last = now;
        now = (probe){value, (float)count};
        if (count > most) {
            low = middle;
            under = count;
            below = now;
        } else {
            high = middle;
            over = count;
            above = count > 0 ? now : (probe){value, 0.5f};
        }
    }
    return (kh_bound){of_rank(low), under, least - over};
}

size_t kh_narrow(const kh_kern *kern, float *values, uint32_t *indices, size_t n, size_t least,
                 size_t most, float *threshold)
{
    if (n <= most) return n;
    if (least == 0) return 0;
    kh_bound b = kh_narrow_search(kern, values, n, least, most, *threshold);
    *threshold = b.value;
    return kern->keep_best(values, indices, n, b.value, b.ties);
}
