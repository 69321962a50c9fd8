/* Typed reading of metadata.
 *
 * Writers disagree about the width of integers (the same key is u32 in one file and u64 or i32 in
 * the next), so any integer is an integer when its value fits; a real may be stored as either float
 * or as an integer. Everything else is a sentence that names file, key, what was expected and what
 * was found. Values are unaligned in the mapping: they are copied out, never cast. */
#include "format/gguf_part.h"

#include "base/fail.h"
#include "tensor/half.h"

#include <math.h>
#include <string.h>

static const char *const kind_names[] = {
    [KH_GGUF_U8] = "u8",       [KH_GGUF_I8] = "i8",     [KH_GGUF_U16] = "u16",
    [KH_GGUF_I16] = "i16",     [KH_GGUF_U32] = "u32",   [KH_GGUF_I32] = "i32",
    [KH_GGUF_F32] = "f32",     [KH_GGUF_BOOL] = "bool", [KH_GGUF_STRING] = "string",
    [KH_GGUF_ARRAY] = "array", [KH_GGUF_U64] = "u64",   [KH_GGUF_I64] = "i64",
    [KH_GGUF_F64] = "f64",
};

typedef enum form { FORM_NONE, FORM_UNSIGNED, FORM_SIGNED, FORM_REAL } form;

typedef struct number {
    form form;
    uint64_t natural;
    int64_t integer;
    double real;
} number;

#define FETCH(name, type, wide, field, kind)                                                       \
    static number name(const uint8_t *data, uint64_t index)                                        \
    {                                                                                              \
        type value;                                                                                \
        memcpy(&value, data + index * sizeof value, sizeof value);                                 \
        return (number){.form = kind, .field = (wide)value};                                       \
    }
FETCH(fetch_u8, uint8_t, uint64_t, natural, FORM_UNSIGNED)
FETCH(fetch_i8, int8_t, int64_t, integer, FORM_SIGNED)
FETCH(fetch_u16, uint16_t, uint64_t, natural, FORM_UNSIGNED)
FETCH(fetch_i16, int16_t, int64_t, integer, FORM_SIGNED)
FETCH(fetch_u32, uint32_t, uint64_t, natural, FORM_UNSIGNED)
FETCH(fetch_i32, int32_t, int64_t, integer, FORM_SIGNED)
FETCH(fetch_u64, uint64_t, uint64_t, natural, FORM_UNSIGNED)
FETCH(fetch_i64, int64_t, int64_t, integer, FORM_SIGNED)
FETCH(fetch_f32, kh_f32, double, real, FORM_REAL)
FETCH(fetch_f64, double, double, real, FORM_REAL)

static number fetch(kh_gguf_kind kind, const uint8_t *data, uint64_t index)
{
    switch (kind) {
    case KH_GGUF_U8:
    case KH_GGUF_BOOL: return fetch_u8(data, index);
    case KH_GGUF_I8: return fetch_i8(data, index);
    case KH_GGUF_U16: return fetch_u16(data, index);
    case KH_GGUF_I16: return fetch_i16(data, index);
    case KH_GGUF_U32: return fetch_u32(data, index);
    case KH_GGUF_I32: return fetch_i32(data, index);
    case KH_GGUF_U64: return fetch_u64(data, index);
    case KH_GGUF_I64: return fetch_i64(data, index);
    case KH_GGUF_F32: return fetch_f32(data, index);
    case KH_GGUF_F64: return fetch_f64(data, index);
    case KH_GGUF_STRING:
    case KH_GGUF_ARRAY: break;
    }
    return (number){.form = FORM_NONE};
}

static kh_status wrong_kind(const kh_gguf_value *value, const char *expected)
{
    int array = value->kind == KH_GGUF_ARRAY;
    return kh_fail(KH_ERR_FORMAT, "key '%s': %s is expected, found %s%s",
                   kh_gguf_show(value->key).text, expected, array ? "array of " : "",
                   kind_names[value->element]);
}

/* A scalar answers for every index. */
static kh_status fetch_element(const kh_gguf_value *value, uint64_t index, number *out)
{
    if (value->kind != KH_GGUF_ARRAY) index = 0;
    if (index >= value->count)
        KH_FAIL(KH_ERR_ARGUMENT, "key '%s': element %llu is asked for, the array has %llu",
                kh_gguf_show(value->key).text, (unsigned long long)index,
                (unsigned long long)value->count);
    *out = fetch(value->element, value->data, index);
    return KH_OK;
}

