/* The pass of training: the model's one forward pass with a tape, and back.
 *
 *     step     |sink's logits and their twin|walk's buffers, each with its twin|what ops take|
 *     tape     records, or the blocks' inputs and chosen keys
 *     cache    one layer of pages a sequence, which all layers write in turn
 *
 * Logits exist a chunk of rows at a time; their loss is taken at once and taken back as far as the rows of the
 * last layer, so T x V numbers are never there. Chunks are multiples of 256 rows, as sums of gradients over rows
 * are (ops/linear_back.h), so no chunk changes a bit.
 *
 * Behind an encoder each item is two spans: the first goes through the encoder, the second through the decoder,
 * which reads the encoder's rows in every block. Both walks leave their records on one tape.
 *
 * Goals differ in what follows the blocks: a decoder's output head over the rows that have a target, the head for
 * masked tokens over those of an encoder, or the head for classes over the pooled rows of each item. */
#include "train/pass.h"

#include "attn/method.h"
#include "base/alloc.h"
#include "base/fail.h"
#include "cpu/cpu.h"
#include "ff/keep.h"
#include "gen/plans.h"
#include "kern/attn_kern.h"
#include "train/distill.h"
#include "train/masking.h"
#include "train/sides.h"

#include <stdio.h>
#include <string.h>

enum { SLICE = 256, LOGIT_BYTES = 8 << 20 };

struct kh_pass {
    kh_params *params;
    kh_pass_options options;
    kh_pool pool;
    const kh_kern *kern;
    kh_arena step, *scratch; /* [threads] */
    kh_attn_plan *plan;
    kh_ff_plan *ff;
    kh_kv_pool *pages;
    kh_kv **kv; /* [spans] */
    kh_kv **source_kv,
        **cross_kv; /* [spans] of an encoder before a decoder, and of what it gives */
    kh_tape tape;
    kh_distill *distill;    /* NULL: there is no teacher */
    int maps;               /* 1: kept keys are compared */
    float ce;               /* weight of the targets */
    int lists;              /* 1: every head keeps a list of keys */
    kh_run run, source_run; /* of the pass in flight */
    kh_goal goal;
    size_t chunk;        /* rows of logits at once; of classes: those of a batch */
    size_t width;        /* of a row of logits: V, or classes */
    float *logits;       /* [chunk][width] */
    double *each;        /* [chunk][2] */
    kh_row_range *texts; /* [spans] that are pooled */
    int32_t *no_types;   /* [rows] zeros */
    atomic_bool stop;
    /* of the pass in flight */
    const kh_data_batch *batch;
    kh_batch rows;
    kh_source_rows source;
    kh_masking masking;
    size_t wanted;    /* rows or items that have a target */
    kh_sides sides;   /* of a decoder and of the encoder before it */
    int32_t *targets; /* [rows] of the rows or items that have one */
    float weight;
    kh_loss *loss;
    size_t seen; /* rows of logits, of all layers that have a loss */
};

/* ---- opening */

static size_t chunk_rows(size_t V, size_t rows)
{
    size_t n = LOGIT_BYTES / (V * sizeof(float)) / SLICE * SLICE, all = (rows + SLICE - 1) / SLICE;
    if (n < SLICE) n = SLICE;
    return n < all * SLICE ? n : all * SLICE;
}

static kh_status check(const kh_pass *p)
{
    const kh_pass_options *o = &p->options;
    if (o->rows < 1 || o->rows > 1u << 24 || o->spans < 1 || o->spans > o->rows)
        KH_FAIL(KH_ERR_ARGUMENT, "training: %zu rows in %zu sequences a batch: 1 to %d are allowed",
                o->rows, o->spans, 1 << 24);
    if (o->threads < 0 || o->threads > 1024)
        KH_FAIL(KH_ERR_ARGUMENT, "threads: %d is not between 0 and 1024", o->threads);
    if (!(o->attn_dropout >= 0 && o->attn_dropout < 1))
        KH_FAIL(KH_ERR_ARGUMENT, "attention dropout %g: from 0 to below 1",
                (double)o->attn_dropout);
    return KH_OK;
}

int kh_pass_reads_pairs(const kh_model *model)
{
    return model->d.structure == KH_ENCODER_DECODER || kh_class_towers(model) == 2;
}

static int has_source(const kh_pass *p)
{
    return p->params->model->d.structure == KH_ENCODER_DECODER;
}

