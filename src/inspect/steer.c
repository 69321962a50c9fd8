/* Directions for steering, from texts, tokens and neurons.
 *
 *     pair i   with    "I am happy to"      x_i[l]  the stream behind layer l at the last token
 *              without "I am sad to"        y_i[l]        d_i[l] = x_i[l] - y_i[l]
 *
 *     mean   sum_i d_i / n                  PCA   argmax over |v| = 1 of sum_i (d_i . v)^2
 *
 * The mean difference is as long as the two sides are apart, so strength 1 moves one side's mean onto the other's
 * (Turner et al. 2023, Rimsky et al. 2024). The principal direction (Zou et al. 2023) has length 1 and no sign of its own:
 * it is turned so that the pairs' mean lies on its positive side. Differences are not centred, since their mean is what is
 * looked for. Power iteration from the mean difference; with one pair it is exact at once.
 *
 * Layer 0 is never steered, so nothing is recorded there. */
#include "base/alloc.h"
#include "base/fail.h"
#include "cpu/cpu.h"
#include "inspect/distribution.h"
#include "inspect/precise.h"
#include "model/network.h"

#include <keyhole/steer.h>
#include <math.h>
#include <string.h>

enum { MOST_STEPS = 1000, MOST_TEXTS = 1 << 20 };

typedef struct lesson {
    kh_inspector *inspector;
    size_t count, position, last;
    double sign;
    float *rows;  /* [count][N][D] of PCA, else NULL: differences */
    size_t row;   /* in flight */
    double *mean; /* [N][D] */
    float *out;   /* [N][D] */
} lesson;

static void begin_block(void *context, size_t position, size_t rows)
{
    (void)rows;
    ((lesson *)context)->position = position;
}

static void take_point(void *context, kh_point point, int layer, float *data, size_t rows,
                       size_t width)
{
    lesson *l = context;
    (void)point;
    if (layer < 1 || l->last < l->position || l->last >= l->position + rows) return;
    const float *row = data + (l->last - l->position) * width;
    size_t at = (size_t)layer * width, all = (size_t)l->inspector->model->d.N * width;
    for (size_t i = 0; i < width; i++) {
        l->mean[at + i] += l->sign * (double)row[i] / (double)l->count;
        if (l->rows) l->rows[l->row * all + at + i] += (float)l->sign * row[i];
    }
}

static kh_status read_text(lesson *l, const kh_ids *text, double sign)
{
    kh_inspector *i = l->inspector;
    kh_probe probe = {l, UINT64_C(1) << KH_POINT_RESID_POST, take_point, NULL};
    const kh_watch watch = {&probe, begin_block, l, KH_READING_BASE, 0, NULL};
    KH_TRY(kh_inspector_set(i, text->ids, text->count, 0, NULL, 0));
    l->last = text->count - 1;
    l->sign = sign;
    return kh_inspector_look(i, l->last, 1, &watch);
}

/* v becomes sum_i (d_i . v) d_i, of length 1; returns how far it turned. */
static double turn(const lesson *l, size_t at, size_t D, float *v, double *next)
{
    size_t all = (size_t)l->inspector->model->d.N * D;
    double norm = 0, gap = 0;
    memset(next, 0, D * sizeof *next);
    for (size_t p = 0; p < l->count; p++) {
        const float *d = l->rows + p * all + at;
        double along = kh_dot(d, v, D);
        for (size_t i = 0; i < D; i++) next[i] += along * (double)d[i];
    }
    for (size_t i = 0; i < D; i++) norm += next[i] * next[i];
    if (norm == 0) return 0;
    for (size_t i = 0; i < D; i++) {
        float now = (float)(next[i] / sqrt(norm));
        gap += fabs((double)now - (double)v[i]);
        v[i] = now;
    }
    return gap;
}

static void find_principal(const lesson *l, size_t layer, double *next)
{
    size_t D = (size_t)l->inspector->model->d.D, at = layer * D;
    float *v = l->out + at;
    double norm = 0, along = 0;
    for (size_t i = 0; i < D; i++) norm += l->mean[at + i] * l->mean[at + i];
    for (size_t i = 0; i < D && norm > 0; i++) v[i] = (float)(l->mean[at + i] / sqrt(norm));
    for (int step = 0; step < MOST_STEPS; step++)
        if (turn(l, at, D, v, next) < 1e-6) break;
    for (size_t i = 0; i < D; i++) along += l->mean[at + i] * (double)v[i];
    for (size_t i = 0; i < D && along < 0; i++) v[i] = -v[i];
}

