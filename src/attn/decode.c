/* Choosing keys when few rows meet many keys: the decoding step.
 *
 *     1  chunk of 1024 keys: every page is read once and scored for all heads of its group
 *                                         scores [R][S], 4 bytes a key and head, in the second-level cache
 *     2  row: a threshold that k to 1.5 k scores reach, found by counting; one pass lists those; the
 *        method reduces the list to what the row keeps
 *
 * Step 1 runs in parallel over chunks, step 2 over rows. Keys are cut by position alone and a row's choice
 * depends on its scores alone, so threads change nothing.
 *
 * Exact: k scores reach the threshold, so the row's k best are among those that do. The list is a bounded
 * buffer: where ties at the threshold would overflow it, pages are listed one by one and the list is
 * reduced whenever the next page may not fit; ties then keep going to the lower position, because earlier
 * ones are in front. Pinned keys (`sinks`, `recent`) are listed unasked; NaN and -inf never are.
 *
 * Through the shadow of a page (kern/shadow_kern.h) step 1 gives what a score is at most. Of the keys that
 * lead by that, the k-th largest of what is certain is a bound that k scores reach; every key that may reach
 * it is scored again by the ordinary kernel, and the choice is made among those: the same keys, the same
 * bits. Where a row's keys give no such bound, or too many reach it, the row is scored as a whole.
 *
 * Measured (Xeon 2.5 GHz, AVX-512, 9 heads over 3 key heads of 64, f16, k 128, random numbers, us a layer, and
 * as a multiple of the time that the bytes take): 8,000 keys 417 (1.5) on one thread, 249 (1.7) on two; 32,000
 * keys 922 on two. Through the shadow 337 at 8,000 and 986 at 32,000: a key that is scored again costs the
 * 2 KiB of its panel, which eats what the shadow saves while the kept keys lie in panels of their own.
 *
 * Rejected: choosing k in every chunk and merging the candidates, as it was (1.2 times the time: every
 * chunk starts without a threshold and tightens its lists three times). Prefetching the next page in one
 * burst (3 %; line by line between the products it is 20 %). */
#include "attn/decode.h"

#include "attn/scorer.h"
#include "kern/attn_kern.h"
#include "ops/narrow.h"

#include <math.h>
#include <string.h>

/* A page through its shadow. The next one is fetched meanwhile. */
static void screen_page(const kh_tile *t, const kh_row_scores *scores, size_t p, size_t end)
{
    const kh_screen *s = &scores->screen;
    int more = p + 1 < s->pages && p + 1 < end;
    t->kern->shadow_score(scores->values + (p * KH_PAGE - scores->first), scores->ld, s->q,
                          s->steps, t->R, s->keys->shadow(t, s->context, p), (size_t)t->layer->E,
                          more ? s->keys->shadow(t, s->context, p + 1) : NULL);
}

/* Whether pages are scored where they lie, and nothing else is wanted of their scores. */
static int as_stored(const kh_tile *t)
{
    kh_type type = kh_kv_shape_of(t->kv)->k_type;
    int plain = !t->layer->bias && !t->want_all && !t->setting->tail_mean;
    return plain && (type == KH_TYPE_F32 || (type == KH_TYPE_F16 && t->R <= KH_HALF_ROWS));
}

/* A whole page, while the next one is fetched. */
static void stream_page(const kh_tile *t, float *to, size_t ld, size_t p, size_t end)
{
    int layer = kh_attn_place(t->layer), half = kh_kv_shape_of(t->kv)->k_type == KH_TYPE_F16;
    size_t E = (size_t)t->layer->E;
    const void *next = p + 1 < end ? kh_kv_keys(t->kv, layer, t->g, p + 1) : NULL;
    t->kern->score_ahead(to, ld, t->q, E, t->R, kh_kv_keys(t->kv, layer, t->g, p), half, E, next);
}

void kh_decode_score(kh_tile *t, const kh_row_scores *scores)
{
    kh_range span = kh_tile_span(t);
    size_t end = (span.end + KH_PAGE - 1) / KH_PAGE;
    int stream = as_stored(t);
    kh_tile_start_all(t);
    for (size_t p = span.begin / KH_PAGE; p < end; p++) {
        float *to = scores->values + (p * KH_PAGE - scores->first);
        if (scores->screen.q && p < scores->screen.pages) {
            screen_page(t, scores, p, end);
        } else if (stream && (p + 1) * KH_PAGE <= span.end) {
            stream_page(t, to, scores->ld, p, end);
        } else {
            kh_tile_score(t, p, span.end);
            kh_tile_add_all(t, t->scores, KH_PAGE, 0, t->R);
            for (size_t r = 0; r < t->R; r++)
                memcpy(to + r * scores->ld, t->scores + r * KH_PAGE, KH_PAGE * sizeof *to);
        }
    }
}

