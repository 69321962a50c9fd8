/* Attention of one layer: tasks, items, and the merging of what chunks found.
 *
 *     span of a batch -> (key head, run of heads with one setting) -> tile of tokens = task
 *     task            -> one item, or one item for every KH_CHUNK keys when the span has few tokens
 *
 * One item per task is the prompt's case: there are enough tiles for all threads, and an item writes
 * its rows of z itself. A decoding step has one token a sequence, so the keys are cut instead, partial
 * results go to the step arena, and a second loop merges them in chunk order. Where the cuts are
 * depends on positions alone, so threads never change a bit.
 *
 * Items are handed out key head by key head, so that threads share its pages in the cache, and in each
 * late tokens first: under a causal mask they see the most keys. (Late tokens of all key heads first: a
 * twelfth slower at 4,096 positions of 12 heads, because every page comes from far away.)
 *
 * Rows that see no more than k keys keep all of them; such tokens become tasks of `full`, which is the
 * same result without selection. (Not with min-p, which may still drop some.)
 *
 * Memory: tasks, items and partial results in run->step, one tile in each worker's scratch; both are
 * planned by kh_attn_need and checked before threads start, so nothing fails inside a loop. */
#include "attn/attend.h"

#include "attn/save.h"
#include "base/fail.h"
#include "kern/attn_kern.h"

#include <string.h>

enum { FEW_ROWS = 32 /* tokens of a batch whose keys may be cut */, PARALLEL_WRITE = 1 << 14 };

static const kh_attn_setting all_keys = {.method = &kh_attn_full};

size_t kh_attn_tile_tokens(int heads, size_t ld)
{
    size_t rows = KH_TILE_ROWS;
    while (rows > 6 && rows * ld > 1 << 17) rows /= 2; /* lists of at most 1 MiB */
    size_t tokens = rows / (size_t)heads;
    return tokens > 0 ? tokens : 1;
}

static size_t list_room(const kh_attn_setting *s, size_t S)
{
    return s->method->room ? (s->method->room(s, S) + 15) / 16 * 16 : 16;
}

static size_t most_chunks(size_t S)
{
    return S / KH_CHUNK + 2;
}

/* Scores and queries in 15 bits, for `rows` of cut tasks. */
static size_t score_bytes(size_t rows, size_t S, size_t E)
{
    return kh_arena_need(rows * (S + 2 * KH_CHUNK) * sizeof(float)) +
           kh_arena_need(rows * kh_shadow_width(E) * sizeof(int16_t)) +
           kh_arena_need(2 * rows * sizeof(float));
}

static size_t part_bytes(size_t parts, size_t E)
{
    return kh_arena_need(parts * E * sizeof(float)) + 6 * kh_arena_need(parts * sizeof(float));
}

void kh_attn_need(const kh_attn_plan *plan, const kh_attn_layer *layer, const kh_kv_shape *shape,
                  size_t T, size_t S, size_t *step, size_t *scratch)
{
    (void)shape;
    size_t ld = 16, H = (size_t)layer->H, E = (size_t)layer->E, listing = 0;
    for (int phase = KH_PHASE_PREFILL; phase <= KH_PHASE_DECODE; phase++)
        for (int head = 0; head < layer->H; head++) {
            const kh_attn_setting *s = kh_attn_plan_at(plan, (enum kh_phase)phase, layer->layer,
                                                       head);
            size_t room = list_room(s, S);
            if (room > ld) ld = room;
            listing |= s->method->kind == KH_KEYS_INDICES;
        }
    size_t rows = (T < FEW_ROWS ? T : FEW_ROWS) * H, parts = rows * most_chunks(S);
    *step = kh_arena_need(T * H * sizeof(kh_attn_task)) +
            kh_arena_need((T * H + parts) * sizeof(kh_attn_item)) + part_bytes(parts, E) +
            kh_arena_need(rows * sizeof(kh_attn_item)) +
            kh_arena_need(rows * sizeof(kh_attn_stats)) + (listing ? score_bytes(rows, S, E) : 0);
    *step += kh_arena_need(S * sizeof(float)) + kh_arena_need(S * sizeof(uint32_t));
    kh_tile tile;
    *scratch = kh_tile_place(&tile, NULL, KH_TILE_ROWS, E, ld, S);
}

