/* A named lifetime of memory: one block, a bump pointer, rewinding.
 *
 *     base |####### used #######|........ free ........| size
 *
 * Arenas are sized by a plan that adds kh_arena_need() of every block, so kh_arena_take() fails only
 * when a plan is wrong; still it answers NULL and never writes past its end. The block is a
 * reservation, so a generous plan costs address space, not memory; `peak` says what was really used.
 * With KH_DEBUG rewound memory is poisoned, which turns a use after rewinding into NaN at once. */
#include "base/arena.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdint.h>
#include <string.h>

enum { ALIGN = 64 };

size_t kh_arena_need(size_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

size_t kh_arena_place(void *out, char *base, size_t at, size_t bytes)
{
    char *memory = base ? base + at : NULL;
    memcpy(out, &memory, sizeof memory);
    return at + kh_arena_need(bytes);
}

kh_status kh_arena_init(kh_arena *arena, const char *name, size_t size)
{
    *arena = (kh_arena){.name = name};
    void *base = NULL;
    KH_TRY(kh_reserve(&base, size ? size : ALIGN, name));
    arena->base = base;
    arena->size = size ? size : ALIGN;
    return KH_OK;
}

void kh_arena_free(kh_arena *arena)
{
    kh_reserve_free(arena->base, arena->size);
    *arena = (kh_arena){.name = arena->name};
}

void *kh_arena_take(kh_arena *arena, size_t n)
{
    size_t need = kh_arena_need(n);
    if (need < n || need > arena->size - arena->used) return NULL;
    void *memory = arena->base + arena->used;
    arena->used += need;
    if (arena->used > arena->peak) arena->peak = arena->used;
    return memory;
}

kh_status kh_arena_new(kh_arena *arena, void *out, size_t n, size_t size)
{
    void *memory = NULL;
    if (size == 0 || n <= SIZE_MAX / size) memory = kh_arena_take(arena, n * size);
    memcpy(out, &memory, sizeof memory);
    if (!memory)
        KH_FAIL(KH_ERR_MEMORY, "the %s memory is too small: %zu x %zu bytes asked, %zu left",
                arena->name, n, size, arena->size - arena->used);
    return KH_OK;
}

kh_arena_mark kh_arena_save(const kh_arena *arena)
{
    return arena->used;
}

void kh_arena_rewind(kh_arena *arena, kh_arena_mark mark)
{
#ifdef KH_DEBUG
    memset(arena->base + mark, 0xff, arena->used - mark);
#endif
    arena->used = mark;
}