/* A row's list, at the start of the tile's. */
typedef struct list {
    kh_tile *t;
    const kh_row_scores *scores;
    size_t r;
    float *row;                  /* scores of the keys from scores->first on */
    size_t begin, from, to, end; /* | sinks | candidates | recent | */
    uint32_t n;
} list;

static list list_of(kh_tile *t, size_t r, const kh_row_scores *scores)
{
    kh_range v = kh_tile_visible(t, r);
    size_t sinks = (size_t)t->setting->sinks, recent = kh_tile_recent(t, r);
    if (sinks < v.begin) sinks = v.begin;
    return (list){.t = t,
                  .scores = scores,
                  .r = r,
                  .row = scores->values + r * scores->ld,
                  .begin = v.begin,
                  .from = sinks < recent ? sinks : recent,
                  .to = recent,
                  .end = v.end};
}

static void reduce(list *l)
{
    const kh_keys *k = &l->t->keys;
    l->n = (uint32_t)l->t->setting->method->reduce(l->t, l->r, k->values, k->indices, l->n);
}

/* Appends the keys of [from, to) above the threshold; `most` is how many that may be. */
static void append(list *l, size_t from, size_t to, float threshold, size_t most)
{
    const kh_keys *k = &l->t->keys;
    if (from >= to) return;
    if (l->n + most + KH_PANEL > k->ld) reduce(l);
    l->t->kern->filter_rows(k->values, k->indices, 0, &l->n, l->row + (from - l->scores->first), 0,
                            &threshold, 1, to - from, (uint32_t)from);
}

/* Pinned keys, and between them the candidates that reach the threshold. */
static void append_all(list *l, float threshold, size_t most)
{
    l->n = 0;
    append(l, l->begin, l->from, -INFINITY, l->from - l->begin);
    append(l, l->from, l->to, nextafterf(threshold, -INFINITY), most);
    append(l, l->to, l->end, -INFINITY, l->end - l->to);
}

/* A threshold that at least `least` candidates reach, and no more than `most` but for ties. */
static float search(const list *l, size_t least, size_t most, size_t *ties)
{
    kh_bound b = kh_narrow_search(l->t->kern, l->row + (l->from - l->scores->first),
                                  l->to - l->from, least, most, -INFINITY);
    *ties = b.ties;
    return b.value;
}

/* ---- through the shadow */

static int screened(const list *l, size_t position)
{
    return position / KH_PAGE < l->scores->screen.pages;
}

/* A score that k of the row's keys are certain to reach, from those that are listed. */
static float certain(const list *l, size_t k)
{
    const kh_tile *t = l->t;
    const kh_screen *s = &l->scores->screen;
    float *lower = (float *)(void *)t->rows; /* [ld], not in use yet */
    size_t E = (size_t)t->layer->E;
    for (size_t i = 0; i < l->n; i++) {
        size_t at = t->keys.indices[i];
        lower[i] = t->keys.values[i];
        if (!screened(l, at)) continue;
        const float *errors = kh_shadow_errors(s->keys->shadow(t, s->context, at / KH_PAGE), E);
        lower[i] = kh_screen_lower(lower[i], s->steps[2 * l->r + 1], errors[at % KH_PAGE]);
    }
    if (l->n <= k) return -INFINITY;
    float least = kh_narrow_search(t->kern, lower, l->n, k, k, -INFINITY).value;
    return t->kern->count_at_least(lower, l->n, least) < k ? -INFINITY : least;
}

static const void *page_shadow(const kh_tile *t, const void *context, size_t p)
{
    (void)context;
    return kh_kv_shadow(t->kv, kh_attn_place(t->layer), t->g, p);
}

/* Keys of a q8_0 page: a panel is unpacked and scored once for all of its keys that are listed. */
static void score_packed(const kh_tile *t, size_t r, const uint32_t *positions, size_t n,
                         float *values)
{
    size_t E = (size_t)t->layer->E;
    float scores[KH_PANEL];
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || positions[i] / KH_PANEL != positions[i - 1] / KH_PANEL) {
            t->kern->kv_key_f32(t->panels, t->rows[i], KH_TYPE_Q8_0, E, KH_PANEL);
            t->kern->score_panel(scores, KH_PANEL, t->q + r * E, E, 1, t->panels, 1, E);
        }
        values[i] = scores[positions[i] % KH_PANEL];
    }
}

