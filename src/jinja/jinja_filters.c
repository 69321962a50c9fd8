/* Filters of chat templates that take or give lists, and the list of all tables of filters.
 *
 * map, select, reject and their like are generators in Jinja2: read once, true even when nothing
 * would come, without a length. Templates meet all three (`{% if messages | selectattr(...) %}`
 * is always true; most put `| list` behind), so they give an ITERATOR here. Only the laziness is
 * left out: an item that fails does so at once, and not when it is asked for.
 *
 * Sorting is a merge sort: stable as Python's, and bounded whatever the comparisons say. */
#include "jinja/jinja_call.h"

#include "base/fail.h"

#include <string.h>

const kh_jdef *const kh_jfilters[] = {kh_jfilters_list, kh_jfilters_text, NULL};

/* ---- sorting ---- */

static kh_status merge(kh_jrun *run, kh_jkeyed *list, kh_jkeyed *spare, size_t n, int reverse)
{
    if (n < 2) return KH_OK;
    size_t half = n / 2;
    KH_TRY(merge(run, list, spare, half, reverse));
    KH_TRY(merge(run, list + half, spare, n - half, reverse));
    memcpy(spare, list, half * sizeof *list);
    for (size_t i = 0, j = half, at = 0; i < half; ++at) {
        int order = 0;
        if (j < n) KH_TRY(kh_jval_order(run, list[j].key, spare[i].key, "<", &order));
        if (j < n && order == (reverse ? 1 : -1))
            list[at] = list[j++];
        else
            list[at] = spare[i++];
    }
    return KH_OK;
}

kh_status kh_jkeyed_sort(kh_jrun *run, kh_jkeyed *list, size_t n, int reverse)
{
    kh_jkeyed *spare;
    if (n < 2) return KH_OK;
    KH_TRY(kh_jmemory_take(&run->memory, &spare, n, sizeof *spare));
    return merge(run, list, spare, n, reverse);
}

/* What sorting and comparing looks at: an attribute, without case. */
static kh_status key_of(kh_jrun *run, kh_jval item, kh_jval attribute, int with_case, kh_jval *out)
{
    *out = item;
    if (attribute.kind != KH_J_ABSENT && attribute.kind != KH_J_NONE)
        KH_TRY(kh_jval_path(run, item, attribute, (kh_jval){0}, out));
    if (with_case || out->kind != KH_J_STRING) return KH_OK;
    kh_jout text = {.run = run};
    KH_TRY(kh_jout_case(&text, *out->s, KH_J_LOWER));
    return kh_jout_value(&text, out);
}

/* The items of `value` with their keys. */
static kh_status keyed(kh_jcall *c, kh_jval value, kh_jval attribute, int with_case,
                       kh_jkeyed **out, size_t *n)
{
    kh_jlist items;
    KH_TRY(kh_jval_iterate(c->run, value, &items));
    *n = items.count;
    KH_TRY(kh_jmemory_take(&c->run->memory, out, items.count + 1, sizeof **out));
    for (size_t i = 0; i < items.count; ++i) {
        (*out)[i].value = items.items[i];
        KH_TRY(key_of(c->run, items.items[i], attribute, with_case, &(*out)[i].key));
    }
    return KH_OK;
}

static kh_status list_of(kh_jcall *c, kh_jkeyed *from, size_t n, kh_jkind kind, kh_jval *out)
{
    KH_TRY(kh_jval_list(c->run, out, kind, n));
    for (size_t i = 0; i < n; ++i) KH_TRY(kh_jlist_add(c->run, out->list, from[i].value));
    return KH_OK;
}

/* The key of `sort` is a list, also for one attribute or none: equal keys need no order. "a,b"
 * sorts by a, then by b. */
static kh_status by_lists(kh_jcall *c, kh_jkeyed *list, size_t n, const kh_jtext *names,
                          int with_case)
{
    for (size_t i = 0; i < n; ++i) {
        kh_jval keys, key, name;
        KH_TRY(kh_jval_list(c->run, &keys, KH_J_LIST, 1));
        if (!names) KH_TRY(kh_jlist_add(c->run, keys.list, list[i].key));
        for (size_t start = 0, end; names && start <= names->size; start = end + 1) {
            for (end = start; end < names->size && names->data[end] != ',';) ++end;
            KH_TRY(kh_jval_text(c->run, &name, kh_jtext_cut(*names, start, end)));
            KH_TRY(key_of(c->run, list[i].value, name, with_case, &key));
            KH_TRY(kh_jlist_add(c->run, keys.list, key));
        }
        list[i].key = keys;
    }
    return KH_OK;
}

