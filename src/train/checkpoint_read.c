/* Reading checkpoints: the newest that is whole.
 *
 * A folder is believed only after its state.json, the sizes and the digests of both other files agree and both
 * are safetensors; then everything stays mapped, and reading is copying. What a name promises is what
 * checkpoint.c keeps; this file trusts nothing, because a copy that was interrupted, a disk and a user's hand
 * know nothing of it.
 *
 * A checkpoint is read into arrays whose names and shapes the run decided. They must be exactly those of the
 * checkpoint: a tensor more or less means another model, and a run that went on would not be the same run. */
#include "base/alloc.h"
#include "base/fail.h"
#include "format/safetensors.h"
#include "train/checkpoint_impl.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct kh_checkpoint {
    char *path;
    kh_checkpoint_record record;
    kh_safetensors *files[KH_CHECKPOINT_FILES];
};

/* ---- folders ---- */

kh_status kh_checkpoint_name(kh_buf *out, const char *folder, uint64_t step)
{
    kh_buf_clear(out);
    return kh_buf_format(out, "%s/step-%08" PRIu64, folder, step);
}

/* "step-00001200"; a name that is written otherwise is somebody else's. */
static int step_of(uint64_t *step, const char *name)
{
    static const char prefix[] = "step-";
    const char *digits = name + sizeof prefix - 1;
    if (strncmp(name, prefix, sizeof prefix - 1) != 0) return 0;
    size_t n = strspn(digits, "0123456789");
    if (n < 8 || n > 18 || digits[n] || (n > 8 && *digits == '0')) return 0;
    *step = strtoull(digits, NULL, 10);
    return 1;
}

static int newest_first(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? 1 : x > y ? -1 : 0;
}

kh_status kh_checkpoint_list(uint64_t **steps, size_t *count, const char *folder)
{
    size_t room = 0;
    kh_status status = KH_OK;
    *steps = NULL;
    *count = 0;
    DIR *all = opendir(folder);
    if (!all)
        KH_FAIL(errno == ENOENT ? KH_ERR_NOT_FOUND : KH_ERR_IO, "%s: %s", folder, strerror(errno));
    for (struct dirent *d; status == KH_OK && (d = readdir(all));) {
        uint64_t step;
        if (!step_of(&step, d->d_name)) continue;
        status = kh_grow(steps, *count, &room, sizeof **steps, "a list of checkpoints");
        if (status == KH_OK) (*steps)[(*count)++] = step;
    }
    closedir(all);
    if (status != KH_OK) {
        kh_free(*steps);
        *steps = NULL;
        return status;
    }
    if (*count) qsort(*steps, *count, sizeof **steps, newest_first);
    return KH_OK;
}

/* ---- opening ---- */

static kh_status open_files(kh_checkpoint *c, kh_buf *path)
{
    KH_TRY(kh_buf_format(path, "%s/state.json", c->path));
    KH_TRY(kh_checkpoint_read_state(&c->record, path->data));
    for (int i = 0; i < KH_CHECKPOINT_FILES; i++) {
        const kh_checkpoint_file *said = &c->record.files[i];
        kh_checkpoint_file found;
        kh_buf_clear(path);
        KH_TRY(kh_buf_format(path, "%s/%s", c->path, kh_checkpoint_files[i]));
        KH_TRY(kh_checkpoint_measure(&found, path->data));
        if (found.size != said->size)
            KH_FAIL(KH_ERR_FORMAT, "%s: damaged: %" PRIu64 " bytes are expected, found %" PRIu64,
                    path->data, said->size, found.size);
        if (found.digest != said->digest)
            KH_FAIL(KH_ERR_FORMAT, "%s: damaged: its digest disagrees", path->data);
        KH_TRY(kh_safetensors_open(&c->files[i], path->data));
    }
    return KH_OK;
}

kh_status kh_checkpoint_open(kh_checkpoint **out, const char *path)
{
    kh_checkpoint *c;
    kh_buf file = {0};
    *out = NULL;
    KH_TRY(kh_new(&c, 1, sizeof *c, "a checkpoint"));
    c->path = kh_strdup(path);
    kh_status status = c->path ? open_files(c, &file)
                               : kh_fail(KH_ERR_MEMORY, "no memory for the name of a checkpoint");
    kh_buf_free(&file);
    if (status == KH_OK)
        *out = c;
    else
        kh_checkpoint_close(c);
    return status;
}

