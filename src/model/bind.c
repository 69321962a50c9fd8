/* Tensors find their slots.
 *
 * The tables of slots are in model/slots.c; a family says which parts its files must and may have. Every
 * tensor of the file has to be claimed by a slot: an unclaimed one belongs to a variant that this forward pass
 * would run wrongly, so it is refused by name rather than ignored.
 *
 *     blk.N.SLOT        the only stack, or a decoder's
 *     enc.blk.N.SLOT    dec.blk.N.SLOT        where there are both; some slots have another name there
 *
 * Projections that a file keeps in one tensor (q, k, v; gate and up) are rows of it, so they become
 * several weights without a copy, whatever the type.
 *
 * Matrices stay in the mapping. Vectors (gains, biases) are few and small: they are converted to f32
 * into the model's arena. */
#include "base/alloc.h"
#include "base/fail.h"
#include "model/slots.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef struct binding {
    kh_arena *arena;
    const kh_family *family;
    const kh_description *d;
    const kh_gguf *file;
    kh_sizes sizes;
    unsigned parts, optional;
    const kh_tensor **claimed; /* [tensors of the file] */
    size_t count;
    uint64_t parameters;
} binding;

static size_t dim_of(const kh_gguf *file, const char *name, int dim)
{
    const kh_tensor *tensor = kh_gguf_tensor(file, name);
    return tensor ? (size_t)tensor->dims[dim] : 0;
}

static kh_sizes sizes_of(const kh_gguf *file)
{
    kh_sizes s = {.context = dim_of(file, "position_embd.weight", 1),
                  .types = dim_of(file, "token_types.weight", 1),
                  .features = dim_of(file, "cls.weight", 0),
                  .dense = dim_of(file, "cls.weight", 1),
                  .inner = dim_of(file, "cls.inner.weight", 1),
                  .classes = dim_of(file, "cls.output.weight", 1)};
    if (!s.features) s.features = dim_of(file, "cls.output.weight", 0);
    return s;
}

static size_t width(const binding *b, uint8_t w)
{
    return kh_slot_width(b->d, &b->sizes, w);
}

/* *out NULL when the tensor is absent and may be. */
static kh_status claim(binding *b, const kh_tensor **out, const char *name, int required)
{
    *out = kh_gguf_tensor(b->file, name);
    if (!*out && required)
        KH_FAIL(KH_ERR_FORMAT, "the file has no tensor %s, which a %s model needs", name,
                b->family->name);
    if (!*out) return KH_OK;
    b->claimed[b->count++] = *out;
    uint64_t n = 1;
    for (int i = 0; i < (*out)->n_dims; i++) n *= (*out)->dims[i];
    b->parameters += n;
    return KH_OK;
}

static kh_status bind_slot(binding *b, void *base, const char *name, const kh_slot *s)
{
    char *place = (char *)base + s->offset;
    int required = (b->parts & s->parts) == s->parts;
    if (!required && ((b->parts | b->optional) & s->parts) != s->parts) return KH_OK;
    if (s->kind == KH_SLOT_VECTOR ? ((kh_vector *)(void *)place)->data != NULL
                                  : ((kh_weight *)(void *)place)->name != NULL)
        return KH_OK; /* part of a tensor that was bound before */
    const kh_tensor *tensor;
    KH_TRY(claim(b, &tensor, name, required));
    if (!tensor) return KH_OK;
    size_t rows = width(b, s->rows);
    if (s->kind == KH_SLOT_VECTOR)
        return kh_vector_bind((kh_vector *)(void *)place, b->arena, tensor, rows);
    return kh_weight_bind_stack((kh_weight *)(void *)place, tensor,
                                s->kind == KH_SLOT_EXPERTS ? (size_t)b->d->experts.count : 1, rows,
                                width(b, s->cols));
}

/* ---- tensors that hold several weights */

static kh_vector part_of(const kh_vector *whole, size_t first, size_t n)
{
    return (kh_vector){.data = whole->data + first, .n = n};
}

