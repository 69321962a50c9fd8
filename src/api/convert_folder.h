/* api/convert_folder.h: a model as a Hugging Face folder. */
#ifndef KH_API_CONVERT_FOLDER_H
#define KH_API_CONVERT_FOLDER_H

#include "model/lora_set.h"

#include <keyhole/convert.h>

/* True for "NAME/" and for a folder that is there. */
int kh_convert_is_folder(const char *output);
/* Writes config.json and model.safetensors, adapters merged (NULL: none); from a folder, its tokenizer's files are copied. `type` is F32,
 * F16 or BF16, anything else is KH_ERR_UNSUPPORTED with a sentence. */
kh_status kh_convert_folder(const kh_gguf *file, const char *input, const char *output,
                            const char *type, const kh_lora_merge *merge,
                            const kh_convert_options *options, kh_convert_result *result);

#endif
