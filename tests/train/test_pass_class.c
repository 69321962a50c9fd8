/* The pass of training behind encoders and heads for classes, on models from nothing: gradients against differences
 * of the loss along each tensor's gradient (f32: 1 %), the loss against the logits that the model gives elsewhere,
 * and what must not change a bit; batches that are refused. */
#include "base/alloc.h"
#include "support/golden_run.h"
#include "train/pass.h"
#include "train/scratch.h"

#include <keyhole/encode.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { V = 43, TEXTS = 6, ROWS = 80, C = 4 };

static const size_t lengths[TEXTS] = {17, 9, 13, 6, 20, 5};

typedef struct kind {
    const char *name;
    kh_goal goal;
    kh_scratch_options o;
} kind;

#define SMALL .layers = 2, .width = 24, .heads = 2, .ff = 40, .vocabulary = V, .context = 32
static const kind kinds[] = {
    {"bert, masked tokens",
     KH_GOAL_MASKED,
     {.architecture = "bert", SMALL, .mask_head = KH_SCRATCH_WITH}},
    {"lra, masked tokens by a head of its own",
     KH_GOAL_MASKED,
     {.architecture = "lra", SMALL, .mask_head = KH_SCRATCH_WITH, .head = KH_SCRATCH_WITH}},
    {"lra, mean", KH_GOAL_CLASSES, {.architecture = "lra", SMALL, .classes = C}},
    {"bert, first, tanh",
     KH_GOAL_CLASSES,
     {.architecture = "bert",
      SMALL,
      .classes = C,
      .class_dense = 16,
      .pooling = KH_SCRATCH_POOL_FIRST}},
    {"nomic-bert, two layers",
     KH_GOAL_CLASSES,
     {.architecture = "nomic-bert",
      SMALL,
      .classes = C,
      .class_dense = 16,
      .class_inner = 8,
      .class_act = "relu"}},
    {"llama, last", KH_GOAL_CLASSES, {.architecture = "llama", SMALL, .classes = C}},
    {"gpt2, mean",
     KH_GOAL_CLASSES,
     {.architecture = "gpt2",
      SMALL,
      .classes = C,
      .class_dense = 8,
      .pooling = KH_SCRATCH_POOL_MEAN}},
    {"lra, pairs",
     KH_GOAL_CLASSES,
     {.architecture = "lra",
      SMALL,
      .classes = C,
      .towers = 2,
      .class_dense = 16,
      .class_act = "relu"}},
    {"t5encoder, pairs of four",
     KH_GOAL_CLASSES,
     {.architecture = "t5encoder", SMALL, .classes = C, .towers = 4, .buckets = 8}},
    {"t5", KH_GOAL_TOKENS, {.architecture = "t5", SMALL, .encoder_layers = 3, .buckets = 8}},
    {"t5 with a gate",
     KH_GOAL_TOKENS,
     {.architecture = "t5", SMALL, .gate = KH_SCRATCH_WITH, .head = KH_SCRATCH_WITH}},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static int reads_pairs(const kind *k)
{
    return k->o.towers > 1 || k->goal == KH_GOAL_TOKENS;
}

typedef struct sample {
    int32_t tokens[ROWS], positions[ROWS], targets[ROWS];
    uint32_t rows[ROWS];
    kh_span spans[TEXTS];
    kh_data_item items[TEXTS];
    kh_data_batch data;
} sample;

static void make_sample(sample *s, int pairs)
{
    size_t row = 0, wanted = 0, items = 0;
    memset(s, 0, sizeof *s);
    for (size_t i = 0; i < TEXTS; i++) {
        s->spans[i] = (kh_span){(int)i, row, lengths[i], 0};
        for (size_t t = 0; t < lengths[i]; t++, row++) {
            s->tokens[row] = (int32_t)((row * 37 + i * 5 + 11) % V);
            s->positions[row] = (int32_t)t;
            s->targets[row] = row % 4 == 1 ? (int32_t)((row * 53 + 5) % V) : -1;
            if (s->targets[row] >= 0) s->rows[wanted++] = (uint32_t)row;
        }
        kh_data_item item = {.document = i,
                             .row = row - lengths[i],
                             .rows = lengths[i],
                             .label = i == 4 ? -1 : (int)(i * 3 + 1) % C};
        if (pairs && i % 2) {
            item = s->items[--items];
            item.second = item.row + item.rows;
            item.rows += lengths[i];
        }
        s->items[items++] = item;
    }
    s->data = (kh_data_batch){.batch = {.n = row,
                                        .tokens = s->tokens,
                                        .position = s->positions,
                                        .spans = s->spans,
                                        .span_count = TEXTS,
                                        .logit_rows = s->rows,
                                        .logit_count = wanted},
                              .targets = s->targets,
                              .items = s->items,
                              .item_count = items};
}

/* Targets of the second texts, which a decoder writes. */
static size_t written_targets(const sample *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->data.item_count; i++)
        for (size_t t = s->items[i].second; t < s->items[i].row + s->items[i].rows; t++)
            n += s->targets[t] >= 0;
    return n;
}

