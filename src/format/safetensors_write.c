/* Writing safetensors.
 *
 * The header needs every size before the first byte of data, so the writer is given all shapes at
 * once and the bytes afterwards, in any pieces: a converted model is never in memory as a whole. The
 * format allows no gap, hence no padding between tensors; wide elements come first, which aligns all
 * of them as long as the header's length is a multiple of 8 (it is filled with spaces). The file
 * appears under its name when it is whole (kh_outfile). */
#include "format/safetensors.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"
#include "base/file.h"
#include "format/json.h"

#include <string.h>

struct kh_st_writer {
    kh_outfile *file;
    uint64_t left; /* bytes of data still to come */
};

/* Insertion by runs of one width: stable, and there are three widths in practice. */
static void sort_by_width(kh_st_tensor *tensors, size_t count)
{
    size_t at = 0;
    for (size_t width = 8; width >= 1; width /= 2)
        for (size_t i = at; i < count; i++) {
            if (kh_st_type_bytes(tensors[i].type) != width) continue;
            kh_st_tensor one = tensors[i];
            memmove(tensors + at + 1, tensors + at, (i - at) * sizeof one);
            tensors[at++] = one;
        }
}

static kh_status measure(kh_st_tensor *t)
{
    uint64_t size = kh_st_type_bytes(t->type);
    for (int i = 0; i < t->n_dims; i++)
        if (__builtin_mul_overflow(size, t->dims[i], &size) || size > SIZE_MAX / 2)
            KH_FAIL(KH_ERR_ARGUMENT, "tensor '%s': the product of its dimensions overflows",
                    t->name);
    t->size = (size_t)size;
    return KH_OK;
}

/* {"dtype": ..., "shape": [...], "data_offsets": [begin, end]} */
static json_t *describe(const kh_st_tensor *t, uint64_t begin)
{
    json_t *shape = json_array();
    for (int i = 0; i < t->n_dims; i++)
        if (json_array_append_new(shape, json_integer((json_int_t)t->dims[i])) != 0) {
            json_decref(shape);
            return NULL;
        }
    return json_pack("{s:s, s:o, s:[I,I]}", "dtype", kh_st_type_name(t->type), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)(begin + t->size));
}

static kh_status fill_header(json_t *root, kh_st_tensor *tensors, size_t count, uint64_t *total)
{
    uint64_t at = 0;
    int failed = json_object_set_new(root, "__metadata__", json_pack("{s:s}", "format", "pt"));
    for (size_t i = 0; i < count && !failed; i++) {
        KH_TRY(measure(&tensors[i]));
        if (json_object_get(root, tensors[i].name))
            KH_FAIL(KH_ERR_ARGUMENT, "tensor '%s' is there already", tensors[i].name);
        failed = json_object_set_new(root, tensors[i].name, describe(&tensors[i], at));
        at += tensors[i].size;
    }
    if (failed) KH_FAIL(KH_ERR_MEMORY, "no memory for the header of a safetensors file");
    *total = at;
    return KH_OK;
}

static int collect(const char *bytes, size_t n, void *context)
{
    return kh_buf_add(context, bytes, n) == KH_OK ? 0 : -1;
}

static kh_status make_header(kh_buf *out, kh_st_tensor *tensors, size_t count, uint64_t *total)
{
    json_t *root = json_object();
    if (!root) KH_FAIL(KH_ERR_MEMORY, "no memory for the header of a safetensors file");
    kh_status status = fill_header(root, tensors, count, total);
    if (status == KH_OK &&
        json_dump_callback(root, collect, out, JSON_COMPACT | JSON_PRESERVE_ORDER) != 0)
        status = kh_fail(KH_ERR_MEMORY, "no memory for the header of a safetensors file");
    json_decref(root);
    while (status == KH_OK && out->size % 8 != 0) status = kh_buf_text(out, " ");
    return status;
}

static kh_status start(kh_st_writer *writer, const char *path, const kh_buf *text)
{
    uint64_t size = text->size;
    KH_TRY(kh_outfile_open(&writer->file, path));
    KH_TRY(kh_outfile_write(writer->file, &size, sizeof size));
    return kh_outfile_write(writer->file, text->data, text->size);
}

kh_status kh_st_writer_open(kh_st_writer **out, const char *path, kh_st_tensor *tensors,
                            size_t count)
{
    kh_st_writer *writer;
    kh_buf text = {0};
    *out = NULL;
    KH_TRY(kh_new(&writer, 1, sizeof *writer, "an output file"));
    sort_by_width(tensors, count);
    kh_status status = make_header(&text, tensors, count, &writer->left);
    if (status == KH_OK) status = start(writer, path, &text);
    kh_buf_free(&text);
    if (status == KH_OK)
        *out = writer;
    else
        kh_st_writer_abandon(writer);
    return status;
}

kh_status kh_st_writer_put(kh_st_writer *writer, const void *bytes, size_t size)
{
    if (size > writer->left)
        KH_FAIL(KH_ERR_STATE, "%zu bytes are put, but only %llu are expected", size,
                (unsigned long long)writer->left);
    writer->left -= size;
    return kh_outfile_write(writer->file, bytes, size);
}

kh_status kh_st_writer_commit(kh_st_writer *writer)
{
    kh_status status = KH_OK;
    if (writer->left) {
        status = kh_fail(KH_ERR_STATE, "%llu bytes of the tensors are missing",
                         (unsigned long long)writer->left);
    } else {
        status = kh_outfile_commit(writer->file);
        writer->file = NULL;
    }
    kh_st_writer_abandon(writer);
    return status;
}

void kh_st_writer_abandon(kh_st_writer *writer)
{
    if (!writer) return;
    kh_outfile_abandon(writer->file);
    kh_free(writer);
}
