/* keyhole bench attention, decode and select: what attention costs, without a model.
 *
 * The paper's layer (12 heads of 64, causal) is the default. Three outputs show the same rows: a table as
 * they come, --csv, and --json, whose keys other programs rely on: bench/peers/attention, scripts/numbers.
 * Every figure can be judged by what the machine does at most, which is measured first. */
#include "cli/cli.h"
#include "cli/report.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdio.h>
#include <string.h>

static const char *const passes[] = {"fwd", "fwd+bwd", NULL}; /* as kh_bench_pass */
static const char *const kinds[] = {"all",   "gaussian", "heavy", "ascending",
                                    "equal", "ties",     NULL}; /* kh_bench_scores + 1 */

typedef struct sink {
    const cli_args *args;
    kh_bench_machine machine;
    json_t *results; /* NULL without --json and --report */
    size_t rows;
    int width; /* of the column of settings */
    int batch, heads, key_heads;
} sink;

/* ---- shared ---- */

static kh_status open_sink(sink *s)
{
    KH_TRY(cli_results_begin(&s->results, s->args));
    KH_TRY(kh_bench_machine_measure(&s->machine));
    const kh_bench_machine *m = &s->machine;
    if (s->args->json) return KH_OK;
    cli_out(
        "%s%s, %d cores (%s), %.0f GiB; %.0f GFLOP/s a core; reads %.1f GB/s, all cores %.1f\n%s",
        s->args->csv ? "# machine: " : "", m->cpu, m->cores, m->isa,
        (double)m->memory_bytes / (1 << 30), m->gigaflops, m->gigabytes, m->gigabytes_all,
        s->args->csv ? "" : "\n");
    return cli_out_flush();
}

static kh_status close_sink(sink *s, kh_status status)
{
    return cli_results_end(s->results, &s->machine, s->args, status);
}

/* What bench attention and bench decode run over: settings x lengths, again for each number of threads. */
typedef struct work_list {
    size_t *lengths, *threads;
    cli_settings attns;
    size_t length_count, thread_count;
} work_list;

static kh_status open_work(work_list *w, const cli_args *args, const int64_t *usual, size_t count)
{
    static const int64_t all[] = {0};
    KH_TRY(cli_sizes(&w->lengths, &w->length_count, &args->lengths, usual, count));
    static const char *const settings[] = {"full", "topk:k=128"};
    KH_TRY(cli_settings_open(&w->attns, args, settings, 2));
    return cli_sizes(&w->threads, &w->thread_count, &args->thread_list, all, 1);
}

static void close_work(work_list *w)
{
    kh_free(w->lengths);
    kh_free(w->threads);
    cli_settings_close(&w->attns);
}

/* ---- bench attention ---- */

static void attention_table(sink *s, const kh_bench_attention_result *r, double share)
{
    char peak[32];
    if (s->rows++ == 0)
        cli_out("%-*s  pass          L  threads  us/query/head   GFLOP/s  of peak       min s    "
                "median s       peak\n",
                s->width, "attn");
    cli_out("%-*s  %-7s  %6zu  %7d  %13.2f  %8.1f  %5.0f %%  %10.4f  %10.4f  %9s\n", s->width,
            r->attn, passes[s->args->pass], r->length, r->threads, r->microseconds, r->gigaflops,
            100 * share, r->seconds_min, r->seconds_median,
            cli_bytes(peak, sizeof peak, r->peak_bytes));
}

