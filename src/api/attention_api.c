/* Attention on plain arrays: include/keyhole/attention.h over the op of the forward pass.
 *
 * Each batch entry becomes a sequence of its own in one f32 page pool that is used again for the next:
 * keys are laid out in panels once, which is the only copy that scales with S. Queries go through in
 * blocks of BLOCK tokens, copied to and from the op's order ([T][H][E]), so the rest of the memory does
 * not grow with T.
 *
 *     for b:  k, v -> pages;   for blocks of T:  q -> [n][H][E] -> kh_attn_attend -> [n][H][E] -> out
 */
#include <keyhole/attention.h>

#include "attn/attn.h"
#include "attn/method.h"
#include "base/alloc.h"
#include "base/fail.h"
#include "kern/attn_kern.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 512, MAX_THREADS = 1024 };

typedef struct work {
    const kh_attention_args *args;
    kh_attention_stride q, k, v, out; /* with the zeros replaced */
    kh_attn_layer layer;
    kh_attn_plan *plan;
    kh_kv_pool *pages;
    kh_kv *kv;
    kh_arena step, *scratch; /* [pool.threads] */
    kh_pool pool;
    float *rows, *z; /* [BLOCK][H][E] */
    kh_attn_stats stats;
} work;

static kh_attention_stride packed(kh_attention_stride s, size_t heads, size_t rows, size_t E)
{
    if (s.batch == 0 && s.head == 0 && s.row == 0)
        s = (kh_attention_stride){heads * rows * E, rows * E, E};
    return s;
}

static kh_status check_shapes(const kh_attention_args *a)
{
    int G = a->key_heads ? a->key_heads : a->heads;
    if (a->batch < 0 || a->heads < 1 || G < 1 || a->heads % G != 0)
        KH_FAIL(
            KH_ERR_ARGUMENT,
            "attention: batch %d, heads %d, key_heads %d: heads must be a multiple of key_heads",
            a->batch, a->heads, a->key_heads);
    if (a->heads > 1 << 16 || a->width < 1 || a->width > 1 << 14)
        KH_FAIL(KH_ERR_ARGUMENT, "attention: %d heads of width %d: at most 65536 and 16384",
                a->heads, a->width);
    if (a->keys < 1 || a->keys > INT32_MAX || a->queries > INT32_MAX)
        KH_FAIL(KH_ERR_ARGUMENT,
                "attention: %zu queries over %zu keys: 1 key is the least, 2^31 - 1 the most",
                a->queries, a->keys);
    if (!a->q || !a->k || !a->v || !a->out)
        KH_FAIL(KH_ERR_ARGUMENT, "attention: %s is NULL",
                !a->q   ? "q"
                : !a->k ? "k"
                : !a->v ? "v"
                        : "out");
    return KH_OK;
}

static kh_status check_options(const kh_attention_args *a)
{
    if (a->mask != KH_ATTENTION_CAUSAL && a->mask != KH_ATTENTION_FREE)
        KH_FAIL(KH_ERR_ARGUMENT, "attention: mask %d is neither causal nor free", (int)a->mask);
    if (a->mask == KH_ATTENTION_CAUSAL && a->queries > a->keys)
        KH_FAIL(
            KH_ERR_ARGUMENT,
            "attention: causal queries are the last of the keys' positions: %zu queries do not fit "
            "into %zu",
            a->queries, a->keys);
    if (!(a->scale >= 0) || isinf(a->scale) || !(a->softcap >= 0) || isinf(a->softcap))
        KH_FAIL(KH_ERR_ARGUMENT,
                "attention: scale %g and softcap %g must be finite and not negative",
                (double)a->scale, (double)a->softcap);
    if (a->window < 0 || (a->window > 0 && a->mask == KH_ATTENTION_FREE))
        KH_FAIL(KH_ERR_ARGUMENT,
                "attention: window %d: a window is not negative and needs the causal mask",
                a->window);
    if (a->threads < 0 || a->threads > MAX_THREADS)
        KH_FAIL(KH_ERR_ARGUMENT, "attention: %d threads: 0 .. %d are allowed", a->threads,
                MAX_THREADS);
    return KH_OK;
}

static kh_status check_plan(const work *w)
{
    for (int head = 0; w->args->mask == KH_ATTENTION_FREE && head < w->args->heads; head++) {
        const kh_attn_setting *s = kh_attn_plan_at(w->plan, KH_PHASE_PREFILL, 0, head);
        if (s->recent > 0)
            KH_FAIL(
                KH_ERR_ARGUMENT,
                "attention '%s': recent=%d means the keys before a row and needs the causal mask",
                w->args->attn, s->recent);
    }
    return KH_OK;
}

