/* attn/measure.h: attention by brute force, to measure the methods by: which keys should have been
 * kept, and what their output is in double precision. For tests and benchmarks. */
#ifndef KH_ATTN_MEASURE_H
#define KH_ATTN_MEASURE_H

#include "attn/attn.h"

/* Keys and values of positions [0, S) of one key head as the cache gives them back. */
void kh_attn_unpack(const kh_kv *kv, int layer, int g, size_t S, float *k /* [S][E] */,
                    float *v /* [S][E] */);

/* One query row; the caller owns the memory. */
typedef struct kh_attn_truth {
    float *scores;    /* [S] q.k of every visible key: one fma a step, in the kernels' order */
    uint32_t *keys;   /* [S] the kept keys, ascending */
    double *weights;  /* [S] of the kept keys */
    double *z;        /* [E] */
    size_t count;     /* kept keys */
    double kept_mass; /* their share of the softmax over all visible keys */
} kh_attn_truth;

/* Fills `truth` for a query at `position` of a sequence of S keys (which order KH_ATTN_ALL_KEYS sees
 * all of). Any method of the table. */
void kh_attn_brute_row(kh_attn_truth *truth, const kh_attn_layer *layer,
                       const kh_attn_setting *setting, const float *q /* [E] */,
                       const float *k /* [S][E] */, const float *v /* [S][E] */, size_t position,
                       size_t S);

/* The share of `truth` (ascending) that `got` (ascending) holds; 1 when truth is empty. */
double kh_attn_recall(const uint32_t *got, size_t n, const uint32_t *truth, size_t m);

#endif
