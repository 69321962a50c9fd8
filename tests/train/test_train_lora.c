/* Adapters that are trained: gradients of A and B against differences of the loss, over weights of any type; a step
 * moves the loss; what is saved is what was trained, in both formats. */
#include "base/alloc.h"
#include "model/lora_set.h"
#include "model/network.h"
#include "support/family_golden.h"

#include <keyhole/convert.h>
#include <keyhole/train.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { ROWS = 40 };

static int32_t tokens[ROWS], targets[ROWS];

static kh_trainer *open_trainer(const kh_model *model, const char *lora_targets)
{
    kh_trainer *trainer = NULL;
    kh_train_options options = {.model = model,
                                .length = ROWS,
                                .lora_rank = 3,
                                .lora_targets = lora_targets,
                                .schedule = "constant",
                                .rate = 1e-2};
    GOOD(kh_trainer_open(&trainer, &options));
    for (int t = 0; t < ROWS; t++) tokens[t] = 10 + (t * 37 + 11) % 80;
    for (int t = 0; t < ROWS; t++) targets[t] = t + 1 < ROWS ? tokens[t + 1] : -1;
    return trainer;
}

static double loss_of(kh_trainer *trainer, double weight)
{
    double nats = 0;
    kh_train_batch batch = {.tokens = tokens, .targets = targets, .rows = ROWS, .sequences = 1};
    GOOD(kh_trainer_gradient(trainer, &batch, weight, &nats));
    return nats;
}

/* Along the gradient of each tensor, which must be its norm. */
static void check_differences(kh_trainer *trainer)
{
    double most = 0;
    for (size_t i = 0; i < kh_trainer_tensor_count(trainer); i++) {
        kh_train_tensor t;
        kh_trainer_get_tensor(trainer, i, &t);
        size_t n = (size_t)t.rows * (size_t)t.cols;
        double norm = 0, at[4], step = 2e-3;
        static const double places[] = {1, -1, 2, -2};
        for (size_t j = 0; j < n; j++) norm += (double)t.gradient[j] * (double)t.gradient[j];
        norm = sqrt(norm);
        most = norm > most ? norm : most;
        if (norm < 1e-2 * most) continue;
        float *before = kh_alloc(n * sizeof *before);
        memcpy(before, t.data, n * sizeof *before);
        for (int p = 0; p < 4; p++) {
            for (size_t j = 0; j < n; j++)
                t.data[j] =
                    (float)((double)before[j] + places[p] * step * (double)t.gradient[j] / norm);
            at[p] = loss_of(trainer, 0);
        }
        memcpy(t.data, before, n * sizeof *before);
        kh_free(before);
        double found = (8 * (at[0] - at[1]) - (at[2] - at[3])) / (12 * step);
        if (fabs(found - norm) > 3e-2 * norm + 1e-3 * most)
            fail_msg("%s: the loss falls by %g along a gradient of norm %g", t.name, found, norm);
    }
    assert_true(most > 0);
}

/* Steps with B away from 0, so that A has a gradient. */
static void train(kh_trainer *trainer)
{
    double first = loss_of(trainer, 1.0 / ROWS), last = first;
    GOOD(kh_trainer_update(trainer, 0, NULL));
    for (int i = 0; i < 5; i++) {
        last = loss_of(trainer, 1.0 / ROWS);
        GOOD(kh_trainer_update(trainer, 0, NULL));
    }
    assert_true(last < first);
    loss_of(trainer, 1);
    check_differences(trainer);
}

static void check_saved(kh_trainer *trainer, const kh_model *model, const char *path)
{
    kh_lora_set *set = NULL;
    GOOD(kh_trainer_save(trainer, path, NULL));
    GOOD(kh_lora_open(&set, model->file, path));
    assert_int_equal(2 * set->count, kh_trainer_tensor_count(trainer));
    for (size_t i = 0; i < kh_trainer_tensor_count(trainer); i++) {
        kh_train_tensor t;
        kh_trainer_get_tensor(trainer, i, &t);
        char name[96];
        snprintf(name, sizeof name, "%.*s", (int)(strlen(t.name) - strlen(".lora_a")), t.name);
        const kh_lora_part *part = kh_lora_find(set, name);
        assert_non_null(part);
        const float *saved = t.name[strlen(t.name) - 1] == 'a' ? part->a : part->b;
        for (size_t j = 0; j < (size_t)t.rows * (size_t)t.cols; j++)
            assert_true(saved[j] == t.data[j]);
    }
    kh_lora_close(set);
}

static void trains_and_saves(void **state)
{
    const char *name = *state;
    char path[256], folder[] = "/tmp/kh-lora-XXXXXX", gguf[64], peft[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "tests/golden/families/%s", name);
    snprintf(gguf, sizeof gguf, "%s/adapter.gguf", folder);
    snprintf(peft, sizeof peft, "%s/peft/", folder);
    kh_model *model = open_model(path);
    kh_trainer *trainer = open_trainer(model, NULL);
    train(trainer);
    check_saved(trainer, model, gguf);
    check_saved(trainer, model, peft);
    kh_trainer_close(trainer);
    kh_model_close(model);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

/* Of a file of 8-bit blocks every matrix gets an adapter. */
static void trains_over_blocks(void **state)
{
    (void)state;
    char path[] = "/tmp/kh-lora-XXXXXX.gguf";
    int fd = mkstemps(path, 5);
    assert_true(fd >= 0);
    close(fd);
    kh_convert_options options = {.type = "Q8_0", .overwrite = 1};
    GOOD(kh_convert("tests/golden/families/llama", path, &options, NULL));
    kh_model *model = open_model(path);
    kh_trainer *trainer = open_trainer(model, "blk.*.attn_*.weight,blk.*.ffn_*.weight");
    train(trainer);
    kh_trainer_close(trainer);
    kh_model_close(model);
    unlink(path);
}

int main(void)
{
    static char llama[] = "llama", gpt2[] = "gpt2", gemma3[] = "gemma3", phi3[] = "phi3";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(trains_and_saves, llama),
        cmocka_unit_test_prestate(trains_and_saves, gpt2),
        cmocka_unit_test_prestate(trains_and_saves, gemma3),
        cmocka_unit_test_prestate(trains_and_saves, phi3),
        cmocka_unit_test(trains_over_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
