/* Values of chat templates: memory, lists, dictionaries, equality and order.
 *
 * A rendering takes memory and gives it all back at its end; nothing is freed between. Strings,
 * lists and dictionaries do not change once a template can see them (Hugging Face renders in an
 * immutable sandbox), so a slice of a string is a pointer into it, and keys(), values() and a
 * list's copy share items. Only a namespace changes, and it may hold itself: everything that
 * descends into values counts its depth.
 *
 *     memory    block -> block -> block (each newer one at least as large); a request larger than a
 *               block gets a block of its own
 *     dict      entries in order of insertion | slots: a table of entry numbers, open addressing,
 *               at most half full, from nine entries on
 *
 * Numbers compare across their kinds as in Python: 1 == 1.0 == true, and all three are one key.
 * An integer has 64 bits here; where Python's would grow beyond, the template is refused. */
#include "jinja/jinja_value.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "jinja/jinja_text.h"

#include <math.h>
#include <string.h>

struct kh_jblock {
    kh_jblock *before;
    size_t size, used;
    _Alignas(16) char data[];
};

enum { FIRST_BLOCK = 16 << 10, LARGEST_BLOCK = 1 << 20, SMALL_DICT = 8 };

static kh_status add_block(kh_jmemory *memory, size_t least)
{
    size_t size = memory->last ? memory->last->size * 2 : FIRST_BLOCK;
    if (size > LARGEST_BLOCK) size = LARGEST_BLOCK;
    if (size < least) size = least;
    if (size > memory->limit - memory->used) size = least;
    if (size > memory->limit - memory->used)
        KH_FAIL(KH_ERR_FORMAT, "it needs more than %zu bytes of memory", memory->limit);
    kh_jblock *block = kh_alloc(sizeof *block + size);
    if (!block) KH_FAIL(KH_ERR_MEMORY, "no memory for the chat template (%zu bytes)", size);
    block->before = memory->last;
    block->size = size;
    block->used = 0;
    memory->last = block;
    memory->used += size;
    return KH_OK;
}

kh_status kh_jmemory_take(kh_jmemory *memory, void *out, size_t count, size_t size)
{
    void *place = NULL;
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 2)
        KH_FAIL(KH_ERR_FORMAT, "it needs more than %zu bytes of memory", memory->limit);
    bytes = (bytes + 15) & ~(size_t)15;
    if (!memory->last || bytes > memory->last->size - memory->last->used)
        KH_TRY(add_block(memory, bytes));
    place = memory->last->data + memory->last->used;
    memory->last->used += bytes;
    memset(place, 0, bytes);
    memcpy(out, &place, sizeof place);
    return KH_OK;
}

void kh_jmemory_free(kh_jmemory *memory)
{
    while (memory->last) {
        kh_jblock *before = memory->last->before;
        kh_free(memory->last);
        memory->last = before;
    }
    memory->used = 0;
}

kh_status kh_jrun_count(kh_jrun *run, size_t work)
{
    run->steps += 1 + work / 16;
    if (run->steps > run->step_limit)
        KH_FAIL(KH_ERR_FORMAT, "it takes more than %llu steps",
                (unsigned long long)run->step_limit);
    return KH_OK;
}

kh_status kh_jrun_enter(kh_jrun *run)
{
    if (run->depth >= run->depth_limit)
        KH_FAIL(KH_ERR_FORMAT, "it is nested deeper than %u levels", run->depth_limit);
    ++run->depth;
    return kh_jrun_count(run, 0);
}

void kh_jrun_leave(kh_jrun *run)
{
    --run->depth;
}

/* ---- making ---- */

kh_jval kh_jval_none(void)
{
    return (kh_jval){.kind = KH_J_NONE};
}

kh_jval kh_jval_bool(int truth)
{
    return (kh_jval){.kind = KH_J_BOOL, .i = truth != 0};
}

