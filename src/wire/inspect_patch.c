/* Patching in JSON: a frame "meta" with both prompts and what the sweep costs, a frame "row" for every layer of every kind,
 * "done" with the strongest cells. Rows come as they are computed, so a page can draw them. Rows of estimates say that they
 * are; where these are checked the rows of the exact sweep follow, and "done" says how both agree. */
#include "wire/questions.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "wire/json_value.h"

#include <math.h>
#include <string.h>

enum { STRONGEST = 10 };

static const struct {
    const char *name;
    kh_component_kind kind;
} kinds[] = {{"pre", KH_COMPONENT_PRE},     {"mid", KH_COMPONENT_MID},
             {"post", KH_COMPONENT_POST},   {"attn_out", KH_COMPONENT_ATTENTION},
             {"mlp_out", KH_COMPONENT_MLP}, {"heads", KH_COMPONENT_HEAD}};
enum { KINDS = sizeof kinds / sizeof *kinds };

static const char *kind_name(kh_component_kind kind)
{
    int k = 0;
    while (k + 1 < KINDS && kinds[k].kind != kind) k++;
    return kinds[k].name;
}

/* ---- the request ---- */

typedef struct request {
    wire_subject clean, corrupted;
    kh_patch_options o;
    int path; /* 1: senders towards a receiver */
    kh_component receiver;
    const kh_component *to; /* NULL: the logits */
    kh_patch_input input;
    int cost_only, check;
} request;

kh_status wire_named_subject(wire_subject *out, const wire_ask *ask, const char *name)
{
    const json_t *text = wire_member(ask->body, name);
    if (!json_is_string(text) && !json_is_array(text))
        KH_FAIL(KH_ERR_ARGUMENT, "%s: a text, or a list of token ids, is expected", name);
    json_t *body = json_object();
    json_object_set(body, json_is_string(text) ? "prompt" : "tokens", (json_t *)(uintptr_t)text);
    json_object_set(body, "template", json_object_get(ask->body, "template"));
    json_object_set(body, "edits", json_object_get(ask->body, "edits"));
    kh_status status = wire_subject_read(out, ask->model, body);
    json_decref(body);
    return status;
}

