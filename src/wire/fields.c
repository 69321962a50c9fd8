/* Members of a JSON object that somebody else wrote: requests, lines of prompts, files of edits.
 *
 * Readers are strict about types, because a text where a number is meant is a mistake of the one who sent it, and
 * lenient about absence: null and nothing are the same, as clients write either. Whole numbers may be written as 3.0. */
#include "wire/fields.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *wire_show(const json_t *value, char *text, size_t size)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: snprintf(text, size, "an object"); break;
    case JSON_ARRAY: snprintf(text, size, "an array"); break;
    case JSON_STRING: snprintf(text, size, "\"%.40s\"", json_string_value(value)); break;
    case JSON_INTEGER: snprintf(text, size, "%lld", (long long)json_integer_value(value)); break;
    case JSON_REAL: snprintf(text, size, "%g", json_real_value(value)); break;
    case JSON_TRUE: snprintf(text, size, "true"); break;
    case JSON_FALSE: snprintf(text, size, "false"); break;
    case JSON_NULL: snprintf(text, size, "null"); break;
    }
    return text;
}

const json_t *wire_member(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

static kh_status wrong(const char *name, const char *expected, const json_t *found)
{
    char text[80];
    KH_FAIL(KH_ERR_ARGUMENT, "%s: %s is expected, found %s", name, expected,
            wire_show(found, text, sizeof text));
}

kh_status wire_get_real(const json_t *object, const char *name, double *out, double least,
                        double most)
{
    const json_t *value = wire_member(object, name);
    if (!value) return KH_OK;
    double number = json_number_value(value);
    if (json_is_number(value) && number >= least && number <= most) {
        *out = number;
        return KH_OK;
    }
    char expected[80];
    if (isinf(most))
        snprintf(expected, sizeof expected, "a number of at least %g", least);
    else
        snprintf(expected, sizeof expected, "a number from %g to %g", least, most);
    return wrong(name, expected, value);
}

kh_status wire_get_int(const json_t *object, const char *name, int64_t *out, int64_t least,
                       int64_t most)
{
    const json_t *value = wire_member(object, name);
    if (!value) return KH_OK;
    double real = json_is_real(value) ? json_real_value(value) : 0.5;
    int whole = json_is_integer(value) || (fabs(real) < 9e15 && real == floor(real));
    int64_t number = json_is_integer(value) ? (int64_t)json_integer_value(value)
                     : whole                ? (int64_t)real
                                            : 0;
    if (whole && number >= least && number <= most) {
        *out = number;
        return KH_OK;
    }
    char expected[80];
    snprintf(expected, sizeof expected, "a whole number from %lld to %lld", (long long)least,
             (long long)most);
    return wrong(name, expected, value);
}

kh_status wire_get_flag(const json_t *object, const char *name, int *out)
{
    const json_t *value = wire_member(object, name);
    if (!value) return KH_OK;
    if (!json_is_boolean(value)) return wrong(name, "true or false", value);
    *out = json_is_true(value);
    return KH_OK;
}

kh_status wire_get_text(const json_t *object, const char *name, const char **out, size_t *size)
{
    const json_t *value = wire_member(object, name);
    if (!value) return KH_OK;
    if (!json_is_string(value)) return wrong(name, "a text", value);
    *out = json_string_value(value);
    if (size) *size = json_string_length(value);
    return KH_OK;
}

kh_status wire_get_array(const json_t *object, const char *name, const json_t **out)
{
    const json_t *value = wire_member(object, name);
    if (!value) return KH_OK;
    if (!json_is_array(value)) return wrong(name, "an array", value);
    *out = value;
    return KH_OK;
}

kh_status wire_get_object(const json_t *object, const char *name, const json_t **out)
{
    const json_t *value = wire_member(object, name);
    if (!value) return KH_OK;
    if (!json_is_object(value)) return wrong(name, "an object", value);
    *out = value;
    return KH_OK;
}

kh_status wire_read_ids(const json_t *array, const char *name, int vocabulary, int32_t **ids,
                        size_t *count)
{
    size_t n = json_array_size(array);
    int64_t least = vocabulary ? 0 : INT32_MIN, most = vocabulary ? vocabulary - 1 : INT32_MAX;
    int32_t *list = NULL;
    KH_TRY(kh_new(&list, n + 1, sizeof *list, "token ids"));
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(array, i);
        if (!json_is_integer(value) || json_integer_value(value) < least ||
            json_integer_value(value) > most) {
            char text[80];
            kh_free(list);
            KH_FAIL(KH_ERR_ARGUMENT, "%s: entry %zu: an id from %lld to %lld is expected, found %s",
                    name, i, (long long)least, (long long)most,
                    wire_show(value, text, sizeof text));
        }
        list[i] = (int32_t)json_integer_value(value);
    }
    *ids = list;
    *count = n;
    return KH_OK;
}

kh_status wire_get_ids(const json_t *object, const char *name, int vocabulary, int32_t **ids,
                       size_t *count)
{
    const json_t *array = NULL;
    KH_TRY(wire_get_array(object, name, &array));
    return array ? wire_read_ids(array, name, vocabulary, ids, count) : KH_OK;
}

kh_status wire_get_choice(const json_t *body, const char *name, const char *const *words, int *out)
{
    const char *text = NULL;
    KH_TRY(wire_get_text(body, name, &text, NULL));
    for (*out = 0; text && words[*out]; ++*out)
        if (strcmp(words[*out], text) == 0) return KH_OK;
    if (text)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: \"%.40s\" is none of those that docs/debugger.md lists", name,
                text);
    *out = 0;
    return KH_OK;
}