static kh_status bind_qkv(binding *b, kh_attn_weights *w, const char *prefix)
{
    char name[80];
    size_t HE = width(b, KH_W_HE), GE = width(b, KH_W_GE);
    const kh_tensor *tensor;
    snprintf(name, sizeof name, "%sattn_qkv.weight", prefix);
    KH_TRY(claim(b, &tensor, name, 0));
    if (!tensor) return KH_OK;
    kh_weight whole;
    KH_TRY(kh_weight_bind(&whole, tensor, HE + 2 * GE, width(b, KH_W_D)));
    w->q = kh_weight_rows(&whole, 0, HE);
    w->k = kh_weight_rows(&whole, HE, GE);
    w->v = kh_weight_rows(&whole, HE + GE, GE);
    if (!((b->parts | b->optional) & KH_PART_QKV_BIAS)) return KH_OK;
    snprintf(name, sizeof name, "%sattn_qkv.bias", prefix);
    KH_TRY(claim(b, &tensor, name, (b->parts & KH_PART_QKV_BIAS) != 0));
    if (!tensor) return KH_OK;
    kh_vector bias;
    KH_TRY(kh_vector_bind(&bias, b->arena, tensor, HE + 2 * GE));
    w->q_bias = part_of(&bias, 0, HE);
    w->k_bias = part_of(&bias, HE, GE);
    w->v_bias = part_of(&bias, HE + GE, GE);
    return KH_OK;
}

static kh_status bind_gate_up(binding *b, kh_block *block, const char *prefix)
{
    char gate[80], up[80];
    snprintf(gate, sizeof gate, "%sffn_gate.weight", prefix);
    snprintf(up, sizeof up, "%sffn_up.weight", prefix);
    size_t F = width(b, KH_W_F);
    const kh_tensor *tensor = kh_gguf_tensor(b->file, up);
    if (!(b->parts & KH_PART_GATE) || kh_gguf_tensor(b->file, gate) || !tensor ||
        tensor->dims[1] != 2 * F)
        return KH_OK;
    KH_TRY(claim(b, &tensor, up, 1));
    kh_weight whole;
    KH_TRY(kh_weight_bind(&whole, tensor, 2 * F, width(b, KH_W_D)));
    block->gate = kh_weight_rows(&whole, 0, F);
    block->up = kh_weight_rows(&whole, F, F);
    return KH_OK;
}

static kh_status bind_relative(binding *b, kh_block *block, const char *prefix, int first)
{
    char name[80];
    size_t H = (size_t)b->d->H, buckets = (size_t)b->d->buckets;
    const kh_tensor *tensor;
    snprintf(name, sizeof name, "%sattn_rel_b.weight", prefix);
    if (!(b->parts & KH_PART_RELATIVE)) return KH_OK;
    KH_TRY(claim(b, &tensor, name, first));
    if (!tensor) return KH_OK;
    kh_tensor flat = *tensor;
    if (flat.dims[0] != H || flat.dims[1] != buckets)
        KH_FAIL(KH_ERR_FORMAT, "tensor %s: expected %zu x %zu, found %llu x %llu", name, H, buckets,
                (unsigned long long)flat.dims[0], (unsigned long long)flat.dims[1]);
    flat.dims[0] *= flat.dims[1];
    flat.dims[1] = 1;
    return kh_vector_bind(&block->relative, b->arena, &flat, H * buckets);
}

/* ---- blocks and the model */

static kh_status check_ff(const binding *b, const kh_block *block, const char *prefix)
{
    int dense = block->up.name && block->down.name;
    if (!dense && !block->experts.router.name)
        KH_FAIL(KH_ERR_FORMAT,
                "the file has neither %sffn_up.weight nor %sffn_gate_inp.weight, one of which a "
                "%s model needs",
                prefix, prefix, b->family->name);
    const kh_expert_weights *x = &block->experts;
    if (x->router.name && !(x->gate.name && x->up.name && x->down.name))
        KH_FAIL(KH_ERR_FORMAT, "the file has a router %sffn_gate_inp.weight without experts",
                prefix);
    if (x->shared_up.name && !(x->shared_gate.name && x->shared_down.name))
        KH_FAIL(KH_ERR_FORMAT, "the file has %sffn_up_shexp.weight without gate or down", prefix);
    return KH_OK;
}

static kh_status bind_stack(binding *b, kh_stack *stack, const char *prefix, int layers)
{
    char at[32], name[80];
    unsigned parts = b->parts;
    int other = prefix[0] != 0;
    KH_TRY(kh_arena_new(b->arena, &stack->blocks, (size_t)layers, sizeof *stack->blocks));
    memset(stack->blocks, 0, (size_t)layers * sizeof *stack->blocks);
    stack->N = layers;
    if (prefix[0] == 'e') b->parts &= ~(unsigned)KH_PART_CROSS;
    for (int layer = 0; layer < layers; layer++) {
        kh_block *block = &stack->blocks[layer];
        snprintf(at, sizeof at, "%sblk.%d.", prefix, layer);
        KH_TRY(bind_qkv(b, &block->self, at));
        KH_TRY(bind_gate_up(b, block, at));
        KH_TRY(bind_relative(b, block, at, layer == 0));
        for (int s = 0; s < kh_block_slot_count; s++) {
            const kh_slot *it = &kh_block_slots[s];
            snprintf(name, sizeof name, "%s%s", at, other && it->other ? it->other : it->name);
            KH_TRY(bind_slot(b, block, name, it));
        }
        KH_TRY(check_ff(b, block, at));
    }
    b->parts = parts;
    return KH_OK;
}

