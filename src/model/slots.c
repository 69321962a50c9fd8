/* Which tensors a model has.
 *
 * GGUF gives the same names to all families, so there are two tables of slots, of the model and of a block; a
 * slot belongs to parts, and a family says which parts its files must and may have. Binding (model/bind.c)
 * walks the tables over the tensors of a file; kh_slots_list walks them over the numbers of a model that
 * does not exist yet, so that what is made from nothing is what will be read.
 *
 * Where a family's files keep q, k and v in one tensor, or gate and up, the table of its Hugging Face folders
 * says so; binding takes either form. */
#include "model/slots.h"

#include "base/fail.h"
#include "model/hf.h"

#include <stdio.h>
#include <string.h>

#define BLOCK(field) offsetof(kh_block, field)
#define MODEL(field) offsetof(kh_weights, field)
#define NORM(text, other, at, part)                                                                \
    {text ".weight", other, at + offsetof(kh_norm, gain), part, KH_SLOT_VECTOR, KH_W_D, 0},        \
    {                                                                                              \
        text ".bias", NULL, at + offsetof(kh_norm, bias), (part) | KH_PART_NORM_BIAS,              \
            KH_SLOT_VECTOR, KH_W_D, 0                                                              \
    }

const kh_slot kh_block_slots[] = {
    NORM("attn_norm", NULL, BLOCK(attn_norm), KH_PART_PRE_NORM),
    {"attn_q_norm.weight", 0, BLOCK(self.q_norm), KH_PART_QK_NORM, KH_SLOT_VECTOR, KH_W_E, 0},
    {"attn_k_norm.weight", 0, BLOCK(self.k_norm), KH_PART_QK_NORM, KH_SLOT_VECTOR, KH_W_E, 0},
    {"attn_q.weight", 0, BLOCK(self.q), 0, KH_SLOT_MATRIX, KH_W_HE, KH_W_D},
    {"attn_k.weight", 0, BLOCK(self.k), 0, KH_SLOT_MATRIX, KH_W_GE, KH_W_D},
    {"attn_v.weight", 0, BLOCK(self.v), 0, KH_SLOT_MATRIX, KH_W_GE, KH_W_D},
    {"attn_output.weight", "attn_o.weight", BLOCK(self.o), 0, KH_SLOT_MATRIX, KH_W_D, KH_W_HE},
    {"attn_q.bias", 0, BLOCK(self.q_bias), KH_PART_QKV_BIAS, KH_SLOT_VECTOR, KH_W_HE, 0},
    {"attn_k.bias", 0, BLOCK(self.k_bias), KH_PART_QKV_BIAS, KH_SLOT_VECTOR, KH_W_GE, 0},
    {"attn_v.bias", 0, BLOCK(self.v_bias), KH_PART_QKV_BIAS, KH_SLOT_VECTOR, KH_W_GE, 0},
    {"attn_output.bias", 0, BLOCK(self.o_bias), KH_PART_OUT_BIAS, KH_SLOT_VECTOR, KH_W_D, 0},
    NORM("post_attention_norm", NULL, BLOCK(attn_out_norm), KH_PART_OUT_NORM),
    NORM("attn_output_norm", NULL, BLOCK(attn_post_norm), KH_PART_POST_NORM),
    NORM("cross_attn_norm", NULL, BLOCK(cross_norm), KH_PART_CROSS),
    {"cross_attn_q.weight", 0, BLOCK(cross.q), KH_PART_CROSS, KH_SLOT_MATRIX, KH_W_HE, KH_W_D},
    {"cross_attn_k.weight", 0, BLOCK(cross.k), KH_PART_CROSS, KH_SLOT_MATRIX, KH_W_GE, KH_W_D},
    {"cross_attn_v.weight", 0, BLOCK(cross.v), KH_PART_CROSS, KH_SLOT_MATRIX, KH_W_GE, KH_W_D},
    {"cross_attn_o.weight", 0, BLOCK(cross.o), KH_PART_CROSS, KH_SLOT_MATRIX, KH_W_D, KH_W_HE},
    NORM("ffn_norm", NULL, BLOCK(ffn_norm), KH_PART_PRE_NORM),
    {"ffn_gate.weight", 0, BLOCK(gate), KH_PART_FF | KH_PART_GATE, KH_SLOT_MATRIX, KH_W_F, KH_W_D},
    {"ffn_up.weight", 0, BLOCK(up), KH_PART_FF, KH_SLOT_MATRIX, KH_W_F, KH_W_D},
    {"ffn_down.weight", 0, BLOCK(down), KH_PART_FF, KH_SLOT_MATRIX, KH_W_D, KH_W_F},
    {"ffn_up.bias", 0, BLOCK(up_bias), KH_PART_FF | KH_PART_FF_BIAS, KH_SLOT_VECTOR, KH_W_F, 0},
    {"ffn_down.bias", 0, BLOCK(down_bias), KH_PART_FF | KH_PART_FF_BIAS, KH_SLOT_VECTOR, KH_W_D, 0},
    {"ffn_gate_inp.weight", 0, BLOCK(experts.router), KH_PART_EXPERTS, KH_SLOT_MATRIX, KH_W_X,
     KH_W_D},
    {"ffn_gate_exps.weight", 0, BLOCK(experts.gate), KH_PART_EXPERTS, KH_SLOT_EXPERTS, KH_W_XF,
     KH_W_D},
    {"ffn_up_exps.weight", 0, BLOCK(experts.up), KH_PART_EXPERTS, KH_SLOT_EXPERTS, KH_W_XF, KH_W_D},
    {"ffn_down_exps.weight", 0, BLOCK(experts.down), KH_PART_EXPERTS, KH_SLOT_EXPERTS, KH_W_D,
     KH_W_XF},
    {"ffn_gate_inp_shexp.weight", 0, BLOCK(experts.shared_router), KH_PART_SHARED, KH_SLOT_VECTOR,
     KH_W_D, 0},
    {"ffn_gate_shexp.weight", 0, BLOCK(experts.shared_gate), KH_PART_SHARED, KH_SLOT_MATRIX,
     KH_W_SF, KH_W_D},
    {"ffn_up_shexp.weight", 0, BLOCK(experts.shared_up), KH_PART_SHARED, KH_SLOT_MATRIX, KH_W_SF,
     KH_W_D},
    {"ffn_down_shexp.weight", 0, BLOCK(experts.shared_down), KH_PART_SHARED, KH_SLOT_MATRIX, KH_W_D,
     KH_W_SF},
    NORM("post_ffw_norm", NULL, BLOCK(ffn_out_norm), KH_PART_OUT_NORM),
    NORM("layer_output_norm", NULL, BLOCK(ffn_post_norm), KH_PART_POST_NORM),
};

