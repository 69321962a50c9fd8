/* train/distill_impl.h: a teacher's pass as its two files see it. */
#ifndef KH_TRAIN_DISTILL_IMPL_H
#define KH_TRAIN_DISTILL_IMPL_H

#include "attn/attn.h"
#include "train/distill.h"

struct kh_distill {
    kh_distill_options options;
    const kh_model *student, *teacher;
    kh_distill_sizes sizes;
    kh_attn_plan *plan; /* the teacher's: full */
    kh_kv_pool *pages;
    kh_kv **kv; /* [sizes.spans] */
    /* of the batch in flight */
    kh_distill_batch batch;
    const kh_pool *pool;
    const kh_kern *kern;
    const kh_batch *tokens;
    float *hidden;            /* [rows][D] the teacher's, behind its final norm */
    float *logits;            /* [chunk][V] the teacher's */
    double *each;             /* [chunk] losses; of layers: of an item */
    kh_attn_watch see, watch; /* the teacher's and the student's */
    /* of layers: the teacher's q, k, v behind rope, of each layer that the student has */
    size_t drawn;    /* R rows of the batch */
    uint32_t *rows;  /* [R] ascending */
    float *q;        /* [N][R][H][E] */
    float *k, *v;    /* [N][R][G][E] */
    float *keys;     /* [N][rows][G][E] for maps; NULL: none are wanted */
    double *scratch; /* [threads][room] */
    size_t room;
};

/* Draws the rows, and takes the memory for what is kept of layers. */
kh_status kh_distill_open_layers(kh_distill *distill);
void kh_distill_draw(kh_distill *distill);
void kh_distill_close_layers(kh_distill *distill);
/* Refuses what has no relation or no map. */
kh_status kh_distill_check_layers(const kh_distill *distill);

#endif
