/* tokens/tokenizer.h: text to token ids and back, as the model's own tokenizer defines it: the one
 * inside a GGUF file, or tokenizer.json in a Hugging Face folder. */
#ifndef KH_TOKENS_TOKENIZER_H
#define KH_TOKENS_TOKENIZER_H

#include "base/buf.h"
#include "format/gguf.h"

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

typedef struct kh_tokenizer kh_tokenizer;

/* token_type of GGUF */
typedef enum kh_token_kind {
    KH_TOKEN_NORMAL = 1,
    KH_TOKEN_UNKNOWN,
    KH_TOKEN_CONTROL,
    KH_TOKEN_USER,
    KH_TOKEN_UNUSED,
    KH_TOKEN_BYTE
} kh_token_kind;

typedef struct kh_special_ids {
    int32_t bos, eos, eot, unk, pad, sep, mask, cls; /* -1 where the file has none */
    int add_bos, add_eos; /* whether a text begins with bos (cls), ends with eos (sep) */
} kh_special_ids;

/* Builds the tokenizer of an open file (models "gpt2": byte-level BPE, "llama":
 * SentencePiece-style BPE by score with byte fallback, "t5": unigram, "bert": WordPiece). The file
 * must outlive it. An unknown model or pre-tokenizer is KH_ERR_UNSUPPORTED and named. */
kh_status kh_tokenizer_open(kh_tokenizer **out, const kh_gguf *file);
/* Builds the tokenizer of a Hugging Face folder: tokenizer.json, and beside it, where they are
 * there, tokenizer_config.json, special_tokens_map.json, config.json, generation_config.json and
 * chat_template.jinja or .json. A part that is not known is KH_ERR_UNSUPPORTED and named.
 * Truncation and padding, which tokenizer.json may ask for, are the caller's business. */
kh_status kh_tokenizer_open_folder(kh_tokenizer **out, const char *folder);
/* The same from the bytes of a tokenizer.json alone; `name` names it in sentences. */
kh_status kh_tokenizer_open_json(kh_tokenizer **out, const char *json, size_t size,
                                 const char *name);
void kh_tokenizer_close(kh_tokenizer *tokenizer);

int32_t kh_tokenizer_size(const kh_tokenizer *tokenizer); /* V */
const kh_special_ids *kh_tokenizer_special(const kh_tokenizer *tokenizer);
/* "gpt2", "llama", "t5", "bert"; "bpe" and "words" for models that GGUF has no name for */
const char *kh_tokenizer_model(const kh_tokenizer *tokenizer);
const char *kh_tokenizer_pre(const kh_tokenizer *tokenizer); /* "smollm", ... or "" */
/* The chat template called `name` (NULL: the first of "default" and the others), or an empty
 * slice. */
kh_slice kh_tokenizer_chat_template(const kh_tokenizer *tokenizer, const char *name);

/* Writes the tokenizer's values into a file that is put together in memory (tokenizer.ggml.*, and
 * tokenizer.chat_template), so that kh_tokenizer_open gives the same ids from it. What GGUF cannot
 * express is KH_ERR_UNSUPPORTED with a sentence that names it; `out` may then hold some values. */
kh_status kh_tokenizer_describe(const kh_tokenizer *tokenizer, kh_gguf *out);
/* Copies the tokenizer.* values of `words` into another such file, for a model whose embedding has `rows` rows:
 * unused tokens follow the vocabulary until there are as many. Keys that `out` has stay as they are. */
kh_status kh_tokenizer_copy_values(kh_gguf *out, const kh_gguf *words, size_t rows);
kh_token_kind kh_token_get_kind(const kh_tokenizer *tokenizer, int32_t id);
/* True for every id that ends a turn (eos, eot, and the ids that chat models use to end one). */
int kh_token_ends(const kh_tokenizer *tokenizer, int32_t id);
/* The piece as the vocabulary stores it (with its markers), not ended by a zero byte. */
kh_slice kh_token_raw(const kh_tokenizer *tokenizer, int32_t id);
/* Id of the exact stored piece, or -1. */
int32_t kh_token_find(const kh_tokenizer *tokenizer, const char *piece, size_t size);

enum {
    KH_TOKENIZE_SPECIAL = 1, /* markers such as <|im_end|> inside the text become their ids */
    KH_TOKENIZE_EDGES = 2    /* bos in front and eos behind, as the file asks for */
};

typedef struct kh_tokens {
    int32_t *ids;
    size_t count, capacity;
} kh_tokens;

/* Appends the ids of a text. Invalid UTF-8 is read as U+FFFD, one for each maximal ill-formed part
 * (Unicode, section 3.9), so what is tokenised is always valid UTF-8. Cost: linear in the text,
 * times a logarithm inside a word, whatever the text. */
kh_status kh_tokenize(const kh_tokenizer *tokenizer, kh_tokens *out, const char *text, size_t size,
                      unsigned flags);
/* The same for a text with parts that a stranger wrote: a control token that touches one of
 * `guards` (in order, not overlapping) stays text, whatever the flags say. */
typedef struct kh_text_range {
    size_t start, size; /* bytes */
} kh_text_range;
kh_status kh_tokenize_guarded(const kh_tokenizer *tokenizer, kh_tokens *out, const char *text,
                              size_t size, unsigned flags, const kh_text_range *guards,
                              size_t n_guards);
/* Two texts, as extractive question answering and sentence pairs need them. `types` (may be NULL)
 * gets a type id for every id that was appended to `out`; `ranges` (may be NULL) where the two
 * texts' own ids are. */
typedef struct kh_pair_ranges {
    size_t first, first_count, second, second_count; /* indices into out->ids */
} kh_pair_ranges;
kh_status kh_tokenize_pair(const kh_tokenizer *tokenizer, kh_tokens *out, kh_tokens *types,
                           kh_pair_ranges *ranges, kh_slice first, kh_slice second, unsigned flags);
kh_status kh_tokens_add(kh_tokens *tokens, int32_t id);
void kh_tokens_free(kh_tokens *tokens);

/* The bytes that a token stands for, appended to `out`; control tokens give nothing unless
 * KH_TOKENIZE_SPECIAL is set. `first` is set for the first token of a text: SentencePiece drops the
 * leading space there. */
kh_status kh_token_bytes(const kh_tokenizer *tokenizer, kh_buf *out, int32_t id, unsigned flags,
                         int first);

/* A stream of tokens that becomes text without ever showing half a character. Zero-initialise; a
 * stream that goes on where a prompt ended begins with `started` = 1, and keeps its leading
 * space. */
typedef struct kh_detokenizer {
    kh_buf held; /* bytes of an unfinished character */
    int started;
    int blank; /* a blank waits for the next word */
} kh_detokenizer;
/* Appends to `out` the whole characters that are now known. Bytes that can no longer become a
 * character come out as U+FFFD. Allocates only when a buffer must grow. */
kh_status kh_detokenize(const kh_tokenizer *tokenizer, kh_detokenizer *state, kh_buf *out,
                        int32_t id, unsigned flags);
/* What is left at the end of the stream, as U+FFFD. */
kh_status kh_detokenize_end(kh_detokenizer *state, kh_buf *out);
void kh_detokenizer_free(kh_detokenizer *state);

#endif
