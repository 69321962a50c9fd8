/* Operators of chat templates on values, with Python's meaning: what + and % do to strings,
 * floor division and its remainder, the power of integers, negative indices, slices.
 *
 * An attribute a.x of a dictionary is its method x if it has one, else its item 'x'; an item
 * a['x'] is the item, else the method: templates rely on both (message.items, message['items']).
 * Methods that would change a list or a dictionary do not exist here: Hugging Face's sandbox
 * refuses them as well, with the sentence that is repeated here. */
#include "jinja/jinja_call.h"

#include "base/fail.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- arithmetic ---- */

static kh_status too_large(void)
{
    KH_FAIL(KH_ERR_FORMAT, "a result is an integer of more than 64 bits");
}

static kh_status no_operator(int sign, kh_jval a, kh_jval b)
{
    char text[3] = {(char)(sign & 127), (char)(sign >> 8), 0};
    if (sign == '+' && a.kind == KH_J_STRING)
        KH_FAIL(KH_ERR_FORMAT, "can only concatenate str (not \"%s\") to str", kh_jval_type(b));
    if (sign == '+' && a.kind == KH_J_LIST)
        KH_FAIL(KH_ERR_FORMAT, "can only concatenate list (not \"%s\") to list", kh_jval_type(b));
    KH_FAIL(KH_ERR_FORMAT, "unsupported operand type(s) for %s: '%s' and '%s'", text,
            kh_jval_type(a), kh_jval_type(b));
}

static kh_status int_power(int64_t base, int64_t power, kh_jval *out)
{
    int64_t result = 1;
    while (power > 0) {
        if (power & 1 && __builtin_mul_overflow(result, base, &result)) return too_large();
        power >>= 1;
        if (power && __builtin_mul_overflow(base, base, &base)) return too_large();
    }
    *out = kh_jval_int(result);
    return KH_OK;
}

static kh_status by_zero(void)
{
    KH_FAIL(KH_ERR_FORMAT, "division by zero");
}

static kh_status ints(int sign, int64_t a, int64_t b, kh_jval *out)
{
    int64_t r = 0, rest;
    switch (sign) {
    case '+':
        if (__builtin_add_overflow(a, b, &r)) return too_large();
        break;
    case '-':
        if (__builtin_sub_overflow(a, b, &r)) return too_large();
        break;
    case '*':
        if (__builtin_mul_overflow(a, b, &r)) return too_large();
        break;
    case '/':
        if (!b) return by_zero();
        *out = kh_jval_float((double)a / (double)b);
        return KH_OK;
    case '%':
    case KH_J_SIGN2('/', '/'):
        if (!b) return by_zero();
        if (b == -1) return ints(sign == '%' ? '*' : '-', 0, sign == '%' ? 0 : a, out);
        rest = a % b;
        r = a / b;
        if (rest && (rest < 0) != (b < 0)) {
            rest += b;
            --r;
        }
        if (sign == '%') r = rest;
        break;
    default:
        if (b >= 0) return int_power(a, b, out);
        if (!a) return by_zero();
        *out = kh_jval_float(pow((double)a, (double)b));
        return KH_OK;
    }
    *out = kh_jval_int(r);
    return KH_OK;
}

static kh_status floats(int sign, double a, double b, kh_jval *out)
{
    double r = 0, rest;
    switch (sign) {
    case '+': r = a + b; break;
    case '-': r = a - b; break;
    case '*': r = a * b; break;
    case '/':
        if (b == 0) return by_zero();
        r = a / b;
        break;
    case '%':
    case KH_J_SIGN2('/', '/'):
        if (b == 0) return by_zero();
        rest = fmod(a, b);
        r = (a - rest) / b;
        if (rest != 0 && (rest < 0) != (b < 0)) {
            rest += b;
            r -= 1;
        }
        if (rest == 0) rest = copysign(0.0, b);
        r = sign == '%' ? rest : round(r);
        break;
    default:
        if (a == 0 && b < 0) return by_zero();
        if (a < 0 && isfinite(b) && b != floor(b))
            KH_FAIL(KH_ERR_FORMAT, "a power is not a real number");
        r = pow(a, b);
        if (isinf(r) && isfinite(a) && isfinite(b)) KH_FAIL(KH_ERR_FORMAT, "a power is too large");
    }
    *out = kh_jval_float(r);
    return KH_OK;
}

static kh_status add_lists(kh_jrun *run, kh_jval a, kh_jval b, kh_jval *out)
{
    KH_TRY(kh_jval_list(run, out, a.kind, a.list->count + b.list->count));
    for (size_t i = 0; i < a.list->count; ++i)
        KH_TRY(kh_jlist_add(run, out->list, a.list->items[i]));
    for (size_t i = 0; i < b.list->count; ++i)
        KH_TRY(kh_jlist_add(run, out->list, b.list->items[i]));
    return KH_OK;
}

