/* Documents in files: which files, and where in them each document lies.
 *
 * Folders are listed by name, so that the numbers of documents do not depend on a file system. Opening
 * reads every text once, to find its lines; what stays in memory is 16 bytes a document. One file is
 * mapped at a time (a folder may hold more files than a process may map), and the pages of a document
 * are given back when the next one is read.
 *
 * A line of JSON is a document, blank lines are not. A text file is one document, or several with
 * separator lines between them; line ends stay in the text, CRLF too. A byte order mark in front of
 * a file is dropped. Documents beyond `piece` bytes are cut behind the last line end of the piece, or
 * the last blank, or between two characters: only the first part then begins a document and only the
 * last one ends it. */
#include "train/data_impl.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_FILES = (1 << 30) - 1 };

static int ends_in(const char *path, const char *end)
{
    size_t n = strlen(path), m = strlen(end);
    return n > m && strcmp(path + n - m, end) == 0;
}

static kh_source_format format_of(const char *path)
{
    if (ends_in(path, ".jsonl") || ends_in(path, ".ndjson")) return KH_SOURCE_JSONL;
    return ends_in(path, ".khtok") ? KH_SOURCE_SHARD : KH_SOURCE_TEXT;
}

static kh_status add_file(kh_data_files *files, const char *path, const struct stat *info,
                          kh_source_format format)
{
    if (files->count == MAX_FILES) KH_FAIL(KH_ERR_UNSUPPORTED, "%s: too many files", path);
    KH_TRY(kh_grow(&files->list, files->count, &files->room, sizeof *files->list,
                   "the names of files"));
    char *copy = kh_strdup(path);
    if (!copy) KH_FAIL(KH_ERR_MEMORY, "no memory for the name of a file");
    files->list[files->count++] = (kh_data_file){
        copy, format == KH_SOURCE_BY_NAME ? format_of(path) : format, (uint64_t)info->st_size};
    return KH_OK;
}

static kh_status add_entries(kh_data_files *files, DIR *folder, const char *name,
                             kh_source_format format)
{
    kh_buf path = {0};
    kh_status status = KH_OK;
    for (const struct dirent *entry; status == KH_OK && (entry = readdir(folder)) != NULL;) {
        struct stat info;
        if (entry->d_name[0] == '.') continue;
        kh_buf_clear(&path);
        status = kh_buf_format(&path, "%s/%s", name, entry->d_name);
        if (status != KH_OK) break;
        if (stat(path.data, &info) != 0)
            status = kh_fail(KH_ERR_IO, "%s: %s", path.data, strerror(errno));
        else if (S_ISREG(info.st_mode))
            status = add_file(files, path.data, &info, format);
    }
    kh_buf_free(&path);
    return status;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const kh_data_file *)a)->path, ((const kh_data_file *)b)->path);
}

static kh_status add_folder(kh_data_files *files, const char *name, kh_source_format format)
{
    size_t before = files->count;
    DIR *folder = opendir(name);
    if (!folder) KH_FAIL(KH_ERR_IO, "%s: %s", name, strerror(errno));
    kh_status status = add_entries(files, folder, name, format);
    closedir(folder);
    KH_TRY(status);
    if (files->count == before) KH_FAIL(KH_ERR_NOT_FOUND, "%s: the folder holds no file", name);
    qsort(files->list + before, files->count - before, sizeof *files->list, by_path);
    return KH_OK;
}

kh_status kh_data_files_list(kh_data_files *files, const char *const *paths, size_t count,
                             kh_source_format format)
{
    if (!count) KH_FAIL(KH_ERR_ARGUMENT, "training data: no file is named");
    for (size_t i = 0; i < count; i++) {
        struct stat info;
        if (stat(paths[i], &info) != 0)
            KH_FAIL(errno == ENOENT ? KH_ERR_NOT_FOUND : KH_ERR_IO, "%s: %s", paths[i],
                    strerror(errno));
        KH_TRY(S_ISDIR(info.st_mode) ? add_folder(files, paths[i], format)
                                     : add_file(files, paths[i], &info, format));
    }
    return KH_OK;
}

static kh_status map_file(kh_data_files *files, size_t file)
{
    if (files->mapped == file + 1) return KH_OK;
    kh_map_close(&files->map);
    files->mapped = 0;
    KH_TRY(kh_map_open(&files->map, files->list[file].path));
    files->mapped = file + 1;
    return KH_OK;
}

static kh_status add_place(kh_data_files *files, kh_data_place place)
{
    KH_TRY(kh_grow(&files->places, files->place_count, &files->place_room, sizeof *files->places,
                   "the places of documents"));
    files->places[files->place_count++] = place;
    return KH_OK;
}

