/* api/convert_write.h: a model that is in memory, written. */
#ifndef KH_API_CONVERT_WRITE_H
#define KH_API_CONVERT_WRITE_H

#include "format/gguf.h"

/* Writes `file` in a type of <keyhole/convert.h>, as GGUF or, where `output` is a folder or ends in '/', as a Hugging
 * Face folder; what is there is replaced. `tokens`: the model or folder that it has its tokenizer from, as far as
 * its values do not hold one; NULL: it has none. */
kh_status kh_convert_write(const kh_gguf *file, const char *tokens, const char *output,
                           const char *type);

#endif
