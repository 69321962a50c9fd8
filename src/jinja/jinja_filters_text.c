/* Filters of chat templates that make texts and numbers.
 *
 * A filter takes anything for text: str() is called on what is none. `safe` and `e` give markup,
 * which `+`, join() and formats then keep escaped; ~, replace, join and title give plain text
 * again, as in Jinja2 without autoescape. The `title` filter begins words behind white space,
 * hyphens and opening brackets only, unlike the method of that name. */
#include "jinja/jinja_call.h"

#include "base/fail.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static kh_status in_case(kh_jcall *c, kh_jval *out, enum kh_jcase how)
{
    kh_jtext text;
    kh_jout result = {.run = c->run};
    KH_TRY(kh_jcall_self(c, &text));
    KH_TRY(kh_jout_case(&result, text, how));
    return kh_jout_markup(&result, out, text.markup);
}

static kh_status upper(kh_jcall *c, kh_jval *out)
{
    return in_case(c, out, KH_J_UPPER);
}

static kh_status lower(kh_jcall *c, kh_jval *out)
{
    return in_case(c, out, KH_J_LOWER);
}

static kh_status capitalize(kh_jcall *c, kh_jval *out)
{
    return in_case(c, out, KH_J_CAPITAL);
}

static int between_words(uint32_t c)
{
    return kh_jchar_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
}

static kh_status title(kh_jcall *c, kh_jval *out)
{
    kh_jtext text;
    kh_jout result = {.run = c->run};
    KH_TRY(kh_jcall_self(c, &text));
    for (size_t at = 0, end; at < text.size; at = end) {
        int apart = between_words(kh_jtext_code(text, at));
        for (end = at; end < text.size && between_words(kh_jtext_code(text, end)) == apart;)
            end += kh_jtext_step(text, end);
        size_t rest = at + kh_jtext_step(text, at);
        KH_TRY(kh_jout_case(&result, kh_jtext_cut(text, at, rest), KH_J_UPPER));
        KH_TRY(kh_jout_case(&result, kh_jtext_cut(text, rest, end), KH_J_LOWER));
    }
    return kh_jout_value(&result, out);
}

static kh_status trim(kh_jcall *c, kh_jval *out)
{
    kh_jtext text, set;
    int all = c->arg[0].kind == KH_J_ABSENT || c->arg[0].kind == KH_J_NONE;
    KH_TRY(kh_jcall_self(c, &text));
    if (!all) KH_TRY(kh_jcall_text(c, 0, &set));
    return kh_jval_text(c->run, out, kh_jtext_strip(text, all ? NULL : &set, KH_J_BOTH));
}

static kh_status replace(kh_jcall *c, kh_jval *out)
{
    static const kh_jdef *const methods[] = {kh_jmethods_text, NULL};
    kh_jval self, items[3];
    kh_jargs args = {items, NULL, 3, 3};
    kh_jtext text;
    KH_TRY(kh_jcall_self(c, &text));
    text.markup = 0;
    KH_TRY(kh_jval_text(c->run, &self, text));
    for (int i = 0; i < 2; ++i) {
        KH_TRY(kh_jval_show(c->run, c->arg[i], &text));
        text.markup = 0;
        KH_TRY(kh_jval_text(c->run, &items[i], text));
    }
    int64_t count;
    KH_TRY(kh_jcall_int(c, 2, -1, &count));
    items[2] = kh_jval_int(count);
    return kh_jdef_call(c->run, kh_jdef_find(methods, kh_jtext_of("replace")), self, &args, out);
}

static kh_status string(kh_jcall *c, kh_jval *out)
{
    kh_jtext text;
    KH_TRY(kh_jcall_self(c, &text));
    return kh_jval_text(c->run, out, text);
}

static kh_status safe(kh_jcall *c, kh_jval *out)
{
    kh_jtext text;
    KH_TRY(kh_jcall_self(c, &text));
    text.markup = 1;
    return kh_jval_text(c->run, out, text);
}

static kh_status force_escape(kh_jcall *c, kh_jval *out)
{
    kh_jtext text;
    kh_jout result = {.run = c->run};
    KH_TRY(kh_jcall_self(c, &text));
    KH_TRY(kh_jout_escape(&result, text));
    return kh_jout_markup(&result, out, 1);
}

static kh_status escape(kh_jcall *c, kh_jval *out)
{
    return c->self.kind == KH_J_STRING && c->self.s->markup ? safe(c, out) : force_escape(c, out);
}

