/* Exact top-k: of the keys that a row sees, the k with the largest scores (Gupta et al., "Memory-
 * efficient Transformers via Top-k Attention", 2021), ties to the lower index.
 *
 * Pages of 64 keys are taken from the last to the first. Twelve rows are scored against a page and
 * filtered at once, while their scores are in the first-level cache; what reaches a row's threshold is
 * put in front of its list:
 *
 *     row    | ... <- grows | sinks | candidates ...... <= 2k + 64 | recent |      ascending positions
 *
 * When the candidates' part is full it is tightened: a threshold t is searched by counting such that
 * k <= #{score >= t} <= 1.25 k; those stay, and further scores must reach t. That never loses a key of
 * the result: k keys are at least t already, and a key equal to t that comes later has a lower position
 * and wins the tie. The last selection is the same search with both bounds equal to k. With min-p the
 * threshold also rises with the largest score so far.
 *
 * NaN and -inf never reach a threshold, which starts at the lowest finite float. Pinned keys (`sinks`,
 * `recent`) pass unasked and take their places from the k. Nothing here depends on tiles, chunks or
 * threads: the result is a property of the row's scores.
 *
 * Backwards, because near keys score highest in trained models: reading 8,000 tokens (SmolLM2, k 128) a
 * row lists 632 keys and tightens once; forwards it was 1,648 keys and 3.3 times. On random data the two
 * are alike.
 *
 * Rejected: a heap per row (a mispredicted branch per score), a radix select over all scores (needs
 * the row in memory: T x S), a branch for every 16 scores (mispredicted in half of the cases until a row
 * sees some 100 k keys). */
#include "attn/scorer.h"
#include "base/fail.h"
#include "kern/attn_kern.h"
#include "ops/narrow.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum {
    LIST_FACTOR = 2,
    GROUP = 12 /* rows whose scores of a page are used while they are in the first-level cache */
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

static size_t reduce(const kh_tile *t, size_t r, float *values, uint32_t *indices, size_t n)
{
    parts p = parts_of(t, r);
    size_t head = 0, tail = n;
    float threshold = -FLT_MAX;
    while (head < n && indices[head] < p.sinks_end) head++;
    while (tail > head && indices[tail - 1] >= p.recent_begin) tail--;
    size_t kept = head + kh_narrow(t->kern, values + head, indices + head, tail - head, p.quota,
                                   p.quota, &threshold);
    memmove(values + kept, values + tail, (n - tail) * sizeof *values);
    memmove(indices + kept, indices + tail, (n - tail) * sizeof *indices);
    return kept + (n - tail);
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

/* Makes room for another page in every list that is still growing: pinned keys stay at its end, the
 * candidates in front of them become fewer and move up to them. */
static void tighten(const kh_tile *t, size_t limit)
{
    const kh_keys *k = &t->keys;
    for (size_t r = 0; r < t->R; r++) {
        size_t n = k->counts[r] - t->pinned[r], kept = n;
        if (n + KH_PAGE <= limit) continue;
        parts p = parts_of(t, r);
        if (t->page_first < p.sinks_end) continue; /* complete, with its sinks in front */
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
}

/* The final choice of every row, from the end of its memory to the front. */
static void finish(const kh_tile *t)
{
    const kh_keys *k = &t->keys;
    for (size_t r = 0; r < t->R; r++) {
        size_t n = k->counts[r], from = list_end(t, r) - n;
        n = reduce(t, r, k->values + from, k->indices + from, n);
        memmove(k->values + r * k->ld, k->values + from, n * sizeof *k->values);
        memmove(k->indices + r * k->ld, k->indices + from, n * sizeof *k->indices);
        k->counts[r] = (uint32_t)n;
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
    for (size_t page = (span.end + KH_PAGE - 1) / KH_PAGE; page-- > span.begin / KH_PAGE; seen++) {
        kh_tile_open_page(t, page, span.end);
        for (size_t r = 0; r < t->R; r += GROUP) {
            size_t rows = t->R - r < GROUP ? t->R - r : GROUP;
            kh_tile_score_rows(t, t->scores, r, rows);
            kh_tile_add_all(t, t->scores, page, r, rows);
            filter_page(t, r, rows, inside, seen * KH_PAGE);
        }
        for (size_t r = 0; r < t->R && (seen & (seen + 1)) == 0; r++) raise_to_min_p(t, r);
        tighten(t, limit);
    }
    finish(t);
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
