/* A GGUF model: one file or several parts, seen as one.
 *
 *     kh_gguf --+-- parts [1..n]   mapping, metadata, tensor entries of one file each
 *               +-- tensors [all]  in file order; names point into the parts, data into the mappings
 *               +-- names          index of tensors by name
 *
 * Metadata come from the first part; the others carry only their number, their count and tensors. A
 * model is refused when a part is missing, claims another number or count than its name, when the
 * parts together do not hold the announced tensors, or when two tensors share a name.
 *
 * Opening reads headers and nothing else: a tensor's pages come in when somebody computes with them,
 * and kh_gguf_release gives them back (they are clean pages of a shared mapping).
 *
 * A file that was composed in memory (gguf_compose.c) is the same object: its first part holds the
 * values, further parts are mappings that it keeps. */
#include "format/gguf_part.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdio.h>
#include <string.h>

static kh_status merge(kh_gguf *file)
{
    size_t n = 0, filled = 0;
    for (size_t p = 0; p < file->n_parts; p++) n += file->parts[p].n_entries;
    KH_TRY(kh_new(&file->tensors, n, sizeof *file->tensors, "the tensors of a model"));
    KH_TRY(kh_names_init(&file->names, n, "the tensors of a model"));
    for (size_t p = 0; p < file->n_parts; p++) {
        kh_gguf_part *part = &file->parts[p];
        for (size_t i = 0; i < part->n_entries; i++) {
            const kh_tensor *t = &part->entries[i].tensor;
            if (!kh_names_add(&file->names, (kh_slice){t->name, strlen(t->name)}))
                KH_FAIL(KH_ERR_FORMAT, "%s: tensor '%s' appears twice", part->path, t->name);
            file->tensors[filled++] = *t;
        }
        kh_free(part->entries);
        part->entries = NULL;
    }
    return KH_OK;
}

static kh_status check_part(const kh_gguf_part *part, uint64_t index, uint64_t count)
{
    uint64_t no = 0, n = 1;
    KH_TRY(kh_gguf_part_opt_u64(part, "split.no", &no, UINT64_MAX));
    KH_TRY(kh_gguf_part_opt_u64(part, "split.count", &n, UINT64_MAX));
    if (no != index || n != count)
        KH_FAIL(KH_ERR_FORMAT, "%s: part %llu of %llu is expected, the file says %llu of %llu",
                part->path, (unsigned long long)index + 1, (unsigned long long)count,
                (unsigned long long)no + 1, (unsigned long long)n);
    return KH_OK;
}

static kh_status check_total(const kh_gguf *file)
{
    uint64_t found = 0, expected;
    for (size_t p = 0; p < file->n_parts; p++) found += file->parts[p].n_entries;
    for (size_t p = 0; p < file->n_parts; p++) {
        expected = found;
        KH_TRY(kh_gguf_part_opt_u64(&file->parts[p], "split.tensors.count", &expected, UINT64_MAX));
        if (expected != found)
            KH_FAIL(KH_ERR_FORMAT, "%s: %llu tensors are announced, the %zu parts hold %llu",
                    file->parts[p].path, (unsigned long long)expected, file->n_parts,
                    (unsigned long long)found);
    }
    return KH_OK;
}

/* The caller's part was parsed as number 0; it moves to its place and the others join it. */
static kh_status open_siblings(kh_gguf *file, uint64_t no, uint64_t count)
{
    kh_gguf_part *parts;
    KH_TRY(kh_new(&parts, (size_t)count, sizeof *parts, "the parts of a model"));
    parts[no] = file->parts[0];
    kh_free(file->parts);
    file->parts = parts;
    file->n_parts = (size_t)count;
    for (uint64_t i = 0; i < count; i++) {
        char *name;
        KH_TRY(kh_gguf_split_path(&name, file->path, i, count));
        kh_status status = i == no ? KH_OK : kh_gguf_part_open(&parts[i], name);
        kh_free(name);
        KH_TRY(status);
        KH_TRY(check_part(&parts[i], i, count));
    }
    return check_total(file);
}

static kh_status open_parts(kh_gguf *file)
{
    uint64_t count = 1, no = 0;
    const kh_gguf_part *first = &file->parts[0];
    KH_TRY(kh_gguf_part_opt_u64(first, "split.count", &count, 99999));
    KH_TRY(kh_gguf_part_opt_u64(first, "split.no", &no, UINT64_MAX));
    if (count <= 1) return merge(file);
    if (no >= count)
        KH_FAIL(KH_ERR_FORMAT, "%s: claims to be part %llu of %llu", file->path,
                (unsigned long long)no + 1, (unsigned long long)count);
    if (!first->mapped)
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s: part %llu of %llu; a split model is opened by its path",
                file->path, (unsigned long long)no + 1, (unsigned long long)count);
    KH_TRY(open_siblings(file, no, count));
    return merge(file);
}

kh_status kh_gguf_begin(kh_gguf **out, const char *path)
{
    kh_gguf *file;
    *out = NULL;
    KH_TRY(kh_new(&file, 1, sizeof *file, "a model file"));
    kh_status status = kh_new(&file->parts, 1, sizeof *file->parts, "a model file");
    file->path = status == KH_OK ? kh_strdup(path) : NULL;
    if (status == KH_OK && !file->path)
        status = kh_fail(KH_ERR_MEMORY, "no memory for the name of a model file");
    if (status != KH_OK) {
        kh_gguf_close(file);
        return status;
    }
    file->n_parts = 1;
    *out = file;
    return KH_OK;
}

