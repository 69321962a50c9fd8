/* keyhole bench train: what a step of training costs, in time and in memory, against the length.
 *
 * Full attention and top-k stand in one table; every row is a process of its own. The keys of --json are those of
 * keyhole bench attention, so that its report draws both; bench/peers/train adds PyTorch. */
#include "cli/report.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdio.h>
#include <string.h>

static const char *const kept[] = {"block", "none", NULL};

typedef struct sink {
    const cli_args *args;
    kh_bench_machine machine;
    json_t *results; /* NULL without --json and --report */
    size_t rows;
    int width; /* of the column of settings */
} sink;

static const char *pass_name(const sink *s)
{
    return s->args->no_update ? "fwd+bwd" : "step";
}

static json_t *to_json(const sink *s, const kh_bench_train_result *r)
{
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:i, s:i, s:i, s:i, s:o, s:o, s:I, s:I, s:I, s:I, "
        "s:s, s:o, s:o}",
        "impl", "keyhole", "work", "train", "attn", r->attn, "pass", pass_name(s), "L",
        (json_int_t)r->length, "heads", r->heads, "head_dim", r->width, "k", r->k, "threads",
        r->threads, "seconds_min", wire_real(r->seconds_min), "seconds_median",
        wire_real(r->seconds_median), "peak_bytes", (json_int_t)r->peak_bytes, "process_bytes",
        (json_int_t)r->process_bytes, "record_bytes", (json_int_t)r->record_bytes, "parameters",
        (json_int_t)r->parameters, "recompute", kept[s->args->recompute], "us_per_token",
        wire_real(r->seconds_min / (double)r->length * 1e6), "loss", wire_real(r->loss));
}

static void to_csv(sink *s, const kh_bench_train_result *r)
{
    if (s->rows++ == 0)
        cli_out("impl,work,attn,pass,L,threads,seconds_min,seconds_median,peak_bytes,process_bytes,"
                "record_bytes,parameters,recompute,us_per_token,loss\n");
    cli_out("keyhole,train,\"%s\",%s,%zu,%d,%.6f,%.6f,%llu,%llu,%llu,%llu,%s,%.4f,%.6f\n", r->attn,
            pass_name(s), r->length, r->threads, r->seconds_min, r->seconds_median,
            (unsigned long long)r->peak_bytes, (unsigned long long)r->process_bytes,
            (unsigned long long)r->record_bytes, (unsigned long long)r->parameters,
            kept[s->args->recompute], r->seconds_min / (double)r->length * 1e6, r->loss);
}

static void to_table(sink *s, const kh_bench_train_result *r)
{
    char process[32], peak[32], records[32];
    if (s->rows++ == 0)
        cli_out("%-*s  pass          L  threads   us/token      min s   median s    process  over "
                "weights    records\n",
                s->width, "attn");
    cli_out("%-*s  %-7s  %6zu  %7d  %9.1f  %9.3f  %9.3f  %9s  %12s  %9s\n", s->width, r->attn,
            pass_name(s), r->length, r->threads, r->seconds_min / (double)r->length * 1e6,
            r->seconds_min, r->seconds_median, cli_bytes(process, sizeof process, r->process_bytes),
            cli_bytes(peak, sizeof peak, r->peak_bytes),
            cli_bytes(records, sizeof records, r->record_bytes));
}

static kh_status row(void *context, const kh_bench_train_result *r)
{
    sink *s = context;
    if (s->results) KH_TRY(cli_json_add(s->results, to_json(s, r)));
    if (s->args->json) return KH_OK;
    (s->args->csv ? to_csv : to_table)(s, r);
    return cli_row_done();
}

static kh_status measure(cli_args *args, kh_bench_train_options *o, int width)
{
    static const int64_t all[] = {0};
    sink s = {.args = args, .width = width};
    size_t *threads = NULL, count = 0;
    kh_status status = cli_sizes(&threads, &count, &args->thread_list, all, 1);
    if (status == KH_OK) status = cli_results_machine(&s.results, &s.machine, args);
    for (size_t i = 0; i < count && status == KH_OK; i++) {
        o->threads = (int)threads[i];
        status = kh_bench_train(o, row, &s);
    }
    kh_free(threads);
    return cli_results_end(s.results, &s.machine, args, status);
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    static const char *const usual[] = {"full", "topk:k=64"};
    static const int64_t lengths[] = {1024, 2048};
    (void)words;
    (void)count;
    cli_settings settings = {0};
    size_t *sizes = NULL;
    kh_bench_train_options o = {.arch = args->arch,
                                .keep_records = args->recompute == 1,
                                .update = !args->no_update,
                                .repeat = (int)args->repeat,
                                .seed = (uint64_t)args->seed,
                                .isolate = 1};
    kh_status status = cli_settings_open(&settings, args, usual, 2);
    if (status == KH_OK) status = cli_sizes(&sizes, &o.length_count, &args->lengths, lengths, 2);
    o.attns = settings.items;
    o.attn_count = settings.count;
    o.lengths = sizes;
    if (status == KH_OK) status = measure(args, &o, cli_settings_width(&settings));
    cli_settings_close(&settings);
    kh_free(sizes);
    return status;
}

static const kh_opt shape[] = {
    CLI_TEXT(arch, "--arch", "SPEC",
             "the model, as keyhole train takes it (default: "
             "gpt2:layers=12,width=768,heads=12,vocabulary=256, the body of GPT-2 small)",
             NULL),
    CLI_INTS(lengths, "-L --length", "tokens of a step, one sequence (default: 1024,2048)", 1,
             1 << 24),
    CLI_END};
static const kh_opt work[] = {
    CLI_TEXTS(attns, "--attn", "SPEC",
              "attention, as keyhole run takes it; each use adds one (default: full, topk:k=64)"),
    CLI_INTS(keeps, "-k", "the same as --attn topk:k=N", 1, 1 << 24),
    CLI_CHOICE(recompute, "--recompute", "WHAT", "block or none, as keyhole train takes it",
               "block", kept, NULL),
    CLI_FLAG(no_update, "--no-update", "forward and backward without the optimiser"), CLI_END};
static const kh_opt runs[] = {
    CLI_INTS(thread_list, "-t --threads", "thread counts; 0 is all processors (default: 0)", 0,
             1024),
    CLI_INT(repeat, "-r --repeat", "N",
            "timed steps of each row, after one that is not (with --no-update, unless it took ten "
            "seconds)",
            "1", 1, 1000, NULL),
    CLI_INT(seed, "-s --seed", "N", "seed of weights and tokens", "0", 0, 4294967295.0, NULL),
    CLI_END};
static const kh_opt_group groups[] = {{"Shape", shape},
                                      {"Work", work},
                                      {"Runs", runs},
                                      {"Output", cli_options_output_rows},
                                      CLI_NO_GROUP};

const cli_verb cli_verb_bench_train = {
    .group = "Measure",
    .command =
        {.name = "bench train",
         .does = "time and memory of a training step against the length",
         .most_words = 0,
         .about =
             "Trains a model from nothing for a step or two on random tokens: forward, "
             "backward, AdamW. Prints the time for each token, the peak memory of the process, "
             "what is beyond its weights, and the bytes that were kept for the backward "
             "pass.\n\nbench/peers/train runs the same model in PyTorch in turn.",
         .example = "keyhole bench train -L 1024,4096,16384 --recompute none\n"
                    "keyhole bench train -L 32768 --attn topk:k=64 --no-update",
         .groups = groups},
    .run = run,
};
