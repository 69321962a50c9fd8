/* Ten steps of AdamW on every family that predicts tokens against PyTorch in double precision (tests/golden/train):
 * decoders, encoders that guess masked tokens, encoders with a decoder. The loss of each step to 1e-4, and the norm of
 * every tensor's gradient in the first one. With recompute by block and with kept records. */
#include "support/family_golden.h"

#include <jansson.h>
#include <keyhole/train.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { B = 2, T = 24, ANSWER = 16, STEPS = 10, ROWS = B * (T + ANSWER) };

/* What a step is trained on. */
typedef struct sample {
    int32_t tokens[ROWS], targets[ROWS], types[ROWS];
    size_t lengths[2 * B], rows, sequences, wanted;
} sample;

static uint32_t hash(uint32_t n)
{
    uint32_t x = n * 2654435761u;
    x = (x ^ x >> 15) * 2246822519u;
    return x ^ x >> 13;
}

/* Id t of text b of step s, among texts of n. */
static int32_t id_at(uint32_t s, uint32_t b, uint32_t n, uint32_t t, uint32_t salt)
{
    return (int32_t)(10 + hash(salt + (s * B + b) * n + t + 1) % 100);
}

static void add(sample *x, int32_t token, int32_t target, int32_t type)
{
    x->tokens[x->rows] = token;
    x->targets[x->rows] = target;
    x->types[x->rows++] = type;
    x->wanted += target >= 0;
}

/* Each id and what follows it; or every fifth one hidden, the second half of a text being another; or a source, and
 * what the decoder writes from its start token on. */
static void make_batch(sample *x, const family *f, const kh_model *model, int32_t mask, uint32_t s)
{
    int two = strcmp(f->name, "bert") == 0; /* the only one of these that tells texts apart */
    *x = (sample){0};
    for (uint32_t b = 0; b < B; b++) {
        x->lengths[x->sequences++] = T;
        for (uint32_t t = 0; t < T; t++) {
            int32_t id = id_at(s, b, T, t, 0);
            if (f->task == FAMILY_CAUSAL)
                add(x, id, t + 1 < T ? id_at(s, b, T, t + 1, 0) : -1, 0);
            else if (f->task == FAMILY_MASKED)
                add(x, t % 5 == 2 ? mask : id, t % 5 == 2 ? id : -1, two && t >= T / 2);
            else
                add(x, id, -1, 0);
        }
        if (f->task != FAMILY_T5) continue;
        x->lengths[x->sequences++] = ANSWER;
        for (uint32_t t = 0; t < ANSWER; t++)
            add(x, t > 0 ? id_at(s, b, ANSWER, t - 1, 100000) : kh_model_start(model),
                id_at(s, b, ANSWER, t, 100000), 0);
    }
}

static json_t *golden_of(const family *f)
{
    char path[256];
    json_error_t error;
    snprintf(path, sizeof path, "tests/golden/train/%s.json", f->folder ? f->folder : f->name);
    json_t *file = json_load_file(path, 0, &error);
    if (!file) fail_msg("%s: %s", path, error.text);
    return file;
}

static void check_gradients(const kh_trainer *trainer, const json_t *wanted, const char *name)
{
    double most = 0;
    const char *key;
    json_t *norm;
    json_object_foreach((json_t *)(uintptr_t)wanted, key, norm) if (json_real_value(norm) > most)
        most = json_real_value(norm);
    size_t met = 0;
    for (size_t i = 0; i < kh_trainer_tensor_count(trainer); i++) {
        kh_train_tensor t;
        kh_trainer_get_tensor(trainer, i, &t);
        norm = json_object_get(wanted, t.name);
        if (!norm || !t.gradient) continue;
        double sum = 0, want = json_real_value(norm);
        for (size_t j = 0; j < (size_t)t.rows * (size_t)t.cols; j++)
            sum += (double)t.gradient[j] * (double)t.gradient[j];
        if (fabs(sqrt(sum) - want) > 2e-4 * want + 1e-6 * most)
            fail_msg("%s: %s: a gradient of norm %.9g, PyTorch has %.9g", name, t.name, sqrt(sum),
                     want);
        met++;
    }
    assert_int_equal(met, json_object_size(wanted));
}

static void train(const family *f, int keep_records)
{
    static const char *const rules[] = {"*:decay=0.01"};
    static sample x;
    json_t *file = golden_of(f), *run = json_array_get(json_object_get(file, "runs"), 0);
    kh_model *model = open_model(family_path(f));
    kh_trainer *trainer = NULL;
    kh_train_options options = {.model = model,
                                .length = T,
                                .batch = f->task == FAMILY_T5 ? 2 * B : B,
                                .keep_records = keep_records,
                                .schedule = "constant",
                                .rate = 1e-3,
                                .groups = rules,
                                .group_count = 1};
    GOOD(kh_trainer_open(&trainer, &options));
    for (size_t s = 0; s < STEPS; s++) {
        int32_t mask = (int32_t)json_integer_value(json_object_get(file, "mask"));
        make_batch(&x, f, model, mask, (uint32_t)s);
        kh_train_batch batch = {x.tokens, x.targets, x.lengths, x.rows, x.sequences, NULL, x.types};
        double nats = 0, wanted = (double)x.wanted;
        double truth = json_real_value(json_array_get(json_object_get(run, "losses"), s));
        GOOD(kh_trainer_gradient(trainer, &batch, 1 / wanted, &nats));
        if (fabs(nats / wanted - truth) > 1e-4 * truth)
            fail_msg("%s: step %zu: a loss of %.9g, PyTorch has %.9g", f->name, s, nats / wanted,
                     truth);
        if (s == 0) check_gradients(trainer, json_object_get(run, "gradients"), f->name);
        GOOD(kh_trainer_update(trainer, 0, NULL));
    }
    kh_trainer_close(trainer);
    kh_model_close(model);
    json_decref(file);
}

static void losses_are_those_of_pytorch(void **state)
{
    train(*state, 0);
    train(*state, 1);
}

int main(void)
{
    struct CMUnitTest tests[64];
    size_t n = 0;
    for (size_t i = 0; i < family_count; i++) {
        const family *f = &families[i];
        int predicts = f->task == FAMILY_CAUSAL || f->task == FAMILY_MASKED || f->task == FAMILY_T5;
        if (!predicts || strcmp(f->name, "phi3-short") == 0) continue;
        tests[n++] = (struct CMUnitTest){f->name, losses_are_those_of_pytorch, NULL, NULL,
                                         (void *)(uintptr_t)f};
    }
    return _cmocka_run_group_tests("train_golden", tests, n, NULL, NULL);
}
