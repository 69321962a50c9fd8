/* Tensors of a folder -> tensors under GGUF's names.
 *
 * The family's table is walked row by row and layer by layer; each row asks for a name (behind the
 * prefixes that its folders use: "model.layers.0...", or without), holds the shape that is found
 * against the one that config.json gives, and adds a GGUF tensor. Every tensor of the folder has to be
 * taken by a row or be known as not needed: one that no row takes belongs to a variant that would run
 * wrongly, so it is refused by name.
 *
 * Most tensors stay where they are, in the mapped files. A copy is made where GGUF wants another
 * order or other numbers (hf_transform.c), where one GGUF tensor is many of the folder's (experts),
 * and where the file put an element across an alignment. Pages that were read for a copy are given
 * back at once: what a folder costs is its copies and what is computed with. */
#include "base/alloc.h"
#include "base/fail.h"
#include "format/gguf_part.h"
#include "model/hf_impl.h"

#include <stdio.h>
#include <string.h>

enum { NAME = KH_HF_NAME, SHAPE = 128 };

/* ---- sizes ---- */

kh_status kh_hf_read_sizes(kh_hf *hf)
{
    static const struct {
        char letter;
        const char *key;
    } keys[] = {{'D', "embedding_length"},
                {'V', "vocab_size"},
                {'F', "feed_forward_length"},
                {'H', "attention.head_count"},
                {'G', "attention.head_count_kv"},
                {'E', "attention.key_length"},
                {'X', "expert_count"},
                {'M', "expert_feed_forward_length"},
                {'S', "expert_shared_feed_forward_length"},
                {'P', "context_length"},
                {'T', "tokenizer.ggml.token_type_count"},
                {'B', "attention.relative_buckets_count"},
                {'N', "block_count"},
                {'n', "decoder_block_count"}};
    uint64_t *size = hf->sizes;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        KH_TRY(kh_hf_value(hf, keys[i].key, &size[(unsigned char)keys[i].letter]));
    if (size['H'] == 0 || size['N'] > KH_MAX_LAYERS || size['n'] > KH_MAX_LAYERS ||
        size['X'] > (1 << 16))
        KH_FAIL(KH_ERR_FORMAT,
                "%s: at least one head, at most %d layers and %d experts are expected, found %llu "
                "heads, %llu layers, %llu experts",
                hf->config, KH_MAX_LAYERS, 1 << 16, (unsigned long long)size['H'],
                (unsigned long long)(size['N'] > size['n'] ? size['N'] : size['n']),
                (unsigned long long)size['X']);
    if (size['G'] == 0) size['G'] = size['H'];
    if (size['E'] == 0) size['E'] = size['D'] / size['H'];
    if (size['M'] == 0) size['M'] = size['F'];
    if (size['n'] == 0) size['n'] = size['N'];
    size['Q'] = size['H'] * size['E'];
    size['K'] = size['G'] * size['E'];
    size['A'] = size['Q'] + 2 * size['K'];
    size['U'] = 2 * size['F'];
    size['P'] += hf->skipped_positions;
    size['1'] = 1;
    size['2'] = 2;
    return KH_OK;
}

/* ---- names ---- */

/* `from` with the layer and the expert in their places, and a suffix. */
void kh_hf_expand(char out[KH_HF_NAME], const char *from, uint64_t layer, uint64_t expert,
                  const char *suffix)
{
    size_t at = 0;
    for (; *from && at + 24 < NAME; from++) {
        if (*from == '#' || *from == '@')
            at += (size_t)snprintf(out + at, NAME - at, "%llu",
                                   (unsigned long long)(*from == '#' ? layer : expert));
        else
            out[at++] = *from;
    }
    snprintf(out + at, NAME - at, "%s", suffix);
}

/* The tensor `name`, behind any of the prefixes; NULL if absent. */
static const kh_st_tensor *find(const kh_hf *hf, const char *name)
{
    const char *list = hf->map->prefixes, *prefix;
    char whole[2 * NAME];
    size_t size;
    const kh_st_tensor *found = NULL;
    while (!found && kh_hf_next_word(&list, &prefix, &size)) {
        snprintf(whole, sizeof whole, "%.*s%s", (int)size, prefix, name);
        found = kh_safetensors_find(hf->weights, whole);
    }
    return found;
}

/* The same with ".weight" or ".bias", which the oldest files call ".gamma" and ".beta". */
static const kh_st_tensor *find_part(const kh_hf *hf, const char *from, uint64_t layer,
                                     uint64_t expert, int bias)
{
    char name[NAME];
    kh_hf_expand(name, from, layer, expert, bias ? ".bias" : ".weight");
    const kh_st_tensor *found = find(hf, name);
    if (found) return found;
    kh_hf_expand(name, from, layer, expert, bias ? ".beta" : ".gamma");
    return find(hf, name);
}