static kh_status choose_goal(kh_pass *p)
{
    const kh_model *m = p->params->model;
    int encoder = m->d.structure == KH_ENCODER, classes = m->w.classes.out.name != NULL;
    p->goal = p->options.goal;
    if (p->goal == KH_GOAL_USUAL)
        p->goal = classes ? KH_GOAL_CLASSES : encoder ? KH_GOAL_MASKED : KH_GOAL_TOKENS;
    if (p->goal == KH_GOAL_CLASSES && !classes)
        KH_FAIL(KH_ERR_ARGUMENT, "training: the model has no head for classes (cls.output.weight)");
    if (p->goal == KH_GOAL_MASKED && !(encoder && m->w.mask_dense.name))
        KH_FAIL(KH_ERR_ARGUMENT, "training: the model has no head that predicts masked tokens "
                                 "(mask_dense.weight)");
    if (p->goal == KH_GOAL_TOKENS && encoder)
        KH_FAIL(KH_ERR_ARGUMENT, "training: a %s model is an encoder: it predicts no next token",
                m->architecture);
    if (p->options.mask != 0 && p->goal != KH_GOAL_MASKED)
        KH_FAIL(KH_ERR_ARGUMENT, "training: tokens are masked for encoders that guess them");
    if (p->options.layer_causal && (p->goal != KH_GOAL_TOKENS || has_source(p)))
        KH_FAIL(KH_ERR_ARGUMENT, "training: layer-causal gradients are of decoders' next tokens");
    if (p->options.distill && (p->goal != KH_GOAL_TOKENS || has_source(p)))
        KH_FAIL(KH_ERR_ARGUMENT, "training: distillation is of decoders' next tokens");
    if (p->options.distill && p->options.layer_causal)
        KH_FAIL(KH_ERR_ARGUMENT, "training: distillation with layer-causal gradients: one of both");
    if (p->goal == KH_GOAL_CLASSES && has_source(p))
        KH_FAIL(KH_ERR_UNSUPPORTED, "training: classes behind an encoder and a decoder");
    return KH_OK;
}

/* The most rows of a walk. */
static size_t most_rows(const kh_pass *p)
{
    return has_source(p) ? kh_sides_rows(p->options.rows, p->options.spans) : p->options.rows;
}

static kh_special_ids special_of(const kh_pass *p)
{
    if (p->options.tokenizer) return *kh_tokenizer_special(p->options.tokenizer);
    return (kh_special_ids){-1, -1, -1, -1, -1, -1, -1, -1, 0, 0};
}

/* What the rows, and what stands behind them, take of run->step. */
static size_t measure(kh_pass *p, const kh_kv_shape *shape, size_t *scratch)
{
    const kh_model *m = p->params->model;
    size_t T = most_rows(p), V = (size_t)m->d.V, step = 0, head = 0, encoder = 0;
    size_t D = (size_t)m->d.D, GE = (size_t)m->d.G * (size_t)m->d.E;
    p->width = p->goal == KH_GOAL_CLASSES ? m->w.classes.out.rows : V;
    p->chunk = p->goal == KH_GOAL_CLASSES ? p->options.spans : chunk_rows(V, T);
    if (m->d.structure != KH_DECODER)
        kh_forward_encoder_need(m, p->plan, shape, T, T, &encoder, scratch);
    if (m->d.structure != KH_ENCODER) {
        size_t own = 0;
        kh_forward_need(m, p->plan, shape, T, T, &step, &own);
        if (own > *scratch) *scratch = own;
    }
    if (p->goal == KH_GOAL_CLASSES) kh_forward_classify_need(m, p->options.spans, &head, scratch);
    if (p->goal == KH_GOAL_MASKED) kh_forward_masked_rows_need(m, p->chunk, &head, scratch);
    head += kh_arena_need(T * D * sizeof(float));
    if (has_source(p)) head += 2 * kh_arena_need(T * GE * sizeof(float));
    return step + encoder + head;
}

static kh_status open_caches(kh_pass *p, kh_kv ***out)
{
    KH_TRY(kh_new(out, p->options.spans, sizeof **out, "a batch"));
    for (size_t i = 0; i < p->options.spans; i++)
        KH_TRY(kh_kv_open(&(*out)[i], p->pages, most_rows(p)));
    return KH_OK;
}

static void close_caches(kh_pass *p, kh_kv **caches)
{
    for (size_t i = 0; caches && i < p->options.spans; i++) kh_kv_close(caches[i]);
    kh_free(caches);
}

