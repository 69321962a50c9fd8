/* The logit lens: what the model would predict if its residual stream went to the output head at once.
 *
 *     cell(position, layer, tap) = softmax(cap(W_head norm(stream)))
 *
 * The final norm has each tap's own scale (one that was kept from the last layer gives another distribution), and
 * soft-cap and scale of logits are the model's. A position's own distribution is the stream behind the last layer:
 * the first row of its group, which every cell's KL is measured against.
 *
 *     a block's streams   [layers][taps][32 rows][D]      kept while the block is looked at
 *     a product           (1 + cells) rows of some positions, behind one another -> logits [rows][V]
 *     a row               measures, ends, tracked tokens; one item of a parallel loop; its own place in `cells`
 *
 * What a cell costs is its share of the product, 2 D V operations; unpacking the head is shared by some hundred rows.
 * nostalgebraist's lens (2020); taps before, between and after as Tufanov et al. (2024) draw them. */
#include "base/alloc.h"
#include "base/fail.h"
#include "inspect/distribution.h"
#include "inspect/precise.h"
#include "model/network.h"

#include <math.h>
#include <string.h>

enum { TAPS = 3, MOST_TRACKED = 64 };

const char *kh_tap_name(kh_tap tap)
{
    static const char *const names[TAPS] = {"before", "between", "after"};
    return (unsigned)tap < TAPS ? names[tap] : NULL;
}

static const kh_point tap_points[TAPS] = {KH_POINT_RESID_PRE, KH_POINT_RESID_MID,
                                          KH_POINT_RESID_POST};

typedef struct lens {
    kh_inspector *inspector;
    kh_lens_options o; /* with numbers in place of zeros */
    kh_distribution readout;
    size_t cells;                /* of a position */
    float *streams;              /* [layers][TAPS][BLOCK + rest][D], and the last layer's behind */
    float *own;                  /* [rows][D] behind the last layer */
    size_t position, rows, room; /* of the block in flight */
    kh_row_measures *measures;
    double *next;          /* of the own rows of a product */
    kh_lens_cell *out;     /* [rows of a product] */
    kh_lens_token *tokens; /* [rows of a product][top + bottom + tracked] */
} lens;

static int tap_count(unsigned taps)
{
    return (int)(taps & 1) + (int)(taps >> 1 & 1) + (int)(taps >> 2 & 1);
}

static kh_status complete(const kh_inspector *i, kh_lens_options *o)
{
    const kh_description *d = &i->model->d;
    KH_TRY(kh_inspector_check_position(i, o->first));
    if (o->count == 0) o->count = i->count - o->first;
    KH_TRY(kh_inspector_check_position(i, o->first + o->count - 1));
    if (o->layers == 0) o->layers = d->N - o->first_layer;
    if (o->first_layer < 0 || o->layers < 1 || o->layers > d->N - o->first_layer)
        KH_FAIL(KH_ERR_ARGUMENT, "layers %d to %d: the model has layers 0 to %d", o->first_layer,
                o->first_layer + o->layers - 1, d->N - 1);
    if (o->taps == 0) o->taps = 1u << KH_TAP_AFTER;
    if (o->taps >> TAPS) KH_FAIL(KH_ERR_ARGUMENT, "taps are before, between and after");
    if (o->taps >> KH_TAP_BETWEEN & 1 && d->form == KH_BLOCK_PARALLEL)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "attention and feed-forward of this model read the same stream: "
                "there is no tap in between");
    if (o->top == 0) o->top = 10;
    int most = d->V < KH_DISTRIBUTION_TOP ? d->V : KH_DISTRIBUTION_TOP;
    if (o->top < 0 || o->bottom < 0 || o->top > most || o->bottom > most)
        KH_FAIL(KH_ERR_ARGUMENT, "tokens of a cell: at most %d of each end", most);
    if (o->tracked_count > MOST_TRACKED)
        KH_FAIL(KH_ERR_ARGUMENT, "%zu tracked tokens: at most %d", o->tracked_count, MOST_TRACKED);
    for (size_t t = 0; t < o->tracked_count; t++)
        KH_TRY(kh_inspector_check_token(i, o->tracked[t]));
    return KH_OK;
}

