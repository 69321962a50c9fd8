/* Control vectors: llama.cpp's files of directions, and their sum at work.
 *
 *     general.architecture       "controlvector"
 *     controlvector.model_hint   "llama"
 *     controlvector.layer_count  29
 *     direction.1 ... direction.29   F32 [D]      added to the stream behind layer 1 ... 29, counted from 0
 *
 * llama.cpp adds direction.i to what layer i leaves (its l_out-i, our resid_post.i) and has no direction for layer 0, so
 * numbers in the file are layers as they are counted everywhere else here; nothing is shifted. Files that name
 * direction.0, another type or another width are refused, as there. Directions beyond the model's last layer are kept
 * out, and what a layer range leaves out is not added.
 *
 *     steering   [N][D] the sum; a layer that is all zero is not touched */
#include "base/alloc.h"
#include "base/fail.h"
#include "format/gguf.h"
#include "model/network.h"

#include <keyhole/steer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kh_control {
    int N;
    size_t D;
    char hint[32];
    uint8_t has[KH_MAX_LAYERS];
    float *data; /* [N][D] */
};

static kh_status new_control(kh_control **out, const kh_model *model)
{
    kh_control *c = NULL;
    *out = NULL;
    KH_TRY(kh_new(&c, 1, sizeof *c, "a control vector"));
    c->N = model->d.N;
    c->D = (size_t)model->d.D;
    snprintf(c->hint, sizeof c->hint, "%s", model->architecture);
    kh_status status = kh_new(&c->data, (size_t)c->N * c->D, sizeof *c->data, "a control vector");
    if (status != KH_OK) {
        kh_control_close(c);
        return status;
    }
    *out = c;
    return KH_OK;
}

void kh_control_close(kh_control *c)
{
    if (!c) return;
    kh_free(c->data);
    kh_free(c);
}

const float *kh_control_direction(const kh_control *c, int layer)
{
    return layer > 0 && layer < c->N && c->has[layer] ? c->data + (size_t)layer * c->D : NULL;
}

int kh_control_layers(const kh_control *c)
{
    return c->N;
}

kh_status kh_control_make(kh_control **out, const kh_model *model, const float *directions)
{
    kh_control *c = NULL;
    KH_TRY(new_control(out, model));
    c = *out;
    memcpy(c->data + c->D, directions + c->D, (size_t)(c->N - 1) * c->D * sizeof *c->data);
    memset(c->has + 1, 1, (size_t)(c->N - 1));
    return KH_OK;
}

/* ---- files ---- */

/* The layer of direction.i; 0: it is none. */
static long layer_of(const char *name)
{
    char *end = NULL;
    if (strncmp(name, "direction.", 10) != 0 || name[10] < '1' || name[10] > '9') return 0;
    long layer = strtol(name + 10, &end, 10);
    return *end ? 0 : layer;
}

static kh_status take_direction(kh_control *c, const kh_tensor *t, const char *path)
{
    long layer = layer_of(t->name);
    if (layer == 0)
        KH_FAIL(KH_ERR_FORMAT, "%s: tensor %.60s: direction.1, direction.2 ... are expected", path,
                t->name);
    if (t->type != KH_TYPE_F32 || t->n_dims != 1 || t->dims[0] != c->D)
        KH_FAIL(KH_ERR_FORMAT,
                "%s: %s has %llu numbers in %d dimensions: %zu of type F32 in one are expected",
                path, t->name, (unsigned long long)t->dims[0], t->n_dims, c->D);
    if (layer >= c->N) return KH_OK;
    float *to = c->data + (size_t)layer * c->D;
    for (size_t i = 0; i < c->D; i++) {
        float x;
        memcpy(&x, (const char *)t->data + i * sizeof x, sizeof x);
        to[i] += x;
    }
    c->has[layer] = 1;
    return KH_OK;
}

static kh_status read_file(kh_control *c, const kh_gguf *file, const char *path)
{
    kh_slice kind = {"", 0}, hint = {"", 0};
    KH_TRY(kh_gguf_opt_string(file, "general.architecture", &kind));
    KH_TRY(kh_gguf_opt_string(file, "controlvector.model_hint", &hint));
    if (kind.size != 13 || memcmp(kind.data, "controlvector", 13) != 0)
        KH_FAIL(KH_ERR_FORMAT, "%s is no control vector: its general.architecture is \"%.*s\"",
                path, (int)(kind.size < 40 ? kind.size : 40), kind.data);
    if (kh_gguf_tensor_count(file) == 0)
        KH_FAIL(KH_ERR_FORMAT, "%s: there is no direction in it", path);
    if (hint.size > 0 && hint.size < sizeof c->hint) {
        memcpy(c->hint, hint.data, hint.size);
        c->hint[hint.size] = 0;
    }
    for (size_t t = 0; t < kh_gguf_tensor_count(file); t++)
        KH_TRY(take_direction(c, kh_gguf_tensor_at(file, t), path));
    return KH_OK;
}

