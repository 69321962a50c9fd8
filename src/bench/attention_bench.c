/* The paper's attention layer as a measurement: L queries over L keys, forward, or forward and backward.
 *
 *   inputs, outputs   q k v out | dout dq dk dv       touched before the clock and the memory start
 *   measured          [first, first + C) of q  ->  forward -> saved -> backward, for every chunk
 *
 * Everything goes through the public functions, so the times are what a caller of keyhole/attention.h pays,
 * the copy of keys and values into panels included. With the causal mask a chunk sees the keys up to its own
 * end; the gradients of keys and values are then summed over the chunks, here, as any caller would.
 *
 * Peak memory is that of the process less what it held when inputs and outputs had been filled: what is
 * saved for backward counts, and so does every buffer of the library. Operations are those that full
 * attention would need, 4 E for each visible pair forward and 10 E backward: rates of top-k attention
 * compare with those of a dense kernel and may exceed the machine's peak. */
#include <keyhole/bench.h>

#include "attn/attn.h"
#include "attn/method.h"
#include "base/alloc.h"
#include "base/fail.h"
#include "bench/arrays.h"
#include "bench/isolate.h"
#include "bench/repeat.h"
#include "cpu/cpu.h"

#include <stdio.h>
#include <string.h>

typedef struct layer {
    const kh_bench_attention_options *o; /* without zeros */
    const char *attn;
    size_t L, chunk, q_size, k_size; /* elements of q and of k */
    float *q, *k, *v, *out, *dout, *dq, *dk, *dv;
    float *dk_part, *dv_part; /* NULL where one chunk is all */
    kh_attention_saved saved;
} layer;

static kh_attention_args args_of(const layer *l, size_t first, size_t n)
{
    const kh_bench_attention_options *o = l->o;
    size_t E = (size_t)o->width, row = l->L * E;
    kh_attention_stride of_q = {(size_t)o->heads * row, row, E};
    kh_attention_stride of_k = {(size_t)o->key_heads * row, row, E};
    return (kh_attention_args){.batch = o->batch,
                               .heads = o->heads,
                               .key_heads = o->key_heads,
                               .width = o->width,
                               .queries = n,
                               .keys = o->mask == KH_ATTENTION_CAUSAL ? first + n : l->L,
                               .q = l->q + first * E,
                               .k = l->k,
                               .v = l->v,
                               .out = l->out + first * E,
                               .q_stride = of_q,
                               .k_stride = of_k,
                               .v_stride = of_k,
                               .out_stride = of_q,
                               .attn = l->attn,
                               .mask = o->mask,
                               .threads = o->threads};
}

/* sum += part for the first `keys` keys of every head. */
static void add_keys(const layer *l, float *sum, const float *part, size_t keys)
{
    size_t E = (size_t)l->o->width, heads = (size_t)l->o->batch * (size_t)l->o->key_heads;
    for (size_t h = 0; h < heads; h++)
        for (size_t i = 0; i < keys * E; i++) sum[h * l->L * E + i] += part[h * l->L * E + i];
}

static kh_status one_chunk(layer *l, size_t first, size_t n)
{
    kh_attention_args args = args_of(l, first, n);
    if (l->o->pass == KH_BENCH_FORWARD) return kh_attention_forward(&args);
    kh_attention_gradients gradients = {.dout = l->dout + first * (size_t)l->o->width,
                                        .dq = l->dq + first * (size_t)l->o->width,
                                        .dk = l->dk_part ? l->dk_part : l->dk,
                                        .dv = l->dv_part ? l->dv_part : l->dv};
    KH_TRY(kh_attention_kept(&args, &l->saved.kept));
    args.saved = &l->saved;
    KH_TRY(kh_attention_forward(&args));
    KH_TRY(kh_attention_backward(&args, &gradients));
    if (!l->dk_part) return KH_OK;
    add_keys(l, l->dk, l->dk_part, args.keys);
    add_keys(l, l->dv, l->dv_part, args.keys);
    return KH_OK;
}

static kh_status once(void *context)
{
    layer *l = context;
    if (l->dk_part) {
        memset(l->dk, 0, l->k_size * sizeof *l->dk);
        memset(l->dv, 0, l->k_size * sizeof *l->dv);
    }
    for (size_t first = 0, n; first < l->L; first += n) {
        n = l->L - first < l->chunk ? l->L - first : l->chunk;
        KH_TRY(one_chunk(l, first, n));
    }
    return KH_OK;
}

static kh_status new_input(const layer *l, float **x, size_t n, uint64_t stream)
{
    return kh_new_normal(x, n, 1, l->o->seed, stream, l->o->threads, "an input of attention");
}

static kh_status new_output(float **x, size_t n)
{
    return kh_new_touched(x, n, "an output of attention");
}

