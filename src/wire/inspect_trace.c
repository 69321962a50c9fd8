/* Activations as JSON: POST /v1/activation/raw, in the form that Neuronpedia gives the vectors of its prompts.
 *
 *     {"prompts": ["..."], "hook_point": "residual_stream", "type": "final_output_token", "layers": [3, 5]}
 *     {"results": [{"token_strings", "token_ids", "activations": [{"point", "layer", "token_indices", "values"}]}]}
 *
 * That is the stream behind chosen layers at each prompt's last token. hook_point may be any of the names that `keyhole
 * trace --points` takes, and type "all_tokens", or first and count, other positions: the same capture as a trace (kh_trace_read)
 * without its files. `values` has a row for each position: numbers, of heads a list of them for each head, of
 * attn_rows {"idx", "w", "mass"} for each head.
 *
 * A number of JSON needs ten times the memory of a float, so the limit is low, holds for all prompts together, and is checked
 * before the first of them is read: cost_only says what it would be. For more there are files. */
#include "wire/questions.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "wire/json_value.h"

#include <stdio.h>
#include <string.h>

enum { MOST_PROMPTS = 16, USUAL_BYTES = 4 << 20, MOST_BYTES = 64 << 20 };

typedef struct asked {
    const wire_ask *ask;
    const char *hook_point, *type;
    int64_t first, count, limit;
    int last_only, cost_only;
    kh_trace_point *points; /* [point_count] */
    size_t point_count;
    kh_trace_need need; /* of all prompts */
} asked;

/* ---- the request ---- */

/* Of the points that were named, those of `layers`; the ones outside the blocks stay. */
static kh_status choose_layers(asked *a, const json_t *body)
{
    int32_t *layers = NULL;
    size_t count = 0, kept = 0;
    KH_TRY(wire_get_ids(body, "layers", kh_model_get_info(a->ask->model)->layers, &layers, &count));
    for (size_t p = 0; count > 0 && p < a->point_count; p++) {
        int keep = a->points[p].layer < 0;
        for (size_t i = 0; i < count; i++) keep |= layers[i] == a->points[p].layer;
        if (keep) a->points[kept++] = a->points[p];
    }
    if (count > 0) a->point_count = kept;
    kh_free(layers);
    if (a->point_count == 0)
        KH_FAIL(KH_ERR_ARGUMENT, "layers: none of them is one of hook_point '%.60s'",
                a->hook_point);
    return KH_OK;
}

static kh_status read_asked(asked *a, const json_t *body)
{
    const int64_t most = 1 << 24;
    a->hook_point = "residual_stream";
    a->limit = USUAL_BYTES;
    a->first = -1;
    KH_TRY(wire_get_text(body, "hook_point", &a->hook_point, NULL));
    KH_TRY(wire_get_text(body, "type", &a->type, NULL));
    KH_TRY(wire_get_int(body, "first", &a->first, 0, most));
    KH_TRY(wire_get_int(body, "count", &a->count, 0, most));
    KH_TRY(wire_get_int(body, "limit", &a->limit, 1, MOST_BYTES));
    KH_TRY(wire_get_flag(body, "cost_only", &a->cost_only));
    int all = a->type && strcmp(a->type, "all_tokens") == 0,
        last = a->type && strcmp(a->type, "final_output_token") == 0;
    if (a->type && !all && !last)
        KH_FAIL(KH_ERR_ARGUMENT, "type: \"final_output_token\" or \"all_tokens\" is expected");
    a->last_only = last || (!a->type && a->first < 0 && a->count == 0);
    if (last && (a->first >= 0 || a->count > 0))
        KH_FAIL(KH_ERR_ARGUMENT, "first and count: these are of type \"all_tokens\"");
    if (a->first < 0) a->first = 0;
    int stream = strcmp(a->hook_point, "residual_stream") == 0;
    KH_TRY(kh_trace_points_parse(&a->points, &a->point_count, a->ask->model,
                                 stream ? "resid_post" : a->hook_point));
    return choose_layers(a, body);
}

/* The subject of prompt `i`; without a list of them the one of the request. */
static kh_status set_prompt(const asked *a, const json_t *prompts, size_t i)
{
    wire_ask ask = *a->ask;
    if (!prompts) return wire_set_subject(&ask);
    json_t *one = json_pack("{s:O}", "prompt", json_array_get(prompts, i));
    if (!one) KH_FAIL(KH_ERR_MEMORY, "no memory for a prompt");
    static const char *const shared[] = {"template", "edits", "control_vectors", "vectors",
                                         "features"};
    kh_status status = KH_OK;
    for (size_t m = 0; m < sizeof shared / sizeof *shared && status == KH_OK; m++) {
        /* the cast is jansson's: only a count of references changes */
        json_t *member = (json_t *)(uintptr_t)wire_member(ask.body, shared[m]);
        if (member && json_object_set(one, shared[m], member) != 0)
            status = kh_fail(KH_ERR_MEMORY, "no memory for a prompt");
    }
    ask.body = one;
    if (status == KH_OK) status = wire_set_subject(&ask);
    json_decref(one);
    return status;
}

