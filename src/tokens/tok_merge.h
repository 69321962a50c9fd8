/* tokens/tok_merge.h: the merge loop that both kinds of tokenizer share, and the table of merges;
 * private to format/tok*. */
#ifndef KH_TOKENS_TOK_MERGE_H
#define KH_TOKENS_TOK_MERGE_H

#include "tokens/tok_vocab.h"

typedef struct kh_merge_slot {
    uint64_t pair; /* left id << 32 | right id; all ones: empty */
    uint32_t rank;
    int32_t merged;
} kh_merge_slot;

typedef struct kh_merges {
    kh_merge_slot *slots; /* [mask + 1] */
    uint64_t seed;
    uint32_t mask;
} kh_merges;

/* Reads tokenizer.ggml.merges. A merge whose parts or result are no pieces can never apply and is
 * passed over; of equal pairs the first counts. On failure the caller still frees. */
kh_status kh_merges_init(kh_merges *merges, const kh_gguf *file, const kh_vocab *vocab);
/* The same table, filled merge by merge: room for `count`, then one call for each, in the order of
 * their ranks. Of equal pairs the last counts, as in tokenizer.json. */
kh_status kh_merges_start(kh_merges *merges, size_t count, uint64_t seed);
void kh_merges_put(kh_merges *merges, int32_t left, int32_t right, uint32_t rank, int32_t merged);
void kh_merges_free(kh_merges *merges);

/* A stretch of the text that is one token so far. */
typedef struct kh_symbol {
    uint32_t start, size; /* bytes; size 0: merged into its left neighbour */
    uint32_t prev, next;  /* KH_NO_SYMBOL at the ends */
    int32_t id;           /* -1: not in the vocabulary */
} kh_symbol;
#define KH_NO_SYMBOL UINT32_MAX

typedef struct kh_candidate {
    uint32_t key;  /* the smallest is merged first */
    uint32_t left; /* then the leftmost */
    uint32_t size; /* of both: whether they are still what they were */
    int32_t id;    /* what they become */
} kh_candidate;

/* Working memory; grows to the longest word and is kept. Zero-initialise. */
typedef struct kh_merger {
    kh_symbol *symbols; /* [capacity] */
    kh_candidate *heap; /* [2 capacity]: the loop never holds more than two per symbol */
    uint32_t count, capacity, waiting;
} kh_merger;

/* Whether two neighbours merge: fills key and id. */
typedef int kh_merge_rule(const void *context, const char *text, const kh_symbol *left,
                          const kh_symbol *right, kh_candidate *out);

/* Room for `count` symbols, and none of them there yet. */
kh_status kh_merger_start(kh_merger *merger, size_t count);
void kh_merger_add(kh_merger *merger, uint32_t start, uint32_t size, int32_t id);
/* Merges until nothing merges. Symbol 0 heads the list of what is left. */
void kh_merger_run(kh_merger *merger, kh_merge_rule *rule, const void *context, const char *text);
void kh_merger_free(kh_merger *merger);

/* The rule of byte-level BPE: context is a kh_merges. */
int kh_merge_by_rank(const void *context, const char *text, const kh_symbol *left,
                     const kh_symbol *right, kh_candidate *out);
/* The rule of SentencePiece-style BPE: context is a kh_vocab with scores. */
int kh_merge_by_score(const void *context, const char *text, const kh_symbol *left,
                      const kh_symbol *right, kh_candidate *out);

#endif
