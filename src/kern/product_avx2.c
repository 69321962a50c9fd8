/* The prompt product in f32 over AVX2: one panel (two registers wide) against six tokens takes 12 of
 * 16 registers. */
#include "kern/vec_avx2.h"

enum { TILE_PANELS = 1, TILE_T = 6 };
#define TILE_CASES CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)

/* Halves of a register come from rows four apart; twelve lanes are eight and four. */
static inline __attribute__((always_inline)) void pack_four(float *to, size_t lanes,
                                                            const float *from, size_t n)
{
    size_t r = 0;
    for (; r + 8 <= lanes; r += 8, from += 8 * n, to += 8) {
        __m256 row[4];
        for (size_t i = 0; i < 4; i++) {
            __m256 low = _mm256_castps128_ps256(_mm_loadu_ps(from + i * n));
            row[i] = _mm256_insertf128_ps(low, _mm_loadu_ps(from + (i + 4) * n), 1);
        }
        __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(row[0], row[1]));
        __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(row[0], row[1]));
        __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(row[2], row[3]));
        __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(row[2], row[3]));
        _mm256_storeu_ps(to, _mm256_castpd_ps(_mm256_unpacklo_pd(a, c)));
        _mm256_storeu_ps(to + lanes, _mm256_castpd_ps(_mm256_unpackhi_pd(a, c)));
        _mm256_storeu_ps(to + 2 * lanes, _mm256_castpd_ps(_mm256_unpacklo_pd(b, d)));
        _mm256_storeu_ps(to + 3 * lanes, _mm256_castpd_ps(_mm256_unpackhi_pd(b, d)));
    }
    if (r == lanes) return;
    __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + n);
    __m128 c = _mm_loadu_ps(from + 2 * n), d = _mm_loadu_ps(from + 3 * n);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(to, a);
    _mm_storeu_ps(to + lanes, b);
    _mm_storeu_ps(to + 2 * lanes, c);
    _mm_storeu_ps(to + 3 * lanes, d);
}

#include "kern/product_body.h"
