/* keyhole/session.h: a sequence of tokens that a model has read, what it predicts next, and sampling.
 *
 * A session is used by one thread at a time; kh_session_stop may be called from any thread or signal
 * handler. Forks share the read prefix (copy on write) and the worker threads; they take turns. */
#ifndef KEYHOLE_SESSION_H
#define KEYHOLE_SESSION_H

#include <keyhole/model.h>
#include <keyhole/points.h>
#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kh_session kh_session;

typedef enum kh_cache_type { KH_CACHE_F16, KH_CACHE_F32, KH_CACHE_Q8_0 } kh_cache_type;
typedef enum kh_precision {
    KH_PRECISION_DEFAULT, /* activations in f32, weights as the file holds them */
    KH_PRECISION_F32,     /* the same, every weight unpacked first: slower, to compare with */
    KH_PRECISION_Q8       /* activations in 8 bits, as llama.cpp does: faster where the machine has
                             8-bit dot products; KL to f32 about 3e-3 nats, 96 % same top token */
} kh_precision;

typedef struct kh_session_options {
    size_t context; /* positions; 0: the trained length */
    int longer;     /* 1: allows a context beyond the trained length */
    int threads;    /* 0: all processors that the process may use */
    size_t batch;   /* rows per forward pass of a prompt; 0: 512 */
    kh_cache_type k_type, v_type;
    const char *attn; /* NULL: "full"; grammar in docs/attention.md; "auto" as calibrated */
    const char *ff;   /* NULL: "dense"; "topk:k=512,rule=m" keeps the k best neurons of each row,
                       * "0-1=dense;2-=topk:k=512" those of some layers: docs/feed_forward.md */
    kh_precision precision;
    int key_shadow; /* 1: beside the keys an int8 copy of them (74 bytes a key of width 64), through which
                       decoding with topk finds the same keys from fewer bytes */
    size_t forks; /* how many contexts' worth of forked positions to reserve address space for */
    int stats;    /* 1: measures the kept mass, which costs every exponential */
} kh_session_options;

KH_API kh_status kh_session_open(kh_session **out, const kh_model *model,
                                 const kh_session_options *options /* NULL: defaults */);
KH_API void kh_session_close(kh_session *session);
/* Shares everything read so far. The parent must outlive its forks. */
KH_API kh_status kh_session_fork(kh_session **out, kh_session *session);

/* Rows of logits as they become known: rows [first, first + rows) of the ids that were passed. Return
 * a status other than KH_OK to stop. */
typedef struct kh_read_options {
    kh_status (*logits)(void *context, size_t first, size_t rows,
                        const float *logits /* [rows][V] */);
    void *logits_context;
    /* called between batches, and at the end */
    void (*progress)(void *context, size_t done, size_t all);
    void *progress_context;
} kh_read_options;
/* Reads ids: afterwards kh_session_logits predicts the next one. Too long for the context:
 * KH_ERR_CONTEXT, nothing read. Stopped: KH_ERR_STOPPED, the batches that were done stay read. */
KH_API kh_status kh_session_read(kh_session *session, const int32_t *ids, size_t count,
                                 const kh_read_options *options /* NULL: none */);
/* For a model with an encoder and a decoder: what the decoder attends to. Encodes ids, forgets what was read
 * before, and the first token to read is kh_model_start. Forks made afterwards share the source; giving a new
 * one while a fork that shares the old one lives can run out of room (KH_ERR_CONTEXT). */
KH_API kh_status kh_session_source(kh_session *session, const int32_t *ids, size_t count);
/* Logits after the last token read; NULL before the first. Valid until the next call. */
KH_API const float *kh_session_logits(const kh_session *session /* [V] */);

KH_API size_t kh_session_length(const kh_session *session);
KH_API size_t kh_session_context(const kh_session *session);
KH_API const int32_t *kh_session_tokens(const kh_session *session); /* [length] */
/* Forgets everything from `length` on. The logits are gone until the next read. */
KH_API kh_status kh_session_rewind(kh_session *session, size_t length);
/* Drops `count` positions from `keep` on by reading the rest again (context shift, exact). */
KH_API kh_status kh_session_shift(kh_session *session, size_t keep, size_t count);
/* The setting in force, verbatim ("auto" resolved). */
KH_API const char *kh_session_attn(const kh_session *session);
KH_API const char *kh_session_ff(const kh_session *session);
KH_API int kh_session_threads(const kh_session *session);

/* Asks a running read or generation to stop soon; async-signal-safe. Cleared by the next call. */
KH_API void kh_session_stop(kh_session *session);
/* Attaches an observer (NULL: none); it must outlive its attachment. */
KH_API void kh_session_observe(kh_session *session, const kh_probe *probe);

/* A read prompt on disk: identity of the model, setting, tokens, keys and values. Written atomically.
 * Loading into a session of another model, setting or cache type is KH_ERR_FORMAT and changes
 * nothing; a damaged file leaves an empty session. After loading, kh_session_tokens tells what was
 * read; logits need one more token (or a rewind by one and a read). */
