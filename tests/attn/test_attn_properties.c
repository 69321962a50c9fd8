/* Properties that every attention method has, proved over the table of methods.
 *
 * Truth is attn/measure.c (brute force: all scores of a row, a full sort, double precision) over the
 * keys and values that the cache gives back, so each cache type is compared with its own numbers. */
// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include "support/attn_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SLOW = 1 };
#else
enum { SLOW = 0 };
#endif

typedef struct shape {
    int E, H, G;
    size_t S, cached, step;
    int window;
} shape;

static const shape shapes[] = {
    {64, 3, 1, 1, 0, 0, 0},       {32, 1, 1, 5, 0, 0, 0},          {64, 9, 3, 130, 64, 0, 0},
    {64, 9, 3, 200, 0, 0, 0},     {32, 4, 1, 333, 300, 16, 0},     {80, 4, 2, 150, 37, 0, 0},
    {128, 4, 4, 97, 33, 1, 0},    {256, 4, 1, 100, 64, 0, 50},     {64, 6, 2, 260, 130, 0, 100},
    {64, 3, 1, 1300, 1298, 1, 0}, {32, 2, 1, 2200, 2190, 3, 1500},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static const char *const specs[] = {
    "full",
    "window:recent=20",
    "window:recent=64,sinks=4",
    "topk:k=1",
    "topk:k=16",
    "topk:k=33,recent=8,sinks=4",
    "topk:k=64",
    "topk:k=12,recent=12",
    "topk:k=32,min-p=0.05",
    "topk:k=24,tail=mean",
    "topk:k=40,recent=4,sinks=2,min-p=0.01,tail=mean",
    "0.0=full;0.1-=topk:k=20",
};
enum { SPECS = sizeof specs / sizeof *specs };
static const kh_type types[] = {KH_TYPE_F32, KH_TYPE_F16, KH_TYPE_Q8_0};

static float *q, *k, *v;

static attn_case make(const shape *s, const char *spec, kh_type type)
{
    attn_case c = {.spec = spec,
                   .E = s->E,
                   .H = s->H,
                   .G = s->G,
                   .S = s->S,
                   .cached = s->cached,
                   .step = s->step,
                   .window = s->window,
                   .type = type,
                   .isa = kh_cpu_isa()};
    size_t E = (size_t)s->E, H = (size_t)s->H, G = (size_t)s->G;
    q = attn_numbers(s->S * H * E, 1, 2.0f);
    k = attn_numbers(s->S * G * E, 2, 1.0f);
    v = attn_numbers(s->S * G * E, 3, 1.0f);
    c.q = q;
    c.k = k;
    c.v = v;
    return c;
}

static void unmake(void)
{
    free(q);
    free(k);
    free(v);
}

static int usable(const shape *s, const char *spec, kh_type type)
{
    return !(type == KH_TYPE_Q8_0 && s->E % 32) && !(strstr(spec, "0.1-") && s->H < 2);
}

/* ---- one result against brute force */

static kh_attn_truth open_truth(size_t S, size_t E)
{
    kh_attn_truth t = {0};
    t.scores = malloc(S * sizeof *t.scores);
    t.keys = malloc(S * sizeof *t.keys);
    t.weights = malloc(S * sizeof *t.weights);
    t.z = malloc(E * sizeof *t.z);
    return t;
}

static void close_truth(kh_attn_truth *t)
{
    free(t->scores);
    free(t->keys);
    free(t->weights);
    free(t->z);
}

static const kh_attn_setting *setting_of(const attn_result *r, int head)
{
    return kh_attn_plan_at(r->plan, KH_PHASE_PREFILL, 0, head);
}

/* With min-p a key may fall on either side of the bound by rounding; its weight tells. */
static void compare_keys(const kh_attn_setting *s, const attn_kept *got, const kh_attn_truth *t)
{
    if (s->min_p == 0) {
        assert_int_equal(got->count, t->count);
        assert_memory_equal(got->keys, t->keys, got->count * sizeof *got->keys);
        return;
    }
    double top = 0, missed = 0;
    for (size_t i = 0; i < t->count; i++) top = fmax(top, t->weights[i]);
    size_t hits =
        (size_t)(kh_attn_recall(got->keys, got->count, t->keys, t->count) * (double)t->count + 0.5);
    for (size_t i = 0; i < t->count; i++)
        if (kh_attn_recall(got->keys, got->count, &t->keys[i], 1) < 0.5)
            missed += fabs(t->weights[i] / top / (double)s->min_p - 1) > 1e-4;
    assert_true(missed == 0);
    assert_true(got->count - hits <= 1);
}

/* The tail's mass is known to 7e-4 of itself (tail_rows), and pulls z towards the mean of the values. */
static double slack(const kh_attn_setting *s, const kh_attn_truth *t, const float *values, size_t n)
{
    double size = 0;
    if (!s->tail_mean) return 0;
    for (size_t i = 0; i < n; i++) size = fmax(size, fabs((double)values[i]));
    return 7e-4 * t->kept_mass * (1 - t->kept_mass) * 2 * size;
}

/* By how much z differs, beyond what an estimated tail may. */
static double compare(const attn_case *c, const attn_result *r)
{
    size_t E = (size_t)c->E, H = (size_t)c->H;
    kh_attn_truth t = open_truth(c->S, E);
    double worst = 0;
    for (size_t i = 0; i < c->S; i++)
        for (size_t h = 0; h < H; h++) {
            const kh_attn_setting *s = setting_of(r, (int)h);
            size_t g = h / (H / (size_t)c->G);
            kh_attn_brute_row(&t, &r->layer, s, c->q + (i * H + h) * E, r->k + g * c->S * E,
                              r->v + g * c->S * E, i, c->S);
            const attn_kept *got = &r->rows[i * H + h];
            double allowed = slack(s, &t, r->v + g * c->S * E, c->S * E);
            if (c->want_rows) {
                compare_keys(s, got, &t);
                for (size_t j = 0; j < got->count && s->min_p == 0; j++)
                    assert_true(fabs((double)got->weights[j] - t.weights[j]) <
                                1e-5 + (s->tail_mean ? 7e-4 * t.weights[j] : 0));
            }
            for (size_t e = 0; e < E; e++) {
                double d = fabs((double)r->z[(i * H + h) * E + e] - t.z[e]) - allowed;
                if (!(d <= worst)) worst = d;
            }
        }
    close_truth(&t);
    return worst;
}

static void equals_brute_force(void **state)
{
    (void)state;
    for (size_t i = 0; i < SHAPES; i++)
        for (size_t j = 0; j < SPECS; j++)
            for (size_t n = 0; n < 3; n++) {
                if (!usable(&shapes[i], specs[j], types[n])) continue;
                if ((shapes[i].S > 1000 || SLOW) && (i + j + n) % 3) continue;
                attn_case c = make(&shapes[i], specs[j], types[n]);
                c.want_rows = 1;
                attn_result *r = attn_run(&c);
                assert_int_equal(r->delivered, c.S * (size_t)c.H);
                double worst = compare(&c, r);
                if (!(worst < 2e-5))
                    fail_msg("%s, S %zu, E %d, type %d: z differs by %g", c.spec, c.S, c.E,
                             (int)c.type, worst);
                attn_free(r, &c);
                unmake();
            }
}

/* ---- the same numbers along other ways */

static void all_keys_equal_full(void **state)
{
    (void)state;
    for (size_t m = 0; m < KH_ATTN_METHOD_COUNT; m++)
        for (size_t i = 0; i < SHAPES; i++) {
            attn_case c = make(&shapes[i], "full", types[i % 2]);
            attn_result *full = attn_run(&c);
            c.spec = kh_attn_methods[m]->everything;
            attn_result *r = attn_run(&c);
            assert_true(attn_distance(r->z, full->z, c.S * (size_t)(c.H * c.E)) < 1e-5);
            attn_free(full, &c);
            attn_free(r, &c);
            unmake();
        }
    /* the selecting path itself: min-p keeps it from being replaced by full, and drops nothing */
    attn_case c = make(&shapes[3], "full", KH_TYPE_F32);
    attn_result *full = attn_run(&c);
    c.spec = "topk:k=5000,min-p=1e-30";
    attn_result *r = attn_run(&c);
    assert_true(attn_distance(r->z, full->z, c.S * (size_t)(c.H * c.E)) < 1e-5);
    attn_free(full, &c);
    attn_free(r, &c);
    unmake();
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < SHAPES; i++)
        for (size_t j = 0; j < SPECS; j++) {
            if (!usable(&shapes[i], specs[j], KH_TYPE_F16) || (shapes[i].S > 1000 && j % 3))
                continue;
            attn_case c = make(&shapes[i], specs[j], KH_TYPE_F16);
            c.want_mass = 1;
            attn_result *one = attn_run(&c);
            c.threads = 2;
            attn_result *two = attn_run(&c);
            assert_memory_equal(one->z, two->z, c.S * (size_t)(c.H * c.E) * sizeof *one->z);
            assert_memory_equal(&one->stats, &two->stats, sizeof one->stats);
            attn_free(one, &c);
            attn_free(two, &c);
            unmake();
        }
}

