/* Writing a model as a Hugging Face folder: the tables of opening, read backwards.
 *
 * Every GGUF tensor has to be named by a row of the family's table; one that is not would be lost, so
 * it is refused. Matrices get the type that is asked for. Without one F32, F16 and BF16 stay what they
 * are, so a folder that was converted comes back with the same numbers (gains stored as g - 1 within
 * their rounding), and quantised ones become F16, the precision that Hugging Face's own tools expect.
 *
 * Tensors are written one at a time, so memory is what the largest of them needs; weights first, and
 * config.json, without which nothing opens the folder, last. */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"
#include "base/file.h"
#include "kern/kern.h"
#include "model/hf_impl.h"
#include "model/lora_set.h"
#include "ops/unpack.h"
#include "tensor/half.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Where a tensor of the folder comes from. */
typedef struct source {
    const kh_tensor *tensor;
    const kh_hf_tensor *row;
    uint64_t expert;
    char name[2 * KH_HF_NAME];
} source;

typedef struct job {
    kh_hf_out *out;
    source *sources; /* [n] */
    size_t n, room;
    uint8_t *done; /* [tensors of the file] */
} job;

/* ---- which tensors ---- */

static kh_status add_source(job *j, const kh_tensor *t, const kh_hf_tensor *row, uint64_t layer,
                            uint64_t expert, const char *suffix)
{
    KH_TRY(kh_grow(&j->sources, j->n, &j->room, sizeof *j->sources, "the names of tensors"));
    source *s = &j->sources[j->n++];
    *s = (source){.tensor = t, .row = row, .expert = expert};
    kh_hf_written_name(s->name, j->out->map, row, layer, expert, suffix);
    return KH_OK;
}

static kh_status take(job *j, const kh_hf_tensor *row, uint64_t layer, const char *suffix)
{
    char name[KH_HF_NAME];
    kh_hf_expand(name, row->to, layer, 0, suffix);
    const kh_tensor *t = kh_gguf_tensor(j->out->file, name);
    if (!t) return KH_OK;
    size_t index = (size_t)(t - kh_gguf_tensor_at(j->out->file, 0));
    if (j->done[index] || !kh_hf_row_is_written(j->out->file, row, name)) return KH_OK;
    j->done[index] = 1;
    uint64_t experts = row->transform == KH_HF_STACK ? t->dims[2] : 1;
    for (uint64_t x = 0; x < experts; x++) KH_TRY(add_source(j, t, row, layer, x, suffix));
    return KH_OK;
}

static kh_status collect(job *j)
{
    const kh_description *d = &j->out->d;
    for (const kh_hf_tensor *row = j->out->map->tensors; row->from; row++) {
        if (!row->to) continue;
        int encoder = strncmp(row->to, "enc.", 4) == 0 && d->encoder_layers > 0;
        int layers = !strchr(row->from, '#') ? 1 : encoder ? d->encoder_layers : d->N;
        for (int layer = 0; layer < layers; layer++) {
            if (!(row->flags & KH_HF_ONLY_BIAS)) KH_TRY(take(j, row, (uint64_t)layer, ".weight"));
            if (row->flags & (KH_HF_BIAS | KH_HF_MAY_BIAS | KH_HF_ONLY_BIAS))
                KH_TRY(take(j, row, (uint64_t)layer, ".bias"));
        }
    }
    for (size_t i = 0; i < kh_gguf_tensor_count(j->out->file); i++) {
        const char *name = kh_gguf_tensor_at(j->out->file, i)->name;
        if (!j->done[i] && strncmp(name, "rope_f", 6) != 0) /* those are fields of config.json */
            KH_FAIL(KH_ERR_UNSUPPORTED, "%s: tensor %s has no name in a Hugging Face folder of %s",
                    kh_gguf_path(j->out->file), name, j->out->map->model_types);
    }
    return KH_OK;
}

/* ---- their bytes ---- */

