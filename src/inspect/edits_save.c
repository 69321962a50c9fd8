/* Edits as weights: the model that does without being asked what the edits made it do.
 *
 *     neuron zero, scale          column i of ffn_down times c
 *     head zero, scale            its E columns of attn_output times c
 *     attention, feed-forward     the whole matrix and its bias times c; where the output has a norm of its own, which
 *                                 would take a factor away, the norm's gain and bias
 *     the same, project           W - d (d^T W), and the bias likewise
 *
 * What depends on a text (mean, swap of directions, levels), on positions or on steps has no weights, and is refused by
 * its text. Every other tensor is copied as it is; a touched matrix goes through f32 and becomes F16, which every
 * runtime reads, touched vectors keep their type. Edits apply in their order, and the file appears when it is whole. */
#include "base/alloc.h"
#include "base/fail.h"
#include "base/file.h"
#include "inspect/edits.h"
#include "model/network.h"
#include "ops/requantize.h"

#include <stdio.h>
#include <string.h>

enum { NAME = 64 };

/* What one edit does to one tensor. */
typedef struct change {
    char tensor[NAME];
    size_t from, columns; /* scaled; columns 0: projected */
    float factor;
    const float *direction; /* [rows] */
} change;

typedef struct saving {
    const kh_model *model;
    kh_pool pool;
    const kh_kern *kern;
    kh_edits edits;
    change *changes; /* [count] */
    size_t count, touched;
} saving;

static kh_status add(saving *s, const change *one, int layer, const char *name)
{
    change *c = &s->changes[s->count];
    *c = *one;
    snprintf(c->tensor, sizeof c->tensor, "blk.%d.%s", layer, name);
    if (kh_gguf_tensor(s->model->file, c->tensor)) s->count++;
    return KH_OK;
}

/* A layer's whole output. */
static kh_status add_output(saving *s, const kh_edit_work *w, float factor)
{
    int attention = w->edit.part.kind == KH_COMPONENT_ATTENTION, l = w->edit.part.layer;
    const kh_block *b = &s->model->w.stack.blocks[l];
    const kh_norm *norm = attention ? &b->attn_out_norm : &b->ffn_out_norm;
    const change scale = {.columns = SIZE_MAX, .factor = factor};
    const change project = {.direction = w->direction};
    int projects = w->edit.operation == KH_EDIT_PROJECT;
    if (norm->gain.data && projects)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "layer %d: a direction cannot be taken out of weights whose output "
                "is normed",
                l);
    if (norm->gain.data) {
        KH_TRY(
            add(s, &scale, l, attention ? "post_attention_norm.weight" : "post_ffw_norm.weight"));
        return add(s, &scale, l, attention ? "post_attention_norm.bias" : "post_ffw_norm.bias");
    }
    KH_TRY(add(s, projects ? &project : &scale, l,
               attention ? "attn_output.weight" : "ffn_down.weight"));
    return add(s, projects ? &project : &scale, l,
               attention ? "attn_output.bias" : "ffn_down.bias");
}

static kh_status refuse(const saving *s, const kh_edit *e)
{
    char *text = NULL;
    KH_TRY(kh_edit_text(e, s->model, &text));
    kh_status status =
        kh_fail(KH_ERR_UNSUPPORTED,
                "'%s' has no weights: zero and scale of neurons, heads, attention and "
                "feed-forward layers, and project of the latter two, everywhere, have",
                text);
    kh_free_text(text);
    return status;
}

static kh_status add_edit(saving *s, const kh_edit_work *w)
{
    const kh_edit *e = &w->edit;
    size_t E = (size_t)s->model->d.E;
    int everywhere = e->first == 0 && e->last == KH_EDIT_EVERYWHERE && e->first_step == 0 &&
                     e->last_step == KH_EDIT_EVERYWHERE;
    int scales = e->operation == KH_EDIT_ZERO || e->operation == KH_EDIT_SCALE;
    int output = e->part.kind == KH_COMPONENT_ATTENTION || e->part.kind == KH_COMPONENT_MLP;
    float factor = e->operation == KH_EDIT_ZERO ? 0 : e->value;
    change one = {.from = (size_t)e->part.index, .columns = 1, .factor = factor};
    if (!everywhere || !(scales || (output && e->operation == KH_EDIT_PROJECT)))
        return refuse(s, e);
    if (s->model->w.stack.blocks[e->part.layer < 0 ? 0 : e->part.layer].experts.router.name &&
        e->part.kind == KH_COMPONENT_MLP)
        return refuse(s, e);
    if (output) return add_output(s, w, factor);
    if (e->part.kind == KH_COMPONENT_NEURON) return add(s, &one, e->part.layer, "ffn_down.weight");
    if (e->part.kind != KH_COMPONENT_HEAD) return refuse(s, e);
    one.from = (size_t)e->part.index * E;
    one.columns = E;
    return add(s, &one, e->part.layer, "attn_output.weight");
}

