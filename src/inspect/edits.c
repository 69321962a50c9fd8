/* Edits at work: an observer that changes rows as the forward pass makes them.
 *
 *     part        point                 what a row has of it
 *     neuron      mlp_act (compat: mlp_pre)   one number
 *     head        z                     [E] numbers
 *     key         attn_rows, then z     one weight w: z += (w' - w) v[key], so nothing is computed twice
 *     attention   attn_out_post         [D] numbers
 *     feed-forward mlp_out_post         [D]
 *     stream      resid_pre, _mid, _post, embeddings   [D]
 *
 * Edits of one point apply in the order in which they were given. Every number that does not follow from the row
 * itself (directions, means, levels) is known before the pass, so a row does not depend on the rows beside it, and
 * what is read in blocks equals what is read at once.
 *
 * Directions have length 1: a token's is its row of the output head times the final norm's gain (without its mean
 * where the norm takes means away), which is what moves the token's logit most for its length.
 *
 * compat and exact are LM-Debugger's way to switch a neuron on or off, and the way that its authors meant: the first
 * writes a scaled score into the pre-activation, the second makes the neuron's score what was asked for. */
#include "inspect/edits.h"
#include "inspect/precise.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "kv/kv.h"
#include "model/network.h"
#include "ops/columns.h"
#include "ops/unpack.h"

#include <math.h>
#include <string.h>

kh_point kh_component_point(kh_component_kind kind)
{
    switch (kind) {
    case KH_COMPONENT_NEURON: return KH_POINT_MLP_ACT;
    case KH_COMPONENT_HEAD:
    case KH_COMPONENT_KEY: return KH_POINT_Z;
    case KH_COMPONENT_ATTENTION: return KH_POINT_ATTN_OUT_POST;
    case KH_COMPONENT_MLP: return KH_POINT_MLP_OUT_POST;
    case KH_COMPONENT_PRE: return KH_POINT_RESID_PRE;
    case KH_COMPONENT_MID: return KH_POINT_RESID_MID;
    case KH_COMPONENT_POST: return KH_POINT_RESID_POST;
    default: return KH_POINT_EMBEDDINGS;
    }
}

size_t kh_component_width(const kh_model *model, const kh_component *part, size_t *from)
{
    size_t E = (size_t)model->d.E;
    *from = 0;
    if (part->kind == KH_COMPONENT_NEURON) {
        *from = (size_t)part->index;
        return 1;
    }
    if (part->kind != KH_COMPONENT_HEAD && part->kind != KH_COMPONENT_KEY)
        return (size_t)model->d.D;
    *from = (size_t)part->index * E;
    return E;
}

/* Where there is a gate, LM-Debugger's way has no meaning of its own (writing one number into both branches would be
 * its square): the product is what is written then. */
static kh_point point_of(const kh_edit *e, const kh_model *m)
{
    int gated = e->operation == KH_EDIT_COMPAT && m->w.stack.blocks[e->part.layer].gate.name;
    return e->operation == KH_EDIT_COMPAT && !gated ? KH_POINT_MLP_PRE
                                                    : kh_component_point(e->part.kind);
}

/* ---- preparing ---- */

static void make_unit(float *x, size_t n, int centre)
{
    double mean = 0, square = 0;
    for (size_t i = 0; i < n && centre; i++) mean += (double)x[i] / (double)n;
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)((double)x[i] - mean);
        square += (double)x[i] * (double)x[i];
    }
    for (size_t i = 0; i < n && square > 0; i++) x[i] = (float)((double)x[i] / sqrt(square));
}

kh_status kh_direction_find(float **out, const kh_direction *d, const kh_model *m,
                            const kh_kern *kern)
{
    size_t D = (size_t)m->d.D;
    if (d->kind == KH_DIRECTION_NONE) return KH_OK;
    KH_TRY(kh_new(out, D, sizeof **out, "a direction"));
    if (d->kind == KH_DIRECTION_VECTOR) {
        memcpy(*out, d->data, D * sizeof **out);
    } else if (d->kind == KH_DIRECTION_TOKEN) {
        const float *gain = m->w.stack.final_norm.gain.data;
        kh_weight_row(*out, &m->w.head, (size_t)d->token, kern);
        for (size_t i = 0; i < D && gain; i++) (*out)[i] *= gain[i];
        make_unit(*out, D, gain && m->d.norm == KH_NORM_LAYER);
    } else {
        const kh_weight *down = &m->w.stack.blocks[d->layer].down;
        float *wide = NULL;
        KH_TRY(kh_new(&wide, down->cols, sizeof *wide, "a row of weights"));
        kh_weight_column(*out, down, (size_t)d->neuron, kern, wide);
        kh_free(wide);
        make_unit(*out, D, 0);
    }
    return KH_OK;
}

