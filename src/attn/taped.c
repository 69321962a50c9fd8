/* Attention on a tape: what it keeps, and its way back.
 *
 *     choice   indices [H][T][K], counts, m, u     2 bytes a kept key and 12 a row (attn/save.h)
 *     record   q, k, v, z as they were, and the choice
 *
 * Inside a segment the first run leaves only the choice. The replay attends over the kept keys of that choice
 * (attn/replay.c), so nothing is selected twice; where a head keeps ranges, the layer attends again.
 *
 * Sequences of a packed batch are spans: rows that see each other and nobody else. The pages are written and
 * attended for all spans at once; the gradients are taken span by span, or for all of them as one batch where
 * they are equally long (and nothing is dropped: masks are counted by the row of the batch). q, k and v are
 * read by attention alone, so their twins are written, not added to; a block writes them once, so in a replay,
 * which is one block, they are kept where they are.
 *
 * A decoder's attention to its source is the same with keys of other spans: those of run->source, whose pages
 * are written anew for every layer. Such a block writes q twice. */
#include "attn/attn.h"

#include "attn/attend.h"
#include "attn/backward.h"
#include "attn/bias.h"
#include "attn/save.h"
#include "base/alloc.h"
#include "base/fail.h"
#include "run/tape.h"

#include <string.h>

typedef struct record {
    kh_tape_record record;
    kh_attn_layer layer;
    /* [span_count] of the batch, and of the keys that they see; both live as long as the pass */
    const kh_span *spans, *keys;
    size_t span_count, T;
    const float *q, *k, *v, *z;                     /* buffers of the pass */
    const float *kept_q, *kept_k, *kept_v, *kept_z; /* what they held */
    const kh_attn_save *save;
} record;

/* ---- what is saved */

static size_t longest(const kh_span *spans, size_t count)
{
    size_t most = 0;
    for (size_t i = 0; i < count; i++)
        if (spans[i].rows > most) most = spans[i].rows;
    return most;
}

/* The rows that each span of the batch sees. */
static const kh_span *keys_of(const kh_run *run, const kh_attn_layer *layer)
{
    return layer->source ? run->source->spans : run->batch->spans;
}

static const kh_attn_setting *setting_of(const kh_run *run, const kh_attn_layer *layer, int head)
{
    return kh_attn_plan_at(run->attn, KH_PHASE_PREFILL, layer->layer, head);
}

static size_t most_kept(const kh_run *run, const kh_attn_layer *layer, size_t visible)
{
    size_t most = 0;
    if (layer->window > 0 && (size_t)layer->window < visible) visible = (size_t)layer->window;
    for (int head = 0; head < layer->H; head++) {
        const kh_attn_setting *s = setting_of(run, layer, head);
        if (s->method->kind != KH_KEYS_INDICES) continue;
        size_t k = (size_t)s->k < visible ? (size_t)s->k : visible;
        if (k > most) most = k;
    }
    return most;
}

static int lists_only(const kh_run *run, const kh_attn_layer *layer)
{
    for (int head = 0; head < layer->H; head++)
        if (setting_of(run, layer, head)->method->kind != KH_KEYS_INDICES) return 0;
    return 1;
}

static kh_status check(const kh_run *run, const kh_attn_layer *layer)
{
    for (int head = 0; head < layer->H; head++)
        if (setting_of(run, layer, head)->tail_mean)
            KH_FAIL(KH_ERR_ARGUMENT,
                    "attention '%s': tail=mean estimates what was dropped and has no gradient",
                    kh_attn_plan_text(run->attn));
    for (size_t i = 0; i < run->batch->span_count; i++)
        if (run->batch->spans[i].position != 0)
            KH_FAIL(KH_ERR_ARGUMENT, "training: a sequence begins at position %d, not at 0",
                    (int)run->batch->spans[i].position);
    return KH_OK;
}

