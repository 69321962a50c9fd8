/* Attention of one generated token: one query a head over a cache of S positions, as a model decodes.
 *
 * The cache has as many layers as fill 256 MiB (64 at most, 2 at least), and a token attends in all of them
 * in turn: keys come from memory, as they do where a model's other layers and weights lie between two uses
 * of a page. All layers hold the same random keys and values in places of their own. Times are of one
 * layer. Bytes are those of the keys, which every exact method reads, plus those of the values that it
 * mixes: all of them, or those of the kept keys. With a shadow they are those of the shadow; what is scored
 * again is not counted. */
#include <keyhole/bench.h>

#include "attn/attn.h"
#include "attn/method.h"
#include "base/alloc.h"
#include "base/fail.h"
#include "bench/arrays.h"
#include "bench/isolate.h"
#include "bench/repeat.h"
#include "kern/shadow_kern.h"
#include "kv/kv.h"

#include <math.h>
#include <stdio.h>

#define FILL ((size_t)256 << 20)
enum { MOST_LAYERS = 64, LEAST_LAYERS = 2 };

typedef struct cache {
    const kh_bench_decode_options *o; /* without zeros */
    const char *attn;
    int shadow;
    size_t S, turns; /* turns: tokens of a timed run */
    int layers;
    kh_attn_plan *plan;
    kh_kv_pool *pages;
    kh_kv *kv;
    kh_arena step, *scratch; /* [threads] */
    kh_pool pool;
    float *q, *z; /* [H][E] */
} cache;

static kh_kv_shape shape_of(const cache *c, int layers)
{
    static const kh_type types[] = {KH_TYPE_F16, KH_TYPE_F32, KH_TYPE_Q8_0}; /* kh_cache_type */
    const kh_bench_decode_options *o = c->o;
    return (kh_kv_shape){.layers = layers,
                         .groups = o->key_heads,
                         .k_width = o->width,
                         .v_width = o->width,
                         .k_type = types[o->k_type],
                         .v_type = types[o->v_type],
                         .shadow = c->shadow};
}

static kh_attn_layer layer_of(const cache *c, int layer)
{
    return (kh_attn_layer){.layer = layer,
                           .H = c->o->heads,
                           .G = c->o->key_heads,
                           .E = c->o->width,
                           .scale = 1.0f / sqrtf((float)c->o->width)};
}

static kh_status once(void *context)
{
    cache *c = context;
    kh_span span = {.rows = 1, .position = (int32_t)(c->S - 1)};
    kh_batch batch = {.n = 1, .spans = &span, .span_count = 1};
    kh_run run = {.step = &c->step,
                  .pool = &c->pool,
                  .scratch = c->scratch,
                  .kern = kh_kern_get(kh_cpu_isa()),
                  .batch = &batch,
                  .phase = KH_PHASE_DECODE,
                  .kv_self = &c->kv,
                  .attn = c->plan};
    for (size_t i = 0; i < c->turns; i++)
        for (int n = 0; n < c->layers; n++) {
            kh_attn_layer layer = layer_of(c, n);
            KH_TRY(kh_attn_attend(&run, &layer, c->z, c->q));
        }
    return KH_OK;
}

static kh_status fill(cache *c)
{
    size_t n = c->S * (size_t)c->o->width, E = (size_t)c->o->width;
    float *k = NULL, *v = NULL;
    kh_status status = kh_new(&k, n, sizeof *k, "the keys");
    if (status == KH_OK) status = kh_new(&v, n, sizeof *v, "the values");
    if (status == KH_OK) status = kh_kv_prepare(c->kv, c->S);
    for (int g = 0; g < c->o->key_heads && status == KH_OK; g++) {
        kh_fill_normal(k, n, c->o->seed, 2 * (uint64_t)g + 2, c->pool.threads);
        kh_fill_normal(v, n, c->o->seed, 2 * (uint64_t)g + 3, c->pool.threads);
        for (int layer = 0; layer < c->layers; layer++)
            kh_kv_write(c->kv, kh_kern_get(kh_cpu_isa()), layer, g, c->S, k, E, v, E);
    }
    if (status == KH_OK) kh_kv_advance(c->kv, c->S);
    kh_free(k);
    kh_free(v);
    return status;
}

static kh_status open_cache(cache *c)
{
    const kh_bench_decode_options *o = c->o;
    size_t H = (size_t)o->heads, E = (size_t)o->width, pages = (c->S + KH_PAGE - 1) / KH_PAGE;
    size_t step, scratch;
    kh_kv_shape shape = shape_of(c, 1);
    size_t bytes = kh_kv_page_bytes(&shape) * pages;
    c->layers = bytes * LEAST_LAYERS > FILL  ? LEAST_LAYERS
                : bytes * MOST_LAYERS < FILL ? MOST_LAYERS
                                             : (int)(FILL / bytes);
    shape.layers = c->layers;
    c->turns = c->S * H * (size_t)c->layers < 1 << 20 ? 4 : 1;
    c->pool.threads = o->threads;
    KH_TRY(kh_attn_plan_parse(&c->plan, c->attn, c->layers, o->heads));
    KH_TRY(kh_kv_pool_open(&c->pages, &shape, pages));
    KH_TRY(kh_kv_open(&c->kv, c->pages, c->S));
    KH_TRY(kh_new(&c->q, H * E, sizeof *c->q, "the queries"));
    KH_TRY(kh_new(&c->z, H * E, sizeof *c->z, "the outputs"));
    KH_TRY(kh_new(&c->scratch, (size_t)o->threads, sizeof *c->scratch, "the threads"));
    kh_attn_layer layer = layer_of(c, 0);
    kh_attn_need(c->plan, &layer, &shape, 1, c->S, &step, &scratch);
    KH_TRY(kh_arena_init(&c->step, "attention", step));
    for (int i = 0; i < o->threads; i++)
        KH_TRY(kh_arena_init(&c->scratch[i], "attention scratch", scratch));
    kh_fill_normal(c->q, H * E, o->seed, 1, 1);
    return fill(c);
}

