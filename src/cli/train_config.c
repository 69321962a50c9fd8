/* Configuration files of the verbs train and tune: a JSON object whose names are the options' own.
 *
 *     {"arch": "llama:layers=4,width=128", "data": ["a.txt", "b.txt"], "steps": 1000, "resume": true}
 *
 * A file becomes words of a command line, which the options' table checks as it checks all others; the words of the
 * real command line come behind them and win. So a name is known in both places or in none, and a wrong value is the
 * same sentence. The way back writes what is set after all of it: a run is repeated from the file beside it. */
#include "cli/training.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 1 << 20 };

/* The long spelling without dashes; NULL where there is none. */
static const char *long_name(const kh_opt *option, size_t *size)
{
    const char *at = option->names, *name;
    for (size_t n; (n = kh_opt_spelling(&at, &name)) > 0;)
        if (n > 2 && memcmp(name, "--", 2) == 0) {
            *size = n - 2;
            return name + 2;
        }
    return NULL;
}

static const kh_opt *find(const kh_opt_command *command, const char *key)
{
    for (const kh_opt_group *group = command->groups; group->title; group++)
        for (const kh_opt *option = group->options; option->names; option++) {
            const char *at = option->names, *name;
            for (size_t n; (n = kh_opt_spelling(&at, &name)) > 0;)
                if (n == strlen(key) + 2 && memcmp(name, "--", 2) == 0 &&
                    memcmp(name + 2, key, n - 2) == 0)
                    return option;
        }
    return NULL;
}

/* ---- in */

typedef struct words {
    char **items; /* [count], each its own */
    size_t count, room;
} words;

static kh_status add_word(words *w, const char *prefix, const char *text)
{
    size_t n = strlen(prefix) + strlen(text) + 1;
    KH_TRY(kh_grow(&w->items, w->count, &w->room, sizeof *w->items, "a configuration"));
    KH_TRY(kh_new(&w->items[w->count], n, 1, "a configuration"));
    snprintf(w->items[w->count++], n, "%s%s", prefix, text);
    return KH_OK;
}

static kh_status add_value(words *w, const kh_opt *option, const char *key, const json_t *value,
                           const char *path)
{
    char number[64];
    if (option->kind == KH_OPT_FLAG) {
        if (!json_is_boolean(value))
            KH_FAIL(KH_ERR_ARGUMENT, "%s: \"%s\" is true or false", path, key);
        return json_is_true(value) ? add_word(w, "--", key) : KH_OK;
    }
    const char *text = json_string_value(value);
    if (json_is_integer(value)) {
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
        text = number;
    } else if (json_is_real(value)) {
        snprintf(number, sizeof number, "%.17g", json_real_value(value));
        text = number;
    }
    if (!text)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: \"%s\" is a text, a number%s", path, key,
                option->kind == KH_OPT_TEXTS ? " or a list of them" : "");
    KH_TRY(add_word(w, "--", key));
    return add_word(w, "", text);
}

static kh_status add_file(words *w, const kh_opt_command *command, const json_t *file,
                          const char *path)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)file, key, value)
    {
        const kh_opt *option = find(command, key);
        if (!option || strcmp(key, "config") == 0)
            KH_FAIL(KH_ERR_ARGUMENT, "%s: \"%s\" is no option of keyhole %s (--help lists them)",
                    path, key, command->name);
        if (json_is_array(value) && option->kind == KH_OPT_TEXTS)
            for (size_t i = 0; i < json_array_size(value); i++)
                KH_TRY(add_value(w, option, key, json_array_get(value, i), path));
        else
            KH_TRY(add_value(w, option, key, value, path));
    }
    return KH_OK;
}

static kh_status read_object(json_t **out, const char *path)
{
    char *text = NULL;
    size_t size = 0;
    json_error_t error;
    KH_TRY(kh_file_read(&text, &size, path, MOST_BYTES));
    *out = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    kh_free(text);
    if (!*out) KH_FAIL(KH_ERR_FORMAT, "%s: line %d: no JSON: %s", path, error.line, error.text);
    if (json_is_object(*out)) return KH_OK;
    json_decref(*out);
    *out = NULL;
    KH_FAIL(KH_ERR_FORMAT, "%s: a JSON object of options is expected", path);
}

/* Texts point into the words, which live as long as the program does. */
static words kept;

static kh_status apply(cli_args *args, const kh_opt_command *command, const json_t *file)
{
    cli_args fresh = {.verb = args->verb, .argc = args->argc, .argv = args->argv};
    kh_opt_result result = {0};
    KH_TRY(add_file(&kept, command, file, args->config));
    for (int i = 0; i < args->argc; i++) KH_TRY(add_word(&kept, "", args->argv[i]));
    kh_status status = kh_opt_parse(command, &fresh, (int)kept.count, kept.items, &result);
    if (status)
        status = kh_fail_context(status, "%s", args->config);
    else
        *args = fresh;
    kh_free(result.words);
    kh_buf_free(&result.ignored);
    return status;
}

kh_status cli_config_apply(cli_args *args, const kh_opt_command *command)
{
    json_t *file = NULL;
    if (!args->config) return KH_OK;
    KH_TRY(read_object(&file, args->config));
    kh_status status = apply(args, command, file);
    json_decref(file);
    return status;
}

/* ---- out */

static json_t *texts_json(const kh_opt_texts *texts)
{
    json_t *list = json_array();
    for (size_t i = 0; i < texts->count; i++)
        if (json_array_append_new(list, wire_text(texts->items[i], strlen(texts->items[i])))) break;
    return list;
}

/* NULL: not set. */
static json_t *value_json(const kh_opt *option, const void *at)
{
    const char *text;
    switch (option->kind) {
    case KH_OPT_FLAG: return *(const int *)at ? json_true() : NULL;
    case KH_OPT_INT: return json_integer(*(const int64_t *)at);
    case KH_OPT_REAL: return wire_real(*(const double *)at);
    case KH_OPT_CHOICE: return json_string(option->choices[*(const int *)at]);
    case KH_OPT_TEXT:
        memcpy(&text, at, sizeof text);
        return text ? wire_text(text, strlen(text)) : NULL;
    case KH_OPT_TEXTS:
        return ((const kh_opt_texts *)at)->count ? texts_json((const kh_opt_texts *)at) : NULL;
    case KH_OPT_INTS:
    case KH_OPT_IGNORED: break;
    }
    return NULL;
}

json_t *cli_config_json(const kh_opt_command *command, const cli_args *args)
{
    json_t *out = json_object();
    for (const kh_opt_group *group = command->groups; group->title; group++)
        for (const kh_opt *option = group->options; option->names; option++) {
            size_t size = 0;
            char key[64];
            const char *name = long_name(option, &size);
            if (!name || (size == 6 && memcmp(name, "config", 6) == 0)) continue;
            snprintf(key, sizeof key, "%.*s", (int)size, name);
            json_t *value = value_json(option, (const char *)args + option->offset);
            if (value && json_object_set_new(out, key, value)) {
                json_decref(out);
                return NULL;
            }
        }
    return out;
}
