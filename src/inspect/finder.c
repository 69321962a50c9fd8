/* Heads by what they do on a text: one reading, sums of weights for each head, nothing kept that grows with the text.
 *
 *     previous    w[t][t-1]                                     mean over rows behind the first
 *     sink        w[t][0]                                       the same rows
 *     duplicate   sum of w[t][j], j < t and token[j] = token[t]      rows that have such a j
 *     induction   sum of w[t][j], token[j-1] = token[t]              rows that have such a j
 *     retrieval   sum of w[query][j], j in the asked range
 *
 * Weights are those that attention computed over the keys that it kept; a key that was not kept has none. Olsson et al.
 * (2022) on induction heads; Wu et al. (2024) on retrieval heads. */
#include "base/alloc.h"
#include "base/fail.h"
#include "inspect/inspector.h"
#include "model/network.h"

#include <math.h>
#include <string.h>

typedef struct finding {
    const kh_inspector *inspector;
    const kh_find_options *o;
    kh_head_scores *out; /* [N][H] sums */
    size_t first;        /* position of the block's first row */
} finding;

static void begin_block(void *context, size_t position, size_t rows)
{
    (void)rows;
    ((finding *)context)->first = position;
}

static void add_row(void *context, const kh_attn_row *row)
{
    const finding *f = context;
    const kh_description *d = &f->inspector->model->d;
    const int32_t *ids = f->inspector->ids;
    size_t t = f->first + row->row;
    if (row->layer >= d->N) return;
    kh_head_scores *s = &f->out[(size_t)row->layer * (size_t)d->H + (size_t)row->head];
    for (size_t k = 0; k < row->count; k++) {
        size_t j = row->keys[k];
        double w = (double)row->weights[k];
        if (w > 0) s->entropy -= w * log(w);
        if (t > 0 && j == t - 1) s->previous += w;
        if (t > 0 && j == 0) s->sink += w;
        if (j < t && ids[j] == ids[t]) s->duplicate += w;
        if (j > 0 && ids[j - 1] == ids[t] && j <= t) s->induction += w;
        if (t == f->o->query && j >= f->o->key && j - f->o->key < f->o->keys) s->retrieval += w;
    }
}

/* How many rows have an earlier one of the same token, behind which something stands: t itself at the latest. Every
 * pair is looked at, which is little beside what their attention was. */
static size_t count_repeats(const kh_inspector *i)
{
    size_t again = 0;
    for (size_t t = 0; t < i->count; t++) {
        int before = 0;
        for (size_t j = 0; j < t && !before; j++) before = i->ids[j] == i->ids[t];
        again += (size_t)before;
    }
    return again;
}

static double share(double sum, size_t rows)
{
    return rows ? sum / (double)rows : 0;
}

kh_status kh_find_heads(kh_inspector *i, const kh_find_options *options, kh_head_scores *out)
{
    const kh_description *d = &i->model->d;
    finding f = {.inspector = i, .o = options, .out = out};
    kh_probe probe = {&f, UINT64_C(1) << KH_POINT_ATTN_ROWS, NULL, add_row};
    const kh_watch watch = {&probe, begin_block, &f, kh_inspector_reading(i), 0, NULL};
    size_t n = (size_t)d->N * (size_t)d->H, T = i->count;
    atomic_store(&i->stop, 0);
    KH_TRY(kh_inspector_check_position(i, options->query));
    if (options->keys) KH_TRY(kh_inspector_check_position(i, options->key + options->keys - 1));
    for (size_t h = 0; h < n; h++)
        out[h] = (kh_head_scores){
            .head = {KH_COMPONENT_HEAD, (int)(h / (size_t)d->H), (int)(h % (size_t)d->H), 0}};
    KH_TRY(kh_inspector_look(i, 0, T, &watch));
    size_t again = count_repeats(i);
    for (size_t h = 0; h < n; h++) {
        out[h].previous = share(out[h].previous, T - 1);
        out[h].sink = share(out[h].sink, T - 1);
        out[h].duplicate = share(out[h].duplicate, again);
        out[h].induction = share(out[h].induction, again);
        out[h].entropy = share(out[h].entropy, T);
    }
    return KH_OK;
}
