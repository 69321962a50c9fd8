/* train/init.h: what a weight is before it is trained. */
#ifndef KH_TRAIN_INIT_H
#define KH_TRAIN_INIT_H

#include "cpu/pool.h"
#include "model/description.h"

typedef struct kh_init_options {
    /* NULL: "t5" for t5 and t5encoder, "lra" for lra, "gpt2" for the others.
     *   gpt2  matrices and embeddings N(0, 0.02); projections back to the residual stream divided by the root
     *         of how often a stack adds to it
     *   lra   embeddings N(0, 1), those of positions N(0, 0.02), matrices Xavier-uniform
     *   t5    N(0, 1/inputs), embeddings N(0, 1), queries further divided by the root of the head width
     * Gains are 1 and biases 0 in all of them. */
    const char *name;
    double spread; /* of gpt2's normal distribution; 0: 0.02 */
    uint64_t seed;
    int sinusoids; /* 1: embeddings of positions are sinusoids, whatever the name */
    int zero_row;  /* of the embedding, counted from 1, begins as zeros (lra's CLS); 0: none */
} kh_init_options;

/* Fills weights [dims[2]][dims[1]][dims[0]] of a tensor as kh_slots_list describes it. */
kh_status kh_init_tensor(float *out, const kh_init_options *options, const kh_family *family,
                         const kh_description *d, const kh_slot_tensor *tensor,
                         const kh_pool *pool);
/* The name that NULL stands for, or KH_ERR_ARGUMENT for one that is not known. */
kh_status kh_init_check(const char **name, const kh_init_options *options, const kh_family *family);

#endif