static kh_status sort(kh_jcall *c, kh_jval *out)
{
    kh_jkeyed *list;
    size_t n;
    kh_jval by = c->arg[2];
    int with_case = kh_jcall_truth(c, 1, 0);
    int many = by.kind == KH_J_STRING && by.s->size && memchr(by.s->data, ',', by.s->size);
    KH_TRY(keyed(c, c->self, many ? (kh_jval){0} : by, with_case, &list, &n));
    KH_TRY(by_lists(c, list, n, many ? by.s : NULL, with_case));
    KH_TRY(kh_jkeyed_sort(c->run, list, n, kh_jcall_truth(c, 0, 0)));
    return list_of(c, list, n, KH_J_LIST, out);
}

static kh_status pairs(kh_jcall *c, kh_jval dict, kh_jkind kind, kh_jval *out)
{
    KH_TRY(kh_jval_list(c->run, out, kind, dict.dict->count));
    for (size_t i = 0; i < dict.dict->count; ++i) {
        kh_jval pair;
        KH_TRY(kh_jval_list(c->run, &pair, KH_J_TUPLE, 2));
        KH_TRY(kh_jlist_add(c->run, pair.list, dict.dict->entries[i].key));
        KH_TRY(kh_jlist_add(c->run, pair.list, dict.dict->entries[i].value));
        KH_TRY(kh_jlist_add(c->run, out->list, pair));
    }
    return KH_OK;
}

static kh_status dictsort(kh_jcall *c, kh_jval *out)
{
    kh_jval all, by = kh_jval_int(0);
    kh_jkeyed *list;
    size_t n;
    KH_TRY(kh_jval_need(c->run, c->self));
    if (c->self.kind != KH_J_DICT) KH_FAIL(KH_ERR_FORMAT, "dictsort needs a mapping");
    if (c->arg[1].kind == KH_J_STRING && kh_jtext_is(*c->arg[1].s, "value"))
        by.i = 1;
    else if (c->arg[1].kind != KH_J_ABSENT &&
             (c->arg[1].kind != KH_J_STRING || !kh_jtext_is(*c->arg[1].s, "key")))
        KH_FAIL(KH_ERR_FORMAT, "You can only sort by either \"key\" or \"value\"");
    KH_TRY(pairs(c, c->self, KH_J_LIST, &all));
    KH_TRY(keyed(c, all, by, kh_jcall_truth(c, 0, 0), &list, &n));
    KH_TRY(kh_jkeyed_sort(c->run, list, n, kh_jcall_truth(c, 2, 0)));
    return list_of(c, list, n, KH_J_LIST, out);
}

static kh_status unique(kh_jcall *c, kh_jval *out)
{
    kh_jkeyed *list;
    kh_jval seen, found;
    size_t n;
    KH_TRY(keyed(c, c->self, c->arg[1], kh_jcall_truth(c, 0, 0), &list, &n));
    KH_TRY(kh_jval_list(c->run, out, KH_J_ITERATOR, n));
    KH_TRY(kh_jval_dict(c->run, &seen, KH_J_DICT));
    for (size_t i = 0; i < n; ++i) {
        KH_TRY(kh_jdict_find(c->run, seen.dict, list[i].key, &found));
        if (found.kind != KH_J_ABSENT) continue;
        KH_TRY(kh_jdict_set(c->run, seen.dict, list[i].key, kh_jval_none()));
        KH_TRY(kh_jlist_add(c->run, out->list, list[i].value));
    }
    return KH_OK;
}

static kh_status extreme(kh_jcall *c, kh_jval *out, int want)
{
    kh_jkeyed *list;
    size_t n, best = 0;
    KH_TRY(keyed(c, c->self, c->arg[1], kh_jcall_truth(c, 0, 0), &list, &n));
    if (!n) return kh_jval_missing(c->run, out, "No aggregated item, sequence was empty.");
    for (size_t i = 1; i < n; ++i) {
        int order;
        KH_TRY(kh_jval_order(c->run, list[i].key, list[best].key, want < 0 ? "<" : ">", &order));
        if (order == want) best = i;
    }
    *out = list[best].value;
    return KH_OK;
}

