/* Byte-pair merging in O(n log n).
 *
 * The symbols of a word form a doubly linked list inside an array; every pair of neighbours that
 * may merge waits in a binary heap, ordered by (key, position). Taking the top merges the right
 * symbol into the left one and offers the two new pairs. A candidate whose symbols have changed
 * since is recognised by the length of the pair: symbols only grow, to the right, so a pair that
 * begins at the same symbol and has the same length is the same pair.
 *
 *     symbols   | h | e | l | l | o |      ->   | he |   | ll |   | o |
 *                 0 <> 1 <> 2 <> 3 <> 4           0  <----> 2 <----> 4
 *
 * A word of n symbols offers n - 1 pairs at first and at most two more for each of its n - 1
 * merges, one of which replaces the candidate that was taken: the heap never holds more than 2 n.
 * So all memory is there before the loop starts, and the loop cannot fail.
 *
 * The key is a rank for byte-level BPE; for SentencePiece it is the score, turned into an unsigned
 * number whose order is the reverse (the bits of a float order like an integer once the sign is
 * folded). Ties go to the left in both, as in the implementations that define them.
 *
 * Merges of byte-level BPE are keyed by ids, not by text: one 64-bit comparison a probe. */
#include "tokens/tok_merge.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <string.h>

#define EMPTY UINT64_MAX

static uint32_t slot_of(const kh_merges *merges, uint64_t pair)
{
    uint64_t h = (pair ^ merges->seed) * 0xD6E8FEB86659FD93ull;
    h = (h ^ h >> 32) * 0xD6E8FEB86659FD93ull;
    return (uint32_t)(h >> 32) & merges->mask;
}

static kh_merge_slot *find_slot(const kh_merges *merges, uint64_t pair)
{
    uint32_t at = slot_of(merges, pair);
    while (merges->slots[at].pair != EMPTY && merges->slots[at].pair != pair)
        at = (at + 1) & merges->mask;
    return &merges->slots[at];
}

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

void kh_merges_put(kh_merges *merges, int32_t left, int32_t right, uint32_t rank, int32_t merged)
{
    uint64_t pair = pair_of(left, right);
    *find_slot(merges, pair) = (kh_merge_slot){pair, rank, merged};
}

kh_status kh_merges_start(kh_merges *merges, size_t count, uint64_t seed)
{
    *merges = (kh_merges){.seed = seed};
    if (count > 1u << 26)
        KH_FAIL(KH_ERR_FORMAT, "there are %zu merges (allowed: %u)", count, 1u << 26);
    size_t capacity = 16;
    while (capacity * 2 < count * 3) capacity *= 2;
    merges->mask = (uint32_t)(capacity - 1);
    KH_TRY(kh_new(&merges->slots, capacity, sizeof *merges->slots, "a table of merges"));
    memset(merges->slots, 0xFF, capacity * sizeof *merges->slots);
    return KH_OK;
}

/* "left right": a blank separates them. A piece holds no blank, but the first byte is never the
 * separator, so that a file which writes blanks as they are is read too. */
static void add_merge(kh_merges *merges, const kh_vocab *vocab, kh_slice text, uint32_t rank,
                      char *whole)
{
    if (text.size < 3 || text.size - 1 > vocab->longest) return;
    const char *blank = memchr(text.data + 1, ' ', text.size - 2);
    if (!blank) return;
    size_t n = (size_t)(blank - text.data), m = text.size - n - 1;
    memcpy(whole, text.data, n);
    memcpy(whole + n, blank + 1, m);
    int32_t left = kh_vocab_find(vocab, whole, n);
    int32_t right = kh_vocab_find(vocab, whole + n, m);
    int32_t merged = kh_vocab_find(vocab, whole, n + m);
    if (left < 0 || right < 0 || merged < 0) return;
    kh_merge_slot *slot = find_slot(merges, pair_of(left, right));
    if (slot->pair == EMPTY) *slot = (kh_merge_slot){pair_of(left, right), rank, merged};
}

kh_status kh_merges_init(kh_merges *merges, const kh_gguf *file, const kh_vocab *vocab)
{
    *merges = (kh_merges){.seed = vocab->seed};
    const kh_gguf_value *list = kh_gguf_find(file, "tokenizer.ggml.merges");
    if (!list)
        KH_FAIL(KH_ERR_FORMAT, "tokenizer.ggml.merges is missing: tokenizer \"gpt2\" needs it");
    if (list->kind != KH_GGUF_ARRAY || list->element != KH_GGUF_STRING)
        KH_FAIL(KH_ERR_FORMAT, "tokenizer.ggml.merges is not an array of strings");
    if (list->count > 1u << 26)
        KH_FAIL(KH_ERR_FORMAT, "tokenizer.ggml.merges has %llu elements (allowed: %u)",
                (unsigned long long)list->count, 1u << 26);
    KH_TRY(kh_merges_start(merges, list->count, vocab->seed));
    char *whole;
    KH_TRY(kh_new(&whole, vocab->longest + 1, 1, "a piece"));
    for (uint64_t i = 0; i < list->count; ++i)
        add_merge(merges, vocab, list->strings[i], (uint32_t)i, whole);
    kh_free(whole);
    return KH_OK;
}

