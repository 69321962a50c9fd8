/* Checks of the products: panels (bit for bit), quantised and dense rows (against double). */
#include "check.h"
#include "kern/panel.h"
#include "tensor/half.h"
#include "tensor/types.h"

#include <math.h>
#include <string.h>

enum { N = 1536, ROWS = 11, T_MAX = 40 };

/* ---- panels ---- */

static void fill_panel(const kh_kern *ref, void *panel, size_t n, int bits, int extreme)
{
    static int8_t q[16 * N];
    static float d[N], m[N];
    int top = (bits & 15) == 4 ? 15 : (bits & 15) == 6 ? 63 : 127;
    for (size_t i = 0; i < 16 * n; i++) {
        int v = (int)(check_random() >> 33);
        q[i] = (int8_t)(top == 127 ? v % 256 - 128 : v % (top + 1));
        if (extreme) q[i] = (int8_t)(top == 127 ? (i / 7 % 2 ? -128 : 127) : top);
    }
    for (size_t g = 0; g < n; g++) {
        int fresh = g % 2 == 0 || (bits & KH_PANEL_HALVES);
        d[g] = fresh ? check_uniform(0.1f) : d[g - 1];
        m[g] = top == 127 ? 0.0f : fresh ? check_uniform(0.3f) : m[g - 1];
    }
    ref->panel_pack(panel, q, d, m, n, bits);
}

void check_panel_gemm(const kh_kern *ref, const kh_kern *other)
{
    static const int forms[] = {4, 6, 8, 4 | KH_PANEL_HALVES, 6 | KH_PANEL_HALVES};
    static const size_t Ts[] = {1, 2, 7, 8, 9, 16, 17, 40}, ns[] = {32, 64, 96, 576, N};
    static char panel[N / 32 * 768];
    static int8_t q[T_MAX * N];
    static float d[T_MAX * N / 32], s[T_MAX * N / 16], y[2][T_MAX * 21];
    static check_q8 row;
    assert_true(kh_panel_bytes(N) <= sizeof panel);
    for (size_t f = 0; f < 5; f++) {
        for (size_t i = 0; i < 8 * 5; i++) {
            size_t T = Ts[i % 8], n = ns[i / 8], ldy = 16 + i % 2 * 5;
            fill_panel(ref, panel, n, forms[f], i % 3 == 1);
            for (size_t t = 0; t < T; t++) {
                check_make_q8(ref, &row, n, i % 3 == 1 ? 2 : (int)(check_random() >> 62));
                memcpy(q + t * n, row.q, n);
                memcpy(d + t * (n / 32), row.d, n / 32 * sizeof *d);
                memcpy(s + t * (n / 16), row.s, n / 16 * sizeof *s);
            }
            memset(y, 0, sizeof y);
            ref->panel_gemm(y[0], ldy, panel, q, d, s, T, n, forms[f]);
            other->panel_gemm(y[1], ldy, panel, q, d, s, T, n, forms[f]);
            check_bits("panel_gemm", y[1], y[0], T_MAX * 21);
        }
    }
}

/* ---- quantised rows ---- */

typedef struct form {
    size_t block, bytes;
    int halves[2]; /* places of f16 numbers in a block, -1: none */
    void (*unpack)(int8_t *q, float *d, float *m, const void *x, size_t n);
    void (*gemv)(float *y, const void *w, size_t row_bytes, size_t rows, const int8_t *q,
                 const float *d, const float *s, size_t n);
} form;

static void exact(double *y, double *size, const form *f, const void *row, const check_q8 *x,
                  size_t n)
{
    static int8_t q[N];
    static float d[N / 16], m[N / 16];
    f->unpack(q, d, m, row, n);
    *y = *size = 0.0;
    for (size_t i = 0; i < n; i++) {
        double term = (double)d[i / 16] * q[i] * (double)x->d[i / 32] * x->q[i];
        *y += term;
        *size += fabs(term);
    }
    for (size_t g = 0; g < n / 16; g++) {
        *y += (double)m[g] * (double)x->s[g];
        /* the kernel may widen a difference q - zero into two large terms: count both */
        for (int i = 0; i < 16; i++)
            *size += fabs((double)m[g] * (double)x->d[g / 2] * x->q[16 * g + (size_t)i]);
    }
}

