/* kern/quantize_body.h: quantize_q8 over a vector header that was included before. */
#include "kern/kern.h"

#include <math.h>

void KH_NAME(quantize_q8)(int8_t *q, float *d, float *s, const float *x, size_t n)
{
    for (size_t g = 0; g < n / 32; g++, x += 32, q += 32) {
        v16 a = v16_load(x), b = v16_load(x + 16);
        uint32_t bits = v16_largest_bits(a, b);
        float amax;
        memcpy(&amax, &bits, sizeof amax);
        float inverse = 0.0f;
        if (bits >= 0x7f800000u) {
            d[g] = NAN;
            a = b = v16_zero();
        } else if (amax < 1e-30f) {
            d[g] = 0.0f;
        } else {
            inverse = 127.0f / amax;
            d[g] = amax / 127.0f;
        }
        v16_to_i8(q, v16_mul(a, v16_set1(inverse)));
        v16_to_i8(q + 16, v16_mul(b, v16_set1(inverse)));
        s[2 * g] = d[g] * (float)sum_i8(q);
        s[2 * g + 1] = d[g] * (float)sum_i8(q + 16);
    }
}
