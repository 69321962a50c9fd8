/* kh_attention_forward against a naive softmax in double: layouts, masks, strides, mistakes. */
// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include "base/alloc.h"

#include <keyhole/attention.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { B = 2, H = 6, G = 3, E = 48, S = 700 };

static float *numbers(size_t n, unsigned seed)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) * 0x1p-22f - 2.0f;
    }
    return x;
}

/* The row of full attention over keys [begin, end) of head h. */
static void naive(double *z, const kh_attention_args *a, size_t b, size_t h, size_t t, size_t begin,
                  size_t end)
{
    size_t g = h / (H / G), T = a->queries, n = a->keys;
    const float *q = a->q + ((b * H + h) * T + t) * E, *k = a->k + (b * G + g) * n * E,
                *v = a->v + (b * G + g) * n * E;
    double weight[S], top = -(double)INFINITY, sum = 0;
    for (size_t j = begin; j < end; j++) {
        double dot = 0;
        for (size_t e = 0; e < E; e++) dot += (double)q[e] * (double)k[j * E + e];
        weight[j] = dot / sqrt((double)E);
        top = fmax(top, weight[j]);
    }
    for (size_t j = begin; j < end; j++) sum += weight[j] = exp(weight[j] - top);
    for (size_t e = 0; e < E; e++) z[e] = 0;
    for (size_t j = begin; j < end; j++)
        for (size_t e = 0; e < E; e++) z[e] += weight[j] / sum * (double)v[j * E + e];
}

static kh_attention_args make(size_t T, size_t n)
{
    return (kh_attention_args){.batch = B,
                               .heads = H,
                               .key_heads = G,
                               .width = E,
                               .queries = T,
                               .keys = n,
                               .q = numbers(B * H * T * E, 1),
                               .k = numbers(B * G * n * E, 2),
                               .v = numbers(B * G * n * E, 3),
                               .out = numbers(B * H * T * E, 4),
                               .threads = 2};
}

static void unmake(kh_attention_args *a)
{
    free((void *)(uintptr_t)a->q);
    free((void *)(uintptr_t)a->k);
    free((void *)(uintptr_t)a->v);
    free(a->out);
}

static void forward(const kh_attention_args *a)
{
    if (kh_attention_forward(a)) fail_msg("%s", kh_last_error());
}

static void check_all(const kh_attention_args *a)
{
    double z[E];
    for (size_t b = 0; b < B; b++)
        for (size_t h = 0; h < H; h++)
            for (size_t t = 0; t < a->queries; t += 1 + t / 8) {
                size_t end = a->mask == KH_ATTENTION_FREE ? a->keys : a->keys - a->queries + t + 1;
                size_t window = (size_t)a->window;
                naive(z, a, b, h, t, window && end > window ? end - window : 0, end);
                for (size_t e = 0; e < E; e++) {
                    double got = (double)a->out[((b * H + h) * a->queries + t) * E + e];
                    assert_true(fabs(got - z[e]) < 1e-5);
                }
            }
}

static void equals_the_formula(void **state)
{
    (void)state;
    static const size_t sizes[][2] = {{1, 1}, {5, 5}, {700, 700}, {3, 700}, {1, 65}, {600, 700}};
    static const char *const same[] = {NULL, "full", "topk:k=700", "topk:k=100000"};
    for (size_t i = 0; i < 6; i++)
        for (size_t j = 0; j < 4; j++) {
            kh_attention_args a = make(sizes[i][0], sizes[i][1]);
            a.attn = same[j];
            forward(&a);
            check_all(&a);
            a.mask = KH_ATTENTION_FREE;
            forward(&a);
            check_all(&a);
            a.mask = KH_ATTENTION_CAUSAL;
            a.window = 70;
            forward(&a);
            check_all(&a);
            unmake(&a);
        }
    kh_attention_args a = make(90, 30); /* more queries than keys, all of them free */
    a.mask = KH_ATTENTION_FREE;
    a.attn = "topk:k=30";
    forward(&a);
    check_all(&a);
    unmake(&a);
}

