/* wire/json_value.h: values of JSON as the command line and the server write them. Each returns NULL when there is
 * no memory. */
#ifndef KH_WIRE_JSON_VALUE_H
#define KH_WIRE_JSON_VALUE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

/* How documents are written: compact, members in their order, twelve digits. */
#define WIRE_FORM (JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(12))

/* Once, before the first value and the first thread: jansson's memory is that of base/alloc.h. */
void wire_setup(void);
/* Of this thread: begins to watch, and tells whether an allocation failed since. */
void wire_begin(void);
int wire_is_short(void);
json_t *wire_real(double value);                  /* null for NaN and infinities */
json_t *wire_text(const char *text, size_t size); /* invalid UTF-8 becomes U+FFFD */
json_t *wire_ids(const int32_t *ids, size_t count);

#endif
