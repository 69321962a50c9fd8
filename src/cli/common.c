/* What the verbs need before they can work: the model, a session, the text.
 *
 * The library's sentences say what is wrong; this file adds what to type, because only the program
 * knows its flags. Text comes from -f, then -p or the last word of the command line, joined by an
 * empty line; from standard input when neither is given and it is no terminal (a terminal would
 * wait silently for somebody who expects help). */
#include "cli/cli.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_TEXT = 256 << 20 };

static kh_status open_from_hub(kh_model **out, const cli_args *args, int vocabulary)
{
    kh_hub_model *files = NULL;
    KH_TRY(cli_hub_model(&files, args));
    cli_args with = *args;
    with.hf = NULL;
    with.model = files->path;
    kh_status status = cli_model_open(out, &with, vocabulary);
    kh_hub_model_free(files);
    return status;
}

kh_status cli_model_open(kh_model **out, const cli_args *args, int vocabulary)
{
    *out = NULL;
    if (args->hf) return open_from_hub(out, args, vocabulary);
    if (!args->model)
        KH_FAIL(KH_ERR_ARGUMENT,
                "no model was named: type keyhole %s -m FILE.gguf, or -hf OWNER/MODEL to fetch one "
                "(scripts/models obtains one to begin with)",
                args->verb);
    if (access(args->model, F_OK) != 0 && errno == ENOENT)
        KH_FAIL(KH_ERR_NOT_FOUND,
                "%s: there is no such file; type keyhole %s -m FILE.gguf, or -hf OWNER/MODEL to "
                "fetch one (scripts/models obtains a model to begin with)",
                args->model, args->verb);
    kh_status status = vocabulary ? kh_model_open_vocabulary(out, args->model)
                                  : kh_model_open(out, args->model);
    if (status == KH_OK && !vocabulary) status = cli_loras_add(*out, args);
    if (status != KH_OK) {
        kh_model_close(*out);
        *out = NULL;
        return status;
    }
    if (args->verbose && !cli_quiet) {
        const kh_model_info *info = kh_model_get_info(*out);
        char bytes[32];
        cli_say("%s: %s, %s, %d layers, %d heads over %d, width %d, trained for %d tokens, %s",
                *info->name ? info->name : info->path, info->architecture, info->quantisation,
                info->layers, info->heads, info->key_heads, info->width, info->context,
                cli_bytes(bytes, sizeof bytes, info->file_bytes));
    }
    return KH_OK;
}

void cli_explain_auto(const kh_model *model, const cli_args *args, const char *attn)
{
    (void)args;
    char setting[256];
    const char *source = "";
    if (!attn || strcmp(attn, "auto") != 0 || cli_quiet) return;
    if (kh_auto_setting(model, setting, sizeof setting, &source) == KH_OK)
        cli_note("auto means %s for this file (%s)", setting, source);
}

kh_status cli_session_open(kh_session **out, const kh_model *model, const cli_args *args,
                           const char *attn)
{
    *out = NULL;
    cli_explain_auto(model, args, attn);
    kh_session_options options = cli_session_options(args);
    options.attn = attn;
    kh_status status = kh_session_open(out, model, &options);
    int trained = kh_model_get_info(model)->context;
    if (status == KH_ERR_CONTEXT && !args->longer && args->context > trained)
        KH_FAIL(KH_ERR_CONTEXT,
                "-c: %lld tokens are more than the %d that the model was trained for; --longer "
                "allows it",
                (long long)args->context, trained);
    if (status != KH_OK) return status;
    cli_signals_session(*out);
    if (args->verbose && !cli_quiet)
        cli_say("attention %s, feed-forward %s, context %zu, %d threads, %s", kh_session_attn(*out),
                kh_session_ff(*out), kh_session_context(*out), kh_session_threads(*out),
                kh_instruction_set());
    return KH_OK;
}

void cli_session_close(kh_session *session)
{
    cli_signals_session(NULL);
    kh_session_close(session);
}

kh_status cli_read_file(kh_buf *out, const char *path)
{
    char *data = NULL;
    size_t size = 0;
    KH_TRY(kh_file_read(&data, &size, path, MOST_TEXT));
    kh_status status = kh_buf_add(out, data, size);
    kh_free(data);
    return status;
}

kh_status cli_read_text(kh_buf *out, const cli_args *args, const char *prompt)
{
    if (!prompt) prompt = args->prompt;
    if (args->file) KH_TRY(cli_read_file(out, args->file));
    if (args->file && prompt) KH_TRY(kh_buf_text(out, "\n\n"));
    if (prompt) KH_TRY(kh_buf_text(out, prompt));
    if (!args->file && !prompt && !isatty(STDIN_FILENO)) KH_TRY(cli_read_file(out, "-"));
    if (out->size == 0)
        KH_FAIL(KH_ERR_ARGUMENT,
                "the text is empty: give one with -p TEXT, with -f FILE or on standard input");
    const char *zero = memchr(out->data, 0, out->size);
    if (zero)
        KH_FAIL(KH_ERR_ARGUMENT, "a text is expected, found a zero byte at byte %zu%s%s",
                (size_t)(zero - out->data), args->file ? " of " : "", args->file ? args->file : "");
    return KH_OK;
}

