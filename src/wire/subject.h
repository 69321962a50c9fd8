/* wire/subject.h: the text that a question of inspection is about, and how tokens are written. */
#ifndef KH_WIRE_SUBJECT_H
#define KH_WIRE_SUBJECT_H

#include "wire/fields.h"

#include <keyhole/keyhole.h>

/* Members of a request: prompt (text) or tokens (ids); template (the prompt becomes a user's message), prompt_tokens,
 * edits (texts). */
typedef struct wire_subject {
    int32_t *ids; /* [count] */
    size_t count, prompt;
    kh_edit *edits; /* [edit_count] */
    size_t edit_count;
} wire_subject;

kh_status wire_subject_read(wire_subject *out, const kh_model *model, const json_t *body);
void wire_subject_free(wire_subject *subject);

/* A position of the inspector's text: a number, negative ones from the end; absent: the last. */
kh_status wire_position(const json_t *body, const kh_inspector *inspector, size_t *out);
/* A token that a request names: an id, or a text of one token. Absent: *out as it is. */
kh_status wire_one_token(const json_t *body, const char *name, const kh_model *model, int32_t *out);
/* A part that a request names; absent: KH_ERR_ARGUMENT. */
kh_status wire_part(const json_t *body, const char *name, const kh_model *model, kh_component *out);

/* {"id", "text"} */
json_t *wire_token(const kh_model *model, int32_t id);
/* The same with logit, probability and rank. */
json_t *wire_scored(const kh_model *model, const kh_lens_token *token);
/* A list of them without probability and rank, of products that are no distribution. */
json_t *wire_raw_tokens(const kh_model *model, const kh_lens_token *tokens, size_t count);
json_t *wire_token_text(const kh_model *model, int32_t id);
json_t *wire_part_text(const kh_component *part);
/* {id, text, continuation, special} of a whole text. */
json_t *wire_text_tokens(const kh_model *model, const int32_t *ids, size_t count);
/* 1: the token goes on with a character that the one before it began. */
int wire_continues(const kh_model *model, int32_t id);

#endif
