/* ff/ff.h: what the parts of feed-forward layers on plain arrays share.
 *
 * A call works on chunks of rows; everything below belongs to the chunk in flight. Neurons are cut into
 * blocks of KH_FF_BLOCK and columns of D into panels of KH_FF_PANEL: a block's panel of a weight fills a
 * quarter of a megabyte and stays in the second cache while all rows of the chunk meet it. */
#ifndef KH_FF_FF_H
#define KH_FF_FF_H

#include "base/arena.h"
#include "cpu/pool.h"
#include "kern/ff_kern.h"
#include "kern/kern.h"

#include <keyhole/attention.h>

enum {
    KH_FF_BLOCK = 1024, /* neurons whose panel is made at once */
    KH_FF_GROUP = 48    /* rows whose scores are used while they are in the first-level cache */
};

typedef struct kh_ff_work {
    const kh_ff_args *args;
    const kh_kern *kern;
    kh_pool pool;
    size_t chunk, first, T; /* rows of a chunk; of the one in flight */
    kh_arena step, *scratch /* [threads] */;
    /* lists of kept neurons: those of row t are entries t k ... of `indices`, ascending */
    const uint32_t *indices; /* [T][k] */
    uint32_t *begin;         /* [blocks + 1][T] row t's entries of block b: begin[b T + t] to
                                begin[(b + 1) T + t] */
} kh_ff_work;

kh_status kh_ff_check(const kh_ff_args *args, const char *what);
int kh_ff_is_dense(const kh_ff_args *args);
/* Rows of a chunk: `chunk` of the arguments, or as many as have about a million kept neurons. */
size_t kh_ff_chunk(const kh_ff_args *args);
/* Threads and memory: `step` bytes for a chunk, `scratch` for each worker. */
kh_status kh_ff_open(kh_ff_work *work, const kh_ff_args *args, size_t step, size_t scratch);
void kh_ff_close(kh_ff_work *work);

static inline size_t kh_ff_blocks(const kh_ff_args *a)
{
    return (a->hidden + KH_FF_BLOCK - 1) / KH_FF_BLOCK;
}
static inline size_t kh_ff_panels(const kh_ff_args *a)
{
    return (a->width + KH_FF_PANEL - 1) / KH_FF_PANEL;
}

/* ---- activations (ff_act.c) ---- */

/* y [n] = act(x) [n] or, with `up` [n], act(x) * up; y may be x. */
void kh_ff_act_row(const kh_kern *kern, kh_ff_act act, float *y, const float *x, const float *up,
                   size_t n);
float kh_ff_slope(kh_ff_act act, float x); /* derivative */

/* ---- dense products of a block of neurons with packed rows (ff_score.c) ---- */

typedef struct kh_ff_scorer {
    const kh_ff_args *args;
    const kh_kern *kern;
    size_t neurons;            /* of a block, at most 64 */
    float *tiles;              /* [rows / 12][D][12] */
    float *panels, *up_panels; /* [neurons / 16][D][16] */
    float *scores, *up_scores; /* [KH_FF_GROUP][64]; row by row, 64 apart */
} kh_ff_scorer;

size_t kh_ff_scorer_need(const kh_ff_args *args, size_t rows);
/* Takes its memory from `scratch` and packs rows x [rows][D]. */
void kh_ff_scorer_open(kh_ff_scorer *s, const kh_ff_args *args, const kh_kern *kern,
                       kh_arena *scratch, const float *x, size_t rows);
/* Packs neurons [first, first + n); `want_up`: those of Wu, too. */
void kh_ff_scorer_block(kh_ff_scorer *s, size_t first, size_t n, int want_up);
/* Pre-activations, bias included, of `rows` <= KH_FF_GROUP rows from `row` (a multiple of 12). */
void kh_ff_scorer_group(kh_ff_scorer *s, size_t row, size_t rows, size_t first, size_t n,
                        int want_up);

/* ---- sparse products with listed neurons (ff_lists.c) ---- */

/* Fills `begin`; KH_ERR_ARGUMENT where indices do not ascend below F or counts exceed k. */
kh_status kh_ff_cut(kh_ff_work *work, const uint32_t *counts /* [T] */);
/* Rows x [T][D] as panels [D / 64][T][64], zeros beyond D. */
void kh_ff_rows_to_panels(kh_ff_work *work, float *panels, const float *x);

/* Columns [64 p, 64 p + 64) of consecutive rows w [rows][D] to a panel, zeros beyond D; and back. */
void kh_ff_copy_panel(float *panel, const float *w, size_t rows, size_t D, size_t p);
void kh_ff_copy_back(float *w, const float *panel, size_t rows, size_t D, size_t p);

/* A weight, and what stands at the entries of the lists. */
typedef struct kh_ff_pair {
    float *entries;    /* [T][k] */
    const float *w;    /* [F][D]; NULL: left out */
    const float *rows; /* panels of rows; kh_ff_dots only */
} kh_ff_pair;

/* entries = row . neuron, for each listed neuron. */
void kh_ff_dots(kh_ff_work *work, const kh_ff_pair *pairs, size_t count);
/* y [T][D] = bias + sum over the listed neurons, ascending, of entry * neuron; of `count` <= 2 pairs,
 * block by block. */
void kh_ff_mix(kh_ff_work *work, float *y, const float *bias /* [D] or NULL */,
               const kh_ff_pair *pairs, size_t count);
size_t kh_ff_lists_scratch(const kh_ff_args *args, size_t T);

/* ---- every neuron (ff_dense.c) ---- */

kh_status kh_ff_dense_forward(const kh_ff_args *args);
kh_status kh_ff_dense_backward(const kh_ff_args *args, const kh_ff_gradients *gradients);
/* y [T][D] = bias + sum of entry * neuron, as a product with zeros where nothing is listed: for long
 * lists. The same bits as kh_ff_mix. */
void kh_ff_mix_dense(kh_ff_work *work, float *y, const float *bias, const kh_ff_pair *pair);
size_t kh_ff_mix_dense_scratch(const kh_ff_args *args);

#endif
