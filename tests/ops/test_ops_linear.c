/* Products on the file's weights: every type, few and many rows, ragged sizes, against sums in double
 * over the unpacked values; equal bits for 1 and 2 threads; memory exactly as planned. */
// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include "ops/linear.h"
#include "ops/rowwise.h"
#include "ops/unpack.h"
#include "tensor/half.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { COLS = 512, ROWS = 150, T_MAX = 37 };

static uint64_t seed = 1;

static double uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(seed >> 11) * 0x1p-53 * 2.0 - 1.0;
}

static const kh_type types[] = {KH_TYPE_F32,  KH_TYPE_F16,    KH_TYPE_BF16,  KH_TYPE_Q4_0,
                                KH_TYPE_Q4_1, KH_TYPE_Q5_0,   KH_TYPE_Q5_1,  KH_TYPE_Q8_0,
                                KH_TYPE_Q2_K, KH_TYPE_Q3_K,   KH_TYPE_Q4_K,  KH_TYPE_Q5_K,
                                KH_TYPE_Q6_K, KH_TYPE_IQ4_NL, KH_TYPE_IQ4_XS};
enum { TYPES = sizeof types / sizeof *types };

/* Places of the f16 numbers in a block. */
static void block_halves(kh_type type, int at[2])
{
    at[0] = 0;
    at[1] = -1;
    if (type == KH_TYPE_Q4_1 || type == KH_TYPE_Q5_1 || type == KH_TYPE_Q4_K ||
        type == KH_TYPE_Q5_K)
        at[1] = 2;
    if (type == KH_TYPE_Q2_K) at[0] = 80, at[1] = 82;
    if (type == KH_TYPE_Q3_K) at[0] = 108;
    if (type == KH_TYPE_Q6_K) at[0] = 208;
}

static _Alignas(64) unsigned char storage[3][ROWS * COLS * 4];

/* A random weight of a type; wide [rows][cols] receives its values. */
static kh_weight make_weight(int slot, kh_type type, size_t rows, size_t cols, float *wide)
{
    size_t row_bytes = kh_type_row_bytes(type, cols), bytes = kh_type_bytes(type);
    unsigned char *w = storage[slot];
    for (size_t i = 0; i < rows * row_bytes; i++) w[i] = (unsigned char)(uniform() * 128.0 + 128.0);
    for (size_t b = 0; b < rows * row_bytes; b += bytes) {
        float value = (float)uniform();
        int at[2];
        block_halves(type, at);
        uint16_t brain = kh_f32_to_bf16(value);
        if (type == KH_TYPE_F32) memcpy(w + b, &value, 4);
        if (type == KH_TYPE_BF16) memcpy(w + b, &brain, 2);
        for (int i = 0; type != KH_TYPE_F32 && type != KH_TYPE_BF16 && i < 2 && at[i] >= 0; i++) {
            uint16_t half = kh_f32_to_f16((float)uniform() * 0.05f);
            memcpy(w + b + at[i], &half, 2);
        }
    }
    kh_tensor tensor = {.name = "test.weight",
                        .type = type,
                        .n_dims = 2,
                        .dims = {cols, rows, 1, 1},
                        .data = w,
                        .size = rows * row_bytes};
    kh_weight weight;
    assert_int_equal(kh_weight_bind(&weight, &tensor, rows, cols), KH_OK);
    kh_unpack unpack = kh_unpack_of(kh_kern_get(KH_ISA_REF), type);
    for (size_t r = 0; r < rows; r++) {
        if (unpack.f32)
            unpack.f32(wide + r * cols, w + r * row_bytes, cols);
        else
            memcpy(wide + r * cols, w + r * row_bytes, row_bytes);
    }
    return weight;
}

/* A run with memory for exactly this product. */
typedef struct bench {
    kh_run run;
    kh_arena step, scratch[2];
    kh_pool pool;
} bench;

