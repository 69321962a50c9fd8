/* safetensors: one JSON header, then bytes.
 *
 *     | size of the header 8 | header, JSON | bytes of tensor, tensor, tensor ... |  little-endian
 *
 *     {"__metadata__": {"format": "pt"},
 *      "NAME": {"dtype": "F32", "shape": [rows, columns], "data_offsets": [begin, end]}, ...}
 *
 * Offsets count from behind the header; shapes are slowest first. A large model lies in several such
 * files and "model.safetensors.index.json" says in which: {"weight_map": {"NAME": "FILE", ...}}.
 * (Format: README of the safetensors project.)
 *
 * The rules of the reference reader hold: a header of at most 100 MB that begins with '{'; sizes that
 * equal shape times element; tensors that cover the bytes without gap, overlap or rest. A product of
 * dimensions that overflows, a name that appears twice (in a file or in two shards), a shard that is
 * no plain file name (so none outside the folder) are refused, each with a sentence that names the
 * file and the tensor. Opening reads headers alone.
 *
 *     kh_safetensors --+-- parts [n]      mapping and names of one file each
 *                      +-- tensors [all]  in header order; data in the mappings
 *                      +-- names          index of tensors by name
 *
 * Headers go through jansson: 1 kB a tensor for a moment, 10 MB for the largest models published. */
#include "format/safetensors.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"
#include "base/file.h"
#include "format/gguf_part.h"
#include "format/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_HEADER = 100000000, MAX_INDEX = 256 << 20, MAX_TENSORS = 1 << 20, MAX_PARTS = 4096 };

typedef struct part {
    char *path;
    kh_map map;
    int mapped;  /* the mapping is ours; else the caller's memory */
    char *names; /* zero-terminated, one behind the other */
} part;

struct kh_safetensors {
    char *path;
    part *parts; /* [n_parts] */
    size_t n_parts;
    kh_st_tensor *tensors; /* [count] */
    size_t count, capacity;
    kh_names names;
};

static const char *const type_names[] = {
#define NAME(name, bytes) #name,
    KH_ST_LIST(NAME)
#undef NAME
};

static const uint8_t type_bytes[] = {
#define BYTES(name, bytes) bytes,
    KH_ST_LIST(BYTES)
#undef BYTES
};

const char *kh_st_type_name(kh_st_type type)
{
    return type < KH_ST_TYPES ? type_names[type] : "?";
}

size_t kh_st_type_bytes(kh_st_type type)
{
    return type_bytes[type];
}

kh_type kh_st_kernel_type(kh_st_type type)
{
    return type == KH_ST_F32    ? KH_TYPE_F32
           : type == KH_ST_F16  ? KH_TYPE_F16
           : type == KH_ST_BF16 ? KH_TYPE_BF16
                                : KH_TYPE_NONE;
}

kh_st_type kh_st_type_of(kh_type type)
{
    return type == KH_TYPE_F32    ? KH_ST_F32
           : type == KH_TYPE_F16  ? KH_ST_F16
           : type == KH_TYPE_BF16 ? KH_ST_BF16
                                  : KH_ST_TYPES;
}

/* ---- one header ---- */

typedef struct header {
    const char *path;
    const char *name; /* of the tensor at hand, as it may be shown */
    size_t data_at, data_size;
} header;

static kh_status bad(const header *h, const char *expected, const json_t *found)
{
    return kh_fail(KH_ERR_FORMAT, "%s: tensor '%s': %s expected, found %s", h->path, h->name,
                   expected, kh_json_kind(found));
}

static kh_status read_type(const header *h, kh_st_tensor *t, const json_t *entry)
{
    const json_t *value = json_object_get(entry, "dtype");
    if (!json_is_string(value)) return bad(h, "\"dtype\": a string is", value);
    for (int i = 0; i < KH_ST_TYPES; i++)
        if (strcmp(json_string_value(value), type_names[i]) == 0) {
            t->type = (kh_st_type)i;
            return KH_OK;
        }
    kh_slice text = {json_string_value(value), json_string_length(value)};
    KH_FAIL(KH_ERR_UNSUPPORTED, "%s: tensor '%s' has type \"%s\", which is not supported", h->path,
            h->name, kh_gguf_show(text).text);
}

static kh_status read_natural(const header *h, uint64_t *out, const json_t *value, const char *what)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) return bad(h, what, value);
    *out = (uint64_t)json_integer_value(value);
    return KH_OK;
}

