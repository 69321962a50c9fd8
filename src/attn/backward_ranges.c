/* The backward pass of attention over ranges of keys (full, window): five products of tiles, scores
 * computed again page by page (Dao et al., "FlashAttention", 2022).
 *
 *     S = Q K^T     P = exp(scale S - m - ln u)     A = dO V^T     dS = scale P (A - D)
 *     dQ += dS K    dK += dS^T Q                 dV += P^T dO
 *
 * with D = dO . out for each row, which is sum p_j a_j without another pass over the keys.
 *
 * Heads are taken in waves of several jobs (a job: one run of heads of one key head), queries in chunks:
 *
 *     1  rows    q, dO packed [rows][E]; m + ln u, D; the ranges that the method selects      by tiles
 *     2  blocks  a job's keys are cut into blocks; an item adds to its own keys' dk and dv,
 *                and to its own copy of the chunk's dq [blocks][rows][E]                    by blocks
 *     3  dq      the copies, added in the order of the blocks                               by tiles
 *
 * In a block the pages are the outer loop and the tiles of rows the inner one: a page's panels of keys
 * and of values are packed once for the chunk. Blocks, chunks and waves follow from the shapes alone, so
 * results do not depend on threads, and one head keeps them all busy.
 *
 * Keys that hold NaN or infinities are zeros where dS is multiplied with them: their weight is 0.
 *
 * Measured (Xeon 2.5 GHz, AVX-512, 12 heads of 64, causal, 4,096 positions, one thread): 11.5 us a query and
 * head where fused multiply-adds alone would take 8.3; the products run at 84 % of the multipliers' peak,
 * softmax takes 6 % (15 % when it was taken row by row with exact exponentials: 12.7 us).
 *
 * Rejected: two passes, one for dq and one for dk and dv (seven products instead of five); tiles of 48
 * rows (equal). */
#include "attn/backward.h"

#include "attn/bias.h"
#include "attn/scorer.h"
#include "base/alloc.h"
#include "base/arena.h"
#include "base/fail.h"
#include "kern/attn_kern.h"
#include "kern/grad_kern.h"

#include <math.h>
#include <string.h>

enum {
    TILE = 96,         /* rows */
    CHUNK_ROWS = 1024, /* of a job */
    BLOCK = 512,       /* keys, at least */
    MOST_BLOCKS = 32,  /* of a job: what the copies of dq may take */
    WAVE_ITEMS = 16    /* blocks of all jobs of a wave, about */
};

/* One job's chunk of rows. */
typedef struct rows {
    kh_attn_heads heads;
    size_t n;            /* rows: (token, head), heads fastest */
    float *q, *dout;     /* [room][E] */
    float *shift, *sum;  /* [room] m + ln u (INFINITY: no key was seen), D */
    kh_range *ranges;    /* [room][2] */
    kh_range *hulls;     /* [tiles][2] of the tiles' first and second ranges */
    kh_range *insides;   /* [tiles] keys that all rows of the tile keep */
    float *dq;           /* [blocks][room][E] */
    unsigned char *used; /* [blocks] dq has something */
} rows;

typedef struct work {
    const kh_attn_back *back;
    size_t E, T, S;
    size_t first, tokens; /* of the chunk */
    size_t room, tiles;   /* rows and tiles that a chunk may have */
    size_t block, blocks; /* keys of a block, blocks of a job */
    size_t sums;          /* [heads][buckets] of the biases' gradient; 0: not wanted */
    double *relative;     /* [jobs][blocks][sums] */
    rows *wave;           /* [jobs] */
    size_t jobs;
    kh_arena shared, *scratch;
} work;

static size_t position_of(const work *w, size_t token)
{
    return w->back->layer->order == KH_ATTN_ALL_KEYS ? token : w->S - w->T + token;
}

/* ---- 1: rows */

static kh_range both(kh_range a, kh_range b)
{
    kh_range c = {a.begin > b.begin ? a.begin : b.begin, a.end < b.end ? a.end : b.end};
    if (c.end < c.begin) c.end = c.begin;
    return c;
}

