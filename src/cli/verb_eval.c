/* keyhole eval: exact match and F1 of answers, accuracy of choices, over JSON lines, settings side by side.
 *
 * A line is one example. Names are those of the sets that people have: "question" (or "prompt", "query"),
 * "context" (or "passage"), and either "answers" (a list, a text, or SQuAD's {"text": [...]}; or "answer" as a
 * text) or "choices" (a list, or {"text": [...], "label": [...]}; or "endings") with "answer" (an index, a label,
 * or the text of the right one; or "label", "gold", "answerKey"). A line that is not understood is named and
 * nothing is measured, because a mean over what was left would pass for the set's. */
#include "cli/cli.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/file.h"

#include <string.h>

typedef struct examples {
    const char *path;
    json_t **lines; /* [count] own the texts */
    kh_example *items;
    size_t count, line_room, item_room;
    FILE *predictions;
    const cli_args *args;
    const kh_opt_texts *attns;
} examples;

static const json_t *first_of(const json_t *line, const char *const *names)
{
    for (; *names; names++) {
        const json_t *found = json_object_get(line, *names);
        if (found && !json_is_null(found)) return found;
    }
    return NULL;
}

/* Texts of a list, or of {"text": [...]}, or one text; free with kh_free. */
static const char **texts_of(const json_t *value, size_t *count)
{
    if (json_is_object(value)) value = json_object_get(value, "text");
    size_t n = json_is_array(value) ? json_array_size(value) : json_is_string(value) ? 1 : 0;
    const char **out = n ? kh_calloc(n, sizeof *out) : NULL;
    *count = 0;
    for (size_t i = 0; out && i < n; i++) {
        const json_t *one = json_is_array(value) ? json_array_get(value, i) : value;
        if (json_is_object(one)) one = json_object_get(one, "text");
        if (!json_is_string(one)) {
            kh_free(out);
            return NULL;
        }
        out[i] = json_string_value(one);
    }
    *count = out ? n : 0;
    return out;
}

/* The index that an answer names among choices; count when it names none. */
static size_t index_of(const json_t *answer, const json_t *choices, const kh_example *x)
{
    if (json_is_integer(answer)) {
        json_int_t at = json_integer_value(answer);
        return at >= 0 && (size_t)at < x->choice_count ? (size_t)at : x->choice_count;
    }
    const char *text = json_string_value(answer);
    if (!text) return x->choice_count;
    for (size_t i = 0; i < x->choice_count; i++)
        if (strcmp(text, x->choices[i]) == 0) return i;
    const json_t *labels = json_object_get(choices, "label");
    for (size_t i = 0; i < json_array_size(labels); i++) {
        const char *label = json_string_value(json_array_get(labels, i));
        if (label && strcmp(text, label) == 0) return i;
    }
    if (strlen(text) == 1 && *text >= 'A' && (size_t)(*text - 'A') < x->choice_count)
        return (size_t)(*text - 'A');
    if (strlen(text) == 1 && *text >= '0' && (size_t)(*text - '0') < x->choice_count)
        return (size_t)(*text - '0');
    return x->choice_count;
}

static kh_status read_example(kh_example *x, const json_t *line)
{
    static const char *const questions[] = {"question", "prompt", "query", "ctx", NULL};
    static const char *const contexts[] = {"context", "passage", NULL};
    static const char *const choice_lists[] = {"choices", "endings", "options", NULL};
    static const char *const answers[] = {"answers", "answer", NULL};
    static const char *const keys[] = {"answer", "label", "gold", "answerKey", NULL};
    const json_t *choices = first_of(line, choice_lists);
    x->question = json_string_value(first_of(line, questions));
    x->context = json_string_value(first_of(line, contexts));
    if (!x->question) KH_FAIL(KH_ERR_FORMAT, "a text \"question\" (or \"prompt\") is expected");
    if (!choices) {
        x->answers = texts_of(first_of(line, answers), &x->answer_count);
        if (!x->answers)
            KH_FAIL(KH_ERR_FORMAT,
                    "\"answers\" (texts) or \"choices\" with \"answer\" are expected");
        return KH_OK;
    }
    x->choices = texts_of(choices, &x->choice_count);
    if (x->choice_count < 2) KH_FAIL(KH_ERR_FORMAT, "\"choices\": two texts or more are expected");
    x->correct = index_of(first_of(line, keys), choices, x);
    if (x->correct == x->choice_count)
        KH_FAIL(KH_ERR_FORMAT,
                "\"answer\": an index, a label or the text of one of the %zu choices "
                "is expected",
                x->choice_count);
    return KH_OK;
}

