/* The backward pass of attention over kept indices: O(K) a row, whatever the length.
 *
 * For a row with query q, upstream gradient o and kept keys j (Gupta et al. 2021; the choice is a
 * constant):
 *
 *     p_j = exp(scale q . k_j - m) / u      a_j = o . v_j, dropped as the weight was     D = o . out
 *     ds_j = scale p_j (a_j - D)            dq = sum ds_j k_j
 *     dk_j += ds_j q                        dv_j += p~_j o           (p~: after dropout)
 *
 * Rows are taken in chunks that fit the second-level cache; a row is (token, head), heads fastest:
 *
 *     1  rows   pairs [rows][2][E]: q and o side by side; m + ln u, D           tiles of rows
 *     2  keys   rows wait in a queue at each key that they kept; at sixteen the key goes through
 *               them: products with k_j and v_j, weights, and its own dk and dv while the rows are
 *               near. ds goes back to [rows][K].                                ranges of keys
 *     3  dq     keys are gathered by row                                        tiles of rows
 *
 * What is read at random is the chunk's pairs (cached) and one vector a kept key in 3.
 *
 * A key belongs to one range and sees its rows in order, chunk after chunk, so neither threads nor
 * chunks change a bit, no copies of dk and dv exist, and one head keeps all threads busy.
 *
 * Keys without weight (their score is NaN or minus infinity) give and get nothing.
 *
 * Rejected: to gather keys and values by row, and keys again for dq (half again as much traffic, most of
 * it from the third level); a counting sort in the place of the queues (two more passes over the
 * lists, 5 % of the time); to ask for the next sixteen rows while these are worked on (a fifth slower:
 * the loads that ask compete with those that read). */
#include "attn/backward.h"

#include "attn/bias.h"
#include "base/alloc.h"
#include "base/arena.h"
#include "base/fail.h"
#include "kern/attn_kern.h"
#include "kern/grad_kern.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum {
    TILE = 32,        /* rows of an item of loops 1 and 3 */
    RANGES = 8,       /* items of loop 2 */
    LEAST_RANGE = 64, /* keys */
    MOST_RANGE = 2048,
    BLOCK = 16,             /* rows that wait at a key: what back_pairs takes at a time */
    ASK = 14,               /* waiting rows at which the key itself is asked for */
    CHUNK_FLOATS = 1 << 16, /* of pairs: 256 KiB */
    CHUNK_ENTRIES = 1 << 17 /* kept keys */
};

typedef struct work {
    const kh_attn_back *back;
    kh_attn_heads run;
    size_t K, E;
    size_t first, tokens; /* of this chunk */
    size_t room, heads;   /* rows that a chunk may have, heads that a run may have */
    size_t range, ranges; /* keys of an item of loop 2, and how many items */
    float *pairs;         /* [room][2][E] */
    float *shifts, *sums; /* [room] m + ln u, D */
    uint64_t *bits;       /* [room] of dropout */
    size_t *biases;       /* [room] kh_attn_bias_at */
    const void **lists;   /* [room] the rows' indices */
    uint32_t *counts;     /* [room] */
    uint32_t *starts;     /* [room][ranges + 1] where a row's list enters each range */
    float *ds;            /* [room][K] */
    double *relative;     /* [tiles][heads][buckets] where they are wanted */
    kh_arena shared, *scratch;
    atomic_int broken; /* an index is none of the keys */
} work;

int kh_attn_next_heads(const kh_attn_back *back, enum kh_keys_kind kind, kh_attn_heads *run)
{
    size_t H = (size_t)back->layer->H, group = H / (size_t)back->layer->G;
    size_t at = run->b * H + run->head + run->heads, end = (size_t)back->args->batch * H;
    for (; at < end; at += run->heads) {
        run->b = at / H;
        run->head = at % H;
        run->g = run->head / group;
        run->heads = 1;
        run->setting = kh_attn_plan_at(back->plan, KH_PHASE_PREFILL, 0, (int)run->head);
        size_t last = (run->g + 1) * group;
        while (run->head + run->heads < last &&
               kh_attn_plan_at(back->plan, KH_PHASE_PREFILL, 0, (int)(run->head + run->heads)) ==
                   run->setting)
            run->heads++;
        if (run->setting->method->kind == kind) return 1;
    }
    return 0;
}

