/* Steering in JSON: directions learned from a request, and a prompt continued with and without them (what is added:
 * steered.c). */
#include "wire/questions.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"
#include "wire/json_value.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_NEW = 4096, MOST_PAIRS = 100000, SHOWN = 5 };

/* ---- learning ---- */

typedef struct lesson {
    kh_ids *sides[2]; /* with, without; [count] */
    size_t count;
    int paired;
} lesson;

static void free_lesson(lesson *l)
{
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; l->sides[side] && i < l->count; i++)
            kh_free_ids((int32_t *)(uintptr_t)l->sides[side][i].ids);
        kh_free(l->sides[side]);
    }
}

static kh_status read_side(kh_ids *out, const wire_ask *ask, const json_t *text)
{
    wire_subject s;
    if (!json_is_string(text) && !json_is_array(text))
        KH_FAIL(KH_ERR_ARGUMENT, "a text to learn from, or its token ids, is expected");
    json_t *body = json_object();
    json_object_set(body, json_is_string(text) ? "prompt" : "tokens", (json_t *)(uintptr_t)text);
    json_object_set(body, "template", json_object_get(ask->body, "template"));
    kh_status status = wire_subject_read(&s, ask->model, body);
    json_decref(body);
    if (status != KH_OK) return status;
    *out = (kh_ids){s.ids, s.count};
    s.ids = NULL;
    wire_subject_free(&s);
    return KH_OK;
}

/* A pair is a list of two, or an object. */
static const json_t *side_of(const json_t *pair, int side)
{
    if (json_is_array(pair))
        return json_array_size(pair) == 2 ? json_array_get(pair, (size_t)side) : NULL;
    return json_object_get(pair, side ? "without" : "with");
}

static kh_status read_lesson(lesson *l, const wire_ask *ask, const json_t *list)
{
    size_t count = json_array_size(list);
    if (count == 0 || count > MOST_PAIRS)
        KH_FAIL(KH_ERR_ARGUMENT, "%zu texts to learn from: 1 to %d are expected", count,
                MOST_PAIRS);
    for (int side = 0; side <= l->paired; side++)
        KH_TRY(kh_new(&l->sides[side], count, sizeof(kh_ids), "texts"));
    l->count = count;
    for (size_t i = 0; i < count; i++)
        for (int side = 0; side <= l->paired; side++) {
            const json_t *entry = json_array_get(list, i);
            KH_TRY(read_side(&l->sides[side][i], ask, l->paired ? side_of(entry, side) : entry));
        }
    return KH_OK;
}

static kh_status learn_texts(const wire_ask *ask, const json_t *list, int paired, kh_control **out)
{
    lesson l = {.paired = paired};
    const char *method = "mean";
    KH_TRY(wire_get_text(ask->body, "method", &method, NULL));
    if (strcmp(method, "mean") != 0 && strcmp(method, "pca") != 0)
        KH_FAIL(KH_ERR_ARGUMENT, "method: \"mean\" or \"pca\" is expected");
    kh_learn how = strcmp(method, "pca") == 0 ? KH_LEARN_PCA : KH_LEARN_MEAN;
    kh_status status = read_lesson(&l, ask, list);
    if (status == KH_OK)
        status = kh_control_learn(out, ask->inspector, l.sides[0], l.sides[1], l.count, how);
    free_lesson(&l);
    return status;
}

static kh_status read_direction(kh_direction *out, const wire_ask *ask, const char *name)
{
    const char *text = json_string_value(wire_member(ask->body, name));
    kh_component part;
    *out = (kh_direction){0};
    if (!wire_member(ask->body, name)) return KH_OK;
    if (text && kh_component_parse(&part, ask->model, text) == KH_OK &&
        part.kind == KH_COMPONENT_NEURON) {
        *out =
            (kh_direction){.kind = KH_DIRECTION_NEURON, .layer = part.layer, .neuron = part.index};
        return KH_OK;
    }
    out->kind = KH_DIRECTION_TOKEN;
    return wire_one_token(ask->body, name, ask->model, &out->token);
}

kh_status wire_learn(const wire_ask *ask, kh_control **out)
{
    const json_t *pairs = NULL, *prompts = NULL;
    kh_direction direction, minus;
    *out = NULL;
    KH_TRY(wire_get_array(ask->body, "pairs", &pairs));
    KH_TRY(wire_get_array(ask->body, "prompts", &prompts));
    KH_TRY(read_direction(&direction, ask, "from"));
    KH_TRY(read_direction(&minus, ask, "minus"));
    if ((pairs != NULL) + (prompts != NULL) + (direction.kind != KH_DIRECTION_NONE) != 1)
        KH_FAIL(KH_ERR_ARGUMENT, "pairs, prompts or from: one of them is expected");
    if (pairs) return learn_texts(ask, pairs, 1, out);
    if (prompts) return learn_texts(ask, prompts, 0, out);
    return kh_control_point(out, ask->model, &direction, minus.kind ? &minus : NULL);
}

