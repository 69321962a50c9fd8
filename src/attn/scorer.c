/* The shared scorer: executes what a method selected.
 *
 * Ranges: the online softmax. A page of 64 keys is unpacked once for all rows of the tile, scored
 * (score_panel), turned into weights against the row's running maximum (softmax_rows), and its values
 * are mixed in (mix_rows):
 *
 *     scores [R][64]  24 KiB at most      m, u [R]      out [R][E]      panels, values: one page each
 *
 * No memory grows with the length. Rows that keep nothing of a page are left out; where some keep a part
 * (the diagonal, the edges of a window) the rest gets scores without weight. A page never depends on
 * which rows share the tile, so a row's bits do not depend on how a prompt was cut into batches.
 *
 * Indices: scores are known; scale, cap, softmax over the kept ones, and a gather of value rows
 * straight from the pages in their storage type. The tail's mass is what tail_rows says of all visible
 * scores less what it says of the kept ones.
 *
 * Masks and biases by distance (attn/bias.h) are added to raw scores here, before any method sees them.
 *
 * Scores that are NaN or -inf have no weight; a row without any weight gives 0. Scale is positive and
 * the soft cap is monotone, which is why methods select on raw scores.
 *
 * Measured (Xeon 2.5 GHz, AVX-512, f32 pages, 12 heads of 64, causal, one thread, a query and head): full
 * 5.2 us at 4k where fused multiply-adds alone would take 3.3 (it was 6.2). Scores and mixing take 40 % each
 * and run at 96 and 93 % of the multipliers' peak while a page is near, softmax 13 %.
 *
 * Rejected: blocks of 16, 24 or 48 rows taken through all three steps (equal, slower, equal), tiles of 192
 * rows (equal), asking for the next page by prefetches (a quarter slower).
 *
 * Partial results of disjoint sets of keys merge by kh_merge_partials: online softmax (Milakov and
 * Gimelshein 2018) over chunks instead of keys. */
#include "attn/scorer.h"

#include "attn/bias.h"
#include "base/arena.h"
#include "kern/attn_kern.h"

#include <math.h>
#include <string.h>

enum {
    GATHER_BYTES = 1 << 18 /* of values that are gathered from before the next are */
};

size_t kh_tile_place(kh_tile *t, char *base, size_t R, size_t E, size_t ld, size_t S)
{
    size_t at = 0, row = R * sizeof(float);
    at = kh_arena_place(&t->q, base, at, E * row);
    at = kh_arena_place(&t->scores, base, at, KH_PAGE * row);
    at = kh_arena_place(&t->spare, base, at, KH_PAGE * sizeof(float));
    at = kh_arena_place(&t->capped, base, at, KH_PAGE * row);
    at = kh_arena_place(&t->panels, base, at, KH_BLOCK_PAGES * KH_PAGE * E * sizeof(float));
    at = kh_arena_place(&t->block, base, at, KH_BLOCK_ROWS * KH_BLOCK_LD * sizeof(float));
    at = kh_arena_place(&t->values, base, at, KH_PAGE * E * sizeof(float));
    at = kh_arena_place(&t->out, base, at, E * row);
    at = kh_arena_place(&t->m, base, at, row);
    at = kh_arena_place(&t->u, base, at, row);
    at = kh_arena_place(&t->m_all, base, at, row);
    at = kh_arena_place(&t->u_all, base, at, row);
    at = kh_arena_place(&t->tail_sums, base, at, KH_PANEL * row);
    at = kh_arena_place(&t->tail_shifts, base, at, row);
    at = kh_arena_place(&t->dropped, base, at, row);
    at = kh_arena_place(&t->alpha, base, at, row);
    at = kh_arena_place(&t->thresholds, base, at, row);
    at = kh_arena_place(&t->pinned, base, at, R * sizeof(uint32_t));
    at = kh_arena_place(&t->gathered, base, at, R * sizeof(uint32_t));
    at = kh_arena_place(&t->mean, base, at, E * row);
    at = kh_arena_place(&t->rows, base, at, ld * sizeof(void *));
    at = kh_arena_place(&t->value_pages, base, at, (S / KH_PAGE + 1) * sizeof(char *));
    at = kh_arena_place(&t->keys.ranges, base, at, R * 2 * sizeof(kh_range));
    at = kh_arena_place(&t->keys.values, base, at, ld * row);
    at = kh_arena_place(&t->keys.indices, base, at, ld * R * sizeof(uint32_t));
    at = kh_arena_place(&t->keys.starts, base, at, R * sizeof(uint32_t));
    at = kh_arena_place(&t->keys.counts, base, at, R * sizeof(uint32_t));
    t->keys.ld = ld;
    return at;
}

