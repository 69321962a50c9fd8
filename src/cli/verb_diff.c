/* keyhole diff: where two files, two settings of attention or two prompts part, and which part of the model parts them. */
#include "cli/inspecting.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <string.h>

typedef struct comparison {
    const cli_args *args;
    const kh_model *model, *other_model;
    json_t *tokens;
} comparison;

static void print_row(const comparison *c, const json_t *row)
{
    const json_t *a = json_object_get(row, "a_top"), *b = json_object_get(row, "b_top"),
                 *part = json_object_get(row, "part");
    size_t position = (size_t)cli_number(row, "position");
    cli_out("%5zu  %-12s  %-12s %8.4f %8.4f  %s %.3f  %s %.3f\n", position,
            cli_token(json_array_get(c->tokens, position), 10),
            json_is_string(part) ? json_string_value(part) : "-", cli_number(row, "last"),
            cli_number(row, "kl"), cli_token(a, 12), cli_number(a, "probability"), cli_token(b, 12),
            cli_number(b, "probability"));
}

static double own_of(const json_t *part)
{
    double own = cli_number(part, "own");
    return isfinite(own) ? own : cli_number(part, "apart");
}

/* The parts that do most by themselves. */
static kh_status print_parts(const json_t *done)
{
    enum { SHOWN = 12 };
    const json_t *parts = json_object_get(done, "parts"), *first = json_object_get(done, "first");
    cli_table t = {0};
    size_t n = json_array_size(parts), shown[SHOWN], count = 0;
    if (json_is_object(first))
        cli_out("\nthey part first at position %d, behind %s (%.3g)",
                (int)cli_number(first, "position"),
                json_string_value(json_object_get(first, "part")), cli_number(first, "distance"));
    else
        cli_out("\nthey do not part");
    cli_out("; mean KL %.4g nats, most %.4g at %d\n\n", cli_number(done, "mean_kl"),
            cli_number(done, "most_kl"), (int)cli_number(done, "most_position"));
    for (size_t i = 0; i < n; i++) {
        size_t at = count < SHOWN ? count++ : SHOWN;
        double own = own_of(json_array_get(parts, i));
        if (at == SHOWN && own <= own_of(json_array_get(parts, shown[SHOWN - 1]))) continue;
        if (at == SHOWN) at--;
        while (at > 0 && own_of(json_array_get(parts, shown[at - 1])) < own) {
            shown[at] = shown[at - 1];
            at--;
        }
        shown[at] = i;
    }
    cli_table_row(&t, "part\tdoes alone\tstreams apart");
    for (size_t i = 0; i < count; i++) {
        const json_t *part = json_array_get(parts, shown[i]);
        cli_table_row(&t, "%s\t%.5f\t%.5f", json_string_value(json_object_get(part, "part")),
                      cli_number(part, "own"), cli_number(part, "apart"));
    }
    return cli_table_print(&t);
}

static kh_status take(void *context, json_t *value)
{
    comparison *c = context;
    if (!value) KH_FAIL(KH_ERR_MEMORY, "no memory for the answer");
    if (c->args->json) return cli_json_print(value);
    const char *type = json_string_value(json_object_get(value, "type"));
    kh_status status = KH_OK;
    if (strcmp(type, "meta") == 0) {
        c->tokens = json_incref(json_object_get(json_object_get(value, "a"), "tokens"));
        cli_out("%5s  %-12s  %-12s %8s %8s  %s\n", "pos", "token", "part", "distance", "KL",
                "a says, b says");
    } else if (strcmp(type, "row") == 0) {
        print_row(c, value);
        status = cli_row_done();
    } else if (strcmp(type, "done") == 0) {
        status = print_parts(value);
    }
    json_decref(value);
    return status;
}

static kh_status make_body(json_t **out, const cli_args *args)
{
    kh_buf text = {0};
    json_t *body = *out = json_object();
    kh_status status = cli_read_text(&text, args, NULL);
    if (status == KH_OK) json_object_set_new(body, "prompt", wire_text(text.data, text.size));
    kh_buf_free(&text);
    KH_TRY(status);
    if (args->corrupted)
        json_object_set_new(body, "other", wire_text(args->corrupted, strlen(args->corrupted)));
    if (args->template) json_object_set_new(body, "template", json_true());
    if (args->no_own) json_object_set_new(body, "no_own", json_true());
    json_object_set_new(body, "threshold", json_real(args->target));
    json_t *edits = json_array();
    for (size_t i = 0; i < args->edits.count; i++)
        json_array_append_new(edits, wire_text(args->edits.items[i], strlen(args->edits.items[i])));
    json_object_set_new(body, "edits", edits);
    return KH_OK;
}

