/* keyhole/hub.h: models by name, from a hub into the cache that its other clients use too.
 *
 * A name is OWNER/MODEL[@REVISION][:WHAT]. WHAT is a quantisation (Q8_0, in any case), a file of the
 * repository, or "safetensors". Without it: the GGUF file that llama.cpp would choose (Q4_K_M, then
 * Q8_0, then the first), all parts of it; in a repository without GGUF files the folder: weights in
 * safetensors, configuration, tokenizer, chat template. */
#ifndef KEYHOLE_HUB_H
#define KEYHOLE_HUB_H

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum kh_hub_stage {
    KH_HUB_ASK,   /* what the repository holds */
    KH_HUB_WAIT,  /* for another program that obtains the same file */
    KH_HUB_CHECK, /* what an interrupted pull has left is read again */
    KH_HUB_FETCH, /* bytes arrive */
    KH_HUB_RETRY  /* after a fault that may pass; `reason` names it */
} kh_hub_stage;

typedef struct kh_hub_progress {
    kh_hub_stage stage;
    const char *file;            /* its name in the repository; "" while asking */
    size_t index, count;         /* this file, from 0, among those that are fetched */
    uint64_t done, size;         /* bytes of this file */
    uint64_t all_done, all_size; /* bytes of all files that are fetched */
    const char *reason;          /* "" but while a fault is waited out */
    double seconds;              /* how long that wait is */
} kh_hub_progress;

enum {
    KH_HUB_OFFLINE = 1, /* asks nobody; also set by $HF_HUB_OFFLINE */
    KH_HUB_DRY = 2,     /* says what would be fetched, and fetches and writes nothing */
    /* Takes what the cache holds when the hub does not answer or refuses, and says so in `notice`;
     * with such a copy a fault is not retried. */
    KH_HUB_FALL_BACK = 4
};

/* Zero means default. */
typedef struct kh_hub_options {
    const char *cache;    /* folder; NULL: $HF_HUB_CACHE, $HF_HOME/hub, ~/.cache/huggingface/hub */
    const char *endpoint; /* NULL: $HF_ENDPOINT, https://huggingface.co */
    const char *token;    /* NULL: $HF_TOKEN, the file $HF_TOKEN_PATH, $HF_HOME/token; "": none */
    unsigned flags;
    int tries;      /* of a request without progress, 1 to 100; 0: 6 */
    double timeout; /* seconds without a byte; 0: $HF_HUB_DOWNLOAD_TIMEOUT or 30 */
    /* Called often; a result other than 0 ends the pull with KH_ERR_STOPPED. */
    int (*progress)(void *context, const kh_hub_progress *progress);
    void *context;
} kh_hub_options;

typedef struct kh_hub_file {
    const char *name; /* in the repository */
    const char *path; /* in the cache */
    uint64_t size;
    int cached; /* it was there, nothing had to be fetched */
} kh_hub_file;

typedef struct kh_hub_model {
    const char *repository, *revision;
    const char *commit; /* 40 hexadecimal digits */
    const char *path;   /* what kh_model_open takes: a GGUF file, or the folder of the snapshot */
    int is_folder;
    const kh_hub_file *files; /* [count]; of a split model part 1 first */
    size_t count;
    uint64_t bytes,
        fetched;        /* of all files; of those that were (or with KH_HUB_DRY would be) fetched */
    const char *notice; /* "", or why the hub was not followed */
} kh_hub_model;

/* Brings the files of a name into the cache, unless they are there. A file appears under its name only
 * when it is whole and its checksum is right. What an interrupted call has fetched stays, and the next
 * one goes on from there. *out NULL on failure; free with kh_hub_model_free. Failures: a wrong name
 * (KH_ERR_ARGUMENT), not there (KH_ERR_NOT_FOUND), the network, the disk (KH_ERR_IO), an answer that
 * makes no sense (KH_ERR_FORMAT), a wrong checksum (KH_ERR_CHECK), stopped (KH_ERR_STOPPED), a build
 * without libcurl (KH_ERR_UNSUPPORTED; the cache can still be used). options NULL: defaults. */
KH_API kh_status kh_hub_pull(kh_hub_model **out, const char *name, const kh_hub_options *options);
KH_API void kh_hub_model_free(kh_hub_model *model);

/* Calls `each` for every model in the cache: a GGUF file with its parts, or a folder with safetensors.
 * REPOSITORY@REVISION:NAME names it again, NAME being that of its first file, or "safetensors". A result
 * other than 0 ends the walk. */
KH_API kh_status kh_hub_cached(const kh_hub_options *options,
                               int (*each)(void *context, const kh_hub_model *model),
                               void *context);

#ifdef __cplusplus
}
#endif
#endif