static kh_status add_line(examples *e, const char *text, size_t size)
{
    KH_TRY(kh_grow(&e->lines, e->count, &e->line_room, sizeof(json_t *), "the examples"));
    KH_TRY(kh_grow(&e->items, e->count, &e->item_room, sizeof *e->items, "the examples"));
    json_error_t error;
    json_t *line = json_loadb(text, size, 0, &error);
    if (!json_is_object(line)) {
        json_decref(line);
        KH_FAIL(KH_ERR_FORMAT, "a JSON object is expected%s%s", line ? "" : ": ",
                line ? "" : error.text);
    }
    e->lines[e->count] = line;
    e->items[e->count] = (kh_example){0};
    return read_example(&e->items[e->count++], line);
}

static kh_status read_examples(examples *e)
{
    kh_buf text = {0};
    size_t most = e->args->chunks ? (size_t)e->args->chunks : SIZE_MAX;
    kh_status status = cli_read_file(&text, e->path);
    const char *at = text.data, *end = at + text.size;
    for (size_t line = 1; status == KH_OK && at < end && e->count < most; line++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t size = (size_t)((stop ? stop : end) - at);
        if (strspn(at, " \t\r") < size) status = add_line(e, at, size);
        if (status != KH_OK) status = kh_fail_context(status, "%s: line %zu", e->path, line);
        at += size + 1;
    }
    kh_buf_free(&text);
    if (status == KH_OK && e->count == 0)
        status = kh_fail(KH_ERR_FORMAT, "%s: there are no examples", e->path);
    return status;
}

static void free_examples(examples *e)
{
    for (size_t i = 0; i < e->count; i++) {
        kh_free((void *)(uintptr_t)e->items[i].answers);
        kh_free((void *)(uintptr_t)e->items[i].choices);
        json_decref(e->lines[i]);
    }
    kh_free(e->items);
    kh_free(e->lines);
}

static void predicted(void *context, size_t setting, size_t example, const kh_prediction *found)
{
    examples *e = context;
    size_t ffs = e->args->ffs.count ? e->args->ffs.count : 1;
    int chosen = e->items[example].answer_count == 0;
    json_t *one = json_pack(
        "{s:I, s:s, s:s, s:o, s:o, s:o}", "example", (json_int_t)example + 1, "attn",
        e->attns->items[setting / ffs], "ff",
        e->args->ffs.count ? e->args->ffs.items[setting % ffs] : "dense", "prediction",
        wire_text(found->text, strlen(found->text)), chosen ? "right" : "exact",
        chosen ? json_boolean(found->right) : wire_real(found->exact), chosen ? "right_norm" : "f1",
        chosen ? json_boolean(found->right_norm) : wire_real(found->f1));
    char *line = one ? json_dumps(one, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    if (line) fprintf(e->predictions, "%s\n", line);
    kh_free(line); /* jansson has the library's memory */
    json_decref(one);
}

static void print_table(const kh_evaluate_result *r, size_t count)
{
    cli_table table = {0};
    cli_table_row(&table,
                  "attn\tff\tquestions\texact\t+-\tF1\t+-\tchoices\tright\t+-\tby byte\t+-\t"
                  "seconds");
    for (size_t i = 0; i < count; i++, r++)
        cli_table_row(
            &table, "%s\t%s\t%zu\t%.2f\t%.2f\t%.2f\t%.2f\t%zu\t%.2f\t%.2f\t%.2f\t%.2f\t%.1f",
            r->attn, r->ff, r->questions, 100 * r->exact, 100 * r->exact_error, 100 * r->f1,
            100 * r->f1_error, r->choices, 100 * r->accuracy, 100 * r->accuracy_error,
            100 * r->accuracy_norm, 100 * r->accuracy_norm_error, r->seconds);
    cli_table_print(&table);
}

static kh_status print_json(const kh_evaluate_result *r, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++, r++)
        KH_TRY(cli_json_add(
            list,
            json_pack("{s:s, s:s, s:I, s:o, s:o, s:o, s:o, s:I, s:o, s:o, s:o, s:o, s:o, s:I}",
                      "attn", r->attn, "ff", r->ff, "questions", (json_int_t)r->questions, "exact",
                      wire_real(r->exact), "exact_error", wire_real(r->exact_error), "f1",
                      wire_real(r->f1), "f1_error", wire_real(r->f1_error), "choices",
                      (json_int_t)r->choices, "accuracy", wire_real(r->accuracy), "accuracy_error",
                      wire_real(r->accuracy_error), "accuracy_norm", wire_real(r->accuracy_norm),
                      "accuracy_norm_error", wire_real(r->accuracy_norm_error), "seconds",
                      wire_real(r->seconds), "peak_bytes", (json_int_t)r->peak_bytes)));
    return cli_json_print(json_pack("{s:o}", "results", list));
}