kh_jval kh_jval_int(int64_t i)
{
    return (kh_jval){.kind = KH_J_INT, .i = i};
}

kh_jval kh_jval_float(double f)
{
    return (kh_jval){.kind = KH_J_FLOAT, .f = f};
}

kh_status kh_jval_text(kh_jrun *run, kh_jval *out, kh_jtext text)
{
    kh_jtext *own;
    KH_TRY(kh_jmemory_take(&run->memory, &own, 1, sizeof *own));
    *own = text;
    *out = (kh_jval){.kind = KH_J_STRING, .s = own};
    return KH_OK;
}

kh_status kh_jval_literal(kh_jrun *run, kh_jval *out, const char *text)
{
    return kh_jval_text(run, out, kh_jtext_of(text));
}

kh_status kh_jval_list(kh_jrun *run, kh_jval *out, kh_jkind kind, size_t room)
{
    kh_jlist *list;
    KH_TRY(kh_jmemory_take(&run->memory, &list, 1, sizeof *list));
    if (room) KH_TRY(kh_jmemory_take(&run->memory, &list->items, room, sizeof *list->items));
    list->room = room;
    *out = (kh_jval){.kind = kind, .list = list};
    return KH_OK;
}

kh_status kh_jval_dict(kh_jrun *run, kh_jval *out, kh_jkind kind)
{
    kh_jdict *dict;
    KH_TRY(kh_jmemory_take(&run->memory, &dict, 1, sizeof *dict));
    *out = (kh_jval){.kind = kind, .dict = dict};
    return KH_OK;
}

static kh_status missing(kh_jrun *run, kh_jval *out, kh_jmissing why)
{
    kh_jmissing *own;
    KH_TRY(kh_jmemory_take(&run->memory, &own, 1, sizeof *own));
    *own = why;
    *out = (kh_jval){.kind = KH_J_UNDEFINED, .missing = own};
    return KH_OK;
}

kh_status kh_jval_missing(kh_jrun *run, kh_jval *out, const char *hint)
{
    return missing(run, out, (kh_jmissing){.hint = hint});
}

kh_status kh_jval_no_item(kh_jrun *run, kh_jval *out, kh_jval object, kh_jval key)
{
    kh_jmissing why = {.object = object.kind};
    if (object.kind == KH_J_UNDEFINED) return kh_jval_refuse(run, object);
    if (key.kind == KH_J_STRING)
        why.name = key.s;
    else
        why.key = key;
    return missing(run, out, why);
}

kh_jtext kh_jtext_of(const char *text)
{
    return (kh_jtext){.data = text, .size = strlen(text)};
}

kh_jtext kh_jtext_cut(kh_jtext text, size_t start, size_t end)
{
    return (kh_jtext){text.data + start, text.said ? text.said + start : NULL, end - start,
                      text.markup};
}

int kh_jtext_is(kh_jtext text, const char *word)
{
    return text.size == strlen(word) && memcmp(text.data, word, text.size) == 0;
}

kh_status kh_jlist_add(kh_jrun *run, kh_jlist *list, kh_jval value)
{
    if (list->count == list->room) {
        size_t room = list->room ? list->room * 2 : 8;
        kh_jval *grown;
        KH_TRY(kh_jmemory_take(&run->memory, &grown, room, sizeof *grown));
        if (list->count) memcpy(grown, list->items, list->count * sizeof *grown);
        list->items = grown;
        list->room = room;
    }
    list->items[list->count++] = value;
    return kh_jrun_count(run, 0);
}

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    return x ^ x >> 33;
}

