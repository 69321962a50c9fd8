/* api/convert_mix.h: which type each tensor of a model gets. */
#ifndef KH_API_CONVERT_MIX_H
#define KH_API_CONVERT_MIX_H

#include "format/gguf.h"

typedef struct kh_mix {
    const char *name;   /* "Q4_K_M" */
    kh_type type;       /* of most matrices */
    uint32_t file_type; /* general.file_type */
    char size;          /* 'S', 'M' or 'L' where a type has several mixes; 0 */
} kh_mix;

size_t kh_mix_count(void);
const kh_mix *kh_mix_at(size_t index);
const kh_mix *kh_mix_find(const char *name); /* in either case; NULL if there is none */

/* What of a model decides; set by kh_mix_look. */
typedef struct kh_mix_model {
    uint64_t layers, experts, heads, key_heads;
    int tied; /* no output.weight: the embedding is the head */
} kh_mix_model;

kh_status kh_mix_look(kh_mix_model *model, const kh_gguf *file);

typedef struct kh_mix_choice {
    kh_type type;
    int unfit; /* another type was wanted; its blocks do not divide the rows */
} kh_mix_choice;

kh_mix_choice kh_mix_choose(const kh_mix *mix, const kh_mix_model *model, const kh_tensor *tensor,
                            int pure);

#endif
