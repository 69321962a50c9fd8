/* The cache on disk, in the layout that the hub's other clients read and write.
 *
 *     hub/models--OWNER--MODEL/refs/main                        the commit, 40 digits, no line feed
 *                              blobs/ETAG                       whole files
 *                              blobs/ETAG.incomplete            the beginning of one
 *                              snapshots/COMMIT/dir/file  ->    ../../../blobs/ETAG
 *     hub/.locks/models--OWNER--MODEL/ETAG.lock                 flock(2), as the other clients take it
 *
 * Invariants: a blob appears by rename(2), whole and checked; a link by rename too; a ref is written
 * after the files that it leads to, so that a cache without a network never points at half a model.
 * Where the file system has no symbolic links, the blob itself moves to the link's place.
 *
 * Names were checked before they come here (hub_name.c); commits and etags are checked again where they
 * are read from a file of the cache, because others write there too. */
#include "hub/hub_impl.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { MOST_DEPTH = 12 /* folders in a snapshot */ };

/* ---- where ---- */

int kh_hub_env_is_set(const char *name)
{
    const char *value = getenv(name);
    static const char *const yes[] = {"1", "on", "yes", "true"};
    for (size_t i = 0; value && i < sizeof yes / sizeof *yes; i++)
        if (strcasecmp(value, yes[i]) == 0) return 1;
    return 0;
}

/* A variable that holds a path, with "~" for the home folder; 0 where it is not set. */
static kh_status env_path(kh_buf *out, const char *name, int *found)
{
    const char *value = getenv(name), *home = getenv("HOME");
    *found = value && *value;
    kh_buf_clear(out);
    if (!*found) return KH_OK;
    if (value[0] == '~' && (value[1] == '/' || !value[1]) && home) {
        KH_TRY(kh_buf_text(out, home));
        value++;
    }
    return kh_buf_text(out, value);
}

kh_status kh_hub_home(kh_buf *out)
{
    int found = 0;
    KH_TRY(env_path(out, "HF_HOME", &found));
    if (found) return KH_OK;
    KH_TRY(env_path(out, "XDG_CACHE_HOME", &found));
    if (found) return kh_buf_text(out, "/huggingface");
    KH_TRY(env_path(out, "HOME", &found));
    if (!found) KH_FAIL(KH_ERR_NOT_FOUND, "no cache: set HF_HOME or HOME to a folder");
    return kh_buf_text(out, "/.cache/huggingface");
}

static kh_status root_folder(kh_buf *out, const char *root)
{
    int found = 0;
    if (root) return kh_buf_text(out, root);
    KH_TRY(env_path(out, "HF_HUB_CACHE", &found));
    if (!found) KH_TRY(env_path(out, "HUGGINGFACE_HUB_CACHE", &found));
    if (found) return KH_OK;
    KH_TRY(kh_hub_home(out));
    return kh_buf_text(out, "/hub");
}

kh_status kh_hub_cache_open(kh_hub_cache *cache, const char *root, const char *repository)
{
    *cache = (kh_hub_cache){0};
    memcpy(cache->repository, repository, strlen(repository) + 1);
    kh_status status = root_folder(&cache->root, root);
    if (status == KH_OK) status = kh_buf_format(&cache->folder, "%s/models--", cache->root.data);
    const char *slash = strchr(repository, '/');
    if (status == KH_OK && slash)
        status = kh_buf_format(&cache->folder, "%.*s--%s", (int)(slash - repository), repository,
                               slash + 1);
    else if (status == KH_OK)
        status = kh_buf_text(&cache->folder, repository);
    if (status != KH_OK) kh_hub_cache_close(cache);
    return status;
}

void kh_hub_cache_close(kh_hub_cache *cache)
{
    kh_buf_free(&cache->root);
    kh_buf_free(&cache->folder);
}

kh_status kh_hub_cache_blob(kh_buf *out, const kh_hub_cache *cache, const char *etag,
                            const char *suffix)
{
    kh_buf_clear(out);
    return kh_buf_format(out, "%s/blobs/%s%s", cache->folder.data, etag, suffix);
}

