/* model/description.h: a model family is data: what the one forward pass does for it, and which tensors
 * it reads. A new family is one file in families/ and one line in families.h. */
#ifndef KH_MODEL_DESCRIPTION_H
#define KH_MODEL_DESCRIPTION_H

#include "attn/attn.h"
#include "base/arena.h"
#include "format/gguf.h"
#include "ops/experts.h"
#include "ops/pooling.h"
#include "ops/rope.h"
#include "ops/rowwise.h"
#include "ops/weight.h"

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

enum { KH_MAX_LAYERS = 512, KH_MAX_WIDTH = 1 << 17, KH_MAX_VOCABULARY = 1 << 22 };

typedef enum kh_norm_kind { KH_NORM_RMS, KH_NORM_LAYER } kh_norm_kind;

typedef enum kh_block_form {
    KH_BLOCK_PRE,      /* x += attention(norm(x)), then x += feed-forward(norm(x)) */
    KH_BLOCK_PARALLEL, /* x += attention(norm(x)) + feed-forward(other norm(x)) */
    KH_BLOCK_POST      /* x = norm(x + attention(x)), then x = norm(x + feed-forward(x)) */
} kh_block_form;

typedef enum kh_positions {
    KH_POSITIONS_ROTARY,
    KH_POSITIONS_LEARNED, /* an embedding of the position is added to that of the token */
    KH_POSITIONS_RELATIVE /* a bias on the scores by T5's bucket of the distance */
} kh_positions;

typedef enum kh_class_act { KH_CLASS_TANH, KH_CLASS_RELU } kh_class_act;

/* What a model is made of. */
typedef enum kh_structure {
    KH_DECODER,        /* one stack, causal */
    KH_ENCODER,        /* one stack whose rows see all of their sequence */
    KH_ENCODER_DECODER /* both; the decoder also attends to what the encoder made */
} kh_structure;

/* Numbers of one model, all read from its metadata. */
typedef struct kh_description {
    kh_structure structure;
    int N;              /* of the decoder, or of the only stack */
    int encoder_layers; /* of the encoder beside a decoder; else 0 */
    int D, H, G, E, F, V;
    int context; /* trained length */
    kh_norm_kind norm;
    kh_block_form form;
    kh_positions positions;
    float norm_eps;
    float embed_scale; /* on the token embedding; 1: none */
    kh_act act;
    float attn_scale, attn_softcap, logit_softcap;
    float logit_scale;            /* on the final norm's output; 1: none */
    int window;                   /* of the local layers; 0: there are none */
    uint8_t local[KH_MAX_LAYERS]; /* 1: the layer sees the last `window` keys */
    kh_rope_spec rope[2];         /* of global and of local layers */
    int buckets, max_distance;    /* relative positions */
    int start;                    /* token that a decoder behind an encoder starts with */
    kh_expert_spec experts;       /* experts.count 0: none */
    kh_pooled pooling;            /* of texts that become one row */
    kh_class_act class_act;       /* inside a head for classes */
} kh_description;

/* Parts of a model that some families have. A family names what its files must hold; a tensor that a
 * file holds and no slot claims is refused, so that no variant is run half. */
enum {
    KH_PART_QKV_BIAS = 1 << 0,
    KH_PART_QK_NORM = 1 << 1,
    KH_PART_OUT_NORM = 1 << 2,  /* norms on the outputs of attention and feed-forward */
    KH_PART_PRE_NORM = 1 << 3,  /* norms on their inputs */
    KH_PART_POST_NORM = 1 << 4, /* norms on the residual stream behind them */
    KH_PART_NORM_BIAS = 1 << 5, /* of all norms */
    KH_PART_OUT_BIAS = 1 << 6,  /* of attention's output projection */
    KH_PART_FF_BIAS = 1 << 7,   /* of up and down */
    KH_PART_FF = 1 << 8,        /* up and down */
    KH_PART_GATE = 1 << 9,      /* a gate beside up */
    KH_PART_EXPERTS = 1 << 10,  /* router and experts instead of up and down */
    KH_PART_SHARED = 1 << 11,   /* an expert that every row meets */
    KH_PART_CROSS = 1 << 12,    /* a decoder's attention to an encoder */
    KH_PART_RELATIVE = 1 << 13, /* a table of biases by distance */
    KH_PART_FINAL_NORM = 1 << 14,
    KH_PART_POSITIONS = 1 << 15, /* embeddings of positions */
    KH_PART_TYPES = 1 << 16,     /* embeddings of the first and second text */
    KH_PART_EMBED_NORM = 1 << 17,
    KH_PART_HEAD = 1 << 18,      /* an output head of its own */
    KH_PART_ROPE = 1 << 19,      /* divisors of rotary frequencies */
    KH_PART_MASK_HEAD = 1 << 20, /* predicts masked tokens: dense, activation, norm, head, bias */
    KH_PART_SPAN_HEAD = 1 << 21, /* two rows: where an answer starts and ends */
    KH_PART_ALONE = 1 << 22,     /* the encoder of an encoder-decoder without its decoder */
    KH_PART_CLASSES = 1 << 23,   /* a head that tells classes apart; any family may have one */
    KH_PARTS_DECODER = KH_PART_PRE_NORM | KH_PART_FINAL_NORM | KH_PART_FF
};

