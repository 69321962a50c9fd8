/* attn/decode.h: choosing keys for few query rows over many keys, in two steps: the scores of all keys,
 * chunk by chunk, then each row's choice from its scores as a whole. Inside attn/ only. */
#ifndef KH_ATTN_DECODE_H
#define KH_ATTN_DECODE_H

#include "attn/screen.h"

struct kh_tile;

/* Scores of the rows of one task; where the screen has a page, what they are at most. */
typedef struct kh_row_scores {
    float *values; /* [R][ld] of the keys from `first` on; NULL: none */
    size_t ld, first;
    kh_screen screen;
} kh_row_scores;

/* Shadows and keys of the tile's own cache. */
extern const kh_screen_keys kh_decode_pages;

/* Scores of the tile's rows over its chunk of keys, into their places. What is wanted of all keys is
 * added to the tile's sums. */
void kh_decode_score(struct kh_tile *tile, const kh_row_scores *scores);

/* The keys that row r keeps, once all of its chunks are scored: into the first list of the tile (one
 * over all keys), ascending. Returns how many. */
size_t kh_decode_choose(struct kh_tile *tile, size_t r, const kh_row_scores *scores);

#endif