static void select_ranges(const work *w, rows *j, size_t tile, size_t r, size_t n)
{
    const kh_attn_back *b = w->back;
    size_t heads = j->heads.heads;
    kh_tile t = {.layer = b->layer,
                 .setting = j->heads.setting,
                 .heads = (int)heads,
                 .length = w->S,
                 .chunk = {0, UINT32_MAX}};
    kh_range hull[2] = {{UINT32_MAX, 0}, {UINT32_MAX, 0}}, inside = {0, UINT32_MAX};
    for (size_t i = r; i < r + n; i++) { /* a tile may begin in the middle of a token */
        t.position = position_of(w, w->first + i / heads);
        t.R = t.tokens = 1;
        t.keys.ranges = j->ranges + 2 * i;
        j->heads.setting->method->select(&t);
        inside = both(inside, *t.keys.ranges);
        for (int k = 0; k < 2; k++) {
            kh_range range = t.keys.ranges[k];
            if (range.begin == range.end) continue;
            if (range.begin < hull[k].begin) hull[k].begin = range.begin;
            if (range.end > hull[k].end) hull[k].end = range.end;
        }
    }
    j->hulls[2 * tile] = hull[0];
    j->hulls[2 * tile + 1] = hull[1];
    j->insides[tile] = inside;
}

static void rows_item(void *context, size_t item, int worker)
{
    (void)worker;
    work *w = context;
    const kh_attn_back *b = w->back;
    rows *j = &w->wave[item / w->tiles];
    size_t E = w->E, tile = item % w->tiles, r = tile * TILE, heads = j->heads.heads;
    if (r >= j->n) return;
    size_t end = j->n - r < TILE ? j->n : r + TILE;
    select_ranges(w, j, tile, r, end - r);
    for (; r < end; r++) {
        size_t t = w->first + r / heads, h = j->heads.head + r % heads;
        size_t at = kh_attn_saved_at(b, j->heads.b, h, t);
        size_t row = j->heads.b * b->out.batch + h * b->out.head + t * b->out.row;
        float u = b->args->saved->u[at];
        memcpy(j->q + r * E, b->args->q + j->heads.b * b->q.batch + h * b->q.head + t * b->q.row,
               E * sizeof(float));
        memcpy(j->dout + r * E, b->gradients->dout + row, E * sizeof(float));
        b->kern->gemv_f32(j->sum + r, j->dout + r * E, E, 1, b->args->out + row, E);
        j->shift[r] = u > 0 ? b->args->saved->m[at] + logf(u) : INFINITY;
        if (u > 0) continue;
        memset(j->q + r * E, 0, E * sizeof(float)); /* may hold NaN */
        memset(j->dout + r * E, 0, E * sizeof(float));
    }
}

/* ---- 2: blocks */

/* A page of keys and values in the three forms that the products want. */
typedef struct page {
    kh_range keys;
    int open;
    float *k_panels, *v_panels; /* [4][E][16] */
    float *k;                   /* [64][E] rows */
    float *s, *d;               /* [TILE][64] */
    float *capped;              /* [64] */
    float *ones;                /* [TILE] */
    double *relative;           /* [heads][buckets] of this item, where they are wanted */
} page;

static size_t place_page(const work *w, page *p, char *base)
{
    size_t panels = KH_PAGE * w->E * sizeof(float), tile = TILE * KH_PAGE * sizeof(float);
    size_t at = kh_arena_place(&p->k_panels, base, 0, panels);
    at = kh_arena_place(&p->v_panels, base, at, panels);
    at = kh_arena_place(&p->k, base, at, panels);
    at = kh_arena_place(&p->s, base, at, tile);
    at = kh_arena_place(&p->d, base, at, tile);
    at = kh_arena_place(&p->capped, base, at, KH_PAGE * sizeof(float));
    return kh_arena_place(&p->ones, base, at, TILE * sizeof(float));
}