/* ---- cutting the work */

static const kh_kv *cache_of(const kh_run *run, const kh_attn_layer *layer, const kh_span *span)
{
    return (layer->source ? run->kv_cross : run->kv_self)[span->seq];
}

/* How many keys rows see that see all of them. */
static size_t keys_of(const kh_run *run, const kh_attn_layer *layer, const kh_span *span)
{
    if (layer->encoder) return (size_t)span->position + span->rows;
    return kh_kv_length(cache_of(run, layer, span));
}

/* Heads of group g from `head` on that share the setting of the first. */
static int run_of_heads(const kh_attn_work *work, int head, int end)
{
    const kh_run *run = work->run;
    const kh_attn_setting *s = kh_attn_plan_at(run->attn, run->phase, work->layer->layer, head);
    int n = 1;
    while (head + n < end && n < KH_TILE_ROWS &&
           kh_attn_plan_at(run->attn, run->phase, work->layer->layer, head + n) == s)
        n++;
    return n;
}

/* How many of a span's first tokens see no more keys than the setting keeps. */
static size_t tokens_of_full(const kh_attn_layer *layer, const kh_attn_setting *s,
                             const kh_attn_task *whole)
{
    if (s->method != &kh_attn_topk || s->min_p > 0) return 0;
    size_t k = (size_t)s->k;
    if (layer->order == KH_ATTN_ALL_KEYS) return whole->length <= k ? whole->tokens : 0;
    if (layer->window > 0 && (size_t)layer->window <= k) return whole->tokens;
    if (whole->position >= k) return 0;
    return k - whole->position < whole->tokens ? k - whole->position : whole->tokens;
}

/* The tile that is `back` tiles from the end of tokens [0, n), of which the first `full` are cut
 * separately; its tokens are [*first, *first + *count). 0 when there is none. */
static int tile_from_end(size_t n, size_t full, size_t size, size_t back, size_t *first,
                         size_t *count)
{
    size_t late = (n - full + size - 1) / size, early = (full + size - 1) / size;
    if (back >= late + early) return 0;
    size_t base = back < late ? full : 0, end = back < late ? n : full;
    *first = base + (back < late ? late - 1 - back : late + early - 1 - back) * size;
    *count = end - *first < size ? end - *first : size;
    return 1;
}

static void add_task(kh_attn_work *work, kh_attn_task task, size_t span_rows, size_t *few)
{
    const kh_attn_layer *layer = work->layer;
    size_t end = layer->order == KH_ATTN_ALL_KEYS ? task.length : task.position + task.tokens;
    size_t begin = 0, window = (size_t)layer->window;
    if (layer->order == KH_ATTN_CAUSAL && window > 0 && task.position + 1 > window)
        begin = task.position + 1 - window;
    task.chunk = begin / KH_CHUNK;
    task.chunks = 1;
    if (span_rows <= KH_CHUNK_TOKENS &&
        *few + task.tokens * (size_t)task.heads <= FEW_ROWS * (size_t)layer->H)
        task.chunks = (end - 1) / KH_CHUNK - task.chunk + 1;
    if (task.chunks > 1) {
        *few += task.tokens * (size_t)task.heads;
        task.part = work->part_count;
        work->part_count += task.tokens * (size_t)task.heads * task.chunks;
        for (size_t r = 0; r < task.tokens * (size_t)task.heads; r++)
            work->rows[work->row_count++] = (kh_attn_item){(uint32_t)work->task_count, (uint32_t)r};
    }
    for (size_t c = 0; c < task.chunks; c++)
        work->items[work->item_count++] = (kh_attn_item){(uint32_t)work->task_count, (uint32_t)c};
    work->tasks[work->task_count++] = task;
}