static kh_type written_type(const kh_hf_out *out, const source *s)
{
    if (s->row->transform == KH_HF_ADD_ONE) return KH_TYPE_F32;
    if (out->type == KH_TYPE_F32 || (out->type != KH_TYPE_NONE && s->tensor->n_dims > 1))
        return out->type;
    return kh_st_type_of(s->tensor->type) == KH_ST_TYPES ? KH_TYPE_F16 : s->tensor->type;
}

static void narrow(void *out, kh_type type, const float *in, size_t n, float added)
{
    for (size_t i = 0; i < n; i++) {
        if (type == KH_TYPE_F32)
            ((float *)out)[i] = in[i] + added;
        else
            ((uint16_t *)out)[i] = type == KH_TYPE_F16 ? kh_f32_to_f16(in[i])
                                                       : kh_f32_to_bf16(in[i]);
    }
}

/* The tensor's elements in the written type, in GGUF's order; *own is what the caller frees. */
static kh_status unpacked(const void **out, void **own, const kh_lora_merge *merge, const source *s,
                          kh_type type, size_t rows, size_t cols)
{
    const kh_tensor *t = s->tensor;
    size_t row_bytes = kh_type_row_bytes(t->type, cols), each = kh_type_bytes(type);
    float added = s->row->transform == KH_HF_ADD_ONE ? -1.0f : 0.0f, *line;
    const char *from = (const char *)t->data + s->expert * rows * row_bytes;
    int merged = kh_lora_merge_has(merge, t->name);
    *own = NULL;
    *out = from;
    if (type == t->type && added == 0 && !merged) return KH_OK;
    KH_TRY(kh_new(&line, cols, sizeof *line, "a row of a tensor"));
    kh_status status = kh_new(own, rows * cols, each, t->name);
    kh_unpack unpack = kh_unpack_of(kh_kern_get(kh_cpu_isa()), t->type);
    for (size_t r = 0; r < rows && status == KH_OK; r++) {
        if (kh_st_type_of(t->type) == KH_ST_TYPES)
            unpack.f32(line, from + r * row_bytes, cols);
        else
            kh_hf_to_f32(line, from + r * row_bytes, t->type, cols, 0);
        if (merged) kh_lora_merge_rows(merge, t->name, line, r, 1, cols);
        narrow((char *)*own + r * cols * each, type, line, cols, added);
    }
    kh_free(line);
    *out = *own;
    return status;
}

static void undo(void *to, const void *from, const source *s, const kh_description *d, size_t rows,
                 size_t cols, size_t each)
{
    size_t E = (size_t)d->E, H = (size_t)d->H;
    int vector = s->tensor->n_dims == 1;
    size_t row_bytes = vector ? each : cols * each, n = vector ? cols : rows;
    if (s->row->transform == KH_HF_PAIRS)
        kh_hf_halve_rows(to, from, n / E, E / 2, row_bytes);
    else if (s->row->transform == KH_HF_BY_HEAD)
        kh_hf_swap_blocks(to, from, 3, H, n / (3 * H) * row_bytes);
    else
        kh_hf_transpose(to, from, rows, cols, each);
}

static kh_status put(const job *j, kh_st_writer *writer, const source *s)
{
    const kh_tensor *t = s->tensor;
    size_t cols = (size_t)t->dims[0], rows = (size_t)t->dims[1];
    kh_type type = written_type(j->out, s);
    size_t each = kh_type_bytes(type);
    kh_hf_transform x = s->row->transform;
    int moved = x == KH_HF_PAIRS || x == KH_HF_BY_HEAD || (x == KH_HF_TURN && t->n_dims == 2);
    const void *bytes;
    void *own, *turned = NULL;
    kh_status status = unpacked(&bytes, &own, j->out->merge, s, type, rows, cols);
    if (status == KH_OK && moved) {
        turned = kh_alloc(rows * cols * each);
        if (turned)
            undo(turned, bytes, s, &j->out->d, rows, cols, each);
        else
            status = kh_fail(KH_ERR_MEMORY, "tensor %s: no memory for a copy", t->name);
    }
    if (status == KH_OK)
        status = kh_st_writer_put(writer, turned ? turned : bytes, rows * cols * each);
    kh_free(turned);
    kh_free(own);
    kh_gguf_release(j->out->file, t);
    return status;
}

