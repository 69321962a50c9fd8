/* The paper's model as a measurement, as far as it exists without a trainer: layers one behind the other
 * (bench/stack_layer.c), forward, or forward and backward from a random gradient.
 *
 *     inputs, outputs   x y W | dy dx dW                touched before the clock and the memory start
 *     measured          input of layer 1, 2 ... [L][D] each | kept keys | one more [L][D] | a group of heads
 *
 * Backward walks the layers in reverse; the gradient goes to and fro between dx and one more array, and
 * begins where it ends in dx. Forward alone needs one array beside y. */
#include <keyhole/bench.h>

#include "attn/attn.h"
#include "attn/method.h"
#include "base/alloc.h"
#include "base/fail.h"
#include "bench/arrays.h"
#include "bench/isolate.h"
#include "bench/repeat.h"
#include "bench/stack_layer.h"
#include "cpu/cpu.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct model {
    const kh_bench_stack_options *o; /* without zeros */
    kh_stack_shape shape;
    size_t N, rows, wide[4];               /* layers; L D; elements of a layer's weights */
    kh_stack_weights *weights, *gradients; /* [N] */
    float *x, *y, *dy, *dx, *other;        /* [L][D] */
    float **inputs;                        /* [N] of the layers; the first is x */
    kh_attention_saved *saved;             /* [N], or [1] where only inputs are kept */
    uint64_t saved_bytes;
    kh_stack stack;
} model;

/* ---- inputs and outputs ---- */

static kh_status normal(const model *m, float **x, size_t n, uint64_t stream, double size)
{
    return kh_new_normal(x, n, size, m->o->seed, stream, m->o->threads, "an input of the layers");
}

static kh_status output(float **x, size_t n)
{
    return kh_new_touched(x, n, "an output of the layers");
}

static int is_backward(const model *m)
{
    return m->o->pass != KH_BENCH_FORWARD;
}

static kh_status open_weights(model *m)
{
    size_t D = (size_t)m->o->heads * (size_t)m->o->width, G = (size_t)m->o->key_heads;
    size_t wide[] = {(D + 2 * G * (size_t)m->o->width) * D, D * D, m->o->hidden * D,
                     m->o->hidden * D};
    memcpy(m->wide, wide, sizeof wide);
    KH_TRY(kh_new(&m->weights, m->N, sizeof *m->weights, "the layers"));
    KH_TRY(kh_new(&m->gradients, m->N, sizeof *m->gradients, "the layers"));
    for (size_t l = 0; l < m->N; l++) {
        kh_stack_weights *w = &m->weights[l], *g = &m->gradients[l];
        float **to[] = {&w->qkv, &w->o, &w->in, &w->out};
        float **grad[] = {&g->qkv, &g->o, &g->in, &g->out};
        for (size_t i = 0; i < 4; i++) {
            if (wide[i] == 0) continue;
            double size = 1 / sqrt((double)(i == 3 ? m->o->hidden : D));
            KH_TRY(normal(m, to[i], wide[i], 16 + 4 * l + i, size));
            if (is_backward(m)) KH_TRY(output(grad[i], wide[i]));
        }
    }
    return KH_OK;
}

static kh_status open_arrays(model *m)
{
    KH_TRY(normal(m, &m->x, m->rows, 1, 1));
    KH_TRY(output(&m->y, m->rows));
    KH_TRY(open_weights(m));
    if (!is_backward(m)) return KH_OK;
    KH_TRY(normal(m, &m->dy, m->rows, 2, 1));
    return output(&m->dx, m->rows);
}

/* ---- what the library would hold ---- */

