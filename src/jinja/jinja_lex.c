/* Tokens of a chat template, as Jinja2's lexer cuts them with trim_blocks and lstrip_blocks set,
 * which is how Hugging Face renders.
 *
 *     source     line ends become \n, and one line end at the very end goes away
 *     text       up to the next {{ {% {#
 *       {%-      white space in front of the tag goes; so for {{- and {#-
 *       {%       blanks between the last line end and the tag go (not for {{, not for {%+)
 *     tag
 *       -%}      white space behind the tag goes; so for -}} and -#}
 *       %}       one line end behind the tag goes (not for }}, not for +%})
 *     {% raw %} ... {% endraw %} is text, by the same rules
 *
 * Inside a tag the end is looked for only outside of brackets, so {{ {'a': {}} }} is one tag.
 * Strings have Python's escapes.
 *
 * White space is Python's: Unicode's, and the four separators. The whole list is made at once:
 * templates are small, and the parser looks ahead. */
#include "jinja/jinja_tree.h"

#include "base/fail.h"
#include "format/utf8.h"
#include "jinja/jinja_text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef struct lexer {
    kh_jrun *run;
    kh_jtext text; /* the source, line ends normalised */
    size_t at;
    unsigned line;
    kh_jtoken *tokens;
    size_t count, room;
    char open[64]; /* brackets that are open in this tag, as their closing ones */
    size_t opened;
} lexer;

static int next_is(const lexer *l, size_t at, const char *word)
{
    size_t n = strlen(word);
    return l->text.size - at >= n && at <= l->text.size && !memcmp(l->text.data + at, word, n);
}

static char byte_at(const lexer *l, size_t at)
{
    return at < l->text.size ? l->text.data[at] : 0;
}

static size_t skip_space(const lexer *l, size_t at)
{
    while (at < l->text.size && kh_jchar_space(kh_jtext_code(l->text, at)))
        at += kh_jtext_step(l->text, at);
    return at;
}

static void go(lexer *l, size_t to)
{
    for (; l->at < to; ++l->at) l->line += l->text.data[l->at] == '\n';
    l->run->line = l->line;
}

static kh_status add(lexer *l, kh_jtoken token)
{
    if (l->count == l->room) {
        size_t room = l->room ? l->room * 2 : 256;
        kh_jtoken *grown;
        KH_TRY(kh_jmemory_take(&l->run->memory, &grown, room, sizeof *grown));
        if (l->count) memcpy(grown, l->tokens, l->count * sizeof *grown);
        l->tokens = grown;
        l->room = room;
    }
    token.line = l->line;
    l->tokens[l->count++] = token;
    return kh_jrun_count(l->run, 0);
}

/* Text in front of a tag whose sign (- + or nothing) is at `sign`. */
static kh_status add_data(lexer *l, size_t end, char sign, int print)
{
    kh_jtext data = kh_jtext_cut(l->text, l->at, end);
    int line_start = l->at == 0 || l->text.data[l->at - 1] == '\n';
    if (sign == '-') {
        data = kh_jtext_strip(data, NULL, KH_J_RIGHT);
    } else if (sign != '+' && !print) {
        size_t start = data.size;
        while (start > 0 && data.data[start - 1] != '\n') --start;
        kh_jtext rest = kh_jtext_cut(data, start, data.size);
        if ((start > 0 || line_start) && !kh_jtext_strip(rest, NULL, KH_J_LEFT).size)
            data.size = start;
    }
    if (!data.size) return KH_OK;
    return add(l, (kh_jtoken){.kind = KH_J_DATA, .text = data});
}

/* Behind the end of a tag that stands at `at`, or 0 when there is none. `mark` is "%}", "}}" or
 * "#}". */
static size_t tag_end(const lexer *l, size_t at, const char *mark)
{
    int print = mark[0] == '}';
    char sign = byte_at(l, at);
    if (sign == '-' && next_is(l, at + 1, mark)) return skip_space(l, at + 3);
    if (sign == '+' && !print && next_is(l, at + 1, mark)) return at + 3;
    if (!next_is(l, at, mark)) return 0;
    return at + 2 + (!print && byte_at(l, at + 2) == '\n');
}

