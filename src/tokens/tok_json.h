/* tokens/tok_json.h: the parts of tokenizer.json; private to format/tok*. */
#ifndef KH_TOKENS_TOK_JSON_H
#define KH_TOKENS_TOK_JSON_H

#include "format/json.h"
#include "tokens/tok_impl.h"

/* Members of an object. What is there with another type is KH_ERR_FORMAT; `part` names the object.
 * A missing text leaves *out alone and *out is KH_OK, unless `must`. Texts lie in the document. */
kh_status kh_part_text(const json_t *object, const char *part, const char *key, int must,
                       kh_slice *out);
kh_status kh_part_flag(const json_t *object, const char *part, const char *key, int *out);
kh_status kh_part_count(const json_t *object, const char *part, const char *key, size_t *out);
/* A text of exactly one character. */
kh_status kh_part_char(const json_t *object, const char *part, const char *key, kh_slice *out);
/* The "type" of a part, a name. */
kh_status kh_part_type(const json_t *object, const char *part, kh_slice *out);
/* {"String": ...} or {"Regex": ...}: *text is it, in the store; *regex is set for the latter. */
kh_status kh_part_pattern(kh_tokenizer *t, const json_t *object, const char *part, kh_slice *text,
                          kh_regex **regex);
kh_status kh_part_unknown(const char *kind, kh_slice type, const char *known);

/* Each reads one part of tokenizer.json (NULL: it is missing or null) into the tokenizer. The
 * decoder and the post-processor come behind the vocabulary. */
kh_status kh_json_normalizer(kh_tokenizer *t, const json_t *part);
kh_status kh_json_pre_tokenizer(kh_tokenizer *t, const json_t *part);
kh_status kh_json_model(kh_tokenizer *t, const json_t *model, const json_t *added);
kh_status kh_json_added(kh_tokenizer *t, const json_t *added);
kh_status kh_json_post_processor(kh_tokenizer *t, const json_t *part);
kh_status kh_json_decoder(kh_tokenizer *t, const json_t *part);

#endif
