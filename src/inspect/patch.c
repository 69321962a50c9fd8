/* Activation patching: which activation of one prompt makes another prompt answer like it.
 *
 *     clean      The  tower in  Paris  is in     metric m = logit(a) - logit(b) behind the last position
 *     corrupted  The  tower in  Rome   is in     share  s = (m - m_corrupted) / (m_clean - m_corrupted)
 *                               ^ first
 *
 * The clean run is read once for every kind of activation, and what it has from `first` on is kept: [layers][rows]
 * [width]. A cell is a fork of the corrupted run in front of the patched position, and reads from there under an
 * observer that overwrites rows: what lies before a change cannot feel it. So a grid over n positions reads n (n + 1) / 2
 * rows a layer, where n counts from the first difference, instead of n times the whole text; and up to KH_BRANCHES cells
 * share a pass (branches.c).
 *
 * Paths (Wang et al. 2022; Goldowsky-Dill et al. 2023): with z of all heads held at the corrupted run, a sender's clean z
 * reaches others through the residual stream and the feed-forward layers alone. The direct path to the logits then needs
 * the last row only. Towards a head, its input is recorded as it would be, and a second run has nothing but that input
 * changed: all of it by way of the head's z; queries, keys or values alone by way of theirs, with the other heads
 * that share the same keys held.
 *
 * A feed-forward layer receives like a head: its input is what changes.
 *
 * Attribution patching (Nanda 2023; Syed, Rager and Conmy 2023): the metric's derivative by every activation of the
 * corrupted run comes from one way back (gradient.c), and a cell is its product with clean - corrupted. Exact where
 * the metric is linear between both, wrong by what bends: normalisation, softmax, gates. Largest where a whole stream is
 * exchanged, small for heads. What the two runs differ by is kept for all asked kinds at once, [layers][rows][width]
 * each, and no derivative is. */
#include "base/alloc.h"
#include "base/fail.h"
#include "inspect/inspector.h"
#include "model/network.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const kh_component_kind swept[] = {KH_COMPONENT_PRE,  KH_COMPONENT_MID,
                                          KH_COMPONENT_POST, KH_COMPONENT_ATTENTION,
                                          KH_COMPONENT_MLP,  KH_COMPONENT_HEAD};
enum { SWEPT = sizeof swept / sizeof *swept };

/* ---- two prompts ---- */

static void name_differences(char *text, size_t size, const int32_t *a, const int32_t *b, size_t n)
{
    size_t named = 0, used = 0;
    text[0] = 0;
    for (size_t i = 0; i < n && named < 4; i++) {
        if (a[i] == b[i]) continue;
        used += (size_t)snprintf(text + used, size - used, "%s%zu", named ? ", " : "", i);
        named++;
    }
    if (!named) snprintf(text, size, "%zu", n);
}

static kh_status align(const kh_inspector *i, const kh_patch_options *o, kh_patch *out)
{
    size_t least = o->count < i->count ? o->count : i->count;
    KH_TRY(kh_inspector_check_position(i, 0));
    if (o->count != i->count) {
        char where[100];
        name_differences(where, sizeof where, o->clean, i->ids, least);
        KH_FAIL(KH_ERR_ARGUMENT,
                "the clean prompt has %zu tokens and the corrupted one %zu: as many are expected; "
                "they differ first at positions %s",
                o->count, i->count, where);
    }
    out->first = least;
    for (size_t p = least; p-- > 0;) {
        KH_TRY(kh_inspector_check_token(i, o->clean[p]));
        if (o->clean[p] == i->ids[p]) continue;
        out->first = p;
        out->differing++;
    }
    if (out->differing == 0)
        KH_FAIL(KH_ERR_ARGUMENT, "the clean prompt and the corrupted one are the same");
    return KH_OK;
}

/* ---- options ---- */

