/* Neurons: which dominate at a position, and what one of them is.
 *
 *     score(i)  = |coefficient(i)| times the norm of its value vector    LM-Debugger's order of "sub-updates"
 *     value(i)  = its exact share of a logit (inspect/account.c)        the order that knows about direction
 *
 * What a neuron is does not depend on a text: its value vector, and the rows of gate and up that read the stream, as
 * raw products with the output head, neither normed nor scaled, as LM-Debugger shows value vectors; a value vector
 * promotes its upper end and suppresses the lower when the coefficient is positive.
 *
 * Neighbours are found exactly: one product of every down projection with the unit value vector, divided by the
 * norms, which are kept. */
#include "base/alloc.h"
#include "base/fail.h"
#include "inspect/account.h"
#include "inspect/distribution.h"
#include "inspect/precise.h"
#include "model/network.h"
#include "ops/rowwise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { USUAL = 10, USUAL_TOKENS = 50 };

static kh_status check_layer(const kh_inspector *i, int layer)
{
    const kh_description *d = &i->model->d;
    if (layer < 0 || layer >= d->N)
        KH_FAIL(KH_ERR_ARGUMENT, "layer %d: the model has layers 0 to %d", layer, d->N - 1);
    if (i->model->w.stack.blocks[layer].experts.router.name)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "layer %d is a mixture of experts, whose neurons are not told "
                "apart yet",
                layer);
    return KH_OK;
}

static kh_status check_neuron(const kh_inspector *i, int layer, int neuron)
{
    KH_TRY(check_layer(i, layer));
    if (neuron < 0 || neuron >= i->model->d.F)
        KH_FAIL(KH_ERR_ARGUMENT, "neuron %d: a layer has neurons 0 to %d", neuron,
                i->model->d.F - 1);
    return KH_OK;
}

/* ---- dominant neurons ---- */

static int by_score(const void *a, const void *b)
{
    const kh_neuron_here *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return x->neuron - y->neuron;
}

static int by_value(const void *a, const void *b)
{
    const kh_neuron_here *x = a, *y = b;
    double size_x = fabs(x->value), size_y = fabs(y->value);
    if (size_x != size_y) return size_x < size_y ? 1 : -1;
    return x->neuron - y->neuron;
}

/* All neurons of a layer into `all` [F], strongest first. */
static kh_status rank_layer(kh_inspector *i, const kh_account *a, int layer, int value,
                            kh_neuron_here *all)
{
    size_t F = (size_t)i->model->d.F, at = (size_t)layer * F;
    const float *norms;
    KH_TRY(kh_inspector_norms(i, layer, &norms));
    for (size_t f = 0; f < F; f++) {
        float m = a->coefficients[at + f];
        all[f] = (kh_neuron_here){layer, (int)f, m, fabs((double)m) * (double)norms[f],
                                  (double)a->neurons[at + f]};
    }
    qsort(all, F, sizeof *all, value ? by_value : by_score);
    return KH_OK;
}

static kh_status rank(kh_inspector *i, const kh_account *a, const kh_neurons_options *o,
                      kh_neuron_here **out, size_t *count)
{
    const kh_description *d = &i->model->d;
    size_t F = (size_t)d->F, most = o->most ? o->most : USUAL;
    int first = o->layer < 0 ? 0 : o->layer, last = o->layer < 0 ? d->N - 1 : o->layer;
    kh_neuron_here *all = NULL;
    if (most > F) most = F;
    KH_TRY(kh_new(out, (size_t)(last - first + 1) * most, sizeof **out, "neurons"));
    kh_status status = kh_new(&all, F, sizeof *all, "neurons");
    for (int l = first; l <= last && status == KH_OK; l++) {
        if (i->model->w.stack.blocks[l].experts.router.name) continue;
        status = rank_layer(i, a, l, o->by_value, all);
        memcpy(*out + *count, all, most * sizeof *all);
        *count += most;
    }
    kh_free(all);
    return status;
}

