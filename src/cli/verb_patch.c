/* keyhole patch: which activation of one prompt makes another prompt answer like it. */
#include "cli/inspecting.h"

#include "base/fail.h"

#include <string.h>

static json_t *list_json(const kh_opt_texts *texts)
{
    json_t *list = json_array();
    for (size_t i = 0; i < texts->count; i++)
        for (const char *at = texts->items[i]; *at;) {
            size_t n = strcspn(at, ",");
            json_array_append_new(list, wire_text(at, n));
            at += n + (at[n] == ',');
        }
    return list;
}

static kh_status request(const cli_args *args, const kh_model *model, const char **words,
                         size_t count, json_t *body)
{
    static const char *const inputs[] = {"all", "q", "k", "v"};
    (void)model;
    (void)words;
    (void)count;
    if (!args->prompt_lines && (!args->clean || !args->corrupted))
        KH_FAIL(KH_ERR_ARGUMENT, "--clean TEXT and --corrupted TEXT are expected");
    if (args->clean)
        json_object_set_new(body, "clean", wire_text(args->clean, strlen(args->clean)));
    if (args->corrupted)
        json_object_set_new(body, "corrupted", wire_text(args->corrupted, strlen(args->corrupted)));
    if (args->kinds.count) json_object_set_new(body, "kinds", list_json(&args->kinds));
    if (args->alone) json_object_set_new(body, "alone", json_true());
    if (args->dry_run) json_object_set_new(body, "cost_only", json_true());
    if (args->attribution) json_object_set_new(body, "attribution", json_true());
    if (args->check) json_object_set_new(body, "check", json_true());
    json_object_set_new(body, "first_layer", json_integer(args->first_layer));
    json_object_set_new(body, "layers", json_integer(args->layers));
    if (!args->receiver) return KH_OK;
    json_object_set_new(body, "to", wire_text(args->receiver, strlen(args->receiver)));
    json_object_set_new(body, "input", json_string(inputs[args->input]));
    return KH_OK;
}

typedef struct seen {
    size_t first;
    json_t *clean, *corrupted; /* tokens */
    char kind[16];
    int estimate; /* of the rows under the last heading */
} seen;

static void print_meta(seen *s, const json_t *meta)
{
    const json_t *clean = json_object_get(meta, "clean"),
                 *corrupted = json_object_get(meta, "corrupted"),
                 *cost = json_object_get(meta, "cost");
    const json_t *a = json_object_get(meta, "a"), *b = json_object_get(meta, "b");
    s->first = (size_t)cli_number(meta, "first");
    s->clean = json_incref(json_object_get(clean, "tokens"));
    s->corrupted = json_incref(json_object_get(corrupted, "tokens"));
    cli_out("logit(%s)", cli_token(a, 20));
    if (json_is_object(b)) cli_out(" - logit(%s)", cli_token(b, 20));
    if (isfinite(cli_number(clean, "value")))
        cli_out(": clean %.4f, corrupted %.4f", cli_number(clean, "value"),
                cli_number(corrupted, "value"));
    cli_out("\n%d positions differ, the first is %zu; ", (int)cli_number(meta, "differing"),
            s->first);
    if (json_is_true(json_object_get(meta, "estimate")))
        cli_out("%.0f cells are estimated from one backward pass: %.0f rows and at most %.1f MB; "
                "the exact sweep reads %.0f rows\n",
                cli_number(cost, "cells"), cli_number(cost, "rows"),
                cli_number(cost, "bytes") / 1e6,
                cli_number(json_object_get(meta, "exact_cost"), "rows"));
    else
        cli_out("%.0f cells read %.0f rows instead of %.0f\n", cli_number(cost, "cells"),
                cli_number(cost, "rows"), cli_number(cost, "full_rows"));
    if (json_is_string(json_object_get(meta, "to")))
        cli_out("paths from heads to %s\n", json_string_value(json_object_get(meta, "to")));
}

static void print_heading(seen *s, const json_t *row, size_t columns)
{
    const char *kind = json_string_value(json_object_get(row, "kind"));
    int heads = strcmp(kind, "heads") == 0;
    int estimate = json_is_true(json_object_get(row, "estimate"));
    if (strcmp(kind, s->kind) == 0 && estimate == s->estimate) return;
    snprintf(s->kind, sizeof s->kind, "%s", kind);
    s->estimate = estimate;
    cli_out("\n%s%s: 0 as corrupted, 1 as clean\nlayer", kind, estimate ? ", estimated" : "");
    for (size_t c = 0; c < columns; c++) cli_out("%8zu", heads ? c : s->first + c);
    cli_out("\n");
    if (heads) return;
    cli_out("     ");
    for (size_t c = 0; c < columns; c++) {
        const char *text = cli_token(json_array_get(s->corrupted, s->first + c), 6);
        size_t shown = 0;
        for (size_t i = 0; text[i]; i++) shown += (text[i] & 0xc0) != 0x80;
        cli_out("%*s%s", shown < 8 ? (int)(8 - shown) : 0, "", text);
    }
    cli_out("\n");
}

static void print_check(const json_t *check)
{
    const json_t *list = json_object_get(check, "agreement");
    if (!check) return;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        cli_out("%s%-9s correlation %.3f over %.0f cells, off by at most %.3f\n", i ? "" : "\n",
                json_string_value(json_object_get(one, "kind")), cli_number(one, "correlation"),
                cli_number(one, "cells"), cli_number(one, "largest"));
    }
    cli_out("estimated in %.2f s, patched in %.2f s\n", cli_number(check, "estimate_seconds"),
            cli_number(check, "exact_seconds"));
}