static void close_cache(cache *c)
{
    for (int i = 0; c->scratch && i < c->pool.threads; i++) kh_arena_free(&c->scratch[i]);
    kh_arena_free(&c->step);
    kh_free(c->scratch);
    kh_free(c->q);
    kh_free(c->z);
    kh_kv_close(c->kv);
    kh_kv_pool_close(c->pages);
    kh_attn_plan_free(c->plan);
}

static void rates(const cache *c, kh_bench_decode_result *out)
{
    const kh_attn_setting *s = kh_attn_plan_at(c->plan, KH_PHASE_DECODE, 0, 0);
    const kh_bench_decode_options *o = c->o;
    double S = (double)c->S;
    kh_kv_shape shape = shape_of(c, 1);
    double key = (double)kh_type_row_bytes(shape.k_type, (size_t)o->width);
    double value = (double)kh_type_row_bytes(shape.v_type, (size_t)o->width), mixed = S;
    if (c->shadow) key = (double)kh_shadow_bytes((size_t)o->width) / KH_PAGE;
    if (s->method->kind == KH_KEYS_INDICES) mixed = (double)s->k * o->heads / o->key_heads;
    out->k = s->k;
    out->bytes = o->key_heads * (S * key + fmin(mixed, S) * value);
    out->gigabytes = out->bytes / out->seconds_min * 1e-9;
}

static kh_status measure(void *context, void *result)
{
    cache c = *(const cache *)context;
    kh_bench_decode_result *out = result;
    *out = (kh_bench_decode_result){.length = c.S, .threads = c.o->threads, .shadow = c.shadow};
    snprintf(out->attn, sizeof out->attn, "%s", c.attn);
    kh_status status = open_cache(&c);
    uint64_t before = kh_cpu_rss();
    if (status == KH_OK)
        status = kh_repeat(c.o->repeat, once, &c, &out->seconds_min, &out->seconds_median);
    uint64_t peak = kh_cpu_peak_rss();
    out->peak_bytes = peak > before ? peak - before : 0;
    if (status == KH_OK) {
        out->seconds_min /= (double)c.layers * (double)c.turns;
        out->seconds_median /= (double)c.layers * (double)c.turns;
        rates(&c, out);
    }
    close_cache(&c);
    return status;
}

static kh_status check(kh_bench_decode_options *o)
{
    if (o->heads == 0) o->heads = 12;
    if (o->key_heads == 0) o->key_heads = o->heads;
    if (o->width == 0) o->width = 64;
    if (o->repeat == 0) o->repeat = 5;
    if (o->threads == 0) o->threads = kh_cpu_count();
    if (o->heads < 0 || o->key_heads < 0 || o->heads % o->key_heads != 0 || o->width < 0 ||
        o->repeat < 0 || o->threads < 0)
        KH_FAIL(KH_ERR_ARGUMENT,
                "bench decode: %d heads over %d key heads of %d: heads are a "
                "multiple of key heads, and nothing is negative",
                o->heads, o->key_heads, o->width);
    if ((o->k_type == KH_CACHE_Q8_0 || o->v_type == KH_CACHE_Q8_0) && o->width % 32 != 0)
        KH_FAIL(KH_ERR_ARGUMENT,
                "bench decode: a q8_0 cache needs heads of a multiple of 32, not %d", o->width);
    return KH_OK;
}

kh_status kh_bench_decode(const kh_bench_decode_options *options,
                          kh_status (*row)(void *context, const kh_bench_decode_result *result),
                          void *context)
{
    kh_bench_decode_options o = *options;
    KH_TRY(check(&o));
    for (size_t a = 0; a < o.attn_count; a++)
        for (size_t i = 0; i < 2 * o.length_count; i++) {
            kh_bench_decode_result result;
            cache c = {.o = &o, .attn = o.attns[a], .S = o.lengths[i / 2], .shadow = (int)(i % 2)};
            if (o.shadow == (c.shadow ? KH_BENCH_SHADOW_OFF : KH_BENCH_SHADOW_ON)) continue;
            if (c.S < 1) KH_FAIL(KH_ERR_ARGUMENT, "bench decode: an empty cache");
            KH_TRY(kh_isolate(o.isolate, measure, &c, &result, sizeof result));
            KH_TRY(row(context, &result));
        }
    return KH_OK;
}