static void attention_csv(sink *s, const kh_bench_attention_result *r, double share)
{
    if (s->rows++ == 0)
        cli_out("impl,work,attn,pass,L,heads,head_dim,k,threads,seconds_min,seconds_median,"
                "peak_bytes,batch,kv_heads,causal,chunk,us_per_query_head,gigaflops,peak_share,"
                "process_bytes,saved_bytes\n");
    cli_out(
        "keyhole,attention,\"%s\",%s,%zu,%d,%d,%d,%d,%.6f,%.6f,%llu,%d,%d,%d,%lld,%.4f,%.3f,%.4f,"
        "%llu,%llu\n",
        r->attn, passes[s->args->pass], r->length, s->heads, (int)s->args->head_dim, r->k,
        r->threads, r->seconds_min, r->seconds_median, (unsigned long long)r->peak_bytes, s->batch,
        s->key_heads, !s->args->no_causal, (long long)s->args->chunk, r->microseconds, r->gigaflops,
        share, (unsigned long long)r->process_bytes, (unsigned long long)r->saved_bytes);
}

static json_t *attention_json(const sink *s, const kh_bench_attention_result *r, double share)
{
    json_t *one = json_pack("{s:s, s:s, s:s, s:s, s:I, s:i, s:i, s:i, s:i, s:o, s:o, s:I}", "impl",
                            "keyhole", "work", "attention", "attn", r->attn, "pass",
                            passes[s->args->pass], "L", (json_int_t)r->length, "heads", s->heads,
                            "head_dim", (int)s->args->head_dim, "k", r->k, "threads", r->threads,
                            "seconds_min", wire_real(r->seconds_min), "seconds_median",
                            wire_real(r->seconds_median), "peak_bytes", (json_int_t)r->peak_bytes);
    json_t *more =
        json_pack("{s:i, s:i, s:b, s:I, s:o, s:o, s:o, s:I, s:I}", "batch", s->batch, "kv_heads",
                  s->key_heads, "causal", !s->args->no_causal, "chunk", (json_int_t)s->args->chunk,
                  "us_per_query_head", wire_real(r->microseconds), "gigaflops",
                  wire_real(r->gigaflops), "peak_share", wire_real(share), "process_bytes",
                  (json_int_t)r->process_bytes, "saved_bytes", (json_int_t)r->saved_bytes);
    if (!one || !more || json_object_update(one, more) != 0) {
        json_decref(one);
        one = NULL;
    }
    json_decref(more);
    return one;
}

static kh_status attention_row(void *context, const kh_bench_attention_result *r)
{
    sink *s = context;
    double share = r->gigaflops / (s->machine.gigaflops * r->threads);
    if (s->results) KH_TRY(cli_json_add(s->results, attention_json(s, r, share)));
    if (s->args->json) return KH_OK;
    (s->args->csv ? attention_csv : attention_table)(s, r, share);
    return cli_row_done();
}

static kh_status heads_of(const cli_args *args, sink *s)
{
    s->heads = (int)args->heads;
    s->key_heads = args->kv_heads ? (int)args->kv_heads : s->heads;
    if (s->heads % s->key_heads != 0)
        KH_FAIL(KH_ERR_ARGUMENT, "--heads %d is not a multiple of --kv-heads %d", s->heads,
                s->key_heads);
    return KH_OK;
}

static kh_status attention_rows(sink *s, kh_bench_attention_options *o, const work_list *w)
{
    o->lengths = w->lengths;
    o->length_count = w->length_count;
    o->attns = w->attns.items;
    o->attn_count = w->attns.count;
    s->width = cli_settings_width(&w->attns);
    kh_status status = open_sink(s);
    for (size_t i = 0; i < w->thread_count && status == KH_OK; i++) {
        o->threads = (int)w->threads[i];
        status = kh_bench_attention(o, attention_row, s);
    }
    return close_sink(s, status);
}

static kh_status run_attention(cli_args *args, const char **words, size_t word_count)
{
    static const int64_t usual[] = {2048, 4096};
    (void)words;
    (void)word_count;
    sink s = {.args = args, .batch = (int)args->batch};
    if (args->causal && args->no_causal)
        KH_FAIL(KH_ERR_ARGUMENT, "--causal and --no-causal contradict each other");
    KH_TRY(heads_of(args, &s));
    kh_bench_attention_options o = {.pass = (kh_bench_pass)args->pass,
                                    .mask = args->no_causal ? KH_ATTENTION_FREE
                                                            : KH_ATTENTION_CAUSAL,
                                    .batch = s.batch,
                                    .heads = s.heads,
                                    .key_heads = s.key_heads,
                                    .width = (int)args->head_dim,
                                    .chunk = (size_t)args->chunk,
                                    .repeat = (int)args->repeat,
                                    .seed = (uint64_t)args->seed,
                                    .isolate = 1};
    work_list w = {0};
    kh_status status = open_work(&w, args, usual, 2);
    if (status == KH_OK) status = attention_rows(&s, &o, &w);
    close_work(&w);
    return status;
}

