/* A logit as a sum of what every part of the model added to the residual stream.
 *
 *     logit(a) - logit(b) = u . x + (bias of the final norm) . e       e = W_head[a] - W_head[b]
 *     u = (g e) / sigma            RMS norm, gain g, sigma as it was observed at this position
 *     u = (g e - mean(g e)) / sigma     layer norm: what it takes off x it may as well take off u
 *     x = embeddings + sum over layers of attention + feed-forward
 *
 * With sigma frozen at what it was, all of this is linear, so every part's share is a product with u:
 *
 *     head h of layer l       (W_o^T u)[h] . z[h]
 *     neuron i of layer l     (W_down^T u)[i] * coefficient[i]
 *     biases                  u . (b_o + b_down), of all layers
 *
 * Where a layer's output has a norm of its own (Gemma), u goes back through that norm first, its scale frozen too.
 * Mixtures of experts are one share of a layer. What edits write into the stream, or into what a layer adds to it, is a
 * share of its own: u . what stood at their point behind them, less what stood there in front of them. Two products with
 * the transposed weights of each layer (ops/columns.c) are all that it costs, whatever the number of parts; the leftover is
 * what rounding leaves, and it is told.
 *
 * Elhage et al. (2021) and Geva et al. (2022) are where this account comes from; the linearisation is that of
 * direct logit attribution. Soft-caps are not linear: the account is of the logit before its cap. */
#include "inspect/account.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "inspect/distribution.h"
#include "inspect/precise.h"
#include "model/network.h"
#include "ops/rowwise.h"

#include <math.h>
#include <string.h>

/* ---- what the pass shows ---- */

typedef struct showing {
    kh_account *account;
    const kh_description *d;
    size_t first; /* position of the block's first row */
    float *had;   /* [D] what stood at a point in front of the edits; NULL: there are none */
} showing;

/* Where edits write into the stream, or into what a layer adds to it. */
static const uint64_t change_points = UINT64_C(1) << KH_POINT_RESID_PRE |
                                      UINT64_C(1) << KH_POINT_RESID_MID |
                                      UINT64_C(1) << KH_POINT_RESID_POST |
                                      UINT64_C(1) << KH_POINT_ATTN_OUT_POST |
                                      UINT64_C(1) << KH_POINT_MLP_OUT_POST;

static void begin_block(void *context, size_t position, size_t rows)
{
    (void)rows;
    ((showing *)context)->first = position;
}

static void show_before(void *context, kh_point point, int layer, float *data, size_t rows,
                        size_t width)
{
    const showing *s = context;
    (void)point;
    (void)layer;
    (void)rows;
    memcpy(s->had, data + (s->account->position - s->first) * width, width * sizeof *data);
}

static void show(void *context, kh_point point, int layer, float *data, size_t rows, size_t width)
{
    const showing *s = context;
    kh_account *a = s->account;
    const float *row = data + (a->position - s->first) * width;
    size_t at = layer >= 0 ? (size_t)layer * width : 0;
    float *to = point == KH_POINT_EMBEDDINGS                           ? a->embeddings
                : point == KH_POINT_Z                                  ? a->z + at
                : point == KH_POINT_MLP_ACT                            ? a->coefficients + at
                : point == KH_POINT_ATTN_OUT                           ? a->attn_out + at
                : point == KH_POINT_MLP_OUT                            ? a->mlp_out + at
                : point == KH_POINT_RESID_POST && layer == s->d->N - 1 ? a->last
                                                                       : NULL;
    (void)rows;
    if (to) memcpy(to, row, width * sizeof *row);
    if (s->had && change_points >> point & 1)
        for (size_t c = 0; c < width; c++) a->change[c] += row[c] - s->had[c];
}

static kh_status take_pass(kh_account *a, kh_inspector *i)
{
    showing s = {a, &i->model->d, 0, NULL};
    kh_probe before = {&s, change_points, show_before, NULL};
    kh_probe probe = {&s,
                      UINT64_C(1) << KH_POINT_EMBEDDINGS | UINT64_C(1) << KH_POINT_Z |
                          UINT64_C(1) << KH_POINT_MLP_ACT | UINT64_C(1) << KH_POINT_ATTN_OUT |
                          UINT64_C(1) << KH_POINT_MLP_OUT | UINT64_C(1) << KH_POINT_RESID_POST,
                      show, NULL};
    kh_watch watch = {&probe, begin_block, &s, kh_inspector_reading(i), 0, NULL};
    if (i->edited) {
        KH_TRY(kh_new(&s.had, (size_t)i->model->d.D, sizeof *s.had, "an account"));
        probe.points |= change_points;
        watch.before = &before;
    }
    kh_status status = kh_inspector_look(i, a->position, 1, &watch);
    kh_free(s.had);
    return status;
}

