/* tokens/tok_export.h: the tokenizer of a GGUF file as tokenizer.json. */
#ifndef KH_TOKENS_TOK_EXPORT_H
#define KH_TOKENS_TOK_EXPORT_H

#include "format/gguf.h"

#include <keyhole/status.h>

/* Writes tokenizer.json and tokenizer_config.json into a folder. A file without a tokenizer: nothing. A
 * model that tokenizer.json has no word for is KH_ERR_UNSUPPORTED. */
kh_status kh_tokenizer_export(const kh_gguf *file, const char *folder);

#endif
