/* One GGUF file: header, metadata, tensor descriptions, and where the data lie.
 *
 *     | "GGUF" | version 4 | tensors 8 | keys 8 |                              little-endian
 *     | key: length 8, bytes | kind 4 | value |  ...  once per key
 *     | name: length 8, bytes | n 4 | n dimensions of 8 | type 4 | offset 8 | ...  once per tensor
 *     | padding to general.alignment | tensor data, each at its offset ...
 *
 * (GGUF specification, versions 2 and 3; version 1 had 4-byte lengths and no one writes it.)
 *
 * Nothing in the file is believed. One cursor moves over the mapping; each step asks room() for the
 * bytes that it is about to read, and each count is held against the bytes that remain, at the
 * smallest size an element can have, before memory is taken for it: what we allocate is bounded by a
 * small multiple of the file's own size, whatever it announces. Parsing touches the header only, one
 * time, in order; no page of tensor data is read here.
 *
 * Refused although the specification allows it: arrays of arrays (no writer makes them). Refused
 * because nothing good contains it: duplicate keys or tensors, zero dimensions, truth values other
 * than 0 and 1, alignments that are no power of two or below 8 (blocks hold 2- and 4-byte members). */
#include "format/gguf_part.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    MAX_KEYS = 1 << 16,
    MAX_TENSORS = 1 << 20,
    LEAST_KEY = 8 + 1 + 4 + 1,            /* a key of one byte with a value of one */
    LEAST_TENSOR = 8 + 1 + 4 + 8 + 4 + 8, /* a name of one byte, one dimension */
    LEAST_ALIGNMENT = 8,
    MOST_ALIGNMENT = 65536
};

typedef struct cursor {
    const char *path;
    const uint8_t *data;
    size_t size, at;
    char what[128]; /* what is being read, for sentences */
} cursor;

kh_shown kh_gguf_show(kh_slice name)
{
    kh_shown shown;
    size_t n = name.size < sizeof shown.text ? name.size : sizeof shown.text - 1;
    for (size_t i = 0; i < n; i++) {
        char c = name.data[i];
        shown.text[i] = c >= ' ' && c <= '~' ? c : '?';
    }
    shown.text[n] = 0;
    if (n < name.size) memcpy(shown.text + n - 3, "...", 3);
    return shown;
}

__attribute__((format(printf, 2, 3))) static void say(cursor *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(c->what, sizeof c->what, format, args);
    va_end(args);
}

/* Are there n elements of at least `each` bytes ahead? */
static kh_status room(const cursor *c, uint64_t n, uint64_t each)
{
    uint64_t left = c->size - c->at;
    if (n <= left / each) return KH_OK;
    if (n > UINT64_MAX / each)
        KH_FAIL(KH_ERR_FORMAT, "%s: %s: byte %zu announces %llu elements; the file has %zu bytes",
                c->path, c->what, c->at, (unsigned long long)n, c->size);
    KH_FAIL(KH_ERR_FORMAT,
            "%s: %s: truncated: %llu bytes are expected from byte %zu on, %llu of them are missing",
            c->path, c->what, (unsigned long long)(n * each), c->at,
            (unsigned long long)(n * each - left));
}

static kh_status take(cursor *c, void *out, size_t n)
{
    KH_TRY(room(c, n, 1));
    memcpy(out, c->data + c->at, n);
    c->at += n;
    return KH_OK;
}

static kh_status take_slice(cursor *c, kh_slice *out)
{
    uint64_t size;
    KH_TRY(take(c, &size, sizeof size));
    KH_TRY(room(c, size, 1));
    *out = (kh_slice){(const char *)c->data + c->at, (size_t)size};
    c->at += (size_t)size;
    return KH_OK;
}

static kh_status take_name(cursor *c, kh_slice *out, size_t limit)
{
    KH_TRY(take_slice(c, out));
    if (out->size == 0 || out->size > limit)
        KH_FAIL(KH_ERR_FORMAT, "%s: %s: a name of 1 to %zu bytes is expected, found %zu", c->path,
                c->what, limit, out->size);
    if (memchr(out->data, 0, out->size))
        KH_FAIL(KH_ERR_FORMAT, "%s: %s: the name holds a zero byte", c->path, c->what);
    return KH_OK;
}

