/* keyhole/encode.h: texts to rows of numbers: encoders (BERT, RoBERTa, nomic) and the encoder of T5.
 *
 * Every row of a text sees all of it. An encoder is used by one thread at a time; kh_encoder_stop may be
 * called from any thread or signal handler. */
#ifndef KEYHOLE_ENCODE_H
#define KEYHOLE_ENCODE_H

#include <keyhole/model.h>
#include <keyhole/points.h>
#include <keyhole/session.h>
#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kh_encoder kh_encoder;

typedef struct kh_encoder_options {
    size_t longest; /* tokens of a text; 0: the trained length, at most 65,536 */
    int longer;     /* 1: allows texts beyond the trained length, where positions are not learned */
    int threads;    /* 0: all processors that the process may use */
    size_t batch;   /* rows of a pass, which short texts share; 0: 2,048 */
    const char *attn; /* NULL: "full"; grammar in docs/attention.md */
    const char *ff;   /* NULL: "dense" */
    kh_precision precision;
} kh_encoder_options;

/* KH_ERR_UNSUPPORTED for a model without an encoder. */
KH_API kh_status kh_encoder_open(kh_encoder **out, const kh_model *model,
                                 const kh_encoder_options *options /* NULL: defaults */);
KH_API void kh_encoder_close(kh_encoder *encoder);

typedef struct kh_encoder_text {
    const int32_t *ids;   /* [count] */
    const int32_t *types; /* [count] 0 or 1: the text of a pair a token belongs to; NULL: all 0 */
    size_t count;         /* from 1 */
} kh_encoder_text;

/* The last rows of every text, in the order of the texts, each as soon as it is known; a status other than
 * KH_OK ends the run. Nothing of one text reaches another. */
KH_API kh_status kh_encoder_run(kh_encoder *encoder, const kh_encoder_text *texts, size_t count,
                                kh_status (*rows)(void *context, size_t text,
                                                  const float *rows /* [texts[text].count][D] */),
                                void *context);

typedef enum kh_pooling {
    KH_POOLING_MODEL, /* as the file says, else the mean */
    KH_POOLING_MEAN,
    KH_POOLING_CLS, /* the first row */
    KH_POOLING_LAST
} kh_pooling;

/* One vector a text, [count][D]; `normalise` 1: of length 1. */
KH_API kh_status kh_encoder_embed(kh_encoder *encoder, float *out, const kh_encoder_text *texts,
                                  size_t count, kh_pooling pooling, int normalise);

/* Logits [n][V] of the tokens at `positions` [n] (ascending), by a head that predicts masked tokens.
 * KH_ERR_UNSUPPORTED where the file has none. */
KH_API kh_status kh_encoder_masked(kh_encoder *encoder, float *logits, const kh_encoder_text *text,
                                   const size_t *positions, size_t n);

/* Logits [n][classes] of texts, by a head that tells classes apart (kh_model_info.classes). One of pairs (kh_model_info
 * .towers is 2) reads texts 2i and 2i + 1 as one example: n is then count / 2. KH_ERR_UNSUPPORTED where the file has
 * none. */
KH_API kh_status kh_encoder_classify(kh_encoder *encoder, float *logits,
                                     const kh_encoder_text *texts, size_t count);

/* How much every token speaks for being an answer's first and last, [count] each, by a head for extractive
 * questions. KH_ERR_UNSUPPORTED where the file has none. */
KH_API kh_status kh_encoder_spans(kh_encoder *encoder, float *start, float *end,
                                  const kh_encoder_text *text);

typedef struct kh_span_answer {
    size_t start, size; /* bytes of the text */
    double score;       /* of its first token plus of its last */
    double probability; /* among the answers that were found */
} kh_span_answer;
/* The best `most` stretches of a text [size] that answer a question, best first, by the same head; a text of
 * any length, in windows. `none` (may be NULL): the score of there being no answer, for models that were
 * trained to say so. */
KH_API kh_status kh_encoder_answers(kh_encoder *encoder, kh_span_answer *out, size_t most,
                                    size_t *count, double *none, const char *question,
                                    const char *text, size_t size);

/* Asks a running call to stop soon; async-signal-safe. Cleared by the next call. */
KH_API void kh_encoder_stop(kh_encoder *encoder);
/* Attaches an observer (NULL: none). Rows of a pass are those of the texts that share it. */
KH_API void kh_encoder_observe(kh_encoder *encoder, const kh_probe *probe);

#ifdef __cplusplus
}
#endif
#endif