/* NULL where the tape has no room. */
static kh_attn_save *new_save(kh_run *run, const kh_attn_layer *layer)
{
    size_t T = run->batch->n, rows = (size_t)layer->H * T, S;
    S = longest(keys_of(run, layer), run->batch->span_count);
    kh_attn_save *save = kh_tape_take(run, sizeof *save);
    if (!save) return NULL;
    *save = (kh_attn_save){.kept = most_kept(run, layer, S), .wide = S > 65536, .rows = T};
    save->m = kh_tape_take(run, rows * sizeof *save->m);
    save->u = kh_tape_take(run, rows * sizeof *save->u);
    if (!save->m || !save->u) return NULL;
    if (save->kept == 0) return save;
    save->counts = kh_tape_take(run, rows * sizeof *save->counts);
    save->indices = kh_tape_take(run, rows * save->kept * (save->wide ? 4 : 2));
    return save->counts && save->indices ? save : NULL;
}

/* ---- a span as the gradients see it */

static kh_attn_drop drop_of(const kh_run *run, const kh_attn_layer *layer)
{
    return kh_attn_drop_make(run->attn_dropout, run->key.seed, run->key.stream, layer->layer);
}

typedef struct part {
    kh_attention_args args;
    kh_attention_saved saved;
    kh_attention_gradients gradients;
    kh_attn_drop drop;
    kh_attn_layer layer;
    kh_attn_back back;
} part;

/* `count` equally long spans from `span` on, and the keys from `key` on. */
static void open_part(part *p, const kh_run *run, const kh_attn_layer *layer,
                      const kh_attn_save *save, const kh_span *span, const kh_span *key,
                      size_t count)
{
    size_t E = (size_t)layer->E, H = (size_t)layer->H, G = (size_t)layer->G, row = span->row;
    *p = (part){.layer = *layer};
    p->saved = (kh_attention_saved){.kept = save->kept, .m = save->m + row, .u = save->u + row};
    if (save->kept > 0) {
        p->saved.counts = save->counts + row;
        p->saved.indices = (char *)save->indices + row * save->kept * (save->wide ? 4 : 2);
    }
    p->args = (kh_attention_args){.batch = (int)count,
                                  .heads = layer->H,
                                  .key_heads = layer->G,
                                  .width = layer->E,
                                  .queries = span->rows,
                                  .keys = key->rows,
                                  .saved = &p->saved,
                                  .bias = layer->bias ? layer->bias->from : NULL};
    p->back = (kh_attn_back){.args = &p->args,
                             .gradients = &p->gradients,
                             .q = {span->rows * H * E, E, H * E},
                             .k = {key->rows * G * E, E, G * E},
                             .v = {key->rows * G * E, E, G * E},
                             .out = {span->rows * H * E, E, H * E},
                             .wide = save->wide,
                             .saved_batch = span->rows,
                             .saved_head = save->rows,
                             .layer = &p->layer,
                             .plan = run->attn,
                             .pool = run->pool,
                             .kern = run->kern};
    if (!(run->attn_dropout > 0)) return;
    p->drop = drop_of(run, layer);
    p->drop.row = row;
    p->back.drop = &p->drop;
}

/* How many spans are like the first, each behind the one before. */
static size_t alike(const kh_span *span, size_t left)
{
    size_t n = 1;
    while (n < left && span[n].rows == span->rows && span[n].row == span->row + n * span->rows) n++;
    return n;
}

/* How many spans may go together. */
static size_t together(const kh_run *run, const kh_span *span, const kh_span *key, size_t left)
{
    if (run->attn_dropout > 0) return 1;
    size_t n = alike(span, left), m = alike(key, left);
    return n < m ? n : m;
}

/* ---- back */

/* T5's buckets, and the sums of their derivatives by raw scores. */
typedef struct biases {
    uint16_t *buckets; /* [span] */
    double *sums;      /* [H][buckets] */
    size_t n;
} biases;

