/* Attention over keys that were chosen before: forward again for a backward pass that kept the choice
 * (indices, m, u) but not the output.
 *
 *     out[t] = sum over the list of exp(x_j - m) / u, dropped as before, times v_j
 *
 * Keys and values are gathered where the caller has them: O(K) a row, nothing is selected, no page is
 * laid out. Weights are those of the backward pass: a key whose score is NaN or minus infinity has none
 * and its value is not read. An item is a tile of rows of one head. */
#include "attn/backward.h"

#include "attn/bias.h"
#include "base/alloc.h"
#include "base/arena.h"
#include "base/fail.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum { TILE = 32, AHEAD = 6 /* keys that are asked for early */ };

typedef struct replay {
    const kh_attn_back *back;
    kh_attn_heads run;
    float *out;
    size_t K, E;
    kh_arena *scratch;
    atomic_int broken;
} replay;

typedef struct row_work {
    uint32_t *list; /* [K] */
    float *x;       /* [K] scores, then weights */
    const void **v; /* [K] */
    float *zeros;   /* [E] */
} row_work;

static size_t place_row(const replay *w, row_work *r, char *base)
{
    size_t at = kh_arena_place(&r->list, base, 0, w->K * sizeof *r->list);
    at = kh_arena_place(&r->x, base, at, w->K * sizeof *r->x);
    at = kh_arena_place(&r->v, base, at, w->K * sizeof *r->v);
    return kh_arena_place(&r->zeros, base, at, w->E * sizeof *r->zeros);
}

/* The list of a row, widened; its length, or SIZE_MAX where forward cannot have written it. */
static size_t read_list(const replay *w, uint32_t *list, size_t at)
{
    const kh_attention_saved *saved = w->back->args->saved;
    size_t n = saved->u[at] > 0 ? saved->counts[at] : 0, keys = w->back->args->keys;
    if (n > w->K) return SIZE_MAX;
    if (w->back->wide) {
        if (n > 0) memcpy(list, (uint32_t *)saved->indices + at * w->K, n * sizeof *list);
    } else {
        const uint16_t *from = (const uint16_t *)saved->indices + at * w->K;
        for (size_t i = 0; i < n; i++) list[i] = from[i];
    }
    for (size_t i = 0; i < n; i++)
        if (list[i] >= keys || (i > 0 && list[i] <= list[i - 1])) return SIZE_MAX;
    return n;
}

/* Raw scores with their biases. */
static void score(const replay *w, const row_work *r, size_t n, size_t h, size_t t)
{
    const kh_attn_back *b = w->back;
    const kh_attention_args *a = b->args;
    const float *q = a->q + w->run.b * b->q.batch + h * b->q.head + t * b->q.row;
    const float *keys = a->k + w->run.b * b->k.batch + w->run.g * b->k.head;
    for (size_t i = 0; i < n; i++) {
        const float *next = keys + r->list[i + AHEAD < n ? i + AHEAD : i] * b->k.row;
        for (size_t e = 0; e < w->E; e += 16) __builtin_prefetch(next + e);
        b->kern->gemv_f32(r->x + i, keys + r->list[i] * b->k.row, w->E, 1, q, w->E);
    }
    if (!b->layer->bias) return;
    const uint8_t *mask = a->bias->key_mask;
    const float *distances = b->layer->bias->distances;
    if (distances) distances += kh_attn_bias_at(b, h, t);
    for (size_t i = 0; i < n; i++) {
        if (distances) r->x[i] += distances[r->list[i]];
        if (mask && !mask[w->run.b * a->keys + r->list[i]]) r->x[i] = -INFINITY;
    }
}

/* Nonzero where the saved list is none. */
static int replay_row(const replay *w, const row_work *r, size_t h, size_t t)
{
    const kh_attn_back *b = w->back;
    size_t head = w->run.b * (size_t)b->layer->H + h, at = kh_attn_saved_at(b, w->run.b, h, t);
    size_t n = read_list(w, r->list, at);
    if (n == SIZE_MAX) return 1;
    float *out = w->out + w->run.b * b->out.batch + h * b->out.head + t * b->out.row;
    score(w, r, n, h, t);
    float scale = b->layer->scale;
    if (b->layer->softcap > 0) {
        b->kern->scale(r->x, scale, n);
        b->kern->softcap(r->x, b->layer->softcap, n);
        scale = 1.0f;
    }
    b->kern->exp_sum(r->x, r->x, n, scale, b->args->saved->m[at] + logf(b->args->saved->u[at]));
    if (b->drop) kh_attn_drop_listed(b->drop, head, t, r->x, r->list, n);
    const float *values = b->args->v + w->run.b * b->v.batch + w->run.g * b->v.head;
    for (size_t i = 0; i < n; i++)
        r->v[i] = r->x[i] > 0 ? values + r->list[i] * b->v.row : r->zeros;
    b->kern->gather_f32(out, r->x, r->v, n, w->E);
    return 0;
}

static void tile_item(void *context, size_t item, int worker)
{
    replay *w = context;
    size_t T = w->back->args->queries, tiles = (T + TILE - 1) / TILE;
    size_t h = w->run.head + item / tiles, t = item % tiles * TILE;
    kh_arena *scratch = &w->scratch[worker];
    kh_arena_mark mark = kh_arena_save(scratch);
    row_work r;
    place_row(w, &r, kh_arena_take(scratch, place_row(w, &r, NULL)));
    memset(r.zeros, 0, w->E * sizeof *r.zeros);
    for (size_t end = t + TILE < T ? t + TILE : T; t < end; t++)
        if (replay_row(w, &r, h, t)) atomic_store(&w->broken, 1);
    kh_arena_rewind(scratch, mark);
}

kh_status kh_attn_replay_indices(const kh_attn_back *back, float *out)
{
    replay w = {
        .back = back, .out = out, .K = back->args->saved->kept, .E = (size_t)back->layer->E};
    size_t threads = (size_t)back->pool->threads, T = back->args->queries;
    row_work r;
    KH_TRY(kh_new(&w.scratch, threads, sizeof *w.scratch, "the threads of attention replay"));
    kh_status status = KH_OK;
    for (size_t i = 0; i < threads && status == KH_OK; i++)
        status = kh_arena_init(&w.scratch[i], "attention replay scratch", place_row(&w, &r, NULL));
    while (status == KH_OK && kh_attn_next_heads(back, KH_KEYS_INDICES, &w.run))
        kh_parallel_for(back->pool, w.run.heads * ((T + TILE - 1) / TILE), tile_item, &w);
    for (size_t i = 0; i < threads; i++) kh_arena_free(&w.scratch[i]);
    kh_free(w.scratch);
    if (status == KH_OK && atomic_load(&w.broken))
        KH_FAIL(KH_ERR_ARGUMENT,
                "attention replay: saved indices are not the ascending positions that forward "
                "wrote for these %zu keys",
                back->args->keys);
    return status;
}