/* The tiles of one span for heads [head, head + n) of group g, the last first. */
static void add_stream(kh_attn_work *work, const kh_span *span, int g, int head, int n, size_t *few)
{
    const kh_run *run = work->run;
    const kh_attn_layer *layer = work->layer;
    const kh_attn_setting *s = kh_attn_plan_at(run->attn, run->phase, layer->layer, head);
    kh_attn_task whole = {.kv = cache_of(run, layer, span),
                          .setting = s,
                          .g = g,
                          .head = head,
                          .heads = n,
                          .tokens = span->rows,
                          .position = (size_t)span->position};
    whole.length = keys_of(run, layer, span);
    size_t full = tokens_of_full(layer, s, &whole), first, count;
    size_t size = kh_attn_tile_tokens(n, list_room(s, whole.position + whole.tokens));
    for (size_t back = 0; tile_from_end(span->rows, full, size, back, &first, &count); back++) {
        kh_attn_task task = whole;
        if (first < full) task.setting = &all_keys;
        task.row = span->row + first;
        task.tokens = count;
        task.position += first;
        add_task(work, task, span->rows, few);
    }
}

static void cut(kh_attn_work *work)
{
    const kh_batch *batch = work->run->batch;
    int group = work->layer->H / work->layer->G;
    size_t few = 0;
    for (size_t i = 0; i < batch->span_count; i++)
        for (int g = 0; g < work->layer->G; g++)
            for (int head = g * group, n; head < (g + 1) * group; head += n) {
                n = run_of_heads(work, head, (g + 1) * group);
                add_stream(work, &batch->spans[i], g, head, n, &few);
            }
}

/* One block of memory, so that the plan knows its size. */
static kh_status take_scores(kh_attn_work *work)
{
    float *scores = NULL;
    size_t n = 0;
    for (int take = 0; take < 2; take++) {
        if (take && n > 0) KH_TRY(kh_arena_new(work->run->step, &scores, n, sizeof *scores));
        n = 0;
        for (size_t i = 0; i < work->task_count; i++) {
            kh_attn_task *task = &work->tasks[i];
            if (task->chunks == 1 || task->setting->method->kind != KH_KEYS_INDICES) continue;
            task->scores.ld = task->chunks * KH_CHUNK;
            task->scores.first = task->chunk * KH_CHUNK;
            task->scores.values = scores ? scores + n : NULL;
            n += task->tokens * (size_t)task->heads * task->scores.ld;
        }
    }
    return KH_OK;
}

/* Whether pages may be read through their shadows: not where all scores are wanted, or a bias is added. */
static int may_screen(const kh_attn_work *work, const kh_attn_task *task)
{
    const kh_attn_stats *stats = work->run->stats;
    return task->scores.values && kh_kv_shape_of(task->kv)->shadow && !work->layer->bias &&
           !task->setting->tail_mean && !(stats && stats->want_mass);
}

/* Queries as shadows read them; a task with one that has no bound does without. */
static kh_status take_screens(kh_attn_work *work)
{
    size_t E = (size_t)work->layer->E, W = kh_shadow_width(E), n = 0;
    int16_t *q = NULL;
    float *steps = NULL;
    for (size_t i = 0; i < work->task_count; i++) {
        kh_attn_task *task = &work->tasks[i];
        size_t heads = (size_t)task->heads, R = task->tokens * heads, r = 0;
        if (!may_screen(work, task)) continue;
        if (!q) {
            KH_TRY(kh_arena_new(work->run->step, &q, work->row_count * W, sizeof *q));
            KH_TRY(kh_arena_new(work->run->step, &steps, work->row_count * 2, sizeof *steps));
        }
        for (; r < R; r++) {
            const float *x = work->q + (task->row + r / heads) * work->q_by.row +
                             ((size_t)task->head + r % heads) * work->q_by.head;
            if (!kh_screen_query(q + (n + r) * W, steps + 2 * (n + r), x, E)) break;
        }
        size_t whole = work->layer->order == KH_ATTN_ALL_KEYS ? task->length : task->position + 1;
        if (r == R)
            task->scores.screen = (kh_screen){&kh_decode_pages, NULL, q + n * W, steps + 2 * n,
                                              whole / KH_PAGE};
        n += R;
    }
    return KH_OK;
}

