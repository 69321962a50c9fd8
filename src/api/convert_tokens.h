/* api/convert_tokens.h: the tokenizer of a Hugging Face folder as values of a GGUF file. */
#ifndef KH_API_CONVERT_TOKENS_H
#define KH_API_CONVERT_TOKENS_H

#include "format/gguf.h"

/* Adds tokenizer.ggml.* and the chat template of the folder that `path` is or lies in. The vocabulary
 * gets as many tokens as token_embd.weight of `out` has rows: unused ones at the end. */
kh_status kh_convert_tokens(kh_gguf *out, const char *path);

#endif
