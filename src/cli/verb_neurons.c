/* keyhole neurons: the dominant neurons of a position, or the card of one neuron. */
#include "cli/inspecting.h"

#include "base/fail.h"

#include <stdio.h>
#include <string.h>

static const char *const orders[] = {"score", "value", NULL};

/* ---- of a position ---- */

static kh_status request(const cli_args *args, const kh_model *model, const char **words,
                         size_t count, json_t *body)
{
    (void)model;
    (void)words;
    (void)count;
    if (args->layer >= 0) json_object_set_new(body, "layer", json_integer(args->layer));
    json_object_set_new(body, "most", json_integer(args->most));
    json_object_set_new(body, "by", json_string(orders[args->by]));
    return KH_OK;
}

static kh_status show(void *context, const cli_args *args, const kh_model *model,
                      const json_t *value)
{
    const json_t *layers = json_object_get(value, "layers");
    cli_table t = {.ends_in_text = 1};
    (void)context;
    (void)args;
    (void)model;
    cli_table_row(&t, "neuron\tcoefficient\tscore\tlogit\tpromotes");
    for (size_t l = 0; l < json_array_size(layers); l++) {
        const json_t *list = json_object_get(json_array_get(layers, l), "neurons");
        for (size_t i = 0; i < json_array_size(list); i++) {
            const json_t *n = json_array_get(list, i), *tokens = json_object_get(n, "tokens");
            char logit[32] = "-";
            if (isfinite(cli_number(n, "value")))
                snprintf(logit, sizeof logit, "%+.4f", cli_number(n, "value"));
            cli_table_row(
                &t, "%s\t%+.3f\t%.3f\t%s\t%s %s %s", json_string_value(json_object_get(n, "part")),
                cli_number(n, "coefficient"), cli_number(n, "score"), logit,
                cli_token(json_array_get(tokens, 0), 14), cli_token(json_array_get(tokens, 1), 14),
                cli_token(json_array_get(tokens, 2), 14));
        }
    }
    return cli_table_print(&t);
}

/* ---- a card ---- */

static kh_status request_card(const cli_args *args, const kh_model *model, const char **words,
                              size_t count, json_t *body)
{
    (void)model;
    (void)count;
    json_object_set_new(body, "part", wire_text(words[0], strlen(words[0])));
    json_object_set_new(body, "top_n", json_integer(args->most));
    return KH_OK;
}

static void print_end(const char *name, const json_t *vector, const char *end)
{
    const json_t *tokens = json_object_get(vector, end);
    if (!json_is_object(vector)) return;
    cli_out("%-14s", name);
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        const json_t *token = json_array_get(tokens, i);
        cli_out(" %s %.2f", cli_token(token, 16), cli_number(token, "logit"));
    }
    cli_out("\n");
}

static kh_status show_card(void *context, const cli_args *args, const kh_model *model,
                           const json_t *value)
{
    const json_t *here = json_object_get(value, "here"),
                 *near = json_object_get(value, "neighbours");
    (void)context;
    (void)args;
    (void)model;
    cli_out("%s: value vector of norm %.4f\n", json_string_value(json_object_get(value, "part")),
            cli_number(value, "value_norm"));
    print_end("promotes", json_object_get(value, "value"), "top");
    print_end("suppresses", json_object_get(value, "value"), "bottom");
    print_end("gate reads", json_object_get(value, "gate"), "top");
    print_end("gate, other", json_object_get(value, "gate"), "bottom");
    print_end("up reads", json_object_get(value, "up"), "top");
    print_end("up, other", json_object_get(value, "up"), "bottom");
    if (json_is_object(here))
        cli_out("at position %d  coefficient %+.4f (%s), score %.4f, logit %+.4f\n",
                (int)cli_number(here, "position"), cli_number(here, "coefficient"),
                json_string_value(json_object_get(here, "case")), cli_number(here, "score"),
                cli_number(here, "value"));
    cli_out("nearest       ");
    for (size_t i = 0; i < json_array_size(near); i++) {
        const json_t *one = json_array_get(near, i);
        cli_out(" %s %.3f", json_string_value(json_object_get(one, "part")),
                cli_number(one, "cosine"));
    }
    cli_out("\n");
    return KH_OK;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    const cli_inspection position = {.ask = wire_neurons, .request = request, .show = show};
    const cli_inspection card = {
        .ask = wire_neuron, .request = request_card, .show = show_card, .no_text = 1};
    size_t own = count - (args->model || args->hf ? 0 : count > 0);
    return cli_inspect(args, words, count, own ? &card : &position);
}

static const kh_opt which[] = {
    CLI_INT(layer, "--layer", "N", "one layer instead of all", "-1", -1, 1 << 16, NULL),
    CLI_INT(most, "-k --top", "N", "neurons of each layer, or tokens of a card", "10", 1, 1000,
            NULL),
    CLI_CHOICE(
        by, "--by", "ORDER",
        "score: |coefficient| times the norm of the value vector; value: the share of the logit "
        "that --token asks about",
        "score", orders, NULL),
    CLI_END};
static const kh_opt_group groups[] = {{"Model", cli_options_model},
                                      {"Text", cli_options_subject},
                                      {"Question", cli_options_question},
                                      {"Neurons", which},
                                      CLI_READING_GROUPS};

const cli_verb cli_verb_neurons = {
    .group = "Look inside",
    .command = {.name = "neurons",
                .does = "the dominant neurons of a position, or the card of one",
                .words = "[MODEL] [NEURON]",
                .most_words = 2,
                .about =
                    "Without a neuron: those whose value vectors weigh most at a position, layer "
                    "by layer. With one (L12N345): what its value vector promotes and suppresses, "
                    "what its gate and up vectors read, its nearest neighbours, and with a text "
                    "what it does there.",
                .example =
                    "keyhole neurons -m model.gguf -p \"My wife is working as a\" --layer 20\n"
                    "keyhole neurons model.gguf L20N345",
                .groups = groups},
    .run = run,
};
