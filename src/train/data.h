/* train/data.h: what a model is trained on: sources give documents by number, a loader puts them in
 * order and packs them into batches. */
#ifndef KH_TRAIN_DATA_H
#define KH_TRAIN_DATA_H

#include "run/run.h"
#include "tokens/tokenizer.h"

#include <keyhole/shard.h>
#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

/* ---- sources ---- */

/* One document as rows of a forward pass. For language models a document of n + 1 tokens has n rows,
 * and targets[t] is token t + 1. */
typedef struct kh_train_example {
    const int32_t *tokens;  /* [n] */
    const int32_t *targets; /* [n] the id that row t has to predict; -1: the row has no loss. NULL:
                               no row has one */
    size_t n;               /* 0: nothing to learn from, the document is passed over */
    int label;              /* class of the whole document, or -1 */
    size_t second;          /* two texts: the row where the second begins; 0: there is one */
} kh_train_example;

/* Documents 0 to count - 1; reading one does not depend on what was read before. One thread. */
typedef struct kh_source kh_source;

typedef enum kh_source_format {
    KH_SOURCE_BY_NAME, /* NAME.jsonl: lines of JSON; NAME.khtok: a shard; everything else: text */
    KH_SOURCE_TEXT,    /* one document a file, or as `separator` says */
    KH_SOURCE_JSONL,   /* one document a line: an object with "text"; "prompt" and "completion"; or
                          "messages" (and "tools") */
    KH_SOURCE_SHARD    /* tokens that kh_shard_write wrote */
} kh_source_format;

/* Which answers of a conversation have a loss. */
typedef enum kh_chat_answers { KH_ANSWERS_ALL, KH_ANSWERS_LAST } kh_chat_answers;

/* How markers such as <|im_end|> inside a text, a prompt or a completion are read. */
typedef enum kh_text_markers { KH_MARKERS_ARE_TEXT, KH_MARKERS_ARE_TOKENS } kh_text_markers;

typedef struct kh_source_options {
    kh_source_format format;
    const char *separator; /* text: the line that stands between two documents ("": a blank line);
                              NULL: a file is one document */
    kh_edge bos, eos;      /* default: as the tokenizer does by itself, but an eos behind every
                              completion. A chat template writes its own */
    kh_text_markers markers;
    kh_chat_answers answers;
    const char *chat_format;   /* a format by its name; NULL: a template */
    const char *chat_template; /* a Jinja template; NULL: the tokenizer's own */
    int64_t
        chat_time; /* seconds since 1970 that a template sees; 0: the start of 2025, not the clock:
                          a run can be repeated */
    /* Texts of up to `store` bytes in all (0: 64 MiB; SIZE_MAX: any) are tokenised once and kept as
     * tokens. Of larger ones a document is tokenised whenever it is its turn, and a text file is cut
     * at line ends into documents of at most `piece` bytes (0: 1 MiB). */
    size_t store, piece;
} kh_source_options;

/* The public options as these. */
kh_source_options kh_source_options_from(const kh_document_options *documents);

/* Opens files and folders (of these every file that is not hidden, by name, without their own
 * folders). The tokenizer must outlive the source. Refused in one sentence: nothing there, a line that
 * is not understood (file, line, what was expected; of stored texts at once, of others when it is
 * read), a shard that is damaged or of another tokenizer. `options` NULL: defaults. */
kh_status kh_source_open(kh_source **out, const char *const *paths, size_t count,
                         const kh_tokenizer *tokenizer, const kh_source_options *options);

/* A source that a program makes up: tasks. `get` fills an example whose arrays stay valid until the
 * next call; it must give the same for the same index. */
typedef struct kh_source_calls {
    const char *name; /* for sentences; stays the caller's */
    void *context;
    uint64_t count; /* UINT64_MAX: endless; read in its own order, from 0 */
    kh_status (*get)(void *context, uint64_t index, kh_train_example *out);
} kh_source_calls;
kh_status kh_source_open_calls(kh_source **out, const kh_source_calls *calls);
void kh_source_close(kh_source *source); /* takes NULL */

/* Document `index`; arrays belong to the source until its next call. */
kh_status kh_source_get(kh_source *source, uint64_t index, kh_train_example *out);

typedef struct kh_source_info {
    const char *name;   /* the first path, or the name of calls */
    uint64_t documents; /* UINT64_MAX: endless */
    uint64_t files;
    uint64_t rows;    /* in all; 0: not known without reading */
    uint64_t skipped; /* documents without a row, where rows are known */
} kh_source_info;
void kh_source_get_info(const kh_source *source, kh_source_info *out);