/* Shape times element gives the size. */
static kh_status read_shape(const header *h, kh_st_tensor *t, const json_t *entry)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape)) return bad(h, "\"shape\": a list is", shape);
    if (json_array_size(shape) > KH_ST_DIMS)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "%s: tensor '%s': at most %d dimensions are expected, found %zu", h->path, h->name,
                KH_ST_DIMS, json_array_size(shape));
    t->n_dims = (int)json_array_size(shape);
    uint64_t size = type_bytes[t->type];
    int empty = 0;
    for (int i = 0; i < t->n_dims; i++) {
        KH_TRY(read_natural(h, &t->dims[i], json_array_get(shape, (size_t)i),
                            "\"shape\": natural numbers are"));
        empty |= t->dims[i] == 0;
        uint64_t factor = t->dims[i] ? t->dims[i] : 1;
        if (__builtin_mul_overflow(size, factor, &size) || size > SIZE_MAX)
            KH_FAIL(KH_ERR_FORMAT, "%s: tensor '%s': the product of its dimensions overflows",
                    h->path, h->name);
    }
    t->size = empty ? 0 : (size_t)size;
    return KH_OK;
}

static kh_status read_place(const header *h, kh_st_tensor *t, const json_t *entry,
                            const uint8_t *data)
{
    const json_t *list = json_object_get(entry, "data_offsets");
    uint64_t begin = 0, end = 0;
    const char *what = "\"data_offsets\": two natural numbers are";
    if (!json_is_array(list) || json_array_size(list) != 2) return bad(h, what, list);
    KH_TRY(read_natural(h, &begin, json_array_get(list, 0), what));
    KH_TRY(read_natural(h, &end, json_array_get(list, 1), what));
    if (end < begin || end - begin != t->size)
        KH_FAIL(KH_ERR_FORMAT,
                "%s: tensor '%s': its type and shape need %zu bytes, its offsets are %llu to %llu",
                h->path, h->name, t->size, (unsigned long long)begin, (unsigned long long)end);
    if (end > h->data_size)
        KH_FAIL(KH_ERR_FORMAT,
                "%s: truncated: tensor '%s' ends at byte %llu of the data, but there are only %zu",
                h->path, h->name, (unsigned long long)end, h->data_size);
    t->data = data + h->data_at + begin;
    return KH_OK;
}

static kh_status read_tensor(header *h, kh_st_tensor *t, const json_t *entry, const part *p)
{
    if (!json_is_object(entry)) return bad(h, "an object is", entry);
    KH_TRY(read_type(h, t, entry));
    KH_TRY(read_shape(h, t, entry));
    return read_place(h, t, entry, p->map.data);
}

static int by_place(const void *left, const void *right)
{
    const kh_st_tensor *a = *(const kh_st_tensor *const *)left;
    const kh_st_tensor *b = *(const kh_st_tensor *const *)right;
    uintptr_t x = (uintptr_t)a->data, y = (uintptr_t)b->data;
    if (x == y) return (a->size > b->size) - (a->size < b->size);
    return x < y ? -1 : 1;
}

/* The tensors of one part, in the order of their bytes, must follow each other to the end. */
static kh_status check_cover(const header *h, const kh_st_tensor *tensors, size_t n, const part *p)
{
    const kh_st_tensor **order;
    KH_TRY(kh_new(&order, n, sizeof(kh_st_tensor *), "the order of tensors"));
    for (size_t i = 0; i < n; i++) order[i] = &tensors[i];
    qsort(order, n, sizeof *order, by_place);
    size_t at = 0;
    kh_status status = KH_OK;
    for (size_t i = 0; i < n && status == KH_OK; i++) {
        size_t begin = (size_t)((const uint8_t *)order[i]->data - p->map.data) - h->data_at;
        const char *shown = kh_gguf_show((kh_slice){order[i]->name, strlen(order[i]->name)}).text;
        if (begin < at)
            status = kh_fail(KH_ERR_FORMAT,
                             "%s: tensor '%s' begins at byte %zu, inside the one before it",
                             h->path, shown, begin);
        if (begin > at)
            status = kh_fail(KH_ERR_FORMAT, "%s: bytes %zu to %zu before tensor '%s' are nobody's",
                             h->path, at, begin, shown);
        at = begin + order[i]->size;
    }
    if (status == KH_OK && at != h->data_size)
        status = kh_fail(KH_ERR_FORMAT, "%s: %zu bytes behind the last tensor are nobody's",
                         h->path, h->data_size - at);
    kh_free(order);
    return status;
}

