/* base/alloc.h: every byte of heap memory passes through here: counted, and able to fail on demand
 * in tests. Layer 0; the libraries that take hooks (jansson, PCRE2) are given these functions. */
#ifndef KH_BASE_ALLOC_H
#define KH_BASE_ALLOC_H

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

/* 64-byte aligned memory, not cleared; NULL when there is none or size is 0. */
void *kh_alloc(size_t size);
/* The same, cleared; NULL too when count * size overflows. */
void *kh_calloc(size_t count, size_t size);
/* Grows or shrinks; contents kept up to the smaller size; on failure the old block stays valid. */
void *kh_realloc(void *old, size_t size);
void kh_free(void *memory);
char *kh_strdup(const char *text);
char *kh_strndup(const char *text, size_t length);

/* *out = kh_calloc(count, size), or KH_ERR_MEMORY with a sentence that names `what`. */
kh_status kh_new(void *out, size_t count, size_t size, const char *what);

/* Room for one item more behind the `count` of an array: *array (a T *, which may move) has *room items of `size`
 * bytes and is doubled when they are used up. On failure nothing changed. */
kh_status kh_grow(void *array, size_t count, size_t *room, size_t size, const char *what);

/* Address space that is paid for only when touched (anonymous, not reserved). Counted as bytes of
 * address space by nobody; the owner reports what it touched. *out NULL on failure. */
kh_status kh_reserve(void **out, size_t size, const char *what);
/* Gives the touched pages of a range inside a reservation back to the system. */
void kh_reserve_drop(void *start, size_t size);
/* Such a range becomes zeros; whole pages of it are given back, which costs nothing until they are touched. */
void kh_reserve_clear(void *start, size_t size);
void kh_reserve_free(void *start, size_t size);

/* Statistics since the start of the process. */
typedef struct kh_alloc_stats {
    uint64_t calls; /* allocations and growing reallocations */
    uint64_t live;  /* blocks not yet freed */
    size_t bytes;   /* bytes in live blocks */
    size_t peak;    /* the largest `bytes` so far */
} kh_alloc_stats;
kh_alloc_stats kh_alloc_get_stats(void);

/* How many allocations of this thread have failed: for those who build something of many small pieces and ask at the end
 * whether one of them is missing. */
uint64_t kh_alloc_failures(void);

/* Tests only: lets the n-th allocation from now (1 = the next) and all later ones fail; 0 = never.
 * Returns how many allocations were made since the previous call. */
uint64_t kh_alloc_fail_at(uint64_t n);

#endif
