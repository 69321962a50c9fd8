/* gen/chat.h: chat templates: a list of messages becomes the text that the model was trained on. */
#ifndef KH_GEN_CHAT_H
#define KH_GEN_CHAT_H

#include "base/buf.h"
#include "format/gguf.h"

#include <keyhole/model.h>
#include <keyhole/status.h>
#include <stddef.h>

typedef struct kh_chat_format kh_chat_format; /* static, never freed */

/* The format by its name ("chatml", "llama2", "llama3", "gemma", "mistral", "qwen", "smollm" ...), or
 * NULL. */
const kh_chat_format *kh_chat_by_name(const char *name);
/* The names, separated by ", ", for messages and help. */
const char *kh_chat_names(void);
const char *kh_chat_name(const kh_chat_format *format);
/* Recognises the template text of a file. A file without a template: *out NULL and KH_OK. One that is
 * not recognised: KH_ERR_UNSUPPORTED and a sentence that names --chat-template. */
kh_status kh_chat_recognise(const kh_chat_format **out, const kh_gguf *file);

/* Appends the text of messages [0, n) (with the template's default system message where the
 * template has one and none is given) and, with `open`, the head of the assistant's turn. The text
 * holds special markers: tokenise it with KH_TOKENIZE_SPECIAL. It has no bos marker: the tokenizer
 * adds that. What a user wrote may contain marker text: `spans` tells callers that must not let it
 * pass which parts of the text were written by whom. */
typedef struct kh_chat_span {
    size_t start, size;
    int from_user; /* the text of a message: tokenise without KH_TOKENIZE_SPECIAL */
} kh_chat_span;
kh_status kh_chat_render(const kh_chat_format *format, kh_buf *out, kh_buf *spans,
                         const kh_chat_message *messages, size_t n, int open);
/* `spans` (may be NULL) receives an array of kh_chat_span that covers the text in order. */

#endif