void kh_tile_load(kh_tile *t, const float *q, kh_attn_strides by)
{
    size_t E = (size_t)t->layer->E, heads = (size_t)t->heads;
    for (size_t r = 0; r < t->R; r++)
        memcpy(t->q + r * E,
               q + (t->row + r / heads) * by.row + ((size_t)t->head + r % heads) * by.head,
               E * sizeof *q);
    t->pages = (kh_tile_visible(t, t->R - 1).end + KH_PAGE - 1) / KH_PAGE;
    for (size_t p = 0; p < t->pages && t->setting->method->kind == KH_KEYS_INDICES; p++)
        t->value_pages[p] = kh_kv_values(t->kv, kh_attn_place(t->layer), t->g, p);
}

kh_range kh_tile_visible(const kh_tile *t, size_t r)
{
    if (t->layer->order == KH_ATTN_ALL_KEYS) return (kh_range){0, (uint32_t)t->length};
    size_t end = kh_tile_position(t, r) + 1, window = (size_t)t->layer->window;
    size_t begin = window != 0 && end > window ? end - window : 0;
    return (kh_range){(uint32_t)begin, (uint32_t)end};
}

static kh_range both(kh_range a, kh_range b)
{
    kh_range c = {a.begin > b.begin ? a.begin : b.begin, a.end < b.end ? a.end : b.end};
    if (c.end < c.begin) c.end = c.begin;
    return c;
}

kh_range kh_tile_seen(const kh_tile *t, size_t r)
{
    return both(kh_tile_visible(t, r), t->chunk);
}

kh_range kh_tile_span(const kh_tile *t)
{
    kh_range first = kh_tile_visible(t, 0), last = kh_tile_visible(t, t->R - 1);
    return both((kh_range){first.begin, last.end}, t->chunk);
}

uint32_t kh_tile_recent(const kh_tile *t, size_t r)
{
    kh_range v = kh_tile_visible(t, r);
    uint32_t recent = (uint32_t)t->setting->recent;
    return v.end - v.begin > recent ? v.end - recent : v.begin;
}

static void add_bias(const kh_tile *t, float *scores, size_t lds, size_t first, size_t rows)
{
    const kh_attn_bias *b = t->layer->bias;
    for (size_t i = 0, r = first; i < rows; i++, r++) {
        size_t head = (size_t)t->head + r % (size_t)t->heads;
        size_t at = t->page_first + b->origin - kh_tile_position(t, r);
        if (b->distances)
            t->kern->add(scores + i * lds, b->distances + head * b->span + at, t->page_keys);
        if (b->keys) t->kern->add(scores + i * lds, b->keys + t->page_first, t->page_keys);
    }
}

size_t kh_tile_open_page(kh_tile *t, size_t slot, size_t p, size_t end)
{
    size_t E = (size_t)t->layer->E, n = end - p * KH_PAGE < KH_PAGE ? end - p * KH_PAGE : KH_PAGE;
    kh_type type = kh_kv_shape_of(t->kv)->k_type;
    t->page = kh_kv_keys(t->kv, kh_attn_place(t->layer), t->g, p);
    t->page_first = p * KH_PAGE;
    t->page_keys = n;
    t->page_half = type == KH_TYPE_F16 && t->R <= KH_HALF_ROWS;
    if (type != KH_TYPE_F32 && !t->page_half) {
        float *panels = t->panels + slot * KH_PAGE * E;
        t->kern->kv_key_f32(panels, t->page, (int)type, E, n);
        t->page = panels;
    }
    return n;
}

void kh_tile_score_rows(const kh_tile *t, float *scores, size_t lds, size_t first, size_t rows)
{
    size_t E = (size_t)t->layer->E, panels = (t->page_keys + KH_PANEL - 1) / KH_PANEL;
    const float *q = t->q + first * E;
    if (t->page_half)
        t->kern->score_panel_f16(scores, lds, q, E, rows, t->page, panels, E);
    else
        t->kern->score_panel(scores, lds, q, E, rows, t->page, panels, E);
    if (t->layer->bias) add_bias(t, scores, lds, first, rows);
}

