/* Retrieval of byte texts: are two windows from the same file? A stand-in for the document pairs of Long
 * Range Arena that needs no download.
 *
 *     file       [ train: 8 tenths | valid | test ]         no byte of one split is met in another
 *     example    window of `length` bytes, window of `length` bytes; label 1: same file, else 0
 *
 * Labels are uniform. The two windows of one file do not overlap; the first window's file is uniform
 * for either label. Ids are byte + 1; 0 would fill up. A file has to hold two windows in each split, so
 * it needs 20 times `length` bytes.
 *
 * `files` is a list with "+" between, of files or of folders, whose regular files are taken in the order
 * of their names, the short ones left out. Files are mapped, not read.
 *
 * How far the two windows' shares of bytes lie apart is what a predictor without attention sees; it is
 * the baseline. With few files the task is easier than it looks: a model may learn each file by heart. */
#include "tasks/task_impl.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/file.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { FILES, WINDOW };
enum { TENTHS = 10, VALID_AT = 8, TEST_AT = 9, DISTANCE_CELLS = 64 };

static const kh_task_param params[] = {{"files", NULL, KH_TASK_TEXT, 0, 0},
                                       {"length", "1000", KH_TASK_WHOLE, 1, 1 << 20},
                                       {NULL, NULL, KH_TASK_WHOLE, 0, 0}};

typedef struct shelf {
    kh_map *maps; /* [count] */
    size_t count, room;
} shelf;

static void close_shelf(kh_task *task)
{
    shelf *own = task->own;
    if (!own) return;
    for (size_t i = 0; i < own->count; i++) kh_map_close(&own->maps[i]);
    kh_free(own->maps);
    kh_free(own);
}

/* Splits of a file of `size` bytes: where one begins. */
static size_t border(size_t size, int tenths)
{
    return size / TENTHS * (size_t)tenths;
}

/* ---- files ---- */

static kh_status add_file(kh_task *task, const char *path, int may_be_short)
{
    shelf *own = task->own;
    size_t least = 2 * TENTHS * kh_task_count_of(task, WINDOW);
    KH_TRY(kh_grow(&own->maps, own->count, &own->room, sizeof *own->maps, "the files of a task"));
    kh_map *map = &own->maps[own->count];
    KH_TRY(kh_map_open(map, path));
    if (map->size >= least) {
        own->count++;
        return KH_OK;
    }
    size_t size = map->size;
    kh_map_close(map);
    if (may_be_short) return KH_OK;
    KH_FAIL(KH_ERR_ARGUMENT, "task 'bytes': %s has %zu bytes, windows of %zu need %zu", path, size,
            kh_task_count_of(task, WINDOW), least);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Appends FOLDER/NAME of what is in a folder and not hidden. */
static kh_status list_folder(char ***paths, size_t *count, const char *folder)
{
    size_t room = 0;
    DIR *stream = opendir(folder);
    if (!stream) KH_FAIL(KH_ERR_IO, "%s: the folder cannot be read", folder);
    kh_status status = KH_OK;
    for (struct dirent *entry; status == KH_OK && (entry = readdir(stream));) {
        kh_buf path = {0};
        if (entry->d_name[0] == '.') continue;
        status = kh_buf_format(&path, "%s/%s", folder, entry->d_name);
        if (status == KH_OK) status = kh_grow(paths, *count, &room, sizeof **paths, "a folder");
        if (status == KH_OK)
            (*paths)[(*count)++] = path.data;
        else
            kh_buf_free(&path);
    }
    closedir(stream);
    return status;
}

static kh_status add_folder(kh_task *task, const char *folder)
{
    char **paths = NULL;
    size_t count = 0;
    kh_status status = list_folder(&paths, &count, folder);
    if (count) qsort(paths, count, sizeof *paths, by_name);
    for (size_t i = 0; i < count; i++) {
        struct stat about;
        if (status == KH_OK && stat(paths[i], &about) == 0 && S_ISREG(about.st_mode))
            status = add_file(task, paths[i], 1);
        kh_free(paths[i]);
    }
    kh_free(paths);
    return status;
}

static kh_status open(kh_task *task)
{
    KH_TRY(kh_new(&task->own, 1, sizeof(shelf), "a task"));
    char *list = kh_strdup(task->text[FILES]);
    if (!list) KH_FAIL(KH_ERR_MEMORY, "no memory for the files of a task");
    kh_status status = KH_OK;
    for (char *rest = list, *path; status == KH_OK && (path = strsep(&rest, "+"));) {
        struct stat about;
        int folder = stat(path, &about) == 0 && S_ISDIR(about.st_mode);
        status = folder ? add_folder(task, path) : add_file(task, path, 0);
    }
    kh_free(list);
    KH_TRY(status);
    size_t count = ((shelf *)task->own)->count, window = kh_task_count_of(task, WINDOW);
    if (count < 2)
        KH_TASK_REFUSE(task, "two files of %zu bytes are needed, found %zu", 2 * TENTHS * window,
                       count);
    task->info.vocabulary = 257;
    task->info.classes = 2;
    task->info.pad = 0;
    task->info.pair = 1;
    task->info.longest = 2 * window;
    return KH_OK;
}

/* ---- examples ---- */

static void copy_window(int32_t *out, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) out[i] = bytes[i] + 1;
}