static kh_status open_work(kh_edit_work *w, const kh_model *m, const kh_kern *kern, size_t batch)
{
    size_t from;
    KH_TRY(kh_direction_find(&w->direction, &w->edit.direction, m, kern));
    KH_TRY(kh_direction_find(&w->second, &w->edit.second, m, kern));
    if (w->edit.operation == KH_EDIT_MEAN)
        KH_TRY(kh_new(&w->mean, kh_component_width(m, &w->edit.part, &from), sizeof *w->mean,
                      "a mean"));
    if (w->edit.part.kind != KH_COMPONENT_KEY) return KH_OK;
    KH_TRY(kh_new(&w->values, 2 * (size_t)m->d.E, sizeof *w->values, "values"));
    return kh_new(&w->weights, 2 * batch, sizeof *w->weights, "weights");
}

kh_status kh_edits_open(kh_edits *out, const kh_model *model, const kh_kern *kern, size_t batch,
                        const kh_edit *edits, size_t count)
{
    *out = (kh_edits){.batch = batch, .width = (size_t)model->d.D};
    if (count == 0) return KH_OK;
    KH_TRY(kh_new(&out->works, count, sizeof *out->works, "edits"));
    out->count = count;
    for (size_t i = 0; i < count; i++) {
        out->works[i].edit = edits[i];
        out->works[i].point = point_of(&edits[i], model);
        kh_status status = open_work(&out->works[i], model, kern, batch);
        if (status != KH_OK) {
            kh_edits_close(out);
            return status;
        }
        out->points |= UINT64_C(1) << out->works[i].point;
        if (edits[i].part.kind == KH_COMPONENT_KEY)
            out->points |= UINT64_C(1) << KH_POINT_ATTN_ROWS;
    }
    out->measured = !kh_edits_measures(out);
    return KH_OK;
}

void kh_edits_close(kh_edits *edits)
{
    for (size_t i = 0; i < edits->count; i++) {
        kh_edit_work *w = &edits->works[i];
        kh_free(w->direction);
        kh_free(w->second);
        kh_free(w->mean);
        kh_free(w->weights);
        kh_free(w->values);
    }
    kh_free(edits->works);
    *edits = (kh_edits){0};
}

/* `had`: the numbers of `a`; what a caller's vector holds may have changed since. */
static int same_direction(const kh_direction *a, const float *had, const kh_direction *b, size_t D)
{
    if (a->kind == KH_DIRECTION_VECTOR && b->kind == KH_DIRECTION_VECTOR)
        return memcmp(had, b->data, D * sizeof *had) == 0;
    return a->kind == b->kind && a->token == b->token && a->layer == b->layer &&
           a->neuron == b->neuron;
}

static int same_edit(const kh_edit_work *w, const kh_edit *b, size_t D)
{
    const kh_edit *a = &w->edit;
    return a->part.kind == b->part.kind && a->part.layer == b->part.layer &&
           a->part.index == b->part.index && a->part.key == b->part.key &&
           a->operation == b->operation && a->value == b->value && a->high == b->high &&
           a->other == b->other && same_direction(&a->direction, w->direction, &b->direction, D) &&
           same_direction(&a->second, w->second, &b->second, D) && a->first == b->first &&
           a->last == b->last && a->first_step == b->first_step && a->last_step == b->last_step;
}

int kh_edits_equal(const kh_edits *edits, const kh_edit *others, size_t count)
{
    if (edits->count != count) return 0;
    for (size_t i = 0; i < count; i++)
        if (!same_edit(&edits->works[i], &others[i], edits->width)) return 0;
    return 1;
}

int kh_edits_measures(const kh_edits *edits)
{
    for (size_t i = 0; i < edits->count; i++) {
        kh_edit_operation o = edits->works[i].edit.operation;
        if (o == KH_EDIT_MEAN || o == KH_EDIT_COMPAT || o == KH_EDIT_EXACT) return 1;
    }
    return 0;
}

/* ---- applying ---- */

static int within(int32_t value, int32_t first, int32_t last)
{
    return value >= first && value <= last;
}

static int applies(const kh_edit *e, size_t position, size_t prompt)
{
    int32_t step = position < prompt ? 0 : (int32_t)(position - prompt) + 1;
    if (!within(step, e->first_step, e->last_step)) return 0;
    if (e->first == KH_EDIT_LAST) return position + 1 == prompt;
    return within((int32_t)position, e->first, e->last);
}

