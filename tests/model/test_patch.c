/* Patching by brute force: every cell of every sweep equals a whole run of the corrupted prompt under an observer,
 * written here, that overwrites the rows; a path equals the runs that its definition says. Of attribution patching, the
 * derivatives equal central differences of such runs, and estimates are wrong by the square of what is patched. */
#include "base/alloc.h"
#include "inspect/inspector.h"
#include "model/network.h"
#include "ops/unpack.h"
#include "support/family_golden.h"

#include <keyhole/keyhole.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TEXT = 12, FIRST = 5, A = 3, B = 17, MOST = 4096 };

typedef struct subject {
    const char *name;
    kh_model *model;
    kh_inspector *inspector;
    kh_session *session;
    int32_t clean[TEXT], corrupted[TEXT];
    size_t V;
} subject;

static kh_session_options plain(void)
{
    return (kh_session_options){.precision = KH_PRECISION_F32,
                                .k_type = KH_CACHE_F32,
                                .v_type = KH_CACHE_F32,
                                .threads = 2};
}

static void open_with(subject *s, const family *f, const char *attn)
{
    kh_session_options options = plain();
    options.attn = attn;
    *s = (subject){.name = f->name, .model = open_model(family_path(f))};
    s->V = (size_t)kh_model_get_info(s->model)->vocabulary;
    uint32_t state = 4711;
    for (size_t i = 0; i < TEXT; i++) {
        state = state * 1664525u + 1013904223u;
        s->clean[i] = s->corrupted[i] = (int32_t)((state >> 8) % s->V);
    }
    s->corrupted[FIRST] = (s->clean[FIRST] + 7) % (int32_t)s->V;
    s->corrupted[FIRST + 2] = (s->clean[FIRST + 2] + 11) % (int32_t)s->V;
    GOOD(kh_inspector_open(&s->inspector, s->model, &options));
    GOOD(kh_inspector_set(s->inspector, s->corrupted, TEXT, 0, NULL, 0));
    s->session = open_session(s->model, &options);
}

static void close_subject(subject *s)
{
    kh_session_close(s->session);
    kh_inspector_close(s->inspector);
    kh_model_close(s->model);
}

/* ---- whole runs ---- */

typedef struct activations {
    kh_point point;
    size_t width;
    float *rows; /* [N][TEXT][width] */
} activations;

static void record(void *context, kh_point point, int layer, float *data, size_t rows, size_t width)
{
    activations *a = context;
    if (point != a->point || layer < 0) return;
    assert_int_equal(width, a->width);
    memcpy(a->rows + (size_t)layer * TEXT * width, data, rows * width * sizeof *data);
}

static double run(subject *s, const int32_t *ids, const kh_probe *probe)
{
    GOOD(kh_session_rewind(s->session, 0));
    kh_session_observe(s->session, probe);
    GOOD(kh_session_read(s->session, ids, TEXT, NULL));
    kh_session_observe(s->session, NULL);
    const float *logits = kh_session_logits(s->session);
    return (double)logits[A] - (double)logits[B];
}

static activations take(subject *s, const int32_t *ids, kh_point point, size_t width)
{
    activations a = {point, width, NULL};
    a.rows = kh_calloc((size_t)s->model->d.N * TEXT * width, sizeof *a.rows);
    kh_probe probe = {&a, UINT64_C(1) << point, record, NULL};
    run(s, ids, &probe);
    return a;
}

typedef struct overwrite {
    const activations *with;
    int layer;
    size_t first, last, from, n;
} overwrite;

static void put(void *context, kh_point point, int layer, float *data, size_t rows, size_t width)
{
    const overwrite *o = context;
    if (point != o->with->point || layer != o->layer) return;
    for (size_t r = o->first; r <= o->last && r < rows; r++)
        memcpy(data + r * width + o->from,
               o->with->rows + ((size_t)layer * TEXT + r) * width + o->from, o->n * sizeof *data);
}