const kh_slot kh_model_slots[] = {
    {"token_embd.weight", 0, MODEL(embedding), 0, KH_SLOT_MATRIX, KH_W_V, KH_W_D},
    {"position_embd.weight", 0, MODEL(positions), KH_PART_POSITIONS, KH_SLOT_MATRIX, KH_W_CONTEXT,
     KH_W_D},
    {"token_types.weight", 0, MODEL(types), KH_PART_TYPES, KH_SLOT_MATRIX, KH_W_TYPES, KH_W_D},
    NORM("token_embd_norm", NULL, MODEL(embed_norm), KH_PART_EMBED_NORM),
    NORM("output_norm", "dec.output_norm.weight", MODEL(stack.final_norm), KH_PART_FINAL_NORM),
    {"enc.output_norm.weight", 0, MODEL(encoder.final_norm.gain), KH_PART_CROSS, KH_SLOT_VECTOR,
     KH_W_D, 0},
    {"enc.output_norm.weight", 0, MODEL(stack.final_norm.gain), KH_PART_ALONE, KH_SLOT_VECTOR,
     KH_W_D, 0},
    {"output.weight", 0, MODEL(head), KH_PART_HEAD, KH_SLOT_MATRIX, KH_W_V, KH_W_D},
    {"rope_freqs.weight", 0, MODEL(rope_factors), KH_PART_ROPE, KH_SLOT_VECTOR, KH_W_ROT, 0},
    {"rope_factors_long.weight", 0, MODEL(rope_long), KH_PART_ROPE, KH_SLOT_VECTOR, KH_W_ROT, 0},
    {"rope_factors_short.weight", 0, MODEL(rope_short), KH_PART_ROPE, KH_SLOT_VECTOR, KH_W_ROT, 0},
    {"mask_dense.weight", 0, MODEL(mask_dense), KH_PART_MASK_HEAD, KH_SLOT_MATRIX, KH_W_D, KH_W_D},
    {"mask_dense.bias", 0, MODEL(mask_dense_bias), KH_PART_MASK_HEAD, KH_SLOT_VECTOR, KH_W_D, 0},
    NORM("mask_norm", NULL, MODEL(mask_norm), KH_PART_MASK_HEAD),
    {"output.bias", 0, MODEL(mask_bias), KH_PART_MASK_HEAD, KH_SLOT_VECTOR, KH_W_V, 0},
    {"span_output.weight", 0, MODEL(span), KH_PART_SPAN_HEAD, KH_SLOT_MATRIX, KH_W_2, KH_W_D},
    {"span_output.bias", 0, MODEL(span_bias), KH_PART_SPAN_HEAD, KH_SLOT_VECTOR, KH_W_2, 0},
    {"cls.weight", 0, MODEL(classes.dense), KH_PART_CLASSES, KH_SLOT_MATRIX, KH_W_DENSE,
     KH_W_FEATURES},
    {"cls.bias", 0, MODEL(classes.dense_bias), KH_PART_CLASSES, KH_SLOT_VECTOR, KH_W_DENSE, 0},
    {"cls.inner.weight", 0, MODEL(classes.inner), KH_PART_CLASSES, KH_SLOT_MATRIX, KH_W_INNER,
     KH_W_DENSE},
    {"cls.inner.bias", 0, MODEL(classes.inner_bias), KH_PART_CLASSES, KH_SLOT_VECTOR, KH_W_INNER,
     0},
    {"cls.output.weight", 0, MODEL(classes.out), KH_PART_CLASSES, KH_SLOT_MATRIX, KH_W_CLASSES,
     KH_W_LAST},
    {"cls.output.bias", 0, MODEL(classes.out_bias), KH_PART_CLASSES, KH_SLOT_VECTOR, KH_W_CLASSES,
     0},
};

