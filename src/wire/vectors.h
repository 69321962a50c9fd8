/* wire/vectors.h: control vectors by number, and what a question or a server makes of them. */
#ifndef KH_WIRE_VECTORS_H
#define KH_WIRE_VECTORS_H

#include "wire/fields.h"

#include <keyhole/keyhole.h>

typedef struct wire_vector {
    char *name;
    kh_control *control;
    double scale;
    int first, last; /* layers; 0 and 0: all */
} wire_vector;

typedef struct wire_vectors {
    wire_vector *items; /* [count]; its id is its place */
    size_t count, room;
} wire_vectors;

/* Takes the control vector, on failure too; copies the name. */
kh_status wire_vectors_add(wire_vectors *list, kh_control *control, const char *name, double scale,
                           int first, int last);
void wire_vectors_free(wire_vectors *list);
/* [{"id", "path", "scale", "layers": [first, last] | null}] */
json_t *wire_vectors_json(const wire_vectors *list);
/* Takes scales from [{"id", "scale", "layers"}]; those that are not named get 0, as with adapters. Nothing changes on
 * failure. */
kh_status wire_vectors_set(wire_vectors *list, const json_t *scales);
/* Adds up: with `scales` NULL as the list has them, else as they say. */
kh_status wire_vectors_sum(const wire_vectors *list, const json_t *scales, kh_steering *out);

#endif