void kh_attn_uncap(float *d, const float *scores, size_t n, float cap, float scale)
{
    for (size_t i = 0; i < n; i++) {
        float t = scores[i] / cap;
        if (d[i] != 0) d[i] *= scale * (1.0f - t * t);
    }
}

size_t kh_attn_bias_at(const kh_attn_back *back, size_t head, size_t token)
{
    const kh_attn_bias *bias = back->layer->bias;
    size_t before = back->args->keys - back->args->queries;
    size_t position = back->layer->order == KH_ATTN_ALL_KEYS ? token : before + token;
    return head * bias->span + bias->origin - position;
}

/* Row r of the chunk: its token and its head. */
static size_t token_of(const work *w, size_t r)
{
    return w->first + r / w->run.heads;
}
static size_t head_of(const work *w, size_t r)
{
    return w->run.head + r % w->run.heads;
}

static int is_wide(const work *w)
{
    return w->back->args->keys > 65536;
}

static inline uint32_t entry(const void *list, size_t i, int wide)
{
    return wide ? ((const uint32_t *)list)[i] : ((const uint16_t *)list)[i];
}

/* A key's index within the keys of the run's key head. */
static const float *keys_of(const work *w)
{
    const kh_attn_back *b = w->back;
    return b->args->k + w->run.b * b->k.batch + w->run.g * b->k.head;
}

/* ---- 1: rows */

/* The first entry that is at least `begin`; no branch depends on the data. */
static inline uint32_t first_from(const void *list, uint32_t n, uint32_t begin, int wide)
{
    uint32_t low = 0;
    for (uint32_t half; n > 1; n -= half) {
        half = n / 2;
        low += half * (entry(list, low + half - 1, wide) < begin);
    }
    return low + (n > 0 && entry(list, low, wide) < begin);
}

/* The list of a row as forward wrote it, and where it enters each range; 0 entries where the row has no
 * weights. */
static inline __attribute__((always_inline)) size_t open_list(work *w, size_t r, size_t at,
                                                              int wide)
{
    const kh_attention_saved *saved = w->back->args->saved;
    const void *list = (const char *)saved->indices + at * w->K * (wide ? 4 : 2);
    size_t n = saved->u[at] > 0 ? saved->counts[at] : 0, falls = 0;
    uint32_t *starts = w->starts + r * (w->ranges + 1);
    if (n > w->K) falls = n = 1;
    for (size_t i = 1; i < n; i++) falls += entry(list, i, wide) <= entry(list, i - 1, wide);
    if (falls > 0 || (n > 0 && entry(list, n - 1, wide) >= w->back->args->keys)) {
        atomic_store(&w->broken, 1);
        n = 0;
    }
    for (size_t i = 0; i < w->ranges; i++)
        starts[i] = first_from(list, (uint32_t)n, (uint32_t)(i * w->range), wide);
    starts[w->ranges] = (uint32_t)n;
    w->lists[r] = list;
    return n;
}

static void rows_item(void *context, size_t item, int worker)
{
    (void)worker;
    work *w = context;
    const kh_attn_back *b = w->back;
    size_t E = w->E, end = w->tokens * w->run.heads;
    if (end > (item + 1) * TILE) end = (item + 1) * TILE;
    for (size_t r = item * TILE; r < end; r++) {
        size_t t = token_of(w, r), h = head_of(w, r), head = w->run.b * (size_t)b->layer->H + h;
        size_t at = head * b->args->queries + t;
        size_t row = w->run.b * b->out.batch + h * b->out.head + t * b->out.row;
        float *q = w->pairs + r * 2 * E, *o = q + E;
        memcpy(q, b->args->q + w->run.b * b->q.batch + h * b->q.head + t * b->q.row, E * sizeof *q);
        memcpy(o, b->gradients->dout + row, E * sizeof *o);
        b->kern->gemv_f32(w->sums + r, o, E, 1, b->args->out + row, E);
        w->shifts[r] = b->args->saved->m[at] + logf(b->args->saved->u[at]);
        w->counts[r] = (uint32_t)(is_wide(w) ? open_list(w, r, at, 1) : open_list(w, r, at, 0));
        if (b->layer->bias) w->biases[r] = kh_attn_bias_at(b, h, t);
        if (b->drop) w->bits[r] = kh_attn_drop_bits(b->drop, head, t);
    }
}

/* ---- 2: keys */

