/* keyhole/shard.h: texts as shards of tokens, which training reads where they lie. */
#ifndef KEYHOLE_SHARD_H
#define KEYHOLE_SHARD_H

#include <keyhole/model.h>
#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Whether a token stands at an edge of a document; by default as the tokenizer puts it by itself. */
typedef enum kh_edge { KH_EDGE_DEFAULT, KH_EDGE_ADD, KH_EDGE_OMIT } kh_edge;

/* What becomes a document, and what stands around it; docs/training.md. */
typedef struct kh_document_options {
    const char *separator;   /* the line between two documents of a text file ("": a blank line);
                                NULL: a file is one */
    const char *chat_format; /* conversations by a known format; NULL: the model's own template */
    kh_edge bos, eos;        /* a completion has an eos by default */
    int markers;     /* 1: markers such as <|im_end|> in texts are tokens; 0: they are text */
    int last_answer; /* 1: of a conversation only the last answer is to be learned */
} kh_document_options;

typedef struct kh_shard_options {
    kh_document_options documents;
    int overwrite; /* 1: an output that exists is replaced; 0: it is KH_ERR_STATE */
} kh_shard_options;

typedef struct kh_shard_result {
    uint64_t files, documents;
    uint64_t empty;  /* documents with nothing to learn */
    uint64_t tokens; /* in all */
    uint64_t bytes;  /* of the shard */
} kh_shard_result;

/* Writes files and folders of text, .jsonl and shards as one shard, which appears when it is whole.
 * `options` and `result` may be NULL. A line that is not understood is named. */
KH_API kh_status kh_shard_make(const kh_model *model, const char *output, const char *const *paths,
                               size_t count, const kh_shard_options *options,
                               kh_shard_result *result);

#ifdef __cplusplus
}
#endif
#endif
