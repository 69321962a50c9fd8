/* The loader: documents in order, packed into batches.
 *
 *     epoch, index --permute--> unit --first[]--> document, first row
 *
 *     |<------------------------- rows T ------------------------->|
 *     | document 7, rows 0-L | document 7, L- | doc 2 | doc 5, 0-40|   step s
 *     | doc 5, 40- | document 9, rows 0-L     | ...                    step s + 1
 *
 * A unit is what the order permutes: a piece of at most L rows where the source knows the lengths of its
 * documents (a novel then comes in any order, not from its beginning to its end), else a document,
 * whose pieces follow each other. Each piece is a span with positions from 0, so a batch has no padding
 * and attention has nothing to cross; the rows of a sequence exist only as a bound. A piece whose rows
 * all have a target is cut where a batch is full, which makes every batch of plain text equally large.
 * One with a prompt in it, a label or two texts is not: it waits for the next batch.
 *
 * Every row t of a document is given once in an epoch and its target is kept even where the next row
 * lies in another piece, so all but the first token of a document are learned once.
 *
 * The state is (epoch, index, offset into the unit, step): 32 bytes, of which the next batch is a pure
 * function. Memory: 20 bytes a row of a batch, and 8 bytes a document for `first`. */
#include "train/data.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "train/data_impl.h"

#include <stdio.h>
#include <string.h>

typedef struct position {
    uint64_t epoch, index, offset, step;
} position;

struct kh_data {
    kh_source *source;
    kh_data_options options;
    size_t piece;       /* the most rows of a span */
    size_t rows, spans; /* of a batch, at most */
    uint64_t units;     /* UINT64_MAX: endless */
    uint64_t *first;    /* [documents + 1] the first unit of each; NULL: units are documents */
    uint64_t digest;    /* of what positions depend on */
    position at;
    uint64_t skipped;
    int32_t *tokens, *places, *types, *targets; /* [rows] */
    uint32_t *logit_rows;                       /* [rows] */
    kh_span *span;                              /* [spans] */
    kh_data_item *item;                         /* [spans] */
    kh_data_batch batch;
};

/* What the order points to. */
typedef struct unit {
    uint64_t document;
    size_t start;             /* first row within the document */
    size_t left;              /* rows of the unit from there */
    int whole;                /* never cut */
    kh_train_example example; /* rows of the next piece */
} unit;

typedef enum taken { TAKEN_ALL, TAKEN_PART, TAKEN_NONE } taken;

/* ---- opening ---- */

static kh_status check_options(const kh_data_options *o, const char *name)
{
    if (o->length < 1 || o->length > INT32_MAX)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: a sequence length of %zu; 1 to %d are possible", name,
                o->length, INT32_MAX);
    if (o->batch > INT32_MAX / o->length || o->rows > INT32_MAX)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: a batch of %zu sequences of %zu, or %zu rows, is too large",
                name, o->batch, o->length, o->rows);
    if (!(o->valid >= 0 && o->valid < 1))
        KH_FAIL(KH_ERR_ARGUMENT, "%s: %g of the documents cannot be held out; 0 to below 1 can",
                name, o->valid);
    return KH_OK;
}

static int on_side(const kh_data *d, uint64_t document)
{
    return kh_data_held_out(document, d->options.valid) == (d->options.side == KH_SIDE_VALID);
}

static uint64_t pieces_of(const kh_data *d, uint64_t document)
{
    uint64_t n = d->source->kind->rows(d->source, document);
    return d->options.pack == KH_PACK_NONE ? n > 0 : n / d->piece + (n % d->piece != 0);
}

static kh_status count_units(kh_data *d)
{
    uint64_t count = d->source->count;
    d->units = count;
    if (!d->source->kind->rows) return KH_OK;
    KH_TRY(kh_new(&d->first, count + 1, sizeof *d->first, "the pieces of documents"));
    d->units = 0;
    for (uint64_t i = 0; i < count; i++) {
        d->units += pieces_of(d, i);
        d->first[i + 1] = d->units;
    }
    return KH_OK;
}

