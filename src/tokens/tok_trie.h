/* tokens/tok_trie.h: pieces found by walking a text byte by byte; private to format/tok*. */
#ifndef KH_TOKENS_TOK_TRIE_H
#define KH_TOKENS_TOK_TRIE_H

#include "format/gguf.h"

typedef struct kh_trie {
    uint64_t *slots; /* [mask + 1]: parent << 36 | byte << 28 | child; 0: empty */
    int32_t *ids;    /* [nodes]: the piece that ends here, or -1 */
    uint64_t seed;   /* of the hash */
    uint32_t nodes;  /* node 0 is the root */
    uint32_t mask;
} kh_trie;

/* Makes room for pieces of `bytes` bytes in all. On failure the caller still frees. */
kh_status kh_trie_init(kh_trie *trie, uint64_t bytes);
/* Adds a piece; of equal pieces the last counts. No more bytes than were announced. */
void kh_trie_add(kh_trie *trie, kh_slice piece, int32_t id);
void kh_trie_free(kh_trie *trie);

/* The node behind `node` and this byte; 0 where no piece goes on like that. */
static inline uint32_t kh_trie_step(const kh_trie *trie, uint32_t node, unsigned char byte)
{
    uint64_t key = (uint64_t)node << 8 | byte, h = (key ^ trie->seed) * 0xD6E8FEB86659FD93ull;
    for (uint32_t at = (uint32_t)(h >> 32) & trie->mask;; at = (at + 1) & trie->mask) {
        uint64_t slot = trie->slots[at];
        if (slot >> 28 == key) return (uint32_t)slot & 0x0FFFFFFF;
        if (!slot) return 0;
    }
}

#endif
