/* Python's two ways to put values into a text: format % values and format.format(values).
 *
 *     %[(name)][flags][width][.precision]conversion           flags - + space 0 #
 *     {[number or name][.attribute][[item]][!r or !s][:layout]}
 *     layout                             [[fill]align][sign][#][0][width][,][.precision][type]
 *
 * Both end in one place: a body with a sign, padded to a width. A text that is put in keeps its
 * origin byte by byte; a number's digits are the template's.
 *
 * Left out: widths given as arguments (%*d, {:{}}), thousands by '_', complex numbers; they are
 * named. */
#include "jinja/jinja_call.h"

#include "base/fail.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct layout {
    kh_jtext fill;
    char align; /* < > ^ =, or 0 for the kind's own */
    char sign;  /* + - or a space */
    char type;  /* 0: as str() */
    int alternate, thousands;
    int64_t width, precision; /* precision -1: none */
} layout;

static kh_status unsupported(const char *what)
{
    KH_FAIL(KH_ERR_FORMAT, "a format has %s", what);
}

static kh_status number(kh_jtext format, size_t *at, int64_t *out)
{
    *out = 0;
    for (; *at < format.size && format.data[*at] >= '0' && format.data[*at] <= '9'; ++*at) {
        *out = *out * 10 + (format.data[*at] - '0');
        if (*out > 100000) return unsupported("a width of more than 100000");
    }
    return KH_OK;
}

static kh_status pad(kh_jout *out, kh_jtext sign, kh_jtext body, const layout *how, char usual)
{
    int64_t length = (int64_t)(kh_jtext_length(sign) + kh_jtext_length(body));
    int64_t spare = how->width > length ? how->width - length : 0;
    char align = how->align ? how->align : usual;
    int64_t front = align == '<' ? 0 : align == '^' ? spare / 2 : spare;
    kh_jtext fill = how->fill.size ? how->fill : kh_jtext_of(" ");
    if (align == '=') KH_TRY(kh_jout_add(out, sign));
    for (int64_t i = 0; i < front; ++i) KH_TRY(kh_jout_add(out, fill));
    if (align != '=') KH_TRY(kh_jout_add(out, sign));
    KH_TRY(kh_jout_add(out, body));
    for (int64_t i = front; i < spare; ++i) KH_TRY(kh_jout_add(out, fill));
    return KH_OK;
}

static kh_status put_text(kh_jout *out, kh_jtext text, const layout *how)
{
    if (how->precision >= 0)
        text = kh_jtext_cut(text, 0, kh_jtext_offset(text, (size_t)how->precision));
    return pad(out, kh_jtext_of(""), text, how, '<');
}

/* Digits without a sign, with a comma every three of the whole part. */
static kh_status put_digits(kh_jout *out, int negative, const char *digits, const char *prefix,
                            const layout *how)
{
    kh_jout body = {.run = out->run}, sign = {.run = out->run};
    size_t whole = strspn(digits, "0123456789");
    if (negative)
        KH_TRY(kh_jout_word(&sign, "-"));
    else if (how->sign == '+' || how->sign == ' ')
        KH_TRY(kh_jout_put(&sign, &how->sign, 1, 0));
    KH_TRY(kh_jout_word(&sign, prefix));
    for (size_t i = 0; digits[i]; ++i) {
        if (how->thousands && i && i < whole && (whole - i) % 3 == 0)
            KH_TRY(kh_jout_word(&body, ","));
        KH_TRY(kh_jout_put(&body, &digits[i], 1, 0));
    }
    return pad(out, kh_jout_text(&sign), kh_jout_text(&body), how, '>');
}

static kh_status put_int(kh_jout *out, int64_t i, const layout *how)
{
    char digits[80];
    uint64_t size = i < 0 ? -(uint64_t)i : (uint64_t)i;
    const char *prefix = "";
    size_t n = 0;
    if (how->type == 'b') {
        for (int bit = 63; bit >= 0; --bit)
            if (n || size >> bit & 1 || !bit) digits[n++] = (char)('0' + (size >> bit & 1));
        digits[n] = 0;
        prefix = "0b";
    } else if (how->type == 'x' || how->type == 'X') {
        snprintf(digits, sizeof digits, how->type == 'x' ? "%" PRIx64 : "%" PRIX64, size);
        prefix = how->type == 'x' ? "0x" : "0X";
    } else if (how->type == 'o') {
        snprintf(digits, sizeof digits, "%" PRIo64, size);
        prefix = "0o";
    } else {
        snprintf(digits, sizeof digits, "%" PRIu64, size);
    }
    return put_digits(out, i < 0, digits, how->alternate ? prefix : "", how);
}

