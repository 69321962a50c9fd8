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
static void check_softmax(const kh_kern *kern)
{
    for (size_t n = 0; n < MOST; n++) {
        float *scores = numbers(n), *products = numbers(n), *p, *d,
              shift = n == 17 ? INFINITY : 0.3f;
        for (size_t i = 0; i < n; i++) {
            scores[i] *= 60;
            if (i % 7 == 1) scores[i] = i % 2 ? NAN : -INFINITY;
            if (i % 14 == 1) products[i] = NAN; /* of a key without weight */
        }
        p = copy(scores, n);
        d = copy(products, n);
        kern->softmax_back(p, d, n, 0.7f, shift, 0.125f);
        for (size_t i = 0; i < n; i++) {
            float t = scores[i] * 0.7f - shift;
            double w = t > -104.5f ? exp((double)t) : 0.0, size = w + 1e-37;
            check_near("weight", p + i, &w, &size, 1, 2.4e-7);
            float expected = p[i] > 0 ? p[i] * 0.7f * (products[i] - 0.125f) : 0.0f;
            check_bits("derivative", d + i, &expected, 1);
        }
        check_bits("beyond", p + n, scores + n, 64);
        check_bits("beyond", d + n, products + n, 64);
        free(scores);
        free(products);
        free(p);
        free(d);
    }
}

void check_softmax_back(const kh_kern *ref, const kh_kern *other)
{
    check_softmax(ref);
    check_softmax(other);
}

static void check_softmax_of_rows(const kh_kern *kern)
{
    enum { R = 5 };
    for (size_t n = 0; n < 70; n++) {
        size_t ld = n + 3;
        float *scores = numbers(R * ld), *products = numbers(R * ld), *p, *d;
        float shifts[R] = {0.3f, INFINITY, -2, 40, 0}, sums[R] = {0.125f, 0, 1, -1, 0.5f};
        for (size_t i = 0; i < R * ld; i++) {
            scores[i] *= 60;
            if (i % 7 == 1) scores[i] = i % 2 ? NAN : -INFINITY;
            if (i % 14 == 1) products[i] = NAN; /* of a key without weight */
        }
        p = copy(scores, R * ld);
        d = copy(products, R * ld);
        kern->softmax_back_rows(p, d, ld, R, n, 0.7f, shifts, sums);
        for (size_t i = 0; i < R * ld; i++) {
            size_t r = i / ld;
            if (i % ld >= n) {
                check_bits("between", p + i, scores + i, 1);
                check_bits("between", d + i, products + i, 1);
                continue;
            }
            double t = (double)scores[i] * (double)0.7f - (double)shifts[r];
            double w = t > -87 ? exp(t) : 0;
            double size = w * (1 + fabs((double)shifts[r]) + fabs(t)) + 2e-31;
            if (!(size < 1e300)) size = 1;
            check_near("weight", p + i, &w, &size, 1, 3e-7);
            float expected = p[i] > 0 ? p[i] * 0.7f * (products[i] - sums[r]) : 0.0f;
            check_bits("derivative", d + i, &expected, 1);
        }
        free(scores);
        free(products);
        free(p);
        free(d);
    }
}

void check_softmax_back_rows(const kh_kern *ref, const kh_kern *other)
{
    check_softmax_of_rows(ref);
    check_softmax_of_rows(other);
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

/* The kernel's answer in double: |gradients| and their sizes, for the bound. */
static void check_triples(const kh_kern *kern, size_t n, size_t E, float cap, int extra)
{
    float *triples = numbers(MOST * 3 * E), *before, *k = numbers(E), *v = numbers(E);
    float *shifts = numbers(MOST), *sums = numbers(MOST), *gains = numbers(32);
    float *biases = numbers(32), *dk = numbers(E), *dv = numbers(E), ds[32 + 1];
    uint16_t rows[32];
    double *wanted = malloc(5 * E * sizeof *wanted), *size = wanted + 2 * E, *dq = wanted + 4 * E;
    for (size_t e = 0; e < E; e++) {
        wanted[e] = (double)dk[e];
        wanted[E + e] = (double)dv[e];
        size[e] = size[E + e] = 1;
    }
    ds[32] = 5.0f;
    shifts[3] = INFINITY; /* a row without any key */
    size_t step = 1 + check_random() % (MOST / 32);
    for (size_t i = 0; i < 32; i++) rows[i] = (uint16_t)(1 + i * step);
    kh_back how = {shifts, sums, 0.3f, cap};
    before = copy(triples, MOST * 3 * E);
    kern->back_triples(dk, dv, ds, k, v, triples, rows, extra ? gains : NULL, extra ? biases : NULL,
                       n, &how, E);
    for (size_t i = 0; i < n; i++) {
        float *q = triples + 3 * E * rows[i], *o = q + E, *was = before + 3 * E * rows[i] + 2 * E;
        double s = extra ? (double)biases[i] : 0, a = 0, gain = extra ? (double)gains[i] : 1;
        for (size_t e = 0; e < E; e++) {
            s += (double)q[e] * (double)k[e];
            a += gain * (double)o[e] * (double)v[e];
        }
        double slope = (double)0.3f, x = s * slope;
        if (cap > 0) {
            double t = tanh(x / (double)cap);
            slope *= 1 - t * t;
            x = t * (double)cap;
        }
        double w = exp(x - (double)shifts[rows[i]]), d = w * slope * (a - (double)sums[rows[i]]);
        double bound = w * (1 + fabs(a)), one = 1 + bound;
        check_near("ds", ds + i, &d, &bound, 1, 2e-5);
        for (size_t e = 0; e < E; e++) {
            wanted[e] += d * (double)q[e];
            wanted[E + e] += w * gain * (double)o[e];
            size[e] += bound;
            size[E + e] += bound;
            dq[e] = (double)was[e] + d * (double)k[e];
            check_near("dq", o + E + e, dq + e, &one, 1, 2e-5);
            was[e] = o[E + e];
        }
    }
    assert_true(ds[32] == 5.0f);
    check_bits("other rows", triples, before, MOST * 3 * E);
    check_near("dk", dk, wanted, size, E, 2e-5);
    check_near("dv", dv, wanted + E, size + E, E, 2e-5);
    float *all[] = {triples, before, k, v, shifts, sums, gains, biases, dk, dv};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    free(wanted);
}

/* Elements of a key that are not finite leave dq alone where the rows give them no weight. */
static void check_hole(const kh_kern *kern, size_t E)
{
    float *triples = numbers(3 * E), *before = copy(triples, 3 * E), *k = numbers(E);
    float *dk = numbers(E), *dv = numbers(E), shift = 0, sum = 0, ds[32];
    uint16_t row[32] = {0};
    kh_back how = {&shift, &sum, 0.3f, 0};
    k[E / 2] = NAN;
    kern->back_triples(dk, dv, ds, k, k, triples, row, NULL, NULL, 1, &how, E);
    assert_true(ds[0] == 0);
    check_bits("dq of a hole", triples, before, 3 * E);
    float *all[] = {triples, before, k, dk, dv};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

void check_back_triples(const kh_kern *ref, const kh_kern *other)
{
    for (size_t w = 0; w < WIDTHS; w++) {
        check_hole(ref, widths[w]);
        check_hole(other, widths[w]);
        for (size_t n = 1; n <= 32; n++)
            for (int kind = 0; kind < 4; kind++) {
                check_triples(ref, n, widths[w], kind & 1 ? 1.5f : 0.0f, kind & 2);
                check_triples(other, n, widths[w], kind & 1 ? 1.5f : 0.0f, kind & 2);
            }
    }
}
