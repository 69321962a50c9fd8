/* The vocabulary: V pieces of the file, found by an open-addressing hash table.
 *
 *     pieces [V]   (pointer, size) into the mapping, parsed by the GGUF reader (or into the store)
 *     slots  [2^n] (hash, id), at most two thirds full; the stored hash makes nearly every mismatch
 *                  cheap, so a lookup touches the text of at most one wrong piece in 2^32
 *
 * 262,144 pieces need 4 MiB of slots. The file may be hostile: the hash is seeded from the system,
 * so that no file can be built whose pieces collide.
 *
 * Markers (control, unknown and user-defined tokens) are searched for at every position of every
 * text, so a hash table per length would cost a marker vocabulary of 6,400 pieces forty probes a
 * byte. They are kept in order of their bytes instead; a match narrows a range byte by byte, which
 * ends at once where no marker begins, and finds the longest on its way.
 *
 * Rejected: a trie (ten times the memory, no faster on real text). */
#include "tokens/tok_vocab.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/rng.h"

#include <string.h>

enum { MOST_TOKENS = 1 << 25 };

uint64_t kh_vocab_hash(const char *text, size_t size, uint64_t seed)
{
    uint64_t h = seed ^ size * 0x9E3779B97F4A7C15ull, word;
    for (; size >= 8; text += 8, size -= 8) {
        memcpy(&word, text, 8);
        h = (h ^ word) * 0xD6E8FEB86659FD93ull;
        h ^= h >> 32;
    }
    word = 0;
    memcpy(&word, text, size);
    h = (h ^ word) * 0xD6E8FEB86659FD93ull;
    h = (h ^ h >> 32) * 0xD6E8FEB86659FD93ull;
    return h ^ h >> 32;
}

static int same(const kh_vocab *vocab, int32_t id, const char *text, size_t size)
{
    return vocab->pieces[id].size == size && !memcmp(vocab->pieces[id].data, text, size);
}

int32_t kh_vocab_find(const kh_vocab *vocab, const char *text, size_t size)
{
    if (size == 0 || size > vocab->longest) return -1;
    uint32_t hash = (uint32_t)kh_vocab_hash(text, size, vocab->seed);
    for (uint32_t at = hash & vocab->mask;; at = (at + 1) & vocab->mask) {
        const kh_vocab_slot *slot = &vocab->slots[at];
        if (slot->id < 0) return -1;
        if (slot->hash == hash && same(vocab, slot->id, text, size)) return slot->id;
    }
}

int kh_vocab_is_text(const kh_vocab *vocab, int32_t id)
{
    unsigned kind = vocab->kinds[id];
    return kind != KH_TOKEN_CONTROL && kind != KH_TOKEN_UNKNOWN && kind != KH_TOKEN_BYTE;
}

static void insert(kh_vocab *vocab, int32_t id)
{
    kh_slice piece = vocab->pieces[id];
    if (!piece.size) return;
    uint32_t hash = (uint32_t)kh_vocab_hash(piece.data, piece.size, vocab->seed);
    uint32_t at = hash & vocab->mask;
    for (; vocab->slots[at].id >= 0; at = (at + 1) & vocab->mask)
        if (vocab->slots[at].hash == hash &&
            same(vocab, vocab->slots[at].id, piece.data, piece.size))
            break;
    vocab->slots[at] = (kh_vocab_slot){hash, id};
    if (piece.size > vocab->longest) vocab->longest = piece.size;
}

/* An array of V elements under a key that may be missing (*out NULL then). */
static kh_status find_array(const kh_gguf_value **out, const kh_gguf *file, const char *key,
                            int32_t size)
{
    *out = kh_gguf_find(file, key);
    if (!*out) return KH_OK;
    if ((*out)->kind != KH_GGUF_ARRAY || (*out)->element == KH_GGUF_STRING ||
        (*out)->element == KH_GGUF_ARRAY)
        KH_FAIL(KH_ERR_FORMAT, "%s is not an array of numbers", key);
    if ((*out)->count != (uint64_t)size)
        KH_FAIL(KH_ERR_FORMAT, "%s has %llu elements for %d tokens", key,
                (unsigned long long)(*out)->count, size);
    return KH_OK;
}