static kh_status show(void *context, const cli_args *args, const kh_model *model,
                      const json_t *value)
{
    const char *type = json_string_value(json_object_get(value, "type"));
    const json_t *shares = json_object_get(value, "shares");
    seen *s = context;
    (void)args;
    (void)model;
    if (strcmp(type, "meta") == 0) print_meta(s, value);
    if (strcmp(type, "row") == 0) {
        print_heading(s, value, json_array_size(shares));
        cli_out("%5d", (int)cli_number(value, "layer"));
        for (size_t c = 0; c < json_array_size(shares); c++)
            cli_out("%8.3f", json_number_value(json_array_get(shares, c)));
        cli_out("\n");
        return cli_row_done();
    }
    if (strcmp(type, "done") != 0) return KH_OK;
    const json_t *list = json_object_get(value, "strongest");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *cell = json_array_get(list, i);
        const json_t *position = json_object_get(cell, "position");
        cli_out("%s%-11s%s", i ? "" : "\n", i ? "" : "strongest",
                json_string_value(json_object_get(cell, "part")));
        if (json_is_integer(position)) {
            size_t p = (size_t)json_integer_value(position);
            cli_out(" at %zu (%s)", p, cli_token(json_array_get(s->corrupted, p), 20));
        }
        cli_out("  %.3f\n", cli_number(cell, "share"));
    }
    print_check(json_object_get(value, "check"));
    return KH_OK;
}

/* The strongest share, by which files of pairs are summed up. */
static double strongest(const json_t *value)
{
    return cli_number(json_array_get(json_object_get(value, "strongest"), 0), "share");
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    seen s = {0};
    const cli_inspection what = {.ask = wire_patch,
                                 .request = request,
                                 .show = show,
                                 .context = &s,
                                 .no_text = 1,
                                 .figure = strongest,
                                 .name = "share of the strongest cell"};
    kh_status status = cli_inspect(args, words, count, &what);
    json_decref(s.clean);
    json_decref(s.corrupted);
    return status;
}

static const char *const inputs[] = {"all", "q", "k", "v", NULL}; /* as kh_patch_input */
static const kh_opt prompts[] = {
    CLI_TEXT(clean, "--clean", "TEXT", "the prompt whose activations are written", NULL),
    CLI_TEXT(corrupted, "--corrupted", "TEXT",
             "the prompt into which they are written: as many tokens, aligned one by one", NULL),
    CLI_FLAG(template, "--template", "both are users' messages in the model's chat template"),
    CLI_TEXTS(edits, "--edit", "EDIT", "reads both under an edit; may be given again"),
    CLI_TEXT(edit_file, "--edit-file", "FILE", "edits from a file of JSON", NULL),
    CLI_TEXT(prompt_lines, "--prompts", "FILE",
             "sweeps for every line of a file: {\"clean\": \"...\", \"corrupted\": \"...\"}", NULL),
    CLI_END};
static const kh_opt which[] = {
    CLI_TEXT(token_a, "-a --token", "TOKEN",
             "the metric is its logit ...; without it: what the clean prompt says", NULL),
    CLI_TEXT(token_b, "-b --against", "TOKEN",
             "... less the logit of this one; without it: what the corrupted prompt says", NULL),
    CLI_FLAG(alone, "--alone", "the logit of one token, not a difference"),
    CLI_TEXTS(kinds, "--what", "KIND,...",
              "what is written: pre (the default), mid, post (the stream), attn_out, mlp_out, each "
              "at every position, and heads"),
    CLI_INT(position, "--position", "N", "of heads: one position; by default all at once", "-1", -1,
            CLI_MOST_CONTEXT, NULL),
    CLI_INT(first_layer, "--first-layer", "N", "from this layer on", "0", 0, 511, NULL),
    CLI_INT(layers, "--layers", "N", "this many layers; 0: all", "0", 0, 512, NULL),
    CLI_TEXT(receiver, "--to", "PART|logits",
             "path patching: every head below sends to this one (L9H6), to a feed-forward layer "
             "(9_mlp_out) or straight to the logits, while all other heads stay as corrupted",
             NULL),
    CLI_CHOICE(input, "--input", "all|q|k|v", "of a receiving head: which of its inputs", "all",
               inputs, NULL),
    CLI_FLAG(attribution, "--attribution",
             "attribution patching: estimates every cell to first order from one backward pass"),
    CLI_FLAG(check, "--check", "of --attribution: the exact sweep too, and how both agree"),
    CLI_FLAG(dry_run, "--cost", "computes nothing: says what it would cost"),
    CLI_END};
static const kh_opt_group groups[] = {{"Model", cli_options_model},
                                      {"Prompts", prompts},
                                      {"Sweep", which},
                                      {"Attention", cli_options_attn},
                                      {"Feed-forward", cli_options_ff},
                                      {"Context", cli_options_context},
                                      {"Computation", cli_options_compute},
                                      {"Output", cli_options_inspect_output},
                                      CLI_NO_GROUP};

const cli_verb cli_verb_patch = {
    .group = "Look inside",
    .command =
        {.name = "patch",
         .does = "which activation of one prompt makes another answer like it",
         .words = "[MODEL]",
         .most_words = 1,
         .about =
             "Writes activations of the clean prompt into the corrupted one, one at a time, and "
             "says how far logit(A) - logit(B) at the last position moves: 0 is the corrupted "
             "run, 1 the clean one. Both prompts need as many tokens. What lies before a patch "
             "is not read again.",
         .example =
             "keyhole patch -m model.gguf --clean \"The capital of France is\" --corrupted \"The "
             "capital of Italy is\" -a \" Paris\" -b \" Rome\" --what pre,attn_out,heads\n"
             "keyhole patch model.gguf --clean \"...\" --corrupted \"...\" --to logits\n"
             "keyhole patch model.gguf --clean \"...\" --corrupted \"...\" --attribution --check",
         .groups = groups},
    .run = run,
};