static kh_status open_relative(biases *r, kh_run *run, const kh_attn_layer *layer)
{
    const kh_attn_bias *bias = layer->bias;
    if (!bias || !bias->from || !kh_tape_gradient_of(run, bias->stored)) return KH_OK;
    size_t buckets = (size_t)bias->from->buckets;
    r->n = (size_t)layer->H * buckets;
    KH_TRY(kh_new(&r->buckets, bias->span, sizeof *r->buckets, "the buckets of attention"));
    KH_TRY(kh_new(&r->sums, r->n, sizeof *r->sums, "the biases of attention"));
    for (size_t i = 0; i < bias->span; i++)
        r->buckets[i] = (uint16_t)kh_attn_relative_bucket((long)i - (long)bias->origin,
                                                          layer->order == KH_ATTN_ALL_KEYS, buckets,
                                                          (size_t)bias->from->max_distance);
    return KH_OK;
}

static kh_status back_part(kh_run *run, const record *r, const kh_span *span, const kh_span *keys,
                           size_t count, const biases *relative)
{
    size_t HE = (size_t)r->layer.H * (size_t)r->layer.E, row = span->row, key = keys->row;
    size_t GE = (size_t)r->layer.G * (size_t)r->layer.E;
    part p;
    open_part(&p, run, &r->layer, r->save, span, keys, count);
    p.args.q = r->kept_q + row * HE;
    p.args.k = r->kept_k + key * GE;
    p.args.v = r->kept_v + key * GE;
    p.args.out = (float *)(uintptr_t)(r->kept_z + row * HE); /* is only read */
    p.gradients = (kh_attention_gradients){.dout = kh_tape_twin_of(run, r->z + row * HE),
                                           .dq = kh_tape_twin_of(run, r->q + row * HE),
                                           .dk = kh_tape_twin_of(run, r->k + key * GE),
                                           .dv = kh_tape_twin_of(run, r->v + key * GE)};
    p.back.buckets = relative->buckets;
    p.back.drelative = relative->sums;
    KH_TRY(kh_attn_backward_indices(&p.back));
    return kh_attn_backward_ranges(&p.back);
}

static kh_status back_all(kh_run *run, const record *r, biases *relative)
{
    KH_TRY(open_relative(relative, run, &r->layer));
    for (size_t i = 0, n; i < r->span_count; i += n) {
        n = together(run, r->spans + i, r->keys + i, r->span_count - i);
        KH_TRY(back_part(run, r, r->spans + i, r->keys + i, n, relative));
    }
    if (!relative->sums) return KH_OK;
    float *gradient = kh_tape_gradient_of(run, r->layer.bias->stored);
    size_t H = (size_t)r->layer.H, n = relative->n / H;
    for (size_t h = 0; h < H; h++)
        for (size_t i = 0; i < n; i++)
            gradient[i * H + h] += (float)(relative->sums[h * n + i] / (double)r->layer.scale);
    return KH_OK;
}

static kh_status tell(kh_run *run, const record *r)
{
    const kh_attn_watch *watch = run->watch;
    if (!watch || !watch->back || r->layer.source) return KH_OK;
    kh_attn_watched at = {.layer = &r->layer,
                          .save = r->save,
                          .q = r->kept_q,
                          .k = r->kept_k,
                          .v = r->kept_v,
                          .dq = kh_tape_twin_of(run, r->q),
                          .dk = kh_tape_twin_of(run, r->k),
                          .dv = kh_tape_twin_of(run, r->v)};
    return watch->back(watch->context, &at);
}

static kh_status back(kh_run *run, kh_tape_record *any)
{
    const record *r = (const record *)(const void *)any;
    biases relative = {0};
    kh_status status = back_all(run, r, &relative);
    if (status == KH_OK) status = tell(run, r);
    kh_free(relative.buckets);
    kh_free(relative.sums);
    size_t z = r->T * (size_t)r->layer.H * (size_t)r->layer.E;
    kh_tape_clear(run, kh_tape_twin_of(run, r->z), z);
    return status;
}

/* ---- forward */

static kh_status replay(kh_run *run, const kh_attn_layer *layer, const kh_attn_save *save, float *z,
                        const float *q, const float *k, const float *v)
{
    size_t HE = (size_t)layer->H * (size_t)layer->E, GE = (size_t)layer->G * (size_t)layer->E;
    const kh_batch *batch = run->batch;
    for (size_t i = 0, n; i < batch->span_count; i += n) {
        part p;
        const kh_span *span = batch->spans + i, *key = keys_of(run, layer) + i;
        n = together(run, span, key, batch->span_count - i);
        open_part(&p, run, layer, save, span, key, n);
        p.args.q = q + span->row * HE;
        p.args.k = k + key->row * GE;
        p.args.v = v + key->row * GE;
        KH_TRY(kh_attn_replay_indices(&p.back, z + span->row * HE));
    }
    return KH_OK;
}

