/* Learning merges: the most frequent pair of neighbours becomes a piece, again and again
 * (Sennrich, Haddow and Birch, "Neural machine translation of rare words with subword units", 2016).
 *
 * Counts of pairs are kept up to date by the words that change, and a heap gives the largest:
 *
 *     symbols   | t h e | k e y h o l e | ...      ids; a word shrinks in place
 *     pairs     (h, e): count, words to note       open addressing, never removed
 *     heap      (count, pair, list of words)       the largest count; of equal ones the smaller pair
 *     nodes     word -> word -> ...                the lists, taken from one array with a free list
 *
 * A count in the heap may be out of date: what is taken and does not agree with its pair goes back
 * with the right one. A merge walks the words of its entry, each from left to right; neighbours that
 * go lose the word's count, neighbours that come gain it, and all pairs that gained anywhere
 * become entries, whose lists are the words where they gained.
 *
 * A piece is made by one pair only, in one step: wherever it occurs, its two ends were boundaries all
 * the time, so the same has happened inside everywhere. Hence a pair gains in one step alone, when
 * the later of its pieces is made, has one entry, and is merged once. A special token may have the
 * text of a piece; then that piece is the token.
 *
 * This is what PyPI's `tokenizers` computes (BpeTrainer): the same pairs in the same order. Only the
 * width of counts differs (64 bits here, 32 there).
 *
 * Cost: the symbols of the words where a merged pair occurs. For prose that is little: words are
 * short. One word of 10 MB without any structure costs its length in every merge. */
#include "tokens/tok_train_impl.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <string.h>

#define NONE UINT32_MAX

typedef struct pair_record {
    uint64_t pair; /* left id << 32 | right id */
    int64_t count;
    uint32_t words; /* the list that is being noted; NONE outside a step */
    uint32_t last;  /* the word that was noted last in this step */
} pair_record;

typedef struct entry {
    int64_t count;
    uint64_t pair;
    uint32_t record, words;
} entry;

typedef struct node {
    uint32_t word, next;
} node;

typedef struct learner {
    const kh_word_counts *words;
    uint32_t *symbols;    /* where the bytes of the words are */
    uint32_t *sizes;      /* [words->count], in symbols */
    pair_record *records; /* [n_records] */
    uint32_t *slots;      /* [mask + 1], record + 1; 0: empty */
    size_t n_records, records_room, mask;
    uint32_t *gained; /* [n_gained] records with words to note, in this step */
    size_t n_gained, gained_room;
    entry *heap; /* [waiting] */
    size_t waiting, heap_room;
    node *nodes; /* [n_nodes] */
    size_t n_nodes, nodes_room;
    uint32_t unused; /* the first node of the free list */
} learner;

/* ---- the heap ---- */

static int goes_before(const entry *a, const entry *b)
{
    return a->count != b->count ? a->count > b->count : a->pair < b->pair;
}

static kh_status push(learner *l, entry one)
{
    KH_TRY(kh_grow(&l->heap, l->waiting, &l->heap_room, sizeof *l->heap, "the pairs that wait"));
    size_t at = l->waiting++;
    for (size_t up; at && goes_before(&one, &l->heap[up = (at - 1) / 2]); at = up)
        l->heap[at] = l->heap[up];
    l->heap[at] = one;
    return KH_OK;
}

static entry pop(learner *l)
{
    entry top = l->heap[0], last = l->heap[--l->waiting];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < l->waiting; at = child) {
        if (child + 1 < l->waiting && goes_before(&l->heap[child + 1], &l->heap[child])) ++child;
        if (!goes_before(&l->heap[child], &last)) break;
        l->heap[at] = l->heap[child];
    }
    l->heap[at] = last;
    return top;
}

/* ---- pairs and their words ---- */

static size_t slot_of(const learner *l, uint64_t pair)
{
    uint64_t h = pair * 0xD6E8FEB86659FD93ull;
    return (size_t)((h ^ h >> 32) * 0xD6E8FEB86659FD93ull >> 20) & l->mask;
}

