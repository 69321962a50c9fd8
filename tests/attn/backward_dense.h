/* tests/attn/backward_dense.h: calls of attention with all their arrays, and what they should give,
 * computed densely in double.
 *
 * The emulation chooses keys by f32 scores (a chain of fma over e, as the contract says), so that it
 * means the same keys; everything after the choice is in double. */
#ifndef KH_TESTS_ATTN_BACKWARD_DENSE_H
#define KH_TESTS_ATTN_BACKWARD_DENSE_H

#include <keyhole/attention.h>

/* k 0: ranges, all keys or the last `recent` and the first `sinks`. */
typedef struct rule {
    int k, recent, sinks;
    float min_p;
} rule;

typedef struct problem {
    int B, H, G, E;
    size_t T, S;
    kh_attention_mask mask;
    const char *attn;
    rule rule;
    rule first; /* of head 0 of each group, where `mixed` */
    int mixed, window;
    float scale, softcap, rate;
    int buckets, alibi, masked; /* biases: T5's table of so many buckets, slopes, a mask of keys */
} problem;

/* A call with all its arrays. */
typedef struct call {
    const problem *p;
    kh_attention_args args;
    kh_attention_saved saved;
    kh_attention_gradients g;
    size_t qn, kn; /* elements of q and of k */
    size_t bn;     /* of the table of biases */
    kh_attention_bias bias;
} call;

float *backward_numbers(size_t n, unsigned seed, float size);
call backward_make(const problem *p);
void backward_unmake(call *c);
/* Both passes; fails the test with the library's sentence. */
void backward_run(call *c);

typedef struct dense {
    double *out, *dq, *dk, *dv, *drelative;
} dense;

double *backward_doubles(const float *x /* or NULL: zeros */, size_t n);
/* `counted`: what forward counted must be what is kept here. */
dense backward_emulate(const call *c, int counted);
void backward_free(dense *d);

/* What is fixed of one row: which keys it keeps, what dropout does to their weights, what is added to
 * their raw scores. */
typedef struct fixed {
    char *keep;
    float *gain, *raw; /* [S] */
} fixed;
fixed backward_fix(const call *c, size_t head, size_t t, size_t *kept);
void backward_unfix(fixed *f);
/* The row's output; with ds, the derivatives by raw scores and the weights after dropout too. */
void backward_row(const problem *p, const fixed *f, const double *q, const double *k,
                  const double *v, const double *o, double *z /* [E] */, double *ds /* [S] */,
                  double *weights /* [S] */);

#endif