static void mark(kh_hf *hf, const kh_st_tensor *tensor)
{
    hf->used[tensor - kh_safetensors_at(hf->weights, 0)] = 1;
}

static kh_status missing(const kh_hf *hf, const kh_hf_tensor *row, uint64_t layer, uint64_t expert,
                         int bias)
{
    char name[NAME];
    const char *list = hf->map->prefixes, *prefix = "";
    size_t size = 0;
    if (!(row->flags & KH_HF_HEAD)) kh_hf_next_word(&list, &prefix, &size);
    kh_hf_expand(name, row->from, layer, expert, bias ? ".bias" : ".weight");
    if (row->flags & KH_HF_HEAD)
        KH_FAIL(KH_ERR_FORMAT,
                "%s: the weights have no tensor %s, which is expected because tie_word_embeddings "
                "is false",
                hf->folder, name);
    KH_FAIL(KH_ERR_FORMAT,
            "%s: the weights have no tensor %.*s%s, which a %s model of %llu layers needs",
            hf->folder, (int)size, prefix, name, hf->family->name,
            (unsigned long long)hf->sizes['N']);
}

/* ---- shapes ---- */

static void show_shape(char out[SHAPE], const uint64_t *dims, int n)
{
    size_t at = (size_t)snprintf(out, SHAPE, "[");
    for (int i = 0; i < n && at + 24 < SHAPE; i++)
        at += (size_t)snprintf(out + at, SHAPE - at, "%s%llu", i ? ", " : "",
                               (unsigned long long)dims[i]);
    snprintf(out + at, SHAPE - at, "]");
}

/* The letters of a bias: what the matrix puts out. */
static void row_shape(char out[5], const kh_hf_tensor *row, int bias)
{
    snprintf(out, 5, "%s", row->shape);
    if (!bias) return;
    if (row->transform == KH_HF_TURN) out[0] = out[1];
    out[1] = 0;
}

static kh_status check(const kh_hf *hf, const kh_st_tensor *t, const char *shape)
{
    uint64_t expected[4];
    int n = (int)strlen(shape), same = t->n_dims == n;
    for (int i = 0; i < n; i++) {
        expected[i] = hf->sizes[(unsigned char)shape[i]];
        if (expected[i] == 0 && i < t->n_dims) expected[i] = t->dims[i]; /* not known */
        same = same && t->dims[i] == expected[i] && expected[i] > 0;
    }
    if (!same) {
        char want[SHAPE], got[SHAPE];
        show_shape(want, expected, n);
        show_shape(got, t->dims, t->n_dims);
        KH_FAIL(KH_ERR_FORMAT, "%s: tensor %.200s: %s is expected by config.json, found %s",
                kh_safetensors_part(hf->weights, t), t->name, want, got);
    }
    if (kh_st_kernel_type(t->type) == KH_TYPE_NONE)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "%s: tensor %.200s: numbers of type F32, F16 or BF16 are expected, found %s",
                kh_safetensors_part(hf->weights, t), t->name, kh_st_type_name(t->type));
    return KH_OK;
}

/* ---- adding ---- */

static void free_block(void *block)
{
    kh_free(block);
}

/* `own`: data come from kh_alloc and become the file's, in any case. */
static kh_status add(kh_hf *hf, const char *name, kh_type type, const uint64_t *dims, int n,
                     const void *data, void *own)
{
    uint64_t turned[4] = {1, 1, 1, 1};
    if (own) KH_TRY(kh_gguf_keep(hf->file, free_block, own));
    for (int i = 0; i < n; i++) turned[i] = dims[n - 1 - i];
    return kh_gguf_add_tensor(hf->file, name, type, n, turned, data);
}

kh_status kh_hf_add_vector(kh_hf *hf, const char *name, float *data, size_t n)
{
    uint64_t dim = n;
    return add(hf, name, KH_TYPE_F32, &dim, 1, data, data);
}

static kh_status copy_of(void **out, const kh_st_tensor *t, size_t bytes)
{
    *out = kh_alloc(bytes);
    if (!*out)
        KH_FAIL(KH_ERR_MEMORY, "tensor %.200s: no memory for a copy (%zu bytes)", t->name, bytes);
    return KH_OK;
}

static kh_status divides(const kh_hf *hf, const kh_st_tensor *t, uint64_t rows, uint64_t by)
{
    if (by > 0 && rows % by == 0) return KH_OK;
    KH_FAIL(KH_ERR_FORMAT, "%s: tensor %.200s: a multiple of %llu rows is expected, found %llu",
            kh_safetensors_part(hf->weights, t), t->name, (unsigned long long)by,
            (unsigned long long)rows);
}

