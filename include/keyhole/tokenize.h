/* keyhole/tokenize.h: a tokenizer made from text. Texts are tokenised by a model: <keyhole/model.h>. */
#ifndef KEYHOLE_TOKENIZE_H
#define KEYHOLE_TOKENIZE_H

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Called now and then: "reading", in bytes (`all` is 0 where it is not known), then "merging", in
 * tokens. Any other answer than 0 stops the work. */
typedef int kh_tokenizer_progress(void *context, const char *stage, uint64_t done, uint64_t all);

typedef struct kh_tokenizer_train_options {
    /* "bpe": byte-level byte-pair encoding. Ids: special tokens, the 256 bytes in the order of
     * their letters, merges. "bytes": a token for each byte, with the byte as its id, then special
     * tokens; no text is read. NULL: "bpe". */
    const char *kind;
    size_t vocabulary;    /* bpe: tokens in all; 0: 8192. Fewer when the text has no more pairs */
    uint64_t least;       /* bpe: a pair that the text has less often is not merged; 0: 2 */
    const char *pretoken; /* bpe: how a text is cut into the words that merging stays inside, by the
                             names of tokenizer.ggml.pre ("qwen2", "llama-bpe" ...); NULL: "gpt-2" */
    /* Special tokens, "TEXT" or "ROLE,...=TEXT" with the roles bos, eos, unk, pad, sep, cls, mask.
     * Where the text to learn from has such a TEXT, it is text. None given: "bos,eos=<|endoftext|>". */
    const char *const *special; /* [special_count] */
    size_t special_count;
    int no_special; /* 1: none at all */
    int overwrite;  /* 1: a tokenizer that is there is replaced; 0: it is KH_ERR_STATE */
    kh_tokenizer_progress *progress;
    void *progress_context;
} kh_tokenizer_train_options;

/* What was made. */
typedef struct kh_tokenizer_train_result {
    size_t vocabulary, special,
        merges;                     /* tokens in all, special ones among them; pairs that merge */
    size_t asked;                   /* tokens that were asked for */
    uint64_t documents, ill_formed; /* texts; those with bytes that are not UTF-8 (U+FFFD then) */
    uint64_t bytes;                 /* of all texts */
    uint64_t words, distinct;       /* that they were cut into */
    uint64_t tokens;                /* that they become */
    double seconds;
} kh_tokenizer_train_result;

/* Learns from files and writes tokenizer.json and tokenizer_config.json into a folder, which is made
 * where there is none. A file is one text ("-": standard input); of a file NAME.jsonl, the "text"
 * of the object on each line. The same text gives the same bytes: merged is the pair that occurs
 * most often, of equal ones the one with the smaller left id, then the smaller right id.
 * `options` and `result` may be NULL. KH_ERR_ARGUMENT: no text, or no room for the bytes. */
KH_API kh_status kh_tokenizer_train(const char *folder, const char *const *files, size_t count,
                                    const kh_tokenizer_train_options *options,
                                    kh_tokenizer_train_result *result);

#ifdef __cplusplus
}
#endif
#endif
