/* Values of chat templates as text: Python's str(), repr() and json.dumps(), and JSON read back.
 *
 * Templates print with str(), which for a string is the string, and hand tools to the model with
 * tojson, which Hugging Face defines as json.dumps without escapes for what is not ASCII. Both
 * have to agree with Python's to the byte: a float is the shortest decimal that reads back the
 * same, with an exponent from 1e16 up and below 1e-4; repr() prefers single quotes and escapes
 * what is not printable (Unicode's categories C and Z but the space).
 *
 * What is shown of a list or a dictionary counts as the conversation's from its first byte to
 * its last (jinja_text.c says why).
 *
 * JSON is read by recursive descent as RFC 8259 has it, straight into the values of a rendering:
 * no second tree is built. A later member of the same name replaces an earlier one. Refused:
 * nesting beyond the depth of a rendering, integers beyond 64 bits, text that is not UTF-8, lone
 * surrogates. */
#include "jinja/jinja_text.h"

#include "base/fail.h"
#include "format/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* ---- str and repr ---- */

/* Digits (without a point) and decimal exponent of the shortest decimal that reads back as f >
 * 0. */
static int shortest(double f, char digits[20], int *exponent)
{
    char text[40];
    for (int n = 1; n <= 17; ++n) {
        snprintf(text, sizeof text, "%.*e", n - 1, f);
        if (n < 17 && strtod(text, NULL) != f) continue;
        int count = 0;
        char *at = text;
        for (; *at && *at != 'e'; ++at)
            if (*at >= '0' && *at <= '9') digits[count++] = *at;
        *exponent = (int)strtol(at + 1, NULL, 10);
        return count;
    }
    return 0;
}

size_t kh_jfloat_repr(char out[KH_J_FLOAT_SIZE], double f)
{
    char digits[20] = {0}, *at = out;
    int exponent = 0;
    if (isnan(f)) return (size_t)snprintf(out, KH_J_FLOAT_SIZE, "nan");
    if (signbit(f)) *at++ = '-';
    f = fabs(f);
    if (isinf(f)) return (size_t)(at - out + snprintf(at, 8, "inf"));
    if (f == 0) return (size_t)(at - out + snprintf(at, 8, "0.0"));
    int n = shortest(f, digits, &exponent);
    if (exponent < -4 || exponent >= 16) {
        *at++ = digits[0];
        if (n > 1) *at++ = '.';
        memcpy(at, digits + 1, (size_t)(n - 1));
        at += n - 1;
        return (size_t)(at - out +
                        snprintf(at, 8, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent)));
    }
    if (exponent < 0) {
        at += snprintf(at, 8, "0.%.*s", -exponent - 1, "000");
        memcpy(at, digits, (size_t)n);
        return (size_t)(at + n - out);
    }
    for (int i = 0; i <= exponent; ++i) *at++ = i < n ? digits[i] : '0';
    *at++ = '.';
    if (n <= exponent + 1) *at++ = '0';
    for (int i = exponent + 1; i < n; ++i) *at++ = digits[i];
    return (size_t)(at - out);
}

static int is_printable(uint32_t c)
{
    if (c == ' ') return 1;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return 0;
    default: return 1;
    }
}

