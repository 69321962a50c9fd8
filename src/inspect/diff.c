/* Where two readings part: files, quantisations, settings of attention, or prompts.
 *
 *     a's streams of a block   embed | layer 0: mid, post | layer 1: mid, post | ...     kept   [places][rows][D]
 *     b's, as they pass                                                                  compared, not kept
 *
 * A place is what lies behind a part: the stream between attention and feed-forward behind attention, the stream behind a
 * layer behind its feed-forward. Where both read the same stream (parallel blocks) there is none in between: the layer
 * parts the readings, and of its two outputs the one that differs more is named.
 *
 * Errors add up, so the first place beyond a threshold says when, not who. Who is found in a second reading: b is given a's
 * stream in front of every part, and what is off behind it is that part's own. Rows are all read that way from the first
 * on, so keys and values come from a's streams too. The part of a file that was quantised too hard stands out there. */
#include "base/alloc.h"
#include "base/fail.h"
#include "inspect/distribution.h"
#include "model/network.h"

#include <math.h>
#include <string.h>

enum { ROOM = 2 * KH_INSPECT_BLOCK, PER_LAYER = 3 };

typedef struct diffing {
    kh_inspector *a, *b;
    const kh_diff_options *o;
    kh_diff *out;
    int parallel, forced;
    size_t N, D, places;
    size_t position, rows;   /* of the block in flight */
    float *streams;          /* [places][ROOM][D] of a */
    float *last;             /* [ROOM][D] of b, behind the last layer */
    double *gaps;            /* [places][ROOM] */
    double *apart, *own;     /* [places] sums over positions */
    kh_distribution read[2]; /* of a and b */
} diffing;

/* Place 0 is the embeddings; then each layer's attention, feed-forward, and the layer itself in parallel blocks. */
static size_t place_of(const diffing *f, kh_point point, int layer)
{
    size_t at = 1 + (size_t)layer * PER_LAYER;
    switch (point) {
    case KH_POINT_RESID_PRE: return layer == 0 ? 0 : f->places;
    case KH_POINT_RESID_MID: return f->parallel ? f->places : at;
    case KH_POINT_ATTN_OUT_POST: return f->parallel ? at : f->places;
    case KH_POINT_MLP_OUT_POST: return f->parallel ? at + 1 : f->places;
    case KH_POINT_RESID_POST: return f->parallel ? at + 2 : at + 1;
    default: return f->places;
    }
}

static float *stream(const diffing *f, size_t place)
{
    return f->streams + place * ROOM * f->D;
}

static void begin_block(void *context, size_t position, size_t rows)
{
    diffing *f = context;
    f->position = position;
    f->rows = rows;
}

static void keep_point(void *context, kh_point point, int layer, float *data, size_t rows,
                       size_t width)
{
    const diffing *f = context;
    size_t place = place_of(f, point, layer);
    if (place < f->places) memcpy(stream(f, place), data, rows * width * sizeof *data);
}

static double distance(const float *a, const float *b, size_t n)
{
    double gap = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)b[i] - (double)a[i];
        gap += d * d;
        norm += (double)a[i] * (double)a[i];
    }
    return norm > 0 ? sqrt(gap / norm) : gap > 0 ? (double)INFINITY : 0;
}

static void compare_point(void *context, kh_point point, int layer, float *data, size_t rows,
                          size_t width)
{
    diffing *f = context;
    size_t place = place_of(f, point, layer);
    if (place < f->places)
        for (size_t r = 0; r < rows; r++) {
            double gap = distance(stream(f, place) + r * width, data + r * width, width);
            f->gaps[place * ROOM + r] = gap;
            if (f->forced) f->own[place] += gap;
            if (!f->forced) f->apart[place] += gap;
        }
    if (!f->forced && point == KH_POINT_RESID_POST && (size_t)layer + 1 == f->N)
        memcpy(f->last, data, rows * width * sizeof *data);
    if (!f->forced) return;
    /* the next part is given what a has here */
    size_t bytes = rows * width * sizeof *data;
    if (point == KH_POINT_RESID_MID && place < f->places) memcpy(data, stream(f, place), bytes);
    if (point == KH_POINT_RESID_PRE)
        memcpy(data, stream(f, layer ? place_of(f, KH_POINT_RESID_POST, layer - 1) : 0), bytes);
}

static uint64_t points_of(const diffing *f)
{
    uint64_t points = UINT64_C(1) << KH_POINT_RESID_PRE | UINT64_C(1) << KH_POINT_RESID_POST;
    if (!f->parallel) return points | UINT64_C(1) << KH_POINT_RESID_MID;
    return points | UINT64_C(1) << KH_POINT_ATTN_OUT_POST | UINT64_C(1) << KH_POINT_MLP_OUT_POST;
}

