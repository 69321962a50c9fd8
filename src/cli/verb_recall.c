/* keyhole bench recall: facts planted in a long text, completed under each attention setting.
 *
 * --demo is the main job of the program, with its settings and its words. The settings of the demo
 * are chosen to be compared: full attention; a window with sinks that has the same 64 keys as the
 * top-k after it; a top-k that leaves the first layers full, adapts its budget to the row and
 * estimates what it dropped; the setting that calibration found; and no document at all, which shows
 * that the answers come from the text. Rows that fail are printed like the others. */
#include "cli/cli.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DEMO_TEXT "examples/persuasion.txt"
static const char *const demo_attns[] = {"full",      "window:recent=60,sinks=4",
                                         "topk:k=64", "0-1=full;2-=topk:k=128,min-p=0.01,tail=mean",
                                         "auto",      "none"};
static const char *const usual_attns[] = {"full", "topk:k=64", "none"};

static void print_table(const kh_recall_result *results, size_t count)
{
    cli_table table = {0};
    cli_table_row(&table, "attention\treading\tanswering\tpeak\trecalled\tperplexity\tKL to full\t"
                          "same token\tkeys");
    for (size_t i = 0; i < count; i++) {
        const kh_recall_result *r = results + i;
        char peak[32], read[32] = "-", ppl[32] = "-", kl[32] = "-", same[32] = "-", keys[32] = "-";
        if (r->tokens > 0 && strcmp(r->attn, "none") != 0) {
            snprintf(read, sizeof read, "%.1f s", r->read_seconds);
            snprintf(ppl, sizeof ppl, "%.2f", r->ppl);
            snprintf(kl, sizeof kl, i ? "%.4f" : "-", r->kl);
            snprintf(same, sizeof same, i ? "%.1f %%" : "-", 100 * r->same_top1);
            snprintf(keys, sizeof keys, "%.1f", r->keys_kept);
        }
        cli_table_row(&table, "%s\t%s\t%.1f/s\t%s\t%d of %d\t%s\t%s\t%s\t%s", r->attn, read,
                      r->answer_tokens_per_second, cli_bytes(peak, sizeof peak, r->peak_bytes),
                      r->recalled, r->facts, ppl, kl, same, keys);
    }
    cli_table_print(&table);
}

static void one_line(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20) *text = ' ';
}

/* The facts as the best reader among the sparse settings recalled them. */
static void print_facts(kh_recall_result *r, int all)
{
    for (int i = 0; i < r->facts && i < 16; i++) {
        kh_recall_fact *fact = r->fact + i;
        const kh_fact *planted = (size_t)i < kh_fact_count() ? kh_fact_at((size_t)i) : NULL;
        one_line(fact->said);
        one_line(fact->read);
        if (!fact->recalled && !all) continue;
        cli_out("  %-4s at %3.0f %%  \"%s\" ->%s%s\n", fact->recalled ? "yes" : "no",
                100 * (double)fact->depth, planted ? planted->cue : "?",
                fact->said[0] == ' ' ? "" : " ", fact->said);
        if (fact->layer >= 0)
            cli_out("       layer %d head %d read, with weight %.2f: ...%s...\n", fact->layer,
                    fact->head, (double)fact->weight, fact->read);
    }
}

static const kh_recall_result *chosen_row(const kh_recall_result *results, size_t count)
{
    const kh_recall_result *best = NULL;
    for (size_t i = 0; i < count; i++)
        if (strcmp(results[i].attn, "none") != 0 && strcmp(results[i].attn, "full") != 0 &&
            (!best || results[i].recalled > best->recalled))
            best = results + i;
    return best ? best : results;
}

static const kh_recall_result *row_of(const kh_recall_result *results, size_t count,
                                      const char *attn)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(results[i].attn, attn) == 0) return results + i;
    return NULL;
}

static void print_demo_end(const cli_args *args, const kh_recall_result *results, size_t count)
{
    const kh_recall_result *window = row_of(results, count, demo_attns[1]);
    const kh_recall_result *topk = row_of(results, count, demo_attns[2]);
    cli_out(
        "\nWhat this shows: a model of this size retrieves a sentence that it has read; it does "
        "not\nunderstand the novel.");
    if (window && topk)
        cli_out(" With the same 64 keys a window recalled %d and top-k %d of %d facts:\na window "
                "holds the last keys, top-k scores every key exactly and keeps the best.",
                window->recalled, topk->recalled, topk->facts);
    cli_out("\nWhat the dropped keys were worth stands in the columns perplexity, KL and same "
            "token.\nAll figures were measured in this run (a document of %zu tokens, %s).\n",
            results->tokens, kh_instruction_set());
    cli_out("\nNext:\n"
            "  your own model      ./keyhole chat -m YOUR.gguf\n"
            "  your own document   ./keyhole ask -m %s -f YOUR.txt \"a question\" --sources\n"
            "  everything else     ./keyhole --help\n",
            args->model);
}