/* Writes the tokens of all documents as a shard (docs/formats.md); it appears when it is whole.
 * Examples with labels or two texts have no place in it: KH_ERR_UNSUPPORTED. */
kh_status kh_shard_write(const char *path, kh_source *source, const kh_tokenizer *tokenizer);

/* ---- the loader ---- */

typedef enum kh_data_order {
    KH_ORDER_SHUFFLED, /* a permutation of its own in every epoch, from (seed, epoch) */
    KH_ORDER_GIVEN
} kh_data_order;

typedef enum kh_data_pack {
    KH_PACK_FULL, /* batches are filled to `rows`; documents longer than `length` are cut in pieces */
    KH_PACK_NONE /* `batch` documents, each cut to `length`; the rest is not used */
} kh_data_pack;

/* Which part of the documents: a fixed hash of the number of a document decides, not the seed, so that
 * a document stays on its side when others are added behind it. */
typedef enum kh_data_side { KH_SIDE_TRAIN, KH_SIDE_VALID } kh_data_side;

/* How an example of two texts becomes rows. */
typedef enum kh_data_pairs {
    KH_PAIRS_TOGETHER, /* one span; batch.types tells the texts apart */
    KH_PAIRS_APART     /* two spans, positions from 0 in both, each cut to `length` */
} kh_data_pairs;

typedef struct kh_data_options {
    size_t length; /* L: the most rows of a span; at least 1 */
    size_t batch;  /* B: sequences a batch; 0: 1 */
    size_t rows;   /* T: rows of a full batch (not for KH_PACK_NONE); 0: B * L */
    kh_data_pack pack;
    kh_data_order order;
    kh_data_pairs pairs;
    uint64_t seed;
    uint64_t epochs; /* after so many there are only empty batches; 0: no end */
    double valid;    /* share of the documents that is held out, 0 to below 1 */
    kh_data_side side;
} kh_data_options;

/* A document, or a piece of one, inside a batch. */
typedef struct kh_data_item {
    uint64_t document;
    size_t start;     /* its first row within the document */
    size_t row, rows; /* rows [row, row + rows) of the batch */
    size_t second;    /* row of the batch where the second text begins; 0: there is one */
    int label;        /* or -1 */
} kh_data_item;

/* Rows of an item have one span (two for texts apart) and positions from 0: attention never crosses
 * documents. There are no padding rows: a batch ends early when the next document does not fit. */
typedef struct kh_data_batch {
    kh_batch batch;         /* span i has seq i; logit_rows are the rows that have a target */
    const int32_t *targets; /* [T] -1: no loss; batch.logit_count rows have one */
    const kh_data_item *items;
    size_t item_count;
    uint64_t step, epoch; /* of this batch, from 0; epoch of its first row */
} kh_data_batch;

typedef struct kh_data kh_data;

/* `source` must outlive it and may serve several loaders of one thread. When no document of this side
 * has a row (as far as that is known without reading): one sentence. */
kh_status kh_data_open(kh_data **out, kh_source *source, const kh_data_options *options);
void kh_data_close(kh_data *data); /* takes NULL */
/* The most rows and spans that a batch can have. */
size_t kh_data_max_rows(const kh_data *data);
size_t kh_data_max_spans(const kh_data *data);

/* The next batch; its arrays are the loader's until the next call. Batch s is a function of the
 * source, the options and s. At the end of the last epoch batch.n is 0. On failure the position stays
 * where it was. */
kh_status kh_data_next(kh_data *data, kh_data_batch *out);

/* The position between two batches, as bytes. Loading it into a loader of the same data and options
 * goes on with the same batches to the bit; other data or options are refused. */
enum { KH_DATA_POSITION = 48 };
void kh_data_save(const kh_data *data, uint8_t bytes[KH_DATA_POSITION]);
kh_status kh_data_load(kh_data *data, const uint8_t *bytes, size_t size);

typedef struct kh_data_counts {
    uint64_t units;   /* pieces of an epoch, both sides; of sources that do not know their rows
                         documents */
    uint64_t skipped; /* documents and pieces without a loss, a label or a row, since the loader was
                         opened or a position loaded */
} kh_data_counts;
void kh_data_get_counts(const kh_data *data, kh_data_counts *out);

#endif