static kh_status nothing(const kh_data *d)
{
    const kh_data_options *o = &d->options;
    unsigned long long count = d->source->count;
    char answer[80] = "";
    if (o->valid > 0 && o->side == KH_SIDE_VALID)
        KH_FAIL(KH_ERR_ARGUMENT,
                "%s: nothing is held out: %g of %llu documents has none with a token to predict; "
                "hold out more, or name files for it",
                d->source->name, o->valid, count);
    if (d->source->masked)
        snprintf(answer, sizeof answer, ", and an answer that begins within its first %zu",
                 d->piece);
    KH_FAIL(KH_ERR_ARGUMENT,
            "%s: no document has a token to predict (%llu documents; one needs two tokens%s)",
            d->source->name, count, answer);
}

/* At least one unit of this side, as far as that is known. */
static kh_status check_side(const kh_data *d)
{
    for (uint64_t i = 0; i < d->source->count; i++)
        if (on_side(d, i) && (!d->first || d->first[i + 1] > d->first[i])) return KH_OK;
    return nothing(d);
}

static uint64_t digest_of(const kh_data *d)
{
    const kh_data_options *o = &d->options;
    uint64_t digest = d->source->digest, share;
    memcpy(&share, &o->valid, sizeof share);
    const uint64_t parts[] = {d->source->count,   d->source->rows,   d->units,
                              o->length,          d->piece,          d->rows,
                              d->spans,           (uint64_t)o->pack, (uint64_t)o->order,
                              (uint64_t)o->pairs, o->seed,           share,
                              (uint64_t)o->side};
    kh_digest_add(&digest, parts, sizeof parts);
    return digest;
}

static kh_status make_room(kh_data *d)
{
    kh_data_options *o = &d->options;
    int apart = o->pairs == KH_PAIRS_APART;
    if (!o->batch) o->batch = 1;
    d->rows = o->batch * o->length * (apart ? 2 : 1);
    d->spans = o->batch * (apart ? 2 : 1);
    if (o->pack == KH_PACK_FULL) {
        if (o->rows) d->rows = o->rows;
        d->spans = d->rows;
    }
    d->piece = o->length < d->rows ? o->length : d->rows;
    if (apart && d->rows < 2 * d->piece)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: a batch of %zu rows does not hold two texts of %zu",
                d->source->name, d->rows, d->piece);
    KH_TRY(kh_new(&d->tokens, d->rows, sizeof *d->tokens, "the tokens of a batch"));
    KH_TRY(kh_new(&d->places, d->rows, sizeof *d->places, "the positions of a batch"));
    KH_TRY(kh_new(&d->types, d->rows, sizeof *d->types, "the types of a batch"));
    KH_TRY(kh_new(&d->targets, d->rows, sizeof *d->targets, "the targets of a batch"));
    KH_TRY(kh_new(&d->logit_rows, d->rows, sizeof *d->logit_rows, "the targets of a batch"));
    KH_TRY(kh_new(&d->span, d->spans, sizeof *d->span, "the spans of a batch"));
    return kh_new(&d->item, d->spans, sizeof *d->item, "the documents of a batch");
}

static kh_status set_up(kh_data *d)
{
    KH_TRY(check_options(&d->options, d->source->name));
    KH_TRY(make_room(d));
    KH_TRY(count_units(d));
    d->digest = digest_of(d);
    return check_side(d);
}

kh_status kh_data_open(kh_data **out, kh_source *source, const kh_data_options *options)
{
    kh_data *d;
    *out = NULL;
    KH_TRY(kh_new(&d, 1, sizeof *d, "a loader of documents"));
    d->source = source;
    d->options = *options;
    kh_status status = set_up(d);
    if (status != KH_OK) {
        kh_data_close(d);
        return status;
    }
    *out = d;
    return KH_OK;
}

void kh_data_close(kh_data *d)
{
    if (!d) return;
    kh_free(d->first);
    kh_free(d->tokens);
    kh_free(d->places);
    kh_free(d->types);
    kh_free(d->targets);
    kh_free(d->logit_rows);
    kh_free(d->span);
    kh_free(d->item);
    kh_free(d);
}

size_t kh_data_max_rows(const kh_data *d)
{
    return d->rows;
}

size_t kh_data_max_spans(const kh_data *d)
{
    return d->spans;
}

/* ---- units ---- */

