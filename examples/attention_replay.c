/* A backward pass that keeps which keys each row read and forgets the output: two bytes a kept key in the
 * place of four a number. The output is made again, selecting nothing, and the gradients are the same but
 * for rounding. Only the public header is used. */
// run:
#include <keyhole/attention.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 2, LENGTH = 600, WIDTH = 64, KEPT = 16, SIZE = HEADS * LENGTH * WIDTH };
enum { ROWS = HEADS * LENGTH };

static float q[SIZE], k[SIZE], v[SIZE], out[SIZE], dout[SIZE], dq[SIZE], before[2][SIZE];
static uint16_t indices[ROWS * KEPT];
static uint32_t counts[ROWS];
static float m[ROWS], u[ROWS];

static float noise(void)
{
    static unsigned state = 1;
    float sum = -6;
    for (int i = 0; i < 12; i++)
        sum += (float)((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-24f;
    return sum;
}

static double farthest(const float *a, const float *b)
{
    double most = 0;
    for (int i = 0; i < SIZE; i++) most = fmax(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

int main(void)
{
    for (int i = 0; i < SIZE; i++) {
        q[i] = noise();
        k[i] = noise();
        v[i] = noise();
        dout[i] = noise();
    }
    kh_attention_saved saved = {KEPT, indices, counts, m, u};
    kh_attention_args args = {.batch = 1,
                              .heads = HEADS,
                              .width = WIDTH,
                              .queries = LENGTH,
                              .keys = LENGTH,
                              .q = q,
                              .k = k,
                              .v = v,
                              .out = out,
                              .attn = "topk:k=16",
                              .saved = &saved};
    kh_attention_gradients gradients = {.dout = dout, .dq = dq};
    kh_status status = kh_attention_forward(&args);
    if (!status) status = kh_attention_backward(&args, &gradients);
    memcpy(before[0], out, sizeof out);
    memcpy(before[1], dq, sizeof dq);

    memset(out, 0, sizeof out); /* forgotten */
    if (!status) status = kh_attention_replay(&args);
    if (!status) status = kh_attention_backward(&args, &gradients);
    if (status) {
        fprintf(stderr, "%s\n", kh_last_error());
        return kh_status_exit(status);
    }
    double y = farthest(out, before[0]), g = farthest(dq, before[1]);
    printf("kept: %zu bytes, the output has %zu\n", sizeof indices + sizeof counts + 2 * sizeof m,
           sizeof out);
    printf("largest difference: output %.1e, gradient of the queries %.1e\n", y, g);
    return y < 1e-4 && g < 1e-4 ? 0 : 1;
}
