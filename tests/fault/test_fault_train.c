/* The n-th allocation fails, for every n, of a training run from its opening to its second step, with an evaluation, a
 * checkpoint, gradients by hand and the model that it writes; and of the run that goes on from it. Each answers
 * KH_ERR_MEMORY and a sentence, leaks nothing, and works as before once there is memory again. */
#include "base/alloc.h"
#include "support/fault_case.h"
#include "support/golden_run.h"

#include <keyhole/keyhole.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/keyhole-test-XXXXXX";
static char run_folder[64], saved[64], text[64];
static kh_model *model;
static int written; /* 1: there may be a checkpoint that another run would find */

static void clear(void)
{
    char command[256];
    if (!written) return;
    written = 0;
    snprintf(command, sizeof command, "rm -rf %s %s", run_folder, saved);
    if (system(command) != 0) fail_msg("%s", command);
}

static kh_train_options options(void)
{
    static const char *const groups[] = {"*norm*:rate=0.5"};
    return (kh_train_options){.arch = "llama:layers=2,width=16,heads=2,ff=32",
                              .task = "mqar:L=16,pairs=2,vocab=32",
                              .attn = "topk:k=2..4/2",
                              .groups = groups,
                              .group_count = 1,
                              .accumulate = 2,
                              .steps = 4,
                              .threads = 1,
                              .folder = run_folder};
}

static kh_status work(const kh_train_options *o)
{
    kh_trainer *trainer = NULL;
    kh_train_report report;
    kh_status status = kh_trainer_open(&trainer, o);
    assert_true((status == KH_OK) == (trainer != NULL));
    for (int i = 0; i < 2 && status == KH_OK; i++) status = kh_trainer_step(trainer, &report);
    if (status == KH_OK) status = kh_trainer_evaluate(trainer, 1, &report);
    written |= status == KH_OK;
    if (status == KH_OK) status = kh_trainer_checkpoint(trainer);
    if (status == KH_OK) status = kh_trainer_save(trainer, saved, NULL);
    kh_trainer_close(trainer);
    return status;
}

static kh_status run(void)
{
    clear();
    kh_train_options o = options();
    return work(&o);
}

/* From the checkpoint of `run`, which is written again with the same step. */
static kh_status resume(void)
{
    kh_train_options o = options();
    o.resume = 1;
    kh_trainer *trainer = NULL;
    kh_status status = kh_trainer_open(&trainer, &o);
    kh_train_report report;
    if (status == KH_OK) status = kh_trainer_step(trainer, &report);
    if (status == KH_OK) assert_int_equal(report.step, 3);
    kh_trainer_close(trainer);
    return status;
}

static kh_status tune(void)
{
    clear();
    const char *const paths[] = {text};
    kh_train_options o = {.model = model,
                          .paths = paths,
                          .path_count = 1,
                          .valid = 0.5,
                          .length = 16,
                          .threads = 1,
                          .ff = "topk:k=8",
                          .keep_records = 1,
                          .train = "blk.*",
                          .optimizer = "sgd:momentum=0.9",
                          .folder = run_folder};
    return work(&o);
}

static kh_status by_hand(void)
{
    static const int32_t tokens[] = {1, 2, 3, 4, 5}, targets[] = {2, 3, -1, 5, 6};
    static const size_t lengths[] = {3, 2};
    const kh_train_batch batch = {
        .tokens = tokens, .targets = targets, .lengths = lengths, .rows = 5, .sequences = 2};
    kh_train_options o = options();
    o.task = NULL;
    o.arch = "qwen3:layers=1,width=16,heads=2,ff=32,vocabulary=32";
    o.folder = NULL;
    o.length = 8;
    kh_trainer *trainer = NULL;
    double nats = 0, norm = 0;
    kh_status status = kh_trainer_open(&trainer, &o);
    if (status == KH_OK) status = kh_trainer_gradient(trainer, &batch, 0.25, &nats);
    if (status == KH_OK) status = kh_trainer_update(trainer, 0, &norm);
    if (status == KH_OK) status = kh_trainer_gradient(trainer, &batch, 0, &nats);
    kh_trainer_close(trainer);
    return status;
}

/* A teacher of its own, which is opened, asked and closed. */
static kh_status taught(void)
{
    const char *const paths[] = {text};
    static char teacher[512];
    snprintf(teacher, sizeof teacher, "%s", golden_path("tiny/llama.gguf"));
    kh_train_options o = {.model = model,
                          .paths = paths,
                          .path_count = 1,
                          .length = 16,
                          .threads = 1,
                          .attn = "topk:k=2",
                          .distill = "kl=1,temperature=2,map=1,relation=1,rows=8",
                          .teacher = teacher};
    kh_trainer *trainer = NULL;
    kh_train_report report;
    kh_status status = kh_trainer_open(&trainer, &o);
    if (status == KH_OK) status = kh_trainer_step(trainer, &report);
    if (status == KH_OK) assert_true(report.distill > 0);
    kh_trainer_close(trainer);
    return status;
}

FAULT_TEST(run, 20)
FAULT_TEST(resume, 20)
FAULT_TEST(tune, 20)
FAULT_TEST(by_hand, 20)
FAULT_TEST(taught, 20)

static int open_all(void **state)
{
    (void)state;
    if (!mkdtemp(folder) || kh_model_open(&model, golden_path("tiny/llama.gguf")) != KH_OK)
        return 1;
    snprintf(run_folder, sizeof run_folder, "%s/run", folder);
    snprintf(saved, sizeof saved, "%s/model.gguf", folder);
    snprintf(text, sizeof text, "%s/text.jsonl", folder);
    FILE *file = fopen(text, "w");
    if (!file) return 1;
    for (int i = 0; i < 9; i++)
        fprintf(file, "{\"text\": \"Line %d: the lake was still, and a bird sang.\"}\n", i);
    return fclose(file);
}

static int close_all(void **state)
{
    char command[256];
    (void)state;
    kh_model_close(model);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failing_run),    cmocka_unit_test(failing_resume),
        cmocka_unit_test(failing_tune),   cmocka_unit_test(failing_by_hand),
        cmocka_unit_test(failing_taught),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
