/* keyhole/bench.h: how fast it is here: prompt and generation speed, attention on random arrays, and
 * single kernels. */
#ifndef KEYHOLE_BENCH_H
#define KEYHOLE_BENCH_H

#include <keyhole/attention.h>
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
    char attn[256], ff[256];
    const char *test; /* "pp" or "tg" */
    size_t n, depth;
    double tokens_per_second, deviation; /* mean and standard deviation over the repetitions */
    double best;
    double attention_share; /* of the best repetition's time: scores, selection, values, cache */
    uint64_t peak_bytes;
} kh_bench_result;

/* Rows in the order attn, ff, depth, prompts, generate, handed over as they are known. */
KH_API kh_status kh_bench_speed(const kh_model *model, const kh_bench_options *options,
                                kh_status (*row)(void *context, const kh_bench_result *result),
                                void *context);

/* What every other figure is a share of. */
typedef struct kh_bench_machine {
    char cpu[128];
    const char *isa;                 /* of the kernels that run here */
    int cores;                       /* that the process may use */
    uint64_t memory_bytes;           /* physical */
    double gigaflops;                /* f32 of one core: fused multiply-adds, two operations each */
    double gigabytes, gigabytes_all; /* per second read from memory, by one core and by all */
} kh_bench_machine;
/* Measures for half a second, in a process of its own; needs 256 MiB. */
KH_API kh_status kh_bench_machine_measure(kh_bench_machine *out);

typedef enum kh_bench_pass { KH_BENCH_FORWARD, KH_BENCH_FORWARD_BACKWARD } kh_bench_pass;

/* Attention as keyhole/attention.h offers it, over standard normal arrays: queries and keys of one length,
 * f32, packed. */
typedef struct kh_bench_attention_options {
    const char *const *attns; /* [attn_count] */
    size_t attn_count;
    const size_t *lengths; /* [length_count] L */
    size_t length_count;
    kh_bench_pass pass;
    kh_attention_mask mask;
    int batch, heads, key_heads, width; /* 0: 1, 12, as many as heads, 64 */
    size_t chunk;                       /* queries that a call is given; 0: all */
    int threads;                        /* 0: all processors that the process may use */
    int repeat;                         /* 0: 5 timed runs, after one that is not timed */
    uint64_t seed;
    int isolate; /* 1: each row in a process of its own */
} kh_bench_attention_options;

typedef struct kh_bench_attention_result {
    char attn[256];
    size_t length;
    int k, threads; /* k: keys that a row keeps at most; 0: all that it sees */
    double seconds_min, seconds_median;
    double microseconds; /* per query and head, of the shortest run */
    double gigaflops;    /* as full attention: 4 E for each visible pair, 14 E with backward */
    uint64_t peak_bytes; /* over inputs and outputs; only meaningful in a process of its own */
    uint64_t process_bytes, saved_bytes; /* peak of all; what forward keeps for backward */
} kh_bench_attention_result;
/* Rows in the order attn, length, handed over as they are known. */
KH_API kh_status kh_bench_attention(const kh_bench_attention_options *options,
                                    kh_status (*row)(void *context,
                                                     const kh_bench_attention_result *result),
                                    void *context);

/* Attention of one generated token over a cache of `length` positions, in as many layers as make it come
 * from memory; times are of one layer. */
typedef enum kh_bench_shadow {
    KH_BENCH_SHADOW_OFF,
    KH_BENCH_SHADOW_ON,
    KH_BENCH_SHADOW_BOTH
} kh_bench_shadow;

typedef struct kh_bench_decode_options {
    const char *const *attns; /* [attn_count] */
    size_t attn_count;
    const size_t *lengths; /* [length_count] positions in the cache, the token's own included */
    size_t length_count;
    int heads, key_heads, width; /* 0: 12, as many as heads, 64 */
    kh_cache_type k_type, v_type;
    kh_bench_shadow shadow;
    int threads; /* 0: all processors that the process may use */
    int repeat;  /* 0: 5 */
    uint64_t seed;
    int isolate;
} kh_bench_decode_options;