static kh_status read_kinds(kh_vocab *vocab, const kh_gguf *file)
{
    const kh_gguf_value *types;
    KH_TRY(find_array(&types, file, "tokenizer.ggml.token_type", vocab->size));
    for (int32_t id = 0; id < vocab->size; ++id) {
        uint64_t kind = KH_TOKEN_NORMAL;
        if (types) KH_TRY(kh_gguf_element_u64(types, (uint64_t)id, &kind));
        if (kind < KH_TOKEN_NORMAL || kind > KH_TOKEN_BYTE) kind = KH_TOKEN_NORMAL;
        vocab->kinds[id] = (uint8_t)kind;
    }
    return KH_OK;
}

static kh_status read_scores(kh_vocab *vocab, const kh_gguf *file)
{
    const kh_gguf_value *scores;
    KH_TRY(find_array(&scores, file, "tokenizer.ggml.scores", vocab->size));
    if (!scores)
        KH_FAIL(KH_ERR_FORMAT,
                "tokenizer.ggml.scores is missing: tokenizer \"llama\" merges by it");
    KH_TRY(kh_new(&vocab->scores, (size_t)vocab->size, sizeof *vocab->scores, "token scores"));
    for (int32_t id = 0; id < vocab->size; ++id) {
        double score;
        KH_TRY(kh_gguf_element_f64(scores, (uint64_t)id, &score));
        vocab->scores[id] = (float)score;
    }
    return KH_OK;
}

static kh_status fill(kh_vocab *vocab)
{
    size_t capacity = 16, count = (size_t)vocab->size;
    while (capacity * 2 < count * 3) capacity *= 2;
    vocab->mask = (uint32_t)(capacity - 1);
    KH_TRY(kh_new(&vocab->slots, capacity, sizeof *vocab->slots, "a vocabulary"));
    memset(vocab->slots, 0xFF, capacity * sizeof *vocab->slots);
    for (int32_t id = 0; id < vocab->size; ++id) insert(vocab, id);
    return KH_OK;
}

kh_status kh_vocab_init(kh_vocab *vocab, const kh_gguf *file, int scored)
{
    *vocab = (kh_vocab){.seed = kh_rng_entropy()};
    const kh_gguf_value *tokens = kh_gguf_find(file, "tokenizer.ggml.tokens");
    if (!tokens) KH_FAIL(KH_ERR_FORMAT, "tokenizer.ggml.tokens is missing");
    if (tokens->kind != KH_GGUF_ARRAY || tokens->element != KH_GGUF_STRING)
        KH_FAIL(KH_ERR_FORMAT, "tokenizer.ggml.tokens is not an array of strings");
    if (tokens->count == 0 || tokens->count > MOST_TOKENS)
        KH_FAIL(KH_ERR_FORMAT, "tokenizer.ggml.tokens has %llu elements (allowed: 1 to %d)",
                (unsigned long long)tokens->count, MOST_TOKENS);
    vocab->pieces = tokens->strings;
    vocab->size = (int32_t)tokens->count;
    KH_TRY(kh_new(&vocab->kinds, tokens->count, 1, "token types"));
    KH_TRY(read_kinds(vocab, file));
    if (scored) KH_TRY(read_scores(vocab, file));
    return fill(vocab);
}

kh_status kh_vocab_build(kh_vocab *vocab, const kh_slice *pieces, size_t count)
{
    *vocab = (kh_vocab){.seed = kh_rng_entropy()};
    if (count == 0 || count > MOST_TOKENS)
        KH_FAIL(KH_ERR_FORMAT, "the vocabulary has %zu tokens (allowed: 1 to %d)", count,
                MOST_TOKENS);
    vocab->pieces = pieces;
    vocab->size = (int32_t)count;
    KH_TRY(kh_new(&vocab->kinds, count, 1, "token types"));
    for (size_t id = 0; id < count; ++id)
        vocab->kinds[id] = pieces[id].size ? KH_TOKEN_NORMAL : KH_TOKEN_UNUSED;
    return fill(vocab);
}

void kh_vocab_free(kh_vocab *vocab)
{
    kh_free(vocab->kinds);
    kh_free(vocab->scores);
    kh_free(vocab->slots);
    *vocab = (kh_vocab){0};
}

static int compare(const kh_marker *a, const kh_marker *b)
{
    size_t least = a->text.size < b->text.size ? a->text.size : b->text.size;
    int order = memcmp(a->text.data, b->text.data, least);
    if (order) return order;
    if (a->text.size != b->text.size) return a->text.size < b->text.size ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

static void sift(kh_marker *list, uint32_t at, uint32_t count)
{
    for (uint32_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && compare(&list[child], &list[child + 1]) < 0) ++child;
        if (compare(&list[at], &list[child]) >= 0) return;
        kh_marker one = list[at];
        list[at] = list[child];
        list[child] = one;
    }
}