size_t kh_tile_score(kh_tile *t, size_t p, size_t end)
{
    size_t n = kh_tile_open_page(t, 0, p, end);
    kh_tile_score_rows(t, t->scores, KH_PAGE, 0, t->R);
    return n;
}

/* Raw scores of a page become what the softmax sees but for the scale that is returned. */
static float cap_scores(const kh_tile *t, float *scores, size_t rows, size_t n)
{
    float cap = t->layer->softcap;
    if (cap == 0) return t->layer->scale;
    for (size_t r = 0; r < rows; r++) {
        t->kern->scale(scores + r * KH_PAGE, t->layer->scale, n);
        t->kern->softcap(scores + r * KH_PAGE, cap, n);
    }
    return 1.0f;
}

void kh_tile_start_all(const kh_tile *t)
{
    for (size_t r = 0; r < t->R; r++) {
        t->m_all[r] = t->tail_shifts[r] = -INFINITY;
        t->u_all[r] = 0;
    }
    memset(t->tail_sums, 0, t->R * KH_PANEL * sizeof *t->tail_sums);
}

static void add_mass(const kh_tile *t, const float *scores, size_t lds, kh_range page, size_t first,
                     size_t rows, float scale)
{
    float alpha, *copy = t->spare;
    for (size_t i = 0, r = first; i < rows; i++, r++) {
        kh_range in = both(page, kh_tile_seen(t, r));
        memcpy(copy, scores + i * lds, KH_PAGE * sizeof *scores);
        if (in.begin < in.end)
            t->kern->softmax_rows(copy + (in.begin - page.begin), KH_PAGE, t->m_all + r,
                                  t->u_all + r, &alpha, 1, in.end - in.begin, scale);
    }
}

static void add_tail(const kh_tile *t, const float *scores, size_t lds, kh_range page, size_t first,
                     size_t rows, float scale)
{
    kh_range early = kh_tile_seen(t, first), late = kh_tile_seen(t, first + rows - 1);
    if (late.begin <= page.begin && early.end >= page.end) {
        t->kern->tail_rows(t->tail_sums + first * KH_PANEL, t->tail_shifts + first, scores, lds,
                           rows, page.end - page.begin, scale);
        return;
    }
    for (size_t i = 0, r = first; i < rows; i++, r++) {
        kh_range in = both(page, kh_tile_seen(t, r));
        if (in.begin < in.end)
            t->kern->tail_rows(t->tail_sums + r * KH_PANEL, t->tail_shifts + r,
                               scores + i * lds + (in.begin - page.begin), lds, 1,
                               in.end - in.begin, scale);
    }
}

void kh_tile_add_all(const kh_tile *t, const float *scores, size_t lds, size_t first, size_t rows)
{
    kh_range page = {(uint32_t)t->page_first, (uint32_t)(t->page_first + t->page_keys)};
    float scale = t->layer->scale;
    if (!t->want_all && !t->setting->tail_mean) return;
    if (t->layer->softcap != 0) {
        for (size_t i = 0; i < rows; i++)
            memcpy(t->capped + i * KH_PAGE, scores + i * lds, t->page_keys * sizeof *scores);
        scale = cap_scores(t, t->capped, rows, t->page_keys);
        scores = t->capped;
        lds = KH_PAGE;
    }
    if (t->want_all) add_mass(t, scores, lds, page, first, rows, scale);
    if (t->setting->tail_mean) add_tail(t, scores, lds, page, first, rows, scale);
}

/* What row r does not keep of a page gets a score that has no weight. */
static void hide(const kh_tile *t, size_t r, kh_range page)
{
    float *s = t->scores + r * KH_PAGE;
    kh_range a = both(page, t->keys.ranges[2 * r]), b = both(page, t->keys.ranges[2 * r + 1]);
    if (a.begin == a.end) a = b;
    if (b.begin == b.end) b = a;
    if (a.begin == a.end) a = b = (kh_range){page.end, page.end};
    for (uint32_t j = page.begin; j < a.begin; j++) s[j - page.begin] = -INFINITY;
    for (uint32_t j = a.end; j < b.begin; j++) s[j - page.begin] = -INFINITY;
    for (uint32_t j = b.end; j < page.begin + KH_PAGE; j++) s[j - page.begin] = -INFINITY;
}

