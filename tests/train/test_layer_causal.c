/* Layer-causal gradients. The loss of layer l is the usual loss of a model that ends there, so the truth is the usual
 * gradient (test_pass.c, test_train_golden.c) of the model cut behind each layer: block l has the gradient that it has
 * as the last block of the cut model, the final norm and the head have the sum over all cuts. And PyTorch's, from
 * states that are detached before every block. */
#include "base/alloc.h"
#include "support/family_golden.h"
#include "support/train_case.h"
#include "train/pass.h"

#include <jansson.h>
#include <keyhole/train.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

typedef struct way {
    const char *attn;
    kh_recompute recompute;
    int layer_causal, layers; /* layers 0: all */
} way;

/* The gradients, to be freed; what the layers behind the last have is 0. */
static float *gradients(kh_params *params, const sample *s, const way *how, kh_loss *loss)
{
    kh_pass *pass = NULL;
    int N = params->model->d.N;
    kh_pass_options options = {.rows = SAMPLE_ROWS,
                               .spans = 2,
                               .threads = 2,
                               .attn = how->attn,
                               .recompute = how->recompute,
                               .layer_causal = how->layer_causal};
    if (how->layers) params->model->d.N = params->model->w.stack.N = how->layers;
    *loss = (kh_loss){0};
    GOOD(kh_pass_open(&pass, params, &options));
    kh_params_clear(params);
    GOOD(kh_pass_gradient(pass, &s->data, 1, 0, loss));
    kh_pass_close(pass);
    params->model->d.N = params->model->w.stack.N = N;
    float *copy = kh_alloc(params->count * sizeof *copy);
    memcpy(copy, params->gradients, params->count * sizeof *copy);
    return copy;
}

/* -1: of no block. */
static int layer_of(const kh_params *params, size_t tensor)
{
    int l = -1;
    return sscanf(params->tensors[tensor].name, "blk.%d.", &l) == 1 ? l : -1;
}

static int is_embedding(const kh_params *params, size_t tensor)
{
    const char *name = params->tensors[tensor].name;
    return strncmp(name, "token_embd", 10) == 0 || strncmp(name, "position_embd", 13) == 0;
}

static double norm_of(const float *g, const kh_tensor_spec *t)
{
    double sum = 0;
    for (size_t j = 0; j < t->count; j++)
        sum += (double)g[t->offset + j] * (double)g[t->offset + j];
    return sqrt(sum);
}

static void check_same(const kh_params *params, size_t tensor, const float *found,
                       const float *wanted, double most)
{
    const kh_tensor_spec *t = &params->tensors[tensor];
    double sum = 0, norm = norm_of(wanted, t);
    for (size_t j = t->offset; j < t->offset + t->count; j++)
        sum += pow((double)found[j] - (double)wanted[j], 2);
    if (!(sqrt(sum) <= most * norm))
        fail_msg("%s: %s: a gradient of norm %g is off by %g", params->model->architecture, t->name,
                 norm, sqrt(sum));
}

static const char *const names[] = {"gpt2", "llama", "qwen3", "gemma2", "phi3", "gptneox"};
enum { NAMES = sizeof names / sizeof *names };

/* Block by block, and for the final norm and an untied head the sum. */
static void check_cuts(kh_params *params, const sample *s, const way *how)
{
    kh_loss loss, one;
    int N = params->model->d.N;
    float *found = gradients(params, s, how, &loss), *sum = kh_alloc(params->count * sizeof *sum);
    memset(sum, 0, params->count * sizeof *sum);
    double nats = 0;
    for (int l = 0; l < N; l++) {
        way cut = {.attn = how->attn, .recompute = KH_RECOMPUTE_NONE, .layers = l + 1};
        float *usual = gradients(params, s, &cut, &one);
        nats += one.nats;
        for (size_t i = 0; i < params->tensor_count; i++)
            if (layer_of(params, i) == l && !params->frozen[i])
                check_same(params, i, found, usual, 1e-5);
        for (size_t j = 0; j < params->count; j++) sum[j] += usual[j];
        kh_free(usual);
    }
    for (size_t i = 0; i < params->tensor_count; i++)
        if (layer_of(params, i) < 0 && !is_embedding(params, i) && !params->frozen[i])
            check_same(params, i, found, sum, 1e-5);
    assert_true(fabs(loss.nats - nats) < 1e-6 * nats);
    assert_int_equal(loss.rows, s->data.batch.logit_count);
    assert_int_equal(loss.right, one.right);
    kh_free(found);
    kh_free(sum);
}

