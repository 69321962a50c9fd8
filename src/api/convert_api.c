/* A model in another type.
 *
 *     input (parsed or composed)  --kh_mix_choose-->  plan: the same names and shapes, other types
 *     plan  --kh_gguf_write_from-->  output; the writer asks for one tensor after the other
 *
 * The plan is a composed file without data. A tensor goes from the input to the output in slabs of rows,
 * so memory is a slab, not a tensor, and pages of the input are given back behind it. A tensor that has
 * its type already is copied to the bit, unless an adapter is merged into it: then its slabs become F32,
 * and get their type when the adapter's rows were added.
 *
 * Values are the input's, but those that describe the types: general.file_type and
 * general.quantization_version are set, general.alignment is the default again, and the parts of a split
 * model become one file. A folder's tokenizer joins them (convert_tokens.c). Where the output is a
 * folder, it becomes one as Hugging Face has them (convert_folder.c). */
#include "api/convert_folder.h"
#include "api/convert_lora.h"
#include "api/convert_mix.h"
#include "api/convert_tokens.h"
#include "api/convert_write.h"
#include "base/alloc.h"
#include "base/fail.h"
#include "cpu/cpu.h"
#include "model/hf.h"
#include "ops/requantize.h"

#include <keyhole/convert.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SLAB = 8 << 20 /* bytes of output */, QUANTISATION_VERSION = 2 };

typedef struct work {
    const kh_gguf *input, *plan;
    const kh_convert_options *options;
    const kh_lora_merge *merge;
    kh_pool pool;
    const kh_kern *kern;
    uint8_t *slab;
    size_t slab_bytes;
    float *wide; /* the same rows in F32, where an adapter is merged */
    size_t wide_bytes;
    uint64_t done, all; /* bytes of the input's tensors */
    char stage[32];
} work;

size_t kh_convert_type_count(void)
{
    return kh_mix_count();
}

const char *kh_convert_type_at(size_t index)
{
    return index < kh_mix_count() ? kh_mix_at(index)->name : NULL;
}

/* ---- the plan */

