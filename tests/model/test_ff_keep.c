/* Feed-forward top-k inside a model: what an observer sees of each layer is ranked by brute force and
 * compared with what the layer went on with. */
#include "base/alloc.h"
#include "gen/engine.h"
#include "ops/unpack.h"
#include "support/golden_run.h"

#include <keyhole/keyhole.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { T = 40 };

static int32_t ids[T];

static kh_model *tiny(const char *name)
{
    return open_tiny(name, ids, T, 777);
}

static kh_session_options with_ff(const char *ff, int threads)
{
    return (kh_session_options){.threads = threads, .ff = ff, .context = 128, .longer = 1};
}

static void a_setting_that_is_none_opens_nothing(void **state)
{
    (void)state;
    static const char *const bad[][2] = {{"topk:k=none", "from 1 on"},
                                         {"9=dense", "no layer 9"},
                                         {"encoder=dense", "one stack"},
                                         {"prefill=dense", "one setting"}};
    kh_model *model = tiny("llama");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        kh_session *session = NULL;
        kh_session_options so = with_ff(bad[i][0], 1);
        assert_int_equal(kh_session_open(&session, model, &so), KH_ERR_ARGUMENT);
        assert_null(session);
        assert_non_null(strstr(kh_last_error(), bad[i][1]));
    }
    kh_model_close(model);
}

/* ---- what is kept ---- */

typedef struct watch {
    const kh_model *model;
    size_t k;
    kh_ff_rule rule;
    float *gate, *up; /* [T][F] of the layer in flight */
    float *norms;     /* [F] */
    size_t rows_seen, zeros;
} watch;

static const kh_description *description(const watch *w)
{
    return &w->model->d;
}

static void norms_of(watch *w, int layer)
{
    const kh_weight *down = &w->model->w.stack.blocks[layer].down;
    kh_unpack unpack = kh_unpack_of(kh_kern_get(KH_ISA_REF), down->type);
    float *wide = malloc(down->cols * sizeof *wide);
    double *sum = calloc(down->cols, sizeof *sum);
    for (size_t r = 0; r < down->rows; r++) {
        const char *at = (const char *)down->data + r * down->row_bytes;
        if (unpack.f32)
            unpack.f32(wide, at, down->cols);
        else
            memcpy(wide, at, down->cols * sizeof *wide);
        for (size_t i = 0; i < down->cols; i++) sum[i] += (double)wide[i] * (double)wide[i];
    }
    for (size_t i = 0; i < down->cols; i++) w->norms[i] = (float)sqrt(sum[i]);
    free(sum);
    free(wide);
}

/* Every kept neuron ranks above every dropped one, and k of them are kept. */
static void check_row(watch *w, const float *gate, const float *up, const float *act, size_t F)
{
    double least = HUGE_VAL, most = -HUGE_VAL;
    size_t kept = 0;
    for (size_t i = 0; i < F; i++) {
        double g = (double)gate[i], u = (double)up[i], value;
        if (description(w)->act == KH_ACT_SILU)
            value = g / (1 + exp(-g)) * u;
        else
            value = 0.5 * g * (1 + tanh(0.7978845608028654 * (g + 0.044715 * g * g * g))) * u;
        double rank = w->rule == KH_FF_GATE ? g : fabs(value);
        if (w->rule == KH_FF_NORM) rank *= (double)w->norms[i];
        if (act[i] != 0) {
            kept++;
            least = fmin(least, rank);
            assert_true(fabs((double)act[i] - value) <= 1e-5 * (1 + fabs(value)));
        } else {
            most = fmax(most, rank);
            w->zeros++;
        }
    }
    assert_true(kept <= w->k);
    assert_true(kept == w->k || w->k >= F);
    if (w->k < F) assert_true(least >= most - 1e-5 * (1 + fabs(most)));
    w->rows_seen++;
}

