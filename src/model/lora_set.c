/* An adapter in memory, and its place in a model.
 *
 * Parts are checked against the tensors of the file that the model was opened from, so merging (which knows
 * tensors) and running (which knows weights) refuse the same adapters. They are F32, as the products with
 * them: an adapter is about a hundredth of its model.
 *
 *     part of blk.0.attn_qkv.weight    A [r][D]   B [ q rows | k rows | v rows ][r]
 *     nodes                            q: A, B    k: A, B + q rows    v: A, B + ...
 *
 * Attaching follows a weight's data to the tensor that it lies in: where one tensor is several weights,
 * each gets the rows of B that are its own. Weights only point to nodes; counting and allocating come
 * first, linking cannot fail, so a model has all of an adapter or nothing.
 *
 * The head is "output.weight" even where it is the embedding: PEFT adapts the two modules one by one, and
 * a part of the embedding never reaches the head. */
#include "model/lora_set.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "format/safetensors.h"
#include "model/hf.h"
#include "model/slots.h"
#include "ops/lora.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

kh_status kh_lora_new(kh_lora_set **out, const char *path)
{
    kh_lora_set *set;
    *out = NULL;
    KH_TRY(kh_new(&set, 1, sizeof *set, "an adapter"));
    set->format = "GGUF";
    set->path = kh_strdup(path);
    if (!set->path) {
        kh_lora_close(set);
        KH_FAIL(KH_ERR_MEMORY, "no memory for the name of an adapter");
    }
    *out = set;
    return KH_OK;
}

void kh_lora_close(kh_lora_set *set)
{
    if (!set) return;
    for (size_t i = 0; i < set->count; i++) {
        kh_free(set->parts[i].tensor);
        kh_free(set->parts[i].own);
    }
    kh_free(set->parts);
    kh_free(set->nodes);
    kh_free(set->path);
    kh_free(set);
}

kh_status kh_lora_open(kh_lora_set **out, const kh_gguf *base, const char *path)
{
    kh_lora_set *set;
    *out = NULL;
    KH_TRY(kh_lora_new(&set, path));
    kh_status status = kh_hf_is(path) ? kh_lora_open_peft(set, base) : kh_lora_open_gguf(set, base);
    if (status == KH_OK && set->count == 0) status = kh_fail(KH_ERR_FORMAT, "the adapter is empty");
    if (status != KH_OK) {
        if (!strstr(kh_last_error(), path)) status = kh_fail_context(status, "%s", path);
        kh_lora_close(set);
        return status;
    }
    *out = set;
    return KH_OK;
}

/* ---- parts */

/* The tensor that a part changes; a tied head has the embedding's. */
static const kh_tensor *tensor_of(const kh_gguf *base, const char *name)
{
    const kh_tensor *found = kh_gguf_tensor(base, name);
    if (!found && strcmp(name, KH_LORA_HEAD) == 0) found = kh_gguf_tensor(base, KH_LORA_EMBEDDING);
    return found;
}

static kh_status refuse_kind(const char *tensor, const kh_tensor *t)
{
    static const char *const others[] = {"_norm", "attn_rel_b", "rope_f", "position_embd",
                                         "token_types"};
    if (t->dims[2] > 1 || strstr(tensor, "_exps."))
        KH_FAIL(KH_ERR_UNSUPPORTED, "tensor %s: adapters of experts are not supported", tensor);
    int matrix = t->dims[1] > 1;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strstr(tensor, others[i])) matrix = 0;
    if (!matrix)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "tensor %s: adapters are supported for the matrices of layers, the head and the "
                "token embedding",
                tensor);
    return KH_OK;
}

kh_status kh_lora_check(const kh_lora_set *set, const kh_gguf *base, const char *tensor,
                        uint64_t rows, uint64_t cols, uint64_t r_of_a, uint64_t r_of_b)
{
    const kh_tensor *t = tensor_of(base, tensor);
    if (!t)
        KH_FAIL(KH_ERR_FORMAT,
                "tensor %s: %s has no such tensor: the adapter was made for another model", tensor,
                kh_gguf_path(base));
    KH_TRY(refuse_kind(tensor, t));
    if (r_of_a != r_of_b)
        KH_FAIL(KH_ERR_FORMAT,
                "tensor %s: A has %" PRIu64 " rows and B has %" PRIu64
                " columns; both are r in one adapter",
                tensor, r_of_a, r_of_b);
    if (r_of_a < 1 || r_of_a > KH_LORA_MOST)
        KH_FAIL(KH_ERR_FORMAT, "tensor %s: r is expected to be 1 to %d, found %" PRIu64, tensor,
                KH_LORA_MOST, r_of_a);
    if (t->dims[1] != rows || t->dims[0] != cols)
        KH_FAIL(KH_ERR_FORMAT,
                "tensor %s: %" PRIu64 " x %" PRIu64
                " is expected by %s, found an adapter for %" PRIu64 " x %" PRIu64
                ": it was made for another model",
                tensor, t->dims[1], t->dims[0], kh_gguf_path(base), rows, cols);
    if (kh_lora_find(set, tensor))
        KH_FAIL(KH_ERR_FORMAT, "tensor %s: the adapter has it twice", tensor);
    return KH_OK;
}

