/* kh_attention_decode against kh_attention_forward over the same keys, with and without a shadow that grows
 * and is cut back; strides, mistakes, failing memory. */
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

enum { B = 2, H = 6, G = 3, E = 48, MOST = 2500, ROOM = MOST + 7 /* rows of the arrays */ };

static float q[B * H * E], k[B * ROOM * G * E], v[B * ROOM * G * E], got[B * H * E],
    want[B * H * E];

static void fill(float *x, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) * 0x1p-22f - 2.0f;
    }
}

static kh_attention_decode_args make(size_t S, const char *attn)
{
    kh_attention_stride by = {(size_t)ROOM * G * E, E, (size_t)G * E};
    fill(q, B * H * E, 1);
    fill(k, (size_t)B * ROOM * G * E, 2);
    fill(v, (size_t)B * ROOM * G * E, 3);
    for (size_t i = 5; i < (size_t)B * ROOM * G * E; i += E)
        k[i] += 30; /* a channel that all share */
    return (kh_attention_decode_args){.batch = B,
                                      .heads = H,
                                      .key_heads = G,
                                      .width = E,
                                      .keys = S,
                                      .q = q,
                                      .k = k,
                                      .v = v,
                                      .out = got,
                                      .k_stride = by,
                                      .v_stride = by,
                                      .attn = attn,
                                      .threads = 2};
}

static void forward(const kh_attention_decode_args *a)
{
    kh_attention_args f = {.batch = B,
                           .heads = H,
                           .key_heads = G,
                           .width = E,
                           .queries = 1,
                           .keys = a->keys,
                           .q = q,
                           .k = k,
                           .v = v,
                           .out = want,
                           .k_stride = a->k_stride,
                           .v_stride = a->v_stride,
                           .attn = a->attn,
                           .scale = a->scale,
                           .softcap = a->softcap,
                           .window = a->window};
    assert_int_equal(kh_attention_forward(&f), KH_OK);
}

static void compare(const kh_attention_decode_args *a, int bits)
{
    memset(got, 0x55, sizeof got);
    assert_int_equal(kh_attention_decode(a), KH_OK);
    if (bits && memcmp(got, want, sizeof got))
        fail_msg("%s, %zu keys: bits differ", a->attn, a->keys);
    for (size_t i = 0; i < B * H * E; i++)
        assert_true(isnan(want[i]) ? isnan(got[i]) : fabsf(got[i] - want[i]) < 1e-5f);
}

static kh_attention_shadow open_shadow(size_t capacity)
{
    kh_attention_shadow s = {.capacity = capacity};
    s.memory = malloc(kh_attention_shadow_bytes(B, G, E, capacity));
    return s;
}

static void equals_forward(void **state)
{
    (void)state;
    static const char *const specs[] = {"topk:k=40",
                                        "topk:k=1",
                                        "topk:k=300,recent=9,sinks=3",
                                        "topk:k=64,min-p=0.1",
                                        "full",
                                        "window:recent=99,sinks=2",
                                        "topk:k=32,tail=mean",
                                        "0.0-2=full;0.3-=topk:k=9",
                                        NULL};
    static const size_t lengths[] = {1, 63, 64, 200, 1500, 2500};
    kh_attention_shadow s = open_shadow(MOST);
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++)
        for (size_t n = 0; n < sizeof lengths / sizeof *lengths; n++)
            for (int window = 0; window < 2; window++) {
                kh_attention_decode_args a = make(lengths[n], specs[i]);
                a.window = window ? 1100 : 0;
                a.softcap = i % 2 ? 5.0f : 0.0f;
                forward(&a);
                int bits = specs[i] && strncmp(specs[i], "topk", 4) == 0 && a.keys > 1024;
                compare(&a, bits);
                s.keys = 0;
                assert_int_equal(kh_attention_shadow_extend(&s, &a), KH_OK);
                assert_int_equal(s.keys, a.keys / 64 * 64);
                a.shadow = &s;
                compare(&a, bits);
                a.threads = 1;
                compare(&a, bits);
            }
    free(s.memory);
}