static kh_status hash(kh_jrun *run, kh_jval key, uint64_t *out)
{
    if (key.kind == KH_J_STRING) {
        uint64_t h = 14695981039346656037ULL;
        for (size_t i = 0; i < key.s->size; ++i)
            h = (h ^ (unsigned char)key.s->data[i]) * 1099511628211ULL;
        *out = mix(h);
        return kh_jrun_count(run, key.s->size);
    }
    if (key.kind == KH_J_NONE || key.kind == KH_J_UNDEFINED) {
        *out = 7;
    } else if (kh_jval_is_number(key)) {
        double f = kh_jval_number(key);
        uint64_t bits;
        f = f == 0 ? 0 : f;
        memcpy(&bits, &f, sizeof bits);
        *out = mix(bits);
    } else if (key.kind == KH_J_TUPLE) {
        KH_TRY(kh_jrun_enter(run));
        *out = 3;
        for (size_t i = 0; i < key.list->count; ++i) {
            uint64_t part;
            KH_TRY(hash(run, key.list->items[i], &part));
            *out = mix(*out * 31 + part);
        }
        kh_jrun_leave(run);
    } else {
        KH_FAIL(KH_ERR_FORMAT, "unhashable type: '%s'", kh_jval_type(key));
    }
    return KH_OK;
}

static kh_status seek(kh_jrun *run, const kh_jdict *dict, kh_jval key, uint64_t h, size_t *out)
{
    int same = 0;
    *out = SIZE_MAX;
    for (size_t i = 0; !dict->slots && i < dict->count; ++i) {
        KH_TRY(kh_jval_equal(run, dict->entries[i].key, key, &same));
        if (same) *out = i;
        if (same) return KH_OK;
    }
    if (!dict->slots) return KH_OK;
    for (size_t at = h & (dict->slot_count - 1); dict->slots[at];
         at = (at + 1) & (dict->slot_count - 1)) {
        KH_TRY(kh_jval_equal(run, dict->entries[dict->slots[at] - 1].key, key, &same));
        if (same) *out = dict->slots[at] - 1;
        if (same) return KH_OK;
    }
    return KH_OK;
}

static kh_status rebuild(kh_jrun *run, kh_jdict *dict)
{
    size_t n = dict->room * 2;
    KH_TRY(kh_jmemory_take(&run->memory, &dict->slots, n, sizeof *dict->slots));
    dict->slot_count = n;
    for (size_t i = 0; i < dict->count; ++i) {
        uint64_t h;
        KH_TRY(hash(run, dict->entries[i].key, &h));
        size_t at = h & (n - 1);
        while (dict->slots[at]) at = (at + 1) & (n - 1);
        dict->slots[at] = (uint32_t)i + 1;
    }
    return KH_OK;
}

kh_status kh_jdict_set(kh_jrun *run, kh_jdict *dict, kh_jval key, kh_jval value)
{
    uint64_t h = 0;
    size_t at;
    KH_TRY(hash(run, key, &h));
    KH_TRY(seek(run, dict, key, h, &at));
    if (at != SIZE_MAX) {
        dict->entries[at].value = value;
        return KH_OK;
    }
    if (dict->count == dict->room) {
        size_t room = dict->room ? dict->room * 2 : SMALL_DICT;
        kh_jentry *grown;
        if (room > UINT32_MAX / 4) KH_FAIL(KH_ERR_FORMAT, "a dictionary is too large");
        KH_TRY(kh_jmemory_take(&run->memory, &grown, room, sizeof *grown));
        if (dict->count) memcpy(grown, dict->entries, dict->count * sizeof *grown);
        dict->entries = grown;
        dict->room = room;
        if (room > SMALL_DICT) KH_TRY(rebuild(run, dict));
    }
    dict->entries[dict->count++] = (kh_jentry){key, value};
    if (dict->slots) {
        size_t slot = h & (dict->slot_count - 1);
        while (dict->slots[slot]) slot = (slot + 1) & (dict->slot_count - 1);
        dict->slots[slot] = (uint32_t)dict->count;
    }
    return kh_jrun_count(run, 0);
}