static json_t *facts_json(const kh_recall_result *r)
{
    json_t *list = json_array();
    for (int i = 0; i < r->facts && i < 16 && list; i++) {
        const kh_recall_fact *f = r->fact + i;
        json_t *one = json_pack("{s:b, s:o, s:o, s:i, s:i, s:o, s:o}", "recalled", f->recalled,
                                "depth", wire_real((double)f->depth), "said",
                                wire_text(f->said, strlen(f->said)), "layer", f->layer, "head",
                                f->head, "weight", wire_real((double)f->weight), "read",
                                wire_text(f->read, strlen(f->read)));
        if (json_array_append_new(list, one) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

static kh_status print_json(const kh_recall_result *results, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count && list; i++) {
        const kh_recall_result *r = results + i;
        json_t *one = json_pack(
            "{s:s, s:I, s:o, s:o, s:i, s:i, s:o, s:o, s:o, s:o, s:I, s:o}", "attn", r->attn,
            "tokens", (json_int_t)r->tokens, "read_seconds", wire_real(r->read_seconds),
            "tokens_per_second", wire_real(r->answer_tokens_per_second), "recalled", r->recalled,
            "facts", r->facts, "ppl", wire_real(r->ppl), "kl", wire_real(r->kl), "same_top1",
            wire_real(r->same_top1), "keys_kept", wire_real(r->keys_kept), "peak_bytes",
            (json_int_t)r->peak_bytes, "planted", facts_json(r));
        if (json_array_append_new(list, one) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    return cli_json_print(json_pack("{s:o}", "results", list));
}

static void print_results(const cli_args *args, kh_recall_result *results, size_t count)
{
    const kh_recall_result *row = chosen_row(results, count);
    kh_recall_result *shown = results + (row - results);
    print_table(results, count);
    cli_out("\n%s recalled:\n", shown->attn);
    print_facts(shown, 1);
    if (args->demo) print_demo_end(args, results, count);
}

static kh_status measure(const kh_model *model, const cli_args *args, const kh_buf *text)
{
    const char *const *usual = args->demo ? demo_attns : usual_attns;
    size_t usual_count = args->demo ? sizeof demo_attns / sizeof *demo_attns
                                    : sizeof usual_attns / sizeof *usual_attns;
    kh_opt_texts attns = cli_attns(args, usual, usual_count);
    kh_recall_options options = {.session = cli_session_options(args),
                                 .attns = (const char *const *)attns.items,
                                 .attn_count = attns.count,
                                 .tokens = (size_t)args->tokens,
                                 .answer_tokens = (size_t)args->predict,
                                 .isolate = 1,
                                 .progress = cli_progress};
    kh_recall_result *results = NULL;
    KH_TRY(kh_new(&results, attns.count, sizeof *results, "the results"));
    if (args->demo && !args->json)
        cli_out("%zu facts of one sentence each are planted at even depths in %zu tokens of a "
                "novel.\nFor each attention setting the text is read once; then every fact is "
                "completed from its first words.\n\n",
                kh_fact_count(), args->tokens ? (size_t)args->tokens : (size_t)6000);
    for (size_t i = 0; i < attns.count; i++) cli_explain_auto(model, args, attns.items[i]);
    kh_status status = cli_out_flush();
    if (status == KH_OK) status = kh_recall(model, text->data, text->size, &options, results);
    cli_progress_end();
    if (status == KH_OK && args->json)
        status = print_json(results, attns.count);
    else if (status == KH_OK)
        print_results(args, results, attns.count);
    kh_free(results);
    return status;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    cli_take_model(args, &words, &count);
    if (count) {
        if (args->file) KH_FAIL(KH_ERR_ARGUMENT, "'%s': one argument too many", words[0]);
        args->file = words[0];
    }
    if (args->model && !args->file && access(DEMO_TEXT, R_OK) != 0)
        KH_FAIL(KH_ERR_ARGUMENT,
                "no text was named: give a long one with -f FILE (the novel of the "
                "demo is " DEMO_TEXT ", seen from the project's folder)");
    if (!args->file) args->file = DEMO_TEXT;
    kh_model *model = NULL;
    kh_buf text = {0};
    kh_status status = cli_model_open(&model, args, 0);
    if (status == KH_OK) status = cli_read_text(&text, args, NULL);
    if (status == KH_OK) status = measure(model, args, &text);
    kh_buf_free(&text);
    kh_model_close(model);
    return status;
}

static const kh_opt input[] = {
    CLI_TEXT(file, "-f --file", "FILE", "the long text (default: " DEMO_TEXT ")", NULL),
    CLI_INT(tokens, "--tokens", "N", "length of the document in tokens; 0 is 6000", "0", 0,
            CLI_MOST_CONTEXT, NULL),
    CLI_INT(predict, "-n --n-predict", "N", "tokens of each completion", "8", 1, 64, NULL),
    CLI_FLAG(longer, "--longer", "allows a document beyond the model's trained length"),
    CLI_FLAG(demo, "--demo", "the settings and the words of make demo"),
    CLI_END};
static const kh_opt output[] = {CLI_FLAG(json, "--json", "prints {results: [...]}"),
                                CLI_FLAG(quiet, "-q --quiet",
                                         "no notes or progress on standard "
                                         "error"),
                                CLI_END};
static const kh_opt_group groups[] = {
    {"Model", cli_options_model},         {"Document", input}, {"Attention", cli_options_attns},
    {"Computation", cli_options_compute}, {"Output", output},  CLI_NO_GROUP};

const cli_verb cli_verb_recall = {
    .group = "Measure",
    .command = {.name = "bench recall",
                .does = "facts planted in a long text: which settings remember them",
                .words = "[MODEL] [FILE]",
                .most_words = 2,
                .about =
                    "Plants facts of one sentence at even depths in a long text, reads it once per "
                    "attention setting, and completes each fact greedily. Prints what was "
                    "recalled, what it cost in perplexity, KL divergence and equal next tokens "
                    "against the first setting, the time and the memory; then, for each fact, the "
                    "head that read it, what it read, and with which weight. The setting none is "
                    "the row without a document.",
                .example = "keyhole bench recall -m model.gguf -f novel.txt --tokens 4000 --attn "
                           "full --attn topk:k=32",
                .groups = groups},
    .run = run,
};
