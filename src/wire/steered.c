/* What a request adds to the stream, as edits of its text.
 *
 * It comes from three members that add up: control_vectors, by their numbers; vectors, numbers of the client's for a named
 * point (as Neuronpedia sends them); features, neurons by layer and index. A question sees the text as generation under the
 * same steering read it: the sum of a layer is one edit of the stream behind it, behind the edits that the request names. */
#include "wire/questions.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdio.h>
#include <string.h>

/* "resid_post.12", "blocks.12.hook_resid_post", or the point in front of the next layer. Returns the layer behind which it is
 * added, -1: another name. */
static int layer_of_hook(const char *hook)
{
    int layer = -1, end = 0;
    size_t n = strlen(hook);
    if (sscanf(hook, "resid_post.%d%n", &layer, &end) == 1 && (size_t)end == n) return layer;
    if (sscanf(hook, "blocks.%d.hook_resid_post%n", &layer, &end) == 1 && (size_t)end == n)
        return layer;
    if (sscanf(hook, "resid_pre.%d%n", &layer, &end) == 1 && (size_t)end == n) return layer - 1;
    if (sscanf(hook, "blocks.%d.hook_resid_pre%n", &layer, &end) == 1 && (size_t)end == n)
        return layer - 1;
    return -1;
}

/* One direction at one layer, as a control vector of its own. */
static kh_status add_row(kh_steering *out, const wire_ask *ask, int layer, const float *row,
                         double strength)
{
    const kh_model_info *info = kh_model_get_info(ask->model);
    size_t D = (size_t)info->width;
    float *all = NULL;
    kh_control *control = NULL;
    if (layer < 1 || layer >= info->layers)
        KH_FAIL(KH_ERR_ARGUMENT, "steering behind layer %d: layers 1 to %d can be", layer,
                info->layers - 1);
    KH_TRY(kh_new(&all, (size_t)info->layers * D, sizeof *all, "a direction"));
    memcpy(all + (size_t)layer * D, row, D * sizeof *row);
    kh_status status = kh_control_make(&control, ask->model, all);
    if (status == KH_OK) status = kh_steering_add(out, control, (float)strength, layer, layer);
    kh_control_close(control);
    kh_free(all);
    return status;
}

static kh_status add_vector(kh_steering *out, const wire_ask *ask, const json_t *entry)
{
    const kh_model_info *info = kh_model_get_info(ask->model);
    const char *hook = NULL;
    const json_t *numbers = NULL;
    double strength = 1;
    float *row = NULL;
    size_t D = (size_t)info->width;
    KH_TRY(wire_get_text(entry, "hook", &hook, NULL));
    KH_TRY(wire_get_array(entry, "steering_vector", &numbers));
    KH_TRY(wire_get_real(entry, "strength", &strength, -1e9, 1e9));
    int layer = hook ? layer_of_hook(hook) : -1;
    if (layer < 0)
        KH_FAIL(KH_ERR_ARGUMENT, "vectors: a hook such as \"resid_post.12\" is expected");
    if (json_array_size(numbers) != D)
        KH_FAIL(KH_ERR_ARGUMENT, "vectors: %zu numbers: the model's width is %zu",
                json_array_size(numbers), D);
    KH_TRY(kh_new(&row, D, sizeof *row, "a direction"));
    for (size_t i = 0; i < D; i++) row[i] = (float)json_number_value(json_array_get(numbers, i));
    kh_status status = add_row(out, ask, layer, row, strength);
    kh_free(row);
    return status;
}

static kh_status add_feature(kh_steering *out, const wire_ask *ask, const json_t *entry)
{
    const kh_model_info *info = kh_model_get_info(ask->model);
    int64_t layer = -1, index = -1;
    double strength = 1;
    kh_control *control = NULL;
    KH_TRY(wire_get_int(entry, "layer", &layer, 1, info->layers - 1));
    KH_TRY(wire_get_int(entry, "index", &index, 0, info->ff_width - 1));
    KH_TRY(wire_get_real(entry, "strength", &strength, -1e9, 1e9));
    if (layer < 0 || index < 0)
        KH_FAIL(KH_ERR_ARGUMENT, "features: {\"layer\", \"index\", \"strength\"} is expected");
    const kh_direction neuron = {
        .kind = KH_DIRECTION_NEURON, .layer = (int)layer, .neuron = (int)index};
    KH_TRY(kh_control_point(&control, ask->model, &neuron, NULL));
    kh_status status = kh_steering_add(out, control, (float)strength, (int)layer, (int)layer);
    kh_control_close(control);
    return status;
}

static kh_status sum_up(const wire_ask *ask, kh_steering *out)
{
    const json_t *numbered = NULL, *vectors = NULL, *features = NULL;
    static const wire_vectors none;
    KH_TRY(wire_get_array(ask->body, "control_vectors", &numbered));
    KH_TRY(wire_get_array(ask->body, "vectors", &vectors));
    KH_TRY(wire_get_array(ask->body, "features", &features));
    if (numbered) KH_TRY(wire_vectors_sum(ask->vectors ? ask->vectors : &none, numbered, out));
    for (size_t i = 0; i < json_array_size(vectors); i++)
        KH_TRY(add_vector(out, ask, json_array_get(vectors, i)));
    for (size_t i = 0; i < json_array_size(features); i++)
        KH_TRY(add_feature(out, ask, json_array_get(features, i)));
    return KH_OK;
}

/* ---- a question's text ---- */

kh_status wire_steer_subject(wire_subject *s, const wire_ask *ask, kh_steering **steering)
{
    size_t N = (size_t)kh_model_get_info(ask->model)->layers;
    kh_edit *edits = NULL;
    *steering = NULL;
    if (!wire_member(ask->body, "control_vectors") && !wire_member(ask->body, "vectors") &&
        !wire_member(ask->body, "features"))
        return KH_OK;
    KH_TRY(kh_steering_open(steering, ask->model));
    KH_TRY(sum_up(ask, *steering));
    KH_TRY(kh_new(&edits, s->edit_count + N, sizeof *edits, "edits"));
    if (s->edit_count) memcpy(edits, s->edits, s->edit_count * sizeof *edits);
    s->edit_count += kh_steering_edits(*steering, edits + s->edit_count);
    kh_free(s->edits);
    s->edits = edits;
    return KH_OK;
}

kh_status wire_set_subject(const wire_ask *ask)
{
    wire_subject s;
    kh_steering *steering = NULL;
    KH_TRY(wire_subject_read(&s, ask->model, ask->body));
    kh_status status = wire_steer_subject(&s, ask, &steering);
    if (status == KH_OK)
        status = kh_inspector_set(ask->inspector, s.ids, s.count, s.prompt, s.edits, s.edit_count);
    wire_subject_free(&s);
    kh_steering_close(steering);
    return status;
}
