/* Exact top-k: of the keys that a row sees, the k with the largest scores (Gupta et al., "Memory-
 * efficient Transformers via Top-k Attention", 2021), ties to the lower index.
 *
 * A row's last 1,024 keys come first, twelve rows at a time: their scores lie side by side in the second-
 * level cache, one search by counting (ops/narrow.h) finds a threshold that k to 1.125 k of them reach, and
 * one pass lists those. Short rows are chosen from at once. Then pages of 64 keys are taken from the last
 * to the first; twelve rows are scored and filtered while their scores are in the first-level cache, and
 * what reaches a row's threshold is put in front of its list:
 *
 *     row    | ... <- grows | sinks | candidates ...... <= 2k + 64 | recent |      ascending positions
 *
 * When the candidates' part is full it is tightened: a threshold t is searched such that
 * k <= #{score >= t} <= 1.25 k; those stay, and further scores must reach t. That never loses a key of
 * the result: k keys are at least t already, and a key equal to t that comes later has a lower position
 * and wins the tie. The last selection is the same search with both bounds equal to k. With min-p the
 * threshold also rises with the largest score so far. Rows with pinned keys (`sinks`, `recent` pass unasked
 * and take their places from the k) or with ties that no threshold parts list their block page by page.
 *
 * NaN and -inf never reach a threshold, which starts at the lowest finite float. Nothing here depends on
 * tiles, chunks or threads: the result is a property of the row's scores.
 *
 * Measured (Xeon 2.5 GHz, AVX-512, one thread, 12 heads of 64, causal, k 128, time stamps per row, of 2,500 a
 * microsecond): at 8,192 tokens scores 10,000 (6,600 at the peak of the multipliers), values 2,300, filter
 * 2,500, block's search and lists 1,350, tightening 1,200, last choice 1,100, softmax 320; at 2,048 scores
 * 3,000, values 1,480, block 1,300, last choice 550.
 *
 * Backwards, because near keys score highest in trained models: reading 8,000 tokens (SmolLM2, k 128) a
 * row lists 632 keys and tightens once; forwards it was 1,648 keys and 3.3 times. On random data the two
 * are alike.
 *
 * Rejected: a heap per row (a mispredicted branch per score), a radix select over all scores (needs
 * the row in memory: T x S), a branch for every 16 scores (mispredicted in half of the cases until a row
 * sees some 100 k keys), 24 rows a page instead of 12, lists of 4 k and 8 k, asking for the next page of keys
 * or block of values in advance (all equal), four pages a visit to a row's list (a tenth slower). */
#include "attn/scorer.h"
#include "base/fail.h"
#include "kern/attn_kern.h"
#include "ops/narrow.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum {
    LIST_FACTOR = 2,
    BLOCK_K = KH_BLOCK_PAGES * KH_PAGE / 2, /* a threshold among fewer than 2 k is worth little */
    GROUP = KH_BLOCK_ROWS /* rows whose scores of a page are used while they are near */
};

/* How a row's positions divide: | sinks | candidates | recent |, inside a range. */
typedef struct parts {
    uint32_t sinks_end, recent_begin;
    size_t quota; /* places that pinned keys leave to the candidates */
} parts;

static parts parts_of(const kh_tile *t, size_t r)
{
    kh_range v = kh_tile_visible(t, r);
    uint32_t sinks = (uint32_t)t->setting->sinks, recent = kh_tile_recent(t, r);
    parts p = {.sinks_end = sinks < v.begin ? v.begin : sinks > v.end ? v.end : sinks};
    p.recent_begin = recent > p.sinks_end ? recent : p.sinks_end;
    size_t pinned = (p.sinks_end - v.begin) + (v.end - p.recent_begin);
    p.quota = (size_t)t->setting->k > pinned ? (size_t)t->setting->k - pinned : 0;
    return p;
}

static size_t list_limit(const kh_attn_setting *setting, size_t S)
{
    size_t most = LIST_FACTOR * (size_t)setting->k;
    return (most < S ? most : S) + KH_PAGE;
}

