/* Decoding through the shadow of the keys equals decoding without it: the same keys, the same softmax,
 * the same bits of the output, on every kind of row; and the bound that this rests on. */
// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include "attn/attn.h"
#include "attn/bias.h"
#include "attn/save.h"
#include "attn/screen.h"
#include "support/attn_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST = 4096, HEADS = 6, WIDEST = 256 };

typedef enum keys_kind {
    RANDOM,
    OUTLIERS, /* two channels are fifty times as large, and one is shared by all keys */
    TIES,     /* four different keys */
    EQUAL,
    WILD, /* NaN, infinities and huge numbers among them */
    RISING,
    SMALL, /* products are subnormal */
    KINDS
} keys_kind;

typedef struct problem {
    keys_kind kind;
    kh_type type;
    int E, H, G, window;
    size_t S; /* positions of the cache; the last one decodes */
} problem;

static void make_keys(const problem *p, float *k, int g, size_t from, size_t n)
{
    size_t E = (size_t)p->E;
    for (size_t j = 0; j < n; j++)
        for (size_t e = 0; e < E; e++) {
            size_t at = from + j;
            kh_rng_key key = {.seed = 3, .stream = (uint64_t)(p->kind * 8 + (keys_kind)g)};
            float x = (float)kh_rng_normal(key, (p->kind == TIES    ? at % 4
                                                 : p->kind == EQUAL ? 0
                                                                    : at) *
                                                        E +
                                                    e);
            if (p->kind == OUTLIERS && e % 29 == 3) x *= 50;
            if (p->kind == OUTLIERS && e == 1) x += 200;
            if (p->kind == RISING) x = 0.2f * x + (float)at * 1e-2f * (e % 2 ? 1.0f : -0.5f);
            if (p->kind == SMALL) x *= 1e-21f;
            if (p->kind == WILD && at % 37 == 5) x = e % 3 ? NAN : x;
            if (p->kind == WILD && at % 41 == 7) x = e == 2 ? -INFINITY : x;
            if (p->kind == WILD && at % 43 == 9) x = e == 0 ? INFINITY : x;
            if (p->kind == WILD && at % 47 == 11) x *= 1e18f;
            k[j * E + e] = x;
        }
}

typedef struct cache {
    kh_kv_pool *pool;
    kh_kv *kv;
} cache;

static void write_rows(kh_kv *kv, const problem *p, size_t from, size_t n)
{
    static float k[MOST * WIDEST], v[MOST * WIDEST];
    size_t E = (size_t)p->E;
    assert_int_equal(kh_kv_prepare(kv, n), KH_OK);
    for (int g = 0; g < p->G; g++) {
        make_keys(p, k, g, from, n);
        for (size_t i = 0; i < n * E; i++) v[i] = sinf((float)(from * E + i + (size_t)g));
        kh_kv_write(kv, kh_kern_get(kh_cpu_isa()), 0, g, n, k, E, v, E);
    }
    kh_kv_advance(kv, n);
}

static cache open_cache(const problem *p, int shadow)
{
    cache c;
    kh_kv_shape shape = {1, p->G, p->E, p->E, p->type, p->type, shadow};
    assert_int_equal(kh_kv_pool_open(&c.pool, &shape, 3 * (MOST / 64) + 4), KH_OK);
    assert_int_equal(kh_kv_open(&c.kv, c.pool, MOST), KH_OK);
    return c;
}

static void close_cache(cache *c)
{
    kh_kv_close(c->kv);
    kh_kv_pool_close(c->pool);
}

/* What decoding the last `rows` positions gives. */
typedef struct found {
    float z[4 * HEADS * WIDEST];
    uint32_t indices[4 * HEADS * 512], counts[4 * HEADS];
    float m[4 * HEADS], u[4 * HEADS];
} found;