static void check_rows(const char *what, const form *ref, const form *other, const kh_kern *kern)
{
    static unsigned char w[ROWS * (N / 32 * 34 + 64)];
    static check_q8 x;
    for (int round = 0; round < 60; round++) {
        size_t n = ref->block * (1 + (size_t)(check_random() % (N / ref->block)));
        size_t row_bytes = n / ref->block * ref->bytes, rows = 1 + check_random() % ROWS;
        check_fill_bytes(w, sizeof w);
        if (round % 4 == 1) memset(w, round % 8 == 1 ? 0xff : 0x80, sizeof w);
        for (size_t b = 0; b < rows * row_bytes; b += ref->bytes) {
            for (int i = 0; i < 2 && ref->halves[i] >= 0; i++) {
                uint16_t half = kh_f32_to_f16(check_uniform(round % 5 ? 0.02f : 1e-6f));
                memcpy(w + b + ref->halves[i], &half, 2);
            }
        }
        check_make_q8(kern, &x, n, round % 4 == 1 ? 2 : round % 7 == 6 ? 1 : 0);
        float y[2][ROWS + 1];
        memset(y, 0, sizeof y);
        ref->gemv(y[0], w, row_bytes, rows, x.q, x.d, x.s, n);
        other->gemv(y[1], w, row_bytes, rows, x.q, x.d, x.s, n);
        for (size_t r = 0; r < rows; r++) {
            double value, size;
            exact(&value, &size, ref, w + r * row_bytes, &x, n);
            size += 1e-30;
            check_near(what, &y[1][r], &value, &size, 1, 4e-6);
            check_near("the twin", &y[0][r], &value, &size, 1, 4e-6);
            float alone;
            other->gemv(&alone, w + r * row_bytes, row_bytes, 1, x.q, x.d, x.s, n);
            check_bits("a row by itself", &alone, &y[1][r], 1);
        }
        check_bits("beyond", y[1] + rows, y[0] + rows, 1);
    }
}

