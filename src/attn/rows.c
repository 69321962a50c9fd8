/* The probe's view of attention: for every query row and head, which keys it attended to and how much.
 *
 * Rows are computed again, one token at a time on the calling thread, after the layer is done: the
 * forward pass keeps nothing for an observer that may not exist, and the order (tokens, then heads
 * ascending) is free of tiles. Only a run that asks for rows pays. Indices come from the same select
 * and are the same; for ranges the weights are exp(score - m) / u with the row's own m and u, and every
 * key of the ranges is listed. */
#include "attn/attend.h"
#include "base/fail.h"
#include "kern/attn_kern.h"

#include <math.h>

typedef struct list {
    uint32_t *keys; /* [S] */
    float *weights; /* [S] */
    size_t n;
} list;

static void list_ranges(kh_tile *t, size_t r, list *out)
{
    out->n = 0;
    for (size_t i = 0; i < 2; i++) {
        kh_range range = t->keys.ranges[2 * r + i];
        for (size_t p = range.begin / KH_PAGE; p * KH_PAGE < range.end; p++) {
            size_t first = p * KH_PAGE, end = first + kh_tile_score(t, p, range.end);
            if (range.begin > first) first = range.begin;
            for (size_t j = first; j < end; j++) {
                float score = t->scores[r * KH_PAGE + j % KH_PAGE] * t->layer->scale;
                if (t->layer->softcap != 0) t->kern->softcap(&score, t->layer->softcap, 1);
                float weight = t->u[r] > 0 ? expf(score - t->m[r]) / t->u[r] : 0.0f;
                out->keys[out->n] = (uint32_t)j;
                out->weights[out->n++] = weight >= 0 ? weight : 0.0f;
            }
        }
    }
}

static void deliver(kh_attn_work *work, const kh_tile *t, size_t r, const list *l)
{
    int all = t->setting->method == &kh_attn_full;
    kh_attn_row row = {.layer = work->layer->layer,
                       .head = t->head + (int)r,
                       .row = (int)t->row,
                       .position = (int32_t)t->position,
                       .count = l->n,
                       .keys = l->keys,
                       .weights = l->weights,
                       .m = t->m[r],
                       .u = t->u[r],
                       .kept = all           ? 1.0f
                               : t->want_all ? kh_tile_kept_mass(t, r)
                                             : NAN};
    work->run->probe->rows(work->run->probe->context, &row);
}

/* One token, heads [head, head + heads). */
static void deliver_token(kh_attn_work *work, const kh_attn_task *task, list *memory)
{
    kh_arena *scratch = &work->run->scratch[0];
    kh_arena_mark mark = kh_arena_save(scratch);
    kh_tile t;
    kh_attn_open_tile(work, task, 0, 0, &t);
    task->setting->method->select(&t);
    int ranges = task->setting->method->kind == KH_KEYS_RANGES;
    if (ranges) kh_scorer_ranges(&t);
    for (size_t r = 0; r < t.R; r++) {
        list l = {kh_tile_indices(&t, r), kh_tile_listed(&t, r), t.keys.counts[r]};
        if (ranges)
            list_ranges(&t, r, memory);
        else
            l.n = kh_scorer_weights(&t, r, l.weights, l.keys, l.n);
        deliver(work, &t, r, ranges ? memory : &l);
    }
    kh_arena_rewind(scratch, mark);
}

kh_status kh_attn_deliver_rows(kh_attn_work *work)
{
    kh_run *run = work->run;
    const kh_batch *batch = run->batch;
    size_t S = 1;
    for (size_t i = 0; i < work->task_count; i++) {
        size_t end = work->tasks[i].position + work->tasks[i].tokens;
        if (work->tasks[i].length > end) end = work->tasks[i].length;
        if (end > S) S = end;
    }
    list memory = {0};
    KH_TRY(kh_arena_new(run->step, &memory.keys, S, sizeof *memory.keys));
    KH_TRY(kh_arena_new(run->step, &memory.weights, S, sizeof *memory.weights));
    for (size_t row = 0; row < batch->n; row++)
        for (int head = 0; head < work->layer->H;) {
            const kh_attn_task *found = NULL;
            for (size_t i = 0; i < work->task_count; i++) {
                const kh_attn_task *task = &work->tasks[i];
                if (task->head == head && row >= task->row && row < task->row + task->tokens)
                    found = task;
            }
            if (!found) return KH_OK; /* a row of no span */
            kh_attn_task one = *found;
            one.position += row - found->row;
            one.row = row;
            one.tokens = 1;
            one.chunks = 1;
            deliver_token(work, &one, &memory);
            head += one.heads;
        }
    return KH_OK;
}
