/* Tests (`x is string`) and functions of chat templates.
 *
 * A test answers what Jinja2's does, also where that surprises: true is a number but no integer,
 * a string and an undefined value are sequences, a dictionary's views are none.
 *
 * strftime_now shows the time that the caller fixed, in UTC, so that a rendering can be
 * repeated; without one the clock, in local time, as Hugging Face does. range has the sandbox's
 * limit of 100,000. */
#include "jinja/jinja_call.h"

#include "base/fail.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

const kh_jdef *const kh_jtests[] = {kh_jtests_all, NULL};
const kh_jdef *const kh_jfunctions[] = {kh_jfunctions_all, NULL};

static kh_status answer(kh_jval *out, int truth)
{
    *out = kh_jval_bool(truth);
    return KH_OK;
}

static kh_status is_defined(kh_jcall *c, kh_jval *out)
{
    return answer(out, c->self.kind != KH_J_UNDEFINED);
}

static kh_status is_undefined(kh_jcall *c, kh_jval *out)
{
    return answer(out, c->self.kind == KH_J_UNDEFINED);
}

static kh_status is_none(kh_jcall *c, kh_jval *out)
{
    return answer(out, c->self.kind == KH_J_NONE);
}

static kh_status is_boolean(kh_jcall *c, kh_jval *out)
{
    return answer(out, c->self.kind == KH_J_BOOL);
}

static kh_status is_true(kh_jcall *c, kh_jval *out)
{
    return answer(out, c->self.kind == KH_J_BOOL && c->self.i);
}

static kh_status is_false(kh_jcall *c, kh_jval *out)
{
    return answer(out, c->self.kind == KH_J_BOOL && !c->self.i);
}

static kh_status is_integer(kh_jcall *c, kh_jval *out)
{
    return answer(out, c->self.kind == KH_J_INT);
}

static kh_status is_float(kh_jcall *c, kh_jval *out)
{
    return answer(out, c->self.kind == KH_J_FLOAT);
}

static kh_status is_number(kh_jcall *c, kh_jval *out)
{
    return answer(out, kh_jval_is_number(c->self));
}

static kh_status is_string(kh_jcall *c, kh_jval *out)
{
    return answer(out, c->self.kind == KH_J_STRING);
}

static kh_status is_mapping(kh_jcall *c, kh_jval *out)
{
    return answer(out, c->self.kind == KH_J_DICT);
}

static kh_status is_sequence(kh_jcall *c, kh_jval *out)
{
    kh_jkind k = c->self.kind;
    return answer(out, k == KH_J_STRING || k == KH_J_LIST || k == KH_J_TUPLE || k == KH_J_RANGE ||
                           k == KH_J_DICT || k == KH_J_UNDEFINED);
}

static kh_status is_iterable(kh_jcall *c, kh_jval *out)
{
    kh_jkind k = c->self.kind;
    return answer(out, k == KH_J_STRING || kh_jval_is_list(c->self) || k == KH_J_DICT ||
                           k == KH_J_UNDEFINED || k == KH_J_LOOP);
}

static kh_status is_callable(kh_jcall *c, kh_jval *out)
{
    kh_jkind k = c->self.kind;
    return answer(out, k == KH_J_FUNCTION || k == KH_J_MACRO || k == KH_J_UNDEFINED);
}

static kh_status remainder_is(kh_jcall *c, kh_jval by, int wanted, kh_jval *out)
{
    kh_jval rest;
    int equal;
    KH_TRY(kh_jval_binary(c->run, '%', c->self, by, &rest));
    KH_TRY(kh_jval_equal(c->run, rest, kh_jval_int(wanted), &equal));
    return answer(out, equal);
}

static kh_status is_odd(kh_jcall *c, kh_jval *out)
{
    return remainder_is(c, kh_jval_int(2), 1, out);
}

static kh_status is_even(kh_jcall *c, kh_jval *out)
{
    return remainder_is(c, kh_jval_int(2), 0, out);
}

static kh_status is_divisible(kh_jcall *c, kh_jval *out)
{
    return remainder_is(c, c->arg[0], 0, out);
}

static kh_status has_case(kh_jcall *c, kh_jval *out, const char *method)
{
    static const kh_jdef *const methods[] = {kh_jmethods_text, NULL};
    kh_jtext text;
    kh_jval value;
    kh_jargs none = {0};
    KH_TRY(kh_jcall_self(c, &text));
    KH_TRY(kh_jval_text(c->run, &value, text));
    return kh_jdef_call(c->run, kh_jdef_find(methods, kh_jtext_of(method)), value, &none, out);
}