static size_t room(const kh_attn_setting *setting, size_t S)
{
    size_t pinned = (size_t)setting->recent + (size_t)setting->sinks;
    return list_limit(setting, S) + (pinned < S ? pinned : S) + 2 * KH_PANEL;
}

/* To the keys that the row keeps, none of whose candidates is below the threshold. */
static size_t choose(const kh_tile *t, size_t r, float *values, uint32_t *indices, size_t n,
                     float threshold)
{
    parts p = parts_of(t, r);
    size_t head = 0, tail = n;
    while (head < n && indices[head] < p.sinks_end) head++;
    while (tail > head && indices[tail - 1] >= p.recent_begin) tail--;
    size_t m = tail - head;
    if (t->setting->min_p > 0) /* which may have raised the threshold above what is listed */
        m = t->kern->keep_best(values + head, indices + head, m, threshold, SIZE_MAX);
    size_t kept = head + kh_narrow(t->kern, values + head, indices + head, m, p.quota, p.quota,
                                   &threshold);
    if (kept == tail) return n;
    memmove(values + kept, values + tail, (n - tail) * sizeof *values);
    memmove(indices + kept, indices + tail, (n - tail) * sizeof *indices);
    return kept + (n - tail);
}

static size_t reduce(const kh_tile *t, size_t r, float *values, uint32_t *indices, size_t n)
{
    return choose(t, r, values, indices, n, -FLT_MAX);
}

/* The end of a row's list, which grows downwards from it. */
static size_t list_end(const kh_tile *t, size_t r)
{
    return (r + 1) * t->keys.ld - KH_PANEL;
}

/* The part [from, to) of a scored page that starts at `first`, for one row. */
static void filter_part(const kh_tile *t, const float *scores, size_t r, uint32_t first,
                        uint32_t from, uint32_t to, float threshold)
{
    const kh_keys *k = &t->keys;
    uint32_t end = first + (uint32_t)t->page_keys;
    size_t at = list_end(t, r);
    if (from < first) from = first;
    if (to > end) to = end;
    if (from >= to) return;
    t->kern->filter_back_rows(k->values + at, k->indices + at, 0, k->counts + r,
                              scores + (from - first), 0, &threshold, 1, to - from, from, 0);
}

static void filter_edge(const kh_tile *t, const float *scores, size_t row, size_t rows,
                        uint32_t first)
{
    for (size_t r = row; r < row + rows; r++, scores += KH_PAGE) {
        kh_range seen = kh_tile_seen(t, r);
        parts p = parts_of(t, r);
        uint32_t to = seen.end, from = p.recent_begin > seen.begin ? p.recent_begin : seen.begin;
        filter_part(t, scores, r, first, from, to, -FLT_MAX);
        if (first + t->page_keys > from) t->pinned[r] = t->keys.counts[r];
        if (to > from) to = from;
        from = p.sinks_end > seen.begin ? p.sinks_end : seen.begin;
        filter_part(t, scores, r, first, from, to, t->thresholds[r]);
        if (to > from) to = from;
        filter_part(t, scores, r, first, seen.begin, to, -FLT_MAX);
    }
}

/* Rows [row, row + rows) of a scored page; `inside` are the positions that are candidates of all. */
static void filter_page(const kh_tile *t, size_t row, size_t rows, kh_range inside, size_t seen)
{
    const kh_keys *k = &t->keys;
    uint32_t first = (uint32_t)t->page_first;
    size_t at = list_end(t, row);
    if (first < inside.begin || first + t->page_keys > inside.end)
        filter_edge(t, t->scores, row, rows, first);
    else
        t->kern->filter_back_rows(k->values + at, k->indices + at, k->ld, k->counts + row,
                                  t->scores, KH_PAGE, t->thresholds + row, rows, t->page_keys,
                                  first, seen);
}

/* With min-p no key counts that weighs less than its share of the largest so far. A little lower than
 * that, because the share itself is taken after the softmax rounded its own way. */
static void raise_to_min_p(const kh_tile *t, size_t r)
{
    size_t n = t->keys.counts[r];
    if (!(t->setting->min_p > 0) || t->layer->softcap != 0) return;
    float top = t->kern->row_max(t->keys.values + list_end(t, r) - n, n);
    float share = logf(t->setting->min_p) / t->layer->scale;
    float least = top + share - 1e-5f * (fabsf(top) + fabsf(share));
    if (least > t->thresholds[r]) t->thresholds[r] = least;
}