static double length_of(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

kh_status wire_control_layers(const wire_ask *ask, const kh_control *control, json_t **out)
{
    const kh_model_info *info = kh_model_get_info(ask->model);
    size_t N = (size_t)info->layers;
    kh_vocabulary_end *ends = NULL;
    *out = NULL;
    KH_TRY(kh_new(&ends, 2 * N, sizeof *ends, "tokens"));
    kh_status status = kh_control_tokens(ask->inspector, control, SHOWN, ends, ends + N);
    json_t *list = json_array();
    for (size_t l = 1; l < N && status == KH_OK; l++) {
        const float *d = kh_control_direction(control, (int)l);
        if (!d) continue;
        json_array_append_new(
            list, json_pack("{s:i, s:o, s:o, s:o}", "layer", (int)l, "norm",
                            wire_real(length_of(d, (size_t)info->width)), "top",
                            wire_raw_tokens(ask->model, ends[l].tokens, ends[l].count), "bottom",
                            wire_raw_tokens(ask->model, ends[N + l].tokens, ends[N + l].count)));
    }
    for (size_t i = 0; i < 2 * N; i++) kh_vocabulary_end_free(&ends[i]);
    kh_free(ends);
    if (status != KH_OK) {
        json_decref(list);
        return status;
    }
    *out = list;
    return KH_OK;
}

/* ---- with and without ---- */

static kh_status take_text(void *context, const char *text, size_t size, const kh_choice *chosen,
                           const kh_choice *alternatives, size_t count)
{
    (void)chosen;
    (void)alternatives;
    (void)count;
    return kh_buf_add(context, text, size);
}

static kh_status go_on(const wire_ask *ask, const wire_subject *s, int steered, kh_buf *text)
{
    double temperature = 0;
    int64_t most = 20, seed = 1;
    kh_generate_result result;
    KH_TRY(wire_get_int(ask->body, "n_completion_tokens", &most, 1, MOST_NEW));
    KH_TRY(wire_get_int(ask->body, "max_tokens", &most, 1, MOST_NEW));
    KH_TRY(wire_get_real(ask->body, "temperature", &temperature, 0, 100));
    KH_TRY(wire_get_int(ask->body, "seed", &seed, 0, INT64_MAX));
    const kh_generate_options o = {
        .sampler = {.temperature = (float)temperature, .seed = (uint64_t)seed},
        .max_tokens = (size_t)most,
        .token = take_text,
        .context = text};
    KH_TRY(kh_inspector_set(ask->inspector, s->ids, s->prompt, s->prompt, steered ? s->edits : NULL,
                            steered ? s->edit_count : 0));
    KH_TRY(kh_inspector_generate(ask->inspector, &o, &result));
    if (result.finish == KH_FINISH_STOPPED) KH_FAIL(KH_ERR_STOPPED, "stopped");
    return KH_OK;
}

static kh_status run_types(const wire_ask *ask, const wire_subject *s, const json_t *types,
                           json_t *outputs)
{
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        int steered = type && strcmp(type, "STEERED") == 0;
        kh_buf text = {0};
        if (!type || (!steered && strcmp(type, "DEFAULT") != 0))
            KH_FAIL(KH_ERR_ARGUMENT, "types: \"STEERED\" and \"DEFAULT\" are expected");
        kh_status status = go_on(ask, s, steered, &text);
        if (status == KH_OK)
            json_array_append_new(outputs,
                                  json_pack("{s:s, s:o}", "type", type, "output",
                                            wire_text(text.data ? text.data : "", text.size)));
        kh_buf_free(&text);
        KH_TRY(status);
    }
    return KH_OK;
}

kh_status wire_steer(const wire_ask *ask)
{
    double start = wire_seconds();
    const json_t *types = NULL;
    json_t *both = json_pack("[s, s]", "STEERED", "DEFAULT"), *outputs = json_array();
    wire_subject s = {0};
    kh_steering *steering = NULL;
    kh_status status = wire_get_array(ask->body, "types", &types);
    if (status == KH_OK) status = wire_subject_read(&s, ask->model, ask->body);
    if (status == KH_OK) status = wire_steer_subject(&s, ask, &steering);
    if (status == KH_OK) status = run_types(ask, &s, types ? types : both, outputs);
    wire_subject_free(&s);
    kh_steering_close(steering);
    json_decref(both);
    if (status != KH_OK) {
        json_decref(outputs);
        return status;
    }
    return wire_send(ask, json_pack("{s:o, s:o}", "outputs", outputs, "seconds",
                                    wire_real(wire_seconds() - start)));
}
