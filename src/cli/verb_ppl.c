/* keyhole ppl: perplexity of a text, of several settings in one table.
 *
 * The library measures; this file chooses the protocol, prints the table, and writes what others
 * want to compare with: the negative log likelihood of each token (--tokens), and the raw logits of
 * one window (--logits), float32 in the machine's byte order, [T][V] without a header. */
#include "cli/cli.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/file.h"

#include <string.h>

typedef struct measured {
    cli_args *args;
    const kh_model *model;
    int32_t *ids; /* [count] */
    size_t count;
    kh_opt_texts attns;
    size_t settings;        /* attns times --ff */
    kh_ppl_result *results; /* [settings] */
    float *nll;             /* NULL, or [settings][count] */
} measured;

/* A number that was not measured. */
static const char *shown(char out[32], int digits, double value)
{
    if (isnan(value)) return "-";
    snprintf(out, 32, "%.*f", digits, value);
    return out;
}

static void print_table(const measured *m)
{
    cli_table table = {0};
    int ff = m->args->ffs.count > 0;
    cli_table_row(&table,
                  "attn%s\tctx\ttokens\tnll\tppl\tppl 2nd half\tkl\tsame top\tkeys\tseconds\tpeak",
                  ff ? "\tff" : "");
    for (size_t i = 0; i < m->settings; i++) {
        const kh_ppl_result *r = m->results + i;
        char peak[32], second[32], keys[32];
        cli_table_row(&table, "%s%s%s\t%zu\t%zu\t%.5f\t%.4f\t%s\t%.5f\t%.2f %%\t%s\t%.2f\t%s",
                      r->attn, ff ? "\t" : "", ff ? r->ff : "", r->ctx, r->tokens, r->nll, r->ppl,
                      shown(second, 4, r->ppl_second), r->kl, 100 * r->same_top1,
                      shown(keys, 1, r->keys_kept), r->seconds,
                      cli_bytes(peak, sizeof peak, r->peak_bytes));
    }
    cli_table_print(&table);
}

static void print_token_csv(const measured *m)
{
    cli_out("index,id");
    for (size_t a = 0; a < m->settings; a++)
        cli_out(",\"nll %s%s%s\"", m->results[a].attn, m->args->ffs.count ? " " : "",
                m->args->ffs.count ? m->results[a].ff : "");
    cli_out("\n");
    for (size_t i = 0; i < m->count && !cli_out_closed(); i++) {
        cli_out("%zu,%d", i, m->ids[i]);
        for (size_t a = 0; a < m->settings; a++) {
            float nll = m->nll[a * m->count + i];
            if (isnan(nll))
                cli_out(",");
            else
                cli_out(",%.6f", (double)nll);
        }
        cli_out("\n");
    }
}

static json_t *token_list(const float *nll, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count && list; i++)
        if (json_array_append_new(list, wire_real((double)nll[i])) != 0) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

static kh_status print_json(const measured *m)
{
    json_t *results = json_array();
    for (size_t i = 0; i < m->settings && results; i++) {
        const kh_ppl_result *r = m->results + i;
        json_t *one = json_pack("{s:s, s:s, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:I, s:o, s:o}",
                                "attn", r->attn, "ff", r->ff, "ctx", (json_int_t)r->ctx, "tokens",
                                (json_int_t)r->tokens, "nll", wire_real(r->nll), "ppl",
                                wire_real(r->ppl), "kl", wire_real(r->kl), "same_top1",
                                wire_real(r->same_top1), "seconds", wire_real(r->seconds),
                                "peak_bytes", (json_int_t)r->peak_bytes, "ppl_second_half",
                                wire_real(r->ppl_second), "keys_kept", wire_real(r->keys_kept));
        if (one && m->nll &&
            json_object_set_new(one, "token_nll", token_list(m->nll + i * m->count, m->count))) {
            json_decref(one);
            one = NULL;
        }
        if (json_array_append_new(results, one) != 0) {
            json_decref(results);
            results = NULL;
        }
    }
    return cli_json_print(json_pack("{s:o}", "results", results));
}