/* The document of unit `u`, and its first row there. */
static void find_unit(const kh_data *d, uint64_t u, unit *out)
{
    *out = (unit){.document = u};
    if (!d->first) return;
    uint64_t low = 0, high = d->source->count; /* first[low] <= u < first[high] */
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        if (d->first[middle] <= u)
            low = middle;
        else
            high = middle;
    }
    out->document = low;
    out->start = (size_t)(u - d->first[low]) * d->piece;
}

/* Rows from the position on. */
static kh_status read_unit(kh_data *d, unit *u)
{
    size_t offset = (size_t)d->at.offset, most = SIZE_MAX;
    if (d->first && offset >= d->piece) return KH_OK; /* nothing left */
    if (d->first) most = d->piece - offset;
    KH_TRY(kh_source_slice(d->source, u->document, u->start + offset, most, &u->example));
    u->left = u->example.n;
    u->start += offset;
    u->whole = u->example.label >= 0 || u->example.second || d->options.pack == KH_PACK_NONE;
    return KH_OK;
}

/* How many of the rows have a target. */
static size_t targets_in(const kh_train_example *e, size_t rows)
{
    size_t n = 0;
    for (size_t t = 0; e->targets && t < rows; t++) n += e->targets[t] >= 0;
    return n;
}

/* ---- rows of a batch ---- */

static void add_span(kh_data *d, const kh_train_example *e, size_t from, size_t rows, int type)
{
    kh_batch *b = &d->batch.batch;
    d->span[b->span_count] = (kh_span){(int)b->span_count, b->n, rows, 0};
    b->span_count++;
    for (size_t t = 0; t < rows; t++) {
        size_t row = b->n + t;
        d->tokens[row] = e->tokens[from + t];
        d->places[row] = (int32_t)t;
        d->types[row] = type;
        d->targets[row] = e->targets ? e->targets[from + t] : -1;
        if (d->targets[row] >= 0) d->logit_rows[b->logit_count++] = (uint32_t)row;
    }
    b->n += rows;
}

static void add_item(kh_data *d, const unit *u, size_t rows)
{
    const kh_train_example *e = &u->example;
    kh_batch *b = &d->batch.batch;
    kh_data_item *item = &d->item[d->batch.item_count++];
    *item =
        (kh_data_item){.document = u->document, .start = u->start, .row = b->n, .label = e->label};
    if (!d->batch.batch.n) d->batch.epoch = d->at.epoch;
    if (e->second && d->options.pairs == KH_PAIRS_APART) {
        size_t one = e->second < d->piece ? e->second : d->piece, two = e->n - e->second;
        add_span(d, e, 0, one, 0);
        item->second = b->n;
        add_span(d, e, e->second, two < d->piece ? two : d->piece, 1);
    } else {
        add_span(d, e, 0, rows, 0);
        if (e->second && e->second < rows) {
            item->second = item->row + e->second;
            for (size_t row = item->second; row < b->n; row++) d->types[row] = 1;
            b->types = d->types;
        }
    }
    item->rows = b->n - item->row;
}

/* Rows that the next piece of a unit takes. */
static size_t rows_of(const kh_data *d, const unit *u)
{
    const kh_train_example *e = &u->example;
    if (e->second && d->options.pairs == KH_PAIRS_APART) {
        size_t two = e->n - e->second;
        return (e->second < d->piece ? e->second : d->piece) + (two < d->piece ? two : d->piece);
    }
    return u->left < d->piece ? u->left : d->piece;
}

/* Takes the next piece of a unit into the batch, or passes over it. `offset` moves on by what was
 * taken; TAKEN_NONE: it does not fit. */
static taken take(kh_data *d, const unit *u)
{
    size_t rows = rows_of(d, u), room = d->rows - d->batch.batch.n;
    if (!rows) {
        d->skipped += d->at.offset == 0;
        return TAKEN_ALL;
    }
    size_t wanted = targets_in(&u->example, rows);
    int last = u->whole || rows == u->left;
    if (!wanted && u->example.label < 0) {
        d->skipped++;
    } else if (rows <= room) {
        add_item(d, u, rows);
    } else if (!u->whole && room && wanted == rows) {
        add_item(d, u, rows = room);
        last = 0;
    } else {
        return TAKEN_NONE;
    }
    d->at.offset += rows;
    return last ? TAKEN_ALL : TAKEN_PART;
}