static kh_status smallest(kh_jcall *c, kh_jval *out)
{
    return extreme(c, out, -1);
}

static kh_status largest(kh_jcall *c, kh_jval *out)
{
    return extreme(c, out, 1);
}

/* ---- one item, the length, the whole ---- */

static kh_status length(kh_jcall *c, kh_jval *out)
{
    int64_t n;
    KH_TRY(kh_jval_length(c->run, c->self, &n));
    *out = kh_jval_int(n);
    return KH_OK;
}

static kh_status first(kh_jcall *c, kh_jval *out)
{
    kh_jlist items;
    kh_jval of = c->self;
    size_t next = of.kind == KH_J_ITERATOR ? of.list->next : 0;
    KH_TRY(kh_jval_iterate(c->run, of, &items));
    if (!items.count) return kh_jval_missing(c->run, out, "No first item, sequence was empty.");
    if (of.kind == KH_J_ITERATOR) of.list->next = next + 1;
    *out = items.items[0];
    return KH_OK;
}

static kh_status last(kh_jcall *c, kh_jval *out)
{
    kh_jlist items;
    if (c->self.kind == KH_J_ITERATOR)
        KH_FAIL(KH_ERR_FORMAT, "'generator' object is not reversible");
    KH_TRY(kh_jval_iterate(c->run, c->self, &items));
    if (!items.count) return kh_jval_missing(c->run, out, "No last item, sequence was empty.");
    *out = items.items[items.count - 1];
    return KH_OK;
}

static kh_status copy(kh_jcall *c, kh_jval *out)
{
    kh_jlist items;
    KH_TRY(kh_jval_iterate(c->run, c->self, &items));
    KH_TRY(kh_jval_list(c->run, out, KH_J_LIST, items.count));
    for (size_t i = 0; i < items.count; ++i)
        KH_TRY(kh_jlist_add(c->run, out->list, items.items[i]));
    return KH_OK;
}

static kh_status reverse(kh_jcall *c, kh_jval *out)
{
    kh_jlist items;
    KH_TRY(kh_jval_iterate(c->run, c->self, &items));
    if (c->self.kind == KH_J_STRING) {
        kh_jout text = {.run = c->run};
        for (size_t i = items.count; i-- > 0;) KH_TRY(kh_jout_add(&text, *items.items[i].s));
        return kh_jout_markup(&text, out, c->self.s->markup);
    }
    KH_TRY(kh_jval_list(c->run, out, c->self.kind == KH_J_ITERATOR ? KH_J_LIST : KH_J_ITERATOR,
                        items.count));
    for (size_t i = items.count; i-- > 0;) KH_TRY(kh_jlist_add(c->run, out->list, items.items[i]));
    return KH_OK;
}

static kh_status items_of(kh_jcall *c, kh_jval *out)
{
    if (c->self.kind == KH_J_UNDEFINED) return kh_jval_list(c->run, out, KH_J_ITERATOR, 0);
    if (c->self.kind != KH_J_DICT)
        KH_FAIL(KH_ERR_FORMAT, "Can only get item pairs from a mapping.");
    return pairs(c, c->self, KH_J_ITERATOR, out);
}

static kh_status join(kh_jcall *c, kh_jval *out)
{
    kh_jlist items;
    kh_jtext between = kh_jtext_of("");
    kh_jout text = {.run = c->run};
    if (c->arg[0].kind != KH_J_ABSENT) KH_TRY(kh_jval_show(c->run, c->arg[0], &between));
    KH_TRY(kh_jval_iterate(c->run, c->self, &items));
    for (size_t i = 0; i < items.count; ++i) {
        kh_jval item = items.items[i];
        if (c->arg[1].kind != KH_J_ABSENT && c->arg[1].kind != KH_J_NONE)
            KH_TRY(kh_jval_path(c->run, item, c->arg[1], (kh_jval){0}, &item));
        if (i) KH_TRY(kh_jout_add(&text, between));
        KH_TRY(kh_jout_show(&text, item));
    }
    return kh_jout_value(&text, out);
}

