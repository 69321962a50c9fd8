/* AdamW and SGD: PyTorch's steps, one result for any number of threads, gradients that are not finite,
 * frozen tensors, moments and weights in bf16, texts. */
#include "base/alloc.h"
#include "cpu/cpu.h"
#include "format/json.h"
#include "support/golden_run.h"
#include "tensor/half.h"
#include "train/optimizer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const kh_pool one = {1};

static void refused(kh_status got, kh_status expected, const char *part)
{
    assert_int_equal(got, expected);
    if (!strstr(kh_last_error(), part))
        fail_msg("'%s' does not contain '%s'", kh_last_error(), part);
}

static double number(const json_t *object, const char *key)
{
    double value = 0;
    assert_true(kh_json_number(json_object_get(object, key), &value));
    return value;
}

static double item(const json_t *array, size_t i)
{
    double value = 0;
    assert_true(kh_json_number(json_array_get(array, i), &value));
    return value;
}

static void floats(float *to, const json_t *array, size_t n)
{
    assert_int_equal(json_array_size(array), n);
    for (size_t i = 0; i < n; i++) to[i] = (float)item(array, i);
}

enum { MOST = 128, TENSORS = 3 };

/* Each step rounds a few times at the size of what it adds up. */
static void compare(const char *text, const float *w, const json_t *expected, size_t n, double way)
{
    float truth[MOST];
    floats(truth, expected, n);
    for (size_t i = 0; i < n; i++) {
        double gap = fabs((double)w[i] - (double)truth[i]);
        if (!(gap <= 3e-7 * fabs((double)truth[i]) + 2e-6 * way))
            fail_msg("%s: element %zu is %.9g, PyTorch has %.9g", text, i, (double)w[i],
                     (double)truth[i]);
    }
}

static void run_case(const json_t *root, const json_t *c, const kh_tensor_spec *tensors, size_t n)
{
    const char *text = json_string_value(json_object_get(c, "text"));
    const json_t *gradients = json_object_get(root, "gradients");
    const json_t *norms = json_object_get(c, "norms");
    double base = number(c, "base");
    kh_tensor_setting settings[TENSORS];
    float w[MOST], g[MOST];
    for (size_t i = 0; i < TENSORS; i++)
        settings[i] = (kh_tensor_setting){item(json_object_get(c, "rates"), i),
                                          item(json_object_get(c, "decays"), i)};
    floats(w, json_object_get(root, "start"), n);
    kh_optimizer_options options;
    kh_optimizer *o;
    GOOD(kh_optimizer_parse(&options, text));
    GOOD(kh_optimizer_open(&o, &options, tensors, settings, TENSORS, n, &one,
                           kh_kern_get(kh_cpu_isa())));
    double way = 0;
    for (size_t i = 0; i < json_array_size(gradients); i++) {
        kh_step step = {i + 1, base * (1 - 0.02 * (double)i), number(c, "scale")};
        kh_step_report report;
        floats(g, json_array_get(gradients, i), n);
        GOOD(kh_optimizer_step(o, w, g, &step, &report));
        double norm = item(norms, i);
        assert_true(fabs(report.norm - norm) <= 1e-6 * norm);
        double limit = options.clip > 0 && norm > options.clip ? options.clip / norm : 1;
        assert_true(fabs(report.factor - limit) <= 1e-5);
        way += step.rate * (options.kind == KH_OPTIMIZER_SGD ? norm * limit * 10 : 1);
        if (i == 2) compare(text, w, json_object_get(c, "after_3"), n, way);
    }
    compare(text, w, json_object_get(c, "after"), n, way);
    kh_optimizer_close(o);
}