static kh_status indent(kh_jcall *c, kh_jval *out)
{
    static const kh_jdef *const methods[] = {kh_jmethods_text, NULL};
    kh_jval self, lines;
    kh_jargs none = {0};
    kh_jtext text, step = {.data = ""};
    kh_jout made = {.run = c->run}, result = {.run = c->run};
    int64_t width = 4;
    KH_TRY(kh_jval_need(c->run, c->self));
    if (c->self.kind != KH_J_STRING)
        KH_FAIL(KH_ERR_FORMAT, "'%s' object has no lines to indent", kh_jval_type(c->self));
    if (c->arg[0].kind == KH_J_STRING)
        step = *c->arg[0].s;
    else
        KH_TRY(kh_jcall_int(c, 0, 4, &width));
    for (int64_t i = 0; c->arg[0].kind != KH_J_STRING && i < width; ++i)
        KH_TRY(kh_jout_word(&made, " "));
    if (c->arg[0].kind != KH_J_STRING) step = kh_jout_text(&made);
    kh_jout whole = {.run = c->run};
    KH_TRY(kh_jcall_self(c, &text));
    KH_TRY(kh_jout_add(&whole, text));
    KH_TRY(kh_jout_word(&whole, "\n")); /* so that a last line end counts */
    KH_TRY(kh_jout_value(&whole, &self));
    KH_TRY(kh_jdef_call(c->run, kh_jdef_find(methods, kh_jtext_of("splitlines")), self, &none,
                        &lines));
    for (size_t i = 0; i < lines.list->count; ++i) {
        kh_jtext line = *lines.list->items[i].s;
        if (i) KH_TRY(kh_jout_word(&result, "\n"));
        if (i ? line.size || kh_jcall_truth(c, 2, 0) : kh_jcall_truth(c, 1, 0))
            KH_TRY(kh_jout_add(&result, step));
        KH_TRY(kh_jout_add(&result, line));
    }
    return kh_jout_value(&result, out);
}

static kh_status center(kh_jcall *c, kh_jval *out)
{
    kh_jtext text;
    int64_t width;
    kh_jout result = {.run = c->run};
    KH_TRY(kh_jcall_self(c, &text));
    KH_TRY(kh_jcall_int(c, 0, 80, &width));
    int64_t spare = width - (int64_t)kh_jtext_length(text);
    if (spare < 0) spare = 0;
    int64_t left = spare / 2 + (spare & width & 1);
    KH_TRY(kh_jout_fill(&result, " ", (size_t)left));
    KH_TRY(kh_jout_add(&result, text));
    KH_TRY(kh_jout_fill(&result, " ", (size_t)(spare - left)));
    return kh_jout_value(&result, out);
}

static kh_status wordcount(kh_jcall *c, kh_jval *out)
{
    kh_jtext text;
    int64_t words = 0;
    int inside = 0;
    KH_TRY(kh_jcall_self(c, &text));
    KH_TRY(kh_jrun_count(c->run, text.size));
    for (size_t at = 0; at < text.size; at += kh_jtext_step(text, at)) {
        uint32_t code = kh_jtext_code(text, at);
        utf8proc_category_t kind = utf8proc_category((utf8proc_int32_t)code);
        int word = code == '_' || (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO) ||
                   (kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO);
        words += word && !inside;
        inside = word;
    }
    *out = kh_jval_int(words);
    return KH_OK;
}

/* "%s of %s" | format(a, b), or with names. */
static kh_status format(kh_jcall *c, kh_jval *out)
{
    kh_jtext text;
    kh_jval values;
    const kh_jargs *args = c->all;
    KH_TRY(kh_jcall_self(c, &text));
    if (args->count > args->positional && args->positional)
        KH_FAIL(KH_ERR_FORMAT, "can't handle positional and keyword arguments at the same time");
    if (args->count > args->positional) {
        KH_TRY(kh_jval_dict(c->run, &values, KH_J_DICT));
        for (size_t i = 0; i < args->count; ++i)
            KH_TRY(kh_jdict_set(c->run, values.dict,
                                (kh_jval){.kind = KH_J_STRING, .s = args->names[i]},
                                args->items[i]));
    } else {
        KH_TRY(kh_jval_list(c->run, &values, KH_J_TUPLE, 0));
        for (size_t i = 0; i < args->count; ++i)
            KH_TRY(kh_jlist_add(c->run, values.list, args->items[i]));
    }
    return kh_jtext_percent(c->run, text, values, out);
}

/* ---- JSON ---- */

