/* What is read out of rows: of an encoder, or of a decoder without its output head.
 *
 * Classes:
 *
 *     rows of a text      -> one (mean, first or last)          ops/pooling.h
 *     pairs of texts      -> [a, b], or [a, b, a b, a - b]      where the head is that wide
 *     features            -> [dense, tanh or ReLU] -> [inner, the same] -> classes
 *
 * The names of the tensors are llama.cpp's (cls, cls.output), of which cls.inner is a second dense layer as the
 * Long Range Arena's retrieval task has it.
 *
 * Masked tokens: dense, activation, norm, output head and bias; logits of a chunk of rows at a time, whose loss
 * is taken back at once where there is a tape, as in model/forward.c.
 *
 * With a tape every buffer has a twin, as in the walk. */
#include "base/fail.h"
#include "model/walk.h"
#include "ops/linear.h"
#include "ops/pooling.h"
#include "run/tape.h"

kh_status kh_forward_rows(const kh_model *model, kh_run *run, float *out)
{
    if (model->d.structure != KH_DECODER) return kh_forward_encoder(model, run, out);
    kh_walk decoder = {.model = model, .stack = &model->w.stack, .T = run->batch->n};
    return kh_walk_rows(run, &decoder, out);
}

static kh_status take(kh_run *run, float **buffer, size_t n)
{
    KH_TRY(kh_arena_new(run->step, buffer, n, sizeof **buffer));
    return run->tape ? kh_tape_buffer(run->tape, run->step, *buffer, n) : KH_OK;
}

/* ---- classes */

/* *x [n][..] becomes what the layer makes of it; an absent one leaves it. */
static kh_status dense(const kh_model *m, kh_run *run, float **x, size_t n, const kh_weight *w,
                       const kh_vector *bias)
{
    float *y;
    if (!w->name) return KH_OK;
    KH_TRY(take(run, &y, n * w->rows));
    KH_TRY(kh_op_linear(run, y, *x, n, w));
    if (bias->data) kh_op_bias(run, y, bias->data, n, w->rows);
    if (m->d.class_act == KH_CLASS_TANH)
        kh_op_softcap(run, y, 1, n, w->rows);
    else
        kh_op_glu(run, y, NULL, n, w->rows, KH_ACT_RELU);
    *x = y;
    return KH_OK;
}

static size_t features_of(const kh_class_head *head)
{
    return head->dense.name ? head->dense.cols : head->out.cols;
}

size_t kh_class_towers(const kh_model *m)
{
    return m->w.classes.out.name && features_of(&m->w.classes) > (size_t)m->d.D ? 2 : 1;
}

static kh_status classify(const kh_model *m, kh_run *run, float *logits, const float *x,
                          const kh_row_range *ranges, size_t n)
{
    const kh_class_head *head = &m->w.classes;
    size_t D = (size_t)m->d.D, count = n / kh_class_towers(m), parts = features_of(head) / D;
    float *pooled = NULL;
    KH_TRY(take(run, &pooled, n * D));
    kh_op_pool(run, pooled, x, ranges, n, D, m->d.pooling);
    float *features = pooled;
    if (parts > 1) {
        KH_TRY(take(run, &features, count * parts * D));
        kh_op_pair(run, features, pooled, count, D, parts);
    }
    KH_TRY(dense(m, run, &features, count, &head->dense, &head->dense_bias));
    KH_TRY(dense(m, run, &features, count, &head->inner, &head->inner_bias));
    KH_TRY(kh_op_linear(run, logits, features, count, &head->out));
    if (head->out_bias.data) kh_op_bias(run, logits, head->out_bias.data, count, head->out.rows);
    kh_probe_at(run->probe, KH_POINT_LOGITS, -1, logits, count, head->out.rows);
    return KH_OK;
}

kh_status kh_forward_classify(const kh_model *model, kh_run *run, float *logits, const float *x,
                              const kh_row_range *ranges, size_t n)
{
    if (!model->w.classes.out.name)
        KH_FAIL(KH_ERR_UNSUPPORTED, "the model has no head for classes (cls.output.weight)");
    if (n % kh_class_towers(model) != 0)
        KH_FAIL(KH_ERR_ARGUMENT, "a head for pairs of texts: an even number is expected, found %zu",
                n);
    kh_arena_mark mark = kh_arena_save(run->step);
    kh_status status = classify(model, run, logits, x, ranges, n);
    if (status || !run->tape) kh_arena_rewind(run->step, mark);
    return status;
}

