/* T5 with top-k in all of its attention and feed-forward layers (tests/golden/families/t5: ReLU, t5-gated):
 * budgets that keep everything equal the dense run; a feed-forward budget that reaches every positive
 * pre-activation equals it to rounding; a small one does not; and each setting reaches the stack it names. */
#include "base/alloc.h"
#include "support/family_golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { SOURCE = 40, TARGET = 12 };

typedef struct watch {
    size_t most_positive; /* pre-activations of a row */
    size_t keys[3];       /* most keys of a row: encoder, decoder, cross */
    size_t neurons[2];    /* most that a row keeps: encoder, decoder */
    int encoder, decoder; /* layers */
} watch;

static void count_neurons(void *context, kh_point point, int layer, float *data, size_t rows,
                          size_t width)
{
    watch *w = context;
    int kept = point == KH_POINT_MLP_ACT;
    size_t *most = kept ? &w->neurons[layer >= w->encoder] : &w->most_positive;
    for (size_t r = 0; r < rows; r++) {
        size_t n = 0;
        for (size_t i = 0; i < width; i++)
            n += kept ? data[r * width + i] != 0 : data[r * width + i] > 0;
        if (n > *most) *most = n;
    }
}

static void count_keys(void *context, const kh_attn_row *row)
{
    watch *w = context;
    int stack = row->layer < w->encoder ? 0 : row->layer < w->encoder + w->decoder ? 1 : 2;
    assert_true(row->layer < w->encoder + 2 * w->decoder);
    if (row->count > w->keys[stack]) w->keys[stack] = row->count;
}

static const family *find(const char *name)
{
    for (size_t i = 0; i < family_count; i++)
        if (strcmp(families[i].name, name) == 0) return &families[i];
    fail_msg("no family %s", name);
    return NULL;
}

/* Logits [TARGET][V] of fixed ids behind a fixed source. */
static float *run(const kh_model *model, const char *attn, const char *ff, watch *w)
{
    int32_t source[SOURCE], target[TARGET];
    int V = kh_model_get_info(model)->vocabulary;
    for (int i = 0; i < SOURCE; i++) source[i] = (i * 37 + 5) % V;
    for (int i = 0; i < TARGET; i++) target[i] = i ? (i * 29 + 3) % V : kh_model_start(model);
    kh_session_options so = {.precision = KH_PRECISION_F32,
                             .k_type = KH_CACHE_F32,
                             .v_type = KH_CACHE_F32,
                             .threads = 2,
                             .attn = attn,
                             .ff = ff};
    kh_session *session = open_session(model, &so);
    kh_probe probe = {.context = w, .point = count_neurons, .rows = count_keys};
    probe.points = UINT64_C(1) << KH_POINT_MLP_PRE | UINT64_C(1) << KH_POINT_MLP_ACT |
                   UINT64_C(1) << KH_POINT_ATTN_ROWS;
    if (w) w->encoder = kh_model_get_info(model)->encoder_layers;
    if (w) w->decoder = kh_model_get_info(model)->layers;
    if (w) kh_session_observe(session, &probe);
    GOOD(kh_session_source(session, source, SOURCE));
    float *rows = all_logits(model, session, target, TARGET);
    kh_session_close(session);
    return rows;
}

static double distance(const kh_model *model, const float *dense, const char *attn, const char *ff)
{
    float *other = run(model, attn, ff, NULL);
    double gap = relative_distance(other, dense,
                                   TARGET * (size_t)kh_model_get_info(model)->vocabulary);
    kh_free(other);
    return gap;
}

static void check(const char *name, int relu)
{
    const family *f = find(name);
    kh_model *model = open_model(family_path(f));
    char all[64], positive[64];
    watch w = {0};
    float *dense = run(model, "full", "dense", &w);
    snprintf(all, sizeof all, "topk:k=%d", kh_model_get_info(model)->ff_width);
    assert_true(distance(model, dense, "topk:k=40", NULL) <= 1e-6);
    assert_true(distance(model, dense, "full", all) == 0);
    assert_true(distance(model, dense, "topk:k=40", all) <= 1e-6);
    assert_true(distance(model, dense, "topk:k=4", NULL) > 1e-3);
    assert_true(distance(model, dense, "full", "topk:k=3") > 1e-3);
    assert_in_range(w.most_positive, 4, kh_model_get_info(model)->ff_width - 1);
    snprintf(positive, sizeof positive, "topk:k=%zu", w.most_positive);
    if (relu) {
        assert_true(distance(model, dense, "full", positive) <= 1e-6);
        snprintf(positive, sizeof positive, "topk:k=%zu,rule=g", w.most_positive);
        assert_true(distance(model, dense, "full", positive) <= 1e-6);
    }
    kh_free(dense);
    kh_model_close(model);
}

static void budgets_that_keep_all_equal_dense(void **state)
{
    (void)state;
    check("t5", 1);
    check("t5-gated", 0);
}

static void each_stack_has_its_setting(void **state)
{
    (void)state;
    static const struct {
        const char *attn;
        size_t keys[3];
    } cases[] = {{"full", {SOURCE, TARGET, SOURCE}},
                 {"topk:k=7", {7, 7, 7}},
                 {"encoder=topk:k=5", {5, TARGET, SOURCE}},
                 {"decoder=topk:k=3;cross=topk:k=9", {SOURCE, 3, 9}}};
    const family *f = find("t5");
    kh_model *model = open_model(family_path(f));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        watch w = {0};
        kh_free(run(model, cases[i].attn, NULL, &w));
        for (int s = 0; s < 3; s++) assert_int_equal(w.keys[s], cases[i].keys[s]);
    }
    kh_model_close(model);
}

static void each_stack_keeps_its_neurons(void **state)
{
    (void)state;
    const family *f = find("t5-gated");
    kh_model *model = open_model(family_path(f));
    size_t F = (size_t)kh_model_get_info(model)->ff_width;
    const struct {
        const char *ff;
        size_t neurons[2];
    } cases[] = {{"dense", {F, F}},
                 {"topk:k=5", {5, 5}},
                 {"encoder=topk:k=3", {3, F}},
                 {"encoder=topk:k=6,rule=g;decoder=*=topk:k=2,rule=n", {6, 2}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        watch w = {0};
        kh_free(run(model, NULL, cases[i].ff, &w));
        for (int s = 0; s < 2; s++) assert_int_equal(w.neurons[s], cases[i].neurons[s]);
    }
    kh_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(budgets_that_keep_all_equal_dense),
                                       cmocka_unit_test(each_stack_has_its_setting),
                                       cmocka_unit_test(each_stack_keeps_its_neurons)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
