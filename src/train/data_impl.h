/* train/data_impl.h: how the parts of train/data* know each other; private to them. */
#ifndef KH_TRAIN_DATA_IMPL_H
#define KH_TRAIN_DATA_IMPL_H

#include "base/buf.h"
#include "base/file.h"
#include "train/data.h"

#include <jansson.h>

/* ---- order (data_order.c) ---- */

/* Where position `i` of an epoch lies in a permutation of 0 to n - 1; without memory. */
uint64_t kh_data_permute(uint64_t n, uint64_t seed, uint64_t epoch, uint64_t i);
/* Whether a document is held out, for a share of 0 to 1. */
int kh_data_held_out(uint64_t document, double share);

/* ---- sources (data_source.c) ---- */

typedef struct kh_source_kind {
    /* rows [start, start + most) of a document, fewer where it ends; label and second are those of the
     * whole. Called with start 0 and most SIZE_MAX where `rows` is NULL. */
    kh_status (*get)(kh_source *source, uint64_t index, size_t start, size_t most,
                     kh_train_example *out);
    uint64_t (*rows)(const kh_source *source, uint64_t index); /* NULL: not known without reading */
    void (*close)(kh_source *source); /* all but `name` and the source itself */
} kh_source_kind;

struct kh_source {
    const kh_source_kind *kind;
    char *name;
    uint64_t count, files, rows, skipped;
    int masked;      /* some rows have no target */
    uint64_t digest; /* of what its documents depend on, as far as that is cheap */
    int held;        /* `example` is the whole document `last` */
    uint64_t last;
    kh_train_example example;
};

/* Goes on with a digest (FNV-1a over words; begins with 0). */
void kh_digest_add(uint64_t *digest, const void *bytes, size_t size);

/* *out = a cleared source of `size` bytes that begins with a kh_source. */
kh_status kh_source_new(void *out, size_t size, const kh_source_kind *kind, const char *name);
/* Rows [start, start + most) of a document. */
kh_status kh_source_slice(kh_source *source, uint64_t index, size_t start, size_t most,
                          kh_train_example *out);

/* ---- documents in files (data_files.c) ---- */

typedef struct kh_data_file {
    char *path;
    kh_source_format format; /* never BY_NAME */
    uint64_t size;
} kh_data_file;

/* Bytes of a file; head and tail: they begin and end a document. */
typedef struct kh_data_place {
    uint64_t start;
    uint32_t size;
    uint32_t file : 30, head : 1, tail : 1;
} kh_data_place;

typedef struct kh_data_files {
    kh_data_file *list; /* [count] */
    size_t count, room;
    kh_data_place *places; /* [place_count] */
    size_t place_count, place_room;
    kh_map map; /* of file `mapped` - 1 */
    size_t mapped;
} kh_data_files;

/* Lists paths, and what lies in folders among them. */
kh_status kh_data_files_list(kh_data_files *files, const char *const *paths, size_t count,
                             kh_source_format format);
/* Finds the documents of all texts; those longer than `piece` bytes are cut. */
kh_status kh_data_files_scan(kh_data_files *files, const char *separator, size_t piece);
/* The bytes of a place; they stay where they are until the next call. */
kh_status kh_data_files_read(kh_data_files *files, size_t place, kh_slice *out);
/* The number of the line that a place begins, from 1. */
size_t kh_data_files_line(const kh_data_files *files, size_t place);
void kh_data_files_close(kh_data_files *files);

/* ---- a document as tokens (data_text.c, data_chat.c) ---- */

typedef struct kh_document {
    kh_tokens ids;
    kh_buf loss; /* bytes [ids.count]: 1 where the id is to be predicted */
} kh_document;

/* Sets the loss of ids [start, end). */
kh_status kh_document_mark(kh_document *document, size_t start, size_t end);
/* How many ids two lists begin with in common. */
size_t kh_ids_common(const kh_tokens *a, const kh_tokens *b);

/* A conversation, as "messages" and "tools" (NULL: none) of a line. */
kh_status kh_document_chat(kh_document *document, const kh_tokenizer *tokenizer,
                           const kh_source_options *options, const json_t *messages,
                           const json_t *tools);

/* A source over listed files; takes them over, on failure too. */
kh_status kh_source_open_texts(kh_source **out, kh_data_files *files, const kh_tokenizer *tokenizer,
                               const kh_source_options *options);

/* ---- tokens in memory and in shards (data_store.c, data_shard.c) ---- */

enum { KH_STORE_MASK_16 = 1 << 15 };
#define KH_STORE_MASK_32 (1u << 31)

/* Documents one behind the other: ids of 2 or 4 bytes; in a masked store the highest bit of an id
 * says that it is not to be predicted. */
typedef struct kh_token_store {
    const void *ids; /* [count] uint16_t or uint32_t */
    unsigned width;  /* 2 or 4 */
    int masked;
    uint64_t count, documents;
    const uint64_t *ends; /* [documents] the id behind the last of each, ascending */
    uint64_t vocabulary;  /* ids are below; 0: whatever `limit` of the source says */
    uint64_t tokenizer;   /* digest, or 0 */
} kh_token_store;

/* The store that the bytes of a shard are; `data` (8-byte aligned) must outlive it. */
kh_status kh_shard_parse(kh_token_store *out, const uint8_t *data, size_t size, const char *name);
/* A digest of the pieces of a tokenizer; never 0. */
uint64_t kh_tokenizer_digest(const kh_tokenizer *tokenizer);

/* Replaces a source of texts by its tokens in memory. */
kh_status kh_source_keep(kh_source **source);
/* A source over listed shards; takes the files over, on failure too. */
kh_status kh_source_open_shards(kh_source **out, kh_data_files *files,
                                const kh_tokenizer *tokenizer);

#endif