typedef struct kh_bench_decode_result {
    char attn[256];
    size_t length;
    int k, threads, shadow;
    double seconds_min, seconds_median; /* of one layer */
    double bytes;        /* of all keys (or their shadows), and of the values that are mixed */
    double gigabytes;    /* per second, by seconds_min */
    uint64_t peak_bytes; /* over the cache */
} kh_bench_decode_result;
/* Rows in the order attn, length, and without before with a shadow. */
KH_API kh_status kh_bench_decode(const kh_bench_decode_options *options,
                                 kh_status (*row)(void *context,
                                                  const kh_bench_decode_result *result),
                                 void *context);

/* A feed-forward layer of keyhole/attention.h over standard normal arrays; weights divided by the square
 * root of their input's width. */
typedef struct kh_bench_ff_options {
    const size_t *rows, *hiddens, *keeps; /* tokens, F, k (0: dense) */
    size_t row_count, hidden_count, keep_count;
    size_t width; /* 0: 768 */
    kh_ff_act act;
    int gated; /* 1: with a second input matrix */
    kh_ff_rule rule;
    kh_bench_pass pass;
    size_t chunk; /* rows of kh_ff_args; 0: chosen */
    int threads;  /* 0: all processors that the process may use */
    int repeat;   /* 0: 3 timed runs, after one that is not timed */
    uint64_t seed;
    int isolate; /* 1: each row in a process of its own */
} kh_bench_ff_options;

typedef struct kh_bench_ff_result {
    size_t rows, hidden, k; /* k 0: dense */
    int threads;
    double seconds_min, seconds_median;
    double microseconds; /* per token, of the shortest run */
    double gigaflops; /* operations of the dense layer: 4 D F a token forward (gated 6), 12 D F (18)
                         with backward */
    uint64_t peak_bytes; /* over inputs and outputs; only meaningful in a process of its own */
} kh_bench_ff_result;
/* Rows in the order hidden, rows, k, handed over as they are known. */
KH_API kh_status kh_bench_ff(const kh_bench_ff_options *options,
                             kh_status (*row)(void *context, const kh_bench_ff_result *result),
                             void *context);

/* Layers of a transformer on random arrays: attention with its four projections and, where hidden > 0, a
 * feed-forward layer of two matrices (ReLU), each behind a norm and added to its input. Backward keeps the
 * input of each layer and computes the rest again, chunk by chunk; its upstream gradient is random. */
typedef enum kh_bench_keep {
    KH_BENCH_KEEP_CHOICE, /* which keys each row kept, too: nothing is selected twice */
    KH_BENCH_KEEP_INPUT   /* the inputs alone */
} kh_bench_keep;

typedef struct kh_bench_stack_options {
    const char *const *attns; /* [attn_count] one setting for all layers and heads */
    size_t attn_count;
    const size_t *lengths; /* [length_count] L */
    size_t length_count;
    const size_t *keeps; /* [keep_count] kept neurons; 0: all */
    size_t keep_count;
    kh_bench_pass pass;
    kh_attention_mask mask;
    int layers, heads, key_heads, width; /* 0: 12, 12, as many as heads, 64; D is heads * width */
    size_t hidden;                       /* F; 0: attention alone */
    size_t chunk; /* rows of projections and feed-forward at a time; 0: 1024 */
    kh_bench_keep keep;
    int threads; /* 0: all processors that the process may use */
    int repeat;  /* 0: 1 timed run, after one that is not timed unless it took ten seconds */
    uint64_t seed;
    int isolate; /* 1: each row in a process of its own */
} kh_bench_stack_options;

