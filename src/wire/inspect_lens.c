/* Lenses as frames: meta, prompt, a frame for each position, done.
 *
 * A position's cells lie in arrays by tap, then by layer, so that a grid of thousands of cells is some dozens of
 * arrays; names are those that Neuronpedia's lens has (layers_by_type, top_tokens, top_probs ...). */
#include "wire/questions.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "wire/json_value.h"

#include <math.h>
#include <string.h>
#include <time.h>

enum { TAPS = 3, MOST_TOP = 1000, MOST_TRACKED = 64, MOST_NEW = 4096 };

double wire_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

kh_status wire_send(const wire_ask *ask, json_t *value)
{
    if (value && !wire_is_short()) return ask->sink.send(ask->sink.context, value);
    json_decref(value);
    KH_FAIL(KH_ERR_MEMORY, "no memory for the answer");
}

/* ---- the request ---- */

typedef struct request {
    kh_lens_options o;
    int32_t *tracked;
    int cost_only, progress;
    size_t new_tokens;
} request;

static kh_status read_taps(unsigned *taps, const json_t *body)
{
    const json_t *list = NULL;
    KH_TRY(wire_get_array(body, "taps", &list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        int tap = 0;
        while (name && tap < TAPS && strcmp(name, kh_tap_name((kh_tap)tap)) != 0) tap++;
        if (!name || tap == TAPS)
            KH_FAIL(KH_ERR_ARGUMENT, "taps: \"before\", \"between\" and \"after\" are expected");
        *taps |= 1u << tap;
    }
    return KH_OK;
}

/* A list of layers that follow one another. */
static kh_status read_layers(kh_lens_options *o, const json_t *body, int layers)
{
    int32_t *list = NULL;
    size_t count = 0;
    KH_TRY(wire_get_ids(body, "layers", layers, &list, &count));
    for (size_t i = 1; i < count; i++)
        if (list[i] != list[i - 1] + 1) {
            kh_free(list);
            KH_FAIL(KH_ERR_ARGUMENT, "layers: numbers that follow one another are expected");
        }
    if (count) {
        o->first_layer = list[0];
        o->layers = (int)count;
    }
    kh_free(list);
    return KH_OK;
}

static kh_status read_request(request *r, const kh_model *model, const json_t *body)
{
    int64_t first = 0, count = 0, top = 10, bottom = 0, more = 0;
    const kh_model_info *info = kh_model_get_info(model);
    KH_TRY(wire_get_int(body, "first", &first, 0, 1 << 24));
    KH_TRY(wire_get_int(body, "count", &count, 0, 1 << 24));
    KH_TRY(wire_get_int(body, "top_n", &top, 1, MOST_TOP));
    KH_TRY(wire_get_int(body, "bottom_n", &bottom, 0, MOST_TOP));
    KH_TRY(wire_get_int(body, "num_completion_tokens", &more, 0, MOST_NEW));
    KH_TRY(wire_get_flag(body, "cost_only", &r->cost_only));
    KH_TRY(wire_get_flag(body, "progress", &r->progress));
    KH_TRY(wire_get_ids(body, "tracked", info->vocabulary, &r->tracked, &r->o.tracked_count));
    KH_TRY(read_taps(&r->o.taps, body));
    KH_TRY(read_layers(&r->o, body, info->layers));
    r->o.first = (size_t)first;
    r->o.count = (size_t)count;
    r->o.top = (int)top;
    r->o.bottom = (int)bottom;
    r->o.tracked = r->tracked;
    r->new_tokens = (size_t)more;
    return KH_OK;
}

/* ---- a position ---- */

typedef struct arrays {
    json_t *ids, *texts, *probabilities, *bottom_ids, *bottom_texts;
    json_t *entropy, *kl, *norm, *tracked;
} arrays;

typedef struct frames {
    const wire_ask *ask;
    const request *r;
    int taps[TAPS], tap_count;
    size_t prompt, position;
    int open; /* 1: a position is being collected */
    double next, surprise;
    arrays at[TAPS];
} frames;

static void open_position(frames *f, size_t position)
{
    f->position = position;
    f->open = 1;
    for (int t = 0; t < f->tap_count; t++)
        f->at[t] = (arrays){json_array(), json_array(), json_array(), json_array(), json_array(),
                            json_array(), json_array(), json_array(), json_array()};
}

static json_t *texts_of(const kh_model *model, const kh_lens_token *tokens, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, wire_token_text(model, tokens[i].id));
    return list;
}

