/* An adapter as PEFT's folder: reading backwards.
 *
 * Names and the order of B's rows are undone by the row of the family's table that opening would take. The
 * configuration has the r and alpha that most parts have, and the whole names of the others in rank_pattern
 * and alpha_pattern. target_modules says what PEFT shall adapt before it loads: the last word of a name where
 * every matrix with that word has a part, else whole names, so that it makes no more than there are.
 * use_rslora is false, alpha being what alpha / r needs. */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"
#include "base/file.h"
#include "model/hf_impl.h"
#include "model/lora_set.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

typedef struct module {
    const kh_lora_part *part;
    const kh_hf_tensor *row;
    char name[2 * KH_HF_NAME]; /* "model.layers.0.self_attn.q_proj" */
    char a[2 * KH_HF_NAME + 48], b[2 * KH_HF_NAME + 48];
} module;

typedef struct writer {
    const kh_lora_set *set;
    const kh_gguf *base;
    const kh_family *family;
    const kh_hf_map *map;
    kh_description d;
    module *modules; /* [set->count] */
} writer;

static int is_embedding(const kh_lora_part *part)
{
    return strcmp(part->tensor, KH_LORA_EMBEDDING) == 0;
}

static const kh_hf_tensor *name_of(const writer *w, const char *tensor, char name[2 * KH_HF_NAME])
{
    uint64_t layer = 0;
    const kh_hf_tensor *row = kh_hf_row_of_tensor(w->base, w->map, tensor, &layer);
    if (row) kh_hf_written_name(name, w->map, row, layer, 0, "");
    return row;
}

static kh_status name_modules(writer *w)
{
    KH_TRY(kh_new(&w->modules, w->set->count, sizeof *w->modules, "an adapter"));
    for (size_t i = 0; i < w->set->count; i++) {
        module *m = &w->modules[i];
        m->part = &w->set->parts[i];
        m->row = name_of(w, m->part->tensor, m->name);
        if (!m->row)
            KH_FAIL(KH_ERR_UNSUPPORTED, "tensor %s has no name in a Hugging Face folder of %s",
                    m->part->tensor, w->map->model_types);
        int e = is_embedding(m->part);
        const char *tail = e ? "lora_embedding_" : "lora_", *end = e ? "" : ".weight";
        snprintf(m->a, sizeof m->a, "base_model.model.%s.%sA%s", m->name, tail, end);
        snprintf(m->b, sizeof m->b, "base_model.model.%s.%sB%s", m->name, tail, end);
    }
    return KH_OK;
}

/* ---- weights ---- */

/* B with its rows in the folder's order; an embedding's matrices turned. */
static void place(const writer *w, const module *m, int is_b, float *to)
{
    const kh_lora_part *p = m->part;
    size_t E = (size_t)w->d.E, H = (size_t)w->d.H, row = p->r * sizeof *to;
    if (is_embedding(p) && is_b)
        kh_hf_transpose(to, p->a, p->r, p->cols, sizeof *to);
    else if (is_embedding(p))
        kh_hf_transpose(to, p->b, p->rows, p->r, sizeof *to);
    else if (!is_b)
        memcpy(to, p->a, p->cols * row);
    else if (m->row->transform == KH_HF_PAIRS)
        kh_hf_halve_rows(to, p->b, p->rows / E, E / 2, row);
    else if (m->row->transform == KH_HF_BY_HEAD)
        kh_hf_swap_blocks(to, p->b, 3, H, p->rows / (3 * H) * row);
    else
        memcpy(to, p->b, p->rows * row);
}

static kh_st_tensor shape_of(const module *m, int is_b, size_t index)
{
    const kh_lora_part *p = m->part;
    int e = is_embedding(p);
    kh_st_tensor t = {.name = is_b ? m->b : m->a, .type = KH_ST_F32, .n_dims = 2, .part = index};
    t.dims[0] = !is_b ? p->r : e ? p->cols : p->rows;
    t.dims[1] = is_b ? p->r : e ? p->rows : p->cols;
    return t;
}

static kh_status put(const writer *w, kh_st_writer *file, const kh_st_tensor *t)
{
    const module *m = &w->modules[t->part / 2];
    float *copy;
    KH_TRY(kh_new(&copy, (size_t)(t->dims[0] * t->dims[1]), sizeof *copy, "an adapter"));
    place(w, m, t->part % 2 == 1, copy);
    kh_status status = kh_st_writer_put(file, copy, t->size);
    kh_free(copy);
    return status;
}

static kh_status write_weights(const writer *w, const char *path)
{
    kh_st_tensor *tensors;
    kh_st_writer *file;
    size_t n = 2 * w->set->count;
    KH_TRY(kh_new(&tensors, n, sizeof *tensors, "the tensors of an adapter"));
    for (size_t i = 0; i < n; i++) tensors[i] = shape_of(&w->modules[i / 2], i % 2 == 1, i);
    kh_status status = kh_st_writer_open(&file, path, tensors, n);
    for (size_t i = 0; i < n && status == KH_OK; i++) status = put(w, file, &tensors[i]);
    if (status == KH_OK)
        status = kh_st_writer_commit(file);
    else
        kh_st_writer_abandon(file);
    kh_free(tensors);
    return status;
}

/* ---- adapter_config.json ---- */

