/* A sequence as bytes: for prompt caches.
 *
 *     head   | magic u32 | version u32 | layers, groups, k_width, v_width, k_type, v_type i32 | length u64 |
 *     pages  | ceil(length / 64) whole pages as they lie in the pool |
 *
 * Little-endian, as the only supported machines are. Whole pages keep loading a plain copy; the lanes
 * beyond `length` are whatever they were, and are never read. Shadows follow from keys and are made again.
 * Reading trusts nothing: the shape must
 * be the pool's own, and every size is compared before anything is taken. A file may still hold any
 * numbers at all as keys and values, which is why no index is ever derived from them. */
#include "kv/kv.h"

#include "base/fail.h"
#include "kern/attn_kern.h"
#include "kv/kv_page.h"

#include <string.h>

enum { MAGIC = 0x766b686b /* "khkv" */, VERSION = 1 };

typedef struct head {
    uint32_t magic, version;
    int32_t shape[6];
    uint64_t length;
} head;

static head head_of(const kh_kv *kv)
{
    const kh_kv_shape *s = &kv->pool->shape;
    return (head){.magic = MAGIC,
                  .version = VERSION,
                  .shape = {s->layers, s->groups, s->k_width, s->v_width, s->k_type, s->v_type},
                  .length = kv->length};
}

kh_status kh_kv_save(const kh_kv *kv, kh_outfile *file)
{
    head h = head_of(kv);
    KH_TRY(kh_outfile_write(file, &h, sizeof h));
    size_t bytes = kv->pool->page_bytes;
    for (size_t p = 0; p * KH_PAGE < kv->length; p++)
        KH_TRY(kh_outfile_write(file, kv->pool->base + kv->pages[p] * bytes, bytes));
    return KH_OK;
}

static kh_status check(const kh_kv *kv, const head *h)
{
    head mine = head_of(kv);
    if (h->magic != MAGIC || h->version != VERSION)
        KH_FAIL(KH_ERR_FORMAT,
                "a saved cache starts with %08x version %d, this with %08x version %u",
                (unsigned)MAGIC, VERSION, (unsigned)h->magic, (unsigned)h->version);
    if (memcmp(h->shape, mine.shape, sizeof mine.shape) != 0)
        KH_FAIL(KH_ERR_FORMAT,
                "the saved cache has %d layers, %d key heads, widths %d and %d, types %d and %d; "
                "this model and cache type have %d, %d, %d and %d, %d and %d",
                (int)h->shape[0], (int)h->shape[1], (int)h->shape[2], (int)h->shape[3],
                (int)h->shape[4], (int)h->shape[5], (int)mine.shape[0], (int)mine.shape[1],
                (int)mine.shape[2], (int)mine.shape[3], (int)mine.shape[4], (int)mine.shape[5]);
    return KH_OK;
}

/* Shadows of the whole pages. */
static void cast_all(const kh_kv *kv)
{
    const kh_kv_shape *s = &kv->pool->shape;
    if (!s->shadow) return;
    for (size_t p = 0; (p + 1) * KH_PAGE <= kv->length; p++)
        for (int layer = 0; layer < s->layers; layer++)
            for (int g = 0; g < s->groups; g++)
                kh_kv_cast(kv, kh_kern_get(kh_cpu_isa()), layer, g, p);
}

kh_status kh_kv_load(kh_kv *kv, const void *data, size_t size, size_t *used)
{
    *used = 0;
    if (kv->length != 0)
        KH_FAIL(KH_ERR_STATE, "a saved cache is loaded into an empty sequence; this one has %zu",
                kv->length);
    head h;
    if (size < sizeof h)
        KH_FAIL(KH_ERR_FORMAT, "a saved cache has at least %zu bytes, this one %zu", sizeof h,
                size);
    memcpy(&h, data, sizeof h);
    KH_TRY(check(kv, &h));
    if (h.length > kv->capacity)
        KH_FAIL(KH_ERR_CONTEXT, "the saved cache has %llu positions, the context holds %zu",
                (unsigned long long)h.length, kv->capacity);
    size_t bytes = kv->pool->page_bytes, pages = ((size_t)h.length + KH_PAGE - 1) / KH_PAGE;
    if (pages > (size - sizeof h) / bytes)
        KH_FAIL(KH_ERR_FORMAT,
                "the saved cache should have %zu pages of %zu bytes; %zu bytes are there", pages,
                bytes, size - sizeof h);
    KH_TRY(kh_kv_prepare(kv, (size_t)h.length));
    const char *from = (const char *)data + sizeof h;
    for (size_t p = 0; p < pages; p++)
        memcpy(kv->pool->base + kv->pages[p] * bytes, from + p * bytes, bytes);
    kh_kv_advance(kv, (size_t)h.length);
    cast_all(kv);
    *used = sizeof h + pages * bytes;
    return KH_OK;
}