kh_status kh_jdict_find(kh_jrun *run, const kh_jdict *dict, kh_jval key, kh_jval *out)
{
    uint64_t h = 0;
    size_t at;
    *out = (kh_jval){0};
    KH_TRY(hash(run, key, &h));
    KH_TRY(seek(run, dict, key, h, &at));
    if (at != SIZE_MAX) *out = dict->entries[at].value;
    return KH_OK;
}

kh_status kh_jdict_word(kh_jrun *run, const kh_jdict *dict, const char *key, kh_jval *out)
{
    kh_jtext text = kh_jtext_of(key);
    return kh_jdict_find(run, dict, (kh_jval){.kind = KH_J_STRING, .s = &text}, out);
}

/* ---- asking ---- */

int kh_jval_is_list(kh_jval value)
{
    return value.kind >= KH_J_LIST && value.kind <= KH_J_ITERATOR;
}

int kh_jval_is_number(kh_jval value)
{
    return value.kind >= KH_J_BOOL && value.kind <= KH_J_FLOAT;
}

double kh_jval_number(kh_jval value)
{
    return value.kind == KH_J_FLOAT ? value.f : (double)value.i;
}

int kh_jval_truth(kh_jval value)
{
    switch (value.kind) {
    case KH_J_ABSENT:
    case KH_J_UNDEFINED:
    case KH_J_NONE: return 0;
    case KH_J_BOOL:
    case KH_J_INT: return value.i != 0;
    case KH_J_FLOAT: return value.f != 0;
    case KH_J_STRING: return value.s->size != 0;
    case KH_J_LIST:
    case KH_J_TUPLE:
    case KH_J_RANGE:
    case KH_J_VIEW: return value.list->count != 0;
    case KH_J_DICT: return value.dict->count != 0;
    default: return 1;
    }
}

const char *kh_jval_type(kh_jval value)
{
    static const char *const names[] = {"absent",     "Undefined",
                                        "NoneType",   "bool",
                                        "int",        "float",
                                        "str",        "list",
                                        "tuple",      "range",
                                        "dict_view",  "generator",
                                        "dict",       "TemplateNamespace",
                                        "function",   "Macro",
                                        "LoopContext"};
    return names[value.kind];
}

static kh_status equal_lists(kh_jrun *run, const kh_jlist *a, const kh_jlist *b, int *out)
{
    *out = a->count == b->count;
    for (size_t i = 0; *out && i < a->count; ++i)
        KH_TRY(kh_jval_equal(run, a->items[i], b->items[i], out));
    return KH_OK;
}

static kh_status equal_dicts(kh_jrun *run, const kh_jdict *a, const kh_jdict *b, int *out)
{
    *out = a->count == b->count;
    for (size_t i = 0; *out && i < a->count; ++i) {
        kh_jval other;
        KH_TRY(kh_jdict_find(run, b, a->entries[i].key, &other));
        *out = other.kind != KH_J_ABSENT;
        if (*out) KH_TRY(kh_jval_equal(run, a->entries[i].value, other, out));
    }
    return KH_OK;
}

kh_status kh_jval_equal(kh_jrun *run, kh_jval a, kh_jval b, int *out)
{
    KH_TRY(kh_jrun_count(run, 0));
    if (kh_jval_is_number(a) && kh_jval_is_number(b)) {
        if (a.kind != KH_J_FLOAT && b.kind != KH_J_FLOAT)
            *out = a.i == b.i;
        else
            *out = kh_jval_number(a) == kh_jval_number(b);
        return KH_OK;
    }
    *out = 0;
    if (a.kind != b.kind) return KH_OK;
    switch (a.kind) {
    case KH_J_UNDEFINED:
    case KH_J_NONE: *out = 1; return KH_OK;
    case KH_J_STRING:
        KH_TRY(kh_jrun_count(run, a.s->size));
        *out = a.s->size == b.s->size &&
               (a.s->size == 0 || memcmp(a.s->data, b.s->data, a.s->size) == 0);
        return KH_OK;
    case KH_J_LIST:
    case KH_J_TUPLE:
    case KH_J_RANGE:
        if (a.list == b.list) *out = 1;
        if (a.list == b.list) return KH_OK;
        KH_TRY(kh_jrun_enter(run));
        KH_TRY(equal_lists(run, a.list, b.list, out));
        kh_jrun_leave(run);
        return KH_OK;
    case KH_J_DICT:
        KH_TRY(kh_jrun_enter(run));
        KH_TRY(equal_dicts(run, a.dict, b.dict, out));
        kh_jrun_leave(run);
        return KH_OK;
    default: *out = a.list == b.list; return KH_OK;
    }
}

