/* Clusters of value vectors against k-means in double over all vectors at once, on vectors that were planted, and to the bit
 * for any number of threads. */
#include "base/alloc.h"
#include "base/rng.h"
#include "model/network.h"
#include "ops/columns.h"
#include "support/family_golden.h"

#include <keyhole/keyhole.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { K = 7, ROUNDS = 30, ALL = 4096, PLANTED = 5 };

typedef struct subject {
    kh_model *model;
    kh_inspector *inspector;
    size_t D, F, V, all;
    double *x; /* [all][D] of length 1 */
    const kh_kern *kern;
} subject;

static void open_subject(subject *s, const char *name, int threads)
{
    kh_session_options options = {.precision = KH_PRECISION_F32, .threads = threads};
    *s = (subject){.model = open_model(family_path(family_named(name)))};
    const kh_description *d = &s->model->d;
    s->D = (size_t)d->D;
    s->F = (size_t)d->F;
    s->V = (size_t)d->V;
    s->all = (size_t)d->N * s->F;
    s->kern = kh_kern_get(kh_cpu_isa());
    GOOD(kh_inspector_open(&s->inspector, s->model, &options));
}

static void read_vectors(subject *s)
{
    float *value = kh_calloc(s->D, sizeof *value), *wide = kh_calloc(s->F, sizeof *wide);
    s->x = kh_calloc(s->all * s->D, sizeof *s->x);
    for (size_t n = 0; n < s->all; n++) {
        double square = 0;
        kh_weight_column(value, &s->model->w.stack.blocks[n / s->F].down, n % s->F, s->kern, wide);
        for (size_t d = 0; d < s->D; d++) square += (double)value[d] * (double)value[d];
        for (size_t d = 0; d < s->D && square > 0; d++)
            s->x[n * s->D + d] = (double)value[d] / sqrt(square);
    }
    kh_free(value);
    kh_free(wide);
}

static void close_subject(subject *s)
{
    kh_free(s->x);
    kh_inspector_close(s->inspector);
    kh_model_close(s->model);
}

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

typedef struct truth {
    double *c; /* [K][D] */
    int of[ALL];
    double cosine[ALL], mean;
    int rounds;
} truth;

static void assign(truth *t, const subject *s)
{
    t->mean = 0;
    for (size_t n = 0; n < s->all; n++) {
        t->cosine[n] = -2;
        for (int k = 0; k < K; k++) {
            double one = dot(s->x + n * s->D, t->c + (size_t)k * s->D, s->D);
            if (one <= t->cosine[n]) continue;
            t->cosine[n] = one;
            t->of[n] = k;
        }
        t->mean += t->cosine[n] / (double)s->all;
    }
}

static void move(truth *t, const subject *s)
{
    for (int k = 0; k < K; k++) {
        double *c = t->c + (size_t)k * s->D;
        size_t size = 0;
        memset(c, 0, s->D * sizeof *c);
        for (size_t n = 0; n < s->all; n++) {
            if (t->of[n] != k) continue;
            size++;
            for (size_t d = 0; d < s->D; d++) c[d] += s->x[n * s->D + d];
        }
        assert_true(size > 0);
        double length = sqrt(dot(c, c, s->D));
        for (size_t d = 0; d < s->D; d++) c[d] /= length;
    }
}

static void brute_force(truth *t, const subject *s, const kh_component *start, int rounds)
{
    int before[ALL];
    *t = (truth){.c = kh_calloc(K * s->D, sizeof *t->c)};
    assert_true(s->all <= ALL);
    for (size_t k = 0; k < K; k++)
        memcpy(t->c + k * s->D,
               s->x + ((size_t)start[k].layer * s->F + (size_t)start[k].index) * s->D,
               s->D * sizeof *t->c);
    for (int moved = 1; moved && t->rounds < rounds; t->rounds++) {
        memcpy(before, t->of, sizeof before);
        if (t->rounds > 0) move(t, s);
        assign(t, s);
        moved = t->rounds == 0 || memcmp(before, t->of, s->all * sizeof *before) != 0;
    }
}