void kh_merges_free(kh_merges *merges)
{
    kh_free(merges->slots);
    *merges = (kh_merges){0};
}

int kh_merge_by_rank(const void *context, const char *text, const kh_symbol *left,
                     const kh_symbol *right, kh_candidate *out)
{
    (void)text;
    const kh_merges *merges = context;
    uint64_t pair = (uint64_t)(uint32_t)left->id << 32 | (uint32_t)right->id;
    for (uint32_t at = slot_of(merges, pair);; at = (at + 1) & merges->mask) {
        const kh_merge_slot *slot = &merges->slots[at];
        if (slot->pair == EMPTY) return 0;
        if (slot->pair != pair) continue;
        out->key = slot->rank;
        out->id = slot->merged;
        return 1;
    }
}

/* Scores are no NaN: the reader refuses those. */
static uint32_t key_of_score(float score)
{
    uint32_t bits;
    score += 0.0f; /* -0 and 0 are one score */
    memcpy(&bits, &score, sizeof bits);
    return bits >> 31 ? bits : 0x7FFFFFFFu - bits;
}

int kh_merge_by_score(const void *context, const char *text, const kh_symbol *left,
                      const kh_symbol *right, kh_candidate *out)
{
    const kh_vocab *vocab = context;
    int32_t id = kh_vocab_find(vocab, text + left->start, (size_t)left->size + right->size);
    if (id < 0 || !kh_vocab_is_text(vocab, id)) return 0;
    out->key = key_of_score(vocab->scores[id]);
    out->id = id;
    return 1;
}

kh_status kh_merger_start(kh_merger *merger, size_t count)
{
    merger->count = merger->waiting = 0;
    if (count <= merger->capacity) return KH_OK;
    size_t grown = merger->capacity * (size_t)2 > 32 ? merger->capacity * (size_t)2 : 32;
    if (grown < count) grown = count;
    if (grown > KH_NO_SYMBOL / 2) grown = KH_NO_SYMBOL / 2;
    kh_merger_free(merger);
    KH_TRY(kh_new(&merger->symbols, grown, sizeof *merger->symbols, "the symbols of a word"));
    KH_TRY(kh_new(&merger->heap, grown, 2 * sizeof *merger->heap, "the merges of a word"));
    merger->capacity = (uint32_t)grown;
    return KH_OK;
}

void kh_merger_free(kh_merger *merger)
{
    kh_free(merger->symbols);
    kh_free(merger->heap);
    *merger = (kh_merger){0};
}

void kh_merger_add(kh_merger *merger, uint32_t start, uint32_t size, int32_t id)
{
    uint32_t at = merger->count++;
    if (at) merger->symbols[at - 1].next = at;
    merger->symbols[at] = (kh_symbol){start, size, at ? at - 1 : KH_NO_SYMBOL, KH_NO_SYMBOL, id};
}

static int goes_before(const kh_candidate *a, const kh_candidate *b)
{
    return a->key != b->key ? a->key < b->key : a->left < b->left;
}

static void push(kh_merger *m, kh_candidate candidate)
{
    uint32_t at = m->waiting++;
    for (uint32_t up; at && goes_before(&candidate, &m->heap[up = (at - 1) / 2]); at = up)
        m->heap[at] = m->heap[up];
    m->heap[at] = candidate;
}

static kh_candidate pop(kh_merger *m)
{
    kh_candidate top = m->heap[0], last = m->heap[--m->waiting];
    uint32_t at = 0;
    for (uint32_t child; (child = 2 * at + 1) < m->waiting; at = child) {
        if (child + 1 < m->waiting && goes_before(&m->heap[child + 1], &m->heap[child])) ++child;
        if (!goes_before(&m->heap[child], &last)) break;
        m->heap[at] = m->heap[child];
    }
    m->heap[at] = last;
    return top;
}

static void offer(kh_merger *m, kh_merge_rule *rule, const void *context, const char *text,
                  uint32_t left)
{
    if (left == KH_NO_SYMBOL) return;
    const kh_symbol *a = &m->symbols[left];
    if (a->next == KH_NO_SYMBOL) return;
    const kh_symbol *b = &m->symbols[a->next];
    kh_candidate candidate = {.left = left, .size = a->size + b->size};
    if (rule(context, text, a, b, &candidate)) push(m, candidate);
}

void kh_merger_run(kh_merger *merger, kh_merge_rule *rule, const void *context, const char *text)
{
    for (uint32_t i = 0; i + 1 < merger->count; ++i) offer(merger, rule, context, text, i);
    while (merger->waiting) {
        kh_candidate c = pop(merger);
        kh_symbol *left = &merger->symbols[c.left];
        if (!left->size || left->next == KH_NO_SYMBOL) continue;
        kh_symbol *right = &merger->symbols[left->next];
        if (left->size + right->size != c.size) continue;
        left->size = c.size;
        left->id = c.id;
        left->next = right->next;
        right->size = 0;
        if (left->next != KH_NO_SYMBOL) merger->symbols[left->next].prev = c.left;
        offer(merger, rule, context, text, left->prev);
        offer(merger, rule, context, text, c.left);
    }
}