static kh_status take_memory(kh_account *a, const kh_description *d)
{
    size_t N = (size_t)d->N, D = (size_t)d->D, HE = (size_t)d->H * (size_t)d->E, F = (size_t)d->F;
    const struct {
        float **array;
        size_t n;
    } all[] = {{&a->embeddings, D},       {&a->last, D},
               {&a->change, D},           {&a->z, N * HE},
               {&a->coefficients, N * F}, {&a->attn_out, N * D},
               {&a->mlp_out, N * D},      {&a->heads, N * (size_t)d->H},
               {&a->neurons, N * F},      {&a->writes, N * HE},
               {&a->reads, N * F}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        KH_TRY(kh_new(all[i].array, all[i].n ? all[i].n : 1, sizeof **all[i].array, "an account"));
    return kh_new(&a->mlps, N, sizeof *a->mlps, "an account");
}

/* ---- shares ---- */

/* u becomes what it is in front of a norm of x, whose scale is frozen; returns what the norm's bias gives. */
static double before_norm(float *u, const float *x, const kh_norm *norm, const kh_description *d,
                          size_t n, double *scale)
{
    double mean = 0, square = 0, lost = 0, bias = 0;
    if (scale) *scale = 1;
    if (!norm->gain.data) return 0;
    int centred = d->norm == KH_NORM_LAYER;
    for (size_t i = 0; i < n && centred; i++) mean += (double)x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        square += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)n;
    double sigma = sqrt(square + (double)d->norm_eps);
    if (centred && norm->bias.data) bias = kh_dot(u, norm->bias.data, n);
    for (size_t i = 0; i < n; i++) u[i] *= norm->gain.data[i];
    for (size_t i = 0; i < n && centred; i++) lost += (double)u[i] / (double)n;
    for (size_t i = 0; i < n; i++) u[i] = (float)(((double)u[i] - lost) / sigma);
    if (scale) *scale = sigma;
    return bias;
}

static kh_status attention_shares(kh_account *a, kh_inspector *i, int l, const float *u,
                                  float *own /* [D] */)
{
    const kh_description *d = &i->model->d;
    const kh_block *b = &i->model->w.stack.blocks[l];
    size_t D = (size_t)d->D, E = (size_t)d->E, H = (size_t)d->H, at = (size_t)l * H * E;
    memcpy(own, u, D * sizeof *own);
    a->bias += before_norm(own, a->attn_out + (size_t)l * D, &b->attn_out_norm, d, D, NULL);
    if (b->self.o_bias.data) a->bias += kh_dot(own, b->self.o_bias.data, D);
    KH_TRY(kh_columns_product(&i->columns, a->writes + at, &b->self.o, own));
    for (size_t h = 0; h < H; h++)
        a->heads[(size_t)l * H + h] = (float)kh_dot(a->writes + at + h * E, a->z + at + h * E, E);
    return KH_OK;
}

static kh_status mlp_shares(kh_account *a, kh_inspector *i, int l, const float *u, float *own)
{
    const kh_description *d = &i->model->d;
    const kh_block *b = &i->model->w.stack.blocks[l];
    size_t D = (size_t)d->D, F = (size_t)d->F, at = (size_t)l * F;
    memcpy(own, u, D * sizeof *own);
    a->bias += before_norm(own, a->mlp_out + (size_t)l * D, &b->ffn_out_norm, d, D, NULL);
    if (b->experts.router.name) {
        a->mlps[l] = kh_dot(own, a->mlp_out + (size_t)l * D, D);
        return KH_OK;
    }
    if (b->down_bias.data) a->bias += kh_dot(own, b->down_bias.data, D);
    KH_TRY(kh_columns_product(&i->columns, a->reads + at, &b->down, own));
    for (size_t f = 0; f < F; f++) a->neurons[at + f] = a->reads[at + f] * a->coefficients[at + f];
    return KH_OK;
}

/* Puts tokens in the place of KH_TOKEN_BEST. A cap keeps the order of logits. */
static void choose(kh_account *a, const float *logits, size_t V)
{
    kh_lens_token best[2];
    kh_row_top(best, 2, logits, 0, V);
    if (a->a == KH_TOKEN_BEST) a->a = best[best[0].id == a->b].id;
    if (a->b == KH_TOKEN_BEST) a->b = best[best[0].id == a->a].id;
}

/* The logits as the model computes them from the last stream, without a cap; and what they are with it. */
static kh_status take_total(kh_account *a, kh_inspector *i)
{
    const kh_description *d = &i->model->d;
    size_t V = (size_t)d->V;
    kh_distribution r;
    KH_TRY(kh_distribution_open(&r, i, 1, 1));
    memcpy(r.x, a->last, (size_t)d->D * sizeof *r.x);
    kh_status status = kh_distribution_run(&r, 1, 0);
    if (status == KH_OK) {
        choose(a, r.logits, V);
        a->total = (double)r.logits[a->a] - (a->b >= 0 ? (double)r.logits[a->b] : 0);
        if (d->logit_softcap > 0) kh_op_softcap(&i->run, r.logits, d->logit_softcap, 1, V);
        double log_z = kh_row_measure(i->run.kern, r.spare, r.logits, V).log_z;
        a->a_token = kh_row_token(r.logits, log_z, V, a->a);
        a->b_token = (kh_lens_token){.id = KH_TOKEN_NONE};
        if (a->b >= 0) a->b_token = kh_row_token(r.logits, log_z, V, a->b);
    }
    kh_distribution_close(&r);
    return status;
}