static kh_status take_parts(kh_attn_work *work)
{
    kh_arena *step = work->run->step;
    kh_attn_parts *p = &work->parts;
    size_t n = work->part_count, E = (size_t)work->layer->E;
    if (n == 0) return KH_OK;
    KH_TRY(kh_arena_new(step, &p->m, n, sizeof(float)));
    KH_TRY(kh_arena_new(step, &p->u, n, sizeof(float)));
    KH_TRY(kh_arena_new(step, &p->m_all, n, sizeof(float)));
    KH_TRY(kh_arena_new(step, &p->u_all, n, sizeof(float)));
    KH_TRY(kh_arena_new(step, &p->tail_shifts, n, sizeof(float)));
    KH_TRY(kh_arena_new(step, &p->tails, n, sizeof(float)));
    return kh_arena_new(step, &p->w, n * E, sizeof(float));
}

/* ---- tiles */

void kh_attn_open_tile(const kh_attn_work *work, const kh_attn_task *task, size_t c, int worker,
                       kh_tile *t)
{
    size_t R = task->tokens * (size_t)task->heads, E = (size_t)work->layer->E;
    const kh_attn_stats *stats = work->run->stats;
    *t = (kh_tile){.kern = work->run->kern,
                   .kv = task->kv,
                   .layer = work->layer,
                   .setting = task->setting,
                   .drop = work->run->drop,
                   .g = task->g,
                   .head = task->head,
                   .heads = task->heads,
                   .row = task->row,
                   .tokens = task->tokens,
                   .position = task->position,
                   .length = task->length,
                   .R = R,
                   .chunk = {0, UINT32_MAX}};
    t->want_all = stats && stats->want_mass && task->setting->method != &kh_attn_full;
    if (task->chunks > 1) {
        t->chunk.begin = (uint32_t)((task->chunk + c) * KH_CHUNK);
        t->chunk.end = t->chunk.begin + KH_CHUNK;
    }
    size_t bytes = kh_tile_place(t, NULL, R, E, work->ld, work->S);
    kh_tile_place(t, kh_arena_take(&work->run->scratch[worker], bytes), R, E, work->ld, work->S);
    kh_tile_load(t, work->q, work->q_by);
}

static float *z_row(const kh_attn_work *work, const kh_tile *t, size_t r)
{
    size_t heads = (size_t)t->heads, head = (size_t)t->head + r % heads;
    return work->z + (t->row + r / heads) * work->z_by.row + head * work->z_by.head;
}

static void count_row(kh_attn_stats *stats, const kh_tile *t, size_t r, size_t kept)
{
    kh_range visible = kh_tile_visible(t, r);
    stats->rows += 1;
    stats->keys_kept += (double)kept;
    stats->keys_seen += (double)(visible.end - visible.begin);
    stats->kept_mass += (double)kh_tile_kept_mass(t, r);
}

/* z of a row from its m, u and unnormalised values. */
static void finish_ranges(const kh_attn_work *work, const kh_attn_task *task, kh_attn_stats *stats,
                          const kh_tile *t, size_t r)
{
    size_t E = (size_t)work->layer->E;
    float *z = z_row(work, t, r), share = t->u[r] > 0 ? 1.0f / t->u[r] : 0.0f;
    for (size_t e = 0; share > 0 && e < E; e++) z[e] = t->out[r * E + e] * share;
    for (size_t e = 0; !(share > 0) && e < E; e++) z[e] = 0;
    const kh_range *range = t->keys.ranges + 2 * r;
    if (work->run->save) kh_attn_save_ranges(work->run->save, t, r, task->setting == &all_keys);
    count_row(stats, t, r, (range[0].end - range[0].begin) + (range[1].end - range[1].begin));
}