static void score_listed(const kh_tile *t, const void *context, size_t r, const uint32_t *positions,
                         size_t n, float *values)
{
    size_t E = (size_t)t->layer->E;
    kh_type type = kh_kv_shape_of(t->kv)->k_type;
    (void)context;
    for (size_t i = 0; i < n; i++) {
        const char *page = kh_kv_keys(t->kv, kh_attn_place(t->layer), t->g, positions[i] / KH_PAGE);
        size_t panel = positions[i] % KH_PAGE / KH_PANEL;
        t->rows[i] = page + panel * KH_PANEL * kh_type_row_bytes(type, E);
    }
    if (type == KH_TYPE_Q8_0)
        score_packed(t, r, positions, n, values);
    else
        t->kern->score_listed(values, t->q + r * E, t->rows, positions, n, type == KH_TYPE_F16, E);
}

const kh_screen_keys kh_decode_pages = {page_shadow, score_listed};

/* The scores of the listed keys instead of their bounds; what has none leaves the list. Keys behind the
 * last whole page have theirs already. */
static void rescore(list *l)
{
    const kh_keys *k = &l->t->keys;
    const kh_screen *s = &l->scores->screen;
    size_t n = l->n;
    while (n > 0 && !screened(l, k->indices[n - 1])) n--;
    s->keys->score(l->t, s->context, l->r, k->indices, n, k->values);
    l->n = (uint32_t)l->t->kern->keep_best(k->values, k->indices, l->n, -INFINITY, 0);
}

/* Lists every key that may be among the row's k best, with its score. 0 where the list cannot hold them. */
static int choose_screened(list *l)
{
    size_t k = (size_t)l->t->setting->k, ties, kept = 0;
    if (l->to - l->from <= 2 * k) return 0;
    float threshold = search(l, k + k / 8, 2 * k, &ties);
    if (ties != SIZE_MAX) return 0;
    append_all(l, threshold, 2 * k);
    float least = certain(l, k);
    if (!(least >= threshold)) {
        const float *row = l->row + (l->from - l->scores->first);
        if (l->t->kern->count_at_least(row, l->to - l->from, least) > 2 * k) return 0;
        append_all(l, least, 2 * k);
    }
    const kh_keys *keys = &l->t->keys;
    for (size_t i = 0; i < l->n; i++) {
        size_t at = keys->indices[i];
        if (keys->values[i] < least && at >= l->from && at < l->to) continue;
        keys->values[kept] = keys->values[i];
        keys->indices[kept++] = (uint32_t)at;
    }
    l->n = (uint32_t)kept;
    rescore(l);
    return 1;
}

/* The row's scores instead of its bounds. */
static void score_row(const list *l)
{
    const kh_screen *s = &l->scores->screen;
    uint32_t positions[KH_PAGE];
    for (size_t p = l->begin / KH_PAGE; p < s->pages && p * KH_PAGE < l->end; p++) {
        for (size_t i = 0; i < KH_PAGE; i++) positions[i] = (uint32_t)(p * KH_PAGE + i);
        s->keys->score(l->t, s->context, l->r, positions, KH_PAGE,
                       l->row + (p * KH_PAGE - l->scores->first));
    }
}

size_t kh_decode_choose(kh_tile *t, size_t r, const kh_row_scores *scores)
{
    size_t ties = SIZE_MAX, k = (size_t)t->setting->k, most = k + k / 2;
    list l = list_of(t, r, scores);
    if (scores->screen.q) {
        if (choose_screened(&l)) {
            reduce(&l);
            return l.n;
        }
        score_row(&l);
    }
    float threshold = -INFINITY;
    if (l.to - l.from > most) threshold = search(&l, k, most, &ties);
    if (ties == SIZE_MAX) {
        append_all(&l, threshold, most);
    } else {
        l.n = 0;
        append(&l, l.begin, l.from, -INFINITY, l.from - l.begin);
        for (size_t at = l.from; at < l.to; at += KH_PAGE)
            append(&l, at, at + KH_PAGE < l.to ? at + KH_PAGE : l.to,
                   nextafterf(threshold, -INFINITY), KH_PAGE);
        append(&l, l.to, l.end, -INFINITY, l.end - l.to);
    }
    reduce(&l);
    return l.n;
}
