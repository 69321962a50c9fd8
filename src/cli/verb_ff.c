/* keyhole bench ff: what a feed-forward layer costs that keeps k of its neurons, without a model.
 *
 * The paper's layer (768 wide, 512 neurons kept) is the default; -k 0 is the dense layer, so one command
 * compares both. The keys of --json are those of keyhole bench attention: `attn` is the setting, L the
 * tokens. */
#include "cli/report.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdio.h>
#include <string.h>

static const char *const passes[] = {"fwd", "fwd+bwd", NULL}; /* as kh_bench_pass */
static const char *const acts[] = {"relu", "gelu", "silu", NULL};
static const char *const rules[] = {"g", "m", "n", NULL};

typedef struct sink {
    const cli_args *args;
    kh_bench_machine machine;
    json_t *results; /* NULL without --json and --report */
    size_t rows;
} sink;

static void setting_of(const sink *s, const kh_bench_ff_result *r, char *out, size_t size)
{
    if (r->k == 0)
        snprintf(out, size, "dense");
    else
        snprintf(out, size, "topk:k=%zu%s%s", r->k, s->args->gated ? ",rule=" : "",
                 s->args->gated ? rules[s->args->rule] : "");
}

static json_t *to_json(const sink *s, const kh_bench_ff_result *r, const char *setting,
                       double share)
{
    const cli_args *a = s->args;
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:i, s:I, s:I, s:i, s:o, s:o, s:I, s:I, s:I, s:s, s:b, s:o, "
        "s:o, "
        "s:o}",
        "impl", "keyhole", "work", "ff", "attn", setting, "pass", passes[a->pass], "L",
        (json_int_t)r->rows, "heads", 1, "head_dim", (json_int_t)a->width, "k", (json_int_t)r->k,
        "threads", r->threads, "seconds_min", wire_real(r->seconds_min), "seconds_median",
        wire_real(r->seconds_median), "peak_bytes", (json_int_t)r->peak_bytes, "width",
        (json_int_t)a->width, "ff", (json_int_t)r->hidden, "act", acts[a->act], "gated", a->gated,
        "us_per_token", wire_real(r->microseconds), "gigaflops", wire_real(r->gigaflops),
        "peak_share", wire_real(share));
}

static void to_csv(sink *s, const kh_bench_ff_result *r, const char *setting, double share)
{
    const cli_args *a = s->args;
    if (s->rows++ == 0)
        cli_out("impl,work,attn,pass,L,heads,head_dim,k,threads,seconds_min,seconds_median,"
                "peak_bytes,width,ff,act,gated,us_per_token,gigaflops,peak_share\n");
    cli_out("keyhole,ff,\"%s\",%s,%zu,1,%lld,%zu,%d,%.6f,%.6f,%llu,%lld,%zu,%s,%d,%.4f,%.3f,%.4f\n",
            setting, passes[a->pass], r->rows, (long long)a->width, r->k, r->threads,
            r->seconds_min, r->seconds_median, (unsigned long long)r->peak_bytes,
            (long long)a->width, r->hidden, acts[a->act], a->gated, r->microseconds, r->gigaflops,
            share);
}

static void to_table(sink *s, const kh_bench_ff_result *r, const char *setting, double share)
{
    char peak[32];
    if (s->rows++ == 0)
        cli_out(
            "%-18s  pass          F  tokens  threads   us/token   GFLOP/s  of peak       min s  "
            "  median s       peak\n",
            "ff");
    cli_out("%-18s  %-7s  %6zu  %6zu  %7d  %9.2f  %8.1f  %5.0f %%  %10.4f  %10.4f  %9s\n", setting,
            passes[s->args->pass], r->hidden, r->rows, r->threads, r->microseconds, r->gigaflops,
            100 * share, r->seconds_min, r->seconds_median,
            cli_bytes(peak, sizeof peak, r->peak_bytes));
}

static kh_status row(void *context, const kh_bench_ff_result *r)
{
    sink *s = context;
    char setting[48];
    double share = r->gigaflops / (s->machine.gigaflops * r->threads);
    setting_of(s, r, setting, sizeof setting);
    if (s->results) KH_TRY(cli_json_add(s->results, to_json(s, r, setting, share)));
    if (s->args->json) return KH_OK;
    (s->args->csv ? to_csv : to_table)(s, r, setting, share);
    return cli_row_done();
}

static kh_status begin(sink *s)
{
    kh_bench_machine *m = &s->machine;
    KH_TRY(cli_results_begin(&s->results, s->args));
    KH_TRY(kh_bench_machine_measure(m));
    if (s->args->json) return KH_OK;
    cli_out("%s%s, %d cores (%s); %.0f GFLOP/s a core; reads %.1f GB/s\n%s",
            s->args->csv ? "# machine: " : "", m->cpu, m->cores, m->isa, m->gigaflops, m->gigabytes,
            s->args->csv ? "" : "\n");
    return cli_out_flush();
}

