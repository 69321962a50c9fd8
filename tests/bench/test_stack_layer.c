/* Layers of keyhole bench stack: forward against the same layer in double, gradients against finite
 * differences of that; chunks, threads and what is kept change no bit or little; memory that runs out. The
 * projections to and from heads, alone, against sums in double. */
// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include "base/alloc.h"
#include "bench/arrays.h"
#include "bench/stack_layer.h"
#include "cpu/cpu.h"

#include <keyhole/bench.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 11;

static double uniform(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (double)(state >> 11) * 0x1p-53 * 2 - 1;
}

static float *numbers(size_t n, double size)
{
    float *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (float)(uniform() * size);
    return x;
}

static double *doubles(const float *x, size_t n)
{
    double *y = malloc((n + 1) * sizeof *y);
    for (size_t i = 0; i < n; i++) y[i] = (double)x[i];
    return y;
}

/* ---- the layer in double ---- */

enum { X, QKV, O, IN, OUT, ARRAYS };

typedef struct problem {
    kh_stack_shape shape;
    size_t k; /* kept keys, 0: all */
    size_t n[ARRAYS];
    float *a[ARRAYS], *dy;
} problem;

static problem make(size_t L, int H, int G, int E, size_t F, const char *attn, size_t k,
                    kh_attention_mask mask, size_t keep)
{
    size_t D = (size_t)(H * E);
    problem p = {.shape = {.L = L,
                           .F = F,
                           .chunk = L,
                           .heads = H,
                           .key_heads = G,
                           .width = E,
                           .attn = attn,
                           .mask = mask,
                           .keep = keep,
                           .act = KH_FF_RELU,
                           .threads = 1,
                           .backward = 1},
                 .k = k,
                 .n = {L * D, (D + (size_t)(2 * G * E)) * D, D * D, F * D, F * D}};
    for (int i = 0; i < ARRAYS; i++) p.a[i] = numbers(p.n[i], i == X ? 1.5 : 2.5 / sqrt((double)D));
    p.dy = numbers(L * D, 1);
    return p;
}

static void unmake(problem *p)
{
    for (int i = 0; i < ARRAYS; i++) free(p->a[i]);
    free(p->dy);
}

static void norm_row(double *n, const double *x, size_t D)
{
    double sum = 0;
    for (size_t i = 0; i < D; i++) sum += x[i] * x[i];
    for (size_t i = 0; i < D; i++) n[i] = x[i] / sqrt(sum / (double)D + 1e-6);
}

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* Whether value i is among the `keep` largest of n; keep 0: always. */
static int is_kept(const double *x, size_t n, size_t i, size_t keep)
{
    size_t better = 0;
    for (size_t j = 0; keep > 0 && j < n; j++) better += x[j] > x[i] || (x[j] == x[i] && j < i);
    return keep == 0 || better < keep;
}

static void attend_row(const problem *p, double *z, const double *q, const double *k,
                       const double *v, size_t t)
{
    size_t E = (size_t)p->shape.width, S = p->shape.mask == KH_ATTENTION_FREE ? p->shape.L : t + 1;
    double *s = malloc(S * sizeof *s), sum = 0;
    for (size_t j = 0; j < S; j++) s[j] = dot(q, k + j * E, E) / sqrt((double)E);
    for (size_t e = 0; e < E; e++) z[e] = 0;
    for (size_t j = 0; j < S; j++) {
        if (!is_kept(s, S, j, p->k)) continue;
        double w = exp(s[j]);
        sum += w;
        for (size_t e = 0; e < E; e++) z[e] += w * v[j * E + e];
    }
    for (size_t e = 0; e < E; e++) z[e] /= sum;
    free(s);
}

