/* kern/step_body.h: an optimiser's step over a vector header and the words of the file that includes it
 * (squares of sixteen floats in double, square roots, dithered stores). The rest of a row that is no
 * multiple of 16 goes through the same expressions on a partial vector. */
#include "kern/kern.h"
#include "kern/step_kern.h"

#include <string.h>

double KH_NAME(squares_sum)(const float *x, size_t n)
{
    squares sum = squares_zero();
    size_t i = 0;
    for (; i + 16 <= n; i += 16) sum = squares_add(sum, v16_load(x + i));
    if (i < n) sum = squares_add(sum, v16_load_n(x + i, n - i));
    return squares_total(sum);
}

/* Sixteen elements, or the m <= 16 that are left. */
#define LOAD(p)     (m == 16 ? v16_load(p) : v16_load_n(p, m))
#define STORE(p, x) (m == 16 ? v16_store(p, x) : v16_store_n(p, x, m))

static inline void adamw_16(float *w, float *m1, float *m2, const float *g,
                            const struct kh_adamw *a, size_t m)
{
    v16 gradient = v16_mul(LOAD(g), v16_set1(a->scale)), mean = LOAD(m1), square = LOAD(m2);
    mean = v16_fma(v16_set1(a->keep1), v16_sub(gradient, mean), mean);
    square = v16_fma(v16_mul(v16_set1(a->keep2), gradient), gradient,
                     v16_mul(v16_set1(a->beta2), square));
    v16 move = v16_div(mean, v16_fma(v16_root(square), v16_set1(a->root), v16_set1(a->eps)));
    STORE(m1, mean);
    STORE(m2, square);
    STORE(w, v16_fnma(v16_set1(a->rate), move, v16_mul(LOAD(w), v16_set1(a->decay))));
}

void KH_NAME(adamw_step)(float *w, float *m, float *v, const float *g, const struct kh_adamw *a,
                         size_t n)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16) adamw_16(w + i, m + i, v + i, g + i, a, 16);
    if (i < n) adamw_16(w + i, m + i, v + i, g + i, a, n - i);
}

static inline void sgd_16(float *w, float *m1, const float *g, const struct kh_sgd *s, size_t m)
{
    v16 at = LOAD(w);
    v16 gradient = v16_fma(v16_set1(s->decay), at, v16_mul(LOAD(g), v16_set1(s->scale)));
    if (m1) {
        gradient = v16_fma(v16_set1(s->momentum), LOAD(m1), gradient);
        STORE(m1, gradient);
    }
    STORE(w, v16_fnma(v16_set1(s->rate), gradient, at));
}

void KH_NAME(sgd_step)(float *w, float *m, const float *g, const struct kh_sgd *s, size_t n)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16) sgd_16(w + i, m ? m + i : NULL, g + i, s, 16);
    if (i < n) sgd_16(w + i, m ? m + i : NULL, g + i, s, n - i);
}

void KH_NAME(bf16_dither)(uint16_t *y, const float *x, uint32_t seed, size_t n)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16) dither_16(y + i, v16_load(x + i), seed + (uint32_t)i);
    if (i < n) {
        uint16_t rest[16];
        dither_16(rest, v16_load_n(x + i, n - i), seed + (uint32_t)i);
        memcpy(y + i, rest, (n - i) * sizeof *y);
    }
}

#undef LOAD
#undef STORE
