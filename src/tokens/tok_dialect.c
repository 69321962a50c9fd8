/* Oniguruma's regular expressions, rewritten for PCRE2.
 *
 * tokenizer.json is matched by Oniguruma. Most of its syntax is PCRE2's; what differs is
 * rewritten:
 *
 *     \s \S      White_Space; PCRE2's \s has U+180E too      \h \H    a hexadecimal digit, or none
 *     \w \W      letters, marks, digits, connectors          \uHHHH   \x{HHHH}
 *     \p{Alpha}, \p{Punct} and their like                   (?m)     (?s): the dot matches all
 *     x{1,3}+    (?:x{1,3})+: not possessive                 x{,3}    x{0,3}
 *     [a[bc]]    [abc]                                       [A&&[B]] (?:(?=[B])[A])
 *
 * ^ and $ are the ends of lines in Oniguruma, always; the compiler is told so. What has no
 * counterpart is refused by name: negated classes inside classes, other intersections, and \W
 * inside a class. \S inside a class stays PCRE2's, which differs at U+180E alone. */
#include "base/fail.h"
#include "format/utf8.h"
#include "tokens/tok_regex.h"

#include <string.h>

#define SPACE "\\t-\\r\\x{85}\\p{Z}"
#define WORD  "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define HEX   "0-9A-Fa-f"

enum { DEEPEST = 64 };

typedef struct reader {
    kh_buf *out;
    kh_slice p;
    size_t at;
    size_t atom; /* where the last thing that can be repeated begins in `out` */
    size_t open[DEEPEST];
    int depth, classes;
    const char *what;
} reader;

static kh_status refuse(const reader *r, const char *part)
{
    KH_FAIL(KH_ERR_UNSUPPORTED, "the pattern of %s has %s, which is not supported", r->what, part);
}

static int peek(const reader *r, size_t ahead)
{
    return r->at + ahead < r->p.size ? (unsigned char)r->p.data[r->at + ahead] : -1;
}

static kh_status copy(reader *r, size_t n)
{
    if (n > r->p.size - r->at) n = r->p.size - r->at;
    KH_TRY(kh_buf_add(r->out, r->p.data + r->at, n));
    r->at += n;
    return KH_OK;
}

/* Members of a class, inside brackets of its own unless it already stands in some. */
static kh_status put_class(reader *r, const char *members, int negated, int inside)
{
    if (inside) return kh_buf_text(r->out, members);
    return kh_buf_format(r->out, "[%s%s]", negated ? "^" : "", members);
}

/* \p{NAME} or \P{NAME}: the names that PCRE2 does not know. */
static kh_status property(reader *r, int inside)
{
    static const struct {
        const char *name, *members;
    } known[] = {
        {"alpha", "\\p{Alphabetic}"},
        {"alnum", "\\p{Alphabetic}\\p{Nd}"},
        {"space", SPACE},
        {"upper", "\\p{Uppercase}"},
        {"lower", "\\p{Lowercase}"},
        {"digit", "\\p{Nd}"},
        {"punct", "\\p{P}$+<=>^`|~"},
        {"word", WORD},
        {"xdigit", HEX},
    };
    const char *start = r->p.data + r->at + 3;
    const char *end = peek(r, 2) == '{' ? memchr(start, '}', r->p.size - r->at - 3) : NULL;
    if (!end) return copy(r, 3);
    int negated = peek(r, 1) == 'P';
    size_t n = (size_t)(end - start);
    if (n && *start == '^') {
        negated = !negated;
        ++start;
        --n;
    }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; ++i) {
        if (strlen(known[i].name) != n || strncasecmp(known[i].name, start, n) != 0) continue;
        if (negated && inside) return refuse(r, "a negated property inside a class");
        r->at = (size_t)(end + 1 - r->p.data);
        return put_class(r, known[i].members, negated, inside);
    }
    return copy(r, (size_t)(end + 1 - r->p.data) - r->at);
}

static kh_status escape(reader *r, int inside)
{
    int c = peek(r, 1);
    const char *members = NULL;
    switch (c) {
    case -1: return refuse(r, "a backslash at its end");
    case 'p':
    case 'P': return property(r, inside);
    case 'u':
        KH_TRY(kh_buf_format(r->out, "\\x{%.*s}", 4,
                             r->p.size - r->at >= 6 ? r->p.data + r->at + 2 : ""));
        r->at += 6;
        return r->at <= r->p.size ? KH_OK : refuse(r, "\\u without four digits");
    case 's':
    case 'S': members = SPACE; break;
    case 'w':
    case 'W': members = WORD; break;
    case 'h':
    case 'H': members = HEX; break;
    default: break;
    }
    int negated = c == 'S' || c == 'W' || c == 'H';
    if (inside && (c == 'W' || c == 'H')) return refuse(r, "\\W or \\H inside a class");
    if (!members || (inside && negated)) {
        size_t n = kh_utf8_next(r->p.data + r->at + 1, r->p.size - r->at - 1).size;
        return copy(r, 1 + n);
    }
    r->at += 2;
    return put_class(r, members, negated, inside);
}

static kh_status class(reader *r, int inside);

