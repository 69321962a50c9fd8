/* Exact top-k attention on plain arrays, compared with full attention: how much of the softmax the
 * kept keys hold, and how far the outputs are apart. Only the public header is used. */
// run:
#include <keyhole/attention.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEADS = 4, KEY_HEADS = 2, LENGTH = 1000, WIDTH = 64, SIZE = HEADS * LENGTH * WIDTH };

static float q[SIZE], k[SIZE], v[SIZE], full[SIZE], kept[SIZE];

static float noise(void)
{
    static unsigned state = 1;
    float sum = -6;
    for (int i = 0; i < 12; i++)
        sum += (float)((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-24f;
    return sum;
}

int main(void)
{
    static const char *const settings[] = {"topk:k=8", "topk:k=64", "topk:k=64,tail=mean",
                                           "window:recent=64", "topk:k=1000"};
    for (int i = 0; i < SIZE; i++) {
        q[i] = 2 * noise();
        k[i] = noise();
        v[i] = noise();
    }
    kh_attention_args args = {.batch = 1,
                              .heads = HEADS,
                              .key_heads = KEY_HEADS,
                              .width = WIDTH,
                              .queries = LENGTH,
                              .keys = LENGTH,
                              .q = q,
                              .k = k,
                              .v = v,
                              .out = full};
    kh_status status = kh_attention_forward(&args);
    args.out = kept;
    printf("%-22s %10s %10s %10s\n", "attention", "keys kept", "kept mass", "difference");
    for (int i = 0; !status && i < 5; i++) {
        kh_attention_stats stats;
        args.attn = settings[i];
        args.stats = &stats;
        status = kh_attention_forward(&args);
        double sum = 0;
        for (int j = 0; j < SIZE; j++) sum += pow((double)full[j] - (double)kept[j], 2);
        if (!status)
            printf("%-22s %10.1f %10.4f %10.2e\n", settings[i], stats.keys_kept / stats.rows,
                   stats.kept_mass / stats.rows, sqrt(sum / SIZE));
    }
    if (status) fprintf(stderr, "%s\n", kh_last_error());
    return kh_status_exit(status);
}
