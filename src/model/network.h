/* model/network.h: an open model as the inside sees it, and the one forward pass. */
#ifndef KH_MODEL_NETWORK_H
#define KH_MODEL_NETWORK_H

#include "model/description.h"
#include "run/run.h"
#include "tokens/tokenizer.h"

#include <keyhole/model.h>

/* An adapter that a model was given. */
typedef struct kh_model_lora {
    struct kh_lora_set *set;
    kh_lora_info info;
} kh_model_lora;

struct kh_model {
    kh_gguf *file;
    kh_tokenizer *tokenizer;
    kh_arena arena;          /* vectors and blocks */
    const kh_family *family; /* NULL: vocabulary only */
    kh_description d;
    kh_weights w;
    kh_rope rope[2]; /* global, local */
    kh_rope far;     /* global, of contexts beyond the original one; far.n_rot 0: as rope[0] */
    kh_model_info info;
    kh_model_lora *loras; /* [lora_count] */
    size_t lora_count, lora_room;
    char identity[17], name[128], architecture[32];
};

/* As kh_model_open, without a tokenizer: texts can be neither read nor written. */
kh_status kh_model_open_network(kh_model **out, const char *path);

/* The same for a file that was put together in memory, and is the model's from here on; when this fails it is
 * closed. */
kh_status kh_model_open_composed(kh_model **out, kh_gguf *file);

/* kh_model_add_lora with a set from elsewhere, which becomes the model's unless this fails. */
kh_status kh_model_add_lora_set(kh_model *model, struct kh_lora_set *set, float strength);
uint64_t kh_model_lora_bytes(const kh_model *model);
void kh_model_close_loras(kh_model *model);

/* Where logits go, chunk by chunk: rows [first, first + rows) of batch->logit_rows. A status other
 * than KH_OK ends the pass. */
typedef struct kh_logit_sink {
    kh_status (*take)(void *context, size_t first, size_t rows, float *logits /* [rows][V] */);
    void *context;
    float *buffer; /* [chunk_rows][V]; with a tape it has a twin */
    size_t chunk_rows;
    float *
        hidden; /* [logit_count][D] gets what logits are made of, and none are made; NULL: logits */
} kh_logit_sink;

/* Bytes of run->step and of each worker's scratch for batches of at most T rows over sequences of at
 * most S positions (and, behind an encoder, sources of at most S). */
void kh_forward_need(const kh_model *model, const kh_attn_plan *plan, const kh_kv_shape *shape,
                     size_t T, size_t S, size_t *step, size_t *scratch);

/* One pass of the decoder over run->batch: appends keys and values to the sequences (prepared by the caller,
 * who advances them afterwards), hands the logits of batch->logit_rows to the sink. Behind an encoder,
 * run->kv_cross holds what kh_forward_source made of each sequence's source.
 *
 * With run->tape the caches have one layer (as for an encoder), `take` leaves the gradient of its rows of
 * logits in the twin of the sink's buffer, and the memory of run->step stays taken for kh_tape_backward. */
kh_status kh_forward(const kh_model *model, kh_run *run, const kh_logit_sink *sink);
/* Rows of a decoder's residual stream, wherever they were taken, become what its logits are made of: the final norm with
 * each row's own scale, and the scale of logits. */
void kh_forward_finish(const kh_model *model, kh_run *run, float *x /* [rows][D] */, size_t rows);
/* Logits [rows][V] of what a sink's `hidden` got. */
kh_status kh_forward_logits(const kh_model *model, kh_run *run, float *logits,
                            const float *hidden /* [rows][D] */, size_t rows);

/* One pass of the encoder over run->batch: whole sequences, each a span that begins at position 0 of an empty
 * cache of ONE layer (prepared by the caller, never advanced: layers take turns). out [T][D]: the last
 * residual stream behind the final norm, where the model has one. */
kh_status kh_forward_encoder(const kh_model *model, kh_run *run, float *out /* [T][D] */);

/* The same sizes for kh_forward_encoder and what follows it, for batches of at most T rows of sequences of at
 * most S; shape.layers is 1. */
void kh_forward_encoder_need(const kh_model *model, const kh_attn_plan *plan,
                             const kh_kv_shape *shape, size_t T, size_t S, size_t *step,
                             size_t *scratch);

/* Keys and values of every decoder layer's attention to the source, from the encoder's rows x [T][D] of one
 * sequence, into `cross` (empty; prepared and advanced here). */
kh_status kh_forward_source(const kh_model *model, kh_run *run, kh_kv *cross, const float *x,
                            size_t T);

/* Logits [T][V] of an encoder that predicts masked tokens, from its rows x [T][D]; x is overwritten. */
kh_status kh_forward_masked(const kh_model *model, kh_run *run, float *logits, float *x, size_t T);

/* The same for batch->logit_rows of x, a chunk at a time to the sink, as kh_forward does; x stays. */
kh_status kh_forward_masked_rows(const kh_model *model, kh_run *run, const float *x /* [T][D] */,
                                 const kh_logit_sink *sink);
/* Bytes that it takes of run->step for chunks of `rows`; raises *scratch to those of a worker. */
void kh_forward_masked_rows_need(const kh_model *model, size_t rows, size_t *step, size_t *scratch);

/* ---- classes ---- */

/* The last residual stream behind the final norm [T][D], of an encoder (as kh_forward_encoder) or of a decoder (whose
 * caches are those of kh_forward). Sizes: kh_forward_encoder_need, kh_forward_need. */
kh_status kh_forward_rows(const kh_model *model, kh_run *run, float *out /* [T][D] */);

/* How many texts the head for classes reads at once: 1 or 2. */
size_t kh_class_towers(const kh_model *model);
/* Logits [n / towers][classes] of texts (or of neighbouring pairs of them), from rows x [T][D]: range i holds
 * those of text i. With run->tape logits and x have twins, and memory of run->step stays taken. */
kh_status kh_forward_classify(const kh_model *model, kh_run *run, float *logits, const float *x,
                              const kh_row_range *ranges /* [n] */, size_t n);
/* Bytes that it takes of run->step; raises *scratch to those of a worker. */
void kh_forward_classify_need(const kh_model *model, size_t n, size_t *step, size_t *scratch);

#endif