kh_status kh_gguf_element_u64(const kh_gguf_value *value, uint64_t index, uint64_t *out)
{
    number n = {0};
    KH_TRY(fetch_element(value, index, &n));
    if (n.form == FORM_SIGNED && n.integer < 0)
        KH_FAIL(KH_ERR_FORMAT, "key '%s': a natural number is expected, element %llu is %lld",
                kh_gguf_show(value->key).text, (unsigned long long)index, (long long)n.integer);
    if (n.form != FORM_SIGNED && n.form != FORM_UNSIGNED) return wrong_kind(value, "an integer");
    *out = n.form == FORM_SIGNED ? (uint64_t)n.integer : n.natural;
    return KH_OK;
}

kh_status kh_gguf_element_f64(const kh_gguf_value *value, uint64_t index, double *out)
{
    number n = {0};
    KH_TRY(fetch_element(value, index, &n));
    if (n.form == FORM_NONE || value->element == KH_GGUF_BOOL) return wrong_kind(value, "a number");
    double real = n.form == FORM_REAL     ? n.real
                  : n.form == FORM_SIGNED ? (double)n.integer
                                          : (double)n.natural;
    if (isnan(real))
        KH_FAIL(KH_ERR_FORMAT, "key '%s': a number is expected, element %llu is NaN",
                kh_gguf_show(value->key).text, (unsigned long long)index);
    *out = real;
    return KH_OK;
}

static kh_status missing(const char *path, const char *key)
{
    return kh_fail(KH_ERR_FORMAT, "%s: key '%s' is missing", path, key);
}

static kh_status with_path(kh_status status, const char *path)
{
    return status == KH_OK ? status : kh_fail_context(status, "%s", path);
}

kh_status kh_gguf_part_opt_u64(const kh_gguf_part *part, const char *key, uint64_t *out,
                               uint64_t max)
{
    const kh_gguf_value *value = kh_gguf_part_find(part, key);
    if (!value) return KH_OK;
    if (value->kind == KH_GGUF_ARRAY || value->kind == KH_GGUF_BOOL)
        return with_path(wrong_kind(value, "an integer"), part->path);
    uint64_t found = 0;
    KH_TRY(with_path(kh_gguf_element_u64(value, 0, &found), part->path));
    if (found > max)
        KH_FAIL(KH_ERR_FORMAT, "%s: key '%s' is %llu; at most %llu is expected", part->path, key,
                (unsigned long long)found, (unsigned long long)max);
    *out = found;
    return KH_OK;
}

kh_status kh_gguf_opt_u64(const kh_gguf *file, const char *key, uint64_t *out, uint64_t max)
{
    return kh_gguf_part_opt_u64(kh_gguf_first_part(file), key, out, max);
}

kh_status kh_gguf_u64(const kh_gguf *file, const char *key, uint64_t *out, uint64_t max)
{
    if (!kh_gguf_find(file, key)) return missing(kh_gguf_path(file), key);
    return kh_gguf_opt_u64(file, key, out, max);
}

kh_status kh_gguf_opt_f64(const kh_gguf *file, const char *key, double *out)
{
    const kh_gguf_value *value = kh_gguf_find(file, key);
    if (!value) return KH_OK;
    double found = 0;
    kh_status status = value->kind == KH_GGUF_ARRAY ? wrong_kind(value, "a number")
                                                    : kh_gguf_element_f64(value, 0, &found);
    if (status == KH_OK && isinf(found))
        status = kh_fail(KH_ERR_FORMAT, "key '%s': a finite number is expected, found %g", key,
                         found);
    if (status == KH_OK) *out = found;
    return with_path(status, kh_gguf_path(file));
}

kh_status kh_gguf_opt_bool(const kh_gguf *file, const char *key, int *out)
{
    const kh_gguf_value *value = kh_gguf_find(file, key);
    if (!value) return KH_OK;
    if (value->kind != KH_GGUF_BOOL)
        return with_path(wrong_kind(value, "bool"), kh_gguf_path(file));
    *out = value->data[0];
    return KH_OK;
}

kh_status kh_gguf_opt_string(const kh_gguf *file, const char *key, kh_slice *out)
{
    const kh_gguf_value *value = kh_gguf_find(file, key);
    if (!value) return KH_OK;
    if (value->kind != KH_GGUF_STRING)
        return with_path(wrong_kind(value, "string"), kh_gguf_path(file));
    *out = value->strings[0];
    return KH_OK;
}