static void at_point(void *context, kh_point point, int layer, float *data, size_t rows,
                     size_t width)
{
    watch *w = context;
    if (point == KH_POINT_MLP_PRE) memcpy(w->gate, data, rows * width * sizeof *data);
    if (point == KH_POINT_MLP_PRE_LINEAR) memcpy(w->up, data, rows * width * sizeof *data);
    if (point != KH_POINT_MLP_ACT) return;
    if (w->rule == KH_FF_NORM) norms_of(w, layer);
    for (size_t r = 0; r < rows; r++)
        check_row(w, w->gate + r * width, w->up + r * width, data + r * width, width);
}

static void the_best_neurons_of_each_row_stay(void **state)
{
    (void)state;
    static const char *const names[] = {"llama", "qwen2-q8", "gemma3-q8"};
    static const char rules[] = "gmn";
    for (size_t m = 0; m < 3; m++)
        for (int rule = 0; rule < 3; rule++)
            for (size_t k = 1; k < 400; k *= 5) {
                kh_model *model = tiny(names[m]);
                size_t F = (size_t)model->d.F;
                char text[64];
                snprintf(text, sizeof text, "topk:k=%zu,rule=%c", k, rules[rule]);
                kh_session_options so = with_ff(text, 2);
                kh_session *session = open_session(model, &so);
                assert_string_equal(kh_session_ff(session), text);
                watch w = {.model = model, .k = k, .rule = (kh_ff_rule)rule};
                w.gate = malloc(T * F * sizeof *w.gate);
                w.up = malloc(T * F * sizeof *w.up);
                w.norms = malloc(F * sizeof *w.norms);
                kh_probe probe = {.context = &w, .point = at_point};
                probe.points = (uint64_t)1 << KH_POINT_MLP_PRE |
                               (uint64_t)1 << KH_POINT_MLP_PRE_LINEAR |
                               (uint64_t)1 << KH_POINT_MLP_ACT;
                kh_session_observe(session, &probe);
                GOOD(kh_session_read(session, ids, T - 1, NULL));
                GOOD(kh_session_read(session, ids + T - 1, 1, NULL));
                assert_int_equal(w.rows_seen, (size_t)model->d.N * T);
                assert_true(k >= F || w.zeros == w.rows_seen * (F - k));
                free(w.gate);
                free(w.up);
                free(w.norms);
                kh_session_close(session);
                kh_model_close(model);
            }
}

/* Largest number of neurons that a row keeps, by layer. */
typedef struct census {
    size_t most[8];
} census;

static void count_kept(void *context, kh_point point, int layer, float *data, size_t rows,
                       size_t width)
{
    census *c = context;
    (void)point;
    for (size_t r = 0; r < rows; r++) {
        size_t kept = 0;
        for (size_t i = 0; i < width; i++) kept += data[r * width + i] != 0;
        if (kept > c->most[layer]) c->most[layer] = kept;
    }
}

/* Rules of all three kinds beside one another, and dense layers, of which each has its own. */
static void layers_keep_what_their_rules_say(void **state)
{
    (void)state;
    enum { N = 6 };
    static const struct {
        const char *text;
        size_t most[N]; /* 0: all */
    } cases[] = {{"0=dense;1=topk:k=5,rule=g;2-=topk:k=9,rule=n", {0, 5, 9, 9, 9, 9}},
                 {"*=topk:k=4,rule=n;1-2=dense;2=topk:k=6", {4, 0, 6, 4, 4, 4}},
                 {"1=topk:k=3,rule=g;4-=topk:k=8", {0, 3, 0, 0, 8, 8}},
                 {"topk:k=7", {7, 7, 7, 7, 7, 7}}};
    kh_model *model = tiny("gemma3");
    size_t F = (size_t)model->d.F;
    assert_int_equal(model->d.N, N);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        census c = {{0}};
        kh_probe probe = {
            .context = &c, .point = count_kept, .points = (uint64_t)1 << KH_POINT_MLP_ACT};
        kh_session_options so = with_ff(cases[i].text, 2);
        kh_session *session = open_session(model, &so);
        assert_string_equal(kh_session_ff(session), cases[i].text);
        kh_session_observe(session, &probe);
        GOOD(kh_session_read(session, ids, T, NULL));
        for (size_t l = 0; l < N; l++)
            assert_int_equal(c.most[l], cases[i].most[l] ? cases[i].most[l] : F);
        kh_session_close(session);
    }
    kh_model_close(model);
}

