/* keyhole calibrate: finds what --attn auto means for a file, on a text, and stores it. */
#include "cli/cli.h"

#include "base/fail.h"

#include <string.h>
#include <unistd.h>

enum { ROWS = 64 };

static kh_status print_json(const kh_calibrate_row *rows, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count && list; i++) {
        json_t *one = json_pack("{s:s, s:o, s:o, s:o, s:b}", "attn", rows[i].attn, "ppl",
                                wire_real(rows[i].ppl), "ratio", wire_real(rows[i].ratio),
                                "seconds", wire_real(rows[i].seconds), "chosen", rows[i].chosen);
        if (json_array_append_new(list, one) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    return cli_json_print(json_pack("{s:o}", "results", list));
}

static void print_table(const kh_calibrate_row *rows, size_t count)
{
    cli_table table = {0};
    cli_table_row(&table, "attn\tppl\tto full\tseconds\t");
    for (size_t i = 0; i < count; i++)
        cli_table_row(&table, "%s\t%.4f\t%+.2f %%\t%.2f\t%s", rows[i].attn, rows[i].ppl,
                      100 * (rows[i].ratio - 1), rows[i].seconds, rows[i].chosen ? "<- auto" : "");
    cli_table_print(&table);
}

static kh_status measure(const kh_model *model, const cli_args *args, const int32_t *ids,
                         size_t count)
{
    kh_calibrate_row rows[ROWS];
    size_t row_count = 0;
    kh_calibrate_options options = {.session = cli_session_options(args),
                                    .tokens = (size_t)args->tokens,
                                    .dry_run = args->dry_run,
                                    .progress = cli_progress};
    KH_TRY(cli_out_flush());
    kh_status status = kh_calibrate(model, ids, count, &options, rows, ROWS, &row_count);
    cli_progress_end();
    KH_TRY(status);
    if (row_count > ROWS) row_count = ROWS;
    if (args->json) return print_json(rows, row_count);
    print_table(rows, row_count);
    if (!cli_quiet && !args->dry_run)
        cli_say("stored for the file with the identity %s", kh_model_get_info(model)->identity);
    return KH_OK;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    cli_take_model(args, &words, &count);
    if (args->model && !count && !args->file && isatty(STDIN_FILENO))
        KH_FAIL(KH_ERR_ARGUMENT, "no text was named: give a long one with -f FILE");
    kh_model *model = NULL;
    int32_t *ids = NULL;
    size_t id_count = 0;
    kh_status status = cli_model_open(&model, args, 0);
    if (status == KH_OK)
        status = cli_text_ids(model, args, count ? words[0] : NULL, &ids, &id_count);
    if (status == KH_OK) status = measure(model, args, ids, id_count);
    kh_free_ids(ids);
    kh_model_close(model);
    return status;
}

static const kh_opt input[] = {
    CLI_TEXT(file, "-f --file", "FILE", "a text like those that will be read", NULL),
    CLI_INT(tokens, "--tokens", "N",
            "length to calibrate at; 0 is the trained length, at most 8192", "0", 0,
            CLI_MOST_CONTEXT, NULL),
    CLI_FLAG(dry_run, "--dry-run", "measures and stores nothing"), CLI_END};
static const kh_opt_group groups[] = {{"Model", cli_options_model},
                                      {"Text", input},
                                      {"Computation", cli_options_compute},
                                      {"Output", cli_options_output},
                                      CLI_NO_GROUP};

const cli_verb cli_verb_calibrate = {
    .group = "Measure",
    .command = {.name = "calibrate",
                .does = "finds the setting that --attn auto means for a file",
                .words = "[MODEL] [FILE]",
                .most_words = 2,
                .about = "Reads a text with each candidate setting and stores, under the file's "
                         "identity, the one with the shortest prompt time among those within 2 % "
                         "of the perplexity of full attention. --attn auto then means it.",
                .example = "keyhole calibrate -m model.gguf -f novel.txt",
                .groups = groups},
    .run = run,
};
