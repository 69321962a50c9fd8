/* Dominant neurons, and a neuron's card, in JSON. */
#include "wire/questions.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "wire/json_value.h"

#include <stdio.h>
#include <string.h>

enum { MOST = 1000, MOST_NEURONS = 1 << 20, VALUE_TOKENS = 5 };

static kh_status lists_of(const wire_ask *ask, const float *coefficients, size_t count,
                          const kh_vocabulary_end *top, const kh_vocabulary_end *bottom,
                          json_t **out)
{
    *out = json_array();
    for (size_t i = 0; i < count; i++) {
        const kh_vocabulary_end *end = coefficients && coefficients[i] < 0 ? &bottom[i] : &top[i];
        if (json_array_append_new(*out, wire_raw_tokens(ask->model, end->tokens, end->count)) == 0)
            continue;
        json_decref(*out);
        *out = NULL;
        KH_FAIL(KH_ERR_MEMORY, "no memory for tokens");
    }
    return KH_OK;
}

kh_status wire_promoted(const wire_ask *ask, const kh_component *neurons, const float *coefficients,
                        size_t count, json_t **out)
{
    kh_vocabulary_end *ends = NULL;
    *out = NULL;
    if (count == 0) {
        *out = json_array();
        return KH_OK;
    }
    KH_TRY(kh_new(&ends, 2 * count, sizeof *ends, "tokens"));
    kh_status status = kh_neuron_tokens(ask->inspector, neurons, count, VALUE_TOKENS, ends,
                                        coefficients ? ends + count : NULL);
    if (status == KH_OK) status = lists_of(ask, coefficients, count, ends, ends + count, out);
    for (size_t i = 0; i < 2 * count; i++) kh_vocabulary_end_free(&ends[i]);
    kh_free(ends);
    return status;
}

static json_t *neuron_json(const kh_neuron_here *n, int asked, const json_t *tokens, size_t at)
{
    const kh_component part = {KH_COMPONENT_NEURON, n->layer, n->neuron, 0};
    json_t *list = json_array_get(tokens, at);
    return json_pack("{s:o, s:i, s:o, s:o, s:o, s:O*}", "part", wire_part_text(&part), "neuron",
                     n->neuron, "coefficient", wire_real((double)n->coefficient), "score",
                     wire_real(n->score), "value", asked ? wire_real(n->value) : json_null(),
                     "tokens", list);
}

static json_t *layers_json(const kh_neuron_here *all, size_t count, int asked, const json_t *tokens)
{
    json_t *layers = json_array(), *list = NULL;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || all[i].layer != all[i - 1].layer) {
            list = json_array();
            json_array_append_new(layers,
                                  json_pack("{s:i, s:o}", "layer", all[i].layer, "neurons", list));
        }
        if (json_array_append_new(list, neuron_json(&all[i], asked, tokens, i)) == 0) continue;
        json_decref(layers);
        return NULL;
    }
    return layers;
}

static kh_status promoted_here(const wire_ask *ask, const kh_neuron_here *all, size_t count,
                               json_t **out)
{
    kh_component *parts = NULL;
    float *coefficients = NULL;
    kh_status status = kh_new(&parts, count + 1, sizeof *parts, "neurons");
    if (status == KH_OK) status = kh_new(&coefficients, count + 1, sizeof *coefficients, "neurons");
    for (size_t i = 0; i < count && status == KH_OK; i++) {
        parts[i] = (kh_component){KH_COMPONENT_NEURON, all[i].layer, all[i].neuron, 0};
        coefficients[i] = all[i].coefficient;
    }
    if (status == KH_OK) status = wire_promoted(ask, parts, coefficients, count, out);
    kh_free(parts);
    kh_free(coefficients);
    return status;
}

kh_status wire_neurons(const wire_ask *ask)
{
    double start = wire_seconds();
    kh_neurons_options o = {0};
    int64_t layer = -1, most = 10;
    json_t *tokens = NULL;
    int promotes = 1;
    const char *by = "score";
    kh_neuron_here *all = NULL;
    size_t count = 0;
    KH_TRY(wire_set_subject(ask));
    KH_TRY(wire_get_int(ask->body, "layer", &layer, 0, kh_model_get_info(ask->model)->layers - 1));
    KH_TRY(wire_get_int(ask->body, "most", &most, 1, MOST_NEURONS));
    KH_TRY(wire_get_text(ask->body, "by", &by, NULL));
    KH_TRY(wire_get_flag(ask->body, "promotes", &promotes));
    KH_TRY(wire_position(ask->body, ask->inspector, &o.position));
    KH_TRY(wire_maybe_question(ask, &o.a, &o.b));
    if (strcmp(by, "score") != 0 && strcmp(by, "value") != 0)
        KH_FAIL(KH_ERR_ARGUMENT, "by: \"score\" or \"value\" is expected, found \"%.40s\"", by);
    o.by_value = strcmp(by, "value") == 0;
    o.layer = (int)layer;
    o.most = (size_t)most;
    KH_TRY(kh_neurons(ask->inspector, &o, &all, &count));
    kh_status status = promotes ? promoted_here(ask, all, count, &tokens) : KH_OK;
    json_t *layers = status == KH_OK ? layers_json(all, count, o.a >= 0, tokens) : NULL;
    json_decref(tokens);
    kh_neurons_free(all);
    KH_TRY(status);
    return wire_send(ask, json_pack("{s:I, s:o, s:o}", "position", (json_int_t)o.position, "layers",
                                    layers, "seconds", wire_real(wire_seconds() - start)));
}

