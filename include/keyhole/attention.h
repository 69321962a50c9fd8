/* keyhole/attention.h: attention on plain arrays: full, windowed or exact top-k, on the processor.
 *
 *     out[b][h][t] = sum over kept j of p_j v[b][g][j],  p = softmax over kept j of scale * q[b][h][t] . k[b][g][j]
 *
 * where g = h / (H / G). Without a model; memory beyond the arrays is a copy of the keys and values of
 * some heads (16 MiB, or of one head; of all heads where they have settings of their own), never T S. */
#ifndef KEYHOLE_ATTENTION_H
#define KEYHOLE_ATTENTION_H

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum kh_attention_mask {
    KH_ATTENTION_CAUSAL, /* the queries are the last T of S positions: row t sees keys [0, S - T + t] */
    KH_ATTENTION_FREE /* every row sees all S keys */
} kh_attention_mask;

/* Distances in elements. All zero: packed, as the array's shape says. The last axis is always dense. */
typedef struct kh_attention_stride {
    size_t batch, head, row;
} kh_attention_stride;

typedef struct kh_attention_stats {
    double rows;      /* (query row, head) pairs */
    double keys_seen; /* visible keys, summed over the rows */
    double keys_kept; /* keys that entered a softmax, summed */
    double
        kept_mass; /* share of the full softmax that they hold, summed; costs every exponential */
} kh_attention_stats;

/* What the backward pass needs of a forward pass. All arrays are the caller's; kh_attention_kept says how
 * large they are. Indices take 16 bits while there are at most 65,536 keys, else 32. Settings that keep
 * ranges of keys (full, window) have 0 kept entries and recompute their scores from m and u. */
typedef struct kh_attention_saved {
    size_t kept;      /* K: entries a row; set by the caller to kh_attention_kept(args) */
    void *indices;    /* [B][H][T][K] uint16_t or uint32_t, ascending; NULL when K is 0 */
    uint32_t *counts; /* [B][H][T] entries in use; NULL when K is 0 */
    float *m;         /* [B][H][T] the largest kept score, scaled */
    float *u;         /* [B][H][T] sum of exp(score - m) over the kept keys; 0: no key was seen */
} kh_attention_saved;

/* Dropout on the weights after the softmax, by a counter: the same (seed, step, layer) gives the same
 * mask whatever the cut into blocks or threads. */
typedef struct kh_attention_dropout {
    float rate; /* 0 .. below 1; 0: none */
    uint64_t seed, step;
    int layer;
} kh_attention_dropout;

/* What is added to scaled scores before keys are chosen. */
typedef struct kh_attention_bias {
    const uint8_t
        *key_mask; /* [B][S] 0: no row of the batch entry sees the key; NULL: all are seen */
    const float *relative; /* [H][buckets] by T5's bucket of (key - query); NULL: none. Half of the
                              * buckets are for later keys where the mask is free, none where causal */
    int buckets;           /* of `relative`; even */
    int max_distance;      /* from here on all distances share the last bucket */
    const float *slopes;   /* [H] ALiBi: -slope * |key - query| is added; NULL: none */
} kh_attention_bias;

typedef struct kh_attention_args {
    int batch;            /* B */
    int heads, key_heads; /* H, G; H is a multiple of G; G 0: H */
    int width;            /* E */
    size_t queries, keys; /* T, S */
    const float *q;       /* [B][H][T][E] */
    const float *k;       /* [B][G][S][E] */
    const float *v;       /* [B][G][S][E] */
    float *out;           /* [B][H][T][E] */
    kh_attention_stride q_stride, k_stride, v_stride, out_stride;
    const char
        *attn; /* NULL: "full"; "topk:k=64", "window:recent=256,sinks=4" ...: docs/attention.md */
    kh_attention_mask mask;
    float scale;               /* 0: 1 / sqrt(E) */
    float softcap;             /* 0: none; else scores become cap * tanh(score / cap) */
    int window;                /* 0: none; else a row sees its last `window` keys only (causal) */
    int threads;               /* 0: all processors that the process may use */
    kh_attention_stats *stats; /* NULL, or receives the sums */
    kh_attention_saved *saved; /* NULL, or receives what kh_attention_backward needs */
    kh_attention_dropout dropout;
    const kh_attention_bias *bias; /* NULL: none */
} kh_attention_args;

