/* run/run.h: what an op sees: the run, the batch and the optional companions. */
#ifndef KH_RUN_RUN_H
#define KH_RUN_RUN_H

#include "base/arena.h"
#include "base/rng.h"
#include "cpu/pool.h"
#include "kern/kern.h"
#include "run/probe.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct kh_kv;
struct kh_attn_plan;
struct kh_attn_save;
struct kh_attn_drop;
struct kh_attn_watch;
struct kh_ff_plan;
struct kh_tape;

/* Consecutive rows of a batch that belong to one sequence and have consecutive positions. */
typedef struct kh_span {
    int seq;          /* index into kh_run.kv_self */
    size_t row, rows; /* rows [row, row + rows) of the batch */
    int32_t position; /* of the first row */
} kh_span;

typedef struct kh_batch {
    size_t n;                /* T: rows */
    const int32_t *tokens;   /* [T] */
    const int32_t *position; /* [T] */
    const int32_t *types; /* [T] which text of a pair, for models that tell them apart; else NULL */
    const kh_span *spans; /* [span_count], rows ascending, covering all */
    size_t span_count;
    const uint32_t *logit_rows; /* [logit_count] rows whose logits are wanted, ascending */
    size_t logit_count;
} kh_batch;

/* What a decoder attends to where keys and values are computed in every pass anew, which training does. */
typedef struct kh_source_rows {
    const float *rows; /* [n][D] of an encoder */
    size_t n;
    const kh_span *spans; /* [span_count of the batch]: the rows that each of its spans sees */
} kh_source_rows;

enum kh_compute {
    KH_COMPUTE_DEFAULT, /* activations in f32; fused kernels read the file's blocks */
    KH_COMPUTE_F32,     /* the same numbers without fused kernels: weights unpacked first */
    KH_COMPUTE_Q8       /* activations in 8 bits, integer kernels */
};

enum kh_phase { KH_PHASE_PREFILL, KH_PHASE_DECODE };

typedef struct kh_run {
    kh_arena *step; /* activations, rewound per layer */
    const kh_pool *pool;
    kh_arena *scratch; /* [pool->threads]: per-worker scratch, sized by the plan */
    const kh_kern *kern;
    const kh_batch *batch;
    enum kh_phase phase;    /* which half of the attention plan applies */
    struct kh_kv **kv_self; /* per sequence */
    int one_layer; /* 1: caches have one layer, which all write in turn: nothing is decoded behind the pass */
    struct kh_kv **kv_cross; /* the same behind an encoder: its keys and values; else NULL */
    const kh_source_rows
        *source; /* NULL, or kv_cross has one layer, which its rows are written into */
    int beyond; /* 1: rotary positions of contexts beyond the original one, where a model has them */
    const struct kh_attn_plan *attn;
    const struct kh_attn_save *save; /* NULL unless a backward pass of attention follows */
    const struct kh_attn_drop *drop; /* NULL, or the dropout of attention's weights */
    float attn_dropout;          /* the same for a run with a tape, which makes `drop` from `key` */
    const struct kh_ff_plan *ff; /* NULL: every neuron of the feed-forward layers */
    struct kh_tape *tape;        /* NULL unless training */
    const struct kh_attn_watch *watch; /* NULL, or who is told what attention reads (attn/attn.h) */
    const kh_probe *probe;             /* NULL unless someone looks or edits */
    const kh_probe *
        gradients; /* NULL, or who is told the derivative by what a point held, when the tape is taken
                                  back: points with all rows at once, which those of neurons are not */
    kh_rng_key key; /* dropout: (seed, step) */
    enum kh_compute compute;
    struct kh_attn_stats *stats; /* NULL unless asked for */
    double *attention_seconds;   /* NULL, or what the time of the attention op is added to */
    atomic_bool *stop;           /* NULL, or read between layers */
} kh_run;

#endif