static kh_status read_kinds(request *r, const json_t *body)
{
    const json_t *list = NULL;
    KH_TRY(wire_get_array(body, "kinds", &list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        int k = 0;
        while (name && k < KINDS && strcmp(name, kinds[k].name) != 0) k++;
        if (!name || k == KINDS)
            KH_FAIL(KH_ERR_ARGUMENT, "kinds: \"pre\", \"mid\", \"post\", \"attn_out\", \"mlp_out\" "
                                     "and \"heads\" are expected");
        r->o.kinds |= 1u << kinds[k].kind;
    }
    return KH_OK;
}

static kh_status read_path(request *r, const wire_ask *ask)
{
    static const char *const inputs[] = {"all", "q", "k", "v"};
    const char *to = NULL, *input = "all";
    KH_TRY(wire_get_text(ask->body, "to", &to, NULL));
    KH_TRY(wire_get_text(ask->body, "input", &input, NULL));
    if (!to) return KH_OK;
    r->path = 1;
    while (r->input <= KH_PATCH_VALUES && strcmp(inputs[r->input], input) != 0) r->input++;
    if (r->input > KH_PATCH_VALUES)
        KH_FAIL(KH_ERR_ARGUMENT, "input: \"all\", \"q\", \"k\" or \"v\" is expected");
    if (strcmp(to, "logits") == 0) return KH_OK;
    KH_TRY(kh_component_parse(&r->receiver, ask->model, to));
    r->to = &r->receiver;
    return KH_OK;
}

static kh_status read_request(request *r, const wire_ask *ask)
{
    int64_t position = -1, first = 0, layers = 0;
    int N = kh_model_get_info(ask->model)->layers;
    KH_TRY(wire_named_subject(&r->clean, ask, "clean"));
    KH_TRY(wire_named_subject(&r->corrupted, ask, "corrupted"));
    KH_TRY(read_kinds(r, ask->body));
    KH_TRY(read_path(r, ask));
    KH_TRY(wire_get_int(ask->body, "position", &position, -1, 1 << 24));
    KH_TRY(wire_get_int(ask->body, "first_layer", &first, 0, N - 1));
    KH_TRY(wire_get_int(ask->body, "layers", &layers, 0, N));
    KH_TRY(wire_get_flag(ask->body, "cost_only", &r->cost_only));
    KH_TRY(wire_get_flag(ask->body, "attribution", &r->o.estimate));
    KH_TRY(wire_get_flag(ask->body, "check", &r->check));
    if (r->check && !r->o.estimate)
        KH_FAIL(KH_ERR_ARGUMENT, "check compares estimates with the exact sweep: attribution is "
                                 "expected with it");
    if (r->path && r->o.estimate)
        KH_FAIL(KH_ERR_ARGUMENT, "attribution estimates single parts, and to asks for a path: one "
                                 "of both is expected");
    r->o.clean = r->clean.ids;
    r->o.count = r->clean.count;
    r->o.position = (int32_t)position;
    r->o.first_layer = (int)first;
    r->o.layers = (int)layers;
    return KH_OK;
}

static kh_status set(const wire_ask *ask, const wire_subject *s)
{
    return kh_inspector_set(ask->inspector, s->ids, s->count, 0, s->edits, s->edit_count);
}

/* a: what the clean prompt says; b: what the corrupted one says, or the second best where that is the same. */
static kh_status choose_tokens(request *r, const wire_ask *ask)
{
    int alone = 0;
    kh_lens_token best[2];
    r->o.a = r->o.b = -1;
    KH_TRY(wire_get_flag(ask->body, "alone", &alone));
    KH_TRY(wire_one_token(ask->body, "a", ask->model, &r->o.a));
    KH_TRY(wire_one_token(ask->body, "b", ask->model, &r->o.b));
    if (r->o.a < 0) {
        KH_TRY(set(ask, &r->clean));
        KH_TRY(wire_best_two(ask, r->clean.count - 1, best));
        r->o.a = best[best[0].id == r->o.b].id;
    }
    KH_TRY(set(ask, &r->corrupted));
    if (r->o.b >= 0 || alone) return KH_OK;
    KH_TRY(wire_best_two(ask, r->corrupted.count - 1, best));
    r->o.b = best[best[0].id == r->o.a].id;
    return KH_OK;
}

/* ---- the answer ---- */

/* Sums over the cells of one kind: what the estimate moves the metric by (x), and what the patch does (y). */
typedef struct agreement {
    double n, x, y, xx, yy, xy, largest;
} agreement;

typedef struct rows {
    const wire_ask *ask;
    const request *r;
    kh_patch out, exact; /* exact: what the sweep that is estimated would cost */
    double *estimates;   /* [estimated] by which the metric moves; kept where they are checked */
    size_t estimated, room, checked;
    int checking; /* 1: cells are of the exact sweep, whose estimates are known */
    agreement agree[KINDS];
    int sent;    /* meta is */
    json_t *row; /* in collection; NULL: none */
    json_t *values, *shares;
    kh_component part; /* of the row */
    kh_patch_cell strongest[STRONGEST];
    size_t strong;
} rows;

static json_t *cost_json(const kh_patch *p, size_t length)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "cells", (json_int_t)p->cells, "runs",
                     (json_int_t)p->runs, "rows", (json_int_t)p->rows, "full_rows",
                     (json_int_t)(p->runs * length), "bytes", (json_int_t)p->bytes);
}

