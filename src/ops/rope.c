/* Rotary positions: inverse frequencies, angles, rotation.
 *
 *     inv_freq[i] = base^(-2i / n_rot)       (Su et al., RoFormer, section 3.2)
 *
 * linear   divides all of them by the factor (Chen et al., position interpolation).
 * yarn     (Peng et al., YaRN, section 3.2) keeps those that turn more than beta_fast times within the
 *          original context, divides those that turn less than beta_slow times, blends in between,
 *          and multiplies cosine and sine by attn_factor (0.1 ln(factor) + 1).
 * llama3   the same idea with a blend over wavelengths; files mostly bring its result as a tensor of
 *          divisors (freq_factors), in which case the formula is not applied a second time.
 *
 * Parity with the reference (Hugging Face, f32) wants its roundings: base^e is rounded to f32, its
 * inverse again, the angle is the f32 product position * inv_freq, and only then come cosine and sine,
 * taken in double and rounded once. At position 8,000 an angle computed in double would differ by
 * 3e-4 from what the models were trained and are measured with. */
#include "ops/rope.h"

#include "base/fail.h"
#include "ops/rowwise_back.h"
#include "run/tape.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

/* The (fractional) index whose wave turns `turns` times within the original context. */
static double index_of(const kh_rope_spec *spec, double turns)
{
    return (double)spec->n_rot * log(spec->original / (turns * 2.0 * pi)) / (2.0 * log(spec->base));
}

static double clamp(double x, double least, double most)
{
    return x < least ? least : x > most ? most : x;
}

/* 1 where a frequency is kept, 0 where it is divided by the factor. */
static double yarn_keep(const kh_rope_spec *spec, size_t i)
{
    double last = (double)spec->n_rot - 1.0;
    double fast = spec->beta_fast > 0.0 ? spec->beta_fast : 32.0;
    double slow = spec->beta_slow > 0.0 ? spec->beta_slow : 1.0;
    double low = clamp(floor(index_of(spec, fast)), 0.0, last);
    double high = clamp(ceil(index_of(spec, slow)), 0.0, last);
    double ramp = ((double)i - low) / fmax(0.001, high - low);
    double mix = spec->ext_factor < 0.0 ? 1.0 : spec->ext_factor;
    return (1.0 - clamp(ramp, 0.0, 1.0)) * mix;
}

static double llama3_keep(const kh_rope_spec *spec, double frequency)
{
    double low = spec->low_freq > 0.0 ? spec->low_freq : 1.0;
    double high = spec->high_freq > 0.0 ? spec->high_freq : 4.0;
    double turns = spec->original * frequency / (2.0 * pi);
    return high > low ? clamp((turns - low) / (high - low), 0.0, 1.0) : turns > high ? 1.0 : 0.0;
}

static float frequency(const kh_rope_spec *spec, double factor, size_t i)
{
    float exponent = (float)(2 * i) / (float)spec->n_rot;
    float plain = 1.0f / (float)pow(spec->base, (double)exponent);
    double keep = 1.0;
    if (spec->freq_factors) plain /= spec->freq_factors[i];
    switch (spec->scaling) {
    case KH_ROPE_NONE: return plain;
    case KH_ROPE_LINEAR: return plain / (float)factor;
    case KH_ROPE_YARN: keep = yarn_keep(spec, i); break;
    case KH_ROPE_LLAMA3:
        if (spec->freq_factors) return plain;
        keep = llama3_keep(spec, (double)plain);
        break;
    }
    return (float)((double)plain * keep + (double)plain / factor * (1.0 - keep));
}

