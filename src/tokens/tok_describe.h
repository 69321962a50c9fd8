/* tokens/tok_describe.h: a tokenizer in GGUF's words; private to format/tok*. */
#ifndef KH_TOKENS_TOK_DESCRIBE_H
#define KH_TOKENS_TOK_DESCRIBE_H

#include "tokens/tok_impl.h"

/* What GGUF stores for every token; filled by the model's own rule. */
typedef struct kh_description {
    kh_store store;   /* texts that were made */
    kh_slice *pieces; /* [V] */
    int32_t *kinds;   /* [V], kh_token_kind */
    float *scores;    /* [V] or NULL */
    kh_slice *merges; /* [n_merges] */
    size_t n_merges;
} kh_description;

/* Scores that merge as the ranks do, or KH_ERR_UNSUPPORTED with the piece for which none can. */
kh_status kh_describe_scores(const kh_tokenizer *t, kh_description *d);
/* The merges as texts, in the order of their ranks. */
kh_status kh_describe_merges(const kh_tokenizer *t, kh_description *d);
/* The name under which GGUF knows a pre-tokenizer that cuts as this one does. */
kh_status kh_describe_pre(const kh_tokenizer *t, const char **name);

#endif