static int is_touched(const saving *s, const char *name)
{
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->changes[i].tensor, name) == 0) return 1;
    return 0;
}

/* ---- one tensor ---- */

static void scale_columns(const change *c, float *x, size_t rows, size_t cols)
{
    size_t end = c->columns == SIZE_MAX ? cols : c->from + c->columns;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = c->from; i < end && i < cols; i++) x[r * cols + i] *= c->factor;
}

/* Rows lose what they have of the direction; a vector is one column. */
static kh_status project_rows(const change *c, float *x, size_t rows, size_t cols)
{
    double *along = NULL, square = 0;
    KH_TRY(kh_new(&along, cols, sizeof *along, "a product"));
    for (size_t r = 0; r < rows; r++) {
        double d = (double)c->direction[r];
        square += d * d;
        for (size_t i = 0; i < cols; i++) along[i] += d * (double)x[r * cols + i];
    }
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < cols; i++)
            x[r * cols + i] =
                (float)((double)x[r * cols + i] - (double)c->direction[r] * along[i] / square);
    kh_free(along);
    return KH_OK;
}

static kh_status change_tensor(const saving *s, const kh_tensor *from, const kh_tensor *to,
                               float *x, void *packed)
{
    size_t cols = from->dims[0], rows = from->n_dims > 1 ? from->dims[1] : 1;
    KH_TRY(
        kh_op_requantize(&s->pool, s->kern, x, KH_TYPE_F32, from->data, from->type, rows, cols, 0));
    for (size_t i = 0; i < s->count; i++) {
        const change *c = &s->changes[i];
        if (strcmp(c->tensor, to->name) != 0) continue;
        if (c->columns)
            scale_columns(c, x, rows, cols);
        else
            KH_TRY(from->n_dims > 1 ? project_rows(c, x, rows, cols) : project_rows(c, x, cols, 1));
    }
    return kh_op_requantize(&s->pool, s->kern, packed, to->type, x, KH_TYPE_F32, rows, cols, 0);
}

static kh_status write_tensor(void *context, const kh_tensor *tensor, kh_outfile *out)
{
    const saving *s = context;
    const kh_tensor *from = kh_gguf_tensor(s->model->file, tensor->name);
    float *x = NULL;
    void *packed = NULL;
    if (!is_touched(s, tensor->name)) return kh_outfile_write(out, from->data, from->size);
    size_t count = from->dims[0] * (from->n_dims > 1 ? from->dims[1] : 1);
    kh_status status = kh_new(&x, count, sizeof *x, "a tensor");
    if (status == KH_OK) status = kh_new(&packed, tensor->size, 1, "a tensor");
    if (status == KH_OK) status = change_tensor(s, from, tensor, x, packed);
    if (status == KH_OK) status = kh_outfile_write(out, packed, tensor->size);
    kh_free(x);
    kh_free(packed);
    return status;
}

/* ---- the file ---- */

static kh_status compose(kh_gguf *out, saving *s)
{
    const kh_gguf *file = s->model->file;
    for (size_t i = 0; i < kh_gguf_value_count(file); i++)
        KH_TRY(kh_gguf_set_value(out, kh_gguf_value_at(file, i)));
    for (size_t i = 0; i < kh_gguf_tensor_count(file); i++) {
        const kh_tensor *t = kh_gguf_tensor_at(file, i);
        int touched = is_touched(s, t->name);
        kh_type type = touched && t->n_dims > 1 ? KH_TYPE_F16 : t->type;
        KH_TRY(kh_gguf_add_tensor(out, t->name, type, t->n_dims, t->dims, NULL));
        s->touched += (size_t)touched;
    }
    return KH_OK;
}

static kh_status save(saving *s, const kh_edit *edits, size_t count, const char *path)
{
    kh_gguf *out = NULL;
    KH_TRY(kh_edits_open(&s->edits, s->model, s->kern, 1, edits, count));
    KH_TRY(kh_new(&s->changes, 2 * count + 1, sizeof *s->changes, "changes"));
    for (size_t i = 0; i < count; i++) KH_TRY(add_edit(s, &s->edits.works[i]));
    KH_TRY(kh_gguf_new(&out, path));
    kh_status status = compose(out, s);
    if (status == KH_OK) status = kh_gguf_write_from(out, path, write_tensor, s);
    kh_gguf_close(out);
    return status;
}

kh_status kh_edits_save(const kh_model *model, const kh_edit *edits, size_t count, const char *path,
                        size_t *touched)
{
    saving s = {.model = model, .pool = {kh_cpu_count()}, .kern = kh_kern_get(kh_cpu_isa())};
    *touched = 0;
    if (count == 0) KH_FAIL(KH_ERR_ARGUMENT, "no edits: at least one is expected");
    if (model->lora_count)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "the model has adapters: convert merges them into a file first");
    kh_status status = save(&s, edits, count, path);
    *touched = s.touched;
    kh_edits_close(&s.edits);
    kh_free(s.changes);
    return status;
}