static int replaced(const kh_gguf_value *value)
{
    static const char *const keys[] = {"general.file_type", "general.quantization_version",
                                       "general.alignment"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (value->key.size == strlen(keys[i]) &&
            memcmp(value->key.data, keys[i], value->key.size) == 0)
            return 1;
    return value->key.size > 6 && memcmp(value->key.data, "split.", 6) == 0;
}

static void count_type(kh_convert_result *r, const kh_tensor *t)
{
    const char *name = kh_type_name(t->type);
    size_t at = 0;
    while (at < r->type_count && r->types[at].name != name) at++;
    if (at == KH_CONVERT_TYPES) return;
    if (at == r->type_count) r->types[r->type_count++].name = name;
    r->types[at].tensors++;
    r->types[at].bytes += t->size;
}

static void count(kh_convert_result *r, const kh_tensor *from, const kh_tensor *to, int unfit,
                  int merged)
{
    r->tensors++;
    r->bytes_in += from->size;
    r->bytes_out += to->size;
    r->parameters += from->dims[0] * from->dims[1] * from->dims[2] * from->dims[3];
    r->copied += from->type == to->type && !merged;
    r->merged += (size_t)merged;
    r->unfit += (size_t)unfit;
    r->requantised += (from->type != to->type || merged) && kh_type_block(from->type) > 1 &&
                      kh_type_block(to->type) > 1;
    count_type(r, to);
}

/* Of a head that predicts masked tokens, or finds answers: GGUF's other readers know none of an encoder's. */
static int is_head(const kh_gguf *file, const char *name)
{
    static const char *const heads[] = {"mask_", "span_output.", "output."};
    kh_slice arch = {"", 0};
    if (kh_gguf_opt_string(file, "general.architecture", &arch) != KH_OK) return 0;
    if (arch.size < 4 || memcmp(arch.data + arch.size - 4, "bert", 4) != 0) return 0;
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        if (strncmp(name, heads[i], strlen(heads[i])) == 0) return 1;
    return 0;
}

static kh_status fill_plan(kh_gguf *plan, const kh_gguf *input, const kh_mix *mix,
                           const kh_lora_merge *merge, const kh_convert_options *options,
                           kh_convert_result *result)
{
    kh_mix_model model;
    KH_TRY(kh_mix_look(&model, input));
    for (size_t i = 0; i < kh_gguf_value_count(input); i++) {
        const kh_gguf_value *value = kh_gguf_value_at(input, i);
        if (!replaced(value)) KH_TRY(kh_gguf_set_value(plan, value));
    }
    KH_TRY(
        kh_gguf_set_u64(plan, "general.quantization_version", KH_GGUF_U32, QUANTISATION_VERSION));
    KH_TRY(kh_gguf_set_u64(plan, "general.file_type", KH_GGUF_U32, mix->file_type));
    for (size_t i = 0; i < kh_gguf_tensor_count(input); i++) {
        const kh_tensor *t = kh_gguf_tensor_at(input, i);
        int head = is_head(input, t->name);
        if (head && options->no_heads) continue;
        kh_mix_choice choice = kh_mix_choose(mix, &model, t, options->pure);
        KH_TRY(kh_gguf_add_tensor(plan, t->name, choice.type, t->n_dims, t->dims, NULL));
        count(result, t, kh_gguf_tensor(plan, t->name), choice.unfit,
              kh_lora_merge_has(merge, t->name));
        result->heads += (size_t)head;
    }
    return KH_OK;
}

/* ---- the work */

static kh_status tell(work *w, size_t bytes)
{
    const kh_convert_options *o = w->options;
    w->done += bytes;
    if (o->progress && o->progress(o->progress_context, w->stage, (size_t)(w->done / 1000000),
                                   (size_t)(w->all / 1000000)))
        KH_FAIL(KH_ERR_STOPPED, "stopped");
    return KH_OK;
}

static kh_status reserve(void *block, size_t *bytes, size_t wanted)
{
    void *old;
    if (*bytes >= wanted) return KH_OK;
    memcpy(&old, block, sizeof old);
    kh_free(old);
    *bytes = 0;
    KH_TRY(kh_new(block, wanted, 1, "rows that are converted"));
    *bytes = wanted;
    return KH_OK;
}

typedef struct adding {
    const kh_lora_merge *merge;
    const char *tensor;
    float *rows; /* [count][n] */
    size_t first, count, n;
} adding;

enum { ADDED_ROWS = 16 };

static void add_rows(void *context, size_t item, int worker)
{
    const adding *a = context;
    size_t at = item * ADDED_ROWS, rows = a->count - at;
    (void)worker;
    kh_lora_merge_rows(a->merge, a->tensor, a->rows + at * a->n, a->first + at,
                       rows < ADDED_ROWS ? rows : ADDED_ROWS, a->n);
}

/* `some` rows from `first` on, in F32 and with what the adapters add. */
static kh_status add_adapters(work *w, const kh_tensor *from, const void *data, size_t first,
                              size_t some, size_t n)
{
    KH_TRY(kh_op_requantize(&w->pool, w->kern, w->wide, KH_TYPE_F32, data, from->type, some, n,
                            first));
    adding a = {w->merge, from->name, w->wide, first, some, n};
    kh_parallel_for(&w->pool, (some + ADDED_ROWS - 1) / ADDED_ROWS, add_rows, &a);
    return KH_OK;
}

static kh_status write_slabs(work *w, const kh_tensor *from, const kh_tensor *to, kh_outfile *out)
{
    size_t n = (size_t)to->dims[0], rows = (size_t)(to->dims[1] * to->dims[2] * to->dims[3]);
    size_t from_bytes = kh_type_row_bytes(from->type, n), to_bytes = kh_type_row_bytes(to->type, n);
    size_t most = to_bytes < SLAB ? SLAB / to_bytes : 1;
    int merged = kh_lora_merge_has(w->merge, to->name);
    if (most > rows) most = rows;
    KH_TRY(reserve(&w->slab, &w->slab_bytes, most * to_bytes));
    if (merged) KH_TRY(reserve(&w->wide, &w->wide_bytes, most * n * sizeof(float)));
    for (size_t first = 0; first < rows; first += most) {
        size_t some = rows - first < most ? rows - first : most;
        const void *data = (const uint8_t *)from->data + first * from_bytes;
        kh_status status = merged ? add_adapters(w, from, data, first, some, n) : KH_OK;
        if (status == KH_OK)
            status = kh_op_requantize(&w->pool, w->kern, w->slab, to->type, merged ? w->wide : data,
                                      merged ? KH_TYPE_F32 : from->type, some, n, first);
        if (status == KH_ERR_FORMAT)
            status = kh_fail_context(status, "%s: tensor '%s'", kh_gguf_path(w->input), to->name);
        KH_TRY(status);
        KH_TRY(kh_outfile_write(out, w->slab, some * to_bytes));
        KH_TRY(tell(w, some * from_bytes));
    }
    return KH_OK;
}

static kh_status write_tensor(void *context, const kh_tensor *to, kh_outfile *out)
{
    work *w = context;
    const kh_tensor *from = kh_gguf_tensor(w->input, to->name);
    if (from->type == to->type && !kh_lora_merge_has(w->merge, to->name)) {
        KH_TRY(kh_outfile_write(out, from->data, from->size));
        KH_TRY(tell(w, from->size));
    } else
        KH_TRY(write_slabs(w, from, to, out));
    kh_gguf_release(w->input, from);
    return KH_OK;
}

static kh_status convert(const kh_gguf *input, const char *path, const char *output,
                         const kh_mix *mix, const kh_lora_merge *merge,
                         const kh_convert_options *options, kh_convert_result *result)
{
    kh_gguf *plan;
    KH_TRY(kh_gguf_new(&plan, output));
    work w = {.input = input,
              .plan = plan,
              .options = options,
              .merge = merge,
              .pool = {options->threads > 0 ? options->threads : kh_cpu_count()},
              .kern = kh_kern_get(kh_cpu_isa())};
    snprintf(w.stage, sizeof w.stage, "%s, MB read", mix->name);
    kh_status status = fill_plan(plan, input, mix, merge, options, result);
    if (status == KH_OK && kh_hf_is(path) && !options->no_tokenizer)
        status = kh_convert_tokens(plan, path);
    w.all = result->bytes_in;
    if (status == KH_OK) status = kh_gguf_write_from(plan, output, write_tensor, &w);
    kh_free(w.slab);
    kh_free(w.wide);
    kh_gguf_close(plan);
    return status;
}

static kh_status unknown_type(const char *name)
{
    char names[256] = "";
    size_t used = 0;
    for (size_t i = 0; i < kh_mix_count() && used < sizeof names; i++) {
        int n = snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "",
                         kh_mix_at(i)->name);
        used += n > 0 ? (size_t)n : 0;
    }
    return kh_fail(KH_ERR_ARGUMENT, "'%s' is no type to convert to; there are %s", name, names);
}

