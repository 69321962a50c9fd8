/* The paper's feed-forward layer as a measurement: D wide, F neurons, k kept, forward, or forward and
 * backward, through the public functions.
 *
 * Inputs are standard normal, weights too, divided by the square root of the width they are multiplied
 * with, so that activations have the size of a trained layer's. Inputs and outputs, gradients included, are
 * touched before the clock and the memory start. Operations are those of the dense layer, so that rates
 * compare with a dense kernel's. */
#include <keyhole/bench.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "bench/arrays.h"
#include "bench/isolate.h"
#include "bench/repeat.h"
#include "cpu/cpu.h"

#include <math.h>
#include <string.h>

typedef struct layer {
    const kh_bench_ff_options *o; /* without zeros */
    kh_ff_args args;
    kh_ff_gradients gradients;
    float *x, *in, *up, *out, *dy;
} layer;

static kh_status once(void *context)
{
    layer *l = context;
    KH_TRY(kh_ff_topk_forward(&l->args));
    if (l->o->pass == KH_BENCH_FORWARD) return KH_OK;
    return kh_ff_topk_backward(&l->args, &l->gradients);
}

static kh_status new_input(const layer *l, float **x, size_t n, uint64_t stream, double size)
{
    return kh_new_normal(x, n, size, l->o->seed, stream, l->o->threads,
                         "an input of a feed-forward layer");
}

static kh_status new_output(float **x, size_t n)
{
    return kh_new_touched(x, n, "an output of a feed-forward layer");
}

static kh_status open_arrays(layer *l)
{
    kh_ff_args *a = &l->args;
    kh_ff_gradients *g = &l->gradients;
    size_t D = a->width, rows = a->rows * D, weights = a->hidden * D;
    double in = 1 / sqrt((double)D), out = 1 / sqrt((double)a->hidden);
    KH_TRY(new_input(l, &l->x, rows, 1, 1));
    KH_TRY(new_input(l, &l->in, weights, 2, in));
    KH_TRY(new_input(l, &l->out, weights, 3, out));
    if (l->o->gated) KH_TRY(new_input(l, &l->up, weights, 4, in));
    KH_TRY(new_output(&a->y, rows));
    a->x = l->x;
    a->in = l->in;
    a->up = l->up;
    a->out = l->out;
    if (l->o->pass == KH_BENCH_FORWARD) return KH_OK;
    KH_TRY(new_input(l, &l->dy, rows, 5, 1));
    g->dy = l->dy;
    KH_TRY(new_output(&g->dx, rows));
    KH_TRY(new_output(&g->din, weights));
    if (l->o->gated) KH_TRY(new_output(&g->dup, weights));
    KH_TRY(new_output(&g->dout, weights));
    if (a->k == 0) return KH_OK;
    KH_TRY(kh_new(&a->indices, a->rows * a->k, sizeof *a->indices, "the kept neurons"));
    return kh_new(&a->counts, a->rows, sizeof *a->counts, "their counts");
}

static void close_layer(layer *l)
{
    float *all[] = {l->x,
                    l->in,
                    l->up,
                    l->out,
                    l->dy,
                    l->args.y,
                    l->gradients.dx,
                    l->gradients.din,
                    l->gradients.dup,
                    l->gradients.dout};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) kh_free(all[i]);
    kh_free(l->args.indices);
    kh_free(l->args.counts);
}

static kh_status measure(void *context, void *result)
{
    layer l = *(const layer *)context;
    const kh_ff_args *a = &l.args;
    kh_bench_ff_result *out = result;
    *out = (kh_bench_ff_result){
        .rows = a->rows, .hidden = a->hidden, .k = a->k, .threads = l.o->threads};
    kh_status status = open_arrays(&l);
    uint64_t before = kh_cpu_rss();
    if (status == KH_OK)
        status = kh_repeat(l.o->repeat, once, &l, &out->seconds_min, &out->seconds_median);
    uint64_t peak = kh_cpu_peak_rss();
    double each = (l.o->gated ? 6 : 4) * (l.o->pass == KH_BENCH_FORWARD ? 1 : 3);
    out->peak_bytes = peak > before ? peak - before : 0;
    out->microseconds = out->seconds_min / (double)a->rows * 1e6;
    out->gigaflops = each * (double)a->width * (double)a->hidden / out->microseconds * 1e-3;
    close_layer(&l);
    return status;
}

kh_status kh_bench_ff(const kh_bench_ff_options *options,
                      kh_status (*row)(void *context, const kh_bench_ff_result *result),
                      void *context)
{
    kh_bench_ff_options o = *options;
    if (o.width == 0) o.width = 768;
    if (o.repeat == 0) o.repeat = 3;
    if (o.threads == 0) o.threads = kh_cpu_count();
    if (o.repeat < 0 || o.threads < 0)
        KH_FAIL(KH_ERR_ARGUMENT, "bench ff: counts are not negative");
    for (size_t f = 0; f < o.hidden_count; f++)
        for (size_t t = 0; t < o.row_count; t++)
            for (size_t k = 0; k < o.keep_count; k++) {
                kh_bench_ff_result result;
                layer l = {.o = &o,
                           .args = {.rows = o.rows[t],
                                    .width = o.width,
                                    .hidden = o.hiddens[f],
                                    .k = o.keeps[k] < o.hiddens[f] ? o.keeps[k] : 0,
                                    .act = o.act,
                                    .rule = o.rule,
                                    .chunk = o.chunk,
                                    .threads = o.threads}};
                if (o.rows[t] < 1 || o.hiddens[f] < 1)
                    KH_FAIL(KH_ERR_ARGUMENT, "bench ff: 0 tokens or neurons leave nothing to do");
                KH_TRY(kh_isolate(o.isolate, measure, &l, &result, sizeof result));
                KH_TRY(row(context, &result));
            }
    return KH_OK;
}
