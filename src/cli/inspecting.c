/* The verbs of inspection: options become the same question that the page sends, and --json prints the same answer
 * that it gets (wire/questions.h), so their numbers are one.
 *
 * With --prompts FILE a question is asked once for every line: an object with prompt or tokens and whatever else the
 * question takes, laid over what the options say. Answers are lines of -o FILE (or of standard output); lines that
 * the file has already are not asked again, so a long run that was interrupted goes on where it stopped. At the end
 * stands the mean of the verb's figure with its 95 % interval (normal, from the sample's deviation). */
#include "cli/inspecting.h"
#include "cli/steering.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const kh_opt cli_options_subject[] = {
    CLI_TEXT(prompt, "-p --prompt", "TEXT", "the text to look at", NULL),
    CLI_TEXT(file, "-f --file", "FILE",
             "reads the text from a file, or from standard input (-); -p follows behind an empty "
             "line",
             NULL),
    CLI_FLAG(template, "--template", "the text is a user's message in the model's chat template"),
    CLI_TEXTS(edits, "--edit", "EDIT",
              "reads the text under an edit, such as L12H3:zero or L12N345:scale=0.5@3-7; may be "
              "given again"),
    CLI_TEXT(edit_file, "--edit-file", "FILE",
             "edits from a file of JSON: {\"edits\": [\"L12H3:zero\", ...]}", NULL),
    CLI_TEXT(prompt_lines, "--prompts", "FILE",
             "asks for every line of a file: {\"prompt\": \"...\"}, and whatever else the question "
             "takes",
             NULL),
    CLI_END};

const kh_opt cli_options_question[] = {
    CLI_INT(position, "--position", "N", "the position, counted from 0; negative: from the end",
            "-1", -CLI_MOST_CONTEXT, CLI_MOST_CONTEXT, NULL),
    CLI_TEXT(token_a, "-a --token", "TOKEN",
             "the token that is asked about: its text (' Paris') or id", NULL),
    CLI_TEXT(token_b, "-b --against", "TOKEN", "the token that it is held against", NULL), CLI_END};

const kh_opt cli_options_inspect_output[] = {
    CLI_FLAG(json, "--json", "prints the answer as the debug routes of keyhole serve give it"),
    CLI_TEXT(output, "-o --output", "FILE",
             "with --prompts: answers go to a file, which a second run continues", NULL),
    CLI_FLAG(quiet, "-q --quiet", "nothing on standard error"), CLI_END};

