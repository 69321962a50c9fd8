/* keyhole search: the neurons, or heads, that write a token, over all layers. */
#include "cli/inspecting.h"

#include "base/fail.h"

#include <stdio.h>
#include <string.h>

static const char *const orders[] = {"logit", "cosine", "rank", NULL};
static const char *const ends[] = {"both", "top", "bottom", NULL};

static kh_status request(const cli_args *args, const kh_model *model, const char **words,
                         size_t count, json_t *body)
{
    json_t *list = json_array();
    (void)model;
    if (count == 0) KH_FAIL(KH_ERR_ARGUMENT, "tokens to look for are expected, such as ' Paris'");
    for (size_t i = 0; i < count; i++) json_array_append_new(list, cli_token_json(words[i]));
    json_object_set_new(body, "words", list);
    json_object_set_new(body, "by", json_string(orders[args->by]));
    json_object_set_new(body, "ends", json_string(ends[args->ends]));
    json_object_set_new(body, "most", json_integer(args->most));
    if (args->of_heads) json_object_set_new(body, "heads", json_true());
    return KH_OK;
}

static kh_status show(void *context, const cli_args *args, const kh_model *model,
                      const json_t *value)
{
    const json_t *list = json_object_get(value, "hits");
    cli_table t = {.ends_in_text = 1};
    (void)context;
    (void)model;
    cli_table_row(&t, args->of_heads ? "head\tlogit\tcosine"
                                     : "neuron\tlogit\tcosine\trank\tits tokens at that end");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *hit = json_array_get(list, i), *tokens = json_object_get(hit, "tokens");
        const char *part = json_string_value(json_object_get(hit, "part"));
        if (args->of_heads)
            cli_table_row(&t, "%s\t%.4f\t%.4f", part, cli_number(hit, "logit"),
                          cli_number(hit, "cosine"));
        else
            cli_table_row(&t, "%s\t%+.4f\t%+.4f\t%.0f\t%s %s %s", part, cli_number(hit, "logit"),
                          cli_number(hit, "cosine"), cli_number(hit, "rank"),
                          cli_token(json_array_get(tokens, 0), 14),
                          cli_token(json_array_get(tokens, 1), 14),
                          cli_token(json_array_get(tokens, 2), 14));
    }
    return cli_table_print(&t);
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    const cli_inspection what = {
        .ask = wire_search, .request = request, .show = show, .no_text = 1};
    return cli_inspect(args, words, count, &what);
}

static const kh_opt which[] = {
    CLI_CHOICE(by, "--by", "ORDER",
               "logit: what a coefficient of 1 gives to the token; cosine: the same of vectors of "
               "length 1; "
               "rank: the token's place among all that the neuron promotes",
               "logit", orders, NULL),
    CLI_CHOICE(ends, "--ends", "END", "top (promote), bottom (suppress) or both", "both", ends,
               NULL),
    CLI_FLAG(of_heads, "--heads", "heads instead of neurons: how far a head can move the token"),
    CLI_INT(most, "-k --top", "N", "hits of each end", "10", 1, 10000, NULL), CLI_END};
static const kh_opt_group groups[] = {{"Model", cli_options_model},
                                      {"Search", which},
                                      {"Computation", cli_options_compute},
                                      {"Output", cli_options_inspect_output},
                                      CLI_NO_GROUP};

const cli_verb cli_verb_search = {
    .group = "Look inside",
    .command = {.name = "search",
                .does = "which neurons or heads write a token",
                .words = "MODEL TOKEN...",
                .most_words = 16,
                .about =
                    "One product of every value vector of every layer with the token's row of the "
                    "output head: exact, and without an index. Of several tokens (a word with and "
                    "without its space) their mean is looked for.",
                .example = "keyhole search model.gguf ' Paris'\n"
                           "keyhole search model.gguf ' happy' ' glad' --by rank --ends top",
                .groups = groups},
    .run = run,
};