kh_status kh_hub_cache_pointer(kh_buf *out, const kh_hub_cache *cache, const char *commit,
                               const char *file)
{
    kh_buf_clear(out);
    return kh_buf_format(out, "%s/snapshots/%s%s%s", cache->folder.data, commit, file ? "/" : "",
                         file ? file : "");
}

/* ---- folders ---- */

/* Makes the folders in front of the last "/" of a path. */
static kh_status make_parents(const char *path)
{
    kh_status status = KH_OK;
    char *copy = kh_strdup(path);
    if (!copy) KH_FAIL(KH_ERR_MEMORY, "no memory for a path");
    for (char *at = strchr(copy + 1, '/'); at && status == KH_OK; at = strchr(at + 1, '/')) {
        *at = 0;
        if (mkdir(copy, 0777) != 0 && errno != EEXIST)
            status = kh_fail(KH_ERR_IO, "%s: the folder cannot be made: %s", copy, strerror(errno));
        *at = '/';
    }
    kh_free(copy);
    return status;
}

kh_status kh_hub_cache_prepare(const kh_hub_cache *cache)
{
    kh_buf path = {0};
    kh_status status = kh_hub_cache_blob(&path, cache, "", "");
    if (status == KH_OK) status = make_parents(path.data);
    kh_buf_free(&path);
    return status;
}

kh_status kh_hub_cache_space(const kh_hub_cache *cache, uint64_t *bytes)
{
    struct statvfs info;
    char *path = kh_strdup(cache->folder.data);
    if (!path) KH_FAIL(KH_ERR_MEMORY, "no memory for a path");
    /* The nearest folder that is there already. */
    int failed = statvfs(path, &info);
    for (char *slash; failed && (slash = strrchr(path, '/')); failed = statvfs(path, &info)) {
        if (slash == path) break;
        *slash = 0;
    }
    kh_free(path);
    *bytes = failed ? UINT64_MAX : (uint64_t)info.f_bavail * info.f_frsize;
    return KH_OK;
}

/* ---- refs ---- */

static kh_status ref_path(kh_buf *out, const kh_hub_cache *cache, const char *revision)
{
    return kh_buf_format(out, "%s/refs/%s", cache->folder.data, revision);
}

kh_status kh_hub_cache_read_ref(const kh_hub_cache *cache, const char *revision, char *commit)
{
    commit[0] = 0;
    if (kh_hub_is_hex(revision, KH_HUB_COMMIT)) {
        memcpy(commit, revision, KH_HUB_COMMIT + 1);
        return KH_OK;
    }
    kh_buf path = {0};
    char *text = NULL;
    size_t size = 0;
    kh_status status = ref_path(&path, cache, revision);
    if (status == KH_OK) status = kh_file_read(&text, &size, path.data, 256);
    while (status == KH_OK && size > 0 && strchr(" \r\n", text[size - 1])) text[--size] = 0;
    if (status == KH_OK && kh_hub_is_hex(text, KH_HUB_COMMIT))
        memcpy(commit, text, KH_HUB_COMMIT + 1);
    else if (status == KH_OK)
        status = kh_fail(KH_ERR_FORMAT, "%s: 40 hexadecimal digits are expected", path.data);
    kh_free(text);
    kh_buf_free(&path);
    return status;
}

kh_status kh_hub_cache_write_ref(const kh_hub_cache *cache, const char *revision,
                                 const char *commit)
{
    char old[KH_HUB_COMMIT + 1];
    if (kh_hub_is_hex(revision, KH_HUB_COMMIT)) return KH_OK;
    if (kh_hub_cache_read_ref(cache, revision, old) == KH_OK && strcmp(old, commit) == 0)
        return KH_OK;
    kh_buf path = {0};
    kh_status status = ref_path(&path, cache, revision);
    if (status == KH_OK) status = make_parents(path.data);
    if (status == KH_OK) status = kh_file_write(path.data, commit, KH_HUB_COMMIT);
    kh_buf_free(&path);
    return status;
}