static kh_status open_teacher(kh_pass *p, size_t *step, size_t *scratch)
{
    const kh_pass_options *o = &p->options;
    const kh_model *student = p->params->model;
    const kh_distill_sizes sizes = {o->rows, o->spans, p->chunk, (size_t)p->pool.threads};
    p->ce = (float)o->distill->ce;
    KH_TRY(kh_distill_open(&p->distill, o->distill, student, o->teacher ? o->teacher : student,
                           &sizes));
    kh_distill_need(p->distill, step, scratch);
    return KH_OK;
}

/* Twins double what the walk takes; the products' way back takes what they do. */
static kh_status open_memory(kh_pass *p)
{
    const kh_description *d = &p->params->model->d;
    size_t T = most_rows(p), scratch = 0;
    kh_kv_shape shape = {.layers = 1,
                         .groups = d->G,
                         .k_width = d->E,
                         .v_width = d->E,
                         .k_type = KH_TYPE_F32,
                         .v_type = KH_TYPE_F32};
    size_t step = measure(p, &shape, &scratch);
    p->ce = 1;
    if (p->options.distill) KH_TRY(open_teacher(p, &step, &scratch));
    size_t logits = kh_arena_need(p->chunk * p->width * sizeof(float));
    KH_TRY(kh_arena_init(&p->step, "training step", 3 * step + 2 * logits + ((size_t)64 << 20)));
    KH_TRY(kh_new(&p->scratch, (size_t)p->pool.threads, sizeof *p->scratch, "worker scratch"));
    for (int i = 0; i < p->pool.threads; i++)
        KH_TRY(kh_arena_init(&p->scratch[i], "worker", 2 * scratch + ((size_t)16 << 20)));
    KH_TRY(kh_new(&p->each, 2 * p->chunk, sizeof *p->each, "a chunk of losses"));
    KH_TRY(kh_new(&p->targets, T, sizeof *p->targets, "a batch"));
    KH_TRY(kh_new(&p->no_types, T, sizeof *p->no_types, "a batch"));
    KH_TRY(kh_new(&p->texts, p->options.spans, sizeof *p->texts, "a batch"));
    KH_TRY(kh_tape_open(&p->tape, 0));
    size_t pages = T / KH_PAGE + p->options.spans;
    KH_TRY(kh_kv_pool_open(&p->pages, &shape, has_source(p) ? 3 * pages : pages));
    KH_TRY(open_caches(p, &p->kv));
    kh_special_ids special = special_of(p);
    if (p->options.mask != 0)
        KH_TRY(kh_masking_open(&p->masking, &special, d->V, p->options.mask, T));
    if (!has_source(p)) return KH_OK;
    int32_t end = special.add_eos && special.eos < d->V ? special.eos : -1;
    KH_TRY(kh_sides_open(&p->sides, p->options.rows, p->options.spans, d->start, end));
    KH_TRY(open_caches(p, &p->source_kv));
    return open_caches(p, &p->cross_kv);
}

static int keeps_lists(const kh_pass *p, const kh_attn_plan *plan)
{
    const kh_description *d = &p->params->model->d;
    int layers = d->encoder_layers + d->N * (has_source(p) ? 2 : 1);
    for (int l = 0; l < layers; l++)
        for (int h = 0; h < d->H; h++)
            if (kh_attn_plan_at(plan, KH_PHASE_PREFILL, l, h)->method->kind != KH_KEYS_INDICES)
                return 0;
    return 1;
}

static kh_status check_maps(const kh_pass *p, const kh_attn_plan *plan)
{
    if (p->maps && !keeps_lists(p, plan))
        KH_FAIL(KH_ERR_ARGUMENT,
                "distillation: maps are of attention that keeps lists of keys (topk), not of '%s'",
                kh_attn_plan_text(plan));
    return KH_OK;
}

static kh_status open_pass(kh_pass *p)
{
    KH_TRY(check(p));
    KH_TRY(choose_goal(p));
    p->pool.threads = p->options.threads ? p->options.threads : kh_cpu_count();
    p->kern = kh_kern_get(kh_cpu_isa());
    KH_TRY(kh_plans_attn(&p->plan, p->params->model, p->options.attn));
    p->lists = keeps_lists(p, p->plan);
    p->maps = p->options.distill && p->options.distill->map > 0;
    KH_TRY(check_maps(p, p->plan));
    KH_TRY(kh_plans_ff(&p->ff, p->params->model, p->kern, p->options.ff));
    return open_memory(p);
}

