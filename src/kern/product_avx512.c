/* The prompt product in f32 over AVX-512: two panels against twelve tokens take 24 of 32 registers,
 * and x is broadcast by the load that feeds the fma. */
#include "kern/vec_avx512.h"

enum { TILE_PANELS = 2, TILE_T = 12 };
#define TILE_CASES                                                                                 \
    CASE(1)                                                                                        \
    CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)

/* The address of rows i, i + 4, i + 8, i + 12 is a quarter of register i; the last one only of 16 lanes. */
static inline __attribute__((always_inline)) void pack_four(float *to, size_t lanes,
                                                            const float *from, size_t n)
{
    __m512 row[4];
    for (size_t i = 0; i < 4; i++, from += n) {
        row[i] = _mm512_zextps128_ps512(_mm_loadu_ps(from));
        row[i] = _mm512_insertf32x4(row[i], _mm_loadu_ps(from + 4 * n), 1);
        row[i] = _mm512_insertf32x4(row[i], _mm_loadu_ps(from + 8 * n), 2);
        if (lanes == 16) row[i] = _mm512_insertf32x4(row[i], _mm_loadu_ps(from + 12 * n), 3);
    }
    __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(row[0], row[1]));
    __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(row[0], row[1]));
    __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(row[2], row[3]));
    __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(row[2], row[3]));
    __mmask16 all = (__mmask16)((1u << lanes) - 1);
    _mm512_mask_storeu_ps(to, all, _mm512_castpd_ps(_mm512_unpacklo_pd(a, c)));
    _mm512_mask_storeu_ps(to + lanes, all, _mm512_castpd_ps(_mm512_unpackhi_pd(a, c)));
    _mm512_mask_storeu_ps(to + 2 * lanes, all, _mm512_castpd_ps(_mm512_unpacklo_pd(b, d)));
    _mm512_mask_storeu_ps(to + 3 * lanes, all, _mm512_castpd_ps(_mm512_unpackhi_pd(b, d)));
}

#include "kern/product_body.h"