struct kh_hf_map;

enum { KH_WINDOWS_LISTED = -1 }; /* window_period: those that the file lists */

typedef struct kh_family {
    const char *name;  /* general.architecture */
    unsigned parts;    /* required parts */
    unsigned optional; /* parts that a file may have */
    kh_structure structure;
    kh_norm_kind norm;
    kh_block_form form;
    kh_positions positions;
    kh_rope_style rope_style;
    /* Layers that see a window, where a file has one and does not say which: 0: the family has no
     * windows; 1: all; n: all but every n-th; KH_WINDOWS_LISTED */
    int window_period;
    int raw_shares; /* 1: experts' shares are not divided by their sum, unless a file says so */
    kh_act act;
    int open_act;               /* 1: a file may name another activation (hidden_activation) */
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

typedef struct kh_norm {
    kh_vector gain, bias; /* data NULL: the norm, or its bias, is absent */
} kh_norm;

/* One attention's weights. */
typedef struct kh_attn_weights {
    kh_weight q, k, v, o;
    kh_vector q_bias, k_bias, v_bias, o_bias, q_norm, k_norm;
} kh_attn_weights;

/* The weights of one block; absent parts have NULL data. */
typedef struct kh_block {
    kh_norm attn_norm, ffn_norm;           /* on inputs */
    kh_norm attn_out_norm, ffn_out_norm;   /* on outputs */
    kh_norm attn_post_norm, ffn_post_norm; /* on the residual stream */
    kh_attn_weights self, cross;
    kh_norm cross_norm;
    kh_weight gate, up, down;
    kh_vector up_bias, down_bias;
    kh_expert_weights experts;
    kh_vector relative; /* [buckets][H], in the first block of a stack */
} kh_block;

/* A head that tells classes apart: features -> dense, activation -> inner, activation -> out; dense and inner
 * may be absent. Features are a pooled row, or two pooled rows a and b as [a, b] or [a, b, a b, a - b]. */
typedef struct kh_class_head {
    kh_weight dense, inner, out;
    kh_vector dense_bias, inner_bias, out_bias;
} kh_class_head;

typedef struct kh_stack {
    kh_block *blocks; /* [N] */
    int N;
    kh_norm final_norm;
} kh_stack;

typedef struct kh_weights {
    kh_weight embedding, head;  /* [V][D]; the head may be the embedding */
    kh_weight positions, types; /* [context][D], [types][D] */
    kh_norm embed_norm;
    int tied;
    kh_vector rope_factors, rope_long, rope_short; /* absent in most files */
    kh_stack stack;                                /* the decoder, or the only one */
    kh_stack encoder;                              /* of an encoder-decoder */
    kh_weight mask_dense;                          /* [D][D] */
    kh_vector mask_dense_bias, mask_bias;          /* [D], [V] */
    kh_norm mask_norm;
    kh_weight span; /* [2][D] */
    kh_vector span_bias;
    kh_class_head classes;
    uint64_t parameters;
} kh_weights;

/* Reads and checks the numbers. */
kh_status kh_describe(kh_description *out, const kh_family *family, const kh_gguf *file);
/* Binds every tensor of the file; vectors are converted into `arena`. */
kh_status kh_bind(kh_weights *out, kh_arena *arena, const kh_family *family,
                  const kh_description *d, const kh_gguf *file);
/* Bytes of that arena. */
size_t kh_bind_need(const kh_description *d, const kh_gguf *file);

/* Numbers that tensors tell and no metadata; 0: absent. */
typedef struct kh_sizes {
    size_t context, types;                  /* rows of the embeddings of positions and of texts */
    size_t features, dense, inner, classes; /* of a head for classes */
} kh_sizes;

typedef struct kh_slot_tensor {
    const char *name;
    int n_dims;
    size_t dims[3]; /* fastest first; 1 beyond n_dims */
    size_t rows[3]; /* of the matrices that it holds one below the other (q, k, v); 0: no more */
    int layers,
        residuals; /* of its stack: layers, and additions to the residual stream of each; 0: in none */
} kh_slot_tensor;

/* Calls take() for every tensor that a model of these numbers has, with `parts` of those that the family leaves
 * open. What it names is what kh_bind reads. */
kh_status kh_slots_list(const kh_family *family, const kh_description *d, const kh_sizes *sizes,
                        unsigned parts,
                        kh_status (*take)(void *context, const kh_slot_tensor *tensor),
                        void *context);

#endif