void kh_forward_classify_need(const kh_model *model, size_t n, size_t *step, size_t *scratch)
{
    const kh_class_head *head = &model->w.classes;
    const kh_weight *layers[] = {&head->dense, &head->inner, &head->out};
    size_t own = 0, product = 0;
    if (head->out.name)
        own = kh_arena_need(n * (size_t)model->d.D * sizeof(float)) +
              kh_arena_need(n * features_of(head) * sizeof(float));
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        kh_linear_need(layers[i], n, &product, scratch);
        if (layers[i]->name) own += kh_arena_need(n * layers[i]->rows * sizeof(float));
    }
    *step = own + product;
}

/* ---- masked tokens */

/* From x [T][D], which is overwritten, by way of h [T][D]. */
static kh_status masked(const kh_model *m, kh_run *run, float *logits, float *x, float *h, size_t T)
{
    size_t D = (size_t)m->d.D, V = (size_t)m->d.V;
    const kh_weights *w = &m->w;
    kh_walk walk = {.model = m, .run = run, .T = T};
    KH_TRY(kh_op_linear(run, h, x, T, &w->mask_dense));
    kh_walk_bias(&walk, h, &w->mask_dense_bias);
    kh_op_glu(run, h, NULL, T, D, m->d.act);
    kh_walk_norm(&walk, x, h, &w->mask_norm, T, D);
    KH_TRY(kh_op_linear(run, logits, x, T, &w->head));
    kh_walk_bias(&walk, logits, &w->mask_bias);
    kh_probe_at(run->probe, KH_POINT_LOGITS, -1, logits, T, V);
    return KH_OK;
}

static kh_status check_masked(const kh_model *model)
{
    if (!model->w.mask_dense.name)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "the file has no head that predicts masked tokens (mask_dense.weight)");
    return KH_OK;
}

kh_status kh_forward_masked(const kh_model *model, kh_run *run, float *logits, float *x, size_t T)
{
    float *h;
    KH_TRY(check_masked(model));
    kh_arena_mark mark = kh_arena_save(run->step);
    KH_TRY(kh_arena_new(run->step, &h, T * (size_t)model->d.D, sizeof *h));
    kh_status status = masked(model, run, logits, x, h, T);
    kh_arena_rewind(run->step, mark);
    return status;
}

static kh_status masked_rows(const kh_model *m, kh_run *run, const float *x,
                             const kh_logit_sink *sink)
{
    const kh_batch *batch = run->batch;
    size_t D = (size_t)m->d.D, n = batch->logit_count;
    float *picked, *h;
    KH_TRY(take(run, &picked, sink->chunk_rows * D));
    KH_TRY(take(run, &h, sink->chunk_rows * D));
    for (size_t first = 0; first < n; first += sink->chunk_rows) {
        size_t rows = n - first < sink->chunk_rows ? n - first : sink->chunk_rows;
        kh_tape_mark mark = run->tape ? kh_tape_save(run->tape) : NULL;
        kh_op_gather(run, picked, x, batch->logit_rows + first, rows, D);
        KH_TRY(masked(m, run, sink->buffer, picked, h, rows));
        KH_TRY(sink->take(sink->context, first, rows, sink->buffer));
        if (run->tape) KH_TRY(kh_tape_backward(run, mark));
    }
    return KH_OK;
}

kh_status kh_forward_masked_rows(const kh_model *model, kh_run *run, const float *x,
                                 const kh_logit_sink *sink)
{
    KH_TRY(check_masked(model));
    kh_arena_mark mark = kh_arena_save(run->step);
    kh_status status = masked_rows(model, run, x, sink);
    if (status || !run->tape) kh_arena_rewind(run->step, mark);
    return status;
}

void kh_forward_masked_rows_need(const kh_model *model, size_t rows, size_t *step, size_t *scratch)
{
    size_t product = 0;
    kh_linear_need(&model->w.mask_dense, rows, &product, scratch);
    kh_linear_need(&model->w.head, rows, &product, scratch);
    *step = product + 2 * kh_arena_need(rows * (size_t)model->d.D * sizeof(float));
}
