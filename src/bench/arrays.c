/* Random inputs, outputs that count as the caller's, and what attention saves. */
#include "bench/arrays.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/rng.h"
#include "cpu/pool.h"

#include <math.h>
#include <string.h>

enum { FILL = 1 << 14 };

typedef struct fill {
    float *x;
    size_t n;
    kh_rng_key key;
} fill;

/* Box-Muller, both numbers of a pair. */
static void fill_part(void *context, size_t item, int worker)
{
    const fill *f = context;
    (void)worker;
    size_t end = (item + 1) * FILL < f->n ? (item + 1) * FILL : f->n;
    for (size_t i = item * FILL; i < end; i += 2) {
        uint64_t bits = kh_rng_bits(f->key, i / 2);
        float a = ((float)(bits >> 40) + 0.5f) * 0x1p-24f, b = (float)(bits & 0xffffff) * 0x1p-24f;
        float radius = sqrtf(-2.0f * logf(a)), angle = 6.28318531f * b;
        f->x[i] = radius * cosf(angle);
        if (i + 1 < end) f->x[i + 1] = radius * sinf(angle);
    }
}

void kh_fill_normal(float *x, size_t n, uint64_t seed, uint64_t stream, int threads)
{
    kh_pool pool = {threads > 0 ? threads : 1};
    fill f = {x, n, {seed, stream}};
    kh_parallel_for(&pool, (n + FILL - 1) / FILL, fill_part, &f);
}

kh_status kh_new_normal(float **x, size_t n, double size, uint64_t seed, uint64_t stream,
                        int threads, const char *what)
{
    KH_TRY(kh_new(x, n, sizeof **x, what));
    kh_fill_normal(*x, n, seed, stream, threads);
    for (size_t i = 0; size != 1 && i < n; i++) (*x)[i] *= (float)size;
    return KH_OK;
}

kh_status kh_new_touched(float **x, size_t n, const char *what)
{
    KH_TRY(kh_new(x, n, sizeof **x, what));
    memset(*x, 1, n * sizeof **x);
    return KH_OK;
}

kh_status kh_new_saved(kh_attention_saved *saved, size_t rows, size_t kept, size_t keys,
                       uint64_t *bytes)
{
    size_t width = keys <= 65536 ? sizeof(uint16_t) : sizeof(uint32_t);
    *saved = (kh_attention_saved){.kept = kept};
    KH_TRY(kh_new(&saved->m, rows, sizeof *saved->m, "the largest scores"));
    KH_TRY(kh_new(&saved->u, rows, sizeof *saved->u, "the sums of weights"));
    *bytes += rows * 2 * sizeof(float);
    if (kept == 0) return KH_OK;
    KH_TRY(kh_new(&saved->indices, rows * kept, width, "the kept keys"));
    KH_TRY(kh_new(&saved->counts, rows, sizeof *saved->counts, "their counts"));
    *bytes += rows * (kept * width + sizeof *saved->counts);
    return KH_OK;
}

void kh_free_saved(kh_attention_saved *saved)
{
    kh_free(saved->m);
    kh_free(saved->u);
    kh_free(saved->indices);
    kh_free(saved->counts);
}
