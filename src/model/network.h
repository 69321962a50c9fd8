/* model/network.h: an open model as the inside sees it, and the one forward pass. */
#ifndef KH_MODEL_NETWORK_H
#define KH_MODEL_NETWORK_H

#include "format/tokenizer.h"
#include "model/description.h"
#include "run/run.h"

#include <keyhole/model.h>

struct kh_model {
    kh_gguf *file;
    kh_tokenizer *tokenizer;
    kh_arena arena;          /* vectors and blocks */
    const kh_family *family; /* NULL: vocabulary only */
    kh_description d;
    kh_weights w;
    kh_rope rope[2]; /* global, local */
    kh_model_info info;
    char identity[17], name[128], architecture[32];
};

/* As kh_model_open, without a tokenizer: texts can be neither read nor written. */
kh_status kh_model_open_network(kh_model **out, const char *path);

/* Where logits go, chunk by chunk: rows [first, first + rows) of batch->logit_rows. A status other
 * than KH_OK ends the pass. */
typedef struct kh_logit_sink {
    kh_status (*take)(void *context, size_t first, size_t rows, float *logits /* [rows][V] */);
    void *context;
    float *buffer; /* [chunk_rows][V] */
    size_t chunk_rows;
} kh_logit_sink;

/* Bytes of run->step and of each worker's scratch for batches of at most T rows over sequences of at
 * most S positions. */
void kh_forward_need(const kh_model *model, const kh_attn_plan *plan, const kh_kv_shape *shape,
                     size_t T, size_t S, size_t *step, size_t *scratch);

/* One pass over run->batch: appends keys and values to the sequences (prepared by the caller, who
 * advances them afterwards), hands the logits of batch->logit_rows to the sink. */
kh_status kh_forward(const kh_model *model, kh_run *run, const kh_logit_sink *sink);

#endif
