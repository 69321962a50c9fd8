/* Models by name: which names are accepted, which files they mean, what the cache looks like on disk, and
 * that no answer of a hub gets a path past the checks. Transfers are in tests/cli/test_pull.py. */
#include "base/alloc.h"
#include "base/file.h"
#include "hub/hub_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define COMMIT       "0123456789abcdef0123456789abcdef01234567"
#define OTHER        "89abcdef0123456789abcdef0123456789abcdef"
#define COUNT(array) (sizeof(array) / sizeof *(array))

static void names_are_parsed(void **state)
{
    (void)state;
    static const struct {
        const char *text, *repository, *revision, *what;
    } good[] = {
        {"owner/model", "owner/model", "main", ""},
        {"gpt2", "gpt2", "main", ""},
        {"a_b/C.d-1:q4_k_m", "a_b/C.d-1", "main", "q4_k_m"},
        {"o/m@v1.0", "o/m", "v1.0", ""},
        {"o/m@refs/pr/1:dir/x-00001-of-00002.gguf", "o/m", "refs/pr/1",
         "dir/x-00001-of-00002.gguf"},
        {"o/m:a@b.gguf", "o/m", "main", "a@b.gguf"},
        {"o/m@" COMMIT ":a:b", "o/m", COMMIT, "a:b"},
    };
    static const char *const bad[] = {"",         "/",        "o/",       "/m",       "o/m/x",
                                      "../m",     "o/..",     "o/m--x",   "o/a..b",   "-o/m",
                                      "o/m-",     "o/.m",     "o/m.git",  "o/m@",     "o/m@/x",
                                      "o/m@x/",   "o/m@-x",   "o/m@a//b", "o/m@../x", "o/m@a/../b",
                                      "o/m@a/.b", "o/m@a b",  "o/m:",     "o/m:/x",   "o/m:../x",
                                      "o/m:a/..", "o/m:a\tb", "o m/x",    "o/m\n",    "o/\xc3\xa9"};
    kh_hub_name name;
    for (size_t i = 0; i < COUNT(good); i++) {
        assert_int_equal(kh_hub_name_parse(&name, good[i].text), KH_OK);
        assert_string_equal(name.repository, good[i].repository);
        assert_string_equal(name.revision, good[i].revision);
        assert_string_equal(name.what, good[i].what);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        if (kh_hub_name_parse(&name, bad[i]) != KH_ERR_ARGUMENT) fail_msg("accepted: '%s'", bad[i]);
}

static void files_stay_inside(void **state)
{
    (void)state;
    static const char *const good[] = {"a",   "a/b.gguf", ".gitattributes", "a/.b", "..a", "a..",
                                       "...", "a b",      "\xc3\xa9",       "a:b",  "a\\b"};
    static const char *const bad[] = {"",       "/a",    "a/",          "a//b",  ".",
                                      "..",     "a/..",  "../a",        "a/./b", "a\n",
                                      "\x1b[m", "a\x7f", "\xc2\x9b[31m"};
    for (size_t i = 0; i < COUNT(good); i++)
        if (!kh_hub_file_is_safe(good[i])) fail_msg("refused: '%s'", good[i]);
    for (size_t i = 0; i < COUNT(bad); i++)
        if (kh_hub_file_is_safe(bad[i])) fail_msg("accepted: '%s'", bad[i]);
    assert_true(kh_hub_etag_is_safe("abc-1_2.3"));
    assert_false(kh_hub_etag_is_safe("..") || kh_hub_etag_is_safe("a/b") ||
                 kh_hub_etag_is_safe(""));
    assert_true(kh_hub_is_hex(COMMIT, 40));
    assert_false(kh_hub_is_hex(COMMIT, 39) || kh_hub_is_hex("G", 1) || kh_hub_is_hex("A", 1));
}

/* ---- which files ---- */

/* Names separated by blanks become a list; the picked ones come back in the same form. */
static const char *picked(const char *files, const char *what)
{
    static char out[2048];
    char copy[2048];
    kh_hub_list list = {0};
    kh_hub_name name = {.repository = "o/m"};
    snprintf(copy, sizeof copy, "%s", files);
    snprintf(name.what, sizeof name.what, "%s", what);
    char *rest = copy;
    for (char *file; (file = strsep(&rest, " "));)
        assert_int_equal(kh_hub_list_add(&list, file), KH_OK);
    out[0] = 0;
    if (kh_hub_pick(&list, &name) == KH_OK) {
        for (size_t i = 1, used = 0; i <= list.picked; i++)
            used += (size_t)snprintf(out + used, sizeof out - used, "%s%s", i > 1 ? " " : "",
                                     kh_hub_list_picked(&list, i)->name);
    } else {
        snprintf(out, sizeof out, "-");
        assert_true(kh_last_error()[0]);
    }
    kh_hub_list_free(&list);
    return out;
}

static void files_are_picked(void **state)
{
    (void)state;
    static const struct {
        const char *files, *what, *picked;
    } rows[] = {
        {"m-Q8_0.gguf m-Q4_K_M.gguf", "", "m-Q4_K_M.gguf"},
        {"m-F16.gguf m-Q8_0.gguf", "", "m-Q8_0.gguf"},
        {"m-F16.gguf m-Q2_K.gguf", "", "m-F16.gguf"},
        {"m-F16.gguf m-Q2_K.gguf", "latest", "m-F16.gguf"},
        {"mmproj-m-Q4_K_M.gguf imatrix.gguf mtp-x.gguf m.gguf", "", "m.gguf"},
        {"m-q4_k_m.GGUF", "Q4_K_M", "m-q4_k_m.GGUF"},
        {"m-IQ4_NL.gguf m.Q4_NL.gguf", "q4_nl", "m.Q4_NL.gguf"},
        {"mQ4_NL.gguf", "Q4_NL", "mQ4_NL.gguf"},
        {"m-Q4_K_M.gguf", "Q4_K", "-"},
        {"Q4_0/m.gguf Q8_0/m.gguf", "Q8_0/m.gguf", "Q8_0/m.gguf"},
        {"m-Q8_0.gguf", "M-q8_0.gguf", "m-Q8_0.gguf"},
        {"m-Q8_0.gguf", "n-Q8_0.gguf", "-"},
        {"config.json m.gguf", "config.json", "config.json"},
        {"mmproj.gguf m.gguf", "mmproj.gguf", "mmproj.gguf"},
        {"m-Q4_0-00002-of-00002.gguf m-Q4_0-00001-of-00002.gguf", "Q4_0",
         "m-Q4_0-00001-of-00002.gguf m-Q4_0-00002-of-00002.gguf"},
        {"m-Q4_0-00001-of-00003.gguf m-Q4_0-00003-of-00003.gguf", "Q4_0", "-"},
        {"m-Q4_0-00001-of-00002.gguf m-Q4_0-00001-of-00002.gguf", "Q4_0", "-"},
        {"a-00001-of-00002.gguf a-00001-of-00002.GGUF a-00002-of-00002.gguf", "",
         "a-00001-of-00002.gguf a-00002-of-00002.gguf"},
        {"a-00001-of-99999.gguf", "", "-"},
        {"a-00001-of-00001.gguf", "", "a-00001-of-00001.gguf"},
        {"a-00000-of-00002.gguf a-00003-of-00002.gguf", "a-00003-of-00002.gguf",
         "a-00003-of-00002.gguf"},
        {"README.md", "", "-"},
        {"config.json", "", "-"},
        {"model.safetensors config.json x.py", "", "model.safetensors config.json"},
        {"model.safetensors m.gguf", "", "m.gguf"},
        {"model.safetensors m.gguf", "safetensors", "model.safetensors"},
        {"consolidated.safetensors model.safetensors", "", "model.safetensors"},
        {"adapter.safetensors tokenizer.json", "", "adapter.safetensors tokenizer.json"},
        {"model-00001-of-00002.safetensors model-00002-of-00002.safetensors x.safetensors "
         "model.safetensors.index.json",
         "",
         "model-00001-of-00002.safetensors model-00002-of-00002.safetensors "
         "model.safetensors.index.json"},
        {"sub/model.safetensors", "", "-"},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        assert_string_equal(picked(rows[i].files, rows[i].what), rows[i].picked);
}

/* ---- answers ---- */

static void answers_are_checked(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "[",
        "[]",
        "{}",
        "{\"sha\": \"" COMMIT "\"}",
        "{\"sha\": \"../..\", \"siblings\": []}",
        "{\"sha\": \"" COMMIT "\", \"siblings\": [{}]}",
        "{\"sha\": \"" COMMIT "\", \"siblings\": [{\"rfilename\": \"../x\"}]}",
        "{\"sha\": \"" COMMIT "\", \"siblings\": [{\"rfilename\": \"a\\u0000b\"}]}"};
    static const char *const bad_trees[] = {
        "{}", "[{\"path\": \"a\"}]", "[{\"path\": \"a\", \"size\": -1, \"oid\": \"" COMMIT "\"}]",
        "[{\"path\": \"a\", \"size\": 1, \"oid\": \"../x\"}]",
        "[{\"path\": \"a\", \"size\": 1, \"oid\": \"" COMMIT "\", \"lfs\": {\"oid\": \"" COMMIT
        "\"}}]"};
    uint64_t live = kh_alloc_get_stats().live;
    for (size_t i = 0; i < COUNT(bad); i++) {
        kh_hub_list list = {0};
        assert_int_equal(kh_hub_parse_model(&list, bad[i], strlen(bad[i])), KH_ERR_FORMAT);
        kh_hub_list_free(&list);
    }
    for (size_t i = 0; i < COUNT(bad_trees); i++) {
        kh_hub_list list = {.picked = 1};
        assert_int_equal(kh_hub_list_add(&list, "a"), KH_OK);
        list.entries[0].picked = 1;
        assert_int_equal(kh_hub_parse_tree(&list, bad_trees[i], strlen(bad_trees[i])),
                         KH_ERR_FORMAT);
        kh_hub_list_free(&list);
    }
    assert_int_equal(kh_alloc_get_stats().live, live);
}

/* ---- the cache ---- */

static char folder[] = "/tmp/keyhole-hub-XXXXXX";

static void put(const char *path, const char *text)
{
    kh_outfile *file = NULL;
    assert_int_equal(kh_outfile_open(&file, path), KH_OK);
    assert_int_equal(kh_outfile_write(file, text, strlen(text)), KH_OK);
    assert_int_equal(kh_outfile_commit(file), KH_OK);
}

static void put_blob(const kh_hub_cache *cache, const char *etag, const char *text)
{
    kh_buf path = {0};
    assert_int_equal(kh_hub_cache_prepare(cache), KH_OK);
    assert_int_equal(kh_hub_cache_blob(&path, cache, etag, ""), KH_OK);
    put(path.data, text);
    kh_buf_free(&path);
}

static int make_folder(void **state)
{
    (void)state;
    kh_hub_cache cache;
    if (!mkdtemp(folder)) return -1;
    assert_int_equal(kh_hub_cache_open(&cache, folder, "owner/model"), KH_OK);
    put_blob(&cache, "aaaa", "first");
    put_blob(&cache, "bbbb", "second!");
    assert_int_equal(kh_hub_cache_link(&cache, COMMIT, "x/m-Q8_0.gguf", "aaaa"), KH_OK);
    assert_int_equal(kh_hub_cache_link(&cache, COMMIT, "config.json", "bbbb"), KH_OK);
    assert_int_equal(kh_hub_cache_link(&cache, COMMIT, "gone.gguf", "cccc"), KH_OK);
    assert_int_equal(kh_hub_cache_write_ref(&cache, "main", COMMIT), KH_OK);
    assert_int_equal(kh_hub_cache_write_ref(&cache, "refs/pr/1", OTHER), KH_OK);
    kh_hub_cache_close(&cache);
    return 0;
}

static int drop_folder(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static void cache_is_read_back(void **state)
{
    (void)state;
    kh_hub_cache cache;
    kh_hub_list list = {0};
    char commit[KH_HUB_COMMIT + 1], target[128] = "";
    assert_int_equal(kh_hub_cache_open(&cache, folder, "owner/model"), KH_OK);
    assert_non_null(strstr(cache.folder.data, "/models--owner--model"));
    assert_int_equal(kh_hub_cache_read_ref(&cache, "main", commit), KH_OK);
    assert_string_equal(commit, COMMIT);
    assert_int_equal(kh_hub_cache_read_ref(&cache, "refs/pr/1", commit), KH_OK);
    assert_int_equal(kh_hub_cache_read_ref(&cache, OTHER, commit), KH_OK);
    assert_int_equal(kh_hub_cache_read_ref(&cache, "dev", commit), KH_ERR_NOT_FOUND);
    assert_int_equal(kh_hub_cache_list(&list, &cache, COMMIT), KH_OK);
    assert_int_equal(list.count, 2); /* not the link whose blob is gone */
    assert_string_equal(list.entries[0].name, "config.json");
    assert_string_equal(list.entries[1].name, "x/m-Q8_0.gguf");
    assert_int_equal(list.entries[1].size, 5);
    kh_hub_list_free(&list);

    kh_buf path = {0};
    assert_int_equal(kh_hub_cache_pointer(&path, &cache, COMMIT, "x/m-Q8_0.gguf"), KH_OK);
    assert_true(readlink(path.data, target, sizeof target - 1) > 0);
    assert_string_equal(target, "../../../blobs/aaaa");
    assert_int_equal(kh_hub_cache_link(&cache, OTHER, "a", "aaaa"), KH_OK);
    assert_int_equal(kh_hub_cache_link(&cache, OTHER, "a", "bbbb"), KH_OK); /* replaces */
    assert_int_equal(kh_hub_cache_pointer(&path, &cache, OTHER, "a"), KH_OK);
    struct stat info;
    assert_int_equal(stat(path.data, &info), 0);
    assert_int_equal(info.st_size, 7);
    kh_buf_free(&path);
    kh_hub_cache_close(&cache);
}

static void lock_is_exclusive(void **state)
{
    (void)state;
    kh_hub_cache cache;
    int first, second;
    assert_int_equal(kh_hub_cache_open(&cache, folder, "owner/model"), KH_OK);
    assert_int_equal(kh_hub_cache_try_lock(&first, &cache, "aaaa"), KH_OK);
    assert_int_equal(kh_hub_cache_try_lock(&second, &cache, "aaaa"), KH_OK);
    assert_true(first >= 0 && second == -1);
    kh_hub_cache_unlock(first);
    assert_int_equal(kh_hub_cache_try_lock(&second, &cache, "aaaa"), KH_OK);
    assert_true(second >= 0);
    kh_hub_cache_unlock(second);
    kh_hub_cache_close(&cache);
}

static int count_models(void *context, const kh_hub_model *model)
{
    int *count = context;
    assert_string_equal(model->repository, "owner/model");
    assert_string_equal(model->revision, "main");
    assert_string_equal(model->files[0].name, "x/m-Q8_0.gguf");
    ++*count;
    return 0;
}

static void cache_answers_alone(void **state)
{
    (void)state;
    kh_hub_options options = {.cache = folder, .flags = KH_HUB_OFFLINE};
    kh_hub_model *model = NULL;
    int count = 0;
    assert_int_equal(kh_hub_pull(&model, "owner/model", &options), KH_OK);
    assert_string_equal(model->commit, COMMIT);
    assert_int_equal(model->bytes, 5);
    assert_int_equal(model->fetched, 0);
    assert_true(access(model->path, R_OK) == 0 && !model->is_folder && model->files[0].cached);
    kh_hub_model_free(model);
    assert_int_equal(kh_hub_pull(&model, "owner/model:Q4_0", &options), KH_ERR_NOT_FOUND);
    assert_null(model);
    assert_int_equal(kh_hub_pull(&model, "owner/other", &options), KH_ERR_NOT_FOUND);
    assert_int_equal(kh_hub_pull(&model, "owner", &options), KH_ERR_NOT_FOUND);
    assert_int_equal(kh_hub_cached(&options, count_models, &count), KH_OK);
    assert_int_equal(count, 1);
    kh_hub_model_free(NULL);
}

static void memory_may_fail(void **state)
{
    (void)state;
    kh_hub_options options = {.cache = folder, .flags = KH_HUB_OFFLINE};
    kh_status status = KH_ERR_MEMORY;
    for (uint64_t n = 1; status != KH_OK; n++) {
        uint64_t live = kh_alloc_get_stats().live;
        kh_hub_model *model = NULL;
        int count = 0;
        assert_true(n < 1000);
        kh_alloc_fail_at(n);
        status = kh_hub_pull(&model, "owner/model", &options);
        if (status == KH_OK) status = kh_hub_cached(&options, count_models, &count);
        kh_alloc_fail_at(0);
        assert_true(status == KH_OK || status == KH_ERR_MEMORY);
        kh_hub_model_free(model);
        assert_int_equal(kh_alloc_get_stats().live, live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_parsed),    cmocka_unit_test(files_stay_inside),
        cmocka_unit_test(files_are_picked),    cmocka_unit_test(answers_are_checked),
        cmocka_unit_test(cache_is_read_back),  cmocka_unit_test(lock_is_exclusive),
        cmocka_unit_test(cache_answers_alone), cmocka_unit_test(memory_may_fail),
    };
    unsetenv("HF_HUB_OFFLINE");
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