static void steps_as_pytorch_does(void **state)
{
    (void)state;
    json_t *root, *c;
    size_t i, n = 0;
    kh_tensor_spec tensors[TENSORS];
    GOOD(kh_json_read(&root, golden_path("optimizer.json"), 1 << 20));
    json_array_foreach(json_object_get(root, "tensors"), i, c)
    {
        int rows = (int)number(c, "rows"), cols = (int)number(c, "cols");
        size_t count = (size_t)rows * (size_t)cols;
        tensors[i] = (kh_tensor_spec){json_string_value(json_object_get(c, "name")), n, count, rows,
                                      cols};
        n += count;
    }
    assert_int_equal(i, TENSORS);
    assert_int_equal(json_array_size(json_object_get(root, "cases")), 6);
    json_array_foreach(json_object_get(root, "cases"), i, c) run_case(root, c, tensors, n);
    json_decref(root);
}

/* ---- a larger problem: three tensors with gaps, more than one chunk ---- */

enum { W = 60000, STEPS = 4 };
static const kh_tensor_spec parts[] = {
    {"big", 16, 40000, 200, 200}, {"still", 40016, 5000, 50, 100}, {"gain", 45100, 1001, 1, 1001}};
static const kh_tensor_setting moving[] = {{1, 0.1}, {0, 0.1}, {0.5, 0}};
static float start_w[W], gradients[STEPS][W];

static int make_problem(void **state)
{
    (void)state;
    kh_rng_key key = {3, 1};
    for (uint64_t i = 0; i < W; i++) {
        start_w[i] = (float)kh_rng_normal(key, i);
        for (uint64_t s = 0; s < STEPS; s++)
            gradients[s][i] = (float)kh_rng_normal(key, (s + 1) * W + i) * 0.01f;
    }
    return 0;
}

static void run_large(float *w, const char *text, kh_type moments, kh_type weights, kh_isa isa,
                      int threads)
{
    kh_pool pool = {threads};
    kh_optimizer_options options;
    kh_optimizer *o;
    kh_step_report report;
    GOOD(kh_optimizer_parse(&options, text));
    options.moments = moments;
    options.weights = weights;
    options.key = (kh_rng_key){11, 5};
    GOOD(kh_optimizer_open(&o, &options, parts, moving, 3, W, &pool, kh_kern_get(isa)));
    memcpy(w, start_w, sizeof start_w);
    for (uint64_t s = 0; s < STEPS; s++) {
        kh_step step = {s + 1, 1e-2, 0};
        GOOD(kh_optimizer_step(o, w, gradients[s], &step, &report));
    }
    kh_optimizer_close(o);
}

static void same_bits_for_threads_and_instruction_sets(void **state)
{
    (void)state;
    static float a[W], b[W];
    static const char *const texts[] = {"adamw:clip=0.5", "sgd:momentum=0.9,clip=0.5", "sgd"};
    for (int t = 0; t < 3; t++)
        for (int narrow = 0; narrow < 4; narrow++) {
            kh_type moments = narrow & 1 ? KH_TYPE_BF16 : KH_TYPE_F32;
            kh_type weights = narrow & 2 ? KH_TYPE_BF16 : KH_TYPE_F32;
            run_large(a, texts[t], moments, weights, KH_ISA_REF, 1);
            for (int isa = 0; isa <= (int)kh_cpu_isa(); isa++)
                for (int threads = 1; threads <= 3; threads++) {
                    run_large(b, texts[t], moments, weights, (kh_isa)isa, threads);
                    assert_memory_equal(a, b, sizeof a);
                }
        }
}

static void frozen_tensors_and_gaps_stay(void **state)
{
    (void)state;
    static float w[W];
    run_large(w, "adamw", KH_TYPE_BF16, KH_TYPE_BF16, kh_cpu_isa(), 2);
    size_t moved = 0;
    for (size_t i = 0; i < W; i++) {
        int free_to_move = (i >= 16 && i < 40016) || (i >= 45100 && i < 46101);
        if (!free_to_move) assert_memory_equal(&w[i], &start_w[i], sizeof *w);
        moved += w[i] < start_w[i] || w[i] > start_w[i];
    }
    assert_true(moved > 40900);
}