/* The first keys up to which no row's range begins later, and the last before which none ends, where the
 * rows keep one range each: pages between are whole for all. Most are. */
static kh_range inside_of(const kh_tile *t)
{
    kh_range in = {0, UINT32_MAX};
    for (size_t r = 0; r < t->R; r++) {
        kh_range a = t->keys.ranges[2 * r], b = t->keys.ranges[2 * r + 1];
        if (b.begin < b.end) return (kh_range){0, 0};
        if (a.begin > in.begin) in.begin = a.begin;
        if (a.end < in.end) in.end = a.end;
    }
    return in;
}

/* Rows of a tile that keep some of a page, and those of them that keep all of it. */
typedef struct cover {
    size_t first, end, whole, whole_end;
} cover;

static cover cover_of(const kh_tile *t, kh_range page)
{
    cover c = {t->R, 0, 0, 0};
    for (size_t r = 0; r < t->R; r++) {
        kh_range a = both(page, t->keys.ranges[2 * r]), b = both(page, t->keys.ranges[2 * r + 1]);
        size_t longest = a.end - a.begin > b.end - b.begin ? a.end - a.begin : b.end - b.begin;
        if (longest == 0) continue;
        if (c.end == 0) c.first = r;
        c.end = r + 1;
        if (longest < KH_PAGE) continue;
        if (c.whole_end != r) c.whole = r; /* the last run of such rows */
        c.whole_end = r + 1;
    }
    return c;
}

static void mix_page(const kh_tile *t, size_t p, size_t first, size_t rows, size_t n)
{
    size_t E = (size_t)t->layer->E;
    const void *page = kh_kv_values(t->kv, kh_attn_place(t->layer), t->g, p);
    const float *values = page, *s = t->scores + first * KH_PAGE;
    float *out = t->out + first * E, *alpha = t->alpha + first;
    kh_type type = kh_kv_shape_of(t->kv)->v_type;
    if (type == KH_TYPE_F16 && t->R <= KH_HALF_ROWS) {
        t->kern->mix_rows_f16(out, E, alpha, s, KH_PAGE, rows, page, n, E);
        return;
    }
    if (type != KH_TYPE_F32) {
        t->kern->kv_value_f32(t->values, page, (int)type, E, n);
        values = t->values;
    }
    t->kern->mix_rows(out, E, alpha, s, KH_PAGE, rows, values, n, E);
}

/* Dropout takes weights out of the mix, not out of u. */
static void drop_rows(const kh_tile *t, size_t p, size_t first, size_t rows, size_t n)
{
    for (size_t r = first; t->drop && r < first + rows; r++)
        kh_attn_drop_range(t->drop, (size_t)t->head + r % (size_t)t->heads,
                           t->row + r / (size_t)t->heads, t->scores + r * KH_PAGE, p * KH_PAGE, n);
}

static void do_page(kh_tile *t, kh_range page, cover c)
{
    size_t p = page.begin / KH_PAGE, first = c.first, rows = c.end - c.first;
    size_t n = kh_tile_open_page(t, 0, p, page.end);
    float *s = t->scores + first * KH_PAGE;
    kh_tile_score_rows(t, s, KH_PAGE, first, rows);
    kh_tile_add_all(t, s, KH_PAGE, first, rows);
    float scale = cap_scores(t, s, rows, n);
    for (size_t r = first; r < c.end; r++)
        if (r < c.whole || r >= c.whole_end) hide(t, r, page);
    t->kern->softmax_rows(s, KH_PAGE, t->m + first, t->u + first, t->alpha + first, rows, KH_PAGE,
                          scale);
    drop_rows(t, p, first, rows, n);
    mix_page(t, p, first, rows, n);
}

void kh_scorer_ranges(kh_tile *t)
{
    kh_range span = kh_tile_span(t), inside = inside_of(t);
    memset(t->out, 0, t->R * (size_t)t->layer->E * sizeof *t->out);
    for (size_t r = 0; r < t->R; r++) {
        t->m[r] = -INFINITY;
        t->u[r] = 0;
    }
    kh_tile_start_all(t);
    for (size_t p = span.begin / KH_PAGE; p * KH_PAGE < span.end; p++) {
        size_t end = (p + 1) * KH_PAGE < span.end ? (p + 1) * KH_PAGE : span.end;
        kh_range page = {(uint32_t)(p * KH_PAGE), (uint32_t)end};
        cover c = {0, t->R, 0, t->R};
        if (page.begin < inside.begin || page.begin + KH_PAGE > inside.end) c = cover_of(t, page);
        if (t->want_all) c.first = 0, c.end = t->R;
        if (c.first < c.end) do_page(t, page, c);
    }
}

