/* Decoding over keys and values in plain arrays, as a loop that appends one position a step: exact top-k with
 * and without an int8 shadow of the keys, which gives the same bits. Only the public header is used. */
// run:
#include <keyhole/attention.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 6, KEY_HEADS = 2, WIDTH = 64, LENGTH = 4096, STEPS = 80 };

static float q[HEADS * WIDTH], k[LENGTH * KEY_HEADS * WIDTH], v[LENGTH * KEY_HEADS * WIDTH];
static float plain[HEADS * WIDTH], shadowed[HEADS * WIDTH];

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
    size_t row = KEY_HEADS * WIDTH, bytes;
    kh_attention_shadow shadow = {.capacity = LENGTH};
    bytes = kh_attention_shadow_bytes(1, KEY_HEADS, WIDTH, LENGTH);
    shadow.memory = malloc(bytes);
    if (!shadow.memory) return 1;
    for (size_t i = 0; i < LENGTH * row; i++) k[i] = noise();
    for (size_t i = 0; i < LENGTH * row; i++) v[i] = noise();
    kh_attention_decode_args args = {.batch = 1,
                                     .heads = HEADS,
                                     .key_heads = KEY_HEADS,
                                     .width = WIDTH,
                                     .q = q,
                                     .k = k,
                                     .v = v,
                                     .attn = "topk:k=64"};
    kh_status status = KH_OK;
    int equal = 0;
    for (int step = 1; step <= STEPS && !status; step++) {
        for (int i = 0; i < HEADS * WIDTH; i++) q[i] = noise();
        args.keys = (size_t)(LENGTH - STEPS + step); /* the step's own key and value are there */
        args.out = plain;
        args.shadow = NULL;
        status = kh_attention_decode(&args);
        if (!status) status = kh_attention_shadow_extend(&shadow, &args);
        args.out = shadowed;
        args.shadow = &shadow;
        if (!status) status = kh_attention_decode(&args);
        equal += !memcmp(plain, shadowed, sizeof plain);
    }
    if (status) {
        fprintf(stderr, "%s\n", kh_last_error());
        return kh_status_exit(status);
    }
    printf("%d of %d steps with equal bits; keys of %zu bytes, their shadow of %zu\n", equal, STEPS,
           sizeof k, bytes);
    free(shadow.memory);
    return equal == STEPS ? 0 : 1;
}
