/* model/hf.h: a Hugging Face folder as data. A family's kh_hf_map says which fields of config.json
 * become which GGUF values, and which tensors become which; one reader follows the tables, and a
 * folder is opened as the kh_gguf that llama.cpp's converter would have written from it. */
#ifndef KH_MODEL_HF_H
#define KH_MODEL_HF_H

#include "format/gguf.h"

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

typedef struct kh_hf kh_hf; /* a folder that is being read: model/hf_impl.h */

/* ---- fields of config.json ---- */

typedef enum kh_hf_kind {
    KH_HF_INT,
    KH_HF_REAL,
    KH_HF_BOOL,
    KH_HF_TEXT,
    KH_HF_SCALE, /* n becomes 1/sqrt(n) */
    KH_HF_HAS, /* no value, only written: whether the tensor `to` is there; "TENSOR?yes:no" in words */
    KH_HF_EXPECT /* no value: the field, when there, must be one of the words in `to` */
} kh_hf_kind;

typedef enum kh_hf_absent { KH_HF_NEED, KH_HF_SKIP, KH_HF_USE } kh_hf_absent;

typedef struct kh_hf_key {
    /* The first field that is there and not null counts: "n_positions|n_ctx"; "" is never there. */
    const char *from;
    const char *to; /* without "ARCHITECTURE."; whole when it begins with "tokenizer." */
    kh_hf_kind kind;
    kh_hf_absent absent;
    double initial; /* of KH_HF_USE */
} kh_hf_key;

/* ---- tensors ---- */

typedef enum kh_hf_transform {
    KH_HF_PLAIN,
    KH_HF_PAIRS,    /* in each head, rows (i, i + E/2) become neighbours (2i, 2i + 1) */
    KH_HF_ADD_ONE,  /* gains stored as g - 1 */
    KH_HF_TURN,     /* stored [inputs][outputs] */
    KH_HF_BY_HEAD,  /* rows [H][q k v][E] become [q k v][H][E] */
    KH_HF_STACK,    /* one tensor an expert becomes one tensor */
    KH_HF_POSITIONS /* without the rows before the first position */
} kh_hf_transform;

enum {
    KH_HF_BIAS = 1,      /* NAME.bias comes with NAME.weight */
    KH_HF_MAY_BIAS = 2,  /* or may */
    KH_HF_ONLY_BIAS = 4, /* NAME.bias alone */
    KH_HF_OPTIONAL = 8,  /* may be absent */
    KH_HF_HEAD = 16,     /* absent, or ignored, where embeddings are tied */
    KH_HF_AGAIN = 32,    /* another name of the row before: one of both is there, or equal ones */
    KH_HF_DENSE = 64,    /* needed where there are no experts */
    KH_HF_EXPERTS = 128, /* needed where there are */
    KH_HF_UNGATED = 256  /* a name that the matrix has where there is no gate */
};

typedef struct kh_hf_tensor {
    /* Without prefix and ".weight"; '#' is the layer, '@' the expert. Where `to` is NULL: a whole name
     * behind a prefix, '*' is anything. */
    const char *from;
    const char *to; /* without ".weight"; NULL: known and not needed */
    /* Slowest dimension first, one letter each: V vocabulary, D width, F feed-forward, Q = H E, K = G
     * E, E head width, A = Q + 2 K, U = 2 F, H heads, C classes, X experts, M and S feed-forward of an expert and
     * of the shared one, P positions, T types, B buckets, '1' and '2' themselves. */
    const char *shape;
    kh_hf_transform transform;
    unsigned flags;
} kh_hf_tensor;

/* ---- families ---- */

enum {
    KH_HF_ROTARY = 1,  /* has rotary positions: theta, scaling, partial rotation are read */
    KH_HF_TIED = 2,    /* tie_word_embeddings is true where config.json does not say */
    KH_HF_EXACT = 4,   /* only for the architectures named, not for all of its model types */
    KH_HF_MIXTURE = 8, /* the form with experts */
    KH_HF_CLASSES = 16 /* the form with a head that tells classes apart */
};

enum { KH_HF_LISTED = -1 }; /* of window_period */