#define HEAD_OPTIONS                                                                               \
    CLI_INT(heads, "--heads", "N", "query heads", "12", 1, 1024, NULL),                            \
        CLI_INT(kv_heads, "--kv-heads", "N", "key heads; 0 is as many as query heads", "0", 0,     \
                1024, NULL),                                                                       \
        CLI_INT(head_dim, "--head-dim", "N", "width of a head", "64", 1, 1024, NULL)
#define SETTING_OPTIONS                                                                            \
    CLI_TEXTS(attns, "--attn", "SPEC",                                                             \
              "attention setting, as keyhole run takes it (default: full and topk:k=128)"),        \
        CLI_INTS(keeps, "-k", "short for --attn topk:k=N", 1, 1 << 24)

static const kh_opt shape[] = {
    CLI_INTS(lengths, "-L --length", "queries and keys (default: 2048,4096)", 1, 1 << 24),
    HEAD_OPTIONS,
    CLI_INT(batch, "--batch", "N", "sequences", "1", 1, 1024, NULL),
    CLI_FLAG(causal, "--causal", "each query sees the keys up to its own (the default)"),
    CLI_FLAG(no_causal, "--no-causal", "each query sees all keys"),
    CLI_END};
static const kh_opt work[] = {
    SETTING_OPTIONS,
    CLI_CHOICE(pass, "--pass", "PASS", "forward, or forward and backward", "fwd", passes, NULL),
    CLI_INT(chunk, "--chunk", "N", "queries that a call is given; 0 is all", "0", 0, 1 << 24, NULL),
    CLI_END};
static const kh_opt runs[] = {
    CLI_INTS(thread_list, "-t --threads", "thread counts; 0 is all processors (default: 0)", 0,
             1024),
    CLI_INT(repeat, "-r --repeat", "N", "timed runs of each row, after one that is not", "5", 1,
            1000, NULL),
    CLI_INT(seed, "-s --seed", "N", "seed of the random numbers", "0", 0, 4294967295.0, NULL),
    CLI_END};
static const kh_opt_group attention_groups[] = {{"Shape", shape},
                                                {"Work", work},
                                                {"Runs", runs},
                                                {"Output", cli_options_output_rows},
                                                CLI_NO_GROUP};

const cli_verb cli_verb_attention = {
    .group = "Measure",
    .command = {.name = "bench attention",
                .does = "speed and memory of attention on random arrays, without a model",
                .most_words = 0,
                .about =
                    "Times kh_attention_forward, and kh_attention_backward behind it, on standard "
                    "normal queries, keys and values; every row is a process of its own. Prints "
                    "the time for each query and head, the operations that full attention needs "
                    "divided by the time (4 for each visible pair and element forward, 14 with "
                    "backward), their share of the machine's measured peak, and the peak memory "
                    "over inputs and outputs.\n\nWith --json: {\"machine\": {cpu, isa, cores, "
                    "memory_bytes, gigaflops_per_core, read_gigabytes, read_gigabytes_all}, "
                    "\"results\": [{impl, work, attn, pass, L, heads, head_dim, k, threads, "
                    "seconds_min, seconds_median, peak_bytes, batch, kv_heads, causal, chunk, "
                    "us_per_query_head, gigaflops, peak_share, process_bytes, saved_bytes}], "
                    "\"command\"}; k is 0 where a row keeps all keys.\n\nbench/peers/attention "
                    "runs the same work with PyTorch in turn; keyhole bench report draws the "
                    "curves of both.",
                .example = "keyhole bench attention -t 1 -L 2048,4096 --heads 12 --head-dim 64 -k "
                           "128 --attn full --pass fwd+bwd",
                .groups = attention_groups},
    .run = run_attention,
};