/* ---- a position ---- */

static kh_component part_at(const diffing *f, size_t place, size_t r)
{
    if (place == 0) return (kh_component){KH_COMPONENT_EMBED, -1, 0, 0};
    int layer = (int)((place - 1) / PER_LAYER);
    size_t which = (place - 1) % PER_LAYER, base = place - which;
    if (f->parallel && which == 2)
        which = f->gaps[(base + 1) * ROOM + r] > f->gaps[base * ROOM + r];
    return (kh_component){which ? KH_COMPONENT_MLP : KH_COMPONENT_ATTENTION, layer, 0, 0};
}

/* 1: its gap is that of streams. */
static int is_stream(const diffing *f, size_t place)
{
    size_t which = place ? (place - 1) % PER_LAYER : 0;
    return place == 0 || (f->parallel ? which == 2 : which < 2);
}

static void find_parting(const diffing *f, size_t r, kh_diff_row *row)
{
    double threshold = f->o->threshold > 0 ? f->o->threshold : 0.05;
    for (size_t p = 0; p < f->places; p++) {
        if (!is_stream(f, p)) continue;
        row->last = f->gaps[p * ROOM + r];
        if (row->parted || !(row->last > threshold)) continue;
        row->parted = 1;
        row->part = part_at(f, p, r);
        row->distance = row->last;
    }
}

static kh_status say_row(diffing *f, size_t r, size_t at)
{
    const kh_kern *kern = f->a->run.kern;
    size_t V = (size_t)f->a->model->d.V;
    const float *a = f->read[0].logits + at * V, *b = f->read[1].logits + at * V;
    float *spare = f->read[0].spare;
    kh_diff_row row = {.position = f->position + r};
    double a_z = kh_row_measure(kern, spare, a, V).log_z, b_z;
    b_z = kh_row_measure(kern, spare, b, V).log_z;
    kh_row_top(&row.a, 1, a, a_z, V);
    kh_row_top(&row.b, 1, b, b_z, V);
    row.kl = kh_row_kl(kern, spare, a, a_z, b, b_z, V);
    find_parting(f, r, &row);
    kh_diff *out = f->out;
    out->mean_kl += row.kl / (double)f->a->count;
    if (row.kl > out->most_kl) {
        out->most_kl = row.kl;
        out->most_position = row.position;
    }
    if (row.parted && !out->parted) {
        out->parted = 1;
        out->first = row;
    }
    return f->o->row ? f->o->row(f->o->context, &row) : KH_OK;
}

static kh_status say_block(diffing *f)
{
    size_t per = f->read[0].rows < f->read[1].rows ? f->read[0].rows : f->read[1].rows, n;
    const float *last = stream(f, place_of(f, KH_POINT_RESID_POST, (int)f->N - 1));
    for (size_t r = 0; r < f->rows; r += n) {
        n = f->rows - r < per ? f->rows - r : per;
        memcpy(f->read[0].x, last + r * f->D, n * f->D * sizeof *last);
        memcpy(f->read[1].x, f->last + r * f->D, n * f->D * sizeof *last);
        for (int side = 0; side < 2; side++) KH_TRY(kh_distribution_run(&f->read[side], n, 1));
        for (size_t i = 0; i < n; i++) KH_TRY(say_row(f, r + i, i));
    }
    return KH_OK;
}

/* ---- the readings ---- */

static kh_status read_both(diffing *f)
{
    kh_probe keep = {f, points_of(f), keep_point, NULL},
             compare = {f, points_of(f), compare_point, NULL};
    const kh_watch of_a = {&keep, begin_block, f, kh_inspector_reading(f->a), 0, NULL};
    const kh_watch of_b = {&compare, NULL, f, kh_inspector_reading(f->b), 0, NULL};
    for (size_t at = 0; at < f->a->count; at = f->position + f->rows) {
        KH_TRY(kh_inspector_look(f->a, at, 1, &of_a));
        KH_TRY(kh_inspector_look(f->b, at, 1, &of_b));
        KH_TRY(say_block(f));
    }
    return KH_OK;
}