static kh_status complete_layers(const kh_model *m, kh_patch_options *o)
{
    if (o->layers == 0) o->layers = m->d.N - o->first_layer;
    if (o->first_layer < 0 || o->layers < 1 || o->layers > m->d.N - o->first_layer)
        KH_FAIL(KH_ERR_ARGUMENT, "layers %d to %d: the model has layers 0 to %d", o->first_layer,
                o->first_layer + o->layers - 1, m->d.N - 1);
    return KH_OK;
}

static kh_status complete(const kh_inspector *i, kh_patch_options *o)
{
    unsigned known = 0;
    for (int k = 0; k < SWEPT; k++) known |= 1u << swept[k];
    if (o->kinds == 0) o->kinds = 1u << KH_COMPONENT_PRE;
    if (o->kinds & ~known)
        KH_FAIL(KH_ERR_ARGUMENT,
                "a sweep goes over streams, attention, feed-forward layers or heads");
    if (o->kinds >> KH_COMPONENT_MID & 1 && i->model->d.form == KH_BLOCK_PARALLEL)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "attention and feed-forward of this model read the same stream: "
                "there is none in between");
    if (o->position >= 0) KH_TRY(kh_inspector_check_position(i, (size_t)o->position));
    KH_TRY(kh_inspector_check_token(i, o->a));
    if (o->b >= 0) KH_TRY(kh_inspector_check_token(i, o->b));
    return complete_layers(i->model, o);
}

/* Of a point's row; heads share one. */
static size_t width_of(const kh_model *m, kh_component_kind kind)
{
    return kind == KH_COMPONENT_HEAD ? (size_t)m->d.H * (size_t)m->d.E : (size_t)m->d.D;
}

/* Where a run with a patch at `position` begins. */
static size_t begin_at(const kh_patch *p, int32_t position)
{
    return position < 0 || (size_t)position < p->first ? p->first : (size_t)position;
}

/* Of an estimate the differences of all kinds are there at once, and the values of all cells. */
static void count_estimate(const kh_inspector *i, const kh_patch_options *o, size_t widths,
                           kh_patch *out)
{
    size_t n = i->count - out->first, layers = (size_t)o->layers;
    if (!o->estimate) return;
    out->runs = 1;
    out->rows = 3 * i->count;
    out->bytes = (uint64_t)layers * n * widths * sizeof(float) + out->cells * sizeof(double) +
                 kh_inspector_gradient_bytes(i);
}

static void count_cells(const kh_inspector *i, const kh_patch_options *o, kh_patch *out)
{
    size_t n = i->count - out->first, layers = (size_t)o->layers, widest = 0, widths = 0;
    for (int k = 0; k < SWEPT; k++) {
        if (!(o->kinds >> swept[k] & 1)) continue;
        size_t width = width_of(i->model, swept[k]);
        int heads = swept[k] == KH_COMPONENT_HEAD;
        size_t cells = layers * (heads ? (size_t)i->model->d.H : n);
        out->cells += cells;
        out->rows += heads ? cells * (i->count - begin_at(out, o->position))
                           : layers * n * (n + 1) / 2;
        if (width > widest) widest = width;
        widths += width;
    }
    out->runs = out->cells;
    out->bytes = (uint64_t)layers * n * widest * sizeof(float);
    count_estimate(i, o, widths, out);
}

kh_status kh_patch_cost(const kh_inspector *i, const kh_patch_options *options, kh_patch *out)
{
    kh_patch_options o = *options;
    *out = (kh_patch){0};
    KH_TRY(align(i, &o, out));
    KH_TRY(complete(i, &o));
    count_cells(i, &o, out);
    return KH_OK;
}

/* ---- recording ---- */

/* Rows from `first` on of one point in all asked layers. */
typedef struct record {
    int first_layer, layers;
    size_t first, rows, width;
    size_t position; /* of the block in flight */
    float *data;     /* [layers][rows][width] */
} record;

static float *recorded(const record *r, int layer, size_t position)
{
    size_t at = (size_t)(layer - r->first_layer) * r->rows + (position - r->first);
    return r->data + at * r->width;
}