KH_API kh_status kh_session_save(const kh_session *session, const char *path);
KH_API kh_status kh_session_load(kh_session *session, const char *path);

typedef struct kh_session_report {
    uint64_t file, cache, cache_peak, compute; /* bytes */
    double rows, keys_kept, keys_seen;         /* attention: query rows x heads, keys */
    double kept_mass; /* mean share of the softmax kept; NaN without stats */
} kh_session_report;
KH_API void kh_session_get_report(const kh_session *session, kh_session_report *out);
KH_API void kh_session_reset_report(kh_session *session);

/* ---- sampling ---- */

typedef struct kh_logit_bias {
    int32_t id;
    float bias;
} kh_logit_bias;

/* Applied in this order: bias, repetition penalty, top-k, top-p, min-p, temperature. Zero fields mean
 * "off" here; kh_sampler_defaults gives llama.cpp's defaults (0.8 / 40 / 0.95 / 0.05). */
typedef struct kh_sampler_options {
    float temperature; /* 0: greedy */
    int top_k;
    float top_p; /* 0 or 1: off */
    float min_p;
    float repeat_penalty; /* 0 or 1: off */
    int repeat_last;      /* how many last tokens the penalty looks at; 0: 64 */
    uint64_t seed;
    const kh_logit_bias *bias; /* [bias_count] */
    size_t bias_count;
} kh_sampler_options;
KH_API kh_sampler_options kh_sampler_defaults(void);
/* A seed from the operating system. */
KH_API uint64_t kh_random_seed(void);

typedef struct kh_choice {
    int32_t id;
    float logprob; /* natural log, of the softmax before any sampler */
    float
        sampled; /* the probability that the sampler gave it; measured where alternatives are asked for */
} kh_choice;

typedef enum kh_finish {
    KH_FINISH_END,     /* the model ended its answer */
    KH_FINISH_LENGTH,  /* max_tokens */
    KH_FINISH_STOP,    /* a stop string */
    KH_FINISH_CONTEXT, /* the context is full */
    KH_FINISH_STOPPED  /* kh_session_stop */
} kh_finish;

typedef struct kh_generate_options {
    kh_sampler_options sampler;
    size_t max_tokens;       /* 0: until the end or the context is full */
    const char *const *stop; /* [stop_count] strings that end the answer and are not part of it */
    size_t stop_count;
    int ignore_end;    /* 1: goes on after an end token */
    int context_shift; /* 1: drops the oldest half instead of stopping when the context is full */
    size_t keep;       /* positions at the start that a shift keeps */
    int special;       /* 1: shows control tokens as text */
    int top_logprobs;  /* alternatives to report for each token */
    /* Each token: whole characters of text that are now certain (may be empty), never half a
     * character, never the start of a stop string. A status other than KH_OK stops. */
    kh_status (*token)(void *context, const char *text, size_t size, const kh_choice *chosen,
                       const kh_choice *alternatives, size_t count);
    void *context;
} kh_generate_options;

typedef struct kh_generate_result {
    size_t tokens;
    double seconds;
    kh_finish finish;
} kh_generate_result;

/* Answers from where the session stands (something must have been read). Nothing allocates after the
 * first token. */
KH_API kh_status kh_generate(kh_session *session, const kh_generate_options *options,
                             kh_generate_result *out);

/* An answer that grows a token at a time, so that several can grow together. The session, and what the options
 * point to, must outlive it; the session is left alone meanwhile. */
typedef struct kh_generator kh_generator;
KH_API kh_status kh_generator_open(kh_generator **out, kh_session *session,
                                   const kh_generate_options *options);
KH_API void kh_generator_close(kh_generator *generator); /* takes NULL */
/* One token for each of the answers that are not complete, their sessions in one forward pass. The sessions are
 * different ones, forks of one root. What a `token` callback returns ends its own answer alone; a failure of
 * the pass is returned, and ends all. */
KH_API kh_status kh_generators_advance(kh_generator *const *generators, size_t count);
KH_API int kh_generator_done(const kh_generator *generator);
/* Hands over what text was held back, and tells how the answer ended: now, where it was not complete. Fails
 * with what its callback returned. Once. */
KH_API kh_status kh_generator_finish(kh_generator *generator, kh_generate_result *out);

/* The most probable answer that beam search finds from where the session stands. The session stays there; it
 * was opened with room for `forks` of twice as many beams. */
typedef struct kh_beam_options {
    size_t beams;         /* from 1 to 64 */
    size_t max_tokens;    /* 0: until the context is full */
    float length_penalty; /* answers are compared by log-probability / length ^ penalty */
} kh_beam_options;
/* *ids [*count] the answer, its end token included: free with kh_free_ids. `score` may be NULL. */
KH_API kh_status kh_generate_beam(kh_session *session, const kh_beam_options *options,
                                  int32_t **ids, size_t *count, double *score);

#ifdef __cplusplus
}
#endif
#endif