/* Bytes of a value of fixed size. */
static const uint8_t kind_bytes[] = {
    [KH_GGUF_U8] = 1,  [KH_GGUF_I8] = 1,  [KH_GGUF_U16] = 2, [KH_GGUF_I16] = 2,
    [KH_GGUF_U32] = 4, [KH_GGUF_I32] = 4, [KH_GGUF_F32] = 4, [KH_GGUF_BOOL] = 1,
    [KH_GGUF_U64] = 8, [KH_GGUF_I64] = 8, [KH_GGUF_F64] = 8,
};

size_t kh_gguf_kind_bytes(kh_gguf_kind kind)
{
    return kind_bytes[kind];
}

static kh_status take_kind(cursor *c, kh_gguf_kind *out)
{
    uint32_t kind;
    KH_TRY(take(c, &kind, sizeof kind));
    if (kind > KH_GGUF_F64)
        KH_FAIL(KH_ERR_FORMAT, "%s: %s: a value kind of 0 to %d is expected, found %u", c->path,
                c->what, KH_GGUF_F64, kind);
    *out = (kh_gguf_kind)kind;
    return KH_OK;
}

static kh_status take_strings(cursor *c, kh_gguf_value *value)
{
    if (value->count == 0) return KH_OK;
    for (uint64_t i = 0; i < value->count; i++) KH_TRY(take_slice(c, &value->strings[i]));
    return KH_OK;
}

static kh_status take_fixed(cursor *c, kh_gguf_value *value, kh_gguf_kind kind)
{
    KH_TRY(room(c, value->count, kind_bytes[kind]));
    size_t size = (size_t)value->count * kind_bytes[kind];
    for (size_t i = 0; kind == KH_GGUF_BOOL && i < size; i++)
        if (value->data[i] > 1)
            KH_FAIL(KH_ERR_FORMAT, "%s: %s: a truth value is 0 or 1, found %d at byte %zu", c->path,
                    c->what, value->data[i], c->at + i);
    c->at += size;
    return KH_OK;
}

static kh_status take_array(cursor *c, kh_gguf_value *value)
{
    KH_TRY(take_kind(c, &value->element));
    KH_TRY(take(c, &value->count, sizeof value->count));
    value->data = c->data + c->at;
    if (value->element == KH_GGUF_ARRAY)
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s: %s: an array of arrays is not supported", c->path,
                c->what);
    if (value->element != KH_GGUF_STRING) return take_fixed(c, value, value->element);
    KH_TRY(room(c, value->count, 8));
    if (value->count == 0) return KH_OK;
    value->strings = kh_alloc((size_t)value->count * sizeof *value->strings);
    if (!value->strings)
        KH_FAIL(KH_ERR_MEMORY, "%s: %s: no memory for %llu strings", c->path, c->what,
                (unsigned long long)value->count);
    return take_strings(c, value);
}

static kh_status take_value(cursor *c, kh_gguf_part *part, size_t index)
{
    kh_gguf_value *value = &part->values[index];
    say(c, "metadata key %zu", index);
    KH_TRY(take_name(c, &value->key, KH_GGUF_MAX_KEY));
    say(c, "key '%s'", kh_gguf_show(value->key).text);
    if (!kh_names_add(&part->keys, value->key))
        KH_FAIL(KH_ERR_FORMAT, "%s: %s appears twice", c->path, c->what);
    KH_TRY(take_kind(c, &value->kind));
    value->element = value->kind;
    value->count = 1;
    value->data = c->data + c->at;
    if (value->kind == KH_GGUF_ARRAY) return take_array(c, value);
    if (value->kind != KH_GGUF_STRING) return take_fixed(c, value, value->kind);
    value->strings = &part->texts[index];
    return take_strings(c, value);
}