/* Rows of keys or values as panels; `rows` [n][E] holds them packed afterwards. */
static void pack(const work *w, float *panels, float *packed, const float *from, size_t row,
                 size_t n)
{
    size_t E = w->E;
    for (size_t i = 0; i < n; i++) memcpy(packed + i * E, from + i * row, E * sizeof *from);
    for (size_t i = 0; i < n; i += KH_PANEL)
        w->back->kern->product_pack(panels + i * E, KH_PANEL, packed + i * E,
                                    n - i < KH_PANEL ? n - i : KH_PANEL, E);
}

static void open_page(const work *w, const rows *j, page *p)
{
    const kh_attn_back *b = w->back;
    size_t E = w->E, first = p->keys.begin, n = p->keys.end - first;
    const float *k = b->args->k + j->heads.b * b->k.batch + j->heads.g * b->k.head;
    const float *v = b->args->v + j->heads.b * b->v.batch + j->heads.g * b->v.head;
    pack(w, p->v_panels, p->k, v + first * b->v.row, b->v.row, n);
    pack(w, p->k_panels, p->k, k + first * b->k.row, b->k.row, n);
    for (size_t i = 0; i < n; i++) {
        float test = 0;
        for (size_t e = 0; e < E; e++) test += p->k[i * E + e] * 0.0f;
        if (!(test == 0)) memset(p->k + i * E, 0, E * sizeof *p->k);
    }
    p->open = 1;
}

/* The part of a page that row r keeps: keys [begin, end) of it but for a hole in the middle. */
typedef struct part {
    size_t begin, end, hole, hole_end;
} part;

static part part_of(const rows *j, size_t r, kh_range keys)
{
    kh_range a = both(keys, j->ranges[2 * r]), b = both(keys, j->ranges[2 * r + 1]);
    if (a.begin == a.end) a = b;
    if (b.begin == b.end) b = a;
    if (a.begin == a.end) return (part){0};
    return (part){a.begin - keys.begin, b.end - keys.begin, a.end - keys.begin,
                  b.begin > a.end ? b.begin - keys.begin : a.end - keys.begin};
}

/* Adds what was added to the raw scores of n keys from `first` on. */
static void bias_row(const work *w, const rows *j, size_t head, size_t token, float *s,
                     size_t first, size_t n)
{
    const kh_attn_back *b = w->back;
    const float *distances = b->layer->bias->distances;
    const uint8_t *mask = b->args->bias->key_mask;
    if (distances) b->kern->add(s, distances + kh_attn_bias_at(b, head, token) + first, n);
    if (!mask) return;
    mask += j->heads.b * w->S + first;
    for (size_t i = 0; i < n; i++)
        if (!mask[i]) s[i] = -INFINITY;
}

/* The row's derivatives, by bucket of the distance to their key. */
static void sum_buckets(const work *w, const rows *j, const page *p, size_t r, const float *d)
{
    const kh_attn_back *b = w->back;
    size_t heads = j->heads.heads, first = p->keys.begin, n = p->keys.end - first;
    const uint16_t *bucket = b->buckets + kh_attn_bias_at(b, 0, w->first + r / heads) + first;
    double *sums = p->relative + r % heads * (size_t)b->args->bias->buckets;
    for (size_t i = 0; i < n; i++) sums[bucket[i]] += (double)d[i];
}