/* The weights of a row's list, in its place; returns how many stay. */
static size_t weigh(const kh_attn_work *work, kh_attn_stats *stats, kh_tile *t, size_t r,
                    float *values, uint32_t *indices, size_t n)
{
    size_t heads = (size_t)t->heads, head = (size_t)t->head + r % heads;
    n = kh_scorer_weights(t, r, values, indices, n);
    if (work->run->save) kh_attn_save_indices(work->run->save, t, r, indices, n);
    if (t->drop) kh_attn_drop_listed(t->drop, head, t->row + r / heads, values, indices, n);
    count_row(stats, t, r, n);
    return n;
}

static void finish_indices(const kh_attn_work *work, kh_attn_stats *stats, kh_tile *t)
{
    size_t E = (size_t)work->layer->E;
    for (size_t r = 0; r < t->R; r++)
        t->keys.counts[r] = (uint32_t)weigh(work, stats, t, r, kh_tile_listed(t, r),
                                            kh_tile_indices(t, r), t->keys.counts[r]);
    kh_scorer_gather_all(t);
    for (size_t r = 0; r < t->R; r++) memcpy(z_row(work, t, r), t->out + r * E, E * sizeof *t->out);
}

static void store_part(const kh_attn_work *work, const kh_attn_task *task, size_t c,
                       const kh_tile *t)
{
    const kh_attn_parts *p = &work->parts;
    size_t E = (size_t)work->layer->E;
    for (size_t r = 0; r < t->R; r++) {
        size_t at = task->part + r * task->chunks + c;
        if (t->setting->method->kind == KH_KEYS_RANGES) {
            p->m[at] = t->m[r];
            p->u[at] = t->u[r];
            memcpy(p->w + at * E, t->out + r * E, E * sizeof *p->w);
        }
        p->m_all[at] = t->want_all ? t->m_all[r] : 0;
        p->u_all[at] = t->want_all ? t->u_all[r] : 0;
        p->tail_shifts[at] = t->tail_shifts[r];
        p->tails[at] = kh_tile_tail(t, r);
    }
}

static void run_item(void *context, size_t index, int worker)
{
    kh_attn_work *work = context;
    kh_attn_item item = work->items[index];
    kh_attn_task *task = &work->tasks[item.task];
    kh_arena *scratch = &work->run->scratch[worker];
    kh_arena_mark mark = kh_arena_save(scratch);
    int ranges = task->setting->method->kind == KH_KEYS_RANGES;
    kh_tile t;
    kh_attn_open_tile(work, task, item.chunk, worker, &t);
    if (task->scores.values)
        kh_decode_score(&t, &task->scores);
    else
        task->setting->method->select(&t);
    if (ranges) kh_scorer_ranges(&t);
    if (task->chunks > 1) {
        store_part(work, task, item.chunk, &t);
    } else {
        kh_tile_means(&t);
        for (size_t r = 0; ranges && r < t.R; r++) finish_ranges(work, task, &task->stats, &t, r);
        if (!ranges) finish_indices(work, &task->stats, &t);
    }
    kh_arena_rewind(scratch, mark);
}

/* ---- merging chunks */

static void merge_all(const kh_attn_work *work, const kh_attn_task *task, kh_tile *t, size_t r)
{
    const kh_attn_parts *p = &work->parts;
    size_t at = task->part + r * task->chunks;
    float *tail = t->tail_sums + r * KH_PANEL;
    memset(tail, 0, KH_PANEL * sizeof *tail);
    t->m_all[r] = p->m_all[at];
    t->u_all[r] = p->u_all[at];
    t->tail_shifts[r] = p->tail_shifts[at];
    *tail = p->tails[at];
    for (size_t c = 1; c < task->chunks; c++) {
        kh_merge_partials(t->m_all + r, t->u_all + r, NULL, p->m_all[at + c], p->u_all[at + c],
                          NULL, 0);
        kh_merge_tails(t->tail_shifts + r, tail, p->tail_shifts[at + c], p->tails[at + c]);
    }
}