static kh_status send_meta(rows *w)
{
    const wire_ask *ask = w->ask;
    const request *r = w->r;
    const kh_model_info *info = kh_model_get_info(ask->model);
    int computed = !r->cost_only;
    if (w->sent) return KH_OK;
    w->sent = 1;
    return wire_send(
        ask,
        json_pack(
            "{s:s, s:s, s:o, s:o, s:{s:o, s:o}, s:{s:o, s:o}, s:I, s:I, s:i, s:i, s:o, s:s, s:b, "
            "s:o, s:o}",
            "type", "meta", "attn", kh_inspector_attn(ask->inspector), "a",
            wire_token(ask->model, r->o.a), "b",
            r->o.b < 0 ? json_null() : wire_token(ask->model, r->o.b), "clean", "tokens",
            wire_text_tokens(ask->model, r->clean.ids, r->clean.count), "value",
            computed ? wire_real(w->out.clean) : json_null(), "corrupted", "tokens",
            wire_text_tokens(ask->model, r->corrupted.ids, r->corrupted.count), "value",
            computed ? wire_real(w->out.corrupted) : json_null(), "first", (json_int_t)w->out.first,
            "differing", (json_int_t)w->out.differing, "layers", info->layers, "heads", info->heads,
            "to",
            r->to     ? wire_part_text(r->to)
            : r->path ? json_string("logits")
                      : json_null(),
            "input", r->path ? ((const char *const[]){"all", "q", "k", "v"})[r->input] : "",
            "estimate", r->o.estimate, "cost", cost_json(&w->out, r->clean.count), "exact_cost",
            r->o.estimate ? cost_json(&w->exact, r->clean.count) : json_null()));
}

static kh_status flush(rows *w)
{
    json_t *row = w->row;
    if (!row) return KH_OK;
    w->row = NULL;
    return w->ask->sink.send(w->ask->sink.context, row);
}

static kh_status begin_row(rows *w, const kh_patch_cell *cell)
{
    KH_TRY(flush(w));
    w->part = cell->part;
    w->values = json_array();
    w->shares = json_array();
    w->row = json_pack(
        "{s:s, s:s, s:i, s:o, s:b, s:o, s:o}", "type", "row", "kind", kind_name(cell->part.kind),
        "layer", cell->part.layer, "position",
        cell->part.kind == KH_COMPONENT_HEAD && cell->position >= 0 ? json_integer(cell->position)
                                                                    : json_null(),
        "estimate", w->r->o.estimate && !w->checking, "values", w->values, "shares", w->shares);
    if (!w->row) KH_FAIL(KH_ERR_MEMORY, "no memory for the answer");
    return KH_OK;
}

static double strength(const kh_patch_cell *cell)
{
    return isfinite(cell->share) ? fabs(cell->share) : 0;
}

static void keep_strong(rows *w, const kh_patch_cell *cell)
{
    size_t at = w->strong;
    while (at > 0 && strength(&w->strongest[at - 1]) < strength(cell)) at--;
    if (at == STRONGEST) return;
    if (w->strong < STRONGEST) w->strong++;
    for (size_t i = w->strong - 1; i > at; i--) w->strongest[i] = w->strongest[i - 1];
    w->strongest[at] = *cell;
}

/* ---- estimates beside the exact sweep ---- */

static kh_status keep_estimate(rows *w, const kh_patch_cell *cell)
{
    KH_TRY(kh_grow(&w->estimates, w->estimated, &w->room, sizeof *w->estimates, "estimates"));
    w->estimates[w->estimated++] = cell->value - w->out.corrupted;
    return KH_OK;
}

/* Both sweeps say their cells in one order. */
static void compare(rows *w, const kh_patch_cell *cell)
{
    int k = 0;
    while (kinds[k].kind != cell->part.kind) k++;
    agreement *a = &w->agree[k];
    double x = w->estimates[w->checked++], y = cell->value - w->out.corrupted;
    a->n++;
    a->x += x;
    a->y += y;
    a->xx += x * x;
    a->yy += y * y;
    a->xy += x * y;
    a->largest = fmax(a->largest, fabs((x - y) / (w->out.clean - w->out.corrupted)));
}

/* Pearson's; NaN where one of them is the same everywhere. */
static double correlation(const agreement *a)
{
    double covariance = a->xy - a->x * a->y / a->n;
    return covariance / sqrt((a->xx - a->x * a->x / a->n) * (a->yy - a->y * a->y / a->n));
}