static const char *last_word(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

/* Has every matrix of the model whose name ends with this word a part? */
static int is_covered(const writer *w, const char *word)
{
    char name[2 * KH_HF_NAME];
    for (size_t i = 0; i < kh_gguf_tensor_count(w->base); i++) {
        const kh_tensor *t = kh_gguf_tensor_at(w->base, i);
        if (t->dims[1] < 2 || kh_lora_find(w->set, t->name) || !name_of(w, t->name, name)) continue;
        if (strcmp(last_word(name), word) == 0) return 0;
    }
    return 1;
}

static int has_text(const json_t *list, const char *text)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(json_string_value(json_array_get(list, i)), text) == 0) return 1;
    return 0;
}

static json_t *targets(const writer *w)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < w->set->count; i++) {
        const char *name = w->modules[i].name, *word = last_word(name);
        if (has_text(list, word)) continue;
        if (json_array_append_new(list, json_string(is_covered(w, word) ? word : name)) == 0)
            continue;
        json_decref(list);
        return NULL;
    }
    return list;
}

static json_t *real_or_whole(double x)
{
    return x == floor(x) && fabs(x) < 1e15 ? json_integer((json_int_t)x) : json_real(x);
}

/* What differs from the usual, by whole names. */
static json_t *pattern(const writer *w, int alphas, double usual)
{
    json_t *object = json_object();
    for (size_t i = 0; object && i < w->set->count; i++) {
        const kh_lora_part *p = &w->set->parts[i];
        double own = alphas ? p->alpha : (double)p->r;
        if (own == usual ||
            json_object_set_new(object, w->modules[i].name, real_or_whole(own)) == 0)
            continue;
        json_decref(object);
        return NULL;
    }
    return object;
}

static const char *task(const writer *w)
{
    switch (w->d.structure) {
    case KH_DECODER: return "CAUSAL_LM";
    case KH_ENCODER_DECODER: return "SEQ_2_SEQ_LM";
    case KH_ENCODER: break;
    }
    return "FEATURE_EXTRACTION";
}

static json_t *make_config(const writer *w)
{
    kh_slice name = {"", 0};
    double alpha = kh_lora_usual_alpha(w->set), r = (double)kh_lora_usual_rank(w->set);
    int turned = 0;
    for (size_t i = 0; i < w->set->count; i++) turned |= w->modules[i].row->transform == KH_HF_TURN;
    if (kh_gguf_opt_string(w->base, "general.name", &name) != KH_OK) name.size = 0;
    json_t *base = name.size ? json_stringn(name.data, name.size) : NULL;
    return json_pack(
        "{s:s, s:s, s:o?, s:o, s:o, s:o, s:o, s:o, s:s, s:b, s:b, s:b, s:b, s:f, s:n, s:b}",
        "peft_type", "LORA", "task_type", task(w), "base_model_name_or_path", base, "r",
        real_or_whole(r), "lora_alpha", real_or_whole(alpha), "rank_pattern", pattern(w, 0, r),
        "alpha_pattern", pattern(w, 1, alpha), "target_modules", targets(w), "bias", "none",
        "fan_in_fan_out", turned, "use_rslora", 0, "use_dora", 0, "inference_mode", 1,
        "lora_dropout", 0.0, "modules_to_save", "init_lora_weights", 1);
}

static int collect(const char *bytes, size_t n, void *context)
{
    return kh_buf_add(context, bytes, n) == KH_OK ? 0 : -1;
}

static kh_status write_config(const writer *w, const char *path)
{
    const size_t form = JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(17);
    kh_buf text = {0};
    json_t *root = make_config(w);
    int whole = root && json_dump_callback(root, collect, &text, form) == 0;
    kh_status status = whole ? KH_OK : kh_fail(KH_ERR_MEMORY, "no memory for adapter_config.json");
    json_decref(root);
    if (status == KH_OK) status = kh_buf_text(&text, "\n");
    if (status == KH_OK) status = kh_file_write(path, text.data, text.size);
    kh_buf_free(&text);
    return status;
}

/* ---- the folder ---- */

static kh_status find_map(writer *w)
{
    kh_slice arch = {"", 0};
    KH_TRY(kh_gguf_opt_string(w->base, "general.architecture", &arch));
    w->family = kh_family_find(arch.data, arch.size);
    if (w->family) KH_TRY(kh_describe(&w->d, w->family, w->base));
    if (w->family) w->map = kh_hf_written_map(w->family, &w->d, w->base);
    if (!w->map)
        KH_FAIL(KH_ERR_UNSUPPORTED, "adapters of this %.*s model are not written as PEFT's",
                (int)(arch.size < 40 ? arch.size : 40), arch.data);
    return KH_OK;
}

static kh_status write_folder(writer *w, const char *folder)
{
    kh_buf path = {0};
    KH_TRY(find_map(w));
    KH_TRY(name_modules(w));
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        KH_FAIL(KH_ERR_IO, "%s: cannot be made: %s", folder, strerror(errno));
    kh_status status = kh_buf_format(&path, "%s/adapter_model.safetensors", folder);
    if (status == KH_OK) status = write_weights(w, path.data);
    kh_buf_clear(&path);
    if (status == KH_OK) status = kh_buf_format(&path, "%s/adapter_config.json", folder);
    if (status == KH_OK) status = write_config(w, path.data);
    kh_buf_free(&path);
    return status;
}

kh_status kh_lora_save_peft(const kh_lora_set *set, const kh_gguf *base, const char *folder)
{
    writer w = {.set = set, .base = base};
    kh_status status = write_folder(&w, folder);
    kh_free(w.modules);
    return status;
}
