/* Adapters of a conversion: opened for the model that is converted, merged by whoever writes its tensors, or
 * written themselves, from PEFT's form to llama.cpp's and back. */
#include "api/convert_lora.h"

#include "api/convert_folder.h"
#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"

#include <math.h>
#include <unistd.h>

kh_status kh_convert_open_loras(kh_lora_merge *out, const kh_gguf *file,
                                const kh_convert_options *options)
{
    *out = (kh_lora_merge){0};
    if (options->lora_count == 0) return KH_OK;
    KH_TRY(kh_new(&out->sets, options->lora_count, sizeof *out->sets, "the adapters"));
    KH_TRY(kh_new(&out->strengths, options->lora_count, sizeof *out->strengths, "the adapters"));
    for (size_t i = 0; i < options->lora_count; i++) {
        const kh_convert_lora *lora = &options->loras[i];
        if (!isfinite(lora->strength))
            KH_FAIL(KH_ERR_ARGUMENT, "%s: a finite strength is expected, found %g", lora->path,
                    (double)lora->strength);
        KH_TRY(kh_lora_open(&out->sets[i], file, lora->path));
        out->strengths[i] = lora->strength;
        out->count++;
    }
    return options->only_lora ? KH_OK : kh_lora_merge_check(out, file);
}

void kh_convert_close_loras(kh_lora_merge *merge)
{
    for (size_t i = 0; i < merge->count; i++) kh_lora_close(merge->sets[i]);
    kh_free(merge->sets);
    kh_free(merge->strengths);
}

static kh_status refuse_existing(const char *output, int folder, const kh_convert_options *options)
{
    kh_buf path = {0};
    kh_status status = kh_buf_format(&path, "%s%s", output,
                                     folder ? "/adapter_model.safetensors" : "");
    if (status == KH_OK && !options->overwrite && access(path.data, F_OK) == 0)
        status = kh_fail(KH_ERR_STATE,
                         "%s: exists already; it is replaced only on demand (--force)", path.data);
    kh_buf_free(&path);
    return status;
}

kh_status kh_convert_only_lora(const kh_gguf *file, kh_lora_merge *merge, const char *output,
                               const kh_convert_options *options, kh_convert_result *result)
{
    int folder = kh_convert_is_folder(output);
    KH_TRY(refuse_existing(output, folder, options));
    kh_lora_set *set = merge->sets[0];
    for (size_t i = 0; i < set->count; i++) {
        set->parts[i].alpha *= (double)merge->strengths[0];
        result->parameters += set->parts[i].numbers;
    }
    KH_TRY(folder ? kh_lora_save_peft(set, file, output) : kh_lora_save_gguf(set, file, output));
    result->tensors = 2 * set->count;
    result->bytes_in = result->bytes_out = result->parameters * sizeof(float);
    result->types[0].name = "F32";
    result->types[0].tensors = result->tensors;
    result->types[0].bytes = result->bytes_out;
    result->type_count = 1;
    return KH_OK;
}