kh_status kh_lora_finite(const float *numbers, size_t n, const char *tensor)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(numbers[i]))
            KH_FAIL(KH_ERR_FORMAT, "tensor %s: element %zu is %g; finite numbers are expected",
                    tensor, i, (double)numbers[i]);
    return KH_OK;
}

kh_status kh_lora_add(kh_lora_set *set, const kh_gguf *base, const char *tensor, size_t r,
                      double alpha, const float *a, const float *b)
{
    const kh_tensor *t = tensor_of(base, tensor);
    size_t rows = t ? (size_t)t->dims[1] : 0, cols = t ? (size_t)t->dims[0] : 0;
    KH_TRY(kh_lora_check(set, base, tensor, rows, cols, r, r));
    if (!isfinite(alpha))
        KH_FAIL(KH_ERR_FORMAT, "tensor %s: alpha is expected to be finite, found %g", tensor,
                alpha);
    KH_TRY(kh_grow(&set->parts, set->count, &set->room, sizeof *set->parts, "an adapter"));
    kh_lora_part part = {.rows = rows, .cols = cols, .r = r, .alpha = alpha, .a = a, .b = b};
    part.numbers = (uint64_t)r * (rows + cols);
    if (!a) KH_TRY(kh_new(&part.own, (size_t)part.numbers, sizeof *part.own, "an adapter"));
    part.tensor = kh_strdup(tensor);
    if (!part.tensor) {
        kh_free(part.own);
        KH_FAIL(KH_ERR_MEMORY, "no memory for the name of a tensor");
    }
    if (!a) {
        part.a = part.own;
        part.b = part.own + r * cols;
    }
    set->parts[set->count++] = part;
    return KH_OK;
}

float *kh_lora_a(kh_lora_part *part)
{
    return part->own;
}

float *kh_lora_b(kh_lora_part *part)
{
    return part->own + part->r * part->cols;
}

const kh_lora_part *kh_lora_find(const kh_lora_set *set, const char *tensor)
{
    for (size_t i = 0; i < set->count; i++)
        if (strcmp(set->parts[i].tensor, tensor) == 0) return &set->parts[i];
    return NULL;
}

kh_lora kh_lora_of(const kh_lora_part *part, double strength)
{
    return (kh_lora){.scale = (float)(strength * part->alpha / (double)part->r),
                     .r = part->r,
                     .a = part->a,
                     .b = part->b};
}

/* Most parts agree; where they do not, the earliest of the most frequent. */
static size_t usual(const kh_lora_set *set, int alphas)
{
    size_t best = 0, most = 0;
    for (size_t i = 0; i < set->count; i++) {
        size_t same = 0;
        for (size_t k = 0; k < set->count; k++)
            same += alphas ? set->parts[k].alpha == set->parts[i].alpha
                           : set->parts[k].r == set->parts[i].r;
        if (same > most) best = i;
        if (same > most) most = same;
    }
    return best;
}

double kh_lora_usual_alpha(const kh_lora_set *set)
{
    return set->count ? set->parts[usual(set, 1)].alpha : 1;
}

size_t kh_lora_usual_rank(const kh_lora_set *set)
{
    return set->count ? set->parts[usual(set, 0)].r : 1;
}

/* ---- weights */

typedef struct linking {
    const kh_lora_set *set;
    const kh_gguf *base;
    double strength;
    kh_lora *nodes; /* NULL: they are counted */
    size_t count;
    size_t *hits; /* [parts] how many weights each found */
} linking;