static void record_block(void *context, size_t position, size_t rows)
{
    (void)rows;
    ((record *)context)->position = position;
}

static void record_point(void *context, kh_point point, int layer, float *data, size_t rows,
                         size_t width)
{
    record *r = context;
    (void)point;
    if (layer < r->first_layer || layer >= r->first_layer + r->layers) return;
    for (size_t i = 0; i < rows; i++)
        if (r->position + i >= r->first)
            memcpy(recorded(r, layer, r->position + i), data + i * width, width * sizeof *data);
}

static kh_status record_text(kh_inspector *i, record *r, kh_point point)
{
    size_t size = (size_t)r->layers * r->rows;
    if (!r->data) KH_TRY(kh_new(&r->data, size * r->width, sizeof *r->data, "activations"));
    kh_probe probe = {r, UINT64_C(1) << point, record_point, NULL};
    const kh_watch watch = {&probe, record_block, r, kh_inspector_reading(i), 0, NULL};
    return kh_inspector_look(i, r->first, r->rows, &watch);
}

/* ---- texts that take turns ---- */

typedef struct sweep {
    kh_inspector *inspector;
    kh_patch_options o; /* with numbers in place of zeros */
    kh_patch *out;
    int32_t *corrupted;      /* [count] */
    record clean, held;      /* held: z of the corrupted run */
    struct branch *branches; /* [KH_BRANCHES] of the pass in flight, or to come */
    size_t waiting;
} sweep;

/* A cell on its way. */
typedef struct branch {
    sweep *s;
    const struct path *path; /* NULL: of a sweep */
    size_t position;         /* of the first row in flight */
    kh_component part;       /* that is written, or the sender */
    int32_t at;              /* -1: at every position */
    record arrived;          /* of a path: what the receiver would get, one layer */
} branch;

/* The text changes hands; edits stay what they are. */
static kh_status take_text(sweep *s, const int32_t *ids)
{
    kh_inspector *i = s->inspector;
    size_t count = i->edited ? i->edits.count : 0;
    kh_edit *edits = NULL;
    KH_TRY(kh_new(&edits, count + 1, sizeof *edits, "edits"));
    for (size_t e = 0; e < count; e++) {
        const kh_edit_work *w = &i->edits.works[e];
        edits[e] = w->edit;
        if (edits[e].direction.kind == KH_DIRECTION_VECTOR) edits[e].direction.data = w->direction;
        if (edits[e].second.kind == KH_DIRECTION_VECTOR) edits[e].second.data = w->second;
    }
    kh_status status = kh_inspector_set(i, ids, s->o.count, i->prompt, edits, count);
    kh_free(edits);
    return status;
}

static double metric(const sweep *s, const float *logits)
{
    return (double)logits[s->o.a] - (s->o.b >= 0 ? (double)logits[s->o.b] : 0);
}

static kh_status run_plain(const sweep *s, double *value)
{
    kh_inspector *i = s->inspector;
    const kh_watch watch = {.reading = kh_inspector_reading(i), .changes = 1};
    KH_TRY(kh_inspector_replay(i, s->out->first, i->count, &watch));
    *value = metric(s, kh_inspector_replayed(i));
    return KH_OK;
}

/* Both metrics, each from a run like those of the cells. */
static kh_status measure(sweep *s)
{
    KH_TRY(take_text(s, s->o.clean));
    KH_TRY(run_plain(s, &s->out->clean));
    KH_TRY(take_text(s, s->corrupted));
    return run_plain(s, &s->out->corrupted);
}

static kh_status record_clean(sweep *s, kh_point point, size_t width)
{
    kh_free(s->clean.data);
    s->clean = (record){.first_layer = s->o.first_layer,
                        .layers = s->o.layers,
                        .first = s->out->first,
                        .rows = s->inspector->count - s->out->first,
                        .width = width};
    KH_TRY(take_text(s, s->o.clean));
    KH_TRY(record_text(s->inspector, &s->clean, point));
    return take_text(s, s->corrupted);
}

