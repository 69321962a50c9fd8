/* keyhole labels: the names that people gave to parts of a model: shown, written to a file of lines, read from one. */
#include "cli/cli.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/file.h"
#include "wire/labels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LARGEST = 256 << 20 };

kh_status cli_labels_path(char **out, const cli_args *args)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    kh_buf path = {0};
    kh_status status;
    *out = NULL;
    if (args->labels)
        status = kh_buf_text(&path, args->labels);
    else if (data && data[0] == '/')
        status = kh_buf_format(&path, "%s/keyhole/labels.sqlite", data);
    else if (home && home[0])
        status = kh_buf_format(&path, "%s/.local/share/keyhole/labels.sqlite", home);
    else
        KH_FAIL(KH_ERR_NOT_FOUND, "neither XDG_DATA_HOME nor HOME is set: --labels names a file");
    if (status == KH_OK)
        *out = path.data;
    else
        kh_buf_free(&path);
    return status;
}

static kh_status export_to(const wire_labels *at, const char *file)
{
    kh_buf text = {0};
    kh_status status = wire_labels_export(at, &text);
    if (status == KH_OK && strcmp(file, "-") == 0)
        cli_out_bytes(text.data ? text.data : "", text.size);
    else if (status == KH_OK)
        status = kh_file_write(file, text.data ? text.data : "", text.size);
    kh_buf_free(&text);
    return status;
}

static kh_status import_from(const wire_labels *at, const cli_args *args)
{
    char *text = NULL;
    size_t size = 0;
    json_t *answer = NULL;
    KH_TRY(kh_file_read(&text, &size, args->import_file, LARGEST));
    kh_status status = wire_labels_import(at, text, size, &answer);
    kh_free(text);
    if (status != KH_OK) return kh_fail_context(status, "%s", args->import_file);
    if (args->json) return cli_json_print(answer);
    if (!cli_quiet)
        cli_say("%lld labels and %lld views were read, %lld are new here",
                (long long)json_integer_value(json_object_get(answer, "labels")),
                (long long)json_integer_value(json_object_get(answer, "views")),
                (long long)json_integer_value(json_object_get(answer, "changed")));
    json_decref(answer);
    return KH_OK;
}

static kh_status show(const wire_labels *at, const cli_args *args)
{
    json_t *answer = NULL, *one;
    cli_table t = {.ends_in_text = 1};
    size_t i;
    KH_TRY(wire_labels_list(at, &answer));
    if (args->json) return cli_json_print(answer);
    cli_table_row(&t, "part\tsince\tof\tlabel");
    json_array_foreach(json_object_get(answer, "labels"), i, one)
    {
        char day[16] = "-";
        struct tm when;
        time_t since = (time_t)json_integer_value(json_object_get(one, "time"));
        const char *from = json_string_value(json_object_get(one, "from"));
        kh_buf text = {0};
        kh_status status = kh_buf_text(&text, json_string_value(json_object_get(one, "text")));
        for (size_t c = 0; c < text.size; c++)
            if ((unsigned char)text.data[c] < ' ' || text.data[c] == 0x7f) text.data[c] = ' ';
        if (localtime_r(&since, &when)) strftime(day, sizeof day, "%Y-%m-%d", &when);
        cli_table_row(&t, "%s\t%s\t%s\t%s", json_string_value(json_object_get(one, "part")), day,
                      from ? from : "this file", status == KH_OK ? text.data : "");
        kh_buf_free(&text);
    }
    json_decref(answer);
    return cli_table_print(&t);
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    kh_model *model = NULL;
    char *path = NULL;
    cli_take_model(args, &words, &count);
    if (count) KH_FAIL(KH_ERR_ARGUMENT, "'%s': labels takes a model and nothing else", words[0]);
    if (args->export_file && args->import_file)
        KH_FAIL(KH_ERR_ARGUMENT, "--export and --import exclude each other");
    KH_TRY(cli_labels_path(&path, args));
    kh_status status = cli_model_open(&model, args, 0);
    const wire_labels at = {path, model};
    if (status == KH_OK)
        status = args->export_file   ? export_to(&at, args->export_file)
                 : args->import_file ? import_from(&at, args)
                                     : show(&at, args);
    kh_model_close(model);
    kh_free(path);
    return status;
}

static const kh_opt options[] = {
    CLI_TEXT(export_file, "--export", "FILE",
             "writes a line of JSON for each label, sorted by part, and each saved view; - is "
             "standard output",
             NULL),
    CLI_TEXT(import_file, "--import", "FILE",
             "merges such lines: of two labels of a part, or views of a name, the newer one stays; "
             "- is standard input",
             NULL),
    CLI_TEXT(labels, "--labels", "FILE",
             "where labels are kept; default: ~/.local/share/keyhole/labels.sqlite", NULL),
    CLI_END};
static const kh_opt output[] = {CLI_FLAG(json, "--json", "prints one JSON object"),
                                CLI_FLAG(quiet, "-q --quiet", "nothing on standard error"),
                                CLI_END};
static const kh_opt_group groups[] = {
    {"Model", cli_options_model}, {"Labels", options}, {"Output", output}, CLI_NO_GROUP};

const cli_verb cli_verb_labels = {
    .group = "Look inside",
    .command =
        {.name = "labels",
         .does = "the labels that parts of a model were given, as a file to share",
         .words = "[MODEL]",
         .most_words = 1,
         .about = "Shows what neurons, heads and other parts were labelled on the page or over "
                  "HTTP. Labels belong to the file's identity; those of the same model in another "
                  "file, such as another quantisation, are shown with theirs. The exported file "
                  "has a line for each label and each saved view of the page, and merges in git.",
         .example = "keyhole labels model.gguf\n"
                    "keyhole labels model.gguf --export labels.jsonl\n"
                    "keyhole labels model.gguf --import labels.jsonl",
         .groups = groups},
    .run = run,
};