/* The rows that wait at the keys of a range. */
typedef struct queues {
    uint32_t *count; /* [range] */
    uint32_t *rows;  /* [range][BLOCK] */
    uint32_t *at;    /* [range][BLOCK] where they are in ds */
    float *spare;    /* [2][E] in the place of a gradient that nobody wants */
} queues;

static size_t place_queues(const work *w, queues *s, char *base)
{
    size_t at = kh_arena_place(&s->count, base, 0, w->range * sizeof(uint32_t));
    at = kh_arena_place(&s->rows, base, at, w->range * BLOCK * sizeof(uint32_t));
    at = kh_arena_place(&s->at, base, at, w->range * BLOCK * sizeof(uint32_t));
    return kh_arena_place(&s->spare, base, at, 2 * w->E * sizeof(float));
}

/* What was added to the raw score of row r and key j. */
static float bias_of(const work *w, size_t r, size_t j)
{
    const kh_attn_back *b = w->back;
    const uint8_t *mask = b->args->bias->key_mask;
    const float *distances = b->layer->bias->distances;
    if (mask && !mask[w->run.b * b->args->keys + j]) return -INFINITY;
    return distances ? distances[w->biases[r] + j] : 0.0f;
}

/* A key's part of the arrays. */
typedef struct vectors {
    const float *k, *v;
    float *dk, *dv; /* NULL: not wanted */
} vectors;

static inline vectors vectors_of(const work *w, size_t j)
{
    const kh_attn_back *b = w->back;
    size_t k = w->run.b * b->k.batch + w->run.g * b->k.head + j * b->k.row;
    size_t v = w->run.b * b->v.batch + w->run.g * b->v.head + j * b->v.row;
    return (vectors){b->args->k + k, b->args->v + v, b->gradients->dk ? b->gradients->dk + k : NULL,
                     b->gradients->dv ? b->gradients->dv + v : NULL};
}

/* Key j and n of its rows. */
static void do_block(const work *w, const queues *s, size_t begin, size_t in, size_t n)
{
    const kh_attn_back *b = w->back;
    const uint32_t *rows = s->rows + in * BLOCK, *at = s->at + in * BLOCK;
    kh_back how = {w->shifts, w->sums, b->layer->scale, b->layer->softcap};
    const kh_attn_bias *bias = b->layer->bias;
    float ds[BLOCK], gains[BLOCK], biases[BLOCK] = {0};
    vectors x = vectors_of(w, begin + in);
    if (b->drop) {
        for (size_t i = 0; i < n; i++) gains[i] = 1.0f;
        kh_attn_drop_column(b->drop, w->bits, rows, gains, begin + in, n);
    }
    for (size_t i = 0; bias && i < n; i++) biases[i] = bias_of(w, rows[i], begin + in);
    b->kern->back_pairs(x.dk ? x.dk : s->spare, x.dv ? x.dv : s->spare + w->E, ds, x.k, x.v,
                        w->pairs, rows, b->drop ? gains : NULL, bias ? biases : NULL, n, &how,
                        w->E);
    for (size_t i = 0; i < n; i++) w->ds[at[i]] = ds[i];
}

/* What do_block will need of key j. */
static inline void ask_for(const work *w, size_t j)
{
    vectors x = vectors_of(w, j);
    for (size_t e = 0; e < w->E; e += KH_PANEL) {
        __builtin_prefetch(x.k + e);
        __builtin_prefetch(x.v + e);
        if (x.dk) __builtin_prefetch(x.dk + e, 1);
        if (x.dv) __builtin_prefetch(x.dv + e, 1);
    }
}

static inline __attribute__((always_inline)) void do_range(const work *w, const queues *s,
                                                           size_t item, int wide)
{
    size_t S = w->back->args->keys, left = S - item * w->range;
    uint32_t begin = (uint32_t)(item * w->range),
             keys = (uint32_t)(left < w->range ? left : w->range);
    uint32_t rows = (uint32_t)(w->tokens * w->run.heads), K = (uint32_t)w->K;
    memset(s->count, 0, keys * sizeof *s->count);
    for (uint32_t r = 0; r < rows; r++) {
        const void *list = w->lists[r];
        const uint32_t *start = w->starts + r * (w->ranges + 1) + item;
        for (uint32_t i = start[0], last = start[1]; i < last; i++) {
            uint32_t in = entry(list, i, wide) - begin, full = s->count[in]++;
            s->rows[in * BLOCK + full] = r;
            s->at[in * BLOCK + full] = r * K + i;
            if (full == ASK) ask_for(w, begin + in);
            if (full < BLOCK - 1) continue;
            do_block(w, s, begin, in, BLOCK);
            s->count[in] = 0;
        }
    }
    for (uint32_t in = 0; in < keys; in++)
        if (s->count[in] > 0) do_block(w, s, begin, in, s->count[in]);
}

