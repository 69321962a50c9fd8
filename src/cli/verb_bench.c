/* keyhole bench: speed of prompts and of generation, and of single kernels.
 *
 * The flags are llama-bench's: -p prompt lengths, -n generated lengths, -d depths, -r repetitions,
 * -t thread counts, each a list; the rows are their product and come as they are measured. Every
 * row is a process of its own, so that its peak memory is its own. */
#include "cli/cli.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct sink {
    const cli_args *args;
    json_t *results; /* NULL without --json */
    size_t rows;
    int width, ff_width; /* of the columns of settings; 0: no --ff was given */
    int threads;
} sink;

static kh_status speed_row(void *context, const kh_bench_result *r)
{
    sink *s = context;
    cli_progress_end();
    if (s->results) {
        json_t *one = json_pack("{s:s, s:s, s:s, s:I, s:I, s:o, s:o, s:o, s:o, s:i, s:I}", "attn",
                                r->attn, "ff", r->ff, "test", r->test, "n", (json_int_t)r->n,
                                "depth", (json_int_t)r->depth, "tokens_per_second",
                                wire_real(r->tokens_per_second), "deviation",
                                wire_real(r->deviation), "best", wire_real(r->best),
                                "attention_share", wire_real(r->attention_share), "threads",
                                s->threads, "peak_bytes", (json_int_t)r->peak_bytes);
        return cli_json_add(s->results, one);
    }
    char peak[32];
    if (s->rows++ == 0)
        cli_out("%-*s%-*s  test       n   depth  threads    tokens/s         +-        best  "
                "attn%%       "
                "peak\n",
                s->width, "attn", s->ff_width, s->ff_width ? "  ff" : "");
    cli_out("%-*s%s%-*s  %-4s  %6zu  %6zu  %7d  %10.2f  %9.2f  %10.2f  %5.1f  %9s\n", s->width,
            r->attn, s->ff_width ? "  " : "", s->ff_width ? s->ff_width - 2 : 0,
            s->ff_width ? r->ff : "", r->test, r->n, r->depth, s->threads, r->tokens_per_second,
            r->deviation, r->best, 100 * r->attention_share,
            cli_bytes(peak, sizeof peak, r->peak_bytes));
    return cli_row_done();
}

/* Lengths as the library wants them; 0 means "none of this test". */
static kh_status lengths(size_t **out, size_t *count, const kh_opt_ints *given, size_t fallback,
                         int zero_counts)
{
    size_t room = given->count ? given->count : 1;
    KH_TRY(kh_new(out, room, sizeof **out, "the lengths"));
    *count = 0;
    if (given->count == 0) (*out)[(*count)++] = fallback;
    for (size_t i = 0; i < given->count; i++)
        if (given->items[i] > 0 || zero_counts) (*out)[(*count)++] = (size_t)given->items[i];
    return KH_OK;
}

static int widest(const kh_opt_texts *attns)
{
    size_t width = 8;
    for (size_t i = 0; i < attns->count; i++)
        if (strlen(attns->items[i]) > width) width = strlen(attns->items[i]);
    return width < 64 ? (int)width : 64;
}