const int kh_block_slot_count = sizeof kh_block_slots / sizeof *kh_block_slots;
const int kh_model_slot_count = sizeof kh_model_slots / sizeof *kh_model_slots;

size_t kh_slot_width(const kh_description *d, const kh_sizes *sizes, uint8_t w)
{
    switch ((enum kh_slot_width)w) {
    case KH_W_2: return 2;
    case KH_W_D: return (size_t)d->D;
    case KH_W_F: return (size_t)d->F;
    case KH_W_HE: return (size_t)d->H * (size_t)d->E;
    case KH_W_GE: return (size_t)d->G * (size_t)d->E;
    case KH_W_E: return (size_t)d->E;
    case KH_W_V: return (size_t)d->V;
    case KH_W_X: return (size_t)d->experts.count;
    case KH_W_XF: return (size_t)d->experts.F;
    case KH_W_SF: return (size_t)d->experts.shared_F;
    case KH_W_ROT: return d->rope[0].n_rot / 2;
    case KH_W_CONTEXT: return sizes->context;
    case KH_W_TYPES: return sizes->types;
    case KH_W_FEATURES: return sizes->features;
    case KH_W_DENSE: return sizes->dense;
    case KH_W_INNER: return sizes->inner;
    case KH_W_LAST:
        return sizes->inner ? sizes->inner : sizes->dense ? sizes->dense : sizes->features;
    case KH_W_CLASSES: return sizes->classes;
    }
    return 0;
}

/* ---- the tensors of a model that is described */

typedef struct lister {
    const kh_family *family;
    const kh_description *d;
    const kh_sizes *sizes;
    unsigned parts;
    int fused_qkv, fused_gate;
    kh_status (*take)(void *context, const kh_slot_tensor *tensor);
    void *context;
    int residuals; /* of a layer of the stack: how often something is added to the residual stream */
    int layers;    /* of the stack; 0: none */
} lister;

/* A tensor of one to three matrices, one below the other. */
static kh_status give(const lister *l, const char *name, uint8_t kind, const size_t rows[3],
                      size_t cols)
{
    kh_slot_tensor t = {.name = name, .n_dims = 1, .layers = l->layers, .residuals = l->residuals};
    size_t all = rows[0] + rows[1] + rows[2];
    if (kind == KH_SLOT_VECTOR) {
        t.dims[0] = all;
        t.dims[1] = t.dims[2] = 1;
    } else {
        t.n_dims = kind == KH_SLOT_EXPERTS ? 3 : 2;
        t.dims[0] = cols;
        t.dims[1] = all;
        t.dims[2] = kind == KH_SLOT_EXPERTS ? (size_t)l->d->experts.count : 1;
    }
    memcpy(t.rows, rows, sizeof t.rows);
    return all == 0 || t.dims[0] == 0 ? KH_OK : l->take(l->context, &t);
}

static kh_status give_slot(const lister *l, const char *name, const kh_slot *s)
{
    if ((l->parts & s->parts) != s->parts) return KH_OK;
    const size_t rows[3] = {kh_slot_width(l->d, l->sizes, s->rows)};
    return give(l, name, s->kind, rows, kh_slot_width(l->d, l->sizes, s->cols));
}

static int is_one_of(const kh_slot *s, const char *const *names)
{
    for (; *names; names++)
        if (strcmp(s->name, *names) == 0) return 1;
    return 0;
}

