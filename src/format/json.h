/* format/json.h: JSON documents from outside, over jansson. jansson's memory comes from where the
 * program told it to take it (json_set_alloc_funcs: kh_alloc in our program and tests); a library
 * must not change that for its host. */
#ifndef KH_FORMAT_JSON_H
#define KH_FORMAT_JSON_H

#include <jansson.h>
#include <keyhole/status.h>
#include <stddef.h>

/* Parses one whole document; the caller json_decref()s *out. `name` names it in sentences. Refused:
 * anything that is not JSON, duplicate names in an object, nesting deeper than jansson's limit
 * (2,048). A document with an integer beyond 64 bits ("model_max_length": 1e30 written out) has all
 * its integers as reals, which kh_json_number hides. */
kh_status kh_json_parse(json_t **out, const char *text, size_t size, const char *name);
/* The same for a file of at most `limit` bytes. */
kh_status kh_json_read(json_t **out, const char *path, size_t limit);

/* The member of an object that is there and not null, else NULL; NULL too when `object` is none. */
json_t *kh_json_get(const json_t *object, const char *key);
/* True for integers and reals; *out is its value. Integers up to 2^53 are exact. */
int kh_json_number(const json_t *value, double *out);
/* "a string", "an object": for sentences. */
const char *kh_json_kind(const json_t *value);

#endif