static kh_params *params_of(const kind *k)
{
    kh_params *params = NULL;
    kh_gguf *file = NULL;
    kh_scratch_options o = k->o;
    o.init = (kh_init_options){.name = "lra", .seed = 5};
    GOOD(kh_scratch_open(&file, &o));
    GOOD(kh_params_open(&params, file));
    kh_gguf_close(file);
    for (size_t i = 0; i < params->tensor_count; i++) {
        const kh_tensor_spec *t = &params->tensors[i];
        for (size_t j = 0; j < t->count && strstr(t->name, ".bias"); j++)
            params->weights[t->offset + j] = 0.1f * (float)((j * 7 + i) % 5) - 0.2f;
    }
    return params;
}

static kh_pass *open_pass(kh_params *params, kh_goal goal, const char *attn, int threads,
                          kh_recompute recompute)
{
    kh_pass *pass = NULL;
    kh_pass_options options = {.goal = goal,
                               .rows = ROWS,
                               .spans = TEXTS,
                               .threads = threads,
                               .attn = attn,
                               .recompute = recompute};
    GOOD(kh_pass_open(&pass, params, &options));
    return pass;
}

static kh_loss loss_of(kh_pass *pass, const sample *s)
{
    kh_loss loss = {0};
    GOOD(kh_pass_loss(pass, &s->data, &loss));
    return loss;
}

/* The derivative along a tensor's gradient is its norm; differences of fourth order, over steps that few kinks of
 * ReLU lie in. */
static void check_tensor(kh_params *params, kh_pass *pass, const sample *s, size_t index,
                         double whole)
{
    static const double places[] = {1, -1, 2, -2};
    const kh_tensor_spec *t = &params->tensors[index];
    float *w = params->weights + t->offset, *g = params->gradients + t->offset;
    double norm = 0, size = 0, at[4];
    for (size_t j = 0; j < t->count; j++) {
        norm += (double)g[j] * (double)g[j];
        size += (double)w[j] * (double)w[j];
    }
    norm = sqrt(norm);
    if (norm < 1e-3 * whole) return;
    double step = 4e-5 * (sqrt(size) > 0.1 ? sqrt(size) : 0.1);
    float *before = kh_alloc(t->count * sizeof *before);
    memcpy(before, w, t->count * sizeof *w);
    for (int i = 0; i < 4; i++) {
        for (size_t j = 0; j < t->count; j++)
            w[j] = (float)((double)before[j] + places[i] * step / norm * (double)g[j]);
        at[i] = loss_of(pass, s).nats;
    }
    memcpy(w, before, t->count * sizeof *w);
    kh_free(before);
    double found = (8 * (at[0] - at[1]) - (at[2] - at[3])) / (12 * step);
    if (!(fabs(found - norm) <= 1e-2 * norm + 1e-3 * whole))
        fail_msg("%s: the loss moves by %g along a gradient of norm %g", t->name, found, norm);
}

