/* support/attn_case.h: attention on made-up data, for the property tests.
 *
 * A case is a problem: shapes, cache type, a setting, and queries, keys and values for S positions.
 * attn_run() pushes all of it through kh_attn_forward in batches, and keeps what came out. */
#ifndef KH_TESTS_ATTN_CASE_H
#define KH_TESTS_ATTN_CASE_H

#include "attn/attn.h"
#include "attn/measure.h"
#include "attn/method.h"

typedef struct attn_case {
    const char *spec;
    int E, H, G;
    size_t S;
    size_t cached; /* positions of the first batch; its rows are attended too */
    size_t step;   /* rows of each later batch; 0: all in one */
    int window;
    float softcap, scale; /* scale 0: 1/sqrt(E) */
    kh_type type;
    int shadow;  /* 1: the cache keeps a shadow of its keys */
    int threads; /* 0: 1 */
    kh_isa isa;
    int want_rows, want_mass;
    const float *q /* [S][H][E] */, *k /* [S][G][E] */, *v;
} attn_case;

typedef struct attn_kept {
    size_t count;
    uint32_t *keys;
    float *weights;
    float m, u;
} attn_kept;

typedef struct attn_result {
    float *z;        /* [S][H][E] */
    attn_kept *rows; /* [S][H], if they were wanted */
    float *k, *v;    /* [G][S][E] as the cache gives them back */
    size_t delivered;
    kh_attn_stats stats;
    kh_attn_layer layer;
    kh_attn_plan *plan;
    size_t calls; /* heap allocations between the first batch and the last */
} attn_result;

/* Aborts the program with a sentence when a call fails. */
attn_result *attn_run(const attn_case *c);
void attn_free(attn_result *result, const attn_case *c);

/* S x G x E normal numbers; keys of a few directions, so that scores differ in size. */
float *attn_numbers(size_t n, uint64_t seed, float size);

/* The largest |a - b| / (1 + |b|); NaN in only one of them counts as infinite. */
double attn_distance(const float *a, const float *b, size_t n);

#endif
