/* Writing checkpoints.
 *
 *     RUN/.new-XXXXXX/...          files are written and synced here, state.json last
 *         rename ->  RUN/step-00001200
 *     RUN/.old-00001200            only while a checkpoint of the same step is replaced
 *     RUN/.gone-XXXXXX             what is being removed
 *
 * A name "step-N" therefore always belongs to a folder that was whole and on the disk when it got the name, and what
 * is removed loses that name before it loses a file. A kill leaves names that begin with a dot, which the next
 * run removes when it takes the folder; the one case in which such a name is the only copy (".old-N" without
 * "step-N": killed between two renames) is renamed back.
 *
 * The lock is flock(2) on RUN/lock: it goes with the process, however that ends. The file holds a process number
 * for the sentence only.
 *
 * Old checkpoints are removed after the new one has its name. Counted are those whose state and sizes agree;
 * the new one always stays, so a folder that was damaged meanwhile never makes a good one go.
 *
 * Rejected: one file for all (masters would not be a model.safetensors that other programs read); a "latest" link
 * (one more thing that can disagree with the folders). */
#include "base/alloc.h"
#include "base/fail.h"
#include "base/file.h"
#include "format/safetensors.h"
#include "train/checkpoint_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct kh_checkpoints {
    char *folder;
    size_t keep;
    int lock;
};

static const char new_prefix[] = ".new-", old_prefix[] = ".old-", gone_prefix[] = ".gone-";

static kh_status disk_fault(const char *path, const char *what)
{
    return kh_fail(KH_ERR_IO, "%s: %s: %s", path, what, strerror(errno));
}

/* Removes a folder of files; what cannot be removed stays until somebody tries again. */
static void remove_folder(const char *path)
{
    DIR *folder = opendir(path);
    if (!folder) return;
    for (struct dirent *d; (d = readdir(folder));) unlinkat(dirfd(folder), d->d_name, 0);
    closedir(folder);
    rmdir(path);
}

/* "FOLDER/PREFIXtail" */
static kh_status join(kh_buf *out, const char *folder, const char *prefix, const char *tail)
{
    kh_buf_clear(out);
    return kh_buf_format(out, "%s/%s%s", folder, prefix, tail);
}

/* ---- a run's folder ---- */

