/* tokens/tok_train.h: a tokenizer made from text: texts go in, GGUF's words for a tokenizer come out. */
#ifndef KH_TOKENS_TOK_TRAIN_H
#define KH_TOKENS_TOK_TRAIN_H

#include "format/gguf.h"

#include <keyhole/tokenize.h>

typedef struct kh_tok_train kh_tok_train;

/* `options` (its texts must outlive the call only) is checked: KH_ERR_ARGUMENT, KH_ERR_UNSUPPORTED.
 * `expected` is the size of all texts for the progress; 0: not known. */
kh_status kh_tok_train_open(kh_tok_train **out, const kh_tokenizer_train_options *options,
                            uint64_t expected);
void kh_tok_train_close(kh_tok_train *train);
/* Whether it learns from text at all. */
int kh_tok_train_reads(const kh_tok_train *train);
/* One whole text. What is not UTF-8 is read as U+FFFD. */
kh_status kh_tok_train_add(kh_tok_train *train, const char *text, size_t size);
/* Learns, and puts tokenizer.ggml.* into a composed file that has none of them: kh_tokenizer_open
 * takes it, kh_tokenizer_export writes it as tokenizer.json. Call once. */
kh_status kh_tok_train_finish(kh_tok_train *train, kh_gguf *out, kh_tokenizer_train_result *result);

#endif