static kh_status read_head(header *h, json_t **out, const part *p)
{
    uint64_t size;
    if (p->map.size < sizeof size)
        KH_FAIL(KH_ERR_FORMAT,
                "%s: not a safetensors file: at least 8 bytes are expected, found %zu", p->path,
                p->map.size);
    memcpy(&size, p->map.data, sizeof size);
    if (size > MAX_HEADER || size > p->map.size - sizeof size)
        KH_FAIL(KH_ERR_FORMAT,
                "%s: not a safetensors file, or truncated: its header has %llu bytes; the file has "
                "%zu, and at most %d are expected",
                p->path, (unsigned long long)size, p->map.size, MAX_HEADER);
    const char *text = (const char *)p->map.data + sizeof size;
    if (size == 0 || text[0] != '{')
        KH_FAIL(KH_ERR_FORMAT, "%s: not a safetensors file: byte 8 is expected to be '{'", p->path);
    h->path = p->path;
    h->data_at = sizeof size + (size_t)size;
    h->data_size = p->map.size - h->data_at;
    KH_TRY(kh_json_parse(out, text, (size_t)size, p->path));
    return KH_OK;
}

/* ---- many tensors ---- */

static kh_status grow(kh_safetensors *file, size_t more)
{
    size_t need = file->count + more;
    if (need > MAX_TENSORS)
        KH_FAIL(KH_ERR_FORMAT, "%s: at most %d tensors are expected", file->path, MAX_TENSORS);
    if (need <= file->capacity) return KH_OK;
    kh_st_tensor *tensors = kh_realloc(file->tensors, need * sizeof *tensors);
    if (!tensors) KH_FAIL(KH_ERR_MEMORY, "%s: no memory for %zu tensors", file->path, need);
    file->tensors = tensors;
    file->capacity = need;
    return KH_OK;
}

/* One block for the names of a part, which the tensors then point into. */
static kh_status copy_names(part *p, json_t *root)
{
    const char *name;
    json_t *entry;
    size_t size = 1;
    json_object_foreach(root, name, entry) size += strlen(name) + 1;
    p->names = kh_alloc(size);
    if (!p->names) KH_FAIL(KH_ERR_MEMORY, "%s: no memory for the names of its tensors", p->path);
    char *to = p->names;
    json_object_foreach(root, name, entry)
    {
        memcpy(to, name, strlen(name) + 1);
        to += strlen(name) + 1;
    }
    return KH_OK;
}

static kh_status read_entries(kh_safetensors *file, header *h, json_t *root, size_t index)
{
    part *p = &file->parts[index];
    const char *key;
    json_t *entry;
    size_t first = file->count;
    if (!json_is_object(root))
        KH_FAIL(KH_ERR_FORMAT, "%s: its header is expected to be an object", p->path);
    KH_TRY(grow(file, json_object_size(root)));
    KH_TRY(copy_names(p, root));
    const char *name = p->names;
    json_object_foreach(root, key, entry)
    {
        kh_shown shown = kh_gguf_show((kh_slice){key, strlen(key)});
        kh_st_tensor *t = &file->tensors[file->count];
        *t = (kh_st_tensor){.name = name, .part = index};
        name += strlen(key) + 1;
        if (strcmp(key, "__metadata__") == 0) continue;
        h->name = shown.text;
        KH_TRY(read_tensor(h, t, entry, p));
        file->count++;
    }
    size_t own = file->count - first;
    return check_cover(h, own > 0 ? file->tensors + first : NULL, own, p);
}

static kh_status read_part(kh_safetensors *file, size_t index)
{
    header h = {0};
    json_t *root = NULL;
    KH_TRY(read_head(&h, &root, &file->parts[index]));
    kh_status status = read_entries(file, &h, root, index);
    json_decref(root);
    return status;
}

