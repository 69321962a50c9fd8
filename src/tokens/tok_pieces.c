/* From a word to ids: the models that choose pieces.
 *
 * Unigram: of all ways to write the word as pieces, the one with the largest sum of scores
 * (Viterbi). A character that is no piece may be the unknown token, at ten less than the worst
 * score. The forward pass keeps for every byte offset the best way to get there:
 *
 *     offset   0      1      2      3        the walk from offset 1 down the trie meets "l", "ll"
 *     best     0.0   -4.1   -7.0   -6.2      and offers -4.1 + score to offsets 2 and 3
 *     from     -      0      1      1        (only a strictly better offer replaces one)
 *
 * so a word costs its length times the longest piece that begins at each offset. Backwards,
 * neighbours that are unknown are one; that one is looked up as a piece, becomes the tokens of its
 * bytes, or the unknown token. Sums are doubles, as in the library.
 *
 * WordPiece: the longest piece at the start, then the longest that goes on; a word that does not
 * come out even, or is longer than the model allows, is unknown as a whole. Pieces that go on are
 * stored behind a prefix (##): the walk then starts at the node where the prefix ends, which costs
 * nothing. GGUF stores it the other way round (U+2581 where words begin): the same two nodes.
 *
 * WordLevel: the word itself, or the unknown token. */
#include "base/alloc.h"
#include "base/fail.h"
#include "format/utf8.h"
#include "tokens/tok_impl.h"

#include <string.h>

kh_status kh_tokenizer_grow_trie(kh_tokenizer *t, unsigned kinds)
{
    const kh_vocab *vocab = &t->vocab;
    uint64_t bytes = 0;
    for (int32_t id = 0; id < vocab->size; ++id) bytes += vocab->pieces[id].size;
    KH_TRY(kh_trie_init(&t->trie, bytes));
    for (int32_t id = 0; id < vocab->size; ++id)
        if (kinds >> vocab->kinds[id] & 1) kh_trie_add(&t->trie, vocab->pieces[id], id);
    return KH_OK;
}

typedef struct node {
    double score;
    uint32_t from;
    int32_t id; /* -1: nothing ends here yet */
} node;

static void offer(node *nodes, size_t from, size_t to, double score, int32_t id)
{
    node *target = &nodes[to];
    if (target->id >= 0 && !(score > target->score)) return;
    *target = (node){score, (uint32_t)from, id};
}

static kh_status forward(const kh_tokenizer *t, node *nodes, const char *word, size_t size)
{
    for (size_t at = 0, n; at < size; at += n) {
        n = kh_utf8_next(word + at, size - at).size;
        double here = nodes[at].score;
        int single = 0;
        uint32_t place = 0;
        for (size_t end = at; end < size;) {
            place = kh_trie_step(&t->trie, place, (unsigned char)word[end++]);
            if (!place) break;
            int32_t id = t->trie.ids[place];
            if (id < 0) continue;
            offer(nodes, at, end, here + t->scores[id], id);
            single |= end - at == n;
        }
        if (single) continue;
        if (t->options.unk < 0)
            KH_FAIL(KH_ERR_FORMAT,
                    "the tokenizer has no piece for a character of the text and no unknown token");
        offer(nodes, at, at + n, here + t->options.unk_score, t->options.unk);
    }
    return KH_OK;
}

static kh_status emit_unknown(kh_encoder *e, const char *text, size_t size)
{
    const kh_tokenizer *t = e->tokenizer;
    int32_t id = kh_vocab_find(&t->vocab, text, size);
    int done = 0;
    if (id < 0 && t->options.byte_fallback) KH_TRY(kh_encode_fallback(e, text, size, &done));
    return done ? KH_OK : kh_tokens_add(e->out, id >= 0 ? id : t->options.unk);
}

kh_status kh_encode_unigram(void *context, const char *word, size_t size)
{
    kh_encoder *e = context;
    const kh_tokenizer *t = e->tokenizer;
    if (size >= UINT32_MAX / sizeof(node))
        KH_FAIL(KH_ERR_ARGUMENT, "a text of %zu bytes is too long to be tokenised", size);
    KH_TRY(kh_buf_reserve(&e->text, (size + 1) * sizeof(node)));
    node *nodes = (node *)(void *)e->text.data;
    for (size_t i = 0; i <= size; ++i) nodes[i] = (node){.id = -1};
    KH_TRY(forward(t, nodes, word, size));
    /* turn the links around: nodes[start].from is then where its piece ends */
    uint32_t end = (uint32_t)size, next = (uint32_t)size;
    while (end) {
        uint32_t start = nodes[end].from;
        int32_t id = nodes[end].id;
        nodes[end].from = next;
        next = end;
        end = start;
        nodes[next].id = id;
    }
    for (uint32_t start = 0, stop = next; start < size;) {
        int32_t id = nodes[stop].id;
        uint32_t last = stop;
        while (id == t->options.unk && last < size && nodes[nodes[last].from].id == id)
            last = nodes[last].from;
        KH_TRY(id == t->options.unk ? emit_unknown(e, word + start, last - start)
                                    : kh_tokens_add(e->out, id));
        start = last;
        stop = nodes[last].from;
    }
    return KH_OK;
}

static kh_status add_pieces(kh_encoder *e, const char *word, size_t size, int *whole)
{
    const kh_tokenizer *t = e->tokenizer;
    *whole = 0;
    for (size_t at = 0; at < size;) {
        uint32_t place = at ? t->options.goes_on : t->options.starts;
        int32_t best = -1;
        size_t best_end = at;
        int none = place == UINT32_MAX; /* no piece has the prefix */
        for (size_t end = at; !none && end < size;) {
            place = kh_trie_step(&t->trie, place, (unsigned char)word[end++]);
            if (!place || (at && place == t->options.starts)) break; /* the start of a word */
            if (t->trie.ids[place] < 0) continue;
            best = t->trie.ids[place];
            best_end = end;
        }
        if (best < 0) return KH_OK;
        KH_TRY(kh_tokens_add(e->out, best));
        at = best_end;
    }
    *whole = 1;
    return KH_OK;
}

kh_status kh_encode_wordpiece(void *context, const char *word, size_t size)
{
    kh_encoder *e = context;
    const kh_tokenizer *t = e->tokenizer;
    size_t before = e->out->count, length = 0;
    int whole = 0;
    for (size_t i = 0; i < size; ++i) length += (word[i] & 0xC0) != 0x80;
    if (length <= t->options.longest_word) KH_TRY(add_pieces(e, word, size, &whole));
    if (whole) return KH_OK;
    e->out->count = before;
    return kh_tokens_add(e->out, t->options.unk);
}

kh_status kh_encode_whole(void *context, const char *word, size_t size)
{
    kh_encoder *e = context;
    int32_t id = kh_vocab_find(&e->tokenizer->vocab, word, size);
    if (id < 0) id = e->tokenizer->options.unk;
    if (id < 0)
        KH_FAIL(KH_ERR_FORMAT,
                "the tokenizer has no piece for a word of the text and no unknown token");
    return kh_tokens_add(e->out, id);
}