/* Makes room for another page in a list that is still growing: pinned keys stay at its end, the
 * candidates in front of them become fewer and move up to them. */
static void tighten(const kh_tile *t, size_t r, size_t limit)
{
    const kh_keys *k = &t->keys;
    size_t n = k->counts[r] - t->pinned[r], kept = n;
    if (n + KH_PAGE <= limit) return;
    parts p = parts_of(t, r);
    if (t->page_first < p.sinks_end) return; /* complete, with its sinks in front */
    float *values = k->values + list_end(t, r) - k->counts[r];
    uint32_t *indices = k->indices + list_end(t, r) - k->counts[r];
    raise_to_min_p(t, r);
    if (t->setting->min_p > 0)
        kept = t->kern->keep_best(values, indices, n, t->thresholds[r], SIZE_MAX);
    if (kept + KH_PAGE > limit)
        kept = kh_narrow(t->kern, values, indices, kept, p.quota, p.quota + p.quota / 4,
                         t->thresholds + r);
    memmove(values + n - kept, values, kept * sizeof *values);
    memmove(indices + n - kept, indices, kept * sizeof *indices);
    k->counts[r] = (uint32_t)(kept + t->pinned[r]);
}

/* The final choice of a row, where its list is. */
static void finish(const kh_tile *t, size_t r)
{
    const kh_keys *k = &t->keys;
    size_t n = k->counts[r], at = list_end(t, r) - n;
    k->starts[r] = (uint32_t)(at - r * k->ld);
    k->counts[r] = (uint32_t)choose(t, r, k->values + at, k->indices + at, n, t->thresholds[r]);
}

/* ---- the block: a row's last keys, scored before anything is listed */

/* Lists the candidates among n scores of positions from `from` on, if one search finds a threshold that
 * few enough reach. 0: it did not. */
static int list_at_once(const kh_tile *t, size_t r, const float *scores, size_t n, uint32_t from)
{
    const kh_keys *k = &t->keys;
    size_t quota = parts_of(t, r).quota, most = quota + quota / 8;
    kh_bound b = {-FLT_MAX, 0, SIZE_MAX};
    if (t->setting->recent > 0 || t->setting->sinks > 0) return 0;
    if (n > most)
        b = kh_narrow_search(t->kern, scores, n, quota, most, -FLT_MAX);
    else
        b.count = t->kern->count_at_least(scores, n, b.value);
    if (b.ties != SIZE_MAX || !(b.value >= -FLT_MAX)) return 0;
    size_t at = list_end(t, r) - b.count;
    t->kern->list_row(k->values + at, k->indices + at, scores, n, b.value, from);
    k->counts[r] = (uint32_t)b.count;
    t->thresholds[r] = b.value;
    return 1;
}

/* The same page by page, from the last: rows with pinned keys or with many ties. */
static void list_pages(kh_tile *t, size_t r, const float *scores, uint32_t first, uint32_t end,
                       size_t limit)
{
    for (uint32_t at = end - first; at > 0; at -= (uint32_t)t->page_keys) {
        t->page_keys = at % KH_PAGE ? at % KH_PAGE : KH_PAGE;
        t->page_first = first + at - t->page_keys;
        filter_edge(t, scores + at - t->page_keys, r, 1, (uint32_t)t->page_first);
        tighten(t, r, limit);
    }
}

static void list_block(kh_tile *t, size_t row, size_t rows, uint32_t first, uint32_t end,
                       size_t limit)
{
    for (size_t r = row; r < row + rows; r++) {
        const float *scores = t->block + (r - row) * KH_BLOCK_LD;
        kh_range seen = kh_tile_seen(t, r);
        uint32_t from = seen.begin > first ? seen.begin : first;
        if (seen.end <= from) continue;
        if (!list_at_once(t, r, scores + (from - first), seen.end - from, from))
            list_pages(t, r, scores, first, end, limit);
        raise_to_min_p(t, r);
    }
}