kh_status kh_neurons(kh_inspector *i, const kh_neurons_options *options, kh_neuron_here **out,
                     size_t *count)
{
    kh_account a;
    *out = NULL;
    *count = 0;
    atomic_store(&i->stop, 0);
    if (options->layer >= 0) KH_TRY(check_layer(i, options->layer));
    if (options->by_value && options->a < 0)
        KH_FAIL(KH_ERR_ARGUMENT, "neurons by their share of a logit: a token is expected");
    KH_TRY(kh_account_open(&a, i, options->position, options->a, options->b));
    kh_status status = rank(i, &a, options, out, count);
    kh_account_close(&a);
    if (status != KH_OK) {
        kh_neurons_free(*out);
        *out = NULL;
        *count = 0;
    }
    return status;
}

void kh_neurons_free(kh_neuron_here *neurons)
{
    kh_free(neurons);
}

/* ---- one neuron, whatever the text ---- */

static kh_status card_vectors(kh_neuron *out, kh_distribution *r, const kh_inspector *i,
                              const kh_neuron_options *o)
{
    const kh_block *b = &i->model->w.stack.blocks[o->layer];
    size_t D = (size_t)i->model->d.D, V = (size_t)i->model->d.V, at = (size_t)o->neuron;
    size_t n = o->tokens ? o->tokens : USUAL_TOKENS;
    float *wide = NULL, *spare = r->spare;
    KH_TRY(kh_new(&wide, b->down.cols, sizeof *wide, "a row of weights"));
    kh_weight_column(r->x, &b->down, at, i->run.kern, wide);
    kh_free(wide);
    kh_weight_row(r->x + D, &b->up, at, i->run.kern);
    if (b->gate.name) kh_weight_row(r->x + 2 * D, &b->gate, at, i->run.kern);
    out->value_norm = kh_length_of(r->x, D);
    out->up_norm = kh_length_of(r->x + D, D);
    out->gate_norm = b->gate.name ? kh_length_of(r->x + 2 * D, D) : 0;
    KH_TRY(kh_distribution_raw(r, b->gate.name ? 3 : 2));
    KH_TRY(kh_row_ends(&out->value_top, &out->value_bottom, r->logits, V, n, spare));
    if (!o->vectors) return KH_OK;
    KH_TRY(kh_row_ends(&out->up_top, &out->up_bottom, r->logits + V, V, n, spare));
    if (!b->gate.name) return KH_OK;
    return kh_row_ends(&out->gate_top, &out->gate_bottom, r->logits + 2 * V, V, n, spare);
}

/* Enters a neighbour into `list` [most], which is ordered. */
static void enter(kh_neighbour *list, size_t *count, size_t most, const kh_neighbour *one)
{
    size_t at = *count;
    if (at == most && one->cosine <= list[most - 1].cosine) return;
    if (at == most) at--;
    for (; at > 0 && list[at - 1].cosine < one->cosine; at--) list[at] = list[at - 1];
    list[at] = *one;
    if (*count < most) (*count)++;
}

static kh_status near_layer(kh_neuron *out, kh_inspector *i, const kh_neuron_options *o, int l,
                            const float *unit, float *cosines)
{
    const kh_description *d = &i->model->d;
    const float *norms;
    KH_TRY(kh_inspector_go_on(i));
    KH_TRY(kh_inspector_norms(i, l, &norms));
    KH_TRY(kh_columns_product(&i->columns, cosines, &i->model->w.stack.blocks[l].down, unit));
    for (int f = 0; f < d->F; f++) {
        if ((l == o->layer && f == o->neuron) || norms[f] == 0) continue;
        kh_neighbour one = {l, f, (double)cosines[f] / (double)norms[f]};
        enter(out->neighbours, &out->neighbour_count, o->neighbours, &one);
    }
    return KH_OK;
}