static kh_status grow_slots(learner *l)
{
    kh_free(l->slots);
    l->slots = NULL;
    l->mask = l->mask ? 2 * l->mask + 1 : (1 << 16) - 1;
    KH_TRY(kh_new(&l->slots, l->mask + 1, sizeof *l->slots, "a table of pairs"));
    for (size_t i = 0; i < l->n_records; ++i) {
        size_t at = slot_of(l, l->records[i].pair);
        while (l->slots[at]) at = (at + 1) & l->mask;
        l->slots[at] = (uint32_t)i + 1;
    }
    return KH_OK;
}

static kh_status find_pair(learner *l, uint32_t left, uint32_t right, uint32_t *out)
{
    uint64_t pair = (uint64_t)left << 32 | right;
    if (2 * l->n_records >= l->mask) KH_TRY(grow_slots(l));
    size_t at = slot_of(l, pair);
    for (; l->slots[at]; at = (at + 1) & l->mask) {
        *out = l->slots[at] - 1;
        if (l->records[*out].pair == pair) return KH_OK;
    }
    if (l->n_records >= INT32_MAX) KH_FAIL(KH_ERR_UNSUPPORTED, "the text has too many pairs");
    KH_TRY(kh_grow(&l->records, l->n_records, &l->records_room, sizeof *l->records, "pairs"));
    l->records[l->n_records] = (pair_record){pair, 0, NONE, NONE};
    *out = (uint32_t)l->n_records++;
    l->slots[at] = *out + 1;
    return KH_OK;
}

static kh_status lose(learner *l, uint32_t left, uint32_t right, int64_t count)
{
    uint32_t record;
    KH_TRY(find_pair(l, left, right, &record));
    l->records[record].count -= count;
    return KH_OK;
}

static kh_status gain(learner *l, uint32_t left, uint32_t right, int64_t count, uint32_t word)
{
    uint32_t record, at = l->unused;
    KH_TRY(find_pair(l, left, right, &record));
    pair_record *r = &l->records[record];
    r->count += count;
    if (r->last == word) return KH_OK;
    if (at != NONE) {
        l->unused = l->nodes[at].next;
    } else {
        if (l->n_nodes >= NONE) KH_FAIL(KH_ERR_UNSUPPORTED, "the text has too many words");
        KH_TRY(kh_grow(&l->nodes, l->n_nodes, &l->nodes_room, sizeof *l->nodes, "words of pairs"));
        at = (uint32_t)l->n_nodes++;
    }
    if (r->words == NONE) {
        KH_TRY(kh_grow(&l->gained, l->n_gained, &l->gained_room, sizeof *l->gained, "new pairs"));
        l->gained[l->n_gained++] = record;
    }
    l->nodes[at] = (node){word, r->words};
    r->words = at;
    r->last = word;
    return KH_OK;
}

/* What gained in this step becomes entries. */
static kh_status offer(learner *l)
{
    for (size_t i = 0; i < l->n_gained; ++i) {
        pair_record *r = &l->records[l->gained[i]];
        if (r->count > 0) KH_TRY(push(l, (entry){r->count, r->pair, l->gained[i], r->words}));
        r->words = r->last = NONE;
    }
    l->n_gained = 0;
    return KH_OK;
}

static kh_status merge_word(learner *l, uint32_t word, uint32_t left, uint32_t right, uint32_t made)
{
    uint32_t *s = l->symbols + l->words->words[word].at, n = l->sizes[word], kept = 0;
    int64_t count = (int64_t)l->words->words[word].count;
    for (uint32_t i = 0; i < n;) {
        if (s[i] != left || i + 1 == n || s[i + 1] != right) {
            s[kept++] = s[i++];
            continue;
        }
        if (kept) {
            KH_TRY(lose(l, s[kept - 1], left, count));
            KH_TRY(gain(l, s[kept - 1], made, count, word));
        }
        i += 2;
        if (i < n) {
            KH_TRY(lose(l, right, s[i], count));
            KH_TRY(gain(l, made, s[i], count, word));
        }
        s[kept++] = made;
    }
    l->sizes[word] = kept;
    return KH_OK;
}

static kh_status merge_words(learner *l, uint32_t list, uint32_t left, uint32_t right,
                             uint32_t made)
{
    while (list != NONE) {
        node n = l->nodes[list];
        l->nodes[list].next = l->unused;
        l->unused = list;
        list = n.next;
        KH_TRY(merge_word(l, n.word, left, right, made));
    }
    return offer(l);
}

