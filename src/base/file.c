/* Files: mapped for reading, replaced atomically for writing.
 *
 * A reader maps the file, so a model costs no copy and its pages belong to the page cache. A writer
 * fills "NAME.XXXXXX" in the same folder, syncs it and renames it over NAME: at any moment, killed or
 * out of space, NAME is either the old file or the new one, whole (rename(2) is atomic within a file
 * system). The folder is synced too, so the rename survives a power cut. */
#include "base/file.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct kh_outfile {
    int fd;
    char *path, *temporary;
};

kh_status kh_map_open(kh_map *map, const char *path)
{
    *map = (kh_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not wait */
    if (fd < 0)
        KH_FAIL(errno == ENOENT ? KH_ERR_NOT_FOUND : KH_ERR_IO, "%s: %s", path, strerror(errno));
    struct stat info;
    kh_status status = KH_OK;
    if (fstat(fd, &info) != 0)
        status = kh_fail(KH_ERR_IO, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(info.st_mode))
        status = kh_fail(KH_ERR_IO, "%s: a regular file is expected, found a %s", path,
                         S_ISDIR(info.st_mode) ? "folder" : "device or pipe");
    else if (info.st_size > 0) {
        void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED)
            status = kh_fail(KH_ERR_IO, "%s: cannot be mapped: %s", path, strerror(errno));
        else
            *map = (kh_map){data, (size_t)info.st_size};
    }
    close(fd);
    return status;
}

static void *writable(const uint8_t *data)
{
    void *p;
    memcpy(&p, &data, sizeof p);
    return p;
}

void kh_map_close(kh_map *map)
{
    if (map->data) munmap(writable(map->data), map->size);
    *map = (kh_map){0};
}

void kh_map_release(const kh_map *map, size_t offset, size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (offset > map->size || size > map->size - offset) return;
    size_t first = (offset + page - 1) / page * page, last = (offset + size) / page * page;
    if (first < last) madvise(writable(map->data + first), last - first, MADV_DONTNEED);
}

kh_status kh_file_read(char **data, size_t *size, const char *path, size_t limit)
{
    *data = NULL;
    *size = 0;
    int is_stdin = strcmp(path, "-") == 0;
    int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        KH_FAIL(errno == ENOENT ? KH_ERR_NOT_FOUND : KH_ERR_IO, "%s: %s", path, strerror(errno));
    kh_buf buf = {0};
    kh_status status = kh_buf_reserve(&buf, 4096);
    while (status == KH_OK) {
        ssize_t n = read(fd, buf.data + buf.size, buf.capacity - buf.size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) status = kh_fail(KH_ERR_IO, "%s: %s", path, strerror(errno));
        if (n <= 0) break;
        buf.size += (size_t)n;
        if (buf.size > limit)
            status = kh_fail(KH_ERR_IO, "%s: larger than the allowed %zu bytes", path, limit);
        else if (buf.size == buf.capacity)
            status = kh_buf_reserve(&buf, buf.size + 1);
    }
    if (!is_stdin) close(fd);
    if (status != KH_OK) {
        kh_buf_free(&buf);
        return status;
    }
    buf.data[buf.size] = 0;
    *data = buf.data;
    *size = buf.size;
    return KH_OK;
}

kh_status kh_outfile_open(kh_outfile **out, const char *path)
{
    *out = NULL;
    kh_outfile *file = NULL;
    KH_TRY(kh_new(&file, 1, sizeof *file, "an output file"));
    file->fd = -1;
    size_t n = strlen(path);
    file->path = kh_strdup(path);
    file->temporary = kh_alloc(n + 8);
    if (!file->path || !file->temporary) {
        kh_outfile_abandon(file);
        KH_FAIL(KH_ERR_MEMORY, "no memory for the name of an output file");
    }
    memcpy(file->temporary, path, n);
    memcpy(file->temporary + n, ".XXXXXX", 8);
    file->fd = mkostemp(file->temporary, O_CLOEXEC);
    if (file->fd < 0) {
        kh_status status = kh_fail(KH_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
        file->temporary[0] = 0;
        kh_outfile_abandon(file);
        return status;
    }
    mode_t mask = umask(0);
    umask(mask);
    fchmod(file->fd, 0666 & ~mask);
    *out = file;
    return KH_OK;
}

kh_status kh_outfile_write(kh_outfile *file, const void *bytes, size_t n)
{
    const char *from = bytes;
    while (n > 0) {
        ssize_t done = write(file->fd, from, n);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) KH_FAIL(KH_ERR_IO, "%s: cannot be written: %s", file->path, strerror(errno));
        from += done;
        n -= (size_t)done;
    }
    return KH_OK;
}

kh_status kh_outfile_patch(kh_outfile *file, uint64_t offset, const void *bytes, size_t n)
{
    const char *from = bytes;
    while (n > 0) {
        ssize_t done = pwrite(file->fd, from, n, (off_t)offset);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) KH_FAIL(KH_ERR_IO, "%s: cannot be written: %s", file->path, strerror(errno));
        from += done;
        offset += (uint64_t)done;
        n -= (size_t)done;
    }
    return KH_OK;
}

void kh_folder_sync(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd);
    close(fd);
}

kh_status kh_outfile_commit(kh_outfile *file)
{
    kh_status status = KH_OK;
    int bad = fsync(file->fd) != 0 && errno != EINVAL;
    bad |= close(file->fd) != 0;
    file->fd = -1;
    if (bad || rename(file->temporary, file->path) != 0)
        status = kh_fail(KH_ERR_IO, "%s: cannot be written: %s", file->path, strerror(errno));
    else {
        file->temporary[0] = 0;
        kh_folder_sync(dirname(file->path));
    }
    kh_outfile_abandon(file);
    return status;
}

void kh_outfile_abandon(kh_outfile *file)
{
    if (!file) return;
    if (file->fd >= 0) close(file->fd);
    if (file->temporary && file->temporary[0]) unlink(file->temporary);
    kh_free(file->temporary);
    kh_free(file->path);
    kh_free(file);
}

kh_status kh_file_write(const char *path, const void *bytes, size_t n)
{
    kh_outfile *file;
    KH_TRY(kh_outfile_open(&file, path));
    kh_status status = kh_outfile_write(file, bytes, n);
    if (status == KH_OK) return kh_outfile_commit(file);
    kh_outfile_abandon(file);
    return status;
}
