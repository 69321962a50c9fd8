/* keyhole/convert.h: a model as a GGUF file of any type, or as a Hugging Face folder: from either. */
#ifndef KEYHOLE_CONVERT_H
#define KEYHOLE_CONVERT_H

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The types that a model can be written in: "F16", "Q8_0", "Q4_K_M" ...; docs/formats.md says what
 * each gives to which tensors. */
KH_API size_t kh_convert_type_count(void);
KH_API const char *kh_convert_type_at(size_t index);

/* Called now and then; any other answer than 0 stops the work. */
typedef int kh_convert_progress(void *context, const char *stage, size_t done, size_t all);

/* An adapter to merge: what kh_model_add_lora takes. */
typedef struct kh_convert_lora {
    const char *path;
    float strength; /* 1: as trained */
} kh_convert_lora;

typedef struct kh_convert_options {
    const char *type; /* a name from above, in capitals or small letters; NULL: F16 */
    int pure;         /* 1: every matrix in the type's own blocks, none with more bits */
    int overwrite;    /* 1: an output that exists is replaced; 0: it is KH_ERR_STATE */
    int no_tokenizer; /* 1: a folder's tokenizer is left out (a GGUF file's stays) */
    int no_heads; /* 1: an encoder's heads for masked tokens and answers are left out of a GGUF file */
    int threads; /* 0: all processors */
    const kh_convert_lora
        *loras; /* [lora_count] added to the weights, in f32, before they get their type */
    size_t lora_count;
    int only_lora; /* 1: the output is the one adapter, in F32: a GGUF file or a PEFT folder */
    kh_convert_progress *progress;
    void *progress_context;
} kh_convert_options;

enum { KH_CONVERT_TYPES = 16 };

/* What was written. */
typedef struct kh_convert_result {
    uint64_t bytes_in, bytes_out; /* of tensors */
    uint64_t parameters;
    size_t heads; /* tensors of such heads that were written: llama.cpp refuses a file with them */
    size_t tensors, copied; /* copied: the type was that already */
    size_t unfit;           /* matrices whose rows are no multiple of the wanted block */
    size_t requantised;     /* tensors that were quantised before, with their errors */
    size_t merged;          /* tensors that adapters changed */
    struct {
        const char *name; /* "Q6_K" */
        size_t tensors;
        uint64_t bytes;
    } types[KH_CONVERT_TYPES];
    size_t type_count;
    double seconds;
} kh_convert_result;

/* Writes the model at `input`, whatever the program opens, as the GGUF file `output`, which appears
 * when it is whole; where `output` is a folder or ends in '/', as a Hugging Face folder (F32, F16 or
 * BF16; with the tokenizer). `options` may be NULL, as may `result`. KH_ERR_FORMAT names a tensor that holds what
 * the type cannot; KH_ERR_STOPPED when `progress` said so. */
KH_API kh_status kh_convert(const char *input, const char *output,
                            const kh_convert_options *options, kh_convert_result *result);

#ifdef __cplusplus
}
#endif
#endif
