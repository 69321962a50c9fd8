/* Reading a shadow with AVX-512: shadow_body.h, six queries by 64 keys. A pair of products is two
 * instructions (vpmaddwd, vpaddd); the queries keep 15 bits, so the keys' 8 are all that is lost. */
#include <immintrin.h>

typedef __m512i vi;
typedef __m512 vf;
enum { WIDE = 16, ROWS = 6, COLS = 4 };
#define BODY                 shadow_score_avx512
#define load_pairs(p)        _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define loadi(p)             _mm512_loadu_si512(p)
#define storei(p, x)         _mm512_storeu_si512(p, x)
#define zeroi                _mm512_setzero_si512
#define dot_pairs(sum, k, q) _mm512_add_epi32(sum, _mm512_madd_epi16(k, q))
#define loadf                _mm512_loadu_ps
#define storef               _mm512_storeu_ps
#define spreadf              _mm512_set1_ps
#define mulf                 _mm512_mul_ps
#define madf                 _mm512_fmadd_ps
#define to_f32               _mm512_cvtepi32_ps

static inline vi spread_pair(const short *q)
{
    int pair;
    __builtin_memcpy(&pair, q, sizeof pair);
    return _mm512_set1_epi32(pair);
}

#include "kern/shadow_body.h"