kh_status kh_pass_open(kh_pass **out, kh_params *params, const kh_pass_options *options)
{
    *out = NULL;
    kh_pass *p = NULL;
    KH_TRY(kh_new(&p, 1, sizeof *p, "a pass"));
    p->params = params;
    p->options = *options;
    atomic_init(&p->stop, 0);
    kh_status status = open_pass(p);
    if (status == KH_OK)
        *out = p;
    else
        kh_pass_close(p);
    return status;
}

void kh_pass_close(kh_pass *p)
{
    if (!p) return;
    close_caches(p, p->kv);
    close_caches(p, p->source_kv);
    close_caches(p, p->cross_kv);
    kh_distill_close(p->distill);
    kh_sides_close(&p->sides);
    kh_masking_close(&p->masking);
    kh_kv_pool_close(p->pages);
    kh_tape_close(&p->tape);
    kh_attn_plan_free(p->plan);
    kh_ff_plan_close(p->ff);
    for (int i = 0; p->scratch && i < p->pool.threads; i++) kh_arena_free(&p->scratch[i]);
    kh_free(p->scratch);
    kh_arena_free(&p->step);
    kh_free(p->targets);
    kh_free(p->no_types);
    kh_free(p->texts);
    kh_free(p->each);
    kh_free(p);
}

kh_status kh_pass_set_attn(kh_pass *p, const char *attn)
{
    kh_attn_plan *plan = NULL;
    KH_TRY(kh_plans_attn(&plan, p->params->model, attn));
    kh_status status = check_maps(p, plan);
    if (status) {
        kh_attn_plan_free(plan);
        return status;
    }
    kh_attn_plan_free(p->plan);
    p->plan = plan;
    p->lists = keeps_lists(p, p->plan);
    return KH_OK;
}

int kh_pass_top(const kh_pass *p)
{
    const kh_description *d = &p->params->model->d;
    return kh_attn_plan_at(p->plan, KH_PHASE_PREFILL, d->encoder_layers + d->N - 1, 0)->k;
}

/* ---- a batch */

/* With a loss of every layer they add up; rows are counted once, and are right by the last layer. */
static kh_status take_logits(void *context, size_t first, size_t rows, float *logits)
{
    kh_pass *p = context;
    float *twin = p->run.tape ? kh_tape_twin_of(&p->run, logits) : NULL;
    kh_loss before = *p->loss;
    kh_op_cross_entropy(&p->run, p->loss, twin, p->ce * p->weight, logits, p->targets + first,
                        p->each, rows, p->width);
    size_t layers = p->run.tape && p->tape.layer_causal ? (size_t)p->params->model->d.N : 1;
    if (p->seen < (layers - 1) * p->rows.logit_count) {
        p->loss->rows = before.rows;
        p->loss->right = before.right;
    }
    p->seen += rows;
    if (p->distill && p->run.tape)
        return kh_distill_logits(p->distill, &p->run, twin, logits, first, rows);
    return KH_OK;
}

static kh_status check_rows(const kh_pass *p, const kh_batch *batch)
{
    const kh_model *m = p->params->model;
    int V = m->d.V, types = (int)m->w.types.rows;
    int own = p->goal == KH_GOAL_CLASSES || p->options.mask != 0;
    const int32_t *targets = own ? NULL : p->batch->targets;
    for (size_t t = 0; t < batch->n; t++) {
        if (batch->tokens[t] < 0 || batch->tokens[t] >= V || (targets && targets[t] >= V))
            KH_FAIL(KH_ERR_ARGUMENT, "training: row %zu: id %d or target %d is not below %d", t,
                    (int)batch->tokens[t], targets ? (int)targets[t] : -1, V);
        if (types > 0 && batch->types && (batch->types[t] < 0 || batch->types[t] >= types))
            KH_FAIL(KH_ERR_ARGUMENT, "training: row %zu: text %d is not below %d", t,
                    (int)batch->types[t], types);
        if (m->w.positions.name &&
            (batch->position[t] < 0 || (size_t)batch->position[t] >= m->w.positions.rows))
            KH_FAIL(KH_ERR_CONTEXT, "training: row %zu: position %d: the model knows %zu positions",
                    t, (int)batch->position[t], m->w.positions.rows);
    }
    return KH_OK;
}