static json_t *agreement_json(const rows *w)
{
    json_t *list = json_array();
    for (int k = 0; k < KINDS; k++) {
        const agreement *a = &w->agree[k];
        if (a->n > 0)
            json_array_append_new(list, json_pack("{s:s, s:I, s:o, s:o}", "kind", kinds[k].name,
                                                  "cells", (json_int_t)a->n, "correlation",
                                                  wire_real(correlation(a)), "largest",
                                                  wire_real(a->largest)));
    }
    return list;
}

static kh_status take_cell(void *context, const kh_patch_cell *cell)
{
    rows *w = context;
    KH_TRY(send_meta(w));
    if (!w->row || w->part.kind != cell->part.kind || w->part.layer != cell->part.layer)
        KH_TRY(begin_row(w, cell));
    json_array_append_new(w->values, wire_real(cell->value));
    json_array_append_new(w->shares, wire_real(cell->share));
    if (w->checking) {
        compare(w, cell);
        return KH_OK;
    }
    keep_strong(w, cell);
    return w->r->check ? keep_estimate(w, cell) : KH_OK;
}

static json_t *strongest_json(const rows *w)
{
    json_t *list = json_array();
    for (size_t i = 0; i < w->strong; i++) {
        const kh_patch_cell *c = &w->strongest[i];
        json_array_append_new(
            list, json_pack("{s:o, s:o, s:o, s:o}", "part", wire_part_text(&c->part), "position",
                            c->position < 0 ? json_null() : json_integer(c->position), "value",
                            wire_real(c->value), "share", wire_real(c->share)));
    }
    return list;
}

static kh_status sweep(rows *w, const request *r)
{
    const wire_ask *ask = w->ask;
    kh_patch_options exact = r->o;
    exact.estimate = 0;
    if (r->o.estimate) KH_TRY(kh_patch_cost(ask->inspector, &exact, &w->exact));
    if (r->cost_only) {
        KH_TRY(kh_patch_cost(ask->inspector, &r->o, &w->out));
        KH_TRY(send_meta(w));
    } else if (r->path) {
        KH_TRY(kh_patch_paths(ask->inspector, &r->o, r->to, r->input, &w->out));
    } else {
        KH_TRY(kh_patch_sweep(ask->inspector, &r->o, &w->out));
    }
    return flush(w);
}

/* The exact cells behind their estimates. */
static kh_status check(rows *w, const request *r)
{
    kh_patch_options exact = r->o;
    exact.estimate = 0;
    w->checking = 1;
    KH_TRY(kh_patch_sweep(w->ask->inspector, &exact, &w->out));
    return flush(w);
}

static kh_status patch(rows *w, request *r)
{
    const wire_ask *ask = w->ask;
    double start = wire_seconds();
    KH_TRY(read_request(r, ask));
    if (r->clean.count == r->corrupted.count) KH_TRY(choose_tokens(r, ask));
    KH_TRY(set(ask, &r->corrupted));
    r->o.cell = take_cell;
    r->o.context = w;
    double begin = wire_seconds();
    KH_TRY(sweep(w, r));
    double between = wire_seconds();
    int checked = r->check && !r->cost_only;
    if (checked) KH_TRY(check(w, r));
    double end = wire_seconds();
    json_t *done = json_pack("{s:s, s:o, s:o}", "type", "done", "strongest", strongest_json(w),
                             "seconds", wire_real(end - start));
    if (checked)
        json_object_set_new(done, "check",
                            json_pack("{s:o, s:o, s:o}", "agreement", agreement_json(w),
                                      "estimate_seconds", wire_real(between - begin),
                                      "exact_seconds", wire_real(end - between)));
    return wire_send(ask, done);
}

kh_status wire_patch(const wire_ask *ask)
{
    request r = {0};
    rows w = {.ask = ask, .r = &r};
    kh_status status = patch(&w, &r);
    json_decref(w.row);
    kh_free(w.estimates);
    wire_subject_free(&r.clean);
    wire_subject_free(&r.corrupted);
    return status;
}