/* y [L][D]. */
static double *layer(const problem *p, double *const a[ARRAYS])
{
    size_t L = p->shape.L, H = (size_t)p->shape.heads, G = (size_t)p->shape.key_heads;
    size_t E = (size_t)p->shape.width, D = H * E, F = p->shape.F, all = H + 2 * G;
    double *n = malloc(D * sizeof *n), *qkv = malloc(all * L * E * sizeof *qkv);
    double *y = malloc(L * D * sizeof *y), *s = malloc((F + 1) * sizeof *s), z[64];
    for (size_t t = 0; t < L; t++) {
        norm_row(n, a[X] + t * D, D);
        for (size_t i = 0; i < all * E; i++)
            qkv[(i / E * L + t) * E + i % E] = dot(a[QKV] + i * D, n, D);
    }
    for (size_t t = 0; t < L; t++) {
        memcpy(y + t * D, a[X] + t * D, D * sizeof *y);
        for (size_t h = 0; h < H; h++) {
            size_t g = h / (H / G);
            attend_row(p, z, qkv + (h * L + t) * E, qkv + (H + g) * L * E,
                       qkv + (H + G + g) * L * E, t);
            for (size_t i = 0; i < E * D; i++) y[t * D + i % D] += z[i / D] * a[O][h * E * D + i];
        }
        norm_row(n, y + t * D, D);
        for (size_t j = 0; j < F; j++) s[j] = dot(a[IN] + j * D, n, D);
        for (size_t j = 0; j < F; j++)
            for (size_t i = 0; s[j] > 0 && is_kept(s, F, j, p->shape.keep) && i < D; i++)
                y[t * D + i] += s[j] * a[OUT][j * D + i];
    }
    free(n);
    free(qkv);
    free(s);
    return y;
}

static double loss(const problem *p, double *const a[ARRAYS])
{
    double *y = layer(p, a), *dy = doubles(p->dy, p->n[X]), sum = dot(y, dy, p->n[X]);
    free(y);
    free(dy);
    return sum;
}

/* ---- the library ---- */

typedef struct result {
    float *y, *g[ARRAYS];
} result;

static result run(const problem *p, const kh_stack_shape *shape, int chosen)
{
    result r = {.y = numbers(p->n[X], 1)};
    for (int i = 0; i < ARRAYS; i++) r.g[i] = calloc(p->n[i] + 1, sizeof(float));
    float *d = numbers(p->n[X], 1);
    kh_stack stack;
    kh_attention_saved saved;
    uint64_t bytes = 0;
    kh_stack_weights w = {p->a[QKV], p->a[O], p->a[IN], p->a[OUT]},
                     g = {r.g[QKV], r.g[O], r.g[IN], r.g[OUT]};
    assert_int_equal(kh_stack_open(&stack, shape), KH_OK);
    assert_int_equal(kh_stack_saved_open(&stack, &saved, &bytes), KH_OK);
    assert_int_equal(kh_stack_layer_forward(&stack, &w, r.y, p->a[X], chosen ? &saved : NULL),
                     KH_OK);
    assert_int_equal(
        kh_stack_layer_backward(&stack, &w, &g, r.g[X], p->dy, d, p->a[X], &saved, chosen), KH_OK);
    kh_free_saved(&saved);
    kh_stack_close(&stack);
    free(d);
    return r;
}

static void drop(result *r)
{
    for (int i = 0; i < ARRAYS; i++) free(r->g[i]);
    free(r->y);
}

static void check(problem *p, int chosen)
{
    static const double step = 1e-5;
    double *a[ARRAYS];
    for (int i = 0; i < ARRAYS; i++) a[i] = doubles(p->a[i], p->n[i]);
    result r = run(p, &p->shape, chosen);
    double *y = layer(p, a);
    for (size_t i = 0; i < p->n[X]; i++)
        if (!(fabs((double)r.y[i] - y[i]) <= 1e-5 * (1 + fabs(y[i]))))
            fail_msg("y[%zu] is %.9g, expected %.9g", i, (double)r.y[i], y[i]);
    for (int i = 0; i < ARRAYS; i++)
        for (int sample = 0; p->n[i] > 0 && sample < 30; sample++) {
            size_t at = (size_t)(fabs(uniform()) * (double)p->n[i]);
            double was = a[i][at], up, down;
            a[i][at] = was + step;
            up = loss(p, a);
            a[i][at] = was - step;
            down = loss(p, a);
            a[i][at] = was;
            double want = (up - down) / (2 * step), got = (double)r.g[i][at];
            if (!(fabs(got - want) <= 1e-4 * (1 + fabs(want))))
                fail_msg("gradient %d at %zu is %.9g, expected %.9g", i, at, got, want);
        }
    free(y);
    for (int i = 0; i < ARRAYS; i++) free(a[i]);
    drop(&r);
}

