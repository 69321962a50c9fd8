/* Shards: tokens in a file, to be read where they lie.
 *
 *      0  "khtokens"          32  documents
 *      8  version (4 bytes)   40  vocabulary: ids are below
 *     12  bytes of an id (4)  48  digest of the tokenizer, or 0
 *     16  flags: 1 masked     56  0
 *     24  count               64  ids, zeros up to a multiple of 8, ends [documents] of 8 bytes
 *
 * Little-endian, 8 bytes a number where nothing else is said (docs/formats.md). The ends follow the ids,
 * and the counts are filled in last, so a writer needs memory for neither; the file appears when it is
 * whole. The digest is of the pieces in the order of their ids: shards of another tokenizer would train
 * a model on noise, and nothing but the loss would show it. */
#include "base/alloc.h"
#include "base/fail.h"
#include "train/data_impl.h"

#include <string.h>

enum { HEADER = 64, VERSION = 1, MASKED = 1 };

typedef struct header {
    char magic[8];
    uint32_t version, width;
    uint64_t flags, count, documents, vocabulary, tokenizer, zero;
} header;

_Static_assert(sizeof(header) == HEADER, "the header of a shard has no gaps");

static const char magic[8] = {'k', 'h', 't', 'o', 'k', 'e', 'n', 's'};

static kh_status check_header(const header *h, size_t size, const char *name)
{
    if (h->version != VERSION)
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s: a shard of version %u, expected %d", name, h->version,
                VERSION);
    if ((h->width != 2 && h->width != 4) || h->flags & ~(uint64_t)MASKED || h->zero)
        KH_FAIL(KH_ERR_FORMAT,
                "%s: ids of %u bytes and flags %llx, expected 2 or 4 bytes and flags 0 or 1", name,
                h->width, (unsigned long long)h->flags);
    uint64_t most = 1ull << (8 * h->width - (h->flags & MASKED ? 1 : 0));
    if (h->vocabulary == 0 || h->vocabulary > most || h->vocabulary > INT32_MAX)
        KH_FAIL(KH_ERR_FORMAT, "%s: a vocabulary of %llu does not fit ids of %u bytes", name,
                (unsigned long long)h->vocabulary, h->width);
    if (h->count > size / h->width || h->documents > size / sizeof(uint64_t) ||
        HEADER + (h->count * h->width + 7) / 8 * 8 + h->documents * sizeof(uint64_t) != size)
        KH_FAIL(KH_ERR_FORMAT,
                "%s: the file has %zu bytes, which %llu tokens of %u bytes and %llu documents do "
                "not give: it is cut off or damaged",
                name, size, (unsigned long long)h->count, h->width,
                (unsigned long long)h->documents);
    return KH_OK;
}

kh_status kh_shard_parse(kh_token_store *out, const uint8_t *data, size_t size, const char *name)
{
    header h;
    *out = (kh_token_store){0};
    if (size < HEADER || memcmp(data, magic, sizeof magic) != 0)
        KH_FAIL(KH_ERR_FORMAT,
                "%s: a shard of tokens is expected (a header of %d bytes that "
                "begins with \"khtokens\")",
                name, HEADER);
    memcpy(&h, data, sizeof h);
    KH_TRY(check_header(&h, size, name));
    const uint64_t *ends = (const void *)(data + size - h.documents * sizeof(uint64_t));
    uint64_t before = 0;
    for (uint64_t d = 0; d < h.documents; d++) {
        if (ends[d] < before || ends[d] > h.count)
            KH_FAIL(KH_ERR_FORMAT,
                    "%s: document %llu ends at token %llu of %llu, the one before at "
                    "%llu",
                    name, (unsigned long long)d, (unsigned long long)ends[d],
                    (unsigned long long)h.count, (unsigned long long)before);
        before = ends[d];
    }
    if (before != h.count)
        KH_FAIL(KH_ERR_FORMAT, "%s: the last document ends at token %llu of %llu", name,
                (unsigned long long)before, (unsigned long long)h.count);
    *out = (kh_token_store){.ids = data + HEADER,
                            .width = h.width,
                            .masked = (h.flags & MASKED) != 0,
                            .count = h.count,
                            .documents = h.documents,
                            .ends = ends,
                            .vocabulary = h.vocabulary,
                            .tokenizer = h.tokenizer};
    return KH_OK;
}

