/* From a token to the parts that write it, exactly and without an index.
 *
 *     logit(neuron) = e . v        e: mean of the tokens' rows of the output head, v: the value vector
 *     cosine        = e . v / |e| |v|
 *     rank          the token's place in the whole vocabulary row of v, for the neurons with the largest logits
 *
 * All neurons of a layer are one product W_down^T e (ops/columns.c): a model of 46,080 neurons takes as long as unpacking
 * its down projections once. LM-Debugger asks a text index over stored lists of fifty tokens instead, which finds a
 * neuron only if the token is among its fifty, and orders by the text.
 *
 * A head has no vector of its own; what it can write of e is W_o[h]^T e, whose length is the most that a z of length 1
 * can give. */
#include "base/alloc.h"
#include "base/fail.h"
#include "inspect/distribution.h"
#include "inspect/precise.h"
#include "model/network.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { USUAL = 20, MOST = 10000, RANKED = 128 };

typedef struct searching {
    kh_inspector *inspector;
    kh_search_options o;
    float *e; /* [D] */
    double e_length;
    kh_search_hit *all; /* [n] */
    size_t n;
} searching;

static kh_status check(searching *s)
{
    if (s->o.count == 0) KH_FAIL(KH_ERR_ARGUMENT, "search: at least one token is expected");
    if (s->o.most > MOST) KH_FAIL(KH_ERR_ARGUMENT, "search: at most %d of each end", MOST);
    for (size_t t = 0; t < s->o.count; t++)
        KH_TRY(kh_inspector_check_token(s->inspector, s->o.tokens[t]));
    if (s->o.ends == 0) s->o.ends = 3;
    if (s->o.most == 0) s->o.most = USUAL;
    return KH_OK;
}

static kh_status find_direction(searching *s)
{
    const kh_inspector *i = s->inspector;
    size_t D = (size_t)i->model->d.D;
    float *row = NULL;
    KH_TRY(kh_new(&s->e, D, sizeof *s->e, "a direction"));
    KH_TRY(kh_new(&row, D, sizeof *row, "a row"));
    for (size_t t = 0; t < s->o.count; t++) {
        kh_weight_row(row, &i->model->w.head, (size_t)s->o.tokens[t], i->run.kern);
        for (size_t c = 0; c < D; c++) s->e[c] += row[c] / (float)s->o.count;
    }
    kh_free(row);
    s->e_length = kh_length_of(s->e, D);
    return KH_OK;
}

static double key_of(const searching *s, const kh_search_hit *h)
{
    return s->o.order == KH_SEARCH_COSINE ? h->cosine : h->logit;
}

static int upper(const void *a, const void *b)
{
    const kh_search_hit *x = a, *y = b;
    if (x->rank != y->rank) return x->rank < y->rank ? -1 : 1;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    if (x->part.layer != y->part.layer) return x->part.layer - y->part.layer;
    return x->part.index - y->part.index;
}

/* The strongest of one end, at the front of `out`; `sign` 1: the upper end. Hits are ordered by `logit`, which holds the
 * key here. */
static size_t take_end(const searching *s, kh_search_hit *out, double sign, size_t most)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++) {
        kh_search_hit h = s->all[i];
        h.logit = sign * key_of(s, &s->all[i]);
        if (n == most && h.logit <= out[n - 1].logit) continue;
        size_t at = n < most ? n++ : n - 1;
        for (; at > 0 && out[at - 1].logit < h.logit; at--) out[at] = out[at - 1];
        out[at] = h;
        out[at].rank = (uint32_t)i; /* where it came from */
    }
    for (size_t i = 0; i < n; i++) out[i] = s->all[out[i].rank];
    return n;
}

/* Exact ranks of the tokens in the vocabulary rows of some neurons. */
static kh_status take_ranks(const searching *s, kh_search_hit *hits, size_t count, int lower)
{
    kh_inspector *i = s->inspector;
    size_t D = (size_t)i->model->d.D, V = (size_t)i->model->d.V;
    kh_distribution r;
    float *wide = NULL;
    KH_TRY(kh_distribution_open(&r, i, count, 1));
    kh_status status = kh_new(&wide, (size_t)i->model->d.F, sizeof *wide, "a row of weights");
    for (size_t n = 0, m; n < count && status == KH_OK; n += m) {
        m = count - n < r.rows ? count - n : r.rows;
        for (size_t h = 0; h < m; h++)
            kh_weight_column(r.x + h * D, &i->model->w.stack.blocks[hits[n + h].part.layer].down,
                             (size_t)hits[n + h].part.index, i->run.kern, wide);
        status = kh_distribution_raw(&r, m);
        for (size_t h = 0; h < m && status == KH_OK; h++) {
            uint32_t best = UINT32_MAX;
            for (size_t t = 0; t < s->o.count; t++) {
                uint32_t rank = kh_row_token(r.logits + h * V, 0, V, s->o.tokens[t]).rank;
                if (lower) rank = (uint32_t)V - 1 - rank;
                if (rank < best) best = rank;
            }
            hits[n + h].rank = best;
        }
    }
    kh_free(wide);
    kh_distribution_close(&r);
    return status;
}