static void link_weight(linking *l, kh_weight *w, const char *name)
{
    if (!w->name) return;
    for (size_t i = 0; i < l->set->count; i++) {
        const kh_lora_part *part = &l->set->parts[i];
        if (strcmp(part->tensor, name ? name : w->name) != 0) continue;
        size_t at = l->count++;
        l->hits[i]++;
        if (!l->nodes) continue;
        const char *whole = tensor_of(l->base, part->tensor)->data;
        size_t first = (size_t)((const char *)w->data - whole) / w->row_bytes;
        kh_lora *node = &l->nodes[at];
        *node = kh_lora_of(part, l->strength);
        node->b += first * part->r;
        node->next = w->lora;
        w->lora = node;
    }
}

/* Every matrix of the tables that binding follows. */
static void link_slots(linking *l, void *base, const kh_slot *slots, int count)
{
    for (int i = 0; i < count; i++) {
        kh_weight *w = (kh_weight *)(void *)((char *)base + slots[i].offset);
        if (slots[i].kind != KH_SLOT_MATRIX) continue;
        link_weight(l, w, strcmp(slots[i].name, KH_LORA_HEAD) == 0 ? KH_LORA_HEAD : NULL);
    }
}

static void link_model(linking *l, kh_weights *w)
{
    kh_stack *stacks[] = {&w->encoder, &w->stack};
    l->count = 0;
    memset(l->hits, 0, l->set->count * sizeof *l->hits);
    link_slots(l, w, kh_model_slots, kh_model_slot_count);
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < stacks[s]->N; i++)
            link_slots(l, &stacks[s]->blocks[i], kh_block_slots, kh_block_slot_count);
}

static kh_status check_hits(const linking *l)
{
    for (size_t i = 0; i < l->set->count; i++)
        if (l->hits[i] == 0)
            KH_FAIL(KH_ERR_UNSUPPORTED, "tensor %s: no product of the model reads it",
                    l->set->parts[i].tensor);
    return KH_OK;
}

kh_status kh_lora_attach(kh_lora_set *set, kh_weights *weights, const kh_gguf *base,
                         double strength)
{
    linking l = {.set = set, .base = base, .strength = strength};
    if (set->nodes) KH_FAIL(KH_ERR_STATE, "%s: the adapter is attached already", set->path);
    KH_TRY(kh_new(&l.hits, set->count + 1, sizeof *l.hits, "an adapter"));
    link_model(&l, weights);
    kh_status status = check_hits(&l);
    if (status == KH_OK)
        status = kh_new(&set->nodes, l.count + 1, sizeof *set->nodes, "an adapter");
    l.nodes = set->nodes;
    if (status == KH_OK) link_model(&l, weights);
    kh_free(l.hits);
    return status;
}

/* ---- merging */

static int reads_embedding_twice(const kh_gguf *base)
{
    kh_slice arch = {"", 0};
    if (kh_gguf_tensor(base, KH_LORA_HEAD)) return 0;
    if (kh_gguf_opt_string(base, "general.architecture", &arch) != KH_OK) return 1;
    const kh_family *family = kh_family_find(arch.data, arch.size);
    return !family || family->structure != KH_ENCODER || kh_gguf_tensor(base, "mask_dense.weight");
}

kh_status kh_lora_merge_check(const kh_lora_merge *merge, const kh_gguf *base)
{
    for (size_t i = 0; i < merge->count; i++) {
        const kh_lora_set *set = merge->sets[i];
        const kh_lora_part *part = kh_lora_find(set, KH_LORA_HEAD);
        if (!part) part = kh_lora_find(set, KH_LORA_EMBEDDING);
        if (part && reads_embedding_twice(base))
            KH_FAIL(
                KH_ERR_UNSUPPORTED,
                "%s: the adapter changes %s, but the model's head is its embedding: this cannot "
                "be merged into one tensor",
                set->path, strcmp(part->tensor, KH_LORA_HEAD) == 0 ? "the head" : "the embedding");
    }
    return KH_OK;
}

int kh_lora_merge_has(const kh_lora_merge *merge, const char *tensor)
{
    for (size_t i = 0; merge && i < merge->count; i++)
        if (kh_lora_find(merge->sets[i], tensor)) return 1;
    return 0;
}

void kh_lora_merge_rows(const kh_lora_merge *merge, const char *tensor, float *rows, size_t first,
                        size_t count, size_t cols)
{
    for (size_t i = 0; i < merge->count; i++) {
        const kh_lora_part *part = kh_lora_find(merge->sets[i], tensor);
        if (!part) continue;
        kh_lora lora = kh_lora_of(part, (double)merge->strengths[i]);
        kh_lora_add_rows(&lora, rows, first, count, cols);
    }
}
