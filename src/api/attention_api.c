/* Attention on plain arrays: include/keyhole/attention.h over the op of the forward pass.
 *
 * Key heads of one batch entry become a sequence in an f32 page pool that is used again for the next:
 * keys are laid out in panels once, which is the only copy that scales with S. Where all heads share a
 * setting, as many key heads go at a time as fit COPY bytes. Queries are read and outputs written where
 * the caller has them. What the caller wants to keep for the backward pass (`saved`) is written where the
 * op finishes a row.
 *
 *     for b, key heads:  k, v -> pages;  q, pages -> kh_attn_attend_strided -> out
 */
#include "api/attention_args.h"
#include "attn/save.h"
#include "base/alloc.h"
#include "base/fail.h"
#include "kern/attn_kern.h"

#include <string.h>

enum { COPY = 16 << 20 /* bytes */ };

typedef struct work {
    kh_attention_call call;
    int groups, heads;    /* key heads and query heads that go at a time */
    kh_attn_plan *shared; /* for so many heads; NULL: all go at a time */
    kh_kv_pool *pages;
    kh_kv *kv;
    kh_arena step, *scratch; /* [pool.threads] */
    kh_attn_stats stats;
} work;

/* Key heads at a time: a divisor of all. Heads with settings of their own go together. */
static void choose_groups(work *w)
{
    const kh_attention_args *a = w->call.args;
    int G = w->call.layer.G, groups = G;
    size_t bytes = 2 * a->keys * (size_t)a->width * sizeof(float);
    w->groups = G;
    w->heads = a->heads;
    for (int head = 1; head < a->heads; head++)
        if (kh_attn_plan_at(w->call.plan, KH_PHASE_PREFILL, 0, head) !=
            kh_attn_plan_at(w->call.plan, KH_PHASE_PREFILL, 0, 0))
            return;
    while (groups > 1 && (G % groups != 0 || (size_t)groups * bytes > COPY)) groups--;
    if (groups == G ||
        kh_attn_plan_parse(&w->shared, kh_attn_plan_text(w->call.plan), 1, a->heads / G * groups))
        return;
    w->groups = groups;
    w->heads = a->heads / G * groups;
}

/* What key heads from g on are to the op. */
static kh_attn_layer layer_of(const work *w, int g, kh_attn_bias *bias)
{
    kh_attn_layer layer = w->call.layer;
    layer.G = w->groups;
    layer.H = w->heads;
    *bias = w->call.bias;
    if (bias->distances) bias->distances += (size_t)(g / w->groups * w->heads) * bias->span;
    if (layer.bias) layer.bias = bias;
    return layer;
}

static kh_status open_work(work *w)
{
    const kh_attention_args *a = w->call.args;
    int threads = w->call.pool.threads;
    choose_groups(w);
    size_t step, scratch;
    kh_attn_bias bias;
    kh_attn_layer layer = layer_of(w, 0, &bias);
    kh_kv_shape shape = {1, w->groups, a->width, a->width, KH_TYPE_F32, KH_TYPE_F32, 0};
    KH_TRY(kh_kv_pool_open(&w->pages, &shape, (a->keys + KH_PAGE - 1) / KH_PAGE));
    KH_TRY(kh_kv_open(&w->kv, w->pages, a->keys));
    KH_TRY(kh_new(&w->scratch, (size_t)threads, sizeof *w->scratch, "the threads of attention"));
    kh_attn_need(w->shared ? w->shared : w->call.plan, &layer, &shape, a->queries, a->keys, &step,
                 &scratch);
    KH_TRY(kh_arena_init(&w->step, "attention", step));
    for (int i = 0; i < threads; i++)
        KH_TRY(kh_arena_init(&w->scratch[i], "attention scratch", scratch));
    return KH_OK;
}

static void close_work(work *w)
{
    for (int i = 0; w->scratch && i < w->call.pool.threads; i++) kh_arena_free(&w->scratch[i]);
    kh_arena_free(&w->step);
    kh_free(w->scratch);
    kh_kv_close(w->kv);
    kh_kv_pool_close(w->pages);
    kh_attn_plan_free(w->shared);
}

