/* train/tensors.h: how a flat array of parameters is divided into named tensors. Masters, gradients and
 * moments are arrays of one layout, so a list of these describes all of them. */
#ifndef KH_TRAIN_TENSORS_H
#define KH_TRAIN_TENSORS_H

#include <stddef.h>

typedef struct kh_tensor_spec {
    const char *name; /* unique in its list; owned by whoever made the list */
    size_t offset;    /* of the first element in the array; ascending, tensors do not overlap */
    size_t count;     /* elements: rows * cols */
    int rows, cols;   /* [rows][cols], as in a product; a vector is [1][cols] */
} kh_tensor_spec;

#endif