/* The centre's strongest token, by hand. */
static void check_tokens(const subject *s, const double *c, const kh_cluster *cluster)
{
    float *row = kh_calloc(s->D, sizeof *row);
    double best = -1e30, least = 1e30;
    for (size_t v = 0; v < s->V; v++) {
        double sum = 0;
        kh_weight_row(row, &s->model->w.head, v, s->kern);
        for (size_t d = 0; d < s->D; d++) sum += (double)row[d] * c[d];
        if (sum > best) best = sum;
        if (sum < least) least = sum;
    }
    assert_true(fabs(best - (double)cluster->top.tokens[0].logit) < 1e-4 * (1 + fabs(best)));
    assert_true(fabs(least - (double)cluster->bottom.tokens[0].logit) < 1e-4 * (1 + fabs(least)));
    kh_free(row);
}

static void check_cluster(const subject *s, const truth *t, const kh_clusters *got, int k,
                          int32_t own)
{
    const kh_cluster *cluster = &got->clusters[own];
    double sum = 0, nearest = -2;
    size_t size = 0;
    for (size_t n = 0; n < s->all; n++) {
        assert_int_equal(t->of[n] == k, got->of[n] == own);
        if (t->of[n] != k) continue;
        size++;
        sum += t->cosine[n];
        if (t->cosine[n] > nearest) nearest = t->cosine[n];
    }
    assert_int_equal(size, cluster->size);
    assert_true(fabs(sum / (double)size - cluster->cosine) < 1e-5);
    assert_true(fabs(nearest - cluster->members[0].cosine) < 1e-5);
    for (size_t m = 0; m < cluster->member_count; m++) {
        const kh_neighbour *one = &cluster->members[m];
        size_t n = (size_t)one->layer * s->F + (size_t)one->neuron;
        assert_int_equal(got->of[n], own);
        assert_true(fabs(t->cosine[n] - one->cosine) < 1e-5);
        assert_true(m == 0 || one->cosine <= cluster->members[m - 1].cosine);
    }
    assert_int_equal(cluster->member_count, size < 4 ? size : 4);
    check_tokens(s, t->c + (size_t)k * s->D, cluster);
}

static void same_as_brute_force(void **state)
{
    static const char *const names[] = {"llama", "gpt2"};
    (void)state;
    for (int m = 0; m < 2; m++) {
        subject s;
        open_subject(&s, names[m], 2);
        read_vectors(&s);
        kh_component start[K];
        for (int k = 0; k < K; k++)
            start[k] = (kh_component){KH_COMPONENT_NEURON, k % s.model->d.N, 2 + 3 * k, 0};
        static const int rounds[] = {1, 3, ROUNDS};
        for (int r = 0; r < 3; r++) {
            truth t;
            kh_clusters got;
            const kh_clusters_options o = {
                .count = K, .rounds = rounds[r], .start = start, .tokens = 3, .members = 4};
            brute_force(&t, &s, start, rounds[r]);
            GOOD(kh_clusters_open(&got, s.inspector, &o));
            assert_int_equal(got.rounds, t.rounds);
            assert_int_equal(got.neurons, s.all);
            assert_true(fabs(got.cosine - t.mean) < 1e-5);
            for (int k = 0; k < K; k++) {
                size_t first = 0;
                while (t.of[first] != k) first++;
                check_cluster(&s, &t, &got, k, got.of[first]);
            }
            for (size_t k = 1; k < K; k++)
                assert_true(got.clusters[k].size <= got.clusters[k - 1].size);
            if (r == 2) assert_true(got.settled && got.rounds > 2);
            kh_clusters_free(&got);
            kh_free(t.c);
        }
        close_subject(&s);
    }
}

/* Directions of the model's own number, each with a little noise, in the place of the down projections. */
static float *plant(const subject *s, int layer)
{
    kh_weight *w = (kh_weight *)(uintptr_t)&s->model->w.stack.blocks[layer].down;
    float *data = kh_calloc(s->D * s->F, sizeof *data);
    const kh_rng_key noise = {7, (uint64_t)layer};
    for (size_t d = 0; d < s->D; d++)
        for (size_t f = 0; f < s->F; f++) {
            const kh_rng_key direction = {9, f % PLANTED};
            data[d * s->F + f] =
                (float)((1 + (double)f) *
                        (kh_rng_normal(direction, d) + 0.2 * kh_rng_normal(noise, d * s->F + f)));
        }
    w->type = KH_TYPE_F32;
    w->data = data;
    w->row_bytes = s->F * sizeof *data;
    return data;
}

