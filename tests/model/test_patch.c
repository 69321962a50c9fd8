/* Patching by brute force: every cell of every sweep equals a whole run of the corrupted prompt under an observer,
 * written here, that overwrites the rows; a path equals the runs that its definition says. */
#include "base/alloc.h"
#include "model/network.h"
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
    size_t E = (size_t)d->E, HE = (size_t)d->H * E;
    float *arrived = kh_calloc(TEXT * HE, sizeof *arrived);
    holding h = {clean, corrupted, sender, receiver, points[input], E, arrived};
    uint64_t z = UINT64_C(1) << KH_POINT_Z, in = UINT64_C(1) << points[input];
    kh_probe held = {&h, z | (receiver ? in : 0), hold, NULL};
    double value = run(s, s->corrupted, &held);
    if (receiver) {
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
    assert_int_equal(got.n, (size_t)(receiver ? receiver->layer : d->N) * (size_t)d->H);
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
        close_subject(&s);
    }
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
                                       cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
