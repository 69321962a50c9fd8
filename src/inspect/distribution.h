/* inspect/distribution.h: rows of the residual stream as distributions over the next token. */
#ifndef KH_INSPECT_DISTRIBUTION_H
#define KH_INSPECT_DISTRIBUTION_H

#include "inspect/inspector.h"

enum {
    KH_DISTRIBUTION_ROWS = 256, /* most rows of a product */
    KH_DISTRIBUTION_LEAST =
        8, /* fewest: products of very few rows are made differently, to other bits */
    KH_DISTRIBUTION_TOP = 1000 /* most tokens of an end of a row; the vocabulary may have fewer */
};

typedef struct kh_distribution {
    kh_inspector *inspector;
    size_t rows;   /* room */
    float *x;      /* [rows][D] the stream, from the caller; its final norm afterwards */
    float *logits; /* [rows][V] */
    float *spare;  /* [threads][V] */
} kh_distribution;

/* Room for `rows`, or as many of them as its memory allows (out->rows), but for `least` if a product can be so large. */
kh_status kh_distribution_open(kh_distribution *out, kh_inspector *inspector, size_t rows,
                               size_t least);
void kh_distribution_close(kh_distribution *readout);
/* x [rows][D] becomes logits: final norm, head, and with `capped` 1 the soft-cap. */
kh_status kh_distribution_run(kh_distribution *readout, size_t rows, int capped);
/* logits [rows][V] of what is no stream: no norm, no cap, no scale. */
kh_status kh_distribution_raw(kh_distribution *readout, size_t rows);

/* ---- one row of logits [V] ---- */

typedef struct kh_row_measures {
    double log_z;   /* log of the sum of exponentials */
    double entropy; /* nats */
} kh_row_measures;
/* `exps` [V] receives exp(logit - largest). */
kh_row_measures kh_row_measure(const kh_kern *kern, float *exps, const float *logits, size_t V);
/* KL(p || q) in nats, of two rows of logits; never negative. `spare` [V]. */
double kh_row_kl(const kh_kern *kern, float *spare, const float *p, double p_log_z, const float *q,
                 double q_log_z, size_t V);
kh_lens_token kh_row_token(const float *logits, double log_z, size_t V, int32_t id);
/* The n <= KH_DISTRIBUTION_TOP most and least probable tokens of a row, n <= V; `spare` [V]. */
void kh_row_top(kh_lens_token *out, size_t n, const float *logits, double log_z, size_t V);
void kh_row_bottom(kh_lens_token *out, size_t n, const float *logits, double log_z, size_t V,
                   float *spare);
/* Both ends of a row of raw products [V]; on failure whatever was taken is the caller's to free. */
kh_status kh_row_ends(kh_vocabulary_end *top, kh_vocabulary_end *bottom, const float *logits,
                      size_t V, size_t n, float *spare);

#endif