/* After all parts: one index, and no name twice. */
static kh_status index_names(kh_safetensors *file)
{
    KH_TRY(kh_names_init(&file->names, file->count, "the tensors of a model"));
    for (size_t i = 0; i < file->count; i++) {
        kh_slice name = {file->tensors[i].name, strlen(file->tensors[i].name)};
        if (!kh_names_add(&file->names, name))
            KH_FAIL(KH_ERR_FORMAT, "%s: tensor '%s' is there already, in %s",
                    file->parts[file->tensors[i].part].path, kh_gguf_show(name).text,
                    file->parts[file->tensors[kh_names_find(&file->names, name)].part].path);
    }
    return KH_OK;
}

/* ---- one file ---- */

static kh_status begin(kh_safetensors **out, const char *path, size_t parts)
{
    kh_safetensors *file;
    *out = NULL;
    KH_TRY(kh_new(&file, 1, sizeof *file, "a model file"));
    kh_status status = kh_new(&file->parts, parts, sizeof *file->parts, "the parts of a model");
    if (status == KH_OK) file->n_parts = parts;
    file->path = status == KH_OK ? kh_strdup(path) : NULL;
    if (status == KH_OK && !file->path)
        status = kh_fail(KH_ERR_MEMORY, "no memory for the name of a model file");
    if (status == KH_OK)
        *out = file;
    else
        kh_safetensors_close(file);
    return status;
}

static kh_status finish(kh_safetensors **out, kh_safetensors *file, kh_status status)
{
    for (size_t i = 0; i < file->n_parts && status == KH_OK; i++) status = read_part(file, i);
    if (status == KH_OK) status = index_names(file);
    if (status == KH_OK)
        *out = file;
    else
        kh_safetensors_close(file);
    return status;
}

static kh_status open_part(part *p, const char *path)
{
    p->path = kh_strdup(path);
    if (!p->path) KH_FAIL(KH_ERR_MEMORY, "no memory for the name of a model file");
    KH_TRY(kh_map_open(&p->map, path));
    p->mapped = 1;
    return KH_OK;
}

kh_status kh_safetensors_open_memory(kh_safetensors **out, const void *data, size_t size,
                                     const char *name)
{
    kh_safetensors *file;
    *out = NULL;
    KH_TRY(begin(&file, name, 1));
    file->parts[0].map = (kh_map){data, size};
    file->parts[0].path = kh_strdup(name);
    return finish(out, file,
                  file->parts[0].path
                      ? KH_OK
                      : kh_fail(KH_ERR_MEMORY, "no memory for the name of a model file"));
}

/* ---- shards ---- */

static int plain_name(const char *name)
{
    size_t n = strlen(name), tail = strlen(".safetensors");
    return n > tail && n < 256 && !strchr(name, '/') && name[0] != '.' &&
           strcmp(name + n - tail, ".safetensors") == 0;
}

/* The number of a shard in `shards`, which holds the names met so far. */
static kh_status shard_number(const char *path, kh_names *shards, const char *tensor,
                              const json_t *value)
{
    kh_shown shown = kh_gguf_show((kh_slice){tensor, strlen(tensor)});
    const char *text = json_string_value(value);
    if (!text)
        KH_FAIL(KH_ERR_FORMAT, "%s: tensor '%s': the name of a file is expected, found %s", path,
                shown.text, kh_json_kind(value));
    kh_slice name = {text, strlen(text)};
    if (!plain_name(text))
        KH_FAIL(KH_ERR_FORMAT,
                "%s: tensor '%s': a file NAME.safetensors in the same folder is expected, found "
                "\"%s\"",
                path, shown.text, kh_gguf_show(name).text);
    if (kh_names_find(shards, name) != SIZE_MAX) return KH_OK;
    if (shards->count == MAX_PARTS)
        KH_FAIL(KH_ERR_FORMAT, "%s: at most %d files are expected", path, MAX_PARTS);
    kh_names_add(shards, name);
    return KH_OK;
}

static kh_status open_shards(kh_safetensors *file, const kh_names *shards)
{
    const char *slash = strrchr(file->path, '/');
    int folder = slash ? (int)(slash - file->path + 1) : 0;
    for (size_t i = 0; i < shards->count; i++) {
        kh_buf path = {0};
        kh_status status = kh_buf_format(&path, "%.*s%.*s", folder, file->path,
                                         (int)shards->names[i].size, shards->names[i].data);
        if (status == KH_OK) status = open_part(&file->parts[i], path.data);
        if (status != KH_OK) status = kh_fail_context(status, "%s", file->path);
        kh_buf_free(&path);
        KH_TRY(status);
    }
    return KH_OK;
}

