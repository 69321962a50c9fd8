/* An encoder: texts in, rows out.
 *
 * Texts share passes as long as their rows fit one; a text is never cut, since its rows see each other:
 *
 *     pass   |text 0|text 1|...|      spans of one batch, each over a cache of its own
 *     cache  one layer: every layer of the stack writes its keys there in turn
 *
 * so the memory of a text of T tokens is that of its rows, T (3 D + 2 H E + 2 G E) numbers and more, and never
 * T x T, nor T x F where the feed-forward layers are dense. Caches hold f32: an encoder reads its keys once, there is nothing to save.
 *
 * What a text is asked for (a vector, masked tokens, spans, a decoder's source) is made from its rows as they
 * are delivered, behind the pass, with the same threads and arenas. */
#include "gen/encoder.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "gen/plans.h"
#include "kern/attn_kern.h"
#include "ops/linear.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    DEFAULT_BATCH = 2048,
    MOST_ROWS = 1 << 24,
    USUAL_LONGEST = 1 << 16, /* unless a longer text is asked for: a file may claim anything */
    EXAMPLES = 64            /* texts of a pass of a head for classes */
};

struct kh_encoder {
    const kh_model *model;
    kh_pool pool;
    const kh_kern *kern;
    enum kh_compute compute;
    kh_arena step, *scratch; /* [threads] */
    kh_attn_plan *plan;
    kh_ff_plan *ff;
    kh_kv_pool *pages;
    size_t longest, batch;
    atomic_bool stop;
    const kh_probe *probe;
    /* of the pass in flight, for `batch` rows */
    int32_t *tokens, *positions, *types;
    kh_span *spans;
    kh_kv **kv; /* [batch] */
    float *rows /* [batch][D] */;
};

/* ---- opening */

static kh_status check_model(const kh_model *m, const kh_encoder_options *o)
{
    const kh_description *d = &m->d;
    if (!m->family) KH_FAIL(KH_ERR_STATE, "the file was opened for its vocabulary only");
    if (d->structure == KH_DECODER)
        KH_FAIL(KH_ERR_UNSUPPORTED, "a %s model is a decoder: it has no encoder", m->architecture);
    if (o->longest > MOST_ROWS || o->batch > MOST_ROWS)
        KH_FAIL(KH_ERR_ARGUMENT, "texts of %zu tokens in passes of %zu: at most %d are allowed",
                o->longest, o->batch, MOST_ROWS);
    int learned = d->positions == KH_POSITIONS_LEARNED;
    if (o->longest > (size_t)d->context && (learned || !o->longer))
        KH_FAIL(KH_ERR_CONTEXT, "texts of %zu tokens exceed the trained length of %d%s", o->longest,
                d->context,
                learned ? ", and this model's positions are learned"
                        : ": longer must be asked for");
    if (o->threads < 0 || o->threads > 1024)
        KH_FAIL(KH_ERR_ARGUMENT, "threads: %d is not between 0 and 1024", o->threads);
    return KH_OK;
}

static size_t usual_longest(const kh_model *m)
{
    return m->d.context < USUAL_LONGEST ? (size_t)m->d.context : USUAL_LONGEST;
}

static kh_status open_memory(kh_encoder *e)
{
    const kh_description *d = &e->model->d;
    kh_kv_shape shape = {.layers = 1,
                         .groups = d->G,
                         .k_width = d->E,
                         .v_width = d->E,
                         .k_type = KH_TYPE_F32,
                         .v_type = KH_TYPE_F32};
    size_t step = 0, scratch = 0, head = 0,
           pages = 2 * e->batch; /* a short text takes a page, too */
    kh_forward_encoder_need(e->model, e->plan, &shape, e->batch, e->longest, &step, &scratch);
    kh_forward_classify_need(e->model, EXAMPLES, &head, &scratch);
    if (head > step) step = head;
    KH_TRY(kh_arena_init(&e->step, "step", step));
    KH_TRY(kh_new(&e->scratch, (size_t)e->pool.threads, sizeof *e->scratch, "worker scratch"));
    for (int i = 0; i < e->pool.threads; i++)
        KH_TRY(kh_arena_init(&e->scratch[i], "worker", scratch));
    KH_TRY(kh_new(&e->tokens, e->batch, sizeof *e->tokens, "a pass"));
    KH_TRY(kh_new(&e->positions, e->batch, sizeof *e->positions, "a pass"));
    KH_TRY(kh_new(&e->types, e->batch, sizeof *e->types, "a pass"));
    KH_TRY(kh_new(&e->spans, e->batch, sizeof *e->spans, "a pass"));
    KH_TRY(kh_new(&e->kv, e->batch, sizeof *e->kv, "a pass"));
    KH_TRY(kh_new(&e->rows, e->batch * (size_t)d->D, sizeof *e->rows, "a pass"));
    return kh_kv_pool_open(&e->pages, &shape, pages);
}