/* A step of one tensor alone: what "big" does must not depend on the tensors beside it, but for the norm. */
static void bad_gradients_change_nothing(void **state)
{
    (void)state;
    static float w[W], before[W], g[W];
    kh_optimizer_options options;
    kh_optimizer *o;
    kh_step_report report;
    kh_step step = {1, 1e-2, 0};
    size_t count;
    GOOD(kh_optimizer_parse(&options, "adamw:clip=1"));
    GOOD(kh_optimizer_open(&o, &options, parts, moving, 3, W, &one, kh_kern_get(kh_cpu_isa())));
    memcpy(w, start_w, sizeof w);
    GOOD(kh_optimizer_step(o, w, gradients[0], &step, &report));
    memcpy(before, w, sizeof w);
    const kh_tensor_view *views = kh_optimizer_views(o, &count);
    assert_int_equal(count, 4);
    assert_string_equal(views[0].name, "m.big");
    assert_string_equal(views[3].name, "v.gain");
    float moment = ((float *)views[3].data)[1000];
    step.step = 2;
    static const struct {
        size_t at;
        float value;
        const char *tensor, *sentence;
    } bad[] = {
        {46100, NAN, "gain", "step 2: the gradient of 'gain' is not finite (element 1000 is"},
        {39000, -INFINITY, "big", "(element 38984 is -inf)"},
        {16, INFINITY, "big", "'big' is not finite (element 0 is inf)"}};
    for (size_t i = 0; i < 3; i++) { /* the first one that is bad is named */
        memcpy(g, gradients[1], sizeof g);
        for (size_t j = 0; j <= i; j++) g[bad[j].at] = bad[j].value;
        refused(kh_optimizer_step(o, w, g, &step, &report), KH_ERR_CHECK, bad[i].sentence);
        assert_string_equal(report.bad, bad[i].tensor);
        assert_memory_equal(w, before, sizeof w);
        assert_true(((float *)views[3].data)[1000] == moment);
    }
    memcpy(g, gradients[1], sizeof g);
    g[42000] = NAN; /* frozen */
    g[10] = NAN;    /* no tensor's */
    GOOD(kh_optimizer_step(o, w, g, &step, &report));
    assert_null(report.bad);
    kh_optimizer_close(o);
}

/* With rate 0 plain SGD leaves the bits, minus zero among them. */
static void rate_zero_keeps_bits(void **state)
{
    (void)state;
    static float w[W], before[W];
    kh_optimizer_options options;
    kh_optimizer *o;
    kh_step_report report;
    kh_step step = {1, 0, 0};
    GOOD(kh_optimizer_parse(&options, "sgd"));
    GOOD(kh_optimizer_open(&o, &options, parts, moving, 3, W, &one, kh_kern_get(kh_cpu_isa())));
    memcpy(w, start_w, sizeof w);
    for (size_t i = 0; i < W; i += 3) w[i] = -0.0f;
    memcpy(before, w, sizeof w);
    GOOD(kh_optimizer_step(o, w, gradients[0], &step, &report));
    assert_memory_equal(w, before, sizeof w);
    assert_int_equal(kh_optimizer_bytes(o), 0);
    kh_optimizer_close(o);
}

/* ---- bf16 ---- */

enum { N = 4096 };

static double mean_of(const kh_tensor_view *view)
{
    double sum = 0;
    for (size_t i = 0; i < N; i++)
        sum += view->type == KH_TYPE_BF16 ? (double)kh_bf16_to_f32(((uint16_t *)view->data)[i])
                                          : (double)((float *)view->data)[i];
    return sum / N;
}

/* 500 steps along 1, then 1,500 along 0.1: the second moment must fall as it does in f32, which rounding to the
 * nearest would not let it. */
