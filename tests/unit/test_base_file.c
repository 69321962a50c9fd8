/* Mapped files, whole reads, and files that are replaced atomically or not at all. */
#include "base/alloc.h"
#include "base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64];

static const char *at(const char *name)
{
    static char paths[4][160];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void store(const char *path, const void *bytes, size_t n)
{
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(bytes, 1, n, out), n);
    assert_int_equal(fclose(out), 0);
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/test_base_file_XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command) == 0 ? 0 : -1;
}

/* Files in the folder: what a failed write must not leave behind. */
static int count_files(const char *path)
{
    int n = 0;
    DIR *dir = opendir(path);
    if (!dir) return -1;
    for (struct dirent *e; (e = readdir(dir));) n += e->d_name[0] != '.';
    closedir(dir);
    return n;
}

static int holds(const char *path, const char *text)
{
    char *data;
    size_t size;
    if (kh_file_read(&data, &size, path, 1 << 20) != KH_OK) return 0;
    int same = size == strlen(text) && memcmp(data, text, size + 1) == 0;
    kh_free(data);
    return same;
}

static void maps(void **state)
{
    (void)state;
    kh_map map;
    static uint8_t bytes[20000];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 31);
    store(at("mapped"), bytes, sizeof bytes);
    assert_int_equal(kh_map_open(&map, at("mapped")), KH_OK);
    assert_int_equal(map.size, sizeof bytes);
    assert_memory_equal(map.data, bytes, sizeof bytes);
    kh_map_release(&map, 0, map.size);
    kh_map_release(&map, 5000, 9000);
    kh_map_release(&map, map.size, 0);
    kh_map_release(&map, map.size + 1, 1);
    kh_map_release(&map, 1, SIZE_MAX);
    assert_memory_equal(map.data, bytes, sizeof bytes);
    kh_map_close(&map);
    assert_null(map.data);
    kh_map_close(&map);
    store(at("empty"), "", 0);
    assert_int_equal(kh_map_open(&map, at("empty")), KH_OK);
    assert_true(map.data == NULL && map.size == 0);
    kh_map_release(&map, 0, 0);
    kh_map_close(&map);
}

static void refusal(kh_status status, kh_status expected, const char *path, const char *word)
{
    assert_int_equal(status, expected);
    if (strncmp(kh_last_error(), path, strlen(path)) != 0 || !strstr(kh_last_error(), word))
        fail_msg("'%s' should name '%s' and '%s'", kh_last_error(), path, word);
}

static void refuses_to_map(void **state)
{
    (void)state;
    kh_map map = {(const uint8_t *)"x", 1};
    refusal(kh_map_open(&map, at("absent")), KH_ERR_NOT_FOUND, at("absent"), "No such file");
    assert_true(map.data == NULL && map.size == 0);
    refusal(kh_map_open(&map, folder), KH_ERR_IO, folder, "folder");
    assert_int_equal(mkfifo(at("pipe"), 0600), 0);
    refusal(kh_map_open(&map, at("pipe")), KH_ERR_IO, at("pipe"), "pipe");
    refusal(kh_map_open(&map, "/dev/null"), KH_ERR_IO, "/dev/null", "device");
    unlink(at("pipe"));
}

static void reads_whole_files(void **state)
{
    (void)state;
    char *data;
    size_t size;
    static char bytes[10000];
    memset(bytes, 'k', sizeof bytes);
    store(at("text"), bytes, sizeof bytes);
    assert_int_equal(kh_file_read(&data, &size, at("text"), sizeof bytes), KH_OK);
    assert_int_equal(size, sizeof bytes);
    assert_memory_equal(data, bytes, size);
    assert_int_equal(data[size], 0);
    kh_free(data);
    refusal(kh_file_read(&data, &size, at("text"), sizeof bytes - 1), KH_ERR_IO, at("text"),
            "9999");
    assert_true(data == NULL && size == 0);
    refusal(kh_file_read(&data, &size, "/dev/zero", 1 << 20), KH_ERR_IO, "/dev/zero", "1048576");
    assert_true(holds("/dev/null", ""));
    refusal(kh_file_read(&data, &size, at("absent"), 10), KH_ERR_NOT_FOUND, at("absent"),
            "No such");
    refusal(kh_file_read(&data, &size, folder, 10), KH_ERR_IO, folder, "directory");

    int ends[2], saved = dup(STDIN_FILENO);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "from a pipe", 11), 11);
    close(ends[1]);
    assert_int_equal(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
    assert_true(holds("-", "from a pipe"));
    assert_int_equal(dup2(saved, STDIN_FILENO), STDIN_FILENO);
    close(saved);
    close(ends[0]);
}

