/* Inspection against TransformerLens (tools/golden_inspect.py, which names its version and conventions): logit lens, direct
 * logit attribution, ablations and activation patching on tiny models of five decoder families, every number to 1e-4. */
#include "format/json.h"
#include "support/family_golden.h"

#include <keyhole/keyhole.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { MOST_IDS = 64, MOST_EDITS = 4, TOP = 5 };

static const char *const names[] = {"gpt2", "llama", "qwen2", "gemma2", "gptneox"};
enum { NAMES = sizeof names / sizeof *names };

typedef struct subject {
    const char *name;
    json_t *golden;
    kh_model *model;
    kh_inspector *inspector;
    int32_t ids[MOST_IDS];
    size_t count;
    int layers;
} subject;

static const json_t *member(const json_t *object, const char *key)
{
    const json_t *value = kh_json_get(object, key);
    if (!value) fail_msg("the golden has no %s", key);
    return value;
}

static double number(const json_t *value)
{
    double out = 0;
    assert_true(kh_json_number(value, &out));
    return out;
}

static double item(const json_t *array, size_t i)
{
    return number(json_array_get(array, i));
}

static size_t take_ids(int32_t *ids, const json_t *array)
{
    size_t n = json_array_size(array);
    assert_in_range(n, 1, MOST_IDS);
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)item(array, i);
    return n;
}

static void near(const subject *s, const char *what, double got, double want)
{
    if (!(fabs(got - want) <= 1e-4))
        fail_msg("%s: %s is %.7g, TransformerLens has %.7g", s->name, what, got, want);
}

static void open_subject(subject *s, const char *name)
{
    char file[64];
    const kh_session_options options = {.precision = KH_PRECISION_F32,
                                        .k_type = KH_CACHE_F32,
                                        .v_type = KH_CACHE_F32,
                                        .threads = 2};
    *s = (subject){.name = name, .model = open_model(family_path(family_named(name)))};
    snprintf(file, sizeof file, "inspect/%s.json", name);
    GOOD(kh_json_read(&s->golden, golden_path(file), 1 << 20));
    s->count = take_ids(s->ids, member(s->golden, "ids"));
    s->layers = kh_model_get_info(s->model)->layers;
    GOOD(kh_inspector_open(&s->inspector, s->model, &options));
    GOOD(kh_inspector_set(s->inspector, s->ids, s->count, 0, NULL, 0));
}

static void close_subject(subject *s)
{
    kh_inspector_close(s->inspector);
    kh_model_close(s->model);
    json_decref(s->golden);
}

/* ---- lens ---- */

typedef struct lens_check {
    const subject *s;
    const json_t *cells, *positions;
    size_t met;
} lens_check;

/* TransformerLens has one name for the stream behind a layer and in front of the next. */
static void tap_label(char *label, size_t size, const kh_lens_cell *cell, int layers)
{
    if (cell->tap == KH_TAP_AFTER && cell->layer == layers - 1)
        snprintf(label, size, "final_post");
    else
        snprintf(label, size, "%d_%s", cell->layer + (cell->tap == KH_TAP_AFTER),
                 cell->tap == KH_TAP_BETWEEN ? "mid" : "pre");
}

static kh_status check_cell(void *context, const kh_lens_cell *cell)
{
    lens_check *check = context;
    const json_t *want = NULL;
    char label[32], what[96];
    tap_label(label, sizeof label, cell, check->s->layers);
    for (size_t i = 0; i < json_array_size(check->positions); i++)
        if ((size_t)item(check->positions, i) == cell->position)
            want = json_array_get(member(check->cells, label), i);
    if (!want) return KH_OK;
    check->met++;
    snprintf(what, sizeof what, "the lens %s of position %zu", label, cell->position);
    assert_int_equal(cell->top_count, TOP);
    for (size_t t = 0; t < TOP; t++) {
        if (cell->top[t].id != (int32_t)item(json_array_get(want, 0), t))
            fail_msg("%s: %s has another token %zu", check->s->name, what, t);
        near(check->s, what, (double)cell->top[t].probability, item(json_array_get(want, 1), t));
    }
    const json_t *logs = json_array_get(want, 2);
    assert_int_equal(cell->tracked_count, json_array_size(logs));
    for (size_t t = 0; t < cell->tracked_count; t++)
        near(check->s, what, log((double)cell->tracked[t].probability), item(logs, t));
    return KH_OK;
}

