/* Trains a toy model with the library's own hands: forward, backward, the optimiser.
 *
 *     train_toy
 *
 * A decoder of two layers learns to copy: the second half of every sequence repeats the first, so a row can predict
 * its successor by looking back. Top-k attention keeps four keys a row, which is enough for it. */
// run:
#include <keyhole/keyhole.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { HALF = 16, ROWS = 2 * HALF, SEQUENCES = 16, VOCABULARY = 32, STEPS = 300 };

static uint32_t random_below(uint32_t n)
{
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return (state >> 16) % n;
}

/* Targets are the next tokens, wanted where they can be known. */
static void make_batch(int32_t *tokens, int32_t *targets)
{
    for (int s = 0; s < SEQUENCES; s++, tokens += ROWS, targets += ROWS) {
        for (int t = 0; t < HALF; t++) tokens[t] = (int32_t)random_below(VOCABULARY);
        for (int t = HALF; t < ROWS; t++) tokens[t] = tokens[t - HALF];
        for (int t = 0; t < ROWS; t++)
            targets[t] = t < HALF - 1 || t == ROWS - 1 ? -1 : tokens[t + 1];
    }
}

static int fail(void)
{
    fprintf(stderr, "train_toy: %s\n", kh_last_error());
    return EXIT_FAILURE;
}

int main(void)
{
    static int32_t tokens[SEQUENCES * ROWS], targets[SEQUENCES * ROWS];
    size_t lengths[SEQUENCES];
    kh_train_options options = {.arch = "llama:layers=2,width=64,heads=4,ff=128,vocabulary=32,"
                                        "context=32",
                                .attn = "topk:k=4",
                                .length = ROWS,
                                .batch = SEQUENCES,
                                .schedule = "constant",
                                .rate = 3e-3,
                                .steps = STEPS,
                                .keep_records = 1};
    for (int s = 0; s < SEQUENCES; s++) lengths[s] = ROWS;
    kh_trainer *trainer = NULL;
    if (kh_trainer_open(&trainer, &options)) return fail();
    for (int step = 1; step <= STEPS; step++) {
        double nats = 0, norm = 0, wanted = SEQUENCES * HALF;
        make_batch(tokens, targets);
        kh_train_batch batch = {.tokens = tokens,
                                .targets = targets,
                                .lengths = lengths,
                                .rows = SEQUENCES * ROWS,
                                .sequences = SEQUENCES};
        if (kh_trainer_gradient(trainer, &batch, 1 / wanted, &nats) ||
            kh_trainer_update(trainer, 0, &norm)) {
            kh_trainer_close(trainer);
            return fail();
        }
        if (step % 50 == 0) printf("step %3d   loss %.4f   norm %.3f\n", step, nats / wanted, norm);
    }
    kh_trainer_close(trainer);
    return EXIT_SUCCESS;
}
