/* keyhole bench stack: what layers of a transformer cost, attention and feed-forward with all their
 * weights, without a model.
 *
 * The paper's model (12 layers, 12 heads of 64, 3,072 neurons) is the default. Memory is what this verb
 * is for, so both figures are in every row: over inputs and outputs, and of the whole process. The keys
 * of --json begin with those of keyhole bench attention. */
#include "cli/report.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdio.h>
#include <string.h>

static const char *const passes[] = {"fwd", "fwd+bwd", NULL}; /* as kh_bench_pass */
static const char *const kept[] = {"keys", "input", NULL};    /* as kh_bench_keep */

typedef struct sink {
    const cli_args *args;
    kh_bench_machine machine;
    json_t *results; /* NULL without --json and --report */
    size_t rows;
    int width; /* of the column of settings */
    int key_heads;
} sink;

static json_t *to_json(const sink *s, const kh_bench_stack_result *r, double share)
{
    const cli_args *a = s->args;
    json_t *one = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:i, s:i, s:o, s:o, s:I}", "impl",
                            "keyhole", "work", "stack", "attn", r->attn, "pass", passes[a->pass],
                            "L", (json_int_t)r->length, "heads", (json_int_t)a->heads, "head_dim",
                            (json_int_t)a->head_dim, "k", r->k, "threads", r->threads,
                            "seconds_min", wire_real(r->seconds_min), "seconds_median",
                            wire_real(r->seconds_median), "peak_bytes", (json_int_t)r->peak_bytes);
    json_t *more = json_pack("{s:I, s:i, s:I, s:I, s:b, s:I, s:s, s:o, s:o, s:o, s:I, s:I, s:o}",
                             "layers", (json_int_t)a->layers, "kv_heads", s->key_heads, "ff",
                             (json_int_t)a->hidden, "ff_k", (json_int_t)r->ff_k, "causal",
                             !a->no_causal, "chunk", (json_int_t)a->chunk, "kept",
                             kept[a->recompute], "us_per_token", wire_real(r->microseconds),
                             "gigaflops", wire_real(r->gigaflops), "peak_share", wire_real(share),
                             "process_bytes", (json_int_t)r->process_bytes, "saved_bytes",
                             (json_int_t)r->saved_bytes, "checksum", wire_real(r->checksum));
    if (!one || !more || json_object_update(one, more) != 0) {
        json_decref(one);
        one = NULL;
    }
    json_decref(more);
    return one;
}

static void to_csv(sink *s, const kh_bench_stack_result *r, double share)
{
    const cli_args *a = s->args;
    if (s->rows++ == 0)
        cli_out("impl,work,attn,pass,L,heads,head_dim,k,threads,seconds_min,seconds_median,"
                "peak_bytes,layers,kv_heads,ff,ff_k,causal,chunk,kept,us_per_token,gigaflops,"
                "peak_share,process_bytes,saved_bytes,checksum\n");
    cli_out("keyhole,stack,\"%s\",%s,%zu,%lld,%lld,%d,%d,%.6f,%.6f,%llu,", r->attn, passes[a->pass],
            r->length, (long long)a->heads, (long long)a->head_dim, r->k, r->threads,
            r->seconds_min, r->seconds_median, (unsigned long long)r->peak_bytes);
    cli_out("%lld,%d,%lld,%zu,%d,%lld,%s,%.4f,%.3f,%.4f,%llu,%llu,%.12g\n", (long long)a->layers,
            s->key_heads, (long long)a->hidden, r->ff_k, !a->no_causal, (long long)a->chunk,
            kept[a->recompute], r->microseconds, r->gigaflops, share,
            (unsigned long long)r->process_bytes, (unsigned long long)r->saved_bytes, r->checksum);
}