kh_status kh_rope_init(kh_rope *rope, const kh_rope_spec *spec)
{
    *rope = (kh_rope){.style = spec->style, .n_rot = spec->n_rot, .magnitude = 1.0f};
    if (spec->n_rot % 2 != 0 || spec->n_rot > KH_ROPE_MAX)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "rotated elements of a head: expected an even number up to %d, found %zu",
                KH_ROPE_MAX, spec->n_rot);
    if (!(spec->base > 1.0) || !(spec->base < 1e30))
        KH_FAIL(KH_ERR_FORMAT, "rope frequency base: expected a number above 1, found %g",
                spec->base);
    double factor = spec->factor > 0.0 ? spec->factor : 1.0;
    int by_length = spec->scaling == KH_ROPE_YARN || spec->scaling == KH_ROPE_LLAMA3;
    if (by_length && !spec->freq_factors && !(spec->original > 0.0))
        KH_FAIL(KH_ERR_FORMAT, "rope scaling: expected the original context length, found %g",
                spec->original);
    for (size_t i = 0; i < spec->n_rot / 2; i++) {
        if (spec->freq_factors && !(fabsf(spec->freq_factors[i]) > 0.0f))
            KH_FAIL(KH_ERR_FORMAT, "rope frequency factor %zu: expected a divisor, found %g", i,
                    (double)spec->freq_factors[i]);
        rope->inv_freq[i] = frequency(spec, factor, i);
    }
    if (spec->scaling == KH_ROPE_NONE && spec->attn_factor > 0.0)
        rope->magnitude = (float)spec->attn_factor;
    if (spec->scaling == KH_ROPE_YARN) {
        double attn = spec->attn_factor > 0.0 ? spec->attn_factor : 1.0;
        rope->magnitude =
            (float)(attn *
                    (spec->ext_factor != 0.0 && factor > 1.0 ? 0.1 * log(factor) + 1.0 : 1.0));
    }
    return KH_OK;
}

typedef struct rope_job {
    const kh_run *run;
    const kh_rope *rope;
    float *x; /* [T][heads][E] */
    size_t heads, E;
    float *cosine; /* [T][n_rot/2] */
    float *sine;   /* [T][n_rot/2] */
} rope_job;

enum { BLOCK = 16 };

static size_t block_end(const rope_job *j, size_t item)
{
    size_t end = (item + 1) * BLOCK;
    return end < j->run->batch->n ? end : j->run->batch->n;
}

static void angles_item(void *context, size_t item, int worker)
{
    const rope_job *j = context;
    size_t half = j->rope->n_rot / 2;
    (void)worker;
    for (size_t t = item * BLOCK; t < block_end(j, item); t++) {
        float position = (float)j->run->batch->position[t];
        for (size_t i = 0; i < half; i++) {
            double angle = (double)(position * j->rope->inv_freq[i]);
            j->cosine[t * half + i] = (float)cos(angle) * j->rope->magnitude;
            j->sine[t * half + i] = (float)sin(angle) * j->rope->magnitude;
        }
    }
}

void kh_rope_angles(kh_run *run, const kh_rope *rope, float *cosine, float *sine)
{
    rope_job j = {.run = run, .rope = rope, .cosine = cosine, .sine = sine};
    kh_parallel_for(run->pool, (run->batch->n + BLOCK - 1) / BLOCK, angles_item, &j);
}

static void rotate_item(void *context, size_t item, int worker)
{
    const rope_job *j = context;
    const kh_kern *kern = j->run->kern;
    size_t n = j->rope->n_rot, half = n / 2;
    (void)worker;
    for (size_t t = item * BLOCK; t < block_end(j, item); t++) {
        for (size_t h = 0; h < j->heads; h++) {
            float *x = j->x + (t * j->heads + h) * j->E;
            if (j->rope->style == KH_ROPE_HALF)
                kern->rope_half(x, j->cosine + t * half, j->sine + t * half, n);
            else
                kern->rope_pairs(x, j->cosine + t * half, j->sine + t * half, n);
        }
    }
}

void kh_op_rope(kh_run *run, const kh_rope *rope, float *x, size_t heads, size_t E,
                const float *cosine, const float *sine)
{
    if (kh_tape_wants(run)) kh_record_rope(run, rope, x, run->batch->n, heads, E, cosine, sine);
    rope_job j = {.run = run,
                  .rope = rope,
                  .x = x,
                  .heads = heads,
                  .E = E,
                  .cosine = (float *)(uintptr_t)cosine,
                  .sine = (float *)(uintptr_t)sine};
    kh_parallel_for(run->pool, (run->batch->n + BLOCK - 1) / BLOCK, rotate_item, &j);
}