static kh_status separator(kh_jval from, size_t n, kh_jtext *out)
{
    if (n < from.list->count && from.list->items[n].kind == KH_J_STRING)
        *out = *from.list->items[n].s;
    else
        KH_FAIL(KH_ERR_FORMAT, "separators must be two strings");
    return KH_OK;
}

static kh_status tojson(kh_jcall *c, kh_jval *out)
{
    kh_jval indent_by = c->arg[1], separators = c->arg[2];
    kh_jout made = {.run = c->run}, result = {.run = c->run};
    kh_jjson how = {.ascii = kh_jcall_truth(c, 0, 0), .sorted = kh_jcall_truth(c, 3, 0)};
    KH_TRY(kh_jval_need(c->run, indent_by));
    how.lines = indent_by.kind != KH_J_ABSENT && indent_by.kind != KH_J_NONE;
    how.item = kh_jtext_of(how.lines ? "," : ", ");
    how.key = kh_jtext_of(": ");
    how.indent = kh_jtext_of("");
    if (kh_jval_is_list(separators)) {
        KH_TRY(separator(separators, 0, &how.item));
        KH_TRY(separator(separators, 1, &how.key));
    }
    if (indent_by.kind == KH_J_STRING) {
        how.indent = *indent_by.s;
    } else if (how.lines) {
        int64_t width;
        KH_TRY(kh_jcall_int(c, 1, 0, &width));
        if (width > 0) KH_TRY(kh_jout_fill(&made, " ", (size_t)width));
        how.indent = kh_jout_text(&made);
    }
    KH_TRY(kh_jout_json(&result, c->self, &how));
    return kh_jout_value(&result, out);
}

/* ---- numbers ---- */

/* The text of a number as C reads it, without Python's underscores and white space; 0 if it is
 * none. */
static int number_text(kh_jtext text, char *out, size_t size)
{
    size_t n = 0;
    text = kh_jtext_strip(text, NULL, KH_J_BOTH);
    for (size_t i = 0; i < text.size; ++i) {
        char c = text.data[i];
        int inner = i && i + 1 < text.size && text.data[i - 1] != '_';
        if (c == '_' && inner) continue;
        if (n + 1 >= size || !c || strchr("_xXpP()", c)) return 0;
        out[n++] = c;
    }
    out[n] = 0;
    return n != 0;
}

static kh_status overflow(void)
{
    KH_FAIL(KH_ERR_FORMAT, "a number has more than 64 bits");
}

static kh_status from_float(double f, kh_jval *out, int *good)
{
    *good = isfinite(f);
    if (!*good) return KH_OK;
    if (fabs(f) >= 9.2e18) return overflow();
    *out = kh_jval_int((int64_t)f);
    return KH_OK;
}

/* Python's float(text). */
static int text_float(kh_jtext text, double *out)
{
    char digits[400], *rest;
    if (!number_text(text, digits, sizeof digits)) return 0;
    *out = strtod(digits, &rest);
    return !*rest;
}

static kh_status text_int(kh_jtext text, int64_t base, kh_jval *out, int *good)
{
    char digits[400], *rest;
    *good = 0;
    text = kh_jtext_strip(text, NULL, KH_J_BOTH);
    size_t prefix = 0;
    if (text.size > 2 && text.data[0] == '0') {
        char kind = (char)(text.data[1] | 32);
        if (kind == (base == 16 ? 'x' : base == 8 ? 'o' : base == 2 ? 'b' : 0)) prefix = 2;
    }
    if (base < 2 || base > 36 ||
        !number_text(kh_jtext_cut(text, prefix, text.size), digits, sizeof digits))
        return KH_OK;
    long long i = strtoll(digits, &rest, (int)base);
    if (*rest) return KH_OK;
    if (i == INT64_MAX || i == INT64_MIN) return overflow();
    *good = 1;
    *out = kh_jval_int(i);
    return KH_OK;
}

static kh_status to_int(kh_jcall *c, kh_jval *out)
{
    kh_jval of = c->self;
    int64_t base;
    int good = 0;
    double f;
    KH_TRY(kh_jval_need(c->run, of));
    KH_TRY(kh_jcall_int(c, 1, 10, &base));
    if (of.kind == KH_J_STRING) {
        KH_TRY(text_int(*of.s, base, out, &good));
        if (!good && text_float(*of.s, &f)) KH_TRY(from_float(f, out, &good));
    } else if (of.kind == KH_J_FLOAT) {
        KH_TRY(from_float(of.f, out, &good));
    } else if (of.kind == KH_J_INT || of.kind == KH_J_BOOL) {
        *out = kh_jval_int(of.i);
        good = 1;
    }
    if (!good) *out = c->arg[0].kind == KH_J_ABSENT ? kh_jval_int(0) : c->arg[0];
    return KH_OK;
}