static kh_status add_one(kh_hf *hf, const char *name, const kh_st_tensor *t)
{
    size_t n = t->size / kh_st_type_bytes(t->type);
    void *copy;
    KH_TRY(copy_of(&copy, t, n * sizeof(float)));
    kh_hf_to_f32(copy, t->data, kh_st_kernel_type(t->type), n, 1.0f);
    return add(hf, name, KH_TYPE_F32, t->dims, t->n_dims, copy, copy);
}

/* Rows in another order; the shape stays, but for turned matrices. */
static kh_status add_moved(kh_hf *hf, const char *name, const kh_st_tensor *t,
                           kh_hf_transform transform)
{
    uint64_t dims[KH_ST_DIMS], rows = t->dims[0], E = hf->sizes['E'], H = hf->sizes['H'];
    size_t each = kh_st_type_bytes(t->type), row_bytes = t->size / (size_t)rows;
    void *copy;
    memcpy(dims, t->dims, sizeof dims);
    if (transform == KH_HF_PAIRS && E % 2 != 0)
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s: an even head width is expected, found %llu", hf->config,
                (unsigned long long)E);
    if (transform == KH_HF_PAIRS) KH_TRY(divides(hf, t, rows, E));
    if (transform == KH_HF_BY_HEAD) KH_TRY(divides(hf, t, rows, 3 * H));
    KH_TRY(copy_of(&copy, t, t->size));
    if (transform == KH_HF_PAIRS)
        kh_hf_pair_rows(copy, t->data, rows / E, E / 2, row_bytes);
    else if (transform == KH_HF_BY_HEAD)
        kh_hf_swap_blocks(copy, t->data, H, 3, row_bytes * (rows / (3 * H)));
    else if (transform == KH_HF_TURN && t->n_dims == 2) {
        kh_hf_transpose(copy, t->data, rows, t->dims[1], each);
        dims[0] = t->dims[1];
        dims[1] = rows;
    } else
        memcpy(copy, t->data, t->size);
    return add(hf, name, kh_st_kernel_type(t->type), dims, t->n_dims, copy, copy);
}

static kh_status add_positions(kh_hf *hf, const char *name, const kh_st_tensor *t)
{
    uint64_t dims[2] = {t->dims[0] - hf->skipped_positions, t->dims[1]};
    const char *data = t->data;
    if (t->dims[0] <= hf->skipped_positions)
        KH_FAIL(KH_ERR_FORMAT,
                "%s: tensor %.200s: more than %llu positions are expected, found %llu",
                kh_safetensors_part(hf->weights, t), t->name,
                (unsigned long long)hf->skipped_positions, (unsigned long long)t->dims[0]);
    data += hf->skipped_positions * (t->size / (size_t)t->dims[0]);
    return add(hf, name, kh_st_kernel_type(t->type), dims, 2, data, NULL);
}

static kh_status add_tensor(kh_hf *hf, const char *name, const kh_st_tensor *t,
                            const kh_hf_tensor *row)
{
    int unaligned = (uintptr_t)t->data % kh_st_type_bytes(t->type) != 0;
    kh_status status;
    if (row->transform == KH_HF_ADD_ONE)
        status = add_one(hf, name, t);
    else if (row->transform == KH_HF_POSITIONS && !unaligned)
        return add_positions(hf, name, t);
    else if (row->transform == KH_HF_PLAIN && !unaligned)
        return add(hf, name, kh_st_kernel_type(t->type), t->dims, t->n_dims, t->data, NULL);
    else
        status = add_moved(hf, name, t, row->transform);
    kh_safetensors_release(hf->weights, t);
    return status;
}

/* ---- rows of the table ---- */

static int is_needed(const kh_hf *hf, const kh_hf_tensor *row)
{
    if (row->flags & (KH_HF_OPTIONAL | KH_HF_AGAIN)) return 0;
    if (row->flags & KH_HF_DENSE) return hf->sizes['X'] == 0;
    if (row->flags & KH_HF_EXPERTS) return hf->sizes['X'] > 0;
    return !(row->flags & KH_HF_HEAD) || !hf->tied;
}

static kh_status take_part(kh_hf *hf, const kh_hf_tensor *row, uint64_t layer, int bias, int needed)
{
    char name[NAME], shape[5];
    const kh_st_tensor *t = find_part(hf, row->from, layer, 0, bias);
    if (!t) return needed ? missing(hf, row, layer, 0, bias) : KH_OK;
    kh_hf_expand(name, row->to, layer, 0, bias ? ".bias" : ".weight");
    mark(hf, t);
    if ((row->flags & KH_HF_HEAD) && hf->tied) return KH_OK;
    if ((row->flags & KH_HF_AGAIN) && kh_gguf_tensor(hf->file, name)) return KH_OK;
    row_shape(shape, row, bias);
    KH_TRY(check(hf, t, shape));
    return add_tensor(hf, name, t, row);
}