/* KH_ERR_ARGUMENT with a sentence for shapes or settings that make no sense, KH_ERR_MEMORY; `out` may
 * then be partly written. Results do not depend on the number of threads. Keys whose score is NaN or
 * -infinity have no weight; a row without any key gives 0. */
KH_API kh_status kh_attention_forward(const kh_attention_args *args);

/* K of kh_attention_saved for these shapes and this setting: 0 for ranges, at most `keys`. */
KH_API kh_status kh_attention_kept(const kh_attention_args *args, size_t *kept);

/* Writes `out` once more from args->saved, as kh_attention_forward(args) filled it, for a backward pass
 * that did not keep `out`: O(T K), nothing is chosen again. Settings that keep ranges attend again. The
 * same numbers but for rounding; the same bits for any number of threads. Saved indices that forward
 * cannot have written are KH_ERR_ARGUMENT; so is tail=mean. */
KH_API kh_status kh_attention_replay(const kh_attention_args *args);

/* Gradients, packed or with the strides of their counterparts (dq as q, dk as k, dv as v, dout as out). */
typedef struct kh_attention_gradients {
    const float *dout; /* [B][H][T][E] of the loss with respect to `out` */
    float *dq;         /* [B][H][T][E] written; each may be NULL */
    float *dk, *dv;    /* [B][G][S][E] written */
    float *
        drelative; /* [H][buckets] written: of bias->relative, summed over the batch in a fixed order */
} kh_attention_gradients;

/* The gradients of kh_attention_forward(args), whose `saved` it filled; args->out still holds what it
 * wrote. The choice of keys is a constant: nothing reaches a key that was not kept, or that had no
 * weight. Costs O(T K) where keys were chosen and O(T S) for ranges; never forms T x S. Settings with
 * tail=mean are KH_ERR_ARGUMENT. The same bits for any number of threads. */
KH_API kh_status kh_attention_backward(const kh_attention_args *args,
                                       const kh_attention_gradients *gradients);

/* ---- decoding: one query row a head over keys and values where they lie, as a model appends them ---- */

/* An int8 copy of the keys in the caller's memory, through which kh_attention_decode finds the same keys
 * from fewer bytes: width + 10 or so a key instead of 4 width. It holds whole blocks of 64 keys; those
 * behind it are read as they are. Heads of at most 256. */
typedef struct kh_attention_shadow {
    void *memory;    /* kh_attention_shadow_bytes of them, aligned as malloc aligns */
    size_t capacity; /* keys that there is room for, of each key head and batch entry */
    size_t keys;     /* keys that it holds; start with 0. Before keys from n on change: at most n */
} kh_attention_shadow;

typedef struct kh_attention_decode_args {
    int batch;            /* B */
    int heads, key_heads; /* H, G; H is a multiple of G; G 0: H */
    int width;            /* E */
    size_t keys;          /* S: all of them are seen (the last `window` where there is one) */
    const float *q;       /* [B][H][E] */
    const float *k;       /* [B][S][G][E] */
    const float *v;       /* [B][S][G][E] */
    float *out;           /* [B][H][E] */
    kh_attention_stride k_stride, v_stride; /* zeros: packed as above */
    const char *attn;                       /* NULL: "full"; see kh_attention_args */
    float scale;                            /* 0: 1 / sqrt(E) */
    float softcap;                          /* 0: none */
    int window;                             /* 0: none */
    int threads;                            /* 0: all processors that the process may use */
    const kh_attention_shadow *shadow;      /* NULL: none; the result is the same */
    kh_attention_stats *stats;              /* NULL, or receives the sums */
} kh_attention_decode_args;

