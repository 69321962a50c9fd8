/* keyhole steer: directions of the residual stream: learned, looked at, kept as a control vector, tried on a prompt.
 *
 * A file of pairs has a pair on every line, {"with": "...", "without": "..."} or ["...", "..."]; a file of texts has a text
 * on every line, as it stands or as {"prompt": "..."}. */
#include "cli/inspecting.h"
#include "cli/steering.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <string.h>

typedef struct desk {
    const cli_args *args;
    const kh_model *model;
    wire_ask ask;
    wire_vectors vectors;
    json_t *body, *learned, *outputs;
} desk;

/* ---- the request ---- */

static json_t *line_json(const char *line, int pairs)
{
    json_t *value = strchr("{[\"", line[0]) ? json_loads(line, JSON_DECODE_ANY, NULL) : NULL;
    if (pairs) return value;
    json_t *prompt = json_is_object(value) ? json_object_get(value, "prompt") : value;
    prompt = json_is_string(prompt) ? json_incref(prompt) : wire_text(line, strlen(line));
    json_decref(value);
    return prompt;
}

static kh_status add_lines(json_t *body, const char *path, int pairs)
{
    kh_buf text = {0};
    json_t *list = json_array();
    json_object_set_new(body, pairs ? "pairs" : "prompts", list);
    kh_status status = cli_read_file(&text, path);
    size_t number = 0;
    for (char *at = text.data; status == KH_OK && at && *at;) {
        char *end = strchr(at, '\n');
        if (end) *end = 0;
        number++;
        json_t *value = at[strspn(at, " \t\r")] ? line_json(at, pairs) : NULL;
        if (value)
            json_array_append_new(list, value);
        else if (at[strspn(at, " \t\r")])
            status = kh_fail(KH_ERR_FORMAT,
                             "%s: line %zu: {\"with\": \"...\", \"without\": \"...\"} is expected",
                             path, number);
        at = end ? end + 1 : NULL;
    }
    kh_buf_free(&text);
    return status;
}

static int learns(const cli_args *args)
{
    return args->pairs || args->means || args->from;
}

static kh_status make_body(desk *d)
{
    const cli_args *args = d->args;
    json_t *body = d->body = json_object();
    if ((args->pairs != NULL) + (args->means != NULL) + (args->from != NULL) > 1)
        KH_FAIL(KH_ERR_ARGUMENT, "--pairs, --mean-of and --from exclude each other");
    if (!learns(args) && !args->vectors.count)
        KH_FAIL(KH_ERR_ARGUMENT,
                "--pairs FILE, --mean-of FILE, --from TOKEN or --control-vector FILE is expected");
    if (args->template) json_object_set_new(body, "template", json_true());
    json_object_set_new(body, "method", json_string(args->method ? "pca" : "mean"));
    if (args->pairs) KH_TRY(add_lines(body, args->pairs, 1));
    if (args->means) KH_TRY(add_lines(body, args->means, 0));
    if (args->from) json_object_set_new(body, "from", wire_text(args->from, strlen(args->from)));
    if (args->minus)
        json_object_set_new(body, "minus", wire_text(args->minus, strlen(args->minus)));
    if (args->prompt)
        json_object_set_new(body, "prompt", wire_text(args->prompt, strlen(args->prompt)));
    json_object_set_new(body, "max_tokens", json_integer(args->predict));
    json_object_set_new(body, "temperature", json_real(args->temp));
    json_object_set_new(body, "seed", json_integer(args->seed));
    return KH_OK;
}

/* ---- the answer ---- */

static kh_status take(void *context, json_t *value)
{
    desk *d = context;
    if (!value) KH_FAIL(KH_ERR_MEMORY, "no memory for the answer");
    d->outputs = value;
    return KH_OK;
}

static kh_status learn(desk *d)
{
    const cli_args *args = d->args;
    const kh_opt_ints *range = &args->vector_layers;
    kh_control *control = NULL;
    if (!learns(args)) return KH_OK;
    KH_TRY(wire_learn(&d->ask, &control));
    kh_status status = args->save ? kh_control_save(control, args->save) : KH_OK;
    if (status == KH_OK) status = wire_control_layers(&d->ask, control, &d->learned);
    if (status != KH_OK) {
        kh_control_close(control);
        return status;
    }
    int first = range->count >= 2 ? (int)range->items[range->count - 2] : 0;
    int last = range->count >= 2 ? (int)range->items[range->count - 1] : 0;
    return wire_vectors_add(&d->vectors, control, args->save ? args->save : "learned",
                            args->strength, first, last);
}

static kh_status try_prompt(desk *d)
{
    json_t *list = wire_vectors_json(&d->vectors);
    for (size_t i = 0; i < json_array_size(list); i++)
        json_object_del(json_array_get(list, i), "path");
    json_object_set_new(d->body, "control_vectors", list);
    d->ask.vectors = &d->vectors;
    return wire_steer(&d->ask);
}