/* e, the direction that is asked about, and what becomes of it in front of the final norm. */
static void take_direction(kh_account *a, const kh_inspector *i, float *u, float *spare)
{
    const kh_model *m = i->model;
    size_t D = (size_t)m->d.D;
    kh_weight_row(u, &m->w.head, (size_t)a->a, i->run.kern);
    if (a->b >= 0) {
        kh_weight_row(spare, &m->w.head, (size_t)a->b, i->run.kern);
        for (size_t c = 0; c < D; c++) u[c] -= spare[c];
    }
    for (size_t c = 0; c < D; c++) u[c] *= m->d.logit_scale;
    a->bias = before_norm(u, a->last, &m->w.stack.final_norm, &m->d, D, &a->scale);
}

static kh_status take_shares(kh_account *a, kh_inspector *i)
{
    size_t D = (size_t)i->model->d.D;
    float *u = NULL;
    KH_TRY(kh_new(&u, 2 * D, sizeof *u, "a direction"));
    take_direction(a, i, u, u + D);
    a->embed = kh_dot(u, a->embeddings, D);
    a->edits = kh_dot(u, a->change, D);
    kh_status status = KH_OK;
    for (int l = 0; l < i->model->d.N && status == KH_OK; l++) {
        status = kh_inspector_go_on(i);
        if (status == KH_OK) status = attention_shares(a, i, l, u, u + D);
        if (status == KH_OK) status = mlp_shares(a, i, l, u, u + D);
    }
    kh_free(u);
    return status;
}

kh_status kh_account_open(kh_account *out, kh_inspector *i, size_t position, int32_t a, int32_t b)
{
    *out = (kh_account){.position = position, .a = a, .b = b};
    KH_TRY(kh_inspector_check_position(i, position));
    if (a != KH_TOKEN_NONE && a != KH_TOKEN_BEST) KH_TRY(kh_inspector_check_token(i, a));
    if (b != KH_TOKEN_NONE && b != KH_TOKEN_BEST) KH_TRY(kh_inspector_check_token(i, b));
    kh_status status = take_memory(out, &i->model->d);
    if (status == KH_OK) status = take_pass(out, i);
    if (status == KH_OK && a != KH_TOKEN_NONE) status = take_total(out, i);
    if (status == KH_OK && a != KH_TOKEN_NONE) status = take_shares(out, i);
    if (status != KH_OK) kh_account_close(out);
    return status;
}

void kh_account_close(kh_account *a)
{
    float *all[] = {a->embeddings, a->last,    a->z,      a->coefficients, a->attn_out, a->mlp_out,
                    a->heads,      a->neurons, a->writes, a->reads,        a->change};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) kh_free(all[i]);
    kh_free(a->mlps);
    *a = (kh_account){0};
}

/* ---- which key a head's share came from ---- */

typedef struct sourcing {
    const kh_account *account;
    kh_inspector *inspector;
    kh_share *heads;
    size_t count;
    float *value; /* [E] */
} sourcing;

static void source_row(void *context, const kh_attn_row *row)
{
    const sourcing *s = context;
    const kh_description *d = &s->inspector->model->d;
    size_t E = (size_t)d->E;
    for (size_t i = 0; i < s->count; i++) {
        kh_share *share = &s->heads[i];
        if (share->part.layer != row->layer || share->part.index != row->head) continue;
        const float *w = s->account->writes +
                         ((size_t)row->layer * (size_t)d->H + (size_t)row->head) * E;
        for (size_t k = 0; k < row->count; k++) {
            kh_inspector_value(s->inspector, kh_inspector_reading(s->inspector), row->layer,
                               row->head / (d->H / d->G), row->keys[k], s->value);
            double gave = (double)row->weights[k] * kh_dot(w, s->value, E);
            if (share->source >= 0 && fabs(gave) <= fabs(share->source_value)) continue;
            share->source = (int32_t)row->keys[k];
            share->source_value = gave;
        }
    }
}

kh_status kh_account_sources(const kh_account *a, kh_inspector *i, kh_share *heads, size_t count)
{
    sourcing s = {a, i, heads, count, NULL};
    kh_probe probe = {&s, UINT64_C(1) << KH_POINT_ATTN_ROWS, NULL, source_row};
    const kh_watch watch = {&probe, NULL, NULL, kh_inspector_reading(i), 0, NULL};
    for (size_t h = 0; h < count; h++) heads[h].source = -1;
    if (count == 0) return KH_OK;
    KH_TRY(kh_new(&s.value, (size_t)i->model->d.E, sizeof *s.value, "a value"));
    kh_status status = kh_inspector_look_at(i, a->position, &watch);
    kh_free(s.value);
    return status;
}
