/* gen/encoder.h: what the inside asks of an encoder beside <keyhole/encode.h>. */
#ifndef KH_GEN_ENCODER_H
#define KH_GEN_ENCODER_H

#include "model/network.h"

#include <keyhole/encode.h>

/* The options' sentences speak of "a text". Encodes ids [n] and stores what a decoder's layers attend to
 * into `cross` (empty, of as many layers as the decoder). */
kh_status kh_encoder_source(kh_encoder *encoder, kh_kv *cross, const int32_t *ids, size_t n,
                            const kh_probe *probe);

/* kh_model_memory of a model that is an encoder alone: of a text of the trained length. */
kh_status kh_encoder_memory(kh_memory_need *out, const kh_model *model);
/* As kh_encoder_masked for one position of each text: logits [count][V]. */
kh_status kh_encoder_masked_each(kh_encoder *encoder, float *logits, const kh_encoder_text *texts,
                                 const size_t *positions, size_t count);

const kh_tokenizer *kh_encoder_tokenizer(const kh_encoder *encoder);
size_t kh_encoder_longest(const kh_encoder *encoder); /* tokens of a text */

#endif