static kh_status say(const branch *b, double value)
{
    const sweep *s = b->s;
    const kh_patch *p = s->out;
    const kh_patch_cell cell = {b->part, b->at, value,
                                (value - p->corrupted) / (p->clean - p->corrupted)};
    return s->o.cell(s->o.context, &cell);
}

/* ---- passes over many cells ---- */

static void begin_branch(void *context, size_t position, size_t rows)
{
    (void)rows;
    ((branch *)context)->position = position;
}

/* One pass from `from` (negative: where each cell begins) under one observer for each. */
static kh_status pass(sweep *s, kh_probe *probes, int64_t from)
{
    kh_watch watches[KH_BRANCHES];
    size_t begin[KH_BRANCHES];
    for (size_t b = 0; b < s->waiting; b++) {
        branch *one = &s->branches[b];
        probes[b].context = one;
        begin[b] = from < 0 ? begin_at(s->out, one->at) : (size_t)from;
        watches[b] = (kh_watch){&probes[b], begin_branch, one, kh_inspector_reading(s->inspector),
                                1,          NULL};
    }
    return kh_inspector_branch(s->inspector, begin, watches, s->waiting);
}

static kh_status say_all(sweep *s)
{
    size_t count = s->waiting;
    s->waiting = 0;
    for (size_t b = 0; b < count; b++)
        KH_TRY(say(&s->branches[b], metric(s, kh_inspector_branched(s->inspector, b))));
    return KH_OK;
}

/* ---- the sweep ---- */

static void write_point(void *context, kh_point point, int layer, float *data, size_t rows,
                        size_t width)
{
    const branch *b = context;
    const sweep *s = b->s;
    size_t from, n = kh_component_width(s->inspector->model, &b->part, &from);
    (void)point;
    if (layer != b->part.layer) return;
    for (size_t r = 0; r < rows; r++) {
        size_t position = b->position + r;
        if (position < s->out->first || (b->at >= 0 && position != (size_t)b->at)) continue;
        memcpy(data + r * width + from, recorded(&s->clean, layer, position) + from,
               n * sizeof *data);
    }
}

static kh_status run_cells(sweep *s)
{
    kh_probe probes[KH_BRANCHES];
    if (s->waiting == 0) return KH_OK;
    for (size_t b = 0; b < s->waiting; b++) {
        kh_point point = kh_component_point(s->branches[b].part.kind);
        probes[b] = (kh_probe){NULL, UINT64_C(1) << point, write_point, NULL};
    }
    KH_TRY(pass(s, probes, -1));
    return say_all(s);
}

static kh_status sweep_kind(sweep *s, kh_component_kind kind)
{
    const kh_inspector *i = s->inspector;
    const kh_model *m = i->model;
    size_t heads = kind == KH_COMPONENT_HEAD ? (size_t)m->d.H : 0;
    size_t n = heads ? heads : i->count - s->out->first;
    size_t room = kh_inspector_branch_room(i, i->count - s->out->first);
    KH_TRY(record_clean(s, kh_component_point(kind), width_of(m, kind)));
    for (int l = s->o.first_layer; l < s->o.first_layer + s->o.layers; l++)
        for (size_t c = 0; c < n; c++) {
            int32_t at = heads ? (s->o.position < 0 ? -1 : s->o.position)
                               : (int32_t)(s->out->first + c);
            s->branches[s->waiting++] =
                (branch){.s = s, .part = {kind, l, heads ? (int)c : 0, 0}, .at = at};
            if (s->waiting == room) KH_TRY(run_cells(s));
        }
    return run_cells(s);
}

static kh_status sweep_all(sweep *s)
{
    KH_TRY(measure(s));
    for (int k = 0; k < SWEPT; k++)
        if (s->o.kinds >> swept[k] & 1) KH_TRY(sweep_kind(s, swept[k]));
    return KH_OK;
}

