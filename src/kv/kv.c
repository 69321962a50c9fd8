/* The paged key/value cache.
 *
 * Pages are the unit of sharing: a sequence is a list of page numbers, a fork copies the list and
 * raises the counts, and only a page that is about to be written while others hold it is copied. As
 * positions are only ever appended, that is at most the last page of a sequence (kh_kv_prepare).
 *
 *     pool   one reservation; pages are touched, hence paid for, when first written
 *     taken  from the stack of returned pages first (warm, already committed), else the next fresh one
 *
 * Keys are stored transposed inside a panel of 16 (kern/attn_kern.h), values as rows. Nothing is ever
 * repacked: prompts and single tokens read the same bytes.
 *
 * Value sums: the first write into page p stores the sum of all values before it, which is the sum
 * stored in page p - 1 plus its 64 rows, added one by one in order. The chain is the same whatever the
 * batches were, so the same tokens give the same bits; rewinding leaves every sum of a kept page valid
 * because it speaks only of positions before that page.
 *
 * q8_0: the scale is the largest absolute value over 127, rounded to f16, and the bytes are rounded
 * against the rounded scale, which halves the worst error of rounding against the exact one.
 *
 * A page's shadow is made by the write that fills its last position and read only where all 64 positions
 * are part of the sequence; until then, whatever lies there is nobody's. A page that was rewound into and
 * filled again gets a new one; a page that is copied before a write is not full.
 *
 * Rejected: one region per layer (a page then is as many pieces as there are layers to give back), and
 * a running sum beside the sequence (every fork and rewind would have to rebuild it). */
#include "kv/kv.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "kern/attn_kern.h"
#include "kern/shadow_kern.h"
#include "kv/kv_page.h"
#include "tensor/half.h"

#include <math.h>
#include <string.h>

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static size_t part_bytes(kh_type type, int width)
{
    return round_up(KH_PAGE * kh_type_row_bytes(type, (size_t)width), 64);
}

static size_t slot_bytes(const kh_kv_shape *s)
{
    return part_bytes(s->k_type, s->k_width) + part_bytes(s->v_type, s->v_width) +
           round_up((size_t)s->v_width * sizeof(float), 64);
}

static size_t page_bytes(const kh_kv_shape *s)
{
    return round_up((size_t)s->layers * (size_t)s->groups * slot_bytes(s), 4096);
}

static size_t shadow_page_bytes(const kh_kv_shape *s)
{
    if (!s->shadow) return 0;
    return (size_t)s->layers * (size_t)s->groups * kh_shadow_bytes((size_t)s->k_width);
}

size_t kh_kv_page_bytes(const kh_kv_shape *s)
{
    return page_bytes(s) + shadow_page_bytes(s);
}

static kh_status check_part(const char *what, kh_type type, int width)
{
    if (type != KH_TYPE_F32 && type != KH_TYPE_F16 && type != KH_TYPE_Q8_0)
        KH_FAIL(KH_ERR_ARGUMENT, "the cache's %s type must be f32, f16 or q8_0, not %s", what,
                kh_type_known((int)type) ? kh_type_name(type) : "an unknown one");
    if (width < 1 || width > 1 << 16)
        KH_FAIL(KH_ERR_ARGUMENT, "the cache's %s width must be in 1 .. 65536, not %d", what, width);
    if (type == KH_TYPE_Q8_0 && width % 32 != 0)
        KH_FAIL(KH_ERR_ARGUMENT, "a q8_0 cache needs a %s width that is a multiple of 32, not %d",
                what, width);
    return KH_OK;
}

static kh_status check_shape(const kh_kv_shape *s, size_t pages)
{
    if (s->layers < 1 || s->layers > 1 << 16 || s->groups < 1 || s->groups > 1 << 16)
        KH_FAIL(KH_ERR_ARGUMENT,
                "a cache of %d layers and %d key heads: each must be in 1 .. 65536", s->layers,
                s->groups);
    KH_TRY(check_part("key", s->k_type, s->k_width));
    KH_TRY(check_part("value", s->v_type, s->v_width));
    if (s->shadow && s->k_width > KH_SHADOW_WIDEST)
        KH_FAIL(KH_ERR_UNSUPPORTED, "a shadow of keys of width %d: %d is the widest", s->k_width,
                KH_SHADOW_WIDEST);
    if (pages < 1 || pages >= UINT32_MAX || pages > (SIZE_MAX >> 1) / kh_kv_page_bytes(s))
        KH_FAIL(KH_ERR_ARGUMENT, "a cache of %zu pages of %zu bytes cannot be addressed", pages,
                kh_kv_page_bytes(s));
    return KH_OK;
}

