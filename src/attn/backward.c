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
 *     2  keys   each row's ascending list is cut by bisection and a counting sort turns rows into
 *               lists a key. With k_j and v_j at hand a key goes through its rows: products, weights,
 *               and its own dk and dv while the rows are near. ds goes back to [rows][K].
 *                                                                               ranges of keys
 *     3  dq     keys are gathered by row                                        tiles of rows
 *
 * What is read at random is the chunk's pairs (cached) and one vector a kept key in 3. Gathering keys
 * and values by row, twice the keys, was the plan that this replaced: half again as much traffic, most
 * of it from the third level.
 *
 * A key belongs to one range and sees its rows in order, chunk after chunk, so neither threads nor
 * chunks change a bit, no copies of dk and dv exist, and one head keeps all threads busy.
 *
 * Keys without weight (their score is NaN or minus infinity) give and get nothing. */
#include "attn/backward.h"

#include "base/alloc.h"
#include "base/arena.h"
#include "base/fail.h"
#include "kern/grad_kern.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum {
    TILE = 32,              /* rows of an item of loops 1 and 3 */
    RANGES = 8,             /* items of loop 2 */
    LEAST_RANGE = 64,       /* keys */
    BLOCK = 32,             /* rows of a key that stay in the first-level cache */
    CHUNK_FLOATS = 1 << 17, /* of pairs: 512 KiB */
    CHUNK_ENTRIES = 1 << 17 /* kept keys */
};

typedef struct work {
    const kh_attn_back *back;
    kh_attn_heads run;
    size_t K, E;
    size_t first, tokens; /* of this chunk */
    size_t room;          /* rows that a chunk may have */
    size_t range;         /* keys of an item of loop 2 */
    float *pairs;         /* [room][2][E] */
    float *shifts, *sums; /* [room] m + ln u, D */
    uint64_t *bits;       /* [room] of dropout */
    const void **lists;   /* [room] the rows' indices */
    uint32_t *counts;     /* [room] */
    float *ds;            /* [room][K] */
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

static size_t place(void *out, char *base, size_t at, size_t bytes)
{
    char *memory = base ? base + at : NULL;
    memcpy(out, &memory, sizeof memory);
    return at + kh_arena_need(bytes);
}

/* ---- 1: rows */

/* The list of a row as forward wrote it; 0 entries where it has no weights. Positions ascend, so the
 * last one tells whether they are keys. */
static size_t open_list(work *w, size_t r, size_t at)
{
    const kh_attention_saved *saved = w->back->args->saved;
    size_t n = saved->counts[at], S = w->back->args->keys;
    int wide = is_wide(w), good = n <= w->K;
    const char *list = (const char *)saved->indices + at * w->K * (wide ? 4 : 2);
    uint32_t next = 0;
    w->lists[r] = list;
    if (!(saved->u[at] > 0)) return 0;
    for (size_t i = 0; good && i < n; i++) {
        uint32_t j = entry(list, i, wide);
        good = j >= next && j < S;
        next = j + 1;
    }
    if (!good) atomic_store(&w->broken, 1);
    return good ? n : 0;
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
        w->counts[r] = (uint32_t)open_list(w, r, at);
        if (b->drop) w->bits[r] = kh_attn_drop_bits(b->drop, head, t);
    }
}

/* ---- 2: keys */

/* The entries of all rows for the keys [begin, end), by key and then by row. */
typedef struct sorted {
    uint32_t *ends;   /* [range + 1] where a key's entries end, and the next one's begin */
    uint32_t *starts; /* [room] where a row's list enters the range */
    uint32_t *rows;   /* [room x min(K, range)] */
    uint32_t *at;     /* the same: where they are in ds */
    float *spare;     /* [2][E] in the place of a gradient that nobody wants */
} sorted;

static size_t place_sorted(const work *w, sorted *s, char *base)
{
    size_t most = w->room * (w->K < w->range ? w->K : w->range);
    size_t at = place(&s->ends, base, 0, (w->range + 1) * sizeof(uint32_t));
    at = place(&s->starts, base, at, w->room * sizeof(uint32_t));
    at = place(&s->rows, base, at, most * sizeof(uint32_t));
    at = place(&s->at, base, at, most * sizeof(uint32_t));
    return place(&s->spare, base, at, 2 * w->E * sizeof(float));
}

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

static inline __attribute__((always_inline)) void sort_range(const work *w, sorted *s,
                                                             uint32_t begin, uint32_t end, int wide)
{
    size_t rows = w->tokens * w->run.heads;
    uint32_t *ends = s->ends, *row = s->rows, *at = s->at, K = (uint32_t)w->K;
    memset(ends, 0, (end - begin + 1) * sizeof *ends);
    for (uint32_t r = 0; r < rows; r++) {
        const void *list = w->lists[r];
        uint32_t n = w->counts[r], i = first_from(list, n, begin, wide);
        s->starts[r] = i;
        for (uint32_t j; i < n && (j = entry(list, i, wide)) < end; i++) ends[j - begin + 1]++;
    }
    for (uint32_t j = 0; j < end - begin; j++) ends[j + 1] += ends[j];
    for (uint32_t r = 0; r < rows; r++) {
        const void *list = w->lists[r];
        uint32_t n = w->counts[r];
        for (uint32_t i = s->starts[r], j; i < n && (j = entry(list, i, wide)) < end; i++) {
            uint32_t to = ends[j - begin]++;
            row[to] = r;
            at[to] = r * K + i;
        }
    }
}

