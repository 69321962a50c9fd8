/* Sources: what their kinds share.
 *
 *     paths --list--> files --+-- texts: places in mapped files, tokenised when read
 *                             |      \-- small in all: read once, kept as tokens in memory
 *                             +-- shards: tokens in mapped files
 *     calls of a program -----+
 *
 * A source gives documents by number and has no position of its own: order, resuming and the held-out
 * side are the loader's business, once for all kinds. Two kinds of reading follow from what a source
 * knows. Tokens that lie somewhere have lengths, and any rows of a document can be had alone; a text
 * has to be tokenised whole, so its last document is held here until another one is asked for: a long
 * one is cut into many batches. */
#include "train/data.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "train/data_impl.h"

#include <string.h>

typedef struct calls_source {
    kh_source base;
    kh_source_calls calls;
} calls_source;

kh_status kh_source_new(void *out, size_t size, const kh_source_kind *kind, const char *name)
{
    kh_source *source;
    *(void **)out = NULL;
    KH_TRY(kh_new(&source, 1, size, "a source of documents"));
    source->kind = kind;
    source->name = kh_strdup(name);
    if (!source->name) {
        kh_free(source);
        KH_FAIL(KH_ERR_MEMORY, "no memory for the name of a source of documents");
    }
    *(void **)out = source;
    return KH_OK;
}

void kh_digest_add(uint64_t *digest, const void *bytes, size_t size)
{
    *digest = (*digest ^ size) * 0x100000001B3ull;
    for (size_t at = 0; at < size; at += sizeof(uint64_t)) {
        uint64_t word = 0;
        memcpy(&word, (const char *)bytes + at, size - at < sizeof word ? size - at : sizeof word);
        *digest = (*digest ^ word) * 0x100000001B3ull;
        *digest ^= *digest >> 29;
    }
}

static kh_status calls_get(kh_source *source, uint64_t index, size_t start, size_t most,
                           kh_train_example *out)
{
    const kh_source_calls *calls = &((calls_source *)source)->calls;
    (void)start, (void)most;
    KH_TRY(calls->get(calls->context, index, out));
    if (out->second && out->second >= out->n)
        KH_FAIL(KH_ERR_ARGUMENT,
                "%s: document %llu has %zu rows, but its second text begins at %zu", source->name,
                (unsigned long long)index, out->n, out->second);
    return KH_OK;
}

static void calls_close(kh_source *source)
{
    (void)source;
}

kh_status kh_source_open_calls(kh_source **out, const kh_source_calls *calls)
{
    static const kh_source_kind kind = {calls_get, NULL, calls_close};
    calls_source *source;
    *out = NULL;
    KH_TRY(kh_source_new(&source, sizeof *source, &kind, calls->name));
    source->calls = *calls;
    source->base.count = calls->count;
    source->base.masked = 1;
    kh_digest_add(&source->base.digest, calls->name, strlen(calls->name));
    *out = &source->base;
    return KH_OK;
}

kh_source_options kh_source_options_from(const kh_document_options *d)
{
    return (kh_source_options){
        .separator = d->separator,
        .chat_format = d->chat_format,
        .bos = d->bos,
        .eos = d->eos,
        .markers = d->markers ? KH_MARKERS_ARE_TOKENS : KH_MARKERS_ARE_TEXT,
        .answers = d->last_answer ? KH_ANSWERS_LAST : KH_ANSWERS_ALL,
    };
}

static kh_status open_files(kh_source **out, kh_data_files *files, const kh_tokenizer *tokenizer,
                            const kh_source_options *options)
{
    uint64_t total = 0;
    size_t shards = 0;
    for (size_t i = 0; i < files->count; i++) {
        total += files->list[i].size;
        shards += files->list[i].format == KH_SOURCE_SHARD;
    }
    if (shards && shards < files->count) {
        kh_status status = kh_fail(KH_ERR_ARGUMENT,
                                   "%s and other files: shards and texts cannot be mixed",
                                   files->list[0].path);
        kh_data_files_close(files);
        return status;
    }
    if (shards) return kh_source_open_shards(out, files, tokenizer);
    kh_source_options o = *options;
    size_t store = o.store ? o.store : (size_t)64 << 20, all = (size_t)1 << 30;
    o.piece = total <= store ? all : o.piece ? o.piece : (size_t)1 << 20;
    if (o.piece > all) o.piece = all;
    KH_TRY(kh_source_open_texts(out, files, tokenizer, &o));
    return total <= store ? kh_source_keep(out) : KH_OK;
}

kh_status kh_source_open(kh_source **out, const char *const *paths, size_t count,
                         const kh_tokenizer *tokenizer, const kh_source_options *options)
{
    static const kh_source_options defaults = {0};
    kh_data_files files = {0};
    *out = NULL;
    if (!options) options = &defaults;
    kh_status status = kh_data_files_list(&files, paths, count, options->format);
    if (status != KH_OK) {
        kh_data_files_close(&files);
        return status;
    }
    return open_files(out, &files, tokenizer, options);
}

void kh_source_close(kh_source *source)
{
    if (!source) return;
    source->kind->close(source);
    kh_free(source->name);
    kh_free(source);
}

kh_status kh_source_slice(kh_source *source, uint64_t index, size_t start, size_t most,
                          kh_train_example *out)
{
    *out = (kh_train_example){.label = -1};
    if (index >= source->count)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: document %llu is asked for, there are %llu", source->name,
                (unsigned long long)index, (unsigned long long)source->count);
    if (source->kind->rows) return source->kind->get(source, index, start, most, out);
    if (!source->held || source->last != index) {
        source->held = 0;
        source->example = (kh_train_example){.label = -1};
        KH_TRY(source->kind->get(source, index, 0, SIZE_MAX, &source->example));
        source->held = 1;
        source->last = index;
    }
    *out = source->example;
    if (start > out->n) start = out->n;
    out->n -= start;
    if (out->n > most) out->n = most;
    if (!out->n) return KH_OK;
    out->tokens += start;
    if (out->targets) out->targets += start;
    return KH_OK;
}

kh_status kh_source_get(kh_source *source, uint64_t index, kh_train_example *out)
{
    return kh_source_slice(source, index, 0, SIZE_MAX, out);
}

void kh_source_get_info(const kh_source *source, kh_source_info *out)
{
    *out = (kh_source_info){.name = source->name,
                            .documents = source->count,
                            .files = source->files,
                            .rows = source->rows,
                            .skipped = source->skipped};
}