#define CHECK_ROWS(type, block, bytes, first, second)                                              \
    void check_gemv_##type(const kh_kern *ref, const kh_kern *other)                               \
    {                                                                                              \
        form a = {block, bytes, {first, second}, ref->unpack_q8_##type, ref->gemv_##type};         \
        form b = a;                                                                                \
        b.gemv = other->gemv_##type;                                                               \
        check_rows("gemv_" #type, &a, &b, ref);                                                    \
    }
CHECK_ROWS(q4_0, 32, 18, 0, -1)
CHECK_ROWS(q4_1, 32, 20, 0, 2)
CHECK_ROWS(q5_0, 32, 22, 0, -1)
CHECK_ROWS(q8_0, 32, 34, 0, -1)
CHECK_ROWS(q4_k, 256, 144, 0, 2)
CHECK_ROWS(q6_k, 256, 210, 208, -1)

void check_dot_int_q8(const kh_kern *ref, const kh_kern *other)
{
    static int8_t q[N];
    static float d[N / 16], m[N / 16];
    static check_q8 x;
    for (int round = 0; round < 100; round++) {
        size_t n = 32 * (1 + check_random() % (N / 32));
        check_fill_bytes(q, n);
        check_fill(d, n / 16, 0.1f);
        check_fill(m, n / 16, 0.1f);
        if (round % 4 == 1) memset(q, round % 8 == 1 ? 0x80 : 0x7f, n);
        check_make_q8(ref, &x, n, round % 4 == 1 ? 2 : round % 3);
        double y = 0.0, size = 1e-30;
        for (size_t i = 0; i < n; i++) {
            double term = (double)d[i / 16] * q[i] * (double)x.d[i / 32] * x.q[i];
            y += term;
            size += fabs(term);
        }
        for (size_t g = 0; g < n / 16; g++) {
            y += (double)m[g] * (double)x.s[g];
            size += fabs((double)m[g] * (double)x.s[g]);
        }
        float a = ref->dot_int_q8(q, d, m, x.q, x.d, x.s, n);
        float b = other->dot_int_q8(q, d, m, x.q, x.d, x.s, n);
        check_near("dot_int_q8_ref", &a, &y, &size, 1, 4e-6);
        check_near("dot_int_q8", &b, &y, &size, 1, 4e-6);
    }
}

/* ---- the same rows, activations in f32 ---- */

typedef struct form_f32 {
    size_t block, bytes;
    int halves[2];
    void (*unpack)(float *y, const void *x, size_t n);
    void (*gemv)(float *y, const void *w, size_t row_bytes, size_t rows, const float *x,
                 const float *sums, size_t n);
} form_f32;

enum { LONG = 4608 }; /* more than the kernels take at once */

static void fill_blocks(unsigned char *w, size_t size, size_t bytes, const int halves[2], int round)
{
    check_fill_bytes(w, size);
    if (round % 4 == 1) memset(w, round % 8 == 1 ? 0xff : 0x80, size);
    for (size_t b = 0; b + bytes <= size; b += bytes) {
        for (int i = 0; i < 2 && halves[i] >= 0; i++) {
            uint16_t half = kh_f32_to_f16(check_uniform(round % 5 ? 0.02f : 1e-6f));
            memcpy(w + b + halves[i], &half, 2);
        }
    }
}

/* Against double over the unpacked values: within 1e-6 of the sum of the absolute products, or twice
 * that with minima, whose terms and the levels' are larger than the values they add up to. */
static void check_rows_f32(const char *what, const form_f32 *f, const form_f32 *twin,
                           const kh_kern *kern)
{
    static unsigned char w[ROWS * (LONG / 32 * 34)];
    static float x[LONG], sums[LONG / 16], wide[LONG];
    for (int round = 0; round < 60; round++) {
        size_t most = round % 10 == 9 ? LONG : N;
        size_t n = f->block * (1 + (size_t)(check_random() % (most / f->block)));
        size_t row_bytes = n / f->block * f->bytes, rows = 1 + check_random() % ROWS;
        fill_blocks(w, rows * row_bytes, f->bytes, f->halves, round);
        check_fill(x, n, round % 7 == 6 ? 1e-12f : 3.0f);
        for (size_t i = 0; i < n && round % 6 == 5; i++) x[i] = fabsf(x[i]); /* all one way */
        kern->sum_16(sums, x, n);
        float y[2][ROWS + 1];
        memset(y, 0, sizeof y);
        twin->gemv(y[0], w, row_bytes, rows, x, sums, n);
        f->gemv(y[1], w, row_bytes, rows, x, sums, n);
        for (size_t r = 0; r < rows; r++) {
            double value = 0.0, size = 1e-30;
            f->unpack(wide, w + r * row_bytes, n);
            for (size_t i = 0; i < n; i++) {
                value += (double)wide[i] * (double)x[i];
                size += fabs((double)wide[i] * (double)x[i]);
            }
            check_near(what, &y[1][r], &value, &size, 1, f->halves[1] < 0 ? 1e-6 : 2e-6);
            check_near("the twin", &y[0][r], &value, &size, 1, 1e-7);
            float alone;
            f->gemv(&alone, w + r * row_bytes, row_bytes, 1, x, sums, n);
            check_bits("a row by itself", &alone, &y[1][r], 1);
        }
        check_bits("beyond", y[1] + rows, y[0] + rows, 1);
    }
}

#define CHECK_ROWS_F32(type, block, bytes, first, second)                                          \
    void check_gemv_##type##_f32(const kh_kern *ref, const kh_kern *other)                         \
    {                                                                                              \
        form_f32 a = {block,                                                                       \
                      bytes,                                                                       \
                      {first, second},                                                             \
                      ref->unpack_f32_##type,                                                      \
                      ref->gemv_##type##_f32},                                                     \
                 b = a;                                                                            \
        b.gemv = other->gemv_##type##_f32;                                                         \
        check_rows_f32("gemv_" #type "_f32", &b, &a, ref);                                         \
    }
CHECK_ROWS_F32(q4_0, 32, 18, 0, -1)
CHECK_ROWS_F32(q4_1, 32, 20, 0, 2)
CHECK_ROWS_F32(q5_0, 32, 22, 0, -1)
CHECK_ROWS_F32(q8_0, 32, 34, 0, -1)
CHECK_ROWS_F32(q4_k, 256, 144, 0, 2)
CHECK_ROWS_F32(q6_k, 256, 210, 208, -1)
CHECK_ROWS_F32(q5_1, 32, 24, 0, 2)
CHECK_ROWS_F32(q2_k, 256, 84, 80, 82)
CHECK_ROWS_F32(q3_k, 256, 110, 108, -1)
CHECK_ROWS_F32(q5_k, 256, 176, 0, 2)
CHECK_ROWS_F32(iq4_nl, 32, 18, 0, -1)
CHECK_ROWS_F32(iq4_xs, 256, 136, 0, -1)

void check_sum_16(const kh_kern *ref, const kh_kern *other)
{
    static float x[N], y[2][N / 16 + 1];
    for (size_t n = 16; n <= N; n += 16) {
        check_fill(x, n, 3.0f);
        memset(y, 0, sizeof y);
        ref->sum_16(y[0], x, n);
        other->sum_16(y[1], x, n);
        check_bits("sum_16", y[1], y[0], N / 16 + 1);
    }
}

/* ---- unpacking: the twin's bits for any bytes, infinite scales included ---- */

#define CHECK_UNPACK(type, block, bytes)                                                           \
    void check_unpack_f32_##type(const kh_kern *ref, const kh_kern *other)                         \
    {                                                                                              \
        static unsigned char w[N / 16 * 34];                                                       \
        static float y[2][N + 16];                                                                 \
        for (size_t blocks = 0; blocks <= N / block; blocks += 1 + blocks / 9) {                   \
            check_fill_bytes(w, sizeof w);                                                         \
            memset(y, 0x3f, sizeof y);                                                             \
            ref->unpack_f32_##type(y[0], w, blocks *block);                                        \
            other->unpack_f32_##type(y[1], w, blocks *block);                                      \
            check_bits("unpack_f32_" #type, y[1], y[0], N + 16);                                   \
        }                                                                                          \
    }
CHECK_UNPACK(f16, 1, 2)
CHECK_UNPACK(bf16, 1, 2)
CHECK_UNPACK(q4_0, 32, 18)
CHECK_UNPACK(q4_1, 32, 20)
CHECK_UNPACK(q5_0, 32, 22)
CHECK_UNPACK(q8_0, 32, 34)
CHECK_UNPACK(q4_k, 256, 144)
CHECK_UNPACK(q6_k, 256, 210)
CHECK_UNPACK(q5_1, 32, 24)
CHECK_UNPACK(q2_k, 256, 84)
CHECK_UNPACK(q3_k, 256, 110)
CHECK_UNPACK(q5_k, 256, 176)
CHECK_UNPACK(iq4_nl, 32, 18)
CHECK_UNPACK(iq4_xs, 256, 136)

/* ---- prompts in f32: equal bits ---- */

void check_product_pack(const kh_kern *ref, const kh_kern *other)
{
    static float from[16 * 300], to[2][16 * 300 + 16];
    static const size_t lanes[] = {KH_PANEL_ROWS, KH_PRODUCT_TILE};
    for (size_t i = 0; i < 2 * 16 * 20; i++) {
        size_t rows = 1 + i % 16, n = 1 + i / 32 * i / 40;
        if (rows > lanes[i / 16 % 2]) continue;
        check_fill(from, rows * n, 1.0f);
        memset(to, 0x3f, sizeof to);
        ref->product_pack(to[0], lanes[i / 16 % 2], from, rows, n);
        other->product_pack(to[1], lanes[i / 16 % 2], from, rows, n);
        check_bits("product_pack", to[1], to[0], 16 * 300 + 16);
    }
}

typedef void gemm(float *y, size_t ldy, const float *panels, size_t rows, const float *tiles,
                  size_t T, size_t n);

/* The twin against double as well; y is surrounded by marks. `before`: what y holds and the product is added
 * to, or 0. */
static void check_gemm(gemm *ref, gemm *other, float before)
{
    enum { LDY = 70, DEEP = 2500 };
    static const size_t Ts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 23, 24, 30};
    static const size_t rows_of[] = {1, 15, 16, 17, 31, 32, 33, 48, 63, 64};
    static const size_t ns[] = {1, 37, 96, 576, DEEP};
    static float tiles[36 * DEEP], panels[64 * DEEP], y[2][30 * LDY];
    for (size_t i = 0; i < 16 * 5; i++) {
        size_t T = Ts[i % 16], n = ns[i / 16], rows = rows_of[i % 10];
        check_fill(tiles, (T + 11) / 12 * 12 * n, 1.0f);
        check_fill(panels, (rows + 15) / 16 * 16 * n, 1.0f);
        for (size_t k = 0; k < 30 * LDY; k++) y[0][k] = y[1][k] = before != 0 ? before : 0.75f;
        ref(y[0], LDY, panels, rows, tiles, T, n);
        other(y[1], LDY, panels, rows, tiles, T, n);
        check_bits("product_gemm", y[1], y[0], 30 * LDY);
        for (size_t t = 0; t < T; t++) {
            double value = (double)before, size = fabs(value) + 1e-30;
            size_t r = check_random() % rows;
            for (size_t k = 0; k < n; k++) {
                double term = (double)tiles[t / 12 * 12 * n + 12 * k + t % 12] *
                              (double)panels[r / 16 * 16 * n + 16 * k + r % 16];
                value += term;
                size += fabs(term);
            }
            check_near("product_gemm_ref", &y[0][t * LDY + r], &value, &size, 1, 1e-6);
        }
    }
}

void check_product_gemm(const kh_kern *ref, const kh_kern *other)
{
    check_gemm(ref->product_gemm, other->product_gemm, 0);
}

void check_product_gemm_add(const kh_kern *ref, const kh_kern *other)
{
    check_gemm(ref->product_gemm_add, other->product_gemm_add, 0.5f);
}

/* ---- dense rows ---- */

#define CHECK_DENSE(type, element, narrow, widen)                                                  \
    void check_gemv_##type(const kh_kern *ref, const kh_kern *other)                               \
    {                                                                                              \
        static element w[ROWS * 600];                                                              \
        static float x[600];                                                                       \
        for (size_t n = 1; n < 600; n += 1 + n / 3) {                                              \
            size_t rows = 1 + n % ROWS, ldw = n + n % 2 * 3;                                       \
            for (size_t i = 0; i < rows * ldw; i++) w[i] = narrow(check_uniform(1.0f));            \
            check_fill(x, n, 2.0f);                                                                \
            float y[ROWS + 1] = {0}, z[ROWS + 1] = {0};                                            \
            ref->gemv_##type(z, w, ldw, rows, x, n);                                               \
            other->gemv_##type(y, w, ldw, rows, x, n);                                             \
            for (size_t r = 0; r < rows; r++) {                                                    \
                double value = 0.0, size = 1e-30;                                                  \
                for (size_t i = 0; i < n; i++) {                                                   \
                    double term = (double)widen(w[r * ldw + i]) * (double)x[i];                    \
                    value += term;                                                                 \
                    size += fabs(term);                                                            \
                }                                                                                  \
                check_near("gemv_" #type, y + r, &value, &size, 1, 1e-6);                          \
                check_near("gemv_" #type "_ref", z + r, &value, &size, 1, 1e-7);                   \
            }                                                                                      \
            check_bits("beyond", y + rows, z + rows, 1);                                           \
        }                                                                                          \
    }
CHECK_DENSE(f32, float, , )
CHECK_DENSE(f16, uint16_t, kh_f32_to_f16, kh_f16_to_f32)
CHECK_DENSE(bf16, uint16_t, kh_f32_to_bf16, kh_bf16_to_f32)
