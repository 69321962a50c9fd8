/* A trie whose edges live in one hash table: (node, byte) -> node.
 *
 * Unigram asks at every position for all pieces that begin there, WordPiece for the longest: both
 * walk down from a node while there is an edge. An edge is one 64-bit word, so a step is one probe
 * and nothing is chased. 250,000 pieces of seven bytes are under a million nodes: 16 MiB of edges.
 * Child 0 means "none", because nothing leads back to the root; slot 0 means "empty", because a
 * child is never 0.
 *
 * Rejected: a double array (half the memory; ten times the code to build it, and no faster here),
 * arrays of 256 children (a gigabyte). The hash is seeded, so that no file can make its edges
 * collide. */
#include "tokens/tok_trie.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/rng.h"

kh_status kh_trie_init(kh_trie *trie, uint64_t bytes)
{
    *trie = (kh_trie){.seed = kh_rng_entropy(), .nodes = 1};
    if (bytes >= 1u << 27)
        KH_FAIL(KH_ERR_FORMAT, "a vocabulary of %llu bytes of text is too large (allowed: %u)",
                (unsigned long long)bytes, 1u << 27);
    size_t capacity = 16;
    while (capacity * 2 < bytes * 3) capacity *= 2;
    trie->mask = (uint32_t)(capacity - 1);
    KH_TRY(kh_new(&trie->slots, capacity, sizeof *trie->slots, "a tree of pieces"));
    KH_TRY(kh_new(&trie->ids, bytes + 1, sizeof *trie->ids, "a tree of pieces"));
    trie->ids[0] = -1;
    return KH_OK;
}

static uint32_t add_edge(kh_trie *trie, uint32_t node, unsigned char byte)
{
    uint64_t key = (uint64_t)node << 8 | byte, h = (key ^ trie->seed) * 0xD6E8FEB86659FD93ull;
    uint32_t at = (uint32_t)(h >> 32) & trie->mask, child = trie->nodes++;
    while (trie->slots[at]) at = (at + 1) & trie->mask;
    trie->slots[at] = key << 28 | child;
    trie->ids[child] = -1;
    return child;
}

void kh_trie_add(kh_trie *trie, kh_slice piece, int32_t id)
{
    uint32_t node = 0;
    for (size_t i = 0; i < piece.size; ++i) {
        uint32_t next = kh_trie_step(trie, node, (unsigned char)piece.data[i]);
        node = next ? next : add_edge(trie, node, (unsigned char)piece.data[i]);
    }
    if (piece.size) trie->ids[node] = id;
}

void kh_trie_free(kh_trie *trie)
{
    kh_free(trie->slots);
    kh_free(trie->ids);
    *trie = (kh_trie){0};
}