static kh_status is_lower(kh_jcall *c, kh_jval *out)
{
    return has_case(c, out, "islower");
}

static kh_status is_upper(kh_jcall *c, kh_jval *out)
{
    return has_case(c, out, "isupper");
}

static kh_status is_same(kh_jcall *c, kh_jval *out)
{
    kh_jval a = c->self, b = c->arg[0];
    int equal = 0;
    if (a.kind == b.kind && (a.kind <= KH_J_STRING)) KH_TRY(kh_jval_equal(c->run, a, b, &equal));
    if (a.kind == b.kind && a.kind > KH_J_STRING) equal = a.list == b.list;
    return answer(out, equal);
}

static kh_status is_in(kh_jcall *c, kh_jval *out)
{
    int found;
    KH_TRY(kh_jval_contains(c->run, c->arg[0], c->self, &found));
    return answer(out, found);
}

static kh_status is_escaped(kh_jcall *c, kh_jval *out)
{
    return answer(out, c->self.kind == KH_J_STRING && c->self.s->markup);
}

static kh_status is_filter(kh_jcall *c, kh_jval *out)
{
    return answer(out, c->self.kind == KH_J_STRING && kh_jdef_find(kh_jfilters, *c->self.s));
}

static kh_status is_test(kh_jcall *c, kh_jval *out)
{
    return answer(out, c->self.kind == KH_J_STRING && kh_jdef_find(kh_jtests, *c->self.s));
}

static kh_status compares(kh_jcall *c, kh_jval *out, int sign)
{
    int truth;
    KH_TRY(kh_jval_compare(c->run, sign, c->self, c->arg[0], &truth));
    return answer(out, truth);
}

static kh_status is_eq(kh_jcall *c, kh_jval *out)
{
    return compares(c, out, KH_J_SIGN2('=', '='));
}

static kh_status is_ne(kh_jcall *c, kh_jval *out)
{
    return compares(c, out, KH_J_SIGN2('!', '='));
}

static kh_status is_lt(kh_jcall *c, kh_jval *out)
{
    return compares(c, out, '<');
}

static kh_status is_le(kh_jcall *c, kh_jval *out)
{
    return compares(c, out, KH_J_SIGN2('<', '='));
}

static kh_status is_gt(kh_jcall *c, kh_jval *out)
{
    return compares(c, out, '>');
}

static kh_status is_ge(kh_jcall *c, kh_jval *out)
{
    return compares(c, out, KH_J_SIGN2('>', '='));
}

const kh_jdef kh_jtests_all[] = {
    {"defined", "", is_defined},
    {"undefined", "", is_undefined},
    {"none", "", is_none},
    {"boolean", "", is_boolean},
    {"true", "", is_true},
    {"false", "", is_false},
    {"integer", "", is_integer},
    {"float", "", is_float},
    {"number", "", is_number},
    {"string", "", is_string},
    {"mapping", "", is_mapping},
    {"sequence", "", is_sequence},
    {"iterable", "", is_iterable},
    {"callable", "", is_callable},
    {"odd", "", is_odd},
    {"even", "", is_even},
    {"divisibleby", "num", is_divisible},
    {"lower", "", is_lower},
    {"upper", "", is_upper},
    {"sameas", "other", is_same},
    {"in", "seq", is_in},
    {"escaped", "", is_escaped},
    {"filter", "", is_filter},
    {"test", "", is_test},
    {"eq", "other", is_eq},
    {"equalto", "other", is_eq},
    {"==", "other", is_eq},
    {"ne", "other", is_ne},
    {"!=", "other", is_ne},
    {"lt", "other", is_lt},
    {"lessthan", "other", is_lt},
    {"<", "other", is_lt},
    {"le", "other", is_le},
    {"<=", "other", is_le},
    {"gt", "other", is_gt},
    {"greaterthan", "other", is_gt},
    {">", "other", is_gt},
    {"ge", "other", is_ge},
    {">=", "other", is_ge},
    {0},
};

/* ---- functions ---- */