static void all_neurons_are_the_dense_layer(void **state)
{
    (void)state;
    kh_model *model = tiny("qwen3-q4");
    size_t V = (size_t)kh_model_get_info(model)->vocabulary;
    char text[64];
    snprintf(text, sizeof text, "topk:k=%d", model->d.F);
    kh_session_options dense = with_ff(NULL, 1), all = with_ff(text, 1);
    kh_session *a = open_session(model, &dense), *b = open_session(model, &all);
    float *x = all_logits(model, a, ids, T), *y = all_logits(model, b, ids, T);
    assert_string_equal(kh_session_ff(a), "dense");
    assert_memory_equal(x, y, T * V * sizeof *x);
    kh_free(x);
    kh_free(y);
    kh_session_close(a);
    kh_session_close(b);
    kh_model_close(model);
}

static void threads_and_prefixes_change_nothing(void **state)
{
    (void)state;
    static const char *const ffs[] = {"topk:k=11,rule=g", "topk:k=20", "topk:k=7,rule=n"};
    for (size_t i = 0; i < 3; i++) {
        kh_model *model = tiny("llama");
        size_t V = (size_t)kh_model_get_info(model)->vocabulary;
        kh_session_options so = with_ff(ffs[i], 1);
        so.k_type = so.v_type = KH_CACHE_F32;
        so.precision = KH_PRECISION_F32;
        kh_session *one = open_session(model, &so), *pieces = open_session(model, &so);
        so.threads = 2;
        kh_session *two = open_session(model, &so);
        float *a = all_logits(model, one, ids, T), *b = all_logits(model, two, ids, T);
        assert_memory_equal(a, b, T * V * sizeof *a);
        for (size_t at = 0, n = 1; at < T; at += n, n = n % 7 + 3) {
            if (at + n > T) n = T - at;
            GOOD(kh_session_read(pieces, ids + at, n, NULL));
            double gap = relative_distance(kh_session_logits(pieces), a + (at + n - 1) * V, V);
            if (!(gap <= 1e-5)) fail_msg("%s: %g after %zu", ffs[i], gap, at + n);
        }
        kh_free(a);
        kh_free(b);
        kh_session_close(one);
        kh_session_close(two);
        kh_session_close(pieces);
        kh_model_close(model);
    }
}

/* Keys and values of later layers depend on the setting: a saved prompt belongs to it. */
static void saved_prompts_belong_to_their_setting(void **state)
{
    (void)state;
    char path[] = "/tmp/keyhole-ff-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    kh_model *model = tiny("llama");
    kh_session_options kept = with_ff("topk:k=9", 1), dense = with_ff("dense", 1);
    kh_session *a = open_session(model, &kept), *b = open_session(model, &kept);
    kh_session *other = open_session(model, &dense);
    GOOD(kh_session_read(a, ids, T, NULL));
    GOOD(kh_session_save(a, path));
    GOOD(kh_session_load(b, path));
    assert_int_equal(kh_session_length(b), T);
    assert_int_equal(kh_session_load(other, path), KH_ERR_FORMAT);
    assert_non_null(strstr(kh_last_error(), "feed-forward topk:k=9"));
    unlink(path);
    kh_session_close(a);
    kh_session_close(b);
    kh_session_close(other);
    kh_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_setting_that_is_none_opens_nothing),
        cmocka_unit_test(the_best_neurons_of_each_row_stay),
        cmocka_unit_test(layers_keep_what_their_rules_say),
        cmocka_unit_test(all_neurons_are_the_dense_layer),
        cmocka_unit_test(threads_and_prefixes_change_nothing),
        cmocka_unit_test(saved_prompts_belong_to_their_setting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