static void batches_change_nothing(void **state)
{
    (void)state;
    static const size_t steps[] = {1, 2, 5, 17, 64, 100};
    const shape *s = &shapes[8];
    for (size_t j = 0; j < SPECS; j++) {
        attn_case c = make(s, specs[j], KH_TYPE_F16);
        size_t n = c.S * (size_t)(c.H * c.E);
        c.cached = 0;
        attn_result *whole = attn_run(&c);
        for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
            c.step = steps[i];
            attn_result *parts = attn_run(&c);
            if (steps[i] > 4 || strncmp(c.spec, "topk", 4) == 0)
                assert_memory_equal(parts->z, whole->z, n * sizeof *whole->z);
            assert_true(attn_distance(parts->z, whole->z, n) < 1e-5);
            attn_free(parts, &c);
        }
        attn_free(whole, &c);
        unmake();
    }
}

/* Decoding cuts the keys into chunks; the kept set stays exact and z the same but for rounding. */
static void decoding_equals_the_parallel_pass(void **state)
{
    (void)state;
    shape s = {64, 6, 2, 3100, 0, 0, 0};
    for (size_t j = 0; j < SPECS; j += 1 + 2 * SLOW) {
        attn_case c = make(&s, specs[j], KH_TYPE_F16);
        attn_result *whole = attn_run(&c);
        c.cached = s.S - 6;
        c.step = 1;
        attn_result *steps = attn_run(&c);
        size_t n = c.S * (size_t)(c.H * c.E);
        double d = attn_distance(steps->z, whole->z, n);
        if (!(d < 1e-5)) fail_msg("%s: %g", c.spec, d);
        attn_free(whole, &c);
        attn_free(steps, &c);
        unmake();
    }
}