uint64_t kh_tokenizer_digest(const kh_tokenizer *tokenizer)
{
    uint64_t digest = 0xCBF29CE484222325ull; /* FNV-1a */
    for (int32_t id = 0; id < kh_tokenizer_size(tokenizer); id++) {
        kh_slice piece = kh_token_raw(tokenizer, id);
        for (size_t i = 0; i <= piece.size; i++)
            digest = (digest ^ (i < piece.size ? (unsigned char)piece.data[i] : 0x100u)) *
                     0x100000001B3ull;
    }
    return digest ? digest : 1;
}

/* ---- writing ---- */

typedef struct writer {
    header h;
    kh_outfile *file;
    kh_buf ids, ends;
    const char *name; /* of the source */
} writer;

static kh_status put(writer *w, uint64_t document, int32_t id, int hidden)
{
    if (id < 0 || (uint64_t)id >= w->h.vocabulary)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: document %llu has the id %d, the tokenizer has %llu", w->name,
                (unsigned long long)document, id, (unsigned long long)w->h.vocabulary);
    uint32_t wide = (uint32_t)id;
    if (hidden) wide |= w->h.width == 2 ? KH_STORE_MASK_16 : KH_STORE_MASK_32;
    uint16_t narrow = (uint16_t)wide;
    w->h.count++;
    return kh_buf_add(&w->ids, w->h.width == 2 ? (void *)&narrow : (void *)&wide, w->h.width);
}

static kh_status put_document(writer *w, uint64_t document, const kh_train_example *e)
{
    if (e->label >= 0 || e->second || (e->n && !e->targets))
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "%s: document %llu has a label, two texts or no targets, which "
                "have no place in a shard",
                w->name, (unsigned long long)document);
    for (size_t t = 0; t < e->n; t++) {
        int32_t next = t + 1 < e->n ? e->tokens[t + 1] : e->targets[t];
        if (e->targets[t] >= 0 && e->targets[t] != next)
            KH_FAIL(KH_ERR_UNSUPPORTED,
                    "%s: document %llu has targets that are not the next token, "
                    "which have no place in a shard",
                    w->name, (unsigned long long)document);
        KH_TRY(put(w, document, e->tokens[t], t && e->targets[t - 1] < 0));
    }
    if (e->n && e->targets[e->n - 1] >= 0) KH_TRY(put(w, document, e->targets[e->n - 1], 0));
    KH_TRY(kh_outfile_write(w->file, w->ids.data, w->ids.size));
    kh_buf_clear(&w->ids);
    w->h.documents++;
    return kh_buf_add(&w->ends, &w->h.count, sizeof w->h.count);
}

static kh_status write_all(writer *w, kh_source *source)
{
    KH_TRY(kh_outfile_write(w->file, &w->h, sizeof w->h));
    for (uint64_t i = 0; i < source->count; i++) {
        kh_train_example e;
        KH_TRY(kh_source_get(source, i, &e));
        KH_TRY(put_document(w, i, &e));
    }
    static const uint8_t zeros[8] = {0};
    KH_TRY(kh_outfile_write(w->file, zeros, (8 - w->h.count * w->h.width % 8) % 8));
    KH_TRY(kh_outfile_write(w->file, w->ends.data, w->ends.size));
    return kh_outfile_patch(w->file, 0, &w->h, sizeof w->h);
}

kh_status kh_shard_write(const char *path, kh_source *source, const kh_tokenizer *tokenizer)
{
    uint64_t vocabulary = (uint64_t)kh_tokenizer_size(tokenizer);
    writer w = {.name = source->name};
    if (source->count == UINT64_MAX)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: an endless source does not fit a shard", source->name);
    memcpy(w.h.magic, magic, sizeof magic);
    w.h.version = VERSION;
    w.h.width = vocabulary <= (source->masked ? KH_STORE_MASK_16 : 2 * KH_STORE_MASK_16) ? 2 : 4;
    w.h.flags = source->masked ? MASKED : 0;
    w.h.vocabulary = vocabulary;
    w.h.tokenizer = kh_tokenizer_digest(tokenizer);
    KH_TRY(kh_outfile_open(&w.file, path));
    kh_status status = write_all(&w, source);
    kh_buf_free(&w.ids);
    kh_buf_free(&w.ends);
    if (status == KH_OK) return kh_outfile_commit(w.file);
    kh_outfile_abandon(w.file);
    return status;
}