static kh_st_tensor shape_of(const kh_hf_out *o, const source *s, size_t index)
{
    const kh_tensor *t = s->tensor;
    kh_st_tensor out = {.name = s->name, .type = kh_st_type_of(written_type(o, s)), .part = index};
    int n = s->row->transform == KH_HF_STACK ? 2 : t->n_dims;
    for (int i = 0; i < n; i++) out.dims[i] = t->dims[n - 1 - i];
    if (s->row->transform == KH_HF_TURN && n == 2) {
        out.dims[0] = t->dims[0];
        out.dims[1] = t->dims[1];
    }
    if (n == 1 && s->row->shape[0] == '1') { /* a matrix of one row */
        out.dims[1] = out.dims[0];
        out.dims[0] = 1;
        n = 2;
    }
    out.n_dims = n;
    return out;
}

static kh_status write_weights(job *j, const char *path)
{
    kh_st_tensor *tensors;
    kh_st_writer *writer;
    KH_TRY(kh_new(&tensors, j->n, sizeof *tensors, "the tensors of a folder"));
    for (size_t i = 0; i < j->n; i++) tensors[i] = shape_of(j->out, &j->sources[i], i);
    kh_status status = kh_st_writer_open(&writer, path, tensors, j->n);
    for (size_t i = 0; i < j->n && status == KH_OK; i++)
        status = put(j, writer, &j->sources[tensors[i].part]);
    if (status == KH_OK)
        status = kh_st_writer_commit(writer);
    else
        kh_st_writer_abandon(writer);
    kh_free(tensors);
    return status;
}

/* ---- the folder ---- */

static kh_status describe(kh_hf_out *out, const kh_gguf *file)
{
    kh_slice name = {"", 0};
    KH_TRY(kh_gguf_opt_string(file, "general.architecture", &name));
    out->file = file;
    out->family = kh_family_find(name.data, name.size);
    if (!out->family || !out->family->hf)
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s: the architecture \"%.*s\" is not written as a folder",
                kh_gguf_path(file), (int)(name.size < 40 ? name.size : 40), name.data);
    KH_TRY(kh_describe(&out->d, out->family, file));
    out->map = kh_hf_written_map(out->family, &out->d, file);
    if (!out->map)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "%s: a %s model with%s experts and with%s a head for classes is not written as a "
                "folder",
                kh_gguf_path(file), out->family->name, out->d.experts.count ? "" : "out",
                kh_gguf_tensor(file, "cls.output.weight") ? "" : "out");
    return KH_OK;
}

static kh_status write_folder(job *j, const char *folder)
{
    kh_buf path = {0};
    size_t count = kh_gguf_tensor_count(j->out->file);
    KH_TRY(kh_new(&j->done, count, 1, "the tensors of a model"));
    KH_TRY(collect(j));
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        KH_FAIL(KH_ERR_IO, "%s: cannot be made: %s", folder, strerror(errno));
    kh_status status = kh_buf_format(&path, "%s/model.safetensors", folder);
    if (status == KH_OK) status = write_weights(j, path.data);
    kh_buf_clear(&path);
    if (status == KH_OK) status = kh_buf_format(&path, "%s/config.json", folder);
    if (status == KH_OK) status = kh_hf_write_config(j->out, path.data);
    kh_buf_free(&path);
    return status;
}

kh_status kh_hf_write_merged(const kh_gguf *file, const char *folder, kh_type type,
                             const kh_lora_merge *merge)
{
    kh_hf_out *out;
    KH_TRY(kh_new(&out, 1, sizeof *out, "a description"));
    job j = {.out = out};
    out->type = type;
    out->merge = merge;
    kh_status status = describe(out, file);
    if (status == KH_OK) status = write_folder(&j, folder);
    kh_free(j.sources);
    kh_free(j.done);
    kh_free(out);
    return status;
}

kh_status kh_hf_write(const kh_gguf *file, const char *folder, kh_type type)
{
    return kh_hf_write_merged(file, folder, type, NULL);
}
