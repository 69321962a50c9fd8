/* Reading a shadow with AVX2: shadow_body.h, six queries by 16 keys: twelve sums, two vectors of keys and
 * one of queries are what the registers hold. */
#include <immintrin.h>

typedef __m256i vi;
typedef __m256 vf;
enum { WIDE = 8, ROWS = 6, COLS = 2 };
#define BODY                 shadow_score_avx2
#define load_pairs(p)        _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define loadi(p)             _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define storei(p, x)         _mm256_storeu_si256((__m256i *)(void *)(p), x)
#define zeroi                _mm256_setzero_si256
#define dot_pairs(sum, k, q) _mm256_add_epi32(sum, _mm256_madd_epi16(k, q))
#define loadf                _mm256_loadu_ps
#define storef               _mm256_storeu_ps
#define spreadf              _mm256_set1_ps
#define mulf                 _mm256_mul_ps
#define madf                 _mm256_fmadd_ps
#define to_f32               _mm256_cvtepi32_ps

static inline vi spread_pair(const short *q)
{
    int pair;
    __builtin_memcpy(&pair, q, sizeof pair);
    return _mm256_set1_epi32(pair);
}

#include "kern/shadow_body.h"