kh_status kh_kv_pool_open(kh_kv_pool **out, const kh_kv_shape *shape, size_t pages)
{
    *out = NULL;
    KH_TRY(check_shape(shape, pages));
    kh_kv_pool *pool;
    KH_TRY(kh_new(&pool, 1, sizeof *pool, "a cache"));
    pool->shape = *shape;
    pool->pages = pages;
    pool->key_bytes = part_bytes(shape->k_type, shape->k_width);
    pool->value_bytes = part_bytes(shape->v_type, shape->v_width);
    pool->slot_bytes = slot_bytes(shape);
    pool->page_bytes = page_bytes(shape);
    pool->shadow_bytes = shape->shadow ? kh_shadow_bytes((size_t)shape->k_width) : 0;
    void *base = NULL, *shadows = NULL;
    kh_status status = kh_new(&pool->refs, pages, sizeof *pool->refs, "the cache's page counts");
    if (!status) status = kh_new(&pool->free, pages, sizeof *pool->free, "the cache's page list");
    if (!status) status = kh_reserve(&base, pages * pool->page_bytes, "the key/value cache");
    pool->base = base;
    if (!status && shape->shadow)
        status = kh_reserve(&shadows, pages * shadow_page_bytes(shape), "the shadow of the keys");
    pool->shadows = shadows;
    if (status) {
        kh_kv_pool_close(pool);
        return status;
    }
    *out = pool;
    return KH_OK;
}

void kh_kv_pool_close(kh_kv_pool *pool)
{
    if (!pool) return;
    kh_reserve_free(pool->base, pool->pages * pool->page_bytes);
    kh_reserve_free(pool->shadows, pool->pages * shadow_page_bytes(&pool->shape));
    kh_free(pool->refs);
    kh_free(pool->free);
    kh_free(pool);
}

void kh_kv_pool_drop(kh_kv_pool *pool)
{
    if (pool->used == 0) kh_reserve_drop(pool->base, pool->fresh * pool->page_bytes);
}

const kh_kv_shape *kh_kv_pool_shape(const kh_kv_pool *pool)
{
    return &pool->shape;
}

size_t kh_kv_pool_used(const kh_kv_pool *pool)
{
    return pool->used;
}

size_t kh_kv_pool_peak(const kh_kv_pool *pool)
{
    return pool->peak;
}

static size_t pages_left(const kh_kv_pool *pool)
{
    return pool->pages - pool->used;
}

/* The caller has seen that a page is left. */
static uint32_t take(kh_kv_pool *pool)
{
    uint32_t page = pool->free_count ? pool->free[--pool->free_count] : (uint32_t)pool->fresh++;
    pool->refs[page] = 1;
    if (++pool->used > pool->peak) pool->peak = pool->used;
    return page;
}

static void release(kh_kv_pool *pool, uint32_t page)
{
    if (--pool->refs[page] > 0) return;
    pool->free[pool->free_count++] = page;
    pool->used--;
}

kh_status kh_kv_open(kh_kv **out, kh_kv_pool *pool, size_t capacity)
{
    *out = NULL;
    size_t most = pool->pages * KH_PAGE;
    if (capacity < 1 || capacity > most)
        KH_FAIL(KH_ERR_ARGUMENT, "a sequence of %zu positions: the cache holds 1 .. %zu", capacity,
                most);
    kh_kv *kv;
    KH_TRY(kh_new(&kv, 1, sizeof *kv, "a sequence"));
    kv->pool = pool;
    kv->capacity = capacity;
    kh_status status = kh_new(&kv->pages, (capacity + KH_PAGE - 1) / KH_PAGE, sizeof *kv->pages,
                              "a sequence's page list");
    if (status) {
        kh_free(kv);
        return status;
    }
    *out = kv;
    return KH_OK;
}

void kh_kv_close(kh_kv *kv)
{
    if (!kv) return;
    while (kv->page_count > 0) release(kv->pool, kv->pages[--kv->page_count]);
    kh_free(kv->pages);
    kh_free(kv);
}

const kh_kv_shape *kh_kv_shape_of(const kh_kv *kv)
{
    return &kv->pool->shape;
}

size_t kh_kv_length(const kh_kv *kv)
{
    return kv->length;
}

size_t kh_kv_capacity(const kh_kv *kv)
{
    return kv->capacity;
}