static kh_status open_kept(model *m)
{
    KH_TRY(kh_stack_open(&m->stack, &m->shape));
    if (m->N > 1 || (is_backward(m) && m->o->hidden > 0))
        KH_TRY(kh_new(&m->other, m->rows, sizeof *m->other, "rows of the layers"));
    if (!is_backward(m)) return KH_OK;
    KH_TRY(kh_new(&m->inputs, m->N, sizeof *m->inputs, "the inputs of the layers"));
    m->inputs[0] = m->x;
    for (size_t l = 1; l < m->N; l++) {
        KH_TRY(kh_new(&m->inputs[l], m->rows, sizeof **m->inputs, "the input of a layer"));
        m->saved_bytes += m->rows * sizeof **m->inputs;
    }
    size_t count = m->o->keep == KH_BENCH_KEEP_CHOICE ? m->N : 1;
    KH_TRY(kh_new(&m->saved, m->N, sizeof *m->saved, "the kept keys of the layers"));
    for (size_t l = 0; l < count; l++)
        KH_TRY(kh_stack_saved_open(&m->stack, &m->saved[l], &m->saved_bytes));
    return KH_OK;
}

static void close_model(model *m)
{
    for (size_t l = 0; l < m->N; l++) {
        if (m->inputs && l > 0) kh_free(m->inputs[l]);
        if (m->saved) kh_free_saved(&m->saved[l]);
        kh_stack_weights none = {0}, w = m->weights ? m->weights[l] : none,
                         g = m->gradients ? m->gradients[l] : none;
        float *all[] = {w.qkv, w.o, w.in, w.out, g.qkv, g.o, g.in, g.out};
        for (size_t i = 0; i < 8; i++) kh_free(all[i]);
    }
    void *all[] = {m->weights, m->gradients, m->x,      m->y,    m->dy,
                   m->dx,      m->other,     m->inputs, m->saved};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) kh_free(all[i]);
    kh_stack_close(&m->stack);
}

/* ---- the passes ---- */

static kh_status forward(model *m)
{
    const float *x = m->x;
    for (size_t l = 0; l < m->N; l++) {
        int last = l + 1 == m->N;
        float *y = last ? m->y : m->inputs ? m->inputs[l + 1] : (m->N - l) % 2 ? m->y : m->other;
        int keep = is_backward(m) && m->o->keep == KH_BENCH_KEEP_CHOICE;
        KH_TRY(kh_stack_layer_forward(&m->stack, &m->weights[l], y, x, keep ? &m->saved[l] : NULL));
        x = y;
    }
    return KH_OK;
}

static kh_status backward(model *m)
{
    const float *dy = m->dy;
    int chosen = m->o->keep == KH_BENCH_KEEP_CHOICE;
    for (size_t l = m->N; l-- > 0;) {
        const kh_stack_weights *g = &m->gradients[l];
        float *to[] = {g->qkv, g->o, g->in, g->out};
        for (size_t i = 0; i < 4; i++)
            if (m->wide[i] > 0) memset(to[i], 0, m->wide[i] * sizeof(float));
        float *dx = l % 2 == 0 ? m->dx : m->other, *d = l % 2 == 0 ? m->other : m->dx;
        KH_TRY(kh_stack_layer_backward(&m->stack, &m->weights[l], g, dx, dy, d, m->inputs[l],
                                       &m->saved[chosen ? l : 0], chosen));
        dy = dx;
    }
    return KH_OK;
}

static kh_status once(void *context)
{
    model *m = context;
    KH_TRY(forward(m));
    return is_backward(m) ? backward(m) : KH_OK;
}

/* ---- a row ---- */

static double squares(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; x && i < n; i++) sum += (double)x[i] * (double)x[i];
    return sum;
}

static double checksum(const model *m)
{
    double sum = squares(is_backward(m) ? m->dx : m->y, m->rows);
    for (size_t l = 0; is_backward(m) && l < m->N; l++) {
        const kh_stack_weights *g = &m->gradients[l];
        const float *all[] = {g->qkv, g->o, g->in, g->out};
        for (size_t i = 0; i < 4; i++) sum += squares(all[i], m->wide[i]);
    }
    return sum;
}

/* Operations of a token in a dense layer with full attention. */
static double operations(const model *m)
{
    double L = (double)m->shape.L, weights = 0, passes = is_backward(m) ? 3 : 1;
    double keys = m->o->mask == KH_ATTENTION_CAUSAL ? (L + 1) / 2 : L;
    for (size_t i = 0; i < 4; i++) weights += (double)m->wide[i];
    double attention = (is_backward(m) ? 14 : 4) * keys * m->o->heads * m->o->width;
    return (double)m->N * (2 * passes * weights + attention);
}