/* ---- bench decode ---- */

static kh_status decode_row(void *context, const kh_bench_decode_result *r)
{
    sink *s = context;
    double bandwidth = r->threads > 1 ? s->machine.gigabytes_all : s->machine.gigabytes;
    double share = r->gigabytes / bandwidth, reading = r->bytes / bandwidth * 1e-9;
    char attn[280];
    snprintf(attn, sizeof attn, "%s%s", r->attn, r->shadow ? " +shadow" : "");
    if (s->results)
        KH_TRY(cli_json_add(
            s->results,
            json_pack("{s:s, s:s, s:s, s:s, s:I, s:i, s:i, s:i, s:i, s:o, s:o, s:I, s:i, s:o, s:o, "
                      "s:b, s:o, s:o}",
                      "impl", "keyhole", "work", "decode", "attn", attn, "pass", "fwd", "L",
                      (json_int_t)r->length, "heads", s->heads, "head_dim", (int)s->args->head_dim,
                      "k", r->k, "threads", r->threads, "seconds_min", wire_real(r->seconds_min),
                      "seconds_median", wire_real(r->seconds_median), "peak_bytes",
                      (json_int_t)r->peak_bytes, "kv_heads", s->key_heads, "gigabytes",
                      wire_real(r->gigabytes), "bandwidth_share", wire_real(share), "key_shadow",
                      r->shadow, "reading_seconds", wire_real(reading), "reading_ratio",
                      wire_real(r->seconds_min / reading))));
    if (s->args->json) return KH_OK;
    if (s->args->csv) {
        if (s->rows++ == 0)
            cli_out("impl,work,attn,pass,L,heads,head_dim,k,threads,seconds_min,seconds_median,"
                    "peak_bytes,kv_heads,gigabytes,bandwidth_share,reading_seconds\n");
        cli_out("keyhole,decode,\"%s\",fwd,%zu,%d,%d,%d,%d,%.9f,%.9f,%llu,%d,%.3f,%.4f,%.9f\n",
                attn, r->length, s->heads, (int)s->args->head_dim, r->k, r->threads, r->seconds_min,
                r->seconds_median, (unsigned long long)r->peak_bytes, s->key_heads, r->gigabytes,
                share, reading);
        return cli_row_done();
    }
    if (s->rows++ == 0)
        cli_out("%-*s       L  threads      min us   median us     GB/s  reading us  times\n",
                s->width, "attn");
    cli_out("%-*s  %6zu  %7d  %10.1f  %10.1f  %7.2f  %10.1f  %5.2f\n", s->width, attn, r->length,
            r->threads, r->seconds_min * 1e6, r->seconds_median * 1e6, r->gigabytes, reading * 1e6,
            1 / share);
    return cli_row_done();
}

static kh_status decode_rows(sink *s, kh_bench_decode_options *o, const work_list *w)
{
    o->lengths = w->lengths;
    o->length_count = w->length_count;
    o->attns = w->attns.items;
    o->attn_count = w->attns.count;
    s->width = cli_settings_width(&w->attns) + (o->shadow ? 8 : 0);
    kh_status status = open_sink(s);
    for (size_t i = 0; i < w->thread_count && status == KH_OK; i++) {
        o->threads = (int)w->threads[i];
        status = kh_bench_decode(o, decode_row, s);
    }
    return close_sink(s, status);
}