/* Behind [A&&: the class that follows becomes a lookahead in front of [A. */
static kh_status intersect(reader *r, size_t start, int negated, int inside)
{
    static const char open[] = "(?:(?=", shut[] = ")";
    r->at += 2;
    if (negated || inside || peek(r, 0) != '[')
        return refuse(r, "an intersection of classes other than [A&&[B]]");
    size_t first = r->out->size - start, from = r->out->size;
    KH_TRY(class(r, 0));
    if (peek(r, 0) != ']') return refuse(r, "an intersection of classes other than [A&&[B]]");
    size_t second = r->out->size - from, extra = sizeof open - 1 + sizeof shut - 1;
    KH_TRY(kh_buf_reserve(r->out, r->out->size + first + 2 * extra));
    char *text = r->out->data + start, *kept = r->out->data + r->out->size + extra;
    memcpy(kept, text, first); /* [A, behind everything that moves */
    memmove(text + sizeof open - 1, r->out->data + from, second);
    memcpy(text, open, sizeof open - 1);
    memcpy(text + sizeof open - 1 + second, shut, sizeof shut - 1);
    memmove(text + extra + second, kept, first);
    r->out->size += extra;
    r->out->data[r->out->size] = 0;
    ++r->at;
    return kh_buf_text(r->out, "])");
}

static kh_status posix_class(reader *r)
{
    const char *end = memmem(r->p.data + r->at, r->p.size - r->at, ":]", 2);
    if (!end) return refuse(r, "a class without an end");
    return copy(r, (size_t)(end + 2 - r->p.data) - r->at);
}

/* A class inside another is its members: brackets are dropped. */
static kh_status class(reader *r, int inside)
{
    size_t start = r->out->size;
    int negated = peek(r, 1) == '^';
    if (inside && negated) return refuse(r, "a negated class inside a class");
    if (inside && peek(r, 1) == ']') return refuse(r, "an empty class");
    if (r->classes == DEEPEST) return refuse(r, "more than 64 classes inside each other");
    ++r->classes;
    if (inside)
        ++r->at;
    else
        KH_TRY(copy(r, 1 + (size_t)negated));
    if (!inside && peek(r, 0) == ']') KH_TRY(copy(r, 1));
    for (int c; (c = peek(r, 0)) != ']';) {
        if (c < 0) return refuse(r, "a class without an end");
        if (c == '[' && peek(r, 1) == ':')
            KH_TRY(posix_class(r));
        else if (c == '[')
            KH_TRY(class(r, 1));
        else if (c == '&' && peek(r, 1) == '&') {
            --r->classes;
            return intersect(r, start, negated, inside);
        } else
            KH_TRY(c == '\\' ? escape(r, 1) : copy(r, 1));
    }
    --r->classes;
    if (!inside) return copy(r, 1);
    ++r->at;
    return KH_OK;
}

static kh_status group(reader *r)
{
    if (r->depth == DEEPEST) return refuse(r, "more than 64 groups inside each other");
    r->open[r->depth++] = r->out->size;
    KH_TRY(copy(r, 1));
    if (peek(r, 0) != '?') return KH_OK;
    KH_TRY(copy(r, 1));
    for (int c; (c = peek(r, 0)) == 'i' || c == 'm' || c == 'x' || c == '-';) {
        KH_TRY(kh_buf_add(r->out, c == 'm' ? "s" : &r->p.data[r->at], 1));
        ++r->at;
    }
    if (peek(r, 0) == '<' || peek(r, 0) == ':' || peek(r, 0) == '=' || peek(r, 0) == '!')
        return copy(r, 1);
    return KH_OK;
}

/* Length of {n}, {n,}, {n,m} or {,m} at the reader, or 0. */
static size_t interval(const reader *r)
{
    size_t n = 1, digits = 0;
    int commas = 0;
    for (int c; (c = peek(r, n)) != '}'; ++n) {
        if (c == ',')
            ++commas;
        else if (c >= '0' && c <= '9')
            ++digits;
        else
            return 0;
    }
    return digits && commas < 2 ? n + 1 : 0;
}

static kh_status repeat(reader *r)
{
    size_t n = interval(r);
    if (!n) {
        r->atom = r->out->size;
        return copy(r, 1);
    }
    int again = peek(r, n) == '+';
    if (again) {
        KH_TRY(kh_buf_add(r->out, "(?:", 3));
        char *from = r->out->data + r->atom;
        memmove(from + 3, from, r->out->size - 3 - r->atom);
        memcpy(from, "(?:", 3);
    }
    if (peek(r, 1) == ',') {
        KH_TRY(kh_buf_text(r->out, "{0"));
        ++r->at;
        --n;
    }
    KH_TRY(copy(r, n));
    return again ? kh_buf_text(r->out, ")") : KH_OK;
}

static kh_status part(reader *r)
{
    int c = peek(r, 0);
    if (c == '{') return repeat(r);
    if (c == '*' || c == '+' || c == '?') return copy(r, 1);
    if (c == ')') {
        r->atom = r->depth ? r->open[--r->depth] : r->out->size;
        return copy(r, 1);
    }
    if (c == '(') return group(r);
    r->atom = r->out->size;
    if (c == '\\') return escape(r, 0);
    if (c == '[') return class(r, 0);
    return copy(r, kh_utf8_next(r->p.data + r->at, r->p.size - r->at).size);
}

kh_status kh_regex_translate(kh_buf *out, kh_slice pattern, const char *what)
{
    reader r = {.out = out, .p = pattern, .atom = out->size, .what = what};
    while (r.at < r.p.size) KH_TRY(part(&r));
    return KH_OK;
}