static kh_status to_float(kh_jcall *c, kh_jval *out)
{
    kh_jval of = c->self;
    double f;
    KH_TRY(kh_jval_need(c->run, of));
    if (of.kind == KH_J_STRING && text_float(*of.s, &f))
        *out = kh_jval_float(f);
    else if (kh_jval_is_number(of))
        *out = kh_jval_float(kh_jval_number(of));
    else
        *out = c->arg[0].kind == KH_J_ABSENT ? kh_jval_float(0) : c->arg[0];
    return KH_OK;
}

static kh_status round_to(kh_jcall *c, kh_jval *out)
{
    kh_jval of = c->self;
    kh_jtext method = kh_jtext_of("common");
    int64_t places;
    KH_TRY(kh_jval_need(c->run, of));
    KH_TRY(kh_jcall_int(c, 0, 0, &places));
    if (c->arg[1].kind != KH_J_ABSENT) KH_TRY(kh_jcall_text(c, 1, &method));
    if (!kh_jval_is_number(of))
        KH_FAIL(KH_ERR_FORMAT, "type %s doesn't define __round__ method", kh_jval_type(of));
    if (places > 300 || places < -300) KH_FAIL(KH_ERR_FORMAT, "round() takes at most 300 places");
    double f = kh_jval_number(of), scale = pow(10, (double)places);
    if (kh_jtext_is(method, "ceil") || kh_jtext_is(method, "floor")) {
        *out = kh_jval_float((method.data[0] == 'c' ? ceil(f * scale) : floor(f * scale)) / scale);
        return KH_OK;
    }
    if (!kh_jtext_is(method, "common"))
        KH_FAIL(KH_ERR_FORMAT, "method must be common, ceil or floor");
    if (of.kind != KH_J_FLOAT && places >= 0) {
        *out = kh_jval_int(of.i);
    } else if (of.kind != KH_J_FLOAT) {
        *out = kh_jval_int((int64_t)(nearbyint(f * scale) / scale));
    } else if (places < 0 || !isfinite(f)) {
        *out = kh_jval_float(isfinite(f) ? nearbyint(f * scale) / scale : f);
    } else {
        char text[700]; /* the exact decimal, rounded half to even */
        snprintf(text, sizeof text, "%.*f", (int)places, f);
        *out = kh_jval_float(strtod(text, NULL));
    }
    return KH_OK;
}

static kh_status absolute(kh_jcall *c, kh_jval *out)
{
    KH_TRY(kh_jval_need(c->run, c->self));
    if (!kh_jval_is_number(c->self))
        KH_FAIL(KH_ERR_FORMAT, "bad operand type for abs(): '%s'", kh_jval_type(c->self));
    *out = c->self;
    if (out->kind == KH_J_BOOL) out->kind = KH_J_INT;
    if (out->kind == KH_J_FLOAT) out->f = fabs(out->f);
    return out->kind == KH_J_INT && out->i < 0 ? kh_jval_negate(c->run, *out, out) : KH_OK;
}

static kh_status fallback(kh_jcall *c, kh_jval *out)
{
    int missing = c->self.kind == KH_J_UNDEFINED;
    if (kh_jcall_truth(c, 1, 0)) missing |= !kh_jval_truth(c->self);
    if (!missing)
        *out = c->self;
    else if (c->arg[0].kind == KH_J_ABSENT)
        KH_TRY(kh_jval_literal(c->run, out, ""));
    else
        *out = c->arg[0];
    return KH_OK;
}

const kh_jdef kh_jfilters_text[] = {
    {"upper", "", upper},
    {"lower", "", lower},
    {"title", "", title},
    {"capitalize", "", capitalize},
    {"trim", "?chars", trim},
    {"replace", "old new ?count", replace},
    {"string", "", string},
    {"safe", "", safe},
    {"escape", "", escape},
    {"e", "", escape},
    {"forceescape", "", force_escape},
    {"indent", "?width ?first ?blank", indent},
    {"center", "?width", center},
    {"wordcount", "", wordcount},
    {"format", NULL, format},
    {"tojson", "?ensure_ascii ?indent ?separators ?sort_keys", tojson},
    {"int", "?default ?base", to_int},
    {"float", "?default", to_float},
    {"round", "?precision ?method", round_to},
    {"abs", "", absolute},
    {"default", "?default_value ?boolean", fallback},
    {"d", "?default_value ?boolean", fallback},
    {0},
};
