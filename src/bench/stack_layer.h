/* bench/stack_layer.h: a layer of a transformer on plain arrays: attention with its four projections and a
 * feed-forward layer, forward and backward, in memory that the chunk sets.
 *
 *     x1 = x + O attention(Q n, K n, V n), n = norm(x)          y = x1 + ff(norm(x1))
 *
 * norm is x / sqrt(mean(x^2) + 1e-6). The trainer's block in the little: random weights, no biases. */
#ifndef KH_BENCH_STACK_LAYER_H
#define KH_BENCH_STACK_LAYER_H

#include "cpu/pool.h"
#include "kern/kern.h"
#include "ops/heads.h"

#include <keyhole/attention.h>

typedef struct kh_stack_shape {
    size_t L, F, chunk; /* F 0: attention alone; rows of projections and feed-forward at a time */
    int heads, key_heads, width;
    const char *attn; /* one setting for all heads */
    kh_attention_mask mask;
    size_t keep; /* of F; 0: all */
    kh_ff_act act;
    int threads, backward; /* backward 1: kh_stack_layer_backward will be called */
} kh_stack_shape;

/* The weights of a layer, or their gradients. D = H E. */
typedef struct kh_stack_weights {
    float *qkv; /* [H + 2 G][E][D]: Q, K, V */
    float *o;   /* [H][E][D]: the transpose of the output projection */
    float *in;  /* [F][D] */
    float *out; /* [F][D] */
} kh_stack_weights;

/* Memory that all layers use in turn. */
typedef struct kh_stack {
    kh_stack_shape shape;
    size_t D, E, H, G;
    size_t group; /* key heads that are in memory at a time: a divisor of G */
    size_t kept;  /* K of kh_attention_saved */
    kh_pool pool;
    const kh_kern *kern;
    kh_heads heads;
    float *arrays;                   /* one block for the next eight */
    float *q, *k, *v, *z;            /* [heads of the group][L][E] */
    float *dq, *dk, *dv, *dz;        /* the same; NULL without backward */
    kh_head *list;                   /* the group's heads, as the projection in flight needs them */
    float *n, *t;                    /* [C][D] */
    uint32_t *indices, *counts;      /* [C][keep], [C] */
    const kh_stack_weights *w, *g;   /* of the call in flight, as are the next ones */
    const float *x, *dy;             /* [L][D] */
    float *y, *d;                    /* [L][D] */
    const float *upstream;           /* [L][D] of attention's output */
    const kh_attention_saved *saved; /* NULL: forward alone */
    int chosen;                      /* 1: saved holds the choice of keys */
    size_t at;                       /* first key head of the group in flight */
    size_t loaded;                   /* of the one whose q, k, v, z are in memory; G: none */
} kh_stack;

/* KH_ERR_ARGUMENT for shapes and settings that make no sense; ask before opening. */
kh_status kh_stack_check(const kh_stack_shape *shape);
/* Close it in any case. KH_ERR_ARGUMENT, KH_ERR_MEMORY. */
kh_status kh_stack_open(kh_stack *stack, const kh_stack_shape *shape);
void kh_stack_close(kh_stack *stack);

/* What backward needs beside the layer's input: the keys that its rows kept. Bytes are added to *bytes; free
 * it with kh_free_saved. */
kh_status kh_stack_saved_open(const kh_stack *stack, kh_attention_saved *saved, uint64_t *bytes);

/* y [L][D] from x [L][D]; `saved` NULL or of this layer. */
kh_status kh_stack_layer_forward(kh_stack *stack, const kh_stack_weights *w, float *y,
                                 const float *x, const kh_attention_saved *saved);

/* dx [L][D] from dy; gradients are added to. `d` [L][D] is room, which may be dy's own (NULL without a
 * feed-forward layer). `chosen` 1: `saved` is as the layer's forward left it; 0: keys are chosen again. */
kh_status kh_stack_layer_backward(kh_stack *stack, const kh_stack_weights *w,
                                  const kh_stack_weights *g, float *dx, const float *dy, float *d,
                                  const float *x, const kh_attention_saved *saved, int chosen);

#endif