static kh_status make(const kh_task *task, kh_task_split split, kh_task_draws *draws,
                      kh_task_example *out)
{
    const shelf *own = task->own;
    size_t window = kh_task_count_of(task, WINDOW), file[2], at[2];
    int first = split == KH_TASK_TRAIN ? 0 : split == KH_TASK_VALID ? VALID_AT : TEST_AT;
    int last = split == KH_TASK_TRAIN ? VALID_AT : first + 1;
    out->label = (int)kh_task_below(draws, 2);
    file[0] = file[1] = kh_task_below(draws, own->count);
    if (!out->label) file[1] = (file[0] + 1 + kh_task_below(draws, own->count - 1)) % own->count;
    for (int i = 0; i < 2; i++) {
        size_t size = own->maps[file[i]].size, begin = border(size, first);
        size_t spare = border(size, last) - begin - (out->label ? 2 : 1) * window;
        at[i] = begin + kh_task_below(draws, spare + 1);
    }
    /* Two places among what is left without the windows: the later window lies behind the earlier. */
    if (out->label) at[at[1] >= at[0] ? 1 : 0] += window;
    for (int i = 0; i < 2; i++)
        copy_window(out->tokens + (size_t)i * window, own->maps[file[i]].data + at[i], window);
    out->n = 2 * window;
    out->second = window;
    return KH_OK;
}

static int spell(const kh_task *task, int32_t id, char *out, size_t room)
{
    (void)task;
    if (id > ' ' + 1 && id <= '~' + 1) return snprintf(out, room, "%c", id - 1);
    return id > 0 ? snprintf(out, room, "\\x%02x", id - 1) : snprintf(out, room, "_");
}

static kh_status text(const kh_task *task, const kh_task_example *example, kh_buf *out)
{
    (void)task;
    for (size_t t = 0; t < example->n; t++) {
        if (t == example->second) KH_TRY(kh_buf_text(out, "\n-----\n"));
        KH_TRY(kh_buf_add(out, &(char){(char)(example->tokens[t] - 1)}, 1));
    }
    return KH_OK;
}

/* ---- statistics and baselines ---- */

/* Half the sum of the differences of the bytes' shares: 0 alike, 1 without a common byte. */
static double histogram_distance(const kh_task_example *example)
{
    int difference[257] = {0}, sum = 0;
    for (size_t t = 0; t < example->n; t++)
        difference[example->tokens[t]] += t < example->second ? 1 : -1;
    for (int id = 0; id < 257; id++) sum += abs(difference[id]);
    return (double)sum / (double)example->n;
}

static const char *const numbers[] = {"distance of the bytes' shares", NULL};

static void measure(const kh_task *task, const kh_task_example *example, double *sums)
{
    (void)task;
    sums[0] += histogram_distance(example);
}

static void distance_shape(const kh_task *task, size_t *cells, size_t *votes)
{
    (void)task;
    *cells = DISTANCE_CELLS + 1;
    *votes = 2;
}

static void distance_see(const kh_task *task, const kh_task_example *example, size_t row,
                         size_t *cell, size_t *vote)
{
    (void)task;
    (void)row;
    *cell = (size_t)(histogram_distance(example) * DISTANCE_CELLS);
    *vote = (size_t)example->label;
}

static const kh_task_shallow shallow[] = {
    {"the commonest label", kh_task_majority_shape, kh_task_majority_see},
    {"the distance of the bytes' shares", distance_shape, distance_see},
    {NULL, NULL, NULL}};

const kh_task_family kh_task_bytes = {
    .kind = {"bytes", "whether two windows of bytes come from the same file",
             "files=A+B+...,length=1000"},
    .params = params,
    .open = open,
    .close = close_shelf,
    .make = make,
    .spell = spell,
    .text = text,
    .numbers = numbers,
    .measure = measure,
    .shallow = shallow,
};