static kh_status sum(kh_jcall *c, kh_jval *out)
{
    kh_jlist items;
    *out = c->arg[1].kind == KH_J_ABSENT ? kh_jval_int(0) : c->arg[1];
    KH_TRY(kh_jval_iterate(c->run, c->self, &items));
    for (size_t i = 0; i < items.count; ++i) {
        kh_jval item = items.items[i];
        if (c->arg[0].kind != KH_J_ABSENT && c->arg[0].kind != KH_J_NONE)
            KH_TRY(kh_jval_path(c->run, item, c->arg[0], (kh_jval){0}, &item));
        KH_TRY(kh_jval_binary(c->run, '+', *out, item, out));
    }
    return KH_OK;
}

static kh_status batch(kh_jcall *c, kh_jval *out)
{
    kh_jlist items;
    kh_jval row = {0};
    int64_t size;
    KH_TRY(kh_jcall_int(c, 0, 0, &size));
    KH_TRY(kh_jval_iterate(c->run, c->self, &items));
    KH_TRY(kh_jval_list(c->run, out, KH_J_ITERATOR, 0));
    for (size_t i = 0; i < items.count; ++i) {
        if (!row.list || (int64_t)row.list->count == size) {
            KH_TRY(kh_jval_list(c->run, &row, KH_J_LIST, 0));
            KH_TRY(kh_jlist_add(c->run, out->list, row));
        }
        KH_TRY(kh_jlist_add(c->run, row.list, items.items[i]));
    }
    int fill = c->arg[1].kind != KH_J_ABSENT && c->arg[1].kind != KH_J_NONE;
    while (fill && row.list && (int64_t)row.list->count < size)
        KH_TRY(kh_jlist_add(c->run, row.list, c->arg[1]));
    return KH_OK;
}

/* In n columns, the longer ones first. */
static kh_status slice(kh_jcall *c, kh_jval *out)
{
    kh_jlist items;
    int64_t n;
    KH_TRY(kh_jcall_int(c, 0, 0, &n));
    KH_TRY(kh_jval_iterate(c->run, c->self, &items));
    if (n <= 0) KH_FAIL(KH_ERR_FORMAT, "slice needs a positive number of slices");
    KH_TRY(kh_jval_list(c->run, out, KH_J_ITERATOR, 0));
    int64_t each = (int64_t)items.count / n, more = (int64_t)items.count % n;
    int fill = c->arg[1].kind != KH_J_ABSENT && c->arg[1].kind != KH_J_NONE;
    for (int64_t i = 0, at = 0; i < n; ++i) {
        kh_jval row;
        KH_TRY(kh_jval_list(c->run, &row, KH_J_LIST, 0));
        for (int64_t end = at + each + (i < more); at < end; ++at)
            KH_TRY(kh_jlist_add(c->run, row.list, items.items[at]));
        if (fill && i >= more && more) KH_TRY(kh_jlist_add(c->run, row.list, c->arg[1]));
        KH_TRY(kh_jlist_add(c->run, out->list, row));
    }
    return KH_OK;
}

/* The attribute alone: of a dictionary its methods, not its items. */
static kh_status attribute(kh_jcall *c, kh_jval *out)
{
    static const kh_jdef *const methods[] = {kh_jmethods_dict, NULL};
    kh_jtext name;
    KH_TRY(kh_jcall_text(c, 0, &name));
    if (c->self.kind == KH_J_DICT && !kh_jdef_find(methods, name))
        return kh_jval_no_item(c->run, out, c->self, c->arg[0]);
    return kh_jval_attr(c->run, c->self, c->arg[0].s, out);
}

/* ---- map, select, reject ---- */

/* The arguments behind the first `skip`, for the filter or test that is named there. */
static kh_jargs behind(const kh_jargs *args, size_t skip)
{
    return (kh_jargs){args->items + skip, args->names, args->positional - skip, args->count - skip};
}

static kh_status named(kh_jcall *c, size_t n, const kh_jdef *const *tables, const kh_jdef **out)
{
    const kh_jval *name = &c->all->items[n];
    KH_TRY(kh_jval_need(c->run, *name));
    *out = name->kind == KH_J_STRING ? kh_jdef_find(tables, *name->s) : NULL;
    if (!*out)
        KH_FAIL(KH_ERR_UNSUPPORTED, "there is no %s named '%.*s'",
                tables == kh_jtests ? "test" : "filter",
                name->kind == KH_J_STRING && name->s->size < 100 ? (int)name->s->size : 0,
                name->kind == KH_J_STRING ? name->s->data : "");
    return KH_OK;
}