static void finds_what_was_planted(void **state)
{
    (void)state;
    subject s;
    open_subject(&s, "llama", 2);
    float *data[8];
    for (int l = 0; l < s.model->d.N; l++) data[l] = plant(&s, l);
    for (size_t d = 0; d < s.D; d++) data[1][d * s.F + 11] = 0; /* a neuron that writes nothing */
    double best = 0;
    for (uint64_t seed = 0; seed < 12; seed++) {
        kh_clusters got;
        const kh_clusters_options o = {.count = PLANTED, .seed = seed};
        GOOD(kh_clusters_open(&got, s.inspector, &o));
        assert_int_equal(got.of[s.F + 11], -1);
        assert_int_equal(got.neurons, s.all - 1);
        int whole = 1;
        for (size_t n = 0; n < s.all; n++)
            whole &= n == s.F + 11 || got.of[n] == got.of[n % s.F % PLANTED];
        best = got.cosine > best ? got.cosine : best;
        if (got.cosine > 0.95) assert_true(whole);
        kh_clusters_free(&got);
    }
    assert_true(best > 0.95);
    for (int l = 0; l < s.model->d.N; l++) kh_free(data[l]);
    close_subject(&s);
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    kh_clusters got[2];
    for (int t = 0; t < 2; t++) {
        subject s;
        open_subject(&s, "llama", 1 + t);
        const kh_clusters_options o = {.count = 9, .seed = 3, .first_layer = 1, .layers = 1};
        GOOD(kh_clusters_open(&got[t], s.inspector, &o));
        close_subject(&s);
    }
    assert_int_equal(got[0].first_layer, 1);
    assert_int_equal(got[0].rounds, got[1].rounds);
    assert_memory_equal(&got[0].cosine, &got[1].cosine, sizeof got[0].cosine);
    assert_memory_equal(got[0].of, got[1].of, got[0].neurons * sizeof *got[0].of);
    for (size_t k = 0; k < got[0].count; k++) {
        const kh_cluster *a = &got[0].clusters[k], *b = &got[1].clusters[k];
        assert_int_equal(a->size, b->size);
        assert_memory_equal(&a->cosine, &b->cosine, sizeof a->cosine);
        assert_memory_equal(a->top.tokens, b->top.tokens, a->top.count * sizeof *a->top.tokens);
        assert_memory_equal(a->members, b->members, a->member_count * sizeof *a->members);
    }
    for (int t = 0; t < 2; t++) kh_clusters_free(&got[t]);
}

static kh_status stop_at_two(void *context, int round, size_t moved, double cosine)
{
    double *last = context;
    assert_true(moved > 0 && cosine >= *last - 1e-6); /* a round makes nothing worse */
    *last = cosine;
    return round < 2 ? KH_OK : KH_ERR_STOPPED;
}

static void wrong_use_and_stops(void **state)
{
    (void)state;
    subject s;
    open_subject(&s, "llama", 1);
    kh_clusters got;
    double last = -1;
    const kh_component head = {KH_COMPONENT_HEAD, 0, 1, 0};
    const kh_clusters_options bad[] = {{.count = 0},
                                       {.count = 4097},
                                       {.count = s.all + 1},
                                       {.count = 2, .first_layer = s.model->d.N},
                                       {.count = 2, .layers = s.model->d.N + 1},
                                       {.count = 2, .rounds = -1},
                                       {.count = 1, .start = &head}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(kh_clusters_open(&got, s.inspector, &bad[i]), KH_ERR_ARGUMENT);
        assert_null(got.clusters);
        assert_non_null(strstr(kh_last_error(), "clusters"));
    }
    const kh_clusters_options stopped = {.count = 6, .round = stop_at_two, .context = &last};
    assert_int_equal(kh_clusters_open(&got, s.inspector, &stopped), KH_ERR_STOPPED);
    assert_null(got.of);
    const kh_clusters_options every = {.count = s.all, .rounds = 4};
    GOOD(kh_clusters_open(&got, s.inspector, &every)); /* a cluster for each neuron */
    assert_true(got.cosine > 1 - 1e-6 && got.settled);
    kh_clusters_free(&got);
    close_subject(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_as_brute_force),
        cmocka_unit_test(finds_what_was_planted),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(wrong_use_and_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
