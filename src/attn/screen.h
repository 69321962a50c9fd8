/* attn/screen.h: choosing keys through the shadow of their pages. Inside attn/ only. */
#ifndef KH_ATTN_SCREEN_H
#define KH_ATTN_SCREEN_H

#include "kern/shadow_kern.h"

struct kh_tile;

/* Where the keys behind the shadows are. */
typedef struct kh_screen_keys {
    const void *(*shadow)(const struct kh_tile *tile, const void *context, size_t p);
    /* values [n]: the scores of row r and these keys, in the bits of the ordinary kernel */
    void (*score)(const struct kh_tile *tile, const void *context, size_t r,
                  const uint32_t *positions /* [n] */, size_t n, float *values);
} kh_screen_keys;

/* The queries of a task as shadows read them. */
typedef struct kh_screen {
    const kh_screen_keys *keys;
    const void *context;
    int16_t *q;   /* [R][W]; NULL: no page is read through its shadow */
    float *steps; /* [R][2]: step, norm */
    size_t pages; /* pages [0, pages) are whole */
} kh_screen;

/* One query x [E] in 15 bits, rotated: q [W], steps [2]. 0 where no bound can be given. */
int kh_screen_query(int16_t *q, float *steps, const float *x, size_t E);

/* What is certain of one key: its score is at least this. */
static inline float kh_screen_lower(float upper, float norm, float error)
{
    float size = upper < 0 ? -upper : upper;
    return upper - 2.0001f * norm * error - 3e-7f * size;
}

#endif
