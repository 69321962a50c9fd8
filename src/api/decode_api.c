/* One query row a head over keys and values on plain arrays.
 *
 *     1  (batch entry, key head, 1024 keys):  64 keys at a time become panels, or their shadow is read;
 *                                             scores [B][H][S] for all heads of the group
 *     2  (batch entry, head):                 attn/decode.h chooses; values of the kept keys are gathered
 *
 * The choice is that of a session's decoding step, over the caller's rows instead of pages: what the shadow
 * leaves over is scored again sixteen keys at a time, from their own rows only. So a decoding step reads the
 * shadow, a few hundred rows of keys and k rows of values a head.
 *
 * Settings that keep ranges, differ between heads or estimate the tail go to kh_attention_forward. */
#include "api/attention_args.h"
#include "attn/decode.h"
#include "attn/scorer.h"
#include "base/alloc.h"
#include "base/fail.h"
#include "kern/attn_kern.h"

#include <string.h>

typedef struct job {
    const kh_attention_decode_args *a;
    kh_attention_call call;
    kh_attention_stride k, v; /* no zeros */
    const kh_kern *kern;
    const kh_attn_setting *setting;
    size_t B, H, G, E, S, R; /* R: heads of a group */
    size_t chunks, ld, room, tile;
    size_t pages;    /* of the shadow that are used */
    float *scores;   /* [B][H][ld] */
    int16_t *screen; /* [B][H][W] */
    float *steps;    /* [B][H][2] */
    kh_arena *scratch;
} job;

/* The keys of one group of a batch entry. */
typedef struct group {
    const job *j;
    size_t b, g;
} group;

static const float *key_row(const job *j, size_t b, size_t g, size_t at)
{
    return j->a->k + b * j->k.batch + g * j->k.head + at * j->k.row;
}

/* Sixteen rows, zeros beyond n, as a panel; `rows` is memory for them. */
static void make_panel(const job *j, float *panel, float *rows, const float *const *from, size_t n)
{
    for (size_t i = 0; i < n; i++) memcpy(rows + i * j->E, from[i], j->E * sizeof *rows);
    j->kern->product_pack(panel, KH_PANEL, rows, n, j->E);
}

/* Keys [first, first + n), at most 64, as panels. */
static void make_page(const job *j, float *panels, float *rows, size_t b, size_t g, size_t first,
                      size_t n)
{
    const float *from[KH_PANEL];
    for (size_t p = 0; p * KH_PANEL < n; p++) {
        size_t count = n - p * KH_PANEL < KH_PANEL ? n - p * KH_PANEL : KH_PANEL;
        for (size_t i = 0; i < count; i++) from[i] = key_row(j, b, g, first + p * KH_PANEL + i);
        make_panel(j, panels + p * KH_PANEL * j->E, rows, from, count);
    }
}

static char *shadow_of(const kh_attention_shadow *s, size_t G, size_t E, size_t b, size_t g,
                       size_t p)
{
    return (char *)s->memory + ((b * G + g) * (s->capacity / KH_PAGE) + p) * kh_shadow_bytes(E);
}

static const void *find_shadow(const kh_tile *t, const void *context, size_t p)
{
    const group *c = context;
    (void)t;
    return shadow_of(c->j->a->shadow, c->j->G, c->j->E, c->b, c->g, p);
}

static void score_listed(const kh_tile *t, const void *context, size_t r, const uint32_t *positions,
                         size_t n, float *values)
{
    const group *c = context;
    const job *j = c->j;
    const float *from[KH_PANEL];
    for (size_t first = 0; first < n; first += KH_PANEL) {
        size_t count = n - first < KH_PANEL ? n - first : KH_PANEL;
        float scores[KH_PANEL];
        for (size_t i = 0; i < count; i++) from[i] = key_row(j, c->b, c->g, positions[first + i]);
        make_panel(j, t->panels, t->values, from, count);
        j->kern->score_panel(scores, KH_PANEL, t->q + r * j->E, j->E, 1, t->panels, 1, j->E);
        memcpy(values + first, scores, count * sizeof *values);
    }
}

