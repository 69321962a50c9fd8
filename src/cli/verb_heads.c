/* keyhole heads: a row of attention as it was computed, and what the head writes. */
#include "cli/inspecting.h"

#include "base/fail.h"

#include <string.h>

static kh_status request(const cli_args *args, const kh_model *model, const char **words,
                         size_t count, json_t *body)
{
    (void)args;
    (void)model;
    if (count == 0) KH_FAIL(KH_ERR_ARGUMENT, "a head such as L5H3 is expected");
    json_object_set_new(body, "part", wire_text(words[0], strlen(words[0])));
    return KH_OK;
}

static void print_writes(const json_t *writes, const char *end, const char *name)
{
    const json_t *tokens = json_object_get(writes, end);
    cli_out("%s", name);
    for (size_t i = 0; i < json_array_size(tokens); i++)
        cli_out(" %s %.2f", cli_token(json_array_get(tokens, i), 16),
                cli_number(json_array_get(tokens, i), "logit"));
    cli_out("\n");
}

static kh_status show(void *context, const cli_args *args, const kh_model *model,
                      const json_t *value)
{
    const json_t *list = json_object_get(value, "snippets");
    cli_table t = {.ends_in_text = 1};
    (void)context;
    (void)args;
    (void)model;
    cli_out("%s at position %d: %zu keys, %.4f of the softmax, entropy %.3f nats\n",
            json_string_value(json_object_get(value, "part")), (int)cli_number(value, "position"),
            json_array_size(json_object_get(value, "keys")), cli_number(value, "kept"),
            cli_number(value, "entropy"));
    print_writes(json_object_get(value, "writes"), "top", "promotes  ");
    print_writes(json_object_get(value, "writes"), "bottom", "suppresses");
    cli_out("\n");
    cli_table_row(&t, "key\tweight\tlogit\ttext");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *s = json_array_get(list, i);
        cli_table_row(&t, "%d\t%.4f\t%+.4f\t%s[%s]%s", (int)cli_number(s, "position"),
                      cli_number(s, "weight"), cli_number(s, "value"),
                      cli_token(json_object_get(s, "before"), 24),
                      cli_token(json_object_get(s, "token"), 16),
                      cli_token(json_object_get(s, "after"), 24));
    }
    return cli_table_print(&t);
}

static double kept(const json_t *value)
{
    return cli_number(value, "kept");
}

/* ---- the finder ---- */

static const char *const orders[] = {"none", "induction", "previous",  "duplicate",
                                     "sink", "entropy",   "retrieval", NULL};

static kh_status request_find(const cli_args *args, const kh_model *model, const char **words,
                              size_t count, json_t *body)
{
    (void)model;
    if (count > 0) KH_FAIL(KH_ERR_ARGUMENT, "'%s': --find looks at all heads", words[0]);
    json_object_set_new(body, "by", json_string(orders[args->find]));
    json_object_set_new(body, "most", json_integer(args->most));
    if (args->random_tokens) json_object_set_new(body, "random", json_integer(args->random_tokens));
    if (args->key_position >= 0) json_object_set_new(body, "key", json_integer(args->key_position));
    if (args->position >= 0) json_object_set_new(body, "query", json_integer(args->position));
    json_object_del(body, "position");
    return KH_OK;
}

static kh_status show_found(void *context, const cli_args *args, const kh_model *model,
                            const json_t *value)
{
    const json_t *list = json_object_get(value, "heads");
    cli_table t = {0};
    (void)context;
    (void)args;
    (void)model;
    cli_table_row(&t, "head\tinduction\tprevious\tduplicate\tsink\tentropy\tretrieval");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *head = json_array_get(list, i), *s = json_object_get(head, "scores");
        cli_table_row(&t, "%s\t%.4f\t%.4f\t%.4f\t%.4f\t%.3f\t%.4f",
                      json_string_value(json_object_get(head, "part")), cli_number(s, "induction"),
                      cli_number(s, "previous"), cli_number(s, "duplicate"), cli_number(s, "sink"),
                      cli_number(s, "entropy"), cli_number(s, "retrieval"));
    }
    return cli_table_print(&t);
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    const cli_inspection row = {.ask = wire_head,
                                .request = request,
                                .show = show,
                                .figure = kept,
                                .name = "kept share of the softmax"};
    const cli_inspection find = {.ask = wire_find_heads,
                                 .request = request_find,
                                 .show = show_found,
                                 .no_text = args->random_tokens > 0};
    return cli_inspect(args, words, count, args->find ? &find : &row);
}

static const kh_opt finder[] = {
    CLI_CHOICE(
        find, "--find", "SCORE",
        "all heads of the text in the order of a score instead of one head's row: induction, "
        "previous (token), duplicate (token), sink, entropy, retrieval",
        "none", orders, NULL),
    CLI_INT(random_tokens, "--random", "N",
            "the text is N random tokens, said twice: what induction heads copy", "0", 0, 2048,
            NULL),
    CLI_INT(key_position, "--key", "N", "the position that retrieval looks for, from --position",
            "-1", -1, CLI_MOST_CONTEXT, NULL),
    CLI_INT(most, "-k --top", "N", "heads that are listed", "12", 1, 10000, NULL), CLI_END};
static const kh_opt_group groups[] = {{"Model", cli_options_model},
                                      {"Text", cli_options_subject},
                                      {"Question", cli_options_question},
                                      {"Finder", finder},
                                      CLI_READING_GROUPS};

const cli_verb cli_verb_heads = {
    .group = "Look inside",
    .command =
        {.name = "heads",
         .does = "where a head looks, and what it writes; or which heads do what",
         .words = "[MODEL] [HEAD]",
         .most_words = 2,
         .about = "The row of attention that a head computed at a position: the keys that it "
                  "kept with their weights, what each moved, and what the head wrote in the "
                  "vocabulary. With --token also what each key gave to that logit.\n\n--find "
                  "scores all heads on the text by the weights that they computed: on the "
                  "position before, on the first, on earlier ones of the same token "
                  "(duplicate), on those behind them (induction), or on one position "
                  "(retrieval, --key).",
         .example =
             "keyhole heads -m model.gguf L20H3 -p \"The capital of France is\" -a \" Paris\"\n"
             "keyhole heads model.gguf --find induction --random 50",
         .groups = groups},
    .run = run,
};
