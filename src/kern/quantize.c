/* Activations to 8 bits: the plain C twin that defines the result.
 *
 * For each 32 inputs: amax = the largest |x|, d = amax / 127, q = x * (127 / amax) rounded to nearest
 * even, so |q| <= 127 always (the products of panel_gemm rely on that: -128 never occurs). Each 16 of
 * them carry s = d * sum(q), the factor of a weight's minimum.
 *
 *     x [32] -> q [32] int8, d [1], s [2]
 *
 * A group whose amax is below 1e-30 becomes zeros (127 / amax would overflow). A group with a NaN or
 * an infinity gets d = s = NaN, q = 0: what was broken stays visibly broken in every product. The
 * largest is taken over the bits of |x| as integers, which orders NaN above infinity above numbers, so
 * every instruction set gives the same bits. */
#include "kern/kern.h"
#include "tensor/half.h"

#include <math.h>

void quantize_q8_ref(int8_t *q, float *d, float *s, const float *x, size_t n)
{
    for (size_t g = 0; g < n / 32; g++, x += 32, q += 32) {
        uint32_t bits = 0;
        for (int i = 0; i < 32; i++) {
            uint32_t b = kh_f32_bits(x[i]) & 0x7fffffffu;
            bits = b > bits ? b : bits;
        }
        float amax = kh_f32_from_bits(bits);
        int broken = bits >= 0x7f800000u;
        float inverse = broken || amax < 1e-30f ? 0.0f : 127.0f / amax;
        d[g] = broken ? NAN : inverse == 0.0f ? 0.0f : amax / 127.0f;
        for (int half = 0; half < 2; half++) {
            int sum = 0;
            for (int i = 16 * half; i < 16 * half + 16; i++) {
                q[i] = broken ? 0 : (int8_t)lrintf(x[i] * inverse);
                sum += q[i];
            }
            s[2 * g + half] = d[g] * (float)sum;
        }
    }
}