/* Drops the keys whose weight is below min_p times the largest; pinned ones stay. */
static size_t drop_small(const kh_tile *t, size_t r, float *scores, uint32_t *indices, size_t n,
                         float m)
{
    float least = m + logf(t->setting->min_p);
    uint32_t sinks = (uint32_t)t->setting->sinks, recent = kh_tile_recent(t, r);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        int pinned = indices[i] < sinks || indices[i] >= recent;
        if (!pinned && scores[i] < least) continue;
        scores[kept] = scores[i];
        indices[kept++] = indices[i];
    }
    return kept;
}

static float lanes_sum(const float *lanes)
{
    float sum[KH_PANEL];
    memcpy(sum, lanes, sizeof sum);
    for (size_t half = KH_PANEL / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; i++) sum[i] += sum[i + half];
    return sum[0];
}

float kh_tile_tail(const kh_tile *t, size_t r)
{
    return lanes_sum(t->tail_sums + r * KH_PANEL);
}

/* The mass of the visible keys that are not among n scaled scores, in the softmax's own unit exp(m):
 * both sums are estimates of the same kind, so what is kept cancels. */
static float tail_beside(const kh_tile *t, size_t r, const float *scores, size_t n)
{
    kh_range visible = kh_tile_visible(t, r);
    float kept[KH_PANEL] = {0}, shift = t->tail_shifts[r];
    if (n == visible.end - visible.begin) return 0;
    t->kern->tail_rows(kept, &shift, scores, 0, 1, n, 1.0f);
    float left = kh_tile_tail(t, r) - lanes_sum(kept) * exp2f(shift - t->tail_shifts[r]);
    return left > 0 ? left * exp2f(t->tail_shifts[r] - t->m[r] * KH_LOG2_E) : 0;
}

size_t kh_scorer_weights(kh_tile *t, size_t r, float *values, uint32_t *indices, size_t n)
{
    float scale = t->layer->scale;
    int plain = t->layer->softcap == 0 && !(t->setting->min_p > 0) && !t->setting->tail_mean;
    if (!plain) {
        t->kern->scale(values, scale, n);
        if (t->layer->softcap != 0) t->kern->softcap(values, t->layer->softcap, n);
        scale = 1.0f;
    }
    t->m[r] = t->kern->row_max(values, n) * scale;
    t->u[r] = t->dropped[r] = 0;
    if (n == 0) return 0;
    if (t->setting->min_p > 0) n = drop_small(t, r, values, indices, n, t->m[r]);
    float tail = t->setting->tail_mean ? tail_beside(t, r, values, n) : 0;
    t->u[r] = t->kern->exp_sum(values, values, n, scale, t->m[r]);
    float share = 1.0f / (t->u[r] + tail);
    t->dropped[r] = tail * share;
    t->kern->scale(values, share, n);
    return n;
}

/* out [E] += the weighted sum of the listed value rows below `end`; returns how many those are. */
static size_t gather(const kh_tile *t, float *out, const float *weights, const uint32_t *indices,
                     size_t n, uint32_t end)
{
    size_t E = (size_t)t->layer->E;
    const char *const *pages = t->value_pages;
    switch (kh_kv_shape_of(t->kv)->v_type) {
    case KH_TYPE_F32: return t->kern->gather_listed_f32(out, weights, indices, n, end, pages, E);
    case KH_TYPE_F16: return t->kern->gather_listed_f16(out, weights, indices, n, end, pages, E);
    default: return t->kern->gather_listed_q8_0(out, weights, indices, n, end, pages, E);
    }
}

static void add_dropped(const kh_tile *t, size_t r, size_t n, float *z)
{
    size_t E = (size_t)t->layer->E;
    if (!t->setting->tail_mean || n == 0) return;
    const float *mean = t->mean + r / (size_t)t->heads * E;
    for (size_t e = 0; e < E; e++) z[e] += t->dropped[r] * mean[e];
}