static void merge_ranges(const kh_attn_work *work, const kh_attn_task *task, kh_tile *t, size_t r)
{
    const kh_attn_parts *p = &work->parts;
    size_t at = task->part + r * task->chunks, E = (size_t)work->layer->E;
    t->m[r] = p->m[at];
    t->u[r] = p->u[at];
    memcpy(t->out + r * E, p->w + at * E, E * sizeof *p->w);
    for (size_t c = 1; c < task->chunks; c++)
        kh_merge_partials(t->m + r, t->u + r, t->out + r * E, p->m[at + c], p->u[at + c],
                          p->w + (at + c) * E, E);
}

static void merge_row(void *context, size_t index, int worker)
{
    kh_attn_work *work = context;
    kh_attn_stats *stats = &work->stats[index];
    kh_attn_task *task = &work->tasks[work->rows[index].task];
    size_t r = work->rows[index].chunk;
    kh_arena *scratch = &work->run->scratch[worker];
    kh_arena_mark mark = kh_arena_save(scratch);
    kh_attn_task whole = *task;
    whole.chunks = 1;
    kh_tile t;
    kh_attn_open_tile(work, &whole, 0, worker, &t);
    kh_tile_means(&t);
    *stats = (kh_attn_stats){0};
    merge_all(work, task, &t, r);
    if (task->setting->method->kind == KH_KEYS_RANGES) {
        task->setting->method->select(&t);
        merge_ranges(work, task, &t, r);
        finish_ranges(work, task, stats, &t, r);
    } else {
        size_t n = kh_decode_choose(&t, r, &task->scores);
        n = weigh(work, stats, &t, r, t.keys.values, t.keys.indices, n);
        kh_scorer_gather(&t, r, t.keys.values, t.keys.indices, n, z_row(work, &t, r));
    }
    kh_arena_rewind(scratch, mark);
}

/* ---- the op */

static kh_status check(const kh_run *run, const kh_attn_layer *layer, size_t scratch)
{
    for (size_t i = 0; i < run->batch->span_count; i++) {
        const kh_kv_shape *s = kh_kv_shape_of(cache_of(run, layer, &run->batch->spans[i]));
        if (s->k_width != layer->E || s->v_width != layer->E || s->groups != layer->G ||
            kh_attn_place(layer) >= s->layers || layer->H % layer->G != 0)
            KH_FAIL(KH_ERR_STATE,
                    "attention of layer %d with %d heads, %d key heads of width %d does not fit a "
                    "cache of %d layers, %d key heads of widths %d and %d",
                    layer->layer, layer->H, layer->G, layer->E, s->layers, s->groups, s->k_width,
                    s->v_width);
    }
    for (int w = 0; w < run->pool->threads; w++)
        if (run->scratch[w].size - run->scratch[w].used < scratch)
            KH_FAIL(KH_ERR_MEMORY, "attention needs %zu bytes of scratch a thread, %zu are left",
                    scratch, run->scratch[w].size - run->scratch[w].used);
    return KH_OK;
}

static void add_stats(kh_attn_stats *sum, const kh_attn_stats *more)
{
    sum->rows += more->rows;
    sum->keys_kept += more->keys_kept;
    sum->keys_seen += more->keys_seen;
    sum->kept_mass += more->kept_mass;
}