/* `{%- raw -%}`: behind it, or 0. */
static size_t raw_begin(const lexer *l, size_t at)
{
    char sign = byte_at(l, at + 2);
    at = skip_space(l, at + 2 + (sign == '-' || sign == '+'));
    if (!next_is(l, at, "raw")) return 0;
    at = skip_space(l, at + 3);
    if (next_is(l, at, "-%}")) return skip_space(l, at + 3);
    return next_is(l, at, "%}") ? at + 2 : 0;
}

static kh_status lex_raw(lexer *l, size_t start)
{
    go(l, start);
    for (size_t at = start; at < l->text.size; ++at) {
        if (!next_is(l, at, "{%")) continue;
        char sign = byte_at(l, at + 2);
        size_t name = skip_space(l, at + 2 + (sign == '-' || sign == '+'));
        if (!next_is(l, name, "endraw")) continue;
        size_t end = tag_end(l, skip_space(l, name + 6), "%}");
        if (!end) continue;
        KH_TRY(add_data(l, at, sign, 0));
        go(l, end);
        return KH_OK;
    }
    KH_FAIL(KH_ERR_UNSUPPORTED, "expected {%% endraw %%}, found the end");
}

static kh_status lex_comment(lexer *l, size_t start)
{
    go(l, start);
    for (size_t at = start; at < l->text.size; ++at) {
        size_t end = tag_end(l, at, "#}");
        if (end) go(l, end);
        if (end) return KH_OK;
    }
    KH_FAIL(KH_ERR_UNSUPPORTED, "expected the end of a comment (#}), found the end");
}

/* ---- inside a tag ---- */

static kh_status bad_escape(void)
{
    KH_FAIL(KH_ERR_UNSUPPORTED, "an escape in a string is cut or names no character");
}