kh_status kh_encoder_open(kh_encoder **out, const kh_model *model,
                          const kh_encoder_options *options)
{
    static const kh_encoder_options defaults;
    *out = NULL;
    if (!options) options = &defaults;
    KH_TRY(check_model(model, options));
    kh_encoder *e = NULL;
    KH_TRY(kh_new(&e, 1, sizeof *e, "an encoder"));
    e->model = model;
    atomic_init(&e->stop, 0);
    e->longest = options->longest ? options->longest : usual_longest(model);
    e->batch = options->batch ? options->batch : DEFAULT_BATCH;
    if (e->batch < e->longest) e->batch = e->longest;
    e->compute = kh_plans_compute(options->precision);
    e->pool.threads = options->threads ? options->threads : kh_cpu_count();
    e->kern = kh_kern_get(kh_cpu_isa());
    kh_status status = kh_plans_attn(&e->plan, model, options->attn);
    if (status == KH_OK) status = kh_plans_ff(&e->ff, model, e->kern, options->ff);
    if (status == KH_OK) status = open_memory(e);
    if (status != KH_OK) {
        kh_encoder_close(e);
        return status;
    }
    *out = e;
    return KH_OK;
}

void kh_encoder_close(kh_encoder *e)
{
    if (!e) return;
    kh_kv_pool_close(e->pages);
    kh_attn_plan_free(e->plan);
    kh_ff_plan_close(e->ff);
    for (int i = 0; e->scratch && i < e->pool.threads; i++) kh_arena_free(&e->scratch[i]);
    kh_free(e->scratch);
    kh_arena_free(&e->step);
    kh_free(e->rows);
    kh_free(e->kv);
    kh_free(e->spans);
    kh_free(e->types);
    kh_free(e->positions);
    kh_free(e->tokens);
    kh_free(e);
}

/* ---- passes */

static kh_run run_of(kh_encoder *e, const kh_batch *batch)
{
    const kh_description *d = &e->model->d;
    return (kh_run){.step = &e->step,
                    .pool = &e->pool,
                    .scratch = e->scratch,
                    .kern = e->kern,
                    .batch = batch,
                    .phase = KH_PHASE_PREFILL,
                    .kv_self = e->kv,
                    .beyond = (double)e->longest > d->rope[0].original,
                    .attn = e->plan,
                    .ff = e->ff,
                    .probe = e->probe,
                    .compute = e->compute,
                    .stop = &e->stop};
}

static kh_status check_text(const kh_encoder *e, const kh_encoder_text *text, size_t index)
{
    size_t types = e->model->w.types.rows;
    if (text->count == 0) KH_FAIL(KH_ERR_ARGUMENT, "text %zu has no tokens", index);
    if (text->count > e->longest)
        KH_FAIL(KH_ERR_CONTEXT, "text %zu has %zu tokens: at most %zu are read", index, text->count,
                e->longest);
    for (size_t i = 0; i < text->count; i++) {
        if (text->ids[i] < 0 || text->ids[i] >= e->model->d.V)
            KH_FAIL(KH_ERR_ARGUMENT, "text %zu: token %zu: id %d is not between 0 and %d", index, i,
                    text->ids[i], e->model->d.V - 1);
        if (text->types && types > 0 && (text->types[i] < 0 || (size_t)text->types[i] >= types))
            KH_FAIL(KH_ERR_ARGUMENT, "text %zu: token %zu: type %d is not between 0 and %zu", index,
                    i, text->types[i], types - 1);
    }
    return KH_OK;
}