kh_status kh_lens_cost(const kh_inspector *i, const kh_lens_options *options, kh_lens_need *out)
{
    const kh_description *d = &i->model->d;
    kh_lens_options o = *options;
    size_t begin, end, first = 0, last = 0;
    *out = (kh_lens_need){0};
    KH_TRY(complete(i, &o));
    kh_inspector_block(i, o.first, &first, &end);
    kh_inspector_block(i, o.first + o.count - 1, &begin, &last);
    size_t per = (size_t)o.layers * (size_t)tap_count(o.taps);
    double head = 2.0 * d->D * d->V,
           rest = 2.0 * ((double)i->model->w.parameters - (double)d->D * d->V);
    out->cells = o.count * per;
    out->rows = last - first;
    out->operations = (double)(o.count * (per + 1)) * head + (double)out->rows * rest;
    out->bytes = (uint64_t)(per + 1) * (KH_INSPECT_BLOCK + 4) * (uint64_t)d->D * sizeof(float) +
                 (uint64_t)KH_DISTRIBUTION_ROWS * ((uint64_t)d->D + (uint64_t)d->V) * sizeof(float);
    return KH_OK;
}

/* ---- a block's streams ---- */

static void begin_block(void *context, size_t position, size_t rows)
{
    lens *l = context;
    l->position = position;
    l->rows = rows;
}

static float *stream(const lens *l, int layer, int tap)
{
    size_t at = (size_t)(layer - l->o.first_layer) * TAPS + (size_t)tap;
    return l->streams + at * l->room * (size_t)l->inspector->model->d.D;
}

static void keep(void *context, kh_point point, int layer, float *data, size_t rows, size_t width)
{
    lens *l = context;
    size_t bytes = rows * width * sizeof *data;
    if (point == KH_POINT_RESID_POST && layer == l->inspector->model->d.N - 1)
        memcpy(l->own, data, bytes);
    if (layer < l->o.first_layer || layer >= l->o.first_layer + l->o.layers) return;
    for (int tap = 0; tap < TAPS; tap++)
        if (l->o.taps >> tap & 1 && tap_points[tap] == point)
            memcpy(stream(l, layer, tap), data, bytes);
}

/* ---- rows of a product ---- */

typedef struct group {
    lens *l;
    size_t rows;  /* of all positions, each 1 + cells */
    size_t first; /* position */
} group;

/* A position's own distribution. */
static void own_item(void *context, size_t item, int worker)
{
    const group *g = context;
    lens *l = g->l;
    size_t V = (size_t)l->inspector->model->d.V, r = item * (1 + l->cells);
    const kh_kern *kern = l->inspector->run.kern;
    l->measures[r] = kh_row_measure(kern, l->readout.spare + (size_t)worker * V,
                                    l->readout.logits + r * V, V);
    size_t at = g->first + item + 1;
    const int32_t *ids = l->inspector->ids;
    l->next[r] = at < l->inspector->count
                     ? (double)l->readout.logits[r * V + (size_t)ids[at]] - l->measures[r].log_z
                     : (double)NAN;
}

static void cell_item(void *context, size_t item, int worker)
{
    const group *g = context;
    lens *l = g->l;
    size_t V = (size_t)l->inspector->model->d.V, own = item / l->cells * (1 + l->cells);
    size_t r = own + 1 + item % l->cells;
    const kh_kern *kern = l->inspector->run.kern;
    const float *logits = l->readout.logits + r * V, *p = l->readout.logits + own * V;
    float *spare = l->readout.spare + (size_t)worker * V;
    kh_lens_cell *c = &l->out[r];
    kh_row_measures m = kh_row_measure(kern, spare, logits, V);
    c->entropy = m.entropy;
    c->next = l->next[own];
    c->kl = kh_row_kl(kern, spare, p, l->measures[own].log_z, logits, m.log_z, V);
    kh_lens_token *to = l->tokens +
                        r * ((size_t)l->o.top + (size_t)l->o.bottom + l->o.tracked_count);
    c->top = to;
    kh_row_top(to, c->top_count, logits, m.log_z, V);
    to += c->top_count;
    c->bottom = to;
    kh_row_bottom(to, c->bottom_count, logits, m.log_z, V, spare);
    to += c->bottom_count;
    c->tracked = to;
    for (size_t t = 0; t < c->tracked_count; t++)
        to[t] = kh_row_token(logits, m.log_z, V, l->o.tracked[t]);
}