static kh_status run_decode(cli_args *args, const char **words, size_t word_count)
{
    static const int64_t usual[] = {2048, 8192, 65536};
    (void)words;
    (void)word_count;
    sink s = {.args = args};
    KH_TRY(heads_of(args, &s));
    kh_bench_decode_options o = {.heads = s.heads,
                                 .key_heads = s.key_heads,
                                 .width = (int)args->head_dim,
                                 .k_type = (kh_cache_type)args->k_type,
                                 .v_type = (kh_cache_type)args->v_type,
                                 .shadow = (kh_bench_shadow)args->key_shadow,
                                 .repeat = (int)args->repeat,
                                 .seed = (uint64_t)args->seed,
                                 .isolate = 1};
    work_list w = {0};
    kh_status status = open_work(&w, args, usual, 3);
    if (status == KH_OK) status = decode_rows(&s, &o, &w);
    close_work(&w);
    return status;
}

static const char *const cache_types[] = {"f16", "f32", "q8_0", NULL}; /* as kh_cache_type */
static const char *const shadows[] = {"off", "on", "both", NULL};      /* as kh_bench_shadow */
static const kh_opt cache[] = {CLI_INTS(lengths, "-L --length",
                                        "positions in the cache (default: 2048,8192,65536)", 1,
                                        1 << 24),
                               HEAD_OPTIONS,
                               CLI_CHOICE(k_type, "-ctk --cache-type-k", "TYPE",
                                          "type of the cached keys", "f16", cache_types, NULL),
                               CLI_CHOICE(v_type, "-ctv --cache-type-v", "TYPE",
                                          "type of the cached values", "f16", cache_types, NULL),
                               CLI_CHOICE(key_shadow, "--key-shadow", "WHICH",
                                          "reads keys through an int8 copy: on, off, or rows of "
                                          "both",
                                          "off", shadows, NULL),
                               CLI_END};
static const kh_opt decode_work[] = {SETTING_OPTIONS, CLI_END};
static const kh_opt_group decode_groups[] = {{"Cache", cache},
                                             {"Work", decode_work},
                                             {"Runs", runs},
                                             {"Output", cli_options_output_rows},
                                             CLI_NO_GROUP};

const cli_verb cli_verb_decode = {
    .group = "Measure",
    .command = {.name = "bench decode",
                .does = "speed of one token's attention over a cache",
                .most_words = 0,
                .about =
                    "Times the attention of one generated token over a cache of random keys and "
                    "values that is too large for the processor's caches. Prints the time of one "
                    "layer, and beside it the time in which the machine reads the bytes of the "
                    "keys (or of their copies) and of the mixed values, and how many times that "
                    "it is.\n\nWith --json: {\"machine\": {...}, "
                    "\"results\": [{impl, work, attn, pass, L, heads, head_dim, k, threads, "
                    "seconds_min, seconds_median, peak_bytes, kv_heads, gigabytes, "
                    "bandwidth_share, key_shadow, reading_seconds, reading_ratio}]}.",
                .example = "keyhole bench decode -t 2 -L 8192 --heads 9 --kv-heads 3 -k 128",
                .groups = decode_groups},
    .run = run_decode,
};

/* ---- bench select ---- */