static void instruction_sets_agree(void **state)
{
    (void)state;
    for (size_t i = 2; i < SHAPES; i += 3)
        for (size_t j = 0; j < SPECS; j += 1 + 2 * SLOW) {
            if (!usable(&shapes[i], specs[j], KH_TYPE_F16) || shapes[i].S > 1000) continue;
            attn_case c = make(&shapes[i], specs[j], KH_TYPE_F16);
            c.want_rows = strstr(specs[j], "min-p") == NULL;
            c.isa = KH_ISA_REF;
            attn_result *ref = attn_run(&c);
            for (int isa = KH_ISA_REF; isa <= (int)kh_cpu_isa(); isa++) {
                c.isa = (kh_isa)isa;
                attn_result *r = attn_run(&c);
                assert_true(attn_distance(r->z, ref->z, c.S * (size_t)(c.H * c.E)) < 1e-5);
                for (size_t row = 0; c.want_rows && row < c.S * (size_t)c.H; row++) {
                    assert_int_equal(r->rows[row].count, ref->rows[row].count);
                    assert_memory_equal(r->rows[row].keys, ref->rows[row].keys,
                                        r->rows[row].count * sizeof(uint32_t));
                }
                attn_free(r, &c);
            }
            attn_free(ref, &c);
            unmake();
        }
}