static kh_status card_neighbours(kh_neuron *out, kh_inspector *i, const kh_neuron_options *o)
{
    const kh_description *d = &i->model->d;
    size_t D = (size_t)d->D, F = (size_t)d->F;
    float *unit = NULL;
    if (o->neighbours == 0) return KH_OK;
    KH_TRY(kh_new(&out->neighbours, o->neighbours, sizeof *out->neighbours, "neighbours"));
    KH_TRY(kh_new(&unit, D + F, sizeof *unit, "a value vector"));
    kh_weight_column(unit, &i->model->w.stack.blocks[o->layer].down, (size_t)o->neuron, i->run.kern,
                     unit + D);
    double norm = kh_length_of(unit, D);
    for (size_t c = 0; c < D && norm > 0; c++) unit[c] = (float)((double)unit[c] / norm);
    kh_status status = KH_OK;
    for (int l = 0; l < d->N && status == KH_OK; l++)
        if (!i->model->w.stack.blocks[l].experts.router.name)
            status = near_layer(out, i, o, l, unit, unit + D);
    kh_free(unit);
    return status;
}

kh_status kh_neuron_open(kh_neuron *out, kh_inspector *i, const kh_neuron_options *options)
{
    kh_distribution r;
    size_t V = (size_t)i->model->d.V, most = V < KH_DISTRIBUTION_TOP ? V : KH_DISTRIBUTION_TOP;
    *out = (kh_neuron){0};
    atomic_store(&i->stop, 0);
    KH_TRY(check_neuron(i, options->layer, options->neuron));
    if (options->tokens > most || options->neighbours > KH_DISTRIBUTION_TOP)
        KH_FAIL(KH_ERR_ARGUMENT, "a neuron's card: at most %zu tokens and %d neighbours", most,
                KH_DISTRIBUTION_TOP);
    KH_TRY(kh_distribution_open(&r, i, 3, 3));
    kh_status status = card_vectors(out, &r, i, options);
    kh_distribution_close(&r);
    if (status == KH_OK) status = card_neighbours(out, i, options);
    if (status != KH_OK) kh_neuron_free(out);
    return status;
}

void kh_neuron_free(kh_neuron *neuron)
{
    kh_vocabulary_end *ends[] = {&neuron->value_top,   &neuron->value_bottom, &neuron->gate_top,
                                 &neuron->gate_bottom, &neuron->up_top,       &neuron->up_bottom};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) kh_vocabulary_end_free(ends[i]);
    kh_free(neuron->neighbours);
    *neuron = (kh_neuron){0};
}

/* ---- many value vectors at once ---- */

typedef struct ends {
    kh_distribution *r;
    kh_vocabulary_end *top, *bottom; /* of the rows of a product; bottom NULL: not asked for */
} ends;

static void ends_item(void *context, size_t item, int worker)
{
    const ends *e = context;
    size_t V = (size_t)e->r->inspector->model->d.V;
    const float *logits = e->r->logits + item * V;
    kh_row_top(e->top[item].tokens, e->top[item].count, logits, HUGE_VAL, V);
    if (e->bottom)
        kh_row_bottom(e->bottom[item].tokens, e->bottom[item].count, logits, HUGE_VAL, V,
                      e->r->spare + (size_t)worker * V);
}

/* How many of them are columns side by side. */
static size_t side_by_side(const kh_component *neurons, size_t count)
{
    size_t n = 1;
    while (n < count && neurons[n].layer == neurons[0].layer &&
           neurons[n].index == neurons[0].index + (int)n)
        n++;
    return n;
}

static kh_status tokens_of(kh_distribution *r, const kh_component *neurons, size_t count,
                           const ends *e)
{
    const kh_inspector *i = r->inspector;
    size_t D = (size_t)i->model->d.D;
    float *wide = NULL;
    KH_TRY(kh_new(&wide, (size_t)i->model->d.F, sizeof *wide, "a row of weights"));
    for (size_t n = 0, m; n < count; n += m) {
        m = side_by_side(neurons + n, count - n);
        kh_weight_columns(r->x + n * D, &i->model->w.stack.blocks[neurons[n].layer].down,
                          (size_t)neurons[n].index, m, i->run.kern, wide);
    }
    kh_free(wide);
    KH_TRY(kh_distribution_raw(r, count));
    kh_parallel_for(i->run.pool, count, ends_item, (void *)(uintptr_t)e);
    return KH_OK;
}