static kh_status learn(lesson *l, const kh_ids *with, const kh_ids *without, kh_learn how)
{
    const kh_description *d = &l->inspector->model->d;
    size_t D = (size_t)d->D, all = (size_t)d->N * D;
    KH_TRY(kh_new(&l->mean, all, sizeof *l->mean, "a direction"));
    KH_TRY(kh_new(&l->out, all, sizeof *l->out, "a direction"));
    if (how == KH_LEARN_PCA)
        KH_TRY(kh_new(&l->rows, l->count * all, sizeof *l->rows, "the pairs' differences"));
    for (l->row = 0; l->row < l->count; l->row++) {
        KH_TRY(read_text(l, &with[l->row], 1));
        if (without) KH_TRY(read_text(l, &without[l->row], -1));
    }
    if (how == KH_LEARN_MEAN) {
        for (size_t i = 0; i < all; i++) l->out[i] = (float)l->mean[i];
        return KH_OK;
    }
    double *next = NULL;
    KH_TRY(kh_new(&next, D, sizeof *next, "a direction"));
    for (size_t layer = 1; layer < (size_t)d->N; layer++) find_principal(l, layer, next);
    kh_free(next);
    return KH_OK;
}

kh_status kh_control_learn(kh_control **out, kh_inspector *inspector, const kh_ids *with,
                           const kh_ids *without, size_t count, kh_learn how)
{
    lesson l = {.inspector = inspector, .count = count};
    *out = NULL;
    atomic_store(&inspector->stop, 0);
    if (count == 0 || count > MOST_TEXTS)
        KH_FAIL(KH_ERR_ARGUMENT, "%zu texts to learn from: 1 to %d are expected", count,
                MOST_TEXTS);
    kh_status status = learn(&l, with, without, how);
    if (status == KH_OK) status = kh_control_make(out, inspector->model, l.out);
    kh_free(l.rows);
    kh_free(l.mean);
    kh_free(l.out);
    return status;
}

kh_status kh_control_point(kh_control **out, const kh_model *model, const kh_direction *direction,
                           const kh_direction *minus)
{
    static const kh_direction none;
    const kh_kern *kern = kh_kern_get(kh_cpu_isa());
    size_t D = (size_t)model->d.D;
    float *one = NULL, *other = NULL, *all = NULL;
    double norm = 0;
    *out = NULL;
    if (direction->kind == KH_DIRECTION_NONE) KH_FAIL(KH_ERR_ARGUMENT, "a direction is expected");
    kh_status status = kh_direction_find(&one, direction, model, kern);
    if (status == KH_OK) status = kh_direction_find(&other, minus ? minus : &none, model, kern);
    if (status == KH_OK)
        status = kh_new(&all, (size_t)model->d.N * D, sizeof *all, "a control vector");
    for (size_t i = 0; i < D && other && status == KH_OK; i++) {
        one[i] -= other[i];
        norm += (double)one[i] * (double)one[i];
    }
    for (size_t i = 0; i < D && norm > 0; i++) one[i] = (float)((double)one[i] / sqrt(norm));
    for (size_t l = 1; l < (size_t)model->d.N && status == KH_OK; l++)
        memcpy(all + l * D, one, D * sizeof *all);
    if (status == KH_OK) status = kh_control_make(out, model, all);
    kh_free(one);
    kh_free(other);
    kh_free(all);
    return status;
}

/* Rows of one product, from layer `first` on. */
static kh_status read_out(kh_distribution *r, const kh_control *control, int first, size_t n,
                          size_t tokens, kh_vocabulary_end *top, kh_vocabulary_end *bottom)
{
    size_t D = (size_t)r->inspector->model->d.D, V = (size_t)r->inspector->model->d.V;
    memset(r->x, 0, n * D * sizeof *r->x);
    for (size_t i = 0; i < n; i++) {
        const float *direction = kh_control_direction(control, first + (int)i);
        if (direction) memcpy(r->x + i * D, direction, D * sizeof *r->x);
    }
    KH_TRY(kh_distribution_raw(r, n));
    for (size_t i = 0; i < n; i++)
        if (kh_control_direction(control, first + (int)i))
            KH_TRY(kh_row_ends(&top[i], &bottom[i], r->logits + i * V, V, tokens, r->spare));
    return KH_OK;
}

kh_status kh_control_tokens(kh_inspector *inspector, const kh_control *control, size_t tokens,
                            kh_vocabulary_end *top, kh_vocabulary_end *bottom)
{
    size_t N = (size_t)inspector->model->d.N, n;
    kh_distribution r;
    memset(top, 0, N * sizeof *top);
    memset(bottom, 0, N * sizeof *bottom);
    atomic_store(&inspector->stop, 0);
    if (tokens > (size_t)inspector->model->d.V || tokens > KH_DISTRIBUTION_TOP)
        KH_FAIL(KH_ERR_ARGUMENT, "%zu tokens of a direction: at most %d", tokens,
                KH_DISTRIBUTION_TOP);
    KH_TRY(kh_distribution_open(&r, inspector, N, 1));
    kh_status status = KH_OK;
    for (size_t l = 0; l < N && status == KH_OK; l += n) {
        n = N - l < r.rows ? N - l : r.rows;
        status = read_out(&r, control, (int)l, n, tokens, top + l, bottom + l);
    }
    kh_distribution_close(&r);
    return status;
}