/* What 0 threads stands for, so that a row says how many they were. */
static int processors(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

static kh_status measure(const kh_model *model, const cli_args *args, const kh_opt_texts *attns,
                         sink *s)
{
    kh_bench_options options = {.session = cli_session_options(args),
                                .attns = (const char *const *)attns->items,
                                .attn_count = attns->count,
                                .ffs = (const char *const *)args->ffs.items,
                                .ff_count = args->ffs.count,
                                .repeat = (int)args->repeat,
                                .isolate = 1};
    size_t *prompts = NULL, *generate = NULL, *depths = NULL, *threads = NULL, thread_count = 0;
    kh_status status = lengths(&prompts, &options.prompt_count, &args->prompts, 512, 0);
    if (status == KH_OK)
        status = lengths(&generate, &options.generate_count, &args->generate, 128, 0);
    if (status == KH_OK) status = lengths(&depths, &options.depth_count, &args->depths, 0, 1);
    if (status == KH_OK) status = lengths(&threads, &thread_count, &args->thread_list, 0, 1);
    options.prompts = prompts;
    options.generate = generate;
    options.depths = depths;
    if (status == KH_OK && options.prompt_count + options.generate_count == 0)
        status = kh_fail(KH_ERR_ARGUMENT, "-p 0 and -n 0 leave nothing to measure");
    for (size_t i = 0; i < thread_count && status == KH_OK; i++) {
        options.session.threads = s->threads = threads[i] ? (int)threads[i] : processors();
        status = cli_out_flush();
        if (status == KH_OK) status = kh_bench_speed(model, &options, speed_row, s);
    }
    kh_free(prompts);
    kh_free(generate);
    kh_free(depths);
    kh_free(threads);
    return status;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    static const char *const full[] = {"full"};
    cli_take_model(args, &words, &count);
    if (count)
        KH_FAIL(KH_ERR_ARGUMENT,
                "'%s': bench takes a model and nothing else (or bench recall, bench kernels)",
                words[0]);
    kh_model *model = NULL;
    kh_opt_texts attns = cli_attns(args, full, 1);
    sink s = {.args = args, .width = widest(&attns)};
    if (args->ffs.count) s.ff_width = 2 + widest(&args->ffs);
    KH_TRY(cli_model_open(&model, args, 0));
    kh_status status = KH_OK;
    if (args->json && !(s.results = json_array()))
        status = kh_fail(KH_ERR_MEMORY, "no memory for the results");
    for (size_t i = 0; i < attns.count; i++) cli_explain_auto(model, args, attns.items[i]);
    if (status == KH_OK) status = measure(model, args, &attns, &s);
    if (status == KH_OK && s.results)
        status = cli_json_print(json_pack("{s:o}", "results", s.results));
    else
        json_decref(s.results);
    kh_model_close(model);
    return status;
}

/* ---- kernels ---- */

static kh_status kernel_row(void *context, const kh_bench_kernel *r)
{
    sink *s = context;
    if (s->results) {
        json_t *one = json_pack("{s:s, s:s, s:o, s:o, s:o}", "kernel", r->name, "isa", r->isa,
                                "nanoseconds", wire_real(r->nanoseconds), "gigabytes",
                                wire_real(r->gigabytes), "gigaops", wire_real(r->gigaops));
        return cli_json_add(s->results, one);
    }
    if (s->rows++ == 0)
        cli_out("%-32s  %-10s  %12s  %8s  %8s\n", "kernel", "isa", "ns/call", "GB/s", "Gop/s");
    cli_out("%-32s  %-10s  %12.1f  %8.2f  ", r->name, r->isa, r->nanoseconds, r->gigabytes);
    if (r->gigaops > 0)
        cli_out("%8.2f\n", r->gigaops);
    else
        cli_out("%8s\n", "-");
    return cli_row_done();
}

static kh_status run_kernels(cli_args *args, const char **words, size_t count)
{
    sink s = {.args = args};
    if (args->json && !(s.results = json_array()))
        KH_FAIL(KH_ERR_MEMORY, "no memory for the results");
    kh_status status = kh_bench_kernels(count ? words[0] : NULL, kernel_row, &s);
    if (status == KH_OK && s.results)
        return cli_json_print(json_pack("{s:o}", "results", s.results));
    json_decref(s.results);
    return status;
}

static const kh_opt tests[] = {
    CLI_INTS(prompts, "-p --n-prompt", "prompt lengths; 0 is none (default: 512)", 0,
             CLI_MOST_CONTEXT),
    CLI_INTS(generate, "-n --n-gen", "generated lengths; 0 is none (default: 128)", 0,
             CLI_MOST_CONTEXT),
    CLI_INTS(depths, "-d --n-depth", "tokens that the cache holds before (default: 0)", 0,
             CLI_MOST_CONTEXT),
    CLI_INT(repeat, "-r --repetitions", "N", "repetitions of each row", "3", 1, 1000, NULL),
    CLI_INTS(thread_list, "-t --threads", "thread counts; 0 is all processors (default: 0)", 0,
             1024),
    CLI_END};
static const char *const cache_types[] = {"f16", "f32", "q8_0", NULL};
static const char *const precisions[] = {"default", "f32", "q8", NULL};
static const char *const shadows[] = {"off", "on", NULL};
static const kh_opt compute[] = {
    CLI_INT(batch, "-b --batch-size", "N", "tokens of a prompt that are read at once", "512", 1,
            65536, NULL),
    CLI_CHOICE(k_type, "-ctk --cache-type-k", "TYPE", "type of the cached keys", "f16", cache_types,
               NULL),
    CLI_CHOICE(v_type, "-ctv --cache-type-v", "TYPE", "type of the cached values", "f16",
               cache_types, NULL),
    CLI_CHOICE(key_shadow, "--key-shadow", "on|off",
               "an int8 copy of the keys, through which topk decodes", "off", shadows, NULL),
    CLI_CHOICE(precision, "--compute", "HOW", "products: default, f32 or q8", "default", precisions,
               NULL),
    CLI_FLAG(longer, "--longer", "allows more tokens than the model was trained for"),
    CLI_END};
static const kh_opt output[] = {CLI_FLAG(json, "--json", "prints {results: [...]}"),
                                CLI_FLAG(quiet, "-q --quiet", "nothing on standard error"),
                                CLI_END};
static const kh_opt_group groups[] = {{"Model", cli_options_model},
                                      {"Tests", tests},
                                      {"Attention", cli_options_attns},
                                      {"Feed-forward", cli_options_ffs},
                                      {"Computation", compute},
                                      {"Output", output},
                                      {"Known from llama.cpp", cli_options_known},
                                      CLI_NO_GROUP};
static const kh_opt_group kernel_groups[] = {{"Output", output}, CLI_NO_GROUP};

const cli_verb cli_verb_bench = {
    .group = "Measure",
    .command =
        {.name = "bench",
         .does = "speed of prompts and generation",
         .words = "[MODEL]",
         .most_words = 1,
         .about =
             "Measures tokens per second of reading a prompt (pp) and of generating (tg), "
             "for every combination of lengths, depths, thread counts and settings of attention "
             "and feed-forward layers. Prints mean, standard deviation and best of the "
             "repetitions, the share of the best one's time that attention took, and "
             "the peak memory of that row alone.\n\nWith --json: {\"results\": [{attn, ff, "
             "test, n, depth, tokens_per_second, deviation, best, attention_share, threads, "
             "peak_bytes}]}.\n\nkeyhole bench recall measures what is remembered; keyhole "
             "bench kernels measures single kernels.",
         .example = "keyhole bench -m model.gguf -p 512 -n 64 -d 0,8000 --attn full --attn "
                    "topk:k=128",
         .groups = groups},
    .run = run,
};

const cli_verb cli_verb_kernels = {
    .group = "Measure",
    .command = {.name = "bench kernels",
                .does = "speed of single kernels, for every instruction set",
                .words = "[NAME]",
                .most_words = 1,
                .about = "Calls every kernel of the library on data of a usual size, with every "
                         "instruction set that this processor has. NAME keeps the kernels whose "
                         "names contain it.",
                .example = "keyhole bench kernels dot",
                .groups = kernel_groups},
    .run = run_kernels,
};