static kh_status measure(measured *m)
{
    const cli_args *args = m->args;
    m->settings = m->attns.count * (args->ffs.count ? args->ffs.count : 1);
    KH_TRY(kh_new(&m->results, m->settings, sizeof *m->results, "the results"));
    if (args->token_nll)
        KH_TRY(kh_new(&m->nll, m->settings * m->count, sizeof *m->nll, "the tokens' results"));
    kh_ppl_options options = {.session = cli_session_options(args),
                              .attns = (const char *const *)m->attns.items,
                              .attn_count = m->attns.count,
                              .ffs = (const char *const *)args->ffs.items,
                              .ff_count = args->ffs.count,
                              .context = (size_t)args->context,
                              .stride = (size_t)args->stride,
                              .like_llama = args->like == 1,
                              .max_windows = (size_t)args->chunks,
                              .token_nll = m->nll,
                              .isolate = 1,
                              .progress = cli_progress};
    options.session.context = 0; /* -c is the window; the library sizes the sessions */
    for (size_t i = 0; i < m->attns.count; i++) cli_explain_auto(m->model, args, m->attns.items[i]);
    KH_TRY(cli_out_flush());
    kh_status status = kh_ppl(m->model, m->ids, m->count, &options, m->results);
    cli_progress_end();
    KH_TRY(status);
    if (args->json) return print_json(m);
    if (args->token_nll)
        print_token_csv(m);
    else
        print_table(m);
    return KH_OK;
}

/* ---- --logits ---- */

typedef struct logits_sink {
    kh_outfile *file;
    kh_session *session;
    size_t vocabulary;
} logits_sink;

static kh_status write_logits(void *context, size_t first, size_t rows, const float *logits)
{
    (void)first;
    logits_sink *sink = context;
    return kh_outfile_write(sink->file, logits, rows * sink->vocabulary * sizeof *logits);
}

static void logits_progress(void *context, size_t done, size_t all)
{
    logits_sink *sink = context;
    if (cli_interrupted()) kh_session_stop(sink->session);
    cli_progress(NULL, "reading", done, all);
}

static kh_status save_logits(const measured *m)
{
    const cli_args *args = m->args;
    logits_sink sink = {.vocabulary = (size_t)kh_model_get_info(m->model)->vocabulary};
    cli_args with = *args;
    size_t window = args->context ? (size_t)args->context : m->count;
    if (window > m->count) window = m->count;
    if ((size_t)with.context < window) with.context = (int64_t)window;
    if (args->ffs.count) with.ff = args->ffs.items[0];
    kh_status status = cli_session_open(&sink.session, m->model, &with, m->attns.items[0]);
    if (status == KH_OK) status = kh_outfile_open(&sink.file, args->logits_file);
    kh_read_options options = {.logits = write_logits,
                               .logits_context = &sink,
                               .progress = logits_progress,
                               .progress_context = &sink};
    if (status == KH_OK) status = kh_session_read(sink.session, m->ids, window, &options);
    cli_progress_end();
    if (status == KH_OK)
        status = kh_outfile_commit(sink.file);
    else
        kh_outfile_abandon(sink.file);
    cli_session_close(sink.session);
    if (status == KH_OK && !cli_quiet)
        cli_say("wrote %zu x %zu float32 logits to %s", window, sink.vocabulary, args->logits_file);
    return status;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    static const char *const full[] = {"full"};
    cli_take_model(args, &words, &count);
    kh_model *model = NULL;
    measured m = {.args = args, .attns = cli_attns(args, full, 1)};
    kh_status status = KH_OK;
    if (args->model && !count && !args->file && !args->prompt && !args->ids_file)
        status = kh_fail(KH_ERR_ARGUMENT, "no text was named: give one with -f FILE or --ids FILE");
    if (status == KH_OK) status = cli_model_open(&model, args, 0);
    m.model = model;
    if (status == KH_OK)
        status = cli_text_ids(model, args, count ? words[0] : NULL, &m.ids, &m.count);
    if (status == KH_OK) status = args->logits_file ? save_logits(&m) : measure(&m);
    if (args->ids_file)
        kh_free(m.ids);
    else
        kh_free_ids(m.ids);
    kh_free(m.results);
    kh_free(m.nll);
    kh_model_close(model);
    return status;
}