static kh_status kept_keys(const model *m, int *k)
{
    kh_attn_plan *plan = NULL;
    KH_TRY(kh_attn_plan_parse(&plan, m->shape.attn, 1, m->o->heads));
    *k = kh_attn_plan_at(plan, KH_PHASE_PREFILL, 0, 0)->k;
    kh_attn_plan_free(plan);
    return KH_OK;
}

static kh_status measure(void *context, void *result)
{
    model m = *(const model *)context;
    kh_bench_stack_result *out = result;
    *out =
        (kh_bench_stack_result){.length = m.shape.L, .ff_k = m.shape.keep, .threads = m.o->threads};
    snprintf(out->attn, sizeof out->attn, "%s", m.shape.attn);
    kh_status status = kh_stack_check(&m.shape);
    if (status == KH_OK) status = kept_keys(&m, &out->k);
    if (status == KH_OK) status = open_arrays(&m);
    uint64_t before = kh_cpu_rss();
    if (status == KH_OK) status = open_kept(&m);
    if (status == KH_OK)
        status = kh_repeat(m.o->repeat, once, &m, &out->seconds_min, &out->seconds_median);
    out->process_bytes = kh_cpu_peak_rss();
    out->peak_bytes = out->process_bytes > before ? out->process_bytes - before : 0;
    out->saved_bytes = m.saved_bytes;
    if (status == KH_OK) {
        out->microseconds = out->seconds_min / (double)m.shape.L * 1e6;
        out->gigaflops = operations(&m) / out->microseconds * 1e-3;
        out->checksum = checksum(&m);
    }
    close_model(&m);
    return status;
}

static kh_status check(kh_bench_stack_options *o)
{
    if (o->layers == 0) o->layers = 12;
    if (o->heads == 0) o->heads = 12;
    if (o->key_heads == 0) o->key_heads = o->heads;
    if (o->width == 0) o->width = 64;
    if (o->chunk == 0) o->chunk = 1024;
    if (o->repeat == 0) o->repeat = 1;
    if (o->threads == 0) o->threads = kh_cpu_count();
    if (o->layers < 0 || o->heads < 0 || o->key_heads < 0 || o->width < 0 || o->repeat < 0 ||
        o->threads < 0)
        KH_FAIL(KH_ERR_ARGUMENT, "bench stack: shapes and counts are not negative");
    return KH_OK;
}

static model model_of(const kh_bench_stack_options *o, const char *attn, size_t L, size_t keep)
{
    return (model){.o = o,
                   .N = (size_t)o->layers,
                   .rows = L * (size_t)o->heads * (size_t)o->width,
                   .shape = {.L = L,
                             .F = o->hidden,
                             .chunk = o->chunk,
                             .heads = o->heads,
                             .key_heads = o->key_heads,
                             .width = o->width,
                             .attn = attn,
                             .mask = o->mask,
                             .keep = keep < o->hidden ? keep : 0,
                             .act = KH_FF_RELU,
                             .threads = o->threads,
                             .backward = o->pass != KH_BENCH_FORWARD}};
}

kh_status kh_bench_stack(const kh_bench_stack_options *options,
                         kh_status (*row)(void *context, const kh_bench_stack_result *result),
                         void *context)
{
    kh_bench_stack_options o = *options;
    KH_TRY(check(&o));
    for (size_t a = 0; a < o.attn_count; a++)
        for (size_t i = 0; i < o.length_count; i++)
            for (size_t k = 0; k < o.keep_count; k++) {
                kh_bench_stack_result result;
                model m = model_of(&o, o.attns[a], o.lengths[i], o.keeps[k]);
                KH_TRY(kh_isolate(o.isolate, measure, &m, &result, sizeof result));
                KH_TRY(row(context, &result));
            }
    return KH_OK;
}