/* \x41, \u0041, \U00000041 */
static kh_status hex_escape(kh_jout *out, kh_jtext text, size_t *at, size_t digits)
{
    uint32_t code = 0;
    for (size_t i = 0; i < digits; ++i, ++*at) {
        char c = *at < text.size ? text.data[*at] : 0;
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return bad_escape();
        code = code << 4 | (uint32_t)digit;
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return bad_escape();
    return kh_jout_char(out, code, 0);
}

static kh_status octal_escape(kh_jout *out, kh_jtext text, size_t *at)
{
    uint32_t code = 0;
    for (int i = 0; i < 3 && *at < text.size && text.data[*at] >= '0' && text.data[*at] <= '7'; ++i)
        code = code << 3 | (uint32_t)(text.data[(*at)++] - '0');
    return kh_jout_char(out, code, 0);
}

static kh_status unescape(kh_jrun *run, kh_jtext text, kh_jval *value)
{
    static const char letters[] = "\\'\"abfnrtv", codes[] = "\\'\"\a\b\f\n\r\t\v";
    kh_jout out = {.run = run};
    for (size_t at = 0; at < text.size;) {
        size_t start = at;
        while (at < text.size && text.data[at] != '\\') ++at;
        KH_TRY(kh_jout_add(&out, kh_jtext_cut(text, start, at)));
        if (at == text.size) break;
        char c = at + 1 < text.size ? text.data[at + 1] : 0;
        const char *known = c ? strchr(letters, c) : NULL;
        at += 2;
        if (known)
            KH_TRY(kh_jout_put(&out, &codes[known - letters], 1, 0));
        else if (c == 'x' || c == 'u' || c == 'U')
            KH_TRY(hex_escape(&out, text, &at, c == 'x' ? 2 : c == 'u' ? 4 : 8));
        else if (c >= '0' && c <= '7' && at--)
            KH_TRY(octal_escape(&out, text, &at));
        else if (c == 'N')
            return bad_escape();
        else if (c != '\n')
            KH_TRY(kh_jout_put(&out, text.data + at - 2, 2, 0));
    }
    return kh_jout_value(&out, value);
}

static kh_status lex_string(lexer *l)
{
    char quote = l->text.data[l->at];
    size_t end = l->at + 1;
    while (end < l->text.size && l->text.data[end] != quote)
        end += l->text.data[end] == '\\' ? 2 : 1;
    if (end >= l->text.size) KH_FAIL(KH_ERR_UNSUPPORTED, "a string has no end");
    kh_jtoken token = {.kind = KH_J_VALUE};
    KH_TRY(unescape(l->run, kh_jtext_cut(l->text, l->at + 1, end), &token.value));
    KH_TRY(add(l, token));
    go(l, end + 1);
    return KH_OK;
}

static int is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Digits with single underscores between them. */
static size_t skip_digits(const lexer *l, size_t at)
{
    while (is_digit(byte_at(l, at)) || (byte_at(l, at) == '_' && is_digit(byte_at(l, at + 1))))
        ++at;
    return at;
}

static size_t float_end(const lexer *l)
{
    size_t at = skip_digits(l, l->at), whole = at;
    if (l->at > 0 && l->text.data[l->at - 1] == '.') return 0;
    if (byte_at(l, at) == '.' && is_digit(byte_at(l, at + 1))) at = skip_digits(l, at + 1);
    if (byte_at(l, at) == 'e' || byte_at(l, at) == 'E') {
        size_t power = at + 1;
        if (byte_at(l, power) == '+' || byte_at(l, power) == '-') ++power;
        if (is_digit(byte_at(l, power))) at = skip_digits(l, power);
    }
    return at > whole ? at : 0;
}

static kh_status lex_number(lexer *l)
{
    char digits[80];
    size_t end = float_end(l), n = 0;
    int real = end != 0, base = 10;
    char kind = (char)(byte_at(l, l->at + 1) | 32), *rest;
    if (!end && l->text.data[l->at] == '0' && (kind == 'x' || kind == 'o' || kind == 'b')) {
        base = kind == 'x' ? 16 : kind == 'o' ? 8 : 2;
        end = l->at + 2;
        while (byte_at(l, end) == '_' || is_digit(byte_at(l, end)) ||
               (base == 16 && (byte_at(l, end) | 32) >= 'a' && (byte_at(l, end) | 32) <= 'f'))
            ++end;
    } else if (!end) {
        end = skip_digits(l, l->at);
    }
    for (size_t at = l->at + (base == 10 ? 0 : 2); at < end; ++at) {
        if (n == sizeof digits - 1) KH_FAIL(KH_ERR_UNSUPPORTED, "a number has too many digits");
        if (l->text.data[at] != '_') digits[n++] = l->text.data[at];
    }
    digits[n] = 0;
    kh_jtoken token = {.kind = KH_J_VALUE};
    errno = 0;
    token.value = real ? kh_jval_float(strtod(digits, &rest))
                       : kh_jval_int(strtoll(digits, &rest, base));
    if (!n || *rest || (!real && errno == ERANGE))
        KH_FAIL(KH_ERR_UNSUPPORTED, "expected a number of at most 64 bits, found %s", digits);
    KH_TRY(add(l, token));
    go(l, end);
    return KH_OK;
}

static int in_name(uint32_t c)
{
    if (c < 128) return (c | 32) - 'a' < 26 || c - '0' < 10 || c == '_';
    utf8proc_category_t kind = utf8proc_category((utf8proc_int32_t)c);
    return kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_NO;
}

static kh_status lex_sign(lexer *l)
{
    static const char pairs[][3] = {"//", "**", "==", "!=", ">=", "<="};
    static const char single[] = "+-/*%~[](){}><=.:|,;", opening[] = "([{", closing[] = ")]}";
    char c = l->text.data[l->at];
    kh_jtoken token = {.kind = KH_J_SIGN, .sign = c};
    size_t n = 1;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; ++i)
        if (next_is(l, l->at, pairs[i])) token.sign = KH_J_SIGN2(c, pairs[i][1]), n = 2;
    if (n == 1 && (!c || !strchr(single, c)))
        KH_FAIL(KH_ERR_UNSUPPORTED, "unexpected character 0x%02x in a tag", (unsigned char)c);
    const char *open = n == 1 ? strchr(opening, c) : NULL;
    if (open) {
        if (l->opened == sizeof l->open)
            KH_FAIL(KH_ERR_UNSUPPORTED, "brackets are nested deeper than %zu", sizeof l->open);
        l->open[l->opened++] = closing[open - opening];
    } else if (n == 1 && strchr(closing, c)) {
        if (!l->opened || l->open[--l->opened] != c)
            KH_FAIL(KH_ERR_UNSUPPORTED, "unexpected '%c'", c);
    }
    KH_TRY(add(l, token));
    go(l, l->at + n);
    return KH_OK;
}