typedef struct kh_hf_map {
    const char *model_types;     /* "llama|mistral" */
    const char *architectures;   /* classes, "LlamaForCausalLM|LlamaModel"; the first is written */
    const char *prefixes;        /* of tensor names, tried in order; the first is written */
    const kh_hf_key *keys;       /* ends with an empty one; before those that all families share */
    const kh_hf_tensor *tensors; /* ends with an empty one */
    unsigned flags;
    /* Which layers have a window where the file does not list them. 0: no windows; 1: all layers; n: all
     * but every n-th; KH_HF_LISTED: all, and a GGUF file always lists them. */
    int window_period;
    int dialect;    /* which of the names of a shared field its class reads: 0, 1 (GPT-2), 2 (T5) */
    double rotated; /* share of a head where config.json does not say; 0: all of it */
    /* What tables cannot say; called between the family's keys and the shared ones. NULL: nothing. */
    kh_status (*adjust)(kh_hf *hf);
    const struct kh_hf_map *next; /* another form of the same architecture, or NULL */
} kh_hf_map;

/* The rows that most decoders share. */
#define KH_HF_ENDS                                                                                 \
    {"embed_tokens", "token_embd", "VD", 0, 0}, {"norm", "output_norm", "D", 0, 0},                \
        {"lm_head", "output", "VD", 0, KH_HF_HEAD},                                                \
    {                                                                                              \
        "layers.#.self_attn.rotary_emb.inv_freq", 0, 0, 0, 0                                       \
    }
#define KH_HF_ATTENTION(turn, bias)                                                                \
    {"layers.#.self_attn.q_proj", "blk.#.attn_q", "QD", turn, bias},                               \
        {"layers.#.self_attn.k_proj", "blk.#.attn_k", "KD", turn, bias},                           \
        {"layers.#.self_attn.v_proj", "blk.#.attn_v", "KD", 0, bias},                              \
    {                                                                                              \
        "layers.#.self_attn.o_proj", "blk.#.attn_output", "DQ", 0, KH_HF_MAY_BIAS                  \
    }
#define KH_HF_GATED                                                                                \
    {"layers.#.mlp.gate_proj", "blk.#.ffn_gate", "FD", 0, KH_HF_DENSE | KH_HF_MAY_BIAS},           \
        {"layers.#.mlp.up_proj", "blk.#.ffn_up", "FD", 0, KH_HF_DENSE | KH_HF_MAY_BIAS},           \
    {                                                                                              \
        "layers.#.mlp.down_proj", "blk.#.ffn_down", "DF", 0, KH_HF_DENSE | KH_HF_MAY_BIAS          \
    }
#define KH_HF_TWO_NORMS                                                                            \
    {"layers.#.input_layernorm", "blk.#.attn_norm", "D", 0, 0},                                    \
    {                                                                                              \
        "layers.#.post_attention_layernorm", "blk.#.ffn_norm", "D", 0, 0                           \
    }

/* For adjust(): a number of config.json (left alone when absent), and values to set. A key that is
 * set already stays as it is. */
kh_status kh_hf_number(const kh_hf *hf, const char *fields, double *out);
kh_status kh_hf_set_int(kh_hf *hf, const char *key, uint64_t value);
kh_status kh_hf_set_real(kh_hf *hf, const char *key, double value);
kh_status kh_hf_set_bool(kh_hf *hf, const char *key, int value);
/* How many rows of the table of positions lie before the first position. */
void kh_hf_skip_positions(kh_hf *hf, uint64_t rows);

/* ---- folders ---- */

/* 1 for a folder and for NAME.safetensors. */
int kh_hf_is(const char *path);
/* The folder that such a path means, with a slash behind it; freed with kh_free. */
kh_status kh_hf_folder_of(char **out, const char *path);
/* Opens a folder, or the one that a .safetensors file lies in (that file then holds the weights). The
 * values have GGUF's keys, the tensors GGUF's names and conventions; plain ones lie in the mapped
 * files, the others are copies that belong to *out. */
kh_status kh_hf_open(kh_gguf **out, const char *path);
/* Writes config.json and model.safetensors of a model into a folder, which is made. Matrices become
 * `type`: F32, F16, BF16; KH_TYPE_NONE: they stay as they are, quantised ones become F16. */
kh_status kh_hf_write(const kh_gguf *file, const char *folder, kh_type type);
/* The same with adapters added to the weights, in f32; `merge` may be NULL. */
struct kh_lora_merge;
kh_status kh_hf_write_merged(const kh_gguf *file, const char *folder, kh_type type,
                             const struct kh_lora_merge *merge);

/* Rows of q and k: [heads][2][half] to [heads][half][2] (GGUF's of llama), and back. */
void kh_hf_pair_rows(void *out, const void *in, size_t heads, size_t half, size_t row_bytes);
void kh_hf_halve_rows(void *out, const void *in, size_t heads, size_t half, size_t row_bytes);

#endif