kh_status kh_kv_prepare(kh_kv *kv, size_t n)
{
    kh_kv_pool *pool = kv->pool;
    if (n > kv->capacity - kv->length)
        KH_FAIL(KH_ERR_CONTEXT,
                "the context holds %zu positions: %zu are used and %zu more were asked",
                kv->capacity, kv->length, n);
    size_t want = (kv->length + n + KH_PAGE - 1) / KH_PAGE, last = kv->length / KH_PAGE;
    int shared = n > 0 && last < kv->page_count && pool->refs[kv->pages[last]] > 1;
    size_t more = (want > kv->page_count ? want - kv->page_count : 0) + (size_t)shared;
    if (more > pages_left(pool))
        KH_FAIL(KH_ERR_CONTEXT, "the cache has %zu pages of %d positions left and %zu are needed",
                pages_left(pool), KH_PAGE, more);
    if (shared) {
        uint32_t old = kv->pages[last], fresh = take(pool);
        memcpy(pool->base + fresh * pool->page_bytes, pool->base + old * pool->page_bytes,
               pool->page_bytes);
        kv->pages[last] = fresh;
        release(pool, old);
    }
    while (kv->page_count < want) kv->pages[kv->page_count++] = take(pool);
    return KH_OK;
}

/* One group of 32 elements, each `step` bytes from the next, with one scale. */
static void quantize_group(uint8_t *scale, int8_t *q, size_t step, const float *x)
{
    float top = 0;
    for (size_t i = 0; i < 32; i++) top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
    uint16_t half = kh_f32_to_f16(top / 127.0f);
    memcpy(scale, &half, sizeof half);
    float d = kh_f16_to_f32(half), inverse = d > 0 ? 1.0f / d : 0.0f;
    for (size_t i = 0; i < 32; i++) {
        float v = x[i] * inverse;
        q[i * step] = (int8_t)(v > 127.0f ? 127 : v >= -127.0f ? lrintf(v) : v < 0 ? -127 : 0);
    }
}

static void put_key(const kh_kern *kern, kh_type type, char *keys, size_t j, const float *k,
                    size_t E)
{
    char *panel = keys + j / KH_PANEL * (KH_PANEL * kh_type_row_bytes(type, E));
    size_t lane = j % KH_PANEL;
    if (type == KH_TYPE_F32) {
        float *to = (float *)(void *)panel + lane;
        for (size_t e = 0; e < E; e++) to[e * KH_PANEL] = k[e];
    } else if (type == KH_TYPE_F16) {
        uint16_t *to = (uint16_t *)(void *)panel + lane, half[64];
        for (size_t e = 0; e < E; e += 64) {
            size_t n = E - e < 64 ? E - e : 64;
            kern->kv_f16(half, k + e, n);
            for (size_t i = 0; i < n; i++) to[(e + i) * KH_PANEL] = half[i];
        }
    } else {
        uint8_t *to = (uint8_t *)panel;
        for (size_t e = 0; e < E; e += 32, to += 34 * KH_PANEL)
            quantize_group(to + 2 * lane, (int8_t *)to + 2 * KH_PANEL + lane, KH_PANEL, k + e);
    }
}

static void put_value(const kh_kern *kern, kh_type type, char *values, size_t j, const float *v,
                      size_t E)
{
    char *row = values + j * kh_type_row_bytes(type, E);
    if (type == KH_TYPE_F32) {
        memcpy(row, v, E * sizeof *v);
    } else if (type == KH_TYPE_F16) {
        kern->kv_f16((uint16_t *)(void *)row, v, E);
    } else {
        for (size_t e = 0; e < E; e += 32, row += 34)
            quantize_group((uint8_t *)row, (int8_t *)row + 2, 1, v + e);
    }
}

/* Adds the rows of a page, as they are stored, to a sum. */
static void add_rows(const kh_kern *kern, float *sum, const char *values, kh_type type, size_t E)
{
    float row[256];
    for (size_t j = 0; j < KH_PAGE; j++) {
        for (size_t e = 0; e < E; e += 256) {
            size_t n = E - e < 256 ? E - e : 256;
            const char *from = values + j * kh_type_row_bytes(type, E);
            kern->kv_value_f32(row, from + kh_type_row_bytes(type, e), (int)type, n, 1);
            for (size_t i = 0; i < n; i++) sum[e + i] += row[i];
        }
    }
}