static kh_status measure(cli_args *args, kh_bench_ff_options *o)
{
    static const int64_t all[] = {0};
    sink s = {.args = args};
    size_t *threads = NULL, count = 0;
    kh_status status = cli_sizes(&threads, &count, &args->thread_list, all, 1);
    if (status == KH_OK) status = begin(&s);
    for (size_t i = 0; i < count && status == KH_OK; i++) {
        o->threads = (int)threads[i];
        status = kh_bench_ff(o, row, &s);
    }
    kh_free(threads);
    return cli_results_end(s.results, &s.machine, args, status);
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    (void)words;
    (void)count;
    kh_bench_ff_options o = {.width = (size_t)args->width,
                             .act = (kh_ff_act)args->act,
                             .gated = args->gated,
                             .rule = (kh_ff_rule)args->rule,
                             .pass = (kh_bench_pass)args->pass,
                             .chunk = (size_t)args->chunk,
                             .repeat = (int)args->repeat,
                             .seed = (uint64_t)args->seed,
                             .isolate = 1};
    static const int64_t tokens[] = {4096}, neurons[] = {16384}, kept[] = {512};
    size_t *rows = NULL, *hiddens = NULL, *keeps = NULL;
    kh_status status = cli_sizes(&rows, &o.row_count, &args->lengths, tokens, 1);
    if (status == KH_OK) status = cli_sizes(&hiddens, &o.hidden_count, &args->hiddens, neurons, 1);
    if (status == KH_OK) status = cli_sizes(&keeps, &o.keep_count, &args->keeps, kept, 1);
    o.rows = rows;
    o.hiddens = hiddens;
    o.keeps = keeps;
    if (status == KH_OK) status = measure(args, &o);
    kh_free(rows);
    kh_free(hiddens);
    kh_free(keeps);
    return status;
}

static const kh_opt shape[] = {
    CLI_INT(width, "-d --width", "N", "width of the layer's input and output", "768", 1, 1 << 16,
            NULL),
    CLI_INTS(hiddens, "--ff --hidden", "neurons (default: 16384)", 1, 1 << 24),
    CLI_INTS(lengths, "-L --tokens", "tokens (default: 4096)", 1, 1 << 24),
    CLI_CHOICE(act, "--act", "ACT", "activation: relu, gelu or silu", "relu", acts, NULL),
    CLI_FLAG(gated, "--gated", "with a second input matrix: act(x Wg) * (x Wu)"),
    CLI_END};
static const kh_opt work[] = {
    CLI_INTS(keeps, "-k", "neurons that a token keeps; 0 is dense (default: 512)", 0, 1 << 24),
    CLI_CHOICE(
        rule, "--rule", "R",
        "how gated neurons are ranked: g (the gate), m (|act(g) u|), n (that times the value "
        "vector's norm)",
        "m", rules, NULL),
    CLI_CHOICE(pass, "--pass", "PASS", "forward, or forward and backward", "fwd", passes, NULL),
    CLI_INT(chunk, "--chunk", "N", "tokens at a time; 0 is chosen by the library", "0", 0, 1 << 24,
            NULL),
    CLI_END};
static const kh_opt runs[] = {
    CLI_INTS(thread_list, "-t --threads", "thread counts; 0 is all processors (default: 0)", 0,
             1024),
    CLI_INT(repeat, "-r --repeat", "N", "timed runs of each row, after one that is not", "3", 1,
            1000, NULL),
    CLI_INT(seed, "-s --seed", "N", "seed of the random numbers", "0", 0, 4294967295.0, NULL),
    CLI_END};
static const kh_opt_group groups[] = {{"Shape", shape},
                                      {"Work", work},
                                      {"Runs", runs},
                                      {"Output", cli_options_output_rows},
                                      CLI_NO_GROUP};

const cli_verb cli_verb_ff = {
    .group = "Measure",
    .command =
        {.name = "bench ff",
         .does = "speed and memory of feed-forward top-k on random arrays, without a model",
         .most_words = 0,
         .about = "Times kh_ff_topk_forward, and kh_ff_topk_backward behind it, on standard "
                  "normal arrays; every row is a process of its own. Prints the time for each "
                  "token, the operations of the dense layer divided by the time, their share of "
                  "the machine's measured peak, and the peak memory over inputs and "
                  "outputs.\n\nWith --json: {\"machine\": {...}, \"results\": [{impl, work, attn, "
                  "pass, L, heads, head_dim, k, threads, seconds_min, seconds_median, "
                  "peak_bytes, width, ff, act, gated, us_per_token, gigaflops, peak_share}], "
                  "\"command\"}: "
                  "attn is the setting, L the tokens, ff the neurons; k is 0 where all are "
                  "kept.\n\nbench/peers/ff runs the dense layer of PyTorch in turn.",
         .example = "keyhole bench ff -t 1 --ff 16384,65536 -k 512,0 --pass fwd+bwd",
         .groups = groups},
    .run = run,
};