static kh_status attend(kh_attn_work *work)
{
    kh_run *run = work->run;
    const kh_batch *batch = run->batch;
    size_t rows = batch->n * (size_t)work->layer->H, S = 0, few = 0;
    for (size_t i = 0; i < batch->span_count; i++) {
        const kh_span *span = &batch->spans[i];
        size_t end = (size_t)span->position + span->rows;
        if (work->layer->order == KH_ATTN_ALL_KEYS) end = keys_of(run, work->layer, span);
        if (end > S) S = end;
        if (span->rows <= KH_CHUNK_TOKENS) few += span->rows;
    }
    work->ld = 16;
    work->S = S;
    for (int head = 0; head < work->layer->H; head++) {
        const kh_attn_setting *s = kh_attn_plan_at(run->attn, run->phase, work->layer->layer, head);
        size_t room = list_room(s, S);
        if (room > work->ld) work->ld = room;
    }
    kh_tile tile;
    KH_TRY(check(run, work->layer,
                 kh_tile_place(&tile, NULL, KH_TILE_ROWS, (size_t)work->layer->E, work->ld, S)));
    if (few > FEW_ROWS) few = FEW_ROWS;
    few *= (size_t)work->layer->H;
    size_t items = rows + few * most_chunks(S);
    KH_TRY(kh_arena_new(run->step, &work->tasks, rows, sizeof *work->tasks));
    KH_TRY(kh_arena_new(run->step, &work->items, items, sizeof *work->items));
    KH_TRY(kh_arena_new(run->step, &work->rows, few, sizeof *work->rows));
    KH_TRY(kh_arena_new(run->step, &work->stats, few, sizeof *work->stats));
    cut(work);
    KH_TRY(take_parts(work));
    KH_TRY(take_scores(work));
    KH_TRY(take_screens(work));
    kh_parallel_for(run->pool, work->item_count, run_item, work);
    if (work->row_count > 0) kh_parallel_for(run->pool, work->row_count, merge_row, work);
    for (size_t i = 0; run->stats && i < work->task_count; i++)
        add_stats(run->stats, &work->tasks[i].stats);
    for (size_t i = 0; run->stats && i < work->row_count; i++)
        add_stats(run->stats, &work->stats[i]);
    if (kh_probe_wants(run->probe, KH_POINT_ATTN_ROWS) && run->probe->rows)
        KH_TRY(kh_attn_deliver_rows(work));
    return KH_OK;
}

kh_status kh_attn_attend_strided(kh_run *run, const kh_attn_layer *layer, float *z,
                                 kh_attn_strides z_by, const float *q, kh_attn_strides q_by)
{
    kh_arena_mark mark = kh_arena_save(run->step);
    kh_attn_work work = {.run = run, .layer = layer, .q = q, .z = z, .q_by = q_by, .z_by = z_by};
    kh_status status = attend(&work);
    kh_arena_rewind(run->step, mark);
    return status;
}

kh_status kh_attn_attend(kh_run *run, const kh_attn_layer *layer, float *z, const float *q)
{
    kh_attn_strides by = {(size_t)layer->H * (size_t)layer->E, (size_t)layer->E};
    return kh_attn_attend_strided(run, layer, z, by, q, by);
}

typedef struct writing {
    kh_run *run;
    const kh_attn_layer *layer;
    const float *k, *v;
} writing;

static void write_group(void *context, size_t g, int worker)
{
    (void)worker;
    const writing *w = context;
    size_t E = (size_t)w->layer->E, ld = (size_t)w->layer->G * E;
    for (size_t i = 0; i < w->run->batch->span_count; i++) {
        const kh_span *span = &w->run->batch->spans[i];
        size_t at = span->row * ld + g * E;
        kh_kv_write(w->run->kv_self[span->seq], w->run->kern, kh_attn_place(w->layer), (int)g,
                    span->rows, w->k + at, ld, w->v + at, ld);
    }
}

kh_status kh_attn_forward(kh_run *run, const kh_attn_layer *layer, float *z, const float *q,
                          const float *k, const float *v)
{
    static const kh_pool one = {.threads = 1};
    size_t groups = (size_t)layer->G;
    writing w = {run, layer, k, v};
    KH_TRY(check(run, layer, 0));
    int large = run->batch->n * groups * (size_t)layer->E >= PARALLEL_WRITE;
    kh_parallel_for(large ? run->pool : &one, groups, write_group, &w);
    return kh_attn_attend(run, layer, z, q);
}