kh_status kh_jval_order(kh_jrun *run, kh_jval a, kh_jval b, const char *sign, int *out)
{
    KH_TRY(kh_jrun_count(run, 0));
    if (kh_jval_is_number(a) && kh_jval_is_number(b)) {
        double x = kh_jval_number(a), y = kh_jval_number(b);
        if (a.kind != KH_J_FLOAT && b.kind != KH_J_FLOAT)
            *out = (a.i > b.i) - (a.i < b.i);
        else
            *out = isnan(x) || isnan(y) ? 2 : (x > y) - (x < y);
        return KH_OK;
    }
    KH_TRY(kh_jval_need(run, a));
    KH_TRY(kh_jval_need(run, b));
    if (a.kind == KH_J_STRING && b.kind == KH_J_STRING) {
        size_t n = a.s->size < b.s->size ? a.s->size : b.s->size;
        KH_TRY(kh_jrun_count(run, n));
        int c = n ? memcmp(a.s->data, b.s->data, n) : 0;
        *out = c ? (c > 0) - (c < 0) : (a.s->size > b.s->size) - (a.s->size < b.s->size);
        return KH_OK;
    }
    if (a.kind == b.kind && (a.kind == KH_J_LIST || a.kind == KH_J_TUPLE)) {
        size_t n = a.list->count < b.list->count ? a.list->count : b.list->count;
        KH_TRY(kh_jrun_enter(run));
        for (size_t i = 0; i < n; ++i) {
            int same;
            KH_TRY(kh_jval_equal(run, a.list->items[i], b.list->items[i], &same));
            if (same) continue;
            KH_TRY(kh_jval_order(run, a.list->items[i], b.list->items[i], sign, out));
            kh_jrun_leave(run);
            return KH_OK;
        }
        kh_jrun_leave(run);
        *out = (a.list->count > b.list->count) - (a.list->count < b.list->count);
        return KH_OK;
    }
    KH_FAIL(KH_ERR_FORMAT, "'%s' not supported between instances of '%s' and '%s'", sign,
            kh_jval_type(a), kh_jval_type(b));
}

kh_status kh_jval_contains(kh_jrun *run, kh_jval box, kh_jval item, int *out)
{
    *out = 0;
    if (box.kind == KH_J_STRING) {
        if (item.kind == KH_J_UNDEFINED) return kh_jval_refuse(run, item);
        if (item.kind != KH_J_STRING)
            KH_FAIL(KH_ERR_FORMAT, "'in <string>' requires string as left operand, not %s",
                    kh_jval_type(item));
        KH_TRY(kh_jrun_count(run, box.s->size));
        *out = item.s->size == 0 ||
               (box.s->size && memmem(box.s->data, box.s->size, item.s->data, item.s->size));
        return KH_OK;
    }
    if (box.kind == KH_J_DICT) {
        kh_jval found;
        KH_TRY(kh_jdict_find(run, box.dict, item, &found));
        *out = found.kind != KH_J_ABSENT;
        return KH_OK;
    }
    kh_jlist list;
    if (box.kind != KH_J_UNDEFINED && !kh_jval_is_list(box))
        KH_FAIL(KH_ERR_FORMAT, "argument of type '%s' is not iterable", kh_jval_type(box));
    KH_TRY(kh_jval_iterate(run, box, &list));
    for (size_t i = 0; i < list.count && !*out; ++i)
        KH_TRY(kh_jval_equal(run, list.items[i], item, out));
    return KH_OK;
}