/* Row r of the chunk: scores s and products d of its page become weights and derivatives. */
static void weigh_row(const work *w, const rows *j, const page *p, size_t r, float *s, float *d)
{
    const kh_attn_back *b = w->back;
    part in = part_of(j, r, p->keys);
    size_t n = in.end - in.begin, all = p->keys.end - p->keys.begin;
    float scale = b->layer->scale, cap = b->layer->softcap;
    size_t head = j->heads.b * (size_t)b->layer->H + j->heads.head + r % j->heads.heads;
    size_t token = w->first + r / j->heads.heads, first = p->keys.begin + in.begin;
    if (!(j->shift[r] < INFINITY)) n = 0;
    if (n < all) {
        for (size_t i = 0; i < (n > 0 ? in.begin : all); i++) s[i] = d[i] = 0;
        for (size_t i = n > 0 ? in.end : all; i < all; i++) s[i] = d[i] = 0;
        if (n == 0) return;
    }
    s += in.begin;
    d += in.begin;
    if (b->layer->bias) bias_row(w, j, j->heads.head + r % j->heads.heads, token, s, first, n);
    for (size_t i = in.hole; i < in.hole_end; i++) s[i - in.begin] = -INFINITY;
    if (cap != 0) {
        b->kern->scale(s, scale, n);
        b->kern->softcap(s, cap, n);
        memcpy(p->capped, s, n * sizeof *s);
    }
    if (b->drop) kh_attn_drop_range(b->drop, head, token, d, first, n);
    b->kern->softmax_back(s, d, n, cap != 0 ? 1.0f : scale, j->shift[r], j->sum[r]);
    if (cap != 0) kh_attn_uncap(d, p->capped, n, cap, scale);
    if (b->drop) kh_attn_drop_range(b->drop, head, token, s, first, n);
}

/* All rows of a tile keep all of a page. */
static int is_inside(const rows *j, size_t tile, kh_range keys)
{
    return keys.begin >= j->insides[tile].begin && keys.end <= j->insides[tile].end;
}

/* The rows of a tile that keep some of a page, without those at its ends that keep none. */
static int rows_of_page(const rows *j, size_t tile, kh_range keys, size_t *first, size_t *end)
{
    kh_range a = both(keys, j->hulls[2 * tile]), b = both(keys, j->hulls[2 * tile + 1]);
    if (a.begin == a.end && b.begin == b.end) return 0;
    *first = tile * TILE;
    *end = j->n - *first < TILE ? j->n : *first + TILE;
    if (is_inside(j, tile, keys)) return 1;
    for (; *first < *end; ++*first) {
        part in = part_of(j, *first, keys);
        if (in.begin < in.end) break;
    }
    for (; *end > *first; --*end) {
        part in = part_of(j, *end - 1, keys);
        if (in.begin < in.end) break;
    }
    return *first < *end;
}

/* The five products of rows [r, r + R) with a page. */
static void do_tile(const work *w, rows *j, page *p, size_t block, size_t r, size_t R)
{
    const kh_attn_back *b = w->back;
    const kh_kern *kern = b->kern;
    size_t E = w->E, first = p->keys.begin, n = p->keys.end - first;
    size_t panels = (n + KH_PANEL - 1) / KH_PANEL;
    const float *q = j->q + r * E, *dout = j->dout + r * E;
    if (!p->open) open_page(w, j, p);
    kern->score_panel(p->s, KH_PAGE, q, E, R, p->k_panels, panels, E);
    kern->score_panel(p->d, KH_PAGE, dout, E, R, p->v_panels, panels, E);
    int plain = !b->layer->bias && !b->drop && b->layer->softcap == 0;
    if (plain && is_inside(j, r / TILE, p->keys))
        kern->softmax_back_rows(p->s, p->d, KH_PAGE, R, n, b->layer->scale, j->shift + r,
                                j->sum + r);
    else
        for (size_t i = 0; i < R; i++)
            weigh_row(w, j, p, r + i, p->s + i * KH_PAGE, p->d + i * KH_PAGE);
    for (size_t i = 0; b->drelative && i < R; i++) sum_buckets(w, j, p, r + i, p->d + i * KH_PAGE);
    float *dv = b->gradients->dv, *dk = b->gradients->dk;
    if (dv)
        kern->mix_cols(dv + j->heads.b * b->v.batch + j->heads.g * b->v.head + first * b->v.row,
                       b->v.row, p->s, KH_PAGE, n, dout, R, E);
    if (dk)
        kern->mix_cols(dk + j->heads.b * b->k.batch + j->heads.g * b->k.head + first * b->k.row,
                       b->k.row, p->d, KH_PAGE, n, q, R, E);
    if (!b->gradients->dq) return;
    float *dq = j->dq + block * w->room * E;
    if (!j->used[block]) memset(dq, 0, j->n * E * sizeof *dq);
    j->used[block] = 1;
    kern->mix_rows(dq + r * E, E, p->ones, p->d, KH_PAGE, R, p->k, n, E);
}

