/* A feed-forward layer that keeps k of its neurons for each token, compared with the dense layer: how far
 * the outputs are apart, for each ranking rule, and one gradient step from the kept neurons alone. Only
 * the public header is used. */
// run:
#include <keyhole/attention.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { TOKENS = 64, WIDTH = 48, NEURONS = 384, SIZE = TOKENS * WIDTH, WEIGHTS = NEURONS * WIDTH };

static float x[SIZE], gate[WEIGHTS], up[WEIGHTS], out[WEIGHTS], dense[SIZE], kept[SIZE];
static float dy[SIZE], dgate[WEIGHTS], dup[WEIGHTS], dout[WEIGHTS];
static uint32_t indices[TOKENS * NEURONS], counts[TOKENS];

static float noise(void)
{
    static unsigned state = 1;
    float sum = -6;
    for (int i = 0; i < 12; i++)
        sum += (float)((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-24f;
    return sum;
}

static void fill(float *to, int n, float size)
{
    for (int i = 0; i < n; i++) to[i] = size * noise();
}

static double distance(void)
{
    double sum = 0, all = 0;
    for (int i = 0; i < SIZE; i++) {
        sum += pow((double)dense[i] - (double)kept[i], 2);
        all += pow((double)dense[i], 2);
    }
    return sqrt(sum / all);
}

int main(void)
{
    static const char *const rules[] = {"gate", "magnitude", "norm"};
    fill(x, SIZE, 1);
    fill(gate, WEIGHTS, 0.15f);
    fill(up, WEIGHTS, 0.15f);
    fill(out, WEIGHTS, 0.05f);
    for (int i = 0; i < WEIGHTS; i++) out[i] *= (float)(1 + i / WIDTH % 4); /* unequal vectors */
    kh_ff_args args = {.rows = TOKENS,
                       .width = WIDTH,
                       .hidden = NEURONS,
                       .act = KH_FF_SILU,
                       .x = x,
                       .in = gate,
                       .up = up,
                       .out = out,
                       .y = dense};
    kh_status status = kh_ff_topk_forward(&args); /* k = 0: every neuron */
    args.y = kept;
    printf("%-10s %6s %12s\n", "rule", "k", "distance");
    for (int rule = 0; rule < 3; rule++)
        for (size_t k = 24; !status && k <= NEURONS; k *= 4) {
            args.rule = (kh_ff_rule)rule;
            args.k = k;
            status = kh_ff_topk_forward(&args);
            printf("%-10s %6zu %12.4f\n", rules[rule], k, distance());
        }

    /* One step towards the dense output: the loss is |kept - dense|^2 / 2, so dy is their difference. */
    args.k = 96;
    args.indices = indices;
    args.counts = counts;
    if (!status) status = kh_ff_topk_forward(&args);
    double before = distance();
    for (int i = 0; i < SIZE; i++) dy[i] = kept[i] - dense[i];
    kh_ff_gradients gradients = {.dy = dy, .din = dgate, .dup = dup, .dout = dout};
    if (!status) status = kh_ff_topk_backward(&args, &gradients);
    for (int i = 0; i < WEIGHTS; i++) {
        gate[i] -= 0.002f * dgate[i];
        up[i] -= 0.002f * dup[i];
        out[i] -= 0.002f * dout[i];
    }
    if (!status) status = kh_ff_topk_forward(&args);
    if (!status) printf("after one step: %.4f -> %.4f\n", before, distance());
    if (status) fprintf(stderr, "%s\n", kh_last_error());
    return status ? kh_status_exit(status) : distance() < before ? 0 : 1;
}
