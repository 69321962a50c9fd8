/* keyhole/bench.h: how fast it is here: prompt and generation speed, and single kernels. */
#ifndef KEYHOLE_BENCH_H
#define KEYHOLE_BENCH_H

#include <keyhole/session.h>
#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kh_bench_options {
    kh_session_options session; /* `attn` is ignored */
    const char *const *attns;   /* [attn_count] */
    size_t attn_count;
    const char *const
        *ffs; /* [ff_count] feed-forward settings, each with every attns; 0: session.ff */
    size_t ff_count;
    const size_t *prompts; /* [prompt_count] prompt lengths (pp); 0 entries allowed */
    size_t prompt_count;
    const size_t *generate; /* [generate_count] generated lengths (tg) */
    size_t generate_count;
    const size_t *depths; /* [depth_count] positions already in the cache */
    size_t depth_count;
    int repeat;  /* 0: 3 */
    int isolate; /* 1: each row in a process of its own */
} kh_bench_options;

typedef struct kh_bench_result {
    char attn[256], ff[64];
    const char *test; /* "pp" or "tg" */
    size_t n, depth;
    double tokens_per_second, deviation; /* mean and standard deviation over the repetitions */
    double best;
    uint64_t peak_bytes;
} kh_bench_result;

/* Rows in the order attn, ff, depth, prompts, generate, handed over as they are known. */
KH_API kh_status kh_bench_speed(const kh_model *model, const kh_bench_options *options,
                                kh_status (*row)(void *context, const kh_bench_result *result),
                                void *context);

/* One line per kernel and instruction set. */
typedef struct kh_bench_kernel {
    const char *name, *isa;
    double nanoseconds; /* per call */
    double gigabytes;   /* per second, memory read and written */
    double gigaops;     /* per second, multiplications and additions; 0 where it means nothing */
} kh_bench_kernel;
KH_API kh_status kh_bench_kernels(const char *only /* NULL: all; a part of the name */,
                                  kh_status (*row)(void *context, const kh_bench_kernel *result),
                                  void *context);

#ifdef __cplusplus
}
#endif
#endif