static void grows_and_is_cut_back(void **state)
{
    (void)state;
    kh_attention_shadow s = open_shadow(MOST);
    kh_attention_decode_args a = make(1900, "topk:k=50");
    a.shadow = &s;
    for (; a.keys < 2100; a.keys += 33) {
        assert_int_equal(kh_attention_shadow_extend(&s, &a), KH_OK);
        forward(&a);
        compare(&a, 1);
    }
    for (size_t i = 1700 * G * E; i < 2200 * G * E; i++) k[i] = sinf((float)i);
    k[1750 * G * E + 3] = NAN;
    k[1751 * G * E + 3] = INFINITY;
    a.keys = 2100;
    s.keys = 1700; /* not a multiple of 64: the block with the first changed key goes too */
    assert_int_equal(kh_attention_shadow_extend(&s, &a), KH_OK);
    forward(&a);
    compare(&a, 1);
    q[7] = NAN; /* no score is a number */
    forward(&a);
    memset(got, 0x55, sizeof got);
    assert_int_equal(kh_attention_decode(&a), KH_OK);
    for (size_t i = 0; i < E; i++) assert_true(got[i] == 0);
    assert_memory_equal(got, want, sizeof got);
    free(s.memory);
}

static void refused(kh_status status, const char *word)
{
    assert_int_equal(status, KH_ERR_ARGUMENT);
    if (!strstr(kh_last_error(), word)) fail_msg("'%s' lacks '%s'", kh_last_error(), word);
}

static void mistakes_are_sentences(void **state)
{
    (void)state;
    kh_attention_shadow s = open_shadow(640);
    kh_attention_decode_args good = make(1000, "topk:k=5"), a = good;
    a.key_heads = 4;
    refused(kh_attention_decode(&a), "multiple");
    a = good;
    a.keys = 0;
    refused(kh_attention_decode(&a), "1 key");
    a = good;
    a.q = NULL;
    refused(kh_attention_decode(&a), "q is NULL");
    a = good;
    a.attn = "topk";
    refused(kh_attention_decode(&a), "needs k");
    refused(kh_attention_shadow_extend(&s, &good), "room");
    a = good;
    a.k = NULL;
    a.keys = 100;
    refused(kh_attention_shadow_extend(&s, &a), "k is NULL");
    a = good;
    kh_attention_shadow none = {.capacity = 640};
    a.shadow = &none;
    refused(kh_attention_decode(&a), "memory");
    assert_int_equal(kh_attention_shadow_bytes(1, 1, 257, 640), 0);
    assert_int_equal(kh_attention_shadow_bytes(0, 1, 64, 640), 0);
    assert_int_equal(kh_attention_shadow_bytes(1, 1, 64, SIZE_MAX), 0);
    assert_true(kh_attention_shadow_bytes(1, 2, 64, 640) <= 2 * 640 * 80);
    free(s.memory);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    kh_attention_shadow s = open_shadow(MOST);
    kh_attention_decode_args a = make(1500, "topk:k=5");
    assert_int_equal(kh_attention_shadow_extend(&s, &a), KH_OK);
    a.shadow = &s;
    uint64_t live = kh_alloc_get_stats().live;
    for (uint64_t n = 1;; n++) {
        kh_alloc_fail_at(n);
        kh_status status = kh_attention_decode(&a);
        kh_alloc_fail_at(0);
        assert_int_equal(kh_alloc_get_stats().live, live);
        if (status == KH_OK) {
            assert_true(n > 4);
            break;
        }
        assert_int_equal(status, KH_ERR_MEMORY);
    }
    free(s.memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_forward),
        cmocka_unit_test(grows_and_is_cut_back),
        cmocka_unit_test(mistakes_are_sentences),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
