/* keyhole/attention.h: attention on plain arrays: full, windowed or exact top-k, on the processor.
 *
 *     out[b][h][t] = sum over kept j of p_j v[b][g][j],  p = softmax over kept j of scale * q[b][h][t] . k[b][g][j]
 *
 * where g = h / (H / G). Without a model; memory beyond the arrays is one copy of the keys and values
 * of one batch entry, and grows with T k, never with T S. */
#ifndef KEYHOLE_ATTENTION_H
#define KEYHOLE_ATTENTION_H

#include <keyhole/status.h>
#include <stddef.h>

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
} kh_attention_args;

/* KH_ERR_ARGUMENT with a sentence for shapes or settings that make no sense, KH_ERR_MEMORY; `out` may
 * then be partly written. Results do not depend on the number of threads. Keys whose score is NaN or
 * -infinity have no weight; a row without any key gives 0. */
KH_API kh_status kh_attention_forward(const kh_attention_args *args);

#ifdef __cplusplus
}
#endif
#endif