/* ---- a card ---- */

static json_t *ends_json(const wire_ask *ask, const kh_vocabulary_end *top,
                         const kh_vocabulary_end *bottom)
{
    if (top->count == 0) return json_null();
    return json_pack("{s:o, s:o}", "top", wire_raw_tokens(ask->model, top->tokens, top->count),
                     "bottom", wire_raw_tokens(ask->model, bottom->tokens, bottom->count));
}

static json_t *neighbours_json(const kh_neuron *card)
{
    json_t *list = json_array();
    for (size_t i = 0; i < card->neighbour_count; i++) {
        const kh_component part = {KH_COMPONENT_NEURON, card->neighbours[i].layer,
                                   card->neighbours[i].neuron, 0};
        json_array_append_new(list, json_pack("{s:o, s:o}", "part", wire_part_text(&part), "cosine",
                                              wire_real(card->neighbours[i].cosine)));
    }
    return list;
}

/* Which of the four cases of a gated neuron this is. */
static json_t *case_of(const kh_neuron_state *s, int gated)
{
    if (!gated) return json_string(s->gate < 0 ? "pre -" : "pre +");
    char text[24];
    snprintf(text, sizeof text, "gate %c up %c", s->gate < 0 ? '-' : '+', s->up < 0 ? '-' : '+');
    return json_string(text);
}

static kh_status here_json(const wire_ask *ask, const kh_component *part, int gated, json_t **out)
{
    size_t position;
    int32_t a, b;
    kh_neuron_state s;
    *out = NULL;
    if (!wire_member(ask->body, "prompt") && !json_is_array(wire_member(ask->body, "tokens"))) {
        *out = json_null();
        return KH_OK;
    }
    KH_TRY(wire_set_subject(ask));
    KH_TRY(wire_position(ask->body, ask->inspector, &position));
    KH_TRY(wire_maybe_question(ask, &a, &b));
    KH_TRY(kh_neuron_at(ask->inspector, position, part->layer, part->index, a, b, &s));
    *out = json_pack("{s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "position", (json_int_t)position,
                     "gate", wire_real((double)s.gate), "up",
                     gated ? wire_real((double)s.up) : json_null(), "activated",
                     wire_real((double)s.activated), "coefficient",
                     wire_real((double)s.coefficient), "score", wire_real(s.score), "value",
                     a >= 0 ? wire_real(s.value) : json_null(), "case", case_of(&s, gated));
    return KH_OK;
}

kh_status wire_neuron(const wire_ask *ask)
{
    double start = wire_seconds();
    kh_component part;
    kh_neuron_options o = {.vectors = 1};
    kh_neuron card;
    int64_t tokens = 50, neighbours = 10;
    json_t *here = NULL;
    KH_TRY(wire_part(ask->body, "part", ask->model, &part));
    if (part.kind != KH_COMPONENT_NEURON)
        KH_FAIL(KH_ERR_ARGUMENT, "part: a neuron such as L12N345 is expected");
    KH_TRY(wire_get_int(ask->body, "top_n", &tokens, 1, MOST));
    KH_TRY(wire_get_int(ask->body, "neighbours", &neighbours, 0, MOST));
    o.layer = part.layer;
    o.neuron = part.index;
    o.tokens = (size_t)tokens;
    o.neighbours = (size_t)neighbours;
    KH_TRY(kh_neuron_open(&card, ask->inspector, &o));
    kh_status status = here_json(ask, &part, card.gate_top.count > 0, &here);
    json_t *out = json_pack(
        "{s:o, s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "part", wire_part_text(&part),
        "layer", part.layer, "neuron", part.index, "value_norm", wire_real(card.value_norm),
        "gate_norm", card.gate_top.count ? wire_real(card.gate_norm) : json_null(), "up_norm",
        wire_real(card.up_norm), "value", ends_json(ask, &card.value_top, &card.value_bottom),
        "gate", ends_json(ask, &card.gate_top, &card.gate_bottom), "up",
        ends_json(ask, &card.up_top, &card.up_bottom), "here", here ? here : json_null(),
        "neighbours", neighbours_json(&card));
    kh_neuron_free(&card);
    if (status != KH_OK) {
        json_decref(out);
        return status;
    }
    if (out) json_object_set_new(out, "seconds", wire_real(wire_seconds() - start));
    return wire_send(ask, out);
}
