/* Merges and scores.
 *
 * A rank belongs to a pair, a score to a piece: GGUF's "llama" merges any two neighbours whose union is a piece, the
 * best-scored union first. Scores do as the ranks did if
 *   1. every way to write a piece as two pieces that can occur is a merge, and
 *   2. the merges of one piece follow each other without those of another in between;
 * then a piece's score is the negative number of its group. Both hold for tokenizers that were made from a
 * SentencePiece model (whose pieces have scores, and whose merges were listed from them), and not for BPE that was
 * trained as merges. What does not hold is named with the piece.
 *
 *     rank   0    1    2     3     4             piece  ab    abc         score  0    -1
 *     pair   a b  ab c  a bc ...           ->    ranks  {0}   {1, 2}
 *
 * Whether a piece can occur is found from the short ones up: a character can, and what a merge of two that can makes. */
#include "base/fail.h"
#include "format/utf8.h"
#include "tokens/tok_describe.h"

#include <string.h>

/* All merges by rank: *out is an array of slots, NULL where a rank is free. */
static kh_status by_rank(const kh_tokenizer *t, kh_store *store, const kh_merge_slot ***out,
                         size_t *count)
{
    const kh_merges *m = &t->merges;
    *count = 0;
    for (uint64_t i = 0; i <= m->mask; ++i)
        if (m->slots[i].pair != UINT64_MAX && m->slots[i].rank >= *count)
            *count = (size_t)m->slots[i].rank + 1;
    KH_TRY(kh_store_new(store, out, *count, sizeof **out));
    for (uint64_t i = 0; i <= m->mask; ++i)
        if (m->slots[i].pair != UINT64_MAX) (*out)[m->slots[i].rank] = &m->slots[i];
    return KH_OK;
}

static int32_t left_of(const kh_merge_slot *slot)
{
    return (int32_t)(slot->pair >> 32);
}

static int32_t right_of(const kh_merge_slot *slot)
{
    return (int32_t)(uint32_t)slot->pair;
}

kh_status kh_describe_merges(const kh_tokenizer *t, kh_description *d)
{
    const kh_merge_slot **ranked;
    size_t count;
    KH_TRY(by_rank(t, &d->store, &ranked, &count));
    KH_TRY(kh_store_new(&d->store, &d->merges, count, sizeof *d->merges));
    for (size_t i = 0; i < count; ++i) {
        if (!ranked[i]) continue;
        kh_slice left = t->vocab.pieces[left_of(ranked[i])];
        kh_slice right = t->vocab.pieces[right_of(ranked[i])];
        char *text;
        if (memchr(left.data, ' ', left.size) || memchr(right.data, ' ', right.size))
            KH_FAIL(KH_ERR_UNSUPPORTED, "GGUF cannot express merge %zu, whose pieces hold a blank",
                    i);
        KH_TRY(kh_store_new(&d->store, &text, left.size + right.size + 1, 1));
        memcpy(text, left.data, left.size);
        text[left.size] = ' ';
        memcpy(text + left.size + 1, right.data, right.size);
        d->merges[d->n_merges++] = (kh_slice){text, left.size + right.size + 1};
    }
    return KH_OK;
}

static kh_status not_so(const kh_tokenizer *t, int32_t id, const char *why)
{
    kh_slice piece = t->vocab.pieces[id];
    KH_FAIL(KH_ERR_UNSUPPORTED, "GGUF cannot express these merges as scores: the piece \"%.*s\" %s",
            piece.size < 64 ? (int)piece.size : 64, piece.data, why);
}

typedef struct group {
    uint32_t first, last, count; /* ranks of the merges that make a piece */
    int occurs;
} group;

static int is_text(const kh_description *d, int32_t id)
{
    return d->kinds[id] == KH_TOKEN_NORMAL || d->kinds[id] == KH_TOKEN_USER;
}

static int is_char(kh_slice piece)
{
    return piece.size && kh_utf8_next(piece.data, piece.size).size == piece.size;
}

