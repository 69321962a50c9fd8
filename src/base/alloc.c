/* The one door to the heap.
 *
 * Blocks carry a 64-byte head that holds their size, so that live bytes and the peak are exact and
 * kh_realloc can count the difference; the head also keeps the payload on a cache line, which the
 * SIMD kernels rely on. Counters are relaxed atomics: they are statistics, not synchronisation.
 *
 *     | size (8) | magic (8) | unused (48) | payload ...          64-byte aligned
 *
 * Fault injection: kh_alloc_fail_at(n) makes the n-th and every later allocation fail, which is how
 * a full machine behaves; failing only the n-th hides bugs in the clean-up that follows.
 *
 * Large, lazily touched regions (the pages of a key/value cache) are reservations: mmap without
 * commitment. They count against fault injection too.
 *
 * Rejected: malloc hooks of the C library (deprecated, and they see other libraries' memory), and an
 * allocator of our own (the arenas above already make the hot paths free of calls). */
#include "base/alloc.h"

#include "base/fail.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HEAD = 64, LARGE = 4 << 20 /* bytes: two huge pages */ };
#define MAGIC 0x6b65796865616421ull /* "keyhead!" */

typedef struct head {
    size_t size;
    uint64_t magic;
} head;

static atomic_uint_fast64_t calls, live, fail_at, seen;
static atomic_size_t bytes, peak;
static _Thread_local uint64_t failures;

static int must_fail(void)
{
    uint64_t at = atomic_load_explicit(&fail_at, memory_order_relaxed);
    uint64_t n = atomic_fetch_add_explicit(&seen, 1, memory_order_relaxed) + 1;
    return at != 0 && n >= at;
}

static void count(size_t added, size_t removed)
{
    size_t now = atomic_fetch_add_explicit(&bytes, added - removed, memory_order_relaxed) + added -
                 removed;
    size_t top = atomic_load_explicit(&peak, memory_order_relaxed);
    while (now > top && !atomic_compare_exchange_weak(&peak, &top, now)) {
    }
}

static void *allocate(size_t size)
{
    if (size == 0 || size > SIZE_MAX - 2 * HEAD || must_fail()) return NULL;
    size_t whole = (size + HEAD + HEAD - 1) / HEAD * HEAD;
    char *block = aligned_alloc(HEAD, whole);
    if (!block) return NULL;
    *(head *)(void *)block = (head){size, MAGIC};
    atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    count(size, 0);
    return block + HEAD;
}

void *kh_alloc(size_t size)
{
    void *memory = allocate(size);
    if (!memory && size > 0) failures++;
    return memory;
}

uint64_t kh_alloc_failures(void)
{
    return failures;
}

void *kh_calloc(size_t n, size_t size)
{
    if (size != 0 && n > SIZE_MAX / size) return NULL;
    void *memory = kh_alloc(n * size);
    if (memory) memset(memory, 0, n * size);
    return memory;
}

void *kh_realloc(void *old, size_t size)
{
    if (!old) return kh_alloc(size);
    head *h = (head *)(void *)((char *)old - HEAD);
    void *memory = kh_alloc(size);
    if (!memory) return NULL;
    memcpy(memory, old, h->size < size ? h->size : size);
    kh_free(old);
    return memory;
}

void kh_free(void *memory)
{
    if (!memory) return;
    head *h = (head *)(void *)((char *)memory - HEAD);
    if (h->magic != MAGIC) abort(); /* a program error of ours, never reached by input */
    h->magic = 0;
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
    count(0, h->size);
    free(h);
}

char *kh_strndup(const char *text, size_t length)
{
    char *copy = kh_alloc(length + 1);
    if (!copy) return NULL;
    memcpy(copy, text, length);
    copy[length] = 0;
    return copy;
}

char *kh_strdup(const char *text)
{
    return kh_strndup(text, strlen(text));
}

kh_status kh_new(void *out, size_t n, size_t size, const char *what)
{
    void *memory = kh_calloc(n ? n : 1, size);
    memcpy(out, &memory, sizeof memory);
    if (!memory) KH_FAIL(KH_ERR_MEMORY, "no memory for %s (%zu x %zu bytes)", what, n, size);
    return KH_OK;
}

kh_status kh_grow(void *array, size_t count, size_t *room, size_t size, const char *what)
{
    enum { FIRST = 16 };
    if (count < *room) return KH_OK;
    size_t more = *room ? 2 * *room : FIRST, total;
    void *memory, *grown = NULL;
    memcpy(&memory, array, sizeof memory);
    if (!__builtin_mul_overflow(more, size, &total)) grown = kh_realloc(memory, total);
    if (!grown) KH_FAIL(KH_ERR_MEMORY, "no memory for %s (%zu x %zu bytes)", what, more, size);
    memcpy(array, &grown, sizeof grown);
    *room = more;
    return KH_OK;
}

kh_status kh_reserve(void **out, size_t size, const char *what)
{
    *out = NULL;
    if (size == 0 || must_fail())
        KH_FAIL(KH_ERR_MEMORY, "no memory for %s (%zu bytes)", what, size);
    void *start = mmap(NULL, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED)
        KH_FAIL(KH_ERR_MEMORY, "no address space for %s (%zu bytes)", what, size);
    if (size >= LARGE) madvise(start, size, MADV_HUGEPAGE);
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    *out = start;
    return KH_OK;
}

void kh_reserve_drop(void *start, size_t size)
{
    madvise(start, size, MADV_DONTNEED);
}

void kh_reserve_clear(void *start, size_t size)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = (uintptr_t)start;
    uintptr_t end = first + size, inner = (first + page - 1) / page * page;
    uintptr_t last = end / page * page;
    if (inner >= last) {
        memset(start, 0, size);
        return;
    }
    memset(start, 0, inner - first);
    memset((void *)last, 0, end - last);
    if (madvise((void *)inner, last - inner, MADV_DONTNEED) != 0)
        memset((void *)inner, 0, last - inner);
}

void kh_reserve_free(void *start, size_t size)
{
    if (!start) return;
    munmap(start, size);
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
}

kh_alloc_stats kh_alloc_get_stats(void)
{
    return (kh_alloc_stats){.calls = atomic_load(&calls),
                            .live = atomic_load(&live),
                            .bytes = atomic_load(&bytes),
                            .peak = atomic_load(&peak)};
}

uint64_t kh_alloc_fail_at(uint64_t n)
{
    atomic_store(&fail_at, n);
    return atomic_exchange(&seen, 0);
}
