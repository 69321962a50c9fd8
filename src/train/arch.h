/* train/arch.h: the description of a model from nothing, as one writes it. */
#ifndef KH_TRAIN_ARCH_H
#define KH_TRAIN_ARCH_H

#include "train/scratch.h"

typedef struct kh_arch {
    kh_scratch_options options; /* its texts are parts of `text` */
    char text[1024];
} kh_arch;

/* ARCHITECTURE[:name=value,...], as "llama:layers=4,width=128,heads=4"; names are those of kh_scratch_options, and
 * init=gpt2, spread=0.02. KH_ERR_ARGUMENT names what is unknown or no number, and what is allowed. */
kh_status kh_arch_parse(kh_arch *out, const char *text);

#endif