static kh_status characters(kh_jrun *run, const kh_jtext *text, kh_jlist *out)
{
    for (size_t at = 0; at < text->size;) {
        size_t size = kh_jtext_step(*text, at);
        kh_jval one;
        kh_jtext piece = kh_jtext_cut(*text, at, at + size);
        piece.markup = 0;
        KH_TRY(kh_jval_text(run, &one, piece));
        KH_TRY(kh_jlist_add(run, out, one));
        at += size;
    }
    return KH_OK;
}

kh_status kh_jval_iterate(kh_jrun *run, kh_jval value, kh_jlist *out)
{
    *out = (kh_jlist){0};
    if (value.kind == KH_J_UNDEFINED) return KH_OK;
    if (value.kind == KH_J_STRING) return characters(run, value.s, out);
    if (kh_jval_is_list(value)) {
        *out = *value.list;
        if (value.kind == KH_J_ITERATOR) {
            if (out->next) out->items += out->next;
            out->count -= out->next;
            value.list->next = value.list->count;
        }
        out->room = out->count;
        return KH_OK;
    }
    if (value.kind != KH_J_DICT)
        KH_FAIL(KH_ERR_FORMAT, "'%s' object is not iterable", kh_jval_type(value));
    for (size_t i = 0; i < value.dict->count; ++i)
        KH_TRY(kh_jlist_add(run, out, value.dict->entries[i].key));
    return KH_OK;
}

kh_status kh_jval_refuse(kh_jrun *run, kh_jval undefined)
{
    const kh_jmissing *why = undefined.missing;
    if (!why) KH_FAIL(KH_ERR_FORMAT, "a value is undefined");
    if (why->hint) KH_FAIL(KH_ERR_FORMAT, "%s", why->hint);
    kh_jval object = {.kind = why->object};
    int n = why->name && why->name->size < 200 ? (int)why->name->size : 200;
    const char *none = why->object == KH_J_NONE ? "None" : NULL;
    if (why->object == KH_J_ABSENT)
        KH_FAIL(KH_ERR_FORMAT, "'%.*s' is undefined", n, why->name ? why->name->data : "");
    if (why->name)
        KH_FAIL(KH_ERR_FORMAT, "'%s%s' has no attribute '%.*s'", none ? none : kh_jval_type(object),
                none ? "" : " object", n, why->name->data);
    kh_jtext key;
    KH_TRY(kh_jval_repr(run, why->key, &key));
    KH_FAIL(KH_ERR_FORMAT, "%s%s has no element %.*s", none ? none : kh_jval_type(object),
            none ? "" : " object", (int)(key.size < 200 ? key.size : 200), key.data);
}

kh_status kh_jval_need(kh_jrun *run, kh_jval value)
{
    return value.kind == KH_J_UNDEFINED ? kh_jval_refuse(run, value) : KH_OK;
}

kh_status kh_jval_length(kh_jrun *run, kh_jval value, int64_t *out)
{
    *out = 0;
    switch (value.kind) {
    case KH_J_UNDEFINED: return KH_OK;
    case KH_J_STRING:
        KH_TRY(kh_jrun_count(run, value.s->size));
        *out = (int64_t)kh_jtext_length(*value.s);
        return KH_OK;
    case KH_J_LIST:
    case KH_J_TUPLE:
    case KH_J_RANGE:
    case KH_J_VIEW: *out = (int64_t)value.list->count; return KH_OK;
    case KH_J_DICT: *out = (int64_t)value.dict->count; return KH_OK;
    default: KH_FAIL(KH_ERR_FORMAT, "object of type '%s' has no len()", kh_jval_type(value));
    }
}
