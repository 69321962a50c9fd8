/* Adapters of an open model.
 *
 * A model owns the sets that were added to it; its weights point into them. What a model computes with an
 * adapter is another model's, so its identity, the key of saved prompts and of settings that were measured,
 * becomes a hash of the file's, the parts and their scales. A strength of 0 is checked and listed, and
 * changes nothing. */
#include "base/alloc.h"
#include "base/fail.h"
#include "format/gguf_part.h"
#include "model/lora_set.h"
#include "model/network.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void mix_identity(kh_model *m, const kh_lora_set *set, float strength)
{
    uint64_t h = kh_gguf_mix(0, m->identity, sizeof m->identity);
    for (size_t i = 0; i < set->count; i++) {
        const kh_lora_part *p = &set->parts[i];
        kh_lora lora = kh_lora_of(p, (double)strength);
        h = kh_gguf_mix(h, p->tensor, strlen(p->tensor) + 1);
        h = kh_gguf_mix(h, &lora.scale, sizeof lora.scale);
        h = kh_gguf_mix(h, p->a, p->r * p->cols * sizeof *p->a);
        h = kh_gguf_mix(h, p->b, p->r * p->rows * sizeof *p->b);
    }
    snprintf(m->identity, sizeof m->identity, "%016llx", (unsigned long long)h);
}

static void fill_info(kh_lora_info *out, const kh_lora_set *set, float strength)
{
    *out = (kh_lora_info){.path = set->path,
                          .format = set->format,
                          .strength = strength,
                          .tensors = set->count,
                          .alpha = kh_lora_usual_alpha(set),
                          .least_rank = set->parts[0].r,
                          .most_rank = set->parts[0].r};
    for (size_t i = 0; i < set->count; i++) {
        size_t r = set->parts[i].r;
        out->parameters += set->parts[i].numbers;
        out->least_rank = r < out->least_rank ? r : out->least_rank;
        out->most_rank = r > out->most_rank ? r : out->most_rank;
    }
}

kh_status kh_model_add_lora_set(kh_model *m, kh_lora_set *set, float strength)
{
    if (!isfinite(strength))
        KH_FAIL(KH_ERR_ARGUMENT, "%s: a finite strength is expected, found %g", set->path,
                (double)strength);
    if (!m->family) KH_FAIL(KH_ERR_STATE, "the file was opened for its vocabulary only");
    KH_TRY(kh_grow(&m->loras, m->lora_count, &m->lora_room, sizeof *m->loras, "the adapters"));
    if (strength != 0) {
        KH_TRY(kh_lora_attach(set, &m->w, m->file, (double)strength));
        mix_identity(m, set, strength);
    }
    kh_model_lora *entry = &m->loras[m->lora_count++];
    entry->set = set;
    fill_info(&entry->info, set, strength);
    return KH_OK;
}

kh_status kh_model_add_lora(kh_model *model, const char *path, float strength)
{
    kh_lora_set *set;
    if (!model->family) KH_FAIL(KH_ERR_STATE, "the file was opened for its vocabulary only");
    KH_TRY(kh_lora_open(&set, model->file, path));
    kh_status status = kh_model_add_lora_set(model, set, strength);
    if (status != KH_OK) {
        if (!strstr(kh_last_error(), path)) status = kh_fail_context(status, "%s", path);
        kh_lora_close(set);
    }
    return status;
}

size_t kh_model_lora_count(const kh_model *model)
{
    return model->lora_count;
}

const kh_lora_info *kh_model_get_lora(const kh_model *model, size_t index)
{
    return index < model->lora_count ? &model->loras[index].info : NULL;
}

uint64_t kh_model_lora_bytes(const kh_model *model)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < model->lora_count; i++)
        bytes += model->loras[i].info.parameters * sizeof(float);
    return bytes;
}

void kh_model_close_loras(kh_model *model)
{
    for (size_t i = 0; i < model->lora_count; i++) kh_lora_close(model->loras[i].set);
    kh_free(model->loras);
}
