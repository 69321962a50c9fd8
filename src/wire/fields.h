/* wire/fields.h: members of a JSON object that somebody else wrote. Each reader leaves *out as it is where the member is
 * absent or null, and answers KH_ERR_ARGUMENT with a sentence that names the member, what is expected and what was
 * found. Texts and arrays stay the object's. */
#ifndef KH_WIRE_FIELDS_H
#define KH_WIRE_FIELDS_H

#include <jansson.h>
#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

kh_status wire_get_int(const json_t *object, const char *name, int64_t *out, int64_t least,
                       int64_t most);
kh_status wire_get_real(const json_t *object, const char *name, double *out, double least,
                        double most);
kh_status wire_get_flag(const json_t *object, const char *name, int *out);
/* `size` may be NULL. */
kh_status wire_get_text(const json_t *object, const char *name, const char **out, size_t *size);
kh_status wire_get_array(const json_t *object, const char *name, const json_t **out);
kh_status wire_get_object(const json_t *object, const char *name, const json_t **out);
/* Token ids from 0 to `vocabulary` - 1, or integers of any 32 bits where that is 0: *ids [*count], free with kh_free.
 * Absent: *ids as it is. */
kh_status wire_get_ids(const json_t *object, const char *name, int vocabulary, int32_t **ids,
                       size_t *count);
kh_status wire_read_ids(const json_t *array, const char *name, int vocabulary, int32_t **ids,
                        size_t *count);
/* The index of a text among `words`, which NULL ends; absent: 0. */
kh_status wire_get_choice(const json_t *object, const char *name, const char *const *words,
                          int *out);
/* The member; NULL where it is absent or null. */
const json_t *wire_member(const json_t *object, const char *name);
/* A value as a sentence shows it, at most `size` bytes: "7", "\"hot\"", "an array". Returns `text`. */
const char *wire_show(const json_t *value, char *text, size_t size);

#endif
