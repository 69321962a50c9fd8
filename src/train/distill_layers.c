/* What a teacher's layers say about the student's: relations and maps, on rows of the batch that are drawn anew in every
 * step, one from each of R equal stretches.
 *
 * Relations (MiniLM v2, arXiv 2012.15828): of the drawn rows of one sequence, for queries, keys and values a, head
 * by head,
 *
 *     R_i = softmax over j of a_i . a_j / sqrt(E)        loss_i = KL(R^teacher_i || R^student_i)
 *     g_ij = (R^student - R^teacher)_ij / sqrt(E)        da_i = sum over j of (g_ij + g_ji) a_j
 *
 * Maps: for a drawn row and head the student kept keys K. Over these, with s_j the scaled (and capped) scores,
 *
 *     w = softmax over K of s^student     p = softmax over K of s^teacher (renormalised)
 *     loss = KL(p || w)      ds_j = w_j - p_j      dq = sum ds_j scale k_j      dk_j = ds_j scale q
 *
 * Both are means: over layers, (kinds,) heads and drawn rows; a batch of n rows with a target counts them n times, so
 * that a step, which divides by n, has the mean beside the mean of the cross-entropy. Queries and keys are those
 * that attention reads, behind norms and rotation. The gradient is added to the twins of q, k and v right after
 * attention's own (kh_attn_watch), so no op knows of it, and with recompute by block it costs no record.
 *
 *     see     the teacher's pass -> q, k, v of R rows of each layer; for maps the keys of all rows, N x T x G x E
 *     watch   the student's way back, layer by layer from the last
 *
 * A teacher of another depth: layer l stands beside the teacher's (l + 1) N_teacher / N - 1, rounded down, 0 at
 * least. Items of a
 * parallel loop are heads of a kind, and key heads: each writes what no other does, in one order. Relations look at
 * later rows too: they are compared, not attended to.
 *
 * Rejected: T x T relations and maps (a teacher is there to allow long texts), maps over what the student left out (no
 * gradient can reach it). */
#include "attn/method.h"
#include "attn/save.h"
#include "base/alloc.h"
#include "base/fail.h"
#include "run/tape.h"
#include "train/distill_impl.h"

#include <math.h>
#include <string.h>

enum { QUERIES, KEYS, VALUES, KINDS };

/* ---- opening */

kh_status kh_distill_check_layers(const kh_distill *d)
{
    const kh_description *s = &d->student->d, *t = &d->teacher->d;
    if (t->H != s->H || (d->options.relation > 0 && t->G != s->G))
        KH_FAIL(KH_ERR_ARGUMENT,
                "distillation: layers are compared head by head: the teacher has %d heads and %d "
                "of keys, the student %d and %d",
                t->H, t->G, s->H, s->G);
    return KH_OK;
}

/* The teacher's layer that the student's stands beside. */
static int layer_beside(const kh_distill *d, int student)
{
    int at = (student + 1) * d->teacher->d.N / d->student->d.N - 1;
    return at > 0 ? at : 0;
}

static kh_status see(void *context, const kh_attn_layer *layer, const float *q, const float *k,
                     const float *v);
static kh_status back(void *context, const kh_attn_watched *at);

kh_status kh_distill_open_layers(kh_distill *d)
{
    const kh_description *t = &d->teacher->d;
    size_t N = (size_t)d->student->d.N, R = (size_t)d->options.rows;
    size_t HE = (size_t)t->H * (size_t)t->E, GE = (size_t)t->G * (size_t)t->E;
    if (R > d->sizes.rows) R = d->sizes.rows;
    d->drawn = R;
    d->see = (kh_attn_watch){.context = d, .seen = see};
    d->watch = (kh_attn_watch){.context = d, .back = back};
    KH_TRY(kh_new(&d->rows, R, sizeof *d->rows, "a teacher"));
    KH_TRY(kh_new(&d->q, N * R * HE, sizeof *d->q, "a teacher's queries"));
    KH_TRY(kh_new(&d->k, N * R * GE, sizeof *d->k, "a teacher's keys"));
    KH_TRY(kh_new(&d->v, N * R * GE, sizeof *d->v, "a teacher's values"));
    d->room = d->options.relation > 0 ? R * R + 2 * R : 0;
    if (d->options.map > 0 && 4 * d->sizes.rows > d->room) d->room = 4 * d->sizes.rows;
    KH_TRY(kh_new(&d->scratch, d->sizes.threads * d->room, sizeof *d->scratch, "relations"));
    if (d->options.map == 0) return KH_OK;
    return kh_new(&d->keys, N * d->sizes.rows * GE, sizeof *d->keys, "a teacher's keys");
}