static void check_lens(const subject *s)
{
    lens_check check = {s, member(s->golden, "lens"), member(s->golden, "positions"), 0};
    int32_t sampled[MOST_IDS];
    int mid = kh_json_get(check.cells, "0_mid") != NULL;
    take_ids(sampled, member(s->golden, "sampled"));
    const kh_lens_options o = {.taps = 1u << KH_TAP_BEFORE | 1u << KH_TAP_AFTER |
                                       (mid ? 1u << KH_TAP_BETWEEN : 0),
                               .top = TOP,
                               .tracked = sampled,
                               .tracked_count = 3,
                               .cell = check_cell,
                               .context = &check};
    GOOD(kh_lens(s->inspector, &o));
    assert_int_equal(check.met,
                     json_array_size(check.positions) * (size_t)s->layers * (size_t)(2 + mid));
}

static void lenses(void **state)
{
    (void)state;
    for (size_t n = 0; n < NAMES; n++) {
        subject s;
        open_subject(&s, names[n]);
        check_lens(&s);
        close_subject(&s);
    }
}

/* ---- direct logit attribution ---- */

static size_t check_listed(const subject *s, const json_t *parts, const kh_share *shares,
                           size_t count)
{
    char text[KH_COMPONENT_TEXT];
    size_t met = 0;
    for (size_t i = 0; i < count; i++) {
        kh_component_text(&shares[i].part, text, sizeof text);
        const json_t *want = kh_json_get(parts, text);
        if (want) near(s, text, shares[i].value, number(want));
        met += want != NULL;
    }
    return met;
}

static void check_why(const subject *s)
{
    const json_t *truth = member(s->golden, "why"), *parts = member(truth, "parts");
    const kh_why_options o = {s->count - 1, (int32_t)number(member(truth, "a")),
                              (int32_t)number(member(truth, "b")), 1000};
    const char *name;
    json_t *want;
    kh_why why;
    GOOD(kh_why_open(&why, s->inspector, &o));
    near(s, "total", why.total, number(member(parts, "total")));
    near(s, "bias", why.bias.value, number(member(parts, "bias")));
    size_t met = 2 + check_listed(s, parts, &why.embed, 1);
    met += check_listed(s, parts, why.strong_heads, why.head_count);
    met += check_listed(s, parts, why.strong_neurons, why.neuron_count);
    met += check_listed(s, parts, why.attention, (size_t)why.layers);
    met += check_listed(s, parts, why.mlp, (size_t)why.layers);
    assert_int_equal(met, json_object_size(parts));
    kh_why_free(&why);
    json_object_foreach((json_t *)parts, name, want)
    {
        kh_component part;
        kh_share share;
        if (strcmp(name, "total") == 0 || strcmp(name, "bias") == 0) continue;
        GOOD(kh_component_parse(&part, s->model, name));
        GOOD(kh_why_part(s->inspector, &o, &part, &share));
        near(s, name, share.value, number(want));
    }
}

static void attributions(void **state)
{
    (void)state;
    for (size_t n = 0; n < NAMES; n++) {
        subject s;
        open_subject(&s, names[n]);
        check_why(&s);
        close_subject(&s);
    }
}

/* ---- ablations ---- */

typedef struct row_check {
    const subject *s;
    const char *what;
    const json_t *logs;
} row_check;

static kh_status check_row(void *context, const kh_lens_cell *cell)
{
    const row_check *check = context;
    for (size_t t = 0; t < cell->tracked_count; t++)
        near(check->s, check->what, log((double)cell->tracked[t].probability),
             item(check->logs, t));
    return KH_OK;
}

static void check_ablation(const subject *s, const json_t *c, const int32_t *sampled, size_t count)
{
    const json_t *texts = member(c, "edits");
    kh_edit edits[MOST_EDITS];
    row_check check = {s, json_string_value(json_array_get(texts, 0)), member(c, "logprobs")};
    size_t n = json_array_size(texts);
    assert_in_range(n, 1, MOST_EDITS);
    assert_int_equal(json_array_size(check.logs), count);
    for (size_t e = 0; e < n; e++)
        GOOD(kh_edit_parse(&edits[e], s->model, json_string_value(json_array_get(texts, e))));
    GOOD(kh_inspector_set(s->inspector, s->ids, s->count, 0, edits, n));
    const kh_lens_options o = {.first = s->count - 1,
                               .count = 1,
                               .first_layer = s->layers - 1,
                               .layers = 1,
                               .tracked = sampled,
                               .tracked_count = count,
                               .cell = check_row,
                               .context = &check};
    GOOD(kh_lens(s->inspector, &o));
}