static kh_status select_row(void *context, const kh_bench_select_result *r)
{
    sink *s = context;
    const char *scores = kh_bench_scores_name(r->scores);
    char attn[32];
    snprintf(attn, sizeof attn, "topk:k=%zu", r->k);
    if (s->results)
        KH_TRY(cli_json_add(
            s->results,
            json_pack("{s:s, s:s, s:s, s:s, s:I, s:i, s:i, s:I, s:i, s:o, s:o, s:I, s:s, s:o}",
                      "impl", "keyhole", "work", "select", "attn", attn, "pass", "fwd", "L",
                      (json_int_t)r->length, "heads", 1, "head_dim", 0, "k", (json_int_t)r->k,
                      "threads", 1, "seconds_min", wire_real(r->seconds_min), "seconds_median",
                      wire_real(r->seconds_median), "peak_bytes", (json_int_t)r->peak_bytes,
                      "scores", scores, "ns_per_score", wire_real(r->nanoseconds))));
    if (s->args->json) return KH_OK;
    if (s->args->csv) {
        if (s->rows++ == 0)
            cli_out("impl,work,attn,pass,L,heads,head_dim,k,threads,seconds_min,seconds_median,"
                    "peak_bytes,scores,ns_per_score\n");
        cli_out("keyhole,select,%s,fwd,%zu,1,0,%zu,1,%.9f,%.9f,%llu,%s,%.4f\n", attn, r->length,
                r->k, r->seconds_min, r->seconds_median, (unsigned long long)r->peak_bytes, scores,
                r->nanoseconds);
        return cli_row_done();
    }
    if (s->rows++ == 0)
        cli_out("%-10s  %8s  %6s  %10s  %10s  %10s\n", "scores", "L", "k", "ns/score", "min us",
                "median us");
    cli_out("%-10s  %8zu  %6zu  %10.3f  %10.2f  %10.2f\n", scores, r->length, r->k, r->nanoseconds,
            r->seconds_min * 1e6, r->seconds_median * 1e6);
    return cli_row_done();
}

static kh_status run_select(cli_args *args, const char **words, size_t word_count)
{
    static const int64_t usual_lengths[] = {2048, 4096, 16384, 65536};
    static const int64_t usual_keeps[] = {32, 128, 512, 2048};
    (void)words;
    (void)word_count;
    kh_bench_scores one = (kh_bench_scores)(args->scores - 1);
    kh_bench_select_options o = {.scores = &one,
                                 .score_count = args->scores > 0,
                                 .repeat = (int)args->repeat,
                                 .seed = (uint64_t)args->seed,
                                 .isolate = 1};
    size_t *lengths = NULL, *keeps = NULL;
    sink s = {.args = args};
    kh_status status = cli_sizes(&lengths, &o.length_count, &args->lengths, usual_lengths, 4);
    if (status == KH_OK) status = cli_sizes(&keeps, &o.keep_count, &args->keeps, usual_keeps, 4);
    o.lengths = lengths;
    o.keeps = keeps;
    if (status == KH_OK) status = open_sink(&s);
    if (status == KH_OK) status = kh_bench_select(&o, select_row, &s);
    kh_free(lengths);
    kh_free(keeps);
    return close_sink(&s, status);
}

static const kh_opt rows[] = {
    CLI_INTS(lengths, "-L --length", "scores of a row (default: 2048,4096,16384,65536)", 1,
             1 << 24),
    CLI_INTS(keeps, "-k", "kept scores (default: 32,128,512,2048)", 1, 1 << 24),
    CLI_CHOICE(scores, "--scores", "KIND", "what the rows hold", "all", kinds, NULL), CLI_END};
static const kh_opt select_runs[] = {
    CLI_INT(repeat, "-r --repeat", "N", "timed runs of each row, after one that is not", "5", 1,
            1000, NULL),
    CLI_INT(seed, "-s --seed", "N", "seed of the random numbers", "0", 0, 4294967295.0, NULL),
    CLI_END};
static const kh_opt_group select_groups[] = {
    {"Rows", rows}, {"Runs", select_runs}, {"Output", cli_options_output_rows}, CLI_NO_GROUP};

const cli_verb cli_verb_select = {
    .group = "Measure",
    .command = {.name = "bench select",
                .does = "speed of finding the k largest of a row of scores",
                .most_words = 0,
                .about = "Times kh_select_topk on one thread, over 16 rows in turn: gaussian "
                         "scores, heavy-tailed ones, gaussian ascending, all equal, and many "
                         "ties.\n\nWith --json: "
                         "{\"machine\": {...}, \"results\": [{impl, work, attn, pass, L, heads, "
                         "head_dim, k, threads, seconds_min, seconds_median, peak_bytes, scores, "
                         "ns_per_score}]}; times are of one row.",
                .example = "keyhole bench select -L 16384,65536 -k 128,2048 --scores gaussian",
                .groups = select_groups},
    .run = run_select,
};