static const kh_screen_keys rows_of_keys = {find_shadow, score_listed};

static void score_chunk(void *context, size_t item, int worker)
{
    const job *j = context;
    size_t c = item % j->chunks, g = item / j->chunks % j->G, b = item / j->chunks / j->G;
    size_t row = b * j->H + g * j->R, end = (c + 1) * KH_CHUNK < j->S ? (c + 1) * KH_CHUNK : j->S;
    size_t window = (size_t)j->a->window;
    if (window > 0 && end + window <= j->S) return; /* seen by no row */
    kh_arena_mark mark = kh_arena_save(&j->scratch[worker]);
    float *panels = kh_arena_take(&j->scratch[worker], j->tile), *rows = panels + KH_PAGE * j->E;
    for (size_t first = c * KH_CHUNK; first < end; first += KH_PAGE) {
        size_t n = end - first < KH_PAGE ? end - first : KH_PAGE, p = first / KH_PAGE;
        float *to = j->scores + row * j->ld + first;
        if (p < j->pages) {
            const char *shadow = shadow_of(j->a->shadow, j->G, j->E, b, g, p);
            j->kern->shadow_score(to, j->ld, j->screen + row * kh_shadow_width(j->E),
                                  j->steps + 2 * row, j->R, shadow, j->E,
                                  p + 1 < j->pages ? shadow + kh_shadow_bytes(j->E) : NULL);
            continue;
        }
        make_page(j, panels, rows, b, g, first, n);
        j->kern->score_panel(to, j->ld, j->a->q + row * j->E, j->E, j->R, panels,
                             (n + KH_PANEL - 1) / KH_PANEL, j->E);
    }
    kh_arena_rewind(&j->scratch[worker], mark);
}

static void choose_row(void *context, size_t row, int worker)
{
    const job *j = context;
    size_t b = row / j->H, h = row % j->H, g = h / j->R, E = j->E;
    kh_arena_mark mark = kh_arena_save(&j->scratch[worker]);
    kh_tile t = {.kern = j->kern,
                 .layer = &j->call.layer,
                 .setting = j->setting,
                 .head = (int)h,
                 .heads = 1,
                 .tokens = 1,
                 .position = j->S - 1,
                 .length = j->S,
                 .R = 1,
                 .chunk = {0, UINT32_MAX}};
    kh_tile_place(&t, kh_arena_take(&j->scratch[worker], j->tile), 1, E, j->room, KH_PAGE);
    memcpy(t.q, j->a->q + row * E, E * sizeof *t.q);
    group keys = {j, b, g};
    kh_row_scores scores = {.values = j->scores + row * j->ld, .ld = j->ld};
    if (j->pages > 0)
        scores.screen = (kh_screen){&rows_of_keys, &keys, j->screen + row * kh_shadow_width(E),
                                    j->steps + 2 * row, j->pages};
    size_t n = kh_decode_choose(&t, 0, &scores);
    n = kh_scorer_weights(&t, 0, t.keys.values, t.keys.indices, n);
    for (size_t i = 0; i < n; i++)
        t.rows[i] = j->a->v + b * j->v.batch + g * j->v.head + t.keys.indices[i] * j->v.row;
    j->kern->gather_f32(j->a->out + row * E, t.keys.values, t.rows, n, E);
    kh_arena_rewind(&j->scratch[worker], mark);
}

