/* A GGUF model that was never a file: put together in memory, value by value, tensor by tensor.
 *
 * A Hugging Face folder is opened, and a conversion is described, as such a file, so that whoever
 * reads a model knows one object only. It is a struct kh_gguf like any other:
 *
 *     parts[0]     values, keys, texts; no mapping
 *     parts[1..]   mappings that tensors lie in (kh_gguf_keep_map)
 *     tensors      data are borrowed
 *     kept         what is closed with the file
 *
 * Every value lies in one block of its own, which the file keeps:
 *
 *     | slices of its strings | key | the value as a file holds it |
 *
 * A string thus has its length in front, as in a file: the writer and the identity take the bytes of
 * a parsed and of a composed value alike. Blocks never move; the tables of values and tensors do, by
 * doubling, and values that are one string have their slice in the block instead of part->texts.
 *
 * Nothing is half done: room in every table is taken first, then the block, then the name is entered.
 *
 * The identity of a composed file is a hash of its values, of the tensors' names and shapes and of
 * samples of their data: the same folder has the same one whenever it is opened. */
#include "format/gguf_part.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "tensor/half.h"

#include <stdio.h>
#include <string.h>

static void free_block(void *block)
{
    kh_free(block);
}

kh_status kh_gguf_new(kh_gguf **out, const char *path)
{
    kh_gguf *file;
    *out = NULL;
    KH_TRY(kh_gguf_begin(&file, path));
    kh_gguf_part *part = &file->parts[0];
    part->composed = 1;
    part->version = 3;
    part->alignment = 32;
    part->path = kh_strdup(path);
    kh_status status = part->path
                           ? kh_names_init(&part->keys, 16, "the metadata of a model")
                           : kh_fail(KH_ERR_MEMORY, "no memory for the name of a model file");
    if (status == KH_OK) status = kh_names_init(&file->names, 16, "the tensors of a model");
    if (status != KH_OK) {
        kh_gguf_close(file);
        return status;
    }
    *out = file;
    return KH_OK;
}

kh_status kh_gguf_keep(kh_gguf *file, void (*close)(void *object), void *object)
{
    kh_status status = kh_grow(&file->kept, file->n_kept, &file->kept_room, sizeof *file->kept,
                               "what a model keeps");
    if (status != KH_OK)
        close(object);
    else
        file->kept[file->n_kept++] = (kh_gguf_kept){close, object};
    return status;
}

kh_status kh_gguf_keep_map(kh_gguf *file, kh_map *map)
{
    kh_gguf_part *parts;
    kh_status status = kh_new(&parts, file->n_parts + 1, sizeof *parts, "the parts of a model");
    if (status != KH_OK) {
        kh_map_close(map);
        return status;
    }
    memcpy(parts, file->parts, file->n_parts * sizeof *parts);
    parts[file->n_parts++] = (kh_gguf_part){.map = *map, .mapped = 1};
    kh_free(file->parts);
    file->parts = parts;
    *map = (kh_map){0};
    return KH_OK;
}

/* ---- values */

static kh_status check_name(const kh_gguf *file, const char *what, kh_slice name, size_t limit)
{
    if (name.size == 0 || name.size > limit)
        KH_FAIL(KH_ERR_FORMAT, "%s: %s: a name of 1 to %zu bytes is expected, found %zu",
                file->path, what, limit, name.size);
    if (memchr(name.data, 0, name.size))
        KH_FAIL(KH_ERR_FORMAT, "%s: %s '%s': the name holds a zero byte", file->path, what,
                kh_gguf_show(name).text);
    return KH_OK;
}

/* A block for a value with `strings` slices and `size` bytes, and room for it in every table. */
static kh_status take_block(kh_gguf *file, kh_slice key, size_t strings, size_t size,
                            kh_gguf_value *value)
{
    kh_gguf_part *part = &file->parts[0];
    char *block;
    KH_TRY(check_name(file, "key", key, KH_GGUF_MAX_KEY));
    if (kh_names_find(&part->keys, key) < part->n_values)
        KH_FAIL(KH_ERR_FORMAT, "%s: key '%s' appears twice", file->path, kh_gguf_show(key).text);
    KH_TRY(kh_grow(&part->values, part->n_values, &file->values_room, sizeof *part->values,
                   "the metadata of a model"));
    KH_TRY(kh_names_grow(&part->keys, "the metadata of a model"));
    size_t slices = strings * sizeof(kh_slice);
    KH_TRY(kh_new(&block, slices + key.size + size, 1, "the metadata of a model"));
    KH_TRY(kh_gguf_keep(file, free_block, block));
    memcpy(block + slices, key.data, key.size);
    value->key = (kh_slice){block + slices, key.size};
    value->data = (const uint8_t *)block + slices + key.size;
    if (strings > 0) value->strings = (kh_slice *)(void *)block;
    return KH_OK;
}