/* All experts are there and alike, so that what is allocated for them is no more than the file holds. */
static kh_status check_experts(const kh_hf *hf, const kh_hf_tensor *row, uint64_t layer,
                               const kh_st_tensor *first)
{
    for (uint64_t x = 0; x < hf->sizes['X']; x++) {
        const kh_st_tensor *t = find_part(hf, row->from, layer, x, 0);
        if (!t) return missing(hf, row, layer, x, 0);
        KH_TRY(check(hf, t, row->shape + 1));
        if (t->type != first->type)
            KH_FAIL(KH_ERR_UNSUPPORTED,
                    "%s: tensor %.200s: the type of expert 0, %s, is expected, found %s",
                    kh_safetensors_part(hf->weights, t), t->name, kh_st_type_name(first->type),
                    kh_st_type_name(t->type));
    }
    return KH_OK;
}

/* One tensor of every expert, behind each other. */
static kh_status stack(kh_hf *hf, const kh_hf_tensor *row, uint64_t layer,
                       const kh_st_tensor *first)
{
    uint64_t X = hf->sizes['X'], dims[3] = {X, first->dims[0], first->dims[1]};
    char name[NAME];
    void *copy;
    KH_TRY(check_experts(hf, row, layer, first));
    KH_TRY(copy_of(&copy, first, (size_t)X * first->size));
    for (uint64_t x = 0; x < X; x++) {
        const kh_st_tensor *t = find_part(hf, row->from, layer, x, 0);
        memcpy((char *)copy + x * first->size, t->data, first->size);
        kh_safetensors_release(hf->weights, t);
        mark(hf, t);
    }
    kh_hf_expand(name, row->to, layer, 0, ".weight");
    return add(hf, name, kh_st_kernel_type(first->type), dims, 3, copy, copy);
}

static kh_status take_row(kh_hf *hf, const kh_hf_tensor *row, uint64_t layer)
{
    int needed = is_needed(hf, row);
    if (row->transform == KH_HF_STACK) {
        const kh_st_tensor *first = find_part(hf, row->from, layer, 0, 0);
        if (first && hf->sizes['X'] > 0) return stack(hf, row, layer, first);
        return needed ? missing(hf, row, layer, 0, 0) : KH_OK;
    }
    if (!(row->flags & KH_HF_ONLY_BIAS)) KH_TRY(take_part(hf, row, layer, 0, needed));
    if (!(row->flags & (KH_HF_BIAS | KH_HF_MAY_BIAS | KH_HF_ONLY_BIAS))) return KH_OK;
    return take_part(hf, row, layer, 1, needed && !(row->flags & KH_HF_MAY_BIAS));
}

/* ---- what is left ---- */

/* '#' is a number, '*' anything. */
static int fits(const char *pattern, const char *name)
{
    for (; *pattern; pattern++, name++) {
        if (*pattern == '*') {
            for (;; name++) {
                if (fits(pattern + 1, name)) return 1;
                if (!*name) return 0;
            }
        }
        if (*pattern == '#') {
            if (*name < '0' || *name > '9') return 0;
            while (name[1] >= '0' && name[1] <= '9') name++;
        } else if (*pattern != *name) {
            return 0;
        }
    }
    return !*name;
}

static int is_known(const kh_hf *hf, const char *name)
{
    for (const kh_hf_tensor *row = hf->map->tensors; row->from; row++) {
        const char *list = hf->map->prefixes, *prefix;
        size_t size;
        if (row->to) continue;
        while (kh_hf_next_word(&list, &prefix, &size))
            if (strncmp(name, prefix, size) == 0 && fits(row->from, name + size)) return 1;
        if (fits(row->from, name)) return 1;
    }
    return 0;
}

static kh_status refuse_unused(const kh_hf *hf)
{
    for (size_t i = 0; i < kh_safetensors_count(hf->weights); i++) {
        const kh_st_tensor *t = kh_safetensors_at(hf->weights, i);
        if (hf->used[i] || is_known(hf, t->name)) continue;
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "%s: tensor %s is not part of a %s model of %llu layers as it is known here: this "
                "variant is not supported",
                kh_safetensors_part(hf->weights, t),
                kh_gguf_show((kh_slice){t->name, strlen(t->name)}).text, hf->family->name,
                (unsigned long long)hf->sizes['N']);
    }
    return KH_OK;
}

kh_status kh_hf_read_tensors(kh_hf *hf)
{
    for (const kh_hf_tensor *row = hf->map->tensors; row->from; row++) {
        if (!row->to) continue;
        uint64_t layers = !strchr(row->from, '#')            ? 1
                          : strncmp(row->to, "dec.", 4) == 0 ? hf->sizes['n']
                                                             : hf->sizes['N'];
        for (uint64_t layer = 0; layer < layers; layer++) KH_TRY(take_row(hf, row, layer));
    }
    return refuse_unused(hf);
}