static double overwritten(subject *s, overwrite o)
{
    kh_probe probe = {&o, UINT64_C(1) << o.with->point, put, NULL};
    return run(s, s->corrupted, &probe);
}

/* ---- the sweep ---- */

typedef struct cells {
    size_t n;
    kh_patch_cell cell[MOST];
} cells;

static kh_status take_cell(void *context, const kh_patch_cell *cell)
{
    cells *c = context;
    assert_true(c->n < MOST);
    c->cell[c->n++] = *cell;
    return KH_OK;
}

static int near(double a, double b)
{
    return fabs(a - b) < 1e-4 * (1 + fabs(b));
}

static void check_sweep(subject *s, kh_component_kind kind, kh_point point, int32_t position)
{
    static cells got;
    const kh_description *d = &s->model->d;
    int heads = kind == KH_COMPONENT_HEAD;
    size_t width = heads ? (size_t)d->H * (size_t)d->E : (size_t)d->D, rows = 0;
    kh_patch out, cost;
    kh_patch_options o = {.clean = s->clean,
                          .count = TEXT,
                          .a = A,
                          .b = B,
                          .kinds = 1u << kind,
                          .position = position,
                          .cell = take_cell,
                          .context = &got};
    got.n = 0;
    GOOD(kh_patch_cost(s->inspector, &o, &cost));
    GOOD(kh_patch_sweep(s->inspector, &o, &out));
    assert_int_equal(got.n, out.cells);
    assert_int_equal(got.n, (size_t)d->N * (heads ? (size_t)d->H : TEXT - FIRST));
    assert_int_equal(cost.rows, out.rows);
    assert_int_equal(out.first, FIRST);
    assert_int_equal(out.differing, 2);
    assert_true(near(out.clean, run(s, s->clean, NULL)));
    assert_true(near(out.corrupted, run(s, s->corrupted, NULL)));
    activations clean = take(s, s->clean, point, width);
    double moved = 0;
    for (size_t c = 0; c < got.n; c++) {
        const kh_patch_cell *cell = &got.cell[c];
        size_t first = cell->position < 0 ? 0 : (size_t)cell->position;
        overwrite w = {&clean, cell->part.layer, first, cell->position < 0 ? TEXT - 1 : first, 0,
                       width};
        if (heads) w.from = (size_t)cell->part.index * (size_t)d->E, w.n = (size_t)d->E;
        double truth = overwritten(s, w);
        if (!near(cell->value, truth))
            fail_msg("%s: cell %zu: %g, a whole run gives %g", s->name, c, cell->value, truth);
        assert_true(near(cell->share * (out.clean - out.corrupted), truth - out.corrupted));
        moved += fabs(truth - out.corrupted);
        rows += TEXT - (cell->position < 0 ? FIRST : first);
    }
    assert_true(moved > 1e-4);
    assert_int_equal(rows, out.rows);
    kh_free(clean.rows);
}

static void sweeps_equal_whole_runs(void **state)
{
    (void)state;
    for (size_t f = 0; f < family_count; f++) {
        subject s;
        if (families[f].task != FAMILY_CAUSAL) continue;
        for (int topk = 0; topk < 2; topk++) {
            open_with(&s, &families[f], topk ? "topk:k=4" : NULL);
            check_sweep(&s, KH_COMPONENT_PRE, KH_POINT_RESID_PRE, 0);
            check_sweep(&s, KH_COMPONENT_POST, KH_POINT_RESID_POST, 0);
            check_sweep(&s, KH_COMPONENT_ATTENTION, KH_POINT_ATTN_OUT_POST, 0);
            check_sweep(&s, KH_COMPONENT_MLP, KH_POINT_MLP_OUT_POST, 0);
            check_sweep(&s, KH_COMPONENT_HEAD, KH_POINT_Z, -1);
            check_sweep(&s, KH_COMPONENT_HEAD, KH_POINT_Z, TEXT - 1);
            if (s.model->d.form != KH_BLOCK_PARALLEL)
                check_sweep(&s, KH_COMPONENT_MID, KH_POINT_RESID_MID, 0);
            close_subject(&s);
        }
    }
}

