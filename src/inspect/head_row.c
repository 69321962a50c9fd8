/* A row of attention as it was computed: the keys that a head kept at a position, what it gave them, and what came of
 * it.
 *
 *     weight   after the softmax over the kept keys
 *     norm     weight times |W_o[h] v|: how much the key moves the stream, which a weight alone does not tell
 *              (Kobayashi et al. 2020); a key with a small value is a sink
 *     value    weight times (W_o[h]^T u) . v, its exact share of the logit that is asked about
 *
 * The keys are those that attention itself chose and read: with top-k there are k of them, and nothing is left out
 * that counted. Where the layer's output has a norm, norms are of what enters it. */
#include "base/alloc.h"
#include "base/fail.h"
#include "inspect/account.h"
#include "inspect/distribution.h"
#include "inspect/precise.h"
#include "model/network.h"

#include <math.h>
#include <string.h>

typedef struct taking {
    kh_inspector *inspector;
    const kh_head_options *o;
    kh_head *out;
    const float *writes; /* [E] W_o[h]^T u; NULL: no logit */
    const float *gram;   /* [E][E] W_o[h]^T W_o[h] */
    float *value;        /* [E] */
    kh_status status;
} taking;

static kh_status check_head(const kh_description *d, int layer, int head)
{
    if (layer < 0 || layer >= d->N || head < 0 || head >= d->H)
        KH_FAIL(KH_ERR_ARGUMENT, "L%dH%d: the model has layers 0 to %d with heads 0 to %d", layer,
                head, d->N - 1, d->H - 1);
    return KH_OK;
}

static double written_norm(const taking *t, size_t E)
{
    double sum = 0;
    for (size_t e = 0; e < E; e++)
        sum += (double)t->value[e] * kh_dot(t->gram + e * E, t->value, E);
    return sqrt(sum > 0 ? sum : 0);
}

static void take_row(void *context, const kh_attn_row *row)
{
    taking *t = context;
    const kh_description *d = &t->inspector->model->d;
    size_t E = (size_t)d->E;
    if (row->layer != t->o->layer || row->head != t->o->head || t->status != KH_OK) return;
    t->status = kh_new(&t->out->keys, row->count ? row->count : 1, sizeof *t->out->keys, "keys");
    if (t->status != KH_OK) return;
    t->out->count = row->count;
    t->out->kept = (double)row->kept;
    for (size_t k = 0; k < row->count; k++) {
        kh_head_key *key = &t->out->keys[k];
        double w = (double)row->weights[k];
        kh_inspector_value(t->inspector, kh_inspector_reading(t->inspector), row->layer,
                           row->head / (d->H / d->G), row->keys[k], t->value);
        *key = (kh_head_key){row->keys[k], row->weights[k], w * written_norm(t, E),
                             t->writes ? w * kh_dot(t->writes, t->value, E) : 0};
        t->out->value += key->value;
        if (w > 0) t->out->entropy -= w * log(w);
    }
}

/* gram [E][E] of the head's columns of the output projection. `wide` [H * E]. */
static void find_gram(const kh_inspector *i, const kh_head_options *o, float *gram, float *wide)
{
    const kh_weight *w = &i->model->w.stack.blocks[o->layer].self.o;
    size_t E = (size_t)i->model->d.E;
    memset(gram, 0, E * E * sizeof *gram);
    for (size_t r = 0; r < w->rows; r++) {
        kh_weight_row(wide, w, r, i->run.kern);
        const float *own = wide + (size_t)o->head * E;
        for (size_t e = 0; e < E; e++)
            for (size_t f = 0; f < E; f++) gram[e * E + f] += own[e] * own[f];
    }
}

static kh_status take(kh_inspector *i, const kh_head_options *o, kh_head *out, const kh_account *a,
                      float *memory)
{
    const kh_description *d = &i->model->d;
    size_t E = (size_t)d->E;
    taking t = {i, o, out, NULL, memory, memory + E * E, KH_OK};
    kh_probe probe = {&t, UINT64_C(1) << KH_POINT_ATTN_ROWS, NULL, take_row};
    const kh_watch watch = {&probe, NULL, NULL, kh_inspector_reading(i), 0, NULL};
    if (a) t.writes = a->writes + ((size_t)o->layer * (size_t)d->H + (size_t)o->head) * E;
    find_gram(i, o, memory, memory + E * E + E);
    /* the kept share needs every exponential of the row, which only this look pays for */
    kh_attn_stats *stats = &i->root->engine->stats;
    int wanted = stats->want_mass;
    stats->want_mass = 1;
    kh_status status = kh_inspector_look_at(i, o->position, &watch);
    stats->want_mass = wanted;
    return status == KH_OK ? t.status : status;
}