static kh_status finish(kh_gguf **out, kh_gguf *file, kh_status status)
{
    if (status == KH_OK) status = open_parts(file);
    if (status == KH_OK)
        *out = file;
    else
        kh_gguf_close(file);
    return status;
}

kh_status kh_gguf_open(kh_gguf **out, const char *path)
{
    kh_gguf *file;
    *out = NULL;
    KH_TRY(kh_gguf_begin(&file, path));
    return finish(out, file, kh_gguf_part_open(&file->parts[0], path));
}

kh_status kh_gguf_open_memory(kh_gguf **out, const void *data, size_t size, const char *name)
{
    kh_gguf *file;
    *out = NULL;
    if ((uintptr_t)data % 8 != 0)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: the memory must be aligned to 8 bytes", name);
    KH_TRY(kh_gguf_begin(&file, name));
    kh_gguf_part *part = &file->parts[0];
    part->map = (kh_map){data, size};
    part->path = kh_strdup(name);
    kh_status status = part->path
                           ? kh_gguf_part_parse(part)
                           : kh_fail(KH_ERR_MEMORY, "no memory for the name of a model file");
    return finish(out, file, status);
}

void kh_gguf_close(kh_gguf *file)
{
    if (!file) return;
    for (size_t p = 0; p < file->n_parts; p++) kh_gguf_part_free(&file->parts[p]);
    while (file->n_kept > 0) {
        kh_gguf_kept *last = &file->kept[--file->n_kept];
        last->close(last->object);
    }
    kh_free(file->kept);
    kh_names_free(&file->names);
    kh_free(file->tensors);
    kh_free(file->parts);
    kh_free(file->path);
    kh_free(file);
}

const kh_gguf_part *kh_gguf_first_part(const kh_gguf *file)
{
    return &file->parts[0];
}

const char *kh_gguf_path(const kh_gguf *file)
{
    return file->path;
}

uint32_t kh_gguf_version(const kh_gguf *file)
{
    return file->parts[0].version;
}

uint64_t kh_gguf_size(const kh_gguf *file)
{
    uint64_t size = 0;
    if (file->parts[0].composed) return kh_gguf_composed_size(file);
    for (size_t p = 0; p < file->n_parts; p++) size += file->parts[p].map.size;
    return size;
}

size_t kh_gguf_value_count(const kh_gguf *file)
{
    return file->parts[0].n_values;
}

const kh_gguf_value *kh_gguf_value_at(const kh_gguf *file, size_t index)
{
    return &file->parts[0].values[index];
}

const kh_gguf_value *kh_gguf_find(const kh_gguf *file, const char *key)
{
    return kh_gguf_part_find(&file->parts[0], key);
}

size_t kh_gguf_tensor_count(const kh_gguf *file)
{
    return file->names.count;
}

const kh_tensor *kh_gguf_tensor_at(const kh_gguf *file, size_t index)
{
    return &file->tensors[index];
}

const kh_tensor *kh_gguf_tensor(const kh_gguf *file, const char *name)
{
    size_t index = kh_names_find(&file->names, (kh_slice){name, strlen(name)});
    return index < file->names.count ? &file->tensors[index] : NULL;
}

void kh_gguf_release(const kh_gguf *file, const kh_tensor *tensor)
{
    uintptr_t at = (uintptr_t)tensor->data;
    for (size_t p = 0; p < file->n_parts; p++) {
        const kh_gguf_part *part = &file->parts[p];
        uintptr_t begin = (uintptr_t)part->map.data;
        if (part->mapped && at >= begin && at - begin < part->map.size)
            kh_map_release(&part->map, at - begin, tensor->size);
    }
}

/* Eight bytes at a time through a rotation and two odd multipliers; the tail is padded with zeros,
 * which the sizes, hashed as well, keep apart from real ones. Not cryptographic: it tells files apart
 * that nobody forged. */
uint64_t kh_gguf_mix(uint64_t h, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = 0;
        memcpy(&word, bytes + i, size - i < 8 ? size - i : 8);
        h = (h ^ word * 0x9E3779B97F4A7C15ull) * 0xD2B74407B1CE6E93ull;
        h = h << 29 | h >> 35;
    }
    return h;
}

static uint64_t identity_of_parts(const kh_gguf *file, uint64_t h)
{
    enum { SAMPLE = 64 << 10, SAMPLES = 16 };
    for (size_t p = 0; p < file->n_parts; p++) {
        const kh_gguf_part *part = &file->parts[p];
        size_t size = part->map.size, head = part->data_at < size ? part->data_at : size;
        uint64_t whole = size;
        h = kh_gguf_mix(h, &whole, sizeof whole);
        h = kh_gguf_mix(h, part->map.data, head);
        size_t data = size - head;
        if (data <= (size_t)SAMPLE * SAMPLES) {
            h = kh_gguf_mix(h, part->map.data + head, data);
            continue;
        }
        size_t last = data - SAMPLE, gaps = SAMPLES - 1;
        for (size_t i = 0; i < SAMPLES; i++)
            h = kh_gguf_mix(h, part->map.data + head + last / gaps * i + last % gaps * i / gaps,
                            SAMPLE);
    }
    return h;
}

void kh_gguf_identity(const kh_gguf *file, char out[17])
{
    uint64_t h = 0x6b6579686f6c65ull;
    h = file->parts[0].composed ? kh_gguf_composed_identity(file, h) : identity_of_parts(file, h);
    h = (h ^ h >> 32) * 0xD6E8FEB86659FD93ull;
    h ^= h >> 32;
    snprintf(out, 17, "%016llx", (unsigned long long)h);
}