static kh_status check_batch(const kh_pass *p, const kh_batch *batch)
{
    if (batch->n > p->options.rows || batch->span_count > p->options.spans)
        KH_FAIL(KH_ERR_ARGUMENT,
                "training: a batch of %zu rows in %zu sequences: room is for %zu in %zu", batch->n,
                batch->span_count, p->options.rows, p->options.spans);
    return check_rows(p, batch);
}

/* Buffers of the pass have twins where it is taken back. */
static kh_status take(kh_pass *p, float **buffer, size_t n)
{
    KH_TRY(kh_arena_new(&p->step, buffer, n, sizeof **buffer));
    return p->run.tape ? kh_tape_buffer(&p->tape, &p->step, *buffer, n) : KH_OK;
}

static kh_status prepare_caches(kh_kv **caches, const kh_batch *batch)
{
    for (size_t i = 0; i < batch->span_count; i++) {
        KH_TRY(kh_kv_rewind(caches[i], 0));
        KH_TRY(kh_kv_prepare(caches[i], batch->spans[i].rows));
    }
    return KH_OK;
}

/* ---- a decoder behind an encoder */

/* The encoder's rows become the source of run. */
static kh_status encode(kh_pass *p)
{
    const kh_model *m = p->params->model;
    const kh_batch *from = &p->sides.from.batch;
    float *rows = NULL;
    KH_TRY(take(p, &rows, from->n * (size_t)m->d.D));
    p->source_run = p->run;
    p->source_run.batch = from;
    p->source_run.kv_self = p->source_kv;
    KH_TRY(kh_forward_encoder(m, &p->source_run, rows));
    p->source = (kh_source_rows){rows, from->n, from->spans};
    p->run.source = &p->source;
    p->run.kv_cross = p->cross_kv;
    return KH_OK;
}

static kh_status prepare_sides(kh_pass *p)
{
    kh_sides *s = &p->sides;
    KH_TRY(kh_sides_split(s, p->batch));
    p->rows = s->to.batch;
    memcpy(p->targets, s->targets, p->rows.logit_count * sizeof *p->targets);
    return prepare_caches(p->source_kv, &s->from.batch);
}

static void prepare_targets(kh_pass *p)
{
    const kh_batch *batch = &p->rows;
    if (p->options.mask != 0) {
        kh_masking_apply(&p->masking, &p->rows, p->run.key);
        memcpy(p->targets, p->masking.targets, batch->logit_count * sizeof *p->targets);
        return;
    }
    for (size_t i = 0; p->goal != KH_GOAL_CLASSES && i < batch->logit_count; i++)
        p->targets[i] = p->batch->targets[batch->logit_rows[i]];
}

static kh_status prepare(kh_pass *p)
{
    if (has_source(p))
        KH_TRY(prepare_sides(p));
    else
        prepare_targets(p);
    p->wanted = p->rows.logit_count;
    KH_TRY(prepare_caches(p->kv, &p->rows));
    return take(p, &p->logits, p->chunk * p->width);
}

/* ---- classes */

/* Items that have a label, and where their texts are. */
static kh_status find_items(kh_pass *p, size_t *count)
{
    const kh_model *m = p->params->model;
    size_t towers = kh_class_towers(m), texts = 0;
    *count = 0;
    for (size_t i = 0; i < p->batch->item_count; i++) {
        const kh_data_item *item = &p->batch->items[i];
        if (item->label < 0) continue;
        size_t end = item->row + item->rows, second = item->second;
        if ((size_t)item->label >= p->width)
            KH_FAIL(KH_ERR_ARGUMENT, "training: document %llu: label %d of a model of %zu classes",
                    (unsigned long long)item->document, item->label, p->width);
        if (towers == 2 && (second <= item->row || second >= end))
            KH_FAIL(KH_ERR_ARGUMENT,
                    "training: document %llu is one text, and the head for classes reads two",
                    (unsigned long long)item->document);
        if (texts + towers > p->options.spans || item->rows == 0 || end > p->rows.n)
            KH_FAIL(KH_ERR_ARGUMENT, "training: item %zu is not inside the batch", i);
        size_t first_end = towers == 2 ? second : end;
        p->texts[texts++] = (kh_row_range){item->row, first_end - item->row};
        if (towers == 2) p->texts[texts++] = (kh_row_range){second, end - second};
        p->targets[(*count)++] = item->label;
    }
    return KH_OK;
}