/* [B][T][H][E] arrays, as many frameworks keep them, described by strides. */
static void strides_are_followed(void **state)
{
    (void)state;
    enum { T = 150 };
    kh_attention_args a = make(T, T), b = a;
    a.attn = b.attn = "topk:k=20,recent=4,sinks=2";
    forward(&a);
    float *q = malloc(B * T * H * E * 4), *k = malloc(B * T * G * E * 4),
          *out = malloc(B * T * H * E * 4);
    for (size_t i = 0; i < B * H * T; i++)
        memcpy(q + ((i / (H * T) * T + i % T) * H + i / T % H) * E, a.q + i * E, E * 4);
    for (size_t i = 0; i < B * G * T; i++)
        memcpy(k + ((i / (G * T) * T + i % T) * G + i / T % G) * E, a.k + i * E, E * 4);
    b.q = q;
    b.k = k;
    b.out = out;
    b.q_stride = b.out_stride = (kh_attention_stride){T * H * E, E, H * E};
    b.k_stride = (kh_attention_stride){T * G * E, E, G * E};
    forward(&b);
    for (size_t i = 0; i < B * H * T; i++)
        assert_memory_equal(out + ((i / (H * T) * T + i % T) * H + i / T % H) * E, a.out + i * E,
                            E * 4);
    free(q);
    free(k);
    free(out);
    unmake(&a);
}

static void statistics(void **state)
{
    (void)state;
    kh_attention_args a = make(100, 100);
    kh_attention_stats stats;
    a.stats = &stats;
    a.attn = "topk:k=10";
    forward(&a);
    assert_true(stats.rows == B * H * 100);
    assert_true(stats.keys_seen == B * H * 5050);
    assert_true(stats.keys_kept == B * H * (55 + 90 * 10));
    assert_true(stats.kept_mass < stats.rows && stats.kept_mass > 0.2 * stats.rows);
    a.attn = "full";
    forward(&a);
    assert_true(stats.keys_kept == stats.keys_seen && stats.kept_mass == stats.rows);
    unmake(&a);
}

static void mistakes_are_named(void **state)
{
    (void)state;
    kh_attention_args good = make(8, 8), a;
    uint64_t live = kh_alloc_get_stats().live;
#define BAD(change, word)                                                                          \
    a = good;                                                                                      \
    change;                                                                                        \
    assert_int_equal(kh_attention_forward(&a), KH_ERR_ARGUMENT);                                   \
    assert_non_null(strstr(kh_last_error(), word))
    BAD(a.key_heads = 4, "multiple");
    BAD(a.heads = 0, "multiple");
    BAD(a.batch = -1, "batch -1");
    BAD(a.width = 0, "width 0");
    BAD(a.keys = 0, "0 keys");
    BAD(a.keys = (size_t)1 << 40, "keys");
    BAD(a.v = NULL, "v is NULL");
    BAD(a.mask = (kh_attention_mask)7, "mask 7");
    BAD(a.queries = 9, "9 queries");
    BAD(a.scale = -1, "scale -1");
    BAD(a.scale = NAN, "scale");
    BAD(a.softcap = INFINITY, "softcap inf");
    BAD(a.window = -2, "window -2");
    BAD((a.window = 3, a.mask = KH_ATTENTION_FREE), "causal");
    BAD(a.threads = -1, "threads");
    BAD(a.attn = "topk", "needs k");
    BAD(a.attn = "1=full", "no layer 1");
    BAD((a.attn = "topk:k=4,recent=2", a.mask = KH_ATTENTION_FREE), "recent=2");
    assert_true(kh_alloc_get_stats().live == live);
    a = good;
    a.batch = 0;
    forward(&a);
    for (uint64_t n = 1;; n++) {
        kh_alloc_fail_at(n);
        kh_status status = kh_attention_forward(&good);
        kh_alloc_fail_at(0);
        assert_true(kh_alloc_get_stats().live == live);
        if (!status) break;
        assert_int_equal(status, KH_ERR_MEMORY);
    }
    unmake(&good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_formula),
        cmocka_unit_test(strides_are_followed),
        cmocka_unit_test(statistics),
        cmocka_unit_test(mistakes_are_named),
    };
    return cmocka_run_group_tests_name("api_attention", tests, NULL, NULL);
}