static void push(kh_run *run, const kh_attn_layer *layer, const kh_attn_save *save, const float *z,
                 const float *q, const float *k, const float *v)
{
    size_t T = run->batch->n, S = layer->source ? run->source->n : T;
    size_t query = T * (size_t)layer->H * (size_t)layer->E * sizeof(float);
    size_t key = S * (size_t)layer->G * (size_t)layer->E * sizeof(float);
    record *r = kh_tape_push(run, back, sizeof *r);
    if (!r) return;
    r->layer = *layer;
    r->spans = run->batch->spans;
    r->keys = keys_of(run, layer);
    r->span_count = run->batch->span_count;
    r->T = T;
    r->q = q;
    r->k = k;
    r->v = v;
    r->z = z;
    int replays = kh_tape_replays(run);
    r->kept_q = replays && !run->source ? q : kh_tape_keep(run, q, query);
    r->kept_k = replays ? k : kh_tape_keep(run, k, key);
    r->kept_v = replays ? v : kh_tape_keep(run, v, key);
    r->kept_z = replays && !run->source ? kh_tape_lend_result(run, z, query)
                                        : kh_tape_keep_result(run, z, query);
    r->save = save;
}

/* The source's keys and values take the place of those of the layer before. */
static kh_status write_source(kh_run *run, const kh_attn_layer *layer, const float *k,
                              const float *v)
{
    size_t G = (size_t)layer->G, E = (size_t)layer->E;
    for (size_t i = 0; i < run->batch->span_count; i++) {
        const kh_span *span = &run->source->spans[i];
        kh_kv *kv = run->kv_cross[run->batch->spans[i].seq];
        const float *own_k = k + span->row * G * E, *own_v = v + span->row * G * E;
        KH_TRY(kh_kv_rewind(kv, 0));
        KH_TRY(kh_kv_prepare(kv, span->rows));
        for (size_t g = 0; g < G; g++)
            kh_kv_write(kv, run->kern, kh_attn_place(layer), (int)g, span->rows, own_k + g * E,
                        G * E, own_v + g * E, G * E);
        kh_kv_advance(kv, span->rows);
    }
    return KH_OK;
}

static kh_status attend(kh_run *run, const kh_attn_layer *layer, float *z, const float *q,
                        const float *k, const float *v)
{
    if (!layer->source) return kh_attn_forward(run, layer, z, q, k, v);
    KH_TRY(write_source(run, layer, k, v));
    return kh_attn_attend(run, layer, z, q);
}

kh_status kh_attn_forward_taped(kh_run *run, const kh_attn_layer *layer, float *z, const float *q,
                                const float *k, const float *v)
{
    KH_TRY(check(run, layer));
    kh_attn_save *save = kh_tape_replays(run) ? kh_tape_find(run) : new_save(run, layer);
    if (!save) return attend(run, layer, z, q, k, v); /* the tape is full and says so */
    if (kh_tape_replays(run) && lists_only(run, layer)) {
        KH_TRY(replay(run, layer, save, z, q, k, v));
    } else {
        kh_run saving = *run;
        kh_attn_drop drop;
        saving.save = save;
        if (run->attn_dropout > 0) {
            drop = drop_of(run, layer);
            saving.drop = &drop;
        }
        KH_TRY(attend(&saving, layer, z, q, k, v));
    }
    if (kh_tape_wants(run))
        push(run, layer, save, z, q, k, v);
    else
        kh_tape_leave(run, save);
    return KH_OK;
}

kh_status kh_attn_source(kh_run *run, const kh_attn_layer *layer, float *z, const float *q,
                         const float *k, const float *v)
{
    return run->tape ? kh_attn_forward_taped(run, layer, z, q, k, v)
                     : attend(run, layer, z, q, k, v);
}