static kh_status put_float(kh_jout *out, double f, const layout *how)
{
    char digits[512], format[] = "%.*f";
    int precision = how->precision < 0 ? 6 : (int)how->precision;
    int share = how->type == '%';
    if (precision > 150) return unsupported("a precision of more than 150");
    if (!how->type && how->precision < 0) {
        size_t n = kh_jfloat_repr(digits, fabs(f));
        digits[n] = 0;
    } else {
        char type = how->type == '%' || how->type == 'F' ? 'f' : how->type ? how->type : 'g';
        if (type == 'n') type = 'g';
        format[3] = type;
        if (!precision && (type == 'g' || type == 'G')) precision = 1;
        snprintf(digits, sizeof digits, format, precision, fabs(share ? f * 100 : f));
        if (!how->type && !strpbrk(digits, ".en") && strlen(digits) + 3 < sizeof digits)
            snprintf(digits + strlen(digits), 3, ".0");
        if (share && strlen(digits) + 2 < sizeof digits) snprintf(digits + strlen(digits), 2, "%%");
    }
    return put_digits(out, signbit(f) && !isnan(f), digits, "", how);
}

static kh_status put_char(kh_jout *out, kh_jval value, const layout *how)
{
    kh_jout one = {.run = out->run};
    if (value.kind == KH_J_STRING && kh_jtext_length(*value.s) == 1)
        return put_text(out, *value.s, how);
    if (value.kind != KH_J_INT || value.i < 0 || value.i > 0x10FFFF ||
        (value.i >= 0xD800 && value.i < 0xE000))
        return unsupported("%c for what is no character");
    KH_TRY(kh_jout_char(&one, (uint32_t)value.i, 1));
    return put_text(out, kh_jout_text(&one), how);
}

/* ---- format % values ---- */

typedef struct percent {
    kh_jrun *run;
    kh_jtext format;
    size_t at;
    kh_jval values;
    size_t used;
    int named;
} percent;

static kh_status next_value(percent *p, kh_jval *out)
{
    int many = p->values.kind == KH_J_TUPLE;
    if (p->used >= (many ? p->values.list->count : 1))
        KH_FAIL(KH_ERR_FORMAT, "not enough arguments for format string");
    *out = many ? p->values.list->items[p->used] : p->values;
    ++p->used;
    return KH_OK;
}

static kh_status named_value(percent *p, kh_jval *out)
{
    size_t end = kh_jtext_find(p->format, kh_jtext_of(")"), p->at);
    if (end == SIZE_MAX) KH_FAIL(KH_ERR_FORMAT, "incomplete format key");
    if (p->values.kind != KH_J_DICT) KH_FAIL(KH_ERR_FORMAT, "format requires a mapping");
    kh_jtext name = kh_jtext_cut(p->format, p->at + 1, end);
    KH_TRY(kh_jdict_find(p->run, p->values.dict, (kh_jval){.kind = KH_J_STRING, .s = &name}, out));
    if (out->kind == KH_J_ABSENT)
        KH_FAIL(KH_ERR_FORMAT, "'%.*s'", (int)(name.size < 100 ? name.size : 100), name.data);
    p->at = end + 1;
    p->named = 1;
    return KH_OK;
}

static char byte_at(kh_jtext text, size_t at)
{
    return at < text.size ? text.data[at] : 0;
}

static kh_status percent_number(kh_jout *out, kh_jval value, layout *how)
{
    KH_TRY(kh_jval_need(out->run, value));
    if (!kh_jval_is_number(value))
        KH_FAIL(KH_ERR_FORMAT, "%%%c format: a real number is required, not %s", how->type,
                kh_jval_type(value));
    if (strchr("eEfFgG", how->type)) return put_float(out, kh_jval_number(value), how);
    if (strchr("xXo", how->type) && value.kind == KH_J_FLOAT)
        KH_FAIL(KH_ERR_FORMAT, "%%%c format: an integer is required, not float", how->type);
    if (value.kind == KH_J_FLOAT && !(fabs(value.f) < 9.2e18))
        KH_FAIL(KH_ERR_FORMAT, "a number has more than 64 bits");
    return put_int(out, value.kind == KH_J_FLOAT ? (int64_t)value.f : value.i, how);
}

