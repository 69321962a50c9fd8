/* keyhole/eval.h: measure a model: perplexity, recall of planted facts, the automatic setting, and
 * whether a file can be trusted. */
#ifndef KEYHOLE_EVAL_H
#define KEYHOLE_EVAL_H

#include <keyhole/session.h>
#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Progress of long work: a stage name, done and all in its own units. */
typedef void kh_eval_progress(void *context, const char *stage, size_t done, size_t all);

typedef struct kh_ppl_options {
    kh_session_options session; /* `attn` is ignored */
    const char *const *attns;   /* [attn_count] settings, the first is the reference of KL */
    size_t attn_count;
    const char *const
        *ffs; /* [ff_count] feed-forward settings, each with every attns; 0: session.ff */
    size_t ff_count;
    size_t context;     /* window; 0: the whole text at once, at most the trained length */
    size_t stride;      /* 0: window after window without overlap */
    int like_llama;     /* 1: llama-perplexity: windows of `context`, scores the second half */
    size_t max_windows; /* 0: all */
    float *token_nll;   /* NULL, or [settings][token_count]: NaN where not scored */
    int isolate;        /* 1: each setting in a process of its own (memory of it alone) */
    kh_eval_progress *progress;
    void *progress_context;
} kh_ppl_options;

typedef struct kh_ppl_result {
    char attn[256], ff[256];
    size_t ctx, tokens;   /* window, scored tokens */
    double nll, ppl;      /* mean negative log likelihood, its exponential */
    double ppl_second;    /* of the scored tokens in the second half of their window */
    double kl, same_top1; /* to the first setting: mean nats, share; 0 and 1 for the first */
    double seconds;       /* reading, without the arithmetic of the scores */
    double keys_kept;     /* mean keys in a softmax */
    uint64_t peak_bytes;
} kh_ppl_result;
/* Of an encoder it is pseudo-perplexity: every token is masked once, alone, and predicted from all others of its
 * window. results [settings], attn by attn: attn_count times ff_count (1 where that is 0) */
KH_API kh_status kh_ppl(const kh_model *model, const int32_t *ids, size_t count,
                        const kh_ppl_options *options, kh_ppl_result *results);

/* Planted facts: sentences at even depths in a long text, each completed greedily. */
typedef struct kh_fact {
    const char *sentence; /* planted: "The password of the lighthouse is crimson." */
    const char *cue;      /* what is completed: "The password of the lighthouse is" */
    const char *answer;   /* what must be said first: "crimson" */
} kh_fact;
KH_API size_t kh_fact_count(void); /* the eight facts that come with the program */
KH_API const kh_fact *kh_fact_at(size_t index);

typedef struct kh_recall_fact {
    int recalled;
    float depth;     /* 0 start, 1 end */
    char said[96];   /* the completion */
    int layer, head; /* the head that read most from the fact's sentence when the answer began */
    float weight;    /* its attention weight on that sentence */
    char read[192];  /* the words around the key with the largest weight of that head */
} kh_recall_fact;

typedef struct kh_recall_result {
    char attn[256];
    size_t tokens; /* of the document */
    double read_seconds, answer_tokens_per_second;
    int recalled, facts;
    double ppl, kl, same_top1; /* of the document, against the first setting */
    double keys_kept;
    uint64_t peak_bytes;
    kh_recall_fact fact[16];
} kh_recall_result;

typedef struct kh_recall_options {
    kh_session_options session;
    const char *const *attns; /* [attn_count]; "none" is the row without a document */
    size_t attn_count;
    size_t tokens;        /* length of the document; 0: 6000 */
    const kh_fact *facts; /* NULL: the built-in ones */
    size_t fact_count;
    size_t answer_tokens; /* 0: 8 */
    int isolate;
    kh_eval_progress *progress;
    void *progress_context;
} kh_recall_options;
KH_API kh_status kh_recall(const kh_model *model, const char *text, size_t size,
                           const kh_recall_options *options, kh_recall_result *results);