static void decode(found *out, const problem *p, const char *spec, kh_kv *kv, size_t rows,
                   int threads, kh_isa isa, enum kh_attn_order order)
{
    static float q[4 * HEADS * WIDEST];
    size_t H = (size_t)p->H, E = (size_t)p->E, S = kh_kv_length(kv), step_bytes, scratch_bytes;
    for (size_t i = 0; i < rows * H * E; i++)
        q[i] = (float)kh_rng_normal((kh_rng_key){.seed = 9, .stream = S}, i);
    kh_attn_layer layer = {.H = p->H,
                           .G = p->G,
                           .E = p->E,
                           .window = p->window,
                           .order = order,
                           .scale = 1.0f / sqrtf((float)p->E)};
    kh_attn_plan *plan;
    assert_int_equal(kh_attn_plan_parse(&plan, spec, 1, p->H), KH_OK);
    kh_attn_need(plan, &layer, kh_kv_shape_of(kv), rows, MOST, &step_bytes, &scratch_bytes);
    kh_arena step, scratch[3];
    assert_int_equal(kh_arena_init(&step, "step", step_bytes), KH_OK);
    for (int i = 0; i < threads; i++)
        assert_int_equal(kh_arena_init(&scratch[i], "scratch", scratch_bytes), KH_OK);
    memset(out, 0, sizeof *out);
    kh_pool pool = {.threads = threads};
    kh_attn_save save = {.kept = 512,
                         .wide = 1,
                         .rows = rows,
                         .indices = out->indices,
                         .counts = out->counts,
                         .m = out->m,
                         .u = out->u};
    kh_span span = {.rows = rows, .position = (int32_t)(S - rows)};
    kh_batch batch = {.n = rows, .spans = &span, .span_count = 1};
    kh_run run = {.step = &step,
                  .pool = &pool,
                  .scratch = scratch,
                  .kern = kh_kern_get(isa),
                  .batch = &batch,
                  .phase = KH_PHASE_DECODE,
                  .kv_self = &kv,
                  .attn = plan,
                  .save = &save};
    if (kh_attn_attend(&run, &layer, out->z, q) != KH_OK) fail_msg("%s: %s", spec, kh_last_error());
    for (int i = 0; i < threads; i++) kh_arena_free(&scratch[i]);
    kh_arena_free(&step);
    kh_attn_plan_free(plan);
}

static found a, b;

static void compare(const problem *p, const char *spec, const char *what)
{
    const char *part = memcmp(a.counts, b.counts, sizeof a.counts)      ? "counts"
                       : memcmp(a.indices, b.indices, sizeof a.indices) ? "keys"
                       : memcmp(a.m, b.m, sizeof a.m)                   ? "m"
                       : memcmp(a.u, b.u, sizeof a.u)                   ? "u"
                       : memcmp(a.z, b.z, sizeof a.z)                   ? "z"
                                                                        : NULL;
    if (part)
        fail_msg("%s: %s differ: kind %d, type %d, E %d, %d heads over %d, window %d, %zu keys, %s",
                 what, part, (int)p->kind, (int)p->type, p->E, p->H, p->G, p->window, p->S, spec);
}

static const char *const specs[] = {
    "topk:k=128",          "topk:k=1",   "topk:k=16,recent=4,sinks=2", "topk:k=64,min-p=0.02",
    "topk:k=12,recent=12", "topk:k=500", "topk:k=32,tail=mean",        "0.0=full;0.1-=topk:k=40"};

static void equal(const problem *p)
{
    cache with = open_cache(p, 1), without = open_cache(p, 0);
    write_rows(with.kv, p, 0, p->S);
    write_rows(without.kv, p, 0, p->S);
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        if (p->H < 2 && strstr(specs[i], "0.1-")) continue;
        decode(&a, p, specs[i], without.kv, 1, 1, kh_cpu_isa(), KH_ATTN_CAUSAL);
        decode(&b, p, specs[i], with.kv, 1, 1, kh_cpu_isa(), KH_ATTN_CAUSAL);
        compare(p, specs[i], "shadow");
    }
    close_cache(&with);
    close_cache(&without);
}