static kh_status show(const desk *d)
{
    cli_table t = {.ends_in_text = 1};
    if (d->learned) cli_table_row(&t, "layer\tlength\tpromotes\tagainst");
    for (size_t i = 0; i < json_array_size(d->learned); i++) {
        const json_t *l = json_array_get(d->learned, i), *top = json_object_get(l, "top"),
                     *bottom = json_object_get(l, "bottom");
        cli_table_row(
            &t, "%d\t%.4g\t%s %s %s\t%s %s %s", (int)cli_number(l, "layer"), cli_number(l, "norm"),
            cli_token(json_array_get(top, 0), 12), cli_token(json_array_get(top, 1), 12),
            cli_token(json_array_get(top, 2), 12), cli_token(json_array_get(bottom, 0), 12),
            cli_token(json_array_get(bottom, 1), 12), cli_token(json_array_get(bottom, 2), 12));
    }
    if (d->learned) KH_TRY(cli_table_print(&t));
    const json_t *outputs = json_object_get(d->outputs, "outputs");
    for (size_t i = json_array_size(outputs); i-- > 0;) {
        const json_t *one = json_array_get(outputs, i);
        cli_out("%s%s\n", i ? "\nbase     " : "steered  ",
                json_string_value(json_object_get(one, "output")));
    }
    return KH_OK;
}

static kh_status answer(desk *d)
{
    KH_TRY(make_body(d));
    KH_TRY(cli_vectors_open(&d->vectors, d->model, d->args));
    kh_session_options options = cli_session_options(d->args);
    options.attn = d->args->attn;
    d->ask = (wire_ask){.model = d->model, .body = d->body, .sink = {take, d}};
    KH_TRY(kh_inspector_open(&d->ask.inspector, d->model, &options));
    cli_signals_inspector(d->ask.inspector);
    KH_TRY(learn(d));
    if (d->args->save && !d->args->quiet) cli_say("%s: written", d->args->save);
    if (d->args->prompt) KH_TRY(try_prompt(d));
    if (!d->args->json) return show(d);
    return cli_json_print(
        json_pack("{s:O, s:O}", "layers", d->learned ? d->learned : json_null(), "outputs",
                  d->outputs ? json_object_get(d->outputs, "outputs") : json_null()));
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    kh_model *model = NULL;
    cli_take_model(args, &words, &count);
    KH_TRY(cli_model_open(&model, args, 0));
    desk d = {.args = args, .model = model};
    kh_status status = answer(&d);
    cli_signals_inspector(NULL);
    kh_inspector_close(d.ask.inspector);
    wire_vectors_free(&d.vectors);
    json_decref(d.body);
    json_decref(d.learned);
    json_decref(d.outputs);
    kh_model_close(model);
    return status;
}

static const char *const methods[] = {"mean", "pca", NULL}; /* as kh_learn */
static const kh_opt learning[] = {
    CLI_TEXT(pairs, "--pairs", "FILE",
             "learns from pairs of texts, one on a line: {\"with\": \"...\", \"without\": \"...\"}",
             NULL),
    CLI_CHOICE(method, "--method", "mean|pca",
               "of pairs: the mean difference at the last token, or the first principal direction, "
               "of length 1",
               "mean", methods, NULL),
    CLI_TEXT(means, "--mean-of", "FILE", "the mean at the last token of texts, one on a line",
             NULL),
    CLI_TEXT(from, "--from", "WHAT",
             "a token (' happy') or a neuron (L12N345), of length 1, at every layer", NULL),
    CLI_TEXT(minus, "--minus", "WHAT", "less this token or neuron", NULL),
    CLI_FLAG(template, "--template", "texts are users' messages in the model's chat template"),
    CLI_TEXT(save, "-o --save", "FILE", "writes it as a control vector (GGUF, as llama.cpp's)",
             NULL),
    CLI_END};
static const kh_opt trying[] = {
    CLI_TEXT(prompt, "-p --prompt", "TEXT", "continues a prompt with and without", NULL),
    CLI_REAL(strength, "--scale", "X", "strength of what was learned", "1", -1e6, 1e6),
    CLI_INT(predict, "-n --n-predict", "N", "tokens of both answers", "40", 1, 4096, NULL),
    CLI_REAL(temp, "--temp", "X", "temperature; 0 takes the most probable token", "0", 0, 100),
    CLI_INT(seed, "-s --seed", "N", "of both answers", "1", 0, 4294967295.0, NULL),
    CLI_END};
static const kh_opt output[] = {CLI_FLAG(json, "--json", "prints one JSON object: layers, outputs"),
                                CLI_FLAG(quiet, "-q --quiet", "nothing on standard error"),
                                CLI_END};
static const kh_opt_group groups[] = {{"Model", cli_options_model},
                                      {"Direction", learning},
                                      {"Steering", cli_options_steering},
                                      {"Try", trying},
                                      {"Attention", cli_options_attn},
                                      {"Feed-forward", cli_options_ff},
                                      {"Context", cli_options_context},
                                      {"Computation", cli_options_compute},
                                      {"Output", output},
                                      CLI_NO_GROUP};

const cli_verb cli_verb_steer = {
    .group = "Look inside",
    .command = {.name = "steer",
                .does = "makes control vectors and tries them",
                .words = "[MODEL]",
                .most_words = 1,
                .about =
                    "A control vector is a direction for each layer that is added to the residual "
                    "stream behind it. It is learned from pairs of texts, or is a token's or a "
                    "neuron's own direction. Its file is llama.cpp's: direction.1 is added behind "
                    "layer 1, counted from 0; layer 0 is never steered. run, chat, serve and edit "
                    "take it with --control-vector.",
                .example =
                    "keyhole steer -m model.gguf --pairs moods.jsonl -o happy.gguf\n"
                    "keyhole steer model.gguf --from \" happy\" --minus \" sad\" --scale 8 -p \"I "
                    "feel\" --control-vector-layer-range 15 25\n"
                    "keyhole run model.gguf -p \"How are you?\" --control-vector happy.gguf:0.8",
                .groups = groups},
    .run = run,
};