static void gradients_are_those_of_the_loss(void **state)
{
    const kind *k = *state;
    kh_params *params = params_of(k);
    sample s;
    make_sample(&s, reads_pairs(k));
    kh_pass *pass = open_pass(params, KH_GOAL_USUAL, NULL, 2, KH_RECOMPUTE_NONE);
    kh_loss loss = {0}, alone = loss_of(pass, &s);
    GOOD(kh_pass_gradient(pass, &s.data, 1, 0, &loss));
    assert_true(loss.nats == alone.nats && loss.rows == alone.rows && loss.right == alone.right);
    size_t rows = k->goal == KH_GOAL_MASKED ? s.data.batch.logit_count : reads_pairs(k) ? 2 : 5;
    if (k->goal == KH_GOAL_TOKENS) rows = written_targets(&s);
    assert_int_equal(loss.rows, rows);
    assert_true(loss.nats > 0.2 * (double)rows);
    double whole = 0;
    for (size_t j = 0; j < params->count; j++)
        whole += (double)params->gradients[j] * (double)params->gradients[j];
    whole = sqrt(whole);
    for (size_t i = 0; i < params->tensor_count; i++) {
        const kh_tensor_spec *t = &params->tensors[i];
        double norm = 0;
        for (size_t j = 0; j < t->count; j++)
            norm += fabs((double)params->gradients[t->offset + j]);
        int sinusoids = strcmp(t->name, "position_embd.weight") == 0 &&
                        strcmp(k->o.architecture, "lra") == 0;
        if ((norm == 0) != sinusoids || params->frozen[i] != sinusoids)
            fail_msg("%s has %s gradient", t->name, norm == 0 ? "no" : "a");
        if (!sinusoids) check_tensor(params, pass, &s, i, whole);
    }
    kh_pass_close(pass);
    kh_params_close(params);
}

/* ---- the same loss by the way of users */

static double surprise(const float *logits, size_t n, int target)
{
    return log_sum_exp(logits, n) - (double)logits[target];
}

static double written(const kh_model *m, const sample *s)
{
    double sum = 0;
    kh_session_options exact = {
        .precision = KH_PRECISION_F32, .k_type = KH_CACHE_F32, .v_type = KH_CACHE_F32};
    for (size_t i = 0; i < s->data.item_count; i++) {
        const kh_data_item *item = &s->items[i];
        kh_session *session = open_session(m, &exact);
        GOOD(kh_session_source(session, s->tokens + item->row, item->second - item->row));
        size_t n = item->row + item->rows - item->second;
        float *logits = all_logits(m, session, s->tokens + item->second, n);
        for (size_t t = 0; t < n; t++)
            if (s->targets[item->second + t] >= 0)
                sum += surprise(logits + t * V, V, s->targets[item->second + t]);
        kh_free(logits);
        kh_session_close(session);
    }
    return sum;
}

static double judged(const kh_model *m, const sample *s)
{
    double sum = 0;
    kh_encoder *encoder = NULL;
    float logits[ROWS * V];
    GOOD(kh_encoder_open(&encoder, m, &(kh_encoder_options){.precision = KH_PRECISION_F32}));
    for (size_t i = 0; i < s->data.item_count; i++) {
        const kh_data_item *item = &s->items[i];
        size_t end = item->row + item->rows, first = item->second ? item->second : end;
        kh_encoder_text texts[2] = {{s->tokens + item->row, NULL, first - item->row},
                                    {s->tokens + first, NULL, end - first}};
        GOOD(kh_encoder_classify(encoder, logits, texts, item->second ? 2 : 1));
        if (item->label >= 0) sum += surprise(logits, C, item->label);
    }
    kh_encoder_close(encoder);
    return sum;
}