/* Question answering and multiple choice, under every combination of settings. */
typedef struct kh_example {
    const char *context;        /* NULL: none */
    const char *question;       /* or the prompt that a choice continues */
    const char *const *answers; /* [answer_count] all are right; 0: a multiple choice */
    size_t answer_count;
    const char *const *choices;   /* [choice_count] */
    size_t choice_count, correct; /* index of the right choice */
} kh_example;

typedef struct kh_prediction {
    const char *text;      /* the answer, or the choice of the largest likelihood */
    double exact, f1;      /* of an answer: 0 or 1, and the overlap of words */
    int right, right_norm; /* of a choice: by likelihood, and by likelihood per byte */
} kh_prediction;

typedef struct kh_evaluate_options {
    kh_session_options session;
    const char *const *attns; /* [attn_count] */
    size_t attn_count;
    const char *const *ffs; /* [ff_count]; 0: session.ff */
    size_t ff_count;
    size_t max_tokens; /* of an answer; 0: 32 */
    /* NULL, or called for every example under every setting */
    void (*predicted)(void *context, size_t setting, size_t example, const kh_prediction *found);
    void *predicted_context;
    kh_eval_progress *progress;
    void *progress_context;
} kh_evaluate_options;

typedef struct kh_evaluate_result {
    char attn[256], ff[256];
    size_t questions, choices;      /* examples of each kind */
    double exact, f1;               /* means over questions, 0 to 1; NaN without any */
    double exact_error, f1_error;   /* standard errors of the means */
    double accuracy, accuracy_norm; /* the same over choices */
    double accuracy_error, accuracy_norm_error;
    double seconds;
    uint64_t peak_bytes;
} kh_evaluate_result;

/* Decoders answer "CONTEXT\n\nQuestion: QUESTION\nAnswer:" greedily, up to a line's end; models with an encoder and
 * a decoder answer "question \\n context" in small letters (UnifiedQA); encoders with a head for answers point.
 * Choices are compared by the likelihood of " CHOICE" behind the prompt. results [settings], attn by attn. */
KH_API kh_status kh_evaluate(const kh_model *model, const kh_example *examples, size_t count,
                             const kh_evaluate_options *options, kh_evaluate_result *results);
/* The rules of the SQuAD script: small letters, no punctuation, no articles, single blanks; the best over the
 * answers. */
KH_API void kh_score_answer(const char *text, const char *const *answers, size_t count,
                            double *exact, double *f1);

/* The automatic setting: the fastest prompt among the candidates within 2 % of full perplexity. */
typedef struct kh_calibrate_options {
    kh_session_options session;
    size_t tokens; /* length to calibrate at; 0: the trained length, at most 8192 */
    int dry_run;   /* 1: measures, stores nothing */
    kh_eval_progress *progress;
    void *progress_context;
} kh_calibrate_options;
typedef struct kh_calibrate_row {
    char attn[256];
    double ppl, ratio, seconds; /* perplexity, over full's, prompt seconds */
    int chosen;
} kh_calibrate_row;
/* rows [*count], at most `room`. The choice is stored under the file's identity. */
KH_API kh_status kh_calibrate(const kh_model *model, const int32_t *ids, size_t count,
                              const kh_calibrate_options *options, kh_calibrate_row *rows,
                              size_t room, size_t *row_count);
/* The setting that "auto" means for a model: stored, or built in, or "full" (*source then says so). */
KH_API kh_status kh_auto_setting(const kh_model *model, char *attn, size_t size,
                                 const char **source);

/* Checks of a model file, in order; `passed` 1, 0, or -1 for one that could not be run. */
typedef struct kh_verify_options {
    kh_session_options session;
    /* called for every check as it ends */
    void (*check)(void *context, const char *name, int passed, const char *detail);
    void *context;
} kh_verify_options;
/* KH_ERR_CHECK when one failed. `path` NULL: no re-reading of the file. */
KH_API kh_status kh_verify(const kh_model *model, const kh_verify_options *options);

#ifdef __cplusplus
}
#endif
#endif
