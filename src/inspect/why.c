/* "Why a, not b": the account of a logit in the order in which a reader wants it.
 *
 * The strongest heads and neurons are listed by the size of what they gave, either sign; what is not listed is in the
 * sums. A head says which of its keys gave most of it. */
#include "base/alloc.h"
#include "base/fail.h"
#include "inspect/account.h"
#include "model/network.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { USUAL = 12, MOST = 100000 };

static int by_size(const void *a, const void *b)
{
    const kh_share *x = a, *y = b;
    double size_x = fabs(x->value), size_y = fabs(y->value);
    if (size_x != size_y) return size_x < size_y ? 1 : -1;
    if (x->part.layer != y->part.layer) return x->part.layer < y->part.layer ? -1 : 1;
    return (x->part.index > y->part.index) - (x->part.index < y->part.index);
}

/* The `most` strongest of values [layers][width]. */
static kh_status strongest(kh_share **out, size_t *count, const float *values, size_t layers,
                           size_t width, size_t most, kh_component_kind kind)
{
    kh_share *all = NULL;
    size_t n = layers * width;
    KH_TRY(kh_new(&all, n ? n : 1, sizeof *all, "shares"));
    for (size_t i = 0; i < n; i++)
        all[i] = (kh_share){.part = {kind, (int)(i / width), (int)(i % width), 0},
                            .value = (double)values[i],
                            .source = -1};
    qsort(all, n, sizeof *all, by_size);
    *count = n < most ? n : most;
    kh_share *kept = kh_realloc(all, (*count ? *count : 1) * sizeof *kept);
    *out = kept ? kept : all;
    return KH_OK;
}

static double sum_of(const float *values, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)values[i];
    return sum;
}

static kh_status layers_of(kh_why *w, const kh_account *a, const kh_description *d)
{
    size_t N = (size_t)d->N, H = (size_t)d->H, F = (size_t)d->F;
    KH_TRY(kh_new(&w->attention, N, sizeof *w->attention, "shares"));
    KH_TRY(kh_new(&w->mlp, N, sizeof *w->mlp, "shares"));
    w->layers = d->N;
    for (size_t l = 0; l < N; l++) {
        double heads = sum_of(a->heads + l * H, H), neurons = sum_of(a->neurons + l * F, F);
        w->attention[l] = (kh_share){
            .part = {KH_COMPONENT_ATTENTION, (int)l, 0, 0}, .value = heads, .source = -1};
        w->mlp[l] = (kh_share){
            .part = {KH_COMPONENT_MLP, (int)l, 0, 0}, .value = neurons + a->mlps[l], .source = -1};
        w->heads += heads;
        w->neurons += neurons;
        w->mlps += a->mlps[l];
    }
    return KH_OK;
}

static kh_status fill(kh_why *w, const kh_account *a, kh_inspector *i, size_t most)
{
    const kh_description *d = &i->model->d;
    size_t N = (size_t)d->N;
    w->a = a->a_token;
    w->b = a->b_token;
    w->total = a->total;
    w->scale = a->scale;
    w->embed = (kh_share){.part = {KH_COMPONENT_EMBED, -1, 0, 0}, .value = a->embed, .source = -1};
    w->bias = (kh_share){.part = {KH_COMPONENT_BIAS, -1, 0, 0}, .value = a->bias, .source = -1};
    KH_TRY(layers_of(w, a, d));
    w->edits = a->edits;
    w->sum = a->embed + a->bias + w->heads + w->neurons + w->mlps + w->edits;
    w->leftover = w->total - w->sum;
    KH_TRY(strongest(&w->strong_heads, &w->head_count, a->heads, N, (size_t)d->H, most,
                     KH_COMPONENT_HEAD));
    KH_TRY(strongest(&w->strong_neurons, &w->neuron_count, a->neurons, N,
                     d->experts.count ? 0 : (size_t)d->F, most, KH_COMPONENT_NEURON));
    for (size_t n = 0; n < w->neuron_count; n++) {
        const kh_component *p = &w->strong_neurons[n].part;
        w->strong_neurons[n].coefficient =
            a->coefficients[(size_t)p->layer * (size_t)d->F + (size_t)p->index];
    }
    return kh_account_sources(a, i, w->strong_heads, w->head_count);
}

kh_status kh_why_open(kh_why *out, kh_inspector *inspector, const kh_why_options *options)
{
    kh_account a;
    *out = (kh_why){0};
    atomic_store(&inspector->stop, 0);
    if (options->most > MOST)
        KH_FAIL(KH_ERR_ARGUMENT, "%zu parts: at most %d are listed", options->most, MOST);
    if (options->a == KH_TOKEN_NONE) KH_FAIL(KH_ERR_ARGUMENT, "why: a token is expected");
    KH_TRY(kh_account_open(&a, inspector, options->position, options->a, options->b));
    kh_status status = fill(out, &a, inspector, options->most ? options->most : USUAL);
    kh_account_close(&a);
    if (status != KH_OK) kh_why_free(out);
    return status;
}

void kh_why_free(kh_why *why)
{
    kh_free(why->strong_heads);
    kh_free(why->strong_neurons);
    kh_free(why->attention);
    kh_free(why->mlp);
    *why = (kh_why){0};
}

static double part_of(const kh_account *a, const kh_description *d, const kh_component *part)
{
    size_t l = part->layer < 0 ? 0 : (size_t)part->layer, H = (size_t)d->H, F = (size_t)d->F;
    switch (part->kind) {
    case KH_COMPONENT_NEURON: return (double)a->neurons[l * F + (size_t)part->index];
    case KH_COMPONENT_HEAD: return (double)a->heads[l * H + (size_t)part->index];
    case KH_COMPONENT_ATTENTION: return sum_of(a->heads + l * H, H);
    case KH_COMPONENT_MLP: return sum_of(a->neurons + l * F, F) + a->mlps[l];
    case KH_COMPONENT_EMBED: return a->embed;
    default: return a->bias;
    }
}

kh_status kh_why_part(kh_inspector *inspector, const kh_why_options *options,
                      const kh_component *part, kh_share *out)
{
    const kh_description *d = &inspector->model->d;
    kh_account a;
    *out = (kh_share){.part = *part, .source = -1};
    atomic_store(&inspector->stop, 0);
    if (part->kind == KH_COMPONENT_KEY || part->kind == KH_COMPONENT_PRE ||
        part->kind == KH_COMPONENT_MID || part->kind == KH_COMPONENT_POST)
        KH_FAIL(KH_ERR_ARGUMENT,
                "a neuron, a head, attention, feed-forward or the embeddings have a "
                "share of a logit; the stream is their sum");
    KH_TRY(kh_inspector_check_token(inspector, options->a));
    KH_TRY(kh_account_open(&a, inspector, options->position, options->a, options->b));
    kh_status status = KH_OK;
    out->value = part_of(&a, d, part);
    if (part->kind == KH_COMPONENT_NEURON)
        out->coefficient = a.coefficients[(size_t)part->layer * (size_t)d->F + (size_t)part->index];
    if (part->kind == KH_COMPONENT_HEAD) status = kh_account_sources(&a, inspector, out, 1);
    kh_account_close(&a);
    return status;
}