typedef struct kh_bench_stack_result {
    char attn[256];
    size_t length, ff_k; /* ff_k 0: all neurons, or none */
    int k, threads;      /* k: keys that a row keeps at most; 0: all that it sees */
    double seconds_min, seconds_median;
    double microseconds; /* per token */
    double gigaflops;    /* as dense layers with full attention, a third of them forward */
    uint64_t peak_bytes; /* over inputs and outputs: x, y, weights, and with backward dx, dy and the
                               weights' gradients; only meaningful in a process of its own */
    uint64_t process_bytes; /* peak of all */
    uint64_t saved_bytes;   /* kept between forward and backward: layers' inputs but x, kept keys */
    double checksum;        /* sum of squares of y or, with backward, of dx and all gradients */
} kh_bench_stack_result;
/* Rows in the order attn, length, keeps, handed over as they are known. */
KH_API kh_status kh_bench_stack(const kh_bench_stack_options *options,
                                kh_status (*row)(void *context,
                                                 const kh_bench_stack_result *result),
                                void *context);

/* Steps of training a model from nothing on random tokens: forward, backward and, with `update`, the optimiser. */
typedef struct kh_bench_train_options {
    const char *arch;         /* NULL: "gpt2:layers=12,width=768,heads=12,vocabulary=256" */
    const char *const *attns; /* [attn_count] */
    size_t attn_count;
    const size_t *lengths; /* [length_count] L, of one sequence */
    size_t length_count;
    int keep_records; /* 1: nothing is computed again; 0: blocks are */
    int update;       /* 1: AdamW behind each backward pass */
    int threads;      /* 0: all processors that the process may use */
    int repeat;       /* 0: 1 timed step, after one that is not timed unless it took ten seconds */
    uint64_t seed;
    int isolate; /* 1: each row in a process of its own */
} kh_bench_train_options;

typedef struct kh_bench_train_result {
    char attn[256];
    size_t length;
    int k, threads;   /* k: keys that a row keeps at most, in the last layer; 0: all that it sees */
    int heads, width; /* of the model; width of a head */
    uint64_t parameters;
    double seconds_min, seconds_median; /* of a step */
    double loss;                        /* of the first step, a token: ln V or so */
    uint64_t process_bytes;             /* peak of all; of a process of its own */
    uint64_t peak_bytes;                /* over the weights */
    uint64_t record_bytes;              /* of the tape */
} kh_bench_train_result;
/* Rows in the order attn, length, handed over as they are known. */
KH_API kh_status kh_bench_train(const kh_bench_train_options *options,
                                kh_status (*row)(void *context,
                                                 const kh_bench_train_result *result),
                                void *context);

/* Selection alone: kh_select_topk on rows of random scores, one thread. */
typedef enum kh_bench_scores {
    KH_BENCH_GAUSSIAN,
    KH_BENCH_HEAVY,     /* e to twice a gaussian: a few scores far above the others */
    KH_BENCH_ASCENDING, /* gaussian, sorted: every score is among the best so far */
    KH_BENCH_EQUAL,
    KH_BENCH_TIES, /* sixteen different values */
    KH_BENCH_SCORES_COUNT
} kh_bench_scores;
KH_API const char *kh_bench_scores_name(kh_bench_scores scores);

typedef struct kh_bench_select_options {
    const kh_bench_scores *scores; /* [score_count]; none: all */
    size_t score_count;
    const size_t *lengths, *keeps; /* [length_count] scores of a row, [keep_count] k */
    size_t length_count, keep_count;
    int repeat; /* 0: 5 */
    uint64_t seed;
    int isolate;
} kh_bench_select_options;

typedef struct kh_bench_select_result {
    kh_bench_scores scores;
    size_t length, k;
    double seconds_min, seconds_median; /* of a row */
    double nanoseconds;                 /* per score, of the shortest run */
    uint64_t peak_bytes;                /* over the rows */
} kh_bench_select_result;
/* Rows in the order scores, length, k. */
KH_API kh_status kh_bench_select(const kh_bench_select_options *options,
                                 kh_status (*row)(void *context,
                                                  const kh_bench_select_result *result),
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
