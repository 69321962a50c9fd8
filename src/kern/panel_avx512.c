/* The prompt product over AVX-512BW: a register holds four bytes of each of the 16 rows. The arithmetic
 * is that of panel_avx2.c; AVX-512 has no sign instruction, so the activations of 8-bit weights are
 * negated under a mask.
 *
 * Measured on a Skylake server core (2.4 GHz with wide registers, f32 peak 153 GFLOP/s), counting a
 * product and a sum as two: 175 GOP/s for 4 bits, 156 for 6, 109 for 8, flat from 16 rows of
 * activations on; the vector ports alone would allow about 240, 185 and 120. Unpacking and packing a
 * Q4_1 panel costs what 45 rows of activations do. */
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef __m512i vi;
typedef __m512 vf;
enum { LANES = 16 };
#define BODY       panel_gemm_avx512
#define load(p)    _mm512_loadu_si512((const void *)(p))
#define loadf      _mm512_loadu_ps
#define storef     _mm512_storeu_ps
#define spreadf(p) _mm512_set1_ps(*(p))
#define zerof      _mm512_setzero_ps
#define mulf       _mm512_mul_ps
#define addf       _mm512_add_ps
#define madf       _mm512_fmadd_ps
#define to_f32     _mm512_cvtepi32_ps
#define add16      _mm512_add_epi16
#define add32      _mm512_add_epi32
#define widen(sum) _mm512_madd_epi16(sum, _mm512_set1_epi16(1))

static inline vi spread4(const int8_t *q)
{
    int four;
    memcpy(&four, q, 4);
    return _mm512_set1_epi32(four);
}
#define STEP(w, q) _mm512_maddubs_epi16(w, spread4(q))
static inline vi step_s8(vi w, const int8_t *q)
{
    vi x = spread4(q);
    x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x);
    return widen(_mm512_maddubs_epi16(_mm512_abs_epi8(w), x));
}

#include "kern/panel_dot.h"

#include "kern/panel_body.h"