static kh_status repeat(kh_jrun *run, kh_jval a, int64_t times, kh_jval *out)
{
    kh_jout text = {.run = run};
    if (a.kind == KH_J_STRING) {
        for (; times > 0 && a.s->size; --times) KH_TRY(kh_jout_add(&text, *a.s));
        return kh_jout_markup(&text, out, a.s->markup);
    }
    KH_TRY(kh_jval_list(run, out, a.kind, 0));
    for (; times > 0 && a.list->count; --times)
        for (size_t i = 0; i < a.list->count; ++i)
            KH_TRY(kh_jlist_add(run, out->list, a.list->items[i]));
    return KH_OK;
}

static int repeats(kh_jval a, kh_jval b)
{
    return (a.kind == KH_J_STRING || a.kind == KH_J_LIST || a.kind == KH_J_TUPLE) &&
           (b.kind == KH_J_INT || b.kind == KH_J_BOOL);
}

kh_status kh_jval_binary(kh_jrun *run, int sign, kh_jval a, kh_jval b, kh_jval *out)
{
    if (sign == '%' && a.kind == KH_J_STRING) return kh_jtext_percent(run, *a.s, b, out);
    KH_TRY(kh_jval_need(run, a));
    KH_TRY(kh_jval_need(run, b));
    if (kh_jval_is_number(a) && kh_jval_is_number(b)) {
        if (a.kind != KH_J_FLOAT && b.kind != KH_J_FLOAT) return ints(sign, a.i, b.i, out);
        return floats(sign, kh_jval_number(a), kh_jval_number(b), out);
    }
    if (sign == '*' && repeats(a, b)) return repeat(run, a, b.i, out);
    if (sign == '*' && repeats(b, a)) return repeat(run, b, a.i, out);
    if (sign != '+' || a.kind != b.kind) return no_operator(sign, a, b);
    if (a.kind == KH_J_LIST || a.kind == KH_J_TUPLE) return add_lists(run, a, b, out);
    if (a.kind != KH_J_STRING) return no_operator(sign, a, b);
    kh_jout text = {.run = run};
    int markup = a.s->markup || b.s->markup;
    KH_TRY(kh_jout_join(&text, *a.s, markup));
    KH_TRY(kh_jout_join(&text, *b.s, markup));
    return kh_jout_markup(&text, out, markup);
}

kh_status kh_jval_negate(kh_jrun *run, kh_jval a, kh_jval *out)
{
    KH_TRY(kh_jval_need(run, a));
    if (!kh_jval_is_number(a))
        KH_FAIL(KH_ERR_FORMAT, "bad operand type for unary -: '%s'", kh_jval_type(a));
    if (a.kind == KH_J_FLOAT) {
        *out = kh_jval_float(-a.f);
        return KH_OK;
    }
    return ints('-', 0, a.i, out);
}

kh_status kh_jval_compare(kh_jrun *run, int sign, kh_jval a, kh_jval b, int *out)
{
    const char text[3] = {(char)(sign & 127), (char)(sign >> 8), 0};
    int order;
    switch (sign) {
    case 'i': return kh_jval_contains(run, b, a, out);
    case 'n':
        KH_TRY(kh_jval_contains(run, b, a, out));
        *out = !*out;
        return KH_OK;
    case KH_J_SIGN2('=', '='): return kh_jval_equal(run, a, b, out);
    case KH_J_SIGN2('!', '='):
        KH_TRY(kh_jval_equal(run, a, b, out));
        *out = !*out;
        return KH_OK;
    default: break;
    }
    KH_TRY(kh_jval_order(run, a, b, text, &order));
    *out = order == 2            ? 0 /* not a number */
           : order == 0          ? sign >> 8 == '='
           : (sign & 255) == '<' ? order < 0
                                 : order > 0;
    return KH_OK;
}

/* ---- attributes and items ---- */