static json_t *ids_of(const kh_lens_token *tokens, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) json_array_append_new(list, json_integer(tokens[i].id));
    return list;
}

static json_t *probabilities_of(const kh_lens_token *tokens, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, wire_real((double)tokens[i].probability));
    return list;
}

static json_t *tracked_of(const kh_model *model, const kh_lens_cell *c)
{
    json_t *list = json_array();
    for (size_t i = 0; i < c->tracked_count; i++)
        json_array_append_new(list, wire_scored(model, &c->tracked[i]));
    return list;
}

/* {"after": array, ...}; takes the arrays. */
static json_t *by_tap(frames *f, size_t member)
{
    json_t *out = json_object();
    for (int t = 0; t < f->tap_count; t++) {
        json_t **array = (json_t **)(void *)((char *)&f->at[t] + member);
        json_object_set_new(out, kh_tap_name((kh_tap)f->taps[t]), *array);
        *array = NULL;
    }
    return out;
}

static json_t *layers_of(const frames *f)
{
    json_t *out = json_object();
    const kh_lens_options *o = &f->r->o;
    int layers = o->layers ? o->layers : kh_model_get_info(f->ask->model)->layers - o->first_layer;
    for (int t = 0; t < f->tap_count; t++) {
        json_t *list = json_array();
        for (int l = 0; l < layers; l++)
            json_array_append_new(list, json_integer(o->first_layer + l));
        json_object_set_new(out, kh_tap_name((kh_tap)f->taps[t]), list);
    }
    return out;
}

static void drop_position(frames *f)
{
    for (int t = 0; t < f->tap_count && f->open; t++) {
        json_t *all[] = {f->at[t].ids,        f->at[t].texts,        f->at[t].probabilities,
                         f->at[t].bottom_ids, f->at[t].bottom_texts, f->at[t].entropy,
                         f->at[t].kl,         f->at[t].norm,         f->at[t].tracked};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) json_decref(all[i]);
    }
    f->open = 0;
}

static kh_status send_position(frames *f)
{
    const kh_model *model = f->ask->model;
    if (!f->open) return KH_OK;
    int32_t id = kh_inspector_tokens(f->ask->inspector)[f->position];
    json_t *frame = json_pack(
        "{s:s, s:I, s:i, s:o, s:b, s:b, s:o, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "type",
        "token", "position", (json_int_t)f->position, "id", (int)id, "token",
        wire_token_text(model, id), "is_generated", f->position >= f->prompt,
        "is_char_continuation", wire_continues(model, id), "layers_by_type", layers_of(f), "top_n",
        f->r->o.top, "top_ids", by_tap(f, offsetof(arrays, ids)), "top_tokens",
        by_tap(f, offsetof(arrays, texts)), "top_probs", by_tap(f, offsetof(arrays, probabilities)),
        "entropy", by_tap(f, offsetof(arrays, entropy)), "kl", by_tap(f, offsetof(arrays, kl)),
        "norm", by_tap(f, offsetof(arrays, norm)), "surprise", wire_real(f->surprise),
        "next_surprise", wire_real(-f->next));
    if (frame && f->r->o.bottom > 0) {
        json_object_set_new(frame, "bottom_ids", by_tap(f, offsetof(arrays, bottom_ids)));
        json_object_set_new(frame, "bottom_tokens", by_tap(f, offsetof(arrays, bottom_texts)));
    }
    if (frame && f->r->o.tracked_count > 0)
        json_object_set_new(frame, "tracked", by_tap(f, offsetof(arrays, tracked)));
    drop_position(f);
    f->surprise = -f->next;
    return wire_send(f->ask, frame);
}