static void shadow_changes_nothing(void **state)
{
    (void)state;
    static const kh_type types[] = {KH_TYPE_F16, KH_TYPE_F32, KH_TYPE_Q8_0};
    static const problem shapes[] = {
        {.E = 64, .H = 6, .G = 2, .S = 2500},
        {.E = 64, .H = 1, .G = 1, .S = 4096},
        {.E = 128, .H = 2, .G = 2, .S = 1100},
        {.E = 80, .H = 4, .G = 1, .S = 3000},
        {.E = 64, .H = 6, .G = 2, .S = 3001, .window = 1800},
        {.E = 256, .H = 4, .G = 1, .S = 1537},
        {.E = 7, .H = 2, .G = 1, .S = 2048},
    };
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (size_t n = 0; n < 3; n++) {
                problem p = shapes[i];
                p.kind = (keys_kind)kind;
                p.type = types[n];
                if (p.type == KH_TYPE_Q8_0 && p.E % 32) continue;
                if ((i + n + (size_t)kind) % 2 && i > 1) continue;
                equal(&p);
            }
}

static void threads_and_instruction_sets_agree(void **state)
{
    (void)state;
    problem p = {.kind = OUTLIERS, .type = KH_TYPE_F16, .E = 64, .H = 6, .G = 2, .S = 3333};
    cache c = open_cache(&p, 1);
    write_rows(c.kv, &p, 0, p.S);
    for (size_t rows = 1; rows <= 4; rows++) {
        decode(&a, &p, "topk:k=100,sinks=4", c.kv, rows, 1, kh_cpu_isa(), KH_ATTN_CAUSAL);
        decode(&b, &p, "topk:k=100,sinks=4", c.kv, rows, 3, kh_cpu_isa(), KH_ATTN_CAUSAL);
        compare(&p, "topk:k=100,sinks=4", "threads");
        for (int isa = 0; isa < (int)kh_cpu_isa(); isa++) {
            decode(&b, &p, "topk:k=100,sinks=4", c.kv, rows, 2, (kh_isa)isa, KH_ATTN_CAUSAL);
            assert_memory_equal(a.indices, b.indices, sizeof a.indices);
            assert_memory_equal(a.counts, b.counts, sizeof a.counts);
        }
    }
    cache plain = open_cache(&p, 0);
    write_rows(plain.kv, &p, 0, p.S);
    decode(&a, &p, "topk:k=100", plain.kv, 2, 1, kh_cpu_isa(), KH_ATTN_ALL_KEYS);
    decode(&b, &p, "topk:k=100", c.kv, 2, 1, kh_cpu_isa(), KH_ATTN_ALL_KEYS);
    compare(&p, "topk:k=100", "all keys");
    close_cache(&plain);
    close_cache(&c);
}

/* A step must equal one over a cache of the same keys without a shadow. */
static void check_step(const problem *p, kh_kv *kv, kh_kv *plain, const char *what)
{
    assert_int_equal(kh_kv_length(kv), kh_kv_length(plain));
    decode(&a, p, "topk:k=60", plain, 1, 1, kh_cpu_isa(), KH_ATTN_CAUSAL);
    decode(&b, p, "topk:k=60", kv, 1, 1, kh_cpu_isa(), KH_ATTN_CAUSAL);
    compare(p, "topk:k=60", what);
}