static void to_table(sink *s, const kh_bench_stack_result *r, double share)
{
    char peak[32], process[32], saved[32];
    if (s->rows++ == 0)
        cli_out("%-*s   ff k  pass          L  threads   us/token   GFLOP/s  of peak      min s    "
                "median s  over in/out    process      kept\n",
                s->width, "attn");
    cli_out("%-*s  %5zu  %-7s  %6zu  %7d  %9.1f  %8.1f  %5.0f %%  %9.3f  %10.3f  %11s  %9s  %8s\n",
            s->width, r->attn, r->ff_k, passes[s->args->pass], r->length, r->threads,
            r->microseconds, r->gigaflops, 100 * share, r->seconds_min, r->seconds_median,
            cli_bytes(peak, sizeof peak, r->peak_bytes),
            cli_bytes(process, sizeof process, r->process_bytes),
            cli_bytes(saved, sizeof saved, r->saved_bytes));
}

static kh_status row(void *context, const kh_bench_stack_result *r)
{
    sink *s = context;
    double share = r->gigaflops / (s->machine.gigaflops * r->threads);
    if (s->results) KH_TRY(cli_json_add(s->results, to_json(s, r, share)));
    if (s->args->json) return KH_OK;
    (s->args->csv ? to_csv : to_table)(s, r, share);
    return cli_row_done();
}

static kh_status measure(sink *s, kh_bench_stack_options *o, const size_t *threads, size_t count)
{
    kh_status status = cli_results_machine(&s->results, &s->machine, s->args);
    for (size_t i = 0; i < count && status == KH_OK; i++) {
        o->threads = (int)threads[i];
        status = kh_bench_stack(o, row, s);
    }
    return cli_results_end(s->results, &s->machine, s->args, status);
}

static kh_bench_stack_options options_of(const cli_args *args, int key_heads)
{
    return (kh_bench_stack_options){.pass = (kh_bench_pass)args->pass,
                                    .mask = args->no_causal ? KH_ATTENTION_FREE
                                                            : KH_ATTENTION_CAUSAL,
                                    .layers = (int)args->layers,
                                    .heads = (int)args->heads,
                                    .key_heads = key_heads,
                                    .width = (int)args->head_dim,
                                    .hidden = (size_t)args->hidden,
                                    .chunk = (size_t)args->chunk,
                                    .keep = (kh_bench_keep)args->recompute,
                                    .repeat = (int)args->repeat,
                                    .seed = (uint64_t)args->seed,
                                    .isolate = 1};
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    static const int64_t usual[] = {2048}, none[] = {0};
    static const char *const usual_attn[] = {"topk:k=64"};
    sink s = {.args = args, .key_heads = (int)(args->kv_heads ? args->kv_heads : args->heads)};
    (void)words;
    (void)count;
    if (args->causal && args->no_causal)
        KH_FAIL(KH_ERR_ARGUMENT, "--causal and --no-causal contradict each other");
    if (args->heads % s.key_heads != 0)
        KH_FAIL(KH_ERR_ARGUMENT, "--heads %lld is not a multiple of --kv-heads %d",
                (long long)args->heads, s.key_heads);
    kh_bench_stack_options o = options_of(args, s.key_heads);
    cli_settings attns = {0};
    size_t *lengths = NULL, *keeps = NULL, *threads = NULL, thread_count = 0;
    kh_status status = cli_settings_open(&attns, args, usual_attn, 1);
    if (status == KH_OK) status = cli_sizes(&lengths, &o.length_count, &args->lengths, usual, 1);
    if (status == KH_OK) status = cli_sizes(&keeps, &o.keep_count, &args->ff_keeps, none, 1);
    if (status == KH_OK) status = cli_sizes(&threads, &thread_count, &args->thread_list, none, 1);
    o.attns = attns.items;
    o.attn_count = attns.count;
    o.lengths = lengths;
    o.keeps = keeps;
    s.width = cli_settings_width(&attns);
    if (status == KH_OK) status = measure(&s, &o, threads, thread_count);
    cli_settings_close(&attns);
    kh_free(lengths);
    kh_free(keeps);
    kh_free(threads);
    return status;
}