static void each_block_has_the_gradient_of_its_own_loss(void **state)
{
    (void)state;
    static const char *const attns[] = {NULL, "topk:k=5"};
    for (size_t i = 0; i < NAMES; i++) {
        kh_params *params = params_named(names[i]);
        sample s;
        assert_true(params->model->d.N >= 2);
        make_sample(&s, params->model->d.V, 1);
        for (int j = 0; j < 4; j++) {
            way how = {.attn = attns[j / 2],
                       .recompute = j % 2 ? KH_RECOMPUTE_BLOCK : KH_RECOMPUTE_NONE,
                       .layer_causal = 1};
            check_cuts(params, &s, &how);
        }
        kh_params_close(params);
    }
}

/* Specification 11.5, 3 and 4, and that the blocks below the last differ at all. */
static void the_last_block_is_as_ever_and_no_block_knows_those_above(void **state)
{
    (void)state;
    kh_params *params = params_named("llama");
    sample s;
    kh_loss loss;
    make_sample(&s, params->model->d.V, 1);
    int last = params->model->d.N - 1, different = 0;
    way usual = {.recompute = KH_RECOMPUTE_NONE}, causal = usual;
    causal.layer_causal = 1;
    float *whole = gradients(params, &s, &usual, &loss);
    float *before = gradients(params, &s, &causal, &loss);
    for (size_t i = 0; i < params->tensor_count; i++) {
        const kh_tensor_spec *t = &params->tensors[i];
        if (layer_of(params, i) == last) {
            check_same(params, i, before, whole, 1e-5);
            for (size_t j = 0; j < t->count; j++) params->weights[t->offset + j] *= 1.25f;
        } else if (layer_of(params, i) >= 0) {
            different += fabs(norm_of(whole, t) - norm_of(before, t)) > 1e-2 * norm_of(whole, t);
        }
    }
    assert_true(different > 0);
    float *after = gradients(params, &s, &causal, &loss);
    for (size_t i = 0; i < params->tensor_count; i++) {
        const kh_tensor_spec *t = &params->tensors[i];
        if (layer_of(params, i) < 0 || params->frozen[i]) continue;
        int same = memcmp(before + t->offset, after + t->offset, t->count * sizeof *after) == 0;
        assert_int_equal(same, layer_of(params, i) < last);
    }
    kh_free(whole);
    kh_free(before);
    kh_free(after);
    kh_params_close(params);
}

static void one_layer_is_the_usual_gradient(void **state)
{
    (void)state;
    kh_params *params = params_named("llama");
    sample s;
    kh_loss loss;
    make_sample(&s, params->model->d.V, 1);
    way usual = {.recompute = KH_RECOMPUTE_BLOCK, .layers = 1}, causal = usual;
    causal.layer_causal = 1;
    float *one = gradients(params, &s, &usual, &loss);
    double nats = loss.nats;
    float *two = gradients(params, &s, &causal, &loss);
    assert_true(loss.nats == nats);
    for (size_t i = 0; i < params->tensor_count; i++) {
        const kh_tensor_spec *t = &params->tensors[i];
        if (!is_embedding(params, i))
            assert_memory_equal(one + t->offset, two + t->offset, t->count * sizeof *one);
    }
    kh_free(one);
    kh_free(two);
    kh_params_close(params);
}

/* An untied table has no gradient; a tied one that of the head, which for ids that no row shows is all that the cut
 * models have for them. */
static void embeddings_get_nothing_from_blocks(void **state)
{
    (void)state;
    for (size_t n = 0; n < NAMES; n++) {
        kh_params *params = params_named(names[n]);
        sample s;
        kh_loss loss;
        make_sample(&s, params->model->d.V, 1);
        int tied = params->model->w.head.data == params->model->w.embedding.data;
        way causal = {.layer_causal = 1};
        float *found = gradients(params, &s, &causal, &loss);
        float *sum = kh_alloc(params->count * sizeof *sum);
        memset(sum, 0, params->count * sizeof *sum);
        for (int l = 0; l < params->model->d.N; l++) {
            way cut = {.layers = l + 1};
            float *usual = gradients(params, &s, &cut, &loss);
            for (size_t j = 0; j < params->count; j++) sum[j] += usual[j];
            kh_free(usual);
        }
        for (size_t i = 0; i < params->tensor_count; i++) {
            const kh_tensor_spec *t = &params->tensors[i];
            if (!is_embedding(params, i)) continue;
            assert_true(norm_of(sum, t) > 0);
            if (!tied || strncmp(t->name, "position", 8) == 0) {
                assert_true(norm_of(found, t) == 0);
                continue;
            }
            for (int id = 0; id < t->rows; id++) {
                size_t at = t->offset + (size_t)id * (size_t)t->cols;
                int shown = 0;
                for (int r = 0; r < SAMPLE_ROWS; r++) shown |= s.tokens[r] == id;
                for (size_t j = at; !shown && j < at + (size_t)t->cols; j++)
                    assert_true(fabsf(found[j] - sum[j]) <= 1e-6f + 1e-4f * fabsf(sum[j]));
            }
        }
        kh_free(found);
        kh_free(sum);
        kh_params_close(params);
    }
}