/* The same call as kh_attention_forward takes it. */
static kh_attention_args forward_args(const kh_attention_decode_args *a)
{
    int G = a->key_heads ? a->key_heads : a->heads;
    size_t E = a->width > 0 ? (size_t)a->width : 0, all = (G > 0 ? (size_t)G : 0) * E;
    kh_attention_stride packed = {a->keys * all, E, all}, zero = {0};
    int k = memcmp(&a->k_stride, &zero, sizeof zero) != 0;
    int v = memcmp(&a->v_stride, &zero, sizeof zero) != 0;
    return (kh_attention_args){.batch = a->batch,
                               .heads = a->heads,
                               .key_heads = a->key_heads,
                               .width = a->width,
                               .queries = 1,
                               .keys = a->keys,
                               .q = a->q,
                               .k = a->k,
                               .v = a->v,
                               .out = a->out,
                               .k_stride = k ? a->k_stride : packed,
                               .v_stride = v ? a->v_stride : packed,
                               .attn = a->attn,
                               .scale = a->scale,
                               .softcap = a->softcap,
                               .window = a->window,
                               .threads = a->threads,
                               .stats = a->stats};
}

size_t kh_attention_shadow_bytes(int batch, int key_heads, int width, size_t capacity)
{
    if (batch < 1 || key_heads < 1 || width < 1 || width > KH_SHADOW_WIDEST) return 0;
    size_t heads = (size_t)batch * (size_t)key_heads, page = kh_shadow_bytes((size_t)width);
    if (capacity / KH_PAGE > SIZE_MAX / heads / page) return 0;
    return heads * (capacity / KH_PAGE) * page;
}

static kh_status check_shadow(const kh_attention_shadow *s, int width, size_t keys)
{
    if (width > KH_SHADOW_WIDEST)
        KH_FAIL(KH_ERR_ARGUMENT, "attention: a shadow of heads of %d: %d is the widest", width,
                KH_SHADOW_WIDEST);
    if (!s->memory) KH_FAIL(KH_ERR_ARGUMENT, "attention: the shadow's memory is NULL");
    if (s->keys > s->capacity)
        KH_FAIL(KH_ERR_ARGUMENT, "attention: a shadow of %zu keys with room for %zu", s->keys,
                s->capacity);
    if (keys / KH_PAGE > s->capacity / KH_PAGE)
        KH_FAIL(KH_ERR_ARGUMENT, "attention: the shadow has room for %zu keys, there are %zu",
                s->capacity, keys);
    return KH_OK;
}

/* Whether all heads have one topk setting, without what needs every key. */
static int chooses(const job *j)
{
    const kh_attn_setting *first = kh_attn_plan_at(j->call.plan, KH_PHASE_PREFILL, 0, 0);
    for (int head = 1; head < j->a->heads; head++)
        if (kh_attn_plan_at(j->call.plan, KH_PHASE_PREFILL, 0, head) != first) return 0;
    return first->method->kind == KH_KEYS_INDICES && !first->tail_mean && !j->a->stats;
}

static kh_status open_job(job *j)
{
    const kh_attention_decode_args *a = j->a;
    size_t rows = j->B * j->H, W = kh_shadow_width(j->E), threads = (size_t)j->call.pool.threads;
    j->ld = (j->S + KH_PAGE - 1) / KH_PAGE * KH_PAGE;
    j->chunks = (j->S + KH_CHUNK - 1) / KH_CHUNK;
    j->room = (j->setting->method->room(j->setting, j->S) + 15) / 16 * 16;
    kh_tile tile;
    j->tile = kh_tile_place(&tile, NULL, 1, j->E, j->room, KH_PAGE);
    if (j->tile < 2 * KH_PAGE * j->E * sizeof(float)) j->tile = 2 * KH_PAGE * j->E * sizeof(float);
    KH_TRY(kh_new(&j->scores, rows * j->ld, sizeof *j->scores, "the scores of attention"));
    KH_TRY(kh_new(&j->scratch, threads, sizeof *j->scratch, "the threads of attention"));
    for (size_t i = 0; i < threads; i++)
        KH_TRY(kh_arena_init(&j->scratch[i], "attention scratch", kh_arena_need(j->tile)));
    if (!a->shadow) return KH_OK;
    KH_TRY(kh_new(&j->screen, rows * W, sizeof *j->screen, "the queries of attention"));
    KH_TRY(kh_new(&j->steps, rows * 2, sizeof *j->steps, "the queries of attention"));
    size_t known = a->shadow->keys < j->S ? a->shadow->keys : j->S;
    j->pages = known / KH_PAGE;
    for (size_t r = 0; r < rows; r++) /* a query without a bound: all do without */
        if (!kh_screen_query(j->screen + r * W, j->steps + 2 * r, a->q + r * j->E, j->E))
            j->pages = 0;
    return KH_OK;
}