double cli_number(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

const char *cli_token(const json_t *token, size_t most)
{
    enum { RING = 32, ROOM = 128 };
    static char texts[RING][ROOM];
    static size_t next;
    const json_t *text = json_is_object(token) ? json_object_get(token, "text") : token;
    const char *from = json_string_value(text);
    char *out = texts[next++ % RING];
    size_t n = 0, shown = 0;
    for (size_t i = 0; from && from[i] && shown < most && n + 8 < ROOM; shown++) {
        const char *put = from[i] == ' ' ? "\xc2\xb7" : from[i] == '\n' ? "\xe2\x86\xb5" : NULL;
        if ((unsigned char)from[i] < 0x20 && !put) put = "\xef\xbf\xbd";
        if (put) {
            memcpy(out + n, put, strlen(put));
            n += strlen(put);
            i++;
            continue;
        }
        do out[n++] = from[i++];
        while ((from[i] & 0xc0) == 0x80);
    }
    out[n] = 0;
    return out;
}

/* ---- the question ---- */

json_t *cli_token_json(const char *text)
{
    char *end = NULL;
    long id = strtol(text, &end, 10);
    return *text && !*end ? json_integer(id) : wire_text(text, strlen(text));
}

static kh_status add_edits(json_t *body, const cli_args *args)
{
    json_t *list = json_array();
    json_object_set_new(body, "edits", list);
    if (args->edit_file) {
        json_error_t error;
        json_t *file = json_load_file(args->edit_file, JSON_REJECT_DUPLICATES, &error);
        if (!file)
            KH_FAIL(KH_ERR_FORMAT, "--edit-file %s: %s (line %d)", args->edit_file, error.text,
                    error.line);
        json_t *edits = json_is_array(file) ? file : json_object_get(file, "edits");
        int good = json_is_array(edits) && json_array_extend(list, edits) == 0;
        json_decref(file);
        if (!good)
            KH_FAIL(KH_ERR_FORMAT, "--edit-file %s: {\"edits\": [\"L12H3:zero\", ...]} is expected",
                    args->edit_file);
    }
    for (size_t i = 0; i < args->edits.count; i++)
        json_array_append_new(list, wire_text(args->edits.items[i], strlen(args->edits.items[i])));
    return KH_OK;
}

static kh_status make_body(json_t **out, const cli_args *args, const kh_model *model,
                           const char **words, size_t count, const cli_inspection *what)
{
    json_t *body = *out = json_object();
    int text = args->prompt || args->file || !what->no_text;
    KH_TRY(add_edits(body, args));
    if (text && !args->prompt_lines) {
        kh_buf read = {0};
        kh_status status = cli_read_text(&read, args, NULL);
        if (status == KH_OK) json_object_set_new(body, "prompt", wire_text(read.data, read.size));
        kh_buf_free(&read);
        KH_TRY(status);
    }
    if (args->template) json_object_set_new(body, "template", json_true());
    if (args->position != -1) json_object_set_new(body, "position", json_integer(args->position));
    if (args->token_a) json_object_set_new(body, "a", cli_token_json(args->token_a));
    if (args->token_b) json_object_set_new(body, "b", cli_token_json(args->token_b));
    return what->request ? what->request(args, model, words, count, body) : KH_OK;
}

/* All that the options name, at their scales. */
static kh_status add_vectors(wire_ask *ask, wire_vectors *vectors, json_t *body)
{
    json_t *list = wire_vectors_json(vectors);
    ask->vectors = vectors;
    return json_object_set_new(body, "control_vectors", list) == 0
               ? KH_OK
               : kh_fail(KH_ERR_MEMORY, "no memory for the request");
}

/* ---- the answer ---- */

typedef struct showing {
    const cli_args *args;
    const kh_model *model;
    const cli_inspection *what;
    FILE *out; /* answers to a file of prompts; NULL: standard output */
    json_int_t line;
    double sum, squares;
    size_t count;
} showing;

static kh_status write_line(const showing *s, json_t *value)
{
    if (s->line) json_object_set_new(value, "line", json_integer(s->line));
    if (!s->out) return cli_json_print(value);
    int failed = json_dumpf(value, s->out, WIRE_FORM) != 0 || fputc('\n', s->out) == EOF;
    json_decref(value);
    if (failed) KH_FAIL(KH_ERR_IO, "%s: %s", s->args->output, strerror(errno));
    return KH_OK;
}

static kh_status take_value(void *context, json_t *value)
{
    showing *s = context;
    if (!value) KH_FAIL(KH_ERR_MEMORY, "no memory for the answer");
    double figure = s->what->figure ? s->what->figure(value) : (double)NAN;
    if (isfinite(figure)) {
        s->sum += figure;
        s->squares += figure * figure;
        s->count++;
    }
    if (s->args->json || s->out || s->line) {
        KH_TRY(write_line(s, value));
        return cli_interrupted() ? kh_fail(KH_ERR_STOPPED, "stopped") : KH_OK;
    }
    kh_status status = s->what->show(s->what->context, s->args, s->model, value);
    json_decref(value);
    return status;
}

/* ---- files of prompts ---- */

/* Cuts the next line off *rest, which is NULL behind the last. */
static char *next_line(char **rest)
{
    char *line = *rest, *end = line ? strchr(line, '\n') : NULL;
    if (line && !*line) line = NULL;
    if (end) *end = 0;
    *rest = end ? end + 1 : NULL;
    return line;
}

/* The number of the last line that an earlier run answered, 0: there was none. */
static kh_status answered(const char *path, json_int_t *last)
{
    kh_buf text = {0};
    *last = 0;
    if (!path || access(path, F_OK) != 0) return KH_OK;
    kh_status status = cli_read_file(&text, path);
    char *rest = text.data;
    for (char *line; status == KH_OK && (line = next_line(&rest)) != NULL;) {
        json_t *value = json_loads(line, 0, NULL);
        json_t *number = json_object_get(value, "line");
        const char *type = json_string_value(json_object_get(value, "type"));
        /* of answers in several lines the last says that it is whole */
        if (json_is_integer(number) && (!type || strcmp(type, "done") == 0))
            *last = json_integer_value(number);
        json_decref(value);
    }
    kh_buf_free(&text);
    return status;
}

static kh_status ask_line(showing *s, wire_ask *ask, const json_t *fixed, const char *line)
{
    json_error_t error;
    json_t *own = json_loads(line, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(own)) {
        json_decref(own);
        KH_FAIL(KH_ERR_FORMAT, "%s: line %d: an object with prompt or tokens is expected",
                s->args->prompt_lines, (int)s->line);
    }
    json_t *body = json_deep_copy(fixed);
    json_object_update(body, own);
    json_decref(own);
    ask->body = body;
    wire_begin();
    kh_status status = s->what->ask(ask);
    json_decref(body);
    return status;
}

static void sum_up(const showing *s)
{
    double n = (double)s->count, mean = s->sum / n;
    double variance = s->count > 1 ? (s->squares - n * mean * mean) / (n - 1) : 0;
    if (s->count == 0) return;
    cli_say("%s: mean %.6g, 95 %% interval %.6g to %.6g, %zu answers", s->what->name, mean,
            mean - 1.96 * sqrt(variance > 0 ? variance / n : 0),
            mean + 1.96 * sqrt(variance > 0 ? variance / n : 0), s->count);
}

static kh_status ask_lines(showing *s, wire_ask *ask, const json_t *fixed, char *rest)
{
    json_int_t done;
    KH_TRY(answered(s->args->output, &done));
    for (char *line; (line = next_line(&rest)) != NULL;) {
        if (++s->line <= done || line[strspn(line, " \t\r")] == 0) continue;
        KH_TRY(ask_line(s, ask, fixed, line));
        if (s->out && fflush(s->out) != 0)
            KH_FAIL(KH_ERR_IO, "%s: %s", s->args->output, strerror(errno));
        cli_progress(NULL, "prompts", (size_t)s->line, 0);
    }
    cli_progress_end();
    sum_up(s);
    return KH_OK;
}

static kh_status ask_file(showing *s, wire_ask *ask, const json_t *fixed)
{
    kh_buf text = {0};
    kh_status status = cli_read_file(&text, s->args->prompt_lines);
    if (status == KH_OK) status = ask_lines(s, ask, fixed, text.data);
    kh_buf_free(&text);
    return status;
}

static kh_status ask_all(showing *s, wire_ask *ask, const json_t *body)
{
    if (!s->args->prompt_lines) {
        ask->body = body;
        wire_begin();
        return s->what->ask(ask);
    }
    if (s->args->output) {
        s->out = fopen(s->args->output, "a");
        if (!s->out) KH_FAIL(KH_ERR_IO, "%s: %s", s->args->output, strerror(errno));
    }
    kh_status status = ask_file(s, ask, body);
    if (s->out && fclose(s->out) != 0 && status == KH_OK)
        status = kh_fail(KH_ERR_IO, "%s: %s", s->args->output, strerror(errno));
    return status;
}

static kh_status inspect(cli_args *args, const kh_model *model, const char **words, size_t count,
                         const cli_inspection *what)
{
    kh_session_options options = cli_session_options(args);
    json_t *body = NULL;
    showing s = {.args = args, .model = model, .what = what};
    wire_ask ask = {.model = model, .sink = {take_value, &s}, .labels = what->labels};
    options.attn = args->attn;
    if (args->output && !args->prompt_lines)
        KH_FAIL(KH_ERR_ARGUMENT, "-o: the answers of --prompts go there");
    cli_explain_auto(model, args, args->attn);
    wire_vectors vectors = {0};
    kh_status status = make_body(&body, args, model, words, count, what);
    if (status == KH_OK) status = cli_vectors_open(&vectors, model, args);
    if (status == KH_OK && vectors.count) status = add_vectors(&ask, &vectors, body);
    if (status == KH_OK) status = kh_inspector_open(&ask.inspector, model, &options);
    cli_signals_inspector(ask.inspector);
    if (status == KH_OK) status = ask_all(&s, &ask, body);
    cli_signals_inspector(NULL);
    kh_inspector_close(ask.inspector);
    wire_vectors_free(&vectors);
    json_decref(body);
    return status;
}

kh_status cli_inspect(cli_args *args, const char **words, size_t count,
                      const cli_inspection *inspection)
{
    kh_model *model = NULL;
    cli_take_model(args, &words, &count);
    KH_TRY(cli_model_open(&model, args, 0));
    kh_status status = inspect(args, model, words, count, inspection);
    kh_model_close(model);
    return status;
}