static void soft_caps_are_applied(void **state)
{
    (void)state;
    for (size_t j = 0; j < SPECS; j++) {
        attn_case c = make(&shapes[3], specs[j], KH_TYPE_F32);
        c.softcap = 3.0f;
        c.scale = 0.2f;
        c.want_rows = 1;
        attn_result *r = attn_run(&c);
        assert_true(compare(&c, r) < 2e-5);
        attn_free(r, &c);
        unmake();
    }
}

/* ---- rows that are made to hurt a selection */

static float score_of(int kind, size_t j, size_t S)
{
    switch (kind) {
    case 0: return (float)j;                                           /* ascending */
    case 1: return (float)(S - j);                                     /* descending */
    case 2: return 1.0f;                                               /* all equal */
    case 3: return (float)(j * 7 % 3);                                 /* many ties */
    case 4: return j == 700 ? 1e30f : (float)(j % 50) * 1e-3f;         /* one outlier */
    case 5: return j % 5 == 0 ? NAN : (float)(j * 7919 % 1000);        /* NaN */
    case 6: return j % 3 ? -INFINITY : (float)(j * 7919 % 1000) - 500; /* -inf */
    case 7: return j % 2 ? 0.0f : -0.0f;                               /* both zeros */
    case 8: return -(float)(j * 7919 % 1000) * 1e-38f;                 /* subnormal, negative */
    case 9: return j < 64 ? (float)j : 0.5f;                           /* ties below the best */
    case 10: return NAN;                                               /* nothing to keep */
    default: return j % 2 ? 1e-3f * (float)j : 1e3f + (float)(j % 4);  /* two clusters with ties */
    }
}

/* q = (1, 0, ...), so key 0 of a row is its score; scale keeps weights of large scores apart. */
static void hard_rows(void **state)
{
    (void)state;
    static const char *const hard[] = {"topk:k=1",
                                       "topk:k=7",
                                       "topk:k=64",
                                       "topk:k=100,sinks=3",
                                       "topk:k=50,recent=20,sinks=5",
                                       "topk:k=4000",
                                       "full",
                                       "window:recent=100,sinks=10"};
    for (int kind = 0; kind < 12; kind++)
        for (size_t j = SLOW ? (size_t)kind % 3 : 0; j < sizeof hard / sizeof *hard;
             j += 1 + 2 * SLOW)
            for (size_t cached = 0; cached <= 1295; cached += 1295) {
                shape s = {32, 1, 1, cached ? 1300 : 750, cached, cached ? 1 : 0, 0};
                attn_case c = make(&s, hard[j], KH_TYPE_F32);
                memset(q, 0, s.S * 32 * sizeof *q);
                for (size_t i = 0; i < s.S; i++) q[i * 32] = 1.0f;
                for (size_t i = 0; i < s.S; i++) {
                    memset(k + i * 32, 0, 32 * sizeof *k);
                    k[i * 32] = score_of(kind, i, s.S);
                }
                c.scale = kind == 4 ? 1e-30f : 0.01f;
                c.want_rows = 1;
                attn_result *r = attn_run(&c);
                /* brute force for some rows only: the pattern repeats */
                kh_attn_truth t = open_truth(c.S, 32);
                for (size_t i = 0; i < c.S; i += i < 150 ? 7 : i < 1290 ? 101 : 1) {
                    const kh_attn_setting *set = setting_of(r, 0);
                    kh_attn_brute_row(&t, &r->layer, set, c.q, r->k, r->v, i, c.S);
                    const attn_kept *got = &r->rows[i];
                    size_t n = 0; /* ranges list keys without weight too */
                    for (size_t x = 0; x < got->count; x++)
                        if (t.scores[got->keys[x]] > -INFINITY) got->keys[n++] = got->keys[x];
                    if (n != t.count || memcmp(got->keys, t.keys, n * sizeof *t.keys))
                        fail_msg("%s, rows of kind %d, row %zu: %zu kept, %zu expected", hard[j],
                                 kind, i, n, t.count);
                    for (size_t e = 0; e < 32; e++)
                        assert_true(fabs((double)r->z[i * 32 + e] - t.z[e]) < 2e-5);
                }
                close_truth(&t);
                attn_free(r, &c);
                unmake();
            }
}