static void close_job(job *j)
{
    for (int i = 0; j->scratch && i < j->call.pool.threads; i++) kh_arena_free(&j->scratch[i]);
    kh_free(j->scratch);
    kh_free(j->scores);
    kh_free(j->screen);
    kh_free(j->steps);
}

static kh_status decode(job *j, const kh_attention_args *same)
{
    const kh_attention_decode_args *a = j->a;
    KH_TRY(kh_attention_call_open(&j->call, same));
    KH_TRY(kh_attention_call_check_arrays(&j->call, "attention"));
    if (a->shadow) KH_TRY(check_shadow(a->shadow, a->width, 0));
    if (a->batch == 0) return KH_OK;
    if (!chooses(j)) return kh_attention_forward(same);
    j->kern = kh_kern_get(kh_cpu_isa());
    j->setting = kh_attn_plan_at(j->call.plan, KH_PHASE_PREFILL, 0, 0);
    j->B = (size_t)a->batch;
    j->H = (size_t)a->heads;
    j->G = (size_t)j->call.layer.G;
    j->E = (size_t)a->width;
    j->S = a->keys;
    j->R = j->H / j->G;
    KH_TRY(open_job(j));
    kh_parallel_for(&j->call.pool, j->B * j->G * j->chunks, score_chunk, j);
    kh_parallel_for(&j->call.pool, j->B * j->H, choose_row, j);
    return KH_OK;
}

kh_status kh_attention_decode(const kh_attention_decode_args *args)
{
    kh_attention_args same = forward_args(args);
    job j = {.a = args, .k = same.k_stride, .v = same.v_stride};
    kh_status status = decode(&j, &same);
    close_job(&j);
    kh_attention_call_close(&j.call);
    return status;
}

typedef struct casting {
    const job *j;
    const kh_attention_shadow *shadow;
    size_t first, pages;
} casting;

static void cast_page(void *context, size_t item, int worker)
{
    const casting *c = context;
    const job *j = c->j;
    size_t p = c->first + item % c->pages, g = item / c->pages % j->G, b = item / c->pages / j->G;
    float panels[KH_PAGE * KH_SHADOW_WIDEST], rows[KH_PANEL * KH_SHADOW_WIDEST];
    (void)worker;
    make_page(j, panels, rows, b, g, p * KH_PAGE, KH_PAGE);
    j->kern->shadow_pack(shadow_of(c->shadow, j->G, j->E, b, g, p), panels, j->E);
}

kh_status kh_attention_shadow_extend(kh_attention_shadow *shadow,
                                     const kh_attention_decode_args *args)
{
    kh_attention_args same = forward_args(args);
    job j = {.a = args, .k = same.k_stride, .kern = kh_kern_get(kh_cpu_isa())};
    same.attn = "full";
    kh_status status = kh_attention_call_open(&j.call, &same);
    if (status == KH_OK) status = check_shadow(shadow, args->width, args->keys);
    if (status == KH_OK && !args->k) status = kh_fail(KH_ERR_ARGUMENT, "attention: k is NULL");
    size_t first = shadow->keys / KH_PAGE, end = args->keys / KH_PAGE;
    if (status == KH_OK && first < end) {
        j.G = (size_t)j.call.layer.G;
        j.E = (size_t)args->width;
        casting c = {&j, shadow, first, end - first};
        kh_parallel_for(&j.call.pool, (size_t)args->batch * j.G * c.pages, cast_page, &c);
    }
    if (status == KH_OK) shadow->keys = end * KH_PAGE;
    kh_attention_call_close(&j.call);
    return status;
}
