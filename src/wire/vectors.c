/* Control vectors by number: GET gives the list, POST takes [{id, scale}], as llama-server has it for adapters. */
#include "wire/vectors.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "wire/json_value.h"

#include <string.h>

enum { MOST_VECTORS = 64 };

kh_status wire_vectors_add(wire_vectors *list, kh_control *control, const char *name, double scale,
                           int first, int last)
{
    kh_status status = KH_OK;
    if (list->count == MOST_VECTORS)
        status = kh_fail(KH_ERR_ARGUMENT, "%d control vectors are held already", MOST_VECTORS);
    if (status == KH_OK)
        status = kh_grow(&list->items, list->count, &list->room, sizeof *list->items, "vectors");
    char *copy = status == KH_OK ? kh_strndup(name, strlen(name)) : NULL;
    if (status == KH_OK && !copy) status = kh_fail(KH_ERR_MEMORY, "no memory for a name");
    if (status != KH_OK) {
        kh_control_close(control);
        return status;
    }
    list->items[list->count++] = (wire_vector){copy, control, scale, first, last};
    return KH_OK;
}

void wire_vectors_free(wire_vectors *list)
{
    for (size_t i = 0; i < list->count; i++) {
        kh_free(list->items[i].name);
        kh_control_close(list->items[i].control);
    }
    kh_free(list->items);
    *list = (wire_vectors){0};
}

json_t *wire_vectors_json(const wire_vectors *list)
{
    json_t *out = json_array();
    for (size_t i = 0; i < list->count; i++) {
        const wire_vector *v = &list->items[i];
        json_t *layers = v->first || v->last ? json_pack("[i, i]", v->first, v->last) : json_null();
        json_array_append_new(out, json_pack("{s:i, s:o, s:o, s:o}", "id", (int)i, "path",
                                             wire_text(v->name, strlen(v->name)), "scale",
                                             wire_real(v->scale), "layers", layers));
    }
    return out;
}

typedef struct asked {
    int64_t id, first, last;
    double scale;
} asked;

static kh_status read_one(const wire_vectors *list, const json_t *entry, asked *out)
{
    const json_t *layers = NULL;
    *out = (asked){.id = -1};
    if (!json_is_object(entry))
        KH_FAIL(KH_ERR_ARGUMENT, "control vectors: [{\"id\": 0, \"scale\": 1.0}] is expected");
    if (list->count == 0) KH_FAIL(KH_ERR_NOT_FOUND, "there are no control vectors");
    KH_TRY(wire_get_int(entry, "id", &out->id, 0, (int64_t)list->count - 1));
    KH_TRY(wire_get_real(entry, "scale", &out->scale, -1e6, 1e6));
    KH_TRY(wire_get_array(entry, "layers", &layers));
    if (out->id < 0) KH_FAIL(KH_ERR_ARGUMENT, "id: the number of a control vector is expected");
    out->first = list->items[out->id].first;
    out->last = list->items[out->id].last;
    if (!layers) return KH_OK;
    out->first = json_integer_value(json_array_get(layers, 0));
    out->last = json_integer_value(json_array_get(layers, 1));
    if (json_array_size(layers) != 2 || out->first < 0 || out->last < out->first ||
        out->last > 1 << 20)
        KH_FAIL(KH_ERR_ARGUMENT, "layers: the first and the last are expected");
    return KH_OK;
}

kh_status wire_vectors_set(wire_vectors *list, const json_t *scales)
{
    asked one;
    for (size_t i = 0; i < json_array_size(scales); i++)
        KH_TRY(read_one(list, json_array_get(scales, i), &one));
    for (size_t i = 0; i < list->count; i++) list->items[i].scale = 0;
    for (size_t i = 0; i < json_array_size(scales); i++) {
        KH_TRY(read_one(list, json_array_get(scales, i), &one));
        wire_vector *v = &list->items[one.id];
        v->scale = one.scale;
        v->first = (int)one.first;
        v->last = (int)one.last;
    }
    return KH_OK;
}

kh_status wire_vectors_sum(const wire_vectors *list, const json_t *scales, kh_steering *out)
{
    asked one;
    for (size_t i = 0; !scales && i < list->count; i++) {
        const wire_vector *v = &list->items[i];
        KH_TRY(kh_steering_add(out, v->control, (float)v->scale, v->first, v->last));
    }
    for (size_t i = 0; i < json_array_size(scales); i++) {
        KH_TRY(read_one(list, json_array_get(scales, i), &one));
        KH_TRY(kh_steering_add(out, list->items[one.id].control, (float)one.scale, (int)one.first,
                               (int)one.last));
    }
    return KH_OK;
}