static void narrow_moments_follow(void **state)
{
    (void)state;
    static float w[2][N], g[N];
    const kh_tensor_spec tensor = {"x", 0, N, 64, 64};
    const kh_tensor_setting setting = {1, 0};
    kh_optimizer *o[2];
    kh_step_report report;
    size_t count;
    for (int i = 0; i < 2; i++) {
        kh_optimizer_options options;
        GOOD(kh_optimizer_parse(&options, "adamw:decay=0"));
        options.moments = i ? KH_TYPE_BF16 : KH_TYPE_F32;
        GOOD(kh_optimizer_open(&o[i], &options, &tensor, &setting, 1, N, &one,
                               kh_kern_get(kh_cpu_isa())));
        memset(w[i], 0, sizeof w[i]);
    }
    assert_int_equal(kh_optimizer_bytes(o[1]) * 2, kh_optimizer_bytes(o[0]));
    for (uint64_t s = 1; s <= 2000; s++) {
        kh_step step = {s, 1e-3, 0};
        for (size_t i = 0; i < N; i++) g[i] = s <= 500 ? 1.0f : 0.1f;
        for (int i = 0; i < 2; i++) GOOD(kh_optimizer_step(o[i], w[i], g, &step, &report));
    }
    for (size_t v = 0; v < 2; v++) {
        double wide = mean_of(kh_optimizer_views(o[0], &count) + v);
        double narrow = mean_of(kh_optimizer_views(o[1], &count) + v);
        assert_true(fabs(narrow - wide) < 0.01 * wide);
    }
    double a = 0, b = 0;
    for (size_t i = 0; i < N; i++) {
        a += (double)w[0][i] / N;
        b += (double)w[1][i] / N;
    }
    assert_true(a < -0.5 && fabs(b - a) < 0.01 * fabs(a));
    for (int i = 0; i < 2; i++) kh_optimizer_close(o[i]);
}

/* Equal elements are rounded by draws of their own: no two blocks alike, the second moment not as the first. */
static void draws_differ_from_place_to_place(void **state)
{
    (void)state;
    static float w[N], g[N];
    const kh_tensor_spec tensor = {"x", 0, N, 64, 64};
    const kh_tensor_setting setting = {1, 0};
    kh_optimizer_options options;
    kh_optimizer *o;
    kh_step_report report;
    size_t count, up = 0, alike = 0;
    GOOD(kh_optimizer_parse(&options, "adamw"));
    options.moments = KH_TYPE_BF16;
    GOOD(kh_optimizer_open(&o, &options, &tensor, &setting, 1, N, &one, kh_kern_get(kh_cpu_isa())));
    for (size_t i = 0; i < N; i++) g[i] = 1.23456f;
    kh_step step = {1, 1e-4, 0};
    GOOD(kh_optimizer_step(o, w, g, &step, &report));
    const uint16_t *m = kh_optimizer_views(o, &count)[0].data;
    const uint16_t *v = kh_optimizer_views(o, &count)[1].data;
    uint16_t low[2] = {UINT16_MAX, UINT16_MAX};
    for (size_t i = 0; i < N; i++) {
        low[0] = m[i] < low[0] ? m[i] : low[0];
        low[1] = v[i] < low[1] ? v[i] : low[1];
    }
    for (size_t i = 0; i < N; i++) {
        up += m[i] > low[0];
        alike += (m[i] > low[0]) == (v[i] > low[1]);
    }
    assert_in_range(up, N / 8, N - N / 8);
    double share[2] = {(double)up / N, 0};
    for (size_t i = 0; i < N; i++) share[1] += (v[i] > low[1]) / (double)N;
    double chance = share[0] * share[1] + (1 - share[0]) * (1 - share[1]);
    assert_true(fabs((double)alike / N - chance) < 0.04); /* five times what chance moves it by */
    for (size_t block = 1024; block < N; block += 1024)
        assert_memory_not_equal(m, m + block, 1024 * sizeof *m);
    kh_optimizer_close(o);
}