static kh_status ends_of(const searching *s, kh_search_hit **out, size_t *count, int ranks)
{
    size_t most = s->o.most, room = most > RANKED ? most : RANKED;
    size_t wanted = s->o.order == KH_SEARCH_RANK && ranks ? room : most;
    KH_TRY(kh_new(out, 2 * room, sizeof **out, "hits"));
    for (int lower = 0; lower < 2; lower++) {
        if (!(s->o.ends >> lower & 1)) continue;
        kh_search_hit *at = *out + *count;
        size_t n = take_end(s, at, lower ? -1 : 1, wanted);
        if (ranks) KH_TRY(take_ranks(s, at, n, lower));
        if (s->o.order == KH_SEARCH_RANK && ranks) qsort(at, n, sizeof *at, upper);
        *count += n < most ? n : most;
    }
    return KH_OK;
}

static kh_status all_neurons(searching *s)
{
    kh_inspector *i = s->inspector;
    const kh_description *d = &i->model->d;
    size_t F = (size_t)d->F;
    float *logits = NULL;
    const float *norms;
    kh_status status = KH_OK;
    KH_TRY(kh_new(&s->all, (size_t)d->N * F, sizeof *s->all, "neurons"));
    KH_TRY(kh_new(&logits, F, sizeof *logits, "logits"));
    for (int l = 0; l < d->N && status == KH_OK; l++) {
        const kh_block *b = &i->model->w.stack.blocks[l];
        if (b->experts.router.name) continue;
        status = kh_inspector_go_on(i);
        if (status == KH_OK) status = kh_inspector_norms(i, l, &norms);
        if (status == KH_OK) status = kh_columns_product(&i->columns, logits, &b->down, s->e);
        for (size_t f = 0; f < F && status == KH_OK; f++) {
            double size = s->e_length * (double)norms[f];
            s->all[s->n++] = (kh_search_hit){{KH_COMPONENT_NEURON, l, (int)f, 0},
                                             (double)logits[f],
                                             size > 0 ? (double)logits[f] / size : 0,
                                             0};
        }
    }
    kh_free(logits);
    return status;
}

static kh_status all_heads(searching *s)
{
    kh_inspector *i = s->inspector;
    const kh_description *d = &i->model->d;
    size_t H = (size_t)d->H, E = (size_t)d->E;
    float *moves = NULL;
    kh_status status = KH_OK;
    KH_TRY(kh_new(&s->all, (size_t)d->N * H, sizeof *s->all, "heads"));
    KH_TRY(kh_new(&moves, 2 * H * E, sizeof *moves, "a head's columns"));
    for (int l = 0; l < d->N && status == KH_OK; l++) {
        const kh_weight *o = &i->model->w.stack.blocks[l].self.o;
        status = kh_columns_product(&i->columns, moves, o, s->e);
        if (status == KH_OK) status = kh_columns_norms(&i->columns, moves + H * E, o);
        for (size_t h = 0; h < H && status == KH_OK; h++) {
            double size = s->e_length * kh_length_of(moves + (H + h) * E, E);
            double moved = kh_length_of(moves + h * E, E);
            s->all[s->n++] = (kh_search_hit){
                {KH_COMPONENT_HEAD, l, (int)h, 0}, moved, size > 0 ? moved / size : 0, 0};
        }
    }
    kh_free(moves);
    return status;
}

static kh_status run(kh_inspector *i, const kh_search_options *options,
                     kh_status (*all)(searching *), int neurons, kh_search_hit **out, size_t *count)
{
    searching s = {.inspector = i, .o = *options};
    *out = NULL;
    *count = 0;
    atomic_store(&i->stop, 0);
    KH_TRY(check(&s));
    if (!neurons) s.o.ends = 1;
    kh_status status = find_direction(&s);
    if (status == KH_OK) status = all(&s);
    if (status == KH_OK) status = ends_of(&s, out, count, neurons);
    kh_free(s.e);
    kh_free(s.all);
    if (status != KH_OK) {
        kh_search_free(*out);
        *out = NULL;
        *count = 0;
    }
    return status;
}

kh_status kh_search(kh_inspector *inspector, const kh_search_options *options, kh_search_hit **out,
                    size_t *count)
{
    return run(inspector, options, all_neurons, 1, out, count);
}

kh_status kh_search_heads(kh_inspector *inspector, const kh_search_options *options,
                          kh_search_hit **out, size_t *count)
{
    return run(inspector, options, all_heads, 0, out, count);
}

void kh_search_free(kh_search_hit *hits)
{
    kh_free(hits);
}