static kh_status take_cell(void *context, const kh_lens_cell *c)
{
    frames *f = context;
    const kh_model *model = f->ask->model;
    int t = 0;
    if (!f->open || f->position != c->position) {
        KH_TRY(send_position(f));
        open_position(f, c->position);
    }
    while (f->taps[t] != (int)c->tap) t++;
    arrays *a = &f->at[t];
    f->next = c->next;
    json_array_append_new(a->ids, ids_of(c->top, c->top_count));
    json_array_append_new(a->texts, texts_of(model, c->top, c->top_count));
    json_array_append_new(a->probabilities, probabilities_of(c->top, c->top_count));
    json_array_append_new(a->bottom_ids, ids_of(c->bottom, c->bottom_count));
    json_array_append_new(a->bottom_texts, texts_of(model, c->bottom, c->bottom_count));
    json_array_append_new(a->entropy, wire_real(c->entropy));
    json_array_append_new(a->kl, wire_real(c->kl));
    json_array_append_new(a->norm, wire_real(c->norm));
    if (json_array_append_new(a->tracked, tracked_of(model, c)) != 0)
        KH_FAIL(KH_ERR_MEMORY, "no memory for the cells of a lens");
    return KH_OK;
}

/* ---- the whole ---- */

static json_t *cost_of(const kh_lens_need *need)
{
    return json_pack("{s:I, s:I, s:f, s:I}", "cells", (json_int_t)need->cells, "rows",
                     (json_int_t)need->rows, "operations", need->operations, "bytes",
                     (json_int_t)need->bytes);
}

static json_t *tap_names(const frames *f)
{
    json_t *list = json_array();
    for (int t = 0; t < f->tap_count; t++)
        json_array_append_new(list, json_string(kh_tap_name((kh_tap)f->taps[t])));
    return list;
}

static kh_status send_heads(frames *f, const kh_lens_need *need)
{
    const wire_ask *ask = f->ask;
    const kh_model_info *info = kh_model_get_info(ask->model);
    size_t length = kh_inspector_length(ask->inspector);
    const json_t *edits = wire_member(ask->body, "edits");
    json_t *layers = layers_of(f);
    json_t *first = json_object_get(layers, kh_tap_name((kh_tap)f->taps[0]));
    json_t *meta = json_pack(
        "{s:s, s:s, s:s, s:s, s:O, s:o, s:I, s:I, s:i, s:o, s:o}", "type", "meta", "model",
        info->name, "identity", info->identity, "attn", kh_inspector_attn(ask->inspector), "layers",
        first, "taps", tap_names(f), "first", (json_int_t)f->r->o.first, "count",
        (json_int_t)(f->r->o.count ? f->r->o.count : length - f->r->o.first), "top_n", f->r->o.top,
        "edits", edits ? json_deep_copy(edits) : json_array(), "cost", cost_of(need));
    json_decref(layers);
    KH_TRY(wire_send(ask, meta));
    json_t *tokens = wire_text_tokens(ask->model, kh_inspector_tokens(ask->inspector), length);
    return wire_send(ask, json_pack("{s:s, s:o, s:I}", "type", "prompt", "tokens", tokens,
                                    "prompt_tokens", (json_int_t)f->prompt));
}

static kh_status complete_text(const wire_ask *ask, size_t count)
{
    const kh_generate_options options = {.max_tokens = count};
    kh_generate_result result;
    return count ? kh_inspector_generate(ask->inspector, &options, &result) : KH_OK;
}

/* What lies before the first cell is read in any case: in steps, if somebody wants to know how far it is. Nothing is said of
 * what was read before. */
static kh_status read_before(const frames *f)
{
    enum { STEP = 512 };
    size_t first = f->r->o.first;
    for (size_t at = STEP; f->r->progress && at < first; at += STEP) {
        double start = wire_seconds();
        KH_TRY(kh_inspector_read(f->ask->inspector, at));
        if (wire_seconds() - start > 0.01)
            KH_TRY(wire_send(f->ask, json_pack("{s:s, s:I, s:I}", "type", "reading", "read",
                                               (json_int_t)at, "of", (json_int_t)first)));
    }
    return KH_OK;
}