static void block_item(void *context, size_t item, int worker)
{
    work *w = context;
    size_t block = item % w->blocks, begin = block * w->block;
    rows *j = &w->wave[item / w->blocks];
    size_t end = w->S - begin < w->block ? w->S : begin + w->block,
           tiles = (j->n + TILE - 1) / TILE;
    kh_arena *scratch = &w->scratch[worker];
    kh_arena_mark mark = kh_arena_save(scratch);
    page p;
    place_page(w, &p, kh_arena_take(scratch, place_page(w, &p, NULL)));
    for (size_t i = 0; i < TILE; i++) p.ones[i] = 1;
    p.relative = w->relative + item * w->sums;
    for (size_t i = 0; i < w->sums; i++) p.relative[i] = 0;
    j->used[block] = 0;
    for (size_t at = begin, r, rows_end; at < end; at = p.keys.end) {
        p.keys = (kh_range){(uint32_t)at, (uint32_t)(end - at < KH_PAGE ? end : at + KH_PAGE)};
        p.open = 0;
        for (size_t tile = 0; tile < tiles; tile++)
            if (rows_of_page(j, tile, p.keys, &r, &rows_end))
                do_tile(w, j, &p, block, r, rows_end - r);
    }
    kh_arena_rewind(scratch, mark);
}

/* ---- 3: dq */

static void sum_item(void *context, size_t item, int worker)
{
    (void)worker;
    work *w = context;
    const kh_attn_back *b = w->back;
    const rows *j = &w->wave[item / w->tiles];
    size_t E = w->E, r = item % w->tiles * TILE, heads = j->heads.heads;
    for (size_t end = r + TILE; r < end && r < j->n; r++) {
        size_t t = w->first + r / heads, h = j->heads.head + r % heads;
        float *dq = b->gradients->dq + j->heads.b * b->q.batch + h * b->q.head + t * b->q.row;
        memset(dq, 0, E * sizeof *dq);
        for (size_t block = 0; block < w->blocks; block++)
            if (j->used[block]) b->kern->add(dq, j->dq + (block * w->room + r) * E, E);
    }
}

/* In the order of jobs and blocks. */
static void add_relative(const work *w)
{
    size_t buckets = (size_t)w->back->args->bias->buckets;
    for (size_t i = 0; i < w->jobs * w->blocks; i++) {
        const kh_attn_heads *heads = &w->wave[i / w->blocks].heads;
        for (size_t k = 0; k < heads->heads * buckets; k++)
            w->back->drelative[heads->head * buckets + k] += w->relative[i * w->sums + k];
    }
}

/* ---- the pass */

static size_t ceil_to(size_t n, size_t step)
{
    return (n + step - 1) / step * step;
}

static size_t place_wave(work *w, size_t jobs, char *base)
{
    size_t E = w->E, n = w->room, at = kh_arena_place(&w->wave, base, 0, jobs * sizeof *w->wave);
    at = kh_arena_place(&w->relative, base, at, jobs * w->blocks * w->sums * sizeof *w->relative);
    for (size_t i = 0; i < jobs; i++) {
        rows measure, *j = base ? &w->wave[i] : &measure;
        at = kh_arena_place(&j->q, base, at, n * E * sizeof *j->q);
        at = kh_arena_place(&j->dout, base, at, n * E * sizeof *j->dout);
        at = kh_arena_place(&j->shift, base, at, n * sizeof *j->shift);
        at = kh_arena_place(&j->sum, base, at, n * sizeof *j->sum);
        at = kh_arena_place(&j->ranges, base, at, n * 2 * sizeof *j->ranges);
        at = kh_arena_place(&j->hulls, base, at, w->tiles * 2 * sizeof *j->hulls);
        at = kh_arena_place(&j->insides, base, at, w->tiles * sizeof *j->insides);
        at = kh_arena_place(&j->dq, base, at, w->blocks * n * E * sizeof *j->dq);
        at = kh_arena_place(&j->used, base, at, w->blocks * sizeof *j->used);
    }
    return at;
}

