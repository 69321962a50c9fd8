/* model/lora_set.h: low-rank adapters (LoRA): files of them, and what becomes of them in a model.
 *
 * A set is one adapter: pairs A, B for some of a model's tensors, under GGUF's names and in GGUF's order of
 * rows, whatever file they came from. docs/formats.md has the formats. */
#ifndef KH_MODEL_LORA_SET_H
#define KH_MODEL_LORA_SET_H

#include "format/gguf.h"
#include "model/description.h"

#include <keyhole/status.h>
#include <stddef.h>

typedef struct kh_lora_part {
    char *tensor;      /* "blk.0.attn_q.weight"; "output.weight" is the head, tied or not */
    size_t rows, cols; /* of that tensor */
    size_t r;
    double alpha;     /* the part adds alpha / r * B A */
    const float *a;   /* [r][cols] */
    const float *b;   /* [rows][r] */
    float *own;       /* what a and b lie in; NULL: they are somebody else's */
    uint64_t numbers; /* r * (rows + cols) */
} kh_lora_part;

typedef struct kh_lora_set {
    char *path;
    const char *format;  /* "PEFT", "GGUF" */
    kh_lora_part *parts; /* [count] */
    size_t count, room;
    kh_lora *nodes; /* of kh_lora_attach */
} kh_lora_set;

/* The token embedding, whose A and B are stored the other way round; the head. */
#define KH_LORA_EMBEDDING "token_embd.weight"
#define KH_LORA_HEAD      "output.weight"

/* An empty set; `path` names it in sentences. */
kh_status kh_lora_new(kh_lora_set **out, const char *path);
void kh_lora_close(kh_lora_set *set); /* takes NULL; after the model it is attached to */
/* Adds a part for a tensor of `base`: r from 1 to KH_LORA_MOST, alpha finite, a matrix that takes one
 * (KH_ERR_FORMAT: unknown; KH_ERR_UNSUPPORTED: experts, norms, tables), no tensor twice. a and b NULL:
 * zeros that the set owns and the caller fills (kh_lora_a, kh_lora_b); else they are borrowed. */
kh_status kh_lora_add(kh_lora_set *set, const kh_gguf *base, const char *tensor, size_t r,
                      double alpha, const float *a /* [r][cols] */, const float *b /* [rows][r] */);
float *kh_lora_a(kh_lora_part *part); /* of a part that owns them */
float *kh_lora_b(kh_lora_part *part);

/* Opens a PEFT folder, its adapter_model.safetensors, or a GGUF adapter, for the model `base`. All of it is
 * checked and converted to F32; *out is NULL on failure: another base, or a kind that is not supported. */
kh_status kh_lora_open(kh_lora_set **out, const kh_gguf *base, const char *path);
kh_status kh_lora_open_peft(kh_lora_set *set, const kh_gguf *base);
kh_status kh_lora_open_gguf(kh_lora_set *set, const kh_gguf *base);

/* What kh_lora_add refuses, of the shapes that a file has. */
kh_status kh_lora_check(const kh_lora_set *set, const kh_gguf *base, const char *tensor,
                        uint64_t rows, uint64_t cols, uint64_t r_of_a, uint64_t r_of_b);

/* KH_ERR_FORMAT where one of the numbers is none. */
kh_status kh_lora_finite(const float *numbers /* [n] */, size_t n, const char *tensor);

/* The part of a tensor, or NULL. */
const kh_lora_part *kh_lora_find(const kh_lora_set *set, const char *tensor);
/* What it adds, with a strength: for kh_lora_add_rows. */
kh_lora kh_lora_of(const kh_lora_part *part, double strength);

/* Links the set's parts, times `strength`, to the weights of a model that was bound to `base`, in front of those
 * that are there. All or nothing; once. */
kh_status kh_lora_attach(kh_lora_set *set, kh_weights *weights, const kh_gguf *base,
                         double strength);

/* ---- merging: W + sum of strength * alpha / r * B A ---- */

typedef struct kh_lora_merge {
    kh_lora_set **sets; /* [count] */
    float *strengths;   /* [count] */
    size_t count;
} kh_lora_merge;

/* KH_ERR_UNSUPPORTED where one tensor is the embedding and the head, and only one of both is adapted. */
kh_status kh_lora_merge_check(const kh_lora_merge *merge, const kh_gguf *base);
/* Is the tensor adapted? `merge` may be NULL. */
int kh_lora_merge_has(const kh_lora_merge *merge, const char *tensor);
/* rows [count][cols] of the tensor += what the adapters add to its rows [first, first + count). */
void kh_lora_merge_rows(const kh_lora_merge *merge, const char *tensor, float *rows, size_t first,
                        size_t count, size_t cols);

/* ---- writing ---- */

/* llama.cpp's adapter. It has one alpha: parts of another have their B scaled. */
kh_status kh_lora_save_gguf(const kh_lora_set *set, const kh_gguf *base, const char *path);
/* FOLDER/adapter_model.safetensors and adapter_config.json in F32, under Hugging Face's names. */
kh_status kh_lora_save_peft(const kh_lora_set *set, const kh_gguf *base, const char *folder);

/* The alpha (r) that most parts have. */
double kh_lora_usual_alpha(const kh_lora_set *set);
size_t kh_lora_usual_rank(const kh_lora_set *set);

#endif
