/* Masters of a low-rank adapter: two thin matrices for every tensor that is adapted.
 *
 *     weights   | A [r][cols] | B [rows][r] | A | B | ...
 *
 * The model is the file, opened once more, so that a caller's model stays as it is; its weights are read as decoding
 * reads them, of any type, and only A and B have gradients and moments: tuning a file of 4 bits takes the memory
 * of that file and of one block's records. B begins as zeros, so the first step starts from the model itself.
 *
 * Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021); A's distribution is that of PEFT. */
#include "train/params.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "model/lora_set.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ALIGN = 16, NAME = 96 };

static const char usual[] =
    "*.attn_q.weight,*.attn_v.weight,*.attn_qkv.weight,*.cross_attn_q.weight,*.cross_attn_v.weight";

typedef struct wanted {
    const kh_gguf *file;
    const kh_params_lora *options;
    kh_lora_set *set,
        *from;          /* from: NULL, or what is trained on, whose parts are those of `tensors` */
    kh_tensor *tensors; /* [count] views of those that are adapted */
    size_t count;
} wanted;

static int matches(const char *patterns, const char *name)
{
    char one[NAME];
    for (const char *at = patterns; at;) {
        size_t n = strcspn(at, ",");
        snprintf(one, sizeof one, "%.*s", (int)(n < NAME ? n : NAME - 1), at);
        if (fnmatch(one, name, FNM_NOESCAPE) == 0) return 1;
        at = at[n] ? at + n + 1 : NULL;
    }
    return 0;
}

static int is_of_a_layer(const char *name)
{
    return strstr(name, "blk.") && strlen(name) + 8 <= NAME;
}

static kh_status choose_old(wanted *w)
{
    for (; w->count < w->from->count; w->count++) {
        const char *name = w->from->parts[w->count].tensor;
        if (!is_of_a_layer(name))
            KH_FAIL(KH_ERR_UNSUPPORTED,
                    "%s: tensor %s: adapters are trained on matrices of layers only",
                    w->options->from, name);
        w->tensors[w->count] = *kh_gguf_tensor(w->file, name);
    }
    return KH_OK;
}

/* Those of the patterns that an adapter may have. */
static kh_status choose(wanted *w)
{
    size_t n = kh_gguf_tensor_count(w->file), r = w->options->rank;
    const char *patterns = w->options->targets ? w->options->targets : usual;
    KH_TRY(kh_new(&w->tensors, n, sizeof *w->tensors, "the tensors of an adapter"));
    if (w->from) return choose_old(w);
    for (size_t i = 0; i < n; i++) {
        const kh_tensor *t = kh_gguf_tensor_at(w->file, i);
        if (t->n_dims != 2 || !matches(patterns, t->name)) continue;
        if (!is_of_a_layer(t->name)) continue;
        KH_TRY(kh_lora_check(w->set, w->file, t->name, t->dims[1], t->dims[0], r, r));
        w->tensors[w->count++] = *t;
    }
    if (w->count == 0)
        KH_FAIL(KH_ERR_ARGUMENT,
                "an adapter for '%s': no matrix of the model's layers has such a name", patterns);
    return KH_OK;
}

static void add_spec(kh_params *p, const char *tensor, const char *end, size_t rows, size_t cols)
{
    char *name = p->names + p->tensor_count * NAME;
    snprintf(name, NAME, "%s%s", tensor, end);
    p->tensors[p->tensor_count++] = (kh_tensor_spec){.name = name,
                                                     .offset = p->count,
                                                     .count = rows * cols,
                                                     .rows = (int)rows,
                                                     .cols = (int)cols};
    p->count += (rows * cols + ALIGN - 1) / ALIGN * ALIGN;
}

static size_t rank_of(const wanted *w, size_t i)
{
    return w->from ? w->from->parts[i].r : w->options->rank;
}

static kh_status lay_out(kh_params *p, const wanted *w)
{
    KH_TRY(kh_new(&p->tensors, 2 * w->count, sizeof *p->tensors, "the tensors of an adapter"));
    KH_TRY(kh_new(&p->frozen, 2 * w->count, 1, "the tensors of an adapter"));
    KH_TRY(kh_new(&p->names, 2 * w->count, NAME, "the tensors of an adapter"));
    for (size_t i = 0; i < w->count; i++) {
        const kh_tensor *t = &w->tensors[i];
        add_spec(p, t->name, ".lora_a", rank_of(w, i), (size_t)t->dims[0]);
        add_spec(p, t->name, ".lora_b", (size_t)t->dims[1], rank_of(w, i));
    }
    return kh_params_reserve(p);
}

static void draw_old(kh_params *p, const wanted *w)
{
    for (size_t i = 0; i < 2 * w->count; i++) {
        const kh_lora_part *part = &w->from->parts[i / 2];
        memcpy(p->weights + p->tensors[i].offset, i % 2 ? part->b : part->a,
               p->tensors[i].count * sizeof *p->weights);
    }
}

static void draw(kh_params *p, const wanted *w)
{
    for (size_t i = 0; i < w->count; i++) {
        const kh_tensor_spec *a = &p->tensors[2 * i];
        kh_rng_key key = {w->options->seed, i + 1};
        double most = 1 / sqrt((double)a->cols);
        for (size_t j = 0; j < a->count; j++)
            p->weights[a->offset + j] = (float)(most * (2 * kh_rng_uniform(key, j) - 1));
    }
}

static kh_status attach(kh_params *p, wanted *w)
{
    double r = (double)w->options->rank;
    double alpha = w->options->alpha != 0 ? w->options->alpha : 2 * r;
    for (size_t i = 0; i < w->count; i++)
        KH_TRY(kh_lora_add(w->set, w->file, w->tensors[i].name, rank_of(w, i),
                           w->from ? w->from->parts[i].alpha : alpha,
                           p->weights + p->tensors[2 * i].offset,
                           p->weights + p->tensors[2 * i + 1].offset));
    KH_TRY(kh_model_add_lora_set(p->model, w->set, 1));
    p->lora = w->set;
    w->set = NULL;
    return KH_OK;
}

static kh_status open_params(kh_params *p, const char *path, const kh_params_lora *options)
{
    wanted w = {.options = options};
    KH_TRY(kh_model_open_network(&p->model, path));
    w.file = p->model->file;
    kh_status status = kh_lora_new(&w.set, path);
    if (status == KH_OK && options->from) status = kh_lora_open(&w.from, w.file, options->from);
    if (status == KH_OK) status = choose(&w);
    if (status == KH_OK) status = lay_out(p, &w);
    if (status == KH_OK && w.from)
        draw_old(p, &w);
    else if (status == KH_OK)
        draw(p, &w);
    if (status == KH_OK) status = attach(p, &w);
    kh_lora_close(w.from);
    kh_lora_close(w.set);
    kh_free(w.tensors);
    return status;
}

kh_status kh_params_open_lora(kh_params **out, const char *path, const kh_params_lora *options)
{
    *out = NULL;
    kh_params *p = NULL;
    KH_TRY(kh_new(&p, 1, sizeof *p, "an adapter to train"));
    kh_status status = open_params(p, path, options);
    if (status == KH_OK)
        *out = p;
    else
        kh_params_close(p);
    return status;
}
