/* model/walk.h: rows on their way through a stack of blocks; private to model/. */
#ifndef KH_MODEL_WALK_H
#define KH_MODEL_WALK_H

#include "attn/bias.h"
#include "model/network.h"

typedef struct kh_walk {
    const kh_model *model;
    kh_run *run;
    const kh_stack *stack;
    int encoder; /* 1: rows see all of their sequence, layers share one cache */
    int before;  /* layers of the model before this stack's: an encoder's, for its decoder */
    size_t T, D, HE, GE, F;
    float *x /* [T][D] residual stream */, *h /* [T][D] */, *side /* [T][D] where it is needed */;
    float *q /* [T][H][E] */, *k /* [T][G][E] */, *v /* [T][G][E] */, *z /* [T][H][E] */;
    float *source_k, *source_v; /* [run->source->n][G][E] */
    float *gate, *up;           /* [C][F] of a chunk of rows */
    float *cosine[2], *sine[2]; /* [T][n_rot/2], global and local */
    kh_attn_bias relative;      /* distances NULL: none */
    kh_attention_bias table;    /* what they are made of */
    /* Behind every block, before the next; NULL: nothing. For a loss of every layer. */
    kh_status (*after)(struct kh_walk *walk, int l);
    const kh_logit_sink *sink;    /* of `after` */
    struct kh_tape_record *start; /* what its gradient goes back to */
    float *ahead; /* [T][D] x behind the block while it is taken back; NULL: x stays as it is */
} kh_walk;

/* Takes the buffers of a walk from run->step; model, run, stack, encoder, before and T are set. */
kh_status kh_walk_open(kh_walk *walk);
/* Bytes of them, and of what the ops of the stack's blocks take beside them, for T rows over S keys. */
void kh_walk_need(const kh_model *model, const kh_stack *stack, int encoder,
                  const kh_attn_plan *plan, const kh_kv_shape *shape, size_t T, size_t S,
                  size_t *step, size_t *scratch);

/* The embeddings of the batch, into x, and the angles of its positions. */
void kh_walk_embed(kh_walk *walk);
/* All blocks. KH_ERR_STOPPED between two when run->stop is set. */
kh_status kh_walk_blocks(kh_walk *walk);

/* One pass over the stack of a walk that is described by value (model, stack, encoder, before, T; run is set here):
 * out [T][D] is the last residual stream behind the final norm. With a tape run->step stays taken. */
kh_status kh_walk_rows(kh_run *run, const kh_walk *what, float *out);

/* y = norm(x), rows of n; a norm that is absent copies. y may be x. */
void kh_walk_norm(const kh_walk *walk, float *y, const float *x, const kh_norm *norm, size_t rows,
                  size_t n);
/* y += bias, where there is one. */
void kh_walk_bias(const kh_walk *walk, float *y, const kh_vector *bias);
void kh_walk_look(const kh_walk *walk, kh_point point, int layer, float *data, size_t width);

#endif
