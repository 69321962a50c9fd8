/* Reading JSON that somebody else wrote.
 *
 * jansson checks syntax, UTF-8, depth and (asked for here) duplicate names; what is added is one
 * sentence with the place, and a second reading for documents whose integers do not fit 64 bits.
 * Those are common: Python prints its "no limit" of a tokenizer, int(1e30), digit by digit. The
 * second reading takes every integer as a real, so numbers are always asked for by kh_json_number. */
#include "format/json.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/file.h"

#include <string.h>

/* jansson's own words, which may quote the document. */
static void clean(char *text)
{
    for (; *text; text++)
        if (*text < ' ' || *text > '~') *text = '?';
}

kh_status kh_json_parse(json_t **out, const char *text, size_t size, const char *name)
{
    json_error_t error;
    *out = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (!*out && json_error_code(&error) == json_error_numeric_overflow)
        *out = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &error);
    if (*out) return KH_OK;
    /* where its own memory runs out, jansson mostly says nothing at all */
    if (json_error_code(&error) == json_error_out_of_memory || !error.text[0])
        KH_FAIL(KH_ERR_MEMORY, "%s: no memory for this JSON document", name);
    clean(error.text);
    KH_FAIL(KH_ERR_FORMAT, "%s: JSON is expected; line %d, column %d: %s", name, error.line,
            error.column, error.text);
}

kh_status kh_json_read(json_t **out, const char *path, size_t limit)
{
    char *text;
    size_t size;
    *out = NULL;
    KH_TRY(kh_file_read(&text, &size, path, limit));
    kh_status status = kh_json_parse(out, text, size, path);
    kh_free(text);
    return status;
}

json_t *kh_json_get(const json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

int kh_json_number(const json_t *value, double *out)
{
    if (!json_is_number(value)) return 0;
    *out = json_number_value(value);
    return 1;
}

const char *kh_json_kind(const json_t *value)
{
    if (!value) return "nothing";
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a real number";
    case JSON_TRUE:
    case JSON_FALSE: return "a truth value";
    case JSON_NULL: break;
    }
    return "null";
}