/* Adds a text to the batch; the caller has seen that it fits. */
static kh_status add_text(kh_encoder *e, kh_batch *batch, const kh_encoder_text *text)
{
    size_t at = batch->n, seq = batch->span_count;
    KH_TRY(kh_kv_open(&e->kv[seq], e->pages, text->count));
    e->spans[seq] = (kh_span){.seq = (int)seq, .row = at, .rows = text->count};
    batch->span_count++;
    KH_TRY(kh_kv_prepare(e->kv[seq], text->count));
    for (size_t i = 0; i < text->count; i++) {
        e->tokens[at + i] = text->ids[i];
        e->positions[at + i] = (int32_t)i;
        e->types[at + i] = text->types ? text->types[i] : 0;
    }
    batch->n += text->count;
    return KH_OK;
}

static kh_status pass(kh_encoder *e, kh_batch *batch, const kh_encoder_text *texts, size_t count,
                      size_t *taken)
{
    for (*taken = 0; *taken < count; ++*taken) {
        const kh_encoder_text *text = &texts[*taken];
        if (batch->n + text->count > e->batch) break;
        KH_TRY(add_text(e, batch, text));
    }
    kh_run run = run_of(e, batch);
    return kh_forward_encoder(e->model, &run, e->rows);
}

typedef kh_status take_rows(void *context, size_t text, const float *rows);

kh_status kh_encoder_run(kh_encoder *e, const kh_encoder_text *texts, size_t count, take_rows *rows,
                         void *context)
{
    size_t D = (size_t)e->model->d.D;
    atomic_store(&e->stop, 0);
    for (size_t i = 0; i < count; i++) KH_TRY(check_text(e, &texts[i], i));
    for (size_t done = 0, taken; done < count; done += taken) {
        kh_batch batch = {.tokens = e->tokens,
                          .position = e->positions,
                          .types = e->model->w.types.name ? e->types : NULL,
                          .spans = e->spans};
        kh_status status = pass(e, &batch, texts + done, count - done, &taken);
        for (size_t i = 0; i < batch.span_count; i++) {
            kh_kv_close(e->kv[i]);
            e->kv[i] = NULL;
        }
        for (size_t i = 0; status == KH_OK && i < taken; i++)
            status = rows(context, done + i, e->rows + e->spans[i].row * D);
        if (status != KH_OK) return status;
    }
    return KH_OK;
}

/* ---- what is made of rows */

typedef struct pooling {
    const kh_encoder_text *texts;
    float *out; /* [count][D] */
    size_t D;
    kh_pooling how;
    int normalise;
} pooling;

static kh_status pool_rows(void *context, size_t text, const float *rows)
{
    pooling *p = context;
    size_t n = p->texts[text].count, first = 0, last = n;
    if (p->how == KH_POOLING_CLS) last = 1;
    if (p->how == KH_POOLING_LAST) first = n - 1;
    float *out = p->out + text * p->D;
    double squares = 0;
    for (size_t c = 0; c < p->D; c++) {
        double sum = 0;
        for (size_t t = first; t < last; t++) sum += (double)rows[t * p->D + c];
        out[c] = (float)(sum / (double)(last - first));
        squares += (double)out[c] * (double)out[c];
    }
    double scale = p->normalise && squares > 0 ? 1 / sqrt(squares) : 1;
    for (size_t c = 0; c < p->D; c++) out[c] = (float)((double)out[c] * scale);
    return KH_OK;
}

/* pooling_type of GGUF: 1 mean, 2 cls, 3 last. */
static kh_pooling pooling_of(const kh_model *m)
{
    char key[64];
    uint64_t type = 1;
    snprintf(key, sizeof key, "%s.pooling_type", m->architecture);
    if (kh_gguf_opt_u64(m->file, key, &type, 1 << 20) != KH_OK) type = 1;
    return type == 2 ? KH_POOLING_CLS : type == 3 ? KH_POOLING_LAST : KH_POOLING_MEAN;
}

kh_status kh_encoder_embed(kh_encoder *e, float *out, const kh_encoder_text *texts, size_t count,
                           kh_pooling how, int normalise)
{
    pooling p = {.texts = texts,
                 .out = out,
                 .D = (size_t)e->model->d.D,
                 .how = how == KH_POOLING_MODEL ? pooling_of(e->model) : how,
                 .normalise = normalise};
    return kh_encoder_run(e, texts, count, pool_rows, &p);
}

