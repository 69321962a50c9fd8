/* Checks of the kernels of attention's backward pass: equal bits, because their orders of addition are
 * the contract, and an answer in double where exp is involved. Outputs are surrounded by marks. */
#include "check.h"

#include "kern/grad_kern.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 150 };

static const size_t widths[] = {1, 7, 16, 20, 32, 40, 64, 80, 100, 128, 144};
enum { WIDTHS = sizeof widths / sizeof *widths };

static float *numbers(size_t n)
{
    float *x = malloc((n + 64) * sizeof *x);
    check_fill(x, n + 64, 1.0f);
    return x;
}

static float *copy(const float *x, size_t n)
{
    float *y = malloc((n + 64) * sizeof *y);
    memcpy(y, x, (n + 64) * sizeof *y);
    return y;
}

/* Weights as exp in double gives them; derivatives from the weights, to the bit. */
static void check_back(const float *p, const float *d, const float *scores, const float *products,
                       size_t n, const uint32_t *rows, const float *shifts, const float *sums)
{
    for (size_t i = 0; i < n; i++) {
        float t = scores[i] * 0.7f - shifts[rows[i]];
        double w = t > -104.5f ? exp((double)t) : 0.0, size = w + 1e-37;
        check_near("weight", p + i, &w, &size, 1, 2.4e-7);
        float expected = p[i] > 0 ? p[i] * 0.7f * (products[i] - sums[rows[i]]) : 0.0f;
        check_bits("derivative", d + i, &expected, 1);
    }
}

static void check_softmax(const kh_kern *kern, int listed)
{
    enum { ROWS = 40 };
    for (size_t n = 0; n < MOST; n++) {
        float *scores = numbers(n), *products = numbers(n), *shifts = numbers(ROWS);
        float *sums = numbers(ROWS), *p, *d;
        uint32_t rows[MOST];
        for (size_t i = 0; i < n; i++) {
            scores[i] *= 60;
            if (i % 7 == 1) scores[i] = i % 2 ? NAN : -INFINITY;
            if (i % 14 == 1) products[i] = NAN; /* of a key without weight */
            rows[i] = listed ? (uint32_t)(check_random() % ROWS) : 0;
        }
        shifts[3] = INFINITY; /* a row without any key */
        p = copy(scores, n);
        d = copy(products, n);
        if (listed)
            kern->softmax_back_listed(p, d, rows, n, 0.7f, shifts, sums);
        else
            kern->softmax_back(p, d, n, 0.7f, shifts[0], sums[0]);
        check_back(p, d, scores, products, n, rows, shifts, sums);
        check_bits("beyond", p + n, scores + n, 64);
        check_bits("beyond", d + n, products + n, 64);
        free(scores);
        free(products);
        free(shifts);
        free(sums);
        free(p);
        free(d);
    }
}

void check_softmax_back(const kh_kern *ref, const kh_kern *other)
{
    check_softmax(ref, 0);
    check_softmax(other, 0);
}

void check_softmax_back_listed(const kh_kern *ref, const kh_kern *other)
{
    check_softmax(ref, 1);
    check_softmax(other, 1);
}

void check_mix_cols(const kh_kern *ref, const kh_kern *other)
{
    static const size_t rows[] = {0, 1, 5, 96};
    for (size_t w = 0; w < WIDTHS; w++)
        for (size_t cols = 1; cols <= 64; cols += cols < 14 ? 1 : 10)
            for (size_t i = 0; i < 4; i++) {
                size_t E = widths[w], R = rows[i], ldo = E + 1, ldw = cols + 2;
                float *out = numbers(cols * ldo), *same = copy(out, cols * ldo);
                float *weights = numbers(R * ldw), *x = numbers(R * E);
                ref->mix_cols(out, ldo, weights, ldw, cols, x, R, E);
                other->mix_cols(same, ldo, weights, ldw, cols, x, R, E);
                check_bits("mix", same, out, cols * ldo + 64);
                free(out);
                free(same);
                free(weights);
                free(x);
            }
}

void check_dot_pairs(const kh_kern *ref, const kh_kern *other)
{
    for (size_t w = 0; w < WIDTHS; w++)
        for (size_t n = 0; n < MOST; n += n < 40 ? 1 : 27) {
            size_t E = widths[w];
            float *pairs = numbers(MOST * 2 * E), *x = numbers(E), *y = numbers(E);
            float *a = numbers(n), *b = numbers(n), *a2 = copy(a, n), *b2 = copy(b, n);
            uint32_t rows[MOST];
            for (size_t i = 0; i < n; i++) rows[i] = (uint32_t)(check_random() % MOST);
            ref->dot_pairs(a, b, x, y, pairs, rows, n, E);
            other->dot_pairs(a2, b2, x, y, pairs, rows, n, E);
            check_bits("first", a2, a, n + 64);
            check_bits("second", b2, b, n + 64);
            free(pairs);
            free(x);
            free(y);
            free(a);
            free(b);
            free(a2);
            free(b2);
        }
}

void check_gather_pairs(const kh_kern *ref, const kh_kern *other)
{
    for (size_t w = 0; w < WIDTHS; w++)
        for (size_t n = 0; n < MOST; n += n < 20 ? 1 : 37) {
            size_t E = widths[w];
            float *pairs = numbers(MOST * 2 * E), *wa = numbers(n), *wb = numbers(n);
            float *a = numbers(E), *b = numbers(E), *a2 = copy(a, E), *b2 = copy(b, E);
            uint32_t rows[MOST];
            for (size_t i = 0; i < n; i++) rows[i] = (uint32_t)(check_random() % MOST);
            ref->gather_pairs(a, b, pairs, rows, wa, wb, n, E);
            other->gather_pairs(a2, b2, pairs, rows, wa, wb, n, E);
            check_bits("left", a2, a, E + 64);
            check_bits("right", b2, b, E + 64);
            free(pairs);
            free(wa);
            free(wb);
            free(a);
            free(b);
            free(a2);
            free(b2);
        }
}
