/* --control-vector FILE[:SCALE],... --control-vector-layer-range A B: what is added to the stream.
 *
 * llama.cpp has --control-vector and --control-vector-scaled; both are one option here, and all forms of it are read. A
 * colon or a comma may belong to a name: what exists as it stands is a name, as with --lora. */
#include "cli/steering.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct files {
    cli_vector_file *items;
    size_t count, room;
} files;

static kh_status add(files *out, const cli_args *args, const char *text, size_t size)
{
    const kh_opt_ints *range = &args->vector_layers;
    cli_vector_file file = {.scale = 1};
    if (size == 0) KH_FAIL(KH_ERR_ARGUMENT, "--control-vector: a name is missing");
    KH_TRY(kh_grow(&out->items, out->count, &out->room, sizeof *out->items, "control vectors"));
    file.path = kh_strndup(text, size);
    if (!file.path) KH_FAIL(KH_ERR_MEMORY, "no memory for the names of control vectors");
    char *colon = strrchr(file.path, ':'), *end = NULL;
    if (colon && colon[1] && access(file.path, F_OK) != 0) {
        double scale = strtod(colon + 1, &end);
        if (*end == 0 && isfinite(scale)) {
            file.scale = scale;
            *colon = 0;
        }
    }
    if (range->count) {
        file.first = (int)range->items[range->count - 2];
        file.last = (int)range->items[range->count - 1];
    }
    out->items[out->count++] = file;
    return KH_OK;
}

void cli_vector_files_free(cli_vector_file *items, size_t count)
{
    for (size_t i = 0; i < count; i++) kh_free(items[i].path);
    kh_free(items);
}

static kh_status read_list(files *out, const cli_args *args, const char *text)
{
    size_t size = strlen(text);
    while (access(text, F_OK) != 0 && memchr(text, ',', size)) {
        size_t one = strcspn(text, ",");
        KH_TRY(add(out, args, text, one));
        text += one + 1;
        size -= one + 1;
    }
    return add(out, args, text, size);
}

kh_status cli_vector_files(cli_vector_file **out, size_t *count, const cli_args *args)
{
    files list = {0};
    kh_status status = KH_OK;
    if (args->vector_layers.count % 2 != 0)
        status = kh_fail(KH_ERR_ARGUMENT, "--control-vector-layer-range: two numbers are expected");
    for (size_t i = 0; i < args->vectors.count && status == KH_OK; i++)
        status = read_list(&list, args, args->vectors.items[i]);
    *out = list.items;
    *count = list.count;
    if (status == KH_OK) return KH_OK;
    cli_vector_files_free(list.items, list.count);
    *out = NULL;
    *count = 0;
    return status;
}

kh_status cli_vectors_open(wire_vectors *out, const kh_model *model, const cli_args *args)
{
    cli_vector_file *items = NULL;
    size_t count = 0;
    *out = (wire_vectors){0};
    KH_TRY(cli_vector_files(&items, &count, args));
    kh_status status = KH_OK;
    for (size_t i = 0; i < count && status == KH_OK; i++) {
        kh_control *control = NULL;
        status = kh_control_open(&control, model, items[i].path);
        if (status == KH_OK)
            status = wire_vectors_add(out, control, items[i].path, items[i].scale, items[i].first,
                                      items[i].last);
    }
    cli_vector_files_free(items, count);
    return status;
}

kh_status cli_steering_attach(kh_steering **out, kh_session *session, const kh_model *model,
                              const cli_args *args)
{
    wire_vectors list = {0};
    *out = NULL;
    if (args->vectors.count == 0) return KH_OK;
    if (args->prompt_cache)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "--prompt-cache: what is read under a control vector is not kept in a file");
    kh_status status = cli_vectors_open(&list, model, args);
    if (status == KH_OK) status = kh_steering_open(out, model);
    if (status == KH_OK) status = wire_vectors_sum(&list, NULL, *out);
    wire_vectors_free(&list);
    if (status != KH_OK) {
        kh_steering_close(*out);
        *out = NULL;
        return status;
    }
    kh_session_observe(session, kh_steering_probe(*out));
    return KH_OK;
}
