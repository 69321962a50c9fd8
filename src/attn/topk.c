/* Exact top-k: of the keys that a row sees, the k with the largest scores (Gupta et al., "Memory-
 * efficient Transformers via Top-k Attention", 2021), ties to the lower index.
 *
 * Scores of a page (64 keys) for all rows of the tile stay in the first-level cache; those above a
 * row's threshold are appended to its list. The list is bounded:
 *
 *     row    | sinks | candidates ............ <= 4k + 64 | recent |      ascending positions
 *
 * When the candidates' part is full it is tightened: a threshold t is searched by counting such that
 * k <= #{score >= t} <= 1.25 k; those stay, and later scores must exceed t. That never loses a key of
 * the result: k earlier keys are at least t, and a later key equal to t loses every tie. Counting
 * bisects the order-preserving integers of the floats, so it ends after at most 32 steps on any
 * distribution; if ties leave no such t, the k best are kept exactly, lower positions first. The last
 * selection is the same search with both bounds equal to k.
 *
 * NaN and -inf never pass a threshold. Pinned keys (`sinks`, `recent`) pass unasked and take their
 * places from the k. Nothing here depends on tiles, chunks or threads: the result is a property of the
 * row's scores.
 *
 * Rejected: a heap per row (a mispredicted branch per score), a radix select over all scores (needs
 * the row in memory: T x S). */
#include "attn/method.h"
#include "attn/scorer.h"
#include "base/fail.h"
#include "kern/attn_kern.h"
#include "tensor/half.h"

#include <math.h>
#include <string.h>

enum { LIST_FACTOR = 4 };

/* Floats as integers of the same order; -0 lies just below +0, which no count can tell apart. */
static uint32_t rank_of(float x)
{
    uint32_t bits = kh_f32_bits(x);
    return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

static float of_rank(uint32_t rank)
{
    return kh_f32_from_bits(rank ^ (rank >> 31 ? 0x80000000u : 0xffffffffu));
}

/* Keeps at least `least` and at most `most` of n values, the largest, in order; *threshold becomes the
 * smallest value that a list of `least` may be built from. */
static size_t narrow(const kh_kern *kern, float *values, uint32_t *indices, size_t n, size_t least,
                     size_t most, float *threshold)
{
    if (n <= most) return n;
    if (least == 0) return 0;
    uint32_t low = rank_of(kern->row_min(values, n)), high = rank_of(kern->row_max(values, n)) + 1;
    size_t above = 0, ties = SIZE_MAX; /* above: how many have at least rank `high` */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        size_t count = kern->count_at_least(values, n, of_rank(middle));
        if (count >= least && count <= most) {
            low = middle;
            break;
        }
        if (count > most)
            low = middle;
        else {
            high = middle;
            above = count;
        }
    }
    if (high - low <= 1) ties = least - above;
    *threshold = of_rank(low);
    return kern->keep_best(values, indices, n, *threshold, ties);
}

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
    return list_limit(setting, S) + (pinned < S ? pinned : S) + KH_PANEL;
}

static size_t reduce(const kh_tile *t, size_t r, float *values, uint32_t *indices, size_t n)
{
    parts p = parts_of(t, r);
    size_t head = 0, tail = n;
    float threshold;
    while (head < n && indices[head] < p.sinks_end) head++;
    while (tail > head && indices[tail - 1] >= p.recent_begin) tail--;
    size_t kept = head + narrow(t->kern, values + head, indices + head, tail - head, p.quota,
                                p.quota, &threshold);
    memmove(values + kept, values + tail, (n - tail) * sizeof *values);
    memmove(indices + kept, indices + tail, (n - tail) * sizeof *indices);
    return kept + (n - tail);
}

/* The part [begin, end) of a scored page that starts at `first`, for one row. */
static void filter_part(const kh_tile *t, size_t r, uint32_t first, uint32_t end, uint32_t from,
                        uint32_t to, float threshold)
{
    if (from < first) from = first;
    if (to > end) to = end;
    if (from >= to) return;
    const kh_keys *k = &t->keys;
    t->kern->filter_rows(k->values + r * k->ld, k->indices + r * k->ld, 0, k->counts + r,
                         t->scores + r * KH_PAGE + (from - first), 0, &threshold, 1, to - from,
                         from);
}

static void filter_edge(const kh_tile *t, uint32_t first, uint32_t end)
{
    for (size_t r = 0; r < t->R; r++) {
        kh_range seen = kh_tile_seen(t, r);
        parts p = parts_of(t, r);
        uint32_t last = seen.end < end ? seen.end : end, from = seen.begin;
        filter_part(t, r, first, last, from, p.sinks_end, -INFINITY);
        if (first < p.sinks_end) t->heads_kept[r] = t->keys.counts[r];
        if (p.sinks_end > from) from = p.sinks_end;
        filter_part(t, r, first, last, from, p.recent_begin, t->thresholds[r]);
        if (p.recent_begin > from) from = p.recent_begin;
        filter_part(t, r, first, last, from, seen.end, -INFINITY);
    }
}

/* After a page that ends at `end`: makes room for another page in every list that is still growing. */
static void tighten(const kh_tile *t, size_t limit, uint32_t end)
{
    const kh_keys *k = &t->keys;
    for (size_t r = 0; r < t->R; r++) {
        size_t head = t->heads_kept[r], n = k->counts[r] - head, at = r * k->ld + head;
        if (n + KH_PAGE <= limit) continue;
        parts p = parts_of(t, r);
        size_t quota = p.quota;
        if (p.recent_begin < end) continue; /* complete, and pinned keys may follow already */
        n = narrow(t->kern, k->values + at, k->indices + at, n, quota, quota + quota / 4,
                   t->thresholds + r);
        k->counts[r] = (uint32_t)(head + n);
    }
}

static void select_topk(kh_tile *t)
{
    kh_keys *k = &t->keys;
    kh_range span = kh_tile_span(t), inside = span; /* candidates of every row */
    size_t limit = list_limit(t->setting, span.end - span.begin);
    for (size_t r = 0; r < t->R; r++) {
        parts p = parts_of(t, r);
        k->counts[r] = t->heads_kept[r] = 0;
        t->thresholds[r] = p.quota > 0 ? -INFINITY : INFINITY;
        if (p.sinks_end > inside.begin) inside.begin = p.sinks_end;
        if (p.recent_begin < inside.end) inside.end = p.recent_begin;
    }
    if (t->want_all) kh_tile_start_all(t);
    for (size_t page = span.begin / KH_PAGE; page * KH_PAGE < span.end; page++) {
        uint32_t first = (uint32_t)(page * KH_PAGE);
        size_t n = kh_tile_score(t, page, span.end);
        uint32_t end = first + (uint32_t)n;
        if (t->want_all) kh_tile_add_all(t, page, n);
        if (first >= inside.begin && end <= inside.end)
            t->kern->filter_rows(k->values, k->indices, k->ld, k->counts, t->scores, KH_PAGE,
                                 t->thresholds, t->R, n, first);
        else
            filter_edge(t, first, end);
        tighten(t, limit, end);
    }
    for (size_t r = 0; r < t->R; r++)
        k->counts[r] = (uint32_t)reduce(t, r, k->values + r * k->ld, k->indices + r * k->ld,
                                        k->counts[r]);
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