/* Key j and n of its rows. */
static void do_block(const work *w, size_t j, const uint32_t *rows, const uint32_t *at, size_t n,
                     float *dk, float *dv)
{
    const kh_attn_back *b = w->back;
    float p[BLOCK], d[BLOCK], capped[BLOCK], scale = b->layer->scale, cap = b->layer->softcap;
    const float *k = keys_of(w) + j * b->k.row;
    const float *v = b->args->v + w->run.b * b->v.batch + w->run.g * b->v.head + j * b->v.row;
    b->kern->dot_pairs(p, d, k, v, w->pairs, rows, n, w->E);
    if (cap != 0) {
        b->kern->scale(p, scale, n);
        b->kern->softcap(p, cap, n);
        memcpy(capped, p, n * sizeof *p);
    }
    if (b->drop) kh_attn_drop_column(b->drop, w->bits, rows, d, j, n);
    b->kern->softmax_back_listed(p, d, rows, n, cap != 0 ? 1.0f : scale, w->shifts, w->sums);
    if (cap != 0) kh_attn_uncap(d, capped, n, cap, scale);
    for (size_t i = 0; i < n; i++) w->ds[at[i]] = d[i];
    if (b->drop) kh_attn_drop_column(b->drop, w->bits, rows, p, j, n);
    b->kern->gather_pairs(dk, dv, w->pairs, rows, d, p, n, w->E);
}

static void keys_item(void *context, size_t item, int worker)
{
    work *w = context;
    const kh_attn_back *b = w->back;
    size_t S = b->args->keys, begin = item * w->range, at = 0;
    size_t end = S - begin < w->range ? S : begin + w->range;
    kh_arena *scratch = &w->scratch[worker];
    kh_arena_mark mark = kh_arena_save(scratch);
    sorted s;
    place_sorted(w, &s, kh_arena_take(scratch, place_sorted(w, &s, NULL)));
    if (is_wide(w))
        sort_range(w, &s, (uint32_t)begin, (uint32_t)end, 1);
    else
        sort_range(w, &s, (uint32_t)begin, (uint32_t)end, 0);
    memset(s.spare, 0, 2 * w->E * sizeof *s.spare);
    float *dk = b->gradients->dk, *dv = b->gradients->dv;
    if (dk) dk += w->run.b * b->k.batch + w->run.g * b->k.head;
    if (dv) dv += w->run.b * b->v.batch + w->run.g * b->v.head;
    for (size_t j = begin; j < end; j++)
        for (size_t last = s.ends[j - begin], n; at < last; at += n) {
            n = last - at < BLOCK ? last - at : BLOCK;
            do_block(w, j, s.rows + at, s.at + at, n, dk ? dk + j * b->k.row : s.spare,
                     dv ? dv + j * b->v.row : s.spare + w->E);
        }
    kh_arena_rewind(scratch, mark);
}

/* ---- 3: dq */

typedef struct gathered {
    const void **k; /* [K] */
    float *zeros;   /* [E] */
} gathered;

static size_t place_gathered(const work *w, gathered *g, char *base)
{
    size_t at = place(&g->k, base, 0, w->K * sizeof *g->k);
    return place(&g->zeros, base, at, w->E * sizeof *g->zeros);
}

static void queries_item(void *context, size_t item, int worker)
{
    work *w = context;
    const kh_attn_back *b = w->back;
    const float *keys = keys_of(w);
    kh_arena *scratch = &w->scratch[worker];
    kh_arena_mark mark = kh_arena_save(scratch);
    int wide = is_wide(w);
    gathered g;
    place_gathered(w, &g, kh_arena_take(scratch, place_gathered(w, &g, NULL)));
    memset(g.zeros, 0, w->E * sizeof *g.zeros);
    size_t end = w->tokens * w->run.heads;
    if (end > (item + 1) * TILE) end = (item + 1) * TILE;
    for (size_t r = item * TILE; r < end; r++) {
        const float *ds = w->ds + r * w->K;
        const void *list = w->lists[r];
        size_t n = w->counts[r], row = w->run.b * b->q.batch + head_of(w, r) * b->q.head;
        /* a key without weight is not multiplied with its zero: it may hold NaN */
        for (size_t i = 0; i < n; i++)
            g.k[i] = ds[i] != 0 ? keys + entry(list, i, wide) * b->k.row : g.zeros;
        b->kern->gather_f32(b->gradients->dq + row + token_of(w, r) * b->q.row, ds, g.k, n, w->E);
    }
    kh_arena_rewind(scratch, mark);
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
    w->range = (S + RANGES - 1) / RANGES;
    if (w->range < LEAST_RANGE) w->range = LEAST_RANGE;
}

static size_t place_shared(work *w, char *base)
{
    size_t n = w->room, at = place(&w->pairs, base, 0, n * 2 * w->E * sizeof *w->pairs);
    at = place(&w->shifts, base, at, n * sizeof *w->shifts);
    at = place(&w->sums, base, at, n * sizeof *w->sums);
    at = place(&w->bits, base, at, n * sizeof *w->bits);
    at = place(&w->lists, base, at, n * sizeof *w->lists);
    at = place(&w->counts, base, at, n * sizeof *w->counts);
    return place(&w->ds, base, at, n * w->K * sizeof *w->ds);
}

static kh_status open_work(work *w)
{
    size_t threads = (size_t)w->back->pool->threads, shared;
    sorted s;
    gathered g;
    size_work(w);
    shared = place_shared(w, NULL);
    KH_TRY(kh_arena_init(&w->shared, "attention backward", shared));
    place_shared(w, kh_arena_take(&w->shared, shared));
    KH_TRY(kh_new(&w->scratch, threads, sizeof *w->scratch, "the threads of attention backward"));
    size_t scratch = place_gathered(w, &g, NULL), other = place_sorted(w, &s, NULL);
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
        kh_parallel_for(b->pool, (b->args->keys + w->range - 1) / w->range, keys_item, w);
        if (b->gradients->dq) kh_parallel_for(b->pool, tiles, queries_item, w);
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
