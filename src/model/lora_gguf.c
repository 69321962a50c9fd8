/* llama.cpp's adapters: GGUF files without a model.
 *
 *     general.type = "adapter"   adapter.type = "lora"   general.architecture   adapter.lora.alpha
 *     NAME.lora_a  [r][cols]     NAME.lora_b  [rows][r]          NAME: a tensor of the base, in its order
 *     token_embd.weight.lora_a [V][r]    .lora_b [D][r]          the other way round
 *
 * There is one alpha for all, and r is what a tensor's shape says: scale = alpha / r, or 1 where alpha is
 * absent or 0. An adapter whose parts differ (alpha_pattern, ranks with use_rslora) keeps its products by
 * scaling B. Facts: convert_lora_to_gguf.py, llama-adapter.cpp and llm_build_inp_embd() of llama.cpp. */
#include "base/alloc.h"
#include "base/fail.h"
#include "kern/kern.h"
#include "model/hf_impl.h"
#include "model/lora_set.h"
#include "ops/unpack.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char a_tail[] = ".lora_a", b_tail[] = ".lora_b";
enum { TAIL = sizeof a_tail - 1, NAME = 256 };

static int ends(const char *name, const char *tail)
{
    size_t n = strlen(name);
    return n > TAIL && strcmp(name + n - TAIL, tail) == 0;
}

/* ---- reading ---- */

static kh_status expect(const kh_gguf *file, const char *key, kh_slice wanted,
                        const char *else_what)
{
    kh_slice found = {"", 0};
    KH_TRY(kh_gguf_opt_string(file, key, &found));
    if (found.size == wanted.size && memcmp(found.data, wanted.data, wanted.size) == 0)
        return KH_OK;
    KH_FAIL(KH_ERR_FORMAT, "%s: \"%.*s\" is expected, found \"%.*s\": %s", key, (int)wanted.size,
            wanted.data, (int)(found.size < 40 ? found.size : 40), found.data, else_what);
}

static kh_slice text(const char *word)
{
    return (kh_slice){word, strlen(word)};
}

static kh_status check_head(const kh_gguf *file, const kh_gguf *base)
{
    kh_slice arch = {"", 0};
    KH_TRY(kh_gguf_opt_string(base, "general.architecture", &arch));
    KH_TRY(expect(file, "general.type", text("adapter"), "the file is no adapter"));
    KH_TRY(expect(file, "adapter.type", text("lora"), "no other adapters are supported"));
    KH_TRY(expect(file, "general.architecture", arch, "it was made for another model"));
    if (kh_gguf_find(file, "adapter.alora.invocation_tokens"))
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "the adapter begins to work at certain tokens (aLoRA), which is not supported");
    return KH_OK;
}

static kh_status to_f32(float *out, const kh_tensor *t)
{
    size_t cols = (size_t)t->dims[0], rows = (size_t)t->dims[1];
    size_t row_bytes = kh_type_row_bytes(t->type, cols);
    kh_unpack unpack = kh_unpack_of(kh_kern_get(kh_cpu_isa()), t->type);
    if (t->type != KH_TYPE_F32 && !unpack.f32)
        KH_FAIL(KH_ERR_UNSUPPORTED, "tensor %s: the type %s is not supported", t->name,
                kh_type_name(t->type));
    for (size_t r = 0; r < rows; r++) {
        const char *from = (const char *)t->data + r * row_bytes;
        if (unpack.f32)
            unpack.f32(out + r * cols, from, cols);
        else
            memcpy(out + r * cols, from, row_bytes);
    }
    return kh_lora_finite(out, rows * cols, t->name);
}

/* out [cols][rows] = t [rows][cols] */
static kh_status to_f32_turned(float *out, const kh_tensor *t)
{
    size_t cols = (size_t)t->dims[0], rows = (size_t)t->dims[1];
    float *straight;
    KH_TRY(kh_new(&straight, rows * cols, sizeof *straight, "an adapter"));
    kh_status status = to_f32(straight, t);
    if (status == KH_OK) kh_hf_transpose(out, straight, rows, cols, sizeof *out);
    kh_free(straight);
    return status;
}

static kh_status read_pair(kh_lora_set *set, const kh_gguf *base, const char *name,
                           const kh_tensor *a, const kh_tensor *b, double alpha)
{
    int turned = strcmp(name, KH_LORA_EMBEDDING) == 0;
    uint64_t r = turned ? a->dims[0] : a->dims[1];
    uint64_t rows = turned ? a->dims[1] : b->dims[1], cols = turned ? b->dims[1] : a->dims[0];
    KH_TRY(kh_lora_check(set, base, name, rows, cols, r, b->dims[0]));
    if (a->dims[2] * a->dims[3] != 1 || b->dims[2] * b->dims[3] != 1)
        KH_FAIL(KH_ERR_UNSUPPORTED, "tensor %s: A and B are expected to be matrices", name);
    KH_TRY(kh_lora_add(set, base, name, (size_t)r, alpha != 0 ? alpha : (double)r, NULL, NULL));
    kh_lora_part *part = &set->parts[set->count - 1];
    KH_TRY(turned ? to_f32_turned(kh_lora_a(part), b) : to_f32(kh_lora_a(part), a));
    return to_f32(kh_lora_b(part), turned ? a : b);
}

