/* keyhole search: the neurons, or heads, that write a token, over all layers; neurons and labels by text; neurons in
 * clusters. */
#include "cli/inspecting.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdio.h>
#include <string.h>

static const char *const orders[] = {"logit", "cosine", "rank", NULL};
enum { SHOWN = 8 };
static const char *const ends[] = {"both", "top", "bottom", NULL};

static kh_status request(const cli_args *args, const kh_model *model, const char **words,
                         size_t count, json_t *body)
{
    (void)model;
    if (count == 0) KH_FAIL(KH_ERR_ARGUMENT, "tokens to look for are expected, such as ' Paris'");
    json_t *list = json_array();
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

/* ---- by text ---- */

static kh_status request_text(const cli_args *args, const kh_model *model, const char **words,
                              size_t count, json_t *body)
{
    (void)model;
    if (count) KH_FAIL(KH_ERR_ARGUMENT, "'%s': --text has the words to look for", words[0]);
    json_object_set_new(body, "text", wire_text(args->text, strlen(args->text)));
    json_object_set_new(body, "ends", json_string(ends[args->ends]));
    json_object_set_new(body, "most", json_integer(args->most));
    if (args->dry_run) json_object_set_new(body, "layers", json_integer(0));
    return KH_OK;
}

static void say_cost(const json_t *frame)
{
    char size[32];
    cli_say("top tokens of %.0f neurons are to be found, once: about %.0f s, %s",
            cli_number(frame, "missing"), cli_number(frame, "seconds"),
            cli_bytes(size, sizeof size, (uint64_t)cli_number(frame, "bytes")));
}

static kh_status make_table(void *context, json_t *frame)
{
    const char *type = json_string_value(json_object_get(frame, "type"));
    double layers = cli_number(frame, "layers"), ready = cli_number(frame, "ready");
    (void)context;
    if (!frame) KH_FAIL(KH_ERR_MEMORY, "no memory for the table");
    if (strcmp(type, "cost") == 0 && ready < layers && !cli_quiet) say_cost(frame);
    if (strcmp(type, "layer") == 0) cli_progress(NULL, "layers", (size_t)ready, (size_t)layers);
    if (strcmp(type, "done") == 0) cli_progress_end();
    json_decref(frame);
    return cli_interrupted() ? kh_fail(KH_ERR_STOPPED, "stopped") : KH_OK;
}

/* Makes the table first, where it is not whole. */
static kh_status ask_text(const wire_ask *ask)
{
    wire_ask table = *ask;
    table.sink = (wire_sink){make_table, NULL};
    KH_TRY(wire_search_table(&table));
    return wire_search_text(ask);
}

static const char *some_tokens(kh_buf *out, const json_t *tokens)
{
    for (size_t n = 0; n < json_array_size(tokens) && n < SHOWN; n++)
        if (kh_buf_format(out, "%s ", cli_token(json_array_get(tokens, n), 14)) != KH_OK) break;
    return out->data ? out->data : "";
}

static kh_status show_text(void *context, const cli_args *args, const kh_model *model,
                           const json_t *value)
{
    const json_t *one;
    cli_table t = {.ends_in_text = 1};
    size_t i;
    (void)context;
    (void)args;
    (void)model;
    cli_table_row(&t, "part\tscore\tend\tlabel, or tokens at that end");
    json_array_foreach(json_object_get(value, "labels"), i, one)
        cli_table_row(&t, "%s\t%.3f\tlabel\t%s", json_string_value(json_object_get(one, "part")),
                      cli_number(one, "score"), cli_token(one, 60));
    json_array_foreach(json_object_get(value, "hits"), i, one)
    {
        kh_buf list = {0};
        cli_table_row(&t, "%s\t%.3f\t%s\t%s", json_string_value(json_object_get(one, "part")),
                      cli_number(one, "score"), json_string_value(json_object_get(one, "end")),
                      some_tokens(&list, json_object_get(one, "tokens")));
        kh_buf_free(&list);
    }
    return cli_table_print(&t);
}

static kh_status show_cost(void *context, const cli_args *args, const kh_model *model,
                           const json_t *value)
{
    (void)context;
    (void)args;
    (void)model;
    char size[32];
    if (strcmp(json_string_value(json_object_get(value, "type")), "done") == 0)
        cli_out("%.0f of %.0f layers are ready; %.0f neurons are to be done: about %.0f s, %s\n",
                cli_number(value, "ready"), cli_number(value, "layers"),
                cli_number(value, "missing"), cli_number(value, "seconds"),
                cli_bytes(size, sizeof size, (uint64_t)cli_number(value, "bytes")));
    return KH_OK;
}

static kh_status run_text(cli_args *args, const char **words, size_t count)
{
    char *labels = NULL;
    KH_TRY(cli_labels_path(&labels, args));
    const cli_inspection what = {.ask = args->dry_run ? wire_search_table : ask_text,
                                 .request = request_text,
                                 .show = args->dry_run ? show_cost : show_text,
                                 .no_text = 1,
                                 .labels = labels};
    kh_status status = cli_inspect(args, words, count, &what);
    kh_free(labels);
    return status;
}

/* ---- clusters ---- */

static kh_status request_clusters(const cli_args *args, const kh_model *model, const char **words,
                                  size_t count, json_t *body)
{
    (void)model;
    if (count) KH_FAIL(KH_ERR_ARGUMENT, "'%s': --clusters takes no tokens", words[0]);
    json_object_set_new(body, "clusters", json_integer(args->clusters));
    if (args->layer >= 0) {
        json_object_set_new(body, "first_layer", json_integer(args->layer));
        json_object_set_new(body, "layers", json_integer(1));
    }
    json_object_set_new(body, "rounds", json_integer(args->rounds));
    json_object_set_new(body, "seed", json_integer(args->cluster_seed));
    return KH_OK;
}

static kh_status show_clusters(void *context, const cli_args *args, const kh_model *model,
                               const json_t *value)
{
    const json_t *list = json_object_get(value, "clusters"), *one;
    cli_table t = {.ends_in_text = 1};
    size_t i;
    (void)context;
    (void)model;
    if (!list) {
        cli_progress(NULL, "rounds", (size_t)cli_number(value, "round"), (size_t)args->rounds);
        return cli_interrupted() ? kh_fail(KH_ERR_STOPPED, "stopped") : KH_OK;
    }
    cli_progress_end();
    cli_table_row(&t, "neurons\tcosine\tnearest\ttokens of the centre");
    json_array_foreach(list, i, one)
    {
        kh_buf tokens = {0};
        const json_t *nearest = json_array_get(json_object_get(one, "members"), 0);
        cli_table_row(&t, "%.0f\t%.3f\t%s\t%s", cli_number(one, "size"), cli_number(one, "cosine"),
                      nearest ? json_string_value(json_object_get(nearest, "part")) : "-",
                      some_tokens(&tokens, json_object_get(one, "top")));
        kh_buf_free(&tokens);
    }
    KH_TRY(cli_table_print(&t));
    cli_out("\n%.0f neurons, mean cosine %.4f, %.0f rounds%s\n", cli_number(value, "neurons"),
            cli_number(value, "cosine"), cli_number(value, "rounds"),
            json_is_true(json_object_get(value, "settled")) ? "" : ", not settled");
    return KH_OK;
}

static kh_status run_clusters(cli_args *args, const char **words, size_t count)
{
    const cli_inspection what = {
        .ask = wire_clusters, .request = request_clusters, .show = show_clusters, .no_text = 1};
    return cli_inspect(args, words, count, &what);
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    const cli_inspection what = {
        .ask = wire_search, .request = request, .show = show, .no_text = 1};
    if (args->text && args->clusters)
        KH_FAIL(KH_ERR_ARGUMENT, "--text and --clusters exclude each other");
    if (args->clusters) return run_clusters(args, words, count);
    if (args->text) return run_text(args, words, count);
    if (args->dry_run) KH_FAIL(KH_ERR_ARGUMENT, "--cost: a search for tokens has none; --text has");
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
    CLI_INT(most, "-k --top", "N", "hits of each end; with --text of both", "10", 1, 10000, NULL),
    CLI_END};
static const kh_opt by_text[] = {
    CLI_TEXT(text, "--text", "WORDS",
             "labels, and neurons whose top tokens hold one of these words, by BM25; case and a "
             "space in front make no difference",
             NULL),
    CLI_FLAG(dry_run, "--cost",
             "says what the table of top tokens will cost, which the first --text makes"),
    CLI_TEXT(labels, "--labels", "FILE",
             "where labels are kept, and the table beside them; default: "
             "~/.local/share/keyhole/labels.sqlite",
             NULL),
    CLI_END};
static const kh_opt in_clusters[] = {
    CLI_INT(clusters, "--clusters", "K",
            "all value vectors in K groups that point the same way (spherical k-means)", NULL, 1,
            4096, NULL),
    CLI_INT(layer, "--layer", "N", "of one layer instead of all", "-1", -1, 1 << 16, NULL),
    CLI_INT(rounds, "--rounds", "N", "at most so many", "20", 1, 10000, NULL),
    CLI_INT(cluster_seed, "--seed", "N", "draws the neurons that are the first centres", "1", 0,
            INT64_C(1) << 53, NULL),
    CLI_END};
static const kh_opt_group groups[] = {{"Model", cli_options_model},
                                      {"Search", which},
                                      {"Search by text", by_text},
                                      {"Clusters", in_clusters},
                                      {"Computation", cli_options_compute},
                                      {"Output", cli_options_inspect_output},
                                      CLI_NO_GROUP};

const cli_verb cli_verb_search = {
    .group = "Look inside",
    .command = {.name = "search",
                .does = "which neurons or heads write a token",
                .words = "MODEL [TOKEN...]",
                .most_words = 16,
                .about =
                    "One product of every value vector of every layer with the token's row of the "
                    "output head: exact, and without an index. Of several tokens (a word with and "
                    "without its space) their mean is looked for. --text looks in what people "
                    "labelled and in the twenty tokens at each end of every neuron.",
                .example = "keyhole search model.gguf ' Paris'\n"
                           "keyhole search model.gguf ' happy' ' glad' --by rank --ends top\n"
                           "keyhole search model.gguf --text 'paris rome'\n"
                           "keyhole search model.gguf --clusters 500",
                .groups = groups},
    .run = run,
};