/* Steps of 1e-4 from 1, where bf16 has steps of 4e-3: each weight is one of bf16, their mean moves. */
static void narrow_weights_move_in_the_mean(void **state)
{
    (void)state;
    static float w[N], g[N];
    const kh_tensor_spec tensor = {"x", 0, N, 64, 64};
    const kh_tensor_setting setting = {1, 0};
    kh_optimizer_options options;
    kh_optimizer *o;
    kh_step_report report;
    GOOD(kh_optimizer_parse(&options, "sgd"));
    options.weights = KH_TYPE_BF16;
    GOOD(kh_optimizer_open(&o, &options, &tensor, &setting, 1, N, &one, kh_kern_get(kh_cpu_isa())));
    for (size_t i = 0; i < N; i++) {
        w[i] = 1;
        g[i] = 1;
    }
    for (uint64_t s = 1; s <= 100; s++) {
        kh_step step = {s, 1e-4, 0};
        GOOD(kh_optimizer_step(o, w, g, &step, &report));
    }
    double sum = 0;
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(kh_f32_bits(w[i]) & 0xffff, 0);
        sum += (double)w[i];
    }
    assert_true(fabs(sum / N - 0.99) < 1e-3);
    kh_optimizer_close(o);
}

/* Moments copied into a fresh optimiser continue with the same bits. */
static void state_continues(void **state)
{
    (void)state;
    static float w[2][W];
    for (int narrow = 0; narrow < 2; narrow++) {
        kh_optimizer *o[2];
        kh_optimizer_options options;
        kh_step_report report;
        size_t count;
        GOOD(kh_optimizer_parse(&options, "adamw"));
        options.moments = options.weights = narrow ? KH_TYPE_BF16 : KH_TYPE_F32;
        for (int i = 0; i < 2; i++)
            GOOD(kh_optimizer_open(&o[i], &options, parts, moving, 3, W, &one,
                                   kh_kern_get(kh_cpu_isa())));
        memcpy(w[0], start_w, sizeof w[0]);
        for (uint64_t s = 0; s < STEPS; s++) {
            kh_step step = {s + 1, 1e-2, 0};
            if (s == 2) {
                const kh_tensor_view *from = kh_optimizer_views(o[0], &count);
                const kh_tensor_view *to = kh_optimizer_views(o[1], &count);
                for (size_t i = 0; i < count; i++)
                    memcpy(to[i].data, from[i].data,
                           (size_t)from[i].rows * (size_t)from[i].cols *
                               kh_type_bytes(from[i].type));
                memcpy(w[1], w[0], sizeof w[0]);
            }
            GOOD(kh_optimizer_step(o[0], w[0], gradients[s], &step, &report));
            if (s >= 2) GOOD(kh_optimizer_step(o[1], w[1], gradients[s], &step, &report));
        }
        assert_memory_equal(w[0], w[1], sizeof w[0]);
        for (int i = 0; i < 2; i++) kh_optimizer_close(o[i]);
    }
}

/* ---- mistakes ---- */