/* ---- the loop ---- */

static kh_status start(learner *l, const uint32_t bytes[256])
{
    const kh_word_counts *w = l->words;
    KH_TRY(kh_new(&l->symbols, w->bytes.size, sizeof *l->symbols, "the symbols of a text"));
    KH_TRY(kh_new(&l->sizes, w->count, sizeof *l->sizes, "the symbols of a text"));
    for (size_t i = 0; i < w->bytes.size; ++i) l->symbols[i] = bytes[(uint8_t)w->bytes.data[i]];
    for (size_t i = 0; i < w->count; ++i) {
        const uint32_t *s = l->symbols + w->words[i].at;
        l->sizes[i] = w->words[i].size;
        for (uint32_t k = 1; k < l->sizes[i]; ++k)
            KH_TRY(gain(l, s[k - 1], s[k], (int64_t)w->words[i].count, (uint32_t)i));
    }
    return offer(l);
}

/* The id of what a pair becomes. */
static kh_status join(kh_pieces *pieces, kh_buf *text, uint32_t left, uint32_t right, uint32_t *id)
{
    kh_slice a = pieces->index.names[left], b = pieces->index.names[right];
    kh_buf_clear(text);
    KH_TRY(kh_buf_add(text, a.data, a.size));
    KH_TRY(kh_buf_add(text, b.data, b.size));
    return kh_pieces_add(pieces, (kh_slice){text->data, text->size}, id);
}

static kh_status merge(learner *l, kh_learned *out, kh_pieces *pieces, kh_buf *text, entry top)
{
    uint32_t left = (uint32_t)(top.pair >> 32), right = (uint32_t)top.pair, made;
    KH_TRY(join(pieces, text, left, right, &made));
    KH_TRY(kh_grow(&out->merges, out->count, &out->room, sizeof *out->merges, "merges"));
    out->merges[out->count++] = (kh_learned_merge){left, right};
    return merge_words(l, top.words, left, right, made);
}

static kh_status stopped(const kh_tokenizer_train_options *o, size_t done, size_t all)
{
    if (o->progress && o->progress(o->progress_context, "merging", done, all))
        KH_FAIL(KH_ERR_STOPPED, "stopped after %zu of %zu tokens", done, all);
    return KH_OK;
}

static kh_status learn(learner *l, kh_learned *out, kh_pieces *pieces, kh_buf *text, size_t wanted,
                       const kh_tokenizer_train_options *o)
{
    uint64_t least = o->least ? o->least : 2;
    for (size_t turn = 0; pieces->index.count < wanted && l->waiting; ++turn) {
        if (turn % 64 == 0) KH_TRY(stopped(o, pieces->index.count, wanted));
        entry top = pop(l);
        int64_t count = l->records[top.record].count;
        if (top.count != count) {
            top.count = count;
            KH_TRY(push(l, top));
            continue;
        }
        if (count < 1 || (uint64_t)count < least) return KH_OK;
        KH_TRY(merge(l, out, pieces, text, top));
    }
    return KH_OK;
}

kh_status kh_merges_learn(kh_learned *out, kh_pieces *pieces, const kh_word_counts *words,
                          const uint32_t bytes[256], size_t wanted,
                          const kh_tokenizer_train_options *options)
{
    learner l = {.words = words, .unused = NONE};
    kh_buf text = {0};
    *out = (kh_learned){.count = 0};
    kh_status status = start(&l, bytes);
    if (status == KH_OK) status = learn(&l, out, pieces, &text, wanted, options);
    for (size_t i = 0; status == KH_OK && i < words->count; ++i)
        out->tokens += l.sizes[i] * words->words[i].count;
    kh_buf_free(&text);
    kh_free(l.symbols);
    kh_free(l.sizes);
    kh_free(l.records);
    kh_free(l.slots);
    kh_free(l.gained);
    kh_free(l.heap);
    kh_free(l.nodes);
    if (status == KH_OK) return KH_OK;
    kh_free(out->merges);
    *out = (kh_learned){.count = 0};
    return status;
}