/* ---- batches ---- */

static int is_full(const kh_data *d)
{
    if (d->options.pack == KH_PACK_NONE) return d->batch.item_count == d->options.batch;
    return d->batch.batch.n == d->rows;
}

/* The unit at the position, or passes it over when it is on the other side. */
static kh_status next_unit(kh_data *d, taken *how)
{
    unit u;
    uint64_t number = d->at.index;
    if (d->options.order == KH_ORDER_SHUFFLED)
        number = kh_data_permute(d->units, d->options.seed, d->at.epoch, number);
    find_unit(d, number, &u);
    *how = TAKEN_ALL;
    if (on_side(d, u.document)) {
        KH_TRY(read_unit(d, &u));
        *how = take(d, &u);
    }
    if (*how == TAKEN_ALL) {
        d->at.index++;
        d->at.offset = 0;
    }
    return KH_OK;
}

static kh_status fill(kh_data *d)
{
    uint64_t most = d->units == UINT64_MAX ? 1 << 20 : d->units, idle = 0;
    while (!is_full(d)) {
        size_t before = d->batch.item_count;
        taken how;
        if (d->at.index == d->units) {
            d->at.epoch++;
            d->at.index = 0;
        }
        if (d->options.epochs && d->at.epoch >= d->options.epochs)
            return d->at.step || d->batch.item_count ? KH_OK : nothing(d);
        KH_TRY(next_unit(d, &how));
        if (how == TAKEN_NONE) return KH_OK;
        idle = d->batch.item_count > before ? 0 : idle + (how == TAKEN_ALL);
        if (idle > most && !d->batch.item_count) return nothing(d);
    }
    return KH_OK;
}

kh_status kh_data_next(kh_data *d, kh_data_batch *out)
{
    position before = d->at;
    uint64_t skipped = d->skipped;
    d->batch = (kh_data_batch){
        .targets = d->targets, .items = d->item, .step = d->at.step, .epoch = d->at.epoch};
    d->batch.batch = (kh_batch){
        .tokens = d->tokens, .position = d->places, .spans = d->span, .logit_rows = d->logit_rows};
    *out = (kh_data_batch){0};
    kh_status status = fill(d);
    if (status != KH_OK) {
        d->at = before;
        d->skipped = skipped;
        return status;
    }
    d->at.step += d->batch.item_count > 0;
    *out = d->batch;
    return KH_OK;
}

/* ---- the position ---- */

enum { POSITION_VERSION = 1 };

void kh_data_save(const kh_data *d, uint8_t bytes[KH_DATA_POSITION])
{
    const uint64_t words[] = {POSITION_VERSION, d->digest,    d->at.epoch,
                              d->at.index,      d->at.offset, d->at.step};
    _Static_assert(sizeof words == KH_DATA_POSITION, "a position is six numbers");
    memcpy(bytes, words, sizeof words);
}

kh_status kh_data_load(kh_data *d, const uint8_t *bytes, size_t size)
{
    uint64_t words[KH_DATA_POSITION / sizeof(uint64_t)];
    if (size != sizeof words)
        KH_FAIL(KH_ERR_FORMAT, "%s: a position of %zu bytes, expected %zu", d->source->name, size,
                sizeof words);
    memcpy(words, bytes, sizeof words);
    if (words[0] != POSITION_VERSION || words[1] != d->digest)
        KH_FAIL(KH_ERR_STATE,
                "%s: the position was saved for other data or other options (length, batch, seed, "
                "packing, order, held-out share)",
                d->source->name);
    if (words[3] > d->units || words[4] > SIZE_MAX / 2)
        KH_FAIL(KH_ERR_FORMAT, "%s: the position is damaged: document %llu of %llu",
                d->source->name, (unsigned long long)words[3], (unsigned long long)d->units);
    d->at = (position){words[2], words[3], words[4], words[5]};
    d->skipped = 0;
    return KH_OK;
}

void kh_data_get_counts(const kh_data *d, kh_data_counts *out)
{
    *out = (kh_data_counts){.units = d->units, .skipped = d->skipped};
}