static kh_status open_wave(work *w, size_t jobs)
{
    size_t threads = (size_t)w->back->pool->threads, bytes = place_wave(w, jobs, NULL);
    page p;
    KH_TRY(kh_arena_init(&w->shared, "attention backward", bytes));
    place_wave(w, jobs, kh_arena_take(&w->shared, bytes));
    KH_TRY(kh_new(&w->scratch, threads, sizeof *w->scratch, "the threads of attention backward"));
    for (size_t i = 0; i < threads; i++)
        KH_TRY(
            kh_arena_init(&w->scratch[i], "attention backward scratch", place_page(w, &p, NULL)));
    return KH_OK;
}

static void close_wave(work *w)
{
    for (int i = 0; w->scratch && i < w->back->pool->threads; i++) kh_arena_free(&w->scratch[i]);
    kh_free(w->scratch);
    kh_arena_free(&w->shared);
}

static void run_wave(work *w, size_t most_heads)
{
    const kh_pool *pool = w->back->pool;
    size_t tokens = w->room / most_heads;
    for (w->first = 0; w->first < w->T; w->first += w->tokens) {
        w->tokens = w->T - w->first < tokens ? w->T - w->first : tokens;
        for (size_t i = 0; i < w->jobs; i++) w->wave[i].n = w->tokens * w->wave[i].heads.heads;
        kh_parallel_for(pool, w->jobs * w->tiles, rows_item, w);
        kh_parallel_for(pool, w->jobs * w->blocks, block_item, w);
        if (w->back->gradients->dq) kh_parallel_for(pool, w->jobs * w->tiles, sum_item, w);
        if (w->back->drelative) add_relative(w);
    }
}

kh_status kh_attn_backward_ranges(const kh_attn_back *back)
{
    work w = {.back = back, .E = (size_t)back->layer->E, .T = back->args->queries};
    kh_attn_heads run = {0}, last = {.b = SIZE_MAX};
    size_t heads = 0, runs = 0;
    for (; kh_attn_next_heads(back, KH_KEYS_RANGES, &run); runs++)
        if (run.heads > heads) heads = run.heads;
    if (runs == 0) return KH_OK;
    w.S = back->args->keys;
    w.block = ceil_to((w.S + MOST_BLOCKS - 1) / MOST_BLOCKS, KH_PAGE);
    if (w.block < BLOCK) w.block = BLOCK;
    w.blocks = (w.S + w.block - 1) / w.block;
    w.room = heads * w.T < CHUNK_ROWS ? heads * w.T : heads < CHUNK_ROWS ? CHUNK_ROWS : heads;
    w.tiles = (w.room + TILE - 1) / TILE;
    w.sums = back->drelative ? heads * (size_t)back->args->bias->buckets : 0;
    size_t most = w.blocks < WAVE_ITEMS ? WAVE_ITEMS / w.blocks : 1;
    if (most > runs) most = runs;
    kh_status status = open_wave(&w, most);
    run = (kh_attn_heads){0};
    for (int more = !status && kh_attn_next_heads(back, KH_KEYS_RANGES, &run); more;) {
        for (w.jobs = 0; more && w.jobs < most; w.jobs++) {
            /* two jobs of a wave may not add to the same keys */
            if (w.jobs > 0 && last.b == run.b && last.g == run.g) break;
            w.wave[w.jobs].heads = last = run;
            more = kh_attn_next_heads(back, KH_KEYS_RANGES, &run);
        }
        run_wave(&w, heads);
    }
    close_wave(&w);
    return status;
}
