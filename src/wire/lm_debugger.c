/* The three calls of LM-Debugger (Geva et al. 2022, EMNLP demos; arXiv 2204.12130), in its JSON, member for member, so
 * that its page and its scripts find here what they know.
 *
 *     before, after        the lens between attention and feed-forward, and behind it, at the prompt's last position
 *     significant_values   the ten neurons of a layer with the largest |coefficient| times norm of the value vector
 *     interventions        edits that are called compat here, over all positions and steps, with its S: the layer's largest
 *                          score at the prompt's last position, read once without interventions
 *
 * Tokens are decoded text in traces, and in projections what the vocabulary has ("Ġthe"), as it mixed them. Where it
 * answered {} with status 200, or took a neuron that does not exist, there is a status and a sentence here: that is the
 * one difference. It knew no other order of layers than attention first, so blocks whose halves run side by side have no
 * `before`, and are refused. */
#include "wire/questions.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"
#include "wire/json_value.h"

#include <stdio.h>

enum { LISTED = 10, PROJECTED = 50, GENERATED = 5, MOST_GENERATED = 4096, PIECE = 512 };

static kh_status needed_int(const json_t *object, const char *name, int64_t *out, int64_t least,
                            int64_t most)
{
    if (!wire_member(object, name)) KH_FAIL(KH_ERR_ARGUMENT, "%s: it is missing", name);
    return wire_get_int(object, name, out, least, most);
}

static kh_status neuron_of(const wire_ask *ask, const json_t *object, kh_component *out)
{
    const kh_model_info *info = kh_model_get_info(ask->model);
    int64_t layer = 0, dim = 0;
    KH_TRY(needed_int(object, "layer", &layer, 0, info->layers - 1));
    KH_TRY(needed_int(object, "dim", &dim, 0, info->ff_width - 1));
    *out = (kh_component){KH_COMPONENT_NEURON, (int)layer, (int)dim, 0};
    return KH_OK;
}

/* ---- GET /get_projections/layer/L/dim/D */

static json_t *stored_token(const kh_model *model, int32_t id)
{
    char bytes[PIECE];
    size_t n = kh_model_marker(model, id, bytes, sizeof bytes);
    return wire_text(bytes, n < sizeof bytes ? n : sizeof bytes);
}

kh_status wire_lm_projections(const wire_ask *ask)
{
    kh_component neuron;
    kh_vocabulary_end top = {0};
    KH_TRY(neuron_of(ask, ask->body, &neuron));
    int vocabulary = kh_model_get_info(ask->model)->vocabulary;
    size_t most = vocabulary < PROJECTED ? (size_t)vocabulary : PROJECTED;
    kh_status status = kh_neuron_tokens(ask->inspector, &neuron, 1, most, &top, NULL);
    json_t *list = json_array();
    for (size_t i = 0; i < top.count; i++)
        json_array_append_new(list, json_pack("{s:o, s:o}", "token",
                                              stored_token(ask->model, top.tokens[i].id), "logit",
                                              wire_real((double)top.tokens[i].logit)));
    int whole = json_array_size(list) == top.count;
    kh_vocabulary_end_free(&top);
    if (status == KH_OK && !whole) status = kh_fail(KH_ERR_MEMORY, "no memory for tokens");
    if (status != KH_OK) {
        json_decref(list);
        return status;
    }
    return wire_send(ask, json_pack("{s:i, s:i, s:o}", "layer", neuron.layer, "dim", neuron.index,
                                    "top_k", list));
}

/* ---- the subject of the two others */

/* An item of interventions as the text of an edit. */
static kh_status add_edit(const wire_ask *ask, const json_t *item, json_t *edits)
{
    kh_component neuron;
    char part[KH_COMPONENT_TEXT];
    double coefficient = 0;
    if (!json_is_object(item))
        KH_FAIL(KH_ERR_ARGUMENT, "{\"layer\", \"dim\", \"coeff\"} is expected");
    KH_TRY(neuron_of(ask, item, &neuron));
    if (!wire_member(item, "coeff")) KH_FAIL(KH_ERR_ARGUMENT, "coeff: it is missing");
    KH_TRY(wire_get_real(item, "coeff", &coefficient, -1e30, 1e30));
    kh_component_text(&neuron, part, sizeof part);
    if (json_array_append_new(edits, json_sprintf("%s:compat=%d", part, coefficient > 0)) != 0)
        KH_FAIL(KH_ERR_MEMORY, "no memory for interventions");
    return KH_OK;
}

static kh_status read_subject(const wire_ask *ask, wire_subject *out)
{
    const json_t *list = NULL;
    const char *prompt = NULL;
    kh_status status = KH_OK;
    KH_TRY(wire_get_text(ask->body, "prompt", &prompt, NULL));
    if (!prompt) KH_FAIL(KH_ERR_ARGUMENT, "prompt: a text is expected");
    KH_TRY(wire_get_array(ask->body, "interventions", &list));
    json_t *edits = json_array();
    for (size_t i = 0; list && i < json_array_size(list) && status == KH_OK; i++) {
        status = add_edit(ask, json_array_get(list, i), edits);
        if (status != KH_OK) kh_fail_context(status, "interventions: entry %zu", i);
    }
    json_t *body = json_pack("{s:O, s:o}", "prompt", wire_member(ask->body, "prompt"), "edits",
                             edits);
    if (status == KH_OK && !body) status = kh_fail(KH_ERR_MEMORY, "no memory for interventions");
    if (status == KH_OK) status = wire_subject_read(out, ask->model, body);
    json_decref(body);
    return status;
}

/* ---- POST /get_data */