static kh_status measure(examples *e, const kh_model *model)
{
    const cli_args *args = e->args;
    size_t settings = e->attns->count * (args->ffs.count ? args->ffs.count : 1);
    kh_evaluate_result *results = NULL;
    kh_evaluate_options options = {.session = cli_session_options(args),
                                   .attns = (const char *const *)e->attns->items,
                                   .attn_count = e->attns->count,
                                   .ffs = (const char *const *)args->ffs.items,
                                   .ff_count = args->ffs.count,
                                   .max_tokens = (size_t)args->predict,
                                   .predicted = e->predictions ? predicted : NULL,
                                   .predicted_context = e,
                                   .progress = cli_progress};
    KH_TRY(kh_new(&results, settings, sizeof *results, "the results"));
    kh_status status = kh_evaluate(model, e->items, e->count, &options, results);
    cli_progress_end();
    if (status == KH_OK && args->json)
        status = print_json(results, settings);
    else if (status == KH_OK)
        print_table(results, settings);
    kh_free(results);
    return status;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    static const char *const full[] = {"full"};
    cli_take_model(args, &words, &count);
    kh_opt_texts attns = cli_attns(args, full, 1);
    examples e = {.args = args,
                  .attns = &attns,
                  .path = args->file ? args->file
                          : count    ? words[0]
                                     : NULL};
    kh_model *model = NULL;
    kh_status status = KH_OK;
    if (!e.path) status = kh_fail(KH_ERR_ARGUMENT, "no examples were named: -f FILE.jsonl");
    if (status == KH_OK) status = read_examples(&e);
    if (status == KH_OK && args->predictions && !(e.predictions = fopen(args->predictions, "w")))
        status = kh_fail(KH_ERR_IO, "%s: cannot be written", args->predictions);
    if (status == KH_OK) status = cli_model_open(&model, args, 0);
    if (status == KH_OK) status = measure(&e, model);
    if (e.predictions && fclose(e.predictions) != 0 && status == KH_OK)
        status = kh_fail(KH_ERR_IO, "%s: not all could be written", args->predictions);
    kh_model_close(model);
    free_examples(&e);
    return status;
}

static const kh_opt input[] = {
    CLI_TEXT(file, "-f --file", "FILE", "examples, one JSON object a line; - is standard input",
             NULL),
    CLI_INT(chunks, "--limit", "N", "reads the first N examples; 0 is all", "0", 0, 1 << 30, NULL),
    CLI_INT(predict, "-n --predict", "N", "most tokens of an answer", "32", 1, CLI_MOST_CONTEXT,
            NULL),
    CLI_END};
static const kh_opt output[] = {
    CLI_TEXT(predictions, "--predictions", "FILE",
             "writes every prediction under every setting, one JSON object a line", NULL),
    CLI_FLAG(json, "--json", "prints {results: [...]}"),
    CLI_FLAG(quiet, "-q --quiet", "no notes or progress on standard error"), CLI_END};
static const kh_opt_group groups[] = {{"Model", cli_options_model},
                                      {"Examples", input},
                                      {"Attention", cli_options_attns},
                                      {"Feed-forward", cli_options_ffs},
                                      {"Context", cli_options_context},
                                      {"Computation", cli_options_compute},
                                      {"Output", output},
                                      CLI_NO_GROUP};

const cli_verb cli_verb_eval = {
    .group = "Measure",
    .command =
        {.name = "eval",
         .does = "exact match, F1 and accuracy over examples, several settings side by side",
         .words = "[MODEL] [FILE]",
         .most_words = 2,
         .about = "Answers questions and compares choices, and prints for each setting: exact "
                  "match and F1 by the rules of SQuAD's script, accuracy by the likelihood of a "
                  "choice and by that divided by its bytes, each in percent with its standard "
                  "error.\n\nA line of the file is one example: {\"question\": ..., \"context\": "
                  "..., \"answers\": [...]} or {\"question\": ..., \"choices\": [...], \"answer\": "
                  "index, label or text}. Decoders complete, T5 and its relatives answer in "
                  "UnifiedQA's form, encoders with a head for answers point.\n\nWith --json: "
                  "{\"results\": [{attn, ff, questions, exact, exact_error, f1, f1_error, "
                  "choices, accuracy, accuracy_error, accuracy_norm, accuracy_norm_error, "
                  "seconds, peak_bytes}]}, shares from 0 to 1, null where there is no example.",
         .example = "keyhole eval -m unifiedqa-t5-base -f dev.jsonl --attn full --attn "
                    "topk:k=64 --ff dense --ff topk:k=256",
         .groups = groups},
    .run = run,
};