static kh_status read_forced(diffing *f)
{
    kh_probe keep = {f, points_of(f), keep_point, NULL},
             compare = {f, points_of(f), compare_point, NULL};
    const kh_watch of_a = {&keep, begin_block, f, kh_inspector_reading(f->a), 0, NULL};
    const kh_watch of_b = {&compare, NULL, f, kh_inspector_reading(f->b), 1, NULL};
    f->forced = 1;
    KH_TRY(kh_inspector_follow(f->b, f->b->look, of_b.reading, 0));
    for (size_t at = 0; at < f->a->count; at = f->position + f->rows) {
        KH_TRY(kh_inspector_look(f->a, at, 1, &of_a));
        for (size_t end = f->position + f->rows; kh_session_length(f->b->look) < end;)
            KH_TRY(kh_inspector_replay_on(f->b, end, &of_b));
    }
    return KH_OK;
}

static kh_status list_parts(diffing *f)
{
    double n = (double)f->a->count;
    KH_TRY(kh_new(&f->out->parts, 1 + 2 * f->N, sizeof *f->out->parts, "parts"));
    for (size_t p = 0; p < f->places; p++) {
        size_t which = p ? (p - 1) % PER_LAYER : 0;
        if (p && which == 2) continue;
        kh_diff_part *part = &f->out->parts[f->out->count++];
        *part = (kh_diff_part){.apart = f->apart[p] / n, .own = f->own[p] / n};
        part->part = p ? (kh_component){which ? KH_COMPONENT_MLP : KH_COMPONENT_ATTENTION,
                                        (int)((p - 1) / PER_LAYER), 0, 0}
                       : (kh_component){KH_COMPONENT_EMBED, -1, 0, 0};
        if (f->o->no_own) part->own = (double)NAN;
    }
    return KH_OK;
}

static kh_status check(const kh_inspector *a, const kh_inspector *b)
{
    const kh_description *x = &a->model->d, *y = &b->model->d;
    if (a == b) KH_FAIL(KH_ERR_ARGUMENT, "two inspectors are expected");
    if (x->N != y->N || x->D != y->D || x->V != y->V || x->form != y->form)
        KH_FAIL(
            KH_ERR_ARGUMENT,
            "the models have %d and %d layers of width %d and %d, and %d and %d tokens: as many "
            "are expected",
            x->N, y->N, x->D, y->D, x->V, y->V);
    KH_TRY(kh_inspector_check_position(a, 0));
    KH_TRY(kh_inspector_check_position(b, 0));
    if (a->count != b->count)
        KH_FAIL(KH_ERR_ARGUMENT, "the texts have %zu and %zu tokens: as many are expected",
                a->count, b->count);
    size_t least = a->root->engine->batch < b->root->engine->batch ? a->root->engine->batch
                                                                   : b->root->engine->batch;
    if (least < ROOM && a->count > least)
        KH_FAIL(KH_ERR_ARGUMENT, "batches of %zu rows: at least %d are expected", least, ROOM);
    return KH_OK;
}

static kh_status open_memory(diffing *f)
{
    f->places = 1 + PER_LAYER * f->N;
    KH_TRY(kh_distribution_open(&f->read[0], f->a, ROOM, 1));
    KH_TRY(kh_distribution_open(&f->read[1], f->b, ROOM, 1));
    KH_TRY(kh_new(&f->streams, f->places * ROOM * f->D, sizeof *f->streams, "streams"));
    KH_TRY(kh_new(&f->last, ROOM * f->D, sizeof *f->last, "streams"));
    KH_TRY(kh_new(&f->gaps, f->places * ROOM, sizeof *f->gaps, "distances"));
    KH_TRY(kh_new(&f->apart, f->places, sizeof *f->apart, "distances"));
    return kh_new(&f->own, f->places, sizeof *f->own, "distances");
}

kh_status kh_diff_open(kh_diff *out, kh_inspector *a, kh_inspector *b,
                       const kh_diff_options *options)
{
    diffing f = {.a = a, .b = b, .o = options, .out = out};
    *out = (kh_diff){0};
    KH_TRY(check(a, b));
    atomic_store(&a->stop, 0);
    atomic_store(&b->stop, 0);
    f.parallel = a->model->d.form == KH_BLOCK_PARALLEL;
    f.N = (size_t)a->model->d.N;
    f.D = (size_t)a->model->d.D;
    kh_status status = open_memory(&f);
    if (status == KH_OK) status = read_both(&f);
    if (status == KH_OK && !options->no_own) status = read_forced(&f);
    if (status == KH_OK) status = list_parts(&f);
    for (int side = 0; side < 2; side++) kh_distribution_close(&f.read[side]);
    kh_free(f.streams);
    kh_free(f.last);
    kh_free(f.gaps);
    kh_free(f.apart);
    kh_free(f.own);
    if (status != KH_OK) kh_diff_free(out);
    return status;
}

void kh_diff_free(kh_diff *diff)
{
    kh_free(diff->parts);
    *diff = (kh_diff){0};
}
