/* The pass of training, on every causal family's tiny folder: gradients against differences of the loss along
 * each tensor's gradient (f32: 2 %; tests/grad does it in double), and what must not change a bit: threads,
 * recompute, the number of sequences behind one another. */
#include "base/alloc.h"
#include "support/family_golden.h"
#include "support/train_case.h"
#include "train/pass.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static kh_pass *open_pass(kh_params *params, const char *attn, int threads, kh_recompute recompute)
{
    kh_pass *pass = NULL;
    kh_pass_options options = {
        .rows = SAMPLE_ROWS, .spans = 2, .threads = threads, .attn = attn, .recompute = recompute};
    GOOD(kh_pass_open(&pass, params, &options));
    return pass;
}

static double loss_of(kh_pass *pass, const sample *s)
{
    kh_loss loss = {0};
    GOOD(kh_pass_loss(pass, &s->data, &loss));
    return loss.nats;
}

/* The derivative along a tensor's gradient is its norm; differences of fourth order. */
static void check_tensor(kh_params *params, kh_pass *pass, const sample *s, size_t index,
                         double whole)
{
    const kh_tensor_spec *t = &params->tensors[index];
    float *w = params->weights + t->offset, *g = params->gradients + t->offset;
    double norm = 0, size = 0;
    for (size_t j = 0; j < t->count; j++) norm += (double)g[j] * (double)g[j];
    for (size_t j = 0; j < t->count; j++) size += (double)w[j] * (double)w[j];
    norm = sqrt(norm);
    if (norm < 1e-3 * whole) return;
    double step = 5e-4 * (sqrt(size) > 0.1 ? sqrt(size) : 0.1), at[4];
    static const double places[] = {1, -1, 2, -2};
    float *before = kh_alloc(t->count * sizeof *before);
    memcpy(before, w, t->count * sizeof *w);
    for (int i = 0; i < 4; i++) {
        double a = places[i] * step / norm;
        for (size_t j = 0; j < t->count; j++) w[j] = (float)((double)before[j] + a * (double)g[j]);
        at[i] = loss_of(pass, s);
    }
    memcpy(w, before, t->count * sizeof *w);
    kh_free(before);
    double found = (8 * (at[0] - at[1]) - (at[2] - at[3])) / (12 * step);
    if (fabs(found - norm) > 2e-2 * norm + 1e-4 * whole)
        fail_msg("%s: %s: the loss falls by %g along a gradient of norm %g",
                 kh_model_get_info(params->model)->path, t->name, found, norm);
}

static void gradients_are_those_of_the_loss(void **state)
{
    const family *f = *state;
    kh_params *params = params_of(family_path(f));
    sample s;
    make_sample(&s, params->model->d.V, 1);
    kh_pass *pass = open_pass(params, NULL, 2, KH_RECOMPUTE_NONE);
    kh_loss loss = {0};
    GOOD(kh_pass_gradient(pass, &s.data, 1, 0, &loss));
    assert_true(fabs(loss.nats - loss_of(pass, &s)) < 1e-4 * loss.nats);
    double whole = 0;
    for (size_t j = 0; j < params->count; j++)
        whole += (double)params->gradients[j] * (double)params->gradients[j];
    whole = sqrt(whole);
    assert_true(whole > 0);
    for (size_t i = 0; i < params->tensor_count; i++)
        if (!params->frozen[i]) check_tensor(params, pass, &s, i, whole);
    kh_pass_close(pass);
    kh_params_close(params);
}

static float *gradients(kh_params *params, const sample *s, const char *attn, int threads,
                        kh_recompute recompute)
{
    kh_loss loss = {0};
    kh_pass *pass = open_pass(params, attn, threads, recompute);
    kh_params_clear(params);
    GOOD(kh_pass_gradient(pass, &s->data, 1, 0, &loss));
    kh_pass_close(pass);
    float *copy = kh_alloc(params->count * sizeof *copy);
    memcpy(copy, params->gradients, params->count * sizeof *copy);
    return copy;
}

static void no_bit_depends_on_threads_or_recompute(void **state)
{
    const family *f = *state;
    kh_params *params = params_of(family_path(f));
    sample s;
    make_sample(&s, params->model->d.V, 1);
    static const char *const attns[] = {NULL, "topk:k=5"};
    for (int i = 0; i < 2; i++) {
        float *one = gradients(params, &s, attns[i], 1, KH_RECOMPUTE_NONE);
        float *two = gradients(params, &s, attns[i], 2, KH_RECOMPUTE_NONE);
        float *again = gradients(params, &s, attns[i], 2, KH_RECOMPUTE_BLOCK);
        float largest = 0;
        for (size_t j = 0; j < params->count; j++) largest = fmaxf(largest, fabsf(one[j]));
        assert_memory_equal(one, two, params->count * sizeof *one);
        for (size_t j = 0; j < params->count; j++)
            assert_true(fabsf(one[j] - again[j]) <= 1e-6f * largest + 1e-4f * fabsf(one[j]));
        kh_free(one);
        kh_free(two);
        kh_free(again);
    }
    kh_params_close(params);
}

/* Rule n ranks by the value vectors as they are now, not as they were when the pass was opened. */
static void neurons_are_ranked_by_the_weights_of_the_step(void **state)
{
    (void)state;
    kh_params *params = params_of(family_path(family_named("llama")));
    sample s;
    make_sample(&s, params->model->d.V, 1);
    kh_pass_options options = {
        .rows = SAMPLE_ROWS, .spans = 2, .threads = 1, .ff = "topk:k=4,rule=n"};
    kh_pass *passes[2] = {NULL, NULL};
    GOOD(kh_pass_open(&passes[0], params, &options));
    double before = loss_of(passes[0], &s);
    for (size_t i = 0; i < params->tensor_count; i++) {
        const kh_tensor_spec *t = &params->tensors[i];
        if (!strstr(t->name, "ffn_down")) continue;
        for (size_t j = 0; j < t->count; j++)
            params->weights[t->offset + j] *= (float)(1 + j % (size_t)t->cols % 7);
    }
    GOOD(kh_pass_open(&passes[1], params, &options));
    double after = loss_of(passes[0], &s);
    assert_true(after != before && after == loss_of(passes[1], &s));
    for (int i = 0; i < 2; i++) kh_pass_close(passes[i]);
    kh_params_close(params);
}

/* Rows choose other experts within a difference that f32 can see; tests/grad has smaller ones. */
static int is_mixture(const family *f)
{
    return strstr(f->name, "moe") || strstr(f->name, "mixtral");
}

int main(void)
{
    struct CMUnitTest tests[128];
    char names[128][96];
    size_t n = 0;
    for (size_t i = 0; i < family_count; i++) {
        if (families[i].task != FAMILY_CAUSAL) continue;
        void *f = (void *)(uintptr_t)&families[i];
        snprintf(names[n], sizeof *names, "gradients of %s", families[i].name);
        tests[n] = (struct CMUnitTest){names[n], gradients_are_those_of_the_loss, NULL, NULL, f};
        if (!is_mixture(&families[i])) n++;
        snprintf(names[n], sizeof *names, "bits of %s", families[i].name);
        tests[n] = (struct CMUnitTest){names[n], no_bit_depends_on_threads_or_recompute, NULL, NULL,
                                       f};
        n++;
    }
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(neurons_are_ranked_by_the_weights_of_the_step);
    return _cmocka_run_group_tests("pass", tests, n, NULL, NULL);
}
