/* train/scratch.h: a model from nothing: described, drawn, and composed as the GGUF file it could be. */
#ifndef KH_TRAIN_SCRATCH_H
#define KH_TRAIN_SCRATCH_H

#include "format/gguf.h"
#include "train/init.h"

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

typedef enum kh_scratch_choice {
    KH_SCRATCH_USUAL, /* as the architecture usually has it */
    KH_SCRATCH_WITH,
    KH_SCRATCH_WITHOUT
} kh_scratch_choice;

typedef enum kh_scratch_pooling {
    KH_SCRATCH_POOL_USUAL, /* encoders: mean; decoders: last */
    KH_SCRATCH_POOL_MEAN,
    KH_SCRATCH_POOL_FIRST,
    KH_SCRATCH_POOL_LAST
} kh_scratch_pooling;

/* Zero: what the architecture's smallest published model has; of another width than that the heads are 64 wide,
 * and key heads and feed-forward layers keep their share. */
typedef struct kh_scratch_options {
    const char *architecture; /* NULL: "llama" */
    const char *name;         /* general.name; NULL: none */
    int layers;               /* of the decoder, or of the only stack */
    int encoder_layers;       /* beside a decoder; 0: as many as the decoder has */
    int width, heads, key_heads, head_width, ff;
    int vocabulary; /* 0: that of `words` */
    int context;
    int types;   /* bert: texts that embeddings tell apart */
    int window;  /* of the layers that see one, in architectures that know windows; -1: none */
    int rotated; /* numbers of a head that rotate */
    int buckets, max_distance;                       /* t5: of relative positions */
    int experts, experts_used, expert_ff, shared_ff; /* mixtures; shared_ff -1: no shared expert */
    double norm_eps, rope_base;
    const char *act;             /* bert: gelu, gelu_new, relu, silu; NULL: gelu */
    kh_scratch_choice head;      /* an output head that is not the embedding */
    kh_scratch_choice biases;    /* of attention's and the feed-forward layers' projections */
    kh_scratch_choice gate;      /* t5: a gate in the feed-forward layers */
    kh_scratch_choice mask_head; /* an encoder's head that predicts masked tokens */
    /* Sinusoids that are not trained where embeddings of positions are learned otherwise; usual for lra. */
    kh_scratch_choice fixed_positions;
    /* A head that tells classes apart, behind a pooled row. */
    int classes;                /* 0: none */
    kh_scratch_pooling pooling; /* of class heads, and of vectors of texts */
    int towers; /* pooled rows that it reads: 0 or 1; 2: [a, b]; 4: [a, b, a b, a - b] */
    int class_dense, class_inner; /* widths of the layers before the last; 0: there is none */
    const char *class_act;        /* behind those: tanh or relu; NULL: tanh */
    /* A token more than the task has, which begins every text (tokenizer.ggml.bos_token_id, and cls_token_id): its
     * embedding is zeros at first, and pooling is by the first row where nothing else is said. Not beside `words`. */
    kh_scratch_choice cls;
    /* Tokens. A file that holds tokenizer.ggml.* (kh_tokenizer_describe fills one; a whole model is fine too), or
     * pieces that stand for ids and have no text; NULL both: the pieces are "<0>", "<1>" ... */
    const kh_gguf *words;
    const char *const *pieces; /* [vocabulary] */
    kh_init_options init;
    int threads; /* 0: all processors that the process may use */
} kh_scratch_options;

/* A composed model with F32 tensors of its own. Numbers depend on the seed, a tensor's name and shape and the
 * place in it, so they are the same on every machine and for any number of threads. Refused in one sentence:
 * an unknown architecture or initialisation, a number outside its range, a part that the architecture does not
 * have. */
kh_status kh_scratch_open(kh_gguf **out, const kh_scratch_options *options);

#endif