/* ---- estimates ---- */

typedef struct estimates {
    sweep *s;
    record difference[SWEPT]; /* clean - corrupted; data NULL: not asked for */
    double *values[SWEPT];    /* [layers][cells of a layer] */
    float sign;               /* of the run that is being read */
} estimates;

/* Both loops of an estimate: rows at a point, of which those from the first difference on count. */
static int kind_at(const estimates *e, kh_point point, int layer)
{
    const kh_patch_options *o = &e->s->o;
    if (layer < o->first_layer || layer >= o->first_layer + o->layers) return SWEPT;
    int k = 0;
    while (k < SWEPT && !(e->difference[k].data && kh_component_point(swept[k]) == point)) k++;
    return k;
}

static void begin_difference(void *context, size_t position, size_t rows)
{
    estimates *e = context;
    (void)rows;
    for (int k = 0; k < SWEPT; k++) e->difference[k].position = position;
}

static void add_difference(void *context, kh_point point, int layer, float *data, size_t rows,
                           size_t width)
{
    const estimates *e = context;
    int k = kind_at(e, point, layer);
    if (k == SWEPT) return;
    const record *r = &e->difference[k];
    for (size_t t = 0; t < rows; t++) {
        if (r->position + t < r->first) continue;
        float *to = recorded(r, layer, r->position + t);
        for (size_t c = 0; c < width; c++) to[c] += e->sign * data[t * width + c];
    }
}

static double product(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t c = 0; c < n; c++) sum += (double)a[c] * (double)b[c];
    return sum;
}

/* A stream's cell is a row, a head's its share of the asked rows. */
static void add_products(void *context, kh_point point, int layer, float *data, size_t rows,
                         size_t width)
{
    const estimates *e = context;
    const sweep *s = e->s;
    int k = kind_at(e, point, layer);
    if (k == SWEPT) return;
    const record *r = &e->difference[k];
    size_t heads = swept[k] == KH_COMPONENT_HEAD ? (size_t)s->inspector->model->d.H : 0;
    size_t cells = heads ? heads : r->rows, n = heads ? width / heads : width;
    double *values = e->values[k] + (size_t)(layer - r->first_layer) * cells;
    for (size_t p = r->first; p < rows; p++) {
        const float *slope = data + p * width, *step = recorded(r, layer, p);
        if (heads && s->o.position >= 0 && p != (size_t)s->o.position) continue;
        for (size_t c = 0; c < (heads ? heads : 1); c++)
            values[heads ? c : p - r->first] += product(slope + c * n, step + c * n, n);
    }
}

static kh_status take_differences(estimates *e, uint64_t points)
{
    sweep *s = e->s;
    kh_inspector *i = s->inspector;
    kh_probe probe = {e, points, add_difference, NULL};
    const kh_watch watch = {&probe, begin_difference, e, kh_inspector_reading(i), 0, NULL};
    size_t first = s->out->first, rows = i->count - first;
    e->sign = 1;
    KH_TRY(take_text(s, s->o.clean));
    KH_TRY(kh_inspector_look(i, first, rows, &watch));
    e->sign = -1;
    KH_TRY(take_text(s, s->corrupted));
    return kh_inspector_look(i, first, rows, &watch);
}

static kh_status open_estimates(estimates *e, uint64_t *points)
{
    const sweep *s = e->s;
    const kh_model *m = s->inspector->model;
    size_t rows = s->inspector->count - s->out->first, layers = (size_t)s->o.layers;
    for (int k = 0; k < SWEPT; k++) {
        record *r = &e->difference[k];
        int heads = swept[k] == KH_COMPONENT_HEAD;
        if (!(s->o.kinds >> swept[k] & 1)) continue;
        *r = (record){.first_layer = s->o.first_layer,
                      .layers = s->o.layers,
                      .first = s->out->first,
                      .rows = rows,
                      .width = width_of(m, swept[k])};
        KH_TRY(kh_new(&r->data, layers * rows * r->width, sizeof *r->data, "activations"));
        KH_TRY(kh_new(&e->values[k], layers * (heads ? (size_t)m->d.H : rows), sizeof *e->values[k],
                      "estimates"));
        *points |= UINT64_C(1) << kh_component_point(swept[k]);
    }
    return KH_OK;
}

