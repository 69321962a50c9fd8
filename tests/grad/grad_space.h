/* tests/grad/grad_space.h: a pass of some ops over a few arrays, and its gradients.
 *
 * Every array, whether the ops read it, write it or both, begins with random contents, and the loss is the sum
 * of what all buffers hold at the end, each element times a random number. So the twin of a buffer begins as
 * those numbers and must end as the derivative of the loss by what the buffer held at the beginning: 0 where an
 * op wrote over it. Compiles for float and for double (tests/support/double.h), with the same numbers. */
#ifndef KH_TESTS_GRAD_SPACE_H
#define KH_TESTS_GRAD_SPACE_H

// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include "run/run.h"
#include "run/tape.h"

enum { GRAD_ARRAYS = 64, GRAD_THREADS = 4 };

typedef enum grad_kind { GRAD_BUFFER, GRAD_PARAMETER, GRAD_FROZEN } grad_kind;

typedef struct grad_array {
    const char *name;
    grad_kind kind;
    float *data, *start, *loss,
        *gradient; /* [n]; loss: weights of what a buffer holds at the end */
    size_t n;
} grad_array;

typedef struct grad_space grad_space;

/* What is tested. `make` takes arrays from the space, `pass` runs the ops over them. */
typedef struct grad_case {
    const char *name;
    void (*make)(grad_space *s);
    kh_status (*pass)(grad_space *s);
    int variant;  /* the case's own */
    int unsmooth; /* 1: values near 0 are kept away from it */
} grad_case;

struct grad_space {
    const grad_case *of;
    size_t
        chunk; /* rows of a call, for cases that divide theirs, each taken back before the next; 0: all */
    kh_run run;
    kh_pool pool;
    kh_batch batch;
    kh_arena memory, step, scratch[GRAD_THREADS], twins;
    kh_tape tape;
    grad_array arrays[GRAD_ARRAYS];
    size_t count;
    uint64_t seed;
    float *p[GRAD_ARRAYS]; /* the case's arrays, by its own numbers */
    const void *own;       /* and what else it keeps */
};

/* The kernels of `isa`; threads <= GRAD_THREADS. Fails the test on error. */
void grad_open(grad_space *s, const grad_case *of, kh_isa isa, int threads, size_t chunk);
void grad_close(grad_space *s);

/* For `make`: an array [n] of random numbers in (-1, 1); its number is that of the call. */
float *grad_new(grad_space *s, grad_kind kind, const char *name, size_t n);
/* A random number in (-1, 1), exact in f32. */
float grad_random(grad_space *s);
void *grad_memory(grad_space *s, size_t bytes);

/* For `pass`, behind every chunk: takes it back, where there is a tape and chunks. */
kh_status grad_chunk_back(grad_space *s);

/* Runs the pass with a tape and back: `gradient` of all arrays that have one. */
void grad_run(grad_space *s);

/* The largest error of the gradients against central differences, relative to
 * max(|difference|, |gradient|, 1e-3 of the array's largest); at most `most` elements of an array, 0: all.
 * Fails the test beyond 1e-6. For the build in double. */
void grad_prove(grad_space *s, size_t most);

#endif
