/* base/file.h: files that are mapped for reading, and files that are replaced atomically. */
#ifndef KH_BASE_FILE_H
#define KH_BASE_FILE_H

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

typedef struct kh_map {
    const uint8_t *data; /* NULL for an empty file */
    size_t size;
} kh_map;

/* Maps a regular file read-only. A missing file, a folder, a pipe: one sentence each. */
kh_status kh_map_open(kh_map *map, const char *path);
void kh_map_close(kh_map *map);
/* Gives the resident pages that lie wholly inside [offset, offset + size) back: they are clean and
 * come back from the file when they are read again. */
void kh_map_release(const kh_map *map, size_t offset, size_t size);

/* Reads a whole file or stream ("-" is standard input) of at most `limit` bytes into fresh memory,
 * followed by a zero byte; the caller frees *data with kh_free. */
kh_status kh_file_read(char **data, size_t *size, const char *path, size_t limit);

/* A file that appears under its name only when it is whole: written beside it, synced, renamed. */
typedef struct kh_outfile kh_outfile;
kh_status kh_outfile_open(kh_outfile **out, const char *path);
kh_status kh_outfile_write(kh_outfile *file, const void *bytes, size_t n);
/* Overwrites bytes that were written before; the end stays where it is. */
kh_status kh_outfile_patch(kh_outfile *file, uint64_t offset, const void *bytes, size_t n);
/* Publishes the file and frees `file`; on failure the old file is as it was. */
kh_status kh_outfile_commit(kh_outfile *file);
/* Forgets what was written; takes NULL. */
void kh_outfile_abandon(kh_outfile *file);

/* Such a file from bytes that are there already. */
kh_status kh_file_write(const char *path, const void *bytes, size_t n);

/* Waits until the names in a folder are on the disk, as far as its file system can. */
void kh_folder_sync(const char *path);

#endif
