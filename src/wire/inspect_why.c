/* "Why a, not b", and the row of attention of a head, in JSON. */
#include "wire/questions.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "wire/json_value.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PARTS = 10000, SNIPPETS = 5, AROUND = 6, WRITES = 10 };

/* ---- which tokens ---- */

kh_status wire_maybe_question(const wire_ask *ask, int32_t *a, int32_t *b)
{
    *a = *b = -1;
    KH_TRY(wire_one_token(ask->body, "a", ask->model, a));
    KH_TRY(wire_one_token(ask->body, "b", ask->model, b));
    if (*a < 0 && *b >= 0) KH_FAIL(KH_ERR_ARGUMENT, "b: a token a beside it is expected");
    return KH_OK;
}

/* The tokens a and b of a request: as it names them, else the best at the position; with "alone" no b. */
static kh_status question(const wire_ask *ask, int32_t *a, int32_t *b)
{
    int alone = 0;
    *a = *b = KH_TOKEN_BEST;
    KH_TRY(wire_get_flag(ask->body, "alone", &alone));
    KH_TRY(wire_one_token(ask->body, "a", ask->model, a));
    KH_TRY(wire_one_token(ask->body, "b", ask->model, b));
    if (alone) *b = KH_TOKEN_NONE;
    return KH_OK;
}

/* ---- why ---- */

/* `tokens`: of a neuron. */
static json_t *share_json(const wire_ask *ask, const kh_share *s, json_t *tokens)
{
    int neuron = s->part.kind == KH_COMPONENT_NEURON;
    json_t *out = json_pack("{s:o, s:s, s:i, s:i, s:o}", "part", wire_part_text(&s->part), "kind",
                            neuron ? "neuron" : "head", "layer", s->part.layer, "index",
                            s->part.index, "value", wire_real(s->value));
    if (!out) return NULL;
    if (neuron) {
        json_object_set_new(out, "coefficient", wire_real((double)s->coefficient));
        json_object_set(out, "tokens", tokens);
    } else if (s->source >= 0) {
        int32_t id = kh_inspector_tokens(ask->inspector)[s->source];
        json_object_set_new(out, "source",
                            json_pack("{s:i, s:i, s:o, s:o}", "position", (int)s->source, "id",
                                      (int)id, "text", wire_token_text(ask->model, id), "value",
                                      wire_real(s->source_value)));
    }
    return out;
}

typedef struct kinds {
    int heads, neurons;
} kinds;

static kh_status read_kinds(const json_t *body, kinds *out)
{
    const json_t *list = NULL;
    KH_TRY(wire_get_array(body, "kinds", &list));
    *out = (kinds){list == NULL, list == NULL};
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        out->heads |= name && strcmp(name, "head") == 0;
        out->neurons |= name && strcmp(name, "neuron") == 0;
    }
    if (!out->heads && !out->neurons)
        KH_FAIL(KH_ERR_ARGUMENT, "kinds: \"head\" and \"neuron\" are expected");
    return KH_OK;
}

typedef struct listing {
    kinds which;
    size_t most;
    json_t *tokens; /* of the strongest neurons, in their order */
} listing;

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static kh_status take_tokens(listing *l, const wire_ask *ask, const kh_why *w)
{
    size_t n = l->which.neurons ? least(w->neuron_count, l->most) : 0;
    kh_component *parts = NULL;
    float *coefficients = NULL;
    kh_status status = kh_new(&parts, n + 1, sizeof *parts, "neurons");
    if (status == KH_OK) status = kh_new(&coefficients, n + 1, sizeof *coefficients, "neurons");
    for (size_t i = 0; i < n && status == KH_OK; i++) {
        parts[i] = w->strong_neurons[i].part;
        coefficients[i] = w->strong_neurons[i].coefficient;
    }
    if (status == KH_OK) status = wire_promoted(ask, parts, coefficients, n, &l->tokens);
    kh_free(parts);
    kh_free(coefficients);
    return status;
}

/* Heads and neurons in one order, `most` in all; *listed is their sum. */
static json_t *parts_json(const wire_ask *ask, const kh_why *w, const listing *l, double *listed)
{
    json_t *list = json_array();
    size_t h = 0, n = 0, heads = l->which.heads ? w->head_count : 0;
    size_t neurons = l->which.neurons ? w->neuron_count : 0;
    *listed = 0;
    while (json_array_size(list) < l->most && (h < heads || n < neurons)) {
        int head = n >= neurons || (h < heads && fabs(w->strong_heads[h].value) >=
                                                     fabs(w->strong_neurons[n].value));
        json_t *tokens = head ? NULL : json_array_get(l->tokens, n);
        const kh_share *s = head ? &w->strong_heads[h++] : &w->strong_neurons[n++];
        *listed += s->value;
        if (json_array_append_new(list, share_json(ask, s, tokens)) == 0) continue;
        json_decref(list);
        return NULL;
    }
    return list;
}

static json_t *layers_json(const kh_why *w)
{
    json_t *list = json_array();
    for (int l = 0; l < w->layers; l++)
        json_array_append_new(list, json_pack("{s:i, s:o, s:o}", "layer", l, "attention",
                                              wire_real(w->attention[l].value), "mlp",
                                              wire_real(w->mlp[l].value)));
    return list;
}