static void open_bench(bench *b, kh_isa isa, int threads, enum kh_compute compute,
                       const kh_weight *w, size_t T)
{
    size_t step = 0, scratch = 0;
    kh_linear_need(w, T, &step, &scratch);
    memset(b, 0, sizeof *b);
    b->pool.threads = threads;
    assert_int_equal(kh_arena_init(&b->step, "step", step), KH_OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(kh_arena_init(&b->scratch[i], "scratch", scratch), KH_OK);
    b->run.step = &b->step;
    b->run.scratch = b->scratch;
    b->run.pool = &b->pool;
    b->run.kern = kh_kern_get(isa);
    b->run.compute = compute;
}

static void close_bench(bench *b)
{
    assert_int_equal(b->step.used, 0);
    assert_int_equal(b->scratch[0].used, 0);
    kh_arena_free(&b->step);
    for (int i = 0; i < 2; i++) kh_arena_free(&b->scratch[i]);
}

static float wide[ROWS * COLS], x[T_MAX * COLS], y[4][T_MAX * ROWS];

/* What the product should be: over x as it is, or as 8 bits make it. */
static void check(const float *out, const float *in, size_t T, size_t rows, size_t cols,
                  const char *what, double tolerance)
{
    for (size_t t = 0; t < T; t++) {
        for (size_t r = 0; r < rows; r++) {
            double sum = 0.0, size = 1e-20;
            for (size_t i = 0; i < cols; i++) {
                double term = (double)wide[r * cols + i] * (double)in[t * cols + i];
                sum += term;
                size += fabs(term);
            }
            double error = fabs((double)out[t * rows + r] - sum);
            if (!(error <= tolerance * size))
                fail_msg("%s: row %zu, token %zu: %g, expected %g (%g of the terms' size)", what, r,
                         t, (double)out[t * rows + r], sum, error / size);
        }
    }
}

static void rounded_to_8_bits(float *to, const float *from, size_t T, size_t cols)
{
    int8_t q[COLS];
    float d[COLS / 32], s[COLS / 16];
    for (size_t t = 0; t < T; t++) {
        kh_kern_get(KH_ISA_REF)->quantize_q8(q, d, s, from + t * cols, cols);
        for (size_t i = 0; i < cols; i++) to[t * cols + i] = d[i / 32] * (float)q[i];
    }
}

static void product(float *out, kh_isa isa, int threads, enum kh_compute compute,
                    const kh_weight *w, size_t T)
{
    bench b;
    open_bench(&b, isa, threads, compute, w, T);
    memset(out, 0xff, sizeof y[0]);
    assert_int_equal(kh_op_linear(&b.run, out, x, T, w), KH_OK);
    close_bench(&b);
}

static void test_every_type(void **state)
{
    (void)state;
    static const size_t Ts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, T_MAX},
                        rows_of[] = {1, 16, 33, ROWS};
    static const enum kh_compute computes[] = {KH_COMPUTE_DEFAULT, KH_COMPUTE_F32, KH_COMPUTE_Q8};
    enum { CASES = sizeof Ts / sizeof *Ts };
    static float rounded[T_MAX * COLS];
    for (size_t k = 0; k < TYPES * CASES; k++) {
        kh_type type = types[k / CASES];
        size_t T = Ts[k % CASES], rows = rows_of[k % 4];
        size_t cols = k % 3 == 2 && kh_type_block(type) <= 32 ? 96 : COLS;
        kh_weight w = make_weight(0, type, rows, cols, wide);
        for (size_t i = 0; i < T * cols; i++) x[i] = (float)uniform() * 2.0f;
        rounded_to_8_bits(rounded, x, T, cols);
        int dense = kh_type_block(type) == 1;
        for (int isa = KH_ISA_REF; isa <= (int)kh_cpu_isa(); isa++) {
            for (int c = 0; c < 3; c++) {
                /* 8 bits: levels and their zero are multiplied apart, the sums exceed the result */
                int q8 = computes[c] == KH_COMPUTE_Q8 && !dense;
                product(y[0], (kh_isa)isa, 1, computes[c], &w, T);
                check(y[0], q8 ? rounded : x, T, rows, cols, kh_type_name(type), q8 ? 2e-5 : 1e-6);
                product(y[1], (kh_isa)isa, 2, computes[c], &w, T);
                assert_memory_equal(y[0], y[1], T * rows * sizeof(float));
            }
        }
    }
}

static void test_many_is_each(void **state)
{
    (void)state;
    static const size_t Ts[] = {1, 20};
    for (int k = 0; k < 8; k++) {
        enum kh_compute compute = k < 4 ? KH_COMPUTE_DEFAULT : KH_COMPUTE_Q8;
        size_t T = Ts[k % 2];
        const kh_type mix[3] = {KH_TYPE_Q4_1, k % 4 < 2 ? KH_TYPE_Q6_K : KH_TYPE_F16, KH_TYPE_Q5_0};
        kh_weight w[3];
        for (int i = 0; i < 3; i++)
            w[i] = make_weight(i, mix[i], (size_t)(40 + 11 * i), COLS, wide);
        for (size_t i = 0; i < T * COLS; i++) x[i] = (float)uniform();
        for (int i = 0; i < 3; i++) product(y[i], kh_cpu_isa(), 1, compute, &w[i], T);
        static float out[3][T_MAX * ROWS];
        float *const to[3] = {out[0], out[1], out[2]};
        const kh_weight *const from[3] = {&w[0], &w[1], &w[2]};
        bench b;
        open_bench(&b, kh_cpu_isa(), 2, compute, &w[0], T);
        assert_int_equal(kh_op_linear_many(&b.run, 3, to, x, T, from), KH_OK);
        close_bench(&b);
        for (int i = 0; i < 3; i++)
            assert_memory_equal(out[i], y[i], T * w[i].rows * sizeof(float));
    }
}