static void equals_double_and_its_differences(void **unused)
{
    (void)unused;
    problem all[] = {
        make(23, 4, 2, 8, 40, "full", 0, KH_ATTENTION_CAUSAL, 0),
        make(23, 4, 2, 8, 40, "topk:k=5", 5, KH_ATTENTION_CAUSAL, 9),
        make(14, 3, 3, 20, 33, "topk:k=4", 4, KH_ATTENTION_FREE, 0),
        make(19, 2, 1, 16, 0, "topk:k=3", 3, KH_ATTENTION_CAUSAL, 0),
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        check(&all[i], (int)i % 2);
        check(&all[i], 1);
        unmake(&all[i]);
    }
}

static void same(const problem *p, const result *a, const result *b)
{
    assert_memory_equal(a->y, b->y, p->n[X] * sizeof(float));
    for (int i = 0; i < ARRAYS; i++)
        if (p->n[i] > 0) assert_memory_equal(a->g[i], b->g[i], p->n[i] * sizeof(float));
}

static void chunks_and_threads_change_nothing(void **unused)
{
    (void)unused;
    problem all[] = {make(200, 4, 2, 16, 90, "topk:k=9", 9, KH_ATTENTION_CAUSAL, 0),
                     make(200, 4, 2, 16, 90, "full", 0, KH_ATTENTION_CAUSAL, 20),
                     make(150, 5, 5, 20, 0, "topk:k=9", 9, KH_ATTENTION_FREE, 0)};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        result whole = run(&all[i], &all[i].shape, 1);
        static const size_t chunks[] = {1, 7, 64, 199};
        for (size_t c = 0; c < 4; c++) {
            kh_stack_shape shape = all[i].shape;
            shape.chunk = chunks[c];
            shape.threads = 1 + (int)c % 3;
            result part = run(&all[i], &shape, 1);
            same(&all[i], &whole, &part);
            drop(&part);
        }
        drop(&whole);
        unmake(&all[i]);
    }
}

/* ---- projections alone ---- */

static void heads_are_sums(void **unused)
{
    (void)unused;
    enum { T = 101, D = 70, E = 20, H = 3, CUT = 37 };
    kh_pool pool = {2};
    for (kh_isa isa = KH_ISA_REF; isa <= kh_cpu_isa(); isa++) {
        float *x = numbers(T * D, 1), *w = numbers(H * E * D, 1), *dw = numbers(H * E * D, 1);
        float *rows = numbers(H * T * E, 1), *split = numbers(H * T * E, 1), *y = numbers(T * D, 1);
        double *before = doubles(dw, H * E * D);
        kh_heads work;
        assert_int_equal(kh_heads_open(&work, &pool, kh_kern_get(isa), D, E, T, H), KH_OK);
        for (size_t first = 0, n; first < T; first += n) {
            n = first == 0 ? CUT : T - CUT;
            kh_head from[H], to[H];
            for (size_t h = 0; h < H; h++) {
                from[h] = (kh_head){w + h * E * D, dw + h * E * D, rows + (h * T + first) * E};
                to[h] = (kh_head){w + h * E * D, NULL, split + (h * T + first) * E};
            }
            kh_heads_split(&work, to, H, x + first * D, n);
            kh_heads_join(&work, y + first * D, from, H, n);
            kh_heads_grad(&work, from, H, x + first * D, n);
        }
        kh_heads_close(&work);
        for (size_t h = 0; h < H; h++)
            for (size_t t = 0; t < T; t++)
                for (size_t e = 0; e < E; e++) {
                    double sum = 0;
                    for (size_t i = 0; i < D; i++)
                        sum += (double)x[t * D + i] * (double)w[(h * E + e) * D + i];
                    assert_true(fabs((double)split[(h * T + t) * E + e] - sum) < 1e-4);
                }
        for (size_t t = 0; t < T; t++)
            for (size_t i = 0; i < D; i++) {
                double sum = 0;
                for (size_t e = 0; e < H * E; e++)
                    sum += (double)rows[(e / E * T + t) * E + e % E] * (double)w[e * D + i];
                assert_true(fabs((double)y[t * D + i] - sum) < 1e-4);
            }
        for (size_t e = 0; e < H * E; e++)
            for (size_t i = 0; i < D; i++) {
                double sum = before[e * D + i];
                for (size_t t = 0; t < T; t++)
                    sum += (double)rows[(e / E * T + t) * E + e % E] * (double)x[t * D + i];
                assert_true(fabs((double)dw[e * D + i] - sum) < 1e-4);
            }
        float *all[] = {x, w, dw, rows, split, y};
        for (size_t i = 0; i < 6; i++) free(all[i]);
        free(before);
    }
}

