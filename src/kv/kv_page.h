/* kv/kv_page.h: where things lie inside the pool; for kv.c and kv_file.c only.
 *
 *     page    | slot (layer 0, head 0) | slot (0, 1) | ... | slot (N-1, G-1) |   a multiple of 4 KiB
 *     slot    | keys: 4 panels | values: 64 rows | sum of all values before the page [E] f32 |
 *
 * Each part starts on a cache line. Shadows lie in a reservation of their own, in the same order: what
 * decoding reads then has no values in between. */
#ifndef KH_KV_KV_PAGE_H
#define KH_KV_KV_PAGE_H

#include "kv/kv.h"

struct kh_kv_pool {
    kh_kv_shape shape;
    size_t pages;      /* that the reservation holds */
    size_t fresh;      /* pages [fresh, pages) were never taken */
    size_t used, peak; /* taken now, and at most */
    size_t key_bytes, value_bytes, slot_bytes, page_bytes;
    char *base;    /* [pages][page_bytes] */
    char *shadows; /* [pages][layers * groups][shadow_bytes], NULL: none */
    size_t shadow_bytes;
    uint32_t *refs; /* [pages] sequences that share a page */
    uint32_t *free; /* [free_count] returned pages, the last returned on top */
    size_t free_count;
};

struct kh_kv {
    kh_kv_pool *pool;
    size_t capacity, length;
    size_t page_count; /* pages held: those of [0, length) and of what was prepared */
    uint32_t *pages;   /* [ceil(capacity / 64)] */
};

/* Makes the shadow of a whole page of one layer and key head, if the pool keeps any. */
void kh_kv_cast(const kh_kv *kv, const kh_kern *kern, int layer, int g, size_t p);

static inline char *kh_kv_slot(const kh_kv_pool *pool, uint32_t page, int layer, int g)
{
    size_t slot = (size_t)layer * (size_t)pool->shape.groups + (size_t)g;
    return pool->base + page * pool->page_bytes + slot * pool->slot_bytes;
}

static inline size_t kh_kv_shadow_at(const kh_kv_pool *pool, uint32_t page, int layer, int g)
{
    size_t groups = (size_t)pool->shape.groups, slots = (size_t)pool->shape.layers * groups;
    return (page * slots + (size_t)layer * groups + (size_t)g) * pool->shadow_bytes;
}

#endif
