/* train/groups.h: which tensors are trained, how fast, with what decay: by patterns over their names. */
#ifndef KH_TRAIN_GROUPS_H
#define KH_TRAIN_GROUPS_H

#include "train/tensors.h"

#include <keyhole/status.h>
#include <stddef.h>

typedef struct kh_groups_options {
    double
        decay; /* of matrices that no rule names, embeddings among them; vectors (gains, biases) have none */
    const char *train; /* NULL, or "PATTERN,...": all other tensors are frozen */
    const char *const
        *rules; /* [count] "PATTERN,...:rate=R,decay=D", either or both; rate=0 freezes */
    size_t count;
} kh_groups_options;

/* Fills `settings` [n]: first the defaults (rate 1), then `train`, then the rules in their order; of several that match
 * a tensor the last one that says something about a number holds. Patterns are those of a shell (* ? [a-z]) over the
 * whole name; a dot is nothing special. KH_ERR_ARGUMENT for a pattern that matches nothing, for a rule that cannot be
 * read, and where no tensor is left to train. */
kh_status kh_groups_apply(kh_tensor_setting *settings, const kh_tensor_spec *tensors, size_t n,
                          const kh_groups_options *options);

#endif
