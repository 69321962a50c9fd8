/* Names of a file and where they are: keys and tensors.
 *
 * An open-addressing table that is at most half full, of indices into an array of slices, so a lookup
 * costs one hash and about one comparison, for thousands of tensors as for ten. The hash is keyed with
 * bits of the operating system: a file cannot be made so that all of its names collide, which would
 * turn opening it into quadratic work. No order that anyone sees depends on the key. */
#include "format/gguf_part.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/rng.h"

#include <string.h>

kh_status kh_names_init(kh_names *names, size_t capacity, const char *what)
{
    *names = (kh_names){.capacity = capacity, .mask = 15, .seed = kh_rng_entropy()};
    while (names->mask + 1 < 2 * capacity) names->mask = 2 * names->mask + 1;
    kh_status status = kh_new(&names->names, capacity, sizeof *names->names, what);
    if (status == KH_OK)
        status = kh_new(&names->slots, names->mask + 1, sizeof *names->slots, what);
    if (status != KH_OK) kh_names_free(names);
    return status;
}

void kh_names_free(kh_names *names)
{
    kh_free(names->names);
    kh_free(names->slots);
    *names = (kh_names){0};
}

static uint64_t hash(uint64_t seed, kh_slice name)
{
    uint64_t h = seed;
    for (size_t i = 0; i < name.size; i++) {
        h = (h ^ (uint8_t)name.data[i]) * 0x9E3779B97F4A7C15ull;
        h ^= h >> 29;
    }
    return h;
}

/* The slot of the name, or the empty slot where it belongs. */
static size_t slot_of(const kh_names *names, kh_slice name)
{
    size_t at = hash(names->seed, name) & names->mask;
    for (; names->slots[at]; at = (at + 1) & names->mask) {
        kh_slice other = names->names[names->slots[at] - 1];
        if (other.size == name.size && memcmp(other.data, name.data, name.size) == 0) break;
    }
    return at;
}

size_t kh_names_find(const kh_names *names, kh_slice name)
{
    if (names->count == 0) return SIZE_MAX;
    uint32_t found = names->slots[slot_of(names, name)];
    return found ? found - 1 : SIZE_MAX;
}

int kh_names_add(kh_names *names, kh_slice name)
{
    size_t at = slot_of(names, name);
    if (names->slots[at]) return 0;
    names->names[names->count++] = name;
    names->slots[at] = (uint32_t)names->count;
    return 1;
}

kh_status kh_names_grow(kh_names *names, const char *what)
{
    kh_names larger;
    if (names->count < names->capacity) return KH_OK;
    KH_TRY(kh_names_init(&larger, names->count < 8 ? 16 : 2 * names->count, what));
    for (size_t i = 0; i < names->count; i++) kh_names_add(&larger, names->names[i]);
    kh_names_free(names);
    *names = larger;
    return KH_OK;
}