/* The clean stream at every position of layer 0 is the clean run; of the last layer at the last position too. */
static void whole_patches_are_the_clean_run(void **state)
{
    static cells got;
    subject s;
    kh_patch out;
    (void)state;
    open_with(&s, family_named("llama"), NULL);
    kh_patch_options o = {.clean = s.clean,
                          .count = TEXT,
                          .a = A,
                          .b = B,
                          .kinds = 1u << KH_COMPONENT_POST,
                          .first_layer = s.model->d.N - 1,
                          .cell = take_cell,
                          .context = &got};
    got.n = 0;
    GOOD(kh_patch_sweep(s.inspector, &o, &out));
    assert_int_equal(got.n, TEXT - FIRST);
    for (size_t c = 0; c + 1 < got.n; c++) assert_true(fabs(got.cell[c].share) < 1e-4);
    assert_true(fabs(got.cell[got.n - 1].share - 1) < 1e-4);
    assert_memory_equal(kh_inspector_tokens(s.inspector), s.corrupted, sizeof s.corrupted);
    close_subject(&s);
}

/* ---- paths ---- */

typedef struct holding {
    const activations *clean, *corrupted;
    const kh_component *sender, *receiver;
    kh_point point;
    size_t E;
    float *arrived; /* [TEXT][width] */
} holding;

static void hold(void *context, kh_point point, int layer, float *data, size_t rows, size_t width)
{
    const holding *h = context;
    if (h->receiver && point == h->point && layer == h->receiver->layer)
        memcpy(h->arrived, data, rows * width * sizeof *data);
    if (point != KH_POINT_Z) return;
    size_t at = (size_t)layer * TEXT * width, own = (size_t)h->sender->index * h->E;
    memcpy(data, h->corrupted->rows + at, rows * width * sizeof *data);
    for (size_t r = 0; r < rows && layer == h->sender->layer; r++)
        memcpy(data + r * width + own, h->clean->rows + at + r * width + own, h->E * sizeof *data);
}

/* z of the receiver alone, made from what arrived: queries of one head, or keys of its group. */
typedef struct arriving {
    kh_point point;
    int layer;
    size_t from, n;
    const float *arrived;
    const activations *corrupted; /* z, for heads other than `head` */
    int head;
    size_t E;
} arriving;

static void arrive(void *context, kh_point point, int layer, float *data, size_t rows, size_t width)
{
    const arriving *a = context;
    if (layer != a->layer) return;
    if (point == a->point)
        for (size_t r = 0; r < rows; r++)
            memcpy(data + r * width + a->from, a->arrived + r * width + a->from,
                   a->n * sizeof *data);
    else if (point == KH_POINT_Z)
        for (size_t r = 0; r < rows; r++)
            for (size_t h = 0; h < width / a->E; h++)
                if ((int)h != a->head)
                    memcpy(data + r * width + h * a->E,
                           a->corrupted->rows + ((size_t)layer * TEXT + r) * width + h * a->E,
                           a->E * sizeof *data);
}