static void enter(kh_gguf *file, const kh_gguf_value *value)
{
    kh_gguf_part *part = &file->parts[0];
    kh_names_add(&part->keys, value->key);
    part->values[part->n_values++] = *value;
}

/* value->data inside its block, which is ours to fill. */
static uint8_t *fresh(const kh_gguf_value *value)
{
    uint8_t *data;
    memcpy(&data, &value->data, sizeof data);
    return data;
}

static kh_status add_fixed(kh_gguf *file, kh_slice key, kh_gguf_value value, const void *bytes)
{
    size_t each = kh_gguf_kind_bytes(value.element), size;
    if (__builtin_mul_overflow(each, (size_t)value.count, &size))
        KH_FAIL(KH_ERR_ARGUMENT, "%s: key '%s': an array of %llu elements", file->path,
                kh_gguf_show(key).text, (unsigned long long)value.count);
    const uint8_t *from = bytes;
    for (size_t i = 0; value.element == KH_GGUF_BOOL && i < size; i++)
        if (from[i] > 1)
            KH_FAIL(KH_ERR_ARGUMENT, "%s: key '%s': a truth value is 0 or 1, found %d", file->path,
                    kh_gguf_show(key).text, from[i]);
    KH_TRY(take_block(file, key, 0, size, &value));
    if (size > 0) memcpy(fresh(&value), bytes, size);
    enter(file, &value);
    return KH_OK;
}

static kh_status add_strings(kh_gguf *file, kh_slice key, kh_gguf_value value,
                             const kh_slice *strings)
{
    size_t count = (size_t)value.count, size = 0;
    for (size_t i = 0; i < count; i++) size += sizeof(uint64_t) + strings[i].size;
    KH_TRY(take_block(file, key, count, size, &value));
    uint8_t *to = fresh(&value);
    for (size_t i = 0; i < count; i++) {
        uint64_t length = strings[i].size;
        memcpy(to, &length, sizeof length);
        to += sizeof length;
        if (length > 0) memcpy(to, strings[i].data, (size_t)length);
        value.strings[i] = (kh_slice){(const char *)to, (size_t)length};
        to += length;
    }
    enter(file, &value);
    return KH_OK;
}

static kh_slice text(const char *key)
{
    return (kh_slice){key, strlen(key)};
}

static kh_gguf_value scalar(kh_gguf_kind kind)
{
    return (kh_gguf_value){.kind = kind, .element = kind, .count = 1};
}

static kh_gguf_value array(kh_gguf_kind element, size_t count)
{
    return (kh_gguf_value){.kind = KH_GGUF_ARRAY, .element = element, .count = count};
}

/* The largest natural number of a kind of integers; 0 for other kinds. */
static uint64_t most(kh_gguf_kind kind)
{
    switch (kind) {
    case KH_GGUF_U8: return UINT8_MAX;
    case KH_GGUF_I8: return INT8_MAX;
    case KH_GGUF_U16: return UINT16_MAX;
    case KH_GGUF_I16: return INT16_MAX;
    case KH_GGUF_U32: return UINT32_MAX;
    case KH_GGUF_I32: return INT32_MAX;
    case KH_GGUF_U64: return UINT64_MAX;
    case KH_GGUF_I64: return INT64_MAX;
    case KH_GGUF_BOOL: return 1;
    case KH_GGUF_F32:
    case KH_GGUF_F64:
    case KH_GGUF_STRING:
    case KH_GGUF_ARRAY: break;
    }
    return 0;
}

/* Little-endian, as the format and the processors that this runs on are: the low bytes are the value. */
kh_status kh_gguf_set_u64(kh_gguf *file, const char *key, kh_gguf_kind kind, uint64_t value)
{
    if (most(kind) == 0)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: key '%s': a kind of integers is expected", file->path, key);
    if (value > most(kind))
        KH_FAIL(KH_ERR_ARGUMENT, "%s: key '%s': %llu does not fit; at most %llu does", file->path,
                key, (unsigned long long)value, (unsigned long long)most(kind));
    return add_fixed(file, text(key), scalar(kind), &value);
}

kh_status kh_gguf_set_f32(kh_gguf *file, const char *key, float value)
{
    kh_f32 narrow = value;
    return add_fixed(file, text(key), scalar(KH_GGUF_F32), &narrow);
}

kh_status kh_gguf_set_string(kh_gguf *file, const char *key, kh_slice value)
{
    return add_strings(file, text(key), scalar(KH_GGUF_STRING), &value);
}

kh_status kh_gguf_set_strings(kh_gguf *file, const char *key, const kh_slice *values, size_t count)
{
    return add_strings(file, text(key), array(KH_GGUF_STRING, count), values);
}

