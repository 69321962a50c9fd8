/* api/convert_lora.h: adapters of a conversion. */
#ifndef KH_API_CONVERT_LORA_H
#define KH_API_CONVERT_LORA_H

#include "model/lora_set.h"

#include <keyhole/convert.h>

/* Opens the adapters of the options for the model that is converted, and checks that they can be merged;
 * close it in either case. */
kh_status kh_convert_open_loras(kh_lora_merge *out, const kh_gguf *file,
                                const kh_convert_options *options);
void kh_convert_close_loras(kh_lora_merge *merge);

/* Writes the one adapter of `merge` as `output`, its strength in its alpha. */
kh_status kh_convert_only_lora(const kh_gguf *file, kh_lora_merge *merge, const char *output,
                               const kh_convert_options *options, kh_convert_result *result);

#endif