void kh_scorer_gather(kh_tile *t, size_t r, const float *weights, const uint32_t *indices, size_t n,
                      float *z)
{
    memset(z, 0, (size_t)t->layer->E * sizeof *z);
    gather(t, z, weights, indices, n, UINT32_MAX);
    add_dropped(t, r, n, z);
}

/* Value rows are read from the second-level cache by all rows of the tile before the next of them are
 * looked at: from the third level each of a row's reads waits. */
void kh_scorer_gather_all(kh_tile *t)
{
    size_t E = (size_t)t->layer->E;
    size_t bytes = KH_PAGE * kh_type_row_bytes(kh_kv_shape_of(t->kv)->v_type, E);
    size_t step = GATHER_BYTES / bytes > 0 ? GATHER_BYTES / bytes : 1;
    memset(t->out, 0, t->R * E * sizeof *t->out);
    memset(t->gathered, 0, t->R * sizeof *t->gathered);
    for (size_t page = 0; page < t->pages; page += step)
        for (size_t r = 0; r < t->R; r++) {
            size_t from = t->gathered[r], n = t->keys.counts[r] - from;
            t->gathered[r] += (uint32_t)gather(t, t->out + r * E, kh_tile_listed(t, r) + from,
                                               kh_tile_indices(t, r) + from, n,
                                               (uint32_t)((page + step) * KH_PAGE));
        }
    for (size_t r = 0; r < t->R; r++) add_dropped(t, r, t->keys.counts[r], t->out + r * E);
}

float kh_tile_kept_mass(const kh_tile *t, size_t r)
{
    if (!t->want_all || !(t->u_all[r] > 0)) return 1.0f;
    float mass = t->u[r] * expf(t->m[r] - t->m_all[r]) / t->u_all[r];
    return mass < 1.0f ? mass : 1.0f;
}

/* A sum of all values before `end`, moved to a later (or first) position `to`: from the sum that the
 * page stores, row after row, so that its bits depend on `to` alone. */
static void move_sum(const kh_tile *t, float *sum, size_t *end, size_t to)
{
    size_t E = (size_t)t->layer->E, page = to > 0 ? (to - 1) / KH_PAGE : 0;
    kh_type type = kh_kv_shape_of(t->kv)->v_type;
    if (to == 0) memset(sum, 0, E * sizeof *sum);
    if (*end <= page * KH_PAGE && to > 0) {
        memcpy(sum, kh_kv_value_sum(t->kv, kh_attn_place(t->layer), t->g, page), E * sizeof *sum);
        *end = page * KH_PAGE;
    }
    for (; *end < to; ++*end) {
        const void *row = kh_kv_value_row(t->kv, kh_attn_place(t->layer), t->g, *end);
        const float *values = row;
        if (type != KH_TYPE_F32) {
            t->kern->kv_value_f32(t->values, row, (int)type, E, 1);
            values = t->values;
        }
        for (size_t e = 0; e < E; e++) sum[e] += values[e];
    }
}

void kh_tile_means(kh_tile *t)
{
    if (!t->setting->tail_mean) return;
    size_t E = (size_t)t->layer->E, upper_end = 0, lower_end = 0;
    float *upper = t->panels, *lower = t->panels + E;
    for (size_t token = 0; token < t->tokens; token++) {
        kh_range v = kh_tile_visible(t, token * (size_t)t->heads);
        move_sum(t, upper, &upper_end, v.end);
        move_sum(t, lower, &lower_end, v.begin);
        float share = 1.0f / (float)(v.end - v.begin);
        for (size_t e = 0; e < E; e++) t->mean[token * E + e] = (upper[e] - lower[e]) * share;
    }
}

void kh_merge_tails(float *shift, float *sum, float shift2, float sum2)
{
    if (!(shift2 > -INFINITY)) return;
    float top = *shift > shift2 ? *shift : shift2;
    *sum = (*shift > -INFINITY ? *sum * exp2f(*shift - top) : 0) + sum2 * exp2f(shift2 - top);
    *shift = top;
}

void kh_merge_partials(float *m, float *u, float *w, float m2, float u2, const float *w2, size_t E)
{
    if (!(u2 > 0)) return;
    float top = *m > m2 ? *m : m2;
    float a = *u > 0 ? expf(*m - top) : 0.0f, b = expf(m2 - top);
    *m = top;
    *u = *u * a + u2 * b;
    for (size_t e = 0; w && e < E; e++) w[e] = w[e] * a + w2[e] * b;
}