static double guessed(const kh_model *m, const sample *s)
{
    double sum = 0;
    kh_encoder *encoder = NULL;
    float logits[ROWS * V];
    size_t at[ROWS];
    GOOD(kh_encoder_open(&encoder, m, &(kh_encoder_options){.precision = KH_PRECISION_F32}));
    for (size_t i = 0; i < TEXTS; i++) {
        const kh_span *span = &s->spans[i];
        kh_encoder_text text = {s->tokens + span->row, NULL, span->rows};
        size_t n = 0;
        for (size_t t = 0; t < span->rows; t++)
            if (s->targets[span->row + t] >= 0) at[n++] = t;
        GOOD(kh_encoder_masked(encoder, logits, &text, at, n));
        for (size_t j = 0; j < n; j++)
            sum += surprise(logits + j * V, V, s->targets[span->row + at[j]]);
    }
    kh_encoder_close(encoder);
    return sum;
}

static void loss_is_that_of_the_logits(void **state)
{
    const kind *k = *state;
    kh_params *params = params_of(k);
    sample s;
    make_sample(&s, reads_pairs(k));
    kh_pass *pass = open_pass(params, k->goal, NULL, 2, KH_RECOMPUTE_NONE);
    double got = loss_of(pass, &s).nats;
    double want = k->goal == KH_GOAL_TOKENS    ? written(params->model, &s)
                  : k->goal == KH_GOAL_CLASSES ? judged(params->model, &s)
                                               : guessed(params->model, &s);
    if (!(fabs(got - want) <= 1e-5 * want)) fail_msg("a loss of %g instead of %g", got, want);
    kh_pass_close(pass);
    kh_params_close(params);
}

static float *gradients(kh_params *params, const sample *s, const char *attn, int threads,
                        kh_recompute recompute)
{
    kh_loss loss = {0};
    kh_pass *pass = open_pass(params, KH_GOAL_USUAL, attn, threads, recompute);
    kh_params_clear(params);
    GOOD(kh_pass_gradient(pass, &s->data, 1, 0, &loss));
    kh_pass_close(pass);
    float *copy = kh_alloc(params->count * sizeof *copy);
    memcpy(copy, params->gradients, params->count * sizeof *copy);
    return copy;
}

static void no_bit_depends_on_threads(void **state)
{
    const kind *k = *state;
    kh_params *params = params_of(k);
    sample s;
    make_sample(&s, reads_pairs(k));
    static const char *const attns[] = {NULL, "topk:k=4"};
    for (int i = 0; i < 2; i++) {
        float *one = gradients(params, &s, attns[i], 1, KH_RECOMPUTE_NONE);
        float *two = gradients(params, &s, attns[i], 2, KH_RECOMPUTE_NONE);
        float *again = gradients(params, &s, attns[i], 2, KH_RECOMPUTE_BLOCK);
        assert_memory_equal(one, two, params->count * sizeof *one);
        for (size_t j = 0; j < params->count; j++)
            assert_true(fabsf(one[j] - again[j]) <= 1e-5f + 1e-4f * fabsf(one[j]));
        kh_free(one);
        kh_free(two);
        kh_free(again);
    }
    kh_params_close(params);
}

/* A prompt with its completion, as a decoder alone learns them, is what a model with an encoder reads and writes. */
static void prompts_become_sources(void **state)
{
    enum { P = 9, A = 6 };
    (void)state;
    kh_params *params = params_of(&kinds[KINDS - 1]);
    kh_pass *pass = open_pass(params, KH_GOAL_USUAL, NULL, 1, KH_RECOMPUTE_NONE);
    int32_t text[P + A], pair[P + A], positions[P + A], targets[P + A], written[P + A];
    for (int t = 0; t < P + A; t++) text[t] = (t * 31 + 7) % V;
    for (int t = 0; t < P + A; t++) {
        positions[t] = t;
        pair[t] = t < P ? text[t] : t == P ? params->model->d.start : text[t - 1];
        written[t] = t < P ? -1 : text[t];
        targets[t] = t < P - 1 || t == P + A - 1 ? -1 : text[t + 1];
    }
    kh_span span = {0, 0, P + A - 1, 0};
    uint32_t rows[P + A];
    for (uint32_t t = 0; t < P + A; t++) rows[t] = t;
    kh_data_item item = {.rows = P + A - 1, .label = -1};
    kh_data_batch data = {.batch = {.n = P + A - 1,
                                    .tokens = text,
                                    .position = positions,
                                    .spans = &span,
                                    .span_count = 1,
                                    .logit_rows = rows + P - 1,
                                    .logit_count = A},
                          .targets = targets,
                          .items = &item,
                          .item_count = 1};
    kh_loss one = {0}, two = {0};
    GOOD(kh_pass_loss(pass, &data, &one));
    kh_data_item both = {.rows = P + A, .second = P, .label = -1};
    data.batch.n = P + A;
    data.batch.tokens = pair;
    data.targets = written;
    data.items = &both;
    GOOD(kh_pass_loss(pass, &data, &two));
    assert_int_equal(one.rows, A);
    assert_int_equal(two.rows, A);
    assert_true(one.nats == two.nats && one.nats > 1);
    both.second = 0; /* one text without a prompt */
    for (int t = 0; t < P + A; t++) written[t] = 1;
    assert_int_equal(kh_pass_loss(pass, &data, &two), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "is one text"));
    kh_pass_close(pass);
    kh_params_close(params);
}