static kh_status say_estimates(const estimates *e)
{
    sweep *s = e->s;
    for (int k = 0; k < SWEPT; k++) {
        int heads = swept[k] == KH_COMPONENT_HEAD;
        size_t n = heads ? (size_t)s->inspector->model->d.H : e->difference[k].rows;
        for (size_t c = 0; e->values[k] && c < n * (size_t)s->o.layers; c++) {
            int layer = s->o.first_layer + (int)(c / n), index = (int)(c % n);
            int32_t at = !heads              ? (int32_t)s->out->first + index
                         : s->o.position < 0 ? -1
                                             : s->o.position;
            const branch b = {.s = s, .part = {swept[k], layer, heads ? index : 0, 0}, .at = at};
            KH_TRY(say(&b, s->out->corrupted + e->values[k][c]));
        }
    }
    return KH_OK;
}

static kh_status run_estimates(estimates *e)
{
    sweep *s = e->s;
    uint64_t points = 0;
    KH_TRY(open_estimates(e, &points));
    KH_TRY(measure(s));
    KH_TRY(take_differences(e, points));
    const kh_probe probe = {e, points, add_products, NULL};
    KH_TRY(kh_inspector_gradient(s->inspector, s->o.a, s->o.b, &probe));
    return say_estimates(e);
}

static kh_status estimate_all(sweep *s)
{
    estimates e = {.s = s};
    kh_status status = run_estimates(&e);
    for (int k = 0; k < SWEPT; k++) {
        kh_free(e.difference[k].data);
        kh_free(e.values[k]);
    }
    return status;
}

static kh_status open_sweep(sweep *s)
{
    size_t bytes = s->inspector->count * sizeof *s->corrupted;
    KH_TRY(kh_new(&s->corrupted, s->inspector->count, sizeof *s->corrupted, "token ids"));
    memcpy(s->corrupted, s->inspector->ids, bytes);
    return kh_new(&s->branches, KH_BRANCHES, sizeof *s->branches, "branches");
}

/* The inspector gets its text back, whatever happened. */
static kh_status close_sweep(sweep *s, kh_status status)
{
    kh_status back = s->corrupted ? take_text(s, s->corrupted) : KH_OK;
    for (size_t b = 0; s->branches && b < KH_BRANCHES; b++) kh_free(s->branches[b].arrived.data);
    kh_free(s->branches);
    kh_free(s->corrupted);
    kh_free(s->clean.data);
    kh_free(s->held.data);
    return status == KH_OK ? back : status;
}

kh_status kh_patch_sweep(kh_inspector *i, const kh_patch_options *options, kh_patch *out)
{
    sweep s = {.inspector = i, .o = *options, .out = out};
    *out = (kh_patch){0};
    atomic_store(&i->stop, 0);
    KH_TRY(align(i, &s.o, out));
    KH_TRY(complete(i, &s.o));
    count_cells(i, &s.o, out);
    kh_status status = open_sweep(&s);
    if (status == KH_OK) status = s.o.estimate ? estimate_all(&s) : sweep_all(&s);
    return close_sweep(&s, status);
}

/* ---- paths ---- */

typedef struct path {
    sweep *s;
    const kh_component *receiver; /* NULL: the logits */
    kh_patch_input input;
    kh_point point;     /* of the input */
    size_t from, width; /* of the receiver in a row of that point */
    size_t row;         /* such a row's width */
} path;