/* Widths come from the tensors themselves; here they are held against each other and the model's. */
static kh_status check_classes(const binding *b)
{
    const kh_sizes *s = &b->sizes;
    size_t D = (size_t)b->d->D;
    if (!s->classes && !s->dense && !s->inner) return KH_OK;
    if (!s->classes || (s->inner && !s->dense))
        KH_FAIL(KH_ERR_FORMAT, "the file has a part of a head for classes, but no %s",
                s->classes ? "cls.weight" : "cls.output.weight");
    if (s->features != D && s->features != 2 * D && s->features != 4 * D)
        KH_FAIL(KH_ERR_FORMAT,
                "tensor %s: %zu inputs are expected, or %zu or %zu for pairs of texts, found %zu",
                s->dense ? "cls.weight" : "cls.output.weight", D, 2 * D, 4 * D, s->features);
    return KH_OK;
}

static kh_status bind_model(binding *b, kh_weights *w)
{
    const kh_description *d = b->d;
    int other = d->structure == KH_ENCODER_DECODER;
    KH_TRY(check_classes(b));
    for (int s = 0; s < kh_model_slot_count; s++) {
        const kh_slot *it = &kh_model_slots[s];
        KH_TRY(bind_slot(b, w, other && it->other ? it->other : it->name, it));
    }
    w->tied = !w->head.name;
    if (w->tied) w->head = w->embedding;
    if (other) KH_TRY(bind_stack(b, &w->encoder, "enc.", d->encoder_layers));
    return bind_stack(b, &w->stack, other ? "dec." : b->parts & KH_PART_ALONE ? "enc." : "", d->N);
}

/* Names the first tensor that no slot claims. */
static kh_status refuse_unclaimed(const binding *b)
{
    for (size_t i = 0; i < kh_gguf_tensor_count(b->file); i++) {
        const kh_tensor *tensor = kh_gguf_tensor_at(b->file, i);
        int known = 0;
        for (size_t c = 0; c < b->count && !known; c++) known = b->claimed[c] == tensor;
        if (!known)
            KH_FAIL(KH_ERR_UNSUPPORTED,
                    "the tensor %s is not part of a %s model as it is known here: this variant is "
                    "not supported",
                    tensor->name, b->family->name);
    }
    return KH_OK;
}

kh_status kh_bind(kh_weights *out, kh_arena *arena, const kh_family *family,
                  const kh_description *d, const kh_gguf *file)
{
    *out = (kh_weights){0};
    binding b = {.arena = arena,
                 .family = family,
                 .d = d,
                 .file = file,
                 .sizes = sizes_of(file),
                 .parts = family->parts,
                 .optional = family->optional | KH_PART_CLASSES};
    unsigned dense = KH_PART_FF | KH_PART_GATE;
    if (d->experts.count > 0) {
        b.parts &= ~dense;
        b.optional |= dense | KH_PART_EXPERTS;
    } else {
        b.optional &= ~(unsigned)(KH_PART_EXPERTS | KH_PART_SHARED);
    }
    size_t tensors = kh_gguf_tensor_count(file);
    KH_TRY(kh_new(&b.claimed, tensors + 1, sizeof *b.claimed, "the tensors' slots"));
    kh_status status = bind_model(&b, out);
    if (status == KH_OK && b.count != tensors) status = refuse_unclaimed(&b);
    kh_free(b.claimed);
    out->parameters = b.parameters;
    return status;
}

size_t kh_bind_need(const kh_description *d, const kh_gguf *file)
{
    size_t size = kh_arena_need((size_t)d->N * sizeof(kh_block)) +
                  kh_arena_need((size_t)d->encoder_layers * sizeof(kh_block));
    for (size_t i = 0; i < kh_gguf_tensor_count(file); i++) {
        const kh_tensor *t = kh_gguf_tensor_at(file, i);
        /* some writers give a vector a second dimension of 1 */
        if (t->dims[1] * t->dims[2] * t->dims[3] == 1)
            size += kh_arena_need(t->dims[0] * sizeof(float));
        if (strstr(t->name, "attn_rel_b"))
            size += 2 * kh_arena_need((size_t)d->H * (size_t)d->buckets * sizeof(float));
    }
    return size;
}