static void keys_item(void *context, size_t item, int worker)
{
    work *w = context;
    kh_arena *scratch = &w->scratch[worker];
    kh_arena_mark mark = kh_arena_save(scratch);
    queues s;
    place_queues(w, &s, kh_arena_take(scratch, place_queues(w, &s, NULL)));
    memset(s.spare, 0, 2 * w->E * sizeof *s.spare);
    if (is_wide(w))
        do_range(w, &s, item, 1);
    else
        do_range(w, &s, item, 0);
    kh_arena_rewind(scratch, mark);
}

/* ---- 3: what a row keeps of its keys: dq, and its share of the biases' gradient */

typedef struct gathered {
    const void **k; /* [K] */
    float *zeros;   /* [E] */
} gathered;

static size_t place_gathered(const work *w, gathered *g, char *base)
{
    size_t at = kh_arena_place(&g->k, base, 0, w->K * sizeof *g->k);
    return kh_arena_place(&g->zeros, base, at, w->E * sizeof *g->zeros);
}

static size_t tile_sums(const work *w)
{
    return w->back->drelative ? w->run.heads * (size_t)w->back->args->bias->buckets : 0;
}

static void gather_row(const work *w, const gathered *g, size_t r)
{
    const kh_attn_back *b = w->back;
    const float *ds = w->ds + r * w->K, *keys = keys_of(w);
    size_t n = w->counts[r], row = w->run.b * b->q.batch + head_of(w, r) * b->q.head;
    int wide = is_wide(w);
    /* a key without weight is not multiplied with its zero: it may hold NaN */
    for (size_t i = 0; i < n; i++)
        g->k[i] = ds[i] != 0 ? keys + entry(w->lists[r], i, wide) * b->k.row : g->zeros;
    b->kern->gather_f32(b->gradients->dq + row + token_of(w, r) * b->q.row, ds, g->k, n, w->E);
}

static void queries_item(void *context, size_t item, int worker)
{
    work *w = context;
    const kh_attn_back *b = w->back;
    kh_arena *scratch = &w->scratch[worker];
    kh_arena_mark mark = kh_arena_save(scratch);
    gathered g;
    place_gathered(w, &g, kh_arena_take(scratch, place_gathered(w, &g, NULL)));
    memset(g.zeros, 0, w->E * sizeof *g.zeros);
    double *sums = w->relative + item * tile_sums(w);
    for (size_t i = 0; i < tile_sums(w); i++) sums[i] = 0;
    size_t end = w->tokens * w->run.heads;
    if (end > (item + 1) * TILE) end = (item + 1) * TILE;
    for (size_t r = item * TILE; r < end; r++) {
        if (b->gradients->dq) gather_row(w, &g, r);
        if (!b->drelative) continue;
        const uint16_t *bucket = b->buckets + kh_attn_bias_at(b, 0, token_of(w, r));
        double *mine = sums + r % w->run.heads * (size_t)b->args->bias->buckets;
        for (size_t i = 0; i < w->counts[r]; i++)
            mine[bucket[entry(w->lists[r], i, is_wide(w))]] += (double)w->ds[r * w->K + i];
    }
    kh_arena_rewind(scratch, mark);
}

/* In the order of the tiles. */
static void add_relative(work *w, size_t tiles)
{
    size_t n = tile_sums(w), buckets = (size_t)w->back->args->bias->buckets;
    for (size_t tile = 0; tile < tiles; tile++)
        for (size_t i = 0; i < n; i++)
            w->back->drelative[w->run.head * buckets + i] += w->relative[tile * n + i];
}

/* ---- the pass */