/* ---- PyTorch ---- */

enum { B = 2, T = 24 };

static uint32_t hash(uint32_t n)
{
    uint32_t x = n * 2654435761u;
    x = (x ^ x >> 15) * 2246822519u;
    return x ^ x >> 13;
}

static void check_golden(const json_t *file, int keep_records)
{
    int32_t tokens[B * T], targets[B * T];
    const size_t lengths[] = {T, T};
    kh_model *model = open_model(family_path(family_named("gpt2")));
    kh_trainer *trainer = NULL;
    kh_train_options options = {
        .model = model, .length = T, .batch = B, .layer_causal = 1, .keep_records = keep_records};
    GOOD(kh_trainer_open(&trainer, &options));
    for (uint32_t i = 0; i < B * T; i++) tokens[i] = (int32_t)(10 + hash(i + 1) % 100);
    for (size_t i = 0; i < B * T; i++) targets[i] = i % T == T - 1 ? -1 : tokens[i + 1];
    kh_train_batch batch = {
        .tokens = tokens, .targets = targets, .lengths = lengths, .rows = B * T, .sequences = B};
    double nats = 0, wanted = B * (T - 1), truth = json_real_value(json_object_get(file, "loss"));
    GOOD(kh_trainer_gradient(trainer, &batch, 1 / wanted, &nats));
    assert_true(fabs(nats / wanted - truth) < 1e-5 * truth);
    size_t met = 0;
    for (size_t i = 0; i < kh_trainer_tensor_count(trainer); i++) {
        kh_train_tensor t;
        kh_trainer_get_tensor(trainer, i, &t);
        const json_t *norm = json_object_get(json_object_get(file, "gradients"), t.name);
        double sum = 0, want = json_real_value(norm);
        for (size_t j = 0; j < (size_t)t.rows * (size_t)t.cols; j++)
            sum += (double)t.gradient[j] * (double)t.gradient[j];
        if (fabs(sqrt(sum) - want) > 1e-4 * want + 1e-7)
            fail_msg("%s: a gradient of norm %.9g, PyTorch has %.9g", t.name, sqrt(sum), want);
        met += norm != NULL;
    }
    assert_int_equal(met, json_object_size(json_object_get(file, "gradients")));
    kh_trainer_close(trainer);
    kh_model_close(model);
}

static void gradients_are_those_of_pytorch(void **state)
{
    (void)state;
    json_error_t error;
    json_t *file = json_load_file("tests/golden/layer_causal.json", 0, &error);
    if (!file) fail_msg("%s", error.text);
    check_golden(file, 0);
    check_golden(file, 1);
    json_decref(file);
}

/* The sum over layers is divided by the rows, not by rows of all layers. */
static void a_step_divides_by_the_tokens(void **state)
{
    (void)state;
    double norms[2], losses[2];
    for (int causal = 0; causal < 2; causal++) {
        kh_trainer *trainer = NULL;
        kh_train_report step;
        kh_train_options options = {.arch = "gpt2:layers=3,width=32,heads=2",
                                    .task = "mqar:L=32,pairs=2",
                                    .batch = 4,
                                    .layer_causal = causal,
                                    .train = "blk.2.*"};
        GOOD(kh_trainer_open(&trainer, &options));
        GOOD(kh_trainer_step(trainer, &step));
        norms[causal] = step.norm;
        losses[causal] = step.loss;
        assert_true(step.rows > 0 && step.rows < 4 * 32);
        kh_trainer_close(trainer);
    }
    assert_true(fabs(norms[1] / norms[0] - 1) < 1e-5);
    assert_true(losses[1] > 2.7 * losses[0] && losses[1] < 3.3 * losses[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_block_has_the_gradient_of_its_own_loss),
        cmocka_unit_test(the_last_block_is_as_ever_and_no_block_knows_those_above),
        cmocka_unit_test(one_layer_is_the_usual_gradient),
        cmocka_unit_test(embeddings_get_nothing_from_blocks),
        cmocka_unit_test(gradients_are_those_of_pytorch),
        cmocka_unit_test(a_step_divides_by_the_tokens),
    };
    return cmocka_run_group_tests_name("layer_causal", tests, NULL, NULL);
}