static void ablations(void **state)
{
    (void)state;
    for (size_t n = 0; n < NAMES; n++) {
        subject s;
        int32_t sampled[MOST_IDS];
        open_subject(&s, names[n]);
        size_t count = take_ids(sampled, member(s.golden, "sampled"));
        const json_t *cases = member(s.golden, "ablations");
        assert_true(json_array_size(cases) >= 12);
        for (size_t c = 0; c < json_array_size(cases); c++)
            check_ablation(&s, json_array_get(cases, c), sampled, count);
        close_subject(&s);
    }
}

/* ---- activation patching ---- */

typedef struct sweep_check {
    const subject *s;
    const char *grid; /* of the golden: [layer][position], of heads [layer][head] */
    const json_t *golden;
    int later; /* 1: a layer's stream is the golden's of the next layer */
    size_t met;
} sweep_check;

static kh_status check_patched(void *context, const kh_patch_cell *cell)
{
    sweep_check *check = context;
    double clean = number(member(check->golden, "clean"));
    double corrupted = number(member(check->golden, "corrupted"));
    int heads = cell->part.kind == KH_COMPONENT_HEAD;
    char text[KH_COMPONENT_TEXT], what[96];
    kh_component_text(&cell->part, text, sizeof text);
    snprintf(what, sizeof what, "%s patched at %d", text, cell->position);
    const json_t *row = json_array_get(member(check->golden, check->grid),
                                       (size_t)(cell->part.layer + check->later));
    double want = item(row, heads ? (size_t)cell->part.index : (size_t)cell->position);
    near(check->s, what, cell->value, want);
    assert_true(fabs(cell->share - (want - corrupted) / (clean - corrupted)) <=
                2e-4 / fabs(clean - corrupted));
    check->met++;
    return KH_OK;
}

static void check_sweep(const subject *s, const char *grid, kh_component_kind kind,
                        int32_t position)
{
    const json_t *truth = member(s->golden, "patch");
    sweep_check check = {s, grid, truth, kind == KH_COMPONENT_POST, 0};
    int32_t clean[MOST_IDS];
    kh_patch patch;
    const kh_patch_options o = {.clean = clean,
                                .count = take_ids(clean, member(s->golden, "ids")),
                                .a = (int32_t)number(member(truth, "a")),
                                .b = (int32_t)number(member(truth, "b")),
                                .kinds = 1u << kind,
                                .position = position,
                                .layers = s->layers - check.later,
                                .cell = check_patched,
                                .context = &check};
    GOOD(kh_patch_sweep(s->inspector, &o, &patch));
    near(s, "the clean prompt's", patch.clean, number(member(truth, "clean")));
    near(s, "the corrupted prompt's", patch.corrupted, number(member(truth, "corrupted")));
    assert_int_equal(check.met, patch.cells);
    assert_true(check.met >= (size_t)o.layers * 2);
    if (kind == KH_COMPONENT_HEAD) return;
    /* what is left out has the corrupted prompt's value in every cell */
    for (size_t l = 0; l < (size_t)s->layers; l++)
        for (size_t p = 0; p < patch.first; p++)
            near(s, "a cell that is left out", patch.corrupted,
                 item(json_array_get(member(truth, grid), l), p));
}

static void patches(void **state)
{
    (void)state;
    for (size_t n = 0; n < NAMES; n++) {
        subject s;
        open_subject(&s, names[n]);
        const json_t *truth = member(s.golden, "patch");
        int32_t corrupted[MOST_IDS];
        assert_int_equal(take_ids(corrupted, member(truth, "ids")), s.count);
        GOOD(kh_inspector_set(s.inspector, corrupted, s.count, 0, NULL, 0));
        check_sweep(&s, "pre", KH_COMPONENT_PRE, 0);
        check_sweep(&s, "pre", KH_COMPONENT_POST, 0);
        if (kh_json_get(truth, "mid")) check_sweep(&s, "mid", KH_COMPONENT_MID, 0);
        check_sweep(&s, "attn_out", KH_COMPONENT_ATTENTION, 0);
        check_sweep(&s, "mlp_out", KH_COMPONENT_MLP, 0);
        check_sweep(&s, "heads", KH_COMPONENT_HEAD, -1);
        check_sweep(&s, "heads_at", KH_COMPONENT_HEAD, (int32_t)s.count - 1);
        close_subject(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lenses), cmocka_unit_test(attributions),
                                       cmocka_unit_test(ablations), cmocka_unit_test(patches)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