void kh_distill_close_layers(kh_distill *d)
{
    kh_free(d->rows);
    kh_free(d->q);
    kh_free(d->k);
    kh_free(d->v);
    kh_free(d->scratch);
    kh_free(d->keys);
}

void kh_distill_draw(kh_distill *d)
{
    size_t T = d->tokens->n, most = (size_t)d->options.rows;
    kh_rng_key key = {d->batch.key.seed ^ 0x6469737469ull, d->batch.key.stream};
    d->drawn = most < T ? most : T;
    for (size_t i = 0; i < d->drawn; i++) {
        size_t from = i * T / d->drawn, to = (i + 1) * T / d->drawn;
        d->rows[i] = (uint32_t)(from + (size_t)(kh_rng_uniform(key, i) * (double)(to - from)));
    }
}

/* ---- the teacher */

static void keep(float *to, const float *from, const kh_distill *d, size_t width)
{
    for (size_t i = 0; i < d->drawn; i++)
        memcpy(to + i * width, from + d->rows[i] * width, width * sizeof *to);
}

static kh_status see(void *context, const kh_attn_layer *layer, const float *q, const float *k,
                     const float *v)
{
    kh_distill *d = context;
    size_t HE = (size_t)layer->H * (size_t)layer->E, GE = (size_t)layer->G * (size_t)layer->E;
    size_t n = d->tokens->n * GE;
    for (int l = 0; l < d->student->d.N; l++) {
        size_t at = (size_t)l * d->drawn;
        if (layer_beside(d, l) != layer->layer) continue;
        keep(d->q + at * HE, q, d, HE);
        keep(d->k + at * GE, k, d, GE);
        keep(d->v + at * GE, v, d, GE);
        if (d->keys) memcpy(d->keys + (size_t)l * n, k, n * sizeof *k);
    }
    return KH_OK;
}

/* ---- relations */

/* A layer on its way back. */
typedef struct work {
    kh_distill *d;
    const kh_attn_watched *at;
    double share[KINDS]; /* of a row's loss in the step's; of maps the first */
} work;

/* One kind of one head: rows of `width`, the student's with their gradient, the teacher's packed. */
typedef struct vectors {
    const float *student, *teacher;
    float *gradient;
    size_t width, own_width; /* of a row of the student's, of the teacher's */
    size_t E, own_E;
} vectors;

static vectors vectors_of(const work *w, size_t kind, size_t head)
{
    const kh_distill *d = w->d;
    const kh_attn_watched *at = w->at;
    const kh_description *t = &d->teacher->d;
    size_t heads = (size_t)(kind == QUERIES ? t->H : t->G), E = (size_t)at->layer->E;
    size_t own_E = (size_t)t->E, first = (size_t)at->layer->layer * d->drawn * heads * own_E;
    const float *const teacher[] = {d->q, d->k, d->v}, *const student[] = {at->q, at->k, at->v};
    float *const gradient[] = {at->dq, at->dk, at->dv};
    return (vectors){.student = student[kind] + head * E,
                     .teacher = teacher[kind] + first + head * own_E,
                     .gradient = gradient[kind] + head * E,
                     .width = heads * E,
                     .own_width = heads * own_E,
                     .E = E,
                     .own_E = own_E};
}

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

/* In place; returns ln of the sum of exponentials. */
static double softmax(double *x, size_t n)
{
    double most = -HUGE_VAL, sum = 0;
    for (size_t i = 0; i < n; i++)
        if (x[i] > most) most = x[i];
    for (size_t i = 0; i < n; i++) sum += exp(x[i] - most);
    double whole = most + log(sum);
    for (size_t i = 0; i < n; i++) x[i] = exp(x[i] - whole);
    return whole;
}

