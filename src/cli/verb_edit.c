/* keyhole edit: a prompt continued twice, as the model is and with parts of it changed; or the changes kept as a
 * file. */
#include "cli/inspecting.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <string.h>

static kh_status request(const cli_args *args, const kh_model *model, const char **words,
                         size_t count, json_t *body)
{
    (void)model;
    (void)words;
    (void)count;
    if (json_array_size(json_object_get(body, "edits")) == 0 && !args->prompt_lines &&
        !args->vectors.count)
        KH_FAIL(KH_ERR_ARGUMENT, "at least one --edit is expected, such as --edit L12H3:zero");
    json_object_set_new(body, "max_tokens", json_integer(args->predict));
    json_object_set_new(body, "temperature", json_real(args->temp));
    json_object_set_new(body, "top_k", json_integer(args->top_k));
    json_object_set_new(body, "top_p", json_real(args->top_p));
    json_object_set_new(body, "min_p", json_real(args->min_p));
    json_object_set_new(body, "seed", json_integer(args->seed));
    return KH_OK;
}

typedef struct seen {
    kh_buf kl;
} seen;

static kh_status show(void *context, const cli_args *args, const kh_model *model,
                      const json_t *value)
{
    const char *type = json_string_value(json_object_get(value, "type"));
    seen *s = context;
    (void)args;
    (void)model;
    if (strcmp(type, "compared") == 0) {
        const json_t *base = json_object_get(value, "base_top"),
                     *edited = json_object_get(value, "edited_top");
        return kh_buf_format(&s->kl, "%6d  %8.4f  %-16s %.3f  %-16s %.3f\n",
                             (int)cli_number(value, "position"), cli_number(value, "kl"),
                             cli_token(base, 16), cli_number(base, "probability"),
                             cli_token(edited, 16), cli_number(edited, "probability"));
    }
    if (strcmp(type, "done") != 0) return KH_OK;
    const json_t *divergence = json_object_get(value, "divergence");
    cli_out("base   %s\n",
            json_string_value(json_object_get(json_object_get(value, "base"), "text")));
    cli_out("edited %s\n\n",
            json_string_value(json_object_get(json_object_get(value, "edited"), "text")));
    if (json_is_integer(divergence))
        cli_out("first difference: token %d\n", (int)json_integer_value(divergence));
    else
        cli_out("no difference\n");
    cli_out("\n   pos   KL nats  base says               edited says\n%s",
            s->kl.data ? s->kl.data : "");
    return KH_OK;
}

/* Whether the answers differ at all. */
static double differs(const json_t *value)
{
    const char *type = json_string_value(json_object_get(value, "type"));
    if (!type || strcmp(type, "done") != 0) return (double)NAN;
    return json_is_integer(json_object_get(value, "divergence"));
}

static kh_status save(cli_args *args, const char **words, size_t count)
{
    kh_model *model = NULL;
    kh_edit *edits = NULL;
    size_t touched = 0;
    cli_take_model(args, &words, &count);
    KH_TRY(cli_model_open(&model, args, 0));
    kh_status status = kh_new(&edits, args->edits.count + 1, sizeof *edits, "edits");
    for (size_t i = 0; i < args->edits.count && status == KH_OK; i++)
        status = kh_edit_parse(&edits[i], model, args->edits.items[i]);
    if (status == KH_OK)
        status = kh_edits_save(model, edits, args->edits.count, args->save, &touched);
    if (status == KH_OK && !args->quiet)
        cli_say("%s: written, %zu tensors changed", args->save, touched);
    kh_free(edits);
    kh_model_close(model);
    return status;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    seen s = {0};
    const cli_inspection what = {.ask = wire_edit,
                                 .request = request,
                                 .show = show,
                                 .context = &s,
                                 .figure = differs,
                                 .name = "share of answers that differ"};
    if (args->save) return save(args, words, count);
    kh_status status = cli_inspect(args, words, count, &what);
    kh_buf_free(&s.kl);
    return status;
}

static const kh_opt which[] = {
    CLI_INT(predict, "-n --n-predict", "N", "tokens of both answers", "20", 1, 4096, NULL),
    CLI_REAL(temp, "--temp", "X", "temperature; 0 takes the most probable token", "0", 0, 100),
    CLI_INT(top_k, "--top-k", "N", "sampling: the k best", "40", 0, 1 << 20, NULL),
    CLI_REAL(top_p, "--top-p", "X", "sampling: the best that hold this share", "0.95", 0, 1),
    CLI_REAL(min_p, "--min-p", "X", "sampling: those of at least this share of the best", "0.05", 0,
             1),
    CLI_INT(seed, "-s --seed", "N", "of both answers", "1", 0, 1ll << 53, NULL),
    CLI_TEXT(save, "--save", "FILE",
             "no answers: writes the model with the edits as weights (scale and zero of neurons, "
             "heads and "
             "layers, project of a stream)",
             NULL),
    CLI_END};
static const kh_opt_group groups[] = {{"Model", cli_options_model},
                                      {"Text", cli_options_subject},
                                      {"Answers", which},
                                      CLI_READING_GROUPS};

const cli_verb cli_verb_edit = {
    .group = "Look inside",
    .command = {.name = "edit",
                .does = "changes parts of a model and shows what it says then",
                .words = "[MODEL]",
                .most_words = 1,
                .about =
                    "Continues a prompt twice with the same sampler and seed, as the model is and "
                    "under the edits, and says where the answers part and how far the edited text "
                    "was from what the model would have said (KL per token).\n\n"
                    "An edit is PART:OPERATION[@POSITIONS][/STEPS]. Parts: L12N345 (neuron), L5H3 "
                    "(head), L5H3K17 (its weight on key 17), 5_attn_out, 5_mlp_out, 5_pre, 5_mid, "
                    "5_post (the stream), embed. Operations: zero, scale=X, set=X, add=X (of a "
                    "stream: add=X*\" token\"), clamp=A..B, mean, swap=PART, project=\" token\", "
                    "compat=1|0 and exact=1|-1 (LM-Debugger's switches). Positions: 3, 0-5, 7-, "
                    "last; steps: 0 is the prompt, n the n-th token that is generated.",
                .example =
                    "keyhole edit -m model.gguf -p \"The capital of France is\" --edit L23H4:zero\n"
                    "keyhole edit model.gguf -p \"I feel\" --edit '20_post:add=8*\" happy\"/1-'\n"
                    "keyhole edit model.gguf --edit 12_mlp_out:scale=0.5 --save quieter.gguf",
                .groups = groups},
    .run = run,
};