/* Heap sort: in place and never quadratic; qsort may allocate behind the counters. */
static void sort(kh_marker *list, uint32_t count)
{
    for (uint32_t i = count / 2; i-- > 0;) sift(list, i, count);
    for (uint32_t i = count; i-- > 1;) {
        kh_marker one = list[0];
        list[0] = list[i];
        list[i] = one;
        sift(list, 0, i);
    }
}

/* Some publishers leave the markers of turns without the mark of a control token: <|user|>, or with
 * the wide bars of DeepSeek. */
static int spelled_like_control(kh_slice text)
{
    static const char *const ends[][2] = {
        {"<|", "|>"}, {"<\xEF\xBD\x9C", "\xEF\xBD\x9C>"}, {"<start_of_", ">"}, {"<end_of_", ">"}};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; ++i) {
        size_t head = strlen(ends[i][0]), tail = strlen(ends[i][1]);
        if (text.size > head + tail && !memcmp(text.data, ends[i][0], head) &&
            !memcmp(text.data + text.size - tail, ends[i][1], tail))
            return 1;
    }
    return 0;
}

static void arrange(kh_markers *markers)
{
    for (uint32_t i = 0; i < markers->count; ++i)
        if (spelled_like_control(markers->list[i].text)) markers->list[i].flags |= KH_MARKER_TURN;
    sort(markers->list, markers->count);
    for (uint32_t i = 0; i < markers->count; ++i)
        ++markers->first[(unsigned char)markers->list[i].text.data[0] + 1];
    for (int b = 0; b < 256; ++b) markers->first[b + 1] += markers->first[b];
}

static int is_marker(const kh_vocab *vocab, int32_t id)
{
    unsigned kind = vocab->kinds[id];
    return vocab->pieces[id].size &&
           (kind == KH_TOKEN_CONTROL || kind == KH_TOKEN_USER || kind == KH_TOKEN_UNKNOWN);
}

kh_status kh_markers_init(kh_markers *markers, const kh_vocab *vocab)
{
    *markers = (kh_markers){0};
    size_t count = 0;
    for (int32_t id = 0; id < vocab->size; ++id) count += (size_t)is_marker(vocab, id);
    KH_TRY(kh_new(&markers->list, count, sizeof *markers->list, "special tokens"));
    for (int32_t id = 0; id < vocab->size; ++id)
        if (is_marker(vocab, id))
            markers->list[markers->count++] = (kh_marker){
                vocab->pieces[id], id, vocab->kinds[id] == KH_TOKEN_USER ? 0 : KH_MARKER_SPECIAL};
    arrange(markers);
    return KH_OK;
}

kh_status kh_markers_build(kh_markers *markers, const kh_marker *list, size_t count)
{
    *markers = (kh_markers){0};
    KH_TRY(kh_new(&markers->list, count, sizeof *markers->list, "added tokens"));
    for (size_t i = 0; i < count; ++i)
        if (list[i].text.size) markers->list[markers->count++] = list[i];
    arrange(markers);
    return KH_OK;
}

void kh_markers_free(kh_markers *markers)
{
    kh_free(markers->list);
    *markers = (kh_markers){0};
}

/* First of [low, high) whose byte at `depth` is at least `byte`. All are longer than depth. */
static uint32_t bound(const kh_markers *m, uint32_t low, uint32_t high, size_t depth, unsigned byte)
{
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if ((unsigned char)m->list[middle].text.data[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static size_t reach(const kh_marker *marker, size_t size, size_t open, size_t unguarded)
{
    if (marker->flags & KH_MARKER_SPECIAL) return open;
    return marker->flags & KH_MARKER_TURN ? unguarded : size;
}

const kh_marker *kh_markers_match(const kh_markers *markers, const char *text, size_t size,
                                  size_t open, size_t unguarded)
{
    const kh_marker *best = NULL;
    unsigned byte = (unsigned char)text[0];
    uint32_t low = markers->first[byte], high = markers->first[byte + 1];
    for (size_t depth = 1; low < high; ++depth) {
        for (; low < high && markers->list[low].text.size == depth; ++low)
            if (depth <= reach(&markers->list[low], size, open, unguarded))
                best = &markers->list[low];
        if (low == high || depth == size) break;
        byte = (unsigned char)text[depth];
        low = bound(markers, low, high, depth, byte);
        high = bound(markers, low, high, depth, byte + 1);
    }
    return best;
}
