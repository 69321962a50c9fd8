/* kern/shadow_avx512.h: the words of shadow_body.h over AVX-512, without dot_pairs and BODY: the level with
 * integer dot products has its own. */
#ifndef KH_KERN_SHADOW_AVX512_H
#define KH_KERN_SHADOW_AVX512_H

#include <immintrin.h>

typedef __m512i vi;
typedef __m512 vf;
enum { WIDE = 16, ROWS = 6, COLS = 4 };
#define load_pairs(p) _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define loadi(p)      _mm512_loadu_si512(p)
#define storei(p, x)  _mm512_storeu_si512(p, x)
#define zeroi         _mm512_setzero_si512
#define loadf         _mm512_loadu_ps
#define storef        _mm512_storeu_ps
#define spreadf       _mm512_set1_ps
#define mulf          _mm512_mul_ps
#define madf          _mm512_fmadd_ps
#define to_f32        _mm512_cvtepi32_ps

static inline vi spread_pair(const short *q)
{
    int pair;
    __builtin_memcpy(&pair, q, sizeof pair);
    return _mm512_set1_epi32(pair);
}

#endif
