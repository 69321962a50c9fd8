/* The one forward pass: embeddings, the blocks (model/walk.c), logits.
 *
 *     x = scale * embedding[token] (+ position) (+ type) (norm)
 *     x = blocks(x)                                            model/walk.c
 *     logits = [cap] W_head (scale * norm(x))                  only rows that are asked for, in chunks
 *
 * Logits are produced in chunks of rows, so a prompt of any length never holds T x V of them.
 *
 * With a tape the loss is taken back as far as the rows that want logits, chunk by chunk: `take` leaves its
 * gradient in the twin of the buffer, and T x V numbers never exist there either. The caller takes back the
 * rest. With a loss of every layer (layer-causal gradients) each block is taken back as soon as it has run.
 *
 * Companions: the cache is written by the attention op; a probe is called at its named points with the
 * rows as they are, and what it changes is what the pass goes on with; cancellation is read between
 * layers. There is no other forward pass: training, inspection, encoders and quantised files all come
 * through here. */
#include "base/fail.h"
#include "model/walk.h"
#include "ops/linear.h"
#include "run/tape.h"

#include <string.h>

kh_status kh_forward_logits(const kh_model *model, kh_run *run, float *out, const float *hidden,
                            size_t rows)
{
    const kh_description *d = &model->d;
    KH_TRY(kh_op_linear(run, out, hidden, rows, &model->w.head));
    if (d->logit_softcap > 0) kh_op_softcap(run, out, d->logit_softcap, rows, (size_t)d->V);
    return KH_OK;
}

void kh_forward_finish(const kh_model *model, kh_run *run, float *x, size_t rows)
{
    const kh_walk w = {.model = model, .run = run};
    size_t D = (size_t)model->d.D;
    kh_walk_norm(&w, x, x, &model->w.stack.final_norm, rows, D);
    if (model->d.logit_scale != 1.0f) kh_op_scale(run, x, model->d.logit_scale, rows, D);
}

/* Rows that want logits are moved together into h (logit_rows ascend, so h is read before written
 * only if it aliased x, which it does not). */
static kh_status logits(kh_walk *w, const kh_logit_sink *sink)
{
    const kh_description *d = &w->model->d;
    const kh_batch *batch = w->run->batch;
    size_t n = batch->logit_count, V = (size_t)d->V;
    kh_op_gather(w->run, w->h, w->x, batch->logit_rows, n, w->D);
    kh_walk_norm(w, w->h, w->h, &w->stack->final_norm, n, w->D);
    kh_probe_at(w->run->probe, KH_POINT_FINAL_NORM, -1, w->h, n, w->D);
    if (d->logit_scale != 1.0f) kh_op_scale(w->run, w->h, d->logit_scale, n, w->D);
    if (sink->hidden) {
        memcpy(sink->hidden, w->h, n * w->D * sizeof *w->h);
        return KH_OK;
    }
    for (size_t first = 0; first < n; first += sink->chunk_rows) {
        size_t rows = n - first < sink->chunk_rows ? n - first : sink->chunk_rows;
        kh_tape_mark mark = w->run->tape ? kh_tape_save(w->run->tape) : NULL;
        KH_TRY(kh_forward_logits(w->model, w->run, sink->buffer, w->h + first * w->D, rows));
        kh_probe_at(w->run->probe, KH_POINT_LOGITS, -1, sink->buffer, rows, V);
        KH_TRY(sink->take(sink->context, first, rows, sink->buffer));
        if (w->run->tape) KH_TRY(kh_tape_backward(w->run, mark));
    }
    return KH_OK;
}

/* The loss of one layer, whose gradient ends where its block began. A block that ran again for it left behind in x
 * what its gradient needs, which is not all that it makes. */
static kh_status layer_loss(kh_walk *w, int l)
{
    size_t bytes = w->T * w->D * sizeof *w->x;
    (void)l;
    if (w->ahead) memcpy(w->ahead, w->x, bytes);
    KH_TRY(logits(w, w->sink));
    KH_TRY(kh_tape_backward(w->run, w->start));
    if (w->ahead) memcpy(w->x, w->ahead, bytes);
    kh_tape_clear(w->run, kh_tape_twin_of(w->run, w->x), w->T * w->D);
    return KH_OK;
}

static kh_status open_layer_losses(kh_walk *w, const kh_logit_sink *sink)
{
    w->sink = sink;
    w->after = layer_loss;
    w->start = kh_tape_save(w->run->tape);
    if (!w->run->tape->recompute) return KH_OK;
    return kh_arena_new(w->run->step, &w->ahead, w->T * w->D, sizeof *w->ahead);
}

static kh_status pass(kh_walk *w, const kh_logit_sink *sink)
{
    KH_TRY(kh_walk_open(w));
    kh_walk_embed(w);
    int causal = w->run->tape && w->run->tape->layer_causal;
    if (causal) KH_TRY(open_layer_losses(w, sink));
    KH_TRY(kh_walk_blocks(w));
    return w->run->batch->logit_count > 0 && !causal ? logits(w, sink) : KH_OK;
}

kh_status kh_forward(const kh_model *model, kh_run *run, const kh_logit_sink *sink)
{
    kh_walk *w = NULL;
    kh_arena_mark mark = kh_arena_save(run->step);
    KH_TRY(kh_arena_new(run->step, &w, 1, sizeof *w));
    *w = (kh_walk){.model = model,
                   .run = run,
                   .stack = &model->w.stack,
                   .before = model->d.encoder_layers,
                   .T = run->batch->n};
    kh_status status = pass(w, sink);
    if (status || !run->tape) kh_arena_rewind(run->step, mark);
    return status;
}

void kh_forward_need(const kh_model *model, const kh_attn_plan *plan, const kh_kv_shape *shape,
                     size_t T, size_t S, size_t *step, size_t *scratch)
{
    size_t own = 0;
    kh_walk_need(model, &model->w.stack, 0, plan, shape, T, S, step, scratch);
    own += kh_arena_need(sizeof(kh_walk));
    kh_linear_need(&model->w.head, T, &own, scratch);
    *step += own;
}