static void rewinding_forking_and_loading(void **state)
{
    (void)state;
    problem p = {.kind = RANDOM, .type = KH_TYPE_F16, .E = 64, .H = 6, .G = 2, .S = 2000};
    problem other = p;
    other.kind = RISING;
    cache c = open_cache(&p, 1), plain = open_cache(&p, 0);
    kh_kv *both[] = {c.kv, plain.kv}, *forks[2];
    for (int i = 0; i < 2; i++) {
        write_rows(both[i], &p, 0, 2000);
        assert_int_equal(kh_kv_fork(&forks[i], both[i]), KH_OK);
        assert_int_equal(kh_kv_rewind(both[i], 1301), KH_OK);
        write_rows(both[i], &other, 1301, 700); /* the same pages hold other keys now */
        for (size_t at = 2000; at < 2100; at++) write_rows(forks[i], &other, at, 1);
    }
    check_step(&p, c.kv, plain.kv, "rewound");
    check_step(&p, forks[0], forks[1], "forked");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(kh_kv_rewind(both[i], 1980), KH_OK);
        write_rows(both[i], &p, 1980, 1);
    }
    check_step(&p, c.kv, plain.kv, "speculated");
    char path[] = "/tmp/keyhole-decode-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    kh_outfile *file;
    assert_int_equal(kh_outfile_open(&file, path), KH_OK);
    assert_int_equal(kh_kv_save(plain.kv, file), KH_OK); /* without a shadow, loaded with one */
    assert_int_equal(kh_outfile_commit(file), KH_OK);
    kh_map map;
    size_t used;
    kh_kv *loaded;
    assert_int_equal(kh_map_open(&map, path), KH_OK);
    assert_int_equal(kh_kv_open(&loaded, c.pool, MOST), KH_OK);
    assert_int_equal(kh_kv_load(loaded, map.data, map.size, &used), KH_OK);
    check_step(&p, loaded, plain.kv, "loaded");
    kh_map_close(&map);
    unlink(path);
    kh_kv_close(loaded);
    for (int i = 0; i < 2; i++) kh_kv_close(forks[i]);
    close_cache(&c);
    close_cache(&plain);
}

/* |f32 score - estimate| <= bound, and not absurdly larger: what is listed stays few. */
static void bounds_hold(void **state)
{
    (void)state;
    static const size_t widths[] = {16, 64, 80, 128, 256};
    const kh_kern *kern = kh_kern_get(kh_cpu_isa());
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t w = 0; w < 5; w++) {
            size_t E = widths[w];
            problem p = {.kind = (keys_kind)kind, .E = (int)E};
            static float k[64 * WIDEST], panels[64 * WIDEST], spare[64 * WIDEST], q[WIDEST];
            static float upper[64], exact[64], steps[2];
            int16_t x[WIDEST];
            char *shadow = aligned_alloc(64, kh_shadow_bytes(E));
            make_keys(&p, k, 0, 640, 64);
            for (size_t j = 0; j < 64; j++)
                for (size_t e = 0; e < E; e++)
                    panels[(j / 16 * E + e) * 16 + j % 16] = k[j * E + e];
            memcpy(spare, panels, sizeof spare);
            kern->shadow_pack(shadow, spare, E);
            for (size_t turn = 0; turn < 40; turn++) {
                for (size_t e = 0; e < E; e++)
                    q[e] = turn == 0 ? (e == 3 ? 1.0f : 0.0f)
                                     : k[turn * E + e] * 0.5f + cosf((float)(turn * E + e));
                if (!kh_screen_query(x, steps, q, E)) continue;
                kern->score_panel(exact, 64, q, E, 1, panels, 4, E);
                kern->shadow_score(upper, 64, x, steps, 1, shadow, E, NULL);
                for (size_t j = 0; j < 64; j++) {
                    float error = kh_shadow_errors(shadow, E)[j];
                    if (!isfinite(error)) {
                        assert_true(isinf(upper[j]) && upper[j] > 0);
                        continue;
                    }
                    assert_true(exact[j] <= upper[j]);
                    assert_true(exact[j] >= kh_screen_lower(upper[j], steps[1], error));
                    if (kind != RANDOM || turn == 0) continue;
                    double size = 0;
                    for (size_t e = 0; e < E; e++)
                        size += (double)k[j * E + e] * (double)k[j * E + e];
                    double share =
                        (double)(steps[1] * error) /
                        sqrt(size * (double)(steps[1] * steps[1]) * (double)(E & (~E + 1)));
                    assert_true(share < 0.012);
                }
            }
            free(shadow);
        }
    int16_t x[64];
    float steps[2], q[64] = {[5] = NAN};
    assert_int_equal(kh_screen_query(x, steps, q, 64), 0);
    q[5] = INFINITY;
    assert_int_equal(kh_screen_query(x, steps, q, 64), 0);
    q[5] = 0;
    assert_int_equal(kh_screen_query(x, steps, q, 64), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_hold),
        cmocka_unit_test(shadow_changes_nothing),
        cmocka_unit_test(threads_and_instruction_sets_agree),
        cmocka_unit_test(rewinding_forking_and_loading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
