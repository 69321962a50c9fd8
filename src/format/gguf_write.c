/* Writes a GGUF model, version 3: what gguf_part.c reads, from the same picture.
 *
 *     header, keys, tensor descriptions   built in memory: some megabytes for a large vocabulary
 *     padding | tensor | padding | tensor ...            straight from where the data lie
 *
 * The file appears under its name when it is whole and synced, or not at all (base/file.h); so a model
 * can be written over the file that it is mapped from.
 *
 * Parts of a split model become one file: the keys split.* stay behind. An alignment that the file
 * announces is kept, or else it is the format's default of 32. Every tensor starts at a multiple of it
 * and the last one is padded too, as llama.cpp's writer does. */
#include "format/gguf_part.h"

#include "base/buf.h"
#include "base/fail.h"

#include <string.h>

static int is_split_key(const kh_gguf_value *value)
{
    return value->key.size > 6 && memcmp(value->key.data, "split.", 6) == 0;
}

static kh_status put_u32(kh_buf *buf, uint32_t value)
{
    return kh_buf_add(buf, &value, sizeof value);
}

static kh_status put_u64(kh_buf *buf, uint64_t value)
{
    return kh_buf_add(buf, &value, sizeof value);
}

static kh_status put_slice(kh_buf *buf, kh_slice text)
{
    KH_TRY(put_u64(buf, text.size));
    return kh_buf_add(buf, text.data, text.size);
}

static kh_status put_value(kh_buf *buf, const kh_gguf_value *value)
{
    KH_TRY(put_slice(buf, value->key));
    KH_TRY(put_u32(buf, (uint32_t)value->kind));
    if (value->kind == KH_GGUF_ARRAY) {
        KH_TRY(put_u32(buf, (uint32_t)value->element));
        KH_TRY(put_u64(buf, value->count));
    }
    if (value->element != KH_GGUF_STRING)
        return kh_buf_add(buf, value->data,
                          kh_gguf_kind_bytes(value->element) * (size_t)value->count);
    for (uint64_t i = 0; i < value->count; i++) KH_TRY(put_slice(buf, value->strings[i]));
    return KH_OK;
}

static uint64_t padded(uint64_t size, uint64_t alignment)
{
    return (size + alignment - 1) / alignment * alignment;
}

static kh_status put_tensors(kh_buf *buf, const kh_gguf *file, uint64_t alignment)
{
    uint64_t offset = 0;
    for (size_t i = 0; i < kh_gguf_tensor_count(file); i++) {
        const kh_tensor *t = kh_gguf_tensor_at(file, i);
        KH_TRY(put_slice(buf, (kh_slice){t->name, strlen(t->name)}));
        KH_TRY(put_u32(buf, (uint32_t)t->n_dims));
        for (int d = 0; d < t->n_dims; d++) KH_TRY(put_u64(buf, t->dims[d]));
        KH_TRY(put_u32(buf, (uint32_t)t->type));
        KH_TRY(put_u64(buf, offset));
        offset += padded(t->size, alignment);
    }
    return KH_OK;
}

static kh_status put_header(kh_buf *buf, const kh_gguf *file, uint64_t alignment)
{
    size_t n = kh_gguf_value_count(file), keys = 0;
    for (size_t i = 0; i < n; i++) keys += !is_split_key(kh_gguf_value_at(file, i));
    KH_TRY(kh_buf_text(buf, "GGUF"));
    KH_TRY(put_u32(buf, 3));
    KH_TRY(put_u64(buf, kh_gguf_tensor_count(file)));
    KH_TRY(put_u64(buf, keys));
    for (size_t i = 0; i < n; i++) {
        const kh_gguf_value *value = kh_gguf_value_at(file, i);
        if (!is_split_key(value)) KH_TRY(put_value(buf, value));
    }
    return put_tensors(buf, file, alignment);
}

/* Zeros up to the next multiple of the alignment, which is at most 65536. */
static kh_status pad(kh_outfile *out, uint64_t written, uint64_t alignment)
{
    static const char zeros[4096];
    uint64_t left = padded(written, alignment) - written;
    while (left > 0) {
        size_t n = left < sizeof zeros ? (size_t)left : sizeof zeros;
        KH_TRY(kh_outfile_write(out, zeros, n));
        left -= n;
    }
    return KH_OK;
}

static kh_status mapped_data(void *context, const kh_tensor *tensor, kh_outfile *out)
{
    const kh_gguf *file = context;
    if (!tensor->data)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: tensor '%s' has no data", kh_gguf_path(file), tensor->name);
    KH_TRY(kh_outfile_write(out, tensor->data, tensor->size));
    kh_gguf_release(file, tensor);
    return KH_OK;
}

static kh_status write_all(kh_outfile *out, const kh_gguf *file, kh_buf *header,
                           kh_gguf_source *source, void *context)
{
    uint64_t alignment = 32;
    KH_TRY(kh_gguf_opt_u64(file, "general.alignment", &alignment, 65536));
    if (alignment < 8 || (alignment & (alignment - 1)) != 0)
        KH_FAIL(KH_ERR_FORMAT,
                "%s: key 'general.alignment' is %llu; a power of two from 8 to 65536 is expected",
                kh_gguf_path(file), (unsigned long long)alignment);
    KH_TRY(put_header(header, file, alignment));
    KH_TRY(kh_outfile_write(out, header->data, header->size));
    KH_TRY(pad(out, header->size, alignment));
    for (size_t i = 0; i < kh_gguf_tensor_count(file); i++) {
        const kh_tensor *t = kh_gguf_tensor_at(file, i);
        KH_TRY(source(context, t, out));
        KH_TRY(pad(out, t->size, alignment));
    }
    return KH_OK;
}

kh_status kh_gguf_write_from(const kh_gguf *file, const char *path, kh_gguf_source *source,
                             void *context)
{
    kh_outfile *out;
    kh_buf header = {0};
    KH_TRY(kh_outfile_open(&out, path));
    kh_status status = write_all(out, file, &header, source, context);
    kh_buf_free(&header);
    if (status == KH_OK) return kh_outfile_commit(out);
    kh_outfile_abandon(out);
    return status;
}

kh_status kh_gguf_write(const kh_gguf *file, const char *path)
{
    void *context;
    memcpy(&context, &file, sizeof context);
    return kh_gguf_write_from(file, path, mapped_data, context);
}