static kh_status ask(comparison *c, const json_t *body)
{
    const cli_args *args = c->args;
    kh_session_options options = cli_session_options(args);
    kh_inspector *other = NULL;
    wire_ask question = {.model = c->model, .body = body, .sink = {take, c}};
    options.attn = args->attns.count > 0 ? args->attns.items[0] : NULL;
    KH_TRY(kh_inspector_open(&question.inspector, c->model, &options));
    if (args->attns.count > 1) options.attn = args->attns.items[1];
    kh_status status = kh_inspector_open(&other, c->other_model, &options);
    cli_signals_inspector(question.inspector);
    if (status == KH_OK)
        status = wire_diff(&question, other, kh_model_get_info(c->model)->path,
                           kh_model_get_info(c->other_model)->path);
    cli_signals_inspector(NULL);
    kh_inspector_close(other);
    kh_inspector_close(question.inspector);
    return status;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    kh_model *model = NULL, *second = NULL;
    json_t *body = NULL;
    cli_take_model(args, &words, &count);
    if (count > 1) KH_FAIL(KH_ERR_ARGUMENT, "'%s': diff takes two models", words[1]);
    if (!count && args->attns.count != 2 && !args->corrupted)
        KH_FAIL(KH_ERR_ARGUMENT,
                "a second model, --attn twice, or --other TEXT is expected: what is compared?");
    KH_TRY(make_body(&body, args));
    kh_status status = cli_model_open(&model, args, 0);
    if (status == KH_OK && count) status = kh_model_open(&second, words[0]);
    comparison c = {.args = args, .model = model, .other_model = second ? second : model};
    if (status == KH_OK) status = ask(&c, body);
    json_decref(c.tokens);
    json_decref(body);
    kh_model_close(second);
    kh_model_close(model);
    return status;
}

static const kh_opt text[] = {
    CLI_TEXT(prompt, "-p --prompt", "TEXT", "the text that both read", NULL),
    CLI_TEXT(file, "-f --file", "FILE", "reads it from a file, or from standard input (-)", NULL),
    CLI_TEXT(corrupted, "--other", "TEXT", "what the second one reads instead, of as many tokens",
             NULL),
    CLI_FLAG(template, "--template", "texts are users' messages in the model's chat template"),
    CLI_TEXTS(edits, "--edit", "EDIT", "both read under an edit; may be given again"),
    CLI_END};
static const kh_opt which[] = {
    CLI_TEXTS(attns, "--attn", "SPEC",
              "attention of both; given twice, of the first and of the second"),
    CLI_REAL(target, "--threshold", "X", "distance of the streams at which they part", "0.05", 1e-9,
             1e9),
    CLI_FLAG(no_own, "--no-own", "does not look for what each part does alone: half the time"),
    CLI_END};
static const kh_opt output[] = {
    CLI_FLAG(json, "--json", "prints the frames of POST /v1/diff, one a line"),
    CLI_FLAG(quiet, "-q --quiet", "nothing on standard error"), CLI_END};
static const kh_opt_group groups[] = {{"Model", cli_options_model},
                                      {"Text", text},
                                      {"Comparison", which},
                                      {"Feed-forward", cli_options_ff},
                                      {"Context", cli_options_context},
                                      {"Computation", cli_options_compute},
                                      {"Output", output},
                                      CLI_NO_GROUP};

const cli_verb cli_verb_diff = {
    .group = "Look inside",
    .command =
        {.name = "diff",
         .does = "where two files, settings or prompts part",
         .words = "[MODEL] [MODEL2]",
         .most_words = 2,
         .about =
             "Reads a text twice, with two files (two quantisations of one model), two settings of "
             "attention, or as two prompts, and says for every position where the streams part, "
             "behind which part of the model, and the KL of the predictions. Then the second "
             "reading is given the stream of the first in front of every part: what is off behind "
             "it is that part's own doing.",
         .example = "keyhole diff model.F16.gguf model.Q4_0.gguf -p \"The capital of France is\"\n"
                    "keyhole diff model.gguf -f notes.txt --attn full --attn topk:k=64\n"
                    "keyhole diff model.gguf -p \"I love it\" --other \"I hate it\"",
         .groups = groups},
    .run = run,
};