static kh_status read_head(cursor *c, uint32_t *version, uint64_t *tensors, uint64_t *keys)
{
    uint8_t magic[4];
    say(c, "header");
    KH_TRY(take(c, magic, sizeof magic));
    if (memcmp(magic, "GGUF", 4) != 0)
        KH_FAIL(KH_ERR_FORMAT,
                "%s: not a GGUF file: the first bytes are %02x %02x %02x %02x, expected 'GGUF'",
                c->path, magic[0], magic[1], magic[2], magic[3]);
    KH_TRY(take(c, version, sizeof *version));
    if (*version != 0 && (*version & 0xffff) == 0)
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s: a big-endian GGUF file; only little-endian ones are read",
                c->path);
    if (*version < 2 || *version > 3)
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s: GGUF version 2 or 3 is expected, found %u", c->path,
                *version);
    KH_TRY(take(c, tensors, sizeof *tensors));
    KH_TRY(take(c, keys, sizeof *keys));
    if (*keys > MAX_KEYS || *tensors > MAX_TENSORS)
        KH_FAIL(KH_ERR_FORMAT,
                "%s: the header announces %llu keys and %llu tensors; at most %d and %d", c->path,
                (unsigned long long)*keys, (unsigned long long)*tensors, MAX_KEYS, MAX_TENSORS);
    return KH_OK;
}

static kh_status read_values(cursor *c, kh_gguf_part *part, size_t n)
{
    say(c, "metadata");
    KH_TRY(room(c, n, LEAST_KEY));
    KH_TRY(kh_new(&part->values, n, sizeof *part->values, "the metadata of a model"));
    KH_TRY(kh_new(&part->texts, n, sizeof *part->texts, "the metadata of a model"));
    KH_TRY(kh_names_init(&part->keys, n, "the metadata of a model"));
    part->n_values = n; /* the untouched ones are zero, which freeing understands */
    for (size_t i = 0; i < n; i++) KH_TRY(take_value(c, part, i));
    part->alignment = 32;
    KH_TRY(kh_gguf_part_opt_u64(part, "general.alignment", &part->alignment, UINT64_MAX));
    uint64_t a = part->alignment;
    if (a < LEAST_ALIGNMENT || a > MOST_ALIGNMENT || (a & (a - 1)) != 0)
        KH_FAIL(KH_ERR_FORMAT,
                "%s: key 'general.alignment' is %llu; a power of two from %d to %d is expected",
                c->path, (unsigned long long)a, LEAST_ALIGNMENT, MOST_ALIGNMENT);
    return KH_OK;
}

/* Type and shape of a tensor give its size, or a refusal. */
kh_status kh_gguf_measure(kh_tensor *t, uint32_t type, const char *path, const char *what)
{
    int id = type > INT32_MAX ? -1 : (int)type;
    if (!kh_type_known(id)) {
        const char *name = kh_type_foreign_name(id);
        if (name)
            KH_FAIL(KH_ERR_UNSUPPORTED, "%s: %s has type %s, which is not supported", path, what,
                    name);
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s: %s has the unknown type %u", path, what, type);
    }
    t->type = (kh_type)id;
    uint64_t n = 1, size;
    for (int i = 0; i < 4; i++) {
        if (t->dims[i] == 0) KH_FAIL(KH_ERR_FORMAT, "%s: %s: dimension %d is zero", path, what, i);
        if (__builtin_mul_overflow(n, t->dims[i], &n))
            KH_FAIL(KH_ERR_FORMAT, "%s: %s: the product of its dimensions overflows", path, what);
    }
    if (t->dims[0] % kh_type_block(t->type) != 0)
        KH_FAIL(KH_ERR_FORMAT, "%s: %s: rows of %llu elements; %s wants a multiple of %zu", path,
                what, (unsigned long long)t->dims[0], kh_type_name(t->type),
                kh_type_block(t->type));
    if (__builtin_mul_overflow(n / kh_type_block(t->type), kh_type_bytes(t->type), &size) ||
        size > SIZE_MAX)
        KH_FAIL(KH_ERR_FORMAT, "%s: %s: its size overflows", path, what);
    t->size = (size_t)size;
    return KH_OK;
}