static kh_status open_work(work *w)
{
    const kh_attention_args *a = w->args;
    int G = w->layer.G;
    size_t H = (size_t)a->heads, E = (size_t)a->width, step, scratch;
    size_t block = a->queries < BLOCK ? a->queries : BLOCK;
    kh_kv_shape shape = {1, G, a->width, a->width, KH_TYPE_F32, KH_TYPE_F32};
    KH_TRY(kh_attn_plan_parse(&w->plan, a->attn ? a->attn : "full", 1, a->heads));
    KH_TRY(check_plan(w));
    KH_TRY(kh_kv_pool_open(&w->pages, &shape, (a->keys + KH_PAGE - 1) / KH_PAGE));
    KH_TRY(kh_kv_open(&w->kv, w->pages, a->keys));
    KH_TRY(kh_new(&w->rows, block * H * E, sizeof *w->rows, "the queries of attention"));
    KH_TRY(kh_new(&w->z, block * H * E, sizeof *w->z, "the output of attention"));
    KH_TRY(kh_new(&w->scratch, (size_t)w->pool.threads, sizeof *w->scratch,
                  "the threads of attention"));
    kh_attn_need(w->plan, &w->layer, &shape, block, a->keys, &step, &scratch);
    KH_TRY(kh_arena_init(&w->step, "attention", step));
    for (int i = 0; i < w->pool.threads; i++)
        KH_TRY(kh_arena_init(&w->scratch[i], "attention scratch", scratch));
    return KH_OK;
}

static void close_work(work *w)
{
    for (int i = 0; w->scratch && i < w->pool.threads; i++) kh_arena_free(&w->scratch[i]);
    kh_arena_free(&w->step);
    kh_free(w->scratch);
    kh_free(w->rows);
    kh_free(w->z);
    kh_kv_close(w->kv);
    kh_kv_pool_close(w->pages);
    kh_attn_plan_free(w->plan);
}

/* Tokens [first, first + n) of one batch entry. */
static kh_status attend_block(work *w, size_t b, size_t first, size_t n)
{
    const kh_attention_args *a = w->args;
    size_t H = (size_t)a->heads, E = (size_t)a->width;
    for (size_t t = 0; t < n; t++)
        for (size_t h = 0; h < H; h++)
            memcpy(w->rows + (t * H + h) * E,
                   a->q + b * w->q.batch + h * w->q.head + (first + t) * w->q.row,
                   E * sizeof(float));
    size_t before = a->mask == KH_ATTENTION_CAUSAL ? a->keys - a->queries : 0;
    kh_span span = {.rows = n, .position = (int32_t)(before + first)};
    kh_batch batch = {.n = n, .spans = &span, .span_count = 1};
    kh_run run = {.step = &w->step,
                  .pool = &w->pool,
                  .scratch = w->scratch,
                  .kern = kh_kern_get(kh_cpu_isa()),
                  .batch = &batch,
                  .kv_self = &w->kv,
                  .attn = w->plan,
                  .stats = a->stats ? &w->stats : NULL};
    KH_TRY(kh_attn_attend(&run, &w->layer, w->z, w->rows));
    for (size_t t = 0; t < n; t++)
        for (size_t h = 0; h < H; h++)
            memcpy(a->out + b * w->out.batch + h * w->out.head + (first + t) * w->out.row,
                   w->z + (t * H + h) * E, E * sizeof(float));
    return KH_OK;
}

static kh_status attend_entry(work *w, size_t b)
{
    const kh_attention_args *a = w->args;
    KH_TRY(kh_kv_rewind(w->kv, 0));
    KH_TRY(kh_kv_prepare(w->kv, a->keys));
    for (int g = 0; g < w->layer.G; g++)
        kh_kv_write(w->kv, kh_kern_get(kh_cpu_isa()), 0, g, a->keys,
                    a->k + b * w->k.batch + (size_t)g * w->k.head, w->k.row,
                    a->v + b * w->v.batch + (size_t)g * w->v.head, w->v.row);
    kh_kv_advance(w->kv, a->keys);
    for (size_t first = 0, n; first < a->queries; first += n) {
        n = a->queries - first < BLOCK ? a->queries - first : BLOCK;
        KH_TRY(attend_block(w, b, first, n));
    }
    return KH_OK;
}

kh_status kh_attention_forward(const kh_attention_args *a)
{
    KH_TRY(check_shapes(a));
    KH_TRY(check_options(a));
    int G = a->key_heads ? a->key_heads : a->heads;
    size_t H = (size_t)a->heads, E = (size_t)a->width;
    work w = {.args = a, .pool.threads = a->threads ? a->threads : kh_cpu_count()};
    w.layer = (kh_attn_layer){.H = a->heads,
                              .G = G,
                              .E = a->width,
                              .scale = a->scale > 0 ? a->scale : 1.0f / sqrtf((float)a->width),
                              .softcap = a->softcap,
                              .window = a->window,
                              .order = a->mask == KH_ATTENTION_FREE ? KH_ATTN_ALL_KEYS
                                                                    : KH_ATTN_CAUSAL};
    w.q = packed(a->q_stride, H, a->queries, E);
    w.k = packed(a->k_stride, (size_t)G, a->keys, E);
    w.v = packed(a->v_stride, (size_t)G, a->keys, E);
    w.out = packed(a->out_stride, H, a->queries, E);
    w.stats.want_mass = 1;
    if (a->stats) *a->stats = (kh_attention_stats){0};
    if (a->batch == 0 || a->queries == 0) return KH_OK;
    kh_status status = open_work(&w);
    for (size_t b = 0; !status && b < (size_t)a->batch; b++) status = attend_entry(&w, b);
    if (a->stats)
        *a->stats = (kh_attention_stats){w.stats.rows, w.stats.keys_seen, w.stats.keys_kept,
                                         w.stats.kept_mass};
    close_work(&w);
    return status;
}