kh_status kh_gguf_set_array(kh_gguf *file, const char *key, kh_gguf_kind element,
                            const void *values, size_t count)
{
    if (kh_gguf_kind_bytes(element) == 0)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: key '%s': an array of numbers is expected", file->path, key);
    return add_fixed(file, text(key), array(element, count), values);
}

kh_status kh_gguf_set_value(kh_gguf *file, const kh_gguf_value *value)
{
    kh_gguf_value copy = {.kind = value->kind, .element = value->element, .count = value->count};
    if (value->element == KH_GGUF_STRING)
        return add_strings(file, value->key, copy, value->strings);
    return add_fixed(file, value->key, copy, value->data);
}

/* ---- tensors */

kh_status kh_gguf_add_tensor(kh_gguf *file, const char *name, kh_type type, int n_dims,
                             const uint64_t *dims, const void *data)
{
    kh_tensor t = {.n_dims = n_dims, .dims = {1, 1, 1, 1}, .data = data};
    char what[128], *copy;
    KH_TRY(check_name(file, "tensor", text(name), KH_GGUF_MAX_NAME));
    snprintf(what, sizeof what, "tensor '%s'", kh_gguf_show(text(name)).text);
    if (n_dims < 1 || n_dims > 4)
        KH_FAIL(KH_ERR_FORMAT, "%s: %s: 1 to 4 dimensions are expected, found %d", file->path, what,
                n_dims);
    memcpy(t.dims, dims, (size_t)n_dims * sizeof *dims);
    KH_TRY(kh_gguf_measure(&t, (uint32_t)type, file->path, what));
    if ((uintptr_t)data % (type == KH_TYPE_F32 ? 4 : 2) != 0)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: %s: its data are not aligned", file->path, what);
    if (kh_gguf_tensor(file, name))
        KH_FAIL(KH_ERR_FORMAT, "%s: %s appears twice", file->path, what);
    KH_TRY(kh_grow(&file->tensors, file->names.count, &file->tensors_room, sizeof *file->tensors,
                   "the tensors of a model"));
    KH_TRY(kh_names_grow(&file->names, "the tensors of a model"));
    copy = kh_strdup(name);
    if (!copy) KH_FAIL(KH_ERR_MEMORY, "no memory for the name of a tensor");
    KH_TRY(kh_gguf_keep(file, free_block, copy));
    t.name = copy;
    file->tensors[file->names.count] = t;
    kh_names_add(&file->names, text(copy));
    return KH_OK;
}

/* ---- what replaces the bytes of a mapping */

/* Bytes of a value as a file holds it. */
static size_t value_bytes(const kh_gguf_value *value)
{
    size_t size = 0, count = (size_t)value->count;
    if (value->element != KH_GGUF_STRING) return kh_gguf_kind_bytes(value->element) * count;
    for (size_t i = 0; i < count; i++) size += sizeof(uint64_t) + value->strings[i].size;
    return size;
}

uint64_t kh_gguf_composed_size(const kh_gguf *file)
{
    const kh_gguf_part *part = &file->parts[0];
    uint64_t size = 0;
    for (size_t i = 0; i < part->n_values; i++)
        size += part->values[i].key.size + value_bytes(&part->values[i]);
    for (size_t i = 0; i < file->names.count; i++) size += file->tensors[i].size;
    return size;
}

/* A folder that is renamed stays the same model. */
static int is_name(const kh_gguf_value *value)
{
    static const char name[] = "general.name";
    return value->key.size == sizeof name - 1 &&
           memcmp(value->key.data, name, sizeof name - 1) == 0;
}

uint64_t kh_gguf_composed_identity(const kh_gguf *file, uint64_t h)
{
    enum { SAMPLE = 4 << 10 };
    const kh_gguf_part *part = &file->parts[0];
    for (size_t i = 0; i < part->n_values; i++) {
        const kh_gguf_value *value = &part->values[i];
        if (is_name(value)) continue;
        uint64_t form[4] = {value->key.size, value->kind, value->element, value->count};
        h = kh_gguf_mix(h, form, sizeof form);
        h = kh_gguf_mix(h, value->key.data, value->key.size);
        h = kh_gguf_mix(h, value->data, value_bytes(value));
    }
    for (size_t i = 0; i < file->names.count; i++) {
        const kh_tensor *t = &file->tensors[i];
        uint64_t form[6] = {(uint64_t)t->type, (uint64_t)t->n_dims, t->dims[0],
                            t->dims[1],        t->dims[2],          t->dims[3]};
        h = kh_gguf_mix(h, t->name, strlen(t->name) + 1);
        h = kh_gguf_mix(h, form, sizeof form);
        if (!t->data) continue;
        const char *data = t->data;
        size_t head = t->size < SAMPLE ? t->size : SAMPLE;
        h = kh_gguf_mix(h, data, head);
        h = kh_gguf_mix(h, data + (t->size - head) / 2, head);
        h = kh_gguf_mix(h, data + t->size - head, head);
    }
    return h;
}