/* Fills `occurs`, pieces of few bytes first. `order` holds the merges sorted by the size of what they make. */
static kh_status find_occurring(const kh_tokenizer *t, kh_store *store,
                                const kh_merge_slot **ranked, size_t count, group *groups)
{
    const kh_merge_slot **order;
    size_t *first;
    KH_TRY(kh_store_new(store, &order, count, sizeof *order));
    KH_TRY(kh_store_new(store, &first, t->vocab.longest + 2, sizeof *first));
    for (size_t i = 0; i < count; ++i)
        if (ranked[i]) ++first[t->vocab.pieces[ranked[i]->merged].size + 1];
    for (size_t n = 0; n <= t->vocab.longest; ++n) first[n + 1] += first[n];
    size_t placed = first[t->vocab.longest + 1];
    for (size_t i = 0; i < count; ++i)
        if (ranked[i]) order[first[t->vocab.pieces[ranked[i]->merged].size]++] = ranked[i];
    for (int32_t id = 0; id < t->vocab.size; ++id) groups[id].occurs = is_char(t->vocab.pieces[id]);
    for (size_t i = 0; i < placed; ++i)
        if (groups[left_of(order[i])].occurs && groups[right_of(order[i])].occurs)
            groups[order[i]->merged].occurs = 1;
    return KH_OK;
}

/* Every split of the piece into two that occur is one of its merges. */
static kh_status check_splits(const kh_tokenizer *t, const kh_description *d, const group *groups,
                              int32_t id)
{
    kh_slice piece = t->vocab.pieces[id];
    for (size_t n = 0; n < piece.size;) {
        n += kh_utf8_next(piece.data + n, piece.size - n).size;
        if (n >= piece.size) break;
        int32_t left = kh_vocab_find(&t->vocab, piece.data, n);
        int32_t right = kh_vocab_find(&t->vocab, piece.data + n, piece.size - n);
        if (left < 0 || right < 0 || !groups[left].occurs || !groups[right].occurs ||
            !is_text(d, left) || !is_text(d, right))
            continue;
        const kh_symbol a = {.id = left}, b = {.id = right};
        kh_candidate found;
        if (!kh_merge_by_rank(&t->merges, "", &a, &b, &found) || found.id != id)
            return not_so(t, id, "could be merged in a way that is no merge");
    }
    return KH_OK;
}

kh_status kh_describe_scores(const kh_tokenizer *t, kh_description *d)
{
    const kh_merge_slot **ranked;
    group *groups;
    size_t count, V = (size_t)t->vocab.size;
    KH_TRY(by_rank(t, &d->store, &ranked, &count));
    KH_TRY(kh_store_new(&d->store, &groups, V, sizeof *groups));
    KH_TRY(kh_store_new(&d->store, &d->scores, V, sizeof *d->scores));
    uint32_t number = 0, rank = 0; /* of groups; of merges that are there */
    for (size_t i = 0; i < count; ++i) {
        if (!ranked[i]) continue;
        int32_t id = ranked[i]->merged;
        group *g = &groups[id];
        if (!g->count++) {
            g->first = rank;
            d->scores[id] = -(float)number++;
        }
        g->last = rank++;
        if (g->last - g->first + 1 != g->count)
            return not_so(t, id, "has merges that others stand between");
    }
    if (number >= 1u << 24)
        KH_FAIL(KH_ERR_UNSUPPORTED, "GGUF cannot express %u ranks as scores", number);
    KH_TRY(find_occurring(t, &d->store, ranked, count, groups));
    for (int32_t id = 0; id < t->vocab.size; ++id) {
        if (d->kinds[id] == KH_TOKEN_USER &&
            memmem(d->pieces[id].data, d->pieces[id].size, KH_TOKENIZER_BLANK, 3))
            d->kinds[id] = KH_TOKEN_NORMAL; /* a run of blanks that merging makes */
        if (d->kinds[id] == KH_TOKEN_NORMAL) KH_TRY(check_splits(t, d, groups, id));
        if (!groups[id].count) d->scores[id] = -(float)number; /* never the better choice */
    }
    return KH_OK;
}