static kh_status read_tensor(kh_lora_set *set, const kh_gguf *base, const kh_gguf *file,
                             const kh_tensor *t, double alpha)
{
    char name[NAME], other[NAME + TAIL];
    int is_a = ends(t->name, a_tail);
    if (!is_a && !ends(t->name, b_tail))
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "tensor %s: only low-rank parts are supported (NAME.lora_a, NAME.lora_b)", t->name);
    snprintf(name, sizeof name, "%.*s", (int)(strlen(t->name) - TAIL), t->name);
    snprintf(other, sizeof other, "%s%s", name, is_a ? b_tail : a_tail);
    const kh_tensor *partner = kh_gguf_tensor(file, other);
    if (!partner) KH_FAIL(KH_ERR_FORMAT, "tensor %s is there, but not %s", t->name, other);
    return is_a ? read_pair(set, base, name, t, partner, alpha) : KH_OK;
}

kh_status kh_lora_open_gguf(kh_lora_set *set, const kh_gguf *base)
{
    kh_gguf *file;
    double alpha = 0;
    KH_TRY(kh_gguf_open(&file, set->path));
    kh_status status = check_head(file, base);
    if (status == KH_OK) status = kh_gguf_opt_f64(file, "adapter.lora.alpha", &alpha);
    for (size_t i = 0; i < kh_gguf_tensor_count(file) && status == KH_OK; i++)
        status = read_tensor(set, base, file, kh_gguf_tensor_at(file, i), alpha);
    kh_gguf_close(file);
    return status;
}

/* ---- writing ---- */

static void free_block(void *block)
{
    kh_free(block);
}

/* [rows][cols] of the numbers, or with `turned` [cols][rows], times a factor. */
static kh_status add(kh_gguf *file, const kh_lora_part *part, const char *tail,
                     const float *numbers, size_t rows, size_t cols, int turned, float factor)
{
    char name[NAME + TAIL];
    uint64_t dims[2] = {turned ? rows : cols, turned ? cols : rows};
    snprintf(name, sizeof name, "%s%s", part->tensor, tail);
    if (turned || factor != 1) {
        float *copy;
        KH_TRY(kh_new(&copy, rows * cols, sizeof *copy, "an adapter"));
        KH_TRY(kh_gguf_keep(file, free_block, copy));
        if (turned)
            kh_hf_transpose(copy, numbers, rows, cols, sizeof *copy);
        else
            memcpy(copy, numbers, rows * cols * sizeof *copy);
        for (size_t i = 0; i < rows * cols; i++) copy[i] *= factor;
        numbers = copy;
    }
    return kh_gguf_add_tensor(file, name, KH_TYPE_F32, 2, dims, numbers);
}

static kh_status add_part(kh_gguf *file, const kh_lora_part *part, double alpha)
{
    float factor = (float)(part->alpha / alpha);
    if (strcmp(part->tensor, KH_LORA_EMBEDDING) == 0) {
        KH_TRY(add(file, part, a_tail, part->b, part->rows, part->r, 0, factor));
        return add(file, part, b_tail, part->a, part->r, part->cols, 1, 1);
    }
    KH_TRY(add(file, part, a_tail, part->a, part->r, part->cols, 0, 1));
    return add(file, part, b_tail, part->b, part->rows, part->r, 0, factor);
}

static kh_status fill(kh_gguf *file, const kh_lora_set *set, const kh_gguf *base)
{
    kh_slice arch = {"", 0};
    double alpha = kh_lora_usual_alpha(set);
    if (alpha == 0) alpha = 1; /* 0 would mean a scale of 1 */
    KH_TRY(kh_gguf_opt_string(base, "general.architecture", &arch));
    KH_TRY(kh_gguf_set_string(file, "general.architecture", arch));
    KH_TRY(kh_gguf_set_string(file, "general.type", text("adapter")));
    KH_TRY(kh_gguf_set_string(file, "adapter.type", text("lora")));
    KH_TRY(kh_gguf_set_f32(file, "adapter.lora.alpha", (float)alpha));
    for (size_t i = 0; i < set->count; i++) KH_TRY(add_part(file, &set->parts[i], alpha));
    return KH_OK;
}

kh_status kh_lora_save_gguf(const kh_lora_set *set, const kh_gguf *base, const char *path)
{
    kh_gguf *file;
    KH_TRY(kh_gguf_new(&file, path));
    kh_status status = fill(file, set, base);
    if (status == KH_OK) status = kh_gguf_write(file, path);
    kh_gguf_close(file);
    return status;
}