static void texts_and_shapes_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sentence;
    } bad[] = {
        {"adam", "optimizer 'adam': nothing is called 'adam' (adamw, sgd)"},
        {"", "nothing is called ''"},
        {"sgd:beta1=0.5",
         "sgd has no parameter 'beta1' (it has: momentum, decay, clip, moments, weights)"},
        {"adamw:beta1=1", "beta1=1 is not allowed, beta1 must be a number from 0 to 0.9999999"},
        {"adamw:eps=", "eps= is not allowed"},
        {"adamw:eps=nan", "eps=nan is not allowed"},
        {"adamw:eps=1e-8x", "eps=1e-8x is not allowed"},
        {"adamw:clip", "'clip' has no '='"},
        {"adamw:", "'' has no '='"},
        {"adamw:clip=1,clip=2", "clip is given twice"},
        {"adamw:clip=-1", "clip must be a number from 0"},
        {"adamw:moments=f16", "moments=f16 is not allowed, moments must be one of f32, bf16"},
        {"sgd:weights=", "weights= is not allowed, weights must be one of f32, bf16"}};
    kh_optimizer_options options;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refused(kh_optimizer_parse(&options, bad[i].text), KH_ERR_ARGUMENT, bad[i].sentence);
    GOOD(kh_optimizer_parse(&options, "adamw:decay=0.1"));
    assert_true(options.beta1 == 0.9 && options.beta2 == 0.999 && options.eps == 1e-8 &&
                options.decay == 0.1 && options.clip == 0);
    assert_true(options.moments == KH_TYPE_F32 && options.weights == KH_TYPE_F32);
    GOOD(kh_optimizer_parse(&options, "sgd:weights=bf16,momentum=0.5"));
    assert_true(options.moments == KH_TYPE_F32 && options.weights == KH_TYPE_BF16 &&
                options.kind == KH_OPTIMIZER_SGD && options.momentum == 0.5);
    GOOD(kh_optimizer_parse(&options, "adamw:moments=bf16"));
    assert_true(options.moments == KH_TYPE_BF16 && options.weights == KH_TYPE_F32);
    kh_optimizer *o;
    const kh_kern *kern = kh_kern_get(KH_ISA_REF);
    kh_tensor_spec t[] = {{"a", 0, 6, 2, 3}, {"b", 5, 3, 1, 3}};
    refused(kh_optimizer_open(&o, &options, t, moving, 2, W, &one, kern), KH_ERR_ARGUMENT,
            "'b' of 3 elements at 5 does not lie between 6 and 60000");
    assert_null(o);
    t[1].offset = 6;
    refused(kh_optimizer_open(&o, &options, t, moving, 2, 8, &one, kern), KH_ERR_ARGUMENT, "'b'");
    t[1].rows = 2;
    refused(kh_optimizer_open(&o, &options, t, moving, 2, 9, &one, kern), KH_ERR_ARGUMENT,
            "'b' is 2 x 3");
    options.moments = KH_TYPE_F16;
    refused(kh_optimizer_open(&o, &options, t, moving, 1, 9, &one, kern), KH_ERR_ARGUMENT,
            "moments in F16");
    GOOD(kh_optimizer_parse(&options, "adamw"));
    GOOD(kh_optimizer_open(&o, &options, t, moving, 1, 9, &one, kern));
    kh_step step = {0, 1, 1};
    kh_step_report report;
    refused(kh_optimizer_step(o, start_w, start_w, &step, &report), KH_ERR_ARGUMENT,
            "steps count from 1");
    step = (kh_step){1, (double)NAN, 1};
    refused(kh_optimizer_step(o, start_w, start_w, &step, &report), KH_ERR_ARGUMENT, "rate nan");
    kh_optimizer_close(o);
    kh_optimizer_close(NULL);
}

static void memory_runs_out_at_every_place(void **state)
{
    (void)state;
    kh_optimizer_options options;
    kh_optimizer *o = NULL;
    GOOD(kh_optimizer_parse(&options, "adamw"));
    uint64_t live = kh_alloc_get_stats().live;
    for (uint64_t n = 1; !o; n++) {
        kh_alloc_fail_at(n);
        kh_status status = kh_optimizer_open(&o, &options, parts, moving, 3, W, &one,
                                             kh_kern_get(KH_ISA_REF));
        kh_alloc_fail_at(0);
        assert_int_equal(status, o ? KH_OK : KH_ERR_MEMORY);
        assert_true(o || kh_alloc_get_stats().live == live);
        assert_true(n < 20);
    }
    kh_optimizer_close(o);
    assert_int_equal(kh_alloc_get_stats().live, live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_as_pytorch_does),
        cmocka_unit_test(same_bits_for_threads_and_instruction_sets),
        cmocka_unit_test(frozen_tensors_and_gaps_stay),
        cmocka_unit_test(bad_gradients_change_nothing),
        cmocka_unit_test(rate_zero_keeps_bits),
        cmocka_unit_test(narrow_moments_follow),
        cmocka_unit_test(draws_differ_from_place_to_place),
        cmocka_unit_test(narrow_weights_move_in_the_mean),
        cmocka_unit_test(state_continues),
        cmocka_unit_test(texts_and_shapes_are_checked),
        cmocka_unit_test(memory_runs_out_at_every_place),
    };
    return cmocka_run_group_tests_name("optimisers", tests, make_problem, NULL);
}
