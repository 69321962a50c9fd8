/* kv/kv.h: the paged key/value cache: append, fork, rewind, save, load, byte accounting.
 *
 * A pool owns the pages of all sequences of a session. A page (kern/attn_kern.h) holds 64 positions of
 * EVERY layer and key head, so a sequence is a short list of page numbers and a fork copies that list:
 *
 *     kh_kv   len 130   pages [ 7 | 3 | 9 ]            refs 2 on 7 and 3 after a fork, 9 is copied
 *     page 7  layer 0: head 0: keys, values, sum | head 1 ... | layer 1 ...
 *
 * Besides keys and values a page stores, per layer and key head, the sum of all values BEFORE it
 * ([E] f32): the mean of all visible values of any row costs at most 64 additions, and rewinding or
 * forking needs no bookkeeping (`tail=mean`).
 *
 * A pool may keep, beside its pages, an int8 shadow of every page's keys (kern/shadow_kern.h) for decoding.
 * It is made when a page becomes full, from what the page holds, so it follows from the page: forks share
 * it, rewinding forgets it, files do not hold it. */
#ifndef KH_KV_KV_H
#define KH_KV_KV_H

#include "base/file.h"
#include "kern/kern.h"
#include "tensor/types.h"

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

typedef struct kh_kv_shape {
    int layers, groups;     /* N, G */
    int k_width, v_width;   /* E of keys and of values; multiples of 32 for Q8_0 */
    kh_type k_type, v_type; /* F32, F16 or Q8_0 */
    int shadow;             /* 1: whole pages have an int8 shadow of their keys */
} kh_kv_shape;

typedef struct kh_kv_pool kh_kv_pool;
typedef struct kh_kv kh_kv;

/* Reserves address space for `pages` pages; they are committed when first written. */
kh_status kh_kv_pool_open(kh_kv_pool **out, const kh_kv_shape *shape, size_t pages);
void kh_kv_pool_close(kh_kv_pool *pool); /* after its sequences */
const kh_kv_shape *kh_kv_pool_shape(const kh_kv_pool *pool);
size_t kh_kv_page_bytes(const kh_kv_shape *shape); /* its shadow included */
size_t kh_kv_pool_used(const kh_kv_pool *pool);    /* pages in use */
size_t kh_kv_pool_peak(const kh_kv_pool *pool);    /* most pages ever in use */

/* Gives the memory of all pages back; they must be free. */
void kh_kv_pool_drop(kh_kv_pool *pool);

/* An empty sequence of at most `capacity` positions. Nothing after this allocates heap memory. */
kh_status kh_kv_open(kh_kv **out, kh_kv_pool *pool, size_t capacity);
void kh_kv_close(kh_kv *kv); /* gives the pages back; takes NULL */
const kh_kv_shape *kh_kv_shape_of(const kh_kv *kv);
size_t kh_kv_length(const kh_kv *kv);
size_t kh_kv_capacity(const kh_kv *kv);

/* Makes positions [length, length + n) writable: takes pages, and copies a last page that another
 * sequence shares. KH_ERR_CONTEXT when the capacity or the pool is exhausted (nothing changed). */
kh_status kh_kv_prepare(kh_kv *kv, size_t n);
/* Stores keys and values of n positions from `length` on, for one layer and key head; may run in
 * parallel for different (layer, g). Cannot fail after kh_kv_prepare. */
void kh_kv_write(kh_kv *kv, const kh_kern *kern, int layer, int g, size_t n,
                 const float *k /* [n][ldk], first E used */, size_t ldk,
                 const float *v /* [n][ldv] */, size_t ldv);
/* All layers have written n positions: they are now part of the sequence. */
void kh_kv_advance(kh_kv *kv, size_t n);

/* *out shares all positions of kv (copy on write). */
kh_status kh_kv_fork(kh_kv **out, const kh_kv *kv);
/* Forgets all positions from `length` on; a length above the present one is KH_ERR_ARGUMENT. */
kh_status kh_kv_rewind(kh_kv *kv, size_t length);

/* Page p (positions 64p ...) of one layer and key head. During a forward pass positions up to
 * length + n (as prepared) may be read once kh_kv_write has stored them for this layer. */
const void *kh_kv_keys(const kh_kv *kv, int layer, int g, size_t p);   /* four panels */
const void *kh_kv_values(const kh_kv *kv, int layer, int g, size_t p); /* 64 rows */
/* The shadow of page p, all of whose positions are written; NULL: the pool keeps none. */
const void *kh_kv_shadow(const kh_kv *kv, int layer, int g, size_t p);
const void *kh_kv_value_row(const kh_kv *kv, int layer, int g, size_t position);
const float *kh_kv_value_sum(const kh_kv *kv, int layer, int g, size_t p); /* [E]: before page p */

/* Writes all positions to an open file, and reads them back into an empty sequence of the same shape;
 * the caller frames them (model identity, tokens). *used: bytes read. */
kh_status kh_kv_save(const kh_kv *kv, kh_outfile *file);
kh_status kh_kv_load(kh_kv *kv, const void *data, size_t size, size_t *used);

#endif
