/* Encoders: whole texts at once, every row seeing all of its own.
 *
 * The walk is the decoder's (model/walk.c); what differs is that keys are needed by one layer only, and that a
 * pass ends with rows instead of logits.
 *
 *     tokens of some texts -> blocks -> rows [T][D] -> pooled by the caller
 *                                                   -> classes, masked tokens: model/readout.c
 *                                                   -> kh_forward_source: cross caches, a layer at a time */
#include "base/fail.h"
#include "model/walk.h"
#include "ops/linear.h"

#include <string.h>

static const kh_stack *encoder_of(const kh_model *m)
{
    return m->d.structure == KH_ENCODER_DECODER ? &m->w.encoder : &m->w.stack;
}

kh_status kh_forward_encoder(const kh_model *model, kh_run *run, float *out)
{
    if (model->d.structure == KH_DECODER)
        KH_FAIL(KH_ERR_STATE, "a %s model has no encoder", model->architecture);
    kh_walk encoder = {
        .model = model, .stack = encoder_of(model), .encoder = 1, .T = run->batch->n};
    return kh_walk_rows(run, &encoder, out);
}

static kh_status keys_and_values(const kh_model *m, kh_run *run, kh_kv *cross, const float *x,
                                 size_t T)
{
    size_t G = (size_t)m->d.G, E = (size_t)m->d.E;
    float *out[2] = {NULL, NULL};
    KH_TRY(kh_arena_new(run->step, &out[0], T * G * E, sizeof(float)));
    KH_TRY(kh_arena_new(run->step, &out[1], T * G * E, sizeof(float)));
    for (int l = 0; l < m->d.N; l++) {
        const kh_attn_weights *a = &m->w.stack.blocks[l].cross;
        const kh_weight *in[] = {&a->k, &a->v};
        KH_TRY(kh_op_linear_many(run, 2, out, x, T, in));
        for (size_t g = 0; g < G; g++)
            kh_kv_write(cross, run->kern, l, (int)g, T, out[0] + g * E, G * E, out[1] + g * E,
                        G * E);
    }
    return KH_OK;
}

kh_status kh_forward_source(const kh_model *model, kh_run *run, kh_kv *cross, const float *x,
                            size_t T)
{
    KH_TRY(kh_kv_prepare(cross, T));
    kh_arena_mark mark = kh_arena_save(run->step);
    kh_status status = keys_and_values(model, run, cross, x, T);
    kh_arena_rewind(run->step, mark);
    if (status == KH_OK) kh_kv_advance(cross, T);
    return status;
}

void kh_forward_encoder_need(const kh_model *model, const kh_attn_plan *plan,
                             const kh_kv_shape *shape, size_t T, size_t S, size_t *step,
                             size_t *scratch)
{
    const kh_weight *heads[] = {&model->w.mask_dense, &model->w.head, &model->w.span};
    size_t D = (size_t)model->d.D, GE = (size_t)model->d.G * (size_t)model->d.E, f = sizeof(float);
    size_t rows = kh_arena_need(T * D * f), own = kh_arena_need(sizeof(kh_walk)),
           both = 2 * kh_arena_need(T * GE * f), product = 0;
    kh_walk_need(model, encoder_of(model), 1, plan, shape, T, S, step, scratch);
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        kh_linear_need(heads[i], T, &product, scratch);
    for (int l = 0; l < model->w.stack.N; l++) {
        kh_linear_need(&model->w.stack.blocks[l].cross.k, T, &product, scratch);
        kh_linear_need(&model->w.stack.blocks[l].cross.v, T, &product, scratch);
    }
    product += rows > both ? rows : both;
    if (product > *step) *step = product;
    *step += own;
}