static void test_too_little_memory(void **state)
{
    (void)state;
    for (int k = 0; k < 8; k++) {
        size_t T = k % 2 ? 1 : 20;
        enum kh_compute compute = k < 4 ? KH_COMPUTE_DEFAULT : KH_COMPUTE_Q8;
        kh_weight w = make_weight(0, KH_TYPE_Q5_1, 50, COLS, wide);
        bench b;
        open_bench(&b, kh_cpu_isa(), 2, compute, &w, T);
        size_t step = b.step.size;
        if (k % 4 < 2)
            b.step.size = 64;
        else
            b.scratch[1].size = 128;
        int step_is_used = kh_cpu_isa() != KH_ISA_REF || compute == KH_COMPUTE_Q8 || T == 1;
        int scratch_is_used = T > 1 || compute == KH_COMPUTE_Q8;
        if (k % 4 < 2 ? step_is_used : scratch_is_used) {
            assert_int_equal(kh_op_linear(&b.run, y[0], x, T, &w), KH_ERR_MEMORY);
            assert_true(strlen(kh_last_error()) > 20);
        }
        assert_int_equal(b.step.used, 0);
        b.step.size = step;
        close_bench(&b);
    }
}

static int tasks(void)
{
    int n = 0;
    DIR *folder = opendir("/proc/self/task");
    if (!folder) return 0;
    for (struct dirent *e; (e = readdir(folder));) n += e->d_name[0] != '.';
    closedir(folder);
    return n;
}

/* The dense library must not start threads of its own when we run on one. */
static void test_one_thread_stays_one(void **state)
{
    (void)state;
    kh_weight w = make_weight(0, KH_TYPE_F32, ROWS, COLS, wide);
    int before = tasks();
    product(y[0], kh_cpu_isa(), 1, KH_COMPUTE_F32, &w, T_MAX);
    assert_int_equal(tasks(), before);
}

static void test_shapes_are_checked(void **state)
{
    (void)state;
    kh_tensor t = {.name = "a.weight",
                   .type = KH_TYPE_Q4_1,
                   .n_dims = 2,
                   .dims = {64, 10, 1, 1},
                   .data = storage[0],
                   .size = 10 * 40};
    kh_weight w;
    kh_arena arena;
    assert_int_equal(kh_arena_init(&arena, "vectors", 4096), KH_OK);
    assert_int_equal(kh_weight_bind(&w, &t, 10, 64), KH_OK);
    assert_int_equal(w.row_bytes, 40);
    assert_int_equal(kh_weight_bind(&w, &t, 64, 10), KH_ERR_FORMAT);
    assert_non_null(strstr(kh_last_error(), "a.weight"));
    assert_null(w.data);
    t.size--;
    assert_int_equal(kh_weight_bind(&w, &t, 10, 64), KH_ERR_FORMAT);
    t.type = KH_TYPE_Q4_K; /* 64 is no block */
    assert_int_equal(kh_weight_bind(&w, &t, 10, 64), KH_ERR_FORMAT);
    t.dims[2] = 2;
    assert_int_equal(kh_weight_bind(&w, &t, 10, 64), KH_ERR_FORMAT);

    uint16_t halves[3] = {0x3c00, 0xc000, 0x3800};
    kh_tensor v = {
        .type = KH_TYPE_F16, .n_dims = 1, .dims = {3, 1, 1, 1}, .data = halves, .size = 6};
    kh_vector out;
    assert_int_equal(kh_vector_bind(&out, &arena, &v, 3), KH_OK);
    assert_true(out.data[0] == 1.0f && out.data[1] == -2.0f && out.data[2] == 0.5f);
    assert_int_equal(kh_vector_bind(&out, &arena, &v, 4), KH_ERR_FORMAT);
    assert_null(out.data);
    v.size = 4;
    assert_int_equal(kh_vector_bind(&out, &arena, &v, 3), KH_ERR_FORMAT);
    v.size = 96;
    v.type = KH_TYPE_Q8_0;
    assert_int_equal(kh_vector_bind(&out, &arena, &v, 3), KH_ERR_FORMAT);
    kh_arena_free(&arena);
}

static void test_embedding(void **state)
{
    (void)state;
    const int32_t tokens[5] = {7, 0, 49, 7, 3};
    for (size_t k = 0; k < TYPES; k++) {
        kh_weight w = make_weight(0, types[k], 50, COLS, wide);
        bench b;
        open_bench(&b, kh_cpu_isa(), 2, KH_COMPUTE_DEFAULT, &w, 5);
        kh_op_embed(&b.run, y[0], &w, tokens, 5, 3.5f);
        close_bench(&b);
        for (size_t t = 0; t < 5; t++)
            for (size_t i = 0; i < COLS; i++)
                assert_true(y[0][t * COLS + i] == wide[(size_t)tokens[t] * COLS + i] * 3.5f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_thread_stays_one), cmocka_unit_test(test_every_type),
        cmocka_unit_test(test_many_is_each),         cmocka_unit_test(test_too_little_memory),
        cmocka_unit_test(test_shapes_are_checked),   cmocka_unit_test(test_embedding)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