static kh_trace_options options_of(const asked *a)
{
    size_t length = kh_inspector_length(a->ask->inspector);
    return (kh_trace_options){.points = a->points,
                              .count = a->point_count,
                              .first = a->last_only ? length - 1 : (size_t)a->first,
                              .rows = a->last_only ? 1 : (size_t)a->count,
                              .limit = (uint64_t)a->limit};
}

/* ---- the answer ---- */

static json_t *numbers(const float *values, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < count; i++)
        json_array_append_new(list, wire_real((double)values[i]));
    return list;
}

/* Keys, weights and kept mass of one row of one head. */
static json_t *sparse(const kh_trace_rows *r, size_t at)
{
    size_t from = (size_t)r->start[at], n = (size_t)r->start[at + 1] - from;
    json_t *keys = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(keys, json_integer((json_int_t)r->idx[from + i]));
    return json_pack("{s:o, s:o, s:o}", "idx", keys, "w", numbers(r->weights + from, n), "mass",
                     wire_real((double)r->mass[at]));
}

static json_t *row_json(const kh_trace_rows *r, size_t row)
{
    if (!r->heads) return numbers(r->values + row * r->width, r->width);
    json_t *heads = json_array();
    size_t each = r->width / r->heads;
    for (size_t h = 0; h < r->heads; h++)
        json_array_append_new(heads, r->values
                                         ? numbers(r->values + row * r->width + h * each, each)
                                         : sparse(r, row * r->heads + h));
    return heads;
}

static kh_status take(void *context, const kh_trace_rows *r)
{
    json_t *list = context, *indices = json_array(), *values = json_array();
    char name[64];
    snprintf(name, sizeof name, r->at.layer < 0 ? "%s" : "%s.%d", kh_point_name(r->at.point),
             r->at.layer);
    for (size_t i = 0; i < r->rows; i++) {
        json_array_append_new(indices, json_integer((json_int_t)(r->first + i)));
        json_array_append_new(values, row_json(r, i));
    }
    json_t *layer = r->at.layer < 0 ? json_null() : json_integer(r->at.layer);
    json_array_append_new(list, json_pack("{s:s, s:o, s:o, s:o}", "point", name, "layer", layer,
                                          "token_indices", indices, "values", values));
    return KH_OK;
}

static kh_status add_result(const asked *a, json_t *results)
{
    const wire_ask *ask = a->ask;
    kh_inspector *inspector = ask->inspector;
    size_t count = kh_inspector_length(inspector);
    const int32_t *ids = kh_inspector_tokens(inspector);
    const kh_trace_options o = options_of(a);
    json_t *strings = json_array(), *activations = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(strings, wire_token_text(ask->model, ids[i]));
    json_t *result = json_pack("{s:o, s:o, s:O}", "token_strings", strings, "token_ids",
                               wire_ids(ids, count), "activations", activations);
    json_array_append_new(results, result);
    kh_status status = kh_trace_read(inspector, &o, take, activations, NULL);
    json_decref(activations);
    return status;
}

/* What all of them need, before the first is read. */
static kh_status estimate(asked *a, const json_t *prompts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        kh_trace_need need;
        KH_TRY(set_prompt(a, prompts, i));
        const kh_trace_options o = options_of(a);
        KH_TRY(kh_trace_cost(a->ask->inspector, &o, &need));
        a->need.bytes += need.bytes;
        a->need.operations += need.operations;
        a->need.rows += need.rows;
        a->need.points += need.points;
    }
    if (a->cost_only || a->need.bytes <= (uint64_t)a->limit) return KH_OK;
    KH_FAIL(KH_ERR_ARGUMENT,
            "the activations need up to %llu bytes, limit is %lld (at most %d): ask for fewer "
            "layers or positions, or use keyhole trace",
            (unsigned long long)a->need.bytes, (long long)a->limit, MOST_BYTES);
}

static kh_status answer(asked *a, json_t *results)
{
    const wire_ask *ask = a->ask;
    const json_t *prompts = NULL;
    KH_TRY(wire_get_array(ask->body, "prompts", &prompts));
    size_t count = prompts ? json_array_size(prompts) : 1;
    if (count == 0 || count > MOST_PROMPTS)
        KH_FAIL(KH_ERR_ARGUMENT, "prompts: 1 to %d are expected, found %zu", MOST_PROMPTS, count);
    KH_TRY(read_asked(a, ask->body));
    KH_TRY(estimate(a, prompts, count));
    for (size_t i = 0; i < count && !a->cost_only; i++) {
        KH_TRY(set_prompt(a, prompts, i));
        KH_TRY(add_result(a, results));
    }
    const kh_trace_need *need = &a->need;
    return wire_send(ask,
                     json_pack("{s:s, s:s, s:s, s:s, s:{s:I, s:f, s:I, s:I}, s:O}", "hook_point",
                               a->hook_point, "type",
                               a->last_only ? "final_output_token" : "all_tokens", "dtype",
                               "float32", "device", "cpu", "cost", "bytes", (json_int_t)need->bytes,
                               "operations", need->operations, "rows", (json_int_t)need->rows,
                               "points", (json_int_t)need->points, "results", results));
}

kh_status wire_activations(const wire_ask *ask)
{
    asked a = {.ask = ask};
    json_t *results = json_array();
    kh_status status = answer(&a, results);
    json_decref(results);
    kh_trace_points_free(a.points);
    return status;
}
