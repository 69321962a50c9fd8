/* The harness of the attention tests: one layer, one sequence, as the forward pass would use it. */
#include "support/attn_case.h"

#include "base/alloc.h"
#include "base/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(kh_status status, const char *what)
{
    if (status == KH_OK) return;
    fprintf(stderr, "%s: %s\n", what, kh_last_error());
    abort();
}

float *attn_numbers(size_t n, uint64_t seed, float size)
{
    float *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = size * (float)kh_rng_normal((kh_rng_key){.seed = seed, .stream = 7}, i);
    return x;
}

typedef struct seen {
    attn_result *result;
    const attn_case *c;
    size_t first; /* position of the batch's first row */
} seen;

static void take_row(void *context, const kh_attn_row *row)
{
    seen *s = context;
    size_t position = s->first + (size_t)row->row;
    if ((size_t)row->position != position) abort();
    attn_kept *kept = &s->result->rows[position * (size_t)s->c->H + (size_t)row->head];
    if (kept->keys) abort(); /* a row is delivered once */
    *kept = (attn_kept){.count = row->count, .m = row->m, .u = row->u};
    kept->keys = malloc((row->count + 1) * sizeof *kept->keys);
    kept->weights = malloc((row->count + 1) * sizeof *kept->weights);
    memcpy(kept->keys, row->keys, row->count * sizeof *kept->keys);
    memcpy(kept->weights, row->weights, row->count * sizeof *kept->weights);
    s->result->delivered++;
}

attn_result *attn_run(const attn_case *c)
{
    int threads = c->threads > 0 ? c->threads : 1;
    size_t H = (size_t)c->H, G = (size_t)c->G, E = (size_t)c->E, step_bytes, scratch_bytes;
    attn_result *out = calloc(1, sizeof *out);
    out->layer = (kh_attn_layer){.H = c->H,
                                 .G = c->G,
                                 .E = c->E,
                                 .window = c->window,
                                 .softcap = c->softcap,
                                 .scale = c->scale > 0 ? c->scale : 1.0f / sqrtf((float)c->E)};
    out->z = calloc(c->S * H * E, sizeof *out->z);
    out->rows = calloc(c->S * H, sizeof *out->rows);
    out->stats.want_mass = c->want_mass;
    kh_kv_shape shape = {1, c->G, c->E, c->E, c->type, c->type, c->shadow};
    kh_kv_pool *pages;
    kh_kv *kv;
    must(kh_kv_pool_open(&pages, &shape, c->S / 64 + 1), "pool");
    must(kh_kv_open(&kv, pages, c->S), "sequence");
    must(kh_attn_plan_parse(&out->plan, c->spec, 1, c->H), "plan");
    size_t most = c->cached > c->S - c->cached ? c->cached : c->S - c->cached;
    kh_attn_need(out->plan, &out->layer, &shape, most, c->S, &step_bytes, &scratch_bytes);
    kh_arena step, scratch[8];
    must(kh_arena_init(&step, "step", step_bytes), "step");
    for (int i = 0; i < threads; i++)
        must(kh_arena_init(&scratch[i], "scratch", scratch_bytes), "scratch");
    kh_pool pool = {.threads = threads};
    seen s = {.result = out, .c = c};
    kh_probe probe = {.context = &s, .points = 1ull << KH_POINT_ATTN_ROWS, .rows = take_row};
    kh_batch batch = {.span_count = 1};
    kh_run run = {.step = &step,
                  .pool = &pool,
                  .scratch = scratch,
                  .kern = kh_kern_get(c->isa),
                  .batch = &batch,
                  .kv_self = &kv,
                  .attn = out->plan,
                  .probe = c->want_rows ? &probe : NULL,
                  .stats = &out->stats};
    uint64_t calls = kh_alloc_get_stats().calls;
    for (size_t at = 0, n; at < c->S; at += n) {
        n = at < c->cached ? c->cached - at : c->step > 0 ? c->step : c->S - at;
        if (at + n > c->S) n = c->S - at;
        kh_span span = {.rows = n, .position = (int32_t)at};
        batch.n = n;
        batch.spans = &span;
        run.phase = n == 1 ? KH_PHASE_DECODE : KH_PHASE_PREFILL;
        s.first = at;
        must(kh_kv_prepare(kv, n), "prepare");
        must(kh_attn_forward(&run, &out->layer, out->z + at * H * E, c->q + at * H * E,
                             c->k + at * G * E, c->v + at * G * E),
             "forward");
        kh_kv_advance(kv, n);
    }
    out->calls = kh_alloc_get_stats().calls - calls;
    out->k = malloc(G * c->S * E * sizeof *out->k);
    out->v = malloc(G * c->S * E * sizeof *out->v);
    for (size_t g = 0; g < G; g++)
        kh_attn_unpack(kv, 0, (int)g, c->S, out->k + g * c->S * E, out->v + g * c->S * E);
    for (int i = 0; i < threads; i++) kh_arena_free(&scratch[i]);
    kh_arena_free(&step);
    kh_kv_close(kv);
    kh_kv_pool_close(pages);
    return out;
}

void attn_free(attn_result *r, const attn_case *c)
{
    for (size_t i = 0; i < c->S * (size_t)c->H; i++) {
        free(r->rows[i].keys);
        free(r->rows[i].weights);
    }
    free(r->rows);
    free(r->z);
    free(r->k);
    free(r->v);
    kh_attn_plan_free(r->plan);
    free(r);
}

double attn_distance(const float *a, const float *b, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        if (isnan(a[i]) != isnan(b[i])) return (double)INFINITY;
        if (isnan(a[i])) continue;
        double d = fabs((double)a[i] - (double)b[i]) / (1 + fabs((double)b[i]));
        if (!(d <= worst)) worst = d;
    }
    return worst;
}
