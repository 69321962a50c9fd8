/* The prompt product with 8-bit dot products (AVX-512 VNNI): one instruction for what takes three in
 * panel_avx512.c. vpdpbusd wants unsigned times signed: levels of 4 and 6 bits are unsigned already;
 * for signed weights the activations become x + 128, and 128 times the row's sum of weights, another
 * product, is taken off again. Exact in integers, so bit-equal to panel_gemm_ref. */
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef __m512i vi;
typedef __m512 vf;
enum { LANES = 16 };
#define BODY       panel_gemm_avx512vnni
#define load(p)    _mm512_loadu_si512((const void *)(p))
#define loadf      _mm512_loadu_ps
#define storef     _mm512_storeu_ps
#define spreadf(p) _mm512_set1_ps(*(p))
#define zerof      _mm512_setzero_ps
#define mulf       _mm512_mul_ps
#define addf       _mm512_add_ps
#define madf       _mm512_fmadd_ps
#define to_f32     _mm512_cvtepi32_ps

static inline vi spread4(const int8_t *q)
{
    int four;
    memcpy(&four, q, 4);
    return _mm512_set1_epi32(four);
}

/* Sum over 16 inputs, in two chains. */
static inline vi dot4_u6(const vi *w /* [4] */, const int8_t *q /* [16] */)
{
    vi zero = _mm512_setzero_si512();
    vi a = _mm512_dpbusd_epi32(zero, w[0], spread4(q));
    vi b = _mm512_dpbusd_epi32(zero, w[1], spread4(q + 4));
    a = _mm512_dpbusd_epi32(a, w[2], spread4(q + 8));
    b = _mm512_dpbusd_epi32(b, w[3], spread4(q + 12));
    return _mm512_add_epi32(a, b);
}
#define dot4_u4 dot4_u6
static inline vi dot8_u6(const vi *w /* [8] */, const int8_t *q /* [32] */)
{
    return _mm512_add_epi32(dot4_u6(w, q), dot4_u6(w + 4, q + 16));
}
#define dot8_u4 dot8_u6
static inline vi dot8_s8(const vi *w /* [8] */, const int8_t *q /* [32] */)
{
    vi zero = _mm512_setzero_si512(), offset = _mm512_set1_epi8(-128);
    vi a = zero, b = zero, weights = zero;
    for (int c = 0; c < 8; c += 2) {
        a = _mm512_dpbusd_epi32(a, _mm512_xor_si512(spread4(q + 4 * c), offset), w[c]);
        b = _mm512_dpbusd_epi32(b, _mm512_xor_si512(spread4(q + 4 * c + 4), offset), w[c + 1]);
        weights = _mm512_dpbusd_epi32(weights, offset, w[c]);
        weights = _mm512_dpbusd_epi32(weights, offset, w[c + 1]);
    }
    return _mm512_sub_epi32(_mm512_add_epi32(a, b), weights);
}

#include "kern/panel_body.h"