/* z of every head is the corrupted run's, but for the sender's. What the receiver makes of its own inputs is kept. */
static void hold_point(void *context, kh_point point, int layer, float *data, size_t rows,
                       size_t width)
{
    branch *b = context;
    const path *p = b->path;
    const sweep *s = b->s;
    size_t E = (size_t)s->inspector->model->d.E, sender = (size_t)b->part.index * E;
    if (p->receiver && point == p->point && layer == p->receiver->layer) {
        b->arrived.position = b->position;
        record_point(&b->arrived, point, layer, data, rows, width);
    }
    if (point != KH_POINT_Z) return;
    for (size_t r = 0; r < rows; r++) {
        size_t position = b->position + r;
        float *row = data + r * width;
        memcpy(row, recorded(&s->held, layer, position), width * sizeof *row);
        if (layer == b->part.layer)
            memcpy(row + sender, recorded(&s->clean, layer, position) + sender, E * sizeof *row);
    }
}

/* The corrupted run with nothing but the receiver's input changed. */
static void arrive_point(void *context, kh_point point, int layer, float *data, size_t rows,
                         size_t width)
{
    const branch *b = context;
    const path *p = b->path;
    const kh_description *d = &b->s->inspector->model->d;
    if (layer != p->receiver->layer) return;
    for (size_t r = 0; r < rows; r++) {
        size_t position = b->position + r, E = (size_t)d->E;
        float *row = data + r * width;
        if (point == p->point) {
            memcpy(row + p->from, recorded(&b->arrived, layer, position) + p->from,
                   p->width * sizeof *row);
            continue;
        }
        for (size_t h = 0; h < (size_t)d->H; h++)
            if (h != (size_t)p->receiver->index)
                memcpy(row + h * E, recorded(&b->s->held, layer, position) + h * E,
                       E * sizeof *row);
    }
}

static kh_status run_senders(const path *p)
{
    sweep *s = p->s;
    kh_probe hold[KH_BRANCHES], arrive[KH_BRANCHES];
    uint64_t z = UINT64_C(1) << KH_POINT_Z, in = p->receiver ? UINT64_C(1) << p->point : 0;
    int shared = p->input == KH_PATCH_KEYS || p->input == KH_PATCH_VALUES;
    if (s->waiting == 0) return KH_OK;
    for (size_t b = 0; b < s->waiting; b++) {
        hold[b] = (kh_probe){NULL, z | in, hold_point, NULL};
        arrive[b] = (kh_probe){NULL, in | (shared ? z : 0), arrive_point, NULL};
    }
    size_t from = p->receiver ? s->out->first : s->inspector->count - 1;
    KH_TRY(pass(s, hold, (int64_t)from));
    if (p->receiver) KH_TRY(pass(s, arrive, (int64_t)from));
    return say_all(s);
}

/* The next cell takes the memory of one that is done. */
static kh_status add_sender(const path *p, int layer, int head)
{
    sweep *s = p->s;
    branch *b = &s->branches[s->waiting];
    record arrived = b->arrived;
    *b = (branch){.s = s, .path = p, .part = {KH_COMPONENT_HEAD, layer, head, 0}, .at = -1};
    b->arrived = arrived;
    if (p->receiver && !arrived.data) {
        b->arrived = (record){.first_layer = p->receiver->layer,
                              .layers = 1,
                              .first = s->out->first,
                              .rows = s->inspector->count - s->out->first,
                              .width = p->row};
        KH_TRY(kh_new(&b->arrived.data, b->arrived.rows * p->row, sizeof *b->arrived.data,
                      "what a head receives"));
    }
    s->waiting++;
    return KH_OK;
}

static void place_receiver(path *p)
{
    const kh_description *d = &p->s->inspector->model->d;
    static const kh_point points[] = {KH_POINT_Z, KH_POINT_Q, KH_POINT_K, KH_POINT_VALUE};
    size_t E = (size_t)d->E;
    int shared = p->input == KH_PATCH_KEYS || p->input == KH_PATCH_VALUES;
    if (!p->receiver) return;
    if (p->receiver->kind == KH_COMPONENT_MLP) {
        p->point = KH_POINT_MLP_IN;
        p->row = p->width = (size_t)d->D;
        return;
    }
    p->point = points[p->input];
    p->width = E;
    p->from = (size_t)(shared ? p->receiver->index / (d->H / d->G) : p->receiver->index) * E;
    p->row = (size_t)(shared ? d->G : d->H) * E;
}

