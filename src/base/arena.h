/* base/arena.h: a named lifetime. Sized by a plan, allocated once, rewound many times. */
#ifndef KH_BASE_ARENA_H
#define KH_BASE_ARENA_H

#include <keyhole/status.h>
#include <stddef.h>

typedef struct kh_arena {
    const char *name; /* what it is for, as the memory report says it */
    char *base;
    size_t size, used, peak;
} kh_arena;

/* Reserves `size` bytes of address space (committed when touched). */
kh_status kh_arena_init(kh_arena *arena, const char *name, size_t size);
void kh_arena_free(kh_arena *arena);

/* 64-byte aligned bytes, not cleared, valid until the arena is rewound past them. NULL when the plan
 * was too small: the caller reports KH_ERR_MEMORY. A zero-sized arena measures: see kh_arena_need. */
void *kh_arena_take(kh_arena *arena, size_t bytes);
/* The same with an overflow-checked product and a sentence on failure; *out NULL then. */
kh_status kh_arena_new(kh_arena *arena, void *out, size_t count, size_t size);

typedef size_t kh_arena_mark;
kh_arena_mark kh_arena_save(const kh_arena *arena);
void kh_arena_rewind(kh_arena *arena, kh_arena_mark mark);

/* What a block of `bytes` occupies in an arena, for plans. */
size_t kh_arena_need(size_t bytes);
/* Lays out one block that holds many pieces: the pointer `out` becomes base + at (NULL while base is NULL,
 * which measures); returns where the next piece begins. */
size_t kh_arena_place(void *out, char *base, size_t at, size_t bytes);

#endif