static kh_status take_lock(kh_checkpoints *run)
{
    kh_buf path = {0};
    char text[32] = "";
    kh_status status = join(&path, run->folder, "lock", "");
    if (status == KH_OK) {
        run->lock = open(path.data, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (run->lock < 0) status = disk_fault(path.data, "cannot be opened");
    }
    if (status == KH_OK && flock(run->lock, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) {
            ssize_t n = pread(run->lock, text, sizeof text - 1, 0);
            text[n > 0 ? strspn(text, "0123456789") : 0] = 0;
            status = kh_fail(KH_ERR_STATE,
                             "%s: another run writes its checkpoints here (process %s)",
                             run->folder, *text ? text : "unknown");
        } else {
            status = disk_fault(path.data, "cannot be locked");
        }
    }
    if (status == KH_OK) {
        int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
        if (ftruncate(run->lock, 0) != 0 || pwrite(run->lock, text, (size_t)n, 0) != n)
            status = disk_fault(path.data, "cannot be written");
    }
    kh_buf_free(&path);
    return status;
}

static int begins(const char *name, const char *prefix)
{
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

/* What a run left that was killed while it wrote, replaced or removed. */
static kh_status clean_up(const char *folder)
{
    kh_buf path = {0}, step = {0};
    kh_status status = KH_OK;
    DIR *all = opendir(folder);
    if (!all) return disk_fault(folder, "cannot be read");
    for (struct dirent *d; status == KH_OK && (d = readdir(all));) {
        int old = begins(d->d_name, old_prefix);
        if (!old && !begins(d->d_name, new_prefix) && !begins(d->d_name, gone_prefix)) continue;
        status = join(&path, folder, d->d_name, "");
        if (status == KH_OK && old) {
            status = join(&step, folder, "step-", d->d_name + strlen(old_prefix));
            if (status == KH_OK && rename(path.data, step.data) == 0) continue;
        }
        if (status == KH_OK) remove_folder(path.data);
    }
    closedir(all);
    kh_buf_free(&path);
    kh_buf_free(&step);
    return status;
}

kh_status kh_checkpoints_open(kh_checkpoints **out, const char *folder, size_t keep)
{
    kh_checkpoints *run;
    *out = NULL;
    KH_TRY(kh_new(&run, 1, sizeof *run, "a run's folder"));
    run->lock = -1;
    run->keep = keep;
    run->folder = kh_strdup(folder);
    kh_status status = KH_OK;
    if (!run->folder)
        status = kh_fail(KH_ERR_MEMORY, "no memory for the name of a run's folder");
    else if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        status = disk_fault(folder, "the folder cannot be made");
    if (status == KH_OK) status = take_lock(run);
    if (status == KH_OK) status = clean_up(folder);
    if (status == KH_OK)
        *out = run;
    else
        kh_checkpoints_close(run);
    return status;
}

void kh_checkpoints_close(kh_checkpoints *run)
{
    if (!run) return;
    if (run->lock >= 0) close(run->lock);
    kh_free(run->folder);
    kh_free(run);
}

/* ---- files ---- */

static kh_st_tensor describe(const kh_tensor_view *v)
{
    kh_st_tensor t = {.name = v->name, .type = kh_st_type_of(v->type), .data = v->data};
    if (v->rows > 1) t.dims[t.n_dims++] = (uint64_t)v->rows;
    t.dims[t.n_dims++] = (uint64_t)v->cols;
    return t;
}

static kh_status write_tensors(const char *path, const kh_tensor_view *views, size_t count,
                               kh_checkpoint_file *file)
{
    kh_st_tensor *tensors;
    kh_st_writer *writer = NULL;
    KH_TRY(kh_new(&tensors, count + 1, sizeof *tensors, "a checkpoint"));
    for (size_t i = 0; i < count; i++) tensors[i] = describe(&views[i]);
    kh_status status = kh_st_writer_open(&writer, path, tensors, count);
    for (size_t i = 0; i < count && status == KH_OK; i++)
        status = kh_st_writer_put(writer, tensors[i].data, tensors[i].size);
    if (status == KH_OK)
        status = kh_st_writer_commit(writer);
    else
        kh_st_writer_abandon(writer);
    kh_free(tensors);
    return status ? status : kh_checkpoint_measure(file, path);
}

typedef struct save {
    const kh_checkpoint_state *state;
    const kh_tensor_view *views[KH_CHECKPOINT_FILES];
    size_t counts[KH_CHECKPOINT_FILES];
} save;

static kh_status write_all(const char *folder, const save *s)
{
    kh_checkpoint_file files[KH_CHECKPOINT_FILES];
    kh_buf path = {0}, text = {0};
    kh_status status = KH_OK;
    for (int i = 0; i < KH_CHECKPOINT_FILES && status == KH_OK; i++) {
        status = join(&path, folder, kh_checkpoint_files[i], "");
        if (status == KH_OK)
            status = write_tensors(path.data, s->views[i], s->counts[i], &files[i]);
    }
    if (status == KH_OK) status = kh_checkpoint_write_state(&text, s->state, files);
    if (status == KH_OK) status = join(&path, folder, "state.json", "");
    if (status == KH_OK) status = kh_file_write(path.data, text.data, text.size);
    kh_buf_free(&path);
    kh_buf_free(&text);
    return status;
}

/* ---- names ---- */

/* Takes a folder its name away and removes it; without effect where there is none. */
static kh_status discard(const kh_checkpoints *run, const char *path)
{
    kh_buf gone = {0};
    kh_status status = join(&gone, run->folder, gone_prefix, strrchr(path, '/') + 1);
    if (status == KH_OK) {
        remove_folder(gone.data); /* of an earlier try */
        if (rename(path, gone.data) == 0) remove_folder(gone.data);
    }
    kh_buf_free(&gone);
    return status;
}

static kh_status publish(const kh_checkpoints *run, const char *written, uint64_t step)
{
    kh_buf path = {0}, old = {0};
    char tail[32];
    snprintf(tail, sizeof tail, "%08" PRIu64, step);
    kh_status status = kh_checkpoint_name(&path, run->folder, step);
    if (status == KH_OK) status = join(&old, run->folder, old_prefix, tail);
    if (status == KH_OK) {
        int replaced = rename(path.data, old.data) == 0;
        if (rename(written, path.data) != 0) {
            status = disk_fault(path.data, "cannot be made");
            if (replaced) rename(old.data, path.data);
        } else {
            kh_folder_sync(run->folder);
            if (replaced) status = discard(run, old.data);
        }
    }
    kh_buf_free(&path);
    kh_buf_free(&old);
    return status;
}

/* Whether the state and the sizes of a checkpoint agree. */
static int looks_whole(const char *path)
{
    kh_checkpoint_record record;
    kh_buf file = {0};
    struct stat info;
    int good = join(&file, path, "state.json", "") == KH_OK &&
               kh_checkpoint_read_state(&record, file.data) == KH_OK;
    for (int i = 0; good && i < KH_CHECKPOINT_FILES; i++) {
        good = join(&file, path, kh_checkpoint_files[i], "") == KH_OK &&
               stat(file.data, &info) == 0 && (uint64_t)info.st_size == record.files[i].size;
        if (!good || i + 1 == KH_CHECKPOINT_FILES) kh_checkpoint_record_free(&record);
    }
    kh_buf_free(&file);
    return good;
}

/* Keeps the checkpoint of `step` and the newest complete ones beside it, `keep` in all, and removes what is older. */
static kh_status remove_old(const kh_checkpoints *run, uint64_t step)
{
    uint64_t *steps;
    size_t count, kept = 1;
    kh_buf path = {0};
    if (!run->keep) return KH_OK;
    kh_status status = kh_checkpoint_list(&steps, &count, run->folder);
    if (status != KH_OK) return status;
    for (size_t i = 0; i < count && status == KH_OK; i++) {
        if (steps[i] == step) continue;
        status = kh_checkpoint_name(&path, run->folder, steps[i]);
        if (status != KH_OK) break;
        if (kept >= run->keep)
            status = discard(run, path.data);
        else
            kept += (size_t)looks_whole(path.data);
    }
    kh_buf_free(&path);
    kh_free(steps);
    return status;
}

kh_status kh_checkpoints_save(kh_checkpoints *run, const kh_checkpoint_state *state,
                              const kh_tensor_view *model, size_t model_count,
                              const kh_tensor_view *optimizer, size_t optimizer_count)
{
    save s = {state, {model, optimizer}, {model_count, optimizer_count}};
    kh_buf path = {0};
    kh_status status = join(&path, run->folder, new_prefix, "XXXXXX");
    if (status == KH_OK && !mkdtemp(path.data))
        status = disk_fault(run->folder, "a checkpoint cannot be written");
    else if (status == KH_OK) {
        mode_t mask = umask(0);
        umask(mask);
        chmod(path.data, 0777 & ~mask);
        status = write_all(path.data, &s);
        if (status == KH_OK) status = publish(run, path.data, state->step);
        if (status != KH_OK) remove_folder(path.data);
    }
    kh_buf_free(&path);
    if (status == KH_OK) status = remove_old(run, state->step);
    return status ? kh_fail_context(status, "checkpoint of step %" PRIu64, state->step) : KH_OK;
}