/* Where the rows of the heads from `head` on, over all batch entries, go in the caller's arrays. */
static kh_attn_save save_of(const work *w, size_t head)
{
    const kh_attention_saved *s = w->call.args->saved;
    size_t T = w->call.args->queries, at = head * T;
    int wide = kh_attention_wide(w->call.args);
    char *indices = s->indices;
    return (kh_attn_save){.kept = s->kept,
                          .wide = wide,
                          .rows = T,
                          .indices = indices + at * s->kept * (wide ? 4 : 2),
                          .counts = s->kept > 0 ? s->counts + at : NULL,
                          .m = s->m + at,
                          .u = s->u + at};
}

/* All queries of the key heads from g on of one batch entry. */
static kh_status attend(work *w, size_t b, int g)
{
    const kh_attention_call *c = &w->call;
    const kh_attention_args *a = c->args;
    size_t head = (size_t)(g / w->groups * w->heads);
    size_t before = a->mask == KH_ATTENTION_CAUSAL ? a->keys - a->queries : 0;
    kh_span span = {.rows = a->queries, .position = (int32_t)before};
    kh_batch batch = {.n = a->queries, .spans = &span, .span_count = 1};
    kh_attn_drop drop = c->drop;
    drop.head = b * (size_t)a->heads + head;
    kh_attn_save save = {0};
    if (a->saved) save = save_of(w, b * (size_t)a->heads + head);
    kh_attn_bias bias;
    kh_attn_layer layer = layer_of(w, g, &bias);
    kh_run run = {.step = &w->step,
                  .pool = &c->pool,
                  .scratch = w->scratch,
                  .kern = kh_kern_get(kh_cpu_isa()),
                  .batch = &batch,
                  .kv_self = &w->kv,
                  .attn = w->shared ? w->shared : c->plan,
                  .save = a->saved ? &save : NULL,
                  .drop = a->dropout.rate > 0 ? &drop : NULL,
                  .stats = a->stats ? &w->stats : NULL};
    return kh_attn_attend_strided(&run, &layer, a->out + b * c->out.batch + head * c->out.head,
                                  (kh_attn_strides){c->out.row, c->out.head},
                                  a->q + b * c->q.batch + head * c->q.head,
                                  (kh_attn_strides){c->q.row, c->q.head});
}

/* Key heads [first, first + groups) of one batch entry, to be laid out. */
typedef struct writing {
    const work *w;
    size_t b, first;
} writing;

static void write_group(void *context, size_t i, int worker)
{
    (void)worker;
    const writing *j = context;
    const kh_attention_call *c = &j->w->call;
    size_t g = j->first + i;
    kh_kv_write(j->w->kv, kh_kern_get(kh_cpu_isa()), 0, (int)i, c->args->keys,
                c->args->k + j->b * c->k.batch + g * c->k.head, c->k.row,
                c->args->v + j->b * c->v.batch + g * c->v.head, c->v.row);
}

/* The key heads from `first` on of one batch entry. */
static kh_status attend_groups(work *w, size_t b, int first)
{
    writing j = {w, b, (size_t)first};
    KH_TRY(kh_kv_rewind(w->kv, 0));
    KH_TRY(kh_kv_prepare(w->kv, w->call.args->keys));
    kh_parallel_for(&w->call.pool, (size_t)w->groups, write_group, &j);
    kh_kv_advance(w->kv, w->call.args->keys);
    return attend(w, b, first);
}

static kh_status forward(work *w, const kh_attention_args *a)
{
    KH_TRY(kh_attention_call_open(&w->call, a));
    KH_TRY(kh_attention_call_check_arrays(&w->call, "attention"));
    if (a->saved) KH_TRY(kh_attention_call_check_saved(&w->call));
    if (a->stats) *a->stats = (kh_attention_stats){0};
    if (a->batch == 0 || a->queries == 0) return KH_OK;
    w->stats.want_mass = 1;
    KH_TRY(kh_attention_call_expand_bias(&w->call));
    KH_TRY(open_work(w));
    for (size_t b = 0; b < (size_t)a->batch; b++) {
        kh_attention_call_enter(&w->call, b);
        for (int g = 0; g < w->call.layer.G; g += w->groups) KH_TRY(attend_groups(w, b, g));
    }
    return KH_OK;
}

kh_status kh_attention_forward(const kh_attention_args *args)
{
    work w = {0};
    kh_status status = forward(&w, args);
    if (args->stats)
        *args->stats = (kh_attention_stats){w.stats.rows, w.stats.keys_seen, w.stats.keys_kept,
                                            w.stats.kept_mass};
    close_work(&w);
    kh_attention_call_close(&w.call);
    return status;
}