/* Pages [begin, begin + pages) of every row, the last of which ends at `end`. Where they are all that the
 * tile sees, its rows are finished at once, while their lists are near. */
static void take_block(kh_tile *t, size_t begin, size_t pages, kh_range span, size_t limit)
{
    uint32_t end = span.end;
    const void *opened[KH_BLOCK_PAGES];
    for (size_t p = 0; p < pages; p++) {
        kh_tile_open_page(t, p, begin + p, end);
        opened[p] = t->page;
    }
    for (size_t r = 0; r < t->R; r += GROUP) {
        size_t rows = t->R - r < GROUP ? t->R - r : GROUP;
        uint32_t last = kh_tile_seen(t, r + rows - 1).end; /* of these rows */
        for (size_t p = 0; p < pages && (begin + p) * KH_PAGE < last; p++) {
            float *scores = t->block + p * KH_PAGE;
            t->page = opened[p];
            t->page_first = (begin + p) * KH_PAGE;
            t->page_keys = last - t->page_first < KH_PAGE ? last - t->page_first : KH_PAGE;
            kh_tile_score_rows(t, scores, KH_BLOCK_LD, r, rows);
            kh_tile_add_all(t, scores, KH_BLOCK_LD, r, rows);
        }
        list_block(t, r, rows, (uint32_t)(begin * KH_PAGE), last, limit);
        for (size_t i = r; i < r + rows && begin * KH_PAGE <= span.begin; i++) finish(t, i);
    }
}

static void select_topk(kh_tile *t)
{
    kh_range span = kh_tile_span(t), inside = span; /* candidates of every row */
    size_t limit = list_limit(t->setting, span.end - span.begin), seen = 0;
    for (size_t r = 0; r < t->R; r++) {
        parts p = parts_of(t, r);
        t->keys.counts[r] = t->pinned[r] = 0;
        t->thresholds[r] = p.quota > 0 ? -FLT_MAX : NAN;
        if (p.sinks_end > inside.begin) inside.begin = p.sinks_end;
        if (p.recent_begin < inside.end) inside.end = p.recent_begin;
    }
    kh_tile_start_all(t);
    size_t page = (span.end + KH_PAGE - 1) / KH_PAGE, begin = span.begin / KH_PAGE;
    size_t block = (size_t)t->setting->k > BLOCK_K ? 0 : KH_BLOCK_PAGES;
    if (block > page - begin) block = page - begin;
    page -= block;
    take_block(t, page, block, span, limit);
    if (block > 0 && page == begin) return;
    for (seen = block; page-- > begin; seen++) {
        kh_tile_open_page(t, 0, page, span.end);
        for (size_t r = 0; r < t->R; r += GROUP) {
            size_t rows = t->R - r < GROUP ? t->R - r : GROUP;
            kh_tile_score_rows(t, t->scores, KH_PAGE, r, rows);
            kh_tile_add_all(t, t->scores, KH_PAGE, r, rows);
            filter_page(t, r, rows, inside, seen * KH_PAGE);
        }
        for (size_t r = 0; r < t->R && (seen & (seen + 1)) == 0; r++) raise_to_min_p(t, r);
        for (size_t r = 0; r < t->R; r++) tighten(t, r, limit);
    }
    for (size_t r = 0; r < t->R; r++) finish(t, r);
}

static kh_status check(const kh_attn_setting *s, const char *text)
{
    if ((int64_t)s->recent + s->sinks > s->k)
        KH_FAIL(KH_ERR_ARGUMENT,
                "attention '%s': recent + sinks (%d + %d) are among the k kept keys and may not "
                "exceed k = %d",
                text, s->recent, s->sinks, s->k);
    return KH_OK;
}

const kh_attn_method kh_attn_topk = {
    .name = "topk",
    .kind = KH_KEYS_INDICES,
    .params = KH_PARAM_K | KH_PARAM_RECENT | KH_PARAM_SINKS | KH_PARAM_MIN_P | KH_PARAM_TAIL,
    .needs = KH_PARAM_K,
    .everything = "topk:k=1000000",
    .check = check,
    .room = room,
    .select = select_topk,
    .reduce = reduce,
};