/* [{"token", "score"}], most probable first. */
static json_t *predictions(const kh_model *model, const kh_lens_cell *cell)
{
    json_t *list = json_array();
    for (size_t i = 0; i < cell->top_count; i++)
        if (json_array_append_new(list, json_pack("{s:o, s:o}", "token",
                                                  wire_token_text(model, cell->top[i].id), "score",
                                                  wire_real((double)cell->top[i].probability)))) {
            json_decref(list);
            return NULL;
        }
    return list;
}

typedef struct trace {
    const kh_model *model;
    json_t *layers;
} trace;

static kh_status take_cell(void *context, const kh_lens_cell *cell)
{
    trace *t = context;
    json_t *list = predictions(t->model, cell);
    int failed;
    if (cell->tap == KH_TAP_BETWEEN)
        failed = json_array_append_new(
            t->layers, json_pack("{s:i, s:o}", "layer", cell->layer, "predictions_before", list));
    else
        failed = json_object_set_new(json_array_get(t->layers, (size_t)cell->layer),
                                     "predictions_after", list);
    if (failed) KH_FAIL(KH_ERR_MEMORY, "no memory for a trace");
    return KH_OK;
}

static kh_status add_neurons(const wire_ask *ask, json_t *layers)
{
    kh_neurons_options o = {.position = kh_inspector_length(ask->inspector) - 1,
                            .layer = -1,
                            .a = KH_TOKEN_NONE,
                            .b = KH_TOKEN_NONE,
                            .most = LISTED};
    kh_neuron_here *all = NULL;
    json_t *layer;
    size_t count = 0, l;
    int failed = 0;
    KH_TRY(kh_neurons(ask->inspector, &o, &all, &count));
    json_array_foreach(layers, l, layer)
    {
        json_t *list = json_array();
        for (size_t i = 0; i < count; i++)
            if ((size_t)all[i].layer == l)
                failed |= json_array_append_new(list, json_pack("{s:i, s:i, s:o}", "layer",
                                                                all[i].layer, "dim", all[i].neuron,
                                                                "score", wire_real(all[i].score)));
        failed |= json_object_set_new(layer, "significant_values", list);
    }
    kh_neurons_free(all);
    if (failed) KH_FAIL(KH_ERR_MEMORY, "no memory for a trace");
    return KH_OK;
}

static kh_status trace_of(const wire_ask *ask, const wire_subject *s, size_t edits, json_t **out)
{
    int vocabulary = kh_model_get_info(ask->model)->vocabulary;
    trace t = {ask->model, NULL};
    kh_lens_options o = {.first = s->count - 1,
                         .count = 1,
                         .taps = 1u << KH_TAP_BETWEEN | 1u << KH_TAP_AFTER,
                         .top = vocabulary < LISTED ? vocabulary : LISTED,
                         .cell = take_cell,
                         .context = &t};
    KH_TRY(kh_inspector_set(ask->inspector, s->ids, s->count, s->count, s->edits, edits));
    t.layers = json_array();
    kh_status status = kh_lens(ask->inspector, &o);
    if (status == KH_OK) status = add_neurons(ask, t.layers);
    if (status == KH_OK) {
        *out = json_pack("{s:O, s:O}", "prompt", wire_member(ask->body, "prompt"), "layers",
                         t.layers);
        if (!*out) status = kh_fail(KH_ERR_MEMORY, "no memory for a trace");
    }
    json_decref(t.layers);
    return status;
}

kh_status wire_lm_data(const wire_ask *ask)
{
    wire_subject s;
    json_t *response = NULL, *intervention = NULL;
    KH_TRY(read_subject(ask, &s));
    kh_status status = trace_of(ask, &s, 0, &response);
    if (status == KH_OK && s.edit_count > 0)
        status = trace_of(ask, &s, s.edit_count, &intervention);
    wire_subject_free(&s);
    json_t *out = status == KH_OK ? json_pack("{s:O}", "response", response) : NULL;
    if (intervention && out) json_object_set(out, "intervention", intervention);
    json_decref(response);
    json_decref(intervention);
    KH_TRY(status);
    return wire_send(ask, out);
}

/* ---- POST /generate */

static kh_status take_text(void *context, const char *text, size_t size, const kh_choice *chosen,
                           const kh_choice *alternatives, size_t count)
{
    (void)chosen;
    (void)alternatives;
    (void)count;
    return kh_buf_add(context, text, size);
}

kh_status wire_lm_generate(const wire_ask *ask)
{
    wire_subject s;
    kh_buf text = {0};
    kh_generate_result result;
    int64_t most = GENERATED;
    const json_t *prompt = wire_member(ask->body, "prompt");
    KH_TRY(wire_get_int(ask->body, "generate_k", &most, 1, MOST_GENERATED));
    KH_TRY(read_subject(ask, &s));
    kh_generate_options o = {.max_tokens = (size_t)most, .token = take_text, .context = &text};
    kh_status status = kh_buf_add(&text, json_string_value(prompt), json_string_length(prompt));
    if (status == KH_OK)
        status = kh_inspector_set(ask->inspector, s.ids, s.count, s.count, s.edits, s.edit_count);
    if (status == KH_OK) status = kh_inspector_generate(ask->inspector, &o, &result);
    if (status == KH_OK && result.finish == KH_FINISH_STOPPED)
        status = kh_fail(KH_ERR_STOPPED, "stopped");
    wire_subject_free(&s);
    json_t *out = status == KH_OK ? json_pack("{s:o}", "generate_text",
                                              wire_text(text.data ? text.data : "", text.size))
                                  : NULL;
    kh_buf_free(&text);
    KH_TRY(status);
    return wire_send(ask, out);
}
