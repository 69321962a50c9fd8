/* The GGUF writer: what is written and read again is the same, parsed or composed, whole or split; what
 * fails leaves the old file. */
#include "support/gguf_same.h"

#include "base/alloc.h"

#include <dirent.h>
#include <unistd.h>

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/test_gguf_write_XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command) == 0 ? 0 : -1;
}

static const char *in_folder(const char *name)
{
    static char path[2][160];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static void store(const writer *w, const char *name)
{
    FILE *out = fopen(in_folder(name), "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(w->data, 1, w->size, out), w->size);
    assert_int_equal(fclose(out), 0);
}

static int files_in_folder(void)
{
    int n = 0;
    DIR *list = opendir(folder);
    assert_non_null(list);
    for (struct dirent *e = readdir(list); e; e = readdir(list)) n += e->d_name[0] != '.';
    closedir(list);
    return n;
}

static void round_trip(const kh_gguf *file)
{
    kh_gguf *copy, *back;
    const char *path = in_folder("written.gguf");
    GOOD(copy_of(&copy, file));
    const kh_gguf *sources[] = {file, copy};
    for (int i = 0; i < 2; i++) {
        GOOD(kh_gguf_write(sources[i], path));
        GOOD(kh_gguf_open(&back, path));
        assert_int_equal(kh_gguf_version(back), 3);
        same_values(file, back);
        same_tensors(file, back);
        kh_gguf_close(back);
    }
    kh_gguf_close(copy);
}

static void tiny_models(void **state)
{
    (void)state;
    char path[512];
    const char *root = getenv("KH_TEST_DATA");
    snprintf(path, sizeof path, "%s/tiny", root ? root : "tests/golden");
    DIR *list = opendir(path);
    assert_non_null(list);
    int n = 0;
    for (struct dirent *e = readdir(list); e; e = readdir(list)) {
        size_t length = strlen(e->d_name);
        if (length < 5 || strcmp(e->d_name + length - 5, ".gguf") != 0) continue;
        kh_gguf *file;
        snprintf(path, sizeof path, "%s/tiny/%s", root ? root : "tests/golden", e->d_name);
        GOOD(kh_gguf_open(&file, path));
        round_trip(file);
        kh_gguf_close(file);
        n++;
    }
    closedir(list);
    assert_true(n >= 10);
}

static void every_kind_of_value(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        writer w;
        kh_gguf *file;
        whole(&w, version);
        GOOD(kh_gguf_open_memory(&file, w.data, w.size, "memory"));
        round_trip(file);
        kh_gguf_close(file);
        drop(&w);
    }
}

/* The file's own alignment is kept; a file may be written over itself. */
static void alignments(void **state)
{
    (void)state;
    writer w;
    kh_gguf *file, *back;
    static float ones[3] = {1, 1, 1};
    GOOD(kh_gguf_new(&file, "made"));
    GOOD(kh_gguf_set_u64(file, "general.alignment", KH_GGUF_U32, 8192));
    for (int i = 0; i < 3; i++)
        GOOD(kh_gguf_add_tensor(file, (char[]){(char)('a' + i), 0}, KH_TYPE_F32, 1,
                                &(uint64_t){(uint64_t)i + 1}, ones));
    round_trip(file);
    kh_gguf_close(file);
    GOOD(kh_gguf_open(&file, in_folder("written.gguf")));
    assert_int_equal(kh_gguf_size(file) % 8192, 0);
    assert_int_equal(kh_gguf_size(file), 4 * 8192);
    GOOD(kh_gguf_write(file, in_folder("written.gguf")));
    GOOD(kh_gguf_open(&back, in_folder("written.gguf")));
    same_tensors(file, back);
    kh_gguf_close(back);
    kh_gguf_close(file);
    head(&w, 3, 0, 0);
    store(&w, "empty.gguf");
    GOOD(kh_gguf_open(&file, in_folder("empty.gguf")));
    round_trip(file);
    kh_gguf_close(file);
    drop(&w);
}

static void parts_become_one(void **state)
{
    (void)state;
    kh_gguf *file, *back;
    for (unsigned no = 0; no < 2; no++) {
        writer w;
        head(&w, 3, 1, no == 0 ? 4 : 3);
        KEY_FIXED(&w, "split.no", KH_GGUF_U16, uint16_t, (uint16_t)no);
        KEY_FIXED(&w, "split.count", KH_GGUF_U16, uint16_t, 2);
        KEY_FIXED(&w, "split.tensors.count", KH_GGUF_I32, int32_t, 2);
        if (no == 0) key_text(&w, "general.architecture", "llama");
        tensor(&w, no == 0 ? "a" : "b", KH_TYPE_F32, 1, no + 1);
        data(&w, 4 * (no + 1));
        store(&w, no == 0 ? "m-00001-of-00002.gguf" : "m-00002-of-00002.gguf");
        drop(&w);
    }
    GOOD(kh_gguf_open(&file, in_folder("m-00001-of-00002.gguf")));
    GOOD(kh_gguf_write(file, in_folder("whole.gguf")));
    GOOD(kh_gguf_open(&back, in_folder("whole.gguf")));
    same_tensors(file, back);
    assert_int_equal(kh_gguf_value_count(back), 1);
    assert_non_null(kh_gguf_find(back, "general.architecture"));
    kh_gguf_close(back);
    kh_gguf_close(file);
}

static kh_status fails(void *context, const kh_tensor *tensor, kh_outfile *out)
{
    (void)tensor;
    (void)out;
    int *left = context;
    return (*left)-- > 0 ? kh_outfile_write(out, tensor->data, tensor->size) : KH_ERR_STOPPED;
}

static void failures_leave_the_old_file(void **state)
{
    (void)state;
    writer w;
    kh_gguf *file, *empty;
    whole(&w, 3);
    GOOD(kh_gguf_open_memory(&file, w.data, w.size, "memory"));
    const char *path = in_folder("old.gguf");
    store(&w, "old.gguf");
    int files = files_in_folder(), left = 2;
    assert_int_equal(kh_gguf_write_from(file, path, fails, &left), KH_ERR_STOPPED);
    GOOD(kh_gguf_new(&empty, "made"));
    GOOD(kh_gguf_add_tensor(empty, "t", KH_TYPE_F32, 1, &(uint64_t){4}, NULL));
    refused(kh_gguf_write(empty, path), KH_ERR_ARGUMENT, "made: tensor 't'", "no data");
    GOOD(kh_gguf_set_u64(empty, "general.alignment", KH_GGUF_U32, 24));
    refused(kh_gguf_write(empty, path), KH_ERR_FORMAT, "general.alignment", "power of two");
    kh_gguf_close(empty);
    refused(kh_gguf_write(file, "/nowhere/x.gguf"), KH_ERR_IO, "/nowhere/x.gguf", "cannot");
    uint64_t live = kh_alloc_get_stats().live;
    for (uint64_t n = 1;; n++) {
        kh_alloc_fail_at(n);
        kh_status status = kh_gguf_write(file, in_folder("new.gguf"));
        kh_alloc_fail_at(0);
        assert_int_equal(kh_alloc_get_stats().live, live);
        if (status == KH_OK) break;
        assert_int_equal(status, KH_ERR_MEMORY);
        assert_int_equal(files_in_folder(), files);
    }
    assert_int_equal(files_in_folder(), files + 1);
    kh_gguf *old;
    GOOD(kh_gguf_open(&old, path));
    same_tensors(file, old);
    kh_gguf_close(old);
    kh_gguf_close(file);
    drop(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiny_models),
        cmocka_unit_test(every_kind_of_value),
        cmocka_unit_test(alignments),
        cmocka_unit_test(parts_become_one),
        cmocka_unit_test(failures_leave_the_old_file),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