static void refused(void **state)
{
    (void)state;
    kh_params *params = params_of(&kinds[7]); /* pairs */
    kh_pass *pass = open_pass(params, KH_GOAL_CLASSES, NULL, 1, KH_RECOMPUTE_NONE), *other = NULL;
    kh_pass_options options = {.goal = KH_GOAL_MASKED, .rows = ROWS, .spans = TEXTS};
    kh_loss loss = {0};
    sample s;
    make_sample(&s, 0);
    assert_int_equal(kh_pass_loss(pass, &s.data, &loss), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "reads two"));
    make_sample(&s, 1);
    s.items[1].label = C;
    assert_int_equal(kh_pass_loss(pass, &s.data, &loss), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "label 4 of a model of 4 classes"));
    make_sample(&s, 1);
    s.positions[3] = 32;
    assert_int_equal(kh_pass_loss(pass, &s.data, &loss), KH_ERR_CONTEXT);
    for (size_t i = 0; i < s.data.item_count; i++) s.items[i].label = -1;
    s.positions[3] = 3;
    GOOD(kh_pass_loss(pass, &s.data, &loss));
    assert_int_equal(loss.rows, 0);
    assert_int_equal(kh_pass_open(&other, params, &options), KH_ERR_ARGUMENT);
    options.goal = KH_GOAL_TOKENS;
    assert_int_equal(kh_pass_open(&other, params, &options), KH_ERR_ARGUMENT);
    options = (kh_pass_options){.rows = ROWS, .spans = TEXTS, .layer_causal = 1};
    assert_int_equal(kh_pass_open(&other, params, &options), KH_ERR_ARGUMENT);
    kh_pass_close(pass);
    kh_params_close(params);
}

int main(int argc, char **argv)
{
    static struct CMUnitTest tests[3 * KINDS + 4] = {{0}};
    static char names[3 * KINDS][96];
    size_t n = 0;
    for (size_t i = 0; i < KINDS; i++) {
        void *k = (void *)(uintptr_t)&kinds[i];
        snprintf(names[n], sizeof *names, "gradients of %s", kinds[i].name);
        tests[n] = (struct CMUnitTest){names[n], gradients_are_those_of_the_loss, NULL, NULL, k};
        n++;
        snprintf(names[n], sizeof *names, "loss of %s", kinds[i].name);
        if (strncmp(kinds[i].name, "llama", 5) != 0 && strncmp(kinds[i].name, "gpt2", 4) != 0) {
            tests[n] = (struct CMUnitTest){names[n], loss_is_that_of_the_logits, NULL, NULL, k};
            n++;
        }
        snprintf(names[n], sizeof *names, "bits of %s", kinds[i].name);
        tests[n] = (struct CMUnitTest){names[n], no_bit_depends_on_threads, NULL, NULL, k};
        n++;
    }
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(prompts_become_sources);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(refused);
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return _cmocka_run_group_tests("pass_class", tests, n, NULL, NULL);
}
