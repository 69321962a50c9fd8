/* Training through exact top-k attention, with the public header alone: queries and keys are moved down
 * the gradient until attention finds, for every query, the value that it should. */
// run:
#include <keyhole/attention.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEADS = 2, LENGTH = 300, WIDTH = 32, SIZE = HEADS * LENGTH * WIDTH, STEPS = 40 };

static float q[SIZE], k[SIZE], v[SIZE], out[SIZE], wanted[SIZE];
static float dout[SIZE], dq[SIZE], dk[SIZE], dv[SIZE];

static float noise(void)
{
    static unsigned state = 1;
    float sum = -6;
    for (int i = 0; i < 12; i++)
        sum += (float)((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-24f;
    return sum;
}

/* Room for what the backward pass needs of the forward pass. */
static int prepare(const kh_attention_args *args, kh_attention_saved *saved)
{
    if (kh_attention_kept(args, &saved->kept)) return 0;
    size_t rows = (size_t)args->heads * args->queries;
    saved->indices = malloc(rows * saved->kept * (args->keys > 65536 ? 4 : 2));
    saved->counts = malloc(rows * sizeof *saved->counts);
    saved->m = malloc(rows * sizeof *saved->m);
    saved->u = malloc(rows * sizeof *saved->u);
    return saved->indices && saved->counts && saved->m && saved->u;
}

int main(void)
{
    for (int i = 0; i < SIZE; i++) {
        q[i] = noise();
        k[i] = noise();
        v[i] = noise();
    }
    for (int i = 0; i < SIZE; i++)
        wanted[i] = v[(i / (LENGTH * WIDTH) * LENGTH + i / WIDTH % LENGTH / 2) * WIDTH + i % WIDTH];
    kh_attention_saved saved = {0};
    kh_attention_args args = {.batch = 1,
                              .heads = HEADS,
                              .width = WIDTH,
                              .queries = LENGTH,
                              .keys = LENGTH,
                              .q = q,
                              .k = k,
                              .v = v,
                              .out = out,
                              .attn = "topk:k=16"};
    kh_attention_gradients gradients = {.dout = dout, .dq = dq, .dk = dk, .dv = dv};
    if (!prepare(&args, &saved)) return 1;
    args.saved = &saved;
    kh_status status = KH_OK;
    double first = 0, loss = 0;
    for (int step = 0; !status && step <= STEPS; step++) {
        status = kh_attention_forward(&args);
        loss = 0;
        for (int i = 0; i < SIZE; i++) {
            dout[i] = out[i] - wanted[i];
            loss += 0.5 * (double)dout[i] * (double)dout[i] / SIZE;
        }
        if (!status) status = kh_attention_backward(&args, &gradients);
        for (int i = 0; i < SIZE; i++) {
            q[i] -= 0.3f * dq[i];
            k[i] -= 0.3f * dk[i];
        }
        if (step == 0) first = loss;
        if (step % 10 == 0) printf("step %3d  loss %.4f\n", step, loss);
    }
    if (status) fprintf(stderr, "%s\n", kh_last_error());
    free(saved.indices);
    free(saved.counts);
    free(saved.m);
    free(saved.u);
    if (status) return kh_status_exit(status);
    return loss < 0.7 * first ? 0 : 1;
}