static kh_status run_paths(const path *p)
{
    sweep *s = p->s;
    const kh_description *d = &s->inspector->model->d;
    size_t HE = (size_t)d->H * (size_t)d->E;
    size_t rows = p->receiver ? s->inspector->count - s->out->first : 1;
    size_t room = kh_inspector_branch_room(s->inspector, rows);
    KH_TRY(measure(s));
    KH_TRY(record_clean(s, KH_POINT_Z, HE));
    s->held = s->clean; /* of all layers, since all are held */
    s->held.data = NULL;
    s->held.first_layer = 0;
    s->held.layers = d->N;
    KH_TRY(record_text(s->inspector, &s->held, KH_POINT_Z));
    for (int l = s->o.first_layer; l < s->o.first_layer + s->o.layers; l++)
        for (int h = 0; h < d->H; h++) {
            KH_TRY(add_sender(p, l, h));
            if (s->waiting == room) KH_TRY(run_senders(p));
        }
    return run_senders(p);
}

/* Of its own layer, attention feeds feed-forward where they follow each other. */
static int layers_below(const kh_description *d, const kh_component *receiver)
{
    return receiver->layer +
           (receiver->kind == KH_COMPONENT_MLP && d->form != KH_BLOCK_PARALLEL ? 1 : 0);
}

static kh_status check_receiver(const kh_inspector *i, const kh_component *receiver,
                                kh_patch_input input, kh_patch_options *o)
{
    const kh_description *d = &i->model->d;
    if (!receiver) return KH_OK;
    int head = receiver->kind == KH_COMPONENT_HEAD && receiver->index >= 0 &&
               receiver->index < d->H;
    if (!(head || receiver->kind == KH_COMPONENT_MLP) || receiver->layer < 0 ||
        receiver->layer >= d->N)
        KH_FAIL(KH_ERR_ARGUMENT,
                "the receiver of a path is a head or a feed-forward layer of the model, or the "
                "logits");
    if (!head && input != KH_PATCH_INPUTS)
        KH_FAIL(KH_ERR_ARGUMENT, "queries, keys and values are inputs of a head: a feed-forward "
                                 "layer has one input");
    int below = layers_below(d, receiver);
    if (below <= o->first_layer) {
        char name[KH_COMPONENT_TEXT];
        kh_component_text(receiver, name, sizeof name);
        KH_FAIL(KH_ERR_ARGUMENT, "no head of layer %d or later stands below %s", o->first_layer,
                name);
    }
    if (o->first_layer + o->layers > below) o->layers = below - o->first_layer;
    return KH_OK;
}

kh_status kh_patch_paths(kh_inspector *i, const kh_patch_options *options,
                         const kh_component *receiver, kh_patch_input input, kh_patch *out)
{
    sweep s = {.inspector = i, .o = *options, .out = out};
    path p = {.s = &s, .receiver = receiver, .input = input};
    *out = (kh_patch){0};
    atomic_store(&i->stop, 0);
    s.o.kinds = 1u << KH_COMPONENT_HEAD;
    s.o.position = -1;
    s.o.estimate = 0;
    KH_TRY(align(i, &s.o, out));
    KH_TRY(complete(i, &s.o));
    KH_TRY(check_receiver(i, receiver, input, &s.o));
    count_cells(i, &s.o, out);
    if (!receiver) out->rows = out->cells;
    if (receiver) out->rows *= 2, out->runs *= 2;
    place_receiver(&p);
    kh_status status = open_sweep(&s);
    if (status == KH_OK) status = run_paths(&p);
    return close_sweep(&s, status);
}
