/* keyhole trace: chosen points of the forward pass of a text, in a folder that describes itself. */
#include "cli/cli.h"
#include "wire/subject.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <string.h>

static kh_status read_subject(wire_subject *out, const kh_model *model, const cli_args *args)
{
    kh_buf text = {0};
    json_t *body = json_object(), *edits = json_array();
    kh_status status = cli_read_text(&text, args, NULL);
    if (status == KH_OK) json_object_set_new(body, "prompt", wire_text(text.data, text.size));
    kh_buf_free(&text);
    if (args->template) json_object_set_new(body, "template", json_true());
    for (size_t i = 0; i < args->edits.count; i++)
        json_array_append_new(edits, wire_text(args->edits.items[i], strlen(args->edits.items[i])));
    json_object_set_new(body, "edits", edits);
    if (status == KH_OK) status = wire_subject_read(out, model, body);
    json_decref(body);
    return status;
}

/* All of --point, with commas between. */
static kh_status read_points(kh_trace_point **out, size_t *count, const kh_model *model,
                             const cli_args *args)
{
    kh_buf names = {0};
    kh_status status = kh_buf_text(&names, "");
    for (size_t i = 0; i < args->points.count && status == KH_OK; i++) {
        status = kh_buf_text(&names, args->points.items[i]);
        if (status == KH_OK) status = kh_buf_text(&names, ",");
    }
    if (status == KH_OK && args->points.count == 0)
        status = kh_fail(KH_ERR_ARGUMENT, "--points NAMES is expected, such as resid_post.12");
    if (status == KH_OK) status = kh_trace_points_parse(out, count, model, names.data);
    kh_buf_free(&names);
    return status;
}

static kh_status report(const cli_args *args, const kh_trace_need *need)
{
    char bytes[32];
    cli_bytes(bytes, sizeof bytes, need->bytes);
    if (args->json)
        return cli_json_print(json_pack(
            "{s:I, s:f, s:I, s:I, s:o}", "bytes", (json_int_t)need->bytes, "operations",
            need->operations, "rows", (json_int_t)need->rows, "points", (json_int_t)need->points,
            "folder", args->dry_run ? json_null() : json_string(args->output)));
    if (args->dry_run)
        cli_out("%zu points, %zu rows: up to %s, %.3g operations\n", need->points, need->rows,
                bytes, need->operations);
    else if (!args->quiet)
        cli_say("%s: %zu points of %zu rows, at most %s", args->output, need->points, need->rows,
                bytes);
    return KH_OK;
}

static kh_status trace(const cli_args *args, kh_inspector *inspector, const kh_model *model)
{
    kh_trace_need need = {0};
    kh_trace_options o = {.first = (size_t)args->first,
                          .rows = (size_t)args->count,
                          .limit = (uint64_t)args->limit << 20};
    kh_trace_point *points = NULL;
    wire_subject s;
    KH_TRY(read_subject(&s, model, args));
    kh_status status = kh_inspector_set(inspector, s.ids, s.count, s.prompt, s.edits, s.edit_count);
    wire_subject_free(&s);
    if (status == KH_OK) status = read_points(&points, &o.count, model, args);
    o.points = points;
    if (status == KH_OK)
        status = args->dry_run ? kh_trace_cost(inspector, &o, &need)
                               : kh_trace_write(inspector, &o, args->output, &need);
    kh_trace_points_free(points);
    return status == KH_OK ? report(args, &need) : status;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    kh_model *model = NULL;
    kh_inspector *inspector = NULL;
    cli_take_model(args, &words, &count);
    if (!args->output && !args->dry_run)
        KH_FAIL(KH_ERR_ARGUMENT, "-o FOLDER is expected (or --cost)");
    KH_TRY(cli_model_open(&model, args, 0));
    kh_session_options options = cli_session_options(args);
    options.attn = args->attn;
    cli_explain_auto(model, args, args->attn);
    kh_status status = kh_inspector_open(&inspector, model, &options);
    cli_signals_inspector(inspector);
    if (status == KH_OK) status = trace(args, inspector, model);
    cli_signals_inspector(NULL);
    kh_inspector_close(inspector);
    kh_model_close(model);
    return status;
}

static const kh_opt text[] = {
    CLI_TEXT(prompt, "-p --prompt", "TEXT", "the text", NULL),
    CLI_TEXT(file, "-f --file", "FILE", "reads it from a file, or from standard input (-)", NULL),
    CLI_FLAG(template, "--template", "the text is a user's message in the model's chat template"),
    CLI_TEXTS(edits, "--edit", "EDIT", "reads it under an edit; may be given again"), CLI_END};
static const kh_opt which[] = {
    CLI_TEXTS(points, "--points", "NAME,...",
              "embeddings, resid_pre, attn_in, q, k, value, z, attn_out, attn_out_post, resid_mid, "
              "mlp_in, mlp_pre, mlp_pre_linear, mlp_act, mlp_out, mlp_out_post, resid_post, "
              "attn_rows, with .12 or .3-5 behind (without: all layers), final_norm, logits; "
              "TransformerLens' names where they mean the same"),
    CLI_INT(first, "--first", "N", "from this position on", "0", 0, CLI_MOST_CONTEXT, NULL),
    CLI_INT(count, "--count", "N", "this many positions; 0: to the end", "0", 0, CLI_MOST_CONTEXT,
            NULL),
    CLI_INT(limit, "--limit", "MB", "refuses what may need more, before anything is computed",
            "1024", 1, 1 << 24, NULL),
    CLI_FLAG(dry_run, "--cost", "computes nothing: says what it would need"),
    CLI_TEXT(output, "-o --output", "FOLDER", "where trace.json and trace.safetensors go", NULL),
    CLI_END};
static const kh_opt output[] = {CLI_FLAG(json, "--json", "prints the cost as an object"),
                                CLI_FLAG(quiet, "-q --quiet", "nothing on standard error"),
                                CLI_END};
static const kh_opt_group groups[] = {{"Model", cli_options_model},
                                      {"Text", text},
                                      {"Trace", which},
                                      {"Attention", cli_options_attn},
                                      {"Feed-forward", cli_options_ff},
                                      {"Context", cli_options_context},
                                      {"Computation", cli_options_compute},
                                      {"Output", output},
                                      CLI_NO_GROUP};

const cli_verb cli_verb_trace = {
    .group = "Look inside",
    .command =
        {.name = "trace",
         .does = "writes activations to a file",
         .words = "[MODEL]",
         .most_words = 1,
         .about =
             "Reads a text and keeps chosen points of the forward pass: trace.json says what "
             "was read how, trace.safetensors has the arrays, a row for each position. Rows of "
             "attention are sparse: the keys that were attended to, their weights, and with "
             "--stats the kept mass. What it needs is estimated first, and refused beyond "
             "--limit.",
         .example = "keyhole trace -m model.gguf -p \"The capital of France is\" --points "
                    "resid_post,attn_rows.3 -o run1\n"
                    "keyhole trace model.gguf -f book.txt --points mlp_act --cost",
         .groups = groups},
    .run = run,
};