static kh_status take_ends(kh_vocabulary_end *list, size_t count, size_t tokens)
{
    for (size_t n = 0; list && n < count; n++) {
        KH_TRY(kh_new(&list[n].tokens, tokens, sizeof *list[n].tokens, "tokens"));
        list[n].count = tokens;
    }
    return KH_OK;
}

kh_status kh_neuron_tokens(kh_inspector *i, const kh_component *neurons, size_t count,
                           size_t tokens, kh_vocabulary_end *top, kh_vocabulary_end *bottom)
{
    kh_distribution r;
    for (size_t n = 0; n < count; n++) {
        top[n] = (kh_vocabulary_end){0};
        if (bottom) bottom[n] = (kh_vocabulary_end){0};
    }
    atomic_store(&i->stop, 0);
    for (size_t n = 0; n < count; n++) KH_TRY(check_neuron(i, neurons[n].layer, neurons[n].index));
    if (tokens == 0 || tokens > KH_DISTRIBUTION_TOP || tokens > (size_t)i->model->d.V)
        KH_FAIL(KH_ERR_ARGUMENT, "%zu tokens of a value vector: 1 to %d are expected", tokens,
                KH_DISTRIBUTION_TOP);
    KH_TRY(take_ends(top, count, tokens));
    KH_TRY(take_ends(bottom, count, tokens));
    KH_TRY(kh_distribution_open(&r, i, count, 1));
    kh_status status = KH_OK;
    for (size_t n = 0, m; n < count && status == KH_OK; n += m) {
        const ends e = {&r, top + n, bottom ? bottom + n : NULL};
        m = count - n < r.rows ? count - n : r.rows;
        status = tokens_of(&r, neurons + n, m, &e);
    }
    kh_distribution_close(&r);
    return status;
}

/* ---- one neuron at a position ---- */

typedef struct state {
    kh_neuron_state *out;
    size_t position, first;
    int layer, neuron;
} state;

static void begin_block(void *context, size_t position, size_t rows)
{
    (void)rows;
    ((state *)context)->first = position;
}

static void take_state(void *context, kh_point point, int layer, float *data, size_t rows,
                       size_t width)
{
    const state *s = context;
    (void)rows;
    if (layer != s->layer) return;
    float x = data[(s->position - s->first) * width + (size_t)s->neuron];
    if (point == KH_POINT_MLP_PRE) s->out->gate = x;
    if (point == KH_POINT_MLP_PRE_LINEAR) s->out->up = x;
    if (point == KH_POINT_MLP_ACT) s->out->coefficient = x;
}

kh_status kh_neuron_at(kh_inspector *i, size_t position, int layer, int neuron, int32_t a,
                       int32_t b, kh_neuron_state *out)
{
    const kh_model *m = i->model;
    state s = {out, position, 0, layer, neuron};
    kh_probe probe = {&s,
                      UINT64_C(1) << KH_POINT_MLP_PRE | UINT64_C(1) << KH_POINT_MLP_PRE_LINEAR |
                          UINT64_C(1) << KH_POINT_MLP_ACT,
                      take_state, NULL};
    const kh_watch watch = {&probe, begin_block, &s, kh_inspector_reading(i), 0, NULL};
    const float *norms;
    *out = (kh_neuron_state){.up = 1};
    atomic_store(&i->stop, 0);
    KH_TRY(check_neuron(i, layer, neuron));
    KH_TRY(kh_inspector_look(i, position, 1, &watch));
    KH_TRY(kh_inspector_norms(i, layer, &norms));
    out->activated = out->gate;
    kh_act_row(i->run.kern, m->d.act, &out->activated, NULL, 1);
    out->score = fabs((double)out->coefficient) * (double)norms[neuron];
    if (a < 0) return KH_OK;
    const kh_why_options options = {position, a, b, 1};
    const kh_component part = {KH_COMPONENT_NEURON, layer, neuron, 0};
    kh_share share;
    KH_TRY(kh_why_part(i, &options, &part, &share));
    out->value = share.value;
    return KH_OK;
}