/* ---- the measurement ---- */

static kh_status take(void *context, const kh_bench_stack_result *r)
{
    kh_bench_stack_result *out = context;
    *out = *r;
    return KH_OK;
}

static kh_bench_stack_options tiny(void)
{
    static const char *const attns[] = {"topk:k=4"};
    static const size_t lengths[] = {40}, keeps[] = {6};
    return (kh_bench_stack_options){.attns = attns,
                                    .attn_count = 1,
                                    .lengths = lengths,
                                    .length_count = 1,
                                    .keeps = keeps,
                                    .keep_count = 1,
                                    .pass = KH_BENCH_FORWARD_BACKWARD,
                                    .layers = 3,
                                    .heads = 2,
                                    .width = 8,
                                    .hidden = 30,
                                    .chunk = 16,
                                    .threads = 1};
}

static void what_is_kept(void **unused)
{
    (void)unused;
    kh_bench_stack_options o = tiny();
    kh_bench_stack_result keys, input;
    assert_int_equal(kh_bench_stack(&o, take, &keys), KH_OK);
    o.keep = KH_BENCH_KEEP_INPUT;
    assert_int_equal(kh_bench_stack(&o, take, &input), KH_OK);
    size_t inputs = 2 * 40 * 16 * 4, choice = 40 * 2 * (4 * 2 + 4 + 8);
    assert_int_equal(keys.saved_bytes, inputs + 3 * choice);
    assert_int_equal(input.saved_bytes, inputs + choice);
    assert_true(keys.checksum > 1 && fabs(keys.checksum / input.checksum - 1) < 1e-4);
}

static void memory_runs_out(void **unused)
{
    (void)unused;
    kh_bench_stack_options o = tiny();
    kh_bench_stack_result r;
    assert_int_equal(kh_bench_stack(&o, take, &r), KH_OK);
    uint64_t live = kh_alloc_get_stats().live;
    for (uint64_t n = 1;; n++) {
        kh_alloc_fail_at(n);
        kh_status status = kh_bench_stack(&o, take, &r);
        kh_alloc_fail_at(0);
        assert_true(kh_alloc_get_stats().live == live);
        if (status == KH_OK) break;
        assert_int_equal(status, KH_ERR_MEMORY);
    }
}

static void mistakes_are_named(void **unused)
{
    (void)unused;
    kh_bench_stack_options o = tiny();
    kh_bench_stack_result r;
    static const char *const bad[] = {"0-1=full;2-=topk:k=4", "prefill=full"};
    for (int i = 0; i < 2; i++) {
        o.attns = bad + i;
        assert_int_equal(kh_bench_stack(&o, take, &r), KH_ERR_ARGUMENT);
        assert_non_null(strstr(kh_last_error(), "one setting for all layers and heads"));
    }
    o = tiny();
    o.key_heads = 3;
    assert_int_equal(kh_bench_stack(&o, take, &r), KH_ERR_ARGUMENT);
    static const size_t none[] = {0};
    o = tiny();
    o.lengths = none;
    assert_int_equal(kh_bench_stack(&o, take, &r), KH_ERR_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_are_sums),
        cmocka_unit_test(equals_double_and_its_differences),
        cmocka_unit_test(chunks_and_threads_change_nothing),
        cmocka_unit_test(what_is_kept),
        cmocka_unit_test(memory_runs_out),
        cmocka_unit_test(mistakes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