static kh_status map_attribute(kh_jcall *c, kh_jval item, kh_jval *out)
{
    kh_jval path = {0}, fallback = {0};
    for (size_t i = 0; i < c->all->count; ++i) {
        if (kh_jtext_is(*c->all->names[i], "attribute"))
            path = c->all->items[i];
        else if (kh_jtext_is(*c->all->names[i], "default"))
            fallback = c->all->items[i];
        else
            KH_FAIL(KH_ERR_FORMAT, "map() got an unexpected keyword argument");
    }
    if (path.kind == KH_J_ABSENT) KH_FAIL(KH_ERR_FORMAT, "map requires a filter argument");
    return kh_jval_path(c->run, item, path, fallback, out);
}

static kh_status map(kh_jcall *c, kh_jval *out)
{
    const kh_jdef *filter = NULL;
    kh_jargs rest = {0};
    kh_jlist items;
    KH_TRY(kh_jval_list(c->run, out, KH_J_ITERATOR, 0));
    if (!kh_jval_truth(c->self)) return KH_OK;
    KH_TRY(kh_jval_iterate(c->run, c->self, &items));
    if (c->all->positional) {
        KH_TRY(named(c, 0, kh_jfilters, &filter));
        rest = behind(c->all, 1);
    }
    for (size_t i = 0; i < items.count; ++i) {
        kh_jval mapped;
        if (filter)
            KH_TRY(kh_jdef_call(c->run, filter, items.items[i], &rest, &mapped));
        else
            KH_TRY(map_attribute(c, items.items[i], &mapped));
        KH_TRY(kh_jlist_add(c->run, out->list, mapped));
    }
    return KH_OK;
}

/* Keeps the items whose test (of an attribute, with `by`) is as wanted. */
static kh_status choose(kh_jcall *c, kh_jval *out, int by, int wanted)
{
    const kh_jdef *test = NULL;
    kh_jargs rest = {0};
    kh_jlist items;
    size_t off = by != 0;
    KH_TRY(kh_jval_list(c->run, out, KH_J_ITERATOR, 0));
    if (!kh_jval_truth(c->self)) return KH_OK;
    if (c->all->positional < off) KH_FAIL(KH_ERR_FORMAT, "Missing parameter for attribute name");
    KH_TRY(kh_jval_iterate(c->run, c->self, &items));
    if (c->all->positional > off) {
        KH_TRY(named(c, off, kh_jtests, &test));
        rest = behind(c->all, off + 1);
    }
    for (size_t i = 0; i < items.count; ++i) {
        kh_jval value = items.items[i];
        if (by) KH_TRY(kh_jval_path(c->run, value, c->all->items[0], (kh_jval){0}, &value));
        if (test) KH_TRY(kh_jdef_call(c->run, test, value, &rest, &value));
        if (kh_jval_truth(value) == wanted) KH_TRY(kh_jlist_add(c->run, out->list, items.items[i]));
    }
    return KH_OK;
}

static kh_status select(kh_jcall *c, kh_jval *out)
{
    return choose(c, out, 0, 1);
}

static kh_status reject(kh_jcall *c, kh_jval *out)
{
    return choose(c, out, 0, 0);
}

static kh_status selectattr(kh_jcall *c, kh_jval *out)
{
    return choose(c, out, 1, 1);
}

static kh_status rejectattr(kh_jcall *c, kh_jval *out)
{
    return choose(c, out, 1, 0);
}

const kh_jdef kh_jfilters_list[] = {
    {"length", "", length},
    {"count", "", length},
    {"first", "", first},
    {"last", "", last},
    {"list", "", copy},
    {"reverse", "", reverse},
    {"items", "", items_of},
    {"join", "?d ?attribute", join},
    {"sum", "?attribute ?start", sum},
    {"batch", "linecount ?fill_with", batch},
    {"slice", "slices ?fill_with", slice},
    {"attr", "name", attribute},
    {"map", NULL, map},
    {"select", NULL, select},
    {"reject", NULL, reject},
    {"selectattr", NULL, selectattr},
    {"rejectattr", NULL, rejectattr},
    {"sort", "?reverse ?case_sensitive ?attribute", sort},
    {"dictsort", "?case_sensitive ?by ?reverse", dictsort},
    {"unique", "?case_sensitive ?attribute", unique},
    {"min", "?case_sensitive ?attribute", smallest},
    {"max", "?case_sensitive ?attribute", largest},
    {0},
};