static int changes(kh_jval a, kh_jtext name)
{
    static const char *const of_list[] = {"append", "clear",  "pop",    "reverse", "insert",
                                          "sort",   "extend", "remove", NULL};
    static const char *const of_dict[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    const char *const *at = a.kind == KH_J_LIST ? of_list : a.kind == KH_J_DICT ? of_dict : NULL;
    for (; at && *at; ++at)
        if (kh_jtext_is(name, *at)) return 1;
    return 0;
}

/* The method of that name bound to `a`, ABSENT when there is none. */
static kh_status method(kh_jrun *run, kh_jval a, const kh_jtext *name, kh_jval *out)
{
    const kh_jdef *tables[] = {a.kind == KH_J_STRING  ? kh_jmethods_text
                               : a.kind == KH_J_DICT  ? kh_jmethods_dict
                               : a.kind == KH_J_LOOP  ? kh_jmethods_loop
                               : a.kind == KH_J_TUPLE ? kh_jmethods_list + 1 /* no copy */
                                                      : kh_jmethods_list,
                               NULL};
    *out = (kh_jval){0};
    if (a.kind != KH_J_STRING && a.kind != KH_J_DICT && a.kind != KH_J_LIST &&
        a.kind != KH_J_TUPLE && a.kind != KH_J_LOOP)
        return KH_OK;
    if (changes(a, *name) || (name->size > 1 && name->data[0] == '_' && name->data[1] == '_')) {
        kh_jout text = {.run = run};
        KH_TRY(kh_jout_word(&text, "access to attribute '"));
        KH_TRY(kh_jout_add(&text, *name));
        KH_TRY(kh_jout_word(&text, "' of '"));
        KH_TRY(kh_jout_word(&text, kh_jval_type(a)));
        KH_TRY(kh_jout_word(&text, "' object is unsafe."));
        KH_TRY(kh_jout_put(&text, "", 1, 0));
        return kh_jval_missing(run, out, text.data);
    }
    const kh_jdef *def = kh_jdef_find(tables, *name);
    if (!def) return KH_OK;
    kh_jfunction *bound;
    KH_TRY(kh_jmemory_take(&run->memory, &bound, 1, sizeof *bound));
    *bound = (kh_jfunction){def, a};
    *out = (kh_jval){.kind = KH_J_FUNCTION, .function = bound};
    return KH_OK;
}

static kh_status loop_attr(kh_jrun *run, kh_jloop *loop, const kh_jtext *name, kh_jval *out)
{
    const char *const names[] = {"index",  "index0", "revindex", "revindex0",
                                 "length", "depth",  "depth0"};
    size_t n = loop->items->count, i = loop->index;
    const size_t numbers[] = {i + 1, i, n - i, n - i - 1, n, 1, 0};
    for (size_t k = 0; k < sizeof names / sizeof names[0]; ++k)
        if (kh_jtext_is(*name, names[k])) {
            *out = kh_jval_int((int64_t)numbers[k]);
            return KH_OK;
        }
    int first = kh_jtext_is(*name, "first"), before = kh_jtext_is(*name, "previtem");
    if (first || kh_jtext_is(*name, "last")) {
        *out = kh_jval_bool(first ? i == 0 : i + 1 == n);
        return KH_OK;
    }
    if (!before && !kh_jtext_is(*name, "nextitem")) return KH_OK;
    if (before ? i == 0 : i + 1 == n)
        return kh_jval_missing(run, out,
                               before ? "there is no previous item" : "there is no next item");
    *out = loop->items->items[before ? i - 1 : i + 1];
    return KH_OK;
}

kh_status kh_jval_attr(kh_jrun *run, kh_jval a, const kh_jtext *name, kh_jval *out)
{
    kh_jval key = {.kind = KH_J_STRING, .s = name};
    *out = (kh_jval){0};
    KH_TRY(kh_jval_need(run, a));
    KH_TRY(method(run, a, name, out));
    if (out->kind != KH_J_ABSENT) return KH_OK;
    if (a.kind == KH_J_DICT || a.kind == KH_J_NAMESPACE)
        KH_TRY(kh_jdict_find(run, a.dict, key, out));
    else if (a.kind == KH_J_LOOP)
        KH_TRY(loop_attr(run, a.loop, name, out));
    return out->kind == KH_J_ABSENT ? kh_jval_no_item(run, out, a, key) : KH_OK;
}

/* Element i of a list or a string; ABSENT when there is none. */
static kh_status element(kh_jrun *run, kh_jval a, int64_t i, kh_jval *out)
{
    int64_t n;
    KH_TRY(kh_jval_length(run, a, &n));
    if (i < 0) i += n;
    if (i < 0 || i >= n) return KH_OK;
    if (a.kind != KH_J_STRING) {
        *out = a.list->items[i];
        return KH_OK;
    }
    size_t at = kh_jtext_offset(*a.s, (size_t)i);
    return kh_jval_text(run, out, kh_jtext_cut(*a.s, at, at + kh_jtext_step(*a.s, at)));
}

kh_status kh_jval_item(kh_jrun *run, kh_jval a, kh_jval key, kh_jval *out)
{
    *out = (kh_jval){0};
    KH_TRY(kh_jval_need(run, a));
    int ordered = a.kind == KH_J_STRING || a.kind == KH_J_LIST || a.kind == KH_J_TUPLE ||
                  a.kind == KH_J_RANGE;
    int plain = key.kind <= KH_J_STRING || key.kind == KH_J_TUPLE;
    if (a.kind == KH_J_DICT && plain)
        KH_TRY(kh_jdict_find(run, a.dict, key, out));
    else if (ordered && (key.kind == KH_J_INT || key.kind == KH_J_BOOL))
        KH_TRY(element(run, a, key.i, out));
    if (out->kind != KH_J_ABSENT) return KH_OK;
    if (key.kind == KH_J_STRING) {
        KH_TRY(method(run, a, key.s, out));
        if (out->kind == KH_J_ABSENT && (a.kind == KH_J_LOOP || a.kind == KH_J_NAMESPACE))
            return kh_jval_attr(run, a, key.s, out);
    }
    return out->kind == KH_J_ABSENT ? kh_jval_no_item(run, out, a, key) : KH_OK;
}

/* One step of a path; what is missing becomes the fallback, unless that is none. */
static kh_status step(kh_jrun *run, kh_jval part, kh_jval fallback, kh_jval *at)
{
    KH_TRY(kh_jval_item(run, *at, part, at));
    if (at->kind == KH_J_UNDEFINED && fallback.kind > KH_J_NONE) *at = fallback;
    return KH_OK;
}

kh_status kh_jval_path(kh_jrun *run, kh_jval a, kh_jval path, kh_jval fallback, kh_jval *out)
{
    *out = a;
    if (path.kind == KH_J_INT) return step(run, path, fallback, out);
    if (path.kind != KH_J_STRING)
        KH_FAIL(KH_ERR_FORMAT, "expected the name of an attribute, found '%s'", kh_jval_type(path));
    for (size_t start = 0, end; start <= path.s->size; start = end + 1) {
        int number = 1;
        int64_t i = 0;
        for (end = start; end < path.s->size && path.s->data[end] != '.'; ++end) {
            char c = path.s->data[end];
            number &= c >= '0' && c <= '9' && end - start < 9;
            i = number ? i * 10 + (c - '0') : 0;
        }
        kh_jval part = kh_jval_int(i);
        if (!number || end == start)
            KH_TRY(kh_jval_text(run, &part, kh_jtext_cut(*path.s, start, end)));
        KH_TRY(step(run, part, fallback, out));
    }
    return KH_OK;
}

/* ---- slices ---- */

static int64_t bound(kh_jval part, int64_t n, int64_t fallback, int64_t step)
{
    int64_t lowest = step < 0 ? -1 : 0, highest = step < 0 ? n - 1 : n;
    if (part.kind == KH_J_NONE) return fallback;
    int64_t i = part.i;
    if (i < 0) i = i < -n ? lowest : i + n;
    return i < lowest ? lowest : i > highest ? highest : i;
}

kh_status kh_jval_slice(kh_jrun *run, kh_jval a, const kh_jval part[3], kh_jval *out)
{
    int64_t n, step = part[2].kind == KH_J_NONE ? 1 : part[2].i;
    KH_TRY(kh_jval_need(run, a));
    if (a.kind != KH_J_STRING && a.kind != KH_J_LIST && a.kind != KH_J_TUPLE &&
        a.kind != KH_J_RANGE)
        KH_FAIL(KH_ERR_FORMAT, "'%s' object has no slices", kh_jval_type(a));
    for (int i = 0; i < 3; ++i)
        if (part[i].kind != KH_J_NONE && part[i].kind != KH_J_INT && part[i].kind != KH_J_BOOL)
            KH_FAIL(KH_ERR_FORMAT, "slice indices must be integers or None, not '%s'",
                    kh_jval_type(part[i]));
    if (!step) KH_FAIL(KH_ERR_FORMAT, "slice step cannot be zero");
    if (step < -INT32_MAX) step = -INT32_MAX;
    if (step > INT32_MAX) step = INT32_MAX;
    KH_TRY(kh_jval_length(run, a, &n));
    int64_t start = bound(part[0], n, step < 0 ? n - 1 : 0, step);
    int64_t end = bound(part[1], n, step < 0 ? -1 : n, step);
    if (a.kind == KH_J_STRING && step == 1) {
        size_t from = kh_jtext_offset(*a.s, (size_t)start);
        kh_jtext rest = kh_jtext_cut(*a.s, from, a.s->size);
        size_t size = end > start ? kh_jtext_offset(rest, (size_t)(end - start)) : 0;
        return kh_jval_text(run, out, kh_jtext_cut(rest, 0, size));
    }
    kh_jlist items;
    kh_jout text = {.run = run};
    KH_TRY(kh_jval_iterate(run, a, &items));
    KH_TRY(kh_jval_list(run, out, a.kind == KH_J_STRING ? KH_J_LIST : a.kind, 0));
    for (int64_t i = start; step < 0 ? i > end : i < end; i += step) {
        if (a.kind == KH_J_STRING)
            KH_TRY(kh_jout_add(&text, *items.items[i].s));
        else
            KH_TRY(kh_jlist_add(run, out->list, items.items[i]));
    }
    return a.kind == KH_J_STRING ? kh_jout_markup(&text, out, a.s->markup) : KH_OK;
}