static kh_status take_entry(cursor *c, kh_gguf_part *part, kh_buf *names, size_t index)
{
    kh_gguf_entry *entry = &part->entries[index];
    kh_tensor *t = &entry->tensor;
    kh_slice name;
    uint32_t n_dims, type;
    say(c, "tensor %zu", index);
    KH_TRY(take_name(c, &name, KH_GGUF_MAX_NAME));
    say(c, "tensor '%s'", kh_gguf_show(name).text);
    KH_TRY(take(c, &n_dims, sizeof n_dims));
    if (n_dims < 1 || n_dims > 4)
        KH_FAIL(KH_ERR_FORMAT, "%s: %s: 1 to 4 dimensions are expected, found %u", c->path, c->what,
                n_dims);
    t->n_dims = (int)n_dims;
    for (int i = 0; i < 4; i++) t->dims[i] = 1;
    KH_TRY(take(c, t->dims, n_dims * sizeof t->dims[0]));
    KH_TRY(take(c, &type, sizeof type));
    KH_TRY(take(c, &entry->offset, sizeof entry->offset));
    KH_TRY(kh_gguf_measure(t, type, c->path, c->what));
    if (entry->offset % part->alignment != 0)
        KH_FAIL(KH_ERR_FORMAT, "%s: %s: its offset %llu is no multiple of the alignment %llu",
                c->path, c->what, (unsigned long long)entry->offset,
                (unsigned long long)part->alignment);
    KH_TRY(kh_buf_add(names, name.data, name.size));
    return kh_buf_add(names, "", 1);
}

static kh_status read_entries(cursor *c, kh_gguf_part *part, size_t n)
{
    kh_buf names = {0};
    say(c, "tensor descriptions");
    KH_TRY(room(c, n, LEAST_TENSOR));
    KH_TRY(kh_new(&part->entries, n, sizeof *part->entries, "the tensors of a model"));
    part->n_entries = n;
    kh_status status = KH_OK;
    for (size_t i = 0; i < n && status == KH_OK; i++) status = take_entry(c, part, &names, i);
    part->tensor_names = names.data;
    const char *name = names.data;
    for (size_t i = 0; i < n && status == KH_OK; i++, name += strlen(name) + 1)
        part->entries[i].tensor.name = name;
    return status;
}

/* Data begin at the next multiple of the alignment; every tensor must end inside the file. */
static kh_status place(cursor *c, kh_gguf_part *part)
{
    uint64_t a = part->alignment, begin = ((uint64_t)c->at + a - 1) / a * a, at, end;
    part->data_at = (size_t)begin;
    for (size_t i = 0; i < part->n_entries; i++) {
        kh_tensor *t = &part->entries[i].tensor;
        if (__builtin_add_overflow(begin, part->entries[i].offset, &at) ||
            __builtin_add_overflow(at, t->size, &end))
            KH_FAIL(KH_ERR_FORMAT, "%s: tensor '%s': its offset %llu overflows", c->path, t->name,
                    (unsigned long long)part->entries[i].offset);
        if (end > c->size)
            KH_FAIL(KH_ERR_FORMAT,
                    "%s: truncated: tensor '%s' occupies bytes %llu to %llu, but the file ends at "
                    "byte %zu: %llu bytes are missing",
                    c->path, t->name, (unsigned long long)at, (unsigned long long)end, c->size,
                    (unsigned long long)(end - c->size));
        t->data = c->data + at;
    }
    return KH_OK;
}

kh_status kh_gguf_part_parse(kh_gguf_part *part)
{
    cursor c = {.path = part->path, .data = part->map.data, .size = part->map.size};
    uint64_t tensors = 0, keys = 0;
    KH_TRY(read_head(&c, &part->version, &tensors, &keys));
    KH_TRY(read_values(&c, part, (size_t)keys));
    KH_TRY(read_entries(&c, part, (size_t)tensors));
    return place(&c, part);
}

kh_status kh_gguf_part_open(kh_gguf_part *part, const char *path)
{
    part->path = kh_strdup(path);
    if (!part->path) KH_FAIL(KH_ERR_MEMORY, "no memory for the name of a model file");
    KH_TRY(kh_map_open(&part->map, path));
    part->mapped = 1;
    return kh_gguf_part_parse(part);
}

void kh_gguf_part_free(kh_gguf_part *part)
{
    for (size_t i = 0; i < part->n_values; i++)
        if (part->values[i].kind == KH_GGUF_ARRAY && !part->composed)
            kh_free(part->values[i].strings);
    kh_free(part->values);
    kh_free(part->texts);
    kh_names_free(&part->keys);
    kh_free(part->entries);
    kh_free(part->tensor_names);
    if (part->mapped) kh_map_close(&part->map);
    kh_free(part->path);
    *part = (kh_gguf_part){0};
}

const kh_gguf_value *kh_gguf_part_find(const kh_gguf_part *part, const char *key)
{
    size_t index = kh_names_find(&part->keys, (kh_slice){key, strlen(key)});
    return index < part->n_values ? &part->values[index] : NULL;
}
