/* Tensors find their slots.
 *
 * The names of GGUF are the same for all decoder families, so there is one table of slots; a family
 * says which parts its files must and may have. Every tensor of the file has to be claimed by a slot:
 * an unclaimed one belongs to a variant that this forward pass would run wrongly, so it is refused by
 * name rather than ignored.
 *
 * Matrices stay in the mapping. Vectors (gains, biases) are few and small: they are converted to f32
 * into the model's arena. */
#include "base/alloc.h"
#include "base/fail.h"
#include "model/description.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum width { W_D, W_F, W_HE, W_GE, W_E };

typedef struct slot {
    const char *name; /* after "blk.N." */
    size_t offset;    /* in kh_block */
    unsigned part;    /* 0: every family has it */
    uint8_t is_vector;
    uint8_t rows, cols; /* enum width; vectors use rows */
} slot;

#define VECTOR(field, text, part, width)                                                           \
    {                                                                                              \
        text, offsetof(kh_block, field), part, 1, width, 0                                         \
    }
#define MATRIX(field, text, rows, cols)                                                            \
    {                                                                                              \
        text, offsetof(kh_block, field), 0, 0, rows, cols                                          \
    }

static const slot slots[] = {
    VECTOR(attn_norm, "attn_norm.weight", 0, W_D),
    VECTOR(q_norm, "attn_q_norm.weight", KH_PART_QK_NORM, W_E),
    VECTOR(k_norm, "attn_k_norm.weight", KH_PART_QK_NORM, W_E),
    VECTOR(post_attn_norm, "post_attention_norm.weight", KH_PART_POST_NORM, W_D),
    VECTOR(ffn_norm, "ffn_norm.weight", 0, W_D),
    VECTOR(post_ffn_norm, "post_ffw_norm.weight", KH_PART_POST_NORM, W_D),
    VECTOR(q_bias, "attn_q.bias", KH_PART_QKV_BIAS, W_HE),
    VECTOR(k_bias, "attn_k.bias", KH_PART_QKV_BIAS, W_GE),
    VECTOR(v_bias, "attn_v.bias", KH_PART_QKV_BIAS, W_GE),
    MATRIX(q, "attn_q.weight", W_HE, W_D),
    MATRIX(k, "attn_k.weight", W_GE, W_D),
    MATRIX(v, "attn_v.weight", W_GE, W_D),
    MATRIX(o, "attn_output.weight", W_D, W_HE),
    MATRIX(gate, "ffn_gate.weight", W_F, W_D),
    MATRIX(up, "ffn_up.weight", W_F, W_D),
    MATRIX(down, "ffn_down.weight", W_D, W_F),
};
enum { SLOTS = sizeof slots / sizeof *slots };

static size_t width(const kh_description *d, uint8_t w)
{
    switch ((enum width)w) {
    case W_D: return (size_t)d->D;
    case W_F: return (size_t)d->F;
    case W_HE: return (size_t)d->H * (size_t)d->E;
    case W_GE: return (size_t)d->G * (size_t)d->E;
    case W_E: return (size_t)d->E;
    }
    return 0;
}

typedef struct binding {
    kh_arena *arena;
    const kh_family *family;
    const kh_description *d;
    const kh_gguf *file;
    size_t claimed;
    uint64_t parameters;
} binding;

/* *out NULL when the tensor is absent and may be. */
static kh_status claim(binding *b, const kh_tensor **out, const char *name, int required)
{
    *out = kh_gguf_tensor(b->file, name);
    if (!*out && required)
        KH_FAIL(KH_ERR_FORMAT, "the file has no tensor %s, which a %s model needs", name,
                b->family->name);
    if (!*out) return KH_OK;
    b->claimed++;
    uint64_t n = 1;
    for (int i = 0; i < (*out)->n_dims; i++) n *= (*out)->dims[i];
    b->parameters += n;
    return KH_OK;
}