/* Rows of a chunk and keys of a range. */
static void size_work(work *w)
{
    size_t rows = CHUNK_FLOATS / (2 * w->E), S = w->back->args->keys, most = 1;
    kh_attn_heads run = {0};
    while (kh_attn_next_heads(w->back, KH_KEYS_INDICES, &run))
        if (run.heads > most) most = run.heads;
    if (rows > CHUNK_ENTRIES / w->K) rows = CHUNK_ENTRIES / w->K;
    if (rows < TILE) rows = TILE;
    if (rows > most * w->back->args->queries) rows = most * w->back->args->queries;
    w->room = rows > most ? rows : most;
    w->heads = most;
    w->range = (S + RANGES - 1) / RANGES;
    if (w->range < LEAST_RANGE) w->range = LEAST_RANGE;
    if (w->range > MOST_RANGE) w->range = MOST_RANGE;
    w->ranges = (S + w->range - 1) / w->range;
}

static size_t place_shared(work *w, char *base)
{
    size_t n = w->room, at = kh_arena_place(&w->pairs, base, 0, n * 2 * w->E * sizeof *w->pairs);
    at = kh_arena_place(&w->shifts, base, at, n * sizeof *w->shifts);
    at = kh_arena_place(&w->sums, base, at, n * sizeof *w->sums);
    at = kh_arena_place(&w->bits, base, at, n * sizeof *w->bits);
    at = kh_arena_place(&w->biases, base, at, n * sizeof *w->biases);
    at = kh_arena_place(&w->lists, base, at, n * sizeof *w->lists);
    at = kh_arena_place(&w->counts, base, at, n * sizeof *w->counts);
    at = kh_arena_place(&w->starts, base, at, n * (w->ranges + 1) * sizeof *w->starts);
    at = kh_arena_place(&w->ds, base, at, n * w->K * sizeof *w->ds);
    size_t sums = w->back->drelative ? w->heads * (size_t)w->back->args->bias->buckets : 0;
    return kh_arena_place(&w->relative, base, at,
                          (n + TILE - 1) / TILE * sums * sizeof *w->relative);
}

static kh_status open_work(work *w)
{
    size_t threads = (size_t)w->back->pool->threads, shared;
    queues s;
    gathered g;
    size_work(w);
    shared = place_shared(w, NULL);
    KH_TRY(kh_arena_init(&w->shared, "attention backward", shared));
    place_shared(w, kh_arena_take(&w->shared, shared));
    KH_TRY(kh_new(&w->scratch, threads, sizeof *w->scratch, "the threads of attention backward"));
    size_t scratch = place_gathered(w, &g, NULL), other = place_queues(w, &s, NULL);
    if (other > scratch) scratch = other;
    for (size_t i = 0; i < threads; i++)
        KH_TRY(kh_arena_init(&w->scratch[i], "attention backward scratch", scratch));
    return KH_OK;
}

static void close_work(work *w)
{
    for (int i = 0; w->scratch && i < w->back->pool->threads; i++) kh_arena_free(&w->scratch[i]);
    kh_free(w->scratch);
    kh_arena_free(&w->shared);
}

static void run_heads(work *w)
{
    const kh_attn_back *b = w->back;
    size_t T = b->args->queries, tokens = w->room / w->run.heads;
    for (w->first = 0; w->first < T; w->first += w->tokens) {
        w->tokens = T - w->first < tokens ? T - w->first : tokens;
        size_t tiles = (w->tokens * w->run.heads + TILE - 1) / TILE;
        kh_parallel_for(b->pool, tiles, rows_item, w);
        kh_parallel_for(b->pool, w->ranges, keys_item, w);
        if (b->gradients->dq || b->drelative) kh_parallel_for(b->pool, tiles, queries_item, w);
        if (b->drelative) add_relative(w, tiles);
    }
}

kh_status kh_attn_backward_indices(const kh_attn_back *back)
{
    work w = {.back = back, .K = back->args->saved->kept, .E = (size_t)back->layer->E};
    if (!kh_attn_next_heads(back, KH_KEYS_INDICES, &w.run)) return KH_OK;
    kh_status status = open_work(&w);
    for (int more = !status; more;) {
        run_heads(&w);
        more = kh_attn_next_heads(back, KH_KEYS_INDICES, &w.run);
    }
    close_work(&w);
    if (!status && atomic_load(&w.broken))
        KH_FAIL(KH_ERR_ARGUMENT,
                "attention backward: saved indices are not the ascending positions that forward "
                "wrote for these %zu keys",
                back->args->keys);
    return status;
}