kh_status kh_control_open(kh_control **out, const kh_model *model, const char *path)
{
    kh_gguf *file = NULL;
    kh_control *c = NULL;
    *out = NULL;
    KH_TRY(kh_gguf_open(&file, path));
    kh_status status = new_control(&c, model);
    if (status == KH_OK) status = read_file(c, file, path);
    kh_gguf_close(file);
    if (status != KH_OK)
        kh_control_close(c);
    else
        *out = c;
    return status;
}

static kh_status compose(kh_gguf *file, const kh_control *c)
{
    static const char kind[] = "controlvector";
    int count = 0;
    uint64_t dims[1] = {c->D};
    char name[32];
    for (int l = 1; l < c->N; l++) count += c->has[l];
    if (count == 0) KH_FAIL(KH_ERR_ARGUMENT, "the control vector has no direction");
    KH_TRY(kh_gguf_set_string(file, "general.architecture", (kh_slice){kind, sizeof kind - 1}));
    KH_TRY(
        kh_gguf_set_string(file, "controlvector.model_hint", (kh_slice){c->hint, strlen(c->hint)}));
    KH_TRY(kh_gguf_set_u64(file, "controlvector.layer_count", KH_GGUF_I32, (uint64_t)count));
    for (int l = 1; l < c->N; l++) {
        const float *data = kh_control_direction(c, l);
        snprintf(name, sizeof name, "direction.%d", l);
        if (data) KH_TRY(kh_gguf_add_tensor(file, name, KH_TYPE_F32, 1, dims, data));
    }
    return KH_OK;
}

kh_status kh_control_save(const kh_control *c, const char *path)
{
    kh_gguf *file = NULL;
    KH_TRY(kh_gguf_new(&file, path));
    kh_status status = compose(file, c);
    if (status == KH_OK) status = kh_gguf_write(file, path);
    kh_gguf_close(file);
    return status;
}

/* ---- the sum at work ---- */

struct kh_steering {
    int N;
    size_t D;
    uint8_t steered[KH_MAX_LAYERS];
    float *sum; /* [N][D] */
    kh_probe probe;
};

static void steer_point(void *context, kh_point point, int layer, float *data, size_t rows,
                        size_t width)
{
    const kh_steering *s = context;
    (void)point;
    if (layer < 0 || layer >= s->N || width != s->D || !s->steered[layer]) return;
    const float *add = s->sum + (size_t)layer * s->D;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < width; i++) data[r * width + i] += add[i];
}

kh_status kh_steering_open(kh_steering **out, const kh_model *model)
{
    kh_steering *s = NULL;
    *out = NULL;
    KH_TRY(kh_new(&s, 1, sizeof *s, "steering"));
    s->N = model->d.N;
    s->D = (size_t)model->d.D;
    s->probe = (kh_probe){s, UINT64_C(1) << KH_POINT_RESID_POST, steer_point, NULL};
    kh_status status = kh_new(&s->sum, (size_t)s->N * s->D, sizeof *s->sum, "steering");
    if (status != KH_OK)
        kh_steering_close(s);
    else
        *out = s;
    return status;
}

void kh_steering_close(kh_steering *s)
{
    if (!s) return;
    kh_free(s->sum);
    kh_free(s);
}

void kh_steering_clear(kh_steering *s)
{
    memset(s->steered, 0, sizeof s->steered);
    memset(s->sum, 0, (size_t)s->N * s->D * sizeof *s->sum);
}

kh_status kh_steering_add(kh_steering *s, const kh_control *c, float scale, int first, int last)
{
    if (first == 0 && last == 0) last = s->N;
    if (first < 0 || last < first)
        KH_FAIL(KH_ERR_ARGUMENT,
                "layers %d to %d: two numbers, the first not above the other, are "
                "expected",
                first, last);
    if (c->D != s->D)
        KH_FAIL(KH_ERR_ARGUMENT, "a control vector of width %zu, the model has %zu", c->D, s->D);
    for (int l = first > 1 ? first : 1; l <= last && l < s->N; l++) {
        const float *direction = kh_control_direction(c, l);
        float *sum = s->sum + (size_t)l * s->D;
        if (!direction || scale == 0) continue;
        for (size_t i = 0; i < s->D; i++) sum[i] += scale * direction[i];
        s->steered[l] = 1;
    }
    return KH_OK;
}

const kh_probe *kh_steering_probe(const kh_steering *s)
{
    return &s->probe;
}

size_t kh_steering_edits(const kh_steering *s, kh_edit *edits)
{
    size_t n = 0;
    for (int l = 1; l < s->N; l++) {
        if (!s->steered[l]) continue;
        edits[n++] =
            (kh_edit){.part = {KH_COMPONENT_POST, l, 0, 0},
                      .operation = KH_EDIT_ADD,
                      .value = 1,
                      .direction = {.kind = KH_DIRECTION_VECTOR, .data = s->sum + (size_t)l * s->D},
                      .last = KH_EDIT_EVERYWHERE,
                      .last_step = KH_EDIT_EVERYWHERE};
    }
    return n;
}
