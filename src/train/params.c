/* Masters: the trained form of a model.
 *
 *     weights    | tensor | tensor | ... | tensor |      each begins at a multiple of 16 numbers
 *     gradients  |   "    |   "    | ... |        |      and moments: one layout for all of them
 *
 * The values of the file and tensors that point into `weights` make a composed GGUF model, which is opened
 * like any other: the forward pass, the writer and the converters know nothing of training. What a family
 * cuts out of a tensor (fused projections, experts) lies inside it, so an address says which gradient belongs
 * to a weight. Gradients are a reservation: memory of tensors that are frozen is never touched. */
#include "train/params.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "cpu/cpu.h"
#include "ops/unpack.h"

#include <stdio.h>
#include <string.h>

enum { ALIGN = 16 };

static size_t elements(const kh_tensor *t)
{
    size_t n = 1;
    for (int i = 0; i < t->n_dims; i++) n *= (size_t)t->dims[i];
    return n;
}

/* Tables that are no weights: divisors of frequencies, and sinusoids where a file says so. */
static kh_status is_table(uint8_t *out, const kh_gguf *file, const char *name)
{
    char key[128];
    kh_slice arch = {"", 0};
    int fixed = 0;
    *out = strncmp(name, "rope_", 5) == 0;
    if (strcmp(name, "position_embd.weight") != 0) return KH_OK;
    KH_TRY(kh_gguf_opt_string(file, "general.architecture", &arch));
    snprintf(key, sizeof key, "%.*s.position_embedding.fixed",
             (int)(arch.size < 64 ? arch.size : 64), arch.data);
    KH_TRY(kh_gguf_opt_bool(file, key, &fixed));
    *out = fixed != 0;
    return KH_OK;
}

static kh_status lay_out(kh_params *p, const kh_gguf *file)
{
    p->tensor_count = kh_gguf_tensor_count(file);
    KH_TRY(kh_new(&p->tensors, p->tensor_count, sizeof *p->tensors, "the tensors of a model"));
    KH_TRY(kh_new(&p->frozen, p->tensor_count, 1, "the tensors of a model"));
    for (size_t i = 0; i < p->tensor_count; i++) {
        const kh_tensor *t = kh_gguf_tensor_at(file, i);
        size_t n = elements(t), cols = (size_t)t->dims[0];
        p->tensors[i] = (kh_tensor_spec){
            .offset = p->count, .count = n, .rows = (int)(n / cols), .cols = (int)cols};
        KH_TRY(is_table(&p->frozen[i], file, t->name));
        p->count += (n + ALIGN - 1) / ALIGN * ALIGN;
    }
    return KH_OK;
}

static kh_status fill(float *out, const kh_tensor *t, const kh_tensor_spec *spec)
{
    kh_unpack unpack = kh_unpack_of(kh_kern_get(kh_cpu_isa()), t->type);
    size_t row_bytes = kh_type_row_bytes(t->type, (size_t)spec->cols);
    if (!unpack.f32) {
        memcpy(out, t->data, spec->count * sizeof *out);
        return KH_OK;
    }
    for (size_t r = 0; r < (size_t)spec->rows; r++)
        unpack.f32(out + r * (size_t)spec->cols, (const char *)t->data + r * row_bytes,
                   (size_t)spec->cols);
    return KH_OK;
}

static kh_status compose(kh_params *p, kh_gguf *to, const kh_gguf *file)
{
    for (size_t i = 0; i < kh_gguf_value_count(file); i++)
        KH_TRY(kh_gguf_set_value(to, kh_gguf_value_at(file, i)));
    for (size_t i = 0; i < p->tensor_count; i++) {
        const kh_tensor *t = kh_gguf_tensor_at(file, i);
        float *data = p->weights + p->tensors[i].offset;
        if (!t->data)
            KH_FAIL(KH_ERR_FORMAT, "%s: tensor '%s' has no data", kh_gguf_path(file), t->name);
        KH_TRY(fill(data, t, &p->tensors[i]));
        KH_TRY(kh_gguf_add_tensor(to, t->name, KH_TYPE_F32, t->n_dims, t->dims, data));
    }
    return KH_OK;
}

kh_status kh_params_reserve(kh_params *p)
{
    void *weights = NULL, *gradients = NULL;
    KH_TRY(kh_reserve(&weights, p->count * sizeof(float), "the weights"));
    p->weights = weights;
    KH_TRY(kh_reserve(&gradients, p->count * sizeof(float), "the gradients"));
    p->gradients = gradients;
    return KH_OK;
}

static kh_status open_params(kh_params *p, const kh_gguf *file)
{
    kh_gguf *composed = NULL;
    KH_TRY(lay_out(p, file));
    KH_TRY(kh_params_reserve(p));
    KH_TRY(kh_gguf_new(&composed, kh_gguf_path(file)));
    kh_status status = compose(p, composed, file);
    if (status) {
        kh_gguf_close(composed);
        return status;
    }
    KH_TRY(kh_model_open_composed(&p->model, composed));
    for (size_t i = 0; i < p->tensor_count; i++)
        p->tensors[i].name = kh_gguf_tensor_at(p->model->file, i)->name;
    return KH_OK;
}

kh_status kh_params_open(kh_params **out, const kh_gguf *file)
{
    *out = NULL;
    kh_params *p = NULL;
    KH_TRY(kh_new(&p, 1, sizeof *p, "a model to train"));
    kh_status status = open_params(p, file);
    if (status == KH_OK)
        *out = p;
    else
        kh_params_close(p);
    return status;
}

void kh_params_close(kh_params *p)
{
    if (!p) return;
    kh_model_close(p->model);
    if (p->weights) kh_reserve_free(p->weights, p->count * sizeof(float));
    if (p->gradients) kh_reserve_free(p->gradients, p->count * sizeof(float));
    kh_free(p->tensors);
    kh_free(p->names);
    kh_free(p->frozen);
    kh_free(p);
}

/* The last tensor that begins at or before the place. */
static size_t tensor_at(const kh_params *p, size_t place)
{
    size_t low = 0, high = p->tensor_count;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (p->tensors[middle].offset <= place)
            low = middle;
        else
            high = middle;
    }
    return low;
}

float *kh_params_gradient_of(void *context, const float *at)
{
    const kh_params *p = context;
    uintptr_t first = (uintptr_t)p->weights, where = (uintptr_t)at;
    if (where < first || where >= first + p->count * sizeof(float)) return NULL;
    size_t place = (where - first) / sizeof(float);
    return p->frozen[tensor_at(p, place)] ? NULL : p->gradients + place;
}

void kh_params_clear(kh_params *p)
{
    for (size_t i = 0; i < p->tensor_count; i++)
        if (!p->frozen[i])
            memset(p->gradients + p->tensors[i].offset, 0,
                   p->tensors[i].count * sizeof *p->gradients);
}