/* KL(p || w) of two softmaxes of scores; `student` becomes w - p. */
static double compare(double *student, double *teacher, double *gap, size_t n)
{
    double loss = 0;
    for (size_t i = 0; i < n; i++) gap[i] = teacher[i] - student[i];
    double whole = softmax(student, n) - softmax(teacher, n);
    for (size_t i = 0; i < n; i++) {
        if (teacher[i] > 0) loss += teacher[i] * (gap[i] + whole);
        student[i] -= teacher[i];
    }
    return loss;
}

/* The drawn rows [first, returned) are of one sequence, which begins at row *base. */
static size_t same_sequence(const kh_distill *d, size_t first, size_t *span, size_t *base)
{
    const kh_span *spans = d->tokens->spans;
    size_t end = first;
    while (spans[*span].row + spans[*span].rows <= d->rows[first]) ++*span;
    *base = spans[*span].row;
    while (end < d->drawn && d->rows[end] < *base + spans[*span].rows) end++;
    return end;
}

/* g [n][n] becomes the derivatives by the scores; returns the sum of the rows' losses. */
static double relate(double *g, double *beside, const vectors *v, const uint32_t *rows,
                     size_t first, size_t n)
{
    double loss = 0, scale = 1 / sqrt((double)v->E), own = 1 / sqrt((double)v->own_E);
    for (size_t i = 0; i < n; i++) {
        const float *a = v->student + rows[i] * v->width;
        const float *t = v->teacher + (first + i) * v->own_width;
        for (size_t j = 0; j < n; j++) {
            g[i * n + j] = scale * dot(a, v->student + rows[j] * v->width, v->E);
            beside[j] = own * dot(t, v->teacher + (first + j) * v->own_width, v->own_E);
        }
        loss += compare(g + i * n, beside, beside + n, n);
    }
    return loss;
}

static void take_relation_back(const double *g, const vectors *v, const uint32_t *rows, size_t n,
                               double factor)
{
    for (size_t i = 0; i < n; i++) {
        float *to = v->gradient + rows[i] * v->width;
        for (size_t j = 0; j < n; j++) {
            const float *from = v->student + rows[j] * v->width;
            float by = (float)(factor * (g[i * n + j] + g[j * n + i]));
            for (size_t e = 0; e < v->E; e++) to[e] += by * from[e];
        }
    }
}

/* An item: a head of a kind. */
static void relation_item(void *context, size_t item, int worker)
{
    const work *w = context;
    kh_distill *d = w->d;
    size_t H = (size_t)w->at->layer->H, G = (size_t)w->at->layer->G, span = 0, base;
    size_t kind = item < H ? QUERIES : item < H + G ? KEYS : VALUES;
    vectors v = vectors_of(w, kind, kind == QUERIES ? item : (item - H) % G);
    double *g = d->scratch + (size_t)worker * d->room, loss = 0;
    double *beside = g + d->drawn * d->drawn;
    for (size_t first = 0, end; first < d->drawn; first = end) {
        end = same_sequence(d, first, &span, &base);
        size_t n = end - first;
        loss += relate(g, beside, &v, d->rows + first, first, n);
        take_relation_back(g, &v, d->rows + first, n,
                           (double)d->batch.weight * w->share[kind] / sqrt((double)v.E));
    }
    d->each[item] = w->share[kind] * loss;
}

/* ---- maps */

/* A drawn row of a head. */
typedef struct row {
    const float *q, *own_q; /* the student's, the teacher's */
    const float *k, *own_k; /* of the first key that it sees, of this key head */
    float *dq, *dk;
    size_t width, own_width; /* of a row of keys */
    const void *kept;        /* [n] */
    size_t n;
} row;

static size_t kept_at(const work *w, const row *r, size_t j)
{
    return w->at->save->wide ? ((const uint32_t *)r->kept)[j] : ((const uint16_t *)r->kept)[j];
}

