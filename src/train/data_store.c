/* Documents that are tokens already: in memory, or in shards.
 *
 *     ids    | document 0 | document 1 |  ...  | document n - 1 |
 *     ends               e0           e1                       count
 *
 * One source serves both: a list of stores, of which a binary search over the numbers of their first
 * documents picks one. Lengths are known, so any rows of a document are read alone and a loader can
 * put pieces of documents in any order; reading is a copy of the rows from 2 or 4 bytes an id to 4.
 * In a masked store the highest bit of an id says that nobody has to predict it.
 *
 * Nothing in a shard is trusted: its layout is checked when it is opened (data_shard.c), and each id when
 * it is read, so that opening costs a pass over the ends and not one over the tokens. */
#include "train/data_impl.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <string.h>

typedef struct store_part {
    kh_token_store store;
    uint64_t first; /* number of its first document in the source */
    char *path;     /* NULL: in memory */
    kh_map map;
} store_part;

typedef struct store_source {
    kh_source base;
    store_part *parts; /* [part_count] */
    size_t part_count;
    int32_t limit;       /* ids are below */
    kh_buf ids, ends;    /* of a store in memory */
    kh_buf rows, wanted; /* int32_t: what `get` gives */
} store_source;

static uint64_t begin_of(const kh_token_store *store, uint64_t document)
{
    return document ? store->ends[document - 1] : 0;
}

static uint64_t rows_of(const kh_token_store *store, uint64_t document)
{
    uint64_t n = store->ends[document] - begin_of(store, document);
    return n ? n - 1 : 0;
}

static const store_part *part_of(const store_source *s, uint64_t index)
{
    size_t low = 0, high = s->part_count; /* parts[low].first <= index */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (s->parts[middle].first <= index)
            low = middle;
        else
            high = middle;
    }
    return &s->parts[low];
}

static uint64_t store_rows(const kh_source *source, uint64_t index)
{
    const store_part *part = part_of((const store_source *)source, index);
    return rows_of(&part->store, index - part->first);
}

/* Copies ids [from, from + n] of a store; `targets` NULL where none is masked. */
static kh_status copy(const store_source *s, const store_part *part, uint64_t from, size_t n,
                      int32_t *tokens, int32_t *targets)
{
    const kh_token_store *store = &part->store;
    for (size_t i = 0; i <= n; i++) {
        uint32_t id = store->width == 2 ? ((const uint16_t *)store->ids)[from + i]
                                        : ((const uint32_t *)store->ids)[from + i];
        uint32_t mask = store->width == 2 ? KH_STORE_MASK_16 : KH_STORE_MASK_32, hidden = 0;
        if (store->masked) {
            hidden = id & mask;
            id &= mask - 1;
        }
        if (id >= (uint32_t)s->limit)
            KH_FAIL(KH_ERR_FORMAT, "%s: token %llu is the id %u, the tokenizer has %d",
                    part->path ? part->path : s->base.name, (unsigned long long)(from + i), id,
                    s->limit);
        tokens[i] = (int32_t)id;
        if (targets && i) targets[i - 1] = hidden ? -1 : (int32_t)id;
    }
    return KH_OK;
}

static kh_status store_get(kh_source *source, uint64_t index, size_t start, size_t most,
                           kh_train_example *out)
{
    store_source *s = (store_source *)source;
    const store_part *part = part_of(s, index);
    uint64_t document = index - part->first, from = begin_of(&part->store, document);
    uint64_t n = rows_of(&part->store, document);
    if (start >= n) return KH_OK;
    n = n - start < most ? n - start : most;
    KH_TRY(kh_buf_reserve(&s->rows, (n + 1) * sizeof(int32_t)));
    if (part->store.masked) KH_TRY(kh_buf_reserve(&s->wanted, n * sizeof(int32_t)));
    int32_t *tokens = (void *)s->rows.data, *targets = (void *)s->wanted.data;
    if (!part->store.masked) targets = NULL;
    KH_TRY(copy(s, part, from + start, n, tokens, targets));
    kh_map_release(&part->map, 0, part->map.size); /* what this read made resident */
    *out = (kh_train_example){
        .tokens = tokens, .targets = targets ? targets : tokens + 1, .n = n, .label = -1};
    return KH_OK;
}

static void store_close(kh_source *source)
{
    store_source *s = (store_source *)source;
    for (size_t i = 0; i < s->part_count; i++) {
        kh_map_close(&s->parts[i].map);
        kh_free(s->parts[i].path);
    }
    kh_free(s->parts);
    kh_buf_free(&s->ids);
    kh_buf_free(&s->ends);
    kh_buf_free(&s->rows);
    kh_buf_free(&s->wanted);
}

static kh_status new_source(store_source **out, size_t parts, const char *name)
{
    static const kh_source_kind kind = {store_get, store_rows, store_close};
    KH_TRY(kh_source_new(out, sizeof **out, &kind, name));
    kh_status status = kh_new(&(*out)->parts, parts, sizeof *(*out)->parts, "a store of tokens");
    if (status == KH_OK) return KH_OK;
    kh_source_close(&(*out)->base);
    *out = NULL;
    return status;
}