/* ---- snapshots ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const kh_hub_entry *)a)->name, ((const kh_hub_entry *)b)->name);
}

/* The visible names in a folder, sorted; none where there is no such folder. */
static kh_status read_folder(kh_hub_list *names, const char *path)
{
    DIR *folder = opendir(path);
    kh_status status = KH_OK;
    if (!folder) return KH_OK;
    for (struct dirent *d; status == KH_OK && (d = readdir(folder));)
        if (d->d_name[0] != '.' && kh_hub_file_is_safe(d->d_name))
            status = kh_hub_list_add(names, d->d_name);
    closedir(folder);
    if (names->count) qsort(names->entries, names->count, sizeof *names->entries, by_name);
    return status;
}

/* `path` is a folder of a snapshot; what lies behind its first `skip` bytes is part of the names. */
static kh_status list_folder(kh_hub_list *list, kh_buf *path, size_t skip, int depth)
{
    kh_hub_list names = {0};
    struct stat info;
    size_t length = path->size;
    kh_status status = read_folder(&names, path->data);
    for (size_t i = 0; i < names.count && status == KH_OK; i++) {
        status = kh_buf_format(path, "/%s", names.entries[i].name);
        /* A link whose blob is gone counts as absent. */
        if (status == KH_OK && stat(path->data, &info) == 0) {
            if (S_ISDIR(info.st_mode) && depth < MOST_DEPTH)
                status = list_folder(list, path, skip, depth + 1);
            else if (S_ISREG(info.st_mode) && kh_hub_file_is_safe(path->data + skip)) {
                status = kh_hub_list_add(list, path->data + skip);
                if (status == KH_OK) {
                    kh_hub_entry *e = &list->entries[list->count - 1];
                    e->size = (uint64_t)info.st_size;
                    e->sized = e->cached = 1;
                }
            }
        }
        path->size = length;
        path->data[length] = 0;
    }
    kh_hub_list_free(&names);
    return status;
}

kh_status kh_hub_cache_list(kh_hub_list *list, const kh_hub_cache *cache, const char *commit)
{
    kh_buf path = {0};
    memcpy(list->commit, commit, KH_HUB_COMMIT + 1);
    kh_status status = kh_hub_cache_pointer(&path, cache, commit, NULL);
    if (status == KH_OK) status = list_folder(list, &path, path.size + 1, 0);
    kh_buf_free(&path);
    return status;
}

kh_status kh_hub_cache_link(const kh_hub_cache *cache, const char *commit, const char *file,
                            const char *etag)
{
    kh_buf link = {0}, target = {0}, temporary = {0}, blob = {0};
    char now[KH_HUB_MOST_PATH];
    kh_status status = kh_hub_cache_pointer(&link, cache, commit, file);
    if (status == KH_OK) status = kh_hub_cache_blob(&blob, cache, etag, "");
    if (status == KH_OK)
        status = kh_buf_format(&temporary, "%s.%ld.tmp", link.data, (long)getpid());
    if (status == KH_OK) status = kh_buf_text(&target, "../../");
    for (const char *c = file; *c && status == KH_OK; c++)
        if (*c == '/') status = kh_buf_text(&target, "../");
    if (status == KH_OK) status = kh_buf_format(&target, "blobs/%s", etag);
    if (status == KH_OK) status = make_parents(link.data);
    ssize_t n = status == KH_OK ? readlink(link.data, now, sizeof now) : -1;
    if (status == KH_OK &&
        !(n == (ssize_t)target.size && memcmp(now, target.data, target.size) == 0)) {
        unlink(temporary.data);
        int failed = symlink(target.data, temporary.data) != 0;
        if (failed && (errno == EPERM || errno == EOPNOTSUPP || errno == ENOSYS))
            failed = rename(blob.data, link.data) != 0; /* no links here: the file itself */
        else if (!failed)
            failed = rename(temporary.data, link.data) != 0;
        if (failed) {
            status = kh_fail(KH_ERR_IO, "%s: cannot be made: %s", link.data, strerror(errno));
            unlink(temporary.data);
        }
    }
    kh_buf_free(&link);
    kh_buf_free(&target);
    kh_buf_free(&temporary);
    kh_buf_free(&blob);
    return status;
}

/* ---- locks ---- */

