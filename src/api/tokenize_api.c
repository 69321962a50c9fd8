/* A tokenizer learned from files: what is read, and the folder that is written.
 *
 * A file is one text, since tokens may span its line ends; a file of JSON lines is a text for each. Files
 * are mapped, so that a corpus needs no memory of its own: what is kept are its different words. */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"
#include "base/file.h"
#include "format/json.h"
#include "tokens/tok_export.h"
#include "tokens/tok_train.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int is_lines(const char *path)
{
    size_t n = strlen(path);
    return n > 6 && strcmp(path + n - 6, ".jsonl") == 0;
}

static kh_status add_line(kh_tok_train *train, const char *line, size_t size)
{
    json_t *object;
    size_t blank = 0;
    while (blank < size && memchr(" \t\r", line[blank], 3)) ++blank;
    if (blank == size) return KH_OK;
    KH_TRY(kh_json_parse(&object, line, size, "the line"));
    const json_t *text = kh_json_get(object, "text");
    kh_status status =
        json_is_string(text)
            ? kh_tok_train_add(train, json_string_value(text), json_string_length(text))
            : kh_fail(KH_ERR_FORMAT, "\"text\" is %s (expected: a string)", kh_json_kind(text));
    json_decref(object);
    return status;
}

static kh_status add_lines(kh_tok_train *train, const char *path, const char *text, size_t size)
{
    size_t number = 1;
    for (size_t at = 0; at < size; ++number) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t n = end ? (size_t)(end - text) - at : size - at;
        kh_status status = n ? add_line(train, text + at, n) : KH_OK;
        if (status != KH_OK) return kh_fail_context(status, "%s, line %zu", path, number);
        at += n + 1;
    }
    return KH_OK;
}

static kh_status add_file(kh_tok_train *train, const char *path)
{
    kh_map map;
    if (strcmp(path, "-") == 0) {
        char *text;
        size_t size;
        KH_TRY(kh_file_read(&text, &size, path, SIZE_MAX / 2));
        kh_status status = kh_tok_train_add(train, text, size);
        kh_free(text);
        return status;
    }
    KH_TRY(kh_map_open(&map, path));
    const char *text = map.data ? (const char *)map.data : "";
    kh_status status = is_lines(path) ? add_lines(train, path, text, map.size)
                                      : kh_tok_train_add(train, text, map.size);
    kh_map_close(&map);
    return status;
}

/* Bytes of all files; 0 where one of them is no file. Sentences come when they are opened. */
static uint64_t size_of(const char *const *files, size_t count)
{
    uint64_t all = 0;
    for (size_t i = 0; i < count; ++i) {
        struct stat about;
        if (strcmp(files[i], "-") == 0 || is_lines(files[i]) || stat(files[i], &about) != 0)
            return 0;
        all += (uint64_t)about.st_size;
    }
    return all;
}

static kh_status check_folder(const char *folder, const kh_tokenizer_train_options *options)
{
    kh_buf path = {0};
    kh_status status = kh_buf_format(&path, "%s/tokenizer.json", folder);
    if (status == KH_OK && !(options && options->overwrite) && access(path.data, F_OK) == 0)
        status = kh_fail(KH_ERR_STATE,
                         "%s: exists already; it is replaced only on demand (--force)", path.data);
    kh_buf_free(&path);
    return status;
}

static kh_status write_folder(const kh_gguf *words, const char *folder)
{
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        KH_FAIL(KH_ERR_IO, "%s: cannot be made: %s", folder, strerror(errno));
    return kh_tokenizer_export(words, folder);
}

kh_status kh_tokenizer_train(const char *folder, const char *const *files, size_t count,
                             const kh_tokenizer_train_options *options,
                             kh_tokenizer_train_result *result)
{
    kh_tok_train *train;
    kh_gguf *words = NULL;
    if (result) *result = (kh_tokenizer_train_result){.vocabulary = 0};
    KH_TRY(check_folder(folder, options));
    KH_TRY(kh_tok_train_open(&train, options, size_of(files, count)));
    kh_status status = KH_OK;
    if (count && !kh_tok_train_reads(train))
        status = kh_fail(KH_ERR_ARGUMENT, "%s: a tokenizer of bytes learns from no text", files[0]);
    for (size_t i = 0; status == KH_OK && i < count; ++i) status = add_file(train, files[i]);
    if (status == KH_OK) status = kh_gguf_new(&words, folder);
    if (status == KH_OK) status = kh_tok_train_finish(train, words, result);
    if (status == KH_OK) status = write_folder(words, folder);
    kh_gguf_close(words);
    kh_tok_train_close(train);
    return status;
}
