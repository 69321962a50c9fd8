/* Attention by brute force.
 *
 * Shares nothing with the scorer and the methods but the meaning of a setting: scores of a row in one
 * array, a full sort by (score descending, position ascending), sums in double. Scores are f32 and
 * computed in the order that the kernels promise, because "exact" means the same set over the same
 * f32 scores; everything after the selection is double, so that it bounds the rounding of the others.
 *
 *     visible keys -> finite scores -> pinned (sinks, recent) + best of the rest, k in all
 *                  -> min-p -> softmax over the kept -> z, plus dropped mass x mean of all visible values
 */
#include "attn/measure.h"

#include "attn/method.h"
#include "kern/attn_kern.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void kh_attn_unpack(const kh_kv *kv, int layer, int g, size_t S, float *k, float *v)
{
    const kh_kv_shape *s = kh_kv_shape_of(kv);
    size_t E = (size_t)s->k_width, step = KH_PANEL;
    const kh_kern *kern = kh_kern_get(KH_ISA_REF);
    for (size_t j = 0; j < S; j++) {
        const char *page = kh_kv_keys(kv, layer, g, j / KH_PAGE);
        const char *panel = page + j % KH_PAGE / step * (step * kh_type_row_bytes(s->k_type, E));
        for (size_t e = 0; e < E; e += 32) { /* 32 elements of one panel fit the stack */
            float wide[32 * KH_PANEL];
            size_t n = E - e < 32 ? E - e : 32;
            kern->kv_key_f32(wide, panel + step * kh_type_row_bytes(s->k_type, e), (int)s->k_type,
                             n, 1);
            for (size_t i = 0; i < n; i++) k[j * E + e + i] = wide[i * step + j % step];
        }
        kern->kv_value_f32(v + j * E, kh_kv_value_row(kv, layer, g, j), (int)s->v_type, E, 1);
    }
}

static int better(const void *a, const void *b, void *scores)
{
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    float x = ((const float *)scores)[i], y = ((const float *)scores)[j];
    if (x != y) return x > y ? -1 : 1;
    return i < j ? -1 : i > j;
}

static int ascending(const void *a, const void *b)
{
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    return i < j ? -1 : i > j;
}

static int pinned(const kh_attn_setting *s, uint32_t j, size_t end)
{
    return j < (uint32_t)s->sinks || (size_t)j + (size_t)s->recent >= end;
}

/* The kept keys of [begin, end), before min-p. */
static size_t choose(kh_attn_truth *t, const kh_attn_setting *s, size_t begin, size_t end)
{
    size_t n = 0, held = 0, rest;
    for (size_t j = begin; j < end; j++) {
        int hold = pinned(s, (uint32_t)j, end);
        held += (size_t)hold;
        if (s->method == &kh_attn_window && !hold) continue;
        if (t->scores[j] > -INFINITY) t->keys[n++] = (uint32_t)j;
    }
    if (s->method != &kh_attn_topk) return n;
    qsort_r(t->keys, n, sizeof *t->keys, better, t->scores);
    rest = (size_t)s->k > held ? (size_t)s->k - held : 0;
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t j = t->keys[i];
        if (!pinned(s, j, end)) {
            if (rest == 0) continue;
            rest--;
        }
        t->keys[kept++] = j;
    }
    qsort(t->keys, kept, sizeof *t->keys, ascending);
    return kept;
}

static double logit(const kh_attn_layer *layer, float score)
{
    double x = (double)score * (double)layer->scale, cap = (double)layer->softcap;
    return cap != 0 ? cap * tanh(x / cap) : x;
}

static void mix(kh_attn_truth *t, const kh_attn_layer *layer, const kh_attn_setting *s,
                const float *v, size_t begin, size_t end)
{
    size_t E = (size_t)layer->E;
    double m = -(double)INFINITY, all = 0, kept = 0, share;
    for (size_t j = begin; j < end; j++)
        if (t->scores[j] > -INFINITY) m = fmax(m, logit(layer, t->scores[j]));
    for (size_t j = begin; j < end; j++)
        if (t->scores[j] > -INFINITY) all += exp(logit(layer, t->scores[j]) - m);
    for (size_t i = 0; i < t->count; i++) {
        t->weights[i] = exp(logit(layer, t->scores[t->keys[i]]) - m);
        kept += t->weights[i];
    }
    t->kept_mass = all > 0 ? kept / all : 1;
    share = s->tail_mean ? all : kept;
    memset(t->z, 0, E * sizeof *t->z);
    for (size_t i = 0; i < t->count; i++) {
        t->weights[i] /= share;
        for (size_t e = 0; e < E; e++) t->z[e] += t->weights[i] * (double)v[t->keys[i] * E + e];
    }
    if (!s->tail_mean || t->count == 0) return;
    for (size_t j = begin; j < end; j++)
        for (size_t e = 0; e < E; e++)
            t->z[e] += (1 - t->kept_mass) * (double)v[j * E + e] / (double)(end - begin);
}

void kh_attn_brute_row(kh_attn_truth *t, const kh_attn_layer *layer, const kh_attn_setting *s,
                       const float *q, const float *k, const float *v, size_t position, size_t S)
{
    size_t E = (size_t)layer->E, begin = 0, end = position + 1, window = (size_t)layer->window;
    if (layer->order == KH_ATTN_ALL_KEYS)
        end = S;
    else if (window > 0 && end > window)
        begin = end - window;
    for (size_t j = begin; j < end; j++) {
        t->scores[j] = 0;
        for (size_t e = 0; e < E; e++) t->scores[j] = fmaf(q[e], k[j * E + e], t->scores[j]);
    }
    t->count = choose(t, s, begin, end);
    if (s->method == &kh_attn_topk && s->min_p > 0) {
        double top = -(double)INFINITY;
        size_t n = 0;
        for (size_t i = 0; i < t->count; i++) top = fmax(top, logit(layer, t->scores[t->keys[i]]));
        for (size_t i = 0; i < t->count; i++)
            if (pinned(s, t->keys[i], end) ||
                logit(layer, t->scores[t->keys[i]]) >= top + log((double)s->min_p))
                t->keys[n++] = t->keys[i];
        t->count = n;
    }
    mix(t, layer, s, v, begin, end);
}

double kh_attn_recall(const uint32_t *got, size_t n, const uint32_t *truth, size_t m)
{
    size_t hits = 0;
    for (size_t i = 0, j = 0; i < n && j < m;) {
        if (got[i] == truth[j]) {
            hits++;
            i++;
            j++;
        } else if (got[i] < truth[j]) {
            i++;
        } else {
            j++;
        }
    }
    return m > 0 ? (double)hits / (double)m : 1.0;
}