static double path_by_hand(subject *s, const activations *clean, const activations *corrupted,
                           const kh_component *sender, const kh_component *receiver,
                           kh_patch_input input)
{
    const kh_description *d = &s->model->d;
    static const kh_point points[] = {KH_POINT_Z, KH_POINT_Q, KH_POINT_K, KH_POINT_VALUE};
    size_t E = (size_t)d->E, HE = (size_t)d->H * E, D = (size_t)d->D;
    int mlp = receiver && receiver->kind == KH_COMPONENT_MLP;
    float *arrived = kh_calloc(TEXT * (HE > D ? HE : D), sizeof *arrived);
    holding h = {clean, corrupted, sender, receiver, mlp ? KH_POINT_MLP_IN : points[input],
                 E,     arrived};
    uint64_t z = UINT64_C(1) << KH_POINT_Z, in = UINT64_C(1) << h.point;
    kh_probe held = {&h, z | (receiver ? in : 0), hold, NULL};
    double value = run(s, s->corrupted, &held);
    if (mlp) {
        arriving a = {.point = h.point, .layer = receiver->layer, .n = D, .arrived = arrived};
        kh_probe probe = {&a, in, arrive, NULL};
        value = run(s, s->corrupted, &probe);
    } else if (receiver) {
        int group = input == KH_PATCH_KEYS || input == KH_PATCH_VALUES;
        size_t index = (size_t)(group ? receiver->index / (d->H / d->G) : receiver->index);
        arriving a = {points[input], receiver->layer, index * E,       E,
                      arrived,       corrupted,       receiver->index, E};
        kh_probe probe = {&a, in | z, arrive, NULL};
        value = run(s, s->corrupted, &probe);
    }
    kh_free(arrived);
    return value;
}

static void check_paths(subject *s, const kh_component *receiver, kh_patch_input input)
{
    static cells got;
    const kh_description *d = &s->model->d;
    size_t HE = (size_t)d->H * (size_t)d->E;
    kh_patch out;
    kh_patch_options o = {
        .clean = s->clean, .count = TEXT, .a = A, .b = B, .cell = take_cell, .context = &got};
    got.n = 0;
    GOOD(kh_patch_paths(s->inspector, &o, receiver, input, &out));
    int own = receiver && receiver->kind == KH_COMPONENT_MLP && d->form != KH_BLOCK_PARALLEL;
    assert_int_equal(got.n, (size_t)(receiver ? receiver->layer + own : d->N) * (size_t)d->H);
    activations clean = take(s, s->clean, KH_POINT_Z, HE),
                corrupted = take(s, s->corrupted, KH_POINT_Z, HE);
    for (size_t c = 0; c < got.n; c++) {
        double truth = path_by_hand(s, &clean, &corrupted, &got.cell[c].part, receiver, input);
        if (!near(got.cell[c].value, truth))
            fail_msg("%s: path %zu: %g, by hand %g", s->name, c, got.cell[c].value, truth);
    }
    kh_free(clean.rows);
    kh_free(corrupted.rows);
}

static void paths_equal_their_definition(void **state)
{
    (void)state;
    for (size_t f = 0; f < family_count; f++) {
        subject s;
        if (families[f].task != FAMILY_CAUSAL) continue;
        open_with(&s, &families[f], NULL);
        const kh_component last = {KH_COMPONENT_HEAD, s.model->d.N - 1, s.model->d.H - 1, 0};
        check_paths(&s, NULL, KH_PATCH_INPUTS);
        for (int input = KH_PATCH_INPUTS; input <= KH_PATCH_VALUES; input++)
            check_paths(&s, &last, (kh_patch_input)input);
        const kh_component mlp = {KH_COMPONENT_MLP, s.model->d.N - 1, 0, 0};
        check_paths(&s, &mlp, KH_PATCH_INPUTS);
        close_subject(&s);
    }
}

/* ---- attribution ---- */

/* A row plus a direction. */
typedef struct push {
    kh_point point;
    int layer;
    size_t position;
    const float *direction;
    float by;
} push;

static void push_row(void *context, kh_point point, int layer, float *data, size_t rows,
                     size_t width)
{
    const push *p = context;
    (void)rows;
    if (point != p->point || layer != p->layer) return;
    for (size_t c = 0; c < width; c++) data[p->position * width + c] += p->by * p->direction[c];
}

static double slope_by_hand(subject *s, push p, float by)
{
    kh_probe probe = {&p, UINT64_C(1) << p.point, push_row, NULL};
    p.by = by;
    double up = run(s, s->corrupted, &probe);
    p.by = -by;
    return (up - run(s, s->corrupted, &probe)) / (2 * (double)by);
}