static const kh_opt shape[] = {
    CLI_INTS(lengths, "-L --length", "tokens (default: 2048)", 1, 1 << 24),
    CLI_INT(layers, "--layers", "N", "layers", "12", 1, 1024, NULL),
    CLI_INT(heads, "--heads", "N", "query heads", "12", 1, 1024, NULL),
    CLI_INT(kv_heads, "--kv-heads", "N", "key heads; 0 is as many as query heads", "0", 0, 1024,
            NULL),
    CLI_INT(head_dim, "--head-dim", "N", "width of a head; the layers are heads times as wide",
            "64", 1, 1024, NULL),
    CLI_INT(hidden, "--ff --hidden", "N", "neurons of a feed-forward layer; 0 is attention alone",
            "3072", 0, 1 << 24, NULL),
    CLI_FLAG(causal, "--causal", "each query sees the keys up to its own (the default)"),
    CLI_FLAG(no_causal, "--no-causal", "each query sees all keys"),
    CLI_END};
static const kh_opt work[] = {
    CLI_TEXTS(attns, "--attn", "SPEC",
              "attention setting of all layers, as keyhole run takes it (default: topk:k=64)"),
    CLI_INTS(keeps, "-k", "short for --attn topk:k=N", 1, 1 << 24),
    CLI_INTS(ff_keeps, "--ff-topk", "neurons that a token keeps; 0 is all (default: 0)", 0,
             1 << 24),
    CLI_CHOICE(pass, "--pass", "PASS", "forward, or forward and backward", "fwd", passes, NULL),
    CLI_INT(chunk, "--chunk", "N", "rows of projections and feed-forward layers at a time", "1024",
            1, 1 << 24, NULL),
    CLI_CHOICE(recompute, "--kept", "WHAT",
               "what backward finds of a layer: keys (its input and which keys its rows kept) or "
               "input (the keys are chosen again)",
               "keys", kept, NULL),
    CLI_END};
static const kh_opt runs[] = {
    CLI_INTS(thread_list, "-t --threads", "thread counts; 0 is all processors (default: 0)", 0,
             1024),
    CLI_INT(repeat, "-r --repeat", "N",
            "timed runs of each row, after one that is not (or counts, if it takes ten seconds)",
            "1", 1, 1000, NULL),
    CLI_INT(seed, "-s --seed", "N", "seed of the random numbers", "0", 0, 4294967295.0, NULL),
    CLI_END};
static const kh_opt_group groups[] = {{"Shape", shape},
                                      {"Work", work},
                                      {"Runs", runs},
                                      {"Output", cli_options_output_rows},
                                      CLI_NO_GROUP};

const cli_verb cli_verb_stack = {
    .group = "Measure",
    .command =
        {.name = "bench stack",
         .does = "speed and memory of whole layers on random arrays, without a model",
         .most_words = 0,
         .about =
             "Layers one behind the other, each attention with its four projections and a "
             "feed-forward layer (ReLU), behind a norm and added to its input; random weights, and "
             "for backward a random gradient in the place of a loss. Backward keeps the input of "
             "each layer and which keys its rows kept, and computes the rest again chunk by chunk, "
             "so the memory of a layer does not grow with what lies between; results do not depend "
             "on --chunk. Every row is a process of its own. --layers 1 --ff 0 is an attention "
             "layer "
             "with its projections.\n\nPrints the time for each token, the operations of dense "
             "layers with full attention divided by the time, their share of the machine's "
             "measured "
             "peak, the peak memory over inputs and outputs (x, y, weights; dx, dy and the "
             "weights' "
             "gradients), that of the whole process, and what is kept between forward and "
             "backward.\n\nWith --json: {\"machine\": {...}, \"results\": [{impl, work, attn, "
             "pass, "
             "L, heads, head_dim, k, threads, seconds_min, seconds_median, peak_bytes, layers, "
             "kv_heads, ff, ff_k, causal, chunk, kept, us_per_token, gigaflops, peak_share, "
             "process_bytes, saved_bytes, checksum}], \"command\"}: checksum is the sum of squares "
             "of the outputs.",
         .example =
             "keyhole bench stack -L 32768 --layers 12 --heads 12 --head-dim 64 --ff 3072 -k "
             "64 --pass fwd+bwd",
         .groups = groups},
    .run = run,
};