static int is_fused(const lister *l, const kh_slot *s)
{
    static const char *const qkv[] = {"attn_q.weight",
                                      "attn_k.weight",
                                      "attn_v.weight",
                                      "attn_q.bias",
                                      "attn_k.bias",
                                      "attn_v.bias",
                                      NULL};
    static const char *const gate[] = {"ffn_gate.weight", "ffn_up.weight", NULL};
    return (l->fused_qkv && is_one_of(s, qkv)) || (l->fused_gate && is_one_of(s, gate));
}

static kh_status give_fused(const lister *l, const char *at)
{
    char name[80];
    size_t HE = (size_t)l->d->H * (size_t)l->d->E, GE = (size_t)l->d->G * (size_t)l->d->E;
    size_t F = (size_t)l->d->F, D = (size_t)l->d->D;
    const size_t qkv[3] = {HE, GE, GE}, gate_up[3] = {F, F};
    if (l->fused_qkv) {
        snprintf(name, sizeof name, "%sattn_qkv.weight", at);
        KH_TRY(give(l, name, KH_SLOT_MATRIX, qkv, D));
        snprintf(name, sizeof name, "%sattn_qkv.bias", at);
        if (l->parts & KH_PART_QKV_BIAS) KH_TRY(give(l, name, KH_SLOT_VECTOR, qkv, 0));
    }
    snprintf(name, sizeof name, "%sffn_up.weight", at);
    return l->fused_gate ? give(l, name, KH_SLOT_MATRIX, gate_up, D) : KH_OK;
}

static kh_status list_stack(lister *l, const char *prefix, int layers)
{
    char at[32], name[80];
    unsigned parts = l->parts;
    int other = prefix[0] != 0;
    if (prefix[0] == 'e') l->parts &= ~(unsigned)KH_PART_CROSS;
    l->layers = layers;
    l->residuals = l->parts & KH_PART_CROSS ? 3 : 2;
    for (int layer = 0; layer < layers; layer++) {
        const size_t buckets[3] = {(size_t)l->d->buckets};
        snprintf(at, sizeof at, "%sblk.%d.", prefix, layer);
        KH_TRY(give_fused(l, at));
        snprintf(name, sizeof name, "%sattn_rel_b.weight", at);
        if (layer == 0 && (l->parts & KH_PART_RELATIVE))
            KH_TRY(give(l, name, KH_SLOT_MATRIX, buckets, (size_t)l->d->H));
        for (int s = 0; s < kh_block_slot_count; s++) {
            const kh_slot *it = &kh_block_slots[s];
            if (is_fused(l, it)) continue;
            snprintf(name, sizeof name, "%s%s", at, other && it->other ? it->other : it->name);
            KH_TRY(give_slot(l, name, it));
        }
    }
    l->parts = parts;
    l->layers = l->residuals = 0;
    return KH_OK;
}

/* Does the family's table of folders name this tensor, and begin its shape with this letter? */
static int has_row(const kh_family *family, const char *to, char letter)
{
    if (!family->hf) return 0;
    for (const kh_hf_tensor *row = family->hf->tensors; row->from; row++)
        if (row->to && strcmp(row->to, to) == 0 && row->shape[0] == letter) return 1;
    return 0;
}

kh_status kh_slots_list(const kh_family *family, const kh_description *d, const kh_sizes *sizes,
                        unsigned parts,
                        kh_status (*take)(void *context, const kh_slot_tensor *tensor),
                        void *context)
{
    lister l = {.family = family,
                .d = d,
                .sizes = sizes,
                .parts = family->parts | parts,
                .take = take,
                .context = context};
    /* PyTorch's and Conv1D's order */
    l.fused_qkv = has_row(family, "blk.#.attn_qkv", 'A') || has_row(family, "blk.#.attn_qkv", 'D');
    l.fused_gate = has_row(family, "blk.#.ffn_up", 'U');
    int other = d->structure == KH_ENCODER_DECODER;
    if (d->experts.count > 0) {
        l.parts &= ~(unsigned)(KH_PART_FF | KH_PART_GATE);
        l.parts |= KH_PART_EXPERTS;
    }
    for (int s = 0; s < kh_model_slot_count; s++) {
        const kh_slot *it = &kh_model_slots[s];
        KH_TRY(give_slot(&l, other && it->other ? it->other : it->name, it));
    }
    if (other) KH_TRY(list_stack(&l, "enc.", d->encoder_layers));
    return list_stack(&l, other ? "dec." : l.parts & KH_PART_ALONE ? "enc." : "", d->N);
}