static kh_status repr_text(kh_jout *out, kh_jtext text)
{
    char quote = '\'', escape[16];
    if (text.size && memchr(text.data, '\'', text.size) && !memchr(text.data, '"', text.size))
        quote = '"';
    if (text.markup) KH_TRY(kh_jout_put(out, "Markup(", 7, 1));
    KH_TRY(kh_jout_put(out, &quote, 1, 1));
    for (size_t at = 0, size; at < text.size; at += size) {
        uint32_t c = kh_jtext_code(text, at);
        size = kh_jtext_step(text, at);
        if (c == (uint32_t)quote || c == '\\')
            snprintf(escape, sizeof escape, "\\%c", (char)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            snprintf(escape, sizeof escape, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else if (is_printable(c))
            escape[0] = 0;
        else
            snprintf(escape, sizeof escape,
                     c < 0x100     ? "\\x%02x"
                     : c < 0x10000 ? "\\u%04x"
                                   : "\\U%08x",
                     (unsigned)c);
        if (escape[0])
            KH_TRY(kh_jout_put(out, escape, strlen(escape), 1));
        else
            KH_TRY(kh_jout_put(out, text.data + at, size, 1));
    }
    KH_TRY(kh_jout_put(out, &quote, 1, 1));
    return text.markup ? kh_jout_put(out, ")", 1, 1) : KH_OK;
}

static kh_status repr(kh_jout *out, kh_jval value);

static kh_status put(kh_jout *out, const char *word)
{
    return kh_jout_put(out, word, strlen(word), 1);
}

static kh_status repr_items(kh_jout *out, const kh_jlist *list)
{
    for (size_t i = 0; i < list->count; ++i) {
        if (i) KH_TRY(put(out, ", "));
        KH_TRY(repr(out, list->items[i]));
    }
    return KH_OK;
}

static kh_status repr_list(kh_jout *out, kh_jval value)
{
    const kh_jlist *list = value.list;
    char text[96];
    switch (value.kind) {
    case KH_J_TUPLE:
        KH_TRY(put(out, "("));
        KH_TRY(repr_items(out, list));
        return put(out, list->count == 1 ? ",)" : ")");
    case KH_J_RANGE: {
        int64_t first = list->count ? list->items[0].i : 0;
        int64_t step = list->count > 1 ? list->items[1].i - first : 1;
        int64_t end = first + step * (int64_t)list->count;
        int n = snprintf(text, sizeof text, "range(%" PRId64 ", %" PRId64, first, end);
        if (step == 1)
            snprintf(text + n, sizeof text - (size_t)n, ")");
        else
            snprintf(text + n, sizeof text - (size_t)n, ", %" PRId64 ")", step);
        return put(out, text);
    }
    case KH_J_ITERATOR: return put(out, "<generator object>");
    case KH_J_VIEW:
        KH_TRY(put(out, list->name));
        KH_TRY(put(out, "("));
        break;
    default: break;
    }
    KH_TRY(put(out, "["));
    KH_TRY(repr_items(out, list));
    return put(out, value.kind == KH_J_VIEW ? "])" : "]");
}

static kh_status repr_dict(kh_jout *out, kh_jval value)
{
    int space = value.kind == KH_J_NAMESPACE;
    KH_TRY(put(out, space ? "<Namespace {" : "{"));
    for (size_t i = 0; i < value.dict->count; ++i) {
        if (i) KH_TRY(put(out, ", "));
        KH_TRY(repr(out, value.dict->entries[i].key));
        KH_TRY(put(out, ": "));
        KH_TRY(repr(out, value.dict->entries[i].value));
    }
    return put(out, space ? "}>" : "}");
}

static kh_status repr(kh_jout *out, kh_jval value)
{
    KH_TRY(kh_jrun_enter(out->run));
    if (value.kind == KH_J_STRING)
        KH_TRY(repr_text(out, *value.s));
    else if (kh_jval_is_list(value))
        KH_TRY(repr_list(out, value));
    else if (value.kind == KH_J_DICT || value.kind == KH_J_NAMESPACE)
        KH_TRY(repr_dict(out, value));
    else if (value.kind == KH_J_UNDEFINED)
        KH_TRY(put(out, "Undefined"));
    else
        KH_TRY(kh_jout_show(out, value));
    kh_jrun_leave(out->run);
    return KH_OK;
}

kh_status kh_jout_show(kh_jout *out, kh_jval value)
{
    char text[KH_J_FLOAT_SIZE];
    switch (value.kind) {
    case KH_J_ABSENT:
    case KH_J_UNDEFINED: return KH_OK;
    case KH_J_NONE: return kh_jout_word(out, "None");
    case KH_J_BOOL: return kh_jout_word(out, value.i ? "True" : "False");
    case KH_J_INT: snprintf(text, sizeof text, "%" PRId64, value.i); return kh_jout_word(out, text);
    case KH_J_FLOAT: return kh_jout_put(out, text, kh_jfloat_repr(text, value.f), 0);
    case KH_J_STRING: return kh_jout_add(out, *value.s);
    case KH_J_FUNCTION: return kh_jout_word(out, "<function>");
    case KH_J_MACRO: return kh_jout_word(out, "<Macro>");
    case KH_J_LOOP: return kh_jout_word(out, "<LoopContext>");
    default: return repr(out, value);
    }
}

kh_status kh_jval_show(kh_jrun *run, kh_jval value, kh_jtext *out)
{
    kh_jout text = {.run = run};
    if (value.kind == KH_J_STRING) *out = *value.s;
    if (value.kind == KH_J_STRING) return KH_OK;
    KH_TRY(kh_jout_show(&text, value));
    *out = kh_jout_text(&text);
    return KH_OK;
}

kh_status kh_jval_repr(kh_jrun *run, kh_jval value, kh_jtext *out)
{
    kh_jout text = {.run = run};
    KH_TRY(repr(&text, value));
    *out = kh_jout_text(&text);
    return KH_OK;
}

/* ---- json.dumps ---- */

static kh_status json_text(kh_jout *out, kh_jtext text, const kh_jjson *how)
{
    static const char plain[] = "\"\\\n\r\t\b\f", letter[] = "\"\\nrtbf";
    KH_TRY(put(out, "\""));
    for (size_t at = 0, size; at < text.size; at += size) {
        uint32_t c = kh_jtext_code(text, at);
        const char *known = c && c < 128 ? strchr(plain, (int)c) : NULL;
        char escape[16] = "";
        size = kh_jtext_step(text, at);
        if (known)
            snprintf(escape, sizeof escape, "\\%c", letter[known - plain]);
        else if (c < 32 || (how->ascii && c > 126 && c < 0x10000 && c != 127))
            snprintf(escape, sizeof escape, "\\u%04x", (unsigned)c);
        else if (how->ascii && c >= 0x10000)
            snprintf(escape, sizeof escape, "\\u%04x\\u%04x",
                     0xD800 + (((unsigned)c - 0x10000) >> 10), 0xDC00 + ((unsigned)c & 0x3FF));
        if (escape[0])
            KH_TRY(put(out, escape));
        else
            KH_TRY(kh_jout_put(out, text.data + at, size, 1));
    }
    return put(out, "\"");
}

static kh_status json_scalar(kh_jout *out, kh_jval value, const kh_jjson *how)
{
    char text[KH_J_FLOAT_SIZE];
    switch (value.kind) {
    case KH_J_STRING: return json_text(out, *value.s, how);
    case KH_J_NONE: return put(out, "null");
    case KH_J_BOOL: return put(out, value.i ? "true" : "false");
    case KH_J_INT: snprintf(text, sizeof text, "%" PRId64, value.i); return put(out, text);
    case KH_J_FLOAT:
        if (isnan(value.f)) return put(out, "NaN");
        if (isinf(value.f)) return put(out, value.f < 0 ? "-Infinity" : "Infinity");
        return kh_jout_put(out, text, kh_jfloat_repr(text, value.f), 1);
    default:
        KH_FAIL(KH_ERR_FORMAT, "Object of type %s is not JSON serializable", kh_jval_type(value));
    }
}

static kh_status new_line(kh_jout *out, const kh_jjson *how, size_t level)
{
    if (!how->lines) return KH_OK;
    KH_TRY(put(out, "\n"));
    while (level--) KH_TRY(kh_jout_put(out, how->indent.data, how->indent.size, 1));
    return KH_OK;
}

static kh_status json_key(kh_jout *out, kh_jval key, const kh_jjson *how)
{
    if (key.kind == KH_J_STRING) return json_text(out, *key.s, how);
    if (key.kind == KH_J_TUPLE)
        KH_FAIL(KH_ERR_FORMAT, "keys must be str, int, float, bool or None, not tuple");
    KH_TRY(put(out, "\""));
    KH_TRY(json_scalar(out, key, how));
    return put(out, "\"");
}

/* Entries in the order of their keys: a merge sort, so that the work is bounded whatever they
 * are. */
static kh_status sort_entries(kh_jrun *run, kh_jentry *list, kh_jentry *spare, size_t n)
{
    if (n < 2) return KH_OK;
    size_t half = n / 2;
    KH_TRY(sort_entries(run, list, spare, half));
    KH_TRY(sort_entries(run, list + half, spare, n - half));
    memcpy(spare, list, half * sizeof *list);
    for (size_t i = 0, j = half, at = 0; i < half; ++at) {
        int order = -1;
        if (j < n) KH_TRY(kh_jval_order(run, list[j].key, spare[i].key, "<", &order));
        if (j < n && order == -1)
            list[at] = list[j++];
        else
            list[at] = spare[i++];
    }
    return KH_OK;
}

static kh_status json_value(kh_jout *out, kh_jval value, const kh_jjson *how, size_t level)
{
    int dict = value.kind == KH_J_DICT;
    if (!dict && value.kind != KH_J_LIST && value.kind != KH_J_TUPLE)
        return json_scalar(out, value, how);
    size_t n = dict ? value.dict->count : value.list->count;
    if (!n) return put(out, dict ? "{}" : "[]");
    kh_jentry *entries = dict ? value.dict->entries : NULL;
    KH_TRY(kh_jrun_enter(out->run));
    if (dict && how->sorted) {
        kh_jentry *spare;
        KH_TRY(kh_jmemory_take(&out->run->memory, &entries, n, sizeof *entries));
        KH_TRY(kh_jmemory_take(&out->run->memory, &spare, n, sizeof *spare));
        memcpy(entries, value.dict->entries, n * sizeof *entries);
        KH_TRY(sort_entries(out->run, entries, spare, n));
    }
    KH_TRY(put(out, dict ? "{" : "["));
    for (size_t i = 0; i < n; ++i) {
        if (i) KH_TRY(kh_jout_put(out, how->item.data, how->item.size, 1));
        KH_TRY(new_line(out, how, level + 1));
        if (dict) {
            KH_TRY(json_key(out, entries[i].key, how));
            KH_TRY(kh_jout_put(out, how->key.data, how->key.size, 1));
        }
        KH_TRY(json_value(out, dict ? entries[i].value : value.list->items[i], how, level + 1));
    }
    KH_TRY(new_line(out, how, level));
    kh_jrun_leave(out->run);
    return put(out, dict ? "}" : "]");
}

kh_status kh_jout_json(kh_jout *out, kh_jval value, const kh_jjson *how)
{
    return json_value(out, value, how, 0);
}

/* ---- JSON read ---- */

typedef struct reader {
    kh_jrun *run;
    const char *start, *at, *end, *what;
    int said;
} reader;

static kh_status bad(const reader *r, const char *expected)
{
    KH_FAIL(KH_ERR_ARGUMENT, "%s: no valid JSON at byte %zu: expected %s", r->what,
            (size_t)(r->at - r->start), expected);
}

static void skip_space(reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t'))
        ++r->at;
}

static int take(reader *r, char c)
{
    skip_space(r);
    if (r->at == r->end || *r->at != c) return 0;
    ++r->at;
    return 1;
}

static kh_status hex4(reader *r, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < 4; ++i, ++r->at) {
        char c = r->at < r->end ? *r->at : 0;
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return bad(r, "four hexadecimal digits");
        *out = *out << 4 | (uint32_t)digit;
    }
    return KH_OK;
}

static kh_status read_escape(reader *r, kh_jout *out)
{
    static const char letters[] = "\"\\/bfnrt", codes[] = "\"\\/\b\f\n\r\t";
    char c = r->at < r->end ? *r->at : 0;
    const char *known = c ? strchr(letters, c) : NULL;
    if (known) ++r->at;
    if (known) return kh_jout_put(out, &codes[known - letters], 1, r->said);
    if (c != 'u') return bad(r, "an escape");
    ++r->at;
    uint32_t code, low = 0;
    KH_TRY(hex4(r, &code));
    if (code >= 0xD800 && code < 0xDC00) {
        if (r->end - r->at < 2 || r->at[0] != '\\' || r->at[1] != 'u')
            return bad(r, "the second half of a surrogate pair");
        r->at += 2;
        KH_TRY(hex4(r, &low));
        if (low < 0xDC00 || low > 0xDFFF) return bad(r, "the second half of a surrogate pair");
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code < 0xE000) {
        return bad(r, "a character, found half of a surrogate pair");
    }
    return kh_jout_char(out, code, r->said);
}

static kh_status read_text(reader *r, kh_jval *value)
{
    kh_jout out = {.run = r->run};
    if (!take(r, '"')) return bad(r, "a string");
    for (;;) {
        const char *start = r->at;
        while (r->at < r->end && *r->at != '"' && *r->at != '\\' && (unsigned char)*r->at >= 32)
            ++r->at;
        size_t n = (size_t)(r->at - start);
        if (kh_utf8_valid(start, n) != n) return bad(r, "UTF-8");
        KH_TRY(kh_jout_put(&out, start, n, r->said));
        if (r->at == r->end || (unsigned char)*r->at < 32) return bad(r, "the end of a string");
        if (*r->at++ == '"') break;
        KH_TRY(read_escape(r, &out));
    }
    return kh_jout_value(&out, value);
}

static size_t digits(const char *at, const char *end)
{
    const char *start = at;
    while (at < end && *at >= '0' && *at <= '9') ++at;
    return (size_t)(at - start);
}

static kh_status read_number(reader *r, kh_jval *out)
{
    char text[64];
    const char *at = r->at;
    int whole = 1;
    if (at < r->end && *at == '-') ++at;
    size_t n = digits(at, r->end);
    if (!n || (n > 1 && *at == '0')) return bad(r, "a value");
    at += n;
    if (at < r->end && *at == '.') {
        n = digits(at + 1, r->end);
        if (!n) return bad(r, "a number");
        at += n + 1;
        whole = 0;
    }
    if (at < r->end && (*at == 'e' || *at == 'E')) {
        const char *power = at + 1;
        if (power < r->end && (*power == '+' || *power == '-')) ++power;
        n = digits(power, r->end);
        if (!n) return bad(r, "a number");
        at = power + n;
        whole = 0;
    }
    n = (size_t)(at - r->at);
    if (n >= sizeof text) return bad(r, "a number of at most 63 characters");
    memcpy(text, r->at, n);
    text[n] = 0;
    if (whole && n > 18 + (text[0] == '-')) {
        int64_t i = strtoll(text, NULL, 10);
        char back[32];
        snprintf(back, sizeof back, "%" PRId64, i);
        if (strcmp(back, text) != 0) return bad(r, "an integer of at most 64 bits");
    }
    *out = whole ? kh_jval_int(strtoll(text, NULL, 10)) : kh_jval_float(strtod(text, NULL));
    r->at = at;
    return KH_OK;
}

static kh_status read_value(reader *r, kh_jval *out);

static kh_status read_list(reader *r, kh_jval *out)
{
    KH_TRY(kh_jval_list(r->run, out, KH_J_LIST, 0));
    if (take(r, ']')) return KH_OK;
    do {
        kh_jval item;
        KH_TRY(read_value(r, &item));
        KH_TRY(kh_jlist_add(r->run, out->list, item));
    } while (take(r, ','));
    return take(r, ']') ? KH_OK : bad(r, "',' or ']'");
}

static kh_status read_dict(reader *r, kh_jval *out)
{
    KH_TRY(kh_jval_dict(r->run, out, KH_J_DICT));
    if (take(r, '}')) return KH_OK;
    do {
        kh_jval key, value;
        KH_TRY(read_text(r, &key));
        if (!take(r, ':')) return bad(r, "':'");
        KH_TRY(read_value(r, &value));
        KH_TRY(kh_jdict_set(r->run, out->dict, key, value));
    } while (take(r, ','));
    return take(r, '}') ? KH_OK : bad(r, "',' or '}'");
}

static int take_word(reader *r, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(r->end - r->at) < n || memcmp(r->at, word, n) != 0) return 0;
    r->at += n;
    return 1;
}

static kh_status read_value(reader *r, kh_jval *out)
{
    KH_TRY(kh_jrun_enter(r->run));
    skip_space(r);
    char c = r->at < r->end ? *r->at : 0;
    if (c == '"')
        KH_TRY(read_text(r, out));
    else if (take(r, '['))
        KH_TRY(read_list(r, out));
    else if (take(r, '{'))
        KH_TRY(read_dict(r, out));
    else if (take_word(r, "true") || take_word(r, "false"))
        *out = kh_jval_bool(c == 't');
    else if (take_word(r, "null"))
        *out = kh_jval_none();
    else
        KH_TRY(read_number(r, out));
    kh_jrun_leave(r->run);
    return KH_OK;
}

kh_status kh_jval_parse(kh_jrun *run, kh_jval *out, const char *text, size_t size, int said,
                        const char *what)
{
    reader r = {run, text, text, text + size, what, said};
    KH_TRY(read_value(&r, out));
    skip_space(&r);
    return r.at == r.end ? KH_OK : bad(&r, "the end");
}