/* What becomes of one number; swaps are not here. */
static float changed(const kh_edit_work *w, float x, size_t i)
{
    const kh_edit *e = &w->edit;
    switch (e->operation) {
    case KH_EDIT_ZERO: return 0;
    case KH_EDIT_SCALE: return x * e->value;
    case KH_EDIT_SET: return e->value;
    case KH_EDIT_ADD: return x + e->value;
    case KH_EDIT_CLAMP: return x < e->value ? e->value : x > e->high ? e->high : x;
    case KH_EDIT_MEAN: return w->mean[i];
    case KH_EDIT_COMPAT:
    case KH_EDIT_EXACT: return w->level;
    default: return x;
    }
}

static void add_scaled(float *y, double a, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = (float)((double)y[i] + a * (double)x[i]);
}

/* A row of the stream, where directions are known. */
static void change_along(const kh_edit_work *w, float *x, size_t n)
{
    const kh_edit *e = &w->edit;
    double had = kh_dot(x, w->direction, n);
    if (e->operation == KH_EDIT_ADD) {
        add_scaled(x, (double)e->value, w->direction, n);
    } else if (e->operation == KH_EDIT_PROJECT) {
        add_scaled(x, -had / kh_dot(w->direction, w->direction, n), w->direction, n);
    } else {
        double other = kh_dot(x, w->second, n);
        add_scaled(x, other - had, w->direction, n);
        add_scaled(x, had - other, w->second, n);
    }
}

static void exchange(float *a, float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float had = a[i];
        a[i] = b[i];
        b[i] = had;
    }
}

static void change_row(const kh_edit_work *w, const kh_model *m, float *row)
{
    size_t from, n = kh_component_width(m, &w->edit.part, &from);
    float *x = row + from;
    if (w->direction) {
        change_along(w, x, n);
    } else if (w->edit.operation == KH_EDIT_SWAP) {
        kh_component other = w->edit.part;
        other.index = w->edit.other;
        n = kh_component_width(m, &other, &from);
        exchange(x, row + from, n);
    } else {
        for (size_t i = 0; i < n; i++) x[i] = changed(w, x[i], i);
    }
}

static void value_of(const kh_edit_place *p, int layer, int head, size_t key, float *out)
{
    const kh_description *d = &p->model->d;
    int g = head / (d->H / d->G);
    const void *row = kh_kv_value_row(p->kv, layer, g, key);
    kh_unpack unpack = kh_unpack_of(p->kern, kh_kv_shape_of(p->kv)->v_type);
    if (unpack.f32)
        unpack.f32(out, row, (size_t)d->E);
    else
        memcpy(out, row, (size_t)d->E * sizeof *out);
}

/* z of a head [E]: one of its weights, or two, are others. */
static void change_keys(const kh_edit_work *w, const kh_edits *all, const kh_edit_place *p,
                        size_t r, float *z)
{
    const kh_edit *e = &w->edit;
    size_t E = (size_t)p->model->d.E, position = p->position + r;
    float had = w->weights[r], other = w->weights[all->batch + r];
    int swap = e->operation == KH_EDIT_SWAP;
    if ((size_t)e->part.key > position || (swap && (size_t)e->other > position)) return;
    value_of(p, e->part.layer, e->part.index, (size_t)e->part.key, w->values);
    float now = swap ? other : changed(w, had, 0);
    add_scaled(z, (double)now - (double)had, w->values, E);
    if (!swap) return;
    value_of(p, e->part.layer, e->part.index, (size_t)e->other, w->values + E);
    add_scaled(z, (double)had - (double)other, w->values + E, E);
}

void kh_edits_point(kh_edits *edits, const kh_edit_place *place, kh_point point, int layer,
                    float *data, size_t rows, size_t width)
{
    for (size_t i = 0; i < edits->count; i++) {
        const kh_edit_work *w = &edits->works[i];
        const kh_edit *e = &w->edit;
        if (w->point != point || (layer >= 0 && e->part.layer != layer)) continue;
        for (size_t r = 0; r < rows; r++) {
            if (!applies(e, place->position + r, place->prompt)) continue;
            float *row = data + r * width;
            size_t from;
            kh_component_width(place->model, &e->part, &from);
            if (e->part.kind == KH_COMPONENT_KEY)
                change_keys(w, edits, place, r, row + from);
            else
                change_row(w, place->model, row);
        }
    }
}

static float weight_of(const kh_attn_row *row, uint32_t key)
{
    size_t low = 0, high = row->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (row->keys[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low < row->count && row->keys[low] == key ? row->weights[low] : 0;
}

void kh_edits_row(kh_edits *edits, const kh_attn_row *row)
{
    for (size_t i = 0; i < edits->count; i++) {
        kh_edit_work *w = &edits->works[i];
        const kh_component *part = &w->edit.part;
        if (!w->weights || part->layer != row->layer || part->index != row->head) continue;
        w->weights[row->row] = weight_of(row, (uint32_t)part->key);
        w->weights[edits->batch + row->row] = weight_of(row, (uint32_t)w->edit.other);
    }
}