static double norm(const float *x, size_t n)
{
    double sum = 0;
    for (size_t c = 0; c < n; c++) sum += (double)x[c] * (double)x[c];
    return sqrt(sum);
}

/* Of length 1: along the derivative itself, or noise. */
static void direct(float *direction, const float *slope, size_t width, int noise)
{
    static uint32_t state = 99;
    for (size_t c = 0; c < width; c++) {
        state = state * 1664525u + 1013904223u;
        direction[c] = noise ? (float)(state >> 8) / 16777216.0f - 0.5f : slope[c];
    }
    double length = norm(direction, width);
    for (size_t c = 0; c < width && length > 0; c++)
        direction[c] = (float)((double)direction[c] / length);
}

/* Steps become smaller where one of them crosses a choice of keys or experts, which has no derivative. */
static void check_slope(subject *s, push p, const float *slope, size_t width, double size)
{
    double said = 0, truth = 0, length = norm(slope, width);
    for (size_t c = 0; c < width; c++) said += (double)p.direction[c] * (double)slope[c];
    for (double step = 0.001 * (size + 0.1); step > 2e-5; step /= 4) {
        truth = slope_by_hand(s, p, (float)step);
        if (fabs(said - truth) < 0.005 * length + 3e-6 / step) return;
    }
    fail_msg("%s: %s of layer %d at %zu: slope %g, differences give %g", s->name,
             kh_point_name(p.point), p.layer, p.position, said, truth);
}

static void check_slopes(subject *s, kh_point point, size_t width)
{
    int N = s->model->d.N;
    activations rows = take(s, s->corrupted, point, width), slopes = {point, width, NULL};
    float *direction = kh_calloc(width, sizeof *direction);
    double most = 0;
    slopes.rows = kh_calloc((size_t)N * TEXT * width, sizeof *slopes.rows);
    const kh_probe probe = {&slopes, UINT64_C(1) << point, record, NULL};
    GOOD(kh_inspector_gradient(s->inspector, A, B, &probe));
    for (int l = 0; l < N; l++)
        for (size_t t = 2; t < TEXT; t += 3) {
            size_t at = ((size_t)l * TEXT + t) * width;
            double size = norm(rows.rows + at, width);
            for (int noise = 0; noise < 2; noise++) {
                direct(direction, slopes.rows + at, width, noise);
                check_slope(s, (push){point, l, t, direction, 0}, slopes.rows + at, width, size);
            }
            most = fmax(most, norm(slopes.rows + at, width));
        }
    assert_true(most > 1e-3);
    kh_free(direction);
    kh_free(slopes.rows);
    kh_free(rows.rows);
}

static void gradients_equal_central_differences(void **state)
{
    (void)state;
    for (size_t f = 0; f < family_count; f++) {
        subject s;
        if (families[f].task != FAMILY_CAUSAL) continue;
        for (int topk = 0; topk < 2; topk++) {
            open_with(&s, &families[f], topk ? "topk:k=4" : NULL);
            size_t D = (size_t)s.model->d.D;
            check_slopes(&s, KH_POINT_RESID_PRE, D);
            check_slopes(&s, KH_POINT_RESID_POST, D);
            check_slopes(&s, KH_POINT_ATTN_OUT_POST, D);
            check_slopes(&s, KH_POINT_MLP_OUT_POST, D);
            check_slopes(&s, KH_POINT_Z, (size_t)s.model->d.H * (size_t)s.model->d.E);
            if (s.model->d.form != KH_BLOCK_PARALLEL) check_slopes(&s, KH_POINT_RESID_MID, D);
            close_subject(&s);
        }
    }
}

enum {
    EVERY_KIND = 1 << KH_COMPONENT_PRE | 1 << KH_COMPONENT_MID | 1 << KH_COMPONENT_POST |
                 1 << KH_COMPONENT_ATTENTION | 1 << KH_COMPONENT_MLP | 1 << KH_COMPONENT_HEAD
};

