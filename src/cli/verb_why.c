/* keyhole why: a logit, or the difference of two, as the sum of what every part of the model gave. */
#include "cli/inspecting.h"

#include "base/fail.h"

#include <string.h>

static kh_status request(const cli_args *args, const kh_model *model, const char **words,
                         size_t count, json_t *body)
{
    (void)model;
    (void)words;
    (void)count;
    json_object_set_new(body, "most", json_integer(args->most));
    if (args->alone) json_object_set_new(body, "alone", json_true());
    return KH_OK;
}

static void print_tokens(cli_table *t, const json_t *part)
{
    const json_t *source = json_object_get(part, "source"),
                 *tokens = json_object_get(part, "tokens");
    double value = cli_number(part, "value");
    const char *name = json_string_value(json_object_get(part, "part"));
    if (source)
        cli_table_row(t, "%s\t%+.4f\tfrom %s at %d: %+.4f", name, value, cli_token(source, 16),
                      (int)cli_number(source, "position"), cli_number(source, "value"));
    else
        cli_table_row(t, "%s\t%+.4f\t%+.2f x  %s %s %s", name, value,
                      cli_number(part, "coefficient"), cli_token(json_array_get(tokens, 0), 14),
                      cli_token(json_array_get(tokens, 1), 14),
                      cli_token(json_array_get(tokens, 2), 14));
}

static kh_status show(void *context, const cli_args *args, const kh_model *model,
                      const json_t *value)
{
    const json_t *a = json_object_get(value, "a"), *b = json_object_get(value, "b");
    const json_t *parts = json_object_get(value, "parts");
    cli_table t = {.ends_in_text = 1};
    (void)context;
    (void)args;
    (void)model;
    cli_out("position %d: %s %.4f", (int)cli_number(value, "position"), cli_token(a, 30),
            cli_number(a, "probability"));
    if (json_is_object(b))
        cli_out(" against %s %.4f", cli_token(b, 30), cli_number(b, "probability"));
    cli_out(json_is_object(b) ? "; difference of logits %.6g\n\n" : "; logit %.6g\n\n",
            cli_number(value, "total"));
    cli_table_row(&t, "part\tlogit\tsource, or what it promotes");
    cli_table_row(&t, "embed\t%+.4f\t", cli_number(value, "embed"));
    for (size_t i = 0; i < json_array_size(parts); i++) print_tokens(&t, json_array_get(parts, i));
    cli_table_row(&t, "all others\t%+.4f\t", cli_number(value, "others"));
    cli_table_row(&t, "biases\t%+.4f\t", cli_number(value, "bias"));
    if (cli_number(value, "edits") != 0)
        cli_table_row(&t, "edits\t%+.4f\t", cli_number(value, "edits"));
    cli_table_row(&t, "sum\t%+.4f\tleftover %.2g", cli_number(value, "sum"),
                  cli_number(value, "leftover"));
    return cli_table_print(&t);
}

static double total(const json_t *value)
{
    return cli_number(value, "total");
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    const cli_inspection what = {.ask = wire_why,
                                 .request = request,
                                 .show = show,
                                 .figure = total,
                                 .name = "logit, or difference of logits"};
    return cli_inspect(args, words, count, &what);
}

static const kh_opt which[] = {
    CLI_FLAG(alone, "--alone", "the logit of one token, not a difference"),
    CLI_INT(most, "-k --top", "N", "heads and neurons that are listed", "12", 1, 10000, NULL),
    CLI_END};
static const kh_opt_group groups[] = {{"Model", cli_options_model},
                                      {"Text", cli_options_subject},
                                      {"Question", cli_options_question},
                                      {"Parts", which},
                                      CLI_READING_GROUPS};

const cli_verb cli_verb_why = {
    .group = "Look inside",
    .command =
        {.name = "why",
         .does = "why this token and not that one: what every part gave to the logit",
         .words = "[MODEL]",
         .most_words = 1,
         .about = "logit(A) - logit(B) is the sum of what the embedding, every head, every "
                  "neuron and the biases gave to it, with the final norm linearised at its "
                  "observed scale. The strongest are listed, signed; the leftover is what "
                  "rounding leaves. Without --token and --against the two most probable next "
                  "tokens are held against each other.",
         .example =
             "keyhole why -m model.gguf -p \"The capital of France is\"\n"
             "keyhole why model.gguf -p \"The capital of France is\" -a \" Paris\" -b \" Lyon\"",
         .groups = groups},
    .run = run,
};