/* Ids from a file, one a line. */
static kh_status read_ids(const char *path, int vocabulary, int32_t **ids, size_t *count)
{
    kh_buf text = {0}, list = {0};
    kh_status status = cli_read_file(&text, path);
    const char *at = text.data;
    for (size_t line = 1; status == KH_OK && at && *at; line++) {
        char *end;
        long id = strtol(at, &end, 10);
        int32_t value = (int32_t)id;
        size_t blank = strspn(at, " \t\r");
        if (at[blank] == '\n' || at[blank] == 0)
            end = (char *)(uintptr_t)(at + blank);
        else if (end == at || !strchr(" \t\r\n", *end) || id < 0 || id >= vocabulary)
            status = kh_fail(KH_ERR_FORMAT, "%s: line %zu: a token id from 0 to %d is expected",
                             path, line, vocabulary - 1);
        else
            status = kh_buf_add(&list, &value, sizeof value);
        at = end + strcspn(end, "\n");
        at += *at == '\n';
    }
    kh_buf_free(&text);
    if (status == KH_OK && list.size == 0)
        status = kh_fail(KH_ERR_FORMAT, "%s: no token ids in it", path);
    if (status == KH_OK && !(*ids = kh_alloc(list.size)))
        status = kh_fail(KH_ERR_MEMORY, "no memory for the token ids");
    if (status == KH_OK) {
        memcpy(*ids, list.data, list.size);
        *count = list.size / sizeof **ids;
    }
    kh_buf_free(&list);
    return status;
}

kh_status cli_text_ids(const kh_model *model, const cli_args *args, const char *path, int32_t **ids,
                       size_t *count)
{
    *ids = NULL;
    *count = 0;
    if (args->ids_file)
        return read_ids(args->ids_file, kh_model_get_info(model)->vocabulary, ids, count);
    cli_args with = *args;
    if (path) with.file = path;
    kh_buf text = {0};
    kh_status status = cli_read_text(&text, &with, NULL);
    if (status == KH_OK)
        status = kh_model_tokenize(model, text.data, text.size, KH_TEXT_EDGES, ids, count);
    kh_buf_free(&text);
    return status;
}

kh_status cli_cache_load(kh_session *session, const char *path, const int32_t *ids, size_t count,
                         size_t *loaded)
{
    *loaded = 0;
    if (access(path, F_OK) != 0) return KH_OK;
    KH_TRY(kh_session_load(session, path));
    *loaded = cli_common_prefix(kh_session_tokens(session), kh_session_length(session), ids, count);
    return KH_OK;
}

kh_status cli_command(kh_buf *out, const cli_args *args)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=,+@%";
    KH_TRY(kh_buf_format(out, "keyhole %s", args->verb));
    for (int i = 0; i < args->argc; i++) {
        const char *word = args->argv[i];
        KH_TRY(kh_buf_text(out, " "));
        if (*word && word[strspn(word, plain)] == 0) {
            KH_TRY(kh_buf_text(out, word));
            continue;
        }
        KH_TRY(kh_buf_text(out, "'"));
        for (; *word; word++)
            KH_TRY(*word == '\'' ? kh_buf_text(out, "'\\''") : kh_buf_add(out, word, 1));
        KH_TRY(kh_buf_text(out, "'"));
    }
    return KH_OK;
}

kh_status cli_sizes(size_t **out, size_t *count, const kh_opt_ints *given, const int64_t *usual,
                    size_t usual_count)
{
    *count = given->count ? given->count : usual_count;
    KH_TRY(kh_new(out, *count, sizeof **out, "the sizes"));
    for (size_t i = 0; i < *count; i++)
        (*out)[i] = (size_t)(given->count ? given->items[i] : usual[i]);
    return KH_OK;
}

enum { SETTING = 32 /* bytes of "topk:k=N" */ };

kh_status cli_settings_open(cli_settings *out, const cli_args *args, const char *const *usual,
                            size_t usual_count)
{
    size_t given = args->attns.count + args->keeps.count;
    out->count = given ? given : usual_count;
    KH_TRY(kh_new(&out->items, out->count, sizeof *out->items, "the settings"));
    KH_TRY(kh_new(&out->names, (args->keeps.count + 1) * SETTING, 1, "the settings"));
    for (size_t i = 0; i < out->count; i++) {
        if (!given) {
            out->items[i] = usual[i];
        } else if (i < args->attns.count) {
            out->items[i] = args->attns.items[i];
        } else {
            char *name = out->names + (i - args->attns.count) * SETTING;
            snprintf(name, SETTING, "topk:k=%lld",
                     (long long)args->keeps.items[i - args->attns.count]);
            out->items[i] = name;
        }
    }
    return KH_OK;
}

void cli_settings_close(cli_settings *settings)
{
    kh_free(settings->items);
    kh_free(settings->names);
}

int cli_settings_width(const cli_settings *settings)
{
    size_t width = 10;
    for (size_t i = 0; i < settings->count; i++)
        if (strlen(settings->items[i]) > width) width = strlen(settings->items[i]);
    return width < 64 ? (int)width : 64;
}