static kh_status range(kh_jcall *c, kh_jval *out)
{
    enum { MOST = 100000 };
    int64_t start, end, step, n = 0;
    int one = c->arg[1].kind == KH_J_ABSENT;
    for (int i = 0; i < 3; ++i)
        if (c->arg[i].kind == KH_J_NONE)
            KH_FAIL(KH_ERR_FORMAT, "'NoneType' object cannot be interpreted as an integer");
    KH_TRY(kh_jcall_int(c, 0, 0, &start));
    KH_TRY(kh_jcall_int(c, 1, start, &end));
    KH_TRY(kh_jcall_int(c, 2, 1, &step));
    if (one) start = 0;
    if (!step) KH_FAIL(KH_ERR_FORMAT, "range() arg 3 must not be zero");
    double many = ceil(((double)end - (double)start) / (double)step);
    if (many > MOST)
        KH_FAIL(KH_ERR_FORMAT,
                "Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
    KH_TRY(kh_jval_list(c->run, out, KH_J_RANGE, 0));
    for (int64_t i = start; n < (int64_t)many; i += step, ++n)
        KH_TRY(kh_jlist_add(c->run, out->list, kh_jval_int(i)));
    return KH_OK;
}

/* dict(mapping or pairs, name=value ...), and namespace the same. */
static kh_status fill(kh_jcall *c, kh_jdict *dict)
{
    const kh_jargs *args = c->all;
    if (args->positional > 1)
        KH_FAIL(KH_ERR_FORMAT, "expected at most 1 argument, got %zu", args->positional);
    if (args->positional && args->items[0].kind == KH_J_DICT) {
        for (size_t i = 0; i < args->items[0].dict->count; ++i)
            KH_TRY(kh_jdict_set(c->run, dict, args->items[0].dict->entries[i].key,
                                args->items[0].dict->entries[i].value));
    } else if (args->positional) {
        kh_jlist pairs, pair;
        KH_TRY(kh_jval_iterate(c->run, args->items[0], &pairs));
        for (size_t i = 0; i < pairs.count; ++i) {
            KH_TRY(kh_jval_iterate(c->run, pairs.items[i], &pair));
            if (pair.count != 2) KH_FAIL(KH_ERR_FORMAT, "a dictionary is made of pairs");
            KH_TRY(kh_jdict_set(c->run, dict, pair.items[0], pair.items[1]));
        }
    }
    for (size_t i = args->positional; i < args->count; ++i)
        KH_TRY(kh_jdict_set(c->run, dict,
                            (kh_jval){.kind = KH_J_STRING, .s = args->names[i - args->positional]},
                            args->items[i]));
    return KH_OK;
}

static kh_status make_dict(kh_jcall *c, kh_jval *out)
{
    KH_TRY(kh_jval_dict(c->run, out, KH_J_DICT));
    return fill(c, out->dict);
}

static kh_status make_namespace(kh_jcall *c, kh_jval *out)
{
    KH_TRY(kh_jval_dict(c->run, out, KH_J_NAMESPACE));
    return fill(c, out->dict);
}

static kh_status raise_exception(kh_jcall *c, kh_jval *out)
{
    kh_jtext text;
    (void)out;
    KH_TRY(kh_jval_show(c->run, c->arg[0], &text));
    c->run->raised = 1;
    KH_FAIL(KH_ERR_ARGUMENT, "%.*s", (int)(text.size < 1000 ? text.size : 1000), text.data);
}

static kh_status strftime_now(kh_jcall *c, kh_jval *out)
{
    char format[128], text[512];
    kh_jtext given;
    struct tm parts;
    time_t now = (time_t)c->run->time;
    KH_TRY(kh_jcall_text(c, 0, &given));
    if (given.size >= sizeof format - 1 || (given.size && memchr(given.data, 0, given.size)))
        KH_FAIL(KH_ERR_FORMAT, "strftime_now() takes a format of at most %zu bytes",
                sizeof format - 2);
    snprintf(format, sizeof format, "%.*s.", (int)given.size, given.data); /* never empty */
    if (!now) now = time(NULL);
    if (!(c->run->time ? gmtime_r(&now, &parts) : localtime_r(&now, &parts)))
        KH_FAIL(KH_ERR_ARGUMENT, "the time is outside of the calendar");
    size_t n = strftime(text, sizeof text, format, &parts);
    if (!n) KH_FAIL(KH_ERR_FORMAT, "strftime_now() made more than %zu bytes", sizeof text);
    kh_jout result = {.run = c->run};
    KH_TRY(kh_jout_put(&result, text, n - 1, given.said != NULL));
    return kh_jout_value(&result, out);
}

const kh_jdef kh_jfunctions_all[] = {
    {"range", "start ?stop ?step", range},    {"dict", NULL, make_dict},
    {"namespace", NULL, make_namespace},      {"raise_exception", "message", raise_exception},
    {"strftime_now", "format", strftime_now}, {0},
};