static kh_status lex_tag(lexer *l, const char *mark)
{
    l->opened = 0;
    for (;;) {
        go(l, skip_space(l, l->at));
        if (l->at == l->text.size) return KH_OK; /* the parser says what is missing */
        size_t end = l->opened ? 0 : tag_end(l, l->at, mark);
        if (end) {
            KH_TRY(add(l, (kh_jtoken){.kind = mark[0] == '%' ? KH_J_BLOCK_END : KH_J_PRINT_END}));
            go(l, end);
            return KH_OK;
        }
        char c = l->text.data[l->at];
        uint32_t code = kh_jtext_code(l->text, l->at);
        if (is_digit(c)) {
            KH_TRY(lex_number(l));
        } else if (in_name(code)) {
            size_t stop = l->at;
            while (stop < l->text.size && in_name(kh_jtext_code(l->text, stop)))
                stop += kh_jtext_step(l->text, stop);
            kh_jtext name = kh_jtext_cut(l->text, l->at, stop);
            KH_TRY(add(l, (kh_jtoken){.kind = KH_J_NAME, .text = name}));
            go(l, stop);
        } else if (c == '\'' || c == '"') {
            KH_TRY(lex_string(l));
        } else {
            KH_TRY(lex_sign(l));
        }
    }
}

static kh_status lex_all(lexer *l)
{
    while (l->at < l->text.size) {
        size_t at = l->at;
        while (at < l->text.size &&
               !(next_is(l, at, "{{") || next_is(l, at, "{%") || next_is(l, at, "{#")))
            ++at;
        if (at == l->text.size) {
            KH_TRY(add_data(l, at, '+', 0));
            break;
        }
        char kind = l->text.data[at + 1], sign = byte_at(l, at + 2);
        size_t raw = kind == '%' ? raw_begin(l, at) : 0;
        size_t inside = at + 2 + (sign == '-' || sign == '+');
        KH_TRY(add_data(l, at, sign, kind == '{'));
        go(l, at);
        if (raw) {
            KH_TRY(lex_raw(l, raw));
        } else if (kind == '#') {
            KH_TRY(lex_comment(l, inside));
        } else {
            KH_TRY(add(l, (kh_jtoken){.kind = kind == '%' ? KH_J_BLOCK_BEGIN : KH_J_PRINT_BEGIN}));
            go(l, inside);
            KH_TRY(lex_tag(l, kind == '%' ? "%}" : "}}"));
        }
    }
    return KH_OK;
}

/* A copy of the source with \n for \r\n and \r, and without one line end at the end. */
static kh_status normalise(kh_jrun *run, kh_jtext *out, const char *text, size_t size)
{
    char *copy;
    size_t n = 0;
    KH_TRY(kh_jmemory_take(&run->memory, &copy, size + 1, 1));
    for (size_t i = 0; i < size; ++i) {
        if (text[i] == '\r' && i + 1 < size && text[i + 1] == '\n') continue;
        copy[n++] = (char)(text[i] == '\r' ? '\n' : text[i]);
    }
    if (n && copy[n - 1] == '\n') --n;
    *out = (kh_jtext){.data = copy, .size = n};
    return KH_OK;
}

kh_status kh_jtoken_list(kh_jrun *run, kh_jtoken **out, const char *text, size_t size)
{
    lexer l = {.run = run, .line = 1};
    *out = NULL;
    run->line = 1;
    if (kh_utf8_valid(text, size) != size)
        KH_FAIL(KH_ERR_UNSUPPORTED, "expected UTF-8, found byte 0x%02x at %zu",
                (unsigned char)text[kh_utf8_valid(text, size)], kh_utf8_valid(text, size));
    KH_TRY(normalise(run, &l.text, text, size));
    KH_TRY(lex_all(&l));
    KH_TRY(add(&l, (kh_jtoken){.kind = KH_J_END}));
    *out = l.tokens;
    return KH_OK;
}