static kh_status lens(const wire_ask *ask, request *r)
{
    double start = wire_seconds();
    kh_lens_need need;
    frames f = {.ask = ask, .r = r, .next = (double)NAN, .surprise = (double)NAN};
    unsigned taps = r->o.taps ? r->o.taps : 1u << KH_TAP_AFTER;
    for (int t = 0; t < TAPS; t++)
        if (taps >> t & 1) f.taps[f.tap_count++] = t;
    f.prompt = kh_inspector_length(ask->inspector);
    int64_t prompt = (int64_t)f.prompt;
    KH_TRY(wire_get_int(ask->body, "prompt_tokens", &prompt, 0, 1 << 24));
    if (prompt > 0 && (size_t)prompt < f.prompt) f.prompt = (size_t)prompt;
    KH_TRY(complete_text(ask, r->new_tokens));
    KH_TRY(kh_lens_cost(ask->inspector, &r->o, &need));
    KH_TRY(send_heads(&f, &need));
    r->o.cell = take_cell;
    r->o.context = &f;
    if (!r->cost_only) {
        kh_status status = read_before(&f);
        if (status == KH_OK) status = kh_lens(ask->inspector, &r->o);
        if (status == KH_OK) status = send_position(&f);
        drop_position(&f);
        KH_TRY(status);
    }
    return wire_send(ask,
                     json_pack("{s:s, s:f, s:I}", "type", "done", "seconds", wire_seconds() - start,
                               "peak_bytes", (json_int_t)kh_peak_memory()));
}

kh_status wire_lens(const wire_ask *ask)
{
    request r = {0};
    KH_TRY(wire_set_subject(ask));
    kh_status status = read_request(&r, ask->model, ask->body);
    if (status == KH_OK) status = lens(ask, &r);
    kh_free(r.tracked);
    return status;
}

/* ---- the model's own distributions ---- */

typedef struct nexts {
    const wire_ask *ask;
    json_t *list;
} nexts;

static kh_status take_next(void *context, const kh_lens_cell *c)
{
    nexts *n = context;
    json_t *tokens = json_array();
    for (size_t i = 0; i < c->top_count; i++)
        json_array_append_new(tokens, wire_scored(n->ask->model, &c->top[i]));
    json_t *one = json_pack("{s:I, s:o, s:o, s:o}", "position", (json_int_t)c->position, "next",
                            tokens, "entropy", wire_real(c->entropy), "next_surprise",
                            wire_real(-c->next));
    if (json_array_append_new(n->list, one) != 0)
        KH_FAIL(KH_ERR_MEMORY, "no memory for the answer");
    return KH_OK;
}

kh_status wire_next(const wire_ask *ask)
{
    request r = {0};
    nexts n = {ask, NULL};
    KH_TRY(wire_set_subject(ask));
    kh_status status = read_request(&r, ask->model, ask->body);
    n.list = json_array();
    r.o.first_layer = kh_model_get_info(ask->model)->layers - 1;
    r.o.layers = 1;
    r.o.taps = 0;
    r.o.bottom = 0;
    r.o.cell = take_next;
    r.o.context = &n;
    if (status == KH_OK) status = kh_lens(ask->inspector, &r.o);
    kh_free(r.tracked);
    if (status != KH_OK) {
        json_decref(n.list);
        return status;
    }
    return wire_send(ask, json_pack("{s:o}", "positions", n.list));
}

static kh_status keep_two(void *context, const kh_lens_cell *c)
{
    memcpy(context, c->top, 2 * sizeof *c->top);
    return KH_OK;
}

kh_status wire_best_two(const wire_ask *ask, size_t position, kh_lens_token *best)
{
    kh_lens_options o = {.first = position,
                         .count = 1,
                         .first_layer = kh_model_get_info(ask->model)->layers - 1,
                         .layers = 1,
                         .top = 2,
                         .cell = keep_two,
                         .context = best};
    return kh_lens(ask->inspector, &o);
}