static void start_page(const kh_kv *kv, const kh_kern *kern, int layer, int g, size_t p)
{
    const kh_kv_pool *pool = kv->pool;
    size_t E = (size_t)pool->shape.v_width, at = pool->key_bytes + pool->value_bytes;
    float *sum = (float *)(void *)(kh_kv_slot(pool, kv->pages[p], layer, g) + at);
    memset(sum, 0, E * sizeof *sum);
    if (p == 0) return;
    memcpy(sum, kh_kv_value_sum(kv, layer, g, p - 1), E * sizeof *sum);
    add_rows(kern, sum, kh_kv_values(kv, layer, g, p - 1), pool->shape.v_type, E);
}

void kh_kv_cast(const kh_kv *kv, const kh_kern *kern, int layer, int g, size_t p)
{
    const kh_kv_pool *pool = kv->pool;
    size_t E = (size_t)pool->shape.k_width;
    float panels[KH_PAGE * KH_SHADOW_WIDEST];
    if (!pool->shadows) return;
    kern->kv_key_f32(panels, kh_kv_keys(kv, layer, g, p), (int)pool->shape.k_type, E, KH_PAGE);
    kern->shadow_pack(pool->shadows + kh_kv_shadow_at(pool, kv->pages[p], layer, g), panels, E);
}

void kh_kv_write(kh_kv *kv, const kh_kern *kern, int layer, int g, size_t n, const float *k,
                 size_t ldk, const float *v, size_t ldv)
{
    const kh_kv_pool *pool = kv->pool;
    const kh_kv_shape *s = &pool->shape;
    for (size_t i = 0; i < n; i++) {
        size_t position = kv->length + i, j = position % KH_PAGE;
        if (j == 0) start_page(kv, kern, layer, g, position / KH_PAGE);
        char *slot = kh_kv_slot(pool, kv->pages[position / KH_PAGE], layer, g);
        put_key(kern, s->k_type, slot, j, k + i * ldk, (size_t)s->k_width);
        put_value(kern, s->v_type, slot + pool->key_bytes, j, v + i * ldv, (size_t)s->v_width);
        if (j + 1 == KH_PAGE) kh_kv_cast(kv, kern, layer, g, position / KH_PAGE);
    }
}

void kh_kv_advance(kh_kv *kv, size_t n)
{
    kv->length += n;
}

kh_status kh_kv_fork(kh_kv **out, const kh_kv *kv)
{
    KH_TRY(kh_kv_open(out, kv->pool, kv->capacity));
    kh_kv *copy = *out;
    copy->length = kv->length;
    copy->page_count = (kv->length + KH_PAGE - 1) / KH_PAGE;
    for (size_t p = 0; p < copy->page_count; p++) {
        copy->pages[p] = kv->pages[p];
        kv->pool->refs[kv->pages[p]]++;
    }
    return KH_OK;
}

kh_status kh_kv_rewind(kh_kv *kv, size_t length)
{
    if (length > kv->length)
        KH_FAIL(KH_ERR_ARGUMENT, "a sequence of %zu positions cannot be rewound to %zu", kv->length,
                length);
    kv->length = length;
    size_t keep = (length + KH_PAGE - 1) / KH_PAGE;
    while (kv->page_count > keep) release(kv->pool, kv->pages[--kv->page_count]);
    return KH_OK;
}

const void *kh_kv_keys(const kh_kv *kv, int layer, int g, size_t p)
{
    return kh_kv_slot(kv->pool, kv->pages[p], layer, g);
}

const void *kh_kv_values(const kh_kv *kv, int layer, int g, size_t p)
{
    return kh_kv_slot(kv->pool, kv->pages[p], layer, g) + kv->pool->key_bytes;
}

const void *kh_kv_shadow(const kh_kv *kv, int layer, int g, size_t p)
{
    const kh_kv_pool *pool = kv->pool;
    return pool->shadows ? pool->shadows + kh_kv_shadow_at(pool, kv->pages[p], layer, g) : NULL;
}

const void *kh_kv_value_row(const kh_kv *kv, int layer, int g, size_t position)
{
    const char *rows = kh_kv_values(kv, layer, g, position / KH_PAGE);
    const kh_kv_shape *s = &kv->pool->shape;
    return rows + position % KH_PAGE * kh_type_row_bytes(s->v_type, (size_t)s->v_width);
}

const float *kh_kv_value_sum(const kh_kv *kv, int layer, int g, size_t p)
{
    const char *slot = kh_kv_slot(kv->pool, kv->pages[p], layer, g);
    return (const float *)(const void *)(slot + kv->pool->key_bytes + kv->pool->value_bytes);
}