/* ---- classes */

typedef struct classifying {
    kh_encoder *encoder;
    const kh_encoder_text *texts;
    float *logits, *pooled /* [EXAMPLES][D] */;
    size_t waiting, done; /* pooled texts, and those that have their logits */
} classifying;

static kh_status classify_waiting(classifying *c)
{
    kh_encoder *e = c->encoder;
    kh_row_range rows[EXAMPLES];
    kh_batch batch = {.n = c->waiting};
    kh_run run = run_of(e, &batch);
    size_t classes = e->model->w.classes.out.rows;
    for (size_t i = 0; i < c->waiting; i++) rows[i] = (kh_row_range){i, 1};
    float *out = c->logits + c->done / kh_class_towers(e->model) * classes;
    KH_TRY(kh_forward_classify(e->model, &run, out, c->pooled, rows, c->waiting));
    c->done += c->waiting;
    c->waiting = 0;
    return KH_OK;
}

static kh_status class_rows(void *context, size_t text, const float *rows)
{
    classifying *c = context;
    kh_encoder *e = c->encoder;
    size_t D = (size_t)e->model->d.D;
    kh_run run = run_of(e, NULL);
    kh_row_range range = {0, c->texts[text].count};
    kh_op_pool(&run, c->pooled + c->waiting * D, rows, &range, 1, D, e->model->d.pooling);
    return ++c->waiting == EXAMPLES ? classify_waiting(c) : KH_OK;
}

kh_status kh_encoder_classify(kh_encoder *e, float *logits, const kh_encoder_text *texts,
                              size_t count)
{
    classifying c = {.encoder = e, .texts = texts, .logits = logits};
    if (!e->model->w.classes.out.name)
        KH_FAIL(KH_ERR_UNSUPPORTED, "the model has no head for classes (cls.output.weight)");
    if (count % kh_class_towers(e->model) != 0)
        KH_FAIL(KH_ERR_ARGUMENT, "a head for pairs of texts: an even number is expected, found %zu",
                count);
    KH_TRY(kh_new(&c.pooled, EXAMPLES * (size_t)e->model->d.D, sizeof *c.pooled, "pooled texts"));
    kh_status status = kh_encoder_run(e, texts, count, class_rows, &c);
    if (status == KH_OK && c.waiting > 0) status = classify_waiting(&c);
    kh_free(c.pooled);
    return status;
}

/* ---- masked tokens and answers */

typedef struct masking {
    kh_encoder *encoder;
    float *logits;
    const size_t *positions;
    size_t n;
} masking;

static kh_status masked_rows(void *context, size_t text, const float *rows)
{
    (void)text;
    masking *k = context;
    kh_encoder *e = k->encoder;
    size_t D = (size_t)e->model->d.D;
    for (size_t i = 0; i < k->n; i++) /* ascending, so nothing is overwritten before it is read */
        memmove(e->rows + i * D, rows + k->positions[i] * D, D * sizeof *rows);
    kh_batch batch = {.n = k->n};
    kh_run run = run_of(e, &batch);
    return kh_forward_masked(e->model, &run, k->logits, e->rows, k->n);
}

kh_status kh_encoder_masked(kh_encoder *e, float *logits, const kh_encoder_text *text,
                            const size_t *positions, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (positions[i] >= text->count || (i > 0 && positions[i] <= positions[i - 1]))
            KH_FAIL(KH_ERR_ARGUMENT, "position %zu of %zu tokens is not ascending or not inside",
                    positions[i], text->count);
    masking k = {e, logits, positions, n};
    return n > 0 ? kh_encoder_run(e, text, 1, masked_rows, &k) : KH_OK;
}

typedef struct each {
    const size_t *positions;
    float *rows; /* [count][D] */
    size_t D;
} each;

static kh_status one_row(void *context, size_t text, const float *rows)
{
    each *c = context;
    memcpy(c->rows + text * c->D, rows + c->positions[text] * c->D, c->D * sizeof *rows);
    return KH_OK;
}