static void replaces_atomically(void **state)
{
    (void)state;
    const char *path = at("out");
    kh_outfile *file;
    mode_t mask = umask(022);
    assert_int_equal(kh_outfile_open(&file, path), KH_OK);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(kh_outfile_write(file, "first ", 6), KH_OK);
    assert_int_equal(kh_outfile_write(file, "", 0), KH_OK);
    assert_int_equal(kh_outfile_write(file, "version", 7), KH_OK);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(kh_outfile_commit(file), KH_OK);
    assert_true(holds(path, "first version"));
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0644);
    umask(mask);

    int files = count_files(folder);
    assert_int_equal(kh_outfile_open(&file, path), KH_OK);
    assert_int_equal(kh_outfile_write(file, "second", 6), KH_OK);
    assert_true(holds(path, "first version"));
    assert_int_equal(count_files(folder), files + 1);
    kh_outfile_abandon(file);
    assert_true(holds(path, "first version"));
    assert_int_equal(count_files(folder), files);

    assert_int_equal(kh_outfile_open(&file, path), KH_OK);
    assert_int_equal(kh_outfile_write(file, "third", 5), KH_OK);
    assert_int_equal(kh_outfile_commit(file), KH_OK);
    assert_true(holds(path, "third"));
    assert_int_equal(count_files(folder), files);
    kh_outfile_abandon(NULL);
}

static void refuses_bad_places(void **state)
{
    (void)state;
    kh_outfile *file;
    refusal(kh_outfile_open(&file, at("no/folder/x")), KH_ERR_IO, at("no/folder/x"), "No such");
    assert_null(file);
    assert_int_equal(mkdir(at("taken"), 0700), 0);
    assert_int_equal(kh_outfile_open(&file, at("taken")), KH_OK);
    int files = count_files(folder);
    refusal(kh_outfile_commit(file), KH_ERR_IO, at("taken"), "written");
    assert_int_equal(count_files(folder), files - 1);
}

/* A limit on file sizes makes write() fail half-way, for any user. */
static void failing_write_keeps_old_file(void **state)
{
    (void)state;
    static const char zeros[100000];
    const char *path = at("limited");
    store(path, "old", 3);
    int files = count_files(folder);
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 65536;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    kh_outfile *file;
    kh_status opened = kh_outfile_open(&file, path), written = KH_OK;
    if (opened == KH_OK) written = kh_outfile_write(file, zeros, sizeof zeros);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, handler);
    assert_int_equal(opened, KH_OK);
    refusal(written, KH_ERR_IO, path, "too large");
    kh_outfile_abandon(file);
    assert_true(holds(path, "old"));
    assert_int_equal(count_files(folder), files);
}

enum { CANNOT_MOUNT = 77 };

/* In a child with its own mounts: 0 when a full device left the old file whole. */
static int fill_a_device(void)
{
    static const char zeros[100000];
    const char *place = at("device");
    if (mkdir(place, 0700) != 0) return 1;
    if (unshare(CLONE_NEWNS) != 0) return CANNOT_MOUNT;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return CANNOT_MOUNT;
    if (mount("tmpfs", place, "tmpfs", 0, "size=64k") != 0) return CANNOT_MOUNT;
    char path[200];
    snprintf(path, sizeof path, "%s/model", place);
    store(path, "old", 3);
    kh_outfile *file;
    if (kh_outfile_open(&file, path) != KH_OK) return 2;
    kh_status status = kh_outfile_write(file, zeros, sizeof zeros);
    if (status != KH_ERR_IO || !strstr(kh_last_error(), "No space left")) return 3;
    kh_outfile_abandon(file);
    return holds(path, "old") && count_files(place) == 1 ? 0 : 4;
}

static void full_device_keeps_old_file(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) _exit(fill_a_device());
    int result = 0;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFEXITED(result));
    if (WEXITSTATUS(result) == CANNOT_MOUNT) skip();
    assert_int_equal(WEXITSTATUS(result), 0);
}

static void every_allocation_fails(void **state)
{
    (void)state;
    store(at("small"), "content", 7);
    uint64_t live = kh_alloc_get_stats().live;
    int done = 0;
    for (uint64_t n = 1; !done; n++) {
        char *data = NULL;
        size_t size;
        kh_outfile *file;
        int files = count_files(folder);
        kh_alloc_fail_at(n);
        kh_status status = kh_file_read(&data, &size, at("small"), 100);
        if (status == KH_OK) status = kh_outfile_open(&file, at("never"));
        kh_alloc_fail_at(0);
        done = status == KH_OK;
        if (done) kh_outfile_abandon(file);
        if (!done) assert_int_equal(status, KH_ERR_MEMORY);
        kh_free(data);
        assert_int_equal(kh_alloc_get_stats().live, live);
        assert_int_equal(count_files(folder), files);
        assert_true(n < 20);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps),
        cmocka_unit_test(refuses_to_map),
        cmocka_unit_test(reads_whole_files),
        cmocka_unit_test(replaces_atomically),
        cmocka_unit_test(refuses_bad_places),
        cmocka_unit_test(failing_write_keeps_old_file),
        cmocka_unit_test(full_device_keeps_old_file),
        cmocka_unit_test(every_allocation_fails),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
