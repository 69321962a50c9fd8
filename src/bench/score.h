/* bench/score.h: scores rows of logits against a text and against a reference run of the same text. */
#ifndef KH_BENCH_SCORE_H
#define KH_BENCH_SCORE_H

#include "kern/kern.h"

#include <keyhole/session.h>
#include <stddef.h>
#include <stdint.h>

/* Log-probabilities of the reference run, row after row in an unlinked temporary file: on disk rather
 * than in memory, so that the next method's peak is its own. */
typedef struct kh_reference {
    int fd;          /* -1: none */
    size_t V, every; /* every how many-th scored row is kept */
} kh_reference;

/* Plans for `rows` scored rows of V logits within a gigabyte. */
kh_status kh_reference_open(kh_reference *out, size_t rows, size_t V);
void kh_reference_close(kh_reference *reference);

/* The likeliest id; ties to the lower one. */
size_t kh_score_largest(const float *x, size_t n);

typedef struct kh_score {
    const kh_kern *kern;
    const kh_reference *reference; /* NULL: no comparison */
    int is_reference;              /* 1: this run writes it */
    size_t V;
    float *scratch, *other; /* [V] */
    /* the window in flight */
    const int32_t *ids;   /* [n] */
    size_t n, from, half; /* rows [from, n - 1) are scored; rows >= half are the second half */
    size_t base;          /* rows of the window that came before this read */
    float *token_nll;     /* NULL or [n]: nll of predicting token i */
    /* sums */
    double nll, nll_second, kl;
    size_t tokens, tokens_second, compared, same;
    /* time that is not reading: head products and scores */
    double seconds, mark;
    kh_probe clock;
    kh_read_options read; /* give this to kh_session_read */
} kh_score;

kh_status kh_score_open(kh_score *score, size_t V, const kh_reference *reference, int is_reference);
void kh_score_close(kh_score *score);
/* Reads ids [n] into an empty session and scores rows [from, n - 1). */
kh_status kh_score_window(kh_score *score, kh_session *session, const int32_t *ids, size_t n,
                          size_t from, float *token_nll);

#endif