static const char *const protocols[] = {"keyhole", "llama", NULL};

static const kh_opt input[] = {
    CLI_TEXT(file, "-f --file", "FILE", "the text; - is standard input", NULL),
    CLI_TEXT(prompt, "-p --prompt", "TEXT", "the text itself", NULL),
    CLI_TEXT(ids_file, "--ids", "FILE", "token ids, one a line, instead of a text", NULL), CLI_END};
static const kh_opt protocol[] = {
    CLI_INT(context, "-c --ctx-size", "N",
            "window in tokens; 0 reads the whole text at once, at most the trained length", "0", 0,
            CLI_MOST_CONTEXT, NULL),
    CLI_FLAG(longer, "--longer", "allows a window beyond the model's trained length"),
    CLI_INT(stride, "--stride", "N",
            "moves the window by N tokens and scores only the new ones; 0 is no overlap", "0", 0,
            CLI_MOST_CONTEXT, NULL),
    CLI_CHOICE(like, "--like", "HOW",
               "protocol; llama is llama-perplexity's: windows of -c, the second half is scored",
               "keyhole", protocols, NULL),
    CLI_INT(chunks, "--chunks", "N", "at most N windows; 0 is all", "0", 0, 1 << 30, NULL),
    CLI_END};
static const kh_opt output[] = {
    CLI_FLAG(token_nll, "--tokens", "prints the negative log likelihood of each token, as CSV"),
    CLI_TEXT(logits_file, "--logits", "FILE",
             "writes the logits of the first window as raw float32 [T][V], and no table", NULL),
    CLI_FLAG(json, "--json", "prints {results: [...]}"),
    CLI_FLAG(quiet, "-q --quiet", "no notes or progress on standard error"), CLI_END};

static const kh_opt_group groups[] = {{"Model", cli_options_model},
                                      {"Text", input},
                                      {"Protocol", protocol},
                                      {"Attention", cli_options_attns},
                                      {"Feed-forward", cli_options_ffs},
                                      {"Computation", cli_options_compute},
                                      {"Output", output},
                                      {"Known from llama.cpp", cli_options_known},
                                      CLI_NO_GROUP};

const cli_verb cli_verb_ppl = {
    .group = "Measure",
    .command =
        {.name = "ppl",
         .does = "perplexity of a text, several settings side by side",
         .words = "[MODEL] [FILE]",
         .most_words = 2,
         .about =
             "Reads a text once per setting and prints, for each: mean negative "
             "log likelihood, perplexity (of all scored tokens, and of those in the second "
             "half of their window), the mean KL divergence to the first setting in nats, "
             "the share of positions with the same likeliest token, the keys that a softmax "
             "used on average, the seconds of reading, and the peak memory of that setting "
             "alone.\n\nOf a model that predicts masked tokens (BERT) it is the pseudo-perplexity: "
             "every token is masked once, alone.\n\nWith --json: {\"results\": [{attn, ff, ctx, "
             "tokens, nll, ppl, kl, "
             "same_top1, seconds, peak_bytes, ppl_second_half, keys_kept}]}, and token_nll "
             "with --tokens (null where a token is not scored).",
         .example = "keyhole ppl -m model.gguf -f novel.txt -c 4096 --chunks 1 --attn full "
                    "--attn topk:k=64",
         .groups = groups},
    .run = run,
};