/* Later tokens, whatever they are, leave earlier rows alone; keys are causal, unique, pinned. */
static void rows_look_back_only(void **state)
{
    (void)state;
    for (size_t j = 0; j < SPECS; j++) {
        attn_case c = make(&shapes[3], specs[j], KH_TYPE_F32);
        size_t HE = (size_t)(c.H * c.E), GE = (size_t)(c.G * c.E);
        c.want_rows = 1;
        attn_result *r = attn_run(&c);
        for (size_t row = 0; row < c.S * (size_t)c.H; row++) {
            const attn_kept *got = &r->rows[row];
            const kh_attn_setting *s = setting_of(r, (int)(row % (size_t)c.H));
            size_t position = row / (size_t)c.H, pinned = 0, expected = 0;
            for (size_t i = 0; i < got->count; i++) {
                assert_true(got->keys[i] <= position);
                assert_true(i == 0 || got->keys[i] > got->keys[i - 1]);
                pinned += got->keys[i] < (uint32_t)s->sinks ||
                          got->keys[i] + (size_t)s->recent > position;
            }
            for (size_t i = 0; i <= position; i++)
                expected += i < (size_t)s->sinks || i + (size_t)s->recent > position;
            assert_int_equal(pinned, expected);
            if (s->method == &kh_attn_topk) assert_true(got->count <= (size_t)s->k);
        }
        for (size_t i = 151 * GE; i < c.S * GE; i++) k[i] = v[i] = 1e6f;
        attn_result *other = attn_run(&c);
        assert_memory_equal(r->z, other->z, 151 * HE * sizeof *r->z);
        attn_free(r, &c);
        attn_free(other, &c);
        unmake();
    }
}

static void kept_mass_and_counts(void **state)
{
    (void)state;
    for (size_t i = 2; i < 9; i += 2)
        for (size_t j = 0; j < SPECS; j++) {
            if (!usable(&shapes[i], specs[j], KH_TYPE_F16)) continue;
            attn_case c = make(&shapes[i], specs[j], KH_TYPE_F16);
            size_t E = (size_t)c.E, H = (size_t)c.H;
            c.want_mass = 1;
            attn_result *r = attn_run(&c);
            kh_attn_truth t = open_truth(c.S, E);
            double mass = 0, kept = 0, seen = 0;
            for (size_t row = 0; row < c.S * H; row++) {
                size_t g = row % H / (H / (size_t)c.G), p = row / H;
                kh_attn_brute_row(&t, &r->layer, setting_of(r, (int)(row % H)), c.q + row * E,
                                  r->k + g * c.S * E, r->v + g * c.S * E, p, c.S);
                mass += t.kept_mass;
                kept += (double)t.count;
                seen += (double)(c.window && p + 1 > (size_t)c.window ? (size_t)c.window : p + 1);
            }
            assert_true(r->stats.rows == (double)(c.S * H));
            assert_true(r->stats.keys_seen == seen);
            assert_true(fabs(r->stats.keys_kept - kept) <= (strstr(c.spec, "min-p") ? 2 : 0));
            assert_true(fabs(r->stats.kept_mass - mass) < 1e-4 * mass);
            close_truth(&t);
            attn_free(r, &c);
            unmake();
        }
}

static void nothing_is_allocated(void **state)
{
    (void)state;
    for (size_t j = 0; j < SPECS; j++) {
        attn_case c = make(&shapes[4], specs[j], KH_TYPE_Q8_0);
        attn_result *r = attn_run(&c);
        assert_int_equal(r->calls, 0);
        attn_free(r, &c);
        unmake();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_brute_force),
        cmocka_unit_test(all_keys_equal_full),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(batches_change_nothing),
        cmocka_unit_test(decoding_equals_the_parallel_pass),
        cmocka_unit_test(instruction_sets_agree),
        cmocka_unit_test(soft_caps_are_applied),
        cmocka_unit_test(hard_rows),
        cmocka_unit_test(rows_look_back_only),
        cmocka_unit_test(kept_mass_and_counts),
        cmocka_unit_test(nothing_is_allocated),
    };
    return cmocka_run_group_tests_name("attn_properties", tests, NULL, NULL);
}