/* The rows of one position, from row `at` of the product on. */
static void lay_out(lens *l, size_t row, size_t at)
{
    size_t D = (size_t)l->inspector->model->d.D;
    memcpy(l->readout.x + at * D, l->own + row * D, D * sizeof *l->own);
    for (int layer = l->o.first_layer; layer < l->o.first_layer + l->o.layers; layer++)
        for (int tap = 0; tap < TAPS; tap++) {
            if (!(l->o.taps >> tap & 1)) continue;
            const float *x = stream(l, layer, tap) + row * D;
            at++;
            memcpy(l->readout.x + at * D, x, D * sizeof *x);
            l->out[at] = (kh_lens_cell){.position = l->position + row,
                                        .layer = layer,
                                        .tap = (kh_tap)tap,
                                        .top_count = (size_t)l->o.top,
                                        .bottom_count = (size_t)l->o.bottom,
                                        .tracked_count = l->o.tracked_count,
                                        .norm = kh_length_of(x, D)};
        }
}

/* Positions [first, first + count) of the block in flight. */
static kh_status say(lens *l, size_t first, size_t count)
{
    size_t per = 1 + l->cells;
    for (size_t p = 0; p < count; p++) lay_out(l, first - l->position + p, p * per);
    group g = {l, count * per, first};
    KH_TRY(kh_distribution_run(&l->readout, g.rows, 1));
    const kh_pool *pool = l->inspector->run.pool;
    kh_parallel_for(pool, count, own_item, &g);
    kh_parallel_for(pool, count * l->cells, cell_item, &g);
    for (size_t r = 0; r < g.rows; r++)
        if (r % per != 0) KH_TRY(l->o.cell(l->o.context, &l->out[r]));
    return KH_OK;
}

static kh_status look(lens *l)
{
    kh_inspector *i = l->inspector;
    kh_probe probe = {l, UINT64_C(1) << KH_POINT_RESID_POST, keep, NULL};
    for (int tap = 0; tap < TAPS; tap++)
        if (l->o.taps >> tap & 1) probe.points |= UINT64_C(1) << tap_points[tap];
    const kh_watch watch = {&probe, begin_block, l, kh_inspector_reading(i), 0, NULL};
    size_t last = l->o.first + l->o.count, per = l->readout.rows / (1 + l->cells), n;
    for (size_t at = l->o.first; at < last;) {
        KH_TRY(kh_inspector_look(i, at, 1, &watch));
        size_t end = l->position + l->rows < last ? l->position + l->rows : last;
        for (; at < end; at += n) {
            n = end - at < per ? end - at : per;
            KH_TRY(say(l, at, n));
        }
    }
    return KH_OK;
}

static kh_status open_memory(lens *l)
{
    const kh_description *d = &l->inspector->model->d;
    size_t D = (size_t)d->D, each = (size_t)l->o.top + (size_t)l->o.bottom + l->o.tracked_count;
    l->cells = (size_t)l->o.layers * (size_t)tap_count(l->o.taps);
    l->room = KH_INSPECT_BLOCK * 2;
    KH_TRY(
        kh_distribution_open(&l->readout, l->inspector, l->o.count * (1 + l->cells), 1 + l->cells));
    if (l->readout.rows < 1 + l->cells)
        KH_FAIL(KH_ERR_ARGUMENT,
                "%zu cells of a position are more than the %zu that are computed at "
                "once: ask for fewer layers or taps",
                l->cells, l->readout.rows - 1);
    KH_TRY(kh_new(&l->streams, (size_t)l->o.layers * TAPS * l->room * D, sizeof *l->streams,
                  "the residual streams of a block"));
    KH_TRY(kh_new(&l->own, l->room * D, sizeof *l->own, "the residual streams of a block"));
    KH_TRY(kh_new(&l->measures, l->readout.rows, sizeof *l->measures, "cells"));
    KH_TRY(kh_new(&l->next, l->readout.rows, sizeof *l->next, "cells"));
    KH_TRY(kh_new(&l->out, l->readout.rows, sizeof *l->out, "cells"));
    return kh_new(&l->tokens, l->readout.rows * each, sizeof *l->tokens, "tokens of cells");
}

kh_status kh_lens(kh_inspector *inspector, const kh_lens_options *options)
{
    lens l = {.inspector = inspector, .o = *options};
    atomic_store(&inspector->stop, 0);
    KH_TRY(complete(inspector, &l.o));
    kh_status status = open_memory(&l);
    if (status == KH_OK) status = look(&l);
    kh_free(l.tokens);
    kh_free(l.out);
    kh_free(l.next);
    kh_free(l.measures);
    kh_free(l.own);
    kh_free(l.streams);
    kh_distribution_close(&l.readout);
    return status;
}