kh_status kh_encoder_masked_each(kh_encoder *e, float *logits, const kh_encoder_text *texts,
                                 const size_t *positions, size_t count)
{
    each c = {.positions = positions, .D = (size_t)e->model->d.D};
    kh_batch batch = {.n = count};
    kh_run run = run_of(e, &batch);
    if (count > e->batch)
        KH_FAIL(KH_ERR_ARGUMENT, "%zu rows exceed a pass of %zu", count, e->batch);
    KH_TRY(kh_new(&c.rows, count * c.D, sizeof *c.rows, "the masked rows"));
    kh_status status = kh_encoder_run(e, texts, count, one_row, &c);
    if (status == KH_OK) status = kh_forward_masked(e->model, &run, logits, c.rows, count);
    kh_free(c.rows);
    return status;
}

typedef struct spanning {
    kh_encoder *encoder;
    float *start, *end;
    size_t count;
} spanning;

static kh_status span_rows(void *context, size_t text, const float *rows)
{
    (void)text;
    spanning *s = context;
    kh_encoder *e = s->encoder;
    const kh_weights *w = &e->model->w;
    float *both = NULL;
    kh_arena_mark mark = kh_arena_save(&e->step);
    kh_status status = kh_arena_new(&e->step, &both, 2 * s->count, sizeof *both);
    kh_batch batch = {.n = s->count};
    kh_run run = run_of(e, &batch);
    if (status == KH_OK) status = kh_op_linear(&run, both, rows, s->count, &w->span);
    for (size_t i = 0; status == KH_OK && i < s->count; i++) {
        s->start[i] = both[2 * i] + (w->span_bias.data ? w->span_bias.data[0] : 0.0f);
        s->end[i] = both[2 * i + 1] + (w->span_bias.data ? w->span_bias.data[1] : 0.0f);
    }
    kh_arena_rewind(&e->step, mark);
    return status;
}

kh_status kh_encoder_spans(kh_encoder *e, float *start, float *end, const kh_encoder_text *text)
{
    if (!e->model->w.span.name)
        KH_FAIL(KH_ERR_UNSUPPORTED, "the file has no head that finds answers (span_output.weight)");
    spanning s = {e, start, end, text->count};
    return kh_encoder_run(e, text, 1, span_rows, &s);
}

typedef struct sourcing {
    kh_encoder *encoder;
    kh_kv *cross;
    size_t n;
} sourcing;

static kh_status source_rows(void *context, size_t text, const float *rows)
{
    (void)text;
    sourcing *s = context;
    kh_batch batch = {.n = s->n};
    kh_run run = run_of(s->encoder, &batch);
    return kh_forward_source(s->encoder->model, &run, s->cross, rows, s->n);
}

kh_status kh_encoder_source(kh_encoder *e, kh_kv *cross, const int32_t *ids, size_t n,
                            const kh_probe *probe)
{
    kh_encoder_text text = {.ids = ids, .count = n};
    sourcing s = {e, cross, n};
    e->probe = probe;
    return kh_encoder_run(e, &text, 1, source_rows, &s);
}

kh_status kh_encoder_memory(kh_memory_need *out, const kh_model *model)
{
    kh_encoder *e = NULL;
    kh_encoder_options options = {.batch = usual_longest(model)};
    KH_TRY(kh_encoder_open(&e, model, &options));
    size_t pages = (e->longest + KH_PAGE - 1) / KH_PAGE;
    *out = (kh_memory_need){.file = kh_gguf_size(model->file),
                            .adapters = kh_model_lora_bytes(model),
                            .cache = pages * kh_kv_page_bytes(kh_kv_pool_shape(e->pages)),
                            .compute = e->step.size + (size_t)e->pool.threads * e->scratch[0].size +
                                       e->batch * (size_t)model->d.D * sizeof *e->rows};
    kh_encoder_close(e);
    return KH_OK;
}

const kh_tokenizer *kh_encoder_tokenizer(const kh_encoder *e)
{
    return e->model->tokenizer;
}

size_t kh_encoder_longest(const kh_encoder *e)
{
    return e->longest;
}

void kh_encoder_stop(kh_encoder *e)
{
    atomic_store(&e->stop, 1);
}

void kh_encoder_observe(kh_encoder *e, const kh_probe *probe)
{
    e->probe = probe;
}
