/* Files, vocabularies and documents for the tests of training data (data_case.h). */
#include "support/data_case.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64];

const char *kh_test_folder(void)
{
    snprintf(folder, sizeof folder, "/tmp/keyhole-data-XXXXXX");
    if (!mkdtemp(folder)) fail_msg("no folder under /tmp");
    return folder;
}

void kh_test_folder_remove(void)
{
    DIR *open = opendir(folder);
    char path[512];
    for (struct dirent *entry; open && (entry = readdir(open)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        unlink(path);
    }
    if (open) closedir(open);
    rmdir(folder);
}

const char *kh_test_write(const char *name, const void *bytes, size_t size)
{
    static char paths[8][128];
    static unsigned turn;
    char *path = paths[turn++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    return path;
}

const char *kh_test_write_text(const char *name, const char *text)
{
    return kh_test_write(name, text, strlen(text));
}

kh_model *kh_test_vocabulary(const char *name)
{
    kh_model *model;
    char path[128];
    snprintf(path, sizeof path, "tests/golden/tokens/%s.gguf", name);
    if (kh_model_open_vocabulary(&model, path) != KH_OK) fail_msg("%s", kh_last_error());
    return model;
}

kh_source *kh_test_source(const char *path, const kh_model *model, const kh_source_options *options)
{
    kh_source *source;
    if (kh_source_open(&source, &path, 1, model->tokenizer, options) != KH_OK)
        fail_msg("%s", kh_last_error());
    return source;
}

void kh_test_document(kh_source *source, uint64_t index, const int32_t *ids, size_t count,
                      size_t first, size_t end)
{
    kh_train_example e;
    if (kh_source_get(source, index, &e) != KH_OK) fail_msg("%s", kh_last_error());
    size_t rows = end > 1 ? end - 1 : 0;
    assert_true(end <= count);
    assert_int_equal(e.n, rows);
    assert_int_equal(e.label, -1);
    assert_int_equal(e.second, 0);
    for (size_t t = 0; t < rows; t++) {
        if (e.tokens[t] != ids[t]) fail_msg("row %zu has %d, not %d", t, e.tokens[t], ids[t]);
        int32_t target = t + 1 >= first ? ids[t + 1] : -1;
        if (e.targets[t] != target)
            fail_msg("row %zu predicts %d, not %d", t, e.targets[t], target);
    }
}