/* What the index promises of a shard has to be in it. */
static kh_status check_index(const kh_safetensors *file, const json_t *map, const kh_names *shards)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map, name, value)
    {
        kh_slice shard = {json_string_value(value), json_string_length(value)};
        const kh_st_tensor *t = kh_safetensors_find(file, name);
        if (!t || t->part != kh_names_find(shards, shard))
            KH_FAIL(KH_ERR_FORMAT, "%s: tensor '%s' is expected in %s, which does not hold it",
                    file->path, kh_gguf_show((kh_slice){name, strlen(name)}).text,
                    kh_gguf_show(shard).text);
    }
    return KH_OK;
}

static kh_status open_map(kh_safetensors **out, const char *path, json_t *map, kh_names *shards)
{
    const char *name;
    json_t *value;
    kh_safetensors *file, *whole;
    KH_TRY(kh_names_init(shards, MAX_PARTS, "the parts of a model"));
    json_object_foreach(map, name, value) KH_TRY(shard_number(path, shards, name, value));
    KH_TRY(begin(&file, path, shards->count));
    KH_TRY(finish(&whole, file, open_shards(file, shards)));
    kh_status status = check_index(whole, map, shards);
    if (status == KH_OK)
        *out = whole;
    else
        kh_safetensors_close(whole);
    return status;
}

static kh_status open_index(kh_safetensors **out, const char *path)
{
    json_t *root;
    KH_TRY(kh_json_read(&root, path, MAX_INDEX));
    json_t *map = kh_json_get(root, "weight_map");
    kh_names shards = {0};
    kh_status status =
        json_is_object(map) && json_object_size(map) > 0
            ? open_map(out, path, map, &shards)
            : kh_fail(KH_ERR_FORMAT,
                      "%s: \"weight_map\": an object with names is expected, found %s", path,
                      kh_json_kind(map));
    kh_names_free(&shards);
    json_decref(root);
    return status;
}

kh_status kh_safetensors_open(kh_safetensors **out, const char *path)
{
    size_t n = strlen(path), tail = strlen(".json");
    kh_safetensors *file;
    *out = NULL;
    if (n > tail && strcmp(path + n - tail, ".json") == 0) return open_index(out, path);
    KH_TRY(begin(&file, path, 1));
    return finish(out, file, open_part(&file->parts[0], path));
}

kh_status kh_safetensors_give_maps(kh_safetensors *file, kh_gguf *to)
{
    for (size_t i = 0; i < file->n_parts; i++) {
        part *p = &file->parts[i];
        if (!p->mapped) continue;
        p->mapped = 0; /* keep_map closes it when it fails */
        KH_TRY(kh_gguf_keep_map(to, &p->map));
    }
    return KH_OK;
}

void kh_safetensors_close(kh_safetensors *file)
{
    if (!file) return;
    for (size_t i = 0; i < file->n_parts; i++) {
        if (file->parts[i].mapped) kh_map_close(&file->parts[i].map);
        kh_free(file->parts[i].names);
        kh_free(file->parts[i].path);
    }
    kh_names_free(&file->names);
    kh_free(file->tensors);
    kh_free(file->parts);
    kh_free(file->path);
    kh_free(file);
}

size_t kh_safetensors_count(const kh_safetensors *file)
{
    return file->count;
}

const kh_st_tensor *kh_safetensors_at(const kh_safetensors *file, size_t index)
{
    return &file->tensors[index];
}

const kh_st_tensor *kh_safetensors_find(const kh_safetensors *file, const char *name)
{
    size_t index = kh_names_find(&file->names, (kh_slice){name, strlen(name)});
    return index < file->count ? &file->tensors[index] : NULL;
}

uint64_t kh_safetensors_size(const kh_safetensors *file)
{
    uint64_t size = 0;
    for (size_t i = 0; i < file->n_parts; i++) size += file->parts[i].map.size;
    return size;
}

const char *kh_safetensors_part(const kh_safetensors *file, const kh_st_tensor *tensor)
{
    return file->parts[tensor->part].path;
}

void kh_safetensors_release(const kh_safetensors *file, const kh_st_tensor *tensor)
{
    const part *p = &file->parts[tensor->part];
    if (p->mapped)
        kh_map_release(&p->map, (size_t)((const uint8_t *)tensor->data - p->map.data),
                       tensor->size);
}