kh_status kh_hub_cache_try_lock(int *fd, const kh_hub_cache *cache, const char *etag)
{
    *fd = -1;
    kh_buf path = {0};
    const char *name = strrchr(cache->folder.data, '/') + 1;
    kh_status status = kh_buf_format(&path, "%s/.locks/%s/%s.lock", cache->root.data, name, etag);
    if (status == KH_OK) status = make_parents(path.data);
    if (status == KH_OK) {
        *fd = open(path.data, O_RDWR | O_CREAT | O_CLOEXEC, 0664);
        if (*fd < 0)
            status = kh_fail(KH_ERR_IO, "%s: cannot be opened: %s", path.data, strerror(errno));
    }
    if (status == KH_OK && flock(*fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            status = kh_fail(KH_ERR_IO, "%s: cannot be locked: %s", path.data, strerror(errno));
        close(*fd);
        *fd = -1;
    }
    kh_buf_free(&path);
    return status;
}

void kh_hub_cache_unlock(int fd)
{
    if (fd >= 0)
        close(fd); /* the lock goes with the last descriptor; the file stays for the others */
}

/* ---- all repositories ---- */

/* The name in refs/ that leads to a commit, "main" if it is among them; the commit if none does.
 * Nested names are not looked for. */
static kh_status revision_of(char *out, size_t room, const kh_hub_cache *cache, const char *commit)
{
    kh_buf path = {0};
    kh_hub_list names = {0};
    memcpy(out, commit, KH_HUB_COMMIT + 1);
    kh_status status = ref_path(&path, cache, "");
    if (status == KH_OK) status = read_folder(&names, path.data);
    for (size_t i = 0, found = 0; i < names.count && status == KH_OK; i++) {
        const char *name = names.entries[i].name;
        char at[KH_HUB_COMMIT + 1];
        if (strlen(name) >= room || (found && strcmp(name, "main") != 0)) continue;
        if (kh_hub_cache_read_ref(cache, name, at) != KH_OK || strcmp(at, commit) != 0) continue;
        memcpy(out, name, strlen(name) + 1);
        found = 1;
    }
    kh_hub_list_free(&names);
    kh_buf_free(&path);
    return status;
}

static kh_status walk_snapshots(const kh_hub_cache *cache, kh_hub_visit *each, void *context)
{
    kh_buf path = {0};
    kh_hub_list commits = {0};
    char revision[200];
    kh_status status = kh_buf_format(&path, "%s/snapshots", cache->folder.data);
    if (status == KH_OK) status = read_folder(&commits, path.data);
    for (size_t i = 0; i < commits.count && status == KH_OK; i++) {
        const char *commit = commits.entries[i].name;
        if (!kh_hub_is_hex(commit, KH_HUB_COMMIT)) continue;
        status = revision_of(revision, sizeof revision, cache, commit);
        if (status == KH_OK) status = each(context, cache, revision, commit);
    }
    kh_hub_list_free(&commits);
    kh_buf_free(&path);
    return status;
}

/* "models--owner--model" to "owner/model"; "" where it is somebody else's folder. */
static void repository_of(char *out, size_t room, const char *folder)
{
    static const char prefix[] = "models--";
    kh_hub_name name;
    out[0] = 0;
    size_t skip = strlen(prefix), n = strlen(folder);
    if (strncmp(folder, prefix, skip) != 0 || n - skip >= room) return;
    memcpy(out, folder + skip, n - skip + 1);
    char *dashes = strstr(out, "--");
    if (dashes) {
        *dashes = '/';
        memmove(dashes + 1, dashes + 2, strlen(dashes + 2) + 1);
    }
    if (kh_hub_name_parse(&name, out) != KH_OK || *name.what) out[0] = 0;
}

kh_status kh_hub_cache_walk(const char *root, kh_hub_visit *each, void *context)
{
    kh_buf path = {0};
    kh_hub_list folders = {0};
    kh_hub_cache cache;
    char repository[200];
    kh_status status = root_folder(&path, root);
    if (status == KH_OK) status = read_folder(&folders, path.data);
    for (size_t i = 0; i < folders.count && status == KH_OK; i++) {
        repository_of(repository, sizeof repository, folders.entries[i].name);
        if (!*repository) continue;
        status = kh_hub_cache_open(&cache, root, repository);
        if (status == KH_OK) status = walk_snapshots(&cache, each, context);
        kh_hub_cache_close(&cache);
    }
    kh_hub_list_free(&folders);
    kh_buf_free(&path);
    return status;
}