kh_status kh_convert_write(const kh_gguf *file, const char *tokens, const char *output,
                           const char *type)
{
    kh_convert_options options = {.type = type, .overwrite = 1, .no_tokenizer = !tokens};
    kh_convert_result result = {0};
    const kh_mix *mix = kh_mix_find(type);
    if (!mix) return unknown_type(type);
    if (!tokens) tokens = kh_gguf_path(file);
    return kh_convert_is_folder(output)
               ? kh_convert_folder(file, tokens, output, mix->name, NULL, &options, &result)
               : convert(file, tokens, output, mix, NULL, &options, &result);
}

kh_status kh_convert(const char *input, const char *output, const kh_convert_options *options,
                     kh_convert_result *result)
{
    kh_convert_options usual = {0};
    kh_convert_result unasked;
    double started = kh_cpu_seconds();
    if (!options) options = &usual;
    if (!result) result = &unasked;
    *result = (kh_convert_result){0};
    const char *name = options->type ? options->type : "F16";
    const kh_mix *mix = kh_mix_find(name);
    if (!mix) return unknown_type(name);
    if (options->only_lora && options->lora_count != 1)
        KH_FAIL(KH_ERR_ARGUMENT, "one adapter is written at a time, found %zu",
                options->lora_count);
    int to_folder = kh_convert_is_folder(output);
    if (!to_folder && !options->overwrite && access(output, F_OK) == 0)
        KH_FAIL(KH_ERR_STATE, "%s: exists already; it is replaced only on demand (--force)",
                output);
    kh_gguf *file;
    KH_TRY(kh_hf_is(input) ? kh_hf_open(&file, input) : kh_gguf_open(&file, input));
    kh_lora_merge merge;
    kh_status status = kh_convert_open_loras(&merge, file, options);
    if (status == KH_OK && options->only_lora)
        status = kh_convert_only_lora(file, &merge, output, options, result);
    else if (status == KH_OK)
        status = to_folder
                     ? kh_convert_folder(file, input, output, mix->name, &merge, options, result)
                     : convert(file, input, output, mix, &merge, options, result);
    kh_convert_close_loras(&merge);
    kh_gguf_close(file);
    result->seconds = kh_cpu_seconds() - started;
    return status;
}