/* The row that kh_attention_forward gives for the last position. With one topk setting for all heads keys
 * are read once for all query heads of their group and values only where they are kept; other settings,
 * tail=mean and stats take the way of kh_attention_forward, which copies keys and values first. Memory
 * beyond the arrays: 4 bytes a key and head. KH_ERR_ARGUMENT, KH_ERR_MEMORY; `out` may then be partly
 * written. The same bits for any number of threads. */
KH_API kh_status kh_attention_decode(const kh_attention_decode_args *args);

/* Bytes of a shadow; 0 for shapes that have none. */
KH_API size_t kh_attention_shadow_bytes(int batch, int key_heads, int width, size_t capacity);
/* Takes the whole blocks of keys [shadow->keys, args->keys) into the shadow; the shapes, `k` and its strides
 * are those of `args`. KH_ERR_ARGUMENT where there is no room. */
KH_API kh_status kh_attention_shadow_extend(kh_attention_shadow *shadow,
                                            const kh_attention_decode_args *args);

/* The k largest of n scores, positions ascending, ties to the lower one; NaN and -infinity are never chosen.
 * *count of them, k unless there are fewer. One thread; KH_ERR_MEMORY. */
KH_API kh_status kh_select_topk(const float *scores /* [n] */, size_t n, size_t k,
                                uint32_t *indices /* [k] */, float *values /* [k] or NULL */,
                                size_t *count);

/* ---- feed-forward layers that keep the k best of F neurons a row (specification: the same paper)
 *
 *   two matrices   y = act(x W1^T + b1) W2 + b2           kept: the k largest pre-activations, bias included
 *   gated          y = (act(x Wg^T) * (x Wu^T)) W2        kept by the ranking rule
 */
typedef enum kh_ff_act { KH_FF_RELU, KH_FF_GELU, KH_FF_SILU } kh_ff_act; /* GELU: the tanh form */

typedef enum kh_ff_rule {
    KH_FF_GATE,      /* g: by the gate's pre-activation */
    KH_FF_MAGNITUDE, /* m: by |act(g) * u| */
    KH_FF_NORM       /* n: by |act(g) * u| times the norm of the neuron's row of W2 */
} kh_ff_rule;

typedef struct kh_ff_args {
    size_t rows;          /* T */
    size_t width, hidden; /* D, F */
    size_t k;             /* kept neurons a row; 0 or at least F: dense */
    kh_ff_act act;
    kh_ff_rule rule;       /* gated layers */
    const float *x;        /* [T][D] */
    const float *in;       /* [F][D] W1, or Wg */
    const float *up;       /* [F][D] Wu; NULL: a layer of two matrices */
    const float *in_bias;  /* [F] or NULL; two matrices only */
    const float *out;      /* [F][D] W2, a row for each neuron (its value vector) */
    const float *out_bias; /* [D] or NULL */
    float *y;              /* [T][D]; NULL where only indices and counts are wanted */
    uint32_t *indices;     /* NULL, or [T][k] receives the kept neurons, ascending: for backward */
    uint32_t *counts;      /* NULL, or [T] how many of them */
    size_t chunk;          /* rows at a time; 0: chosen */
    int threads;           /* 0: all processors that the process may use */
} kh_ff_args;

typedef struct kh_ff_gradients {
    const float *dy;         /* [T][D] */
    float *dx;               /* [T][D] written; each may be NULL */
    float *din, *dup, *dout; /* [F][D] written */
    float *din_bias /* [F] */, *dout_bias /* [D] */;
    int add; /* 1: gradients of weights and biases are added to what is there: a call for each chunk of
                rows, ascending, gives the bits of one call */
} kh_ff_gradients;

/* KH_ERR_ARGUMENT for shapes that make no sense, KH_ERR_MEMORY. Memory is set by the chunk: O(chunk k) and
 * a block of scores a thread, never T x F. The same bits for any number of threads and any chunk. */
KH_API kh_status kh_ff_topk_forward(const kh_ff_args *args);
/* Needs args->indices and counts as forward left them (a dense layer writes and needs none); what it
 * needs of the kept neurons beside them is computed again. */
KH_API kh_status kh_ff_topk_backward(const kh_ff_args *args, const kh_ff_gradients *gradients);

#ifdef __cplusplus
}
#endif
#endif
