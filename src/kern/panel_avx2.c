/* The prompt product over AVX2: eight rows of the panel at a time.
 *
 * maddubs multiplies unsigned levels by signed activations and adds neighbours in 16 bits. Levels of
 * 4 bits: the 8 steps of a group stay within 8 * 2 * 15 * 127 = 30480, so one widening (madd with
 * ones) serves the group. 6 bits: two steps, 32004. 8 bits: |w| times sign(w) x, one step, 32512 (for
 * -128 too, because |x| <= 127). Bit-equal to panel_gemm_ref.
 *
 * Measured on a Skylake server core (f32 peak 86 GFLOP/s with these registers): 87 GOP/s for 4 bits,
 * 83 for 6, 67 for 8. Half of what the vector ports allow, presumably because every activation is
 * spread twice, once for each eight rows. */
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef __m256i vi;
typedef __m256 vf;
enum { LANES = 8 };
#define BODY       panel_gemm_avx2
#define load(p)    _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define loadf      _mm256_loadu_ps
#define storef     _mm256_storeu_ps
#define spreadf    _mm256_broadcast_ss
#define zerof      _mm256_setzero_ps
#define mulf       _mm256_mul_ps
#define addf       _mm256_add_ps
#define madf       _mm256_fmadd_ps
#define to_f32     _mm256_cvtepi32_ps
#define add16      _mm256_add_epi16
#define add32      _mm256_add_epi32
#define widen(sum) _mm256_madd_epi16(sum, _mm256_set1_epi16(1))

static inline vi spread4(const int8_t *q)
{
    int four;
    memcpy(&four, q, 4);
    return _mm256_set1_epi32(four);
}
#define STEP(w, q) _mm256_maddubs_epi16(w, spread4(q))
static inline vi step_s8(vi w, const int8_t *q)
{
    return widen(_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(spread4(q), w)));
}

#include "kern/panel_dot.h"

#include "kern/panel_body.h"