static kh_status one_percent(percent *p, kh_jout *out)
{
    layout how = {.precision = -1, .align = '>'};
    kh_jval value = {0};
    kh_jtext text;
    if (byte_at(p->format, p->at) == '(') KH_TRY(named_value(p, &value));
    for (char c; (c = byte_at(p->format, p->at)) != 0 && strchr("-+ 0#", c); ++p->at) {
        if (c == '-') how.align = '<';
        if (c == '0' && how.align != '<') how.align = '=', how.fill = kh_jtext_of("0");
        if (c == '+' || (c == ' ' && !how.sign)) how.sign = c;
        if (c == '#') how.alternate = 1;
    }
    if (how.align == '<') how.fill.size = 0;
    KH_TRY(number(p->format, &p->at, &how.width));
    if (byte_at(p->format, p->at) == '.') {
        ++p->at;
        KH_TRY(number(p->format, &p->at, &how.precision));
    }
    how.type = byte_at(p->format, p->at++);
    if (!how.type) KH_FAIL(KH_ERR_FORMAT, "incomplete format");
    if (how.type == '%') return kh_jout_word(out, "%");
    if (!strchr("sradiueEfFgGxXoc", how.type))
        KH_FAIL(KH_ERR_FORMAT, "unsupported format character 0x%02x", (unsigned char)how.type);
    if (value.kind == KH_J_ABSENT) KH_TRY(next_value(p, &value));
    if (strchr("sra", how.type)) {
        if (how.align == '=') how.align = '>', how.fill.size = 0;
        KH_TRY(how.type == 's' ? kh_jval_show(p->run, value, &text)
                               : kh_jval_repr(p->run, value, &text));
        kh_jout safe = {.run = p->run};
        KH_TRY(kh_jout_join(&safe, text, p->format.markup));
        return put_text(out, kh_jout_text(&safe), &how);
    }
    return how.type == 'c' ? put_char(out, value, &how) : percent_number(out, value, &how);
}

kh_status kh_jtext_percent(kh_jrun *run, kh_jtext format, kh_jval value, kh_jval *result)
{
    percent p = {.run = run, .format = format, .values = value};
    kh_jout out = {.run = run};
    while (p.at < format.size) {
        size_t end = kh_jtext_find(format, kh_jtext_of("%"), p.at);
        if (end == SIZE_MAX) end = format.size;
        KH_TRY(kh_jout_add(&out, kh_jtext_cut(format, p.at, end)));
        p.at = end + 1;
        if (end < format.size) KH_TRY(one_percent(&p, &out));
    }
    int all = value.kind == KH_J_TUPLE ? p.used == value.list->count : p.used == 1 || p.named;
    int mapping = value.kind == KH_J_DICT || value.kind == KH_J_LIST || value.kind == KH_J_RANGE ||
                  value.kind == KH_J_UNDEFINED;
    if (!all && !mapping)
        KH_FAIL(KH_ERR_FORMAT, "not all arguments converted during string formatting");
    return kh_jout_markup(&out, result, format.markup);
}

/* ---- format.format(values) ---- */

static kh_status read_layout(kh_jtext spec, layout *how)
{
    size_t at = 0;
    *how = (layout){.precision = -1};
    size_t first = spec.size ? kh_jtext_step(spec, 0) : 0;
    if (first < spec.size && strchr("<>^=", spec.data[first])) {
        how->fill = kh_jtext_cut(spec, 0, first);
        how->align = spec.data[first];
        at = first + 1;
    } else if (spec.size && spec.data[0] && strchr("<>^=", spec.data[0])) {
        how->align = spec.data[at++];
    }
    if (byte_at(spec, at) && strchr("+- ", byte_at(spec, at))) how->sign = spec.data[at++];
    if (byte_at(spec, at) == '#') how->alternate = 1, ++at;
    if (byte_at(spec, at) == '0') {
        if (!how->fill.size) how->fill = kh_jtext_of("0");
        if (!how->align) how->align = '=';
        ++at;
    }
    KH_TRY(number(spec, &at, &how->width));
    if (byte_at(spec, at) == ',') how->thousands = 1, ++at;
    if (byte_at(spec, at) == '.') {
        ++at;
        KH_TRY(number(spec, &at, &how->precision));
    }
    if (at < spec.size) how->type = spec.data[at++];
    return at == spec.size ? KH_OK : unsupported("a part that is not known");
}

static kh_status put_field(kh_jout *out, kh_jval value, char conversion, kh_jtext spec)
{
    layout how;
    kh_jtext text;
    KH_TRY(read_layout(spec, &how));
    int plain = conversion || !kh_jval_is_number(value) || (value.kind == KH_J_BOOL && !how.type);
    if (plain) {
        if (how.type && how.type != 's')
            KH_FAIL(KH_ERR_FORMAT, "Unknown format code '%c' for object of type '%s'", how.type,
                    kh_jval_type(value));
        if (how.align == '=') {
            if (how.fill.size && how.fill.data[0] != '0') return unsupported("'=' for a text");
            how.align = '<';
        }
        KH_TRY(conversion == 'r' || conversion == 'a' ? kh_jval_repr(out->run, value, &text)
                                                      : kh_jval_show(out->run, value, &text));
        return put_text(out, text, &how);
    }
    if (how.type == 'c') return put_char(out, value, &how);
    if (how.type && !strchr("bdoxXneEfFgG%", how.type))
        KH_FAIL(KH_ERR_FORMAT, "Unknown format code '%c' for object of type '%s'", how.type,
                kh_jval_type(value));
    int real = value.kind == KH_J_FLOAT || (how.type && strchr("eEfFgG%", how.type));
    if (real && how.type && strchr("bdoxX", how.type))
        KH_FAIL(KH_ERR_FORMAT, "Unknown format code '%c' for object of type 'float'", how.type);
    return real ? put_float(out, kh_jval_number(value), &how) : put_int(out, value.i, &how);
}

