/* jinja/jinja.h: a chat template as a program: parsed once, rendered for any conversation. */
#ifndef KH_JINJA_JINJA_H
#define KH_JINJA_JINJA_H

#include "base/buf.h"
#include "format/gguf.h"

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

typedef struct kh_jinja kh_jinja; /* read-only once parsed: any number of threads may render it */

/* What a rendering may cost; zeros are the defaults. Past a limit it fails with one sentence. */
typedef struct kh_jinja_limits {
    uint64_t steps; /* nodes, and 16 bytes of text each; 20 million */
    size_t memory;  /* bytes; 256 MiB */
    size_t output;  /* bytes; 64 MiB */
    unsigned depth; /* of expressions, statements, macros and values; 400 */
} kh_jinja_limits;

/* Parses a template as Hugging Face's environment does (trim_blocks, lstrip_blocks, loop controls).
 * What is not understood is KH_ERR_UNSUPPORTED, with the line. The text may go away afterwards. */
kh_status kh_jinja_parse(kh_jinja **out, kh_slice text);
void kh_jinja_free(kh_jinja *template);

/* A variable that may become a marker: bos_token and its like. */
typedef struct kh_jinja_token {
    const char *name;
    kh_slice text;
} kh_jinja_token;

/* Texts are JSON; where `data` is NULL the variable is none, and `kwargs` are none at all. */
typedef struct kh_jinja_input {
    kh_slice messages;  /* an array of objects: role, content (a string or parts), tool_calls ... */
    kh_slice tools;     /* an array of schemas */
    kh_slice documents; /* an array of objects */
    kh_slice kwargs;    /* an object: further variables */
    const kh_jinja_token *tokens;
    size_t token_count;
    int64_t
        time;   /* seconds since 1970 that strftime_now shows in UTC; 0: the clock, in local time */
    int closed; /* add_generation_prompt is false */
    kh_jinja_limits limits;
} kh_jinja_input;

/* A stretch of rendered text. */
typedef struct kh_chat_span {
    size_t start, size;
    int from_user; /* the text of a message; else the template's */
} kh_chat_span;

/* Appends the rendered text, and to `spans` (may be NULL) an array of kh_chat_span that covers
 * it: from_user where a byte comes from messages, tools, documents or kwargs. A role counts as
 * the template's when it is one of the usual words, because templates make markers of it.
 * Messages are prepared as Hugging Face does: members that are null go, reasoning is filled in
 * under each of its names. When the template itself refuses (raise_exception) the status is
 * KH_ERR_ARGUMENT and the sentence the template's own; other failures name the line. Nothing is
 * appended on failure. */
kh_status kh_jinja_render(const kh_jinja *template, kh_buf *out, kh_buf *spans,
                          const kh_jinja_input *input);

#endif