/* Both sweeps have the same cells; returns how far the estimates are off at most, and how far anything moved. */
static double off(subject *s, kh_patch_options o, double *moved)
{
    static cells exact, estimate;
    kh_patch out, cost;
    double most = 0;
    *moved = 0;
    exact.n = estimate.n = 0;
    o.clean = s->clean;
    o.count = TEXT;
    o.a = A;
    o.b = B;
    o.cell = take_cell;
    o.context = &exact;
    GOOD(kh_patch_sweep(s->inspector, &o, &out));
    o.estimate = 1;
    o.context = &estimate;
    GOOD(kh_patch_cost(s->inspector, &o, &cost));
    GOOD(kh_patch_sweep(s->inspector, &o, &out));
    assert_int_equal(out.runs, 1);
    assert_int_equal(out.rows, 3 * TEXT);
    assert_int_equal(out.cells, exact.n);
    assert_int_equal(cost.bytes, out.bytes);
    assert_int_equal(estimate.n, exact.n);
    for (size_t c = 0; c < exact.n; c++) {
        const kh_patch_cell *a = &exact.cell[c], *b = &estimate.cell[c];
        assert_memory_equal(&a->part, &b->part, sizeof a->part);
        assert_int_equal(a->position, b->position);
        most = fmax(most, fabs(a->value - b->value));
        *moved = fmax(*moved, fabs(a->value - out.corrupted));
    }
    assert_memory_equal(kh_inspector_tokens(s->inspector), s->corrupted, sizeof s->corrupted);
    return most;
}

/* The embeddings of a model as F32; those of the clean prompt's own tokens `by` as far from the corrupted one's as
 * they are in the file. */
static void bring_near(subject *s, const kh_weight *file, float *rows, float by)
{
    kh_unpack unpack = kh_unpack_of(s->inspector->root->engine->kern, file->type);
    size_t D = (size_t)s->model->d.D;
    for (size_t r = 0; r < s->V; r++) {
        const char *row = (const char *)file->data + r * file->row_bytes;
        if (unpack.f32)
            unpack.f32(rows + r * D, row, D);
        else
            memcpy(rows + r * D, row, D * sizeof *rows);
    }
    for (size_t p = 0; p < TEXT; p++) {
        float *from = rows + (size_t)s->clean[p] * D, *to = rows + (size_t)s->corrupted[p] * D;
        for (size_t c = 0; c < D; c++) from[c] = to[c] + by * (from[c] - to[c]);
    }
    s->model->w.embedding.type = KH_TYPE_F32;
    s->model->w.embedding.row_bytes = D * sizeof *rows;
    s->model->w.embedding.data = rows;
}

/* Half as far from the corrupted prompt, a quarter as wrong. */
static void estimates_are_of_first_order(void **state)
{
    static const char *const names[] = {"llama", "gpt2", "gemma2"};
    (void)state;
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        subject s;
        double moved[2], wrong[2];
        open_with(&s, family_named(names[n]), NULL);
        const kh_weight file = s.model->w.embedding;
        float *rows = kh_calloc(s.V * (size_t)s.model->d.D, sizeof *rows);
        for (int half = 0; half < 2; half++) {
            bring_near(&s, &file, rows, half ? 0.01f : 0.02f);
            GOOD(kh_inspector_set(s.inspector, s.clean, TEXT, 0, NULL, 0));
            GOOD(kh_inspector_set(s.inspector, s.corrupted, TEXT, 0, NULL, 0));
            wrong[half] = off(&s, (kh_patch_options){.kinds = EVERY_KIND, .position = -1},
                              &moved[half]);
        }
        if (!(wrong[0] > 3 * wrong[1] && wrong[0] < 5.5 * wrong[1] && moved[1] > 10 * wrong[1]))
            fail_msg("%s: off by %g and %g of %g and %g", s.name, wrong[0], wrong[1], moved[0],
                     moved[1]);
        s.model->w.embedding = file;
        kh_free(rows);
        close_subject(&s);
    }
}