static void count_rows(store_source *s, const store_part *part)
{
    for (uint64_t d = 0; d < part->store.documents; d++) {
        uint64_t n = rows_of(&part->store, d);
        s->base.rows += n;
        s->base.skipped += n == 0;
    }
    s->base.count += part->store.documents;
    s->base.masked |= part->store.masked;
}

/* ---- in memory ---- */

static kh_status keep_document(store_source *s, const kh_train_example *e)
{
    KH_TRY(kh_buf_reserve(&s->ids, s->ids.size + (e->n + 1) * sizeof(uint32_t)));
    uint32_t *ids = (void *)(s->ids.data + s->ids.size);
    for (size_t t = 0; t <= e->n && e->n; t++) {
        uint32_t id = (uint32_t)(t < e->n ? e->tokens[t] : e->targets[t - 1]);
        ids[t] = t && e->targets[t - 1] < 0 ? id | KH_STORE_MASK_32 : id;
    }
    if (e->n) s->ids.size += (e->n + 1) * sizeof(uint32_t);
    uint64_t end = s->ids.size / sizeof(uint32_t);
    return kh_buf_add(&s->ends, &end, sizeof end);
}

static kh_status keep_all(store_source *s, kh_source *from)
{
    for (uint64_t i = 0; i < from->count; i++) {
        kh_train_example e;
        KH_TRY(kh_source_get(from, i, &e));
        KH_TRY(keep_document(s, &e));
    }
    char *fitting = s->ids.size ? kh_realloc(s->ids.data, s->ids.size + 1) : NULL;
    if (fitting) {
        s->ids.data = fitting;
        s->ids.capacity = s->ids.size;
    }
    s->part_count = 1;
    s->parts[0].store = (kh_token_store){.ids = s->ids.data,
                                         .width = 4,
                                         .masked = from->masked,
                                         .count = s->ids.size / sizeof(uint32_t),
                                         .documents = from->count,
                                         .ends = (const void *)s->ends.data};
    s->limit = INT32_MAX;
    s->base.files = from->files;
    s->base.digest = from->digest;
    kh_digest_add(&s->base.digest, s->ids.data, s->ids.size);
    count_rows(s, &s->parts[0]);
    return KH_OK;
}

kh_status kh_source_keep(kh_source **source)
{
    kh_source *from = *source;
    store_source *s;
    *source = NULL;
    kh_status status = new_source(&s, 1, from->name);
    if (status == KH_OK) status = keep_all(s, from);
    kh_source_close(from);
    if (status != KH_OK) {
        kh_source_close(s ? &s->base : NULL);
        return status;
    }
    *source = &s->base;
    return KH_OK;
}

/* ---- in shards ---- */

static kh_status add_shard(store_source *s, kh_data_file *file, const kh_tokenizer *tokenizer,
                           uint64_t digest)
{
    store_part *part = &s->parts[s->part_count++];
    part->path = file->path;
    file->path = NULL;
    part->first = s->base.count;
    KH_TRY(kh_map_open(&part->map, part->path));
    KH_TRY(kh_shard_parse(&part->store, part->map.data, part->map.size, part->path));
    uint64_t size = (uint64_t)s->limit, known = part->store.tokenizer;
    if (part->store.vocabulary > size ||
        (known && (known != digest || part->store.vocabulary != size)))
        KH_FAIL(KH_ERR_FORMAT,
                "%s: the shard was written with another tokenizer (%llu ids; this one has %d, "
                "\"%s\")",
                part->path, (unsigned long long)part->store.vocabulary, s->limit,
                kh_tokenizer_model(tokenizer));
    kh_digest_add(&s->base.digest, &part->store.tokenizer, sizeof part->store.tokenizer);
    kh_digest_add(&s->base.digest, part->store.ends, part->store.documents * sizeof(uint64_t));
    count_rows(s, part);
    return KH_OK;
}

kh_status kh_source_open_shards(kh_source **out, kh_data_files *files,
                                const kh_tokenizer *tokenizer)
{
    store_source *s;
    *out = NULL;
    kh_status status = new_source(&s, files->count, files->list[0].path);
    if (status == KH_OK) {
        s->limit = kh_tokenizer_size(tokenizer);
        s->base.files = files->count;
    }
    uint64_t digest = kh_tokenizer_digest(tokenizer);
    for (size_t i = 0; i < files->count && status == KH_OK; i++)
        status = add_shard(s, &files->list[i], tokenizer, digest);
    kh_data_files_close(files);
    if (status == KH_OK && !s->base.count)
        status = kh_fail(KH_ERR_ARGUMENT, "%s: there is no document in it", s->base.name);
    if (status != KH_OK) {
        kh_source_close(s ? &s->base : NULL);
        return status;
    }
    *out = &s->base;
    return KH_OK;
}