static kh_status classify(kh_pass *p, const float *rows)
{
    const kh_model *m = p->params->model;
    size_t count = 0;
    KH_TRY(find_items(p, &count));
    p->wanted = count;
    if (count == 0) return KH_OK;
    KH_TRY(kh_forward_classify(m, &p->run, p->logits, rows, p->texts, count * kh_class_towers(m)));
    return take_logits(p, 0, count, p->logits);
}

/* ---- there and back */

static kh_status forward(kh_pass *p)
{
    const kh_model *m = p->params->model;
    kh_logit_sink sink = {
        .take = take_logits, .context = p, .buffer = p->logits, .chunk_rows = p->chunk};
    float *rows = NULL;
    if (has_source(p)) KH_TRY(encode(p));
    if (p->goal == KH_GOAL_TOKENS) return kh_forward(m, &p->run, &sink);
    KH_TRY(take(p, &rows, p->rows.n * (size_t)m->d.D));
    KH_TRY(kh_forward_rows(m, &p->run, rows));
    if (p->goal == KH_GOAL_CLASSES) return classify(p, rows);
    return kh_forward_masked_rows(m, &p->run, rows, &sink);
}

/* The way back attends over kept keys, in arrays: nobody reads a page again. */
static void drop_pages(kh_pass *p)
{
    for (size_t i = 0; i < p->rows.span_count; i++) {
        kh_kv_rewind(p->kv[i], 0);
        if (!has_source(p)) continue;
        kh_kv_rewind(p->source_kv[i], 0);
        kh_kv_rewind(p->cross_kv[i], 0);
    }
    kh_kv_pool_drop(p->pages);
}

static kh_status forward_and_back(kh_pass *p, uint64_t step, int back)
{
    p->rows = p->batch->batch;
    KH_TRY(check_batch(p, &p->rows));
    if (p->params->model->w.types.name && !p->rows.types) p->rows.types = p->no_types;
    kh_ff_plan_update(p->ff, p->kern);
    kh_arena_rewind(&p->step, 0);
    p->seen = 0;
    p->run = (kh_run){.step = &p->step,
                      .pool = &p->pool,
                      .scratch = p->scratch,
                      .kern = p->kern,
                      .batch = &p->rows,
                      .phase = KH_PHASE_PREFILL,
                      .kv_self = p->kv,
                      .one_layer = 1,
                      .attn = p->plan,
                      .ff = kh_ff_plan_is_dense(p->ff) ? NULL : p->ff,
                      .compute = p->options.compute,
                      .key = {p->options.seed, step},
                      .stop = &p->stop};
    if (back && p->distill) {
        kh_distill_batch to = {p->weight, p->loss, p->run.key};
        KH_TRY(kh_distill_teach(p->distill, &p->run, &to));
        p->run.watch = kh_distill_watch(p->distill);
    }
    if (back) {
        kh_tape_reset(&p->tape);
        p->run.tape = &p->tape;
        p->run.attn_dropout = p->options.attn_dropout;
        p->tape.gradient_of = kh_params_gradient_of;
        p->tape.context = p->params;
        p->tape.recompute = p->options.recompute == KH_RECOMPUTE_BLOCK;
        p->tape.layer_causal = p->options.layer_causal;
    }
    KH_TRY(prepare(p));
    KH_TRY(forward(p));
    if (!back) return KH_OK;
    if (p->lists && p->tape.recompute) drop_pages(p);
    return kh_tape_backward(&p->run, NULL);
}

/* A wish to stop ends one pass and is used up by it. */
static kh_status ended(kh_pass *p, kh_status status)
{
    if (status == KH_ERR_STOPPED) atomic_store(&p->stop, 0);
    return status;
}

kh_status kh_pass_gradient(kh_pass *p, const kh_data_batch *batch, float weight, uint64_t step,
                           kh_loss *loss)
{
    p->batch = batch;
    p->weight = weight;
    p->loss = loss;
    return ended(p, forward_and_back(p, step, 1));
}

kh_status kh_pass_loss(kh_pass *p, const kh_data_batch *batch, kh_loss *loss)
{
    p->batch = batch;
    p->weight = 0;
    p->loss = loss;
    return ended(p, forward_and_back(p, 0, 0));
}

size_t kh_pass_wanted(const kh_pass *p)
{
    return p->wanted;
}

void kh_pass_get_memory(const kh_pass *p, kh_pass_memory *out)
{
    *out = (kh_pass_memory){.activations = p->step.peak, .tape = p->tape.kept.peak};
}

void kh_pass_stop(kh_pass *p)
{
    atomic_store(&p->stop, 1);
}
