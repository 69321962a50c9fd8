/* ops/rope.h: rotary positions. */
#ifndef KH_OPS_ROPE_H
#define KH_OPS_ROPE_H

#include "run/run.h"

#include <keyhole/status.h>
#include <stddef.h>

typedef enum kh_rope_style {
    KH_ROPE_PAIRS, /* elements (2i, 2i + 1): llama's GGUF files */
    KH_ROPE_HALF   /* elements (i, i + n/2): neox, qwen, gemma */
} kh_rope_style;

typedef enum kh_rope_scaling {
    KH_ROPE_NONE,
    KH_ROPE_LINEAR,
    KH_ROPE_YARN,
    KH_ROPE_LLAMA3
} kh_rope_scaling;

typedef struct kh_rope_spec {
    kh_rope_style style;
    kh_rope_scaling scaling;
    size_t n_rot;                /* rotated elements of a head */
    double base;                 /* frequency base */
    double factor;               /* of the scaling; 0 or 1: none */
    double original;             /* context before scaling (yarn, llama3) */
    double attn_factor;          /* yarn, and without a scaling: multiplies the magnitude; 0: 1 */
    double ext_factor;           /* yarn: extrapolation mix; negative: 1 */
    double beta_fast, beta_slow; /* yarn; 0: 32 and 1 */
    double low_freq, high_freq;  /* llama3; 0: 1 and 4 */
    const float *freq_factors; /* NULL, or [n_rot/2]: divide the frequencies (rope_freqs.weight) */
} kh_rope_spec;

enum { KH_ROPE_MAX = 512 };

typedef struct kh_rope {
    kh_rope_style style;
    size_t n_rot;
    float magnitude;                 /* multiplies cosine and sine */
    float inv_freq[KH_ROPE_MAX / 2]; /* [n_rot/2] */
} kh_rope;

kh_status kh_rope_init(kh_rope *rope, const kh_rope_spec *spec);

/* cosine and sine of every row of the batch: [T][n_rot/2] each. */
void kh_rope_angles(kh_run *run, const kh_rope *rope, float *cosine, float *sine);
/* Rotates x [T][heads][E] in place by the angles of its row. */
void kh_op_rope(kh_run *run, const kh_rope *rope, float *x, size_t heads, size_t E,
                const float *cosine, const float *sine);

#endif