typedef struct fields {
    kh_jrun *run;
    const kh_jargs *args;
    size_t next; /* of the fields without a number */
} fields;

/* The argument that `name` says, and what it says to take out of it. */
static kh_status field_value(fields *f, kh_jtext name, kh_jval *out)
{
    size_t at = 0;
    int64_t i;
    while (at < name.size && name.data[at] != '.' && name.data[at] != '[') ++at;
    kh_jtext head = kh_jtext_cut(name, 0, at);
    size_t digits = 0;
    KH_TRY(number(head, &digits, &i));
    *out = (kh_jval){0};
    if (digits == head.size) {
        size_t n = head.size ? (size_t)i : f->next++;
        if (n >= f->args->positional)
            KH_FAIL(KH_ERR_FORMAT, "Replacement index %zu out of range for positional args tuple",
                    n);
        *out = f->args->items[n];
    }
    for (size_t n = f->args->positional; n < f->args->count && out->kind == KH_J_ABSENT; ++n) {
        const kh_jtext *key = f->args->names[n - f->args->positional];
        if (key->size == head.size && kh_jtext_starts(*key, head)) *out = f->args->items[n];
    }
    if (out->kind == KH_J_ABSENT)
        KH_FAIL(KH_ERR_FORMAT, "'%.*s'", (int)(head.size < 100 ? head.size : 100), head.data);
    while (at < name.size) {
        int item = name.data[at] == '[';
        size_t start = ++at;
        while (at < name.size &&
               (item ? name.data[at] != ']' : name.data[at] != '.' && name.data[at] != '['))
            ++at;
        kh_jval key;
        kh_jtext part = kh_jtext_cut(name, start, at);
        if (item && at++ == name.size) return unsupported("a '[' without its ']'");
        digits = 0;
        KH_TRY(number(part, &digits, &i));
        KH_TRY(kh_jval_text(f->run, &key, part));
        if (item && digits && digits == part.size) key = kh_jval_int(i);
        KH_TRY(item ? kh_jval_item(f->run, *out, key, out)
                    : kh_jval_attr(f->run, *out, key.s, out));
    }
    return KH_OK;
}

static kh_status one_field(fields *f, kh_jout *out, kh_jtext field)
{
    kh_jtext name = field, spec = kh_jtext_of("");
    kh_jval value;
    char conversion = 0;
    if (memchr(field.data, '{', field.size)) return unsupported("a field inside of a field");
    size_t colon = kh_jtext_find(field, kh_jtext_of(":"), 0);
    if (colon != SIZE_MAX) {
        spec = kh_jtext_cut(field, colon + 1, field.size);
        name = kh_jtext_cut(field, 0, colon);
    }
    if (name.size >= 2 && name.data[name.size - 2] == '!') {
        conversion = name.data[name.size - 1];
        if (!strchr("rsa", conversion)) return unsupported("a conversion other than !r, !s and !a");
        name = kh_jtext_cut(name, 0, name.size - 2);
    }
    KH_TRY(field_value(f, name, &value));
    return put_field(out, value, conversion, spec);
}

kh_status kh_jtext_format(kh_jrun *run, kh_jtext format, const kh_jargs *args, kh_jval *result)
{
    fields f = {.run = run, .args = args};
    kh_jout out = {.run = run};
    for (size_t at = 0; at < format.size;) {
        char c = format.data[at];
        if ((c == '{' || c == '}') && byte_at(format, at + 1) == c) {
            KH_TRY(kh_jout_add(&out, kh_jtext_cut(format, at, at + 1)));
            at += 2;
        } else if (c == '{') {
            size_t end = kh_jtext_find(format, kh_jtext_of("}"), at);
            if (end == SIZE_MAX) KH_FAIL(KH_ERR_FORMAT, "expected '}' before end of string");
            kh_jout field = {.run = run};
            KH_TRY(one_field(&f, &field, kh_jtext_cut(format, at + 1, end)));
            KH_TRY(kh_jout_join(&out, kh_jout_text(&field), format.markup));
            at = end + 1;
        } else if (c == '}') {
            KH_FAIL(KH_ERR_FORMAT, "Single '}' encountered in format string");
        } else {
            KH_TRY(kh_jout_add(&out, kh_jtext_cut(format, at, at + 1)));
            ++at;
        }
    }
    return kh_jout_markup(&out, result, format.markup);
}
