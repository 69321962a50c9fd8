/* train/tensors.h: how a flat array of parameters is divided into named tensors. Masters, gradients and
 * moments are arrays of one layout, so a list of these describes all of them. */
#ifndef KH_TRAIN_TENSORS_H
#define KH_TRAIN_TENSORS_H

#include "tensor/types.h"

#include <stddef.h>

typedef struct kh_tensor_spec {
    const char *name; /* unique in its list; owned by whoever made the list */
    size_t offset;    /* of the first element in the array; ascending, tensors do not overlap */
    size_t count;     /* elements: rows * cols */
    int rows, cols;   /* [rows][cols], as in a product; a vector is [1][cols] */
} kh_tensor_spec;

/* What an optimiser does with a tensor; train/groups.h makes an array of these from patterns. */
typedef struct kh_tensor_setting {
    double
        rate; /* factor of the learning rate; 0: frozen, no moments are kept and nothing changes */
    double decay; /* weight decay */
} kh_tensor_setting;

/* An array with a name, wherever it lies: what a checkpoint writes and reads. */
typedef struct kh_tensor_view {
    const char *name;
    kh_type type; /* F32 or BF16 */
    int rows, cols;
    void *data; /* [rows][cols] */
} kh_tensor_view;

#endif