static row row_of(const work *w, size_t head, size_t i, size_t base)
{
    const kh_distill *d = w->d;
    const kh_attn_watched *at = w->at;
    const kh_attn_save *save = at->save;
    const kh_description *t = &d->teacher->d;
    size_t H = (size_t)at->layer->H, E = (size_t)at->layer->E, l = (size_t)at->layer->layer;
    size_t own_E = (size_t)t->E, T = d->tokens->n, x = d->rows[i];
    size_t g = head / (H / (size_t)at->layer->G), own_g = head / (H / (size_t)t->G);
    row r = {.width = (size_t)at->layer->G * E, .own_width = (size_t)t->G * own_E};
    r.q = at->q + (x * H + head) * E;
    r.dq = at->dq + (x * H + head) * E;
    r.k = at->k + base * r.width + g * E;
    r.dk = at->dk + base * r.width + g * E;
    r.own_q = d->q + ((l * d->drawn + i) * H + head) * own_E;
    r.own_k = d->keys + (l * T + base) * r.own_width + own_g * own_E;
    size_t place = head * save->rows + x;
    r.n = save->counts[place];
    r.kept = (const char *)save->indices + place * save->kept * (save->wide ? 4 : 2);
    return r;
}

static double capped(double score, double cap)
{
    return cap > 0 ? cap * tanh(score / cap) : score;
}

/* Scores in scratch [4][n]; returns the loss. */
static double map_row(const work *w, const row *r, double *scratch)
{
    const kh_attn_layer *layer = w->at->layer;
    const kh_description *t = &w->d->teacher->d;
    size_t n = r->n, E = (size_t)layer->E;
    double *own = scratch + n, *slopes = own + n, cap = (double)layer->softcap;
    for (size_t j = 0; j < n; j++) {
        size_t key = kept_at(w, r, j);
        const float *own_k = r->own_k + key * r->own_width;
        scratch[j] = capped((double)layer->scale * dot(r->q, r->k + key * r->width, E), cap);
        own[j] = capped((double)t->attn_scale * dot(r->own_q, own_k, (size_t)t->E),
                        (double)t->attn_softcap);
        slopes[j] = cap > 0 ? 1 - scratch[j] * scratch[j] / (cap * cap) : 1;
    }
    double loss = compare(scratch, own, slopes + n, n);
    double factor = (double)w->d->batch.weight * w->share[0] * (double)layer->scale;
    for (size_t j = 0; j < n; j++) {
        size_t at = kept_at(w, r, j) * r->width;
        float by = (float)(factor * slopes[j] * scratch[j]);
        for (size_t e = 0; e < E; e++) {
            r->dq[e] += by * r->k[at + e];
            r->dk[at + e] += by * r->q[e];
        }
    }
    return loss;
}

/* An item: a key head and the heads that read it. */
static void map_item(void *context, size_t g, int worker)
{
    const work *w = context;
    kh_distill *d = w->d;
    size_t group = (size_t)(w->at->layer->H / w->at->layer->G), span = 0, base;
    double loss = 0, *scratch = d->scratch + (size_t)worker * d->room;
    for (size_t first = 0, end; first < d->drawn; first = end) {
        end = same_sequence(d, first, &span, &base);
        for (size_t i = first; i < end; i++)
            for (size_t h = g * group; h < (g + 1) * group; h++) {
                row r = row_of(w, h, i, base);
                loss += map_row(w, &r, scratch);
            }
    }
    d->each[g] = w->share[0] * loss;
}

/* ---- a layer on its way back */

static void add_up(kh_distill *d, size_t items)
{
    for (size_t i = 0; i < items; i++) d->batch.loss->distill += d->each[i];
}

static kh_status back(void *context, const kh_attn_watched *at)
{
    kh_distill *d = context;
    work w = {.d = d, .at = at};
    size_t H = (size_t)at->layer->H, G = (size_t)at->layer->G;
    double rows = (double)d->tokens->logit_count / ((double)d->student->d.N * (double)d->drawn);
    if (d->options.relation > 0) {
        for (size_t kind = 0; kind < KINDS; kind++)
            w.share[kind] = d->options.relation * rows / (KINDS * (double)(kind ? G : H));
        kh_parallel_for(d->pool, H + 2 * G, relation_item, &w);
        add_up(d, H + 2 * G);
    }
    if (d->options.map > 0) {
        w.share[0] = d->options.map * rows / (double)H;
        kh_parallel_for(d->pool, G, map_item, &w);
        add_up(d, G);
    }
    return KH_OK;
}