static kh_status open_arrays(layer *l)
{
    const kh_bench_attention_options *o = l->o;
    KH_TRY(new_input(l, &l->q, l->q_size, 1));
    KH_TRY(new_input(l, &l->k, l->k_size, 2));
    KH_TRY(new_input(l, &l->v, l->k_size, 3));
    KH_TRY(new_output(&l->out, l->q_size));
    if (o->pass == KH_BENCH_FORWARD) return KH_OK;
    KH_TRY(new_input(l, &l->dout, l->q_size, 4));
    KH_TRY(new_output(&l->dq, l->q_size));
    KH_TRY(new_output(&l->dk, l->k_size));
    return new_output(&l->dv, l->k_size);
}

/* What forward hands to backward, for the largest chunk. */
static kh_status open_saved(layer *l, uint64_t *bytes)
{
    const kh_bench_attention_options *o = l->o;
    kh_attention_args args = args_of(l, l->L - l->chunk, l->chunk);
    size_t rows = (size_t)o->batch * (size_t)o->heads * l->chunk, kept;
    if (o->pass == KH_BENCH_FORWARD) return KH_OK;
    KH_TRY(kh_attention_kept(&args, &kept));
    KH_TRY(kh_new_saved(&l->saved, rows, kept, l->L, bytes));
    if (l->chunk == l->L) return KH_OK;
    KH_TRY(kh_new(&l->dk_part, l->k_size, sizeof *l->dk_part, "the gradients of a chunk"));
    return kh_new(&l->dv_part, l->k_size, sizeof *l->dv_part, "the gradients of a chunk");
}

static void close_layer(layer *l)
{
    float *all[] = {l->q, l->k, l->v, l->out, l->dout, l->dq, l->dk, l->dv, l->dk_part, l->dv_part};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) kh_free(all[i]);
    kh_free_saved(&l->saved);
}

static void rates(const layer *l, kh_bench_attention_result *out)
{
    const kh_bench_attention_options *o = l->o;
    double rows = (double)o->batch * o->heads * (double)l->L, n = (double)l->L;
    double keys = o->mask == KH_ATTENTION_CAUSAL ? (n + 1) / 2 : n;
    double each = o->pass == KH_BENCH_FORWARD ? 4 : 14;
    out->microseconds = out->seconds_min / rows * 1e6;
    out->gigaflops = each * o->width * keys * rows / out->seconds_min * 1e-9;
}

static kh_status measure(void *context, void *result)
{
    layer l = *(const layer *)context;
    kh_bench_attention_result *out = result;
    kh_attn_plan *plan = NULL;
    *out = (kh_bench_attention_result){.length = l.L, .threads = l.o->threads};
    snprintf(out->attn, sizeof out->attn, "%s", l.attn);
    KH_TRY(kh_attn_plan_parse(&plan, l.attn, 1, l.o->heads));
    out->k = kh_attn_plan_at(plan, KH_PHASE_PREFILL, 0, 0)->k;
    kh_attn_plan_free(plan);
    kh_status status = open_arrays(&l);
    uint64_t before = kh_cpu_rss();
    if (status == KH_OK) status = open_saved(&l, &out->saved_bytes);
    if (status == KH_OK)
        status = kh_repeat(l.o->repeat, once, &l, &out->seconds_min, &out->seconds_median);
    out->process_bytes = kh_cpu_peak_rss();
    out->peak_bytes = out->process_bytes > before ? out->process_bytes - before : 0;
    if (status == KH_OK) rates(&l, out);
    close_layer(&l);
    return status;
}

static kh_status check(kh_bench_attention_options *o)
{
    if (o->batch == 0) o->batch = 1;
    if (o->heads == 0) o->heads = 12;
    if (o->key_heads == 0) o->key_heads = o->heads;
    if (o->width == 0) o->width = 64;
    if (o->repeat == 0) o->repeat = 5;
    if (o->threads == 0) o->threads = kh_cpu_count();
    if (o->batch < 0 || o->heads < 0 || o->key_heads < 0 || o->width < 0 || o->repeat < 0 ||
        o->threads < 0)
        KH_FAIL(KH_ERR_ARGUMENT, "bench attention: shapes and counts are not negative");
    return KH_OK;
}

kh_status kh_bench_attention(const kh_bench_attention_options *options,
                             kh_status (*row)(void *context,
                                              const kh_bench_attention_result *result),
                             void *context)
{
    kh_bench_attention_options o = *options;
    KH_TRY(check(&o));
    for (size_t a = 0; a < o.attn_count; a++)
        for (size_t i = 0; i < o.length_count; i++) {
            kh_bench_attention_result result;
            layer l = {.o = &o, .attn = o.attns[a], .L = o.lengths[i]};
            if (l.L < 1)
                KH_FAIL(KH_ERR_ARGUMENT, "bench attention: a length of 0 has nothing to measure");
            l.chunk = o.chunk > 0 && o.chunk < l.L ? o.chunk : l.L;
            l.q_size = (size_t)o.batch * (size_t)o.heads * l.L * (size_t)o.width;
            l.k_size = (size_t)o.batch * (size_t)o.key_heads * l.L * (size_t)o.width;
            KH_TRY(kh_isolate(o.isolate, measure, &l, &result, sizeof result));
            KH_TRY(row(context, &result));
        }
    return KH_OK;
}
