/* model/description.h: a model family is data: what the one forward pass does for it, and which tensors
 * it reads. A new family is one file in families/ and one line in families.c. */
#ifndef KH_MODEL_DESCRIPTION_H
#define KH_MODEL_DESCRIPTION_H

#include "attn/attn.h"
#include "base/arena.h"
#include "format/gguf.h"
#include "ops/rope.h"
#include "ops/rowwise.h"
#include "ops/weight.h"

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

enum { KH_MAX_LAYERS = 512, KH_MAX_WIDTH = 1 << 17, KH_MAX_VOCABULARY = 1 << 22 };

/* Numbers of one model, all read from its metadata. */
typedef struct kh_description {
    int N, D, H, G, E, F, V;
    int context; /* trained length */
    float norm_eps;
    float embed_scale; /* on the token embedding; 1: none */
    kh_act act;
    float attn_scale, attn_softcap, logit_softcap;
    int window;                   /* of the local layers; 0: there are none */
    uint8_t local[KH_MAX_LAYERS]; /* 1: the layer sees the last `window` keys */
    kh_rope_spec rope[2];         /* of global and of local layers */
} kh_description;

/* Parts of a block that some families have. A family names what its files must hold; a tensor that a
 * file holds and no slot claims is refused, so that no variant is run half. */
enum {
    KH_PART_QKV_BIAS = 1,
    KH_PART_QK_NORM = 2,
    KH_PART_POST_NORM = 4 /* norms on the outputs of attention and feed-forward */
};

struct kh_hf_map;

typedef struct kh_family {
    const char *name;  /* general.architecture */
    unsigned parts;    /* required parts */
    unsigned optional; /* parts that a file may have */
    kh_rope_style rope_style;
    kh_act act;
    const struct kh_hf_map *hf; /* how its Hugging Face folders are read; NULL: they are not */
    /* What is not common to all families; called after the common numbers are read. NULL: nothing. */
    kh_status (*describe)(kh_description *d, const kh_gguf *file);
} kh_family;

/* NULL when the architecture is not known. */
const kh_family *kh_family_find(const char *name, size_t size);
/* The families in the order of the list; NULL behind the last. */
const kh_family *kh_family_at(size_t index);
/* "llama, qwen2, ..." */
const char *kh_family_names(void);

/* The weights of one block; absent parts have NULL data. */
typedef struct kh_block {
    kh_vector attn_norm, q_norm, k_norm, post_attn_norm, ffn_norm, post_ffn_norm;
    kh_vector q_bias, k_bias, v_bias, o_bias;
    kh_weight q, k, v, o, gate, up, down;
} kh_block;

typedef struct kh_weights {
    kh_weight embedding, head; /* [V][D]; the head may be the embedding */
    int tied;
    kh_vector final_norm;
    kh_vector rope_factors; /* absent in most files */
    kh_block *blocks;       /* [N] */
    uint64_t parameters;
} kh_weights;

/* Reads and checks the numbers. */
kh_status kh_describe(kh_description *out, const kh_family *family, const kh_gguf *file);
/* Binds every tensor of the file; vectors are converted into `arena`. */
kh_status kh_bind(kh_weights *out, kh_arena *arena, const kh_family *family,
                  const kh_description *d, const kh_gguf *file);

#endif