/* A norm that only divides by a thousand leaves what the last layer writes linear. */
static void estimates_of_what_is_linear_are_exact(void **state)
{
    subject s;
    double moved;
    (void)state;
    open_with(&s, family_named("llama"), NULL);
    s.model->d.norm_eps = 1e6f;
    kh_patch_options o = {.first_layer = s.model->d.N - 1};
    o.kinds = 1u << KH_COMPONENT_POST | 1u << KH_COMPONENT_ATTENTION | 1u << KH_COMPONENT_HEAD;
    for (o.position = -1; o.position < TEXT; o.position += TEXT) {
        double wrong = off(&s, o, &moved);
        if (!(moved > 0 && wrong < 1e-3 * moved))
            fail_msg("off by %g of %g, where nothing bends", wrong, moved);
    }
    close_subject(&s);
}

static void estimates_are_refused(void **state)
{
    static cells got;
    subject s;
    kh_patch out;
    kh_edit edit;
    (void)state;
    open_with(&s, family_named("llama"), "topk:k=4,tail=mean");
    kh_patch_options o = {.clean = s.clean,
                          .count = TEXT,
                          .a = A,
                          .b = B,
                          .estimate = 1,
                          .cell = take_cell,
                          .context = &got};
    assert_int_equal(kh_patch_sweep(s.inspector, &o, &out), KH_ERR_UNSUPPORTED);
    assert_non_null(strstr(kh_last_error(), "tail=mean"));
    close_subject(&s);
    open_with(&s, family_named("llama"), NULL);
    o.clean = s.clean;
    GOOD(kh_edit_parse(&edit, s.model, "L0H1:zero"));
    GOOD(kh_inspector_set(s.inspector, s.corrupted, TEXT, 0, &edit, 1));
    assert_int_equal(kh_patch_sweep(s.inspector, &o, &out), KH_ERR_UNSUPPORTED);
    assert_non_null(strstr(kh_last_error(), "1 edit"));
    close_subject(&s);
}

/* ---- what cannot be aligned ---- */

static void refusals(void **state)
{
    static cells got;
    subject s;
    kh_patch out;
    (void)state;
    open_with(&s, family_named("llama"), NULL);
    kh_patch_options o = {
        .clean = s.clean, .count = TEXT - 1, .a = A, .b = B, .cell = take_cell, .context = &got};
    assert_int_equal(kh_patch_sweep(s.inspector, &o, &out), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "11 tokens"));
    assert_non_null(strstr(kh_last_error(), "12"));
    assert_non_null(strstr(kh_last_error(), "positions 5, 7"));
    o.count = TEXT;
    o.clean = s.corrupted;
    assert_int_equal(kh_patch_sweep(s.inspector, &o, &out), KH_ERR_ARGUMENT);
    o.clean = s.clean;
    o.first_layer = 99;
    assert_int_equal(kh_patch_sweep(s.inspector, &o, &out), KH_ERR_ARGUMENT);
    o.first_layer = 0;
    o.kinds = 1u << KH_COMPONENT_NEURON;
    assert_int_equal(kh_patch_sweep(s.inspector, &o, &out), KH_ERR_ARGUMENT);
    const kh_component first = {KH_COMPONENT_HEAD, 0, 0, 0};
    o.kinds = 0;
    assert_int_equal(kh_patch_paths(s.inspector, &o, &first, KH_PATCH_INPUTS, &out),
                     KH_ERR_ARGUMENT);
    close_subject(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sweeps_equal_whole_runs),
                                       cmocka_unit_test(whole_patches_are_the_clean_run),
                                       cmocka_unit_test(paths_equal_their_definition),
                                       cmocka_unit_test(gradients_equal_central_differences),
                                       cmocka_unit_test(estimates_are_of_first_order),
                                       cmocka_unit_test(estimates_of_what_is_linear_are_exact),
                                       cmocka_unit_test(estimates_are_refused),
                                       cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