static kh_status open_newest(kh_checkpoint **out, const char *folder, const uint64_t *steps,
                             size_t count, kh_buf *ignored)
{
    kh_buf path = {0};
    kh_status status = KH_OK;
    for (size_t i = 0; i < count && status == KH_OK && !*out; i++) {
        status = kh_checkpoint_name(&path, folder, steps[i]);
        if (status == KH_OK) status = kh_checkpoint_open(out, path.data);
        if (status == KH_OK || status == KH_ERR_MEMORY) continue;
        status = kh_buf_format(ignored, "%s is no complete checkpoint: %s\n", path.data,
                               kh_last_error());
    }
    kh_buf_free(&path);
    return status;
}

kh_status kh_checkpoint_newest(kh_checkpoint **out, const char *folder, kh_buf *ignored)
{
    uint64_t *steps;
    size_t count;
    kh_buf lines = {0};
    *out = NULL;
    KH_TRY(kh_checkpoint_list(&steps, &count, folder));
    kh_status status = open_newest(out, folder, steps, count, &lines);
    kh_free(steps);
    if (status == KH_OK && !*out && count == 0)
        status = kh_fail(KH_ERR_NOT_FOUND, "%s: no checkpoint", folder);
    else if (status == KH_OK && !*out)
        status = kh_fail(KH_ERR_FORMAT, "%s: none of %zu checkpoints is complete; %.*s", folder,
                         count, (int)strcspn(lines.data, "\n"), lines.data);
    else if (status == KH_OK && ignored && lines.size)
        status = kh_buf_text(ignored, lines.data);
    kh_buf_free(&lines);
    if (status != KH_OK) {
        kh_checkpoint_close(*out);
        *out = NULL;
    }
    return status;
}

void kh_checkpoint_close(kh_checkpoint *c)
{
    if (!c) return;
    for (int i = 0; i < KH_CHECKPOINT_FILES; i++) kh_safetensors_close(c->files[i]);
    kh_checkpoint_record_free(&c->record);
    kh_free(c->path);
    kh_free(c);
}

/* ---- contents ---- */

const char *kh_checkpoint_path(const kh_checkpoint *c)
{
    return c->path;
}

const char *kh_checkpoint_library(const kh_checkpoint *c)
{
    return c->record.library;
}

const kh_checkpoint_state *kh_checkpoint_get_state(const kh_checkpoint *c)
{
    return &c->record.state;
}

const kh_checkpoint_blob *kh_checkpoint_get_blob(const kh_checkpoint *c, const char *name)
{
    for (size_t i = 0; i < c->record.state.blob_count; i++)
        if (strcmp(c->record.blobs[i].name, name) == 0) return &c->record.blobs[i];
    return NULL;
}

static int same_shape(const kh_st_tensor *t, const kh_tensor_view *v)
{
    int vector = v->rows == 1;
    return t->n_dims == 2 - vector && t->dims[t->n_dims - 1] == (uint64_t)v->cols &&
           (vector || t->dims[0] == (uint64_t)v->rows);
}

static kh_status check_view(const kh_safetensors *file, const kh_tensor_view *v, const char *path)
{
    const kh_st_tensor *t = kh_safetensors_find(file, v->name);
    if (!t) KH_FAIL(KH_ERR_ARGUMENT, "%s: has no tensor '%s', which this run has", path, v->name);
    if (kh_st_kernel_type(t->type) != v->type)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: tensor '%s' is %s, in this run it is %s", path, v->name,
                kh_st_type_name(t->type), kh_type_name(v->type));
    if (!same_shape(t, v))
        KH_FAIL(KH_ERR_ARGUMENT,
                "%s: tensor '%s' of %zu bytes has another shape than the %d x %d of this run", path,
                v->name, t->size, v->rows, v->cols);
    return KH_OK;
}

static kh_status read_views(const kh_safetensors *file, const kh_tensor_view *to, size_t count)
{
    const char *path = kh_safetensors_count(file)
                           ? kh_safetensors_part(file, kh_safetensors_at(file, 0))
                           : "the checkpoint";
    for (size_t i = 0; i < count; i++) KH_TRY(check_view(file, &to[i], path));
    if (kh_safetensors_count(file) != count)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: has %zu tensors, this run has %zu", path,
                kh_safetensors_count(file), count);
    for (size_t i = 0; i < count; i++) {
        const kh_st_tensor *t = kh_safetensors_find(file, to[i].name);
        memcpy(to[i].data, t->data, t->size);
        kh_safetensors_release(file, t);
    }
    return KH_OK;
}

kh_status kh_checkpoint_read_model(const kh_checkpoint *c, const kh_tensor_view *to, size_t count)
{
    return read_views(c->files[0], to, count);
}

kh_status kh_checkpoint_read_optimizer(const kh_checkpoint *c, const kh_tensor_view *to,
                                       size_t count)
{
    return read_views(c->files[1], to, count);
}