static json_t *why_json(const wire_ask *ask, const kh_why *w, size_t position, const listing *l)
{
    double listed;
    json_t *parts = parts_json(ask, w, l, &listed);
    return json_pack(
        "{s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
        "position", (json_int_t)position, "a", wire_scored(ask->model, &w->a), "b",
        w->b.id >= 0 ? wire_scored(ask->model, &w->b) : json_null(), "total", wire_real(w->total),
        "sum", wire_real(w->sum), "leftover", wire_real(w->leftover), "scale", wire_real(w->scale),
        "embed", wire_real(w->embed.value), "bias", wire_real(w->bias.value), "heads",
        wire_real(w->heads), "neurons", wire_real(w->neurons), "mlps", wire_real(w->mlps), "edits",
        wire_real(w->edits), "parts", parts, "others",
        wire_real(w->heads + w->neurons + w->mlps - listed), "layers", layers_json(w));
}

kh_status wire_why(const wire_ask *ask)
{
    double start = wire_seconds();
    kh_why_options o = {0};
    int64_t most = 12;
    listing l = {0};
    kh_why w;
    KH_TRY(wire_set_subject(ask));
    KH_TRY(wire_get_int(ask->body, "most", &most, 1, MOST_PARTS));
    KH_TRY(read_kinds(ask->body, &l.which));
    KH_TRY(wire_position(ask->body, ask->inspector, &o.position));
    KH_TRY(question(ask, &o.a, &o.b));
    o.most = (size_t)most;
    KH_TRY(kh_why_open(&w, ask->inspector, &o));
    l.most = o.most;
    kh_status status = take_tokens(&l, ask, &w);
    json_t *out = status == KH_OK ? why_json(ask, &w, o.position, &l) : NULL;
    json_decref(l.tokens);
    kh_why_free(&w);
    KH_TRY(status);
    if (out) json_object_set_new(out, "seconds", wire_real(wire_seconds() - start));
    return wire_send(ask, out);
}

/* ---- a row of attention ---- */

static json_t *text_between(const wire_ask *ask, size_t from, size_t to)
{
    char *text = NULL;
    size_t size = 0;
    if (from >= to) return json_string("");
    if (kh_model_detokenize(ask->model, kh_inspector_tokens(ask->inspector) + from, to - from,
                            KH_TEXT_SPECIAL, &text, &size) != KH_OK)
        return NULL;
    json_t *out = wire_text(text, size);
    kh_free_text(text);
    return out;
}

static json_t *snippet(const wire_ask *ask, const kh_head_key *key)
{
    size_t at = key->position, length = kh_inspector_length(ask->inspector);
    size_t from = at > AROUND ? at - AROUND : 0, to = at + 1 + AROUND;
    return json_pack("{s:I, s:o, s:o, s:o, s:o, s:o}", "position", (json_int_t)at, "weight",
                     wire_real((double)key->weight), "value", wire_real(key->value), "before",
                     text_between(ask, from, at), "token",
                     wire_token_text(ask->model, kh_inspector_tokens(ask->inspector)[at]), "after",
                     text_between(ask, at + 1, to < length ? to : length));
}

static int by_weight(const void *a, const void *b)
{
    const kh_head_key *x = a, *y = b;
    if (x->weight != y->weight) return x->weight < y->weight ? 1 : -1;
    return x->position < y->position ? -1 : 1;
}

static json_t *head_json(const wire_ask *ask, const kh_component *part, size_t position,
                         kh_head *head)
{
    json_t *keys = json_array(), *weights = json_array(), *norms = json_array();
    json_t *values = json_array(), *snippets = json_array();
    for (size_t k = 0; k < head->count; k++) {
        json_array_append_new(keys, json_integer(head->keys[k].position));
        json_array_append_new(weights, wire_real((double)head->keys[k].weight));
        json_array_append_new(norms, wire_real(head->keys[k].norm));
        json_array_append_new(values, wire_real(head->keys[k].value));
    }
    qsort(head->keys, head->count, sizeof *head->keys, by_weight);
    for (size_t k = 0; k < head->count && k < SNIPPETS; k++)
        json_array_append_new(snippets, snippet(ask, &head->keys[k]));
    return json_pack("{s:o, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "part",
                     wire_part_text(part), "position", (json_int_t)position, "kept",
                     wire_real(head->kept), "entropy", wire_real(head->entropy), "value",
                     wire_real(head->value), "keys", keys, "weights", weights, "norms", norms,
                     "values", values, "snippets", snippets);
}

static json_t *writes_json(const wire_ask *ask, const kh_component *part, size_t position)
{
    kh_vocabulary_end top = {0}, bottom = {0};
    if (kh_head_writes(ask->inspector, position, part->layer, part->index, WRITES, &top, &bottom) !=
        KH_OK)
        return json_null();
    json_t *out = json_pack("{s:o, s:o}", "top", wire_raw_tokens(ask->model, top.tokens, top.count),
                            "bottom", wire_raw_tokens(ask->model, bottom.tokens, bottom.count));
    kh_vocabulary_end_free(&top);
    kh_vocabulary_end_free(&bottom);
    return out;
}

kh_status wire_head(const wire_ask *ask)
{
    kh_component part;
    kh_head_options o = {0};
    kh_head head;
    KH_TRY(wire_set_subject(ask));
    KH_TRY(wire_part(ask->body, "part", ask->model, &part));
    if (part.kind != KH_COMPONENT_HEAD)
        KH_FAIL(KH_ERR_ARGUMENT, "part: a head such as L5H3 is expected");
    o.layer = part.layer;
    o.head = part.index;
    KH_TRY(wire_position(ask->body, ask->inspector, &o.position));
    KH_TRY(wire_maybe_question(ask, &o.a, &o.b));
    KH_TRY(kh_head_open(&head, ask->inspector, &o));
    json_t *out = head_json(ask, &part, o.position, &head);
    kh_head_free(&head);
    if (out) json_object_set_new(out, "writes", writes_json(ask, &part, o.position));
    return wire_send(ask, out);
}