kh_status kh_head_open(kh_head *out, kh_inspector *i, const kh_head_options *o)
{
    const kh_description *d = &i->model->d;
    size_t E = (size_t)d->E;
    kh_account a;
    float *memory = NULL;
    *out = (kh_head){0};
    atomic_store(&i->stop, 0);
    KH_TRY(check_head(d, o->layer, o->head));
    if (o->a >= 0) KH_TRY(kh_account_open(&a, i, o->position, o->a, o->b));
    kh_status status = kh_new(&memory, E * E + E + (size_t)d->H * E, sizeof *memory,
                              "a head's columns");
    if (status == KH_OK) status = take(i, o, out, o->a >= 0 ? &a : NULL, memory);
    kh_free(memory);
    if (o->a >= 0) kh_account_close(&a);
    if (status != KH_OK) kh_head_free(out);
    return status;
}

void kh_head_free(kh_head *head)
{
    kh_free(head->keys);
    *head = (kh_head){0};
}

/* ---- what it writes ---- */

typedef struct writing {
    size_t position, first;
    int layer, head;
    float *z; /* [E] */
    size_t E;
} writing;

static void begin_block(void *context, size_t position, size_t rows)
{
    (void)rows;
    ((writing *)context)->first = position;
}

static void take_z(void *context, kh_point point, int layer, float *data, size_t rows, size_t width)
{
    const writing *w = context;
    (void)point;
    (void)rows;
    if (layer == w->layer)
        memcpy(w->z, data + (w->position - w->first) * width + (size_t)w->head * w->E,
               w->E * sizeof *w->z);
}

static kh_status written(kh_distribution *r, const kh_weight *o, const writing *w)
{
    const kh_inspector *i = r->inspector;
    float *wide = NULL;
    KH_TRY(kh_new(&wide, o->cols, sizeof *wide, "a row of weights"));
    for (size_t c = 0; c < o->rows; c++) {
        kh_weight_row(wide, o, c, i->run.kern);
        r->x[c] = (float)kh_dot(wide + (size_t)w->head * w->E, w->z, w->E);
    }
    kh_free(wide);
    return kh_distribution_raw(r, 1);
}

kh_status kh_head_writes(kh_inspector *i, size_t position, int layer, int head, size_t tokens,
                         kh_vocabulary_end *top, kh_vocabulary_end *bottom)
{
    const kh_description *d = &i->model->d;
    writing w = {position, 0, layer, head, NULL, (size_t)d->E};
    kh_probe probe = {&w, UINT64_C(1) << KH_POINT_Z, take_z, NULL};
    const kh_watch watch = {&probe, begin_block, &w, kh_inspector_reading(i), 0, NULL};
    kh_distribution r = {0};
    *top = *bottom = (kh_vocabulary_end){0};
    atomic_store(&i->stop, 0);
    KH_TRY(check_head(d, layer, head));
    if (tokens == 0 || tokens > KH_DISTRIBUTION_TOP || tokens > (size_t)d->V)
        KH_FAIL(KH_ERR_ARGUMENT, "%zu tokens of a head: 1 to %d are expected", tokens,
                KH_DISTRIBUTION_TOP);
    KH_TRY(kh_distribution_open(&r, i, 1, 1));
    kh_status status = kh_new(&w.z, w.E, sizeof *w.z, "a head");
    if (status == KH_OK) status = kh_inspector_look(i, position, 1, &watch);
    if (status == KH_OK) status = written(&r, &i->model->w.stack.blocks[layer].self.o, &w);
    if (status == KH_OK) status = kh_row_ends(top, bottom, r.logits, (size_t)d->V, tokens, r.spare);
    kh_free(w.z);
    kh_distribution_close(&r);
    if (status != KH_OK) {
        kh_vocabulary_end_free(top);
        kh_vocabulary_end_free(bottom);
    }
    return status;
}