static kh_status bind_slot(binding *b, kh_block *block, int layer, const slot *s)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%d.%s", layer, s->name);
    int required = s->part == 0 || (b->family->parts & s->part);
    if (!required && !(b->family->optional & s->part)) return KH_OK;
    const kh_tensor *tensor;
    KH_TRY(claim(b, &tensor, name, required));
    if (!tensor) return KH_OK;
    char *place = (char *)block + s->offset;
    if (s->is_vector)
        return kh_vector_bind((kh_vector *)(void *)place, b->arena, tensor, width(b->d, s->rows));
    return kh_weight_bind((kh_weight *)(void *)place, tensor, width(b->d, s->rows),
                          width(b->d, s->cols));
}

static kh_status bind_globals(binding *b, kh_weights *w)
{
    const kh_tensor *tensor;
    size_t D = (size_t)b->d->D, V = (size_t)b->d->V;
    KH_TRY(claim(b, &tensor, "token_embd.weight", 1));
    KH_TRY(kh_weight_bind(&w->embedding, tensor, V, D));
    KH_TRY(claim(b, &tensor, "output.weight", 0));
    w->tied = !tensor;
    w->head = w->embedding;
    if (tensor) KH_TRY(kh_weight_bind(&w->head, tensor, V, D));
    KH_TRY(claim(b, &tensor, "output_norm.weight", 1));
    KH_TRY(kh_vector_bind(&w->final_norm, b->arena, tensor, D));
    KH_TRY(claim(b, &tensor, "rope_freqs.weight", 0));
    if (tensor) KH_TRY(kh_vector_bind(&w->rope_factors, b->arena, tensor, b->d->rope[0].n_rot / 2));
    return KH_OK;
}

/* Is this the name, as it would be written here, of a slot that the family reads? */
static int is_slot(const binding *b, const char *name)
{
    unsigned parts = b->family->parts | b->family->optional;
    char *rest = NULL, again[64];
    if (strncmp(name, "blk.", 4) != 0) return 0;
    long layer = strtol(name + 4, &rest, 10);
    if (layer < 0 || layer >= b->d->N || *rest != '.') return 0;
    for (int s = 0; s < SLOTS; s++) {
        snprintf(again, sizeof again, "blk.%ld.%s", layer, slots[s].name);
        if (strcmp(name, again) == 0) return slots[s].part == 0 || (parts & slots[s].part) != 0;
    }
    return 0;
}

/* Names the first tensor that no slot claims. */
static kh_status refuse_unclaimed(const binding *b)
{
    static const char *const globals[] = {"token_embd.weight", "output.weight",
                                          "output_norm.weight", "rope_freqs.weight"};
    for (size_t i = 0; i < kh_gguf_tensor_count(b->file); i++) {
        const char *name = kh_gguf_tensor_at(b->file, i)->name;
        int known = is_slot(b, name);
        for (size_t g = 0; g < sizeof globals / sizeof *globals; g++)
            known |= strcmp(name, globals[g]) == 0;
        if (!known)
            KH_FAIL(KH_ERR_UNSUPPORTED,
                    "the tensor %s is not part of a %s model as it is known here: this variant is "
                    "not supported",
                    name, b->family->name);
    }
    return KH_OK;
}

kh_status kh_bind(kh_weights *out, kh_arena *arena, const kh_family *family,
                  const kh_description *d, const kh_gguf *file)
{
    *out = (kh_weights){0};
    binding b = {arena, family, d, file, 0, 0};
    KH_TRY(bind_globals(&b, out));
    KH_TRY(kh_arena_new(arena, &out->blocks, (size_t)d->N, sizeof *out->blocks));
    memset(out->blocks, 0, (size_t)d->N * sizeof *out->blocks);
    for (int layer = 0; layer < d->N; layer++)
        for (int s = 0; s < SLOTS; s++)
            KH_TRY(bind_slot(&b, &out->blocks[layer], layer, &slots[s]));
    if (b.claimed != kh_gguf_tensor_count(file)) KH_TRY(refuse_unclaimed(&b));
    out->parameters = b.parameters;
    return KH_OK;
}
