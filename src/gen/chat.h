/* gen/chat.h: chat: a list of messages becomes the text that the model was trained on, by a format
 * with a name or by the model's own template. */
#ifndef KH_GEN_CHAT_H
#define KH_GEN_CHAT_H

#include "base/buf.h"
#include "format/gguf.h"
#include "jinja/jinja.h"
#include "tokens/tokenizer.h"

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
/* Which format a template writes, by the markers in it; `eos` is the piece of the end token (the text
 * calls it eos_token). None of the known ones: *out NULL. */
kh_status kh_chat_recognise(const kh_chat_format **out, kh_slice text, kh_slice eos);

/* Appends the text of messages [0, n) (with the format's default system message where the format has
 * one and none is given) and, with `open`, the head of the assistant's turn. The text holds special
 * markers: tokenise it with KH_TOKENIZE_SPECIAL. It has no bos marker in front: the tokenizer adds
 * that. `spans` (may be NULL) receives an array of kh_chat_span that covers what was appended, in
 * order: what a user wrote may contain marker text, and kh_chat_tokenize does not let it pass. A role
 * that no format knows is KH_ERR_ARGUMENT. */
kh_status kh_chat_render(const kh_chat_format *format, kh_buf *out, kh_buf *spans,
                         const kh_chat_message *messages, size_t n, int open);

/* Appends the ids of a rendered text: markers of the template become their tokens, the same text in a
 * message stays text. Otherwise as kh_tokenize; `flags` may hold KH_TOKENIZE_EDGES. */
kh_status kh_chat_tokenize(const kh_tokenizer *tokenizer, kh_tokens *out, const kh_buf *text,
                           const kh_buf *spans, unsigned flags);

/* ---- the model's own template (chat_template.c) ---- */

/* The file's template of that name; NULL: "tool_use" where there is one and `tools` is set, else the
 * default. Empty: the file has none. */
kh_slice kh_chat_template(const kh_tokenizer *tokenizer, const char *name, int tools);
/* Appends messages as JSON: an array of {"role", "content"}. Ill-formed UTF-8 becomes U+FFFD. */
kh_status kh_chat_messages(kh_buf *json, const kh_chat_message *messages, size_t n);
/* Appends the text of a conversation and its spans, as kh_jinja_render does, with the special tokens of
 * the tokenizer as variables. */
struct kh_jinja_input;
kh_status kh_chat_template_render(const kh_tokenizer *tokenizer, kh_slice text, kh_buf *out,
                                  kh_buf *spans, const struct kh_jinja_input *input);

#endif
