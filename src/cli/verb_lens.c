/* keyhole lens: what every layer would predict at every position. */
#include "cli/inspecting.h"

#include "base/fail.h"

#include <string.h>

/* "after,before" or several --tap. */
static json_t *texts_json(const kh_opt_texts *texts)
{
    json_t *list = json_array();
    for (size_t i = 0; i < texts->count; i++)
        for (const char *at = texts->items[i]; *at;) {
            size_t n = strcspn(at, ",");
            json_array_append_new(list, json_stringn(at, n));
            at += n + (at[n] == ',');
        }
    return list;
}

static kh_status tracked_ids(const cli_args *args, const kh_model *model, json_t *body)
{
    json_t *list = json_array();
    for (size_t i = 0; i < args->tracked.count; i++) {
        const char *text = args->tracked.items[i];
        int32_t *ids = NULL;
        size_t n = 0;
        KH_TRY(kh_model_tokenize(model, text, strlen(text), KH_TEXT_SPECIAL, &ids, &n));
        if (n == 1) json_array_append_new(list, json_integer(ids[0]));
        kh_free_ids(ids);
        if (n != 1) KH_FAIL(KH_ERR_ARGUMENT, "--track '%s': %zu tokens, one is expected", text, n);
    }
    json_object_set_new(body, "tracked", list);
    return KH_OK;
}

static kh_status request(const cli_args *args, const kh_model *model, const char **words,
                         size_t count, json_t *body)
{
    (void)words;
    (void)count;
    if (args->taps.count) json_object_set_new(body, "taps", texts_json(&args->taps));
    if (args->layer >= 0)
        json_object_set_new(body, "layers", json_pack("[I]", (json_int_t)args->layer));
    if (args->position != -1) {
        json_object_set_new(body, "first", json_integer(args->position));
        json_object_set_new(body, "count", json_integer(1));
    }
    json_object_set_new(body, "top_n", json_integer(args->most));
    json_object_set_new(body, "bottom_n", json_integer(args->bottom));
    json_object_set_new(body, "num_completion_tokens", json_integer(args->predict));
    if (args->dry_run) json_object_set_new(body, "cost_only", json_true());
    return args->tracked.count ? tracked_ids(args, model, body) : KH_OK;
}

/* The best tokens of a cell, as far as a line has room. */
static void print_cell(const json_t *frame, const char *tap, size_t i)
{
    const json_t *tokens =
        json_array_get(json_object_get(json_object_get(frame, "top_tokens"), tap), i);
    const json_t *shares = json_array_get(json_object_get(json_object_get(frame, "top_probs"), tap),
                                          i);
    for (size_t t = 0; t < json_array_size(tokens) && t < 5; t++)
        cli_out("  %s %.3f", cli_token(json_array_get(tokens, t), 14),
                json_number_value(json_array_get(shares, t)));
}

static double at(const json_t *frame, const char *name, const char *tap, size_t i)
{
    return json_number_value(json_array_get(json_object_get(json_object_get(frame, name), tap), i));
}

static void print_position(const json_t *frame)
{
    const char *tap;
    json_t *layers;
    cli_out("%d  %s", (int)cli_number(frame, "position"),
            cli_token(json_object_get(frame, "token"), 30));
    double surprise = cli_number(frame, "surprise");
    cli_out(isfinite(surprise) ? "  (surprise %.3f nats)\n" : "\n", surprise);
    json_object_foreach(json_object_get(frame, "layers_by_type"), tap, layers)
    {
        for (size_t i = 0; i < json_array_size(layers) && !cli_out_closed(); i++) {
            cli_out("  %3d %-8s H %6.3f  KL %7.3f",
                    (int)json_integer_value(json_array_get(layers, i)), tap,
                    at(frame, "entropy", tap, i), at(frame, "kl", tap, i));
            print_cell(frame, tap, i);
            cli_out("\n");
        }
    }
}

static kh_status show(void *context, const cli_args *args, const kh_model *model,
                      const json_t *value)
{
    const char *type = json_string_value(json_object_get(value, "type"));
    (void)context;
    (void)model;
    if (strcmp(type, "meta") == 0) {
        const json_t *cost = json_object_get(value, "cost");
        if (!args->quiet)
            cli_note("%.0f cells: %.3g operations, %.0f MB", cli_number(cost, "cells"),
                     cli_number(cost, "operations"), cli_number(cost, "bytes") / 1e6);
    } else if (strcmp(type, "token") == 0) {
        print_position(value);
        return cli_row_done();
    }
    return KH_OK;
}

/* Of the last layer at the last position that was asked about. */
static double last_entropy(const json_t *value)
{
    const json_t *by_tap = json_object_get(value, "entropy"),
                 *after = json_object_get(by_tap, "after");
    size_t n = json_array_size(after);
    return n ? json_number_value(json_array_get(after, n - 1)) : (double)NAN;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    const cli_inspection what = {.ask = wire_lens,
                                 .request = request,
                                 .show = show,
                                 .figure = last_entropy,
                                 .name = "entropy of the last layer asked about (nats)"};
    return cli_inspect(args, words, count, &what);
}

static const kh_opt which[] = {
    CLI_TEXTS(taps, "--tap", "TAP",
              "where in a layer: before (attention), between (attention and feed-forward), after; "
              "may be given again (after)"),
    CLI_INT(layer, "--layer", "N", "one layer instead of all", "-1", -1, 1 << 16, NULL),
    CLI_INT(position, "--position", "N", "one position instead of all, counted from 0", "-1", -1,
            CLI_MOST_CONTEXT, NULL),
    CLI_INT(most, "-k --top", "N", "tokens of a cell", "5", 1, 1000, NULL),
    CLI_INT(bottom, "--bottom", "N", "tokens of its lower end (--json)", "0", 0, 1000, NULL),
    CLI_TEXTS(tracked, "--track", "TOKEN", "also the rank of a token in every cell (--json)"),
    CLI_INT(predict, "-n --n-predict", "N",
            "goes on with the text for so many tokens first, greedily", "0", 0, 4096, NULL),
    CLI_FLAG(dry_run, "--dry-run", "says what it would cost, and computes nothing"),
    CLI_END};
static const kh_opt_group groups[] = {{"Model", cli_options_model},
                                      {"Text", cli_options_subject},
                                      {"Cells", which},
                                      CLI_READING_GROUPS};

const cli_verb cli_verb_lens = {
    .group = "Look inside",
    .command = {.name = "lens",
                .does = "what every layer would predict at every position",
                .words = "[MODEL]",
                .most_words = 1,
                .about =
                    "Sends the residual stream of each layer through the final norm and the "
                    "output head: the tokens that the model would say if it ended there, their "
                    "probabilities, the entropy (H, nats) and the distance to what it does say "
                    "(KL, nats). Works on the file as it is, quantised or not.",
                .example =
                    "keyhole lens -m model.gguf -p \"The capital of France is\"\n"
                    "keyhole lens model.gguf -p \"2 + 2 =\" --position 4 --tap between,after\n"
                    "keyhole lens model.gguf --prompts prompts.jsonl --layer 20 -o cells.jsonl",
                .groups = groups},
    .run = run,
};
