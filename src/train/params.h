/* train/params.h: a model whose weights may change: F32 masters in one array, and a kh_model over them. */
#ifndef KH_TRAIN_PARAMS_H
#define KH_TRAIN_PARAMS_H

#include "model/network.h"
#include "train/tensors.h"

typedef struct kh_params {
    kh_model *model;            /* without a tokenizer; its weights and vectors lie in `weights` */
    float *weights, *gradients; /* [count] each; padding between tensors is 0 and stays so */
    size_t count;
    kh_tensor_spec *tensors; /* [tensor_count], names are the file's */
    size_t tensor_count;
    struct kh_lora_set *lora; /* the adapter, which is the model's; NULL: all weights are masters */
    char *names;              /* of an adapter's tensors */
    uint8_t *frozen;          /* [tensor_count] 1: has no gradient */
} kh_params;

/* Masters of every tensor of `file` (any type; composed or read), which is not needed afterwards. Tables that
 * are no weights (divisors of rotary frequencies, sinusoids) are frozen. */
kh_status kh_params_open(kh_params **out, const kh_gguf *file);
/* Masters of a low-rank adapter instead: the file's weights stay as they are (of any type) and are not trained. */
typedef struct kh_params_lora {
    size_t rank;  /* r; 0 with `from` */
    double alpha; /* 0: twice the rank */
    const char
        *targets; /* "PATTERN,..." over names of tensors; NULL: queries and values of attention */
    uint64_t seed;
    const char
        *from; /* an adapter that is trained on: its tensors, ranks and alphas; NULL: a new one */
} kh_params_lora;

/* `path`: the model, which is opened anew. A is uniform in +-1 / sqrt(inputs), B is 0. Matrices of layers alone
 * are adapted: rows of embeddings leave no records, and a head has V of them. */
kh_status kh_params_open_lora(kh_params **out, const char *path, const kh_params_lora *options);
void kh_params_close(kh_params *params); /* takes NULL */

/* Takes the memory of `count` masters and gradients: for those who lay out tensors. */
kh_status kh_params_reserve(kh_params *params);

/* What a tape asks: the gradient of the weight at `at`, NULL where it is frozen or no master. `context` is the
 * kh_params. */
float *kh_params_gradient_of(void *context, const float *at);
void kh_params_clear(kh_params *params); /* gradients become 0 */

#endif