/* How many bytes of a long text make a part. */
static size_t cut(const uint8_t *text, size_t piece)
{
    const uint8_t *line = memrchr(text, '\n', piece);
    if (line) return (size_t)(line - text) + 1;
    const uint8_t *blank = memrchr(text, ' ', piece);
    if (blank && blank > text) return (size_t)(blank - text);
    size_t n = piece; /* text[n] is there: it begins a character, or follows ill-formed bytes */
    for (int back = 0; back < 3 && n > 1 && (text[n] & 0xC0) == 0x80; back++) n--;
    return (text[n] & 0xC0) == 0x80 ? piece : n;
}

static kh_status add_text(kh_data_files *files, size_t file, size_t start, size_t end, size_t piece)
{
    size_t at = start;
    while (end - at > piece) {
        size_t size = cut(files->map.data + at, piece);
        KH_TRY(add_place(files, (kh_data_place){at, (uint32_t)size, (uint32_t)file & MAX_FILES,
                                                at == start, 0}));
        at += size;
    }
    return add_place(files, (kh_data_place){at, (uint32_t)(end - at), (uint32_t)file & MAX_FILES,
                                            at == start, 1});
}

/* The end of the line that begins at `at`, without its line end; *next behind it. */
static size_t line_end(const kh_map *map, size_t at, size_t *next)
{
    const uint8_t *end = memchr(map->data + at, '\n', map->size - at);
    size_t stop = end ? (size_t)(end - map->data) : map->size;
    *next = stop + (end != NULL);
    return stop > at && map->data[stop - 1] == '\r' ? stop - 1 : stop;
}

static kh_status scan_text(kh_data_files *files, size_t file, size_t begin, const char *separator,
                           size_t piece)
{
    const kh_map *map = &files->map;
    if (!separator) return add_text(files, file, begin, map->size, piece);
    size_t length = strlen(separator), start = begin, next;
    for (size_t at = begin; at < map->size; at = next) {
        size_t end = line_end(map, at, &next);
        if (end - at != length || memcmp(map->data + at, separator, length) != 0) continue;
        if (at > start) KH_TRY(add_text(files, file, start, at, piece));
        start = next;
    }
    return start < map->size ? add_text(files, file, start, map->size, piece) : KH_OK;
}

static kh_status scan_lines(kh_data_files *files, size_t file, size_t begin)
{
    const kh_map *map = &files->map;
    size_t next, line = 1;
    for (size_t at = begin; at < map->size; at = next, line++) {
        size_t end = line_end(map, at, &next);
        while (at < end && (map->data[at] == ' ' || map->data[at] == '\t')) at++;
        if (at == end) continue;
        if (end - at > (size_t)1 << 30)
            KH_FAIL(KH_ERR_UNSUPPORTED, "%s: line %zu has more than 1 GiB", files->list[file].path,
                    line);
        KH_TRY(add_place(
            files, (kh_data_place){at, (uint32_t)(end - at), (uint32_t)file & MAX_FILES, 1, 1}));
    }
    return KH_OK;
}

kh_status kh_data_files_scan(kh_data_files *files, const char *separator, size_t piece)
{
    for (size_t i = 0; i < files->count; i++) {
        KH_TRY(map_file(files, i));
        size_t begin = files->map.size >= 3 && memcmp(files->map.data, "\xEF\xBB\xBF", 3) == 0 ? 3
                                                                                               : 0;
        KH_TRY(files->list[i].format == KH_SOURCE_JSONL
                   ? scan_lines(files, i, begin)
                   : scan_text(files, i, begin, separator, piece));
    }
    return KH_OK;
}

kh_status kh_data_files_read(kh_data_files *files, size_t place, kh_slice *out)
{
    const kh_data_place *p = &files->places[place];
    KH_TRY(map_file(files, p->file));
    if (p->start > files->map.size || p->size > files->map.size - p->start)
        KH_FAIL(KH_ERR_IO, "%s: the file has %zu bytes and had more when it was opened",
                files->list[p->file].path, files->map.size);
    *out = (kh_slice){p->size ? (const char *)files->map.data + p->start : "", p->size};
    return KH_OK;
}

size_t kh_data_files_line(const kh_data_files *files, size_t place)
{
    size_t line = 1, end = files->places[place].start;
    if (end > files->map.size) end = files->map.size;
    for (size_t at = 0; at < end; at++) line += files->map.data[at] == '\n';
    return line;
}

void kh_data_files_close(kh_data_files *files)
{
    for (size_t i = 0; i < files->count; i++) kh_free(files->list[i].path);
    kh_free(files->list);
    kh_free(files->places);
    kh_map_close(&files->map);
    *files = (kh_data_files){0};
}
